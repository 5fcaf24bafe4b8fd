"""Small logs as each tool's documents describe them, for the pages on tools without real files at hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ARMS = ("direct", "cot")
TEMPLATES = {"direct": "Answer with a number only.", "cot": "Let us think step by step."}
ITEMS = range(12)


def question(k):
    return f"What is {k} + {k + 3}?"


def right(k, arm):
    """Say whether an arm gets an item right: four gain and one loses."""
    return k % 2 == 0 if arm == "direct" else k not in {2, 3, 7}


def answer(k, arm):
    return str(2 * k + 3 if right(k, arm) else 2 * k + 4)


def cells():
    return [(k, arm) for arm in ARMS for k in ITEMS]


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def document(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def helm(place):
    for arm in ARMS:
        folder = place / "benchmark_output" / "runs" / arm
        spec = {
            "name": f"sums:arm={arm}",
            "scenario_spec": {"class_name": "helm.benchmark.scenarios.sums.SumsScenario", "args": {}},
            "adapter_spec": {
                "method": "generation",
                "instructions": TEMPLATES[arm],
                "max_train_instances": 0,
                "model": "openai/gpt2",
                "model_deployment": "huggingface/gpt2",
                "temperature": 0.0,
            },
            "metric_specs": [{"class_name": "helm.benchmark.metrics.basic_metrics.BasicGenerationMetric"}],
        }
        records, states = [], []
        for k in ITEMS:
            value = float(right(k, arm))
            stat = {"name": {"name": "exact_match", "split": "test"}, "count": 1, "sum": value, "mean": value}
            records.append({"instance_id": f"id{k}", "train_trial_index": 0, "stats": [stat]})
            states.append(
                {
                    "instance": {
                        "id": f"id{k}",
                        "split": "test",
                        "input": {"text": question(k)},
                        "references": [{"output": {"text": str(2 * k + 3)}, "tags": ["correct"]}],
                    },
                    "train_trial_index": 0,
                    "request": {"prompt": f"{TEMPLATES[arm]}\n{question(k)}"},
                    "result": {"success": True, "completions": [{"text": answer(k, arm)}]},
                }
            )
        document(folder / "run_spec.json", spec)
        document(folder / "per_instance_stats.json", records)
        document(folder / "scenario_state.json", {"adapter_spec": {}, "request_states": states})


def alpaca_eval(place):
    for arm in ARMS:
        rows = [
            {
                "instruction": f"Explain the number {k}.",
                "output_1": "Theirs.",
                "generator_1": "gpt4_1106_preview",
                "dataset": "helpful_base",
                "output_2": f"Mine, {arm}.",
                "generator_2": f"my_model_{arm}",
                "annotator": "weighted_alpaca_eval_gpt4_turbo",
                "preference": 1.0 + (0.9 if right(k, arm) else 0.25),
            }
            for k in ITEMS
        ]
        document(place / f"my_model_{arm}" / "annotations.json", rows)


def openai_evals(place):
    for arm in ARMS:
        spec = {
            "completion_fns": ["gpt-3.5-turbo"],
            "eval_name": f"sums-{arm}.dev.v0",
            "split": "dev",
            "run_config": {
                "eval_spec": {
                    "cls": "evals.elsuite.basic.match:Match",
                    "args": {"samples_jsonl": f"sums/{arm}.jsonl"},
                },
                "seed": 20220722,
            },
            "run_id": arm,
        }
        events = []
        for k in ITEMS:
            own = {"run_id": arm, "sample_id": f"sums-{arm}.dev.{k}"}
            prompt = [{"role": "system", "content": TEMPLATES[arm]}, {"role": "user", "content": question(k)}]
            said = {"prompt": prompt, "sampled": [answer(k, arm)]}
            events.append({**own, "type": "sampling", "data": said})
            got = {"correct": right(k, arm), "expected": str(2 * k + 3)}
            events.append({**own, "type": "match", "data": got})
        accuracy = sum(right(k, arm) for k in ITEMS) / len(ITEMS)
        lines(place / f"{arm}.jsonl", [{"spec": spec}, *events, {"final_report": {"accuracy": accuracy}}])


def langfuse(place):
    seen, scores = [], []
    for k, arm in cells():
        version = ARMS.index(arm) + 1
        sent = [{"role": "system", "content": TEMPLATES[arm]}, {"role": "user", "content": question(k)}]
        own = {"id": f"o{k}-{version}", "trace_id": f"t{k}-{version}"}
        seen.append(
            {
                **own,
                "type": "GENERATION",
                "start_time": f"2026-01-0{version} 00:00:{k:02d}.000000",
                "end_time": f"2026-01-0{version} 00:01:{k:02d}.000000",
                "level": "DEFAULT",
                "input": json.dumps(sent),
                "output": answer(k, arm),
                "provided_model_name": "gpt-4o-mini",
                "model_parameters": '{"temperature": 0}',
                "usage_details": {"input": 30, "output": 9},
                "prompt_name": "sums",
                "prompt_version": version,
            }
        )
        scored = {"trace_id": own["trace_id"], "observation_id": own["id"], "name": "exact"}
        value = {"value": int(right(k, arm)), "data_type": "NUMERIC", "source": "EVAL"}
        scores.append({"id": f"s{own['id']}", **scored, **value})
    lines(place / "export" / "observations_v2" / "2026-01.jsonl", seen)
    lines(place / "export" / "scores" / "2026-01.jsonl", scores)


def langsmith(place):
    for arm in ARMS:
        lines(
            place / f"{arm}.jsonl",
            [
                {
                    "id": f"run{k}{arm}",
                    "run_type": "chain",
                    "dotted_order": f"2026{k}",
                    "parent_run_id": None,
                    "session_id": f"session-{arm}",
                    "session_name": f"sums-{arm}",
                    "reference_example_id": f"ex{k}",
                    "inputs": {"question": question(k)},
                    "outputs": {"answer": answer(k, arm)},
                    "feedback_stats": {"exact": {"n": 1, "avg": float(right(k, arm))}},
                    "error": None,
                }
                for k in ITEMS
            ],
        )


def phoenix(place):
    for arm in ARMS:
        document(
            place / f"{arm}.json",
            [
                {
                    "example_id": f"RGF0YXNldEV4YW1wbGU6{k}",
                    "repetition_number": 1,
                    "input": {"question": question(k)},
                    "reference_output": {"answer": str(2 * k + 3)},
                    "output": answer(k, arm),
                    "error": None,
                    "latency_ms": 900.0,
                    "start_time": "2026-01-01T00:00:00+00:00",
                    "end_time": "2026-01-01T00:00:01+00:00",
                    "annotations": [
                        {"name": "exact", "score": float(right(k, arm)), "label": None, "error": None}
                    ],
                }
                for k in ITEMS
            ],
        )


def braintrust(place):
    for arm in ARMS:
        document(
            place / f"{arm}.json",
            {
                "events": [
                    {
                        "id": f"{arm}{k}",
                        "span_id": f"s{arm}{k}",
                        "root_span_id": f"s{arm}{k}",
                        "experiment_id": f"exp-{arm}",
                        "dataset_record_id": f"r{k}",
                        "input": {"question": question(k)},
                        "output": answer(k, arm),
                        "expected": str(2 * k + 3),
                        "scores": {"ExactMatch": float(right(k, arm))},
                        "metadata": {"model": "gpt-4o-mini"},
                        "metrics": {"prompt_tokens": 20, "completion_tokens": 4},
                        "error": None,
                    }
                    for k in ITEMS
                ]
            },
        )


def _keyed(values):
    kinds = {str: "stringValue", int: "intValue", float: "doubleValue"}
    return [
        {"key": name, "value": {kinds[type(value)]: str(value) if type(value) is int else value}}
        for name, value in values.items()
    ]


def opentelemetry(place):
    spans = []
    for k, arm in cells():
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.prompt.name": arm,
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.provider.name": "openai",
            "gen_ai.input.messages": json.dumps(
                [
                    {"role": role, "parts": [{"type": "text", "content": text}]}
                    for role, text in (("system", TEMPLATES[arm]), ("user", question(k)))
                ]
            ),
            "gen_ai.output.messages": json.dumps(
                [{"role": "assistant", "parts": [{"type": "text", "content": answer(k, arm)}]}]
            ),
        }
        result = {
            "gen_ai.evaluation.name": "exact",
            "gen_ai.evaluation.score.value": float(right(k, arm)),
        }
        spans.append(
            {
                "traceId": f"{k:032x}",
                "spanId": f"{arm}{k}",
                "startTimeUnixNano": "1767225600000000000",
                "endTimeUnixNano": "1767225601000000000",
                "attributes": _keyed(attributes),
                "events": [{"name": "gen_ai.evaluation.result", "attributes": _keyed(result)}],
                "status": {},
            }
        )
    resource = {"attributes": _keyed({"service.name": "sums"})}
    lines(
        place / "spans.jsonl",
        [
            {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans[n : n + 8]}]}]}
            for n in (0, 8, 16)
        ],
    )


def every_eval_ever(place):
    """Write the trial table that the page's own code makes the files of."""
    import pandas as pd

    rows = [
        {
            "item_id": f"q{k}",
            "arm": arm,
            "rep": 1,
            "question": question(k),
            "answer": str(2 * k + 3),
            "completion": answer(k, arm),
            "model": "dev/m-1",
            "exact_match": float(right(k, arm)),
        }
        for k, arm in cells()
    ]
    pd.DataFrame(rows).to_parquet(place / "trials.parquet")


def spreadsheet(place):
    import pandas as pd

    wide = pd.DataFrame(
        {
            "question": [question(k) for k in ITEMS],
            "score_direct": [int(right(k, "direct")) for k in ITEMS],
            "score_cot": [int(right(k, "cot")) for k in ITEMS],
        }
    )
    wide.to_csv(place / "wide.csv", index=False)
    long = pd.DataFrame(
        {
            "question": [question(k) for k, _ in cells()],
            "prompt_version": [arm for _, arm in cells()],
            "correct": ["yes" if right(k, arm) else "no" for k, arm in cells()],
        }
    )
    long.to_csv(place / "long.csv", index=False)


def real(name, *files):
    """Make a page's files out of real ones: each pattern of the real logs with the name on the page."""

    def copy(place, logs):
        for pattern, target in files:
            found = sorted((logs / name).glob(pattern))
            assert len(found) == 1, pattern
            path = place / target
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(found[0].read_bytes())

    return copy


MADE = {
    "alpaca-eval": alpaca_eval,
    "openai-evals": openai_evals,
    "helm": helm,
    "langfuse": langfuse,
    "langsmith": langsmith,
    "phoenix": phoenix,
    "braintrust": braintrust,
    "opentelemetry": opentelemetry,
    "every-eval-ever": every_eval_ever,
    "spreadsheet": spreadsheet,
}
_TIME = "2026-11-24T02-37-20.929994"
REAL = {
    "inspect": real("inspect_ai", ("*direct*.eval", "logs/direct.eval"), ("*cot*.eval", "logs/cot.eval")),
    "lm-eval": real(
        "lm_eval",
        *(
            (f"{name}_{_TIME}.{end}", f"out/{name}_{_TIME}.{end}")
            for name, end in (
                ("results", "json"),
                ("samples_gsm8k_cot_local", "jsonl"),
                ("samples_gsm8k_direct_local", "jsonl"),
            )
        ),
    ),
    "promptfoo": real("promptfoo", ("small.json", "results.json"), ("small.csv", "results.csv")),
    "dspy": real("dspy", ("dspy_direct.json", "direct.json"), ("dspy_cot.json", "cot.json")),
}


def place_for(name: str, place: Path, logs: Path | None) -> None:
    """Lay out the files that a page speaks of."""
    if name in MADE:
        MADE[name](place)
    else:
        REAL[name](place, logs)
