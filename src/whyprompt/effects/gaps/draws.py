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

    Known values (n,) and their predictors (n, q), with a column of ones; predictors of the gaps (g, q), of
    which a value each (g,) comes back.
    """
    _, drawn, sigma = _posterior(y, X, rng)
    return np.asarray(X_gap @ drawn + sigma * rng.normal(size=len(X_gap)))


def draw_pmm(y: Floats, X: Floats, X_gap: Floats, rng: np.random.Generator, *, donors: int = 5) -> Floats:
    """Draw known values of rows whose prediction is near: predictive mean matching, type 1.

    One is drawn among the nearest known rows, as many as `donors`; all rows as near as the last of them count
    as well, so that predictors of few levels do not narrow the choice to rows that happen to be sorted
    together. Arguments as of `draw_normal`.
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
    """Draw from a Bayesian (multinomial) logistic regression of categories 0, 1, ...

    The fit is augmented by a few weighted pseudo-rows, so that a predictor that separates the categories has
    a finite coefficient (White, Daniel and Royston 2010, Avoiding bias due to perfect prediction in multiple
    imputation of incomplete categorical variables, Computational Statistics and Data Analysis 54, section 4);
    coefficients are drawn from their normal approximation. The shift (g,) is added to the log-odds of
    category 1 against category 0; the column's name is for the message where the fit does not converge.
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
