"""Standard errors of differences: of independent rows, of clusters, of strata; and intervals from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from whyprompt.errors import EstimationError
from whyprompt.stats.clusters import clustered_means
from whyprompt.stats.order import codes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


def quantile(level: float, df: float | None = None) -> float:
    """Return how many standard errors an interval reaches to either side, by the normal or a t distribution.

    Examples
    --------
    >>> round(quantile(0.95), 2), round(quantile(0.95, 10), 3)
    (1.96, 2.228)
    """
    from scipy import special

    if df is None or not np.isfinite(df):
        return float(special.ndtri(0.5 + level / 2.0))
    return float(special.stdtrit(max(df, 1.0), 0.5 + level / 2.0))


def interval(
    estimate: float, std_error: float | None, *, level: float, df: float | None = None
) -> tuple[float | None, float | None]:
    """Return a two-sided interval, by the t distribution where `df` is given; None without an error.

    >>> low, high = interval(1.0, 0.5, level=0.95)
    >>> round(low, 2), round(high, 2)
    (0.02, 1.98)
    """
    if std_error is None or not np.isfinite(std_error):
        return None, None
    q = quantile(level, df)
    return estimate - q * std_error, estimate + q * std_error


def weighted_difference(
    y: Floats,
    treated: Bools,
    weights: Floats,
    *,
    kind: Literal["HC0", "HC1", "HC3", "cluster"] = "HC1",
    clusters: Sequence[NDArray[Any]] = (),
) -> tuple[float, float, int]:
    """Weighted difference of means with a robust standard error, and degrees of freedom for a t interval.

    This is ``lm(y ~ treated, weights = w)`` and ``sandwich::vcovHC`` or, with clusters,
    ``sandwich::vcovCL(type = "HC1")``, in closed form. Rows with weight 0 are not in the sample. `clusters`
    are one labelling, or two for two-way clustering. The error is NaN with fewer than three rows or two
    clusters; degrees of freedom are rows minus 2, or clusters minus 1.

    MacKinnon, J. G. and White, H. (1985). Journal of Econometrics 29, 305-325.
    Cameron, A. C., Gelbach, J. B. and Miller, D. L. (2011). Journal of Business and Economic Statistics 29,
    238-249, equation 2.5.

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

    Also gives Satterthwaite's degrees of freedom; see `clustered_means`. Rows with weight 0 are not in the
    sample. The error is NaN where an arm's rows are all in one cluster.

    >>> import numpy as np
    >>> y, team = np.array([1.0, 3.0, 4.0, 4.0, 0.0, 2.0, 1.0, 1.0]), np.repeat([0, 1, 2, 3], 2)
    >>> [round(value, 9) for value in clustered_difference(y, team < 2, np.ones(8), team)]
    [2.0, 1.0, 2.0]
    """
    use = weights > 0
    y, t, w = y[use], treated[use], weights[use]
    code, contrast = codes([cluster[use]]).astype(np.intp), np.array([1.0, -1.0])
    means, sums, df = clustered_means(y, np.column_stack([t, ~t]), w, code)
    estimate = float(means @ contrast)
    if any(np.bincount(code, weights=w * arm).max() > (1.0 - 1e-12) * w[arm].sum() for arm in (t, ~t)):
        return estimate, float("nan"), float("nan")
    error = sums @ contrast
    return estimate, float(np.sqrt(error @ error)), df(contrast)


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
    """Return the standard error of a difference within strata, and rows minus twice the strata.

    `stratum` is -1 for a row in none; every stratum holds both arms. `estimand` says whose shares weigh the
    strata. An arm with a single row in a stratum lends itself the variance pooled over that arm's other
    strata; the error is NaN where an arm has one row in every stratum.

    A ``"fixed"`` population takes the strata's shares as they are (Neyman's variance). ``"sampled"`` adds
    what their sampling adds where the effect differs between strata: the variance of the strata's effects
    beyond their own errors, over the number of rows. Without it intervals are too short where the effect
    varies with the covariates.

    Imbens, G. W. and Rubin, D. B. (2015). Causal Inference for Statistics, Social, and Biomedical Sciences,
    section 9.4.

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
