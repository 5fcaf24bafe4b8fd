"""YAML and TOML files whose keys know the line they stand on."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from whyprompt._rows import is_file
from whyprompt.errors import StudyError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Location = tuple["str | int", ...]
Lines = Mapping[Location, int]

_MOST_BYTES = 1 << 20
_MOST_ENTRIES = 20_000  # an alias counts as often as it is used


def known_location(data: Any, lines: Lines, location: Sequence[str | int]) -> Location:  # noqa: ANN401 - a file's content
    """Drop from a location the parts that are not in the file, other than its last."""
    kept: Location = ()
    for i, part in enumerate(location):
        if (*kept, part) in lines or (i == len(location) - 1 and not _is_tag(data, kept, part)):
            kept = (*kept, part)
    return kept


def _is_tag(data: Any, parent: Location, part: str | int) -> bool:  # noqa: ANN401 - a file's content
    # The last part is a union's tag, not a missing key, when the parent is not a mapping,
    # or holds it as a value ("kind: direct"), or the tag is in parentheses.
    if str(part).startswith("("):
        return True
    for step in parent:
        data = data[step]
    return not isinstance(data, dict) or part in {v for v in data.values() if isinstance(v, str)}


def line_of(lines: Lines, location: Location) -> int:
    """Give the line of a key, or of the nearest key around it."""
    while location and location not in lines:
        location = location[:-1]
    return lines.get(location, 1)


def read_source(path: Path) -> tuple[Any, Lines]:
    """Read a YAML or TOML file: its content, and the line of every key.

    A file that cannot be read, is malformed or has another extension is a `StudyError`.
    """
    if not is_file(path):
        raise StudyError(f"{path} is a folder" if path.is_dir() else f"no such file: {path}")
    if path.suffix.lower() not in {".yaml", ".yml", ".toml"}:
        raise StudyError(
            f"{path}: a study is a .yaml, .yml or .toml file",
            hint=f"of questions or trials that are there: whyprompt init {shlex.quote(str(path))}",
        )
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise StudyError(
                f"{path} has {path.stat().st_size:,} bytes; a study has at most {_MOST_BYTES:,}",
                hint="keep items in a file of their own, and name it: {source: file, path: ...}",
            )
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise StudyError(f"{path} is not UTF-8 text (byte {error.start})", hint="save it as UTF-8") from None
    try:
        return _read_toml(path, text) if path.suffix.lower() == ".toml" else _read_yaml(path, text)
    except RecursionError:
        raise StudyError(f"{path}: it holds itself, by an alias (*), or is nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """Refuses what cannot be read as its tag says, by its line, and a file of too many entries."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(text)
        self.path = path
        self.entries = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401 - yaml's own
        self.count()
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - yaml's own
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError):
            # What yaml's own readers raise on 2024-13-45, "!!int abc" or a number of thousands of digits.
            kind = node.tag.rpartition(":")[2]
            raise StudyError(
                f"{self.path}:{node.start_mark.line + 1}: {_shown(node.value)} cannot be read as {kind}",
                hint="put text in quotes",
            ) from None

    def count(self) -> None:
        """Count an entry, and refuse the file where there are too many."""
        self.entries += 1
        if self.entries > _MOST_ENTRIES:
            raise StudyError(
                f"{self.path} has more than {_MOST_ENTRIES:,} entries, those of aliases (*) counted as often "
                "as they are used",
                hint="a study has some dozens; keep items in a file of their own",
            )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _read_yaml(path: Path, text: str) -> tuple[Any, Lines]:
    lines: dict[Location, int] = {}

    def walk(node: yaml.Node, location: Location) -> None:
        loader.count()
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                name = str(key.value)
                line = key.start_mark.line + 1
                if name in seen:
                    raise StudyError(
                        f"{path}:{line}: {'.'.join(map(str, (*location, name)))}: key given twice"
                    )
                seen.add(name)
                lines[*location, name] = line
                walk(value, (*location, name))
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                lines[*location, i] = value.start_mark.line + 1
                walk(value, (*location, i))

    data = None
    try:
        loader = _Loader(path, text)
        root = loader.get_single_node()
        if root is not None:
            loader.entries = 0
            walk(root, ())
            data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise StudyError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise StudyError(f"{path}: not valid YAML: {error}") from None
    return data, lines


def _read_toml(path: Path, text: str) -> tuple[Any, Lines]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path}: not valid TOML: {error}") from None
    except ValueError:  # Python reads no whole number of more than 4,300 digits
        raise StudyError(f"{path}: holds a whole number of more than 4,300 digits") from None
    return data, _toml_lines(text)


def _toml_lines(text: str) -> dict[Location, int]:
    """Give the line of every key of a valid TOML text; those of an inline table stand where it begins."""
    lines: dict[Location, int] = {}
    table: Location = ()
    arrays: dict[Location, int] = {}
    inside = ""  # the mark that closes the text of several lines we are in
    for number, line in enumerate(text.splitlines(), start=1):
        if inside:
            inside = "" if inside in line else inside
            continue
        for mark in ('"""', "'''"):
            if line.count(mark) % 2:
                inside = mark
        if header := re.match(r"\s*\[\[([^\]]+)\]\]", line):
            name: Location = tuple(p.strip().strip("\"'") for p in header[1].split("."))
            arrays[name] = arrays.get(name, -1) + 1
            table = (*name, arrays[name])
            lines.setdefault(name, number)
            lines[table] = number
        elif header := re.match(r"\s*\[([^\]]+)\]", line):
            table = ()
            for part in header[1].split("."):
                table = (*table, part.strip().strip("\"'"))
                if table in arrays:
                    table = (*table, arrays[table])
                lines.setdefault(table, number)
        elif key := re.match(r"\s*([A-Za-z0-9_\-.\"']+)\s*=", line):
            name = table
            for part in key[1].split("."):
                name = (*name, part.strip("\"'"))
                lines.setdefault(name, number)
            # Keys of an inline table stand on the same line.
            for inner in re.findall(r"[{,]\s*([A-Za-z0-9_\-]+)\s*=", line):
                lines.setdefault((*name, inner), number)
    return lines
