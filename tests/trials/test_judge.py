"""A judge as an outcome: what it reads, what its verdicts are worth, and how far it agrees with labels."""

import sys
import textwrap

import numpy as np
import pytest
from pydantic import ValidationError

from whyprompt import agreement, load_model, load_trials, run_study, study_effect
from whyprompt.errors import ModelError, StudyError
from whyprompt.study import OutcomeSettings, load_study
from whyprompt.trials.items.item import Item
from whyprompt.trials.outcomes import judge as judges
from whyprompt.trials.outcomes.score import any_reads, check_outcomes, score_outcomes

ITEM = Item(item_id="a", question="What is 3 plus 4?", answer="7", task_type="sum")

JUDGE = """
import random
heard = []
def right(text):
    heard.append(text)
    reply = text.split("Response:")[1].split("Does the")[0]
    return "I say: Yes." if "7" in reply else "No, it is not."
def lazy(text):
    heard.append(text)
    return ["yes", "hm", "no"][len(heard) % 3]
def mute(text):
    return "well"
"""


@pytest.fixture
def module(monkeypatch, tmp_path):
    (tmp_path / "my_judges.py").write_text(JUDGE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_judges", raising=False)
    import my_judges

    return my_judges


def verdict(completion, where="arm 'secret', item 'a'", **judge):
    outcome = OutcomeSettings(name="helpful", judge=judge)
    check_outcomes([outcome], [ITEM])
    found = score_outcomes([outcome], ITEM, completion=completion, where=where)
    return found.values["helpful"], found.extracted["helpful"]


@pytest.mark.usefixtures("module")
def test_a_function_judges_by_its_words():
    assert verdict("It is 7", call="my_judges:right") == (1.0, "yes")
    assert verdict("It is 8", call="my_judges:right") == (0.0, "no")
    worth = {"yes": 5, "no": -1}
    assert verdict("It is 8", call="my_judges:right", verdicts=worth) == (-1.0, "no")
    assert any_reads([OutcomeSettings(name="h", judge={"call": "my_judges:right"})], "completion")


def test_replies_without_a_verdict_are_left_out_and_shown(module):
    module.heard.clear()
    value, said = verdict("x", call="my_judges:lazy", reps=6)
    assert said == "?, no, yes, ?, no, yes"
    assert value == 0.5
    with pytest.raises(StudyError, match=r"reply on arm 'x' holds no verdict: 'well'"):
        verdict("x", where="arm 'x'", call="my_judges:mute")


def test_of_two_verdicts_in_a_reply_the_last_is_meant_and_the_longer_where_one_holds_the_other():
    settings = OutcomeSettings(
        name="h",
        judge={
            "call": "a:b",
            "verdicts": {"correct": 1, "not correct": 0},
            "prompt": "{{ completion }} correct, not correct",
        },
    ).judge
    assert judges.read_verdict("It is not correct.", settings) == "not correct"
    assert judges.read_verdict("not correct? No: Correct", settings) == "correct"
    assert judges.read_verdict("incorrect", settings) == "?"


def test_the_judge_is_blind_to_the_arm(module, tmp_path, tiny_model, items_writer):
    items_writer(tmp_path / "items.jsonl")
    (tmp_path / "s.yaml").write_text(
        textwrap.dedent(
            f"""\
            name: s
            question: What does it do?
            model: {{name: "{tiny_model}", device: cpu, threads: 1}}
            items: [{{source: file, path: items.jsonl, size: 6, shot_pool: 4, columns: {{item_id: id}}}}]
            arms:
              zebra_arm: {{kind: direct, system: "quokka words"}}
              walrus_arm: {{kind: direct, instruction: "narwhal words"}}
            outcomes: [string_match, {{name: good, judge: {{call: "my_judges:right", labels: string_match}}}}]
            effect: {{outcome: good}}
            generation: {{max_new_tokens: 4}}
            """
        ),
        encoding="utf-8",
    )
    module.heard.clear()
    study = load_study(tmp_path / "s.yaml")
    result = run_study(study, tmp_path / "out")
    assert len(module.heard) == 12
    for text in module.heard:
        assert not any(word in text for word in ("zebra", "walrus", "quokka", "narwhal", "arm"))
    frame = load_trials(study, tmp_path / "out")
    assert set(frame["good_extracted"]) <= {"yes", "no"}
    told = [text for text in result.notices if "against its labels" in text]
    assert len(told) == 1
    assert told == [w for w in study_effect(study, frame).main.warnings if "against its labels" in w]


def test_a_local_model_judges_by_the_probabilities_of_its_verdicts(tiny_model):
    lm = load_model(str(tiny_model), threads=1)
    text = judges.filled(
        judges.compiled(OutcomeSettings(name="h", judge={"model": "m"}).judge.prompt),
        {"question": ITEM.question, "answer": "7", "completion": "It is 7"},
    )
    import torch

    sums = {}
    for word in ("yes", "no"):
        head = lm.codec.chat([{"role": "user", "content": text.strip()}])
        ids = lm.codec.tokenizer(head + word, add_special_tokens=False).input_ids
        start = len(lm.codec.tokenizer(head, add_special_tokens=False).input_ids)
        with torch.inference_mode():
            logs = torch.log_softmax(lm.model(torch.tensor([ids])).logits[0].double(), -1)
        sums[word] = sum(logs[k - 1, ids[k]].item() for k in range(start, len(ids)))
    likeliest = max(sums, key=sums.get)
    assert verdict("It is 7", model=str(tiny_model)) == (float(likeliest == "yes"), likeliest)
    # At a temperature, the mean of many draws is the share of the verdict among the verdicts.
    heat, n = 4.0, 400
    share = 1 / (1 + np.exp((sums["no"] - sums["yes"]) / heat))
    value, said = verdict("It is 7", model=str(tiny_model), temperature=heat, reps=n)
    assert len(said.split(", ")) == n
    assert abs(value - share) < 4 * np.sqrt(share * (1 - share) / n)
    # The same text of the same item is judged alike under every arm, and another one with draws of its own.
    again = verdict("It is 7", "arm 'other', item 'a'", model=str(tiny_model), temperature=heat, reps=n)
    assert again == (value, said)
    assert verdict("It is 8", model=str(tiny_model), temperature=heat, reps=n)[1] != said


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"judge": {}}, "one of 'model' and 'call'"),
        ({"judge": {"model": "m", "call": "a:b"}}, "one of 'model' and 'call'"),
        ({"judge": {"model": "m", "reps": 3}}, "at temperature 0 every repetition is the same"),
        ({"judge": {"call": "a:b", "temperature": 1.0}}, "temperature is a model's"),
        ({"judge": {"call": "a:b", "verdicts": {"yes": 1.0}}}, "at least 2"),
        ({"judge": {"call": "a:b"}, "call": "a:b"}, "takes no call, needs or options"),
        ({"judge": {"call": "a:b"}, "name": "string_match"}, "a built-in outcome: give the judge's a name"),
    ],
)
def test_malformed_judges_are_refused_when_a_study_is_read(settings, match):
    with pytest.raises(ValidationError, match=match):
        OutcomeSettings(**{"name": "helpful", **settings})


@pytest.mark.parametrize(
    ("judge", "kind", "match"),
    [
        (
            {"prompt": "{{ arm }} {{ completion }} yes no"},
            StudyError,
            "uses 'arm', which a judge is not shown",
        ),
        ({"prompt": "{{ question }} yes no"}, StudyError, "does not show the completion"),
        ({"prompt": "{{ completion }} yes"}, StudyError, "does not name the verdict 'no'"),
        ({"prompt": "{{ completion"}, StudyError, "is malformed at line 1"),
        ({"call": None, "model": "/absent/folder"}, ModelError, "no such model folder"),
        ({"call": "no_such:thing"}, StudyError, "cannot be imported"),
    ],
)
@pytest.mark.usefixtures("module")
def test_a_judge_that_cannot_be_asked_is_refused_before_anything_runs(judge, kind, match):
    settings = {"call": "my_judges:right", **judge}
    with pytest.raises(kind, match=match):
        verdict("x", **{k: v for k, v in settings.items() if v is not None})


def test_labels_are_another_outcome_of_the_study(tiny_study):
    text = tiny_study.read_text(encoding="utf-8")
    body = "outcomes: [log_prob, {name: good, judge: {call: 'a:b', labels: string_match}}]"
    tiny_study.write_text(text.replace("outcomes: [log_prob, exact_match]", body), encoding="utf-8")
    with pytest.raises(StudyError, match=r"outcomes\.1\.judge\.labels: 'string_match' is no other outcome"):
        load_study(tiny_study)
    alone = text.replace("outcomes: [log_prob, exact_match]", body.replace(", labels: string_match", ""))
    tiny_study.write_text(alone, encoding="utf-8")
    with pytest.raises(StudyError, match="imports and runs 'a:b'"):
        load_study(tiny_study, code=False)


def test_agreement_of_a_judge_with_labels_of_ones_own(module, tmp_path):  # noqa: ARG001 - its module
    import pandas as pd

    frame = pd.DataFrame(
        {"good": [1, 0, 1, 1, 0, 0], "human": [1, 0, 1, 0, None, 0], "item_id": list("aabbcc")}
    )
    found = agreement(frame, "good", "human", cluster="item_id")
    assert found.overall.n_used == 5
