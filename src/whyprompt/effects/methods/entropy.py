"""Entropy balancing: weights under which the means of the covariates are those of the estimand's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from whyprompt.effects.methods.balancing import entropy_multipliers
from whyprompt.effects.methods.weights import Weighting, weighed
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.methods.method import Fit, Plan
    from whyprompt.effects.problem import Problem

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entropy(Weighting):
    """Weights closest to uniform that balance the means of the covariates exactly.

    Attributes
    ----------
    targets : {"estimated", "fixed"}, default "estimated"
        Whether the means balanced to are estimates, as they are when the rows are a sample, or constants.
        WeightIt 1.4.0 treats them as constants, which overstates the standard error where the covariates
        predict the outcome alike in both arms; ``"fixed"`` gives its number.

    References
    ----------
    Hainmueller (2012). Entropy balancing for causal effects. Political Analysis 20.
    """

    name = "entropy"
    estimands = ("att", "atc", "ate")
    # It has no score to trim by.
    discard = "none"

    targets: str = "estimated"

    def __post_init__(self) -> None:
        if self.targets not in {"estimated", "fixed"}:
            raise EstimationError(f"targets={self.targets!r}: choose 'estimated' or 'fixed'")

    @property
    def by_score(self) -> bool:  # noqa: D102
        return False

    def fit(self, problem: Problem, plan: Plan, *, with_error: bool = True) -> Fit:  # noqa: D102
        if problem.known_score is not None or plan.score_model is not None:
            raise EstimationError("entropy balancing has no propensity score; drop propensity=")
        return Weighting.fit(self, problem, plan, with_error=with_error)

    def weigh(self, problem: Problem, plan: Plan) -> Fit:  # noqa: D102
        return _balance(problem, plan.estimand, self.targets)


def _balance(problem: Problem, estimand: str, targets: str) -> Fit:
    y, treated = problem.y, problem.treated
    matrix, names = problem.design.matrix, problem.design.names
    spread = matrix.std(axis=0)
    used = spread > 1e-12 * np.abs(matrix.mean(axis=0))
    if not used.any():
        raise EstimationError(
            f"no covariate varies among {', '.join(names) or 'none given'}: there is nothing to balance",
            hint="method='naive' gives the plain difference",
        )
    moments = (matrix[:, used] - matrix[:, used].mean(axis=0)) / spread[used]
    labels = [name for name, keep in zip(names, used, strict=True) if keep]
    reference = {"att": treated, "atc": ~treated}.get(estimand, np.ones(len(y), dtype=bool))
    goal = moments[reference].mean(axis=0)
    weights = np.ones(len(y))
    # The influence of each mean: residual y - mean, less its weighted regression on the balanced moments, as
    # those are held at the target; plus what the target's own sampling adds.
    means, influence = np.zeros(2), np.zeros((len(y), 2))
    share = reference / reference.mean()
    for column, arm in enumerate((treated, ~treated)):
        centred = moments - goal
        if not (arm == reference).all():
            multipliers = entropy_multipliers(centred[arm], labels)
            eta = centred[arm] @ multipliers
            relative = np.exp(eta - eta.max())
            weights[arm] = relative / relative.mean()
        w = np.where(arm, weights, 0.0) / arm.mean()
        means[column] = (w * y).mean()
        residual = y - means[column]
        if not (arm == reference).all():
            gram = (centred * w[:, None]).T @ centred
            slope = np.linalg.lstsq(gram, (centred * w[:, None]).T @ residual, rcond=1e-12)[0]
            influence[:, column] = w * (residual - centred @ slope)
            if targets == "estimated":
                influence[:, column] += share * (centred @ slope)
        else:
            influence[:, column] = w * residual
    return weighed(weights, means, influence / len(y))
