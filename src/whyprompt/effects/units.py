"""The sampling unit of a table where nobody named it: items, users or templates that rows repeat.

Rows of one item are no independent sample. An interval that takes them for one is too narrow by the root of
the number of repeats, and nothing in the estimate shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects.caused import ITEM_WORDS, caused_by_arm, doubt_of, moved_within_items, name_words
from whyprompt.effects.problem import choose_confounders
from whyprompt.errors import DataError, EstimationError
from whyprompt.tables import arms, open_table, rows_of_two_arms

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.problem import Problem
    from whyprompt.graph.model import CausalGraph
    from whyprompt.tables import Table

NO_CLUSTER = "none"
"""Given as `cluster`, it says that every row is a unit of its own."""

_CANONICAL = ("cluster", "item_id")
_ITEMS = (
    *("question_id", "doc_id", "document_id", "sample_id", "example_id", "instance_id", "problem_id"),
    *("query_id", "prompt_id", "task_id", "case_id", "puzzle_id", "passage_id", "record_id"),
    *("item", "uid", "id"),
)
_GROUPS = ("user_id", "customer_id", "author_id", "session_id", "conversation_id", "thread_id", "template_id")
# Fewer values than this are levels of something: a task, a difficulty, a model.
_FEWEST = 10
# An item whose other arm failed now and then does not make a paired table an unpaired one.
_MOST = 0.9
HEAD = 2_000


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Unit:
    """A column whose values repeat because its things do.

    `codes`, shape (n,), number its values, where the table of `n_rows` is in memory; `is_item` says that it
    is what the arms are run on, and `both` how many of the `count` have rows under every arm.
    """

    name: str
    codes: NDArray[np.intp]
    n_rows: int
    count: int
    is_item: bool
    both: int

    @property
    def paired(self) -> bool:
        """Whether the table holds every arm of the items."""
        return self.is_item and self.both >= max(2, _MOST * self.count)

    def constant(self, values: NDArray[Any]) -> bool:
        """Whether a column is a property of the unit."""
        return _constant(self.codes, self.count, values)

    @property
    def clustered_note(self) -> str:
        """What a reader must know where the error is clustered by it unasked."""
        return (
            f"{self.name!r} repeats ({self.count} in {self.n_rows} rows): it is taken as the sampling"
            " unit, and errors are clustered by it; to take every row as a unit of its own, say"
            f" cluster={NO_CLUSTER!r}"
        )

    @property
    def paired_note(self) -> str:
        """What a reader must know where the table is not analysed as paired."""
        share = "every" if self.both == self.count else f"{self.both} of {self.count}"
        return (
            f"{share} {self.name!r} was run under both arms: a paired analysis (design='paired',"
            f" unit={self.name!r}) compares each with itself, and needs no adjustment"
        )


def _readable(values: NDArray[Any]) -> bool:
    """Whether a column holds numbers or texts, and no gaps."""
    if values.dtype == object:
        return all(isinstance(value, str) for value in values)
    return bool(np.isfinite(values.astype(np.float64)).all())


def _constant(codes: NDArray[np.intp], count: int, values: NDArray[Any]) -> bool:
    first = np.empty(count, dtype=values.dtype)
    first[codes] = values
    return bool((first[codes] == values).all())


def settle_cluster(cluster: str | None, sampling: Unit | None) -> tuple[str | None, tuple[str, ...]]:
    """Take the sampling unit that a table shows where the caller names none (`NO_CLUSTER` for none at all).

    Gives its name, and what to say of it.
    """
    if cluster == NO_CLUSTER:
        return None, ()
    if cluster is not None or sampling is None:
        return cluster, ()
    return sampling.name, (sampling.clustered_note,)


def find_units(
    table: Table,
    *,
    treatment: str,
    outcomes: Sequence[str],
    covariates: Sequence[str] = (),
    dose: bool = False,
) -> tuple[Unit | None, Unit | None]:
    """Find the unit that rows repeat, and the item that arms are run on; None where the table shows none.

    None of the `covariates`, which are adjusted for or looked at by level, is a unit. No unit has rows under
    all of a `dose`.

    ``cluster`` and ``item_id`` are taken at their word. Other names that the field gives to items (such as
    ``question_id``) are taken if what belongs to the item is the same in all rows of each. A column of any
    name is taken if it has far fewer values than there are rows, every covariate is the same in all rows of
    each value, and those that are numbers tell most of its values apart: it is what they are properties of.
    """
    by = None if dose else treatment
    return units_among(
        table.columns,
        {treatment, *outcomes},
        covariates,
        read=lambda name, is_item: _read(table, name, by, is_item=is_item),
        constant=lambda unit, name: unit.constant(table.raw(name)),
        by_content=lambda free, held: _by_content(table, free, by, held),
    )


def units_among(
    columns: Sequence[str],
    given: Collection[str],
    covariates: Sequence[str],
    *,
    read: Callable[[str, bool], Unit | None],
    constant: Callable[[Unit, str], bool],
    by_content: Callable[[Sequence[str], Sequence[str]], Sequence[Unit]],
) -> tuple[Unit | None, Unit | None]:
    """Find what `find_units` does among the columns that are not `given`, read by three functions.

    They read a column as a unit (or as None), say whether a column is the same in all rows of a unit, and
    find one by what the covariates are properties of.
    """
    covariates = [name for name in covariates if name in columns]
    free = [name for name in columns if name not in {*given, *covariates}]
    called = {name: "_".join(name_words(name)) for name in free}
    known = [*_CANONICAL, *_ITEMS, *_GROUPS]
    ranked = sorted((name for name in free if called[name] in known), key=lambda n: known.index(called[n]))
    found: list[Unit] = []
    for name in ranked:
        unit = read(name, called[name] not in {"cluster", *_GROUPS})
        if unit is None:
            continue
        if called[name] in _CANONICAL or _plausible(unit, covariates, free, constant):
            found.append(unit)
    if not found and covariates:
        found = list(by_content(free, covariates))
    return next(iter(found), None), next((unit for unit in found if unit.is_item), None)


def paired_instead(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcomes: Sequence[str],
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    treated: object | None = None,
    control: object | None = None,
) -> tuple[Unit, str, str] | None:
    """Say whether a table holds both arms of its items, so that each is to be compared with itself.

    Gives the item, the treated level and the control's; None where it does not, or where it cannot be told. A
    confounder that varies within an item is not settled by pairing.
    """
    table = open_table(frame)
    table.require([treatment], role="treatment")
    table.require(outcomes, role="outcome")
    if treated is not None and control is not None:
        rows = rows_of_two_arms(table, treatment, treated=treated, control=control)
        table = table if rows is None else table.keep(rows)
    _, one, other = arms(table, treatment, treated=treated, control=control)
    chosen, _ = choose_confounders(
        table, treatment=treatment, outcome=outcomes[0], confounders=confounders, graph=graph
    )
    _, item = find_units(table, treatment=treatment, outcomes=outcomes, covariates=chosen or ())
    if item is None or not item.paired or not all(item.constant(table.raw(name)) for name in chosen or ()):
        return None
    return item, one, other


def refuse_moved(table: Table, item: Unit | None, problem: Problem, graph: CausalGraph | None) -> None:
    """Refuse a confounder that differs between the arms of the same items: only the arm can have moved it.

    A graph settles the columns that it has.
    """
    if item is None or not item.paired:
        return
    asked = {
        name: table.numbers(name, role="confounder")
        for name in problem.confounders
        if problem.columns[name].dtype != object and (graph is None or name not in graph.nodes)
    }
    moved = moved_within_items(
        {name: values for name, values in asked.items() if not item.constant(values)},
        item.codes,
        problem.treated,
    )
    if moved:
        raise EstimationError(
            f"the arm moves {moved[0]} in the same {item.name!r}: it cannot be a confounder; adjusting for it"
            " removes part of the effect, or opens a path that biases it",
            hint="adjust for what the item was before the arm was chosen, or compare each item with itself"
            " (design='paired'); if the arm does not cause the column, say so with a graph"
            " that has it",
        )


def paired_item(
    table: Table, labels: NDArray[Any], name: str | None, method: str, chosen: Sequence[str] | None
) -> str:
    """Check that every item was run under every arm equally often: rows then compare items with themselves.

    Gives the column with the item. Raises `EstimationError` if there is none, something was to be adjusted
    for, or an item's rows are not those of the others.
    """
    if name is None:
        raise EstimationError(
            "a paired design needs the column with the item", hint="name the column that tells items apart"
        )
    if chosen or method != "naive":
        raise EstimationError(
            "in a paired design each item is compared with itself: nothing is adjusted for",
            hint="leave out confounders, graph and method",
        )
    items = table.labels(name, role="item").astype(str)
    found, place = np.unique(items, return_inverse=True)
    arms, arm = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(found), len(arms)), dtype=np.int64)
    np.add.at(counts, (place, arm), 1)
    usual = int(np.bincount(counts.ravel()).argmax())
    uneven = counts != usual
    if uneven.any():
        k, a = (int(x) for x in np.argwhere(uneven)[0])
        raise EstimationError(
            f"{name} {str(found[k])!r} has {counts[k, a]} row(s) under {str(arms[a])!r}, where others have"
            f" {usual}: a paired comparison of every arm needs each item under each arm equally often",
            hint="average repeats, leave incomplete items out, or compare two arms at a time",
        )
    return name


def _read(table: Table, name: str, treatment: str | None, *, is_item: bool) -> Unit | None:
    """Read a column as a unit, or return None where its values do not repeat, or are all the same."""
    import pandas as pd

    try:
        values = table.keys(name, role="unit")
    except DataError:
        return None
    codes, distinct = pd.factorize(values)
    count = len(distinct)
    if not 1 < count < table.n_rows:
        return None
    both = 0
    if treatment is not None:
        arm, levels = pd.factorize(table.raw(treatment))
        cells = np.unique(codes.astype(np.int64) * len(levels) + arm)
        both = int((np.bincount(cells // len(levels), minlength=count) == len(levels)).sum())
    return Unit(
        name=name,
        codes=np.asarray(codes, dtype=np.intp),
        n_rows=table.n_rows,
        count=count,
        is_item=is_item,
        both=both,
    )


def _plausible(
    unit: Unit, covariates: Sequence[str], free: Sequence[str], constant: Callable[[Unit, str], bool]
) -> bool:
    """Whether a column of a telling name is a unit: what belongs to an item does not vary within one."""
    if unit.count < _FEWEST:
        return False
    if not unit.is_item:
        return True
    of_item = [
        name
        for name in free
        if name != unit.name and set(name_words(name)) & ITEM_WORDS and caused_by_arm(name) is None
    ]
    return all(constant(unit, name) for name in (*covariates, *of_item))


def _by_content(
    table: Table, free: Sequence[str], treatment: str | None, covariates: Sequence[str]
) -> list[Unit]:
    """Return the column, if there is one, that the covariates are properties of."""
    held = [table.raw(name) for name in covariates]
    if not all(_readable(values) for values in held):
        return []
    found: list[Unit] = []
    for name in free:
        # Of a large table the first rows tell most columns off.
        some = table.raw(name, first=HEAD)
        if not may_be_unit(name, some, held):
            continue
        if some.dtype != object and not bool((table.raw(name) == np.floor(table.raw(name))).all()):
            continue
        unit = _read(table, name, treatment, is_item=True)
        if unit is None or not repeats_enough(unit):
            continue
        if all(unit.constant(column) for column in held) and _told_apart(unit, held):
            found.append(unit)
    return sorted(found, key=lambda unit: -unit.count)[:1]


def may_be_unit(name: str, some: NDArray[Any], held: Sequence[NDArray[Any]]) -> bool:
    """Whether the first rows of a column leave it possible that the covariates are properties of it."""
    import pandas as pd

    if caused_by_arm(name) is not None or doubt_of(name) is not None or not _readable(some):
        return False
    head = pd.factorize(some)[0]
    return all(_constant(head, int(head.max()) + 1, column[: len(head)]) for column in held)


def repeats_enough(unit: Unit) -> bool:
    """Whether a column of any name has far fewer values than rows, and more than levels of something."""
    return _FEWEST <= unit.count <= unit.n_rows / 2


def _told_apart(unit: Unit, columns: Sequence[NDArray[Any]]) -> bool:
    """Whether numbers among the covariates tell a column's values apart, and none only respells it."""
    numbers = [values for values in columns if values.dtype != object]
    coded = [
        _profiles([values])
        for values in columns
        if values.dtype == object or bool((values == np.floor(values)).all())
    ]
    return tells_apart(unit, coded, _profiles(numbers) if numbers else 0)


def tells_apart(unit: Unit, coded: Sequence[int], together: int) -> bool:
    """Say it by the numbers of values: of each covariate of levels, and of all numbers together."""
    return unit.count not in coded and together > 0 and together >= unit.count / 2


def _profiles(columns: Sequence[NDArray[Any]]) -> int:
    """Count the distinct rows of some columns."""
    import pandas as pd

    return len(pd.DataFrame(dict(enumerate(columns))).drop_duplicates())
