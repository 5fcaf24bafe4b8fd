"""Greedy nearest-neighbour matching on a scalar score.

The controls lie sorted in one list. A free control is found from a treated row's place in that list by
two arrays of next-free pointers, one to each side, with path compression: a match costs amortised almost
constant time, and the whole n log n for the sort. The loops are plain Python over lists, which for scalar
work is faster than indexing numpy arrays.

Between two candidates at exactly the same distance the one fewer places away in the sorted sample is
taken, and the one below where that ties too. This is the rule of MatchIt 4.7.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

__all__ = ["Sorted", "closest_pairs", "greedy_pairs", "reused_neighbours", "sort_sample"]

_INF = float("inf")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sorted:
    """The sample in the order of the score, stratum by stratum, with sentinels around each stratum.

    Attributes
    ----------
    controls : ndarray of int, shape (m,)
        Rows of the controls in sorted order.
    slot : ndarray of int, shape (m,)
        Place of each of them in the padded list.
    slot_score : ndarray, shape (m + 2 strata,)
        Score at each place: -inf below and +inf above every stratum.
    slot_place : ndarray of int, shape (m + 2 strata,)
        Place in the whole sorted sample, treated rows included; for ties.
    slot_row : ndarray of int, shape (m + 2 strata,)
        Row at each place, -1 for a sentinel.
    start : ndarray of int, shape (n,)
        For each row, the first place at or above it.
    place : ndarray of int, shape (n,)
        Place of each row in the whole sorted sample.
    """

    controls: Ints
    slot: Ints
    slot_score: Floats
    slot_place: Ints
    slot_row: Ints
    start: Ints
    place: Ints


def sort_sample(score: Floats, candidate: Bools, *, strata: Ints | None, tie_rank: Ints | None) -> Sorted:
    """Sort the sample once for all searches.

    Parameters
    ----------
    score : ndarray, shape (n,)
        What rows are matched on.
    candidate : ndarray of bool, shape (n,)
        Rows that may be taken as a match.
    strata : ndarray of int, shape (n,), optional
        Codes 0..S-1; a match never leaves its stratum.
    tie_rank : ndarray of int, shape (n,), optional
        Order among equal scores; default the order of the rows.

    Returns
    -------
    Sorted
    """
    n = len(score)
    if strata is None and tie_rank is None:
        order = _stable_order(score)
    else:
        keys = [np.arange(n) if tie_rank is None else tie_rank, score]
        if strata is not None:
            keys.append(strata)
        order = np.lexsort(keys)
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    is_control = candidate[order]
    controls = order[is_control]
    before: Ints = np.cumsum(is_control) - is_control
    n_strata = 1 if strata is None else int(strata.max()) + 1
    block = np.zeros(n, dtype=np.int64) if strata is None else strata
    start = np.empty(n, dtype=np.int64)
    start[order] = before
    start += 2 * block + 1
    slot = start[controls]
    size = len(controls) + 2 * n_strata
    slot_score = np.empty(size)
    slot_score[slot] = score[controls]
    per_stratum = np.bincount(block[controls], minlength=n_strata)
    lower = np.concatenate([[0], np.cumsum(per_stratum)[:-1]]) + 2 * np.arange(n_strata)
    slot_score[lower] = -_INF
    slot_score[lower + per_stratum + 1] = _INF
    slot_place = np.full(size, -1, dtype=np.int64)
    slot_place[slot] = place[controls]
    slot_row = np.full(size, -1, dtype=np.int64)
    slot_row[slot] = controls
    return Sorted(
        controls=controls,
        slot=slot,
        slot_score=slot_score,
        slot_place=slot_place,
        slot_row=slot_row,
        start=start,
        place=place,
    )


def _stable_order(score: Floats) -> Ints:
    """Sort by the fast, unstable algorithm, then put the rows of each tie in order."""
    order = np.argsort(score)
    in_order = score[order]
    same = in_order[1:] == in_order[:-1]
    if same.any():
        tied = np.zeros(len(score), dtype=bool)
        tied[1:] = same
        tied[:-1] |= same
        at = np.flatnonzero(tied)
        members = order[at]
        order[at] = members[np.lexsort((members, in_order[at]))]
    return order


def greedy_pairs(
    sample: Sorted,
    score: Floats,
    focal: Ints,
    *,
    ratio: int = 1,
    caliper: float | None = None,
    limits: Sequence[tuple[Floats, float]] = (),
) -> tuple[Ints, Ints]:
    """Match each row to its nearest free controls, without replacement, in the order given.

    Parameters
    ----------
    sample : Sorted
        From `sort_sample`.
    score : ndarray, shape (n,)
        What rows are matched on.
    focal : ndarray of int, shape (m,)
        Rows to be matched, in the order they choose.
    ratio : int, default 1
        Matches a row, chosen in rounds: everyone's first before anyone's second.
    caliper : float, optional
        Largest allowed difference in `score`.
    limits : sequence of (ndarray of shape (n,), float)
        Further calipers: values and the largest allowed difference in them.

    Returns
    -------
    focal_rows, other_rows : ndarray of int
        The pairs.
    """
    size = len(sample.slot_score)
    up = list(range(size))
    down = list(range(size))
    width = _INF if caliper is None else caliper
    low = sample.place[focal]
    high = sample.place[focal]
    active = np.arange(len(focal))
    found_focal: list[Ints] = []
    found_other: list[Ints] = []
    for _ in range(ratio):
        rows = focal[active]
        if limits:
            taken = _round_with_limits(
                sample, score, rows, low[active], high[active], up, down, width, limits
            )
        else:
            taken = _round(sample, score, rows, low[active], high[active], up, down, width)
        hit = taken >= 0
        rows, taken, active = rows[hit], taken[hit], active[hit]
        found_focal.append(rows)
        found_other.append(sample.slot_row[taken])
        low[active] = np.minimum(low[active], sample.slot_place[taken])
        high[active] = np.maximum(high[active], sample.slot_place[taken])
    return np.concatenate(found_focal), np.concatenate(found_other)


def _round(
    sample: Sorted,
    score: Floats,
    rows: Ints,
    low: Ints,
    high: Ints,
    up: list[int],
    down: list[int],
    width: float,
) -> Ints:
    scores = sample.slot_score.tolist()
    places = sample.slot_place
    taken: list[int] = []
    take = taken.append
    for s, first in zip(score[rows].tolist(), sample.start[rows].tolist(), strict=True):
        right, left = first, first - 1
        nearer = up[right]
        while nearer != right:
            nearer = up[right] = up[nearer]
            right, nearer = nearer, up[nearer]
        nearer = down[left]
        while nearer != left:
            nearer = down[left] = down[nearer]
            left, nearer = nearer, down[nearer]
        below = s - scores[left]
        above = scores[right] - s
        if below < above:
            pick, gap = left, below
        elif above < below:
            pick, gap = right, above
        elif above == _INF:
            take(-1)
            continue
        else:
            k = len(taken)
            steps = (low[k] - places[left], places[right] - high[k])
            pick, gap = (left, below) if steps[0] <= steps[1] else (right, above)
        if gap > width:
            take(-1)
            continue
        take(pick)
        up[pick] = pick + 1
        down[pick] = pick - 1
    return np.asarray(taken, dtype=np.int64)


def _find(pointer: list[int], i: int) -> int:
    while pointer[i] != i:
        pointer[i] = pointer[pointer[i]]
        i = pointer[i]
    return i


def _nearest_allowed(
    sample: Sorted,
    scores: list[float],
    s: float,
    row: int,
    start: int,
    low: int,
    high: int,
    up: list[int],
    down: list[int],
    width: float,
    limits: Sequence[tuple[Floats, float]],
) -> int:
    """Walk outwards from a row, always on the nearer side, to the first free control within all limits."""
    right = _find(up, start)
    left = _find(down, start - 1)
    while True:
        below = s - scores[left]
        above = scores[right] - s
        if min(below, above) > width or (below == _INF and above == _INF):
            return -1
        go_left = below < above or (
            below == above and low - sample.slot_place[left] <= sample.slot_place[right] - high
        )
        pick = left if go_left else right
        other = sample.slot_row[pick]
        if all(abs(values[row] - values[other]) <= limit for values, limit in limits):
            return pick
        if go_left:
            left = _find(down, left - 1)
        else:
            right = _find(up, right + 1)


def _round_with_limits(
    sample: Sorted,
    score: Floats,
    rows: Ints,
    low: Ints,
    high: Ints,
    up: list[int],
    down: list[int],
    width: float,
    limits: Sequence[tuple[Floats, float]],
) -> Ints:
    scores = sample.slot_score.tolist()
    taken = np.full(len(rows), -1, dtype=np.int64)
    for k, row in enumerate(rows.tolist()):
        pick = _nearest_allowed(
            sample,
            scores,
            float(score[row]),
            row,
            int(sample.start[row]),
            int(low[k]),
            int(high[k]),
            up,
            down,
            width,
            limits,
        )
        taken[k] = pick
        if pick >= 0:
            up[pick] = pick + 1
            down[pick] = pick - 1
    return taken


def closest_pairs(
    sample: Sorted,
    score: Floats,
    focal: Ints,
    *,
    ratio: int = 1,
    caliper: float | None = None,
    limits: Sequence[tuple[Floats, float]] = (),
) -> tuple[Ints, Ints]:
    """Match without replacement, the closest pair of the whole sample first.

    Parameters
    ----------
    sample, score, focal, ratio, caliper, limits
        As for `greedy_pairs`; the order of `focal` decides between pairs equally close.

    Returns
    -------
    focal_rows, other_rows : ndarray of int
        The pairs, closest first within a round.
    """
    size = len(sample.slot_score)
    up = list(range(size))
    down = list(range(size))
    scores = sample.slot_score.tolist()
    width = _INF if caliper is None else caliper
    low = sample.place.copy()
    high = sample.place.copy()
    found: list[tuple[int, int]] = []
    active = focal.tolist()

    def search(row: int, reach_low: int, reach_high: int) -> int:
        return _nearest_allowed(
            sample,
            scores,
            float(score[row]),
            row,
            int(sample.start[row]),
            reach_low,
            reach_high,
            up,
            down,
            width,
            limits,
        )

    for _ in range(ratio):
        heap: list[tuple[float, int, int, int]] = []
        for k, row in enumerate(active):
            pick = search(row, int(low[row]), int(high[row]))
            if pick >= 0:
                heap.append((abs(float(score[row]) - scores[pick]), k, row, pick))
        heapq.heapify(heap)
        again = 0
        active = []
        while heap:
            _, _, row, pick = heapq.heappop(heap)
            if up[pick] == pick:
                found.append((row, int(sample.slot_row[pick])))
                up[pick] = pick + 1
                down[pick] = pick - 1
                low[row] = min(low[row], sample.slot_place[pick])
                high[row] = max(high[row], sample.slot_place[pick])
                active.append(row)
                continue
            lost = int(sample.slot_place[pick])
            pick = search(row, min(int(low[row]), lost), max(int(high[row]), lost))
            if pick >= 0:
                # Among equals, a row that lost its control goes first.
                again -= 1
                heapq.heappush(heap, (abs(float(score[row]) - scores[pick]), again, row, pick))
        active.sort()
    pairs = np.asarray(found, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def reused_neighbours(
    sample: Sorted,
    score: Floats,
    focal: Ints,
    *,
    ratio: int = 1,
    caliper: float | None = None,
    limits: Sequence[tuple[Floats, float]] = (),
) -> tuple[Ints, Ints]:
    """Match each row to its nearest controls with replacement, all rows at once.

    Parameters
    ----------
    sample, score, focal, ratio, caliper, limits
        As for `greedy_pairs`.

    Returns
    -------
    focal_rows, other_rows : ndarray of int
        The pairs, row by row, nearest first.
    """
    width = _INF if caliper is None else caliper
    if limits:
        return _reused_with_limits(sample, score, focal, ratio, width, limits)
    size = len(sample.slot_score)
    rows_out: list[Ints] = []
    others_out: list[Ints] = []
    offsets = np.concatenate([-np.arange(1, ratio + 1), np.arange(ratio)])
    step = max(1, 4_000_000 // len(offsets))
    # Beyond a sentinel lies another stratum: everything past the first infinite score is out.
    for a in range(0, len(focal), step):
        rows = focal[a : a + step]
        slots = sample.start[rows][:, None] + offsets
        outside = (slots < 0) | (slots >= size)
        gap = np.abs(score[rows][:, None] - sample.slot_score[np.clip(slots, 0, size - 1)])
        gap[outside] = _INF
        for side in (gap[:, :ratio], gap[:, ratio:]):
            side[np.logical_or.accumulate(np.isinf(side), axis=1)] = _INF
        if ratio == 1:
            chosen = _nearer_of_two(sample, rows, slots, gap)[:, None]
        else:
            places = sample.slot_place[np.clip(slots, 0, size - 1)]
            steps = np.abs(places - sample.place[rows][:, None])
            turn = 2 * steps + (offsets >= 0)
            chosen = np.lexsort((turn, gap), axis=1)[:, :ratio]
        ok = np.take_along_axis(gap, chosen, axis=1) <= min(width, np.finfo(float).max)
        picked = np.take_along_axis(slots, chosen, axis=1)
        rows_out.append(np.broadcast_to(rows[:, None], ok.shape)[ok])
        others_out.append(sample.slot_row[picked[ok]])
    return np.concatenate(rows_out), np.concatenate(others_out)


def _nearer_of_two(sample: Sorted, rows: Ints, slots: Ints, gap: Floats) -> Ints:
    chosen = (gap[:, 1] < gap[:, 0]).astype(np.int64)
    tied = np.flatnonzero((gap[:, 0] == gap[:, 1]) & np.isfinite(gap[:, 0]))
    if len(tied):
        here = sample.place[rows[tied]]
        below = here - sample.slot_place[slots[tied, 0]]
        above = sample.slot_place[slots[tied, 1]] - here
        chosen[tied] = above < below
    return chosen


def _reused_with_limits(
    sample: Sorted,
    score: Floats,
    focal: Ints,
    ratio: int,
    width: float,
    limits: Sequence[tuple[Floats, float]],
) -> tuple[Ints, Ints]:
    scores = sample.slot_score.tolist()
    size = len(scores)
    pairs: list[tuple[int, int]] = []
    for row in focal.tolist():
        s = float(score[row])
        right = int(sample.start[row])
        left = right - 1
        here = int(sample.place[row])
        n_found = 0
        while n_found < ratio:
            below = s - scores[left] if left >= 0 else _INF
            above = scores[right] - s if right < size else _INF
            if min(below, above) > width or (below == _INF and above == _INF):
                break
            go_left = below < above or (
                below == above and here - sample.slot_place[left] <= sample.slot_place[right] - here
            )
            pick = left if go_left else right
            other = int(sample.slot_row[pick])
            if all(abs(values[row] - values[other]) <= limit for values, limit in limits):
                pairs.append((row, other))
                n_found += 1
            if go_left:
                left -= 1
            else:
                right += 1
    flat = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    return flat[:, 0], flat[:, 1]
