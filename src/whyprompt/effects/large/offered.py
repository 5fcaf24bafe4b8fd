"""Which methods take rows in passes; the others are refused by name with these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whyprompt.effects.large.source import words_of
from whyprompt.effects.methods.aipw import AIPW
from whyprompt.effects.methods.entropy import Entropy
from whyprompt.effects.methods.ipw import IPW
from whyprompt.effects.methods.learners import LOGIT
from whyprompt.effects.methods.naive import Naive
from whyprompt.effects.methods.nearest import Nearest
from whyprompt.effects.methods.overlap import Overlap
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from whyprompt.effects.large.source import Parquet
    from whyprompt.effects.methods.method import Plan

OFFERED = "naive, ipw, overlap, entropy, nearest and aipw"
# Of `Nearest`; others need rows beside each other in more than one order.
_MATCHED = {"caliper", "caliper_unit", "order", "tie_break", "distance", "regression_adjustment"}


def refuse_rows(plan: Plan, table: Parquet) -> None:
    """Refuse a method or an option that needs the rows, and not their sums."""
    method, hint = plan.method, f"offered: {OFFERED}; or give more with memory="
    why = f"{table.label} takes {words_of(table.size)} and may take {words_of(table.memory)}"
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
    if isinstance(method, AIPW):
        if method.splits not in {None, 1}:
            raise EstimationError(f"{why}: its rows are dealt to folds once", hint="leave splits= out")
    elif plan.score_model not in (None, LOGIT):
        raise EstimationError(f"{why}: a learned score needs its rows", hint="method='aipw' learns one")


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
