"""The picture of paths from head to head."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from whyprompt._words import format_number
from whyprompt.charts.rows import number, records
from whyprompt.charts.style import BLUE, INK, MUTED, VERMILION, coloured, data, layered, span, told
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import altair as alt

_MOST = 12
_SHIFTS = (0.0, 0.45, -0.3, 0.6, -0.5)
_ARROW = " -> "
_UP, _DOWN = "raises", "lowers"
_SURE, _UNSURE = "told from zero", "not told from zero"


def path_plot(
    frame: Any,  # noqa: ANN401 - any frame
    heads: Mapping[str, float],
    *,
    title: str,
    width: int = 620,
) -> alt.LayerChart:
    """Draw paths from head to head, from the lower layers on the left to the higher ones on the right.

    Parameters
    ----------
    frame : DataFrame or sequence of mappings
        Columns ``path`` (``"3.1 -> 7.0"``, layer.head from the lowest layer up), ``estimate``, ``low``,
        ``high`` (absent where None) and ``sure`` (whether it is told from zero). Of more than 12 paths the
        12 largest are drawn.
    heads : mapping of str to float
        Effects of single heads, by ``"layer.head"``, which their circles show.
    title : str
        What the effects are, with their unit.
    width : int

    Returns
    -------
    altair.LayerChart
        A line is thicker the larger its effect, by one measure with the circles; broken where it is not told
        from zero; and its colour says whether the effect is positive.

    Raises
    ------
    EstimationError
        If there is no path to draw.

    Examples
    --------
    >>> row = {"path": "0.1 -> 1.2", "estimate": 0.4, "low": 0.1, "high": 0.7, "sure": True}
    >>> path_plot([row], {"1.2": 0.5}, title="NIE").to_dict()["description"]
    'Paths from head to head, NIE. 0.1 -> 1.2: 0.400 (0.100 to 0.700), told from zero.'
    """
    import altair as alt

    table = records(frame, ("path", "estimate", "low", "high", "sure"), what="path_plot")
    known = [row for row in table if number(row["estimate"]) is not None]
    if not known:
        raise EstimationError("there is no path to draw")
    known.sort(key=lambda row: -abs(float(row["estimate"])))
    drawn = known[:_MOST]
    names = dict.fromkeys(head for row in drawn for head in str(row["path"]).split(_ARROW))
    at = _places(list(names))
    edges, words = [], []
    for row in drawn:
        way = str(row["path"]).split(_ARROW)
        low, high = (number(row[k]) for k in ("low", "high"))
        value = float(row["estimate"])
        ends = "" if low is None or high is None else f" ({span(low, high)})"
        sure = _SURE if row["sure"] else _UNSURE
        words.append(f"{row['path']}: {format_number(value)}{ends}, {sure}")
        for a, b in pairwise(way):
            edges.append(
                {
                    "layer": at[a][0],
                    "y": at[a][1],
                    "to": at[b][0],
                    "y2": at[b][1],
                    "size": abs(value),
                    "sign": _UP if value >= 0 else _DOWN,
                    "sure": sure,
                    "words": words[-1],
                }
            )
    nodes = []
    for name, (layer, y) in at.items():
        own = heads.get(name)
        said = name if own is None else f"{name}: {format_number(own)} by itself"
        nodes.append({"layer": layer, "y": y, "head": name, "own": abs(own or 0.0), "words": said})
    layers = sorted({layer for layer, _ in at.values()})
    # One measure of both: paths that are nothing beside what the heads do are thin.
    sizes = [abs(float(row["estimate"])) for row in drawn] + [abs(heads.get(name, 0.0)) for name in at]
    most = max(sizes) or 1.0
    # A domain, not an order: orders of several layers of marks are merged, and lost.
    scale = alt.Scale(domain=layers, padding=0.6)
    x = alt.X("layer:O", title="layer", scale=scale, axis=alt.Axis(labelAngle=0))
    height = alt.Y("y:Q", axis=None, scale=alt.Scale(zero=False, padding=24))
    dash = alt.StrokeDash(
        "sure:N",
        title=None,
        scale=alt.Scale(domain=[_SURE, _UNSURE], range=[[1, 0], [4, 4]]),
        legend=alt.Legend(orient="top"),
    )
    lines = (
        alt.Chart(data(edges))
        .mark_rule(opacity=0.8)
        .encode(
            x=x,
            y=height,
            x2="to:O",
            y2="y2:Q",
            color=coloured("sign", [_UP, _DOWN], [VERMILION, BLUE], title=None),
            strokeDash=dash,
            strokeWidth=alt.StrokeWidth(
                "size:Q", legend=None, scale=alt.Scale(domain=[0, most], range=[0.8, 8])
            ),
            **told(),
        )
    )
    base = alt.Chart(data(nodes)).encode(x=x, y=height)
    dots = base.mark_point(filled=True, color=MUTED, opacity=1).encode(
        size=alt.Size("own:Q", legend=None, scale=alt.Scale(domain=[0, most], range=[60, 400])), **told()
    )
    labels = base.mark_text(dy=-18, color=INK, fontSize=12, aria=False).encode(text="head:N")
    text = f"Paths from head to head, {title}. " + "; ".join(words) + "."
    if len(known) > len(drawn):
        text += f" The {len(drawn)} largest of {len(known)} are drawn."
    return layered(lines, dots, labels, description=text, width=width, height=120 + 34 * _tallest(at))


def _places(names: list[str]) -> dict[str, tuple[int, float]]:
    """Place each head: its layer, and a height that few lines between others pass."""
    by_layer: dict[int, list[str]] = {}
    for name in sorted(names, key=lambda n: tuple(map(int, n.split(".")))):
        by_layer.setdefault(int(name.split(".")[0]), []).append(name)
    return {
        name: (layer, (len(own) - 1) / 2 - k + _SHIFTS[rank % len(_SHIFTS)])
        for rank, (layer, own) in enumerate(by_layer.items())
        for k, name in enumerate(own)
    }


def _tallest(at: dict[str, tuple[int, float]]) -> int:
    layers = [layer for layer, _ in at.values()]
    return max(layers.count(layer) for layer in layers)
