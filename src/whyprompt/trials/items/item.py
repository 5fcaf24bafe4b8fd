"""What one item is, and the checks every pool of items passes."""

from __future__ import annotations

import hashlib
import json
import random
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from whyprompt._rows import unreadable
from whyprompt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Scalar = str | float | int | bool


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question with its gold answer.

    Parameters
    ----------
    item_id : str
        Unique in a study.
    question, answer : str
        Neither is empty.
    task_type : str
        The task family.
    difficulty : float, optional
        As its source defines it; larger is harder.
    solution : str, optional
        A worked solution.
    choices : tuple of str
        For multiple choice; holds the answer.
    cluster : str, optional
        Sampling unit for standard errors; the item itself by default.
    covariates : mapping
        Further columns known before the prompt is chosen.
    """

    item_id: str
    question: str
    answer: str
    task_type: str
    difficulty: float | None = None
    solution: str | None = None
    choices: tuple[str, ...] = ()
    cluster: str | None = None
    covariates: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ItemPool:
    """The items of a study, and those kept out of it for worked examples, by task family."""

    items: tuple[Item, ...]
    shots: Mapping[str, tuple[Item, ...]]

    @property
    def digest(self) -> str:
        """SHA-256 over every item and every example, in order."""
        sha = hashlib.sha256()
        for item in (*self.items, *(i for k in sorted(self.shots) for i in self.shots[k])):
            sha.update(json.dumps(asdict(item), sort_keys=True, ensure_ascii=False).encode())
            sha.update(b"\n")
        return sha.hexdigest()


def check_items(items: Sequence[Item], *, where: str) -> None:
    """Refuse items that are empty, half characters, twice there, or whose answer is outside the choices."""
    seen: set[str] = set()
    for item in items:
        if not item.item_id.strip():
            raise DataError(f"{where}: an item has an empty id")
        if item.item_id in seen:
            raise DataError(
                f"{where}: item id {item.item_id!r} occurs twice",
                hint="give every item an id of its own, or drop the duplicate row",
            )
        seen.add(item.item_id)
        for name, value in vars(item).items():
            if (why := unreadable(value)) is not None:
                raise DataError(f"{where}: the {name} of item {item.item_id!r} {why}", hint="write it anew")
        if not item.question.strip():
            raise DataError(f"{where}: item {item.item_id!r} has an empty question")
        if not item.answer.strip():
            raise DataError(
                f"{where}: item {item.item_id!r} has an empty answer",
                hint="an outcome needs a gold answer; drop the row or fill it in",
            )
        if item.choices and item.answer not in item.choices:
            raise DataError(f"{where}: item {item.item_id!r}: the answer is not among its choices")


def draw(items: Sequence[Item], size: int, *, seed: int | str) -> tuple[list[Item], list[Item]]:
    """Draw so many items, and give them and the rest, both in the order in which they came."""
    order = list(range(len(items)))
    random.Random(seed).shuffle(order)  # noqa: S311 - a reproducible draw, not a secret
    chosen, rest = sorted(order[:size]), sorted(order[size:])
    return [items[i] for i in chosen], [items[i] for i in rest]


def by_task(items: Sequence[Item]) -> dict[str, list[Item]]:
    """Group items by their task family, in order of appearance."""
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.task_type, []).append(item)
    return found


def without(chosen: Sequence[Item], examples: Sequence[Item]) -> list[Item]:
    """Leave out the examples whose question is among the chosen items."""
    taken = {normalised_question(i.question) for i in chosen}
    return [e for e in examples if normalised_question(e.question) not in taken]


def normalised_question(text: str) -> str:
    """Give a question's text without case, punctuation and spacing, to find the same question twice."""
    return " ".join(re.findall(r"\w+", text.casefold()))
