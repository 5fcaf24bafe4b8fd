"""Charts of single items: which of them gain and which are harmed, as far as their repeats tell."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted, format_number
from whyprompt.charts.style import BLUE, GREY, VERMILION, coloured, data, layered, rule_at, title_lines, told

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import altair as alt
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


# Marks of items in one picture; two pictures of every chart go into a page.
_MARKS = 1_500


def gain_harm_plot(
    result: Any,  # noqa: ANN401 - differences of items
    groups: Mapping[str, str] | None = None,
    *,
    width: int = 560,
) -> alt.LayerChart:
    """Draw every item's difference between the arms, sorted within its group.

    Parameters
    ----------
    result : EffectResult
        Of a paired design. Colours tell the items whose change stands out of the noise of their
        repeats; where an item has one trial an arm, they tell only what these trials showed.
    groups : mapping of str to str, optional
        The task family of each item. Default: one group.

    Returns
    -------
    altair.LayerChart
        Above 1,500 items a mark stands for several items of one colour, next to each other in the order.

    Raises
    ------
    EstimationError
        If the design is not paired.
    """
    import altair as alt

    states, labels = result.item_states(), result.items.state_labels
    found = result.items
    change = found.treated - found.control
    names = np.array([(groups or {}).get(unit, "all items") for unit in found.units])
    order = sorted(set(names.tolist()), key=lambda name: -float(change[names == name].mean()))
    rows: list[dict[str, Any]] = []
    counts: list[str] = []
    tallest = 0
    size = math.ceil(len(change) / _MARKS)
    for name in order:
        at = np.flatnonzero(names == name)
        at = at[np.argsort(-change[at], kind="stable")]
        rows += _marks(name, at, change, states, found.units, size=size)
        said = [f"{int((states[at] == state).sum())} {label}" for state, label in labels.items()]
        counts.append(f"{name}: of {counted(len(at), 'item')} {', '.join(said)}")
        tallest = max(tallest, len(at))
    y: dict[str, Any] = {
        "y": alt.Y("group:N", sort=order, title=None, scale=alt.Scale(domain=order, paddingInner=0.25)),
        "yOffset": alt.YOffset("rank:Q"),
    }
    for row in rows:
        row["state"] = labels[row["state"]]
    base = alt.Chart(data(rows))
    words = f"change in {result.outcome} of an item, {result.treated} minus {result.control}"
    title = title_lines(words, width)
    colour = coloured("state", list(labels.values()), [BLUE, VERMILION, GREY], title="item")
    lines = base.mark_rule(opacity=0.45, aria=False).encode(
        x=alt.X("zero:Q", title=title), x2="change:Q", color=colour, **y
    )
    dots = base.mark_point(filled=True, size=22, opacity=0.9).encode(
        x=alt.X("change:Q", title=title),
        color=colour,
        **told(),
        **y,
    )
    tall = max(60, min(130, 4 * tallest))
    return layered(
        rule_at(),
        lines.transform_calculate(zero="0"),
        dots,
        description="Change of every item. " + "; ".join(counts) + ".",
        width=width,
        height=tall * len(order),
    )


def _marks(
    name: str, at: Ints, change: Floats, states: Ints, units: Sequence[str], *, size: int
) -> list[dict[str, Any]]:
    """Make the marks of one group from its items in order: one each, or one for a run of items."""
    last = max(len(at) - 1, 1)
    rows = []
    for state in (1, 0, -1):
        places = np.flatnonzero(states[at] == state)
        for start in range(0, len(places), size):
            run = places[start : start + size]
            values = change[at[run]]
            middle = float(np.median(values))
            words = (
                f"{units[int(at[run[0]])]}: {format_number(middle)}"
                if len(run) == 1
                else f"{len(run)} items: {format_number(float(values.min()))} to"
                f" {format_number(float(values.max()))}"
            )
            rows.append(
                {
                    "group": name,
                    "rank": float(run.mean()) / last,
                    "change": middle,
                    "state": state,
                    "words": words,
                }
            )
    return sorted(rows, key=lambda row: float(row["rank"]))
