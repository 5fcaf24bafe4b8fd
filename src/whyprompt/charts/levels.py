"""Charts of attention over tokens, and of the two levels side by side."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted, format_number
from whyprompt.charts.heads import colours, position
from whyprompt.charts.rows import records
from whyprompt.charts.style import (
    BLUE,
    GREY,
    INK,
    MUTED,
    VERMILION,
    coloured,
    data,
    layered,
    shaped,
    span,
    title_lines,
    told,
)
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import altair as alt

_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "stroke")
_LINES = 60


def segment_colours(segments: Sequence[str]) -> dict[str, str]:
    """Give each named segment a colour, in the order in which they appear."""
    names = [s for s in dict.fromkeys(segments) if s]
    return dict(zip(names, colours(len(names)), strict=True))


def attention_plot(
    picture: Any,  # noqa: ANN401 - tokens and weights
    head: tuple[int, int],
    *,
    width: int = 680,
    labels: int = 6,
) -> alt.LayerChart:
    """Draw where one head looks from the answer positions, token by token, coloured by segment.

    Parameters
    ----------
    picture : HeadCapture
        One item's attention under one arm; tokens that are not decoded are shown by their numbers.
    head : (layer, head)
    labels : int, default 6
        Tokens that carry their text: those with the largest weights.

    Returns
    -------
    altair.LayerChart

    Raises
    ------
    MediationError
        If the picture has no such head.
    """
    import altair as alt

    at = position(picture.heads, head, "the attention picture")
    weight = picture.mean_weights[at]
    tokens = picture.tokens or tuple(map(str, picture.token_ids))
    top = set(np.argsort(-weight, kind="stable")[:labels].tolist())
    rows: list[dict[str, Any]] = [
        {
            "position": i,
            "next": i + 1,
            "weight": float(weight[i]),
            "segment": segment or "no segment",
            "label": token.strip() or "space" if i in top else "",
            "words": f"token {i}, {token!r}, {segment or 'no segment'}: weight {weight[i]:.3f}",
        }
        for i, (token, segment) in enumerate(zip(tokens, picture.segments, strict=True))
    ]
    shades = segment_colours(picture.segments)
    if any(r["segment"] == "no segment" for r in rows):
        shades["no segment"] = GREY
    base = alt.Chart(data(rows))
    x = alt.X("position:Q", title="token of the prompt", scale=alt.Scale(domain=[0, len(rows)], nice=False))
    columns = 5 if width >= 500 else 3
    colour = coloured("segment", list(shades), list(shades.values()), title="segment", columns=columns)
    y = alt.Y("weight:Q", title="attention weight")
    bars = base.mark_rect().encode(x=x, x2="next:Q", y=y, y2=alt.datum(0), color=colour, **told())
    strip = base.mark_rect(height=6, aria=False).encode(x=x, x2="next:Q", y=alt.datum(-0.015), color=colour)
    text = (
        base.transform_filter("datum.label")
        .mark_text(dy=-7, fontSize=11, color=INK, aria=False)
        .encode(x=x, y=y, text="label:N")
    )
    mass: dict[str, float] = {}
    for row in rows:
        mass[row["segment"]] = mass.get(row["segment"], 0.0) + row["weight"]
    said = ", ".join(f"{name} {value:.0%}" for name, value in sorted(mass.items(), key=lambda m: -m[1]))
    return layered(
        bars,
        strip,
        text,
        description=f"Attention of head {head[0]}.{head[1]} on item {picture.item_id} under "
        f"{picture.arm}, by segment: {said}.",
        width=width,
        height=190,
    )


def statistical_vs_interventional(
    comparison: Any,  # noqa: ANN401 - or any frame
    *,
    width: int = 520,
) -> alt.LayerChart:
    """Draw the mediated effect that statistics claims for each head against that of intervention.

    Parameters
    ----------
    comparison : DataFrame or sequence of mappings
        ``to_frame()`` of what `compare_mediation` gives; or columns ``layer``, ``head``, ``acme``,
        ``acme_low``, ``acme_high``,
        ``nie``, ``nie_low``, ``nie_high`` and, where it is known, ``disagree``. Without it heads are
        told apart by whether their two intervals meet. A head without an ``acme`` (None or NaN) is counted
        in the description and not drawn.

    Returns
    -------
    altair.LayerChart
        Heads on the diagonal are those where the two agree.

    Raises
    ------
    EstimationError
        If no head has both effects.
    """
    import altair as alt

    keys = ("acme", "acme_low", "acme_high", "nie", "nie_low", "nie_high")
    table = records(comparison, ("layer", "head", *keys), what="statistical_vs_interventional")
    kept = [row for row in table if row["acme"] is not None and row["acme"] == row["acme"]]
    if not kept:
        raise EstimationError("no head has a statistical effect to draw")
    known = "disagree" in kept[0]
    states = ["differ", "not told apart"] if known else ["intervals apart", "intervals meet"]
    rows = [_both(row, keys, states, known=known) for row in kept]
    x = alt.X("nie:Q", title="interventional NIE")
    y = alt.Y("acme:Q", title="statistical ACME")
    colour = coloured("state", states, [VERMILION, BLUE], title="the two")
    # Those that differ last, on top of the others.
    base = alt.Chart(data(sorted(rows, key=lambda r: r["state"] == states[0]))).encode(color=colour)
    # The lines of all heads of a large model would be a blot: those of heads that differ, and of the largest.
    size = sorted((abs(r["acme"]) + abs(r["nie"]) for r in rows), reverse=True)[:_LINES][-1]
    lined = [r for r in rows if r["state"] == states[0] or abs(r["acme"]) + abs(r["nie"]) >= size]
    lines = alt.Chart(data(lined)).encode(color=colour)
    across = lines.mark_rule(opacity=0.2, aria=False).encode(x=alt.X("nie_low:Q"), x2="nie_high:Q", y=y)
    down = lines.mark_rule(opacity=0.2, aria=False).encode(x=x, y=alt.Y("acme_low:Q"), y2="acme_high:Q")
    dots = base.mark_point(filled=True, size=45, opacity=0.85).encode(
        x=x, y=y, shape=shaped("state", states, title="the two"), **told()
    )
    top = sorted(rows, key=lambda r: -abs(r["acme"]) - abs(r["nie"]))[:4]
    labels = (
        alt.Chart(data(top))
        .mark_text(align="left", dx=6, dy=-6, fontSize=11, color=INK, aria=False)
        .encode(x=x, y=y, text="name:N")
    )
    # Where the two axes overlap: the line must not stretch them.
    inner = (
        max(min(r["nie_low"] for r in rows), min(r["acme_low"] for r in rows)),
        min(max(r["nie_high"] for r in rows), max(r["acme_high"] for r in rows)),
    )
    apart, lost = sum(r["state"] == states[0] for r in rows), len(table) - len(rows)
    words = f"Statistical against interventional mediation for {counted(len(rows), 'head')}: in {apart} " + (
        "the two differ." if known else "their intervals do not meet."
    )
    words += f" {counted(lost, 'head has', 'heads have')} no statistical effect." if lost else ""
    layers = (_diagonal(inner), across, down, dots, labels)
    return layered(*layers, description=words, width=width, height=360)


def _both(row: Mapping[str, Any], keys: Sequence[str], states: list[str], *, known: bool) -> dict[str, Any]:
    values = {k: float(row[k]) for k in keys}
    meet = values["acme_low"] <= values["nie_high"] and values["nie_low"] <= values["acme_high"]
    differ = bool(row["disagree"]) if known else not meet
    name = f"{int(row['layer'])}.{int(row['head'])}"
    words = (
        f"head {name}: statistical {format_number(values['acme'])} "
        f"({span(values['acme_low'], values['acme_high'])}), interventional "
        f"{format_number(values['nie'])} ({span(values['nie_low'], values['nie_high'])})"
    )
    for side in ("acme", "nie"):
        # An interval that the items do not bound has no line.
        if not math.isfinite(values[f"{side}_high"] - values[f"{side}_low"]):
            values[f"{side}_low"] = values[f"{side}_high"] = values[side]
    return {**values, "state": states[0 if differ else 1], "words": words, "name": name}


def _diagonal(values: Sequence[float]) -> Any:  # noqa: ANN401 - a chart
    import altair as alt

    ends = data({"at": end} for end in (min(values), max(values)))
    return alt.Chart(ends).mark_line(color=MUTED, strokeDash=[4, 3], aria=False).encode(x="at:Q", y="at:Q")


def levels_plot(frame: Any, *, outcome: str = "the outcome", width: int = 520) -> alt.LayerChart:  # noqa: ANN401 - any frame
    """Draw each item's effect as the trials give it against its total effect inside the model.

    Parameters
    ----------
    frame : DataFrame or sequence of mappings
        Columns ``item_id``, ``task``, ``external``, ``internal``.
    outcome : str
        For the axes.

    Returns
    -------
    altair.LayerChart
    """
    import altair as alt

    rows: list[dict[str, Any]] = [
        {
            "task": str(r["task"]),
            "external": float(r["external"]),
            "internal": float(r["internal"]),
            "words": f"{r['item_id']}: {format_number(float(r['external']))} in the trials, "
            f"{format_number(float(r['internal']))} inside the model",
        }
        for r in records(frame, ("item_id", "task", "external", "internal"), what="levels_plot")
    ]
    tasks = sorted({r["task"] for r in rows})
    shapes = [_SHAPES[i % len(_SHAPES)] for i in range(len(tasks))]
    dots = (
        alt.Chart(data(rows))
        .mark_point(filled=True, size=60, opacity=0.9)
        .encode(
            x=alt.X("external:Q", title=title_lines(f"change in {outcome} in the trials", width)),
            y=alt.Y("internal:Q", title=f"effect on {outcome} inside the model"),
            color=coloured(
                "task", tasks, colours(len(tasks)), title="task", columns=3 if width >= 500 else 2
            ),
            shape=alt.Shape("task:N", title="task", scale=alt.Scale(domain=tasks, range=shapes)),
            **told(),
        )
    )
    gap = max(abs(r["external"] - r["internal"]) for r in rows)
    return layered(
        _diagonal([r[k] for r in rows for k in ("external", "internal")]),
        dots,
        description=f"{counted(len(rows), 'item')}: effect in the trials against total effect inside the"
        f" model; the largest difference between the two is {format_number(gap)}.",
        width=width,
        height=320,
    )
