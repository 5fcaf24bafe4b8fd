"""Rosenbaum bounds: what hidden bias in the choice of arm could do to matched pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._words import format_number, p_words
from whyprompt.errors import DataError, EstimationError
from whyprompt.results import Check, Estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


# All Walsh averages are held up to this many pairs (8 million numbers); beyond it they are counted.
_WALSH_PAIRS = 4_000
DEFAULT_GAMMAS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
Side = Literal["greater", "less"]


def _row(gamma: float, p: tuple[float, float], effect: tuple[float, float]) -> Estimate:
    said = f"p {p_words(p[0])} to {p_words(p[1])}"
    if not np.isnan(effect[0]):
        said += f", effect {format_number(effect[0])} to {format_number(effect[1])}"
    named = {"p_lower": p[0], "p_upper": p[1], "effect_low": effect[0], "effect_high": effect[1]}
    return Estimate(label=f"gamma {gamma:g}", estimate=None, note=said, figures={"gamma": gamma, **named})


def _differences(treated: ArrayLike, control: ArrayLike, alternative: str) -> Floats:
    if alternative not in {"greater", "less"}:
        raise EstimationError(f"alternative={alternative!r}: choose 'greater' or 'less'")
    first, second = np.asarray(treated, dtype=float), np.asarray(control, dtype=float)
    if first.ndim != 1 or first.shape != second.shape:
        raise DataError(f"pairs have shapes {first.shape} and {second.shape}; expected two equal columns")
    for name, values in (("treated", first), ("control", second)):
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise DataError(f"the {name} outcomes have {bad} missing or infinite values")
    difference = first - second
    if not difference.any():
        raise EstimationError("no pair differs in its outcome: there is nothing to test")
    return np.asarray(difference)


def _signed_rank_p(difference: Floats, gamma: float) -> tuple[float, float]:
    from scipy import stats

    # Pairs that do not differ carry no sign, as in Wilcoxon's test.
    nonzero = difference[difference != 0]
    ranks = stats.rankdata(np.abs(nonzero))
    statistic = ranks[nonzero > 0].sum()
    bounds = []
    for share in (1 / (1 + gamma), gamma / (1 + gamma)):
        spread = np.sqrt(share * (1 - share) * (ranks @ ranks))
        bounds.append(float(stats.norm.sf((statistic - share * ranks.sum()) / spread)))
    return bounds[0], bounds[1]


def _walsh_quantile(difference: Floats, share: float, *, inner: bool = False) -> float:
    """Solve ``T(tau) = share * n (n + 1) / 2``, where T counts the Walsh averages above tau.

    T falls in steps. Where it takes the value on an interval, the solution is its middle (the usual
    Hodges-Lehmann convention: for a share of one half, the median of the Walsh averages), or with `inner` its
    end next to the median.
    """
    n = len(difference)
    total = n * (n + 1) // 2
    # Counted from below; rounding must not turn a whole number into the next one.
    position = (1 - share) * total
    whole = round(position)
    between = abs(position - whole) < 1e-9 * total
    low, high = (whole, whole + 1) if between else (int(np.ceil(position)),) * 2
    low, high = (min(max(k, 1), total) for k in (low, high))
    if inner and share != 0.5:
        low = high = high if share > 0.5 else low
    ordered = np.sort(difference)
    if n <= _WALSH_PAIRS:
        i, j = np.triu_indices(n)
        averages = np.partition((ordered[i] + ordered[j]) / 2, sorted({low - 1, high - 1}))
        return float((averages[low - 1] + averages[high - 1]) / 2)
    return (_kth_walsh(ordered, low) + (_kth_walsh(ordered, high) if high != low else 0)) / (
        1 + (high != low)
    )


def _kth_walsh(ordered: Floats, k: int) -> float:
    """Find the k-th smallest Walsh average by bisection on counts, each O(n log n), to double precision."""
    n = len(ordered)
    low, high = float(ordered[0]), float(ordered[-1])
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return high if _walsh_at_most(ordered, low, n) < k else low
        low, high = (low, middle) if _walsh_at_most(ordered, middle, n) >= k else (middle, high)


def _walsh_at_most(ordered: Floats, tau: float, n: int) -> int:
    ends = np.searchsorted(ordered, 2 * tau - ordered, side="right")
    return int(np.maximum(ends - np.arange(n), 0).sum())


def rosenbaum_bounds(
    treated: ArrayLike,
    control: ArrayLike,
    *,
    gammas: Sequence[float] = DEFAULT_GAMMAS,
    alternative: Side = "greater",
    convention: Literal["walsh", "rbounds"] = "walsh",
    alpha: float = 0.05,
) -> Check:
    """Bound the Wilcoxon signed rank p-value and the Hodges-Lehmann estimate of matched pairs.

    Parameters
    ----------
    treated, control : array_like, shape (pairs,)
        Outcomes of the two rows of each pair.
    gammas : sequence of float
        Strengths of hidden bias, each at least 1.
    alternative : {"greater", "less"}, default "greater"
        Whether the p-value speaks against no effect in favour of a positive or of a negative one.
    convention : {"walsh", "rbounds"}, default "walsh"
        How the estimate's bounds are computed; see Notes.
    alpha : float, default 0.05
        Level at which the sentence speaks of significance.

    Returns
    -------
    Check
        `overall` is the critical gamma, the strength at which the upper bound of the p-value reaches `alpha`
        (1 where the test is not significant without hidden bias). A part for each of `gammas`, by which the
        odds of treatment of the two rows of a pair differ at most, has the figures ``gamma``; ``p_lower`` and
        ``p_upper``, bounds on the one-sided p-value; ``effect_low`` and ``effect_high``, bounds on the
        Hodges-Lehmann estimate. Pairs whose outcomes do not differ carry no sign: `settings` counts them.

    Raises
    ------
    DataError
        If outcomes are missing or infinite or the columns differ in length.
    EstimationError
        If no pair differs, or a gamma is below 1.

    Notes
    -----
    The p-value is the normal approximation without continuity correction, pairs that do not differ left out,
    as in rbounds' ``psens``. The estimate's bounds are exact quantiles of the Walsh averages of all pairs,
    for every gamma. rbounds' ``hlsens`` does so for a gamma above 1, on a grid, taking the end next to the
    median where a bound is an interval; at gamma 1 it reports R's ``wilcox.test`` estimate, which leaves out
    pairs that do not differ, and so may jump between 1 and the next gamma. ``convention="rbounds"`` follows
    it, to its grid; where a whole interval solves the equation at gamma 1 it takes the middle, and R
    whichever point of it the root finder meets first.

    References
    ----------
    Rosenbaum (2002). Observational Studies, 2nd edition. Springer, sections 4.3.3 and 4.3.5.

    Examples
    --------
    >>> found = rosenbaum_bounds([3.0, 5.0, 4.0, 6.0, 7.0], [1.0, 2.0, 3.5, 2.0, 2.0], gammas=[1.0])
    >>> bound = found.parts[0]
    >>> round(bound["p_upper"], 4), bound["effect_low"]
    (0.0216, 3.0)
    """
    if convention not in {"walsh", "rbounds"}:
        raise EstimationError(f"convention={convention!r}: choose 'walsh' or 'rbounds'")
    difference = _differences(treated, control, alternative)
    signed = difference if alternative == "greater" else -difference
    as_rbounds = convention == "rbounds"

    def effect(gamma: float) -> tuple[float, float]:
        used = difference[difference != 0] if as_rbounds and gamma == 1 else difference
        low, high = (
            _walsh_quantile(used, share, inner=as_rbounds)
            for share in (gamma / (1 + gamma), 1 - gamma / (1 + gamma))
        )
        return low, high

    asked = {"test": "signed rank", "alternative": alternative, "alpha": alpha}
    return _result(difference, lambda gamma: _signed_rank_p(signed, gamma), effect, gammas, asked)


def _result(
    difference: Floats,
    p: Callable[[float], tuple[float, float]],
    effect: Callable[[float], tuple[float, float]],
    gammas: Sequence[float],
    asked: Mapping[str, Any],
) -> Check:
    alpha = asked["alpha"]
    for gamma in gammas:
        if not (np.isfinite(gamma) and gamma >= 1):
            raise EstimationError(f"gamma={gamma}: expected a number of at least 1 (1 is no hidden bias)")
    critical = _critical(lambda gamma: p(gamma)[1], alpha)
    plain_p = p(1.0)[1]
    n, tied = len(difference), int((difference == 0).sum())
    direction = "positive" if asked["alternative"] == "greater" else "negative"
    start = (
        f"In {n} matched pairs the one-sided {asked['test']} test for a {direction} effect gives"
        f" p {p_words(plain_p)} if nothing hidden decided which row of a pair was treated."
    )
    if critical == 1.0:
        rest = (
            f" That is not below {alpha:g}, so there is no significance for hidden bias to undo; the pairs do"
            " not show an effect in that direction."
        )
    else:
        rest = (
            f" It stays below {alpha:g} as long as an unmeasured cause changes the odds of treatment within a"
            f" pair by less than a factor of {critical:.2f}; a stronger one could produce the result without"
            " any effect. The data cannot say whether one exists."
        )
    ties = f" {tied} pairs do not differ and carry no sign." if tied else ""
    return Check(
        name="Rosenbaum bounds",
        verdict="untestable",
        overall=Estimate(label="critical gamma", estimate=critical, n_used=n),
        parts=tuple(_row(gamma, p(gamma), effect(gamma)) for gamma in map(float, gammas)),
        settings={**asked, "n_tied": tied},
        axis="gamma (factor on the odds of treatment within a pair)",
        sentence=start + rest + ties,
    )


def _critical(p_upper: Callable[[float], float], alpha: float) -> float:
    from scipy.optimize import brentq

    if not 0 < alpha < 0.5:
        raise EstimationError(f"alpha={alpha}: the level of a one-sided test lies between 0 and 0.5")

    def excess(log_gamma: float) -> float:
        return p_upper(float(np.exp(log_gamma))) - alpha

    if excess(0.0) >= 0:
        return 1.0
    top = 1.0
    while excess(top) < 0:
        top *= 2
    return float(np.exp(brentq(excess, 0.0, top, xtol=1e-12)))


def mcnemar_bounds(
    treated: ArrayLike,
    control: ArrayLike,
    *,
    gammas: Sequence[float] = DEFAULT_GAMMAS,
    alternative: Side = "greater",
    alpha: float = 0.05,
) -> Check:
    """Bound the exact McNemar p-value of pairs with outcomes of 0 and 1; no bounds on the effect (NaN).

    The rest as in `rosenbaum_bounds`. Source: Rosenbaum (2002), section 4.3.2.

    Examples
    --------
    >>> mcnemar_bounds([1, 1, 1, 1, 0], [0, 0, 0, 0, 0], gammas=[1.0]).parts[0]["p_upper"]
    0.0625
    """
    from scipy import stats

    difference = _differences(treated, control, alternative)
    values = set(np.unique(np.concatenate([np.asarray(treated, float), np.asarray(control, float)])).tolist())
    if not values <= {0.0, 1.0}:
        raise DataError("McNemar's test is for outcomes of 0 and 1", hint="use rosenbaum_bounds for numbers")
    wins = int((difference > 0).sum() if alternative == "greater" else (difference < 0).sum())
    discordant = int((difference != 0).sum())

    def p(gamma: float) -> tuple[float, float]:
        low, high = (
            float(stats.binom.sf(wins - 1, discordant, share))
            for share in (1 / (1 + gamma), gamma / (1 + gamma))
        )
        return low, high

    asked = {"test": "McNemar", "alternative": alternative, "alpha": alpha}
    return _result(difference, p, lambda _: (np.nan, np.nan), gammas, asked)
