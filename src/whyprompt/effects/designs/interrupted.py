"""One series before and after a change: nothing but its own trend stands for what would have been."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted, format_number, p_words
from whyprompt.effects.assumptions import not_claimed
from whyprompt.effects.designs.columns import arm_counts, design_result, given_words
from whyprompt.effects.measures import stated
from whyprompt.effects.result import interval_words
from whyprompt.errors import EstimationError
from whyprompt.results import Assumption, Estimate
from whyprompt.stats.design import independent_columns, moments
from whyprompt.stats.influence import with_intercept
from whyprompt.stats.series import series_regression

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.designs.rows import Rollout
    from whyprompt.effects.result import EffectResult
    from whyprompt.results import Status

    Floats = NDArray[np.float64]

# Periods on a side without which neither level nor trend can be told from their shocks.
_LEAST = 3
_FEW = 24
# A share of the outcomes' spread below which a standard error is rounding.
_NIL = 1e-12


def interrupted_series(rows: Rollout, *, trend: str, level: float) -> EffectResult:
    """Estimate how the level changed, beside a trend, covariates and shocks that follow each other."""
    times = np.unique(rows.period)
    sides = (int((times < 0).sum()), int((times >= 0).sum()))
    after = rows.after
    for n, where in zip(sides, ("before", "after"), strict=True):
        if n < _LEAST:
            raise EstimationError(
                f"{counted(n, 'period')} {where} the change: with fewer than {_LEAST} its level cannot be"
                " told from a day's shock",
                hint="shorten period=, or give rows of routes that did not change (unit=)",
            )
    value, error, df, told, level_at = _fit(rows, after, trend)
    overall = stated("overall", value, error, df, level=level, **arm_counts(after))
    placebo = _placebo(rows, trend, level)
    made = design_result(
        overall,
        rows.outcome,
        rows.names,
        treatment=rows.treatment,
        estimand="att",
        method="interrupted series",
        parts=(*level_at, *placebo),
        level=level,
        warnings=(*rows.warnings, *_warnings(sides)),
        std_error_method="shocks by period with first-order autocorrelation (REML), Satterthwaite's df",
        confounders=rows.confounders,
        n_clusters=sum(sides),
        figures={"periods_before": sides[0], "periods_after": sides[1], **told},
    )
    made = replace(made, assumptions=_assumptions(made, placebo, trend))
    return replace(made, sentence=_sentence(made, rows, trend))


def _fit(
    rows: Rollout, after: NDArray[np.bool_], trend: str
) -> tuple[float, float | None, float, dict[str, Any], tuple[Estimate, ...]]:
    """Fit the series; also give each period's distance from what it would have been without a change."""
    period = rows.period
    parts = [after.astype(float)[:, None]]
    if trend == "linear":
        parts.append((period - period.mean())[:, None])
    routes = (rows.route[:, None] == np.arange(1, len(rows.routes))[None, :]).astype(float)
    wide = np.column_stack([*parts, routes, rows.x])
    kept = independent_columns(wide, *moments(wide))
    if 0 not in kept or len(kept) + 1 >= len(period):
        raise EstimationError(
            f"{counted(len(period), 'row')} in {counted(len(np.unique(period)), 'period')} cannot tell a"
            f" change, a trend and {counted(rows.x.shape[1], 'covariate')} apart",
            hint="shorten period=, or adjust for less",
        )
    design = with_intercept(wide[:, kept])
    coef, covariance, df, told = series_regression(rows.y, design, period)
    error = float(np.sqrt(covariance[1, 1]))
    if trend == "linear":
        told["trend_slope"] = float(coef[2])
    without = rows.y - design @ coef + after * coef[1]
    at, place = np.unique(period, return_inverse=True)
    means = np.bincount(place, weights=without) / np.bincount(place)
    events = tuple(
        Estimate(label=f"{e:+g}" if e else "0", estimate=float(v), by="periods since the change", at=float(e))
        for e, v in zip(at, means, strict=True)
    )
    return float(coef[1]), error if error > _NIL * np.ptp(rows.y) else None, df(1), dict(told), events


def _placebo(rows: Rollout, trend: str, level: float) -> tuple[Estimate, ...]:
    """Pretend that the change came in the middle of the time before it."""
    before = rows.period < 0
    times = np.unique(rows.period[before])
    if len(times) < 2 * _LEAST:
        return ()
    middle = times[len(times) // 2]
    past = rows._replace(
        route=rows.route[before], period=rows.period[before], y=rows.y[before], x=rows.x[before]
    )
    try:
        value, error, df, _, _ = _fit(past, past.period >= middle, trend)
    except EstimationError:
        return ()
    label = f"a placebo date {-middle:g} earlier"
    return (stated(label, value, error, df, level=level, by="placebo"),)


def _warnings(sides: tuple[int, int]) -> tuple[str, ...]:
    text = (
        f"{sum(sides)} periods are a short series, whose shocks' autocorrelation is hardly known: the"
        " interval may be too short"
    )
    return (text,) if sum(sides) < _FEW else ()


def _assumptions(made: EffectResult, placebo: tuple[Estimate, ...], trend: str) -> tuple[Assumption, ...]:
    p = placebo[0].p_value if placebo else None
    status: Status = "not checked" if p is None else "fails" if p < 1 - made.level else "doubtful"
    gone_on = "the linear trend" if trend == "linear" else "the level"
    return (
        Assumption(
            name="nothing else changed",
            status="untestable",
            check="none is possible from one series: routes that did not change would be needed",
            detail="whatever else changed then (traffic, the model, the season) is in the estimate",
        ),
        Assumption(
            name="trend",
            status=status,
            check="the change was moved to the middle of the time before it"
            if placebo
            else "too few periods",
            detail=f"{gone_on} before the change is taken to have gone on"
            + (
                f"; a placebo date shows {format_number(placebo[0].estimate)} (p {p_words(p)})"
                if placebo
                else ""
            ),
        ),
        Assumption(
            name="independent units",
            status="holds",
            check="rows were grouped by period, and periods may follow each other",
            detail=f"autocorrelation {format_number(made['autocorrelation'])} of the periods' shocks",
        ),
    )


def _sentence(made: EffectResult, rows: Rollout, trend: str) -> str:
    date = next(date for date in rows.dates if date)
    under = f", under {made.treated!r}" if rows.named else ""
    usual = "the linear trend would have it" if trend == "linear" else "before"
    text = (
        f"From {date} on{under}, {made.outcome!r} is {format_number(abs(made.estimate))}"
        f" {'higher' if made.estimate >= 0 else 'lower'} than {usual}"
        f"{given_words(made.confounders)} ({interval_words(made)},"
        f" {counted(made['periods_before'], 'period')} before and {made['periods_after']} after)."
    )
    no = not_claimed(
        made.assumptions, "The difference may therefore not be claimed as an effect of the change."
    )
    if no:
        return text + no
    low, high = made.overall.ends
    if low <= 0 <= high:
        text += " The interval includes zero: the data do not decide the sign."
    return (
        f"{text} It is an effect of the change only if nothing else changed on that date: no route without"
        " the change stands beside it, and no design is weaker."
    )
