"""Identification: adjustment sets, front doors, instruments, roles, testable implications."""

from __future__ import annotations

from itertools import combinations, islice, pairwise
from typing import TYPE_CHECKING, TypeVar

from whyprompt.errors import GraphError
from whyprompt.graph.separation import (
    Adjacency,
    Step,
    ancestors,
    connected,
    descendants,
    minimal_separators,
    simple_paths,
)
from whyprompt.graph.types import Implication, Path, PathKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

T = TypeVar("T")

# Subsets are tried one by one for front doors only: 2**14 separations take a second or two.
FRONT_DOOR_CANDIDATES = 14


def _by_size(sets: Iterable[frozenset[str]]) -> list[frozenset[str]]:
    return sorted(sets, key=lambda s: (len(s), sorted(s)))


def _capped(items: Iterable[T], limit: int, message: str, hint: str) -> list[T]:
    taken = list(islice(items, limit + 1))
    if len(taken) > limit:
        raise GraphError(message, hint=hint)
    return taken


def _cut(adjacency: Adjacency, drop: Callable[[str, Step], bool]) -> Adjacency:
    """Remove directed edges ``tail -> step.to`` for which ``drop(tail, step)`` holds."""

    def keeps(node: str, step: Step) -> bool:
        if step.head_here and step.head_there:
            return True
        if step.head_there:
            return not drop(node, step)
        return not drop(step.to, Step(node, head_here=False, head_there=True))

    return {node: tuple(s for s in steps if keeps(node, s)) for node, steps in adjacency.items()}


def causal_nodes(adjacency: Adjacency, x: str, y: str) -> set[str]:
    """Return the nodes on a directed path from ``x`` to ``y``, ``x`` left out and ``y`` included."""
    without_x = _cut(adjacency, lambda tail, _: tail == x)
    return (descendants(adjacency, [x]) & ancestors(without_x, [y])) - {x}


def without_causal_start(adjacency: Adjacency, x: str, y: str) -> Adjacency:
    """Remove the first edge of every causal path: what still links ``x`` and ``y`` is not causal."""
    on_path = causal_nodes(adjacency, x, y)
    return _cut(adjacency, lambda tail, step: tail == x and step.to in on_path)


def _as_path(adjacency: Adjacency, x: str, steps: list[Step], given: Collection[str]) -> Path:
    nodes = (x, *(s.to for s in steps))
    arrows = tuple("<->" if s.head_here and s.head_there else "->" if s.head_there else "<-" for s in steps)
    kind: PathKind = "backdoor" if steps[0].head_here else "non-causal"
    if set(arrows) == {"->"}:
        kind = "causal"
    colliders = tuple(a.to for a, b in pairwise(steps) if a.head_there and b.head_here)
    opened = ancestors(adjacency, given)
    blocked_by = tuple(
        node for node in nodes[1:-1] if (node not in opened if node in colliders else node in given)
    )
    return Path(
        nodes=nodes,
        arrows=arrows,
        kind=kind,
        open=not blocked_by,
        colliders=colliders,
        blocked_by=blocked_by,
    )


def list_paths(adjacency: Adjacency, x: str, y: str, given: Collection[str], limit: int) -> tuple[Path, ...]:
    """List every simple path, causal ones first, then shorter before longer."""
    found = _capped(
        simple_paths(adjacency, x, y),
        limit,
        f"more than {limit} paths join {x!r} and {y!r}",
        "raise max_paths, or ask for adjustment_sets(), which does not list paths",
    )
    rank = {"causal": 0, "backdoor": 1, "non-causal": 2}
    paths = [_as_path(adjacency, x, steps, given) for steps in found]
    return tuple(sorted(paths, key=lambda p: (rank[p.kind], len(p.nodes), p.nodes, p.arrows)))


def _adjusting(adjacency: Adjacency, x: str, y: str, observed: Collection[str]) -> Iterator[frozenset[str]]:
    """Yield every minimal set that satisfies the adjustment criterion."""
    allowed = set(observed) - descendants(adjacency, [x]) - {x, y}
    return minimal_separators(without_causal_start(adjacency, x, y), x, y, allowed=allowed)


def adjustment_sets(
    adjacency: Adjacency, x: str, y: str, observed: Collection[str], limit: int
) -> list[frozenset[str]]:
    """List all minimal sets that satisfy the adjustment criterion."""
    return _by_size(
        _capped(
            _adjusting(adjacency, x, y, observed),
            limit,
            f"more than {limit} minimal adjustment sets for the effect of {x!r} on {y!r}",
            "raise max_sets, or narrow `observed` to the columns that you have",
        )
    )


def _directed_path(adjacency: Adjacency, start: str, end: str) -> str:
    """Write out a shortest directed path."""
    queue, before = [start], {start: ""}
    for node in queue:
        if node == end:
            break
        for step in adjacency[node]:
            if not step.head_here and step.to not in before:
                before[step.to] = node
                queue.append(step.to)
    trail = [end]
    while trail[-1] != start:
        trail.append(before[trail[-1]])
    return " -> ".join(reversed(trail))


def _why_forbidden(adjacency: Adjacency, x: str, y: str, name: str, after_x: set[str]) -> str | None:
    after_y = descendants(adjacency, [y])
    if name in causal_nodes(adjacency, x, y):
        path = _directed_path(adjacency, x, name) + _directed_path(adjacency, name, y).removeprefix(name)
        return f"{name!r} is a mediator: it lies on {path}, so adjusting for it removes part of the effect"
    if name in after_x & after_y and any(step.to == name for step in adjacency[x]):
        path = f"{x} -> {name} <- {y}"
        return f"{name!r} is a collider of treatment and outcome: adjusting for it opens {path}"
    if name in after_y:
        path = _directed_path(adjacency, y, name)
        return f"{name!r} is caused by the outcome ({path}): adjusting for it selects on the outcome"
    if name in after_x:
        path = _directed_path(adjacency, x, name)
        return f"{name!r} is post-treatment: it is caused by the treatment, {path}"
    return None


def check_adjustment(
    adjacency: Adjacency, x: str, y: str, covariates: tuple[str, ...], observed: Collection[str], limit: int
) -> tuple[str, ...]:
    """Refuse an adjustment set by the path that forbids it; return cautions about one that is allowed."""
    after_x = descendants(adjacency, [x])
    reasons = [_why_forbidden(adjacency, x, y, name, after_x) for name in covariates]
    complaints = [why for why in reasons if why is not None]
    if complaints:
        hint = f"leave it out; {_what_works(adjacency, x, y, observed, limit)}"
        raise GraphError("; ".join(complaints), hint=hint)
    cut = without_causal_start(adjacency, x, y)
    if y in connected(cut, [x], covariates):
        steps = min(
            islice(simple_paths(cut, x, y, given=covariates), limit),
            key=lambda p: (len(p), [s.to for s in p]),
        )
        path = _as_path(cut, x, steps, covariates)
        if path.colliders:
            openers = [
                name
                for name in covariates
                if any(name in descendants(adjacency, [collider]) for collider in path.colliders)
            ]
            what = "a collider" if set(openers) & set(path.colliders) else "the descendant of a collider"
            names = " and ".join(repr(name) for name in openers)
            message = f"{names}: adjusting for {what} opens the path {path}"
        else:
            given = f"{{{', '.join(covariates)}}}" if covariates else "nothing"
            message = f"adjusting for {given} leaves the {path.kind} path {path} open"
        raise GraphError(message, hint=_what_works(adjacency, x, y, observed, limit))
    return tuple(
        f"{name!r} is an instrument: it moves the treatment alone, so adjusting for it costs precision "
        "and amplifies any bias that is left"
        for name in instruments(adjacency, x, y, observed, conditional=False, limit=limit)
        if name in covariates
    )


def _what_works(adjacency: Adjacency, x: str, y: str, observed: Collection[str], limit: int) -> str:
    # The hint names the smallest of the first few: a hint must not fail because there are many.
    smallest = _by_size(islice(_adjusting(adjacency, x, y, observed), limit))
    if smallest:
        return "a valid adjustment set is {" + ", ".join(sorted(smallest[0])) + "}"
    return (
        "no set of observed columns identifies the effect by adjustment; run both arms on the same items, "
        "randomise the arm, or measure the unobserved common cause"
    )


def front_door_sets(adjacency: Adjacency, x: str, y: str, observed: Collection[str]) -> list[frozenset[str]]:
    """List all minimal front-door sets by trying subsets of the candidates, smallest first."""
    if y not in descendants(adjacency, [x]):
        return []
    # X must have no open backdoor path to the set; d-separation from a set is that from each member.
    no_out_x = _cut(adjacency, lambda tail, _: tail == x)
    reached = connected(no_out_x, [x], ())
    candidates = sorted(set(observed) - {x, y} - reached - descendants(adjacency, [y]))
    if len(candidates) > FRONT_DOOR_CANDIDATES:
        raise GraphError(
            f"{len(candidates)} candidates for a front-door set; all subsets of at most "
            f"{FRONT_DOOR_CANDIDATES} are tried",
            hint="narrow `observed` to the columns that you have",
        )
    found: list[frozenset[str]] = []
    for size in range(1, len(candidates) + 1):
        for subset in combinations(candidates, size):
            chosen = frozenset(subset)
            if any(known <= chosen for known in found):
                continue
            intercepted = _cut(adjacency, lambda tail, step: tail in chosen or step.to in chosen)  # noqa: B023 - called at once
            if y in descendants(intercepted, [x]):
                continue
            no_out_set = _cut(adjacency, lambda tail, _: tail in chosen)  # noqa: B023 - called at once
            if y not in connected(no_out_set, chosen, [x]):
                found.append(chosen)
    return _by_size(found)


def instruments(
    adjacency: Adjacency, x: str, y: str, observed: Collection[str], *, conditional: bool, limit: int
) -> dict[str, frozenset[str]]:
    """List instruments, unconditional first; with ``conditional``, each with its smallest working set."""
    after = descendants(adjacency, [x]) | descendants(adjacency, [y])
    cut = without_causal_start(adjacency, x, y)
    if y not in descendants(adjacency, [x]):
        return {}
    found: dict[str, frozenset[str]] = {}
    candidates = sorted(set(observed) - after)
    for name in candidates:
        if y not in connected(cut, [name], ()):
            if x in connected(adjacency, [name], ()):
                found[name] = frozenset()
        elif conditional:
            allowed = set(candidates) - {name}
            for given in _by_size(islice(minimal_separators(cut, name, y, allowed=allowed), limit)):
                if x in connected(adjacency, [name], given):
                    found[name] = given
                    break
    return dict(sorted(found.items(), key=lambda entry: (len(entry[1]), entry[0])))


def implications(
    adjacency: Adjacency, nodes: tuple[str, ...], observed: Collection[str], limit: int
) -> tuple[Implication, ...]:
    """List one implied independence for each pair of observed nodes that some observed set separates."""
    found = []
    for x, y in combinations([node for node in nodes if node in observed], 2):
        if any(step.to == y for step in adjacency[x]):
            continue
        sets = minimal_separators(adjacency, x, y, allowed=set(observed) - {x, y})
        smallest = _by_size(islice(sets, limit))
        if smallest:
            given = smallest[0]
            label = f"{x} _||_ {y}" + (f" | {', '.join(sorted(given))}" if given else "")
            found.append(Implication(label=label, estimate=None, x=x, y=y, given=given))
    return tuple(found)


def _can_collide(adjacency: Adjacency, x: str, y: str, node: str) -> bool:
    """Whether two arrowheads meet at ``node`` on some simple path from ``x`` to ``y``.

    That asks for two node-disjoint trails from ``node`` to ``x`` and to ``y``, both leaving through edges
    with an arrowhead at ``node``: two units of flow, each node used once.
    """
    import numpy as np
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    # Each node is split in two, way in and way out, so that it carries one unit; x and y lead to the sink.
    way_in = {v: 2 * k for k, v in enumerate(adjacency)}
    source, sink = 2 * len(way_in), 2 * len(way_in) + 1
    arcs = {(source, way_in[step.to]) for step in adjacency[node] if step.head_here}
    for v in adjacency.keys() - {node}:
        ends = [sink] if v in {x, y} else [way_in[s.to] for s in adjacency[v] if s.to != node]
        arcs |= {(way_in[v], way_in[v] + 1), *((way_in[v] + 1, end) for end in ends)}
    # 32 bits: older scipy refuses others.
    tails, heads = np.array(sorted(arcs), dtype=np.int32).T
    room = csr_array((np.ones(len(arcs), dtype=np.int32), (tails, heads)), shape=(sink + 1, sink + 1))
    return bool(maximum_flow(room, source, sink).flow_value >= 2)


def roles(
    adjacency: Adjacency, x: str, y: str, nodes: tuple[str, ...], unobserved: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Name every role of every node, the one that decides its use first."""
    after_x, after_y = descendants(adjacency, [x]), descendants(adjacency, [y])
    mediators = causal_nodes(adjacency, x, y) - {y}
    without_x = _cut(adjacency, lambda tail, _: tail == x)
    common = (ancestors(adjacency, [x]) & ancestors(without_x, [y])) - {x, y}
    cut = without_causal_start(adjacency, x, y)
    near_x, near_y = connected(cut, [x], ()), connected(cut, [y], ())
    # A path open without adjustment has no collider: all on it cause one end and are tied to the other.
    on_open = (ancestors(cut, [x]) & near_y) | (ancestors(cut, [y]) & near_x)
    colliders = {v for v in nodes if v not in {x, y} and _can_collide(adjacency, x, y, v)}
    past_ends = _cut(adjacency, lambda tail, _: tail in {x, y})
    below = set().union(*(descendants(past_ends, [c]) - {c} for c in colliders)) - {x, y}
    all_instruments = instruments(adjacency, x, y, nodes, conditional=False, limit=1)
    answer: dict[str, tuple[str, ...]] = {}
    for v in nodes:
        if v in (x, y):
            answer[v] = ("treatment" if v == x else "outcome",)
            continue
        named = [
            ("mediator", v in mediators),
            ("confounder", v in common),
            ("instrument", v in all_instruments),
            ("on a backdoor path", v not in common | after_x and v in on_open),
            ("precision", v not in after_x | after_y and v in near_y and v not in near_x),
            ("post-outcome", v in after_y),
            ("post-treatment", v in after_x),
            ("collider", v in colliders),
            ("descendant of a collider", v in below),
        ]
        held = [role for role, holds in named if holds] or ["unrelated"]
        if v in unobserved:
            held.append("unobserved")
        answer[v] = tuple(held)
    return answer
