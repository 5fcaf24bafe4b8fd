"""Rows of delimited text and of JSON, read strictly: a row that does not fit is refused by its line."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from typing import TYPE_CHECKING, Any

from whyprompt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars (|)"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_COMMA = re.compile(r"[-+]?\d+(,\d+)?")
# 1,500 may be a thousand and a half thousand, or one and a half.
_EITHER = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")


def is_file(path: Path) -> bool:
    """Say whether a path is a file that ends: a pipe is none, nor is a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Say whether a path is a folder, also of a name that none can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def unreadable(value: object) -> str | None:
    r"""Say what makes a value one that cannot be computed with or written down; None where nothing does.

    Examples
    --------
    >>> unreadable("half an emoji: \ud83d")
    'holds half a character (a lone surrogate, U+D83D)'
    >>> unreadable({"a": [1.0, float("inf")]})
    'holds inf, which is no number to compute with'
    """
    if isinstance(value, str):
        half = _SURROGATE.search(value)
        return None if half is None else f"holds half a character (a lone surrogate, U+{ord(half[0]):04X})"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"holds {value}, which is no number to compute with"
    if isinstance(value, int):
        return None if abs(value) <= sys.float_info.max else "holds a whole number of more than 308 digits"
    if isinstance(value, dict):
        return next((why for part in value.items() for v in part if (why := unreadable(v))), None)
    if isinstance(value, list | tuple):
        return next((why for v in value if (why := unreadable(v))), None)
    return None


def separator_of(path: Path) -> str:
    """Give what separates the columns of a delimited file: a comma (a tab in .tsv), else the commonest."""
    with path.open("rb") as file:
        first = file.readline().decode("utf-8-sig", errors="replace")
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    if len(next(csv.reader([first], delimiter=usual), [])) > 1:
        return usual
    return max(SEPARATORS, key=lambda mark: (first.count(mark), mark == usual))


def delimited_rows(path: Path, separator: str, *, repeats: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Read a delimited file row by row, the header first: the line that a row ends on, and its fields.

    Refused (`DataError`): a row of more fields than the header, or fewer; a column that occurs twice, unless
    `repeats`; a file that is not UTF-8 text.
    """
    before = csv.field_size_limit(sys.maxsize)  # a prompt may be longer than 128 KiB
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=separator, strict=True)
            header = next(reader, [])
            if not repeats:
                _refuse_repeats(header, path)
            yield reader.line_num, header
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise _misfit(path, reader.line_num, row, header)
                yield reader.line_num, row
    except UnicodeDecodeError as error:
        # Text is decoded in pieces: the line is at or after the last one read.
        raise DataError(
            f"{path}:{reader.line_num + 1}: not UTF-8 text: {error.reason}", hint="save it as UTF-8"
        ) from None
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: cannot be read as a table: {error}") from None
    finally:
        csv.field_size_limit(before)


def decimal_commas(path: Path, separator: str, missing: Callable[[str], bool]) -> frozenset[str]:
    r"""Give the columns of a delimited file whose numbers have decimal commas, read to its end.

    All that is not `missing` in them is a number, some have a comma, and not every one with a comma may be
    of thousands (1,500): nobody would know. Where commas separate the columns there is none.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "scores.csv"
    ...     _ = path.write_text("score;tokens;name\n0,5;1,500;a\n1;;0,5")
    ...     sorted(decimal_commas(path, ";", lambda value: value == ""))
    ['score']
    """
    if separator == ",":
        return frozenset()
    rows = delimited_rows(path, separator)
    _, names = next(rows)
    numbers, found = set(range(len(names))), set()
    for _, row in rows:
        for column in tuple(numbers):
            value = row[column]
            if missing(value):
                continue
            if not _COMMA.fullmatch(value):
                numbers.remove(column)
            elif "," in value and not _EITHER.fullmatch(value):
                found.add(column)
    return frozenset(names[column] for column in numbers & found)


def _misfit(path: Path, line: int, row: list[str], header: list[str]) -> DataError:
    hint = "quote a field that holds the separator or a line break; give an empty field for a missing value"
    if len(row) == len(header) + 1 and not row[-1].strip():
        hint = "drop the separator at the end of the line"
    elif len(row) == len(header) + 1:
        hint = "name every column in the first line, and quote a field that holds the separator"
    return DataError(
        f"{path}:{line}: {len(row)} fields, where the first line names {len(header)} columns", hint=hint
    )


def _refuse_repeats(names: Sequence[str], path: Path) -> None:
    """Refuse (`DataError`) a table in which a name means more than one column."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{path} has more than one column named {', '.join(map(repr, twice))}",
            hint="rename or drop the copies, so that a name means one column",
        )


def parquet_table(path: Path) -> Any:  # noqa: ANN401 - pyarrow.Table
    """Read a Parquet file; refuses what is none, is damaged, or has a column twice."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:  # a damaged page is an OSError
        raise DataError(f"{path} is not a Parquet file, or is damaged: {error}") from error
    _refuse_repeats(table.column_names, path)
    return table


def json_value(text: bytes, path: Path, *, line: int | None = None) -> Any:  # noqa: ANN401 - any JSON
    """Read one JSON value from UTF-8, with or without the mark of it; `path` and `line` say where it stands.

    Refused (`DataError`): no JSON, too deep a nest, a key given twice, a number of thousands of digits.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            _refuse_repeats([key for key, _ in pairs], path)
        return found

    where = str(path) if line is None else f"{path}:{line}"
    try:
        return json.loads(text.decode("utf-8-sig"), object_pairs_hook=once)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text: {error.reason}", hint="save it as UTF-8") from None
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}" if line is None else where
        # A run that was stopped, or a copy, leaves the end half written.
        cut = "drop the line where it was cut in writing, or " if line else "where its end is missing, "
        hint = f"{cut}write the file anew"
        ended = error.msg.startswith("Unterminated") or error.pos >= len(error.doc.rstrip())
        left_off = line is not None and ended and not text.endswith(b"\n")
        why = "the last line is cut off" if left_off else error.msg
        raise DataError(f"{place}: not JSON: {why}", hint=hint) from None
    except RecursionError:
        raise DataError(f"{where}: the JSON is nested too deeply") from None
    except ValueError:  # Python reads no whole number of more than 4,300 digits
        raise DataError(f"{where}: holds a whole number of more than 4,300 digits") from None


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a file of one JSON object a line: its number and the object, refused as by `json_value`.

    Only a line feed ends a line: other separators of lines may stand in a text.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            yield number, json_row(line, path, number)


def json_row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """Read one line of a file of one JSON object a line, refused as by `json_value`."""
    row = json_value(line, path, line=number)
    if not isinstance(row, dict):
        raise DataError(
            f"{path}:{number}: a row is an object, not {type(row).__name__}", hint="delete or mend the line"
        )
    return row
