"""Nearest neighbours on several covariates at once, by the Mahalanobis distance.

Distances use the covariance pooled within arms (Rubin 1980, MatchIt), that of the whole sample, or its
diagonal (Matching), and a generalised inverse where columns are linearly dependent. Distances are compared
on a grid of 1e-9, so that rounding decides no tie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from whyprompt.effects.methods.matched import caliper_on, on_grid
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.matched import Caliper

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

Metric = Literal["pooled", "sample", "diagonal"]

_CELLS = 400_000_000
# Distances held at a time where all of a row's ties are wanted.
_CHUNK = 4_000_000


def whitening_of(
    X: Floats, treated: Bools, eligible: Bools, *, metric: Metric = "pooled"
) -> tuple[Floats, Floats]:
    """Return the matrix that turns a distance on covariates into Euclidean distance, and a scan direction.

    The covariance is that of the eligible rows: within arms, of the whole sample (divisor n), or the
    variances of the sample alone. The whitening has shape (p, rank); the direction, shape (p,), is the
    combination of covariates along which MatchIt scans the sample, and decides ties only. Covariates that do
    not vary are refused.
    """
    if metric not in {"pooled", "sample", "diagonal"}:
        raise EstimationError(f"metric {metric!r} is not known", hint="one of: pooled, sample, diagonal")
    if eligible.sum() < 3:
        raise EstimationError(
            f"{int(eligible.sum())} rows are left for a Mahalanobis distance: too few for a covariance",
            hint="discard fewer rows, or match on the propensity score",
        )
    sd = X[eligible].std(axis=0) if metric != "pooled" else X.std(axis=0, ddof=1)
    live = sd > 1e-12 * np.abs(X[eligible].mean(axis=0))
    scale = np.where(live, 1.0 / np.where(live, sd, 1.0), 0.0)
    if metric == "diagonal":
        return np.diag(scale)[:, live], scale
    Z = X * scale
    scatter = np.zeros((X.shape[1], X.shape[1]))
    parts = (treated & eligible, ~treated & eligible) if metric == "pooled" else (eligible,)
    for arm in parts:
        centred = Z[arm] - Z[arm].mean(axis=0)
        scatter += centred.T @ centred
    covariance = scatter / (eligible.sum() - (2 if metric == "pooled" else 0))
    values, vectors = np.linalg.eigh(covariance)
    keep = values > 1e-9 * values.max()
    if not keep.any():
        raise EstimationError(
            "the covariates do not vary within the arms: no Mahalanobis distance",
            hint="match on the propensity score, or exactly",
        )
    root = vectors[:, keep] / np.sqrt(values[keep])
    inverse = root @ root.T
    pivot = int(np.argmax(np.diag(inverse)))
    return root * scale[:, None], inverse[pivot] / np.sqrt(inverse[pivot, pivot]) * scale


def whitened(X: Floats, whitening: Floats) -> Floats:
    """Apply a whitening, shape (p, r), column by column, so that equal rows stay exactly equal."""
    out = np.zeros((X.shape[0], whitening.shape[1]))
    # Distances do not depend on where the covariates lie, their rounding does.
    X = X - X.min(axis=0)
    for k in range(whitening.shape[1]):
        for j in range(X.shape[1]):
            out[:, k] += X[:, j] * whitening[j, k]
    return out


def measured_in(
    treated: Bools,
    eligible: Bools,
    *,
    score: Floats | None,
    X: Floats | None,
    metric: Metric,
    caliper: Caliper | None,
    limits: Sequence[tuple[Floats, float]],
) -> tuple[Floats, tuple[Floats, float] | None, list[tuple[Floats, float]]]:
    """Return what distance is Euclidean in, shape (n, r), the caliper of a score, and all calipers."""
    if (score is None) == (X is None):
        raise EstimationError("give a score or covariates to measure distance by, one of the two")
    if X is not None:
        return whitened(X, whitening_of(X, treated, eligible, metric=metric)[0]), None, list(limits)
    assert score is not None
    values = on_grid(score)
    within = caliper_on(values, caliper)
    return values[:, None], within, [*limits, *([] if within is None else [within])]


def distances(values: Floats, a: Ints, b: Ints) -> Floats:
    """Return the distances of rows `a` from rows `b`, a matrix."""
    cost = np.zeros((len(a), len(b)))
    for k in range(values.shape[1]):
        cost += (values[a, k][:, None] - values[b, k]) ** 2
    return np.sqrt(cost, out=cost)


def dense_pairs(
    Z: Floats,
    along: Floats,
    focal: Ints,
    candidates: Ints,
    *,
    ratio: int,
    replace: bool,
    strata: Ints | None,
    limits: Sequence[tuple[Floats, float]],
    tie_rank: Ints | None,
) -> tuple[Ints, Ints]:
    """Match on whitened covariates `Z`, shape (n, r), looking at every candidate.

    `focal` rows choose in their order, without `replace` in `ratio` rounds; a match never leaves its stratum.
    `along` are scan coordinates, which decide between candidates equally near; `tie_rank` orders equal ones.
    """
    _refuse_large(focal, candidates)
    rank = np.arange(len(along)) if tie_rank is None else tie_rank
    place = np.empty(len(along), dtype=np.int64)
    place[np.lexsort((rank, np.round(along, 9)))] = np.arange(len(along))
    free = np.ones(len(candidates), dtype=bool)
    z = np.ascontiguousarray(Z[candidates])
    found: list[tuple[int, int]] = []
    per_visit = ratio if replace else 1
    for _ in range(1 if replace else ratio):
        for row in focal.tolist():
            allowed = np.ones(len(candidates), dtype=bool) if replace else free.copy()
            if strata is not None:
                allowed &= strata[candidates] == strata[row]
            for values, width in limits:
                allowed &= np.abs(values[candidates] - values[row]) <= width
            at = np.flatnonzero(allowed)
            for _ in range(min(per_visit, len(at))):
                gap = np.round(((z[at] - Z[row]) ** 2).sum(axis=1), 9)
                nearest = at[gap == gap.min()]
                steps = place[candidates[nearest]] - place[row]
                pick = nearest[np.argmax(np.abs(steps) + len(along) * (steps < 0))]
                found.append((row, int(candidates[pick])))
                at = at[at != pick]
                if not replace:
                    free[pick] = False
    pairs = np.asarray(found, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _refuse_large(focal: Ints, candidates: Ints) -> None:
    if len(focal) * len(candidates) > _CELLS:
        raise EstimationError(
            f"Mahalanobis matching of {len(focal)} rows with {len(candidates)} candidates compares"
            f" {len(focal) * len(candidates):.0e} pairs",
            hint="match on the propensity score, which sorts instead, or give exact columns",
        )


def dense_ties(
    Z: Floats,
    focal: Ints,
    candidates: Ints,
    *,
    ratio: int,
    strata: Ints | None,
    limits: Sequence[tuple[Floats, float]],
    tolerance: float,
) -> tuple[Ints, Ints]:
    """Match with replacement to every candidate as near as the `ratio`-th nearest, up to a tolerance.

    The tolerance is added to the squared distance of the `ratio`-th nearest; the rest is as for
    `dense_pairs`.
    """
    _refuse_large(focal, candidates)
    z = Z[candidates]
    rows_out, others_out = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    step = max(1, _CHUNK // max(len(candidates), 1))
    for a in range(0, len(focal), step):
        rows = focal[a : a + step]
        gap = np.zeros((len(rows), len(candidates)))
        for k in range(Z.shape[1]):
            gap += (Z[rows, k][:, None] - z[:, k]) ** 2
        if strata is not None:
            gap[strata[rows][:, None] != strata[candidates]] = np.inf
        for values, width in limits:
            gap[np.abs(values[rows][:, None] - values[candidates]) > width] = np.inf
        last = min(ratio, len(candidates)) - 1
        reach = np.partition(gap, last, axis=1)[:, last]
        # Fewer than `ratio` candidates: all of them.
        reach = np.where(np.isfinite(reach), reach * (1 + 1e-12) + tolerance + 1e-15, np.finfo(float).max)
        i, j = np.nonzero(gap <= reach[:, None])
        rows_out.append(rows[i])
        others_out.append(candidates[j])
    return np.concatenate(rows_out), np.concatenate(others_out)
