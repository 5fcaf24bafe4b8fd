"""One arm a row: from a trial table to an effect on one outcome, by any method.

`estimated` reads columns, settles what to adjust for, matches or weighs, computes the standard error that
goes with the method, and says in words what the number is worth.
"""

from __future__ import annotations

from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted, format_number
from whyprompt.effects.assumptions import APART, Left, describe_assumptions, hangs_on_one, judge_overlap
from whyprompt.effects.caused import moves_with_arm
from whyprompt.effects.checks.balance import covariate_balance
from whyprompt.effects.checks.curves import by_lines, left_of_covariates
from whyprompt.effects.comparison import Adjusted
from whyprompt.effects.logged import propensity_notes
from whyprompt.effects.measures import is_binary, risk_measures
from whyprompt.effects.methods.learners import score_column
from whyprompt.effects.methods.make import settle_plan
from whyprompt.effects.methods.weights import raw_weights
from whyprompt.effects.pipeline import bootstrapped, compute
from whyprompt.effects.problem import choose_confounders, prepare, refuse_post_treatment
from whyprompt.effects.result import differ_words, effect_sentence
from whyprompt.effects.separation import explain_separation, refuse_apart, spared_words, without_counterpart
from whyprompt.effects.stated import adjusted_for, result_of, risk_words
from whyprompt.effects.subgroups import (
    heterogeneity,
    impossible_limits,
    part_name,
    subgroup_effects,
    subgroup_labels,
)
from whyprompt.effects.units import NO_CLUSTER, find_units, refuse_moved, settle_cluster
from whyprompt.stats.absorb import absorbed
from whyprompt.stats.design import independent_columns, moments
from whyprompt.stats.influence import effective_sample_size
from whyprompt.stats.propensity import SeparatedError
from whyprompt.tables import open_table, rows_of_two_arms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

    from whyprompt.effects.checks.balance import Denominator
    from whyprompt.effects.methods.make import MethodLike
    from whyprompt.effects.methods.method import Fit, Plan
    from whyprompt.effects.problem import Problem
    from whyprompt.effects.result import EffectResult
    from whyprompt.graph.model import CausalGraph
    from whyprompt.results import Assumption, BalanceRow, Estimate
    from whyprompt.tables import Table


# How a warning begins that says why the estimand is not the ATT.
MOVED = "the effect on the treated rows"


def estimated(
    frame: Any,  # noqa: ANN401 - any frame library's type
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
    by: str | Sequence[str] | None = None,
    level: float = 0.95,
    std_error: str = "auto",
    draws: int = 1000,
    base_levels: Mapping[str, str] | None = None,
    denominator: Denominator = "pooled",
    random_state: int = 0,
    **options: Any,  # noqa: ANN401 - checked by the method
) -> Adjusted:
    """Do what `estimate_effect` does on one outcome with one arm a row, and keep the arrays."""
    table = open_table(frame)
    table.require([treatment], role="treatment")
    table.require([outcome], role="outcome")
    whole, rows = table, None
    if treated is not None and control is not None:
        rows = rows_of_two_arms(table, treatment, treated=treated, control=control)
        table = table if rows is None else table.keep(rows)
    chosen, cautions = choose_confounders(
        table, treatment=treatment, outcome=outcome, confounders=confounders, graph=graph
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
        draws=draws,
        denominator=denominator,
        random_state=random_state,
    )
    sampling, item = find_units(
        table,
        treatment=treatment,
        outcomes=[outcome],
        covariates=[*(chosen or ()), *((by,) if isinstance(by, str) else by or ())],
    )
    named, notes = settle_cluster(cluster, sampling)
    columns: dict[str, Any] = {
        "treatment": treatment,
        "outcome": outcome,
        "confounders": chosen or (),
        "treated": treated,
        "control": control,
        "cluster": named,
        "propensity": score_column(propensity),
        "base_levels": base_levels,
        "graph": graph,
        **plan.method.columns,
    }
    problem = prepare(table, **columns)
    if design == "randomized" and method is None and plan.method.dealt and problem.known_score is None:
        # The lot gave every row the same chance.
        problem = changed(problem, known_score=np.full(len(problem.y), problem.treated.mean()))
    refuse_moved(table, item, problem, graph)
    notes += propensity_notes(
        table, problem, columns["propensity"], {*(chosen or ()), *problem.exact, outcome}
    )
    refuse_apart(problem, plan)
    spared, aside = without_counterpart(problem, plan)
    cautious = spared_words(spared, problem, plan.estimand)
    lost = (int((aside & problem.treated).sum()), int((aside & ~problem.treated).sum()))
    here = np.flatnonzero(np.ones(whole.n_rows, dtype=bool) if rows is None else rows)
    gone = here[aside & problem.treated]
    if aside.any():
        rows = np.zeros(whole.n_rows, dtype=bool)
        rows[here[~aside]] = True
        table = table.keep(~aside)
        columns |= {"treated": problem.treated_level, "control": problem.control_level}
        problem = prepare(table, **columns)
    subgroups = subgroup_labels(table, by, problem, graph=graph)
    moved: tuple[str, ...] = ()
    try:
        fit = compute(problem, plan)
        if method is None and estimand is None and design == "observational":
            plan, fit, moved = _where_arms_overlap(problem, plan, fit)
    except SeparatedError as error:
        raise explain_separation(problem, plan, error) from None
    if plan.std_error == "bootstrap":
        fit = bootstrapped(problem, plan, fit)
    both = item if item is not None and item.paired and cluster != NO_CLUSTER else None
    notes = notes if both is None else (*notes, both.paired_note)
    repeats = problem.cluster_name if cluster is None else None
    result = _result(problem, plan, fit, lost, design=design, graph=graph, cautions=cautions)
    settled = "graph" if graph is not None and not problem.confounders and design != "randomized" else design
    text = effect_sentence(
        result,
        confounders=adjusted_for(problem.confounders, problem.exact, plan),
        design=settled,
        repeats=repeats,
        item=None if both is None else both.name,
    )
    text += risk_words(fit.means, result.measures)
    if subgroups:
        parts, few = subgroup_effects(subgroups, problem, plan)
        differ = heterogeneity(parts, few, columns=subgroups, cluster=problem.cluster)
        text += _subgroup_words(parts, few, differ, plan.level)
        result = changed(result, parts=parts, few=few, heterogeneity=differ)
    result = changed(result, sentence=text, warnings=(*notes, *cautious, *moved, *result.warnings))
    if rows is not None:
        result = _spread(result, rows, whole.n_rows, gone, sum(lost))
    return Adjusted(
        result=result,
        problem=problem,
        plan=plan,
        fit=fit,
        rows=rows,
        names=(outcome,),
        samples=((problem.y, problem.y),),
        repeats=repeats,
    )


def _where_arms_overlap(problem: Problem, plan: Plan, fit: Fit) -> tuple[Plan, Fit, tuple[str, ...]]:
    """Ask for the effect where both arms occur, if the treated rows hardly have a counterpart.

    Also say so: the estimand then is another one than it would have been. Where both arms occur nowhere, no
    other estimand is to be had.
    """
    overlap = _overlap(problem, plan, fit, (0, 0))
    if overlap is None:
        return plan, fit, ()
    weights = _by_chances(problem, plan, fit)[~problem.treated]
    heaviest = float(weights.max() / weights.sum())
    why = why_overlap(overlap, heaviest, len(weights), problem.control_level)
    if not why:
        return plan, fit, ()
    other = changed(plan, estimand="ato")
    found = compute(problem, other)
    there = _overlap(problem, other, found, (0, 0))
    if there is None or there.status == "fails":
        return plan, fit, ()
    return other, found, (why,)


def why_overlap(overlap: Assumption, heaviest: float, n_control: int, control: str) -> str:
    """Say why the effect is that where both arms occur; nothing where the treated rows have counterparts.

    `heaviest` is the share of the control rows' weight that one of the `n_control` carries.
    """
    if overlap.status == "fails":
        because = f"cannot be had from this table ({overlap.detail})"
    elif hangs_on_one([(heaviest, n_control)]):
        # An interval that one row makes is of no use, though it covers.
        because = f"would hang on one {control!r} row, with {heaviest:.0%} of the weight of all"
    else:
        return ""
    return (
        f"{MOVED} {because}: the estimate is that on rows that could have had either"
        " arm, weighted by how far they could (ATO); estimand='att' asks for the other all the same"
    )


def adjusted(table: Table, *, treatment: str, outcomes: Sequence[str], **options: Any) -> Adjusted:  # noqa: ANN401
    """Compare two arms on several outcomes, matched or weighed once: as `estimated`, of the first."""
    base = estimated(table, treatment=treatment, outcome=outcomes[0], **options)
    for name in outcomes[1:]:
        refuse_post_treatment(base.problem.confounders, treatment=treatment, outcome=name)
        if options.get("graph") is not None:
            options["graph"].check_adjustment(treatment, name, base.problem.confounders)
    if len(outcomes) == 1:
        return base
    columns = [table.numbers(name, role="outcome") for name in outcomes]
    ys = columns if base.rows is None else [y[base.rows] for y in columns]
    return changed(base, names=tuple(outcomes), samples=tuple((y, y) for y in ys))


def _spread(
    result: EffectResult, rows: NDArray[np.bool_], n: int, gone: NDArray[np.intp], lost: int
) -> EffectResult:
    """Put per-row arrays back on the rows of the whole table, and say that some rows were put aside.

    `gone` are the treated ones of the `lost` rows of the two arms that could not be matched.
    """
    where = np.flatnonzero(rows)

    def wide(values: NDArray[Any], fill: float) -> NDArray[Any]:
        out = np.full(n, fill, dtype=values.dtype)
        out[where] = values
        return out

    matched = result.matched
    if matched is not None:
        matched = changed(
            matched,
            weights=wide(matched.weights, 0.0),
            focal=where[matched.focal],
            other=where[matched.other],
            stratum=None if matched.stratum is None else wide(matched.stratum, -1),
            discarded=wide(matched.discarded, 1),
            kernel=None if matched.kernel is None else matched.kernel.at(where, n),
        )
    treated = None if result.treated_rows is None else wide(result.treated_rows, 0)
    if treated is not None:
        treated[gone] = True
    others = n - len(where) - lost
    notes = (f"{others} rows of other arms are put aside",) if others else ()
    return changed(
        result,
        weights=None if result.weights is None else wide(result.weights, 0.0),
        propensity=None if result.propensity is None else wide(result.propensity, np.nan),
        treated_rows=treated,
        matched=matched,
        warnings=(*result.warnings, *notes),
    )


def _subgroup_words(
    rows: Sequence[Estimate], few: Sequence[str], differ: Mapping[str, float], level: float
) -> str:
    seen = [r for r in rows if r.p_adjusted is not None and r.p_adjusted < 1 - level]
    seen = [r for r in seen if part_name(r) not in few]
    text = ""
    if seen:
        listed = ", ".join(f"{part_name(r)} ({format_number(r.estimate)})" for r in seen)
        text += f" Adjusted for the number of subgroups looked at, a difference is seen in {listed}."
    text += differ_words(differ, level)
    if few:
        text += (
            f" {counted(len(few), 'subgroup')} of {len(rows)} {'has' if len(few) == 1 else 'have'} too few"
            " rows to say anything."
        )
    return text


def _result(
    problem: Problem,
    plan: Plan,
    fit: Fit,
    lost: tuple[int, int],
    *,
    design: str,
    graph: CausalGraph | None,
    cautions: Sequence[str],
) -> EffectResult:
    """Put an estimate beside what was checked of it, as yet without a sentence."""
    t, w = problem.treated, fit.weights
    balance: tuple[BalanceRow, ...] = ()
    if problem.confounders:
        balance = covariate_balance(problem.columns, t, w, denominator=plan.denominator)
    ess = (effective_sample_size(w[t]), effective_sample_size(w[~t]))
    row = fit.row("overall", t)
    row = changed(row, n_treated=int(t.sum()) + lost[0], n_control=int((~t).sum()) + lost[1])
    assumptions = describe_assumptions(
        design=design,
        confounders=adjusted_for(problem.confounders, problem.exact, plan),
        from_graph=graph is not None,
        cautions=cautions,
        clustered=problem.cluster is not None,
        balance=balance,
        overlap=_overlap(problem, plan, fit, lost),
        moved=_moved(problem, graph) if design == "randomized" else (),
        removed=_removed(problem, fit, row),
        left=_left(problem, plan, fit) if design != "randomized" else None,
    )
    made = result_of(
        problem,
        plan,
        row,
        assumptions=assumptions,
        balance=balance,
        ess=ess,
        of_fit=fit.warnings,
        settings=fit.settings,
        how=fit.std_error_method,
        design=design,
        confounders=problem.confounders,
        arms=(int(t.sum()), int((~t).sum())),
        spare=_left_out(problem, plan, fit),
        binary=is_binary(problem.y),
        impossible=impossible_limits(problem.y, fit),
        discarded=int(fit.discarded.sum()),
        measures=risk_measures(problem, plan, fit),
    )
    return changed(made, treated_rows=t, weights=w, propensity=fit.propensity, matched=fit.matched)


def _by_chances(problem: Problem, plan: Plan, fit: Fit) -> Floats:
    """Give the weights to judge overlap by: those of the chances alone, where others were made of them."""
    score = fit.propensity
    if score is None or not getattr(plan.method, "calibrate", False) or plan.estimand == "ato":
        return fit.weights
    return raw_weights(np.log(score / (1.0 - score)), problem.treated, plan.estimand)


def _overlap(problem: Problem, plan: Plan, fit: Fit, lost: tuple[int, int]) -> Assumption | None:
    """Judge overlap where there is a score, or matches, to judge it by."""
    if fit.propensity is None and fit.matched is None:
        return None
    weights = _by_chances(problem, plan, fit)
    arms = (problem.treated, ~problem.treated)
    ess = tuple(effective_sample_size(weights[arm]) for arm in arms)
    # What pairs carry is the matching's to say.
    largest = [(float(weights[arm].max() / weights[arm].sum()), int(arm.sum())) for arm in arms]
    return judge_overlap(
        fit.propensity,
        problem.treated,
        estimand=plan.estimand,
        weights=fit.weights,
        discarded=fit.discarded,
        ess=(ess[0], ess[1]),
        lost=lost,
        reach=_spread_left(problem, fit) / fit.std_error if fit.std_error else 0.0,
        heavy="" if fit.matched is not None else hangs_on_one(largest),
    )


def _spread_left(problem: Problem, fit: Fit) -> float:
    """Give the standard deviation of what is not known of an outcome, by the rows used."""
    left = problem.y if fit.residual is None else fit.residual
    rows = fit.weights > 0
    return float(min(left[rows & arm].std() for arm in (problem.treated, ~problem.treated)))


def _left(problem: Problem, plan: Plan, fit: Fit) -> Left | None:
    """Give what adjusting left of the covariates, and what straight lines alone would have found."""
    if not problem.confounders or plan.method.name == "naive":
        return None
    moved, chance = left_of_covariates(problem, plan, fit)
    error, lines = fit.std_error or 0.0, by_lines(problem, plan, fit)
    far = lines is not None and abs(fit.estimate - lines) > APART * error
    return Left(
        moved=moved,
        chance=chance,
        error=error,
        modelled=fit.residual is not None,
        curved=plan.method.dealt,
        estimate=fit.estimate,
        by_lines=lines,
        # Where lines have it all, no more is learned that could be learned badly.
        by_fewer=fit.from_fewer() if far and fit.from_fewer is not None else None,
    )


def _removed(problem: Problem, fit: Fit, row: Estimate) -> tuple[float, Estimate] | None:
    """Give what adjusting took from the plain difference, with the estimate that is left of it."""
    if not problem.confounders and problem.known_score is None:
        return None
    plain = float(problem.y[problem.treated].mean() - problem.y[~problem.treated].mean())
    return plain - fit.estimate, row


def _moved(problem: Problem, graph: CausalGraph | None) -> tuple[str, ...]:
    """Name the covariates that differ between randomised arms by more than a lot would do."""
    named = [name for name in problem.confounders if graph is None or name not in graph.nodes]
    # A lot whose chances differ from row to row may go by the covariates.
    if problem.known_score is not None and np.ptp(problem.known_score) > 0:
        return ()
    columns = {name: problem.columns[name] for name in named}
    return moves_with_arm(columns, problem.treated, problem.cluster)


def _left_out(problem: Problem, plan: Plan, fit: Fit) -> tuple[str, ...]:
    """Name the columns that add nothing, as the method says or as the design shows."""
    spare = fit.dropped if fit.logit is None else fit.logit.dropped
    return _spare_columns(problem) if spare is None and plan.method.linear else spare or ()


def _spare_columns(problem: Problem) -> tuple[str, ...]:
    """Columns of the design that the ones before them determine, or levels of a text column that has many."""
    x = absorbed(problem.columns, problem.design.levels)
    if x is not None:
        return x.dropped
    X = problem.design.matrix
    kept = set(independent_columns(X, *moments(X)))
    return tuple(name for j, name in enumerate(problem.design.names) if j not in kept)
