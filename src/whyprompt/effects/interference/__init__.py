"""The stable unit treatment value assumption for a language model: repeats, batches, and order.

An item's outcome should be a function of its own prompt. Two things break that: sampling (the same prompt
scored again gives another outcome), and the batch (padding, kernels chosen by shape, and mixtures of experts
let the neighbours in a batch change the numbers). The first is noise to be averaged; the second is
interference.

`repeat_variance` and `batch_interference` take a table of trials; `batch_consistency` takes a scoring
function. Nothing here knows what a model is.
"""

from __future__ import annotations

from whyprompt.effects.interference._batches import BatchInterference, BatchTest, batch_interference
from whyprompt.effects.interference._consistency import BatchConsistency, ItemScores, batch_consistency
from whyprompt.effects.interference._repeats import RepeatRow, RepeatVariance, repeat_variance

__all__ = [
    "BatchConsistency",
    "BatchInterference",
    "BatchTest",
    "ItemScores",
    "RepeatRow",
    "RepeatVariance",
    "batch_consistency",
    "batch_interference",
    "repeat_variance",
]
