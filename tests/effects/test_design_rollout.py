"""A change on a date: pyfixest's figures, matrices, mixed models, invariances, coverage, bad input.

Figures of `staggered` were made with pyfixest 0.60.0: ``did2s(d, yname="y", first_stage="~ x | route + day",
second_stage="~ treat", treatment="treat", cluster="route")``, its event study with ``"~ i(since,
ref=-999)"``, and leads and slope with ``feols("y ~ i(lead, ref=-999) + x | route + day", unchanged,
vcov={"CRV3": "route"}, ssc=ssc(k_adj=False, G_adj=False), fixef_tol=1e-12)`` on the rows before a change (and
``y ~ line + x``). It multiplies the jackknife by G / (G - 1), which the errors here have taken out.
Those of `one_date` are
``feols("y ~ treat | route + day", ...)``, two-way fixed effects of one date and equal counts.
"""

from __future__ import annotations

import json
from functools import cache, partial

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from whyprompt import estimate_effect
from whyprompt.effects.designs.untouched import _left_out
from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.series import _fit, series_regression
from whyprompt.stats.staggered import (
    Panel,
    assignments,
    average_effects,
    changed_cells,
    jackknife,
    leads_and_drift,
    permutation_interval,
    sum_cells,
)

CHANGE = {0: 5, 1: 5, 2: 5, 3: 9, 4: 9, 5: 9, 6: 12, 7: 12}


@cache
def staggered():
    """Give twelve routes over sixteen days, eight of which change on three days; no chance is in it."""
    rows = []
    for g in range(12):
        for t in range(16):
            for r in range(1 + (g * 7 + t * 3) % 3):
                c = CHANGE.get(g, np.inf)
                x = np.sin(1.7 * g + 0.9 * t + 2.3 * r)
                e = np.cos(37.0 * g * g + 11.0 * t * t + 5.0 * r + g * t)
                effect = 0.5 + 0.2 * (t - c) if t >= c else 0.0
                rows.append((g, t, x, 0.3 * g + np.sin(t / 3) + 0.6 * x + effect + 0.8 * e, c))
    frame = pd.DataFrame(rows, columns=["route", "day", "x", "y", "change"])
    frame["arm"] = np.where(frame.day >= frame.change, "new", "old")
    return frame


def one_date():
    frame = staggered().groupby(["route", "day"], as_index=False).first()
    return frame[(frame.change == 5) | np.isinf(frame.change)]


ASKED = {"treatment": "arm", "treated": "new", "control": "old", "outcome": "y", "design": "rollout"}
ASKED |= {"time": "day", "unit": "route"}
DID2S = (
    *(0.3712420035565442, 0.7660802124278381, 0.9912487685120205, 1.5239485780758952, 1.3951489314856131),
    *(1.3736752466753137, 1.9344050863086883, 1.8592524001745705, 1.8708548963646774, 2.504460707000039),
    3.3406146160997277,
)


# -------------------------------------------------------------------------------- against pyfixest
def test_staggered_dates_are_those_of_did2s():
    found = estimate_effect(staggered(), **ASKED, confounders=["x"])
    assert found.estimate == pytest.approx(1.4056470027504493, rel=1e-5)
    events = [p for p in found.parts if p.at is not None and p.at >= 0]
    np.testing.assert_allclose([p.estimate for p in events], DID2S, rtol=1e-5)
    plain = estimate_effect(staggered(), **ASKED)
    assert plain.estimate == pytest.approx(1.4114318716281877, rel=1e-5)
    # Its own errors are no jackknife; with twelve routes they are close.
    assert plain.std_error == pytest.approx(0.12115209456797134, rel=0.3)


def test_leads_and_slope_are_those_of_the_regression_on_unchanged_rows():
    found = estimate_effect(staggered(), **ASKED, confounders=["x"])
    leads = [p for p in found.parts if p.at is not None and p.at < 0]
    assert [p.at for p in leads] == [-3, -2, -1]
    jack = np.sqrt(11 / 12)
    coef = [0.2071045720224329, 0.08869981612676124, -0.14248760669949093]
    error = np.array([0.24310464872001242, 0.23417694492680868, 0.1938569598526262]) * jack
    np.testing.assert_allclose([p.estimate for p in leads], coef, rtol=1e-6)
    np.testing.assert_allclose([p.std_error for p in leads], error, rtol=1e-6)
    assert found["drift"] == pytest.approx(0.0031398960721439576, rel=1e-6)
    panel = sum_cells(*_arrays(staggered()))
    change = np.array([CHANGE.get(g, np.inf) for g in range(12)])
    value = leads_and_drift(panel, change, [])
    covariance, df = jackknife(panel, change, lambda p, c: leads_and_drift(p, c, []), value)
    assert np.sqrt(covariance[0, 0]) == pytest.approx(0.028920256123851327 * jack, rel=1e-6)
    p = 2 * stats.t.sf(abs(value[0]) / np.sqrt(covariance[0, 0]), df[0])
    assert found["drift_p"] == pytest.approx(p, rel=1e-9)


def test_one_date_and_equal_counts_are_two_way_fixed_effects():
    found = estimate_effect(one_date(), **ASKED)
    assert found.estimate == pytest.approx(1.7706275891315515, rel=1e-9)
    assert found.std_error == pytest.approx(0.2304474204596344 * np.sqrt(6 / 7), rel=1e-9)


def _arrays(frame, columns=("x",)):
    route = np.unique(frame.route, return_inverse=True)[1]
    return (frame.y.to_numpy(), frame[list(columns)].to_numpy(), route, frame.day.to_numpy(float))


def test_the_bias_of_a_drift_is_what_the_drift_does():
    """A straight line added to the routes that change moves the estimate by its slope times the bias."""
    frame = staggered()
    before = estimate_effect(frame, **ASKED)
    line = np.where(np.isfinite(frame.change), frame.day - frame.change, 0.0)
    moved = estimate_effect(frame.assign(y=frame.y + 0.4 * line), **ASKED)
    assert moved["drift"] - before["drift"] == pytest.approx(0.4, rel=1e-9)
    shift = moved.estimate - before.estimate
    assert moved["drift_bias"] - before["drift_bias"] == pytest.approx(shift, rel=1e-8)
    assert moved["drift_p"] < 1e-4
    assert "may therefore not be claimed" in moved.sentence


# ------------------------------------------------------------------------------------ invariances
def test_what_changes_nothing_changes_nothing():
    frame = staggered()
    base = estimate_effect(frame, **ASKED, confounders=["x"])

    def same(made, by=1.0):
        ours, theirs = (
            np.array([[p.estimate, p.std_error, p.ci_low] for p in (r.overall, *r.parts)], dtype=float)
            for r in (made, base)
        )
        np.testing.assert_allclose(ours, by * theirs, rtol=1e-6, atol=1e-9)

    same(estimate_effect(frame.sample(frac=1, random_state=3), **ASKED, confounders=["x"]))
    same(estimate_effect(frame.assign(y=3 * frame.y + 20), **ASKED, confounders=["x"]), 3.0)
    same(estimate_effect(frame.assign(y=frame.y + 7 * frame.route), **ASKED, confounders=["x"]))
    same(estimate_effect(frame.assign(y=frame.y + np.cos(frame.day)), **ASKED, confounders=["x"]))
    same(
        estimate_effect(frame.assign(route="r" + (99 - frame.route).astype(str)), **ASKED, confounders=["x"])
    )
    same(estimate_effect(frame.assign(day=frame.day - 400), **ASKED, confounders=["x"]))
    days = pd.Timestamp("2025-03-01") + pd.to_timedelta(frame.day, unit="D")
    for when in (days, days.dt.strftime("%Y-%m-%d"), days.dt.date, days.dt.tz_localize("UTC")):
        same(estimate_effect(frame.assign(day=when), **ASKED, confounders=["x"]))
    # The dates instead of the arms; a route without one is untouched, as is one whose change is yet to come.
    dates = {str(g): f"2025-03-{c + 1:02d}" for g, c in CHANGE.items()} | {"9": None, "11": "2025-08-01"}
    given = {**ASKED, "treatment": None, "treated": None, "control": None, "changed": dates}
    by_date = estimate_effect(frame.assign(day=days), **given, confounders=["x"])
    same(by_date)
    assert (by_date.treated, by_date.control) == ("after", "before")
    assert "on 3 dates from 2025-03-06 to 2025-03-13" in by_date.sentence


def test_periods_of_hours_and_weeks():
    frame = staggered()
    hours = pd.Timestamp("2025-03-01") + pd.to_timedelta(frame.day, unit="h")
    found = estimate_effect(frame.assign(day=hours), **ASKED, period=1 / 24)
    assert found.estimate == pytest.approx(estimate_effect(frame, **ASKED).estimate, rel=1e-9)
    # Days 5 to 8 and 9 to 12, with the anchor at the first change, whose own weeks no other change divides.
    weeks = estimate_effect(frame, **ASKED, period=4)
    assert [p.at for p in weeks.parts if p.by == "periods since the change" and p.at >= 0] == [0, 1, 2]
    assert any("row" in text and "period of a change" in text for text in weeks.warnings)


def test_rows_after_the_last_untouched_route_are_counted_and_not_used():
    frame = staggered()
    found = estimate_effect(frame[np.isfinite(frame.change)], **ASKED)
    late = int(((frame.day >= 12) & np.isfinite(frame.change)).sum())
    assert f"{late} changed rows of a time when no route was unchanged" in " ".join(found.warnings)
    assert found.n_treated - found.n_treated_used == late
    assert "before their own dates" in found.sentence


# --------------------------------------------------------------------------------------- coverage
def _simulated(rng, change, *, days=12, rho=0.5, spread=0.0):
    g = len(change)
    shock = np.empty((g, days))
    shock[:, 0] = rng.normal(size=g)
    for t in range(1, days):
        shock[:, t] = rho * shock[:, t - 1] + np.sqrt(1 - rho**2) * rng.normal(size=g)
    times = np.arange(float(days))
    effect = np.where(times >= change[:, None], 1.0 + spread * rng.normal(size=(g, 1)), 0.0)
    y = shock + rng.normal(size=(g, 1)) + np.sin(times) + effect
    return Panel(times, np.ones((g, days)), y, *(np.zeros((g, days, *k)) for k in ((0,), (0, 0), (0,))))


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_leaving_out_routes_covers(spread):
    """95% intervals of 4 early, 4 late and 8 untouched routes, autocorrelated: Monte Carlo error .009."""
    rng = np.random.default_rng(3)
    change = np.repeat([4.0, 7.0, np.inf], [4, 4, 8])
    hits, draws = 0, 600
    for _ in range(draws):
        panel = _simulated(rng, change, spread=spread)
        value = average_effects(panel, change)
        covariance, df = jackknife(panel, change, average_effects, value)
        hits += abs(value[0] - 1) <= stats.t.ppf(0.975, df[0]) * np.sqrt(covariance[0, 0])
    assert 0.93 <= hits / draws <= 0.985


def test_the_event_study_covers_at_once():
    """Eight periods of 16 routes, all within their simultaneous intervals: Monte Carlo error .022."""
    rng = np.random.default_rng(3)
    change = np.repeat([4.0, 7.0, np.inf], [4, 4, 8])
    estimate = partial(average_effects, at=list(range(8)))
    hits = np.zeros(2)
    for _ in range(100):
        panel = _simulated(rng, change)
        told = _left_out(panel, change, estimate, estimate(panel, change), level=0.95, nil=0.0)[1:]
        hits[0] += all(row["simultaneous_low"] <= 1 <= row["simultaneous_high"] for row in told)
        hits[1] += all(row["ci_low"] <= 1 <= row["ci_high"] for row in told)
    assert hits[0] >= 89
    assert hits[1] < 89


def test_dealing_the_dates_covers_with_two_changed_routes():
    """The 95% interval of all 28 ways of two routes among eight (exactly 27 of 28): Monte Carlo error .01."""
    rng = np.random.default_rng(4)
    change = np.repeat([6.0, np.inf], [2, 6])
    hits, draws = 0, 300
    ways, every = assignments(change, 99, rng)
    assert (len(ways), every) == (27, True)
    dates = np.unique(change)
    for _ in range(draws):
        panel = _simulated(rng, change)
        unit = panel.of(changed_cells(panel, change).astype(float))
        pairs = np.array([[average_effects(p, dates[w])[0] for p in (panel, unit)] for w in ways])
        low, high, _ = permutation_interval(average_effects(panel, change)[0], *pairs.T, 0.95)
        hits += low <= 1 <= high
    assert hits / draws == pytest.approx(27 / 28, abs=0.033)


def test_an_end_of_the_interval_is_an_effect_that_the_ways_just_keep():
    rng = np.random.default_rng(6)
    change = np.repeat([6.0, np.inf], [2, 6])
    panel, dates = _simulated(rng, change), np.unique(change)
    done = changed_cells(panel, change)
    ways, _ = assignments(change, 99, rng)

    def p_of(effect):
        less = panel._replace(y=panel.y - effect * done)
        drawn = [average_effects(less, dates[w])[0] for w in ways]
        own = average_effects(less, change)[0]
        return (1 + sum(abs(d) >= abs(own) - 1e-12 for d in drawn)) / (len(ways) + 1)

    unit = panel.of(done.astype(float))
    pairs = np.array([[average_effects(p, dates[w])[0] for p in (panel, unit)] for w in ways])
    low, high, p = permutation_interval(average_effects(panel, change)[0], *pairs.T, 0.95)
    assert p == pytest.approx(p_of(0.0))
    assert p_of(low - 1e-6) <= 0.05 < p_of(low + 1e-6)
    assert p_of(high + 1e-6) <= 0.05 < p_of(high - 1e-6)


@pytest.mark.slow
def test_of_routes_that_do_move_alike_few_are_doubted():
    """The tests before a change, together at 5%: false alarms of 300, Monte Carlo error .013."""
    rng = np.random.default_rng(9)
    change = np.repeat([7.0, np.inf], [7, 7])
    alarms = 0
    for _ in range(300):
        panel = _simulated(rng, change, rho=0.3)
        rows = {
            "y": panel.y.ravel(),
            "day": np.tile(np.arange(12), 14),
            "route": np.repeat(np.arange(14), 12),
        }
        frame = pd.DataFrame(rows)
        found = estimate_effect(
            frame, outcome="y", design="rollout", time="day", unit="route", changed=dict.fromkeys(range(7), 7)
        )
        alarms += any(a.status == "fails" for a in found.assumptions)
    assert alarms / 300 <= 0.075


# ------------------------------------------------------------------------------- few routes, sentences
def test_few_routes_are_judged_by_other_ways_to_deal_the_dates():
    frame = staggered()
    some = frame[frame.route.isin([0, 1, 8, 9, 10, 11]) | (frame.route == 2)]
    two = some[some.route != 2]
    found = estimate_effect(two, **ASKED)
    assert found.std_error is None
    assert "2 of 6 routes changed" in " ".join(found.warnings)
    # Fifteen ways show no p below 1/15.
    assert found.p_value >= 1 / 15
    assert found.ci_low == -np.inf
    assert "too few to bound it" in found.sentence
    assert json.loads(json.dumps(found.to_dict()))["ci_low"] is None
    asked = estimate_effect(some, **ASKED, std_error="permutation")
    assert asked.std_error is None
    assert asked.estimate == estimate_effect(some, **ASKED).estimate
    one = estimate_effect(some[~some.route.isin([1, 2])], **ASKED)
    assert one.p_value >= 1 / 5


def test_the_event_study_is_drawn():
    found = estimate_effect(staggered(), **ASKED)
    spec = found.plot().to_dict()
    assert spec["description"].startswith("Event study over 14 periods, 3 before the change.")
    assert found.plot("effect").to_dict()["layer"]
    with pytest.raises(EstimationError, match="one of: events, effect"):
        found.plot("balance")


def test_a_weak_look_before_the_change_is_called_one():
    frame = staggered()
    flat = frame.assign(y=frame.y - np.where(frame.arm == "new", 1.3, 0.0))
    found = estimate_effect(flat, **ASKED)
    held = {a.name: a for a in found.assumptions}
    assert held["parallel trends"].status == "doubtful"
    assert "one as large as the estimate may go unseen" in found.sentence
    assert held["no anticipation"].detail.startswith("a placebo date")


# ------------------------------------------------------------------------------------ one series
def _series(rng, *, days=40, rows=8, rho=0.4, shock=0.5, effect=1.0, slope=0.02):
    n = rng.poisson(rows - 1, days) + 1
    noise = np.empty(days)
    noise[0] = rng.normal()
    for t in range(1, days):
        noise[t] = rho * noise[t - 1] + np.sqrt(1 - rho**2) * rng.normal()
    day = np.repeat(np.arange(days), n)
    x = rng.normal(size=len(day))
    y = shock * noise[day] + effect * (day >= days // 2) + slope * day + 0.5 * x + rng.normal(size=len(day))
    return pd.DataFrame({"day": day, "x": x, "y": y})


ONE = {"outcome": "y", "design": "rollout", "time": "day", "changed": 20}


def test_the_series_is_generalised_least_squares_on_rows():
    """At its own variances: statsmodels' GLS with the whole covariance of the rows, and its likelihood."""
    frame = _series(np.random.default_rng(1), days=15)
    day = frame.day.to_numpy(float)
    design = np.column_stack([np.ones(len(frame)), frame.day >= 7, frame.day, frame.x]).astype(float)
    coef, covariance, _, told = series_regression(frame.y.to_numpy(), design, day)
    assert told["shock"] > 0.1

    def whole(shock, rho, noise):
        gap = np.abs(day[:, None] - day[None, :])
        return shock**2 * np.where(gap == 0, 1.0, rho**gap) + noise**2 * np.eye(len(day))

    sigma = whole(told["shock"], told["autocorrelation"], told["noise"])
    theirs = sm.GLS(frame.y.to_numpy(), design, sigma=sigma).fit()
    np.testing.assert_allclose(coef, theirs.params, rtol=1e-6)
    np.testing.assert_allclose(covariance, theirs.normalized_cov_params, rtol=1e-6)
    # The restricted likelihood is that of what no coefficient touches.
    basis = np.linalg.svd(design.T)[2][design.shape[1] :]

    def restricted(shock, rho):
        inner = basis @ whole(shock, rho, told["noise"]) @ basis.T
        return stats.multivariate_normal(cov=inner).logpdf(basis @ frame.y.to_numpy())

    top = restricted(told["shock"], told["autocorrelation"])
    for shock, rho in ((0.9, 1.0), (1.1, 1.0), (1.0, 0.8), (1.0, 1.2)):
        assert restricted(told["shock"] * shock, told["autocorrelation"] * rho) <= top + 1e-6


def test_without_autocorrelation_it_is_a_mixed_model():
    rng = np.random.default_rng(2)
    frame = _series(rng, rho=0.0, rows=6)
    frame = frame[frame.groupby("day").cumcount() < 4]
    frame = frame[frame.groupby("day").y.transform("size") == 4]
    design = np.column_stack([np.ones(len(frame)), frame.day >= 20, frame.day]).astype(float)
    theirs = sm.MixedLM(frame.y.to_numpy(), design, groups=frame.day).fit(reml=True)
    day = frame.day.to_numpy(float)
    times = np.unique(day)
    means = frame.groupby("day").y.mean().to_numpy()
    _, coef, covariance = _fit(
        np.array([np.log(float(theirs.cov_re[0, 0])), 0.0]),
        gap=np.abs(times[:, None] - times[None, :]),
        count=np.full(len(times), 4.0),
        noise=theirs.scale,
        x=design[::4],
        y=means,
        within=np.zeros((3, 3)),
        across=np.zeros(3),
    )
    np.testing.assert_allclose(coef, theirs.fe_params, rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), theirs.bse_fe, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("rho", "shock", "rows"), [(0.0, 0.0, 8), (0.3, 0.5, 8), (0.5, 1.0, 1)])
def test_the_series_covers(rho, shock, rows):
    """95% intervals of a change amid 40 days, over 150 series: Monte Carlo error .018."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(150):
        frame = _series(rng, rho=rho, shock=shock, rows=rows)
        design = np.column_stack([np.ones(len(frame)), frame.day >= 20, frame.day]).astype(float)
        y = (frame.y - 0.5 * frame.x).to_numpy()
        coef, covariance, df, _ = series_regression(y, design, frame.day.to_numpy(float))
        hits += abs(coef[1] - 1) <= stats.t.ppf(0.975, df(1)) * np.sqrt(covariance[1, 1])
    assert hits / 150 >= 0.9


def test_one_series_says_how_weak_it_is():
    frame = _series(np.random.default_rng(11))
    found = estimate_effect(frame, **ONE, confounders=["x"])
    assert "no design is weaker" in found.sentence
    assert (found["periods_before"], found["periods_after"]) == (20, 20)
    assert {a.name: a.status for a in found.assumptions}["nothing else changed"] == "untestable"
    assert found.part("a placebo date 10 earlier").p_value is not None
    assert found.plot().to_dict()["description"].startswith("Event study over 40 periods, 20 before")
    shifted = estimate_effect(
        frame.sample(frac=1, random_state=0).assign(y=lambda f: f.y + 3), **ONE, confounders=["x"]
    )
    assert shifted.estimate == pytest.approx(found.estimate, rel=1e-4)
    assert shifted.std_error == pytest.approx(found.std_error, rel=1e-3)
    # Routes that all change at once are one series, with levels of their own.
    both = pd.concat([frame.assign(route="a"), frame.assign(route="b", y=frame.y + 5)])
    assert "no design is weaker" in estimate_effect(both, **ONE, unit="route").sentence
    level = estimate_effect(frame.assign(y=frame.y - 0.02 * frame.day), **ONE, trend="none")
    assert level.std_error < found.std_error


def test_a_trend_that_bends_before_the_change_forbids_the_claim():
    frame = _series(np.random.default_rng(12), effect=0.0, shock=0.05)
    bent = frame.assign(y=frame.y + 3.0 * (frame.day >= 10))
    found = estimate_effect(bent, **ONE)
    assert {a.name: a.status for a in found.assumptions}["trend"] == "fails"
    assert "may therefore not be claimed" in found.sentence


# -------------------------------------------------------------------------------------- bad input
def _without(*routes):
    return lambda f: f[~f.route.isin(routes)]


@pytest.mark.parametrize(
    ("change", "options", "error", "text"),
    [
        (None, {"time": None}, EstimationError, "needs time="),
        (None, {"time": "days"}, DataError, "did you mean 'day'"),
        (lambda f: f.assign(day="soon"), {}, DataError, "time column 'day' holds 'soon' in row 0"),
        (lambda f: f.assign(day=f.day.where(f.day > 0)), {}, DataError, "missing value"),
        (
            None,
            {"treatment": None, "treated": None, "control": None},
            EstimationError,
            "when the prompt changed",
        ),
        (None, {"changed": "soon"}, EstimationError, "changed='soon' is no number"),
        (
            lambda f: f.assign(day=pd.Timestamp("2025-01-01")),
            {"changed": "soon"},
            EstimationError,
            "is no date",
        ),
        (lambda f: f.assign(day=pd.Timestamp("2025-01-01")), {"changed": 5}, EstimationError, "is no date"),
        (None, {"changed": {"0": 5, "zero": 5}}, DataError, "changed= names 'zero', which 'route' does not"),
        (None, {"changed": {"0": None}}, EstimationError, "gives no route a date"),
        (None, {"changed": {"0": 5}, "unit": None}, EstimationError, "no column names the routes"),
        (None, {"changed": {"0": 6}}, EstimationError, "not under the arm of their date"),
        (
            lambda f: f.assign(arm=np.where(f.index % 2 == 0, "new", "old")),
            {},
            EstimationError,
            "not under the arm",
        ),
        (
            lambda f: f[f.day < 5],
            {"changed": 5, "treatment": None, "treated": None, "control": None},
            EstimationError,
            "no row lies at or after",
        ),
        (
            lambda f: f[f.day >= 5],
            {"changed": 5, "treatment": None, "treated": None, "control": None, "unit": None},
            EstimationError,
            "no row lies before",
        ),
        (
            lambda f: f[(f.route > 0) | (f.day >= 5)],
            {},
            DataError,
            "'route' '0' has no row before the change",
        ),
        (None, {"unit": "arm"}, EstimationError, "'arm' is the unit"),
        (None, {"time": "y"}, EstimationError, "'y' is the time"),
        (None, {"period": 0}, EstimationError, "period=0 is no length of time"),
        (None, {"leads": -1}, EstimationError, "leads=-1"),
        (None, {"trend": "bent"}, EstimationError, "trend='bent' is not known"),
        (None, {"std_error": "bootstrap"}, EstimationError, "jackknife, permutation"),
        (
            None,
            {
                "std_error": "jackknife",
                "unit": None,
                "changed": 5,
                "treatment": None,
                "treated": None,
                "control": None,
            },
            EstimationError,
            "is of routes",
        ),
        (None, {"cluster": "route"}, EstimationError, "cluster= has no meaning with design='rollout'"),
        (None, {"method": "ipw"}, EstimationError, "method= has no meaning with design='rollout'"),
        (None, {"instrument": "x"}, EstimationError, "it is of design='instrument'"),
        (None, {"outcome": ["y", "x"]}, EstimationError, "one outcome"),
        (None, {"confounders": ["completion_tokens"]}, EstimationError, "completion_tokens"),
        (
            lambda f: f[f.route == 0][f.day >= 4],
            {"unit": None},
            EstimationError,
            "1 period before the change",
        ),
        (
            None,
            {"design": "observational", "time": None, "unit": None, "changed": "2025-01-01"},
            EstimationError,
            "changed= has no meaning",
        ),
        (lambda f: f.assign(y=1.0), {}, EstimationError, "outcome 'y' is constant"),
    ],
)
@pytest.mark.filterwarnings("ignore:Boolean Series key")
def test_bad_input_is_named(change, options, error, text):
    frame = staggered().assign(completion_tokens=3.0)
    with pytest.raises(error, match=text.replace("'", "'")):
        estimate_effect(frame if change is None else change(frame), **{**ASKED, **options})


def test_no_treatment_is_an_error_of_other_designs():
    with pytest.raises(EstimationError, match="treatment= is not given"):
        estimate_effect(staggered(), outcome="y", confounders=["x"])


def test_no_spread_in_the_sample_is_no_certainty():
    """Routes (or days) without any noise: the estimate, and no error that is only rounding."""
    frame = staggered()
    exact = frame.assign(y=frame.route + np.sin(frame.day) + 2.0 * (frame.arm == "new"))
    found = estimate_effect(exact, **ASKED)
    assert found.estimate == pytest.approx(2.0)
    assert (found.std_error, found.ci_low, found.p_value) == (None, None, None)
    one = frame[frame.route == 0]
    series = estimate_effect(one.assign(y=one.day + 2.0 * (one.day >= 6)), **{**ONE, "changed": 6})
    assert series.estimate == pytest.approx(2.0)
    assert series.std_error is None
    wide = one.groupby("day", as_index=False).first()
    wide = wide.assign(**{f"c{k}": np.sin((k + 2.0) * wide.day**2) for k in range(16)})
    with pytest.raises(EstimationError, match="cannot tell a change, a trend and"):
        estimate_effect(wide, **{**ONE, "changed": 6}, confounders=[f"c{k}" for k in range(16)])


def test_any_frame_and_any_kind_of_date():
    import polars as pl
    import pyarrow as pa

    frame = staggered().assign(day=lambda f: pd.Timestamp("2025-03-01") + pd.to_timedelta(f.day, unit="D"))
    base = estimate_effect(frame, **ASKED)
    days = pl.from_pandas(frame).with_columns(pl.col("day").cast(pl.Date))
    zoned = pa.Table.from_pandas(frame.assign(day=frame.day.dt.tz_localize("Europe/Berlin")))
    for other in (days, zoned, pa.Table.from_pandas(frame)):
        assert estimate_effect(other, **ASKED).estimate == pytest.approx(base.estimate, rel=1e-9)
    gaps = pl.from_pandas(frame).with_columns(pl.when(pl.col("route") > 0).then(pl.col("day")).alias("day"))
    with pytest.raises(DataError, match=r"time column 'day' has .* missing value"):
        estimate_effect(gaps, **ASKED)
