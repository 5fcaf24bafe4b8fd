"""When rows ran and when their routes changed: dates or numbers, in periods counted from the first change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted, did_you_mean
from whyprompt.errors import DataError, EstimationError
from whyprompt.tables import arms, level_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.tables import Table

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

_WRITTEN = "write dates as 2025-03-01 or 2025-03-01T14:00, or give a column of numbers (days from the start)"


def read_times(table: Table, name: str) -> tuple[Floats, bool]:
    """Read when each row ran: numbers as they are, dates as days since 1970 (UTC); whether they are dates."""
    table.require([name], role="time")
    days = table.days(name)
    raw = None if days is not None else table.raw(name)
    if raw is not None and raw.dtype != object:
        return table.numbers(name, role="time"), False
    days = _days(raw) if days is None else days
    lost = np.flatnonzero(np.isnan(days))
    if not len(lost):
        return days, True
    gaps = np.array([raw is None or raw[k] is None or raw[k] != raw[k] for k in lost])
    if gaps.any():
        raise DataError(
            f"time column {name!r} has {int(gaps.sum())} missing value(s) in {table.n_rows} rows",
            hint="no row is dropped unasked: fill them, or remove those rows on purpose",
        )
    assert raw is not None
    raise DataError(
        f"time column {name!r} holds {raw[lost[0]]!r} in row {lost[0]}, which is no date"
        + (f" ({len(lost)} such rows)" if len(lost) > 1 else ""),
        hint=_WRITTEN,
    )


def _days(values: Any) -> Floats:  # noqa: ANN401 - objects of any kind
    """Turn dates of any kind into days since 1970, NaN for what is none; without a zone they are UTC."""
    import pandas as pd

    code, distinct = pd.factorize(np.asarray(values, dtype=object))
    written = all(isinstance(v, str) for v in distinct)
    series = pd.Series(distinct, dtype=object)
    found = pd.to_datetime(series, errors="coerce", utc=True, format="ISO8601" if written else None)
    seconds = found.astype("datetime64[us, UTC]").astype("int64").to_numpy().astype(float)
    days = np.where(found.isna().to_numpy(), np.nan, seconds / 86_400e6)
    # A gap has no code, which is then the last.
    return np.asarray(np.append(days, np.nan)[code], dtype=np.float64)


def date_words(day: float, *, dated: bool) -> str:
    """Write a time as it was given: a date, with its hour where it has one, or a number."""
    if not dated:
        return f"{day:g}"
    text = str(np.datetime64(round(day * 86_400), "s"))
    return text.removesuffix(":00").removesuffix("T00:00")


def _moment(value: object, *, dated: bool, of: str) -> float:
    """Read one date of a change as the time column is written."""
    if dated:
        day = _days(np.array([value], dtype=object))[0] if not isinstance(value, int | float) else np.nan
        if not np.isfinite(day):
            raise EstimationError(f"changed={value!r}{of} is no date", hint=_WRITTEN)
        return float(day)
    try:
        number = np.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # what is none is refused below
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise EstimationError(
            f"changed={value!r}{of} is no number, and the time column is one of numbers",
            hint="write it in the column's units",
        )
    return number


def changes_given(
    changed: object | Mapping[str, object], routes: Sequence[str], *, dated: bool, unit: str | None
) -> Floats:
    """Read the date of each route's change, infinite for one without: one date is that of every route."""
    if not hasattr(changed, "items"):
        return np.full(len(routes), _moment(changed, dated=dated, of=""))
    if unit is None:
        raise EstimationError(
            "changed= gives dates by route, and no column names the routes", hint="unit= names that column"
        )
    out = np.full(len(routes), np.inf)
    for name, value in changed.items():
        route = level_name(name)
        if route not in routes:
            raise DataError(
                f"changed= names {route!r}, which {unit!r} does not hold{did_you_mean(route, routes)}",
                hint=f"it holds {', '.join(routes[:8])}" + (", ..." if len(routes) > 8 else ""),
            )
        if value is not None:
            out[routes.index(route)] = _moment(value, dated=dated, of=f" of {route!r}")
    return out


def changes_seen(times: Floats, given: Bools, route: NDArray[np.intp], count: int) -> Floats:
    """Give the time of each route's first row under the treated arm, infinite where there is none."""
    out = np.full(count, np.inf)
    np.minimum.at(out, route[given], times[given])
    return out


def read_arm(
    table: Table, treatment: str | None, treated: object | None, control: object | None
) -> tuple[Bools | None, tuple[str, str]]:
    """Read which rows are under the new arm, and both arms' names; without a column after and before."""
    if treatment is None:
        named = [name for name, value in (("treated", treated), ("control", control)) if value is not None]
        if named:
            raise EstimationError(
                f"{named[0]}= names a level of the treatment, and no treatment is named",
                hint="name the treatment, or leave the level out",
            )
        return None, ("after", "before")
    given, *names = arms(table, treatment, treated=treated, control=control)
    return given, (names[0], names[1])


def refuse_disagreement(
    given: Bools, after: Bools, names: tuple[str, str], change: Callable[[int], str]
) -> None:
    """Refuse rows whose arm is not that of their date; `change` says which route's change it was."""
    odd = np.flatnonzero(given != after)
    if not len(odd):
        return
    first = int(odd[0])
    raise EstimationError(
        f"{counted(len(odd), 'row')} of {len(given)} {'is' if len(odd) == 1 else 'are'} not under the arm of"
        f" their date: row {first} is under {names[not given[first]]!r}"
        f" {'after' if after[first] else 'before'} {change(first)}",
        hint="leave out the rows of a time in which both arms ran; or name no treatment, and every row from"
        " the date on counts as changed; or take the date as an instrument for the arm (design='instrument')",
    )
