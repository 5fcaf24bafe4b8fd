"""Where work is done: by this process, or by the workers of a block."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from whyprompt._workers.crew import Crew
from whyprompt._workers.seat import heard_by
from whyprompt.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from whyprompt._workers.crew import Backend
    from whyprompt._workers.seat import Work

# Ten for each of 64 workers: they wait for the last one for a tenth of their time at most.
_PARTS = 640

_crew: ContextVar[Crew | None] = ContextVar("whyprompt_crew", default=None)


@contextmanager
def workers(
    on: str = "processes", *, count: int | None = None, cpus_per_worker: int = 1, gpus_per_worker: int = 0
) -> Iterator[None]:
    """Have studies, mediations, audits and bootstraps inside the block computed by several workers.

    A run's trials, a mediation's pairs of prompts, the draws of an audit and of a bootstrap are computed in
    units that depend on the question alone: every figure is what a single process gives, to the last digit,
    whatever the number of workers, as long as their processors are of one kind. A worker that is lost costs
    the units it had in hand, which are done again.

    Parameters
    ----------
    on : str, default "processes"
        ``"processes"`` of this machine, ``"ray"`` for the Ray cluster that runs here, or one of this machine
        begun for the block, or ``"ray://HOST:PORT"`` for Ray's client at that address.
    count : int, optional
        How many workers. Default: as many as the processors, or the GPUs, allow.
    cpus_per_worker : int, default 1
        Threads of each.
    gpus_per_worker : int, default 0
        GPUs of each; with 0 a worker sees none.

    Raises
    ------
    InputError
        If there can be no such workers, Ray is not installed, or no cluster can be reached.

    Examples
    --------
    >>> with workers("processes", count=2):  # doctest: +SKIP
    ...     run_study(load_study("study.yaml"), "runs/study")
    """
    if _crew.get() is not None:
        raise InputError("workers were asked for inside a block that has some", hint="one block is enough")
    crew = Crew(_backend(on, count, cpus_per_worker, gpus_per_worker))
    token = _crew.set(crew)
    try:
        yield
    finally:
        _crew.reset(token)
        crew.end()


def _backend(on: str, count: int | None, cpus: int, gpus: int) -> Backend:
    if count is not None and count < 1:
        raise InputError(f"{count} workers do no work", hint="one or more, or auto")
    if cpus < 1 or gpus < 0:
        raise InputError("a worker has at least one CPU, and no fewer than 0 GPUs")
    if on == "processes":
        from whyprompt._workers.processes import Processes

        return Processes(count, cpus, gpus)
    if on == "ray" or on.startswith("ray://"):
        from whyprompt._workers.ray import Cluster

        return Cluster(None if on == "ray" else on, count, cpus, gpus)
    raise InputError(f"work cannot be done on {on!r}", hint="processes, ray, or ray://HOST:PORT")


def crew_size() -> int:
    """Give how many workers the block has; 0 outside of one."""
    crew = _crew.get()
    return 0 if crew is None else crew.backend.count


def part_sizes(count: int) -> list[int]:
    """Cut so many draws into parts of about one size, the same for any number of workers.

    Examples
    --------
    >>> part_sizes(5)
    [1, 1, 1, 1, 1]
    >>> len(part_sizes(20_000)), max(part_sizes(20_000))
    (640, 32)
    """
    parts = min(count, _PARTS)
    return [count // parts + (k < count % parts) for k in range(parts)]


def map_units(
    work: Work,
    units: Sequence[Any],
    *,
    cost: Sequence[float] | None = None,
    alike: Sequence[Hashable] | None = None,
    heard: Callable[[Any], None] = lambda _: None,
) -> Iterator[tuple[int, Any]]:
    """Do every unit of a work: here in their order, or by the workers of the block around.

    Parameters
    ----------
    work : Work
        Pickled where there are workers.
    units : sequence
    cost : sequence of float, optional
        How long each takes, in any measure: long kinds are begun first.
    alike : sequence of hashable, optional
        Units of one kind stay with one worker while there are others.
    heard : callable, optional
        Called here with whatever a unit hands on (:func:`whyprompt._workers.seat.hand_on`) before it is done.
        What it adds to a unit is part of it where that has to be done again.

    Yields
    ------
    (int, object)
        A unit's number and what it gave, as they are done.
    """
    if not units:
        return
    crew = _crew.get()
    if crew is None:
        with work.opened() as do, heard_by(heard):
            for n, unit in enumerate(units):
                yield n, do(unit)
        return
    yield from crew.map(
        work,
        units,
        [1.0] * len(units) if cost is None else cost,
        [None] * len(units) if alike is None else alike,
        heard,
    )
