"""Refutations: calibrated where nothing is wrong, and failing where something is."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from whyprompt import CausalGraph, estimate_effect, negative_control_outcome, placebo_treatment, refute
from whyprompt.effects import data_subset, leave_one_covariate_out, random_common_cause
from whyprompt.effects.checks.placebo_arms import placebo_drawer
from whyprompt.errors import DataError, EstimationError


def confounded(n=300, seed=0, effect=1.0):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n))
    arm = rng.random(n) < 1 / (1 + np.exp(-a))
    frame = pd.DataFrame({"a": a, "b": b, "arm": np.where(arm, "cot", "direct")})
    frame["before"] = a + rng.normal(size=n)
    frame["y"] = effect * arm + a + 0.5 * b + rng.normal(size=n)
    return frame


MEAN = "mean of placebo estimates"
RMS = "root mean square change in standard errors"
ARM = {"treatment": "arm", "treated": "cot"}
ADJUSTED = {**ARM, "outcome": "y", "confounders": ["a", "b"], "method": "overlap"}


# ------------------------------------------------------------------------------------------------- placebo


def test_the_placebo_p_is_uniform_when_a_randomised_arm_does_nothing():
    p = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame({"arm": rng.permutation(np.repeat([0, 1], 15)), "y": rng.exponential(size=30)})
        got = placebo_treatment(
            frame, treatment="arm", outcome="y", method="naive", draws=19, random_state=seed
        )
        p.append(got.part("randomisation test").p_value)
    # Exact: each of the 20 ranks is equally likely.
    counts = np.bincount(np.round(np.array(p) * 20).astype(int), minlength=21)[1:]
    assert counts.sum() == 200
    assert stats.chisquare(counts.reshape(5, 4).sum(axis=1)).pvalue > 0.001
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.1


def test_drawn_from_the_propensity_it_is_about_uniform_for_a_confounded_arm_without_effect():
    p = [
        placebo_treatment(
            confounded(150, seed, effect=0.0), **ADJUSTED, how="propensity", draws=19, random_state=seed
        )
        .part("randomisation test")
        .p_value
        for seed in range(100)
    ]
    assert stats.kstest(np.array(p) - 0.025, "uniform").pvalue > 0.001
    assert np.mean(np.array(p) <= 0.1) < 0.22


def test_a_pipeline_that_ignores_the_confounder_is_found_out():
    options = {**ADJUSTED, "method": "naive"}
    got = placebo_treatment(confounded(), **options, how="propensity", draws=60)
    assert got.verdict == "fails"
    assert got.part(MEAN).estimate > 0.4
    assert got.part("false positive rate").estimate > 0.5
    assert "not to be trusted" in got.sentence
    right = placebo_treatment(confounded(), **ADJUSTED, how="propensity", draws=60)
    assert right.verdict == "passes"
    assert abs(right.part(MEAN).estimate) < 4 * right.part(MEAN).std_error
    assert "not against hidden confounding" in right.sentence


def test_placebos_of_a_confounded_arm_average_zero_and_a_real_effect_is_unusual():
    got = placebo_treatment(confounded(), **ADJUSTED, draws=99)
    assert (len(got.draws), got.n_failed) == (99, 0)
    assert got.part("randomisation test").p_value == 0.01
    assert got.verdict == "passes"
    assert got.part("false positive rate").estimate < 0.12
    none = placebo_treatment(confounded(effect=0.0), **ADJUSTED, draws=99)
    assert none.settings["how"] == "propensity"
    assert none.verdict == "doubtful"
    assert "do not show an effect of the arm on any row" in none.sentence
    again = placebo_treatment(confounded(), **ADJUSTED, draws=99)
    assert again == got


def blocked(seed, *, n=48, effect=0.0):
    """Items of two tasks, the arm chosen by how hard they are; more treated rows than good matches."""
    rng = np.random.default_rng(seed)
    task, hard = np.repeat(["x", "y"], n // 2), rng.normal(size=n)
    arm = (rng.random(n) < 1 / (1 + np.exp(-1.0 * hard + 0.3 * (task == "y")))).astype(int)
    y = effect * arm - 1.5 * hard + (task == "y") + 0.5 * rng.normal(size=n)
    return pd.DataFrame({"arm": arm, "task": task, "hard": hard, "y": y})


MATCHED = {
    "treatment": "arm",
    "outcome": "y",
    "confounders": ["hard"],
    "method": "nearest",
    "caliper": "none",
    "regression_adjustment": False,
    "exact": ["task"],
    "within": ["task"],
    "draws": 19,
}


def test_matched_placebos_reject_at_their_level_and_shuffled_ones_would_not():
    """Without effect, matching leaves imbalance that a shuffled arm has not: its reference is too narrow.

    80 tables: a rate of 0.05 has a standard error of 0.024.
    """
    rejected, by_shuffle = [], []
    for seed in range(80):
        frame = blocked(seed)
        try:
            got = placebo_treatment(frame, **MATCHED, random_state=seed)
        except EstimationError:  # separated scores, of 24 rows a task
            continue
        assert (got.settings["how"], got.settings["within"]) == ("propensity", ("task",))
        rejected.append(got.part("randomisation test").p_value <= 0.05)
        shuffled = placebo_treatment(frame, **MATCHED, how="permute", random_state=seed)
        assert "randomisation test" not in [part.label for part in shuffled.parts]
        assert "is no test of no effect" in shuffled.sentence or shuffled.verdict == "fails"
        beyond = sum(abs(e) >= abs(shuffled.estimate) for e in shuffled.draws)
        by_shuffle.append((1 + beyond) / (1 + len(shuffled.draws)) <= 0.05)
    assert len(rejected) > 65
    assert np.mean(rejected) < 0.12
    assert np.mean(by_shuffle) > 0.25


def test_exchanges_within_blocks_draw_from_the_conditional_distribution():
    """Three rows, one treated: the chance of each is its odds over their sum."""
    odds = np.array([0.2, 1.0, 3.0, 1.0, 1.0])
    treated = np.array([True, False, False, True, False])
    draw = placebo_drawer(
        treated,
        [np.array([0, 1, 2]), np.array([3, 4])],
        chance=odds / (1 + odds),
        within=True,
        units=None,
        rng=np.random.default_rng(0),
    )
    drawn = np.array([draw() for _ in range(3000)])
    assert (drawn[:, :3].sum(axis=1) == 1).all()
    assert (drawn[:, 3:].sum(axis=1) == 1).all()
    expected = odds[:3] / odds[:3].sum() * 3000
    assert stats.chisquare(drawn[:, :3].sum(axis=0), expected).pvalue > 0.001


def test_clusters_that_got_an_arm_as_a_whole_are_shuffled_as_wholes():
    p = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        cluster = np.repeat(np.arange(8), 6)
        arm = np.repeat(rng.permutation(np.repeat([0, 1], 4)), 6)
        y = 2 * rng.normal(size=8)[cluster] + rng.normal(size=48)
        frame = pd.DataFrame({"arm": arm, "session": cluster, "y": y})
        asked = {"treatment": "arm", "outcome": "y", "method": "naive", "cluster": "session"}
        p.append(
            placebo_treatment(frame, **asked, draws=19, random_state=seed).part("randomisation test").p_value
        )
    # Exact; rows shuffled one by one would reject most of the time. Standard error 0.018.
    assert np.mean(np.array(p) <= 0.05) < 0.11
    frame["hard"] = np.random.default_rng(0).normal(size=48)
    adjusted = {**asked, "method": "ipw", "confounders": ["hard"]}
    with pytest.raises(EstimationError, match="every cluster has one arm"):
        placebo_treatment(frame, **adjusted)


def test_a_third_arm_in_the_table_is_put_aside_in_every_refutation():
    frame = confounded(200)
    third = frame.assign(arm="other", y=100.0).head(40)
    both = pd.concat([frame, third], ignore_index=True)
    asked = {**ADJUSTED, "control": "direct", "draws": 15}
    alone, beside = refute(frame, **asked), refute(both, **asked)
    for name in ("placebo treatment", "random common cause", "data subset"):
        assert beside.checks[name] == alone.checks[name]


def test_shuffling_within_blocks_keeps_the_counts_of_each():
    rng = np.random.default_rng(1)
    block = np.repeat(["x", "y", "z"], 20)
    arm = np.concatenate([rng.permutation(np.repeat([0, 1], [20 - k, k])) for k in (4, 10, 16)])
    shift = np.repeat([0.0, 5.0, 10.0], 20)
    frame = pd.DataFrame({"arm": arm, "block": block, "y": shift + rng.normal(size=60)})
    options = {"treatment": "arm", "outcome": "y", "method": "naive", "draws": 99}
    within = placebo_treatment(frame, within=["block"], **options)
    # Within blocks the placebo is as unequal between them as the real arm: its mean is their difference.
    expected = shift[arm == 1].mean() - shift[arm == 0].mean()
    assert within.part(MEAN).estimate == pytest.approx(expected, abs=0.3)
    across = placebo_treatment(frame, **options)
    assert abs(across.part(MEAN).estimate) < 1
    with pytest.raises(EstimationError, match="no block of row holds both arms"):
        placebo_treatment(frame.assign(row=np.arange(60)), within=["row"], **options)
    with pytest.raises(EstimationError, match="within names 'y', the outcome"):
        placebo_treatment(frame, within=["y"], **options)


def test_wrong_options_of_a_placebo_are_named():
    with pytest.raises(EstimationError, match="how='swap' is not known"):
        placebo_treatment(confounded(), **ADJUSTED, how="swap")
    with pytest.raises(EstimationError, match="draws='9' is no whole number"):
        placebo_treatment(confounded(), **ADJUSTED, draws="9")
    with pytest.raises(EstimationError, match="within is the text 'a'"):
        placebo_treatment(confounded(), **ADJUSTED, within="a")
    with pytest.raises(EstimationError, match="draws=3: at least 10"):
        placebo_treatment(confounded(), **ADJUSTED, draws=3)
    with pytest.raises(DataError, match="'arms' is not in the table"):
        placebo_treatment(confounded(), **{**ADJUSTED, "treatment": "arms"})


# --------------------------------------------------------------------------------------- negative controls


def test_a_negative_control_finds_confounding_and_only_that():
    frame = confounded(600)
    bad = negative_control_outcome(frame, **ARM, outcomes=["before"], method="naive")
    assert bad.verdict == "fails"
    assert "which it cannot have done" in bad.sentence
    good = negative_control_outcome(
        frame, **ARM, outcomes=["before", "b"], confounders=["a"], method="overlap"
    )
    assert good.verdict == "passes"
    direct = estimate_effect(frame, **ARM, outcome="before", confounders=["a"], method="overlap")
    assert good.parts[0].estimate == direct.estimate
    raw = [row.p_value for row in good.parts]
    assert raw[0] == direct.p_value
    assert [r.p_adjusted for r in good.parts] == pytest.approx(
        [min(1, 2 * p) if p == min(raw) else max(min(1, 2 * min(raw)), p) for p in raw]
    )
    assert len(good.to_frame()) == 2


def test_negative_controls_reject_at_their_level_where_nothing_is_confounded():
    rejected = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame(
            {"arm": rng.integers(0, 2, 80), "u": rng.normal(size=80), "v": rng.normal(size=80)}
        )
        got = negative_control_outcome(frame, treatment="arm", outcomes=["u", "v"], method="naive")
        rejected += got.verdict == "fails"
    # Binomial standard error 0.0154.
    assert 0.01 < rejected / 200 < 0.097


def test_what_the_arm_causes_is_no_negative_control():
    graph = CausalGraph.parse("a -> arm -> y; a -> y; a -> before")
    frame = confounded()
    with pytest.raises(EstimationError, match="the graph says that 'arm' causes 'y'"):
        negative_control_outcome(frame, **ARM, outcomes=["y"], graph=graph)
    found = negative_control_outcome(frame, **ARM, outcomes=["before"], graph=graph, method="overlap")
    assert found.verdict == "passes"
    with pytest.raises(EstimationError, match="at least one column"):
        negative_control_outcome(frame, **ARM, outcomes=[])


# ------------------------------------------------------------------------------ noise, subsets, leaving out


def test_noise_moves_a_weighted_estimate_little_and_a_matched_one_more():
    frame = confounded()
    weighted = random_common_cause(frame, **ADJUSTED, draws=30)
    assert weighted.verdict == "passes"
    assert weighted.part(RMS).estimate < 0.3
    assert weighted.part("mean change").p_value > 0.001
    matched = random_common_cause(frame, **{**ADJUSTED, "method": "nearest"}, draws=30)
    assert matched.part(RMS).estimate > weighted.part(RMS).estimate
    with pytest.raises(EstimationError, match="nothing is adjusted for"):
        random_common_cause(frame, **{**ADJUSTED, "method": "naive"})
    assert "noise" in weighted.sentence


def test_a_good_matching_is_not_condemned_for_being_one_of_many():
    """Its estimate differs from those with noise by its own draw of matches, which is no bias."""
    noise, subset = [], []
    asked = {**ADJUSTED, "method": "nearest", "caliper": 0.2}
    for seed in range(25):
        frame = confounded(150, seed)
        found = random_common_cause(frame, **asked, draws=25, random_state=seed)
        assert (found.part("mean change").p_value >= 0.01) or found.verdict != "passes"
        noise.append(found.verdict == "fails")
        subset.append(data_subset(frame, **asked, draws=25, random_state=seed).verdict)
    assert np.mean(noise) <= 0.08
    assert subset.count("fails") <= 2
    assert subset.count("passes") >= 15


def test_the_spread_over_subsets_gives_back_the_standard_error():
    """For a mean difference the delete-d jackknife has a closed form: the plug-in standard error."""
    rng = np.random.default_rng(3)
    arm = np.repeat([0, 1], 150)
    frame = pd.DataFrame({"arm": arm, "y": arm + rng.normal(size=300)})
    got = data_subset(frame, treatment="arm", outcome="y", method="naive", draws=600)
    assert got.part("ratio to the reported standard error").estimate == pytest.approx(1.0, abs=0.1)
    assert got.verdict == "passes"
    half = data_subset(frame, treatment="arm", outcome="y", method="naive", draws=600, fraction=0.5)
    assert half.part("standard error by subsets").estimate == pytest.approx(
        got.part("standard error by subsets").estimate, rel=0.12
    )


def test_a_standard_error_that_ignores_clusters_is_found_out():
    rng = np.random.default_rng(4)
    cluster = np.repeat(np.arange(40), 10)
    arm = (cluster % 2).astype(int)
    frame = pd.DataFrame({"arm": arm, "c": cluster, "y": rng.normal(size=40)[cluster] + rng.normal(size=400)})
    options = {"treatment": "arm", "outcome": "y", "method": "naive", "draws": 150}
    honest = data_subset(frame, cluster="c", **options)
    assert honest.verdict == "passes"
    assert "of the clusters" in honest.sentence
    naive = data_subset(frame, **options)
    # Rows drawn one by one do not show it either; whole clusters do.
    assert honest.part("standard error by subsets").estimate > 2 * naive.std_error
    with pytest.raises(EstimationError, match=r"fraction=1\.5"):
        data_subset(frame, **options, fraction=1.5)


def test_leaving_out_the_confounder_that_matters_gives_the_biased_estimate():
    frame = confounded(800)
    got = leave_one_covariate_out(frame, **ADJUSTED)
    a, b = got.parts
    assert (a.label, a.by) == ("without 'a'", "a")
    without = estimate_effect(frame, **{**ADJUSTED, "confounders": ["b"]})
    assert a.estimate == without.estimate
    assert abs(a.estimate - got.estimate) > 3 * got.std_error
    assert abs(b.estimate - got.estimate) < got.std_error
    assert "rests most on 'a'" in got.sentence
    assert (a.note, got.verdict) == ("", "passes")
    nothing = leave_one_covariate_out(confounded(800, effect=0.0), **ADJUSTED)
    assert nothing.part("without 'a'").note == "whether the interval includes zero is the other"
    assert nothing.verdict == "doubtful"
    # A graph is asked once; without a confounder it would refuse.
    graph = CausalGraph.parse("a, b -> arm, y; arm -> y")
    options = {k: v for k, v in ADJUSTED.items() if k != "confounders"}
    assert leave_one_covariate_out(frame, **options, graph=graph).parts == got.parts
    with pytest.raises(EstimationError, match="needs at least two"):
        leave_one_covariate_out(frame, **{**ADJUSTED, "confounders": ["a"]})


def test_all_of_them_in_one_report_for_any_kind_of_frame():
    frame = confounded(200)
    copy = frame.copy()
    got = refute(frame, **ADJUSTED, negative_controls=["before"], draws=20)
    pd.testing.assert_frame_equal(frame, copy)
    assert got.not_done == ()
    assert len(got.to_frame()) == 5
    json.dumps(got.to_dict())
    arrow = refute(pa.Table.from_pandas(frame), **ADJUSTED, negative_controls=["before"], draws=20)
    assert arrow == got
    plain = refute(frame, **{**ADJUSTED, "method": "naive", "confounders": ["a", "b"]}, draws=20)
    assert "random common cause" not in plain.checks
    assert any("random common cause (nothing is adjusted for" in reason for reason in plain.not_done)
    assert "negative control outcome (none was named)" in plain.sentence
