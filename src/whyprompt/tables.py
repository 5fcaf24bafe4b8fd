"""Columns out of any data frame, checked once, as numpy arrays.

What computes an effect or a mediation does so on arrays. This module reads a caller's columns for it, by
name, so that one column means one thing everywhere; it never writes.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.errors import DataError, EstimationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Arms", "Table", "arms", "level_name", "open_table", "rows_of_two_arms"]

# Whole numbers below this are exact as float64.
_EXACT = 2.0**53
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Arms:
    """A binary treatment read from a column.

    Attributes
    ----------
    indicator : ndarray of bool, shape (n,)
        True where the row received the treated arm.
    treated, control : str
        The two levels, as text.
    """

    indicator: NDArray[np.bool_]
    treated: str
    control: str


class Table:
    """A read-only view of a caller's frame.

    Parameters
    ----------
    frame : DataFrame
        pandas, polars, pyarrow or anything else narwhals reads eagerly.

    Raises
    ------
    DataError
        If the object is not a frame, has no rows, or has a column name twice.
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

    def keep(self, rows: NDArray[np.bool_]) -> Table:
        """Return the table of some rows.

        Parameters
        ----------
        rows : ndarray of bool, shape (n,)

        Returns
        -------
        Table

        Raises
        ------
        DataError
            If no row is kept.
        """
        return Table(self._frame.filter(rows.tolist()))

    def replace(self, name: str, values: NDArray[np.float64]) -> Table:
        """Return the table with one column replaced by numbers.

        Parameters
        ----------
        name : str
        values : ndarray, shape (n,)

        Returns
        -------
        Table
            The caller's frame keeps its column.
        """
        import narwhals as nw

        column = nw.new_series(name, values, dtype=nw.Float64, backend=self._frame.implementation)
        if self._frame.implementation.is_pandas():
            # pandas would align on the index, which may repeat or be in any order.
            native = column.to_native()
            native.index = self._frame.to_native().index
            column = nw.from_native(native, series_only=True)
        return Table(self._frame.with_columns(column))

    def raw(self, name: str, *, first: int | None = None) -> NDArray[Any]:
        """Return a column as it is, gaps and all: numbers as such, anything else as objects.

        Parameters
        ----------
        name : str
            A column that is there.
        first : int, optional
            Only so many rows.

        Returns
        -------
        ndarray, shape (n,)
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

    def require(self, names: Sequence[str], *, role: str) -> None:
        """Check that every name is a column.

        Parameters
        ----------
        names : sequence of str
            Columns to look for.
        role : str
            What the caller wants them for, used in the message.

        Raises
        ------
        DataError
            Naming the first column that is absent and the closest one that is there.
        """
        for name in names:
            if name not in self.columns:
                near = difflib.get_close_matches(name, self.columns, n=1)
                guess = f"; did you mean {near[0]!r}?" if near else ""
                raise DataError(
                    f"{role} column {name!r} is not in the table{guess}",
                    hint=f"the table has: {', '.join(self.columns)}",
                )

    def values(self, name: str, *, role: str) -> NDArray[Any]:
        """Return a column as a numpy array: float64 for numbers and booleans, str objects for text.

        Parameters
        ----------
        name : str
            Column.
        role : str
            What the caller wants it for, used in messages.

        Returns
        -------
        ndarray of float64 or of object (str), shape (n,)

        Raises
        ------
        DataError
            If the column is absent, holds missing or infinite values, or is of a kind (dates, lists)
            that has no meaning as a covariate.
        """
        self.require([name], role=role)
        series = self._frame.get_column(name)
        n_null = int(series.null_count())
        if n_null:
            raise _missing(name, role, n_null, self.n_rows)
        dtype = series.dtype
        if dtype.is_numeric() or str(dtype) == "Boolean":
            numbers = np.asarray(series.to_numpy(), dtype=np.float64)
            bad = ~np.isfinite(numbers)
            if bad.any():
                n_nan = int(np.isnan(numbers).sum())
                if n_nan:
                    raise _missing(name, role, n_nan, self.n_rows)
                raise DataError(
                    f"{role} column {name!r} has {int(bad.sum())} infinite value(s), the first in row"
                    f" {int(np.flatnonzero(bad)[0])}",
                    hint="an infinite value has no mean; correct it or remove those rows on purpose",
                )
            return numbers
        raw = series.to_list()
        if all(isinstance(value, bool | np.bool_) for value in raw):
            return np.asarray(raw, dtype=np.float64)
        if not all(isinstance(value, str) for value in raw):
            kinds = sorted({type(value).__name__ for value in raw})
            if set(kinds) <= {"bool", "float", "int"}:
                return self._numbers_from_objects(raw, name, role)
            raise DataError(
                f"{role} column {name!r} holds {' and '.join(kinds)}; expected numbers, booleans or text",
                hint="convert it to a number or to text levels first",
            )
        half = next((value for value in dict.fromkeys(raw) if _HALF.search(value)), None)
        if half is not None:
            raise DataError(
                f"{role} column {name!r} holds half a character (a lone surrogate) in"
                f" {half[:40].encode('ascii', 'backslashreplace').decode()!r}",
                hint="write the text anew; such halves come from text that was cut",
            )
        return np.asarray(raw, dtype=object)

    def _numbers_from_objects(self, raw: list[Any], name: str, role: str) -> NDArray[np.float64]:
        numbers = np.asarray([_as_float(value, name, role) for value in raw], dtype=np.float64)
        n_bad = int((~np.isfinite(numbers)).sum())
        if n_bad:
            raise _missing(name, role, n_bad, self.n_rows)
        return numbers

    def numbers(self, name: str, *, role: str) -> NDArray[np.float64]:
        """Return a numeric column.

        Parameters
        ----------
        name : str
            Column.
        role : str
            What the caller wants it for, used in messages.

        Returns
        -------
        ndarray of float64, shape (n,)

        Raises
        ------
        DataError
            If the column is text, or as for `values`.
        """
        column = self.values(name, role=role)
        if column.dtype == object:
            example = str(column[0])
            raise DataError(
                f"{role} column {name!r} is text (for example {example!r}); a number is needed",
                hint="score it first: 1 for a success and 0 for a failure, or a numeric measure",
            )
        return np.asarray(column, dtype=np.float64)

    def numbers_with_gaps(self, name: str, *, role: str) -> NDArray[np.float64]:
        """Return a numeric column whose missing values become NaN, for a caller who counts them.

        Parameters
        ----------
        name : str
            Column.
        role : str
            What the caller wants it for, used in messages.

        Returns
        -------
        ndarray of float64, shape (n,)

        Raises
        ------
        DataError
            If the column is absent, text, or has infinite values.
        """
        self.require([name], role=role)
        raw = self._frame.get_column(name).to_list()
        present = [value for value in raw if value is not None and value == value]  # noqa: PLR0124 - NaN test
        if any(isinstance(value, str) for value in present):
            example = next(value for value in present if isinstance(value, str))
            raise DataError(
                f"{role} column {name!r} is text (for example {example!r}); a number is needed",
                hint="score it first: 1 for a success and 0 for a failure, or a numeric measure",
            )
        numbers = np.asarray(
            [_as_float(v, name, role) if v is not None and v == v else np.nan for v in raw],  # noqa: PLR0124 - NaN test
            dtype=np.float64,
        )
        n_infinite = int(np.isinf(numbers).sum())
        if n_infinite:
            raise DataError(
                f"{role} column {name!r} has {n_infinite} infinite value(s)",
                hint="an infinite value has no mean; correct it or remove those rows on purpose",
            )
        return numbers

    def labels(self, name: str, *, role: str) -> NDArray[Any]:
        """Return a column as text labels, whole numbers without a decimal point.

        Parameters
        ----------
        name : str
            Column.
        role : str
            What the caller wants it for, used in messages.

        Returns
        -------
        ndarray of object (str), shape (n,)
        """
        column = self.keys(name, role=role)
        if column.dtype == object:
            return column
        # A name for each distinct value: a million rows have few.
        distinct, place = np.unique(column, return_inverse=True)
        return np.asarray([level_name(value) for value in distinct], dtype=object)[place]

    def keys(self, name: str, *, role: str) -> NDArray[Any]:
        """Return a column that tells rows or groups apart: as `values`, but whole numbers stay exact.

        Parameters
        ----------
        name : str
            Column.
        role : str
            What the caller wants it for, used in messages.

        Returns
        -------
        ndarray of float64, of integers or of object (str), shape (n,)
            As float64 two 64-bit identifiers (a hash) beyond 2**53 may be one number. Whole numbers beyond
            64 bits are given as text.

        Raises
        ------
        DataError
            As for `values`.
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


def open_table(frame: Any) -> Table:  # noqa: ANN401 - any frame library's type
    """Wrap a caller's frame for reading.

    Parameters
    ----------
    frame : DataFrame
        pandas, polars, pyarrow or anything else narwhals reads eagerly.

    Returns
    -------
    Table
    """
    return frame if isinstance(frame, Table) else Table(frame)


def arms(table: Table, column: str, *, treated: object | None = None, control: object | None = None) -> Arms:
    """Read a binary treatment.

    Parameters
    ----------
    table : Table
        The frame.
    column : str
        Treatment column: 0/1, booleans, or two levels of any kind with `treated` naming one.
    treated, control : object, optional
        The level that counts as treated, and as control. Needed unless the column is 0/1 or boolean.

    Returns
    -------
    Arms

    Raises
    ------
    DataError
        If the column has missing values or not exactly two levels.
    EstimationError
        If every row received the same arm, or a named level does not occur.
    """
    raw = table.keys(column, role="treatment")
    is_text = raw.dtype == object
    names = raw if is_text else None
    levels = sorted(set(raw.tolist()))
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
                hint=f"say treated={shown[1]!r} (or {shown[0]!r}); on the command line --treated {shown[1]}",
            )
        chosen = 1
    else:
        chosen = _named_level(shown, treated=treated, control=control, column=column)
    indicator = (names if names is not None else raw) == levels[chosen]
    return Arms(indicator=np.asarray(indicator, dtype=bool), treated=shown[chosen], control=shown[1 - chosen])


def rows_of_two_arms(
    table: Table, column: str, *, treated: object, control: object
) -> NDArray[np.bool_] | None:
    """Return the rows of two named arms, or None where the table has no other.

    Parameters
    ----------
    table : Table
        The frame.
    column : str
        Treatment column.
    treated, control : object
        The two levels.

    Returns
    -------
    ndarray of bool, shape (n,), or None

    Raises
    ------
    EstimationError
        If a named level does not occur, or both are the same.
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
            raise EstimationError(
                f"no row of treatment column {column!r} has the level {level!r}: that arm is empty",
                hint=f"the levels are {', '.join(map(repr, levels[:8]))}",
            )
    return np.asarray(np.isin(labels, wanted), dtype=bool)


def _named_level(shown: list[str], *, treated: object | None, control: object | None, column: str) -> int:
    wanted = [None if level is None else level_name(level) for level in (treated, control)]
    for level in wanted:
        if level is not None and level not in shown:
            raise EstimationError(
                f"no row of treatment column {column!r} has the level {level!r}: that arm is empty",
                hint=f"the levels are {shown[0]!r} and {shown[1]!r}",
            )
    if wanted[0] is not None and wanted[0] == wanted[1]:
        raise EstimationError(f"the treated and the control level of {column!r} are both {wanted[0]!r}")
    return shown.index(wanted[0]) if wanted[0] is not None else 1 - shown.index(str(wanted[1]))


def level_name(value: object) -> str:
    """Write a level as text, so that 1, 1.0 and True name the same level of a numeric column.

    Parameters
    ----------
    value : object

    Returns
    -------
    str
    """
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _missing(name: str, role: str, count: int, n_rows: int) -> DataError:
    return DataError(
        f"{role} column {name!r} has {count} missing value(s) in {n_rows} rows",
        hint="no row is dropped unasked: impute (whyprompt.effects.missing), or remove those rows on purpose",
    )


def _as_float(value: Any, name: str, role: str) -> float:  # noqa: ANN401 - a number of any kind
    try:
        return float(value)
    except OverflowError:
        raise DataError(
            f"{role} column {name!r} holds a whole number of more than 308 digits",
            hint="a covariate or an outcome is a quantity; leave an identifier out, or make it text",
        ) from None
