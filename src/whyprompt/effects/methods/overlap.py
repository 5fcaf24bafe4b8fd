"""Overlap weights: the average effect where the arms overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from whyprompt.effects.methods.weights import Weighting, check_truncate, score_weights

if TYPE_CHECKING:
    from whyprompt.effects.methods.method import Fit, Plan
    from whyprompt.effects.problem import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap(Weighting):
    """Rows weighted by their probability of the other arm; it estimates the ATO.

    Attributes
    ----------
    truncate, discard
        As in `IPW`; there is seldom a reason, since no weight exceeds one.

    References
    ----------
    Li, Morgan and Zaslavsky (2018). Balancing covariates via propensity score weighting. JASA 113, table 1.
    """

    name = "overlap"
    estimands = ("ato",)

    truncate: float | None = None
    discard: float | str = "none"

    def __post_init__(self) -> None:
        Weighting.__post_init__(self)
        check_truncate(self.truncate)

    def weigh(self, problem: Problem, plan: Plan) -> Fit:  # noqa: D102
        return score_weights(problem, plan.estimand, truncate=self.truncate)
