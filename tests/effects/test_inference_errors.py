"""Standard errors after matching: against statsmodels, against their definitions, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whyprompt import estimate_effect
from whyprompt.effects.methods.kernel import match_kernel
from whyprompt.effects.methods.nearest import match_nearest
from whyprompt.effects.methods.subclass import match_subclass
from whyprompt.effects.methods.variance import (
    abadie_imbens,
    conditional_variance,
    for_estimated_score,
    influence_after_matching,
    refuse_naive_bootstrap,
    wild_bootstrap,
)
from whyprompt.errors import EstimationError
from whyprompt.stats.errors import interval, stratified_error, weighted_difference
from whyprompt.stats.propensity import fit_logistic


def wls(y, t, w):
    import statsmodels.api as sm

    use = w > 0
    return sm.WLS(y[use], sm.add_constant(t[use].astype(float)), weights=w[use])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(24, 80))
def test_robust_errors_equal_statsmodels(seed, n):
    rng = np.random.default_rng(seed)
    y, t, w = rng.normal(size=n), rng.random(n) < 0.5, rng.exponential(size=n)
    t[:4] = True, True, False, False
    w[5] = 0.0
    for kind in ("HC0", "HC1", "HC3"):
        fit = wls(y, t, w).fit(cov_type=kind)
        estimate, error, df = weighted_difference(y, t, w, kind=kind)
        assert estimate == pytest.approx(fit.params[1], rel=1e-9, abs=1e-12)
        assert error == pytest.approx(fit.bse[1], rel=1e-8)
        assert df == (w > 0).sum() - 2
    groups = rng.integers(0, 6, size=n)
    use = w > 0
    fit = wls(y, t, w).fit(cov_type="cluster", cov_kwds={"groups": groups[use]})
    _, error, df = weighted_difference(y, t, w, kind="cluster", clusters=[groups])
    assert error == pytest.approx(fit.bse[1], rel=1e-8)
    assert df == len(np.unique(groups[use])) - 1


def test_two_way_clusters_equal_statsmodels_where_it_is_not_negative():
    rng = np.random.default_rng(2)
    n = 400
    a, b = rng.integers(0, 25, size=n), rng.integers(0, 30, size=n)
    t = rng.random(n) < 0.5
    y = t + rng.normal(size=25)[a] + rng.normal(size=30)[b] + rng.normal(size=n)
    _, error, df = weighted_difference(y, t, np.ones(n), kind="cluster", clusters=[a, b])
    fit = wls(y, t, np.ones(n)).fit(cov_type="cluster", cov_kwds={"groups": np.column_stack([a, b])})
    assert error == pytest.approx(fit.bse[1], rel=1e-8)
    assert df == 24


def test_two_way_clusters_are_never_below_one_way():
    """Rows that go together one way and against each other the other way: the plain formula would say 0.

    Within an arm each of the 4 x 4 cells has one row. The first arm's residual is the product of two signs,
    whose sums are zero both ways; the second's goes with the first way alone.
    """
    a = np.tile(np.repeat(np.arange(4), 4), 2)
    b = np.tile(np.arange(4), 8)
    t = np.repeat([True, False], 16)
    signs = np.array([1.0, -1.0, 1.0, -1.0])
    y = np.where(t, signs[a] * signs[b], 0.3 * signs[a])
    ones = np.ones(32)

    def plain(labels):
        """Sums of the influence values within clusters, with the usual small-sample factor."""
        psi = np.where(t, y - y[t].mean(), y[~t].mean() - y) / 16
        sums = np.bincount(labels, weights=psi)
        return (sums @ sums) * len(sums) / (len(sums) - 1) * 31 / 30

    one_way = plain(a), plain(b)
    formula = one_way[0] + one_way[1] - plain(4 * a + b)
    assert formula < max(one_way)
    _, error, _ = weighted_difference(y, t, ones, kind="cluster", clusters=[a, b])
    assert error**2 == pytest.approx(max(one_way), rel=1e-12)
    _, turned, _ = weighted_difference(y, t, ones, kind="cluster", clusters=[b, a])
    assert turned == pytest.approx(error, rel=1e-12)


def test_robust_errors_of_matchit_specifications(job, matchit):
    for name, made in {
        "nearest_replace": match_nearest(job.score, job.treated, replace=True),
        "subclass6": match_subclass(job.score, job.treated),
    }.items():
        spec = matchit["specs"][name]
        for kind in ("HC1", "HC3"):
            error = weighted_difference(job.y, job.treated, made.weights, kind=kind)[1]
            assert error == pytest.approx(spec[f"lm_{kind}_se"], rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), ratio=st.integers(1, 3), estimand=st.sampled_from(["att", "atc", "ate"]))
def test_the_abadie_imbens_variance_is_its_formula(seed, ratio, estimand):
    """Theorems 6 and 7 of Abadie and Imbens (2006), written as loops."""
    rng = np.random.default_rng(seed)
    n = 40
    score, y = rng.normal(size=n), rng.normal(size=n)
    t = rng.random(n) < 0.5
    t[:8] = [True, False] * 4
    matched = match_nearest(score, t, ratio=ratio, replace=True, estimand=estimand)
    found, square = abadie_imbens(y, t, matched, score=score, neighbours=2, tolerance=0.0)
    sigma2 = np.empty(n)
    for i in range(n):
        mine = [j for j in range(n) if t[j] == t[i] and j != i]
        near = sorted(mine, key=lambda j: abs(score[j] - score[i]))[:2]
        sigma2[i] = np.var(y[[i, *near]], ddof=1)
    assert conditional_variance(y, t, score, neighbours=2, tolerance=0.0) == pytest.approx(sigma2, rel=1e-9)
    focal = [i for i in range(n) if estimand == "ate" or t[i] == (estimand == "att")]
    used = np.zeros(n)
    tau = []
    for i in focal:
        others = matched.other[matched.focal == i]
        used[others] += 1
        tau.append((1 if t[i] else -1) * (y[i] - y[others].mean()))
    tau = np.array(tau)
    k, m = used, ratio
    if estimand == "ate":
        second = (sigma2 * ((k / m) ** 2 + (2 * m - 1) / m * (k / m))).sum()
    else:
        second = (sigma2 * k * (k - 1) / m**2).sum() + (sigma2 * (k / m**2 - k / m**2)).sum()
    variance = ((tau - tau.mean()) ** 2).sum() / len(tau) ** 2 + second / len(tau) ** 2
    assert found == pytest.approx(tau.mean(), rel=1e-9, abs=1e-12)
    assert square == pytest.approx(variance, rel=1e-9)


def test_the_correction_for_an_estimated_score():
    """It takes out most of the variance where a covariate matters apart from the score, and little else."""
    rng = np.random.default_rng(0)
    n = 3000
    x = rng.normal(size=(n, 2))
    t = rng.random(n) < 1 / (1 + np.exp(0.6 - 0.4 * x[:, 0] - 0.3 * x[:, 1]))
    apart, along = 1.5 * x[:, 0] - 1.5 * x[:, 1], x[:, 0] + 0.75 * x[:, 1]
    noise = rng.normal(size=n)
    fit = fit_logistic(x, t)
    ratios = {}
    for name, outcome in {"apart": apart, "along": along}.items():
        y = outcome + t + noise
        for estimand in ("att", "ate"):
            matched = match_nearest(fit.fitted, t, replace=True, estimand=estimand)
            _, base = abadie_imbens(y, t, matched, score=fit.fitted)
            variance = for_estimated_score(
                base,
                y,
                t,
                matched,
                X=x,
                propensity=fit.fitted,
                score_covariance=fit.covariance,
            )
            assert variance > 0
            ratios[name, estimand] = variance / base
    assert ratios["apart", "ate"] < 0.6
    assert ratios["apart", "att"] < 0.75
    assert 0.97 < ratios["along", "ate"] <= 1.0
    assert 0.95 < ratios["along", "att"] < 1.05
    # Units of the covariates and of the outcome are irrelevant.
    y = apart + t + noise
    scaled = fit_logistic(1000.0 * x + 5.0, t)
    matched = match_nearest(fit.fitted, t, replace=True)
    first, second = (
        for_estimated_score(1.0, y * u, t, matched, X=X, propensity=fit.fitted, score_covariance=f.covariance)
        for X, f, u in ((x, fit, 1.0), (1000.0 * x + 5.0, scaled, 1.0))
    )
    assert first == pytest.approx(second, rel=1e-6)


def test_strata_are_weighed_by_the_estimand():
    rng = np.random.default_rng(3)
    sizes = [(8, 5), (3, 9), (6, 6)]
    y, t, stratum = [], [], []
    for code, (n_t, n_c) in enumerate(sizes):
        y += list(rng.normal(code, 1, n_t) + 1) + list(rng.normal(code, 2, n_c))
        t += [True] * n_t + [False] * n_c
        stratum += [code] * (n_t + n_c)
    y, t, stratum = np.array(y), np.array(t), np.array(stratum)
    for estimand, target in (("att", [8, 3, 6]), ("atc", [5, 9, 6]), ("ate", [13, 12, 12])):
        share = np.array(target) / sum(target)
        own = np.array(
            [
                y[t & (stratum == s)].var(ddof=1) / n_t + y[~t & (stratum == s)].var(ddof=1) / n_c
                for s, (n_t, n_c) in enumerate(sizes)
            ]
        )
        effect = np.array([y[t & (stratum == s)].mean() - y[~t & (stratum == s)].mean() for s in range(3)])
        fixed, df = stratified_error(y, t, stratum, estimand=estimand, population="fixed")
        assert fixed == pytest.approx(np.sqrt((share**2 * own).sum()), rel=1e-12)
        assert df == len(y) - 6
        between = share @ (effect - share @ effect) ** 2 - (share * (1 - share)) @ own
        sampled = stratified_error(y, t, stratum, estimand=estimand)[0]
        assert sampled**2 == pytest.approx(fixed**2 + max(between, 0) / sum(target), rel=1e-12)
    with pytest.raises(EstimationError, match="population 'all'"):
        stratified_error(y, t, stratum, estimand="att", population="all")
    lone = np.array([True, False, False, True, False, False])
    error, _ = stratified_error(np.arange(6.0), lone, np.repeat([0, 1], 3), estimand="att")
    assert np.isnan(error)


def test_effects_that_differ_between_strata_add_their_spread():
    """Two strata of four rows; effects 1 and 9, every arm's variance within a stratum 2, all by hand.

    Each effect has the variance 2 / 2 + 2 / 2 = 2. The strata's shares are a half: 2 / 4 + 2 / 4 = 1 with the
    shares fixed. The effects lie 4 from their mean: 16, less what their own errors make of it, a quarter of 2
    from each, is 15, and over the 8 rows that the shares come from 15 / 8.
    """
    y = np.array([0.0, 2.0, -1.0, 1.0, 9.0, 11.0, 0.0, 2.0])
    t = np.tile([True, True, False, False], 2)
    stratum = np.repeat([0, 1], 4)
    for estimand, rows in (("ate", 8), ("att", 4), ("atc", 4)):
        fixed, _ = stratified_error(y, t, stratum, estimand=estimand, population="fixed")
        sampled, df = stratified_error(y, t, stratum, estimand=estimand)
        assert fixed**2 == pytest.approx(1.0, rel=1e-12)
        assert sampled**2 == pytest.approx(1.0 + 15.0 / rows, rel=1e-12)
        assert df == 4
    # Where they do not differ, sampling the strata adds nothing.
    same = y - np.where(t & (stratum == 1), 8.0, 0.0)
    assert stratified_error(same, t, stratum, estimand="ate")[0] == pytest.approx(1.0, rel=1e-12)


def test_the_wild_bootstrap_resamples_the_influence_values(simulated):
    data = simulated(1, 400)
    fit = fit_logistic(data.x, data.treated)
    matched = match_nearest(fit.fitted, data.treated, replace=True)
    estimate, influence = influence_after_matching(data.y, data.treated, matched, X=data.x)
    assert abs(influence.sum()) < 0.1 * np.sqrt(influence @ influence)
    # Bias-corrected (Abadie and Imbens 2011): matches' outcomes moved to the row's covariates.
    t, y = data.treated, data.y
    Z = np.column_stack([np.ones(400), data.x])
    slope = np.linalg.lstsq(Z[~t], y[~t], rcond=None)[0]
    by_hand = np.mean(
        [y[i] - y[j] - (Z[i] - Z[j]) @ slope for i, j in zip(matched.focal, matched.other, strict=True)]
    )
    assert estimate == pytest.approx(by_hand, rel=1e-9)
    errors = wild_bootstrap(influence, draws=20_000, random_state=1)
    assert errors.mean() == pytest.approx(0.0, abs=4 * errors.std() / np.sqrt(20_000))
    assert errors.std() == pytest.approx(np.sqrt(influence @ influence), rel=0.03)
    assert (wild_bootstrap(influence, random_state=5) == wild_bootstrap(influence, random_state=5)).all()
    assert (wild_bootstrap(influence, random_state=5) != wild_bootstrap(influence, random_state=6)).any()


def test_the_naive_bootstrap_is_refused_where_it_fails(simulated):
    data = simulated(2, 120)
    frame = pd.DataFrame({"arm": data.treated, "y": data.y, "a": data.x[:, 0], "b": data.x[:, 1]})
    asked = {
        "treatment": "arm",
        "outcome": "y",
        "confounders": ["a", "b"],
        "std_error": "bootstrap",
        "draws": 60,
        "method": "nearest",
    }
    for options in (
        {"replace": True},
        {"replace": True, "estimand": "ate"},
        {"replace": True, "ratio": 3, "ties": "average"},
        {"replace": True, "distance": "mahalanobis"},
    ):
        with pytest.raises(EstimationError, match="Abadie and Imbens 2008") as caught:
            estimate_effect(frame, **{**asked, **options})
        assert "wild_bootstrap" in str(caught.value)
    for options in ({"method": "kernel"}, {"caliper": 0.3}, {"method": "subclass", "n_strata": 4}):
        result = estimate_effect(frame, **{**asked, **options})
        assert "bootstrap of the whole pipeline, 60 draws" in result.std_error_method
        analytical = estimate_effect(frame, **{**asked, "std_error": "auto", **options})
        assert result.estimate == analytical.estimate
        assert 0.5 < result.std_error / analytical.std_error < 2.0
    refuse_naive_bootstrap(match_kernel(data.share, data.treated))


def test_an_error_asked_for_by_name_is_the_textbook_one(job, matching_r):
    asked = {"treatment": "treat", "outcome": "re78", "confounders": job.covariates}
    asked |= {"method": "nearest", "regression_adjustment": False}
    plain = estimate_effect(
        job.frame, **asked, replace=True, ties="average", std_error="abadie_imbens", neighbours=0
    )
    assert plain.std_error == pytest.approx(matching_r["ps_M1_att"]["se_abadie_imbens"], rel=1e-9)
    assert plain.std_error_method.endswith("score taken as known")
    auto = estimate_effect(job.frame, **asked, replace=True, ties="average", neighbours=0)
    assert auto.estimate == plain.estimate
    assert auto.std_error_method.endswith("corrected for the estimated score (2016)")
    assert auto.std_error != plain.std_error
    for options in (
        {"std_error": "strata"},
        {"method": "subclass", "std_error": "pairs"},
        {"method": "full", "std_error": "strata"},
        {"replace": True, "std_error": "pairs"},
    ):
        with pytest.raises(EstimationError, match=r"does not go with|not independent clusters"):
            estimate_effect(job.frame, **{**asked, **options})


def test_intervals_and_bad_input():
    low, high = interval(2.0, 1.0, level=0.9, df=5)
    assert (low, high) == pytest.approx((2 - 2.0150483733, 2 + 2.0150483733))
    assert interval(2.0, None, level=0.95) == (None, None)
    assert interval(2.0, float("nan"), level=0.95) == (None, None)
    score, t = np.array([0.1, 0.2, 0.3, 0.4]), np.array([True, True, False, False])
    y = np.arange(4.0)
    pairs = match_nearest(score, t, replace=True)
    with pytest.raises(EstimationError, match="none was given"):
        abadie_imbens(y, t, pairs)
    with pytest.raises(EstimationError, match="one arm has 2 row"):
        abadie_imbens(y, t, pairs, score=score)
    with pytest.raises(EstimationError, match="unmatched='drop'"):
        abadie_imbens(y, t, pairs, neighbours=0, unmatched="drop")
    with pytest.raises(EstimationError, match="needs matched pairs"):
        abadie_imbens(y, t, match_subclass(score, np.array([True, False] * 2), n_strata=1), neighbours=0)
