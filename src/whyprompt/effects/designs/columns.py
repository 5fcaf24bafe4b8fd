"""What every design reads alike: covariates as independent columns, the sampling unit, an arm's rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import names as listed
from whyprompt.effects.problem import refuse_post_treatment
from whyprompt.effects.result import EffectResult
from whyprompt.effects.units import find_units, settle_cluster
from whyprompt.errors import EstimationError
from whyprompt.results import Assumption
from whyprompt.stats.design import design_matrix, independent_columns, moments
from whyprompt.stats.influence import cluster_codes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.graph.model import CausalGraph
    from whyprompt.results import Estimate
    from whyprompt.stats.design import Design
    from whyprompt.tables import Table

    Floats = NDArray[np.float64]


def read_outcome(table: Table, outcome: str) -> Floats:
    """Read the outcome; one that is constant shows nothing, and is refused."""
    y = table.numbers(outcome, role="outcome")
    if np.ptp(y) == 0:
        raise EstimationError(
            f"outcome {outcome!r} is constant: every row is {y[0]:g}", hint="name an outcome that varies"
        )
    return y


def read_covariates(
    table: Table,
    confounders: Sequence[str] | None,
    *,
    treatment: str,
    outcome: str,
    graph: CausalGraph | None = None,
    base_levels: Mapping[str, str] | None = None,
) -> tuple[tuple[str, ...], Design, Floats, tuple[str, ...]]:
    """Read what is adjusted for: its columns, as numbers, those that are independent, and the spare ones.

    Raises `EstimationError` if the arm causes one of them.
    """
    chosen = listed(confounders, "confounders")
    refuse_post_treatment(chosen, treatment=treatment, outcome=outcome, table=table, graph=graph)
    columns = {name: table.values(name, role="confounder") for name in chosen}
    made = design_matrix(columns, reference=base_levels)
    if not chosen:
        return (), made, np.empty((table.n_rows, 0)), ()
    kept = independent_columns(made.matrix, *moments(made.matrix))
    spare = tuple(name for j, name in enumerate(made.names) if j not in kept)
    return chosen, made, np.asarray(made.matrix[:, kept]), spare


def read_units(
    table: Table, cluster: str | None, *, treatment: str, outcome: str, covariates: Sequence[str]
) -> tuple[str | None, NDArray[np.intp] | None, tuple[str, ...]]:
    """Read the sampling unit, by name or as the table shows it: its column, its codes, and what to say."""
    sampling, _ = find_units(table, treatment=treatment, outcomes=[outcome], covariates=covariates)
    named, notes = settle_cluster(cluster, sampling)
    if named is None:
        return None, None, notes
    labels = table.labels(named, role="cluster")
    if len(set(labels.tolist())) == 1:
        raise EstimationError(
            f"cluster column {named!r} has one value: all rows are in one cluster, and no standard error can"
            " be computed",
            hint="name the column with the sampling unit, or cluster='none' where every row is one",
        )
    return named, cluster_codes(labels, table.n_rows), notes


def spare_note(spare: Sequence[str]) -> tuple[str, ...]:
    """Say which covariates are not adjusted for, since others determine them."""
    text = f"left out of the adjustment as constant or a copy of others: {', '.join(spare)}"
    return (text,) if spare else ()


def independent_units(*, clustered: bool) -> Assumption:
    """State that rows, or clusters, are sampled by themselves."""
    return Assumption(
        name="independent units",
        status="holds" if clustered else "not checked",
        check="rows were grouped by the cluster column" if clustered else "no cluster column was given",
        detail="errors may be correlated within a cluster and not between them"
        if clustered
        else "every row is taken to be sampled by itself; repeated items need cluster=",
    )


def given_words(covariates: Sequence[str]) -> str:
    """Name what is held fixed, as it stands behind a condition."""
    return f", given {', '.join(covariates)}" if covariates else ""


def arm_counts(given: NDArray[np.bool_], *, lost: int = 0) -> dict[str, int]:
    """Count the rows of both arms, of which `lost` treated ones are not used."""
    n = (int(given.sum()), int((~given).sum()))
    return {
        "n_treated": n[0],
        "n_control": n[1],
        "n_treated_used": n[0] - lost,
        "n_control_used": n[1],
    }


def design_result(
    overall: Estimate,
    outcome: str,
    names: Sequence[str],
    *,
    where: str = "",
    **more: Any,  # noqa: ANN401 - fields
) -> EffectResult:
    """Put an estimate beside what every design says alike, without a sentence yet; `where` ends the axis."""
    return EffectResult(
        sentence="",
        overall=overall,
        outcome=outcome,
        treated=names[0],
        control=names[1],
        axis=f"difference in {outcome}, {names[0]} minus {names[1]}{where}",
        ess_treated=float(overall.n_treated_used or 0),
        ess_control=float(overall.n_control_used or 0),
        **more,
    )


def drawn(made: EffectResult, **own: Callable[[], Any]) -> EffectResult:
    """Give a result its charts: its own, then the effect with its interval; its parts are of other kinds."""

    def effect() -> Any:  # noqa: ANN401 - a chart
        from whyprompt.charts import forest_plot

        return forest_plot(replace(made, parts=()), title=made.axis)

    return replace(made, pictures={**own, "effect": effect})
