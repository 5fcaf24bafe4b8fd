"""The proportional odds model by Newton's method.

``logit P(Y >= k | x) = a_k + x b`` for every level but the lowest, as in McCullagh (1980). The log-likelihood
is concave, so that Newton's method with step halving finds its maximum wherever there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from whyprompt.errors import DataError, EstimationError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

__all__ = ["ProportionalOdds", "category_scores", "fit_proportional_odds"]

_MAX_STEPS = 100
_TOLERANCE = 1e-10
# A coefficient beyond this many logits means that a level is separated by a covariate.
_RUNAWAY = 30.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ProportionalOdds:
    """A fitted proportional odds model.

    Attributes
    ----------
    levels : ndarray, shape (K,)
        Values of the outcome in order.
    intercepts : ndarray, shape (K - 1,)
        Logit of ``P(Y >= level)`` at x = 0, for all levels but the lowest; decreasing.
    coef : ndarray, shape (p,)
        Log odds ratios, the same for every level.
    covariance : ndarray, shape (K - 1 + p, K - 1 + p)
        Inverse observed information, intercepts first.
    std_error : ndarray, shape (K - 1 + p,)
    log_likelihood : float
    n_iterations : int
    """

    levels: Floats
    intercepts: Floats
    coef: Floats
    covariance: Floats
    std_error: Floats
    log_likelihood: float
    n_iterations: int

    def at_least(self, X: ArrayLike) -> Floats:
        """Return ``P(Y >= level)`` for all levels but the lowest.

        Parameters
        ----------
        X : array_like, shape (m, p)

        Returns
        -------
        ndarray, shape (m, K - 1)
        """
        eta = np.asarray(X, dtype=float) @ self.coef
        return _expit(self.intercepts[None, :] + eta[:, None])


def _expit(x: NDArray[Any]) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)), dtype=np.float64)


def fit_proportional_odds(
    y: ArrayLike, X: ArrayLike, *, weights: ArrayLike | None = None
) -> ProportionalOdds:
    """Fit the proportional odds model by maximum likelihood.

    Parameters
    ----------
    y : array_like, shape (n,)
        Ordered levels, as numbers.
    X : array_like, shape (n, p)
        Covariates without an intercept.
    weights : array_like, shape (n,), optional
        Not negative; counts, or shares of a table of cells.

    Returns
    -------
    ProportionalOdds

    Raises
    ------
    DataError
        If shapes differ or a value is not finite.
    EstimationError
        If the outcome has one level, or the likelihood has no maximum (a covariate separates a level).

    References
    ----------
    McCullagh, P. (1980). Regression models for ordinal data. JRSS B 42, 109-142.
    Pratt, J. W. (1981). Concavity of the log likelihood. JASA 76, 103-106.

    Examples
    --------
    >>> y = [0, 0, 1, 2, 0, 1, 2, 2]
    >>> fit = fit_proportional_odds(y, [[0]] * 4 + [[1]] * 4)
    >>> round(float(fit.coef[0]), 3)
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
    value, gradient, hessian = _derivatives(theta, codes, matrix, w, k)
    for step in range(1, _MAX_STEPS + 1):
        try:
            move = np.linalg.solve(hessian, -gradient)
        except np.linalg.LinAlgError as error:
            raise EstimationError(
                "the proportional odds model is not determined: covariates are collinear"
            ) from error
        size = 1.0
        for _ in range(60):
            proposal = theta + size * move
            if (np.diff(proposal[: k - 1]) < 0).all():
                found = _derivatives(proposal, codes, matrix, w, k)
                if np.isfinite(found[0]) and found[0] >= value - 1e-12 * abs(value):
                    break
            size /= 2.0
        else:
            break
        theta, (value, gradient, hessian) = proposal, found
        if np.abs(theta).max() > _RUNAWAY + np.abs(np.log(above / (1.0 - above))).max():
            raise EstimationError(
                "the proportional odds model has no finite solution: a covariate separates a level",
                hint="join levels of the outcome, or look at the differences in P(Y >= k) alone",
            )
        if size == 1.0 and float(-gradient @ np.linalg.solve(hessian, gradient)) < _TOLERANCE**2 * w.sum():
            covariance = np.linalg.inv(-hessian)
            return ProportionalOdds(
                levels=levels,
                intercepts=theta[: k - 1],
                coef=theta[k - 1 :],
                covariance=np.asarray(covariance, dtype=np.float64),
                std_error=np.sqrt(np.diag(covariance)),
                log_likelihood=value,
                n_iterations=step,
            )
    raise EstimationError(
        "the proportional odds model did not converge",
        hint="a level of the outcome may be all but separated by a covariate; join levels",
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
    """Return the derivatives of each row's log-likelihood.

    Parameters
    ----------
    theta : ndarray, shape (k - 1 + p,)
        Intercepts and coefficients.
    codes : ndarray of int, shape (n,)
        Level of each row, from 0.
    matrix : ndarray, shape (n, p)
    k : int
        Number of levels.

    Returns
    -------
    ndarray, shape (n, k - 1 + p)
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
    return float(w @ np.log(p)), gradient, hessian
