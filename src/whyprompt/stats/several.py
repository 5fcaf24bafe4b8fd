"""Several estimates at once: adjusted p-values and simultaneous intervals.

The max-T distribution uses how the estimates depend on each other and gives up less power than Holm's rule,
which needs nothing but the p-values: from their joint covariance, or from random signs on paired differences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt._words import format_number, p_words
from whyprompt.errors import EstimationError
from whyprompt.stats.errors import quantile
from whyprompt.stats.rules import holm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Joint = tuple["Floats", float, float]
"""Of the largest |t| of several estimates: adjusted p-values, step-down (the chance that the largest of the
|t| not larger than this one comes out at least as large, were all effects nil); the standard errors to either
side of each estimate for simultaneous intervals; and the least p that draws can show, where an adjusted p of
that size is only known to be smaller (0: no such floor)."""

# All sign patterns are used up to this number of units, random ones beyond.
_EXHAUSTIVE = 14
_BLOCK = 1 << 22
# Units of which all patterns can be numbered.
_BITS = 40
_SAME = 1e-9


def two_sided_p(estimate: float, std_error: float | None, df: float | None) -> float | None:
    """Return the two-sided p-value of zero, by the t distribution where degrees of freedom are given.

    None where there is no standard error, or none other than 0. Never 0.

    >>> round(two_sided_p(1.96, 1.0, None), 3)
    0.05
    """
    from scipy import special

    if std_error is None or not np.isfinite(std_error):
        return None
    if std_error == 0:
        # No spread in the sample is no certainty of the population.
        return None
    z = abs(estimate) / std_error
    normal = df is None or not np.isfinite(df)
    p = 2.0 * (special.ndtr(-z) if normal else special.stdtr(max(df or 0.0, 1.0), -z))
    # Doubles end before distributions do.
    return float(max(p, np.finfo(float).tiny))


def normal_scores(t: Floats, df: Sequence[float | None]) -> Floats:
    """Turn t statistics with degrees of freedom of their own into normal ones with the same p-values.

    A `df` of None is of a statistic that is normal already.

    >>> import numpy as np
    >>> normal_scores(np.array([-2.228, 1.96]), [10.0, None]).round(2).tolist()
    [-1.96, 1.96]
    """
    from scipy import special

    out = np.array(t, dtype=np.float64)
    for k, free in enumerate(df):
        if free is not None and np.isfinite(free):
            size = -float(special.ndtri(special.stdtr(max(free, 1.0), -abs(float(out[k])))))
            # Beyond the smallest number that a p-value can be, the size itself will do.
            out[k] = np.sign(out[k]) * (size if np.isfinite(size) else abs(out[k]))
    return out


def reach(critical: float, df: float | None) -> float:
    """Return how many standard errors an estimate's own t reaches where a normal one reaches `critical`.

    Examples
    --------
    >>> round(reach(1.96, 10.0), 3), reach(1.96, None)
    (2.228, 1.96)
    """
    from scipy import special

    if df is None or not np.isfinite(df):
        return critical
    return -float(special.stdtrit(max(df, 1.0), float(special.ndtr(-critical))))


def covariance_by_errors(
    error: Callable[[Floats], float | None], vectors: Sequence[Floats], *, scaled: bool = False
) -> Floats | None:
    """Give the covariance of linear functionals from the errors of their sums and differences.

    `error` gives the standard error of a functional, such as that of the effect on an outcome; None where it
    is not known, and then the covariance is. `scaled` says that each has an error of one: the matrix is then
    their correlation.

    >>> norm = lambda v: float(np.linalg.norm(v))
    >>> covariance_by_errors(norm, [np.array([1.0, 0.0]), np.array([1.0, 1.0])]).round(9).tolist()
    [[1.0, 1.0], [1.0, 2.0]]
    """
    matrix = np.eye(len(vectors))
    for a, u in enumerate(vectors):
        for b, v in enumerate(vectors[: a if scaled else a + 1]):
            plus, minus = error(u + v), error(u - v)
            if plus is None or minus is None:
                return None
            matrix[a, b] = matrix[b, a] = (plus**2 - minus**2) / 4.0
    return matrix


def correlation(covariance: Floats) -> Floats:
    """Turn a covariance into the nearest valid correlation (negative eigenvalues set to nil).

    A row without variance is uncorrelated with the others.
    """
    spread = np.sqrt(np.clip(np.diag(covariance), 0.0, None))
    safe = np.where(spread > 0, spread, 1.0)
    r = covariance / np.outer(safe, safe)
    np.fill_diagonal(r, 1.0)
    values, vectors = np.linalg.eigh((r + r.T) / 2.0)
    fixed = (vectors * np.clip(values, 0.0, None)) @ vectors.T
    scale = np.sqrt(np.diag(fixed))
    return np.asarray(fixed / np.outer(scale, scale), dtype=np.float64)


def step_down(observed: Floats, draws: Floats) -> Floats:
    """Return step-down p-values of Westfall and Young.

    `observed`, shape (k,), is the |t| of each hypothesis, `draws`, shape (draws, k), the same where all are
    true. The sample itself counts as one draw, so that none is 0.

    >>> step_down(np.array([3.0, 1.0]), np.array([[0.5, 2.0], [1.0, 0.2], [3.5, 0.1]])).tolist()
    [0.5, 0.5]
    """
    return _step_down(observed, [draws])[0]


def _step_down(observed: Floats, blocks: Iterable[Floats]) -> tuple[Floats, Floats]:
    """Do what `step_down` does with draws block by block, and give the largest |t| of each draw."""
    order = np.argsort(-observed, kind="stable")
    hits = np.zeros(len(observed))
    largest = []
    for draws in blocks:
        # From the smallest up, so that the running maximum is over the hypotheses not yet rejected.
        running = np.maximum.accumulate(draws[:, order[::-1]], axis=1)[:, ::-1]
        hits += (running >= observed[order] * (1.0 - 1e-12)).sum(axis=0)
        # A copy: a view would hold the whole block.
        largest.append(running[:, 0].copy())
    maxima = np.concatenate(largest)
    raw = np.empty(len(observed))
    raw[order] = np.maximum.accumulate((hits + 1.0) / (len(maxima) + 1.0))
    return np.minimum(raw, 1.0), maxima


def more_by_steps(named: Sequence[str], *, least: Sequence[float], level: float) -> str:
    """Say plainly why a step-down p finds what an interval that holds at once does not.

    `named` are the comparisons with an adjusted p below 1 - level and an interval at once that includes zero,
    `least` the adjusted p-values of all comparisons whose interval includes zero. Empty, or a sentence with a
    space before it.
    """
    if not named:
        return ""
    one = len(named) == 1
    how = f"p {p_words(min(least))}" if one else f"each p below {format_number(1 - level)}"
    return (
        f" The adjusted p-values, which step down, show a difference of {' and of '.join(named)} too ({how}),"
        f" though {'its interval includes' if one else 'their intervals include'} zero: intervals that hold"
        " at"
        " once ask for more."
    )


def max_t(
    t: Floats,
    correlation_matrix: Floats,
    *,
    level: float = 0.95,
    df: float | None = None,
    draws: int = 20_000,
    random_state: int = 0,
) -> Joint:
    """Adjust for several estimates whose joint distribution is normal (or t).

    For all pairs of independent means this is Tukey's studentised range test, made step-down. `t` are
    estimates over their errors, `df` the degrees of freedom of a common variance estimate.

    Hothorn, T., Bretz, F. and Westfall, P. (2008). Simultaneous inference in general parametric models.
    Biometrical Journal 50, 346-363.

    >>> _, critical, _ = max_t(np.array([2.0, 2.0]), np.ones((2, 2)))
    >>> bool(abs(critical - 1.96) < 0.03)
    True
    """
    values, vectors = np.linalg.eigh(correlation_matrix)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    return max_t_of_root(t, root, level=level, df=df, draws=draws, random_state=random_state)


def max_t_of_root(
    t: Floats,
    root: Floats,
    *,
    level: float = 0.95,
    df: float | None = None,
    draws: int = 20_000,
    random_state: int = 0,
) -> Joint:
    """Do what `max_t` does with a root of the correlation, shape (k, r): ``root @ root.T`` is it.

    Of many differences between few means, r is the number of means.
    """
    rng = np.random.default_rng(random_state)

    def blocks() -> Iterator[Floats]:
        step = max(1, _BLOCK // max(root.shape))
        for first in range(0, draws, step):
            rows = min(step, draws - first)
            sample = np.abs(rng.standard_normal((rows, root.shape[1])) @ root.T)
            if df is not None:
                sample /= np.sqrt(rng.chisquare(max(df, 1.0), rows) / max(df, 1.0))[:, None]
            yield sample

    # Simulation noise must not make an adjusted p-value smaller than the one it adjusts, nor larger than
    # Holm's, which bounds it: what no draw reached is not the reciprocal of their number.
    alone = [two_sided_p(float(value), 1.0, df) for value in t]
    most = np.array(holm(alone), dtype=np.float64)
    family, largest = _step_down(np.abs(t), blocks())
    p_values = np.clip(family, np.array(alone, dtype=float), most)
    return p_values, max(float(np.quantile(largest, level)), quantile(level, df)), 0.0


def sign_flip_max_t(
    differences: Floats, *, level: float = 0.95, draws: int = 20_000, random_state: int = 0
) -> Joint:
    """Adjust for several outcomes of the same units by flipping the signs of whole units.

    `differences`, shape (units, k), are paired, or their sums within clusters; two units at least. Exact
    where they are symmetric about zero under the null; all 2^n patterns are used for up to 14 units. No
    p-value can be below 2 / 2^n.

    Westfall, P. H. and Young, S. S. (1993). Resampling-Based Multiple Testing. Wiley, algorithm 2.8.

    >>> d = np.array([[1.0], [2.0], [3.0]])
    >>> sign_flip_max_t(d)[0].tolist()
    [0.25]
    """
    n = len(differences)
    if n < 2:
        raise EstimationError("sign flips need at least two units")
    draws = max(draws, 1 << (n - 1)) if n <= _EXHAUSTIVE else draws
    rng = np.random.default_rng(random_state)
    _, family, largest, total, exact = sign_flips(differences, np.ones(n), draws=draws, rng=rng)
    # Every pattern has its mirror image.
    finite = np.repeat(largest[np.isfinite(largest)], 2 if exact else 1)
    critical = float(np.quantile(finite, level)) if len(finite) else float("nan")
    return family, critical, 0.0 if exact else 1.0 / (total + 1.0)


def sign_flips(
    sums: Floats, sizes: Floats, *, draws: int, rng: np.random.Generator, flat: float = 0.0
) -> tuple[Floats, Floats, Floats, int, bool]:
    """Count how often effects that are symmetric about zero would look like these, by flipping units' signs.

    `sums`, shape (units, k), are of each unit's rows, `sizes` their number. `draws` random patterns are used
    where all would be more: half of the 2^n, as a pattern and its mirror image have one |t|. `flat` is the
    spread, as a share of the squares, below which effects count as all alike: it is a difference of sums that
    nearly cancel there, and rounding would make up the order of the patterns.

    Gives two-sided p-values of each column, step-down ones over all of Westfall and Young (the sample itself
    is one of its patterns, so that none is 0), the largest |t| of each pattern, the number of patterns, and
    whether all were used.
    """
    g, k = sums.shape
    exact = g <= _BITS and 1 << (g - 1) <= draws
    total = 1 << (g - 1) if exact else draws
    squares = (sums**2).sum(axis=0)

    def sizes_of_t(signs: NDArray[Any]) -> Floats:
        mean = signs @ sums / sizes.sum()
        spread = squares - 2 * mean * (signs @ (sums * sizes[:, None])) + mean**2 * (sizes**2).sum()
        error = np.sqrt(g / (g - 1) * np.maximum(spread, flat * squares)) / sizes.sum()
        return np.abs(t_of(mean, error))

    own = sizes_of_t(np.ones((1, g)))[0]
    order = np.argsort(-own, kind="stable")
    # Rounding must not separate a pattern from its own mirror image.
    bar = own[order] * (1 - _SAME)
    single, family, largest = np.zeros(k), np.zeros(k), np.empty(total)
    step = max(1, _BLOCK // max(g, k))
    for a in range(0, total, step):
        rows = min(step, total - a)
        if exact:
            bits = (np.arange(a, a + rows)[:, None] >> np.arange(g)) & 1
        else:
            bits = rng.integers(0, 2, (rows, g), dtype=np.int8)
        flipped = sizes_of_t(2.0 * bits - 1.0)[:, order]
        single += (flipped >= bar).sum(axis=0)
        # Successive maxima from the smallest observed |t| up: over the hypotheses not yet rejected.
        maxima = np.maximum.accumulate(flipped[:, ::-1], axis=1)[:, ::-1]
        family += (maxima >= bar).sum(axis=0)
        largest[a : a + rows] = maxima[:, 0]
    p, p_family = np.empty(k), np.empty(k)
    itself = 0.0 if exact else 1.0
    p[order] = (single + itself) / (total + itself)
    p_family[order] = np.maximum.accumulate(family + itself) / (total + itself)
    return p, p_family, largest, total, exact


def t_of(mean: Floats, error: Floats) -> Floats:
    """Divide; what never moves has t = 0, what always moves alike has infinity."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean == 0, 0.0, mean / error)
