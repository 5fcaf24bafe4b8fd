"""Entropy balancing: the weights closest to uniform that meet moment conditions exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.errors import EstimationError
from whyprompt.stats.design import moments as spreads
from whyprompt.stats.design import weighted_gram

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_MAX_STEPS = 200


def entropy_multipliers(moments: Floats, names: Sequence[str]) -> Floats:
    """Solve the dual of entropy balancing: minimise ``log sum exp(moments @ lambda)``.

    At the minimum the weights ``exp(moments @ lambda)``, normalised, give every moment the mean zero. Damped
    Newton steps on the convex dual; a solution exists exactly when zero lies inside the convex hull of the
    rows, and moments (no column constant) that no weights balance are refused by their `names` (Hainmueller
    2012, Political Analysis 20, equations 8 to 10).
    """
    scale = spreads(moments)[1]
    scaled = moments / np.where(scale > 0, scale, 1.0)
    refuse_outside(scaled.min(axis=0), scaled.max(axis=0), names)

    def dual(multipliers: Floats) -> tuple[float, Floats, Floats]:
        eta = scaled @ multipliers
        top = eta.max()
        share = np.exp(eta - top)
        total = share.sum()
        share /= total
        return float(top + np.log(total)), share @ scaled, weighted_gram(scaled, share)

    return lowest_dual(dual, names) / np.where(scale > 0, scale, 1.0)


def refuse_outside(low: Floats, high: Floats, names: Sequence[str]) -> None:
    """Refuse moments that no weights bring to zero, by their ends."""
    outside = [name for name, a, b in zip(names, low, high, strict=True) if not a <= 0 <= b]
    if outside:
        raise _unbalanced(outside)


def lowest_dual(dual: Callable[[Floats], tuple[float, Floats, Floats]], names: Sequence[str]) -> Floats:
    """Minimise ``log sum exp`` by damped Newton steps.

    `dual` maps multipliers to the value, and to the means and the second moments under the weights.
    """
    multipliers = np.zeros(len(names))
    value, gradient, second = dual(multipliers)
    for _ in range(_MAX_STEPS):
        hessian = second - np.outer(gradient, gradient)
        # A pseudo-inverse: collinear moments (a full set of dummies) leave directions that do not matter.
        step = -np.linalg.lstsq(hessian, gradient, rcond=1e-12)[0]
        decrement = float(-gradient @ step)
        if np.abs(gradient).max() < 1e-12:
            break
        size = 1.0
        while size > 1e-10:
            reached = dual(multipliers + size * step)
            if reached[0] <= value - 1e-4 * size * decrement + 1e-14 * abs(value):
                break
            size /= 2
        multipliers, (value, gradient, second) = multipliers + size * step, reached
        if np.abs(multipliers).max() > 1e6:
            break
    if np.abs(gradient).max() > 1e-8:
        raise _unbalanced([name for name, g in zip(names, gradient, strict=True) if abs(g) > 1e-8])
    return multipliers


def entropy_within_levels(z: Floats, code: Ints, share: Floats, names: Sequence[str]) -> Floats:
    """Give the weights closest to uniform with a share for each level and the means of `z` at zero.

    `code`, shape (n,), is the level of each row and `share`, which sums to one, what each is to weigh; a
    level with a share has rows. The levels' multipliers follow from those of `z`, so that Newton's steps on
    the dual have its size. The weights, shape (n,), average one; what cannot be balanced is refused by its
    `names`.
    """
    multipliers, value = np.zeros(z.shape[1]), np.inf
    step = multipliers
    decrement, size = 0.0, 1.0
    for _ in range(_MAX_STEPS):
        # Halved until the dual falls as it should; it is finite everywhere.
        while True:
            eta = z @ (multipliers + size * step)
            top = np.full(len(share), -np.inf)
            np.maximum.at(top, code, eta)
            weights = np.exp(eta - top[code])
            total = np.bincount(code, weights=weights, minlength=len(share))
            held = share > 0
            reached = float(share[held] @ (np.log(total[held]) + top[held]))
            if reached <= value - 1e-4 * size * decrement + 1e-14 * abs(value) or size < 1e-10:
                break
            size /= 2
        multipliers, value, size = multipliers + size * step, reached, 1.0
        weights *= (share / np.where(total > 0, total, 1.0))[code]
        weighted = z * weights[:, None]
        gradient = weighted.sum(axis=0)
        if np.abs(gradient).max(initial=0.0) < 1e-12 or np.abs(multipliers).max() > 1e6:
            break
        within = np.empty((len(share), z.shape[1]))
        for j, column in enumerate(weighted.T):
            within[:, j] = np.bincount(code, weights=column, minlength=len(share))
        hessian = weighted.T @ z - within.T @ (within / np.where(held, share, np.inf)[:, None])
        step = -np.linalg.lstsq(hessian, gradient, rcond=1e-12)[0]
        decrement = float(-gradient @ step)
    if np.abs(gradient).max(initial=0.0) > 1e-8:
        raise _unbalanced([name for name, g in zip(names, gradient, strict=True) if abs(g) > 1e-8])
    return np.asarray(weights * len(code))


def _unbalanced(names: Sequence[str]) -> EstimationError:
    return EstimationError(
        f"entropy balancing has no solution: no weights balance {', '.join(map(repr, names))}",
        hint="the arms do not overlap there; drop the covariate, trim, or use overlap weights",
    )
