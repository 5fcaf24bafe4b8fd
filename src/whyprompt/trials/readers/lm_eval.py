"""Logs of lm-evaluation-harness: the samples of a task, one JSON object a line, and the results beside them.

A document has a row for each filter, far apart in the file: they are scores of one trial, named
``metric,filter``. Logs of before 2024 name no filter; their rows of a document are in the order of the task's
``filter_list``.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from whyprompt._rows import json_row
from whyprompt.errors import DataError
from whyprompt.trials.readers.lm_eval_document import of_document, responses
from whyprompt.trials.readers.lm_eval_run import no_mean, run_settings, stated_means
from whyprompt.trials.readers.record import Log, LoggedTrial
from whyprompt.trials.reading.fields import mapping, texts
from whyprompt.trials.reading.heads import HEAD_BYTES
from whyprompt.trials.reading.stream import grouped, members, pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

name = "lm-eval"
_TAKEN = {
    "item": "doc_hash, else doc_id",
    "question": "doc",
    "target": "target",
    "choices": "doc, else the continuations scored",
    "rep": "the place in resps",
    "scores": "a metric and its filter",
    "covariates": "doc",
    "prompt": "arguments",
    "completion": "resps",
}

_STAMP = re.compile(r"_(\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}(?:\.\d+)?)\.jsonl?$")
_ID = re.compile(rb'\s*\{"doc_id":\s*(\d+)\s*,')
# What a row has besides its metrics.
_FIXED = {
    *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
    *("doc_hash", "prompt_hash", "target_hash", "input"),
}


class _Run(NamedTuple):
    """A task as its results have it; `filters` in the order of its rows."""

    task: str
    results: Mapping[str, Any]
    filters: tuple[str, ...] = ()

    def called(self, metric: str) -> str:
        """Give what a document's value of a metric is: of a perplexity its log-likelihood."""
        how = no_mean(self.results, self.task, metric)
        if how == "perplexity":
            return "log_likelihood" if metric == "perplexity" else f"{metric}_log_likelihood"
        if how == "weighted_perplexity":
            return f"log_likelihood_per_{metric.partition('_')[0]}"
        return metric


def sniff(path: Path, head: bytes) -> float:
    """Say how surely a file is of lm-evaluation-harness; of results with their samples beside, less."""
    if b'"doc_id"' in head and (b'"filtered_resps"' in head or (b'"resps"' in head and b'"doc"' in head)):
        return 1.0
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start.startswith(b"{") or not re.match(rb'\{\s*"results":\s*\{', start):
        return 0.0
    if not any(k in head for k in (b'"alias"', b"_stderr", b',none"', b'"configs"')):
        return 0.0
    return 0.3 if _samples_of(path) else 0.9


def read(path: Path) -> Iterator[Log]:
    """Give the log of a file of samples, or those that belong to a file of results."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if b'"doc_id"' in head:
        yield _samples_log(path)
        return
    results = dict(members(pieces(path), str(path)))
    files = _samples_of(path)
    if not files:
        stamp = _STAMP.search(path.name)
        wanted = f"samples_TASK_{stamp[1]}.jsonl" if stamp else "samples_TASK_DATE.jsonl"
        raise DataError(
            f"{path} holds results alone: the samples that they were made of are not beside it ({wanted} of "
            f"{', '.join(mapping(results.get('configs')) or mapping(results.get('results')))})",
            hint="run lm_eval with --log_samples, or put its files of samples into the same folder",
        )
    tasks = {_task(samples, results) for samples in files}
    absent = [task for task in mapping(results.get("configs")) if task not in tasks]
    notes = [f"no samples lie beside its results of {', '.join(absent)}"] if absent else []
    for samples in files:
        yield _samples_log(samples, results, notes)


def _samples_of(path: Path) -> list[Path]:
    stamp = _STAMP.search(path.name)
    if stamp is not None:
        return sorted(p for p in path.parent.glob(f"samples_*_{stamp[1]}.jsonl") if p.is_file())
    return sorted(p for p in path.parent.glob("*.jsonl") if p.is_file() and b'"doc_id"' in _head(p))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1 << 12)


def _results_of(path: Path) -> Mapping[str, Any] | None:
    """Find the results of samples: those of the same stamp, or results.json, as it once was called."""
    stamp = _STAMP.search(path.name)
    pattern = f"*_{stamp[1]}.json" if stamp is not None else "results.json"
    for file in sorted(path.parent.glob(pattern)):
        found = dict(members(pieces(file), str(file)))
        if isinstance(found.get("results"), dict):
            return found
    return None


def _samples_log(path: Path, results: Mapping[str, Any] | None = None, notes: Sequence[str] = ()) -> Log:
    results = _results_of(path) if results is None else results
    notes = list(notes)
    if results is None:
        notes.append("no file of results lies beside it: model, sampling and what it states are not known")
        results = {}
    first = next(_rows(path, 1), None)
    if first is None:
        raise DataError(f"{path} is empty", hint="copy it again")
    run = _Run(_task(path, results), results)
    filters = _filters(run, first[1])
    run = run._replace(filters=filters)
    if "filter" not in first[1] and len(filters) > 1:
        notes.append(f"its rows name no filter: they are taken in the order {', '.join(filters)}")
    scorers = [s for key in (filters or ("",)) for s in _named_scores(first[1], key, run)]
    notes += [
        f"a document's {metric!r} is what its {how} is made of, not a part of a mean"
        + (
            f": it is taken as {run.called(metric)!r}, and where that rises the perplexity falls"
            if how.endswith("perplexity")
            else ""
        )
        for metric in _metrics(first[1])
        if (how := no_mean(results, run.task, metric)) is not None
        and any(scorer.partition(",")[0] == run.called(metric) for scorer in scorers)
    ]
    return Log(
        path=path,
        format=name,
        fields=_TAKEN,
        trials=partial(_trials, path, run),
        version=str(results.get("lm_eval_version") or ""),
        settings=run_settings(results, run.task),
        stated=stated_means(results, run.task, scorers),
        status="complete" if results else "",
        notes=tuple(notes),
    )


def _task(path: Path, results: Mapping[str, Any]) -> str:
    """Give the task that samples are of: by the name of the file, which may be that of the only task."""
    stem = _STAMP.sub("", path.name).removesuffix(".jsonl")
    tasks = sorted(
        (*mapping(results.get("configs")), *mapping(results.get("results"))), key=len, reverse=True
    )
    found = next((t for t in tasks if stem == f"samples_{t}" or stem.endswith(f"_{_plain(t)}")), None)
    if found is None and len(set(tasks)) == 1:
        found = tasks[0]
    return found or stem.removeprefix("samples_")


def _plain(task: str) -> str:
    return re.sub(r"[\"<>:/|\\?*\[\]]+", "__", task)


def _filters(run: _Run, first: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the filters of a task, in the order of its rows."""
    listed = mapping(mapping(run.results.get("configs")).get(run.task)).get("filter_list")
    if isinstance(listed, list) and listed:
        return tuple(str(mapping(one).get("name", "none")) for one in listed)
    stated = (key.partition(",")[2] for key in mapping(mapping(run.results.get("results")).get(run.task)))
    found = tuple(dict.fromkeys(key for key in stated if key))
    return found or ((str(first["filter"]),) if first.get("filter") else ())


# ------------------------------------------------------------------------------------------- rows
def _rows(path: Path, most: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read rows from the start, also where they are one JSON list, as versions before 2024 wrote them."""
    if _is_list(path):
        for number, (_, found) in enumerate(members(pieces(path), str(path)), start=1):
            yield number, found
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, json_row(line, path, number)
                if most is not None:
                    return


def _is_list(path: Path) -> bool:
    return _head(path).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _groups(path: Path) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    if _is_list(path):
        groups: dict[Any, list[tuple[int, dict[str, Any]]]] = {}
        for number, found in _rows(path):
            groups.setdefault(found.get("doc_id"), []).append((number, found))
        yield from groups.values()
    else:
        yield from grouped(path, partial(_key, path))


def _key(path: Path, line: bytes, number: int) -> object:
    quick = _ID.match(line)
    if quick is not None:
        return int(quick[1])
    found = json_row(line, path, number)
    if "doc_id" not in found:
        raise DataError(f"{path}:{number}: no 'doc_id', which rows of {name} have", hint="delete the line")
    return texts(found["doc_id"])


def _trials(path: Path, run: _Run) -> Iterator[LoggedTrial]:
    named: bool | None = None
    for group in _groups(path):
        scores: dict[str, Any] = {}
        for k, (line, found) in enumerate(group):
            if named is None:
                named = "filter" in found
            elif named != ("filter" in found):
                raise DataError(
                    f"{path}:{line}: the row has {'no' if named else 'a'} 'filter', unlike those before it",
                    hint="the file is of two versions of the harness: give each its own file",
                )
            if not named and len(group) > max(1, len(run.filters)):
                raise DataError(
                    f"{path}:{group[-1][0]}: {len(group)} rows are of document {found.get('doc_id')}, and "
                    "none names its filter",
                    hint="put the results.json of the run beside it; or the file is of two runs",
                )
            key = str(found["filter"]) if named else (run.filters[k] if k < len(run.filters) else "")
            new = dict(_named_scores(found, key, run))
            if twice := next((s for s in new if s in scores), None):
                raise DataError(
                    f"{path}:{line}: document {found.get('doc_id')} has {twice!r} twice",
                    hint="the file is of two runs, or a run was written to it twice: keep one",
                )
            scores.update(new)
        yield from of_document(group[0][1], scores)


def _metrics(found: Mapping[str, Any]) -> list[str]:
    listed = found.get("metrics")
    return list(map(str, listed)) if isinstance(listed, list) else [k for k in found if k not in _FIXED]


def _named_scores(found: Mapping[str, Any], key: str, run: _Run) -> dict[str, Any]:
    """Give a row's scores by scorer; a list where a metric has one for each repeat."""
    repeats = len(responses(found))
    out: dict[str, Any] = {}
    for metric in _metrics(found):
        value, called = _plain_value(found.get(metric)), run.called(metric)
        if called.startswith("log_likelihood_per_"):
            # The log-likelihood of a whole document, and its words or bytes.
            pair = (
                value if isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) else ()
            )
            value = pair[0] / pair[1] if pair and pair[1] else None
            if value is None:
                continue
        many = isinstance(value, list) and len(value) == repeats > 1
        if value is None or isinstance(value, bool | int | float) or (many and all(map(_is_number, value))):
            out[f"{called},{key}" if key else called] = value
    return out


def _plain_value(value: Any) -> Any:  # noqa: ANN401 - as JSON has it
    """Read a number or a truth value that the harness wrote as text, as it does with numpy's own types."""
    if not isinstance(value, str):
        return value
    if value in {"True", "False"}:
        return value == "True"
    try:
        return float(value)
    except ValueError:
        return value


def _is_number(value: object) -> bool:
    return isinstance(value, bool | int | float)
