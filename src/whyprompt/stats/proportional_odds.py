"""The proportional odds model.

``logit P(Y >= k | x) = a_k + x b`` for every level but the lowest, as in McCullagh (1980). The log-likelihood
is concave, so that its maximum is found wherever there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.newton import maximise
from whyprompt.stats.regression import Regression

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_MAX_STEPS = 100
# A coefficient beyond this many logits means that a level is separated by a covariate.
_RUNAWAY = 30.0


def _expit(x: NDArray[Any]) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)), dtype=np.float64)


def at_least(fit: Regression, X: ArrayLike) -> Floats:
    """Return ``P(Y >= level)`` for all levels but the lowest, shape (m, K - 1), at covariates (m, p)."""
    matrix = np.asarray(X, dtype=float)
    k = len(fit.coef) - matrix.shape[1]
    return _expit(fit.coef[None, :k] + (matrix @ fit.coef[k:])[:, None])


def fit_proportional_odds(y: ArrayLike, X: ArrayLike, *, weights: ArrayLike | None = None) -> Regression:
    """Fit the proportional odds model by maximum likelihood.

    `y` are ordered levels, as numbers; `X` is without an intercept; `weights` are not negative: counts, or
    shares of a table of cells. Coefficients: first the intercepts, the logit of ``P(Y >= level)`` at x = 0
    for all levels but the lowest, which decrease; then the log odds ratios, the same for every level. The
    covariance is that of the observed information. Values that are not finite are refused, an outcome with
    one level, and a likelihood that has no maximum (a covariate separates a level).

    McCullagh, P. (1980). Regression models for ordinal data. JRSS B 42, 109-142.
    Pratt, J. W. (1981). Concavity of the log likelihood. JASA 76, 103-106.

    >>> y = [0, 0, 1, 2, 0, 1, 2, 2]
    >>> fit = fit_proportional_odds(y, [[0]] * 4 + [[1]] * 4)
    >>> round(float(fit.coef[-1]), 3)
    1.099
    """
    values, matrix = np.asarray(y, dtype=float), np.asarray(X, dtype=float)
    if values.ndim != 1 or matrix.ndim != 2 or len(values) != len(matrix):
        raise DataError(f"y has shape {values.shape} and X {matrix.shape}; expected (n,) and (n, p)")
    if not (np.isfinite(values).all() and np.isfinite(matrix).all()):
        raise DataError("y or X has missing or infinite values")
    w = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=float)
    if w.shape != values.shape or not (np.isfinite(w).all() and (w >= 0).all()):
        raise DataError("weights must be one number a row, finite and not negative")
    levels, codes = np.unique(values[w > 0], return_inverse=True)
    if len(levels) < 2:
        raise EstimationError("the outcome has one level: there is nothing to model")
    matrix, w = matrix[w > 0], w[w > 0]
    k, p = len(levels), matrix.shape[1]
    share = np.bincount(codes, weights=w, minlength=k) / w.sum()
    above = np.clip(share[::-1].cumsum()[::-1][1:], 1e-9, 1 - 1e-9)
    theta = np.concatenate([np.log(above / (1.0 - above)), np.zeros(p)])
    if np.linalg.matrix_rank(np.column_stack([np.ones(len(matrix)), matrix])) < p + 1:
        raise EstimationError("the proportional odds model is not determined: covariates are collinear")
    runaway = _RUNAWAY + np.abs(theta).max()

    def evaluate(at: Floats) -> tuple[float, Floats, Floats]:
        if (np.diff(at[: k - 1]) >= 0).any():
            return -np.inf, np.zeros(len(at)), np.eye(len(at))
        return _derivatives(at, codes, matrix, w, k)

    theta, _, steps, converged = maximise(evaluate, theta, max_iterations=_MAX_STEPS)
    if np.abs(theta).max() > runaway:
        raise EstimationError(
            "the proportional odds model has no finite solution: a covariate separates a level",
            hint="join levels of the outcome, or look at the differences in P(Y >= k) alone",
        )
    if not converged:
        raise EstimationError(
            "the proportional odds model did not converge",
            hint="a level of the outcome may be all but separated by a covariate; join levels",
        )
    value, _, information = evaluate(theta)
    return Regression(
        family="ordered",
        names=(*(f">= {level:g}" for level in levels[1:]), *(f"x{j}" for j in range(p))),
        coef=theta,
        covariance=np.asarray(np.linalg.inv(information), dtype=np.float64),
        linear=matrix @ theta[k - 1 :],
        log_likelihood=value,
        n_iterations=steps,
    )


def _parts(theta: Floats, codes: Ints, matrix: Floats, k: int) -> tuple[Floats, ...]:
    """Probability of the row's level, and densities and distributions at its two cuts."""
    eta = matrix @ theta[k - 1 :]
    upper = np.concatenate([[np.inf], theta[: k - 1]])[codes] + eta
    lower = np.concatenate([theta[: k - 1], [-np.inf]])[codes] + eta
    F, G = _expit(upper), _expit(lower)
    # In the upper tail the difference of two numbers close to 1 is that of their complements.
    p = np.where(lower > 0, _expit(-lower) - _expit(-upper), F - G)
    return p, F * _expit(-upper), G * _expit(-lower), F, G


def _cuts(codes: Ints, k: int) -> tuple[Floats, Floats]:
    rows = np.arange(len(codes))
    up, low = np.zeros((len(codes), k + 1)), np.zeros((len(codes), k + 1))
    up[rows, codes] = 1.0
    low[rows, codes + 1] = 1.0
    return up[:, 1:k], low[:, 1:k]


def category_scores(theta: Floats, codes: Ints, matrix: Floats, k: int) -> Floats:
    """Return the derivatives of each row's log-likelihood, shape (n, k - 1 + p).

    `theta` are intercepts and coefficients, `codes` the level of each row, from 0, of `k`.
    """
    p, f, g, _, _ = _parts(theta, codes, matrix, k)
    up, low = _cuts(codes, k)
    a, b = f / p, g / p
    return np.column_stack([up * a[:, None] - low * b[:, None], matrix * (a - b)[:, None]])


def _derivatives(
    theta: Floats, codes: Ints, matrix: Floats, w: Floats, k: int
) -> tuple[float, Floats, Floats]:
    p, f, g, F, G = _parts(theta, codes, matrix, k)
    if (p <= 0).any():
        nothing = np.zeros(len(theta))
        return -np.inf, nothing, np.eye(len(theta))
    up, low = (np.hstack([cut, matrix]) for cut in _cuts(codes, k))
    a, b = f / p, g / p
    gradient = up.T @ (w * a) - low.T @ (w * b)
    top = f * (1.0 - 2.0 * F) / p - a**2
    bottom = -g * (1.0 - 2.0 * G) / p - b**2
    cross = (up * (w * a * b)[:, None]).T @ low
    hessian = (up * (w * top)[:, None]).T @ up + (low * (w * bottom)[:, None]).T @ low + cross + cross.T
    return float(w @ np.log(p)), gradient, -hessian
