"""Scores of single rows: unbiased for the outcome under either arm, and an effect predicted beforehand.

Rows are dealt to folds, and the folds are put in order. The effect on a row is predicted from the folds
before its own; the first folds only teach. Predicting each fold from all others would use every row, but
where effects hardly differ all those predictions lean the same way by chance, and intervals that take the
folds for independent are too short. In sequence each fold is a fresh sample given what came before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects.methods.aipw import deal_folds
from whyprompt.effects.methods.learners import LINEAR, learn_outcome
from whyprompt.errors import EstimationError
from whyprompt.stats.design import design_matrix
from whyprompt.stats.influence import with_intercept
from whyprompt.stats.order import cluster_places
from whyprompt.stats.propensity import fit_logistic
from whyprompt.stats.threads import one_openmp_thread
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from whyprompt.effects.methods.learners import OutcomeModel
    from whyprompt.effects.pairs import PairedItems
    from whyprompt.effects.problem import Problem
    from whyprompt.stats.design import Design

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

_CLIP = 0.01
# Share of the folds that only teach the first model of the effect.
_TEACH = 0.3
# Predictions that agree to this share of their size are one prediction.
_DIGITS = 9


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowScores:
    """Scores of the rows, effects predicted for them, and the model of the effect for rows to come.

    `arms`, shape (n, 2), is the outcome under the treated and under the control arm: seen in a paired design,
    else the doubly robust score, whose mean over any group of rows is that group's mean outcome. `predicted`
    is the effect by a model that saw earlier folds alone, NaN for rows that only teach; `ahead` and `upto`
    are the shares of all rows for which that model predicts less than for this row, and at most as much.
    """

    arms: Floats
    predicted: Floats
    ahead: Floats
    upto: Floats
    fold: Ints
    cluster: NDArray[Any] | None
    size: float  # of the largest outcome, which tells a spread from rounding
    modifiers: tuple[str, ...]
    levels: Mapping[str, tuple[str, ...]]
    model: OutcomeModel  # fitted to the scores of all rows
    propensity: Floats | None = None
    clipped: int = 0  # propensities moved away from 0 and 1

    @property
    def effect(self) -> Floats:
        """The score of the effect on each row."""
        return np.asarray(self.arms[:, 0] - self.arms[:, 1])

    @property
    def judged(self) -> Bools:
        """Mask of the rows whose effect was predicted."""
        return np.isfinite(self.predicted)

    def predict(self, frame: Any) -> Floats:  # noqa: ANN401 - any frame
        """Predict the effect on each row of a table that has the modifiers, shape (n,)."""
        table = open_table(frame)
        columns = {name: table.values(name, role="modifier") for name in self.modifiers}
        matrix = design_matrix(columns, levels=self.levels).matrix
        return np.asarray(self.model.predict(matrix), dtype=np.float64)


def row_scores(
    problem: Problem,
    by: tuple[str, ...],
    shown: Design,
    *,
    folds: int,
    outcome_model: OutcomeModel | None,
    effect_model: OutcomeModel | None,
    random_state: int,
) -> RowScores:
    """Score rows that had one arm each; `shown` are the modifiers `by` as numbers.

    Rows are taken in their places by content, so that the order of the table is irrelevant. Raises
    `EstimationError` if there are too few rows (or clusters) for the folds, or arms are separated in one.

    References: Kennedy, E. H. (2023). Electronic Journal of Statistics 17, 3008-3049 (scores). Luedtke, A. R.
    and van der Laan, M. J. (2016). Annals of Statistics 44, 713-742; Wager, S. (2024). arXiv 2405.05534
    (folds in sequence).
    """
    rank = problem.places
    order = np.argsort(rank, kind="stable")
    y, treated, covariates = problem.y[order], problem.treated[order], problem.design.matrix[order]
    known = None if problem.known_score is None else problem.known_score[order]
    codes = None if problem.cluster is None else _codes(problem.cluster)[order]

    def scored(train: Bools, test: Bools) -> tuple[Floats, Floats]:
        if known is None:
            fit = fit_logistic(covariates[train], treated[train], names=problem.design.names)
            linear = fit.coef[0] + covariates[test] @ fit.coef[1:]
            score = 0.5 * (1.0 + np.tanh(0.5 * linear))
        else:
            score = known[test]
        kept = np.clip(score, _CLIP, 1.0 - _CLIP) if known is None else score
        t, value = treated[test].astype(float), y[test]
        one, none = (
            learn_outcome(covariates[train & a], y[train & a], covariates[test], outcome_model or LINEAR)
            for a in (treated, ~treated)
        )
        both = np.column_stack(
            [one + t * (value - one) / kept, none + (1.0 - t) * (value - none) / (1.0 - kept)]
        )
        return both, score

    n = len(y)
    arms, score, fold = np.empty((n, 2)), np.empty(n), np.empty(n, dtype=np.int64)
    for k, test in enumerate(deal_folds(treated, codes, folds, random_state, rank[order])):
        arms[test], score[test] = scored(~test, test)
        fold[test] = k
    return RowScores(
        **_in_sequence(arms, shown.matrix, fold, effect_model, order),
        cluster=problem.cluster,
        size=float(np.abs(y).max()),
        modifiers=by,
        levels=dict(shown.levels),
        propensity=score[np.argsort(order)],
        clipped=0 if known is not None else int(((score < _CLIP) | (score > 1.0 - _CLIP)).sum()),
    )


def paired_scores(
    items: PairedItems,
    by: tuple[str, ...],
    shown: Design,
    cluster: NDArray[Any] | None,
    rank: Ints,
    *,
    folds: int,
    effect_model: OutcomeModel | None,
    random_state: int,
) -> RowScores:
    """Score items that had both arms, as `row_scores` does rows; `rank` are their places by content.

    Raises `EstimationError` if there are too few items (or clusters) for the folds.
    """
    order = np.argsort(rank, kind="stable")
    both = np.column_stack([items.treated, items.control])
    units = np.arange(len(both)) if cluster is None else _codes(cluster)[order]
    place = rank[order] if cluster is None else cluster_places(rank[order], units)
    n_units = int(units.max()) + 1
    what = "items" if cluster is None else "clusters"
    if not 2 <= folds <= n_units:
        raise EstimationError(
            f"folds={folds}: there are {n_units} {what}, choose 2 to {n_units}",
            hint="an effect is predicted for items from others",
        )
    fold_of = np.empty(n_units, dtype=np.int64)
    members = np.argsort(place, kind="stable")
    fold_of[np.random.default_rng(random_state).permutation(members)] = np.arange(n_units) % folds
    return RowScores(
        **_in_sequence(both[order], shown.matrix, fold_of[units], effect_model, order),
        cluster=cluster,
        size=float(np.abs(both).max()),
        modifiers=by,
        levels=dict(shown.levels),
    )


def _codes(cluster: NDArray[Any]) -> NDArray[np.intp]:
    return np.unique(cluster.astype(str), return_inverse=True)[1]


def _in_sequence(
    arms: Floats, modifiers: Floats, fold: Ints, effect_model: OutcomeModel | None, order: Ints
) -> dict[str, Any]:
    """Predict fold after fold, fit the model of all rows, and put rows back into the order of the table.

    `arms` and `fold` are in `order`, `modifiers` as the table has them.
    """
    from scipy import stats

    modifiers = modifiers[order]
    effect = arms[:, 0] - arms[:, 1]
    n, folds = len(arms), int(fold.max()) + 1
    predicted, ahead, upto = np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    for k in range(max(1, round(_TEACH * folds)), folds):
        test = fold == k
        # The rank is among the covariates of all rows, which say nothing of their outcomes.
        drawn = _rounded(
            learn_outcome(modifiers[fold < k], effect[fold < k], modifiers, effect_model or LINEAR)
        )
        predicted[test] = drawn[test]
        ahead[test] = (stats.rankdata(drawn, "min")[test] - 1.0) / n
        upto[test] = stats.rankdata(drawn, "max")[test] / n
    made = {"arms": arms, "predicted": predicted, "ahead": ahead, "upto": upto, "fold": fold}
    back = np.argsort(order)
    return {name: values[back] for name, values in made.items()} | {
        "model": _fitted(effect_model, modifiers, effect)
    }


def _rounded(predicted: Floats) -> Floats:
    """Equal covariates have equal predictions, whatever rounding made of them."""
    if not np.isfinite(predicted).all():
        raise EstimationError("the effect model predicts a value that is not finite")
    size = float(np.abs(predicted).max())
    if size == 0:
        return predicted
    unit = 10.0 ** np.floor(np.log10(size))
    return np.asarray(np.round(predicted / unit, _DIGITS) * unit, dtype=np.float64)


@dataclass(slots=True, eq=False)
class _LeastSquares:
    """Least squares on standardised columns, as a scikit-learn regressor."""

    centre: Floats = field(default_factory=lambda: np.zeros(0))
    scale: Floats = field(default_factory=lambda: np.ones(0))
    coef: Floats = field(default_factory=lambda: np.zeros(1))

    def fit(self, X: Any, y: Any) -> _LeastSquares:  # noqa: ANN401 - as scikit-learn
        """Fit."""
        self.centre = np.asarray(X.mean(axis=0))
        self.scale = np.where(X.std(axis=0) > 0, X.std(axis=0), 1.0)
        matrix = with_intercept((X - self.centre) / self.scale)
        self.coef = np.linalg.lstsq(matrix, y, rcond=1e-10)[0]
        return self

    def predict(self, X: Any) -> Any:  # noqa: ANN401 - as scikit-learn
        """Predict."""
        return with_intercept((X - self.centre) / self.scale) @ self.coef


def _fitted(model: OutcomeModel | None, modifiers: Floats, effect: Floats) -> Any:  # noqa: ANN401
    fitted: Any = _LeastSquares()
    if model is not None:
        from sklearn.base import clone

        fitted = clone(model)
    with one_openmp_thread(len(effect)):
        fitted.fit(modifiers, effect)
    return fitted
