"""Rows of known layouts, as items: plain columns, GSM8K, Natural Instructions."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from whyprompt._rows import unreadable
from whyprompt._words import did_you_mean
from whyprompt.errors import DataError
from whyprompt.trials.items.item import Item, Scalar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whyprompt.study import Columns

_CALCULATOR = re.compile(r"<<[^<>]*>>")


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    if column not in row:
        has = [str(name) for name in row]
        raise DataError(
            f"{where}: no column {column!r}; it has {', '.join(has)}{did_you_mean(column, has)}",
            hint=f"say which column holds what: columns: {{{column}: NAME}}"
            if column in {"question", "answer"}
            else None,
        )
    value = row[column]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if (why := unreadable(value)) is not None:
        raise DataError(f"{where}: column {column!r} {why}")
    return str(value).strip()


def _scalar(row: Mapping[str, Any], column: str, where: str) -> Scalar:
    text = _text(row, column, where)
    if not text:
        raise DataError(f"{where}: column {column!r} is empty", hint="fill it in, or drop the column")
    value = row[column]
    return value if isinstance(value, bool | int | float | str) else text


def column_item(row: Mapping[str, Any], columns: Columns, *, index: int, task: str, where: str) -> Item:
    """Make an item from a row of named columns; a refusal names ``where`` and the column."""
    place = f"{where}, row {index + 1}"
    difficulty: float | None = None
    if columns.difficulty is not None:
        raw = _text(row, columns.difficulty, place)
        try:
            difficulty = float(raw)
        except ValueError:
            difficulty = math.nan
        if not math.isfinite(difficulty):
            raise DataError(f"{place}: column {columns.difficulty!r} holds {raw!r}, not a number")
    choices: tuple[str, ...] = ()
    if columns.choices is not None:
        raw_choices = row.get(columns.choices)
        if raw_choices is None:
            raise DataError(f"{place}: no column {columns.choices!r}")
        if isinstance(raw_choices, str):
            try:
                raw_choices = json.loads(raw_choices)
            except (ValueError, RecursionError):
                raw_choices = raw_choices.split("|")
        if not isinstance(raw_choices, list):
            raise DataError(
                f"{place}: column {columns.choices!r} holds {raw_choices!r}, not a list",
                hint="write a list, a JSON list, or the choices with '|' between them",
            )
        choices = tuple(str(c).strip() for c in raw_choices)
    return Item(
        item_id=_text(row, columns.item_id, place) if columns.item_id else f"{task}-{index}",
        question=_text(row, columns.question, place),
        answer=_text(row, columns.answer, place),
        task_type=_text(row, columns.task_type, place) if columns.task_type else task,
        difficulty=difficulty,
        solution=(_text(row, columns.solution, place) or None) if columns.solution else None,
        choices=choices,
        cluster=_text(row, columns.cluster, place) if columns.cluster else None,
        covariates={c: _scalar(row, c, place) for c in columns.covariates},
    )


def gsm8k_item(row: Mapping[str, Any], *, index: int, task: str, where: str) -> Item:
    """Make an item from a row of GSM8K: the text after ``####`` is the answer, before it the solution.

    Calculator marks (``<<16-3-4=9>>``) are taken out of the solution; difficulty is its number of steps.
    """
    place = f"{where}, row {index + 1}"
    question, full = _text(row, "question", place), _text(row, "answer", place)
    solution, mark, answer = full.rpartition("####")
    if not mark:
        raise DataError(f"{place}: the answer has no '####', so this is not the layout of GSM8K")
    steps = max(1, len(_CALCULATOR.findall(solution)))
    return Item(
        item_id=f"{task}-{index}",
        question=question,
        answer=answer.strip().replace(",", ""),
        task_type=task,
        difficulty=float(steps),
        solution=_CALCULATOR.sub("", solution).strip(),
    )


def instance_item(item_id: str, task: str, definition: object, asked: object, outputs: object) -> Item:
    """Make an item of an instance of Natural Instructions: the task's definition, then the input."""
    # Several outputs are equally right; an empty list is an empty answer, refused with the others.
    answer = (outputs[0] if outputs else "") if isinstance(outputs, list) else outputs
    question = f"{str(definition).strip()}\n\n{str(asked).strip()}"
    return Item(item_id=item_id, question=question, answer=str(answer).strip(), task_type=task)


def natural_instructions_items(
    task: Any,  # noqa: ANN401 - whatever the file holds
    *,
    name: str,
    where: str,
) -> tuple[list[Item], list[Item]]:
    """Make items and worked examples (``Positive Examples``) from one task file of Natural Instructions.

    The question is the task's definition followed by the instance's input; the first of the listed outputs is
    the gold answer.
    """
    for key in ("Definition", "Positive Examples", "Instances"):
        if not isinstance(task, dict) or key not in task:
            raise DataError(f"{where}: no key {key!r}, so this is not the layout of Natural Instructions")
    definition = task["Definition"]
    text = " ".join(definition) if isinstance(definition, list) else str(definition)

    def item(number: str, row: Mapping[str, Any]) -> Item:
        missing = next((k for k in ("input", "output") if k not in row), None)
        if missing is not None:
            raise DataError(f"{where}: {number}: no key {missing!r}")
        return instance_item(number, name, text, row["input"], row["output"])

    instances = [item(str(r.get("id", f"{name}-{i}")), r) for i, r in enumerate(task["Instances"])]
    examples = [item(f"{name}-example-{i}", r) for i, r in enumerate(task["Positive Examples"])]
    return instances, examples
