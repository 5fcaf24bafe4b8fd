"""The house rules that a reader relies on: who may import what."""

from __future__ import annotations

import ast
import re
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "whyprompt"


def test_no_part_reaches_into_another_parts_private_names():
    """An underscore on a module of the package's root is for the package, on a name for its module."""
    found = []
    for file in sorted(SOURCE.rglob("*.py")):
        part = file.relative_to(SOURCE).parts[0]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and not f"{node.module}.".startswith(f"whyprompt.{part}."):
                found += [
                    f"{file.name}: {node.module}.{a.name}" for a in node.names if _is_hidden(node, a.name)
                ]
    assert found == []


def _is_hidden(node, name):
    return (node.module or "").startswith("whyprompt.") and re.match(r"_[^_]", name) is not None


def test_one_convention_for_what_is_private():
    """Only the package's own tools, at its root, have an underscore; a folder's rooms have none."""
    hidden = [p for p in SOURCE.rglob("_*.py") if p.name != "__init__.py" and p.parent != SOURCE]
    assert hidden == []


def test_no_two_folders_have_one_name():
    names = [p.parent.name for p in SOURCE.rglob("__init__.py")]
    assert sorted(names) == sorted(set(names))


def test_a_level_is_never_rounded_to_whole_percents():
    """0.995 is no 100%: `whyprompt._words.percent` writes levels."""
    found = [
        f"{file.name}: {line.strip()}"
        for file in sorted(SOURCE.rglob("*.py"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if re.search(r"level['\"\]]*:\.\d%|\{100 \* [^}]*level", line)
    ]
    assert found == []
