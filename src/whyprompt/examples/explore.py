"""What a prepared table holds: sizes, categories, lengths, missing cells, repeats, leakage."""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whyprompt._display import Cells, Shown, frame_cells
from whyprompt.errors import DataError
from whyprompt.results import plain
from whyprompt.trials.items.item import normalised_question

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    Repeats = tuple[int, int, int, tuple[tuple[str, str], ...]]

_NEEDED = ("item_id", "task_type", "question", "answer")
_REPEATS = ("same_id", "same_question", "same_but_for_numbers", "pairs")


@dataclass(frozen=True, kw_only=True, eq=False)
class Exploration(Shown):
    """What a prepared table holds.

    Parameters
    ----------
    n_items, n_examples : int
        Rows of the table, and items kept out of it.
    categories : pandas.DataFrame
        One row a task: ``task_type``, ``n_items``, ``n_examples`` (kept out), ``share`` of the items, and the
        typical lengths in words, ``median_question_words`` and ``median_answer_words``.
    lengths : pandas.DataFrame
        One row a text column, ``column``, and how long it is in words: ``minimum``, ``lower_quartile``,
        ``median``, ``mean``, ``upper_quartile``, ``maximum``.
    missing : mapping of str to (int, int)
        Empty cells, and all cells, of every column, complete ones too, over items and examples.
    repeats : pandas.DataFrame
        Row ``duplicates``: items that repeat an earlier one. Row ``leakage``: items that are also among the
        examples; an answer may then stand in the prompt. Columns ``same_id``; ``same_question`` (equal
        without case, punctuation and spacing); ``same_but_for_numbers`` (equal once every number is masked,
        those above included: items of one template, which are not independent); and ``pairs``, the ids of up
        to five pairs with the same question.
    sentence : str
        The main figures in words.
    """

    n_items: int
    n_examples: int
    categories: pd.DataFrame
    lengths: pd.DataFrame
    missing: Mapping[str, tuple[int, int]]
    repeats: pd.DataFrame
    sentence: str

    def _cells(self) -> Cells:
        return frame_cells(self.categories)

    def to_frame(self) -> pd.DataFrame:
        """Return every figure as one long table: ``part``, ``name``, ``measure``, ``value``."""
        import pandas as pd

        rows: list[tuple[str, str, str, float]] = [
            ("size", "table", "items", self.n_items),
            ("size", "table", "examples", self.n_examples),
        ]
        for name, (n, total) in self.missing.items():
            rows += [("missing", name, "n missing", n), ("missing", name, "share", n / total)]
        counts = self.repeats.drop(columns="pairs")
        tables = {
            "category": self.categories.set_index("task_type"),
            "length in words": self.lengths.set_index("column"),
            "duplicates": counts.loc[["duplicates"]].set_axis(["items"]),
            "leakage": counts.loc[["leakage"]].set_axis(["examples in items"]),
        }
        for part, table in tables.items():
            for of, figures in table.to_dict("index").items():
                rows += [(part, str(of), str(k).replace("_", " "), v) for k, v in figures.items()]
        return pd.DataFrame(rows, columns=["part", "name", "measure", "value"])

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as values that JSON can hold, the tables as lists of rows."""
        found = {
            "n_items": self.n_items,
            "n_examples": self.n_examples,
            "categories": self.categories.to_dict("records"),
            "lengths": self.lengths.to_dict("records"),
            "missing": self.missing,
            "duplicates": self.repeats.loc["duplicates"].to_dict(),
            "leakage": self.repeats.loc["leakage"].to_dict(),
            "sentence": self.sentence,
        }
        return {name: plain(value) for name, value in found.items()}

    def summary(self) -> str:
        """Return the figures as text for a terminal."""
        width = max(len(task) for task in self.categories["task_type"])
        lines = [self.sentence, "", f"  {'task':{width}}  items  examples  question words  answer words"]
        lines += [
            f"  {task:{width}}  {n:5d}  {kept:8d}  {question:14g}  {answer:12g}"
            for task, n, kept, _, question, answer in self.categories.itertuples(index=False)
        ]
        empty = [f"{name} {n} ({n / total:.0%})" for name, (n, total) in self.missing.items() if n]
        lines.append("")
        lines.append("Empty cells: " + (", ".join(empty) or "none") + ".")
        return "\n".join(lines)


def table_columns(frame: Any) -> dict[str, list[Any]]:  # noqa: ANN401 - any frame library's type
    """Give a frame's columns as lists, an absent cell as None."""
    import narwhals as nw

    try:
        columns = nw.from_native(frame, eager_only=True).to_dict(as_series=False)
    except TypeError:
        raise DataError(
            f"a table is wanted, not {type(frame).__name__}", hint="give a pandas, polars or pyarrow table"
        ) from None
    return {str(k): [None if _absent(v) else v for v in values] for k, values in columns.items()}


def _absent(value: Any) -> bool:  # noqa: ANN401 - any cell
    return value is None or (isinstance(value, float) and math.isnan(value)) or value == ""


def explore(frame: Any, examples: Any = None) -> Exploration:  # noqa: ANN401 - any frame library's type
    """Describe a table of items, and how it overlaps with the items kept out of it.

    Parameters
    ----------
    frame : DataFrame
        With ``item_id``, ``task_type``, ``question``, ``answer``; ``solution`` where there is one.
    examples : DataFrame, optional
        Items kept out for worked examples.

    Raises
    ------
    DataError
        If a needed column is missing, or there are no rows.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({
    ...     "item_id": ["a", "b", "c"], "task_type": ["sum"] * 3,
    ...     "question": ["What is 1 + 2?", "What is 5 + 2?", "what is 1 + 2"], "answer": ["3", "7", "3"],
    ... })
    >>> found = explore(table)
    >>> found.repeats.loc["duplicates", ["same_question", "same_but_for_numbers"]].tolist()
    [1, 2]
    """
    import pandas as pd

    items = table_columns(frame)
    others = {} if examples is None else table_columns(examples)
    for name in _NEEDED:
        if name not in items:
            raise DataError(f"the table has no column {name!r}; it has {', '.join(items)}")
        if others and name not in others:
            raise DataError(f"the examples have no column {name!r}; they have {', '.join(others)}")
    n_items, n_examples = len(items["item_id"]), len(others.get("item_id", []))
    if n_items == 0:
        raise DataError("the table has no rows")
    words = {
        c: [len(str(v).split()) for v in items[c] if v is not None]
        for c in ("question", "answer", "solution")
        if c in items
    }
    every = {c: [*values, *others.get(c, [])] for c, values in items.items()}
    repeats = _repeats(items, others)
    categories = pd.DataFrame(_categories(items, others))
    return Exploration(
        n_items=n_items,
        n_examples=n_examples,
        categories=categories,
        lengths=pd.DataFrame([_lengths(c, values) for c, values in words.items() if values]),
        missing={c: (cells.count(None), len(cells)) for c, cells in every.items()},
        repeats=pd.DataFrame(repeats, index=["duplicates", "leakage"], columns=list(_REPEATS)),
        sentence=_sentence(n_items, n_examples, len(categories), *repeats),
    )


def _categories(items: dict[str, list[Any]], others: dict[str, list[Any]]) -> list[dict[str, Any]]:
    tasks = items["task_type"]
    words = {c: [len(str(v or "").split()) for v in items[c]] for c in ("question", "answer")}
    out = []
    for task in dict.fromkeys(tasks):
        rows = [i for i, t in enumerate(tasks) if t == task]
        out.append(
            {
                "task_type": str(task),
                "n_items": len(rows),
                "n_examples": others.get("task_type", []).count(task),
                "share": len(rows) / len(tasks),
                **{
                    f"median_{c}_words": float(statistics.median(n[i] for i in rows))
                    for c, n in words.items()
                },
            }
        )
    return out


def _lengths(column: str, values: list[int]) -> dict[str, Any]:
    # One value has no quartiles but itself.
    low, middle, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    )
    return {
        "column": column,
        "minimum": min(values),
        "lower_quartile": float(low),
        "median": float(middle),
        "mean": statistics.fmean(values),
        "upper_quartile": float(high),
        "maximum": max(values),
    }


def _repeats(items: dict[str, list[Any]], others: dict[str, list[Any]]) -> list[Repeats]:
    """Count, as in `_REPEATS`, what repeats within the items, and what of them is among the others."""
    ids, keys, masks = _keys(items)
    first: dict[str, int] = {}
    pairs = [(ids[first[key]], ids[n]) for n, key in enumerate(keys) if first.setdefault(key, n) != n]
    within = (len(ids) - len(set(ids)), len(pairs), len(ids) - len(set(masks)), tuple(pairs[:5]))
    if not others:
        return [within, (0, 0, 0, ())]
    other_ids, other_keys, other_masks = _keys(others)
    shown = dict(zip(other_keys, other_ids, strict=True))
    pairs = [(i, shown[k]) for i, k in zip(ids, keys, strict=True) if k in shown]
    known = [set(other_ids), set(other_masks)]
    same = [sum(one in held for one in ours) for ours, held in zip((ids, masks), known, strict=True)]
    return [within, (same[0], len(pairs), same[1], tuple(pairs[:5]))]


def _keys(table: dict[str, list[Any]]) -> tuple[list[str], list[str], list[str]]:
    """Give ids, questions without case, punctuation and spacing, and these with their numbers masked."""
    keys = [normalised_question(str(q or "")) for q in table["question"]]
    return [str(v) for v in table["item_id"]], keys, [re.sub(r"\d+", "#", key) for key in keys]


def _sentence(n_items: int, n_examples: int, n_tasks: int, duplicates: Repeats, leakage: Repeats) -> str:
    return (
        f"{n_items} items of {n_tasks} {'task' if n_tasks == 1 else 'tasks'} and {n_examples} examples kept "
        f"out of them. Within the items {duplicates[1]} repeat a question, {duplicates[2]} repeat one but "
        f"for its numbers. Of the items {leakage[1]} stand among the examples, {leakage[2]} do but for their "
        "numbers."
    )
