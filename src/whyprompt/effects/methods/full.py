"""Optimal full matching: every row in a set with one row of one arm and one or more of the other.

A full matching of least total distance is an edge cover of least weight between the arms: every row has at
least one partner, and where distances are positive no pair joins two rows that both have another partner.

On a score the cover is found in n log n (`_line`). On covariates the cover is the cheapest partner of every
row, improved by a matching of those pairs that cost less than the two cheapest partners they replace (an
assignment problem).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from whyprompt.effects.methods.line import line_cover, split_at_gaps
from whyprompt.effects.methods.mahalanobis import distances, measured_in
from whyprompt.effects.methods.matched import require_matches, set_from_strata, width_of
from whyprompt.effects.methods.pairing import Pairing, in_order_of_rows, in_order_of_ties
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.mahalanobis import Metric
    from whyprompt.effects.methods.matched import Caliper, MatchedSet
    from whyprompt.effects.methods.matching import Score
    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.problem import Problem

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

_CELLS = 40_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Full(Pairing):
    """Every row in a set with one row of one arm and one or more of the other, at the least total distance.

    Attributes
    ----------
    caliper, caliper_unit, covariate_calipers, exact, tie_break, distance, mahalanobis_on, metric, discard
        As in `Nearest`.
    regression_adjustment : bool, optional
        As in `Nearest`.
    """

    name = "full"

    caliper: float | str | None = None
    caliper_unit: str = "sd"
    covariate_calipers: Mapping[str, float] | None = None
    exact: Sequence[str] = ()
    tie_break: str | None = None
    distance: str = "logistic"
    mahalanobis_on: Sequence[str] | None = None
    metric: Metric = "pooled"
    discard: str = "none"
    regression_adjustment: bool | None = None

    def match(self, problem: Problem, plan: Plan, score: Score | None, discarded: Bools) -> MatchedSet:  # noqa: D102
        width, where = self.measured(problem, score)
        order, treated, shared = in_order_of_ties(problem, discarded, caliper=width, **where)
        matched = match_full(treated, estimand=plan.estimand, metric=self.metric, **shared)
        return in_order_of_rows(matched, order)


def match_full(
    treated: Bools,
    *,
    score: Floats | None = None,
    X: Floats | None = None,
    metric: Metric = "pooled",
    estimand: str = "att",
    caliper: Caliper | None = None,
    limits: Sequence[tuple[Floats, float]] = (),
    strata: Ints | None = None,
    discarded: Bools | None = None,
) -> MatchedSet:
    """Put rows into sets of one row of an arm and one or more of the other, at the least total distance.

    This is ``optmatch::fullmatch`` with its default restrictions (none), which MatchIt calls for ``method =
    "full"``. The least total distance, which `settings` holds, is unique; where several matchings reach it
    (tied distances), packages may return different ones.

    Distance is the absolute difference in `score`, or else Mahalanobis's in `X` by the `metric`. `estimand`
    sets the weights and not the sets. Rows without a counterpart within `caliper`, on the score, are left
    out; two rows of a set joined to the same third may lie twice as far apart. `limits`, `strata` and
    `discarded` are as for `match_nearest`. Covariates or calipers that ask for a distance matrix of more than
    4e7 cells are refused.

    References: Rosenbaum, P. R. (1991). A characterization of optimal designs for observational studies. JRSS
    B 53, 597-610. Hansen, B. B. and Klopfer, S. O. (2006). Optimal full matching and related designs via
    network flows. Journal of Computational and Graphical Statistics 15, 609-627.

    >>> import numpy as np
    >>> score = np.array([0.5, 0.6, 0.52, 0.48, 0.9])
    >>> matched = match_full(np.array([True, True, False, False, False]), score=score)
    >>> matched.stratum.tolist(), round(matched.settings["total_distance"], 3)
    ([0, 1, 0, 0, 1], 0.34)
    """
    n = len(treated)
    out = np.zeros(n, dtype=bool) if discarded is None else discarded
    code = np.zeros(n, dtype=np.int64) if strata is None else strata
    values, within, bounds = measured_in(
        treated, ~out, score=score, X=X, metric=metric, caliper=caliper, limits=limits
    )
    left_parts: list[Ints] = []
    right_parts: list[Ints] = []
    for stratum in np.unique(code[~out]):
        rows = np.flatnonzero((code == stratum) & ~out)
        if treated[rows].all() or not treated[rows].any():
            continue
        here = None if within is None else (within[0][rows], within[1])
        for part in split_at_gaps(values[rows, 0], here) if score is not None else [np.arange(len(rows))]:
            inside = rows[part]
            a, b = inside[treated[inside]], inside[~treated[inside]]
            if len(a) == 0 or len(b) == 0:
                continue
            i, j = _cover(values, a, b, bounds, on_line=score is not None and not limits)
            left_parts.append(a[i])
            right_parts.append(b[j])
    left = np.concatenate([np.zeros(0, dtype=np.int64), *left_parts])
    right = np.concatenate([np.zeros(0, dtype=np.int64), *right_parts])
    require_matches(left, method="full", hint="widen the caliper, drop an exact column, or use weights")
    left, right = _only_stars(left, right, n)
    if not limits:
        left, right = _even_stars(values, code, left, right)
    settings: dict[str, object] = {
        "distance": "score" if score is not None else "mahalanobis",
        "total_distance": cover_cost(values, left, right),
        "largest_set": int(max(np.bincount(left).max(), np.bincount(right).max())) + 1,
    }
    if caliper is not None:
        settings["caliper_width"] = width_of(caliper)
    return set_from_strata(
        method="full",
        estimand=estimand,
        treated=treated,
        stratum=_components(left, right, n),
        # Nearly every set has one row of an arm: no spread within it, so the sets are the units.
        errors=("pairs", "bootstrap"),
        discarded=out,
        settings=settings,
    )


def cover_cost(values: Floats, left: Ints, right: Ints) -> float:
    """Return the sum of the distances, Euclidean in `values`, of joined rows."""
    return float(np.sqrt(((values[left] - values[right]) ** 2).sum(axis=1)).sum())


def _cover(
    values: Floats, a: Ints, b: Ints, bounds: Sequence[tuple[Floats, float]], *, on_line: bool
) -> tuple[Ints, Ints]:
    if on_line:
        allowed_rows = _with_counterpart(a, b, bounds)
        i, j = line_cover(values[a[allowed_rows[0]], 0], values[b[allowed_rows[1]], 0])
        i, j = allowed_rows[0][i], allowed_rows[1][j]
        # Without its caliper the problem is a relaxation: a solution that keeps it is the solution.
        if all((np.abs(column[a[i]] - column[b[j]]) <= width).all() for column, width in bounds):
            return i, j
    if len(a) * len(b) > _CELLS:
        raise EstimationError(
            f"full matching of {len(a)} with {len(b)} rows needs {len(a) * len(b):.0e} distances",
            hint="match on a score without a caliper, match exactly on a column to split the problem,"
            " or use method='subclass' with many strata",
        )
    cost = distances(values, a, b)
    for column, width in bounds:
        cost[np.abs(column[a][:, None] - column[b]) > width] = np.inf
    return matrix_cover(cost)


def _with_counterpart(a: Ints, b: Ints, bounds: Sequence[tuple[Floats, float]]) -> tuple[Ints, Ints]:
    """Return which rows of each side have a row of the other within the caliper (one bound, on the score)."""
    kept = []
    for mine, theirs in ((a, b), (b, a)):
        keep = np.ones(len(mine), dtype=bool)
        for column, width in bounds:
            other = np.sort(column[theirs])
            at = np.searchsorted(other, column[mine])
            below = np.abs(column[mine] - other[np.maximum(at - 1, 0)])
            above = np.abs(column[mine] - other[np.minimum(at, len(other) - 1)])
            keep &= np.minimum(below, above) <= width
        kept.append(np.flatnonzero(keep))
    return kept[0], kept[1]


def matrix_cover(cost: Floats) -> tuple[Ints, Ints]:
    """Join every row and every column of a distance matrix at the least total distance.

    Where two may not be joined the distance is infinite; rows and columns that may not be joined at all are
    left out. Row ``i[k]`` is joined with column ``j[k]``.
    """
    from scipy.optimize import linear_sum_assignment

    finite = np.isfinite(cost)
    rows, columns = np.flatnonzero(finite.any(axis=1)), np.flatnonzero(finite.any(axis=0))
    cost = cost[np.ix_(rows, columns)]
    if cost.size == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    of_row, of_column = cost.argmin(axis=1), cost.argmin(axis=0)
    everyone = np.arange(len(rows)), np.arange(len(columns))
    # What is saved by joining two with each other in place of each with its own cheapest.
    saved = cost - cost[everyone[0], of_row][:, None] - cost[of_column, everyone[1]]
    i, j = linear_sum_assignment(np.minimum(saved, 0.0))
    better = saved[i, j] < 0
    i, j = i[better], j[better]
    alone = np.setdiff1d(everyone[0], i), np.setdiff1d(everyone[1], j)
    joined_rows = np.concatenate([i, alone[0], of_column[alone[1]]])
    joined_columns = np.concatenate([j, of_row[alone[0]], alone[1]])
    return rows[joined_rows], columns[joined_columns]


def _only_stars(left: Ints, right: Ints, n: int) -> tuple[Ints, Ints]:
    """Drop pairs whose two rows both have another partner; only pairs at distance 0 can be such."""
    pairs = np.unique(np.column_stack([left, right]), axis=0)
    left, right = pairs[:, 0], pairs[:, 1]
    degree = np.bincount(left, minlength=n) + np.bincount(right, minlength=n)
    keep = np.ones(len(left), dtype=bool)
    for k in np.flatnonzero((degree[left] > 1) & (degree[right] > 1)).tolist():
        if degree[left[k]] > 1 and degree[right[k]] > 1:
            keep[k] = False
            degree[left[k]] -= 1
            degree[right[k]] -= 1
    return left[keep], right[keep]


def _even_stars(values: Floats, code: Ints, left: Ints, right: Ints) -> tuple[Ints, Ints]:
    """Deal partners evenly to the centres that lie at one place, which costs no distance.

    Among equal rows every way to share partners out is equally good by distance. One row with nearly all of
    them and others with one each would weigh rows far more unequally than need be.
    """
    _, place = np.unique(np.column_stack([code, values]), axis=0, return_inverse=True)
    place = place.reshape(-1)
    pairs = [left.copy(), right.copy()]
    for side in (0, 1):
        centre, leaf = pairs[side], pairs[1 - side]
        # A pair of two may count as a centre of this side with one partner.
        free = np.flatnonzero(np.bincount(leaf, minlength=len(place))[leaf] == 1)
        free = free[np.lexsort((leaf[free], centre[free], place[centre[free]]))]
        spot = place[centre[free]]
        for part in np.split(free, np.flatnonzero(np.diff(spot)) + 1):
            centres = np.unique(centre[part])
            if 1 < len(centres) < len(part):
                by_place = part[np.lexsort((leaf[part], place[leaf[part]]))]
                centre[by_place] = centres[np.arange(len(part)) % len(centres)]
    return pairs[0], pairs[1]


def _components(left: Ints, right: Ints, n: int) -> Ints:
    degree = np.bincount(right, minlength=n)
    centre = np.where(degree[right] > 1, right, left)
    stratum = np.full(n, -1, dtype=np.int64)
    _, number = np.unique(centre, return_inverse=True)
    stratum[left] = number
    stratum[right] = number
    return stratum
