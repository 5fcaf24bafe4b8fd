"""Regressions on a text column of very many levels, without a dummy for each.

The levels' part of every normal equation is diagonal, so that it is solved level by level, and what is left
has the size of the other covariates (Frisch and Waugh 1933, Econometrica 1, 387-401).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.stats.design import design_matrix, independent_columns, moments
from whyprompt.stats.order import distinct
from whyprompt.stats.regression import row_terms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# Levels from which a text column is absorbed; fewer dummies cost little.
MANY_LEVELS = 50
_HALVINGS, _ITERATIONS = 30, 100
# Sweeps over several text columns, and folds of the rows whose levels' means are learned from.
_TURNS, _FOLDS = 500, 5
_STILL = 1e-4
# A linear predictor as large is on its way to infinity: covariates separate the arms within levels.
_FAR = 35.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Absorbed:
    """Covariates of which one text column is kept as its levels' numbers.

    `code`, shape (n,), is the level of each row among `levels`; `rest`, shape (n, q), the other covariates,
    centred within levels and scaled, without those that levels or others determine, which are `dropped`;
    `names` are of its columns.
    """

    column: str
    levels: tuple[str, ...]
    code: Ints
    rest: Floats
    names: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    def sums(self, values: Floats) -> Floats:
        """Sum the columns of values, shape (n, m), within levels."""
        out = np.empty((len(self.levels), values.shape[1]))
        for j, column in enumerate(values.T):
            out[:, j] = np.bincount(self.code, weights=column, minlength=len(out))
        return out

    def projector(self, weights: Floats) -> Callable[[Floats], Floats]:
        """Map values, (n, m), to ``X (X' W X)^-1 X' values``, X being all covariates, an indicator a level.

        That is a step of Newton's in the linear predictor, and what a change of the equations moves it by. A
        level without weight gets 0.
        """
        rest = self.rest
        size = np.bincount(self.code, weights=weights, minlength=len(self.levels))[:, None]
        size = np.where(size > 0, size, np.inf)
        weighted = rest * weights[:, None]
        across = self.sums(weighted)
        inverse = np.linalg.pinv(weighted.T @ rest - across.T @ (across / size), rcond=1e-12, hermitian=True)

        def project(values: Floats) -> Floats:
            own = self.sums(values)
            beta = inverse @ (rest.T @ values - across.T @ (own / size))
            return np.asarray(rest @ beta + ((own - across @ beta) / size)[self.code], dtype=np.float64)

        return project


def absorbed(columns: Mapping[str, NDArray[Any]], levels: Mapping[str, tuple[str, ...]]) -> Absorbed | None:
    """Absorb the text column with the most of the `levels`; None where none has many."""
    widest = max(levels, key=lambda name: len(levels[name]), default="")
    if not widest or len(levels[widest]) <= MANY_LEVELS:
        return None
    design = design_matrix({name: values for name, values in columns.items() if name != widest})
    found, code = distinct(columns[widest])
    made = Absorbed(column=widest, levels=tuple(found), code=code, rest=np.empty((len(code), 0)))
    if not design.names:
        return made
    size = np.bincount(code)[:, None]
    matrix = design.matrix
    rest = matrix - (made.sums(matrix) / size)[code]
    centre, scale = moments(rest)
    # What levels determine is left with rounding.
    scale = np.where(scale > 1e-10 * np.abs(matrix).max(axis=0), scale, 0.0)
    kept = independent_columns(rest, centre, scale)
    dropped = tuple(name for j, name in enumerate(design.names) if j not in kept)
    names = tuple(design.names[j] for j in kept)
    return replace(made, rest=rest[:, kept] / scale[kept], names=names, dropped=dropped)


def absorbed_logit(x: Absorbed, y: Floats) -> Floats | None:
    """Fit a logistic regression by maximum likelihood; None where there is no maximum.

    Every level has rows with ``y = 1`` and rows without. Returns the linear predictor, shape (n,): damped
    steps of Newton's, as in `whyprompt.stats.newton`, until what is left to gain is at rounding error.
    """
    share = y.mean()
    eta = np.full(len(y), np.log(share / (1.0 - share)))
    value, slope, curve = row_terms("logit", eta, y)
    total = float(value.sum())
    for _ in range(_ITERATIONS):
        step = x.projector(curve)(slope[:, None])[:, 0]
        decrement = float(slope @ step)
        still = np.abs(step).max() <= _STILL * max(1.0, float(np.abs(eta).max()))
        if still and decrement < 1e-14 * max(1.0, abs(total)):
            return np.asarray(eta + step)
        size = 1.0
        for _ in range(_HALVINGS):
            tried = eta + size * step
            value, slope, curve = row_terms("logit", tried, y)
            if float(value.sum()) >= total - 1e-10 * abs(total):
                break
            size /= 2.0
        else:
            return None
        eta, total = tried, float(value.sum())
        if float(np.abs(eta).max()) > _FAR:
            return None
    return None


def level_effects(codes: Ints, rest: Floats, y: Floats, rows: NDArray[np.bool_]) -> Floats:
    """Give what the levels of text columns add to an outcome, by least squares on some rows, shape (n,).

    `codes`, shape (n, k), are the levels' numbers, `rest`, shape (n, q), further regressors, the arm among
    them. Effects are not drawn towards each other: with a score that is, an estimate that leaves out part of
    what levels do to the outcome keeps as much of their confounding, however many levels there are. They
    average zero over the rows fitted, which a level without such a row has. Several columns are swept out in
    turns (Guimaraes and Portugal 2010, The Stata Journal 10, 628-649).
    """
    found, here = codes[rows], rest[rows]
    left = _swept(found, np.column_stack([here, y[rows]]))[0]
    beta = np.linalg.lstsq(left[:, :-1], left[:, -1], rcond=1e-10)[0]
    effects = _swept(found, (y[rows] - here @ beta)[:, None])[1]
    out = np.zeros(len(y))
    for column, effect in zip(codes.T, effects, strict=True):
        known = np.zeros(int(column.max()) + 1)
        known[: len(effect)] = effect[:, 0]
        out += known[column]
    return out


def drawn_means(code: Ints, y: Floats, new: Ints) -> tuple[Floats, Floats]:
    """Give the means of levels, drawn towards that of all rows as far as their own spread says nothing.

    Of a row that is learned from, shape (n,), it is the mean of the other folds' rows of its level, so that a
    level of few rows does not tell what is to be learned; of the rows `new`, shape (m,), that of all. How far
    is settled by the variances within and between levels (Searle, Casella and McCulloch 1992, Variance
    Components, section 3.6); `code` is in an order of its own, so that folds do not depend on the table's.
    """
    n, k = len(y), int(max(code.max(), new.max(initial=0))) + 1
    fold = np.random.default_rng(0).permutation(n) % _FOLDS
    cell = code * _FOLDS + fold
    sums = np.bincount(cell, weights=y - y.mean(), minlength=k * _FOLDS).reshape(k, _FOLDS)
    size = np.bincount(cell, minlength=k * _FOLDS).reshape(k, _FOLDS).astype(float)
    whole, rows = sums.sum(axis=1), size.sum(axis=1)
    groups = int((rows > 0).sum())
    between = float((whole**2 / np.maximum(rows, 1.0)).sum())
    within = max(float(((y - y.mean()) ** 2).sum()) - between, 0.0) / max(n - groups, 1)
    typical = (n - float((rows**2).sum()) / n) / max(groups - 1, 1)
    spread = (between / max(groups - 1, 1) - within) / max(typical, 1.0)
    prior = within / spread if spread > 0 else np.inf
    if not np.isfinite(prior):
        return np.full(n, y.mean()), np.full(len(new), y.mean())
    others = (whole[:, None] - sums) / np.maximum(rows[:, None] - size + prior, 1e-300)
    return y.mean() + others[code, fold], y.mean() + (whole / np.maximum(rows + prior, 1e-300))[new]


def _swept(codes: Ints, values: Floats) -> tuple[Floats, list[Floats]]:
    """Take the means of levels out of values, shape (n, m), and give them, summed over the turns."""
    left = values - values.mean(axis=0)
    size = [np.maximum(np.bincount(code), 1)[:, None] for code in codes.T]
    effects = [np.zeros((len(count), values.shape[1])) for count in size]
    scale = np.maximum(np.abs(left).max(axis=0), 1e-300)
    for _ in range(_TURNS):
        moved = 0.0
        for code, count, effect in zip(codes.T, size, effects, strict=True):
            means = np.column_stack([np.bincount(code, weights=v) for v in left.T]) / count
            left -= means[code]
            effect[:] += means
            moved = max(moved, float((np.abs(means).max(axis=0) / scale).max()))
        if len(effects) == 1 or moved < 1e-10:
            break
    return left, effects
