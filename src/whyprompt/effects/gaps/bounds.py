"""Missing outcomes: whether the arm has a hand in them, and what the worst of them could do."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


class MissingByArm(NamedTuple):
    """How many outcomes are missing under each arm, of how many, and what that may mean.

    Of items where every one was run under both arms (`unit` ``"item"``), else of rows. `p` is that of
    missingness unrelated to the arm: exact McNemar's of items, Fisher's of rows. `low` and `high` are the
    mean difference if all that is missing were the worst, and the best; None for outcomes without bounds.
    """

    unit: str
    treated: int
    control: int
    of: tuple[int, int]
    p: float
    low: float | None = None
    high: float | None = None


def outcome_range(y: Floats) -> tuple[float, float] | None:
    """Give the bounds of an outcome that is a share, or 0 and 1; None where none are known.

    >>> outcome_range(np.array([0.0, 0.5, np.nan])), outcome_range(np.array([3.0]))
    ((0.0, 1.0), None)
    """
    known = y[~np.isnan(y)]
    return (0.0, 1.0) if len(known) and known.min() >= 0.0 and known.max() <= 1.0 else None


def missing_items(item: Ints, treated: Bools, y: Floats, *, absent: bool = True) -> MissingByArm | None:
    """Compare missingness within items, and bound their mean difference; None where nothing is missing.

    Parameters
    ----------
    item, treated, y : ndarray, shape (n,)
        The item of each trial, its arm and its outcome, NaN where it is missing. Repeats of a cell, (item,
        arm), are averaged, each missing one at its worst.
    absent : bool
        Whether an item that was never run under an arm counts as missing there, and else not at all.

    References
    ----------
    Manski, C. F. (1990). Nonparametric bounds on treatment effects. American Economic Review 80, 319-323.
    McNemar, Q. (1947). Psychometrika 12, 153-157, in the exact binomial form.

    Examples
    --------
    One of two items lacks an outcome under the treated arm:

    >>> arm, y = np.array([True, False, True, False]), np.array([1, 0, np.nan, 1])
    >>> found = missing_items(np.array([0, 0, 1, 1]), arm, y)
    >>> found.treated, found.control, found.low, found.high
    (1, 0, 0.0, 0.5)
    """
    from scipy import stats

    _, item = np.unique(item, return_inverse=True)
    n = int(item.max()) + 1 if len(item) else 0
    gone = np.isnan(y)
    rows, seen, total = (np.zeros((2, n)) for _ in range(3))
    for side in (0, 1):
        here = treated == bool(side)
        rows[side] = np.bincount(item[here], minlength=n)
        seen[side] = np.bincount(item[here & ~gone], minlength=n)
        total[side] = np.bincount(item[here & ~gone], weights=y[here & ~gone], minlength=n)
    used = np.ones(n, dtype=bool) if absent else (rows > 0).all(axis=0)
    rows, seen, total = rows[:, used], seen[:, used], total[:, used]
    lost = (seen < rows) | (rows == 0)
    if not lost.any():
        return None
    one, other = int((lost[1] & ~lost[0]).sum()), int((lost[0] & ~lost[1]).sum())
    ends = outcome_range(y)
    low = high = None
    if ends is not None:
        size = np.maximum(rows, 1.0)
        worst, best = ((total + (size - seen) * end) / size for end in ends)
        low, high = float((worst[1] - best[0]).mean()), float((best[1] - worst[0]).mean())
    return MissingByArm(
        unit="item",
        treated=int(lost[1].sum()),
        control=int(lost[0].sum()),
        of=(int(used.sum()), int(used.sum())),
        p=float(stats.binomtest(one, one + other, 0.5).pvalue) if one + other else 1.0,
        low=low,
        high=high,
    )


def missing_rows(treated: Bools, y: Floats, *, drawn: bool = False) -> MissingByArm | None:
    """Compare missingness between rows of two arms, by Fisher's exact test; None where nothing is missing.

    With `drawn`, arms dealt with one chance for all rows, the difference of means is bounded too.

    >>> found = missing_rows(np.array([True] * 4 + [False] * 4), np.array([np.nan, 1, 1, 1, 0, 0, 0, 0]))
    >>> found.treated, found.of, found.p
    (1, (4, 4), 1.0)
    """
    from scipy import stats

    gone = np.isnan(y)
    if not gone.any():
        return None
    counts = [(int((gone & side).sum()), int(side.sum())) for side in (treated, ~treated)]
    table = np.array([[lost, n - lost] for lost, n in counts])
    ends = outcome_range(y) if drawn else None
    low = high = None
    if ends is not None:
        (w1, b1), (w0, b0) = _filled(treated, y, ends)
        low, high = w1 - b0, b1 - w0
    return MissingByArm(
        unit="row",
        treated=counts[0][0],
        control=counts[1][0],
        of=(counts[0][1], counts[1][1]),
        p=float(stats.fisher_exact(table).pvalue),
        low=low,
        high=high,
    )


def _filled(treated: Bools, y: Floats, ends: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    """Give the mean of each arm, the treated one first, with every gap at the lower and at the upper end."""
    return tuple(
        (
            float(np.nan_to_num(y[side], nan=ends[0]).mean()),
            float(np.nan_to_num(y[side], nan=ends[1]).mean()),
        )
        for side in (treated, ~treated)
    )
