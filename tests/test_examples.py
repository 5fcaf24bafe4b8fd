"""Every example in a docstring gives what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import whyprompt

MODULES = sorted(m.name for m in pkgutil.walk_packages(whyprompt.__path__, "whyprompt."))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0


def test_examples_are_found():
    attempted = sum(
        len(test.examples)
        for name in MODULES
        for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name))
    )
    assert attempted > 300
