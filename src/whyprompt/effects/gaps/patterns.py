"""Where the gaps are: patterns of missing values, and rows dropped on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import names
from whyprompt._words import format_number
from whyprompt.errors import DataError
from whyprompt.results import Estimate, Result, unlisted
from whyprompt.stats.rules import SMD_LIMIT
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from whyprompt.tables import Column

__all__ = [
    "DropReport",
    "MissingPatterns",
    "drop_incomplete",
    "missing_patterns",
]


@dataclass(frozen=True, kw_only=True)
class MissingPatterns(Result):
    """The pattern table of a frame; a part is a pattern's share of the rows.

    Attributes
    ----------
    patterns : mapping of tuple of str to int
        From the columns that are missing together (none for complete rows) to the number of such rows:
        complete rows first, then the most frequent pattern. In `to_dict` they are the parts.
    columns : tuple of str
        Columns looked at.
    n_missing : mapping of str to int
        Gaps a column.
    n_rows, n_complete : int
        Rows, and those without a gap.
    """

    patterns: Mapping[tuple[str, ...], int] = unlisted()
    columns: tuple[str, ...]
    n_missing: Mapping[str, int]
    n_rows: int
    n_complete: int

    def to_frame(self) -> pd.DataFrame:
        """Return the patterns.

        Returns
        -------
        pandas.DataFrame
            One row a pattern: 1 for present and 0 for missing a column, ``pattern_n`` and ``pattern_share``.
        """
        import pandas as pd

        rows = [
            {
                **{c: int(c not in gone) for c in self.columns},
                "pattern_n": n,
                "pattern_share": n / self.n_rows,
            }
            for gone, n in self.patterns.items()
        ]
        return pd.DataFrame(rows, columns=[*self.columns, "pattern_n", "pattern_share"])

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        from whyprompt.charts import pattern_plot

        return {"patterns": lambda: pattern_plot(self)}


def missing_patterns(
    frame: Any,  # noqa: ANN401 - any frame library's type
    columns: Sequence[str] | None = None,
) -> MissingPatterns:
    """Tabulate which columns are missing together.

    Parameters
    ----------
    frame : DataFrame
        pandas, polars or pyarrow. It is read and never written.
    columns : sequence of str, optional
        Default: all.

    Returns
    -------
    MissingPatterns

    Raises
    ------
    DataError
        If a column is absent or of a kind that is not read.

    References
    ----------
    Van Buuren (2018). Flexible Imputation of Missing Data, 2nd edition. CRC Press, section 4.1.

    Examples
    --------
    >>> import pandas as pd
    >>> found = missing_patterns(pd.DataFrame({"a": [1.0, None, 3.0], "b": ["x", None, None]}))
    >>> found.patterns
    {(): 1, ('a', 'b'): 1, ('b',): 1}
    """
    if columns is not None and not names(columns, "columns"):
        raise DataError("no column is named", hint="leave columns= out for all of them")
    read = open_table(frame).read(columns)
    kept = tuple(read)
    gaps = np.column_stack([column.missing for column in read.values()])
    kinds, counts = np.unique(gaps, axis=0, return_counts=True)
    n = len(gaps)
    found = [
        (tuple(c for c, gone in zip(kept, kind.tolist(), strict=True) if gone), int(count))
        for kind, count in zip(kinds, counts, strict=True)
    ]
    found.sort(key=lambda p: (bool(p[0]), -p[1], p[0]))
    missing = {name: column.n_missing for name, column in read.items()}
    complete = int((~gaps.any(axis=1)).sum())
    return MissingPatterns(
        patterns=dict(found),
        parts=tuple(
            Estimate(label=", ".join(gone) or "complete", estimate=count / n, n_used=count)
            for gone, count in found
        ),
        axis="share of the rows",
        columns=kept,
        n_missing=missing,
        n_rows=n,
        n_complete=complete,
        sentence=_pattern_sentence(found, missing, n, complete),
    )


def _pattern_sentence(
    found: Sequence[tuple[tuple[str, ...], int]], missing: Mapping[str, int], n: int, complete: int
) -> str:
    gappy = {name: count for name, count in missing.items() if count}
    if not gappy:
        return f"No value is missing in {n} rows and {len(missing)} columns."
    worst = sorted(gappy.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name!r} in {count} ({count / n:.1%})" for name, count in worst[:5])
    more = f" and {len(worst) - 5} more columns" if len(worst) > 5 else ""
    return (
        f"{complete} of {n} rows ({complete / n:.1%}) are complete; values are missing from {shown}{more},"
        f" in {len([gone for gone, _ in found if gone])} pattern(s)."
    )


@dataclass(frozen=True, kw_only=True)
class DropReport(Result):
    """A table without its incomplete rows: which were dropped, and how they differ from those kept.

    A part is a readable column, or ``column_level`` for one level of a text column: dropped minus kept rows,
    in pooled standard deviations, over `n_used` dropped rows where it is known.

    Attributes
    ----------
    frame : DataFrame
        Of the caller's kind, with the rows kept. Not part of `to_dict`.
    columns : tuple of str
        A row with a gap in one of these was dropped.
    n_rows, n_kept, n_dropped : int
        Rows.
    by_column : mapping of str to int
        Dropped rows with a gap in each column; a row may count for several.
    by_group : mapping of str to (int, int)
        Dropped and all rows of each level of the column asked for.
    means : mapping of str to (float or None, float or None)
        Of each part, over kept and over dropped rows where it is known.
    """

    frame: Any = unlisted()
    columns: tuple[str, ...]
    n_rows: int
    n_kept: int
    n_dropped: int
    by_column: Mapping[str, int]
    by_group: Mapping[str, tuple[int, int]]
    means: Mapping[str, tuple[float | None, float | None]]

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        from whyprompt.charts import interval_plot

        rows = [{"label": d.label, "estimate": d.estimate, "low": None, "high": None} for d in self.parts]
        limits = (-SMD_LIMIT, SMD_LIMIT)
        return {"differences": lambda: interval_plot(rows, title=self.axis, limits=limits)}


def drop_incomplete(
    frame: Any,  # noqa: ANN401 - any frame library's type
    columns: Sequence[str],
    *,
    by: str | None = None,
    describe: Sequence[str] | None = None,
) -> DropReport:
    """Drop rows with a gap, on purpose, and describe who was dropped.

    Parameters
    ----------
    frame : DataFrame
        pandas, polars or pyarrow. It is read and never written.
    columns : sequence of str
        A row with a gap in one of these is dropped.
    by : str, optional
        Column, such as the arm, by which dropped rows are counted.
    describe : sequence of str, optional
        Columns in which dropped and kept rows are compared. Default: `columns` and `by`.

    Returns
    -------
    DropReport
        With the rows kept as its `frame`.

    Raises
    ------
    DataError
        If a column is absent, or no row is left.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"arm": ["a", "b", "b"], "x": [1.0, None, 3.0]})
    >>> found = drop_incomplete(frame, ["x"], by="arm")
    >>> len(found.frame), found.by_group
    (2, {'a': (0, 1), 'b': (1, 2)})
    """
    asked = names(columns, "columns")
    shown = tuple(describe) if describe is not None else (*asked, *((by,) if by else ()))
    every = tuple(dict.fromkeys([*asked, *((by,) if by else ()), *shown]))
    table = open_table(frame)
    read = table.read(every)
    gone = np.zeros(table.n_rows, dtype=bool)
    for name in asked:
        gone |= read[name].missing
    if gone.all():
        raise DataError(
            f"every row has a gap in one of {', '.join(asked)}; nothing would be left",
            hint="impute (whyprompt.effects.gaps.chained.impute), or leave out the column with most gaps",
        )
    by_column = {name: int((read[name].missing & gone).sum()) for name in asked}
    by_group = {} if by is None else _by_group(read[by], gone)
    compared = [one for name in dict.fromkeys(shown) for one in _differences(read[name], gone)]
    differences = [row for row, _ in compared]
    n, dropped = len(gone), int(gone.sum())
    return DropReport(
        frame=table.rows(~gone),
        columns=asked,
        n_rows=n,
        n_kept=n - dropped,
        n_dropped=dropped,
        by_column=by_column,
        by_group=by_group,
        parts=tuple(differences),
        means={row.label: means for row, means in compared},
        axis="dropped minus kept rows (pooled standard deviations)",
        sentence=_drop_sentence(n, dropped, by_column, by_group, differences),
    )


def _by_group(column: Column, gone: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, tuple[int, int]]:
    labels = np.array(
        [
            "(missing)" if absent else str(int(v)) if isinstance(v, float) and v.is_integer() else str(v)
            for v, absent in zip(column.data.tolist(), column.missing.tolist(), strict=True)
        ],
        dtype=object,
    )
    return {
        str(level): (int(gone[labels == level].sum()), int((labels == level).sum()))
        for level in sorted(set(labels.tolist()))
    }


def _differences(
    column: Column, gone: np.ndarray[Any, np.dtype[np.bool_]]
) -> list[tuple[Estimate, tuple[float | None, float | None]]]:
    if column.kind != "text":
        parts = [(column.name, column.data)]
    else:
        levels = column.levels if len(column.levels) <= 20 else ()
        kept = levels if len(levels) > 2 else levels[1:]
        parts = [
            (
                f"{column.name}_{level}",
                np.where(column.missing, np.nan, (column.data == level).astype(float)),
            )
            for level in kept
        ]
    out = []
    for name, values in parts:
        known = ~np.isnan(values)
        a, b = values[known & ~gone], values[known & gone]
        smd = None
        if len(a) > 1 and len(b) > 1:
            scale = float(np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2))
            smd = float((b.mean() - a.mean()) / scale) if scale > 0 else None
        means = (float(a.mean()) if len(a) else None, float(b.mean()) if len(b) else None)
        out.append((Estimate(label=name, estimate=smd, n_used=len(b)), means))
    return out


def _drop_sentence(
    n: int,
    dropped: int,
    by_column: Mapping[str, int],
    by_group: Mapping[str, tuple[int, int]],
    differences: Sequence[Estimate],
) -> str:
    if not dropped:
        return f"No row was dropped: all {n} are complete in {', '.join(map(repr, by_column))}."
    reasons = ", ".join(f"{count} for {name!r}" for name, count in by_column.items() if count)
    words = f"{dropped} of {n} rows ({dropped / n:.1%}) were dropped for missing values ({reasons})."
    if by_group:
        words += " By group: " + ", ".join(f"{a} of {b} in {g!r}" for g, (a, b) in by_group.items()) + "."
    apart = [d for d in differences if d.estimate is not None and abs(d.estimate) > 0.1]
    if apart:
        worst = sorted(apart, key=lambda d: -abs(d.estimate or 0))[:3]
        words += (
            " They differ from the rows kept in "
            + ", ".join(
                f"{d.label!r} ({format_number(d.estimate, digits=2)} standard deviations)" for d in worst
            )
            + ": what is found in the rest need not hold for them."
        )
    return words
