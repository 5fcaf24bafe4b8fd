"""Braintrust's experiments: their rows as JSON, JSON Lines or CSV.

Follows the experiment events of its documented API (`input`, `output`, `expected`, `scores`, `metadata`,
`metrics`, spans by `root_span_id`), which its export writes; tested on files made by hand. A trial is a root
span; what an experiment is called is its arm.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from whyprompt.trials.readers.record import Log, LoggedTrial
from whyprompt.trials.reading import heads, traces
from whyprompt.trials.reading.fields import mapping, number_of, parsed, text_of, text_or_none, whole_of
from whyprompt.trials.reading.questions import Repeats, question_of, target_of
from whyprompt.trials.reading.rows import rows_of
from whyprompt.trials.reading.settings import by_role, pick

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whyprompt.trials.reading.rows import Row

name = "Braintrust"
_TAKEN = {
    "item": "dataset_record_id, else origin.id",
    "question": "input",
    "target": "expected",
    "scores": "scores",
    "covariates": "metadata",
    "completion": "output",
    "prompt_tokens": "metrics.prompt_tokens",
    "completion_tokens": "metrics.completion_tokens",
    "cost": "metrics.estimated_cost",
    "latency_s": "metrics.start to metrics.end",
    "started_at": "created",
    "error": "error",
}
_RUNS = ("experiment_name", "experiment_id")


def sniff(path: Path, head: bytes) -> float:
    """Say how surely a file is of Braintrust."""
    del path
    found = set(heads.header(head))
    found |= {key.removeprefix("events[].").removeprefix("[].") for key in heads.keys(head)}
    scored = {"input", "output"} <= found and any(key.partition(".")[0] == "scores" for key in found)
    return 0.95 if scored and {"root_span_id", "experiment_id", "span_attributes"} & found else 0.0


def read(path: Path) -> Iterator[Log]:
    """Give the experiments in a file, as one log."""
    yield Log(path=path, format=name, fields=_TAKEN, trials=partial(_trials, path))


def _is_root(row: Row) -> bool:
    if row.get("is_root") is not None:
        return row["is_root"] in (True, "true", "True")
    return row.get("span_id") == row.get("root_span_id")


def _trials(path: Path) -> Iterator[LoggedTrial]:
    met = Repeats()
    for _, row in rows_of(path):
        if not _is_root(row):
            continue
        question = question_of(traces.opened(row, ("input",)))[1]
        target = target_of(traces.opened(row, ("expected",)))
        noted, known = traces.noted(row.get("metadata"))
        run = pick(row, next(([k] for k in _RUNS if row.get(k)), []))
        settings = traces.together(by_role(prompt=run), noted)
        metrics = mapping(traces.opened(row, ("metrics",)))
        wrong = row.get("error") or None
        scores = _scores(row)
        yield LoggedTrial(
            item=text_of(row.get("dataset_record_id") or _origin(row)),
            question=question,
            target=target,
            rep=met.next((question, target), text_of(settings)),
            scores=scores if wrong is None else dict.fromkeys(scores),
            covariates=known,
            settings=settings,
            completion=text_or_none(traces.opened(row, ("output",))),
            prompt_tokens=whole_of(metrics.get("prompt_tokens")),
            completion_tokens=whole_of(metrics.get("completion_tokens")),
            cost=number_of(metrics.get("estimated_cost")),
            latency_s=traces.seconds(metrics.get("start"), metrics.get("end")),
            started_at=text_or_none(row.get("created")),
            error=text_or_none(parsed(wrong)),
        )


def _origin(row: Row) -> Any:  # noqa: ANN401 - an id
    return mapping(traces.opened(row, ("origin",))).get("id")


def _scores(row: Row) -> dict[str, float | None]:
    given = mapping(traces.opened(row, ("scores",)))
    given |= {key.removeprefix("scores."): value for key, value in row.items() if key.startswith("scores.")}
    return traces.named_scores((scorer, (value,)) for scorer, value in given.items())
