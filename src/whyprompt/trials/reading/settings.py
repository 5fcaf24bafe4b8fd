"""Settings of a run by their roles and paths, and what else a row says of itself in short values."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from whyprompt.trials.reading.fields import empty, missing, number_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from whyprompt.trials.readers.record import Scalar, Values

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
_SECRET = re.compile(
    r"api[_-]?key|secret|password|authorization|(auth|access|bearer)_?token|headers", re.IGNORECASE
)


def flat(path: str, value: object, *, lists: bool = True) -> Iterator[tuple[str, Scalar]]:
    """Give what is inside a value by its path; a list is its JSON, nothing is left out, secrets are.

    Examples
    --------
    >>> dict(flat("task", {"arm": "cot", "shots": 5, "stop": ["A", "B"], "none": None, "api_key": "k"}))
    {'task.arm': 'cot', 'task.shots': 5, 'task.stop': '["A", "B"]'}
    """
    if isinstance(value, dict):
        for key, inside in value.items():
            if not _SECRET.search(str(key)):
                yield from flat(f"{path}.{key}" if path else str(key), inside, lists=lists)
    elif isinstance(value, str | int) or (isinstance(value, float) and not math.isnan(value)):
        yield path, value
    elif isinstance(value, list) and value and lists:
        yield path, json.dumps(value, ensure_ascii=False)


def scalars(values: Mapping[str, Any] | None, prefix: str = "") -> dict[str, Scalar]:
    """Keep of a mapping what is short and has no parts, by paths (`flat`).

    Examples
    --------
    >>> scalars({"n": 2, "m": {"a": True}, "l": [1]}, "meta.")
    {'meta.n': 2, 'meta.m.a': True}
    """
    found = flat(prefix.removesuffix("."), values or {}, lists=False)
    return {path: value for path, value in found if not isinstance(value, str) or len(value) <= _LONG}


class Settings(dict[str, dict[str, "Scalar"]]):
    """Settings by role, each put under its path."""

    def put(self, role: str, path: str, value: object) -> None:
        """Add a value, or all that is inside of it."""
        found = dict(flat(path, value))
        if found:
            self.setdefault(role, {}).update(found)


def pick(values: Mapping[str, Any], names: Iterable[str], prefix: str = "") -> dict[str, Scalar]:
    """Keep the settings of these names that there are, a list as JSON."""
    found = ((name, values[name]) for name in names if not empty(values.get(name)))
    return {
        f"{prefix}{name}": value if isinstance(value, str | int | float | bool) else text_of(value)
        for name, value in found
    }


def by_role(**values: Values) -> dict[str, Values]:
    """Keep the roles that have a setting."""
    return {role: found for role, found in values.items() if found}


def covariates_of(row: Mapping[str, Any], names: Mapping[str, bool]) -> dict[str, Scalar]:
    """Keep a row's values in some columns, those that it has; those of which it is so are numbers."""
    out: dict[str, Scalar] = {}
    for name, counted in names.items():
        value = row.get(name)
        if not missing(value):
            out[name] = value if isinstance(value, int | float) else text_of(value)
            if counted and (found := number_of(value)) is not None:
                out[name] = found
    return out
