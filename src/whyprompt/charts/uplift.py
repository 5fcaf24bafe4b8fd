"""Charts of what choosing the arm item by item gains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt._words import format_number
from whyprompt.charts.rows import number, records
from whyprompt.charts.style import BLUE, VERMILION, coloured, data, layered, rule_at, span, title_lines, told

if TYPE_CHECKING:
    import altair as alt


def uplift_plot(
    frame: Any,  # noqa: ANN401 - any frame
    *,
    title: str = "gain a row",
    width: int = 560,
) -> alt.LayerChart:
    """Draw what the treated arm gains by the share of rows that get it: CausalML's curve beside ours.

    Parameters
    ----------
    frame : DataFrame or sequence of mappings
        Columns ``share``, ``CausalML``, ``whyprompt``, ``low``, ``high``; the last three may be None.
    title : str
        Of the axis, with its unit.

    Returns
    -------
    altair.LayerChart

    Raises
    ------
    EstimationError
        If the table is empty.

    Examples
    --------
    >>> chart = uplift_plot([{"share": 1.0, "CausalML": 0.5, "whyprompt": 0.4, "low": 0.1, "high": 0.7}])
    >>> chart.to_dict()["description"]
    'gain a row, by share treated. At 100%: CausalML 0.500, whyprompt 0.400 (0.100 to 0.700).'
    """
    import altair as alt

    lines: list[dict[str, Any]] = []
    bands: list[dict[str, Any]] = []
    said = ""
    table = sorted(
        records(frame, ("share", "CausalML", "whyprompt", "low", "high"), what="uplift_plot"),
        key=lambda r: float(r["share"]),
    )
    for row in table:
        share = float(row["share"])
        said = f"At {share:.0%}: "
        parts = []
        for tool in ("CausalML", "whyprompt"):
            value = number(row[tool])
            if value is None:
                continue
            text = f"{tool} {format_number(value)}"
            low, high = number(row["low"]), number(row["high"])
            if tool == "whyprompt" and low is not None and high is not None:
                bands.append({"share": share, "low": low, "high": high})
                text += f" ({span(low, high)})"
            parts.append(text)
            lines.append({"share": share, "tool": tool, "gain": value, "words": f"{share:.0%}: {text}"})
        said += ", ".join(parts)
    x = alt.X("share:Q", title="share of rows that get the treated arm", axis=alt.Axis(format="%"))
    y = alt.Y("gain:Q", title=title_lines(title, width))
    colour = coloured("tool", ["whyprompt", "CausalML"], [BLUE, VERMILION], title=None)
    base = alt.Chart(data(lines)).encode(x=x, color=colour)
    band = alt.Chart(data(bands)).mark_area(color=BLUE, opacity=0.2, aria=False)
    return layered(
        band.encode(x=x, y="low:Q", y2="high:Q"),
        rule_at(0.0, "y"),
        base.mark_line(aria=False).encode(y=y, strokeDash=alt.StrokeDash("tool:N", legend=None)),
        base.mark_point(filled=True, size=30).encode(y=y, **told()),
        description=f"{title}, by share treated. {said}.",
        width=width,
        height=260,
    )
