"""Bootstraps after matching: the valid one for nearest neighbours, and the refusal of the one that is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.errors import EstimationError
from whyprompt.stats.influence import least_squares
from whyprompt.stats.threads import one_blas_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.methods.matched import MatchedSet

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

__all__ = ["influence_after_matching", "refuse_naive_bootstrap", "wild_bootstrap"]


def influence_after_matching(
    y: Floats, treated: Bools, matched: MatchedSet, *, X: Floats
) -> tuple[float, Floats]:
    """Return the estimate and the values that its wild bootstrap resamples.

    Outcome regressions are linear in `X` within each arm.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Outcome.
    treated : ndarray of bool, shape (n,)
        The arm.
    matched : MatchedSet
        With pairs.
    X : ndarray, shape (n, p)
        Covariates of the outcome regressions, the score among them.

    Returns
    -------
    estimate : float
        Bias-corrected by the regressions (Abadie and Imbens 2011), which the bootstrap is valid for.
    influence : ndarray, shape (n,)
        Values whose sums under random signs are draws of the error.

    References
    ----------
    Otsu, T. and Rai, Y. (2017). Bootstrap inference of matching estimators for average treatment effects.
    JASA 112, 1720-1732, equation 6.
    """
    with one_blas_thread(len(y)):
        return _influence(y, treated, matched, X)


def _influence(y: Floats, treated: Bools, matched: MatchedSet, X: Floats) -> tuple[float, Floats]:
    n = len(y)
    Z = np.column_stack([np.ones(n), (X - X.mean(axis=0)) / np.where(X.std(axis=0) > 0, X.std(axis=0), 1.0)])
    mu = np.empty((2, n))
    leverage = np.zeros(n)
    for k, arm in enumerate((~treated, treated)):
        mu[k], reach = least_squares(Z, y, arm)
        leverage[arm] = reach[arm]
    own = np.where(treated, mu[1], mu[0])
    is_focal = np.zeros(n, dtype=bool)
    is_focal[matched.focal] = True
    received = np.bincount(matched.other, weights=matched.share, minlength=n)
    count = int(is_focal.sum())
    sign = np.where(treated, 1.0, -1.0)
    effect = is_focal * (mu[1] - mu[0])
    noise = sign * (is_focal + received) * (y - own)
    estimate = float((effect + noise).sum()) / count
    # Residuals are smaller than errors; they are brought to the errors' variance (as HC2 does).
    noise = noise / np.sqrt(1.0 - leverage)
    return estimate, (effect - is_focal * estimate + noise) / count


def wild_bootstrap(influence: Floats, *, draws: int = 1000, random_state: int = 0) -> Floats:
    """Draw the error of a matching estimator by random signs on its influence values.

    Parameters
    ----------
    influence : ndarray, shape (n,)
        From `influence_after_matching`.
    draws : int, default 1000
        Draws.
    random_state : int, default 0
        Seed.

    Returns
    -------
    ndarray, shape (draws,)
        Draws of estimate minus truth.

    References
    ----------
    Otsu, T. and Rai, Y. (2017). JASA 112, 1720-1732, section 2.3 (Rademacher weights).

    Examples
    --------
    >>> import numpy as np
    >>> errors = wild_bootstrap(np.array([0.1, -0.2, 0.1]), draws=4000)
    >>> bool(abs(errors.std() - np.sqrt(0.06)) < 0.01)
    True
    """
    rng = np.random.default_rng(random_state)
    n = len(influence)
    out = np.empty(draws)
    # One random bit a sign, not one random byte; as many draws at a time as stay in cache.
    step = max(1, 500_000 // max(n, 1))
    with one_blas_thread(n):
        for a in range(0, draws, step):
            rows = min(step, draws - a)
            bits = np.unpackbits(np.frombuffer(rng.bytes(rows * (n + 7) // 8 + 1), dtype=np.uint8))
            signs = bits[: rows * n].reshape(rows, n).astype(np.float64)
            out[a : a + rows] = 2.0 * (signs @ influence) - influence.sum()
    return out


def refuse_naive_bootstrap(matched: MatchedSet) -> None:
    """Raise if the ordinary bootstrap is known to fail for this estimator.

    Parameters
    ----------
    matched : MatchedSet
        The match whose pipeline would be refitted.

    Raises
    ------
    EstimationError
        For nearest neighbours with replacement.

    References
    ----------
    Abadie, A. and Imbens, G. W. (2008). On the failure of the bootstrap for matching estimators.
    Econometrica 76, 1537-1557.
    """
    if matched.replace and matched.method != "kernel":
        raise EstimationError(
            "the bootstrap is not valid for nearest neighbours with replacement (Abadie and Imbens 2008):"
            " resampling rows changes how often a row is matched in a way that sampling does not",
            hint="use se='abadie_imbens', or se='wild_bootstrap' (Otsu and Rai 2017)",
        )
