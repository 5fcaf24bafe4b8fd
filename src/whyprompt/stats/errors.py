"""Standard errors of weighted means and their differences: of independent rows, of clusters, of strata.

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
from typing import TYPE_CHECKING, Literal

import numpy as np

from whyprompt.errors import EstimationError
from whyprompt.stats.order import codes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

__all__ = [
    "ClusterDesign",
    "cluster_design",
    "cluster_sums",
    "clustered_difference",
    "interval",
    "mean_df",
    "mean_of_clusters",
    "quantile",
    "rows_df",
    "stratified_error",
    "weighted_difference",
]


def quantile(level: float, df: float | None = None) -> float:
    """Return how many standard errors an interval reaches to either side.

    Parameters
    ----------
    level : float
        Between 0 and 1.
    df : float, optional
        Degrees of freedom, at least 1; default the normal distribution.

    Returns
    -------
    float

    Examples
    --------
    >>> round(quantile(0.95), 2), round(quantile(0.95, 10), 3)
    (1.96, 2.228)
    """
    from scipy import stats

    law = stats.norm if df is None else stats.t(max(df, 1.0))
    return float(law.ppf(0.5 + level / 2.0))


def interval(
    estimate: float, std_error: float | None, *, level: float, df: float | None = None
) -> tuple[float | None, float | None]:
    """Return a two-sided interval, by the t distribution where degrees of freedom are given.

    Parameters
    ----------
    estimate : float
    std_error : float or None
    level : float
        Between 0 and 1.
    df : float, optional
        Degrees of freedom; default the normal distribution.

    Returns
    -------
    low, high : float or None
        None where there is no standard error.

    Examples
    --------
    >>> low, high = interval(1.0, 0.5, level=0.95)
    >>> round(low, 2), round(high, 2)
    (0.02, 1.98)
    """
    if std_error is None or not np.isfinite(std_error):
        return None, None
    q = quantile(level, df)
    return estimate - q * std_error, estimate + q * std_error


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


def weighted_difference(
    y: Floats,
    treated: Bools,
    weights: Floats,
    *,
    kind: Literal["HC0", "HC1", "HC3", "cluster"] = "HC1",
    clusters: Sequence[NDArray[Any]] = (),
) -> tuple[float, float, int]:
    """Weighted difference of means with a robust standard error.

    This is ``lm(y ~ treated, weights = w)`` and ``sandwich::vcovHC`` or, with clusters,
    ``sandwich::vcovCL(type = "HC1")``, in closed form.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Outcome.
    treated : ndarray of bool, shape (n,)
        The arm.
    weights : ndarray, shape (n,)
        Rows with weight 0 are not in the sample.
    kind : {"HC0", "HC1", "HC3", "cluster"}, default "HC1"
        Kind of robustness.
    clusters : sequence of ndarray, each shape (n,)
        For ``"cluster"``: one labelling, or two for two-way clustering.

    Returns
    -------
    estimate : float
    std_error : float
        NaN with fewer than three rows or two clusters.
    df : int
        Degrees of freedom for a t interval: rows minus 2, or clusters minus 1.

    References
    ----------
    MacKinnon, J. G. and White, H. (1985). Journal of Econometrics 29, 305-325.
    Cameron, A. C., Gelbach, J. B. and Miller, D. L. (2011). Robust inference with multiway clustering.
    Journal of Business and Economic Statistics 29, 238-249, equation 2.5.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([3.0, 5.0, 1.0, 2.0])
    >>> arm = np.array([True, True, False, False])
    >>> weighted_difference(y, arm, np.ones(4), kind="cluster", clusters=[np.array([0, 1, 0, 1])])[0]
    2.5
    """
    use = weights > 0
    y, t, w = y[use], treated[use], weights[use]
    n = len(y)
    total_t, total_c = float(w[t].sum()), float(w[~t].sum())
    mean_t, mean_c = float(w[t] @ y[t]) / total_t, float(w[~t] @ y[~t]) / total_c
    share = np.where(t, w / total_t, w / total_c)
    psi = np.where(t, 1.0, -1.0) * share * (y - np.where(t, mean_t, mean_c))
    estimate = mean_t - mean_c
    if kind == "cluster":
        labels = [codes([label[use]]) for label in clusters]
        variance, df = _cluster_variance(psi, labels, n)
        return estimate, float(np.sqrt(variance)), df
    if n < 3:
        return estimate, float("nan"), 0
    if kind == "HC3":
        # A row that is its whole arm has leverage 1 and no residual to judge the arm's spread by.
        psi = np.divide(psi, 1.0 - share, out=np.full(n, np.nan), where=share < 1)
    factor = n / (n - 2) if kind == "HC1" else 1.0
    return estimate, float(np.sqrt(factor * (psi @ psi))), n - 2


def clustered_difference(
    y: Floats, treated: Bools, weights: Floats, cluster: NDArray[Any]
) -> tuple[float, float, float]:
    """Weighted difference of means with the CR2 error of clustered rows, fit for few clusters.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Outcome.
    treated : ndarray of bool, shape (n,)
        The arm.
    weights : ndarray, shape (n,)
        Rows with weight 0 are not in the sample.
    cluster : ndarray, shape (n,)
        Sampling unit.

    Returns
    -------
    estimate : float
    std_error : float
        NaN where an arm's rows are all in one cluster.
    df : float
        Satterthwaite's.

    References
    ----------
    Bell, R. M. and McCaffrey, D. F. (2002). Survey Methodology 28, 169-181.
    Imbens, G. W. and Kolesar, M. (2016). Review of Economics and Statistics 98, 701-712.
    Pustejovsky, J. E. and Tipton, E. (2018). Journal of Business and Economic Statistics 36, 672-683.

    Examples
    --------
    >>> import numpy as np
    >>> y, team = np.array([1.0, 3.0, 4.0, 4.0, 0.0, 2.0, 1.0, 1.0]), np.repeat([0, 1, 2, 3], 2)
    >>> [round(value, 9) for value in clustered_difference(y, team < 2, np.ones(8), team)]
    [2.0, 1.0, 2.0]
    """
    use = weights > 0
    y, t, w = y[use], treated[use], weights[use]
    design = cluster_design(np.column_stack([t, ~t]), w, codes([cluster[use]]).astype(np.intp))
    means = design.means(y)
    contrast = np.array([1.0, -1.0])
    if design.cluster_share.max() > 1.0 - 1e-12:
        return float(means @ contrast), float("nan"), float("nan")
    sums = design.contributions(y) @ contrast
    return float(means @ contrast), float(np.sqrt(sums @ sums)), design.df(contrast)


def _cluster_variance(psi: Floats, labels: Sequence[Ints], n: int) -> tuple[float, int]:
    def one(label: Ints) -> tuple[float, int]:
        sums = np.bincount(label, weights=psi)
        g = len(sums)
        if g < 2 or n < 3:
            return float("nan"), g
        return float(sums @ sums) * g / (g - 1) * (n - 1) / (n - 2), g

    parts = [one(label) for label in labels]
    df = min(g for _, g in parts) - 1
    if len(parts) == 1:
        return parts[0][0], df
    both = one(codes(list(labels)))[0]
    # Two-way variance can come out below either one-way variance in small samples; it is not trusted then.
    return max(parts[0][0] + parts[1][0] - both, parts[0][0], parts[1][0]), df


def stratified_error(
    y: Floats,
    treated: Bools,
    stratum: Ints,
    *,
    estimand: str,
    population: Literal["sampled", "fixed"] = "sampled",
) -> tuple[float, int]:
    """Return the standard error of a difference within strata.

    An arm with a single row in a stratum lends itself the variance pooled over that arm's other strata.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Outcome.
    treated : ndarray of bool, shape (n,)
        The arm.
    stratum : ndarray of int, shape (n,)
        -1 for a row in none; every stratum holds both arms.
    estimand : {"att", "atc", "ate"}
        Whose shares weigh the strata.
    population : {"sampled", "fixed"}, default "sampled"
        ``"fixed"`` takes the strata's shares as they are (Neyman's variance). ``"sampled"`` adds what
        their sampling adds where the effect differs between strata: the variance of the strata's effects
        beyond their own errors, over the number of rows. Without it intervals are too short where the
        effect varies with the covariates.

    Returns
    -------
    std_error : float
        NaN where an arm has one row in every stratum.
    df : int
        Rows minus twice the strata.

    References
    ----------
    Imbens, G. W. and Rubin, D. B. (2015). Causal Inference for Statistics, Social, and Biomedical
    Sciences, section 9.4.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([1.0, 3.0, 0.0, 2.0])
    >>> arm = np.array([True, True, False, False])
    >>> se, df = stratified_error(y, arm, np.zeros(4, dtype=np.int64), estimand="att")
    >>> round(se, 4), df
    (1.4142, 2)
    """
    if population not in {"sampled", "fixed"}:
        raise EstimationError(f"population {population!r} is not known", hint="one of: sampled, fixed")
    inside = stratum >= 0
    n_strata = int(stratum.max()) + 1
    counts, means, variances = [], [], []
    for arm in (treated & inside, ~treated & inside):
        code, values = stratum[arm], y[arm]
        n = np.bincount(code, minlength=n_strata).astype(float)
        mean = np.bincount(code, weights=values, minlength=n_strata) / n
        squares = np.bincount(code, weights=(values - mean[code]) ** 2, minlength=n_strata)
        free = float((n - 1)[n > 1].sum())
        pooled = float(squares.sum()) / free if free > 0 else float("nan")
        counts.append(n)
        means.append(mean)
        variances.append(np.where(n > 1, squares / np.maximum(n - 1, 1), pooled))
    target = {"att": counts[0], "atc": counts[1]}.get(estimand, counts[0] + counts[1])
    share = target / target.sum()
    own = variances[0] / counts[0] + variances[1] / counts[1]
    variance = float((share**2 * own).sum())
    if population == "sampled":
        effect = means[0] - means[1]
        between = float(share @ (effect - share @ effect) ** 2 - (share * (1.0 - share)) @ own)
        variance += max(between, 0.0) / float(target.sum())
    return float(np.sqrt(variance)), max(int(inside.sum()) - 2 * n_strata, 1)


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
