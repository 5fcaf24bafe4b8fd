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
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

_INF = float("inf")


class Controls:
    """The rows that may be taken, in the order of the score, stratum by stratum, and which are still free.

    They lie in a list of slots with a sentinel below (score -inf, row -1) and above (+inf) every stratum. A
    place is one in the whole sorted sample, treated rows included; it decides ties.

    Each search gives the pairs of some focal rows: the rows matched, and what they are matched with. The
    `caliper` is the largest allowed difference, in values that rise with the score; `limits` are further
    ones, each on values of all rows. `ratio` is the number of matches a row.
    """

    def __init__(
        self,
        score: Floats,
        candidate: Bools,
        *,
        strata: Ints | None,
        tie_rank: Ints | None,
        caliper: tuple[Floats, float] | None = None,
    ) -> None:
        """Sort the sample once for all searches; equal scores by `tie_rank`, or as they come."""
        n = len(score)
        if strata is None and tie_rank is None:
            order = _stable_order(score)
        else:
            keys = [np.arange(n) if tie_rank is None else tie_rank, score]
            if strata is not None:
                keys.append(strata)
            order = np.lexsort(keys)
        self.score = score
        self.place = np.empty(n, dtype=np.int64)
        self.place[order] = np.arange(n)
        is_control = candidate[order]
        self.rows = order[is_control]
        before: Ints = np.cumsum(is_control) - is_control
        n_strata = 1 if strata is None else int(strata.max()) + 1
        block = np.zeros(n, dtype=np.int64) if strata is None else strata
        # Of each row, the first slot at or above it.
        self.start = np.empty(n, dtype=np.int64)
        self.start[order] = before
        self.start += 2 * block + 1
        slot = self.start[self.rows]
        size = len(self.rows) + 2 * n_strata
        self.slot_score = np.empty(size)
        self.slot_score[slot] = score[self.rows]
        per_stratum = np.bincount(block[self.rows], minlength=n_strata)
        lower = np.concatenate([[0], np.cumsum(per_stratum)[:-1]]) + 2 * np.arange(n_strata)
        self.slot_score[lower] = -_INF
        self.slot_score[lower + per_stratum + 1] = _INF
        self.slot_place = np.full(size, -1, dtype=np.int64)
        self.slot_place[slot] = self.place[self.rows]
        self.slot_row = np.full(size, -1, dtype=np.int64)
        self.slot_row[slot] = self.rows
        self.values, self.width = (score, _INF) if caliper is None else caliper
        self.slot_value = self.slot_score.copy()
        self.slot_value[slot] = self.values[self.rows]

    def _free_all(self) -> None:
        size = len(self.slot_score)
        self.scores: list[float] = self.slot_score.tolist()
        self.bounds: list[float] = self.scores if self.values is self.score else self.slot_value.tolist()
        # The next free slot at or above each, and at or below.
        self.up, self.down = list(range(size)), list(range(size))

    def _take(self, pick: int) -> None:
        self.up[pick] = pick + 1
        self.down[pick] = pick - 1

    def greedy(
        self,
        focal: Ints,
        *,
        ratio: int = 1,
        limits: Sequence[tuple[Floats, float]] = (),
    ) -> tuple[Ints, Ints]:
        """Match each row to its nearest free controls, without replacement, in the order given.

        Matches are chosen in rounds: everyone's first before anyone's second.
        """
        self._free_all()
        low, high = self.place[focal], self.place[focal]
        active = np.arange(len(focal))
        found_focal: list[Ints] = []
        found_other: list[Ints] = []
        for _ in range(ratio):
            rows = focal[active]
            if limits:
                taken = self._round_with_limits(rows, low[active], high[active], limits)
            else:
                taken = self._round(rows, low[active], high[active])
            hit = taken >= 0
            rows, taken, active = rows[hit], taken[hit], active[hit]
            found_focal.append(rows)
            found_other.append(self.slot_row[taken])
            low[active] = np.minimum(low[active], self.slot_place[taken])
            high[active] = np.maximum(high[active], self.slot_place[taken])
        return np.concatenate(found_focal), np.concatenate(found_other)

    def _round(self, rows: Ints, low: Ints, high: Ints) -> Ints:
        scores, places, up, down = self.scores, self.slot_place, self.up, self.down
        bounds, width = self.bounds, self.width
        taken: list[int] = []
        take = taken.append
        asked = zip(
            self.score[rows].tolist(), self.values[rows].tolist(), self.start[rows].tolist(), strict=True
        )
        for s, value, first in asked:
            right, left = first, first - 1
            nearer = up[right]
            while nearer != right:
                nearer = up[right] = up[nearer]
                right, nearer = nearer, up[nearer]
            nearer = down[left]
            while nearer != left:
                nearer = down[left] = down[nearer]
                left, nearer = nearer, down[nearer]
            below = s - scores[left] if value - bounds[left] <= width else _INF
            above = scores[right] - s if bounds[right] - value <= width else _INF
            if below < above:
                pick = left
            elif above < below:
                pick = right
            elif above == _INF:
                take(-1)
                continue
            else:
                k = len(taken)
                pick = left if low[k] - places[left] <= places[right] - high[k] else right
            take(pick)
            up[pick] = pick + 1
            down[pick] = pick - 1
        return np.asarray(taken, dtype=np.int64)

    def _round_with_limits(
        self, rows: Ints, low: Ints, high: Ints, limits: Sequence[tuple[Floats, float]]
    ) -> Ints:
        taken = np.full(len(rows), -1, dtype=np.int64)
        for k, row in enumerate(rows.tolist()):
            pick = self._nearest_allowed(row, int(low[k]), int(high[k]), limits)
            taken[k] = pick
            if pick >= 0:
                self._take(pick)
        return taken

    def _nearest_allowed(self, row: int, low: int, high: int, limits: Sequence[tuple[Floats, float]]) -> int:
        """Walk outwards from a row, always on the nearer side, to the first free slot within all limits.

        `low` and `high` are the outermost places of the row and of what it has already.
        """
        scores, places, bounds, width = self.scores, self.slot_place, self.bounds, self.width
        s, value = float(self.score[row]), float(self.values[row])
        right = _find(self.up, int(self.start[row]))
        left = _find(self.down, int(self.start[row]) - 1)
        while True:
            below = s - scores[left] if value - bounds[left] <= width else _INF
            above = scores[right] - s if bounds[right] - value <= width else _INF
            if below == _INF and above == _INF:
                return -1
            go_left = below < above or (below == above and low - places[left] <= places[right] - high)
            pick = left if go_left else right
            other = self.slot_row[pick]
            if all(abs(values[row] - values[other]) <= limit for values, limit in limits):
                return pick
            if go_left:
                left = _find(self.down, left - 1)
            else:
                right = _find(self.up, right + 1)

    def closest(
        self,
        focal: Ints,
        *,
        ratio: int = 1,
        limits: Sequence[tuple[Floats, float]] = (),
    ) -> tuple[Ints, Ints]:
        """Match without replacement, the closest pair of the whole sample first.

        The order of `focal` decides between pairs equally close. The pairs are given closest first, round by
        round.
        """
        self._free_all()
        low, high = self.place.copy(), self.place.copy()
        found: list[tuple[int, int]] = []
        active = focal.tolist()

        score, scores, places = self.score, self.scores, self.slot_place

        for _ in range(ratio):
            heap: list[tuple[float, int, int, int]] = []
            for k, row in enumerate(active):
                pick = self._nearest_allowed(row, int(low[row]), int(high[row]), limits)
                if pick >= 0:
                    heap.append((abs(float(score[row]) - scores[pick]), k, row, pick))
            heapq.heapify(heap)
            again = 0
            active = []
            while heap:
                _, _, row, pick = heapq.heappop(heap)
                place = int(places[pick])
                reach = min(int(low[row]), place), max(int(high[row]), place)
                if self.up[pick] == pick:
                    found.append((row, int(self.slot_row[pick])))
                    self._take(pick)
                    low[row], high[row] = reach
                    active.append(row)
                    continue
                pick = self._nearest_allowed(row, *reach, limits)
                if pick >= 0:
                    # Among equals, a row that lost its control goes first.
                    again -= 1
                    heapq.heappush(heap, (abs(float(score[row]) - scores[pick]), again, row, pick))
            active.sort()
        pairs = np.asarray(found, dtype=np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def reused(
        self,
        focal: Ints,
        *,
        ratio: int = 1,
        limits: Sequence[tuple[Floats, float]] = (),
    ) -> tuple[Ints, Ints]:
        """Match each row to its nearest controls with replacement; the pairs row by row, nearest first."""
        if limits:
            return self._reused_with_limits(focal, ratio, limits)
        size = len(self.slot_score)
        rows_out: list[Ints] = []
        others_out: list[Ints] = []
        offsets = np.concatenate([-np.arange(1, ratio + 1), np.arange(ratio)])
        step = max(1, 4_000_000 // len(offsets))
        # Beyond a sentinel lies another stratum: everything past the first infinite score is out.
        for a in range(0, len(focal), step):
            rows = focal[a : a + step]
            slots = self.start[rows][:, None] + offsets
            outside = (slots < 0) | (slots >= size)
            inside = np.clip(slots, 0, size - 1)
            gap = np.abs(self.score[rows][:, None] - self.slot_score[inside])
            outside |= np.abs(self.values[rows][:, None] - self.slot_value[inside]) > self.width
            gap[outside] = _INF
            for side in (gap[:, :ratio], gap[:, ratio:]):
                side[np.logical_or.accumulate(np.isinf(side), axis=1)] = _INF
            if ratio == 1:
                chosen = self._nearer_of_two(rows, slots, gap)[:, None]
            else:
                places = self.slot_place[np.clip(slots, 0, size - 1)]
                steps = np.abs(places - self.place[rows][:, None])
                turn = 2 * steps + (offsets >= 0)
                chosen = np.lexsort((turn, gap), axis=1)[:, :ratio]
            ok = np.isfinite(np.take_along_axis(gap, chosen, axis=1))
            picked = np.take_along_axis(slots, chosen, axis=1)
            rows_out.append(np.broadcast_to(rows[:, None], ok.shape)[ok])
            others_out.append(self.slot_row[picked[ok]])
        return np.concatenate(rows_out), np.concatenate(others_out)

    def _nearer_of_two(self, rows: Ints, slots: Ints, gap: Floats) -> Ints:
        chosen = (gap[:, 1] < gap[:, 0]).astype(np.int64)
        tied = np.flatnonzero((gap[:, 0] == gap[:, 1]) & np.isfinite(gap[:, 0]))
        if len(tied):
            here = self.place[rows[tied]]
            below = here - self.slot_place[slots[tied, 0]]
            above = self.slot_place[slots[tied, 1]] - here
            chosen[tied] = above < below
        return chosen

    def _reused_with_limits(
        self, focal: Ints, ratio: int, limits: Sequence[tuple[Floats, float]]
    ) -> tuple[Ints, Ints]:
        scores, bounds, places = self.slot_score.tolist(), self.slot_value.tolist(), self.slot_place
        pairs: list[tuple[int, int]] = []
        size = len(scores)
        for row in focal.tolist():
            s, value = float(self.score[row]), float(self.values[row])
            right = int(self.start[row])
            left = right - 1
            here = int(self.place[row])
            n_found = 0
            while n_found < ratio:
                below = s - scores[left] if left >= 0 and value - bounds[left] <= self.width else _INF
                above = scores[right] - s if right < size and bounds[right] - value <= self.width else _INF
                if below == _INF and above == _INF:
                    break
                go_left = below < above or (below == above and here - places[left] <= places[right] - here)
                pick = left if go_left else right
                other = int(self.slot_row[pick])
                if all(abs(values[row] - values[other]) <= limit for values, limit in limits):
                    pairs.append((row, other))
                    n_found += 1
                if go_left:
                    left -= 1
                else:
                    right += 1
        flat = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
        return flat[:, 0], flat[:, 1]


def _find(pointer: list[int], i: int) -> int:
    while pointer[i] != i:
        pointer[i] = pointer[pointer[i]]
        i = pointer[i]
    return i


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
