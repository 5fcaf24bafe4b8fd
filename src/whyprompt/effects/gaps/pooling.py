"""Rubin's rules: one estimate from several completed tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt._arguments import confidence
from whyprompt._words import counted, format_number, percent
from whyprompt.errors import EstimationError
from whyprompt.results import Estimate, Result
from whyprompt.stats.errors import interval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def pool_estimates(
    estimates: ArrayLike,
    variances: ArrayLike,
    *,
    df_complete: float = np.inf,
    level: float = 0.95,
) -> Result:
    """Pool estimates from completed tables by Rubin's rules.

    Parameters
    ----------
    estimates : array_like, shape (m,)
        One from each table.
    variances : array_like, shape (m,)
        Squares of their standard errors.
    df_complete : float, default infinity
        Degrees of freedom that complete data would have given.
    level : float, default 0.95
        Of the interval.

    Returns
    -------
    Result
        `overall` has Barnard and Rubin's degrees of freedom, and as figures ``draws`` (imputations, m);
        the variances ``within`` (their mean), ``between`` and ``total`` = within + (1 + 1/m) between, the
        error's square; ``increase``, the relative increase in variance due to missing values,
        (1 + 1/m) between / within; ``lambda``, their share of the variance, (1 + 1/m) between / total; and
        ``fmi``, the fraction of information missing, (increase + 2 / (df + 3)) / (increase + 1). The one part
        is the same with the interval that it would have were nothing missing.

    Raises
    ------
    EstimationError
        If there are fewer than two estimates, a value is not finite, or a variance is not positive.

    References
    ----------
    Rubin (1987). Multiple Imputation for Nonresponse in Surveys. Wiley, section 3.1.
    Barnard and Rubin (1999). Small-sample degrees of freedom with multiple imputation. Biometrika 86,
    equation 3.

    Examples
    --------
    >>> slopes, variances = [0.42, 0.51, 0.38, 0.47, 0.45], [0.01, 0.012, 0.009, 0.011, 0.01]
    >>> got = pool_estimates(slopes, variances, df_complete=496)
    >>> round(got.estimate, 3), round(got.overall["total"], 6), round(got.df, 4)
    (0.446, 0.013316, 68.5853)
    """
    found = rubin(estimates, variances, df_complete=df_complete, level=level)
    estimate, error = found.estimate or 0.0, found["within"] ** 0.5
    low, high = interval(estimate, error, level=level)
    label = "were nothing missing"
    alone = Estimate(label=label, estimate=estimate, std_error=error, ci_low=low, ci_high=high)
    return Result(
        overall=found,
        parts=(alone,),
        level=level,
        sentence=(
            f"Pooled over {counted(found['draws'], 'imputation')} the estimate is {format_number(estimate)}"
            f" ({percent(level)} interval"
            f" {format_number(found.ci_low)} to {format_number(found.ci_high)}); missing values"
            f" account for {in_words(found['lambda'])} of its variance."
        ),
    )


def rubin(estimates: ArrayLike, variances: ArrayLike, *, df_complete: float, level: float) -> Estimate:
    """Pool estimates, as the `overall` of `pool_estimates`."""
    from scipy import stats

    q, u = np.asarray(estimates, dtype=float), np.asarray(variances, dtype=float)
    if q.ndim != 1 or q.shape != u.shape:
        raise EstimationError(f"estimates and variances have shapes {q.shape} and {u.shape}")
    m = len(q)
    if m < 2:
        raise EstimationError("pooling needs at least two imputations", hint="20 are usual")
    if not (np.isfinite(q).all() and np.isfinite(u).all() and (u > 0).all()):
        raise EstimationError(
            "an imputation has no estimate or no positive variance",
            hint="look at the estimates one by one",
        )
    if not df_complete > 0:
        raise EstimationError(f"df_complete={df_complete}: degrees of freedom are positive")
    confidence(level)
    estimate, within = float(q.mean()), float(u.mean())
    # Estimates that agree to rounding vary by nothing that imputation did.
    between = float(q.var(ddof=1)) if np.ptp(q) > 1e-12 * np.abs(q).max() else 0.0
    extra = (1 + 1 / m) * between
    total = within + extra
    share = extra / total
    # A share whose square is below the smallest double limits nothing.
    old = (m - 1) / share**2 if share > 1e-150 else np.inf
    observed = (
        np.inf if np.isinf(df_complete) else (df_complete + 1) / (df_complete + 3) * df_complete * (1 - share)
    )
    inverse = (0.0 if np.isinf(old) else 1 / old) + (0.0 if np.isinf(observed) else 1 / observed)
    df = float(1 / inverse) if inverse > 0 else float(np.inf)
    error = float(np.sqrt(total))
    reference = stats.t(df) if np.isfinite(df) else stats.norm()
    width = float(reference.ppf(0.5 + level / 2)) * error
    increase = extra / within
    fmi = (increase + 2 / (df + 3)) / (increase + 1)
    return Estimate(
        label="pooled",
        estimate=estimate,
        std_error=error,
        ci_low=estimate - width,
        ci_high=estimate + width,
        p_value=float(2 * reference.sf(abs(estimate) / error)),
        df=df,
        figures={
            "draws": m,
            "within": within,
            "between": between,
            "total": total,
            "increase": increase,
            "lambda": share,
            "fmi": float(fmi),
        },
    )


def in_words(share: float) -> str:
    """Write a share as a percentage, without rounding a little to nothing."""
    return f"{share:.0%}" if share >= 0.01 or share == 0 else "less than 1%"
