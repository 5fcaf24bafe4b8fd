"""Outcomes of the user's own: any Python callable, by import path."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whyprompt.errors import StudyError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["checked_value", "load_callable"]


def load_callable(path: str, *, outcome: str) -> Callable[..., Any]:
    """Import ``package.module:function``; modules in the current folder are found too."""
    module_name, _, attribute = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        target: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            target = getattr(target, part)
    except Exception as error:
        # Importing runs the user's module: whatever it raises is theirs to see.
        raise StudyError(
            f"outcome {outcome!r}: {path!r} cannot be imported: {type(error).__name__}: {error}",
            hint="modules are found on Python's path and in the current folder",
        ) from error
    if not callable(target):
        raise StudyError(f"outcome {outcome!r}: {path!r} is not callable")
    result: Callable[..., Any] = target
    return result


def checked_value(value: object, *, outcome: str, where: str) -> float:
    """Refuse what is not a finite number, naming the outcome and the trial."""
    if isinstance(value, bool):
        return float(value)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise StudyError(
            f"outcome {outcome!r} gave {value!r} for {where}: an outcome is a number, True or False"
        ) from None
    if not math.isfinite(number):
        raise StudyError(f"outcome {outcome!r} gave {number} for {where}: an outcome is finite")
    return number
