"""Entries of a zip archive, read piece by piece, also where they are packed with zstandard."""

from __future__ import annotations

import contextlib
import importlib
import struct
import sys
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, Self

from whyprompt.errors import DataError
from whyprompt.trials.reading.stream import AGAIN, PIECE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _zipfile() -> Any:  # noqa: ANN401 - the module zipfile, or one with its face
    """Give the module that reads archives: from Python 3.14 it knows zstandard by itself."""
    if sys.version_info < (3, 14):
        with contextlib.suppress(ImportError):
            return importlib.import_module("backports.zstd.zipfile")
    return zipfile


class Archive:
    """A zip archive: the names of its entries, and each one's content in pieces.

    Raises
    ------
    DataError
        If it is no archive, or is cut off.
    """

    def __init__(self, path: Path) -> None:
        module = _zipfile()
        self.path = path
        try:
            self._zip = module.ZipFile(path)
        except (module.BadZipFile, OSError, struct.error, ValueError) as error:
            raise DataError(
                f"{path} is cut off or damaged: its list of entries cannot be read ({error})",
                hint=AGAIN,
            ) from None
        # Of entries of one name the last is what the archive holds.
        self.sizes: dict[str, int] = {info.filename: info.file_size for info in self._zip.infolist()}
        self.repeated = len(self._zip.infolist()) - len(self.sizes)

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def where(self, name: str) -> str:
        """Name an entry in a message."""
        return f"{self.path}: {name}"

    def pieces(self, name: str) -> Iterator[bytes]:
        """Read an entry a mebibyte at a time; its checksum is held against it at the end."""
        try:
            with self._zip.open(name) as entry:
                while piece := entry.read(PIECE):
                    yield piece
        except NotImplementedError as error:
            raise DataError(
                f"{self.where(name)}: packed in a way that cannot be read here ({error})",
                hint="new logs are packed with zstandard: pip install backports.zstd",
            ) from None
        except RuntimeError as error:
            raise DataError(f"{self.where(name)}: {error}", hint="take the password away") from None
        except Exception as error:  # of three decompressors, each with an error of its own
            if isinstance(error, DataError):
                raise
            damaged = (zlib.error, EOFError, OSError, struct.error, ValueError)
            if not isinstance(error, damaged) and type(error).__name__ not in {"ZstdError", "BadZipFile"}:
                raise
            raise DataError(
                f"{self.where(name)}: the entry is cut off or damaged ({error})",
                hint="copy the archive again",
            ) from None
