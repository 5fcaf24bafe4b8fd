"""Optimal matching on a line, in n log n.

Take rows in the order of their score, and let S be the number of focal minus the number of other places among
those taken so far, where a row has one place for each of its partners. Rows joined in sorted order cost the
sum of gap times |S|. The least cost to reach S is convex in S; it is carried along the sorted rows as two
heaps of the places where its slope changes, left and right of its minimum. What a row may do to S decides how
the function moves; the gap to the next row adds gap times |S|. Going back from S = 0 at the end, the best
earlier S is read off the minima remembered on the way.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_INF = float("inf")


def split_at_gaps(score: Floats, caliper: tuple[Floats, float] | None) -> list[Ints]:
    """Split rows where neighbours in the score are further apart than the caliper: no pair crosses.

    The caliper is a largest difference in values that rise with the score. The rows of each part are in the
    order of the score.
    """
    order = np.argsort(score, kind="stable")
    if caliper is None:
        return [order]
    values, width = caliper
    return list(np.split(order, np.flatnonzero(np.diff(values[order]) > width) + 1))


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


def line_pairs_within(
    a: Floats, b: Floats, values: tuple[Floats, Floats], width: float, ratio: int = 1
) -> tuple[Ints, Ints]:
    """Join points of `a` with up to `ratio` points of `b` each, none further apart than a caliper.

    The caliper is a largest difference `width` in `values` of both, which rise with the places. As many pairs
    as possible are made, and among those matchings the distances sum to the least. The joined points come in
    the order of their places.

    A point of `a` may now be left out as well, at a price above every distance, and S may not exceed the
    places of `a` within the caliper of the next point, nor fall below minus those of `b`. That is enough: a
    place held open beyond its caliper can be left out in favour of a later one, which is no dearer. F is kept
    by its slopes, in order, left and right of S = 0.
    """
    place = np.concatenate([np.repeat(a, ratio), b])
    order = np.argsort(place, kind="stable")
    is_a = order < len(a) * ratio
    at = np.concatenate([np.repeat(values[0], ratio), values[1]])[order]
    # The first point within the caliper of each, and so how many of each side are behind it within reach.
    first = np.searchsorted(at, at - width * (1.0 + 1e-12), side="left")
    behind = np.concatenate([[0], np.cumsum(is_a)])
    n_a = behind[np.arange(len(at))] - behind[first]
    n_b = np.arange(len(at)) - first - n_a
    gaps = np.diff(place[order], prepend=place[order[:1]])
    used = _chosen(gaps.tolist(), is_a.tolist(), n_a.tolist(), n_b.tolist())
    i, j = order[used & is_a] // ratio, order[used & ~is_a] - len(a) * ratio
    within = np.abs(values[0][i] - values[1][j]) <= width
    return i[within], j[within]


def _chosen(gaps: list[float], is_a: list[bool], n_a: list[int], n_b: list[int]) -> NDArray[np.bool_]:
    """Say which of the sorted points are used; `n_a` and `n_b` bound S before each of them."""
    price = 2.0 * sum(gaps) + 1.0
    # Slopes of F over the steps of S left and right of 0, each list ascending and moved by its own amount.
    left: list[float] = []
    right: list[float] = []
    down = up = 0.0
    lowest: list[int] = []
    for gap, focal, most_a, most_b in zip(gaps, is_a, n_a, n_b, strict=True):
        del right[most_a:]
        del left[: max(len(left) - most_b, 0)]
        down -= gap
        up += gap
        # Where F stops falling by more than leaving the point out costs.
        limit = -price if focal else 0.0
        below = bisect_left(left, limit - down)
        lowest.append(below - len(left) + (bisect_left(right, limit - up) if below == len(left) else 0))
        if focal:
            if left and left[-1] + down > limit:
                insort(left, limit - down)
                right.insert(0, left.pop() + down - up)
            else:
                insort(right, limit - up)
        elif right and right[0] + up < limit:
            insort(right, limit - up)
            left.append(right.pop(0) + up - down)
        else:
            insort(left, limit - down)
    state = 0
    used = np.zeros(len(gaps), dtype=bool)
    for k in range(len(gaps) - 1, -1, -1):
        if is_a[k] and state > lowest[k]:
            state -= 1
            used[k] = True
        elif not is_a[k] and state < lowest[k]:
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
