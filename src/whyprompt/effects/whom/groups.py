"""Groups of rows by predicted effect, and what goes with the effect, from the rows' own scores."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects.measures import stated
from whyprompt.results import Estimate, with_holm
from whyprompt.stats import errors as inference
from whyprompt.stats.clusters import cluster_sums, known_error
from whyprompt.stats.design import independent_columns, moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.whom.scores import RowScores
    from whyprompt.stats.design import Design

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


# An error below this share of the outcome's size is rounding.
_ROUNDING = 1e-13


def places(scores: RowScores, n_groups: int) -> Ints:
    """Group rows by the rank of their predicted effect among the predictions for all rows.

    From 0, the smallest effects; -1 for rows that only teach. Equal predictions stay together, so that a
    group can be empty.
    """
    out = np.full(len(scores.predicted), -1, dtype=np.int64)
    here = scores.judged
    along = np.round((scores.ahead[here] + scores.upto[here]) / 2.0 * n_groups, 9)
    # A row on a border goes to the group nearer to the middle, and one in the middle by its sign: so it is
    # the same group whichever arm is called treated.
    middle = n_groups / 2
    lower = (along < middle) | ((along == middle) & (scores.predicted[here] > 0))
    out[here] = np.where(lower, np.floor(along), np.ceil(along) - 1)
    return out


def group_effect(name: str, scores: RowScores, here: Bools, *, level: float) -> Estimate:
    """Average the effect over some rows, at their mean prediction."""
    effect = scores.effect[here]
    cluster = None if scores.cluster is None else scores.cluster[here]
    error, df, _ = known_error(effect, cluster, scores.size)
    at, value = float(scores.predicted[here].mean()), float(effect.mean())
    return stated(name, value, error, df, level=level, n_used=int(here.sum()), at=at)


def group_effects(
    scores: RowScores, place: Ints, n_groups: int, *, level: float
) -> tuple[tuple[Estimate, ...], Estimate | None]:
    """Give the effect on each group, and the last one's less the first one's (None with one group)."""
    found = np.unique(place[place >= 0]).tolist()
    groups = with_holm(
        [group_effect(f"group {k + 1} of {n_groups}", scores, place == k, level=level) for k in found]
    )
    if len(found) < 2:
        return groups, None
    most, least = place == found[-1], place == found[0]
    estimate, error, df = _difference(scores.effect, most, least, scores.cluster, scores.size)
    at = float(scores.predicted[most].mean() - scores.predicted[least].mean())
    n = int((most | least).sum())
    return groups, stated("most less least affected", estimate, error, df, level=level, n_used=n, at=at)


def _difference(
    x: Floats, most: Bools, least: Bools, cluster: NDArray[Any] | None, size: float = 0.0
) -> tuple[float, float | None, float | None]:
    """Mean over `most` less that over `least`: Welch's error, or CR2 by cluster; none that is rounding."""
    estimate = float(x[most].mean() - x[least].mean())
    if min(most.sum(), least.sum()) < 2:
        return estimate, None, None
    if cluster is not None:
        use = most | least
        _, error, df = inference.clustered_difference(
            x[use], most[use], np.ones(int(use.sum())), cluster[use]
        )
    else:
        parts = [(float(x[here].var(ddof=1)) / int(here.sum()), int(here.sum())) for here in (most, least)]
        total = sum(p for p, _ in parts)
        error = float(np.sqrt(total))
        df = total**2 / sum(p**2 / (m - 1) for p, m in parts) if total > 0 else np.inf
    return (
        (estimate, error, df) if np.isfinite(error) and error > _ROUNDING * size else (estimate, None, None)
    )


def profile_of(
    shown: Design, place: Ints, cluster: NDArray[Any] | None, *, level: float
) -> tuple[tuple[Estimate, ...], dict[str, tuple[float, float]]]:
    """Say how the rows most and least affected differ in the modifiers, each level of a text a column.

    Gives the differences, and the means in the least and in the most affected group; nothing of one group.
    """
    used = place[place >= 0]
    if used.max() == used.min():
        return (), {}
    most, least = place == used.max(), place == used.min()
    rows, means = [], {}
    for name, x in zip(shown.names, shown.matrix.T, strict=True):
        rows.append(stated(name, *_difference(x, most, least, cluster), level=level))
        means[name] = (float(x[least].mean()), float(x[most].mean()))
    return tuple(rows), means


def calibration(scores: RowScores, *, level: float) -> Estimate | None:
    """Regress the effect on its prediction, both centred within folds, with a one-sided p.

    None where predictions do not vary within folds.
    """
    from scipy import stats

    judged = scores.judged
    x, y, fold = scores.predicted[judged], scores.effect[judged], scores.fold[judged]
    for k in np.unique(fold):
        here = fold == k
        x[here] -= x[here].mean()
        y[here] -= y[here].mean()
    squares = float(x @ x)
    n_folds = len(np.unique(fold))
    if squares <= (1e-9 * scores.size) ** 2 * len(x) or len(x) <= n_folds + 1:
        return None
    value = float(x @ y) / squares
    slope = Estimate(label="calibration", estimate=value, n_used=len(x))
    part = x * (y - value * x)
    units, df = len(x), len(x) - n_folds - 1.0
    if scores.cluster is not None:
        _, code = np.unique(scores.cluster[judged].astype(str), return_inverse=True)
        part = np.bincount(code, weights=part).astype(np.float64)
        units, df = len(part), len(part) - 1.0
        if units < 2:
            return slope
    error = float(np.sqrt(units / df * (part @ part))) / squares
    if error <= _ROUNDING:
        return slope
    p = float(stats.t.sf(value / error, df))
    return stated("calibration", value, error, df, level=level, n_used=len(x), p_value=p)


def effect_drivers(
    scores: RowScores, shown: Design, *, level: float
) -> tuple[tuple[Estimate, ...], float | None]:
    """Regress the rows' scores on the modifiers, with HC3 errors, or clustered ones.

    Gives a slope for each modifier, and the p of the F test that all are nil; None where there are too few
    rows or clusters for it.

    References: Semenova, V. and Chernozhukov, V. (2021). The Econometrics Journal 24, 264-289. MacKinnon,
    J. G. and White, H. (1985). Journal of Econometrics 29, 305-325 (HC3).
    """
    from scipy import stats

    effect, cluster, X = scores.effect, scores.cluster, shown.matrix
    centre, scale = moments(X)
    kept = independent_columns(X, centre, scale)
    rows = [Estimate(label=name, estimate=None) for name in shown.names]
    n, k = len(effect), len(kept)
    if not kept or n <= k + 1:
        return tuple(rows), None
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
        part, _ = cluster_sums(Z * residual[:, None], code)
        units, df = float(len(part)), len(part) - 1.0
        if df < 1:
            for a, j in enumerate(kept):
                rows[j] = replace(rows[j], estimate=float(coef[a + 1] / scale[j]))
            return tuple(rows), None
        meat = part.T @ part * units / df * (n - 1.0) / (n - k - 1.0)
    covariance = inverse @ meat @ inverse
    for a, j in enumerate(kept):
        error = float(np.sqrt(covariance[a + 1, a + 1]))
        known = error > _ROUNDING * scores.size
        slope, spread = float(coef[a + 1] / scale[j]), error / float(scale[j]) if known else None
        rows[j] = stated(shown.names[j], slope, spread, df if known else None, level=level)
    drivers = with_holm(rows)
    # Hotelling's distribution for clusters, whose covariance has as many degrees of freedom as there are.
    free = df if cluster is None else units - k
    if free < 1 or any(rows[j].std_error is None for j in kept):
        return drivers, None
    wald = float(coef[1:] @ np.linalg.solve(covariance[1:, 1:], coef[1:])) / k
    if cluster is not None:
        wald *= free / df
    return drivers, float(stats.f.sf(wald, k, free))
