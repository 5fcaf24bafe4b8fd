"""Paired designs: statsmodels and closed forms for errors, McNemar and power; coverage of known truths."""

import json

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from effect_verbs import paired_effect, paired_effects, paired_heterogeneity, paired_ordinal_effect
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.oneway import anova_oneway
from statsmodels.stats.power import TTestPower

from whyprompt import estimate_effect, placebo_treatment
from whyprompt.effects.pairs import paired_differences
from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.rules import holm


def long_table(control, treated, **columns):
    """One row a trial from two columns of outcomes, in an order that is not sorted by item."""
    n = len(control)
    frame = pd.DataFrame(
        {
            "item_id": np.tile([f"q{i}" for i in range(n)], 2),
            "arm": ["direct"] * n + ["cot"] * n,
            "score": np.concatenate([control, treated]),
            **{name: np.tile(values, 2) for name, values in columns.items()},
        }
    )
    return frame.sample(frac=1.0, random_state=0).reset_index(drop=True)


def effect(frame, **options):
    return paired_effect(frame, outcome="score", treated="cot", control="direct", **options)


def clustered(n_clusters=12, size=5, seed=0):
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(n_clusters), size)
    shift = rng.normal(size=n_clusters)[cluster]
    control = rng.normal(size=len(cluster))
    return control, control + 0.5 + shift + rng.normal(size=len(cluster)), cluster


def test_without_clusters_it_is_the_one_sample_t_test():
    control, treated, _ = clustered()
    result = effect(long_table(control, treated))
    oracle = stats.ttest_rel(treated, control)
    interval = oracle.confidence_interval(0.95)
    assert result.estimate == pytest.approx(float(np.mean(treated - control)), rel=1e-12)
    assert result.p_value == pytest.approx(oracle.pvalue, rel=1e-9)
    assert (result.ci_low, result.ci_high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert result.df == len(control) - 1


def test_equal_clusters_give_the_cluster_robust_error_of_statsmodels():
    """With clusters of one size CR2 of a mean is CR1, which statsmodels has."""
    control, treated, cluster = clustered()
    d = treated - control
    oracle = sm.OLS(d, np.ones(len(d))).fit(cov_type="cluster", cov_kwds={"groups": cluster})
    result = effect(long_table(control, treated, template=cluster), cluster="template")
    assert result.std_error == pytest.approx(float(oracle.bse[0]), rel=1e-10)
    assert result.df == pytest.approx(11, rel=1e-10)
    assert result.n_clusters == 12


def test_unequal_clusters_give_bell_and_mccaffrey_in_matrices():
    control, treated, _ = clustered()
    cluster = np.random.default_rng(1).integers(0, 9, len(control))
    d, n = treated - control, len(control)
    residual = d - d.mean()
    meat, columns = 0.0, []
    hat = np.full((n, n), 1.0 / n)
    for g in np.unique(cluster):
        rows = np.flatnonzero(cluster == g)
        own = np.eye(len(rows)) - hat[np.ix_(rows, rows)]
        values, vectors = np.linalg.eigh(own)
        half = vectors @ np.diag(values**-0.5) @ vectors.T
        ones = np.ones(len(rows))
        meat += float(ones @ half @ residual[rows]) ** 2
        columns.append((np.eye(n) - hat)[:, rows] @ half @ ones / n)
    P = np.column_stack(columns)
    eigen = np.linalg.eigvalsh(P.T @ P)
    result = effect(long_table(control, treated, template=cluster), cluster="template")
    assert result.std_error == pytest.approx(np.sqrt(meat) / n, rel=1e-10)
    assert result.df == pytest.approx(eigen.sum() ** 2 / (eigen**2).sum(), rel=1e-10)


def test_few_clusters_are_said_by_what_they_are_worth():
    """Nine clusters of one size are worth eight degrees of freedom; three, of which one holds most, few."""
    control, treated, cluster = clustered(n_clusters=9, size=10)
    even = effect(long_table(control, treated, template=cluster), cluster="template")
    assert even.df > 4
    assert not any("clusters" in w for w in even.warnings)
    uneven = effect(long_table(control, treated, template=np.maximum(cluster, 6)), cluster="template")
    assert uneven.n_clusters == 3
    assert any("the 3 clusters are worth" in w and "approximate" in w for w in uneven.warnings)
    assert uneven.df < 4


def test_one_item_a_cluster_is_no_clustering():
    control, treated, _ = clustered()
    alone = effect(long_table(control, treated))
    each = effect(long_table(control, treated, template=np.arange(len(control))), cluster="template")
    assert each.std_error == pytest.approx(alone.std_error, rel=1e-12)
    assert each.df == pytest.approx(alone.df, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_exact_mcnemar_and_the_paired_ratio_have_their_closed_forms(seed):
    rng = np.random.default_rng(seed)
    control = (rng.random(80) < 0.4).astype(float)
    treated = np.where(rng.random(80) < 0.6, control, rng.random(80) < 0.7).astype(float)
    result = effect(long_table(control, treated))
    table = [[int(((control == a) & (treated == b)).sum()) for b in (0, 1)] for a in (0, 1)]
    gained, lost, both = table[0][1], table[1][0], table[1][1]
    assert result.items.mcnemar_counts == (gained, lost)
    assert result.items.mcnemar_p == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-12)
    difference, ratio, odds = result.measures
    assert difference.estimate == pytest.approx((gained - lost) / 80, abs=1e-12)
    # Nam and Blackwelder (2002): (b + c) / ((a + b)(a + c)), here with n / (n - 1) for the spread.
    closed = (gained + lost) / ((both + gained) * (both + lost)) * 80 / 79
    assert ratio.estimate == pytest.approx((both + gained) / (both + lost), rel=1e-12)
    assert ratio.std_error == pytest.approx(np.sqrt(closed), rel=1e-9)
    m1, m0 = treated.mean(), control.mean()
    d = treated / (m1 * (1 - m1)) - control / (m0 * (1 - m0))
    assert odds.estimate == pytest.approx(m1 / (1 - m1) / (m0 / (1 - m0)), rel=1e-12)
    assert odds.std_error == pytest.approx(d.std(ddof=1) / np.sqrt(80), rel=1e-10)
    q = stats.t.ppf(0.975, 79)
    assert np.log(odds.ci_high) == pytest.approx(np.log(odds.estimate) + q * odds.std_error, rel=1e-9)


def test_with_clusters_no_p_is_given_that_takes_items_to_be_independent():
    """Ten templates of twenty alike items: McNemar's exact p would count two hundred independent items."""
    rng = np.random.default_rng(0)
    template = np.repeat(np.arange(10), 20)
    up = (rng.random(10) < 0.7)[template]
    frame = long_table(np.zeros(200), up * 1.0, template=template)
    alone, grouped = effect(frame), effect(frame, cluster="template")
    assert alone.items.mcnemar_p < 1e-10
    assert grouped.items.mcnemar_p is None
    assert grouped.items.mcnemar_counts == alone.items.mcnemar_counts
    assert grouped.p_value > 1e-4


@pytest.mark.parametrize(("treated", "control"), [(1.0, 0.0), (1, False), (True, 0), ("1", "0")])
def test_arms_are_called_as_the_table_has_them(treated, control):
    """An arm is one level however it is written: 1, 1.0 and True are the level '1'."""
    frame = long_table(*clustered()[:2], kind=["a", "b"] * 30)
    frame["arm"] = (frame["arm"] == "cot").astype(int)
    found = paired_effect(frame, outcome="score", treated=treated, control=control, by="kind")
    assert (found.treated, found.control) == ("1", "0")
    assert found.to_dict()["treated"] == "1"
    assert "'1' instead of '0' changes" in found.sentence
    frame["other"] = frame["score"] ** 2
    both = paired_effects(frame, outcomes=["score", "other"], treated=treated, control=control)
    assert (both.treated, both.control) == ("1", "0")
    assert "Under '1' instead of '0'" in both.sentence
    frame["grade"] = pd.qcut(frame["score"], 3, labels=False)
    graded = paired_ordinal_effect(frame, outcome="grade", treated=treated, control=control)
    assert (graded.treated, graded.control) == ("1", "0")
    whom = paired_heterogeneity(frame, outcome="score", treated=treated, control=control, modifiers=["kind"])
    assert (whom.treated, whom.control) == ("1", "0")


def test_repeats_of_a_binary_outcome_are_risks_and_no_discordant_pairs():
    rng = np.random.default_rng(2)
    once = [long_table((rng.random(30) < 0.4) * 1.0, (rng.random(30) < 0.6) * 1.0) for _ in range(3)]
    frame = pd.concat(once)
    result = effect(frame)
    assert result.items.mcnemar_p is None
    means = frame.groupby("arm").score.mean()
    assert result.measures[1].estimate == pytest.approx(means.cot / means.direct, rel=1e-12)
    by_item = frame.pivot_table(index="item_id", columns="arm", values="score")
    d = by_item.cot / means.cot - by_item.direct / means.direct
    assert result.measures[1].std_error == pytest.approx(d.std(ddof=1) / np.sqrt(30), rel=1e-10)
    assert effect(long_table(*clustered()[:2])).measures == ()


def test_a_ratio_without_successes_says_so():
    result = effect(long_table(np.zeros(6), np.array([1.0, 1, 0, 0, 1, 0])))
    ratio = result.measures[1]
    assert ratio.estimate is None
    assert "control arm's risk is 0" in ratio.note
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize(("effect_size", "power"), [(0.2, 0.8), (0.5, 0.9), (1.2, 0.8)])
def test_sample_size_is_that_of_statsmodels(effect_size, power):
    rng = np.random.default_rng(3)
    d = rng.normal(size=40)
    d = (d - d.mean()) / d.std(ddof=1)
    result = effect(long_table(np.zeros(40), d))
    wanted = TTestPower().solve_power(effect_size=effect_size, power=power, alpha=0.05)
    assert result.sample_size(effect_size, power=power) == int(np.ceil(wanted))
    assert result.sample_size(-effect_size, power=power) == int(np.ceil(wanted))


def test_the_detectable_effect_is_that_of_statsmodels_and_inverts_the_sample_size():
    rng = np.random.default_rng(4)
    d = rng.normal(size=25)
    result = effect(long_table(np.zeros(25), d))
    size = TTestPower().solve_power(nobs=25, power=0.8, alpha=0.05)
    assert result.minimum_detectable == pytest.approx(size * d.std(ddof=1), rel=1e-6)
    assert result.sample_size(result.minimum_detectable * 1.0001) == 25
    assert result.detectable(n=100) < result.minimum_detectable < result.detectable(n=10)


def test_the_detectable_effect_is_detected_in_four_of_five_simulations():
    rng = np.random.default_rng(5)
    base = rng.normal(size=30)
    planned = effect(long_table(np.zeros(30), (base - base.mean()) / base.std(ddof=1)))
    draws = rng.normal(planned.minimum_detectable, 1.0, size=(4000, 30))
    share = float((stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05).mean())
    # Monte Carlo error 0.006
    assert share == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(("call", "message"), [
    ({"effect": 0.0}, "other than 0"),
    ({"effect": 1.0, "power": 1.0}, "between 0 and 1"),
    ({"effect": 1.0, "power": 0.04}, "without any effect"),
])  # fmt: skip
def test_impossible_sample_sizes_are_refused(call, message):
    result = effect(long_table(*clustered()[:2]))
    with pytest.raises(EstimationError, match=message):
        result.sample_size(**call)


def test_subgroups_are_t_tests_of_their_own_adjusted_by_holm():
    control, treated, _ = clustered(20, 6)
    kind = np.random.default_rng(2).choice(["algebra", "logic", "words"], len(control))
    level = np.random.default_rng(3).integers(0, 2, len(control))
    result = effect(long_table(control, treated, kind=kind, level=level), by=["kind", "level"])
    assert [(r.by, r.label) for r in result.parts] == [
        ("kind", "algebra"), ("kind", "logic"), ("kind", "words"), ("level", "0"), ("level", "1"),
    ]  # fmt: skip
    for row in result.parts:
        here = (kind if row.by == "kind" else level.astype(str)) == row.label
        oracle = stats.ttest_rel(treated[here], control[here])
        assert row.n_used == int(here.sum())
        assert row.p_value == pytest.approx(oracle.pvalue, rel=1e-9)
    adjusted = multipletests([r.p_value for r in result.parts], method="holm")[1]
    assert [r.p_adjusted for r in result.parts] == pytest.approx(list(adjusted), rel=1e-12)
    groups = [(treated - control)[kind == k] for k in ("algebra", "logic", "words")]
    welch = anova_oneway(groups, use_var="unequal", welch_correction=True)
    assert result.heterogeneity["kind"] == pytest.approx(welch.pvalue, rel=1e-9)
    pair = stats.ttest_ind(*((treated - control)[level == k] for k in (0, 1)), equal_var=False)
    assert result.heterogeneity["level"] == pytest.approx(pair.pvalue, rel=1e-9)
    assert len(result.to_frame()) == 6
    assert result.plot().to_dict()["description"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_statsmodels(p):
    assert holm(p) == pytest.approx(list(multipletests(p, method="holm")[1]))


def test_incomplete_items_are_counted_by_reason_and_repeats_averaged():
    frame = pd.DataFrame(
        {
            "item_id": ["a", "a", "a", "b", "b", "c", "d", "d", "e", "e"],
            "arm": ["cot", "cot", "direct", "cot", "direct", "cot", "cot", "direct", "direct", "other"],
            "score": [1.0, 3.0, 1.0, 1.0, 1.0, 5.0, np.nan, 1.0, 2.0, 9.0],
        }
    )
    result = effect(frame)
    assert result.items.incomplete == {"only under 'cot'": 1, "only under 'direct'": 1, "outcome missing": 1}
    assert (result.n_pairs, result.items.n_incomplete) == (2, 3)
    assert result.estimate == pytest.approx(0.5)
    assert any("1 repeated trial" in w for w in result.warnings)
    assert any("3 item(s) left out" in w and "c" in w for w in result.warnings)
    assert "3 incomplete items left out" in result.sentence
    complete = next(a for a in result.assumptions if a.name == "complete pairs")
    assert complete.status == "doubtful"
    shown = result.to_dict()
    assert (shown["n_treated"], shown["n_treated_used"], shown["balance"]) == (5, 2, [])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(-5, 5), st.floats(0.1, 10))
def test_order_shift_and_scale_do_what_they_must(seed, shift, scale):
    control, treated, cluster = clustered(6, 3, seed=seed)
    frame = long_table(control, treated, template=cluster)
    base = effect(frame, cluster="template")
    shuffled = frame.sample(frac=1.0, random_state=seed).set_index(np.zeros(len(frame), dtype=int))
    before = shuffled.copy()
    again = effect(shuffled, cluster="template")
    pd.testing.assert_frame_equal(shuffled, before)
    assert again.estimate == pytest.approx(base.estimate, rel=1e-9, abs=1e-12)
    assert again.std_error == pytest.approx(base.std_error, rel=1e-9)
    moved = effect(
        long_table(control * scale + shift, treated * scale + shift, template=cluster), cluster="template"
    )
    assert moved.estimate == pytest.approx(scale * base.estimate, rel=1e-7, abs=1e-9)
    assert moved.std_error == pytest.approx(scale * base.std_error, rel=1e-7)
    swapped = paired_effect(frame, outcome="score", treated="direct", control="cot", cluster="template")
    assert swapped.estimate == pytest.approx(-base.estimate, rel=1e-12)
    assert swapped.p_value == pytest.approx(base.p_value, rel=1e-9)


def test_clustered_intervals_cover_where_independent_ones_do_not():
    rng = np.random.default_rng(8)
    hits = np.zeros(2)
    draws = 600
    for _ in range(draws):
        sizes = rng.integers(2, 9, 14)
        cluster = np.repeat(np.arange(14), sizes)
        d = 0.3 + rng.normal(size=14)[cluster] + rng.normal(size=len(cluster))
        frame = pd.DataFrame({
            "item_id": np.tile(np.arange(len(d)), 2), "arm": ["direct"] * len(d) + ["cot"] * len(d),
            "score": np.concatenate([np.zeros(len(d)), d]), "t": np.tile(cluster, 2),
        })  # fmt: skip
        for k, options in enumerate(({"cluster": "t"}, {})):
            result = effect(frame, **options)
            hits[k] += result.ci_low <= 0.3 <= result.ci_high
    robust, naive = hits / draws
    # Monte Carlo error 0.009
    assert 0.93 <= robust <= 0.97
    assert naive < 0.85


def test_the_sentence_says_when_the_sign_is_open():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=20)
    open_sign = effect(long_table(np.zeros(20), noise))
    assert "do not decide the sign" in open_sign.sentence
    clear = effect(long_table(np.zeros(20), noise + 5))
    assert "do not decide" not in clear.sentence
    assert "On 20 items run under both arms, 'cot' instead of 'direct' changes 'score'" in clear.sentence


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({}, {"treated": "few_shot"}, EstimationError, "no row of arm column 'arm' is 'few_shot'"),
        ({}, {"treated": "direct"}, EstimationError, "both 'direct'"),
        ({}, {"outcome": "scroe"}, DataError, "'scroe' is not in the table; did you mean 'score'"),
        ({"score": ["x"] * 6}, {}, DataError, "is text"),
        ({"score": [np.inf, 0, 0, 0, 0, 0]}, {}, DataError, "infinite"),
        ({"item_id": list("abcdef")}, {}, EstimationError, "no 'item_id' has an outcome under both"),
        ({"t": [1, 2, 1, 1, 1, 1]}, {"cluster": "t"}, DataError, "varies within 'item_id'"),
        ({}, {"level": 1.0}, EstimationError, "level"),
    ],
)  # fmt: skip
def test_bad_input_is_named(change, options, error, message):
    frame = pd.DataFrame(
        {"item_id": [1, 1, 2, 2, 3, 3], "arm": ["direct", "cot"] * 3, "score": [0.0, 1, 0, 0, 1, 1]}
    ).assign(**change)
    given_options = {"outcome": "score", "treated": "cot", "control": "direct", **options}
    with pytest.raises(error, match=message):
        paired_effect(frame, **given_options)


def test_items_that_behave_alike_do_not_settle_a_risk_without_doubt():
    result = effect(long_table(np.zeros(12), np.ones(12)))
    assert (result.estimate, result.std_error, result.minimum_detectable) == (1.0, None, None)
    # Bonett and Price (2012) by hand: p12 = 13/14, p21 = 1/14, n + 2 = 14.
    a, b = 13 / 14, 1 / 14
    half = 1.959963984540054 * np.sqrt((a + b - (a - b) ** 2) / 14)
    assert result.ci_low == pytest.approx(a - b - half, abs=1e-12)
    assert result.ci_high == 1.0
    assert result.p_value == pytest.approx(2 / 2**12)
    assert any("not in the population" in w for w in result.warnings)


def test_a_risk_difference_stays_within_its_range():
    never = effect(long_table(np.zeros(8), np.r_[np.ones(7), 0.0]))
    assert never.ci_high <= 1.0
    repeats = pd.concat([long_table(np.zeros(8), np.r_[np.ones(7), v]) for v in (0.0, 1.0)])
    averaged = effect(repeats)
    assert averaged.ci_high == 1.0
    assert averaged.std_error_method == "items, t distribution"


def test_intervals_of_paired_risks_cover():
    # Every table of 24 items with its probability: items that only one arm gets right have 0.3 and 0.1.
    n, gains, losses = 24, 0.3, 0.1
    covered = total = 0.0
    for f in range(n + 1):
        for g in range(n + 1 - f):
            chance = stats.multinomial.pmf([f, g, n - f - g], n, [gains, losses, 1 - gains - losses])
            total += chance
            if chance < 1e-4:
                continue
            control = np.r_[np.zeros(f), np.ones(g), np.zeros(n - f - g)]
            treated = np.r_[np.ones(f), np.zeros(g), np.zeros(n - f - g)]
            result = effect(long_table(control, treated))
            covered += chance * (result.ci_low <= gains - losses <= result.ci_high)
    assert total == pytest.approx(1.0)
    assert 0.94 <= covered <= 0.97


def test_differences_are_by_item_in_order_of_appearance():
    frame = pd.DataFrame({"i": [2, 1, 2, 1], "arm": ["a", "a", "b", "b"], "y": [1.0, 2.0, 4.0, 8.0]})
    d = paired_differences(frame, unit="i", treatment="arm", outcome="y", treated="b", control="a")
    assert d.units == ("2", "1")
    assert d.treated.tolist() == [4.0, 8.0]
    assert d.control.tolist() == [1.0, 2.0]


def test_items_that_change_alike_have_no_standard_error_and_no_p():
    control = np.array([0.1, 0.2, 0.3, 0.7, 1.1, 0.4])
    for shift in (0.0, 0.2, 1e9):
        frame = long_table(control, control + shift, template=np.arange(6) // 2)
        for cluster in (None, "template"):
            result = effect(frame, cluster=cluster)
            assert result.estimate == pytest.approx(shift, rel=1e-6)
            assert (result.std_error, result.ci_low, result.ci_high, result.p_value) == (None,) * 4
            assert (result.df, result.minimum_detectable) == (None, None)
            assert any("by the same amount" in w for w in result.warnings)
            assert "no interval can be given" in result.sentence
            with pytest.raises(EstimationError, match="is not known"):
                result.sample_size(0.1)
    # A spread however small, beyond rounding, is a spread.
    nearly = effect(long_table(control, control + 0.2 + 1e-6 * np.arange(6)))
    assert nearly.p_value < 1e-10


def test_clusters_that_change_alike_have_no_standard_error():
    d = np.tile([-1.0, 1.0], 6)
    result = effect(long_table(np.zeros(12), d, template=np.arange(12) // 2), cluster="template")
    assert (result.estimate, result.std_error, result.p_value) == (0.0, None, None)
    assert any("clusters change by the same amount" in w for w in result.warnings)


def test_a_subgroup_that_changes_alike_is_not_a_discovery():
    rng = np.random.default_rng(0)
    control = rng.normal(size=20)
    treated = control + np.where(np.arange(20) < 10, 0.3, rng.normal(size=20))
    frame = long_table(control, treated, kind=np.where(np.arange(20) < 10, "a", "b"))
    rows = {row.label: row for row in effect(frame, by="kind").parts}
    assert (rows["a"].p_value, rows["a"].p_adjusted, rows["a"].ci_low) == (None, None, None)
    assert rows["b"].p_adjusted == rows["b"].p_value


@pytest.mark.parametrize(("level", "words"), [(0.995, "99.5% interval"), (0.975, "97.5% interval")])
def test_the_sentence_gives_the_level_that_was_asked_for(level, words):
    control, treated, _ = clustered()
    assert words in effect(long_table(control, treated), level=level).sentence


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confounders": ["x"]}, "confounders= has no meaning with design='paired'"),
        ({"method": "ipw", "estimand": "ate"}, "method=, estimand= have no meaning"),
        ({"std_error": "bootstrap"}, "std_error= has no meaning"),
        ({"caliper": 0.1}, "caliper= has no meaning"),
        ({"draws": 100}, "draws= has no meaning with design='paired' and one outcome"),
        ({"outcome": ["score", "other"], "noise": "shared"}, "noise= is of what is said of single items"),
        ({"outcome": ["score", "other"], "by": "kind"}, "by= is for one outcome at a time"),
        ({"outcome": ["score", "score"]}, "'score' is named twice"),
        ({"outcome": ["score", "other"], "levels": [1, 2]}, "levels= is for one ordered outcome"),
        ({"levels": "low"}, "levels is the text 'low'"),
        ({"design": "observational", "method": "naive", "unit": "item_id"}, "'unit' is not known"),
        ({"design": "pairs"}, "design 'pairs' is not known"),
    ],
)
def test_what_has_no_meaning_in_a_design_is_refused_by_name(options, message):
    control, treated, _ = clustered()
    frame = long_table(control, treated, x=control, other=control, kind=["a", "b"] * 30)
    with pytest.raises(EstimationError, match=message):
        estimate_effect(frame, **{"treatment": "arm", "outcome": "score", "treated": "cot",
                                  "control": "direct", "design": "paired", **options})  # fmt: skip


def test_two_arms_need_no_names_where_the_table_leaves_no_doubt():
    control, treated, _ = clustered()
    frame = long_table(control, treated)
    named = effect(frame)
    frame["arm"] = (frame["arm"] == "cot").astype(int)
    found = estimate_effect(frame, treatment="arm", outcome="score", design="paired")
    assert (found.estimate, found.treated, found.control) == (named.estimate, "1", "0")
    frame.loc[:9, "arm"] = 2
    with pytest.raises(EstimationError, match="needs the names of both arms, and 'arm' has 3 levels"):
        estimate_effect(frame, treatment="arm", outcome="score", design="paired")


def test_a_check_of_rows_with_one_arm_each_refuses_the_paired_design():
    frame = long_table(*clustered()[:2])
    with pytest.raises(EstimationError, match="design='paired' is not made for this analysis"):
        placebo_treatment(frame, treatment="arm", outcome="score", method="naive", design="paired")
