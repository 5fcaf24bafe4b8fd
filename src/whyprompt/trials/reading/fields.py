"""What the fields of a log say: texts, numbers, scores, and what has parts."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

from whyprompt.errors import DataError
from whyprompt.trials.readers.record import score_value

_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})


def text_of(value: object) -> str:
    """Write a value as text: a text is itself, nothing is "", what has parts is JSON.

    Examples
    --------
    >>> text_of("a"), text_of(None), text_of(3), text_of({"b": 1})
    ('a', '', '3', '{"b": 1}')
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, dict | list | bool | int | float):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return str(value)


def text_or_none(value: object) -> str | None:
    """Write what came back, or was sent, as text; None where there is none. A model may answer ""."""
    return None if value is None else text_of(value)


def said(value: object) -> str | None:
    """Write a field that says something as text, else None."""
    return None if value in (None, "", [], {}) else text_of(value)


def texts(value: object, sep: str = " | ") -> str:
    """Give a text, or the parts of a list of texts after each other."""
    return sep.join(map(texts, value)) if isinstance(value, list) else text_of(value)


def parsed(value: object) -> Any:  # noqa: ANN401 - any JSON
    """Read a cell that holds JSON; anything else is itself."""
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "[", '"'}:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def number_of(value: object) -> float | None:
    """Read a finite number; None for what is none."""
    return None if isinstance(value, bool) else score_value(value) if not _is_word(value) else None


def _is_word(value: object) -> bool:
    return isinstance(value, str) and value.strip()[:1].isalpha()


def whole_of(value: object) -> int | None:
    """Read a whole number; None for what is none."""
    found = number_of(value)
    return None if found is None else int(found)


def empty(value: object) -> bool:
    """Say whether a cell is empty."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def missing(value: object) -> bool:
    """Say whether a cell is empty, or says that it is."""
    if isinstance(value, str):
        return value.strip().lower() in _MISSING
    return empty(value)


def mapping(value: object) -> dict[str, Any]:
    """Give an object, an empty one where it is none."""
    return value if isinstance(value, dict) else {}


def listed(value: object) -> list[Any]:
    """Give a list, an empty one where it is none."""
    return value if isinstance(value, list) else []


def objects(value: object) -> list[dict[str, Any]]:
    """Give the objects in a list."""
    return [one for one in listed(value) if isinstance(one, dict)]


def score_of(value: object, where: str, name: str) -> float | None:
    """Read a score that a log gives, None where it is missing; what is no score is a `DataError`."""
    if missing(value):
        return None
    found = score_value(float(value) if isinstance(value, Decimal) else value)
    if found is None:
        hint = "a score is a number, true or false, or a word such as PASS, FAIL, yes, no, C, I"
        comma = isinstance(value, str) and score_value(value.replace(",", ".")) is not None
        raise DataError(
            f"{where}: {name!r} is {text_of(value)[:60]!r}, which is no score",
            hint="write decimals with a point" if comma else hint,
        )
    return found
