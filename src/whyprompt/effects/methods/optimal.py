"""Optimal pair matching: the assignment with the smallest total distance.

On a score it is found in n log n (`_line`), else as an assignment problem on the distance matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from whyprompt._arguments import at_least
from whyprompt.effects.methods.line import line_pairs, line_pairs_within, split_at_gaps
from whyprompt.effects.methods.mahalanobis import distances, measured_in
from whyprompt.effects.methods.matched import focal_rows, set_from_pairs, width_of
from whyprompt.effects.methods.pairing import Pairing, in_order_of_rows, in_order_of_ties
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.mahalanobis import Metric
    from whyprompt.effects.methods.matched import Caliper, MatchedSet
    from whyprompt.effects.methods.matching import Score
    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.problem import Problem

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

_CELLS = 120_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimal(Pairing):
    """Pairs without replacement whose distances sum to the least.

    Attributes
    ----------
    ratio : int, default 1
        Matches a row.
    caliper, caliper_unit, covariate_calipers, exact, tie_break, distance, mahalanobis_on, metric, discard
        As in `Nearest`.
    neighbours : int, default 2
        Of the Abadie-Imbens error.
    regression_adjustment : bool, optional
        As in `Nearest`.
    """

    name = "optimal"
    usual_caliper = True
    estimands = ("att", "atc")

    caliper: float | str | None = None
    caliper_unit: str = "sd"
    covariate_calipers: Mapping[str, float] | None = None
    ratio: int = 1
    exact: Sequence[str] = ()
    tie_break: str | None = None
    distance: str = "logistic"
    mahalanobis_on: Sequence[str] | None = None
    metric: Metric = "pooled"
    discard: str = "none"
    neighbours: int = 2
    regression_adjustment: bool | None = None

    def __post_init__(self) -> None:
        Pairing.__post_init__(self)
        at_least(self.ratio, 1, "ratio", most=1_000)
        at_least(self.neighbours, 0, "neighbours", most=1_000)

    def match(self, problem: Problem, plan: Plan, score: Score | None, discarded: Bools) -> MatchedSet:  # noqa: D102
        width, where = self.measured(problem, score)
        order, treated, shared = in_order_of_ties(problem, discarded, caliper=width, **where)
        shared |= {"ratio": self.ratio, "metric": self.metric}
        matched = match_optimal(treated, estimand=plan.estimand, **shared)
        return in_order_of_rows(matched, order)


def match_optimal(
    treated: Bools,
    *,
    score: Floats | None = None,
    X: Floats | None = None,
    metric: Metric = "pooled",
    estimand: str = "att",
    ratio: int = 1,
    caliper: Caliper | None = None,
    limits: Sequence[tuple[Floats, float]] = (),
    strata: Ints | None = None,
    discarded: Bools | None = None,
) -> MatchedSet:
    """Match without replacement so that the sum of distances is the smallest possible.

    For the ATT or the ATC. Distance is the absolute difference in `score`, or else Mahalanobis's in `X` by
    the `metric`. A row gets `ratio` matches or, with a caliper (the largest allowed difference in `score`),
    as many as there are: as many rows as possible are matched first, and among those matchings the sum is
    smallest. On a score many pairings of the same rows have that sum; the one in order of the score is taken.
    `caliper`, `limits`, `strata` and `discarded` are as for `match_nearest`. On covariates, or with `limits`,
    a distance matrix is needed; one of more than 1.2e8 cells is refused.

    Reference: Rosenbaum, P. R. (1989). Optimal matching for observational studies. JASA 84, 1024-1032.

    >>> import numpy as np
    >>> score = np.array([0.5, 0.6, 0.55, 0.45])
    >>> matched = match_optimal(np.array([True, True, False, False]), score=score)
    >>> sorted(zip(matched.focal.tolist(), matched.other.tolist()))
    [(0, 3), (1, 2)]
    """
    if estimand == "ate":
        raise EstimationError(
            "optimal pair matching estimates the ATT or the ATC", hint="for the ATE use weights or subclasses"
        )
    n = len(treated)
    out = np.zeros(n, dtype=bool) if discarded is None else discarded
    rows, candidate = focal_rows(treated, estimand, ~out)
    others = np.flatnonzero(candidate)
    code = np.zeros(n, dtype=np.int64) if strata is None else strata
    values, within, bounds = measured_in(
        treated, ~out, score=score, X=X, metric=metric, caliper=caliper, limits=limits
    )
    focal_parts: list[Ints] = []
    other_parts: list[Ints] = []
    on_line = score is not None and not limits
    for stratum in np.intersect1d(code[rows], code[others]):
        for r, c in _parts(values, rows, others, code == stratum, within if on_line else None):
            if on_line:
                pairs = _on_line(values[:, 0], r, c, ratio, within)
            else:
                pairs = _by_matrix(values, r, c, ratio, bounds)
            focal_parts.append(pairs[0])
            other_parts.append(pairs[1])
    settings: dict[str, object] = {
        "ratio": ratio,
        "distance": "score" if score is not None else "mahalanobis",
    }
    if caliper is not None:
        settings["caliper_width"] = width_of(caliper)
    return set_from_pairs(
        method="optimal",
        estimand=estimand,
        treated=treated,
        focal=np.concatenate([np.zeros(0, dtype=np.int64), *focal_parts]),
        other=np.concatenate([np.zeros(0, dtype=np.int64), *other_parts]),
        replace=False,
        discarded=out,
        settings=settings,
    )


def _parts(
    values: Floats, rows: Ints, others: Ints, inside: Bools, caliper: tuple[Floats, float] | None
) -> Iterator[tuple[Ints, Ints]]:
    r, c = rows[inside[rows]], others[inside[others]]
    both = np.concatenate([r, c])
    within = None if caliper is None else (caliper[0][both], caliper[1])
    for part in split_at_gaps(values[both, 0], within) if within is not None else [np.arange(len(both))]:
        mine, theirs = r[part[part < len(r)]], c[part[part >= len(r)] - len(r)]
        if len(mine) and len(theirs):
            yield mine, theirs


def _on_line(
    score: Floats, r: Ints, c: Ints, ratio: int, caliper: tuple[Floats, float] | None
) -> tuple[Ints, Ints]:
    values, width = (score, np.inf) if caliper is None else caliper
    if len(r) * ratio <= len(c) or ratio == 1:
        if len(r) * ratio <= len(c):
            i, j = line_pairs(score[r], score[c], ratio)
        else:
            j, i = line_pairs(score[c], score[r])
        if (np.abs(values[r[i]] - values[c[j]]) <= width).all():
            return r[i], c[j]
    i, j = line_pairs_within(score[r], score[c], (values[r], values[c]), width, ratio)
    return r[i], c[j]


def _by_matrix(
    values: Floats, r: Ints, c: Ints, ratio: int, bounds: Sequence[tuple[Floats, float]]
) -> tuple[Ints, Ints]:
    from scipy.optimize import linear_sum_assignment

    if len(r) * ratio * len(c) > _CELLS:
        raise EstimationError(
            f"optimal matching of {len(r)} with {len(c)} rows needs {len(r) * ratio * len(c):.0e} distances",
            hint="match on a score, match exactly on a column to split the problem, or use method='nearest'",
        )
    cost = distances(values, r, c)
    allowed = np.ones(cost.shape, dtype=bool)
    for column, width in bounds:
        allowed &= np.abs(column[r][:, None] - column[c]) <= width
    # A forbidden pair costs more than any matching without one, so as few as possible are chosen.
    cost[~allowed] = (float(cost.max()) + 1.0) * (min(len(r) * ratio, len(c)) + 1)
    i, j = linear_sum_assignment(np.repeat(cost, ratio, axis=0) if ratio > 1 else cost)
    i = i // ratio
    ok = allowed[i, j]
    return r[i[ok]], c[j[ok]]
