"""What the first bytes of a file tell of its format: the container, the keys or the columns in it."""

from __future__ import annotations

import codecs
import csv
import io
import re
from functools import lru_cache

from whyprompt._rows import SEPARATORS

HEAD_BYTES = 1 << 16
_TOKEN = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"(\s*:)?|[{}\[\]]', re.DOTALL)
# The keys of a JSON text are told from its first bytes without reading it whole.
_DEEP = 5


@lru_cache(maxsize=8)
def container(head: bytes) -> str:
    r"""Tell what holds the rows: "parquet", "zip", "list", "object", "lines", "delimited"; "" for none.

    "lines" is JSON of one object a line; an object alone on one line is "object" too.

    Examples
    --------
    >>> container(b'{"a": 1}\n{"a": 2}\n'), container(b"[1]"), container(b"a,b\n1,2\n"), container(b"\x00")
    ('lines', 'list', 'delimited', '')
    """
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    text = _text(head).lstrip()
    if text.startswith("["):
        return "list"
    if text.startswith("{"):
        ends = re.search(r"\}[ \t\r]*\n\s*\S", text)
        return "lines" if ends and "\n" not in text[: ends.start()] else "object"
    return "delimited" if "\x00" not in text and _is_table(head) else ""


@lru_cache(maxsize=8)
def keys(head: bytes) -> frozenset[str]:
    r"""Give the paths of the keys in the first bytes of a JSON text, however it is cut.

    Examples
    --------
    >>> sorted(keys(b'{"a": {"b": [{"c": 1'))
    ['a', 'a.b', 'a.b[].c']
    """
    text = _text(head).lstrip()
    found: set[str] = set()
    if not text.startswith(("{", "[")):
        return frozenset()
    # The way down to the place that is read: a key, "[]" for a list, "" until an object's key is known.
    way: list[str] = []
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark == "{":
            way.append("")
        elif mark == "[":
            way.append("[]")
        elif mark in "}]":
            if way:
                way.pop()
        elif token[2] and way and len(way) <= _DEEP:
            way[-1] = token[1]
            found.add("".join(part if part == "[]" else f".{part}" for part in way).lstrip("."))
    return frozenset(found)


@lru_cache(maxsize=8)
def header(head: bytes) -> tuple[str, ...]:
    r"""Give the names in the first line of delimited text, none where it is of one field or leaves one empty.

    The first one may be empty: frames are written so, with the numbers of their rows.

    Examples
    --------
    >>> header(b"id;score\na;1\nb;0\n")
    ('id', 'score')
    """
    rows = _parsed(head, separator(head))
    names = rows[0] if rows else []
    return tuple(names) if len(names) > 1 and all(name.strip() for name in names[1:]) else ()


def _is_table(head: bytes) -> bool:
    """Say whether most rows have as many fields as the first line names: prose has not."""
    names, rows = header(head), [row for row in _parsed(head, separator(head))[1:] if row]
    return bool(names and rows) and 2 * sum(len(row) == len(names) for row in rows) > len(rows)


@lru_cache(maxsize=8)
def separator(head: bytes) -> str:
    """Give what separates the columns: what makes all rows as long as the first, else what it has most of."""

    def fit(mark: str) -> tuple[bool, int]:
        lengths = [len(row) for row in _parsed(head, mark) if row] or [0]
        return (lengths[0] > 1 and len(set(lengths)) == 1, lengths[0])

    return max(SEPARATORS, key=fit)


def _parsed(head: bytes, mark: str) -> list[list[str]]:
    """Split delimited text into its rows but the last one, which may be cut."""
    text = _text(head)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=mark))
    except csv.Error:
        return []
    return rows if len(head) < HEAD_BYTES else rows[:-1]


def _text(head: bytes) -> str:
    """Decode bytes, however they end; what is no UTF-8 is refused where it is read."""
    other = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return head.decode("utf-16" if other else "utf-8-sig", errors="replace")
