"""Parquet files as a table: how much memory they take, and a connection to those that take too much."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from whyprompt._rows import is_file, parquet_table
from whyprompt._workers.seat import threads_here
from whyprompt.errors import DataError, EstimationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

# Of the memory that is free, that a table may take.
_SHARE = 0.25
_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
# Below this DuckDB cannot hold the state of one scan of a wide table.
_LEAST = 64_000_000


class Parquet(NamedTuple):
    """Files that are one table: its rows, its columns, the bytes that it takes, and those that it may."""

    paths: tuple[Path, ...]
    n_rows: int
    columns: tuple[str, ...]
    size: int
    memory: int

    @property
    def fits(self) -> bool:
        """Whether it is read whole."""
        return self.size <= self.memory

    @property
    def limit(self) -> int:
        """What DuckDB may take."""
        return max(self.memory, _LEAST)

    @property
    def label(self) -> str:
        """What it is called in a message."""
        first = self.paths[0].name
        return first if len(self.paths) == 1 else f"{first} and {len(self.paths) - 1} more"

    def read(self) -> Any:  # noqa: ANN401 - pyarrow.Table
        """Read it whole."""
        import pyarrow as pa

        tables = [parquet_table(path) for path in self.paths]
        try:
            return pa.concat_tables(tables, promote_options="permissive")
        except pa.ArrowException as error:
            raise DataError(f"{self.label}: the files are not one table: {error}") from None


def is_path(frame: object) -> bool:
    """Whether a table is given by files: a path, a pattern, or a list of such."""
    if isinstance(frame, list | tuple):
        return bool(frame) and all(isinstance(one, str | Path) for one in frame)
    return isinstance(frame, str | Path)


def parquet_files(frame: Any, memory: float | str | None = None) -> Parquet:  # noqa: ANN401 - paths
    """Find the files, and judge by their footers whether the table is to be read whole.

    `memory` is what it may take, bytes or text such as ``"2GB"``; default a quarter of what is free. A table
    takes 8 bytes for each number and, of text, its bytes besides.

    >>> from whyprompt.effects.large.source import bytes_of
    >>> bytes_of("1.5GB"), bytes_of(2_000_000_000)
    (1500000000, 2000000000)
    """
    import pyarrow as pa
    from pyarrow import parquet

    given = frame if isinstance(frame, list | tuple) else [frame]
    paths = [path for one in given for path in _matching(one)]
    names: tuple[str, ...] | None = None
    n_rows, size = 0, 0
    for path in paths:
        if not is_file(path):
            raise DataError(f"{path}: there is no such file")
        try:
            about = parquet.ParquetFile(path).metadata
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{path} is not a Parquet file, or is damaged: {error}",
                hint="a table given by its path is Parquet; read another format first and give the frame",
            ) from error
        columns = tuple(about.schema.to_arrow_schema().names)
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise DataError(
                f"{path} has more than one column named {', '.join(map(repr, twice))}",
                hint="rename or drop the copies, so that a name means one column",
            )
        if names is not None and set(columns) != set(names):
            apart = ", ".join(map(repr, sorted(set(columns) ^ set(names))))
            raise DataError(
                f"{path} and {paths[0].name} are not one table: not both have {apart}",
                hint="give files of the same columns",
            )
        names = names or columns
        n_rows += about.num_rows
        size += 8 * about.num_rows * len(columns)
        for group in range(about.num_row_groups):
            for k in range(about.num_columns):
                chunk = about.row_group(group).column(k)
                if chunk.physical_type == "BYTE_ARRAY":
                    size += chunk.total_uncompressed_size
    if not n_rows:
        raise DataError("the table has no rows")
    assert names is not None
    return Parquet(tuple(paths), n_rows, names, size, bytes_of(memory))


def _matching(one: str | Path) -> list[Path]:
    text = str(one)
    if Path(text).exists() or not re.search(r"[*?\[]", text):
        return [Path(text)]
    found = sorted(glob(text, recursive=True))  # noqa: PTH207 - the pattern may be absolute
    if not found:
        raise DataError(f"{text}: no file has a name of this pattern")
    return [Path(path) for path in found]


def bytes_of(memory: float | str | None) -> int:
    """Read an amount of memory, or take a quarter of what is free; one that is none is refused."""
    if memory is None:
        return max(int(_SHARE * _free()), _LEAST)
    found = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]?i?)b?\s*", str(memory).lower())
    try:
        size = float(found[1]) * _UNITS[found[2]] if found else 0.0
    except (ValueError, KeyError):
        size = 0.0
    if size < 1:
        raise EstimationError(f"memory={memory!r} is no amount of memory", hint="memory='2GB', for example")
    return int(size)


def _free() -> float:
    """Give the bytes that can be had without another process losing its own; the group's limit counts."""
    free = 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    about = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+) kB", about.read_text()) if about.exists() else None
    free = free if found is None else 1024.0 * float(found[1])
    limit, used = (Path(f"/sys/fs/cgroup/memory.{what}") for what in ("max", "current"))
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdecimal():
        free = min(free, max(float(text) - float(used.read_text()), 0.0))
    return free


def words_of(size: float) -> str:
    """Write a number of bytes.

    >>> words_of(4_800_000_000), words_of(12_000_000)
    ('4.8 GB', '12 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


@contextmanager
def connected(table: Parquet) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open DuckDB under the limit; what it cannot hold it puts into a folder that is taken away after.

    DuckDB's own errors that a user can mend are put into words.
    """
    try:
        import duckdb
    except ImportError:
        raise DataError(
            f"{table.label} takes {words_of(table.size)} in memory and may take {words_of(table.memory)}:"
            " DuckDB, which computes it in passes, is not installed",
            hint="pip install 'whyprompt[tables]'; or memory='8GB', where it fits all the same",
        ) from None
    with tempfile.TemporaryDirectory(prefix="whyprompt-") as folder:
        config: dict[str, Any] = {
            "memory_limit": f"{table.limit}B",
            "temp_directory": folder,
            "preserve_insertion_order": True,
            # Each thread holds blocks of its own.
            "threads": max(1, min(threads_here(), table.memory // 100_000_000)),
            "autoinstall_known_extensions": False,
        }
        connection = duckdb.connect(":memory:", config=config)
        try:
            yield connection
        except duckdb.OutOfMemoryException as error:
            raise DataError(
                f"{table.label}: DuckDB needs more than {words_of(table.limit)}, or more disk"
                f" for what it puts aside than is free in {Path(folder).parent}: {_first(error)}",
                hint="give more with memory=, free disk space, or name a folder with more of it in TMPDIR",
            ) from None
        except (duckdb.IOException, OSError) as error:
            raise DataError(
                f"{table.label}: a file could not be read, or what is put aside not be written in"
                f" {Path(folder).parent}: {_first(error)}",
                hint="free disk space, name a folder with more of it in TMPDIR, or write the file anew",
            ) from None
        except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.BinderException) as error:
            raise DataError(f"{table.label} cannot be read by DuckDB: {_first(error)}") from None
        finally:
            connection.close()


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
