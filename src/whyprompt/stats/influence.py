"""Standard errors by stacked estimating equations, in the form of influence values.

An estimator that solves ``sum psi_i(theta) = 0`` has influence values ``-J^{-1} psi_i`` with ``J`` the mean
derivative of ``psi``. Estimating nuisance parameters first and plugging them in stacks their equations on
top; the influence of a weighted mean or slope then carries the influence of the weights' parameters. The
variance is the sum of squares of the influence values, or of their sums within clusters: the sandwich.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.order import distinct

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    # Functions of parameters are differentiated by a complex step, so they must accept complex arrays.
    Function = Callable[[NDArray[Any]], NDArray[Any]]

_STEP = 1e-30


def with_intercept(X: Floats) -> Floats:
    """Put a column of ones before the covariates, shape (n, p + 1)."""
    return np.column_stack([np.ones(len(X)), X])


def derivative(function: Function, theta: Floats, j: int) -> Floats:
    """Differentiate with respect to one parameter, exact to rounding, by a complex step."""
    moved = theta.astype(complex)
    moved[j] += 1j * _STEP
    return np.asarray(function(moved).imag / _STEP, dtype=float)


def nuisance_influence(psi: Function, theta: Floats) -> Floats:
    """Influence values of the solution of ``sum psi(theta) = 0``, shape (n, k).

    ``theta_hat - theta`` is their mean, to first order. `psi` maps parameters, shape (k,), to estimating
    functions, shape (n, k); analytic, so that it also accepts complex parameters. Equations that do not
    determine the parameters are refused.
    """
    values = np.asarray(psi(theta), dtype=float)
    slope = np.column_stack([derivative(psi, theta, j).mean(axis=0) for j in range(len(theta))])
    try:
        return -np.linalg.solve(slope, values.T).T
    except np.linalg.LinAlgError as error:
        raise EstimationError(
            "the estimating equations of the weights are singular: covariates are collinear",
            hint="drop a covariate that the others determine",
        ) from error


def regression_influence(
    y: Floats,
    design: Floats,
    weights: Floats,
    *,
    weight_function: Function | None = None,
    theta: Floats | None = None,
    nuisance: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Fit a weighted regression; return its coefficients and their influence values, shape (n, q).

    The latter are divided by n: the squares of a column sum to its variance. One indicator for each arm in
    `design` gives weighted means. `weight_function` maps the weights' parameters `theta`, shape (k,), whose
    influence values are `nuisance`, shape (n, k), to the weights; left out, the weights count as known.
    """
    n = len(y)
    bread = (design * weights[:, None]).T @ design / n
    coef = np.asarray(np.linalg.solve(bread, design.T @ (weights * y) / n), dtype=float)
    score = design * (y - design @ coef)[:, None]
    values = score * weights[:, None]
    if weight_function is not None and theta is not None and nuisance is not None:
        for j in range(len(theta)):
            slope = derivative(weight_function, theta, j) @ score / n
            values += nuisance[:, [j]] * slope
    return coef, np.asarray(np.linalg.solve(bread, values.T).T / n, dtype=float)


def least_squares(design: Floats, y: Floats, rows: NDArray[np.bool_] | None = None) -> tuple[Floats, Floats]:
    """Fit a regression on some rows and predict it on all; columns may be linearly dependent.

    By the eigenvectors of the Gram matrix of the scaled columns: faster on many rows than a decomposition of
    the design, and as good for predictions. Returns what is predicted, and the leverage (the diagonal of the
    hat matrix, capped at 0.99; meaningful for the rows fitted).
    """
    fitted = design if rows is None else design[rows]
    size = np.sqrt((fitted**2).sum(axis=0))
    live = size > 0
    values, vectors = np.linalg.eigh(
        (fitted.T @ fitted)[np.ix_(live, live)] / np.outer(size[live], size[live])
    )
    keep = values > 1e-10 * values[-1]
    turn = (vectors[:, keep] / np.sqrt(values[keep])) / size[live][:, None]
    basis = design[:, live] @ turn
    coefficients = (basis if rows is None else basis[rows]).T @ (y if rows is None else y[rows])
    return np.asarray(basis @ coefficients), np.minimum((basis**2).sum(axis=1), 0.99)


def cluster_codes(cluster: NDArray[Any] | Sequence[object] | None, n: int) -> NDArray[np.intp] | None:
    """Return the number of each row's cluster, from 0; missing labels are refused."""
    if cluster is None:
        return None
    labels = np.asarray(cluster)
    if labels.shape != (n,):
        raise DataError(f"cluster has shape {labels.shape}; expected ({n},)")
    texts = labels.dtype == object and all(type(label) is str for label in labels.tolist())
    if not texts:
        missing = sum(label is None or label != label for label in labels.tolist())  # noqa: PLR0124 - NaN
        if missing:
            raise DataError(f"cluster has {missing} missing labels")
    codes = distinct(labels if texts else labels.astype(str))[1]
    if codes.max() == 0:
        raise EstimationError("all rows are in one cluster: no standard error can be computed")
    return codes


def influence_covariance(influence: Floats, codes: NDArray[np.intp] | None) -> Floats:
    """Return the covariance of estimates from their influence values, shape (n, k), divided by n.

    With clusters, values are summed within them first (times G / (G - 1)).
    """
    if codes is None:
        return np.asarray(influence.T @ influence)
    sums = np.column_stack([np.bincount(codes, weights=column) for column in influence.T])
    return np.asarray(sums.T @ sums * len(sums) / (len(sums) - 1))


def effective_sample_size(weights: Floats) -> float:
    """Kish's effective sample size, (sum w)^2 / sum w^2.

    Parameters
    ----------
    weights : ndarray, shape (n,)
        Weights, not all zero.

    Returns
    -------
    float

    References
    ----------
    Kish (1965). Survey Sampling. Wiley, section 11.7.

    Examples
    --------
    >>> import numpy as np
    >>> effective_sample_size(np.array([1.0, 1.0, 0.0]))
    2.0
    """
    return float(weights.sum() ** 2 / (weights @ weights))


def clean_arrays(
    X: NDArray[Any], names: Sequence[str] | None, **vectors: NDArray[Any]
) -> tuple[Floats, tuple[str, ...], dict[str, Floats]]:
    """Check shapes and finiteness, naming the array or the covariate that fails (`DataError`).

    `X`, shape (n, p), is without an intercept; its columns are called ``x0``, ``x1``, ... by default. The
    keywords are numeric columns, each shape (n,), by the name that a message should use. Returns `X`, the
    names and the columns as float.
    """
    matrix = np.asarray(X, dtype=float)
    if matrix.ndim != 2:
        raise DataError(f"X has {matrix.ndim} dimensions; expected 2 (rows, covariates)")
    n, p = matrix.shape
    columns = tuple(names) if names is not None else tuple(f"x{j}" for j in range(p))
    if len(columns) != p:
        raise DataError(f"names has {len(columns)} entries for {p} columns of X")
    found: dict[str, Floats] = {}
    for name, vector in vectors.items():
        try:
            values = np.asarray(vector, dtype=float)
        except (TypeError, ValueError) as error:
            raise DataError(f"{name} is not numeric: {error}") from error
        if values.shape != (n,):
            raise DataError(f"{name} has shape {values.shape}; X has {n} rows")
        found[name] = values
    for name, values in [*zip(columns, matrix.T, strict=True), *found.items()]:
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise DataError(
                f"{name!r} has {bad} missing or infinite values",
                hint="impute them, or remove those rows on purpose",
            )
    return matrix, columns, found
