"""Covariate balance before and after adjustment.

A standardised mean difference needs a denominator, and packages differ in it; here it is an argument.
It is always computed from the unadjusted sample (except ``"weighted"``), so that before and after are
on one scale. A two-valued covariate has the variance p (1 - p), as in cobalt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from whyprompt.errors import EstimationError
from whyprompt.results import BalanceRow
from whyprompt.stats.order import distinct
from whyprompt.stats.threads import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

Denominator = Literal["pooled", "treated", "control", "all", "weighted"]

# Rows of balance that a text column has at most.
_MOST_LEVELS = 1_000


def moments(x: Floats, weights: Floats | None = None, *, binary: bool = False) -> tuple[float, float]:
    """Return the weighted mean and the unbiased weighted variance; p (1 - p) for a 0/1 covariate (`binary`).

    Weights are reliability weights: scaling them changes nothing. The variance is NaN where a single row
    carries all the weight.

    Examples
    --------
    >>> import numpy as np
    >>> moments(np.array([1.0, 2.0, 3.0]))
    (2.0, 1.0)
    """
    w = np.ones(len(x)) if weights is None else weights
    total = float(w.sum())
    if total <= 0:
        return float("nan"), float("nan")
    mean = float(w @ x) / total
    if binary:
        return mean, max(mean * (1.0 - mean), 0.0)
    free = total * total - float(w @ w)
    if free <= 1e-12 * total * total:
        return mean, float("nan")
    return mean, float(w @ (x - mean) ** 2) * total / free


def _signed(treated: Bools, weights: Floats) -> Floats | None:
    """Weights that sum to 1 over the treated and to -1 over the controls; None for an empty arm."""
    total_t = float(weights[treated].sum())
    total_c = float(weights.sum()) - total_t
    if total_t <= 0 or total_c <= 0:
        return None
    return weights * np.where(treated, 1.0 / total_t, -1.0 / total_c)


def _ks(x: Floats, signed: Sequence[Floats | None]) -> list[float | None]:
    """Give the largest distance of the arms' distribution functions, by each of several weights."""
    order = np.argsort(x)
    in_order = x[order]
    # The functions are compared where the value changes: inside a tie only its end counts.
    inside_tie = np.flatnonzero(in_order[1:] == in_order[:-1])
    out: list[float | None] = []
    for weights in signed:
        if weights is None:
            out.append(None)
            continue
        step = np.cumsum(weights[order])
        step[inside_tie] = 0.0
        out.append(float(max(step.max(), -step.min())))
    return out


def balance_table(
    X: Floats,
    treated: Bools,
    weights: Floats,
    *,
    names: Sequence[str],
    denominator: Denominator = "pooled",
    base_weights: Floats | None = None,
) -> tuple[BalanceRow, ...]:
    """Compare the arms covariate by covariate, before and after weighting.

    Parameters
    ----------
    X : ndarray, shape (n, q)
        Covariates; every level of a text column as its own 0/1 column.
    treated : ndarray of bool, shape (n,)
        The arm.
    weights : ndarray, shape (n,)
        Matching or balancing weights; 0 for rows not used.
    names : sequence of str, length q
        Of the columns.
    denominator : {"pooled", "treated", "control", "all", "weighted"}, default "pooled"
        What mean differences are divided by: sqrt((s_T^2 + s_C^2) / 2), the standard deviation of the
        treated, of the controls, of all rows, or of all rows after weighting (cobalt's choice for
        overlap weights). cobalt takes ``"treated"`` for the ATT.
    base_weights : ndarray, shape (n,), optional
        Weights of the unadjusted sample; default 1.

    Returns
    -------
    tuple of BalanceRow

    Raises
    ------
    EstimationError
        If the denominator is not known.

    References
    ----------
    Austin, P. C. (2009). Balance diagnostics for comparing the distribution of baseline covariates
    between treatment groups in propensity-score matched samples. Statistics in Medicine 28, 3083-3107.

    Examples
    --------
    >>> import numpy as np
    >>> arm = np.array([True, True, False, False, False])
    >>> x = np.array([[1.0], [2.0], [1.0], [2.0], [9.0]])
    >>> row = balance_table(x, arm, np.array([1.0, 1.0, 1.0, 1.0, 0.0]), names=["x"])[0]
    >>> round(row.smd_before, 3), row.smd_after
    (-0.801, 0.0)
    """
    check_denominator(denominator)
    base = np.ones(len(treated)) if base_weights is None else base_weights
    with one_blas_thread(len(treated)):
        return tuple(_rows(X.T, treated, (base, weights), names, denominator))


def check_denominator(denominator: str) -> None:
    """Raise `EstimationError` where there is no such denominator."""
    if denominator not in get_args(Denominator):
        raise EstimationError(
            f"balance denominator {denominator!r} is not known",
            hint=f"one of: {', '.join(get_args(Denominator))}",
        )


def covariate_balance(
    columns: Mapping[str, NDArray[Any]], treated: Bools, weights: Floats, *, denominator: Denominator
) -> tuple[BalanceRow, ...]:
    """Compare the arms on covariates as they are read, every level of a text column a row of its own.

    As `balance_table` of their dummies, which are not made: levels are counted. Of a column with more than a
    thousand levels the thousand that differ most, before or after, are given.
    """
    check_denominator(denominator)
    base = np.ones(len(treated))
    numbers = {name: values for name, values in columns.items() if values.dtype != object}
    out: list[BalanceRow] = []
    with one_blas_thread(len(treated)):
        rows = _rows(numbers.values(), treated, (base, weights), tuple(numbers), denominator)
        for name, values in columns.items():
            if name in numbers:
                out.append(next(rows))
            else:
                out += _levels(name, values, treated, (base, weights), denominator)
    return tuple(out)


def level_shares(values: NDArray[Any], rows: Sequence[Bools], weights: Floats) -> tuple[list[str], Floats]:
    """Give the levels of a text column, and their weighted shares of some rows, groups by levels.

    Of two levels the second alone, which says it all. NaN for rows without weight.
    """
    levels, code = distinct(values)
    first = 0 if len(levels) > 2 else 1
    shares = np.empty((len(rows), len(levels)))
    for k, here in enumerate(rows):
        total = float(weights[here].sum())
        found = np.bincount(code[here], weights=weights[here], minlength=len(levels))
        shares[k] = found / total if total > 0 else np.nan
    return levels[first:], shares[:, first:]


def _levels(
    name: str,
    values: NDArray[Any],
    treated: Bools,
    both: tuple[Floats, Floats],
    denominator: Denominator,
) -> list[BalanceRow]:
    """Compare the shares of a text column's levels; a share p has the variance p (1 - p)."""
    groups = (treated, ~treated, np.ones(len(treated), dtype=bool))
    levels, before = level_shares(values, groups, both[0])
    _, after = level_shares(values, groups, both[1])
    variance = before * (1.0 - before)
    if denominator == "pooled":
        spread = variance[:2].mean(axis=0)
    elif denominator == "weighted":
        spread = after[2] * (1.0 - after[2])
    else:
        spread = variance[("treated", "control", "all").index(denominator)]
    gaps = np.abs(np.array([shares[0] - shares[1] for shares in (before, after)]))
    shown = np.arange(len(levels))
    if len(levels) > _MOST_LEVELS:
        sizes = np.nan_to_num(gaps).max(axis=0) / np.sqrt(np.where(spread > 0, spread, np.inf))
        shown = np.sort(np.argsort(-sizes, kind="stable")[:_MOST_LEVELS])
    out = []
    for k in shown.tolist():
        scale = float(np.sqrt(spread[k])) if spread[k] > 0 else 0.0
        pairs = [[(float(shares[arm, k]), 0.0) for arm in (0, 1)] for shares in (before, after)]
        out.append(
            BalanceRow(
                covariate=f"{name}_{levels[k]}",
                binary=True,
                smd_before=_standardised(pairs[0], scale),
                smd_after=_standardised(pairs[1], scale),
                ks_before=_finite(gaps[0, k]),
                ks_after=_finite(gaps[1, k]),
            )
        )
    return out


def _rows(
    columns: Iterable[Floats],
    treated: Bools,
    both: tuple[Floats, Floats],
    names: Sequence[str],
    denominator: Denominator,
) -> Iterator[BalanceRow]:
    signed = [_signed(treated, weights) for weights in both]
    sides = (np.flatnonzero(treated), np.flatnonzero(~treated))
    by_side = [[weights[side] for side in sides] for weights in both]
    for name, values in zip(names, columns, strict=True):
        x = values
        low, high = float(x.min()), float(x.max())
        # A look at a few values spares a continuous column the full pass.
        binary = all(bool(((v == low) | (v == high)).all()) for v in (x[:64], x))
        if binary and high > low:
            x = (x - low) / (high - low)
        by_arm = [x[side] for side in sides]
        before, after = (
            [moments(v, w, binary=binary) for v, w in zip(by_arm, weights, strict=True)]
            for weights in by_side
        )
        of_all = 0.0
        if denominator in {"all", "weighted"}:
            of_all = moments(x, both[denominator == "weighted"], binary=binary)[1]
        ks = None if binary else _ks(x, signed)
        yield balance_row(name, before, after, of_all, binary=binary, denominator=denominator, ks=ks)


def balance_row(
    name: str,
    before: Sequence[tuple[float, float]],
    after: Sequence[tuple[float, float]],
    of_all: float,
    *,
    binary: bool,
    denominator: Denominator,
    ks: Sequence[float | None] | None = None,
) -> BalanceRow:
    """State a covariate's balance by its mean and variance (`moments`) in the treated and the control arm.

    `of_all` is the variance of all rows, for the denominators ``"all"`` and ``"weighted"``; a two-valued
    covariate counts as 0 and 1.
    """
    by_arm = {"pooled": (before[0][1] + before[1][1]) / 2.0, "treated": before[0][1], "control": before[1][1]}
    variance = by_arm.get(denominator, of_all)
    scale = float(np.sqrt(variance)) if variance > 0 else 0.0
    if binary:
        ks = [_finite(abs(pair[0][0] - pair[1][0])) for pair in (before, after)]
    return BalanceRow(
        covariate=name,
        binary=binary,
        smd_before=_standardised(before, scale),
        smd_after=_standardised(after, scale),
        variance_ratio_before=None if binary else _ratio(before),
        variance_ratio_after=None if binary else _ratio(after),
        ks_before=None if ks is None else ks[0],
        ks_after=None if ks is None else ks[1],
    )


def _standardised(pair: Sequence[tuple[float, float]], scale: float) -> float | None:
    difference = pair[0][0] - pair[1][0]
    if scale > 0:
        return _finite(difference / scale)
    # Without spread a difference of nothing is balance, and any other is not on any scale.
    size = max(abs(pair[0][0]), abs(pair[1][0]))
    return 0.0 if abs(difference) <= 1e-12 * size else None


def _ratio(pair: Sequence[tuple[float, float]]) -> float | None:
    if not pair[1][1] > 0:
        return None
    return _finite(pair[0][1] / pair[1][1])


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
