"""What ``whyprompt effect`` prints of the checks beside an estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whyprompt.results import Result

__all__ = ["check_text"]


def check_text(name: str, found: Result) -> str:
    """Write a check for a reader.

    Parameters
    ----------
    name : str
        What was checked.
    found : Result

    Returns
    -------
    str
    """
    title = {
        "sensitivity": "Hidden confounding",
        "placebo": "Placebo arm",
        "refutation": "Refutation",
        "heterogeneity": "Whom the arm helps and harms",
        "policy": "Which arm for which row",
        "cross_check": "Beside DoWhy and CausalML",
    }[name]
    return f"{title}:\n  {found.summary(brief=True)}"
