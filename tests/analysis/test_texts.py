"""How much of an effect is the text's length or format: its measures, and what a table or a log says."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from whyprompt import estimate_effect, paired_mediation, read_trials, text_mediation
from whyprompt.answers.texts import answer_texts
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


def test_two_lengths_of_an_arm_bear_no_curve():
    frame = make()
    few = frame["item_id"].str[1:].astype(int) % 2 + 3 * (frame["arm"] == "cot") * (frame.index % 5)
    frame["completion"] = [" ".join(["so"] * (1 + n)) for n in few]
    found = text_mediation(frame, **ASKED)
    same = text_mediation(frame, {"length": ["words"]}, **ASKED)
    assert (found["mediators"], found.sentence) == (("length",), same.sentence)
    with pytest.raises(EstimationError, match="all but a function of the other columns"):
        text_mediation(frame, {"length": ["words", "log_words"]}, **ASKED)


def test_any_frame_will_do_and_its_columns_may_be_named():
    polars = pytest.importorskip("polars")
    frame = make()
    found = text_mediation(frame, **ASKED)
    other = polars.from_pandas(
        frame.rename(columns={"arm": "variant", "item_id": "who", "completion": "said"})
    )
    same = text_mediation(other, treatment="variant", item="who", text="said", **ASKED)
    assert [row.estimate for row in same.parts] == [row.estimate for row in found.parts]


def test_arms_that_are_numbers_are_named_as_they_are_written():
    frame = make()
    numbers = frame.assign(arm=(frame["arm"] == "cot").astype(float))
    found = text_mediation(numbers, outcome="score", treated="1", control="0", draws=50)
    assert found.part("nie").estimate == text_mediation(frame, **ASKED).part("nie").estimate


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


ARMS = {"treatment": "arm", "outcome": "score", "treated": "cot", "control": "direct"}


def paired(frame):
    return estimate_effect(frame, **ARMS, design="paired")


def test_what_a_page_says_of_answers_is_the_analysis_of_their_length():
    frame = make()
    effect = paired(frame)
    found, why = answer_texts(frame, effect)
    same = text_mediation(frame, outcome="score", treated="cot", control="direct")
    assert (why, found.sentence, found["mediators"]) == ("", same.sentence, ("length",))
    assert found.parts == same.parts
    # A format that often differs under both arms stands beside it, a rare one does not.
    flags = frame["completion"].where(np.arange(len(frame)) % 7 > 2, "- " + frame["completion"] + "\n- so")
    found, why = answer_texts(frame.assign(completion=flags), effect)
    assert (why, found["mediators"]) == ("", ("length", "format"))
    rare = frame["completion"].where(np.arange(len(frame)) > 3, "- " + frame["completion"] + "\n- so")
    assert answer_texts(frame.assign(completion=rare), effect)[0]["mediators"] == ("length",)
    templates = frame.assign(cluster=[f"t{int(name[1:]) // 4}" for name in frame["item_id"]])
    assert answer_texts(templates, effect, cluster="cluster")[0]["units"] == 10


def test_what_a_page_cannot_say_of_answers_has_its_reason():
    frame = make()
    effect = paired(frame)
    far = frame.assign(completion=frame["completion"].where(frame["arm"] == "cot", "a"))
    found, why = answer_texts(far, effect)
    assert found is None
    assert re.match(
        r"the words of an answer are 1 under 'direct' and \d+ to \d+ under 'cot', and hardly any", why
    )
    one = frame.assign(completion=np.where(frame["arm"] == "cot", "a b", "a"))
    assert "is the arm itself, 1 under direct and 2 under cot" in answer_texts(one, effect)[1]
    # Where it does not apply nothing is said.
    for changed in (
        frame.drop(columns="completion"),
        frame.assign(completion=None),
        frame.assign(completion="a b"),
    ):
        assert answer_texts(changed, effect) == (None, "")
    rows = estimate_effect(frame, **ARMS, method="naive", cluster="none")
    assert rows.items is None
    assert answer_texts(frame, rows) == (None, "")


def test_an_effect_on_a_chance_that_no_chance_can_have_is_told():
    frame = make()
    frame["score"] = ((frame["arm"] == "cot") ^ (np.arange(len(frame)) % 3 == 0)).astype(float)
    near = {"direct": 0, "cot": 30}
    frame["completion"] = [
        " ".join(["so"] * (1 + near[arm] + int(score) * (arm == "cot") + k % 2))
        for k, (arm, score) in enumerate(zip(frame["arm"], frame["score"], strict=True))
    ]
    found = text_mediation(frame, "words", **ASKED)
    assert abs(found.part("nie").estimate) > 1
    said = f"so that no effect is beyond 1, and nie by words is {found.part('nie').estimate:.1f}"
    assert said in found.sentence
    assert not any("beyond 1" in text for text in text_mediation(make(), "words", **ASKED).warnings)


@pytest.mark.parametrize("same", [True, False])
def test_the_same_prompts_under_both_arms_are_said_to_be_noise(tmp_path, same):
    frame = make().rename(columns={"arm": "variant"})
    frame["prompt"] = "What is " + frame["item_id"] + ("" if same else frame["variant"])
    frame.to_csv(tmp_path / "log.csv", index=False)
    found = text_mediation(read_trials(tmp_path / "log.csv"), "words", **ASKED)
    assert ("Both arms were sent the same prompts" in found.sentence) == same


def test_real_logs_are_answered_with_the_arms_that_they_name(shared_logs):
    found = text_mediation(
        read_trials(*sorted((shared_logs / "lm_eval").glob("samples*"))), "words", draws=100
    )
    assert found["items"] == 30
    assert abs(found.estimate) == pytest.approx(7 / 30)
    assert "extrapolates" in found.sentence
    assert found.part("pure_nie").estimate is None or found.part("nie").estimate is None
