"""AlpacaEval: preferences from 1 to 2, outputs without a score. The files are made by hand."""

import json
from statistics import fmean

import pytest

from whyprompt.errors import DataError


@pytest.fixture
def written(tmp_path):
    def write(rows):
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(rows))
        return path

    return write


def judged(k, preference, **more):
    return {
        "instruction": f"Write {k}",
        "output_1": "theirs",
        "generator_1": "gpt4",
        "dataset": "koala",
        "output_2": "mine",
        "generator_2": "m_concise",
        "annotator": "weighted",
        "preference": preference,
        **more,
    }


def test_a_preference_is_the_chance_that_the_second_wins(written, one_log):
    log, trials = one_log("alpaca_eval", written([judged(k, p) for k, p in enumerate((1, 2, 1.25, 0, None))]))
    assert [t.scores["preference"] for t in trials] == [0.0, 1.0, 0.25, 0.5, None]
    assert [t.error for t in trials] == [None] * 4 + ["the judge gave no preference"]
    assert fmean(t.scores["preference"] for t in trials[:4]) == 0.4375
    assert log.settings == {"judge": {"annotator": "weighted", "generator_1": "gpt4"}}
    # A generator is a model with its prompt: the two cannot be told apart.
    assert trials[0].settings == {
        "prompt": {"generator": "m_concise"},
        "model": {"generator.model": "m_concise"},
    }
    assert (trials[0].question, trials[0].completion) == ("Write 0", "mine")
    assert trials[0].covariates == {"dataset": "koala"}


def test_judges_that_differ_in_a_file_are_a_setting_of_its_trials(written, one_log):
    log, trials = one_log("alpaca_eval", written([judged(0, 1), judged(0, 2, annotator="other")]))
    assert log.settings == {"judge": {"generator_1": "gpt4"}}
    assert [t.settings["judge"] for t in trials] == [{"annotator": "weighted"}, {"annotator": "other"}]
    assert [t.rep for t in trials] == [1, 1]


def test_outputs_alone_have_their_length_and_say_so(written, one_log):
    rows = [
        {"dataset": "koala", "instruction": f"Write {k}", "output": text, "generator": "m"}
        for k, text in enumerate(("", "größer", None))
    ]
    log, trials = one_log("alpaca_eval", written(rows))
    assert [t.scores["characters"] for t in trials] == [0.0, 6.0, None]
    assert "counted here" in log.notes[0]
    assert trials[2].error == "no output"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([judged(0, 3)], "record 1: 'preference' is 3, not between 1 and 2"),
        ([judged(0, "first")], "'preference' is 'first'"),
        ([{k: v for k, v in judged(0, 1).items() if k != "output_2"}], "record 1: has no 'output_2'"),
        ([judged(0, 1), {"instruction": "q", "output": "o", "generator": "m"}], "annotations and outputs"),
        ([judged(0, 1), 3], "record 2: a row is an object, not int"),
        ([], "no rows"),
    ],
)
def test_what_contradicts_is_named(written, one_log, rows, message):
    with pytest.raises(DataError, match=message):
        one_log("alpaca_eval", written(rows))
