"""From what to what: one picture for someone who decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt.charts.style import BLUE, INK, MUTED, data, layered, rule_at

if TYPE_CHECKING:
    import altair as alt


def change_plot(
    before: float,
    after: float,
    ends: tuple[float, float] | None,
    *,
    names: tuple[str, str],
    labels: tuple[str, str],
    interval: str,
    title: str,
    shares: bool = False,
    width: int = 700,
) -> alt.LayerChart:
    """Draw the mean under both arms, and where the second could be by the interval of the change.

    Parameters
    ----------
    before, after : float
        Means under the control and under the treated arm.
    ends : tuple of float or None
        Interval of the change; it is drawn from the control's mean. Of shares as far as there are any.
    names : tuple of str
        The arms, control first.
    labels : tuple of str
        What is written at the two marks.
    interval : str
        What is written at the interval.
    title : str
        Of the axis: the outcome.
    shares : bool
        Whether the means are shares, written in percent.
    width : int, default 700
        Of the whole picture.

    Returns
    -------
    altair.LayerChart
        With lines that cross the dashed one, the sign is open.

    Examples
    --------
    >>> chart = change_plot(
    ...     0.42,
    ...     0.38,
    ...     (-0.14, 0.06),
    ...     names=("direct", "cot"),
    ...     labels=("42%", "38%"),
    ...     interval="95%",
    ...     title="right",
    ... )
    >>> chart.to_dict()["description"]
    'right under direct: 42%; under cot: 38%. 95%.'
    """
    import altair as alt

    low, high = (before, before) if ends is None else (before + ends[0], before + ends[1])
    if shares:
        low, high = (min(max(end, 0.0), 1.0) for end in (low, high))
    least, most = min(before, after, low), max(before, after, high)
    pad = 0.12 * ((most - least) or max(abs(most), 1e-9))
    first, second = names
    beside = alt.Axis(ticks=False, domain=False, labelPadding=8)
    y = alt.Y("arm:N", title=None, sort=[first, second], axis=beside)
    written = ".0%" if shares and most - least > 0.03 else ".1%" if shares else "~g"
    axis: dict[str, Any] = {"format": written, "grid": False}
    if shares:
        # No answers are right in more than all cases, though the marks need room there.
        inside = "datum.value < -1e-9 || datum.value > 1 + 1e-9"
        axis = {"labelExpr": f"{inside} ? '' : format(datum.value, '{written}')", "grid": False}
    x = alt.X(
        "at:Q",
        title=title,
        scale=alt.Scale(domain=[least - pad, most + pad], zero=False, nice=False),
        axis=alt.Axis(**axis),
    )
    rows = [
        {"arm": arm, "at": at, "label": label, "words": f"{arm}: {label}", "colour": colour}
        for arm, at, label, colour in zip(names, (before, after), labels, (MUTED, BLUE), strict=True)
    ]
    marks: Any = alt.Chart(data(rows))
    layers: list[Any] = [rule_at(before)]
    if ends is not None:
        ends_of = {"arm": second, "at": low, "to": high, "words": interval}
        # In the middle of the interval, as far as a text of so many pixels has room there.
        half = 0.5 * min(1.0, 6.4 * len(interval) / max(width - 110, 1)) * (most - least + 2 * pad)
        middle = max(least - pad + half, min((low + high) / 2, most + pad - half))
        line: Any = alt.Chart(data([ends_of]))
        written_at: Any = alt.Chart(data([{"arm": second, "at": middle, "label": interval}]))
        layers += [
            line.mark_rule(color=BLUE, strokeWidth=9, opacity=0.45, strokeCap="butt").encode(
                x=x, x2="to:Q", y=y, description="words:N"
            ),
            written_at.mark_text(color=MUTED, dy=19, fontSize=12).encode(x=x, y=y, text="label:N"),
        ]
    layers += [
        marks.mark_point(filled=True, size=150, opacity=1).encode(
            x=x, y=y, description="words:N", color=alt.Color("colour:N", scale=None)
        ),
        # Beside the first, where the dashed line stands; over the second, whose interval lies beside.
        alt.Chart(data(rows[:1]))
        .mark_text(color=INK, align="left", dx=13, fontSize=15, fontWeight="bold")
        .encode(x=x, y=y, text="label:N"),
        alt.Chart(data(rows[1:]))
        .mark_text(color=INK, dy=-16, fontSize=15, fontWeight="bold")
        .encode(x=x, y=y, text="label:N"),
    ]
    said = f"{title} under {names[0]}: {labels[0]}; under {names[1]}: {labels[1]}."
    return layered(
        *layers, description=f"{said} {interval}." if ends is not None else said, width=width, height=104
    )
