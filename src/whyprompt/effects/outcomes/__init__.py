"""Outcomes that are not one number: binary measures, ordered levels, several at once."""

from __future__ import annotations

from whyprompt.effects.outcomes.ordinal import (
    OrdinalResult,
    ThresholdRow,
    ordinal_effect,
    paired_ordinal_effect,
)
from whyprompt.effects.outcomes.several import (
    EffectsResult,
    OutcomeRow,
    estimate_effects,
    paired_effects,
)

__all__ = [
    "EffectsResult",
    "OrdinalResult",
    "OutcomeRow",
    "ThresholdRow",
    "estimate_effects",
    "ordinal_effect",
    "paired_effects",
    "paired_ordinal_effect",
]
