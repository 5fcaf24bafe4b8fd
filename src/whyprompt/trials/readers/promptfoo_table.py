"""promptfoo's table as CSV: a row a test, and for each prompt a block of columns under names that repeat."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from whyprompt._rows import delimited_rows
from whyprompt.errors import DataError
from whyprompt.trials.readers.promptfoo_tests import Tests, read_scores
from whyprompt.trials.readers.record import Log, LoggedTrial, score_value
from whyprompt.trials.reading import heads
from whyprompt.trials.reading.fields import parsed
from whyprompt.trials.reading.questions import Repeats
from whyprompt.trials.reading.settings import by_role, scalars

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from whyprompt.trials.readers.record import Values
    from whyprompt.trials.reading.rows import Row

_BLOCK = ("Status", "Score")
_TAKEN = {
    "item": "Description, else the variables",
    "question": "the columns before the first prompt's",
    "target": "the columns before the first prompt's",
    "rep": "the order of a test's rows",
    "scores": "Status, Score, Named Scores, Metric: NAME",
    "covariates": "the columns before the first prompt's",
    "completion": "the column that is called as the prompt",
    "error": "Grader Reason, where Status is ERROR",
}
# Cells that a spreadsheet would take for a formula are written with an apostrophe before them.
_ESCAPED = re.compile(r"\A'(?=[=+\-@\t\r])")
_SHOWN = re.compile(r"\[(?P<provider>[^\]]*)\] (?P<label>.*)", re.DOTALL)


def is_export(head: bytes) -> bool:
    """Say whether a file begins as the table does."""
    columns = heads.header(head)
    return bool(_blocks(columns)) and "Grader Reason" in columns


def _blocks(columns: tuple[str, ...]) -> list[tuple[int, int]]:
    """Give where the columns of each prompt begin and end."""
    starts = [i - 1 for i in range(1, len(columns) - 1) if columns[i : i + 2] == _BLOCK]
    return list(zip(starts, [*starts[1:], len(columns)], strict=True)) if starts else []


def table(name: str, path: Path, separator: str) -> Log:
    """Give the run in a table; refuses (`DataError`) prompts that it calls the same."""
    columns = tuple(next(delimited_rows(path, separator, repeats=True))[1])
    settings = [_shown(columns[start]) for start, _ in _blocks(columns)]
    if len({str(each) for each in settings}) < len(settings):
        raise DataError(
            f"{path} has two prompts under one name: their results cannot be told apart",
            hint="give each prompt a label of its own, or export the results as JSON",
        )
    return Log(
        path=path,
        format=name,
        fields=_TAKEN,
        settings={},
        notes=("the table has no prompts, tokens, costs or versions: export JSON for these",),
        trials=partial(_trials, path, separator, columns, settings),
    )


def _shown(title: str) -> Mapping[str, Values]:
    shown = _SHOWN.fullmatch(title)
    label, provider = (shown["label"], shown["provider"]) if shown else (title, "")
    return by_role(prompt={"prompt.label": label}, model={"provider.label": provider} if provider else {})


def _trials(
    path: Path, separator: str, columns: tuple[str, ...], settings: list[Mapping[str, Values]]
) -> Iterator[LoggedTrial]:
    blocks = _blocks(columns)
    described = int(columns[0] == "Description")
    names = columns[described : blocks[0][0]]
    rows = delimited_rows(path, separator, repeats=True)
    next(rows)
    tests = [(line, [_ESCAPED.sub("", cell) for cell in whole]) for line, whole in rows]
    items = Tests()
    given = []
    for line, whole in tests:
        values = dict(zip(names, whole[described : blocks[0][0]], strict=True))
        row: Row = {"vars": values, "description": whole[0] if described else ""}
        items.meet(row)
        given.append((line, whole, row))
    met = Repeats()
    for line, whole, row in given:
        item, question, target, rest = items.of(row)
        for arm, (start, end) in zip(settings, blocks, strict=True):
            block = dict(zip(columns[start + 1 : end], whole[start + 1 : end], strict=True))
            if not block["Status"]:
                continue  # this prompt was not run on this test
            wrong = block["Status"] == "ERROR"
            reason = block.get("Grader Reason") or whole[start]
            yield LoggedTrial(
                item=item,
                question=question,
                target=target,
                rep=items.rep(row, start, met),
                scores=_block_scores(block, f"{path}:{line}", went=not wrong),
                covariates=scalars(rest),
                settings=arm,
                completion=whole[start] or None,
                error=(reason or "error without a message") if wrong else None,
            )


def _block_scores(block: Mapping[str, str], where: str, *, went: bool) -> dict[str, float | None]:
    if score_value(block["Status"]) is None and went:
        raise DataError(f"{where}: the status is {block['Status']!r}, not PASS, FAIL or ERROR")
    named = parsed(block.get("Named Scores"))
    given = {k.removeprefix("Metric: "): v for k, v in block.items() if k.startswith("Metric: ")}
    given |= named if isinstance(named, dict) else {}
    return read_scores(block["Score"], block["Status"], given, where, went=went)
