"""What a completion says: its last number, its words."""

from __future__ import annotations

import re
import string
from fractions import Fraction

_NUMBER = re.compile(
    r"[-−]?\s?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s?/\s?\d+)?(?:[eE][+-]?\d+)?|[-−]?\.\d+"
)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def parse_number(text: str) -> Fraction | None:
    """Read a whole text as one number, thousands separators, currency and percent signs aside.

    Examples
    --------
    >>> parse_number("$1,200.50") == Fraction("1200.5")
    True
    >>> parse_number("twelve") is None
    True
    """
    plain = text.strip().strip("$€£%").strip().rstrip(".")
    return last_number(plain) if re.fullmatch(_NUMBER, plain) else None


def last_number(text: str) -> Fraction | None:
    """Give the last number in a text, exactly; one after ``####`` is preferred, as GSM8K writes it.

    Examples
    --------
    >>> last_number("3 apples and 4, so 7.")
    Fraction(7, 1)
    >>> last_number("17-3")
    Fraction(3, 1)
    """
    tail = text.rpartition("####")[2]
    found = None
    for match in _NUMBER.finditer(tail):
        token = re.sub(r"[,\s]", "", match[0]).replace("−", "-")
        # "17-3" is a subtraction: a minus that follows a digit or a letter is no sign.
        if token.startswith("-") and match.start() > 0 and tail[match.start() - 1].isalnum():
            token = token[1:]
        try:
            found = Fraction(token)
        except (ValueError, ZeroDivisionError):
            continue
    return found


def normalise(text: str) -> str:
    """Give a text without case, punctuation, articles and surplus spaces (as SQuAD's scorer does).

    Examples
    --------
    >>> normalise("The  Cat!")
    'cat'
    """
    bare = "".join(c for c in text.casefold() if c not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split())
