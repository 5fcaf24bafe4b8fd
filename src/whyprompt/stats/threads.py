"""Keep BLAS and OpenMP on one thread where their threads cost more than they give.

The products here are tall and narrow, and they are taken block by block. OpenBLAS wakes its threads for each
of them, and on a machine with other work it waits for them many times longer than the product takes. Models
that are fitted fold by fold do the same by OpenMP: each of their many short steps waits for every thread.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


# Below this many rows the products are too small for OpenBLAS to wake its threads. At 1,500, beside other
# work, they double the processor time of the default estimator.
_MANY_ROWS = 300


@lru_cache(maxsize=1)
def _known_to(n_modules: int) -> Any:  # noqa: ANN401, ARG001 - threadpoolctl has no type information
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def _controller() -> Any:  # noqa: ANN401 - threadpoolctl has no type information
    """Find the thread pools anew when a module has been imported: it may have brought one of its own."""
    return _known_to(len(sys.modules))


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
    """Limit BLAS to one thread inside the block, for products that run over many rows."""
    if n_rows < _MANY_ROWS:
        yield
        return
    _LIMIT.enter()
    try:
        yield
    finally:
        _LIMIT.leave()


@contextmanager
def one_openmp_thread() -> Iterator[None]:
    """Limit OpenMP to one thread inside the block.

    Boosted trees gain little from several and may lose everything: on two threads, beside one busy process,
    2,000 rows take 7 s instead of 0.1, and 200,000 rows five times as long. Unlike that of BLAS the limit is
    the calling thread's own. It reaches the libraries that are loaded: scikit-learn's is loaded here, or the
    first trees of a process, which bring it themselves, would run without.
    """
    import sklearn.ensemble  # noqa: F401

    with _controller().limit(limits=1, user_api="openmp"):
        yield
