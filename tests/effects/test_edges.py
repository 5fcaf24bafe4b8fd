"""Inputs at the edge: ties, no spread, one cluster, 64-bit identifiers, scales, options without meaning."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from effect_verbs import estimate_effects, paired_effect
from scipy import stats

from whyprompt import compare_arms, estimate_effect
from whyprompt.effects import METHODS
from whyprompt.errors import EstimationError

BIG = 2**60


def table(seed: int = 0, n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    t = (rng.random(n) < 1 / (1 + np.exp(-0.6 * x))).astype(int)
    return pd.DataFrame({"id": np.arange(n), "t": t, "y": t + x + rng.normal(size=n), "x": x})


def graded(seed: int, n: int = 200) -> pd.DataFrame:
    """Draw a table with eight distinct scores and an average effect of 0.15."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 4, n), rng.integers(0, 2, n)
    t = rng.random(n) < np.array([0.2, 0.35, 0.5, 0.65])[a]
    risk = np.where(t, 0.3 + 0.1 * a + 0.1 * b, 0.2 + 0.1 * a)
    y = (rng.random(n) < risk).astype(float)
    return pd.DataFrame({"id": np.arange(n), "t": t, "y": y, "a": a, "b": b})


def effect(data: pd.DataFrame, **options):
    return estimate_effect(data, treatment="t", outcome="y", **({"confounders": ["x"]} | options))


def test_64_bit_identifiers_stay_apart():
    rows = [(BIG + i // 2, BIG + i // 4, ("a", "b")[i % 2], float(i % 3)) for i in range(40)]
    big = pd.DataFrame(rows, columns=["item_id", "group", "arm", "y"])
    small = big.assign(item_id=big.item_id - BIG, group=big.group - BIG)
    for cluster in (None, "group"):
        results = [
            paired_effect(frame, outcome="y", treated="b", control="a", cluster=cluster)
            for frame in (big, small, big.astype({"item_id": object}))
        ]
        assert [r.n_pairs for r in results] == [20, 20, 20]
        assert len({r.std_error for r in results}) == 1
    data = table()
    data = data.assign(group=data.id // 5, wide=data.id // 5 + BIG, arm=np.where(data.t == 1, BIG + 1, BIG))
    plain = effect(data, method="ipw", cluster="group")
    wide = effect(data, method="ipw", cluster="wide")
    assert wide.std_error == pytest.approx(plain.std_error, rel=1e-12)
    named = estimate_effect(
        data, treatment="arm", outcome="y", confounders=["x"], method="ipw", treated=BIG + 1
    )
    assert named.estimate == plain.estimate
    nearest = {"method": "nearest", "tie_break": "id"}
    exact = [
        effect(data.assign(k=data.id % 3 + shift), exact=["k"], **nearest).estimate for shift in (0, BIG)
    ]
    assert exact[0] == exact[1]
    shifted = effect(data.assign(id=data.id + BIG), **nearest)
    assert shifted.estimate == effect(data, method="nearest").estimate


def test_welch_degrees_of_freedom_are_not_truncated():
    data = pd.DataFrame({"t": [0, 0, 1, 1], "y": [1.0, 2.0, 3.0, 7.0]})
    result = estimate_effect(data, treatment="t", outcome="y", method="naive")
    wanted = stats.ttest_ind([3.0, 7.0], [1.0, 2.0], equal_var=False)
    span = wanted.confidence_interval()
    assert result.p_value == pytest.approx(wanted.pvalue, rel=1e-12)
    assert (result.ci_low, result.ci_high) == pytest.approx((span.low, span.high), rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_outcomes_without_spread_have_no_standard_error(method):
    data = table()
    for y, wanted in ((np.full(len(data), 0.3), 0.0), (data.t.to_numpy(dtype=float), 1.0)):
        result = effect(data.assign(y=y), method=method, confounders=None if method == "naive" else ["x"])
        assert result.estimate == wanted
        assert (result.std_error, result.ci_low, result.p_value) == (None, None, None)
        assert any("does not differ within either arm" in text for text in result.warnings)
        assert "no interval can be given" in result.sentence


def test_an_outcome_without_spread_leaves_the_others_their_joint_adjustment():
    data = table().assign(same=1.0)
    options = {"treatment": "t", "confounders": ["x"], "method": "ipw"}
    for outcomes in (["y", "same"], ["same", "y"]):
        rows = {r.label: r for r in estimate_effects(data, outcomes=outcomes, **options).parts}
        assert rows["same"].std_error is rows["same"].p_adjusted is None
        assert rows["y"].p_adjusted < 0.05


@pytest.mark.parametrize("method", ["naive", "ipw", "overlap", "entropy", "optimal"])
def test_an_arm_in_one_cluster_has_no_standard_error(method):
    data = table()
    data["group"] = np.where(data.t == 1, 0, 1 + data.id % 9)
    result = effect(data, method=method, cluster="group", confounders=None if method == "naive" else ["x"])
    assert result.std_error is None
    assert any("in one cluster" in text for text in result.warnings)


def test_many_arms_without_spread_or_clusters_have_no_standard_error():
    data = table()
    data["arm"] = np.array(["a", "b", "c"])[data.id % 3]
    same = compare_arms(
        data.assign(y=np.where(data.arm == "a", data.y, 1.0)), treatment="arm", outcome="y", method="naive"
    )
    errors = {frozenset(p): r.std_error for p, r in zip(same.pairs, same.parts, strict=True)}
    assert errors[frozenset("bc")] is None
    assert errors[frozenset("ab")] > 0
    data["group"] = np.where(data.arm == "a", 0, 1 + data.id % 9)
    one = compare_arms(data, treatment="arm", outcome="y", method="naive", cluster="group")
    for pair, row in zip(one.pairs, one.parts, strict=True):
        assert (row.std_error is None) == ("a" in pair)


@pytest.mark.parametrize(
    "options",
    [{"method": m} for m in METHODS if m not in {"naive", "cem"}]
    + [{"method": "nearest", "distance": "mahalanobis", "replace": replace} for replace in (False, True)],
)
def test_units_of_a_covariate_change_nothing(options):
    data = table()
    base = effect(data, **options)
    for scale in (1e-12, 1e12):
        other = effect(data.assign(x=data.x * scale), **options)
        assert not any("left out" in text for text in other.warnings)
        assert other.estimate == pytest.approx(base.estimate, rel=1e-6)
        assert other.std_error == pytest.approx(base.std_error, rel=1e-6)


@pytest.mark.parametrize("method", ["optimal", "full"])
@pytest.mark.parametrize("distance", ["logistic", "mahalanobis"])
def test_a_tie_break_makes_the_order_of_rows_irrelevant(method, distance):
    data = graded(1)
    shuffled = data.sample(frac=1.0, random_state=2)
    options = {"confounders": ["a", "b"], "method": method, "distance": distance}
    results = [effect(frame, tie_break="id", **options) for frame in (data, shuffled)]
    assert results[0].estimate == pytest.approx(results[1].estimate, rel=1e-12)
    assert results[0].std_error == pytest.approx(results[1].std_error, rel=1e-9)
    assert not any("order of" in text for text in results[0].warnings)
    assert any("follows the order of" in text for text in effect(data, **options).warnings)


@pytest.mark.slow
@pytest.mark.parametrize("estimand", ["ate", "att"])
def test_full_matching_covers_where_most_scores_are_tied(estimand):
    found = [
        effect(graded(seed), confounders=["a", "b"], method="full", estimand=estimand) for seed in range(600)
    ]
    estimates = np.array([r.estimate for r in found])
    errors = np.array([r.std_error for r in found])
    # 2 standard deviations of 600 draws at 95% are 1.8 points; the spread is that of subclasses, 0.08.
    covered = np.mean([abs(r.estimate - estimates.mean()) <= r.ci_high - r.estimate for r in found])
    assert 0.93 <= covered <= 0.97
    assert estimates.std() < 0.09
    assert np.sqrt((errors**2).mean()) == pytest.approx(estimates.std(), rel=0.1)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ipw", {"discard": "treated"}),
        ("aipw", {"discard": "both"}),
        ("cem", {"discard": "both"}),
        ("entropy", {"discard": "crump"}),
        ("ipw", {"ratio": 2}),
        ("optimal", {"replace": True}),
        ("full", {"ratio": 2}),
        ("overlap", {"order": "largest"}),
        ("ipw", {"ties": "average"}),
        ("nearest", {"kernel": "gaussian"}),
        ("nearest", {"bandwidth": 0.1}),
        ("nearest", {"n_strata": 9}),
        ("nearest", {"cutpoints": {"x": 3}}),
    ],
)
def test_an_option_without_meaning_is_refused_by_name(method, options):
    with pytest.raises(EstimationError, match=next(iter(options))):
        effect(table(), method=method, **options)


def test_common_support_is_kept_by_a_distance_on_covariates():
    data = table()
    data.loc[data.t == 1, "x"] += 1.0
    options = {"method": "nearest", "distance": "mahalanobis"}
    results = {rule: effect(data, discard=rule, **options) for rule in ("none", "both")}
    assert results["both"].settings["n_discarded"] > 0
    assert results["both"].n_treated_used < results["none"].n_treated_used
