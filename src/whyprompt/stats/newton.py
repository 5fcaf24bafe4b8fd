"""The maximum of a likelihood by damped Newton steps: one routine for every regression here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_HALVINGS = 30
_VANISHED = 1e-12
# Share of the parameters that the last step may still move. Where the maximum is at infinity (a covariate
# separates the outcomes) the likelihood stops rising, but steps go on.
_STILL = 1e-4


def maximise(
    evaluate: Callable[[Floats], tuple[float, Floats, Floats]], start: Floats, *, max_iterations: int = 50
) -> tuple[Floats, Floats, int, bool]:
    """Climb to the maximum of a concave log-likelihood, until what is left to gain is at rounding error.

    `evaluate` maps parameters, shape (k,), to the log-likelihood, its gradient and the information (minus its
    second derivative); minus infinity keeps steps out of where there is none. `start` is where it is finite.

    Returns
    -------
    theta : ndarray, shape (k,)
        The maximum, or the last point where there is none.
    information : ndarray, shape (k, k)
        One (converged) step before.
    n_iterations : int
    converged : bool
        False where the information is singular, or the maximum is at infinity.

    The logit of three successes in four trials:

    >>> import numpy as np
    >>> def binomial(theta):
    ...     p = 1 / (1 + np.exp(-theta[0]))
    ...     return 3 * np.log(p) + np.log(1 - p), np.array([3 - 4 * p]), np.array([[4 * p * (1 - p)]])
    >>> theta, _, _, converged = maximise(binomial, np.zeros(1))
    >>> round(float(np.exp(theta[0])), 9), converged
    (3.0, True)
    """
    theta = start
    value, gradient, information = evaluate(theta)
    at_start = np.diag(information)
    for iteration in range(1, max_iterations + 1):
        if not _informs(information, at_start):
            return theta, information, iteration, False
        step = np.linalg.solve(information, gradient)
        # Newton's decrement bounds the log-likelihood still to be gained; it converges quadratically.
        decrement = float(gradient @ step)
        still = np.abs(step).max() <= _STILL * max(1.0, float(np.abs(theta).max()))
        if still and decrement < 1e-14 * max(1.0, abs(value)):
            return theta + step, information, iteration, True
        size = 1.0
        for _ in range(_HALVINGS):
            candidate = theta + size * step
            new = evaluate(candidate)
            if new[0] >= value - 1e-10 * abs(value):
                break
            size /= 2.0
        else:
            return theta, information, iteration, False
        theta, (value, gradient, information) = candidate, new
    return theta, information, max_iterations, False


def _informs(information: Floats, at_start: Floats) -> bool:
    """Say whether a step is more than rounding: on the way to a maximum at infinity information vanishes."""
    size = np.diag(information)
    if not np.isfinite(information).all() or not (size > _VANISHED * at_start).all():
        return False
    scaled = information / np.sqrt(np.outer(size, size))
    return bool(np.linalg.eigvalsh(scaled)[0] > 10 * len(size) * np.finfo(float).eps)
