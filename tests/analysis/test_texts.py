"""How much of an effect is the text's length or format: its measures, and what a table or a log says."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from whyprompt import paired_mediation, read_trials, text_mediation
from whyprompt.errors import DataError, EstimationError
from whyprompt.trials.outcomes.features import FEATURES, chain_of, measure

TEXTS = {
    "7": {"chars": 1, "words": 1, "lines": 1, "chain_words": 0},
    "": {"chars": 0, "words": 0, "lines": 0, "json": 0},
    "So 3 + 4.\n\nThe answer is 7": {"words": 8, "lines": 2, "chain_words": 5},
    "1. a\n2. b": {"list": 1, "json": 0, "words": 4},
    "- one": {"list": 0},
    '{"answer": 7}': {"json": 1, "list": 0},
    "```json\n[1, 2]\n```": {"json": 1, "code": 1},
    '"text"': {"json": 0},
    "I'm sorry, I can't help.": {"refuses": 1},
    "I’m unable to say": {"refuses": 1},
    "x " * 150 + "I cannot": {"refuses": 0},
    "<think>one two three</think> 4": {"chain_words": 3, "chain_chars": 13, "words": 4},
    "A: b #### 7": {"chain_words": 2},
}


@pytest.mark.parametrize("text", TEXTS)
def test_each_measure_is_what_one_counts_by_hand(text):
    for name, value in TEXTS[text].items():
        assert measure([text], name).tolist() == [value], name
    assert measure([text], "log_words")[0] == pytest.approx(math.log(1 + len(text.split())))


def test_every_measure_is_a_finite_number_of_any_text():
    odd = ["", " ", "\n\n", "\x00", "[" * 5000, "<think>", "<think></think>", "#### ####", "answer is"]
    for name in (*FEATURES, "marker:x"):
        assert np.isfinite(measure(odd, name)).all(), name
    assert chain_of("Answer: a. But no, the answer is b") == "Answer: a. But no, the"


def test_an_unknown_measure_is_named():
    with pytest.raises(DataError, match=r"no feature .wordz.*words"):
        measure(["a"], "wordz")


def make(n=40, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(n):
        for arm, base in (("direct", 5), ("cot", 15)):
            words = int(base + rng.integers(0, 12))
            text = " ".join(["so"] * words) + (". The answer is 7" if rng.random() < 0.5 else "")
            score = 0.05 * len(text.split()) + 0.2 * (arm == "cot") - (k % 5) + 0.1 * rng.normal()
            rows.append({"item_id": f"q{k:02d}", "arm": arm, "completion": text, "score": score})
    return pd.DataFrame(rows)


ASKED = {"outcome": "score", "treated": "cot", "control": "direct", "draws": 50}


def test_a_tables_texts_are_measured_and_handed_on():
    frame = make()
    found = text_mediation(frame, ["words", "marker:answer is"], **ASKED)
    by_hand = frame.assign(
        w=frame["completion"].str.split().str.len(),
        m=frame["completion"].str.contains("answer is").astype(float),
    )
    same = paired_mediation(
        by_hand, treatment="arm", item="item_id", mediators={"words": "w", "marker:answer is": "m"}, **ASKED
    )
    assert [p.estimate for p in found.parts] == [p.estimate for p in same.parts]
    assert [p.by for p in found.parts] == [p.by for p in same.parts]


def test_length_is_a_curve_of_the_words_and_what_is_asked_where_nothing_is_named():
    frame = make()
    found = text_mediation(frame, **ASKED)
    same = text_mediation(frame, {"length": ["words", "log_words"]}, **ASKED)
    assert found.sentence == same.sentence
    assert found["mediators"] == ("length",)
    own = text_mediation(frame.assign(length=frame["completion"].str.len() * 1.0), "length", **ASKED)
    assert own.part("nie").estimate == text_mediation(frame, "chars", **ASKED).part("nie").estimate


def test_a_text_that_is_missing_takes_its_item_out_and_is_counted():
    frame = make()
    frame.loc[[0, 7], "completion"] = None
    frame.loc[20, "score"] = np.nan
    found = text_mediation(frame, "words", **ASKED)
    assert (found["incomplete"], found["items"]) == (3, 37)
    assert "3 items with a text or an outcome missing under an arm left out" in found.sentence
    whole = text_mediation(frame[~frame["item_id"].isin(["q00", "q03", "q10"])], "words", **ASKED)
    assert whole.part("nie").estimate == found.part("nie").estimate


def test_tokens_are_the_tables_own_count_and_a_column_may_be_a_mediator():
    frame = make()
    frame["completion_tokens"] = 2 * frame["completion"].str.split().str.len() + 1
    by = {name: text_mediation(frame, name, **ASKED).part("nie").estimate for name in ("words", "tokens")}
    assert by["tokens"] == pytest.approx(by["words"], abs=1e-9)
    assert text_mediation(frame, "completion_tokens", **ASKED).part("nie").estimate == by["tokens"]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda f: f, {"mediators": "tone"}, "neither a column of the table nor a feature"),
        (lambda f: f, {"mediators": "tokens"}, "neither a column"),
        (lambda f: f, {"mediators": "json"}, "'json' is 0 in every row"),
        (lambda f: f.drop(columns="completion"), {}, "no column 'completion'"),
        (lambda f: f, {"text": "reply"}, "no column 'reply'"),
        (lambda f: f.assign(completion=None), {}, "every item lacks a text"),
        (lambda f: f, {"outcome": "scores"}, "did you mean 'score'"),
        (lambda f: f, {"outcome": None}, "does not say its outcome"),
        (lambda f: f, {"treated": "b", "control": "c"}, "no rows of 'c' or 'b'"),
        (lambda f: f, {"treated": "b"}, "holds no 'b'"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(change, options, message):
    asked = {**ASKED, "mediators": "words", **options}
    with pytest.raises(DataError, match=message):
        text_mediation(change(make()), **asked)


def test_a_format_that_is_the_arm_itself_is_refused():
    frame = make()
    cot = frame["arm"] == "cot"
    frame.loc[cot, "completion"] = [json.dumps({"steps": t}) for t in frame.loc[cot, "completion"]]
    with pytest.raises(EstimationError, match="'json' is the arm itself, 0 under direct and 1 under cot"):
        text_mediation(frame, ["words", "json"], **ASKED)


def test_real_logs_are_answered_with_the_arms_that_they_name(shared_logs):
    found = text_mediation(
        read_trials(*sorted((shared_logs / "lm_eval").glob("samples*"))), "words", draws=100
    )
    assert found["items"] == 30
    assert abs(found.estimate) == pytest.approx(7 / 30)
    assert "extrapolates" in found.sentence
    assert found.part("pure_nie").estimate is None or found.part("nie").estimate is None
