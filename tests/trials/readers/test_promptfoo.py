"""promptfoo: one run in its three files, cell by cell; repeats, errors, older layouts, damage."""

import json
from collections import defaultdict
from statistics import fmean, stdev

import pytest

from whyprompt.errors import DataError


def cell(trial):
    return trial.item, trial.settings["prompt"]["prompt.label"], trial.rep


def by_cell(trials):
    found = {cell(trial): trial for trial in trials}
    assert len(found) == len(trials)
    return found


@pytest.mark.parametrize("name", ["small.json", "small.jsonl", "small.csv"])
def test_the_real_run(shared_logs, one_log, recomputed, name):
    """The answers by hand: .50 and .75 on 8 items of 2 repeats, the difference .25 with an error of .25."""
    log, trials = one_log("promptfoo", shared_logs / "promptfoo" / name)
    of = defaultdict(lambda: defaultdict(list))
    for (item, label, _), trial in by_cell(trials).items():
        of[label][item].append(trial.scores["exact"])
        assert trial.scores["exact"] == trial.scores["score"] == trial.scores["success"]
    assert {len(reps) for items in of.values() for reps in items.values()} == {2}
    assert {label: fmean(map(fmean, items.values())) for label, items in of.items()} == {
        "direct": 0.5,
        "cot": 0.75,
    }
    gains = [fmean(of["cot"][item]) - fmean(of["direct"][item]) for item in of["direct"]]
    assert len(gains) == 8
    assert fmean(gains) == 0.25
    assert stdev(gains) / 8**0.5 == pytest.approx(0.25)
    # Trap 3: the repeats are copies.
    assert all(len(set(reps)) == 1 for items in of.values() for reps in items.values())
    for stated, mean, n in recomputed(log, trials):
        assert (mean, n) == (pytest.approx(stated.mean), stated.n)


def test_the_three_files_of_one_run_agree_cell_by_cell(shared_logs, one_log):
    files = ("small.json", "small.jsonl", "small.csv")
    json_, lines, table = (by_cell(one_log("promptfoo", shared_logs / "promptfoo" / f)[1]) for f in files)
    assert json_.keys() == lines.keys() == table.keys()
    assert len(json_) == 32
    for key, trial in json_.items():
        for other in (lines[key], table[key]):
            assert (other.question, other.target, other.scores, other.error) == (
                trial.question,
                trial.target,
                trial.scores,
                trial.error,
            )
            assert other.completion == trial.completion
        assert lines[key].prompt == trial.prompt
        assert lines[key].prompt_tokens == trial.prompt_tokens


def test_what_the_json_tells_beside(shared_logs, one_log, recomputed):
    log, trials = one_log("promptfoo", shared_logs / "promptfoo" / "small.json")
    assert (log.format, log.version) == ("promptfoo", "0.123.1")
    assert log.settings["judge"] == {"assert": "javascript exact"}
    first = trials[0]
    assert first.settings["prompt"]["prompt.raw"] == "{{question}}\n\nAnswer with a number only."
    assert first.settings["model"]["provider.id"] == "openai:chat:mock-1"
    assert first.settings["sampling"] == {"config.temperature": 0}
    assert (first.prompt_tokens, first.completion_tokens, first.latency_s) == (77, 1, 0.018)
    assert first.covariates == {"n_steps": 2}
    assert "apiKey" not in str(log.settings) + str(first.settings)
    assert len(list(recomputed(log, trials))) == 6
    assert list(log.trials()) == trials  # from the start again


def test_a_run_without_names_or_metrics(shared_logs, one_log, recomputed):
    log, trials = one_log("promptfoo", shared_logs / "promptfoo" / "echo.json")
    assert len(by_cell(trials)) == 4
    assert len({t.item for t in trials}) == 2
    assert {t.question for t in trials} == {"What is 2+2?", "Capital of Peru?"}
    checked = list(recomputed(log, trials))
    assert len(checked) == 4
    assert all(mean == stated.mean for stated, mean, _ in checked)


def test_a_failed_assertion_is_no_error_of_the_trial(shared_logs, one_log):
    """Trap 10: `error` is filled where an assertion fails."""
    _, trials = one_log("promptfoo", shared_logs / "promptfoo" / "small.json")
    assert sum(t.scores["exact"] == 0 for t in trials) == 12
    assert all(t.error is None for t in trials)


def result(**changes):
    row = {
        "vars": {"question": "1 + 1?", "answer": "2"},
        "prompt": {"raw": "1 + 1? Brief.", "label": "brief"},
        "promptIdx": 0,
        "testIdx": 0,
        "provider": {"id": "openai:m"},
        "success": True,
        "score": 1,
        "namedScores": {"exact": 1},
        "testCase": {"assert": [{"type": "equals", "metric": "exact"}]},
        "gradingResult": {"pass": True, "score": 1},
    }
    return row | changes


@pytest.fixture
def written(tmp_path):
    def write(*rows, name="results.jsonl", **document):
        path = tmp_path / name
        if document:
            path.write_text(json.dumps(document))
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_a_trial_that_went_wrong_has_no_score_and_a_reason(written, one_log):
    wrong = result(failureReason=2, success=False, score=0, namedScores={}, error="API error: 429", testIdx=1)
    _, (good, bad) = one_log("promptfoo", written(result(failureReason=0), wrong))
    assert good.error is None
    assert bad.error == "API error: 429"
    assert bad.scores == {"score": None, "success": None, "exact": None}


def test_in_older_results_what_was_not_graded_went_wrong(written, one_log):
    """Layouts before `failureReason`: an error without a grade."""
    failed = result(success=False, score=0, error="expected 2", gradingResult={"pass": False, "score": 0})
    wrong = result(success=False, score=0, error="timeout", gradingResult=None)
    _, (first, second) = one_log("promptfoo", written(failed, wrong))
    assert (first.error, first.scores["success"]) == (None, 0.0)
    assert (second.error, second.scores["success"]) == ("timeout", None)


def old_layout(version):
    rows = [
        {
            "provider": {"id": "openai:m"},
            "prompt": {"raw": f"{q} {label}", "label": label},
            "vars": {"question": q},
            "response": {"output": "2"},
            "success": right,
            "score": float(right),
            "latencyMs": 5,
        }
        for q, rights in (("1 + 1?", (True, False)), ("2 + 2?", (False, False)), ("1 + 1?", (True, True)))
        for label, right in zip(("a", "b"), rights, strict=True)
    ]
    prompts = [
        {"label": label, "provider": "openai:m", "raw": f"{{{{question}}}} {label}", "metrics": metrics}
        for label, metrics in (
            ("a", {"score": 2, "testPassCount": 2, "testFailCount": 1}),
            ("b", {"score": 1, "testPassCount": 1, "testFailCount": 2}),
        )
    ]
    return {"version": version, "results": rows, "table": {"head": {"prompts": prompts}}, "stats": {}}


@pytest.mark.parametrize("version", [2, 4])
def test_other_layouts_of_the_results(written, reader, one_log, recomputed, version):
    """Version 2 keeps its prompts in a table, numbers no test, and may stand without a wrapper."""
    layout = old_layout(version)
    if version == 4:
        layout["prompts"] = layout.pop("table")["head"]["prompts"]
    path = written(name="r.json", results=layout, config={}, evalId="e")
    log, trials = one_log("promptfoo", path)
    bare = written(name="summary.json", **layout)  # what `promptfoo.evaluate` gives back
    assert reader("promptfoo").sniff(bare, bare.read_bytes()) > 0.9
    assert one_log("promptfoo", bare)[1] == trials
    assert log.version == f"results {version}"
    assert sorted((t.question, t.settings["prompt"]["prompt.label"], t.rep) for t in trials) == [
        ("1 + 1?", "a", 1),
        ("1 + 1?", "a", 2),
        ("1 + 1?", "b", 1),
        ("1 + 1?", "b", 2),
        ("2 + 2?", "a", 1),
        ("2 + 2?", "b", 1),
    ]
    checked = [(mean, n) for _, mean, n in recomputed(log, trials)]
    assert checked == [(2 / 3, 3)] * 2 + [(1 / 3, 3)] * 2
    assert [s.mean for s in log.stated] == [m for m, _ in checked]
    assert list(log.trials()) == trials


def test_a_description_of_many_tests_names_none(written, one_log):
    rows = [
        result(vars={"question": q}, testIdx=k, testCase={"description": "arithmetic"})
        for k, q in enumerate(("1 + 1?", "2 + 2?"))
    ]
    log, trials = one_log("promptfoo", written(*rows))
    assert {t.rep for t in trials} == {1}
    assert len({t.item for t in trials} - {"arithmetic"}) == 2
    assert "names" in log.notes[0] or "name" in log.notes[0]


def test_variables_that_tell_tests_of_one_question_apart_are_part_of_it(written, one_log):
    rows = [result(vars={"question": "1 + 1?", "style": s}, testIdx=k) for k, s in enumerate("ab")]
    _, trials = one_log("promptfoo", written(*rows))
    assert len({t.question for t in trials}) == 2
    assert {t.rep for t in trials} == {1}


def test_results_of_one_test_twice_are_one_repetition_twice(written, one_log):
    _, trials = one_log("promptfoo", written(result(), result()))
    assert [t.rep for t in trials] == [1, 1]


TABLE = (
    "question,[m] a,Status,Score,Named Scores,Grader Reason,Comment,[m] b,Status,Score,Named Scores,"
    "Grader Reason,Comment\n"
)


def test_the_table_keeps_what_a_spreadsheet_would_run(tmp_path, one_log):
    path = tmp_path / "t.csv"
    path.write_text(TABLE + "q,'=1+1,PASS,1.00,,,,,ERROR,0.00,,timeout,\n")
    _, (first, second) = one_log("promptfoo", path)
    assert first.completion == "=1+1"
    assert (second.error, second.scores) == ("timeout", {"score": None, "success": None})


def test_prompts_of_one_name_in_a_table_are_refused(tmp_path, reader):
    path = tmp_path / "t.csv"
    path.write_text(TABLE.replace("[m] b", "[m] a") + "q,x,PASS,1.00,,,,y,FAIL,0.00,,,\n")
    with pytest.raises(DataError, match="two prompts under one name"):
        list(reader("promptfoo").read(path))


def test_damage_is_named_with_its_place(written, reader, one_log, tmp_path):
    cut = tmp_path / "cut.jsonl"
    cut.write_text(json.dumps(result()) + "\n" + json.dumps(result())[:60])
    with pytest.raises(DataError, match=r"cut\.jsonl:2: not JSON.*\n.*drop the line"):
        list(reader("promptfoo").read(cut))
    with pytest.raises(DataError, match=r"results\.jsonl:2: has neither 'success' nor 'score'"):
        list(reader("promptfoo").read(written(result(), {"vars": {}})))
    with pytest.raises(DataError, match=r"results\.jsonl:1: 'exact' is 'perhaps', which is no score"):
        one_log("promptfoo", written(result(namedScores={"exact": "perhaps"})))
    with pytest.raises(DataError, match="does not hold a list of results"):
        list(reader("promptfoo").read(written(name="r.json", evalId="e", results={"results": 3})))
    with pytest.raises(DataError, match="holds no results"):
        list(reader("promptfoo").read(written(name="e.json", evalId="e", results={"results": []})))
    half = written(name="half.json", evalId="e", results={"results": [result()]})
    half.write_text(json.dumps(json.loads(half.read_text()), indent=1)[:300])
    with pytest.raises(
        DataError, match=r"half\.json:\d+: not JSON.*\n.*its end is missing, write the file anew"
    ):
        list(reader("promptfoo").read(half))
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(json.dumps(result(), ensure_ascii=False).replace("Brief", "Bréf").encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.jsonl:1: not UTF-8"):
        list(reader("promptfoo").read(latin))
    short = tmp_path / "short.csv"
    short.write_text(TABLE + "q,x,PASS\n")
    with pytest.raises(DataError, match=r"short\.csv:2: 3 fields"):
        one_log("promptfoo", short)


def test_a_chat_that_was_sent_is_read_as_it_reads(written, one_log):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?\nNow."}]
    _, (trial,) = one_log("promptfoo", written(result(prompt={"raw": json.dumps(chat), "label": "brief"})))
    assert trial.prompt == "system:\nBe brief.\n\nuser:\n1 + 1?\nNow."
