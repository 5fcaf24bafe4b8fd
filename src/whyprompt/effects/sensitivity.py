"""Sensitivity to what was not measured: Rosenbaum bounds, E-values, robustness values and their benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from whyprompt.effects._influence import clean_arrays, with_intercept
from whyprompt.errors import DataError, EstimationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "BenchmarkBound",
    "EValue",
    "RobustnessReport",
    "RosenbaumBound",
    "adjusted_estimate",
    "contour",
    "critical_gamma",
    "e_value",
    "mcnemar_bounds",
    "robustness",
    "robustness_value",
    "rosenbaum_bounds",
]

# All Walsh averages are held up to this many pairs (8 million numbers); beyond it they are counted.
_WALSH_PAIRS = 4_000
DEFAULT_GAMMAS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
Side = Literal["greater", "less"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RosenbaumBound:
    """What an unmeasured confounder of strength gamma could do to matched pairs.

    Attributes
    ----------
    gamma : float
        Two rows of a pair differ in their odds of treatment by at most this factor.
    p_lower, p_upper : float
        Bounds on the one-sided p-value.
    effect_low, effect_high : float
        Bounds on the Hodges-Lehmann estimate; NaN for a binary outcome.
    """

    gamma: float
    p_lower: float
    p_upper: float
    effect_low: float
    effect_high: float


def _differences(treated: ArrayLike, control: ArrayLike) -> Floats:
    first, second = np.asarray(treated, dtype=float), np.asarray(control, dtype=float)
    if first.ndim != 1 or first.shape != second.shape:
        raise DataError(f"pairs have shapes {first.shape} and {second.shape}; expected two equal columns")
    for name, values in (("treated", first), ("control", second)):
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise DataError(f"the {name} outcomes have {bad} missing or infinite values")
    difference = first - second
    if not difference.any():
        raise EstimationError("no pair differs in its outcome: there is nothing to test")
    return difference


def _check_gamma(gamma: float) -> float:
    if not (np.isfinite(gamma) and gamma >= 1):
        raise EstimationError(f"gamma={gamma}: expected a number of at least 1 (1 is no hidden bias)")
    return float(gamma)


def _signed_rank_p(difference: Floats, gamma: float) -> tuple[float, float]:
    from scipy import stats

    # Pairs that do not differ carry no sign, as in Wilcoxon's test.
    nonzero = difference[difference != 0]
    ranks = stats.rankdata(np.abs(nonzero))
    statistic = ranks[nonzero > 0].sum()
    bounds = []
    for share in (1 / (1 + gamma), gamma / (1 + gamma)):
        spread = np.sqrt(share * (1 - share) * (ranks @ ranks))
        bounds.append(float(stats.norm.sf((statistic - share * ranks.sum()) / spread)))
    return bounds[0], bounds[1]


def _walsh_quantile(difference: Floats, share: float, *, inner: bool = False) -> float:
    """Solve ``T(tau) = share * n (n + 1) / 2``, where T counts the Walsh averages above tau.

    T falls in steps. Where it takes the value on an interval, the solution is its middle (the usual
    Hodges-Lehmann convention: for a share of one half, the median of the Walsh averages), or with `inner` its
    end next to the median.
    """
    n = len(difference)
    total = n * (n + 1) // 2
    # Counted from below; rounding must not turn a whole number into the next one.
    position = (1 - share) * total
    whole = round(position)
    between = abs(position - whole) < 1e-9 * total
    low, high = (whole, whole + 1) if between else (int(np.ceil(position)),) * 2
    low, high = (min(max(k, 1), total) for k in (low, high))
    if inner and share != 0.5:
        low = high = high if share > 0.5 else low
    ordered = np.sort(difference)
    if n <= _WALSH_PAIRS:
        i, j = np.triu_indices(n)
        averages = np.partition((ordered[i] + ordered[j]) / 2, sorted({low - 1, high - 1}))
        return float((averages[low - 1] + averages[high - 1]) / 2)
    return (_kth_walsh(ordered, low) + (_kth_walsh(ordered, high) if high != low else 0)) / (
        1 + (high != low)
    )


def _kth_walsh(ordered: Floats, k: int) -> float:
    """Find the k-th smallest Walsh average by bisection on counts, each O(n log n), to double precision."""
    n = len(ordered)
    low, high = float(ordered[0]), float(ordered[-1])
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return high if _walsh_at_most(ordered, low, n) < k else low
        low, high = (low, middle) if _walsh_at_most(ordered, middle, n) >= k else (middle, high)


def _walsh_at_most(ordered: Floats, tau: float, n: int) -> int:
    ends = np.searchsorted(ordered, 2 * tau - ordered, side="right")
    return int(np.maximum(ends - np.arange(n), 0).sum())


def rosenbaum_bounds(
    treated: ArrayLike,
    control: ArrayLike,
    *,
    gammas: Sequence[float] = DEFAULT_GAMMAS,
    alternative: Side = "greater",
    convention: Literal["walsh", "rbounds"] = "walsh",
) -> tuple[RosenbaumBound, ...]:
    """Bound the Wilcoxon signed rank p-value and the Hodges-Lehmann estimate of matched pairs.

    Parameters
    ----------
    treated, control : array_like, shape (pairs,)
        Outcomes of the two rows of each pair.
    gammas : sequence of float
        Strengths of hidden bias, each at least 1.
    alternative : {"greater", "less"}, default "greater"
        Whether the p-value speaks against no effect in favour of a positive or of a negative one.
    convention : {"walsh", "rbounds"}, default "walsh"
        How the estimate's bounds are computed; see Notes.

    Returns
    -------
    tuple of RosenbaumBound
        In the order of `gammas`.

    Raises
    ------
    DataError
        If outcomes are missing or infinite or the columns differ in length.
    EstimationError
        If no pair differs, or a gamma is below 1.

    Notes
    -----
    The p-value is the normal approximation without continuity correction, pairs that do not differ left out,
    as in rbounds' ``psens``. The estimate's bounds are exact quantiles of the Walsh averages of all pairs, for
    every gamma. rbounds' ``hlsens`` does so for a gamma above 1, on a grid, taking the end next to the median
    where a bound is an interval; at gamma 1 it reports R's ``wilcox.test`` estimate, which leaves out pairs that
    do not differ, and so may jump between 1 and the next gamma. ``convention="rbounds"`` follows it, exactly
    where it steps along a grid.

    References
    ----------
    Rosenbaum (2002). Observational Studies, 2nd edition. Springer, sections 4.3.3 and 4.3.5.

    Examples
    --------
    >>> bound, *_ = rosenbaum_bounds([3.0, 5.0, 4.0, 6.0, 7.0], [1.0, 2.0, 3.5, 2.0, 2.0], gammas=[1.0])
    >>> round(bound.p_upper, 4), bound.effect_low
    (0.0216, 3.0)
    """
    if alternative not in {"greater", "less"}:
        raise EstimationError(f"alternative={alternative!r}: choose 'greater' or 'less'")
    if convention not in {"walsh", "rbounds"}:
        raise EstimationError(f"convention={convention!r}: choose 'walsh' or 'rbounds'")
    difference = _differences(treated, control)
    signed = difference if alternative == "greater" else -difference
    answer = []
    for gamma in map(_check_gamma, gammas):
        p_lower, p_upper = _signed_rank_p(signed, gamma)
        share = gamma / (1 + gamma)
        as_rbounds = convention == "rbounds"
        used = difference[difference != 0] if as_rbounds and gamma == 1 else difference
        answer.append(
            RosenbaumBound(
                gamma=gamma,
                p_lower=p_lower,
                p_upper=p_upper,
                effect_low=_walsh_quantile(used, share, inner=as_rbounds),
                effect_high=_walsh_quantile(used, 1 - share, inner=as_rbounds),
            )
        )
    return tuple(answer)


def mcnemar_bounds(
    treated: ArrayLike,
    control: ArrayLike,
    *,
    gammas: Sequence[float] = DEFAULT_GAMMAS,
    alternative: Side = "greater",
) -> tuple[RosenbaumBound, ...]:
    """Bound the exact McNemar p-value of matched pairs with a binary outcome.

    Parameters
    ----------
    treated, control : array_like, shape (pairs,)
        Outcomes, 0 or 1.
    gammas : sequence of float
        Strengths of hidden bias, each at least 1.
    alternative : {"greater", "less"}, default "greater"
        Whether the treatment is held to raise or to lower the outcome.

    Returns
    -------
    tuple of RosenbaumBound
        Without an effect estimate (NaN).

    Raises
    ------
    DataError
        If an outcome is not 0 or 1.
    EstimationError
        If no pair differs, or a gamma is below 1.

    References
    ----------
    Rosenbaum (2002), section 4.3.2.

    Examples
    --------
    >>> bound, *_ = mcnemar_bounds([1, 1, 1, 1, 0], [0, 0, 0, 0, 0], gammas=[1.0])
    >>> bound.p_upper
    0.0625
    """
    from scipy import stats

    if alternative not in {"greater", "less"}:
        raise EstimationError(f"alternative={alternative!r}: choose 'greater' or 'less'")
    difference = _differences(treated, control)
    values = set(np.unique(np.concatenate([np.asarray(treated, float), np.asarray(control, float)])).tolist())
    if not values <= {0.0, 1.0}:
        raise DataError("McNemar's test is for outcomes of 0 and 1", hint="use rosenbaum_bounds for numbers")
    wins = int((difference > 0).sum() if alternative == "greater" else (difference < 0).sum())
    discordant = int((difference != 0).sum())
    answer = []
    for gamma in map(_check_gamma, gammas):
        low, high = (
            float(stats.binom.sf(wins - 1, discordant, s)) for s in (1 / (1 + gamma), gamma / (1 + gamma))
        )
        answer.append(
            RosenbaumBound(gamma=gamma, p_lower=low, p_upper=high, effect_low=np.nan, effect_high=np.nan)
        )
    return tuple(answer)


def critical_gamma(
    treated: ArrayLike, control: ArrayLike, *, alpha: float = 0.05, alternative: Side = "greater"
) -> float:
    """Find the hidden bias that would be needed to undo significance.

    Parameters
    ----------
    treated, control : array_like, shape (pairs,)
        Outcomes of the two rows of each pair.
    alpha : float, default 0.05
        Level of the one-sided signed rank test.
    alternative : {"greater", "less"}, default "greater"
        The direction tested.

    Returns
    -------
    float
        The gamma at which the upper bound of the p-value reaches `alpha`; 1 where the test is not significant
        without hidden bias.

    References
    ----------
    Rosenbaum (2002), section 4.3.3.

    Examples
    --------
    >>> critical_gamma([1.0, 2.0, 1.0], [2.0, 1.0, 1.5])
    1.0
    """
    from scipy.optimize import brentq

    difference = _differences(treated, control)
    signed = difference if alternative == "greater" else -difference

    def excess(log_gamma: float) -> float:
        return _signed_rank_p(signed, float(np.exp(log_gamma)))[1] - alpha

    if excess(0.0) >= 0:
        return 1.0
    top = 1.0
    while excess(top) < 0:
        top *= 2
    return float(np.exp(brentq(excess, 0.0, top, xtol=1e-12)))


@dataclass(frozen=True, kw_only=True, slots=True)
class EValue:
    """How strong unmeasured confounding must be to explain an effect away.

    Attributes
    ----------
    risk_ratio : float
        The effect as a (possibly approximate) risk ratio.
    e_value : float
        The least risk ratio that a confounder must have with both treatment and outcome.
    e_value_ci : float or None
        The same for the interval's limit next to no effect; 1 where the interval includes it.
    approximate : bool
        Whether the risk ratio is an approximation.
    """

    risk_ratio: float
    e_value: float
    e_value_ci: float | None
    approximate: bool


def e_value(
    estimate: float,
    *,
    measure: Literal["risk_ratio", "odds_ratio", "difference"] = "risk_ratio",
    ci: tuple[float, float] | None = None,
    std_error: float | None = None,
    sd: float | None = None,
    rare: bool = False,
) -> EValue:
    """Compute the E-value of VanderWeele and Ding.

    Parameters
    ----------
    estimate : float
        The effect: a risk ratio, an odds ratio or a difference of means.
    measure : {"risk_ratio", "odds_ratio", "difference"}, default "risk_ratio"
        What `estimate` is. An odds ratio of a common outcome counts as the square of a risk ratio; a
        difference ``d`` in standard deviations as the risk ratio ``exp(0.91 d)``.
    ci : tuple of float, optional
        Interval of a ratio.
    std_error : float, optional
        Of a difference, for its interval ``exp(0.91 d +- 1.78 s)``.
    sd : float, optional
        Standard deviation of the outcome, needed for a difference.
    rare : bool, default False
        Whether the outcome of an odds ratio is rare (below 15%): it then is the risk ratio.

    Returns
    -------
    EValue

    Raises
    ------
    EstimationError
        If a ratio is not positive, the interval does not hold the estimate, or `sd` is missing.

    References
    ----------
    VanderWeele and Ding (2017). Sensitivity analysis in observational research: introducing the E-value. Annals
    of Internal Medicine 167, table 2.

    Examples
    --------
    >>> found = e_value(3.9, ci=(1.8, 8.7))
    >>> round(found.e_value, 2), round(found.e_value_ci, 2)
    (7.26, 3.0)
    """
    limits: tuple[float, float] | None = None
    if measure == "difference":
        if sd is None or not sd > 0:
            raise EstimationError(
                f"sd={sd}: the E-value of a difference needs the outcome's standard deviation"
            )
        if ci is not None:
            raise EstimationError("give std_error= and not ci= for a difference")
        effect = estimate / sd
        ratio = float(np.exp(0.91 * effect))
        if std_error is not None:
            margin = 1.78 * std_error / sd
            limits = (float(np.exp(0.91 * effect - margin)), float(np.exp(0.91 * effect + margin)))
    elif measure in {"risk_ratio", "odds_ratio"}:
        if not estimate > 0 or (ci is not None and not ci[0] > 0):
            raise EstimationError(f"a ratio is positive; got {estimate} with interval {ci}")
        root = measure == "odds_ratio" and not rare
        ratio = float(np.sqrt(estimate)) if root else float(estimate)
        if ci is not None:
            limits = (float(np.sqrt(ci[0])), float(np.sqrt(ci[1]))) if root else (float(ci[0]), float(ci[1]))
    else:
        raise EstimationError(f"measure={measure!r}: choose 'risk_ratio', 'odds_ratio' or 'difference'")
    nearest = None
    if limits is not None:
        if not limits[0] <= ratio <= limits[1]:
            raise EstimationError(f"the interval {ci} does not hold the estimate {estimate}")
        nearest = 1.0 if limits[0] <= 1 <= limits[1] else _from_ratio(limits[0] if ratio > 1 else limits[1])
    return EValue(
        risk_ratio=ratio,
        e_value=_from_ratio(ratio),
        e_value_ci=nearest,
        approximate=measure == "difference" or (measure == "odds_ratio" and not rare),
    )


def _from_ratio(ratio: float) -> float:
    above = max(ratio, 1 / ratio)
    return float(above + np.sqrt(above * (above - 1)))


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkBound:
    """An unmeasured confounder as strong as an observed covariate, or several times as strong.

    Attributes
    ----------
    benchmark : str
        The covariate (or group of them).
    times : float
        How many times as strong.
    r2_treatment, r2_outcome : float
        Bounds on the confounder's partial R-squared with the treatment and with the outcome.
    estimate, std_error, t_statistic, ci_low, ci_high : float
        The effect adjusted for such a confounder, taken towards zero.
    """

    benchmark: str
    times: float
    r2_treatment: float
    r2_outcome: float
    estimate: float
    std_error: float
    t_statistic: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RobustnessReport:
    """Sensitivity of a regression estimate to unmeasured confounders.

    Attributes
    ----------
    estimate, std_error, t_statistic : float
        The coefficient of the treatment by least squares.
    df : int
        Residual degrees of freedom.
    partial_r2 : float
        Of the treatment with the outcome: a confounder that explains all residual variance of the outcome must
        explain this share of the treatment's to undo the estimate.
    robustness_value : float
        The partial R-squared with both that brings the estimate down by ``q``.
    robustness_value_alpha : float
        That makes it insignificant at level ``alpha``; 0 where it is.
    q, alpha : float
        As given.
    bounds : tuple of BenchmarkBound
        One for each benchmark and strength.
    """

    estimate: float
    std_error: float
    t_statistic: float
    df: int
    partial_r2: float
    robustness_value: float
    robustness_value_alpha: float
    q: float
    alpha: float
    bounds: tuple[BenchmarkBound, ...]


def robustness_value(t_statistic: float, df: int, *, q: float = 1.0, alpha: float = 1.0) -> float:
    """Compute the robustness value of a regression coefficient.

    Parameters
    ----------
    t_statistic : float
        Of the coefficient.
    df : int
        Residual degrees of freedom.
    q : float, default 1
        Share of the estimate to be explained away.
    alpha : float, default 1
        Level at which it must become insignificant; 1 asks about the estimate itself.

    Returns
    -------
    float
        Between 0 and 1.

    References
    ----------
    Cinelli and Hazlett (2020). Making sense of sensitivity. JRSS B 82, equations 5 and 8 (and, where the
    treatment's partial R-squared binds, Cinelli and Hazlett 2022, section 4.2).

    Examples
    --------
    >>> round(robustness_value(1.98167775216043, 604), 6)
    0.077448
    """
    from scipy import stats

    if df < 2:
        raise EstimationError(f"df={df}: at least two residual degrees of freedom are needed")
    f = q * abs(t_statistic) / np.sqrt(df)
    critical = float(stats.t.isf(alpha / 2, df - 1)) / np.sqrt(df - 1) if alpha < 1 else 0.0
    excess = f - critical
    if excess <= 0:
        return 0.0
    if critical > 0 and f > 1 / critical:
        return float((f**2 - critical**2) / (1 + f**2))
    return float((np.sqrt(excess**4 + 4 * excess**2) - excess**2) / 2)


def adjusted_estimate(
    estimate: float, std_error: float, df: int, r2_treatment: ArrayLike, r2_outcome: ArrayLike
) -> tuple[Floats, Floats]:
    """Adjust a regression coefficient for a confounder of given strength, towards zero.

    Parameters
    ----------
    estimate, std_error : float
        The coefficient.
    df : int
        Residual degrees of freedom.
    r2_treatment, r2_outcome : array_like
        The confounder's partial R-squared with the treatment and with the outcome; broadcast.

    Returns
    -------
    estimate, std_error : ndarray
        After adjustment.

    Raises
    ------
    EstimationError
        If an R-squared is outside [0, 1), or one with the outcome above 1.

    References
    ----------
    Cinelli and Hazlett (2020), equations 3 and 4.

    Examples
    --------
    >>> after, _ = adjusted_estimate(2.0, 0.5, 100, 0.1, 0.2)
    >>> round(float(after), 4)
    1.2546
    """
    d, y = np.asarray(r2_treatment, dtype=float), np.asarray(r2_outcome, dtype=float)
    if not (((d >= 0) & (d < 1)).all() and ((y >= 0) & (y <= 1)).all()):
        raise EstimationError("a partial R-squared lies between 0 and 1 (below 1 for the treatment)")
    bias = np.sqrt(y * d / (1 - d)) * std_error * np.sqrt(df)
    error = np.sqrt((1 - y) / (1 - d)) * std_error * np.sqrt(df / (df - 1))
    return np.asarray(estimate - np.sign(estimate) * bias), np.asarray(error)


def contour(
    report: RobustnessReport,
    *,
    r2_treatment: ArrayLike | None = None,
    r2_outcome: ArrayLike | None = None,
    value: Literal["estimate", "t"] = "estimate",
) -> tuple[Floats, Floats, Floats]:
    """Evaluate the adjusted estimate, or its t statistic, on a grid of confounder strengths.

    Parameters
    ----------
    report : RobustnessReport
        From :func:`robustness`.
    r2_treatment, r2_outcome : array_like, optional
        The grid; by default 41 values from 0 to 0.4 (or 1.3 times the strongest bound, up to 0.95).
    value : {"estimate", "t"}, default "estimate"
        What to evaluate.

    Returns
    -------
    r2_treatment : ndarray, shape (a,)
        Columns of the grid.
    r2_outcome : ndarray, shape (b,)
        Rows of the grid.
    values : ndarray, shape (b, a)
        The adjusted estimate or t.

    References
    ----------
    Cinelli and Hazlett (2020), section 5.1.

    Examples
    --------
    >>> x = np.arange(8.0)[:, None] % 3
    >>> report = robustness(np.arange(8.0), [0, 1] * 4, x)
    >>> contour(report, r2_treatment=[0.0], r2_outcome=[0.0])[2].item() == report.estimate
    True
    """
    if value not in {"estimate", "t"}:
        raise EstimationError(f"value={value!r}: choose 'estimate' or 't'")
    tops = [
        1.3 * max((getattr(b, name) for b in report.bounds), default=0.0)
        for name in ("r2_treatment", "r2_outcome")
    ]
    axes = [
        np.linspace(0, min(0.95, max(0.4, top)), 41)
        if given is None
        else np.atleast_1d(np.asarray(given, float))
        for given, top in zip((r2_treatment, r2_outcome), tops, strict=True)
    ]
    after, error = adjusted_estimate(
        report.estimate, report.std_error, report.df, axes[0][None, :], axes[1][:, None]
    )
    if value == "estimate":
        return axes[0], axes[1], after
    with np.errstate(divide="ignore"):
        # A confounder that explains the outcome wholly leaves no error.
        return axes[0], axes[1], after / error


def _regress(y: Floats, design: Floats) -> tuple[Floats, Floats, int, Floats]:
    """Least squares: coefficients, residuals, rank and the inverse cross-product."""
    scale = np.maximum(np.abs(design).max(axis=0), 1e-300)
    u, s, vt = np.linalg.svd(design / scale, full_matrices=False)
    keep = s > s[0] * 1e-10
    inverse = (vt[keep].T / s[keep] ** 2) @ vt[keep] / np.outer(scale, scale)
    coef = (vt[keep].T @ ((u[:, keep].T @ y) / s[keep])) / scale
    return coef, y - design @ coef, int(keep.sum()), inverse


def robustness(
    y: ArrayLike,
    t: ArrayLike,
    X: ArrayLike,
    *,
    benchmarks: Mapping[str, Sequence[int]] | Sequence[str] = (),
    times: Sequence[float] = (1.0, 2.0, 3.0),
    names: Sequence[str] | None = None,
    q: float = 1.0,
    alpha: float = 0.05,
) -> RobustnessReport:
    """Ask how strong a confounder must be to overturn a regression estimate, measured in observed covariates.

    Parameters
    ----------
    y, t : array_like, shape (n,)
        Outcome and treatment.
    X : array_like, shape (n, p)
        Covariates, numeric, without an intercept.
    benchmarks : sequence of str, or mapping of str to sequence of int
        Columns of `X` to compare a confounder with, by name; or named groups of columns (all dummies of one
        variable).
    times : sequence of float, default (1, 2, 3)
        How many times as strong as the benchmark, with the treatment and with the outcome.
    names : sequence of str, optional
        Columns of `X`.
    q : float, default 1
        Share of the estimate to be explained away.
    alpha : float, default 0.05
        Level of the intervals and of the second robustness value.

    Returns
    -------
    RobustnessReport

    Raises
    ------
    DataError
        If a value is missing or infinite, or a benchmark is not a covariate.
    EstimationError
        If the treatment is constant or determined by the covariates, or a bound cannot hold (a confounder
        that many times as strong would explain the treatment wholly).

    References
    ----------
    Cinelli and Hazlett (2020), section 4.4 and appendix B.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(300, 1))
    >>> t = (x[:, 0] + rng.normal(size=300) > 0).astype(float)
    >>> report = robustness(2 * t + x[:, 0] + rng.normal(size=300), t, x, benchmarks=["x0"], times=[1])
    >>> report.bounds[0].benchmark, report.robustness_value > 0.4
    ('x0', True)
    """
    from scipy import stats

    matrix, columns, clean = clean_arrays(
        np.asarray(X), names, outcome=np.asarray(y), treatment=np.asarray(t)
    )
    outcome, treatment = clean["outcome"], clean["treatment"]
    groups = _groups(benchmarks, columns)
    base = with_intercept(matrix)
    _, left, rank, _ = _regress(treatment, base)
    if left @ left <= 1e-12 * max(1.0, float(treatment @ treatment)):
        raise EstimationError("the treatment is constant or determined by the covariates")
    df = len(outcome) - rank - 1
    if df < 2:
        raise EstimationError(f"{len(outcome)} rows are too few for {rank} covariates")
    design = np.column_stack([treatment, base])
    coef, residual, _, inverse = _regress(outcome, design)
    estimate = float(coef[0])
    std_error = float(np.sqrt(residual @ residual / df * inverse[0, 0]))
    if std_error == 0:
        raise EstimationError("the regression fits the outcome without error; nothing is left to confound")
    bounds = []
    for label, members in groups.items():
        others = np.delete(base, [j + 1 for j in members], axis=1)
        r2_d = _group_r2(treatment, base, others)
        r2_y = _group_r2(outcome, design, np.column_stack([treatment, others]))
        for k in times:
            r2_treatment, r2_outcome = _bound(r2_d, r2_y, k, label)
            after, error = adjusted_estimate(estimate, std_error, df, r2_treatment, r2_outcome)
            margin = float(stats.t.isf(alpha / 2, df)) * float(error)
            bounds.append(
                BenchmarkBound(
                    benchmark=label,
                    times=float(k),
                    r2_treatment=r2_treatment,
                    r2_outcome=r2_outcome,
                    estimate=float(after),
                    std_error=float(error),
                    t_statistic=float(after / error) if error > 0 else float(np.sign(after) * np.inf),
                    ci_low=float(after) - margin,
                    ci_high=float(after) + margin,
                )
            )
    t_statistic = estimate / std_error
    return RobustnessReport(
        estimate=estimate,
        std_error=std_error,
        t_statistic=t_statistic,
        df=df,
        partial_r2=t_statistic**2 / (t_statistic**2 + df),
        robustness_value=robustness_value(t_statistic, df, q=q),
        robustness_value_alpha=robustness_value(t_statistic, df, q=q, alpha=alpha),
        q=q,
        alpha=alpha,
        bounds=tuple(bounds),
    )


def _groups(
    benchmarks: Mapping[str, Sequence[int]] | Sequence[str], columns: tuple[str, ...]
) -> dict[str, list[int]]:
    if not hasattr(benchmarks, "items"):
        unknown = [name for name in benchmarks if name not in columns]
        if unknown:
            raise DataError(
                f"benchmark {unknown[0]!r} is not a covariate",
                hint=f"the covariates are {', '.join(columns)}",
            )
        return {name: [columns.index(name)] for name in benchmarks}
    groups = {label: list(members) for label, members in benchmarks.items()}
    for label, members in groups.items():
        if not members or not all(0 <= j < len(columns) for j in members):
            raise DataError(
                f"benchmark {label!r}: columns {members} are not all among 0 to {len(columns) - 1}"
            )
    return groups


def _group_r2(y: Floats, whole: Floats, without: Floats) -> float:
    """Partial R-squared of the columns that `whole` has and `without` has not."""
    full, reduced = (_regress(y, design)[1] for design in (whole, without))
    return float(1 - full @ full / (reduced @ reduced))


def _bound(r2_d: float, r2_y: float, k: float, label: str) -> tuple[float, float]:
    r2_treatment = k * r2_d / (1 - r2_d)
    if r2_treatment >= 1 or k * r2_d >= 1:
        raise EstimationError(
            f"a confounder {k:g} times as strong as {label!r} would explain the treatment wholly",
            hint="ask for fewer times, or take another benchmark",
        )
    overlap = k * r2_d**2 / ((1 - k * r2_d) * (1 - r2_d))
    if overlap >= 1:
        raise EstimationError(
            f"a confounder {k:g} times as strong as {label!r} is not possible", hint="ask for fewer times"
        )
    share = ((np.sqrt(k) + np.sqrt(overlap)) / np.sqrt(1 - overlap)) ** 2 * r2_y / (1 - r2_y)
    # Above one the bound says nothing: a confounder cannot explain more than all.
    return r2_treatment, float(min(share, 1.0))
