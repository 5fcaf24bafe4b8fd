"""Weights of learned odds, made fit for use: the largest are lowered, and covariates' means are met again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.stats.design import moments, weighted_gram

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

# No weight is larger than this times the square root of their number, in units of their mean; nor is any
# lowered to less than twice the mean. It binds less the more rows there are (Ionides 2008).
_LARGEST, _TWICE = 0.125, 2.0
# What the square of a mean that is not met, in standard deviations, costs against the weights' distance from
# the odds; doubled until the weights are worth this share of the rows that they were.
_PENALTY, _KEPT = 0.1, 0.5
# Covariates further from their mean than so many standard deviations are taken to be there.
_FAR = 5.0
_STEPS = 50


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
    scaled = np.clip((covariates[:, used] - centre[used]) / spread[used], -_FAR, _FAR)
    apart = scaled[arm] - scaled[about].mean(axis=0)
    penalty, most = _PENALTY, float(base @ base) / _KEPT
    while True:
        share = _moved(base, apart, penalty)
        if share @ share <= most:
            break
        penalty *= 2.0
    out[arm] = share
    return out


def _lowered(weights: Floats) -> Floats:
    """Lower the largest to the limit, in units of the mean of the weights so lowered, which sum to 1."""
    limit = max(_TWICE, _LARGEST * np.sqrt(len(weights)))
    cut = weights
    for _ in range(_STEPS):
        at = limit * float(cut.mean())
        if cut.max() <= at * (1 + 1e-9):
            break
        cut = np.minimum(weights, at)
    return np.asarray(cut / cut.sum())


def _moved(base: Floats, apart: Floats, penalty: float) -> Floats:
    """Minimise the dual ``log sum base exp(apart @ m) + penalty |m|^2 / 2`` by damped Newton steps."""
    multipliers = np.zeros(apart.shape[1])
    log_base = np.log(base)

    def at(m: Floats) -> tuple[float, Floats]:
        eta = log_base + apart @ m
        top = eta.max()
        share = np.exp(eta - top)
        total = float(share.sum())
        return float(top + np.log(total) + 0.5 * penalty * (m @ m)), share / total

    value, share = at(multipliers)
    for _ in range(_STEPS):
        means = share @ apart
        gradient = means + penalty * multipliers
        hessian = weighted_gram(apart, share) - np.outer(means, means)
        hessian[np.diag_indices_from(hessian)] += penalty
        step = -np.linalg.solve(hessian, gradient)
        decrement = float(-gradient @ step)
        if decrement < 1e-14:
            break
        size = 1.0
        while True:
            found, there = at(multipliers + size * step)
            if found <= value - 1e-4 * size * decrement or size < 1e-8:
                break
            size /= 2
        multipliers, value, share = multipliers + size * step, found, there
    return share
