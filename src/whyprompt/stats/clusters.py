"""CR2 errors of weighted means when rows come in clusters, fit for few of them.

Residuals within a cluster are smaller than errors, the more the larger the cluster's share of its arm: the
usual cluster-robust error (CR1) is too small where clusters are few, and G - 1 degrees of freedom are too
many where they are unequal. CR2 removes the bias exactly under independent errors of one variance;
Satterthwaite's degrees of freedom are those of the variance estimate under the same model. For weighted means
of arms both have a closed form: within a cluster and an arm everything happens in the plane of the weights
and the ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "ClusterDesign",
    "cluster_design",
    "cluster_sums",
    "known_error",
    "mean_df",
    "mean_error",
    "mean_of_clusters",
    "rows_df",
]

# A standard error below this share of the outcomes' size is rounding.
_ROUNDING = 1e-13


def cluster_sums(x: Floats, groups: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Sum each cluster's rows, clusters x columns, and count them."""
    sums = np.zeros((groups.max() + 1, x.shape[1]))
    np.add.at(sums, groups, x)
    return sums, np.bincount(groups).astype(np.float64)


def mean_of_clusters(sums: Floats, sizes: Floats, base: Floats | None = None) -> tuple[Floats, Floats]:
    """Return means and their CR2 errors, which know that one cluster may hold most.

    Parameters
    ----------
    sums : ndarray, shape (clusters, columns)
        From `cluster_sums`.
    sizes : ndarray, shape (clusters,)
    base : ndarray, shape (clusters,), optional
        With another base than the number of rows, the ratio of the two means and its delta-method error.

    Returns
    -------
    mean, std_error : ndarray, shape (columns,)

    References
    ----------
    Bell, R. M. and McCaffrey, D. F. (2002). Survey Methodology 28, 169-181.

    Examples
    --------
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

    Parameters
    ----------
    sizes : ndarray, shape (clusters,)

    Returns
    -------
    float
        Clusters less one where all are of one size; few where one is most.
    """
    if (sizes == sizes[0]).all():
        return float(len(sizes) - 1)
    n = sizes.sum()
    cross = sizes**2 / (1.0 - sizes / n) / n**3
    squares = float((sizes**2).sum()) / n**4 + float(cross.sum() ** 2 - (cross**2).sum())
    return float((1.0 / n) ** 2 / squares)


def mean_error(d: Floats, cluster: NDArray[Any] | None) -> tuple[float | None, float | None, int]:
    """Return the standard error of a mean, CR2 where items are clustered, its degrees of freedom and units.

    Parameters
    ----------
    d : ndarray, shape (items,)
    cluster : ndarray, shape (items,), optional

    Returns
    -------
    std_error, df : float or None
        None with fewer than two units.
    n_units : int

    References
    ----------
    Bell, R. M. and McCaffrey, D. F. (2002). Survey Methodology 28, 169-181.
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

    Parameters
    ----------
    d : ndarray, shape (items,)
        Differences.
    cluster : ndarray, shape (items,), optional
    size : float
        Largest outcome in size, which tells a spread from rounding.

    Returns
    -------
    std_error, df : float or None
        None with fewer than two units, and where all units change by the same amount: that the spread is nil
        in the sample does not make it nil in the population, and an interval without width, or a p of 0,
        would claim that it is.
    n_units : int
    """
    error, df, units = mean_error(d, cluster)
    if error is None or error <= _ROUNDING * size:
        return None, None, units
    return error, df, units


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClusterDesign:
    """What the errors of weighted means need to know about clusters, arms and weights.

    Attributes
    ----------
    codes : ndarray of int, shape (n,)
        Cluster of each row.
    share : ndarray, shape (n, k)
        Each row's share of each arm's weight; the columns sum to 1.
    cluster_share : ndarray, shape (G, k)
        The same by cluster. A cluster with a share of 1 is its whole arm: nothing can be known of its spread.
    size : ndarray, shape (G, k)
        Rows.
    adjusted : ndarray, shape (G, k, 2)
        The shares times the CR2 matrix, in the plane of the ones and the shares.
    tilt : ndarray, shape (G, k)
        Length of the part of the shares that is not along the ones.
    """

    codes: NDArray[np.intp]
    share: Floats
    cluster_share: Floats
    size: Floats
    adjusted: Floats
    tilt: Floats

    def means(self, y: Floats) -> Floats:
        """Return the weighted mean of each arm, shape (k,)."""
        return np.asarray(self.share.T @ y, dtype=np.float64)

    def contributions(self, y: Floats) -> Floats:
        """Return what each cluster adds to each mean's error.

        Parameters
        ----------
        y : ndarray, shape (n,)
            Outcome.

        Returns
        -------
        ndarray, shape (G, k)
            ``S.T @ S`` is the CR2 covariance of the means.
        """
        out = np.zeros(self.cluster_share.shape)
        for a, q in enumerate(self.share.T):
            rows = q > 0
            residual = y[rows] - q @ y
            code = self.codes[rows]
            count = len(out)
            ones = np.bincount(code, weights=residual, minlength=count)
            along = np.bincount(code, weights=q[rows] * residual, minlength=count)
            root = np.sqrt(np.maximum(self.size[:, a], 1.0))
            across = along - self.cluster_share[:, a] * ones / root**2
            second = np.divide(across, self.tilt[:, a], out=np.zeros(count), where=self.tilt[:, a] > 0)
            out[:, a] = self.adjusted[:, a, 0] * ones / root + self.adjusted[:, a, 1] * second
        return out

    def scaled(self, influence: Floats) -> Floats:
        """Sum influence values within clusters, each sum brought to the size of errors.

        Parameters
        ----------
        influence : ndarray, shape (n, k)
            Of each arm's mean, divided by n.

        Returns
        -------
        ndarray, shape (G, k)
            Divided by the square root of one minus the cluster's share of the arm's weight, as CR2 does where
            weights are equal; for means whose weights were estimated, CR2 itself is not defined.
        """
        count = len(self.cluster_share)
        sums = np.column_stack([np.bincount(self.codes, weights=c, minlength=count) for c in influence.T])
        spare = 1.0 - self.cluster_share
        return np.asarray(sums / np.sqrt(np.where(spare > 1e-12, spare, 1.0)), dtype=np.float64)

    def pairwise_df(self) -> Floats:
        """Return Satterthwaite's degrees of freedom of each difference of two arms' means.

        Returns
        -------
        ndarray, shape (k, k)
            Symmetric; infinite on the diagonal.
        """
        k = self.share.shape[1]
        out = np.full((k, k), np.inf)
        for a, b in combinations(range(k), 2):
            out[a, b] = out[b, a] = self.df(np.eye(k)[b] - np.eye(k)[a])
        return out

    def df(self, contrast: Floats) -> float:
        """Return Satterthwaite's degrees of freedom of a contrast's CR2 variance.

        Parameters
        ----------
        contrast : ndarray, shape (k,)

        Returns
        -------
        float
            Under independent errors of one variance. At least 1.
        """
        square = np.asarray(contrast, dtype=np.float64) ** 2
        ahead = self.adjusted[..., 0] * np.sqrt(self.size)
        inner = self.adjusted[..., 0] * self.cluster_share / np.sqrt(np.maximum(self.size, 1.0))
        inner = inner + self.adjusted[..., 1] * self.tilt
        length = (self.adjusted**2).sum(axis=-1)
        kappa = (self.share**2).sum(axis=0)
        # The variance is a sum of squares of linear forms; their inner products are a diagonal matrix plus
        # one of low rank, so that its trace and its norm need no matrix of clusters by clusters.
        own = length @ square
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


def cluster_design(arms: NDArray[np.bool_], weights: Floats, codes: NDArray[np.intp]) -> ClusterDesign:
    """Prepare the CR2 errors of weighted means.

    Parameters
    ----------
    arms : ndarray of bool, shape (n, k)
        The rows of each mean; a row is in at most one.
    weights : ndarray, shape (n,)
        Not negative. Rows with weight 0 are not in the sample.
    codes : ndarray of int, shape (n,)
        Cluster of each row, from 0.

    Returns
    -------
    ClusterDesign

    Notes
    -----
    This is ``clubSandwich::vcovCR(lm(y ~ arm, weights = w), cluster, type = "CR2")`` with its default target,
    independent errors of one variance, and ``coef_test(..., test = "Satterthwaite")``. In the regression on
    indicators of the arms, the residuals of arm a in cluster g have covariance ``I - 1 q' - q 1' + k 1 1'``
    with q the rows' shares of the arm's weight and k the sum of their squares over the whole arm. It is the
    identity outside the plane of 1 and q, and its determinant is ``(1 - Q)^2 + n_g (k - q'q)`` with Q the sum
    of q over the cluster; so the inverse root of a two by two matrix is all that is needed.

    References
    ----------
    Bell, R. M. and McCaffrey, D. F. (2002). Bias reduction in standard errors for linear regression with
    multi-stage samples. Survey Methodology 28, 169-181.
    Imbens, G. W. and Kolesar, M. (2016). Robust standard errors in small samples: some practical advice.
    Review of Economics and Statistics 98, 701-712.
    Pustejovsky, J. E. and Tipton, E. (2018). Small-sample methods for cluster-robust variance estimation and
    hypothesis testing in fixed effects models. Journal of Business and Economic Statistics 36, 672-683.

    Examples
    --------
    Four clusters of one arm and four of the other, all of one size: a t test on cluster means.

    >>> import numpy as np
    >>> codes = np.repeat(np.arange(8), 3)
    >>> treated = codes < 4
    >>> design = cluster_design(np.column_stack([treated, ~treated]), np.ones(24), codes)
    >>> round(design.df(np.array([1.0, -1.0])), 6)
    6.0
    """
    count = int(codes.max()) + 1
    share = np.where(arms, weights[:, None], 0.0)
    share = share / share.sum(axis=0)

    def within(values: Floats) -> Floats:
        return np.column_stack(
            [np.bincount(codes, weights=column, minlength=count).astype(np.float64) for column in values.T]
        )

    total, squares, size = within(share), within(share**2), within((share > 0).astype(np.float64))
    rows = np.maximum(size, 1.0)
    spread = squares - total**2 / rows
    # Rounding leaves equal weights with a tiny spread.
    tilt = np.sqrt(np.where(spread > 1e-13 * squares, spread, 0.0))
    kappa = (share**2).sum(axis=0)
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
    along = total / np.sqrt(rows)
    adjusted = np.stack([(d * along - b * tilt) * inverse, (a * tilt - b * along) * inverse], axis=-1)
    return ClusterDesign(
        codes=codes, share=share, cluster_share=total, size=size, adjusted=adjusted, tilt=tilt
    )


def rows_df(arms: NDArray[np.bool_], weights: Floats) -> Floats:
    """Return degrees of freedom of the differences of weighted means of independent rows.

    Parameters
    ----------
    arms : ndarray of bool, shape (n, k)
        The rows of each mean.
    weights : ndarray, shape (n,)
        Not negative.

    Returns
    -------
    ndarray, shape (k, k)
        Satterthwaite's, to first order: ``(sum q^2)^2 / sum q^4`` with q the rows' shares of their arm's
        weight. With a few dozen rows the normal distribution is too narrow, the more so the less equal the
        weights.

    References
    ----------
    Imbens, G. W. and Kolesar, M. (2016). Review of Economics and Statistics 98, 701-712.

    Examples
    --------
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
