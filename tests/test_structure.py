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


# Each imports only from what stands before it: so no circle can close, and one can read from the bottom up.
FLOORS = (
    *("_words", "errors", "_version", "_summary", "_display", "_progress", "_attention"),
    *("_arguments", "_files", "_rows", "_cache", "_sources", "_lean", "_workers"),
    *("stats", "charts", "results", "tables", "graph", "effects", "mediation"),
    *("_study_items", "_endpoint_settings", "_study_outcomes", "_study_settings"),
    *("_study_forms", "_study_words", "study"),
    *("trials", "examples", "answers", "page"),
    # The front door; the command line comes in by it.
    *("whyprompt", "cli", "__main__"),
)


def _modules():
    for file in sorted(SOURCE.rglob("*.py")):
        parts = ("whyprompt", *file.relative_to(SOURCE).with_suffix("").parts)
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def _imports():
    """Every import of one of our modules by another: inside functions and for types too."""
    files = dict(_modules())
    for name, file in files.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                ours = {f"{node.module}.{a.name}" for a in node.names} & set(files) or {node.module}
            elif isinstance(node, ast.Import):
                ours = {a.name for a in node.names}
            else:
                continue
            yield from ((name, other) for other in sorted(ours & set(files) - {name}))


def _floor(module):
    return module.split(".")[1] if "." in module else module


def test_imports_go_down():
    """Charts know rows, not results; effects know no language model; the command line knows all.

    What fails here is to be turned round: move what both need to a lower floor, or let the upper one hand it
    over as an argument (a number, rows, a function). An import for types alone counts: it is knowledge too.
    """
    known = {_floor(name) for name, _ in _modules()}
    assert known == set(FLOORS), "a folder or module at the root has no floor yet: give it one"
    height = {name: k for k, name in enumerate(FLOORS)}
    up = [
        f"{name} imports {other}: {_floor(other)!r} stands above {_floor(name)!r}"
        for name, other in _imports()
        if height[_floor(other)] > height[_floor(name)]
    ]
    assert up == []


def test_no_circle_inside_a_floor():
    """A module that imports another one is not imported by it, over however many steps."""
    arrows = set(_imports())
    # Take away arrows into what imports nothing, and out of what nobody imports: circles are left.
    while ends := {a for a in arrows if a[1] not in {x for x, _ in arrows}} | {
        a for a in arrows if a[0] not in {y for _, y in arrows}
    }:
        arrows -= ends
    assert sorted(arrows) == []
