"""Items run under both arms: the design that needs no adjustment."""

from __future__ import annotations

from whyprompt.effects.paired.paired import (
    PairedDifferences,
    PairedResult,
    SubgroupRow,
    item_labels,
    mean_error,
    paired_differences,
    paired_effect,
)

__all__ = [
    "PairedDifferences",
    "PairedResult",
    "SubgroupRow",
    "item_labels",
    "mean_error",
    "paired_differences",
    "paired_effect",
]
