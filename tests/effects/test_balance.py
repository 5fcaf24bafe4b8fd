"""Balance: cobalt's and MatchIt's tables to 1e-6, and the primitives against scipy and definitions."""

import numpy as np
import pytest
from effect_verbs import fit_arrays
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whyprompt.effects.checks.balance import balance_table, moments
from whyprompt.effects.methods.cem import match_cem
from whyprompt.effects.methods.matching import common_support
from whyprompt.effects.methods.nearest import match_nearest
from whyprompt.effects.methods.subclass import match_subclass
from whyprompt.errors import EstimationError
from whyprompt.stats.influence import effective_sample_size

CASES = {
    "match_nearest": "treated",
    "match_replace": "treated",
    "ipw_ate": "pooled",
    "ipw_att": "treated",
    "overlap_ato": "weighted",
}


def weights_of(job, name):
    if name == "match_nearest":
        return match_nearest(job.score, job.treated).weights
    if name == "match_replace":
        return match_nearest(job.score, job.treated, replace=True).weights
    method = "overlap" if name == "overlap_ato" else "ipw"
    return fit_arrays(job.y, job.treated, job.design.matrix, method=method, estimand=name[-3:]).weights


@pytest.mark.parametrize("name", CASES)
def test_cobalt(job, cobalt, name):
    table = cobalt[name]["balance"]
    X = np.column_stack(
        [job.score if c == "distance" else job.full.matrix[:, job.full.names.index(c)] for c in table]
    )
    w = weights_of(job, name)
    rows = balance_table(X, job.treated, w, names=list(table), denominator=CASES[name])
    for row in rows:
        wanted = table[row.covariate]
        assert row.binary == (wanted["Type"] == "Binary")
        # A mean difference of nothing is nothing up to the precision of the weights.
        assert row.smd_before == pytest.approx(wanted["Diff.Un"], abs=1e-7)
        assert row.smd_after == pytest.approx(wanted["Diff.Adj"], abs=1e-7)
        assert row.ks_before == pytest.approx(wanted["KS.Un"], abs=1e-8)
        assert row.ks_after == pytest.approx(wanted["KS.Adj"], abs=1e-8)
        if row.binary:
            assert row.variance_ratio_before is row.variance_ratio_after is wanted["V.Ratio.Adj"] is None
        else:
            assert row.variance_ratio_before == pytest.approx(wanted["V.Ratio.Un"], rel=1e-7)
            assert row.variance_ratio_after == pytest.approx(wanted["V.Ratio.Adj"], rel=1e-7)
    sizes = cobalt[name]["observations"]
    sizes = sizes.get("Adjusted") or sizes["Matched (ESS)"]
    assert effective_sample_size(w[job.treated]) == pytest.approx(sizes["Treated"], rel=1e-7)
    assert effective_sample_size(w[~job.treated]) == pytest.approx(sizes["Control"], rel=1e-7)


def test_matchit_summaries(job, matchit):
    made = {
        "nearest_ratio2": match_nearest(job.score, job.treated, ratio=2),
        "nearest_replace_k3": match_nearest(job.score, job.treated, ratio=3, replace=True),
        "discard_both": match_nearest(
            job.score, job.treated, discarded=common_support(job.score, job.treated, rule="both")
        ),
        "subclass6": match_subclass(job.score, job.treated),
        "cem_default": match_cem(job.columns, job.treated),
    }
    for name, matched in made.items():
        spec = matchit["specs"][name]
        table = spec.get("balance_matched") or spec["balance_across"]
        names = [c for c in table if c != "distance"]
        X = np.column_stack(
            [job.full.matrix[:, [n.replace("_", "") for n in job.full.names].index(c)] for c in names]
        )
        rows = balance_table(X, job.treated, matched.weights, names=names, denominator="treated")
        for row in rows:
            wanted = table[row.covariate]
            assert row.smd_after == pytest.approx(wanted["Std. Mean Diff."], abs=1e-9)
            assert row.ks_after == pytest.approx(wanted["eCDF Max"], abs=1e-9)
            if wanted.get("Var. Ratio") is not None:
                assert row.variance_ratio_after == pytest.approx(wanted["Var. Ratio"], rel=1e-9)


def test_the_denominators(job):
    x = job.columns["age"]
    t, ones = job.treated, np.ones(614)
    w = weights_of(job, "ipw_att")
    difference = x[t].mean() - x[~t].mean()
    scales = {
        "pooled": np.sqrt((x[t].var(ddof=1) + x[~t].var(ddof=1)) / 2),
        "treated": x[t].std(ddof=1),
        "control": x[~t].std(ddof=1),
        "all": x.std(ddof=1),
    }
    for name, scale in scales.items():
        row = balance_table(x[:, None], t, w, names=["age"], denominator=name)[0]
        assert row.smd_before == pytest.approx(difference / scale, rel=1e-12)
        after = np.average(x[t], weights=w[t]) - np.average(x[~t], weights=w[~t])
        assert row.smd_after == pytest.approx(after / scale, rel=1e-12)
    same = balance_table(x[:, None], t, ones, names=["age"])[0]
    assert same.smd_before == same.smd_after
    assert same.ks_before == same.ks_after
    with pytest.raises(EstimationError, match="denominator 'mean' is not known"):
        balance_table(x[:, None], t, ones, names=["age"], denominator="mean")


# Of scipy's p-value, which is not looked at.
@pytest.mark.filterwarnings("ignore::RuntimeWarning:scipy")
@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(4, 60), tied=st.booleans())
def test_the_largest_distance_is_that_of_scipy_and_of_the_definition(seed, n, tied):
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    x = np.round(x) if tied else x
    t = rng.random(n) < 0.5
    t[:2] = True, False
    w = rng.exponential(size=n)
    (row,) = balance_table(x[:, None], t, w, names=["x"])
    plain, weighted = row.ks_before, row.ks_after
    assert plain == pytest.approx(ks_2samp(x[t], x[~t], method="asymp").statistic, abs=1e-12)
    grid = np.unique(x)
    below = x[None, :] <= grid[:, None]
    gap = below[:, t] @ w[t] / w[t].sum() - below[:, ~t] @ w[~t] / w[~t].sum()
    assert weighted == pytest.approx(np.abs(gap).max(), abs=1e-12)
    zero_one = (rng.random(n) < 0.7).astype(float)
    zero_one[:2] = 1.0
    used = zero_one > 0
    got = balance_table(x[:, None], t, zero_one, names=["x"])[0].ks_after
    assert got == pytest.approx(ks_2samp(x[t & used], x[~t & used], method="asymp").statistic, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    x=hnp.arrays(float, 12, elements=st.floats(-100, 100)),
    counts=hnp.arrays(int, 12, elements=st.integers(1, 4)),
)
def test_moments(x, counts):
    assert moments(x)[0] == pytest.approx(x.mean(), abs=1e-9)
    assert moments(x)[1] == pytest.approx(x.var(ddof=1), rel=1e-9, abs=1e-9)
    w = counts.astype(float)
    assert moments(x, w)[0] == pytest.approx(np.repeat(x, counts).mean(), abs=1e-9)
    assert moments(x, 7.0 * w)[1] == pytest.approx(moments(x, w)[1], rel=1e-9, abs=1e-12)
    # Reliability weights: unbiased when all rows have one variance, sum w (x - m)^2 / (W - sum w^2 / W).
    mean = np.average(x, weights=w)
    by_hand = (w * (x - mean) ** 2).sum() / (w.sum() - (w**2).sum() / w.sum())
    assert moments(x, w)[1] == pytest.approx(by_hand, rel=1e-9, abs=1e-9)


def test_what_has_no_spread():
    t = np.array([True, True, False, False])
    flat, apart = balance_table(
        np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]), t, np.ones(4), names=["flat", "apart"]
    )
    assert (flat.smd_before, flat.ks_before) == (0.0, 0.0)
    # Each arm has one value and they differ: no scale, so no number, but the distance says it.
    assert apart.smd_before is None
    assert apart.ks_before == 1.0
    single = balance_table(np.arange(4.0)[:, None], t, np.array([1.0, 0.0, 1.0, 1.0]), names=["x"])[0]
    assert single.variance_ratio_after is None
    assert single.smd_after is not None
    empty = balance_table(np.arange(4.0)[:, None], t, np.array([0.0, 0.0, 1.0, 1.0]), names=["x"])[0]
    assert empty.ks_after is None
