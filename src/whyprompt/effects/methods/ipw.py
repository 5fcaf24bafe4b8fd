"""Inverse probability weights, normalised within arms (Hajek)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from whyprompt.effects.methods.weights import Weighting, check_truncate, score_weights
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from whyprompt.effects.methods.method import Fit, Plan
    from whyprompt.effects.problem import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class IPW(Weighting):
    """Rows weighted by the inverse of their probability of the arm that they had.

    Attributes
    ----------
    stabilised : bool, default False
        For the ATE: multiply the weights by their arm's share. The estimate does not change (weights are
        normalised within arms); the spread of the weights over both arms does.
    truncate : float, optional
        Lower the largest weights to this quantile, such as 0.99; of all weights for the ATE and ATO, of the
        reweighted arm's for the ATT and ATC. It trades bias for variance, and the estimand is no longer
        exactly the one named.
    discard : {"none", "crump"} or float, default "none"
        Use only rows with a score in ``[a, 1 - a]``, a being Crump's threshold or a number such as 0.1, and
        fit the score again on them. The estimand is then the one named, among those rows.

    Examples
    --------
    >>> IPW(truncate=0.99).asked
    {'truncate': 0.99}
    """

    name = "ipw"
    estimands = ("att", "atc", "ate", "ato")

    stabilised: bool = False
    truncate: float | None = None
    discard: float | str = "none"

    def __post_init__(self) -> None:
        Weighting.__post_init__(self)
        check_truncate(self.truncate)

    def weigh(self, problem: Problem, plan: Plan) -> Fit:  # noqa: D102
        if self.stabilised and plan.estimand != "ate":
            raise EstimationError("stabilised=True is defined for method='ipw' with estimand='ate'")
        return score_weights(problem, plan.estimand, stabilised=self.stabilised, truncate=self.truncate)
