"""Many arms: every pair compared, with one adjustment for their number."""

from __future__ import annotations

from whyprompt.effects.arms.arms import (
    ArmContrast,
    ArmMean,
    ArmsResult,
    PairBalanceRow,
    compare_arms,
)

__all__ = [
    "ArmContrast",
    "ArmMean",
    "ArmsResult",
    "PairBalanceRow",
    "compare_arms",
]
