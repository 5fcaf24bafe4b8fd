"""Where the gaps are: patterns of missing values, and rows dropped on purpose."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import names
from whyprompt._words import format_number
from whyprompt.charts import interval_plot, pattern_plot
from whyprompt.errors import DataError
from whyprompt.results import Estimate, Result, unlisted
from whyprompt.stats.rules import SMD_LIMIT
from whyprompt.tables import level_name, open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.tables import Column

    Bools = NDArray[np.bool_]


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
        """Return a row a pattern: 1 for present and 0 for missing a column; its rows and their share."""
        import pandas as pd

        rows = [
            [*(int(c not in gone) for c in self.columns), n, n / self.n_rows]
            for gone, n in self.patterns.items()
        ]
        return pd.DataFrame(rows, columns=[*self.columns, "pattern_n", "pattern_share"])

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        return {"patterns": lambda: pattern_plot(self)}


def missing_patterns(
    frame: Any,  # noqa: ANN401 - any frame library's type
    columns: Sequence[str] | None = None,
) -> MissingPatterns:
    """Tabulate which columns are missing together.

    Van Buuren (2018), Flexible Imputation of Missing Data, 2nd edition, section 4.1.

    Parameters
    ----------
    frame : DataFrame
        pandas, polars or pyarrow. It is read and never written.
    columns : sequence of str, optional
        Default: all.

    Raises
    ------
    DataError
        If a column is absent or of a kind that is not read.

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
    gaps = np.column_stack([column.missing for column in read.values()])
    n, found = len(gaps), Counter(tuple(compress(read, row)) for row in gaps.tolist())
    patterns = dict(sorted(found.items(), key=lambda p: (bool(p[0]), -p[1], p[0])))
    missing = {name: column.n_missing for name, column in read.items()}
    return MissingPatterns(
        patterns=patterns,
        parts=tuple(
            Estimate(label=", ".join(gone) or "complete", estimate=count / n, n_used=count)
            for gone, count in patterns.items()
        ),
        axis="share of the rows",
        columns=tuple(read),
        n_missing=missing,
        n_rows=n,
        n_complete=found[()],
        sentence=_pattern_sentence(missing, n, found),
    )


def _pattern_sentence(missing: Mapping[str, int], n: int, found: Counter[tuple[str, ...]]) -> str:
    gappy = {name: count for name, count in missing.items() if count}
    if not gappy:
        return f"No value is missing in {n} rows and {len(missing)} columns."
    worst = sorted(gappy.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name!r} in {count} ({count / n:.1%})" for name, count in worst[:5])
    more = f" and {len(worst) - 5} more columns" if len(worst) > 5 else ""
    complete = found[()]
    return (
        f"{complete} of {n} rows ({complete / n:.1%}) are complete; values are missing from {shown}{more},"
        f" in {sum(map(bool, found))} pattern(s)."
    )


@dataclass(frozen=True, kw_only=True)
class DropReport(Result):
    """A table without its incomplete rows: which were dropped, and how they differ from those kept.

    A part is a readable column, or ``column_level`` for one level of a text column: dropped minus kept rows,
    in pooled standard deviations, over `n_used` dropped rows where it is known; its figures are the means
    ``mean_kept`` and ``mean_dropped``, None where nothing is known.

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
    """

    frame: Any = unlisted()
    columns: tuple[str, ...]
    n_rows: int
    n_kept: int
    n_dropped: int
    by_column: Mapping[str, int]
    by_group: Mapping[str, tuple[int, int]]

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
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
    n, dropped = len(gone), int(gone.sum())
    found = DropReport(
        sentence="",
        frame=table.rows(~gone),
        columns=asked,
        n_rows=n,
        n_kept=n - dropped,
        n_dropped=dropped,
        by_column={name: read[name].n_missing for name in asked},
        by_group={} if by is None else _by_group(read[by], gone),
        parts=tuple(row for name in dict.fromkeys(shown) for row in _differences(read[name], gone)),
        axis="dropped minus kept rows (pooled standard deviations)",
    )
    return replace(found, sentence=_drop_sentence(found))


def _by_group(column: Column, gone: Bools) -> dict[str, tuple[int, int]]:
    values = zip(column.data.tolist(), column.missing.tolist(), strict=True)
    labels = ["(missing)" if absent else level_name(value) for value, absent in values]
    every, dropped = Counter(labels), Counter(compress(labels, gone))
    return {level: (dropped[level], every[level]) for level in sorted(every)}


def _differences(column: Column, gone: Bools) -> list[Estimate]:
    # A column of very many levels names rows, and has nothing to compare.
    if column.kind == "text" and len(column.levels) > 20:
        return []
    coded = column.coded(full=True)
    out = []
    for name, values in zip(coded.names, coded.matrix.T, strict=True):
        known = ~np.isnan(values)
        a, b = values[known & ~gone], values[known & gone]
        smd = None
        if len(a) > 1 and len(b) > 1:
            scale = float(np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2))
            smd = float((b.mean() - a.mean()) / scale) if scale > 0 else None
        means = [float(v.mean()) if len(v) else None for v in (a, b)]
        figures = dict(zip(("mean_kept", "mean_dropped"), means, strict=True))
        out.append(Estimate(label=name, estimate=smd, n_used=len(b), figures=figures))
    return out


def _drop_sentence(found: DropReport) -> str:
    n, dropped = found.n_rows, found.n_dropped
    if not dropped:
        return f"No row was dropped: all {n} are complete in {', '.join(map(repr, found.columns))}."
    reasons = ", ".join(f"{count} for {name!r}" for name, count in found.by_column.items() if count)
    words = f"{dropped} of {n} rows ({dropped / n:.1%}) were dropped for missing values ({reasons})."
    if found.by_group:
        counts = ", ".join(f"{a} of {b} in {g!r}" for g, (a, b) in found.by_group.items())
        words += f" By group: {counts}."
    apart = [d for d in found.parts if abs(d.estimate or 0) > 0.1]
    if apart:
        worst = sorted(apart, key=lambda d: -abs(d.estimate or 0))[:3]
        shown = ", ".join(
            f"{d.label!r} ({format_number(d.estimate, digits=2)} standard deviations)" for d in worst
        )
        words += (
            f" They differ from the rows kept in {shown}: what is found in the rest need not hold for them."
        )
    return words
