"""Rows of a log as mappings, from whatever holds them: JSON, JSON Lines, delimited text, Parquet, Excel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt._rows import decimal_commas, delimited_rows, is_file, json_rows, json_value
from whyprompt.errors import DataError
from whyprompt.trials.reading import heads
from whyprompt.trials.reading.fields import missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Where an export wraps its rows in an object.
_WRAPPERS = ("data", "events", "rows", "records", "results", "runs", "examples")
# The first column of a frame that was written with the numbers of its rows.
_NUMBERED = frozenset({"", "Unnamed: 0"})

Row = dict[str, Any]


def head_of(path: Path) -> bytes:
    """Read the first bytes of a file, by which its format is told; refuses one that is absent or empty."""
    if not is_file(path):
        raise DataError(f"{path}: there is no such file")
    with path.open("rb") as file:
        head = file.read(heads.HEAD_BYTES)
    if not head.strip():
        raise DataError(f"{path} is empty", hint="write the log anew, or leave the file out")
    return head


def has_lines(path: Path, head: bytes) -> bool:
    """Say whether a JSON file has an object a line, however long its first line is."""
    kind = heads.container(head)
    if kind != "object" or b"\n" in head.strip():
        return kind == "lines"
    with path.open("rb") as file:
        return file.readline().rstrip().endswith(b"}") and any(line.strip() for line in file)


def rows_of(path: Path) -> Iterator[tuple[str, Row]]:
    """Read the rows of a file one by one, each with the place where it stands, for messages.

    What holds them is told by content. Refused (`DataError`): what is damaged, or a row that is no object.
    """
    head = head_of(path)
    kind = heads.container(head)
    if kind == "parquet":
        for number, row in enumerate(parquet_rows(path), start=1):
            yield f"{path}, row {number}", row
    elif kind == "zip":
        yield from _excel(path)
    elif has_lines(path, head):
        for number, row in json_rows(path):
            yield f"{path}:{number}", row
    elif kind in {"list", "object"}:
        yield from _json(path)
    else:
        yield from _delimited(path, heads.separator(head))


def comma_columns(path: Path) -> frozenset[str]:
    """Give the columns whose numbers have decimal commas; none where commas separate the columns."""
    head = head_of(path)
    if heads.container(head) != "delimited":
        return frozenset()
    return decimal_commas(path, heads.separator(head), missing)


def _json(path: Path) -> Iterator[tuple[str, Row]]:
    content = json_value(path.read_bytes(), path)
    if isinstance(content, dict):
        content = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), list)), [content])
    if not isinstance(content, list):
        raise DataError(f"{path} holds {type(content).__name__}, where a log holds a list of records")
    for number, row in enumerate(content, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, record {number}: a row is an object, not {type(row).__name__}")
        yield f"{path}, record {number}", row


def _delimited(path: Path, separator: str) -> Iterator[tuple[str, Row]]:
    rows = delimited_rows(path, separator)
    _, names = next(rows)
    if len(names) < 2:
        raise DataError(
            f"{path} is no table: its first line names no columns", hint="give it a first line of names"
        )
    first = int(names[0] in _NUMBERED)
    for line, fields in rows:
        yield f"{path}:{line}", dict(zip(names[first:], fields[first:], strict=True))


def parquet_rows(path: Path, columns: list[str] | None = None) -> Iterator[Row]:
    """Read the rows of a Parquet file, of some columns or all; a damaged one is refused.

    Few at a time: a cell may hold a conversation.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        names = columns or file.schema_arrow.names
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            for values in zip(*(batch[name].to_pylist() for name in names), strict=True):
                yield dict(zip(names, values, strict=True))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path} is not a Parquet file, or is damaged: {error}", hint="copy it again"
        ) from error


def parquet_columns(path: Path) -> tuple[str, ...]:
    """Give the names of a Parquet file's columns, none where it is damaged."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return tuple(parquet.read_schema(path).names)
    except (pa.ArrowException, OSError):
        return ()


def _excel(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        import openpyxl
    except ImportError:
        raise DataError(
            f"{path}: reading an Excel file needs openpyxl",
            hint="pip install 'whyprompt[excel]', or save the sheet as CSV",
        ) from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # a damaged archive fails in many ways
        raise DataError(f"{path} is not an Excel file, or is damaged: {error}") from error
    try:
        filled = [sheet for sheet in book.worksheets if sheet.max_row is None or sheet.max_row > 1]
        if len(filled) != 1:
            raise DataError(
                f"{path} has {len(filled)} sheets with rows: {', '.join(s.title for s in filled)}",
                hint="keep the one sheet to be read, or save it as CSV",
            )
        sheet = filled[0]
        rows = sheet.iter_rows(values_only=True)
        names = [str(name) if name is not None else "" for name in next(rows)]
        first = int(names[0] in _NUMBERED)
        names = names[first:]
        if "" in names or len(set(names)) < len(names):
            raise DataError(
                f"{path}, sheet {sheet.title!r}: the first row does not name each column once",
                hint="give every column its own name in the first row",
            )
        for number, values in enumerate(rows, start=2):
            if any(value is not None for value in values):
                yield (
                    f"{path}, sheet {sheet.title!r}, row {number}",
                    dict(zip(names, values[first:], strict=False)),
                )
    finally:
        book.close()
