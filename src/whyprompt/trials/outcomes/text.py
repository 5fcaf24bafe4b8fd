"""What a completion says: its last number, its words, its code."""

from __future__ import annotations

import ast
import re
import string
import warnings
from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_NUMBER = re.compile(
    r"[-−]?\s?(?:\d+[ \t]+\d+[ \t]?/[ \t]?\d+"
    r"|(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s?/\s?\d+)?(?:[eE][+-]?\d+)?)"
    r"|[-−]?\.\d+"
)
_MIXED = re.compile(r"\s*(-?)\s*(\d+)[ \t]+(\d+)[ \t]?/[ \t]?(\d+)")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_UNIT = re.compile(r"[\s$]*(%|°?[^\W\d_]+(?:[/^][\w^/]+)?)")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def numbers(text: str) -> list[tuple[Fraction, int, int]]:
    """Give every number in a text, exactly, with where it begins and ends.

    Examples
    --------
    >>> numbers("2 1/2 or 17-3")
    [(Fraction(5, 2), 0, 5), (Fraction(17, 1), 9, 11), (Fraction(3, 1), 12, 13)]
    """
    found = []
    at = 0
    while (match := _NUMBER.search(text, at)) is not None:
        start, at = match.span()
        # "17-3" is a subtraction: a minus that follows a digit or a letter is no sign.
        if text[start] in "-−" and start > 0 and text[start - 1].isalnum():
            start += 1
        value, stop = _value(text[start:at])
        if value is not None:
            found.append((value, start + len(text[start:at]) - len(text[start:at].lstrip()), start + stop))
            at = start + stop
    return found


def _value(token: str) -> tuple[Fraction | None, int]:
    """Read a token, and say how much of it that is: what looks like a mixed number may be two."""
    plain = token.replace(",", "").replace("−", "-")
    mixed = _MIXED.fullmatch(plain)
    if mixed is not None:
        whole, top, bottom = (int(mixed[k]) for k in (2, 3, 4))
        if top >= bottom:
            # "1 7/2" are two numbers: the first of them, then the other.
            first = re.match(r"\D*\d+", token)
            assert first is not None
            return _value(first[0])[0], first.end()
        value = whole + Fraction(top, bottom)
        return (-value if mixed[1] else value), len(token)
    try:
        return Fraction(re.sub(r"\s", "", plain)), len(token)
    except (ValueError, ZeroDivisionError):
        return None, len(token)


def parse_number(text: str, units: Mapping[str, float] | None = None) -> Fraction | None:
    """Read a whole text as one number, thousands separators, currency and percent signs aside.

    Examples
    --------
    >>> parse_number("$1,200.50") == Fraction("1200.5")
    True
    >>> parse_number("twelve") is None
    True
    """
    found = parse_quantity(text, units or {})
    return None if found is None else found[0]


def parse_quantity(text: str, units: Mapping[str, float]) -> tuple[Fraction, Fraction | None] | None:
    """Read a whole text as one number, and what its unit is worth; None where none of the known follows it.

    Examples
    --------
    >>> parse_quantity("1.5 km", {"km": 1000, "m": 1})
    (Fraction(3, 2), Fraction(1000, 1))
    """
    plain = _plain(text).strip().strip("$€£").strip().rstrip(".")
    found = numbers(plain)
    if len(found) != 1 or found[0][1] > 0:
        return None
    value, _, stop = found[0]
    factor, end = _factor(plain, stop, units)
    return (value, factor) if plain[end:].strip("$€£% ") == "" else None


def last_number(text: str) -> Fraction | None:
    r"""Give the last number in a text, exactly; one after ``####`` is preferred, as GSM8K writes it.

    Examples
    --------
    >>> last_number("3 apples and 4, so 7.")
    Fraction(7, 1)
    >>> last_number(r"It is -\frac{1}{2}")
    Fraction(-1, 2)
    """
    found = find_number(text)
    return None if found is None else parse_number(found)


def find_number(text: str, units: Mapping[str, float] | None = None, *, first: bool = False) -> str | None:
    """Give the last number in a text as it is written, with its unit where one of `units` follows it.

    Where units are known, a number that has one comes before those that have none.

    Examples
    --------
    >>> find_number("2 km in 3 hours", {"km": 1000})
    '2 km'
    """
    tail = _plain(text.rpartition("####")[2])
    found = [(start, *_factor(tail, stop, units or {})) for _, start, stop in numbers(tail)]
    found = [f for f in found if f[1] is not None] or found
    if not found:
        return None
    start, _, stop = found[0 if first else -1]
    return tail[start:stop]


def _plain(text: str) -> str:
    return _FRACTION.sub(r" \1/\2", text)


def _factor(text: str, at: int, units: Mapping[str, float]) -> tuple[Fraction | None, int]:
    """Give what the unit after a number is worth, and where it ends; None and `at` where none is known."""
    unit = _UNIT.match(text, at)
    if unit is None or unit[1] not in units:
        return None, at
    return Fraction(str(units[unit[1]])), unit.end()


def normalise(text: str) -> str:
    """Give a text without case, punctuation, articles and surplus spaces (as SQuAD's scorer does).

    Examples
    --------
    >>> normalise("The  Cat!")
    'cat'
    """
    bare = "".join(c for c in text.casefold() if c not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def token_f1(text: str, answer: str) -> float:
    """Give the F1 of two texts' words (as SQuAD's scorer does): how many they share, in their normal form.

    Examples
    --------
    >>> token_f1("a black cat", "The cat")
    0.6666666666666666
    """
    ours, theirs = normalise(text).split(), normalise(answer).split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def same_code(text: str, answer: str) -> bool:
    r"""Say whether two texts are the same code: one Python syntax tree, or one text but for spaces.

    Nothing is run. Names, order and literals count; layout, comments and brackets that change nothing do not.

    Examples
    --------
    >>> same_code("def f( x ):\n  return (x + 1)  # one more", "def f(x):\n    return x + 1")
    True
    """
    trees = [_tree(t) for t in (text, answer)]
    if None not in trees:
        return trees[0] == trees[1]
    return text.split() == answer.split()


# Reading a tree takes memory and depth: what is longer is compared as text.
_LONGEST = 100_000


def _tree(text: str) -> str | None:
    if len(text) > _LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.dump(ast.parse(text.strip()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
