"""External causality: from a table with arms and outcomes to an effect one may defend."""

from __future__ import annotations

from whyprompt.effects.arms import ArmsResult, compare_arms
from whyprompt.effects.checks.audit import AuditResult, AuditRow, OneDraw, audit, one_draw
from whyprompt.effects.checks.balance import balance_table, effective_sample_size
from whyprompt.effects.checks.batches import BatchInterference, batch_interference
from whyprompt.effects.checks.consistency import BatchConsistency, batch_consistency
from whyprompt.effects.checks.evalue import e_value
from whyprompt.effects.checks.hidden import sensitivity_report
from whyprompt.effects.checks.leave_one_out import leave_one_covariate_out
from whyprompt.effects.checks.negative_controls import NegativeControls, negative_control_outcome
from whyprompt.effects.checks.partial_r2 import PartialR2Bounds, partial_r2_bounds
from whyprompt.effects.checks.peers.cross_check import cross_check
from whyprompt.effects.checks.peers.result import (
    CrossCheck,
    CrossCheckRow,
    IdentificationCheck,
    RefuterRow,
    UpliftPoint,
)
from whyprompt.effects.checks.placebo import placebo_treatment
from whyprompt.effects.checks.random_cause import random_common_cause
from whyprompt.effects.checks.refute import refute
from whyprompt.effects.checks.repeats import RepeatVariance, repeat_variance
from whyprompt.effects.checks.rosenbaum import RosenbaumBound, rosenbaum_bounds
from whyprompt.effects.checks.specification import SpecificationCurve, specification_curve
from whyprompt.effects.checks.subset import data_subset
from whyprompt.effects.dose import DoseResponse, dose_response
from whyprompt.effects.effect import estimate_effect
from whyprompt.effects.gaps.chained import Imputation, impute
from whyprompt.effects.gaps.estimate import ImputedEffect, estimate_with_imputation
from whyprompt.effects.gaps.little import LittleTest, little_test
from whyprompt.effects.gaps.patterns import DropReport, MissingPatterns, drop_incomplete, missing_patterns
from whyprompt.effects.gaps.pooling import PooledEstimate, pool_estimates
from whyprompt.effects.gaps.tipping import TippingPoint, tipping_point
from whyprompt.effects.methods.aipw import AIPW
from whyprompt.effects.methods.cem import CEM
from whyprompt.effects.methods.entropy import Entropy
from whyprompt.effects.methods.full import Full
from whyprompt.effects.methods.ipw import IPW
from whyprompt.effects.methods.kernel import Kernel
from whyprompt.effects.methods.make import METHODS, make_method
from whyprompt.effects.methods.naive import Naive
from whyprompt.effects.methods.nearest import Nearest
from whyprompt.effects.methods.optimal import Optimal
from whyprompt.effects.methods.overlap import Overlap
from whyprompt.effects.methods.subclass import Subclass
from whyprompt.effects.ordinal import OrdinalResult
from whyprompt.effects.paired import PairedResult
from whyprompt.effects.prepare.recipe import (
    Bin,
    Code,
    FlagOutliers,
    Prepared,
    Recipe,
    Scale,
    Winsorise,
    prepare_table,
)
from whyprompt.effects.result import EffectResult
from whyprompt.effects.several import EffectsResult
from whyprompt.effects.whom.heterogeneity import heterogeneous_effects
from whyprompt.effects.whom.policy import PromptPolicy, prompt_policy
from whyprompt.effects.whom.result import HeterogeneousEffects
from whyprompt.results import Assumption, BalanceRow

__all__ = [
    "AIPW",
    "CEM",
    "IPW",
    "METHODS",
    "ArmsResult",
    "Assumption",
    "AuditResult",
    "AuditRow",
    "BalanceRow",
    "BatchConsistency",
    "BatchInterference",
    "Bin",
    "Code",
    "CrossCheck",
    "CrossCheckRow",
    "DoseResponse",
    "DropReport",
    "EffectResult",
    "EffectsResult",
    "Entropy",
    "FlagOutliers",
    "Full",
    "HeterogeneousEffects",
    "IdentificationCheck",
    "Imputation",
    "ImputedEffect",
    "Kernel",
    "LittleTest",
    "MissingPatterns",
    "Naive",
    "Nearest",
    "NegativeControls",
    "OneDraw",
    "Optimal",
    "OrdinalResult",
    "Overlap",
    "PairedResult",
    "PartialR2Bounds",
    "PooledEstimate",
    "Prepared",
    "PromptPolicy",
    "Recipe",
    "RefuterRow",
    "RepeatVariance",
    "RosenbaumBound",
    "Scale",
    "SpecificationCurve",
    "Subclass",
    "TippingPoint",
    "UpliftPoint",
    "Winsorise",
    "audit",
    "balance_table",
    "batch_consistency",
    "batch_interference",
    "compare_arms",
    "cross_check",
    "data_subset",
    "dose_response",
    "drop_incomplete",
    "e_value",
    "effective_sample_size",
    "estimate_effect",
    "estimate_with_imputation",
    "heterogeneous_effects",
    "impute",
    "leave_one_covariate_out",
    "little_test",
    "make_method",
    "missing_patterns",
    "negative_control_outcome",
    "one_draw",
    "partial_r2_bounds",
    "placebo_treatment",
    "pool_estimates",
    "prepare_table",
    "prompt_policy",
    "random_common_cause",
    "refute",
    "repeat_variance",
    "rosenbaum_bounds",
    "sensitivity_report",
    "specification_curve",
    "tipping_point",
]
