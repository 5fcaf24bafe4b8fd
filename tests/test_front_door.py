"""`import whyprompt as wp`: quick, complete, and without a folder to learn."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import whyprompt as wp

HEAVY = ("altair", "narwhals", "numpy", "pandas", "pydantic", "scipy", "sklearn", "torch", "transformers")


def loaded_by(code):
    """Give which of the heavy packages are imported by some code, in an interpreter of its own."""
    tell = f"{code}\nimport sys\nprint(*(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", tell], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_import_itself_loads_nothing():
    assert loaded_by("import whyprompt as wp; dir(wp); wp.__version__") == []


@pytest.mark.parametrize("call", ["wp.estimate_effect", "wp.load_study", "wp.load_trials"])
def test_nothing_that_runs_models_or_draws_is_loaded_for_a_table_or_a_study(call):
    assert set(loaded_by(f"import whyprompt as wp; {call}")) <= {"narwhals", "numpy", "pydantic", "scipy"}


def test_every_name_is_there_and_is_listed():
    assert set(wp.__all__) <= set(dir(wp))
    assert wp.__all__ == sorted(set(wp.__all__))
    for name in wp.__all__:
        assert getattr(wp, name) is not None
    assert wp.charts.love_plot.__module__ == "whyprompt.charts.balance"
    assert 35 <= len(wp.__all__) <= 60
    with pytest.raises(AttributeError, match="no attribute 'estimat'"):
        _ = wp.estimat


def test_editors_see_the_names_where_they_are_written():
    """What is imported for types is what `__getattr__` gives: editors and mypy read only the first."""
    tree = ast.parse(Path(wp.__file__).read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If))
    shown = {a.name: n.module for n in block.body for a in n.names}
    assert sorted({*shown, "__version__"}) == wp.__all__
    for name, module in shown.items():
        assert getattr(wp, name) is getattr(sys.modules[module], name)
