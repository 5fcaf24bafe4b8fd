"""Greedy matching within a caliper in one sweep over rows that lie sorted on disk.

Rows choose in the order of their scores. Of the candidates that a row has passed the nearest is the last one
still free, and of those ahead the first: what is passed is a stack, what is ahead a stream, and no more of
the table is in memory than candidates still free within a caliper. Pairs are those of
`effects.methods.greedy`, ties included.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# Rows that are read at a time.
_BLOCK = 50_000
# Of a candidate that is passed and free: score, value, place and row.
_BYTES = 32
# Of a row that shares its score with others, in lists.
_OF_GROUP = 190
# A value may differ from its neighbours' by rounding where their scores are one.
_ROUNDING = 1e-9
_INF = float("inf")
_ROW = np.dtype([("score", "f8"), ("value", "f8"), ("place", "i8"), ("row", "i8")])


class Sorted(NamedTuple):
    """Rows of an arm on disk, by score and then by place, which is that among the rows of both arms."""

    path: Path
    n_rows: int

    @staticmethod
    def bytes_of(score: Floats, value: Floats, place: Ints, row: Ints) -> bytes:
        """Write rows as they lie on disk."""
        held = np.empty(len(score), dtype=_ROW)
        for name, column in zip(_ROW.names or (), (score, value, place, row), strict=True):
            held[name] = column
        return held.tobytes()

    def blocks(self, *, backwards: bool) -> Iterator[NDArray[np.void]]:
        """Read them in order, or from the last on."""
        with self.path.open("rb") as file:
            for first in range(0, self.n_rows, _BLOCK):
                size = min(_BLOCK, self.n_rows - first)
                begin = self.n_rows - first - size if backwards else first
                file.seek(begin * _ROW.itemsize)
                block = np.frombuffer(file.read(size * _ROW.itemsize), dtype=_ROW)
                yield block[::-1] if backwards else block


def swept(
    focal: Sorted, other: Sorted, width: float, *, largest: bool, memory: int
) -> Iterator[tuple[Ints, Ints]]:
    """Give pairs of rows, focal and other, some at a time: each focal row takes the nearest free one.

    Those of the `largest` scores choose first, or of the smallest; of equal scores in the order of places.
    Values, which rise with the score, of a pair differ by `width` at most.
    """
    sign = -1.0 if largest else 1.0
    sweep = _Sweep(other, width, largest=largest, memory=memory)
    for rows in _whole_groups(focal, largest=largest, memory=memory):
        keys, values = (sign * rows["score"]).tolist(), (sign * rows["value"]).tolist()
        found = sweep.taken(keys, values, rows["place"].tolist())
        hit = found >= 0
        yield rows["row"][hit], found[hit]


def _whole_groups(rows: Sorted, *, largest: bool, memory: int) -> Iterator[NDArray[np.void]]:
    """Read blocks that no group of equal scores reaches beyond; its rows in the order of their places."""
    held: list[NDArray[np.void]] = []
    for block in rows.blocks(backwards=largest):
        held.append(block)
        apart = np.flatnonzero(block["score"] != block["score"][-1])
        if not len(apart):
            if sum(map(len, held)) * _OF_GROUP > memory:
                raise _too_many()
            continue
        cut = int(apart[-1]) + 1
        held[-1] = block[:cut]
        yield _by_place(np.concatenate(held), largest=largest)
        held = [block[cut:]]
    if held:
        yield _by_place(np.concatenate(held), largest=largest)


def _by_place(rows: NDArray[np.void], *, largest: bool) -> NDArray[np.void]:
    return rows[np.lexsort((rows["place"], -rows["score"]))] if largest else rows


def _too_many() -> EstimationError:
    return EstimationError(
        "more rows share a score than memory holds",
        hint="give more with memory=, or weigh instead: method='overlap' or 'ipw'",
    )


class _Sweep:
    """Candidates passed and free (a stack), those ahead (a stream), and those of the score that chooses."""

    def __init__(self, other: Sorted, width: float, *, largest: bool, memory: int) -> None:
        self.width, self.largest, self.sign = width, largest, -1.0 if largest else 1.0
        self.memory, self.roomy = memory, _BLOCK
        self.stream = other.blocks(backwards=largest)
        self.passed: tuple[array[Any], ...] = (array("d"), array("d"), array("q"), array("q"))
        self._next()
        self._begin(-_INF)

    def _next(self) -> bool:
        """Read the next block ahead; where there is none a candidate infinitely far away stands there."""
        block = next(self.stream, None)
        self.at = 0
        if block is None:
            self.keys, self.values, self.places, self.rows = [_INF], [_INF], [0], [-1]
            return False
        self.columns = (
            self.sign * block["score"],
            self.sign * block["value"],
            np.ascontiguousarray(block["place"]),
            np.ascontiguousarray(block["row"]),
        )
        self.keys, self.values, self.places, self.rows = (column.tolist() for column in self.columns)
        return True

    def _pass(self, key: float, value: float) -> None:
        """Put the candidates before a row on the stack."""
        while True:
            end = bisect_left(self.keys, key, self.at)
            for stack, column in zip(self.passed, self.columns, strict=True) if end > self.at else ():
                stack.frombytes(column[self.at : end].tobytes())
            self.at = end
            if len(self.passed[0]) > self.roomy:
                self._forget(value)
            if end < len(self.keys) or not self._next():
                return

    def _begin(self, key: float) -> None:
        """Take the candidates of a score out of the stream, in the order of their places."""
        self.key = key
        places: list[int] = []
        values: list[float] = []
        rows: list[int] = []
        while self.keys[self.at] == key:
            places.append(self.places[self.at])
            values.append(self.values[self.at])
            rows.append(self.rows[self.at])
            self.at += 1
            if self.at == len(self.keys):
                if len(rows) * _OF_GROUP > self.memory:
                    raise _too_many()
                self._next()
        step = -1 if self.largest else 1
        self.of_group = (values[::step], places[::step], rows[::step])
        # Of the group: those before the row that chooses, and the first of those after it.
        self.before: list[int] = []
        self.after = 0

    def _end(self) -> None:
        """Put what a group leaves free on the stack, the nearest last."""
        values, places, rows = self.of_group
        free = [*self.before, *range(self.after, len(rows))]
        for k in reversed(free) if self.largest else free:
            for stack, item in zip(self.passed, (self.key, values[k], places[k], rows[k]), strict=True):
                stack.append(item)
        self._begin(-_INF)

    def _forget(self, value: float) -> None:
        """Leave out what lies farther back than the caliper from a value and all that come after it."""
        far = value - self.width - _ROUNDING
        near = np.frombuffer(self.passed[1]) >= far
        count = int(np.argmax(near)) if near.any() else len(near)
        for stack in self.passed:
            del stack[:count]
        held = len(self.passed[0])
        self.roomy = max(2 * held, _BLOCK)
        if held * _BYTES > self.memory:
            raise EstimationError(
                f"{held} rows that are still free lie within a caliper: they take more memory than is given",
                hint="a narrower caliper=, or more with memory=",
            )

    def taken(self, keys: list[float], values: list[float], places: list[int]) -> Ints:
        """Give the row that each focal row takes, -1 for none."""
        width, largest = self.width, self.largest
        back_key, back_value, back_place, _ = self.passed
        out: list[int] = []
        for key, value, place in zip(keys, values, places, strict=True):
            if key != self.key:
                if self.of_group[2]:
                    self._end()
                if self.keys[self.at] <= key:
                    self._pass(key, value)
                    if self.keys[self.at] == key:
                        self._begin(key)
            if self.of_group[2]:
                out.append(self._of_group(value, place))
                continue
            at = self.at
            ahead = self.keys[at] - key if self.values[at] - value <= width else _INF
            behind = key - back_key[-1] if back_key and value - back_value[-1] <= width else _INF
            forward = ahead < behind
            if ahead == behind:
                if ahead == _INF:
                    out.append(-1)
                    continue
                # Of two as near that of fewer places away, and the one below where that ties too.
                gaps = abs(self.places[at] - place), abs(back_place[-1] - place)
                forward = gaps[0] <= gaps[1] if largest else gaps[0] < gaps[1]
            out.append(self._ahead() if forward else self._back())
        return np.array(out, dtype=np.int64)

    def _ahead(self) -> int:
        row = self.rows[self.at]
        self.at += 1
        if self.at == len(self.keys):
            self._next()
        return row

    def _back(self) -> int:
        for stack in self.passed[:3]:
            stack.pop()
        return int(self.passed[3].pop())

    def _of_group(self, value: float, place: int) -> int:
        """Choose where candidates have the very score of a row, or had it: they lie to both sides of it."""
        values, places, rows = self.of_group
        key, width, before = self.key, self.width, self.before
        while self.after < len(rows) and places[self.after] < place:
            before.append(self.after)
            self.after += 1
        at, back = self.at, self.passed
        ahead, behind = (_INF, 0), (_INF, 0)
        if self.values[at] - value <= width:
            ahead = self.keys[at] - key, abs(self.places[at] - place)
        if back[0] and value - back[1][-1] <= width:
            behind = key - back[0][-1], abs(back[2][-1] - place)
        low, high = (ahead, behind) if self.largest else (behind, ahead)
        # Within a group all are at no distance; beyond the caliper by rounding alone.
        if before:
            k = before[-1]
            low = (0.0 if abs(values[k] - value) <= width else _INF), place - places[k]
        if self.after < len(rows):
            k = self.after
            high = (0.0 if abs(values[k] - value) <= width else _INF), places[k] - place
        if low[0] == _INF and high[0] == _INF:
            return -1
        if low[0] < high[0] or (low[0] == high[0] and low[1] <= high[1]):
            if before:
                return rows[before.pop()]
            return self._ahead() if self.largest else self._back()
        if self.after < len(rows):
            self.after += 1
            return rows[self.after - 1]
        return self._back() if self.largest else self._ahead()
