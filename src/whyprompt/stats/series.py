"""A regression of rows in periods, where rows of a period share a shock and shocks follow each other.

The shocks are a first-order autoregression, found by restricted likelihood; the noise of single rows is known
from rows of one period. Without autocorrelation it is a mixed model with a random intercept for each period.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_MOST = 0.95  # of the autocorrelation: beyond it a series of some dozens of periods has no level
_NIL = 1e-4  # a share of the periods' variance that shocks are taken to be absent below


def series_regression(
    y: Floats, x: Floats, period: Floats
) -> tuple[Floats, Floats, Callable[[int], float], dict[str, float]]:
    """Regress rows on `x`, shape (n, p), which has a column of ones; `period` is whole numbers.

    Gives coefficients, their covariance, what gives Satterthwaite's degrees of freedom of one of them, and
    the ``shock`` and ``noise`` (standard deviations of periods and of rows within one) and
    ``autocorrelation``. Columns are independent.

    Cheang, W.-K. and Reinsel, G. C. (2000). Bias reduction of autoregressive estimates in time series
    regression models through restricted maximum likelihood. Journal of the American Statistical
    Association 95, 1173-1184.
    Turner, S. L. et al. (2021). Evaluation of statistical methods used in the analysis of interrupted time
    series studies: a simulation study. BMC Medical Research Methodology 21, 181.
    """
    from scipy import optimize

    times, place, sizes = np.unique(period, return_inverse=True, return_counts=True)
    count = sizes.astype(np.float64)
    t, p = len(times), x.shape[1]

    def means(values: Floats) -> Floats:
        return np.bincount(place, weights=values) / count

    middle, level = np.column_stack([means(column) for column in x.T]), means(y)
    inside, rest = x - middle[place], y - level[place]
    noise, within, across = 0.0, np.zeros((p, p)), np.zeros(p)
    if len(y) > t:
        slopes = np.linalg.lstsq(inside, rest, rcond=1e-10)[0]
        free = len(y) - t - np.linalg.matrix_rank(inside)
        noise = float(((rest - inside @ slopes) ** 2).sum() / free) if free > 0 else 0.0
    if noise > 0:
        within, across = inside.T @ inside / noise, inside.T @ rest / noise
    left = level - middle @ np.linalg.lstsq(middle, level, rcond=None)[0]
    rank = int(np.linalg.matrix_rank(middle))
    spread = (float(left @ left) / (t - rank) if t > rank else float(np.var(level))) or 1.0
    fit = partial(
        _fit,
        gap=np.abs(times[:, None] - times[None, :]),
        count=count,
        noise=noise,
        x=middle,
        y=level,
        within=within,
        across=across,
    )
    # Where rows have no noise of their own the shocks' variance follows from the residuals.
    low = float(np.log(spread * (_NIL if noise > 0 else 1e-2)))
    bounds = [(low, float(np.log(spread * 1e2))), (0.0, _MOST)]
    starts = [(float(np.log(spread * size)), rho) for size in (0.03, 0.3, 1.0) for rho in (0.0, 0.3, 0.7)]
    best = min(starts, key=lambda start: fit(np.array(start))[0])

    def minus(theta: Floats) -> float:
        return fit(theta)[0]

    found = optimize.minimize(minus, np.array(best), method="L-BFGS-B", bounds=bounds)
    theta = np.asarray(found.x, dtype=np.float64)
    _, coef, covariance = fit(theta)
    loose = [j for j in (0, 1) if bounds[j][0] + 1e-3 < theta[j] < bounds[j][1] - 1e-3]
    # Without shocks nothing is known of how they follow each other.
    loose = loose if 0 in loose or theta[0] > low + 1e-3 else []

    def df(column: int) -> float:
        most = float((len(y) if noise > 0 else t) - p)
        if not loose:
            return most
        slope, curve = _derivatives(fit, theta, loose, column)
        size = float(slope @ np.linalg.pinv(curve) @ slope)
        free = 2.0 * float(covariance[column, column]) ** 2 / size if size > 0 else most
        return float(np.clip(free, 1.0, most))

    told = {
        "shock": float(np.exp(theta[0] / 2)) if theta[0] > low + 1e-3 else 0.0,
        "noise": float(np.sqrt(noise)),
    }
    return coef, covariance, df, {**told, "autocorrelation": float(theta[1]) if told["shock"] else 0.0}


def _fit(
    theta: Floats,
    *,
    gap: Floats,
    count: Floats,
    noise: float,
    x: Floats,
    y: Floats,
    within: Floats,
    across: Floats,
) -> tuple[float, Floats, Floats]:
    """Minus the restricted log-likelihood at log variance and autocorrelation; coefficients, covariance."""
    # The lag of 0 is 1 whatever the autocorrelation.
    spread = np.exp(theta[0]) * np.where(gap == 0, 1.0, np.abs(theta[1]) ** gap) + np.diag(noise / count)
    half = np.linalg.cholesky(spread)
    both = np.linalg.solve(half, np.column_stack([x, y]))
    white, target = both[:, :-1], both[:, -1]
    information = within + white.T @ white
    coef = np.linalg.solve(information, across + white.T @ target)
    # What the rows within periods leave does not depend on theta but through the coefficients.
    left = float(((target - white @ coef) ** 2).sum()) + float(coef @ within @ coef - 2.0 * across @ coef)
    value = np.log(np.diag(half)).sum() + 0.5 * np.linalg.slogdet(information)[1] + 0.5 * left
    return float(value), np.asarray(coef), np.asarray(np.linalg.inv(information))


def _derivatives(
    fit: Callable[[Floats], tuple[float, Floats, Floats]], theta: Floats, loose: list[int], column: int
) -> tuple[Floats, Floats]:
    """Slope of a coefficient's variance and curvature of the likelihood, in the parameters that are loose."""
    step = 1e-3

    def moved(*at: tuple[int, float]) -> tuple[float, float]:
        there = theta.copy()
        for j, sign in at:
            there[j] += sign * step
        value, _, covariance = fit(there)
        return value, float(covariance[column, column])

    here = moved()[0]
    sides = {(j, s): moved((j, s)) for j in loose for s in (1.0, -1.0)}
    slope = np.array([(sides[j, 1.0][1] - sides[j, -1.0][1]) / (2 * step) for j in loose])
    curve = np.empty((len(loose), len(loose)))
    for a, j in enumerate(loose):
        curve[a, a] = (sides[j, 1.0][0] - 2 * here + sides[j, -1.0][0]) / step**2
        for b in range(a):
            k = loose[b]
            cross = [moved((j, s), (k, r))[0] * s * r for s in (1.0, -1.0) for r in (1.0, -1.0)]
            curve[a, b] = curve[b, a] = sum(cross) / (4 * step**2)
    return slope, curve
