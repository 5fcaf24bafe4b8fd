"""From logs to a trial table and its effect, with a reader of the tests' own (`conftest.py`)."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import whyprompt as wp
from whyprompt.errors import DataError, EstimationError
from whyprompt.trials.readers import find

ITEMS = [f"How much is {k} and {k + 1}?" for k in range(10)]


DIRECT = [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
COT = [1, 1, 1, 1, 0, 1, 0, 1, 1, 0]


# ----------------------------- what is the arm
def test_the_setting_of_the_prompt_that_differs_is_the_arm(log):
    found = wp.read_trials(log("a.toy", COT, arm="cot"), log("b.toy", DIRECT, arm="direct"))
    assert found.arms == ("cot", "direct")
    assert found.reference == "direct"
    assert found.taken["arm"] == "task_args.arm (prompt)"
    assert found.pairing.matched == 10
    result = wp.log_effect(found)
    assert (result.treated, result.control) == ("cot", "direct")
    assert result.estimate == pytest.approx(np.mean(COT) - np.mean(DIRECT))
    assert result.sentence.startswith("toy logs, 2 arms: 'cot' and 'direct' (task_args.arm), scorer 'match'")
    assert "On 10 items run under both arms, 'cot' instead of 'direct'" in result.sentence
    gained = sum(c > d for c, d in zip(COT, DIRECT, strict=True))
    lost = sum(c < d for c, d in zip(COT, DIRECT, strict=True))
    assert result.p_value == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)


def test_the_order_of_logs_and_rows_changes_nothing(log):
    paths = log("a.toy", COT, arm="cot"), log("b.toy", DIRECT, arm="direct")
    turned = json.loads(paths[0].read_text())
    turned["trials"].reverse()
    paths[0].write_text(json.dumps(turned))
    one, other = wp.log_effect(wp.read_trials(*paths)), wp.log_effect(wp.read_trials(*reversed(paths)))
    assert (one.estimate, one.ci_low, one.ci_high) == (other.estimate, other.ci_low, other.ci_high)


def test_without_a_difference_the_file_is_the_arm(log):
    found = wp.read_trials(log("new.toy", COT), log("old.toy", DIRECT))
    assert (found.arms, found.reference, found.taken["arm"]) == (("new", "old"), "old", "the file")


def test_what_changes_together_is_one_arm_and_what_does_not_is_refused(log):
    def settings(task, system):
        return {"prompt": {"task": task, "system": system}}

    one = log("a.toy", DIRECT, settings=settings("plain", "You are terse." * 9))
    two = log("b.toy", COT, settings=settings("cot", "You are wordy." * 9))
    three = log("c.toy", COT, settings=settings("cot", "You are kind." * 9))
    assert wp.read_trials(one, two).arms == ("plain", "cot")
    with pytest.raises(DataError, match=r"more than one thing that may be the arm.*task.*system"):
        wp.read_trials(one, two, three)
    assert wp.read_trials(one, two, three, arm="task").arms == ("plain", "cot")
    with pytest.raises(
        DataError, match=r"no setting of these logs\n  hint: what differs: task, system, file"
    ):
        wp.read_trials(one, two, arm="nothing")


def test_one_model_against_another_is_called_that(log):
    one = log("a.toy", DIRECT, settings={"model": {"model": "m-1"}}, prompt="q")
    two = log("b.toy", COT, settings={"model": {"model": "m-2"}}, prompt="q")
    found = wp.read_trials(one, two)
    assert found.arms == ("m-1", "m-2")
    assert any("what differs is the model" in text for text in found.warnings)
    assert "A/A" not in found.sentence


def test_an_average_that_hides_opposite_signs_says_so(log):
    def both(arm, good, bad):
        path = log(f"{arm}.toy", good, arm=arm)
        content = json.loads(path.read_text())
        other = json.loads(log("other.toy", bad, arm=arm).read_text())["trials"]
        for trials, model in ((content["trials"], "m-1"), (other, "m-2")):
            for one in trials:
                one["settings"] = {"model": {"name": model}}
        content["trials"] += other
        path.write_text(json.dumps(content))
        return path

    ones, none = [1] * 9 + [0], [0] * 9 + [0]
    result = wp.log_effect(wp.read_trials(both("direct", none, ones), both("cot", [1] * 10, none)))
    assert result.estimate == pytest.approx(0.05)
    assert "The average hides that it goes the other way in model=m-2 (-0.900)" in result.sentence
    assert [part.label for part in result.parts] == ["m-1", "m-2"]
    assert any("every arm was run with each model" in text for text in result.warnings)
    # Models that agree everywhere are no repeats that were copied.
    agree = wp.read_trials(both("direct", none, none), both("cot", ones, ones))
    assert (len(agree.frame), agree.left_out, agree.frame["rep"].max()) == (40, {}, 1)


def test_runs_of_two_models_are_no_repeats_of_one_another(log):
    def run(name, y, arm, model):
        return log(name, y, arm=arm, settings={"model": {"name": model}})

    paths = [
        run(f"{a}_{m}.toy", y, a, m) for a, y in (("direct", DIRECT), ("cot", COT)) for m in ("m-1", "m-2")
    ]
    found = wp.read_trials(*paths)
    assert (len(found.frame), found.left_out, found.frame["rep"].max()) == (40, {}, 1)
    assert [part.label for part in wp.log_effect(found).parts] == ["m-1", "m-2"]
    assert not any("repeats" in text for text in found.warnings)


def test_names_that_contradict_each_other_are_warned_of(log):
    found = wp.read_trials(log("run_direct.toy", COT, arm="cot"), log("run_cot.toy", DIRECT, arm="direct"))
    assert sum("one name is wrong" in text for text in found.warnings) == 2
    swapped = [f"{q} Let us think step by step." for q in ITEMS]
    found = wp.read_trials(
        log("a.toy", COT, arm="cot", prompt=ITEMS), log("b.toy", DIRECT, arm="direct", prompt=swapped)
    )
    assert any("their labels look exchanged" in text for text in found.warnings)


def test_what_differs_beside_the_arm_is_named(log):
    one = log("a.toy", DIRECT, arm="direct", settings={"judge": {"scorer.model": "j-1"}})
    two = log("b.toy", COT, arm="cot", settings={"judge": {"scorer.model": "j-2"}})
    found = wp.read_trials(one, two)
    assert found.differs["judge"] == {"scorer.model": ("j-1", "j-2")}
    assert any("the judge differs too (scorer.model: 'j-1' and 'j-2')" in text for text in found.warnings)


def test_a_number_is_named_with_what_it_is_of(log):
    def shots(n):
        return {"few_shot": {"config.num_fewshot": n}}

    found = wp.read_trials(log("a.toy", COT, settings=shots(5)), log("b.toy", DIRECT, settings=shots(0)))
    assert (found.arms, found.reference) == (("num_fewshot=5", "num_fewshot=0"), "num_fewshot=0")
    assert wp.log_effect(found, control="5").treated == "num_fewshot=0"


def test_the_arm_is_what_the_same_items_were_run_under(log):
    paths = []
    for task, part in (("arc", slice(0, 5)), ("gsm8k", slice(5, 10))):
        for system, y in (("terse", DIRECT), ("wordy", COT)):
            settings = {"prompt": {"task": task, "system": system}, "items": {"dataset": task}}
            about = {"question": ITEMS[part], "target": [str(k) for k in range(10)][part]}
            paths.append(log(f"{task}_{system}.toy", y[part], settings=settings, prompt=None, **about))
    found = wp.read_trials(*paths)
    assert (found.arms, found.taken["arm"]) == (("terse", "wordy"), "system (prompt)")
    assert "not under each of task" in found.sentence
    result = wp.log_effect(found)
    assert result.estimate == pytest.approx(np.mean(COT) - np.mean(DIRECT))
    assert [part.label for part in result.parts] == ["arc", "gsm8k"]


def test_a_system_prompt_that_one_of_two_runs_of_several_tasks_has_is_the_arm(log):
    """As a harness logs a group of tasks: a file a task, and the prompt of the run in each."""
    paths = []
    for task, part in (("law", slice(0, 5)), ("math", slice(5, 10))):
        for system, y in ((None, DIRECT), ("Think step by step.", COT)):
            prompt = {"task": task} | ({"system_instruction": system} if system else {})
            about = {"question": ITEMS[part], "target": [str(k) for k in range(10)][part], "prompt": None}
            settings = {"prompt": prompt, "items": {"dataset": task}}
            paths.append(log(f"{task}_{len(prompt)}.toy", y[part], settings=settings, **about))
    found = wp.read_trials(*paths)
    assert found.taken["arm"] == "system_instruction (prompt)"
    assert wp.log_effect(found).estimate == pytest.approx(np.mean(COT) - np.mean(DIRECT))


def test_a_setting_that_only_one_arm_has_is_the_arm(log):
    long = "Reason about each of the numbers before you answer. " * 3
    one, two = log("a.toy", DIRECT), log("b.toy", COT, settings={"prompt": {"plan.system": long}})
    found = wp.read_trials(one, two)
    assert (found.arms, found.taken["arm"]) == (("a", "b"), "plan.system (prompt)")
    short = wp.read_trials(one, log("b.toy", COT, settings={"prompt": {"plan.system": "Reason."}}))
    assert (short.arms, short.reference) == (("system=none", "system=Reason."), "system=none")


def test_arms_on_data_sets_of_their_own_are_refused(log):
    one = log("a.toy", DIRECT[:5], arm="direct", settings={"items": {"dataset": "gsm8k"}})
    other = [f"Another: {q}" for q in ITEMS]
    two = log("b.toy", COT, arm="cot", question=other, settings={"items": {"dataset": "arc"}})
    found = wp.read_trials(one, two)
    with pytest.raises(EstimationError, match=r"'cot' was run on 'arc' and 'direct' on 'gsm8k'"):
        wp.log_effect(found)


def test_one_arm_alone_is_refused(log):
    found = wp.read_trials(log("a.toy", DIRECT, arm="direct"))
    assert (found.arms, len(found.frame)) == (("a",), 10)
    with pytest.raises(EstimationError, match=r"a\.toy: all trials are of one arm"):
        wp.log_effect(found)


def test_three_arms_are_listed_or_compared_with_one(log):
    paths = [log(f"{a}.toy", y, arm=a) for a, y in (("direct", DIRECT), ("cot", COT), ("long", COT[::-1]))]
    found = wp.read_trials(*paths)
    with pytest.raises(EstimationError, match=r"3 arms: 'direct', 'cot', 'long'"):
        wp.log_effect(found)
    result = wp.log_effect(found, reference="direct")
    assert len(result.parts) == 2
    assert wp.log_effect(found, treated="long", control="cot").estimate == pytest.approx(0.0)


# ----------------------------- which scorer it is
def test_scorers_that_disagree_are_listed(log):
    both = [{"match": float(y), "fuzzy": 1.0 - y} for y in DIRECT]
    paths = log("a.toy", both, arm="direct"), log("b.toy", both, arm="cot")
    with pytest.raises(DataError, match=r"more than one scorer: match; fuzzy"):
        wp.read_trials(*paths)
    with pytest.raises(DataError, match=r"no scorer 'exact'.*\n  hint: one of: match; fuzzy"):
        wp.read_trials(*paths, scorer="exact")
    assert wp.read_trials(*paths, scorer="fuzzy").frame["fuzzy"].tolist()[:3] == [1.0, 0.0, 1.0]


def test_of_filters_the_one_that_reads_every_arm_is_taken_and_said(log):
    direct = [{"em,none": float(y), "em,flex": float(y)} for y in DIRECT]
    cot = [{"em,none": 0.0, "em,flex": float(y)} for y in COT]
    paths = log("a.toy", direct, arm="direct"), log("b.toy", cot, arm="cot")
    found = wp.read_trials(*paths)
    assert (found.scorer, found.outcome) == ("em,flex", "em")
    assert "'flex' was taken, not 'none', under which an arm has no point at all" in found.sentence
    other = wp.read_trials(*paths, scorer="em,none")
    assert any("every outcome of 'cot' is 0" in text for text in other.warnings)
    assert wp.log_effect(other).estimate == pytest.approx(-np.mean(DIRECT))


def test_a_row_for_each_filter_is_no_trial_more(log):
    rows = [{"em,none": 0.0} for _ in DIRECT], [{"em,flex": float(y)} for y in COT]
    paths = []
    for name in ("direct", "cot"):
        path = log(f"{name}.toy", rows[0], arm=name)
        content = json.loads(path.read_text())
        content["trials"] += json.loads(log("more.toy", rows[1], arm=name).read_text())["trials"]
        path.write_text(json.dumps(content))
        paths.append(path)
    found = wp.read_trials(*paths, scorer="em,flex")
    assert len(found.frame) == 20
    assert found.missing == {}


def test_the_mean_that_a_log_states_is_computed_anew(log):
    right = {"stated": [{"scorer": "match", "mean": 0.5, "n": 10}]}
    wrong = {"stated": [{"scorer": "match", "mean": 0.55}]}
    cot = log("b.toy", COT, arm="cot")
    found = wp.read_trials(log("a.toy", DIRECT, arm="direct", about=right), cot)
    assert found["means_checked"] == 1
    with pytest.raises(
        DataError, match=r"a\.toy: the log states a mean 'match' of 0\.5500, and its 10 trials"
    ):
        wp.read_trials(log("a.toy", DIRECT, arm="direct", about=wrong), cot)
    broken_off = wp.read_trials(
        log("a.toy", DIRECT, arm="direct", about={**wrong, "status": "cancelled"}), cot
    )
    assert any("the log states a mean" in text for text in broken_off.warnings)
    assert any("was cancelled after 10 trials" in text for text in broken_off.warnings)


# ----------------------------- repeats and duplicates
def test_repeats_that_agree_everywhere_are_one(log):
    paths = []
    for name, y in (("direct", DIRECT), ("cot", COT)):
        path = log(f"{name}.toy", y, arm=name)
        content = json.loads(path.read_text())
        content["trials"] += [{**one, "rep": 2} for one in content["trials"]]
        path.write_text(json.dumps(content))
        paths.append(path)
    found = wp.read_trials(*paths)
    assert "identical in 20 of 20 cells: they count as one" in found.sentence
    assert len(found.frame) == 20
    content["trials"][-1] |= {"scores": {"match": 1.0}}
    paths[1].write_text(json.dumps(content))
    moved = wp.read_trials(*paths)
    assert moved.flicker == {"direct": {"cells": 10, "vary": 0}, "cot": {"cells": 10, "vary": 1}}
    assert len(moved.frame) == 40
    assert wp.log_effect(moved).n_pairs == 10


def test_a_run_that_is_there_twice_counts_once(log, tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    for name, y, arm in (("1.toy", DIRECT, "direct"), ("2.toy", COT, "cot"), ("3.toy", COT, "cot")):
        log(name, y, arm=arm).rename(folder / name)
    (folder / "notes.txt").write_text("no log")
    found = wp.read_trials(folder)
    assert "3.toy has the same outcomes of 'cot' as" in found.sentence
    assert "Counted once: " in found.sentence
    assert found.left_out == {"files that are no logs": 1, "trials of a run that is there twice": 10}
    assert len(found.frame) == 20
    log("3.toy", DIRECT, arm="cot").rename(folder / "3.toy")
    again = wp.read_trials(str(folder / "*.toy"))
    assert any("both ran 'cot' on the same items: taken as repeats" in text for text in again.warnings)
    log("3.toy", DIRECT[:4], arm="cot", about={"status": "cancelled"}).rename(folder / "3.toy")
    assert len(wp.read_trials(folder).frame) == 20


# ----------------------------- pairing
def test_items_pair_by_content_where_positions_say_otherwise(log):
    one = log("a.toy", DIRECT, arm="direct")
    two = log("b.toy", COT, arm="cot", item=[str(9 - k) for k in range(10)])
    found = wp.read_trials(one, two)
    assert (found.pairing.by, found.pairing.matched, found.pairing.n_names) == ("content", 10, 10)
    assert wp.log_effect(found).estimate == pytest.approx(np.mean(COT) - np.mean(DIRECT))
    assert any("10 ids name another question under another arm" in text for text in found.warnings)
    by_id = wp.read_trials(one, two, item="id")
    assert by_id.pairing.by == "'id'"


def test_another_right_answer_is_another_item_and_said(log):
    one = log("a.toy", DIRECT, arm="direct")
    two = log("b.toy", COT, arm="cot", target=["99", *(str(2 * k + 1) for k in range(1, 10))])
    found = wp.read_trials(one, two)
    assert found.pairing.matched == 9
    assert found.pairing.targets == ("0",)
    assert any("1 question has another right answer under another arm" in text for text in found.warnings)


def test_logs_without_questions_pair_by_id_and_say_so(log):
    one = log("a.toy", DIRECT, arm="direct")
    two = log("b.toy", COT, arm="cot", question="", target="")
    found = wp.read_trials(one, two)
    assert (found.pairing.by, found.pairing.matched) == ("id", 10)
    assert any("by id alone" in text for text in found.warnings)


def test_a_log_without_targets_pairs_by_the_question(log):
    found = wp.read_trials(log("a.toy", DIRECT, arm="direct"), log("b.toy", COT, arm="cot", target=""))
    assert (found.pairing.by, found.pairing.matched) == ("question", 10)


def test_items_that_only_some_share_are_paired_and_weighed_against_the_rest(log):
    found = wp.read_trials(log("a.toy", DIRECT, arm="direct"), log("b.toy", COT[:6], arm="cot"))
    assert (found.pairing.matched, dict(found.pairing.only)) == (6, {"direct": 4, "cot": 0})
    result = wp.log_effect(found)
    assert result.n_pairs == 6
    assert any("6 of 10 items were run under both arms" in text for text in result.warnings)
    assert "missing" not in result.figures


# ----------------------------- prompts against their names
def test_the_same_prompts_are_an_a_a_comparison(log):
    one = log("a.toy", DIRECT, arm="direct", prompt=ITEMS)
    two = log("b.toy", COT, arm="cot", prompt=ITEMS)
    found = wp.read_trials(one, two)
    assert "the same prompt in 10 of 10 items: this is an A/A comparison" in found.sentence
    assert "this difference is noise" in wp.log_effect(found).sentence


def test_words_that_the_prompts_differ_by_are_said(log):
    found = wp.read_trials(log("a.toy", DIRECT, arm="brief"), log("b.toy", COT, arm="think first"))
    words = "The prompts sent differ in that 'brief' has 'brief' where 'think first' has 'think first'"
    assert words in found.sentence


def test_a_label_over_another_arms_prompt_is_warned_of(log):
    wrong = [f"{q} {'direct' if k in {2, 5} else 'cot'}" for k, q in enumerate(ITEMS)]
    found = wp.read_trials(log("a.toy", DIRECT, arm="direct"), log("b.toy", COT, arm="cot", prompt=wrong))
    assert any(
        "2 of 10 trials labelled 'cot' carry the template of 'direct'" in text for text in found.warnings
    )


# ----------------------------- missing
def test_missing_outcomes_have_a_test_and_bounds(log):
    gone = [None, None, None, *COT[3:]]
    found = wp.read_trials(log("a.toy", DIRECT, arm="direct"), log("b.toy", gone, arm="cot"))
    assert found.missing == {"cot": {"TimeoutError: 30 s": 3}}
    result = wp.log_effect(found)
    missing = result["missing"]
    rest = [c - d for c, d in zip(COT[3:], DIRECT[3:], strict=True)]
    low = (sum(rest) - sum(DIRECT[:3])) / 10
    high = (sum(rest) + sum(1 - d for d in DIRECT[:3])) / 10
    assert (missing["low"], missing["high"]) == pytest.approx((low, high))
    assert (missing["treated"], missing["control"]) == (3, 0)
    assert missing["p"] == pytest.approx(stats.binomtest(3, 3).pvalue)
    assert "An outcome is missing for 3 of 10 items under 'cot' and 0 of 10 under 'direct'" in result.sentence
    assert result.n_pairs == 7


def test_completions_that_were_cut_are_counted_by_arm(log):
    cut = ["max_tokens" if k < 4 else "stop" for k in range(10)]
    one, two = (
        log("a.toy", DIRECT, arm="direct", stop_reason="stop"),
        log("b.toy", COT, arm="cot", stop_reason=cut),
    )
    found = wp.read_trials(one, two)
    assert found.cut_short == {"cot": {"max_tokens": 4}}
    assert any("'cot' that did not end by themselves: 4 (max_tokens)" in text for text in found.warnings)


def test_a_log_without_scores_is_refused_or_left_out_of_a_folder(log, tmp_path):
    bare = log("c.toy", [{}] * 10, arm="cot")
    paths = log("a.toy", DIRECT, arm="direct"), log("b.toy", COT, arm="cot")
    with pytest.raises(DataError, match=r"c\.toy has no scores"):
        wp.read_trials(*paths, bare)
    found = wp.read_trials(tmp_path)
    assert found.left_out == {"logs without scores": 1}


# ----------------------------- arms that were dealt to rows
def _dealt(log, treated, y, **fields):
    """Write a log in which every item has one arm."""
    n = len(y)
    trials = [
        {
            "item": str(k),
            "question": f"Item {k}: {'word ' * (k % 7 + 1)}?",
            "scores": {"match": float(y[k])},
            "settings": {"prompt": {"label": "new" if treated[k] else "old"}},
            **{name: values[k] for name, values in fields.items()},
        }
        for k in range(n)
    ]
    path = log("dealt.toy", [])
    path.write_text(json.dumps({"toy": {}, "trials": trials}))
    return path


def test_logged_chances_are_used(log):
    rng = np.random.default_rng(1)
    hard = rng.random(600) < 0.5
    chance = np.where(hard, 0.8, 0.2)
    treated = rng.random(600) < chance
    y = rng.random(600) < 0.3 + 0.2 * treated - 0.2 * hard
    got = np.where(treated, chance, 1 - chance)
    found = wp.read_trials(_dealt(log, treated, y, propensity=got.tolist()))
    result = wp.log_effect(found)
    frame = pd.DataFrame({"arm": treated.astype(int), "y": y.astype(float), "p": chance})
    expected = wp.estimate_effect(frame, treatment="arm", outcome="y", design="randomized", propensity="p")
    assert result.estimate == pytest.approx(expected.estimate)
    assert abs(result.estimate - 0.2) < 3 * result.std_error


def test_chances_of_one_arm_in_every_trial_are_refused(log):
    rng = np.random.default_rng(1)
    chance = rng.choice([0.1, 0.9], 600)
    treated = rng.random(600) < chance
    found = wp.read_trials(_dealt(log, treated, rng.random(600) < 0.5, propensity=chance.tolist()))
    with pytest.raises(EstimationError, match="fit as the chance of 'new' in every trial"):
        wp.log_effect(found)
    taken = wp.log_effect(found, propensity="propensity", design="randomized", treated="new")
    assert taken.settings["distance"] == "known propensity"


def _many(tmp_path, n=900, *, arms="abc", scores=(0.3, 0.5, 0.6), **change):
    """Write a log of arms drawn with logged chances that go by the kind of question."""
    rng = np.random.default_rng(7)
    rows = []
    for k in range(n):
        hard = rng.random() < 0.5
        chance = np.array([0.6, 0.3, 0.1] if hard else [0.1, 0.3, 0.6])
        a = rng.choice(3, p=chance)
        score = int(rng.random() < scores[a] - 0.2 * hard)
        rows.append({"item_id": f"q{k}", "question": f"What is {k}?", "arm": arms[a], "score": score})
        rows[-1] |= {"propensity": float(chance[a])} | {name: of(k) for name, of in change.items()}
    path = tmp_path / "bandit.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path, pd.DataFrame(rows)


def test_logged_chances_of_many_arms_are_used(tmp_path):
    path, frame = _many(tmp_path)
    found = wp.read_trials(path)
    several = wp.log_effect(found, reference="a")
    mean = {arm: np.average(f.score, weights=1 / f.propensity) for arm, f in frame.groupby("arm")}
    for other in "bc":
        row = several.contrast(other, "a")
        assert row.estimate == pytest.approx(mean[other] - mean["a"])
        one = wp.log_effect(found, treated=other, control="a")
        assert (one.estimate, one.std_error, one.ci_low) == (row.estimate, row.std_error, row.ci_low)
        assert (one.method, one.estimand, len(one.weights)) == (
            "ipw",
            "ate",
            int(sum(frame.arm != "bc"["cb".index(other)])),
        )
        assert one.overall.p_adjusted is None
    plain = frame.groupby("arm").score.mean()
    assert abs(plain["c"] - plain["a"] - 0.3) > abs(several.contrast("c", "a").estimate - 0.3)
    assert "with the chances in 'propensity', so these are effects of the arms" in several.sentence
    assert "logged chances" in {a.name for a in several.assumptions}
    # Wrong chances are held against all rows, also where two arms are named.
    wrong, _ = _many(tmp_path, propensity=lambda _: 0.2)
    one = wp.log_effect(wp.read_trials(wrong), treated="b", control="a")
    assert "may therefore not be claimed as an effect" in one.sentence


def test_arms_of_which_some_outcomes_are_missing_are_compared_side_by_side(log):
    paths = [log(f"{arm}.toy", DIRECT, arm=arm) for arm in ("direct", "long")]
    gap = [None if k in (2, 5) else y for k, y in enumerate(COT)]
    paths.append(log("cot.toy", [{"match": None if y is None else float(y)} for y in gap], arm="cot"))
    found = wp.read_trials(*paths)
    several = wp.log_effect(found, reference="direct")
    for arm, n in (("long", 10), ("cot", 8)):
        one = wp.log_effect(found, treated=arm, control="direct")
        row = several.contrast(arm, "direct")
        assert (row.estimate, row.std_error, row.p_value, row.n_used) == (
            one.estimate, one.std_error, one.p_value, n,
        )  # fmt: skip
        assert one.sentence.split("\n")[-1] in several.sentence
        strict = wp.log_effect(found, treated=arm, control="direct", level=0.975)
        assert (row.simultaneous_low, row.simultaneous_high) == (strict.ci_low, strict.ci_high)
    # Each assumption is shown as it stands in the pair where it stands worst.
    complete = next(a for a in several.assumptions if a.name == "complete pairs")
    assert (complete.status, complete.detail[:19]) == ("doubtful", "cot against direct:")
    assert several["missing"]["cot"]["treated"] == 2
    assert several.adjustment == "Bonferroni"
    p = [row.p_value for row in several.parts]
    assert [row.p_adjusted for row in several.parts] == pytest.approx(
        [None if v is None else min(1.0, max(2 * min(x for x in p if x is not None), v)) for v in p]
    )


def test_what_every_arm_has_besides_its_prompt_is_said_of_many_too(log):
    paths = [
        log(f"{arm}.toy", y, arm=arm, settings={"judge": {"scorer.model": judge}})
        for arm, y, judge in (("direct", DIRECT, "j-1"), ("cot", COT, "j-2"), ("long", COT, "j-1"))
    ]
    several = wp.log_effect(wp.read_trials(*paths), reference="direct")
    (line,) = (text for text in several.sentence.split("\n") if "one treatment" in text)
    assert "'cot' instead of 'direct' changes" in line


def test_shares_that_move_with_time_are_refused_without_chances(log):
    rng = np.random.default_rng(2)
    n = 400
    treated = rng.random(n) < np.linspace(0.1, 0.9, n)
    y = rng.random(n) < 0.4 + 0.2 * treated
    at = [f"2026-01-{1 + k // 20:02d}T{k % 20:02d}:00:00Z" for k in range(n)]
    with pytest.raises(EstimationError, match=r"share of 'new' moves with time.*no chances were logged"):
        wp.log_effect(wp.read_trials(_dealt(log, treated, y, started_at=at)))
    steady = rng.random(n) < 0.5
    result = wp.log_effect(wp.read_trials(_dealt(log, steady, y, started_at=at)))
    assert result.confounders == ("question_chars", "question_words")
    assert any("no item was run under both arms" in text for text in result.warnings)


def test_times_that_cannot_be_read_are_named(log):
    rng = np.random.default_rng(2)
    treated = rng.random(120) < 0.5
    at = ["yesterday" if k == 7 else f"2026-01-{1 + k // 20:02d}T{k % 20:02d}:00:00Z" for k in range(120)]
    found = wp.read_trials(_dealt(log, treated, rng.random(120) < 0.5, started_at=at))
    said = " ".join(wp.log_effect(found).warnings)
    assert "dealt.toy: 1 of 120 times (started_at) cannot be read, such as 'yesterday'" in said


def test_a_bandit_that_met_some_items_twice_is_refused_too(log):
    rng = np.random.default_rng(5)
    n = 400
    treated = rng.random(n) < np.linspace(0.1, 0.9, n)
    at = [f"2026-01-{1 + k // 20:02d}T{k % 20:02d}:00:00Z" for k in range(n)]
    path = _dealt(log, treated, rng.random(n) < 0.5, started_at=at)
    content = json.loads(path.read_text())
    for k in range(n - 60, n):
        content["trials"][k]["question"] = content["trials"][k - 340]["question"]
    path.write_text(json.dumps(content))
    found = wp.read_trials(path)
    assert 0 < found.pairing.matched < 60
    with pytest.raises(EstimationError, match="moves with time"):
        wp.log_effect(found)


def test_a_log_that_says_that_a_bandit_chose_is_refused(log):
    rng = np.random.default_rng(3)
    treated, y = rng.random(60) < 0.5, rng.random(60) < 0.5
    path = _dealt(log, treated, y)
    content = json.loads(path.read_text())
    content["toy"] = {"settings": {"other": {"router.policy": "thompson"}}}
    path.write_text(json.dumps(content))
    with pytest.raises(EstimationError, match=r"chosen adaptively \(router\.policy: thompson\)"):
        wp.log_effect(wp.read_trials(path))
    content["toy"] = {"settings": {"other": {"adaptive_connections": "False"}}}
    path.write_text(json.dumps(content))
    assert wp.log_effect(wp.read_trials(path)).estimate is not None


def test_missing_rows_of_dealt_arms_have_fishers_test(log):
    rng = np.random.default_rng(4)
    treated = np.arange(80) % 2 == 0
    y = (rng.random(80) < 0.5).astype(float)
    path = _dealt(log, treated, y)
    content = json.loads(path.read_text())
    for k in range(0, 24, 2):
        content["trials"][k] |= {"scores": {"match": None}, "error": "refused"}
    path.write_text(json.dumps(content))
    result = wp.log_effect(wp.read_trials(path), design="randomized")
    assert result["missing"]["p"] == pytest.approx(stats.fisher_exact([[12, 28], [0, 40]]).pvalue)
    new, old = y[::2][12:].sum(), y[1::2].mean()
    assert result["missing"]["low"] == pytest.approx(new / 40 - old)
    assert result["missing"]["high"] == pytest.approx((new + 12) / 40 - old)


# ----------------------------- what is no log
def test_what_is_no_log_is_named(tmp_path):
    odd = tmp_path / "odd.bin"
    odd.write_bytes(b"\x00\x01")
    with pytest.raises(DataError, match=r"odd\.bin is no log of a known format\n  hint: known are logs of"):
        wp.read_trials(odd)
    with pytest.raises(DataError, match="there is no such file"):
        wp.read_trials(tmp_path / "absent.eval")
    (tmp_path / "empty.json").write_text("")
    with pytest.raises(DataError, match=r"empty\.json is empty"):
        wp.read_trials(tmp_path / "empty.json")
    (tmp_path / "wide.eval").write_bytes(json.dumps({"status": 1}).encode("utf-16"))
    with pytest.raises(DataError, match=r"wide\.eval is UTF-16 text.*\n  hint: write it as UTF-8"):
        wp.read_trials(tmp_path / "wide.eval")


def test_what_a_reader_stumbles_over_is_named(log):
    path = log("a.toy", DIRECT, arm="direct")
    path.write_text('{"toy": {"settings": {}}, "trials": [{"item": "1", "colour": 3}]}')
    with pytest.raises(DataError, match=r"a\.toy cannot be read as a log of toy: TypeError: .*colour"):
        wp.read_trials(path)


def test_a_reader_of_anothers_making_is_an_entry_point(monkeypatch):
    monkeypatch.undo()
    find.readers.cache_clear()
    entry = find.metadata.EntryPoint("toy", "nowhere.at.all", find.GROUP)
    monkeypatch.setattr(find.metadata, "entry_points", lambda **_: [entry])
    with pytest.raises(DataError, match=r"the reader 'toy' \(nowhere\.at\.all\) cannot be loaded"):
        find.readers()


# ----------------------------- what may not be said
def test_a_folder_without_one_score_is_refused(log, tmp_path):
    for name in ("a.toy", "b.toy"):
        log(name, [{}] * 4, arm=name)
    with pytest.raises(DataError, match="holds a trial with a score"):
        wp.read_trials(tmp_path)


def test_arms_of_other_scorers_are_not_compared(log):
    one = log("a.toy", [{"match": v} for v in DIRECT], arm="direct")
    two = log("b.toy", [{"includes": v} for v in COT], arm="cot")
    with pytest.raises(
        DataError, match=r"'match' scored no trial of 'cot' \(scored by 'includes'\): arms with other scorers"
    ):
        wp.read_trials(one, two, scorer="match")


def test_an_arm_goes_by_the_end_of_several_paths_that_change_together(log):
    def both(arm):
        return {"prompt": {"task_args.arm": arm, "plan.arm": f"{arm}-1", "task": arm}}

    one, two = log("a.toy", DIRECT, settings=both("direct")), log("b.toy", COT, settings=both("cot"))
    assert wp.read_trials(one, two, arm="arm").arms == ("direct", "cot")
    three = log("c.toy", COT, settings={"prompt": {"task_args.arm": "cot", "plan.arm": "tot", "task": "cot"}})
    with pytest.raises(
        DataError, match=r"more than one setting.*\n  hint: name one of them whole: task_args.arm, plan.arm$"
    ):
        wp.read_trials(one, two, three, arm="arm")


def test_what_chose_items_that_are_paired_by_content_is_no_part_of_the_treatment(log):
    def run(name, arm, epochs, limit):
        items = {"epochs": epochs, **({"limit": limit} if limit else {})}
        return log(name, DIRECT if arm == "direct" else COT, arm=arm, settings={"items": items})

    found = wp.read_trials(run("a.toy", "direct", 1, 10), run("b.toy", "cot", 3, 0))
    (said,) = (text for text in found.warnings if "item set" in text)
    assert said.startswith(
        "the item set differs too (epochs: '1' and '3'): items are paired by what was asked"
    )


def test_a_broken_off_run_that_was_run_again_is_not_said_to_be_paired(log):
    logs = [
        log("a.toy", DIRECT, arm="direct"),
        log("b.toy", COT[:4], arm="cot", about={"status": "failed"}),
        log("c.toy", [*COT[:3], 1 - COT[3], *COT[4:]], arm="cot"),
    ]
    warnings = wp.read_trials(*logs).warnings
    assert any("b.toy failed and" in text and "only the second is taken" in text for text in warnings)
    assert not any("those are paired" in text for text in warnings)


def test_an_arm_left_out_for_want_of_scores_is_named(log, tmp_path):
    log("a.toy", DIRECT, arm="direct")
    gone = log("b.toy", [{}] * 10, arm="cot")
    with pytest.raises(EstimationError, match=f"left out, without a score: {gone}"):
        wp.log_effect(wp.read_trials(tmp_path))


def test_the_effect_of_complete_pairs_may_be_impossible_for_all_items(log):
    # Of ten items five have a gap under 'cot', all of them right under 'direct'.
    direct, cot = [0] * 5 + [1] * 5, [1] * 5 + [None] * 5
    result = wp.log_effect(wp.read_trials(log("a.toy", direct, arm="direct"), log("b.toy", cot, arm="cot")))
    assert (result.estimate, result["missing"]["low"], result["missing"]["high"]) == (1.0, 0.0, 0.5)
    assert "lies between 0 and 0.500" in result.sentence


def test_items_without_both_outcomes_are_not_those_of_the_effect(log):
    cot = [1, None, None, 1, 0, 1]
    result = wp.log_effect(wp.read_trials(log("a.toy", DIRECT, arm="direct"), log("b.toy", cot, arm="cot")))
    assert any(
        text.startswith("6 of 10 items were run under both arms, and 4 have both outcomes: the effect is")
        for text in result.warnings
    )
    assert result.overall.n_treated_used == 4


@pytest.mark.parametrize("column", ["task", "subject", "model"])
def test_a_sign_that_an_average_hides_is_found_in_any_kind_of_items(tmp_path, column):
    rows = [
        {"item_id": f"{kind}{k}", column: kind, "arm": arm, "score": int((arm == better) == (k % 8 > 0))}
        for kind, better in (("law", "a"), ("math", "b"))
        for k in range(24)
        for arm in ("a", "b")
    ]
    path = tmp_path / "flip.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    result = wp.log_effect(wp.read_trials(path))
    by = {(part.by, part.label): part.estimate for part in result.parts}
    assert by == {(column, "law"): pytest.approx(-0.75), (column, "math"): pytest.approx(0.75)}
    assert f"it goes the other way in {column}=law (-0.750)" in result.sentence


def test_what_is_compressed_or_empty_is_named(tmp_path, log):
    log("a.toy", DIRECT, arm="direct")
    log("b.toy", COT, arm="cot")
    packed, empty = tmp_path / "c.toy.gz", tmp_path / "d.toy"
    packed.write_bytes(gzip.compress(b"{}"))
    empty.touch()
    (tmp_path / "notes.md").touch()
    warnings = wp.read_trials(tmp_path).warnings
    assert f"{packed} is compressed by gzip: left out" in warnings
    assert f"{empty} is empty: left out" in warnings
    assert not any("notes" in text for text in warnings)
    with pytest.raises(DataError, match=r"compressed by gzip\n  hint: unpack it first, by gzip -d"):
        wp.read_trials(packed)


def repeated(log, name, values, arm, **fields):
    """Write a log of two repeats an item."""
    path = log(name, [v[0] for v in values], arm=arm, **fields)
    content = json.loads(path.read_text())
    again = [{**one, "rep": 2} for one in content["trials"]]
    for one, (_, value) in zip(again, values, strict=True):
        one["scores"], one["error"] = {"match": value}, None if value is not None else "HTTP 429"
    content["trials"] += again
    path.write_text(json.dumps(content))
    return path


def test_a_repeat_that_failed_is_no_other_outcome(log):
    one = repeated(log, "a.toy", [(0, 0)] * 6, "direct")
    two = repeated(log, "b.toy", [(1, None)] * 3 + [(1, 1)] * 3, "cot")
    found = wp.read_trials(one, two)
    assert found.flicker == {"direct": {"cells": 6, "vary": 0}, "cot": {"cells": 3, "vary": 0}}
    assert wp.log_effect(found)["missing"]["treated"] == 3


def test_runs_of_two_models_are_not_called_repeats(log):
    def run(arm, model, scores):
        return log(f"{arm}-{model}.toy", scores, arm=arm, settings={"model": {"model": model}})

    better, worse = [1] * 10, [0] * 10
    logs = [run("direct", "m", worse), run("cot", "m", better)]
    result = wp.log_effect(
        wp.read_trials(*logs, run("direct", "n", [*better[:9], 0]), run("cot", "n", worse))
    )
    assert result.estimate == pytest.approx(0.05)
    assert {part.label: part.estimate for part in result.parts} == {"m": 1.0, "n": pytest.approx(-0.9)}
    assert "repeat" not in result.sentence + " ".join(result.warnings)


def test_texts_are_arms_by_how_they_begin_where_files_are_called_by_their_time(log):
    def run(stamp, text, scores):
        return log(f"2026-11-26T18-40-{stamp}_task.toy", scores, settings={"prompt": {"template": text}})

    long = "Think about the problem before you answer, and check the result twice."
    found = wp.read_trials(run(10, "Be brief.", DIRECT), run(11, long, COT))
    assert found.arms == ("Be brief.", f"{long[:57]}...")


def test_why_no_run_has_scores_is_told(log, tmp_path):
    log("a.toy", [{}] * 3, about={"status": "failed", "notes": ["the run ended in an error: no route"]})
    with pytest.raises(
        DataError, match=r"holds a trial with a score\n.*: the run ended in an error: no route"
    ):
        wp.read_trials(tmp_path)


def table(tmp_path, rows, name="table.csv"):
    path = tmp_path / name
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_ids_that_are_of_their_data_set_are_items_with_it(tmp_path):
    rows = [
        {"id": k, "dataset": kind, "arm": arm, "score": (k + (arm == "b") * (kind == "x")) % 2}
        for kind in ("x", "y")
        for k in range(6)
        for arm in ("a", "b")
    ]
    found = wp.read_trials(table(tmp_path, rows))
    assert found.pairing.matched == 12
    assert {"x/0", "y/0"} <= set(found.frame["item_id"])
    assert any("'id' names an item within its 'dataset': an item is both" in text for text in found.warnings)
    # A data set that goes with the arm is not part of what the arms share.
    of_arm = [{**row, "dataset": f"{row['dataset']}_{row['arm']}"} for row in rows if row["dataset"] == "x"]
    assert wp.read_trials(table(tmp_path, of_arm)).pairing.matched == 6
    # Where a table is longer than what is looked at, a data set under both arms is enough.
    long = [{"id": k, "dataset": d, "arm": a, "score": 1} for d in "xy" for k in range(600) for a in "ab"]
    assert wp.read_trials(table(tmp_path, long)).pairing.matched == 1200


def test_a_judge_in_a_table_that_changes_with_the_arm_is_told(tmp_path):
    rows = [
        {"item_id": k, "arm": arm, "judge": judge, "score": k % 2}
        for k in range(5)
        for arm, judge in (("a", "small"), ("b", "large"))
    ]
    found = wp.read_trials(table(tmp_path, rows))
    assert found.differs["judge"] == {"judge": ("small", "large")}
    assert any("the judge differs too (judge: 'small' and 'large')" in text for text in found.warnings)


def test_a_score_beside_an_error_is_told(tmp_path):
    rows = [
        {"item_id": k, "arm": arm, "score": 0 if arm == "b" else 1, "error": "timeout" if arm == "b" else ""}
        for k in range(4)
        for arm in ("a", "b")
    ]
    warnings = wp.read_trials(table(tmp_path, rows)).warnings
    assert any("4 trials have a score under 'b' and an error too (timeout)" in text for text in warnings)


def test_a_question_with_another_answer_is_not_called_another_question(log):
    one = log("a.toy", DIRECT, arm="direct")
    two = log("b.toy", COT, arm="cot", target=["wrong", *(str(2 * k + 1) for k in range(1, 10))])
    pairing = wp.read_trials(one, two).pairing
    assert (pairing.n_targets, pairing.n_names) == (1, 0)


def test_an_arm_without_one_outcome_is_named(tmp_path):
    rows = [
        {"item_id": k, "arm": arm, "score": "" if arm == "b" else 1, "error": "boom" if arm == "b" else ""}
        for k in range(4)
        for arm in ("a", "b")
    ]
    with pytest.raises(EstimationError, match=r"no trial of 'b' has an outcome: 4 \(boom\)"):
        wp.log_effect(wp.read_trials(table(tmp_path, rows)))


def test_a_chance_that_some_rows_lack_is_named(tmp_path):
    rows = [
        {"item_id": k, "arm": "ab"[k % 2], "score": k % 3 == 0, "propensity": "" if k == 5 else 0.5}
        for k in range(30)
    ]
    with pytest.raises(EstimationError, match=r"1 trial has no logged chance.*and 29 have one"):
        wp.log_effect(wp.read_trials(table(tmp_path, rows)))
    whole = wp.log_effect(wp.read_trials(table(tmp_path, rows[:5] + rows[6:])))
    assert "score known" in whole.std_error_method


def test_a_row_of_no_arm_and_a_row_of_too_many_cells_are_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("item_id,arm,score\n1,a,1\n1,,0\n2,a,1\n2,b,0\n")
    with pytest.raises(DataError, match=r"t.csv:3: 'arm' is empty"):
        wp.read_trials(path)
    path.write_text("item_id,arm,score\n1,a,1\n1,b,0,9\n")
    with pytest.raises(DataError, match=r"t.csv:3"):
        wp.read_trials(path)
