"""Runs along paths of heads: what a head's move makes of the next head's output is all that moves on.

A *path* is (layer, head) pairs from a lower layer to a higher one, A -> B: B is set to what it computes
where A has its value under the other prompt, Y(1, B(1, A(0))). It takes two rows: in one A is patched and
B's output recorded, in the other B alone is patched with that. One row of A serves every B. Several paths may
be set together; where they meet in a head they part there again in every way, so that the head has one value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from whyprompt.mediation.engine.freezing import INSTEAD
from whyprompt.mediation.engine.patching import Job
from whyprompt.mediation.engine.sites import as_sites
from whyprompt.mediation.engine.support import refuse, tolerance

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from whyprompt.mediation.engine.attention import World
    from whyprompt.mediation.engine.engine import ModelRuntime
    from whyprompt.mediation.engine.patching import Reader

    Head = tuple[int, int]
    Path = tuple[Head, ...]
    Route = frozenset[Path]
    """Paths that end in one head: all that moves it."""
    Crossing = tuple[World, World, str]
    """The run that is patched, the one that values come from, and the item."""


def ends(paths: Iterable[Path]) -> dict[Head, Route]:
    """Give the last heads of some paths, each with the paths that end in it.

    >>> sorted(ends([((0, 1), (2, 0)), ((1, 1), (2, 0))]))
    [(2, 0)]
    """
    out: dict[Head, set[Path]] = {}
    for path in paths:
        out.setdefault(path[-1], set()).add(path)
    return {head: frozenset(own) for head, own in out.items()}


def run_routes(
    runtime: ModelRuntime,
    rows: Sequence[Sequence[Path]],
    crossings: Sequence[Crossing],
    *,
    frozen: bool,
) -> list[torch.Tensor]:
    """Run every set of paths of `rows` in every crossing; what comes back is that of `patched_many`.

    With `frozen`, a head is moved by the heads before it on its paths through the residual stream alone: from
    the first of them on, every other head's output and whatever else the layers add keeps its clean value.
    """
    wanted = [ends(row) for row in rows]
    if frozen and runtime.gated and any(_layers(r) > 1 for state in wanted for r in state.values()):
        raise refuse(
            runtime.model_type,
            "a gate or norm between z and the output projection is moved by a head below, so that a head "
            "cannot be held fast while another of its layer is set",
            hint=f"ask for paths one at a time, or {INSTEAD}",
        )
    values: list[dict[Route, torch.Tensor]] = [{} for _ in crossings]
    for routes in _by_depth(route for state in wanted for route in state.values()):
        states = dict.fromkeys(frozenset(_before(route).items()) for route in routes)
        reads = [[r for r in routes if frozenset(_before(r).items()) == state] for state in states]
        if states.keys() == {frozenset()}:
            for (_, source, _), known in zip(crossings, values, strict=True):
                for route in routes:
                    ((layer, head),) = next(iter(route))
                    known[route] = source.layers[layer].z[:, head]
            continue
        runtime.read_many(
            [
                _job(base, list(map(dict, states)), known, item, read=_reader(reads, known), frozen=frozen)
                for (base, _, item), known in zip(crossings, values, strict=True)
            ],
            until=max(_end(route)[0] for route in routes),
        )
    return runtime.patched_many(
        [_job(base, wanted, known, item) for (base, _, item), known in zip(crossings, values, strict=True)]
    )


def check_freezing(runtime: ModelRuntime, base: World, item: str) -> None:
    """Refuse a model in which a frozen row does not hand on what is patched in it.

    Where a layer adds and normalises inside one of its parts, holding that part holds the stream too.
    What layers hand on beside keys and values is not followed there. All heads of a layer in the middle are
    set to zero, which is to be seen in what it gives.
    """
    if runtime.whole_rows:
        raise refuse(
            runtime.model_type,
            "it has layers that hand on more than keys and values, whose share of the direct path was not "
            "tried against whole runs",
            hint=INSTEAD,
        )
    attending = [*runtime.attending]
    at = attending[(len(attending) - 1) // 2]
    heads = [(at, head) for head in range(runtime.n_heads)]
    nothing = {head: torch.zeros_like(base.layers[at].z[:, head[1]]) for head in heads}
    moved: list[float] = []

    def see(_: torch.nn.Module, __: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401  # or a tuple with it
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        moved.append(float((hidden[1] - hidden[0]).abs().max()) / max(1.0, float(hidden[0].abs().max())))

    handle = runtime.layers[at].register_forward_hook(see)
    try:
        runtime.patched_many([Job(base, [as_sites(heads)], [nothing], item, frozen=True)])
    finally:
        handle.remove()
    if moved[0] <= tolerance(torch.finfo(base.hidden.dtype).eps):
        raise refuse(
            runtime.model_type,
            "its layers add to the residual stream inside the parts that are to be held",
            hint=INSTEAD,
        )


def _before(route: Route) -> dict[Head, Route]:
    """Give the heads before the end of a route, each with the route to it; none where it begins."""
    return ends(path[:-1] for path in route if len(path) > 1)


def _end(route: Route) -> Head:
    return next(iter(route))[-1]


def _layers(route: Route) -> int:
    """Count the layers whose heads are set at once somewhere on a route."""
    before = _before(route)
    return max([len({layer for layer, _ in before}), *map(_layers, before.values())])


def _by_depth(routes: Iterable[Route]) -> Iterator[list[Route]]:
    """All routes that some routes need, themselves too, those that begin first."""
    every: dict[Route, int] = {}

    def add(route: Route) -> int:
        if route not in every:
            every[route] = 1 + max(map(add, _before(route).values()), default=0)
        return every[route]

    for route in routes:
        add(route)
    for depth in range(1, max(every.values(), default=0) + 1):
        yield [route for route, own in every.items() if own == depth]


def _job(
    base: World,
    states: Sequence[dict[Head, Route]],
    known: dict[Route, torch.Tensor],
    item: str,
    *,
    read: Reader | None = None,
    frozen: bool = False,
) -> Job:
    """One row a state: every head of it is set to the value that its route gives it."""
    given = [{head: known[route] for head, route in state.items()} for state in states]
    return Job(base, [as_sites(state) for state in states], given, item, read=read, frozen=frozen)


def _reader(reads: Sequence[Sequence[Route]], known: dict[Route, torch.Tensor]) -> Reader:
    """Keep the outputs of the heads in which each row's routes end."""

    def read(layer: int, rows: Sequence[int], z: torch.Tensor) -> None:
        for at, row in enumerate(rows):
            for route in reads[row]:
                if _end(route)[0] == layer:
                    known[route] = z[at, :, _end(route)[1]].clone()

    return read
