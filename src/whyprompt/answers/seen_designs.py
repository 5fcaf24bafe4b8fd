"""Designs that the columns of a table show: a roll-out, and a lot that the arm follows in part.

What is seen is proposed, and nothing is estimated: a pattern in the columns does not say what made it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from whyprompt.effects.designs.dates import read_times
from whyprompt.errors import DataError
from whyprompt.stats.order import distinct
from whyprompt.tables import level_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from whyprompt.tables import Column, Table

# Fewer rows on either side of a change stand in order by chance: of five and five one in 252.
_LEAST_ROWS = 5
_MOST_ROUTES = 50
# What the command line takes as it stands inside an option.
_PLAIN = re.compile(r"[\w.-]+")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
# Answers to a question of its own, which any column may hold.
_COMMON = {"yes", "no", "true", "false", "y", "n", "t", "f", "high", "low", "none", "0", "1"}
NOT_ALWAYS = "it names an arm, which was not always the one taken"


class Rollout(NamedTuple):
    """An arm that begins in some routes on a date: when rows ran, the routes, and how many changed."""

    time: str
    unit: str
    n_changed: int
    n_units: int


def rollout_seen(
    table: Table, treatment: Column, control: str, read: Mapping[str, Column]
) -> tuple[Rollout | None, str]:
    """Say by which dates and in which routes an arm of two begins once and stays, and which was there before.

    No roll-out is None, beside the `control` that was given.

    Examples
    --------
    >>> import pandas as pd
    >>> from whyprompt.tables import open_table
    >>> days = [f"2025-03-{d:02d}" for d in range(1, 13)]
    >>> rows = [(r, d, "new" if r == "a" and k > 5 else "old") for r in "ab" for k, d in enumerate(days)]
    >>> table = open_table(pd.DataFrame(rows, columns=["route", "day", "arm"]))
    >>> read = {name: table.column(name, role="named") for name in table.columns}
    >>> rollout_seen(table, read["arm"], "new", read)
    (Rollout(time='day', unit='route', n_changed=1, n_units=2), 'old')
    """
    units = [
        (name, codes, len(levels))
        for name, column in read.items()
        if name != treatment.name and column.kind == "text" and not column.n_missing
        for levels, codes in [np.unique(column.data.astype(str), return_inverse=True)]
        if 2 <= len(levels) <= _MOST_ROUTES and _PLAIN.fullmatch(name)
    ]
    for time, days in _dates(table, treatment.name) if units else ():
        for before in distinct(treatment.data)[0]:
            given = treatment.data != before
            for unit, codes, n_units in units:
                changed = [_changes(days[codes == k], given[codes == k]) for k in range(n_units)]
                # Of a route that begins, ends and begins again no date says when it changed.
                if unit != time and None not in changed and any(changed):
                    name = str(before) if treatment.kind == "text" else level_name(before)
                    return Rollout(time, unit, sum(map(bool, changed)), n_units), name
    return None, control


def _dates(table: Table, treatment: str) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Give the columns of dates, as days."""
    for name in table.columns:
        first = table.raw(name, first=1)
        written = first.dtype == object and _DATE.match(str(first[0])) is not None
        if name == treatment or not written or not _PLAIN.fullmatch(name):
            continue
        try:
            days, dated = read_times(table, name)
        except DataError:
            continue
        if dated:
            yield name, days


def _changes(days: NDArray[np.float64], given: NDArray[np.bool_]) -> bool | None:
    """Say whether a route changes once, with rows enough on both sides; None where it does otherwise."""
    n = int(given.sum())
    if n in {0, len(given)}:
        return False
    apart = days[~given].max() < days[given].min()
    return True if apart and min(n, len(given) - n) >= _LEAST_ROWS else None


def named_arm(column: Column, treatment: Column) -> str:
    """Say why a column that has the arm's own levels is not adjusted for; "" of any other.

    A lot that names an arm which is not always taken moves the choice and nothing else: adjusting for it
    leaves the part of the choice that is confounded.
    """
    if not column.kind == treatment.kind == "text":
        return ""
    mine, arms = ({str(v) for v in distinct(c.data[~c.missing])[0]} for c in (column, treatment))
    if mine != arms or {level.lower() for level in arms} <= _COMMON:
        return ""
    same = bool((column.data == treatment.data).all())
    return "the same as the arm in every row" if same else NOT_ALWAYS
