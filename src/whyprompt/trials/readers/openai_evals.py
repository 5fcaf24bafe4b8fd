"""OpenAI evals: the events that `oaieval` records, one JSON object a line.

Follows the recorder of openai/evals: a line `spec` says what was run, a line `final_report` what came out,
and every other line is an event of one sample: `sampling` (what was sent, and what came back), `match`
(`correct`), `metrics` (numbers by name), `error`. Events of samples run at once are mixed, and the report may
stand before them. Tested on files made by hand.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from whyprompt._rows import json_rows
from whyprompt.errors import DataError
from whyprompt.trials.readers.record import Log, LoggedTrial, Stated, score_value
from whyprompt.trials.reading import heads
from whyprompt.trials.reading.chats import conversation
from whyprompt.trials.reading.fields import mapping, number_of, score_of, text_of, text_or_none
from whyprompt.trials.reading.questions import question_of
from whyprompt.trials.reading.settings import by_role, pick, scalars

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whyprompt.trials.readers.record import Scalar, Values
    from whyprompt.trials.reading.rows import Row

name = "OpenAI evals"
_TAKEN = {
    "item": "sample_id",
    "question": "sampling.prompt, the user's last",
    "target": "match.expected",
    "rep": "order of events",
    "scores": "match.correct, metrics",
    "prompt": "sampling.prompt",
    "completion": "sampling.sampled",
    "started_at": "created_at",
    "error": "error",
}
# The names that reports have for the standard error of an accuracy, the first one as the tool spells it.
_ERRORS = ("boostrap_std", "bootstrap_std")


def sniff(path: Path, head: bytes) -> float:
    """Say how surely a file is of OpenAI evals."""
    del path
    keys = heads.keys(head)
    if {"spec.eval_name", "spec.completion_fns"} & keys:
        return 1.0
    return 0.9 if {"sample_id", "type", "data"} <= keys else 0.0


def read(path: Path) -> Iterator[Log]:
    """Give the one run in a file."""
    spec: Row = {}
    report: Row = {}
    runs: set[str] = set()
    events: defaultdict[str, list[tuple[str, Row]]] = defaultdict(list)
    for line, row in json_rows(path):
        where = f"{path}:{line}"
        if "spec" in row:
            spec = mapping(row["spec"])
        elif "final_report" in row:
            report = mapping(row["final_report"])
        elif "type" in row and "sample_id" in row:
            events[text_of(row["sample_id"])].append((where, row))
        else:
            raise DataError(
                f"{where}: is no event: it has no 'type' and 'sample_id'",
                hint="leave out lines that oaieval did not write",
            )
        runs |= {text_of(found) for found in (row.get("run_id"), spec.get("run_id")) if found}
    if len(runs) > 1:
        raise DataError(
            f"{path} holds events of {len(runs)} runs: {', '.join(sorted(runs))}",
            hint="write each run to a file of its own",
        )
    trials = [trial for sample, found in events.items() for trial in _trials(sample, found)]
    scorers = {scorer for trial in trials for scorer in trial.scores}
    if not scorers:
        raise DataError(f"{path} has no 'match' event, nor 'metrics' with a number: it scores nothing")
    trials = [replace(trial, scores=dict.fromkeys(scorers) | dict(trial.scores)) for trial in trials]
    several = sum(trial.rep == 2 for trial in trials)
    yield Log(
        path=path,
        format=name,
        fields=_TAKEN,
        settings=_settings(spec),
        stated=tuple(_stated(report, scorers)),
        # A run that was stopped has no report.
        status="complete" if report else "",
        notes=(f"{several} samples were scored more than once: taken as repetitions",) * bool(several),
        trials=partial(iter, trials),
    )


def _settings(spec: Row) -> dict[str, Values]:
    config = mapping(spec.get("run_config"))
    evaluation = mapping(config.get("eval_spec"))
    functions = spec.get("completion_fns") or config.get("completion_fns") or spec.get("model_name")
    judge = pick(evaluation, ("cls",), "eval_spec.") | scalars(
        mapping(evaluation.get("args")), "eval_spec.args."
    )
    return by_role(
        model={"completion_fns": _one(functions)} if functions else {},
        items=pick(spec, ("eval_name", "base_eval", "split"))
        | pick(config, ("max_samples",), "run_config.")
        | {k: v for k, v in judge.items() if "samples" in k},
        judge={k: v for k, v in judge.items() if "samples" not in k},
        seed=pick(config, ("seed",), "run_config."),
        date=pick(spec, ("created_at",)),
    )


def _stated(report: Row, scorers: set[str]) -> Iterator[Stated]:
    for key, value in report.items():
        # The report's accuracy is the share of matches that are correct.
        scorer = "match" if key == "accuracy" and key not in scorers else key
        mean = number_of(value)
        if scorer in scorers and mean is not None:
            given = next((report[k] for k in _ERRORS if k in report), None) if key == "accuracy" else None
            yield Stated(scorer, mean, error=number_of(given))


def _trials(sample: str, events: list[tuple[str, Row]]) -> Iterator[LoggedTrial]:
    by_type: defaultdict[str, list[tuple[str, Row]]] = defaultdict(list)
    for where, event in events:
        by_type[text_of(event["type"])].append((where, mapping(event.get("data"))))
    # A judge's own sampling comes after it.
    sent = by_type["sampling"][0][1] if by_type["sampling"] else {}
    matches, metrics = by_type["match"], by_type["metrics"]
    if len(matches) > 1 and metrics:
        raise DataError(
            f"{matches[1][0]}: sample {sample!r} has several 'match' events beside 'metrics'",
            hint="leave out all but one of them",
        )
    wrong = by_type["error"][0][1].get("message") if by_type["error"] and not (matches or metrics) else None
    if not (matches or metrics or wrong):
        return
    for rep in range(max(len(matches), len(metrics), 1)):
        where, match = matches[rep] if rep < len(matches) else ("", {})
        scores = _metrics(metrics[rep][1]) if rep < len(metrics) else {}
        if matches:
            scores["match"] = score_of(match.get("correct"), where, "correct")
        prompt = match.get("prompt", sent.get("prompt"))
        completion = match.get("sampled", sent.get("sampled"))
        yield LoggedTrial(
            item=sample,
            question=question_of(prompt)[1] if isinstance(prompt, list) else "",
            target=_one(match.get("expected")),
            rep=rep + 1,
            scores=scores,
            covariates=_known(match),
            settings=by_role(model=pick(sent, ("model",))),
            prompt=conversation(prompt),
            completion=_one(completion) if completion is not None else None,
            started_at=text_or_none(events[0][1].get("created_at")),
            error=text_or_none(wrong),
        )


def _metrics(data: Row) -> dict[str, float | None]:
    """Keep the numbers; a metric may also name what was picked."""
    found = {key: score_value(v) for key, v in data.items() if isinstance(v, bool | int | float) or v is None}
    return {key: value for key, value in found.items() if value is not None or data[key] is None}


def _known(match: Row) -> dict[str, Scalar]:
    return {"task": text_of(match["task"])} if match.get("task") else {}


def _one(value: object) -> str:
    return text_of(value[0] if isinstance(value, list) and len(value) == 1 else value)
