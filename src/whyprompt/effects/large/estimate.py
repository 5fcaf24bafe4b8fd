"""The effect of one arm against another from a table larger than memory, by sums that DuckDB takes.

Numbers and sentences are those of `effects.estimate` of the same rows. What needs rows beside each other is
not computed: it is refused by name, or the result says that it was not looked at.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from whyprompt.effects.assumptions import describe_assumptions
from whyprompt.effects.estimate import why_overlap
from whyprompt.effects.large.errors import (
    Errors,
    errors_of_clusters,
    errors_of_means,
    errors_of_pairs,
    errors_of_rows,
)
from whyprompt.effects.large.judged import (
    balance_of,
    by_lines,
    left_by_sums,
    overlap_by_sums,
    sums_by_arm,
)
from whyprompt.effects.large.matched import by_pairs
from whyprompt.effects.large.offered import refuse_rows
from whyprompt.effects.large.robust import doubly_robust
from whyprompt.effects.large.rows import Rows, literal
from whyprompt.effects.large.source import connected, words_of
from whyprompt.effects.large.sums import take_means
from whyprompt.effects.large.units import (
    chance_notes,
    find_units_of,
    levels_alone,
    moved_by_lot,
    refuse_moved_in,
    with_levels,
)
from whyprompt.effects.large.weighed import by_entropy, by_nothing, by_score
from whyprompt.effects.measures import ratio_measures
from whyprompt.effects.methods.aipw import AIPW
from whyprompt.effects.methods.entropy import Entropy
from whyprompt.effects.methods.ipw import IPW
from whyprompt.effects.methods.learners import LINEAR, LOGIT, ROWS, score_column
from whyprompt.effects.methods.make import settle_plan
from whyprompt.effects.methods.naive import BY_CLUSTER, WELCH
from whyprompt.effects.methods.nearest import Nearest
from whyprompt.effects.methods.overlap import Overlap
from whyprompt.effects.methods.weights import error_name, worth_little
from whyprompt.effects.pipeline import no_error
from whyprompt.effects.problem import choose_confounders
from whyprompt.effects.result import EffectResult, effect_sentence
from whyprompt.effects.separation import by_logit, explained, spared_words
from whyprompt.effects.stated import adjusted_for, risk_words, settings_of, warnings_of
from whyprompt.effects.subgroups import IMPOSSIBLE
from whyprompt.effects.uncertainty import AFTER
from whyprompt.effects.uncertainty import BY_CLUSTER as MATCHED_BY_CLUSTER
from whyprompt.effects.units import NO_CLUSTER, settle_cluster
from whyprompt.results import Estimate
from whyprompt.stats.errors import interval
from whyprompt.stats.propensity import SeparatedError
from whyprompt.stats.rules import few_clusters
from whyprompt.stats.several import two_sided_p

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.effects.checks.balance import Denominator
    from whyprompt.effects.large.source import Parquet
    from whyprompt.effects.large.sums import Means
    from whyprompt.effects.large.weighed import Weighed
    from whyprompt.effects.methods.make import MethodLike
    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.separation import OneArmed
    from whyprompt.effects.units import Unit
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
        found, heaviest = _estimated(rows, plan, chosen or (), **about)
        overlap = _overlap_of(found)
        moved: tuple[str, ...] = ()
        if overlap is not None and method is None and estimand is None and design == "observational":
            why = why_overlap(overlap, heaviest, arms[1], rows.control_level)
            if why:
                other, _ = _estimated(rows, replace(plan, estimand="ato"), chosen or (), **about)
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
            raise _explained(rows, plan, confounders, SeparatedError(f"the arms share no level of {name!r}"))
    if not by_logit(plan, known=known) or plan.estimand == "ate":
        return (), rows
    spare = {"att": False, "atc": True}.get(plan.estimand)
    levels, left = levels_alone(rows, confounders, arm=spare)
    return (levels, left) if levels and all(left.n_arms()) else ((), rows)


def _explained(rows: Rows, plan: Plan, confounders: Sequence[str], error: SeparatedError) -> SeparatedError:
    levels, left = levels_alone(rows, with_levels(rows, confounders))
    return explained(levels, left.n_arms(), rows, plan, error)


def _weighed(rows: Rows, means: Means, plan: Plan) -> Weighed:
    method = plan.method
    if isinstance(method, IPW | Overlap):
        return by_score(rows, means, plan, method)
    if isinstance(method, Entropy):
        return by_entropy(rows, means, plan, method)
    if isinstance(method, Nearest):
        return by_pairs(rows, means, plan, method)
    return doubly_robust(rows, means, plan, method) if isinstance(method, AIPW) else by_nothing(rows, means)


def _estimated(
    rows: Rows,
    plan: Plan,
    confounders: tuple[str, ...],
    *,
    lost: tuple[int, int],
    design: str,
    graph: CausalGraph | None,
    cautions: Sequence[str],
    repeats: str | None,
    item: Unit | None,
) -> tuple[EffectResult, float]:
    """Estimate from the rows that are left, and put the number beside what was checked of it.

    Also give the share of the control rows' weight, by chances alone, that one of them carries.
    """
    naive = plan.method.name == "naive"
    means = take_means(rows)
    try:
        made = _weighed(rows, means, plan)
    except SeparatedError as apart:
        raise _explained(rows, plan, confounders, apart) from None
    arms, asked = sums_by_arm(rows, made)
    values, influence = made.finish(*asked)
    estimate = values[0] - values[1]
    worth = (arms[0].worth, arms[1].worth)
    errors = _errors(rows, made, means, plan, influence, arms)
    error, df = errors.of(1.0, 1.0)
    used = (arms[0].used, arms[1].used)
    of_fit: tuple[str, ...] = made.remarks
    if not (naive or made.pairs):
        of_fit = (*worth_little(worth, used, plan.estimand), *made.remarks)
    if error is None and made.pairs:
        of_fit += ("there are too few pairs or rows for a standard error",)
    if errors.clusters is not None:
        of_fit += few_clusters(errors.clusters, None if _plain(rows, plan) else df)
    in_one = None
    if errors.in_arms is not None and min(errors.in_arms) == 1:
        in_one = rows.treated_level if errors.in_arms[0] == 1 else rows.control_level
    ends = made.ends or [(float(a[0]), float(b[0])) for a, b in zip(means.low, means.high, strict=True)]
    why = no_error(error if error is not None else 1.0, ends, means.ends, in_one)
    if why:
        of_fit, error, df = (*of_fit, why), None, None
        if all(low == high for low, high in ends):
            values = (ends[0][0], ends[1][0])
            estimate = values[0] - values[1]
    low, high = interval(estimate, error, level=plan.level, df=df)
    row = Estimate(
        label="overall",
        estimate=estimate,
        std_error=error,
        ci_low=low,
        ci_high=high,
        p_value=two_sided_p(estimate, error, df),
        df=df,
        n_treated=means.n[0] + lost[0],
        n_control=means.n[1] + lost[1],
        n_treated_used=used[0],
        n_control_used=used[1],
        mean_treated=values[0],
        mean_control=values[1],
    )
    balance = balance_of(rows, means, arms, plan.denominator) if confounders else ()
    plain = means.means[0] - means.means[1]
    about: dict[str, Any] = {"estimand": plan.estimand, "std_error": error}
    lines = None
    if plan.method.dealt and getattr(plan.method, "outcome_model", None) != LINEAR:
        lines = by_lines(rows, made, means, plan.estimand)
    assumptions = describe_assumptions(
        design=design,
        confounders=adjusted_for(confounders, (), plan),
        from_graph=graph is not None,
        cautions=cautions,
        clustered=rows.cluster is not None,
        balance=balance,
        overlap=overlap_by_sums(rows, made, means, arms, lost=lost, **about) if made.score else None,
        moved=moved_by_lot(rows, means, graph) if design == "randomized" else (),
        removed=(plain - estimate, row) if confounders or rows.known is not None else None,
        left=left_by_sums(
            rows, made, means, arms, estimate=estimate, curved=plan.method.dealt, lines=lines, **about
        )
        if confounders and not naive and design != "randomized"
        else None,
    )
    binary = means.ends[0] in {0.0, 1.0} and means.ends[1] in {0.0, 1.0} and means.two_valued_outcome
    measures = _measures(row, values, errors, plan) if binary else ()
    beyond = binary and low is not None and high is not None and (low < -1.0 or high > 1.0)
    spare = made.dropped
    if spare is None:
        spare = (
            tuple(n for j, n in enumerate(rows.design.names) if j not in means.kept)
            if plan.method.linear
            else ()
        )
    found = EffectResult(
        sentence="",
        treatment=rows.treatment,
        outcome=rows.outcome,
        treated=rows.treated_level,
        control=rows.control_level,
        axis=f"difference in {rows.outcome}, {rows.treated_level} minus {rows.control_level}",
        estimand=plan.estimand,
        method=plan.method.name,
        overall=row,
        level=plan.level,
        ess_treated=worth[0],
        ess_control=worth[1],
        balance=balance,
        assumptions=assumptions,
        warnings=warnings_of(
            plan,
            row,
            assumptions,
            of_fit,
            rows,
            design=design,
            adjusted=bool(confounders),
            arms=means.n,
            spare=spare,
            binary=binary,
            impossible=(IMPOSSIBLE,) if beyond else (),
        ),
        std_error_method=_error_name(plan, made, errors),
        settings=settings_of(
            plan,
            made.settings,
            known=rows.known is not None,
            discarded=0,
            cluster=rows.cluster,
            levels=rows.design.levels,
        ),
        confounders=() if naive else confounders,
        measures=measures,
    )
    settled = "graph" if graph is not None and not confounders and design != "randomized" else design
    text = effect_sentence(
        found,
        confounders=adjusted_for(confounders, (), plan),
        design=settled,
        repeats=repeats,
        item=None if item is None else item.name,
        matched=made.pairs > 0,
    )
    text += risk_words(values, measures)
    if made.sampled:
        text += f" Its models were fitted to samples of {ROWS:,} rows, and predict all."
    (_, _, heaviest), total = arms[1].chances, arms[1].chances[0]
    return replace(found, sentence=text), heaviest / total


def _plain(rows: Rows, plan: Plan) -> bool:
    """Whether the error is that of cross-fitted residuals as they are."""
    return plan.method.dealt and not (getattr(plan.method, "calibrate", False) and rows.known is None)


def _errors(
    rows: Rows,
    made: Weighed,
    means: Means,
    plan: Plan,
    influence: tuple[str, str],
    arms: Any,  # noqa: ANN401 - two sums
) -> Errors:
    naive, dealt = plan.method.name == "naive", _plain(rows, plan)
    if rows.cluster is not None:
        return errors_of_clusters(rows, made, influence, arms, known=naive, summed=dealt)
    if naive:
        return errors_of_means(means)
    if made.pairs:
        return errors_of_pairs(rows, made, influence)
    one, none = ((a.second / a.weight**2, a.fourth / a.weight**4) for a in arms)
    df = max((one[0] + none[0]) ** 2 / (one[1] + none[1]), 1.0)
    return errors_of_rows(rows, made, influence, None if dealt else df)


def _error_name(plan: Plan, made: Weighed, errors: Errors) -> str:
    clustered = errors.clusters is not None
    if plan.method.name == "naive":
        return BY_CLUSTER if clustered else WELCH
    if made.pairs:
        return MATCHED_BY_CLUSTER if clustered else made.how or f"pair-{AFTER}"
    known = made.known and (plan.method.dealt or plan.score_model in (None, LOGIT))
    return error_name(known=known, clustered=clustered)


def _measures(row: Estimate, values: tuple[float, float], errors: Errors, plan: Plan) -> tuple[Estimate, ...]:
    """State the effect on a 0/1 outcome as risk difference, risk ratio and odds ratio."""
    difference = Estimate(
        label="risk difference",
        estimate=row.estimate,
        std_error=row.std_error,
        ci_low=row.ci_low,
        ci_high=row.ci_high,
    )
    known = errors.of if row.std_error is not None else lambda _a, _b: (None, None)
    return (difference, *ratio_measures(values, known, level=plan.level))
