"""What is known of many arms two by two: their balance, and whether a difference has an error."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects.checks.balance import level_shares, moments
from whyprompt.results import BalanceRow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_SAME = "its outcomes are all equal, in this sample"


def _two_valued(x: Floats) -> bool:
    low, high = float(x.min()), float(x.max())
    return bool(((x == low) | (x == high)).all())


def _numbers(x: Floats, rows: Sequence[NDArray[np.bool_]], weights: Floats) -> tuple[Floats, Floats]:
    """Give the weighted means and variances of groups of rows of a number; of two values p (1 - p)."""
    low, high = float(x.min()), float(x.max())
    binary = _two_valued(x)
    scale = high - low if binary and high > low else 1.0
    unit = (x - low) / scale if binary and high > low else x
    found = [moments(unit[here], weights[here], binary=binary) for here in rows]
    means = [float(np.average(x[here], weights=weights[here])) for here in rows]
    return np.array(means), np.array([scale**2 * variance for _, variance in found])


def _by_group(
    columns: dict[str, NDArray[Any]], rows: Sequence[NDArray[np.bool_]], weights: Floats
) -> tuple[list[str], Floats, Floats]:
    """Give the names of covariates, of text every level, and their means and variances in groups of rows."""
    names: list[str] = []
    means, variances = [], []
    for name, values in columns.items():
        if values.dtype == object:
            levels, shares = level_shares(values, rows, weights)
            names += [f"{name}_{level}" for level in levels]
            means.append(shares)
            variances.append(shares * (1.0 - shares))
        else:
            names.append(name)
            mean, variance = _numbers(values, rows, weights)
            means.append(mean[:, None])
            variances.append(variance[:, None])
    return names, np.hstack(means), np.hstack(variances)


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
    groups = [*(labels == arm for arm in arms), np.ones(len(labels), dtype=bool)]
    names, before, spread = _by_group(columns, groups, np.ones(len(labels)))
    _, after, weighed = _by_group(columns, groups, weights)
    before, after = before[:-1], after[:-1]
    over = [arms.index(focal)] if focal is not None else list(range(len(arms)))
    variance = weighed[-1] if weighted_spread else spread[over].mean(axis=0)
    scale = np.sqrt(np.maximum(variance, 0.0))
    rows = []
    for j, name in enumerate(names):
        gaps = [float(np.ptp(means[:, j])) for means in (before, after)]
        none = 1e-12 * float(np.abs(before[:, j]).max())
        smd = [float(s / scale[j]) if scale[j] > 0 else (0.0 if s <= none else None) for s in gaps]
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
