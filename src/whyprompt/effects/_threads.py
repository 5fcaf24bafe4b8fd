"""Keep BLAS on one thread where its threads cost more than they give.

The products here are tall and narrow, and they are taken block by block. OpenBLAS wakes its threads for each
of them, and on a machine with other work it waits for them many times longer than the product takes.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["one_blas_thread"]

# Below this many rows the products are too small for OpenBLAS to wake its threads.
_MANY_ROWS = 2_000


@cache
def _controller() -> Any:  # noqa: ANN401 - threadpoolctl has no type information
    # threadpoolctl comes with scikit-learn.
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


class _Limit:
    """The limit belongs to the process: the first to enter sets it and the last to leave lifts it."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.inside = 0
        self.limiter: Any = None

    def enter(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.limiter = _controller().limit(limits=1, user_api="blas")
            self.inside += 1

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.limiter.restore_original_limits()


_LIMIT = _Limit()


@contextmanager
def one_blas_thread(n_rows: int) -> Iterator[None]:
    """Limit BLAS to one thread inside the block, for tables of many rows.

    Parameters
    ----------
    n_rows : int
        Rows that the products run over.
    """
    if n_rows < _MANY_ROWS:
        yield
        return
    _LIMIT.enter()
    try:
        yield
    finally:
        _LIMIT.leave()
