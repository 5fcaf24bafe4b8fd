"""Nearest-neighbour matching, on a score or by the Mahalanobis distance.

`Nearest` is the method with its options; `match_nearest` and `match_mahalanobis` are pure functions on
arrays. Scores are compared on a grid of 1e-12, so that the order in which a sum was taken (and so the order
of the rows) does not decide a tie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from whyprompt._arguments import at_least
from whyprompt.effects.methods.greedy import Controls
from whyprompt.effects.methods.mahalanobis import dense_pairs, dense_ties, whitened, whitening_of
from whyprompt.effects.methods.matched import GRID as _GRID
from whyprompt.effects.methods.matched import (
    caliper_on,
    focal_rows,
    of_both,
    on_grid,
    set_from_pairs,
    width_of,
)
from whyprompt.effects.methods.method import one_of
from whyprompt.effects.methods.pairing import Pairing
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.mahalanobis import Metric
    from whyprompt.effects.methods.matched import Caliper, MatchedSet
    from whyprompt.effects.methods.matching import Score
    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.problem import Problem

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

Order = Literal["largest", "smallest", "random", "data", "closest"]
TieRule = Literal["sorted", "average", "first"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Nearest(Pairing):
    """Each row with the nearest rows of the other arm.

    Attributes
    ----------
    caliper : float or "none", optional
        Largest allowed distance of a pair, in `caliper_unit`; rows without a match within it are left out,
        and the effect is that on the others. Default: without replacement 0.2 standard deviations of the
        logit of the score (Austin 2011); none with replacement and by the Mahalanobis distance.
    caliper_unit : {"sd", "raw", "sd_logit", "raw_logit"}, default "sd"
        Standard deviations (over all rows) or units of what is matched on, or of the logit of the score.
    covariate_calipers : mapping of str to float, optional
        Largest allowed difference in a column, in its units.
    replace : bool, optional
        Whether a row may be matched more than once. Default: only for the ATE, which needs it.
    ratio : int, default 1
        Matches a row.
    regression_adjustment : bool, optional
        Take out what the confounders still differ by within matches, by a regression of the outcome on them
        in each arm of the matched, weighted sample. With replacement this is the bias-corrected estimator
        (Abadie and Imbens 2011; Matching's ``BiasAdjust``). False for the plain difference of the matched
        means. Default: wherever there are confounders, and two matched rows for each coefficient.
    exact : sequence of str
        Columns on which matched rows must be equal.
    order : {"largest", "smallest", "random", "data", "closest"}, optional
        Who chooses first, without replacement. See `match_nearest`.
    ties : {"sorted", "average", "first"}, default "sorted"
        With replacement: take the tied row nearest in sorted order (MatchIt), all of them (Matching), or
        the first in the table.
    tie_break : str, optional
        Column that identifies rows and orders equal scores, so that the order of the table is irrelevant.
    distance : {"logistic", "logit", "mahalanobis"}, default "logistic"
        What is matched on: the score (the logistic one where no other is given), its logit, or covariates.
    mahalanobis_on : sequence of str, optional
        Confounders that the Mahalanobis distance is over (MatchIt's ``mahvars``); default all. A caliper
        stays one on the score, which uses all confounders.
    metric : {"pooled", "sample", "diagonal"}, default "pooled"
        Covariance of the Mahalanobis distance; see `match_mahalanobis`.
    discard : {"none", "treated", "control", "both", "crump"}, default "none"
        Rows put aside for want of common support.
    neighbours : int, default 2
        Rows from which a conditional variance is estimated (Abadie-Imbens); 0 for one common variance.

    References
    ----------
    Abadie, A. and Imbens, G. W. (2011). Bias-corrected matching estimators for average treatment effects.
    Journal of Business and Economic Statistics 29, 1-11.
    Austin, P. C. (2011). Optimal caliper widths for propensity-score matching when estimating differences in
    means and differences in proportions in observational studies. Pharmaceutical Statistics 10, 150-161.

    Examples
    --------
    >>> Nearest(caliper=0.2).caliper_unit
    'sd'
    >>> Nearest(caliper=-1)
    Traceback (most recent call last):
    ...
    whyprompt.errors.EstimationError: caliper is -1; it is a distance above zero
      hint: 'none' for no caliper
    """

    name = "nearest"
    usual_caliper = True

    caliper: float | str | None = None
    caliper_unit: str = "sd"
    covariate_calipers: Mapping[str, float] | None = None
    replace: bool | None = None
    ratio: int = 1
    regression_adjustment: bool | None = None
    exact: Sequence[str] = ()
    order: Order | None = None
    ties: TieRule = "sorted"
    tie_break: str | None = None
    distance: str = "logistic"
    mahalanobis_on: Sequence[str] | None = None
    metric: Metric = "pooled"
    discard: str = "none"
    neighbours: int = 2

    def __post_init__(self) -> None:
        Pairing.__post_init__(self)
        at_least(self.ratio, 1, "ratio", most=1_000)
        at_least(self.neighbours, 0, "neighbours", most=1_000)
        if self.order is not None:
            one_of(self.order, get_args(Order), "order")
        one_of(self.ties, get_args(TieRule), "tie rule")

    def match(self, problem: Problem, plan: Plan, score: Score | None, discarded: Bools) -> MatchedSet:  # noqa: D102
        replaced = plan.estimand == "ate" if self.replace is None else self.replace
        width, limits = self.limits(problem, score, replaced=replaced)
        shared: dict[str, Any] = {
            "estimand": plan.estimand,
            "discarded": discarded,
            "strata": problem.strata,
            "ratio": self.ratio,
            "caliper": width,
            "limits": limits,
            "replace": replaced,
            "order": self.order,
            "ties": self.ties,
            "tie_rank": problem.tie_rank if self.order != "random" else _shuffled(problem, plan.random_state),
            "random_state": plan.random_state,
        }
        along = None if score is None else score[1]
        full = self.covariates(problem)
        if full is not None:
            by = along if width is not None else None
            return match_mahalanobis(full, problem.treated, score=by, metric=self.metric, **shared)
        assert along is not None
        return match_nearest(along, problem.treated, **shared)

    def tied(self, problem: Problem, matched: MatchedSet, score: Score | None) -> tuple[str, ...]:  # noqa: D102
        # In random order the seed decides between equal rows as well.
        return () if self.order == "random" else Pairing.tied(self, problem, matched, score)


def _shuffled(problem: Problem, random_state: int) -> Ints:
    """Places drawn by the seed for rows in the order of their content; also decides between equal matches."""
    n = len(problem.y)
    places = np.empty(n, dtype=np.int64)
    places[np.argsort(problem.places, kind="stable")] = np.random.default_rng([random_state, 1]).permutation(
        n
    )
    return places


def match_nearest(
    score: Floats,
    treated: Bools,
    *,
    estimand: str = "att",
    ratio: int = 1,
    replace: bool = False,
    order: Order | None = None,
    caliper: Caliper | None = None,
    limits: Sequence[tuple[Floats, float]] = (),
    strata: Ints | None = None,
    discarded: Bools | None = None,
    ties: TieRule = "sorted",
    tie_tolerance: float = 1e-5,
    tie_rank: Ints | None = None,
    random_state: int = 0,
) -> MatchedSet:
    """Match each row to the nearest rows of the other arm on a score (a propensity, or its logit).

    The ATE matches both arms and needs `replace`. `ratio` matches a row are chosen in rounds without
    replacement. Options that contradict each other are refused, and a caliper within which nothing is
    matched.

    `order` says who chooses first, without replacement: by default the rows hardest to match, which are those
    with the largest score for the ATT and the smallest for the ATC; ``"closest"`` takes the closest pair of
    the whole sample first. `caliper` is in units of `score` (see `caliper_width`), or values that rise with
    it, shape (n,), and a width in their units; `limits` are calipers on other values, such as a covariate.
    Only rows with the same code in `strata` are matched; `discarded` rows are left out.

    With replacement `ties` decides between rows equally near: ``"sorted"`` takes the one fewest places away
    in the sorted sample, as MatchIt does; ``"average"`` takes them all with equal shares, as Matching does,
    where squared differences within `tie_tolerance` of the nearest, in variances of the score, count as ties
    (Matching's ``distance.tolerance``); ``"first"`` takes the one that comes first in the table, or in
    `tie_rank`. On the LaLonde data the ATT is 1991.6, 1933.4 and 1967.9. `tie_rank` is the order among equal
    scores, by default that of the rows; the rank of an identifier makes the result independent of how the
    table is sorted.

    References: Rubin, D. B. (1973). Matching to remove bias in observational studies. Biometrics 29, 159-183.
    Stuart, E. A. (2010). Matching methods for causal inference. Statistical Science 25, 1-21.

    >>> import numpy as np
    >>> score = np.array([0.2, 0.5, 0.21, 0.55, 0.9])
    >>> matched = match_nearest(score, np.array([True, True, False, False, False]))
    >>> matched.focal.tolist(), matched.other.tolist()
    ([1, 0], [3, 2])
    """
    score = on_grid(score)
    n = len(score)
    out = np.zeros(n, dtype=bool) if discarded is None else discarded
    if ratio < 1:
        raise EstimationError(f"ratio is {ratio}; a row needs at least one match")
    if estimand == "ate" and not replace:
        raise EstimationError(
            "the ATE by nearest-neighbour matching needs replacement: without it only the smaller arm is"
            " matched",
            hint="set replace=True, ask for the ATT or the ATC, or use overlap or inverse probability"
            " weights",
        )
    _check_ties(ties, replace=replace)
    if ties != "sorted" and limits:
        raise EstimationError(f"ties={ties!r} is not defined with further calipers", hint="use ties='sorted'")

    def of_side(side: str) -> tuple[Ints, Ints]:
        rows, candidate = focal_rows(treated, side, ~out)
        within = caliper_on(score, caliper)
        sample = Controls(score, candidate, strata=strata, tie_rank=tie_rank, caliper=within)
        if replace and ties == "average":
            return _all_nearest(sample, rows, ratio, tie_tolerance, strata)
        if replace and ties == "first":
            rank = np.arange(n) if tie_rank is None else tie_rank
            pair = _all_nearest(sample, rows, ratio, 0.0, strata)
            return _first_of_each(score, *pair, ratio=ratio, rank=rank)
        if replace:
            return sample.reused(rows, ratio=ratio, limits=limits)
        rows = _in_order(score, rows, order, side, tie_rank, random_state)
        find = sample.closest if order == "closest" else sample.greedy
        return find(rows, ratio=ratio, limits=limits)

    focal, other = of_both(estimand, of_side)
    settings: dict[str, Any] = {"ratio": ratio, "replace": replace}
    if caliper is not None:
        settings["caliper_width"] = width_of(caliper)
    if replace:
        settings["ties"] = ties
    else:
        settings["order"] = order or ("smallest" if estimand == "atc" else "largest")
    return set_from_pairs(
        method="nearest",
        estimand=estimand,
        treated=treated,
        focal=focal,
        other=other,
        replace=replace,
        discarded=out,
        settings=settings,
    )


def _check_ties(ties: str, *, replace: bool) -> None:
    if ties not in {"sorted", "average", "first"}:
        raise EstimationError(f"tie rule {ties!r} is not known", hint="one of: sorted, average, first")
    if ties != "sorted" and not replace:
        raise EstimationError(f"ties={ties!r} is defined with replace=True", hint="use ties='sorted'")


def _first_of_each(score: Floats, focal: Ints, other: Ints, *, ratio: int, rank: Ints) -> tuple[Ints, Ints]:
    """Keep the `ratio` nearest of each focal row, those first in `rank` among equally near ones."""
    order = np.lexsort((rank[other], np.round(np.abs(score[focal] - score[other]), _GRID), focal))
    focal, other = focal[order], other[order]
    first = np.searchsorted(focal, focal, side="left")
    keep = np.arange(len(focal)) - first < ratio
    return focal[keep], other[keep]


def _in_order(
    score: Floats, rows: Ints, order: Order | None, side: str, tie_rank: Ints | None, random_state: int
) -> Ints:
    if tie_rank is not None:
        rows = rows[np.argsort(tie_rank[rows], kind="stable")]
    chosen = order or ("smallest" if side == "atc" else "largest")
    if chosen == "largest":
        return rows[np.argsort(-score[rows], kind="stable")]
    if chosen == "smallest":
        return rows[np.argsort(score[rows], kind="stable")]
    if chosen == "random":
        return np.random.default_rng(random_state).permutation(rows)
    if chosen in {"data", "closest"}:
        return rows
    raise EstimationError(
        f"order {chosen!r} is not known", hint="one of: largest, smallest, random, data, closest"
    )


def _all_nearest(
    sample: Controls,
    rows: Ints,
    ratio: int,
    tolerance: float,
    strata: Ints | None,
) -> tuple[Ints, Ints]:
    """Every candidate at most as far as the `ratio`-th nearest, up to the tolerance."""
    score = sample.score
    focal, other = sample.reused(rows, ratio=ratio)
    reach = np.full(len(score), -1.0)
    np.maximum.at(reach, focal, np.abs(score[focal] - score[other]))
    matched = rows[reach[rows] >= 0]
    reach = np.sqrt(reach[matched] ** 2 + tolerance * float(score.var()))
    # The bound is widened by rounding error, so that a distance equal to the nearest one is inside.
    reach = reach * (1 + 1e-12) + 1e-15
    first = np.empty(len(matched), dtype=np.int64)
    last = np.empty(len(matched), dtype=np.int64)
    block = np.zeros(len(score), dtype=np.int64) if strata is None else strata
    ordered = sample.rows
    edges = np.searchsorted(block[ordered], np.arange(int(block.max()) + 2))
    for code in np.unique(block[matched]):
        at = np.flatnonzero(block[matched] == code)
        values = score[ordered[edges[code] : edges[code + 1]]]
        first[at] = edges[code] + np.searchsorted(values, score[matched[at]] - reach[at], side="left")
        last[at] = edges[code] + np.searchsorted(values, score[matched[at]] + reach[at], side="right")
    counts = last - first
    offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    focal, other = np.repeat(matched, counts), ordered[np.repeat(first, counts) + offset]
    within = np.abs(sample.values[focal] - sample.values[other]) <= sample.width
    return focal[within], other[within]


def match_mahalanobis(
    X: Floats,
    treated: Bools,
    *,
    estimand: str = "att",
    ratio: int = 1,
    replace: bool = False,
    metric: Metric = "pooled",
    score: Floats | None = None,
    order: Order | None = None,
    caliper: float | None = None,
    limits: Sequence[tuple[Floats, float]] = (),
    strata: Ints | None = None,
    discarded: Bools | None = None,
    ties: TieRule = "sorted",
    tie_tolerance: float = 1e-5,
    tie_rank: Ints | None = None,
    random_state: int = 0,
) -> MatchedSet:
    """Match each row to the nearest rows of the other arm by the Mahalanobis distance on `X`, shape (n, p).

    The covariance of the distance is pooled within arms (Rubin 1980, MatchIt), that of the whole sample
    (Matching's ``Weight = 2``), or the variances alone (Matching's ``Weight = 1``, its default). A propensity
    `score` orders the rows and carries the `caliper`. The rest is as for `match_nearest`, but that there is
    no order ``"closest"`` and no tie rule ``"first"``; that ``"sorted"`` takes the first of equals in
    MatchIt's scan; that the default order is that of the rows where no score is given; and that
    `tie_tolerance` is of squared distances.

    Reference: Rubin, D. B. (1980). Bias reduction using Mahalanobis-metric matching. Biometrics 36, 293-298.

    >>> import numpy as np
    >>> X = np.array([[0.0, 0.0], [1.0, 5.0], [0.1, 0.0], [1.0, 4.0], [3.0, 3.0]])
    >>> match_mahalanobis(X, np.array([True, True, False, False, False])).other.tolist()
    [2, 3]
    """
    n = len(treated)
    out = np.zeros(n, dtype=bool) if discarded is None else discarded
    if caliper is not None and score is None:
        raise EstimationError(
            "a caliper needs a propensity score", hint="give score, or limits on covariates"
        )
    if estimand == "ate" and not replace:
        raise EstimationError("the ATE by Mahalanobis matching needs replace=True")
    if order == "closest":
        raise EstimationError(
            "order='closest' is offered on a score only", hint="use order='data' or 'largest'"
        )
    _check_ties(ties, replace=replace)
    if ties == "first":
        raise EstimationError("ties='first' is offered on a score only", hint="use 'sorted' or 'average'")
    whitening, direction = whitening_of(X, treated, ~out, metric=metric)
    Z = whitened(X, whitening)
    along = whitened(X, direction[:, None])[:, 0]
    bounds = list(limits)
    if caliper is not None and score is not None:
        bounds.append((on_grid(score), caliper))

    def of_side(side: str) -> tuple[Ints, Ints]:
        rows, candidate = focal_rows(treated, side, ~out)
        if not replace:
            by = np.zeros(n) if score is None else on_grid(score)
            chosen = order or ("data" if score is None else None)
            rows = _in_order(by, rows, chosen, side, tie_rank, random_state)
        found: dict[str, Any] = {"ratio": ratio, "strata": strata, "limits": bounds}
        if ties == "average":
            return dense_ties(Z, rows, np.flatnonzero(candidate), tolerance=tie_tolerance, **found)
        return dense_pairs(
            Z, along, rows, np.flatnonzero(candidate), replace=replace, tie_rank=tie_rank, **found
        )

    focal, other = of_both(estimand, of_side)
    settings: dict[str, Any] = {
        "ratio": ratio,
        "replace": replace,
        "distance": "mahalanobis",
        "metric": metric,
    }
    if replace:
        settings["ties"] = ties
    if caliper is not None:
        settings["caliper_width"] = float(caliper)
    return set_from_pairs(
        method="mahalanobis",
        estimand=estimand,
        treated=treated,
        focal=focal,
        other=other,
        replace=replace,
        discarded=out,
        settings=settings,
    )
