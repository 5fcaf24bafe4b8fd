"""Routes that change at dates of their own: what the changed periods would have been, by imputation.

Route and period effects (and slopes of covariates) are fitted to the rows that are not changed yet, and
subtracted from those that are. Averages of what is left are right however the effect differs between routes
and over time, which two-way fixed effects of a changed-or-not indicator are not; with one date and equal
counts both are the same number.

Borusyak, K., Jaravel, X. and Spiess, J. (2024). Revisiting event-study designs: robust and efficient
estimation. Review of Economic Studies 91, 3253-3285.
Gardner, J. (2022). Two-stage differences in differences. arXiv:2207.05943.
"""

from __future__ import annotations

from math import factorial, prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.intp]
    # From a panel and the period of each route's change to some numbers; None where it cannot be had.
    Statistic = Callable[["Panel", "Floats"], "Floats | None"]

# More groups than these cost and add nothing.
_GROUPS = 200


class Panel(NamedTuple):
    """Rows summed in cells of route and period: G routes, T periods, k covariates.

    `periods`, shape (T,), are in increasing order; `rows` and `y`, shape (G, T), and `x`, shape (G, T, k),
    are sums; `xx`, shape (G, T, k, k), and `xy`, shape (G, T, k), are products within cells, about the
    cells' means.
    """

    periods: Floats
    rows: Floats
    y: Floats
    x: Floats
    xx: Floats
    xy: Floats

    def take(self, routes: Ints | NDArray[np.bool_]) -> Panel:
        """Give the panel of some routes."""
        return Panel(self.periods, *(part[routes] for part in self[1:]))

    def only(self, cells: NDArray[np.bool_]) -> Panel:
        """Give the panel of some cells (G, T); the others are empty."""
        parts = [np.where(cells.reshape(cells.shape + (1,) * (p.ndim - 2)), p, 0.0) for p in self[1:]]
        return Panel(self.periods, *parts)

    def of(self, values: Floats) -> Panel:
        """Give the panel with an outcome that is `values`, shape (G, T), in every row of a cell."""
        return self._replace(y=self.rows * values, xy=np.zeros_like(self.xy))


def sum_cells(y: Floats, x: Floats, route: Ints, period: Floats) -> Panel:
    """Sum rows in cells; `x`, shape (n, k), is without an intercept, `route` numbers from 0."""
    periods, place = np.unique(period, return_inverse=True)
    shape = (int(route.max()) + 1, len(periods))
    cell = route * shape[1] + place
    k, size = x.shape[1], shape[0] * shape[1]

    def total(values: Floats) -> Floats:
        return np.asarray(np.bincount(cell, weights=values, minlength=size), dtype=np.float64)

    count = total(np.ones(len(y)))
    sums = np.column_stack([total(column) for column in (y, *x.T)])
    means = sums / np.maximum(count, 1.0)[:, None]
    inside = np.column_stack([y, x]) - means[cell]
    xx = np.empty((size, k, k))
    xy = np.empty((size, k))
    for a in range(k):
        xy[:, a] = total(inside[:, a + 1] * inside[:, 0])
        for b in range(a, k):
            xx[:, a, b] = xx[:, b, a] = total(inside[:, a + 1] * inside[:, b + 1])
    return Panel(
        periods,
        count.reshape(shape),
        sums[:, 0].reshape(shape),
        sums[:, 1:].reshape(*shape, k),
        xx.reshape(*shape, k, k),
        xy.reshape(*shape, k),
    )


def changed_cells(panel: Panel, change: Floats) -> NDArray[np.bool_]:
    """Say of each cell (G, T) whether its route has changed; `change` is infinite for one that never does."""
    return np.asarray(panel.periods[None, :] >= change[:, None], dtype=bool)


def _linked(seen: NDArray[np.bool_]) -> bool:
    """Whether one can go from any period to any other by routes that were seen in both."""
    if not seen.size:
        return False
    reached, before = seen[0], -1
    if not reached.any():
        reached = seen[seen.any(axis=1)][0]
    while reached.sum() != before:
        before = int(reached.sum())
        reached = seen[seen[:, reached].any(axis=1)].any(axis=0)
    return bool(reached.all())


def fit_unchanged(panel: Panel, change: Floats, extra: Floats | None = None) -> tuple[Floats, Floats] | None:
    """Fit the cells that are not changed by route, period, covariates and `extra` columns, (G, T, m).

    Gives what the model says of every cell, shape (G, T), NaN where nothing unchanged speaks of its route or
    period, and the coefficients of the extra columns. None where the periods are not linked.
    """
    from scipy import linalg

    free = panel.only(~changed_cells(panel, change))
    g, t = free.rows.shape
    k = free.x.shape[2]
    more = np.zeros((g, t, 0)) if extra is None else extra
    m = k + more.shape[2]
    count = free.rows
    wide = np.concatenate([free.x, more * count[:, :, None]], axis=2)
    mean = wide / np.maximum(count, 1.0)[:, :, None]
    seen = np.flatnonzero(count.sum(axis=0) > 0)
    if not _linked(count[:, seen] > 0):
        return None
    own = np.hstack([count[:, seen], wide.sum(axis=1)])
    total = count.sum(axis=1)
    share = own / np.maximum(total, 1.0)[:, None]
    q = len(seen) + m
    gram, right = np.zeros((q, q)), np.zeros(q)
    gram[np.arange(len(seen)), np.arange(len(seen))] = count.sum(axis=0)[seen]
    gram[: len(seen), len(seen) :] = wide.sum(axis=0)[seen]
    gram[len(seen) :, : len(seen)] = gram[: len(seen), len(seen) :].T
    gram[len(seen) :, len(seen) :] = np.tensordot(wide, mean, axes=([0, 1], [0, 1]))
    inside = slice(len(seen), len(seen) + k)
    gram[inside, inside] += free.xx.sum(axis=(0, 1))
    right[: len(seen)] = free.y.sum(axis=0)[seen]
    right[len(seen) :] = np.tensordot(mean, free.y, axes=([0, 1], [0, 1]))
    right[inside] += free.xy.sum(axis=(0, 1))
    gram -= share.T @ own
    right -= share.T @ free.y.sum(axis=1)
    # The first period is the one that others are measured from; what routes and periods determine is nil.
    size = np.sqrt(np.maximum(np.diag(gram), 0.0))
    size = np.where(size > 0, size, 1.0)
    kept = np.arange(1, q)
    scaled = (gram / np.outer(size, size))[np.ix_(kept, kept)]
    coef = np.zeros(q)
    found = linalg.lstsq(scaled, right[kept] / size[kept], cond=1e-10, lapack_driver="gelsy")
    coef[kept] = found[0] / size[kept]
    time = np.full(t, np.nan)
    time[seen] = coef[: len(seen)]
    slopes = coef[len(seen) :]
    # Of the extra columns nothing is said of changed cells.
    level = np.full(g, np.nan)
    known = total > 0
    level[known] = (free.y.sum(axis=1) - own @ coef)[known] / total[known]
    about = panel.x / np.maximum(panel.rows, 1.0)[:, :, None]
    return level[:, None] + time[None, :] + about @ slopes[:k], slopes[k:]


def average_effects(panel: Panel, change: Floats, at: Sequence[float] = ()) -> Floats | None:
    """Average the effects on changed rows: over all, then over those `at` so many periods from the change.

    NaN where there are none; None where the periods are not linked, or no changed row can be imputed.
    """
    found = fit_unchanged(panel, change)
    if found is None:
        return None
    effect = panel.y / np.maximum(panel.rows, 1.0) - found[0]
    weight = np.where(changed_cells(panel, change) & np.isfinite(effect), panel.rows, 0.0)
    effect = np.where(weight > 0, effect, 0.0)
    if not weight.sum() > 0:
        return None
    since = panel.periods[None, :] - change[:, None]
    out = [float((weight * effect).sum() / weight.sum())]
    for event in at:
        here = np.where(since == event, weight, 0.0)
        out.append(float((here * effect).sum() / here.sum()) if here.sum() > 0 else np.nan)
    return np.array(out)


def leads_and_drift(panel: Panel, change: Floats, leads: Sequence[float]) -> Floats | None:
    """Give what routes that will change do before they do, against the others: at each lead, and by period.

    The leads are measured from the periods before them; the last number is the slope of a straight line.
    """
    since = panel.periods[None, :] - change[:, None]
    since = np.where(np.isfinite(since), since, 0.0)
    out: list[float] = []
    if len(leads):
        found = fit_unchanged(panel, change, np.stack([(since == e).astype(float) for e in leads], axis=2))
        if found is None:
            return None
        out += found[1].tolist()
    line = fit_unchanged(panel, change, since[:, :, None])
    return None if line is None else np.array([*out, float(line[1][0])])


def jackknife(panel: Panel, change: Floats, statistic: Statistic, value: Floats) -> tuple[Floats, Floats]:
    """Leave out one route at a time (or one of 200 groups): the covariance, and degrees of freedom.

    MacKinnon, Nielsen and Webb's CV3 (2023, Journal of Econometrics 232(2), section 3). Degrees of freedom
    are Welch's, of routes that change and of routes that do not; a number that does not exist without some
    route has NaN.
    """
    g = len(change)
    order = np.argsort(change, kind="stable")
    group = np.empty(g, dtype=np.intp)
    group[order] = np.arange(g) % _GROUPS
    count = int(group.max()) + 1
    moved = np.empty((count, len(value)))
    ever = np.array([np.isfinite(change[group == b]).any() for b in range(count)])
    for b in range(count):
        rest = group != b
        found = statistic(panel.take(rest), change[rest])
        moved[b] = np.nan if found is None else found - value
    covariance = (count - 1) / count * moved.T @ moved
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [(moved[side] ** 2).sum(axis=0) for side in (ever, ~ever)]
        sizes = [int(ever.sum()), int((~ever).sum())]
        below = sum(p**2 / (n - 1) for p, n in zip(parts, sizes, strict=True) if n > 1)
        df = (parts[0] + parts[1]) ** 2 / below
    return covariance, np.asarray(df, dtype=np.float64)


def assignments(change: Floats, draws: int, rng: np.random.Generator) -> tuple[list[Ints], bool]:
    """Give other ways in which the dates could have fallen on the routes, and whether they are all.

    A way is the number of each route's date, in increasing order; that in which they fell is not among them.

    >>> ways, every = assignments(np.array([3.0, np.inf, np.inf]), 99, np.random.default_rng(0))
    >>> [way.tolist() for way in ways], every
    ([[1, 0, 1], [1, 1, 0]], True)
    """
    _, own, sizes = np.unique(change, return_inverse=True, return_counts=True)
    # Integers of any size: the number of ways soon has more digits than a float.
    ways = factorial(len(own)) // prod(factorial(int(n)) for n in sizes)
    if ways - 1 > draws:
        return [rng.permutation(own) for _ in range(draws)], False
    left = dict(enumerate(sizes.tolist()))
    found: list[Ints] = []

    def extend(begun: tuple[int, ...]) -> None:
        if len(begun) == len(own):
            found.append(np.array(begun))
            return
        for date, rest in left.items():
            if rest:
                left[date] -= 1
                extend((*begun, date))
                left[date] += 1

    extend(())
    return [way for way in found if not np.array_equal(way, own)], True


def permutation_interval(
    value: float, drawn: Floats, own: Floats, level: float
) -> tuple[float, float, float]:
    """Turn other assignments into an interval: the constant effects that they do not reject, and p of 0.

    `drawn` is the estimate under each other assignment, `own` that of the changed-or-not indicator itself:
    less an effect, the estimate is ``value - effect`` and the drawn ones ``drawn - effect * own``.

    Two routes of four that changed, of six ways: no interval can be given at 95%, and at 60% it is bounded.

    >>> drawn, own = np.array([-2.0, -0.5, 0.1, 0.4, 0.3]), np.array([-1.0, -0.2, 0.1, 0.0, 0.2])
    >>> permutation_interval(2.0, drawn, own, 0.95)[:2]
    (-inf, inf)
    >>> [round(end, 2) for end in permutation_interval(2.0, drawn, own, 0.6)]
    [1.6, 2.4, 0.33]
    """
    total = len(drawn) + 1
    p = (1 + int((np.abs(drawn) >= abs(value) - 1e-12 * max(abs(value), 1.0)).sum())) / total
    a, b, c = own**2 - 1.0, drawn * own - value, drawn**2 - value**2
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(np.maximum(b**2 - a * c, 0.0))
        ends = np.sort(np.stack([(b + root) / a, (b - root) / a]), axis=0)
    always = a > -1e-12
    low = np.sort(np.where(always, -np.inf, ends[0]))
    high = np.sort(np.where(always, np.inf, ends[1]))[::-1]
    # An effect is kept where more than the share 1 - level of all assignments is at least as far out.
    need = int(np.floor((1.0 - level) * total + 1e-9))
    if need < 1:
        return -np.inf, np.inf, p
    return float(low[need - 1]), float(high[need - 1]), p
