"""Weights for many arms, by a multinomial score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.clusters import clustered_means, pairwise_df, rows_df
from whyprompt.stats.design import standardised
from whyprompt.stats.influence import (
    clean_arrays,
    cluster_codes,
    influence_covariance,
    regression_influence,
    with_intercept,
)
from whyprompt.stats.order import distinct
from whyprompt.stats.propensity import SeparatedError
from whyprompt.stats.regression import fit_multinomial, multinomial_information, softmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


def multinomial_weights(
    t: ArrayLike,
    X: ArrayLike,
    *,
    y: ArrayLike | None = None,
    estimand: Literal["ate", "att", "ato"] = "ate",
    focal: object | None = None,
    reference: object | None = None,
    names: Sequence[str] | None = None,
    cluster: ArrayLike | None = None,
    truncate: float | None = None,
) -> tuple[tuple[str, ...], Floats, tuple[Floats, Floats, Floats] | None]:
    """Weight many arms to one population by a multinomial logistic score.

    Weights are ``1 / e_t`` for the ATE; ``e_focal / e_t`` for the ATT, of the population of the arm `focal`;
    ``1 / (e_t sum_k 1 / e_k)`` for the ATO. `t` are any labels, `X`, shape (n, p), numbers without an
    intercept; errors by `cluster` are as in `Weighting`; `truncate` lowers the largest weights to this
    quantile (see `truncate_weights`). Fewer than two arms are refused, an arm with one row, and covariates
    that separate arms (`SeparatedError`).

    Returns the arms, the reference first (default: the first in sorted order), then the others in sorted
    order; the weights, shape (n,); and the weighted outcome means by arm, their covariance and the degrees of
    freedom of each difference of two, arms by arms, or None where no outcome is given.

    References: Imbens (2000). The role of the propensity score in estimating dose-response functions.
    Biometrika 87. Li and Li (2019). Propensity score weighting for causal inference with multiple treatments.
    Annals of Applied Statistics 13, table 1.

    >>> import numpy as np
    >>> x = np.array([0.0, 1.0, 2.0, 1.0, 0.0, 2.0, 1.0, 2.0, 0.0])[:, None]
    >>> _, _, found = multinomial_weights(["a", "a", "a", "b", "b", "b", "c", "c", "c"], x, y=x[:, 0])
    >>> found[0].round(6).tolist()
    [1.0, 1.0, 1.0]
    """
    vectors = {} if y is None else {"outcome": np.asarray(y)}
    matrix, columns, clean = clean_arrays(np.asarray(X), names, **vectors)
    arms, index = _arms(t, len(matrix), reference)
    codes = cluster_codes(None if cluster is None else np.asarray(cluster), len(matrix))
    n, n_arms = len(matrix), len(arms)
    if estimand not in {"ate", "att", "ato"}:
        raise EstimationError(f"estimand={estimand!r}: choose 'ate', 'att' (with focal=) or 'ato'")
    if (estimand == "att") != (focal is not None):
        raise EstimationError("focal= names the arm of estimand='att'; give both or neither")
    if focal is not None and str(focal) not in arms:
        raise EstimationError(f"focal={focal!r} is not an arm; the arms are {', '.join(arms)}")
    focal_at = arms.index(str(focal)) if focal is not None else None

    design = with_intercept(standardised(matrix, columns))
    found = fit_multinomial(design, index, n_arms)
    if found is None:
        raise SeparatedError(
            "the multinomial score does not converge: covariates separate some arms",
            hint="drop the covariate that determines the arm, or merge arms",
        )
    chosen = np.eye(n_arms)[index]
    share = softmax(design @ found[0].T)
    weights, slopes = _weighed(share, index, estimand, focal_at)
    if truncate is not None:
        from whyprompt.effects.methods.weights import truncate_weights

        reweighted = index != focal_at if focal_at is not None else np.ones(n, dtype=bool)
        cap = float(truncate_weights(weights[reweighted], truncate).max())
        slopes *= (weights <= cap)[:, None]
        weights = np.minimum(weights, cap)
    if y is None:
        return arms, weights, None
    means = chosen.T @ (weights * clean["outcome"]) / (chosen.T @ weights)
    residual = clean["outcome"] - means[index]
    of_score = _score_influence(residual, index, share, slopes, design) / (chosen.T @ weights)
    return arms, weights, weighted_means(clean["outcome"], chosen, weights, codes, of_score)


def weighted_means(
    y: Floats,
    chosen: Floats,
    weights: Floats,
    codes: NDArray[np.intp] | None,
    of_score: Floats | float = 0.0,
) -> tuple[Floats, Floats, Floats]:
    """Give the arms' weighted means, normalised within arms (Hajek), their covariance and degrees of freedom.

    `chosen`, shape (n, arms), is 1 where a row is of an arm; `codes` are clusters; `of_score` is what the
    estimation of the weights adds to the influence of each mean, nothing where they are known. The degrees of
    freedom, (arms, arms), are those of the difference of two means.

    Reference: Hajek (1971), in Foundations of Statistical Inference, Holt, Rinehart and Winston, p. 236.

    >>> chosen = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> y, weights = np.array([1.0, 4.0, 2.0, 2.0]), np.array([2.0, 1.0, 1.0, 1.0])
    >>> weighted_means(y, chosen, weights, None)[0].tolist()
    [2.0, 2.0]
    """
    means, influence = regression_influence(y, chosen, weights)
    influence = influence + of_score
    if codes is None:
        return means, influence_covariance(influence, None), rows_df(chosen > 0, weights)
    _, sums, df = clustered_means(y, chosen > 0, weights, codes, influence=influence)
    return means, sums.T @ sums, pairwise_df(df, chosen.shape[1])


def _arms(t: ArrayLike, n: int, reference: object | None) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    labels = np.asarray(t)
    if labels.shape != (n,):
        raise DataError(f"treatment has shape {labels.shape}; X has {n} rows")
    missing = sum(label is None or label != label for label in labels.tolist())  # noqa: PLR0124 - NaN is not itself
    if missing:
        raise DataError(f"treatment has {missing} missing values")
    found, index = distinct(np.array([str(label) for label in labels.tolist()], dtype=object))
    if len(found) < 2:
        raise EstimationError(f"every row has treatment {found[0]!r}: there is nothing to compare")
    if reference is not None:
        if str(reference) not in found:
            raise EstimationError(f"reference={reference!r} is not an arm; the arms are {', '.join(found)}")
        first = found.index(str(reference))
        # The reference goes before those that were before it.
        index = np.where(index == first, 0, index + (index < first))
        found.insert(0, found.pop(first))
    for a, count in enumerate(np.bincount(index)):
        if count < 2:
            raise EstimationError(f"arm {found[a]!r} has one row: its mean has no standard error")
    return tuple(found), index


def _weighed(
    share: Floats, index: NDArray[np.intp], estimand: str, focal_at: int | None
) -> tuple[Floats, Floats]:
    """Give the weights, and their slopes by the linear predictor of each arm but the first, (n, arms - 1)."""
    own = np.take_along_axis(share, index[:, None], axis=1)[:, 0]
    arms = np.arange(1, share.shape[1])
    slopes = -(index[:, None] == arms).astype(float)
    if estimand == "ate":
        weights = 1.0 / own
        slopes += share[:, 1:]
    elif focal_at is not None:
        weights = share[:, focal_at] / own
        slopes += arms == focal_at
    else:
        inverse = (1.0 / share).sum(axis=1)
        weights = 1.0 / (own * inverse)
        slopes += 1.0 / (share[:, 1:] * inverse[:, None])
    slopes *= weights[:, None]
    return weights, slopes


def _score_influence(
    residual: Floats, index: NDArray[np.intp], share: Floats, slopes: Floats, design: Floats
) -> Floats:
    """Give what the estimation of the score adds to the influence of the arms' weighted sums, (n, arms).

    The score's influence is its likelihood score over the information; the sums move with the weights, whose
    slopes by each linear predictor are given.
    """
    n_arms, k = share.shape[1], design.shape[1]
    information = multinomial_information(design, share[:, 1:], np.ones(len(residual)))
    moves = np.empty(((n_arms - 1) * k, n_arms))
    for b in range(n_arms):
        here = index == b
        moves[:, b] = ((slopes[here] * residual[here, None]).T @ design[here]).ravel()
    change = np.linalg.solve(information, moves)
    off = (index[:, None] == np.arange(1, n_arms)) - share[:, 1:]
    return np.asarray(sum((design * off[:, [a]]) @ change[a * k : (a + 1) * k] for a in range(n_arms - 1)))
