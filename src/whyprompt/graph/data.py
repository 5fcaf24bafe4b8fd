"""The graph as data: its edges, checked, and the notations it is read from and written to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from whyprompt.errors import GraphError
from whyprompt.graph.parse import Parts, parse_arrows, parse_dot, parse_gml

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["GraphData"]


class DirectedGraph(Protocol):
    """What is used of a ``networkx.DiGraph``."""

    @property
    def nodes(self) -> Iterable[object]:
        """Its nodes."""

    @property
    def edges(self) -> Iterable[tuple[object, object]]:
        """Its edges."""

    def is_directed(self) -> bool:
        """Whether edges have a direction."""

    def is_multigraph(self) -> bool:
        """Whether an edge may be repeated."""


@dataclass(frozen=True, kw_only=True)
class GraphData:
    """Nodes and edges of an acyclic graph; see :class:`whyprompt.graph.CausalGraph`."""

    nodes: tuple[str, ...]
    directed: tuple[tuple[str, str], ...]
    bidirected: tuple[tuple[str, str], ...] = ()
    unobserved: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        known = set(self.nodes)
        if len(known) != len(self.nodes):
            twice = sorted({node for node in self.nodes if self.nodes.count(node) > 1})
            raise GraphError(f"the graph names {twice[0]!r} twice as a node")
        seen: set[tuple[str, str, str]] = set()
        for arrow, edges in (("->", self.directed), ("<->", self.bidirected)):
            for a, b in edges:
                if a not in known or b not in known:
                    missing = a if a not in known else b
                    raise GraphError(f"edge {a} {arrow} {b}: {missing!r} is not a node")
                if a == b:
                    raise GraphError(f"self loop: {a} {arrow} {b}; a variable does not cause itself")
                ends = (a, b) if arrow == "->" else (min(a, b), max(a, b))
                if (arrow, *ends) in seen:
                    raise GraphError(f"edge {a} {arrow} {b} is given twice")
                seen.add((arrow, *ends))
        cycle = self._cycle()
        if cycle:
            raise GraphError(
                f"the graph has a cycle: {' -> '.join(cycle)}",
                hint="a variable cannot be its own cause; drop an edge, or split it by time",
            )
        self._known(self.unobserved, "unobserved")

    # ---------------------------------------------------------------------------------------- making one

    @classmethod
    def parse(cls, text: str, *, unobserved: Collection[str] = ()) -> Self:
        """Read arrow text.

        Parameters
        ----------
        text : str
            Statements split by ``;`` or a new line: ``a -> b``, ``a <- b``, ``a <-> b``, chains
            ``a -> b -> c``, lists ``a, b -> c``, a node alone, ``u [latent]`` for a variable that is not
            measured, ``"a name"`` in quotes, ``#`` comments.
        unobserved : collection of str, optional
            More names that are not measured.

        Returns
        -------
        CausalGraph

        Raises
        ------
        GraphError
            If the text cannot be read (naming the line) or is not an acyclic graph.

        Examples
        --------
        >>> from whyprompt import CausalGraph
        >>> CausalGraph.parse("a -> b -> c; a <-> c").bidirected
        (('a', 'c'),)
        """
        return cls._from_parts(parse_arrows(text), unobserved)

    @classmethod
    def from_dot(cls, text: str, *, unobserved: Collection[str] = ()) -> Self:
        """Read a directed DOT graph, or DAGitty's ``dag { ... }``.

        Nodes, chains, ``{a b}`` groups, quoted names and comments are read; ``dir=both`` or ``<->`` is an
        unobserved common cause, ``[latent]`` or ``observed=no`` an unmeasured node; attributes of appearance
        are skipped. Subgraphs, ports, undirected edges and unknown attributes are refused.

        Parameters
        ----------
        text : str
            The graph.
        unobserved : collection of str, optional
            More names that are not measured.

        Returns
        -------
        CausalGraph

        Raises
        ------
        GraphError
            Naming the line.

        Examples
        --------
        >>> from whyprompt import CausalGraph
        >>> CausalGraph.from_dot('digraph { a -> {b c}; b -> c [dir=both] }').directed
        (('a', 'b'), ('a', 'c'))
        """
        return cls._from_parts(parse_dot(text), unobserved)

    @classmethod
    def from_gml(cls, text: str, *, unobserved: Collection[str] = ()) -> Self:
        """Read a directed GML graph.

        Parameters
        ----------
        text : str
            The graph: ``node`` blocks with ``id`` and ``label``, ``edge`` blocks with ``source`` and
            ``target``.
        unobserved : collection of str, optional
            Names that are not measured, besides nodes with ``observed "no"``.

        Returns
        -------
        CausalGraph

        Raises
        ------
        GraphError
            Naming the line.

        Examples
        --------
        >>> from whyprompt import CausalGraph
        >>> text = 'graph [directed 1 node [id 0 label "a"] node [id 1 label "b"] edge [source 0 target 1]]'
        >>> CausalGraph.from_gml(text).directed
        (('a', 'b'),)
        """
        return cls._from_parts(parse_gml(text), unobserved)

    @classmethod
    def from_networkx(cls, graph: DirectedGraph, *, unobserved: Collection[str] = ()) -> Self:
        """Take a ``networkx.DiGraph``; attributes of nodes and edges are not read.

        Parameters
        ----------
        graph : networkx.DiGraph
            Nodes must be strings.
        unobserved : collection of str, optional
            Names that are not measured.

        Returns
        -------
        CausalGraph

        Raises
        ------
        GraphError
            If the graph is undirected or a multigraph, or a node is not a string.
        """
        if not graph.is_directed() or graph.is_multigraph():
            raise GraphError(f"expected a networkx.DiGraph, got {type(graph).__name__}")
        names: dict[object, str] = {}
        for node in graph.nodes:
            if not isinstance(node, str):
                raise GraphError(f"node {node!r} is a {type(node).__name__}; nodes are column names (str)")
            names[node] = node
        return cls(
            nodes=tuple(names.values()),
            directed=tuple((names[a], names[b]) for a, b in graph.edges),
            unobserved=frozenset(unobserved),
        )

    @classmethod
    def read(cls, source: str | Path, *, unobserved: Collection[str] = ()) -> Self:
        """Read a graph from a file or from text, in any of the three notations, told apart by how it begins.

        Parameters
        ----------
        source : str or pathlib.Path
            A path, or the text itself: text is what has an arrow, a brace or a new line in it.
        unobserved : collection of str, optional
            Names that are not measured.

        Returns
        -------
        CausalGraph

        Raises
        ------
        GraphError
            If the file is missing or the text cannot be read.

        Examples
        --------
        >>> from whyprompt import CausalGraph
        >>> CausalGraph.read("a -> b") == CausalGraph.read("digraph { a -> b }")
        True
        """
        text = str(source)
        if isinstance(source, Path) or not re.search(r"[-<]>|<-|[{\[\n;]", text):
            path = Path(source)
            if not path.is_file():
                raise GraphError(
                    f"no graph file {text!r}", hint='or give the graph itself, as in "a -> b; b -> c"'
                )
            text = path.read_text(encoding="utf-8")
        body = re.sub(r"\A(?:\s+|#[^\n]*|//[^\n]*)*", "", text)
        if re.match(r"(strict\s+)?(di)?graph\b[^\[]*\{|dag\b[^\[]*\{", body, re.IGNORECASE):
            return cls.from_dot(text, unobserved=unobserved)
        if re.match(r"(Creator\b.*\n\s*|Version\b.*\n\s*)*graph\s*\[", body, re.IGNORECASE):
            return cls.from_gml(text, unobserved=unobserved)
        return cls.parse(text, unobserved=unobserved)

    @classmethod
    def _from_parts(cls, parts: Parts, unobserved: Collection[str]) -> Self:
        return cls(
            nodes=tuple(parts.nodes),
            directed=tuple(parts.directed),
            bidirected=tuple(parts.bidirected),
            unobserved=frozenset(parts.unobserved) | frozenset(unobserved),
        )

    # ---------------------------------------------------------------------------------------- writing it

    def __str__(self) -> str:
        """Write arrow text that :meth:`parse` reads back."""
        lines = [_quote(node) + (" [latent]" if node in self.unobserved else "") for node in self.nodes]
        lines += [f"{_quote(a)} -> {_quote(b)}" for a, b in self.directed]
        lines += [f"{_quote(a)} <-> {_quote(b)}" for a, b in self.bidirected]
        return "\n".join(lines)

    def to_dot(self) -> str:
        """Write DOT that :meth:`from_dot` reads back to an equal graph.

        Returns
        -------
        str
            A ``digraph``; ``a <-> b`` becomes a dashed edge with ``dir=both``.

        Examples
        --------
        >>> from whyprompt import CausalGraph
        >>> graph = CausalGraph.parse("a -> b; a <-> b; u [latent]")
        >>> CausalGraph.from_dot(graph.to_dot()) == graph
        True
        """
        lines = ["digraph {"]
        hidden = {node: " [observed=no]" if node in self.unobserved else "" for node in self.nodes}
        lines += [f"  {_dot_quote(node)}{mark};" for node, mark in hidden.items()]
        lines += [f"  {_dot_quote(a)} -> {_dot_quote(b)};" for a, b in self.directed]
        lines += [
            f"  {_dot_quote(a)} -> {_dot_quote(b)} [dir=both, style=dashed];" for a, b in self.bidirected
        ]
        return "\n".join([*lines, "}"])

    def _cycle(self) -> list[str]:
        children: dict[str, list[str]] = {node: [] for node in self.nodes}
        for a, b in self.directed:
            children[a].append(b)
        done: set[str] = set()
        for start in self.nodes:
            trail: list[str] = []
            frames = [iter([start])]
            while frames:
                node = next(frames[-1], None)
                if node is None:
                    frames.pop()
                    if trail:
                        done.add(trail.pop())
                elif node in trail:
                    return [*trail[trail.index(node) :], node]
                elif node not in done:
                    trail.append(node)
                    frames.append(iter(children[node]))
        return []

    def _known(self, names: Iterable[str], what: str) -> None:
        unknown = sorted(set(names) - set(self.nodes))
        if unknown:
            raise GraphError(
                f"{what}: {', '.join(map(repr, unknown))} not in the graph",
                hint=f"its variables are {', '.join(self.nodes)}",
            )


def _quote(name: str) -> str:
    return name if re.fullmatch(r"[\w.:/-]*\w", name) and "->" not in name else _dot_quote(name)


def _dot_quote(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
