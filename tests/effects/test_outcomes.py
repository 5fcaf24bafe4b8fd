"""Risks and odds, ordered levels, several outcomes, subgroups: statsmodels, closed forms, known truths."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from effect_verbs import (
    estimate_effects,
    fit_arrays,
    ordinal_effect,
    paired_effect,
    paired_effects,
    paired_ordinal_effect,
)
from scipy import stats
from statsmodels.miscmodels.ordinal_model import OrderedModel
from statsmodels.stats.contingency_tables import Table2x2
from statsmodels.stats.multitest import multipletests

from whyprompt import CausalGraph, estimate_effect
from whyprompt._words import format_number
from whyprompt.errors import DataError, EstimationError, GraphError
from whyprompt.stats.proportional_odds import at_least, fit_proportional_odds


def logit(x):
    return 1 / (1 + np.exp(-x))


def confounded(seed=0, n=600):
    """Items whose difficulty drives the arm, and a right-or-wrong outcome, two scores and a grade."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=n), rng.normal(size=n)
    arm = rng.random(n) < logit(0.7 * x - 0.4 * z - 0.5)
    common = rng.normal(size=n)
    latent = 0.8 * x - 0.5 * z + 0.7 * arm + rng.logistic(size=n)
    return pd.DataFrame(
        {
            "arm": arm.astype(int),
            "x": x,
            "z": z,
            "kind": rng.choice(["algebra", "logic", "words"], n),
            "right": (rng.random(n) < logit(-0.4 + 0.8 * arm + 0.7 * x)).astype(int),
            "score": x + 0.5 * arm + common + rng.normal(size=n),
            "words": z + common + rng.normal(size=n),
            "grade": np.digitize(latent, [-1.0, 0.5, 2.0]),
        }
    )


@pytest.fixture(scope="module")
def frame():
    return confounded()


def effect(frame, outcome="right", **options):
    return estimate_effect(frame, treatment="arm", outcome=outcome, confounders=["x", "z"], **options)


# ------------------------------------------------------------------------------------ risks and odds


def test_plain_risks_have_the_closed_forms_of_a_two_by_two_table(frame):
    result = effect(frame, method="naive")
    table = pd.crosstab(1 - frame.arm, 1 - frame.right).to_numpy()
    oracle = Table2x2(table)
    difference, ratio, odds = result.measures
    assert difference.estimate == result.estimate
    assert ratio.estimate == pytest.approx(oracle.riskratio, rel=1e-12)
    assert odds.estimate == pytest.approx(oracle.oddsratio, rel=1e-12)
    # The table's errors divide by n, a variance of the sample by n - 1.
    n = frame.groupby("arm").size()
    p = frame.groupby("arm").right.mean()
    small = n / (n - 1)
    wanted = np.sqrt(((1 - p) / (n * p) * small).sum())
    assert ratio.std_error == pytest.approx(wanted, rel=1e-10)
    assert ratio.std_error == pytest.approx(oracle.log_riskratio_se, rel=0.005)
    assert odds.std_error == pytest.approx(np.sqrt((1 / (n * p * (1 - p)) * small).sum()), rel=1e-10)
    assert odds.std_error == pytest.approx(oracle.log_oddsratio_se, rel=0.005)


@pytest.mark.filterwarnings("ignore:The (Identity|Log|identity|log) link")
def test_ratios_of_matched_pairs_are_those_of_a_cluster_robust_glm(frame):
    result = effect(frame, method="nearest", caliper=0.2, regression_adjustment=False, std_error="pairs")
    used = result.weights > 0
    groups = result.matched.stratum[used]
    y, t = frame.right.to_numpy()[used], sm.add_constant(frame.arm.to_numpy()[used])
    for measure, link in zip(
        result.measures,
        (sm.families.links.Identity(), sm.families.links.Log(), sm.families.links.Logit()),
        strict=True,
    ):
        start = [y.mean(), 0.0] if measure.label == "risk difference" else [np.log(y.mean()), 0.0]
        with np.errstate(all="ignore"):
            fit = sm.GLM(y, t, family=sm.families.Binomial(link=link)).fit(
                start_params=start, cov_type="cluster", cov_kwds={"groups": groups}, tol=1e-12
            )
        estimate = np.log(measure.estimate) if measure.label.endswith("ratio") else measure.estimate
        assert estimate == pytest.approx(fit.params[1], abs=1e-7)
        assert measure.std_error == pytest.approx(fit.bse[1], rel=1e-5)
        q = stats.t.ppf(0.975, result.df)
        low = np.log(measure.ci_low) if measure.label.endswith("ratio") else measure.ci_low
        assert low == pytest.approx(estimate - q * measure.std_error, rel=1e-6)


# The textbook's doubly robust estimate, quick with one deal of the folds.
TEXTBOOK = {"method": {"aipw": {"outcome_model": "linear", "splits": 1}}, "propensity": "logit"}


@pytest.mark.parametrize("method", ["ipw", "overlap", "aipw", "entropy"])
def test_ratios_of_weighted_means_are_those_of_their_influence_values(frame, method):
    estimand = "ato" if method == "overlap" else "att"
    asked = {**(TEXTBOOK if method == "aipw" else {"method": method}), "estimand": estimand}
    result = effect(frame, **asked)
    fit = fit_arrays(frame.right, frame.arm, frame[["x", "z"]].to_numpy(), **asked)
    m1, m0 = fit.means
    assert (result.mean_treated, result.mean_control) == (m1, m0)
    ratio, odds = result.measures[1:]
    wanted = fit.influence[:, 0] / m1 - fit.influence[:, 1] / m0
    assert ratio.estimate == pytest.approx(m1 / m0, rel=1e-12)
    assert ratio.std_error == pytest.approx(np.sqrt(wanted @ wanted), rel=1e-9)
    wanted = fit.influence[:, 0] / (m1 * (1 - m1)) - fit.influence[:, 1] / (m0 * (1 - m0))
    assert odds.std_error == pytest.approx(np.sqrt(wanted @ wanted), rel=1e-9)


def test_the_bootstrap_gives_percentiles_of_the_ratios(frame):
    analytic = effect(frame, method="ipw", estimand="ate")
    drawn = effect(frame, method="ipw", estimand="ate", std_error="bootstrap", draws=300)
    for a, b in zip(analytic.measures, drawn.measures, strict=True):
        assert b.estimate == a.estimate
        assert b.std_error == pytest.approx(a.std_error, rel=0.2)
        assert b.ci_low < b.estimate < b.ci_high


def test_one_variance_for_both_arms_is_said_of_ratios(frame):
    pooled, by_arm = (effect(frame, method="nearest", replace=True, neighbours=k) for k in (0, 2))
    assert "one variance for both arms" in pooled.measures[1].note
    assert by_arm.measures[1].note == ""
    assert pooled.measures[1].std_error == pytest.approx(by_arm.measures[1].std_error, rel=0.15)


@pytest.mark.parametrize("method", ["nearest", "full", "kernel", "subclass", "ipw", "entropy"])
def test_the_error_of_a_functional_is_that_of_its_derivative(frame, method):
    """Scaling both arms scales the error; adding a constant to the outcome changes neither."""
    from whyprompt.effects.estimate import estimated

    asked = {"treatment": "arm", "outcome": "score", "confounders": ["x", "z"], "method": method}
    base = estimated(frame, **asked)
    moved = base.plan.method.fit_again(base.problem, base.plan, base.fit, 3.0 * base.problem.y + 7.0)
    assert moved.estimate == pytest.approx(3.0 * base.fit.estimate, rel=1e-9)
    assert moved.std_error == pytest.approx(3.0 * base.fit.std_error, rel=1e-7)
    again = base.plan.method.fit_again(base.problem, base.plan, base.fit, base.problem.y)
    assert (again.estimate, again.std_error) == pytest.approx(
        (base.fit.estimate, base.fit.std_error), rel=1e-12
    )


def test_a_number_is_no_risk_and_no_success_no_ratio(frame):
    assert effect(frame, "score").measures == ()
    never = effect(frame.assign(right=np.where(frame.arm == 1, frame.right, 0)), method="naive")
    ratio = never.measures[1]
    assert (ratio.estimate, ratio.ci_low) == (None, None)
    assert "control arm's risk is 0" in ratio.note
    assert "no ratio can be given" in never.sentence
    json.dumps(never.to_dict(), allow_nan=False)


def test_turning_success_into_failure_turns_the_odds_ratio_over(frame):
    near = {"method": "nearest"}
    for options in (
        {**near, "caliper": 0.2},
        {"method": "ipw"},
        {"method": "subclass"},
        {**near, "replace": True},
    ):
        there = effect(frame, **options)
        back = effect(frame.assign(right=1 - frame.right), **options)
        assert back.estimate == pytest.approx(-there.estimate, rel=1e-9)
        assert back.measures[2].estimate == pytest.approx(1 / there.measures[2].estimate, rel=1e-9)
        assert back.measures[2].std_error == pytest.approx(there.measures[2].std_error, rel=1e-7)


@pytest.mark.slow
def test_intervals_of_ratios_cover():
    rng = np.random.default_rng(14)
    big_x = rng.normal(size=400_000)
    big_t = rng.random(400_000) < logit(0.7 * big_x - 0.5)
    risks = [logit(-0.4 + 0.8 * k + 0.7 * big_x[big_t]).mean() for k in (1, 0)]
    truth = {"risk ratio": risks[0] / risks[1]}
    truth["odds ratio"] = risks[0] / (1 - risks[0]) / (risks[1] / (1 - risks[1]))
    ways = {"replace": {"method": "nearest", "replace": True}, "ipw": {"method": "ipw"}}
    hits = {(m, r): 0 for m in ways for r in truth}
    draws = 1000
    for _ in range(draws):
        x = rng.normal(size=500)
        arm = rng.random(500) < logit(0.7 * x - 0.5)
        y = (rng.random(500) < logit(-0.4 + 0.8 * arm + 0.7 * x)).astype(int)
        data = pd.DataFrame({"arm": arm, "x": x, "y": y})
        for name, options in ways.items():
            result = estimate_effect(data, treatment="arm", outcome="y", confounders=["x"], **options)
            for measure in result.measures[1:]:
                hits[name, measure.label] += measure.ci_low <= truth[measure.label] <= measure.ci_high
    assert {k: h / draws for k, h in hits.items() if not 0.93 <= h / draws <= 0.97} == {}


# ------------------------------------------------------------------------------------ ordered levels


@pytest.mark.parametrize("seed", range(3))
def test_the_proportional_odds_fit_is_that_of_statsmodels(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(300, 2))
    y = np.digitize(X @ [1.0, -0.5] + rng.logistic(size=300), [-1, 0.3, 1.5])
    ours = fit_proportional_odds(y, X)
    model = OrderedModel(y, X, distr="logit")
    params = np.concatenate([ours.coef[3:], [-ours.coef[0]], np.log(np.diff(-ours.coef[:3]))])
    # statsmodels' own optimiser stops early; its likelihood and score at our solution do not.
    assert model.loglike(params) == pytest.approx(ours.log_likelihood, rel=1e-12)
    assert np.abs(model.score(params)).max() < 1e-4
    information = -model.hessian(params)
    assert ours.std_error[3:] == pytest.approx(np.sqrt(np.diag(np.linalg.inv(information)))[:2], rel=1e-4)
    shares = at_least(ours, X[:5])
    at = model.predict(params, X[:5])
    assert shares == pytest.approx(at[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:], abs=1e-9)


def test_the_fit_counts_weights_as_rows_and_refuses_separation():
    y, x = np.array([0, 1, 2, 0, 1, 2]), np.array([[0.0], [0], [0], [1], [1], [1]])
    w = np.array([5, 3, 2, 2, 3, 6])
    by_weight = fit_proportional_odds(y, x, weights=w)
    by_row = fit_proportional_odds(np.repeat(y, w), np.repeat(x, w, axis=0))
    assert by_weight.coef == pytest.approx(by_row.coef, rel=1e-9)
    assert by_weight.std_error == pytest.approx(by_row.std_error, rel=1e-9)
    with pytest.raises(EstimationError, match="no finite solution"):
        fit_proportional_odds([0, 0, 1, 1], [[0], [0], [1], [1]])
    with pytest.raises(EstimationError, match="one level"):
        fit_proportional_odds([1, 1], [[0], [1]])


def test_plain_levels_are_differences_of_shares_and_the_model_is_statsmodels(frame):
    result = ordinal_effect(frame, treatment="arm", outcome="grade", confounders=["x", "z"], method="naive")
    for row, k in zip(result.parts, (1, 2, 3), strict=True):
        assert row.label == f"at least {k}"
        reached = frame.assign(right=(frame.grade >= k).astype(int))
        alone = effect(reached, method="naive")
        assert row.estimate == pytest.approx(alone.estimate, rel=1e-12)
        assert row.std_error == pytest.approx(alone.std_error, rel=1e-10)
        assert (row.ci_low, row.ci_high) == pytest.approx((alone.ci_low, alone.ci_high), rel=1e-6)
    model = OrderedModel(frame.grade, frame[["arm"]], distr="logit")
    fit = fit_proportional_odds(frame.grade, frame[["arm"]])
    assert np.log(result.odds_ratio.estimate) == pytest.approx(float(fit.coef[-1]), rel=1e-8)
    params = np.concatenate([fit.coef[3:], [-fit.coef[0]], np.log(np.diff(-fit.coef[:3]))])
    scores, bread = model.score_obs(params), np.linalg.inv(model.hessian(params))
    sandwich = np.sqrt(np.diag(bread @ scores.T @ scores @ bread))
    assert result.odds_ratio.std_error == pytest.approx(sandwich[0], rel=0.01)
    for row, j in zip(result.model, range(3), strict=True):
        p1, p0 = at_least(fit, [[1.0], [0.0]])[:, j]
        assert row.estimate == pytest.approx(p1 - p0, rel=1e-8)
    adjusted = multipletests([r.p_value for r in result.parts], method="holm")[1]
    assert [r.p_adjusted for r in result.parts] == pytest.approx(list(adjusted), rel=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "nearest", "caliper": 0.2},
        {"method": "ipw", "estimand": "ate"},
        {"method": "subclass"},
        {"method": "nearest", "replace": True},
        TEXTBOOK,
    ],
)
def test_each_level_is_the_binary_effect_of_reaching_it(frame, options):
    result = ordinal_effect(frame, treatment="arm", outcome="grade", confounders=["x", "z"], **options)
    for row, k in zip(result.parts, (1, 2, 3), strict=True):
        alone = effect(frame.assign(right=(frame.grade >= k).astype(int)), **options)
        assert row.estimate == pytest.approx(alone.estimate, abs=1e-10)
        assert row.std_error == pytest.approx(alone.std_error, rel=1e-9)
    assert (row.n_treated_used, row.n_control_used) == (alone.n_treated_used, alone.n_control_used)
    json.dumps(result.to_dict(), allow_nan=False)
    assert len(result.to_frame()) == 3
    assert result.plot().to_dict()["description"]


def test_with_two_levels_the_model_is_the_odds_ratio(frame):
    asked = {"method": "nearest", "caliper": 0.2}
    result = ordinal_effect(frame, treatment="arm", outcome="right", confounders=["x", "z"], **asked)
    binary = effect(frame, **asked)
    odds = binary.measures[2]
    assert result.odds_ratio.estimate == pytest.approx(odds.estimate, rel=1e-8)
    assert result.odds_ratio.std_error == pytest.approx(odds.std_error, rel=1e-7)
    assert result.model[0].estimate == pytest.approx(binary.estimate, rel=1e-8)
    assert result.model[0].std_error == pytest.approx(binary.std_error, rel=1e-7)
    assert result.proportional_odds_p is None


@pytest.mark.slow
def test_levels_cover_and_the_check_of_the_model_keeps_its_size():
    rng = np.random.default_rng(6)
    draws, n = 500, 500
    cuts = np.array([-1.0, 0.5, 2.0])
    big = rng.normal(size=200_000)
    truth = [float((logit(big * 0.8 + 0.7 - c) - logit(big * 0.8 - c)).mean()) for c in cuts]
    marginal_odds = [logit(big * 0.8 + k * 0.7 - cuts[1]).mean() for k in (1, 0)]
    log_odds = np.log(marginal_odds[0] / (1 - marginal_odds[0]) / (marginal_odds[1] / (1 - marginal_odds[1])))
    hits, model_hits, odds_hits, rejected = np.zeros(3), np.zeros(3), 0, 0
    for _ in range(draws):
        x = rng.normal(size=n)
        arm = rng.random(n) < logit(0.6 * x)
        grade = np.digitize(0.8 * x + 0.7 * arm + rng.logistic(size=n), cuts)
        data = pd.DataFrame({"arm": arm, "x": x, "grade": grade})
        r = ordinal_effect(
            data, treatment="arm", outcome="grade", confounders=["x"], method="ipw", estimand="ate"
        )
        hits += [row.ci_low <= t <= row.ci_high for row, t in zip(r.parts, truth, strict=True)]
        model_hits += [row.ci_low <= t <= row.ci_high for row, t in zip(r.model, truth, strict=True)]
        odds_hits += np.log(r.odds_ratio.ci_low) <= log_odds <= np.log(r.odds_ratio.ci_high)
        rejected += r.proportional_odds_p < 0.05
    assert ((hits / draws >= 0.925) & (hits / draws <= 0.975)).all()
    # The marginal odds are only nearly proportional, which costs the model a little.
    assert ((model_hits / draws >= 0.92) & (model_hits / draws <= 0.98)).all()
    assert 0.925 <= odds_hits / draws <= 0.975
    assert rejected / draws <= 0.08


def test_a_model_that_does_not_fit_is_said():
    rng = np.random.default_rng(1)
    arm = np.repeat([0, 1], 400)
    # The treated are pushed to both ends: no one odds ratio describes that.
    grade = np.where(
        arm == 0, rng.choice([1, 2, 3], 800, p=[0.2, 0.6, 0.2]), rng.choice([1, 2, 3], 800, p=[0.4, 0.2, 0.4])
    )
    data = pd.DataFrame({"arm": arm, "grade": grade})
    result = ordinal_effect(data, treatment="arm", outcome="grade", method="naive", design="randomized")
    assert result.proportional_odds_p < 1e-6
    assert {a.name: a.status for a in result.assumptions}["proportional odds"] == "fails"
    assert any("read the differences by level" in w for w in result.warnings)
    assert "may therefore not be claimed" not in result.sentence


def paired_frame(n=60, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=n)
    grades = [np.digitize(base + shift + rng.logistic(size=n), [-1.0, 0.5]) for shift in (0.0, 0.9)]
    return pd.DataFrame(
        {
            "item_id": np.tile(np.arange(n), 2),
            "arm": ["direct"] * n + ["cot"] * n,
            "grade": np.concatenate(grades),
            "a": np.concatenate([base, base + rng.normal(0.4, 1.0, n)]),
            "b": np.concatenate([base, base + rng.normal(0.0, 1.0, n)]),
            "template": np.tile(np.arange(n) // 4, 2),
        }
    )


def test_paired_levels_are_paired_differences_of_reaching_them():
    data = paired_frame()
    for cluster in (None, "template"):
        result = paired_ordinal_effect(
            data, outcome="grade", treated="cot", control="direct", cluster=cluster
        )
        for row, k in zip(result.parts, (1, 2), strict=True):
            reached = data.assign(y=(data.grade >= k).astype(float))
            alone = paired_effect(reached, outcome="y", treated="cot", control="direct", cluster=cluster)
            assert row.estimate == pytest.approx(alone.estimate, abs=1e-12)
            assert row.std_error == pytest.approx(alone.std_error, rel=1e-10)
            if cluster is not None:  # Without clusters, a 0/1 outcome has the exact McNemar p.
                assert row.p_value == pytest.approx(alone.p_value, rel=1e-9)
        assert result.odds_ratio.estimate > 1
        assert result.odds_ratio.ci_low < result.odds_ratio.estimate < result.odds_ratio.ci_high


def test_text_levels_need_an_order(frame):
    words = frame.assign(grade=frame.grade.map({0: "bad", 1: "fair", 2: "good", 3: "best"}))
    options = {"treatment": "arm", "outcome": "grade", "confounders": ["x", "z"], "method": "ipw"}
    with pytest.raises(DataError, match="which level is higher is not known"):
        ordinal_effect(words, **options)
    with pytest.raises(DataError, match="has the level 'best', which is not in levels"):
        ordinal_effect(words, levels=["bad", "fair", "good"], **options)
    named = ordinal_effect(words, levels=["bad", "fair", "good", "best"], **options)
    numbers = ordinal_effect(frame, **options)
    assert named.levels == ("bad", "fair", "good", "best")
    assert [r.estimate for r in named.parts] == [r.estimate for r in numbers.parts]
    with pytest.raises(DataError, match="that is a number, not a grade"):
        ordinal_effect(frame, **{**options, "outcome": "score"})
    with pytest.raises(EstimationError, match="bootstrap"):
        ordinal_effect(frame, std_error="bootstrap", **options)
    with pytest.raises(EstimationError, match="option 'calliper' is not known"):
        ordinal_effect(frame, calliper=0.1, **options)


# -------------------------------------------------------------------------------- several outcomes


OUTCOMES = ["score", "words", "right"]


@pytest.mark.parametrize(
    "options",
    [
        {"method": "nearest", "caliper": 0.2},
        {"method": "ipw"},
        {"method": "naive"},
        {"method": "subclass"},
        {"method": "nearest", "replace": True},
    ],
)
def test_each_of_several_outcomes_is_estimated_as_by_itself(frame, options):
    result = estimate_effects(frame, treatment="arm", outcomes=OUTCOMES, confounders=["x", "z"], **options)
    for row in result.parts:
        alone = effect(frame, row.label, **options)
        assert row.estimate == pytest.approx(alone.estimate, rel=1e-10)
        assert row.std_error == pytest.approx(alone.std_error, rel=1e-10)
        assert row.p_value == pytest.approx(alone.p_value, rel=1e-7)
        assert row.simultaneous_low < row.ci_low < row.ci_high < row.simultaneous_high
    adjusted = multipletests([r.p_value for r in result.parts], method="holm")[1]
    for row, p in zip(result.parts, adjusted, strict=True):
        assert row.p_value <= row.p_adjusted <= p + 0.01
    json.dumps(result.to_dict(), allow_nan=False)
    assert result.plot().to_dict()["description"]


def test_the_correlation_of_the_estimates_is_that_of_their_influence_values(frame):
    result = estimate_effects(
        frame, treatment="arm", outcomes=OUTCOMES, confounders=["x", "z"], method="overlap"
    )
    values = []
    for name in OUTCOMES:
        fit = fit_arrays(frame[name], frame.arm, frame[["x", "z"]].to_numpy(), method="overlap")
        values.append(fit.influence[:, 0] - fit.influence[:, 1])
    wanted = np.array(values) @ np.array(values).T
    wanted /= np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    assert np.array(result.correlation) == pytest.approx(wanted, abs=1e-6)
    assert result.correlation[0][1] > 0.2


@pytest.mark.parametrize("cluster", ["none", "site"])
@pytest.mark.parametrize("method", ["ipw", "overlap", "entropy", "aipw"])
def test_the_joint_distribution_is_that_of_the_errors_of_sums_and_differences(frame, method, cluster):
    from whyprompt.effects.estimate import adjusted
    from whyprompt.stats.several import covariance_by_errors
    from whyprompt.tables import open_table

    frame = frame.assign(site=np.arange(len(frame)) % 40)
    options = {"confounders": ["x", "z"], "method": method, "cluster": cluster}
    if method == "aipw":
        # Linear in the outcome, as a sum's error needs; boosted trees are not.
        options |= {"outcome_model": "linear", "propensity": "logit", "splits": 2}
    made = adjusted(open_table(frame), treatment="arm", outcomes=OUTCOMES, **options)

    def error(y):
        """Fit everything again, as for an outcome of its own."""
        return made.plan.method.fit(replace(made.problem, y=y, rank=made.fit.rank), made.plan).std_error

    ys = [frame[name].to_numpy(float) for name in OUTCOMES]
    wanted = covariance_by_errors(error, [y / error(y) for y in ys], scaled=True)
    result = estimate_effects(frame, treatment="arm", outcomes=OUTCOMES, **options)
    assert np.array(result.correlation) == pytest.approx(wanted, abs=1e-9)


def test_pairs_give_the_correlation_of_their_differences(frame):
    plain = {"method": "nearest", "caliper": 0.2, "regression_adjustment": False, "std_error": "pairs"}
    result = estimate_effects(frame, treatment="arm", outcomes=OUTCOMES, confounders=["x", "z"], **plain)
    alone = effect(frame, "score", **plain)
    order = np.argsort(alone.matched.focal)
    rows = alone.matched.focal[order], alone.matched.other[order]
    d = frame[OUTCOMES].to_numpy(float)
    assert np.array(result.correlation) == pytest.approx(np.corrcoef((d[rows[0]] - d[rows[1]]).T), abs=1e-6)


@pytest.mark.slow
def test_the_chance_of_any_false_claim_keeps_its_level():
    rng = np.random.default_rng(3)
    draws, wrong, by_itself = 300, 0, 0
    for _ in range(draws):
        n = 200
        x, common = rng.normal(size=n), rng.normal(size=n)
        arm = rng.random(n) < logit(x)
        data = pd.DataFrame(
            {"arm": arm, "x": x, **{f"y{k}": x + common + rng.normal(size=n) for k in range(5)}}
        )
        r = estimate_effects(
            data, treatment="arm", outcomes=[f"y{k}" for k in range(5)], confounders=["x"], method="overlap"
        )
        wrong += any(row.p_adjusted < 0.05 for row in r.parts)
        by_itself += any(row.p_value < 0.05 for row in r.parts)
    # Monte Carlo error 0.011
    assert 0.02 <= wrong / draws <= 0.08
    assert by_itself / draws > 0.1


def test_several_paired_outcomes():
    data = paired_frame()
    result = paired_effects(data, outcomes=["a", "b", "grade"], treated="cot", control="direct")
    for row in result.parts:
        alone = paired_effect(data, outcome=row.label, treated="cot", control="direct")
        assert (row.estimate, row.std_error) == pytest.approx((alone.estimate, alone.std_error), rel=1e-12)
        assert row.p_value == pytest.approx(alone.p_value, rel=1e-9)
    one = paired_effects(data, outcomes=["a"], treated="cot", control="direct")
    # One outcome: the sign-flip p is close to that of the t test.
    assert one.parts[0].p_adjusted == pytest.approx(one.parts[0].p_value, abs=0.01)
    grouped = paired_effects(data, outcomes=["a", "b"], treated="cot", control="direct", cluster="template")
    assert grouped.adjustment == "random signs on clusters"
    few = paired_effects(data[data.item_id < 5], outcomes=["a", "b"], treated="cot", control="direct")
    assert any("no sign-flip p can be below 0.0625" in w for w in few.warnings)
    gap = data.assign(b=data.b.where(data.item_id != 3))
    left = paired_effects(gap, outcomes=["a", "b"], treated="cot", control="direct")
    assert (left.parts[0].n_treated, left.parts[0].n_treated_used) == (60, 59)
    assert any("1 item(s) without all outcomes" in w for w in left.warnings)


@pytest.mark.slow
def test_sign_flips_keep_the_family_wise_level():
    rng = np.random.default_rng(9)
    wrong, draws = 0, 400
    for _ in range(draws):
        d = rng.normal(size=(25, 1)) + rng.normal(size=(25, 4))
        data = pd.DataFrame(np.vstack([np.zeros((25, 4)), d]), columns=list("abcd")).assign(
            item_id=np.tile(np.arange(25), 2), arm=["direct"] * 25 + ["cot"] * 25
        )
        r = paired_effects(data, outcomes=list("abcd"), treated="cot", control="direct", draws=500)
        wrong += any(row.p_adjusted < 0.05 for row in r.parts)
    assert 0.02 <= wrong / draws <= 0.08


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"outcomes": []}, EstimationError, "no outcome was named"),
        ({"outcomes": ["score", "score"]}, EstimationError, "named twice"),
        ({"outcomes": ["score", "scroe"]}, DataError, "did you mean 'score'"),
        ({"outcomes": ["score", "kind"]}, DataError, "is text"),
        ({"outcomes": ["score", "x"]}, EstimationError, "'x' is the outcome"),
        ({"by": "kind"}, EstimationError, "one outcome at a time"),
        ({"std_error": "bootstrap"}, EstimationError, "bootstrap"),
        ({"calliper": 1}, EstimationError, "option 'calliper' is not known"),
    ],
)  # fmt: skip
def test_bad_input_to_several_outcomes_is_named(frame, options, error, message):
    asked = {"treatment": "arm", "outcomes": OUTCOMES, "confounders": ["x", "z"], **options}
    with pytest.raises(error, match=message):
        estimate_effects(frame, **asked)


def test_a_graph_is_asked_for_every_outcome(frame):
    graph = CausalGraph.parse(
        "x, z -> arm; x, z -> score; arm -> score, words; x -> words; words <- w -> arm"
    )
    with pytest.raises(GraphError, match="w"):
        estimate_effects(frame, treatment="arm", outcomes=["score", "words"], graph=graph, method="ipw")


# --------------------------------------------------------------------------------------- subgroups


@pytest.mark.parametrize(
    "options", [{"method": "nearest", "caliper": 0.2}, {"method": "ipw"}, TEXTBOOK, {"method": "naive"}]
)
def test_a_subgroup_is_the_analysis_of_its_rows(frame, options):
    result = effect(frame, "score", by="kind", **options)
    assert [row.label for row in result.parts] == ["algebra", "logic", "words"]
    for row in result.parts:
        alone = effect(frame[frame.kind == row.label], "score", **options)
        assert row.estimate == pytest.approx(alone.estimate, rel=1e-10)
        assert row.std_error == pytest.approx(alone.std_error, rel=1e-10)
        assert (row.n_treated_used, row.n_control_used) == (alone.n_treated_used, alone.n_control_used)
        assert row.largest_smd == pytest.approx(max(abs(r.smd_after) for r in alone.balance), rel=1e-9)
        # Balance over all rows is no balance in each part: what is left in one stands beside its effect.
        left = f"the arms still differ (standardised difference {format_number(row.largest_smd)})"
        assert (left in row.note) == (row.largest_smd > 0.1)
    adjusted = multipletests([r.p_value for r in result.parts], method="holm")[1]
    assert [r.p_adjusted for r in result.parts] == pytest.approx(list(adjusted), rel=1e-9)
    value = np.array([r.estimate for r in result.parts])
    share = np.array([r.std_error for r in result.parts]) ** -2.0
    q = share @ (value - share @ value / share.sum()) ** 2
    assert result.heterogeneity["kind"] == pytest.approx(stats.chi2.sf(q, 2), rel=1e-9)
    assert "Over 'kind' the effects are not shown to differ" in result.sentence
    assert len(result.to_frame()) == 4


def test_effects_that_differ_are_told_apart(frame):
    data = frame.assign(score=frame.score + 2.0 * (frame.kind == "logic") * frame.arm)
    result = effect(data, "score", by=["kind"], method="ipw")
    assert result.heterogeneity["kind"] < 1e-4
    assert "the effects differ" in result.sentence
    assert "kind=logic" in result.sentence


def test_a_subgroup_that_cannot_be_estimated_says_why(frame):
    data = frame.assign(kind=np.where((frame.kind == "logic") & (frame.arm == 1), "words", frame.kind))
    result = effect(data, "score", by="kind", method="ipw")
    logic = result.part("logic", by="kind")
    assert (logic.estimate, logic.p_adjusted, logic.n_treated) == (None, None, 0)
    assert "fewer than two rows" in logic.note


def test_bad_subgroups_are_refused(frame):
    with pytest.raises(EstimationError, match="'prompt_tokens' cannot be a confounder"):
        effect(frame.assign(prompt_tokens=1), by="prompt_tokens")
    with pytest.raises(DataError, match="600 levels"):
        effect(frame, by="x")


def test_subgroups_that_share_clusters_are_not_tested_against_each_other(frame):
    grouped = frame.assign(item=np.arange(len(frame)) // 3)
    shared = effect(grouped, "score", by="kind", method="ipw", cluster="item")
    assert shared.heterogeneity == {}
    apart = grouped.assign(side=np.where(grouped.item < 100, "early", "late"))
    assert set(effect(apart, "score", by="side", method="ipw", cluster="item").heterogeneity) == {"side"}


def test_a_level_that_nobody_leaves_has_no_interval():
    items = np.repeat(np.arange(12), 2)
    grade = (
        np.column_stack([np.arange(12) % 3, np.where(np.arange(12) < 5, 2, np.arange(12) % 3)]).ravel() + 1
    )
    grade[grade == 1] = 2
    grade[:2] = 1
    data = pd.DataFrame({"item_id": items, "arm": ["direct", "cot"] * 12, "grade": grade, "k": items})
    result = paired_ordinal_effect(data, outcome="grade", treated="cot", control="direct")
    first, second = result.parts
    assert (first.estimate, first.std_error, first.ci_low, first.p_value) == (0.0, None, None, None)
    assert second.ci_low < second.estimate < second.ci_high
    rows = paired_effects(
        data.assign(same=data.k + (data.arm == "cot")),
        outcomes=["same", "grade"],
        treated="cot",
        control="direct",
    )
    same, other = rows.parts
    assert (same.estimate, same.std_error, same.p_value, same.p_adjusted) == (1.0, None, None, None)
    assert other.p_adjusted >= other.p_value * 0.5
    assert any("no standard error of same" in w for w in rows.warnings)


# ------------------------------------------------------------------------ one question, alone and with others


def binary_items(n, up, down, seed=0):
    rng = np.random.default_rng(seed)
    control = (rng.random(n) < 0.5) * 1.0
    control[: up + down] = np.r_[np.zeros(up), np.ones(down)]
    treated = control.copy()
    treated[: up + down] = 1.0 - control[: up + down]
    return pd.DataFrame(
        {
            "item_id": np.tile([f"q{i}" for i in range(n)], 2),
            "arm": np.repeat(["direct", "cot"], n),
            "right": np.r_[control, treated],
            "tokens": np.r_[rng.normal(10, 1, n), rng.normal(12, 1, n)],
        }
    )


@pytest.mark.parametrize(("n", "up", "down"), [(1000, 220, 10), (12, 6, 1), (40, 9, 0)])
def test_a_second_outcome_changes_neither_the_p_nor_the_interval_of_the_first(n, up, down):
    frame = binary_items(n, up, down)
    arms = {"treated": "cot", "control": "direct"}
    alone = paired_effect(frame, outcome="right", **arms)
    row = paired_effects(frame, outcomes=["right", "tokens"], **arms).parts[0]
    assert (row.estimate, row.p_value) == (alone.estimate, alone.p_value)
    assert (row.ci_low, row.ci_high) == (alone.ci_low, alone.ci_high)
    assert row.p_value == alone.items.mcnemar_p
    # What holds for both at once is never the narrower, and what is adjusted never the smaller.
    assert row.simultaneous_low <= row.ci_low
    assert row.simultaneous_high >= row.ci_high
    assert row.p_adjusted >= row.p_value


def test_an_interval_at_once_is_never_narrower_than_by_itself():
    """With perfectly dependent outcomes a simulated quantile falls short of the exact one by chance."""
    rng = np.random.default_rng(3)
    for seed in range(6):
        y = rng.normal(size=80)
        frame = pd.DataFrame(
            {"item_id": np.tile(np.arange(40), 2), "arm": np.repeat(["a", "b"], 40), "y": y, "z": 2 * y}
        )
        paired = paired_effects(
            frame, outcomes=["y", "z"], treated="b", control="a", random_state=seed, draws=400
        )
        randomised = estimate_effects(
            frame, treatment="arm", outcomes=["y", "z"], treated="b", method="naive", design="randomized",
            random_state=seed,
        )  # fmt: skip
        for row in (*paired.parts, *randomised.parts):
            assert row.simultaneous_low <= row.ci_low + 1e-12
            assert row.simultaneous_high >= row.ci_high - 1e-12
            assert row.p_adjusted >= row.p_value


def test_a_p_below_what_random_signs_can_show_is_written_as_smaller():
    frame = binary_items(1000, 220, 10)
    found = paired_effects(frame, outcomes=["right", "tokens"], treated="cot", control="direct")
    assert found.p_least == 1 / 20_001
    assert all(row.p_adjusted == found.p_least for row in found.parts)
    lines = [line for line in found.summary().splitlines() if line.strip().startswith(("right", "tokens"))]
    assert all(line.endswith("< 0.00005") for line in lines)
    few = paired_effects(
        frame[frame["item_id"].isin([f"q{i}" for i in range(8)])],
        outcomes=["right", "tokens"],
        treated="cot",
        control="direct",
    )
    # All patterns of few units are counted: their least p is a p, and no floor.
    assert few.p_least is None


# ------------------------------------------------------------------------------- many cuts are many questions


def graded(seed=0, n=90, shift=0.0, levels=9):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=n)
    cuts = np.linspace(-1.5, 1.5, levels - 1)
    return pd.DataFrame(
        {
            "item_id": np.tile(np.arange(n), 2),
            "arm": np.repeat(["direct", "cot"], n),
            "grade": np.r_[
                np.digitize(base + rng.normal(size=n), cuts),
                np.digitize(base + shift + rng.normal(size=n), cuts),
            ]
            + 1,
        }
    )


def test_intervals_of_all_cuts_hold_at_once_and_the_sentence_names_only_what_they_show():
    """Under no effect a cut by itself excludes zero in far more than 5% of tables, all at once in 5%."""
    arms = {"outcome": "grade", "treated": "cot", "control": "direct"}
    alone = at_once = named = 0
    worlds = 60
    for seed in range(worlds):
        found = paired_ordinal_effect(graded(seed), **arms)
        alone += any(r.ci_low > 0 or r.ci_high < 0 for r in found.parts)
        missed = [r for r in found.parts if r.simultaneous_low > 0 or r.simultaneous_high < 0]
        at_once += bool(missed)
        named += (
            "is not shown to change (intervals that hold at once at 95% all include zero"
            not in found.sentence
        )
        for r in found.parts:
            assert r.simultaneous_low <= r.ci_low
            assert r.simultaneous_high >= r.ci_high
            assert (f"of reaching {r.label[9:]!r} by" in found.sentence) == (r in missed)
    assert named == at_once
    # At 5% a count of 60 lies at or below 8 with a chance of 0.997.
    assert at_once <= 8 < alone
    some = paired_ordinal_effect(graded(3, n=300, shift=0.5), **arms)
    shown = [r.label[9:] for r in some.parts if r.simultaneous_low > 0]
    assert 0 < len(shown) < len(some.parts)
    assert f"of reaching '{shown[0]}' by" in some.sentence
    assert "no change is shown" in some.sentence


def test_one_cut_has_the_same_interval_by_itself_and_at_once():
    frame = graded(1, shift=0.4)
    frame["grade"] = (frame["grade"] > 5).astype(int)
    (row,) = paired_ordinal_effect(frame, outcome="grade", treated="cot", control="direct").parts
    assert (row.simultaneous_low, row.simultaneous_high) == pytest.approx((row.ci_low, row.ci_high), rel=0.02)


def test_a_difference_that_rounding_made_is_nil():
    thirds = [1, 2, 3] * 7
    frame = pd.DataFrame({"arm": [0] * 21 + [1] * 21, "grade": thirds + thirds[::-1]})
    found = ordinal_effect(frame, treatment="arm", outcome="grade", method="naive", design="randomized")
    assert [row.estimate for row in found.parts] == [0.0, 0.0]
    assert "e-1" not in found.sentence


def test_repeats_are_counted_in_items():
    frame = pd.concat([graded(0, n=20)] * 50)
    with pytest.raises(EstimationError, match="20 of 20 items have repeats within an arm"):
        paired_ordinal_effect(frame, outcome="grade", treated="cot", control="direct")
