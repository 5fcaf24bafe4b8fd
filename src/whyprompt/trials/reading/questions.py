"""Which field of an item is its question, its target or its name, and how often an item was met."""

from __future__ import annotations

from array import array
from collections import defaultdict
from typing import TYPE_CHECKING

from whyprompt.trials.readers.record import content_key
from whyprompt.trials.reading.chats import last_said
from whyprompt.trials.reading.fields import text_of

if TYPE_CHECKING:
    from collections.abc import Hashable

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
# Arms whose items are counted in an array each; of more, in a mapping.
_FEW = 64


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
            return key, text_of(value)
        named = [name for name in values if name.lower() in QUESTIONS]
        # "input" beside "question" is what the question is about: then the inputs are it whole.
        return (named[0], text_of(values[named[0]])) if len(named) == 1 else ("", text_of(values))
    if isinstance(values, list):
        return "", last_said(values, "user")
    return "", text_of(values)


def target_of(values: object) -> str:
    """Give the right answer in an item's reference: the one field called so, else the whole of it."""
    if isinstance(values, dict):
        if len(values) == 1:
            return text_of(next(iter(values.values())))
        named = [name for name in values if name.lower() in TARGETS]
        return text_of(values[named[0]]) if len(named) == 1 else text_of(values or None)
    return text_of(values)


def item_key(question: str, target: str = "") -> str:
    """Give a name to an item that its log does not name."""
    return content_key(question, (), target)


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
