"""The exchange format every_eval_ever: what is written is valid by its schemas and is read back as it was."""

import hashlib
import json
import math

import jsonschema
import pandas as pd
import pyarrow as pa
import pytest

from whyprompt.errors import DataError
from whyprompt.trials.readers import every_eval_ever as eee
from whyprompt.trials.readers.every_eval_ever_write import write
from whyprompt.trials.readers.record import ROLES

EVALUATION = "sums"


@pytest.fixture(scope="session")
def schemas(shared_logs):
    folder = shared_logs / "every_eval_ever"
    names = ("eval.schema.json", "instance_level_eval.schema.json")
    return tuple(jsonschema.Draft7Validator(json.loads((folder / name).read_text("utf-8"))) for name in names)


def checked(schemas, path):
    """Hold an aggregate and its samples against the schemas; gives both."""
    aggregate = json.loads(path.read_text("utf-8"))
    schemas[0].validate(aggregate)
    samples = path.with_name(path.stem + "_samples.jsonl")
    lines = [json.loads(line) for line in samples.read_text("utf-8").splitlines()]
    for line in lines:
        schemas[1].validate(line)
    detailed = aggregate["detailed_evaluation_results"]
    assert detailed["total_rows"] == len(lines)
    assert detailed["checksum"] == hashlib.sha256(samples.read_bytes()).hexdigest()
    return aggregate, lines


def table():
    rows = [
        {
            "item_id": f"i{item}",
            "arm": arm,
            "rep": rep,
            "question": f"What is {item} + {item}? é",
            "answer": str(2 * item),
            "prompt": f"{arm}: What is {item} + {item}?",
            "completion": "4",
            "model": "dev/m-1",
            "prompt_tokens": 7,
            "completion_tokens": 1,
            "latency_s": 0.25,
            "error": None,
            "level": item,
            "family": "007",
            "exact_match": float((item + rep + (arm == "cot")) % 2),
            "log_prob": -0.5 * item if (item, arm) != (3, "cot") else None,
        }
        for arm in ("direct", "cot")
        for item in range(4)
        for rep in (1, 2)
    ]
    return pd.DataFrame(rows)


def only(path):
    (log,) = eee.read(path)
    return log


def sure(path):
    with path.open("rb") as file:
        return eee.sniff(path, file.read(1 << 16))


# -------------------------------------------------------------------------------- written and read back
@pytest.mark.parametrize("kind", ["pandas", "arrow"])
def test_what_is_written_is_valid_and_read_back(tmp_path, schemas, kind):
    frame = table()
    given = frame if kind == "pandas" else pa.Table.from_pandas(frame)
    (path,) = write(given, tmp_path, outcomes=["exact_match", "log_prob"], evaluation=EVALUATION, when=1.0)
    aggregate, lines = checked(schemas, path)
    # A line an outcome that is there: two of the 32 are missing.
    assert len(lines) == 30
    assert path.parent == tmp_path / "data" / EVALUATION / "dev" / "m-1"
    log = only(path)
    found = list(log.trials())
    assert len(found) == len(frame)
    known = {(row.item_id, row.arm, row.rep): row for row in frame.itertuples()}
    for t in found:
        row = known.pop((t.item, t.settings["prompt"]["metadata.arm"], t.rep))
        assert t.scores["exact_match"] == row.exact_match
        assert t.scores.get("log_prob") == (None if math.isnan(row.log_prob) else row.log_prob)
        assert (t.question, t.target, t.prompt, t.completion) == (row.question, row.answer, row.prompt, "4")
        assert (t.prompt_tokens, t.completion_tokens, t.latency_s) == (7, 1, 0.25)
        assert t.covariates == {"level": row.level, "family": "007"}
    assert not known
    assert log.settings["model"]["model_info.id"] == "dev/m-1"
    assert log.settings["harness"]["eval_library.name"] == "whyprompt"
    assert set(log.settings) <= set(ROLES)
    assert log.notes == ()
    assert aggregate["evaluation_results"][3]["score_details"]["details"] == {"trials": "6", "missing": "2"}


def test_the_means_it_states_are_those_of_its_trials(tmp_path):
    (path,) = write(
        table(),
        tmp_path,
        outcomes=["exact_match", "log_prob"],
        evaluation=EVALUATION,
    )
    log = only(path)
    assert len(log.stated) == 4
    for stated in log.stated:
        own = [t for t in log.trials() if stated.where.items() <= t.settings["prompt"].items()]
        values = [t.scores[stated.scorer] for t in own if stated.scorer in t.scores]
        assert stated.mean == pytest.approx(math.fsum(values) / len(values))
        by_item = pd.Series(values).groupby([t.item for t in own if stated.scorer in t.scores]).mean()
        assert stated.error == pytest.approx(by_item.std() / math.sqrt(len(by_item)))
        assert stated.n == len(by_item)


def test_models_have_files_of_their_own_and_the_same_time_the_same_files(tmp_path, schemas):
    frame = table()
    frame["model"] = ["a", "p/x/b"] * 8
    made = [write(frame, tmp_path, outcomes=["exact_match"], evaluation="a b/c", when=3.0) for _ in range(2)]
    assert made[0] == made[1]
    places = {path.parent.relative_to(tmp_path).as_posix() for path in made[0]}
    assert places == {"data/a_b_c/unknown/a", "data/a_b_c/p_x/b"}
    for path in made[0]:
        aggregate, lines = checked(schemas, path)
        assert {line["model_id"] for line in lines} == {aggregate["model_info"]["id"]}


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(DataError, match="no column 'f1'"):
        write(table(), tmp_path, outcomes=["f1"], evaluation=EVALUATION)
    frame = table()
    frame["text"] = "good"
    with pytest.raises(DataError, match="'text' of the trials is nowhere a number"):
        write(frame, tmp_path, outcomes=["text"], evaluation=EVALUATION)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


# ------------------------------------------------------------------------------------ files of others
def line(sample_id="s1", score=1.0, **more):
    found = {
        "schema_version": "0.2.1",
        "evaluation_id": "e",
        "model_id": "dev/m",
        "evaluation_name": "hellaswag",
        "sample_id": sample_id,
        "sample_hash": "h",
        "interaction_type": "single_turn",
        "input": {"raw": f"Q {sample_id}", "formatted": None, "reference": ["7"], "choices": ["7", "8"]},
        "output": {"raw": [" 7"], "reasoning_trace": []},
        "messages": None,
        "answer_attribution": [],
        "evaluation": {"score": score, "is_correct": score == 1.0},
        "token_usage": {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6},
        "performance": {"latency_ms": None, "generation_time_ms": 1500.0},
        "error": None,
        "metadata": None,
    }
    return found | more


def result(name="hellaswag", metric="accuracy", score=1.0, **more):
    return {
        "evaluation_name": name,
        "source_data": {"dataset_name": "d", "source_type": "other"},
        "metric_config": {"metric_name": metric, "lower_is_better": False, "score_type": "binary"},
        "score_details": {"score": score},
        **more,
    }


def put(folder, schemas, lines, results=None, **more):
    path = folder / "1_samples.jsonl"
    for one in lines:
        schemas[1].validate(one)
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    if results is not None:
        aggregate = {
            "schema_version": "0.2.1",
            "evaluation_id": "e",
            "retrieved_timestamp": "0",
            "source_metadata": {
                "source_type": "evaluation_run",
                "source_organization_name": "o",
                "evaluator_relationship": "other",
            },
            "eval_library": {"name": "helm", "version": "1"},
            "model_info": {
                "name": "m",
                "id": "dev/m",
                "inference_platform": "x",
                "additional_details": {"deployment_type": "unknown", "model_availability": "unknown"},
            },
            "evaluation_results": results,
            **more,
        }
        schemas[0].validate(aggregate)
        (folder / "1.json").write_text(json.dumps(aggregate), encoding="utf-8")
    return path


def test_samples_alone_are_read(tmp_path, schemas):
    path = put(tmp_path, schemas, [line("a"), line("b", 0.0)])
    assert sure(path) > 0.8
    log = only(path)
    assert "no aggregate lies beside it" in log.notes[0]
    assert (log.version, log.settings) == ("0.2.1", {"model": {"model_info.id": "dev/m"}})
    first, second = log.trials()
    assert (first.item, first.question, first.target, first.choices) == ("a", "Q a", "7", ("7", "8"))
    assert (first.scores, second.scores) == ({"score": 1.0}, {"score": 0.0})
    assert (first.completion, first.prompt, first.latency_s) == (" 7", None, 1.5)
    assert (first.prompt_tokens, first.completion_tokens) == (5, 1)


def test_lines_of_one_answer_are_scores_of_one_trial(tmp_path, schemas):
    ids = [{"evaluation_result_id": k} for k in ("em", "f1")]
    lines = [line(s, score, **own) for own, score in zip(ids, (1.0, 0.5), strict=True) for s in ("a", "b")]
    results = [
        result(metric=m, score=v, **own) for m, v, own in zip(("exact", "f1"), (1.0, 0.5), ids, strict=True)
    ]
    path = put(tmp_path, schemas, lines, results)
    assert sure(tmp_path / "1.json") < 0.5 < sure(path)
    log = only(tmp_path / "1.json")
    assert log.path == path
    assert [(t.item, t.scores, t.rep) for t in log.trials()] == [
        ("a", {"exact": 1.0, "f1": 0.5}, 1),
        ("b", {"exact": 1.0, "f1": 0.5}, 1),
    ]
    assert [(s.scorer, s.mean, dict(s.where)) for s in log.stated] == [("exact", 1.0, {}), ("f1", 0.5, {})]
    assert log.settings["engine"]["model_info.inference_platform"] == "x"


def test_filters_of_one_metric_are_scores_of_one_trial(tmp_path, schemas):
    """As the format's own converter writes them: the answer is what a filter left of it."""
    lines = [
        line(
            s,
            score,
            evaluation_result_id=f"exact_match:{key}",
            output={"raw": [text]},
            metadata={"filter": key},
        )
        for key, score, text in (("strict", 0.0, "7"), ("none", 1.0, "It is 7"))
        for s in ("a", "b")
    ]
    results = [
        result(f"t/{key}", "exact_match", score, evaluation_result_id=f"exact_match:{key}")
        for key, score in (("strict", 0.0), ("none", 1.0))
    ]
    log = only(put(tmp_path, schemas, lines, results))
    found = list(log.trials())
    assert [t.item for t in found] == ["a", "b"]
    assert all(t.scores == {"exact_match,strict": 0.0, "exact_match,none": 1.0} for t in found)
    assert {(t.completion, t.rep, len(t.covariates)) for t in found} == {("It is 7", 1, 0)}
    assert log.settings["prompt"] == {"evaluation_name": "t"}
    assert [(s.scorer, s.mean, dict(s.where)) for s in log.stated] == [
        ("exact_match,strict", 0.0, {}),
        ("exact_match,none", 1.0, {}),
    ]
    (tmp_path / "1.json").unlink()
    assert [set(t.scores) for t in only(tmp_path / "1_samples.jsonl").trials()] == [
        {"exact_match:strict", "exact_match:none"}
    ] * 2


def test_metrics_meet_in_the_answer_that_they_are_of(tmp_path, schemas):
    answers = [{"output": {"raw": [text]}} for text in ("x", "y")]
    lines = [
        line("a", 1.0, evaluation_result_id="em", **answers[0]),
        line("a", 0.0, evaluation_result_id="em", **answers[1]),
    ]
    lines += [
        line("a", 0.2, evaluation_result_id="f1", **answers[1]),
        line("a", 0.9, evaluation_result_id="f1", **answers[0]),
    ]
    results = [result(metric=m, evaluation_result_id=m) for m in ("em", "f1")]
    found = list(only(put(tmp_path, schemas, lines, results)).trials())
    assert sorted((t.completion, t.scores["em"], t.scores["f1"]) for t in found) == [
        ("x", 1.0, 0.9),
        ("y", 0.0, 0.2),
    ]
    assert sorted(t.rep for t in found) == [1, 2]


def test_answers_to_one_question_are_repetitions(tmp_path, schemas):
    """Also where two of them are the same word for word."""
    said = [{"output": {"raw": [text]}} for text in ("7", "8", "7")]
    found = list(only(put(tmp_path, schemas, [line("a", **own) for own in said])).trials())
    assert [(t.rep, t.completion) for t in found] == [(1, "7"), (2, "8"), (3, "7")]


def test_names_of_subtasks_are_items_and_no_metrics(tmp_path, schemas):
    lines = [
        line("1", 1.0, evaluation_name="physics"),
        line("1", 0.0, evaluation_name="law", input={"raw": "L", "reference": []}),
    ]
    results = [result("physics", score=1.0), result("law", score=0.0)]
    log = only(put(tmp_path, schemas, lines, results))
    found = list(log.trials())
    assert [(t.scores, t.settings["items"]["evaluation_name"]) for t in found] == [
        ({"accuracy": 1.0}, "physics"),
        ({"accuracy": 0.0}, "law"),
    ]
    for stated in log.stated:
        (own,) = [t for t in found if stated.where.items() <= t.settings["items"].items()]
        assert own.scores == {"accuracy": stated.mean}


def test_a_conversation_is_what_was_said_before_and_last(tmp_path, schemas):
    said = [("system", "S"), ("user", "U"), ("assistant", "A"), ("tool", "T"), ("assistant", "B")]
    messages = [{"turn_idx": k, "role": role, "content": text} for k, (role, text) in enumerate(said)]
    more = {"interaction_type": "multi_turn", "messages": messages, "output": None}
    (found,) = only(put(tmp_path, schemas, [line("a", **more)])).trials()
    assert (found.prompt, found.completion) == ("system:\nS\n\nuser:\nU", "B")


def test_what_trials_were_made_with_is_theirs_where_it_differs(tmp_path, schemas):
    results = [
        result(name, generation_config={"generation_args": {"temperature": t, "prompt_template": name}})
        for name, t in (("x", 0.0), ("y", 1.0))
    ]
    log = only(
        put(
            tmp_path,
            schemas,
            [line("a", evaluation_name="x"), line("a", evaluation_name="y", output={"raw": ["8"]})],
            results,
        )
    )
    assert "sampling" not in log.settings
    assert [t.settings["sampling"] for t in log.trials()] == [
        {"generation_args.temperature": v} for v in (0.0, 1.0)
    ]
    assert [t.settings["prompt"] for t in log.trials()] == [
        {"generation_args.prompt_template": v} for v in "xy"
    ]


def test_a_percentage_is_no_mean_of_its_samples(tmp_path, schemas):
    results = [result(score=73.4)]
    results[0]["metric_config"]["metric_unit"] = "percent"
    assert only(put(tmp_path, schemas, [line("a")], results)).stated == ()


# ------------------------------------------------------------------------------------- damaged input
def test_an_aggregate_alone_is_refused(tmp_path, schemas):
    path = put(tmp_path, schemas, [line("a")], [result()])
    path.unlink()
    assert sure(tmp_path / "1.json") == 0.9
    with pytest.raises(
        DataError, match=r"1\.json holds aggregate results alone: its samples \(1_samples\.jsonl\)"
    ):
        only(tmp_path / "1.json")


def test_what_contradicts_its_aggregate_is_said(tmp_path, schemas):
    place = "data/a/b/c/00000000-0000-4000-8000-000000000000_samples.jsonl"
    stated = {
        "format": "jsonl",
        "file_path": place,
        "hash_algorithm": "sha256",
        "checksum": "0",
        "total_rows": 1,
    }
    path = put(
        tmp_path, schemas, [line("a", evaluation_id="other")], [result()], detailed_evaluation_results=stated
    )
    first, second = only(path).notes
    assert "of evaluation 'other', the aggregate beside it of 'e'" in first
    assert "its checksum is another one" in second
    stated["total_rows"] = 5
    put(tmp_path, schemas, [line("a")], [result()], detailed_evaluation_results=stated)
    with pytest.raises(
        DataError, match=r"1_samples\.jsonl is cut off: it has 1 rows, and its aggregate states 5"
    ):
        only(path)


def test_damaged_lines_are_named(tmp_path, schemas):
    path = put(tmp_path, schemas, [line("a"), line("b")])
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(DataError, match=r"1_samples\.jsonl:2: not JSON: the last line is cut off"):
        list(only(path).trials())
    path.write_bytes(whole + b'{"sample_id": "c"}\n')
    with pytest.raises(DataError, match=r"1_samples\.jsonl:3: no 'input'"):
        list(only(path).trials())
    path.write_bytes(whole[:20] + b"\xff" + whole[20:])
    with pytest.raises(DataError, match=r"1_samples\.jsonl:1: not UTF-8"):
        only(path)
    path.write_bytes(b"\n")
    with pytest.raises(DataError, match="is empty"):
        eee._log(path, {})


def test_other_files_are_none_of_it(shared_logs):
    for path in shared_logs.rglob("*"):
        if path.is_file():
            assert sure(path) == 0.0, path
