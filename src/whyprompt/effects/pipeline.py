"""The pipeline behind `estimate_effect`, on arrays: the method's fit, and the bootstrap of the whole of it.

The bootstrap and the audit call it on resampled or redrawn rows.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted
from whyprompt._workers.place import crew_size, map_units, part_sizes
from whyprompt.effects.methods.variance import refuse_naive_bootstrap
from whyprompt.errors import EstimationError
from whyprompt.stats.order import cluster_places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

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


@dataclass(frozen=True)
class _Samples:
    """The work of a bootstrap: a unit is the state of the generator of random numbers, and how many draws."""

    problem: Problem
    plan: Plan
    own: NDArray[np.int64]
    groups: tuple[NDArray[np.int64], ...] | None

    @contextmanager
    def opened(self) -> Iterator[Callable[[tuple[dict[str, Any], int]], list[tuple[float, float] | None]]]:
        def draw(unit: tuple[dict[str, Any], int]) -> list[tuple[float, float] | None]:
            rng = np.random.default_rng()
            rng.bit_generator.state = unit[0]
            return [self._means(self.rows(rng)) for _ in range(unit[1])]

        yield draw

    def rows(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw one sample's rows."""
        if self.groups is None:
            n = len(self.own)
            # In the order of the table: memory is read in order, and ties stay as they were.
            return np.sort(self.own[rng.integers(0, n, n)])
        drawn = rng.integers(0, len(self.groups), len(self.groups))
        return np.concatenate([self.groups[g] for g in drawn])

    def _means(self, rows: NDArray[np.int64]) -> tuple[float, float] | None:
        try:
            return compute(self.problem.take(rows), self.plan, with_error=False).means
        except EstimationError:
            return None


def _chunks(work: _Samples, rng: np.random.Generator, draws: int) -> list[tuple[dict[str, Any], int]]:
    """Cut the draws into units that draw what one stream would have drawn; without workers in one."""
    if not crew_size():
        return [(dict(rng.bit_generator.state), draws)]
    units = []
    for size in part_sizes(draws):
        units.append((dict(rng.bit_generator.state), size))
        for _ in range(size):
            work.rows(rng)
    return units


def bootstrapped(problem: Problem, plan: Plan, fit: Fit) -> Fit:
    """Replace the standard error by a bootstrap that refits the whole pipeline.

    Rows (or clusters) are resampled, the score is fitted again, and rows are matched again. Raises
    `EstimationError` where the bootstrap is not valid, or too many samples cannot be estimated.
    """
    if fit.matched is not None:
        refuse_naive_bootstrap(fit.matched)
    rng = np.random.default_rng(plan.random_state)
    whole = problem
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
    work = _Samples(problem, plan, own, None if groups is None else tuple(groups))
    parts = dict(map_units(work, _chunks(work, rng, plan.draws)))
    values = [means for k in sorted(parts) for means in parts[k] if means is not None]
    failed = plan.draws - len(values)
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
