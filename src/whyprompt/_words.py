"""How a number is put into words, where a format specification would say something else."""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Distributions are not known this far out, and doubles end a little further.
_LEAST_P = 1e-300


def percent(share: float) -> str:
    """Write a share in percent with the decimals that it was given with: 0.995 is no 100%.

    Examples
    --------
    >>> percent(0.95), percent(0.995), percent(0.975)
    ('95%', '99.5%', '97.5%')
    """
    return f"{100 * share:.10g}%"


def format_number(value: float | None, *, digits: int = 3) -> str:
    """Write a number with `digits` significant digits and no exponent where it can be avoided; None is "n/a".

    Examples
    --------
    >>> format_number(0.012345), format_number(1571.744), format_number(0.9996)
    ('0.0123', '1572', '1.00')
    """
    if value is None or not math.isfinite(value):
        return "n/a"
    if value == 0:
        return "0"
    # Rounding can carry into one more digit before the point: 0.9996 has the decimals of 1.00.
    written = float(f"{value:.{digits - 1}e}")
    if abs(written) < 1e-6 or abs(written) >= 1e9:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(written))))
    return f"{value:.{decimals}f}"


def p_words(p: float | None, *, least: float | None = None) -> str:
    """Write a p-value: two digits, and never as a value where it is only known to be smaller; None is "n/a".

    `least` is the least p that what it was counted from can show, ``1 / (draws + 1)`` of random draws; a p of
    that size is written as smaller. It is left out where every pattern was counted.

    Examples
    --------
    >>> p_words(0.04183), p_words(0.996), p_words(0.0)
    ('0.042', '1.0', '< 1e-300')
    >>> p_words(1 / 20_001, least=1 / 20_001), p_words(2 / 20_001, least=1 / 20_001)
    ('< 0.00005', '0.00010')
    >>> p_words(0.01, least=0.01)
    'at most 0.01'
    """
    if p is None or math.isnan(p):
        return "n/a"
    floor = max(_LEAST_P, 0.0 if least is None else least)
    if p <= floor * (1.0 + 1e-9):
        # Rounded up, so that what is said to be smaller is.
        size = 10.0 ** (math.floor(math.log10(floor)) - 1)
        above = math.ceil(floor / size * (1.0 - 1e-9)) * size
        text = format_number(above, digits=2)
        sign = "<" if above > floor * (1.0 + 1e-9) or least is None else "at most"
        return f"{sign} {text.replace('.0e', 'e') if 'e' in text else text.rstrip('0')}"
    return format_number(p, digits=2)


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """Write a number of things; the plural is the noun with an s by default.

    Examples
    --------
    >>> counted(1, "draw"), counted(0, "draw"), counted(2, "family", "families")
    ('1 draw', '0 draws', '2 families')
    """
    return f"{n} {noun if n == 1 else plural or noun + 's'}"


def listed(words: Iterable[str], *, joint: str = "and", most: int | None = None) -> str:
    """Join words as a sentence does; of more than `most` of them as many less one, and how many are left.

    Examples
    --------
    >>> listed(["a", "b", "c"]), listed("ab", joint="or"), listed("a")
    ('a, b and c', 'a or b', 'a')
    >>> listed("abcde", most=4), listed("abcd", most=4)
    ('a, b, c and 2 more', 'a, b, c and d')
    """
    shown = list(words)
    if most is not None and len(shown) > most:
        shown[most - 1 :] = [f"{len(shown) - most + 1} more"]
    return f" {joint} ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Give the closest of the names there are as the end of a sentence, "" where none is close.

    Examples
    --------
    >>> did_you_mean("outcome", ["items", "outcomes"]), did_you_mean("seed", ["items"])
    ("; did you mean 'outcomes'?", '')
    """
    by_small = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), by_small, n=1)
    return f"; did you mean {by_small[near[0]]!r}?" if near else ""


def first_line(error: Exception) -> str:
    r"""Give the first line of what an exception says, or its kind where it says nothing.

    Examples
    --------
    >>> first_line(ValueError("no such file\nmore")), first_line(KeyError())
    ('no such file', 'KeyError')
    """
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
