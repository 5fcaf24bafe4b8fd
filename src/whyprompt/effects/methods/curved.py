"""Columns as a penalised line takes them: scaled, beside them their squares and some of their products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# Fewer rows are told a line alone.
_FEW = 200
# Columns whose products are taken: those that tell most of what is learned.
_PAIRED = 8
# A curve's column beside a straight one: smaller, so that a common penalty draws it more towards 0.
_SIZE = 0.3
# Squares and products of scaled columns beyond this are as this: the far ends of a curve are not known.
_FAR = 9.0
# Rows that the values of a column are counted in.
_LOOKED_AT = 2_000


class Curved:
    """Scale columns by the rows `X`, shape (n, p), and add curves that tell of `y`; called on other rows.

    A curve that a few numbers say is learned from far fewer rows than trees need.

    >>> x = np.linspace(-1.0, 1.0, 300)[:, None]
    >>> Curved(x, x[:, 0] ** 2)(x[:2]).shape
    (2, 2)
    """

    def __init__(self, X: Floats, y: Floats) -> None:
        spread = X.std(axis=0)
        self.centre = X.mean(axis=0)
        self.spread = np.where(spread > 1e-12 * np.abs(self.centre), spread, np.inf)
        self.with_curves = len(X) >= _FEW
        if not self.with_curves:
            return
        scaled, left = (X - self.centre) / self.spread, y - y.mean()
        squared = [len(np.unique(column[:_LOOKED_AT])) > 2 for column in scaled.T]
        self.squared = np.flatnonzero(squared)
        told = np.abs(scaled.T @ left)
        bent = np.abs((scaled[:, self.squared] ** 2 - 1.0).T @ left) / np.sqrt(2.0)
        told[self.squared] = np.maximum(told[self.squared], bent)
        top = np.sort(np.argsort(-told, kind="stable")[:_PAIRED])
        first, second = np.triu_indices(len(top), 1)
        self.first, self.second = top[first], top[second]
        curves = self._curves(scaled)
        self.middle, size = curves.mean(axis=0), curves.std(axis=0)
        self.size = np.where(size > 1e-9, size, np.inf) / _SIZE

    def _curves(self, scaled: Floats) -> Floats:
        made = [scaled[:, self.squared] ** 2, scaled[:, self.first] * scaled[:, self.second]]
        return np.clip(np.column_stack(made), -_FAR, _FAR)

    def __call__(self, X: Floats) -> Floats:
        """Give the columns of rows, shape (m, columns)."""
        scaled = np.asarray((X - self.centre) / self.spread)
        if not self.with_curves:
            return scaled
        return np.column_stack([scaled, (self._curves(scaled) - self.middle) / self.size])
