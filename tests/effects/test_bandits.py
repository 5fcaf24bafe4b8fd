"""Arms drawn with logged chances: sums by hand, the estimate of two arms, bandits of a known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from whyprompt import compare_arms, estimate_effect
from whyprompt.effects.methods.many_arms import weighted_means
from whyprompt.errors import DataError, EstimationError

ASKED = {"treatment": "arm", "outcome": "y", "propensity": "chance", "design": "randomized"}
ARMS = np.array(["a", "b", "c", "d"])


def bandits(truth, *, runs=600, n=1000, block=25, seed=0, explore=None, floor=0.0):
    """Give arms, their chances and outcomes, each (runs, n), of epsilon-greedy or Thompson sampling."""
    rng = np.random.default_rng(seed)
    k, each = len(truth), np.arange(runs)
    tried, won = np.zeros((runs, k)), np.zeros((runs, k))
    parts = []
    for start in range(0, n, block):
        if start == 0:
            chance = np.full((runs, k), 1.0 / k)
        elif explore is not None:
            best = ((won + 0.5) / (tried + 1) + 1e-9 * rng.random((runs, k))).argmax(axis=1)
            chance = np.full((runs, k), explore / k)
            chance[each, best] += 1 - explore
        else:
            shape = (won + 1)[:, :, None], (tried - won + 1)[:, :, None]
            best = rng.beta(*shape, size=(runs, k, 200)).argmax(axis=1)
            chance = np.stack([(best == a).mean(axis=1) for a in range(k)], axis=1)
            chance = chance * (1 - k * floor) + floor
        total = chance.cumsum(axis=1)
        drawn = rng.random((runs, block)) * total[:, -1:]
        arm = (drawn[:, :, None] > total[:, None, :]).sum(axis=2)
        y = (rng.random(arm.shape) < np.asarray(truth)[arm]).astype(float)
        parts.append((arm, np.take_along_axis(chance, arm, axis=1), y))
        for a in range(k):
            tried[:, a] += (arm == a).sum(axis=1)
            won[:, a] += (y * (arm == a)).sum(axis=1)
    return tuple(np.concatenate(some, axis=1) for some in zip(*parts, strict=True))


def a_log(truth, **options):
    arm, chance, y = (values[0] for values in bandits(truth, runs=1, **options))
    return pd.DataFrame({"arm": ARMS[arm], "chance": chance, "y": y})


def over_draws(truth, **options):
    """Give each pair's mean error, its Monte Carlo error, spread over mean standard error, and coverage."""
    arm, chance, y = bandits(truth, **options)
    k = len(truth)
    pairs = [(a, b) for b in range(k) for a in range(b)]
    off, covered, sizes = [], [], []
    for own, e, outcome in zip(arm, chance, y, strict=True):
        means, joint, df = weighted_means(outcome, np.eye(k)[own], 1.0 / e, None)
        errors = np.array([means[b] - means[a] - truth[b] + truth[a] for a, b in pairs])
        size = np.array([np.sqrt(joint[a, a] + joint[b, b] - 2 * joint[a, b]) for a, b in pairs])
        off.append(errors)
        sizes.append(size)
        covered.append(np.abs(errors) <= stats.t.ppf(0.975, [df[a, b] for a, b in pairs]) * size)
    off, sizes, coverage = np.array(off), np.array(sizes), np.mean(covered, axis=0)
    # What docs/howto/logs.md and the warning of `near_none` quote: pytest -rP shows it.
    held = f"{coverage.min():.1%} to {coverage.max():.1%}"
    print(f"{truth} {options}: 95% intervals hold the truth in {held}")  # noqa: T201 - see above
    return off.mean(0), off.std(0) / np.sqrt(len(off)), off.std(0) / sizes.mean(0), coverage


def test_it_is_hajeks_estimate_by_hand():
    frame = pd.DataFrame(
        {
            "arm": ["a", "a", "b", "b", "c", "c"],
            "chance": [0.5, 0.25, 0.25, 0.5, 0.25, 0.5],
            "y": [1.0, 4.0, 2.0, 5.0, 0.0, 3.0],
        }
    )
    found = compare_arms(frame, **ASKED, reference="a")
    # Weights 2 and 4, 4 and 2, 4 and 2.
    assert [mean.estimate for mean in found.means] == pytest.approx([18 / 6, 18 / 6, 6 / 6])
    assert [row.estimate for row in found.parts] == pytest.approx([0.0, -2.0])
    spread = [(2**2 * 2**2 + 4**2 * 1**2) / 36, (4**2 * 1**2 + 2**2 * 2**2) / 36]
    spread.append((4**2 * 1**2 + 2**2 * 2**2) / 36)
    assert [mean.std_error**2 for mean in found.means] == pytest.approx(spread)
    assert [row.std_error**2 for row in found.parts] == pytest.approx([spread[0] + v for v in spread[1:]])
    assert found.weights.tolist() == (1 / frame.chance).tolist()
    assert found.std_error_method == "stacked estimating equations, chances known"


@pytest.mark.parametrize("cluster", [None, "unit"])
def test_of_two_arms_it_is_the_estimate_of_two_arms(cluster):
    frame = a_log([0.4, 0.6], n=400, explore=0.3)
    frame["unit"] = np.arange(len(frame)) // 4
    frame["treated"] = np.where(frame.arm == "b", frame.chance, 1 - frame.chance)
    many = compare_arms(frame, **ASKED, reference="a", cluster=cluster or "none")
    two = estimate_effect(
        frame, **ASKED | {"propensity": "treated"}, treated="b", control="a", method="ipw", estimand="ate",
        cluster=cluster or "none",
    )  # fmt: skip
    row = many.parts[0]
    for name in ("estimate", "std_error", "df", "ci_low", "ci_high", "p_value", "mean_treated"):
        assert getattr(row, name) == pytest.approx(getattr(two.overall, name), rel=1e-10), name
    assert row.p_adjusted == pytest.approx(row.p_value)
    assert (many.ess["b"], many.ess["a"]) == pytest.approx((two.ess_treated, two.ess_control))
    status = {a.name: a.status for a in many.assumptions}
    assert {a.name: a.status for a in two.assumptions} | {"logged chances": "holds"} == status


def test_names_order_and_units_of_the_outcome_change_nothing():
    frame = a_log([0.3, 0.5, 0.6], explore=0.3)
    base = compare_arms(frame, **ASKED)
    turned = frame.sample(frac=1, random_state=1).assign(
        arm=lambda f: f.arm.map({"a": "z", "b": "y", "c": "x"})
    )
    other = compare_arms(turned.assign(y=lambda f: 3 - 2 * f.y), **ASKED)
    for pair, name in ((("b", "a"), ("y", "z")), (("c", "a"), ("x", "z")), (("c", "b"), ("x", "y"))):
        one, two = base.contrast(*pair), other.contrast(*name)
        assert two.estimate == pytest.approx(-2 * one.estimate)
        assert two.std_error == pytest.approx(2 * one.std_error)
    # A chance a constant times as large weighs alike, but is none of the arms that rows got.
    half = compare_arms(frame.assign(chance=frame.chance / 2), **ASKED)
    assert half.parts[0].estimate == pytest.approx(base.parts[0].estimate)


@pytest.mark.parametrize(
    ("truth", "options"),
    [
        ((0.5, 0.5, 0.5), {"explore": 0.1}),
        ((0.3, 0.5, 0.6), {"explore": 0.1}),
        ((0.3, 0.5, 0.5, 0.6), {"explore": 0.3}),
        ((0.5, 0.5, 0.5), {"floor": 0.02}),
        ((0.3, 0.5, 0.6), {"floor": 0.05}),
    ],
)
def test_bandits_with_a_floor_are_met_without_bias_and_covered(truth, options):
    bias, error, ratio, coverage = over_draws(truth, **options)
    assert np.abs(bias / error).max() < 3.5
    # 600 draws of 95%: a Monte Carlo error of 0.9%.
    assert coverage.min() > 0.92
    assert ratio.max() < 1.15


def test_without_a_floor_intervals_are_too_narrow_and_the_estimate_says_so():
    truth = (0.3, 0.5, 0.6)
    for each in (truth, (0.3, 0.5, 0.5, 0.6)):
        bias, error, ratio, coverage = over_draws(each)
        assert 0.70 < coverage.min() < 0.78
        assert ratio.max() > 1.5
        # Of the worst arm and those above it: the difference is taken for larger than it is.
        assert (bias / error).max() > 3.5
    _, _, ratio, coverage = over_draws((0.5, 0.5, 0.5))
    assert 0.93 < coverage.min() <= coverage.max() < 0.98
    assert ratio.min() > 1.2
    arm, chance, y = bandits(truth, runs=20, seed=1)
    judged = []
    for own, e, outcome in zip(arm, chance, y, strict=True):
        frame = pd.DataFrame({"arm": ARMS[own], "chance": e, "y": outcome})
        if frame.arm.value_counts().min() < 2 or frame.arm.nunique() < 3:
            continue
        found = compare_arms(frame, **ASKED, reference="a")
        judged.append({a.name: a.status for a in found.assumptions}["overlap"])
        assert any("intervals are too narrow and lean to one side" in text for text in found.warnings)
    assert len(judged) > 15
    assert "holds" not in judged
    assert judged.count("fails") > len(judged) / 2


def test_of_logs_with_a_floor_nothing_is_doubted():
    arm, chance, y = bandits((0.3, 0.5, 0.6), runs=15, explore=0.2, seed=2)
    for own, e, outcome in zip(arm, chance, y, strict=True):
        found = compare_arms(pd.DataFrame({"arm": ARMS[own], "chance": e, "y": outcome}), **ASKED)
        status = {a.name: a.status for a in found.assumptions}
        assert (status["overlap"], status["logged chances"]) == ("holds", "holds")
        assert found.warnings == ()
        assert found.sentence.endswith(
            "The arms were drawn with the chances in 'chance', so these are effects of the arms."
        )


def test_chances_of_something_else_are_no_chances_of_the_arms():
    frame = a_log([0.3, 0.5, 0.6], n=2000, explore=0.3)
    for wrong, said in (
        (frame.assign(chance=0.3), "rows of 'c' would stand for"),
        (frame.assign(chance=0.8), "had a chance of a half or less"),
        (frame.assign(chance=np.where(frame.arm == "c", frame.chance, 0.8)), "would have got another arm"),
    ):
        found = compare_arms(wrong, **ASKED)
        fit = next(a for a in found.assumptions if a.name == "logged chances")
        assert fit.status == "fails"
        assert said in fit.detail
        assert "may therefore not be claimed as effects of the arms" in found.sentence


def test_chances_that_lie_unused_are_spoken_of():
    frame = a_log([0.3, 0.5, 0.6], explore=0.3).rename(columns={"chance": "action_prob"})
    asked = {"treatment": "arm", "outcome": "y", "method": "naive"}
    assert "propensity='action_prob' takes them" in " ".join(compare_arms(frame, **asked).warnings)
    assert compare_arms(frame.assign(action_prob=0.9), **asked).warnings == ("nothing was adjusted for",)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"method": "nearest"}, EstimationError, "no meaning for method 'nearest' of many arms"),
        ({"method": "overlap"}, EstimationError, "no meaning for method 'overlap'"),
        ({"estimand": "att", "focal": "a"}, EstimationError, "give the ATE alone"),
        ({"confounders": ["x"]}, EstimationError, "no meaning beside confounders"),
        ({"design": "paired", "unit": "x"}, EstimationError, "with design='paired'"),
        ({"propensity": "none"}, DataError, "'none'"),
        ({"propensity": "x"}, DataError, "'x' must lie above 0 and at most at 1"),
    ],
)
def test_what_has_no_meaning_beside_them_is_refused(options, kind, message):
    frame = a_log([0.3, 0.5, 0.6], explore=0.3).assign(x=lambda f: np.arange(len(f)) % 7)
    with pytest.raises(kind, match=message):
        compare_arms(frame, **ASKED | options)
