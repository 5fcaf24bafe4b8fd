"""Reading a table that a command names; every failure names the file and says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whyprompt._rows import (
    decimal_commas,
    delimited_rows,
    is_file,
    is_folder,
    json_rows,
    json_value,
    parquet_table,
    separator_of,
    unreadable,
)
from whyprompt.errors import DataError

TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json")
"""Endings of the files that `read_table` reads."""

# pandas also takes "None" and "null" for missing; an arm may be called that.
_MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL"]


def read_table(path: Path) -> Any:  # noqa: ANN401 - a pandas or pyarrow table
    """Read a table by the ending of its file; ``.json`` holds a list of records.

    A delimited one may have commas, semicolons, tabs or bars between its columns; where these are no commas,
    a column of numbers may have decimal commas.

    Refuses a file that is absent, empty, not of its ending's format, or has a column twice.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise DataError(
            f"{path}: a table ending in {suffix or 'nothing'} is not known",
            hint=f"one of: {', '.join(TABLES)}",
        )
    if not is_file(path):
        raise DataError(f"{path} is a folder" if is_folder(path) else f"{path}: there is no such file")
    if suffix in {".csv", ".tsv"}:
        return _delimited(path, separator_of(path))
    if suffix == ".parquet":
        return parquet_table(path)
    return _records(path, lines=suffix != ".json")


def _delimited(path: Path, separator: str) -> Any:  # noqa: ANN401 - pandas.DataFrame
    import pandas as pd

    # pandas fills a short row, and takes the first column for an index where every row has one field more.
    for _ in delimited_rows(path, separator):
        pass
    try:
        frame = pd.read_csv(
            path,
            sep=separator,
            encoding="utf-8-sig",
            keep_default_na=False,
            na_values=_MISSING,
            index_col=False,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path} cannot be read as a table: {str(error).strip()}") from error
    for name in decimal_commas(path, separator, lambda value: value in _MISSING):
        frame[name] = frame[name].str.replace(",", ".").astype(float)
    return frame


def _records(path: Path, *, lines: bool) -> Any:  # noqa: ANN401 - pandas.DataFrame
    import pandas as pd

    rows: Any = [row for _, row in json_rows(path)] if lines else json_value(path.read_bytes(), path)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} does not hold records, one object a trial")
    for number, row in enumerate(rows, start=1):
        for name, value in row.items():
            # No column of text can hold a half character; a number is judged where it is used.
            if isinstance(value, str) and (why := unreadable(value)) is not None:
                raise DataError(
                    f"{path}, record {number}: column {name!r} {why}",
                    hint="write the file anew; such halves come from text that was cut",
                )
    return pd.DataFrame(rows)
