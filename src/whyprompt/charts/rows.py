"""Rows for charts and tables, out of results of every kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import narwhals as nw

from whyprompt._words import format_number
from whyprompt.charts.style import span
from whyprompt.errors import DataError, EstimationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["EffectRow", "effect_rows", "number", "records"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EffectRow:
    """One line of a forest plot.

    Attributes
    ----------
    label : str
    estimate : float or None
    low, high : float or None
        Interval.
    n : int or None
        Items or rows used.
    p : float or None
        Adjusted for the number of rows where the result has that.
    kind : {"overall", "part"}
    note : str
        Why there is no estimate.
    """

    label: str
    estimate: float | None
    low: float | None
    high: float | None
    n: int | None
    p: float | None
    kind: str
    note: str = ""

    @property
    def words(self) -> str:
        """The line as a sentence."""
        if self.estimate is None:
            return f"{self.label}: no estimate" + (f" ({self.note})" if self.note else "")
        count = "" if self.n is None else f", n = {self.n}"
        return f"{self.label}: {format_number(self.estimate)} ({span(self.low, self.high)}){count}"


def effect_rows(result: Any) -> list[EffectRow]:  # noqa: ANN401 - a result of any kind
    """Give the overall estimate and the parts of any result.

    Raises
    ------
    DataError
        If it is no result that has estimates.
    """
    if hasattr(result, "overall"):
        overall = () if result.overall is None else (result.overall,)
        return [_line(e, "overall") for e in overall] + [_line(e, "part") for e in result.parts]
    raise DataError(f"{type(result).__name__} has no estimates to draw")


def _line(row: Any, kind: str) -> EffectRow:  # noqa: ANN401 - an estimate with its label
    n = row.n_used
    if n is None and row.n_treated_used is not None and row.n_control_used is not None:
        n = row.n_treated_used + row.n_control_used
    return EffectRow(
        label=row.label,
        estimate=row.estimate,
        low=row.ci_low,
        high=row.ci_high,
        n=n,
        p=row.p_value if row.p_adjusted is None else row.p_adjusted,
        kind=kind,
        note=row.note,
    )


def records(frame: Any, columns: Sequence[str], *, what: str) -> list[Mapping[str, Any]]:  # noqa: ANN401 - any frame
    """Read a table: any frame, or a sequence of mappings.

    Raises
    ------
    DataError
        If a column is missing.
    EstimationError
        If the table is empty.
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
    """Read a cell that may be empty: frames write an absent number as NaN.

    Returns
    -------
    float or None
    """
    return None if value is None or value != value else float(value)  # noqa: PLR0124 - NaN is not itself
