"""Exports of observability tools, as their documents define them: the files are made by hand."""

import csv
import io
import json
from functools import partial

import pandas as pd
import pytest

from whyprompt.errors import DataError


def as_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_csv(rows):
    """Write rows as exports do: what has parts is JSON in its cell."""
    out = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(out, names)
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()})
    return out.getvalue()


WRITERS = {"json": json.dumps, "pretty": partial(json.dumps, indent=2), "jsonl": as_lines, "csv": as_csv}


@pytest.fixture
def written(tmp_path):
    def write(rows, kind="json", name="log"):
        path = tmp_path / f"{name}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "parquet":
            pd.DataFrame(rows).to_parquet(path)
        else:
            path.write_text(WRITERS[kind](rows))
        return path

    return write


def sure(reader, name, path):
    return reader(name).sniff(path, path.read_bytes()[: 1 << 16])


# --- Phoenix ------------------------------------------------------------------------------------------------

PHOENIX = [
    {
        "example_id": f"RXhhbXBsZTo{k}",
        "repetition_number": rep,
        "input": {"question": f"q{k}", "topic": "t"},
        "reference_output": {"answer": str(k)},
        "output": "42",
        "error": None,
        "latency_ms": 1500.0,
        "start_time": "2026-01-01T00:00:00+00:00",
        "end_time": "2026-01-01T00:00:01.500000+00:00",
        "trace_id": None,
        "prompt_token_count": 9,
        "completion_token_count": 2,
        "annotations": [
            {"name": "exact", "score": float(k == rep), "label": None, "error": None},
            {"name": "judge", "score": None, "label": "correct", "error": None},
        ],
    }
    for k in (1, 2)
    for rep in (1, 2)
]


def phoenix_csv(rows):
    flat = []
    for row in rows:
        own = {k: v for k, v in row.items() if k != "annotations"}
        for one in row["annotations"]:
            own |= {f"annotation_{one['name']}_{k}": one[k] for k in ("label", "score", "error")}
        flat.append(own)
    return as_csv(flat)


def test_phoenix_json_and_csv_agree(written, reader, one_log, tmp_path):
    path = written(PHOENIX, "pretty", "direct")
    table = tmp_path / "direct.csv"
    table.write_text(phoenix_csv(PHOENIX))
    for file in (path, table):
        assert sure(reader, "phoenix", file) == 0.95
    _, trials = one_log("phoenix", path)
    assert one_log("phoenix", table)[1] == trials
    assert [(t.item[-1], t.rep, t.scores["exact"]) for t in trials] == [
        ("1", 1, 1.0),
        ("1", 2, 0.0),
        ("2", 1, 0.0),
        ("2", 2, 1.0),
    ]
    first = trials[0]
    assert (first.question, first.target, first.completion) == ("q1", "1", "42")
    assert (first.latency_s, first.prompt_tokens, first.scores["judge"]) == (1.5, 9, 1.0)


def test_phoenix_runs_and_evaluators_that_failed(written, one_log):
    failed = PHOENIX[0] | {"error": "boom", "output": None}
    unjudged = PHOENIX[1] | {"annotations": [{"name": "exact", "score": 1.0, "label": None, "error": "e"}]}
    _, (first, second) = one_log("phoenix", written([failed, unjudged]))
    assert (first.error, first.scores["exact"]) == ("boom", None)
    assert (second.error, second.scores) == (None, {"exact": None})
    with pytest.raises(DataError, match=r"record 2: has no 'reference_output'"):
        one_log(
            "phoenix", written([PHOENIX[0], {k: v for k, v in PHOENIX[1].items() if k != "reference_output"}])
        )


# --- Braintrust ---------------------------------------------------------------------------------------------


def braintrust(k, arm, score, **more):
    return {
        "id": f"{arm}{k}",
        "span_id": f"s{arm}{k}",
        "root_span_id": f"s{arm}{k}",
        "experiment_id": arm,
        "dataset_record_id": f"r{k}",
        "input": {"question": f"q{k}"},
        "output": "out",
        "expected": "2",
        "scores": {"exact": score, "style": None},
        "metadata": {"model": "gpt", "temperature": 0.5, "category": "maths", "n_words": 7},
        "metrics": {"start": 10.0, "end": 12.5, "prompt_tokens": 5, "completion_tokens": 6},
        "error": None,
        **more,
    }


BRAINTRUST = [braintrust(k, arm, float(k == 1)) for k in (1, 2) for arm in ("a", "b")]


@pytest.mark.parametrize("kind", ["json", "pretty", "jsonl", "csv"])
def test_braintrust(written, reader, one_log, kind):
    rows = [*BRAINTRUST, braintrust(1, "a", 0.0, span_id="child", scores={})]  # a span below is no trial
    path = written(rows, kind)
    assert sure(reader, "braintrust", path) == 0.95
    _, trials = one_log("braintrust", path)
    assert [(t.item, t.settings["prompt"]["experiment_id"], t.scores["exact"], t.rep) for t in trials] == [
        ("r1", "a", 1.0, 1),
        ("r1", "b", 1.0, 1),
        ("r2", "a", 0.0, 1),
        ("r2", "b", 0.0, 1),
    ]
    first = trials[0]
    assert first.scores["style"] is None
    assert first.settings["model"] == {"metadata.model": "gpt"}
    assert first.settings["sampling"] == {"metadata.temperature": 0.5}
    # What may have come after the answer is not known beforehand.
    assert first.covariates == {"category": "maths"}
    assert (first.question, first.target, first.latency_s, first.prompt_tokens) == ("q1", "2", 2.5, 5)


def test_a_wrapped_answer_of_braintrust_and_an_error(one_log, tmp_path):
    path = tmp_path / "fetch.json"
    path.write_text(json.dumps({"events": [braintrust(1, "a", 1.0, error={"message": "boom"})]}))
    _, (trial,) = one_log("braintrust", path)
    assert trial.error == '{"message": "boom"}'
    assert trial.scores == {"exact": None, "style": None}


# --- LangSmith ----------------------------------------------------------------------------------------------


def run(k, session, score, **more):
    return {
        "id": f"run{k}{session}",
        "run_type": "chain",
        "dotted_order": "x",
        "parent_run_id": None,
        "session_id": session,
        "reference_example_id": f"ex{k}",
        "inputs": {"question": f"q{k}"},
        "outputs": {"answer": "out"},
        "feedback_stats": {"exact": {"n": 1, "avg": score}},
        "extra": {"metadata": {"ls_model_name": "gpt", "ls_temperature": 0.0, "revision_id": "r"}},
        "start_time": "2026-01-01T00:00:00",
        "end_time": "2026-01-01T00:00:02",
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_cost": 0.5,
        "error": None,
        **more,
    }


RUNS = [run(k, session, float(k == 1)) for k in (1, 2) for session in ("s1", "s2")]


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_runs_of_langsmith(written, reader, one_log, kind):
    path = written([*RUNS, run(1, "s1", 0.0, parent_run_id="run1s1", feedback_stats=None)], kind)
    assert sure(reader, "langsmith", path) == 0.95
    _, trials = one_log("langsmith", path)
    assert [(t.item, t.settings["prompt"]["session_id"], t.scores, t.rep) for t in trials] == [
        ("ex1", "s1", {"exact": 1.0}, 1),
        ("ex1", "s2", {"exact": 1.0}, 1),
        ("ex2", "s1", {"exact": 0.0}, 1),
        ("ex2", "s2", {"exact": 0.0}, 1),
    ]
    assert trials[0].settings["model"] == {"metadata.ls_model_name": "gpt"}
    assert (trials[0].latency_s, trials[0].cost, trials[0].completion) == (2.0, 0.5, "out")


def test_runs_with_a_few_fields_of_langsmith(written, reader, one_log):
    stats = ({"exact": {"n": 1, "avg": 1.0}}, {"exact": {"n": 1, "avg": None, "values": {"CORRECT": 1}}}, {})
    rows = [{"id": k, "reference_example_id": f"ex{k}", "feedback_stats": s} for k, s in enumerate(stats)]
    path = written(rows, "jsonl")
    assert sure(reader, "langsmith", path) == 0.95
    _, trials = one_log("langsmith", path)
    assert [(t.item, t.scores) for t in trials] == [
        ("ex0", {"exact": 1.0}),
        ("ex1", {"exact": 1.0}),
        ("ex2", {}),
    ]
    with pytest.raises(DataError, match=r":2: is no run: it has none of feedback_stats"):
        one_log("langsmith", written([rows[0], {"id": 3}], "jsonl"))


def test_compared_examples_of_langsmith(written, reader, one_log):
    rows = [
        {
            "id": f"ex{k}",
            "inputs": {"question": f"q{k}"},
            "outputs": {"answer": "2"},
            "metadata": {"difficulty": 3},
            "runs": [run(k, "s1", 1.0), run(k, "s2", 0.0, error="boom")],
        }
        for k in (1, 2)
    ]
    path = written(rows)
    assert sure(reader, "langsmith", path) == 0.95
    _, trials = one_log("langsmith", path)
    assert [(t.item, t.target, t.scores["exact"], t.error) for t in trials] == [
        ("ex1", "2", 1.0, None),
        ("ex1", "2", None, "boom"),
        ("ex2", "2", 1.0, None),
        ("ex2", "2", None, "boom"),
    ]
    assert trials[0].covariates == {"difficulty": 3}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_the_table_of_results_of_langsmith(written, reader, one_log, kind):
    rows = [
        {
            "inputs.question": f"q{k}",
            "outputs.answer": "out",
            "error": "" if k == 1 else "boom",
            "reference.answer": "2",
            "feedback.exact": "True" if k == 1 else "",
            "execution_time": 1.5,
            "example_id": f"ex{k}",
            "id": "r",
        }
        for k in (1, 2)
    ]
    path = written(rows, kind)
    assert sure(reader, "langsmith", path) == 0.95
    _, (first, second) = one_log("langsmith", path)
    assert (first.item, first.question, first.target, first.scores) == ("ex1", "q1", "2", {"exact": 1.0})
    assert (first.latency_s, first.completion) == (1.5, "out")
    assert (second.error, second.scores) == ("boom", {"exact": None})


# --- Langfuse -----------------------------------------------------------------------------------------------


def observation(k, version, **more):
    return {
        "id": f"o{k}{version}",
        "trace_id": f"t{k}{version}",
        "type": "GENERATION",
        "parent_observation_id": "",
        "start_time": "2026-01-01 00:00:00.000000",
        "end_time": "2026-01-01 00:00:01.250000",
        "level": "DEFAULT",
        "status_message": "",
        "input": json.dumps([{"role": "system", "content": version}, {"role": "user", "content": f"q{k}"}]),
        "output": "out",
        "provided_model_name": "gpt",
        "model_parameters": '{"temperature": 0.7}',
        "usage_details": {"input": 11, "output": 3},
        "prompt_name": "answer",
        "prompt_version": version,
        "total_cost": 0.25,
        "latency": 1250,
        "metadata": {"category": "maths"},
        **more,
    }


def scored(k, version, name, value, *, trace=False, kind="NUMERIC", string=None):
    return {
        "id": "s",
        "trace_id": f"t{k}{version}",
        "observation_id": None if trace else f"o{k}{version}",
        "name": name,
        "value": value,
        "data_type": kind,
        "string_value": string,
        "source": "EVAL",
    }


OBSERVED = [observation(k, version) for k in (1, 2) for version in ("1", "2")]
SCORES = [
    *(scored(k, v, "exact", float(v == "2")) for k in (1, 2) for v in ("1", "2")),
    scored(1, "1", "thumb", 1, trace=True, kind="CATEGORICAL", string="pass"),
    scored(1, "2", "mood", 2, kind="CATEGORICAL", string="sunny"),
]


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
def test_langfuse_with_its_scores_beside(written, reader, one_log, kind):
    span = observation(1, "1", id="span", type="SPAN", prompt_name="", input="")
    path = written([*OBSERVED, span], kind, "observations_v2/2026")
    scores = written(SCORES, kind, "scores/2026")
    assert sure(reader, "langfuse", path) == 0.95
    assert sure(reader, "langfuse", scores) == 0.95
    assert list(reader("langfuse").read(scores)) == []  # read with the observations
    log, trials = one_log("langfuse", path)
    assert [(t.question, t.settings["prompt"]["prompt_version"], t.scores["exact"]) for t in trials] == [
        ("q1", "1", 0.0),
        ("q1", "2", 1.0),
        ("q2", "1", 0.0),
        ("q2", "2", 1.0),
    ]
    assert trials[0].scores["thumb"] == 1.0
    assert log.notes == ("left out, as their values are no scores: mood",)
    first = trials[0]
    assert (first.latency_s, first.cost, first.prompt_tokens) == (1.25, 0.25, 11)
    assert first.settings["sampling"] == {"model_parameters.temperature": 0.7}
    assert first.settings["model"] == {"provided_model_name": "gpt"}
    assert first.covariates == {"category": "maths"}


def test_langfuse_scores_of_a_trace_with_several_generations_are_given_to_none(written, one_log):
    rows = [observation(1, "1"), observation(1, "1", id="other")]
    path = written(rows, "jsonl", "observations_v2/x")
    written([scored(1, "1", "exact", 1.0, trace=True)], "jsonl", "scores/x")
    log, trials = one_log("langfuse", path)
    assert [t.scores for t in trials] == [{}, {}]
    assert "1 traces with several generations" in log.notes[0]


def test_langfuse_as_its_interface_names_things(written, reader, one_log):
    row = {
        "id": "o",
        "traceId": "t",
        "type": "GENERATION",
        "startTime": "2026-01-01T00:00:00Z",
        "promptName": "answer",
        "promptVersion": 3,
        "input": "1 + 1?",
        "output": "2",
        "level": "ERROR",
        "statusMessage": "timeout",
        "scores": [{"name": "exact", "value": 1, "dataType": "NUMERIC"}],
    }
    path = written([row])
    assert sure(reader, "langfuse", path) == 0.95
    log, (trial,) = one_log("langfuse", path)
    assert trial.settings["prompt"] == {"prompt_name": "answer", "prompt_version": 3}
    assert (trial.error, trial.scores) == ("timeout", {"exact": None})
    assert log.notes == ()


def test_langfuse_scores_alone_are_refused(written, reader):
    path = written(SCORES, "jsonl", "scores/x")
    with pytest.raises(DataError, match="has scores alone"):
        list(reader("langfuse").read(path))


# --- OpenTelemetry ------------------------------------------------------------------------------------------


def keyed(**values):
    kinds = {str: "stringValue", int: "intValue", float: "doubleValue", bool: "boolValue"}
    return [
        {"key": k.replace("__", "."), "value": {kinds[type(v)]: str(v) if type(v) is int else v}}
        for k, v in values.items()
    ]


def evaluated(value, label="pass"):
    return keyed(
        gen_ai__evaluation__name="exact",
        gen_ai__evaluation__score__value=value,
        gen_ai__evaluation__score__label=label,
    )


def span(k, prompt, events=(), **more):
    messages = [{"role": "user", "parts": [{"type": "text", "content": f"q{k}"}]}]
    answer = [{"role": "assistant", "parts": [{"type": "text", "content": "out"}]}]
    return {
        "traceId": "t",
        "spanId": f"{prompt}{k}",
        "startTimeUnixNano": "1700000000000000000",
        "endTimeUnixNano": "1700000001500000000",
        "attributes": keyed(
            gen_ai__operation__name="chat",
            gen_ai__prompt__name=prompt,
            gen_ai__request__model="gpt",
            gen_ai__request__temperature=0.5,
            gen_ai__provider__name="openai",
            gen_ai__usage__input_tokens=7,
            gen_ai__usage__output_tokens=2,
            gen_ai__response__id=f"r{prompt}{k}",
            gen_ai__input__messages=json.dumps(messages),
            gen_ai__output__messages=json.dumps(answer),
        ),
        "events": [{"name": "gen_ai.evaluation.result", "attributes": e} for e in events],
        "status": {},
        **more,
    }


def document(spans=(), records=()):
    resource = {"attributes": keyed(service__name="app")}
    found = {}
    if spans:
        found["resourceSpans"] = [{"resource": resource, "scopeSpans": [{"spans": list(spans)}]}]
    if records:
        found["resourceLogs"] = [{"resource": resource, "scopeLogs": [{"logRecords": list(records)}]}]
    return found


TOOL = {"spanId": "tool", "attributes": keyed(gen_ai__operation__name="execute_tool"), "status": {}}


def test_spans_with_their_evaluations(written, reader, one_log):
    spans = [
        span(k, prompt, [evaluated(float(prompt == "cot"))]) for k in (1, 2) for prompt in ("direct", "cot")
    ]
    path = written(document([*spans, TOOL]), "pretty")
    assert sure(reader, "opentelemetry", path) == 1.0
    _, trials = one_log("opentelemetry", path)
    assert [(t.question, t.settings["prompt"]["gen_ai.prompt.name"], t.scores) for t in trials] == [
        ("q1", "direct", {"exact": 0.0}),
        ("q1", "cot", {"exact": 1.0}),
        ("q2", "direct", {"exact": 0.0}),
        ("q2", "cot", {"exact": 1.0}),
    ]
    first = trials[0]
    assert (first.prompt, first.completion, first.latency_s, first.prompt_tokens) == ("q1", "out", 1.5, 7)
    assert first.started_at == "2023-11-14T22:13:20+00:00"
    assert first.settings["engine"] == {"gen_ai.provider.name": "openai"}
    assert first.settings["sampling"] == {"gen_ai.request.temperature": 0.5}


def test_evaluations_as_log_records_lines_apart(written, one_log):
    """A collector writes a line a batch, logs apart from spans: found by the span's id, or the response's."""
    records = [
        {"eventName": "gen_ai.evaluation.result", "spanId": "a1", "attributes": evaluated(0.25)},
        {
            "attributes": evaluated(0.75)
            + keyed(event__name="gen_ai.evaluation.result", gen_ai__response__id="ra2")
        },
    ]
    path = written([document(records=records), document([span(1, "a")]), document([span(2, "a")])], "jsonl")
    _, trials = one_log("opentelemetry", path)
    assert [t.scores for t in trials] == [{"exact": 0.25}, {"exact": 0.75}]


def test_a_span_that_failed_and_labels_without_a_number(written, one_log):
    label = keyed(gen_ai__evaluation__name="exact", gen_ai__evaluation__score__label="fail")
    failed = span(1, "a", [evaluated(1.0)], status={"code": 2, "message": "429"})
    _, (first, second) = one_log("opentelemetry", written(document([failed, span(2, "a", [label])])))
    assert (first.error, first.scores) == ("429", {"exact": None})
    assert (second.error, second.scores) == (None, {"exact": 0.0})


def test_system_instructions_are_sent_too(written, one_log):
    told = {
        "key": "gen_ai.system_instructions",
        "value": {"stringValue": '[{"type": "text", "content": "Brief."}]'},
    }
    one = span(1, "a")
    _, (trial,) = one_log(
        "opentelemetry", written(document([one | {"attributes": [*one["attributes"], told]}]))
    )
    assert trial.prompt == "system:\nBrief.\n\nuser:\nq1"
    assert trial.question == "q1"


def test_conversations_of_older_conventions(written, one_log):
    old = {
        "spanId": "x",
        "attributes": keyed(gen_ai__request__model="gpt", gen_ai__system="openai")
        + [
            {"key": f"gen_ai.{k}", "value": {"stringValue": v}}
            for k, v in (
                ("prompt.0.role", "system"),
                ("prompt.0.content", "Be brief."),
                ("prompt.1.role", "user"),
                ("prompt.1.content", "q"),
                ("completion.0.role", "assistant"),
                ("completion.0.content", "a"),
            )
        ],
    }
    _, (trial,) = one_log("opentelemetry", written(document([old])))
    assert (trial.question, trial.completion, trial.scores) == ("q", "a", {})
    assert trial.settings["engine"] == {"gen_ai.system": "openai"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (document(records=[{"spanId": "a", "attributes": []}]), "holds no spans"),
        ({"resourceSpans": [3]}, "is not as OTLP JSON is"),
    ],
)
def test_what_is_no_otlp_is_named(written, one_log, content, message):
    with pytest.raises(DataError, match=message):
        one_log("opentelemetry", written(content))


def test_no_export_is_anothers(written, reader):
    """Every made file is of its own reader, and of no other but a plain table."""
    files = {
        "phoenix": written(PHOENIX, "json", "p"),
        "braintrust": written(BRAINTRUST, "csv", "b"),
        "langsmith": written(RUNS, "jsonl", "l"),
        "langfuse": written(OBSERVED, "csv", "f"),
        "opentelemetry": written(document([span(1, "a")]), "json", "o"),
    }
    every = (*files, "promptfoo", "dspy", "alpaca_eval", "openai_evals", "inspect_log", "lm_eval", "helm")
    for owner, path in files.items():
        claims = {name for name in (*every, "every_eval_ever") if sure(reader, name, path)}
        assert claims == {owner}
        assert sure(reader, "plain", path) < 0.5
