"""Sensitivity analyses against R (rbounds, sensemakr), closed forms and brute force."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from whyprompt import estimate_effect
from whyprompt._words import format_number
from whyprompt.effects.checks.evalue import e_value
from whyprompt.effects.checks.hidden import sensitivity_report
from whyprompt.effects.checks.partial_r2 import (
    adjusted_estimate,
    partial_r2_bounds,
    robustness_value,
)
from whyprompt.effects.checks.rosenbaum import (
    DEFAULT_GAMMAS,
    _kth_walsh,
    _walsh_quantile,
    mcnemar_bounds,
    rosenbaum_bounds,
)
from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.design import design_matrix

REFERENCE = Path(__file__).parents[1] / "reference"
R = json.loads((REFERENCE / "sensitivity_lalonde.json").read_text())
PAIRS = (np.array(R["pairs_y"]["treated"]), np.array(R["pairs_y"]["control"]))


@pytest.fixture(scope="module")
def lalonde():
    return pd.read_csv(REFERENCE / "lalonde.csv")


@pytest.fixture(scope="module")
def regression(lalonde):
    names = ["age", "educ", "race", "married", "nodegree", "re74", "re75"]
    columns = {n: lalonde[n].to_numpy(object if lalonde[n].dtype.kind not in "if" else float) for n in names}
    design = design_matrix(columns)
    return lalonde["re78"].to_numpy(), lalonde["treat"].to_numpy(float), design


# ---------------------------------------------------------------------------------------- Rosenbaum bounds


def test_signed_rank_bounds_equal_the_unrounded_ones_of_r():
    rows = R["signed_rank_bounds_unrounded"]
    got = rosenbaum_bounds(*PAIRS, gammas=[row["gamma"] for row in rows]).parts
    for mine, row in zip(got, rows, strict=True):
        assert mine["p_lower"] == pytest.approx(row["p_lower"], abs=1e-12)
        assert mine["p_upper"] == pytest.approx(row["p_upper"], abs=1e-12)


def test_psens_is_those_bounds_rounded():
    rows = R["rosenbaum_psens"]["bounds"]
    got = rosenbaum_bounds(*PAIRS, gammas=[row["Gamma"] for row in rows]).parts
    for mine, row in zip(got, rows, strict=True):
        assert round(mine["p_lower"], 4) == row["Lower bound"]
        assert round(mine["p_upper"], 4) == row["Upper bound"]


def test_hodges_lehmann_bounds_follow_hlsens_within_its_grid():
    rows = R["rosenbaum_hlsens"]["bounds"]
    got = rosenbaum_bounds(*PAIRS, gammas=[row["Gamma"] for row in rows], convention="rbounds").parts
    for mine, row in zip(got[1:], rows[1:], strict=True):
        # hlsens walks a grid with steps of 0.1 from R's estimate.
        assert mine["effect_low"] == pytest.approx(row["Lower bound"], abs=0.11)
        assert mine["effect_high"] == pytest.approx(row["Upper bound"], abs=0.11)
    # At gamma 1 an interval solves the equation; R's root finder stops at a point of it, we take the middle.
    difference = PAIRS[0] - PAIRS[1]
    difference = difference[difference != 0]
    for solution in (got[0]["effect_low"], R["rosenbaum_hlsens"]["est"]):
        moved = difference - solution
        ranks = stats.rankdata(np.abs(moved))
        assert ranks[moved > 0].sum() == pytest.approx(ranks.sum() / 2)


def test_without_hidden_bias_it_is_scipys_wilcoxon_test_and_the_median_of_walsh_averages():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.4, 1, 60), rng.normal(size=60)
    (got,) = rosenbaum_bounds(a, b, gammas=[1.0]).parts
    expected = stats.wilcoxon(a - b, alternative="greater", method="asymptotic", correction=False)
    assert got["p_upper"] == pytest.approx(expected.pvalue, rel=1e-10)
    d = a - b
    walsh = [(d[i] + d[j]) / 2 for i in range(60) for j in range(i, 60)]
    assert got["effect_low"] == pytest.approx(np.median(walsh), abs=1e-12)
    assert got["effect_low"] == got["effect_high"]


def test_mcnemar_bounds_are_binomial_tails_summed_by_hand():
    t, c = [1] * 12 + [0] * 5 + [1] * 3, [0] * 12 + [1] * 5 + [1] * 3
    got = mcnemar_bounds(t, c, gammas=[1.0, 2.0])
    for mine, gamma in zip(got.parts, (1.0, 2.0), strict=True):
        for share, value in ((1 / (1 + gamma), mine["p_lower"]), (gamma / (1 + gamma), mine["p_upper"])):
            tail = sum(stats.binom.pmf(k, 17, share) for k in range(12, 18))
            assert value == pytest.approx(tail, rel=1e-12)
    assert got.settings["n_tied"] == 3
    assert got.settings["test"] == "McNemar"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=3, max_size=25), st.sampled_from([1.0, 1.3, 2.0, 4.0]))
def test_the_bound_widens_with_gamma_and_turns_around_with_the_outcome(values, gamma):
    d = np.array(values, float)
    assume(d.any())
    got = rosenbaum_bounds(d, np.zeros(len(d)), gammas=[gamma, gamma + 1]).parts
    assert got[0]["p_lower"] <= got[0]["p_upper"] + 1e-15
    assert got[1]["p_upper"] >= got[0]["p_upper"] - 1e-12
    assert got[1]["effect_low"] <= got[0]["effect_low"] + 1e-12
    other = rosenbaum_bounds(np.zeros(len(d)), d, gammas=[gamma], alternative="less").parts
    assert other[0]["p_upper"] == pytest.approx(got[0]["p_upper"])


def test_the_normal_bound_is_near_the_exact_one_by_enumerating_signs():
    d = np.array([1.0, -2.0, 3.5, 4.0, 5.5, 6.0, -7.0, 8.0, 9.0, 10.0, 11.0, 12.0])
    ranks = stats.rankdata(np.abs(d))
    observed = ranks[d > 0].sum()
    share = 1.5 / 2.5
    exact = 0.0
    for signs in itertools.product((0, 1), repeat=len(d)):
        s = np.array(signs)
        if (s * ranks).sum() >= observed:
            exact += share ** s.sum() * (1 - share) ** (len(d) - s.sum())
    (got,) = rosenbaum_bounds(d, np.zeros(len(d)), gammas=[1.5]).parts
    # Without a continuity correction the approximation is off by about half an atom.
    assert got["p_upper"] == pytest.approx(exact, abs=0.02)


def test_counting_walsh_averages_equals_listing_them(monkeypatch):
    rng = np.random.default_rng(4)
    d = np.round(rng.normal(size=80), 1)
    listed = [_walsh_quantile(d, share) for share in (0.2, 0.5, 0.61)]
    monkeypatch.setattr("whyprompt.effects.checks.rosenbaum._WALSH_PAIRS", 10)
    assert [_walsh_quantile(d, share) for share in (0.2, 0.5, 0.61)] == pytest.approx(listed, abs=1e-12)
    ordered = np.sort(d)
    i, j = np.triu_indices(80)
    averages = np.sort((ordered[i] + ordered[j]) / 2)
    for k in (1, 7, 1000, len(averages)):
        assert _kth_walsh(ordered, k) == pytest.approx(averages[k - 1], abs=1e-12)


def test_the_critical_gamma_is_where_the_bound_meets_the_level():
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.8, 1, 80), rng.normal(size=80)
    result = rosenbaum_bounds(a, b)
    gamma = result.estimate
    assert gamma > 1.5
    (at,) = rosenbaum_bounds(a, b, gammas=[gamma]).parts
    assert at["p_upper"] == pytest.approx(0.05, abs=1e-9)
    assert f"factor of {gamma:.2f}" in result.sentence
    assert "The data cannot say whether one exists" in str(result)
    none = rosenbaum_bounds(b, a)
    assert none.estimate == 1.0
    assert "no significance for hidden bias to undo" in none.sentence
    assert list(result.to_frame()["gamma"][1:]) == list(DEFAULT_GAMMAS)
    assert json.loads(json.dumps(result.to_dict()))["n_used"] == 80


def test_wrong_pairs_are_named():
    with pytest.raises(DataError, match="the control outcomes have 1 missing"):
        rosenbaum_bounds([1.0, 2.0], [0.0, np.nan])
    with pytest.raises(DataError, match="shapes"):
        rosenbaum_bounds([1.0, 2.0], [0.0])
    with pytest.raises(EstimationError, match="no pair differs"):
        rosenbaum_bounds([1.0, 2.0], [1.0, 2.0])
    with pytest.raises(EstimationError, match=r"gamma=0\.5"):
        rosenbaum_bounds([1.0, 2.0], [0.0, 0.0], gammas=[0.5])
    with pytest.raises(EstimationError, match="alternative='both'"):
        rosenbaum_bounds([1.0], [0.0], alternative="both")
    with pytest.raises(EstimationError, match=r"alpha=0\.7"):
        rosenbaum_bounds([1.0, 2.0], [0.0, 0.0], alpha=0.7)
    with pytest.raises(DataError, match="McNemar's test is for outcomes of 0 and 1"):
        mcnemar_bounds([1.0, 2.0], [0.0, 0.0])


# ------------------------------------------------------------------------------------------------- E-value


def test_e_values_of_the_paper():
    # VanderWeele and Ding (2017): breast feeding, RR 3.9 (1.8 to 8.7) gives 7.26 and 3.0; Hammond and Horn's
    # lung cancer, RR 10.73 (8.02 to 14.36), gives 20.9 and 15.5.
    got = e_value(3.9, ci=(1.8, 8.7))
    assert [round(p.estimate, n) for p, n in zip(got.parts, (2, 1), strict=True)] == [7.26, 3.0]
    got = e_value(10.73, ci=(8.02, 14.36))
    assert [round(p.estimate, 1) for p in got.parts] == [20.9, 15.5]
    assert "beyond the measured covariates" in got.sentence


@settings(max_examples=50, deadline=None)
@given(st.floats(1.01, 20))
def test_the_e_value_solves_its_bias_equation_and_is_symmetric(ratio):
    e = e_value(ratio).part("E-value").estimate
    # Ding and VanderWeele's bounding factor for two equal ratios.
    assert e * e / (2 * e - 1) == pytest.approx(ratio, rel=1e-9)
    assert e_value(1 / ratio).part("E-value").estimate == pytest.approx(e, rel=1e-9)
    assert e_value(ratio**2, measure="odds_ratio").part("E-value").estimate == pytest.approx(e, rel=1e-9)
    rare = e_value(ratio, measure="odds_ratio", rare=True)
    assert rare.part("E-value").estimate == pytest.approx(e, rel=1e-9)


def test_an_interval_with_no_effect_in_it_needs_no_confounder():
    got = e_value(0.3, measure="difference", sd=2.0, std_error=0.4)
    assert got.part("E-value of the interval").estimate == 1.0
    assert got.overall.note == "approximate"
    assert got.estimate == pytest.approx(np.exp(0.91 * 0.15))
    with pytest.raises(EstimationError, match="does not hold the estimate"):
        e_value(2.0, ci=(2.5, 3.0))
    with pytest.raises(EstimationError, match="standard deviation"):
        e_value(2.0, measure="difference")
    with pytest.raises(EstimationError, match="a ratio is positive"):
        e_value(-2.0)


# ---------------------------------------------------------------------------------------- robustness values


def test_robustness_values_equal_sensemakr(regression):
    y, t, design = regression
    got = partial_r2_bounds(y, t, design.matrix, names=design.names, benchmarks=["re74"])
    expected = R["sensemakr"]["stats"]
    for mine, theirs in (
        (got.estimate, "estimate"),
        (got.std_error, "se"),
        (got.estimate / got.std_error, "t_statistic"),
        (got["partial_r2"], "r2yd.x"),
        (got["robustness_value"], "rv_q"),
        (got["robustness_value_alpha"], "rv_qa"),
    ):
        assert mine == pytest.approx(expected[theirs], rel=1e-8)
    assert got.df == expected["dof"]


def test_benchmark_bounds_equal_sensemakr(regression):
    y, t, design = regression
    got = partial_r2_bounds(y, t, design.matrix, names=design.names, benchmarks=["re74"])
    assert len(got.parts) == len(R["sensemakr"]["bounds"]) == 3
    for mine, row in zip(got.parts, R["sensemakr"]["bounds"], strict=True):
        assert f"{mine['times']:g}x {mine['benchmark']}" == row["bound_label"]
        for name, theirs in (
            ("r2_treatment", "r2dz.x"),
            ("r2_outcome", "r2yz.dx"),
            ("estimate", "adjusted_estimate"),
            ("std_error", "adjusted_se"),
            ("ci_low", "adjusted_lower_CI"),
            ("ci_high", "adjusted_upper_CI"),
        ):
            assert mine.to_dict()[name] == pytest.approx(row[theirs], rel=1e-6), name
        assert mine.estimate / mine.std_error == pytest.approx(row["adjusted_t"], rel=1e-6)


def test_a_confounder_as_strong_as_the_robustness_value_brings_the_estimate_to_nothing(regression):
    y, t, design = regression
    report = partial_r2_bounds(y, t, design.matrix, names=design.names)
    rv = report["robustness_value"]
    after, _ = adjusted_estimate(report.estimate, report.std_error, report.df, rv, rv)
    assert float(after) == pytest.approx(0, abs=1e-8 * abs(report.estimate))
    half = robustness_value(report.estimate / report.std_error, report.df, q=0.5)
    after, _ = adjusted_estimate(report.estimate, report.std_error, report.df, half, half)
    assert float(after) == pytest.approx(report.estimate / 2)
    x, yy = np.array([[0, rv]]), np.array([[0], [rv], [2 * rv]])
    values, _ = adjusted_estimate(report.estimate, report.std_error, report.df, x, yy)
    assert values.shape == (3, 2)
    assert values[0, 0] == pytest.approx(report.estimate)
    assert values[1, 1] == pytest.approx(0, abs=1e-6)
    assert values[2, 1] < 0


def test_omitting_a_covariate_moves_the_estimate_by_the_omitted_variable_formula():
    """The formula is exact: leave a real confounder out and adjust by its own partial R-squared."""
    rng = np.random.default_rng(8)
    n = 400
    x, z = rng.normal(size=(2, n))
    t = 0.5 * x + 0.8 * z + rng.normal(size=n)
    y = t + x + 1.5 * z + rng.normal(size=n)

    def residual(v, *columns):
        design = np.column_stack([np.ones(n), *columns])
        return v - design @ np.linalg.lstsq(design, v, rcond=None)[0]

    def r2(v, w, *columns):
        return np.corrcoef(residual(v, *columns), residual(w, *columns))[0, 1] ** 2

    short = partial_r2_bounds(y, t, x[:, None])
    long = partial_r2_bounds(y, t, np.column_stack([x, z]))
    after, error = adjusted_estimate(short.estimate, short.std_error, short.df, r2(t, z, x), r2(y, z, x, t))
    assert float(after) == pytest.approx(long.estimate, rel=1e-9)
    assert float(error) == pytest.approx(long.std_error, rel=1e-9)


def test_a_group_of_dummies_is_one_benchmark_and_impossible_bounds_are_refused(regression):
    y, t, design = regression
    race = [j for j, source in enumerate(design.sources) if source == "race"]
    with pytest.raises(EstimationError, match="3 times as strong as 'race'"):
        partial_r2_bounds(y, t, design.matrix, names=design.names, benchmarks={"race": race}, times=[3])
    with pytest.raises(DataError, match="benchmark 'nope' is not a covariate"):
        partial_r2_bounds(y, t, design.matrix, names=design.names, benchmarks=["nope"])
    with pytest.raises(EstimationError, match="constant or determined"):
        partial_r2_bounds(y, np.ones_like(t), design.matrix)


def reversed_world(seed, slope=1.0):
    """A benchmark that moves arm and outcome so much that another like it would turn the sign."""
    rng = np.random.default_rng(seed)
    n = 600
    strong, weak = rng.normal(size=(2, n))
    t = (0.7 * strong + rng.normal(size=n) > 0).astype(float)
    y = slope * (0.3 * t + 0.6 * strong) + 0.01 * weak + 0.7 * rng.normal(size=n)
    return y, t, np.column_stack([strong, weak])


@pytest.mark.parametrize("slope", [1.0, -1.0])
def test_a_bound_beyond_zero_is_said_to_reverse_the_sign_and_not_to_leave_it(slope):
    y, t, X = reversed_world(0, slope)
    report = partial_r2_bounds(y, t, X, names=["strong", "weak"], benchmarks=["strong", "weak"], times=[1])
    strong, weak = report.parts
    sign = np.sign(report.estimate)
    # Every figure behind the words: the interval lies on the other side, or on the estimate's own.
    assert sign * report.estimate > 0
    assert max(sign * strong.ci_low, sign * strong.ci_high) < 0
    assert min(sign * weak.ci_low, sign * weak.ci_high) > 0
    assert "A confounder as strong as 'weak' would leave it significant." in report.sentence
    assert (
        f"One as strong as 'strong' could reverse its sign ({format_number(strong.estimate)},"
        in report.sentence
    )
    assert "any benchmark" not in report.sentence
    alone = partial_r2_bounds(y, t, X, names=["strong", "weak"], benchmarks=["strong"], times=[1])
    assert "leave it significant" not in alone.sentence
    calm = partial_r2_bounds(y, t, X, names=["strong", "weak"], benchmarks=["weak"], times=[2])
    assert "A confounder 2 times as strong as any benchmark (weak) would leave it" in calm.sentence


def test_bounds_that_include_zero_are_said_to_leave_the_sign_open(regression):
    """By the figures of sensemakr every bound of re74 holds zero."""
    y, t, design = regression
    report = partial_r2_bounds(y, t, design.matrix, names=design.names, benchmarks=["re74"])
    assert all(r["adjusted_lower_CI"] < 0 < r["adjusted_upper_CI"] for r in R["sensemakr"]["bounds"])
    assert (
        "One 1, 2 or 3 times as strong as 're74' could leave its sign open (as strong as 're74': 1217, -290"
        " to"
        " 2724)." in report.sentence
    )
    assert "leave it significant" not in report.sentence


def test_no_sentence_speaks_for_a_benchmark_whose_bound_cannot_be_computed():
    y, t, X = reversed_world(0)
    data = pd.DataFrame({"t": t, "y": y, "strong": X[:, 0], "weak": X[:, 1]})
    found = estimate_effect(
        data, treatment="t", outcome="y", confounders=["strong", "weak"], method="overlap"
    )
    report = sensitivity_report(data, found, times=[1, 3])
    missing = set(report.checks["partial R2"]["not_bounded"])
    assert missing == {("strong", 3.0)}
    assert {(b["benchmark"], b["times"]) for b in report.checks["partial R2"].parts} == {
        ("strong", 1.0),
        ("weak", 1.0),
        ("weak", 3.0),
    }
    assert "1 or 3 times as strong as 'weak' would leave it significant" in report.sentence
    assert "For one 3 times as strong as 'strong' no bound can be computed" in report.sentence
    assert "any benchmark" not in report.sentence


# --------------------------------------------------------------------------------------------- one report


def test_the_report_runs_what_applies_and_says_what_does_not(lalonde):
    options = {"treatment": "treat", "outcome": "re78", "confounders": ["age", "educ", "race", "re74"]}
    found = estimate_effect(lalonde, method="nearest", **options)
    report = sensitivity_report(lalonde, found, benchmarks=["race", "re74"], times=[1, 3])
    y = lalonde["re78"].to_numpy()
    direct = rosenbaum_bounds(
        y[found.matched.focal],
        y[found.matched.other],
        alternative="greater" if found.estimate >= 0 else "less",
    )
    assert report.checks["Rosenbaum bounds"] == direct
    assert {b["benchmark"] for b in report.checks["partial R2"].parts} == {"race", "re74"}
    assert any("the bound by one 3 times as strong as 'race'" in reason for reason in report.not_done)
    assert report.checks["partial R2"]["not_bounded"] == (("race", 3.0),)
    assert report.to_frame()["check"].tolist() == ["Rosenbaum bounds", "E-value", "partial R2"]
    weighted = estimate_effect(lalonde, method="ipw", **options)
    report = sensitivity_report(lalonde, weighted, times=[1])
    assert "Rosenbaum bounds" not in report.checks
    assert "Rosenbaum bounds (method 'ipw' makes no pairs)" in report.sentence
    binary = lalonde.assign(employed=(lalonde["re78"] > 0).astype(int))
    found = estimate_effect(binary, **{**options, "outcome": "employed"}, method="ipw")
    report = sensitivity_report(binary, found, times=[1])
    ratio = next(m for m in found.measures if m.label == "risk ratio")
    assert report.checks["E-value"] == e_value(ratio.estimate, ci=(ratio.ci_low, ratio.ci_high))
    with pytest.raises(DataError, match="is not the one that was estimated from"):
        sensitivity_report(lalonde.iloc[:300], found)


def test_a_benchmark_that_explains_the_outcome_wholly_is_refused_and_named():
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=60), rng.integers(0, 2, 60)
    data = pd.DataFrame(
        {"t": t, "x": x, "w": rng.normal(size=60), "y": 0.4 * t + 30.0 * x + rng.normal(size=60)}
    )
    X = data[["x", "w"]].to_numpy()
    with pytest.raises(EstimationError, match="all that is left of the outcome"):
        partial_r2_bounds(data.y, t, X, benchmarks=["x0"], times=[3])
    found = estimate_effect(data, treatment="t", outcome="y", confounders=["x", "w"], method="ipw")
    report = sensitivity_report(data, found)
    bounds = report.checks["partial R2"].parts
    assert all(b["r2_outcome"] < 1 and b.std_error > 0 and np.isfinite(b.estimate) for b in bounds)
    assert any("3 times as strong as 'x'" in reason for reason in report.not_done)
    assert "all that is left of the outcome" in report.sentence
    # A copy of the outcome leaves nothing: neither a bound nor a robustness value.
    data["y"] = 0.5 * t + x
    found = estimate_effect(data, treatment="t", outcome="y", confounders=["x", "w"], method="ipw")
    report = sensitivity_report(data, found)
    assert "partial R2" not in report.checks
    assert any("fits the outcome without error" in reason for reason in report.not_done)
    for scale in (1e-9, 1e9):
        with pytest.raises(EstimationError, match="without error"):
            partial_r2_bounds(scale * data.y, t, X)
    with pytest.raises(EstimationError, match="outcome is constant"):
        partial_r2_bounds(np.full(60, 0.1), t, X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"times": [0]}, "positive"),
        ({"times": [np.nan]}, "positive"),
        ({"q": -1}, "q=-1"),
        ({"alpha": 1.5}, "alpha=1.5"),
    ],
)
def test_strengths_without_meaning_are_refused(regression, options, message):
    y, t, design = regression
    with pytest.raises(EstimationError, match=message):
        partial_r2_bounds(y, t, design.matrix, names=design.names, benchmarks=["re74"], **options)


@pytest.mark.parametrize(
    ("estimate", "options"),
    [
        (np.nan, {}),
        (np.inf, {}),
        (2.0, {"ci": (1.0, np.inf)}),
        (2.0, {"ci": (np.nan, 3.0)}),
        (1.0, {"measure": "difference", "sd": 1.0, "std_error": np.nan}),
        (1.0, {"measure": "difference", "sd": 1.0, "std_error": -1.0}),
        (1.0, {"measure": "difference", "sd": 1e-9}),
    ],
)
def test_an_e_value_of_what_is_no_number_is_refused(estimate, options):
    with pytest.raises(EstimationError):
        e_value(estimate, **options)
