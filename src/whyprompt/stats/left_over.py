"""What a model and weights together leave of the covariates, in units of the estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# Rows that the regression is fitted to at most, evenly taken.
_ROWS = 20_000
_BLOCK = 50_000
_PENALTIES = tuple(10.0 ** (k / 2) for k in range(12))


def left_over(matrix: Floats, residual: Floats, weights: Floats, wanted: Floats) -> float:
    """Give the mean residual that covariates predict where it is wanted, less where it was weighed.

    A ridge regression of the `residual` on the columns of `matrix`, shape (n, p), and their squares, among
    rows of weight above 0, says what the outcome model left; the difference of these columns between the rows
    `wanted` and the weighted ones says what the weights left. Their product is what both left.

    >>> import numpy as np
    >>> x = np.linspace(-1.0, 1.0, 200)
    >>> round(left_over(x[:, None], 2.0 * x, (x < 0.5).astype(float), np.ones(200)), 2)
    0.5
    """
    from sklearn.linear_model import RidgeCV

    rows = np.flatnonzero(weights > 0)
    rows = rows[:: len(rows) // _ROWS + 1]
    centre, spread = matrix[rows].mean(axis=0), matrix[rows].std(axis=0)
    kept = np.flatnonzero(spread > 1e-12 * np.abs(centre))
    if not len(kept) or len(rows) < 3:
        return 0.0

    def terms(block: Floats) -> Floats:
        scaled = (block[:, kept] - centre[kept]) / spread[kept]
        return np.column_stack([scaled, scaled**2])

    slope = RidgeCV(alphas=_PENALTIES).fit(terms(matrix[rows]), residual[rows]).coef_
    signed = wanted / wanted.sum() - weights / weights.sum()
    total = 0.0
    for a in range(0, len(residual), _BLOCK):
        total += float(signed[a : a + _BLOCK] @ (terms(matrix[a : a + _BLOCK]) @ slope))
    return total
