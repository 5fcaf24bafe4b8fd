"""Whom an arm helps and whom it harms, and what choosing the arm item by item is worth."""

from __future__ import annotations

from whyprompt.effects.heterogeneity._result import (
    EffectDriver,
    GroupEffect,
    GroupProfile,
    HeterogeneousEffects,
)
from whyprompt.effects.heterogeneity.heterogeneity import heterogeneous_effects, paired_heterogeneity
from whyprompt.effects.heterogeneity.policy import PolicyFigure, PromptPolicy, TargetingPoint, prompt_policy

__all__ = [
    "EffectDriver",
    "GroupEffect",
    "GroupProfile",
    "HeterogeneousEffects",
    "PolicyFigure",
    "PromptPolicy",
    "TargetingPoint",
    "heterogeneous_effects",
    "paired_heterogeneity",
    "prompt_policy",
]
