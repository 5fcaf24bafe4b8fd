"""The examples in the docstrings give what they say."""

import doctest
import importlib

import pytest

MODULES = (
    "_measures", "_multiplicity", "_power", "_proportional_odds", "arms", "audit", "dose", "estimate",
    "ordinal", "outcomes", "paired", "result", "weighting_dose", "weighting_multi",
)  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"whyprompt.effects.{name}")
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
