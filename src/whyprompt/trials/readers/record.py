"""What a reader makes of a log: its settings, what it states of itself, and its trials one by one.

A reader is a module, or any object, with

``name``
    What the format is called in a sentence: ``"Inspect"``.
``sniff(path, head)``
    Whether a file is of the format, from its content: `head` is its first 64 KiB. Between 0, no, and 1,
    certain; a format that another one contains says less.
``read(path)``
    The logs in the file, a `Log` each. What cannot be read is a `DataError` that names the file.

It imports nothing of the tool whose logs it reads, runs nothing that a log holds, and keeps one trial at a
time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from pathlib import Path

Scalar = str | float | int | bool | None
Values = Mapping[str, Scalar]
_NONE: Values = MappingProxyType({})

ROLES = (
    "prompt",  # its label or version, template, system message, arguments of the task: what arms differ in
    "few_shot",  # number and source of worked examples
    "chat_format",
    "model",  # name and revision
    "engine",  # what served it: provider, address, precision
    "sampling",  # temperature, top_p, limits of length
    "seed",
    "judge",  # scorer, metric and its options, model that judges
    "items",  # data set, split, selection, limit, order
    "harness",  # the tool and its version
    "date",
    "other",
)
"""What a setting of a run is, so that a difference between two runs has a name."""


class Stated(NamedTuple):
    """A mean that the log states of itself, to be computed anew from its trials.

    `where` are settings that the trials meant have, empty for all; `error` its standard error, where stated.
    """

    scorer: str
    mean: float
    where: Values = _NONE
    n: int | None = None
    error: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedTrial:
    """One trial as its log has it.

    Attributes
    ----------
    item : str
        The log's own name of the item, "" where it has none. Often a position: it pairs nothing by itself.
    question, target : str
        What was asked before any template, and the right answer; "" where the log has none.
    choices : tuple of str
        What could be chosen from.
    rep : int
        Which repetition of the item in its log, from 1.
    scores : mapping
        By scorer: a number, None where it is missing.
    covariates : mapping
        What was known of the item before it was asked.
    settings : mapping
        By role (`ROLES`), where trials of one log differ: paths in the log with their values.
    prompt, completion : str or None
        What was sent, after the template, and what came back.
    stop_reason : str or None
        Why the completion ended, in the words of the log: ``"stop"``, ``"max_tokens"``, a limit.
    error : str or None
        Why there is no outcome.
    propensity : float or None
        The logged chance of the arm that the trial got.
    """

    item: str = ""
    question: str = ""
    target: str = ""
    choices: tuple[str, ...] = ()
    rep: int = 1
    scores: Mapping[str, float | None] = field(default_factory=dict)
    covariates: Values = field(default_factory=dict)
    settings: Mapping[str, Values] = field(default_factory=dict)
    prompt: str | None = None
    completion: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    latency_s: float | None = None
    started_at: str | None = None
    stop_reason: str | None = None
    error: str | None = None
    propensity: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Log:
    """One run as its file tells it.

    Attributes
    ----------
    path : Path
        The file.
    format, version : str
        The tool, and the version of the tool or of its layout; "" where the file does not say.
    settings : mapping
        By role (`ROLES`): paths in the log with their values, those of all trials.
    stated : tuple of Stated
        Means that the log states.
    status : str
        ``"complete"``, ``"cancelled"``, ``"failed"``; "" where the file does not say.
    fields : mapping
        By attribute of `LoggedTrial` the field of the log that it is read from, in words.
    notes : tuple of str
        What a reader of the log should know: what was left out, or is ambiguous.
    trials : callable
        Reads the trials, from the start at every call.
    """

    path: Path
    format: str
    trials: Callable[[], Iterator[LoggedTrial]]
    version: str = ""
    settings: Mapping[str, Values] = field(default_factory=dict)
    stated: tuple[Stated, ...] = ()
    status: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Reader(Protocol):
    """What reads one format."""

    name: str

    def sniff(self, path: Path, head: bytes) -> float:
        """Say how surely a file is of the format, from 0 to 1."""
        ...

    def read(self, path: Path) -> Iterator[Log]:
        """Give the logs in a file."""
        ...


def content_key(question: str, choices: tuple[str, ...] = (), target: str = "") -> str:
    r"""Give the same short key to items that ask the same, however their white space is.

    Examples
    --------
    >>> content_key("1 + 1\n= ?", (), "2") == content_key("1 + 1 = ?", (), " 2 ")
    True
    """
    parts = [" ".join(text.split()) for text in (question, target, *choices)]
    return hashlib.blake2b(json.dumps(parts).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


# What tools write for a score that is a word.
_WORDS: Mapping[str, float] = {
    **dict.fromkeys(("c", "correct", "pass", "passed", "yes", "y", "true", "t", "success"), 1.0),
    **dict.fromkeys(
        ("i", "incorrect", "fail", "failed", "no", "n", "false", "f", "failure", "noanswer"), 0.0
    ),
    **dict.fromkeys(("p", "partial"), 0.5),
}


def score_value(value: object) -> float | None:
    """Read a score: a number, a boolean, or a word for one (C, I, P, N, PASS, FAIL, yes, no); else None.

    Examples
    --------
    >>> score_value("C"), score_value("fail"), score_value(True), score_value("0.25"), score_value("maybe")
    (1.0, 0.0, 1.0, 0.25, None)
    """
    if isinstance(value, bool | int | float):
        number = float(value)
    elif isinstance(value, str):
        word = value.strip().lower()
        if word in _WORDS:
            return _WORDS[word]
        try:
            number = float(word)
        except ValueError:
            return None
    else:
        return None
    return number if abs(number) < float("inf") else None
