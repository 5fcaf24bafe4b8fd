"""A log in which any one value is of another kind is read, or refused by its name: never a traceback."""

import copy
import json

import pytest

from whyprompt.errors import DataError
from whyprompt.trials.readers.record import Log

PROMPTFOO = {
    "evalId": "e",
    "results": {
        "version": 3,
        "timestamp": "2026-01-01",
        "prompts": [
            {
                "id": "p",
                "raw": "{{question}}",
                "label": "a",
                "provider": "m",
                "metrics": {
                    "score": 1,
                    "testPassCount": 1,
                    "testFailCount": 0,
                    "namedScores": {"exact": 1},
                    "namedScoresCount": {"exact": 1},
                },
            }
        ],
        "results": [
            {
                "cost": 0.1,
                "error": None,
                "gradingResult": {"pass": True, "score": 1, "namedScores": {"exact": 1}},
                "latencyMs": 3,
                "namedScores": {"exact": 1},
                "prompt": {"raw": "q", "label": "a"},
                "promptId": "p",
                "promptIdx": 0,
                "provider": {"id": "m", "label": "m"},
                "response": {"output": "o", "tokenUsage": {"prompt": 1, "completion": 2}, "cached": False},
                "score": 1,
                "success": True,
                "testCase": {
                    "description": "d",
                    "vars": {"question": "q", "answer": "a"},
                    "metadata": {"id": "x"},
                    "assert": [{"type": "equals", "metric": "exact", "provider": {"id": "j"}}],
                },
                "testIdx": 0,
                "vars": {"question": "q", "answer": "a"},
                "failureReason": 0,
            }
        ],
    },
    "config": {
        "description": "d",
        "providers": [{"id": "m", "config": {"temperature": 0, "apiBaseUrl": "http://h/v1"}}],
    },
    "metadata": {"promptfooVersion": "1"},
}
EVALS = [
    {
        "spec": {
            "completion_fns": ["m"],
            "eval_name": "e",
            "run_config": {"eval_spec": {"cls": "c", "args": {"samples_jsonl": "s"}}, "seed": 1},
            "run_id": "R",
        }
    },
    {"final_report": {"accuracy": 1.0, "boostrap_std": 0.1}},
    {
        "run_id": "R",
        "sample_id": "s",
        "type": "sampling",
        "data": {"prompt": [{"role": "user", "content": "q"}], "sampled": ["a"]},
        "created_at": "x",
    },
    {
        "run_id": "R",
        "sample_id": "s",
        "type": "match",
        "data": {"correct": True, "expected": "a", "picked": None},
        "created_at": "x",
    },
]
SPAN = {
    "spanId": "a",
    "startTimeUnixNano": "17",
    "endTimeUnixNano": "19",
    "attributes": [
        {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "3"}},
        {
            "key": "gen_ai.input.messages",
            "value": {"stringValue": '[{"role": "user", "parts": [{"content": "q"}]}]'},
        },
    ],
    "events": [
        {
            "name": "gen_ai.evaluation.result",
            "attributes": [
                {"key": "gen_ai.evaluation.name", "value": {"stringValue": "x"}},
                {"key": "gen_ai.evaluation.score.value", "value": {"doubleValue": 0.5}},
            ],
        }
    ],
    "status": {"code": 0},
}
MADE = {
    "promptfoo": PROMPTFOO,
    "dspy": [{"question": "q", "example_answer": "a", "id": 1, "pred_answer": "a", "exact": True}] * 2,
    "alpaca_eval": [
        {
            "instruction": "q",
            "output_1": "o",
            "generator_1": "g",
            "output_2": "p",
            "generator_2": "h",
            "dataset": "d",
            "annotator": "j",
            "preference": 1.5,
        }
    ],
    "openai_evals": EVALS,
    "phoenix": [
        {
            "example_id": "e",
            "repetition_number": 1,
            "input": {"question": "q"},
            "reference_output": {"answer": "a"},
            "output": "o",
            "error": None,
            "latency_ms": 3.0,
            "start_time": "2026-01-01T00:00:00",
            "end_time": "2026-01-01T00:00:01",
            "annotations": [{"name": "x", "score": 1.0, "label": "y", "error": None}],
        }
    ],
    "braintrust": [
        {
            "span_id": "s",
            "root_span_id": "s",
            "experiment_id": "x",
            "input": {"messages": [{"role": "user", "content": "q"}]},
            "output": "o",
            "expected": {"answer": "a"},
            "scores": {"exact": 1},
            "metadata": {"model": "m", "category": "c"},
            "metrics": {"start": 1.0, "end": 2.0, "prompt_tokens": 3},
            "origin": {"id": "o"},
        }
    ],
    "langsmith": [
        {
            "id": "e",
            "inputs": {"question": "q"},
            "outputs": {"answer": "a"},
            "metadata": {"topic": "t"},
            "runs": [
                {
                    "run_type": "chain",
                    "session_id": "s",
                    "inputs": {"question": "q"},
                    "outputs": {"answer": "o"},
                    "feedback_stats": {"exact": {"n": 1, "avg": 1.0}},
                    "extra": {"metadata": {"ls_model_name": "m"}},
                    "start_time": "2026-01-01T00:00:00",
                    "end_time": "2026-01-01T00:00:01",
                    "total_cost": 0.1,
                }
            ],
        }
    ],
    "langfuse": [
        {
            "id": "o",
            "trace_id": "t",
            "type": "GENERATION",
            "start_time": "2026-01-01 00:00:00",
            "end_time": "2026-01-01 00:00:01",
            "prompt_name": "p",
            "prompt_version": 1,
            "input": [{"role": "user", "content": [{"type": "text", "text": "q"}]}],
            "output": "o",
            "model_parameters": {"temperature": 0},
            "usage_details": {"input": 1},
            "metadata": {"category": "c"},
            "scores": [{"name": "exact", "value": 1}],
        }
    ],
    "opentelemetry": {"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": [SPAN]}]}]},
    "plain": [
        {"item_id": "i", "arm": "a", "rep": 1, "score": 1.0, "cost": 0.1, "topic": "t", "error": None},
        {"item_id": "i", "arm": "b", "rep": 1, "score": 0.0, "cost": 0.1, "topic": "t", "error": None},
    ],
}
OTHERS = (None, -1.5, "x", ["x"], {"x": 1}, True, float("nan"), 1e300)


def places(node, way=()):
    yield way
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inside:
        yield from places(value, (*way, key))


def changed(document, way, value):
    if not way:
        return value
    whole = copy.deepcopy(document)
    node = whole
    for key in way[:-1]:
        node = node[key]
    if value is DROP:
        del node[way[-1]]
    else:
        node[way[-1]] = value
    return whole


DROP = object()


@pytest.mark.parametrize("name", MADE)
def test_any_value_may_be_of_another_kind(reader, tmp_path, name):
    module = reader(name)
    path = tmp_path / "log.json"
    lines = name == "openai_evals"
    read, refused = 0, set()
    for way in places(MADE[name]):
        for other in (*OTHERS, *([DROP] if way else ())):
            document = changed(MADE[name], way, other)
            if lines:
                rows = document if isinstance(document, list) else [document]
                path.write_text("\n".join(map(json.dumps, rows)))
            else:
                path.write_text(json.dumps(document))
            try:
                for log in module.read(path):
                    assert isinstance(log, Log)
                    for trial in log.trials():
                        assert all(s is None or s == s for s in trial.scores.values())  # noqa: PLR0124
                        assert isinstance(trial.item, str)
                        assert isinstance(trial.question, str)
                        assert isinstance(trial.rep, int)
                        hash((trial.prompt, trial.completion, trial.error))
                        for values in (trial.covariates, *trial.settings.values(), *log.settings.values()):
                            assert all(isinstance(v, str | int | float) for v in values.values())
                read += 1
            except DataError as error:
                refused.add(str(error))
            except Exception as error:
                raise AssertionError((way, other)) from error
    assert read > 10
    assert refused
    assert all(message.startswith(str(path)) for message in refused)
