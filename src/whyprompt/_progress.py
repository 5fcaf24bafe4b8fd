"""Progress on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Progress = Callable[[int, int, str], None]

_LINE_EVERY_S = 10.0
# Where what is computed far below tells how far it is; nowhere, unless a caller listens.
_LISTENER: ContextVar[Progress | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def listening(report: Progress) -> Iterator[None]:
    """Have steps of a long computation told to `report` inside the block."""
    token = _LISTENER.set(report)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def tell(done: int, total: int, text: str) -> None:
    """Tell who listens that so many steps of a computation are done."""
    report = _LISTENER.get()
    if report is not None:
        report(done, total, text)


@contextlib.contextmanager
def steps(total: int, text: str) -> Iterator[Callable[[], None]]:
    """Count the steps of a long computation for who listens; what a step does tells nothing of its own.

    Examples
    --------
    >>> told = []
    >>> with listening(lambda *step: told.append(step)), steps(2, "draws") as one_more:
    ...     tell(1, 9, "inside")
    ...     one_more()
    >>> told
    [(1, 2, 'draws')]
    """
    report, done = _LISTENER.get(), itertools.count(1)

    def one_more() -> None:
        if report is not None:
            report(next(done), total, text)

    token = _LISTENER.set(None)
    try:
        yield one_more
    finally:
        _LISTENER.reset(token)


@contextlib.contextmanager
def show_progress(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show the progress of one long task, whose ``report(done, total, text)`` it gives."""
    if sys.stderr.isatty():
        yield from _bar(title)
    else:
        yield from _lines(title)


def _bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=Console(stderr=True))
    task = progress.add_task(title, total=None)

    def report(done: int, total: int, text: str) -> None:
        # What has nothing to tell leaves no bar behind.
        progress.update(task, completed=done, total=total or None, description=f"{title}: {text}")
        progress.start()

    try:
        yield report
    finally:
        progress.stop()


def time_words(seconds: float) -> str:
    """Write a time that is roughly known.

    Examples
    --------
    >>> time_words(0.2), time_words(48), time_words(200), time_words(9000)
    ('1 s', '48 s', '3 min', '2 h 30 min')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _lines(title: str) -> Iterator[Callable[[int, int, str], None]]:
    shown_at, shown = 0.0, ""
    # Where the work of this kind began: what was done before this run says nothing of its pace.
    begun: tuple[int, float, int] | None = None

    def report(done: int, total: int, text: str) -> None:
        nonlocal shown_at, shown, begun
        now = time.monotonic()
        if begun is None or total != begun[2] or done < begun[0]:
            begun = (done, now, total)
        finished = total > 0 and done >= total
        # What comes after a comma changes with every step: how much, how long.
        kind = text.partition(",")[0]
        if kind != shown or finished or now - shown_at > _LINE_EVERY_S:
            count = f" {done}/{total}" if total else ""
            fresh = done - begun[0]
            if fresh > 0 and done < total and now > begun[1] and not text.endswith(" left"):
                count += f", about {time_words((total - done) * (now - begun[1]) / fresh)} left"
            print(f"{title}: {text}{count}", file=sys.stderr, flush=True)  # noqa: T201 - progress is printed
            shown_at, shown = now, kind

    yield report
