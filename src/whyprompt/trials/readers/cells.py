"""What readers of logs do with the values they find: texts, numbers, conversations, names of settings."""

from __future__ import annotations

import json
import math
from array import array
from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from whyprompt.errors import DataError
from whyprompt.trials.readers.fields import chat_text, content_text, objects
from whyprompt.trials.readers.record import content_key, score_value

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from whyprompt.trials.readers.record import Scalar, Values

QUESTIONS = ("question", "query", "problem", "instruction", "input", "user_input", "text", "prompt")
TARGETS = (
    *("target", "answer", "gold", "expected", "expected_output", "reference", "reference_answer", "ideal"),
    *("ground_truth", "correct_answer", "label"),
)
ITEMS = (
    *("item_id", "item", "question_id", "example_id", "sample_id", "instance_id", "problem_id", "task_id"),
    *("doc_id", "test_id", "case_id", "qid", "id"),
)
# What a question is known for before it is asked.
KNOWN = frozenset(
    (
        *("task_type", "task", "category", "subject", "topic", "domain", "dataset", "split", "difficulty"),
        *("level", "language", "lang", "source", "cluster", "n_steps", "question_tokens", "subset"),
    )
)
SAMPLING = (
    *("temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "max_output_tokens"),
    *("frequency_penalty", "presence_penalty", "stop", "n", "reasoning_effort"),
)
JUDGES = (
    "judge",
    "judge_model",
    "judge_name",
    "judge_prompt",
    "annotator",
    "grader",
    "grader_model",
    "rater",
)
_LONG = 500
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})


def text(value: object) -> str:
    """Write a value as text: a text is itself, nothing is "", what has parts is JSON.

    Examples
    --------
    >>> text("a"), text(None), text(3), text({"b": 1})
    ('a', '', '3', '{"b": 1}')
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, dict | list | bool | int | float):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return str(value)


def said(value: object) -> str | None:
    """Write what came back, or was sent, as text; None where there is none."""
    return None if value is None else text(value)


def parsed(value: object) -> Any:  # noqa: ANN401 - any JSON
    """Read a cell that holds JSON; anything else is itself."""
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "[", '"'}:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def number(value: object) -> float | None:
    """Read a finite number; None for what is none."""
    return None if isinstance(value, bool) else score_value(value) if not _is_word(value) else None


def _is_word(value: object) -> bool:
    return isinstance(value, str) and value.strip()[:1].isalpha()


def count(value: object) -> int | None:
    """Read a number of tokens; None for what is none."""
    found = number(value)
    return None if found is None else int(found)


def missing(value: object) -> bool:
    """Say whether a cell is empty, or says that it is."""
    if isinstance(value, str):
        return value.strip().lower() in _MISSING
    return _empty(value)


def scalars(values: Mapping[str, Any] | None, prefix: str = "") -> dict[str, Scalar]:
    """Keep of a mapping what is short and has no parts, by paths; mappings in it are gone into.

    Examples
    --------
    >>> scalars({"n": 2, "m": {"a": True}, "l": [1]}, "meta.")
    {'meta.n': 2, 'meta.m.a': True}
    """
    found: dict[str, Scalar] = {}
    for key, value in (values or {}).items():
        if isinstance(value, dict):
            found.update(scalars(value, f"{prefix}{key}."))
        elif isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= _LONG):
            found[f"{prefix}{key}"] = value
    return found


def pick(values: Mapping[str, Any], names: Iterable[str], prefix: str = "") -> dict[str, Scalar]:
    """Keep the settings of these names that there are, a list as JSON."""
    found = ((name, values[name]) for name in names if not _empty(values.get(name)))
    return {
        f"{prefix}{name}": value if isinstance(value, str | int | float | bool) else text(value)
        for name, value in found
    }


def _empty(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def roles(**by_role: Values) -> dict[str, Values]:
    """Keep the roles that have a setting."""
    return {role: values for role, values in by_role.items() if values}


def question_of(values: object) -> tuple[str, str]:
    """Give the key and the text of the question in an item's inputs; no key where no one field is called so.

    A conversation's question is the last that the user said. Inputs with no field of a question are it whole.

    Examples
    --------
    >>> question_of({"question": "1 + 1?", "n": 2}), question_of([{"role": "user", "content": "Why?"}])
    (('question', '1 + 1?'), ('', 'Why?'))
    """
    if isinstance(values, dict):
        spoken = values.get("messages")
        if isinstance(spoken, list):
            return "", last_said(spoken, "user")
        if len(values) == 1:
            ((key, value),) = values.items()
            return key, text(value)
        named = [name for name in values if name.lower() in QUESTIONS]
        # "input" beside "question" is what the question is about: then the inputs are it whole.
        return (named[0], text(values[named[0]])) if len(named) == 1 else ("", text(values))
    if isinstance(values, list):
        return "", last_said(values, "user")
    return "", text(values)


def last_said(messages: list[Any], role: str) -> str:
    """Give what a role said last in a conversation; the whole of it where the role said nothing."""
    said_so = [one for one in objects(messages) if one.get("role") == role]
    return content_text(_spoken(said_so[-1])["content"]) if said_so else text(messages)


def conversation(value: object) -> str | None:
    r"""Write what was sent as it reads: a conversation, also as JSON in a cell, by its roles.

    Examples
    --------
    >>> conversation('[{"role": "user", "content": "1 + 1?"}]'), conversation("[1]"), conversation(None)
    ('1 + 1?', '[1]', None)
    """
    found = parsed(value)
    messages = found.get("messages") if isinstance(found, dict) else found
    if isinstance(messages, list) and messages and all(isinstance(m, dict) and "role" in m for m in messages):
        return chat_text([_spoken(message) for message in messages])
    return said(value)


def _spoken(message: Mapping[str, Any]) -> dict[str, Any]:
    """Give a message with its content under one name: conventions differ in those of its parts."""
    parts = message.get("content", message.get("parts"))
    if isinstance(parts, list):
        parts = [
            {"type": "text", "text": text(part.get("content"))} if "content" in part else part
            for part in objects(parts)
        ]
    return {"role": message.get("role"), "content": parts}


def target_of(values: object) -> str:
    """Give the right answer in an item's reference: the one field called so, else the whole of it."""
    if isinstance(values, dict):
        if len(values) == 1:
            return text(next(iter(values.values())))
        named = [name for name in values if name.lower() in TARGETS]
        return text(values[named[0]]) if len(named) == 1 else text(values or None)
    return text(values)


_FEW = 64


class Repeats:
    """Counts how often a cell, an item under an arm, was met: its repetition, from 1.

    A million items under few arms are counted in a few bytes each, beside their names.
    """

    def __init__(self) -> None:
        self._item: dict[Hashable, int] = {}
        self._dense: dict[Hashable, array[int]] = {}
        self._sparse: defaultdict[tuple[int, Hashable], int] = defaultdict(int)

    def next(self, item: Hashable, arm: Hashable = None) -> int:
        """Give the number of this repetition of an item under an arm."""
        place = self._item.setdefault(item, len(self._item))
        met = self._dense.get(arm)
        if met is None:
            if len(self._dense) == _FEW:
                self._sparse[place, arm] += 1
                return self._sparse[place, arm]
            met = self._dense[arm] = array("l")
        if place >= len(met):
            met.extend([0] * (place + 1 - len(met)))
        met[place] += 1
        return met[place]


def score_of(value: object, where: str, name: str) -> float | None:
    """Read a score that a log gives, None where it is missing; what is no score is a `DataError`."""
    if missing(value):
        return None
    found = score_value(float(value) if isinstance(value, Decimal) else value)
    if found is None:
        hint = "a score is a number, true or false, or a word such as PASS, FAIL, yes, no, C, I"
        comma = isinstance(value, str) and score_value(value.replace(",", ".")) is not None
        raise DataError(
            f"{where}: {name!r} is {text(value)[:60]!r}, which is no score",
            hint="write decimals with a point" if comma else hint,
        )
    return found


def item_key(question: str, target: str = "") -> str:
    """Give a name to an item that its log does not name."""
    return content_key(question, (), target)


def known(row: Mapping[str, Any], names: Mapping[str, bool]) -> dict[str, Scalar]:
    """Keep a row's values in some columns, those that it has; those of which it is so are numbers."""
    out: dict[str, Scalar] = {}
    for name, counted in names.items():
        value = row.get(name)
        if not missing(value):
            out[name] = value if isinstance(value, int | float) else text(value)
            if counted and (found := number(value)) is not None:
                out[name] = found
    return out
