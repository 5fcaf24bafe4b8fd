"""Items from local files and folders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whyprompt._rows import (
    decimal_commas,
    delimited_rows,
    is_file,
    json_rows,
    json_value,
    parquet_table,
    separator_of,
)
from whyprompt.errors import DataError
from whyprompt.trials.items.layouts import column_item, gsm8k_item, natural_instructions_items

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from whyprompt.study import FileSource, Gsm8kSource, NaturalInstructionsSource
    from whyprompt.trials.items.item import Item

_WHOLE = re.compile(r"-?(0|[1-9]\d{0,14})")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d{1,2})?")


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read the rows of a delimited, JSON, JSONL or Parquet file, each a mapping of column to value.

    Raises
    ------
    DataError
        If the file is missing, malformed, or of another kind; the message names the line.
    """
    if not is_file(path):
        raise DataError(f"no such file: {path}")
    suffix = path.suffix.lower()
    if suffix in {".csv", ".tsv"}:
        rows = delimited_rows(path, separator_of(path))
        _, names = next(rows)
        yield from (dict(zip(names, row, strict=True)) for _, row in rows)
    elif suffix in {".jsonl", ".ndjson"}:
        yield from (row for _, row in json_rows(path))
    elif suffix == ".parquet":
        yield from parquet_table(path).to_pylist()
    elif suffix == ".json":
        yield from _listed(json_value(path.read_bytes(), path), path)
    else:
        raise DataError(f"{path}: items are read from .csv, .tsv, .json, .jsonl and .parquet files")


def _listed(content: Any, path: Path) -> list[dict[str, Any]]:  # noqa: ANN401 - any JSON
    """Give the objects of a file that is one list of them."""
    if isinstance(content, dict) and "Instances" in content:
        raise DataError(
            f"{path} is a task of Natural Instructions",
            hint=f"name it as one in the study: items: [{{source: natural_instructions, path: {path}}}]",
        )
    if not isinstance(content, list):
        what = "an object" if isinstance(content, dict) else "one value"
        raise DataError(
            f"{path} holds {what}, and items are a list of objects",
            hint='[{"question": ..., "answer": ...}, ...]',
        )
    for number, row in enumerate(content, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, item {number}: an item is an object, not {type(row).__name__}")
    return content


def from_file(source: FileSource) -> list[Item]:
    """Read every item of a file, its columns named by the source."""
    path = Path(source.path)
    task = source.task_type or path.stem
    rows = list(read_rows(path))
    if path.suffix.lower() in {".csv", ".tsv"}:
        commas = decimal_commas(path, separator_of(path), lambda value: value == "")
        _numbers(rows, source.columns.covariates, commas)
    return [
        column_item(row, source.columns, index=i, task=task, where=str(path)) for i, row in enumerate(rows)
    ]


def _numbers(rows: list[dict[str, Any]], columns: Sequence[str], commas: frozenset[str]) -> None:
    """Read the covariates of a CSV file, where all is text, as numbers if every value of a column is one.

    A code with a leading zero (``007``) stays text. Those among `commas` have decimal commas.
    """
    for column in columns:
        if column in commas:
            for row in rows:
                row[column] = row[column].replace(",", ".")
        if not all(_NUMBER.fullmatch(str(row.get(column, "")).strip()) for row in rows):
            continue
        whole = all(_WHOLE.fullmatch(row[column].strip()) for row in rows)
        for row in rows:
            row[column] = int(row[column]) if whole else float(row[column])


def from_gsm8k(source: Gsm8kSource) -> list[Item]:
    """Read every item of a JSONL file, or of ``<split>.jsonl`` in a folder, in the layout of GSM8K."""
    path = Path(source.path)
    if path.is_dir():
        path /= f"{source.split}.jsonl"
    task = source.task_type or "gsm8k"
    return [gsm8k_item(row, index=i, task=task, where=str(path)) for i, row in enumerate(read_rows(path))]


def from_natural_instructions(source: NaturalInstructionsSource) -> dict[str, tuple[list[Item], list[Item]]]:
    """Read the tasks of a file, or of every ``task*.json`` in a folder: items and worked examples by task.

    Raises
    ------
    DataError
        If the path or a named task does not exist, or a file has another layout.
    """
    path = Path(source.path)
    if path.is_dir():
        files = {f.stem: f for f in sorted(path.glob("task*.json"))}
        if not files:
            raise DataError(f"{path}: no task*.json in this folder")
    elif is_file(path):
        files = {path.stem: path}
    else:
        raise DataError(f"no such file or folder: {path}")
    for name in source.tasks or []:
        if name not in files:
            raise DataError(f"{path}: no task {name!r}; it has {', '.join(files)}")
    tasks: dict[str, tuple[list[Item], list[Item]]] = {}
    for name in source.tasks or files:
        content = json_value(files[name].read_bytes(), files[name])
        tasks[name] = natural_instructions_items(content, name=name, where=str(files[name]))
    return tasks
