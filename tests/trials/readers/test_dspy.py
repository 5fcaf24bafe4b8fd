"""DSPy: a file is a run, its outcome is called as the metric is."""

import json
from statistics import fmean

import pytest

from whyprompt.errors import DataError


@pytest.mark.parametrize(("arm", "mean"), [("direct", 0.625), ("cot", 0.75)])
def test_the_real_runs(shared_logs, one_log, arm, mean):
    """Eight items, .625 and .75; JSON and CSV agree."""
    log, trials = one_log("dspy", shared_logs / "dspy" / f"dspy_{arm}.json")
    assert [t.item for t in trials] == [f"gsm8k-{k}" for k in range(8)]
    assert fmean(t.scores["<lambda>"] for t in trials) == mean
    assert trials[1].question.startswith("A robe takes 2 bolts")
    assert trials[1].target == "3"
    assert log.settings == {"judge": {"metric": "<lambda>"}}
    table = one_log("dspy", shared_logs / "dspy" / f"dspy_{arm}.csv")[1]
    assert table == trials


@pytest.fixture
def written(tmp_path):
    def write(*rows):
        path = tmp_path / "run.json"
        path.write_text(json.dumps(rows))
        return path

    return write


def row(k, right):
    return {
        "question": f"q{k}",
        "example_answer": "1",
        "topic": "x",
        "pred_answer": "1",
        "exact": right,
    }


def test_a_program_that_failed_has_no_score(written, one_log):
    """DSPy writes its failure score, 0, and no prediction."""
    failed = {"question": "q1", "answer": "1", "topic": "x", "exact": 0.0}
    log, (good, bad) = one_log("dspy", written(row(0, right=True), failed))
    assert (good.scores, good.error) == ({"exact": 1.0}, None)
    assert bad.scores == {"exact": None}
    assert bad.error is not None
    assert bad.target == "1"
    # The row without a prediction tells that the topic is the example's.
    assert good.covariates == {"topic": "x"}
    assert log.notes == ()


def test_fields_that_may_be_of_the_prediction_are_left_out_and_named(written, one_log):
    log, (trial,) = one_log("dspy", written(row(0, right=1.0)))
    assert trial.covariates == {}
    assert "'topic'" in log.notes[0]


def test_what_both_sides_have_is_the_target(written, one_log):
    rows = {"text": "so so", "example_sentiment": "neutral", "pred_sentiment": "good", "f1": 0.5}
    _, (trial,) = one_log("dspy", written(rows))
    assert (trial.question, trial.target, trial.completion) == ("so so", "neutral", "good")


def test_two_metrics_in_one_file_are_refused(written, reader):
    other = {**{k: v for k, v in row(1, right=1).items() if k != "exact"}, "f1": 0.5}
    with pytest.raises(DataError, match=r"record 2: the metric, its last field, is 'f1'"):
        list(reader("dspy").read(written(row(0, right=1), other)))


def test_a_score_that_is_none_is_named(written, one_log):
    with pytest.raises(DataError, match="record 1: 'exact' is 'fine', which is no score"):
        one_log("dspy", written(row(0, right="fine")))
