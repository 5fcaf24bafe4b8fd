"""Which items gain and which are harmed, where items have repeats: what stands out of the repeats' noise.

An item's difference is noise as well as effect: one arm split into two halves of its repeats has items that
"gain" and items that "are harmed". What is reported here holds against that.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from whyprompt._words import counted, percent
from whyprompt.stats.rules import holm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.pairs import Noise, PairedItems

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


# All assignments of ranks are counted up to this number of trials of an item (of more than two values).
_EXACT = 50
_THRESHOLDS = (1 / 6, 1 / 20)


def item_changes(pairs: PairedItems, *, level: float = 0.95, noise: Noise = "independent") -> PairedItems:
    """Count the items that gain and that are harmed, beyond the noise of their repeats.

    `noise` says what makes trials of one item and arm differ: draws of their own; draws that items share (one
    set of shots for all of a repetition), so that many items can be lucky together; nothing at all.

    Each item is tested by the exact rank sum test of its own trials (Fisher's exact test where outcomes are
    0/1), once for a gain and once for harm; under "the arm changes nothing for this item" such a p-value is
    valid whatever the outcomes' distribution. A bound is the number of items less the size of the largest set
    that could be without any effect: the largest p-values are not rejected together, by how many of them are
    at most 1/6 (the least that two trials under each arm can give) or 1/20, nor by Simes' test. Gains and
    harms have half of ``1 - level`` each, so that both bounds hold at once. Where items share their noise
    only Holm's rule holds, and the items that it tells one by one are the bound. Without noise the counts
    themselves are.

    References: Benjamini, Y. and Heller, R. (2008). Screening for partial conjunction hypotheses. Biometrics
    64, 1215-1222. Meinshausen, N. and Rice, J. (2006). Estimating the proportion of false null hypotheses
    among a large number of independently tested hypotheses. Annals of Statistics 34, 373-393. Benjamini, Y.
    and Hochberg, Y. (1995). Controlling the false discovery rate. JRSS B 57, 289-300.

    >>> import pandas as pd
    >>> from whyprompt.effects.pairs import paired_differences
    >>> rows = [(i, arm, float(arm == "b" and i < 8)) for i in range(10) for arm in "ab" for _ in range(4)]
    >>> frame = pd.DataFrame(rows, columns=["item", "arm", "y"])
    >>> pairs = paired_differences(
    ...     frame, treatment="arm", unit="item", outcome="y", treated="b", control="a"
    ... )
    >>> found = item_changes(pairs)
    >>> found.higher, found.gain_at_least, found.harmed_at_least
    (8, 6, 0)
    """
    tests = item_tests(pairs)
    alpha = (1.0 - level) / 2.0
    bounds: tuple[int | None, ...] = (None, None)
    seen: tuple[int | None, ...] = (None, None)
    spread: tuple[float | None, float | None] = (None, None)
    if noise == "none":
        bounds = seen = (pairs.higher, pairs.lower)
    elif tests is not None:
        if _could_show(pairs, alpha, noise):
            told = seen_items(pairs, level=level, noise=noise)
            seen = (int((told > 0).sum()), int((told < 0).sum()))
            bounds = seen if noise == "shared" else tuple(non_null(p, alpha) for p in tests)
        spread = (None, None) if noise == "shared" else _spread(pairs)
    return replace(
        pairs,
        gain_at_least=bounds[0],
        harmed_at_least=bounds[1],
        seen_gain=seen[0],
        seen_harmed=seen[1],
        spread=spread[0],
        spread_p=spread[1],
        noise=noise,
        level=level,
    )


def _could_show(pairs: PairedItems, alpha: float, noise: Noise) -> bool:
    """Say whether these numbers of trials could show a change of any item, were all as large as can be."""
    sizes = _sizes(pairs)
    least = np.array([1.0 / math.comb(int(a + b), int(a)) for a, b in sizes])
    if noise == "shared":
        return bool(least.min() * len(least) <= alpha)
    return non_null(least, alpha) > 0


def _sizes(pairs: PairedItems) -> Ints:
    """Count each item's trials under the treated arm and under the control arm."""
    m, item, treated = len(pairs.units), pairs.trial_item, pairs.trial_treated
    return np.column_stack(
        [np.bincount(item[treated], minlength=m), np.bincount(item[~treated], minlength=m)]
    )


def item_tests(pairs: PairedItems) -> tuple[Floats, Floats] | None:
    """Test each item for a gain and for harm by the rank sum of its own trials: one-sided p-values.

    None where no item has two trials under each arm.
    """
    m = len(pairs.units)
    item, treated, y = pairs.trial_item, pairs.trial_treated, pairs.trial_outcome
    sizes = _sizes(pairs)
    if not (sizes.min(axis=1) >= 2).any():
        return None
    # Rows of one item side by side, those of the treated arm first.
    order = np.lexsort((~treated, item))
    start = np.concatenate([[0], np.cumsum(sizes.sum(axis=1))[:-1]])
    out = np.ones((2, m))
    shapes, which = np.unique(sizes, axis=0, return_inverse=True)
    for k, (n1, n0) in enumerate(shapes.tolist()):
        here = np.flatnonzero(which.ravel() == k)
        values = y[order[start[here][:, None] + np.arange(n1 + n0)]]
        out[:, here] = _rank_sum(values, n1)
    return out[0], out[1]


def _rank_sum(values: Floats, n: int) -> Floats:
    """One-sided p-values that the first `n` of each row are larger, and smaller, than the others."""
    from scipy import stats

    # Twice the midranks are whole numbers.
    ranks = np.rint(2.0 * stats.rankdata(values, axis=1)).astype(np.int64)
    total = ranks[:, :n].sum(axis=1)
    patterns, which = np.unique(np.sort(ranks, axis=1), axis=0, return_inverse=True)
    which = which.ravel()
    out = np.empty((2, len(values)))
    for k, pattern in enumerate(patterns):
        here = which == k
        out[:, here] = _tails(pattern, n, total[here])
    return out


def _tails(ranks: Ints, n: int, observed: Ints) -> Floats:
    """P(sum of n of these ranks >= observed) and P(<= observed), all choices of n equally likely."""
    from scipy import stats

    size = len(ranks)
    distinct, count = np.unique(ranks, return_counts=True)
    if len(distinct) == 1:
        return np.ones((2, len(observed)))
    if len(distinct) == 2:
        # Two values: the number of high ones among the n is hypergeometric (Fisher's exact test).
        high = (observed - n * distinct[0]) // (distinct[1] - distinct[0])
        law = stats.hypergeom(size, int(count[1]), n)
        return np.array([law.sf(high - 1), law.cdf(high)])
    if size > _EXACT:
        centre, both = n * ranks.mean(), n * (size - n) / (size - 1.0) * ranks.var()
        # The sum moves by whole numbers; half a step more keeps the tail from falling short of the exact one.
        return np.array(
            [stats.norm.sf(side * (observed - centre) - 0.5, scale=np.sqrt(both)) for side in (1.0, -1.0)]
        )
    # How many choices of j ranks have the sum s, rank by rank.
    ways = np.zeros((n + 1, int(ranks.sum()) + 1))
    ways[0, 0] = 1.0
    for rank in ranks.tolist():
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank].copy()
    share = ways[n] / ways[n].sum()
    above = np.minimum(share[::-1].cumsum()[::-1], 1.0)
    return np.array([above[observed], np.minimum(share.cumsum(), 1.0)[observed]])


def non_null(p: Floats, alpha: float) -> int:
    """Bound from below how many hypotheses are false, by independent, valid p-values.

    `alpha` is the chance of a bound that is too high: half of it for Simes' test, half for counts of small
    p-values.

    >>> non_null(np.array([1e-6, 1e-6, 0.5, 0.7]), 0.05), non_null(np.full(50, 0.1), 0.05)
    (2, 48)
    """
    from scipy import stats

    m = len(p)
    bound = 0
    for threshold in _THRESHOLDS:
        # Of t true hypotheses at most Bin(t, threshold) have such small p-values; the others are all larger.
        above = int((p > threshold * (1.0 + 1e-12)).sum())
        t = np.arange(above, m + 1)
        could = t[stats.binom.sf(t - above - 1, t, threshold) > alpha / 2.0 / len(_THRESHOLDS)]
        bound = max(bound, m - int(could.max()))
    largest = np.sort(p)[::-1]
    alpha /= 2.0
    # Simes: the largest t whose p-values are not rejected; what holds at t holds at t - 1.
    low, high = 0, m
    while low < high:
        middle = (low + high + 1) // 2
        if (largest[:middle][::-1] * middle > alpha * np.arange(1, middle + 1)).all():
            low = middle
        else:
            high = middle - 1
    return max(bound, m - low)


def seen_items(pairs: PairedItems, *, level: float = 0.95, noise: Noise = "independent") -> Ints:
    """Tell which items gain (1) or are harmed (-1), one by one; 0 where the trials do not tell.

    A quarter of ``1 - level`` is the rate of false discoveries among gains, another among harms (Benjamini
    and Hochberg), so that `item_changes` has a bound of at least one wherever an item is seen. Where items
    share their noise, half of ``1 - level`` is the chance of any false one, by Holm's rule.
    """
    from scipy import stats

    if noise == "none":
        return np.sign(pairs.changes).astype(np.int64)
    tests = item_tests(pairs)
    if tests is None:
        return np.zeros(len(pairs.units), dtype=np.int64)
    if noise == "shared":
        adjusted = [np.array(holm(p.tolist()), dtype=float) for p in tests]
        told = [p <= (1.0 - level) / 2.0 for p in adjusted]
    else:
        told = [stats.false_discovery_control(p) <= (1.0 - level) / 4.0 for p in tests]
    return told[0].astype(np.int64) - told[1].astype(np.int64)


def item_states(found: PairedItems) -> Ints:
    """Tell each item's state: beyond noise where its repeats show it, else as its trials came out."""
    if found.gain_at_least is None:
        return np.sign(found.changes).astype(np.int64)
    return seen_items(found, level=found.level, noise=found.noise)


def _spread(pairs: PairedItems) -> tuple[float | None, float | None]:
    """Estimate how far the items' effects are spread, the repeats' noise taken off, with a one-sided p."""
    from scipy import stats

    m = len(pairs.units)
    noise = np.zeros(m)
    known = np.ones(m, dtype=bool)
    for arm in (pairs.trial_treated, ~pairs.trial_treated):
        item, y = pairs.trial_item[arm], pairs.trial_outcome[arm]
        n = np.bincount(item, minlength=m).astype(float)
        known &= n >= 2
        mean = np.bincount(item, weights=y, minlength=m) / n
        squares = np.bincount(item, weights=(y - mean[item]) ** 2, minlength=m)
        noise += squares / np.maximum(n - 1.0, 1.0) / n
    k = int(known.sum())
    if k < 3:
        return None, None
    d = (pairs.treated - pairs.control)[known]
    own = (d - d.mean()) ** 2 * k / (k - 1.0) - noise[known]
    error = float(own.std(ddof=1) / np.sqrt(k))
    # Equal differences without noise: nothing is spread. Otherwise rounding would decide.
    if error <= 1e-12 * max(float(np.abs(pairs.trial_outcome).max()) ** 2, 1e-300):
        return None, None
    return float(np.sqrt(max(own.mean(), 0.0))), float(stats.t.sf(own.mean() / error, k - 1))


def change_words(found: PairedItems) -> str:
    """Say how single items fare, as far as the trials show it, without a capital and a full stop."""
    n = found.higher + found.lower + found.same
    if found.noise == "none":
        return (
            f"{found.higher} of {counted(n, 'item')} {'gains' if found.higher == 1 else 'gain'} and"
            f" {found.lower} {'is' if found.lower == 1 else 'are'} harmed, counted on these very prompts:"
            " their outcomes are scored and carry no noise of sampling"
        )
    if found.gain_at_least is None or found.harmed_at_least is None:
        items = counted(n, "item")
        moved = (
            f"{found.higher} of {items} went from 0 to 1 and {found.lower} from 1 to 0"
            if found.mcnemar_counts is not None
            else f"the outcome was higher for {found.higher} of {items} and lower for {found.lower}"
        )
        return f"in these trials {moved} (too few trials of each item to tell its change from chance)"
    gain, harmed = found.gain_at_least, found.harmed_at_least
    if not gain and not harmed:
        return "no item is seen to gain or to be harmed beyond the noise of its repeats"
    of = f" of {counted(n, 'item')}"
    first = f"at least {gain}{of} {'gains' if gain == 1 else 'gain'}" if gain else "none is seen to gain"
    second = (
        f"at least {harmed}{'' if gain else of} {'is' if harmed == 1 else 'are'} harmed"
        if harmed
        else "none is seen to be harmed"
    )
    parts = [first, second] if gain else [second, first]
    return f"{' and '.join(parts)} ({percent(found.level)} bounds, against the noise of repeats)"
