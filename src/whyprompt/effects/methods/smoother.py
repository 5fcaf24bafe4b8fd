"""Kernel averages over a window of the score, by running sums: for more pairs than could be listed.

The Epanechnikov kernel ``1 - u^2`` and its square, the biweight, are polynomials of the difference in score
within their window. So is what a row of the other arm gives to all others. Sums over a window are differences
of running sums of powers. These are taken anew in every bin of one bandwidth and about its centre, so that
nothing large is subtracted; rows with little weight in their window, where rounding would show, are summed
pair by pair.
"""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

# Rows whose window weighs less than this share of the heaviest are summed pair by pair.
_LITTLE = 1e-3


class Window(NamedTuple):
    """Some focal rows and the rows that they may take, both in the order of the score, in bandwidths.

    The weight of a pair is ``(1 - u^2)`` to the `power`. `total`, of each focal row, is the weight in its
    window; `listed` are places of focal rows and of others, and the weights, of pairs that are listed.
    """

    focal: Ints
    other: Ints
    at: Floats
    of: Floats
    power: int
    total: Floats
    listed: tuple[Ints, Ints, Floats]


class Smoother(NamedTuple):
    """Kernel matches of n rows."""

    n: int
    windows: tuple[Window, ...]

    def at(self, rows: Ints, n: int) -> Smoother:
        """Return the same matches of rows at these places among n."""
        moved = (w._replace(focal=rows[w.focal], other=rows[w.other]) for w in self.windows)
        return Smoother(n, tuple(moved))

    @property
    def is_focal(self) -> Bools:
        """Rows with a counterpart in their window, shape (n,)."""
        out = np.zeros(self.n, dtype=bool)
        for window in self.windows:
            out[window.focal[window.total > 0]] = True
        return out

    def received(self, power: int) -> Floats:
        """Sum over focal rows each row's share in their averages, to a power of 1 or 2, shape (n,)."""
        out = np.zeros(self.n)
        for w in self.windows:
            i, j, weight = w.listed
            share = np.divide(1.0, w.total, out=np.zeros(len(w.total)), where=w.total > 0) ** power
            found = np.bincount(j, weights=weight**power * share[i], minlength=len(w.other))
            share[i] = 0.0
            out[w.other] += found + window_sums(w.at, share, w.of, w.power * power)
        return out

    def average(self, values: Floats) -> Floats:
        """Average over the window of each focal row; 0 for other rows, shape (n,)."""
        out = np.zeros(self.n)
        for w in self.windows:
            given = values[w.other]
            sums = window_sums(w.of, given, w.at, w.power)
            i, j, weight = w.listed
            sums[i] = 0.0
            sums += np.bincount(i, weights=weight * given[j], minlength=len(sums))
            out[w.focal] = np.divide(sums, w.total, out=np.zeros(len(sums)), where=w.total > 0)
        return out


def window_of(score: Floats, focal: Ints, other: Ints, bandwidth: float, power: int) -> Window:
    """Sort rows and weigh the window of each focal row."""
    focal, other = (rows[np.argsort(score[rows], kind="stable")] for rows in (focal, other))
    at, of = score[focal] / bandwidth, score[other] / bandwidth
    total = window_sums(of, np.ones(len(of)), at, power)
    few = np.flatnonzero(total < _LITTLE * total.max(initial=0.0))
    first = np.searchsorted(of, at[few] - 1.0, side="left")
    count = np.searchsorted(of, at[few] + 1.0, side="right") - first
    i = np.repeat(few, count)
    j = np.repeat(first, count) + np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    weight = np.maximum(1.0 - (at[i] - of[j]) ** 2, 0.0) ** power
    total[few] = 0.0
    total += np.bincount(i, weights=weight, minlength=len(at))
    return Window(focal, other, at, of, power, total, (i, j, weight))


def window_sums(of: Floats, values: Floats, at: Floats, power: int) -> Floats:
    """Sum ``values * (1 - (at - of)^2)^power`` over the points `of` within 1 of each point `at`; both sorted.

    >>> import numpy as np
    >>> window_sums(np.array([0.0, 0.5, 3.0]), np.array([1.0, 2.0, 4.0]), np.array([0.0, 2.5]), 1).tolist()
    [2.5, 3.0]
    """
    out = np.zeros(len(at))
    if len(of) == 0:
        return out
    bins = np.floor(of - of[0])
    starts = np.flatnonzero(np.diff(bins, prepend=-1.0))
    # Of (1 - (a - t)^2)^power, the coefficients of t^k as polynomials of a.
    terms = [
        [
            (comb(power, r) * comb(2 * r, k) * (-1.0) ** (r + k), 2 * r - k)
            for r in range((k + 1) // 2, power + 1)
        ]
        for k in range(2 * power + 1)
    ]
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(of)], strict=True):
        centre = float(of[0] + bins[start]) + 0.5
        low, high = np.searchsorted(at, [centre - 1.5, centre + 1.5])
        if low == high:
            continue
        t, a = of[start:stop] - centre, at[low:high] - centre
        first = np.searchsorted(t, a - 1.0, side="left")
        last = np.searchsorted(t, a + 1.0, side="right")
        running = np.zeros(stop - start + 1)
        moved = values[start:stop].copy()
        powers = [np.ones(len(a))]
        for _ in range(2 * power):
            powers.append(powers[-1] * a)
        for term in terms:
            np.cumsum(moved, out=running[1:])
            out[low:high] += sum(c * powers[e] for c, e in term) * (running[last] - running[first])
            moved *= t
    return out
