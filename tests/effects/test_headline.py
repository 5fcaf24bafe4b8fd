"""The first sentence, and what stands under it: they say what the interval bears, and no more."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from whyprompt import CausalGraph, estimate_effect, load_example
from whyprompt.effects.headline import better_way, detectable, headline, mean_words, question, verdict
from whyprompt.effects.outlook import harmed, noise_share, settles, sure
from whyprompt.errors import EstimationError


def paired(outcome="correct", *, gains=8, losses=2, same=(20, 20), repeats=1, **options):
    """Give items of which so many rise, fall, and stay wrong and right."""
    pairs = [(0, 1)] * gains + [(1, 0)] * losses + [(0, 0)] * same[0] + [(1, 1)] * same[1]
    rows = [
        (k, arm, float(y))
        for k, both in enumerate(pairs)
        for arm, y in zip("ab", both, strict=True)
        for _ in range(repeats)
    ]
    frame = pd.DataFrame(rows, columns=["item_id", "arm", outcome])
    return estimate_effect(
        frame, treatment="arm", outcome=outcome, treated="b", control="a", design="paired", **options
    )


def with_ends(result, low, high, **figures):
    middle = (low + high) / 2
    items = replace(result.items, mcnemar_p=None)
    overall = replace(
        result.overall, estimate=middle, ci_low=low, ci_high=high, mean_treated=result.mean_control + middle
    )
    return replace(result, overall=overall, items=items, figures={**result.figures, **figures})


@pytest.mark.parametrize(
    ("low", "high", "figures", "expected"),
    [
        (0.04, 0.13, {}, "better"),
        (-0.13, -0.04, {}, "worse"),
        (-0.14, 0.06, {}, "undecided"),
        (-0.04, 0.06, {"margin": 0.05}, "no worse"),
        (-0.06, 0.06, {"margin": 0.05}, "undecided"),
        (0.0, 0.13, {}, "undecided"),
        # What is worse is worse, however wide the margin.
        (-0.03, -0.01, {"margin": 0.05}, "worse"),
        (0.04, 0.13, {"better": "lower"}, "worse"),
        (-0.13, -0.04, {"better": "lower"}, "better"),
        (-0.06, 0.04, {"better": "lower", "margin": 0.05}, "no worse"),
        (-0.04, 0.06, {"better": "lower", "margin": 0.05}, "undecided"),
    ],
)
def test_the_verdict_is_the_intervals(low, high, figures, expected):
    result = with_ends(paired(), low, high, **figures)
    assert verdict(result) == expected
    said = headline(result)
    assert expected.split()[0] in said
    if expected in {"better", "worse"}:
        ends = sorted(round(100 * abs(end)) for end in (low, high))
        assert f"by {ends[0]} to {ends[1]} points (95% interval)" in said
    else:
        assert f"95% interval {round(100 * low)} to {round(100 * high)} points" in said
    assert ("margin of 5 points" in said) == ("margin" in figures and expected != "worse")


@pytest.mark.parametrize(
    ("name", "way"),
    [("exact_match", 1), ("accuracy", 1), ("perplexity", -1), ("log_prob", 0), ("score", 0), ("refused", 0)],
)
def test_better_is_said_only_where_it_is_known(name, way):
    result = with_ends(paired(name), 0.04, 0.13)
    assert better_way(result) == way
    assert verdict(result) == {1: "better", -1: "worse", 0: "higher"}[way]
    assert ("right becomes" in headline(result)) == (way > 0)
    # Of what has no better side, alike is what lies within the margin on both.
    close = with_ends(paired(name), -0.03, 0.04, margin=0.05)
    assert verdict(close) == ("no worse" if way else "alike")
    if not way:
        assert verdict(with_ends(paired(name), -0.06, 0.04, margin=0.05)) == "undecided"


def test_an_exact_test_that_parts_from_the_interval_leaves_it_undecided():
    result = paired(gains=6, losses=0, same=(60, 60))
    low = replace(result.overall, ci_low=0.001, ci_high=0.09)
    apart = replace(result, overall=low, items=replace(result.items, mcnemar_p=0.07))
    assert verdict(apart) == "undecided"
    assert "the interval and the exact test part" in headline(apart)
    assert "the exact test (McNemar p 0.070) disagree" in sure(apart)
    # The error alone would say that fewer items are enough.
    certain = replace(apart, overall=replace(low, std_error=0.01))
    assert settles(certain).startswith("More items under both arms.")


def test_the_sentence_is_from_what_to_what():
    result = paired(gains=9, losses=3, same=(28, 20))
    assert mean_words(result, result.mean_control) == "38%"
    assert headline(result).startswith("With 'b' instead of 'a', 38% right becomes 48%: undecided (95% ")
    assert headline(result) == f"With 'b' instead of 'a', {headline(result, arms=False)}"
    needed = round(100 * result.minimum_detectable)
    seen = f" points). With these 60 items a true change of {needed} points would be seen four times in five."
    assert headline(result).endswith(seen)
    assert result.summary().split("\n\n")[:2] == [headline(result), result.sentence]
    assert str(result) == f"{headline(result)}\n\n{result.sentence}"
    assert question(result) == "Does 'b' instead of 'a' change 'correct'?"


def test_small_changes_of_many_items_have_the_decimals_that_tell_them():
    result = paired(gains=260, losses=200, same=(20_000, 20_000))
    before, after, low, high = map(float, re.findall(r"[\d.]+(?=%| to| points)", headline(result))[:4])
    assert before < after
    assert 0 < low < high
    assert high == pytest.approx(100 * result.ci_high, abs=0.006)


def test_what_is_no_effect_is_not_called_one():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"arm": rng.integers(0, 2, 300), "x": rng.normal(size=300)})
    frame["correct"] = (rng.random(300) < 0.3 + 0.3 * frame["arm"]).astype(float)
    naive = estimate_effect(frame, treatment="arm", outcome="correct", method="naive")
    assert verdict(naive) == "no effect"
    assert re.match(r"\d+% right under '0' and \d+% under '1': ", headline(naive))
    assert headline(naive).endswith("a comparison and no effect, for nothing was adjusted for.")
    assert "becomes" not in headline(naive)
    adjusted = estimate_effect(frame, treatment="arm", outcome="correct", confounders=["x"])
    assert verdict(adjusted) == "better"
    assert headline(adjusted).endswith(
        "(95% interval), if nothing but 'x' affects both the choice of prompt and the outcome."
    )
    drawn = estimate_effect(frame, treatment="arm", outcome="correct", design="randomized")
    assert headline(drawn).endswith("points (95% interval).")
    failed = replace(adjusted.assumptions[0], name="balance", status="fails")
    broken = replace(adjusted, assumptions=(*adjusted.assumptions, failed))
    assert headline(broken).endswith("not to be called an effect, for 'balance' fails its check.")
    assert "lot" in settles(broken)
    same = replace(drawn, figures={"same_prompts": 1.0})
    assert headline(same).endswith("noise, for both arms were sent the same prompts.")


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        (
            "log",
            {"design": "instrument", "instrument": "drawn"},
            "changes the outcome only through the prompt used, and makes no row do the opposite.",
        ),
        (
            "log",
            {"design": "front_door", "mediators": ["prompt_tokens"]},
            "nothing unmeasured affects that together with the prompt or with the outcome.",
        ),
        (
            "rollout",
            {"design": "rollout", "time": "started_at", "unit": "route", "period": 5},
            "routes without the change show how the others would have gone on.",
        ),
        (
            "one route",
            {"design": "rollout", "time": "started_at", "period": 5},
            "nothing else changed on that date and what came before would have gone on.",
        ),
        (
            "log",
            {"confounders": ["difficulty", "task_type"], "method": "overlap"},
            "nothing but 'difficulty' and 'task_type' affects both the choice of prompt and the outcome.",
        ),
        (
            "log",
            {"confounders": ["difficulty", "task_type", "question_tokens"], "method": "overlap"},
            "nothing but the 3 confounders adjusted for affects both the choice of prompt and the outcome.",
        ),
        (
            "log",
            {"graph": CausalGraph.parse("arm -> correct"), "method": "naive"},
            "nothing affects both the choice of prompt and the outcome.",
        ),
    ],
)
def test_what_it_rests_on_is_said_by_the_design(table, options, said):
    frame = load_example("log" if table == "log" else "rollout")
    if table == "one route":
        frame = frame[frame["route"] == frame.loc[frame["arm"] == "few_shot", "route"].iloc[0]]
    made = estimate_effect(
        frame, treatment="arm", outcome="correct", treated="few_shot", control="direct", **options
    )
    first = headline(made)
    assert first.startswith("With 'few_shot' instead of 'direct', ")
    # The verdict has its condition; what would have been seen is another sentence.
    assert first.partition(" With these ")[0].endswith(said)
    starts = {"instrument": "'drawn' is as good as drawn by lot, ", "front_door": "the prompt acts through"}
    assert f", if {starts.get(options.get('design'), said)}" in first


def test_what_would_settle_it_has_the_power_that_it_says():
    result = paired(gains=9, losses=3, same=(28, 20))
    many = int(
        re.search(r"would need about ([\d,]+) items under both arms", settles(result))[1].replace(",", "")
    )
    spread = result.std_error * np.sqrt(60)
    shift = result.estimate * np.sqrt(many) / spread
    q = stats.t.ppf(0.975, many - 1)
    assert 0.80 <= stats.nct.sf(q, many - 1, shift) < 0.84
    # The size of 50 items to within a third: 50 (0.045 / 0.085 / (1 / 3))^2 = 126.1.
    assert "about 130 items under both arms (here 50)" in settles(with_ends(paired(), 0.04, 0.13))
    # And for rows, whose error is that of the method.
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"arm": rng.integers(0, 2, 400), "y": rng.normal(size=400)})
    rows = estimate_effect(frame, treatment="arm", outcome="y", design="randomized")
    least = detectable(rows)
    q = stats.t.ppf(0.975, rows.df)
    both = stats.nct.sf(q, rows.df, least / rows.std_error)
    assert both == pytest.approx(0.8, abs=1e-3)


def test_a_verdict_without_an_effect_is_as_rare_as_its_level_says():
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(200):
        y = rng.random((60, 2)) < 0.5
        frame = pd.DataFrame(
            {
                "item_id": np.repeat(np.arange(60), 2),
                "arm": ["a", "b"] * 60,
                "correct": y.ravel().astype(float),
            }
        )
        made = estimate_effect(
            frame, treatment="arm", outcome="correct", treated="b", control="a", design="paired"
        )
        wrong += verdict(made) != "undecided"
    assert stats.binom.sf(wrong - 1, 200, 0.05) > 0.01


def test_who_is_harmed_is_told_from_chance_where_repeats_can():
    assert "2 of 50 items went from right to wrong in these trials" in harmed(paired())
    many = paired(gains=20, losses=20, same=(10, 10), repeats=6)
    bound = many.items.harmed_at_least
    assert bound > 0
    assert harmed(many).startswith(f"At least {bound} of 60 items")
    lower = replace(many, figures={"better": "lower"})
    assert harmed(lower).startswith(f"At least {many.items.gain_at_least} of 60 items")
    unknown = paired("refused")
    assert "2 of 50 items fell and 8 rose" in harmed(unknown)
    assert "'log_prob'" not in harmed(paired("log_prob"))


def test_a_part_that_goes_the_other_way_is_named():
    rng = np.random.default_rng(4)
    rows = [
        (k, arm, task, (1 if task == "x" else -1) * (arm == "b") + rng.normal(0, 0.3))
        for k in range(60)
        for task in ["x" if k < 40 else "z"]
        for arm in "ab"
    ]
    frame = pd.DataFrame(rows, columns=["item_id", "arm", "task", "correct"])
    made = estimate_effect(
        frame, treatment="arm", outcome="correct", treated="b", control="a", design="paired", by="task"
    )
    assert "It goes worse in z (-0.9" in harmed(made)


def test_noise_of_repeats_is_told_from_the_spread_of_items():
    rng = np.random.default_rng(5)
    own = rng.normal(0, 1, 300)
    rows = [
        (k, arm, own[k] * (arm == "b") + rng.normal(0, 1))
        for k in range(300)
        for arm in "ab"
        for _ in range(2)
    ]
    frame = pd.DataFrame(rows, columns=["item_id", "arm", "y"])
    made = estimate_effect(frame, treatment="arm", outcome="y", treated="b", control="a", design="paired")
    # Two means of two draws of variance one: one of noise beside one of the items' own.
    assert noise_share(made) == pytest.approx(0.5, abs=0.08)
    assert "More repeats would help too" in settles(made)
    assert noise_share(paired()) is None


@pytest.mark.parametrize(
    "method", ["nearest", "optimal", "ipw", "overlap", "cem", "naive", "subclass", "aipw"]
)
@pytest.mark.parametrize("strength", [0.3, 2.5])
def test_no_verdict_where_the_sentence_claims_no_effect(method, strength):
    rng = np.random.default_rng(6)
    x = rng.normal(size=(300, 2))
    arm = (rng.random(300) < 1 / (1 + np.exp(-strength * x.sum(1)))).astype(int)
    frame = pd.DataFrame({"arm": arm, "a": x[:, 0], "b": x[:, 1], "y": arm + x.sum(1) + rng.normal(size=300)})
    named = {} if method == "naive" else {"confounders": ["a", "b"]}
    made = estimate_effect(frame, treatment="arm", outcome="y", method=method, **named)
    unclaimed = "not be claimed" in made.sentence or "comparison and not an effect" in made.sentence
    assert (verdict(made) == "no effect") == unclaimed
    assert ("becomes" in headline(made) or "goes from" in headline(made)) != unclaimed


def logs(n=1500, *, seed=0):
    """Give rows whose arm follows a lot in part, and a cause of both that is seen and one that is not."""
    rng = np.random.default_rng(seed)
    lot, seen, hidden = rng.integers(0, 2, n), rng.normal(size=n), rng.normal(size=n)
    arm = (0.9 * lot + 0.5 * hidden + 0.3 * seen + rng.normal(size=n) > 0.5).astype(int)
    return pd.DataFrame({"lot": lot, "arm": arm, "x": seen, "y": arm + hidden + seen + rng.normal(size=n)})


@pytest.mark.parametrize(
    ("options", "whose"),
    [
        ({"estimand": "ate"}, ""),
        ({"estimand": "att"}, ", on the treated rows"),
        ({"estimand": "atc"}, ", on the control rows"),
        ({"method": "overlap"}, ", on the rows where the arms overlap"),
        ({"method": "nearest", "caliper": 0.05}, r", on the \d+ of \d+ treated rows that are used"),
        ({"design": "instrument", "instrument": "lot"}, ", on the rows whose arm follows the instrument"),
    ],
)
def test_the_sentence_says_whose_effect_it_is_where_it_is_not_that_on_all(options, whose):
    made = estimate_effect(logs(), treatment="arm", outcome="y", confounders=["x"], **options)
    changed = r"With '1' instead of '0', 'y' (goes from [-.\d]+ to [-.\d]+|changes by [-.\d]+)"
    assert re.match(rf"{changed}{whose}: higher, by ", headline(made))


def test_means_that_differ_never_print_alike():
    rng = np.random.default_rng(7)
    slow = rng.normal(12345, 400, 200)
    frame = pd.DataFrame({"item_id": np.repeat(np.arange(200), 2), "arm": ["a", "b"] * 200})
    frame["latency"] = np.column_stack([slow, slow + rng.normal(0.5, 1, 200)]).ravel()
    made = estimate_effect(
        frame, treatment="arm", outcome="latency", treated="b", control="a", design="paired"
    )
    before, after = map(
        float, re.search(r"'latency' goes from ([\d.]+) to ([\d.]+): hi", headline(made)).groups()
    )
    assert 0.2 < after - before < 0.63  # 0.420, no less than half of it and no more than half as much again
    # Less than a point, of an interval of ten.
    close = headline(paired(gains=9, losses=8, same=(9, 144)), arms=False)
    assert close.startswith("89.4% right becomes 90.0%: undec")
    assert headline(paired(gains=0, losses=0), arms=False).startswith("50% right stays at 50%: undecided (")


def test_an_interval_without_a_bound_decides_nothing_and_promises_nothing():
    rng = np.random.default_rng(1)
    lot, hidden = rng.integers(0, 2, 300), rng.normal(size=300)
    frame = pd.DataFrame({"lot": lot, "arm": (0.25 * lot + hidden + rng.normal(size=300) > 0.3).astype(int)})
    frame["y"] = 3 * frame["arm"] + hidden
    weak = estimate_effect(frame, treatment="arm", outcome="y", design="instrument", instrument="lot")
    assert weak.ci_high == np.inf
    assert "undecided (95% interval without a bound), if 'lot' is as good as drawn by lot, " in headline(weak)
    assert "interval has no bound" in sure(weak)
    assert settles(weak) == "More rows like these."


@pytest.mark.parametrize(
    ("bounds", "turned"),
    [((0.01, 0.3), False), ((-0.02, 0.3), True), (None, True)],
)
def test_missing_outcomes_that_could_turn_the_verdict_are_told(bounds, turned):
    made = with_ends(paired(), 0.04, 0.13)
    ends = {} if bounds is None else dict(zip(("low", "high"), bounds, strict=True))
    gaps = replace(made, figures={"missing": {"treated": 3, "control": 0, **ends}})
    assert headline(gaps).endswith("Outcomes are missing, and they could turn this.") == turned
    assert "Outcomes are missing" not in headline(replace(gaps, figures={}))
    open_anyway = with_ends(gaps, -0.04, 0.13)
    assert "Outcomes are missing" not in headline(open_anyway)


def test_nobody_is_said_to_be_harmed_by_what_is_no_effect():
    rng = np.random.default_rng(8)
    frame = pd.DataFrame({"arm": rng.integers(0, 2, 400), "g": rng.choice(["p", "q"], 400)})
    share = np.where(frame["g"] == "p", 0.3 + 0.4 * frame["arm"], 0.8 - 0.5 * frame["arm"])
    frame["correct"] = (rng.random(400) < share).astype(float)
    asked = {"treatment": "arm", "outcome": "correct", "by": "g"}
    assert "It goes worse in q" in harmed(estimate_effect(frame, design="randomized", **asked))
    assert harmed(estimate_effect(frame, method="naive", **asked)) == ""
    assert harmed(replace(paired(repeats=6, gains=20, losses=20), figures={"same_prompts": 1.0})) == ""


def test_what_is_better_is_stated_of_a_result():
    result = with_ends(paired("seconds"), -0.06, 0.04)
    assert verdict(result.judged(margin=0.07)) == "alike"
    assert verdict(result.judged(better="lower", margin=0.05)) == "no worse"
    assert verdict(result.judged(better="higher", margin=0.05)) == "undecided"
    with pytest.raises(EstimationError, match="'less', which is not known"):
        result.judged(better="less")
    for margin in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(EstimationError, match="is no margin"):
            result.judged(margin=margin)
