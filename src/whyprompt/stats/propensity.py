"""Propensity scores: logistic regression, and cross-fitted classifiers.

The logistic fit is the maximum likelihood estimate that R's ``glm(family = binomial)`` gives.
Separated data, which have no such estimate, are refused with the columns that separate them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.errors import EstimationError
from whyprompt.stats.design import independent_columns, moments
from whyprompt.stats.newton import maximise
from whyprompt.stats.order import content_rank
from whyprompt.stats.regression import Regression, row_terms
from whyprompt.stats.threads import one_blas_thread, one_openmp_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


# Rows handled at a time, so that the temporaries of a block stay in cache and memory stays flat.
_BLOCK = 8_192
# Cells beyond which separation by a combination of columns is not looked for.
_LARGE = 5_000_000


class SeparatedError(EstimationError):
    """The covariates tell the arms apart without error, for some rows or for all."""


def fit_logistic(
    X: Floats,
    treated: NDArray[np.bool_],
    *,
    names: Sequence[str] | None = None,
    max_iterations: int = 50,
) -> Regression:
    """Fit a logistic regression by iteratively reweighted least squares, intercept first.

    Run until the gradient is at rounding error, so that the estimate is the maximum and not the point where a
    tolerance was met (McCullagh and Nelder 1989, section 4.4). Columns are centred and scaled inside, which
    changes nothing but the conditioning. An empty arm is refused, and covariates that separate the arms, by
    name.

    >>> import numpy as np
    >>> x = np.array([[0.0], [0.0], [1.0], [1.0], [1.0], [0.0]])
    >>> t = np.array([True, False, True, True, False, False])
    >>> fit = fit_logistic(x, t, names=["x"])
    >>> np.round(fit.fitted, 4).tolist()
    [0.3333, 0.3333, 0.6667, 0.6667, 0.6667, 0.3333]
    """
    X = np.asarray(X, dtype=np.float64)
    n, p = X.shape
    columns = tuple(names) if names is not None else tuple(f"x{j}" for j in range(p))
    y = np.asarray(treated, dtype=np.float64)
    n_treated = float(y.sum())
    if not 0 < n_treated < n:
        raise EstimationError(
            "a propensity score needs rows of both arms", hint="one arm is empty in this table"
        )
    with one_blas_thread(n):
        return _fit(X, y, columns, max_iterations)


def _fit(X: Floats, y: Floats, columns: tuple[str, ...], max_iterations: int) -> Regression:
    n, p = X.shape
    n_treated = float(y.sum())
    centre, scale = moments(X)
    kept = independent_columns(X, centre, scale)
    # The intercept is the logit of the share treated when every covariate is centred and beta is 0.
    start = np.zeros(len(kept) + 1)
    start[0] = np.log(n_treated / (n - n_treated))
    if n >= 50_000:
        start = _warm_start(X, y, kept, centre, scale, start)
    evaluate = _evaluator(X, y, kept, centre, scale)
    beta, information, iterations, converged = maximise(evaluate, start, max_iterations=max_iterations)

    to_raw = unscaling(kept, centre, scale)
    coef = to_raw @ beta
    linear = _linear(X, coef)
    if not converged or np.abs(linear).max() > 12.0:
        refuse_separation(X, y, columns, kept, converged=converged)
    return Regression(
        family="logit",
        names=("(Intercept)", *columns),
        coef=coef,
        covariance=to_raw @ np.linalg.inv(information) @ to_raw.T,
        linear=linear,
        log_likelihood=_log_likelihood(linear, y),
        n_iterations=iterations,
        dropped=tuple(columns[j] for j in sorted(set(range(p)) - set(kept))),
    )


def unscaling(kept: Sequence[int], centre: Floats, scale: Floats) -> Floats:
    """Give what takes coefficients of the scaled columns `kept`, intercept first, to those of all columns."""
    to_raw = np.zeros((len(centre) + 1, len(kept) + 1))
    to_raw[0, 0] = 1.0
    for k, j in enumerate(kept):
        to_raw[j + 1, k + 1] = 1.0 / scale[j]
        to_raw[0, k + 1] = -centre[j] / scale[j]
    return to_raw


def _linear(X: Floats, coef: Floats) -> Floats:
    """Sum column by column: a BLAS product may round equal rows differently, and ties would be lost."""
    linear = np.full(X.shape[0], coef[0])
    for j in np.flatnonzero(coef[1:]):
        linear += X[:, j] * coef[j + 1]
    return linear


def _log_likelihood(linear: Floats, y: Floats) -> float:
    total = 0.0
    for a in range(0, len(y), _BLOCK):
        rows = slice(a, a + _BLOCK)
        total -= float(np.logaddexp(0.0, np.where(y[rows] > 0, -linear[rows], linear[rows])).sum())
    return total


def _evaluator(
    X: Floats, y: Floats, kept: list[int], centre: Floats, scale: Floats
) -> Callable[[Floats], tuple[float, Floats, Floats]]:
    """Give the log-likelihood, its gradient and the information at coefficients of the scaled columns."""
    k = len(kept) + 1
    inverse = 1.0 / np.where(scale > 0, scale, 1.0)
    Z = np.empty((_BLOCK, k), order="F")
    Z[:, 0] = 1.0

    def evaluate(beta: Floats) -> tuple[float, Floats, Floats]:
        loglik, gradient, information = 0.0, np.zeros(k), np.zeros((k, k))
        for a in range(0, X.shape[0], _BLOCK):
            b = min(a + _BLOCK, X.shape[0])
            block = Z[: b - a]
            for column, j in enumerate(kept, start=1):
                np.subtract(X[a:b, j], centre[j], out=block[:, column])
                block[:, column] *= inverse[j]
            value, slope, curve = row_terms("logit", block @ beta, y[a:b])
            loglik += float(value.sum())
            gradient += block.T @ slope
            information += block.T @ (block * curve[:, None])
        return loglik, gradient, information

    return evaluate


def _warm_start(
    X: Floats, y: Floats, kept: list[int], centre: Floats, scale: Floats, start: Floats
) -> Floats:
    """Start from the estimate on evenly spaced rows: two full passes then do the work of six."""
    stride = X.shape[0] // (20_000 if X.shape[0] >= 200_000 else 10_000)
    rows = slice(None, None, stride)
    small = np.asfortranarray(X[rows])
    if not 0 < y[rows].sum() < len(small):
        return start
    beta, _, _, converged = maximise(
        _evaluator(small, y[rows], kept, centre, scale), start, max_iterations=12
    )
    return beta if converged else start


def refuse_separation(
    X: Floats, y: Floats, names: Sequence[str], kept: Sequence[int], *, converged: bool, sample: bool = False
) -> None:
    """Raise if the arms are separated; the maximum of the likelihood is then at infinity.

    A `sample` has both ends of every column in each arm, and not all rows.
    """
    by_itself = []
    ones = y > 0
    for j in kept:
        a, b = X[ones, j], X[~ones, j]
        if a.min() >= b.max() or b.min() >= a.max():
            by_itself.append(names[j])
        elif len(values := np.unique(X[:, j])) == 2:
            by_itself.extend(
                f"{names[j]} = {value:g}"
                for value in values
                if len(set(ones[X[:, j] == value].tolist())) == 1
            )
    together = by_itself or ([] if sample else _separating_columns(X, y, names, kept))
    if together:
        raise SeparatedError(
            f"the propensity score is separated: {', '.join(together)}"
            f" {'predicts' if len(together) == 1 else 'predict'} the arm without error, for some rows or for"
            " all",
            hint="rows with no counterpart in the other arm carry no information on the effect: leave them"
            " out, leave the column out of the confounders and say so, or run the missing arm there",
        )
    if not converged:
        raise EstimationError(
            "the logistic regression for the propensity score did not converge",
            hint="look for extreme values or nearly collinear columns, or give fewer confounders",
        )


def _separating_columns(X: Floats, y: Floats, names: Sequence[str], kept: Sequence[int]) -> list[str]:
    """Find separation by a combination of columns, and leave out those that it does not need."""
    if X.shape[0] * (len(kept) + 1) > _LARGE:
        return []
    found = _separates(X, y, kept)
    for j in list(found):
        # The program's solution gives weight to columns, the dummies of a text column above all, that it can
        # do without.
        fewer = _separates(X, y, [k for k in found if k != j]) if len(found) > 1 and j in found else []
        found = fewer or found
    return [names[j] for j in found]


def _separates(X: Floats, y: Floats, kept: Sequence[int]) -> list[int]:
    """Find columns whose combination separates the arms, as a linear program (Konis 2007, section 4)."""
    from scipy.optimize import linprog

    centre, scale = moments(X)
    Z = np.column_stack([np.ones(X.shape[0]), *((X[:, j] - centre[j]) / scale[j] for j in kept)])
    signed = Z * (2.0 * y - 1.0)[:, None]
    solved = linprog(
        -signed.sum(axis=0), A_ub=-signed, b_ub=np.zeros(len(signed)), bounds=(-1.0, 1.0), method="highs"
    )
    if solved.status != 0 or solved.fun is None or solved.x is None:
        return []
    if -float(solved.fun) < 1e-6 * X.shape[0] ** 0.5:
        return []
    return [j for k, j in enumerate(kept, start=1) if abs(float(solved.x[k])) > 1e-6]


def crossfit_propensity(
    X: Floats,
    treated: NDArray[np.bool_],
    classifier: Any,  # noqa: ANN401 - any scikit-learn classifier
    *,
    n_folds: int = 5,
    random_state: int = 0,
    rank: Ints | None = None,
) -> Floats:
    """Predict each row's propensity, strictly between 0 and 1, from a classifier that did not see the row.

    The classifier (scikit-learn's ``fit`` and ``predict_proba``) is cloned for each fold and left as it was.
    An arm with fewer rows than folds is refused, and a classifier that gives a probability of 0 or 1.

    Folds are drawn and the classifier is fitted in the order of `rank`, equal for interchangeable rows, so
    that the order of the table is irrelevant; default by `X` and the arm. Rows equal in both are
    interchangeable for the score, but get different ones where their folds differ: give a rank that tells
    them apart if what is done with the scores does.

    Chernozhukov, V. et al. (2018). Double/debiased machine learning for treatment and structural parameters.
    The Econometrics Journal 21, C1-C68, definition 3.2.

    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(200, 2))
    >>> score = crossfit_propensity(x, x[:, 0] + rng.normal(size=200) > 0, LogisticRegression())
    >>> bool(score.min() > 0 and score.max() < 1)
    True
    """
    from sklearn.base import clone
    from sklearn.model_selection import StratifiedKFold

    t = np.asarray(treated, dtype=np.int64)
    smallest = int(min(t.sum(), len(t) - t.sum()))
    if smallest < n_folds:
        raise EstimationError(
            f"cross-fitting in {n_folds} folds needs {n_folds} rows in each arm; the smaller has {smallest}",
            hint="ask for fewer folds or use the logistic score",
        )
    order = np.argsort(content_rank(X, t) if rank is None else rank, kind="stable")
    X, t = X[order], t[order]
    drawn = np.empty(len(t))
    for train, test in StratifiedKFold(n_folds, shuffle=True, random_state=random_state).split(X, t):
        with one_openmp_thread():
            model = clone(classifier).fit(X[train], t[train])
            positive = list(model.classes_).index(1)
            drawn[test] = model.predict_proba(X[test])[:, positive]
    score = np.empty(len(t))
    score[order] = drawn
    extreme = int(((score <= 0) | (score >= 1) | ~np.isfinite(score)).sum())
    if extreme:
        raise EstimationError(
            f"{type(classifier).__name__} gives {extreme} row(s) a propensity of exactly 0 or 1",
            hint="regularise or calibrate the classifier; such a row could never have had the other arm",
        )
    return score
