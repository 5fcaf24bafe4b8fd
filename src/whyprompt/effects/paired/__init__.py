"""Items run under both arms: the design that needs no adjustment."""

from __future__ import annotations

from whyprompt.effects.paired._items import ItemChanges, change_words, item_differences, seen_items
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
    "ItemChanges",
    "PairedDifferences",
    "PairedResult",
    "SubgroupRow",
    "change_words",
    "item_differences",
    "item_labels",
    "mean_error",
    "paired_differences",
    "paired_effect",
    "seen_items",
]
