"""External causality: from a table with arms and outcomes to an effect one may defend."""

from __future__ import annotations

from whyprompt.effects.arms import ArmContrast, ArmMean, ArmsResult, PairBalanceRow, compare_arms
from whyprompt.effects.audit import AuditResult, AuditRow, OneDraw, audit, one_draw
from whyprompt.effects.balance import balance_table, effective_sample_size
from whyprompt.effects.dose import DoseBalanceRow, DosePoint, DoseResponse, dose_response
from whyprompt.effects.estimate import METHODS, estimate_effect
from whyprompt.effects.ordinal import OrdinalResult, ThresholdRow, ordinal_effect, paired_ordinal_effect
from whyprompt.effects.outcomes import EffectsResult, OutcomeRow, estimate_effects, paired_effects
from whyprompt.effects.paired import PairedResult, SubgroupRow, paired_effect
from whyprompt.effects.result import Assumption, BalanceRow, EffectResult, EffectSubgroup, Measure

__all__ = [
    "METHODS",
    "ArmContrast",
    "ArmMean",
    "ArmsResult",
    "Assumption",
    "AuditResult",
    "AuditRow",
    "BalanceRow",
    "DoseBalanceRow",
    "DosePoint",
    "DoseResponse",
    "EffectResult",
    "EffectSubgroup",
    "EffectsResult",
    "Measure",
    "OneDraw",
    "OrdinalResult",
    "OutcomeRow",
    "PairBalanceRow",
    "PairedResult",
    "SubgroupRow",
    "ThresholdRow",
    "audit",
    "balance_table",
    "compare_arms",
    "dose_response",
    "effective_sample_size",
    "estimate_effect",
    "estimate_effects",
    "one_draw",
    "ordinal_effect",
    "paired_effect",
    "paired_effects",
    "paired_ordinal_effect",
]
