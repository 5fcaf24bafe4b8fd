"""One self-contained page of what a study found.

Nothing is estimated here: every figure on the page is a value of a result that a caller has, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whyprompt.page.page import build_report, write_report
    from whyprompt.page.strength import Strength, effect_strength

__all__ = ["Strength", "build_report", "effect_strength", "write_report"]

_STRENGTH = ("Strength", "effect_strength")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any member
    # altair takes a second to import: `whyprompt --help` must not wait for it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{'strength' if name in _STRENGTH else 'page'}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
