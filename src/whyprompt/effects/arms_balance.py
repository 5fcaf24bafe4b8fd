"""What is known of many arms two by two: their balance, and whether a difference has an error."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects.checks.balance import moments
from whyprompt.results import BalanceRow
from whyprompt.stats.design import design_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_SAME = "its outcomes are all equal, in this sample"


def _two_valued(x: Floats) -> bool:
    low, high = float(x.min()), float(x.max())
    return bool(((x == low) | (x == high)).all())


def _denominators(
    X: Floats,
    labels: NDArray[Any],
    arms: Sequence[str],
    weights: Floats,
    focal: str | None,
    *,
    weighted_spread: bool,
) -> Floats:
    """Spread of each covariate: pooled over arms for the ATE, the focal arm's, or the weighted sample's."""
    out = np.empty(X.shape[1])
    for j, x in enumerate(X.T):
        binary = _two_valued(x)
        unit = (x - x.min()) / (x.max() - x.min()) if binary and x.max() > x.min() else x
        scale = float(x.max() - x.min()) if binary and x.max() > x.min() else 1.0
        if weighted_spread:
            variance = moments(unit, weights, binary=binary)[1]
        else:
            over = [focal] if focal is not None else list(arms)
            variance = float(np.mean([moments(unit[labels == arm], binary=binary)[1] for arm in over]))
        out[j] = scale * np.sqrt(max(variance, 0.0))
    return out


def _arm_means(X: Floats, labels: NDArray[Any], arms: Sequence[str], weights: Floats) -> Floats:
    return np.array([np.average(X[labels == arm], axis=0, weights=weights[labels == arm]) for arm in arms])


def pair_balance(
    columns: dict[str, NDArray[Any]],
    labels: NDArray[Any],
    *,
    arms: Sequence[str],
    weights: Floats,
    focal: str | None,
    weighted_spread: bool,
) -> tuple[tuple[BalanceRow, ...], dict[tuple[int, int], float | None]]:
    """Return the largest difference of any two arms for each covariate, and of each two over all of them.

    `columns` are as read, `labels` the arm of each row. The second is after weighting, by the places of the
    two arms; None where a covariate has no spread to divide by. Denominators are as in cobalt: the spread of
    the arm `focal` for its ATT, that of all weighted rows for overlap weights (`weighted_spread`), and else
    the one pooled over arms.
    """
    if not columns:
        return (), {}
    shown = design_matrix(columns, full=True)
    X = shown.matrix
    scale = _denominators(X, labels, arms, weights, focal, weighted_spread=weighted_spread)
    before, after = (_arm_means(X, labels, arms, w) for w in (np.ones(len(labels)), weights))
    rows = []
    for j, name in enumerate(shown.names):
        spread = [float(np.ptp(means[:, j])) for means in (before, after)]
        none = 1e-12 * float(np.abs(before[:, j]).max())
        smd = [float(s / scale[j]) if scale[j] > 0 else (0.0 if s <= none else None) for s in spread]
        worst = (arms[int(after[:, j].argmin())], arms[int(after[:, j].argmax())])
        rows.append(BalanceRow(covariate=name, smd_before=smd[0], smd_after=smd[1], worst_pair=worst))
    apart: dict[tuple[int, int], float | None] = {}
    live, nothing = scale > 0, 1e-12 * np.abs(after).max(axis=0)
    for a, b in combinations(range(len(arms)), 2):
        gap = np.abs(after[b] - after[a])
        unknown = bool((gap > nothing)[~live].any())
        apart[(a, b)] = None if unknown else float((gap[live] / scale[live]).max(initial=0.0))
    return tuple(rows), apart


def without_error(
    y: NDArray[Any], labels: NDArray[Any], arms: Sequence[str], units: NDArray[Any] | None
) -> dict[str, str]:
    """Name the arms whose rows show no spread, and why."""
    out = {}
    for arm in arms:
        here = labels == arm
        if units is not None and len(set(units[here].tolist())) == 1:
            out[arm] = "all its rows are in one cluster"
        elif (y[here] == y[here][0]).all():
            out[arm] = _SAME
    return out


def pair_known(blind: Mapping[str, str], a: str, b: str) -> bool:
    """Say whether two arms can be compared with a standard error, given those `without_error`.

    One of the two may have equal outcomes; neither may be in one cluster, which hides what clusters do.
    """
    why = [blind[arm] for arm in (a, b) if arm in blind]
    return not why or why == [_SAME]
