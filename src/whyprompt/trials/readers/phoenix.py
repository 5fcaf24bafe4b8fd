"""Phoenix's experiments: the JSON and CSV that it downloads, a run of an example each.

Follows the records of `GET /v1/experiments/{id}/json` and `/csv`; tested on files made by hand. The file is
named after the experiment and says nothing else of it: the arm is the file.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from whyprompt.errors import DataError
from whyprompt.trials.readers.record import Log, LoggedTrial
from whyprompt.trials.reading import heads, traces
from whyprompt.trials.reading.fields import number_of, objects, parsed, text_of, text_or_none, whole_of
from whyprompt.trials.reading.questions import question_of, target_of
from whyprompt.trials.reading.rows import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whyprompt.trials.reading.rows import Row

name = "Phoenix"
_TAKEN = {
    "item": "example_id",
    "question": "input",
    "target": "reference_output",
    "rep": "repetition_number",
    "scores": "annotations",
    "completion": "output",
    "prompt_tokens": "prompt_token_count",
    "completion_tokens": "completion_token_count",
    "latency_s": "latency_ms, else start_time to end_time",
    "started_at": "start_time",
    "error": "error",
}
_FIELDS = frozenset({"example_id", "repetition_number", "reference_output", "output"})
_SCORE = re.compile(r"annotation_(.+)_score")


def sniff(path: Path, head: bytes) -> float:
    """Say how surely a file is of Phoenix."""
    del path
    found = set(heads.header(head)) | {key.removeprefix("[].") for key in heads.keys(head)}
    return 0.95 if found >= _FIELDS else 0.0


def read(path: Path) -> Iterator[Log]:
    """Give the one experiment in a file."""
    yield Log(path=path, format=name, fields=_TAKEN, trials=partial(_trials, path))


def _trials(path: Path) -> Iterator[LoggedTrial]:
    for where, row in rows_of(path):
        if not row.keys() >= _FIELDS:
            lacks = ", ".join(map(repr, sorted(_FIELDS - row.keys())))
            raise DataError(f"{where}: has no {lacks}", hint="leave out records that Phoenix did not write")
        latency = number_of(row.get("latency_ms"))
        wrong = row.get("error") or None
        yield LoggedTrial(
            item=text_of(row["example_id"]),
            question=question_of(parsed(row.get("input")))[1],
            target=target_of(parsed(row["reference_output"])),
            rep=whole_of(row["repetition_number"]) or 1,
            scores=_scores(row) if wrong is None else dict.fromkeys(_scores(row)),
            completion=text_or_none(parsed(row["output"])),
            prompt_tokens=whole_of(row.get("prompt_token_count")),
            completion_tokens=whole_of(row.get("completion_token_count")),
            latency_s=traces.seconds(row.get("start_time"), row.get("end_time"))
            if latency is None
            else latency / 1000,
            started_at=text_or_none(row.get("start_time")),
            error=text_or_none(wrong),
        )


def _scores(row: Row) -> dict[str, float | None]:
    annotations = row.get("annotations")
    if isinstance(annotations, list):
        # An evaluator that failed has no score; its label may say one where it gives no number.
        return traces.named_scores(
            (text_of(one.get("name")), () if one.get("error") else (one.get("score"), one.get("label")))
            for one in objects(annotations)
        )
    columns = ((match[1], column) for column in row if (match := _SCORE.fullmatch(column)))
    return traces.named_scores(
        (scorer, (row[column], row.get(f"annotation_{scorer}_label"))) for scorer, column in columns
    )
