"""One instrument and one treatment: both regressions on the instrument, their ratio, and what it may be.

The ratio of two estimates has no normal distribution where the lower one is small: the set of ratios that a
test of both does not reject holds the true one as often as it says, however weak the instrument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from whyprompt.stats.influence import with_intercept

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Kind = Literal["interval", "outside", "everything"]

# A share of the instrument's variance below this is rounding: the covariates determine it.
_DETERMINED = 1e-10


def on_instrument(
    y: Floats, d: Floats, z: Floats, x: Floats, codes: NDArray[np.intp] | None
) -> tuple[Floats, Floats, float] | None:
    """Regress outcome and treatment on the instrument; None where the covariates determine it.

    `x`, shape (n, p), are independent covariates without an intercept. Gives the instrument's coefficients
    (outcome, treatment), their covariance, shape (2, 2), and its degrees of freedom: HC1 with rows minus
    coefficients, or with `codes` CR1 with clusters minus one, both as Stata and linearmodels have them.

    >>> import numpy as np
    >>> z = np.array([0.0, 0.0, 1.0, 1.0])
    >>> coef, _, df = on_instrument(z * 2.0, z * 0.5, z, np.empty((4, 0)), None)
    >>> coef.round(9).tolist(), df
    ([2.0, 0.5], 2.0)
    """
    n = len(y)
    held = with_intercept(x)
    own = z - held @ np.linalg.lstsq(held, z, rcond=None)[0]
    size = float(own @ own)
    if size <= _DETERMINED * float((z - z.mean()) @ (z - z.mean())):
        return None
    both = np.column_stack([y, d])
    coef = own @ both / size
    rest = both - held @ np.linalg.lstsq(held, both, rcond=None)[0] - np.outer(own, coef)
    influence = rest * (own / size)[:, None]
    free = n - held.shape[1] - 1
    if codes is None:
        return coef, influence.T @ influence * n / free, float(free)
    sums = np.column_stack([np.bincount(codes, weights=column) for column in influence.T])
    g = len(sums)
    return coef, sums.T @ sums * (g / (g - 1)) * ((n - 1) / free), float(g - 1)


def ratio_error(coef: Floats, covariance: Floats) -> float:
    """Return the standard error of 2SLS, the ratio of the two coefficients, by the delta method."""
    along = np.array([1.0, -coef[0] / coef[1]])
    return float(np.sqrt(along @ covariance @ along) / abs(coef[1]))


def anderson_rubin(coef: Floats, covariance: Floats, reach: float) -> tuple[Kind, float, float]:
    """Give the effects that are not rejected: those for which outcome less effect is not moved.

    `reach` is how many standard errors the test allows. The set is an interval, everything outside of one,
    or everything; its two ends stand behind its kind. With one instrument it is never empty: 2SLS is in it.

    Anderson, T. W. and Rubin, H. (1949). Annals of Mathematical Statistics 20, 46-63.
    Andrews, I., Stock, J. H. and Sun, L. (2019). Weak instruments in instrumental variables regression.
    Annual Review of Economics 11, 727-753, section 5.1.

    >>> import numpy as np
    >>> kind, low, high = anderson_rubin(np.array([1.0, 0.5]), np.eye(2) * 0.01, 2.0)
    >>> kind, round(low, 3), round(high, 3)
    ('interval', 1.333, 3.429)
    >>> anderson_rubin(np.array([1.0, 0.1]), np.eye(2) * 0.01, 2.0)[0]
    'outside'
    >>> anderson_rubin(np.array([0.1, 0.1]), np.eye(2) * 0.01, 2.0)[0]
    'everything'
    """
    square = reach**2
    a = float(coef[1] ** 2 - square * covariance[1, 1])
    b = float(coef[0] * coef[1] - square * covariance[0, 1])
    c = float(coef[0] ** 2 - square * covariance[0, 0])
    root = b**2 - a * c
    if a == 0 or (a < 0 and root <= 0):
        return "everything", -np.inf, np.inf
    ends = sorted((b + sign * np.sqrt(max(root, 0.0))) / a for sign in (-1.0, 1.0))
    return ("interval" if a > 0 else "outside"), float(ends[0]), float(ends[1])
