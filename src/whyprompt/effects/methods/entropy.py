"""Entropy balancing: weights under which the means of the covariates are those of the estimand's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from whyprompt._words import counted
from whyprompt.effects.methods.balancing import entropy_multipliers, entropy_within_levels
from whyprompt.effects.methods.weights import Weighting, repeated, weighed
from whyprompt.errors import EstimationError
from whyprompt.stats.absorb import absorbed
from whyprompt.stats.design import moments, weighted_gram
from whyprompt.stats.threads import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from whyprompt.effects.methods.method import Fit, Plan
    from whyprompt.effects.problem import Problem
    from whyprompt.stats.absorb import Absorbed

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

    def weigh(self, problem: Problem, plan: Plan) -> Fit:  # noqa: D102
        with one_blas_thread(len(problem.y)):
            return _balance(problem, plan.estimand, self.targets)


def _balance(problem: Problem, estimand: str, targets: str) -> Fit:
    y, treated = problem.y, problem.treated
    reference = {"att": treated, "atc": ~treated}.get(estimand, np.ones(len(y), dtype=bool))
    x = absorbed(problem.columns, problem.design.levels)
    balanced = _Moments(problem, reference) if x is None else _WithLevels(x, reference, problem)
    share = reference / reference.mean()
    weights = np.ones(len(y))
    sides: list[tuple[Floats, Callable[[Floats], Floats] | None]] = []
    for arm in (treated, ~treated):
        same = bool((arm == reference).all())
        if not same:
            weights[arm] = balanced.weights(arm)
        w = np.where(arm, weights, 0.0) / arm.mean()
        sides.append((w, None if same else balanced.projector(w)))

    def of(y: Floats) -> Fit:
        # The influence of each mean: residual y - mean, less its weighted regression on the balanced moments,
        # as those are held at the target; plus what the target's own sampling adds.
        means, influence = np.zeros(2), np.zeros((len(y), 2))
        for column, (w, project) in enumerate(sides):
            means[column] = (w * y).mean()
            residual = y - means[column]
            influence[:, column] = w * residual
            if project is not None:
                fitted = project((w * residual)[:, None])[:, 0]
                influence[:, column] += ((share if targets == "estimated" else 0.0) - w) * fitted
        return weighed(weights, means, influence / len(y), dropped=None if x is None else x.dropped)

    return repeated(of, y)


class _Moments:
    """The covariates' means, to be those of the reference rows."""

    def __init__(self, problem: Problem, reference: Bools) -> None:
        matrix, names = problem.design.matrix, problem.design.names
        centre, spread = moments(matrix)
        used = np.flatnonzero(spread)
        if not len(used):
            raise EstimationError(
                f"no covariate varies among {', '.join(names) or 'none given'}: there is nothing to balance",
                hint="method='naive' gives the plain difference",
            )
        self.labels = [names[j] for j in used]
        self.centred = np.empty((len(matrix), len(used)), order="F")
        for place, j in enumerate(used):
            column = (matrix[:, j] - centre[j]) / spread[j]
            self.centred[:, place] = column - column[reference].mean()

    def weights(self, arm: Bools) -> Floats:
        """Give the weights of an arm's rows, which average one."""
        centred = self.centred.T[:, np.flatnonzero(arm)].T
        eta = centred @ entropy_multipliers(centred, self.labels)
        relative = np.exp(eta - eta.max())
        return np.asarray(relative / relative.mean())

    def projector(self, weights: Floats) -> Callable[[Floats], Floats]:
        """Map values, (n, m), to ``X (X' W X)^-1 X' values`` of the balanced moments X."""
        held = np.linalg.pinv(weighted_gram(self.centred, weights), rcond=1e-12, hermitian=True)
        return lambda values: np.asarray(self.centred @ (held @ (self.centred.T @ values)))


class _WithLevels:
    """The same where the levels of a text column are absorbed."""

    def __init__(self, x: Absorbed, reference: Bools, problem: Problem) -> None:
        self.x, self.projector = x, x.projector
        self.share = np.bincount(x.code[reference], minlength=len(x.levels)) / reference.sum()
        self.centred = x.rest - x.rest[reference].mean(axis=0)
        self.names = {True: problem.treated_level, False: problem.control_level}
        self.treated = problem.treated

    def weights(self, arm: Bools) -> Floats:
        """Give the weights of an arm's rows, which average one."""
        x, name = self.x, self.names[bool(self.treated[arm][0])]
        empty = (np.bincount(x.code[arm], minlength=len(x.levels)) == 0) & (self.share > 0)
        if empty.any():
            raise EstimationError(
                f"entropy balancing has no solution: {counted(int(empty.sum()), 'level')} of {x.column!r}"
                f" that weigh have no row of {name!r}",
                hint=f"method='nearest' with exact=[{x.column!r}] leaves those levels out",
            )
        return entropy_within_levels(self.centred[arm], x.code[arm], self.share, x.names)
