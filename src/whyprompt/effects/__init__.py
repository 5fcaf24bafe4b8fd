"""External causality: from a table with arms and outcomes to an effect one may defend."""

from __future__ import annotations

from whyprompt.effects.checks.audit import OneDraw
from whyprompt.effects.checks.consistency import batch_consistency
from whyprompt.effects.checks.evalue import e_value
from whyprompt.effects.checks.leave_one_out import leave_one_covariate_out
from whyprompt.effects.checks.partial_r2 import partial_r2_bounds
from whyprompt.effects.checks.peers.cross_check import CrossCheck
from whyprompt.effects.checks.random_cause import random_common_cause
from whyprompt.effects.checks.repeats import error_of_mean
from whyprompt.effects.checks.rosenbaum import rosenbaum_bounds
from whyprompt.effects.checks.specification import SpecificationCurve
from whyprompt.effects.checks.subset import data_subset
from whyprompt.effects.dose import DoseResponse
from whyprompt.effects.gaps.chained import Imputation
from whyprompt.effects.gaps.estimate import ImputedEffect
from whyprompt.effects.gaps.little import little_test
from whyprompt.effects.gaps.patterns import DropReport, MissingPatterns, drop_incomplete
from whyprompt.effects.gaps.pooling import pool_estimates
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
from whyprompt.effects.pairs import PairedItems
from whyprompt.effects.prepare.recipe import Prepared, Recipe
from whyprompt.effects.prepare.steps import Step
from whyprompt.effects.result import EffectResult
from whyprompt.effects.several import EffectsResult
from whyprompt.effects.whom.policy import PromptPolicy
from whyprompt.effects.whom.result import HeterogeneousEffects
from whyprompt.results import Assumption, BalanceRow
from whyprompt.stats.influence import effective_sample_size

__all__ = [
    "AIPW",
    "CEM",
    "IPW",
    "METHODS",
    "Assumption",
    "BalanceRow",
    "CrossCheck",
    "DoseResponse",
    "DropReport",
    "EffectResult",
    "EffectsResult",
    "Entropy",
    "Full",
    "HeterogeneousEffects",
    "Imputation",
    "ImputedEffect",
    "Kernel",
    "MissingPatterns",
    "Naive",
    "Nearest",
    "OneDraw",
    "Optimal",
    "Overlap",
    "PairedItems",
    "Prepared",
    "PromptPolicy",
    "Recipe",
    "SpecificationCurve",
    "Step",
    "Subclass",
    "batch_consistency",
    "data_subset",
    "drop_incomplete",
    "e_value",
    "effective_sample_size",
    "error_of_mean",
    "leave_one_covariate_out",
    "little_test",
    "make_method",
    "partial_r2_bounds",
    "pool_estimates",
    "random_common_cause",
    "rosenbaum_bounds",
]
