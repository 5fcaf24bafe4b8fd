"""Workers of one kind, and the loop that gives them units: any number, none of which is needed.

A worker that is lost costs the units that it had in hand: they are done again by another, without what it had
handed on of them. What a unit gives
depends on the unit alone, so it is the same whoever does it, and when.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any, Protocol

from whyprompt._words import counted, first_line
from whyprompt._workers.queue import Queue
from whyprompt._workers.seat import versions
from whyprompt.errors import InputError, WhypromptError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from whyprompt._workers.seat import Answer, Work

# The second waits in the worker while the first is done, so that none waits for the driver.
_IN_HAND = 2
_ATTEMPTS = 3
_PATIENCE_S = 300
# What a lost worker had handed on is there at once, or, where its machine is gone, never.
_LAST_WORDS_S = 5


class Worker(Protocol):
    """One worker: what it is asked to do comes back as a future of an `Answer`."""

    def open(self, digest: str, sent: Any, wanted: dict[str, str]) -> Future[Answer]:  # noqa: ANN401 - of `Backend.send`
        """Open a work in place of the one before."""
        ...

    def do(self, digest: str, unit: bytes) -> Future[Answer]:
        """Do one unit."""
        ...

    def hear(self) -> Future[tuple[str, list[Any]]]:
        """Give what its units hand on next, and of which work; an error once it has ended."""
        ...

    def end(self) -> None:
        """End it, whatever it does."""
        ...


class Backend(Protocol):
    """Where workers are."""

    @property
    def count(self) -> int:
        """How many there are to be."""
        ...

    @property
    def lost(self) -> tuple[type[BaseException], ...]:
        """What the future of a worker raises that is no more."""
        ...

    @property
    def needs(self) -> str:
        """What one worker takes, in words."""
        ...

    def send(self, blob: bytes) -> Any:  # noqa: ANN401 - what its workers open
        """Put a work where every worker finds it."""
        ...

    def hire(self, place: int) -> Worker:
        """Start a worker; one of the same place was lost, or there was none."""
        ...

    def end(self) -> None:
        """End what was begun."""
        ...


class Crew:
    """Workers that are started when they are first needed, and kept."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.workers: dict[int, Worker] = {}
        self.ears: dict[int, Future[tuple[str, list[Any]]]] = {}
        self._owners: dict[str, dict[Hashable, int]] = {}
        self._sent: dict[str, Any] = {}

    def map(
        self,
        work: Work,
        units: Sequence[Any],
        cost: Sequence[float],
        alike: Sequence[Hashable],
        heard: Callable[[Any], None] = lambda _: None,
    ) -> Iterator[tuple[int, Any]]:
        """Do all units, and give each one's number and what it gave, as they are done."""
        try:
            blob = pickle.dumps(work, protocol=pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise InputError(
                f"this cannot be sent to workers: {first_line(error)}",
                hint="define functions and classes of your own in a module, not in a session or a function",
            ) from None
        digest = hashlib.sha256(blob).hexdigest()[:16]
        if digest not in self._sent:
            self._sent = {digest: self.backend.send(blob)}
        queue = Queue(cost, alike, self._owners.setdefault(digest, {}))
        yield from _Mapping(self, digest, self._sent[digest], units, queue, heard).done()

    def end(self) -> None:
        """End all workers."""
        for worker in self.workers.values():
            worker.end()
        self.workers.clear()
        self.ears.clear()
        self.backend.end()


class _Mapping:
    """One work that a crew does."""

    def __init__(
        self,
        crew: Crew,
        digest: str,
        sent: Any,  # noqa: ANN401 - of `Backend.send`
        units: Sequence[Any],
        queue: Queue,
        heard: Callable[[Any], None],
    ) -> None:
        self.crew, self.digest, self.sent, self.units, self.queue = crew, digest, sent, units, queue
        self.heard = heard
        # What each future is of: a worker's place, and the unit; none while the worker opens the work.
        self.flight: dict[Future[Answer], tuple[int, int | None]] = {}
        self.losses: Counter[tuple[str, int]] = Counter()
        self.ready = False

    def done(self) -> Iterator[tuple[int, Any]]:
        """Give units to workers until all are done."""
        # A crew may have more workers, of a larger work: those have not opened this one.
        places = range(min(self.crew.backend.count, len(self.units)))
        for place in places:
            self._start(place)
        left = len(self.units)
        while left:
            found = self._next()
            for place in [place for place, ear in self.crew.ears.items() if ear.done()]:
                self._listen(place, self.crew.workers[place])
            for future in found:
                # It was an ear. Or its worker may have been given up over another of its units just now.
                if future not in self.flight:
                    continue
                place, n = self.flight.pop(future)
                try:
                    answer = future.result()
                except self.crew.backend.lost as error:
                    self._lost(place, n, error)
                    continue
                for text in answer.warned:
                    warnings.warn(text, stacklevel=2)
                if answer.error is not None:
                    raise answer.error
                self.ready = True
                self.losses.pop(("worker", place), None)
                self._feed(place)
                if n is not None:
                    left -= 1
                    yield n, answer.value
            # A unit that came back may be all that is left, and its worker gone: any that is free takes it.
            for place in set(places) - {place for place, _ in self.flight.values()}:
                self._feed(place)

    def _next(self) -> set[Future[Answer]]:
        """Wait for the next futures; it is said once where no worker gets ready."""
        if not self.ready:
            done = wait(self._awaited(), timeout=_PATIENCE_S, return_when=FIRST_COMPLETED).done
            if done:
                return done
            needs = self.crew.backend.needs
            warnings.warn(f"no worker is ready after {_PATIENCE_S} s: each takes {needs}", stacklevel=2)
        return wait(self._awaited(), return_when=FIRST_COMPLETED).done

    def _awaited(self) -> list[Future[Any]]:
        return [*self.flight, *self.crew.ears.values()]

    def _listen(self, place: int, worker: Worker) -> None:
        """Hear what a worker has handed on, and listen to it further unless it has ended."""
        try:
            digest, values = self.crew.ears.pop(place).result()
        except Exception:  # noqa: BLE001 - of whatever kind: it has ended, which its units tell
            return
        for value in values if digest == self.digest else ():
            self.heard(value)
        self.crew.ears[place] = worker.hear()

    def _start(self, place: int) -> None:
        workers = self.crew.workers
        if place not in workers:
            workers[place] = self.crew.backend.hire(place)
        self.flight[workers[place].open(self.digest, self.sent, versions())] = (place, None)
        if place not in self.crew.ears:
            self.crew.ears[place] = workers[place].hear()

    def _feed(self, place: int) -> None:
        # Towards the end none is kept waiting in a worker that another could do at once.
        most = _IN_HAND if len(self.queue) > len(self.crew.workers) else 1
        while sum(at == place for at, _ in self.flight.values()) < most:
            n = self.queue.take(place)
            if n is None:
                return
            future = self.crew.workers[place].do(self.digest, pickle.dumps(self.units[n]))
            self.flight[future] = (place, n)

    def _lost(self, place: int, n: int | None, error: BaseException) -> None:
        """Take back what a worker had that is no more, and start another in its place."""
        worker = self.crew.workers.pop(place)
        worker.end()
        while place in self.crew.ears:
            if not wait([self.crew.ears[place]], timeout=_LAST_WORDS_S).done:
                del self.crew.ears[place]
                break
            self._listen(place, worker)
        self._count_loss(place, n, error)
        for future in [f for f, (at, _) in self.flight.items() if at == place]:
            self._count_loss(place, self.flight.pop(future)[1], error)
        self._start(place)

    def _count_loss(self, place: int, n: int | None, error: BaseException) -> None:
        key = ("worker", place) if n is None else ("unit", n)
        self.losses[key] += 1
        if self.losses[key] >= _ATTEMPTS:
            what = "while it got ready" if n is None else f"over the same unit ({n})"
            why = first_line(error) if isinstance(error, Exception) and str(error) else type(error).__name__
            raise WhypromptError(
                f"a worker ended {counted(_ATTEMPTS, 'time')} {what}: {why}",
                hint="is there memory for so many? Take fewer workers, and run again: it goes on",
            ) from None
        if n is not None:
            self.queue.give_back(n)
