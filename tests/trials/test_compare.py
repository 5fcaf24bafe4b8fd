"""Two runs held against each other: planted differences of every role, and how many flips are noise."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import whyprompt as wp
from whyprompt.answers.apart import ARM
from whyprompt.answers.compare import text_difference
from whyprompt.effects.flips import item_flips, predicted
from whyprompt.effects.pairs import paired_differences
from whyprompt.errors import DataError, EstimationError
from whyprompt.trials.readers.record import ROLES

DIRECT = [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
COT = [1, 1, 1, 1, 0, 1, 0, 1, 1, 0]
TOLD = {"model": {"name": "m-1"}, "sampling": {"temperature": 0}}


@pytest.fixture
def two(log):
    """Compare two logs, of 'direct' and 'cot', that differ in these settings too."""

    def run(one, other):
        a = log("a.toy", DIRECT, arm="direct", settings={**TOLD, **one})
        b = log("b.toy", COT, arm="cot", settings={**TOLD, **other})
        return wp.compare_runs(a, b)

    return run


def verdicts(found):
    return {d.role: d.verdict for d in found.differences if d.verdict != "arm"}


# ----------------------------- what can be told from the arm
@pytest.mark.parametrize("role", [role for role in ROLES if role != "prompt"])
def test_a_planted_difference_of_every_role_is_found_with_its_verdict(two, role):
    found = two({role: {"x.y": "v-1"}}, {role: {"x.y": "v-2"}})
    special = {"seed": "drawn", "items": "paired"}
    assert verdicts(found) == {role: special.get(role, "aligned")}
    rows = found.to_frame().set_index("role").loc[role]
    assert list(rows[["what", "direct", "cot"]]) == ["x.y", "v-1", "v-2"]
    # The graph says the same: an open path that is not causal, and no way round it but for these two.
    opened = [p.nodes for p in found.graph.paths(ARM, "match") if p.open and p.kind == "backdoor"]
    assert len(opened) == (role != "seed")
    assert found["strategy"] == {"seed": "nothing to adjust for", "items": "adjustment"}.get(role, "none")
    assert all(
        node == "match" or node in str(found) or node in str(found.graph) for n in opened for node in n
    )
    assert ("one treatment" in found.sentence) == (role not in {"seed", "items", "date", "other"})
    effect = wp.log_effect(found.trials).sentence
    assert ("one treatment" in effect) == (role not in {"seed", "items", "date", "other"})


def test_nothing_but_the_prompt_differs(two):
    found = two({}, {})
    assert "Nothing that the logs tell differs between 'direct' and 'cot' but the prompt." in found.sentence
    assert (found["strategy"], verdicts(found)) == ("nothing to adjust for", {})
    assert wp.CausalGraph.parse(str(found.graph)) == found.graph
    assert "one treatment" not in wp.log_effect(found.trials).sentence


def test_what_no_log_tells_is_said(log):
    found = wp.compare_runs(log("a.toy", DIRECT), log("b.toy", COT))
    assert "Of the model and sampling the logs tell nothing: they may differ." in found.sentence


def test_what_one_log_tells_alone_may_differ(two):
    found = two({"engine": {"served_by": "here"}}, {})
    assert verdicts(found) == {"engine": "untold"}
    assert "Not every log tells its engine (served_by): it may differ." in found.sentence


def test_two_models_and_two_prompts_are_one_treatment_and_a_third_run_separates_them(log):
    def run(name, y, arm, model):
        return log(name, y, arm=arm, settings={"model": {"name": model}, "sampling": {"t": 0}})

    a, b = run("a.toy", DIRECT, "direct", "small"), run("b.toy", COT, "cot", "large")
    found = wp.compare_runs(a, b)
    text = " ".join(found.sentence.split())
    assert "model (name: 'small' under 'direct', 'large' under 'cot')" in text
    assert "The prompt and the model are one treatment here" in text
    assert "run 'cot' with name 'small'; or 'direct' with name 'large'" in text
    assert found["strategy"] == "none"
    assert "model" in found.graph.unobserved
    # The 2 x 2 table's third cell: the model can be held where it is.
    c = run("c.toy", COT, "cot", "small")
    found = wp.compare_runs(a, b, c)
    assert verdicts(found) == {"model": "overlapping"}
    assert found["strategy"] == "adjustment"
    assert found.graph.adjustment_sets(ARM, "match") == [frozenset({"model"})]
    assert f"with name 'small' separate the model: compare {a} and {c} alone" in found.sentence
    # All four: each model as often under each prompt.
    found = wp.compare_runs(a, b, c, run("d.toy", DIRECT, "direct", "large"))
    assert (verdicts(found), found["strategy"]) == ({"model": "balanced"}, "nothing to adjust for")
    assert found["together"]


def test_settings_that_can_be_told_one_by_one_and_not_together(log):
    cells = [*itertools.product(("direct", "cot"), ("m-1", "m-2"), ("e-1", "e-2"))]
    cells = [cell for cell in cells if (cell[1][-1] == cell[2][-1]) == (cell[0] == "direct")]
    paths = [
        log(f"{arm}{m}{e}.toy", y, arm=arm, settings={"model": {"n": m}, "engine": {"e": e}})
        for (arm, m, e), y in zip(cells, (DIRECT, DIRECT, COT, COT), strict=True)
    ]
    found = wp.compare_runs(*paths)
    assert verdicts(found) == {"model": "balanced", "engine": "balanced"}
    assert not found["together"]
    assert "No combination of what can be told from the arm" in found.sentence


def test_a_date_changes_nothing_where_the_weights_are_named_and_run_on_the_spot(two):
    def at(day, engine="hf", sha="0f3a9c1be"):
        return {"date": {"date": day}, "model": {"config.model_sha": sha}, "engine": {"config.model": engine}}

    assert verdicts(two(at("2026-01-01"), at("2026-01-02"))) == {"date": "inert"}
    assert verdicts(two(at("2026-01-01", "openai"), at("2026-01-02", "openai"))) == {"date": "aligned"}
    assert verdicts(two(at("2026-01-01", sha="latest"), at("2026-01-02", sha="latest"))) == {
        "date": "aligned"
    }
    moved = two(at("2026-01-01"), at("2026-01-02", sha="0f3a9c1bf"))
    assert verdicts(moved) == {"model": "aligned", "date": "aligned"}


def test_items_that_meet_by_id_alone_do_not_pair_by_what_they_ask(log):
    one, other = ({"items": {"dataset": name}} for name in ("gsm8k", "arc"))
    found = wp.compare_runs(
        log("a.toy", DIRECT, arm="direct", settings=one, question="", prompt=None),
        log("b.toy", COT, arm="cot", settings=other, question="", prompt=None),
    )
    assert verdicts(found) == {"items": "aligned"}


def test_two_texts_of_one_prompt_are_one_treatment_and_shown_by_what_differs(two):
    system = "You are a careful solver of word problems. "
    found = two(
        {"prompt": {"task_args.arm": "direct", "template": f"{system * 3} Be brief.", "system": "terse one"}},
        {"prompt": {"task_args.arm": "cot", "template": f"{system * 3} Think first.", "system": "wordy one"}},
    )
    assert "The template and system of the prompt differ at once, and are one treatment." in found.sentence
    table = found.summary()
    assert "... Be brief." in table
    assert system * 2 not in table
    assert (system * 3) in json.dumps(found.to_dict())


def test_the_words_that_differ():
    assert text_difference("a b c", "a x c") == ("... b ...", "... x ...")
    assert text_difference("a", "a") == ("...", "...")


# ----------------------------- bad input
def test_the_same_file_twice_and_one_arm_are_refused(log):
    path = log("a.toy", DIRECT, arm="direct", settings=TOLD)
    for paths in ([path], [path, path]):
        with pytest.raises(EstimationError, match="all trials are of one arm"):
            wp.compare_runs(*paths)
    with pytest.raises(DataError, match="no log is given"):
        wp.compare_runs()


def test_of_three_arms_two_are_named(log):
    paths = [log(f"{arm}.toy", y, arm=arm) for arm, y in (("a", DIRECT), ("b", COT), ("c", COT[::-1]))]
    with pytest.raises(EstimationError, match="there are 3 arms"):
        wp.compare_runs(*paths)
    found = wp.compare_runs(*paths, treated="c", control="b")
    assert (found.treated, found.control) == ("c", "b")
    changes = np.array(COT[::-1]) - np.array(COT)
    assert (found["gains"], found["regressions"]) == ((changes > 0).sum(), (changes < 0).sum())
    with pytest.raises(EstimationError, match="compared alone"):
        wp.compare_runs(found.trials, paths[0])
    again = wp.compare_runs(found.trials, treated="c", control="b")
    assert again.to_dict() == found.to_dict()


def test_a_log_that_was_written_anew_is_named(tmp_path):
    path = tmp_path / "log.csv"
    rows = pd.DataFrame(
        [(k, arm, y[k]) for arm, y in (("direct", DIRECT), ("cot", COT)) for k in range(10)],
        columns=["item_id", "arm", "score"],
    )
    rows.to_csv(path, index=False)
    trials = wp.read_trials(path)
    for other in (rows[:12], rows.assign(score=1 - rows["score"])):
        other.to_csv(path, index=False)
        with pytest.raises(DataError, match=r"a log has other trials than were read: .*log\.csv"):
            wp.compare_runs(trials)


# ----------------------------- is it noise
def test_changed_items_have_their_texts(log):
    words = [f"It is {k}." for k in range(10)]
    found = wp.compare_runs(
        log("a.toy", DIRECT, arm="direct", completion=words), log("b.toy", COT, arm="cot", completion="So 5.")
    )
    gains = {row["item_id"]: row for row in found.changed["gains"]}
    assert set(gains) == {str(k) for k in range(10) if COT[k] > DIRECT[k]}
    assert [row["item_id"] for row in found.changed["regressions"]] == ["9"]
    row = gains["2"]
    assert (row["question"], row["target"]) == ("How much is 2 and 3?", "5")
    assert (row["control"], row["treated"]) == (0.0, 1.0)
    assert (row["completion_control"], row["completion_treated"]) == ("It is 2.", "So 5.")

    some = wp.compare_runs(found.trials, texts=1).changed
    assert some["gains"][0] == found.changed["gains"][0]
    assert some["regressions"] == found.changed["regressions"]
    bare = [{name: row[name] for name in ("item_id", "control", "treated")} for row in found.changed["gains"]]
    assert some["gains"][1:] == bare[1:]
    assert wp.compare_runs(found.trials, texts=False).changed["gains"] == bare


def test_one_run_of_each_arm_cannot_tell_noise(two):
    found = two({}, {})
    gained = sum(c > d for c, d in zip(COT, DIRECT, strict=True))
    lost = sum(c < d for c, d in zip(COT, DIRECT, strict=True))
    assert found["mcnemar_p"] == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)
    assert f"how many of the {gained + lost} that flip are noise cannot be told" in found.sentence
    assert "expected" not in found.figures


def test_repeats_tell_how_many_flips_noise_makes(log):
    again = [1, 1, 0, 1, 0, 1, 0, 0, 0, 1]
    found = wp.compare_runs(
        log("a.toy", DIRECT, arm="direct"), log("b.toy", COT, arm="cot"), log("c.toy", again, arm="direct")
    )
    flips = sum(a != b for a, b in zip(DIRECT, COT, strict=True))
    same = sum(a != b for a, b in zip(DIRECT, again, strict=True))
    assert (found["flips"], found["items"], found["same_arm"], found["pairs"]) == (flips, 10, same, 10)
    assert found["expected"] == same
    assert f"of pairs of trials of one arm {same} of 10 do" in found.sentence


def test_an_a_a_pair_is_noise_alone(log):
    found = wp.compare_runs(
        log("one.toy", DIRECT, prompt="q", settings=TOLD), log("two.toy", COT, prompt="q", settings=TOLD)
    )
    flips = sum(a != b for a, b in zip(DIRECT, COT, strict=True))
    assert f"what flips, {flips} of 10 items, is noise" in found.sentence
    assert (found["low"], found["high"]) == predicted(flips, 10, 10)
    assert "nor the prompts that were sent" in found.sentence


def test_runs_of_two_models_are_no_repeats(log):
    paths = [
        log(f"{arm}{m}.toy", y, arm=arm, settings={"model": {"name": m}})
        for (arm, y), m in itertools.product((("direct", DIRECT), ("cot", COT)), ("m-1", "m-2"))
    ]
    found = wp.compare_runs(*paths)
    assert "Trials of one arm differ in the model, and are no repeats" in found.sentence
    assert "expected" not in found.figures


def test_an_outcome_that_is_no_share_has_the_variance_of_its_repeats(log):
    y = [0.1 * k for k in range(10)]
    found = wp.compare_runs(log("a.toy", y, arm="direct"), log("b.toy", y[::-1], arm="cot"))
    assert "how much of this is noise cannot be told" in found.sentence
    paths = [
        log(f"{arm}{turn}.toy", [v + 0.01 * k * turn for k, v in enumerate(some)], arm=arm)
        for arm, some in (("direct", y), ("cot", y[::-1]))
        for turn in (0, 1)
    ]
    found = wp.compare_runs(*paths)
    split = wp.repeat_variance(found.trials.frame, unit="item_id", outcome="match", treatment="arm")
    assert split.parts[0]["n_changed"] == 9
    assert split.sentence in found.sentence


def test_flips_are_counted_in_pairs_whatever_the_order_of_rows():
    rng = np.random.default_rng(4)
    rows = [(i, arm, float(rng.random() < 0.4)) for i in range(30) for arm in "ab" for _ in range(3)]
    frame = pd.DataFrame(rows, columns=["item", "arm", "y"])

    def counted(some):
        pairs = paired_differences(some, treatment="arm", unit="item", outcome="y", treated="b", control="a")
        return item_flips(pairs)

    by_hand = frame.groupby(["item", "arm"])["y"].apply(list)
    found = counted(frame)
    assert found.same_arm == sum(y[0] != y[1] for y in by_hand)
    assert (found.pairs, found.items) == (60, 30)
    assert found.flips == sum(by_hand[i, "a"][0] != by_hand[i, "b"][0] for i in range(30))
    # Items and arms in another order, trials of each in theirs.
    assert counted(frame.sort_values("item", ascending=False, kind="stable")) == found


@pytest.mark.parametrize("chance", [(0.1, 0.1), (0.0, 0.4), (0.5, 0.5)])
def test_the_range_of_flips_holds_at_least_as_often_as_it_says(chance):
    """Two samples of flips, items with chances of their own."""
    rng = np.random.default_rng(7)
    of, n, draws = 40, 25, 2000
    chances = rng.uniform(*chance, size=max(of, n)) if chance[0] != chance[1] else np.full(of, chance[0])
    seen = (rng.random((draws, of)) < chances[:of]).sum(axis=1)
    then = (rng.random((draws, n)) < chances[:n]).sum(axis=1)
    known = {k: predicted(k, of, n) for k in set(seen.tolist())}
    held = np.mean([known[k][0] <= y <= known[k][1] for k, y in zip(seen.tolist(), then, strict=True)])
    assert held >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / draws)
