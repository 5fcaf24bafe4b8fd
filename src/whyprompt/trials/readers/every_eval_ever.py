"""Files of the exchange format every_eval_ever: a line a sample and metric, and the aggregate beside them.

Lines of one sample and answer are one trial, a score for each of the results that they belong to. The schema
has no field for an arm or a repetition: they are read from a sample's metadata (``arm``, ``rep``), where
`whyprompt.trials.readers.every_eval_ever_write.write` puts them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from whyprompt._rows import json_row
from whyprompt.errors import DataError
from whyprompt.trials.readers.every_eval_ever_run import (
    metric_of,
    result_id,
    result_settings,
    run_settings,
    stated_means,
)
from whyprompt.trials.readers.record import Log, LoggedTrial, score_value
from whyprompt.trials.reading.chats import chat_text, content_text
from whyprompt.trials.reading.fields import listed, mapping, number_of, objects, said, texts, whole_of
from whyprompt.trials.reading.heads import HEAD_BYTES
from whyprompt.trials.reading.settings import Settings
from whyprompt.trials.reading.stream import grouped, members, pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from whyprompt.trials.readers.record import Scalar

name = "every_eval_ever"
_TAKEN = {
    "item": "sample_id",
    "question": "input.raw",
    "target": "input.reference",
    "choices": "input.choices",
    "rep": "metadata.rep",
    "scores": "evaluation.score",
    "covariates": "metadata",
    "prompt": "input.formatted, else messages",
    "completion": "output.raw, else messages",
    "prompt_tokens": "token_usage.input_tokens",
    "completion_tokens": "token_usage.output_tokens",
    "latency_s": "performance.latency_ms, else generation_time_ms",
    "error": "error",
}

_SAMPLES = (b'"evaluation_id"', b'"sample_id"', b'"model_id"', b'"evaluation_name"')
_AGGREGATE = (b'"evaluation_id"', b'"schema_version"', b'"model_info"')
_FILE = re.compile(rb'"file_path"\s*:\s*"([^"]+)"')
# Of a sample's metadata, what is no property of its question.
_OWN = {*("arm", "rep", "epoch", "filter", "prompt_hash", "stop_reason", "lm_eval_metrics")}
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")


class _Result(NamedTuple):
    """A result of the aggregate: what its score is called, and what its trials were made with."""

    scorer: str
    settings: Settings


def sniff(path: Path, head: bytes) -> float:
    """Say how surely a file is of every_eval_ever; of an aggregate with its samples beside, less."""
    if b'"$schema"' in head:
        return 0.0
    if all(key in head for key in _SAMPLES):
        return 0.95
    if all(key in head for key in _AGGREGATE):
        detailed = _FILE.search(head)
        named = {"file_path": detailed[1].decode("utf-8", "replace")} if detailed else {}
        return 0.3 if _samples_of(path, {"detailed_evaluation_results": named}) else 0.9
    return 0.0


def read(path: Path) -> Iterator[Log]:
    """Give the log of a file of samples, or of an aggregate."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if all(key in head for key in _SAMPLES):
        yield _log(path, _aggregate_of(path))
        return
    content = dict(members(pieces(path), str(path)))
    samples = _samples_of(path, content)
    if samples is None:
        wanted = _detailed(content).rpartition("/")[2] or f"{path.stem}_samples.jsonl"
        raise DataError(
            f"{path} holds aggregate results alone: its samples ({wanted}) are not beside it",
            hint="put the file of samples into the same folder; of aggregates alone no effect is known",
        )
    yield _log(samples, content)


def _detailed(content: Mapping[str, Any]) -> str:
    return str(mapping(content.get("detailed_evaluation_results")).get("file_path", ""))


def _samples_of(path: Path, content: Mapping[str, Any]) -> Path | None:
    names = (_detailed(content).rpartition("/")[2], f"{path.stem}_samples.jsonl", f"{path.stem}.jsonl")
    return next((p for n in names if n and (p := path.with_name(n)).is_file()), None)


def _aggregate_of(path: Path) -> Mapping[str, Any]:
    for stem in (path.stem.removesuffix("_samples"), path.stem):
        file = path.with_name(f"{stem}.json")
        if file.is_file():
            found = dict(members(pieces(file), str(file)))
            if "evaluation_results" in found:
                return found
    return {}


def _log(path: Path, content: Mapping[str, Any]) -> Log:
    with path.open("rb") as file:
        line = file.readline()
    if not line.strip():
        raise DataError(f"{path} is empty, or begins with an empty line", hint="copy it again")
    first = json_row(line, path, 1)
    notes = []
    if not content:
        notes.append("no aggregate lies beside it: settings, metrics and what it states are not known")
    elif content.get("evaluation_id") != first.get("evaluation_id"):
        notes.append(
            f"its samples are of evaluation {first.get('evaluation_id')!r}, the aggregate beside it of "
            f"{content.get('evaluation_id')!r}"
        )
    notes += _changed(path, mapping(content.get("detailed_evaluation_results")))
    results = objects(content.get("evaluation_results"))
    settings = run_settings(content, first)
    made_with = {result_id(one): result_settings(one) for one in results}
    if len({json.dumps(one, sort_keys=True) for one in made_with.values()}) == 1:
        for role, values in next(iter(made_with.values())).items():
            settings.setdefault(role, {}).update(values)
        made_with = {}
    scorers = _scorers(path, results, made_with)
    known = {key: _Result(scorer, made_with.get(key, Settings())) for key, scorer in scorers.items()}
    names = Counter(str(one.get("evaluation_name", "")) for one in results)
    for one in results:
        called = str(one.get("evaluation_name", ""))
        if names[called] == 1:
            known.setdefault(called, known[result_id(one)])
    # What stands behind a slash is a filter of one evaluation; several are subtasks, which are of the items.
    evaluations = {one.partition("/")[0] for one in names}
    if len(evaluations) == 1:
        settings.put("prompt", "evaluation_name", *evaluations)
    return Log(
        path=path,
        format=name,
        fields=_TAKEN,
        trials=partial(_trials, path, known),
        version=str(first.get("schema_version", "")),
        settings=settings,
        stated=tuple(stated_means(results, scorers)),
        notes=tuple(notes),
    )


def _changed(path: Path, detailed: Mapping[str, Any]) -> list[str]:
    """Hold a file against the checksum and the number of rows that its aggregate states."""
    algorithm, rows = str(detailed.get("hash_algorithm")), whole_of(detailed.get("total_rows"))
    digest = hashlib.new(algorithm if algorithm in {"sha256", "md5"} else "sha256")
    lines = 0
    with path.open("rb") as file:
        for line in file:
            lines += bool(line.strip())
            digest.update(line)
    if rows is not None and lines < rows:
        raise DataError(
            f"{path} is cut off: it has {lines} rows, and its aggregate states {rows}", hint="copy it again"
        )
    stated = said(detailed.get("checksum"))
    return [] if stated in {None, digest.hexdigest()} else ["it was changed: its checksum is another one"]


# ------------------------------------------------------------------------------------------- scores
def _scorers(
    path: Path, results: Sequence[Mapping[str, Any]], made_with: Mapping[str, Settings]
) -> dict[str, str]:
    """Name the score of each result: by its metric, and by its id where one question has several of a metric.

    So are filters of one metric told apart, which are scores of one trial; results of subtasks, each with
    questions of its own, are one score.
    """
    metrics = {result_id(one): metric_of(one) for one in results}
    if results and len(set(metrics.values())) == len(metrics):
        return metrics
    first: dict[bytes, str] = {}
    together: set[str] = set()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                own = result_id(json_row(line, path, number))
                other = first.setdefault(_key(path, made_with, line, number), own)
                if other != own and metrics.setdefault(own, "score") == metrics.setdefault(other, "score"):
                    together |= {own, other}
    return {key: _by_id(key, metric) if key in together else metric for key, metric in metrics.items()}


def _by_id(key: str, metric: str) -> str:
    parts = key.split(":")
    return ",".join(parts) if metric in parts else key if metric == "score" else f"{metric} ({key})"


# ----------------------------------------------------------------------------------------- the trials
def _key(path: Path, made_with: Mapping[str, Settings], line: bytes, number: int) -> bytes:
    """Give what lines of one question and arm have in common, and of one repetition where it has a number."""
    found = json_row(line, path, number)
    for field in ("sample_id", "input", "evaluation"):
        if field not in found:
            raise DataError(
                f"{path}:{number}: no {field!r}, which samples of {name} have",
                hint="delete or mend the line",
            )
    asked, own = mapping(found["input"]), mapping(found.get("metadata"))
    parts = [
        *(found["sample_id"], found.get("model_id"), made_with.get(result_id(found))),
        *(asked.get(field) for field in ("raw", "formatted", "reference")),
        *(own.get(field) for field in ("arm", "rep", "epoch")),
    ]
    return _digest(parts)


def _digest(value: object) -> bytes:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).digest()


def _answer(found: Mapping[str, Any]) -> bytes:
    return _digest([mapping(found.get("output")).get("raw"), found.get("messages"), found.get("error")])


def _trials(path: Path, results: Mapping[str, _Result]) -> Iterator[LoggedTrial]:
    made_with = {key: one.settings for key, one in results.items() if one.settings}
    for group in grouped(path, partial(_key, path, made_with)):
        found: dict[str, list[Mapping[str, Any]]] = {}
        for _, one in group:
            found.setdefault(result_id(one), []).append(one)
        if len(found) > 1 and len({tuple(sorted(map(_answer, lines))) for lines in found.values()}) == 1:
            # Each result has the same answers: a trial has one of each.
            for lines in found.values():
                lines.sort(key=_answer)
        for rep in range(max(map(len, found.values()))):
            yield _trial([lines[rep] for lines in found.values() if rep < len(lines)], results, rep + 1)


def _trial(part: list[Mapping[str, Any]], results: Mapping[str, _Result], rep: int) -> LoggedTrial:
    found = part[0]
    scores: dict[str, float | None] = {}
    for one in part:
        result = results.get(result_id(one))
        score = score_value(mapping(one.get("evaluation")).get("score"))
        scores.setdefault(result.scorer if result else "score", score)
    asked, own = mapping(found.get("input")), mapping(found.get("metadata"))
    result = results.get(result_id(found))
    settings: dict[str, dict[str, Scalar]] = {
        role: dict(v) for role, v in (result.settings if result else {}).items()
    }
    if "arm" in own:
        settings.setdefault("prompt", {})["metadata.arm"] = str(own["arm"])
    settings.setdefault("items", {})["evaluation_name"] = str(found.get("evaluation_name", ""))
    usage, timing = mapping(found.get("token_usage")), mapping(found.get("performance"))
    # A filter leaves less of what came back.
    sent, answered = max(map(_exchange, part), key=lambda one: len(one[1] or ""))
    number = str(own.get("rep", own.get("epoch", "")))
    latency = number_of(timing.get("latency_ms")) or number_of(timing.get("generation_time_ms"))
    return LoggedTrial(
        item=texts(found.get("sample_id")),
        question=texts(asked.get("raw")),
        target=texts(asked.get("reference")),
        choices=tuple(map(texts, listed(asked.get("choices")))),
        rep=int(number) if number.isdigit() else rep,
        scores=scores,
        covariates={key: _value(value) for key, value in own.items() if key not in _OWN},
        settings=settings,
        prompt=sent,
        completion=answered,
        prompt_tokens=whole_of(usage.get("input_tokens")),
        completion_tokens=whole_of(usage.get("output_tokens")),
        latency_s=None if latency is None else latency / 1000,
        stop_reason=said(own.get("stop_reason")),
        error=said(found.get("error")),
    )


def _exchange(found: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Give what was sent and what came back, the last of it in a conversation."""
    formatted = said(mapping(found.get("input")).get("formatted"))
    messages = objects(found.get("messages"))
    answers = [k for k, m in enumerate(messages) if m.get("role") == "assistant"]
    if messages:
        sent = chat_text(messages[: answers[0] if answers else None])
        return formatted or said(sent), content_text(
            messages[answers[-1]].get("content")
        ) if answers else None
    raw = mapping(found.get("output")).get("raw")
    return formatted, texts(raw, "\n") if raw else None


def _value(text: object) -> Scalar:
    """Read what the schema makes a text as the number that it was."""
    if isinstance(text, str) and _NUMBER.fullmatch(text):
        return float(text) if set(text) & set(".eE") else int(text)
    return text if isinstance(text, str | int | float | bool) else json.dumps(text)
