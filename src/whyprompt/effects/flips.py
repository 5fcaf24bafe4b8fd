"""How many items flip between two arms, and how many flip when one arm is run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.pairs import PairedItems

    Bools = NDArray[np.bool_]


class Flips(NamedTuple):
    """Of `items`, `flips` have another outcome in the first trial of one arm than in that of the other.

    Of `pairs` of trials of one item under one arm `same_arm` disagree. `expected` flips of as many items
    would be noise, and `low` to `high` in a run of its own; None where no trial was repeated.
    """

    items: int
    flips: int
    pairs: int
    same_arm: int
    expected: float | None
    low: int | None
    high: int | None


def item_flips(paired: PairedItems, *, level: float = 0.95) -> Flips:
    """Count flips between the arms' first trials, and those that trials of one arm make among themselves.

    Trials of an item under an arm are put into pairs, the first with the second, the third with the fourth.

    >>> import pandas as pd
    >>> from whyprompt.effects.pairs import paired_differences
    >>> rows = [(i, arm, float(k == i % 2)) for i in range(8) for arm in "ab" for k in range(2)]
    >>> frame = pd.DataFrame(rows, columns=["item", "arm", "y"])
    >>> item_flips(
    ...     paired_differences(frame, treatment="arm", unit="item", outcome="y", treated="b", control="a")
    ... )[:5]
    (8, 0, 16, 16, 8.0)
    """
    n = len(paired.units)
    cell = paired.trial_item * 2 + paired.trial_treated
    order = np.argsort(cell, kind="stable")
    c, y = cell[order], paired.trial_outcome[order]
    start = np.concatenate([[True], c[1:] != c[:-1]])
    turn = np.arange(len(c)) - np.maximum.accumulate(np.where(start, np.arange(len(c)), 0))
    first = y[turn == 0]
    second: Bools = turn % 2 == 1
    differ = y[second] != y[np.flatnonzero(second) - 1]
    pairs, same = int(second.sum()), int(differ.sum())
    low, high = predicted(same, pairs, n, level=level) if pairs else (None, None)
    return Flips(
        items=n,
        flips=int((first[::2] != first[1::2]).sum()),
        pairs=pairs,
        same_arm=same,
        expected=n * same / pairs if pairs else None,
        low=low,
        high=high,
    )


def predicted(seen: int, of: int, n: int, *, level: float = 0.95) -> tuple[int, int]:
    """Give the least and the most successes in `n` further draws, after `seen` in `of` draws.

    Those numbers are left out of which, or of fewer (more), the hypergeometric law of both samples gives the
    split a chance below half of ``1 - level``. It holds for one chance of all draws, and more than that where
    items have chances of their own.

    Reference: Thatcher, A. R. (1964). Relationships between Bayesian and confidence limits for predictions.
    JRSS B 26, 176-192.

    >>> predicted(0, 50, 25), predicted(10, 50, 25)
    ((0, 3), (1, 11))
    """
    from scipy import stats

    y = np.arange(n + 1)
    tail = (1.0 - level) / 2.0
    # Of seen + y successes so many fell on the first sample.
    law = stats.hypergeom(of + n, seen + y, of)
    could = y[(law.cdf(seen) > tail) & (law.sf(seen - 1) > tail)]
    return int(could.min()), int(could.max())
