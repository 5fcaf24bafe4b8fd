"""The data of the two worked examples: prepared, explored, saved.

`prepare_example1` (instruction formats) and `prepare_example2` (grade-school reasoning) read a public data
set by name or from a local copy. Where neither can be had they generate verifiable tasks instead, and what
they return says which of these it was. `explore` describes a prepared table; `exploration_charts` draws it.
"""

from whyprompt.examples.charts import exploration_charts
from whyprompt.examples.explore import (
    Category,
    Exploration,
    Lengths,
    Missing,
    Repeats,
    explore,
)
from whyprompt.examples.prepare import ExampleData, prepare_example1, prepare_example2

__all__ = [
    "Category",
    "ExampleData",
    "Exploration",
    "Lengths",
    "Missing",
    "Repeats",
    "exploration_charts",
    "explore",
    "prepare_example1",
    "prepare_example2",
]
