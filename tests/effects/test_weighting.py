"""Weighting: WeightIt's numbers on the LaLonde data and on four arms, and coverage of every interval."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from effect_verbs import fit_arrays
from hypothesis import given, settings
from hypothesis import strategies as st

from whyprompt import compare_arms, estimate_effect
from whyprompt.effects.methods.balancing import entropy_multipliers
from whyprompt.effects.methods.doses import dose_correlations, dose_weights, heavy_tails
from whyprompt.effects.methods.many_arms import multinomial_weights
from whyprompt.effects.methods.weights import crump_threshold, raw_weights, truncate_weights
from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.design import standardised
from whyprompt.stats.errors import interval
from whyprompt.stats.influence import (
    effective_sample_size,
    nuisance_influence,
    regression_influence,
    with_intercept,
)
from whyprompt.stats.propensity import fit_logistic


def weigh(y, t, X, *, method="ipw", estimand=None, **options):
    """Estimate the ATE unless another estimand is named, or the method has one alone."""
    return fit_arrays(
        y, t, X, method=method, estimand=estimand or ("ato" if method == "overlap" else "ate"), **options
    )


# The textbook's doubly robust estimate: a logistic score and least squares.
TEXTBOOK = {"method": "aipw", "propensity": "logit", "outcome_model": "linear", "calibrate": False}
REFERENCE = Path(__file__).parents[1] / "reference"
NAMES = ("age", "educ", "hispan", "white", "married", "nodegree", "re74", "re75")


@pytest.fixture(scope="module")
def lalonde():
    d = pd.read_csv(REFERENCE / "lalonde.csv")
    dummies = [d["race"] == "hispan", d["race"] == "white"]
    columns = [d["age"], d["educ"], *dummies, d["married"], d["nodegree"], d["re74"], d["re75"]]
    return d["re78"].to_numpy(float), d["treat"].to_numpy(), np.column_stack(columns).astype(float)


@pytest.fixture(scope="module")
def weightit():
    return json.loads((REFERENCE / "weighting_lalonde.json").read_text())


@pytest.fixture(scope="module")
def multi():
    d = pd.read_csv(REFERENCE / "synth_multi.csv")
    return d, d[["difficulty", "log_len", "is_math"]].to_numpy(float)


@pytest.fixture(scope="module")
def multi_r():
    return json.loads((REFERENCE / "multi_treatment.json").read_text())


# --------------------------------------------------------------------------------------------- WeightIt


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("glm_ATE", {"estimand": "ate"}),
        ("glm_ATT", {"estimand": "att"}),
        ("glm_ATO", {"method": "overlap"}),
    ],
)
def test_score_weights_equal_weightit(lalonde, weightit, key, options):
    result = weigh(*lalonde, names=NAMES, **options)
    wanted = weightit[key]
    assert np.abs(result.weights - wanted["weights"]).max() < 1e-6
    assert result.estimate == pytest.approx(wanted["est"], rel=1e-7)
    assert result.std_error == pytest.approx(wanted["se_mestimation"], rel=1e-7)


def test_entropy_balancing_is_at_least_as_balanced_as_weightit(lalonde, weightit):
    y, t, X = lalonde
    wanted = weightit["ebal_ATT"]
    result = weigh(y, t, X, method="entropy", estimand="att", targets="fixed", names=NAMES)
    # WeightIt's optimiser stops with weighted means off by up to 0.02 dollars; ours are exact, so its weights
    # (up to 6) agree to 3e-4 only. Its standard error holds the treated rows' means for constants.
    assert np.abs(result.weights - wanted["weights"]).max() < 5e-4
    assert result.estimate == pytest.approx(wanted["est"], rel=2e-5)
    assert result.std_error == pytest.approx(wanted["se_mestimation"], rel=1e-5)
    control, treated = t == 0, t == 1

    def off(weights):
        means = weights[control] @ X[control] / weights[control].sum()
        return np.abs((means - X[treated].mean(axis=0)) / X.std(axis=0)).max()

    assert off(result.weights) < 1e-10
    assert off(np.array(wanted["weights"])) > 1e-7
    estimated = weigh(y, t, X, method="entropy", estimand="att", names=NAMES)
    assert estimated.estimate == result.estimate
    assert estimated.std_error == pytest.approx(
        789.744, rel=1e-4
    )  # computed from the stacked equations by hand


@pytest.mark.parametrize(
    ("key", "options"),
    [("ATE", {}), ("ATO", {"estimand": "ato"}), ("ATT", {"estimand": "att", "focal": "direct"})],
)
def test_many_arms_equal_weightit(multi, multi_r, key, options):
    d, X = multi
    wanted = multi_r[f"multinomial_{key}"]
    arms, weights, (means, covariance, _) = multinomial_weights(
        d["variant"], X, y=d["score"], reference="direct", **options
    )
    # R's multinom stops at a relative change of 1e-8 in the likelihood: weights up to 16 agree to 3e-6.
    assert np.abs(weights / wanted["weights"] - 1).max() < 1e-6
    assert means[0] == pytest.approx(wanted["coef"]["(Intercept)"], rel=1e-6)
    assert np.sqrt(covariance[0, 0]) == pytest.approx(wanted["se_mestimation"]["(Intercept)"], rel=1e-6)
    assert arms == ("direct", "cot", "cot_few", "few_shot")
    for k, arm in enumerate(arms[1:], start=1):
        assert means[k] - means[0] == pytest.approx(wanted["coef"][f"variant{arm}"], rel=1e-6)
        change = np.eye(4)[k] - np.eye(4)[0]
        error = np.sqrt(change @ covariance @ change)
        assert error == pytest.approx(wanted["se_mestimation"][f"variant{arm}"], rel=1e-6)
    for arm in arms:
        size = effective_sample_size(weights[d["variant"] == arm])
        assert size == pytest.approx(wanted["ess"]["Weighted"][arm], rel=1e-6)


def test_truncated_weights_equal_weightit(multi, multi_r):
    d, X = multi
    _, weights, found = multinomial_weights(d["variant"], X, truncate=0.99)
    assert np.abs(weights / multi_r["trim_at_99"]["weights"] - 1).max() < 1e-6
    assert found is None


def sloped(dose, X, y, method="gps"):
    """Fit the weighted regression on a dose; return coefficients, their errors and the weights."""
    dose, X, y = (np.asarray(a, dtype=float) for a in (dose, X, y))
    theta, psi, weigh = dose_weights(dose, standardised(X, ["x"] * X.shape[1]), method=method)
    weights = weigh(theta).real
    coef, influence = regression_influence(
        y,
        with_intercept(dose[:, None]),
        weights,
        weight_function=weigh,
        theta=theta,
        nuisance=nuisance_influence(psi, theta),
    )
    return coef, np.sqrt((influence**2).sum(axis=0)), weights


def test_a_continuous_dose_equals_weightit(multi, multi_r):
    d, X = multi
    wanted = multi_r["continuous_normal_density"]
    coef, errors, weights = sloped(d["dose"], X, d["score_dose"])
    assert np.abs(weights - wanted["weights"]).max() < 1e-10
    assert coef == pytest.approx([wanted["coef"]["(Intercept)"], wanted["coef"]["dose"]], rel=1e-10)
    told = [wanted["se_mestimation"]["(Intercept)"], wanted["se_mestimation"]["dose"]]
    assert errors == pytest.approx(told, rel=1e-7)
    balance = [wanted["balance"][name] for name in ("difficulty", "log_len")]
    dose = d["dose"].to_numpy(float)
    before, after = (dose_correlations(dose, X, w) for w in (np.ones(len(X)), weights))
    assert before[:2] == pytest.approx([b["Corr.Un"] for b in balance], rel=1e-6)
    assert after[:2] == pytest.approx([b["Corr.Adj"] for b in balance], rel=1e-6)


def test_entropy_balancing_of_a_dose_is_more_exact_than_weightit(multi, multi_r):
    d, X = multi
    wanted = multi_r["continuous_entropy_balancing"]
    coef, _, weights = sloped(d["dose"], X, d["score_dose"], "entropy")
    assert np.abs(weights - wanted["weights"]).max() < 1e-4
    assert coef == pytest.approx([wanted["coef"]["(Intercept)"], wanted["coef"]["dose"]], rel=1e-6)
    assert np.abs(dose_correlations(d["dose"].to_numpy(float), X, weights)).max() < 1e-12
    assert weights.mean() == pytest.approx(1.0, abs=1e-12)
    assert weights @ X / len(X) == pytest.approx(X.mean(axis=0), abs=1e-10)


# --------------------------------------------------------------------------------------------- coverage


def simulate(rng, n):
    X = np.column_stack([rng.normal(size=(n, 2)), rng.random(n) < 0.4])
    score = 1 / (1 + np.exp(-(-0.3 + 0.5 * X[:, 0] - 0.4 * X[:, 1] + 0.4 * X[:, 2])))
    t = rng.random(n) < score
    effect = 1 + 0.5 * X[:, 0]
    y = X[:, 0] + 0.5 * X[:, 1] + X[:, 2] + effect * t + rng.normal(size=n)
    return y, t, X, effect, score


@pytest.mark.slow
def test_intervals_cover():
    *_, effect, e = simulate(np.random.default_rng(1), 1_000_000)
    tilt = {"ate": np.ones_like(e), "att": e, "atc": 1 - e, "ato": e * (1 - e)}
    truth = {name: float(effect @ w / w.sum()) for name, w in tilt.items()}
    specs = [("ipw", "ate"), ("ipw", "att"), ("ipw", "atc"), ("overlap", "ato"), ("entropy", "ate")]
    specs += [("entropy", "att"), ("entropy", "atc"), ("aipw", "ate"), ("aipw", "att"), ("aipw", "atc")]
    specs += [("calibrated", "ate"), ("calibrated", "att"), ("calibrated", "atc")]
    hits = dict.fromkeys(specs, 0)
    rng = np.random.default_rng(20)
    for _ in range(500):
        y, t, X, _, _ = simulate(rng, 400)
        for method, estimand in specs:
            # Two folds cost the least and are the least favourable.
            options = {"method": method}
            if method in {"aipw", "calibrated"}:
                options = {**TEXTBOOK, "calibrate": method == "calibrated", "folds": 2}
            r = weigh(y, t, X, estimand=estimand, **options)
            hits[method, estimand] += r.ci[0] <= truth[estimand] <= r.ci[1]
    assert {spec: h / 500 for spec, h in hits.items() if not 0.93 <= h / 500 <= 0.97} == {}


@pytest.mark.slow
def test_intervals_of_many_arms_and_of_a_dose_cover():
    hits = dict.fromkeys(["arms", "gps", "entropy"], 0)
    rng = np.random.default_rng(3)
    for _ in range(500):
        X = rng.normal(size=(400, 2))
        odds = np.exp(np.column_stack([np.zeros(400), 0.4 * X[:, 0], -0.4 * X[:, 1]]))
        arm = (rng.random(400)[:, None] > np.cumsum(odds / odds.sum(axis=1, keepdims=True), axis=1)).sum(
            axis=1
        )
        y = X @ [1.0, 0.5] + np.array([0.0, 1.0, 2.0])[arm] + rng.normal(size=400)
        _, _, (means, covariance, df) = multinomial_weights(arm, X, y=y)
        change = np.array([-1.0, 1.0, 0.0])
        low, high = interval(
            change @ means,
            np.sqrt(change @ covariance @ change),
            level=0.95,
            df=df[0, 1],
        )
        hits["arms"] += low <= 1.0 <= high
        # Weak confounding: ratios of normal densities have heavy tails beyond it (see the next test).
        dose = 0.15 * X[:, 0] + rng.normal(size=400)
        y = X @ [1.0, 0.5] + 0.5 * dose + rng.normal(size=400)
        for method in ("gps", "entropy"):
            coef, errors, _ = sloped(dose, X, y, method)
            hits[method] += abs(coef[1] - 0.5) <= 1.959963984540054 * errors[1]
    assert {name: h / 500 for name, h in hits.items() if not 0.93 <= h / 500 <= 0.97} == {}


def test_heavy_tails_of_density_ratios_are_said():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(1500, 1))
    noise = rng.normal(size=1500)

    def said(share):
        return heavy_tails(share * X[:, 0] + noise, standardised(X, ["x"]))

    assert said(0.15) == ()
    (heavy,) = said(0.4)
    assert "the interval is too short; use method='entropy'" in heavy
    (infinite,) = said(0.7)
    assert "variance is infinite" in infinite


@pytest.mark.slow
def test_clustered_intervals_cover_where_independent_ones_do_not():
    rng = np.random.default_rng(9)
    hits = {"clustered": 0, "independent": 0}
    for _ in range(500):
        group = np.repeat(np.arange(50), 8)
        t = rng.random(400) < 1 / (1 + np.exp(-rng.normal(size=50)))[group]
        X = rng.normal(size=(400, 1))
        y = X[:, 0] + t + 1.5 * (rng.normal(size=50)[group] * (t - 0.5)) + rng.normal(size=400)
        for name, cluster in (("clustered", group), ("independent", None)):
            r = weigh(y, t, X, method="overlap", cluster=cluster)
            hits[name] += r.ci[0] <= 1.0 <= r.ci[1]
    assert 0.93 <= hits["clustered"] / 500 <= 0.97
    assert hits["independent"] / 500 < 0.9


# --------------------------------------------------------------------------------------------- properties


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_must_hold_of_every_weighted_estimate(seed):
    rng = np.random.default_rng(seed)
    y, t, X, _, _ = simulate(rng, 300)
    order = rng.permutation(300)
    for method in ("ipw", "overlap", "entropy"):
        one = weigh(y, t, X, method=method)
        other = weigh(y[order], t[order], X[order] * [1e3, 1.0, 1.0] + [0.0, 50.0, 0.0], method=method)
        assert other.estimate == pytest.approx(one.estimate, rel=1e-7)
        assert other.std_error == pytest.approx(one.std_error, rel=1e-6)
        assert other.weights == pytest.approx(one.weights[order], rel=1e-6)
        assert (one.weights >= 0).all()
        # Swapping the arms flips the sign.
        flipped = weigh(y, ~t, X, method=method)
        assert flipped.estimate == pytest.approx(-one.estimate, rel=1e-7)
        joint = one.influence[:, 0] - one.influence[:, 1]
        assert one.std_error == pytest.approx(np.sqrt(joint @ joint), rel=1e-12)
    # Overlap weights from a logistic score balance the means exactly.
    w = weigh(y, t, X, method="overlap").weights
    means = [w[arm] @ X[arm] / w[arm].sum() for arm in (t, ~t)]
    assert means[0] == pytest.approx(means[1], abs=1e-9)
    # Stabilised weights change neither the estimate nor its error.
    plain, stable = (weigh(y, t, X, stabilised=s) for s in (False, True))
    assert stable.estimate == pytest.approx(plain.estimate, rel=1e-12)
    assert stable.std_error == pytest.approx(plain.std_error, rel=1e-9)
    assert abs(stable.weights.mean() - 1) < 0.2 < plain.weights.mean()


def test_one_row_clusters_give_the_unclustered_error_with_each_row_s_share_of_its_arm_set_aside():
    y, t, X, _, _ = simulate(np.random.default_rng(5), 200)
    plain = weigh(y, t, X)
    single = weigh(y, t, X, cluster=np.arange(200))
    share = [np.where(arm, plain.weights, 0.0) / plain.weights[arm].sum() for arm in (t, ~t)]
    parts = plain.influence[:, 0] / np.sqrt(1 - share[0]) - plain.influence[:, 1] / np.sqrt(1 - share[1])
    assert single.std_error == pytest.approx(np.sqrt(parts @ parts), rel=1e-12)
    assert plain.std_error < single.std_error < 1.05 * plain.std_error
    assert 50 < single.df < 199
    assert plain.df == pytest.approx(single.df, rel=0.1)


def test_the_error_equals_a_numerically_stacked_sandwich():
    """All equations in one vector, differentiated by finite differences: nothing shared with the code."""
    y, t, X, _, _ = simulate(np.random.default_rng(8), 250)
    design = np.column_stack([np.ones(250), X])

    def psi(theta):
        e = 1 / (1 + np.exp(-design @ theta[:4]))
        w = np.where(t, 1 / e, 1 / (1 - e))
        means = np.column_stack([w * t * (y - theta[4]), w * ~t * (y - theta[5])])
        return np.column_stack([design * (t - e)[:, None], means])

    from scipy.optimize import root

    theta = root(lambda v: psi(v).mean(axis=0), np.r_[np.zeros(4), y[t].mean(), y[~t].mean()], tol=1e-12).x
    step = 1e-5
    bread = np.column_stack(
        [
            (psi(theta + step * v).mean(axis=0) - psi(theta - step * v).mean(axis=0)) / (2 * step)
            for v in np.eye(6)
        ]
    )
    inverse = np.linalg.inv(bread)
    cov = inverse @ (psi(theta).T @ psi(theta) / 250) @ inverse.T / 250
    result = weigh(y, t, X)
    assert result.estimate == pytest.approx(theta[4] - theta[5], rel=1e-8)
    assert result.std_error == pytest.approx(np.sqrt(cov[4, 4] + cov[5, 5] - 2 * cov[4, 5]), rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"stabilised": True}, {"truncate": 0.9}])
@pytest.mark.parametrize("estimand", ["ate", "att", "atc", "ato"])
def test_the_error_by_one_product_is_that_of_the_equations_differentiated_one_by_one(estimand, options):
    if "stabilised" in options and estimand != "ate":
        pytest.skip("stabilised weights are defined for the ATE")
    rng = np.random.default_rng(11)
    y, t, X, _, _ = simulate(rng, 400)
    X = np.column_stack([X, rng.normal(size=(400, 9)), X[:, 0] - 2 * X[:, 1]])
    found = weigh(y, t, X, estimand=estimand, **options)
    design = with_intercept(standardised(X, [f"x{j}" for j in range(13)]))
    theta = np.zeros(13)
    for _ in range(30):
        e = 1 / (1 + np.exp(-design @ theta))
        theta += np.linalg.solve((design * (e * (1 - e))[:, None]).T @ design, design.T @ (t - e))
    share = np.where(t, t.mean(), 1 - t.mean()) if options.get("stabilised") else 1.0
    cap = np.inf
    if "truncate" in options:
        reweighted = {"att": ~t, "atc": t}.get(estimand, np.ones(400, dtype=bool))
        cap = found.weights[reweighted].max()

    def weights(at):
        raw = raw_weights(design @ at, t, estimand) * share
        return np.where(raw.real < cap * (1 + 1e-9), raw, cap)

    arms = np.column_stack([t, ~t]).astype(float)
    psi = lambda at: design * (t - 1 / (1 + np.exp(-design @ at)))[:, None]  # noqa: E731
    _, influence = regression_influence(
        y,
        arms,
        found.weights,
        weight_function=weights,
        theta=theta,
        nuisance=nuisance_influence(psi, theta),
    )
    assert found.influence == pytest.approx(influence, abs=1e-12 * np.abs(influence).max(), rel=1e-9)


def test_another_outcome_is_fitted_with_the_score_and_the_folds_of_the_first(monkeypatch):
    y, t, X, _, _ = simulate(np.random.default_rng(12), 300)
    second = X[:, 1] + t + np.sin(np.arange(300))
    calls = []
    at = "whyprompt.effects.methods.score.fit_logistic"
    monkeypatch.setattr(at, lambda *a, **k: calls.append(1) or fit_logistic(*a, **k))
    for method in ("ipw", "overlap"):
        first = weigh(y, t, X, method=method, discard=0.05)
        fitted = len(calls)
        found = first.again(second)
        assert len(calls) == fitted > 0
        alone = weigh(second, t, X, method=method, discard=0.05)
        assert found.estimate == pytest.approx(alone.estimate, rel=1e-10)
        assert found.std_error == pytest.approx(alone.std_error, rel=1e-10)
        assert found.warnings == alone.warnings


def test_a_known_score_is_used_as_it_is():
    y, t, X, _, e = simulate(np.random.default_rng(6), 400)
    result = weigh(y, t, X, propensity=e)
    w = np.where(t, 1 / e, 1 / (1 - e))
    assert result.weights == pytest.approx(w)
    treated, control = (np.average(y[arm], weights=w[arm]) for arm in (t, ~t))
    assert result.estimate == pytest.approx(treated - control, rel=1e-12)
    assert result.means == pytest.approx((treated, control))


def test_aipw_without_crossfitting_is_the_textbook_formula():
    from whyprompt.stats.propensity import fit_logistic

    y, t, X, _, _ = simulate(np.random.default_rng(2), 300)
    e = fit_logistic(X, t).fitted
    design = np.column_stack([np.ones(300), X])
    m1, m0 = (design @ np.linalg.lstsq(design[arm], y[arm], rcond=None)[0] for arm in (t, ~t))
    phi = m1 - m0 + t * (y - m1) / e - ~t * (y - m0) / (1 - e)
    result = weigh(y, t, X, **TEXTBOOK, folds=1)
    assert result.estimate == pytest.approx(phi.mean(), rel=1e-9)
    assert result.std_error == pytest.approx(phi.std() / np.sqrt(300), rel=1e-9)
    att = weigh(y, t, X, **TEXTBOOK, estimand="att", folds=1)
    assert att.estimate == pytest.approx(
        (t * (y - m0) - ~t * e / (1 - e) * (y - m0)).sum() / t.sum(), rel=1e-9
    )


def test_aipw_is_doubly_robust_and_takes_any_outcome_model():
    from sklearn.dummy import DummyRegressor
    from sklearn.ensemble import HistGradientBoostingRegressor

    rng = np.random.default_rng(4)
    n = 4000
    X = rng.normal(size=(n, 1))
    t = rng.random(n) < 1 / (1 + np.exp(-X[:, 0]))
    y = 2.0 * t + 3 * np.tanh(3 * X[:, 0]) + rng.normal(size=n)
    wrong = {"propensity": np.full(n, 0.5)}
    constant, boosting = DummyRegressor(), HistGradientBoostingRegressor(max_iter=60)
    right_score = weigh(y, t, X, method="aipw", propensity="logit", outcome_model=constant)
    right_outcome = weigh(y, t, X, method="aipw", outcome_model=boosting, splits=2, **wrong)
    both_wrong = weigh(y, t, X, method="aipw", outcome_model=constant, **wrong)
    assert abs(right_score.estimate - 2) < 4 * right_score.std_error
    assert abs(right_outcome.estimate - 2) < 4 * right_outcome.std_error
    assert abs(both_wrong.estimate - 2) > 10 * both_wrong.std_error


def test_clusters_are_not_split_between_folds():
    from whyprompt.effects.methods.folds import deal_folds

    rng = np.random.default_rng(0)
    codes = rng.integers(0, 40, size=200)
    codes = np.unique(codes, return_inverse=True)[1]
    folds = deal_folds(rng.random(200) < 0.5, codes, 5, 0, rng.integers(0, 50, 200))
    assert sum(folds).tolist() == [1] * 200
    for fold in folds:
        assert not set(codes[fold]) & set(codes[~fold])


def test_crump_minimises_its_criterion_and_rows_are_left_out_by_it():
    rng = np.random.default_rng(10)
    e = rng.beta(0.4, 0.6, size=500).clip(1e-4, 1 - 1e-4)
    alpha = crump_threshold(e)
    g = 1 / (e * (1 - e))

    def bound(a):
        kept = (e >= a) & (e <= 1 - a)
        return g[kept].sum() / kept.sum() ** 2

    assert 0.02 < alpha < 0.2
    assert all(bound(alpha) <= bound(a) + 1e-15 for a in np.linspace(0, 0.45, 1000))
    # The published condition: 1 / (alpha (1 - alpha)) is twice the mean of g among the rows kept.
    kept = (e >= alpha) & (e <= 1 - alpha)
    assert 1 / (alpha * (1 - alpha)) == pytest.approx(2 * g[kept].mean(), rel=0.02)
    assert crump_threshold(rng.uniform(0.3, 0.7, size=100)) == 0.0
    with pytest.raises(EstimationError, match="strictly between"):
        crump_threshold([0.0, 0.5])


def test_trimmed_rows_are_counted_described_and_weightless(lalonde):
    y, t, X = lalonde
    result = weigh(y, t, X, discard="crump", names=NAMES)
    kept = ~result.discarded
    assert 0 < kept.sum() < 614
    assert (result.weights[~kept] == 0).all()
    assert (result.weights > 0).sum() == kept.sum()
    assert any(f"{(~kept).sum()} of 614 rows" in w for w in result.warnings)
    inside = weigh(y[kept], t[kept], X[kept], names=NAMES)
    assert result.estimate == pytest.approx(inside.estimate, rel=1e-12)
    assert result.std_error == pytest.approx(inside.std_error, rel=1e-12)


def test_a_copied_column_changes_nothing(lalonde):
    y, t, X = lalonde
    for options in ({"method": "ipw"}, {"method": "entropy"}, TEXTBOOK):
        plain = weigh(y, t, X, **options)
        doubled = weigh(y, t, np.column_stack([X, X[:, 0], np.ones(614)]), **options)
        assert doubled.estimate == pytest.approx(plain.estimate, rel=1e-6)
        assert doubled.std_error == pytest.approx(plain.std_error, rel=1e-6)


def test_truncation_is_at_an_observed_weight():
    w = np.arange(1.0, 101.0)
    assert truncate_weights(w, 0.95).max() == 95.0
    assert effective_sample_size(np.ones(7)) == pytest.approx(7)


def test_few_effective_rows_are_said():
    rng = np.random.default_rng(12)
    X = rng.normal(size=(1000, 1))
    t = rng.random(1000) < 1 / (1 + np.exp(-4 * X[:, 0]))
    result = weigh(X[:, 0] + t, t, X)
    assert any("rests on few rows" in w for w in result.warnings)


# --------------------------------------------------------------------------------------------- bad input


def bad(index, value):
    y, t, X, _, _ = simulate(np.random.default_rng(0), 60)
    arrays = [y.astype(float), t.astype(float), X.copy()]
    arrays[index].flat[3] = value
    return arrays


@pytest.mark.parametrize(
    ("arrays", "options", "error", "message"),
    [
        (bad(0, np.nan), {}, DataError, "'outcome' has 1 missing or infinite"),
        (bad(1, np.nan), {}, DataError, "'treatment' has 1 missing"),
        (bad(2, np.inf), {"names": ["a", "b", "c"]}, DataError, "'a' has 1 missing or infinite"),
        (bad(1, 2.0), {}, EstimationError, "expected 0 and 1"),
        (bad(0, 0.0), {"method": "magic"}, EstimationError, "method 'magic' is not known"),
        (bad(0, 0.0), {"method": "overlap", "estimand": "att"}, EstimationError, "does not estimate 'att'"),
        (bad(0, 0.0), {"method": "entropy", "discard": "crump"}, EstimationError, "no propensity score"),
        (bad(0, 0.0), {"method": "entropy", "targets": "guess"}, EstimationError, "targets='guess'"),
        (bad(0, 0.0), {"stabilised": True, "estimand": "att"}, EstimationError, "stabilised"),
        (bad(0, 0.0), {"truncate": 0.2}, EstimationError, "truncate=0.2"),
        (
            bad(0, 0.0),
            {"method": "aipw", "truncate": 0.9},
            EstimationError,
            "truncate has no meaning for method 'aipw'",
        ),
        (bad(0, 0.0), {"discard": 0.7}, EstimationError, "discard=0.7"),
        (bad(0, 0.0), {"discard": 0.4999}, EstimationError, "leaves an arm empty"),
        (bad(0, 0.0), {"propensity": np.zeros(60)}, EstimationError, "strictly between 0 and 1"),
        (bad(0, 0.0), {"propensity": np.full(59, 0.5)}, DataError, r"propensity has shape \(59,\)"),
        (bad(0, 0.0), {"names": ["a"]}, DataError, "names has 1 entries"),
        (bad(0, 0.0), {"cluster": np.zeros(60)}, EstimationError, "all rows are in one cluster"),
        (bad(0, 0.0), {"cluster": np.full(60, np.nan)}, DataError, "cluster has 60 missing"),
        (bad(0, 0.0), {"method": "aipw", "folds": 100}, EstimationError, "folds=100"),
    ],
)
def test_bad_input_is_named(arrays, options, error, message):
    with pytest.raises(error, match=message):
        weigh(*arrays, **options)


def test_arms_that_do_not_overlap_are_refused():
    x = np.arange(40.0)
    t = x >= 20
    for options in ({"method": "ipw"}, {"method": "overlap"}, {"method": "entropy"}, TEXTBOOK):
        with pytest.raises(EstimationError, match="age"):
            weigh(x, t, x[:, None], **options, names=["age"])
    with pytest.raises(EstimationError, match="one arm is empty"):
        weigh(x, np.ones(40), x[:, None])
    with pytest.raises(EstimationError, match="no weights balance 'a'"):
        entropy_multipliers(np.array([[1.0], [2.0]]), ["a"])
    # Zero lies between the extremes of each column and still outside the hull.
    hull = np.array([[-1.0, 2.0], [2.0, -1.0], [3.0, 3.0]])
    with pytest.raises(EstimationError, match="no weights balance"):
        entropy_multipliers(hull, ["a", "b"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda X: multinomial_weights(["a"] * 60, X), "nothing to compare"),
        (lambda X: multinomial_weights(["a"] * 59 + ["b"], X), "arm 'b' has one row"),
        (lambda X: multinomial_weights(["a", "b"] * 30, X, focal="a"), "both or neither"),
        (lambda X: multinomial_weights(["a", "b"] * 30, X, estimand="att", focal="z"), "focal='z'"),
        (lambda X: multinomial_weights(["a", "b"] * 30, X, reference="z"), "reference='z'"),
        (lambda X: multinomial_weights(["a", "b"] * 30, X, estimand="late"), "estimand='late'"),
        (lambda X: multinomial_weights(X[:, 0] > 0, X), "separate some arms"),
        (lambda X: multinomial_weights(["a", "b"] * 30, 0 * X), "no covariate varies"),
        (lambda X: multinomial_weights(["a", "b"] * 29 + ["a", None], X), "1 missing"),
        (lambda X: multinomial_weights(["a", "b"], X), "shape"),
        (lambda X: dose_weights(X[:, 0], X, method="gps"), "determine the dose"),
        (lambda X: dose_weights(X[:, 0], X, method="magic"), "method='magic'"),
    ],
)
def test_bad_arms_and_doses_are_named(call, message):
    X = np.random.default_rng(0).normal(size=(60, 2))
    with pytest.raises((DataError, EstimationError), match=message):
        call(X)


def test_a_cross_fitted_score_near_zero_does_not_become_the_estimate():
    # A steep assignment rule: fitted on other rows, some scores are below 1e-4.
    rng = np.random.default_rng(8)
    errors: dict[float, list[float]] = {0.0: [], 0.01: []}
    for _ in range(60):
        x = rng.normal(size=(150, 1))
        t = rng.random(150) < 1 / (1 + np.exp(-3.0 * x[:, 0]))
        y = 1.0 * t + x[:, 0] ** 2 + rng.normal(size=150)
        for clip, kept in errors.items():
            result = weigh(y, t, x, **TEXTBOOK, clip=clip, splits=1)
            kept.append(result.estimate - 1.0)
            assert any("cross-fitted" in w for w in result.warnings) == (
                clip > 0 and bool(np.isin(result.propensity, [clip, 1 - clip]).any())
            )
    spread = {clip: float(np.std(kept)) for clip, kept in errors.items()}
    assert spread[0.01] < 0.5 * spread[0.0]


def test_several_deals_of_the_folds_leave_little_to_the_seed():
    """One deal moves the estimate by a good part of its error; the mean of ten moves a third of that."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=(160, 8))
    t = rng.random(160) < 1 / (1 + np.exp(-x[:, :3].sum(axis=1) * 0.8))
    y = t + x.sum(axis=1) + rng.normal(size=160) * 2

    def spread(splits):
        runs = [weigh(y, t, x, **TEXTBOOK, splits=splits, random_state=s).estimate for s in range(25)]
        return float(np.std(runs))

    assert spread(None) < 0.6 * spread(1)
    one, two = (weigh(y, t, x, **TEXTBOOK, splits=k, random_state=3) for k in (1, 1))
    assert one.estimate == two.estimate
    with pytest.raises(EstimationError, match="splits=0"):
        weigh(y, t, x, method="aipw", splits=0)


def test_a_deal_that_separates_the_arms_is_left_out_and_counted_and_most_of_them_are_refused():
    """Of a rare kind some rows have one arm: where a fold holds them all, the rest tells the arms apart."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(90, 1))
    rare = (np.arange(90) % 15 == 0).astype(float)
    X = np.column_stack([x, rare])
    t = rng.random(90) < 0.5
    y = t + x[:, 0] + rng.normal(size=90)
    t[rare > 0] = [True, True, False, False, True, True]  # two controls: together in one of five deals
    found = [weigh(y, t, X, **TEXTBOOK, random_state=s) for s in range(12)]
    counted = [w for r in found for w in r.warnings if "deals of the folds the rest of the rows tells" in w]
    assert 3 <= len(counted) <= 12
    assert all(abs(r.estimate - 1.0) < 4 * r.std_error for r in found)
    t[rare > 0] = [True, True, True, False, True, True]  # one control: some fold holds it in every deal
    with pytest.raises(EstimationError, match="separated"):
        weigh(y, t, X, **TEXTBOOK)


def test_scores_that_are_given_are_not_clipped():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 1))
    e = np.clip(1 / (1 + np.exp(-2 * x[:, 0])), 0.002, 0.998)
    t = rng.random(200) < e
    result = weigh(x[:, 0] + t, t, x, method="aipw", propensity=e)
    assert np.array_equal(result.propensity, e)
    with pytest.raises(EstimationError, match=r"clip=0\.5"):
        weigh(x[:, 0] + t, t, x, method="aipw", clip=0.5)


# ------------------------------------------------------------------------------- overlap of overlap weights


@pytest.mark.parametrize("slope", [1.0, 3.0, 5.0])
def test_overlap_weights_are_not_blamed_for_rows_that_they_leave_out(slope):
    rng = np.random.default_rng(0)
    x = rng.normal(size=1500)
    t = (rng.random(1500) < 1 / (1 + np.exp(-slope * x))).astype(int)
    data = pd.DataFrame(
        {"t": t, "x": x, "y": t + x + rng.normal(size=1500), "arm": np.where(t == 1, "b", "a")}
    )
    options = {"treatment": "t", "outcome": "y", "confounders": ["x"]}
    found = estimate_effect(data, method="overlap", **options)
    told = {a.name: a for a in found.assumptions}
    assert (told["overlap"].status, told["balance"].status, found.warnings) == ("holds", "holds", ())
    assert (
        f"worth {found.ess_treated:.0f} treated and {found.ess_control:.0f} control rows"
        in told["overlap"].detail
    )
    # What lies beyond the other arm's scores, by weight.
    score, w = found.propensity, found.weights
    beyond = np.where(t == 1, score > score[t == 0].max(), score < score[t == 1].min())
    assert told["overlap"].detail.startswith(f"{w[beyond].sum() / w.sum():.1%} of the weight")
    many = compare_arms(data, treatment="arm", outcome="y", confounders=["x"], method="overlap")
    assert {a.name: a.status for a in many.assumptions}["overlap"] == "holds"
    whole = estimate_effect(data, method="ipw", estimand="ate", **options)
    assert {a.name: a.status for a in whole.assumptions}["overlap"] != "holds"


def test_overlap_weights_worth_a_handful_of_rows_are_said():
    rng = np.random.default_rng(1)
    x = rng.normal(size=200)
    t = (rng.random(200) < 1 / (1 + np.exp(-14 * x))).astype(int)
    data = pd.DataFrame({"t": t, "x": x, "y": t + x + rng.normal(size=200)})
    found = estimate_effect(data, treatment="t", outcome="y", confounders=["x"], method="overlap")
    assert min(found.ess_treated, found.ess_control) < 30
    assert {a.name: a.status for a in found.assumptions}["overlap"] in {"doubtful", "fails"}
    assert any("rests on few rows" in w for w in found.warnings)


@pytest.mark.parametrize(
    ("method", "estimand"),
    [("ipw", "ate"), ("ipw", "att"), ("overlap", "ato"), ("entropy", "att"), ("aipw", "ate")],
)
def test_intervals_cover_with_fifty_rows(method, estimand):
    rng = np.random.default_rng(3)
    hits, draws = 0, 0
    for _ in range(600):
        X = rng.normal(size=(50, 2))
        t = rng.random(50) < 1 / (1 + np.exp(-0.6 * X[:, 0] + 0.4))
        if not 8 <= t.sum() <= 42:
            continue
        options = TEXTBOOK if method == "aipw" else {"method": method}
        try:
            r = weigh(t + X @ [1, 0.5] + rng.normal(size=50), t, X, estimand=estimand, **options)
        except EstimationError:  # A separated draw; `draws` counts the others.
            continue
        draws += 1
        hits += r.ci[0] <= 1 <= r.ci[1]
    assert draws >= 550
    assert 0.925 <= hits / draws <= (0.99 if method == "aipw" else 0.975)


def test_a_constant_covariate_leaves_entropy_nothing_to_balance_and_few_clusters_no_folds():
    rng = np.random.default_rng(0)
    t, y = np.arange(30) % 2, rng.normal(size=30)
    with pytest.raises(EstimationError, match="no covariate varies among k"):
        weigh(y, t, np.ones((30, 1)), method="entropy", names=["k"])
    with pytest.raises(EstimationError, match="with 3 clusters, choose 1 to 3"):
        weigh(y, t, rng.normal(size=(30, 1)), method="aipw", folds=5, cluster=np.arange(30) % 3)
