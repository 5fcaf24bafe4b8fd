"""AlpacaEval's files: a judge's annotations of two generators' outputs, and one generator's outputs alone.

Follows the files that alpaca_eval writes (`annotations.json`, `model_outputs.json`); tested on files made by
hand. A preference runs from 1, the first output is preferred, to 2, the second one: less 1, it is the second
generator's chance to win. 0 was a tie in older files; null is a judgement that failed or was not made.

A generator is a model with its prompt: the file tells no more of either.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from whyprompt.errors import DataError
from whyprompt.trials.readers.record import Log, LoggedTrial
from whyprompt.trials.reading import heads
from whyprompt.trials.reading.fields import missing, number_of, text_of, text_or_none
from whyprompt.trials.reading.questions import Repeats
from whyprompt.trials.reading.rows import rows_of
from whyprompt.trials.reading.settings import by_role, pick

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from whyprompt.trials.readers.record import Values

name = "AlpacaEval"
_TAKEN = {
    "question": "instruction",
    "scores": "preference - 1, or characters of output",
    "covariates": "dataset",
    "completion": "output_2, or output",
    "error": "a missing preference or output",
}
_JUDGED = frozenset({"instruction", "output_1", "output_2", "preference"})
_ANSWERED = frozenset({"instruction", "output", "generator"})
# What a preference is against, and whose it is.
_JUDGES = ("generator_1", "annotator")
_GENERATOR = "a generator is a model with its prompt: the file does not tell which of the two differs"


def sniff(path: Path, head: bytes) -> float:
    """Say how surely a file is of AlpacaEval."""
    del path
    if heads.container(head) not in {"list", "lines"}:
        return 0.0
    keys = {key.removeprefix("[].") for key in heads.keys(head)}
    if keys >= _JUDGED:
        return 0.95
    return 0.9 if keys >= _ANSWERED and "preference" not in keys else 0.0


def read(path: Path) -> Iterator[Log]:
    """Give the run in a file."""
    seen: dict[str, set[str]] = {}
    for where, row in rows_of(path):
        judged = "preference" in row
        if not (_JUDGED if judged else _ANSWERED) <= row.keys():
            lacks = sorted((_JUDGED if judged else _ANSWERED) - row.keys())
            raise DataError(
                f"{where}: has no {', '.join(map(repr, lacks))}",
                hint="one file holds annotations, or the outputs of generators, and nothing else",
            )
        seen.setdefault("kind", set()).add("annotations" if judged else "outputs")
        for key in _JUDGES:
            if row.get(key) is not None:
                seen.setdefault(key, set()).add(text_of(row[key]))
    kinds = seen.get("kind", set())
    if len(kinds) != 1:
        raise DataError(
            f"{path} holds {' and '.join(sorted(kinds)) or 'no rows'}",
            hint="one file holds annotations, or the outputs of generators, and nothing else",
        )
    if kinds == {"outputs"}:
        note = "'characters' is the length of each output, counted here: the file has no score"
        yield Log(
            path=path, format=name, fields=_TAKEN, notes=(note, _GENERATOR), trials=partial(_outputs, path)
        )
        return
    judges = {key: found for key, found in seen.items() if key in _JUDGES}
    varying = [key for key, found in judges.items() if len(found) > 1]
    yield Log(
        path=path,
        format=name,
        fields=_TAKEN,
        settings=by_role(judge={k: min(found) for k, found in judges.items() if k not in varying}),
        notes=("'preference' is the chance that generator_2 wins against generator_1", _GENERATOR),
        trials=partial(_annotations, path, varying),
    )


def _generator(row: Mapping[str, Any], key: str) -> dict[str, Values]:
    found = row.get(key)
    called = text_of(found)
    # Which of its two parts differs is not told: it stands for both, and neither is an effect alone.
    return {"prompt": {"generator": called}, "model": {"generator.model": called}} if called else {}


def _outputs(path: Path) -> Iterator[LoggedTrial]:
    met = Repeats()
    for _, row in rows_of(path):
        question, output = text_of(row["instruction"]), text_or_none(row["output"])
        settings = _generator(row, "generator")
        yield LoggedTrial(
            question=question,
            rep=met.next(question, text_of(settings)),
            scores={"characters": None if output is None else float(len(output))},
            covariates=pick(row, ("dataset",)),
            settings=settings,
            completion=output,
            error="no output" if output is None else None,
        )


def _annotations(path: Path, varying: list[str]) -> Iterator[LoggedTrial]:
    met = Repeats()
    for where, row in rows_of(path):
        question = text_of(row["instruction"])
        settings = _generator(row, "generator_2") | by_role(judge=pick(row, varying))
        won = _won(row["preference"], where)
        yield LoggedTrial(
            question=question,
            rep=met.next(question, text_of(settings)),
            scores={"preference": won},
            covariates=pick(row, ("dataset",)),
            settings=settings,
            completion=text_or_none(row["output_2"]),
            error="the judge gave no preference" if won is None else None,
        )


def _won(preference: object, where: str) -> float | None:
    if missing(preference):
        return None
    value = number_of(preference)
    if value == 0:
        return 0.5
    if value is None or not 1 <= value <= 2:
        raise DataError(
            f"{where}: 'preference' is {preference!r}, not between 1 and 2",
            hint="1 is the first output, 2 the second, null no judgement",
        )
    return value - 1
