"""Workers that are actors of a Ray cluster.

Its authentication is left as the cluster has it: nothing here sets or reads RAY_AUTH_MODE.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from whyprompt._words import first_line
from whyprompt._workers.seat import Answer
from whyprompt.errors import InputError, WhypromptError

if TYPE_CHECKING:
    from concurrent.futures import Future

_REACHED_S = 5.0
# Ray's server of clients forks a process for each driver while its own threads are in gRPC, and of those
# some die at birth (github.com/ray-project/ray/issues/63202). The next one mostly lives.
_KNOCKS = 5
_MISSING = 'pip install "whyprompt[scale]"'


def _actor() -> type:
    """Make the class of the actors: made here, it travels as it is, also to a node without whyprompt."""
    import ray

    class WhypromptWorker:
        def __init__(self) -> None:
            from queue import SimpleQueue

            self.seat: Any = None
            self.said: Any = SimpleQueue()

        def open(self, digest: str, blob: bytes, wanted: dict[str, str], threads: int) -> Any:  # noqa: ANN401
            import platform

            where = platform.node()
            try:
                from whyprompt._workers import seat
            except ImportError as error:
                return f"the worker on {where} has no whyprompt {wanted['whyprompt']} ({error})"
            self.seat = self.seat or seat.Seat()
            seat._ears[:] = [lambda value: self.said.put((self.seat.digest, [value]))]  # noqa: SLF001
            return self.seat.open(digest, blob, wanted, where, threads)

        def do(self, digest: str, unit: bytes) -> Any:  # noqa: ANN401
            return self.seat.do(digest, unit)

        @ray.method(concurrency_group="ears")
        def hear(self) -> Any:  # noqa: ANN401
            return self.said.get()

    return WhypromptWorker


class _Actor:
    """One actor: lost with its process or its node, and then not started again but replaced."""

    def __init__(self, ray: Any, made: Any, threads: int) -> None:  # noqa: ANN401 - of Ray
        self._ray, self._made, self._threads = ray, made, threads

    def open(self, digest: str, sent: Any, wanted: dict[str, str]) -> Future[Answer]:  # noqa: ANN401 - a reference
        from concurrent.futures import Future

        found: Future[Answer] = Future()

        def hand_on(given: Future[Any]) -> None:
            if (error := given.exception()) is not None:
                found.set_exception(error)
                return
            value = given.result()
            if isinstance(value, str):
                value = Answer(error=InputError(value, hint="install it on every node, in the same version"))
            found.set_result(value)

        self._made.open.remote(digest, sent, wanted, self._threads).future().add_done_callback(hand_on)
        return found

    def do(self, digest: str, unit: bytes) -> Future[Answer]:
        found: Future[Answer] = self._made.do.remote(digest, unit).future()
        return found

    def hear(self) -> Future[tuple[str, list[Any]]]:
        found: Future[tuple[str, list[Any]]] = self._made.hear.remote().future()
        return found

    def end(self) -> None:
        with contextlib.suppress(Exception):  # it may be gone, or its cluster
            self._ray.kill(self._made)


class Cluster:
    """The actors of a Ray cluster: one that runs here or at an address, or one begun for the purpose."""

    def __init__(self, address: str | None, count: int | None, cpus: int, gpus: int) -> None:
        self._ray = _imported()
        from ray.exceptions import OwnerDiedError, RayActorError, WorkerCrashedError

        self.lost = (RayActorError, WorkerCrashedError, OwnerDiedError)
        self._own = _connected(self._ray, address)
        have = self._ray.cluster_resources()
        fits = [have.get("CPU", 0.0) // cpus, *([have.get("GPU", 0.0) // gpus] if gpus else [])]
        self.count = int(min(fits)) if count is None else count
        if self.count < 1:
            self.end()
            raise InputError(
                f"no worker of {cpus} CPU and {gpus} GPU fits into this Ray cluster, which has"
                f" {have.get('CPU', 0):g} CPU and {have.get('GPU', 0):g} GPU",
                hint="ask for less, or for a number of workers (--workers N) where the cluster grows",
            )
        self._threads = cpus
        self.needs = f"a Ray actor of {cpus} CPU and {gpus} GPU"
        # Not started again by Ray: of a lost node it says late or never that an actor is there again.
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        # One thread works, and another gives what the work hands on.
        self._kind = self._ray.remote(concurrency_groups={"ears": 1}, **options)(_actor())

    def send(self, blob: bytes) -> Any:  # noqa: ANN401 - a reference of Ray
        return self._ray.put(blob)

    def hire(self, place: int) -> _Actor:
        _ = place
        return _Actor(self._ray, self._kind.remote(), self._threads)

    def end(self) -> None:
        if self._own:
            with contextlib.suppress(Exception):  # the cluster may be gone
                self._ray.shutdown()


def _imported() -> Any:  # noqa: ANN401 - a module
    try:
        import ray
    except ImportError:
        raise InputError("Ray is not installed, and --on ray needs it", hint=_MISSING) from None
    return ray


def _connected(ray: Any, address: str | None) -> bool:  # noqa: ANN401 - a module
    """Join the cluster, or begin one of this machine; whether that has to be undone."""
    if ray.is_initialized():
        if address is not None:
            raise InputError(
                "this process is connected to a Ray cluster already", hint="leave out the address"
            )
        return False
    named = address or os.environ.get("RAY_ADDRESS", "")
    if named not in {"", "auto", "local"}:
        _check_reached(named)
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if not named.startswith("ray://"):
        quiet["include_dashboard"] = False
    main = threading.current_thread() is threading.main_thread()
    ours = signal.getsignal(signal.SIGTERM) if main else None
    try:
        for left in reversed(range(_KNOCKS)):
            try:
                ray.init(address=address, **quiet)
                break
            except ConnectionAbortedError:
                ray.shutdown()
                if not left:
                    raise
    except ImportError as error:
        raise InputError(f"Ray cannot join {address}: {first_line(error)}", hint=_MISSING) from None
    except Exception as error:  # noqa: BLE001 - a bare one where its start takes too long on a busy machine
        ray.shutdown()
        raise WhypromptError(
            f"Ray could not {f'join {named}' if named else 'start here'}: {_said(error)}",
            hint="is it running (ray status), of the same version of Ray and Python, does it let you in"
            " (RAY_AUTH_MODE=token here too, where it asks for a token), and has the machine time for it?",
        ) from None
    finally:
        # Ray answers the system's request to end in its own way; what is written must be closed by ours.
        if ours is not None:
            signal.signal(signal.SIGTERM, ours)
    return True


def _said(error: Exception) -> str:
    """Give what an error says; of a traceback that Ray's server sent, its last line too, which says why."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join([lines[0], lines[-1]]) if lines[1:] and lines[0].endswith(":") else first_line(error)


def _check_reached(address: str) -> None:
    """Refuse an address where nobody answers: Ray itself would wait for minutes."""
    try:
        parts = urlsplit(address if "://" in address else f"ray://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise InputError(
            f"{address!r} is no address of a Ray cluster", hint="ray://HOST:PORT, 10001 for instance"
        )
    try:
        socket.create_connection((host, port), timeout=_REACHED_S).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster can be reached at {address}: {first_line(error)}",
            hint="start one there (ray start --head), or name another address",
        ) from None
