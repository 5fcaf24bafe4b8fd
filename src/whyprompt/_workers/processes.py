"""Workers that are processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
import threading
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whyprompt._workers import seat
from whyprompt._workers.seat import Answer, Seat, threads_here
from whyprompt.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

_WAIT_S = 5.0
_SEAT = Seat()


def _sit_down(devices: Sequence[str], said: Connection) -> None:
    """Make a new process a worker: Ctrl-C is the driver's to answer, and it ends with the driver."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Written at once and by this thread: what stands in the pipe outlives the process.
    seat._ears[:] = [lambda value: said.send((_SEAT.digest, [value]))]  # noqa: SLF001 - its own package
    # Before torch is imported: it looks once.
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _open(digest: str, path: Path, wanted: dict[str, str], threads: int) -> Answer:
    return _SEAT.open(digest, path.read_bytes(), wanted, "this machine", threads)


def _do(digest: str, unit: bytes) -> Answer:
    return _SEAT.do(digest, unit)


class _Process:
    """A pool of one: each has the units it was given, and takes no other with it when it dies."""

    def __init__(self, devices: Sequence[str], threads: int) -> None:
        self._threads = threads
        self._made: list[BaseProcess] = []
        context = SpawnContext()
        start = context.Process

        def noted(*args: object, **kwargs: object) -> BaseProcess:
            self._made.append(start(*args, **kwargs))  # type: ignore[arg-type]
            return self._made[-1]

        context.Process = noted  # type: ignore[assignment, misc]
        self._said, self._child = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(1, context, _sit_down, (tuple(devices), self._child))
        self._ear = ThreadPoolExecutor(1)

    def open(self, digest: str, sent: Path, wanted: dict[str, str]) -> Future[Answer]:
        return self._submitted(_open, digest, sent, wanted, self._threads)

    def do(self, digest: str, unit: bytes) -> Future[Answer]:
        return self._submitted(_do, digest, unit)

    def hear(self) -> Future[tuple[str, list[Any]]]:
        # The end of the child alone is left open: it ends with the child.
        self._child.close()
        return self._ear.submit(self._said.recv)

    def _submitted(self, call: object, *args: object) -> Future[Answer]:
        # The first call starts the process, which inherits what is blocked: before it has sat down it is
        # deaf to Ctrl-C too, which is the driver's to answer.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._pool.submit(call, *args)  # type: ignore[arg-type]
        except BrokenExecutor as error:
            # It died while it had nothing to do.
            lost: Future[Answer] = Future()
            lost.set_exception(error)
            return lost
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def end(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._made:
            process.terminate()
        for process in self._made:
            process.join(_WAIT_S)
            if process.is_alive():
                process.kill()
                process.join(_WAIT_S)
        # What watches over it, and what listens to it, ends with it; what it said is still to be read.
        self._pool.shutdown(wait=True)
        self._child.close()


class Processes:
    """Local processes, each with its share of the processors, and of the GPUs where it is to have some."""

    lost = (BrokenExecutor,)

    def __init__(self, count: int | None, cpus: int, gpus: int) -> None:
        cores = threads_here()
        self._devices = _visible_devices() if gpus else []
        self._gpus = gpus
        room = len(self._devices) // gpus if gpus else max(1, cores // cpus)
        if gpus and room < (count or 1):
            raise InputError(
                f"{count or 1} worker(s) with {gpus} GPU(s) each were asked for, and this machine shows"
                f" {len(self._devices)}",
                hint="take fewer workers, or leave out the GPUs",
            )
        self.count = room if count is None else count
        self._threads = max(cpus, cores // self.count)
        self.needs = f"a process of {self._threads} thread(s)"
        self._folder = tempfile.TemporaryDirectory(prefix="whyprompt-")

    def send(self, blob: bytes) -> Path:
        handle, name = tempfile.mkstemp(dir=self._folder.name)
        with os.fdopen(handle, "wb") as file:
            file.write(blob)
        return Path(name)

    def hire(self, place: int) -> _Process:
        own = self._devices[place * self._gpus : (place + 1) * self._gpus]
        return _Process(own, self._threads)

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._folder.cleanup()


def _visible_devices() -> list[str]:
    """Name the GPUs that this process may use, as CUDA_VISIBLE_DEVICES does."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in given.split(",") if name.strip()]
    try:
        import torch
    except ImportError:
        return []
    return [str(n) for n in range(torch.cuda.device_count())]
