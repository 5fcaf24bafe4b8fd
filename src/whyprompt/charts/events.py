"""Estimates by the time since a change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt.charts.rows import HasEstimates, bounded, row_words
from whyprompt.charts.style import BLUE, MUTED, data, layered, rule_at, title_lines, told
from whyprompt.errors import DataError, EstimationError

if TYPE_CHECKING:
    import altair as alt


def event_plot(result: HasEstimates, *, title: str | None = None, width: int = 560) -> alt.LayerChart:
    """Draw an event study: what there is in each period before and after a change.

    Parameters
    ----------
    result : EffectResult
        Of `estimate_effect` with ``design="rollout"``: its parts by periods since the change, those before it
        hollow; thin lines are intervals that hold for all periods at once.
    title : str, optional
        Of the axis of estimates. Default: the result's own.
    width : int, default 560

    Returns
    -------
    altair.LayerChart

    Raises
    ------
    DataError
        If it is no result.
    EstimationError
        If it has no estimates by period.

    Examples
    --------
    >>> from whyprompt import Estimate, Result
    >>> rows = [Estimate(label=f"{k:+d}", estimate=k / 2, ci_low=k / 2 - 1, ci_high=k / 2 + 1, at=k,
    ...                  by="periods since the change") for k in (-1, 0, 1)]
    >>> event_plot(Result(sentence="", parts=tuple(rows))).to_dict()["description"][:49]
    'Event study over 3 periods, 1 before the change. '
    """
    import altair as alt

    if not isinstance(result, HasEstimates):
        raise DataError(f"{type(result).__name__} has no estimates to draw")
    drawn = [p for p in result.parts if p.at is not None and p.estimate is not None]
    if not drawn:
        raise EstimationError("there is no estimate by period to draw")
    rows: list[dict[str, Any]] = [
        {
            "at": p.at,
            "estimate": p.estimate,
            **dict(zip(("low", "high"), bounded(p), strict=True)),
            "least": p.simultaneous_low,
            "most": p.simultaneous_high,
            "fill": "transparent" if p.at < 0 else BLUE,
            "words": row_words(p),
        }
        for p in drawn
    ]
    x = alt.X("at:Q", title=drawn[0].by, axis=alt.Axis(format="d"))
    y = alt.Y("estimate:Q", title=title_lines(title or result.axis, width // 2))
    base = alt.Chart(data(rows)).encode(x=x)
    bar = (
        base.transform_filter("isValid(datum.low)")
        .mark_rule(color=BLUE, strokeWidth=2, aria=False)
        .encode(y=alt.Y("low:Q"), y2="high:Q")
    )
    band = (
        base.transform_filter("isValid(datum.least)")
        .mark_rule(color=BLUE, strokeWidth=1, opacity=0.5, aria=False)
        .encode(y=alt.Y("least:Q"), y2="most:Q")
    )
    points = base.mark_point(stroke=BLUE, size=60, opacity=1).encode(
        y=y, fill=alt.Fill("fill:N", scale=None), **told()
    )
    change = alt.Chart(data([{"at": -0.5}])).mark_rule(color=MUTED, aria=False).encode(x="at:Q")
    before = sum(p.at < 0 for p in drawn)
    ends = [row_words(p) for p in (drawn[0], drawn[-1])]
    description = (
        f"Event study over {len(drawn)} periods, {before} before the change. From {'; to '.join(ends)}."
    )
    return layered(
        rule_at(0.0, "y"), change, band, bar, points, description=description, width=width, height=280
    )
