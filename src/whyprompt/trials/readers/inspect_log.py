"""Logs of Inspect: ``.eval`` archives, ``.json``, and the Parquet file of its frame of samples.

Schema versions 1 to 3. A sample's metadata are covariates as they stand in the log, at its end. Events, which
are most of a log, are passed over. The question is the input before any template; the prompt is what stood
before the model's first words, and what it was sent later (a critique, a further turn), but no tool's words.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from whyprompt.errors import DataError
from whyprompt.trials.readers.inspect_run import run_settings, stated_means
from whyprompt.trials.readers.record import Log, LoggedTrial, score_value
from whyprompt.trials.reading.chats import chat_text, content_text
from whyprompt.trials.reading.fields import listed, mapping, number_of, objects, said, texts, whole_of
from whyprompt.trials.reading.rows import parquet_columns, parquet_rows
from whyprompt.trials.reading.settings import flat
from whyprompt.trials.reading.stream import members, pieces
from whyprompt.trials.reading.zips import Archive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

name = "Inspect"
_TAKEN = {
    "item": "samples.id",
    "question": "samples.input",
    "target": "samples.target",
    "choices": "samples.choices",
    "rep": "samples.epoch",
    "scores": "samples.scores",
    "covariates": "samples.metadata",
    "prompt": "samples.messages that are neither the model's nor a tool's",
    "completion": "samples.output",
    "prompt_tokens": "samples.output.usage",
    "completion_tokens": "samples.output.usage",
    "cost": "samples.output.usage.total_cost",
    "latency_s": "samples.working_time, else total_time",
    "started_at": "samples.started_at",
    "stop_reason": "samples.limit, else output.choices.stop_reason",
    "error": "samples.error",
}

_ENTRY = re.compile(rb"_journal/start\.json|header\.json|samples/[^\0]+_epoch_\d+")
_WHOLE = re.compile(r"samples/.+_epoch_\d+\.json")
_IN_PARTS = re.compile(r"(samples/.+_epoch_\d+)/sample\.json")
_CHUNK = re.compile(r"(samples/.+_epoch_\d+/(?:messages|attachments)/)(\d+)\.json")
_PLACE = re.compile(r"attachment://(\S+)")
# Of a sample, what a trial is made of; all else is passed over.
_SKIPPED = ("events", "events_data", "store", "timelines", "error_retries", "files", "setup")
# "version" may be left out.
_KEYS = (b'"status"', b'"eval"', b'"task"', b'"created"', b'"dataset"')
_FRAME = {"eval_id", "sample_id", "epoch", "input"}
_STATUS = {"success": "complete", "cancelled": "cancelled", "error": "failed", "started": "cancelled"}


def sniff(path: Path, head: bytes) -> float:
    """Say how surely a file is a log of Inspect."""
    if head.startswith(b"PK\x03\x04"):
        return 1.0 if _ENTRY.search(head) else 0.0
    if head.startswith(b"PAR1"):
        return 0.9 if set(parquet_columns(path)) >= _FRAME else 0.0
    is_json = head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    return 0.95 if is_json and all(key in head for key in _KEYS) else 0.0


def read(path: Path) -> Iterator[Log]:
    """Give the log in a file; a frame of samples has one for each of its runs."""
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(b"PK"):
        yield _archive_log(path)
    elif head == b"PAR1":
        yield from _frame_logs(path)
    else:
        yield _json_log(path)


# ----------------------------------------------------------------------------------------- containers
def _archive_log(path: Path) -> Log:
    with Archive(path) as archive:
        entry = next((n for n in ("header.json", "_journal/start.json") if n in archive.sizes), None)
        if entry is None:
            raise DataError(f"{path}: no log of Inspect: it has neither header.json nor _journal/start.json")
        header = dict(members(archive.pieces(entry), archive.where(entry)))
        found = any(_WHOLE.fullmatch(n) or _IN_PARTS.fullmatch(n) for n in archive.sizes)
        anew = archive.repeated
    notes = [f"entries written anew, of which the last counts: {anew}"] if anew else []
    if entry != "header.json":
        header.setdefault("status", "started")
    return _log(path, header, partial(_archive_samples, path), notes=notes, empty=not found)


def _archive_samples(path: Path) -> Iterator[dict[str, Any]]:
    with Archive(path) as archive:
        chunks: dict[str, list[int]] = {}
        for entry in archive.sizes:
            if chunk := _CHUNK.fullmatch(entry):
                chunks.setdefault(chunk[1], []).append(int(chunk[2]))
        for entry in archive.sizes:
            if _WHOLE.fullmatch(entry):
                yield dict(members(archive.pieces(entry), archive.where(entry), skip=_SKIPPED))
            elif parts := _IN_PARTS.fullmatch(entry):
                yield _in_parts(archive, entry, parts[1], chunks)


def _in_parts(archive: Archive, entry: str, folder: str, chunks: Mapping[str, list[int]]) -> dict[str, Any]:
    """Put a sample together that is written in parts: its conversation points into a list of messages."""

    def sequence(kind: str) -> list[Any]:
        prefix = f"{folder}/{kind}/"
        entries = [f"{prefix}{start}.json" for start in sorted(chunks.get(prefix, ()))]
        return [one for n in entries for _, one in members(archive.pieces(n), archive.where(n))]

    sample = dict(members(archive.pieces(entry), archive.where(entry), skip=_SKIPPED))
    pool = sequence("messages")
    refs = (ref for ref in listed(sample.get("message_refs")) if isinstance(ref, list))
    sample["messages"] = [message for ref in refs for message in pool[slice(*ref)]]
    sample["attachments"] = {str(k): text for k, text in enumerate(sequence("attachments"))}
    if (own := f"{folder}/metadata.json") in archive.sizes:
        sample["metadata"] = dict(members(archive.pieces(own), archive.where(own)))
    return sample


def _json_log(path: Path) -> Log:
    header: dict[str, Any] = {}
    found = False
    for key, value in members(pieces(path), str(path), into=("samples",), skip=("reductions", "logging")):
        if key == "samples":
            found = True
            if "eval" in header and "status" in header:
                break
        else:
            header[key] = value
    if not isinstance(header.get("eval"), dict):
        raise DataError(
            f"{path}: no log of Inspect: it has no 'eval'", hint="give the log as Inspect wrote it"
        )
    return _log(path, header, partial(_json_samples, path), empty=not found)


def _json_samples(path: Path) -> Iterator[dict[str, Any]]:
    for key, value in members(pieces(path), str(path), into=("samples",), skip=("reductions", "logging")):
        if key == "samples":
            if not isinstance(value, dict):
                raise DataError(f"{path}: a sample is an object, not {type(value).__name__}")
            yield value


# ------------------------------------------------------------------------------------------- the run
def _log(
    path: Path,
    header: Mapping[str, Any],
    samples: Callable[[], Iterator[dict[str, Any]]],
    *,
    notes: Sequence[str] = (),
    empty: bool = False,
) -> Log:
    spec = mapping(header.get("eval"))
    status = str(header.get("status", ""))
    told = list(notes)
    version = header.get("version")
    schema = "" if version is None else f"(schema {version})"
    if isinstance(version, int) and version > 3:
        told.append(f"its schema is version {version}; 1 to 3 are known")
    if status == "started":
        told.append("the run has not ended, or was killed: its status is 'started'")
    if header.get("invalidated"):
        told.append("some of its samples are marked as invalid")
    if message := mapping(header.get("error")).get("message"):
        told.append(f"the run ended in an error: {str(message).splitlines()[0]}")
    if empty:
        told.append("it holds no samples: it was run without log_samples, or ended before the first one")
    results = mapping(header.get("results"))
    first = next(iter(results.get("scores") or [results.get("scorer")]), None)
    named = {"model": str(spec.get("model", "")), "scorer": str(mapping(first).get("name", "score"))}
    return Log(
        path=path,
        format=name,
        fields=_TAKEN,
        trials=lambda: (_trial(sample, named) for sample in samples()),
        version=" ".join(filter(None, (mapping(spec.get("packages")).get("inspect_ai"), schema))),
        settings=run_settings(header),
        stated=stated_means(header),
        status=_STATUS.get(status, ""),
        notes=tuple(told),
    )


# ----------------------------------------------------------------------------------------- one trial
def _trial(sample: Mapping[str, Any], named: Mapping[str, str]) -> LoggedTrial:
    old = mapping(sample.get("transcript"))
    kept = mapping(sample.get("attachments") or old.get("content"))

    def attached(text: str) -> str:
        place = _PLACE.fullmatch(text) if text.startswith("attachment://") else None
        if place is None:
            return text
        return str(kept.get(place[1], text))

    messages = objects(sample.get("messages"))
    given = next((k for k, m in enumerate(messages) if _by_model(m)), len(messages))
    sent = messages[:given] + [m for m in messages[given:] if m.get("role") in {"user", "system"}]
    output = mapping(sample.get("output"))
    first = next(iter(objects(output.get("choices"))), {})
    completion = output.get("completion")
    if completion is None and first:
        completion = content_text(mapping(first.get("message")).get("content"), attached)
    used = mapping(sample.get("model_usage")).get(named["model"])
    usage = mapping(used or output.get("usage"))
    scores = dict(_scores(sample, named["scorer"]))
    failed = not any(score is not None for score in scores.values())
    return LoggedTrial(
        item=texts(sample.get("id")),
        question=chat_text(sample.get("input"), attached),
        target=texts(sample.get("target"), ","),
        choices=tuple(texts(c) for c in listed(sample.get("choices"))),
        rep=whole_of(sample.get("epoch")) or 1,
        scores=scores,
        covariates=dict(flat("", sample.get("metadata"), lists=False)),
        prompt=chat_text(sent, attached) if sent else None,
        completion=attached(completion) if isinstance(completion, str) and (first or completion) else None,
        prompt_tokens=_prompt_tokens(usage),
        completion_tokens=whole_of(usage.get("output_tokens")),
        cost=number_of(usage.get("total_cost")),
        latency_s=next(
            (t for v in ("working_time", "total_time") if (t := number_of(sample.get(v))) is not None),
            number_of(output.get("time")),
        ),
        started_at=said(sample.get("started_at")),
        stop_reason=_stop(sample, first),
        error=_error(sample, output) if failed else None,
    )


def _by_model(message: Mapping[str, Any]) -> bool:
    """Whether the model said it; worked examples may be words of an assistant too."""
    return message.get("role") == "assistant" and message.get("source") != "input"


def _scores(sample: Mapping[str, Any], old_name: str) -> Iterator[tuple[str, float | None]]:
    found = sample.get("scores")
    if found is None and sample.get("score") is not None:
        found = {old_name: sample["score"]}
    for scorer, score in mapping(found).items():
        value = score.get("value") if isinstance(score, dict) else score
        if isinstance(value, dict):
            yield from ((f"{scorer}.{key}", score_value(part)) for key, part in value.items())
        elif isinstance(value, list):
            yield from ((f"{scorer}.{k}", score_value(part)) for k, part in enumerate(value))
        else:
            yield scorer, score_value(value)


def _prompt_tokens(usage: Mapping[str, Any]) -> int | None:
    """Count what was read: what came from a cache, or went into one, is counted apart."""
    kinds = ("input_tokens", "input_tokens_cache_read", "input_tokens_cache_write")
    counts = [whole_of(usage.get(kind)) for kind in kinds]
    return None if counts[0] is None else sum(count or 0 for count in counts)


def _stop(sample: Mapping[str, Any], choice: Mapping[str, Any]) -> str | None:
    limit = sample.get("limit")
    kind = limit.get("type") if isinstance(limit, dict) else limit
    return f"limit: {kind}" if kind else said(choice.get("stop_reason"))


def _error(sample: Mapping[str, Any], output: Mapping[str, Any]) -> str | None:
    error = sample.get("error")
    text = (error.get("message") if isinstance(error, dict) else error) or output.get("error")
    limit = _stop(sample, {})
    return str(text or limit) if text or limit else None


# -------------------------------------------------------------------------------- frames of samples
def _frame_logs(path: Path) -> Iterator[Log]:
    long = {"input", "target", "output", "choices"}
    runs: dict[str, dict[str, Any]] = {}
    for row in parquet_rows(path, [c for c in parquet_columns(path) if c not in long]):
        first = runs.setdefault(row["eval_id"], row)
        # What a scorer of the run left empty is missing; a scorer of another run was not asked.
        first.update({c: v for c, v in row.items() if c.startswith("score_") and v is not None})
    for run, row in runs.items():
        parts = str(row.get("log") or "").rpartition("/")[2].split("_")
        spec: dict[str, Any] = {
            **{key: row.get(key) for key in ("model", "model_base_url", "task_version", "solver")},
            **{key: _json(row.get(key)) for key in ("model_args", "model_generate_config", "model_roles")},
            "solver_args": _json(row.get("solver_args")),
            "task": row.get("task_name") or "_".join(parts[1:-1]),
            "task_args": _named(row, "task_arg_"),
            "dataset": _named(row, "dataset_"),
        }
        asked = [scorer for scorer, value in _named(row, "score_").items() if value is not None]
        header = {"eval": spec, "status": row.get("status") or ""}
        yield _log(path, header, partial(_frame_samples, path, run, asked))


def _named(row: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {column.removeprefix(prefix): _json(v) for column, v in row.items() if column.startswith(prefix)}


def _frame_samples(path: Path, run: str, asked: Sequence[str]) -> Iterator[dict[str, Any]]:
    kept = ("id", "epoch", "target", "total_time", "working_time", "limit")
    for row in parquet_rows(path):
        if row["eval_id"] == run:
            given = row.get("input")
            if isinstance(given, str) and given.startswith("user:\n"):
                given = given.removeprefix("user:\n").strip("\n")
            scores = _named(row, "score_")
            yield {
                **{key: row.get(key) for key in kept},
                "input": given,
                "choices": _json(row.get("choices")),
                "scores": {scorer: {"value": scores[scorer]} for scorer in asked},
                "metadata": _named(row, "metadata_"),
                "model_usage": _json(row.get("model_usage")),
                "output": {"completion": row.get("output")},
                "error": row.get("error") or None,
            }


def _json(value: object) -> Any:  # noqa: ANN401 - any JSON
    """Read a value that a frame keeps as JSON; a word that is none stays what it is."""
    if isinstance(value, str) and value[:1] in {"{", "["}:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
