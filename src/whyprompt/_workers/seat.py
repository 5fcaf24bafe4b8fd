"""What happens inside a worker: a work is opened once, and its units are done one by one."""

from __future__ import annotations

import hashlib
import os
import pickle
import platform
import traceback
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from whyprompt._version import __version__
from whyprompt.errors import InputError, WhypromptError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

# Those that can change a number of a unit.
_PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "transformers", "tokenizers")
# The threads that are this worker's own; none outside a worker.
_share: list[int] = []
# Who hears what a unit hands on before it is done.
_ears: list[Callable[[Any], None]] = []


class Work(Protocol):
    """What can be done a unit at a time, anywhere: it is pickled, sent to each worker, and opened there."""

    def opened(self) -> AbstractContextManager[Callable[[Any], Any]]:
        """Make ready what the units have in common, and give the function that does one."""
        ...


class Answer(NamedTuple):
    """What a worker gives back: a value, or what it raised; and what it was warned of."""

    value: Any = None
    error: BaseException | None = None
    warned: tuple[str, ...] = ()


def threads_here() -> int:
    """Give how many threads this process may keep busy: a worker's share, or all processors."""
    return _share[0] if _share else len(os.sched_getaffinity(0))


def hand_on(value: Any) -> None:  # noqa: ANN401 - the work's own
    """Give the driver something before the unit is done: it is there then though this worker ends."""
    for ear in _ears:
        ear(value)


@contextmanager
def heard_by(ear: Callable[[Any], None]) -> Iterator[None]:
    """Have what units hand on heard, as long as the block lasts."""
    _ears.append(ear)
    try:
        yield
    finally:
        _ears.remove(ear)


@lru_cache
def versions() -> dict[str, str]:
    """Give what must be the same in every worker: this package, to the letter, and those it computes with."""
    sha = hashlib.sha256()
    home = Path(__file__).parents[1]
    for file in sorted(home.rglob("*.py")):
        sha.update(str(file.relative_to(home)).encode() + b"\0" + file.read_bytes())
    found = {"whyprompt": f"{__version__} ({sha.hexdigest()[:12]})", "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def check_versions(wanted: Mapping[str, str], where: str) -> None:
    """Refuse (`InputError`) to work with other versions than the driver's."""
    own = versions()
    apart = [
        f"{name} {own.get(name, 'not installed')}, not {v}"
        for name, v in wanted.items()
        if own.get(name) != v
    ]
    if apart:
        raise InputError(
            f"the worker on {where} has {'; '.join(apart)}",
            hint="install the same versions there: a run is computed by one version",
        )


@dataclass
class Seat:
    """The one work that is open in this process."""

    digest: str = ""
    run: Callable[[Any], Any] | None = None
    stack: ExitStack | None = None

    def open(self, digest: str, blob: bytes, wanted: Mapping[str, str], where: str, threads: int) -> Answer:
        """Open a work in place of the one before."""

        def opening() -> None:
            check_versions(wanted, where)
            _share[:] = [threads]
            if digest == self.digest:
                return
            self.close()
            stack = ExitStack()
            work: Work = pickle.loads(blob)  # noqa: S301 - the driver's own
            self.run = stack.enter_context(work.opened())
            self.digest, self.stack = digest, stack

        return _answer(opening)

    def do(self, digest: str, unit: bytes) -> Answer:
        """Do one unit of the work that is open."""

        def doing() -> Any:  # noqa: ANN401 - the work's own
            if self.run is None or digest != self.digest:
                raise WhypromptError("a worker was given a unit of a work that is not open in it")
            return self.run(pickle.loads(unit))  # noqa: S301 - the driver's own

        return _answer(doing)

    def close(self) -> None:
        """Close what is open."""
        stack, self.stack, self.run, self.digest = self.stack, None, None, ""
        if stack is not None:
            stack.close()


def _answer(call: Callable[[], Any]) -> Answer:
    with warnings.catch_warnings(record=True) as heard:
        try:
            value, error = call(), None
        except Exception as raised:  # noqa: BLE001 - it is raised again in the driver
            value, error = None, raised
            if not isinstance(raised, WhypromptError):
                raised.add_note(f"in a worker:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - just made
    except Exception:  # noqa: BLE001 - whatever a foreign exception's own pickling raises
        error = WhypromptError(f"a worker failed: {type(error).__name__}: {error}")
    return Answer(value, error, tuple(str(one.message) for one in heard))
