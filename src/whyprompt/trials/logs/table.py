"""The trial table as a frame: columns of arrays under the names that every trial table has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.trials.logs.gather import ints
from whyprompt.trials.logs.pairing import distinct_pairs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.trials.logs.gather import Gathered
    from whyprompt.trials.readers.record import Scalar

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Settings = Mapping[str, Mapping[str, Scalar]]

_COUNTED = {"question_chars": "size", "question_words": "words", "numbers": "numbers"}
_NUMBERS = ("prompt_tokens", "completion_tokens", "cost", "latency_s", "propensity")
TAKEN = frozenset(
    (
        *(
            "item_id",
            "arm",
            "rep",
            "task_type",
            "prompt",
            "completion",
            "started_at",
            "model",
            "seed",
            *("error", "stop_reason"),
        ),
        *("log", "cluster", *_COUNTED, *_NUMBERS),
    )
)
"""Columns of the table that mean one thing in all of them."""

_TASK = ("task", "dataset", "dataset_name", "task_name", "subset", "name")
_NO_SCORE = "no score"


def trial_frame(
    g: Gathered,
    kept: Ints,
    settings: Sequence[Settings],
    *,
    outcome: tuple[str, Floats],
    arm: NDArray[Any],
    key: Ints,
    cell: Ints,
) -> pd.DataFrame:
    """Build the table of the kept trials.

    The outcome's name and values, the arm, the item (`key`) and what repeats are of (`cell`) are (kept,).
    """
    import pandas as pd

    setting = ints(g.setting)[kept]
    item = ints(g.item)[kept]
    columns: dict[str, Any] = {
        "item_id": _item_names(g, key, item, ints(g.name)[kept]),
        "arm": arm,
        "rep": _reps(cell),
    }
    task = [_first(one.get("items", {}), _TASK) for one in settings]
    if "task_type" not in g.covariates and any(task):
        columns["task_type"] = np.asarray(task, dtype=object)[setting]
    if any(g.items.known):
        asked = np.asarray(g.items.known, dtype=bool)[item]
        for name, array in _COUNTED.items():
            values = ints(getattr(g.items, array))[item]
            columns[name] = values if asked.all() else np.where(asked, values, np.nan)
    for name, sparse in g.covariates.items():
        own = _tidy(sparse.all(g.n), kept)
        columns[own_name(name)] = own
    for name in ("prompt", "prompt_tokens", "completion", "completion_tokens"):
        _put(columns, name, g, kept)
    column, y = outcome
    columns[column] = y
    if g.ends:
        columns["stop_reason"] = np.asarray([*g.ends, None], dtype=object)[ints(g.end)[kept]]
    for name in ("propensity", "cost", "latency_s"):
        _put(columns, name, g, kept)
    if len(g.started_at):
        columns["started_at"] = _tidy(g.started_at.all(g.n), kept)
    model = [_first(one.get("model", {}), ("model", "name", "id", "label")) for one in settings]
    if any(model):
        columns["model"] = np.asarray(model, dtype=object)[setting]
    if len(g.seed):
        columns["seed"] = _tidy(g.seed.all(g.n), kept)
    why = np.asarray([*g.errors, _NO_SCORE, None], dtype=object)
    error = ints(g.error)[kept]
    error = np.where(error >= 0, error, np.where(np.isnan(y), len(why) - 2, len(why) - 1))
    columns["error"] = why[error]
    files = np.asarray([str(log.path) for log in g.logs], dtype=object)
    columns["log"] = files[ints(g.log)[kept]]
    return pd.DataFrame(columns)


def own_name(name: str) -> str:
    """Give the column of a covariate: one of a name that means another thing here has it behind "item_"."""
    return f"item_{name}" if name in TAKEN - {"task_type"} else name


def _put(columns: dict[str, Any], name: str, g: Gathered, kept: Ints) -> None:
    """Write a column that the logs have, and none that they have not."""
    if name in g.numbers:
        values = g.numbers[name].all(g.n)[kept]
        if not np.isnan(values).all():
            columns[name] = values
    elif name in g.texts:
        import pandas as pd

        text = g.texts[name].all()
        if text.null_count < len(text):
            columns[name] = pd.arrays.ArrowStringArray(text if len(text) == len(kept) else text.take(kept))


def _tidy(values: list[Any], kept: Ints) -> Any:  # noqa: ANN401 - a column
    """Make a column of whatever logs hold: numbers where all are, else text."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    column = column[kept]
    known = [value for value in column if value is not None]
    if known and all(isinstance(value, bool | int | float) for value in known):
        return np.array([np.nan if value is None else float(value) for value in column])
    return np.array([None if value is None else str(value) for value in column], dtype=object)


def _first(values: Mapping[str, Scalar], called: Sequence[str]) -> str | None:
    """Give the value under the first path that ends so, else the first there is."""
    for name in called:
        for path, value in values.items():
            if path.rpartition(".")[2] == name and value is not None:
                return str(value)
    return next((str(v) for v in values.values() if v is not None), None)


def _item_names(g: Gathered, key: Ints, item: Ints, name: Ints) -> Any:  # noqa: ANN401 - a column of text
    """Name items as their logs do where a name is one item's and an item has one, else by content."""
    keys, called = distinct_pairs(key, name)
    names = np.asarray(list(g.names), dtype=object)
    # The pairs are sorted by item: a name an item, and an item a name.
    single = bool((keys[1:] != keys[:-1]).all()) and int(np.bincount(called).max()) == 1
    plain = single and all(names[np.unique(name)])
    if plain:
        return names[name]
    first = np.zeros(int(key.max()) + 1, dtype=np.int64)
    first[key[::-1]] = item[::-1]
    return np.asarray(g.items.labels(), dtype=object)[first[key]]


def _reps(cell: Ints) -> Ints:
    """Count the trials of each cell, (item, arm), from 1."""
    order = np.argsort(cell, kind="stable")
    sorted_cells = cell[order]
    start = np.concatenate([[True], sorted_cells[1:] != sorted_cells[:-1]])
    begin = np.maximum.accumulate(np.where(start, np.arange(len(cell)), 0))
    out = np.empty(len(cell), dtype=np.int64)
    out[order] = np.arange(len(cell)) - begin + 1
    return out
