"""What a page is made of: paragraphs, tables with exact values behind them, figures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from whyprompt._words import format_number, p_words
from whyprompt.charts.render import can_render, inline_svg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "Answer",
    "Artist",
    "Block",
    "Cell",
    "Details",
    "Figure",
    "Graph",
    "ItemRow",
    "Lines",
    "Note",
    "Panel",
    "Para",
    "Section",
    "Strip",
    "Table",
    "Token",
    "Verbatim",
    "count",
    "num",
    "p_value",
    "table",
]

_NO_NUMBER = ("", "n/a", "none", "no bound")
_LEAST_P = 1e-4
# CSS pixels: the text column on a screen, and a phone of 390 less its margins.
WIDE, NARROW = 700, 346


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: what is read, and the number behind it."""

    text: str
    value: float | None = None


def num(value: float | None, *, digits: int = 3, percent: bool = False) -> Cell:
    """Make a cell of a number; it keeps the exact value."""
    if value is None or not math.isfinite(value):
        return Cell("n/a")
    plain = float(value)
    return Cell(f"{plain:.0%}" if percent else format_number(plain, digits=digits).replace("-", "−"), plain)


def count(value: float) -> Cell:
    """Make a cell of a count, or of another number that is written as it is."""
    return Cell(f"{value:g}", float(value))


def p_value(value: float | None) -> Cell:
    """Make a cell of a p-value; it keeps the exact one."""
    if value is None or not math.isfinite(value):
        return Cell("n/a")
    return Cell(f"< {_LEAST_P:g}" if value < _LEAST_P else p_words(value), float(value))


@dataclass(frozen=True, slots=True)
class Para:
    """A paragraph."""

    text: str
    kind: str = "para"


@dataclass(frozen=True, slots=True)
class Note:
    """A remark set apart; `tone` is ``"note"`` or ``"warning"``."""

    text: str
    tone: str = "note"
    kind: str = "note"


@dataclass(frozen=True, slots=True)
class Lines:
    """A list."""

    items: tuple[str, ...]
    kind: str = "lines"


@dataclass(frozen=True, slots=True)
class Verbatim:
    """Text as it is: a prompt, a command, a file."""

    text: str
    label: str = ""
    kind: str = "verbatim"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer, its strength, and what stands inside the model."""

    sentence: str
    headline: str
    reasons: tuple[str, ...]
    inside: str
    kind: str = "answer"


@dataclass(frozen=True, slots=True)
class Graph:
    """The causal graph; `svg` is drawn by `whyprompt.graph`, which escapes its names."""

    svg: Markup
    kind: str = "graph"


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One item's line in the panel of a chosen head; `bar` places its bar, in percent of the cell."""

    number: int
    item: str
    task: str
    effect: str
    total: str
    bar: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a strip: its text, its shade from 0 to 1, and its words."""

    text: str
    shade: float
    words: str


@dataclass(frozen=True, slots=True)
class Strip:
    """One prompt's tokens, in runs of one segment, shaded by one head's attention."""

    item: str
    arm: str
    runs: tuple[tuple[str, str, tuple[Token, ...]], ...]
    mass: tuple[tuple[str, str, float], ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """A chosen head: its effect by item and its attention."""

    options: tuple[tuple[int, str], ...]
    chosen: int
    words: str
    rows: tuple[ItemRow, ...]
    strips: tuple[Strip, ...]
    arms: tuple[str, str]
    mass: tuple[tuple[str, str, str], ...]
    n_items: int
    kind: str = "panel"


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first column heads its rows."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    name: str = ""
    kind: str = "table"

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Whether each column holds numbers."""
        columns = zip(*self.rows, strict=True)
        return tuple(
            any(c.value is not None for c in column)
            and all(c.value is not None or c.text in _NO_NUMBER for c in column)
            for column in columns
        ) or (False,) * len(self.head)


def table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[Cell | str]], *, name: str = ""
) -> Table:
    """Make a table out of cells and plain texts."""
    cells = tuple(tuple(c if isinstance(c, Cell) else Cell(str(c)) for c in row) for row in rows)
    return Table(caption=caption, head=tuple(head), rows=cells, name=name)


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart in two widths; each is an SVG element, or empty where no picture can be made."""

    name: str
    title: str
    caption: str
    alt: str
    wide: Markup
    narrow: Markup
    interactive: bool = False
    kind: str = "figure"


@dataclass(frozen=True, slots=True)
class Details:
    """Blocks that open on demand."""

    summary: str
    blocks: tuple[Block, ...]
    kind: str = "details"


Block = Para | Note | Lines | Verbatim | Answer | Graph | Panel | Table | Figure | Details


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the page."""

    name: str
    title: str
    blocks: tuple[Block, ...] = field(default=())


class Artist:
    """Draws charts for a page, where pictures can be made."""

    def __init__(self) -> None:
        self.able = can_render()

    def figure(
        self,
        name: str,
        title: str,
        make: Callable[[int], Any],
        *,
        caption: str = "",
        interactive: bool = False,
        narrow: bool = True,
    ) -> Figure:
        """Draw one chart at both widths.

        Parameters
        ----------
        name : str
            Unique on the page.
        title, caption : str
        make : callable
            From a width in pixels to a chart.
        interactive : bool
            Whether its marks can be chosen.
        narrow : bool
            Whether phones get a drawing of their own; else the wide one scrolls.
        """
        wide = make(WIDE)
        alt = str(wide.to_dict()["description"])
        slim = self._svg(make(NARROW), f"{name}-n", alt, interactive=interactive) if narrow else Markup("")
        return Figure(
            name=name,
            title=title,
            caption=caption,
            alt=alt,
            wide=self._svg(wide, f"{name}-w", alt, interactive=interactive),
            narrow=slim,
            interactive=interactive,
        )

    def _svg(self, chart: Any, prefix: str, alt: str, *, interactive: bool) -> Markup:  # noqa: ANN401 - a chart
        if not self.able:
            return Markup("")
        svg = inline_svg(chart, prefix=prefix, interactive=interactive)
        # A picture to a screen reader, except where its marks are buttons.
        role = "group" if interactive else "img"
        label = Markup.escape(alt)
        start = svg.index("<svg") + 4
        return Markup(f'{svg[:start]} role="{role}" aria-label="{label}"{svg[start:]}')  # noqa: S704 - our own SVG
