"""The house rules that a reader relies on: who may import what."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

# Modules of the package itself that every part may use.
SHARED = {"_attention", "_progress", "_rules", "_sources", "_words"}
SOURCE = Path(__file__).parents[1] / "src" / "whyprompt"


def test_no_part_reaches_into_another_parts_private_modules():
    """A folder's face is public; a module with an underscore is its own affair."""
    found = []
    for file in sorted(SOURCE.rglob("*.py")):
        part = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("whyprompt."):
                continue
            _, other, *inner = node.module.split(".")
            names = [*inner, *(alias.name for alias in node.names)]
            if other not in {part, *SHARED}:
                found += [f"{file.name}: {node.module}.{n}" for n in names if n.startswith("_")]
    assert found == []


def test_every_chart_is_in_the_face_of_the_report():
    report = importlib.import_module("whyprompt.report")
    charts = importlib.import_module("whyprompt.report.charts")
    assert set(charts.__all__) < set(report.__all__)
    for name in report.__all__:
        assert getattr(report, name).__name__ == name


def test_a_level_is_never_rounded_to_whole_percents():
    """0.995 is no 100%: `whyprompt._words.percent` writes levels."""
    found = [
        f"{file.name}: {line.strip()}"
        for file in sorted(SOURCE.rglob("*.py"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if re.search(r"level['\"\]]*:\.\d%|\{100 \* [^}]*level", line)
    ]
    assert found == []
