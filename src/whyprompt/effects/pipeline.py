"""The pipeline behind `estimate_effect`, on arrays: the method's fit, and the bootstrap of the whole of it.

The bootstrap and the audit call it on resampled or redrawn rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from whyprompt._words import counted
from whyprompt.effects.methods.variance import refuse_naive_bootstrap
from whyprompt.errors import EstimationError
from whyprompt.stats.order import cluster_places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.effects.methods.method import Fit, Plan
    from whyprompt.effects.problem import Problem

# A standard error below this share of the outcome's range, or of its size, is rounding.
_NOTHING, _ROUNDING = 1e-10, 1e-15


def compute(problem: Problem, plan: Plan, *, with_error: bool = True) -> Fit:
    """Estimate from arrays, for a bootstrap without a standard error.

    There is none either where the sample shows no spread to judge it by: outcomes that do not differ within
    an arm, or an arm whose rows are all in one cluster.
    """
    fit = plan.method.fit(problem, plan, with_error=with_error)
    return if_known(problem, fit) if with_error else fit


def if_known(problem: Problem, fit: Fit) -> Fit:
    """Take away a standard error that only says that the sample cannot show one."""
    if fit.std_error is None:
        return fit
    arms = [arm & (fit.weights > 0) for arm in (problem.treated, ~problem.treated)]
    ends = [(float(problem.y[arm].min()), float(problem.y[arm].max())) for arm in arms]
    in_one = None
    if problem.cluster is not None:
        count = [len(set(problem.cluster[arm].tolist())) for arm in arms]
        if min(count) == 1:
            in_one = problem.treated_level if count[0] == 1 else problem.control_level
    why = no_error(fit.std_error, ends, (float(problem.y.min()), float(problem.y.max())), in_one)
    if not why:
        return fit
    if _same_within(ends):
        # What is left of a difference of equal means is rounding.
        fit = replace(fit, means=(ends[0][0], ends[1][0]))
    return replace(fit, std_error=None, ci=(None, None), df=None, warnings=(*fit.warnings, why))


def _same_within(ends: Sequence[tuple[float, float]]) -> bool:
    return all(low == high for low, high in ends)


def no_error(
    std_error: float, ends: Sequence[tuple[float, float]], of_all: tuple[float, float], in_one: str | None
) -> str:
    """Say why the sample cannot show a standard error; empty where it can.

    `ends` are the least and the greatest outcome of the rows used of each arm, `of_all` those of all rows;
    `in_one` names an arm whose rows are all in one cluster.
    """
    if _same_within(ends):
        return (
            "the outcome does not differ within either arm: the spread is zero in this sample, not in the"
            " population, and no standard error can be given"
        )
    if in_one is not None:
        return f"all rows of {in_one!r} are in one cluster: no standard error can be given"
    low, high = of_all
    if std_error <= max(_NOTHING * (high - low), _ROUNDING * max(abs(low), abs(high))):
        return (
            "what is left of the outcome, or of its means by cluster, does not differ in this sample: no"
            " standard error can be given"
        )
    return ""


def bootstrapped(problem: Problem, plan: Plan, fit: Fit) -> Fit:
    """Replace the standard error by a bootstrap that refits the whole pipeline.

    Rows (or clusters) are resampled, the score is fitted again, and rows are matched again. Raises
    `EstimationError` where the bootstrap is not valid, or too many samples cannot be estimated.
    """
    if fit.matched is not None:
        refuse_naive_bootstrap(fit.matched)
    rng = np.random.default_rng(plan.random_state)
    n, whole = len(problem.y), problem
    if problem.tie_rank is not None:
        # A sample holds rows more than once and cannot be told apart by the column: ties go by its order.
        problem = problem.take(np.argsort(problem.tie_rank))
    places = problem.places
    problem = replace(problem, rank=places)
    own = np.argsort(places, kind="stable")
    groups = None
    if problem.cluster is not None:
        _, label = np.unique(problem.cluster.astype(str), return_inverse=True)
        order = np.argsort(label, kind="stable")
        groups = np.split(order, np.cumsum(np.bincount(label))[:-1])
        groups = [
            groups[g] for g in np.argsort(cluster_places(2 * places + problem.treated, label), kind="stable")
        ]
    values: list[tuple[float, float]] = []
    failed = 0
    for _ in range(plan.draws):
        if groups is None:
            # In the order of the table: memory is read in order, and ties stay as they were.
            rows = np.sort(own[rng.integers(0, n, n)])
        else:
            rows = np.concatenate([groups[g] for g in rng.integers(0, len(groups), len(groups))])
        try:
            values.append(compute(problem.take(rows), plan, with_error=False).means)
        except EstimationError:
            failed += 1
    if failed > 0.1 * plan.draws or len(values) < 2:
        raise EstimationError(
            f"{failed} of {plan.draws} bootstrap samples could not be estimated (an arm or level is lost)",
            hint="use the analytical standard error, std_error='auto'",
        )
    drawn = np.asarray(values)
    effects = drawn[:, 0] - drawn[:, 1]
    low, high = np.quantile(effects, [0.5 - plan.level / 2, 0.5 + plan.level / 2])
    note = (f"{failed} of {plan.draws} bootstrap samples could not be estimated",) if failed else ()
    made = replace(
        fit,
        std_error=float(np.std(effects, ddof=1)),
        ci=(float(low), float(high)),
        df=None,
        mean_draws=drawn,
        std_error_method=f"bootstrap of the whole pipeline, {counted(plan.draws, 'draw')}, percentile"
        " interval",
        warnings=(*fit.warnings, *note),
    )
    return if_known(whole, made)
