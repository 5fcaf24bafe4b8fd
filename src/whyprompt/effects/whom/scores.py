"""Scores of single rows: unbiased for the outcome under either arm, and an effect predicted beforehand.

Rows are dealt to folds, and the folds are put in order. The effect on a row is predicted from the folds
before its own; the first folds only teach. Predicting each fold from all others would use every row, but
where effects hardly differ all those predictions lean the same way by chance, and intervals that take the
folds for independent are too short. In sequence each fold is a fresh sample given what came before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from whyprompt.effects.methods.aipw import deal_folds, predict_outcome
from whyprompt.errors import EstimationError
from whyprompt.stats.order import cluster_places
from whyprompt.stats.propensity import fit_logistic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.aipw import OutcomeModel

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

__all__ = ["RowScores", "paired_scores", "row_scores"]

_CLIP = 0.01
# Share of the folds that only teach the first model of the effect.
_TEACH = 0.3
# Predictions that agree to this share of their size are one prediction.
_DIGITS = 9


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowScores:
    """Scores and predictions.

    Attributes
    ----------
    arms : ndarray, shape (n, 2)
        The outcome under the treated and under the control arm: seen in a paired design, else the doubly
        robust score, whose mean over any group of rows is that group's mean outcome.
    predicted : ndarray, shape (n,)
        Effect predicted by a model that saw earlier folds alone; NaN for the rows that only teach.
    ahead, upto : ndarray, shape (n,)
        Share of all rows for which that model predicts less than for this row, and at most as much.
    fold : ndarray of int, shape (n,)
    propensity : ndarray, shape (n,), or None
    clipped : int
        Scores moved away from 0 and 1.
    """

    arms: Floats
    predicted: Floats
    ahead: Floats
    upto: Floats
    fold: Ints
    propensity: Floats | None
    clipped: int

    @property
    def judged(self) -> Bools:
        """Mask of the rows whose effect was predicted."""
        return np.isfinite(self.predicted)


def row_scores(
    y: Floats,
    treated: Bools,
    covariates: Floats,
    modifiers: Floats,
    *,
    names: Sequence[str],
    known: Floats | None,
    codes: NDArray[np.intp] | None,
    folds: int,
    outcome_model: OutcomeModel | None,
    effect_model: OutcomeModel | None,
    random_state: int,
    rank: Ints,
) -> RowScores:
    """Score rows that had one arm each.

    Parameters
    ----------
    y, treated : ndarray, shape (n,)
    covariates : ndarray, shape (n, p)
        Of the propensity and the outcome models.
    modifiers : ndarray, shape (n, q)
        Of the effect model.
    names : sequence of str, length p
    known : ndarray, shape (n,), optional
        Propensity.
    codes : ndarray of int, shape (n,), optional
        Clusters, which are never parted.
    folds : int
    outcome_model, effect_model : scikit-learn regressor, optional
        Default least squares.
    random_state : int
    rank : ndarray of int, shape (n,)
        Places of the rows by content, so that the order of the table is irrelevant.

    Returns
    -------
    RowScores

    Raises
    ------
    EstimationError
        If there are too few rows (or clusters) for the folds, or arms are separated in one.

    References
    ----------
    Kennedy, E. H. (2023). Towards optimal doubly robust estimation of heterogeneous causal effects.
    Electronic Journal of Statistics 17, 3008-3049.
    Luedtke, A. R. and van der Laan, M. J. (2016). Statistical inference for the mean outcome under a possibly
    non-unique optimal treatment strategy. Annals of Statistics 44, 713-742.
    Wager, S. (2024). Sequential validation of treatment heterogeneity. arXiv 2405.05534.
    """
    order = np.argsort(rank, kind="stable")
    back = np.argsort(order)
    y, treated, covariates, modifiers = y[order], treated[order], covariates[order], modifiers[order]
    known = None if known is None else known[order]
    codes = None if codes is None else codes[order]
    rank = rank[order]

    def scored(train: Bools, test: Bools) -> tuple[Floats, Floats]:
        if known is None:
            fit = fit_logistic(covariates[train], treated[train], names=names)
            linear = fit.coef[0] + covariates[test] @ fit.coef[1:]
            score = 0.5 * (1.0 + np.tanh(0.5 * linear))
        else:
            score = known[test]
        kept = np.clip(score, _CLIP, 1.0 - _CLIP) if known is None else score
        t, value = treated[test].astype(float), y[test]
        one, none = (
            predict_outcome(covariates, y, train & a, test, outcome_model) for a in (treated, ~treated)
        )
        both = np.column_stack(
            [one + t * (value - one) / kept, none + (1.0 - t) * (value - none) / (1.0 - kept)]
        )
        return both, score

    n = len(y)
    arms, score, fold = np.empty((n, 2)), np.empty(n), np.empty(n, dtype=np.int64)
    for k, test in enumerate(deal_folds(treated, codes, folds, random_state, rank)):
        arms[test], score[test] = scored(~test, test)
        fold[test] = k
    clipped = 0 if known is not None else int(((score < _CLIP) | (score > 1.0 - _CLIP)).sum())
    return _ordered(arms, modifiers, fold, effect_model, back, propensity=score, clipped=clipped)


def paired_scores(
    treated: Floats,
    control: Floats,
    modifiers: Floats,
    *,
    codes: NDArray[np.intp] | None,
    folds: int,
    effect_model: OutcomeModel | None,
    random_state: int,
    rank: Ints,
) -> RowScores:
    """Score items that had both arms.

    Parameters
    ----------
    treated, control : ndarray, shape (n,)
        Outcomes.
    modifiers, codes, folds, effect_model, random_state, rank
        As in `row_scores`.

    Returns
    -------
    RowScores

    Raises
    ------
    EstimationError
        If there are too few items (or clusters) for the folds.
    """
    order = np.argsort(rank, kind="stable")
    back = np.argsort(order)
    both = np.column_stack([treated, control])[order]
    modifiers = modifiers[order]
    n = len(both)
    units = np.arange(n) if codes is None else codes[order]
    place = rank[order] if codes is None else cluster_places(rank[order], units)
    n_units = int(units.max()) + 1
    what = "items" if codes is None else "clusters"
    if not 2 <= folds <= n_units:
        raise EstimationError(
            f"folds={folds}: there are {n_units} {what}, choose 2 to {n_units}",
            hint="an effect is predicted for items from others",
        )
    fold_of = np.empty(n_units, dtype=np.int64)
    members = np.argsort(place, kind="stable")
    fold_of[np.random.default_rng(random_state).permutation(members)] = np.arange(n_units) % folds
    fold = fold_of[units]
    return _ordered(both, modifiers, fold, effect_model, back, propensity=None, clipped=0)


def _ordered(
    arms: Floats,
    modifiers: Floats,
    fold: Ints,
    effect_model: OutcomeModel | None,
    back: Ints,
    *,
    propensity: Floats | None,
    clipped: int,
) -> RowScores:
    """Predict fold after fold, and put rows back into the order of the table."""
    from scipy import stats

    n, folds = len(arms), int(fold.max()) + 1
    predicted, ahead, upto = np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    every = np.ones(n, dtype=bool)
    for k in range(max(1, round(_TEACH * folds)), folds):
        test = fold == k
        # The rank is among the covariates of all rows, which say nothing of their outcomes.
        drawn = _rounded(predict_outcome(modifiers, arms[:, 0] - arms[:, 1], fold < k, every, effect_model))
        predicted[test] = drawn[test]
        ahead[test] = (stats.rankdata(drawn, "min")[test] - 1.0) / n
        upto[test] = stats.rankdata(drawn, "max")[test] / n
    return RowScores(
        arms=arms[back],
        predicted=predicted[back],
        ahead=ahead[back],
        upto=upto[back],
        fold=fold[back],
        propensity=None if propensity is None else propensity[back],
        clipped=clipped,
    )


def _rounded(predicted: Floats) -> Floats:
    """Equal covariates have equal predictions, whatever rounding made of them."""
    if not np.isfinite(predicted).all():
        raise EstimationError("the effect model predicts a value that is not finite")
    size = float(np.abs(predicted).max())
    if size == 0:
        return predicted
    unit = 10.0 ** np.floor(np.log10(size))
    return np.asarray(np.round(predicted / unit, _DIGITS) * unit, dtype=np.float64)
