"""From a trial table to an effect: one function for every method.

`estimate_effect` reads columns, settles what to adjust for, matches or weighs, computes the standard error
that goes with the method, and says in words what the number is worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted, format_number, p_words
from whyprompt.effects.assumptions import describe_assumptions, judge_overlap
from whyprompt.effects.caused import moves_with_arm
from whyprompt.effects.checks.balance import balance_table, effective_sample_size
from whyprompt.effects.measures import is_binary, risk_measures
from whyprompt.effects.options import METHODS, refuse_ignored, settle_options
from whyprompt.effects.pipeline import bootstrapped, compute
from whyprompt.effects.problem import choose_confounders, prepare
from whyprompt.effects.result import EffectResult, effect_sentence
from whyprompt.effects.separation import explain_separation, without_counterpart
from whyprompt.effects.subgroups import heterogeneity, impossible_limits, subgroup_effects
from whyprompt.effects.units import NO_CLUSTER, find_units, refuse_moved, settle_cluster
from whyprompt.errors import EstimationError
from whyprompt.stats.design import design_matrix, independent_columns, moments
from whyprompt.stats.propensity import SeparatedError
from whyprompt.stats.several import two_sided_p
from whyprompt.tables import open_table, rows_of_two_arms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.checks.balance import Denominator
    from whyprompt.effects.methods.nearest import Order, TieRule
    from whyprompt.effects.options import Options
    from whyprompt.effects.pipeline import Core
    from whyprompt.effects.problem import Problem
    from whyprompt.effects.result import EffectSubgroup
    from whyprompt.graph.model import CausalGraph
    from whyprompt.results import BalanceRow, Measure

__all__ = ["METHODS", "estimate_effect"]

# A column whose variance beyond the columns before it is below this share is a copy of them.
_COPY = 1e-9


def estimate_effect(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    estimand: str | None = None,
    method: str | None = None,
    treated: object | None = None,
    control: object | None = None,
    design: str = "observational",
    caliper: float | None = None,
    caliper_unit: str = "sd",
    covariate_calipers: Mapping[str, float] | None = None,
    replace: bool | None = None,
    ratio: int = 1,
    exact: Sequence[str] = (),
    order: Order | None = None,
    distance: Any = "logistic",  # noqa: ANN401 - a name or any scikit-learn classifier
    propensity: str | None = None,
    discard: str = "none",
    kernel: str = "epanechnikov",
    bandwidth: float | None = None,
    mahalanobis_on: Sequence[str] | None = None,
    n_strata: int = 6,
    cutpoints: Mapping[str, Any] | None = None,
    ties: TieRule = "sorted",
    tie_break: str | None = None,
    reference: Mapping[str, str] | None = None,
    cluster: str | None = None,
    by: str | Sequence[str] | None = None,
    level: float = 0.95,
    se: str = "auto",
    draws: int = 1000,
    neighbours: int = 2,
    denominator: Denominator = "pooled",
    random_state: int = 0,
) -> EffectResult:
    """Estimate the effect of one arm against another from a table with one arm a row.

    Parameters
    ----------
    frame : DataFrame
        pandas, polars or pyarrow. It is read and never written.
    treatment, outcome : str
        Columns. The treatment is 0/1, boolean, or has levels of which `treated` names one. An outcome of 0
        and 1 is also given as a risk ratio and an odds ratio (`EffectResult.measures`).
    confounders : sequence of str, optional
        Columns that affect both the choice of arm and the outcome. Text columns are coded by reference
        coding. Columns that the arm causes are refused, by the names that the field gives to them
        (``prompt_tokens``, ``latency_ms``, ...) and where rows of one item show it.
    graph : CausalGraph, optional
        Gives the confounders, or checks those given. It settles what the arm causes, whatever the names are.
    estimand : {"att", "atc", "ate", "ato"}, optional
        Default ``"att"``; ``"ato"`` for ``method="overlap"`` and ``"ate"`` for ``method="naive"``.
    method : str, optional
        ``naive`` (difference of means), ``nearest``, ``optimal``, ``full``, ``kernel``, ``subclass``,
        ``cem``, ``ipw``, ``overlap``, ``entropy`` or ``aipw``. Default ``nearest``; in a randomised design
        ``naive``, or ``ipw`` of the ATE where there are confounders or a known propensity.
    treated, control : object, optional
        Levels of the treatment. Where both are named, rows of other arms are put aside and counted; for all
        arms at once see `compare_arms`.
    design : {"observational", "randomized"}, default "observational"
        How rows got their arms.
    caliper : float, optional
        Largest allowed distance of a pair, in `caliper_unit`. Pairs within a wide one still differ, which
        biases the estimate and which the error of pairs does not know: `placebo_treatment` shows it.
    caliper_unit : {"sd", "raw", "sd_logit", "raw_logit"}, default "sd"
        Standard deviations (over all rows) or units of what is matched on, or of the logit of the score.
    covariate_calipers : mapping of str to float, optional
        Largest allowed difference in a column, in its units.
    replace : bool, optional
        Whether a row may be matched more than once. Default: only for the ATE, which needs it.
    ratio : int, default 1
        Matches a row.
    exact : sequence of str
        Columns on which matched rows must be equal (matching methods only).
    order : {"largest", "smallest", "random", "data", "closest"}, optional
        Who chooses first. See `match_nearest`.
    distance : {"logistic", "logit", "mahalanobis"} or classifier, default "logistic"
        What is matched on: the fitted probability, its logit, the covariates, or the probability of a
        scikit-learn classifier, cross-fitted.
    propensity : str, optional
        Column with known propensities, in place of an estimated score.
    discard : {"none", "treated", "control", "both", "crump"}, default "none"
        Rows put aside for want of common support.
    kernel, bandwidth
        For ``method="kernel"``, see `match_kernel`.
    mahalanobis_on : sequence of str, optional
        Confounders that ``distance="mahalanobis"`` is over (MatchIt's ``mahvars``); default all. A caliper
        stays one on the score, which uses all confounders.
    n_strata : int, default 6
        For ``method="subclass"``.
    cutpoints : mapping, optional
        For ``method="cem"``, see `match_cem`.
    ties : {"sorted", "average", "first"}, default "sorted"
        With replacement: take the tied row nearest in sorted order (MatchIt), all of them (Matching), or
        the first in the table.
    tie_break : str, optional
        Column that identifies rows and orders equal scores, so that the order of the table is irrelevant.
    reference : mapping of str to str, optional
        Reference level of a text column; default the first in sorted order.
    cluster : str, optional
        Column with the sampling unit. Default: ``cluster``, ``item_id`` or another column that plainly is one
        where its values repeat, with a warning; ``"none"`` takes every row as a unit of its own.
    by : str or sequence of str, optional
        Columns known before the arm was chosen. The whole pipeline is run within each of their levels, with
        Holm's adjustment over all of them and a test of whether the effects differ.
    level : float, default 0.95
        Of the interval.
    se : {"auto", "pairs", "abadie_imbens", "strata", "bootstrap", "wild_bootstrap"}, default "auto"
        Standard error. ``auto`` is the one that goes with the method, corrected for the estimated score
        where the correction is known; one asked for by name is the textbook's, score taken as known.
    draws : int, default 1000
        Of a bootstrap.
    neighbours : int, default 2
        Rows from which a conditional variance is estimated (Abadie-Imbens); 0 for one common variance.
    denominator : {"pooled", "treated", "control", "all", "weighted"}, default "pooled"
        Of standardised mean differences.
    random_state : int, default 0
        For everything random (folds, draws, a random order), dealt to rows by what they hold: the order of
        the table decides only between equal scores, and not where `tie_break` is given.

    Returns
    -------
    EffectResult

    Raises
    ------
    DataError
        If a column is absent, has missing or infinite values, or is of the wrong kind.
    EstimationError
        If an arm is empty, scores are separated, nothing can be matched, a covariate is caused by the
        arm, or options contradict each other.
    GraphError
        If the graph forbids a confounder.

    References
    ----------
    Rosenbaum, P. R. and Rubin, D. B. (1983). The central role of the propensity score in observational
    studies for causal effects. Biometrika 70, 41-55.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> difficulty = rng.normal(size=400)
    >>> arm = rng.random(400) < 1 / (1 + np.exp(-difficulty))
    >>> score = 2.0 * arm - difficulty + rng.normal(size=400)
    >>> frame = pd.DataFrame({"arm": arm, "score": score, "difficulty": difficulty})
    >>> result = estimate_effect(
    ...     frame, treatment="arm", outcome="score", confounders=["difficulty"], caliper=0.1
    ... )
    >>> result.ci_low < 2.0 < result.ci_high
    True
    """
    given = dict(locals())
    return estimated(given.pop("frame"), **given).result


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Estimated:
    """A result with the arrays it came from, for analyses that go on from there.

    `rows` masks the rows of the two arms, None where the table has no other.
    """

    result: EffectResult
    problem: Problem
    options: Options
    core: Core
    rows: NDArray[np.bool_] | None


def defaults(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Complete options passed on to another function by that function's defaults.

    Parameters
    ----------
    function : callable
        Such as `estimate_effect`.
    options : mapping

    Returns
    -------
    dict

    Raises
    ------
    EstimationError
        If an option is not one of the function's.
    """
    import inspect

    known = {k: p.default for k, p in inspect.signature(function).parameters.items() if k != "frame"}
    for name in options:
        if name not in known:
            raise EstimationError(f"option {name!r} is not known", hint=f"one of: {', '.join(sorted(known))}")
    return {k: v for k, v in known.items() if v is not inspect.Parameter.empty} | dict(options)


def estimated(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None,
    graph: CausalGraph | None,
    design: str,
    treated: object | None,
    control: object | None,
    exact: Sequence[str],
    covariate_calipers: Mapping[str, float] | None,
    mahalanobis_on: Sequence[str] | None,
    propensity: str | None,
    tie_break: str | None,
    reference: Mapping[str, str] | None,
    cluster: str | None,
    by: str | Sequence[str] | None,
    **rest: Any,  # noqa: ANN401 - checked by `check_options`
) -> Estimated:
    """Do what `estimate_effect` does, and keep the arrays.

    Returns
    -------
    Estimated
    """
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
    options = settle_options(chosen, propensity, design=design, mahalanobis_on=mahalanobis_on, **rest)
    units = find_units(
        table,
        treatment=treatment,
        outcomes=[outcome],
        covariates=[*(chosen or ()), *((by,) if isinstance(by, str) else by or ())],
    )
    named, notes = settle_cluster(cluster, units)
    columns: dict[str, Any] = {
        "treatment": treatment,
        "outcome": outcome,
        "confounders": chosen or (),
        "treated": treated,
        "control": control,
        "exact": exact,
        "covariate_calipers": covariate_calipers,
        "cluster": named,
        "tie_break": tie_break,
        "propensity": propensity,
        "reference": reference,
        "graph": graph,
    }
    problem = prepare(table, **columns)
    refuse_ignored(problem, options)
    refuse_moved(table, units, problem, graph)
    aside = without_counterpart(problem, options)
    lost = (int((aside & problem.treated).sum()), int((aside & ~problem.treated).sum()))
    here = np.flatnonzero(np.ones(whole.n_rows, dtype=bool) if rows is None else rows)
    gone = here[aside & problem.treated]
    if aside.any():
        rows = np.zeros(whole.n_rows, dtype=bool)
        rows[here[~aside]] = True
        table = table.keep(~aside)
        columns |= {"treated": problem.arms.treated, "control": problem.arms.control}
        problem = prepare(table, **columns)
    try:
        core = compute(problem, options)
    except SeparatedError as error:
        raise explain_separation(problem, options.method, options.estimand, error) from None
    if options.se == "bootstrap":
        core = bootstrapped(problem, options, core)
    item = units.item if units.item is not None and units.item.paired and cluster != NO_CLUSTER else None
    if item is not None:
        notes = (*notes, item.paired_note)
    result = _result(
        problem,
        options,
        core,
        design=design,
        graph=graph,
        cautions=tuple(cautions),
        lost=lost,
        notes=notes,
        repeats=cluster is None,
        item=None if item is None else item.name,
    )
    if by is not None:
        subgroups = subgroup_effects(table, by, problem, options, graph=graph)
        differ = heterogeneity(subgroups, table=table, cluster=problem.cluster)
        result = changed(
            result,
            subgroups=subgroups,
            heterogeneity=differ,
            sentence=result.sentence + _subgroup_words(subgroups, differ, options.level),
        )
    if rows is not None:
        result = _spread(result, rows, whole.n_rows, gone, sum(lost))
    return Estimated(result=result, problem=problem, options=options, core=core, rows=rows)


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


def _subgroup_words(rows: Sequence[EffectSubgroup], differ: Mapping[str, float], level: float) -> str:
    seen = [r for r in rows if r.p_holm is not None and r.p_holm < 1 - level and not r.few]
    text = ""
    if seen:
        listed = ", ".join(f"{r.by}={r.level} ({format_number(r.estimate)})" for r in seen)
        text += f" Adjusted for the number of subgroups looked at, a difference is seen in {listed}."
    for name, p in differ.items():
        verdict = "differ" if p < 1 - level else "are not shown to differ"
        text += f" Over {name!r} the effects {verdict} (p {p_words(p)})."
    few = [r for r in rows if r.few]
    if few:
        text += (
            f" {counted(len(few), 'subgroup')} of {len(rows)} {'has' if len(few) == 1 else 'have'} too few"
            " rows to say anything."
        )
    return text


def _result(
    problem: Problem,
    options: Options,
    core: Core,
    *,
    design: str,
    graph: CausalGraph | None,
    cautions: Sequence[str],
    lost: tuple[int, int],
    notes: Sequence[str],
    repeats: bool,
    item: str | None,
) -> EffectResult:
    t, w = problem.treated, core.weights
    shown = design_matrix(problem.columns, full=True)
    balance: tuple[BalanceRow, ...] = ()
    if problem.confounders:
        balance = balance_table(shown.matrix, t, w, names=shown.names, denominator=options.denominator)
    ess = (effective_sample_size(w[t]), effective_sample_size(w[~t]))
    total = (int(t.sum()) + lost[0], int((~t).sum()) + lost[1])
    used = (int((w[t] > 0).sum()), int((w[~t] > 0).sum()))
    adjusted = () if options.method == "naive" else problem.confounders
    overlap = None
    if core.score is not None or core.matched is not None:
        overlap = judge_overlap(
            None if core.score is None else core.score.propensity,
            t,
            estimand=options.estimand,
            weights=w,
            discarded=core.discarded,
            ess=ess,
            lost=lost,
        )
    moved: tuple[str, ...] = ()
    if design == "randomized" and problem.known_score is None:
        named = [name for name in problem.confounders if graph is None or name not in graph.nodes]
        shape = design_matrix({name: problem.columns[name] for name in named}) if named else None
        if shape is not None:
            moved = moves_with_arm(shape.matrix, shape.names, t, problem.cluster)
    also = () if options.method == "naive" else tuple(n for n in problem.exact if n not in adjusted)
    assumptions = describe_assumptions(
        design=design,
        confounders=(*adjusted, *also),
        from_graph=graph is not None,
        cautions=cautions,
        clustered=problem.cluster is not None,
        balance=balance,
        overlap=overlap,
        moved=moved,
    )
    settled = "graph" if graph is not None and not problem.confounders and design != "randomized" else design
    measures = risk_measures(problem, options, core)
    sentence = effect_sentence(
        outcome=problem.outcome_name,
        treated=problem.arms.treated,
        control=problem.arms.control,
        estimand=options.estimand,
        method=options.method,
        estimate=core.estimate,
        ci=core.ci,
        level=options.level,
        used=used,
        total=total,
        balance=balance,
        assumptions=assumptions,
        confounders=(*adjusted, *also),
        design=settled,
        repeats=problem.cluster_name if repeats else None,
        item=item,
    )
    return EffectResult(
        treatment=problem.treatment_name,
        outcome=problem.outcome_name,
        treated_level=problem.arms.treated,
        control_level=problem.arms.control,
        estimand=options.estimand,
        method=options.method,
        estimate=core.estimate,
        std_error=core.std_error,
        ci_low=core.ci[0],
        ci_high=core.ci[1],
        level=options.level,
        n_treated=total[0],
        n_control=total[1],
        n_treated_used=used[0],
        n_control_used=used[1],
        ess_treated=ess[0],
        ess_control=ess[1],
        balance=balance,
        assumptions=assumptions,
        warnings=(
            *notes,
            *_warnings(
                problem,
                options,
                core,
                total,
                used,
                design=design,
                balance_fails=_fails(assumptions, "balance"),
            ),
        ),
        sentence=sentence + _risk_words(core, measures),
        se_method=core.se_method,
        settings=_settings(problem, options, core),
        confounders=adjusted,
        mean_treated=core.means[0],
        mean_control=core.means[1],
        df=core.df,
        p_value=two_sided_p(core.estimate, core.std_error, core.df),
        measures=measures,
        treated_rows=t,
        weights=w,
        propensity=None if core.score is None else core.score.propensity,
        matched=core.matched,
    )


def _risk_words(core: Core, measures: Sequence[Measure]) -> str:
    ratio = next((m for m in measures if m.name == "risk ratio"), None)
    if ratio is None:
        return ""
    text = f" The risks are {format_number(core.means[0])} and {format_number(core.means[1])}"
    if ratio.estimate is None:
        return f"{text}; {ratio.note}."
    text += f", a risk ratio of {format_number(ratio.estimate)}"
    if ratio.ci_low is not None and ratio.ci_high is not None:
        text += f" ({format_number(ratio.ci_low)} to {format_number(ratio.ci_high)})"
    return text + "."


def _fails(assumptions: Sequence[Any], name: str) -> str | None:
    return next((a.detail for a in assumptions if a.name == name and a.status == "fails"), None)


def _warnings(
    problem: Problem,
    options: Options,
    core: Core,
    total: tuple[int, int],
    used: tuple[int, int],
    *,
    design: str,
    balance_fails: str | None,
) -> tuple[str, ...]:
    out = list(core.warnings)
    if options.method == "naive" and not problem.confounders and design != "randomized":
        out.append("nothing was adjusted for")
    if balance_fails:
        out.append(f"balance was not reached: {balance_fails}")
    for name, n, m in zip((problem.arms.treated, problem.arms.control), total, used, strict=True):
        focal = options.estimand in {"ate", "ato"} or (
            (options.estimand == "att") == (name == problem.arms.treated)
        )
        if focal and m < n and options.method != "naive":
            out.append(
                f"{n - m} of {n} {name!r} rows are not used; the effect is that on the other {m},"
                f" which is not the {options.estimand.upper()} of the whole table"
            )
    fit = None if core.score is None else core.score.fit
    spare: tuple[str, ...] = ()
    if fit is not None:
        spare = fit.dropped
    elif options.method not in {"naive", "cem"}:
        spare = _spare_columns(problem)
    if spare:
        out.append(f"left out of the adjustment as constant or a copy of others: {', '.join(spare)}")
    if min(used) < 30 and is_binary(problem.y):
        out.append("a risk difference from fewer than 30 rows in an arm: the interval is approximate")
    out.extend(impossible_limits(problem.y, core))
    return tuple(out)


def _spare_columns(problem: Problem) -> tuple[str, ...]:
    """Columns of the design that the ones before them determine."""
    X = problem.design.matrix
    kept = set(independent_columns(X, *moments(X)))
    return tuple(name for j, name in enumerate(problem.design.names) if j not in kept)


def _settings(problem: Problem, options: Options, core: Core) -> dict[str, Any]:
    out: dict[str, Any] = dict(core.settings)
    out["smd_denominator"] = options.denominator
    if options.method not in {"naive", "cem", "entropy"}:
        name = options.distance if isinstance(options.distance, str) else type(options.distance).__name__
        out["distance"] = "known propensity" if problem.known_score is not None else name
    if options.caliper is not None:
        out["caliper"], out["caliper_unit"] = options.caliper, options.caliper_unit
    if options.discard != "none":
        out["discard"] = options.discard
        out["n_discarded"] = int(core.discarded.sum())
    if problem.exact:
        out["exact"] = list(problem.exact)
    if problem.cluster_name is not None:
        out["cluster"] = problem.cluster_name
    if problem.design.levels:
        out["levels"] = {name: list(levels) for name, levels in problem.design.levels.items()}
    return out
