"""Many arms: WeightIt's and cobalt's figures, Tukey's test, matched pairs, and family-wise coverage."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from whyprompt import CausalGraph, compare_arms, estimate_effect
from whyprompt._words import p_words
from whyprompt.errors import DataError, EstimationError, GraphError
from whyprompt.stats.several import correlation, holm, max_t, sign_flip_max_t, two_sided_p

REFERENCE = Path(__file__).parents[1] / "reference"
X = ["difficulty", "log_len", "is_math"]


@pytest.fixture(scope="module")
def trials():
    return pd.read_csv(REFERENCE / "synth_multi.csv")


@pytest.fixture(scope="module")
def weightit():
    return json.loads((REFERENCE / "multi_treatment.json").read_text())


@pytest.fixture(scope="module")
def truth():
    return json.loads((REFERENCE / "synth_multi.truth.json").read_text())


def compare(frame, **options):
    options = {"confounders": X, **options}
    return compare_arms(frame, treatment="variant", outcome="score", **options)


def each(result):
    return [(*pair, row) for pair, row in zip(result.pairs, result.parts, strict=True)]


@pytest.mark.parametrize(
    ("key", "options"),
    [("ATE", {}), ("ATO", {"method": "overlap"}), ("ATT", {"estimand": "att", "focal": "direct"})],
)
def test_contrasts_and_balance_are_those_of_weightit_and_cobalt(trials, weightit, key, options):
    wanted = weightit[f"multinomial_{key}"]
    result = compare(trials, **options)
    for arm, reference, row in each(compare(trials, reference="direct", **options)):
        assert reference == "direct"
        assert row.estimate == pytest.approx(wanted["coef"][f"variant{arm}"], rel=1e-6)
        assert row.std_error == pytest.approx(wanted["se_mestimation"][f"variant{arm}"], rel=1e-6)
    for mean in result.means:
        assert result.ess[mean.label] == pytest.approx(wanted["ess"]["Weighted"][mean.label], rel=1e-6)
        assert mean.n_used == wanted["ess"]["Unweighted"][mean.label]
    for row in result.balance:
        cobalt = wanted["balance_across_pairs"][row.covariate]
        assert row.smd_before == pytest.approx(cobalt["Max.Diff.Un"], rel=1e-6)
        assert row.smd_after == pytest.approx(cobalt["Max.Diff.Adj"], rel=2e-5)
    worst = max(row.largest_smd for row in result.parts)
    assert worst == pytest.approx(max(row.smd_after for row in result.balance), rel=1e-9)


def test_the_known_effects_lie_in_the_simultaneous_intervals(trials, truth):
    effect = truth["effect_vs_direct"]
    for method in ("ipw", "overlap"):
        for arm, reference, row in each(compare(trials, method=method)):
            wanted = effect[arm] - effect[reference]
            assert row.simultaneous_low < wanted < row.simultaneous_high
    naive = {arm: row for arm, _, row in each(compare(trials, method="naive", reference="direct"))}
    missed = [a for a, row in naive.items() if not row.ci_low < effect[a] < row.ci_high]
    assert missed, "the plain differences are confounded in these data"


def test_contrasts_add_up_and_turn_around(trials):
    result = compare(trials)
    there, back = result.contrast("cot", "direct"), result.contrast("direct", "cot")
    assert (back.estimate, back.ci_low) == (-there.estimate, -there.ci_high)
    assert (back.n_treated, back.n_control) == (there.n_control, there.n_treated)
    around = result.contrast("cot", "direct").estimate + result.contrast("few_shot", "cot").estimate
    assert around == pytest.approx(result.contrast("few_shot", "direct").estimate, rel=1e-12)
    with pytest.raises(EstimationError, match="no pair of 'cot' and 'x'"):
        result.contrast("cot", "x")


def test_independent_equal_means_give_tukeys_studentised_range():
    """All pairs of k independent means: the largest |t| times sqrt(2) is the studentised range."""
    k, n = 4, 12
    C = np.zeros((6, k))
    for row, (first, second) in enumerate(combinations(range(k), 2)):
        C[row, first], C[row, second] = -1.0, 1.0
    df = k * (n - 1)
    _, critical, _ = max_t(np.zeros(6), correlation(C @ C.T), df=df, draws=200_000)
    wanted = stats.studentized_range.ppf(0.95, k, df) / np.sqrt(2)
    assert critical == pytest.approx(wanted, rel=0.01)
    rng = np.random.default_rng(0)
    groups = [rng.normal(loc=m, size=n) for m in (0, 0.2, 0.9, 1.1)]
    oracle = stats.tukey_hsd(*groups)
    pooled = np.sqrt(np.mean([g.var(ddof=1) for g in groups]) * 2 / n)
    t = C @ [g.mean() for g in groups] / pooled
    adjusted, _, _ = max_t(t, correlation(C @ C.T), df=df, draws=200_000)
    largest = int(np.abs(t).argmax())
    pairs = list(combinations(range(k), 2))
    # The largest |t| of a step-down test is adjusted for all pairs, as in Tukey's.
    assert adjusted[largest] == pytest.approx(oracle.pvalue[pairs[largest]], abs=0.004)
    assert (adjusted <= np.array([oracle.pvalue[p] for p in pairs]) + 0.004).all()


def test_with_a_reference_only_its_comparisons_are_made_and_they_are_dunnetts():
    rng = np.random.default_rng(2)
    groups = {"control": rng.normal(size=400), "a": rng.normal(0.12, 1, 400), "b": rng.normal(0.22, 1, 400)}
    groups["c"] = rng.normal(size=400)
    frame = pd.DataFrame({"arm": np.repeat(list(groups), 400), "y": np.concatenate(list(groups.values()))})
    options = {"treatment": "arm", "outcome": "y", "method": "naive", "design": "randomized"}
    result = compare_arms(frame, reference="control", **options)
    assert set(result.pairs) == {(a, "control") for a in "abc"}
    oracle = stats.dunnett(*(groups[a] for a in "abc"), control=groups["control"], random_state=0)
    bounds = oracle.confidence_interval(0.95)
    by_size = sorted(result.parts, key=lambda r: -abs(r.estimate))
    for at, row in enumerate(result.parts):
        # With 400 rows an arm Welch's errors are near the pooled one; 20,000 draws err by 0.0016 at 0.05.
        assert row.simultaneous_low == pytest.approx(bounds.low[at], abs=0.006)
        assert row.simultaneous_high == pytest.approx(bounds.high[at], abs=0.006)
        if row is by_size[0]:
            assert row.p_adjusted == pytest.approx(oracle.pvalue[at], abs=0.006)
        # Stepping down, the others can only gain.
        assert row.p_adjusted <= oracle.pvalue[at] + 0.006
    every = compare_arms(frame, **options)
    assert len(every.parts) == 6
    assert every.contrast("b", "control").p_adjusted > result.contrast("b", "control").p_adjusted
    assert "Of 3 comparisons with 'control', 1 differs" in result.sentence


def test_a_step_down_p_that_an_interval_at_once_contradicts_is_explained():
    """Of many arms the largest differences are rejected first; what is left is adjusted for fewer."""
    rng = np.random.default_rng(0)
    found = None
    for seed in range(60):
        rng = np.random.default_rng(seed)
        means = {"a": 0.0, "b": 0.28, "c": 1.5, "d": 3.0}
        frame = pd.DataFrame(
            {
                "arm": np.repeat(list(means), 150),
                "y": np.concatenate([rng.normal(m, 1, 150) for m in means.values()]),
            }
        )
        result = compare_arms(frame, treatment="arm", outcome="y", method="naive", design="randomized")
        row = result.contrast("b", "a")
        if row.p_adjusted < 0.05 and row.simultaneous_low < 0:
            found = (result, row)
            break
    assert found is not None
    result, row = found
    assert "Of 6 pairs of arms, 5 differ" in result.sentence
    assert (
        f"step down, show a difference of 'b' in place of 'a' too (p {p_words(row.p_adjusted)}), though its"
        " interval includes zero: intervals that hold at once ask for more." in result.sentence
    )


def test_no_p_is_the_reciprocal_of_the_draws_nor_nil():
    """What no draw reached is bounded by Holm's p, and a p beyond the reach of doubles is not 0."""
    p_values, _, _ = max_t(np.array([9.0, 50.0, 7.5]), np.eye(3), draws=500)
    alone = [two_sided_p(t, 1.0, None) for t in (9.0, 50.0, 7.5)]
    assert min(alone) > 0
    assert p_values.tolist() == pytest.approx(holm(alone), rel=1e-12)
    assert two_sided_p(1.0, 0.0, 5.0) is None
    assert p_words(two_sided_p(50.0, 1.0, None)) == "< 1e-300"


def test_naive_contrasts_are_welchs(trials):
    result = compare(trials, method="naive")
    for arm, reference, row in each(result):
        a, b = (trials.score[trials.variant == name] for name in (arm, reference))
        assert row.estimate == pytest.approx(a.mean() - b.mean(), rel=1e-12)
        assert row.std_error == pytest.approx(np.sqrt(a.var() / len(a) + b.var() / len(b)), rel=1e-10)


def test_pairs_are_matched_each_by_itself(trials):
    result = compare(trials, method="nearest", caliper=0.1)
    assert len(result.parts) == 6
    for arm, reference, row in each(result):
        two = trials[trials.variant.isin([arm, reference])]
        alone = estimate_effect(
            two,
            treatment="variant",
            outcome="score",
            confounders=X,
            treated=arm,
            method="nearest",
            caliper=0.1,
        )
        assert row.estimate == pytest.approx(alone.estimate, rel=1e-12)
        assert row.std_error == pytest.approx(alone.std_error, rel=1e-12)
        assert (row.n_treated_used, row.n_control_used) == (alone.n_treated_used, alone.n_control_used)
        bonferroni = row.std_error * stats.t.ppf(1 - 0.025 / 6, alone.df)
        assert row.simultaneous_high == pytest.approx(row.estimate + bonferroni, rel=1e-9)
    adjusted = multipletests([r.p_value for r in result.parts], method="holm")[1]
    assert [r.p_adjusted for r in result.parts] == pytest.approx(list(adjusted), rel=1e-9)
    assert any("need not add up" in w for w in result.warnings)
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.slow
def test_simultaneous_intervals_hold_all_pairs_at_once():
    rng = np.random.default_rng(2)
    effects = np.array([0.0, 1.0, 0.5, 2.0])
    hits = {"each": 0.0, "all": 0}
    draws = 600
    for _ in range(draws):
        x = rng.normal(size=(400, 2))
        odds = np.exp(np.column_stack([np.zeros(400), 0.5 * x[:, 0], -0.4 * x[:, 1], 0.3 * x[:, 0]]))
        cut = np.cumsum(odds / odds.sum(axis=1, keepdims=True), axis=1)
        arm = (rng.random(400)[:, None] > cut).sum(axis=1)
        y = x @ [1.0, 0.5] + effects[arm] + rng.normal(size=400)
        frame = pd.DataFrame({"arm": arm, "a": x[:, 0], "b": x[:, 1], "y": y})
        result = compare_arms(frame, treatment="arm", outcome="y", confounders=["a", "b"], method="overlap")
        wanted = [effects[int(a)] - effects[int(b)] for a, b in result.pairs]
        alone = [r.ci_low <= w <= r.ci_high for r, w in zip(result.parts, wanted, strict=True)]
        at_once = [
            r.simultaneous_low <= w <= r.simultaneous_high for r, w in zip(result.parts, wanted, strict=True)
        ]
        hits["each"] += float(np.mean(alone))
        hits["all"] += all(at_once)
    assert 0.93 <= hits["each"] / draws <= 0.97
    assert 0.93 <= hits["all"] / draws <= 0.97


def test_with_two_arms_it_is_estimate_effect(trials):
    two = trials[trials.variant.isin(["direct", "cot"])]
    row = compare(two, reference="direct").parts[0]
    alone = estimate_effect(
        two, treatment="variant", outcome="score", confounders=X, treated="cot", method="ipw", estimand="ate"
    )
    assert row.estimate == pytest.approx(alone.estimate, rel=1e-6)
    assert row.std_error == pytest.approx(alone.std_error, rel=1e-6)
    assert row.p_adjusted == pytest.approx(row.p_value, abs=0.01)


def test_order_and_index_change_nothing(trials):
    base = compare(trials, method="nearest", caliper=0.1).parts
    mixed = trials.sample(frac=1.0, random_state=1).set_index(np.zeros(len(trials), dtype=int))
    before = mixed.copy()
    again = compare(mixed, method="ipw").parts
    pd.testing.assert_frame_equal(mixed, before)
    same = compare(trials).parts
    assert [r.estimate for r in again] == pytest.approx([r.estimate for r in same], rel=1e-9)
    assert [r.std_error for r in again] == pytest.approx([r.std_error for r in same], rel=1e-9)
    assert len(base) == len(same)


def test_clusters_widen_what_they_should(trials):
    grouped = trials.assign(item=np.arange(len(trials)) // 5)
    result = compare(grouped, cluster="item")
    assert "cluster-robust" in result.std_error_method
    alone = compare(grouped.assign(item=np.arange(len(trials))), cluster="item")
    for row, plain in zip(alone.parts, compare(trials).parts, strict=True):
        assert plain.std_error < row.std_error < 1.05 * plain.std_error


def test_the_sentence_and_the_assumptions(trials):
    result = compare(trials)
    assert "Of 6 pairs of arms, 6 differ" in result.sentence
    assert result.plot().to_dict()["description"]
    assert "if nothing but difficulty, log_len, is_math affects both" in result.sentence
    assert {a.name: a.status for a in result.assumptions}["balance"] == "holds"
    naive = compare(trials, method="naive")
    assert "may therefore not be claimed" in naive.sentence
    blind = compare_arms(trials, treatment="variant", outcome="score", method="naive")
    assert "not effects: nothing was adjusted for" in blind.sentence
    drawn = compare(trials, design="randomized")
    assert "The arms were randomised" in drawn.sentence


def test_a_graph_chooses_and_forbids(trials):
    graph = CausalGraph.parse(
        "difficulty, log_len, is_math -> variant, score; variant -> tokens -> score; variant -> score"
    )
    result = compare(trials, confounders=None, graph=graph)
    assert result.confounders == ("difficulty", "is_math", "log_len")
    with pytest.raises(GraphError, match="variant -> tokens -> score"):
        compare(trials.assign(tokens=1.0), confounders=[*X, "tokens"], graph=graph)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({"variant": "cot"}, {}, EstimationError, "constant: every row is 'cot'"),
        ({}, {"reference": "none"}, EstimationError, "reference 'none' is not an arm"),
        ({}, {"confounders": None}, EstimationError, "needs to know what to adjust for"),
        ({}, {"estimand": "atc"}, EstimationError, "does not estimate 'atc'"),
        ({}, {"estimand": "att"}, EstimationError, "focal"),
        ({}, {"estimand": "att", "focal": "none"}, EstimationError, "not an arm"),
        ({}, {"caliper": 0.1}, EstimationError, "option 'caliper' has no meaning where many arms"),
        ({}, {"method": "nearest", "focal": "cot"}, EstimationError, "focal= is for method='ipw'"),
        ({}, {"method": "nearst"}, EstimationError, "method 'nearst' is not known"),
        ({}, {"design": "mine"}, EstimationError, "design 'mine'"),
        ({}, {"level": 2}, EstimationError, "level"),
        ({}, {"confounders": ["prompt_tokens"]}, EstimationError, "'prompt_tokens' cannot be a confounder"),
        ({"score": "good"}, {}, DataError, "outcome column 'score' is text"),
        ({"difficulty": np.nan}, {}, DataError, "missing"),
        ({"variant": range(1500)}, {"reference": None}, EstimationError, "1500 levels"),
    ],
)  # fmt: skip
def test_bad_input_is_named(trials, change, options, error, message):
    with pytest.raises(error, match=message):
        compare(trials.assign(**change), **options)


def test_an_arm_with_one_row_is_named(trials):
    frame = pd.concat([trials, trials.iloc[:1].assign(variant="rare")])
    with pytest.raises(EstimationError, match="arm 'rare' of treatment column 'variant' has one row"):
        compare(frame)


# --------------------------------------------------------------------------------------- multiplicity


def test_sign_flips_of_few_units_are_exact():
    """All eight patterns of three units by hand."""
    d = np.array([[1.0, -1.0], [2.0, 0.5], [3.0, 0.25]])
    p_values, _, least = sign_flip_max_t(d)
    assert least == 0, "all patterns are used"

    def t(values):
        return abs(values.mean() / (values.std(ddof=1) / np.sqrt(3)))

    signs = [np.array([a, b, c]) for a in (1, -1) for b in (1, -1) for c in (1, -1)]
    table = np.array([[t(s * d[:, 0]), t(s * d[:, 1])] for s in signs])
    first, second = t(d[:, 0]), t(d[:, 1])
    assert first > second
    p_first = (table.max(axis=1) >= first - 1e-12).mean()
    p_second = max(p_first, (table[:, 1] >= second - 1e-12).mean())
    assert p_values.tolist() == pytest.approx([p_first, p_second])


def test_equal_outcomes_need_no_adjustment_and_independent_ones_sidaks():
    t = np.array([2.2, 2.2, 2.2])
    same, _, _ = max_t(t, np.ones((3, 3)), draws=100_000)
    p = 2 * stats.norm.sf(2.2)
    assert same == pytest.approx([p] * 3, abs=0.002)
    apart, critical, _ = max_t(t, np.eye(3), draws=100_000)
    assert apart[0] == pytest.approx(1 - (1 - p) ** 3, abs=0.003)
    assert critical == pytest.approx(stats.norm.ppf(1 - (1 - 0.95 ** (1 / 3)) / 2), abs=0.02)


@pytest.mark.parametrize("routine", ["joint normal", "sign flips"])
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(4, 12),
    k=st.integers(2, 6),
    shared=st.floats(0.0, 3.0),
    alike=st.booleans(),
)
def test_an_adjusted_p_value_never_falls_as_the_statistic_does(routine, seed, n, k, shared, alike):
    """Step-down: what is not rejected stands in the way of all that speak less clearly."""
    rng = np.random.default_rng(seed)
    # Columns that go together, of few units each: there the plain chances of the maxima change places.
    d = shared * rng.normal(size=(n, 1)) + rng.standard_exponential(size=(n, k)) - rng.choice([0.0, 1.0], k)
    if alike:
        d[:, 1] = d[:, 0]
    if routine == "sign flips":
        t = np.abs(d.mean(axis=0) / (d.std(axis=0, ddof=1) / np.sqrt(n)))
        p = sign_flip_max_t(d, draws=300)[0]
    else:
        t = np.abs(rng.normal(0, 2, k))
        # Few draws, as each p is then rough.
        p = max_t(t, correlation(np.cov(d, rowvar=False)), draws=50)[0]
    order = np.argsort(-t, kind="stable")
    # Statistics of columns that are alike may differ by rounding.
    apart = np.diff(t[order]) < -1e-9 * t[order][1:]
    assert (np.diff(p[order])[apart] >= 0).all()
    assert ((p > 0) & (p <= 1)).all()


def test_a_p_value_of_random_patterns_counts_the_sample_among_them():
    """None of 99 random patterns is as one-sided as 30 units that all gain: one in a hundred, not none."""
    d = 1.0 + np.arange(30.0)[:, None] / 100.0
    assert sign_flip_max_t(d, draws=99)[0].tolist() == [0.01]


def test_arms_that_differ_by_one_amount_have_no_error_made_of_rounding():
    y = [0, 1, 0, 1, 1, 1, 0, 1]
    frame = pd.DataFrame(
        [
            {"item": k, "arm": arm, "y": value}
            for k, one in enumerate(y)
            for arm, value in (("a", one), ("b", one), ("c", 1 - one if k < 3 else one))
        ]
    )
    found = compare_arms(frame, treatment="arm", outcome="y", reference="a", design="paired", unit="item")
    errors = {row.label: row.std_error for row in found.parts}
    assert errors["b - a"] is None
    assert errors["c - a"] == pytest.approx(np.std([1, -1, 1, 0, 0, 0, 0, 0], ddof=1) / np.sqrt(8))
    assert "b - a: all differ by one amount: the spread is zero" in " ".join(found.warnings)
