"""Reads a page without a browser, and complains where its markup is not well formed."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

BLOCKS = {
    *("p", "li", "td", "th", "caption", "figcaption", "summary", "h1", "h2", "h3", "h4", "div", "section")
}
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """Collects ids, references, tables and texts; checks that every element is closed in order."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.stack: list[tuple[str, dict]] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tables: dict[str, list[list[tuple[str, float | None]]]] = {}
        self.scripts: dict[str, str] = {}
        self.headings: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.sentences: list[str] = []
        self._said: list[str] = []
        self._table = None
        self._cell = None

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs, closed=tag in VOID)

    def handle_startendtag(self, tag, attrs, *, closed=True):
        given = dict(attrs)
        assert len(given) == len(attrs), f"<{tag}> repeats an attribute: {attrs}"
        self.attributes += [(tag, k, v or "") for k, v in given.items()]
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "table":
            self._table = given.get("data-table", "")
            self.tables.setdefault(self._table, [])
        elif tag == "tr" and self._table is not None:
            self.tables[self._table].append([])
        elif tag in {"td", "th"}:
            self._cell = ["", given.get("data-value")]
        if tag in BLOCKS:
            self._end_of_block()
        if not closed:
            self.stack.append((tag, given))

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> closes nothing"
        opened, _ = self.stack.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"
        if tag in BLOCKS:
            self._end_of_block()
        if tag in {"td", "th"} and self._cell is not None:
            text, value = self._cell
            self.tables[self._table][-1].append((text.strip(), None if value is None else float(value)))
            self._cell = None
        elif tag == "table":
            self._table = None

    def handle_data(self, data):
        tag, given = self.stack[-1] if self.stack else ("", {})
        if tag == "script":
            name = given.get("id", "")
            self.scripts[name] = self.scripts.get(name, "") + data
            return
        if tag == "style":
            return
        if tag in {"h1", "h2"}:
            self.headings.append((tag, data))
        if self._cell is not None:
            self._cell[0] += data
        self.text.append(data)
        # What was sent and answered may be the same under both arms, and in many items.
        if not {"pre", "svg", "option", "title", "nav"} & {tag for tag, _ in self.stack}:
            self._said.append(data)

    def _end_of_block(self):
        words = " ".join("".join(self._said).split())
        self._said = []
        # What ends in a colon is a label.
        every = re.split(r"(?<=[.!?]) ", words)
        self.sentences += [one for one in every if len(one.split()) >= 5 and not one.endswith(":")]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def read(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.stack, f"not closed: {[t for t, _ in reader.stack]}"
    return reader


def body(rows):
    """Give a table's rows without its head: label -> values."""
    return {row[0][0]: [value for _, value in row[1:]] for row in rows[1:]}


def said_twice(reader):
    """Give the sentences (of five words and more) that stand twice on a page."""
    return [one for one, n in Counter(reader.sentences).items() if n > 1]
