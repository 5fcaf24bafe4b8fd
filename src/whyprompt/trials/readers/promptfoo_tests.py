"""The tests of a promptfoo run: their names, what they ask, and which of them are one test again."""

from __future__ import annotations

import bisect
from collections import defaultdict
from typing import TYPE_CHECKING

from whyprompt.trials.reading.fields import mapping, score_of, text_of
from whyprompt.trials.reading.questions import TARGETS, Repeats, item_key, question_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from whyprompt.trials.reading.rows import Row


class Tests:
    """What the tests of a run are called: a description or id that several tests share names none of them."""

    def __init__(self) -> None:
        self._named: dict[str, set[str]] = defaultdict(set)
        self._asked: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._tests: dict[tuple[str, str], list[int]] = defaultdict(list)

    def meet(self, row: Row) -> None:
        """Take note of a result's test."""
        key = item_key(text_of(variables(row)))
        told, test = described(row), row.get("testIdx")
        self._named[told].add(key)
        self._asked[self._question(variables(row))[:2]].add(key)
        met = self._tests[told, key]
        if isinstance(test, int) and test not in met:
            bisect.insort(met, test)

    def rep(self, row: Row, arm: Hashable, met: Repeats) -> int:
        """Give which repetition of its test a result is: by the tests' numbers, else in their order."""
        cell = (described(row), item_key(text_of(variables(row))))
        test = row.get("testIdx")
        return self._tests[cell].index(test) + 1 if isinstance(test, int) else met.next(cell, arm)

    @staticmethod
    def _question(values: Row) -> tuple[str, str, str]:
        targets = [key for key in values if key.lower() in TARGETS]
        rest = {key: value for key, value in values.items() if targets != [key]}
        key, question = question_of(rest)
        return question, text_of(values[targets[0]]) if len(targets) == 1 else "", key

    def of(self, row: Row) -> tuple[str, str, str, Row]:
        """Give a test's name, its question and target, and the variables that are neither."""
        values = variables(row)
        whole = text_of(values)
        told, key = described(row), item_key(whole)
        item = told if told and len(self._named[told]) == 1 else key
        question, target, asked = self._question(values)
        if len(self._asked[question, target]) > 1:
            # Another variable tells two tests of one question apart: it is part of what is asked.
            return item, whole, target, {}
        rest = {k: v for k, v in values.items() if k != asked and not (target and text_of(v) == target)}
        return item, question, target, rest if asked else {}

    def notes(self) -> tuple[str, ...]:
        """Say which names name no test."""
        shared = sum(len(tests) > 1 for told, tests in self._named.items() if told)
        return (f"{shared} descriptions name several tests each: these go by their variables",) * bool(shared)


def variables(row: Row) -> Row:
    """Give the variables of a result's test."""
    found = mapping(row.get("vars") or mapping(row.get("testCase")).get("vars"))
    # promptfoo puts what it adds itself beside the variables of the test.
    return {k: v for k, v in found.items() if not k.startswith("_")}


def described(row: Row) -> str:
    """Give what a result's test is called, "" where it has no name."""
    test = mapping(row.get("testCase"))
    about = mapping(test.get("metadata"))
    given = (test.get("description"), row.get("description"), about.get("id"), about.get("item_id"))
    return next((text_of(value) for value in given if value not in (None, "")), "")


def read_scores(
    score: object, success: object, named: Mapping[str, object], where: str, *, went: bool
) -> dict[str, float | None]:
    """Give a result's scores by their names: none of them where it went wrong."""
    found = {"score": score, "success": success} | {score_name(key): value for key, value in named.items()}
    return {k: score_of(v, where, k) if went else None for k, v in found.items() if v is not None or not went}


def score_name(metric: str) -> str:
    """Give a metric another name than the score and the success of the whole test have."""
    return f"namedScores.{metric}" if metric in {"score", "success"} else metric
