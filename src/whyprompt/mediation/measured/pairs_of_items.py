"""Items that ran under both arms, as arrays, and the design of their differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from whyprompt._words import counted
from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.design import design_matrix
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from narwhals.typing import IntoDataFrame
    from numpy.typing import NDArray

    from whyprompt.tables import Table

    Array = NDArray[np.float64]

_FEWEST_UNITS = 6
_FEWEST_LEFT = 5
_LEFT = 1e-4
"""What the other columns must leave of one, of its standard deviation: fits of samples are by matrices of
moments, which keep the square of it."""


class ItemPairs(NamedTuple):
    """One row an item; the second axis of `y` and `m` is the arm, control first."""

    items: tuple[str, ...]
    y: Array
    """(items, 2)."""
    m: Array
    """(items, 2, columns)."""
    names: tuple[str, ...]
    """Of the columns of `m`."""
    groups: Mapping[str, tuple[int, ...]]
    """By mediator, its columns of `m`."""
    x: Array
    """Covariates of the items, coded and centred, (items, columns)."""
    units: NDArray[np.intp]
    left_out: int
    """Items that did not run under both arms."""
    binary: bool
    """Whether every row's outcome is 0 or 1."""


class Model(NamedTuple):
    """The differences' design for some mediators, and where each one's slopes are in it."""

    x: Array
    """Intercept first; the other columns are centred and of unit size."""
    scale: Array
    members: tuple[int, ...]
    treated: tuple[int | None, ...]
    """Of each member, the column of its slope under the treated arm; None where no more than one unit differs
    from the rest there, of which no slope has an error."""
    control: tuple[int | None, ...]


def mediator_groups(
    mediators: str | Sequence[str] | Mapping[str, str | Sequence[str]],
) -> dict[str, tuple[str, ...]]:
    """Give the columns of each mediator by its name; an error where there are none, or one is named twice."""
    if isinstance(mediators, str):
        mediators = [mediators]
    if not hasattr(mediators, "items"):
        every = list(map(str, mediators))
        groups: dict[str, tuple[str, ...]] = {name: (name,) for name in every}
    else:
        groups = {str(k): (v,) if isinstance(v, str) else tuple(map(str, v)) for k, v in mediators.items()}
        every = [name for columns in groups.values() for name in columns]
    if not groups or not all(groups.values()):
        raise DataError(
            "mediators names no column", hint="mediators=['words'], or {'length': ['words', 'log_words']}"
        )
    if twice := next((name for name in every if every.count(name) > 1), None):
        raise DataError(f"mediators names {twice!r} twice", hint="each column belongs to one mediator")
    return groups


def read_pairs(
    frame: IntoDataFrame,
    *,
    treatment: str,
    mediators: Mapping[str, Sequence[str]],
    outcome: str,
    item: str,
    arms: tuple[str, str],
    covariates: Sequence[str],
    cluster: str | None,
) -> ItemPairs:
    """Read items under both arms (control, treated): means of repetitions. Others are left out."""
    table = open_table(frame)
    names = tuple(name for columns in mediators.values() for name in columns)
    _check_roles(treatment, outcome, item, names, covariates)
    label = table.labels(treatment, role="treatment")
    for arm in arms:
        if arm not in label:
            known = ", ".join(sorted(set(label))[:6])
            raise DataError(f"column {treatment!r} holds no {arm!r}", hint=f"it holds {known}")
    if arms[0] == arms[1]:
        raise DataError(f"control and treated are both {arms[0]!r}: nothing is compared")
    kept = np.isin(label, arms)
    names_of, code = np.unique(table.labels(item, role="item"), return_inverse=True)
    under = np.zeros((len(names_of), 2), dtype=bool)
    under[code[kept], (label[kept] == arms[1]).astype(np.intp)] = True
    n_items = int(under.any(1).sum())
    whole = np.asarray(under.all(1))
    both = names_of[whole].tolist()
    if not both:
        raise DataError(
            f"no {item} ran under both {arms[0]!r} and {arms[1]!r}",
            hint="each is compared with itself; in Python, whyprompt.mediate compares different items",
        )
    kept &= whole[code]
    place = np.cumsum(whole) - 1
    row, arm = place[code[kept]], (label[kept] == arms[1]).astype(np.intp)
    cell = 2 * row + arm
    size = np.bincount(cell, minlength=2 * len(both))

    def cells(name: str, role: str) -> Array:
        values = table.numbers(name, role=role)[kept]
        return np.asarray(np.bincount(cell, values, 2 * len(both)) / size).reshape(-1, 2)

    first = np.unique(row, return_index=True)[1]
    x = [_of_items(table, name, kept, row, first) for name in covariates]
    groups, at = {}, 0
    for name, columns in mediators.items():
        groups[name] = tuple(range(at, at + len(columns)))
        at += len(columns)
    units = np.arange(len(both))
    if cluster is not None:
        owner = table.labels(cluster, role="cluster")[kept]
        if (apart := np.flatnonzero(owner != owner[first][row])).size:
            raise DataError(f"{item} {both[row[apart[0]]]!r} lies in two clusters of {cluster!r}")
        units = np.unique(owner[first], return_inverse=True)[1]
    given = np.hstack([np.empty((len(both), 0)), *x])
    pairs = ItemPairs(
        items=tuple(both),
        y=cells(outcome, "outcome"),
        m=np.stack([cells(name, "mediator") for name in names], 2),
        names=names,
        groups=groups,
        x=given - given.mean(0),
        units=np.asarray(units, dtype=np.intp),
        left_out=n_items - len(both),
        binary=bool(np.isin(table.numbers(outcome, role="outcome")[kept], (0.0, 1.0)).all()),
    )
    _check_mediators(pairs, outcome, arms)
    return pairs


def _check_roles(
    treatment: str, outcome: str, item: str, names: Sequence[str], covariates: Sequence[str]
) -> None:
    if isinstance(covariates, str):
        raise DataError(f"covariates is the text {covariates!r}", hint=f"give a list: [{covariates!r}]")
    taken: dict[str, str] = {}
    roles = [(treatment, "treatment"), (outcome, "outcome"), (item, "item")]
    roles += [(name, "mediator") for name in names] + [(name, "covariate") for name in covariates]
    for name, role in roles:
        if name in taken:
            raise DataError(
                f"column {name!r} is {taken[name]} and {role}: each role needs a column of its own"
            )
        taken[name] = role


def _of_items(
    table: Table, name: str, kept: NDArray[np.bool_], row: NDArray[np.intp], first: NDArray[np.intp]
) -> Array:
    """Give a covariate's columns by item; one that differs within an item is no fact of the item."""
    values = np.asarray(table.values(name, role="covariate"))[kept]
    if (values != values[first][row]).any():
        raise DataError(
            f"covariate {name!r} differs between rows of one item: it is no fact of the item",
            hint="what an arm changes is a mediator, or is left out",
        )
    matrix = design_matrix({name: values[first]}).matrix
    if matrix.size and not np.ptp(matrix, axis=0).all():
        raise DataError(f"covariate {name!r} is constant among the items of both arms")
    return matrix


def differing(values: Array, units: NDArray[np.intp]) -> int:
    """Count the sampling units in which a column, (items,), is not at its most frequent value.

    The mean of three repetitions and that of two may differ in the last digit where all rows are alike.
    """
    rounded = np.round(values / (np.abs(values).max() or 1.0), 9)
    found, counts = np.unique(rounded, return_counts=True)
    return len(np.unique(units[rounded != found[counts.argmax()]]))


def _check_mediators(pairs: ItemPairs, outcome: str, arms: tuple[str, str]) -> None:
    """Refuse an outcome that nothing acts on, and a mediator that is constant or that each arm has one of."""
    if not np.ptp(pairs.y):
        raise DataError(
            f"the outcome {outcome!r} is constant: nothing acts on it, and a share of nothing is no number"
        )
    change = pairs.y[:, 1] - pairs.y[:, 0]
    if np.ptp(change) <= 1e-12 * np.abs(pairs.y).max():
        raise EstimationError(
            f"the outcome {outcome!r} changes by {change[0]:.3g} in every item: what goes with a mediator "
            "cannot be seen, and no interval can be had",
            hint="take an outcome that tells more apart, or more items",
        )
    for k, name in enumerate(pairs.names):
        values = [pairs.m[:, arm, k] for arm in (0, 1)]
        off = [differing(value, pairs.units) for value in values]
        if not any(off) and np.isclose(values[0][0], values[1][0], rtol=1e-9, atol=0):
            raise DataError(
                f"the mediator {name!r} is {values[0][0]:g} in every row: nothing can go through it",
                hint="leave it out, or take another feature of the text",
            )
        if not any(off):
            said = [f"{value[0]:g} under {arm}" for value, arm in zip(values, arms, strict=True)]
            raise EstimationError(
                f"the mediator {name!r} is the arm itself, {said[0]} and {said[1]} in every item: what "
                "goes through it cannot be told from the rest of what the arm does",
                hint="leave it out, or intervene on it: whyprompt mediate with mediation.text",
            )
        if max(off) < 2:
            raise EstimationError(
                f"the mediator {name!r} has one value under each arm, but for one sampling unit at most: no "
                "error of its slope can be had",
                hint="leave it out, or take more items",
            )
    units = int(pairs.units.max()) + 1
    if units < _FEWEST_UNITS:
        raise EstimationError(
            f"{counted(units, 'sampling unit')} with both arms: no interval can be had from so few",
            hint=f"at least {_FEWEST_UNITS} are needed",
        )


def model_of(pairs: ItemPairs, members: Sequence[int], *, interaction: bool) -> Model:
    """Build the design of the outcome's differences for the mediators' columns `members`.

    The outcome of an arm is the item's own level, what the arm adds, and the arm's slope times its mediator:
    in the difference of the arms the item's level is gone, the treated arm's mediator enters with its slope,
    and the control arm's, negative, with its own. Without `interaction` the two slopes are one.
    """
    columns: list[Array] = []
    places: dict[int, list[int | None]] = {0: [], 1: []}
    for k in members:
        of = [pairs.m[:, arm, k] for arm in (0, 1)]
        if not interaction:
            columns.append(of[1] - of[0])
            if differing(columns[-1], pairs.units) < 2:
                raise EstimationError(
                    f"the mediator {pairs.names[k]!r} differs between the arms by the same in every item, or "
                    "in all but one: what goes through it cannot be told from the rest of what the arm does",
                    hint="interaction=True takes the arms' slopes apart",
                )
            for arm in (0, 1):
                places[arm].append(len(columns))
            continue
        for arm, sign in ((0, -1.0), (1, 1.0)):
            if differing(of[arm], pairs.units) > 1:
                columns.append(sign * of[arm])
                places[arm].append(len(columns))
            else:
                places[arm].append(None)
    x = np.column_stack([*columns, pairs.x])
    x = x - x.mean(0)
    scale = np.sqrt((x**2).mean(0))
    x = np.column_stack([np.ones(len(x)), x / scale])
    if len(x) - x.shape[1] < _FEWEST_LEFT:
        raise EstimationError(
            f"{counted(len(x), 'item')} are too few for a model of {x.shape[1]} coefficients",
            hint=f"at least {x.shape[1] + _FEWEST_LEFT} are needed, or fewer mediators, or interaction=False",
        )
    for j in range(1, len(columns) + 1):
        rest = np.delete(x, j, axis=1)
        left = x[:, j] - rest @ np.linalg.lstsq(rest, x[:, j], rcond=None)[0]
        if np.sqrt((left**2).mean()) < _LEFT:
            name = next(pairs.names[k] for n, k in enumerate(members) if j in (places[0][n], places[1][n]))
            raise EstimationError(
                f"the mediator {name!r} is all but a function of the other columns: its slope cannot be told "
                "from theirs",
                hint="leave one of them out, or use interaction=False",
            )
    return Model(x, np.concatenate([[1.0], scale]), tuple(members), tuple(places[1]), tuple(places[0]))
