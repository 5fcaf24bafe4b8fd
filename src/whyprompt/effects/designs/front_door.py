"""A front door: everything that the arm does goes through what was measured on the way.

What decided the arm is not known, but it did not decide the mediator beside the arm: the arm's effect on the
mediator is then open to see, and so is the mediator's on the outcome, given the arm. Their product is the
effect.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from whyprompt._arguments import confidence
from whyprompt._arguments import names as listed
from whyprompt._words import format_number, p_words
from whyprompt.effects.designs.columns import (
    arm_counts,
    design_result,
    drawn,
    given_words,
    independent_units,
    read_covariates,
    read_outcome,
    read_units,
    spare_note,
)
from whyprompt.effects.measures import stated
from whyprompt.effects.result import interval_words
from whyprompt.errors import DataError, EstimationError, GraphError
from whyprompt.results import Assumption, Estimate
from whyprompt.stats.design import design_matrix, independent_columns, moments
from whyprompt.stats.influence import influence_covariance, regression_influence, with_intercept
from whyprompt.stats.rules import few_clusters
from whyprompt.tables import arms, rows_of_two_arms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.result import EffectResult
    from whyprompt.graph.model import CausalGraph
    from whyprompt.results import Status
    from whyprompt.stats.design import Design
    from whyprompt.tables import Table

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

# Fewer rows than this of a level under an arm say little of the outcome there.
_FEW = 10
_LEVELS = 20


def front_door_effect(
    table: Table,
    *,
    treatment: str,
    outcome: str,
    mediators: Sequence[str] | str | None = None,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    treated: object | None = None,
    control: object | None = None,
    cluster: str | None = None,
    level: float = 0.95,
    base_levels: Mapping[str, str] | None = None,
) -> EffectResult:
    """Estimate the effect through the mediators, whatever unmeasured affects both arm and outcome.

    Arguments and what is raised as in `estimate_effect` with ``design="front_door"``.
    """
    confidence(level)
    table.require([treatment], role="treatment")
    table.require([outcome], role="outcome")
    between = _mediators(graph, treatment, outcome, mediators, table)
    for name in between:
        if name in {treatment, outcome, *(confounders or ())}:
            raise EstimationError(f"{name!r} is a mediator, and cannot be anything else as well")
    if treated is not None and control is not None:
        here = rows_of_two_arms(table, treatment, treated=treated, control=control)
        table = table if here is None else table.keep(here)
    given, one, other = arms(table, treatment, treated=treated, control=control)
    names = (one, other)
    y = read_outcome(table, outcome)
    made, text = _read_mediators(table, between, base_levels)
    chosen, _, x, spare = read_covariates(
        table, confounders, treatment=treatment, outcome=outcome, base_levels=base_levels
    )
    clustered, codes, notes = read_units(
        table, cluster, treatment=treatment, outcome=outcome, covariates=[*chosen, *between]
    )
    a = given.astype(float)
    m = made.matrix
    _refuse_alone(m, given, made, text, names)
    value, influence, paths, q = _effect(y, a, m, x, made.names)
    free = float(len(y) - q)
    scale = len(y) / free if codes is None else 1.0
    df = free if codes is None else float(codes.max())
    covariance = influence_covariance(influence, codes) * scale
    error = float(np.sqrt(covariance[0, 0]))
    overall = stated(
        "overall",
        value,
        error if error > 0 else None,
        df,
        level=level,
        **arm_counts(given),
    )
    plain = float(y[given].mean() - y[~given].mean())
    moved = [
        stated(name, alpha, float(np.sqrt(covariance[j, j])), df, level=level, by="effect on the mediator")
        for j, (name, alpha) in enumerate(zip(made.names, paths, strict=True), start=1)
    ]
    found = design_result(
        overall,
        outcome,
        names,
        where=f", through {', '.join(between)}",
        treatment=treatment,
        estimand="ate",
        method="front door",
        parts=tuple(moved),
        level=level,
        assumptions=_assumptions(
            between,
            moved,
            _cells(m, given, made, text),
            _bent(y, a, m, x, made, text),
            level,
            by_graph=graph is not None,
            clustered=clustered is not None,
        ),
        warnings=(
            *notes,
            *(() if codes is None else few_clusters(int(codes.max()) + 1)),
            *spare_note(spare),
        ),
        std_error_method=f"influence of both regressions, {'HC1' if codes is None else 'by cluster'}",
        settings={"mediators": list(between)} | ({} if clustered is None else {"cluster": clustered}),
        confounders=chosen,
        figures={"plain_difference": plain},
        treated_rows=given,
    )
    return drawn(replace(found, sentence=_sentence(found, between)))


def _mediators(
    graph: CausalGraph | None,
    treatment: str,
    outcome: str,
    mediators: Sequence[str] | str | None,
    table: Table,
) -> tuple[str, ...]:
    """Settle the mediators: as named and allowed by the graph, or the graph's smallest set in the table."""
    asked = (mediators,) if isinstance(mediators, str) else listed(mediators, "mediators")
    table.require(asked, role="mediator")
    twice = [name for name in asked if asked.count(name) > 1]
    if twice:
        raise EstimationError(f"mediator {twice[0]!r} is named twice")
    if graph is None:
        if not asked:
            raise EstimationError(
                "design='front_door' needs mediators=, what the arm works through",
                hint="name them, or a graph",
            )
        return asked
    known = graph.front_door_sets(treatment, outcome)
    here = [found for found in known if found <= set(table.columns)]
    if asked and frozenset(asked) not in known:
        shown = " or ".join("{" + ", ".join(sorted(found)) + "}" for found in known[:3])
        raise GraphError(
            f"{', '.join(asked)} is no front door from {treatment!r} to {outcome!r} in the graph",
            hint=f"the graph has {shown}" if known else "the graph has none",
        )
    if asked:
        return asked
    if not here:
        raise GraphError(
            f"the graph has no front door from {treatment!r} to {outcome!r} among the columns of this table",
            hint="measure what the arm works through, or randomise the arm",
        )
    smallest = min(here, key=lambda found: (len(found), sorted(found)))
    return tuple(sorted(smallest))


def _read_mediators(
    table: Table, between: Sequence[str], base_levels: Mapping[str, str] | None
) -> tuple[Design, frozenset[str]]:
    """Read the mediators as numbers, and which of them are levels."""
    columns = {name: table.values(name, role="mediator") for name in between}
    for name, values in columns.items():
        if len(set(values.tolist())) == 1:
            raise EstimationError(f"mediator {name!r} is constant: nothing can go through it")
        if values.dtype == object and len(set(values.tolist())) > _LEVELS:
            raise DataError(
                f"mediator {name!r} has {len(set(values.tolist()))} levels; at most {_LEVELS} are told apart",
                hint="group them, or measure it as a number",
            )
    first = {name: level for name, level in (base_levels or {}).items() if name in columns}
    text = frozenset(name for name, values in columns.items() if values.dtype == object)
    return design_matrix(columns, reference=first), text


def _refuse_alone(m: Floats, given: Bools, made: Design, text: frozenset[str], names: Sequence[str]) -> None:
    """Refuse a mediator that does not vary within an arm: what it does there cannot be seen."""
    for j, (name, source) in enumerate(zip(made.names, made.sources, strict=True)):
        for rows, arm in ((given, names[0]), (~given, names[1])):
            if np.ptp(m[rows, j]) == 0:
                level = name.removeprefix(f"{source}_")
                what = f"level {level!r} of mediator" if source in text else "mediator"
                raise EstimationError(
                    f"{what} {source!r} does not vary under {arm!r}: what it does cannot be told from what"
                    " the arm does",
                    hint="a front door needs every value of the mediator under both arms: group its levels,"
                    " or take another design",
                )


def _effect(
    y: Floats, a: Floats, m: Floats, x: Floats, names: Sequence[str]
) -> tuple[float, Floats, Floats, int]:
    """Give the effect, the influence values of it and of the mediators' changes, those, and the coefficients.

    The mediator's slopes differ between the arms, and are averaged over the arms as they are. With mediators
    that are levels and no covariates this is Pearl's formula with the shares of the rows.

    Pearl, J. (1995). Causal diagrams for empirical research. Biometrika 82, 669-688.
    """
    k = m.shape[1]
    first = with_intercept(np.column_stack([a, x]))
    second = with_intercept(np.column_stack([a, m, m * a[:, None], x]))
    kept = independent_columns(second[:, 1:], *moments(second[:, 1:]))
    if len(kept) < second.shape[1] - 1:
        lost = next(j for j in range(second.shape[1] - 1) if j not in kept)
        what = names[(lost - 1) % k] if 1 <= lost <= 2 * k else "a confounder"
        raise EstimationError(
            f"mediator {what!r} is determined by the arm, the other mediators or the confounders",
            hint="leave out a mediator or a confounder that is a function of others",
        )
    if len(y) <= second.shape[1]:
        raise EstimationError(f"{len(y)} rows are too few for {second.shape[1]} coefficients")
    ones = np.ones(len(y))
    fits = [regression_influence(column, first, ones) for column in m.T]
    alpha = np.array([coef[1] for coef, _ in fits])
    ways = np.column_stack([influence[:, 1] for _, influence in fits])
    coef, outcome = regression_influence(y, second, ones)
    share = float(a.mean())
    at, across = slice(2, 2 + k), slice(2 + k, 2 + 2 * k)
    slope = coef[at] + share * coef[across]
    influence = ways @ slope + (outcome[:, at] + share * outcome[:, across]) @ alpha
    influence += float(alpha @ coef[across]) * (a - share) / len(y)
    return float(alpha @ slope), np.column_stack([influence, ways]), alpha, second.shape[1]


def _cells(m: Floats, given: Bools, made: Design, text: frozenset[str]) -> tuple[int, str]:
    """Give the fewest rows that a level has under an arm, and its name; without levels those of an arm."""
    counts = [(int(min(given.sum(), (~given).sum())), "an arm")]
    for source in text:
        own = [j for j, of in enumerate(made.sources) if of == source]
        dummies = np.column_stack([m[:, own], 1.0 - m[:, own].sum(axis=1)])
        levels = [made.names[j] for j in own] + [f"{source}_{made.levels[source][0]}"]
        counts += [
            (int(dummies[rows, j].sum()), levels[j]) for rows in (given, ~given) for j in range(len(levels))
        ]
    return min(counts)


def _bent(y: Floats, a: Floats, m: Floats, x: Floats, made: Design, text: frozenset[str]) -> float | None:
    """Test squares of the mediators that are numbers (robust Wald); None where there is none."""
    from scipy import stats

    numbers = [j for j, s in enumerate(made.sources) if s not in text and len(np.unique(m[:, j])) > 2]
    if not numbers:
        return None
    scaled = (m[:, numbers] - m[:, numbers].mean(axis=0)) / m[:, numbers].std(axis=0)
    wide = np.column_stack([scaled**2, a, m, m * a[:, None], x])
    if len(independent_columns(wide, *moments(wide))) < wide.shape[1] or len(y) <= wide.shape[1] + 1:
        return None
    coef, influence = regression_influence(y, with_intercept(wide), np.ones(len(y)))
    which = slice(1, 1 + len(numbers))
    own = coef[which]
    joint = influence[:, which].T @ influence[:, which]
    return float(stats.chi2.sf(float(own @ np.linalg.solve(joint, own)), len(numbers)))


def _assumptions(
    between: Sequence[str],
    moved: Sequence[Estimate],
    cells: tuple[int, str],
    bent: float | None,
    level: float,
    *,
    by_graph: bool,
    clustered: bool,
) -> tuple[Assumption, ...]:
    listed_ = ", ".join(between)
    seen = [row for row in moved if row.p_value is not None and row.p_value * len(moved) < 1 - level]
    source = "the graph says so" if by_graph else "none is possible from these data"
    fewest, where = cells
    form: Status = "doubtful" if bent is not None and bent < 1 - level else "holds"
    straight = Assumption(
        name="form",
        status=form,
        check="squares of the mediators that are numbers were tested in the outcome",
        detail=f"they are taken to act in a straight line within each arm; squares have p {p_words(bent)}",
    )
    return (
        Assumption(
            name="full mediation",
            status="untestable",
            check=source,
            detail=f"the arm is taken to move the outcome through {listed_} alone",
        ),
        Assumption(
            name="arm and mediator unconfounded",
            status="untestable",
            check=source,
            detail=f"nothing unmeasured is taken to affect both the arm and {listed_}",
        ),
        Assumption(
            name="mediator and outcome unconfounded",
            status="untestable",
            check=source,
            detail=f"nothing unmeasured beside the arm is taken to affect both {listed_} and the outcome",
        ),
        Assumption(
            name="the arm moves the mediator",
            status="holds" if seen else "doubtful",
            check="each mediator was regressed on the arm, Bonferroni's rule over them",
            detail="; ".join(
                f"{r.label} by {format_number(r.estimate)} (p {p_words(r.p_value)})" for r in moved
            ),
        ),
        Assumption(
            name="overlap",
            status="holds" if fewest >= _FEW else "doubtful",
            check="rows of each level of the mediators under each arm were counted",
            detail=f"the fewest are {fewest}, of {where}",
        ),
        *(() if bent is None else (straight,)),
        independent_units(clustered=clustered),
    )


def _sentence(made: EffectResult, between: Sequence[str]) -> str:
    through = " and ".join(map(repr, between)) if len(between) < 3 else ", ".join(map(repr, between))
    text = (
        f"Through {through}, {made.treated!r} instead of {made.control!r} changes {made.outcome!r} by"
        f" {format_number(made.estimate)} ({interval_words(made)}) on average over all rows, if the arm works"
        f" through {through} alone, nothing unmeasured affects both the arm and {through}, and nothing"
        f" unmeasured but through the arm affects both {through} and {made.outcome!r}"
        f"{given_words(made.confounders)}. The plain difference is {format_number(made['plain_difference'])}."
    )
    low, high = made.overall.ends
    if low <= 0 <= high:
        text += " The interval includes zero: the data do not decide the sign."
    doubts = [a for a in made.assumptions if a.status == "doubtful" and a.name in {"overlap", "form"}]
    return text + "".join(f" {a.name.capitalize()} is doubtful: {a.detail}." for a in doubts)
