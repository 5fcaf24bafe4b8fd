"""Optimal matching on a line, in n log n.

Take rows in the order of their score, and let S be the number of focal minus the number of other places among
those taken so far, where a row has one place for each of its partners. Rows joined in sorted order cost the
sum of gap times |S|. The least cost to reach S is convex in S; it is carried along the sorted rows as two
heaps of the places where its slope changes, left and right of its minimum. What a row may do to S decides how
the function moves; the gap to the next row adds gap times |S|. Going back from S = 0 at the end, the best
earlier S is read off the minima remembered on the way.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_INF = float("inf")


def split_at_gaps(score: Floats, caliper: float | None) -> list[Ints]:
    """Split rows where neighbours in the score are further apart than the caliper: no pair crosses.

    The rows of each part are in the order of the score.
    """
    order = np.argsort(score, kind="stable")
    if caliper is None:
        return [order]
    return list(np.split(order, np.flatnonzero(np.diff(score[order]) > caliper) + 1))


def line_cover(a: Floats, b: Floats) -> tuple[Ints, Ints]:
    """Join every point of two sets on a line, neither empty unless both are, at the least total distance.

    ``a[i]`` is joined with ``b[j]``. The state S after a point of `a` is at least one more than before it,
    after a point of `b` at least one less. The cost so far, as a function of S, is convex: it is kept as two
    heaps of the places where its slope changes. A point of `a` lets S rise for free, so the function is cut
    at its minimum on the right; a point of `b` cuts it on the left; the gap to the next point adds gap times
    |S|. Going back from S = 0 at the end, the best earlier S is the minimum remembered there, or the nearest
    that the point allows.
    """
    if len(a) == 0 or len(b) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    place = np.concatenate([a, b])
    order = np.argsort(place, kind="stable")
    step = np.where(order < len(a), 1, -1)
    states = _best_states(np.append(np.diff(place[order]), 0.0).tolist(), step.tolist())
    count = np.abs(np.diff(np.concatenate([[0], states])))
    # In sorted order the k-th place of `a` is joined with the k-th place of `b`.
    i = np.repeat(order[step > 0], count[step > 0])
    j = np.repeat(order[step < 0], count[step < 0]) - len(a)
    return i.astype(np.int64), j.astype(np.int64)


def _best_states(gaps: list[float], steps: list[int]) -> Ints:
    # Places where the slope changes and by how much, left of the minimum (negated: a heap gives its least)
    # and right of it. S starts at 0 and nowhere else. All places move by `shift`.
    low: list[tuple[int, float]] = [(0, _INF)]
    high: list[tuple[int, float]] = [(0, _INF)]
    shift = 0
    minima: list[tuple[float, float]] = []
    for gap, step in zip(gaps, steps, strict=True):
        minima.append((shift - low[0][0] if low else -_INF, shift + high[0][0] if high else _INF))
        (high if step > 0 else low).clear()
        shift += step
        if gap > 0:
            heappush(low, (shift, gap))
            _hand_over(low, high, gap)
            heappush(high, (-shift, gap))
            _hand_over(high, low, gap)
    state = 0
    states = [0] * len(steps)
    for k in range(len(steps) - 1, -1, -1):
        states[k] = state
        left, right = minima[k]
        # Before a point of `a` the state is at most one less, before one of `b` at least one more. Among
        # the best the one nearest to 0 is taken, so that no row gets partners that it does not need.
        allowed = state - steps[k]
        if steps[k] > 0:
            state = allowed if allowed < left else int(max(left, min(0, right, allowed)))
        else:
            state = allowed if allowed > right else int(min(right, max(0, left, allowed)))
    return np.asarray(states, dtype=np.int64)


def line_pairs(a: Floats, b: Floats, ratio: int = 1) -> tuple[Ints, Ints]:
    """Join every point of `a` with `ratio` points of `b`, each used once, at the least total distance.

    ``len(a) * ratio <= len(b)``. ``a[i]`` is joined with ``b[j]``, in sorted order of both: of all pairings
    of the points chosen it has the smallest largest distance. A point of `a` raises S by `ratio`. A point of
    `b` lowers it by one if it is used, so the function left of its minimum moves down by one place and stays
    where it is on the right.
    """
    place = np.concatenate([a, b])
    order = np.argsort(place, kind="stable")
    is_a = order < len(a)
    used = _used(np.append(np.diff(place[order]), 0.0).tolist(), is_a.tolist(), ratio)
    return np.repeat(order[is_a], ratio), order[used] - len(a)


def _used(gaps: list[float], is_a: list[bool], ratio: int) -> NDArray[np.bool_]:
    """Say which of the sorted points of the other side are used."""
    # Places are kept as they were when the shifts of their heaps were 0.
    low: list[tuple[int, float]] = [(0, _INF)]
    high: list[tuple[int, float]] = [(0, _INF)]
    down = up = 0
    lowest: list[int] = []
    for gap, focal in zip(gaps, is_a, strict=True):
        lowest.append(down - low[0][0])
        if focal:
            down += ratio
            up += ratio
        else:
            down -= 1
        if gap > 0:
            heappush(low, (down, gap))
            _hand_over(low, high, gap, down - up)
            heappush(high, (-up, gap))
            _hand_over(high, low, gap, down - up)
    state = 0
    used = np.zeros(len(gaps), dtype=bool)
    for k in range(len(gaps) - 1, -1, -1):
        if is_a[k]:
            state -= ratio
        elif state < lowest[k]:
            # More was better before this point: it is used.
            state += 1
            used[k] = True
    return used


def _hand_over(
    giver: list[tuple[int, float]], taker: list[tuple[int, float]], weight: float, offset: int = 0
) -> None:
    """Move slope changes of a total weight from the top of one heap to the other.

    `offset` is the shift of the heap of negated places less that of the other.
    """
    while weight > 0:
        place, change = heappop(giver)
        moved = min(change, weight)
        heappush(taker, (offset - place, moved))
        if change > moved:
            heappush(giver, (place, change - moved))
        weight -= moved
