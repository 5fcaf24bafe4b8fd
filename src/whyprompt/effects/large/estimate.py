"""The effect of one arm against another from a table larger than memory, by sums that DuckDB takes.

Numbers and sentences are those of `effects.estimate` of the same rows. What needs rows beside each other is
not computed: it is refused by name, or the result says that it was not looked at.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from whyprompt.effects.estimate import why_overlap
from whyprompt.effects.large.estimated import estimated, explain
from whyprompt.effects.large.offered import refuse_rows
from whyprompt.effects.large.rows import Rows, literal
from whyprompt.effects.large.source import connected, words_of
from whyprompt.effects.large.units import (
    chance_notes,
    find_units_of,
    levels_alone,
    refuse_moved_in,
    with_levels,
)
from whyprompt.effects.methods.learners import score_column
from whyprompt.effects.methods.make import settle_plan
from whyprompt.effects.problem import choose_confounders
from whyprompt.effects.separation import by_logit, spared_words
from whyprompt.effects.units import NO_CLUSTER, settle_cluster
from whyprompt.stats.propensity import SeparatedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.effects.checks.balance import Denominator
    from whyprompt.effects.large.source import Parquet
    from whyprompt.effects.methods.make import MethodLike
    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.result import EffectResult
    from whyprompt.effects.separation import OneArmed
    from whyprompt.graph.model import CausalGraph
    from whyprompt.results import Assumption


def large_effect(
    table: Parquet,
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    method: MethodLike | None = None,
    estimand: str | None = None,
    design: str = "observational",
    treated: object | None = None,
    control: object | None = None,
    propensity: Any = None,  # noqa: ANN401 - a column or any scikit-learn classifier
    cluster: str | None = None,
    level: float = 0.95,
    std_error: str = "auto",
    base_levels: Mapping[str, str] | None = None,
    denominator: Denominator = "pooled",
    random_state: int = 0,
    **options: Any,  # noqa: ANN401 - checked by the method
) -> EffectResult:
    """Do what `estimate_effect` does on one outcome with one arm a row; arguments as there.

    A method that is not offered is refused (`EstimationError`) with those that are, and a table that cannot
    be sorted for want of disk (`DataError`).
    """
    with connected(table) as connection:
        rows = Rows(connection, table)
        rows.require([treatment], role="treatment")
        rows.require([outcome], role="outcome")
        chosen, cautions = choose_confounders(
            rows,  # type: ignore[arg-type]  # it has what is asked of a table there
            treatment=treatment,
            outcome=outcome,
            confounders=confounders,
            graph=graph,
        )
        plan = settle_plan(
            chosen,
            method=method,
            options=options,
            estimand=estimand,
            design=design,
            propensity=propensity,
            level=level,
            std_error=std_error,
            denominator=denominator,
            random_state=random_state,
        )
        refuse_rows(plan, table)
        rows = rows.of_two_arms(treatment, treated, control)
        sampling, item = find_units_of(rows, outcome, chosen or ())
        named, notes = settle_cluster(cluster, sampling)
        asked: dict[str, Any] = {
            "cluster": named,
            "propensity": score_column(propensity),
            "base_levels": base_levels,
            "tie_break": getattr(plan.method, "tie_break", None),
        }
        rows = rows.read(outcome, chosen or (), **asked)
        refuse_moved_in(rows, item, chosen or (), graph)
        notes += chance_notes(rows, score_column(propensity), {*(chosen or ()), outcome})
        whole = rows.n_arms()
        if design == "randomized" and method is None and plan.method.dealt and rows.known is None:
            # The lot gave every row the same chance.
            rows.known = literal(whole[0] / sum(whole))
        spared, rows = _spared(rows, plan, chosen or ())
        arms = rows.n_arms()
        if spared:
            rows = rows.of_two_arms(treatment, rows.treated_level, rows.control_level)
            rows = rows.read(outcome, chosen or (), **asked)
        both = item if item is not None and item.paired and cluster != NO_CLUSTER else None
        about: dict[str, Any] = {
            "lost": (whole[0] - arms[0], whole[1] - arms[1]),
            "design": design,
            "graph": graph,
            "cautions": cautions,
            "repeats": named if cluster is None else None,
            "item": both,
        }
        found, heaviest = estimated(rows, plan, chosen or (), **about)
        overlap = _overlap_of(found)
        moved: tuple[str, ...] = ()
        if overlap is not None and method is None and estimand is None and design == "observational":
            why = why_overlap(overlap, heaviest, arms[1], rows.control_level)
            if why:
                other, _ = estimated(rows, replace(plan, estimand="ato"), chosen or (), **about)
                there = _overlap_of(other)
                if there is not None and there.status != "fails":
                    found, moved = other, (why,)
        notes = notes if both is None else (*notes, both.paired_note)
        others = table.n_rows - sum(whole)
        aside = (f"{others} rows of other arms are put aside",) if others else ()
        cautious = spared_words(spared, rows, plan.estimand)
        return replace(
            found,
            warnings=(*notes, *cautious, *moved, *found.warnings, *aside, *_of_table(table, found)),
            settings={**found.settings, "table": f"DuckDB, in passes under {words_of(table.limit)}"},
        )


def _overlap_of(found: EffectResult) -> Assumption | None:
    return next((a for a in found.assumptions if a.name == "overlap"), None)


def _of_table(table: Parquet, found: EffectResult) -> tuple[str, ...]:
    """Say how the table was read, and what was therefore not looked at."""
    text = (
        f"{table.label} takes {words_of(table.size)} in memory and may take {words_of(table.memory)}: DuckDB"
        " took its sums in passes; weights and scores of single rows are not kept"
    )
    if any(row.ks_after is None for row in found.balance):
        text += ", and the distributions of covariates (KS) are not compared"
    return (text,)


def _spared(rows: Rows, plan: Plan, confounders: Sequence[str]) -> tuple[tuple[OneArmed, ...], Rows]:
    """Leave out rows that the estimate does not need and a logistic score has no estimate with.

    Arms that share no level of a column are refused.
    """
    known = rows.known is not None
    if not plan.method.by_score or known:
        return (), rows
    confounders = with_levels(rows, confounders)
    for name in confounders:
        levels, left = levels_alone(rows, [name])
        if levels and not left.n_rows:
            raise explain(rows, plan, confounders, SeparatedError(f"the arms share no level of {name!r}"))
    if not by_logit(plan, known=known) or plan.estimand == "ate":
        return (), rows
    spare = {"att": False, "atc": True}.get(plan.estimand)
    levels, left = levels_alone(rows, confounders, arm=spare)
    return (levels, left) if levels and all(left.n_arms()) else ((), rows)
