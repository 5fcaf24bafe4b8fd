"""Columns with gaps, read from any frame and written back to the caller's kind of frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt.errors import DataError
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import narwhals as nw
    from numpy.typing import NDArray

__all__ = ["Column", "keep_rows", "read_columns", "write_columns"]

Kind = Literal["number", "boolean", "text"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Column:
    """One column of a table, gaps and all.

    Attributes
    ----------
    name : str
    kind : {"number", "boolean", "text"}
    data : ndarray, shape (n,)
        Floats with NaN for a gap (booleans as 0 and 1), or text objects with None for a gap.
    missing : ndarray of bool, shape (n,)
        Where there is a gap.
    """

    name: str
    kind: Kind
    data: NDArray[Any]
    missing: NDArray[np.bool_]

    @property
    def n_missing(self) -> int:
        """Number of gaps."""
        return int(self.missing.sum())

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels of a text column that occur, sorted."""
        return tuple(sorted(set(self.data[~self.missing].tolist())))


def read_columns(
    frame: Any,  # noqa: ANN401 - any frame library's type
    names: Sequence[str] | None = None,
    *,
    role: str = "named",
) -> tuple[nw.DataFrame[Any], dict[str, Column]]:
    """Read columns, keeping their gaps.

    Parameters
    ----------
    frame : DataFrame
        pandas, polars or pyarrow.
    names : sequence of str, optional
        Default: every column.
    role : str, default "named"
        What the columns are for, used in messages.

    Returns
    -------
    frame : narwhals.DataFrame
        For `write_columns`.
    columns : dict of str to Column

    Raises
    ------
    DataError
        If a column is absent, named twice, holds infinite values, or is neither numbers, booleans nor text.
    """
    import narwhals as nw

    table = open_table(frame)
    wanted = table.columns if names is None else tuple(names)
    table.require(wanted, role=role)
    twice = [name for name in wanted if wanted.count(name) > 1]
    if twice:
        raise DataError(f"{role} column {twice[0]!r} is named twice")
    wrapped = nw.from_native(frame, eager_only=True)
    return wrapped, {name: _read(wrapped.get_column(name), role) for name in wanted}


def _read(series: nw.Series[Any], role: str) -> Column:
    import narwhals as nw

    name = series.name
    gone = np.asarray(series.is_null().to_numpy(), dtype=bool)
    if series.dtype.is_numeric():
        numbers = np.array(series.cast(nw.Float64).to_numpy(), dtype=np.float64)
        numbers[gone] = np.nan
        infinite = np.isinf(numbers)
        if infinite.any():
            raise DataError(
                f"{role} column {name!r} has {int(infinite.sum())} infinite value(s), the first in row"
                f" {int(np.flatnonzero(infinite)[0])}",
                hint="an infinite value has no mean; correct it or remove those rows on purpose",
            )
        return Column(name=name, kind="number", data=numbers, missing=np.isnan(numbers))
    raw = series.to_list()
    # A pandas object column may hold a NaN that narwhals does not call null.
    gone = gone | np.array([isinstance(v, float) and v != v for v in raw], dtype=bool)  # noqa: PLR0124
    present = [v for v, absent in zip(raw, gone.tolist(), strict=True) if not absent]
    if present and all(isinstance(v, bool | np.bool_) for v in present):
        flags = np.array(
            [np.nan if absent else float(v) for v, absent in zip(raw, gone.tolist(), strict=True)]
        )
        return Column(name=name, kind="boolean", data=flags, missing=gone)
    if not present:
        return Column(name=name, kind="number", data=np.full(len(raw), np.nan), missing=gone)
    if all(isinstance(v, str) for v in present):
        text = np.array([None if absent else v for v, absent in zip(raw, gone.tolist(), strict=True)], object)
        return Column(name=name, kind="text", data=text, missing=gone)
    kinds = sorted({type(v).__name__ for v in present})
    raise DataError(
        f"{role} column {name!r} holds {' and '.join(kinds)}; expected numbers, booleans or text",
        hint="convert it to a number or to text levels first, or leave it out",
    )


def write_columns(
    frame: nw.DataFrame[Any], values: Mapping[str, NDArray[Any]], *, keep_types: bool = True
) -> Any:  # noqa: ANN401 - the caller's kind
    """Return the caller's kind of frame with columns set; the frame given is not touched.

    Parameters
    ----------
    frame : narwhals.DataFrame
        From `read_columns`.
    values : mapping of str to ndarray, each shape (n,)
        Floats with NaN for a gap, booleans, or text objects with None for a gap. New columns are put at the
        end.
    keep_types : bool, default True
        Whether a column that exists keeps its type where the values allow it; False gives it the type of the
        values, whatever they happen to be.

    Returns
    -------
    DataFrame
        Of the library of the original.
    """
    import narwhals as nw

    made = []
    for name, column in values.items():
        before = frame.schema[name] if keep_types and name in frame.columns else None
        if column.dtype == object:
            series = nw.new_series(name, list(column), nw.String, backend=frame.implementation)
            if before is not None and isinstance(before, nw.Categorical | nw.Enum):
                series = series.cast(before)
        elif column.dtype == bool or (before is not None and before == nw.Boolean):
            flags = [None if v != v else bool(v) for v in column.tolist()]  # noqa: PLR0124 - NaN test
            series = nw.new_series(name, flags, nw.Boolean, backend=frame.implementation)
        else:
            whole = np.isfinite(column).all() and bool((column == np.round(column)).all())
            series = nw.new_series(name, column.tolist(), nw.Float64, backend=frame.implementation)
            if before is not None and before.is_integer() and whole:
                series = series.cast(before)
        made.append(series)
    return frame.with_columns(*made).to_native() if made else frame.to_native()


def keep_rows(frame: nw.DataFrame[Any], mask: NDArray[np.bool_]) -> Any:  # noqa: ANN401 - the caller's kind
    """Return the rows where `mask` is true, in the caller's kind of frame.

    Parameters
    ----------
    frame : narwhals.DataFrame
    mask : ndarray of bool, shape (n,)

    Returns
    -------
    DataFrame
    """
    return frame.filter(mask.tolist()).to_native()
