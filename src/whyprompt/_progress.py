"""Progress on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
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
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None)

        def report(done: int, total: int, text: str) -> None:
            progress.update(task, completed=done, total=total or None, description=f"{title}: {text}")

        yield report


def _lines(title: str) -> Iterator[Callable[[int, int, str], None]]:
    shown_at, shown = 0.0, ""

    def report(done: int, total: int, text: str) -> None:
        nonlocal shown_at, shown
        now = time.monotonic()
        finished = total > 0 and done >= total
        # What comes after a comma changes with every step: how much, how long.
        kind = text.partition(",")[0]
        if kind != shown or finished or now - shown_at > _LINE_EVERY_S:
            count = f" {done}/{total}" if total else ""
            print(f"{title}: {text}{count}", file=sys.stderr, flush=True)  # noqa: T201 - progress is printed
            shown_at, shown = now, kind

    yield report
