"""Charts of the external level: effects, subgroups, audits, curves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from whyprompt._words import counted, format_number, percent
from whyprompt.charts.rows import HasEstimates, bounded, number, records, row_words
from whyprompt.charts.style import (
    BLUE,
    MUTED,
    PURPLE,
    VERMILION,
    data,
    finish,
    layered,
    rule_at,
    span,
    title_lines,
    told,
    wrap,
)
from whyprompt.errors import DataError, EstimationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import altair as alt

ROW = 30
# A normal quantile: Monte Carlo errors are those of means over many draws.
_Z95 = 1.959963984540054


def line_of(
    label: str,
    ends: tuple[float | None, float | None, float | None],
    words: str,
    **look: Any,  # noqa: ANN401 - shape, size, colour
) -> dict[str, Any]:
    """Give the row that `intervals` draws of one line: its estimate, low and high, by default a circle."""
    estimate, low, high = ends
    named = {"label": label, "estimate": estimate, "low": low, "high": high, "words": words}
    return {**named, "shape": "circle", "size": 90, **look}


def intervals(
    rows: list[dict[str, Any]],
    order: list[str],
    title: list[str],
    *,
    colour: Any,  # noqa: ANN401 - an encoding
    domain: list[float] | None = None,
) -> list[alt.Chart]:
    """Give the layers of points with intervals over named lines, zero first."""
    import altair as alt

    y = alt.Y("label:N", sort=order, title=None, scale=alt.Scale(domain=order))
    scale = alt.Scale(zero=False) if domain is None else alt.Scale(domain=domain, clamp=True)
    base = alt.Chart(data(rows)).encode(y=y)
    bar = (
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=2, aria=False)
        .encode(x=alt.X("low:Q", title=title, scale=scale), x2="high:Q", color=colour)
    )
    points = base.mark_point(filled=True, opacity=1).encode(
        x=alt.X("estimate:Q", title=title, scale=scale),
        color=colour,
        shape=alt.Shape("shape:N", scale=None),
        size=alt.Size("size:Q", scale=None),
        **told(),
    )
    return [rule_at(), bar, points]


def banded(rows: Sequence[Mapping[str, Any]], x: alt.X, title: str, **dot: Any) -> list[alt.Chart]:  # noqa: ANN401
    """Give the layers of an estimate along x: the band of its interval, its line, and `dot` at each row."""
    import altair as alt

    base = alt.Chart(data(rows)).encode(x=x)
    y = alt.Y("low:Q", title=title, scale=alt.Scale(zero=False))
    band = base.mark_area(color=BLUE, opacity=0.2, aria=False).encode(y=y, y2="high:Q")
    line = base.mark_line(color=BLUE, aria=False).encode(y=alt.Y("estimate:Q", title=title))
    return [band, line, base.mark_point(color=BLUE, filled=True, **dot).encode(y="estimate:Q", **told())]


def forest_plot(
    result: HasEstimates,
    *,
    truth: float | None = None,
    beside: Mapping[str, tuple[HasEstimates, float | None]] | None = None,
    title: str | None = None,
    width: int = 560,
) -> alt.LayerChart:
    """Draw an effect with its interval, and its subgroups below it.

    Parameters
    ----------
    result : EffectResult or EffectsResult
        Its overall estimate is a diamond, its parts are circles.
    truth : float, optional
        The effect known from both arms, as a vertical mark on the overall line.
    beside : mapping of str to (EffectResult, float or None), optional
        Further estimates in lines of their own, each with its truth.
    title : str, optional
        Of the axis. Default: the result's own.

    Returns
    -------
    altair.LayerChart

    Raises
    ------
    DataError
        If it is no result.
    EstimationError
        If there is no estimate to draw.

    Examples
    --------
    >>> import pandas as pd
    >>> from whyprompt import estimate_effect
    >>> frame = pd.DataFrame({"item_id": [1, 1, 2, 2, 3, 3], "arm": ["a", "b"] * 3})
    >>> frame["y"] = [1.0, 2.0, 1.0, 4.0, 0.0, 2.0]
    >>> found = estimate_effect(
    ...     frame, treatment="arm", outcome="y", treated="b", control="a", design="paired"
    ... )
    >>> forest_plot(found).to_dict()["description"]
    'Forest plot. all items: 2.00 (-0.484 to 4.48), n = 3.'
    """
    import altair as alt

    if not isinstance(result, HasEstimates):
        raise DataError(f"{type(result).__name__} has no estimates to draw")
    lines = [*(() if result.overall is None else (result.overall,)), *result.parts]
    truths = {lines[0].label: truth} if truth is not None and lines else {}
    for label, (other, known) in (beside or {}).items():
        lines.append(replace(other.overall, label=label))
        if known is not None:
            truths[label] = known
    drawn = [line for line in lines if line.estimate is not None]
    if not drawn:
        raise EstimationError("there is no estimate to draw: no part of the result could be estimated")
    order = [line.label for line in drawn]
    looks = ({"size": 70}, {"shape": "diamond", "size": 150})
    rows = [
        line_of(
            line.label,
            (line.estimate, *bounded(line)),
            row_words(line),
            **looks[line is result.overall],
        )
        for line in drawn
    ]
    layers = intervals(rows, order, title_lines(title or result.axis, width), colour=alt.value(BLUE))
    if truths:
        marks = alt.Chart(
            data(
                {"label": k, "truth": v, "words": f"{k}: both arms run give {format_number(v)}"}
                for k, v in truths.items()
            )
        )
        layers.append(
            marks.mark_tick(color=PURPLE, thickness=3, size=20).encode(
                x="truth:Q", y=alt.Y("label:N", sort=order), tooltip="words:N", description="words:N"
            )
        )
    description = "Forest plot. " + "; ".join(row_words(line) for line in drawn) + "."
    if truths:
        description += " Vertical marks are the effects known from both arms: "
        description += "; ".join(f"{k} {format_number(v)}" for k, v in truths.items()) + "."
    return layered(*layers, description=description, width=width, height=ROW * len(order) + 10)


def draw_plot(draw: Any, *, width: int = 560) -> alt.LayerChart:  # noqa: ANN401 - one draw
    """Draw what one confounded draw gives: naive, adjusted, and the truth from both arms.

    Parameters
    ----------
    draw : OneDraw

    Returns
    -------
    altair.LayerChart
    """
    import altair as alt

    names = (
        "plain difference",
        f"adjusted ({draw.adjusted.method})",
        "truth, same items",
        "truth, all items",
    )
    rows: list[dict[str, Any]] = []
    for name, result in zip(names, (draw.naive, draw.adjusted), strict=False):
        words = f"{name}: {format_number(result.estimate)} ({span(result.ci_low, result.ci_high)})"
        colour = VERMILION if result is draw.naive else BLUE
        rows.append(line_of(name, (result.estimate, result.ci_low, result.ci_high), words, colour=colour))
    for name, value in zip(names[2:], (draw.truth, draw.truth_all), strict=True):
        words = f"{name}, both arms run: {format_number(value)}"
        rows.append(line_of(name, (value, None, None), words, shape="diamond", size=120, colour=PURPLE))
    title = title_lines(draw.adjusted.axis, width)
    layers = intervals(rows, list(names), title, colour=alt.Color("colour:N", scale=None))
    mark = alt.Chart(data([{"at": draw.truth}])).mark_rule(color=PURPLE, aria=False).encode(x="at:Q")
    description = "One arm an item, as logs would have it. " + "; ".join(r["words"] for r in rows) + "."
    return layered(mark, *layers, description=description, width=width, height=ROW * 4 + 10)


def audit_plot(
    result: Any,  # noqa: ANN401 - rows of methods
    *,
    what: Literal["bias", "coverage"] = "bias",
    width: int = 560,
) -> alt.LayerChart:
    """Draw how each method did over many confounded draws.

    Parameters
    ----------
    result : Result
        Of `whyprompt.audit`.
    what : {"bias", "coverage"}, default "bias"
        Mean error against the paired truth, or the share of intervals that hold it; each with the interval
        that the Monte Carlo error of so many draws leaves.

    Returns
    -------
    altair.LayerChart

    Raises
    ------
    EstimationError
        If no method gave that figure.
    """
    import altair as alt

    rows: list[dict[str, Any]] = []
    for row in result.parts:
        value = row.estimate if what == "bias" else row["coverage"]
        error = row.std_error if what == "bias" else row["coverage_error"]
        if value is None:
            continue
        low, high = (None, None) if error is None else (value - _Z95 * error, value + _Z95 * error)
        words = f"{row.label}: {what} {format_number(value)}"
        words += "" if error is None else f", Monte Carlo error {format_number(error, digits=2)}"
        colour = VERMILION if row.label == "naive" else BLUE
        rows.append(line_of(row.label, (value, low, high), words, colour=colour))
    if not rows:
        raise EstimationError(f"no method of the audit has a {what} to draw")
    order = [r["label"] for r in rows]
    title = (
        "bias (estimate minus truth, in units of the outcome)"
        if what == "bias"
        else f"share of {percent(result.level)} intervals that hold the truth"
    )
    layers = intervals(
        rows,
        order,
        title_lines(title, width),
        colour=alt.Color("colour:N", scale=None),
        domain=[0.0, 1.0] if what == "coverage" else None,
    )
    if what == "coverage":
        layers = [*layers[1:], rule_at(result.level)]
    description = (
        f"Audit over {counted(result['draws'], 'draw')}. " + "; ".join(r["words"] for r in rows) + "."
    )
    return layered(*layers, description=description, width=width, height=ROW * len(order) + 10)


def dose_response_plot(
    frame: Any,  # noqa: ANN401 - any frame
    *,
    dose_title: str = "dose",
    outcome_title: str = "mean outcome",
    width: int = 560,
) -> alt.LayerChart:
    """Draw a mean outcome over a dose, with its interval.

    Parameters
    ----------
    frame : DataFrame or sequence of mappings
        Columns ``dose``, ``estimate``, ``low``, ``high``.
    dose_title, outcome_title : str
        Of the axes, with their units.

    Returns
    -------
    altair.LayerChart

    Examples
    --------
    >>> chart = dose_response_plot([{"dose": 0.0, "estimate": 1.0, "low": 0.5, "high": 1.5},
    ...                             {"dose": 1.0, "estimate": 2.0, "low": 1.5, "high": 2.5}])
    >>> chart.to_dict()["description"]
    'Dose and response: from 1.00 (0.500 to 1.50) at 0 to 2.00 (1.50 to 2.50) at 1.00.'
    """
    import altair as alt

    needed = ("dose", "estimate", "low", "high")
    rows: list[dict[str, Any]] = [
        {
            **{k: float(row[k]) for k in needed},
            "words": f"at {format_number(float(row['dose']))}: {format_number(float(row['estimate']))} "
            f"({span(float(row['low']), float(row['high']))})",
        }
        for row in sorted(records(frame, needed, what="dose_response_plot"), key=lambda r: float(r["dose"]))
    ]
    x = alt.X("dose:Q", title=dose_title, scale=alt.Scale(zero=False))
    layers = banded(rows, x, outcome_title, size=30)
    ends = [
        f"{format_number(r['estimate'])} ({span(r['low'], r['high'])}) at {format_number(r['dose'])}"
        for r in (rows[0], rows[-1])
    ]
    words = f"Dose and response: from {ends[0]} to {ends[1]}."
    return layered(*layers, description=words, width=width, height=260)


def specification_plot(
    frame: Any,  # noqa: ANN401 - any frame
    *,
    choices: Sequence[str],
    truth: float | None = None,
    title: str = "estimate",
    width: int = 560,
) -> alt.VConcatChart:
    """Draw a specification curve: every estimate in order, and the choices that gave it below.

    Parameters
    ----------
    frame : DataFrame or sequence of mappings
        One row a specification: ``estimate``, ``ci_low``, ``ci_high`` (absent where None) and the choices.
        Rows without an estimate are counted in the description and not drawn.
    choices : sequence of str
        Columns that hold what was chosen.
    truth : float, optional
        The effect known from both arms.
    title : str
        Of the axis, with its unit.
    width : int, default 560
        Of the curve, in pixels, without its labels.

    Returns
    -------
    altair.VConcatChart

    Raises
    ------
    EstimationError
        If no specification has an estimate.

    References
    ----------
    Simonsohn, Simmons and Nelson (2020). Specification curve analysis. Nature Human Behaviour 4.
    """
    import altair as alt

    table = records(frame, ("estimate", "ci_low", "ci_high", *choices), what="specification_plot")
    kept = sorted((r for r in table if number(r["estimate"]) is not None), key=lambda r: float(r["estimate"]))
    if not kept:
        raise EstimationError("no specification has an estimate to draw")
    rows: list[dict[str, Any]] = []
    dots: list[dict[str, Any]] = []
    for rank, row in enumerate(kept, start=1):
        low, high = number(row["ci_low"]), number(row["ci_high"])
        said = ", ".join(f"{c} {row[c]}" for c in choices)
        words = f"{format_number(float(row['estimate']))} ({span(low, high)}): {said}"
        rows.append(
            {"rank": rank, "estimate": float(row["estimate"]), "low": low, "high": high, "words": words}
        )
        dots += [{"rank": rank, "choice": f"{c}: {row[c]}", "words": words} for c in choices]
    x = alt.X("rank:O", axis=None)
    base = alt.Chart(data(rows)).encode(x=x)
    bar = (
        base.transform_filter("isValid(datum.low)")
        .mark_rule(color=BLUE, opacity=0.6, aria=False)
        .encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    )
    point = base.mark_point(filled=True, color=BLUE, size=28, opacity=1).encode(y="estimate:Q", **told())
    lines = [{"at": 0.0, "colour": MUTED}] + ([] if truth is None else [{"at": truth, "colour": PURPLE}])
    rule = (
        alt.Chart(data(lines)).mark_rule(aria=False).encode(y="at:Q", color=alt.Color("colour:N", scale=None))
    )
    order = list(
        dict.fromkeys(f"{c}: {r[c]}" for c in choices for r in sorted(kept, key=lambda r: str(r[c])))
    )
    below = (
        alt.Chart(data(dots))
        .mark_point(filled=True, color=BLUE, size=18, opacity=1, aria=False)
        .encode(
            x=x,
            # Every choice has its label: the shared look would hide each that comes close to another.
            y=alt.Y("choice:N", sort=order, title=None, axis=alt.Axis(labelOverlap=False)),
            tooltip="words:N",
        )
    )
    lost = len(table) - len(kept)
    ends = f"{format_number(rows[0]['estimate'])} to {format_number(rows[-1]['estimate'])}"
    words = f"Specification curve: {counted(len(kept), 'estimate')} from {ends}"
    words += f"; {lost} specifications gave none" if lost else ""
    words += f"; the effect known from both arms is {format_number(truth)}" if truth is not None else ""
    words += f"; choices: {wrap(order, 12)}."
    chart = alt.vconcat(
        alt.layer(rule, bar, point).properties(width=width, height=220),
        below.properties(width=width, height=18 * len(order)),
        spacing=6,
    )
    return finish(chart, description=words)
