"""Charts of the sites beside the heads: blocks of every layer, and the residual stream after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt._words import format_number
from whyprompt.charts.heads import head_words, marked_of, states_of, unit_of
from whyprompt.charts.style import (
    BLUE,
    GREEN,
    MUTED,
    ORANGE,
    PURPLE,
    coloured,
    data,
    layered,
    rule_at,
    shaped,
    title_lines,
    told,
)

if TYPE_CHECKING:
    import altair as alt

# By kind: what a line is called, its colour, and how far its marks stand beside the layer's place.
_LINES = {
    "attn": ("attention output", ORANGE, -0.15),
    "mlp": ("MLP output", GREEN, 0.15),
    "resid": ("residual stream after the layer", BLUE, 0.0),
    "neuron": ("neuron of the MLP", PURPLE, 0.0),
}


def site_plot(inference: Any, *, outcome: str = "the outcome", width: int = 680) -> alt.LayerChart:  # noqa: ANN401 - arrays over sites
    """Draw the mean effects of attention and MLP outputs, the residual stream and neurons, by layer.

    Parameters
    ----------
    inference : HeadInference
        From `infer_heads` over a sweep of sites; heads have their own charts.
    outcome : str
        What the effect is on, for the axis.

    Returns
    -------
    altair.LayerChart

    Notes
    -----
    Effects do not add up over layers: what one block passes on, a later one holds too, and the residual
    stream after the last layer holds the whole of the total effect, which the dashed line shows.

    Examples
    --------
    >>> site_plot(infer_heads(site_sweep(model, pairs, ["mlp", "resid"])))  # doctest: +SKIP
    """
    import altair as alt

    states = states_of(inference)
    rows: list[dict[str, Any]] = [
        {
            "site": str(site),
            "kind": _LINES[site.kind][0],
            "place": site.layer + _LINES[site.kind][2],
            **marked_of(inference, i),
            "words": head_words(inference, i),
        }
        for i, site in enumerate(inference.sites)
        if site.kind != "head"
    ]
    kinds = [name for name, _, _ in _LINES.values() if any(r["kind"] == name for r in rows)]
    colours = [colour for name, colour, _ in _LINES.values() if name in kinds]
    colour = coloured("kind", kinds, colours, title=None, columns=3 if width >= 500 else 1)
    x = alt.X("place:Q", title="layer", scale=alt.Scale(nice=False, padding=12), axis=alt.Axis(tickMinStep=1))
    y = alt.Y("effect:Q", title=title_lines(unit_of(inference, outcome), 240))
    base = alt.Chart(data(rows)).encode(x=x, color=colour)
    # Neurons of one layer stand above each other: no line goes through them.
    lines = (
        base.transform_filter(f"datum.kind != '{_LINES['neuron'][0]}'")
        .mark_line(strokeWidth=1, opacity=0.6, aria=False)
        .encode(y=y)
    )
    bars = base.mark_rule(opacity=0.7, aria=False).encode(y="low:Q", y2="high:Q")
    dots = base.mark_point(filled=True, size=36, opacity=0.9).encode(
        y=y,
        shape=shaped("sure", states, title=None).legend(orient="top", columns=2 if width >= 500 else 1),
        **told(),
    )
    total = float(inference.estimate)
    whole = (
        alt.Chart(data([{"at": total}]))
        .mark_rule(color=MUTED, strokeDash=[4, 3], aria=False)
        .encode(y=alt.Y("at:Q"))
    )
    largest = [max((r for r in rows if r["kind"] == kind), key=lambda r: abs(r["effect"])) for kind in kinds]
    said = "; ".join(str(row["words"]) for row in largest)
    return layered(
        rule_at(0, "y", dashed=False),
        whole,
        lines,
        bars,
        dots,
        description=f"Effects by layer, beside a total effect of {format_number(total)}. The largest of each "
        f"kind: {said}.",
        width=width,
        height=280,
    )
