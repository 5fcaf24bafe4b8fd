"""Weights of learned odds, made fit for use: the largest are lowered, and covariates' means are met again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.stats.design import moments, weighted_gram

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    # Means and products of columns.
    Moments = Callable[[], tuple[Floats, Floats]]

# No weight is larger than this times the square root of their number, in units of their mean; nor is any
# lowered to less than twice the mean. It binds less the more rows there are (Ionides 2008).
_LARGEST, _TWICE = 0.125, 2.0
# What the square of a mean that is not met, in standard deviations, costs against the weights' distance from
# the odds; doubled until the weights are worth this share of the rows that they were.
_PENALTY, _KEPT = 0.1, 0.5
# Covariates further from their mean than so many standard deviations are taken to be there.
FAR = 5.0
STEPS = 50


def calibrated(weights: Floats, arm: Bools, about: Bools, covariates: Floats) -> Floats:
    """Give the rows of an arm weights that sum to 1, from those that their odds give, shape (n,).

    A learned chance near 0 makes a row's weight as large as it is wrong. Weights are lowered to a limit that
    grows with the number of rows; then they are moved, as little as it takes, so that the arm has the means
    that the covariates, shape (n, p), have in the rows `about` which the effect is. Means are met as far as
    a penalty allows: that rises where the arm is so far from them that few rows would carry its weight.

    References
    ----------
    Ionides (2008). Truncated importance sampling. JCGS 17; Hainmueller (2012). Political Analysis 20.

    Examples
    --------
    >>> arm, x = np.array([True, True, False, False]), np.array([[0.0], [0.0], [0.0], [1.0]])
    >>> calibrated(np.ones(4), ~arm, arm, x).round(2).tolist()
    [0.0, 0.0, 0.95, 0.05]
    """
    out = np.zeros(len(weights))
    raw = weights[arm]
    base = _lowered(raw)
    centre, spread = moments(covariates)
    used = spread > 0
    scaled = np.clip((covariates[:, used] - centre[used]) / spread[used], -FAR, FAR)
    apart = scaled[arm] - scaled[about].mean(axis=0)
    log_base = np.log(base)

    def shares(multipliers: Floats) -> tuple[float, Floats]:
        eta = log_base + apart @ multipliers
        top = eta.max()
        share = np.exp(eta - top)
        total = float(share.sum())
        return float(top + np.log(total)), share / total

    def at(multipliers: Floats) -> tuple[float, Moments]:
        value, share = shares(multipliers)
        return value, lambda: (share @ apart, weighted_gram(apart, share))

    def squares(multipliers: Floats) -> float:
        share = shares(multipliers)[1]
        return float(share @ share)

    out[arm] = shares(moved(at, squares, apart.shape[1], float(base @ base)))[1]
    return out


def limit_of(n: int) -> float:
    """Give the largest weight that `n` rows may have, in units of their mean."""
    return max(_TWICE, _LARGEST * float(np.sqrt(n)))


def _lowered(weights: Floats) -> Floats:
    """Lower the largest to the limit, in units of the mean of the weights so lowered, which sum to 1."""
    limit = limit_of(len(weights))
    cut = weights
    for _ in range(STEPS):
        at = limit * float(cut.mean())
        if cut.max() <= at * (1 + 1e-9):
            break
        cut = np.minimum(weights, at)
    return np.asarray(cut / cut.sum())


def moved(
    at: Callable[[Floats], tuple[float, Moments]], squares: Callable[[Floats], float], count: int, base: float
) -> Floats:
    """Give the multipliers of `count` columns with which weights meet means as far as they stay worth rows.

    `at` gives the logarithm of the sum of the weights so moved and, where asked, the means and the products
    of the columns, less the means to be met, under their shares; `squares` the sum of the shares' squares,
    which is `base` of those that are not moved.
    """
    penalty = _PENALTY
    while True:
        multipliers = _moved(at, count, penalty)
        if squares(multipliers) <= base / _KEPT:
            return multipliers
        penalty *= 2.0


def _moved(at: Callable[[Floats], tuple[float, Moments]], count: int, penalty: float) -> Floats:
    """Minimise the dual ``log sum base exp(apart @ m) + penalty |m|^2 / 2`` by damped Newton steps."""

    def dual(m: Floats) -> tuple[float, Moments]:
        value, there = at(m)
        return value + 0.5 * penalty * float(m @ m), there

    multipliers = np.zeros(count)
    value, there = dual(multipliers)
    for _ in range(STEPS):
        means, gram = there()
        gradient = means + penalty * multipliers
        hessian = gram - np.outer(means, means)
        hessian[np.diag_indices_from(hessian)] += penalty
        step = -np.linalg.solve(hessian, gradient)
        decrement = float(-gradient @ step)
        if decrement < 1e-14:
            break
        size = 1.0
        while True:
            found, found_there = dual(multipliers + size * step)
            if found <= value - 1e-4 * size * decrement or size < 1e-8:
                break
            size /= 2
        multipliers, value, there = multipliers + size * step, found, found_there
    return multipliers
