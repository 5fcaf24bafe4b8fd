"""What a prepared table holds: sizes, categories, lengths, missing cells, repeats, leakage."""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from whyprompt.errors import DataError
from whyprompt.trials.items.item import normalised_question

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

__all__ = ["Category", "Exploration", "Lengths", "Repeats", "explore", "table_columns"]

_NEEDED = ("item_id", "task_type", "question", "answer")


@dataclass(frozen=True, kw_only=True, slots=True)
class Category:
    """One task: its items, the items kept out for worked examples, and its typical lengths in words."""

    task_type: str
    n_items: int
    n_examples: int
    share: float
    median_question_words: float
    median_answer_words: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """How long one text column is, in words."""

    column: str
    minimum: int
    lower_quartile: float
    median: float
    mean: float
    upper_quartile: float
    maximum: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeats:
    """Rows that repeat an earlier one.

    Parameters
    ----------
    same_id : int
    same_question : int
        Equal without case, punctuation and spacing.
    same_but_for_numbers : int
        Equal once every number is masked, those above included: items of one template, which are not
        independent.
    pairs : tuple of (str, str)
        The ids of up to five pairs with the same question.
    """

    same_id: int
    same_question: int
    same_but_for_numbers: int
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """What a prepared table holds.

    Parameters
    ----------
    n_items, n_examples : int
    categories : tuple of Category
    lengths : tuple of Lengths
    missing : mapping of str to (int, int)
        Empty cells, and all cells, of every column, complete ones too, over items and examples.
    duplicates : Repeats
        Within the items.
    leakage : Repeats
        Items that are also among the examples; an answer may then stand in the prompt.
    sentence : str
    """

    n_items: int
    n_examples: int
    categories: tuple[Category, ...]
    lengths: tuple[Lengths, ...]
    missing: Mapping[str, tuple[int, int]]
    duplicates: Repeats
    leakage: Repeats
    sentence: str

    def to_frame(self) -> pd.DataFrame:
        """Return every figure as one long table.

        Returns
        -------
        pandas.DataFrame
            Columns ``part``, ``name``, ``measure``, ``value``.
        """
        import pandas as pd

        rows: list[dict[str, Any]] = [
            {"part": "size", "name": "table", "measure": "items", "value": self.n_items},
            {"part": "size", "name": "table", "measure": "examples", "value": self.n_examples},
        ]
        named: list[tuple[str, str, Any]] = [
            *(("category", c.task_type, c) for c in self.categories),
            *(("length in words", n.column, n) for n in self.lengths),
            ("duplicates", "items", self.duplicates),
            ("leakage", "examples in items", self.leakage),
        ]
        rows += [
            {"part": "missing", "name": name, "measure": measure, "value": value}
            for name, (n, total) in self.missing.items()
            for measure, value in (("n missing", n), ("share", n / total))
        ]
        for part, name, entry in named:
            rows += [
                {"part": part, "name": name, "measure": key.replace("_", " "), "value": value}
                for key, value in asdict(entry).items()
                if isinstance(value, int | float)
            ]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as values that JSON can hold.

        Returns
        -------
        dict
        """
        return asdict(self)

    def summary(self) -> str:
        """Return the figures as text for a terminal.

        Returns
        -------
        str
        """
        width = max(len(c.task_type) for c in self.categories)
        lines = [self.sentence, "", f"  {'task':{width}}  items  examples  question words  answer words"]
        lines += [
            f"  {c.task_type:{width}}  {c.n_items:5d}  {c.n_examples:8d}  {c.median_question_words:14g}"
            f"  {c.median_answer_words:12g}"
            for c in self.categories
        ]
        empty = [f"{name} {n} ({n / total:.0%})" for name, (n, total) in self.missing.items() if n]
        lines.append("")
        lines.append("Empty cells: " + (", ".join(empty) or "none") + ".")
        return "\n".join(lines)


def table_columns(frame: Any) -> dict[str, list[Any]]:  # noqa: ANN401 - any frame library's type
    """Give a frame's columns as lists, an absent cell as None.

    Raises
    ------
    DataError
        If the argument is no frame.
    """
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

    Returns
    -------
    Exploration

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
    >>> found.duplicates.same_question, found.duplicates.same_but_for_numbers
    (1, 2)
    """
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
    texts = [c for c in ("question", "answer", "solution") if c in items]
    words = {c: [len(str(v).split()) for v in items[c] if v is not None] for c in texts}
    duplicates = _within(items)
    leakage = (
        _between(items, others)
        if others
        else Repeats(same_id=0, same_question=0, same_but_for_numbers=0, pairs=())
    )
    return Exploration(
        n_items=n_items,
        n_examples=n_examples,
        categories=tuple(_categories(items, others)),
        lengths=tuple(_lengths(c, values) for c, values in words.items() if values),
        missing={c: _missing([*values, *others.get(c, [])]) for c, values in items.items()},
        duplicates=duplicates,
        leakage=leakage,
        sentence=_sentence(n_items, n_examples, len(set(items["task_type"])), duplicates, leakage),
    )


def _categories(items: dict[str, list[Any]], others: dict[str, list[Any]]) -> Iterable[Category]:
    n = len(items["item_id"])
    for task in dict.fromkeys(items["task_type"]):
        rows = [i for i, t in enumerate(items["task_type"]) if t == task]

        def typical(column: str, rows: list[int] = rows) -> float:
            return float(statistics.median(len(str(items[column][i] or "").split()) for i in rows))

        yield Category(
            task_type=str(task),
            n_items=len(rows),
            n_examples=others.get("task_type", []).count(task),
            share=len(rows) / n,
            median_question_words=typical("question"),
            median_answer_words=typical("answer"),
        )


def _lengths(column: str, values: list[int]) -> Lengths:
    # One value has no quartiles but itself.
    low, middle, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    )
    return Lengths(
        column=column,
        minimum=min(values),
        lower_quartile=float(low),
        median=float(middle),
        mean=statistics.fmean(values),
        upper_quartile=float(high),
        maximum=max(values),
    )


def _missing(cells: list[Any]) -> tuple[int, int]:
    return sum(v is None for v in cells), len(cells)


def _masked(question: str) -> str:
    return re.sub(r"\d+", "#", normalised_question(question))


def _within(items: dict[str, list[Any]]) -> Repeats:
    ids = [str(v) for v in items["item_id"]]
    questions = [str(v or "") for v in items["question"]]
    first: dict[str, str] = {}
    pairs: list[tuple[str, str]] = []
    for name, question in zip(ids, questions, strict=True):
        key = normalised_question(question)
        if key in first:
            pairs.append((first[key], name))
        else:
            first[key] = name
    return Repeats(
        same_id=len(ids) - len(set(ids)),
        same_question=len(pairs),
        same_but_for_numbers=len(ids) - len({_masked(q) for q in questions}),
        pairs=tuple(pairs[:5]),
    )


def _between(items: dict[str, list[Any]], others: dict[str, list[Any]]) -> Repeats:
    shown = {
        normalised_question(str(q or "")): str(i)
        for i, q in zip(others["item_id"], others["question"], strict=True)
    }
    masked = {_masked(str(q or "")) for q in others["question"]}
    shown_ids = {str(i) for i in others["item_id"]}
    pairs = [
        (str(i), shown[key])
        for i, q in zip(items["item_id"], items["question"], strict=True)
        if (key := normalised_question(str(q or ""))) in shown
    ]
    return Repeats(
        same_id=sum(str(i) in shown_ids for i in items["item_id"]),
        same_question=len(pairs),
        same_but_for_numbers=sum(_masked(str(q or "")) in masked for q in items["question"]),
        pairs=tuple(pairs[:5]),
    )


def _sentence(n_items: int, n_examples: int, n_tasks: int, duplicates: Repeats, leakage: Repeats) -> str:
    return (
        f"{n_items} items of {n_tasks} {'task' if n_tasks == 1 else 'tasks'} and {n_examples} examples kept "
        f"out of them. Within the items {duplicates.same_question} repeat a question, "
        f"{duplicates.same_but_for_numbers} repeat one but for its numbers. Of the items "
        f"{leakage.same_question} stand among the examples, {leakage.same_but_for_numbers} do but for their "
        "numbers."
    )
