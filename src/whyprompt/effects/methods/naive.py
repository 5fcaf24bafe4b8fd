"""The difference of the two arms' means, nothing adjusted for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from whyprompt.effects.methods.method import Fit, Method
from whyprompt.errors import EstimationError
from whyprompt.stats.errors import clustered_difference, interval
from whyprompt.stats.rules import few_clusters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.problem import Problem


WELCH, BY_CLUSTER = "unequal variances (Welch)", "CR2 by cluster, Satterthwaite df"


def welch(variances: Sequence[float], sizes: Sequence[float]) -> tuple[float, float]:
    """Give the error of a difference of two means, and Welch's degrees of freedom."""
    parts = [variance / n for variance, n in zip(variances, sizes, strict=True)]
    below = sum(p**2 / (n - 1) for p, n in zip(parts, sizes, strict=True))
    return float(np.sqrt(sum(parts))), float(sum(parts) ** 2 / below if below > 0 else sum(sizes) - 2.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Naive(Method):
    """The plain difference of means, which is an effect where the arm was drawn by lot. It has no options.

    Its error allows for unequal variances (Welch), or is that of clusters (CR2).
    """

    name = "naive"
    linear = False
    estimands = ("ate", "att", "atc")

    @property
    def by_score(self) -> bool:
        """It has no score."""
        return False

    def fit(self, problem: Problem, plan: Plan, *, with_error: bool = True) -> Fit:  # noqa: ARG002, D102
        if plan.std_error not in {"auto", "bootstrap"}:
            raise EstimationError(
                f"standard error {plan.std_error!r} does not go with method 'naive'",
                hint="leave std_error='auto'",
            )
        y, t, n = problem.y, problem.treated, len(problem.y)
        means = (float(y[t].mean()), float(y[~t].mean()))
        estimate = means[0] - means[1]
        warnings: tuple[str, ...] = ()
        if problem.cluster is not None:
            _, error, free = clustered_difference(y, t, np.ones(n), problem.cluster)
            warnings = few_clusters(len(np.unique(problem.cluster.astype(str))), free)
            how = BY_CLUSTER
        else:
            error, free = welch([float(y[arm].var(ddof=1)) for arm in (t, ~t)], [t.sum(), (~t).sum()])
            how = WELCH
        return Fit(
            means=means,
            weights=np.ones(n),
            discarded=np.zeros(n, dtype=bool),
            std_error=error,
            ci=interval(estimate, error, level=plan.level, df=free),
            df=free,
            std_error_method=how,
            warnings=warnings,
        )
