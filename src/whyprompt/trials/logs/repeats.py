"""Runs that are there twice, and repeats that are copies: what counts once, and what varies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt._words import counted
from whyprompt.trials.logs.gather import ints

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whyprompt.trials.logs.gather import Gathered

    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]

BROKEN_OFF = {"cancelled": "was cancelled", "failed": "failed"}
COPIES = "repeats that agree in every cell"
"""Why such trials are left out."""
# With these a trial is no repeat of one that has others.
_RUN = ("model", "engine", "sampling")


class Rows:
    """The gathered trials, and which of them are kept; those that leave are counted with the reason."""

    def __init__(self, gathered: Gathered, warnings: list[str], left_out: Counter[str]) -> None:
        self.g = gathered
        self.warnings = warnings
        self.left_out = left_out
        self.log = ints(gathered.log)
        self.setting = ints(gathered.setting)
        self.settings = gathered.merged()
        self.keep: Bools = np.isin(self.log, np.unique(self.log[np.asarray(gathered.scored, dtype=bool)]))
        self.notes: list[str] = []
        # The place of each trial's arm, -1 for none, once it is known.
        self.arm: Ints = np.full(gathered.n, -1)

    def leave(self, rows: Bools, why: str) -> None:
        """Take rows out."""
        self.keep = self.keep & ~rows
        self.left_out[why] += int(rows.sum())


def run_twice(rows: Rows, key: Ints, y: Floats, names: Sequence[str]) -> None:
    """Take a run that is there twice once, and say where an arm was run again."""
    for a, name in enumerate(names):
        logs = np.unique(rows.log[rows.keep & (rows.arm == a)]).tolist()
        for place, later in enumerate(logs[1:], start=1):
            for earlier in logs[:place]:
                if _again(rows, earlier, later, a, name, key, y):
                    break


def _again(rows: Rows, earlier: int, later: int, a: int, name: str, key: Ints, y: Floats) -> bool:
    """Say what a second run of an arm on the same items is, and whether it is one."""
    rep, here = ints(rows.g.rep), rows.keep & (rows.arm == a)
    mine, other = here & (rows.log == later), here & (rows.log == earlier)
    if not np.isin(key[mine], key[other]).any() or _other_run(rows, mine, other):
        return False
    first = dict(zip(zip(key[other].tolist(), rep[other].tolist(), strict=True), y[other], strict=True))
    cells = zip(key[mine].tolist(), rep[mine].tolist(), strict=True)
    same = all(
        np.array_equal(first.get(cell, np.inf), value, equal_nan=True)
        for cell, value in zip(cells, y[mine], strict=True)
    )
    one, two = rows.g.logs[earlier], rows.g.logs[later]
    off = two.status in BROKEN_OFF and one.status not in BROKEN_OFF
    if same:
        # Of two exports that which has the prompts tells more; a table has none.
        prompt = ints(rows.g.prompt)
        fewer = np.count_nonzero(prompt[other]) < np.count_nonzero(prompt[mine])
        gone, kept = (one, two) if fewer else (two, one)
        rows.leave(other if fewer else mine, "trials of a run that is there twice")
        rows.notes.append(f"counted once: {gone.path} has the same outcomes of {name!r} as {kept.path}")
    elif off or (one.status in BROKEN_OFF and two.status not in BROKEN_OFF):
        gone, kept = (two, one) if off else (one, two)
        rows.leave(mine if off else other, "trials of a run that was broken off and run again")
        rows.warnings.append(
            f"{gone.path} {BROKEN_OFF[gone.status]} and {kept.path} ran {name!r} on the same items: only the"
            " second is taken"
        )
    else:
        rows.warnings.append(
            f"{one.path} and {two.path} both ran {name!r} on the same items: taken as repeats; leave one"
            " out if it was not meant as one"
        )
    return True


def _other_run(rows: Rows, mine: Bools, other: Bools) -> bool:
    """Say whether two runs have a model or sampling of their own, as far as both tell it."""
    told: list[dict[str, set[str]]] = [{}, {}]
    for some, values in zip((mine, other), told, strict=True):
        for code in np.unique(rows.setting[some]).tolist():
            for role in ("model", "sampling"):
                for path, value in rows.settings[code].get(role, {}).items():
                    values.setdefault(path, set()).add(str(value))
    return any(told[0][path].isdisjoint(told[1][path]) for path in told[0].keys() & told[1].keys())


def broken_off(rows: Rows) -> None:
    """Warn of the runs that were broken off and are taken all the same."""
    for k, log in enumerate(rows.g.logs):
        if log.status in BROKEN_OFF and (rows.keep & (rows.log == k)).any():
            n = counted(int((rows.log == k).sum()), "trial")
            rows.warnings.append(f"{log.path}: the run {BROKEN_OFF[log.status]} after {n}: those are paired")


def one_epoch(rows: Rows, key: Ints, y: Floats, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Take repeats that agree in every cell as one, and count those that do not, by arm.

    One without an outcome is no other outcome, and no copy of those that have one.
    """
    cell = cells(rows, key)
    kept = np.flatnonzero(rows.keep)
    many, vary = copies(y[kept], cell[kept])
    if not many:
        return {}
    if vary:
        flicker = {}
        for a in np.unique(rows.arm[kept]):
            here = kept[(rows.arm[kept] == a) & ~np.isnan(y[kept])]
            n, moved = copies(y[here], cell[here])
            flicker[names[a]] = {"cells": n, "vary": moved}
        return flicker
    # The first of each cell, in the order of the logs.
    order = np.lexsort((kept, cell[kept]))
    sorted_cells = cell[kept][order]
    first = np.concatenate([[True], sorted_cells[1:] != sorted_cells[:-1]])
    drop = np.zeros(len(rows.keep), dtype=bool)
    drop[kept[order][~first]] = True
    said = ints(rows.g.completion)
    words = copies(said[kept].astype(np.float64), cell[kept])[1]
    rows.notes.append(
        f"the repeats are identical in {many} of {many} cells: they count as one"
        + (f" (their completions differ in {words})" if words else "")
    )
    rows.leave(drop, COPIES)
    return {}


def cells(rows: Rows, key: Ints) -> Ints:
    """Give numbers to what repeats are of: an item under an arm with one model and its sampling."""
    under: dict[tuple[object, ...], int] = {}
    of = [
        under.setdefault(tuple(tuple(one.get(role, {}).items()) for role in _RUN), len(under))
        for one in rows.settings
    ]
    kind = np.asarray(of, dtype=np.int64)[rows.setting]
    return (key * (int(rows.arm.max()) + 1) + rows.arm) * len(under) + kind


def copies(outcome: Floats, cell: Ints) -> tuple[int, int]:
    """Count the cells, (item, arm), with more than one trial, and those of them that vary."""
    order = np.lexsort((outcome, cell))
    c, y = cell[order], outcome[order]
    start = np.flatnonzero(np.concatenate([[True], c[1:] != c[:-1]]))
    end = np.concatenate([start[1:], [len(c)]]) - 1
    many = end > start
    low, high = y[start[many]], y[end[many]]
    same = (low == high) | (np.isnan(low) & np.isnan(high))
    return int(many.sum()), int((~same).sum())
