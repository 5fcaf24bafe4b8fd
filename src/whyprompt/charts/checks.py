"""Charts of what is checked around an effect: draws, gaps, imputations, batches, preparations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted, format_number, p_words
from whyprompt.charts.effects import ROW, banded, intervals, line_of
from whyprompt.charts.rows import number, records
from whyprompt.charts.style import (
    BLUE,
    GREY,
    PURPLE,
    SKY,
    VERMILION,
    coloured,
    data,
    finish,
    layered,
    rule_at,
    span,
    title_lines,
    told,
)
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import altair as alt


# More lines than this cannot be read; the description says how many there are.
_MOST_LINES = 40


def interval_plot(
    frame: Any,  # noqa: ANN401 - any frame
    *,
    title: str,
    limits: Sequence[float] = (),
    width: int = 560,
) -> alt.LayerChart:
    """Draw named estimates with their intervals, one a line.

    Parameters
    ----------
    frame : DataFrame or sequence of mappings
        Columns ``label``, ``estimate``, ``low``, ``high`` (absent where None). A line without an estimate is
        named in the description and not drawn; of more than 40 lines the first 40 are drawn.
    title : str
        Of the axis, with its unit.
    limits : sequence of float
        Where grey marks are drawn beside zero, such as the limits of balance.

    Returns
    -------
    altair.LayerChart

    Raises
    ------
    EstimationError
        If no line has an estimate.

    Examples
    --------
    >>> rows = [{"label": "before", "estimate": 0.1, "low": -0.1, "high": 0.3}]
    >>> chart = interval_plot(rows, title="change")
    >>> chart.to_dict()["description"]
    'change. before: 0.100 (-0.100 to 0.300).'
    """
    import altair as alt

    table = records(frame, ("label", "estimate", "low", "high"), what="interval_plot")
    rows: list[dict[str, Any]] = []
    lost = []
    for row in table:
        value, low, high = (number(row[k]) for k in ("estimate", "low", "high"))
        if value is None:
            lost.append(str(row["label"]))
            continue
        shown = format_number(value) + ("" if low is None or high is None else f" ({span(low, high)})")
        rows.append(line_of(str(row["label"]), (value, low, high), f"{row['label']}: {shown}", size=80))
    if not rows:
        raise EstimationError("there is no estimate to draw")
    drawn = rows[:_MOST_LINES]
    order = list(dict.fromkeys(r["label"] for r in drawn))
    layers = intervals(drawn, order, title_lines(title, width), colour=alt.value(BLUE))
    if limits:
        marks = alt.Chart(data({"at": float(at)} for at in limits))
        layers.insert(0, marks.mark_rule(color=GREY, strokeDash=[2, 3], aria=False).encode(x="at:Q"))
    words = f"{title}. " + "; ".join(r["words"] for r in drawn) + "."
    if len(rows) > len(drawn):
        words += f" The first {len(drawn)} of {len(rows)} are drawn."
    if lost:
        words += f" Without an estimate: {', '.join(lost)}."
    return layered(*layers, description=words, width=width, height=ROW * len(order) + 10)


def draws_plot(
    values: Sequence[float],
    *,
    marks: Mapping[str, float],
    title: str,
    what: str = "draws",
    width: int = 560,
) -> alt.LayerChart:
    """Draw how estimates spread over draws, with the one that they are held against.

    Parameters
    ----------
    values : sequence of float
        One a draw.
    marks : mapping of str to float
        Vertical lines with their names.
    title : str
        Of the axis, with its unit.
    what : str, default "draws"
        What was drawn, in the plural.

    Returns
    -------
    altair.LayerChart

    Raises
    ------
    EstimationError
        If there are no draws.

    Examples
    --------
    >>> chart = draws_plot([0.1, -0.1, 0.0], marks={"the real arm": 0.5}, title="effect", what="placebo arms")
    >>> chart.to_dict()["description"].split(";")[0]
    '3 placebo arms, middle 95% from -0.0950 to 0.0950'
    """
    import altair as alt

    found = np.asarray(values, dtype=float)
    if found.size == 0:
        raise EstimationError(f"there are no {what} to draw")
    bins = int(min(40, max(5, round(np.sqrt(found.size) * 2)))) if np.ptp(found) > 0 else 1
    counts, edges = np.histogram(found, bins=bins)
    bars = [
        {
            "low": float(a),
            "high": float(b),
            "n": int(n),
            "none": 0,
            "words": f"{format_number(float(a))} to {format_number(float(b))}: {n} {what}",
        }
        for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
        if n
    ]
    axis = title_lines(title, width)
    scale = alt.Scale(zero=False)
    bar = (
        alt.Chart(data(bars))
        .mark_rect(color=SKY, stroke="#FFFFFF", strokeWidth=0.5)
        .encode(
            x=alt.X("low:Q", title=axis, scale=scale),
            x2="high:Q",
            y=alt.Y("n:Q", title=f"number of {what}"),
            y2="none:Q",
            **told(),
        )
    )
    lines = [
        {"at": float(v), "name": name, "words": f"{name}: {format_number(float(v))}"}
        for name, v in marks.items()
    ]
    names = [str(line["name"]) for line in lines]
    colour = alt.Color(
        "name:N",
        title=None,
        scale=alt.Scale(domain=names, range=[PURPLE, VERMILION, BLUE][: len(names)]),
        legend=alt.Legend(orient="top", symbolType="stroke"),
    )
    rule = alt.Chart(data(lines)).mark_rule(strokeWidth=3).encode(x="at:Q", color=colour, **told())
    low, high = np.quantile(found, [0.025, 0.975])
    words = f"{found.size} {what}, middle 95% from {span(float(low), float(high))}"
    words += "".join(f"; {line['words']}" for line in lines) + f". Axis: {title}."
    return layered(rule_at(), bar, rule, description=words, width=width, height=220)


def count_plot(
    frame: Any,  # noqa: ANN401 - any frame
    *,
    title: str,
    width: int = 560,
) -> alt.LayerChart:
    """Draw one number a line as a bar, split by colour where there is a group.

    Parameters
    ----------
    frame : DataFrame or sequence of mappings
        Columns ``label``, ``value`` and ``group`` (empty where there is none).
    title : str
        Of the axis, with its unit.

    Returns
    -------
    altair.LayerChart

    Raises
    ------
    EstimationError
        If there is nothing to draw.

    Examples
    --------
    >>> chart = count_plot([{"label": "x", "value": 3, "group": ""}], title="values moved")
    >>> chart.to_dict()["description"]
    'values moved. x: 3.00.'
    """
    import altair as alt

    rows: list[dict[str, Any]] = []
    for row in records(frame, ("label", "value", "group"), what="count_plot"):
        value = number(row["value"])
        if value is not None:
            name = f"{row['label']}, {row['group']}" if row["group"] else str(row["label"])
            shown = f"{name}: {format_number(value)}"
            rows.append(
                {"label": str(row["label"]), "value": value, "group": str(row["group"]), "words": shown}
            )
    if not rows:
        raise EstimationError("there is nothing to draw")
    order = list(dict.fromkeys(str(r["label"]) for r in rows))
    groups = list(dict.fromkeys(str(r["group"]) for r in rows))
    base = alt.Chart(data(rows)).encode(
        y=alt.Y("label:N", sort=order, title=None), tooltip=alt.Tooltip("words:N", title=" ")
    )
    encoded: dict[str, Any] = {"color": alt.value(BLUE)}
    if groups != [""]:
        colours = [BLUE, VERMILION, SKY, PURPLE, GREY]
        encoded = {
            "color": coloured("group", groups, [colours[k % 5] for k in range(len(groups))], title=None),
            "yOffset": alt.YOffset("group:N", sort=groups),
        }
    bar = base.mark_bar().encode(
        x=alt.X("value:Q", title=title_lines(title, width)), description="words:N", **encoded
    )
    height = max(ROW, 14 * len(groups)) * len(order) + 10
    words = f"{title}. " + "; ".join(r["words"] for r in rows) + "."
    return layered(bar, description=words, width=width, height=height)


def pattern_plot(found: Any, *, width: int = 560) -> alt.LayerChart:  # noqa: ANN401 - patterns
    """Draw which columns are missing together, and in how many rows.

    Parameters
    ----------
    found : MissingPatterns
        Of more than 40 patterns the 40 most frequent are drawn.

    Returns
    -------
    altair.LayerChart
    """
    import altair as alt

    shown = list(found.patterns.items())[:_MOST_LINES]
    rows: list[dict[str, Any]] = []
    order = []
    for rank, (gone, n) in enumerate(shown, start=1):
        label = f"{counted(n, 'row')} ({n / found.n_rows:.1%})"
        # Two patterns of as many rows are two lines.
        label += "\u200b" * rank
        order.append(label)
        rows += [
            {
                "label": label,
                "column": column,
                "state": "missing" if column in gone else "known",
                "words": f"{column} {'missing' if column in gone else 'known'} in {counted(n, 'row')}",
            }
            for column in found.columns
        ]
    tile = (
        alt.Chart(data(rows))
        .mark_rect(stroke="#FFFFFF", strokeWidth=1)
        .encode(
            x=alt.X(
                "column:N",
                sort=list(found.columns),
                title="column",
                axis=alt.Axis(labelAngle=-40, labelOverlap=False),
            ),
            y=alt.Y("label:N", sort=order, title="rows with this pattern", axis=alt.Axis(labelOverlap=False)),
            color=coloured("state", ["known", "missing"], [SKY, VERMILION], title=None),
            **told(),
        )
    )
    parts = [f"{n} rows lack {', '.join(gone) if gone else 'nothing'}" for gone, n in shown[:12]]
    words = f"Patterns of missing values in {counted(found.n_rows, 'row')}. " + "; ".join(parts) + "."
    if len(found.patterns) > len(shown):
        words += f" The {len(shown)} most frequent of {len(found.patterns)} patterns are drawn."
    return layered(tile, description=words, width=width, height=22 * len(order))


def little_plot(found: Any, *, width: int = 560) -> alt.LayerChart:  # noqa: ANN401 - a test
    """Draw Little's statistic on the chi-squared distribution that it has if gaps are completely at random.

    Parameters
    ----------
    found : Check
        Of `little_test`.

    Returns
    -------
    altair.LayerChart
    """
    import altair as alt
    from scipy import stats

    end = max(float(stats.chi2.ppf(0.9995, found.df)), 1.05 * found.estimate)
    start = 0.0 if found.df < 30 else min(float(stats.chi2.ppf(0.0005, found.df)), 0.95 * found.estimate)
    # With one degree of freedom the density at zero is infinite.
    x = np.linspace(start + (end - start) / 400, end, 240)
    curve = [
        {"x": float(a), "y": float(b), "tail": bool(a >= found.estimate)}
        for a, b in zip(x, stats.chi2.pdf(x, found.df), strict=True)
    ]
    base = alt.Chart(data(curve)).encode(
        x=alt.X("x:Q", title="chi-squared", scale=alt.Scale(zero=False)),
        y=alt.Y("y:Q", title="density if missing completely at random"),
    )
    line = base.mark_line(color=BLUE, aria=False)
    tail = base.transform_filter("datum.tail").mark_area(color=SKY, opacity=0.5, aria=False)
    words = (
        f"Little's test: statistic {format_number(found.estimate)} on {found.df} degrees of freedom,"
        f" p {p_words(found.p_value)}, from {counted(found['n_patterns'], 'pattern')}."
    )
    mark = (
        alt.Chart(data([{"at": found.estimate, "words": words}]))
        .mark_rule(color=PURPLE, strokeWidth=3)
        .encode(x="at:Q", **told())
    )
    return layered(tail, line, mark, description=words, width=width, height=220)


def tipping_plot(found: Any, *, width: int = 560) -> alt.LayerChart:  # noqa: ANN401 - rows of deltas
    """Draw the estimate over departures from missing at random, with the points where the conclusion tips.

    Parameters
    ----------
    found : Check
        Of `tipping_point`.

    Returns
    -------
    altair.LayerChart
    """
    import altair as alt

    column, conclusion = found["column"], found["conclusion"]
    unit = "log-odds" if found["scale"] == "log-odds" else f"units of {column}"
    rows: list[dict[str, Any]] = [
        {
            "delta": r.at,
            "estimate": r.estimate,
            "low": r.ci_low,
            "high": r.ci_high,
            "words": f"delta {format_number(r.at)}: {format_number(r.estimate)}"
            f" ({span(r.ci_low, r.ci_high)})",
        }
        for r in found.parts
    ]
    arm = "both arms" if found["arm"] == "both" else f"the {found['arm']} arm"
    x = alt.X(
        "delta:Q",
        title=title_lines(f"added to imputed {column} in {arm} ({unit})", width),
        scale=alt.Scale(zero=False),
    )
    layers = [rule_at(0.0, "y"), *banded(rows, x, "estimate of the effect", size=40, opacity=1)]
    tips = [t for t in (found["tipping_low"], found["tipping_high"]) if t is not None]
    if tips:
        layers.append(
            alt.Chart(data({"at": t, "words": f"the conclusion tips at {format_number(t)}"} for t in tips))
            .mark_rule(color=PURPLE, strokeWidth=2)
            .encode(x="at:Q", **told())
        )
    words = f"Tipping point of {column} in {arm}. " + "; ".join(r["words"] for r in rows) + "."
    words += (
        f" The conclusion ({conclusion}) tips at {' and '.join(format_number(t) for t in tips)}."
        if tips
        else f" The conclusion ({conclusion}) does not tip in this range."
    )
    return layered(*layers, description=words, width=width, height=260)


def imputation_plot(found: Any, *, width: int = 560) -> alt.VConcatChart:  # noqa: ANN401 - chains
    """Draw how the mean of the filled values moved over the rounds of every chain, a column a panel.

    Parameters
    ----------
    found : Imputation
    width : int, default 560
        Of a panel, in pixels.

    Returns
    -------
    altair.VConcatChart

    Raises
    ------
    EstimationError
        If nothing was filled.
    """
    import altair as alt

    if not found.trace:
        raise EstimationError("nothing was missing, so there are no chains to draw")
    panels, said = [], []
    ratios = {part.label: part.estimate for part in found.parts}
    for column, trace in found.trace.items():
        rows = [
            {"round": k + 1, "mean": float(v), "chain": str(c + 1)}
            for c, chain in enumerate(np.asarray(trace, dtype=float))
            for k, v in enumerate(chain)
            if np.isfinite(v)
        ]
        ratio = ratios[column]
        said.append(f"{column}: {found.n_missing.get(column, 0)} gaps, R-hat {format_number(ratio)}")
        panels.append(
            alt.Chart(data(rows), title=said[-1])
            .mark_line(color=BLUE, opacity=0.55, strokeWidth=1.5, aria=False)
            .encode(
                x=alt.X("round:Q", title="round of the chain", axis=alt.Axis(format="d", tickMinStep=1)),
                y=alt.Y("mean:Q", title=["mean of the", "filled values"], scale=alt.Scale(zero=False)),
                detail="chain:N",
            )
            .properties(width=width, height=110)
        )
    words = (
        f"Chains of {counted(found.draws, 'imputation')} over {counted(found.iterations, 'round')}. "
        + "; ".join(said)
        + "."
    )
    return finish(alt.vconcat(*panels, spacing=14), description=words)
