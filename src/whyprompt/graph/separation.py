"""Walks, paths and separation in a graph of directed and bidirected edges.

An edge is seen from a node as ``(neighbour, head_here, head_there)``: whether it has an arrowhead at this end
and at the other. That is all d-separation needs, and it treats ``a <-> b`` (an unobserved common cause) like
any other edge.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple


class Step(NamedTuple):
    """One edge, seen from the node it leaves."""

    to: str
    head_here: bool
    head_there: bool


Adjacency = Mapping[str, tuple[Step, ...]]


def _closure(start: Collection[str], neighbours: Mapping[str, Collection[str]]) -> set[str]:
    seen, stack = set(start), list(start)
    while stack:
        for node in neighbours[stack.pop()]:
            if node not in seen:
                seen.add(node)
                stack.append(node)
    return seen


def descendants(adjacency: Adjacency, start: Collection[str]) -> set[str]:
    """Return the nodes reached by directed paths, the start among them."""
    children = {v: [s.to for s in steps if not s.head_here] for v, steps in adjacency.items()}
    return _closure(start, children)


def ancestors(adjacency: Adjacency, start: Collection[str]) -> set[str]:
    """Return the nodes with a directed path into the start, the start among them."""
    parents = {v: [s.to for s in steps if s.head_here and not s.head_there] for v, steps in adjacency.items()}
    return _closure(start, parents)


def connected(adjacency: Adjacency, start: Collection[str], given: Collection[str]) -> set[str]:
    """Return every node d-connected to the start given ``given`` (the start among them).

    Reachability over (node, arrived by an arrowhead) states: a collider lets pass when it is an ancestor of
    ``given`` or in it, any other node when it is not in ``given``. Linear in the number of edges.
    """
    opened, blocked = ancestors(adjacency, given), set(given)
    seen: set[tuple[str, bool]] = set()
    stack: list[tuple[str, bool]] = []
    for node in start:
        stack.extend((step.to, step.head_there) for step in adjacency[node])
    while stack:
        state = stack.pop()
        if state in seen:
            continue
        seen.add(state)
        node, by_head = state
        for step in adjacency[node]:
            passes = node in opened if by_head and step.head_here else node not in blocked
            if passes and (step.to, step.head_there) not in seen:
                stack.append((step.to, step.head_there))
    return {node for node, _ in seen if node not in blocked} | set(start)


def simple_paths(
    adjacency: Adjacency, x: str, y: str, *, given: Collection[str] | None = None
) -> Iterator[list[Step]]:
    """Yield every simple path from ``x`` to ``y``, depth first; with ``given``, the open ones alone."""
    opened = ancestors(adjacency, given) if given is not None else set()
    blocked = set(given or ())
    trail: list[Step] = []
    visited = {x}
    frames: list[Iterator[Step]] = [iter(adjacency[x])]
    while frames:
        step = next(frames[-1], None)
        if step is None:
            frames.pop()
            if trail:
                visited.discard(trail.pop().to)
            continue
        if step.to in visited:
            continue
        if given is not None and trail:
            middle = trail[-1]
            collider = middle.head_there and step.head_here
            if (middle.to not in opened) if collider else (middle.to in blocked):
                continue
        if step.to == y:
            yield [*trail, step]
            continue
        trail.append(step)
        visited.add(step.to)
        frames.append(iter(adjacency[step.to]))


def _moral(adjacency: Adjacency, keep: set[str]) -> dict[str, set[str]]:
    """Moralise the graph on an ancestral set: join nodes linked by a path of colliders."""
    links: dict[str, set[str]] = {v: set() for v in keep}
    done: set[str] = set()
    siblings = {
        v: [s.to for s in adjacency[v] if s.head_here and s.head_there and s.to in keep] for v in keep
    }
    for node in keep:
        if node in done:
            continue
        district = _closure([node], siblings)
        done |= district
        # Collider paths run inside a district and may end at its members' parents: all of these marry.
        steps = [s for member in district for s in adjacency[member]]
        clique = district | {s.to for s in steps if s.head_here and not s.head_there and s.to in keep}
        for member in clique:
            links[member] |= clique - {member}
    return links


def minimal_separators(
    adjacency: Adjacency, x: str, y: str, *, allowed: Collection[str]
) -> Iterator[frozenset[str]]:
    """Yield every minimal set within ``allowed`` that d-separates ``x`` and ``y``, with polynomial delay.

    Every minimal d-separator lies among the ancestors of ``x`` and ``y`` (van der Zander, Liskiewicz and
    Textor 2014, section 4, as in `CausalGraph`), so these are the minimal vertex separators of one undirected
    graph: the moral graph of those ancestors, with the nodes that may not be used eliminated. Separators are
    generated from the one closest to ``x`` by pushing one of its members onto ``x``'s side at a time (Kloks
    and Kratsch 1998, Listing all minimal separators of a graph, SIAM J. Computing 27(3)); each is reached.
    """
    keep = ancestors(adjacency, [x, y])
    links = _moral(adjacency, keep)
    for node in sorted(keep - set(allowed) - {x, y}):
        around = links.pop(node)
        for other in around:
            links[other] |= around - {other}
            links[other].discard(node)
    if y in links[x]:
        return

    def component(start: str, removed: set[str] | frozenset[str]) -> set[str]:
        return _closure([start], {v: links[v] - removed for v in links})

    def border(side: set[str]) -> set[str]:
        return set().union(*(links[v] for v in side)) - side

    def closest(side: set[str]) -> frozenset[str] | None:
        around = border(side)
        if y in around:
            return None
        return frozenset(border(component(y, around | side)))

    first = closest({x})
    found: set[frozenset[str]] = set()
    queue = [first] if first is not None else []
    while queue:
        separator = queue.pop()
        if separator in found:
            continue
        found.add(separator)
        yield separator
        side = component(x, separator)
        for node in sorted(separator):
            following = closest(side | {node})
            if following is not None and following not in found:
                queue.append(following)
