"""DoWhy and CausalML on the same table, beside our own numbers."""

from __future__ import annotations

from whyprompt.effects.crosscheck._result import (
    CrossCheck,
    CrossCheckRow,
    IdentificationCheck,
    RefuterRow,
    UpliftPoint,
)
from whyprompt.effects.crosscheck.cross_check import cross_check

__all__ = [
    "CrossCheck",
    "CrossCheckRow",
    "IdentificationCheck",
    "RefuterRow",
    "UpliftPoint",
    "cross_check",
]
