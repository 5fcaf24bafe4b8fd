"""Columns out of any data frame, checked once, as numpy arrays.

What computes an effect or a mediation does so on arrays. This module reads a caller's columns for it, by
name, so that one column means one thing everywhere. The caller's frame is never touched; what is made of it
is of its kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._words import did_you_mean
from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.design import design_matrix
from whyprompt.stats.order import distinct

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import narwhals as nw
    from numpy.typing import NDArray

    from whyprompt.stats.design import Design


# Whole numbers below this are exact as float64.
_EXACT = 2.0**53
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Column:
    """One column of a table, gaps and all.

    `data` has a value a row: floats with NaN for a gap (booleans as 0 and 1), or text objects with None for
    one; `missing` says where the gaps are.
    """

    name: str
    kind: Literal["number", "boolean", "text"]
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

    def coded(self, *, full: bool = False) -> Design:
        """Give the column as numbers: itself, or a dummy for each level but the first; NaN at a gap."""
        there = ~self.missing
        made = design_matrix({self.name: self.data[there]}, full=full)
        matrix = np.full((len(self.data), made.matrix.shape[1]), np.nan)
        matrix[there] = made.matrix
        return replace(made, build=lambda: matrix)


class Table:
    """A read-only view of a caller's frame: pandas, polars, pyarrow or what else narwhals reads eagerly.

    It refuses (`DataError`) what is no frame, has no rows, or has a column name twice. A `role` says in
    messages what the caller wants a column for.
    """

    __slots__ = ("_frame", "columns", "n_rows")

    def __init__(self, frame: Any) -> None:  # noqa: ANN401 - any frame library's type
        import narwhals as nw

        # A pandas frame may carry a name twice, which narwhals would report without saying what to do.
        native_names = getattr(frame, "column_names", None) or getattr(frame, "columns", None)
        if native_names is not None:
            names = [str(name) for name in native_names]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise DataError(
                    f"the table has more than one column named {', '.join(map(repr, twice))}",
                    hint="rename or drop the copies, so that a name means one column",
                )
        try:
            wrapped = nw.from_native(frame, eager_only=True)
        except TypeError as error:
            raise DataError(
                f"expected a data frame, got {type(frame).__name__}",
                hint="pass a pandas, polars or pyarrow table; collect a lazy frame first",
            ) from error
        self._frame = wrapped
        self.columns: tuple[str, ...] = tuple(wrapped.columns)
        self.n_rows: int = len(wrapped)
        if self.n_rows == 0:
            raise DataError("the table has no rows")

    @property
    def native(self) -> Any:  # noqa: ANN401 - the caller's kind
        """The frame as the caller gave it."""
        return self._frame.to_native()

    def rows(self, mask: NDArray[np.bool_]) -> Any:  # noqa: ANN401 - the caller's kind
        """Give the rows where `mask` (n,) is true, as a frame of the caller's kind."""
        return self._frame.filter(mask.tolist()).to_native()

    def keep(self, rows: NDArray[np.bool_]) -> Table:
        """Give the table of some rows, by a mask (n,); refused where none is kept."""
        return Table(self.rows(rows))

    def written(self, values: Mapping[str, NDArray[Any]], *, keep_types: bool = True) -> Any:  # noqa: ANN401 - the caller's kind
        """Give a frame of the caller's kind with columns set, new ones at the end.

        Values are floats with NaN for a gap, booleans, or text objects with None for one, (n,) each. A
        column that exists keeps its type where the values allow it, unless `keep_types` is false.
        """
        made = [self._series(name, column, keep_types=keep_types) for name, column in values.items()]
        return self._frame.with_columns(*made).to_native() if made else self.native

    def _series(self, name: str, column: NDArray[Any], *, keep_types: bool) -> nw.Series[Any]:
        import narwhals as nw

        backend = self._frame.implementation
        before = self._frame.schema[name] if keep_types and name in self.columns else None
        if column.dtype == object:
            text = nw.new_series(name, list(column), nw.String, backend=backend)
            return text.cast(before) if isinstance(before, nw.Categorical | nw.Enum) else text
        if column.dtype == bool or before == nw.Boolean:
            flags = [None if v != v else bool(v) for v in column.tolist()]  # noqa: PLR0124 - NaN test
            return nw.new_series(name, flags, nw.Boolean, backend=backend)
        whole = np.isfinite(column).all() and bool((column == np.round(column)).all())
        numbers = nw.new_series(name, column.tolist(), nw.Float64, backend=backend)
        return numbers.cast(before) if before is not None and before.is_integer() and whole else numbers

    def raw(self, name: str, *, first: int | None = None) -> NDArray[Any]:
        """Give a column that is there as it is, gaps and all: numbers as such, anything else as objects.

        With `first` only so many rows.
        """
        series = self._frame.get_column(name)
        if first is not None:
            series = series.head(first)
        if series.dtype.is_numeric() or str(series.dtype) == "Boolean":
            return np.asarray(series.to_numpy())
        out = np.empty(len(series), dtype=object)
        # One by one: a column of lists of one length would be taken for a matrix.
        for k, value in enumerate(series.to_list()):
            out[k] = value
        return out

    def days(self, name: str) -> NDArray[np.float64] | None:
        """Give a column of dates as days since 1970 (UTC), (n,), NaN for a gap; None where it is of no dates.

        Dates in a column of text, or of objects, are not looked for.
        """
        import narwhals as nw

        series = self._frame.get_column(name)
        if not isinstance(series.dtype, nw.Datetime | nw.Date):
            return None
        gone = np.asarray(series.is_null().to_numpy(), dtype=bool)
        whole = series.dt.timestamp("us").fill_null(0) if gone.any() else series.dt.timestamp("us")
        days = np.asarray(whole.cast(nw.Float64).to_numpy(), dtype=np.float64) / 86_400e6
        return np.where(gone, np.nan, days)

    def require(self, names: Sequence[str], *, role: str) -> None:
        """Refuse (`DataError`) the first name that is no column, with the closest one that is."""
        for name in names:
            if name not in self.columns:
                raise DataError(
                    f"{role} column {name!r} is not in the table{did_you_mean(name, self.columns)}",
                    hint=f"the table has: {', '.join(self.columns)}",
                )

    def column(self, name: str, *, role: str) -> Column:
        """Read a column, gaps and all; refused where it is absent, infinite, or of dates or lists."""
        import narwhals as nw

        self.require([name], role=role)
        series = self._frame.get_column(name)
        if series.dtype.is_numeric() or str(series.dtype) == "Boolean":
            kind: Literal["number", "boolean"] = "number" if series.dtype.is_numeric() else "boolean"
            return _number_column(name, kind, _floats(series), role)
        raw = series.to_list()
        gone = np.asarray(series.is_null().to_numpy(), dtype=bool)
        if series.dtype == nw.String and getattr(series.to_native(), "dtype", None) != np.dtype(object):
            # Of a type that holds text and nothing else: no value need be looked at.
            text = np.full(len(raw), None, dtype=object)
            text[~gone] = raw if not gone.any() else [v for v in raw if isinstance(v, str)]
            return Column(name=name, kind="text", data=text, missing=gone)
        # A pandas object column may hold a NaN that narwhals does not call null.
        gone = gone | np.array([isinstance(v, float) and v != v for v in raw], dtype=bool)  # noqa: PLR0124
        present = raw if not gone.any() else [v for v, out in zip(raw, gone.tolist(), strict=True) if not out]
        if present and all(isinstance(value, str) for value in present):
            text = np.full(len(raw), None, dtype=object)
            text[~gone] = present
            return Column(name=name, kind="text", data=text, missing=gone)
        flags = bool(present) and all(isinstance(value, bool | np.bool_) for value in present)
        kinds = sorted({type(value).__name__ for value in present})
        if not flags and not set(kinds) <= {"bool", "float", "int"}:
            raise DataError(
                f"{role} column {name!r} holds {' and '.join(kinds)}; expected numbers, booleans or text",
                hint="convert it to a number or to text levels first, or leave it out",
            )
        numbers = np.full(len(raw), np.nan)
        numbers[~gone] = [_as_float(value, name, role) for value in present]
        return _number_column(name, "boolean" if flags else "number", numbers, role)

    def read(self, names: Sequence[str] | None = None, *, role: str = "named") -> dict[str, Column]:
        """Read columns (all by default), gaps and all, as `column` does; one named twice is refused."""
        wanted = self.columns if names is None else tuple(names)
        self.require(wanted, role=role)
        twice = [name for name in wanted if wanted.count(name) > 1]
        if twice:
            raise DataError(f"{role} column {twice[0]!r} is named twice")
        return {name: self.column(name, role=role) for name in wanted}

    def values(self, name: str, *, role: str) -> NDArray[Any]:
        """Give a column without gaps: float64 for numbers and booleans, str objects for text, (n,).

        Refused as by `column`, and where a value is missing or a text holds half a character.
        """
        column = self.column(name, role=role)
        if column.n_missing:
            raise missing_values(name, role, column.n_missing, self.n_rows)
        if column.kind == "text":
            half = next((value for value in distinct(column.data)[0] if _HALF.search(value)), None)
            if half is not None:
                raise DataError(
                    f"{role} column {name!r} holds half a character (a lone surrogate) in"
                    f" {half[:40].encode('ascii', 'backslashreplace').decode()!r}",
                    hint="write the text anew; such halves come from text that was cut",
                )
        return column.data

    def numbers(self, name: str, *, role: str, gaps: bool = False) -> NDArray[np.float64]:
        """Give a numeric column as float64, (n,); with `gaps` missing values are NaN, to be counted.

        Refused where it is text, and as by `values` (with `gaps` as by `column`).
        """
        column = self.column(name, role=role).data if gaps else self.values(name, role=role)
        if column.dtype == object:
            raise is_text(name, role, next(value for value in column if value is not None))
        return np.asarray(column, dtype=np.float64)

    def labels(self, name: str, *, role: str) -> NDArray[Any]:
        """Give a column as text labels (n,), whole numbers without a decimal point."""
        column = self.keys(name, role=role)
        if column.dtype == object:
            return column
        # A name for each distinct value: a million rows have few.
        distinct, place = np.unique(column, return_inverse=True)
        return np.asarray([level_name(value) for value in distinct], dtype=object)[place]

    def keys(self, name: str, *, role: str) -> NDArray[Any]:
        """Give a column that tells rows or groups apart: as `values`, but whole numbers stay exact.

        As float64 two 64-bit identifiers (a hash) beyond 2**53 may be one number: such come as integers, and
        those beyond 64 bits as text.
        """
        column = self.values(name, role=role)
        if column.dtype == object or not (np.abs(column) >= _EXACT).any():
            return column
        series = self._frame.get_column(name)
        if series.dtype.is_integer():
            return np.asarray(series.to_numpy())
        raw = series.to_list()
        if any(isinstance(value, float | np.floating) for value in raw):
            return column
        return np.asarray([str(int(value)) for value in raw], dtype=object)


def is_text(name: str, role: str, example: object) -> DataError:
    """Say that a column holds text where a number is needed."""
    return DataError(
        f"{role} column {name!r} is text (for example {example!r}); a number is needed",
        hint="score it first: 1 for a success and 0 for a failure, or a numeric measure",
    )


def missing_values(name: str, role: str, count: int, n_rows: int) -> DataError:
    """Say that a column has gaps."""
    hint = "no row is dropped unasked: impute (estimate_with_imputation), or remove those rows on purpose"
    if role == "outcome":
        hint = (
            "no row is dropped unasked: estimate_with_imputation(missing_outcome='exclude') leaves those rows"
            " out of the estimate and counts them, 'impute' fills them as well"
        )
    return DataError(
        f"{role} column {name!r} has {count} missing value(s) in {n_rows} rows",
        hint=hint,
    )


def infinite_values(name: str, role: str, count: int, first: int) -> DataError:
    """Say that a column has values without a size; `first` is the row of one, from 0."""
    return DataError(
        f"{role} column {name!r} has {count} infinite value(s), the first in row {first}",
        hint="an infinite value has no mean; correct it or remove those rows on purpose",
    )


def open_table(frame: Any) -> Table:  # noqa: ANN401 - any frame library's type
    """Wrap a caller's frame for reading, unless it is wrapped already."""
    return frame if isinstance(frame, Table) else Table(frame)


def arms(
    table: Table, column: str, *, treated: object | None = None, control: object | None = None
) -> tuple[NDArray[np.bool_], str, str]:
    """Read a binary treatment: 0/1, booleans, or two levels, `treated` or `control` naming one.

    Gives the mask (n,) of the rows that received the treated arm, its level and the control's as text.
    Missing values, or more than two levels, are a `DataError`; a sole arm, or an absent level, an
    `EstimationError`.
    """
    raw = table.keys(column, role="treatment")
    is_text = raw.dtype == object
    levels = distinct(raw)[0]
    shown = [str(level) if is_text else level_name(level) for level in levels]
    if len(levels) == 1:
        raise EstimationError(
            f"treatment column {column!r} is constant: every row is {shown[0]!r}",
            hint="an effect needs both arms; run the other arm, or give the table that holds both",
        )
    if len(levels) > 2:
        listed = ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "")
        raise DataError(
            f"treatment column {column!r} has {len(levels)} levels ({listed}); a contrast needs two",
            hint="name both arms (treated= and control=); for every pair of arms there is compare_arms, for a"
            " dose dose_response",
        )
    if treated is None and control is None:
        if is_text or shown != ["0", "1"]:
            raise DataError(
                f"treatment column {column!r} has the levels {shown[0]!r} and {shown[1]!r};"
                " it is not known which one is the treated arm",
                hint=f"say treated={shown[1]!r} (or {shown[0]!r})",
            )
        chosen = 1
    else:
        chosen = _named_level(shown, treated=treated, control=control, column=column)
    return np.asarray(raw == levels[chosen], dtype=bool), shown[chosen], shown[1 - chosen]


def rows_of_two_arms(
    table: Table, column: str, *, treated: object, control: object
) -> NDArray[np.bool_] | None:
    """Give the rows of two named arms as a mask (n,), or None where the table has no other.

    A level that does not occur, or one named twice, is an `EstimationError`.
    """
    labels = table.labels(column, role="treatment")
    levels = sorted(set(labels.tolist()))
    wanted = (level_name(treated), level_name(control))
    if wanted[0] == wanted[1]:
        raise EstimationError(f"the treated and the control level of {column!r} are both {wanted[0]!r}")
    if len(levels) <= 2:
        return None
    for level in wanted:
        if level not in levels:
            raise _empty_arm(column, level, levels)
    return np.asarray(np.isin(labels, wanted), dtype=bool)


def _empty_arm(column: str, level: str, levels: Sequence[str]) -> EstimationError:
    shown = [repr(one) for one in levels[:8]]
    listed = " and ".join(shown) if len(shown) == 2 else ", ".join(shown)
    return EstimationError(
        f"no row of treatment column {column!r} has the level {level!r}: that arm is empty",
        hint=f"the levels are {listed}{did_you_mean(level, levels)}",
    )


def _named_level(shown: list[str], *, treated: object | None, control: object | None, column: str) -> int:
    wanted = [None if level is None else level_name(level) for level in (treated, control)]
    for level in wanted:
        if level is not None and level not in shown:
            raise _empty_arm(column, level, shown)
    if wanted[0] is not None and wanted[0] == wanted[1]:
        raise EstimationError(f"the treated and the control level of {column!r} are both {wanted[0]!r}")
    return shown.index(wanted[0]) if wanted[0] is not None else 1 - shown.index(str(wanted[1]))


def level_name(value: object) -> str:
    """Write a level as text, so that 1, 1.0 and True name the same level of a numeric column."""
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _floats(series: nw.Series[Any]) -> NDArray[np.float64]:
    import narwhals as nw

    if not series.dtype.is_numeric():
        if not series.is_null().any():
            return np.asarray(series.to_numpy(), dtype=np.float64)
        return np.asarray([np.nan if v is None else float(v) for v in series.to_list()], dtype=np.float64)
    gone = np.asarray(series.is_null().to_numpy(), dtype=bool)
    numbers = np.ascontiguousarray(series.cast(nw.Float64).to_numpy(), dtype=np.float64)
    numbers = np.where(gone, np.nan, numbers) if gone.any() else numbers.view()
    # The frame's own memory where it can be had: a second copy of every column is dear, and none is changed.
    numbers.flags.writeable = False
    return numbers


def _number_column(
    name: str, kind: Literal["number", "boolean"], numbers: NDArray[np.float64], role: str
) -> Column:
    infinite = np.isinf(numbers)
    if infinite.any():
        raise infinite_values(name, role, int(infinite.sum()), int(np.flatnonzero(infinite)[0]))
    return Column(name=name, kind=kind, data=numbers, missing=np.isnan(numbers))


def _as_float(value: Any, name: str, role: str) -> float:  # noqa: ANN401 - a number of any kind
    try:
        return float(value)
    except OverflowError:
        raise DataError(
            f"{role} column {name!r} holds a whole number of more than 308 digits",
            hint="a covariate or an outcome is a quantity; leave an identifier out, or make it text",
        ) from None
