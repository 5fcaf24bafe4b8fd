"""What the header of a log of Inspect says of its run: the settings by role, and the means that it states."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from whyprompt.trials.readers.record import Stated
from whyprompt.trials.reading.fields import listed, mapping, number_of, objects, whole_of
from whyprompt.trials.reading.settings import Settings, flat

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHOTS = re.compile(r"few_?shot|n_?shots?\b|\bshots?\b|num_fewshot", re.IGNORECASE)
_SERVING = (
    *("max_connections", "adaptive_connections", "max_retries", "timeout", "attempt_timeout"),
    *("stream_idle_timeout", "cache", "cache_prompt", "batch"),
)
_LIMITS = ("message_limit", "token_limit", "time_limit", "working_limit", "cost_limit")


def run_settings(header: Mapping[str, Any]) -> Settings:
    """Give the settings of a run, from the header of its log."""
    spec = mapping(header.get("eval"))
    out = Settings()
    for key in ("task", "task_version", "solver"):
        out.put("prompt", f"eval.{key}", spec.get(key))
    plan = mapping(header.get("plan"))
    steps = objects([*listed(plan.get("steps")), plan.get("finish")])
    args = [
        *flat("eval.task_args", spec.get("task_args")),
        *flat("eval.solver_args", spec.get("solver_args")),
    ]
    for k, step in enumerate(steps):
        out.put("prompt", f"plan.steps[{k}].solver", step.get("solver"))
        args += flat(f"plan.steps[{k}].params", step.get("params"))
    for path, value in args:
        out.put("few_shot" if _SHOTS.search(path) else "prompt", path, value)
    tags = header.get("tags") or spec.get("tags")
    out.put("prompt", "eval.tags", ", ".join(map(str, tags)) if isinstance(tags, list) else tags)
    out.put("other", "eval.metadata", header.get("metadata") or spec.get("metadata"))
    out.put("model", "eval.model", spec.get("model"))
    out.put("engine", "eval.model_args", spec.get("model_args"))
    out.put("engine", "eval.model_base_url", spec.get("model_base_url"))
    generate = mapping(spec.get("model_generate_config"))
    planned = {k: v for k, v in mapping(plan.get("config")).items() if generate.get(k) != v}
    for where, config in (("eval.model_generate_config", generate), ("plan.config", planned)):
        for key, value in config.items():
            out.put(_generate_role(key), f"{where}.{key}", value)
    for k, scorer in enumerate(_scorers(header, spec)):
        for key in ("name", "options", "params", "metrics"):
            out.put("judge", f"eval.scorers[{k}].{key}", scorer.get(key))
    out.put("judge", "eval.model_roles", spec.get("model_roles"))
    config = mapping(spec.get("config"))
    out.put("judge", "eval.config.epochs_reducer", config.get("epochs_reducer"))
    for key in ("name", "location", "samples", "shuffled"):
        out.put("items", f"eval.dataset.{key}", mapping(spec.get("dataset")).get(key))
    for key in ("limit", "sample_id", "sample_shuffle", "epochs"):
        out.put("items", f"eval.config.{key}", config.get(key))
    for key in (*_LIMITS, "max_messages"):
        out.put("sampling", f"eval.config.{key}", config.get(key))
    for key in ("packages", "revision", "sandbox"):
        out.put("harness", f"eval.{key}", spec.get(key))
    out.put("date", "eval.created", spec.get("created"))
    return out


def _generate_role(key: str) -> str:
    if key in {"seed", "system_message"}:
        return "seed" if key == "seed" else "prompt"
    return "engine" if key in _SERVING else "sampling"


def _scorers(header: Mapping[str, Any], spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Give the scorers as the run had them; older logs have them among their results alone."""
    found = spec.get("scorers")
    if not found:
        results = mapping(header.get("results"))
        found = [
            {"name": one.get("scorer", one.get("name")), "params": one.get("params")}
            for one in results.get("scores") or [results.get("scorer")]
            if isinstance(one, dict)
        ]
    return [one for one in found if isinstance(one, dict)]


def stated_means(header: Mapping[str, Any]) -> tuple[Stated, ...]:
    """Give the means that a log states; what another reducer than the mean made of epochs is none."""
    results = mapping(header.get("results"))
    epochs = mapping(mapping(header.get("eval")).get("config")).get("epochs")
    scores = objects(results.get("scores"))
    if isinstance(results.get("scorer"), dict):
        scores = [{**results["scorer"], "metrics": results.get("metrics")}]
    out = []
    for one in scores:
        reducer = one.get("reducer") or "mean"
        if reducer != "mean" and not (reducer in {"mode", "median", "max"} and epochs in {None, 1}):
            continue
        metrics: dict[str, float | None] = {}
        for key, metric in mapping(one.get("metrics")).items():
            called = str(mapping(metric).get("name", key)).rpartition("/")[2]
            metrics.setdefault(called, number_of(mapping(metric).get("value")))
        mean = next((v for k in ("accuracy", "mean") if (v := metrics.get(k)) is not None), None)
        if mean is not None:
            own, scorer = str(one.get("name")), str(one.get("scorer") or one.get("name"))
            n = whole_of(one.get("scored_samples")) or None
            scored = own if own == scorer else f"{scorer}.{own}"
            out.append(Stated(scorer=scored, mean=mean, n=n, error=metrics.get("stderr")))
    return tuple(out)
