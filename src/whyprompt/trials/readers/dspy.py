"""DSPy's evaluation results: what `Evaluate` writes by `save_as_json` and `save_as_csv`.

Each row is the example's fields, the prediction's, and the metric under its own name (`<lambda>` too), last.
Names that example and prediction share are written `example_NAME` and `pred_NAME`: by them a file is known
for DSPy's, and a file without any is read as a plain table. A file is one run: nothing in it says of what.
Read in real files of 3.4.1.

Where the program failed, DSPy writes its `failure_score` (0 by default) and no prediction: such a row has no
outcome here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from whyprompt.errors import DataError
from whyprompt.trials.readers.record import Log, LoggedTrial
from whyprompt.trials.reading import heads
from whyprompt.trials.reading.fields import score_of, text_of
from whyprompt.trials.reading.questions import ITEMS, QUESTIONS, TARGETS, Repeats, question_of
from whyprompt.trials.reading.rows import Row, rows_of
from whyprompt.trials.reading.settings import scalars

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

name = "DSPy"
_TAKEN = {
    "item": "the example's item_id, or id",
    "question": "the example's inputs",
    "target": "the example's answer",
    "scores": "the metric's column",
    "covariates": "the example's fields",
    "completion": "the prediction's fields",
    "error": "a row without a prediction",
}
_EXAMPLE, _PREDICTION = "example_", "pred_"
# What its modules add to a prediction.
_ADDED = frozenset({"reasoning", "rationale", "trajectory", "completions", "prediction"})


def sniff(path: Path, head: bytes) -> float:
    """Say how surely a file is of DSPy."""
    del path
    kind = heads.container(head)
    if kind == "delimited":
        columns: Iterable[str] = heads.header(head)
    elif kind == "list":
        columns = {key.removeprefix("[].") for key in heads.keys(head) if key.count("[]") == 1}
    else:
        return 0.0
    return 0.9 if _shared(columns) else 0.0


def _shared(columns: Iterable[str]) -> set[str]:
    names = set(columns)
    shared = {n.removeprefix(_EXAMPLE) for n in names if n.startswith(_EXAMPLE)}
    return {n for n in shared if _PREDICTION + n in names}


def read(path: Path) -> Iterator[Log]:
    """Give the one run in a file."""
    columns: dict[str, None] = {}
    metric = ""
    failed: set[str] = set()
    for where, row in rows_of(path):
        last = next(reversed(row), "")
        if metric and last != metric:
            raise DataError(
                f"{where}: the metric, its last field, is {last!r}, in the rows before {metric!r}",
                hint="one file holds one evaluation: write each to a file of its own",
            )
        metric = last
        columns |= dict.fromkeys(row)
        if not any(key.startswith(_PREDICTION) for key in row):
            failed |= set(row)
    if not columns:
        raise DataError(f"{path} holds no rows", hint="run the evaluation again with save_as_json")
    sides = _Sides([key for key in columns if key != metric], failed)
    yield Log(
        path=path,
        format=name,
        fields=_TAKEN,
        settings={"judge": {"metric": metric}},
        notes=sides.notes(),
        trials=partial(_trials, path, metric, sides),
    )


class _Sides:
    """Which fields are the example's, known beforehand, and which the prediction's."""

    def __init__(self, columns: list[str], failed: set[str]) -> None:
        shared = _shared(columns)
        known = [k for k in columns if k.removeprefix(_EXAMPLE) in shared and k.startswith(_EXAMPLE)]
        # What is asked for is what both sides have, when that is one thing.
        self.targets = shared - set(QUESTIONS) if len(shared) == 1 else set(TARGETS)
        last = max((columns.index(k) for k in known), default=-1)
        first = next(
            (i for i, k in enumerate(columns) if k in _ADDED or k.startswith(_PREDICTION)), len(columns)
        )
        # The example's fields stand first. Those of a row without a prediction are the example's too.
        self.example = [k for i, k in enumerate(columns) if i <= last or k in failed or k.lower() in ITEMS]
        self.prediction = [k for i, k in enumerate(columns) if i >= first and k not in self.example]
        self.unclear = [k for k in columns if k not in self.example and k not in self.prediction]

    def notes(self) -> tuple[str, ...]:
        """Say which fields were left out."""
        if not self.unclear:
            return ()
        names = ", ".join(map(repr, self.unclear))
        return (f"left out, as the file does not tell whether they were known beforehand: {names}",)


def _trials(path: Path, metric: str, sides: _Sides) -> Iterator[LoggedTrial]:
    met = Repeats()
    for where, row in rows_of(path):
        example = {k.removeprefix(_EXAMPLE): row[k] for k in sides.example if row.get(k) not in (None, "")}
        item = next((text_of(example.pop(k)) for k in ITEMS if k in example), "")
        targets = [k for k in example if k in sides.targets]
        target = text_of(example.pop(targets[0])) if len(targets) == 1 else ""
        asked, question = question_of(example)
        given = {
            k.removeprefix(_PREDICTION): row[k] for k in sides.prediction if row.get(k) not in (None, "")
        }
        wrong = None if given else "no prediction: DSPy writes its failure score where the program failed"
        yield LoggedTrial(
            item=item,
            question=question,
            target=target,
            rep=met.next((item, question, target)),
            scores={metric: None if wrong else score_of(row[metric], where, metric)},
            covariates=scalars({k: v for k, v in example.items() if k != asked}) if asked else {},
            completion=_completion(given),
            error=wrong,
        )


def _completion(given: Row) -> str | None:
    if len(given) == 1:
        return text_of(next(iter(given.values())))
    return text_of(given) if given else None
