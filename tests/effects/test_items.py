"""Which items gain and which are harmed: exact tests, halves of one arm, and contrasts with known shares."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from effect_verbs import paired_effect
from scipy import stats

from whyprompt.effects.paired_items import (
    _tails,
    change_words,
    item_changes,
    item_tests,
    non_null,
    seen_items,
)
from whyprompt.effects.pairs import paired_differences
from whyprompt.errors import EstimationError


def trials(treated, control):
    """One row a trial from two arrays of shape (items, repeats)."""
    rows = [
        pd.DataFrame(
            {
                "item_id": np.repeat([f"q{i:04d}" for i in range(len(y))], y.shape[1]),
                "arm": arm,
                "score": y.ravel(),
            }
        )
        for arm, y in (("cot", treated), ("direct", control))
    ]
    return pd.concat(rows, ignore_index=True)


def pairs(treated, control):
    frame = trials(np.asarray(treated, float), np.asarray(control, float))
    return paired_differences(
        frame, unit="item_id", treatment="arm", outcome="score", treated="cot", control="direct"
    )


def effect(treated, control, **options):
    return paired_effect(
        trials(treated, control), outcome="score", treated="cot", control="direct", **options
    )


# ---------------------------------------------------------------------------------------- one item's test


def test_a_binary_items_p_is_fishers_exact_test():
    rng = np.random.default_rng(0)
    a, b = (rng.random((30, 7)) < 0.7) * 1.0, (rng.random((30, 7)) < 0.4) * 1.0
    gain, harm = item_tests(pairs(a, b))
    for i in range(30):
        table = [[a[i].sum(), 7 - a[i].sum()], [b[i].sum(), 7 - b[i].sum()]]
        assert gain[i] == pytest.approx(stats.fisher_exact(table, alternative="greater").pvalue, rel=1e-9)
        assert harm[i] == pytest.approx(stats.fisher_exact(table, alternative="less").pvalue, rel=1e-9)


def test_without_ties_an_items_p_is_the_exact_rank_sum_test_of_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.7, 1, (20, 6)), rng.normal(size=(20, 6))
    gain, harm = item_tests(pairs(a, b))
    for i in range(20):
        for p, side in ((gain[i], "greater"), (harm[i], "less")):
            oracle = stats.mannwhitneyu(a[i], b[i], alternative=side, method="exact")
            assert p == pytest.approx(oracle.pvalue, rel=1e-9)


def test_with_ties_an_items_p_counts_every_assignment():
    rng = np.random.default_rng(2)
    a, b = rng.integers(1, 5, (10, 4)) * 1.0, rng.integers(1, 4, (10, 4)) * 1.0
    gain, harm = item_tests(pairs(a, b))
    for i in range(10):
        ranks = stats.rankdata(np.r_[a[i], b[i]])
        sums = np.array([sum(c) for c in itertools.combinations(ranks, 4)])
        own = ranks[:4].sum()
        assert gain[i] == pytest.approx((sums >= own - 1e-9).mean(), rel=1e-9)
        assert harm[i] == pytest.approx((sums <= own + 1e-9).mean(), rel=1e-9)


def test_items_of_many_trials_use_the_normal_tail_and_do_not_fall_short_of_the_exact_one():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.4, 1, 30), rng.normal(size=30)
    ranks = (2 * stats.rankdata(np.r_[a, b])).astype(int)
    near = _tails(np.sort(ranks), 30, np.array([ranks[:30].sum()]))
    oracle = stats.mannwhitneyu(a, b, alternative="greater", method="exact").pvalue
    assert near[0, 0] == pytest.approx(oracle, rel=0.02)


def test_order_of_rows_units_and_swapped_arms():
    rng = np.random.default_rng(4)
    a, b = rng.normal(1, 1, (12, 5)), rng.normal(size=(12, 5))
    there, back = item_changes(pairs(a, b)), item_changes(pairs(b, a))
    assert (there.higher, there.gain_at_least, there.seen_gain) == (
        back.lower,
        back.harmed_at_least,
        back.seen_harmed,
    )
    assert item_changes(pairs(3 * a + 1, 3 * b + 1)).gain_at_least == there.gain_at_least
    frame = trials(a, b).sample(frac=1.0, random_state=0)
    mixed = paired_effect(frame, outcome="score", treated="cot", control="direct")
    assert mixed.items.gain_at_least == there.gain_at_least
    assert mixed.items.spread == pytest.approx(there.spread)


def test_the_spread_is_that_of_the_effects_without_the_noise():
    """Over many items the moment estimate meets the truth; unequal numbers of repeats are allowed for."""
    rng = np.random.default_rng(5)
    own = rng.normal(0.3, 0.5, (4000, 1))
    found = item_changes(pairs(own + rng.normal(size=(4000, 4)), rng.normal(size=(4000, 3))))
    assert found.spread == pytest.approx(0.5, abs=0.04)
    assert found.spread_p < 1e-6


# ------------------------------------------------------------------------------------------------- bounds


def test_the_bound_is_that_of_all_subsets_by_brute_force():
    """Closed testing: the largest set of hypotheses that no local test rejects, looked for in all 2^9."""
    rng = np.random.default_rng(6)
    for _ in range(8):
        p = np.where(rng.random(9) < 0.5, rng.random(9), rng.random(9) * 0.01)

        def rejected(subset, p=p, alpha=0.1):
            q = np.sort(p[list(subset)])
            t = len(q)
            simes = (q <= alpha / 2 * np.arange(1, t + 1) / t).any()
            counts = [stats.binom.sf((q <= c).sum() - 1, t, c) <= alpha / 4 for c in (1 / 6, 1 / 20)]
            return simes, *counts

        largest = [0, 0, 0]
        for size in range(1, 10):
            for subset in itertools.combinations(range(9), size):
                for k, out in enumerate(rejected(subset)):
                    if not out:
                        largest[k] = size
        assert non_null(p, 0.1) == 9 - min(largest)


HALVES = [
    ("binary, U-shaped rates", lambda rng, m, n: rng.random((m, n)) < rng.beta(0.3, 0.3, (m, 1))),
    ("binary, rare", lambda rng, m, n: rng.random((m, n)) < rng.beta(0.3, 3.0, (m, 1))),
    (
        "skewed, spreads of their own",
        lambda rng, m, n: np.exp(
            rng.normal(0, 2, (m, 1)) + rng.choice([0.2, 1.0, 2.0], (m, 1)) * rng.normal(size=(m, n))
        ),
    ),
]


@pytest.mark.parametrize("draw", [draw for _, draw in HALVES], ids=[kind for kind, _ in HALVES])
@pytest.mark.parametrize("repeats", [4, 8, 20])
def test_one_arm_split_in_two_halves_has_no_item_that_gains_or_is_harmed(draw, repeats):
    rng = np.random.default_rng(repeats)
    worlds, claims, spread = 40, 0, 0
    for _ in range(worlds):
        y = draw(rng, 100, repeats) * 1.0
        found = item_changes(pairs(y[:, : repeats // 2], y[:, repeats // 2 :]))
        claims += found.gain_at_least > 0 or found.harmed_at_least > 0
        spread += found.spread_p is not None and found.spread_p < 0.05
        # Nothing is coloured in the picture that the sentence does not know of.
        assert found.gain_at_least or not found.seen_gain
        assert found.harmed_at_least or not found.seen_harmed
        if not (found.gain_at_least or found.harmed_at_least):
            assert change_words(found).startswith("no item is seen to")
    # At 5% a count of 40 lies at or below 6 with a chance of 0.997.
    assert claims <= 6
    assert spread <= 6


@pytest.mark.parametrize(("repeats", "size"), [(2, 3.0), (4, 1.5), (20, 1.0)])
def test_a_contrast_with_known_shares_is_within_its_bounds(repeats, size):
    """Of 144 items 86 gain, 29 are harmed, 29 are as they were."""
    rng = np.random.default_rng(repeats)
    worlds, held, least = 60, 0, []
    sign = np.repeat([1.0, -1.0, 0.0], [86, 29, 29])[:, None]
    for _ in range(worlds):
        base = rng.normal(size=(144, 1))
        control = base + rng.normal(size=(144, repeats))
        treated = base + size * sign * rng.exponential(1.0, (144, 1)) + rng.normal(size=(144, repeats))
        found = item_changes(pairs(treated, control))
        held += found.gain_at_least <= 86 and found.harmed_at_least <= 29
        least.append(found.gain_at_least)
    # At 95% (Monte Carlo error 0.028) at least 51 of 60 hold with a chance of 0.998.
    assert held >= 51
    # And they say something: a fifth of the items that gain are found at the least.
    assert np.mean(least) > 0.2 * 86


@pytest.mark.parametrize("repeats", [12, 20])
def test_items_seen_one_by_one_are_mostly_right(repeats):
    rng = np.random.default_rng(repeats)
    wrong = told = 0
    up = np.arange(100) < 40
    for _ in range(30):
        rate = rng.beta(0.5, 0.5, (100, 1)) * 0.5
        control = (rng.random((100, repeats)) < rate) * 1.0
        treated = (rng.random((100, repeats)) < rate + 0.45 * up[:, None]) * 1.0
        state = seen_items(pairs(treated, control))
        told += int((state != 0).sum())
        wrong += int(((state > 0) & ~up).sum() + (state < 0).sum())
    assert told > 30
    assert wrong <= 0.05 * told


def test_items_that_share_their_noise_are_told_one_by_one_only():
    """A set of shots that is lucky lifts every item: with two sets half of all worlds would show gains."""
    rng = np.random.default_rng(7)
    alone = 0
    for _ in range(40):
        luck = rng.normal(size=(1, 2))
        control, treated = np.zeros((60, 2)), luck + 0.01 * rng.normal(size=(60, 2))
        alone += item_changes(pairs(treated, control)).gain_at_least > 0
        found = item_changes(pairs(treated, control), noise="shared")
        # Two sets of shots could not show anything, whatever came out: it is not said that nothing is seen.
        assert found.gain_at_least is None
        assert "too few trials of each item to tell" in change_words(found)
    assert alone > 5
    few = item_changes(pairs(np.ones((2, 2)), np.zeros((2, 2))))
    assert few.gain_at_least is None
    sure = item_changes(pairs(np.ones((60, 10)), np.zeros((60, 10))), noise="shared")
    assert sure.gain_at_least == sure.seen_gain == 60


# ------------------------------------------------------------------------------------------------ in words


def test_with_one_trial_the_counts_are_counts_of_trials():
    result = effect(np.array([[1.0]] * 4 + [[0.0]] * 3), np.array([[0.0]] * 3 + [[1.0]] * 4))
    assert (result.items.higher, result.items.lower, result.items.same) == (3, 3, 1)
    assert result.items.gain_at_least is None
    assert result.items.seen_gain is None
    assert "In these trials 3 of 7 items went from 0 to 1 and 3 from 1 to 0 (too few trials of each" in (
        result.sentence
    )
    assert "item to tell its change from chance)." in result.sentence
    told = effect(np.array([[1.5], [2.0]]), np.array([[1.0], [3.0]])).sentence
    assert "the outcome was higher for 1 of 2 items and lower for 1" in told


def test_scored_outcomes_of_fixed_prompts_have_no_noise_and_count_as_they_are():
    result = effect(np.array([[1.0], [2.0], [0.0]]), np.zeros((3, 1)), noise="none")
    assert "2 of 3 items gain and 0 are harmed, counted on these very prompts" in result.sentence
    assert (result.items.gain_at_least, result.items.seen_gain) == (2, 2)
    with pytest.raises(EstimationError, match="noise='some': choose"):
        effect(np.ones((2, 1)), np.zeros((2, 1)), noise="some")


def test_the_sentence_says_at_least_and_values_for_json_have_no_share():
    rng = np.random.default_rng(8)
    up = rng.normal(3, 1, (40, 6))
    result = effect(up, rng.normal(size=(40, 6)))
    n = result.items.gain_at_least
    assert f"At least {n} of 40 items gain and none is seen to be harmed (95% bounds" in result.sentence
    down = effect(rng.normal(size=(40, 6)), up)
    assert "of 40 items are harmed and none is seen to gain" in down.sentence
    shown = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert shown["items"]["gain_at_least"] == n
    assert not [key for key in shown if "share" in key]


def test_equal_means_of_unequal_numbers_of_trials_are_no_change():
    frame = trials(np.full((3, 3), 0.1), np.full((3, 7), 0.1))
    result = paired_effect(frame, outcome="score", treated="cot", control="direct")
    assert (result.items.higher, result.items.lower, result.items.same) == (0, 0, 3)
