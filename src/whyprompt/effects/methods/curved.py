"""Columns as a penalised line takes them: scaled, beside them their squares and some of their products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.intp]
    Bools = NDArray[np.bool_]

# Fewer rows are told a line alone.
FEW = 200
# Columns whose products are taken: those that tell most of what is learned; and of all other products no more
# than so many, each of which stands this far, in standard errors, above the largest that noise would show.
# What goes by a product alone tells nothing column by column.
_PAIRED, _MORE, _ABOVE = 8, 28, 2.0
# Columns and rows, about, in which such products are looked for, and the penalty, by row, of what columns say
# by themselves.
_LOOKED, _SEEN, _SPARED = 256, 20_000, 0.01
# A curve's column beside a straight one: smaller, so that a common penalty draws it more towards 0.
_SIZE = 0.3
# Squares and products of scaled columns beyond this are as this: the far ends of a curve are not known.
_FAR = 9.0
# Rows that the values of a column are counted in.
_LOOKED_AT = 2_000
# Beyond this skewness a column is also taken by its place among the rows, in so many steps: counts of tokens
# have long tails, and what goes by their logarithm is no line in them.
_SKEWED, _STEPS = 1.0, 64


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
        self.with_curves = len(X) >= FEW
        if not self.with_curves:
            return
        scaled, left = (X - self.centre) / self.spread, y - y.mean()
        squared = [len(np.unique(column[:_LOOKED_AT])) > 2 for column in scaled.T]
        self.squared = np.flatnonzero(squared)
        skewed = np.abs((scaled**3).mean(axis=0)) > _SKEWED
        self.steps = {j: _steps(scaled[:, j]) for j in np.flatnonzero(squared & skewed)}
        scaled = self._tamed(scaled)
        told = np.abs(scaled.T @ left)
        bent = np.abs((scaled[:, self.squared] ** 2 - 1.0).T @ left) / np.sqrt(2.0)
        told[self.squared] = np.maximum(told[self.squared], bent)
        top = np.sort(np.argsort(-told, kind="stable")[:_PAIRED])
        first, second = np.triu_indices(len(top), 1)
        self.first, self.second = top[first], top[second]
        looked = np.sort(np.argsort(-told, kind="stable")[:_LOOKED])
        some = slice(None, None, len(X) // _SEEN + 1)
        more = _standing_out(scaled[some, looked], left[some], np.isin(looked, top))
        more = looked[more[0]], looked[more[1]]
        self.first, self.second = np.append(self.first, more[0]), np.append(self.second, more[1])
        curves = self._curves(scaled)
        self.middle, size = curves.mean(axis=0), curves.std(axis=0)
        self.size = np.where(size > 1e-9, size, np.inf) / _SIZE

    def _tamed(self, scaled: Floats) -> Floats:
        """Put normal scores in the place of skewed columns."""
        out = scaled.copy() if self.steps else scaled
        for j, (at, score) in self.steps.items():
            out[:, j] = np.interp(scaled[:, j], at, score)
        return out

    def _curves(self, scaled: Floats) -> Floats:
        made = [scaled[:, self.squared] ** 2, scaled[:, self.first] * scaled[:, self.second]]
        return np.clip(np.column_stack(made), -_FAR, _FAR)

    def __call__(self, X: Floats) -> Floats:
        """Give the columns of rows, shape (m, columns)."""
        scaled = np.asarray((X - self.centre) / self.spread)
        if not self.with_curves:
            return scaled
        tamed = self._tamed(scaled)
        curves = (self._curves(tamed) - self.middle) / self.size
        return np.column_stack([scaled, tamed[:, list(self.steps)], curves])


def _standing_out(scaled: Floats, left: Floats, taken: Bools) -> tuple[Ints, Ints]:
    """Find the products, but those of columns that are `taken`, that noise would hardly show in `left`.

    What columns and their squares say of it is taken out before: a product may only stand for these.
    """
    first, second = np.triu_indices(scaled.shape[1], 1)
    if not len(first):
        return first, second
    square = scaled**2
    alone = np.column_stack([scaled, square - square.mean(axis=0)])
    gram = alone.T @ alone
    gram[np.diag_indices_from(gram)] += _SPARED * len(left)
    left = left - alone @ np.linalg.solve(gram, alone.T @ left)
    told = np.abs(((scaled * left[:, None]).T @ scaled)[first, second])
    told /= np.sqrt(np.maximum((square.T @ square)[first, second], 1.0) * max(float(left @ left), 1e-300))
    told[taken[first] & taken[second]] = 0.0
    order = np.argsort(-told, kind="stable")[:_MORE]
    limit = (np.sqrt(2.0 * np.log(len(first))) + _ABOVE) / np.sqrt(len(left))
    order = order[told[order] > limit]
    return first[order], second[order]


def _steps(values: Floats) -> tuple[Floats, Floats]:
    """Give places along a column, and the normal score of each."""
    share = (np.arange(_STEPS) + 0.5) / _STEPS
    at, first = np.unique(np.quantile(values, share), return_index=True)
    # Equal values have the middle of their scores.
    last = np.append(first[1:], _STEPS) - 1
    return at, ndtri((share[first] + share[last]) / 2.0)
