"""Reading a table or a graph that a command names; every failure names the file and says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whyprompt.errors import DataError, GraphError

if TYPE_CHECKING:
    from whyprompt.graph import CausalGraph

__all__ = ["TABLES", "read_graph", "read_table"]

TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json")
"""Endings of the files that `read_table` reads."""

# pandas also takes "None" and "null" for missing; an arm may be called that.
_MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL"]


def read_table(path: Path) -> Any:  # noqa: ANN401 - a pandas or pyarrow table
    """Read a table by the ending of its file.

    Parameters
    ----------
    path : Path
        ``.csv``, ``.tsv``, ``.parquet``, ``.jsonl``, ``.ndjson``, or ``.json`` with a list of records.

    Returns
    -------
    pandas.DataFrame or pyarrow.Table

    Raises
    ------
    DataError
        If the file is absent, empty, not of its ending's format, or has a column twice.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    if path.is_dir():
        raise DataError(f"{path} is a folder", hint="give a table file")
    suffix = path.suffix.lower()
    if suffix in {".csv", ".tsv"}:
        return _delimited(path, "\t" if suffix == ".tsv" else ",")
    if suffix == ".parquet":
        return _parquet(path)
    if suffix in {".jsonl", ".ndjson", ".json"}:
        return _records(path, lines=suffix != ".json")
    raise DataError(
        f"{path}: a table ending in {suffix or 'nothing'} is not known", hint=f"one of: {', '.join(TABLES)}"
    )


def _delimited(path: Path, separator: str) -> Any:  # noqa: ANN401 - pandas.DataFrame
    import csv

    import pandas as pd

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file, delimiter=separator), [])
        _refuse_repeats(header, path)
        return pd.read_csv(
            path, sep=separator, encoding="utf-8-sig", keep_default_na=False, na_values=_MISSING
        )
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start})", hint="save it as UTF-8") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table: {str(error).strip()}") from error


def _parquet(path: Path) -> Any:  # noqa: ANN401 - pyarrow.Table
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read()
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a Parquet file: {error}") from error
    _refuse_repeats(table.column_names, path)
    return table


def _records(path: Path, *, lines: bool) -> Any:  # noqa: ANN401 - pandas.DataFrame
    import pandas as pd

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _refuse_repeats([key for key, _ in pairs], path)
        return dict(pairs)

    try:
        text = path.read_text(encoding="utf-8")
        if lines:
            rows = []
            for number, line in enumerate(text.splitlines(), 1):
                if not line.strip():
                    continue
                try:
                    rows.append(json.loads(line, object_pairs_hook=once))
                except json.JSONDecodeError as error:
                    raise DataError(f"{path}, line {number}: not JSON ({error.msg})") from error
        else:
            rows = json.loads(text, object_pairs_hook=once)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start})", hint="save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} does not hold records, one object a trial")
    return pd.DataFrame(rows)


def _refuse_repeats(names: list[str], path: Path) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{path} has more than one column named {', '.join(map(repr, twice))}",
            hint="rename or drop the copies, so that a name means one column",
        )


def read_graph(text: str) -> CausalGraph:
    """Read a causal graph from a file, or from the text itself.

    Parameters
    ----------
    text : str
        A file name (``.dot``, ``.gv``, ``.gml``, or any with arrow text), or arrow text such as
        ``"difficulty -> arm; difficulty -> score; arm -> score"``.

    Returns
    -------
    CausalGraph

    Raises
    ------
    GraphError
        If it cannot be read, or is not an acyclic graph.
    """
    from whyprompt.graph import CausalGraph

    content, suffix = text, ""
    if not any(mark in text for mark in ("->", "<-", "{", "\n", ";")):
        path = Path(text)
        if not path.is_file():
            raise GraphError(
                f"the graph {text!r} is neither a file nor arrow text",
                hint='write arrows, for example --graph "difficulty -> arm, score; arm -> score"',
            )
        try:
            content, suffix = path.read_text(encoding="utf-8"), path.suffix.lower()
        except UnicodeDecodeError as error:
            raise GraphError(f"{path} is not UTF-8 text") from error
    start = content.lstrip().lower()
    if suffix in {".dot", ".gv"} or (start.startswith(("digraph", "strict", "dag")) and "{" in start):
        return CausalGraph.from_dot(content)
    if suffix == ".gml" or (start.startswith("graph") and "[" in start and "->" not in start):
        return CausalGraph.from_gml(content)
    return CausalGraph.parse(content)
