"""The data of the two examples: which source was read, what was left out, what was saved."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from whyprompt.errors import DataError
from whyprompt.examples.prepare import prepare_example1, prepare_example2
from whyprompt.study import FileSource
from whyprompt.trials.items.files import from_file
from whyprompt.trials.items.item import normalised_question


def shared(*parts):
    """Give a path in the shared data folder, or skip."""
    folder = os.environ.get("WHYPROMPT_SHARED")
    root = Path(folder) if folder else Path(__file__).parents[3] / "shared"
    path = root.joinpath("data", *parts)
    if not path.exists():
        pytest.skip(
            f"no {'/'.join(parts)} beside the repository; set WHYPROMPT_SHARED to a folder that has it"
        )
    return path


@pytest.fixture
def hub(monkeypatch):
    """A hub that holds what a test puts there, and fails otherwise as the real one does offline."""
    import datasets

    held = {}
    asked = []

    def load_dataset(name, config=None, *, split, **_options):
        asked.append((name, config, split))
        if (name, config) not in held:
            raise ConnectionError(f"Couldn't reach '{name}' on the Hub")
        return held[name, config]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    held["asked"] = asked
    return held


def task_file(folder, name, instances, examples=()):
    content = {
        "Definition": ["Name the capital."],
        "Positive Examples": [{"input": i, "output": o} for i, o in examples],
        "Instances": [{"id": f"{name}-{n}", "input": i, "output": [o]} for n, (i, o) in enumerate(instances)],
    }
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def test_a_failed_hub_is_named_and_so_is_the_fallback(hub, tmp_path):
    data = prepare_example1(tmp_path, size=3, examples=1)
    assert data.generated
    assert data.kind == "reasoning_gym"
    first, second, third = data.notices
    assert "Muennighoff/natural-instructions" in first
    assert "Couldn't reach" in first
    assert "bigscience/P3" in second
    assert third.startswith("fallback taken: generated")
    assert "GENERATED" in data.sentence
    assert [a[0] for a in hub["asked"]] == ["Muennighoff/natural-instructions", "bigscience/P3"]


def test_natural_instructions_come_from_the_hub_by_name(hub, tmp_path):
    hub["Muennighoff/natural-instructions", None] = [
        {
            "task_name": f"task{k}",
            "id": f"task{k}-{n}",
            "definition": "Add.",
            "inputs": f"{n} + {k}",
            "targets": str(n + k),
        }
        for k in (1, 2)
        for n in range(6)
    ]
    data = prepare_example1(tmp_path, size=4, examples=2)
    assert (data.kind, data.generated, data.notices) == ("natural_instructions", False, ())
    assert data.frame["task_type"].value_counts().to_dict() == {"task1": 4, "task2": 4}
    assert len(data.examples) == 4
    slices = hub["asked"][0][2].split("+")
    assert len(slices) == 10
    assert slices[0] == "test[5%:6%]"


def test_p3_stands_in_for_natural_instructions_and_says_so(hub, tmp_path):
    for config in (
        "ag_news_classify",
        "super_glue_copa_choose",
        "super_glue_rte_does_it_follow_that",
        "trec_what_category_best_describe",
    ):
        hub["bigscience/P3", config] = [
            {"inputs_pretokenized": f"{config} {n}", "targets_pretokenized": " Yes\n"} for n in range(3)
        ]
    data = prepare_example1(tmp_path, size=2, examples=1)
    assert (data.kind, data.generated) == ("p3", False)
    assert data.notices[-1] == "fallback taken: P3 (bigscience/P3)"
    assert set(data.frame["task_type"]) == {"ag_news", "copa", "rte", "trec"}
    assert set(data.frame["answer"]) == {"Yes"}


def test_gsm8k_comes_from_the_hub_by_name_else_it_is_generated(hub, tmp_path):
    fallback = prepare_example2(tmp_path, size=3, examples=1)
    assert fallback.generated
    assert "openai/gsm8k" in fallback.notices[0]
    assert fallback.frame["solution"].str.len().min() > 0
    hub["openai/gsm8k", "main"] = [
        {"question": f"How much is {n} and 1?", "answer": f"<<{n}+1={n + 1}>>{n + 1}\n#### {n + 1}"}
        for n in range(5)
    ]
    data = prepare_example2(tmp_path, size=3, examples=2)
    assert (data.kind, data.generated, data.notices) == ("gsm8k", False, ())
    assert hub["asked"][-1] == ("openai/gsm8k", "main", "test")


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("prepare", "source"),
    [(prepare_example1, "someone/tasks"), (prepare_example2, "someone/problems")],
)
def test_a_source_asked_for_by_name_is_never_replaced(tmp_path, prepare, source):
    with pytest.raises(DataError, match=source):
        prepare(tmp_path, source=source)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("copied", [False, True])
def test_a_hub_out_of_reach_is_not_waited_for_but_its_copy_here_is_read(monkeypatch, tmp_path, copied):
    """The client of the hub asks six times, half a minute for each name, before it gives up."""
    import datasets
    from huggingface_hub import constants

    modes = []

    def load_dataset(name, *_arguments, **_options):
        modes.append((constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE))
        if not copied:
            raise ConnectionError(f"Couldn't reach '{name}' on the Hub")
        return [{"question": f"How much is {n} and 1?", "answer": f"#### {n + 1}"} for n in range(5)]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    # Nothing listens there.
    monkeypatch.setattr(constants, "ENDPOINT", "http://localhost:1")
    data = prepare_example2(tmp_path, size=3, examples=1)
    assert modes == [(True, True)]
    assert (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE) == (False, False)
    assert data.kind == ("gsm8k" if copied else "reasoning_gym")
    if not copied:
        said = data.notices[0]
        assert "http://localhost:1 cannot be reached, and no copy of 'openai/gsm8k' is here" in said


@pytest.mark.parametrize("source", ["./tasks", "/no/such/folder", "a/b/c", "tasks.json", "~/nothing-here"])
def test_a_path_that_is_not_there_is_not_taken_for_a_name(hub, tmp_path, source):
    with pytest.raises(DataError, match="no such file or folder"):
        prepare_example1(tmp_path, source=source)
    assert hub["asked"] == []


def test_what_cannot_be_asked_or_checked_is_left_out_and_counted(tmp_path):
    task_file(
        tmp_path,
        "task1_capital",
        [
            ("France", "Paris"),
            ("france!", "Paris"),
            ("Spain", ""),
            ("Peru " * 30, "Lima"),
            ("Mali", "a b c d e f g"),
            ("Italy", "Rome"),
            ("Chad", "N'Djamena"),
        ],
        examples=[("Italy", "Rome"), ("Cuba", "Havana")],
    )
    data = prepare_example1(tmp_path, source=str(tmp_path), size=10, examples=5, max_question_words=20)
    assert data.n_read == 7
    assert data.dropped == {
        "with the question of an earlier item": 1,
        "without a question or an answer": 1,
        "with a question of more than 20 words": 1,
        "with an answer of more than 6 words": 1,
    }
    assert list(data.frame["answer"]) == ["Paris", "Rome", "N'Djamena"]
    # Italy is an item, so it is no example.
    assert list(data.examples["answer"]) == ["Havana"]


def test_a_task_that_is_lost_wholly_is_named(tmp_path):
    task_file(tmp_path, "task1_capital", [("France", "Paris"), ("Italy", "Rome")])
    task_file(tmp_path, "task2_story", [("Peru " * 30, "Lima"), ("Cuba " * 30, "Havana")])
    data = prepare_example1(tmp_path, source=str(tmp_path), size=1, examples=1, max_question_words=20)
    assert data.lost == ("task2_story",)
    assert "That leaves nothing of task2_story." in data.sentence
    about = json.loads(data.path.with_name("source.json").read_text(encoding="utf-8"))
    assert about["lost"] == ["task2_story"]
    everything = prepare_example1(tmp_path, source=str(tmp_path), size=1, examples=1)
    assert everything.lost == ()
    assert "nothing of" not in everything.sentence


def test_a_source_of_which_nothing_is_left_is_refused_with_the_reason(tmp_path):
    task_file(tmp_path, "task1_capital", [("France", ""), ("Spain", "")])
    with pytest.raises(DataError, match="2 without a question or an answer"):
        prepare_example1(tmp_path / "out", source=str(tmp_path))
    assert not (tmp_path / "out").exists()


def test_the_saved_table_is_read_back_as_items_of_a_study(tmp_path):
    data = prepare_example2(tmp_path, source="generated", size=12, examples=3)
    assert data.path == tmp_path / "Example2_Dataset" / "attention_reasoning_data.csv"
    source = FileSource.model_validate(
        {
            "source": "file",
            "path": str(data.path),
            "size": 12,
            "columns": {
                "item_id": "item_id",
                "task_type": "task_type",
                "difficulty": "difficulty",
                "solution": "solution",
                "covariates": ["question_words"],
            },
        }
    )
    items = from_file(source)
    assert [i.question for i in items] == list(data.frame["question"])
    assert [i.solution for i in items] == list(data.frame["solution"])
    assert [i.difficulty for i in items] == list(data.frame["difficulty"])


@pytest.mark.parametrize("prepare", [prepare_example1, prepare_example2])
def test_lengths_are_those_of_the_texts_and_a_seed_gives_the_same_table(tmp_path, prepare):
    one = prepare(tmp_path / "a", source="generated", size=5, examples=2, seed=3)
    two = prepare(tmp_path / "b", source="generated", size=5, examples=2, seed=3)
    other = prepare(tmp_path / "c", source="generated", size=5, examples=2, seed=4)
    assert one.path.read_bytes() == two.path.read_bytes()
    assert one.path.read_bytes() != other.path.read_bytes()
    for text in {"question", "answer", "solution"} & set(one.frame.columns):
        assert list(one.frame[f"{text}_words"]) == [len(t.split()) for t in one.frame[text]]
        assert list(one.frame[f"{text}_chars"]) == [len(t) for t in one.frame[text]]
    about = json.loads(one.path.with_name("source.json").read_text(encoding="utf-8"))
    assert (about["generated"], about["n_items"], about["seed"]) == (True, len(one.frame), 3)


def test_local_natural_instructions(tmp_path):
    folder = shared("natural_instructions")
    data = prepare_example1(tmp_path, source=str(folder), size=20, examples=4)
    n_files = len(list(folder.glob("task*.json")))
    assert data.frame["task_type"].nunique() == n_files - 1  # one has no passage that is short enough
    assert set(data.frame["task_type"].value_counts()) == {20}
    assert set(data.examples["task_type"].value_counts()) == {4}
    assert data.frame["question_words"].max() <= 150
    assert data.frame["answer_words"].max() <= 6
    questions = {normalised_question(q) for q in data.frame["question"]}
    assert not questions & {normalised_question(q) for q in data.examples["question"]}
    assert len(pd.read_csv(data.path)) == len(data.frame)


def test_local_gsm8k(tmp_path):
    folder = shared("gsm8k")
    by_file = prepare_example2(tmp_path / "a", source=str(folder / "test.jsonl"), size=40)
    by_folder = prepare_example2(tmp_path / "b", source=str(folder), size=40)
    assert by_file.path.read_bytes() == by_folder.path.read_bytes()
    assert by_file.n_read == 1319
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    answers = {r["question"].strip(): r["answer"].split("####")[1].strip().replace(",", "") for r in rows}
    assert all(
        answers[q] == a for q, a in zip(by_file.frame["question"], by_file.frame["answer"], strict=True)
    )
    assert by_file.frame["solution"].str.contains("<<").sum() == 0


@pytest.mark.parametrize(
    "wrong", [{"size": 0}, {"examples": -1}, {"max_question_words": 0}, {"max_answer_words": 0}]
)
def test_counts_that_make_no_sense_are_refused(tmp_path, wrong):
    with pytest.raises(DataError, match=next(iter(wrong))):
        prepare_example1(tmp_path, source="generated", **wrong)
