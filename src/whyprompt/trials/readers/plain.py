"""Plain tables: a row a trial, or a row an item with one column an arm; CSV, JSON, Parquet, Excel.

Columns are known by the names that the trial table has (`item_id`, `arm`, `rep`, `score`, ...) and by names
that people give them. A name that several columns fit is an error, or a note, that lists them. In a wide
table (`score_a`, `score_b`) the columns of one stem are the scores of its arms.
"""

from __future__ import annotations

import zipfile
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from whyprompt.errors import DataError
from whyprompt.trials.readers.plain_columns import SAMPLE, find_columns
from whyprompt.trials.readers.record import Log, LoggedTrial
from whyprompt.trials.reading import heads
from whyprompt.trials.reading.fields import missing, number_of, score_of, text_of, text_or_none, whole_of
from whyprompt.trials.reading.questions import Repeats
from whyprompt.trials.reading.rows import comma_columns, has_lines, parquet_columns, rows_of
from whyprompt.trials.reading.settings import by_role, covariates_of, pick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from whyprompt.trials.readers.plain_columns import Columns
    from whyprompt.trials.readers.record import Values
    from whyprompt.trials.reading.rows import Row

name = "a plain table"
_NUMBERS = ("cost", "prompt_tokens", "completion_tokens")
_MEASURED = frozenset((*_NUMBERS, "latency_s", "latency_ms", "propensity"))
# Of these no row is without; a prompt's text may be none.
_LABELS = frozenset(("arm", "variant", "condition", "treatment"))


def sniff(path: Path, head: bytes) -> float:
    """Say whether a file is a table: never so surely as a reader that knows the names in it."""
    kind = heads.container(head)
    if kind == "parquet":
        columns = parquet_columns(path)
    elif kind == "zip":
        try:
            with zipfile.ZipFile(path) as archive:
                return 0.2 if "xl/workbook.xml" in archive.namelist() else 0.0
        except (zipfile.BadZipFile, OSError):
            return 0.0
    elif kind == "delimited":
        columns = heads.header(head)
    elif kind == "list" or has_lines(path, head):
        start = "[]." if kind == "list" else ""
        columns = tuple(k.removeprefix(start) for k in heads.keys(head) if k.startswith(start))
    else:
        columns = ()
    return 0.2 if len(columns) > 1 else 0.0


def read(path: Path) -> Iterator[Log]:
    """Give the one table in a file."""
    sample = [row for _, row in islice(rows_of(path), SAMPLE)]
    if not sample:
        raise DataError(f"{path} holds no rows", hint="write the log anew, or leave the file out")
    opened = _opened(sample)
    commas = comma_columns(path)
    columns = find_columns(path, [_open(_pointed(row, commas), opened) for row in sample])
    known = {column for row in sample for column in row}
    rows = partial(_rows, path, opened, known, commas & _numbers(columns))
    trials = partial(_wide if columns.wide else _long, rows, columns)
    notes = list(columns.notes)
    for family in columns.wide:
        listed = ", ".join(map(repr, family.columns.values()))
        notes.append(f"the columns {listed} are {family.stem!r} under the arms {', '.join(family.columns)}")
    yield Log(path=path, format=name, fields=_taken(columns), notes=tuple(notes), trials=trials)


def _taken(columns: Columns) -> dict[str, str]:
    """Say which columns are what a trial has."""
    out = {"latency_s" if role == "latency_ms" else role: column for role, column in columns.roles.items()}
    families = {family.stem: ", ".join(family.columns.values()) for family in columns.wide}
    beside = {role: ", ".join(family.columns.values()) for role, family in columns.beside.items()}
    scores = ", ".join((*columns.scores.values(), *families.values()))
    named = {"scores": scores, "covariates": ", ".join(columns.covariates)}
    return out | beside | {role: listed for role, listed in named.items() if listed}


def _numbers(columns: Columns) -> frozenset[str]:
    """Give the columns that are read as numbers: an answer "3,5" stays as it was written."""
    families = (*columns.wide, *(f for role, f in columns.beside.items() if role in _MEASURED))
    return frozenset(
        (
            *columns.scores.values(),
            *columns.covariates,
            *(column for role, column in columns.roles.items() if role in _MEASURED),
            *(column for family in families for column in family.columns.values()),
        )
    )


def _pointed(row: Row, commas: frozenset[str]) -> Row:
    return row | {column: row[column].replace(",", ".") for column in commas} if commas else row


def _opened(sample: list[Row]) -> frozenset[str]:
    """Give the columns that hold mappings: what is in them are columns too."""
    return frozenset(column for row in sample for column, value in row.items() if isinstance(value, dict))


def _open(row: Row, opened: frozenset[str]) -> Row:
    if not opened:
        return row
    out: Row = {}
    for column, value in row.items():
        if column in opened and isinstance(value, dict):
            out.update({f"{column}.{key}": inside for key, inside in value.items()})
        else:
            out[column] = value
    return out


def _rows(
    path: Path, opened: frozenset[str], known: set[str], commas: frozenset[str]
) -> Iterator[tuple[str, Row]]:
    for where, row in rows_of(path):
        if not known >= row.keys():
            new = ", ".join(map(repr, sorted(row.keys() - known)))
            raise DataError(
                f"{where}: has {new}, which none of the first {SAMPLE} rows has",
                hint="rows of one table have the same columns: write the kinds of rows to files of their own",
            )
        yield where, _open(_pointed(row, commas), opened)


class _Shared:
    """Makes each setting once, however many rows have it."""

    def __init__(self, columns: Columns) -> None:
        groups = {
            "prompt": columns.arms,
            "model": tuple(c for role, c in columns.roles.items() if role == "model"),
            "sampling": columns.sampling,
            "judge": columns.judges,
            "other": columns.other,
        }
        self.groups = [(role, names) for role, names in groups.items() if names]
        self.columns = [name for _, names in self.groups for name in names]
        self.made: dict[tuple[Any, ...], dict[str, Values]] = {}

    def of(self, row: Row) -> dict[str, Values]:
        """Give the settings of a row."""
        get = row.get
        key: tuple[Any, ...] = tuple([get(column) for column in self.columns])
        try:
            if key in self.made:
                return self.made[key]
        except TypeError:  # a list is none to find by
            key = tuple(map(text_of, key))
        return self.made.setdefault(key, by_role(**{role: pick(row, names) for role, names in self.groups}))


class _Scores:
    """Reads the scores of a row; a value that was met is not read again."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.columns = list(columns.items())
        self.met: dict[Any, float | None] = {}

    def of(self, row: Row, where: str) -> dict[str, float | None]:
        """Give a row's scores by scorer."""
        out: dict[str, float | None] = {}
        for scorer, column in self.columns:
            value: Any = row.get(column)
            kind = value.__class__
            if kind is float and value - value == 0:
                out[scorer] = value
            elif kind is str:
                if value not in self.met:
                    self.met[value] = score_of(value, where, column)
                out[scorer] = self.met[value]
            else:
                out[scorer] = score_of(value, where, column)
        return out


def _repetitions(column: str | None) -> Callable[[Row, str, str, object], int]:
    if column is None:
        met = Repeats()
        return lambda _row, _where, item, arm: met.next(item, id(arm))
    order: dict[Any, int] = {}

    def rep(row: Row, where: str, _item: str, _arm: object) -> int:
        value = row.get(column)
        if missing(value):
            raise DataError(f"{where}: {column!r} is empty", hint="say which repetition each row is")
        # Repetitions may be counted from 0, or be seeds: they are numbered as they come.
        return order.setdefault(text_of(value), len(order) + 1)

    return rep


def _long(rows: Callable[[], Iterator[tuple[str, Row]]], columns: Columns) -> Iterator[LoggedTrial]:
    roles = columns.roles
    shared, scores, rep = _Shared(columns), _Scores(columns.scores), _repetitions(roles.get("rep"))
    item, within, question, target = (roles.get(role) for role in ("item", "set", "question", "target"))
    prompt, completion, error = (roles.get(role) for role in ("prompt", "completion", "error"))
    further = _Further(roles)
    label = next((column for column in columns.arms if column.lower() in _LABELS), None)
    for where, row in rows():
        if label is not None and _blank(row.get(label)):
            raise DataError(
                f"{where}: {label!r} is empty", hint="say which arm each row is of, or drop the row"
            )
        named = _named(row, item, where) if item is not None else ""
        if within is not None:
            named = f"{text_of(row.get(within))}/{named}"
        asked = text_of(row.get(question)) if question is not None else ""
        settings = shared.of(row)
        yield LoggedTrial(
            item=named,
            question=asked,
            target=text_of(row.get(target)) if target is not None else "",
            rep=rep(row, where, named or asked, settings),
            scores=scores.of(row, where),
            covariates=covariates_of(row, columns.covariates) if columns.covariates else {},
            settings=settings,
            prompt=text_or_none(row.get(prompt)) if prompt is not None else None,
            completion=text_or_none(row.get(completion)) if completion is not None else None,
            error=(text_of(row.get(error)) or None) if error is not None else None,
            **further.of(row, where),
        )


def _blank(value: object) -> bool:
    return value is None or value == "" or value != value  # noqa: PLR0124 - not a number


def _named(row: Row, column: str, where: str) -> str:
    value = row.get(column)
    if value.__class__ is str and value:
        return value
    if _blank(value):
        raise DataError(f"{where}: {column!r} is empty", hint="name the item of every row")
    # A spreadsheet makes 3.0 of 3.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else text_of(value)


class _Further:
    """Reads what a row has beside: tokens, cost, time, the chance of its arm."""

    def __init__(self, roles: Mapping[str, str]) -> None:
        self.numbers = [(role, roles[role]) for role in _NUMBERS if role in roles]
        self.latency = [(roles[r], by) for r, by in (("latency_s", 1.0), ("latency_ms", 1e3)) if r in roles]
        self.started = roles.get("started_at")
        self.propensity = roles.get("propensity")

    def of(self, row: Row, where: str) -> dict[str, Any]:
        """Give the fields of a trial."""
        out: dict[str, Any] = {}
        for role, column in self.numbers:
            value = row.get(column)
            out[role] = number_of(value) if role == "cost" else whole_of(value)
        for column, by in self.latency:
            found = number_of(row.get(column))
            out["latency_s"] = None if found is None else found / by
        if self.started is not None:
            out["started_at"] = text_of(row.get(self.started)) or None
        if self.propensity is not None:
            out["propensity"] = self._chance(row.get(self.propensity), where)
        return out

    def _chance(self, value: object, where: str) -> float | None:
        found = number_of(value)
        if (found is None and not missing(value)) or (found is not None and not 0 < found <= 1):
            raise DataError(
                f"{where}: {self.propensity!r} is {value!r}, which is no chance above 0 and up to 1",
                hint="log the chance with which the row's own arm was chosen",
            )
        return found


def _wide(rows: Callable[[], Iterator[tuple[str, Row]]], columns: Columns) -> Iterator[LoggedTrial]:
    roles = columns.roles
    arms = list(columns.wide[0].columns)
    shared, rep = _Shared(columns), _repetitions(roles.get("rep"))
    scores = {arm: _Scores({f.stem: f.columns[arm] for f in columns.wide}) for arm in arms}
    beside = {
        arm: dict(roles) | {role: f.columns[arm] for role, f in columns.beside.items() if arm in f.columns}
        for arm in arms
    }
    further = {arm: _Further(beside[arm]) for arm in arms}
    prompts = {arm: {"prompt": {"arm": arm}} for arm in arms}
    item = roles.get("item")
    for number, (where, row) in enumerate(rows(), start=1):
        asked = text_of(row.get(roles["question"])) if "question" in roles else ""
        # A table that names no item has one a row.
        named = _named(row, item, where) if item is not None else "" if asked else str(number)
        if "set" in roles:
            named = f"{text_of(row.get(roles['set']))}/{named}"
        common: dict[str, Any] = {
            "item": named,
            "question": asked,
            "target": text_of(row.get(roles["target"])) if "target" in roles else "",
            "covariates": covariates_of(row, columns.covariates),
        }
        for arm in arms:
            own = beside[arm]
            model = {"model": {own["model"]: text_of(row[own["model"]])}} if "model" in own else {}
            yield LoggedTrial(
                **common,
                rep=rep(row, where, named or asked, prompts[arm]),
                scores=scores[arm].of(row, where),
                settings=shared.of(row) | model | prompts[arm],
                prompt=text_or_none(row.get(own["prompt"])) if "prompt" in own else None,
                completion=text_or_none(row.get(own["completion"])) if "completion" in own else None,
                error=(text_of(row.get(own["error"])) or None) if "error" in own else None,
                **further[arm].of(row, where),
            )
