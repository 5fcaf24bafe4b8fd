"""Missing data: patterns, Little's test, chained equations, Rubin's rules, pooled effects, tipping points."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from whyprompt import CausalGraph, estimate_effect
from whyprompt.effects.gaps.chained import impute
from whyprompt.effects.gaps.draws import draw_categories, draw_normal, draw_pmm
from whyprompt.effects.gaps.estimate import estimate_with_imputation
from whyprompt.effects.gaps.little import em_normal, little_test
from whyprompt.effects.gaps.patterns import drop_incomplete, missing_patterns
from whyprompt.effects.gaps.pooling import pool_estimates
from whyprompt.effects.gaps.tipping import tipping_point
from whyprompt.errors import DataError, EstimationError

POLARS = find_spec("polars") is not None


def kinds(raw):
    """The same columns as a table of every library that is here."""
    frames = [pd.DataFrame(raw), pa.table(raw)]
    if POLARS:
        import polars as pl

        frames.append(pl.DataFrame(raw))
    return frames


R = json.loads((Path(__file__).parents[1] / "reference" / "rubin_rules.json").read_text())


# ------------------------------------------------------------------------------------------------ patterns


def test_patterns_are_counted_by_hand_in_every_kind_of_frame():
    raw = {
        "x": [1.0, None, 3.0, None, 5.0],
        "kind": ["a", None, "b", "a", None],
        "ok": [True, False, None, True, True],
        "n": [1, 2, 3, 4, 5],
    }
    for frame in kinds(raw):
        got = missing_patterns(frame)
        assert list(got.patterns.items()) == [
            ((), 1),
            (("kind",), 1),
            (("ok",), 1),
            (("x",), 1),
            (("x", "kind"), 1),
        ]
        assert dict(got.n_missing) == {"x": 2, "kind": 2, "ok": 1, "n": 0}
        assert (got.n_rows, got.n_complete) == (5, 1)
        assert "1 of 5 rows (20.0%) are complete" in got.sentence
        assert got.to_frame()["pattern_n"].sum() == 5
        assert json.loads(json.dumps(got.to_dict()))["n_rows"] == 5
    assert (
        missing_patterns(pd.DataFrame({"a": [1, 2]})).sentence
        == "No value is missing in 2 rows and 1 columns."
    )


def test_dropping_is_asked_for_counted_and_described():
    rng = np.random.default_rng(2)
    n = 300
    arm = np.repeat(["a", "b"], n // 2)
    y = rng.normal(size=n)
    x = np.where((arm == "b") & (y > 0.5), np.nan, rng.normal(size=n))
    frame = pd.DataFrame({"arm": arm, "x": x, "y": y}, index=np.arange(n)[::-1])
    before = frame.copy()
    report = drop_incomplete(frame, ["x"], by="arm", describe=["y", "arm"])
    gone = np.isnan(x)
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(report.frame, frame[~gone])
    assert report.n_dropped == gone.sum() == report.by_column["x"]
    assert report.by_group == {"a": (0, 150), "b": (int(gone.sum()), 150)}
    assert report.part("y")["mean_dropped"] == pytest.approx(y[gone].mean())
    scale = np.sqrt((y[gone].var(ddof=1) + y[~gone].var(ddof=1)) / 2)
    assert report.part("y").estimate == pytest.approx((y[gone].mean() - y[~gone].mean()) / scale)
    assert "what is found in the rest need not hold for them" in report.sentence
    none = drop_incomplete(frame, ["y"])
    assert "No row was dropped" in none.sentence
    with pytest.raises(DataError, match="every row has a gap"):
        drop_incomplete(pd.DataFrame({"a": [np.nan, np.nan]}), ["a"])


# ------------------------------------------------------------------------------------------- Little's test


def test_little_by_hand_for_a_monotone_pattern():
    """Two columns, the second with gaps: the maximum has a closed form (Anderson 1957) and d^2 one as well.

    The pattern means deviate along the regression line, so only the first column counts:
    d^2 = (n - 1) / n * sum_j m_j (xbar_j - xbar)^2 / s_xx with s_xx = sum (x - xbar)^2 / n.
    """
    x = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 11])
    y = np.array([2.0, 1, 4, 3, 6, 5, np.nan, np.nan, np.nan, np.nan])
    got = little_test(pd.DataFrame({"x": x, "y": y}))
    mean, s_xx = x.mean(), x.var()
    expected = 6 * (x[:6].mean() - mean) ** 2 / s_xx + 4 * (x[6:].mean() - mean) ** 2 / s_xx
    # By hand: xbar 5.6, s_xx 9.24, 6 (2.1)^2 + 4 (3.15)^2 = 66.15, over 9.24 is 7.159.
    assert expected == pytest.approx(66.15 / 9.24)
    assert got.estimate == pytest.approx(0.9 * expected, rel=1e-6)
    assert got.df == 1
    assert got.p_value == pytest.approx(stats.chi2.sf(0.9 * 66.15 / 9.24, 1), rel=1e-5)
    ml = little_test(pd.DataFrame({"x": x, "y": y}), covariance="ml")
    assert ml.estimate == pytest.approx(expected, rel=1e-6)


def test_em_equals_the_closed_form_of_a_monotone_pattern():
    rng = np.random.default_rng(1)
    x = rng.normal(size=60)
    y = 0.7 * x + rng.normal(size=60)
    y[x > 0.4] = np.nan
    mean, cov = em_normal(np.column_stack([x, y]))
    known = ~np.isnan(y)
    slope, start = np.polyfit(x[known], y[known], 1)
    left = (y[known] - start - slope * x[known]).var()
    assert mean == pytest.approx([x.mean(), start + slope * x.mean()], abs=1e-7)
    expected = [[x.var(), slope * x.var()], [slope * x.var(), left + slope**2 * x.var()]]
    assert cov == pytest.approx(np.array(expected), abs=1e-7)


def _trivariate(rng, n):
    z = rng.multivariate_normal([0, 0, 0], [[1, 0.5, 0.3], [0.5, 1, 0.4], [0.3, 0.4, 1]], size=n)
    return pd.DataFrame(z, columns=["a", "b", "c"])


def test_little_keeps_its_size_under_mcar_and_has_power_under_mar():
    rejected = {"mcar": 0, "mar": 0}
    draws = 300
    p_values = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        frame = _trivariate(rng, 200)
        hit = rng.random((200, 2)) < 0.25
        mcar = frame.copy()
        mcar["a"] = frame["a"].where(~hit[:, 0])
        mcar["b"] = frame["b"].where(~hit[:, 1])
        p = little_test(mcar).p_value
        p_values.append(p)
        rejected["mcar"] += p < 0.05
        mar = frame.copy()
        mar["a"] = frame["a"].where(rng.random(200) > stats.norm.cdf(frame["c"] - 0.7))
        rejected["mar"] += little_test(mar).p_value < 0.05
    # Binomial standard error 0.0126: four of them.
    assert abs(rejected["mcar"] / draws - 0.05) < 0.05
    assert rejected["mar"] / draws > 0.95
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 50), st.floats(-100, 100))
def test_little_is_unmoved_by_units_and_by_the_order_of_rows(seed, scale, start):
    rng = np.random.default_rng(seed)
    frame = _trivariate(rng, 60)
    frame = frame.mask(rng.random(frame.shape) < 0.2)
    frame["c"] = frame["c"].where(rng.random(60) > 0.1)
    base = little_test(frame)
    changed = frame.assign(a=frame["a"] * scale + start).sample(frac=1, random_state=seed)
    got = little_test(changed)
    assert got.estimate == pytest.approx(base.estimate, rel=1e-4)
    assert got.df == base.df


def test_little_names_what_stops_it():
    x = np.arange(10.0)
    with pytest.raises(EstimationError, match="no value is missing"):
        little_test(pd.DataFrame({"x": x, "y": x**2}))
    gap = np.where(x > 7, np.nan, x)
    with pytest.raises(EstimationError, match="collinear"):
        little_test(pd.DataFrame({"x": x, "y": gap, "z": 2 * x + 1}))
    with pytest.raises(EstimationError, match="'k' is constant"):
        little_test(pd.DataFrame({"x": gap, "k": 1.0}))
    with pytest.raises(DataError, match="'e' has no value at all"):
        little_test(pd.DataFrame({"x": gap, "e": np.nan}))
    text = pd.DataFrame({"x": gap, "t": ["a", "b"] * 5, "y": x**2})
    assert little_test(text)["columns"] == ("x", "t_b", "y")


# --------------------------------------------------------------------------------------------- Rubin's rules


def test_rubins_rules_equal_mice():
    got = pool_estimates(R["Q"], R["U"], df_complete=R["n"] - R["k"])
    expected = R["pool_scalar"]
    for mine, theirs in (
        (got.estimate, "qbar"),
        (got.overall["within"], "ubar"),
        (got.overall["between"], "b"),
        (got.overall["total"], "t"),
        (got.df, "df"),
        (got.overall["increase"], "r"),
        (got.overall["fmi"], "fmi"),
    ):
        assert mine == pytest.approx(expected[theirs], rel=1e-10)
    assert got.overall["draws"] == expected["m"]
    width = stats.t.ppf(0.975, got.df) * got.std_error
    assert (got.ci_low, got.ci_high) == pytest.approx((got.estimate - width, got.estimate + width))


def test_pooling_identical_estimates_is_the_estimate_itself():
    got = pool_estimates([1.1] * 4, [0.04] * 4)
    assert (got.estimate, got.std_error) == pytest.approx((1.1, 0.2))
    assert (got.overall["between"], got.overall["fmi"], got.df) == (0.0, 0.0, np.inf)
    assert got.ci_high == pytest.approx(1.1 + 1.959964 * 0.2)
    # Barnard and Rubin: with nothing missing, (v + 1) / (v + 3) * v.
    assert pool_estimates([1.1] * 4, [0.04] * 4, df_complete=20).df == pytest.approx(21 / 23 * 20)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(0.01, 3)), min_size=2, max_size=30),
    st.floats(2, 500),
)
def test_pooled_degrees_of_freedom_never_exceed_those_of_complete_data(rows, df):
    q, u = zip(*rows, strict=True)
    got = pool_estimates(q, u, df_complete=df)
    assert got.df <= df + 1e-9
    assert got.df <= (len(q) - 1) / max(got.overall["lambda"], 1e-100) ** 2 + 1e-9
    assert got.overall["total"] >= got.overall["within"]
    turned = pool_estimates(q[::-1], u[::-1], df_complete=df)
    assert turned.estimate == pytest.approx(got.estimate)


def test_what_cannot_be_pooled_is_refused():
    with pytest.raises(EstimationError, match="at least two imputations"):
        pool_estimates([1.0], [0.1])
    with pytest.raises(EstimationError, match="no positive variance"):
        pool_estimates([1.0, 2.0], [0.1, 0.0])
    with pytest.raises(EstimationError, match="shapes"):
        pool_estimates([1.0, 2.0], [0.1])


# --------------------------------------------------------------------------------------- chained equations


def test_draws_from_a_linear_model_have_its_predictive_distribution():
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    y = 1 + 2 * x + rng.normal(size=40)
    X = np.column_stack([np.ones(40), x])
    # Far out, where most of the spread is that of the coefficients: it must be drawn as well.
    gap = np.array([[1.0, 8.0]])
    drawn = np.array([draw_normal(y, X, gap, rng)[0] for _ in range(4000)])
    coef, rss, *_ = np.linalg.lstsq(X, y, rcond=None)
    s2 = rss[0] / 38
    spread = np.sqrt(s2 * (1 + gap[0] @ np.linalg.inv(X.T @ X) @ gap[0]))
    # The posterior predictive is a t with 38 degrees of freedom.
    assert stats.kstest((drawn - gap[0] @ coef) / spread, stats.t(38).cdf).pvalue > 0.001


def test_matching_draws_from_the_nearest_rows_and_from_all_that_tie():
    rng = np.random.default_rng(1)
    x = np.arange(200.0)
    y = 3 * x + rng.normal(0, 0.1, 200)
    X = np.column_stack([np.ones(200), x])
    drawn = [draw_pmm(y, X, np.array([[1.0, 50.2]]), rng)[0] for _ in range(300)]
    near = set(y[48:53])
    assert set(drawn) <= set(y[46:55])
    assert len(near & set(drawn)) == 5
    # One predictor of two levels: every known row of the level is as near as any other.
    flag = np.repeat([0.0, 1.0], 100)
    values = rng.normal(size=200) + 10 * flag
    X = np.column_stack([np.ones(200), flag])
    drawn = {draw_pmm(values, X, np.array([[1.0, 1.0]]), rng)[0] for _ in range(2000)}
    assert drawn <= set(values[100:])
    assert len(drawn) > 90


def test_category_draws_match_the_logistic_fit_and_survive_separation():
    import statsmodels.api as sm

    rng = np.random.default_rng(2)
    n = 3000
    x = rng.normal(size=n)
    code = (rng.random(n) < 1 / (1 + np.exp(-(0.5 + x)))).astype(int)
    X = np.column_stack([np.ones(n), x])
    gap = np.column_stack([np.ones(20_000), np.full(20_000, 1.2)])
    share = draw_categories(code, 2, X, gap, rng, name="c").mean()
    fit = sm.Logit(code, X).fit(disp=0)
    expected = fit.predict(np.array([[1.0, 1.2]]))[0]
    # One draw of the parameters, whose standard error on the probability is about 0.01.
    assert share == pytest.approx(expected, abs=0.05)
    shares = [draw_categories(code, 2, X, gap, rng, name="c").mean() for _ in range(150)]
    row = np.array([1.0, 1.2])
    slope = expected * (1 - expected) * np.sqrt(row @ np.asarray(fit.cov_params()) @ row)
    assert np.std(shares) == pytest.approx(
        np.hypot(slope, np.sqrt(expected * (1 - expected) / 20_000)), rel=0.25
    )
    three = np.where(x < -0.5, 0, np.where(x < 0.5, 1, 2))
    separated = draw_categories(three, 3, X, np.array([[1.0, -3.0], [1.0, 3.0]] * 200), rng, name="c")
    assert (separated[::2] == 0).mean() > 0.95
    assert (separated[1::2] == 2).mean() > 0.95


def test_multinomial_coefficients_equal_statsmodels():
    import statsmodels.api as sm

    from whyprompt.stats.regression import fit_multinomial

    rng = np.random.default_rng(3)
    n = 800
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    linear = np.column_stack([np.zeros(n), X @ [0.3, 1.0, 0.0], X @ [-0.2, 0.4, -0.8]])
    code = (linear + rng.gumbel(size=linear.shape)).argmax(axis=1)
    beta, information = fit_multinomial(X, code, 3, ridge=1e-8)
    fit = sm.MNLogit(code, X).fit(disp=0, method="newton")
    assert beta == pytest.approx(np.asarray(fit.params).T, abs=1e-5)
    assert np.linalg.inv(information) == pytest.approx(np.asarray(fit.cov_params()), rel=1e-4, abs=1e-7)


def _mixed(n=400, seed=0):
    rng = np.random.default_rng(seed)
    arm = rng.integers(0, 2, n)
    x = rng.normal(size=n) + 0.5 * arm
    kind = np.where(x + rng.normal(size=n) > 0.7, "code", np.where(rng.random(n) < 0.5, "law", "math"))
    passed = (rng.random(n) < 1 / (1 + np.exp(-x))).astype(bool)
    y = arm + x + (kind == "code") + rng.normal(size=n)
    level = np.round(2 + x).astype(int)
    frame = pd.DataFrame({"arm": arm, "x": x, "kind": kind, "passed": passed, "level": level, "y": y})
    for name in ("x", "kind", "passed", "level"):
        frame[name] = frame[name].astype(object).where(rng.random(n) > 0.15)
    return frame.astype({"x": float, "level": float})


def test_only_gaps_are_filled_and_every_kind_of_frame_comes_back_as_it_was():
    frame = _mixed()
    shuffled = frame.sample(frac=1, random_state=1)
    copy = shuffled.copy()
    made = impute(shuffled, draws=3, iterations=3)
    pd.testing.assert_frame_equal(shuffled, copy)
    assert dict(made.methods) == {
        "x": "pmm",
        "kind": "multinomial",
        "passed": "logistic",
        "level": "pmm",
    }
    for one in made.frames:
        assert list(one.index) == list(shuffled.index)
        assert list(one.columns) == list(shuffled.columns)
        assert not one.isna().any().any()
        for name in frame.columns:
            known = shuffled[name].notna()
            assert (one.loc[known, name] == shuffled.loc[known, name]).all()
    assert not made.frames[0]["x"].equals(made.frames[1]["x"])
    assert set(made.frames[0]["kind"]) == {"code", "law", "math"}
    again = impute(shuffled, draws=3, iterations=3)
    pd.testing.assert_frame_equal(again.frames[2], made.frames[2])
    records = {c: [None if v != v else v for v in frame[c].tolist()] for c in frame.columns}  # noqa: PLR0124
    ints = [None if v is None else int(v) for v in records["level"]]
    arrow = pa.table({**records, "level": ints})
    filled = impute(arrow, draws=2, iterations=2).frames[0]
    assert isinstance(filled, pa.Table)
    # Matched numbers occur in the data, so whole numbers stay whole.
    assert filled.schema.field("level").type == pa.int64()
    assert filled.schema.field("passed").type == pa.bool_()
    if POLARS:
        import polars as pl

        from_polars = impute(pl.from_arrow(arrow), draws=2, iterations=2).frames[0]
        assert isinstance(from_polars, pl.DataFrame)
        assert from_polars.schema["level"] == pl.Int64
        assert from_polars.to_dict(as_series=False) == filled.to_pydict()
    assert "cannot show" in made.sentence
    assert json.loads(json.dumps(made.to_dict()))["draws"] == 3
    assert made.trace["x"].shape == (3, 3)
    assert set(made.to_frame()["label"]) == set(made.methods)


def test_a_categorical_column_stays_one_and_arms_may_have_models_of_their_own():
    frame = _mixed().assign(kind=lambda f: f["kind"].astype("category"))
    made = impute(frame, draws=2, iterations=2, by="arm")
    assert made.frames[0]["kind"].dtype == frame["kind"].dtype
    ordered = frame.assign(kind=frame["kind"].cat.reorder_categories(["math", "law", "code"], ordered=True))
    assert impute(ordered, draws=2, iterations=1).frames[0]["kind"].dtype == ordered["kind"].dtype
    # With a slope that differs by arm, separate models keep it and a common one does not.
    rng = np.random.default_rng(4)
    n = 3000
    arm, z = np.repeat([0, 1], n // 2), rng.normal(size=n)
    x = np.where(arm == 1, z, -z) + 0.3 * rng.normal(size=n)
    gappy = np.where(rng.random(n) < 0.5, np.nan, x)
    table = pd.DataFrame({"arm": arm, "z": z, "x": gappy})
    separate = impute(table, draws=2, iterations=1, by="arm").frames[0]
    common = impute(table, draws=2, iterations=1).frames[0]
    gone = np.isnan(gappy) & (arm == 0)
    assert np.corrcoef(separate["x"][gone], z[gone])[0, 1] < -0.9
    assert abs(np.corrcoef(common["x"][gone], z[gone])[0, 1]) < 0.3


def test_imputation_recovers_a_mean_that_complete_rows_get_wrong():
    rng = np.random.default_rng(5)
    n = 20_000
    z = rng.normal(size=n)
    x = z + rng.normal(size=n)
    c = (rng.random(n) < 1 / (1 + np.exp(-2 * z))).astype(int)
    k = np.where(z + rng.normal(size=n) > 0, "p", np.where(rng.random(n) < 0.5, "q", "r"))
    gone = rng.random(n) < 1 / (1 + np.exp(-2 * z))
    frame = pd.DataFrame({"z": z, "x": np.where(gone, np.nan, x), "c": np.where(gone, np.nan, c), "k": k})
    frame["k"] = frame["k"].where(~gone)
    made = impute(frame, draws=4, iterations=4)
    for name, truth in (("x", x.mean()), ("c", c.mean())):
        filled = np.mean([f[name].mean() for f in made.frames])
        assert filled == pytest.approx(truth, abs=0.04)
        assert abs(frame[name].mean() - truth) > 0.15
    share = np.mean([(f["k"] == "p").mean() for f in made.frames])
    assert share == pytest.approx((k == "p").mean(), abs=0.02)


def test_chained_equations_agree_with_maximum_likelihood_for_normal_data():
    """Two routes to one answer: the slopes of the EM covariance, and slopes pooled over completed tables."""
    rng = np.random.default_rng(8)
    n = 1500
    frame = _trivariate(rng, n)
    frame["y"] = frame["a"] - 0.5 * frame["b"] + rng.normal(size=n)
    # Each gap depends on a column that is never missing.
    frame["a"] = frame["a"].where(rng.random(n) > stats.norm.cdf(frame["c"] - 0.8))
    frame["b"] = frame["b"].where(rng.random(n) > stats.norm.cdf(frame["y"] / 2 - 0.8))
    names = ["a", "b", "c"]
    _, cov = em_normal(frame[[*names, "y"]].to_numpy())
    expected = np.linalg.solve(cov[:3, :3], cov[:3, 3])
    made = impute(frame, draws=30, iterations=8, methods=dict.fromkeys(["a", "b"], "norm"))
    slopes, variances = [], []
    for one in made.frames:
        X = np.column_stack([np.ones(n), one[names]])
        coef, rss, *_ = np.linalg.lstsq(X, one["y"], rcond=None)
        slopes.append(coef[1:])
        variances.append(np.diag(np.linalg.inv(X.T @ X))[1:] * rss[0] / (n - 4))
    for j, truth in enumerate([1.0, -0.5, 0.0]):
        got = pool_estimates(np.array(slopes)[:, j], np.array(variances)[:, j], df_complete=n - 4)
        # The Monte Carlo error of a mean over thirty tables is the between part over thirty.
        assert got.estimate == pytest.approx(expected[j], abs=5 * np.sqrt(got.overall["between"] / 30))
        assert abs(got.estimate - truth) < 4 * got.std_error
        assert got.overall["fmi"] > 0.05
    assert max(part.estimate for part in made.parts) < 1.2
    assert made.warnings == ()


def test_imputation_names_what_is_wrong():
    frame = _mixed()
    with pytest.raises(EstimationError, match="nothing to impute"):
        impute(frame[["arm", "y"]])
    with pytest.raises(DataError, match="'empty' has no value at all"):
        impute(frame.assign(empty=np.nan))
    with pytest.raises(DataError, match="identifies rows"):
        impute(frame.assign(id=[f"q{i}" for i in range(len(frame))]))
    with pytest.raises(EstimationError, match="method 'norm' does not suit column 'kind'"):
        impute(frame, methods={"kind": "norm"})
    with pytest.raises(EstimationError, match="method 'knn' for 'x' is not known"):
        impute(frame, methods={"x": "knn"})
    with pytest.raises(DataError, match="by='kind' has missing values"):
        impute(frame, by="kind")
    with pytest.raises(DataError, match="'x' has 1 infinite"):
        impute(frame.assign(x=frame["x"].where(frame.index != 3, np.inf)))
    with pytest.raises(DataError, match="did you mean 'passed'"):
        impute(frame, columns=["x", "y", "pased"])
    few = frame.assign(x=frame["x"].where(np.arange(len(frame)) < 4))
    with pytest.raises(EstimationError, match=r"column 'x' has \d known values here for 7 coefficients"):
        impute(few)
    with pytest.raises(EstimationError, match="only two can be shifted"):
        impute(frame, shift={"kind": 1.0})
    with pytest.raises(DataError, match="shift names 'y', which has no gaps"):
        impute(frame, shift={"y": 1.0})


# ------------------------------------------------------------------------------------------- pooled effects


def _study(seed, n=300, *, rule="mar"):
    """Arm first, so that the confounder given arm and outcome is normal and linear: a congenial model."""
    rng = np.random.default_rng(seed)
    arm = (rng.random(n) < 0.4).astype(int)
    hard = rng.normal(size=n) + 0.8 * arm
    y = 2.0 * arm - hard + rng.normal(size=n)
    odds = -1.2 + 0.8 * y if rule == "mar" else np.full(n, -0.8)
    gone = rng.random(n) < 1 / (1 + np.exp(-odds))
    return pd.DataFrame({"arm": arm, "hard": np.where(gone, np.nan, hard), "y": y})


# Quick, and the outcome is a line.
TEXTBOOK = {"method": {"aipw": {"outcome_model": "linear", "splits": 1}}, "propensity": "logit"}


@pytest.mark.slow
def test_the_pooled_interval_covers_where_complete_rows_are_biased():
    options = {
        "treatment": "arm",
        "outcome": "y",
        "confounders": ["hard"],
        **TEXTBOOK,
        "estimand": "ate",
    }
    draws = 500
    got = np.zeros((draws, 5))
    for seed in range(draws):
        r = estimate_with_imputation(_study(seed), draws=5, iterations=1, methods={"hard": "norm"}, **options)
        alone = r.complete_case
        got[seed] = (
            r.estimate,
            r.std_error,
            r.ci_low < 2 < r.ci_high,
            alone.estimate,
            alone.ci_low < 2 < alone.ci_high,
        )
    assert abs(got[:, 0].mean() - 2) < 4 * got[:, 0].std() / np.sqrt(draws)
    assert 0.93 <= got[:, 2].mean() <= 0.97
    assert got[:, 1].mean() == pytest.approx(got[:, 0].std(ddof=1), rel=0.12)
    assert got[:, 3].mean() < 1.9
    assert got[:, 4].mean() < 0.9


def test_under_mcar_the_pooled_estimate_is_unbiased_and_uses_more_than_complete_rows():
    options = {
        "treatment": "arm",
        "outcome": "y",
        "confounders": ["hard"],
        **TEXTBOOK,
        "estimand": "ate",
    }
    rows = []
    for seed in range(80):
        r = estimate_with_imputation(_study(seed, rule="mcar"), draws=5, iterations=1, **options)
        rows.append((r.estimate, r.complete_case.estimate))
    got = np.array(rows)
    assert abs(got[:, 0].mean() - 2) < 4 * got[:, 0].std() / np.sqrt(80)
    assert got[:, 0].std() < got[:, 1].std()


def test_the_pooled_result_is_estimate_effect_in_each_table_and_rubins_rules():
    frame = _study(3)
    options = {
        "treatment": "arm",
        "outcome": "y",
        "confounders": ["hard"],
        "method": "ipw",
        "estimand": "ate",
    }
    got = estimate_with_imputation(frame, draws=4, iterations=2, **options)
    by_hand = [estimate_effect(one, **options) for one in got.imputation.frames]
    pooled = pool_estimates([r.estimate for r in by_hand], [r.std_error**2 for r in by_hand], df_complete=298)
    assert got.estimate == pooled.estimate
    assert got.std_error == pooled.std_error
    assert got.imputation.predictors == ("arm", "y", "hard")
    assert got.n_rows == 300
    assert got.n_complete == frame["hard"].notna().sum() < 300
    assert "No row was dropped for a missing covariate" in got.sentence
    assert "missing at random" in {a.name for a in got.assumptions}
    table = got.to_frame()
    assert list(table["label"][:2]) == ["pooled", "complete rows"]
    assert len(table) == 6
    json.dumps(got.to_dict())
    graph = CausalGraph.parse("hard -> arm -> y; hard -> y")
    del options["confounders"]
    from_graph = estimate_with_imputation(frame, graph=graph, draws=4, iterations=2, **options)
    assert from_graph.estimate == got.estimate


def test_completed_tables_have_one_estimand():
    """Some tables hardly have the effect on the treated rows: then none of them is asked for it."""
    rng = np.random.default_rng(0)
    hard = rng.normal(size=200)
    arm = (rng.random(200) < 1 / (1 + np.exp(-1.3 * hard))).astype(int)
    y = hard + arm + rng.normal(size=200)
    hard[rng.random(200) < 0.15] = np.nan
    frame = pd.DataFrame({"arm": arm, "y": y, "hard": hard})
    asked = {"treatment": "arm", "outcome": "y", "confounders": ["hard"]}
    got = estimate_with_imputation(frame, draws=3, **asked)
    alone = [estimate_effect(one, **asked) for one in got.imputation.frames]
    assert sorted(one.estimand for one in alone) == ["ato", "ato", "att"]
    assert [one.estimand for one in got.results] == ["ato"] * 3
    assert got.estimand == "ato"
    told = [w for w in got.warnings if "effect on the treated rows" in w]
    assert len(told) == 1
    assert told[0].startswith("in 2 of 3 completed tables")
    named = estimate_with_imputation(frame, draws=3, estimand="att", **asked)
    assert {one.estimand for one in named.results} == {"att"}
    # The row that carries so much is said where the effect is asked for all the same.
    heavy = [a for a in named.assumptions if a.name == "overlap"]
    assert "one row carries" in heavy[0].detail
    assert heavy[0].status != "holds"


def test_ratios_of_a_binary_outcome_are_pooled_by_their_logarithms():
    frame = _study(5, rule="mcar")
    frame["y"] = (frame["y"] > 0.5).astype(int)
    options = {
        "treatment": "arm",
        "outcome": "y",
        "confounders": ["hard"],
        "method": "ipw",
        "estimand": "ate",
    }
    got = estimate_with_imputation(frame, draws=4, iterations=2, **options)
    by_name = {m.label: m for m in got.measures}
    assert by_name["risk difference"].estimate == pytest.approx(got.estimate)
    assert by_name["risk difference"].std_error == pytest.approx(got.std_error)
    ratios = [next(m for m in r.measures if m.label == "risk ratio") for r in got.results]
    logs = pool_estimates(
        np.log([m.estimate for m in ratios]), [m.std_error**2 for m in ratios], df_complete=298, level=0.95
    )
    assert by_name["risk ratio"].estimate == pytest.approx(np.exp(logs.estimate))
    assert by_name["risk ratio"].ci_low == pytest.approx(np.exp(logs.ci_low))


def test_an_outcome_is_not_imputed_unasked_and_an_arm_never():
    frame = _study(4)
    frame.loc[:19, "y"] = np.nan
    options = {
        "treatment": "arm",
        "outcome": "y",
        "confounders": ["hard"],
        "method": "ipw",
        "estimand": "ate",
    }
    with pytest.raises(DataError, match=r"'y' has 20 missing value\(s\); an outcome is not imputed"):
        estimate_with_imputation(frame, **options)
    left = estimate_with_imputation(frame, draws=3, iterations=2, missing_outcome="exclude", **options)
    assert (left.n_excluded, left.n_outcome_imputed) == (20, 0)
    assert left.overall.n_treated + left.overall.n_control == 280
    assert "20 rows without 'y' are left out of the estimate" in left.warnings
    filled = estimate_with_imputation(frame, draws=3, iterations=2, missing_outcome="impute", **options)
    assert (filled.n_excluded, filled.n_outcome_imputed) == (0, 20)
    assert filled.overall.n_treated + filled.overall.n_control == 300
    assert "The outcome itself was imputed in 20 rows, as asked" in filled.sentence
    frame["arm"] = frame["arm"].astype(float)
    frame.loc[50, "arm"] = np.nan
    with pytest.raises(DataError, match="an arm that is not known is not imputed"):
        estimate_with_imputation(frame, **options)
    tell = _study(6).assign(tell=lambda f: f["arm"] * 1.0)
    with pytest.raises(EstimationError, match="completed table 1: the propensity score is separated"):
        estimate_with_imputation(tell, **{**options, "confounders": ["hard", "tell"]})
    with pytest.raises(EstimationError, match="use estimate_effect"):
        estimate_with_imputation(_study(4).dropna(), **options)


# -------------------------------------------------------------------------------------------- tipping point


def test_shifting_the_imputed_outcomes_of_one_arm_moves_the_estimate_by_its_missing_share():
    rng = np.random.default_rng(6)
    n = 400
    arm, x = np.tile([0, 1], n // 2), rng.normal(size=n)
    y = 0.6 * arm + x + rng.normal(size=n)
    gone = rng.random(n) < 0.25
    frame = pd.DataFrame({"arm": arm, "x": x, "y": np.where(gone, np.nan, y)})
    options = {"method": "naive", "confounders": ["x"], "draws": 4, "iterations": 1}
    got = tipping_point(frame, treatment="arm", outcome="y", arm="treated", deltas=[-4, -2, 0, 2], **options)
    share = gone[arm == 1].mean()
    rows = {r.at: r.estimate for r in got.parts}
    # One column with gaps: the same seed gives the same draws, moved by delta.
    assert rows[-2] - rows[0] == pytest.approx(-2 * share, abs=1e-9)
    assert rows[2] - rows[0] == pytest.approx(2 * share, abs=1e-9)
    assert got["conclusion"] == "positive"
    assert got["tipping_high"] is None
    low = {r.at: r.ci_low for r in got.parts}
    assert low[-4] < 0 < low[0]
    assert -4 < got["tipping_low"] < 0
    at = tipping_point(
        frame, treatment="arm", outcome="y", arm="treated", deltas=[got["tipping_low"]], **options
    )
    # The limit is nearly linear in delta, so interpolation lands on zero.
    assert min(r.ci_low for r in at.parts) == pytest.approx(0, abs=0.05)
    assert "That changes once they are" in got.sentence
    both = tipping_point(frame, treatment="arm", outcome="y", deltas=[-2], **options)
    expected = -2 * (gone[arm == 1].mean() - gone[arm == 0].mean())
    assert both.parts[0].estimate - both.parts[1].estimate == pytest.approx(expected, abs=1e-9)


def test_a_binary_outcome_is_shifted_in_log_odds():
    rng = np.random.default_rng(7)
    n = 600
    arm, x = np.tile([0, 1], n // 2), rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(-(x + 0.9 * arm)))).astype(float)
    y[rng.random(n) < 0.3] = np.nan
    frame = pd.DataFrame({"arm": arm, "x": x, "y": y})
    got = tipping_point(
        frame,
        treatment="arm",
        outcome="y",
        arm="treated",
        confounders=["x"],
        method="ipw",
        estimand="ate",
        draws=3,
        iterations=1,
        deltas=[-20, -3, 3, 20],
    )
    estimates = [r.estimate for r in got.parts]
    assert got["scale"] == "log-odds"
    assert estimates == sorted(estimates)
    assert [r.at for r in got.parts] == [-20, -3, 0, 3, 20]
    assert got["conclusion"] == "positive"
    assert got["tipping_low"] is not None
    with pytest.raises(EstimationError, match="no missing value in the rows"):
        tipping_point(frame, treatment="arm", outcome="y", column="x", confounders=["x"])
