"""Regression adjustment in the matched sample.

Matched rows still differ a little in their covariates. A regression of the outcome on them, in each arm of
the matched and weighted sample, takes out what that difference does to the outcome, and the mean of an arm
is what its regression says of the rows that the effect is about (Rubin 1973; Stuart 2010; g-computation in
the words of MatchIt). Where rows are matched with replacement this is the bias-corrected estimator of Abadie
and Imbens (2011), to the digit.

The adjusted mean is again a weighted mean of the outcomes, with implied weights that balance the covariates
exactly (Chattopadhyay and Zubizarreta 2023). Its error so comes from the residuals: what moved with the
covariates, the estimated score among it, is not in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from whyprompt.stats.design import weighted_gram
from whyprompt.stats.threads import one_blas_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.methods.matched import MatchedSet

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

# Matched rows for each coefficient, below which a regression is not asked of an arm.
ROWS_EACH = 2
# A residual of which so little is left says nothing of its error.
LEAST_SPARED = 0.02


class Regressed(NamedTuple):
    """The regressions of both arms, control first, in a matched sample of n rows.

    `means` are those of the treated and the control arm over the rows that the effect is about, `predicted`,
    shape (2, n), what each regression says of every row. The weights `implied`, shape (n,), with which the
    mean of each arm is that of its outcomes, sum to 1 over an arm and may be negative. `spared`, shape (n,),
    is what is left of an error's variance in the residual of its row, were all of one variance: one minus the
    leverage where weights are equal, less for a row of great weight. `target`, shape (n,), are the rows that
    the effect is about, and `rank` is the number of coefficients of an arm.
    """

    means: tuple[float, float]
    predicted: Floats
    implied: Floats
    spared: Floats
    target: Bools
    rank: int

    def errors(self, y: Floats, treated: Bools) -> Floats:
        """Return residuals brought to their errors' variance, shape (n,): HC2's where weights are equal.

        A row that its regression goes through has the arm's mean error: its own does not show.
        """
        own = np.where(treated, self.predicted[1], self.predicted[0])
        out: Floats = (y - own) / np.sqrt(self.spared)
        for arm in (treated, ~treated):
            through = arm & (self.spared <= LEAST_SPARED)
            seen = out[arm & ~through & (self.implied != 0)]
            if through.any() and len(seen):
                out[through] = np.sqrt((seen**2).mean())
        return out

    def influence(self, y: Floats, treated: Bools) -> Floats:
        """Return the influence of the two means, divided by n, shape (n, 2).

        The rows that the effect is about are a sample as well: what the regressions say of them varies.
        """
        noise = self.implied * self.errors(y, treated)
        out = np.column_stack([np.where(treated, noise, 0.0), np.where(treated, 0.0, noise)])
        about = self.target / self.target.sum()
        for k, predicted in enumerate(self.predicted[::-1]):
            out[:, k] += about * (predicted - about @ predicted)
        return out


def target_rows(treated: Bools, matched: MatchedSet) -> Bools:
    """Return the rows used that the effect is about."""
    if matched.stratum is None:
        return matched.is_focal
    side = {"att": treated, "atc": ~treated}.get(matched.estimand, np.ones(len(treated), dtype=bool))
    used: Bools = matched.weights > 0
    return side & used


def use_as_match(treated: Bools, matched: MatchedSet) -> Floats:
    """Return the weights of the regressions: a row's use as a match, or its weight where sets have no pairs.

    Rows that are never a match, such as the treated of the ATT, are in their own arm's regression with their
    weight in the matched sample.
    """
    if matched.stratum is not None:
        return matched.weights
    given = matched.received()
    for arm in (treated, ~treated):
        if not (given[arm] > 0).any():
            given = np.where(arm, matched.weights, given)
    return given


def too_few(treated: Bools, matched: MatchedSet, X: Floats) -> str:
    """Say which arm has too few matched rows for a regression; nothing where none has."""
    use, target = use_as_match(treated, matched), target_rows(treated, matched)
    for arm, name in ((treated, "treated"), (~treated, "control")):
        if not (target & ~arm).any():
            # Its own rows are those that the effect is about: its regression cancels.
            continue
        rows = arm & (use > 0)
        rank = 1 + int((X[rows].max(axis=0) > X[rows].min(axis=0)).sum())
        if rows.sum() < ROWS_EACH * rank:
            return few_words(int(rows.sum()), name, rank)
    return ""


def few_words(rows: int, arm: str, rank: int) -> str:
    """Say that an arm's matched rows are too few for so many coefficients."""
    return (
        f"{rows} matched {arm} rows are too few for a regression on {rank - 1}"
        f" covariate{'' if rank == 2 else 's'}"
    )


class Projected(NamedTuple):
    """What the regressions of both arms, control first, owe to the covariates alone, in n rows.

    `weights`, shape (2, n), are those of each regression, which sum to 1, and `matched` those of the matched
    sample; `centres` and `turns` take covariates to columns that are centred and orthonormal under them. The
    rest is as in `Regressed`.
    """

    X: Floats
    weights: Floats
    matched: Floats
    centres: tuple[Floats, Floats]
    turns: tuple[Floats, Floats]
    gaps: tuple[Floats, Floats]
    implied: Floats
    spared: Floats
    target: Bools
    rank: int

    def of(self, y: Floats) -> Regressed:
        """Fit an outcome."""
        means = [0.0, 0.0]
        predicted = np.empty((2, len(y)))
        with one_blas_thread(len(y)):
            for k, (own, weight) in enumerate(zip(self.weights, self.matched, strict=True)):
                rows = np.flatnonzero(own)
                held = own[rows] * y[rows]
                level = float(held.sum())
                slope = self.turns[k].T @ (held @ _rows(self.X, rows) - level * self.centres[k])
                beta = self.turns[k] @ slope
                predicted[k] = self.X @ beta + (level - self.centres[k] @ beta)
                means[1 - k] = float(weight @ y + self.gaps[k] @ slope)
        return Regressed((means[0], means[1]), predicted, self.implied, self.spared, self.target, self.rank)


def project(treated: Bools, matched: MatchedSet, X: Floats) -> Projected:
    """Prepare the regressions on the covariates `X`, shape (n, p), in each arm of the matched sample."""
    n, target = len(treated), target_rows(treated, matched)
    use = use_as_match(treated, matched)
    implied, spared = np.zeros(n), np.ones(n)
    rank = 1
    about = target / target.sum()
    weights, of_matched = np.zeros((2, n)), np.zeros((2, n))
    centres, turns, gaps = [], [], []
    with one_blas_thread(n):
        for k, arm in enumerate((~treated, treated)):
            of_matched[k] = np.where(arm, matched.weights, 0.0)
            of_matched[k] /= of_matched[k].sum()
            rows = np.flatnonzero(arm)
            own = use[rows] / use[rows].sum()
            weights[k, rows] = own
            used = _rows(X, rows)
            centre, turn = _turn(used, own, np.abs(X).max(axis=0, initial=0.0))
            gap = ((about - of_matched[k]) @ X) @ turn
            implied += of_matched[k]
            # Of I - P with P the projection: one minus twice the leverage plus the squares of its row.
            basis = np.column_stack([np.ones(len(rows)), (used - centre) @ turn])
            implied[rows] += own * (basis[:, 1:] @ gap)
            squares = weighted_gram(basis, own**2)
            across = np.einsum("ij,ij->i", basis @ squares, basis)
            shrunk = 1.0 - 2.0 * own * np.einsum("ij,ij->i", basis, basis) + across
            spared[rows] = np.maximum(shrunk, LEAST_SPARED)
            rank = max(rank, basis.shape[1])
            centres.append(centre)
            turns.append(turn)
            gaps.append(gap)
    return Projected(
        X,
        weights,
        of_matched,
        (centres[0], centres[1]),
        (turns[0], turns[1]),
        (gaps[0], gaps[1]),
        implied,
        spared,
        target,
        rank,
    )


def regress(y: Floats, treated: Bools, matched: MatchedSet, X: Floats | Projected) -> Regressed:
    """Fit the outcome on the covariates `X`, shape (n, p), in each arm of the matched sample.

    References: Rubin, D. B. (1973). The use of matched sampling and regression adjustment to remove bias in
    observational studies. Biometrics 29, 185-203. Abadie, A. and Imbens, G. W. (2011). Bias-corrected
    matching estimators for average treatment effects. Journal of Business and Economic Statistics 29, 1-11.

    >>> import numpy as np
    >>> from whyprompt.effects.methods.nearest import match_nearest
    >>> x = np.array([0.2, 0.5, 0.1, 0.3, 0.6, 0.9])
    >>> arm = np.arange(6) < 2
    >>> pairs = match_nearest(x, arm)
    >>> made = regress(np.where(arm, 1.0, 0.0) + 10.0 * x, arm, pairs, x[:, None])
    >>> round(made.means[0] - made.means[1], 9)
    1.0
    """
    return (X if isinstance(X, Projected) else project(treated, matched, X)).of(y)


def _rows(X: Floats, rows: NDArray[np.intp]) -> Floats:
    """Take rows of a matrix in Fortran order, in that order."""
    return np.take(X.T, rows, axis=1).T


def _turn(X: Floats, weights: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """Give the centre of covariates, and what makes them orthonormal, under weights that sum to 1.

    As many columns as are linearly independent; `sizes` are the covariates' largest values.
    """
    centre = weights @ X
    spread = np.sqrt([weights @ (column - middle) ** 2 for column, middle in zip(X.T, centre, strict=True)])
    live = np.flatnonzero(spread > 1e-12 * sizes)
    return centre, turn_of(weighted_gram(X[:, live] - centre[live], weights), spread, live)


def turn_of(gram: Floats, spread: Floats, live: NDArray[np.intp]) -> Floats:
    """Give what makes columns orthonormal, as many as are linearly independent, shape (p, rank).

    `gram` are the sums of products of the `live` columns less their means, of weights that sum to 1; `spread`
    has the root of those of a column by itself.
    """
    if not len(live):
        return np.zeros((len(spread), 0))
    values, vectors = np.linalg.eigh(gram / np.outer(spread[live], spread[live]))
    keep = values > 1e-10 * values.max(initial=0.0)
    turn = np.zeros((len(spread), int(keep.sum())))
    turn[live] = vectors[:, keep] / np.sqrt(values[keep]) / spread[live][:, None]
    return turn
