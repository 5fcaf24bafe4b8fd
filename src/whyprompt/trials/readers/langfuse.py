"""Langfuse's observations with the scores beside them: files of a blob storage export, or of its interface.

Follows the field reference of the blob storage export (`observations_v2/` and the older `observations/`, with
`scores/`) in JSON, JSON Lines, CSV or Parquet; names as its interface writes them (`traceId`) are the same.
Tested on files made by hand.

A trial is a generation. Its scores are those of the observation, and those of its trace where the trace has
no other generation with a prompt of Langfuse's. They stand in the row (`scores`), or in the folder `scores`
beside the file's own. The prompt's name and version are the arm.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

from whyprompt.errors import DataError
from whyprompt.trials.readers.record import Log, LoggedTrial
from whyprompt.trials.reading import heads, traces
from whyprompt.trials.reading.chats import conversation
from whyprompt.trials.reading.fields import (
    mapping,
    missing,
    number_of,
    objects,
    text_of,
    text_or_none,
    whole_of,
)
from whyprompt.trials.reading.questions import Repeats, question_of
from whyprompt.trials.reading.rows import head_of, parquet_columns, rows_of
from whyprompt.trials.reading.settings import SAMPLING, by_role, pick

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from whyprompt.trials.reading.rows import Row

name = "Langfuse"
_TAKEN = {
    "item": "dataset_item_id",
    "question": "input",
    "scores": "scores, by name",
    "covariates": "metadata",
    "prompt": "input",
    "completion": "output",
    "prompt_tokens": "usage_details.input",
    "completion_tokens": "usage_details.output",
    "cost": "total_cost",
    "latency_s": "start_time to end_time",
    "started_at": "start_time",
    "error": "status_message, where level is ERROR",
}
_OBSERVED = frozenset({"trace_id", "type", "start_time"})
_SCORED = frozenset({"trace_id", "data_type", "name", "value", "source"})
_PROMPT = ("prompt_name", "prompt_version")
_Scores = dict[str, float | None]


def sniff(path: Path, head: bytes) -> float:
    """Say how surely a file is of Langfuse."""
    return 0.95 if _kind(path, head) else 0.0


def _kind(path: Path, head: bytes) -> str:
    if heads.container(head) == "parquet":
        given: Iterable[str] = parquet_columns(path)
    else:
        keys = (key.removeprefix("data[].").removeprefix("[].") for key in heads.keys(head))
        given = {*heads.header(head), *keys}
    found = set(traces.snake(dict.fromkeys(given)))
    if found >= _OBSERVED and {"prompt_name", "provided_model_name", "parent_observation_id"} & found:
        return "observations"
    return "scores" if found >= _SCORED else ""


def read(path: Path) -> Iterator[Log]:
    """Give the observations in a file; a file of scores is read with them, and holds no log itself."""
    if _kind(path, head_of(path)) == "scores":
        if not _folder(path, "observations"):
            raise DataError(
                f"{path} has scores alone",
                hint="put the folder of observations beside it, and name the file of observations",
            )
        return
    of_observation, of_trace, left_out = _scores_beside(path)
    beside = not of_observation and not of_trace
    calls: defaultdict[str, list[str]] = defaultdict(list)
    for where, row in _generations(path):
        if "trace_id" not in row:
            raise DataError(f"{where}: has no 'trace_id'", hint="leave out rows that Langfuse did not write")
        calls[text_of(row["trace_id"])].append(text_of(row.get("id")))
        beside = beside and "scores" not in row
    several = {trace for trace, found in calls.items() if len(found) > 1 and trace in of_trace}
    notes = list(left_out)
    if several:
        notes.append(f"the scores of {len(several)} traces with several generations are given to none")
    if beside:
        notes.append("no scores lie beside the observations: put their folder 'scores' beside the file's own")
    own = {trace: found for trace, found in of_trace.items() if trace not in several}
    yield Log(
        path=path,
        format=name,
        fields=_TAKEN,
        notes=tuple(notes),
        trials=partial(_trials, path, of_observation, own),
    )


def _folder(path: Path, called: str) -> list[Path]:
    """Find the files of another part of the same export, in a folder beside the file's own."""
    beside = [p for p in path.parent.parent.iterdir() if p.is_dir() and p != path.parent]
    return sorted(f for p in beside if p.name.startswith(called) for f in p.iterdir() if f.is_file())


def _scores_beside(path: Path) -> tuple[dict[str, _Scores], dict[str, _Scores], list[str]]:
    of_observation: defaultdict[str, _Scores] = defaultdict(dict)
    of_trace: defaultdict[str, _Scores] = defaultdict(dict)
    words: set[str] = set()
    for file in _folder(path, "scores"):
        for where, given in rows_of(file):
            row = traces.snake(given)
            if not row.keys() >= {"trace_id", "name", "value"}:
                raise DataError(f"{where}: is no score: it has no 'trace_id', 'name' and 'value'")
            scorer, kind = text_of(row["name"]), text_of(row.get("data_type"))
            # The number of a category is its place in a list; a text has none.
            value = row.get("string_value") if kind in {"CATEGORICAL", "TEXT"} else row["value"]
            score = traces.named_scores([(scorer, (value,))])
            if score[scorer] is None and not missing(value):
                words.add(scorer)
                continue
            if row.get("observation_id"):
                of_observation[text_of(row["observation_id"])] |= score
            elif row["trace_id"]:  # else it is of a session, or of none
                of_trace[text_of(row["trace_id"])] |= score
    notes = [f"left out, as their values are no scores: {', '.join(sorted(words))}"] if words else []
    return dict(of_observation), dict(of_trace), notes


def _generations(path: Path) -> Iterator[tuple[str, Row]]:
    """Give the calls of models: of those with a prompt of Langfuse's where there is one, else all."""
    prompted = any(_is_call(row) and row.get("prompt_name") for _, row in _snaked(path))
    for where, row in _snaked(path):
        if _is_call(row) and (row.get("prompt_name") or not prompted):
            yield where, row


def _snaked(path: Path) -> Iterator[tuple[str, Row]]:
    return ((where, traces.snake(row)) for where, row in rows_of(path))


def _is_call(row: Row) -> bool:
    return bool(row.get("type", "GENERATION") == "GENERATION")


def _trials(
    path: Path, of_observation: dict[str, _Scores], of_trace: dict[str, _Scores]
) -> Iterator[LoggedTrial]:
    met = Repeats()
    for _, row in _generations(path):
        noted, known = traces.noted(row.get("metadata"))
        sent = traces.opened(row, ("input",))
        question = question_of(sent)[1]
        parameters = mapping(traces.opened(row, ("model_parameters",)))
        model = row.get("provided_model_name") or row.get("model")
        settings = traces.together(
            noted,
            by_role(
                prompt=pick(row, _PROMPT),
                model={"provided_model_name": text_of(model)} if model else {},
                sampling=pick(parameters, SAMPLING, "model_parameters."),
                seed=pick(parameters, ("seed",), "model_parameters."),
            ),
        )
        scores = (
            of_trace.get(text_of(row.get("trace_id")), {})
            | of_observation.get(text_of(row.get("id")), {})
            | _inline(row)
        )
        wrong = row.get("level") == "ERROR"
        used = mapping(traces.opened(row, ("usage_details", "usage")))
        yield LoggedTrial(
            item=text_of(row.get("dataset_item_id")),
            question=question,
            rep=met.next(question, text_of(settings)),
            scores=dict.fromkeys(scores) if wrong else scores,
            covariates=known,
            settings=settings,
            prompt=conversation(sent),
            completion=text_or_none(traces.opened(row, ("output",))),
            prompt_tokens=whole_of(used.get("input")),
            completion_tokens=whole_of(used.get("output")),
            cost=number_of(row.get("total_cost")),
            # Exports give it in seconds or in milliseconds, by their age.
            latency_s=traces.seconds(row.get("start_time"), row.get("end_time")),
            started_at=text_or_none(row.get("start_time")),
            error=text_of(row.get("status_message")) or "error without a message" if wrong else None,
        )


def _inline(row: Row) -> _Scores:
    found = traces.opened(row, ("scores",))
    if isinstance(found, dict):
        return traces.named_scores((scorer, (value,)) for scorer, value in found.items())
    rows = [traces.snake(one) for one in objects(found)]
    return traces.named_scores(
        (text_of(one.get("name")), (one.get("value"), one.get("string_value"))) for one in rows
    )
