"""What a sample of items says about many mean effects at once: two resamplings of whole clusters.

A studentised bootstrap asks how far a mean strays from the truth, in its own standard errors, in samples
drawn from the sample. It takes the effects' own shape, skewed as those of heads are, and it gives intervals,
familywise p-values and false discovery rates. Sign flips ask how often effects that are symmetric about zero
would look like these: exact for a symmetric effect, however few items, and blind to skewness, which they take
for an effect. Each p-value here is the larger of the two, so that a claim needs both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from whyprompt.stats.clusters import mean_df, mean_of_clusters
from whyprompt.stats.errors import quantile
from whyprompt.stats.several import sign_flips, t_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_BLOCK = 1 << 21
FLAT = 1e-5
"""Spread, as a share of the squares, below which effects count as all alike: rounding hides the rest."""
_SAME = 1e-9
_NIL = 1e-10
"""Spread of a bootstrap sample, as a share of its squares, below which it is rounding and counts as none."""


def draw_counts(g: int, draws: int, rng: np.random.Generator) -> Array:
    """How often each cluster is in each bootstrap sample, draws x clusters."""
    return rng.multinomial(g, np.full(g, 1 / g), draws).astype(np.float64)


def bootstrap_t(counts: Array, sums: Array, sizes: Array, base: Array | None = None) -> Array:
    """Signed t of each bootstrap sample's mean against the sample's own, draws x columns.

    A sample without spread whose mean is off is infinitely far off: it speaks against every claim, as it
    must, since so few distinct items cannot tell how far off they are. `base` as in `mean_of_clusters`.
    """
    base = sizes if base is None else base
    d = sums - base[:, None] * (sums.sum(0) / base.sum())
    # Rounding in a column of effects that are all alike is no spread.
    d[:, np.abs(d).max(0) <= _SAME * np.abs(sums).max(0)] = 0.0
    total = (counts @ base)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(counts > 0, counts / (1.0 - sizes / (counts @ sizes)[:, None]), 0.0)
        off = counts @ d / total
        squares, level = weights @ d**2, off**2 * (weights @ base**2)[:, None]
        spread = squares - 2 * off * (weights @ (d * base[:, None])) + level
        spread[spread <= _NIL * (squares + level)] = 0.0
        t = t_of(off, np.sqrt(spread) / np.abs(total))
    return np.where(np.isnan(t), np.inf, t)  # a ratio to nothing


def tails(star: Array, level: float) -> tuple[Array, Array]:
    """How many standard errors an interval reaches below and above, from bootstrap draws of t.

    Above, as far as draws lie below the truth: skewness makes the two unequal. The shorter one is made as
    long as a symmetric interval's: where items are few, the short tail of a skewed sample is a guess.
    """
    last = len(star) - 1
    k, both = (max(int(share * (last + 2) + _SAME) - 1, 0) for share in ((1 - level) / 2, 1 - level))
    cut = np.partition(star, (k, last - k), axis=0)
    symmetric = np.partition(np.abs(star), last - both, axis=0)[last - both]
    return np.maximum(cut[last - k], symmetric), np.maximum(-cut[k], symmetric)


def bounds(mean: Array, se: Array, star: Array, sizes: Array, level: float) -> tuple[Array, Array]:
    """Bootstrap-t interval of each mean; infinite where draws have no spread too often.

    Nowhere shorter than the t interval, whose degrees of freedom know, as draws of few clusters do not,
    that one cluster holds most items.
    """
    least = quantile(level, mean_df(sizes))
    below, above = (np.maximum(reach, least) for reach in tails(star, level))
    with np.errstate(invalid="ignore"):  # no spread at all, times no bound
        return np.where(se == 0, mean, mean - below * se), np.where(se == 0, mean, mean + above * se)


def resample(
    sums: Array, sizes: Array, *, level: float, draws: int, rng: np.random.Generator
) -> tuple[dict[str, Array], Array, bool]:
    """Judge every column by both resamplings.

    Returns
    -------
    figures : dict of str to ndarray, shape (columns,)
        By their names in an `Estimate`: the mean with its CR2 error; the bootstrap-t interval, infinite where
        the sample does not bound the mean; `p_value` of the own |t|, and `p_adjusted`, step-down of the
        largest |t|. Each p is the larger of the bootstrap's and the sign flips', and `p_adjusted` nowhere
        below `q_value`: the step-down lets a column whose mean hangs on one or two unlike items speak for
        itself alone, where the count over all columns knows how often that happens.
    q_value : ndarray, shape (columns,)
        The false discovery rate, from how often draws of any column are as large.
    exhaustive : bool
        Whether all sign patterns were used.
    """
    g, m = sums.shape
    mean, se = mean_of_clusters(sums, sizes)
    size = np.abs(t_of(mean, se))
    counts = draw_counts(g, draws, rng)
    step = max(1, _BLOCK // draws)
    bar = size * (1 - _SAME)  # a tie that rounding breaks is a tie
    ordered = np.sort(bar)
    low, high, single = np.empty((3, m))
    reached = np.zeros(m + 1)
    for start in range(0, m, step):
        at = slice(start, start + step)
        star = bootstrap_t(counts, sums[:, at], sizes)
        low[at], high[at] = bounds(mean[at], se[at], star, sizes, level)
        star = np.abs(star)
        single[at] = (star >= bar[at]).sum(0)
        reached += np.bincount(np.searchsorted(ordered, star.ravel(), "right"), minlength=m + 1)
    # How many columns' draws reach the k-th smallest |t|, a draw: counted over all columns.
    anywhere = reached[:0:-1].cumsum()[::-1][np.searchsorted(ordered, bar)] / m
    # A head that the items do not bound cannot be told from zero, so it need not be among the largest.
    bounded = np.isfinite(low) & np.isfinite(high)
    family = np.maximum(_largest(counts, sums, sizes, np.where(bounded, bar, 0.0), bounded), single)
    # The sample itself counts as one draw, so that no p is zero.
    own, pooled, step_down = ((1 + count) / (1 + draws) for count in (single, anywhere, family))
    flips, flip_family, _, _, exhaustive = sign_flips(sums, sizes, draws=draws - 1, rng=rng, flat=FLAT)
    q_value = np.asarray(stats.false_discovery_control(np.maximum(pooled, flips)))
    figures = {
        "estimate": mean,
        "std_error": se,
        "ci_low": low,
        "ci_high": high,
        "p_value": np.maximum(own, flips),
        "p_adjusted": np.maximum(np.maximum(step_down, flip_family), q_value),
    }
    return figures, q_value, exhaustive


def _largest(counts: Array, sums: Array, sizes: Array, bar: Array, bounded: NDArray[np.bool_]) -> Array:
    """In how many draws the largest |t| of the columns not beyond each one reaches it, made monotone.

    From the smallest observed |t| up: the step-down's successive maxima in one pass. A column whose mean
    hangs on an item or two is far off in the draws without them, and sets a high bar for all; it has to,
    since another column's rare items may be missing from the sample itself.
    """
    m, draws = len(bar), len(counts)
    order = np.argsort(bar, kind="stable")
    family, largest = np.empty(m), np.zeros((draws, 1))
    step = max(1, _BLOCK // draws)
    for start in range(0, m, step):
        at = order[start : start + step]
        star = np.where(bounded[at], np.abs(bootstrap_t(counts, sums[:, at], sizes)), 0.0)
        maxima = np.maximum.accumulate(np.hstack([largest, star]), axis=1)[:, 1:]
        family[at] = (maxima >= bar[at]).sum(0)
        largest = maxima[:, -1:]
    family[order] = np.maximum.accumulate(family[order][::-1])[::-1]
    return family
