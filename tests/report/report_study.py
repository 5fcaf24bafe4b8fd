"""A small study with every part a page can show: a trial table in memory, and sweeps of random numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd

from whyprompt import compare_mediation, contrast_heads, infer_heads
from whyprompt.answers import HeadStudy, StudyMediation
from whyprompt.mediation import AttentionCapture, HeadCapture, HeadSearch, Sweep, mean_interval
from whyprompt.mediation.engine.sites import as_site
from whyprompt.results import Estimate
from whyprompt.study import Contrast, Study

TASKS = ("arithmetic", "letters", "spelling")
GRAPH = (
    "task_type -> arm; task_type -> log_prob; difficulty -> arm; difficulty -> log_prob; "
    "arm -> prompt_tokens; prompt_tokens -> log_prob; arm -> log_prob"
)
LAYERS, HEADS, SWEPT = 5, 3, 12
# What a prompt may hold, and a page must show without running it.
HOSTILE = "What is <b>2 & 2</b>?</script><script>window.broken = true</script>"


def make_study(**changes):
    plan = {
        "name": "small_study",
        "question": "Do examples raise the log-probability of the right answer?",
        "items": [{"source": "reasoning_gym", "dataset": "chain_sum", "size": 36}],
        "arms": {
            "direct": {"kind": "direct"},
            "shots": {"kind": "few_shot", "shots": 2},
            "other": {"kind": "format", "format": "json"},
        },
        "reps": 2,
        "graph": GRAPH,
        "effect": {
            "outcome": "log_prob",
            "contrast": {"treated": "shots", "control": "direct"},
            "audit": {
                "assignment": {"difficulty": 1.0},
                "method": {"nearest": {"exact": ["task_type"], "caliper": 0.5}},
                "draws": 12,
            },
        },
        "mediation": {"placebo": "other"},
    }
    return Study.model_validate(plan | changes)


def make_frame(*, per_task=16, reps=2, seed=3):
    rng = np.random.default_rng(seed)
    rows = []
    for at, task in enumerate(TASKS):
        for k in range(per_task):
            difficulty = int(rng.integers(1, 6))
            base = -2.0 - at - 0.5 * difficulty + rng.normal(0, 0.4)
            gain = 0.8 - 0.5 * at + rng.normal(0, 0.5)
            for rep in range(reps):
                for arm, shift in (("direct", 0.0), ("shots", gain), ("other", 0.05)):
                    y = base + shift + rng.normal(0, 0.1)
                    rows.append(
                        {
                            "item_id": f"{task}-{k}",
                            "arm": arm,
                            "rep": rep,
                            "task_type": task,
                            "difficulty": difficulty,
                            "question_tokens": 10 + 3 * difficulty + at,
                            "prompt": f"{HOSTILE} ({arm})",
                            "prompt_tokens": 20 + 30 * (arm == "shots"),
                            "log_prob": y,
                            "exact_match": float(y > -3),
                            "cluster": f"{task}-{k}",
                        }
                    )
    return pd.DataFrame(rows)


def make_sweep(frame, treated, *, layers=LAYERS, heads=HEADS, swept=SWEPT, seed=0, scale=1.0, beside=()):
    rng = np.random.default_rng(seed)
    items = list(dict.fromkeys(frame["item_id"]))[:: max(1, frame["item_id"].nunique() // swept)][:swept]
    first = frame[frame["rep"] == 0].set_index(["item_id", "arm"])["log_prob"]
    y00 = np.array([first[i, "direct"] for i in items])
    y11 = np.array([first[i, treated] for i in items])
    size = np.zeros(layers * heads)
    # One head that carries much, one that works against it.
    size[[4, 8]] = 0.9 * scale, -0.4 * scale
    nie = size + rng.normal(0, 0.08 * scale, (len(items), layers * heads))
    # What lies beside the heads: ever more of the effect, the higher the layer.
    shares = [(as_site(name).layer + 1) / layers * (1 if "resid" in name else 0.3) for name in beside]
    nie = np.column_stack([nie, *((y11 - y00) * share for share in shares)])
    return Sweep(
        mediator="head_output",
        outcome="log_prob",
        model="tiny",
        item_ids=tuple(items),
        clusters=tuple(items),
        n_layers=layers,
        n_heads=heads,
        sites=(*((layer, head) for layer in range(layers) for head in range(heads)), *beside),
        y00=y00,
        y11=y11,
        y10=y11[:, None] - nie,
        y01=y00[:, None] + 0.9 * nie,
    )


def make_picture(sweep, arm, tokens, segments, seed):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(len(tokens), 0.3), len(sweep.heads))
    return HeadCapture(
        item_id=sweep.item_ids[0],
        arm=arm,
        tokens=tuple(tokens),
        segments=tuple(segments),
        heads=sweep.heads,
        weights=(np.round(weights * 255) / 255)[:, None],
    )


def make_capture(sweep, seed=9):
    """Give attention mass that goes with the outcome in one head, and does not vary in another."""
    rng = np.random.default_rng(seed)
    segments = ("question", "shots", "template", "(other)")
    mass = rng.dirichlet(np.ones(4), (len(sweep.item_ids), 2, len(sweep.heads)))
    mass[:, 0, :, 1] = np.nan
    mass[:, 1, 3, 1] = 0.25
    mass[:, 1, 6, 1] = 0.5 + 0.05 * (sweep.y11 - sweep.y11.mean())
    return AttentionCapture(
        item_ids=sweep.item_ids,
        clusters=sweep.clusters,
        heads=sweep.heads,
        segments=segments,
        mass=mass,
        entropy=np.ones(mass.shape[:3]),
    )


def make_mediation(frame, *, layers=LAYERS, heads=HEADS, swept=SWEPT, name="small_study", beside=()):
    size = {"layers": layers, "heads": heads, "swept": swept, "beside": beside}
    main = make_sweep(frame, "shots", **size)
    placebo = make_sweep(frame, "other", **size, seed=1, scale=0.1)

    def studied(treated, sweep):
        return HeadStudy(
            contrast=Contrast(treated=treated, control="direct"),
            sweep=sweep,
            inference=infer_heads(sweep, draws=2000),
        )

    te = main.te[:6]
    ends = {"nie": (0.61, 0.33, 0.89), "pure_nie": (0.7, -np.inf, np.inf)}
    shares = [
        Estimate(label="share", by=way, estimate=share, ci_low=low, ci_high=high)
        for way, (share, low, high) in ends.items()
    ]
    search = HeadSearch(
        overall=mean_interval(te),
        parts=(
            *shares,
            *(
                replace(mean_interval(part * te), label=label, by=s.by)
                for s in shares
                for label, part in (("joint", s.estimate), ("direct", 1 - s.estimate))
            ),
        ),
        method="greedy",
        share=0.8,
        sites=("head 1.1",),
        path=("head 1.1", "head 2.2"),
        searched={"nie": np.array([0.82, 0.9]), "pure_nie": np.array([0.85, 0.95])},
        held_out={"nie": np.array([0.61, 0.66]), "pure_nie": np.array([0.7, 0.68])},
        reached=True,
        search_items=main.item_ids[6:],
        held_out_items=main.item_ids[:6],
        sentence="1 head (1.1; layer.head) carries 61% of the total effect on 6 held-out items.",
    )
    words = ["<|user|>", "\n", "What", " is", " 2", " &", " 2", "?", "</script>", "\n", "Answer", ":", " "]
    parts = ["template"] * 2 + ["question"] * 6 + ["template"] * 2 + ["cue"] * 2 + [""]
    more = ["<|user|>", "\n", "1", " +", " 1", " =", " 2", *words[1:]]
    more_parts = ["template"] * 2 + ["shots"] * 5 + parts[1:]
    study = studied("shots", main)
    capture = make_capture(main)
    held = studied("other", placebo)
    return StudyMediation(
        study=name,
        model="tiny",
        outcome="log_prob",
        mediator="head_output",
        main=study,
        further=(),
        differences={"shots against direct, less other against direct": contrast_heads(main, placebo)},
        placebo=held,
        search=search,
        search_note="",
        attention=(
            make_picture(main, "direct", words, parts, 5),
            make_picture(main, "shots", more, more_parts, 6),
        ),
        capture=capture,
        comparison=compare_mediation(main, capture, "shots", draws=200),
        comparison_note="",
        item_tasks={i: i.rsplit("-", 1)[0] for i in main.item_ids},
        sentence=f"'shots' against 'direct': {study.inference.sentence}",
    )


MANIFEST = {
    "study": "small_study",
    "study_text": "name: small_study\n# a <tag> & more\n",
    "study_fingerprint": "0123456789abcdef" * 4,
    "data_fingerprint": "fedcba9876543210" * 4,
    "trials": 288,
    "items": 48,
    "model": {"name": "tiny", "dtype": "float32", "device": "cpu", "notes": ["dtype float32"]},
    "seeds": {"items": 0, "shots": 0},
    "versions": {"python": "3.11", "whyprompt": "0.1"},
    "platform": {"system": "Linux"},
    "command": ["whyprompt", "run", "small.yaml"],
    "started_at": "2026-01-01T00:00:00+00:00",
    "notices": [],
}


def values(chart):
    """Give every row that a chart holds, with the layers apart."""
    spec = chart.to_dict()
    # A number that JSON cannot hold would break the chart where it is read.
    json.dumps(spec, allow_nan=False)
    found = []

    def walk(node):
        if isinstance(node, dict):
            if isinstance(node.get("data"), dict):
                if "values" in node["data"]:
                    found.append(node["data"]["values"])
                elif "name" in node["data"]:
                    found.append(spec["datasets"][node["data"]["name"]])
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(spec)
    return found


def rows_with(chart, *keys):
    """Give the rows of the first layer that has all these columns."""
    for rows in values(chart):
        if rows and all(k in rows[0] for k in keys):
            return rows
    raise AssertionError(f"no layer has the columns {keys}")
