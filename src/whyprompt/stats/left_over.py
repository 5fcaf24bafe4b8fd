"""What a model and weights together leave of the covariates, in units of the estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from whyprompt.stats.influence import effective_sample_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# Rows that the regression is fitted to at most, evenly taken.
_ROWS = 20_000
_BLOCK = 50_000
_PENALTIES = tuple(10.0 ** (k / 2) for k in range(12))
# Columns whose products with each other are looked at: those that go most with what is left.
_PAIRED = 12
_FIFTHS = (0.2, 0.4, 0.6, 0.8)


def left_over(matrix: Floats, residual: Floats, weights: Floats, wanted: Floats) -> tuple[float, float]:
    """Give the mean residual that covariates predict where it is wanted, less where it was weighed.

    With it the standard error that chance gives such a difference between two samples of the rows' sizes.

    A ridge regression of the `residual` on the columns of `matrix`, shape (n, p), their squares, fifths and
    products, among rows of weight above 0, says what the outcome model left (without one the residual is the
    outcome); the difference of these terms between the rows `wanted` and the weighted ones says what the
    weights left. Their product is what both left.

    >>> import numpy as np
    >>> x = np.linspace(-1.0, 1.0, 200)
    >>> round(left_over(x[:, None], 2.0 * x, (x < 0.5).astype(float), np.ones(200))[0], 2)
    0.48
    """
    rows = np.flatnonzero(weights > 0)
    rows = rows[:: every(len(rows))]
    rest = Predicted.of(matrix[rows], residual[rows])
    if rest is None:
        return 0.0, 0.0
    signed = wanted / wanted.sum() - weights / weights.sum()
    sizes = [effective_sample_size(part[part > 0]) for part in (weights, wanted)]
    chance = rest.spread * np.sqrt(sum(1.0 / size for size in sizes))
    return float(rest.terms.sums(matrix, signed) @ rest.slope), float(chance)


def every(n: int) -> int:
    """Give the step at which `n` rows are taken for the regression."""
    return n // _ROWS + 1


class Predicted(NamedTuple):
    """What covariates predict of a residual: slopes of the terms, and how far it spreads over the sample."""

    terms: Terms
    slope: Floats
    spread: float

    @classmethod
    def of(cls, X: Floats, residual: Floats) -> Predicted | None:
        """Learn it from the rows of a sample; None where there is nothing to learn."""
        terms = Terms.of(X, residual) if len(X) >= 3 else None
        if terms is None:
            return None
        columns = terms.columns(X)
        spread = columns.std(axis=0)
        there = spread > 1e-9
        slope = np.zeros(len(spread))
        slope[there] = _ridge(columns[:, there] / spread[there], residual) / spread[there]
        return cls(terms, slope, float((columns @ slope).std()))


def _ridge(X: Floats, y: Floats) -> Floats:
    """Give the slopes of a ridge regression, its penalty by generalised cross-validation."""
    X, y = X - X.mean(axis=0), y - y.mean()
    sizes, turn = np.linalg.eigh(X.T @ X)
    sizes = np.maximum(sizes, 0.0)
    along = turn.T @ (X.T @ y)
    best, found = np.inf, np.zeros(len(sizes))
    for penalty in _PENALTIES:
        kept = 1.0 / (sizes + penalty)
        left = y @ y - (along**2 * kept * (2.0 - sizes * kept)).sum()
        free = len(y) - 1.0 - (sizes * kept).sum()
        if free > 0 and left / free**2 < best:
            best, found = left / free**2, turn @ (kept * along)
    return np.asarray(found)


class Terms(NamedTuple):
    """Columns of a matrix that vary, scaled, with their squares, fifths and products."""

    kept: Ints
    centre: Floats
    spread: Floats
    # Of the kept columns: those of more than two values, where each is cut, and the pairs of the products.
    squared: Ints
    cuts: list[Floats]
    first: Ints
    second: Ints

    @classmethod
    def of(cls, X: Floats, residual: Floats) -> Terms | None:
        """Choose the terms by the rows of a sample; None where no column varies."""
        centre, spread = X.mean(axis=0), X.std(axis=0)
        kept = np.flatnonzero(spread > 1e-12 * np.abs(centre))
        if not len(kept):
            return None
        centre, spread = centre[kept], spread[kept]
        scaled = (X[:, kept] - centre) / spread
        values = [np.unique(column) for column in scaled.T]
        several = [len(found) > len(_FIFTHS) + 1 for found in values]
        cuts = [
            np.unique(np.quantile(column, _FIFTHS)) if cut else np.empty(0)
            for column, cut in zip(scaled.T, several, strict=True)
        ]
        telling = np.argsort(-np.abs(scaled.T @ (residual - residual.mean())), kind="stable")
        top = np.sort(telling[:_PAIRED])
        first, second = np.triu_indices(len(top), 1)
        squared = np.flatnonzero([len(found) > 2 for found in values])
        return cls(kept, centre, spread, squared, cuts, top[first], top[second])

    def columns(self, X: Floats) -> Floats:
        """Give the terms of rows, shape (n, terms)."""
        s = (X[:, self.kept] - self.centre) / self.spread
        above = [(column[:, None] > cut).astype(float) for column, cut in zip(s.T, self.cuts, strict=True)]
        return np.column_stack([s, s[:, self.squared] ** 2, s[:, self.first] * s[:, self.second], *above])

    def sums(self, X: Floats, signed: Floats) -> Floats:
        """Sum the terms of all rows with `signed` weights, shape (terms,)."""
        out: list[Floats] = []
        for a in range(0, len(X), _BLOCK):
            w = signed[a : a + _BLOCK]
            s = (X[a : a + _BLOCK, self.kept] - self.centre) / self.spread
            used = np.union1d(self.squared, np.union1d(self.first, self.second))
            gram = np.zeros((s.shape[1], s.shape[1]))
            gram[np.ix_(used, used)] = (s[:, used] * w[:, None]).T @ s[:, used]
            above = [
                np.array([w @ (column > c) for c in cut]) for column, cut in zip(s.T, self.cuts, strict=True)
            ]
            out.append(
                np.concatenate([w @ s, np.diag(gram)[self.squared], gram[self.first, self.second], *above])
            )
        return np.asarray(np.sum(out, axis=0))
