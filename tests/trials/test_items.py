import csv
import json
import re
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whyprompt.errors import DataError
from whyprompt.study import (
    FileSource,
    Gsm8kSource,
    HubSource,
    NaturalInstructionsSource,
    ReasoningGymSource,
)
from whyprompt.trials.items.files import read_rows
from whyprompt.trials.items.item import Item, ItemPool, check_items, normalised_question
from whyprompt.trials.items.load import load_items

ROWS = [
    {
        "key": f"k{i}",
        "text": f"What is {i}, plus {i}?",
        "gold": str(2 * i),
        "kind": "even" if i % 2 == 0 else "odd",
        "level": 1.5 * i,
        "how": f"{i} + {i} = {2 * i}",
        "pick": json.dumps([str(2 * i), "none"]),
        "family": f"f{i // 2}",
        "tone": "dry" if i < 4 else "warm",
        "score": i,
    }
    for i in range(10)
]
COLUMNS = {
    "item_id": "key",
    "question": "text",
    "answer": "gold",
    "task_type": "kind",
    "difficulty": "level",
    "solution": "how",
    "choices": "pick",
    "cluster": "family",
    "covariates": ["tone"],
}


def write(path, rows):
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        import pandas as pd

        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def file(path, *, size=4, pool=2, **columns):
    return FileSource(source="file", path=str(path), size=size, shot_pool=pool, columns=columns or COLUMNS)


def rg(dataset, **options):
    return ReasoningGymSource(source="reasoning_gym", dataset=dataset, **options)


# ------------------------------------------------------------------------------------------- files
@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "ndjson", "parquet"])
def test_a_file_gives_its_columns(tmp_path, suffix):
    pool = load_items([file(write(tmp_path / f"items.{suffix}", ROWS), size=10, pool=0)])
    assert pool.items[3] == Item(
        item_id="k3",
        question="What is 3, plus 3?",
        answer="6",
        task_type="odd",
        difficulty=4.5,
        solution="3 + 3 = 6",
        choices=("6", "none"),
        cluster="f1",
        covariates={"tone": "dry"},
    )


def test_formats_give_the_same_items_and_digest(tmp_path):
    pools = [
        load_items([file(write(tmp_path / f"items.{s}", ROWS))], seed=3)
        for s in ("csv", "json", "jsonl", "parquet")
    ]
    assert pools[0] == pools[1] == pools[2] == pools[3]
    assert len({p.digest for p in pools}) == 1
    assert load_items([file(tmp_path / "items.csv")], seed=4).digest != pools[0].digest


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_a_delimited_file_of_items_is_read_whatever_separates_its_columns(tmp_path, mark):
    plain = load_items([file(write(tmp_path / "items.csv", ROWS))], seed=3)
    with (tmp_path / "other.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(ROWS[0]), delimiter=mark)
        writer.writeheader()
        writer.writerows(ROWS)
    assert load_items([file(tmp_path / "other.csv")], seed=3).digest == plain.digest


def test_without_a_size_all_items_are_taken_but_the_examples_that_arms_draw(tmp_path):
    source = FileSource(source="file", path=str(write(tmp_path / "a.csv", ROWS)), columns=COLUMNS)
    assert len(load_items([source]).items) == 10
    assert load_items([source]).shots == {}
    # Of either task's five items a quarter is one, and an arm draws two: three are left.
    drawn = load_items([source], shots=2)
    assert Counter(item.task_type for item in drawn.items) == {"even": 3, "odd": 3}
    assert {task: len(kept) for task, kept in drawn.shots.items()} == {"even": 2, "odd": 2}
    # A pool that is asked for is kept out, whatever is left.
    asked = source.model_copy(update={"shot_pool": 4})
    asked = FileSource(**{**asked.model_dump(exclude={"size"}), "columns": COLUMNS})
    assert len(load_items([asked], shots=2).items) == 2


def test_a_file_without_rows_has_no_items(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer\n")
    with pytest.raises(DataError, match=r"a\.csv: holds no items"):
        load_items([FileSource(source="file", path=str(tmp_path / "a.csv"))])


def test_numbers_keep_their_type_and_whole_floats_read_as_integers(tmp_path):
    rows = [{"question": f"q{i}", "answer": float(i), "score": i} for i in range(3)]
    source = file(write(tmp_path / "a.jsonl", rows), size=3, pool=0, covariates=["score"])
    pool = load_items([source])
    assert [i.answer for i in pool.items] == ["0", "1", "2"]
    assert [i.covariates["score"] for i in pool.items] == [0, 1, 2]
    assert [i.item_id for i in pool.items] == ["a-0", "a-1", "a-2"]
    assert {i.task_type for i in pool.items} == {"a"}


def test_choices_may_stand_with_bars(tmp_path):
    rows = [{"question": "q", "answer": "a", "pick": "a | b"}]
    pool = load_items([file(write(tmp_path / "a.csv", rows), size=1, pool=0, choices="pick")])
    assert pool.items[0].choices == ("a", "b")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.csv", b"question,answer\nq,a\nq\n", r"a\.csv:3: 1 fields, where the first line names 2 columns"),
        ("a.csv", b"question,answer\nq,a,b\n", r"a\.csv:2: 3 fields, where the first line names 2 columns"),
        (
            "a.csv",
            b'question,answer\n"q,a\n',
            r"a\.csv:\d: cannot be read as a table: unexpected end of data",
        ),
        ("a.csv", b"question,question\nq,a\n", "more than one column named 'question'"),
        ("a.csv", b"question,answer\nq,\xff\n", r"a\.csv:\d: not UTF-8 text"),
        (
            "a.csv",
            b"qestion,answer\nq,a\n",
            r"row 1: no column 'question'; it has qestion, answer; did you mean 'qestion'\?(.|\n)*: {que",
        ),
        ("a.csv", b"", "holds no items"),
        ("a.jsonl", b'{"question": "q", "answer": "a"}\n{"question"\n', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", b"[1]\n", r"a\.jsonl:1: a row is an object, not list"),
        ("a.jsonl", b'{"question": "\xff"}\n', r"a\.jsonl:1: not UTF-8 text"),
        ("a.json", b'{"question": "q", "answer": "a"}', r"a\.json holds an object, and items are a list"),
        ("a.json", b"[1]", r"a\.json, item 1: an item is an object, not int"),
        ("a.json", b'[{"question": "q"', r"a\.json:1: not JSON"),
        (
            "a.json",
            b'{"Instances": []}',
            r"a\.json is a task of Natural Instructions(.|\n)*natural_instructions",
        ),
        ("a.parquet", b"not parquet at all", "not a Parquet file"),
        ("a.xlsx", b"x", r"read from \.csv, \.tsv, \.json, \.jsonl and \.parquet"),
        ("a.jsonl", b'{"question": "q", "answer": ""}\n', "item 'a-0' has an empty answer"),
        ("a.jsonl", b'{"question": "q", "answer": null}\n', "item 'a-0' has an empty answer"),
        ("a.jsonl", b'{"question": "q", "answer": NaN}\n', "item 'a-0' has an empty answer"),
        ("a.jsonl", b'{"question": "  ", "answer": "a"}\n', "item 'a-0' has an empty question"),
    ],
)
def test_malformed_files_are_named(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=match):
        load_items([file(tmp_path / name, size=1, pool=0, question="question")])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"key": "k1"}, "item id 'k1' occurs twice"),
        ({"key": ""}, "an item has an empty id"),
        ({"level": "hard"}, "column 'level' holds 'hard', not a number"),
        ({"level": "inf"}, "column 'level' holds 'inf', not a number"),
        ({"pick": '["x", "y"]'}, "item 'k2': the answer is not among its choices"),
        ({"pick": 3}, "column 'pick' holds 3, not a list"),
        ({"pick": None}, "no column 'pick'"),
        ({"tone": ""}, "column 'tone' is empty"),
    ],
)
def test_malformed_rows_are_named(tmp_path, change, match):
    rows = [dict(r) for r in ROWS[:5]]
    rows[2].update(change)
    with pytest.raises(DataError, match=match):
        load_items([file(write(tmp_path / "a.jsonl", rows), size=5, pool=0)])


def test_a_missing_file_and_too_few_items(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_items([file(tmp_path / "absent.csv")])
    with pytest.raises(DataError, match="holds 10 items, the study wants 11") as caught:
        load_items([file(write(tmp_path / "a.csv", ROWS), size=11)])
    assert "at most 10" in caught.value.hint


def test_ids_are_unique_over_all_sources(tmp_path):
    path = write(tmp_path / "a.csv", ROWS)
    with pytest.raises(DataError, match=r"the study's items: item id '\w+' occurs twice"):
        load_items([file(path, size=10, pool=0), file(path, size=10, pool=0)])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(0, 8))
def test_worked_examples_are_never_study_items(tmp_path_factory, seed, size, shots):
    # Every question occurs twice in the file, once in capitals and with other spacing.
    rows = ROWS[:5] + [
        {**r, "key": f"{r['key']}x", "text": r["text"].upper().replace(" ", "  ")} for r in ROWS[:5]
    ]
    path = write(tmp_path_factory.mktemp("twice") / "a.jsonl", rows)
    pool = load_items([file(path, size=size, pool=shots)], seed=seed)
    assert len(pool.items) == size
    taken = {normalised_question(i.question) for i in pool.items}
    for task, examples in pool.shots.items():
        assert len(examples) <= shots
        assert {e.task_type for e in examples} == {task}
        assert not taken & {normalised_question(e.question) for e in examples}


def test_examples_of_one_source_are_not_items_of_another(tmp_path):
    a = write(tmp_path / "a.jsonl", [{**r, "kind": "t"} for r in ROWS[:5]])
    b = write(tmp_path / "b.jsonl", [{**r, "kind": "t", "key": f"b{i}"} for i, r in enumerate(ROWS)])
    pool = load_items([file(a, size=5, pool=0), file(b, size=2, pool=8)], seed=1)
    taken = {i.question for i in pool.items}
    assert len(taken) >= 5
    assert pool.shots["t"]
    assert not taken & {s.question for s in pool.shots["t"]}


def test_the_draw_keeps_the_files_order_and_follows_the_seed(tmp_path):
    path = write(tmp_path / "a.csv", ROWS)
    draws = [[i.item_id for i in load_items([file(path)], seed=s).items] for s in range(20)]
    assert all(d == sorted(d) for d in draws)
    assert len({tuple(d) for d in draws}) > 10
    assert draws[7] == [i.item_id for i in load_items([file(path)], seed=7).items]


def test_an_answer_among_the_choices_passes():
    check_items(
        [Item(item_id="a", question="q", answer="x", task_type="t", choices=("x", "y"))], where="here"
    )


# ----------------------------------------------------------------------------------- reasoning-gym
def test_reasoning_gym_items_are_the_generators_own():
    import reasoning_gym

    pool = load_items([rg("chain_sum", size=6, shot_pool=3, difficulty="num_digits")], seed=9)
    dataset = reasoning_gym.create_dataset("chain_sum", size=9, seed=9)
    rows = [dataset[i] for i in range(9)]
    assert [i.question for i in pool.items] == [r["question"].strip() for r in rows[:6]]
    assert [i.answer for i in pool.items] == [r["answer"] for r in rows[:6]]
    assert [i.difficulty for i in pool.items] == [float(r["metadata"]["num_digits"]) for r in rows[:6]]
    assert [i.question for i in pool.shots["chain_sum"]] == [r["question"].strip() for r in rows[6:]]


def test_levels_are_shared_out_evenly_and_define_the_difficulty():
    levels = [{"min_terms": k, "max_terms": k} for k in (2, 4, 6)]
    pool = load_items([rg("chain_sum", size=12, shot_pool=6, levels=levels)], seed=1)
    assert [i.difficulty for i in pool.items] == [1.0, 2.0, 3.0] * 4
    terms = {1.0: 2, 2.0: 4, 3.0: 6}
    for item in [*pool.items, *pool.shots["chain_sum"]]:
        assert len(re.findall(r"\d+", item.question)) == terms[item.difficulty]


def test_questions_occur_once_among_items_and_examples():
    # 90 different single-digit sums at most: duplicates are sure to be drawn.
    settings = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1, "allow_negation": False}
    pool = load_items([rg("chain_sum", size=40, shot_pool=20, settings=settings)], seed=2)
    questions = [i.question for i in [*pool.items, *pool.shots["chain_sum"]]]
    assert len(set(questions)) == 60


def test_gsm_symbolic_carries_solutions_that_end_in_the_answer():
    pool = load_items([rg("gsm_symbolic", size=12, shot_pool=2)], seed=0)
    for item in pool.items:
        assert item.answer in item.solution
        assert item.difficulty >= 1


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (rg("chain_smu"), "no data set 'chain_smu'; it has .*chain_sum"),
        (rg("chain_sum", settings={"colour": 1}), "refuses the settings of 'chain_sum'"),
        (rg("chain_sum", settings={"min_terms": -1}), "refuses the settings of 'chain_sum'"),
        (rg("chain_sum", difficulty="colour"), "no number 'colour' in its metadata"),
        (
            rg(
                "chain_sum",
                size=300,
                settings={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
            ),
            r"made \d+ different questions .* 316 are wanted",
        ),
    ],
)
def test_what_reasoning_gym_cannot_do(source, match):
    with pytest.raises(DataError, match=match):
        load_items([source])


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("reasoning_gym", rg("chain_sum")),
        ("datasets", HubSource(source="hub", name="openai/gsm8k")),
    ],
)
def test_a_missing_extra_is_named(monkeypatch, module, source):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match="is not installed") as caught:
        load_items([source])
    assert caught.value.hint == 'pip install "whyprompt[data]"'


# ------------------------------------------------------------------------------------------- gsm8k
GSM = (
    '{"question": "Ann has 3 pens and buys 4 packs of 300. How many?", '
    '"answer": "Packs: 4*300=<<4*300=1200>>1,200.\\nAll: 3+1200=<<3+1200=1203>>1,203\\n#### 1,203"}\n'
)


def test_gsm8k_layout(tmp_path):
    (tmp_path / "test.jsonl").write_text(GSM, encoding="utf-8")
    by_folder = load_items([Gsm8kSource(source="gsm8k", path=str(tmp_path), size=1)])
    by_file = load_items([Gsm8kSource(source="gsm8k", path=str(tmp_path / "test.jsonl"), size=1)])
    assert by_folder == by_file
    (item,) = by_folder.items
    assert (item.item_id, item.answer, item.difficulty) == ("gsm8k-0", "1203", 2.0)
    assert item.solution == "Packs: 4*300=1,200.\nAll: 3+1200=1,203"


def test_what_is_not_gsm8k(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"question": "q", "answer": "12"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="row 1: the answer has no '####'"):
        load_items([Gsm8kSource(source="gsm8k", path=str(tmp_path), size=1)])
    with pytest.raises(DataError, match=r"no such file: .*train\.jsonl"):
        load_items([Gsm8kSource(source="gsm8k", path=str(tmp_path), split="train", size=1)])


def test_the_real_gsm8k(shared_data):
    source = Gsm8kSource(source="gsm8k", path=str(shared_data / "gsm8k"), size=1300, shot_pool=16)
    pool = load_items([source], seed=1)
    raw = [
        json.loads(line)
        for line in (shared_data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(raw) == 1319
    for item in pool.items:
        row = raw[int(item.item_id.rpartition("-")[2])]
        assert item.question == row["question"].strip()
        assert item.answer == re.sub(r"[,\s]", "", re.search(r"####(.*)$", row["answer"])[1])
        assert re.fullmatch(r"-?\d+(\.\d+)?", item.answer)
        assert "<<" not in item.solution
        assert "####" not in item.solution
        assert item.difficulty == max(1, row["answer"].count("<<"))
    assert len(pool.shots["gsm8k"]) == 16
    assert {i.item_id for i in pool.items}.isdisjoint(i.item_id for i in pool.shots["gsm8k"])


# ---------------------------------------------------------------------------- natural instructions
NI = {
    "Definition": ["Give the capital."],
    "Positive Examples": [
        {"input": "France", "output": "Paris", "explanation": ""},
        {"input": "Chad", "output": "N'Djamena", "explanation": ""},
    ],
    "Instances": [
        {"id": "a", "input": "Peru", "output": ["Lima", "lima"]},
        {"id": "b", "input": "CHAD.", "output": ["N'Djamena"]},
        {"id": "c", "input": "Oman", "output": ["Muscat"]},
    ],
}


def ni(path, **options):
    return NaturalInstructionsSource(source="natural_instructions", path=str(path), **options)


def test_natural_instructions_layout(tmp_path):
    (tmp_path / "task1_x.json").write_text(json.dumps(NI), encoding="utf-8")
    pool = load_items([ni(tmp_path, size=3)])
    assert [(i.item_id, i.question, i.answer, i.task_type) for i in pool.items] == [
        ("a", "Give the capital.\n\nPeru", "Lima", "task1_x"),
        ("b", "Give the capital.\n\nCHAD.", "N'Djamena", "task1_x"),
        ("c", "Give the capital.\n\nOman", "Muscat", "task1_x"),
    ]
    # The example about Chad is also an instance: it is no example any more.
    assert [s.answer for s in pool.shots["task1_x"]] == ["Paris"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({k: v for k, v in NI.items() if k != "Instances"}, "no key 'Instances'"),
        ([NI], "no key 'Definition'"),
        ({**NI, "Instances": [{"id": "a", "input": "x"}]}, "a: no key 'output'"),
        ({**NI, "Instances": [{"id": "a", "input": "x", "output": []}]}, "item 'a' has an empty answer"),
    ],
)
def test_what_is_not_natural_instructions(tmp_path, content, match):
    (tmp_path / "task1_x.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=match):
        load_items([ni(tmp_path / "task1_x.json", size=1)])


def test_natural_instructions_paths(tmp_path):
    with pytest.raises(DataError, match=r"no task\*\.json in this folder"):
        load_items([ni(tmp_path)])
    with pytest.raises(DataError, match="no such file or folder"):
        load_items([ni(tmp_path / "absent")])
    (tmp_path / "task1_x.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"task1_x\.json:1: not JSON"):
        load_items([ni(tmp_path)])
    with pytest.raises(DataError, match="no task 'task2'; it has task1_x"):
        load_items([ni(tmp_path, tasks=["task2"])])


def test_the_real_natural_instructions(shared_data):
    folder = shared_data / "natural_instructions"
    names = ["task1147_country_currency", "task1426_country_independence_year"]
    pool = load_items([ni(folder, tasks=names, size=20, shot_pool=5)], seed=3)
    assert [i.task_type for i in pool.items] == [names[0]] * 20 + [names[1]] * 20
    for name in names:
        content = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        rows = {r["id"]: r for r in content["Instances"]}
        for item in (i for i in pool.items if i.task_type == name):
            row = rows[item.item_id]
            assert item.question == f"{' '.join(content['Definition']).strip()}\n\n{row['input'].strip()}"
            assert item.answer == row["output"][0].strip()
        assert 2 <= len(pool.shots[name]) <= 5
        taken = {normalised_question(i.question) for i in pool.items}
        assert not taken & {normalised_question(s.question) for s in pool.shots[name]}


def test_every_real_task_file_loads(shared_data):
    files = sorted((shared_data / "natural_instructions").glob("task*.json"))
    pool = load_items([ni(shared_data / "natural_instructions", size=2)])
    assert len(pool.items) == 2 * len(files)


# --------------------------------------------------------------------------------------------- hub
def test_a_folder_that_datasets_can_load(tmp_path):
    write(tmp_path / "test.jsonl", ROWS)
    columns = {**COLUMNS, "choices": None}
    found = load_items(
        [HubSource(source="hub", name=str(tmp_path), size=6, shot_pool=2, columns=columns, task_type="t")],
        seed=5,
    )
    same = load_items(
        [file(tmp_path / "test.jsonl", size=6, pool=2, **{k: v for k, v in columns.items() if v})], seed=5
    )
    assert found == same


def test_hub_layouts(monkeypatch):
    import datasets

    asked = []

    def load(name, config, *, split, revision):
        asked.append((name, config, split, revision))
        if "gsm8k" in name:
            return datasets.Dataset.from_list([json.loads(GSM)])
        return datasets.Dataset.from_list(
            [
                {"id": "t-1", "task_name": "task5", "definition": "Do.", "inputs": "x", "targets": "y"},
                {"id": "t-2", "task_name": "task5", "definition": "Do.", "inputs": "z", "targets": "w"},
            ]
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = HubSource(
        source="hub", name="openai/gsm8k", config="main", layout="gsm8k", revision="abc", size=1
    )
    assert load_items([source]).items[0].answer == "1203"
    source = HubSource(
        source="hub", name="Muennighoff/natural-instructions", layout="natural_instructions", size=2
    )
    pool = load_items([source])
    assert [(i.item_id, i.question, i.answer, i.task_type) for i in pool.items] == [
        ("t-1", "Do.\n\nx", "y", "task5"),
        ("t-2", "Do.\n\nz", "w", "task5"),
    ]
    assert asked == [
        ("openai/gsm8k", "main", "test", "abc"),
        ("Muennighoff/natural-instructions", None, "test", None),
    ]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [{"definition": "d", "inputs": "i"}])
    with pytest.raises(DataError, match="no column 'targets'"):
        load_items([source])


@pytest.mark.parametrize("error", [ConnectionError("the hub is out of reach\nmore"), ValueError("no split")])
def test_a_data_set_out_of_reach(monkeypatch, error):
    import datasets

    def load(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"'openai/gsm8k' \(split 'test'\) cannot be loaded") as caught:
        load_items([HubSource(source="hub", name="openai/gsm8k", config="main")])
    assert str(error).splitlines()[0] in str(caught.value)
    assert "more" not in caught.value.message
    assert "the network, or use a local file" in caught.value.hint


def test_offline_without_the_data_set(monkeypatch, tmp_path):
    # The real library, offline: no monkeypatched error.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="cannot be loaded") as caught:
        load_items([HubSource(source="hub", name="no-such-owner/no-such-set", config="main")])
    assert "use a local file" in str(caught.value)


def test_rows_are_read_lazily(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\nbroken\n', encoding="utf-8")
    assert next(read_rows(path)) == {"a": 1}


def test_the_digest_covers_the_examples():
    a = Item(item_id="a", question="q", answer="x", task_type="t")
    b = Item(item_id="b", question="r", answer="x", task_type="t")
    assert ItemPool(items=(a,), shots={}).digest != ItemPool(items=(a,), shots={"t": (b,)}).digest


def test_numeric_covariates_of_a_csv_are_numbers_and_codes_stay_text(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text(
        "q,a,words,share,code,mixed\nOne?,1,3,0.5,007,1\nTwo?,2,12,1e-2,010,x\n", encoding="utf-8"
    )
    columns = {"question": "q", "answer": "a", "covariates": ["words", "share", "code", "mixed"]}
    source = FileSource(source="file", path=str(path), size=2, shot_pool=0, columns=columns)
    items = load_items([source], seed=0).items
    by_question = {i.question: dict(i.covariates) for i in items}
    assert by_question["One?"] == {"words": 3, "share": 0.5, "code": "007", "mixed": "1"}
    assert by_question["Two?"] == {"words": 12, "share": 0.01, "code": "010", "mixed": "x"}
    assert isinstance(by_question["One?"]["words"], int)


def test_covariates_may_have_decimal_commas_and_answers_stay_as_they_are(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("question;answer;share\nOne?;3,5;0,5\nTwo?;2;1\n", encoding="utf-8")
    columns = {"question": "question", "answer": "answer", "covariates": ["share"]}
    source = FileSource(source="file", path=str(path), size=2, shot_pool=0, columns=columns)
    items = {i.question: (i.answer, i.covariates["share"]) for i in load_items([source], seed=0).items}
    assert items == {"One?": ("3,5", 0.5), "Two?": ("2", 1.0)}
