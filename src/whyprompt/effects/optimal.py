"""Optimal pair matching: the assignment with the smallest total distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.effects._mahalanobis import whitened, whitening_of
from whyprompt.effects._matched import MatchedSet, focal_rows, on_grid, set_from_pairs
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

__all__ = ["match_optimal"]

_CELLS = 120_000_000


def match_optimal(
    treated: Bools,
    *,
    score: Floats | None = None,
    X: Floats | None = None,
    estimand: str = "att",
    ratio: int = 1,
    caliper: float | None = None,
    limits: Sequence[tuple[Floats, float]] = (),
    strata: Ints | None = None,
    discarded: Bools | None = None,
) -> MatchedSet:
    """Match without replacement so that the sum of distances is the smallest possible.

    With a caliper, as many rows as possible are matched first, and among those matchings the sum is
    smallest. On a score many pairings of the same rows have that sum; the one in order of the score is
    taken.

    Parameters
    ----------
    treated : ndarray of bool, shape (n,)
        The arm.
    score : ndarray, shape (n,), optional
        Distance is the absolute difference in this.
    X : ndarray, shape (n, p), optional
        Without `score`: distance is Mahalanobis's in these.
    estimand : {"att", "atc"}, default "att"
        Whose counterfactual is looked for.
    ratio : int, default 1
        Matches a row; a row gets all of them or, with a caliper, as many as there are.
    caliper : float, optional
        Largest allowed difference in `score`.
    limits, strata, discarded
        As for `match_nearest`.

    Returns
    -------
    MatchedSet

    Raises
    ------
    EstimationError
        If the estimand is the ATE, the cost matrix would not fit memory, or nothing can be matched.

    References
    ----------
    Rosenbaum, P. R. (1989). Optimal matching for observational studies. JASA 84, 1024-1032.

    Examples
    --------
    >>> import numpy as np
    >>> score = np.array([0.5, 0.6, 0.55, 0.45])
    >>> matched = match_optimal(np.array([True, True, False, False]), score=score)
    >>> sorted(zip(matched.focal.tolist(), matched.other.tolist()))
    [(0, 3), (1, 2)]
    """
    from scipy.optimize import linear_sum_assignment

    if estimand == "ate":
        raise EstimationError(
            "optimal pair matching estimates the ATT or the ATC", hint="for the ATE use weights or subclasses"
        )
    if (score is None) == (X is None):
        raise EstimationError("give a score or covariates to measure distance by, one of the two")
    n = len(treated)
    out = np.zeros(n, dtype=bool) if discarded is None else discarded
    rows, candidate = focal_rows(treated, estimand, ~out)
    others = np.flatnonzero(candidate)
    code = np.zeros(n, dtype=np.int64) if strata is None else strata
    bounds = list(limits)
    if score is not None:
        values = on_grid(score)[:, None]
        if caliper is not None:
            bounds.append((values[:, 0], caliper))
    else:
        assert X is not None
        values = whitened(X, whitening_of(X, treated, ~out)[0])
    focal_parts: list[Ints] = []
    other_parts: list[Ints] = []
    for stratum in np.intersect1d(code[rows], code[others]):
        r, c = rows[code[rows] == stratum], others[code[others] == stratum]
        if len(r) * ratio * len(c) > _CELLS:
            raise EstimationError(
                f"optimal matching of {len(r)} with {len(c)} rows needs {len(r) * ratio * len(c):.0e}"
                " distances",
                hint="match exactly on a column to split the problem, or use method='nearest'",
            )
        cost = np.zeros((len(r), len(c)))
        for k in range(values.shape[1]):
            cost += (values[r, k][:, None] - values[c, k]) ** 2
        cost = np.sqrt(cost)
        allowed = np.ones(cost.shape, dtype=bool)
        for column, width in bounds:
            allowed &= np.abs(column[r][:, None] - column[c]) <= width
        # A forbidden pair costs more than any matching without one, so as few as possible are chosen.
        cost[~allowed] = (float(cost.max()) + 1.0) * (min(len(r) * ratio, len(c)) + 1)
        i, j = linear_sum_assignment(np.repeat(cost, ratio, axis=0) if ratio > 1 else cost)
        i = i // ratio
        ok = allowed[i, j]
        focal, other = r[i[ok]], c[j[ok]]
        if score is not None and not limits:
            # On a line crossing pairs cost the same as straight ones: of all pairings of the chosen rows
            # the one in order of the score is taken, which also has the smallest largest difference.
            focal = focal[np.argsort(values[focal, 0], kind="stable")]
            other = other[np.argsort(values[other, 0], kind="stable")]
        focal_parts.append(focal)
        other_parts.append(other)
    settings: dict[str, object] = {
        "ratio": ratio,
        "distance": "score" if score is not None else "mahalanobis",
    }
    if caliper is not None:
        settings["caliper_width"] = float(caliper)
    return set_from_pairs(
        method="optimal",
        estimand=estimand,
        treated=treated,
        focal=np.concatenate([np.zeros(0, dtype=np.int64), *focal_parts]),
        other=np.concatenate([np.zeros(0, dtype=np.int64), *other_parts]),
        replace=False,
        discarded=out,
        settings=settings,
    )
