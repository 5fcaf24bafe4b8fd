"""whyprompt: what a change of prompt causes in a language model, and through which heads.

``import whyprompt as wp``, and everything that is usually called is ``wp.something``; each name is imported
when it is first asked for. The parts have what is rarer: `whyprompt.charts` draws, `whyprompt.effects` and
`whyprompt.mediation` hold the results' own types, `whyprompt.graph`, `whyprompt.trials` and
`whyprompt.examples` the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt._version import __version__

if TYPE_CHECKING:
    from whyprompt._workers.place import workers
    from whyprompt.answers.compare import compare_runs
    from whyprompt.answers.external import study_effect
    from whyprompt.answers.internal import study_mediation
    from whyprompt.answers.logs import log_effect
    from whyprompt.answers.texts import text_mediation
    from whyprompt.charts.render import save_chart
    from whyprompt.effects.arms import compare_arms
    from whyprompt.effects.checks.agreement import agreement
    from whyprompt.effects.checks.audit import audit, one_draw
    from whyprompt.effects.checks.balance import balance_table
    from whyprompt.effects.checks.batches import batch_interference
    from whyprompt.effects.checks.hidden import sensitivity_report
    from whyprompt.effects.checks.negative_controls import negative_control_outcome
    from whyprompt.effects.checks.peers.cross_check import cross_check
    from whyprompt.effects.checks.placebo import placebo_treatment
    from whyprompt.effects.checks.refute import refute
    from whyprompt.effects.checks.repeats import repeat_variance
    from whyprompt.effects.checks.specification import specification_curve
    from whyprompt.effects.dose import dose_response
    from whyprompt.effects.effect import estimate_effect
    from whyprompt.effects.gaps.chained import impute
    from whyprompt.effects.gaps.estimate import estimate_with_imputation
    from whyprompt.effects.gaps.patterns import missing_patterns
    from whyprompt.effects.gaps.tipping import tipping_point
    from whyprompt.effects.prepare.recipe import prepare_table
    from whyprompt.effects.whom.heterogeneity import heterogeneous_effects
    from whyprompt.effects.whom.policy import prompt_policy
    from whyprompt.examples.tables import load_example
    from whyprompt.graph.model import CausalGraph
    from whyprompt.mediation.capture import capture_attention
    from whyprompt.mediation.inference import contrast_heads, infer_heads
    from whyprompt.mediation.knockout import knockout_sweep
    from whyprompt.mediation.measured.compare import compare_mediation
    from whyprompt.mediation.measured.mediate import mediate
    from whyprompt.mediation.measured.paired import paired_mediation
    from whyprompt.mediation.measured.rho import mediation_sensitivity
    from whyprompt.mediation.pairs import pair_from_text
    from whyprompt.mediation.relate import relate_heads
    from whyprompt.mediation.search import find_heads
    from whyprompt.mediation.sweep import (
        head_sweep,
        joint_effect,
        layer_sweep,
        set_sweep,
        site_sweep,
    )
    from whyprompt.page.page import write_report
    from whyprompt.results import Check, Estimate, Result
    from whyprompt.study import Study, load_study
    from whyprompt.trials.logs.read import read_trials
    from whyprompt.trials.models.load import load_model
    from whyprompt.trials.run import dry_run, load_trials, run_study, verify_study

__all__ = [
    "CausalGraph",
    "Check",
    "Estimate",
    "Result",
    "Study",
    "__version__",
    "agreement",
    "audit",
    "balance_table",
    "batch_interference",
    "capture_attention",
    "compare_arms",
    "compare_mediation",
    "compare_runs",
    "contrast_heads",
    "cross_check",
    "dose_response",
    "dry_run",
    "estimate_effect",
    "estimate_with_imputation",
    "find_heads",
    "head_sweep",
    "heterogeneous_effects",
    "impute",
    "infer_heads",
    "joint_effect",
    "knockout_sweep",
    "layer_sweep",
    "load_example",
    "load_model",
    "load_study",
    "load_trials",
    "log_effect",
    "mediate",
    "mediation_sensitivity",
    "missing_patterns",
    "negative_control_outcome",
    "one_draw",
    "pair_from_text",
    "paired_mediation",
    "placebo_treatment",
    "prepare_table",
    "prompt_policy",
    "read_trials",
    "refute",
    "relate_heads",
    "repeat_variance",
    "run_study",
    "save_chart",
    "sensitivity_report",
    "set_sweep",
    "site_sweep",
    "specification_curve",
    "study_effect",
    "study_mediation",
    "text_mediation",
    "tipping_point",
    "verify_study",
    "workers",
    "write_report",
]

# Where each is written: no folder of these is imported before a name of it is asked for.
_HOMES = {
    "_workers.place": ("workers",),
    "answers.compare": ("compare_runs",),
    "answers.external": ("study_effect",),
    "answers.internal": ("study_mediation",),
    "answers.logs": ("log_effect",),
    "answers.texts": ("text_mediation",),
    "charts.render": ("save_chart",),
    "effects.arms": ("compare_arms",),
    "effects.checks.agreement": ("agreement",),
    "effects.checks.audit": ("audit", "one_draw"),
    "effects.checks.balance": ("balance_table",),
    "effects.checks.batches": ("batch_interference",),
    "effects.checks.hidden": ("sensitivity_report",),
    "effects.checks.negative_controls": ("negative_control_outcome",),
    "effects.checks.peers.cross_check": ("cross_check",),
    "effects.checks.placebo": ("placebo_treatment",),
    "effects.checks.refute": ("refute",),
    "effects.checks.repeats": ("repeat_variance",),
    "effects.checks.specification": ("specification_curve",),
    "effects.dose": ("dose_response",),
    "effects.effect": ("estimate_effect",),
    "effects.gaps.chained": ("impute",),
    "effects.gaps.estimate": ("estimate_with_imputation",),
    "effects.gaps.patterns": ("missing_patterns",),
    "effects.gaps.tipping": ("tipping_point",),
    "effects.prepare.recipe": ("prepare_table",),
    "effects.whom.heterogeneity": ("heterogeneous_effects",),
    "effects.whom.policy": ("prompt_policy",),
    "examples.tables": ("load_example",),
    "graph.model": ("CausalGraph",),
    "mediation.capture": ("capture_attention",),
    "mediation.inference": ("contrast_heads", "infer_heads"),
    "mediation.measured.compare": ("compare_mediation",),
    "mediation.measured.mediate": ("mediate",),
    "mediation.measured.paired": ("paired_mediation",),
    "mediation.measured.rho": ("mediation_sensitivity",),
    "mediation.pairs": ("pair_from_text",),
    "mediation.relate": ("relate_heads",),
    "mediation.search": ("find_heads",),
    "mediation.knockout": ("knockout_sweep",),
    "mediation.sweep": (
        "head_sweep",
        "joint_effect",
        "layer_sweep",
        "set_sweep",
        "site_sweep",
    ),
    "page.page": ("write_report",),
    "results": ("Check", "Estimate", "Result"),
    "study": ("Study", "load_study"),
    "trials.logs.read": ("read_trials",),
    "trials.models.load": ("load_model",),
    "trials.run": ("dry_run", "load_trials", "run_study", "verify_study"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

_PARTS = (
    "answers",
    "charts",
    "effects",
    "errors",
    "examples",
    "graph",
    "mediation",
    "page",
    "study",
    "trials",
)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any member
    from importlib import import_module

    if name in _PARTS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PARTS})
