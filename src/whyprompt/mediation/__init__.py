"""Internal causality: through which attention heads a prompt change acts.

`head_sweep` gives the exact natural effects of every head, `set_sweep` and `joint_effect`
those of sets of heads; `knockout_sweep` cuts a head's view of a segment. The estimands are
pure functions in `whyprompt.mediation.estimands`.
"""

from whyprompt.mediation.align import align_shorter
from whyprompt.mediation.capture import AttentionCapture, AttentionRow, attention_row, capture_attention
from whyprompt.mediation.estimands import Effects, mediation_effects
from whyprompt.mediation.inference import (
    HeadInference,
    MeanInterval,
    SplitHalf,
    contrast_heads,
    infer_heads,
    mean_interval,
)
from whyprompt.mediation.pairs import PromptPair, pair_from_text
from whyprompt.mediation.results import HeadSweep, KnockoutSweep, PairOutcomes, SetSweep
from whyprompt.mediation.search import HeadSearch, find_heads
from whyprompt.mediation.sweep import head_sweep, joint_effect, knockout_sweep, layer_sweep, set_sweep

__all__ = [
    "AttentionCapture",
    "AttentionRow",
    "Effects",
    "HeadInference",
    "HeadSearch",
    "HeadSweep",
    "KnockoutSweep",
    "MeanInterval",
    "PairOutcomes",
    "PromptPair",
    "SetSweep",
    "SplitHalf",
    "align_shorter",
    "attention_row",
    "capture_attention",
    "contrast_heads",
    "find_heads",
    "head_sweep",
    "infer_heads",
    "joint_effect",
    "knockout_sweep",
    "layer_sweep",
    "mean_interval",
    "mediation_effects",
    "pair_from_text",
    "set_sweep",
]
