"""OpenAI evals: events of samples, mixed as they came. The files are made by hand."""

import json

import pytest

from whyprompt.errors import DataError

SPEC = {
    "completion_fns": ["gpt-3.5-turbo"],
    "eval_name": "test-match.s1.simple-v0",
    "split": "s1",
    "run_config": {
        "eval_spec": {"cls": "evals.elsuite.basic.match:Match", "args": {"samples_jsonl": "s.jsonl"}},
        "seed": 20220722,
    },
    "run_id": "R",
    "created_at": "2023-04-17 22:08:21",
}


def event(kind, sample, **data):
    return {"run_id": "R", "event_id": 0, "sample_id": f"t.{sample}", "type": kind, "data": data}


def sampled(sample):
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"q{sample}"}]
    return event("sampling", sample, prompt=prompt, sampled=["a"])


@pytest.fixture
def written(tmp_path):
    def write(*events, report=None):
        lines = [{"spec": SPEC}, *([{"final_report": report}] if report else []), *events]
        path = tmp_path / "run.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return write


def test_matches_of_mixed_samples_make_the_stated_accuracy(written, one_log, recomputed):
    """The report may stand before the events; a sample that failed has no score, and is none of its mean."""
    rights = (True, False, True)
    events = [sampled(k) for k in range(3)]
    events += [event("match", k, correct=r, expected="15", picked=None) for k, r in enumerate(rights)]
    events += [event("error", 9, type="Timeout", message="30 s")]
    log, trials = one_log("openai_evals", written(*events, report={"accuracy": 2 / 3, "boostrap_std": 0.2}))
    assert [t.scores["match"] for t in trials] == [1.0, 0.0, 1.0, None]
    assert trials[3].error == "30 s"
    assert (trials[0].item, trials[0].question, trials[0].target) == ("t.0", "q0", "15")
    assert trials[0].completion == "a"
    ((stated, mean, n),) = recomputed(log, trials)
    assert (mean, n, stated.error) == (pytest.approx(stated.mean), 3, 0.2)
    assert log.status == "complete"
    assert log.settings["model"] == {"completion_fns": "gpt-3.5-turbo"}
    assert log.settings["seed"] == {"run_config.seed": 20220722}


def test_metrics_are_scorers_by_name_and_a_judges_sampling_is_not_the_answer(written, one_log, recomputed):
    events = [
        event("sampling", 0, prompt="Say 2", sampled="2"),
        event("sampling", 0, prompt="Is 2 right?", sampled="Y"),
        event("metrics", 0, choice="Y", score=1.0, f1=None),
    ]
    log, (trial,) = one_log("openai_evals", written(*events, report={"score": 1.0, "counts/choice/Y": 1}))
    assert trial.scores == {"score": 1.0, "f1": None}
    assert (trial.prompt, trial.completion) == ("Say 2", "2")
    assert [mean for _, mean, _ in recomputed(log, [trial])] == [1.0]


def test_a_run_without_a_report_does_not_say_that_it_ended(written, one_log):
    log, _ = one_log("openai_evals", written(event("match", 0, correct=True)))
    assert log.status == ""


def test_a_sample_scored_twice_is_repeated_and_said_to_be(written, one_log):
    log, trials = one_log("openai_evals", written(*(event("match", 0, correct=r) for r in (True, False))))
    assert [(t.rep, t.scores["match"]) for t in trials] == [(1, 1.0), (2, 0.0)]
    assert "scored more than once" in log.notes[0]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([sampled(0)], "it scores nothing"),
        ([event("match", 0, correct="perhaps")], r"run\.jsonl:2: 'correct' is 'perhaps'"),
        ([{"a": 1}], r"run\.jsonl:2: is no event"),
        ([event("match", 0, correct=True) | {"run_id": "S"}], "events of 2 runs: R, S"),
    ],
)
def test_what_contradicts_is_named(written, one_log, events, message):
    with pytest.raises(DataError, match=message):
        one_log("openai_evals", written(*events))


def test_a_half_written_line_is_named(written, one_log):
    path = written(event("match", 0, correct=True))
    path.write_text(path.read_text() + '{"run_id": "R", "sam')
    with pytest.raises(DataError, match=r"run\.jsonl:3: not JSON"):
        one_log("openai_evals", path)
