"""Which methods take sums over rows and nothing else; the others are refused by name with these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whyprompt.effects.large.source import words_of
from whyprompt.effects.methods.aipw import AIPW
from whyprompt.effects.methods.entropy import Entropy
from whyprompt.effects.methods.ipw import IPW
from whyprompt.effects.methods.learners import LINEAR, LOGIT
from whyprompt.effects.methods.naive import Naive
from whyprompt.effects.methods.nearest import Nearest
from whyprompt.effects.methods.overlap import Overlap
from whyprompt.effects.units import NO_CLUSTER
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from whyprompt.effects.large.source import Parquet
    from whyprompt.effects.methods.method import Plan

OFFERED = (
    "naive, ipw, overlap, entropy, nearest, and aipw with outcome_model='linear', calibrate=False and"
    " propensity='logit'"
)
# Of `Nearest`; others need rows beside each other in more than one order.
_MATCHED = {"caliper", "caliper_unit", "order", "tie_break", "distance", "regression_adjustment"}


def refuse_rows(plan: Plan, table: Parquet, *, unasked: bool, known: bool) -> None:
    """Refuse a method or an option that needs the rows, and not their sums."""
    method, hint = plan.method, f"offered: {OFFERED}; or give more with memory="
    why = f"{table.label} takes {words_of(table.size)} and may take {words_of(table.memory)}"
    if unasked:
        raise EstimationError(f"{why}: the default, aipw with learned models, needs its rows", hint=hint)
    if not isinstance(method, Naive | IPW | Overlap | Entropy | Nearest | AIPW):
        raise EstimationError(f"{why}: method {method.name!r} is not offered beyond that", hint=hint)
    if plan.std_error != "auto":
        raise EstimationError(
            f"{why}: std_error={plan.std_error!r} is not offered beyond that", hint="leave std_error='auto'"
        )
    for name in ("truncate", "discard"):
        if name in method.asked and method.asked[name] != "none":
            raise EstimationError(
                f"{why}: {name}= sorts its scores, and is not offered beyond that",
                hint="leave it out, or give more with memory=",
            )
    if isinstance(method, Nearest):
        _refuse_matches(method, plan, why)
    learned = plan.score_model not in (None, LOGIT)
    if isinstance(method, AIPW):
        learned |= method.outcome_model != LINEAR or (plan.score_model is None and not known)
        if method.calibrate and not known:
            raise EstimationError(
                f"{why}: weights are not calibrated beyond that", hint="calibrate=False, the textbook's"
            )
        if method.splits not in {None, 1}:
            raise EstimationError(f"{why}: its rows are dealt to folds once", hint="leave splits= out")
    if learned:
        raise EstimationError(f"{why}: learned models need its rows", hint=hint)


def _refuse_matches(method: Nearest, plan: Plan, why: str) -> None:
    """Refuse what is matched otherwise than one to one, without replacement, in the order of a score."""
    for name, value in method.asked.items():
        plain = (name, value) in {("replace", False), ("ratio", 1)} or name == "neighbours"
        if not plain and (name not in _MATCHED or value in {"random", "data", "closest", "mahalanobis"}):
            raise EstimationError(
                f"{why}: method 'nearest' with {name}={value!r} is not offered beyond that",
                hint="offered: one to one without replacement in a caliper on the score, the largest or the"
                " smallest score first; or give more with memory=",
            )
    if plan.estimand == "ate":
        raise EstimationError(
            f"{why}: method 'nearest' needs replacement for the ATE, which is not offered beyond that",
            hint="estimand='att' or 'atc'; or ipw, entropy or aipw",
        )


def refuse_clusters(plan: Plan, named: str | None, *, by_lot: bool) -> None:
    """Refuse clusters where rows are dealt to folds, or where what a lot left of covariates is judged."""
    if named is not None and by_lot:
        raise EstimationError(
            f"rows come in clusters by {named!r}, by which what the lot left of the covariates is not judged"
            " in a table larger than memory",
            hint="leave the confounders out: a lot needs none; or memory= more, where the table fits",
        )
    if named is not None and isinstance(plan.method, AIPW) and plan.method.folds != 1:
        raise EstimationError(
            f"rows come in clusters by {named!r}, which are not dealt to folds in a table larger than memory",
            hint="folds=1 fits on all rows; ipw, overlap and entropy have errors by cluster; or"
            f" cluster={NO_CLUSTER!r}, which takes every row as a unit of its own",
        )
