"""Groups of rows by predicted effect, and what goes with the effect, from the rows' own scores."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.results import Estimate, Point, with_holm
from whyprompt.stats import errors as inference
from whyprompt.stats.clusters import known_error
from whyprompt.stats.design import independent_columns, moments
from whyprompt.stats.several import two_sided_p

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.whom.scores import RowScores
    from whyprompt.stats.design import Design

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

__all__ = ["calibration", "effect_drivers", "group_effect", "group_effects", "places", "profile_of"]

# An error below this share of the outcome's size is rounding.
_ROUNDING = 1e-13


def places(predicted: Floats, ahead: Floats, upto: Floats, n_groups: int) -> Ints:
    """Group rows by the rank of their predicted effect among the predictions for all rows.

    Parameters
    ----------
    predicted, ahead, upto : ndarray, shape (n,)
        As in `RowScores`.
    n_groups : int

    Returns
    -------
    ndarray of int, shape (n,)
        From 0, the smallest effects; -1 for rows that only teach. Equal predictions stay together, so that a
        group can be empty.
    """
    out = np.full(len(predicted), -1, dtype=np.int64)
    here = np.isfinite(predicted)
    along = np.round((ahead[here] + upto[here]) / 2.0 * n_groups, 9)
    # A row on a border goes to the group nearer to the middle, and one in the middle by its sign: so it is
    # the same group whichever arm is called treated.
    middle = n_groups / 2
    lower = (along < middle) | ((along == middle) & (predicted[here] > 0))
    out[here] = np.where(lower, np.floor(along), np.ceil(along) - 1)
    return out


def group_effect(
    name: str,
    effect: Floats,
    predicted: Floats,
    here: Bools,
    cluster: NDArray[Any] | None,
    *,
    level: float,
    size: float,
) -> Point:
    """Average the effect over some rows.

    Parameters
    ----------
    name : str
    effect, predicted : ndarray, shape (n,)
        Scores and predictions of the effect.
    here : ndarray of bool, shape (n,)
    cluster : ndarray, shape (n,), optional
    level : float
    size : float
        Largest outcome in size, which tells a spread from rounding.

    Returns
    -------
    Point
    """
    error, df, _ = known_error(effect[here], None if cluster is None else cluster[here], size)
    return _row(name, here, predicted, float(effect[here].mean()), error, df, level)


def _row(
    name: str,
    here: Bools,
    predicted: Floats,
    estimate: float,
    error: float | None,
    df: float | None,
    level: float,
) -> Point:
    low, high = inference.interval(estimate, error, level=level, df=df)
    return Point(
        label=name,
        at=float(predicted[here].mean()),
        estimate=estimate,
        std_error=error,
        ci_low=low,
        ci_high=high,
        p_value=two_sided_p(estimate, error, df),
        df=df,
        n_used=int(here.sum()),
    )


def group_effects(
    effect: Floats,
    scores: RowScores,
    place: Ints,
    n_groups: int,
    cluster: NDArray[Any] | None,
    *,
    level: float,
    size: float,
) -> tuple[tuple[Point, ...], Point | None]:
    """Give the effect on each group, and the last one's less the first one's.

    Parameters
    ----------
    effect : ndarray, shape (n,)
    scores : RowScores
    place : ndarray of int, shape (n,)
        From `places`.
    n_groups : int
    cluster : ndarray, shape (n,), optional
    level, size : float

    Returns
    -------
    groups : tuple of Point
    most_minus_least : Point or None
        None with one group.
    """
    found = np.unique(place[place >= 0]).tolist()
    predicted = scores.predicted
    rows = [
        group_effect(
            f"group {k + 1} of {n_groups}", effect, predicted, place == k, cluster, level=level, size=size
        )
        for k in found
    ]
    groups = with_holm(rows)
    if len(found) < 2:
        return groups, None
    most, least = place == found[-1], place == found[0]
    estimate, error, df = _difference(effect, most, least, cluster)
    if error is not None and error <= _ROUNDING * size:
        error, df = None, None
    row = _row("most less least affected", most | least, predicted, estimate, error, df, level)
    apart = float(predicted[most].mean() - predicted[least].mean())
    return groups, replace(row, at=apart)


def _difference(
    x: Floats, most: Bools, least: Bools, cluster: NDArray[Any] | None
) -> tuple[float, float | None, float | None]:
    """Mean over `most` less that over `least`: Welch's error, or CR2 by cluster."""
    estimate = float(x[most].mean() - x[least].mean())
    if min(most.sum(), least.sum()) < 2:
        return estimate, None, None
    if cluster is not None:
        use = most | least
        _, error, df = inference.clustered_difference(
            x[use], most[use], np.ones(int(use.sum())), cluster[use]
        )
        return (estimate, error, df) if np.isfinite(error) else (estimate, None, None)
    parts = [(float(x[here].var(ddof=1)) / int(here.sum()), int(here.sum())) for here in (most, least)]
    total = sum(p for p, _ in parts)
    if total <= 0:
        return estimate, None, None
    return estimate, float(np.sqrt(total)), total**2 / sum(p**2 / (m - 1) for p, m in parts)


def profile_of(
    shown: Design, place: Ints, cluster: NDArray[Any] | None, *, level: float
) -> tuple[tuple[Estimate, ...], dict[str, tuple[float, float]]]:
    """Say how the rows most and least affected differ in the modifiers.

    Parameters
    ----------
    shown : Design
        Every level of a text column as its own column.
    place : ndarray of int, shape (n,)
    cluster : ndarray, shape (n,), optional
    level : float

    Returns
    -------
    differences : tuple of Estimate
        Empty with one group.
    means : dict of str to (float, float)
        In the least and in the most affected group.
    """
    used = place[place >= 0]
    if used.max() == used.min():
        return (), {}
    most, least = place == used.max(), place == used.min()
    rows, means = [], {}
    for name, x in zip(shown.names, shown.matrix.T, strict=True):
        difference, error, df = _difference(x, most, least, cluster)
        low, high = inference.interval(difference, error, level=level, df=df)
        row = Estimate(label=name, estimate=difference, std_error=error, ci_low=low, ci_high=high, df=df)
        rows.append(replace(row, p_value=two_sided_p(difference, error, df)))
        means[name] = (float(x[least].mean()), float(x[most].mean()))
    return tuple(rows), means


def calibration(
    effect: Floats, scores: RowScores, cluster: NDArray[Any] | None, *, level: float, size: float
) -> Estimate | None:
    """Regress the effect on its prediction, both centred within folds.

    Parameters
    ----------
    effect : ndarray, shape (n,)
    scores : RowScores
    cluster : ndarray, shape (n,), optional
    level, size : float

    Returns
    -------
    Estimate or None
        With a one-sided p; None where predictions do not vary within folds.
    """
    from scipy import stats

    judged = scores.judged
    x, y, fold = scores.predicted[judged], effect[judged], scores.fold[judged]
    for k in np.unique(fold):
        here = fold == k
        x[here] -= x[here].mean()
        y[here] -= y[here].mean()
    squares = float(x @ x)
    n_folds = len(np.unique(fold))
    if squares <= (1e-9 * size) ** 2 * len(x) or len(x) <= n_folds + 1:
        return None
    value = float(x @ y) / squares
    slope = Estimate(label="calibration", estimate=value, n_used=len(x))
    part = x * (y - value * x)
    df = len(x) - n_folds - 1.0
    scale = len(x) / df
    if cluster is not None:
        _, code = np.unique(cluster[judged].astype(str), return_inverse=True)
        part = np.bincount(code, weights=part).astype(np.float64)
        if len(part) < 2:
            return slope
        df = len(part) - 1.0
        scale = len(part) / df
    error = float(np.sqrt(scale * (part @ part))) / squares
    if error <= _ROUNDING:
        return slope
    low, high = inference.interval(value, error, level=level, df=df)
    p = float(stats.t.sf(value / error, df))
    return replace(slope, std_error=error, ci_low=low, ci_high=high, df=df, p_value=p)


def effect_drivers(
    effect: Floats, shown: Design, *, cluster: NDArray[Any] | None, level: float, size: float
) -> tuple[tuple[Estimate, ...], float | None]:
    """Regress the rows' scores on the modifiers, with HC3 errors, or clustered ones.

    Parameters
    ----------
    effect : ndarray, shape (n,)
        Scores of the effect.
    shown : Design
        Modifiers.
    cluster : ndarray, shape (n,), optional
    level, size : float

    Returns
    -------
    drivers : tuple of Estimate
    differs_p : float or None
        F test that all slopes are nil; None where there are too few rows or clusters for it.

    References
    ----------
    Semenova, V. and Chernozhukov, V. (2021). The Econometrics Journal 24, 264-289.
    MacKinnon, J. G. and White, H. (1985). Journal of Econometrics 29, 305-325 (HC3).
    """
    from scipy import stats

    X = shown.matrix
    centre, scale = moments(X)
    kept = independent_columns(X, centre, scale)
    empty = [Estimate(label=name, estimate=None) for name in shown.names]
    n, k = len(effect), len(kept)
    if not kept or n <= k + 1:
        return tuple(empty), None
    Z = np.column_stack([np.ones(n), (X[:, kept] - centre[kept]) / scale[kept]])
    inverse = np.linalg.inv(Z.T @ Z)
    coef = inverse @ (Z.T @ effect)
    residual = effect - Z @ coef
    if cluster is None:
        spare = 1.0 - np.einsum("ij,jk,ik->i", Z, inverse, Z)
        part = Z * np.divide(residual, spare, out=np.zeros(n), where=spare > 1e-10)[:, None]
        units, df = float(n), n - k - 1.0
        meat = part.T @ part
    else:
        _, code = np.unique(cluster.astype(str), return_inverse=True)
        part = np.column_stack([np.bincount(code, weights=c) for c in (Z * residual[:, None]).T])
        units, df = float(len(part)), len(part) - 1.0
        if df < 1:
            return tuple(
                replace(empty[j], estimate=float(coef[a + 1] / scale[j])) for a, j in enumerate(kept)
            ), None
        meat = part.T @ part * units / df * (n - 1.0) / (n - k - 1.0)
    covariance = inverse @ meat @ inverse
    rows = list(empty)
    for a, j in enumerate(kept):
        slope = float(coef[a + 1] / scale[j])
        error = float(np.sqrt(covariance[a + 1, a + 1]))
        known = error / 1.0 > _ROUNDING * size
        spread = error / float(scale[j]) if known else None
        low, high = inference.interval(slope, spread, level=level, df=df)
        rows[j] = Estimate(
            label=shown.names[j],
            estimate=slope,
            std_error=spread,
            ci_low=low,
            ci_high=high,
            p_value=two_sided_p(slope, spread, df),
            df=df if known else None,
        )
    drivers = with_holm(rows)
    # Hotelling's distribution for clusters, whose covariance has as many degrees of freedom as there are.
    free = df if cluster is None else units - k
    if free < 1 or any(rows[j].std_error is None for j in kept):
        return drivers, None
    wald = float(coef[1:] @ np.linalg.solve(covariance[1:, 1:], coef[1:])) / k
    if cluster is not None:
        wald *= free / df
    return drivers, float(stats.f.sf(wald, k, free))
