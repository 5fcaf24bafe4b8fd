"""Runs of HELM: ``per_instance_stats.json``, with the run's other files beside it.

HELM writes a record for each class of metrics, so that one instance has several in a trial: they are one
trial here. Statistics that count and time are no scores.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from whyprompt.errors import DataError
from whyprompt.trials.readers.record import Log, LoggedTrial, Stated
from whyprompt.trials.reading.fields import listed, mapping, number_of, objects, said, whole_of
from whyprompt.trials.reading.heads import HEAD_BYTES
from whyprompt.trials.reading.settings import Settings
from whyprompt.trials.reading.stream import members, pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    # An instance, its perturbation and the trial.
    Key = tuple[str, str, int]
    Stats = dict[str, float | None]

name = "HELM"
_TAKEN = {
    "item": "instance_id and perturbation",
    "question": "instance.input",
    "target": "the correct references",
    "choices": "instance.references",
    "rep": "train_trial_index",
    "scores": "stats, their means",
    "covariates": "num_references",
    "prompt": "request.prompt",
    "completion": "result.completions",
    "prompt_tokens": "num_prompt_tokens",
    "completion_tokens": "num_output_tokens",
    "latency_s": "inference_runtime",
    "started_at": "result.request_datetime",
    "stop_reason": "finish_reason",
    "error": "result.error",
}

_STATS = "per_instance_stats.json"
_COUNTED = frozenset(
    {
        *("num_references", "num_train_trials", "num_train_instances", "num_prompt_tokens"),
        *(
            "num_completion_tokens",
            "num_output_tokens",
            "num_perplexity_tokens",
            "num_bytes",
            "num_instances",
        ),
        *("training_co2_cost", "training_energy_cost", "inference_runtime", "inference_denoised_runtime"),
        *("inference_idealized_runtime", "batch_size", "prompt_truncated", "predicted_index"),
        *("estimated_num_tokens_cost", "finish_reason_length", "finish_reason_stop"),
        *("finish_reason_endoftext", "finish_reason_unknown"),
    }
)
_SHOTS = ("max_train_instances", "num_train_trials", "sample_train")
_SAMPLING = (
    *("temperature", "max_tokens", "num_outputs", "stop_sequences", "top_p", "top_k_per_token"),
    *("presence_penalty", "frequency_penalty", "reasoning_effort", "thinking_budget_tokens"),
)
_EVALUATED = ("max_eval_instances", "eval_splits", "num_trials")


class _Merged(NamedTuple):
    """What all records say of an instance in a trial."""

    split: str
    stats: Stats


def sniff(path: Path, head: bytes) -> float:
    """Say how surely a file is of a run of HELM; of what lies beside the statistics, less."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"[" and all(
        k in head for k in (b'"instance_id"', b'"train_trial_index"', b'"stats"', b'"count"')
    ):
        return 0.95
    beside = (b'"adapter_spec"' in head and (b'"metric_specs"' in head or b'"request_states"' in head)) or (
        path.name == "stats.json" and start == b"[" and b'"sum_squared"' in head
    )
    return 0.3 if beside and (path.parent / _STATS).is_file() else 0.0


def read(path: Path) -> Iterator[Log]:
    """Give the log of a run, from its folder or any file of it."""
    folder = path if path.is_dir() else path.parent
    file = path if path.is_file() and _is_stats(path) else folder / _STATS
    if not file.is_file():
        raise DataError(
            f"{folder} has no {_STATS}, which a run of {name} has", hint="give the folder of one run"
        )
    spec = _beside(file, "run_spec.json")
    notes = []
    if not (file.parent / "scenario_state.json").is_file():
        notes.append("no scenario_state.json lies beside it: what was asked and answered is not known")
    if not spec:
        notes.append("no run_spec.json lies beside it: model and settings are not known")
    found = _merged(file)
    if not found:
        raise DataError(f"{file} is empty: it has no record", hint="the run ended before its first instance")
    left = sorted({s for one in found.values() for s in one.stats if s in _COUNTED})
    if left:
        notes.append(f"statistics that are no scores are left out: {', '.join(left)}")
    notes += _shortened(found, whole_of(mapping(spec.get("adapter_spec")).get("max_train_instances")))
    yield Log(
        path=file,
        format=name,
        fields=_TAKEN,
        trials=partial(_trials, file),
        settings=_settings(spec),
        stated=tuple(_stated(file, {s for one in found.values() for s in one.stats if s not in _COUNTED})),
        notes=tuple(notes),
    )


def _is_stats(path: Path) -> bool:
    with path.open("rb") as file:
        return sniff(path, file.read(HEAD_BYTES)) > 0.5


def _beside(file: Path, other: str) -> Mapping[str, Any]:
    there = file.parent / other
    return dict(members(pieces(there), str(there))) if there.is_file() else {}


# -------------------------------------------------------------------------------------------- the run
def _settings(spec: Mapping[str, Any]) -> Settings:
    out = Settings()
    for key, value in mapping(spec.get("adapter_spec")).items():
        if key in {"model", "model_deployment"}:
            role = "model" if key == "model" else "engine"
        elif key in _SHOTS:
            role = "few_shot"
        elif key in _SAMPLING:
            role = "sampling"
        else:
            role = "items" if key in _EVALUATED else "seed" if key == "random" else "prompt"
        out.put(role, f"adapter_spec.{key}", value)
    scenario = mapping(spec.get("scenario_spec") or spec.get("scenario"))
    out.put("items", "scenario_spec", scenario)
    out.put("items", "data_augmenter_spec", spec.get("data_augmenter_spec"))
    out.put("judge", "metric_specs", spec.get("metric_specs") or spec.get("metrics"))
    out.put("judge", "annotators", spec.get("annotators"))
    out.put("other", "name", spec.get("name"))
    return out


def _shortened(found: Mapping[Key, _Merged], shots: int | None) -> list[str]:
    """Say of how many trials the prompt had fewer worked examples than the run asks for."""
    given = [one.stats.get("num_train_instances") for one in found.values()]
    fewer = sum(n is not None and shots is not None and n < shots for n in given)
    return [f"{fewer} of {len(given)} prompts had fewer than {shots} worked examples"] if fewer else []


def _context(called: Mapping[str, Any]) -> tuple[str, str]:
    """Give the split of a statistic and the perturbation of what it is of, "" for none."""
    perturbed = called.get("perturbation")
    return str(called.get("split", "")), str(mapping(perturbed).get("name", perturbed or ""))


def _where(split: str, perturbed: str) -> dict[str, str]:
    return {"instance.split": split, "instance.perturbation": perturbed}


def _stated(file: Path, scores: set[str]) -> Iterator[Stated]:
    there = file.parent / "stats.json"
    if not there.is_file():
        return
    every = objects([stat for _, stat in members(pieces(there), str(there))])
    sizes = {
        _context(mapping(stat["name"])): whole_of(stat.get("mean"))
        for stat in every
        if mapping(stat.get("name")).get("name") == "num_instances"
    }
    for stat in every:
        called = mapping(stat.get("name"))
        mean = number_of(stat.get("mean")) if stat.get("count") else None
        # Worst cases over perturbations are no means of trials.
        worst = mapping(called.get("perturbation")).get("computed_on", "perturbed") != "perturbed"
        if str(called.get("name")) in scores and mean is not None and not worst:
            context = _context(called)
            yield Stated(str(called["name"]), mean, where=_where(*context), n=sizes.get(context))


# ----------------------------------------------------------------------------------------- the trials
def _key(record: Mapping[str, Any], instance: Mapping[str, Any] | None = None) -> Key:
    of = record if instance is None else instance
    own = str(of.get("instance_id" if instance is None else "id", ""))
    perturbed = of.get("perturbation")
    called = mapping(perturbed).get("name", perturbed or "")
    return own, str(called), whole_of(record.get("train_trial_index")) or 0


def _merged(file: Path) -> dict[Key, _Merged]:
    """Put the records of an instance and trial together."""
    found: dict[Key, _Merged] = {}
    for number, (_, record) in enumerate(members(pieces(file), str(file)), start=1):
        if not isinstance(record, dict) or not isinstance(record.get("stats"), list):
            raise DataError(
                f"{file}: record {number} has no 'stats', which records of {name} have",
                hint="give the file as HELM wrote it",
            )
        key = _key(record)
        for stat in objects(record["stats"]):
            split = _context(mapping(stat.get("name")))[0]
            stats = found.setdefault(key, _Merged(split, {})).stats
            called = str(mapping(stat.get("name")).get("name", ""))
            mean = number_of(stat.get("mean")) if stat.get("count") else None
            before = stats.get(called)
            if None not in {before, mean} and before != mean and called not in _COUNTED:
                raise DataError(
                    f"{file}: record {number}: {called!r} of instance {key[0]!r} is {mean:g}, and was "
                    f"{before:g} in a record before it",
                    hint="the file is of two runs, or two metrics have one name: give each its own folder",
                )
            if mean is not None or called not in stats:
                stats[called] = mean
    return found


def _trials(file: Path) -> Iterator[LoggedTrial]:
    left = _merged(file)
    state = file.parent / "scenario_state.json"
    if state.is_file():
        read_ = members(pieces(state), str(state), into=("request_states",))
        asked = (value for key, value in read_ if key == "request_states")
        for key, states in groupby(asked, key=lambda one: _key(one, mapping(one.get("instance")))):
            if key in left:
                yield _trial(key, left.pop(key), list(states))
    for key, found in left.items():
        yield _trial(key, found, [])


def _trial(key: Key, found: _Merged, states: list[Mapping[str, Any]]) -> LoggedTrial:
    own, perturbed, trial = key
    stats = found.stats
    # One request a reference: what was answered is the one that was chosen.
    chosen = stats.get("predicted_index")
    state = next((s for s in states if chosen is not None and s.get("reference_index") == chosen), None)
    state = state or next(iter(states), {})
    instance, request = mapping(state.get("instance")), mapping(state.get("request"))
    result = mapping(state.get("result"))
    references = objects(instance.get("references"))
    several = "reference_index" in state or state.get("output_mapping") is not None
    completion = next(iter(objects(result.get("completions"))), {})
    counted = stats.get("num_references")
    return LoggedTrial(
        item=f"{own} ({perturbed})" if perturbed else own,
        question=_text(instance.get("input")),
        target=" | ".join(_text(r.get("output")) for r in references if "correct" in listed(r.get("tags"))),
        choices=tuple(_text(r.get("output")) for r in references) if several else (),
        rep=trial + 1,
        scores={scorer: mean for scorer, mean in stats.items() if scorer not in _COUNTED},
        covariates={} if counted is None else {"num_references": int(counted)},
        settings={"items": _where(found.split, perturbed)},
        prompt=said(request.get("prompt")),
        completion=None if completion.get("text") is None else str(completion["text"]),
        prompt_tokens=whole_of(stats.get("num_prompt_tokens")),
        completion_tokens=whole_of(stats.get("num_output_tokens", stats.get("num_completion_tokens"))),
        latency_s=number_of(stats.get("inference_runtime", result.get("request_time"))),
        started_at=_time(result.get("request_datetime")),
        stop_reason=_stop(stats, completion),
        error=None if result.get("success", True) else str(result.get("error") or "the request failed"),
    )


def _text(value: object) -> str:
    """Give a text, which newer versions keep in an object."""
    return str(mapping(value).get("text", "")) if isinstance(value, dict) else str(value or "")


def _stop(stats: Stats, completion: Mapping[str, Any]) -> str | None:
    reason = mapping(completion.get("finish_reason")).get("reason")
    if reason is None:
        kinds = ("length", "stop", "endoftext")
        reason = next((kind for kind in kinds if stats.get(f"finish_reason_{kind}")), None)
    return None if reason is None else str(reason)


def _time(seconds: object) -> str | None:
    when = number_of(seconds)
    return None if when is None else datetime.fromtimestamp(when, UTC).isoformat()
