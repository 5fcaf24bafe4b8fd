"""Files that are whole or not there, one writer at a time, and sentences for what a disk refuses."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import time
from typing import TYPE_CHECKING, Any, BinaryIO

import filelock

from whyprompt.errors import StoreError, WhypromptError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PART = ".whyprompt-part"
_LEFT_S = 3600
# Not the user's to mend at the file itself: exit code 1.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


@contextlib.contextmanager
def file_errors(path: Path, *, hint: str | None = None) -> Iterator[None]:
    """Say which file could not be written, and why; `hint` is for where the place may not be written.

    A full or failing disk is a `WhypromptError`; no folder, or one that may not be written, a `StoreError`.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.EIO:
            raise WhypromptError(f"{path} could not be written: {reason}", hint="check the disk") from None
        if error.errno in _DISK:
            raise WhypromptError(
                f"the disk is full: {path} could not be written ({reason})",
                hint="free some space, or check the quota and limits on file size, and run again",
            ) from None
        raise StoreError(f"{path} cannot be written: {reason}", hint=hint) from None


@contextlib.contextmanager
def whole_file(path: Path, *, hint: str | None = None) -> Iterator[BinaryIO]:
    """Write a file in a folder that exists under a temporary name; it takes its own once all is on the disk.

    Who reads `path` finds what was there before or all of the new, also after a kill or a power cut. The
    binary file is left open by who writes it. Errors are those of `file_errors`; `path` is then as it was.
    """
    part = path.with_name(f".{secrets.token_hex(8)}{_PART}")
    with file_errors(path, hint=hint):
        _clear(path.parent)
        try:
            # Made as any new file is: who may read it is for the user's umask to say.
            with part.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Delete what killed processes left behind; what is being written now is younger."""
    for left in folder.glob(f".*{_PART}"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _LEFT_S:
                left.unlink()


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole or not at all."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with whole_file(path) as file:
        file.write(f"{text}\n".encode())


def read_json(path: Path, *, hint: str) -> dict[str, Any]:
    """Read a JSON object from a file; a file that holds none is a `StoreError`."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise StoreError(f"{path} is not JSON", hint=hint) from None
    if not isinstance(found, dict):
        raise StoreError(f"{path} is not a JSON object", hint=hint)
    return found


def lock_for(path: Path) -> filelock.BaseFileLock:
    """Take the right to write `path`, whose lock is the file beside it that ends in ``.lock``.

    The folder around it is made. The system gives the lock back when the process ends, however it ends.
    Where another does hold it, or it cannot be taken, that is a `StoreError`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder {path.parent} cannot be made: {error.strerror}") from None
    lock = filelock.FileLock(path.with_suffix(".lock"), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise StoreError(
            f"another process is writing to {path}",
            hint="wait for it, or give this run a folder of its own with --out",
        ) from None
    except OSError as error:
        raise StoreError(f"{path} cannot be locked: {error.strerror}") from None
    return lock


def file_sha256(path: str | Path) -> str:
    """Give the SHA-256 of a file, in hexadecimal digits; "" where it is not there."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a path may be text
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
