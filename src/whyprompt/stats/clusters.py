"""CR2 errors of weighted means when rows come in clusters, fit for few of them.

Residuals within a cluster are smaller than errors, the more the larger the cluster's share of its arm: the
usual cluster-robust error (CR1) is too small where clusters are few, and G - 1 degrees of freedom are too
many where they are unequal. CR2 removes the bias exactly under independent errors of one variance;
Satterthwaite's degrees of freedom are those of the variance estimate under the same model. For weighted means
of arms both have a closed form: within a cluster and an arm everything happens in the plane of the weights
and the ones.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


# A standard error below this share of the outcomes' size is rounding.
_ROUNDING = 1e-13


def cluster_sums(x: Floats, groups: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Sum each cluster's rows, clusters x columns, and count them."""
    sums = np.zeros((groups.max() + 1, x.shape[1]))
    np.add.at(sums, groups, x)
    return sums, np.bincount(groups).astype(np.float64)


def mean_of_clusters(sums: Floats, sizes: Floats, base: Floats | None = None) -> tuple[Floats, Floats]:
    """Return means and their CR2 errors (Bell and McCaffrey 2002), which know that one cluster may hold most.

    `sums` and `sizes` are from `cluster_sums`. With a `base`, shape (clusters,), other than the number of
    rows: the ratio of the two means and its delta-method error.

    Clusters of one row: the usual error.

    >>> [value.tolist() for value in mean_of_clusters(np.array([[1.0], [2.0], [3.0]]), np.ones(3))]
    [[2.0], [0.5773502691896257]]
    """
    n, base = sizes.sum(), sizes if base is None else base
    mean = sums.sum(0) / base.sum()
    residual = sums - base[:, None] * mean
    return mean, np.sqrt((residual**2 / (1.0 - sizes / n)[:, None]).sum(0)) / abs(base.sum())


def mean_df(sizes: Floats) -> float:
    """Return Bell and McCaffrey's degrees of freedom of a mean's CR2 error, under independent errors.

    Clusters less one where all are of one size; few where one is most.
    """
    if (sizes == sizes[0]).all():
        return float(len(sizes) - 1)
    n = sizes.sum()
    cross = sizes**2 / (1.0 - sizes / n) / n**3
    squares = float((sizes**2).sum()) / n**4 + float(cross.sum() ** 2 - (cross**2).sum())
    return float((1.0 / n) ** 2 / squares)


def mean_error(d: Floats, cluster: NDArray[Any] | None) -> tuple[float | None, float | None, int]:
    """Return the CR2 error of a mean of clustered items, its degrees of freedom, and the number of units.

    Error and degrees of freedom are None with fewer than two units.
    """
    code = np.arange(len(d)) if cluster is None else np.unique(cluster.astype(str), return_inverse=True)[1]
    sums, sizes = cluster_sums((d - d.mean())[:, None], code)
    if len(sizes) < 2:
        return None, None, len(sizes)
    _, error = mean_of_clusters(sums, sizes)
    return float(error[0]), mean_df(sizes), len(sizes)


def known_error(
    d: Floats, cluster: NDArray[Any] | None, size: float
) -> tuple[float | None, float | None, int]:
    """Return what `mean_error` does, without an error where the sample shows no spread.

    That all units change by the same amount in the sample does not make the spread nil in the population, and
    an interval without width, or a p of 0, would claim that it is. `size` is the largest outcome in size,
    which tells a spread from rounding.
    """
    error, df, units = mean_error(d, cluster)
    if error is None or error <= _ROUNDING * size:
        return None, None, units
    return error, df, units


def clustered_means(
    y: Floats,
    arms: NDArray[np.bool_],
    weights: Floats,
    codes: NDArray[np.intp],
    *,
    influence: Floats | None = None,
) -> tuple[Floats, Floats, Callable[[Floats], float]]:
    """Give the weighted means of arms, what each cluster adds to their errors, and degrees of freedom.

    `arms`, shape (n, k), are the rows of each mean; a row is in at most one. Rows with weight 0 are not in
    the sample. `influence`, shape (n, k), of each mean and divided by n, is for estimated weights, for which
    CR2 itself is not defined: its sums within clusters are divided by the square root of one minus the
    cluster's share of the arm's weight, as CR2 does where weights are equal.

    Of the sums, shape (clusters, k), ``sums.T @ sums`` is the CR2 covariance of the means; 0 for an arm that
    is in one cluster, of whose spread nothing can be known. The last maps a contrast of the means, shape
    (k,), to Satterthwaite's degrees of freedom of its CR2 variance, at least 1.

    This is ``clubSandwich::vcovCR(lm(y ~ arm, weights = w), cluster, type = "CR2")`` with its default target,
    independent errors of one variance, and ``coef_test(..., test = "Satterthwaite")``. In the regression on
    indicators of the arms, the residuals of arm a in cluster g have covariance ``I - 1 q' - q 1' + k 1 1'``
    with q the rows' shares of the arm's weight and k the sum of their squares over the whole arm. It is the
    identity outside the plane of 1 and q, and its determinant is ``(1 - Q)^2 + n_g (k - q'q)`` with Q the sum
    of q over the cluster; so the inverse root of a two by two matrix is all that is needed.

    Bell, R. M. and McCaffrey, D. F. (2002). Survey Methodology 28, 169-181.
    Imbens, G. W. and Kolesar, M. (2016). Review of Economics and Statistics 98, 701-712.
    Pustejovsky, J. E. and Tipton, E. (2018). Journal of Business and Economic Statistics 36, 672-683.

    Four clusters of one arm and four of the other, all of one size: a t test on cluster means.

    >>> import numpy as np
    >>> codes = np.repeat(np.arange(8), 3)
    >>> treated = codes < 4
    >>> _, _, df = clustered_means(np.arange(24.0), np.column_stack([treated, ~treated]), np.ones(24), codes)
    >>> round(df(np.array([1.0, -1.0])), 6)
    6.0
    """
    share = np.where(arms, weights[:, None], 0.0)
    share = share / share.sum(axis=0)
    means = np.asarray(share.T @ y, dtype=np.float64)
    parts = (share, share**2, (share > 0).astype(float))
    if influence is not None:
        return means, *within_clusters(*(_within(part, codes) for part in (*parts, influence)))
    residual = np.where(share > 0, y[:, None] - means, 0.0)
    sums = [_within(part, codes) for part in (*parts, residual, share * residual)]
    return means, *within_clusters(*sums[:3], residuals=(sums[3], sums[4]))


def within_clusters(
    total: Floats,
    squares: Floats,
    size: Floats,
    influence: Floats | None = None,
    *,
    residuals: tuple[Floats, Floats] | None = None,
) -> tuple[Floats, Callable[[Floats], float]]:
    """Give what `clustered_means` does but the means, from sums within clusters, each (clusters, k).

    They are those of the rows' shares of their arm's weight, of the squares of the shares, of the rows, and
    of the influence or, where weights are known, of the residuals and of shares times residuals.
    """
    # Of the shares within a cluster: the length of what is not along the ones. Rounding leaves equal weights
    # with a tiny one.
    spread = squares - total**2 / np.maximum(size, 1.0)
    tilt = np.sqrt(np.where(spread > 1e-13 * squares, spread, 0.0))
    kappa = squares.sum(axis=0)
    adjusted = _adjusted(total, size, tilt, kappa)

    def df(contrast: Floats) -> float:
        # An arm that is not in the contrast adds nothing.
        c = np.asarray(contrast, dtype=np.float64)
        here = np.flatnonzero(c)
        parts = (total[:, here], size[:, here], tilt[:, here], kappa[here])
        return _satterthwaite(c[here] ** 2, *parts, (adjusted[0][:, here], adjusted[1][:, here]))

    if influence is not None:
        spare = 1.0 - total
        return influence / np.sqrt(np.where(spare > 1e-12, spare, 1.0)), df
    assert residuals is not None
    ones, along = residuals
    across = along - total * ones / np.maximum(size, 1.0)
    second = np.divide(across, tilt, out=np.zeros_like(tilt), where=tilt > 0)
    return adjusted[0] * ones / np.sqrt(np.maximum(size, 1.0)) + adjusted[1] * second, df


def pairwise_df(df: Callable[[Floats], float], k: int) -> Floats:
    """Degrees of freedom of each difference of two of k means, symmetric and infinite on the diagonal."""
    out = np.full((k, k), np.inf)
    for a, b in combinations(range(k), 2):
        out[a, b] = out[b, a] = df(np.eye(k)[b] - np.eye(k)[a])
    return out


def _within(values: Floats, codes: NDArray[np.intp]) -> Floats:
    """Sum each column within clusters, shape (G, k)."""
    return np.column_stack([np.bincount(codes, weights=column) for column in values.T])


def _adjusted(total: Floats, size: Floats, tilt: Floats, kappa: Floats) -> tuple[Floats, Floats]:
    """Multiply the shares of each cluster and arm by the CR2 matrix: parts along the ones, and across."""
    first = 1.0 - 2.0 * total + kappa * size
    cross = -np.sqrt(size) * tilt
    root = np.sqrt(np.maximum(first - cross**2, 0.0))
    norm = np.sqrt(first + 1.0 + 2.0 * root)
    # The inverse of the root of a two by two matrix M, (M + r I) / norm with r the root of its determinant.
    a, d = (first + root) / norm, (1.0 + root) / norm
    b = cross / norm
    determinant = a * d - b**2
    alive = (size > 0) & (1.0 - total > 1e-12)
    inverse = np.divide(1.0, determinant, out=np.zeros_like(determinant), where=alive)
    along = total / np.sqrt(np.maximum(size, 1.0))
    return (d * along - b * tilt) * inverse, (a * tilt - b * along) * inverse


def _satterthwaite(
    square: Floats,
    total: Floats,
    size: Floats,
    tilt: Floats,
    kappa: Floats,
    adjusted: tuple[Floats, Floats],
) -> float:
    """Degrees of freedom of a contrast with these squared coefficients.

    The variance is a sum of squares of linear forms; their inner products are a diagonal matrix plus one of
    low rank, so that its trace and its norm need no matrix of clusters by clusters.
    """
    ahead = adjusted[0] * np.sqrt(size)
    inner = adjusted[0] * total / np.sqrt(np.maximum(size, 1.0)) + adjusted[1] * tilt
    own = (adjusted[0] ** 2 + adjusted[1] ** 2) @ square
    low = (kappa * ahead**2 - 2.0 * ahead * inner) @ square
    frame = np.hstack([ahead, inner])
    k = len(square)
    middle = np.zeros((2 * k, 2 * k))
    middle[:k, :k] = np.diag(square * kappa)
    middle[:k, k:] = middle[k:, :k] = -np.diag(square)
    turned = middle @ (frame.T @ frame)
    norm = float(own @ own + 2.0 * own @ low + np.trace(turned @ turned))
    trace = float((own + low).sum())
    return max(trace**2 / norm, 1.0) if norm > 0 else 1.0


def rows_df(arms: NDArray[np.bool_], weights: Floats) -> Floats:
    """Return degrees of freedom of the differences of weighted means of independent rows, shape (k, k).

    Satterthwaite's, to first order: ``(sum q^2)^2 / sum q^4`` with q the rows' shares of their arm's weight.
    With a few dozen rows the normal distribution is too narrow, the more so the less equal the weights
    (Imbens and Kolesar 2016). `arms`, shape (n, k), are the rows of each mean.

    >>> import numpy as np
    >>> treated = np.arange(30) < 15
    >>> round(float(rows_df(np.column_stack([treated, ~treated]), np.ones(30))[0, 1]), 6)
    30.0
    """
    second, fourth = np.empty(arms.shape[1]), np.empty(arms.shape[1])
    for a, arm in enumerate(arms.T):
        q2 = (weights[arm] / weights[arm].sum()) ** 2
        second[a], fourth[a] = q2.sum(), q2 @ q2
    both = (second[:, None] + second[None, :]) ** 2 / (fourth[:, None] + fourth[None, :])
    return np.asarray(np.maximum(both, 1.0), dtype=np.float64)
