"""Rows for charts and tables, out of any result and any table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import narwhals as nw

from whyprompt._words import format_number
from whyprompt.charts.style import span
from whyprompt.errors import DataError, EstimationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@runtime_checkable
class HasEstimates(Protocol):
    """Any result: an overall estimate, its parts, and what they are."""

    @property
    def overall(self) -> Any:  # noqa: ANN401 - an estimate, or none
        """The overall estimate, or None."""

    @property
    def parts(self) -> Sequence[Any]:
        """Estimates of its parts."""

    @property
    def axis(self) -> str:
        """What they are, with their unit."""


def rows_used(row: Any) -> int | None:  # noqa: ANN401 - an estimate
    """Count the items or rows that an estimate is of; None where that is not known."""
    if row.n_used is not None or row.n_treated_used is None or row.n_control_used is None:
        used: int | None = row.n_used
        return used
    return int(row.n_treated_used + row.n_control_used)


def bounded(row: Any) -> tuple[float | None, float | None]:  # noqa: ANN401 - an estimate
    """Give the interval of an estimate where both its ends can be drawn."""
    low, high = row.ci_low, row.ci_high
    known = low is not None and high is not None and math.isfinite(high - low)
    return (low, high) if known else (None, None)


def row_words(row: Any) -> str:  # noqa: ANN401 - an estimate
    """Say an estimate as the line of a chart."""
    if row.estimate is None:
        return f"{row.label}: no estimate" + (f" ({row.note})" if row.note else "")
    n = rows_used(row)
    count = "" if n is None else f", n = {n}"
    return f"{row.label}: {format_number(row.estimate)} ({span(row.ci_low, row.ci_high)}){count}"


def records(frame: Any, columns: Sequence[str], *, what: str) -> list[Mapping[str, Any]]:  # noqa: ANN401 - any frame
    """Read a table: any frame, or a sequence of mappings.

    A missing column is a `DataError`, an empty table an `EstimationError`.
    """
    if isinstance(frame, list | tuple):
        rows: list[Mapping[str, Any]] = [dict(row) for row in frame]
    else:
        rows = list(nw.from_native(frame, eager_only=True).iter_rows(named=True))
    if not rows:
        raise EstimationError(f"{what}: the table is empty")
    for column in columns:
        if column not in rows[0]:
            raise DataError(
                f"{what}: the table has no column {column!r}", hint=f"it has {', '.join(map(str, rows[0]))}"
            )
    return rows


def number(value: Any) -> float | None:  # noqa: ANN401 - a cell
    """Read a cell that may be empty: frames write an absent number as NaN."""
    return None if value is None or value != value else float(value)  # noqa: PLR0124 - NaN is not itself
