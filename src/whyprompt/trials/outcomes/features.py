"""What can be counted of a text: its length, its format, its chain of thought. All such measures are here."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING

import numpy as np

from whyprompt._words import did_you_mean
from whyprompt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

MARKER = "marker:"
"""Before a text whose presence is a feature: ``marker:The answer is``."""

_FENCE = re.compile(r"\A\s*```\w*\n(.*?)\n?```\s*\Z", re.DOTALL)
_ENTRY = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+\S", re.MULTILINE)
_TAGS = re.compile(r"<(think|thinking|reasoning)>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
_FINAL = re.compile(r"answer is\b|\banswer\s*:|####|\\boxed\{", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\b(?:I(?:'m| am) (?:sorry|unable|not able)|I (?:can(?:not|'t)|won't|must decline)|as an AI)\b",
    re.IGNORECASE,
)
# A refusal is said at the beginning.
_BEGINNING = 200


def chain_of(text: str) -> str:
    """Give the chain of thought of a text: what stands in its tags, else before its last final answer.

    Tags are ``<think>``, ``<thinking>`` and ``<reasoning>``; a final answer is announced by "answer is",
    "Answer:", "####" or a box. A text with none of them has no chain.

    >>> chain_of("<think>3 + 4 = 7</think>7"), chain_of("3 + 4 = 7. The answer is 7."), chain_of("7")
    ('3 + 4 = 7', '3 + 4 = 7. The', '')
    """
    inside = [m[2].strip() for m in _TAGS.finditer(text)]
    if inside:
        return "\n".join(inside)
    ends = [m.start() for m in _FINAL.finditer(text)]
    return text[: ends[-1]].strip() if ends else ""


def _is_json(text: str) -> bool:
    fenced = _FENCE.match(text)
    try:
        return isinstance(json.loads(fenced[1] if fenced else text), dict | list)
    except (ValueError, RecursionError):
        return False


def _words(text: str) -> float:
    return float(len(text.split()))


FEATURES: dict[str, Callable[[str], float]] = {
    "chars": lambda text: float(len(text)),
    "words": _words,
    "log_words": lambda text: math.log1p(_words(text)),
    "lines": lambda text: float(sum(1 for line in text.splitlines() if line.strip())),
    "json": lambda text: float(_is_json(text)),
    "list": lambda text: float(len(_ENTRY.findall(text)) > 1),
    "code": lambda text: float("```" in text),
    "refuses": lambda text: float(bool(_REFUSAL.search(text[:_BEGINNING].replace("’", "'")))),
    "chain_chars": lambda text: float(len(chain_of(text))),
    "chain_words": lambda text: _words(chain_of(text)),
}
"""By name: lengths; the natural logarithm of one more than the words; lines that are not empty; 0/1 whether
the whole text is JSON (in a fence too), it has two entries of a list or more, a fence, or begins by refusing;
and lengths of the chain of thought (`chain_of`)."""


LENGTH = ("words", "log_words")
"""What "length" stands for: a word more may be worth less where there are many."""


def is_feature(name: str) -> bool:
    """Say whether a name is that of a feature of texts."""
    return name in FEATURES or (name.startswith(MARKER) and bool(name[len(MARKER) :]))


def measure(texts: Sequence[str], name: str) -> NDArray[np.float64]:
    """Measure one feature of every text, shape (texts,).

    Raises
    ------
    DataError
        If there is no such feature.

    Examples
    --------
    >>> measure(["The answer is 7", "7"], "marker:answer is").tolist()
    [1.0, 0.0]
    """
    if not is_feature(name):
        raise DataError(
            f"there is no feature {name!r} of a text{did_you_mean(name, FEATURES)}",
            hint=f"one of: {', '.join(FEATURES)}, marker:TEXT",
        )
    marker = name[len(MARKER) :].casefold()
    of = (lambda text: float(marker in text.casefold())) if name.startswith(MARKER) else FEATURES[name]
    return np.array([of(text) for text in texts], dtype=np.float64)
