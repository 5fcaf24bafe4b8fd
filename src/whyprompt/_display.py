"""How a result shows itself where it stands by itself: a line in a console, a small table in a notebook."""

from __future__ import annotations

import html
import reprlib
import textwrap
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from whyprompt._words import format_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

# What a notebook shows of a table; the rest is in `to_frame`.
MOST_ROWS = 12
_MOST_COLUMNS = 10
_MOST_LETTERS = 80

Cells = tuple["Sequence[str]", "Sequence[Sequence[str]]"]
"""Titles of columns, and rows of text."""


class Shown:
    """What a class has that shows its sentence and a small table; it needs a `sentence`.

    Neither colours nor a background are set: a notebook's own hold, dark or light.
    """

    __slots__ = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - Python's own
        super().__init_subclass__(**kwargs)
        # A dataclass writes a `__repr__` of every field into each class that has none of its own.
        if "__repr__" not in vars(cls):
            cls.__repr__ = Shown.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {textwrap.shorten(self._brief(), 160, placeholder=' ...')}>"

    def __str__(self) -> str:
        return self._said()

    def _said(self) -> str:
        """Give the sentence."""
        return str(getattr(self, "sentence", ""))

    def _brief(self) -> str:
        """Say in a line what it holds."""
        return self._said()

    def _cells(self) -> Cells | None:
        """Give the small table, whole or its first rows; None where there is none."""
        return frame_cells(self.to_frame()) if hasattr(self, "to_frame") else None

    def _remarks(self) -> Sequence[str]:
        """Give what a reader must know beside the sentence."""
        return ()

    def summary(self) -> str:
        """Return the sentence and what must be known beside it, as text.

        Returns
        -------
        str
        """
        return "\n".join([self._said(), *self._remarks()])

    def _repr_html_(self) -> str:
        cells = self._cells()
        notes = "".join(f"<li>{_safe(text)}</li>" for text in self._remarks())
        table = "" if cells is None or not cells[1] else table_html(*cells)
        return f"<p>{_safe(self._said())}</p>{table}" + (f"<ul>{notes}</ul>" if notes else "")


def _safe(text: str) -> str:
    """Escape what stands between tags, where quotes mean nothing; its lines stay lines."""
    return html.escape(text, quote=False).replace("\n", "<br/>")


def table_html(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in HTML, of its first rows, with a line that says how many there are beside them.

    Examples
    --------
    >>> table_html(["arm"], [["<b>"]])[-31:]
    'op">&lt;b&gt;</td></tr></table>'
    """
    line = "padding:.15em .7em;border-top:1px solid rgba(128,128,128,.5)"

    def cell(kind: str, text: str, k: int) -> str:
        side = "left" if k == 0 else "right"
        return f'<{kind} style="{line};text-align:{side};vertical-align:top">{_safe(text)}</{kind}>'

    head = "".join(cell("th", title, k) for k, title in enumerate(titles))
    body = "".join(
        f"<tr>{''.join(cell('td', text, k) for k, text in enumerate(row))}</tr>" for row in rows[:MOST_ROWS]
    )
    more = len(rows) - MOST_ROWS
    rest = f"<p>and {more:,} more {'row' if more == 1 else 'rows'}</p>" if more > 0 else ""
    return (
        '<table style="border-collapse:collapse;font-variant-numeric:tabular-nums">'
        f"<tr>{head}</tr>{body}</table>{rest}"
    )


def frame_cells(frame: pd.DataFrame) -> Cells:
    """Give a frame as titles and text: numbers short, long text cut, columns beyond the tenth left out."""
    shown = frame.iloc[:, :_MOST_COLUMNS]
    first = shown.head(MOST_ROWS)
    rows = [[_text(value) for value in row] for row in first.itertuples(index=False, name=None)]
    # Rows that are not shown are only counted.
    rows += [[]] * (len(frame) - len(first))
    return [str(name) for name in shown.columns], rows


def _text(value: Any) -> str:  # noqa: ANN401 - a cell of any frame
    if value is None or (isinstance(value, float) and value != value):  # noqa: PLR0124 - NaN test
        return ""
    if isinstance(value, float):
        return format_number(value)
    return textwrap.shorten(str(value), _MOST_LETTERS, placeholder=" ...")


def told_repr(row: Any) -> str:  # noqa: ANN401 - a dataclass instance
    """Write a dataclass with the fields that are not as they are by default, long ones cut.

    Examples
    --------
    >>> from whyprompt import Estimate
    >>> Estimate(label="overall", estimate=0.25, std_error=0.1)
    Estimate(label='overall', estimate=0.25, std_error=0.1)
    """
    short = reprlib.Repr()
    short.maxother = short.maxstring = 80
    told = []
    for f in fields(row):
        value = getattr(row, f.name)
        default = f.default if f.default_factory is MISSING else f.default_factory()
        if f.repr and (default is MISSING or (value is not default and value != default)):
            told.append(f"{f.name}={short.repr(value)}")
    return f"{type(row).__name__}({', '.join(told)})"
