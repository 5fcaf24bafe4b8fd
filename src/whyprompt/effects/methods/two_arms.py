"""Weighting: inverse probability, overlap and entropy balancing weights, and doubly robust estimates.

Pure arrays in, one frozen result out. Standard errors are those of the stacked estimating equations, so they
account for the propensity score (or the balancing weights) having been estimated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from whyprompt._arguments import at_least
from whyprompt.effects.assumptions import FEW_ROWS
from whyprompt.effects.methods.aipw import ArmFit, cross_fitted_aipw, raw_weights
from whyprompt.effects.methods.balancing import entropy_multipliers
from whyprompt.effects.methods.doses import WeightedSlope, continuous_weights
from whyprompt.effects.methods.many_arms import MultiWeightEstimate, multinomial_weights
from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.errors import cluster_design, rows_df
from whyprompt.stats.influence import (
    clean_arrays,
    cluster_codes,
    effective_sample_size,
    regression_influence,
    standard_error,
    with_intercept,
)
from whyprompt.stats.order import content_rank
from whyprompt.stats.propensity import fit_logistic
from whyprompt.stats.rules import few_clusters

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

    from whyprompt.effects.methods.aipw import OutcomeModel

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

__all__ = [
    "MultiWeightEstimate",
    "WeightEstimate",
    "WeightedSlope",
    "continuous_weights",
    "crump_threshold",
    "effective_sample_size",
    "multinomial_weights",
    "truncate_weights",
    "weight_estimate",
]

Method = Literal["ipw", "overlap", "entropy", "aipw"]
Estimand = Literal["ate", "att", "atc", "ato"]
_ESTIMANDS = {
    "ipw": ("ate", "att", "atc", "ato"),
    "overlap": ("ato",),
    "entropy": ("ate", "att", "atc"),
    "aipw": ("ate", "att", "atc"),
}
# Below this share of an arm's rows the weights rest on a handful of them.
_LOW_ESS = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightEstimate:
    """An effect estimated by weighting.

    Attributes
    ----------
    method, estimand : str
        What was computed.
    estimate, std_error, ci_low, ci_high, level : float
        The difference of weighted means, its standard error and interval.
    mean_treated, mean_control : float
        The two (counterfactual) means.
    weights : ndarray, shape (n,)
        Zero for rows trimmed. For ``aipw`` the weights of the same estimand, for balance tables.
    propensity : ndarray, shape (n,), or None
        The score; NaN for rows trimmed; None for entropy balancing, which has none.
    kept : ndarray of bool, shape (n,)
        Rows not trimmed.
    trim_alpha : float or None
        Crump's threshold, where asked for.
    ess_treated, ess_control : float
        Kish's effective sample sizes.
    n_treated, n_control, n_treated_used, n_control_used : int
        Rows given and rows used.
    influence_treated, influence_control : ndarray, shape (n,)
        Influence values of the two means, divided by n: squares sum to the variance (before what a cluster
        column adds), so that any smooth function of the means has its standard error.
    warnings : tuple of str
        What a reader must know.
    df : float or None
        Degrees of freedom of the interval; None for the normal distribution.
    """

    method: str
    estimand: str
    estimate: float
    std_error: float
    ci_low: float
    ci_high: float
    level: float
    mean_treated: float
    mean_control: float
    weights: Floats
    propensity: Floats | None
    kept: Bools
    trim_alpha: float | None
    ess_treated: float
    ess_control: float
    n_treated: int
    n_control: int
    n_treated_used: int
    n_control_used: int
    influence_treated: Floats
    influence_control: Floats
    warnings: tuple[str, ...]
    df: float | None = None


def crump_threshold(propensity: ArrayLike) -> float:
    """Find the optimal trimming threshold of Crump, Hotz, Imbens and Mitnik.

    Parameters
    ----------
    propensity : array_like, shape (n,)
        Scores strictly between 0 and 1.

    Returns
    -------
    float
        ``alpha``: rows with a score in ``[alpha, 1 - alpha]`` minimise the variance bound of the average
        effect among the rows kept (under homoskedastic outcomes). 0 where no trimming lowers it.

    Raises
    ------
    EstimationError
        If a score is not strictly between 0 and 1.

    Notes
    -----
    The condition ``g = 2 mean(g | g <= gamma)``, with ``g = 1 / (e (1 - e))`` and
    ``gamma = 1 / (alpha (1 - alpha))``, may hold at several points; the one with the least variance is taken.

    References
    ----------
    Crump, Hotz, Imbens and Mitnik (2009). Dealing with limited overlap in estimation of average treatment
    effects. Biometrika 96, theorem 1 and corollary 1.

    Examples
    --------
    >>> round(crump_threshold([0.5] * 10 + [0.001]), 2)
    0.15
    """
    score = np.asarray(propensity, dtype=float)
    if not ((score > 0) & (score < 1)).all():
        raise EstimationError("a propensity score is not strictly between 0 and 1")
    g = np.sort(1.0 / (score * (1.0 - score)))
    count = np.arange(1, len(g) + 1)
    bound = np.cumsum(g) / count**2
    # Rows with equal scores stay or go together.
    last_of_ties = np.append(g[1:] > g[:-1], [True])
    best = int(np.argmin(np.where(last_of_ties, bound, np.inf)))
    if best == len(g) - 1:
        return 0.0
    gamma = float(np.clip(2.0 * g[: best + 1].mean(), g[best], g[best + 1]))
    return float(0.5 - np.sqrt(max(0.0, 0.25 - 1.0 / gamma)))


def truncate_weights(weights: ArrayLike, quantile: float) -> Floats:
    """Lower the largest weights to a quantile.

    Parameters
    ----------
    weights : array_like, shape (n,)
        Weights.
    quantile : float
        Between 0.5 and 1, such as 0.99. The quantile is an observed weight (R's ``type = 3``, as in
        ``WeightIt::trim``).

    Returns
    -------
    ndarray, shape (n,)

    Raises
    ------
    EstimationError
        If the quantile is not in (0.5, 1).

    Examples
    --------
    >>> truncate_weights([1.0, 1.0, 1.0, 9.0], 0.75).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    if not 0.5 < quantile < 1:
        raise EstimationError(f"truncate={quantile}: expected a quantile between 0.5 and 1, such as 0.99")
    values = np.asarray(weights, dtype=float)
    return np.asarray(np.minimum(values, np.quantile(values, quantile, method="closest_observation")))


def weight_estimate(
    y: ArrayLike,
    t: ArrayLike,
    X: ArrayLike,
    *,
    method: Method = "ipw",
    estimand: Estimand | None = None,
    cluster: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    propensity: ArrayLike | None = None,
    stabilised: bool = False,
    truncate: float | None = None,
    trim: Literal["crump"] | float | None = None,
    targets: Literal["estimated", "fixed"] = "estimated",
    folds: int = 5,
    splits: int | None = None,
    outcome_model: OutcomeModel | None = None,
    clip: float = 0.01,
    random_state: int = 0,
    level: float = 0.95,
    rank: ArrayLike | None = None,
) -> WeightEstimate:
    """Estimate an effect by weighting.

    Parameters
    ----------
    y : array_like, shape (n,)
        Outcome.
    t : array_like, shape (n,)
        Treatment, 0/1 or bool.
    X : array_like, shape (n, p)
        Covariates, numeric, without an intercept.
    method : {"ipw", "overlap", "entropy", "aipw"}, default "ipw"
        Inverse probability weights normalised within arms (Hajek); overlap weights; entropy balancing of the
        means of `X`; augmented inverse probability weighting with cross-fitting.
    estimand : {"ate", "att", "atc", "ato"}, optional
        Default ``ato`` for ``overlap`` and ``ate`` for the others.
    cluster : array_like, shape (n,), optional
        Sampling unit. Influence values are summed within it, each sum divided by the root of one minus the
        cluster's share of its arm's weight, and the interval uses the t distribution with Satterthwaite's
        degrees of freedom: CR2 where weights are equal. With ``aipw`` a cluster is never split between
        folds; residuals are then out of sample, the factor is G / (G - 1) and the degrees of freedom G - 1.
    names : sequence of str, optional
        Columns of `X`, for messages.
    propensity : array_like, shape (n,), optional
        A score to use in place of the logistic fit: known in a randomised design, or cross-fitted by another
        classifier. It counts as known in the standard error, which for ATE and ATO is conservative when it
        was estimated by maximum likelihood.
    stabilised : bool, default False
        Multiply the ATE's weights by their arm's share. The estimate does not change (weights are normalised
        within arms); the spread of the weights over both arms does.
    truncate : float, optional
        Lower the largest weights to this quantile; of all weights for the ATE and ATO, of the reweighted
        arm's for the ATT and ATC. It trades bias for variance, and the estimand is no longer exactly the
        one named.
    trim : "crump" or float, optional
        Use only rows with a score in ``[alpha, 1 - alpha]``, and fit the score again on them. The estimand is
        then the one named, among those rows.
    targets : {"estimated", "fixed"}, default "estimated"
        With ``entropy``: whether the means balanced to are estimates, as they are when the rows are a sample,
        or constants. WeightIt 1.4.0 treats them as constants, which overstates the standard error where the
        covariates predict the outcome alike in both arms; ``fixed`` gives its number.
    folds : int, default 5
        Folds of ``aipw``; 1 fits the nuisance models on all rows.
    splits : int, optional
        With ``aipw``, how often rows are dealt to folds; estimates and influence values are averaged. With a
        few hundred rows one deal can move the estimate by half a standard error. Default: 10, and fewer from
        20,000 rows on, where one says it all at 100,000.
    outcome_model : object with fit and predict, optional
        For ``aipw``, cloned for each arm and fold. Default: least squares on `X`.
    clip : float, default 0.01
        With ``aipw``, scores estimated here are kept in ``[clip, 1 - clip]``, and a warning counts those that
        were not: a row's score comes from other rows and can be all but 0 or 1. DoubleML's default; 0 leaves
        them as they are. Scores that are given are never changed.
    random_state : int, default 0
        Draws the folds.
    level : float, default 0.95
        Of the interval.
    rank : array_like of int, shape (n,), optional
        Places of the rows in an order of their own, before folds are drawn: equal for rows that are
        interchangeable. Default: by `X`, then the outcome, so that the order of the rows is irrelevant. Give
        one where several outcomes of the same rows must share their folds.

    Returns
    -------
    WeightEstimate

    Raises
    ------
    DataError
        If an array has missing or infinite values or a wrong shape.
    EstimationError
        If an arm is empty, the score is separated, balance cannot be reached, or options do not go together.

    Notes
    -----
    Weights for treated and control rows with score ``e``: ATE ``1/e, 1/(1-e)``; ATT ``1, e/(1-e)``; ATC
    ``(1-e)/e, 1``; ATO ``1-e, e``. Entropy weights average one over each reweighted arm.

    The interval takes the t distribution with degrees of freedom that follow from the weights; with a few
    dozen rows the normal one is too short. For ``aipw`` it is normal: its residuals are large enough.

    References
    ----------
    Lunceford and Davidian (2004). Stratification and weighting via the propensity score. Statistics in
    Medicine 23, section 3.
    Bell and McCaffrey (2002). Bias reduction in standard errors for linear regression with multi-stage
    samples. Survey Methodology 28.
    Li, Morgan and Zaslavsky (2018). Balancing covariates via propensity score weighting. JASA 113, table 1.
    Hainmueller (2012). Entropy balancing for causal effects. Political Analysis 20.
    Robins, Rotnitzky and Zhao (1994). JASA 89; Chernozhukov et al. (2018). Double/debiased machine learning.
    Econometrics Journal 21, section 5.1.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(2000, 1))
    >>> t = rng.random(2000) < 1 / (1 + np.exp(-x[:, 0]))
    >>> y = 2.0 * t + x[:, 0] + rng.normal(size=2000)
    >>> result = weight_estimate(y, t, x, method="overlap")
    >>> bool(abs(result.estimate - 2.0) < 3 * result.std_error)
    True
    """
    estimand = estimand or ("ato" if method == "overlap" else "ate")
    _check_options(
        method, estimand, propensity=propensity, stabilised=stabilised, truncate=truncate, trim=trim
    )
    vectors = {"outcome": np.asarray(y), "treatment": np.asarray(t)}
    if propensity is not None:
        vectors["propensity"] = np.asarray(propensity)
    matrix, columns, clean = clean_arrays(np.asarray(X), names, **vectors)
    treated = _binary(clean["treatment"])
    outcome, n = clean["outcome"], len(treated)
    codes = cluster_codes(None if cluster is None else np.asarray(cluster), n)
    given = clean.get("propensity")
    if splits is not None:
        at_least(splits, 1, "splits")
    if not 0 <= clip < 0.5:
        raise EstimationError(f"clip={clip}: expected a number from 0 to below 0.5")
    if given is not None and not ((given > 0) & (given < 1)).all():
        raise EstimationError("a propensity score given is not strictly between 0 and 1")

    kept, alpha = np.ones(n, dtype=bool), None
    if trim is not None:
        score = given if given is not None else fit_logistic(matrix, treated, names=columns).fitted
        alpha = crump_threshold(score) if trim == "crump" else float(trim)
        if not 0 <= alpha < 0.5:
            raise EstimationError(f"trim={trim}: expected 'crump' or a number from 0 to below 0.5")
        kept = (score >= alpha) & (score <= 1 - alpha)
        if not (treated[kept].any() and (~treated[kept]).any()):
            raise EstimationError(
                f"trimming to scores in [{alpha:.3g}, {1 - alpha:.3g}] leaves an arm empty",
                hint="the arms do not overlap; run both arms on the same items, or randomise",
            )
    part = (outcome[kept], treated[kept], matrix[kept])
    score_kept = None if given is None else given[kept]
    if method == "entropy":
        fit = _entropy(*part, columns, estimand, targets)
    elif method == "aipw":
        # Trimming can leave clusters without rows; codes must have no gaps.
        inner = None if codes is None else np.unique(codes[kept], return_inverse=True)[1]
        places = _places(rank, matrix, outcome, given)
        fit = cross_fitted_aipw(
            *part,
            columns,
            estimand,
            score_kept,
            inner,
            folds,
            outcome_model,
            random_state,
            clip,
            places[kept],
            splits=splits,
        )
    else:
        fit = _score_weights(*part, columns, estimand, score_kept, stabilised=stabilised, truncate=truncate)
    return _result(fit, method, estimand, treated, kept, alpha, codes, level, clip)


def _places(
    rank: ArrayLike | None, matrix: Floats, outcome: Floats, given: Floats | None
) -> NDArray[np.int64]:
    if rank is None:
        return content_rank(matrix, *([] if given is None else [given]), outcome)
    places = np.asarray(rank)
    if places.shape != outcome.shape or places.dtype.kind not in "iu":
        raise DataError(
            f"rank has shape {places.shape}; expected a whole number for each of {len(outcome)} rows"
        )
    return np.asarray(places, dtype=np.int64)


def _check_options(
    method: str,
    estimand: str,
    *,
    propensity: object,
    stabilised: bool,
    truncate: float | None,
    trim: object,
) -> None:
    if method not in _ESTIMANDS:
        raise EstimationError(f"method={method!r}: choose one of {', '.join(_ESTIMANDS)}")
    if estimand not in _ESTIMANDS[method]:
        raise EstimationError(
            f"method={method!r} does not estimate {estimand!r}; it estimates {', '.join(_ESTIMANDS[method])}"
        )
    if method == "entropy" and (propensity is not None or trim is not None):
        raise EstimationError("entropy balancing has no propensity score; drop propensity= and trim=")
    if stabilised and (method, estimand) != ("ipw", "ate"):
        raise EstimationError("stabilised=True is defined for method='ipw' with estimand='ate'")
    if truncate is not None and method not in {"ipw", "overlap"}:
        raise EstimationError(f"truncate= is not defined for method={method!r}")


def _binary(t: Floats) -> Bools:
    values = np.unique(t)
    if not set(values.tolist()) <= {0.0, 1.0}:
        raise EstimationError(
            f"the treatment has values {', '.join(f'{v:g}' for v in values[:5])}; expected 0 and 1",
            hint="for many arms use multinomial_weights, for a dose continuous_weights",
        )
    if len(values) < 2:
        raise EstimationError(f"every row has treatment {values[0]:g}: one arm is empty")
    return np.asarray(t == 1.0)


def _independent(matrix: Floats, treated: Bools, names: Sequence[str]) -> tuple[Floats, Floats, Floats]:
    """Fit the score; return the regressors kept (scaled, with intercept), the linear predictor and scores."""
    fit = fit_logistic(matrix, treated, names=names)
    used = [j for j, name in enumerate(names) if name not in fit.dropped]
    columns = matrix[:, used]
    # Influence values do not depend on the columns' location and scale, rounding does.
    return with_intercept((columns - columns.mean(axis=0)) / columns.std(axis=0)), fit.linear, fit.fitted


def _score_weights(
    y: Floats,
    treated: Bools,
    matrix: Floats,
    names: Sequence[str],
    estimand: str,
    given: Floats | None,
    *,
    stabilised: bool,
    truncate: float | None,
) -> ArmFit:
    if given is None:
        design, linear, score = _independent(matrix, treated, names)
    else:
        design, linear, score = np.ones((len(y), 1)), np.log(given / (1.0 - given)), given
    weights = raw_weights(linear, treated, estimand).astype(float)
    uncut = np.ones(len(y), dtype=bool)
    if stabilised:
        weights = weights * np.where(treated, treated.mean(), 1.0 - treated.mean())
    if truncate is not None:
        chosen = {"att": ~treated, "atc": treated}.get(estimand, uncut)
        cut = weights.copy()
        cut[chosen] = truncate_weights(weights[chosen], truncate)
        uncut = cut == weights
        weights = cut
    arms = np.column_stack([treated, ~treated]).astype(float)
    if given is not None:
        means, influence = regression_influence(y, arms, weights)
        return ArmFit(weights=weights, propensity=score, means=means, influence=influence)
    # d weight / d linear predictor, by one complex step; d linear predictor / d beta is the design.
    slope = raw_weights(linear + 1e-30j, treated, estimand).imag / 1e-30
    if stabilised:
        slope = slope * np.where(treated, treated.mean(), 1.0 - treated.mean())
    slope = slope * uncut
    information = (design * (score * (1.0 - score))[:, None]).T @ design / len(y)
    gradient = design * (treated - score)[:, None]
    nuisance = np.asarray(np.linalg.solve(information, gradient.T).T, dtype=float)

    def around(theta: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(weights + slope * (design @ theta))

    means, influence = regression_influence(
        y, arms, weights, weight_function=around, theta=np.zeros(design.shape[1]), nuisance=nuisance
    )
    return ArmFit(weights=weights, propensity=score, means=means, influence=influence)


def _entropy(
    y: Floats, treated: Bools, matrix: Floats, names: Sequence[str], estimand: str, targets: str
) -> ArmFit:
    if targets not in {"estimated", "fixed"}:
        raise EstimationError(f"targets={targets!r}: choose 'estimated' or 'fixed'")
    spread = matrix.std(axis=0)
    used = spread > 1e-12 * np.abs(matrix.mean(axis=0))
    if not used.any():
        raise EstimationError(
            f"no covariate varies among {', '.join(names) or 'none given'}: there is nothing to balance",
            hint="method='naive' gives the plain difference",
        )
    moments = (matrix[:, used] - matrix[:, used].mean(axis=0)) / spread[used]
    labels = [name for name, keep in zip(names, used, strict=True) if keep]
    reference = {"att": treated, "atc": ~treated}.get(estimand, np.ones(len(y), dtype=bool))
    goal = moments[reference].mean(axis=0)
    weights = np.ones(len(y))
    # The influence of each mean: residual y - mean, less its weighted regression on the balanced moments, as
    # those are held at the target; plus what the target's own sampling adds.
    means, influence = np.zeros(2), np.zeros((len(y), 2))
    share = reference / reference.mean()
    for column, arm in enumerate((treated, ~treated)):
        centred = moments - goal
        if not (arm == reference).all():
            multipliers = entropy_multipliers(centred[arm], labels)
            eta = centred[arm] @ multipliers
            relative = np.exp(eta - eta.max())
            weights[arm] = relative / relative.mean()
        w = np.where(arm, weights, 0.0) / arm.mean()
        means[column] = (w * y).mean()
        residual = y - means[column]
        if not (arm == reference).all():
            gram = (centred * w[:, None]).T @ centred
            slope = np.linalg.lstsq(gram, (centred * w[:, None]).T @ residual, rcond=1e-12)[0]
            influence[:, column] = w * (residual - centred @ slope)
            if targets == "estimated":
                influence[:, column] += share * (centred @ slope)
        else:
            influence[:, column] = w * residual
    return ArmFit(weights=weights, propensity=None, means=means, influence=influence / len(y))


def _error(
    fit: ArmFit, method: str, treated: Bools, codes: NDArray[np.intp] | None
) -> tuple[float, float | None, tuple[str, ...]]:
    """Return the standard error, its degrees of freedom (None: normal) and remarks."""
    if method == "aipw":
        # Cross-fitted residuals are those of other rows' fits: they are not too small.
        error = standard_error(fit.influence[:, 0] - fit.influence[:, 1], codes)
        return error, *(
            (None, ()) if codes is None else (float(codes.max()), few_clusters(len(np.unique(codes))))
        )
    arms = np.column_stack([treated, ~treated])
    if codes is None:
        df = float(rows_df(arms, fit.weights)[0, 1])
        return standard_error(fit.influence[:, 0] - fit.influence[:, 1], None), df, ()
    design = cluster_design(arms, fit.weights, codes)
    sums = design.scaled(fit.influence) @ [1.0, -1.0]
    df = design.df(np.array([1.0, -1.0]))
    return float(np.sqrt(sums @ sums)), df, few_clusters(len(np.unique(codes)), df)


def _quantile(level: float, df: float | None) -> float:
    from scipy import stats

    tail = (1 + level) / 2
    return float(stats.norm.ppf(tail) if df is None else stats.t.ppf(tail, df))


def _result(
    fit: ArmFit,
    method: str,
    estimand: str,
    treated: Bools,
    kept: Bools,
    alpha: float | None,
    codes: NDArray[np.intp] | None,
    level: float,
    clip: float,
) -> WeightEstimate:
    n = len(treated)
    weights, influence = np.zeros(n), np.zeros((n, 2))
    weights[kept], influence[kept] = fit.weights, fit.influence
    score = None
    if fit.propensity is not None:
        score = np.full(n, np.nan)
        score[kept] = fit.propensity
    inner = None if codes is None else np.unique(codes[kept], return_inverse=True)[1]
    std_error, df, remarks = _error(fit, method, treated[kept], inner)
    quantile = _quantile(level, df)
    estimate = float(fit.means[0] - fit.means[1])
    used = [kept & treated, kept & ~treated]
    ess = [effective_sample_size(weights[arm]) for arm in used]
    warnings = [
        f"the weights of the {arm} rows are worth {size:.0f} of {rows.sum()}: the estimate rests on few rows"
        for arm, size, rows in zip(("treated", "control"), ess, used, strict=True)
        if size < min(_LOW_ESS * rows.sum(), FEW_ROWS if estimand == "ato" else np.inf)
    ]
    if fit.clipped:
        warnings.append(
            f"{fit.clipped} of {len(fit.weights)} cross-fitted propensity scores lay beyond {clip:g} or "
            f"{1 - clip:g} and were set to it: there the arms hardly overlap"
        )
    if fit.separated:
        warnings.append(
            f"in {fit.separated} of {fit.deals} deals of the folds the rest of the rows tells the arms apart;"
            " the estimate is the mean over the others: overlap is thin"
        )
    warnings.extend(remarks)
    if not kept.all():
        warnings.append(
            f"{(~kept).sum()} of {n} rows have a propensity score outside "
            f"[{alpha:.3g}, {1 - (alpha or 0):.3g}] and were left out; the effect speaks for the others"
        )
    return WeightEstimate(
        method=method,
        estimand=estimand,
        estimate=estimate,
        std_error=std_error,
        ci_low=estimate - quantile * std_error,
        ci_high=estimate + quantile * std_error,
        level=level,
        df=df,
        mean_treated=float(fit.means[0]),
        mean_control=float(fit.means[1]),
        weights=weights,
        propensity=score,
        kept=kept,
        trim_alpha=alpha,
        ess_treated=ess[0],
        ess_control=ess[1],
        n_treated=int(treated.sum()),
        n_control=int((~treated).sum()),
        n_treated_used=int(used[0].sum()),
        n_control_used=int(used[1].sum()),
        influence_treated=influence[:, 0],
        influence_control=influence[:, 1],
        warnings=tuple(warnings),
    )
