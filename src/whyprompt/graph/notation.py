"""The notations of a causal graph: arrow text and subsets of DOT and GML read, arrow text and DOT written.

Each reader returns `Parts` and refuses, naming the line, whatever it does not understand: a graph that is
silently half-read gives a wrong adjustment set.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from whyprompt._rows import is_file
from whyprompt.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ARROWS = ("<->", "->", "<-")
LATENT_WORDS = frozenset({"latent", "unobserved"})

Nodes = dict[str, bool]
Edges = list[tuple[str, str, str]]
Parts = tuple[Nodes, Edges]
"""Variables in order of appearance, with whether each is unobserved; edges, with their arrow between."""


def parse_any(source: str | Path) -> Parts:
    """Read a file or the text itself, in the notation that it begins like."""
    text = str(source)
    if isinstance(source, Path) or not re.search(r"[-<]>|<-|[{\[\n;]", text):
        path = Path(source)
        if not is_file(path):
            raise GraphError(
                f"the graph {text[:80]!r} is neither a file nor arrow text",
                hint='write arrows, for example "difficulty -> arm, score; arm -> score"',
            )
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise GraphError(f"{path} is not UTF-8 text") from error
    body = re.sub(r"\A(?:\s+|#[^\n]*|//[^\n]*|/\*.*?\*/)*", "", text, flags=re.DOTALL)
    if re.match(r"(strict\s+)?(di)?graph\b[^\[]*\{|dag\b[^\[]*\{", body, re.IGNORECASE):
        return parse_dot(text)
    if re.match(r"(Creator\b.*\n\s*|Version\b.*\n\s*)*graph\s*\[", body, re.IGNORECASE):
        return parse_gml(text)
    return parse_arrows(text)


def write_arrows(nodes: Nodes, edges: Edges) -> str:
    """Write text that `parse_arrows` reads back."""
    lines = [_quote(node) + (" [latent]" if hidden else "") for node, hidden in nodes.items()]
    return "\n".join([*lines, *(f"{_quote(a)} {arrow} {_quote(b)}" for a, arrow, b in edges)])


def write_dot(nodes: Nodes, edges: Edges) -> str:
    """Write text that `parse_dot` reads back; ``a <-> b`` becomes a dashed edge with ``dir=both``."""
    lines = [f"  {_quoted(n)}{' [observed=no]' if hidden else ''};" for n, hidden in nodes.items()]
    for a, arrow, b in edges:
        both = " [dir=both, style=dashed]" if arrow == "<->" else ""
        lines.append(f"  {_quoted(a)} -> {_quoted(b)}{both};")
    return "\n".join(["digraph {", *lines, "}"])


def _quote(name: str) -> str:
    return name if re.fullmatch(r"[\w.:/-]*\w", name) and "->" not in name else _quoted(name)


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _join(parts: Parts, left: Iterable[str], arrow: str, right: Iterable[str]) -> None:
    """Record an edge from each on the left to each on the right."""
    nodes, edges = parts
    for a in left:
        for b in right:
            nodes.setdefault(a, False)
            nodes.setdefault(b, False)
            edges.append((b, "->", a) if arrow == "<-" else (a, arrow, b))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int


def _scan(text: str, pattern: re.Pattern[str], what: str) -> Iterator[_Token]:
    if not isinstance(text, str):
        raise GraphError(
            f"a graph is read from text, not from {type(text).__name__}", hint='"x -> arm, y; arm -> y"'
        )
    position, line = 0, 1
    while position < len(text):
        match = pattern.match(text, position)
        if match is None or match.lastgroup is None:
            snippet = text[position:].split("\n", 1)[0][:30]
            raise GraphError(f"{what}, line {line}: cannot read {snippet!r}")
        kind, value = match.lastgroup, match.group()
        if kind == "string":
            yield _Token(kind="name", text=re.sub(r'\\(["\\])', r"\1", value[1:-1]), line=line)
        elif kind != "skip":
            yield _Token(kind=kind, text=value, line=line)
        line += value.count("\n")
        position = match.end()


class _Cursor:
    """Tokens with one of lookahead."""

    def __init__(self, tokens: Iterator[_Token], what: str) -> None:
        found = list(tokens)
        line = found[-1].line if found else 1
        self.tokens = [*found, _Token(kind="end", text="end of text", line=line)]
        self.what = what
        self.at = 0

    def peek(self, ahead: int = 0) -> _Token:
        return self.tokens[min(self.at + ahead, len(self.tokens) - 1)]

    def take(self) -> _Token:
        token = self.peek()
        self.at += 1
        return token

    def sees(self, *marks: str, ahead: int = 0) -> bool:
        """Whether one of some marks comes next, or so far ahead; a name in quotes is none."""
        token = self.peek(ahead)
        return token.kind != "name" and token.text in marks

    def takes(self, *marks: str) -> bool:
        """Step over one of some marks where it comes next, and say whether it did."""
        seen = self.sees(*marks)
        self.at += seen
        return seen

    def fail(self, message: str, token: _Token | None = None) -> GraphError:
        where = token or self.peek()
        return GraphError(f"{self.what}, line {where.line}: {message}")

    def expect(self, kind: str, wanted: str) -> _Token:
        token = self.take()
        if token.kind != kind:
            raise self.fail(f"expected {wanted}, found {token.text!r}", token)
        return token


_ARROW_TEXT = re.compile(
    r"""(?P<skip>[ \t\r]+|\#[^\n]*)
    |(?P<end_statement>[;\n])
    |(?P<string>"(?:[^"\\\n]|\\.)+")
    |(?P<arrow><->|->|<-)
    |(?P<comma>,)
    |(?P<tag>\[[^\]\n]*\])
    |(?P<name>(?:(?!->|<-)[^\s;,\[\]{}"\#<>])+)""",
    re.VERBOSE,
)


def parse_arrows(text: str) -> Parts:
    """Read ``a -> b; b <- c, d; a <-> c; u [latent]``, statements split by ``;`` or a new line."""
    cursor = _Cursor(_scan(text, _ARROW_TEXT, "graph"), "graph")
    parts: Parts = ({}, [])
    while cursor.peek().kind != "end":
        if cursor.takes(";", "\n"):
            continue
        left = _names(cursor, parts[0])
        while cursor.peek().kind == "arrow":
            arrow, before = cursor.take().text, left
            left = _names(cursor, parts[0])
            _join(parts, before, arrow, left)
        if cursor.peek().kind not in {"end_statement", "end"}:
            raise cursor.fail(f"expected an arrow ({', '.join(ARROWS)}) or ';', found {cursor.peek().text!r}")
    return parts


def _names(cursor: _Cursor, nodes: Nodes) -> list[str]:
    names: list[str] = []
    while True:
        name = cursor.expect("name", "a variable's name").text
        names.append(name)
        nodes.setdefault(name, False)
        if cursor.peek().kind == "tag":
            tag = cursor.take()
            if tag.text[1:-1].strip().lower() not in LATENT_WORDS:
                raise cursor.fail(f"unknown tag {tag.text!r}; [latent] is the only one", tag)
            nodes[name] = True
        if not cursor.takes(","):
            return names


_DOT = re.compile(
    r"""(?P<skip>\s+|//[^\n]*|\#[^\n]*|/\*.*?\*/)
    |(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<arrow><->|->|<-)
    |(?P<undirected>--)
    |(?P<punct>[{}\[\];,=:])
    |(?P<name>[A-Za-z_\u0080-\uffff][\w.]*|-?(?:\.\d+|\d+(?:\.\d*)?))""",
    re.VERBOSE | re.DOTALL,
)
# Attributes that change how a graph looks and not what it means; anything else is refused.
_DOT_COSMETIC = frozenset(
    re.findall(
        r"\w+",
        """label xlabel color fillcolor fontcolor fontname fontsize style shape width height pos penwidth
        margin tooltip weight constraint arrowhead arrowtail arrowsize headport tailport minlen len comment
        rankdir splines nodesep ranksep size ratio bgcolor pad bb dpi layout labelloc rank
        concentrate ordering""",
    )
)


def parse_dot(text: str) -> Parts:
    """Read one directed DOT graph (or DAGitty's ``dag { ... }``): nodes, edges, chains, ``{a b}`` groups."""
    cursor = _Cursor(_scan(text, _DOT, "DOT"), "DOT")
    parts: Parts = ({}, [])
    head = cursor.take()
    if head.text.lower() == "strict":
        head = cursor.take()
    if head.text.lower() not in {"digraph", "dag"}:
        raise cursor.fail(f"expected 'digraph', found {head.text!r}; an undirected graph has no causes", head)
    if cursor.peek().kind == "name":
        cursor.take()
    if not cursor.takes("{"):
        raise cursor.fail("expected '{' after the graph's name")
    while not cursor.takes("}"):
        token = cursor.peek()
        if token.kind == "end":
            raise cursor.fail("the closing '}' is missing")
        if cursor.takes(";"):
            continue
        if token.kind == "name" and token.text.lower() in {"subgraph", "cluster"}:
            raise cursor.fail("subgraphs are not read; list their nodes and edges at the top level")
        if token.kind == "name" and cursor.sees("=", ahead=1):
            _dot_attribute(cursor)
        elif token.kind == "name" and token.text in {"node", "edge", "graph"} and cursor.sees("[", ahead=1):
            cursor.take()
            _dot_attributes(cursor)
        else:
            _dot_statement(cursor, parts)
    if cursor.peek().kind != "end":
        raise cursor.fail(f"text after the closing '}}': {cursor.peek().text!r}")
    return parts


def _dot_group(cursor: _Cursor) -> list[str]:
    token = cursor.take()
    if token.kind == "name":
        if cursor.sees(":"):
            raise cursor.fail("ports (node:port) are not read")
        return [token.text]
    if token.text != "{":
        raise cursor.fail(f"expected a node, found {token.text!r}", token)
    group: list[str] = []
    while True:
        token = cursor.take()
        if token.kind == "name":
            group.append(token.text)
        elif token.text == "}":
            return group
        elif token.text not in {",", ";"}:
            raise cursor.fail(f"expected a node in '{{...}}', found {token.text!r}", token)


def _dot_statement(cursor: _Cursor, parts: Parts) -> None:
    line = cursor.peek()
    groups, arrows = [_dot_group(cursor)], []
    while cursor.peek().kind == "arrow":
        arrows.append(cursor.take().text)
        groups.append(_dot_group(cursor))
    if cursor.peek().kind == "undirected":
        raise cursor.fail("'--' has no direction; write '->', or '<->' for an unobserved common cause")
    attributes = _dot_attributes(cursor) if cursor.sees("[") else {}
    nodes = parts[0]
    for name in (name for group in groups for name in group):
        nodes.setdefault(name, False)
    if not arrows:
        if LATENT_WORDS & attributes.keys() or attributes.get("observed", "yes").lower() in {"no", "false"}:
            nodes.update(dict.fromkeys(groups[0], True))
        if "dir" in attributes:
            raise cursor.fail("a node has no 'dir'", line)
        return
    direction = attributes.get("dir", "forward")
    if direction not in {"forward", "back", "both"}:
        raise cursor.fail(f"dir={direction} has no causal meaning; use forward, back or both", line)
    for left, arrow, right in zip(groups[:-1], arrows, groups[1:], strict=True):
        if arrow != "->" and direction != "forward":
            raise cursor.fail(f"'{arrow}' and dir={direction} contradict each other", line)
        _join(parts, left, {"forward": arrow, "back": "<-", "both": "<->"}[direction], right)


def _dot_attributes(cursor: _Cursor) -> dict[str, str]:
    attributes: dict[str, str] = {}
    cursor.take()
    while not cursor.takes("]"):
        if not cursor.takes(",", ";"):
            key, value = _dot_attribute(cursor)
            attributes[key] = value
    return attributes


def _dot_attribute(cursor: _Cursor) -> tuple[str, str]:
    token = cursor.expect("name", "an attribute")
    key = token.text.lower()
    value = cursor.expect("name", f"a value for {key!r}").text if cursor.takes("=") else ""
    # DAGitty marks roles as bare words; only 'latent' changes what may be adjusted for.
    known = _DOT_COSMETIC | LATENT_WORDS | {"dir", "observed", "exposure", "outcome", "adjusted"}
    if key not in known:
        raise cursor.fail(f"unknown attribute {token.text!r}", token)
    return key, value


_GML = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*)
    |(?P<string>"[^"]*")
    |(?P<open>\[)|(?P<close>\])
    |(?P<number>[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)
    |(?P<key>[A-Za-z]\w*)""",
    re.VERBOSE,
)
_GML_IGNORED = frozenset({"creator", "version", "name", "comment", "graphics", "labelgraphics"})

_Gml = list[tuple[str, "str | _Gml", int]]


def _gml_block(cursor: _Cursor, *, top: bool) -> _Gml:
    entries: _Gml = []
    while True:
        token = cursor.take()
        if token.kind == "end" and top:
            return entries
        if token.kind == "close" and not top:
            return entries
        if token.kind != "key":
            raise cursor.fail(f"expected a key, found {token.text!r}", token)
        value = cursor.take()
        if value.kind == "open":
            entries.append((token.text.lower(), _gml_block(cursor, top=False), token.line))
        elif value.kind in {"name", "number"}:
            entries.append((token.text.lower(), value.text, token.line))
        else:
            raise cursor.fail(f"expected a value for {token.text!r}, found {value.text!r}", value)


def _gml_record(block: str | _Gml, line: int, what: str, keys: frozenset[str]) -> dict[str, str]:
    if isinstance(block, str):
        raise GraphError(f"GML, line {line}: {what!r} needs a [...] block")
    record: dict[str, str] = {}
    for key, value, at in block:
        if key in _GML_IGNORED:
            continue
        if key not in keys or not isinstance(value, str):
            raise GraphError(f"GML, line {at}: unknown key {key!r} in a {what}")
        record[key] = value
    return record


def _gml_node(block: str | _Gml, line: int, nodes: Nodes, labels: dict[str, str]) -> None:
    node = _gml_record(block, line, "node", frozenset({"id", "label", "observed"}))
    if "id" not in node:
        raise GraphError(f"GML, line {line}: a node without 'id'")
    if node["id"] in labels:
        raise GraphError(f"GML, line {line}: node id {node['id']} is used twice")
    name = node.get("label", node["id"])
    if name in nodes:
        raise GraphError(f"GML, line {line}: two nodes are labelled {name!r}")
    labels[node["id"]] = name
    nodes[name] = node.get("observed", "yes").lower() in {"no", "0", "false"}


def parse_gml(text: str) -> Parts:
    """Read one directed GML graph: nodes by ``id`` and ``label``, edges by ``source`` and ``target``."""
    top = _gml_block(_Cursor(_scan(text, _GML, "GML"), "GML"), top=True)
    graphs = [(value, line) for key, value, line in top if key == "graph"]
    strange = [(key, line) for key, _, line in top if key != "graph" and key not in _GML_IGNORED]
    if strange:
        raise GraphError(f"GML, line {strange[0][1]}: unknown key {strange[0][0]!r}")
    if len(graphs) != 1:
        raise GraphError(f"GML: expected one 'graph [...]', found {len(graphs)}")
    body, line = graphs[0]
    if isinstance(body, str):
        raise GraphError(f"GML, line {line}: 'graph' needs a [...] block")
    parts: Parts = ({}, [])
    labels, directed = dict[str, str](), False
    edges: list[tuple[str, str, int]] = []
    for key, value, at in body:
        if key == "directed":
            directed = value == "1"
        elif key == "node":
            _gml_node(value, at, parts[0], labels)
        elif key == "edge":
            edge = _gml_record(value, at, "edge", frozenset({"source", "target", "label"}))
            if not {"source", "target"} <= edge.keys():
                raise GraphError(f"GML, line {at}: an edge needs 'source' and 'target'")
            edges.append((edge["source"], edge["target"], at))
        elif not (key in _GML_IGNORED or (key in {"multigraph", "label", "id"} and value != "1")):
            raise GraphError(f"GML, line {at}: unknown key {key!r} in the graph")
    if not directed:
        raise GraphError("GML: the graph is not directed; 'directed 1' is missing")
    for source, target, at in edges:
        for end in (source, target):
            if end not in labels:
                raise GraphError(f"GML, line {at}: an edge names node {end}, which is not declared")
        _join(parts, [labels[source]], "->", [labels[target]])
    return parts
