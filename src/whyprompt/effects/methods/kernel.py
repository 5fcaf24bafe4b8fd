"""Kernel matching: every row of the other arm within a bandwidth, weighted by its nearness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import at_least
from whyprompt.effects.methods.matched import (
    MatchedSet,
    focal_rows,
    on_grid,
    require_matches,
    set_from_pairs,
    weights_of_use,
)
from whyprompt.effects.methods.matching import Matching
from whyprompt.effects.methods.method import distance_above_zero, one_of
from whyprompt.effects.methods.smoother import Smoother, window_of
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.matching import Score
    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.problem import Problem

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

_KERNELS = ("epanechnikov", "gaussian", "biweight")
# Pairs are listed up to here; beyond it polynomial kernels are summed without a list, and the Gaussian up to
# the second number is.
_LISTED, _MAX_PAIRS = 2_000_000, 60_000_000
_POWERS = {"epanechnikov": 1, "biweight": 2}
# Beyond this many bandwidths a Gaussian weight is below 1e-14 of its peak.
_GAUSSIAN_REACH = 8.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel(Matching):
    """Each row with all rows of the other arm within a bandwidth, weighted by their nearness.

    Attributes
    ----------
    kernel : {"epanechnikov", "gaussian", "biweight"}, default "epanechnikov"
    bandwidth : float, optional
        In units of what is matched on; see `match_kernel`.
    exact, discard, neighbours
        As in `Nearest`.
    distance : {"logistic", "logit"}, default "logistic"
        The score, or its logit.
    regression_adjustment : bool, optional
        As in `Nearest`.
    """

    name = "kernel"

    kernel: str = "epanechnikov"
    bandwidth: float | None = None
    exact: Sequence[str] = ()
    distance: str = "logistic"
    discard: str = "none"
    neighbours: int = 2
    regression_adjustment: bool | None = None

    def __post_init__(self) -> None:
        Matching.__post_init__(self)
        one_of(self.kernel, _KERNELS, "kernel")
        distance_above_zero(self.bandwidth, "bandwidth")
        at_least(self.neighbours, 0, "neighbours", most=1_000)

    def match(self, problem: Problem, plan: Plan, score: Score | None, discarded: Bools) -> MatchedSet:  # noqa: D102
        assert score is not None
        return match_kernel(
            score[1],
            problem.treated,
            estimand=plan.estimand,
            kernel=self.kernel,
            bandwidth=self.bandwidth,
            strata=problem.strata,
            discarded=discarded,
        )


def silverman_bandwidth(score: Floats) -> float:
    """Return Silverman's bandwidth, 0.9 min(sd, IQR / 1.34) n^(-1/5), for the rows that are averaged over.

    Reference: Silverman, B. W. (1986). Density Estimation for Statistics and Data Analysis, equation 3.31.

    >>> import numpy as np
    >>> round(silverman_bandwidth(np.linspace(0, 1, 101)), 4)
    0.1048
    """
    sd = float(score.std(ddof=1))
    low, high = np.quantile(score, [0.25, 0.75])
    spread = min(sd, float(high - low) / 1.34) or sd
    return float(0.9 * spread * len(score) ** -0.2)


def match_kernel(
    score: Floats,
    treated: Bools,
    *,
    estimand: str = "att",
    kernel: str = "epanechnikov",
    bandwidth: float | None = None,
    strata: Ints | None = None,
    discarded: Bools | None = None,
) -> MatchedSet:
    """Match each row to a kernel-weighted average of the other arm.

    `bandwidth` is in units of `score`; by default Silverman's rule on the arm that is averaged, as `settings`
    states. A row with no counterpart within the bandwidth (and its stratum) is not matched. More than two
    million pairs are not listed, but summed as they are needed (`Smoother`); the Gaussian kernel, for which
    that is not possible, is refused where its pairs would not fit memory.

    Reference: Heckman, J. J., Ichimura, H. and Todd, P. (1998). Matching as an econometric evaluation
    estimator. Review of Economic Studies 65, 261-294.

    >>> import numpy as np
    >>> score = np.array([0.5, 0.4, 0.5, 0.6])
    >>> matched = match_kernel(score, np.array([True, False, False, False]), bandwidth=0.2)
    >>> np.round(matched.share, 3).tolist()
    [0.3, 0.4, 0.3]
    """
    score = on_grid(score)
    one_of(kernel, _KERNELS, "kernel")
    if bandwidth is not None and not (np.isfinite(bandwidth) and bandwidth > 0):
        raise EstimationError(f"the bandwidth is {bandwidth}; it must be a positive number")
    out = np.zeros(len(score), dtype=bool) if discarded is None else discarded
    sides: list[tuple[Ints, Ints, float]] = []
    used: dict[str, Any] = {"kernel": kernel}
    for side in ("att", "atc") if estimand == "ate" else (estimand,):
        rows, candidate = focal_rows(treated, side, ~out)
        others = np.flatnonzero(candidate)
        h = silverman_bandwidth(score[others]) if bandwidth is None and len(others) > 1 else bandwidth
        if h is None or h <= 0:
            raise EstimationError(
                "no bandwidth can be chosen: the scores of the other arm do not vary",
                hint="give a bandwidth, or use exact matching",
            )
        arm = "control" if side == "att" else "treated"
        used["bandwidth" if estimand != "ate" else f"bandwidth_{arm}"] = float(h)
        sides += [(*both, float(h)) for both in _by_stratum(rows, others, strata)]
    if bandwidth is None:
        used["bandwidth_rule"] = "Silverman"
    shared: dict[str, Any] = {
        "method": "kernel",
        "estimand": estimand,
        "replace": True,
        # Smooth in the score, so that resampling rows is valid as well.
        "errors": ("abadie_imbens", "wild_bootstrap", "bootstrap"),
        "discarded": out,
        "settings": used,
    }
    reached = [_reached(score, *side, kernel) for side in sides]
    total = sum(int(counts.sum()) for _, counts in reached)
    if total > _LISTED and kernel in _POWERS:
        windows = (window_of(score, *side, _POWERS[kernel]) for side in sides)
        smoother = Smoother(len(score), tuple(windows))
        require_matches(np.flatnonzero(smoother.is_focal), method="kernel", hint="give a wider bandwidth")
        empty = np.zeros(0, dtype=np.int64)
        weights = weights_of_use(smoother.is_focal.astype(float), smoother.received(1), treated, estimand)
        return MatchedSet(
            weights=weights,
            focal=empty,
            other=empty,
            share=empty.astype(float),
            stratum=None,
            kernel=smoother,
            **shared,
        )
    if total > _MAX_PAIRS:
        raise EstimationError(
            f"kernel matching would weigh {total:.0e} pairs",
            hint="use the epanechnikov kernel, which needs no list of pairs, or a smaller bandwidth",
        )
    parts = [_weigh(score, *side, kernel, *reach) for side, reach in zip(sides, reached, strict=True)]
    focal, other, weight = (np.concatenate([part[k] for part in parts]) for k in range(3))
    sums = np.bincount(focal, weights=weight, minlength=len(score))
    return set_from_pairs(treated=treated, focal=focal, other=other, share=weight / sums[focal], **shared)


def _by_stratum(rows: Ints, others: Ints, strata: Ints | None) -> list[tuple[Ints, Ints]]:
    """Split the rows of both sides by their stratum."""
    if strata is None:
        return [(rows, others)]
    parts = []
    for side in (rows, others):
        order = side[np.argsort(strata[side], kind="stable")]
        codes, first = np.unique(strata[order], return_index=True)
        parts.append(dict(zip(codes.tolist(), np.split(order, first[1:]), strict=True)))
    return [(parts[0][code], parts[1][code]) for code in parts[0] if code in parts[1]]


def _reached(score: Floats, rows: Ints, others: Ints, h: float, kernel: str) -> tuple[Ints, Ints]:
    """Return, of each row, the first of the others in order of the score within reach, and their number."""
    ordered = np.sort(score[others])
    reach = h * (_GAUSSIAN_REACH if kernel == "gaussian" else 1.0)
    first = np.searchsorted(ordered, score[rows] - reach, side="left")
    return first, np.searchsorted(ordered, score[rows] + reach, side="right") - first


def _weigh(
    score: Floats, rows: Ints, others: Ints, h: float, kernel: str, first: Ints, counts: Ints
) -> tuple[Ints, Ints, Floats]:
    ordered = others[np.argsort(score[others], kind="stable")]
    offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    focal = np.repeat(rows, counts)
    other = ordered[np.repeat(first, counts) + offset]
    u = (score[focal] - score[other]) / h
    weight = np.exp(-0.5 * u * u)
    if kernel in _POWERS:
        weight = np.maximum(1.0 - u * u, 0.0) ** _POWERS[kernel]
    keep = weight > 0
    return focal[keep], other[keep], weight[keep]
