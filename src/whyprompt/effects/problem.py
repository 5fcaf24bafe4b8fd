"""From a frame and column names to the arrays of one estimation problem, with every refusal on the way."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects.caused import caused_by_arm, doubt_of
from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.design import Design, design_matrix
from whyprompt.stats.order import codes, content_rank
from whyprompt.tables import arms, open_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.graph.model import CausalGraph
    from whyprompt.tables import Table

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


# A text column with more levels than this share of its rows is an identifier, not a covariate.
_IDENTIFIER_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Problem:
    """The arrays of one estimation problem, of shape (n,); `take` gives the problem of some rows."""

    outcome_name: str
    treatment_name: str
    treated: NDArray[np.bool_]  # the rows that received the treated arm
    treated_level: str
    control_level: str
    y: Floats
    confounders: tuple[str, ...]
    columns: dict[str, NDArray[Any]]  # the confounders as read
    design: Design  # the confounders as numbers
    strata: Ints | None  # codes of the exact columns
    limits: tuple[tuple[Floats, float], ...]  # calipers on covariates, in their units
    cluster: NDArray[Any] | None
    tie_rank: Ints | None
    known_score: Floats | None  # a propensity that is known
    rank: Ints | None = None  # places by content, where settled already; see `places`
    cluster_name: str | None = None
    exact: tuple[str, ...] = ()  # columns on which matched rows are equal

    @property
    def places(self) -> Ints:
        """The rows' places in an order of their own, for what a seed deals: equal where rows are.

        By covariates first and by outcome last, so that a shift or a positive scale of the outcome changes
        nothing; the arm is left out, so that its name does not matter.
        """
        if self.rank is not None:
            return self.rank
        # A text column's levels as its dummies would order them, column by column: the reference first.
        codes, levels = self.design.codes, self.design.levels
        held: list[NDArray[Any]] = [
            -codes[name] % len(levels[name]) if name in codes else values
            for name, values in self.columns.items()
        ]
        held += [values for values, _ in self.limits]
        held += [
            x for x in (self.known_score, self.strata, self.tie_rank, self.y, self.cluster) if x is not None
        ]
        return content_rank(*held)

    def take(self, rows: Ints) -> Problem:
        """Return the problem of the given rows, repeated where they repeat; the coding stays the same."""
        return changed(
            self,
            treated=self.treated[rows],
            y=self.y[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
            design=self.design.take(rows),
            strata=None if self.strata is None else self.strata[rows],
            limits=tuple((values[rows], width) for values, width in self.limits),
            cluster=None if self.cluster is None else self.cluster[rows],
            tie_rank=None,
            known_score=None if self.known_score is None else self.known_score[rows],
            rank=None if self.rank is None else self.rank[rows],
        )


def refuse_post_treatment(
    names: Sequence[str],
    *,
    treatment: str,
    outcome: str,
    table: Table | None = None,
    graph: CausalGraph | None = None,
) -> None:
    """Refuse covariates that the arm causes, naming the column and the reason.

    The table tells what columns hold, where their names do not say enough; the graph settles the columns that
    it has, whatever their names are.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise EstimationError(f"confounder {name!r} is named twice")
        seen.add(name)
        if name in {treatment, outcome}:
            role = "treatment" if name == treatment else "outcome"
            raise EstimationError(f"{name!r} is the {role}; it cannot be a confounder as well")
        if graph is not None and name in graph.nodes:
            if name in graph.descendants(treatment):
                raise EstimationError(
                    f"{name!r} cannot be a confounder: it is caused by {treatment!r} in the graph",
                    hint="adjust for what the item was before the arm was chosen, such as question_tokens",
                )
            continue
        why = caused_by_arm(name)
        if why is not None and table is not None and name in table.columns:
            why = caused_by_arm(name, table.raw(name))
        if why is not None:
            raise EstimationError(
                f"{name!r} cannot be a confounder: {why}; adjusting for it removes part of the effect, or"
                " opens a path that biases it",
                hint="adjust for what the item was before the arm was chosen, such as question_tokens; if the"
                f" arm does not cause {name!r}, say so with a graph that has it",
            )


def choose_confounders(
    table: Table,
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None,
    graph: CausalGraph | None,
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Settle what is adjusted for; also give the graph's cautions about a set that it allows.

    The caller's confounders are checked against the graph where there is one; without them the graph gives
    its smallest adjustment set among the table's columns. None where neither was given. Raises
    `EstimationError` if a confounder is caused by the arm, or the graph gives no set in this table, and
    `GraphError` if it forbids a confounder, with the path.
    """
    if confounders is not None:
        if isinstance(confounders, str):
            raise EstimationError(
                f"confounders is the text {confounders!r}; a list of columns is needed",
                hint=f"confounders=[{confounders!r}]",
            )
        names: tuple[str, ...] = tuple(confounders)
        cautions: Sequence[str] = ()
        if graph is not None and not {treatment, outcome} & set(names):
            # The graph says by which path a column is forbidden.
            cautions = graph.check_adjustment(treatment, outcome, names) or ()
        refuse_post_treatment(names, treatment=treatment, outcome=outcome, table=table, graph=graph)
        table.require(names, role="confounder")
        return names, (*cautions, *_doubts(names, graph))
    if graph is None:
        return None, ()
    found = graph.adjustment_sets(treatment, outcome)
    here = [s for s in found if s <= set(table.columns)]
    if not here:
        wanted = ", ".join(sorted(found[0] - set(table.columns))) if found else ""
        raise EstimationError(
            f"the graph gives no set of columns in this table that identifies the effect of {treatment!r}"
            f" on {outcome!r}",
            hint=f"collect {wanted}, or randomise the arm, or run both arms on the same items"
            if wanted
            else "no adjustment identifies it: randomise the arm, or run both arms on the same items",
        )
    smallest = min(here, key=lambda s: (len(s), sorted(s)))
    chosen: tuple[str, ...] = tuple(sorted(smallest))
    refuse_post_treatment(chosen, treatment=treatment, outcome=outcome, table=table, graph=graph)
    return chosen, _doubts(chosen, graph)


def _doubts(names: Sequence[str], graph: CausalGraph | None) -> tuple[str, ...]:
    """Say which columns an arm may prescribe, and which only the graph takes for what it does not cause."""
    settled = () if graph is None else graph.nodes
    return tuple(
        f"{name!r} {doubt_of(name)}"
        if name not in settled
        else f"{name!r} is not caused by the arm as the graph has it; its name says otherwise"
        for name in names
        if (caused_by_arm(name) if name in settled else doubt_of(name)) is not None
    )


def prepare(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str],
    treated: object | None = None,
    control: object | None = None,
    exact: Sequence[str] = (),
    covariate_calipers: Mapping[str, float] | None = None,
    cluster: str | None = None,
    tie_break: str | None = None,
    propensity: str | None = None,
    base_levels: Mapping[str, str] | None = None,
    graph: CausalGraph | None = None,
) -> Problem:
    """Read and check everything an estimate needs; arguments as in `estimate_effect`.

    The graph says of the columns that it has whether the arm causes them. Raises `DataError` if a column is
    absent, has missing or infinite values, or is of the wrong kind, and `EstimationError` if an arm is empty
    or has one row, or a confounder is an identifier.
    """
    table = open_table(frame)
    table.require([treatment], role="treatment")
    table.require([outcome], role="outcome")
    if treatment == outcome:
        raise EstimationError(f"{treatment!r} is both the treatment and the outcome")
    given, one, other = arms(table, treatment, treated=treated, control=control)
    for rows, level in ((given, one), (~given, other)):
        if rows.sum() < 2:
            raise EstimationError(
                f"arm {level!r} of treatment column {treatment!r} has one row: its spread cannot be known",
                hint="run that arm on more items",
            )
    y = table.numbers(outcome, role="outcome")
    columns = {name: table.values(name, role="confounder") for name in confounders}
    for name, values in columns.items():
        if values.dtype == object:
            n_levels = len(set(values.tolist()))
            if n_levels > 20 and n_levels > _IDENTIFIER_SHARE * len(values):
                raise EstimationError(
                    f"confounder {name!r} has {n_levels} levels in {len(values)} rows: it identifies rows"
                    " and has no counterpart in the other arm",
                    hint="leave it out, or derive a covariate from it (a length, a task type)",
                )
    for named in (tuple(exact), tuple(covariate_calipers or ())):
        refuse_post_treatment(named, treatment=treatment, outcome=outcome, table=table, graph=graph)
    limits = []
    for name, width in (covariate_calipers or {}).items():
        if not (np.isfinite(width) and width > 0):
            raise EstimationError(f"the caliper on {name!r} is {width}; it must be a positive number")
        limits.append((table.numbers(name, role="caliper"), float(width)))
    known = None
    if propensity is not None:
        known = table.numbers(propensity, role="propensity")
        if not ((known > 0) & (known < 1)).all():
            raise DataError(
                f"propensity column {propensity!r} must lie strictly between 0 and 1",
                hint="a row that could have had one arm only carries no information on the effect",
            )
    # With a known propensity nothing need be adjusted for; the rows are there all the same.
    design = design_matrix(columns, reference=base_levels, n_rows=table.n_rows)
    return Problem(
        outcome_name=outcome,
        treatment_name=treatment,
        treated=given,
        treated_level=one,
        control_level=other,
        y=y,
        confounders=tuple(confounders),
        columns=columns,
        design=design,
        strata=codes([table.keys(name, role="exact") for name in exact]) if exact else None,
        limits=tuple(limits),
        cluster=None if cluster is None else table.labels(cluster, role="cluster"),
        cluster_name=cluster,
        exact=tuple(exact),
        tie_rank=None if tie_break is None else _ranks(table, tie_break),
        known_score=known,
    )


def _ranks(table: Table, name: str) -> Ints:
    values = table.keys(name, role="tie-break")
    _, rank = np.unique(values.astype(str) if values.dtype == object else values, return_inverse=True)
    if int(rank.max()) + 1 != len(rank):
        raise not_identified(name)
    return rank.astype(np.int64)


def not_identified(name: str) -> DataError:
    """Say that a column that is to order equal rows does not identify rows."""
    return DataError(
        f"tie-break column {name!r} does not identify rows: a value occurs more than once",
        hint="give a column with one value a row",
    )
