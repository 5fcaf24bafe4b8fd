"""The standard error that goes with each way of matching, and that of any linear functional of the outcome.

A smooth function of the two arms' outcome distributions has, to first order, the error of the difference of
weighted means of its influence: the outcome is replaced by the function's derivative, row by row, and the
method's own error is computed. One variance estimator so serves differences, ratios, odds and thresholds.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects.methods.adjustment import regress
from whyprompt.effects.methods.variance import (
    abadie_imbens,
    for_estimated_score,
    influence_after_matching,
    wild_bootstrap,
)
from whyprompt.errors import EstimationError
from whyprompt.stats import errors as inference
from whyprompt.stats.clusters import clustered_means
from whyprompt.stats.order import codes
from whyprompt.stats.rules import few_clusters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.methods.adjustment import Projected
    from whyprompt.effects.methods.matched import MatchedSet
    from whyprompt.effects.methods.method import Fit, Plan
    from whyprompt.effects.problem import Problem

    Floats = NDArray[np.float64]


AFTER = "cluster-robust after regression adjustment"
BY_CLUSTER = "influence values, CR2 by cluster, Satterthwaite df"


def with_error(
    problem: Problem,
    plan: Plan,
    fit: Fit,
    *,
    along: Floats | None,
    neighbours: int,
    by_score_alone: bool,
    adjust: Projected | None = None,
) -> Fit:
    """Give a matched estimate the standard error that goes with its method.

    `along` is the score, or its logit, that was matched on; `neighbours` are the rows from which a
    conditional variance is estimated, 0 for one common variance; `by_score_alone` says that the score says
    who is compared with whom, and not covariates; the estimate was corrected by the regressions `adjust`,
    where the method does. Raises `EstimationError` if the error asked for does not go with the method.
    """
    kind, matched = plan.std_error, fit.matched
    assert matched is not None
    kind = matched.errors[0] if kind == "auto" else kind
    if kind == "pairs" and matched.stratum is None:
        raise EstimationError(
            "pairs that share rows are not independent clusters", hint="use std_error='abadie_imbens'"
        )
    if kind not in matched.errors:
        raise EstimationError(
            f"standard error {plan.std_error!r} does not go with method {plan.method.name!r}",
            hint="leave std_error='auto'",
        )
    if kind == "wild_bootstrap":
        return _wild(problem, plan, fit, matched, along)
    correct = partial(_for_estimated_score, problem, plan, fit, along, by_score_alone=by_score_alone)
    df: float | None = None
    by_unit: Floats | None = None
    if kind == "strata" and plan.std_error == "auto" and not _spread_within(problem, matched):
        kind = "pairs"
    # Those named are the textbook's; of pairs and strata with a cluster column they are as R has them.
    by_cluster = problem.cluster is not None and (
        adjust is not None or plan.std_error == "auto" or matched.stratum is None
    )
    if by_cluster:
        assert problem.cluster is not None
        units = codes([problem.cluster]).astype(np.intp)
        by_unit, name, df = _clustered(problem, fit, matched, along, adjust, units)
        error = float(np.linalg.norm(by_unit))
        if adjust is None:
            error, name = correct(error, name, units=units)
            by_unit = None
    elif adjust is not None and kind != "abadie_imbens":
        by_unit, name, df = _of_residuals(problem, matched, adjust, rows=kind == "strata")
        error = float(np.linalg.norm(by_unit))
    elif kind == "strata":
        error, name, df = _strata(problem, fit, matched)
        error, name = correct(error, name)
    elif kind == "pairs":
        error, name, df = _pairs(problem, fit, matched)
        error, name = correct(error, name, units=matched.stratum)
    else:
        # A kernel's shares are smooth in the score; its variance is that of fixed shares.
        neighbours = neighbours if along is not None else 0
        _, square = abadie_imbens(
            problem.y,
            problem.treated,
            matched,
            score=along,
            neighbours=neighbours,
            adjust=adjust,
            implied=plan.std_error == "auto",
        )
        name = ("Abadie-Imbens (2006)" if adjust is None else "Abadie-Imbens (2011), bias corrected") + (
            f", {neighbours} neighbours" if neighbours else ", one variance for all rows"
        )
        error = float(np.sqrt(max(square, 0.0)))
        if adjust is None:
            error, name = correct(error, name)
    finite = float(error) if np.isfinite(error) else None
    extra: tuple[str, ...] = (
        () if finite is not None else ("there are too few pairs or rows for a standard error",)
    )
    if finite is not None and problem.cluster is not None:
        used = len(set(problem.cluster[fit.weights > 0].tolist()))
        extra += few_clusters(used, df if by_cluster or kind == "strata" else None)
    return replace(
        fit,
        std_error=finite,
        ci=inference.interval(fit.estimate, finite, level=plan.level, df=df),
        df=None if df is None else float(df),
        std_error_method=name,
        by_unit=by_unit,
        warnings=(*fit.warnings, *extra),
    )


def _spread_within(problem: Problem, matched: MatchedSet) -> bool:
    """Say whether the spread within strata is known by as many degrees of freedom as that between them."""
    assert matched.stratum is not None
    inside = matched.stratum >= 0
    count = int(matched.stratum.max()) + 1
    rows = (int((inside & problem.treated).sum()), int((inside & ~problem.treated).sum()))
    return min(rows) - count >= count - 1


def _clustered(
    problem: Problem,
    fit: Fit,
    matched: MatchedSet,
    along: Floats | None,
    adjust: Projected | None,
    units: NDArray[np.intp],
) -> tuple[Floats, str, float]:
    """Sum the influence of each row within clusters, which knows how often a row is used as a match.

    Of a plain difference of means it is the residual of a regression on the score, or on covariates where
    there is no score, among the matched rows (Otsu and Rai 2017, equation 6).
    """
    y, t = problem.y, problem.treated
    if adjust is not None:
        influence = regress(y, t, matched, adjust).influence(y, t)
    else:
        curve = problem.design.matrix if along is None else np.column_stack([along, along**2, along**3])
        made = regress(y, t, matched, curve)
        total = np.where(t, fit.weights[t].sum(), fit.weights[~t].sum())
        influence = made._replace(implied=fit.weights / total).influence(y, t)
    used = fit.weights > 0
    contrast = np.array([1.0, -1.0])
    _, sums, df = clustered_means(
        y[used],
        np.column_stack([t, ~t])[used],
        fit.weights[used],
        np.unique(units[used], return_inverse=True)[1],
        influence=influence[used],
    )
    return sums @ contrast, BY_CLUSTER, df(contrast)


def _of_residuals(
    problem: Problem, matched: MatchedSet, adjust: Projected, *, rows: bool
) -> tuple[Floats, str, float]:
    """Give the error of a regression-adjusted difference from residuals: of rows, or summed within sets."""
    assert matched.stratum is not None
    made = regress(problem.y, problem.treated, matched, adjust)
    influence = made.influence(problem.y, problem.treated) @ np.array([1.0, -1.0])
    used = matched.stratum >= 0
    if rows:
        df = max(int(used.sum()) - 2.0 * made.rank, 1.0)
        return influence[used], "HC2 after regression adjustment", df
    sums = np.bincount(matched.stratum[used], weights=influence[used]).astype(float)
    n = len(sums)
    name = f"{'set' if matched.n_pairs == 0 else 'pair'}-{AFTER}"
    return sums * np.sqrt(n / (n - 1.0) if n > 1 else np.nan), name, max(n - 1.0, 1.0)


def _strata(problem: Problem, fit: Fit, matched: MatchedSet) -> tuple[float, str, float]:
    assert matched.stratum is not None
    if problem.cluster is not None:
        _, error, free = inference.clustered_difference(
            problem.y, problem.treated, fit.weights, problem.cluster
        )
        return error, "CR2 by cluster, Satterthwaite df, strata ignored", free
    error, df = inference.stratified_error(
        problem.y, problem.treated, matched.stratum, estimand=matched.estimand
    )
    return error, "stratified", df


def _pairs(problem: Problem, fit: Fit, matched: MatchedSet) -> tuple[float, str, float]:
    assert matched.stratum is not None
    labels: list[NDArray[Any]] = [matched.stratum]
    if problem.cluster is not None:
        labels.append(problem.cluster)
    _, error, df = inference.weighted_difference(
        problem.y, problem.treated, fit.weights, kind="cluster", clusters=labels
    )
    name = f"{'set' if matched.n_pairs == 0 else 'pair'}-cluster-robust"
    if problem.cluster is None:
        return error, name, df
    # The two-way variance takes residuals for errors; with few clusters CR2 of them may be larger.
    _, alone, free = inference.clustered_difference(problem.y, problem.treated, fit.weights, problem.cluster)
    name += ", two-way with the cluster column"
    return (max(error, alone), name, min(df, free)) if np.isfinite(alone) else (error, name, df)


def _for_estimated_score(
    problem: Problem,
    plan: Plan,
    fit: Fit,
    along: Floats | None,
    error: float,
    name: str,
    *,
    by_score_alone: bool,
    units: NDArray[np.intp] | None = None,
) -> tuple[float, str]:
    """Correct an error for the estimated score, unless it was asked for by its name."""
    if fit.logit is None or not np.isfinite(error):
        # A score with absorbed levels is estimated too, but has no covariance of all coefficients.
        known = fit.propensity is None or problem.known_score is not None or plan.score_model is not None
        return error, name if known else name + ", score taken as known"
    # With further restrictions on pairs the score alone no longer says who is compared with whom.
    restricted = problem.strata is not None or bool(problem.limits) or not by_score_alone
    if plan.std_error != "auto" or restricted:
        return error, name + ", score taken as known"
    assert fit.matched is not None
    assert fit.propensity is not None
    variance = for_estimated_score(
        error**2,
        problem.y,
        problem.treated,
        fit.matched,
        X=problem.design.matrix,
        propensity=fit.propensity,
        score_covariance=fit.logit.covariance,
        score=along,
        units=units,
    )
    return float(np.sqrt(variance)), name + ", corrected for the estimated score (2016)"


def _wild(problem: Problem, plan: Plan, fit: Fit, matched: MatchedSet, along: Floats | None) -> Fit:
    X = problem.design.matrix
    if along is not None:
        X = np.column_stack([X, along])
    estimate, influence = influence_after_matching(problem.y, problem.treated, matched, X=X)
    if problem.cluster is not None:
        influence = np.bincount(codes([problem.cluster]), weights=influence).astype(float)
    # Linear in the outcome: the treated mean is the estimate for an outcome that is nil in the control arm.
    only_treated = np.where(problem.treated, problem.y, 0.0)
    mean_treated, _ = influence_after_matching(only_treated, problem.treated, matched, X=X)
    # Signs are dealt to the values in order of size, so that the order of the table is irrelevant.
    errors = wild_bootstrap(np.sort(influence), draws=plan.draws, random_state=plan.random_state)
    low, high = np.quantile(errors, [0.5 - plan.level / 2, 0.5 + plan.level / 2])
    return replace(
        fit,
        std_error=float(errors.std(ddof=1)),
        ci=(float(estimate - high), float(estimate - low)),
        means=(mean_treated, mean_treated - estimate),
        std_error_method=f"wild bootstrap (Otsu and Rai 2017), {plan.draws} draws, bias-corrected estimate",
        settings={"estimate_without_regression_adjustment": fit.estimate, **fit.settings},
    )
