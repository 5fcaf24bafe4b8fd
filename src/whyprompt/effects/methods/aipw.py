"""Augmented inverse probability weighting with cross-fitted nuisance models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from whyprompt.errors import EstimationError
from whyprompt.stats.influence import with_intercept
from whyprompt.stats.order import cluster_places
from whyprompt.stats.propensity import SeparatedError, fit_logistic
from whyprompt.stats.threads import one_openmp_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

__all__ = ["ArmFit", "OutcomeModel", "cross_fitted_aipw", "deal_folds", "predict_outcome", "raw_weights"]

# Deals of the folds by default: so many, and fewer where rows are so many that one decides little.
_SPLITS, _ROWS = 10, 100_000


class OutcomeModel(Protocol):
    """What is asked of an outcome model: scikit-learn's ``fit`` and ``predict``."""

    def fit(self, X: Any, y: Any) -> object:  # noqa: ANN401 - scikit-learn's own types
        """Fit to the rows of one arm."""

    def predict(self, X: Any) -> Any:  # noqa: ANN401 - scikit-learn's own types
        """Predict the outcome."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmFit:
    """Weights and means on the rows kept; scores moved away from 0 and 1; deals, and those left out."""

    weights: Floats
    propensity: Floats | None
    means: Floats
    influence: Floats
    clipped: int = 0
    deals: int = 1
    separated: int = 0


def raw_weights(linear: NDArray[Any], treated: Bools, estimand: str) -> NDArray[Any]:
    """Weights as a function of the linear predictor (complex for differentiation)."""
    odds = np.exp(linear)
    # The pair is the weight of a treated and of a control row with these odds of treatment.
    pairs = {
        "ate": (1.0 + 1.0 / odds, 1.0 + odds),
        "att": (1.0, odds),
        "atc": (1.0 / odds, 1.0),
        "ato": (1.0 / (1.0 + odds), odds / (1.0 + odds)),
    }
    return np.asarray(np.where(treated, *pairs[estimand]))


def cross_fitted_aipw(
    y: Floats,
    treated: Bools,
    matrix: Floats,
    names: Sequence[str],
    estimand: str,
    given: Floats | None,
    codes: NDArray[np.intp] | None,
    folds: int,
    outcome_model: OutcomeModel | None,
    random_state: int,
    clip: float,
    rank: NDArray[np.int64],
    *,
    splits: int | None,
) -> ArmFit:
    """Average over several deals of the folds: one deal decides too much where rows are few.

    Rows are put in the order of their content, so that neither folds nor models see that of the table.
    """
    order = np.argsort(rank, kind="stable")
    back = np.argsort(order)
    seeds = [random_state]
    if splits is None:
        splits = max(1, min(_SPLITS, _ROWS // len(y)))
    if folds > 1 and splits > 1:
        more = np.random.SeedSequence(random_state).generate_state(splits - 1, dtype=np.uint64)
        seeds += more.tolist()
    made: list[ArmFit] = []
    refused: list[SeparatedError] = []
    for one in seeds:
        try:
            made.append(
                _fit(
                    y[order],
                    treated[order],
                    matrix[order],
                    names,
                    estimand,
                    None if given is None else given[order],
                    None if codes is None else codes[order],
                    folds,
                    outcome_model,
                    one,
                    clip,
                    rank[order],
                )
            )
        except SeparatedError as error:
            refused.append(error)
        # Where most deals separate the arms, the others are lucky ones.
        if 2 * len(refused) >= len(seeds):
            raise SeparatedError(
                f"without the rows of one fold, {refused[0].message}",
                hint="method='ipw' or 'overlap' fits one score to all rows; a penalised score"
                " (distance=LogisticRegression()) has no such limit",
            )
    scores = [fit.propensity for fit in made if fit.propensity is not None]
    return ArmFit(
        weights=np.mean([fit.weights for fit in made], axis=0)[back],
        propensity=given if given is not None else np.mean(np.stack(scores), axis=0)[back],
        means=np.mean([fit.means for fit in made], axis=0),
        influence=np.mean([fit.influence for fit in made], axis=0)[back],
        clipped=max(fit.clipped for fit in made),
        deals=len(seeds),
        separated=len(refused),
    )


def _fit(
    y: Floats,
    treated: Bools,
    matrix: Floats,
    names: Sequence[str],
    estimand: str,
    given: Floats | None,
    codes: NDArray[np.intp] | None,
    folds: int,
    outcome_model: OutcomeModel | None,
    random_state: int,
    clip: float,
    rank: NDArray[np.int64],
) -> ArmFit:
    n = len(y)
    clipped = 0
    score = np.empty(n) if given is None else given
    predicted = np.empty((n, 2))
    for test in deal_folds(treated, codes, folds, random_state, rank):
        train = ~test if folds > 1 else test
        if given is None:
            fit = fit_logistic(matrix[train], treated[train], names=names)
            score[test] = 1.0 / (1.0 + np.exp(-(fit.coef[0] + matrix[test] @ fit.coef[1:])))
        for column, arm in enumerate((treated, ~treated)):
            predicted[test, column] = predict_outcome(matrix, y, train & arm, test, outcome_model)
    if given is None:
        # A score from other rows can be all but 0 or 1, and one such row would then be the whole estimate.
        clipped = int(((score < clip) | (score > 1 - clip)).sum())
        score = np.clip(score, clip, 1 - clip)
    t = treated.astype(float)
    parts = np.column_stack(
        [
            predicted[:, 0] + t * (y - predicted[:, 0]) / score,
            predicted[:, 1] + (1 - t) * (y - predicted[:, 1]) / (1 - score),
        ]
    )
    if estimand == "att":
        other = t * predicted[:, 1] + (1 - t) * score / (1 - score) * (y - predicted[:, 1])
        parts = np.column_stack([t * y, other])
    elif estimand == "atc":
        other = (1 - t) * predicted[:, 0] + t * (1 - score) / score * (y - predicted[:, 0])
        parts = np.column_stack([other, (1 - t) * y])
    size = {"att": t, "atc": 1 - t}.get(estimand, np.ones(n))
    means = parts.sum(axis=0) / size.sum()
    influence = (parts - size[:, None] * means) / size.sum()
    weights = raw_weights(np.log(score / (1 - score)), treated, estimand).astype(float)
    return ArmFit(weights=weights, propensity=score, means=means, influence=influence, clipped=clipped)


def deal_folds(
    treated: Bools,
    codes: NDArray[np.intp] | None,
    folds: int,
    random_state: int,
    rank: NDArray[np.int64],
) -> list[Bools]:
    """Deal units (rows, or whole clusters) to folds, each arm separately so that shares agree.

    The deal depends on what units hold and on the seed: not on their order, on the names of clusters, or on
    which arm is called treated.
    """
    n = len(treated)
    if folds == 1:
        return [np.ones(n, dtype=bool)]
    units = np.arange(n) if codes is None else codes
    n_units = int(units.max()) + 1
    smallest = int(min(treated.sum(), n - treated.sum()))
    most = min(n_units, smallest)
    if not 2 <= folds <= most:
        what = f"{smallest} rows in an arm" if most == smallest else f"{n_units} clusters"
        raise EstimationError(
            f"folds={folds}: with {what}, choose 1 to {most}",
            hint="cross-fitting needs units to fit on and units to predict; ipw and overlap do not",
        )
    rng = np.random.default_rng(random_state)
    # A cluster goes by the arm of most of its rows; those with as many of each are dealt by themselves.
    lean = np.sign(np.bincount(units, weights=treated - 0.5))
    place = rank if codes is None else cluster_places(2 * rank + treated, codes)
    groups = [np.flatnonzero(lean == side) for side in (1.0, -1.0, 0.0)]
    groups = [members[np.argsort(place[members], kind="stable")] for members in groups]
    # The larger group is dealt first; of two equal ones, that whose units come first.
    groups.sort(key=lambda members: (-len(members), place[members].tolist()))
    fold_of = np.empty(n_units, dtype=int)
    offset = 0
    for ordered in groups:
        members = rng.permutation(ordered)
        fold_of[members] = (np.arange(len(members)) + offset) % folds
        offset += len(members)
    return [fold_of[units] == k for k in range(folds)]


def predict_outcome(
    matrix: Floats, y: Floats, train: Bools, test: Bools, model: OutcomeModel | None
) -> Floats:
    """Predict rows from others, by least squares where no model is given.

    Parameters
    ----------
    matrix : ndarray, shape (n, p)
    y : ndarray, shape (n,)
    train, test : ndarray of bool, shape (n,)
    model : scikit-learn regressor, optional
        Cloned, and left as it was.

    Returns
    -------
    ndarray, shape (test.sum(),)
    """
    if not train.any():
        raise EstimationError(
            "a fold leaves an arm without rows to fit its outcome model", hint="use fewer folds"
        )
    if model is not None:
        from sklearn.base import clone

        fitted = clone(model)
        with one_openmp_thread(int(train.sum())):
            fitted.fit(matrix[train], y[train])
            return np.asarray(fitted.predict(matrix[test]), dtype=float)
    centre = matrix[train].mean(axis=0)
    scale = np.where(matrix[train].std(axis=0) > 0, matrix[train].std(axis=0), 1.0)
    coef = np.linalg.lstsq(with_intercept((matrix[train] - centre) / scale), y[train], rcond=1e-10)[0]
    return np.asarray(with_intercept((matrix[test] - centre) / scale) @ coef)
