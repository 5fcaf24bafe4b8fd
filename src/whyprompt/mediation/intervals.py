"""Means over a sample of items and shares of them, with bootstrap-t intervals of whole clusters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from whyprompt.errors import MediationError
from whyprompt.results import Estimate
from whyprompt.stats import resampling
from whyprompt.stats.clusters import cluster_sums, mean_of_clusters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

DRAWS = 10_000


def mean_interval(
    values: Sequence[float] | Array,
    *,
    cluster: Sequence[str] | None = None,
    level: float = 0.95,
    binary: bool = False,
) -> Estimate:
    """Mean over items with a bootstrap-t interval.

    Whole clusters are drawn again, and each draw's mean is measured in its own standard errors (CR2), so
    that the interval follows the effects' skewness, to the side of their long tail. A t interval does not:
    on effects of heads it holds the truth nine times in ten where 95% is asked for.

    Parameters
    ----------
    values : array-like, shape (items,)
    cluster : sequence of str, optional
        Sampling units; every item its own by default.
    level : float, default 0.95
    binary : bool, default False
        Whether the values are effects on an outcome of 0 or 1: where all are alike, the binomial says how
        far the mean may be from them.

    Returns
    -------
    Estimate
        With an infinite end where so few items, or so few that differ, do not bound the mean: three items
        never do at 95%.

    Raises
    ------
    MediationError
        If there are fewer than two clusters, a value is not finite, or `level` is no level.

    References
    ----------
    Efron (1981). Nonparametric standard errors and confidence intervals. Canadian Journal of Statistics 9.
    Hall (1988). Theoretical comparison of bootstrap confidence intervals. Annals of Statistics 16.
    Bell and McCaffrey (2002). Bias reduction in standard errors for linear regression with multi-stage
    samples. Survey Methodology 28 (CR2, Satterthwaite's degrees of freedom: with clusters of one size
    G / (G - 1) and G - 1; the interval is nowhere shorter than by their t).

    Examples
    --------
    >>> i = mean_interval([0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 4.0, 9.0])
    >>> i.estimate, round(i.ci_low, 1), round(i.ci_high, 1)
    (2.75, -1.1, 7.4)
    """
    check_level(level)
    x = np.asarray(values, dtype=np.float64)[:, None]
    groups = units_of(x, cluster)
    sums, sizes = cluster_sums(x, groups)
    counts = resampling.draw_counts(len(sizes), DRAWS, np.random.default_rng(0))
    found = _interval(counts, sums, sizes, level)
    if not binary or np.ptp(x) > 0:
        return found
    low, high = bounds_of_alike(float(x[0, 0]), len(sizes), level)
    return replace(found, ci_low=low, ci_high=high)


def _interval(counts: Array, sums: Array, sizes: Array, level: float) -> Estimate:
    mean, se = mean_of_clusters(sums, sizes)
    low, high = resampling.bounds(mean, se, resampling.bootstrap_t(counts, sums, sizes), sizes, level)
    return Estimate(
        label="mean",
        estimate=float(mean[0]),
        std_error=float(se[0]),
        ci_low=float(low[0]),
        ci_high=float(high[0]),
        n_used=int(sizes.sum()),
    )


def share_interval(
    part: Array,
    whole: Array,
    *,
    cluster: Sequence[str] | None = None,
    level: float = 0.95,
    binary: bool = False,
) -> tuple[float, float]:
    """Bootstrap-t interval of mean(part) / mean(whole) over items, where the whole is told from zero.

    The delta method's error, in every draw as in the sample. Near a whole of zero no share is bounded, so
    none is given where the whole's own interval holds zero. An end is infinite where the items do not bound
    it. `binary` as in `mean_interval`: where part or whole are alike in all items, the interval is what both
    of theirs, at half the error each, leave for the ratio.

    Fieller (1954). Some problems in interval estimation. JRSS B 16.
    Hwang (1995). Fieller's problems and resampling techniques. Statistica Sinica 5.

    >>> import numpy as np
    >>> whole = np.array([1.0, 2.0, 2.5, 3.0, 4.0, 2.0, 1.5, 3.5])
    >>> [round(v, 3) for v in share_interval(0.5 * whole + [0.1, -0.1] * 4, whole)]
    [0.46, 0.545]
    """
    check_level(level)
    if binary and min(np.ptp(part), np.ptp(whole)) == 0:
        each = [
            mean_interval(v, cluster=cluster, level=(1 + level) / 2, binary=True).ends for v in (part, whole)
        ]
        if each[1][0] <= 0 <= each[1][1]:
            return -np.inf, np.inf
        ratios = [a / b for a in each[0] for b in each[1]]
        return min(ratios), max(ratios)
    x = np.column_stack([part, whole])
    sums, sizes = cluster_sums(x, units_of(x, cluster))
    counts = resampling.draw_counts(len(sizes), DRAWS, np.random.default_rng(0))
    low, high = _interval(counts, sums[:, 1:], sizes, level).ends
    if low <= 0 <= high:
        return -np.inf, np.inf
    of = (sums[:, :1], sizes, sums[:, 1])
    ends = resampling.bounds(*mean_of_clusters(*of), resampling.bootstrap_t(counts, *of), sizes, level)
    return float(ends[0][0]), float(ends[1][0])


def bounds_of_alike(value: float, units: int, level: float, reach: float = 1.0) -> tuple[float, float]:
    """Interval of a mean effect on an outcome of 0 or 1, where all sampling units have one and the same.

    No resample shows what other items would do; the binomial does. Of so many units none had another effect:
    at this level at most a share ``1 - (1 - level) ** (1 / units)`` of all have, of -`reach` or `reach` at
    the furthest: 1 for an effect, 2 for the difference of two.

    >>> [round(v, 2) for v in bounds_of_alike(0.0, 20, 0.95)], bounds_of_alike(1.0, 20, 0.95)[1]
    ([-0.14, 0.14], 1.0)
    """
    others = 1 - (1 - level) ** (1 / units)
    return value - others * (reach + value), value + others * (reach - value)


def bound_alike(figures: dict[str, Array], x: Array, units: int, level: float, reach: float = 1.0) -> None:
    """Give the columns of `x` that are alike in all items the ends of `bounds_of_alike`, in place."""
    for k in np.flatnonzero(np.ptp(x, 0) == 0):
        ends = bounds_of_alike(float(x[0, k]), units, level, reach)
        figures["ci_low"][k], figures["ci_high"][k] = ends


def check_level(level: float) -> None:
    """Refuse what is no share."""
    if not 0 < level < 1:
        raise MediationError(f"level is {level!r}, but it lies between 0 and 1")


def interval_words(low: float, high: float, percent: str = "") -> str:
    """Put an interval into words; an end that the items do not bound is said to be none."""
    name = f"{percent} interval" if percent else "interval"
    if np.isfinite([low, high]).all():
        return f"{name} {low:.3g} to {high:.3g}" if percent else f"{low:.3g} to {high:.3g}"
    if not np.isfinite([low, high]).any():
        return f"no {name}: so few items that differ do not bound it"
    if np.isfinite(low):
        return f"{name} from {low:.3g} up, with no upper end"
    return f"{name} up to {high:.3g}, with no lower end"


def units_of(x: Array, cluster: Sequence[str] | None) -> NDArray[np.intp]:
    """Give the number of each row's sampling unit; what no mean can be had of is refused."""
    if not np.isfinite(x).all():
        raise MediationError(
            "the effects hold values that are not finite", hint="find the item whose logits are NaN"
        )
    if cluster is None:
        groups = np.arange(len(x))
    else:
        if len(cluster) != len(x):
            raise MediationError(f"cluster has {len(cluster)} entries for {len(x)} items")
        groups = np.unique(np.asarray(cluster, dtype=str), return_inverse=True)[1]
    if (units := len(np.unique(groups))) < 2:
        raise MediationError(
            f"an interval needs at least two sampling units, but {len(x)} items form {units}",
            hint="add items, or give each its own cluster",
        )
    return groups
