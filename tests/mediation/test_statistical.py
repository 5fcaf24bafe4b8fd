import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from whyprompt import mediate, mediation_sensitivity
from whyprompt.errors import DataError, EstimationError
from whyprompt.mediation import baron_kenny, contrast_mediations

REFERENCE = Path(__file__).parents[1] / "reference"
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = {
    "d0": "acme_control",
    "d1": "acme_treated",
    "z0": "ade_control",
    "z1": "ade_treated",
    "tau": "total_effect",
}
OPTIONS = {
    "treatment": "treat",
    "mediator": "emo",
    "outcome": "cong_mesg",
    "confounders": ["age", "hs", "sc", "ba", "female", "income"],
    "outcome_model": "probit",
    "draws": 10_000,
}


@pytest.fixture(scope="module")
def framing():
    frame = pd.read_csv(REFERENCE / "framing.csv")
    frame["female"] = (frame["gender"] == "female").astype(float)
    # R's first level is "less than high school", which is not the first of the alphabet.
    for name, level in (("hs", "high school"), ("sc", "some college"), ("ba", "bachelor's degree or higher")):
        frame[name] = (frame["educ"] == level).astype(float)
    return frame.assign(cond=frame["cond"].astype(str))


@pytest.fixture(scope="module")
def reference():
    return json.loads((REFERENCE / "mediation_framing.json").read_text())


def agrees(result, ref):
    """Within Monte Carlo error of R's figures, on both sides: 4 standard errors, or 8% of a width."""
    for theirs, ours in NAMES.items():
        entry, effect = ref["tau.coef" if theirs == "tau" else theirs], result.part(ours)
        sd = ref["sd_of_sims"][theirs]
        mc = sd * np.sqrt(1 / len(result.draws["acme"]) + 1 / ref.get("sims", 10_000))
        assert abs(effect.estimate - entry["est"]) < 4 * mc, ours
        assert abs(effect.std_error / sd - 1) < 0.06, ours
        for low_or_high, bound in zip((effect.ci_low, effect.ci_high), entry["ci"], strict=True):
            assert abs(low_or_high - bound) < 0.16 * sd, ours
        tail = entry["p"] / 2
        mc_p = 2 * np.sqrt(tail * (1 - tail) * (1 / len(result.draws["acme"]) + 1 / ref.get("sims", 10_000)))
        assert abs(effect.p_value - entry["p"]) < 4 * mc_p + 0.002, ours


def in_r_names(fit):
    rename = {"hs": "educhigh school", "sc": "educsome college", "ba": "educbachelor's degree or higher"}
    return {rename.get(k, k).replace("female", "genderfemale"): v for k, v in fit.to_dict().items()}


def r_glm(x, y, link, epsilon=1e-8):
    """R's glm.fit, from its start to its stopping rule: the deviance, not the coefficients, must settle."""
    law = stats.norm if link == "probit" else stats.logistic
    mu = (y + 0.5) / 2
    eta, deviance = law.ppf(mu), np.inf
    for _ in range(60):
        slope = law.pdf(eta)
        w = np.sqrt(slope**2 / (mu * (1 - mu)))
        z = eta + (y - mu) / slope
        coef = np.linalg.lstsq(x * w[:, None], z * w, rcond=None)[0]
        eta = x @ coef
        mu = law.cdf(eta)
        before, deviance = deviance, -2 * np.log(np.where(y > 0, mu, 1 - mu)).sum()
        if abs(deviance - before) / (abs(deviance) + 0.1) < epsilon:
            break
    return coef


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        (("probit", "quasi_bayes"), {}),
        (("probit", "bootstrap_perc"), {"method": "bootstrap", "draws": 2000}),
        (("probit_robustSE",), {"robust": True}),
        (("logit_interaction", "quasi_bayes"), {"outcome_model": "logit", "interaction": True}),
        (("moderated_age20",), {"moderators": ["age"], "at": {"age": 20}}),
        (("moderated_age60",), {"moderators": ["age"], "at": {"age": 60}}),
        (("multivalued_cond_2_vs_3",), {"treatment": "cond", "control": "2", "treated": "3"}),
    ],
)
def test_equals_r_within_monte_carlo_error(framing, reference, key, changes):
    for k in key:
        reference = reference[k]
    agrees(mediate(framing, **OPTIONS | changes), reference)


def test_linear_coefficients_equal_those_of_r(framing, reference):
    fit = in_r_names(mediate(framing, **OPTIONS | {"draws": 2}).mediator_fit)
    want = reference["probit"]["coef_m"]
    assert fit.keys() == want.keys()
    np.testing.assert_allclose([fit[k] for k in want], list(want.values()), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("link", "key", "changes"),
    [
        ("probit", "probit", {}),
        ("logit", "logit_interaction", {"outcome_model": "logit", "interaction": True}),
    ],
)
def test_binary_coefficients_are_the_maximum_that_those_of_r_stop_short_of(
    framing, reference, link, key, changes
):
    fit = mediate(framing, **OPTIONS | {"draws": 2} | changes).outcome_fit
    names = {v: k for k, v in zip(fit.names, in_r_names(fit), strict=True)}
    want = reference[key]["coef_y"]
    assert set(names) == set(want)
    columns = {"(Intercept)": np.ones(len(framing)), "emo:treat": framing["emo"] * framing["treat"]}
    x = np.column_stack([columns.get(n, framing.get(n)) for n in fit.names]).astype(float)
    y = framing["cong_mesg"].to_numpy(float)
    theirs = dict(zip(in_r_names(fit), r_glm(x, y, link), strict=True))
    # R's rule, followed to the letter, gives R's figures: it is the same model.
    np.testing.assert_allclose([theirs[k] for k in want], list(want.values()), rtol=0, atol=1e-10)
    # Its rule stops up to 3e-6 before the maximum; ours goes there, and so does R's, let on.
    np.testing.assert_allclose(fit.coef, r_glm(x, y, link, epsilon=0), rtol=0, atol=1e-9)
    np.testing.assert_allclose(fit.coef, list(theirs.values()), rtol=0, atol=4e-6)


@pytest.mark.parametrize("family", ["linear", "logit", "probit"])
def test_fits_equal_statsmodels(framing, family):
    import statsmodels.api as sm

    outcome = "income" if family == "linear" else "cong_mesg"
    changes = {"outcome": outcome, "outcome_model": family, "draws": 2, "confounders": ["age", "female"]}
    got = mediate(framing, **OPTIONS | changes).outcome_fit
    x = np.column_stack([np.ones(len(framing)), framing[["treat", "age", "female", "emo"]].to_numpy(float)])
    y = framing[outcome].to_numpy(float)
    link = {"logit": sm.families.links.Logit(), "probit": sm.families.links.Probit()}
    model = sm.OLS(y, x) if family == "linear" else sm.GLM(y, x, family=sm.families.Binomial(link[family]))
    options = {} if family == "linear" else {"tol": 1e-14, "maxiter": 200}
    want = model.fit(**options)
    np.testing.assert_allclose(got.coef, want.params, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(got.covariance, want.cov_params(), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("family", ["linear", "logit", "probit"])
def test_the_covariance_of_clusters_is_that_of_leaving_one_out(framing, family):
    """Refitted by statsmodels without each cluster; a binary model by one step of Fisher's scoring."""
    import statsmodels.api as sm

    outcome = "income" if family == "linear" else "cong_mesg"
    frame = framing.assign(unit=framing["age"] // 3)
    changes = {"outcome": outcome, "outcome_model": family, "draws": 2, "confounders": ["age", "female"]}
    got = mediate(frame, **OPTIONS | changes, cluster="unit").outcome_fit
    x = np.column_stack([np.ones(len(frame)), frame[["treat", "age", "female", "emo"]].to_numpy(float)])
    y, unit = frame[outcome].to_numpy(float), frame["unit"].to_numpy()
    link = {"logit": sm.families.links.Logit(), "probit": sm.families.links.Probit()}

    def step(rows):
        if family == "linear":
            return sm.OLS(y[rows], x[rows]).fit().params - got.coef
        model = sm.GLM(y[rows], x[rows], family=sm.families.Binomial(link[family]))
        return np.linalg.solve(-model.hessian(got.coef, observed=False), model.score(got.coef))

    units = np.unique(unit)
    shift = np.stack([step(unit != u) for u in units])
    want = (len(units) - 1) / len(units) * shift.T @ shift
    scale = np.sqrt(np.outer(np.diag(want), np.diag(want)))
    np.testing.assert_allclose(got.covariance / scale, want / scale, rtol=0, atol=1e-6)
    assert (got.n_clusters, got.df) == (len(units), len(units) - 1)


def test_a_coefficient_that_one_cluster_alone_decides_has_a_covariance_all_the_same():
    frame, _ = world(n=120)
    frame = frame.assign(g=np.arange(120) // 6)
    alone = frame.assign(alone=(frame["g"] == 3).astype(float))
    options = KNOWN | {"confounders": ["alone"], "cluster": "g", "draws": 2}
    # No clusters differ in what is left of the others: the fit without that cluster is theirs.
    got = mediate(alone, **options | {"method": "bootstrap"}).outcome_fit
    kept = [i for i, n in enumerate(got.names) if n != "alone"]
    assert np.isfinite(got.covariance).all()
    assert (np.diag(got.covariance)[kept] > 0).all()


def test_robust_covariance_is_hc3(framing):
    import statsmodels.api as sm

    got = mediate(framing, **OPTIONS | {"draws": 2, "robust": True}).mediator_fit
    x = framing[["treat", *OPTIONS["confounders"]]].to_numpy(float)
    want = sm.OLS(framing["emo"].to_numpy(float), np.column_stack([np.ones(len(x)), x])).fit(cov_type="HC3")
    np.testing.assert_allclose(got.covariance, want.cov_params(), rtol=1e-8)


def test_moderation_is_tested_on_common_draws(framing, reference):
    options = OPTIONS | {"moderators": ["age"]}
    young, old = (mediate(framing, **options, at={"age": age}) for age in (20, 60))
    got = contrast_mediations(young, old)
    for name, ref in zip(("acme", "ade"), reference["test_modmed"], strict=True):
        assert abs(got.part(name).p_value - ref["p"]) < 0.15
        width = ref["ci"][1] - ref["ci"][0]
        assert abs(got.part(name).ci_low - ref["ci"][0]) < 0.1 * width
        assert abs(got.part(name).ci_high - ref["ci"][1]) < 0.1 * width


def test_interaction_of_treatment_and_mediator_is_tested(framing, reference):
    got = mediate(framing, **OPTIONS | {"outcome_model": "logit", "interaction": True}).part("interaction")
    ref = reference["TMint"]
    assert abs(got.p_value - ref["p"]) < 0.06
    assert abs(got.ci_low - ref["ci"][0]) < 0.01
    assert abs(got.ci_high - ref["ci"][1]) < 0.01


def world(n=4000, seed=0, kind="linear", interaction=0.5):
    """A known world with treatment-mediator interaction; returns the frame and the sample's truth."""
    rng = np.random.default_rng(seed)
    c, t = rng.normal(size=n), rng.integers(0, 2, n).astype(float)
    e, u = rng.normal(size=n), rng.normal(size=n)

    def mediator(t):
        eta = -0.4 + 1.2 * t + 0.5 * c
        return eta + e if kind == "linear" else (eta + e > 0).astype(float)

    def outcome(t, m):
        return 0.3 * t + 0.8 * m + interaction * t * m + 0.4 * c + u

    m0, m1, m = mediator(0), mediator(1), mediator(t)
    truth = {
        "acme_control": (outcome(0, m1) - outcome(0, m0)).mean(),
        "acme_treated": (outcome(1, m1) - outcome(1, m0)).mean(),
        "ade_control": (outcome(1, m0) - outcome(0, m0)).mean(),
        "ade_treated": (outcome(1, m1) - outcome(0, m1)).mean(),
    }
    return pd.DataFrame({"t": t, "m": m, "y": outcome(t, m), "c": c}), truth


KNOWN = {
    "treatment": "t",
    "mediator": "m",
    "outcome": "y",
    "confounders": ["c"],
    "interaction": True,
    "draws": 300,
}


@pytest.mark.parametrize("kind", ["linear", "probit"])
@pytest.mark.parametrize("method", ["quasi_bayes", "bootstrap"])
def test_recovers_a_known_world(kind, method):
    frame, truth = world(kind=kind)
    got = mediate(frame, **KNOWN, mediator_model=kind, method=method)
    for name, value in truth.items():
        effect = got.part(name)
        assert abs(effect.estimate - value) < 4 * effect.std_error, name
        assert effect.ci_low < effect.estimate < effect.ci_high
    total = got.part("acme_control").estimate + got.part("ade_treated").estimate
    np.testing.assert_allclose(got.part("total_effect").estimate, total, atol=1e-10)


def test_a_binary_mediator_is_not_multiplied_through_on_the_wrong_scale():
    # The log-odds slope times the linear slope would be four times the effect.
    rng = np.random.default_rng(3)
    n = 20_000
    t = rng.integers(0, 2, n).astype(float)
    m = (rng.random(n) < 1 / (1 + np.exp(0.5 - t))).astype(float)
    frame = pd.DataFrame({"t": t, "m": m, "y": m + 0.5 * t + rng.normal(size=n)})
    got = mediate(frame, treatment="t", mediator="m", outcome="y", mediator_model="logit")
    truth = 1 / (1 + np.exp(-0.5)) - 1 / (1 + np.exp(0.5))
    assert abs(got.part("acme").estimate - truth) < 4 * got.part("acme").std_error
    wrong = got.mediator_fit.to_dict()["t"] * got.outcome_fit.to_dict()["m"]
    assert wrong > 3.5 * truth


def test_the_bootstrap_resamples_both_models_together():
    # Heavy shared tails: the product of slopes from one resample is not that of two.
    rng = np.random.default_rng(4)
    n = 60
    t = rng.integers(0, 2, n).astype(float)
    m = t + rng.standard_t(2.2, n) * (1 + 2 * t)
    y = m * (1 + t) + rng.normal(size=n)
    frame = pd.DataFrame({"t": t, "m": m, "y": y})
    got = mediate(frame, treatment="t", mediator="m", outcome="y", method="bootstrap", draws=4000)
    brute = []
    for _ in range(4000):
        i = rng.integers(0, n, n)
        one = np.ones(n)
        a = np.linalg.lstsq(np.column_stack([one, t[i]]), m[i], rcond=None)[0]
        b = np.linalg.lstsq(np.column_stack([one, t[i], m[i]]), y[i], rcond=None)[0]
        brute.append(a[1] * b[2])
    # Widened as Student's t with 59 degrees of freedom, which is what 60 rows are short of.
    centre = got.part("acme").estimate
    brute = centre + (np.array(brute) - centre) * np.sqrt(60 / rng.chisquare(59, 4000))
    assert abs(got.part("acme").std_error / np.std(brute) - 1) < 0.08
    np.testing.assert_allclose(
        [got.part("acme").ci_low, got.part("acme").ci_high],
        np.quantile(brute, [0.025, 0.975]),
        atol=0.15 * np.std(brute),
    )


@pytest.mark.parametrize("moderators", [[], ["c"]])
def test_the_moment_bootstrap_equals_refitting(moderators):
    from whyprompt.mediation.measured import counterfactual as cf
    from whyprompt.mediation.measured import design as ds

    frame, _ = world(n=150)
    design = ds.read_design(frame, "t", "m", "y", ["c"], moderators=moderators, interaction=True, arms=(0, 1))
    xm, xy, m, y = design.x_mediator, design.x_outcome, design.m, design.y
    rng = np.random.default_rng(0)
    w = rng.multinomial(150, np.full(150, 1 / 150), 5).astype(float)
    got, good = cf._linear_sample(design, w)
    assert good.all()
    alpha, beta = (
        np.stack([np.linalg.lstsq(x * np.sqrt(k)[:, None], v * np.sqrt(k), rcond=None)[0] for k in w])
        for x, v in ((xm, m), (xy, y))
    )
    want = cf.effects_of(design, alpha, beta, np.ones(5), rng, w)
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("method", ["quasi_bayes", "bootstrap"])
def test_intervals_cover_the_truth_under_interaction(method):
    """ACME(t) = a (b + d t) and ADE(t) = c + d (a0 + a t): 95% intervals, 250 samples of 120 rows."""
    a0, a, b, c, d = 0.3, 0.8, 0.5, 0.4, 0.6
    truth = {
        "acme_control": a * b,
        "acme_treated": a * (b + d),
        "ade_control": c + d * a0,
        "ade_treated": c + d * (a0 + a),
        "total_effect": c + a * b + d * (a0 + a),
    }
    covered, reps = dict.fromkeys(truth, 0), 250
    for rep in range(reps):
        rng = np.random.default_rng(rep)
        t = rng.integers(0, 2, 120).astype(float)
        m = a0 + a * t + rng.normal(size=120)
        y = c * t + b * m + d * t * m + rng.normal(size=120)
        got = mediate(
            pd.DataFrame({"t": t, "m": m, "y": y}),
            **KNOWN | {"confounders": [], "draws": 300, "method": method, "random_state": rep},
        )
        for name, value in truth.items():
            covered[name] += got.part(name).ci_low < value < got.part(name).ci_high
    # 99.9% binomial bounds, from a coverage of 0.94: percentiles fall a little short at 120 rows.
    low, high = stats.binom.ppf(0.0005, reps, 0.94), stats.binom.ppf(0.9995, reps, 0.95)
    for name, count in covered.items():
        assert low <= count <= high, (name, count)


def test_intervals_cover_the_truth_of_a_binary_outcome():
    rng = np.random.default_rng(0)
    reps, n, covered = 100, 400, 0
    big = rng.normal(size=(2, 400_000))

    def probability(t, s):
        # Outcome under arm t with the mediator of arm s, a logit of a normal mediator.
        return 1 / (1 + np.exp(0.5 - 0.3 * t - 0.8 * (0.2 + 0.7 * s + big[0])))

    truth = (probability(1, 1) - probability(1, 0)).mean()
    for rep in range(reps):
        rng = np.random.default_rng(rep)
        t = rng.integers(0, 2, n).astype(float)
        m = 0.2 + 0.7 * t + rng.normal(size=n)
        y = (rng.random(n) < 1 / (1 + np.exp(0.5 - 0.3 * t - 0.8 * m))).astype(float)
        got = mediate(
            pd.DataFrame({"t": t, "m": m, "y": y}),
            treatment="t",
            mediator="m",
            outcome="y",
            outcome_model="logit",
            draws=300,
            random_state=rep,
        ).part("acme_treated")
        covered += got.ci_low < truth < got.ci_high
    assert 88 <= covered <= 100  # 99.9% bounds of a binomial (100, 0.95)


def test_an_interaction_left_out_gives_both_arms_one_effect_that_is_neither():
    frame, truth = world(n=20_000, interaction=1.5)
    ignoring = mediate(frame, **KNOWN | {"interaction": False})
    assert ignoring.part("acme_control").estimate == pytest.approx(ignoring.part("acme_treated").estimate)
    assert ignoring.part("acme_control").ci_low > truth["acme_control"] * 1.2
    assert ignoring.part("acme_treated").ci_high < truth["acme_treated"] * 0.9
    got = mediate(frame, **KNOWN)
    for name, value in truth.items():
        assert got.part(name).ci_low < value < got.part(name).ci_high


def test_clusters_widen_the_interval():
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(40), 10)
    t = (g % 2).astype(float)
    m = t + rng.normal(size=40)[g] + 0.2 * rng.normal(size=400)
    frame = pd.DataFrame({"t": t, "m": m, "y": m + rng.normal(size=400), "g": g})
    options = {"treatment": "t", "mediator": "m", "outcome": "y", "draws": 400}
    plain = mediate(frame, **options).part("acme").std_error
    for method in ("quasi_bayes", "bootstrap"):
        assert mediate(frame, **options, cluster="g", method=method).part("acme").std_error > 2 * plain


def test_sensitivity_undoes_a_known_correlation():
    rng = np.random.default_rng(6)
    n, rho = 40_000, 0.5
    t, c = rng.integers(0, 2, n).astype(float), rng.normal(size=n)
    e2, v = rng.normal(size=(2, n))
    e3 = rho * e2 + np.sqrt(1 - rho**2) * v
    m = 0.8 * t + 0.3 * c + e2
    y = 0.4 * t + 0.6 * m + 0.2 * c + 1.5 * e3
    frame = pd.DataFrame({"t": t, "m": m, "y": y, "c": c})
    options = {"treatment": "t", "mediator": "m", "outcome": "y", "confounders": ["c"]}
    got = mediation_sensitivity(frame, **options, draws=50)
    truth = 0.8 * 0.6
    assert abs(got.to_frame()["estimate"][got.to_frame()["at"] == 0.5].item() - truth) < 0.03
    naive = mediate(frame, **options, draws=2)
    at_zero = got.to_frame()["estimate"][got.to_frame()["at"] == 0].item()
    a, b = naive.mediator_fit.to_dict()["t"], naive.outcome_fit.to_dict()["m"]
    np.testing.assert_allclose(at_zero, a * b, rtol=1e-10)
    assert at_zero > 2 * truth
    at = mediation_sensitivity(frame, **options, rho=[got["rho_at_zero"]], draws=50)
    np.testing.assert_allclose(at.to_frame()["estimate"], 0, atol=1e-12)
    assert all(part.ci_low < part.estimate < part.ci_high for part in got.parts)
    # R^2 of the full regressions, by hand.
    x = np.column_stack([np.ones(n), t, c])
    shares = []
    for design, response in ((x, m), (np.column_stack([x, m]), y)):
        r = response - design @ np.linalg.lstsq(design, response, rcond=None)[0]
        shares.append(r.var() / response.var())
    np.testing.assert_allclose(
        got["r2_tilde_product"], got["rho_at_zero"] ** 2 * shares[0] * shares[1], rtol=1e-6
    )


def test_any_frame_and_text_covariates():
    frame, _ = world(n=200)
    frame["group"] = np.where(frame["c"] > 0, "high", "low")
    options = KNOWN | {"confounders": ["group"], "draws": 20}
    by_hand = mediate(
        frame.assign(low=(frame["group"] == "low").astype(float)), **options | {"confounders": ["low"]}
    )
    for given in (frame, pd.DataFrame(frame).convert_dtypes()):
        got = mediate(given, **options)
        assert "group=low" in got.mediator_fit.names
        np.testing.assert_allclose(got.part("acme").estimate, by_hand.part("acme").estimate)
    held = mediate(frame, **options, at={"group": "low"})
    assert held.part("ade_treated").estimate != got.part("ade_treated").estimate
    assert list(got.to_frame()["label"])[:3] == ["total_effect", "acme_control", "acme_treated"]


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"mediator": "nope"}, DataError, "mediator column 'nope' is not in the table"),
        ({"confounders": ["hole"]}, DataError, "confounder column 'hole' has 1 missing"),
        ({"mediator": "text"}, DataError, "column 'text' is text"),
        ({"outcome_model": "logit"}, DataError, "column 'y' must hold 0 and 1"),
        ({"mediator_model": "poisson"}, DataError, "unknown mediator_model 'poisson'"),
        ({"treatment": "one"}, DataError, "column 'one' holds one treatment only"),
        (
            {"treatment": "text", "treated": "z", "control": "a"},
            DataError,
            "treated 'z' is not a level",
        ),
        ({"moderators": ["t"]}, DataError, "moderator 't' is not a numeric confounder"),
        ({"at": {"t": 1}}, DataError, "`at` names 't'"),
        ({"confounders": ["c", "twice"]}, EstimationError, "mediator model's design is singular"),
        ({"outcome": "split", "outcome_model": "logit"}, EstimationError, "outcome model does not converge"),
        ({"method": "bayes"}, DataError, "unknown method 'bayes'"),
        ({"draws": 1}, DataError, "draws is at least 2"),
        ({"cluster": "one"}, EstimationError, "column 'one' holds 1 cluster: no interval"),
        (
            {"cluster": "five"},
            EstimationError,
            "'five' holds 5 clusters: no interval",
        ),
        ({"treated": 0}, DataError, "both 0.0: nothing is compared"),
        ({"treatment": "text", "treated": "a", "control": "a"}, DataError, "both 'a'"),
        ({"treated": "b"}, DataError, "treated 'b' is not a finite number, and 't' holds numbers"),
        ({"control": np.nan}, DataError, "control nan is not a finite number"),
        ({"confounders": ["c"], "at": {"c": "x"}}, DataError, "'c' at 'x', which is not a finite number"),
        ({"confounders": ["c"], "at": {"c": np.inf}}, DataError, "'c' at inf, which is not a finite number"),
        ({"outcome": "m"}, DataError, "column 'm' is mediator and outcome"),
        ({"mediator": "t"}, DataError, "column 't' is treatment and mediator"),
        ({"confounders": ["y"]}, DataError, "column 'y' is outcome and confounder"),
        ({"confounders": ["c", "c"]}, DataError, "confounders name 'c' twice"),
        ({"confounders": "c"}, DataError, "confounders is the text 'c'"),
        ({"robust": True, "method": "bootstrap"}, DataError, "robust=True does nothing"),
        ({"robust": True, "cluster": "text"}, DataError, "robust=True does nothing"),
    ],
)
def test_bad_input_is_named(changes, error, match):
    frame, _ = world(n=100)
    frame = frame.assign(
        hole=np.where(np.arange(100) == 3, np.nan, 1.0),
        text=np.where(frame["c"] > 0, "a", "b"),
        one=1.0,
        five=np.arange(100) % 5,
        twice=2 * frame["c"],
        split=(frame["m"] > 0).astype(float),
    )
    with pytest.raises(error, match=match):
        mediate(frame, **KNOWN | {"draws": 20} | changes)


def test_64_bit_cluster_identifiers_stay_apart():
    rng = np.random.default_rng(0)
    t = np.tile([0.0, 1.0], 40)
    m = t + rng.normal(size=80)
    frame = pd.DataFrame({"t": t, "m": m, "y": m + rng.normal(size=80), "small": np.arange(80) // 4})
    frame["big"] = frame["small"] + 2**60
    found = [
        mediate(frame, treatment="t", mediator="m", outcome="y", cluster=name).part("acme")
        for name in ("small", "big")
    ]
    assert found[0] == found[1]


def test_a_text_confounder_of_one_level_says_nothing_and_is_left_out():
    rng = np.random.default_rng(0)
    t, kind = rng.integers(0, 2, 80), rng.choice(["a", "b"], 80)
    m = t + rng.normal(size=80)
    frame = pd.DataFrame({"t": t, "m": m, "y": m + rng.normal(size=80), "kind": kind, "same": "math"})
    ask = {"treatment": "t", "mediator": "m", "outcome": "y", "draws": 50}
    both = mediate(frame, confounders=["same", "kind"], **ask)
    assert both.mediator_fit.names == ("(Intercept)", "t", "kind=b")
    assert both.estimate == mediate(frame, confounders=["kind"], **ask).estimate


@pytest.mark.parametrize("constant", ["m", "y"])
def test_a_constant_mediator_or_outcome_is_refused_by_name(constant):
    frame = pd.DataFrame({"t": [0.0, 1.0] * 20, "m": np.sin(np.arange(40)), "y": np.cos(np.arange(40))})
    with pytest.raises(DataError, match=f"'{constant}' is constant"):
        mediate(frame.assign(**{constant: 1.0}), treatment="t", mediator="m", outcome="y")


def test_too_few_clusters_to_draw_from_are_said():
    frame, _ = world(n=60)
    rng = np.random.default_rng(2)
    more = {f"c{j}": rng.normal(size=60) for j in range(6)}
    frame = frame.assign(**more, g=np.arange(60) % 6)
    with pytest.raises(EstimationError, match="too few clusters"):
        mediate(frame, **KNOWN | {"confounders": list(more), "cluster": "g"})


def test_so_few_rows_that_no_interval_can_be_had_are_refused():
    frame, _ = world(n=40)
    frame = frame.sort_values("t", kind="stable").iloc[[*range(5), *range(-5, 0)]]
    options = KNOWN | {"confounders": [], "interaction": False}
    assert "With 8 rows the intervals are rough." in mediate(frame.iloc[1:-1], **options).warnings
    assert "intervals are rough" not in mediate(frame, **options).sentence
    lopsided = frame.assign(t=[0.0] * 6 + [1.0] * 4)
    assert "With 4 rows under t 1 the intervals are rough." in mediate(lopsided, **options).warnings
    for method in ("quasi_bayes", "bootstrap"):
        with pytest.raises(EstimationError, match="7 rows are too few for an outcome model"):
            mediate(frame.iloc[1:-2], **options, method=method)
        with pytest.raises(EstimationError, match="4 rows are too few"):
            mediate(frame.iloc[3:-3], **options, method=method)


def test_errors_that_vary_much_more_under_one_arm_are_said():
    alike = "the intervals take them to vary alike, which robust=True does not"
    few = "with 60 rows the intervals may be too narrow"

    def found(n, arm, **options):
        rng = np.random.default_rng(0)
        t = np.tile([0.0, 1.0], n // 2)
        m = t + rng.normal(size=n)
        y = m + rng.normal(size=n) * np.where(t == arm, 3, 1)
        frame = pd.DataFrame({"t": t, "m": m, "y": y, "g": np.arange(n) // 2})
        got = mediate(frame, treatment="t", mediator="m", outcome="y", **options)
        assert all(w in got.sentence for w in got.warnings)
        return [w for w in got.warnings if "times as much" in w]

    assert found(60, 1) == [f"The errors of y vary 3.4 times as much under t 1 as under t 0: {alike}; {few}."]
    assert "as much under t 0 as under t 1" in found(60, 0)[0]
    assert found(60, None) == []
    for mended in ({"robust": True}, {"method": "bootstrap"}):
        assert alike not in found(60, 1, **mended)[0]
        assert few in found(60, 1, **mended)[0]
        assert found(400, 1, **mended) == []
    assert "with 30 clusters" in found(60, 1, cluster="g")[0]
    assert found(400, 1)[0].endswith(f"{alike}.")


@pytest.mark.parametrize("method", ["quasi_bayes", "bootstrap"])
def test_no_p_value_is_zero_and_the_least_is_called_a_bound(method):
    frame, _ = world(n=200)
    got = mediate(frame, **KNOWN | {"draws": 100}, method=method)
    table = got.to_frame().set_index("label")
    assert table["p_value"].min() == 2 / 101 == table.p_value["total_effect"]
    assert "With 100 draws no p-value can be below 0.02." in got.sentence
    noise = frame.assign(m=np.random.default_rng(1).normal(size=200))
    none = mediate(noise, **KNOWN | {"outcome": "c", "confounders": []})
    assert none.part("acme").p_value > 0.05
    assert "no p-value" not in none.sentence


def test_a_difference_that_is_zero_by_construction_is_no_row():
    frame, _ = world(n=200)
    plain = mediate(frame, **KNOWN | {"interaction": False})
    assert "interaction" not in plain.draws
    assert "interaction" not in set(plain.to_frame()["label"])
    with_it = mediate(frame, **KNOWN)
    assert with_it.part("interaction").estimate == pytest.approx(
        with_it.part("acme_treated").estimate - with_it.part("acme_control").estimate
    )
    # A binary outcome's arms differ by its link.
    binary = mediate(
        frame.assign(y=frame["y"] > 0), **KNOWN | {"interaction": False, "outcome_model": "probit"}
    )
    assert binary.part("interaction").std_error > 1e-4
    with pytest.raises(DataError, match="only one of the results has interaction"):
        contrast_mediations(plain, with_it)


@pytest.mark.parametrize("part", [0, 1e-12, 1e-9, 1e-7])
@pytest.mark.parametrize("confounders", [[], ["c"]])
def test_a_mediator_that_is_all_but_the_arm_is_refused_by_name(part, confounders):
    frame, _ = world(n=200)
    given = frame.assign(m=3 * frame["t"] + part * np.sin(np.arange(200.0)))
    names = {"treatment": "t", "mediator": "m", "outcome": "y", "confounders": confounders}
    for call in (mediate, mediation_sensitivity, baron_kenny):
        with pytest.raises(EstimationError, match="mediator 'm' is all but a function of 't'"):
            call(given, **names)


def test_a_mediator_that_nearly_is_the_arm_keeps_its_digits():
    """The slope and its error do not change with the unit in which what is left of the mediator is told."""
    frame, _ = world(n=200)
    left = np.sin(np.arange(200.0) ** 2)
    parts = (1.0, 1e-5)
    fits = [
        mediate(frame.assign(m=frame["t"] + part * left), **KNOWN | {"interaction": False}).outcome_fit
        for part in parts
    ]
    slopes = [
        part * np.array([f.coef[-1], f.covariance[-1, -1] ** 0.5])
        for f, part in zip(fits, parts, strict=True)
    ]
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-6)


SHORT = {"treatment": "t", "mediator": "m", "outcome": "y", "draws": 50}


def overlap_of(m0, m1, **more):
    rng = np.random.default_rng(0)
    m = np.concatenate([m0, m1])
    t = np.repeat([0.0, 1.0], [len(m0), len(m1)])
    frame = pd.DataFrame({"t": t, "m": m, "y": m + t + rng.normal(size=len(m)), **more})
    return mediate(frame, **SHORT, confounders=list(more)), frame


@pytest.mark.parametrize("method", ["quasi_bayes", "bootstrap"])
def test_a_mediator_that_one_arm_does_not_have_is_said(method):
    """Attention to a text that only one prompt has: zero by construction under the other."""
    rng = np.random.default_rng(0)
    got, frame = overlap_of(np.zeros(24), rng.beta(8, 2, size=24))
    assert len(got.warnings) == 1
    for words in (
        "Under t 0 m is constant, 0, so nothing there shows what it does;",
        "in all rows of t 0 m lies outside the range seen under t 1.",
        "therefore extrapolates",
        "The total effect does not rest on that.",
    ):
        assert words in got.warnings[0]
    assert got.warnings[0] in got.sentence
    assert mediate(frame, **SHORT, method=method).warnings == got.warnings
    # The same of a treatment of text, of the other arm, and of any unit.
    text = frame.assign(t=np.where(frame["t"] > 0, "worked", "direct"))
    named = mediate(text, **SHORT, control="worked", treated="direct")
    assert "under t direct m is constant" in named.warnings[0]
    scaled = mediate(frame.assign(m=1e6 * frame["m"] - 5e7), **SHORT)
    assert "is constant, -5e+07" in scaled.warnings[0]
    assert "in all rows" in scaled.warnings[0]


def test_how_much_the_arms_overlap_is_what_is_said():
    rng = np.random.default_rng(1)
    e = rng.normal(size=(2, 400))
    assert overlap_of(e[0], e[1] + 1)[0].warnings == ()
    apart = overlap_of(e[0], e[1] + 9)[0].warnings[0]
    assert apart.lower().count("in all rows") == 2
    assert "is constant" not in apart
    # One stray row is no support, two rows are.
    zeros, ones = np.zeros(30), rng.uniform(0.2, 0.9, size=30)
    stray, two = zeros.copy(), zeros.copy()
    stray[3], two[3:5] = 0.9, 0.9
    assert "hardly varies" in overlap_of(stray, ones)[0].warnings[0]
    assert "hardly varies" not in " ".join(overlap_of(two, ones)[0].warnings)
    # A binary mediator that one arm never has; one that it seldom has is seen there.
    some = (np.arange(60) % 3 == 0).astype(float)
    seldom = (np.arange(60) % 20 == 0).astype(float)
    assert "m is constant, 0" in overlap_of(np.zeros(60), some)[0].warnings[0]
    assert "extrapolates" not in overlap_of(seldom, some)[0].sentence


def test_covariates_count_in_the_overlap():
    """Given a covariate the arms may be apart though over all rows they are not, and the reverse."""
    rng = np.random.default_rng(2)
    c, e = rng.normal(size=400), rng.normal(size=400)
    arm = np.repeat([0.0, 1.0], 200)
    hidden = 9 * c + 5 * arm + 0.3 * e
    assert overlap_of(hidden[:200], hidden[200:])[0].warnings == ()
    assert "n all rows" in overlap_of(hidden[:200], hidden[200:], c=c)[0].warnings[0]
    shifted = c + 6 * arm
    moved = 3 * shifted + 0.5 * arm + e
    assert "lies outside" in overlap_of(moved[:200], moved[200:])[0].warnings[0]
    assert overlap_of(moved[:200], moved[200:], c=shifted)[0].warnings == ()


def test_a_column_means_what_it_means_to_the_effects():
    """Booleans of any dtype are 1 and 0; what is no number, boolean or text is refused, here as there."""
    from whyprompt import estimate_effect

    frame, _ = world(n=60)
    hard = frame["c"] > 0
    options = KNOWN | {"confounders": ["hard"], "draws": 20}
    want = mediate(frame.assign(hard=hard.astype(float)), **options)
    for given in (hard, hard.astype(object), hard.astype("boolean")):
        got = mediate(frame.assign(hard=given), **options)
        assert got.mediator_fit.names == want.mediator_fit.names
        np.testing.assert_array_equal(got.outcome_fit.coef, want.outcome_fit.coef)
    arm = (frame["t"] > 0).astype(object)
    np.testing.assert_array_equal(
        mediate(frame.assign(t=arm), **KNOWN).draws["acme"], mediate(frame, **KNOWN).draws["acme"]
    )
    for strange, kind in (
        (pd.Series(pd.date_range("2024-01-01", periods=60)), "Timestamp"),
        (pd.Series([[1]] * 60), "list"),
    ):
        given = frame.assign(hard=strange)
        messages = []
        for call in (
            lambda given=given: mediate(given, **options),
            lambda given=given: estimate_effect(given, treatment="t", outcome="y", confounders=["hard"]),
        ):
            with pytest.raises(DataError, match=f"column 'hard' holds {kind}") as caught:
                call()
            messages.append(caught.value.message.removeprefix("covariate ").removeprefix("confounder "))
        assert messages[0] == messages[1]


def benchmark():
    spec = importlib.util.spec_from_file_location("coverage_mediate", BENCHMARKS / "coverage_mediate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_intervals_of_few_skewed_clusters_cover():
    """Prompts that go by cluster: of 200 samples as many as a coverage of 94% gives 97 times in a hundred."""
    got = benchmark().coverage("between", 8, "quasi_bayes", 200, draws=250)
    least = stats.binom.ppf(0.03, 200, 0.94) / 200
    assert got["refused"] == 0
    assert got["acme"] >= least, got
    assert got["ade"] >= least, got


@pytest.mark.parametrize("robust", [False, True])
def test_the_direct_effect_of_few_rows_has_its_t_interval(robust):
    """Two linear models without interaction: the direct effect is a slope, whose interval is statsmodels'."""
    import statsmodels.api as sm

    frame = benchmark().make("rows", 10, np.random.default_rng(3))
    x = sm.add_constant(frame[["t", "m"]])
    want = sm.OLS(frame["y"], x).fit(**({"cov_type": "HC3", "use_t": True} if robust else {}))
    options = {"treatment": "t", "mediator": "m", "outcome": "y", "robust": robust}
    got = mediate(frame, **options, draws=40_000).part("ade")
    half = float(np.ptp(want.conf_int().loc["t"])) / 2
    np.testing.assert_allclose([got.ci_low, got.ci_high], want.conf_int().loc["t"], atol=0.04 * half)
    assert abs(got.p_value - want.pvalues["t"]) < 0.02
    # Normal draws would be a sixth too narrow.
    assert half > 1.15 * 1.96 * want.bse["t"]


def test_bootstrap_draws_of_a_mean_are_widened_to_its_t_interval():
    from whyprompt.mediation.measured.counterfactual import widened

    rng = np.random.default_rng(0)
    draws = 5 + np.sqrt(7 / 8) * rng.normal(size=(200_000, 2))  # of eight rows with variance 8
    got = np.quantile(widened(draws, np.array([5.0, 5.0]), 8, rng), [0.025, 0.975], axis=0)
    np.testing.assert_allclose(got.T, [5 + stats.t.ppf([0.025, 0.975], 7)] * 2, atol=0.04)


def test_a_bootstrap_of_few_clusters_is_widened():
    frame = benchmark().make("within", 8, np.random.default_rng(4))
    options = {"treatment": "t", "mediator": "m", "outcome": "y", "cluster": "g", "draws": 4000}
    got = mediate(frame, **options, method="bootstrap").part("ade")
    rng, brute = np.random.default_rng(5), []
    x = np.column_stack([np.ones(16), frame[["t", "m"]]])
    for _ in range(4000):
        rows = np.concatenate([[2 * k, 2 * k + 1] for k in rng.integers(0, 8, 8)])
        brute.append(np.linalg.lstsq(x[rows], frame["y"].to_numpy()[rows], rcond=None)[0][1])
    wide = got.estimate + (np.array(brute) - got.estimate) * np.sqrt(8 / rng.chisquare(7, 4000))
    ends = np.quantile(wide, [0.025, 0.975])
    np.testing.assert_allclose([got.ci_low, got.ci_high], ends, atol=0.12 * np.ptp(ends) / 2)
    assert np.ptp(ends) > 1.2 * np.ptp(np.quantile(brute, [0.025, 0.975]))
