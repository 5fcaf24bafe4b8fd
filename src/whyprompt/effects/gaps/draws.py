"""Draws for the gaps of one column given the others: the steps of chained equations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.errors import EstimationError
from whyprompt.stats.regression import fit_multinomial, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

__all__ = ["draw_categories", "draw_normal", "draw_pmm"]

# Relative ridge on the cross-products, so that collinear predictors do not stop a chain.
_RIDGE = 1e-5
_NUDGE = 1e-8


def _posterior(y: Floats, X: Floats, rng: np.random.Generator) -> tuple[Floats, Floats, float]:
    """Least squares coefficients, a draw from their posterior, and a draw of the residual deviation.

    With the prior proportional to 1 / sigma^2: Rubin (1987), section 5.3, example 5.3.
    """
    cross = X.T @ X
    inverse = np.linalg.inv(cross + np.diag(_RIDGE * np.diag(cross)))
    coef = inverse @ (X.T @ y)
    residual = y - X @ coef
    df = max(len(y) - X.shape[1], 1)
    sigma = float(np.sqrt(residual @ residual / rng.chisquare(df)))
    root = np.linalg.cholesky((inverse + inverse.T) / 2)
    return coef, coef + sigma * (root @ rng.normal(size=X.shape[1])), sigma


def draw_normal(y: Floats, X: Floats, X_gap: Floats, rng: np.random.Generator) -> Floats:
    """Draw from the Bayesian linear regression of a numeric column.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Known values.
    X : ndarray, shape (n, q)
        Predictors of those rows, with a column of ones.
    X_gap : ndarray, shape (g, q)
        Predictors of the rows with a gap.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (g,)
    """
    _, drawn, sigma = _posterior(y, X, rng)
    return np.asarray(X_gap @ drawn + sigma * rng.normal(size=len(X_gap)))


def draw_pmm(y: Floats, X: Floats, X_gap: Floats, rng: np.random.Generator, *, donors: int = 5) -> Floats:
    """Draw known values of rows whose prediction is near: predictive mean matching, type 1.

    Parameters
    ----------
    y, X, X_gap, rng
        As in `draw_normal`.
    donors : int, default 5
        Nearest known rows among which one is drawn; all rows as near as the last of them count as well, so
        that predictors of few levels do not narrow the choice to rows that happen to be sorted together.

    Returns
    -------
    ndarray, shape (g,)
        Values that occur in `y`.
    """
    coef, drawn, _ = _posterior(y, X, rng)
    known, wanted = X @ coef, X_gap @ drawn
    order = np.argsort(known, kind="stable")
    ordered = known[order]
    k = min(donors, len(y))
    # The k nearest of a sorted list lie within k places on either side.
    at = np.searchsorted(ordered, wanted)[:, None] + np.arange(-k, k)[None, :]
    inside = (at >= 0) & (at < len(ordered))
    away = np.where(inside, np.abs(ordered[np.clip(at, 0, len(ordered) - 1)] - wanted[:, None]), np.inf)
    radius = np.partition(away, k - 1, axis=1)[:, k - 1]
    radius = radius + 1e-12 * (np.abs(wanted) + radius)
    first = np.searchsorted(ordered, wanted - radius, side="left")
    last = np.searchsorted(ordered, wanted + radius, side="right")
    chosen = first + np.floor(rng.random(len(wanted)) * (last - first)).astype(np.int64)
    return np.asarray(y[order[chosen]])


def draw_categories(
    code: Ints,
    n_levels: int,
    X: Floats,
    X_gap: Floats,
    rng: np.random.Generator,
    *,
    name: str,
    shift: Floats | None = None,
) -> Ints:
    """Draw from a Bayesian (multinomial) logistic regression.

    The fit is augmented by a few weighted pseudo-rows, so that a predictor that separates the categories has
    a finite coefficient; coefficients are drawn from their normal approximation.

    Parameters
    ----------
    code : ndarray of int, shape (n,)
        Known categories, 0 to `n_levels` - 1.
    n_levels : int
        Categories.
    X, X_gap, rng
        As in `draw_normal`.
    name : str
        Column, for messages.
    shift : ndarray, shape (g,), optional
        Added to the log-odds of category 1 against category 0.

    Returns
    -------
    ndarray of int, shape (g,)

    Raises
    ------
    EstimationError
        If the fit does not converge.

    References
    ----------
    White, Daniel and Royston (2010). Avoiding bias due to perfect prediction in multiple imputation of
    incomplete categorical variables. Computational Statistics and Data Analysis 54, section 4.
    """
    rows, codes, weights = _augment(code, n_levels, X)
    found = fit_multinomial(rows, codes, n_levels, weights=weights, ridge=_NUDGE)
    if found is None:
        raise EstimationError(
            f"the logistic regression that imputes {name!r} does not converge",
            hint="leave predictors out of its model, or group rare levels",
        )
    beta, inverse = found[0], np.linalg.inv(found[1])
    root = np.linalg.cholesky((inverse + inverse.T) / 2)
    drawn = (beta.reshape(-1) + root @ rng.normal(size=beta.size)).reshape(beta.shape)
    linear = X_gap @ drawn.T
    if shift is not None:
        linear[:, 0] += shift
    share = softmax(linear)
    return np.asarray((rng.random(len(X_gap))[:, None] > np.cumsum(share, axis=1)[:, :-1]).sum(axis=1))


def _augment(code: Ints, n_levels: int, X: Floats) -> tuple[Floats, Ints, Floats]:
    """Add, for each predictor and category, two rows half a deviation from the mean; p + 1 in weight."""
    q = X.shape[1]
    mean, spread = X.mean(axis=0), X.std(axis=0)
    moves = [sign * 0.5 * spread[j] * np.eye(q)[j] for j in range(1, q) for sign in (-1, 1)] or [np.zeros(q)]
    extra = np.array([mean + move for move in moves for _ in range(n_levels)])
    labels = np.tile(np.arange(n_levels), len(moves))
    weights = np.concatenate([np.ones(len(code)), np.full(len(extra), q / len(extra))])
    return np.vstack([X, extra]), np.concatenate([code, labels]), weights
