"""What `explore` counts, against tables whose figures are known."""

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whyprompt.errors import DataError
from whyprompt.examples.charts import exploration_charts
from whyprompt.examples.explore import explore

ITEMS = pd.DataFrame(
    {
        "item_id": ["a", "b", "c", "d", "e"],
        "task_type": ["sum", "sum", "sum", "word", "word"],
        "question": ["What is 1 + 2?", "what is 1 + 2", "What is 30 + 4?", "Spell cat", "Spell a long word"],
        "answer": ["3", "3", "34", "c a t", "w o r d"],
        "difficulty": [1.0, 1.0, 2.0, None, None],
    }
)
EXAMPLES = pd.DataFrame(
    {
        "item_id": ["x", "d"],
        "task_type": ["sum", "word"],
        "question": ["WHAT is 30 + 4", "Spell dog"],
        "answer": ["34", "d o g"],
        "difficulty": [2.0, None],
    }
)


def test_every_figure_of_a_small_table():
    found = explore(ITEMS, EXAMPLES)
    assert (found.n_items, found.n_examples) == (5, 2)
    assert found.categories[["task_type", "n_items", "n_examples", "share"]].to_numpy().tolist() == [
        ["sum", 3, 1, 0.6],
        ["word", 2, 1, 0.4],
    ]
    assert found.categories["median_question_words"].tolist() == [5.0, 3.0]
    question, answer = found.lengths.itertuples()
    assert (question.minimum, question.median, question.mean, question.maximum) == (2, 5.0, 4.2, 5)
    assert (question.lower_quartile, question.upper_quartile) == (4.0, 5.0)
    assert (answer.minimum, answer.maximum) == (1, 4)
    assert found.missing["difficulty"] == (3, 7)
    duplicates, leakage = found.repeats.itertuples()
    assert duplicates.same_question == 1
    assert duplicates.pairs == (("a", "b"),)
    assert duplicates.same_but_for_numbers == 2
    assert duplicates.same_id == 0
    assert leakage.same_question == 1
    assert leakage.pairs == (("c", "x"),)
    assert leakage.same_but_for_numbers == 3
    assert leakage.same_id == 1


def test_the_table_holds_every_figure_and_the_frame_library_does_not_matter():
    found = explore(ITEMS, EXAMPLES)
    assert explore(pa.Table.from_pandas(ITEMS), pa.Table.from_pandas(EXAMPLES)).to_dict() == found.to_dict()
    table = found.to_frame()
    value = table.set_index(["part", "name", "measure"])["value"]
    assert value["size", "table", "items"] == 5
    assert value["leakage", "examples in items", "same question"] == 1
    assert value["missing", "difficulty", "n missing"] == 3
    assert found.to_dict()["duplicates"]["same_question"] == 1


@given(
    st.lists(st.text(alphabet="abc 12", min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=12)
)
def test_copies_are_counted_whatever_the_texts(questions):
    table = pd.DataFrame(
        {"item_id": range(len(questions)), "task_type": "t", "question": questions, "answer": "x"}
    )
    twice = pd.concat([table, table.assign(item_id=table["item_id"] + 100)])
    once, both = (explore(t).repeats.loc["duplicates"] for t in (table, twice))
    assert both.same_question == once.same_question + len(questions)
    assert once.same_question <= once.same_but_for_numbers
    against = explore(table, table).repeats.loc["leakage"]
    assert against.same_question == against.same_id == len(questions)


def _drawn(chart):
    """Give the rows of a chart, which altair may keep apart from it under a name."""
    spec = chart.to_dict()
    return spec["data"]["values"] if "values" in spec["data"] else spec["datasets"][spec["data"]["name"]]


def rows_of(chart):
    spec = chart.to_dict()
    held = spec["data"]
    return held["values"] if "values" in held else spec["datasets"][held["name"]]


def test_charts_hold_the_table():
    charts = exploration_charts(ITEMS, EXAMPLES)
    bars = _drawn(charts["categories"])
    assert {(b["task"], b["role"]): b["count"] for b in bars} == {
        ("sum", "item"): 3,
        ("sum", "example kept out"): 1,
        ("word", "item"): 2,
        ("word", "example kept out"): 1,
    }
    ticks = _drawn(charts["lengths"])
    assert [t["words"] for t in ticks if t["text"] == "question"] == [5, 5, 5, 2, 4]
    assert {c["column"]: c["share"] for c in _drawn(charts["missing"])}["difficulty"] == pytest.approx(3 / 7)


def test_bad_tables_are_refused_by_name():
    with pytest.raises(DataError, match="'answer'"):
        explore(ITEMS.drop(columns="answer"))
    with pytest.raises(DataError, match="examples have no column 'question'"):
        explore(ITEMS, EXAMPLES.drop(columns="question"))
    with pytest.raises(DataError, match="no rows"):
        explore(ITEMS.iloc[:0])
    with pytest.raises(DataError, match="a table is wanted, not dict"):
        explore({"question": ["x"]})
