"""Where coroutines of ours run: in this thread, or in one of their own beside a notebook's loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_T = TypeVar("_T")


class Loop:
    """A loop that is there between the coroutines that it runs."""

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        self._pool: ThreadPoolExecutor | None = None
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self
        self._pool = ThreadPoolExecutor(1)
        return self

    def run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine to its end."""
        if self._pool is None:
            return self._runner.run(work())
        return self._pool.submit(lambda: self._runner.run(work())).result()

    def __exit__(self, *_: object) -> None:
        if self._pool is None:
            self._runner.close()
            return
        self._pool.submit(self._runner.close).result()
        self._pool.shutdown()


def ran(work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run one coroutine to its end."""
    with Loop() as loop:
        return loop.run(work)
