"""The look that all charts share, and how values get into them.

For a chart of your own that is to sit beside these: `data` puts rows into it, `finish` gives it the look, and
the colours are those of Okabe and Ito.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from whyprompt._words import format_number
from whyprompt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import altair as alt

_Chart = TypeVar("_Chart")


# Okabe and Ito (2008), Color Universal Design: told apart under every common colour blindness.
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, GREY = "#56B4E9", "#CC79A7", "#8A8F98"
# The page's style sheet finds these three by their values and gives them the colours of dark mode.
INK, MUTED, GRID = "#1B1F24", "#57606A", "#D8DEE4"
# Nearly clear in the middle, so that zero is the background's colour, whichever that is.
DIVERGING = (BLUE, "rgba(138,143,152,0.10)", VERMILION)


def finish(chart: _Chart, *, description: str, width: int | None = None, height: int | None = None) -> _Chart:
    """Give a chart the shared look and its description.

    Parameters
    ----------
    chart : altair chart
    description : str
        What it shows, for those who do not see it.
    width, height : int, optional
        Of the whole picture, labels and all, in pixels. A chart that has its width already is that wide
        without its labels.

    Returns
    -------
    altair chart
        Of the same type.

    Examples
    --------
    >>> import altair as alt
    >>> bars = alt.Chart(data([{"task": "sum", "items": 3}])).mark_bar(color=BLUE)
    >>> chart = finish(bars.encode(x="items:Q", y="task:N"), description="Items of each task", width=300)
    >>> chart.to_dict()["description"]
    'Items of each task'
    """
    shown: Any = chart
    if width is not None:
        shown = shown.properties(width=width, autosize={"type": "fit-x", "contains": "padding"})
    if height is not None:
        shown = shown.properties(height=height)
    width = getattr(shown, "width", None)
    # One label about every 95 pixels: closer ones run into each other.
    ticks = max(3, width // 95) if isinstance(width, int) else 6
    text = {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontWeight": "normal"}
    shown = shown.properties(description=description, background="#FFFFFF").configure(
        font="sans-serif",
        view={"stroke": None},
        axis={
            **text,
            "gridColor": GRID,
            "domainColor": MUTED,
            "tickColor": MUTED,
            "titleFontSize": 12,
            "titlePadding": 8,
            "labelLimit": 260,
            "labelOverlap": "greedy",
            "labelSeparation": 5,
        },
        axisXQuantitative={"tickCount": ticks},
        legend={
            # Symbols of a scale without colours would be black, on a dark page too.
            "symbolBaseFillColor": MUTED,
            "symbolBaseStrokeColor": MUTED,
            "symbolOpacity": 1,
            **text,
            "titleFontSize": 12,
            "labelLimit": 320,
        },
        header=text,
        title={"color": INK, "fontSize": 13, "fontWeight": "normal", "anchor": "start"},
        text={"color": INK},
    )
    out: _Chart = shown
    return out


def layered(*layers: Any, description: str, width: int, height: int) -> alt.LayerChart:  # noqa: ANN401 - charts
    """Lay charts over each other, the first at the bottom, and finish them."""
    import altair as alt

    out: alt.LayerChart = finish(
        cast("alt.LayerChart", alt.layer(*layers)), description=description, width=width, height=height
    )
    return out


def told() -> dict[str, Any]:
    """Let marks say the ``words`` of their rows, on hover and to a screen reader."""
    import altair as alt

    return {"tooltip": alt.Tooltip("words:N", title=" "), "description": "words:N"}


def coloured(
    column: str,
    names: Sequence[str],
    colours: Sequence[str],
    *,
    title: str | None,
    columns: int | None = None,
) -> alt.Color:
    """Give each name in a column its colour, with a legend above the picture, of so many columns."""
    import altair as alt

    scale = alt.Scale(domain=names, range=colours)
    legend = alt.Legend(orient="top") if columns is None else alt.Legend(orient="top", columns=columns)
    return alt.Color(f"{column}:N", title=title, scale=scale, legend=legend)


def shaped(column: str, names: Sequence[str], *, title: str | None) -> alt.Shape:
    """Give the two names in a column their shapes: a diamond for what is marked, a circle for the rest."""
    import altair as alt

    scale = alt.Scale(domain=names, range=["diamond", "circle"])
    return alt.Shape(f"{column}:N", title=title, scale=scale)


def rule_at(at: float = 0.0, along: Literal["x", "y"] = "x", *, dashed: bool = True) -> alt.Chart:
    """Draw a grey line at one value of an axis."""
    import altair as alt

    dash: dict[str, Any] = {"strokeDash": [4, 3]} if dashed else {}
    rule = alt.Chart(data([{"at": at}])).mark_rule(color=MUTED, aria=False, **dash)
    out: alt.Chart = rule.encode(**{along: "at:Q"})
    return out


def data(rows: Iterable[Mapping[str, Any]]) -> alt.InlineData:
    """Put rows into a chart as plain values; a number that is not finite is an error, None stays absent.

    Parameters
    ----------
    rows : iterable of mapping
        Column to value, a row each.

    Returns
    -------
    altair.InlineData

    Raises
    ------
    DataError
        If a number is not finite.
    """
    import altair as alt

    values = [{str(k): finite(v, str(k)) for k, v in row.items()} for row in rows]
    return alt.InlineData(values=values)


def finite(value: Any, name: str) -> Any:  # noqa: ANN401 - any cell
    """Give a cell as Python's own type; a number that is not finite is refused by its column's name."""
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, float) and not math.isfinite(plain):
        raise DataError(
            f"the chart's column {name!r} holds {plain}", hint="draw finite numbers; None is an absent one"
        )
    return plain


def span(low: float | None, high: float | None) -> str:
    """Write an interval in words."""
    if low is None or high is None or not math.isfinite(high - low):
        return "no interval"
    return f"{format_number(low)} to {format_number(high)}"


def title_lines(text: str, width: int) -> list[str]:
    """Break an axis title so that a picture of so many pixels does not cut it."""
    import textwrap

    return textwrap.wrap(text, max(24, (width - 130) // 6))


def wrap(words: Sequence[str], limit: int = 4) -> str:
    """List a few names and say how many more there are.

    Examples
    --------
    >>> wrap(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    shown = ", ".join(words[:limit])
    return shown if len(words) <= limit else f"{shown} and {len(words) - limit} more"
