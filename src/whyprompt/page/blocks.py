"""What a page is made of: text, tables with exact values behind them, figures, sections that hold them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup

from whyprompt._words import format_number, p_words
from whyprompt.charts import render

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NO_NUMBER = ("", "n/a", "none", "no bound")
_LEAST_P = 1e-4
_NONE = Markup("")
# CSS pixels: the text column on a screen, and a phone of 390 less its margins.
WIDE, NARROW = 700, 346


@dataclass(frozen=True, slots=True)
class Text:
    """Words, by the kind of text they are; `label` is set in bold before them, `items` follow as a list."""

    text: str
    kind: Literal["para", "lead", "note", "verbatim"] = "para"
    label: str = ""
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """What is read, and behind it the exact number (of a token its shade, 0 to 1) and further words."""

    text: str
    value: float | None = None
    words: str = ""


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


def interval(row: Any) -> tuple[Cell, Cell, Cell]:  # noqa: ANN401 - an estimate, or a result
    """Make the cells of an estimate and its interval."""
    return num(row.estimate), num(row.ci_low), num(row.ci_high)


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
    return Table(caption, tuple(head), cells, name)


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture in two widths; each is an SVG element, or empty where none can be made.

    The marks of a ``"live"`` chart can be chosen; a ``"graph"`` has one width, and escapes its names itself.
    """

    name: str
    title: str
    caption: str
    alt: str
    wide: Markup
    narrow: Markup = _NONE
    kind: Literal["chart", "live", "graph"] = "chart"


Run = tuple[str, str, tuple[Cell, ...]]
"""Neighbouring tokens of one segment: its name, its colour, its tokens."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A chosen head: its effect by item, and its attention.

    `options` holds every head's number and name, the chosen one first. `items` are rows of item, task, effect
    (behind it its share of the largest) and total effect, and `order` their numbers in the sweep. `strips`
    are prompts with their tokens shaded by the head's attention: item, arm, runs of tokens, and of each
    segment the name, colour and share.
    """

    options: tuple[tuple[int, str], ...]
    words: str
    order: tuple[int, ...]
    items: Table
    strips: tuple[tuple[str, str, tuple[Run, ...], tuple[tuple[str, str, float], ...]], ...]
    mass: Table
    kind: str = "panel"


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks under a title: a part of the page, the answer, or details that open on demand.

    A part is folded, with its `gist` beside the title. ``"search"`` holds details that a reader may search,
    ``"sides"`` two ``"side"``s beside each other.
    """

    name: str
    title: str
    blocks: tuple[Block, ...] = ()
    kind: Literal["part", "answer", "details", "search", "sides", "side"] = "part"
    gist: str = ""


Block = Text | Figure | Panel | Table | Section


def suffixed(blocks: Sequence[Block], suffix: str) -> tuple[Block, ...]:
    """Give blocks whose tables have names of their own on a page that shows the same of several effects."""
    return tuple(
        replace(block, blocks=suffixed(block.blocks, suffix))
        if isinstance(block, Section)
        else replace(block, name=f"{block.name}{suffix}")
        if isinstance(block, Table) and block.name
        else block
        for block in blocks
    )


def worded(blocks: Sequence[Block], words: Callable[[str], str]) -> tuple[Block, ...]:
    """Put what results say beside their numbers into the words of where the page was asked for.

    Of tables that of the assumptions alone; what stands as it was written is left.
    """

    def cell(one: Cell) -> Cell:
        return replace(one, text=words(one.text))

    def block(one: Block) -> Block:
        if isinstance(one, Section):
            return replace(one, blocks=worded(one.blocks, words))
        if isinstance(one, Text) and one.kind != "verbatim":
            return replace(one, text=words(one.text), items=tuple(map(words, one.items)))
        if isinstance(one, Table) and one.head[:1] == ("assumption",):
            return replace(one, rows=tuple(tuple(map(cell, row)) for row in one.rows))
        return one

    return tuple(map(block, blocks))


def details(title: str, *blocks: Block) -> Section:
    """Put blocks where they open on demand."""
    return Section("", title, blocks, "details")


def draw(
    name: str,
    title: str,
    make: Callable[[int], Any],
    *,
    caption: str = "",
    live: bool = False,
    narrow: bool = True,
) -> Figure:
    """Draw a chart, which `make` gives for a width in pixels; without `narrow` phones scroll the wide one.

    `name` is unique on the page.
    """
    wide = make(WIDE)
    alt = str(wide.to_dict()["description"])
    return Figure(
        name=name,
        title=title,
        caption=caption,
        alt=alt,
        wide=_svg(wide, f"{name}-w", alt, live=live),
        narrow=_svg(make(NARROW), f"{name}-n", alt, live=live) if narrow else _NONE,
        kind="live" if live else "chart",
    )


def _svg(chart: Any, prefix: str, alt: str, *, live: bool) -> Markup:  # noqa: ANN401 - a chart
    if not render.can_render():
        return _NONE
    svg = render.inline_svg(chart, prefix=prefix, interactive=live)
    # A picture to a screen reader, except where its marks are buttons.
    role = "group" if live else "img"
    start = svg.index("<svg") + 4
    return Markup(f'{svg[:start]} role="{role}" aria-label="{Markup.escape(alt)}"{svg[start:]}')  # noqa: S704 - our own SVG
