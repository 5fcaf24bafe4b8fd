"""LangSmith's experiments: runs with their feedback, examples with runs, and tables of results.

Follows three documented layouts: runs (the run data format, also of bulk exports) with `feedback_stats`;
examples with their `runs` (the comparison of experiments); and the table that `ExperimentResults.to_pandas`
makes, with columns `inputs.*`, `outputs.*`, `reference.*` and `feedback.*`. Tested on files made by hand. A
trial is a root run; the session, LangSmith's word for an experiment, is its arm.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from whyprompt.errors import DataError
from whyprompt.trials.readers.record import Log, LoggedTrial
from whyprompt.trials.reading import heads, traces
from whyprompt.trials.reading.fields import (
    empty,
    mapping,
    number_of,
    objects,
    text_of,
    text_or_none,
    whole_of,
)
from whyprompt.trials.reading.questions import Repeats, question_of, target_of
from whyprompt.trials.reading.rows import rows_of
from whyprompt.trials.reading.settings import by_role, pick

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whyprompt.trials.reading.rows import Row

name = "LangSmith"
_TAKEN = {
    "item": "reference_example_id",
    "question": "inputs",
    "target": "reference outputs",
    "scores": "feedback",
    "covariates": "example.metadata",
    "completion": "outputs",
    "prompt_tokens": "prompt_tokens",
    "completion_tokens": "completion_tokens",
    "cost": "total_cost",
    "latency_s": "start_time to end_time",
    "started_at": "start_time",
    "error": "error",
}
_RUN = frozenset({"run_type", "reference_example_id", "feedback_stats"})
_SESSIONS = ("session_name", "session_id", "experiment_name")


def sniff(path: Path, head: bytes) -> float:
    """Say how surely a file is of LangSmith."""
    del path
    found = set(heads.header(head))
    found |= {key.removeprefix("[].") for key in heads.keys(head)}
    # An answer of the interface holds its runs in a list.
    found |= {key.removeprefix("runs[].") for key in found if "inputs" not in found}
    runs = {"run_type", "inputs", "outputs"} <= found and bool({"dotted_order", "session_id"} & found)
    runs = runs or {"reference_example_id", "feedback_stats"} <= found
    compared = {"inputs", "runs"} <= found and "runs[].session_id" in found
    table = "example_id" in found and {"inputs", "feedback"} <= {key.partition(".")[0] for key in found}
    return 0.95 if runs or compared or (table and "execution_time" in found) else 0.0


def read(path: Path) -> Iterator[Log]:
    """Give the experiments in a file, as one log."""
    yield Log(path=path, format=name, fields=_TAKEN, trials=partial(_trials, path))


def _trials(path: Path) -> Iterator[LoggedTrial]:
    met = Repeats()
    for where, row in rows_of(path):
        if isinstance(row.get("runs"), list):
            for run in objects(row["runs"]):
                yield _run(run, row, met)
        elif any(key.startswith("inputs.") for key in row):
            yield _of_table(row, met)
        elif not _RUN & row.keys():
            raise DataError(
                f"{where}: is no run: it has none of {', '.join(sorted(_RUN))}",
                hint="leave out records that LangSmith did not write",
            )
        elif not row.get("parent_run_id"):
            yield _run(row, {}, met)


def _run(run: Row, example: Row, met: Repeats) -> LoggedTrial:
    question = question_of(traces.opened(example or run, ("inputs",)))[1]
    target = target_of(traces.opened(example, ("outputs",)) or traces.opened(run, ("reference_outputs",)))
    noted, _ = traces.noted(mapping(traces.opened(run, ("extra",))).get("metadata"))
    session = pick(run, next(([k] for k in _SESSIONS if run.get(k)), []))
    settings = traces.together(by_role(prompt=session), noted)
    wrong = run.get("error") or None
    scores = _feedback(traces.opened(run, ("feedback_stats",)))
    return LoggedTrial(
        item=text_of(example.get("id") or run.get("reference_example_id")),
        question=question,
        target=target,
        rep=met.next((text_of(run.get("reference_example_id")), question), text_of(settings)),
        scores=scores if wrong is None else dict.fromkeys(scores),
        covariates=traces.noted(example.get("metadata"))[1],
        settings=settings,
        completion=_output(traces.opened(run, ("outputs",))),
        prompt_tokens=whole_of(run.get("prompt_tokens")),
        completion_tokens=whole_of(run.get("completion_tokens")),
        cost=number_of(run.get("total_cost")),
        latency_s=traces.seconds(run.get("start_time"), run.get("end_time")),
        started_at=text_or_none(run.get("start_time")),
        error=text_or_none(wrong),
    )


def _of_table(row: Row, met: Repeats) -> LoggedTrial:
    def part(prefix: str) -> Row:
        return {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix) and not empty(v)}

    question = question_of(part("inputs."))[1]
    target = target_of(part("reference."))
    item = text_of(row.get("example_id"))
    wrong = None if empty(row.get("error")) else text_of(row["error"])
    scores = traces.named_scores(
        (key.removeprefix("feedback."), () if wrong else (value,))
        for key, value in row.items()
        if key.startswith("feedback.")
    )
    return LoggedTrial(
        item=item,
        question=question,
        target=target,
        rep=met.next((item, question, target)),
        scores=scores,
        completion=_output(part("outputs.")),
        latency_s=number_of(row.get("execution_time")),
        error=wrong,
    )


def _feedback(stats: Any) -> dict[str, float | None]:  # noqa: ANN401 - any JSON
    """Give the mean of each key's feedback; a run has one of each, but for several judges."""
    return traces.named_scores(
        (key, (one.get("avg"), *_only(one.get("values"))) if isinstance(one, dict) else (one,))
        for key, one in mapping(stats).items()
    )


def _only(values: object) -> tuple[str, ...]:
    """Give the word of feedback that is no number, where all of it is one word."""
    found = mapping(values)
    return tuple(found) if len(found) == 1 else ()


def _output(outputs: Any) -> str | None:  # noqa: ANN401 - any JSON
    if isinstance(outputs, dict) and len(outputs) == 1:
        outputs = next(iter(outputs.values()))
    return text_or_none(outputs if outputs != {} else None)
