"""One estimate from sums, put beside what was checked of it, in the words that it has in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from whyprompt.effects.assumptions import APART, describe_assumptions
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
from whyprompt.effects.large.robust import doubly_robust
from whyprompt.effects.large.sums import take_means
from whyprompt.effects.large.units import (
    levels_alone,
    moved_by_lot,
    with_levels,
)
from whyprompt.effects.large.weighed import by_entropy, by_nothing, by_score
from whyprompt.effects.measures import ratio_measures
from whyprompt.effects.methods.aipw import AIPW
from whyprompt.effects.methods.entropy import Entropy
from whyprompt.effects.methods.ipw import IPW
from whyprompt.effects.methods.learners import LINEAR, LOGIT, ROWS
from whyprompt.effects.methods.naive import BY_CLUSTER, WELCH
from whyprompt.effects.methods.nearest import Nearest
from whyprompt.effects.methods.overlap import Overlap
from whyprompt.effects.methods.weights import error_name, worth_little
from whyprompt.effects.pipeline import no_error
from whyprompt.effects.result import EffectResult, effect_sentence
from whyprompt.effects.separation import explained
from whyprompt.effects.stated import adjusted_for, result_of, risk_words
from whyprompt.effects.subgroups import IMPOSSIBLE
from whyprompt.effects.uncertainty import AFTER
from whyprompt.effects.uncertainty import BY_CLUSTER as MATCHED_BY_CLUSTER
from whyprompt.errors import EstimationError
from whyprompt.results import Estimate
from whyprompt.stats.errors import interval
from whyprompt.stats.propensity import SeparatedError
from whyprompt.stats.rules import few_clusters
from whyprompt.stats.several import two_sided_p

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.effects.large.rows import Rows
    from whyprompt.effects.large.sums import Means
    from whyprompt.effects.large.weighed import Weighed
    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.units import Unit
    from whyprompt.graph.model import CausalGraph


def explain(rows: Rows, plan: Plan, confounders: Sequence[str], error: SeparatedError) -> SeparatedError:
    """Name the levels that one arm has alone, where covariates separate the arms."""
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


def estimated(
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
        raise explain(rows, plan, confounders, apart) from None
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
    linear = getattr(plan.method, "outcome_model", None) == LINEAR
    if plan.method.dealt and not linear and rows.known is None:
        lines = by_lines(rows, made, means, plan.estimand)
    far = lines is not None and error is not None and abs(estimate - lines) > APART * error
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
        )._replace(by_fewer=_from_fewer(made) if far else None)
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
    found = result_of(
        rows,
        plan,
        row,
        assumptions=assumptions,
        balance=balance,
        ess=worth,
        of_fit=of_fit,
        settings=made.settings,
        how=_error_name(plan, made, errors),
        design=design,
        confounders=confounders,
        arms=means.n,
        spare=spare,
        binary=binary,
        impossible=(IMPOSSIBLE,) if beyond else (),
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
        text += f" Its models were learned from samples of some {ROWS:,} rows, and predict all."
    (_, _, heaviest), total = arms[1].chances, arms[1].chances[0]
    return replace(found, sentence=text), heaviest / total


def _from_fewer(made: Weighed) -> float | None:
    """Give what half as many rows would have taught; they may tell the arms apart where all do not."""
    try:
        return None if made.from_fewer is None else made.from_fewer()
    except EstimationError:
        return None


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
