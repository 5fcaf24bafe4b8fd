"""The trials of many logs as columns, gathered in one pass: a million rows are arrays and no objects."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.errors import DataError
from whyprompt.trials.readers.record import content_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from whyprompt.trials.readers.record import Log, LoggedTrial, Scalar

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Setting = tuple[int, tuple[tuple[str, tuple[tuple[str, Scalar], ...]], ...]]

_CHUNK = 65_536
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NAN = float("nan")
MISSING = float("-inf")
"""A score that a trial should have and has not; NaN where its scorer was not asked at all."""
# One value a trial and no arm: no part of what tells settings apart.
_OWN = ("seed", "date")
# So many prompts of an arm are kept to show what differs.
_SHOWN = 3


def _digest(text: str) -> int:
    """Eight bytes of a text, never nil: nil says that there is none."""
    made = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(made, "big") >> 1 or 1


def _number(key: str) -> int:
    """Give the sixty first bits of a key: a million of them take a tenth of the room."""
    return int(key[:15], 16)


class Sparse:
    """A column that begins with the first row that has it; None for none."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: list[Any] = []

    def put(self, row: int, value: object) -> None:
        """Write the value of a row; the rows between have none."""
        self.values.extend([None] * (row - len(self.values)))
        self.values.append(value)

    def __len__(self) -> int:
        return len(self.values)

    def all(self, n: int) -> list[Any]:
        """Give the values of so many rows."""
        return self.values + [None] * (n - len(self.values))


class Numbers:
    """A column of numbers that begins with the first row that has one; NaN for none."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values = array("d")

    def put(self, row: int, value: float | None) -> None:
        """Write the value of a row; the rows between have none."""
        if (gap := row - len(self.values)) > 0:
            self.values.extend(array("d", [_NAN]) * gap)
        self.values.append(_NAN if value is None else value)

    def all(self, n: int) -> Floats:
        """Give the values of so many rows."""
        out = np.full(n, np.nan)
        out[: len(self.values)] = self.values
        return out


class Texts:
    """A long column of text, kept in Arrow's memory and not as objects."""

    __slots__ = ("chunks", "rest")

    def __init__(self) -> None:
        self.chunks: list[Any] = []
        self.rest: list[str | None] = []

    def put(self, value: str | None) -> None:
        """Write the value of the next row."""
        self.rest.append(value)
        if len(self.rest) == _CHUNK:
            self._close()

    def _close(self) -> None:
        import pyarrow as pa

        # Half a character has no UTF-8.
        clean = [v if v is None or v.isascii() else v.encode("utf-8", "replace").decode() for v in self.rest]
        self.chunks.append(pa.array(clean, pa.large_string()))
        self.rest = []

    def all(self) -> Any:  # noqa: ANN401 - a pyarrow array in pieces
        """Give the column."""
        import pyarrow as pa

        self._close()
        return pa.chunked_array(self.chunks)


class Items:
    """What was asked, each once: by content, or `by` the log's own name (``"id"``) or a covariate."""

    def __init__(self, by: str | None) -> None:
        self.by = by
        self.code: dict[int, int] = {}
        self.name: list[str] = []
        self.question, self.target = array("q"), array("q")
        self.known = array("b")
        self.size, self.words, self.numbers = array("q"), array("q"), array("q")

    def of(self, trial: LoggedTrial, row: int, log: Log) -> int:
        """Give the item of a trial, new or seen before."""
        question, name = trial.question, trial.item
        if self.by is not None:
            name = str(self._named(trial, log))
            key = own = _digest(f"={name}")
        elif question:
            key, own = _number(content_key(question, trial.choices, trial.target)), 0
        elif name:
            key, own = _digest(f"={name}\n{trial.target}"), _digest(f"={name}")
        else:
            # With neither a name nor a question a trial is like no other.
            key = own = _digest(f"#{row}")
        found = self.code.get(key)
        if found is None:
            found = self.code[key] = len(self.code)
            self.name.append(name)
            self.question.append(own or _number(content_key(question, trial.choices)))
            target = " ".join(trial.target.split())
            self.target.append(_digest(target) if target else 0)
            self.known.append(bool(question))
            self.size.append(len(question))
            self.words.append(len(question.split()))
            self.numbers.append(len(_NUMBER.findall(question)))
        return found

    def labels(self) -> list[str]:
        """Name every item by its own: content as a number, else the name where only one item has it."""
        keys = [f"{key:015x}" for key in self.code]
        met = Counter(self.name)
        return [
            key if known and self.by is None else name if met[name] == 1 else f"{name} {key[:6]}".strip()
            for key, name, known in zip(keys, self.name, self.known, strict=True)
        ]

    def _named(self, trial: LoggedTrial, log: Log) -> object:
        value = trial.item if self.by == "id" else trial.covariates.get(str(self.by))
        if value is None or value == "":
            known = ", ".join(("id", *trial.covariates))
            raise DataError(
                f"{log.path}: a trial has no {self.by!r} to name its item", hint=f"one of: {known}"
            )
        return value


class Gathered:
    """The trials of several logs, column by column.

    With `texts` the prompts and completions are kept, and else what tells them apart.
    """

    def __init__(self, *, texts: bool, item: str | None = None) -> None:
        self.logs: list[Log] = []
        self.items = Items(item)
        self.texts = {"prompt": Texts(), "completion": Texts()} if texts else {}
        self.settings: dict[Setting, int] = {}
        self.errors: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        self.names: dict[str, int] = {}
        self.log, self.rep = array("l"), array("l")
        self.item, self.name = array("q"), array("q")
        self.setting, self.error, self.end = array("l"), array("l"), array("l")
        self.prompt, self.template, self.completion = array("q"), array("q"), array("q")
        self.scored = array("b")
        self.scores: dict[str, Numbers] = {}
        self.numbers = {
            name: Numbers()
            for name in ("prompt_tokens", "completion_tokens", "cost", "latency_s", "propensity")
        }
        self.started_at, self.seed = Sparse(), Sparse()
        self.covariates: dict[str, Sparse] = {}
        self.shown: dict[int, list[tuple[int, str]]] = {}

    @property
    def n(self) -> int:
        """Trials so far."""
        return len(self.log)

    def add(self, log: Log) -> int:
        """Read a log's trials; gives their number."""
        place = len(self.logs)
        self.logs.append(log)
        first = self.n
        for trial in log.trials():
            self._put(place, trial)
        return self.n - first

    def _put(self, log: int, trial: LoggedTrial) -> None:
        row = len(self.log)
        self.log.append(log)
        self.rep.append(trial.rep)
        item = self.items.of(trial, row, self.logs[log])
        self.item.append(item)
        self.name.append(self.names.setdefault(trial.item, len(self.names)))
        setting = self._setting(log, trial, row)
        self.setting.append(setting)
        prompt = trial.prompt
        if prompt is None:
            self.prompt.append(0)
            self.template.append(0)
        else:
            self.prompt.append(_digest(prompt))
            inside = bool(trial.question) and trial.question in prompt
            self.template.append(_digest(prompt.replace(trial.question, "\0")) if inside else 0)
            shown = self.shown.setdefault(setting, [])
            if len(shown) < _SHOWN:
                shown.append((item, prompt))
        self.completion.append(0 if trial.completion is None else _digest(trial.completion))
        for name, text in self.texts.items():
            text.put(getattr(trial, name))
        error = trial.error
        self.error.append(-1 if error is None else self.errors.setdefault(_reason(error), len(self.errors)))
        end = trial.stop_reason
        self.end.append(-1 if end is None else self.ends.setdefault(end, len(self.ends)))
        self.scored.append(bool(trial.scores))
        for name, score in trial.scores.items():
            column = self.scores.get(name)
            if column is None:
                column = self.scores[name] = Numbers()
            column.put(row, MISSING if score is None else score)
        self._further(row, trial)

    def _further(self, row: int, trial: LoggedTrial) -> None:
        for name, column in self.numbers.items():
            if (value := getattr(trial, name)) is not None:
                column.put(row, value)
        if trial.started_at is not None:
            self.started_at.put(row, trial.started_at)
        for name, value in trial.covariates.items():
            known = self.covariates.get(name)
            if known is None:
                known = self.covariates[name] = Sparse()
            known.put(row, value)

    def _setting(self, log: int, trial: LoggedTrial, row: int) -> int:
        settings = trial.settings
        if "seed" in settings:
            self.seed.put(row, next(iter(settings["seed"].values()), None))
        key = (log, tuple((role, tuple(v.items())) for role, v in settings.items() if role not in _OWN))
        return self.settings.setdefault(key, len(self.settings))

    def merged(self) -> list[dict[str, dict[str, Scalar]]]:
        """Give each setting's values by role and path: those of its log, and its trials' own over them."""
        out = []
        for log, own in self.settings:
            found = {role: dict(values) for role, values in self.logs[log].settings.items()}
            for role, values in own:
                found.setdefault(role, {}).update(values)
            out.append(found)
        return out


def _reason(error: str) -> str:
    """Give the first line of an error, short enough that errors of one kind are one reason."""
    lines: Iterable[str] = (line.strip() for line in error.splitlines())
    return next((line for line in lines if line), "error")[:80]


def ints(values: array[int]) -> Ints:
    """Give whole numbers as an array (n,)."""
    return np.asarray(values, dtype=np.int64)


def differing(settings: list[Mapping[str, Mapping[str, Scalar]]], role: str) -> dict[str, list[str]]:
    """Give the paths of a role whose values differ, each with its value in every setting, "" where none."""
    paths = dict.fromkeys(path for one in settings for path in one.get(role, ()))
    found = {path: [_text(one.get(role, {}).get(path)) for one in settings] for path in paths}
    return {path: values for path, values in found.items() if len(set(values)) > 1}


def _text(value: Scalar) -> str:
    return "" if value is None else str(value)
