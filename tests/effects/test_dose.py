"""Dose-response: WeightIt's slope, statsmodels without weights, known truths, coverage of the band."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.interpolate import CubicSpline

from whyprompt import CausalGraph, dose_response
from whyprompt.errors import DataError, EstimationError, GraphError
from whyprompt.stats.design import natural_spline

REFERENCE = Path(__file__).parents[1] / "reference"
X = ["difficulty", "log_len", "is_math"]


@pytest.fixture(scope="module")
def trials():
    return pd.read_csv(REFERENCE / "synth_multi.csv")


def curve(frame, **options):
    options = {"confounders": X, **options}
    return dose_response(frame, treatment="dose", outcome="score_dose", **options)


def test_density_weights_give_weightits_slope(trials):
    wanted = json.loads((REFERENCE / "multi_treatment.json").read_text())["continuous_normal_density"]
    result = curve(trials, method="gps", std_error="hc0")
    assert result.estimate == pytest.approx(wanted["coef"]["dose"], rel=1e-10)
    assert result.std_error == pytest.approx(wanted["se_mestimation"]["dose"], rel=1e-6)
    assert np.abs(result.weights - wanted["weights"]).max() < 1e-9
    assert any("use method='entropy'" in w for w in result.warnings)
    # cobalt's correlations of continuous covariates
    for row in result.balance[:2]:
        assert row.correlation_before == pytest.approx(wanted["balance"][row.covariate]["Corr.Un"], rel=1e-6)
        assert row.correlation_after == pytest.approx(wanted["balance"][row.covariate]["Corr.Adj"], rel=1e-5)


def test_two_knots_balance_as_weightits_entropy_weights_do(trials):
    wanted = json.loads((REFERENCE / "multi_treatment.json").read_text())["continuous_entropy_balancing"]
    result = curve(trials, knots=2)
    assert result.estimate == pytest.approx(wanted["coef"]["dose"], rel=1e-6)
    assert np.abs(result.weights - wanted["weights"]).max() < 1e-4
    assert result.nonlinear_p is None


def test_the_known_slope_is_found_where_the_plain_one_is_far_off(trials):
    truth = json.loads((REFERENCE / "synth_multi.truth.json").read_text())["dose_slope"]
    result, naive = curve(trials), curve(trials, method="naive")
    assert result.ci_low < truth < result.ci_high
    assert naive.ci_high < truth - 0.3
    assert result.nonlinear_p > 0.05
    for point in result.parts:
        wanted = truth * (point.at - result.reference)
        assert point.simultaneous_low <= wanted <= point.simultaneous_high
    assert {a.name: a.status for a in result.assumptions}["balance"] == "holds"
    assert "may therefore not be claimed" in naive.sentence


@pytest.mark.parametrize("kind", ["hc0", "hc3"])
def test_without_weights_it_is_a_spline_regression_with_robust_errors(trials, kind):
    result = curve(trials, method="naive", std_error=kind, grid=[0.0, 1.0, 2.0], reference=0.5)
    basis = sm.add_constant(natural_spline(trials.dose, result.knots))
    oracle = sm.OLS(trials.score_dose, basis).fit(cov_type=kind.upper())
    at = sm.add_constant(natural_spline([0.0, 1.0, 2.0], result.knots), has_constant="add")
    found = oracle.get_prediction(at).summary_frame(alpha=0.05)
    assert [p.estimate for p in result.curve] == pytest.approx(found["mean"].tolist(), rel=1e-9)
    assert [p.std_error for p in result.curve] == pytest.approx(found["mean_se"].tolist(), rel=1e-7)
    # Leverage corrections go with the t distribution, the plain sandwich with the normal one.
    q = stats.norm.ppf(0.975) if kind == "hc0" else stats.t.ppf(0.975, oracle.df_resid)
    low = (found["mean"] - q * found["mean_se"]).tolist()
    assert [p.ci_low for p in result.curve] == pytest.approx(low, rel=1e-9)
    origin = sm.add_constant(natural_spline([0.5], result.knots), has_constant="add")
    contrast = oracle.t_test(at - origin)
    assert [p.estimate for p in result.parts] == pytest.approx(contrast.effect.tolist(), rel=1e-9)
    assert [p.std_error for p in result.parts] == pytest.approx(np.ravel(contrast.sd).tolist(), rel=1e-7)
    wald = oracle.wald_test(np.eye(4)[1:], scalar=True, use_f=kind == "hc3")
    assert result.flat_p == pytest.approx(float(wald.pvalue), rel=1e-6, abs=1e-300)
    nonlinear = oracle.wald_test(np.eye(4)[2:], scalar=True, use_f=kind == "hc3")
    assert result.nonlinear_p == pytest.approx(float(nonlinear.pvalue), rel=1e-6)


@given(st.integers(3, 7), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_basis_spans_scipys_natural_splines(k, seed):
    rng = np.random.default_rng(seed)
    knots = np.sort(rng.normal(size=k)) + np.arange(k)
    values = rng.normal(size=k)
    x = np.linspace(knots[0], knots[-1], 50)
    wanted = CubicSpline(knots, values, bc_type="natural")(x)
    design = np.column_stack([np.ones(50), natural_spline(x, knots)])
    fitted = design @ np.linalg.lstsq(design, wanted, rcond=None)[0]
    assert np.abs(fitted - wanted).max() < 1e-7 * max(1.0, np.abs(values).max())
    beyond = natural_spline([knots[-1] + 1, knots[-1] + 2, knots[-1] + 3], knots)
    assert np.abs(np.diff(beyond, n=2, axis=0)).max() < 1e-6 * np.abs(beyond).max()


def simulate(rng, n, strength):
    x = rng.normal(size=(n, 2))
    dose = strength * x[:, 0] - strength * x[:, 1] + rng.normal(size=n)
    knots = np.array([-2.0, -0.5, 0.5, 2.0])
    shape = np.array([0.6, 0.8, -1.5])
    y = natural_spline(dose, knots) @ shape + x @ [1.0, -0.7] + rng.normal(size=n)
    frame = pd.DataFrame({"dose": dose, "a": x[:, 0], "b": x[:, 1], "y": y})
    grid = np.linspace(-1.5, 1.5, 11)
    effect = (natural_spline(grid, knots) - natural_spline([0.0], knots)) @ shape
    mean = natural_spline(grid, knots) @ shape
    return frame, knots, grid, mean, effect


@pytest.mark.slow
def test_intervals_and_bands_cover_a_curved_truth():
    rng = np.random.default_rng(11)
    hits = dict.fromkeys(["mean", "effect", "band", "effect band"], 0.0)
    draws, errors, naive_bias = 500, [], []
    for _ in range(draws):
        frame, knots, grid, mean, effect = simulate(rng, 800, 0.35)
        shared = {"treatment": "dose", "outcome": "y", "knots": knots, "grid": grid, "reference": 0.0}
        r = dose_response(frame, confounders=["a", "b"], **shared)
        mean_at, effect_at = (pd.DataFrame([p.to_dict() for p in points]) for points in (r.curve, r.parts))
        live = effect_at.std_error > 0
        hits["mean"] += ((mean_at.ci_low <= mean) & (mean <= mean_at.ci_high)).mean()
        inside = (effect_at.ci_low <= effect) & (effect <= effect_at.ci_high)
        hits["effect"] += inside[live].mean()
        hits["band"] += ((mean_at.simultaneous_low <= mean) & (mean <= mean_at.simultaneous_high)).all()
        hits["effect band"] += (
            (effect_at.simultaneous_low <= effect + 1e-9) & (effect - 1e-9 <= effect_at.simultaneous_high)
        ).all()
        errors.append(effect_at.estimate.to_numpy() - effect)
        if len(naive_bias) < 50:
            naive = dose_response(frame, confounders=["a", "b"], method="naive", **shared)
            naive_bias.append(np.array([p.estimate for p in naive.parts]) - effect)
    shares = {name: h / draws for name, h in hits.items()}
    assert {name: s for name, s in shares.items() if not 0.93 <= s <= 0.97} == {}
    assert np.abs(np.mean(errors, axis=0)).max() < 0.03
    assert np.abs(np.mean(naive_bias, axis=0)).max() > 0.5


def test_entropy_weights_balance_every_function_of_the_spline(trials):
    result = curve(trials, knots=5)
    basis = natural_spline(trials.dose, result.knots)
    w = result.weights / result.weights.sum()
    centred = trials[X] - w @ trials[X]
    assert np.abs((basis - w @ basis).T @ (centred.to_numpy() * w[:, None])).max() < 1e-8
    assert w @ trials[X].to_numpy() == pytest.approx(trials[X].mean().to_numpy(), rel=1e-8)


def test_order_scale_and_index_change_what_they_must(trials):
    base = curve(trials)
    mixed = trials.sample(frac=1.0, random_state=2).set_index(np.zeros(len(trials), dtype=int))
    before = mixed.copy()
    again = curve(mixed)
    pd.testing.assert_frame_equal(mixed, before)
    assert [p.estimate for p in again.curve] == pytest.approx([p.estimate for p in base.curve], rel=1e-7)
    scaled = curve(trials.assign(dose=trials.dose * 10 + 3))
    assert scaled.estimate == pytest.approx(base.estimate / 10, rel=1e-6)
    assert [p.estimate for p in scaled.parts] == pytest.approx(
        [p.estimate for p in base.parts], rel=1e-5, abs=1e-9
    )
    assert [p.at for p in scaled.curve] == pytest.approx([p.at * 10 + 3 for p in base.curve])


def test_a_group_of_one_row_is_no_group(trials):
    base, each = curve(trials), curve(trials.assign(g=np.arange(len(trials))), cluster="g")
    n = len(trials)
    assert each.std_error == pytest.approx(base.std_error * np.sqrt(n / (n - 1)), rel=1e-9)
    assert "cluster-robust" in each.std_error_method


def test_what_is_reported(trials):
    result = curve(trials)
    json.dumps(result.to_dict(), allow_nan=False)
    assert len(result.to_frame()) == 22
    assert result.parts[0].at == pytest.approx(np.quantile(trials.dose, 0.05))
    assert result.parts[0].estimate == pytest.approx(0.0, abs=1e-12)
    assert str(result).startswith("For one unit more of 'dose', 'score_dose' changes by")
    assert result.plot().to_dict()["layer"]
    bent = curve(trials.assign(score_dose=trials.score_dose + trials.dose**2))
    assert "not a straight line" in bent.sentence
    drawn = curve(trials, design="randomized")
    assert "The dose was randomised" in drawn.sentence
    blind = dose_response(trials, treatment="dose", outcome="score_dose", method="naive")
    assert "not an effect: nothing was adjusted for" in blind.sentence


def test_a_graph_chooses_and_forbids(trials):
    graph = CausalGraph.parse("difficulty, log_len -> dose, score_dose; dose -> m -> score_dose")
    result = curve(trials, confounders=None, graph=graph)
    assert result.confounders == ("difficulty", "log_len")
    with pytest.raises(GraphError, match="dose -> m -> score_dose"):
        curve(trials.assign(m=0.0), confounders=["difficulty", "log_len", "m"], graph=graph)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({"dose": 1.0}, {}, EstimationError, "dose 'dose' is constant"),
        ({"dose": [0, 1, 2] * 500}, {}, DataError, "takes 3 values"),
        ({"dose": "high"}, {}, DataError, "is text"),
        ({"dose": np.nan}, {}, DataError, "missing"),
        ({"score_dose": np.inf}, {}, DataError, "infinite"),
        ({}, {"grid": [0.0, 99.0]}, EstimationError, "at 99, outside the doses seen"),
        ({}, {"reference": -99}, EstimationError, "outside the doses seen"),
        ({}, {"grid": []}, EstimationError, "list of finite doses"),
        ({}, {"knots": 1}, EstimationError, "1 knots"),
        ({}, {"knots": [1.0, 0.0]}, EstimationError, "not in increasing order"),
        ({}, {"method": "ebal"}, EstimationError, "method 'ebal'"),
        ({}, {"confounders": None}, EstimationError, "needs to know what to adjust for"),
        ({}, {"confounders": ["completion_tokens"]}, EstimationError, "cannot be a confounder"),
        ({}, {"confounders": ["dose"]}, EstimationError, "is the treatment"),
        ({}, {"design": "paired"}, EstimationError, "design 'paired'"),
        ({}, {"confounders": ["flat"]}, EstimationError, "no covariate varies among flat"),
        ({}, {"confounders": ["copy"], "method": "gps"}, EstimationError, "determine the dose"),
        ({}, {"confounders": ["copy"]}, EstimationError, "no solution"),
    ],
)  # fmt: skip
def test_bad_input_is_named(trials, change, options, error, message):
    frame = trials.assign(flat=1.0, copy=trials.dose * 2).assign(**change)
    with pytest.raises(error, match=message):
        curve(frame, **options)


def test_the_closed_form_of_the_influence_is_that_of_the_stacked_equations(trials):
    from whyprompt.effects.methods.doses import dose_weights, entropy_influence
    from whyprompt.stats.design import standardised
    from whyprompt.stats.influence import nuisance_influence, regression_influence, with_intercept

    d, y = trials.dose.to_numpy(), trials.score_dose.to_numpy()
    scaled = standardised(trials[X].to_numpy(float), X)
    basis = natural_spline(d, np.quantile(d, [0, 0.3, 0.7, 1]))
    theta, psi, weigh = dose_weights(d, scaled, method="entropy", basis=basis)
    weights = weigh(theta).real
    design = with_intercept(d[:, None] ** [1, 2])
    wanted = regression_influence(
        y, design, weights, weight_function=weigh, theta=theta, nuisance=nuisance_influence(psi, theta)
    )
    coef, influence = entropy_influence(y, design, weights, basis, scaled)
    assert coef == pytest.approx(wanted[0], rel=1e-10)
    assert np.abs(influence - wanted[1]).max() < 1e-9 * np.abs(wanted[1]).max()


# ------------------------------------------------------------------------------------------- at the edge


def few(n=60, seed=0):
    rng = np.random.default_rng(seed)
    x, dose = rng.normal(size=n), rng.normal(size=n)
    return pd.DataFrame({"dose": dose, "x": x, "y": 0.7 * dose + rng.normal(size=n), "g": np.arange(n) // 6})


def response(data, **options):
    given = {"treatment": "dose", "outcome": "y", "confounders": ["x"], "design": "randomized", "knots": 3}
    return dose_response(data, **{**given, **options})


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"y": 3.0}, {}, "outcome 'y' is constant"),
        ({"y": lambda f: 2 * f.dose + 1}, {}, "follows from 'dose' without error"),
        ({}, {"outcome": "dose"}, "both the treatment and the outcome"),
        ({}, {"knots": [10.0, 11.0, 12.0]}, "do not tell the parts of the spline apart"),
        ({}, {"knots": [0.0, np.nan, 1.0]}, "not all finite"),
        ({}, {"knots": True}, "True knots"),
        ({}, {"reference": np.nan}, "the reference asks"),
        ({"dose": lambda f: f.dose.where(f.index != 3, 1e9)}, {"method": "naive"}, "take the logarithm"),
        ({"dose": lambda f: f.dose.where(f.index != 3, 1e9)}, {"method": "gps"}, "take the logarithm"),
    ],
)
def test_doses_and_outcomes_without_an_answer_are_refused(change, options, message):
    with pytest.raises(EstimationError, match=message):
        response(few().assign(**change), **options)
    with pytest.raises(EstimationError, match="rows are too few"):
        response(few(6), method="naive", knots=6)


def test_few_clusters_are_said_and_allow_no_joint_test():
    data = few()
    found = response(data, cluster="g")
    assert any("only 10 clusters" in w for w in found.warnings)
    two = response(data.assign(g=np.arange(60) % 2), cluster="g")
    assert (two.flat_p, two.nonlinear_p is None or 0 < two.nonlinear_p <= 1) == (None, True)
    assert response(data, std_error="hc0").warnings == ()


@pytest.mark.parametrize("method", ["naive", "entropy"])
def test_with_few_rows_interval_and_band_cover(method):
    rng = np.random.default_rng(1)
    hits, draws = np.zeros(3), 0
    for _ in range(510):
        x = rng.normal(size=60)
        dose = (0.5 * x if method == "entropy" else 0.0) + rng.normal(size=60)
        y = 0.7 * dose + (x if method == "entropy" else 0.0) + rng.normal(size=60)
        try:
            found = response(
                pd.DataFrame({"dose": dose, "x": x, "y": y}), method=method, grid=[-1.0, -0.5, 0.0, 0.5, 1.0]
            )
        except EstimationError:
            # Now and then no weights balance sixty rows; `draws` counts the others.
            continue
        draws += 1
        truth = [0.7 * (p.at - found.reference) for p in found.parts]
        hits += (
            found.ci_low <= 0.7 <= found.ci_high,
            found.parts[-1].ci_low <= truth[-1] <= found.parts[-1].ci_high,
            all(
                p.simultaneous_low - 1e-9 <= v <= p.simultaneous_high + 1e-9
                for p, v in zip(found.parts, truth, strict=True)
            ),
        )
    assert draws >= 500
    assert (hits / draws >= 0.93).all(), hits / draws
    assert (hits / draws <= 0.98).all(), hits / draws
