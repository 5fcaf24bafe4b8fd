"""CR2 against matrices, t tests on cluster means and statsmodels; coverage with few clusters."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from effect_verbs import estimate_effects, fit_arrays
from scipy import stats

from whyprompt import compare_arms, estimate_effect
from whyprompt.stats.clusters import clustered_means
from whyprompt.stats.errors import clustered_difference, weighted_difference


def matrices(y, X, w, codes, contrast):
    """Bell and McCaffrey's error with Pustejovsky and Tipton's degrees of freedom, as written."""
    bread = np.linalg.inv((X * w[:, None]).T @ X)
    maker = np.eye(len(y)) - X @ bread @ (X * w[:, None]).T
    residual, spread = maker @ y, maker @ maker.T
    variance, forms = 0.0, []
    for g in np.unique(codes):
        here = np.flatnonzero(codes == g)
        values, vectors = np.linalg.eigh(spread[np.ix_(here, here)])
        row = contrast @ bread @ (X[here] * w[here, None]).T @ ((vectors / np.sqrt(values)) @ vectors.T)
        variance += float(row @ residual[here]) ** 2
        forms.append(maker[here].T @ row)
    P = np.array(forms) @ np.array(forms).T
    return np.sqrt(variance), np.trace(P) ** 2 / (P**2).sum()


@pytest.mark.parametrize("weights", ["equal", "unequal"])
@pytest.mark.parametrize("assigned", ["clusters", "rows"])
def test_it_is_cr2_and_satterthwaite_in_matrices(assigned, weights):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        codes = np.unique(rng.integers(0, 9, 60), return_inverse=True)[1]
        t = codes < 4 if assigned == "clusters" else rng.random(60) < 0.5
        w = np.ones(60) if weights == "equal" else rng.exponential(size=60)
        y = t + rng.normal(size=60)
        X = np.column_stack([t, ~t]).astype(float)
        error, df = matrices(y, X, w, codes, np.array([1.0, -1.0]))
        got = clustered_difference(y, t, w, codes)
        assert got == pytest.approx(
            (w[t] @ y[t] / w[t].sum() - w[~t] @ y[~t] / w[~t].sum(), error, df), rel=1e-9
        )


def test_of_four_arms_every_contrast_is_that_of_matrices():
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(14), rng.integers(2, 9, 14))
    arm = (codes + (rng.random(len(codes)) < 0.1)) % 4
    y, w = rng.normal(size=len(codes)), rng.exponential(size=len(codes))
    X = (arm[:, None] == np.arange(4)).astype(float)
    _, sums, free = clustered_means(y, X > 0, w, codes)
    for contrast in (np.array([1.0, -1, 0, 0]), np.array([0.0, 0, 1, 0]), np.array([0.5, 0.5, -1, 0])):
        part = sums @ contrast
        error, df = matrices(y, X, w, codes, contrast)
        assert (np.sqrt(part @ part), free(contrast)) == pytest.approx((error, df), rel=1e-9)


def test_clusters_of_one_size_are_a_t_test_on_their_means():
    rng = np.random.default_rng(2)
    codes = np.repeat(np.arange(12), 5)
    frame = pd.DataFrame({"t": (codes < 6).astype(int), "team": codes, "y": rng.normal(size=60) + codes % 3})
    result = estimate_effect(
        frame, treatment="t", outcome="y", method="naive", design="randomized", cluster="team"
    )
    means = frame.groupby("team").y.mean()
    oracle = stats.ttest_ind(means[:6], means[6:])
    span = oracle.confidence_interval()
    assert (result.p_value, result.df) == pytest.approx((oracle.pvalue, 10.0), rel=1e-9)
    assert (result.ci_low, result.ci_high) == pytest.approx((span.low, span.high), rel=1e-9)
    assert result.std_error_method == "CR2 by cluster, Satterthwaite df"
    # CR1 of statsmodels differs by the small-sample factors alone.
    fit = sm.OLS(frame.y, sm.add_constant(frame.t)).fit(cov_type="cluster", cov_kwds={"groups": codes})
    factor = (12 / 11 * 59 / 58) / (6 / 5)
    assert result.std_error == pytest.approx(fit.bse["t"] / np.sqrt(factor), rel=1e-9)
    _, one, df = weighted_difference(
        frame.y.to_numpy(), codes < 6, np.ones(60), kind="cluster", clusters=[codes]
    )
    assert (one, df) == (pytest.approx(fit.bse["t"], rel=1e-9), 11)


def test_one_row_a_cluster_is_hc2_and_welch_under_one_variance():
    rng = np.random.default_rng(3)
    t = np.arange(40) < 15
    y = rng.normal(size=40)
    _, error, df = clustered_difference(y, t, np.ones(40), np.arange(40))
    fit = sm.OLS(y, sm.add_constant(t.astype(float))).fit(cov_type="HC2")
    assert error == pytest.approx(fit.bse[1], rel=1e-9)
    own = 1 / 15, 1 / 25
    assert df == pytest.approx(sum(own) ** 2 / (own[0] ** 2 / 14 + own[1] ** 2 / 24), rel=1e-9)


EQUAL = np.repeat(np.arange(16), 12)
UNEQUAL = np.repeat(np.arange(16), [4] * 6 + [10] * 6 + [30] * 4)


@pytest.mark.parametrize("codes", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
def test_eight_clusters_an_arm_are_covered_as_promised(codes):
    rng = np.random.default_rng(4)
    hits = np.zeros(2)
    for _ in range(1500):
        t = np.isin(codes, rng.permutation(16)[:8])
        y = t + rng.normal(size=16)[codes] + rng.normal(size=len(codes))
        estimate, error, df = clustered_difference(y, t, np.ones(len(y)), codes)
        hits[0] += abs(estimate - 1) <= stats.t.ppf(0.975, df) * error
        _, error, df = weighted_difference(y, t, np.ones(len(y)), kind="cluster", clusters=[codes])
        hits[1] += abs(estimate - 1) <= stats.norm.ppf(0.975) * error
    assert 0.935 <= hits[0] / 1500 <= 0.965
    assert hits[1] / 1500 < 0.935


@pytest.mark.slow
@pytest.mark.parametrize("codes", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize("method", ["ipw", "overlap", "entropy", "aipw"])
def test_weighting_with_eight_clusters_an_arm_covers(method, codes):
    rng = np.random.default_rng(5)
    hits, draws = 0, 600
    for _ in range(draws):
        t = np.isin(codes, rng.permutation(16)[:8])
        x = np.sqrt(0.7) * rng.normal(size=len(codes)) + np.sqrt(0.3) * rng.normal(size=16)[codes]
        y = t + x + rng.normal(size=16)[codes] + rng.normal(size=len(codes))
        estimand = "ato" if method == "overlap" else "ate"
        plain = {"propensity": "logit", "outcome_model": "linear"} if method == "aipw" else {}
        r = fit_arrays(y, t, x[:, None], method=method, estimand=estimand, cluster=codes, **plain)
        hits += r.ci[0] <= 1 <= r.ci[1]
    # Cross-fitted residuals are out of sample, so that AIPW is on the safe side.
    assert 0.925 <= hits / draws <= (0.985 if method == "aipw" else 0.97)


def clustered(seed=0, clusters=12, size=6):
    rng = np.random.default_rng(seed)
    team = np.repeat(np.arange(clusters), size)
    t = rng.integers(0, 2, len(team))
    x = rng.normal(size=len(team))
    y = t + x + rng.normal(size=clusters)[team] + rng.normal(size=len(team))
    arm = np.array(["a", "b", "c"])[rng.integers(0, 3, len(team))]
    return pd.DataFrame({"t": t, "x": x, "y": y, "z": y**2, "team": team, "arm": arm})


def effect(data, **options):
    return estimate_effect(
        data, treatment="t", outcome="y", cluster="team", **{"confounders": ["x"]} | options
    )


def test_few_clusters_are_said_where_the_interval_cannot_count_them():
    data, few = clustered(), "clusters intervals are approximate and may be too short"
    by_pairs = ({"method": method, "std_error": "pairs"} for method in ("nearest", "optimal", "full"))
    plain = {"regression_adjustment": False}
    textbook = {"method": "aipw", "calibrate": False}
    for options in (textbook, *(named | plain for named in by_pairs)):
        assert any(few in w for w in effect(data, **options).warnings), options
        assert not any(few in w for w in effect(clustered(clusters=60), **options).warnings)
    by_df = ("naive", "nearest", "optimal", "full", "kernel", "ipw", "overlap", "entropy", "subclass", "aipw")
    for method in by_df:
        result = effect(data, method=method)
        assert not any("clusters" in w for w in result.warnings), result.warnings
        assert 4 < result.df < 12
    for method in ("nearest", "full"):
        assert 3 < effect(data, method=method).df < 11
    tiny = clustered(clusters=4, size=20)
    assert any("worth" in w and "degrees of freedom" in w for w in effect(tiny, method="naive").warnings)


def test_cluster_means_that_happen_to_agree_have_no_standard_error():
    data = pd.DataFrame(
        {"t": [0, 0, 0, 0, 1, 1, 1, 1], "y": [0.0, 1, 0, 1, 1, 3, 1, 3], "team": [1, 1, 2, 2, 3, 3, 4, 4]}
    )
    result = effect(data, method="naive", confounders=None)
    assert (result.estimate, result.std_error, result.ci_low, result.p_value) == (1.5, None, None, None)
    assert any("means by cluster" in w for w in result.warnings)


def test_many_arms_have_the_errors_and_degrees_of_freedom_of_their_pairs():
    data = clustered(clusters=15)
    found = compare_arms(data, treatment="arm", outcome="y", method="naive", cluster="team")
    for (arm, reference), row in zip(found.pairs, found.parts, strict=True):
        pair = estimate_effect(
            data, treatment="arm", outcome="y", method="naive", cluster="team", treated=arm, control=reference
        )
        assert (row.estimate, row.std_error, row.ci_low, row.ci_high, row.p_value) == pytest.approx(
            (pair.estimate, pair.std_error, pair.ci_low, pair.ci_high, pair.p_value), rel=1e-9
        )
        assert row.simultaneous_low < row.ci_low
        assert row.p_adjusted >= row.p_value
    weighed = compare_arms(data, treatment="arm", outcome="y", confounders=["x"], cluster="team")
    two = compare_arms(data, treatment="t", outcome="y", confounders=["x"], cluster="team").parts[0]
    same = effect(data, method="ipw", estimand="ate")
    assert (two.estimate, two.std_error, two.ci_low) == pytest.approx(
        (same.estimate, same.std_error, same.ci_low), rel=1e-6
    )
    assert all(row.std_error > 0 for row in weighed.parts)


def test_few_rows_an_arm_are_compared_by_welch():
    data = clustered(clusters=3)
    found = compare_arms(data, treatment="arm", outcome="y", method="naive")
    for pair, row in zip(found.pairs, found.parts, strict=True):
        groups = [data.y[data.arm == name] for name in pair]
        oracle = stats.ttest_ind(*groups, equal_var=False)
        span = oracle.confidence_interval()
        assert row.p_value == pytest.approx(oracle.pvalue, rel=1e-9)
        assert (row.ci_low, row.ci_high) == pytest.approx((span.low, span.high), rel=1e-9)


def test_each_outcome_keeps_its_own_degrees_of_freedom():
    data = clustered(clusters=3, size=5)
    rows = estimate_effects(
        data, treatment="t", outcomes=["y", "z"], method="naive", design="randomized"
    ).parts
    for row in rows:
        alone = estimate_effect(data, treatment="t", outcome=row.label, method="naive", design="randomized")
        assert (row.ci_low, row.p_value) == pytest.approx((alone.ci_low, alone.p_value), rel=1e-12)
        assert row.p_adjusted >= row.p_value
        assert row.simultaneous_low < row.ci_low
