"""The causal graph itself: a frozen value, whose methods answer what may be concluded from it."""

from __future__ import annotations

import graphlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from whyprompt.errors import GraphError
from whyprompt.graph import identify as _identify
from whyprompt.graph.notation import parse_any, parse_arrows, parse_dot, parse_gml, write_arrows, write_dot
from whyprompt.graph.report import Identification, stories, strategy_of, told, traces
from whyprompt.graph.separation import Step, ancestors, connected, descendants
from whyprompt.graph.svg import draw
from whyprompt.graph.testing import run_tests

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path as File

    from narwhals.typing import IntoDataFrame

    from whyprompt.graph.notation import Parts
    from whyprompt.graph.separation import Adjacency
    from whyprompt.graph.types import Implication, Path
    from whyprompt.results import Check

MAX_PATHS = 10_000
MAX_SETS = 4_096
HINT_SETS = 256


@dataclass(frozen=True, kw_only=True)
class CausalGraph:
    """An acyclic causal graph, with ``a <-> b`` for an unobserved common cause of two variables.

    It is made by `parse`, `from_dot`, `from_gml`, `from_networkx` or `read`, each of which takes, as
    `unobserved`, names of more variables that are not measured. Where a method takes them, `treatment` and
    `outcome` (str) are the question, and `observed` (collection of str) is what may be used, by default every
    node not declared unobserved.

    Parameters
    ----------
    nodes : tuple of str
        Every variable, in the order in which it was first named.
    directed : tuple of (str, str)
        Causes and effects.
    bidirected : tuple of (str, str), default ()
        Pairs that share an unobserved cause.
    unobserved : frozenset of str, default frozenset()
        Named variables that are not measured; they are never adjusted for.

    Raises
    ------
    GraphError
        If there is a cycle (which is named), a self loop, an edge given twice, or an end that is no node; if
        text cannot be read (naming the line); and if a method is given a name that is not in the graph.

    References
    ----------
    Pearl (2009). Causality, 2nd edition. Cambridge University Press.
    Shpitser, VanderWeele and Robins (2010). On the validity of covariate adjustment for estimating causal
    effects. UAI, definition 4 (the adjustment criterion).
    van der Zander, Liskiewicz and Textor (2014). Constructing separators and adjustment sets in ancestral
    graphs. UAI Causal Inference Workshop.

    Examples
    --------
    >>> from whyprompt import CausalGraph
    >>> graph = CausalGraph.parse('''
    ...     difficulty -> arm, score       # the harder the item, the longer the prompt people write
    ...     arm -> prompt_tokens, score
    ... ''')
    >>> graph.adjustment_sets("arm", "score")
    [frozenset({'difficulty'})]
    >>> graph.roles("arm", "score")["prompt_tokens"]
    ('post-treatment',)
    """

    nodes: tuple[str, ...]
    directed: tuple[tuple[str, str], ...]
    bidirected: tuple[tuple[str, str], ...] = ()
    unobserved: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        causes: dict[str, list[str]] = {node: [] for node in self.nodes}
        if len(causes) != len(self.nodes):
            twice = sorted({node for node in self.nodes if self.nodes.count(node) > 1})
            raise GraphError(f"the graph names {twice[0]!r} twice as a node")
        seen: set[tuple[str, str, str]] = set()
        for a, arrow, b in self._edges:
            if a not in causes or b not in causes:
                missing = a if a not in causes else b
                raise GraphError(f"edge {a} {arrow} {b}: {missing!r} is not a node")
            if a == b:
                raise GraphError(f"self loop: {a} {arrow} {b}; a variable does not cause itself")
            ends = (a, b) if arrow == "->" else (min(a, b), max(a, b))
            if (arrow, *ends) in seen:
                raise GraphError(f"edge {a} {arrow} {b} is given twice")
            seen.add((arrow, *ends))
        for a, b in self.directed:
            causes[b].append(a)
        try:
            graphlib.TopologicalSorter(causes).prepare()
        except graphlib.CycleError as error:
            raise GraphError(
                f"the graph has a cycle: {' -> '.join(error.args[1])}",
                hint="a variable cannot be its own cause; drop an edge, or split it by time",
            ) from None
        self._known(self.unobserved, "unobserved")

    # ---------------------------------------------------------------------------------- read and written

    @classmethod
    def parse(cls, text: str, *, unobserved: Collection[str] = ()) -> Self:
        """Read arrow text.

        Parameters
        ----------
        text : str
            Statements split by ``;`` or a new line: ``a -> b``, ``a <- b``, ``a <-> b``, chains
            ``a -> b -> c``, lists ``a, b -> c``, a node alone, ``u [latent]`` for a variable that is not
            measured, ``"a name"`` in quotes, ``#`` comments.

        Examples
        --------
        >>> CausalGraph.parse("a -> b -> c; a <-> c").bidirected
        (('a', 'c'),)
        """
        return cls._of(parse_arrows(text), unobserved)

    @classmethod
    def from_dot(cls, text: str, *, unobserved: Collection[str] = ()) -> Self:
        """Read a directed DOT graph, or DAGitty's ``dag { ... }``.

        Nodes, chains, ``{a b}`` groups, quoted names and comments are read; ``dir=both`` or ``<->`` is an
        unobserved common cause, ``[latent]`` or ``observed=no`` an unmeasured node; attributes of appearance
        are skipped. Subgraphs, ports, undirected edges and unknown attributes are refused, naming the line.

        Examples
        --------
        >>> CausalGraph.from_dot('digraph { a -> {b c}; b -> c [dir=both] }').directed
        (('a', 'b'), ('a', 'c'))
        """
        return cls._of(parse_dot(text), unobserved)

    @classmethod
    def from_gml(cls, text: str, *, unobserved: Collection[str] = ()) -> Self:
        """Read a directed GML graph.

        ``node`` blocks have ``id`` and ``label``, and ``observed "no"`` where they are not measured; ``edge``
        blocks have ``source`` and ``target``. Anything else is refused, naming the line.

        Examples
        --------
        >>> text = 'graph [directed 1 node [id 0 label "a"] node [id 1 label "b"] edge [source 0 target 1]]'
        >>> CausalGraph.from_gml(text).directed
        (('a', 'b'),)
        """
        return cls._of(parse_gml(text), unobserved)

    @classmethod
    def from_networkx(cls, graph: Any, *, unobserved: Collection[str] = ()) -> Self:  # noqa: ANN401 - of networkx
        """Take a ``networkx.DiGraph`` whose nodes are strings; attributes are not read."""
        if not graph.is_directed() or graph.is_multigraph():
            raise GraphError(f"expected a networkx.DiGraph, got {type(graph).__name__}")
        for node in graph.nodes:
            if not isinstance(node, str):
                raise GraphError(f"node {node!r} is a {type(node).__name__}; nodes are column names (str)")
        edges = [(a, "->", b) for a, b in graph.edges]
        return cls._of((dict.fromkeys(graph.nodes, False), edges), unobserved)

    @classmethod
    def read(cls, source: str | File, *, unobserved: Collection[str] = ()) -> Self:
        """Read a graph from a file or from text, in any of the three notations, told apart by how it begins.

        Parameters
        ----------
        source : str or pathlib.Path
            A path, or the text itself: text is what has an arrow, a brace or a new line in it.

        Examples
        --------
        >>> CausalGraph.read("a -> b") == CausalGraph.read("digraph { a -> b }")
        True
        """
        return cls._of(parse_any(source), unobserved)

    @classmethod
    def _of(cls, parts: Parts, unobserved: Collection[str]) -> Self:
        nodes, edges = parts
        return cls(
            nodes=tuple(nodes),
            directed=tuple((a, b) for a, arrow, b in edges if arrow == "->"),
            bidirected=tuple((a, b) for a, arrow, b in edges if arrow == "<->"),
            unobserved=frozenset(unobserved).union(node for node, hidden in nodes.items() if hidden),
        )

    def __str__(self) -> str:
        """Write arrow text that `parse` reads back."""
        return write_arrows({node: node in self.unobserved for node in self.nodes}, self._edges)

    def to_dot(self) -> str:
        """Write DOT that `from_dot` reads back to an equal graph.

        Examples
        --------
        >>> graph = CausalGraph.parse("a -> b; a <-> b; u [latent]")
        >>> CausalGraph.from_dot(graph.to_dot()) == graph
        True
        """
        return write_dot({node: node in self.unobserved for node in self.nodes}, self._edges)

    def to_svg(
        self,
        treatment: str | None = None,
        outcome: str | None = None,
        *,
        given: str | Collection[str] | None = None,
    ) -> str:
        """Draw the graph, causes left of effects.

        Parameters
        ----------
        treatment, outcome : str, optional
            With both, every box carries the variable's role in words and in a colour of Okabe and Ito's
            palette, and the accessible description lists them.
        given : str or collection of str, optional
            Also draw the paths between the two when this is adjusted for (``()`` for nothing): edges on
            causal paths, on open paths that are not causal, and on blocked ones, with a legend; the
            accessible description lists the open paths.

        Returns
        -------
        str
            One ``<svg>`` element with ``<title>`` and ``<desc>``, without external references.

        Raises
        ------
        GraphError
            If only one of the two is given, or `given` without them.

        Examples
        --------
        >>> CausalGraph.parse("a -> b").to_svg("a", "b").startswith("<svg ")
        True
        """
        if (treatment is None) != (outcome is None):
            raise GraphError("to_svg needs both treatment and outcome, or neither")
        if treatment is None or outcome is None:
            if given is not None:
                raise GraphError("to_svg draws paths between a treatment and an outcome: name both")
            return draw(self.nodes, self._edges, {})
        named = self.roles(treatment, outcome)
        if given is None:
            return draw(self.nodes, self._edges, named)
        found = self.paths(treatment, outcome, given=given)
        return draw(self.nodes, self._edges, named, traces(found), stories(found))

    # ---------------------------------------------------------------------------------------- structure

    def parents(self, node: str) -> tuple[str, ...]:
        """Return the direct causes of a variable, in edge order."""
        self._known([node], "node")
        return tuple(a for a, b in self.directed if b == node)

    def children(self, node: str) -> tuple[str, ...]:
        """Return the direct effects of a variable, in edge order."""
        self._known([node], "node")
        return tuple(b for a, b in self.directed if a == node)

    def ancestors(self, node: str) -> frozenset[str]:
        """Return all causes of a variable, itself left out."""
        self._known([node], "node")
        return frozenset(ancestors(self._adjacency, [node])) - {node}

    def descendants(self, node: str) -> frozenset[str]:
        """Return all effects of a variable, itself left out."""
        self._known([node], "node")
        return frozenset(descendants(self._adjacency, [node])) - {node}

    def d_separated(
        self, x: str | Collection[str], y: str | Collection[str], given: str | Collection[str] = ()
    ) -> bool:
        """Whether every path between ``x`` and ``y`` is blocked by ``given``; the three are disjoint.

        Examples
        --------
        >>> graph = CausalGraph.parse("a -> c <- b; c -> d")
        >>> graph.d_separated("a", "b"), graph.d_separated("a", "b", "d")
        (True, False)
        """
        sets = [_as_set(x), _as_set(y), _as_set(given)]
        for names, what in zip(sets, ("x", "y", "given"), strict=True):
            self._known(names, what)
        overlap = sorted((sets[0] & sets[1]) | (sets[0] & sets[2]) | (sets[1] & sets[2]))
        if overlap:
            raise GraphError(f"d_separated: {overlap[0]!r} is in two of x, y and given")
        return not connected(self._adjacency, sets[0], sets[2]) & sets[1]

    def paths(
        self,
        treatment: str,
        outcome: str,
        *,
        given: str | Collection[str] = (),
        max_paths: int = MAX_PATHS,
    ) -> tuple[Path, ...]:
        """List every path between treatment and outcome, and whether it is open.

        Parameters
        ----------
        given : str or collection of str, optional
            What is adjusted for.
        max_paths : int, default 10000
            More than that is an error.

        Returns
        -------
        tuple of Path
            Causal paths, then backdoor paths, then other non-causal ones; short before long.

        Examples
        --------
        >>> graph = CausalGraph.parse("c -> x -> y; c -> y")
        >>> [(str(p), p.kind, p.open) for p in graph.paths("x", "y", given="c")]
        [('x -> y', 'causal', True), ('x <- c -> y', 'backdoor', False)]
        """
        self._ends(treatment, outcome)
        chosen = _as_set(given)
        self._known(chosen, "given")
        overlap = sorted(chosen & {treatment, outcome})
        if overlap:
            raise GraphError(f"paths: {overlap[0]!r} is an end of the paths and cannot be given")
        return _identify.list_paths(self._adjacency, treatment, outcome, chosen, max_paths)

    def roles(self, treatment: str, outcome: str) -> dict[str, tuple[str, ...]]:
        """Name the roles of every variable in the effect of the treatment on the outcome.

        Returns
        -------
        dict of str to tuple of str
            In node order; the role that decides a variable's use comes first. ``treatment``, ``outcome``;
            ``mediator`` (on a causal path); ``confounder`` (causes the treatment, and the outcome other than
            through it); ``instrument`` (moves the treatment, reaches the outcome only through it); ``on a
            backdoor path`` (linked to both but a cause of one at most); ``precision`` (linked to the outcome
            alone); ``post-treatment``; ``post-outcome``; ``collider`` (two arrowheads meet there on some path
            between treatment and outcome); ``descendant of a collider``; ``unrelated``; ``unobserved``.

        Examples
        --------
        >>> CausalGraph.parse("x -> m -> y").roles("x", "y")["m"]
        ('mediator', 'post-treatment')
        """
        self._ends(treatment, outcome)
        return _identify.roles(self._adjacency, treatment, outcome, self.nodes, self.unobserved)

    # ---------------------------------------------------------------------------------------- identification

    def identify(
        self,
        treatment: str,
        outcome: str,
        *,
        observed: Collection[str] | None = None,
        max_paths: int = MAX_PATHS,
    ) -> Identification:
        """Say whether and how the effect can be had from what is observed.

        Parameters
        ----------
        max_paths : int, default 10000
            Beyond it paths are not listed, which the result says.

        Returns
        -------
        Identification
            Paths of every kind, roles, minimal adjustment sets, front-door sets with their paths,
            instruments.

        Examples
        --------
        >>> found = CausalGraph.parse("x -> m -> y; x <-> y").identify("x", "y")
        >>> found.strategy, [str(p) for p in found.front_door_paths]
        ('front-door', ['x -> m -> y'])
        """
        notes: list[str] = []
        sets = tuple(self.adjustment_sets(treatment, outcome, observed=observed))
        front: tuple[frozenset[str], ...] = ()
        try:
            front = tuple(self.front_door_sets(treatment, outcome, observed=observed))
        except GraphError as error:
            notes.append(f"front-door sets: {error.message}")
        paths: tuple[Path, ...] = ()
        svg = self.to_svg(treatment, outcome)
        try:
            paths = self.paths(treatment, outcome, max_paths=max_paths)
            svg = self.to_svg(treatment, outcome, given=sets[0] if sets else ())
        except GraphError as error:
            notes.append(f"paths: {error.message}")
        found = Identification(
            sentence="",
            treatment=treatment,
            outcome=outcome,
            roles=self.roles(treatment, outcome),
            paths=paths,
            front_door_paths=tuple(path for path in paths if front and path.kind == "causal"),
            adjustment_sets=sets,
            front_door_sets=front,
            instruments=self.instruments(treatment, outcome, observed=observed, conditional=True),
            warnings=tuple(notes),
            svg=svg,
        )
        found = replace(found, strategy=strategy_of(found, moves=outcome in self.descendants(treatment)))
        return replace(found, sentence=told(found))

    def adjustment_sets(
        self,
        treatment: str,
        outcome: str,
        *,
        observed: Collection[str] | None = None,
        max_sets: int = MAX_SETS,
    ) -> list[frozenset[str]]:
        """List all minimal adjustment sets for the total effect.

        A set satisfies the adjustment criterion when it holds no descendant of a variable on a causal path
        (the treatment excepted) and blocks every non-causal path. Minimal sets never hold a descendant of a
        single treatment, so the list is complete. It is generated with polynomial delay, one set after the
        other, and not by trying subsets (van der Zander, Liskiewicz and Textor 2014, proposition 5 and
        section 4); only its length is bounded.

        Parameters
        ----------
        max_sets : int, default 4096
            More minimal sets than that is an error.

        Returns
        -------
        list of frozenset of str
            Small before large, then alphabetical. ``[frozenset()]`` where nothing needs adjusting; ``[]``
            where adjustment does not identify the effect.

        Examples
        --------
        >>> graph = CausalGraph.parse("x -> y; x <- a -> z <- b -> y; z -> x; z -> y")
        >>> [sorted(s) for s in graph.adjustment_sets("x", "y")]
        [['a', 'z'], ['b', 'z']]
        """
        self._ends(treatment, outcome)
        seen = self._observed(observed)
        return _identify.adjustment_sets(self._adjacency, treatment, outcome, seen, max_sets)

    def check_adjustment(
        self, treatment: str, outcome: str, covariates: str | Collection[str]
    ) -> tuple[str, ...]:
        """Refuse covariates that the graph forbids, with the path that forbids them.

        Any descendant of the treatment is refused, also one off the causal paths that the adjustment
        criterion would tolerate (``prompt_tokens`` of a few-shot arm): it is a copy of the arm, never
        needed, and ruins overlap.

        Returns
        -------
        tuple of str
            Cautions about a set that is allowed (an instrument in it); empty when there are none.

        Raises
        ------
        GraphError
            If a covariate is a mediator, post-treatment, caused by the outcome, a collider that opens a
            path, unobserved or not in the graph, or if a non-causal path stays open. The hint names a set
            that works.

        Examples
        --------
        >>> graph = CausalGraph.parse("c -> x -> y; c -> y; x -> m -> y")
        >>> graph.check_adjustment("x", "y", ["c"])
        ()
        """
        self._ends(treatment, outcome)
        chosen = tuple(dict.fromkeys([covariates] if isinstance(covariates, str) else covariates))
        self._known(chosen, "covariates")
        for name in chosen:
            if name in {treatment, outcome}:
                what = "treatment" if name == treatment else "outcome"
                raise GraphError(f"{name!r} is the {what}; it is not a covariate")
            if name in self.unobserved:
                raise GraphError(f"{name!r} is declared unobserved and cannot be adjusted for")
        return _identify.check_adjustment(
            self._adjacency, treatment, outcome, chosen, self._observed(None), HINT_SETS
        )

    def front_door_sets(
        self, treatment: str, outcome: str, *, observed: Collection[str] | None = None
    ) -> list[frozenset[str]]:
        """List all minimal front-door sets (Pearl 2009, definition 3.3.3).

        They intercept every causal path, have no open backdoor path from the treatment, and the treatment
        blocks their backdoor paths to the outcome.

        Raises
        ------
        GraphError
            With more than 14 candidates: subsets are tried one by one.

        Examples
        --------
        >>> CausalGraph.parse("x -> m -> y; x <-> y").front_door_sets("x", "y")
        [frozenset({'m'})]
        """
        self._ends(treatment, outcome)
        return _identify.front_door_sets(self._adjacency, treatment, outcome, self._observed(observed))

    def instruments(
        self,
        treatment: str,
        outcome: str,
        *,
        observed: Collection[str] | None = None,
        conditional: bool = False,
    ) -> dict[str, frozenset[str]]:
        """List instruments: linked to the treatment, and to the outcome only through it.

        Parameters
        ----------
        conditional : bool, default False
            Also look for variables that become instruments once others, not descendants of the treatment, are
            adjusted for. Minimal separating sets are tried, the first 256 for each candidate.

        Returns
        -------
        dict of str to frozenset of str
            What must be adjusted for to make each one an instrument, nothing for an unconditional one; those
            that need the fewest others first.

        References
        ----------
        van der Zander, Textor and Liskiewicz (2015). Efficiently finding conditional instruments for causal
        inference. IJCAI, definition 2.1.

        Examples
        --------
        >>> CausalGraph.parse("z -> x -> y; x <-> y").instruments("x", "y")
        {'z': frozenset()}
        """
        self._ends(treatment, outcome)
        seen = self._observed(observed)
        return _identify.instruments(
            self._adjacency, treatment, outcome, seen, conditional=conditional, limit=HINT_SETS
        )

    def implications(self, *, observed: Collection[str] | None = None) -> tuple[Implication, ...]:
        """List the conditional independencies that data can contradict.

        Returns
        -------
        tuple of Implication
            One for each pair of observed variables without an edge that some observed set separates, given a
            smallest such set (the smallest of the first 256 minimal ones); not tested yet.

        Examples
        --------
        >>> [str(i) for i in CausalGraph.parse("a -> b -> c").implications()]
        ['a _||_ c | b']
        """
        return _identify.implications(self._adjacency, self.nodes, self._observed(observed), HINT_SETS)

    def test_implications(self, frame: IntoDataFrame, *, missing: str = "raise") -> Check:
        """Test the implied independencies among the columns of a table, assuming linear relations.

        Each variable is one column, or one dummy a level less the first for text, categories and booleans.
        Both sides are regressed on the conditioning columns; Wilks' lambda of the residuals is referred to
        F by Rao's approximation, which for two numeric variables is the t test of the partial correlation,
        exactly.

        Parameters
        ----------
        frame : data frame
            Any kind that narwhals reads. Columns not in the graph are not looked at; nodes without a column
            count as unobserved.
        missing : {"raise", "drop"}, default "raise"
            What to do about missing values in the columns of a test.

        Returns
        -------
        Check
            Its parts are an `Implication` each, with p-values adjusted by Holm's method over all tests; it
            fails where one of them is below 5%.

        Raises
        ------
        DataError
            If a column used has missing or infinite values (with ``missing="raise"``) or is constant.
        GraphError
            If no node of the graph is a column.

        References
        ----------
        Rao (1973). Linear Statistical Inference and Its Applications, section 8c.5.
        """
        measured = [node for node in self.nodes if node not in self.unobserved]
        return run_tests(measured, lambda seen: self.implications(observed=seen), frame, missing=missing)

    # ---------------------------------------------------------------------------------------- inside

    @property
    def _edges(self) -> list[tuple[str, str, str]]:
        return [(a, "->", b) for a, b in self.directed] + [(a, "<->", b) for a, b in self.bidirected]

    @cached_property
    def _adjacency(self) -> Adjacency:
        steps: dict[str, list[Step]] = {node: [] for node in self.nodes}
        for a, arrow, b in self._edges:
            steps[a].append(Step(b, head_here=arrow == "<->", head_there=True))
            steps[b].append(Step(a, head_here=True, head_there=arrow == "<->"))
        return {node: tuple(edges) for node, edges in steps.items()}

    def _known(self, names: Iterable[str], what: str) -> None:
        unknown = sorted(set(names) - set(self.nodes))
        if unknown:
            raise GraphError(
                f"{what}: {', '.join(map(repr, unknown))} not in the graph",
                hint=f"its variables are {', '.join(self.nodes)}",
            )

    def _ends(self, treatment: str, outcome: str) -> None:
        self._known([treatment], "treatment")
        self._known([outcome], "outcome")
        if treatment == outcome:
            raise GraphError(f"treatment and outcome are both {treatment!r}")
        for name in (treatment, outcome):
            if name in self.unobserved:
                raise GraphError(f"{name!r} is declared unobserved; its effect cannot be estimated")

    def _observed(self, observed: Collection[str] | None) -> frozenset[str]:
        if observed is None:
            return frozenset(self.nodes) - self.unobserved
        chosen = _as_set(observed)
        self._known(chosen, "observed")
        return frozenset(chosen) - self.unobserved


def _as_set(names: str | Collection[str]) -> set[str]:
    return {names} if isinstance(names, str) else set(names)
