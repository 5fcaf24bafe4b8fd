"""Which unit a worker does next."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


class Queue:
    """Units to be done; those that are alike stay with one worker while there are others to do.

    What units alike have in common, the beginning of their prompts for instance, a worker then computes once.
    Kinds that cost most are begun first, and a worker without a kind of its own helps with the one of which
    most is left: list scheduling.

    Parameters
    ----------
    cost : sequence of float
        Of each unit, in any measure.
    alike : sequence of hashable
        The kind of each unit.
    owners : dict of hashable to int
        Which worker had a kind before, in an earlier queue of the same work; it is kept up to date.
    """

    def __init__(self, cost: Sequence[float], alike: Sequence[Hashable], owners: dict[Hashable, int]) -> None:
        self._cost, self._kind = cost, alike
        self._left: dict[Hashable, deque[int]] = {}
        self._weight: dict[Hashable, float] = {}
        for n, kind in enumerate(alike):
            self._left.setdefault(kind, deque()).append(n)
            self._weight[kind] = self._weight.get(kind, 0.0) + cost[n]
        self._fresh = deque(
            sorted((k for k in self._left if k not in owners), key=lambda k: -self._weight[k])
        )
        self._owners = owners
        self._own: dict[int, deque[Hashable]] = {}
        for kind in self._left:
            if kind in owners:
                self._own.setdefault(owners[kind], deque()).append(kind)
        self._last: dict[int, Hashable] = {}
        self._count = len(alike)

    def __len__(self) -> int:
        return self._count

    def take(self, worker: int) -> int | None:
        """Give a worker its next unit; None where nothing is left."""
        if not self._count:
            return None
        kind = self._kind_for(worker)
        self._last[worker] = kind
        n = self._left[kind].popleft()
        if not self._left[kind]:
            del self._left[kind]
        self._weight[kind] -= self._cost[n]
        self._count -= 1
        return n

    def _kind_for(self, worker: int) -> Hashable:
        if worker in self._last and self._last[worker] in self._left:
            return self._last[worker]
        for kinds in (self._own.get(worker, deque()), self._fresh):
            while kinds:
                kind = kinds.popleft()
                if kind in self._left:
                    self._owners[kind] = worker
                    return kind
        return max(self._left, key=lambda kind: self._weight[kind])

    def give_back(self, n: int) -> None:
        """Take a unit again that a lost worker had."""
        kind = self._kind[n]
        self._left.setdefault(kind, deque()).appendleft(n)
        self._weight[kind] += self._cost[n]
        self._count += 1
