"""Routes that changed against those that did not, or not yet: difference in differences and event study."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted, format_number, p_words
from whyprompt.effects.assumptions import not_claimed
from whyprompt.effects.designs.columns import arm_counts, design_result, given_words
from whyprompt.effects.measures import stated
from whyprompt.effects.power import detectable_effect
from whyprompt.effects.result import interval_words
from whyprompt.errors import EstimationError
from whyprompt.results import Assumption, Estimate
from whyprompt.stats.rules import few_clusters, holm
from whyprompt.stats.several import correlation, max_t
from whyprompt.stats.staggered import (
    assignments,
    average_effects,
    changed_cells,
    fit_unchanged,
    jackknife,
    leads_and_drift,
    permutation_interval,
    sum_cells,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.designs.rows import Rollout
    from whyprompt.effects.result import EffectResult
    from whyprompt.results import Status
    from whyprompt.stats.staggered import Panel, Statistic

    Floats = NDArray[np.float64]
    # What an estimate of each number of a statistic is told with: error, df, interval, p.
    Judge = Callable[[Panel, Floats, Statistic, Floats], list[dict[str, float | None]]]

# With fewer routes on a side leaving one out says next to nothing of their spread (simulated: two changed
# routes of twenty give intervals four times as long that cover 89%).
_FEW = 3
_SINGULAR = 1e-9
# A share of the outcomes' spread below which a standard error is rounding.
_NIL = 1e-12
SINCE = "periods since the change"


def against_untouched(
    rows: Rollout, *, leads: int, level: float, std_error: str, draws: int, random_state: int
) -> EffectResult:
    """Impute what changed rows would have been from routes that are not changed, or not yet.

    Errors leave out one route at a time; with fewer than three routes on a side, or on demand, p and interval
    are those of the other ways in which the dates could have fallen on the routes.
    """
    panel = sum_cells(rows.y, rows.x, rows.route, rows.period)
    change = rows.change
    done = changed_cells(panel, change)
    changed = int(np.isfinite(change).sum())
    sizes = (changed, len(change) - changed)
    since = np.unique((panel.periods[None, :] - change[:, None])[done])
    estimate = partial(average_effects, at=since.tolist())
    value = estimate(panel, change)
    if value is None:
        raise EstimationError(
            "no changed row has unchanged ones to stand beside: every route had changed before another was"
            " seen, or routes were seen at different times",
            hint="give rows of a route that did not change, or changed later; or lengthen period=",
        )
    few = min(sizes) < _FEW if sizes[1] else sizes[0] < 2 * _FEW
    by_lot = std_error == "permutation" or (std_error == "auto" and few)
    nil = _NIL * float(np.ptp(rows.y))
    judge: Judge = partial(_left_out, level=level, nil=nil)
    past, note = panel, ""
    if by_lot:
        others, every = assignments(change, draws, np.random.default_rng(random_state))
        judge = partial(_dealt, others=others, level=level)
        # Dates can only be dealt among routes that are seen alike.
        past = panel.only(np.broadcast_to(panel.periods < change.min(), done.shape))
        note = _lot_note(sizes, len(others), few=few, every=every)
    told = judge(panel, change, estimate, value)
    lost = _lost(panel, change)
    overall = _row("overall", value[0], told[0], **arm_counts(rows.after, lost=lost))
    later = [_event(e, value[j + 1], told[j + 1]) for j, e in enumerate(since)]
    earlier, before = _before(past, change, leads, level, judge, joint=not by_lot, nil=nil)
    placebo = _placebo(past, change, judge)
    aside = (f"{counted(lost, 'changed row')} of a time when no route was unchanged any more are not used",)
    made = design_result(
        overall,
        rows.outcome,
        rows.names,
        treatment=rows.treatment,
        estimand="att",
        method="imputation",
        parts=(*earlier, *later, *placebo),
        level=level,
        warnings=(
            *rows.warnings,
            *(aside if lost else ()),
            *((note,) if by_lot else few_clusters(len(change), overall.df)),
        ),
        std_error_method="other ways to deal the dates to the routes"
        if by_lot
        else "leaving out one route at a time (CV3), Welch's df",
        confounders=rows.confounders,
        n_clusters=len(change),
        figures={"routes_changed": sizes[0], "routes_unchanged": sizes[1], **before},
    )
    made = replace(made, assumptions=_assumptions(made, placebo))
    return replace(made, sentence=_sentence(made, rows))


def _lot_note(sizes: tuple[int, int], others: int, *, few: bool, every: bool) -> str:
    ways = f"all {others + 1} ways" if every else f"{others} other ways"
    why = f"{sizes[0]} of {sum(sizes)} routes changed, too few of a kind to leave one out: " if few else ""
    return (
        f"{why}p and intervals are from {ways} in which the dates could have fallen on the routes, and hold"
        f" if which routes changed was as good as drawn by lot; no p can be below {1 / (others + 1):.2g}"
    )


def _row(label: str, value: float, told: dict[str, Any], **more: Any) -> Estimate:  # noqa: ANN401 - fields
    return Estimate(label=label, estimate=float(value), **told, **more)


def _event(event: float, value: float, told: dict[str, Any]) -> Estimate:
    return _row(f"{event:+g}" if event else "0", value, told, by=SINCE, at=float(event))


def _left_out(
    panel: Panel, change: Floats, statistic: Statistic, value: Floats, *, level: float, nil: float
) -> list[dict[str, Any]]:
    """Judge numbers by leaving out a route at a time."""
    return _told(value, *jackknife(panel, change, statistic, value), level=level, nil=nil)


def _told(
    value: Floats,
    covariance: Floats,
    df: Floats,
    *,
    level: float,
    nil: float,
    together: slice = slice(1, None),
) -> list[dict[str, Any]]:
    """Give what each number is told with; those `together` have intervals that hold at once, too."""
    out = []
    for v, error, free in zip(value, np.sqrt(np.diag(covariance)), df, strict=True):
        # An error that is rounding is none: no spread in the sample is no certainty.
        known = bool(np.isfinite(error) and error > nil and np.isfinite(free))
        row = stated("", v, float(error) if known else None, float(free) if known else None, level=level)
        out.append({name: getattr(row, name) for name in ("std_error", "df", "ci_low", "ci_high", "p_value")})
    live = [j for j in range(len(value))[together] if out[j]["std_error"] is not None]
    if len(live) > 1:
        joint = correlation(covariance[np.ix_(live, live)])
        reach = max_t(np.zeros(len(live)), joint, level=level, df=float(df[live].min()))[1]
        for j in live:
            half = reach * out[j]["std_error"]
            ends = (float(value[j]) - half, float(value[j]) + half)
            out[j] |= dict(zip(("simultaneous_low", "simultaneous_high"), ends, strict=True))
    return out


def _dealt(
    panel: Panel,
    change: Floats,
    statistic: Statistic,
    value: Floats,
    *,
    others: Sequence[NDArray[np.intp]],
    level: float,
) -> list[dict[str, Any]]:
    """Judge numbers by dealing the dates to the routes in other ways.

    A date that leaves a route without rows before it could not have fallen there.
    """
    dates = np.unique(change)
    indicator = panel.of(changed_cells(panel, change).astype(float))
    drawn, own = [], []
    for other in others:
        one, unit = statistic(panel, dates[other]), statistic(indicator, dates[other])
        if one is not None and unit is not None:
            drawn.append(one)
            own.append(unit)
    out = []
    for j, v in enumerate(value):
        pairs = np.array([(d[j], u[j]) for d, u in zip(drawn, own, strict=True)]).reshape(-1, 2)
        pairs = pairs[np.isfinite(pairs).all(axis=1)]
        low, high, p = permutation_interval(float(v), pairs[:, 0], pairs[:, 1], level)
        out.append({"ci_low": low, "ci_high": high, "p_value": p})
    return out


def _before(
    panel: Panel, change: Floats, leads: int, level: float, judge: Judge, *, joint: bool, nil: float
) -> tuple[list[Estimate], dict[str, float | None]]:
    """Compare the routes before the change: single periods, and the slope with the bias it would make."""
    since = panel.periods[None, :] - change[:, None]
    seen = np.unique(since[(panel.rows > 0) & (since < 0) & np.isfinite(since)])
    # One period at least is left to measure from.
    wanted = [float(e) for e in seen[1:][-leads:]] if leads else []
    statistic = partial(leads_and_drift, leads=wanted)
    value = statistic(panel, change) if len(seen) > 1 else None
    if value is None:
        return [], {}
    covariance = np.full((len(value), len(value)), np.nan)
    if joint:
        covariance, df = jackknife(panel, change, statistic, value)
        told = _told(value, covariance, df, level=level, nil=nil, together=slice(-1))
    else:
        # Dealing the dates anew says how likely each is, and nothing of its interval: no row is changed yet.
        told = [{"p_value": one["p_value"]} for one in judge(panel, change, statistic, value)]
    rows = [_event(e, value[j], told[j]) for j, e in enumerate(wanted)]
    last = told[-1]
    error, free = last.get("std_error"), last.get("df")
    by = _bias_of_drift(panel, change) if joint else None
    least = None
    if error is not None and free is not None and by is not None:
        least = abs(by) * detectable_effect(error, df=max(free, 1.0), level=level, power=0.8)
    return rows, {
        "drift": float(value[-1]),
        "drift_p": last["p_value"],
        "drift_bias": None if by is None else float(value[-1]) * by,
        "detectable_drift_bias": least,
        "leads_p": _jointly(value[:-1], covariance[:-1, :-1], len(change) - 1),
    }


def _bias_of_drift(panel: Panel, change: Floats) -> float | None:
    """Give what a drift of one a period, of the routes that change, makes of the estimate."""
    since = panel.periods[None, :] - change[:, None]
    found = average_effects(panel.of(np.where(np.isfinite(since), since, 0.0)), change)
    return None if found is None else float(found[0])


def _jointly(value: Floats, covariance: Floats, df: int) -> float | None:
    """Test all leads at once, by Hotelling's T squared of the routes left out one at a time."""
    from scipy import stats

    k = len(value)
    scale = np.sqrt(np.diag(covariance))
    if not k or df < k or not np.isfinite(covariance).all() or not (scale > 0).all():
        return None
    joint = covariance / np.outer(scale, scale)
    if np.linalg.eigvalsh(joint)[0] < _SINGULAR:
        return None
    square = float(value / scale @ np.linalg.solve(joint, value / scale))
    return float(stats.f.sf(square * (df - k + 1) / (df * k), k, df - k + 1))


def _placebo(panel: Panel, change: Floats, judge: Judge) -> tuple[Estimate, ...]:
    """Move every change to the middle of the shortest time before one, without rows after the real one."""
    since = panel.periods[None, :] - change[:, None]
    seen = np.where((panel.rows > 0) & (since < 0) & np.isfinite(since), -since, 0.0)
    reach = seen.max(axis=1)
    shift = float(np.floor(reach[reach > 0].min() / 2)) if (reach > 0).any() else 0.0
    if shift < 1:
        return ()
    past, moved = panel.only(~changed_cells(panel, change)), change - shift
    value = average_effects(past, moved)
    if value is None:
        return ()
    told = judge(past, moved, average_effects, value)
    return (_row(f"a placebo date {shift:g} earlier", value[0], told[0], by="placebo"),)


def _lost(panel: Panel, change: Floats) -> int:
    """Count changed rows that nothing unchanged of their period stands beside."""
    found = fit_unchanged(panel, change)
    assert found is not None
    return int(panel.rows[changed_cells(panel, change) & ~np.isfinite(found[0])].sum())


def _assumptions(made: EffectResult, placebo: tuple[Estimate, ...]) -> tuple[Assumption, ...]:
    # Looked at together, so that of routes that do move alike one in twenty is doubted, and not one in seven.
    tests = {"drift": made.figures.get("drift_p"), "leads": made.figures.get("leads_p")}
    tests["placebo"] = placebo[0].p_value if placebo else None
    known = {name: p for name, p in tests.items() if isinstance(p, float)}
    adjusted = dict(zip(known, holm(list(known.values())), strict=True))
    found = {name: p < 1 - made.level for name, p in adjusted.items()}
    return (
        _parallel(made, failed=found.get("drift", False) or found.get("leads", False)),
        *(_no_anticipation(row, failed=found.get("placebo", False)) for row in placebo),
        Assumption(
            name="no interference",
            status="untestable",
            check="none is possible from these data",
            detail="what one route was sent is taken not to change what others answer",
        ),
        Assumption(
            name="independent units",
            status="holds",
            check="rows were grouped by route",
            detail="errors may be correlated within a route and not between routes",
        ),
    )


def _parallel(made: EffectResult, *, failed: bool) -> Assumption:
    p, joint = made.figures.get("drift_p"), made.figures.get("leads_p")
    name, check = "parallel trends", "the routes' slopes and single periods before the change were compared"
    if not isinstance(p, float):
        return Assumption(
            name=name,
            status="not checked",
            check="too few routes or periods before the change to compare slopes",
            detail="without the change the routes are taken to have moved alike",
        )
    words = f"before it they drift apart by {format_number(made['drift'])} a period (p {p_words(p)})"
    if isinstance(joint, float):
        words += f", and at single periods jointly with p {p_words(joint)}"
    if failed:
        bias = made["drift_bias"]
        alone = "" if bias is None else f"; such a drift alone would make the estimate {format_number(bias)}"
        return Assumption(name=name, status="fails", check=check, detail=words + alone)
    seen = made["detectable_drift_bias"]
    if seen is None:
        power = "; how small a drift would have been seen is not known from ways to deal the dates"
    else:
        power = f"; a drift that alone would make the estimate {format_number(seen)} is seen with power 0.8"
    if seen is not None and seen > abs(made.estimate):
        power += ", so that one as large as the estimate may go unseen"
    status: Status = "holds" if seen is not None and seen <= abs(made.estimate) else "doubtful"
    return Assumption(name=name, status=status, check=check, detail=words + power)


def _no_anticipation(row: Estimate, *, failed: bool) -> Assumption:
    status: Status = "not checked" if row.p_value is None else "fails" if failed else "holds"
    return Assumption(
        name="no anticipation",
        status=status,
        check="the change was moved to before it came, on the rows before it",
        detail=f"{row.label} shows {format_number(row.estimate)}"
        + ("" if row.p_value is None else f" (p {p_words(row.p_value)})"),
    )


def _sentence(made: EffectResult, rows: Rollout) -> str:
    changed, unchanged = made["routes_changed"], made["routes_unchanged"]
    dates = sorted({date for date in rows.dates if date})
    when = f"on {dates[0]}" if len(dates) == 1 else f"on {len(dates)} dates from {dates[0]} to {dates[-1]}"
    to = f" to {made.treated!r}" if rows.named else ""
    beside = f"beside {unchanged} that did not" if unchanged else "beside each other before their own dates"
    more = "higher" if made.estimate >= 0 else "lower"
    text = (
        f"After {changed} of {len(rows.change)} routes ({rows.unit!r}) changed{to} {when}, {beside},"
        f" {made.outcome!r} is {format_number(abs(made.estimate))} {more} than it would have been"
        f" ({_bounds(made)}), on average over {counted(made.n_treated_used, 'row')} after the change"
    )
    no = not_claimed(
        made.assumptions, "The difference may therefore not be claimed as an effect of the change."
    )
    if no:
        return f"{text}, had all moved alike without it. But {no.lstrip()}"
    text += f", if without it all would have moved alike{given_words(made.confounders)}."
    held = next(a for a in made.assumptions if a.name == "parallel trends")
    if held.status == "doubtful":
        text += f" That is not shown: {held.detail}."
    if held.status == "not checked":
        text += f" That could not be looked at: {held.check}."
    low, high = made.overall.ends
    if np.isfinite(high - low) and low <= 0 <= high:
        text += " The interval includes zero: the data do not decide the sign."
    return text


def _bounds(made: EffectResult) -> str:
    low, high = made.overall.ends
    if np.isfinite(high - low):
        return interval_words(made)
    if made.p_value is None:
        return "no interval can be given"
    return (
        f"p {p_words(made.p_value)}, and no interval: the ways in which the dates could have fallen on the"
        " routes are too few to bound it"
    )
