"""From a trial table to an effect: one function for every method.

`estimate_effect` reads columns, settles what to adjust for, matches or weighs, computes the standard error
that goes with the method, and says in words what the number is worth.
"""

from __future__ import annotations

from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects._assumptions import describe_assumptions, judge_overlap
from whyprompt.effects._frame import open_table
from whyprompt.effects._pipeline import METHODS, bootstrapped, check_options, compute
from whyprompt.effects._problem import choose_confounders, prepare
from whyprompt.effects.balance import balance_table, effective_sample_size
from whyprompt.effects.propensity import design_matrix
from whyprompt.effects.result import EffectResult, effect_sentence
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.effects._pipeline import Core, Options
    from whyprompt.effects._problem import Problem
    from whyprompt.effects.balance import Denominator
    from whyprompt.effects.matching import Order, TieRule
    from whyprompt.effects.result import BalanceRow
    from whyprompt.graph import CausalGraph

__all__ = ["METHODS", "estimate_effect"]


def estimate_effect(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    estimand: str | None = None,
    method: str = "nearest",
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
    n_strata: int = 6,
    cutpoints: Mapping[str, Any] | None = None,
    ties: TieRule = "sorted",
    tie_break: str | None = None,
    reference: Mapping[str, str] | None = None,
    cluster: str | None = None,
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
        Columns. The treatment is 0/1, boolean, or two levels with `treated` naming one.
    confounders : sequence of str, optional
        Columns that affect both the choice of arm and the outcome. Text columns are coded by reference
        coding. Columns that the arm causes (``prompt_tokens``, ...) are refused.
    graph : CausalGraph, optional
        Gives the confounders, or checks those given.
    estimand : {"att", "atc", "ate", "ato"}, optional
        Default ``"att"``; ``"ato"`` for ``method="overlap"`` and ``"ate"`` for ``method="naive"``.
    method : str, default "nearest"
        ``naive`` (difference of means), ``nearest``, ``optimal``, ``kernel``, ``subclass``, ``cem``,
        ``ipw``, ``overlap``, ``entropy`` or ``aipw``.
    treated, control : object, optional
        Levels of the treatment.
    design : {"observational", "randomized"}, default "observational"
        How rows got their arms.
    caliper : float, optional
        Largest allowed distance of a pair, in `caliper_unit`.
    caliper_unit : {"sd", "raw", "sd_logit", "raw_logit"}, default "sd"
        Standard deviations (over all rows) or units of what is matched on, or of the logit of the score.
    covariate_calipers : mapping of str to float, optional
        Largest allowed difference in a column, in its units.
    replace : bool, optional
        Whether a row may be matched more than once. Default: only for the ATE, which needs it.
    ratio : int, default 1
        Matches a row.
    exact : sequence of str
        Columns on which matched rows must be equal (``nearest``, ``optimal``, ``kernel``, ``subclass``).
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
    n_strata : int, default 6
        For ``method="subclass"``.
    cutpoints : mapping, optional
        For ``method="cem"``, see `match_cem`.
    ties : {"sorted", "average"}, default "sorted"
        With replacement: take the tied row nearest in sorted order, or all of them.
    tie_break : str, optional
        Column that identifies rows and orders equal scores, so that the order of the table is irrelevant.
    reference : mapping of str to str, optional
        Reference level of a text column; default the first in sorted order.
    cluster : str, optional
        Column with the sampling unit.
    level : float, default 0.95
        Of the interval.
    se : {"auto", "pairs", "abadie_imbens", "strata", "bootstrap", "wild_bootstrap"}, default "auto"
        Standard error. ``auto`` is the one that goes with the method.
    draws : int, default 1000
        Of a bootstrap.
    neighbours : int, default 2
        Rows from which a conditional variance is estimated (Abadie-Imbens); 0 for one common variance.
    denominator : {"pooled", "treated", "control", "all", "weighted"}, default "pooled"
        Of standardised mean differences.
    random_state : int, default 0
        For everything random.

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
    >>> rng = np.random.default_rng(1)
    >>> difficulty = rng.normal(size=400)
    >>> arm = rng.random(400) < 1 / (1 + np.exp(-difficulty))
    >>> score = 2.0 * arm - difficulty + rng.normal(size=400)
    >>> frame = pd.DataFrame({"arm": arm, "score": score, "difficulty": difficulty})
    >>> result = estimate_effect(
    ...     frame, treatment="arm", outcome="score", confounders=["difficulty"], caliper=0.2
    ... )
    >>> result.ci_low < 2.0 < result.ci_high
    True
    """
    options = check_options(
        method=method,
        estimand=estimand,
        design=design,
        caliper=caliper,
        caliper_unit=caliper_unit,
        replace=replace,
        ratio=ratio,
        order=order,
        distance=distance,
        discard=discard,
        kernel=kernel,
        bandwidth=bandwidth,
        n_strata=n_strata,
        cutpoints=cutpoints,
        ties=ties,
        level=level,
        se=se,
        draws=draws,
        neighbours=neighbours,
        denominator=denominator,
        random_state=random_state,
    )
    table = open_table(frame)
    table.require([treatment], role="treatment")
    table.require([outcome], role="outcome")
    chosen, cautions = choose_confounders(
        table, treatment=treatment, outcome=outcome, confounders=confounders, graph=graph
    )
    if not chosen and options.method != "naive" and propensity is None:
        if chosen is None:
            raise EstimationError(
                f"method {options.method!r} needs to know what to adjust for",
                hint="give confounders=[...] or a graph, or method='naive' for the plain difference",
            )
        options = changed(options, method="naive")
    problem = prepare(
        table,
        treatment=treatment,
        outcome=outcome,
        confounders=chosen or (),
        treated=treated,
        control=control,
        exact=exact,
        covariate_calipers=covariate_calipers,
        cluster=cluster,
        tie_break=tie_break,
        propensity=propensity,
        reference=reference,
    )
    core = compute(problem, options)
    if options.se == "bootstrap":
        core = bootstrapped(problem, options, core)
    return _result(problem, options, core, design=design, from_graph=graph is not None, cautions=cautions)


def _result(
    problem: Problem,
    options: Options,
    core: Core,
    *,
    design: str,
    from_graph: bool,
    cautions: Sequence[str],
) -> EffectResult:
    t, w = problem.treated, core.weights
    shown = design_matrix(problem.columns, full=True)
    balance: tuple[BalanceRow, ...] = ()
    if problem.confounders:
        balance = balance_table(shown.matrix, t, w, names=shown.names, denominator=options.denominator)
    ess = (effective_sample_size(w[t]), effective_sample_size(w[~t]))
    overlap = None
    if core.score is not None:
        overlap = judge_overlap(
            core.score.propensity,
            t,
            estimand=options.estimand,
            weights=w,
            discarded=core.discarded,
            ess=ess,
        )
    assumptions = describe_assumptions(
        design=design,
        confounders=problem.confounders,
        from_graph=from_graph,
        cautions=cautions,
        clustered=problem.cluster is not None,
        balance=balance,
        overlap=overlap,
    )
    total = (int(t.sum()), int((~t).sum()))
    used = (int((w[t] > 0).sum()), int((w[~t] > 0).sum()))
    adjusted = () if options.method == "naive" else problem.confounders
    settled = "graph" if from_graph and not problem.confounders and design != "randomized" else design
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
        confounders=adjusted,
        design=settled,
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
        warnings=_warnings(problem, options, core, total, used, balance_fails=_fails(assumptions, "balance")),
        sentence=sentence,
        se_method=core.se_method,
        settings=_settings(problem, options, core),
        confounders=adjusted,
        weights=w,
        propensity=None if core.score is None else core.score.propensity,
        matched=core.matched,
    )


def _fails(assumptions: Sequence[Any], name: str) -> str | None:
    return next((a.detail for a in assumptions if a.name == name and a.status == "fails"), None)


def _warnings(
    problem: Problem,
    options: Options,
    core: Core,
    total: tuple[int, int],
    used: tuple[int, int],
    *,
    balance_fails: str | None,
) -> tuple[str, ...]:
    out = list(core.warnings)
    if options.method == "naive" and not problem.confounders:
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
    if core.score is not None and core.score.fit is not None and core.score.fit.dropped:
        out.append(
            f"left out of the propensity score as constant or collinear: {', '.join(core.score.fit.dropped)}"
        )
    if set(np.unique(problem.y)) <= {0.0, 1.0} and min(used) < 30:
        out.append("a risk difference from fewer than 30 rows in an arm: the interval is approximate")
    return tuple(out)


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
    if problem.design.levels:
        out["levels"] = {name: list(levels) for name, levels in problem.design.levels.items()}
    return out
