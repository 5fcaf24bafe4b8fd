"""Long JSON read piece by piece, so that a log is never held whole."""

from __future__ import annotations

import codecs
import json
import re
from array import array
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NoReturn

from whyprompt._rows import json_row
from whyprompt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

PIECE = 1 << 20
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
_AFTER = " \t\r\n,]}"
# Where a text is cut, JSON is wrong near its end, or from where a string begins.
_NEAR = 5_000
# So many places of a file are read in step before one of them is left for another.
_PLACES = 16
AGAIN = "copy it again; if a run is still writing it, wait until that ends"


def pieces(path: Path) -> Iterator[bytes]:
    """Read a file a mebibyte at a time."""
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


class _Text:
    """What is read of a JSON text and not used yet."""

    def __init__(self, source: Iterable[bytes], where: str) -> None:
        self.source = iter(source)
        self.where = where
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at, self.done = "", 0, False

    def more(self) -> bool:
        """Read as much again as is held, so that a long value read anew costs twice at most."""
        if self.done:
            return False
        held = self.text[self.at :]
        size, parts = 0, [held]
        try:
            while size <= len(held):
                piece = next(self.source, None)
                self.done = piece is None
                parts.append(self.decoder.decode(piece or b"", self.done))
                if self.done:
                    break
                size += len(parts[-1])
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.where}: not UTF-8 text: {error.reason}", hint="save it as UTF-8"
            ) from None
        self.text, self.at = "".join(parts), 0
        return True

    def peek(self) -> str:
        """Give the next character that is no space, "" at the end."""
        while True:
            space = _SPACE.match(self.text, self.at)
            self.at = self.at if space is None else space.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self, marks: str) -> str:
        """Give the next character, one of some that must come."""
        found = self.peek()
        if not found:
            self.cut()
        if found not in marks:
            raise DataError(f"{self.where}: not JSON: {found!r} stands where one of {marks!r} must")
        self.at += 1
        return found

    def value(self) -> Any:  # noqa: ANN401 - any JSON
        """Give the next value."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                left = len(self.text) - error.pos
                open_text = error.msg.startswith(("Unterminated", "Invalid \\"))
                if left > _NEAR and not open_text:
                    self.wrong(error.msg)
                if not self.more():
                    self.cut() if open_text or left < len("false") else self.wrong(error.msg)
            except (RecursionError, ValueError) as error:
                self.wrong("nested too deeply" if isinstance(error, RecursionError) else str(error))
            else:
                # A number may go on in what is not read yet, also behind "1." or "1e".
                left = len(self.text) - end
                ends = left and (not isinstance(value, int | float) or self.text[end] in _AFTER)
                if ends or left > _NEAR or self.done:
                    self.at = end
                    return value
                self.more()

    def elements(self) -> Iterator[Any]:
        """Give the elements of the list that comes next."""
        self.take("[")
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            yield self.value()
            if self.take(",]") == "]":
                return

    def wrong(self, why: str) -> NoReturn:
        """Say that it is no JSON."""
        raise DataError(f"{self.where}: not JSON: {why}")

    def cut(self) -> NoReturn:
        """Say that the rest is missing."""
        raise DataError(f"{self.where} is cut off: its JSON ends in the middle", hint=AGAIN)


def members(
    source: Iterable[bytes], where: str, into: Collection[str] = (), *, skip: Collection[str] = ()
) -> Iterator[tuple[str, Any]]:
    r"""Give the members of a JSON object, or the elements of a list with "" for their key, one at a time.

    Members named in `into` are lists that are given element by element, each with the member's key; those
    named in `skip` are passed over the same way.

    Examples
    --------
    >>> list(members([b'{"a": 1, "b": [2, ', b'3], "c": [4]}'], "x.json", into=["b"]))
    [('a', 1), ('b', 2), ('b', 3), ('c', [4])]
    """
    text = _Text(source, where)
    if not text.peek():
        raise DataError(f"{where} is empty", hint=AGAIN)
    if text.peek() == "[":
        yield from (("", element) for element in text.elements())
    else:
        text.take("{")
        if text.peek() == "}":
            text.take("}")
        else:
            yield from _object(text, into, skip)
    if text.peek():
        text.wrong("more stands after its end")


def _object(text: _Text, into: Collection[str], skip: Collection[str]) -> Iterator[tuple[str, Any]]:
    while True:
        if text.peek() != '"':
            text.take('"')
        key = str(text.value())
        text.take(":")
        if key in skip or key in into:
            if text.peek() == "[":
                for element in text.elements():
                    if key in into:
                        yield key, element
            elif (value := text.value()) is not None and key in into:
                yield key, value
        else:
            yield key, text.value()
        if text.take(",}") == "}":
            return


def grouped(path: Path, key: Callable[[bytes, int], Hashable]) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Read a file of one JSON object a line, the lines of one key together: their numbers and objects.

    Groups come in the order of their first lines. Lines of a group may stand far apart: only their places are
    held, and the file is read at several places in step.
    """
    import numpy as np

    codes: dict[Hashable, int] = {}
    code, place, numbers = array("q"), array("q"), array("q")
    at = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                code.append(codes.setdefault(key(line, number), len(codes)))
                place.append(at)
                numbers.append(number)
            at += len(line)
    order = np.argsort(np.asarray(code), kind="stable")
    ends = np.cumsum(np.bincount(np.asarray(code))) if codes else np.zeros(0, int)
    codes.clear()
    with ExitStack() as stack:
        files: list[BinaryIO] = []
        start = 0
        for end in ends:
            group = []
            for k, which in enumerate(order[start:end]):
                if k % _PLACES == len(files):
                    files.append(stack.enter_context(path.open("rb")))
                here = files[k % _PLACES]
                if here.tell() != place[which]:
                    here.seek(place[which])
                group.append((numbers[which], json_row(here.readline(), path, numbers[which])))
            yield group
            start = end
