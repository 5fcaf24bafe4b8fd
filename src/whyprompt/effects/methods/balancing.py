"""Entropy balancing: the weights closest to uniform that meet moment conditions exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_MAX_STEPS = 200


def entropy_multipliers(moments: Floats, names: Sequence[str]) -> Floats:
    """Solve the dual of entropy balancing: minimise ``log sum exp(moments @ lambda)``.

    At the minimum the weights ``exp(moments @ lambda)``, normalised, give every moment the mean zero. Damped
    Newton steps on the convex dual; a solution exists exactly when zero lies inside the convex hull of the
    rows, and moments (no column constant) that no weights balance are refused by their `names` (Hainmueller
    2012, Political Analysis 20, equations 8 to 10).
    """
    scale = moments.std(axis=0)
    scaled = moments / np.where(scale > 0, scale, 1.0)
    spans = [(low <= 0 <= high) for low, high in zip(scaled.min(axis=0), scaled.max(axis=0), strict=True)]
    outside = [name for name, spanned in zip(names, spans, strict=True) if not spanned]
    if outside:
        raise _unbalanced(outside)
    multipliers = np.zeros(scaled.shape[1])
    value = np.log(len(scaled))
    gradient = scaled.mean(axis=0)
    for _ in range(_MAX_STEPS):
        eta = scaled @ multipliers
        share = np.exp(eta - eta.max())
        share /= share.sum()
        gradient = share @ scaled
        hessian = (scaled * share[:, None]).T @ scaled - np.outer(gradient, gradient)
        # A pseudo-inverse: collinear moments (a full set of dummies) leave directions that do not matter.
        step = -np.linalg.lstsq(hessian, gradient, rcond=1e-12)[0]
        decrement = float(-gradient @ step)
        if np.abs(gradient).max() < 1e-12:
            break
        size = 1.0
        while size > 1e-10:
            trial = scaled @ (multipliers + size * step)
            top = trial.max()
            reached = float(top + np.log(np.exp(trial - top).sum()))
            if reached <= value - 1e-4 * size * decrement + 1e-14 * abs(value):
                break
            size /= 2
        multipliers, value = multipliers + size * step, reached
        if np.abs(multipliers).max() > 1e6:
            break
    if np.abs(gradient).max() > 1e-8:
        raise _unbalanced([name for name, g in zip(names, gradient, strict=True) if abs(g) > 1e-8])
    return multipliers / np.where(scale > 0, scale, 1.0)


def _unbalanced(names: Sequence[str]) -> EstimationError:
    return EstimationError(
        f"entropy balancing has no solution: no weights balance {', '.join(map(repr, names))}",
        hint="the arms do not overlap there; drop the covariate, trim, or use overlap weights",
    )
