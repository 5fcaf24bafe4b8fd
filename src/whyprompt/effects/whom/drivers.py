"""The best linear approximation of the effect by its modifiers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.results import Estimate
from whyprompt.stats import errors as inference
from whyprompt.stats.design import independent_columns, moments
from whyprompt.stats.rules import holm
from whyprompt.stats.several import two_sided_p

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.stats.design import Design

    Floats = NDArray[np.float64]

__all__ = ["effect_drivers"]

_ROUNDING = 1e-13


def effect_drivers(
    effect: Floats, shown: Design, *, cluster: NDArray[Any] | None, level: float, size: float
) -> tuple[tuple[Estimate, ...], float | None]:
    """Regress the rows' scores on the modifiers, with HC3 errors, or clustered ones.

    Parameters
    ----------
    effect : ndarray, shape (n,)
        Scores of the effect.
    shown : Design
        Modifiers.
    cluster : ndarray, shape (n,), optional
    level, size : float

    Returns
    -------
    drivers : tuple of Estimate
    differs_p : float or None
        F test that all slopes are nil; None where there are too few rows or clusters for it.

    References
    ----------
    Semenova, V. and Chernozhukov, V. (2021). The Econometrics Journal 24, 264-289.
    MacKinnon, J. G. and White, H. (1985). Journal of Econometrics 29, 305-325 (HC3).
    """
    from scipy import stats

    X = shown.matrix
    centre, scale = moments(X)
    kept = independent_columns(X, centre, scale)
    empty = [Estimate(label=name, estimate=None) for name in shown.names]
    n, k = len(effect), len(kept)
    if not kept or n <= k + 1:
        return tuple(empty), None
    Z = np.column_stack([np.ones(n), (X[:, kept] - centre[kept]) / scale[kept]])
    inverse = np.linalg.inv(Z.T @ Z)
    coef = inverse @ (Z.T @ effect)
    residual = effect - Z @ coef
    if cluster is None:
        spare = 1.0 - np.einsum("ij,jk,ik->i", Z, inverse, Z)
        part = Z * np.divide(residual, spare, out=np.zeros(n), where=spare > 1e-10)[:, None]
        units, df = float(n), n - k - 1.0
        meat = part.T @ part
    else:
        _, code = np.unique(cluster.astype(str), return_inverse=True)
        part = np.column_stack([np.bincount(code, weights=c) for c in (Z * residual[:, None]).T])
        units, df = float(len(part)), len(part) - 1.0
        if df < 1:
            return tuple(
                replace(empty[j], estimate=float(coef[a + 1] / scale[j])) for a, j in enumerate(kept)
            ), None
        meat = part.T @ part * units / df * (n - 1.0) / (n - k - 1.0)
    covariance = inverse @ meat @ inverse
    rows = list(empty)
    for a, j in enumerate(kept):
        slope = float(coef[a + 1] / scale[j])
        error = float(np.sqrt(covariance[a + 1, a + 1]))
        known = error / 1.0 > _ROUNDING * size
        spread = error / float(scale[j]) if known else None
        low, high = inference.interval(slope, spread, level=level, df=df)
        rows[j] = Estimate(
            label=shown.names[j],
            estimate=slope,
            std_error=spread,
            ci_low=low,
            ci_high=high,
            p_value=two_sided_p(slope, spread, df),
            df=df if known else None,
        )
    adjusted = holm([row.p_value for row in rows])
    drivers = tuple(replace(row, p_adjusted=p) for row, p in zip(rows, adjusted, strict=True))
    # Hotelling's distribution for clusters, whose covariance has as many degrees of freedom as there are.
    free = df if cluster is None else units - k
    if free < 1 or any(rows[j].std_error is None for j in kept):
        return drivers, None
    wald = float(coef[1:] @ np.linalg.solve(covariance[1:, 1:], coef[1:])) / k
    if cluster is not None:
        wald *= free / df
    return drivers, float(stats.f.sf(wald, k, free))
