"""Which files are logs, and of what: found by what they hold, among the readers that are installed."""

from __future__ import annotations

import codecs
import glob
import pkgutil
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from whyprompt._words import counted, first_line
from whyprompt.errors import DataError
from whyprompt.trials.reading.heads import HEAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from whyprompt.trials.readers.record import Reader

GROUP = "whyprompt.readers"
"""Entry points of this group are readers of others' making."""

# What plainly is of a format stands above what merely looks like a table.
_PLAIN = 0.5
_GLOB = "*?["
_TABLES = (".csv", ".tsv")
# How files begin that are to be unpacked first.
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class FoundFile(NamedTuple):
    """A file with the reader that knows it; `within` is the folder or pattern that it was found by."""

    path: Path
    reader: Reader
    within: str = ""


class FoundFiles(NamedTuple):
    """The logs among what was named, and the files of folders that are none."""

    logs: tuple[FoundFile, ...]
    skipped: tuple[Path, ...] = ()

    @property
    def unread(self) -> dict[Path, str]:
        """Why files of folders that may well be logs were not read: empty ones, and compressed ones."""
        endings = {one.path.suffix for one in self.logs}
        out = {}
        for path in self.skipped:
            if program := _packed(path):
                out[path] = f"is compressed by {program}"
            elif path.suffix in endings and path.stat().st_size == 0:
                out[path] = "is empty"
        return out


@cache
def readers() -> tuple[Reader, ...]:
    """Give every reader: those of this folder, and the entry points of others.

    An entry point that cannot be loaded is a `DataError` that names it.

    Examples
    --------
    >>> all(reader.name for reader in readers())
    True
    """
    package = import_module(__package__)
    own = [import_module(f"{__package__}.{module.name}") for module in pkgutil.iter_modules(package.__path__)]
    found = [cast("Reader", module) for module in own if hasattr(module, "sniff")]
    for entry in metadata.entry_points(group=GROUP):
        try:
            found.append(entry.load())
        except Exception as error:  # another's code, of any kind
            raise DataError(
                f"the reader {entry.name!r} ({entry.value}) cannot be loaded: {first_line(error)}",
                hint="mend or remove the package that brings it",
            ) from error
    return tuple(found)


def sniffed(path: Path) -> tuple[float, Reader | None]:
    """Say which reader knows a file best, and how surely, from its first 64 KiB."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    best: tuple[float, Reader | None] = (0.0, None)
    for reader in readers() if head else ():
        sure = reader.sniff(path, head)
        if sure > best[0]:
            best = (sure, reader)
    return best


def find_logs(paths: Sequence[str | Path]) -> FoundFiles:
    """Find the logs among files, folders and patterns (``*``, ``?``, ``[...]``, ``**``).

    Raises
    ------
    DataError
        If there is nothing under a name, or what a name says is no log of a known format.
    """
    logs: dict[Path, FoundFile] = {}
    skipped: list[Path] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            files = (p for p in path.rglob("*") if not any(q.startswith(".") for q in _below(p, path)))
            some, others = _of_folder(files, str(path))
        elif not path.exists() and any(c in str(given) for c in _GLOB):
            some, others = _of_folder(map(Path, glob.glob(str(given), recursive=True)), str(given))  # noqa: PTH207 - patterns may be absolute
        else:
            some, others = [_named(path)], []
        for one in some:
            logs.setdefault(one.path.resolve(), one)
        skipped += others
    return FoundFiles(tuple(logs.values()), tuple(skipped))


def _below(path: Path, folder: Path) -> tuple[str, ...]:
    return path.relative_to(folder).parts


def _named(path: Path) -> FoundFile:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    reader = sniffed(path)[1]
    if reader is None:
        if packed := _packed(path):
            raise DataError(f"{path} is compressed by {packed}", hint=f"unpack it first, by {packed} -d")
        # What is called a table is read as one, so that what is wrong with it is named.
        reader = next((r for r in readers() if r.name == "a plain table" and path.suffix in _TABLES), None)
    if reader is None:
        with path.open("rb") as file:
            if file.read(2) in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
                hint = "write it as UTF-8: iconv -f UTF-16 -t UTF-8"
                raise DataError(f"{path} is UTF-16 text, which logs are not read from", hint=hint)
        raise DataError(f"{path} is no log of a known format", hint=_known())
    return FoundFile(path, reader)


def _packed(path: Path) -> str:
    """Name the program that compressed a file, "" where none did."""
    with path.open("rb") as file:
        head = file.read(6)
    return next((name for start, name in _PACKED.items() if head.startswith(start)), "")


def _of_folder(files: Iterable[Path], within: str) -> tuple[list[FoundFile], list[Path]]:
    every = sorted(p for p in files if p.is_file())
    known = [(path, *sniffed(path)) for path in every]
    # Beside logs of a tool, tables are something else: what they were made of, or from.
    least = _PLAIN if any(sure >= _PLAIN for _, sure, _ in known) else 0.0
    some = [FoundFile(p, reader, within) for p, sure, reader in known if reader is not None and sure >= least]
    if not some:
        raise DataError(
            f"{within}: none of its {counted(len(every), 'file')} is a log of a known format"
            if every
            else f"{within} is a folder without files",
            hint=_known(),
        )
    taken = {one.path for one in some}
    return some, [path for path in every if path not in taken]


def _known() -> str:
    return f"known are logs of {', '.join(sorted({reader.name for reader in readers()}))}"
