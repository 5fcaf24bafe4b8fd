"""The design matrices of a mediator and an outcome model, from columns of a table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted
from whyprompt.errors import DataError, EstimationError
from whyprompt.mediation.measured.overlap import check_left
from whyprompt.stats.design import design_matrix
from whyprompt.stats.regression import fit
from whyprompt.tables import level_name, open_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from narwhals.typing import IntoDataFrame
    from numpy.typing import NDArray

    from whyprompt.stats.regression import Family, Regression
    from whyprompt.tables import Table

    Array = NDArray[np.float64]

_FEWEST_CLUSTERS = 6
_FEWEST_LEFT = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Design:
    """Columns of a question, and design matrices of both models, at observed or at set values."""

    table: Table
    treatment: str
    mediator: str
    outcome: str
    families: tuple[Family, Family]
    interaction: bool
    treatments: NDArray[Any]
    """Observed values of the treatment; `t` has them as columns, (n, treatment columns)."""
    t: Array
    m: Array
    y: Array
    levels: tuple[str, ...] | None
    """Of a treatment of text."""
    confounders: Array
    confounder_names: tuple[str, ...]
    moderators: tuple[int, ...]
    """Columns of `confounders`."""
    groups: NDArray[np.intp] | None = None
    arms: tuple[float | str, float | str] = (0, 1)
    """The two treatments compared."""
    held: Array
    """The confounders, with some held at a value."""

    def treat(self, value: Any) -> Array:  # noqa: ANN401  # a number or a level
        """Treatment columns of one row set to `value`."""
        return _treated(value, self.levels)

    @cached_property
    def rows(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """The rows under each of the two arms; none where a dose lies between those given."""
        control, treated = (np.asarray(self.treatments == value) for value in self.arms)
        return control, treated

    @property
    def labels(self) -> tuple[str, str]:
        """Names of the two arms."""
        control, treated = (f"{self.treatment} {level_name(value)}" for value in self.arms)
        return control, treated

    @property
    def units(self) -> int:
        """Sampling units: rows, or clusters."""
        return len(self.y) if self.groups is None else int(self.groups.max()) + 1

    @property
    def linear(self) -> bool:
        """Whether both models are."""
        return self.families == ("linear", "linear")

    @cached_property
    def x_mediator(self) -> Array:
        """Design of the mediator model at the observed treatments."""
        return self.mediator_matrix(self.t)

    @cached_property
    def x_outcome(self) -> Array:
        """Design of the outcome model at the observed treatments and mediators."""
        return np.hstack([self.x_mediator, self.m[:, None] * self.slope_matrix(self.t)])

    @cached_property
    def mediator_set(self) -> tuple[Array, Array]:
        """Design of the mediator model under each arm: the outcome's, less what the mediator multiplies."""
        control, treated = (self.mediator_matrix(self.treat(value), self.held) for value in self.arms)
        return control, treated

    @cached_property
    def slope_set(self) -> tuple[Array, Array]:
        """What the mediator multiplies in the outcome model under each arm."""
        control, treated = (self.slope_matrix(self.treat(value), self.held) for value in self.arms)
        return control, treated

    def fits(self, *, robust: bool = False) -> tuple[Regression, Regression]:
        """Fit both models on all rows."""
        options: dict[str, Any] = {"robust": robust, "clusters": self.groups}
        of_m, of_y = self.families
        return (
            fit(self.x_mediator, self.m, of_m, names=self.mediator_names(), what="mediator", **options),
            fit(self.x_outcome, self.y, of_y, names=self.outcome_names(), what="outcome", **options),
        )

    @property
    def treat_names(self) -> list[str]:
        """Names of the treatment columns."""
        if self.levels is None:
            return [self.treatment]
        return [f"{self.treatment}={level}" for level in self.levels[1:]]

    def mediator_names(self) -> tuple[str, ...]:
        """Names of the mediator model's columns."""
        extra = [f"{t}:{self.confounder_names[j]}" for t in self.treat_names for j in self.moderators]
        return ("(Intercept)", *self.treat_names, *self.confounder_names, *extra)

    def outcome_names(self) -> tuple[str, ...]:
        """Names of the outcome model's columns."""
        moderators = [self.confounder_names[j] for j in self.moderators]
        return (
            *self.mediator_names(),
            self.mediator,
            *([f"{self.mediator}:{t}" for t in self.treat_names] if self.interaction else []),
            *[f"{self.mediator}:{c}" for c in moderators],
        )

    def mediator_matrix(self, t: Array, c: Array | None = None) -> Array:
        """Design of the mediator model; `t` has one row, or as many as `c`."""
        c = self.confounders if c is None else c
        t = np.broadcast_to(np.atleast_2d(t), (len(c), np.atleast_2d(t).shape[1]))
        extra = [t[:, [k]] * c[:, [j]] for k in range(t.shape[1]) for j in self.moderators]
        return np.hstack([np.ones((len(c), 1)), t, c, *extra])

    def slope_matrix(self, t: Array, c: Array | None = None) -> Array:
        """Build what multiplies the mediator in the outcome model: 1, treatment, moderators."""
        c = self.confounders if c is None else c
        t = np.broadcast_to(np.atleast_2d(t), (len(c), np.atleast_2d(t).shape[1]))
        return np.hstack(
            [np.ones((len(c), 1)), *([t] if self.interaction else []), c[:, list(self.moderators)]]
        )


def check_draws(draws: int, level: float) -> None:
    """Refuse a number of draws or a level of confidence from which there is no interval."""
    if draws < 2:
        raise DataError(f"draws is at least 2, and not {draws}", hint="1000, for example")
    if not 0 < level < 1:
        raise DataError(f"the level is {level}; it lies between 0 and 1, 0.95 for example")


def _check_size(design: Design, cluster: str | None) -> None:
    """Refuse so few rows or clusters that no interval made of them can be relied on.

    Student's t has no variance at one or two degrees of freedom, and below five the draws of a product of
    two of them are all tail.
    """
    if design.groups is not None and design.units < _FEWEST_CLUSTERS:
        raise EstimationError(
            f"column {cluster!r} holds {counted(design.units, 'cluster')}: no interval can be had from so "
            "few",
            hint=f"at least {_FEWEST_CLUSTERS} clusters are needed",
        )
    n, coefficients = design.x_outcome.shape
    if n - coefficients < _FEWEST_LEFT:
        raise EstimationError(
            f"{n} rows are too few for an outcome model of {coefficients} coefficients: no interval can be "
            "had from so few",
            hint=f"at least {coefficients + _FEWEST_LEFT} rows are needed, or fewer confounders",
        )


def _treated(value: Any, levels: tuple[str, ...] | None) -> Array:  # noqa: ANN401  # a number or a level
    if levels is None:
        return np.array([float(value)])
    return np.array([float(value == level) for level in levels[1:]])


def _finite(value: float | str, message: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(message) from None
    if not np.isfinite(number):
        raise DataError(message)
    return number


def read_design(
    frame: IntoDataFrame,
    treatment: str,
    mediator: str,
    outcome: str,
    confounders: Sequence[str],
    *,
    moderators: Sequence[str] = (),
    interaction: bool = False,
    families: tuple[Family, Family] = ("linear", "linear"),
    arms: tuple[float | str, float | str] | None = None,
    at: Mapping[str, float | str] | None = None,
    cluster: str | None = None,
    number_for: str = "",
) -> Design:
    """Read the columns of a question; what its two models cannot use is refused.

    With `arms`, the two treatments compared, there must be rows or clusters enough for an interval.
    `number_for` says what needs a treatment that is a number. A DataError names a column that is missing,
    constant or in two roles, holds missing values or is of the wrong kind; an EstimationError says that there
    is too little, or that treatment and confounders leave nothing of the mediator.
    """
    _check_roles(treatment, mediator, outcome, confounders)
    table = open_table(frame)
    treatments = table.values(treatment, role="treatment")
    m = _response(table, mediator, families[0], "mediator")
    y = _response(table, outcome, families[1], "outcome")
    _check_varies((mediator, m), (outcome, y))
    columns, names = [np.empty((len(treatments), 0))], list[str]()
    for name in confounders:
        coded = design_matrix({name: table.values(name, role="confounder")})
        columns.append(coded.matrix)
        names += [f"{name}={level}" for level in coded.levels[name][1:]] if coded.levels else [name]
    for name in moderators:
        if name not in names:
            raise DataError(f"moderator {name!r} is not a numeric confounder", hint="add it to `confounders`")
    levels = tuple(sorted(set(treatments))) if treatments.dtype == object else None
    if len(np.unique(treatments)) < 2:
        raise DataError(f"column {treatment!r} holds one treatment only")
    if levels is not None and number_for:
        raise DataError(f"column {treatment!r} is categorical; {number_for} a number")
    given = np.hstack(columns)
    design = Design(
        table=table,
        treatment=treatment,
        mediator=mediator,
        outcome=outcome,
        families=families,
        interaction=interaction,
        treatments=treatments,
        t=np.stack([_treated(v, levels) for v in treatments]),
        m=m,
        y=y,
        levels=levels,
        confounders=given,
        confounder_names=tuple(names),
        moderators=tuple(names.index(name) for name in moderators),
        held=given,
    )
    if arms is not None:
        groups = None
        compared = _arms(design, *arms)
        if cluster is not None:
            # Whole numbers beyond 2**53 stay apart.
            keys = table.keys(cluster, role="cluster")
            groups = np.asarray(np.unique(keys, return_inverse=True)[1], dtype=np.intp)
        held = _held(design, confounders, at) if at else given
        design = replace(design, arms=compared, groups=groups, held=held)
        _check_size(design, cluster)
    check_left(m, design.x_mediator, mediator, (treatment, *confounders))
    return design


def _arms(design: Design, control: float | str, treated: float | str) -> tuple[float | str, float | str]:
    """Give the two treatments compared, checked to be levels of it, or finite numbers, and two."""
    control, treated = _level(design, "control", control), _level(design, "treated", treated)
    if control == treated:
        raise DataError(f"control and treated are both {control!r}: nothing is compared")
    return control, treated


def _level(design: Design, label: str, value: float | str) -> float | str:
    name = design.treatment
    if design.levels is None:
        return _finite(value, f"{label} {value!r} is not a finite number, and {name!r} holds numbers")
    if value not in design.levels:
        raise DataError(f"{label} {value!r} is not a level of {name!r}: {', '.join(design.levels)}")
    return value


def _check_roles(treatment: str, mediator: str, outcome: str, confounders: Sequence[str]) -> None:
    """Refuse a column in two roles: treatment, mediator, outcome and confounders are columns of their own."""
    if isinstance(confounders, str):
        raise DataError(f"confounders is the text {confounders!r}", hint=f"give a list: [{confounders!r}]")
    roles = {"treatment": treatment, "mediator": mediator, "outcome": outcome}
    taken: dict[str, str] = {}
    for role, name in (*roles.items(), *(("confounder", c) for c in confounders)):
        if name in taken:
            raise DataError(
                f"column {name!r} is {taken[name]} and {role}: each role needs a column of its own"
                if role != taken[name]
                else f"confounders name {name!r} twice"
            )
        taken[name] = role


def _check_varies(*responses: tuple[str, Array]) -> None:
    """Refuse a mediator or an outcome that is the same in every row."""
    for name, values in responses:
        if (values == values[0]).all():
            raise DataError(
                f"column {name!r} is constant: nothing acts on it, and a share of nothing is no number",
                hint="give more items, or an outcome that can differ between them",
            )


def _response(table: Table, name: str, family: Family, role: str) -> Array:
    """Give a response, checked against what its model needs."""
    values = table.numbers(name, role=role)
    if family != "linear" and set(np.unique(values)) != {0.0, 1.0}:
        raise DataError(f"column {name!r} must hold 0 and 1 for a {family} model")
    return values


def _held(design: Design, confounders: Sequence[str], at: Mapping[str, float | str]) -> Array:
    """Confounders with some held at a value."""
    out = design.confounders.copy()
    for name, value in at.items():
        if name not in confounders:
            raise DataError(f"`at` names {name!r}, which is not a confounder")
        values = design.table.values(name, role="confounder")
        if values.dtype == object and value not in set(values):
            raise DataError(f"`at` holds {name!r} at {value!r}, which is not one of its levels")
        for j, label in enumerate(design.confounder_names):
            if values.dtype != object and label == name:
                out[:, j] = _finite(value, f"`at` holds {name!r} at {value!r}, which is not a finite number")
            elif values.dtype == object and label.startswith(f"{name}="):
                out[:, j] = float(label == f"{name}={value}")
    return out
