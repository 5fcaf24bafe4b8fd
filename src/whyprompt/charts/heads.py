"""Charts of the internal level: heads, layers, sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted, format_number
from whyprompt.charts.style import (
    BLUE,
    DIVERGING,
    GREEN,
    GREY,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    coloured,
    data,
    layered,
    rule_at,
    shaped,
    span,
    title_lines,
    told,
)
from whyprompt.errors import MediationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import altair as alt

_PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, GREY)
_NAMES = {"nie": "NIE", "nde": "NDE", "pure_nie": "pure NIE", "total_nde": "total NDE"}


def head_words(inference: Any, at: int) -> str:  # noqa: ANN401 - arrays over heads
    """Say what one head does, in the words that every mark of it carries."""
    name = _NAMES.get(inference.quantity, inference.quantity)
    part = inference.parts[at]
    return (
        f"{part.label}: {name} {format_number(part.estimate)} ({span(*part.ends)}), "
        f"q {format_number(float(inference.q_value[at]), digits=2)}, family-wise p "
        f"{format_number(part.p_adjusted, digits=2)}"
    )


def _end(value: float) -> float | None:
    """Give one end of an interval; where the items do not bound it, nothing is drawn."""
    return float(value) if np.isfinite(value) else None


def unit_of(inference: Any, outcome: str) -> str:  # noqa: ANN401 - arrays over heads
    """Name what an effect is measured in."""
    return f"{_NAMES.get(inference.quantity, inference.quantity)} on {outcome}"


def states_of(inference: Any) -> list[str]:  # noqa: ANN401 - arrays over heads
    """Name the two states of a mark: below the level, or not."""
    return [f"q < {inference.alpha:g}", "not marked"]


def marked_of(inference: Any, at: int) -> dict[str, Any]:  # noqa: ANN401 - arrays over heads
    """Give a head's effect with its interval, and whether its q is below the level."""
    part, sure = inference.parts[at], inference.q_value[at] < inference.alpha
    low, high = map(_end, part.ends)
    state = states_of(inference)[0 if sure else 1]
    return {"effect": float(part.estimate), "low": low, "high": high, "sure": state}


def head_heatmap(
    inference: Any,  # noqa: ANN401 - arrays over heads
    *,
    outcome: str = "the outcome",
    transpose: bool = False,
    width: int = 680,
    cell: int = 17,
) -> alt.LayerChart:
    """Draw every head's mean effect, layer by head, with a dot where its q-value is below the level.

    Parameters
    ----------
    inference : HeadInference
        From `infer_heads` or `contrast_heads`. The interval of a head is shown on hover.
    outcome : str
        What the effect is on, for the legend.
    transpose : bool, default False
        Layers downwards instead of to the right: for narrow screens.
    cell : int, default 17
        Height of a cell, in pixels.

    Returns
    -------
    altair.LayerChart
    """
    import altair as alt

    rows: list[dict[str, Any]] = [
        {
            "layer": layer,
            "head": head,
            "effect": float(inference.mean[i]),
            "mark": bool(inference.q_value[i] < inference.alpha),
            "words": head_words(inference, i),
        }
        for i, (kind, layer, head) in enumerate(inference.sites)
        if kind == "head"
    ]
    most = max(abs(r["effect"]) for r in rows) or 1.0
    across, down = ("head", "layer") if transpose else ("layer", "head")
    places = {name: sorted({r[name] for r in rows}) for name in (across, down)}

    def side(name: str) -> dict[str, Any]:
        marks = places[name][:: max(1, round(len(places[name]) / 16))]
        axis = alt.Axis(labelAngle=0, ticks=False, domain=False, values=marks)
        return {"shorthand": f"{name}:O", "title": name, "sort": places[name], "axis": axis}

    base = alt.Chart(data(rows)).encode(x=alt.X(**side(across)), y=alt.Y(**side(down)))
    cells = base.mark_rect(stroke="transparent").encode(
        color=alt.Color(
            "effect:Q",
            title=unit_of(inference, outcome),
            scale=alt.Scale(domain=[-most, 0, most], range=list(DIVERGING), interpolate="rgb"),
            legend=alt.Legend(orient="top", gradientLength=min(260, width - 90), format=".2~g", tickCount=5),
        ),
        **told(),
    )
    dots = (
        base.transform_filter("datum.mark")
        .mark_point(filled=True, size=22, color=INK, opacity=1, aria=False)
        .encode(tooltip=alt.Tooltip("words:N", title=" "))
    )
    marked = sum(r["mark"] for r in rows)
    at = [i for i, site in enumerate(inference.sites) if site.kind == "head"]
    best = at[int(np.argmax(np.abs(inference.mean[at])))]
    return layered(
        cells,
        dots,
        description=f"Heat map of {counted(len(rows), 'head')}. The largest effect is that of "
        f"{head_words(inference, best)}. {counted(marked, 'head is', 'heads are')} marked:"
        f" q < {inference.alpha:g}.",
        width=width,
        height=cell * len(places[down]),
    )


def layer_plot(inference: Any, *, outcome: str = "the outcome", width: int = 680) -> alt.LayerChart:  # noqa: ANN401 - arrays over heads
    """Draw the effects of the heads by layer.

    Parameters
    ----------
    inference : HeadInference
        From `infer_heads`, or over layers from a sweep of layers.
    outcome : str
        What the effect is on, for the axis.

    Returns
    -------
    altair.LayerChart

    Notes
    -----
    Heads are drawn one by one, not added up: their sum is not the layer's joint effect (see `joint_plot`).
    """
    import altair as alt

    rows: list[dict[str, Any]] = [
        {"layer": layer, **marked_of(inference, i), "words": head_words(inference, i)}
        for i, (kind, layer, _) in enumerate(inference.sites)
        if kind == "head"
    ]
    states = states_of(inference)
    top = sorted(range(len(rows)), key=lambda i: -abs(rows[i]["effect"]))[:5]
    named = [{**rows[i], "name": "{}.{}".format(*inference.heads[i])} for i in sorted(top)]
    x = alt.X("layer:Q", title="layer", scale=alt.Scale(nice=False, padding=10), axis=alt.Axis(tickMinStep=1))
    y = alt.Y("effect:Q", title=unit_of(inference, outcome))
    colour = coloured("sure", states, [VERMILION, BLUE], title="head")
    zero = rule_at(0, "y")
    bars = (
        alt.Chart(data(named))
        .mark_rule(opacity=0.7, aria=False)
        .encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour)
    )
    dots = (
        alt.Chart(data(rows))
        .mark_point(filled=True, size=36, opacity=0.8)
        .encode(
            x=x,
            y=y,
            color=colour,
            shape=shaped("sure", states, title="head"),
            **told(),
        )
    )
    labels = (
        alt.Chart(data(named))
        .mark_text(align="left", dx=6, fontSize=11, color=INK, aria=False)
        .encode(x=x, y=y, text="name:N")
    )
    by_layer: dict[int, float] = {}
    for row in rows:
        if abs(row["effect"]) > abs(by_layer.get(row["layer"], 0.0)):
            by_layer[row["layer"]] = row["effect"]
    strongest = sorted(by_layer, key=lambda k: -abs(by_layer[k]))[:3]
    words = "Heads by layer. The layers with the largest single heads: " + "; ".join(
        f"layer {k}, {format_number(by_layer[k])}" for k in strongest
    )
    return layered(
        zero,
        bars,
        dots,
        labels,
        description=words + ". Five heads carry their intervals.",
        width=width,
        height=240,
    )


def joint_plot(inference: Any, *, outcome: str = "the outcome", width: int = 680) -> alt.LayerChart:  # noqa: ANN401 - arrays over sets
    """Draw the joint effect of each set, a layer's for instance, with its interval, beside the total effect.

    Parameters
    ----------
    inference : HeadInference
        From `infer_heads`, over `layer_sweep` or `set_sweep`.
    outcome : str
        What the effect is on, for the axis.

    Returns
    -------
    altair.LayerChart

    Notes
    -----
    Sets are drawn in the sweep's order. Joint effects do not add up either: a layer reads what another wrote.

    Examples
    --------
    >>> joint_plot(infer_heads(layer_sweep(model, pairs)))  # doctest: +SKIP
    """
    import altair as alt

    name = _NAMES.get(inference.quantity, inference.quantity)
    states = states_of(inference)
    rows: list[dict[str, Any]] = [
        {
            "set": part.label.removeprefix("layer "),
            **marked_of(inference, i),
            "words": f"{part.label}: {name} {format_number(part.estimate)} ({span(*part.ends)}), q "
            f"{format_number(float(inference.q_value[i]), digits=2)}",
        }
        for i, part in enumerate(inference.parts)
    ]
    layers = all(part.label.startswith("layer ") for part in inference.parts)
    x = alt.X(
        "set:N",
        sort=[str(r["set"]) for r in rows],
        title="layer" if layers else "set",
        axis=alt.Axis(labelAngle=0 if layers else -40),
    )
    y = alt.Y("effect:Q", title=title_lines(f"joint {name} on {outcome}", 240))
    colour = coloured("sure", states, [VERMILION, BLUE], title=None)
    total = float(inference.estimate)
    lines = [{"at": 0.0, "line": "none"}, {"at": total, "line": "total effect"}]
    rules = (
        alt.Chart(data(lines)).mark_rule(color=MUTED, strokeDash=[4, 3], aria=False).encode(y=alt.Y("at:Q"))
    )
    base = alt.Chart(data(rows)).encode(x=x)
    bars = base.mark_rule(opacity=0.7, aria=False).encode(y="low:Q", y2="high:Q", color=colour)
    dots = base.mark_point(filled=True, size=50, opacity=1).encode(
        y=y, color=colour, shape=shaped("sure", states, title=None), **told()
    )
    strongest = sorted(rows, key=lambda r: -abs(float(r["effect"])))[:3]
    words = (
        f"Joint {name} of {len(rows)} {'layers' if layers else 'sets'}, beside a total effect of"
        f" {format_number(total)}. The largest: " + "; ".join(str(r["words"]) for r in strongest) + "."
    )
    return layered(rules, bars, dots, description=words, width=width, height=240)


def search_plot(search: Any, *, width: int = 560) -> alt.LayerChart:  # noqa: ANN401 - a path of heads
    """Draw the share of the total effect that the first k heads carry, on searched and held-out items.

    Parameters
    ----------
    search : HeadSearch

    Returns
    -------
    altair.LayerChart
    """
    import altair as alt

    names = ["items searched on", "held-out items"]
    rows = []
    for k, site in enumerate(search.path, start=1):
        for name, shares in zip(names, (search.search_share, search.held_out_share), strict=True):
            value = float(shares[k - 1])
            rows.append(
                {
                    "heads": k,
                    "share": value,
                    "items": name,
                    "words": f"{counted(k, search.noun)}, {site.removeprefix('head ')} the last: {value:.0%}"
                    f" on {name}",
                }
            )
    x = alt.X(
        "heads:Q",
        title=f"{search.noun}s in the set",
        axis=alt.Axis(values=list(range(1, len(search.path) + 1)), format="d"),
        scale=alt.Scale(domain=[0.8, len(search.path) + 0.2], nice=False),
    )
    y = alt.Y("share:Q", title="share of the total effect", axis=alt.Axis(format="%"))
    colour = coloured("items", names, [GREY, BLUE], title=None)
    base = alt.Chart(data(rows)).encode(x=x, y=y, color=colour)
    dash = alt.StrokeDash(
        "items:N", sort=names, scale=alt.Scale(domain=names, range=[[4, 3], [1, 0]]), title=None
    )
    lines = base.mark_line(strokeWidth=2, aria=False).encode(strokeDash=dash)
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(**told())
    k, least = len(search.sites), search.least
    ends = {"low": _end(least.ends[0]), "high": _end(least.ends[1])}
    interval = (
        alt.Chart(data([{"heads": k, **ends}]))
        .mark_rule(color=BLUE, strokeWidth=2, aria=False)
        .encode(x=x, y="low:Q", y2="high:Q")
    )
    aim = rule_at(search.share, "y")
    end = float(search.held_out_share[k - 1])
    words = (
        f"Cumulative joint effect. {counted(k, search.noun)} {'carries' if k == 1 else 'carry'} {end:.0%} of"
        " the total effect on held-out items "
        + ("(no interval)" if None in ends.values() else "({:.0%} to {:.0%})".format(*least.ends))
        + f"; {search.share:.0%} was asked for."
    )
    return layered(aim, interval, lines, dots, description=words, width=width, height=260)


def head_items_plot(
    sweep: Any,  # noqa: ANN401 - arrays over items and heads
    head: tuple[int, int],
    groups: Mapping[str, str] | None = None,
    *,
    quantity: str = "nie",
    width: int = 560,
) -> alt.LayerChart:
    """Draw one head's effect on every item, sorted.

    Parameters
    ----------
    sweep : Sweep
    head : (layer, head)
    groups : mapping of str to str, optional
        The task family of each item.
    quantity : {"nie", "nde", "pure_nie", "total_nde"}

    Returns
    -------
    altair.LayerChart

    Raises
    ------
    MediationError
        If the sweep has no such head.
    """
    import altair as alt

    position(sweep.heads, head, "the sweep")
    effect = np.asarray(getattr(sweep, quantity))[:, sweep.sites.index(("head", *head))]
    order = np.argsort(-effect, kind="stable")
    rows: list[dict[str, Any]] = [
        {
            "item": sweep.item_ids[i],
            "effect": float(effect[i]),
            "task": (groups or {}).get(sweep.item_ids[i], "all items"),
            "words": f"{sweep.item_ids[i]}: {format_number(float(effect[i]))} of a total effect of "
            f"{format_number(float(sweep.te[i]))}",
        }
        for i in order
    ]
    tasks = list(dict.fromkeys(sorted(r["task"] for r in rows)))
    items = [r["item"] for r in rows]
    y = alt.Y(
        "item:N", sort=items, title=None, axis=alt.Axis(labels=len(items) <= 60, ticks=len(items) <= 60)
    )
    name = _NAMES.get(quantity, quantity)
    bars = (
        alt.Chart(data(rows))
        .mark_bar()
        .encode(
            x=alt.X(
                "effect:Q",
                title=title_lines(f"{name} of head {head[0]}.{head[1]} on {sweep.outcome}", width),
            ),
            y=y,
            color=alt.Color(
                "task:N",
                title="task",
                scale=alt.Scale(domain=tasks, range=colours(len(tasks))),
                legend=alt.Legend(orient="top", columns=3 if width >= 500 else 2) if len(tasks) > 1 else None,
            ),
            **told(),
        )
    )
    zero = rule_at(0, "x", dashed=False)
    up = int((effect > 0).sum())
    return layered(
        bars,
        zero,
        description=f"{name} of head {head[0]}.{head[1]}, item by item: positive in {up} of "
        f"{len(rows)}, mean {format_number(float(effect.mean()))}.",
        width=width,
        height=max(90, min(14 * len(rows), 800)),
    )


def colours(n: int) -> list[str]:
    """Give `n` colours of the palette, again from its start where it ends."""
    return [_PALETTE[i % len(_PALETTE)] for i in range(n)]


def position(heads: Sequence[tuple[int, int]], head: tuple[int, int], where: str) -> int:
    """Find a head; `MediationError` where it is not there."""
    if head not in heads:
        raise MediationError(
            f"{where} has no head {head[0]}.{head[1]}",
            hint=f"its {counted(len(heads), 'head')} run from {heads[0]} to {heads[-1]}",
        )
    return list(heads).index(head)
