"""Standard errors after matching.

Three situations, three estimators. Pairs made without replacement are clusters of a regression on the
matched sample. Matches used more than once need the variance of Abadie and Imbens (2006), with the term of
their 2016 paper where the score was estimated. Strata are a stratified experiment.

The ordinary bootstrap is wrong for nearest neighbours with replacement, however many draws are made
(Abadie and Imbens 2008); `refuse_naive_bootstrap` says so, and `wild_bootstrap` is the valid one.

These take the score as known, as MatchIt's and Matching's do. A fitted score balances better than a known
one, so they are too large, and much too large where covariates matter for the outcome apart from the score;
`for_estimated_score` corrects those of matches with replacement, kernels, full matching and subclasses. For
pairs without replacement no correction is known: their error stays on the safe side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from whyprompt.effects.methods.matched import codes
from whyprompt.effects.resampling import influence_after_matching, refuse_naive_bootstrap, wild_bootstrap
from whyprompt.errors import EstimationError
from whyprompt.stats.clusters import cluster_design
from whyprompt.stats.influence import least_squares
from whyprompt.stats.threads import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from whyprompt.effects.methods.matched import MatchedSet

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

__all__ = [
    "MatchingVariance",
    "abadie_imbens",
    "clustered_difference",
    "for_estimated_score",
    "influence_after_matching",
    "interval",
    "refuse_naive_bootstrap",
    "stratified_error",
    "weighted_difference",
    "wild_bootstrap",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchingVariance:
    """Abadie-Imbens variance of a matching estimator.

    Attributes
    ----------
    estimate : float
        The matching estimate.
    std_error : float
        Square root of `variance`.
    variance : float
        `heterogeneity` plus `reuse`.
    heterogeneity : float
        Part from the spread of the unit-level differences.
    reuse : float
        Part from using a row as a match more than once.
    """

    estimate: float
    std_error: float
    variance: float
    heterogeneity: float
    reuse: float


def weighted_difference(
    y: Floats,
    treated: Bools,
    weights: Floats,
    *,
    kind: Literal["HC0", "HC1", "HC3", "cluster"] = "HC1",
    clusters: Sequence[NDArray[Any]] = (),
) -> tuple[float, float, int]:
    """Weighted difference of means with a robust standard error.

    This is ``lm(y ~ treated, weights = w)`` and ``sandwich::vcovHC`` or, with clusters,
    ``sandwich::vcovCL(type = "HC1")``, in closed form.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Outcome.
    treated : ndarray of bool, shape (n,)
        The arm.
    weights : ndarray, shape (n,)
        Rows with weight 0 are not in the sample.
    kind : {"HC0", "HC1", "HC3", "cluster"}, default "HC1"
        Kind of robustness.
    clusters : sequence of ndarray, each shape (n,)
        For ``"cluster"``: one labelling, or two for two-way clustering.

    Returns
    -------
    estimate : float
    std_error : float
        NaN with fewer than three rows or two clusters.
    df : int
        Degrees of freedom for a t interval: rows minus 2, or clusters minus 1.

    References
    ----------
    MacKinnon, J. G. and White, H. (1985). Journal of Econometrics 29, 305-325.
    Cameron, A. C., Gelbach, J. B. and Miller, D. L. (2011). Robust inference with multiway clustering.
    Journal of Business and Economic Statistics 29, 238-249, equation 2.5.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([3.0, 5.0, 1.0, 2.0])
    >>> arm = np.array([True, True, False, False])
    >>> weighted_difference(y, arm, np.ones(4), kind="cluster", clusters=[np.array([0, 1, 0, 1])])[0]
    2.5
    """
    use = weights > 0
    y, t, w = y[use], treated[use], weights[use]
    n = len(y)
    total_t, total_c = float(w[t].sum()), float(w[~t].sum())
    mean_t, mean_c = float(w[t] @ y[t]) / total_t, float(w[~t] @ y[~t]) / total_c
    share = np.where(t, w / total_t, w / total_c)
    psi = np.where(t, 1.0, -1.0) * share * (y - np.where(t, mean_t, mean_c))
    estimate = mean_t - mean_c
    if kind == "cluster":
        labels = [codes([label[use]]) for label in clusters]
        variance, df = _cluster_variance(psi, labels, n)
        return estimate, float(np.sqrt(variance)), df
    if n < 3:
        return estimate, float("nan"), 0
    if kind == "HC3":
        # A row that is its whole arm has leverage 1 and no residual to judge the arm's spread by.
        psi = np.divide(psi, 1.0 - share, out=np.full(n, np.nan), where=share < 1)
    factor = n / (n - 2) if kind == "HC1" else 1.0
    return estimate, float(np.sqrt(factor * (psi @ psi))), n - 2


def clustered_difference(
    y: Floats, treated: Bools, weights: Floats, cluster: NDArray[Any]
) -> tuple[float, float, float]:
    """Weighted difference of means with the CR2 error of clustered rows, fit for few clusters.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Outcome.
    treated : ndarray of bool, shape (n,)
        The arm.
    weights : ndarray, shape (n,)
        Rows with weight 0 are not in the sample.
    cluster : ndarray, shape (n,)
        Sampling unit.

    Returns
    -------
    estimate : float
    std_error : float
        NaN where an arm's rows are all in one cluster.
    df : float
        Satterthwaite's.

    References
    ----------
    Bell, R. M. and McCaffrey, D. F. (2002). Survey Methodology 28, 169-181.
    Imbens, G. W. and Kolesar, M. (2016). Review of Economics and Statistics 98, 701-712.
    Pustejovsky, J. E. and Tipton, E. (2018). Journal of Business and Economic Statistics 36, 672-683.

    Examples
    --------
    >>> import numpy as np
    >>> y, team = np.array([1.0, 3.0, 4.0, 4.0, 0.0, 2.0, 1.0, 1.0]), np.repeat([0, 1, 2, 3], 2)
    >>> [round(value, 9) for value in clustered_difference(y, team < 2, np.ones(8), team)]
    [2.0, 1.0, 2.0]
    """
    use = weights > 0
    y, t, w = y[use], treated[use], weights[use]
    design = cluster_design(np.column_stack([t, ~t]), w, codes([cluster[use]]).astype(np.intp))
    means = design.means(y)
    contrast = np.array([1.0, -1.0])
    if design.cluster_share.max() > 1.0 - 1e-12:
        return float(means @ contrast), float("nan"), float("nan")
    sums = design.contributions(y) @ contrast
    return float(means @ contrast), float(np.sqrt(sums @ sums)), design.df(contrast)


def _cluster_variance(psi: Floats, labels: Sequence[Ints], n: int) -> tuple[float, int]:
    def one(label: Ints) -> tuple[float, int]:
        sums = np.bincount(label, weights=psi)
        g = len(sums)
        if g < 2 or n < 3:
            return float("nan"), g
        return float(sums @ sums) * g / (g - 1) * (n - 1) / (n - 2), g

    parts = [one(label) for label in labels]
    df = min(g for _, g in parts) - 1
    if len(parts) == 1:
        return parts[0][0], df
    both = one(codes(list(labels)))[0]
    # Two-way variance can come out below either one-way variance in small samples; it is not trusted then.
    return max(parts[0][0] + parts[1][0] - both, parts[0][0], parts[1][0]), df


def stratified_error(
    y: Floats,
    treated: Bools,
    stratum: Ints,
    *,
    estimand: str,
    population: Literal["sampled", "fixed"] = "sampled",
) -> tuple[float, int]:
    """Return the standard error of a difference within strata.

    An arm with a single row in a stratum lends itself the variance pooled over that arm's other strata.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Outcome.
    treated : ndarray of bool, shape (n,)
        The arm.
    stratum : ndarray of int, shape (n,)
        -1 for a row in none; every stratum holds both arms.
    estimand : {"att", "atc", "ate"}
        Whose shares weigh the strata.
    population : {"sampled", "fixed"}, default "sampled"
        ``"fixed"`` takes the strata's shares as they are (Neyman's variance). ``"sampled"`` adds what
        their sampling adds where the effect differs between strata: the variance of the strata's effects
        beyond their own errors, over the number of rows. Without it intervals are too short where the
        effect varies with the covariates.

    Returns
    -------
    std_error : float
        NaN where an arm has one row in every stratum.
    df : int
        Rows minus twice the strata.

    References
    ----------
    Imbens, G. W. and Rubin, D. B. (2015). Causal Inference for Statistics, Social, and Biomedical
    Sciences, section 9.4.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([1.0, 3.0, 0.0, 2.0])
    >>> arm = np.array([True, True, False, False])
    >>> se, df = stratified_error(y, arm, np.zeros(4, dtype=np.int64), estimand="att")
    >>> round(se, 4), df
    (1.4142, 2)
    """
    if population not in {"sampled", "fixed"}:
        raise EstimationError(f"population {population!r} is not known", hint="one of: sampled, fixed")
    inside = stratum >= 0
    n_strata = int(stratum.max()) + 1
    counts, means, variances = [], [], []
    for arm in (treated & inside, ~treated & inside):
        code, values = stratum[arm], y[arm]
        n = np.bincount(code, minlength=n_strata).astype(float)
        mean = np.bincount(code, weights=values, minlength=n_strata) / n
        squares = np.bincount(code, weights=(values - mean[code]) ** 2, minlength=n_strata)
        free = float((n - 1)[n > 1].sum())
        pooled = float(squares.sum()) / free if free > 0 else float("nan")
        counts.append(n)
        means.append(mean)
        variances.append(np.where(n > 1, squares / np.maximum(n - 1, 1), pooled))
    target = {"att": counts[0], "atc": counts[1]}.get(estimand, counts[0] + counts[1])
    share = target / target.sum()
    own = variances[0] / counts[0] + variances[1] / counts[1]
    variance = float((share**2 * own).sum())
    if population == "sampled":
        effect = means[0] - means[1]
        between = float(share @ (effect - share @ effect) ** 2 - (share * (1.0 - share)) @ own)
        variance += max(between, 0.0) / float(target.sum())
    return float(np.sqrt(variance)), max(int(inside.sum()) - 2 * n_strata, 1)


def abadie_imbens(
    y: Floats,
    treated: Bools,
    matched: MatchedSet,
    *,
    score: Floats | None = None,
    neighbours: int = 2,
    tolerance: float = 1e-5,
    adjust: Floats | None = None,
    unmatched: Literal["left_out", "no_effect"] = "left_out",
) -> MatchingVariance:
    """Return the variance of a matching estimator that uses rows more than once.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Outcome.
    treated : ndarray of bool, shape (n,)
        The arm.
    matched : MatchedSet
        With pairs (nearest neighbours or kernel; any estimand).
    score : ndarray, shape (n,), optional
        What neighbours within an arm are sought by; needed with ``neighbours > 0``.
    neighbours : int, default 2
        Rows of the same arm from which each row's conditional variance is estimated (Abadie and Imbens
        2006, equation 14). 0 assumes one variance for all rows, which is the default of R's Matching.
    tolerance : float, default 1e-5
        Squared differences, in variances of the score, that count as ties among neighbours.
    adjust : ndarray, shape (n, q), optional
        Covariates whose remaining differences within pairs are taken out by a regression of the outcome
        on them among the rows used as matches, weighted by their use (Abadie and Imbens 2011; Matching's
        ``BiasAdjust``).
    unmatched : {"left_out", "no_effect"}, default "left_out"
        Focal rows without a match within the caliper. ``"no_effect"`` counts them with an effect of 0 in
        the variance, as R's Matching does; that is no property of the effect on the rows that were
        matched, and makes the error smaller by their share.

    Returns
    -------
    MatchingVariance

    Raises
    ------
    EstimationError
        If the set has no pairs, or neighbours are wanted and no score is given.

    Notes
    -----
    With pair shares `s_ij`, `K_j = sum_i s_ij` and `K'_j = sum_i s_ij^2`, the variance of the effect on the
    N matched rows is ``sum_i (tau_i - tau)^2 / N^2 + sum_j sigma_j^2 (K_j^2 - K'_j) / N^2``, and for the ATE
    the second term has ``K_j^2 + 2 K_j - K'_j``. It holds for any fixed shares, so for kernels as well.

    References
    ----------
    Abadie, A. and Imbens, G. W. (2006). Large sample properties of matching estimators for average
    treatment effects. Econometrica 74, 235-267, theorems 6 and 7.

    Examples
    --------
    >>> import numpy as np
    >>> from whyprompt.effects.methods.nearest import match_nearest
    >>> score = np.array([0.2, 0.5, 0.3, 0.6, 0.9])
    >>> arm = np.array([True, True, True, False, False])
    >>> pairs = match_nearest(score, arm, replace=True)
    >>> result = abadie_imbens(np.array([1.0, 2.0, 3.0, 0.0, 1.0]), arm, pairs, neighbours=0)
    >>> result.estimate, round(result.std_error, 3)
    (2.0, 0.667)
    """
    if matched.n_pairs == 0:
        raise EstimationError("the Abadie-Imbens variance needs matched pairs", hint="strata have their own")
    n = len(y)
    sign = np.where(treated[matched.focal], 1.0, -1.0)
    gap = sign * (y[matched.focal] - y[matched.other])
    received = np.asarray(np.bincount(matched.other, weights=matched.share, minlength=n), dtype=np.float64)
    if adjust is not None:
        gap -= sign * _remaining_difference(y, treated, matched, received, adjust)
    used = np.bincount(matched.focal, minlength=n) > 0
    tau = np.bincount(matched.focal, weights=matched.share * gap, minlength=n)[used]
    count = len(tau)
    estimate = float(tau.mean())
    squared = np.bincount(matched.other, weights=matched.share**2, minlength=n)
    if neighbours == 0:
        sigma2 = np.full(n, 0.5 * float(matched.share @ (gap - estimate) ** 2) / count)
    elif score is None:
        raise EstimationError("neighbours within an arm are sought by a score; none was given")
    else:
        sigma2 = conditional_variance(y, treated, score, neighbours=neighbours, tolerance=tolerance)
    factor = received**2 - squared
    if matched.estimand == "ate":
        factor = factor + 2.0 * received
    spread = float(((tau - estimate) ** 2).sum())
    if unmatched == "no_effect":
        side = {"att": treated, "atc": ~treated}.get(matched.estimand, np.ones(n, dtype=bool))
        lost = int((side & ~matched.discarded).sum()) - count
        count, spread = count + lost, spread + lost * estimate**2
    elif unmatched != "left_out":
        raise EstimationError(f"unmatched={unmatched!r} is not known", hint="one of: left_out, no_effect")
    reuse = float(sigma2 @ factor) / count**2
    heterogeneity = spread / count**2
    variance = heterogeneity + reuse
    return MatchingVariance(
        estimate=estimate,
        std_error=float(np.sqrt(max(variance, 0.0))),
        variance=variance,
        heterogeneity=heterogeneity,
        reuse=reuse,
    )


def _remaining_difference(
    y: Floats, treated: Bools, matched: MatchedSet, received: Floats, covariates: Floats
) -> Floats:
    """Predict the outcome difference of each pair from the covariates that still differ within it."""
    difference = covariates[matched.focal] - covariates[matched.other]
    predicted = np.zeros(len(difference))
    for arm in (treated, ~treated):
        given = arm[matched.other]
        rows = arm & (received > 0)
        if not given.any():
            continue
        root = np.sqrt(received[rows])[:, None]
        design = np.column_stack([np.ones(int(rows.sum())), covariates[rows]]) * root
        slope = np.linalg.lstsq(design, y[rows] * root[:, 0], rcond=1e-12)[0][1:]
        predicted[given] = difference[given] @ slope
    return predicted


def conditional_variance(
    y: Floats, treated: Bools, score: Floats, *, neighbours: int, tolerance: float = 1e-5
) -> Floats:
    """Estimate each row's outcome variance from its nearest neighbours in its own arm.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Outcome.
    treated : ndarray of bool, shape (n,)
        The arm.
    score : ndarray, shape (n,)
        What neighbours are sought by.
    neighbours : int
        How many; ties of the last one are taken in as well.
    tolerance : float, default 1e-5
        As for `abadie_imbens`.

    Returns
    -------
    ndarray, shape (n,)

    Raises
    ------
    EstimationError
        If an arm has no more rows than neighbours are wanted.
    """
    sigma2 = np.empty(len(y))
    slack = tolerance * float(score.var())
    for arm in (treated, ~treated):
        rows = np.flatnonzero(arm)
        m = len(rows)
        if m <= neighbours:
            raise EstimationError(
                f"{neighbours} neighbours within an arm are wanted and one arm has {m} row(s)",
                hint="ask for fewer neighbours, or a homoskedastic variance with neighbours=0",
            )
        rows = rows[np.argsort(score[rows], kind="stable")]
        s = score[rows]
        padded = np.concatenate([np.full(neighbours, -np.inf), s, np.full(neighbours, np.inf)])
        sides = [padded[neighbours + k : neighbours + k + m] for k in range(-neighbours, neighbours + 1) if k]
        gaps = np.abs(np.column_stack(sides) - s[:, None])
        reach = np.partition(gaps, neighbours - 1, axis=1)[:, neighbours - 1]
        reach = np.sqrt(reach**2 + slack) * (1 + 1e-12) + 1e-15
        first = np.searchsorted(s, s - reach, side="left")
        last = np.searchsorted(s, s + reach, side="right")
        size = last - first
        centred = y[rows] - y[rows].mean()
        sums = np.concatenate([[0.0], np.cumsum(centred)])
        squares = np.concatenate([[0.0], np.cumsum(centred**2)])
        total = sums[last] - sums[first]
        spread = squares[last] - squares[first] - total**2 / size
        sigma2[rows] = np.maximum(spread, 0.0) / (size - 1)
    return sigma2


def for_estimated_score(
    variance: float,
    y: Floats,
    treated: Bools,
    matched: MatchedSet,
    *,
    X: Floats,
    propensity: Floats,
    score_covariance: Floats,
    score: Floats | None = None,
) -> float:
    """Correct the variance of a matching estimator for a logistic score having been estimated.

    A fitted score balances the sample's covariates better than the true score would: the part of the error
    that moves with the score's own estimating equations is absent. It can be most of it, where covariates
    matter for the outcome beyond their part in the score. The ATT and ATC also move with the score
    themselves, which adds to the variance where the effect differs between rows.

    Parameters
    ----------
    variance : float
        That takes the score as known.
    y : ndarray, shape (n,)
        Outcome.
    treated : ndarray of bool, shape (n,)
        The arm.
    matched : MatchedSet
        Made on the score: nearest neighbours, kernel, full matching or subclasses.
    X : ndarray, shape (n, p)
        Covariates of the logistic regression, without the intercept.
    propensity : ndarray, shape (n,)
        Fitted probabilities.
    score_covariance : ndarray, shape (p + 1, p + 1)
        Covariance of the coefficients, intercept first (`LogisticFit.information_inverse`).
    score : ndarray, shape (n,), optional
        What was matched on; default `propensity`.

    Returns
    -------
    float

    Notes
    -----
    Abadie and Imbens write the variance as ``sigma^2 - c' I^-1 c + d' I^-1 d``, with c the covariance of the
    estimator with the score equations, and estimate c from neighbours. The difference of two estimates can
    be far too small or negative in samples of some hundred rows. Here the first two terms are
    ``sigma^2 (1 - R^2)``, with R^2 that of a regression of the estimator's influence values on the score
    equations, which is the same number in large samples and never negative. The derivative d takes the
    effect given covariates from linear regressions in each arm.

    References
    ----------
    Abadie, A. and Imbens, G. W. (2016). Matching on the estimated propensity score. Econometrica 84,
    781-807, theorems 1 and 2.
    """
    with one_blas_thread(len(y)):
        return _for_estimated_score(
            variance,
            y,
            treated,
            matched,
            X,
            propensity,
            score_covariance,
            propensity if score is None else score,
        )


def _for_estimated_score(
    variance: float,
    y: Floats,
    treated: Bools,
    matched: MatchedSet,
    X: Floats,
    propensity: Floats,
    score_covariance: Floats,
    along: Floats,
) -> float:
    n = len(y)
    w = matched.weights
    target = {"att": treated, "atc": ~treated}.get(matched.estimand, np.ones(n, dtype=bool)) & (w > 0)
    count = int(target.sum())
    centred = (X - X.mean(axis=0)) / np.where(X.std(axis=0) > 0, X.std(axis=0), 1.0)
    s = (along - along.mean()) / (along.std() or 1.0)
    curve = np.column_stack([np.ones(n), s, s**2, s**3])
    by_score, by_all = np.empty((2, n)), np.empty((2, n))
    for k, arm in enumerate((~treated, treated)):
        by_score[k] = least_squares(curve, y, arm)[0]
        by_all[k] = least_squares(np.column_stack([curve, centred]), y, arm)[0]
    tau = float(np.average(y[treated], weights=w[treated]) - np.average(y[~treated], weights=w[~treated]))
    total = np.where(treated, w[treated].sum(), w[~treated].sum())
    sign = np.where(treated, 1.0, -1.0)
    own = np.where(treated, by_score[1], by_score[0])
    influence = sign * w * count / total * (y - own) + target * (by_score[1] - by_score[0] - tau)
    equations = (treated - propensity)[:, None] * np.column_stack([np.ones(n), centred])
    explained, leverage = least_squares(equations, influence)
    # Residuals as of a fit without the row itself: rows of great weight have great leverage as well.
    residual = (influence - explained) / (1.0 - leverage)
    left, whole = float(residual @ residual), float(influence @ influence)
    corrected = variance * min(1.0, left / whole) if whole > 0 else variance
    if matched.estimand == "ate":
        return corrected
    moved = propensity * (1.0 - propensity) * (by_all[1] - by_all[0] - tau) / count
    d = np.concatenate([[moved.sum()], moved @ X])
    return corrected + float(d @ score_covariance @ d)


def interval(
    estimate: float, std_error: float | None, *, level: float, df: float | None = None
) -> tuple[float | None, float | None]:
    """Return a two-sided interval, by the t distribution where degrees of freedom are given.

    Parameters
    ----------
    estimate : float
    std_error : float or None
    level : float
        Between 0 and 1.
    df : float, optional
        Degrees of freedom; default the normal distribution.

    Returns
    -------
    low, high : float or None
        None where there is no standard error.

    Examples
    --------
    >>> low, high = interval(1.0, 0.5, level=0.95)
    >>> round(low, 2), round(high, 2)
    (0.02, 1.98)
    """
    from scipy import stats

    if std_error is None or not np.isfinite(std_error):
        return None, None
    upper = 0.5 + level / 2.0
    q = float(stats.norm.ppf(upper) if df is None else stats.t.ppf(upper, max(df, 1)))
    return estimate - q * std_error, estimate + q * std_error
