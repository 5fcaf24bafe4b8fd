"""The matched set: what every matching method returns, and the weights that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from whyprompt.effects.methods.smoother import Smoother

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

Estimand = Literal["att", "atc", "ate"]

Caliper = float | tuple["Floats", float]
"""The largest allowed difference, in the score or in values of each row that rise with it."""

GRID = 12
"""Decimals of a score that are compared, so that rounding (and so the order of the rows) decides no tie."""


# Of pairs without rows in common, and of pairs that share rows.
_APART = ("pairs", "abadie_imbens", "wild_bootstrap", "bootstrap")
_SHARED = ("abadie_imbens", "wild_bootstrap")


def on_grid(score: Floats) -> Floats:
    """Round a score to the grid on which scores are compared, shape (n,)."""
    return np.asarray(np.round(score, GRID), dtype=np.float64)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MatchedSet:
    """Who was matched with whom, and the weights that follow.

    `estimand` (att, atc or ate) says whose counterfactual was looked for. `weights`, shape (n,), are 0 for
    rows not used: for the ATT the treated weigh 1 and the controls sum to their number used, for the ATC the
    reverse, for the ATE each arm sums to its number used (MatchIt's scaling). Of each pair `focal` is the row
    whose counterfactual is looked for, `other` the row that gives it, and `share` its weight in it, which
    sums to 1 over each focal row; empty for strata, and where a `kernel` has too many pairs to list.
    `stratum`, shape (n,), is the pair or stratum of each row, -1 for none; None with replacement (`replace`),
    where a row may be in many. `errors` are the standard errors that go with it, first the one to take where
    none is named; ``"bootstrap"`` where resampling the rows is valid. `discarded`, shape (n,), are rows put
    aside before matching for want of common support. `settings` hold the caliper in absolute units,
    bandwidth, order and tie rule.
    """

    method: str
    estimand: str
    weights: Floats
    focal: Ints
    other: Ints
    share: Floats
    stratum: Ints | None
    replace: bool
    errors: tuple[str, ...]
    discarded: Bools
    settings: Mapping[str, Any] = field(default_factory=dict)
    kernel: Smoother | None = None

    @property
    def n_pairs(self) -> int:
        """Number of pairs listed."""
        return len(self.focal)

    @property
    def is_focal(self) -> Bools:
        """Rows for which matches were found, shape (n,)."""
        if self.kernel is not None:
            return self.kernel.is_focal
        return np.bincount(self.focal, minlength=len(self.weights)) > 0

    def received(self, power: int = 1) -> Floats:
        """Sum over focal rows each row's share in their counterfactuals, to a power of 1 or 2, shape (n,)."""
        if self.kernel is not None:
            return self.kernel.received(power)
        return np.bincount(self.other, weights=self.share**power, minlength=len(self.weights)).astype(float)

    def average(self, values: Floats) -> Floats:
        """Average the matches of each focal row; 0 for other rows. Shape (n,)."""
        if self.kernel is not None:
            return self.kernel.average(values)
        n = len(self.weights)
        return np.bincount(self.focal, weights=self.share * values[self.other], minlength=n).astype(float)


def caliper_on(score: Floats, caliper: Caliper | None) -> tuple[Floats, float] | None:
    """Return a caliper with the values that it is on, which are the score where none are given."""
    return (score, caliper) if isinstance(caliper, int | float) else caliper


def width_of(caliper: Caliper) -> float:
    """Return the width of a caliper."""
    return float(caliper[1] if isinstance(caliper, tuple) else caliper)


def focal_rows(treated: Bools, estimand: str, eligible: Bools) -> tuple[Ints, Bools]:
    """Return the rows to be matched, and the mask of rows they may take; for the ATT or the ATC."""
    mine = treated if estimand == "att" else ~treated
    return np.flatnonzero(mine & eligible), ~mine & eligible


def of_both(estimand: str, of_side: Callable[[str], tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    """Join the pairs of the treated and of the controls, which the ATE needs both."""
    parts = [of_side(side) for side in (("att", "atc") if estimand == "ate" else (estimand,))]
    return np.concatenate([focal for focal, _ in parts]), np.concatenate([other for _, other in parts])


def require_matches(focal: Ints, *, method: str, hint: str) -> None:
    """Raise if nothing was matched."""
    if len(focal) == 0:
        raise EstimationError(f"{method} matching found no pair: there is no effect to estimate", hint=hint)


def weights_of_use(own: Floats, received: Floats, treated: Bools, estimand: str) -> Floats:
    """Weigh rows by their own place (1 for focal rows) and by what they give to others, shape (n,)."""
    weights = own + received
    if estimand == "ate":
        for arm in (treated, ~treated):
            total = weights[arm].sum()
            weights[arm] *= np.count_nonzero(weights[arm]) / total if total > 0 else 0.0
    else:
        given = ~treated if estimand == "att" else treated
        weights[given] *= np.count_nonzero(weights[given]) / weights[given].sum()
    return weights


def set_from_pairs(
    *,
    method: str,
    estimand: str,
    treated: Bools,
    focal: Ints,
    other: Ints,
    share: Floats | None = None,
    replace: bool,
    errors: tuple[str, ...] = (),
    discarded: Bools,
    settings: Mapping[str, Any],
) -> MatchedSet:
    """Build a matched set from pairs; by default each match of a focal row has an equal share."""
    n = len(treated)
    require_matches(
        focal,
        method=method,
        hint="widen the caliper (or caliper='none'), drop an exact column, or use another method",
    )
    if share is None:
        share = 1.0 / np.bincount(focal, minlength=n)[focal]
    own = np.zeros(n)
    own[focal] = 1.0
    weights = weights_of_use(
        own, np.bincount(other, weights=share, minlength=n).astype(float), treated, estimand
    )
    stratum = None
    if not replace:
        stratum = np.full(n, -1, dtype=np.int64)
        rows, code = np.unique(focal, return_inverse=True)
        stratum[rows] = np.arange(len(rows))
        stratum[other] = code
    return MatchedSet(
        method=method,
        estimand=estimand,
        weights=weights,
        focal=focal,
        other=other,
        share=share,
        stratum=stratum,
        replace=replace,
        errors=errors or (_SHARED if replace else _APART),
        discarded=discarded,
        settings=dict(settings),
    )


def set_from_strata(
    *,
    method: str,
    estimand: str,
    treated: Bools,
    stratum: Ints,
    errors: tuple[str, ...],
    discarded: Bools,
    settings: Mapping[str, Any],
) -> MatchedSet:
    """Build a matched set from strata, -1 for a row in none; strata without both arms are left out."""
    n_strata = int(stratum.max(initial=-1)) + 1
    inside = stratum >= 0
    n_t = np.bincount(stratum[inside & treated], minlength=n_strata)
    n_c = np.bincount(stratum[inside & ~treated], minlength=n_strata)
    both = (n_t > 0) & (n_c > 0)
    require_matches(
        np.flatnonzero(both), method=method, hint="coarsen further, ask for fewer strata, or drop a column"
    )
    renumber = np.where(both, np.cumsum(both) - 1, -1)
    code = np.where(inside, renumber[np.where(inside, stratum, 0)], -1).astype(np.int64)
    n_t, n_c = n_t[both].astype(float), n_c[both].astype(float)
    target = {"att": n_t, "atc": n_c}.get(estimand, n_t + n_c)
    weights = np.zeros(len(treated))
    for arm, count in ((treated, n_t), (~treated, n_c)):
        rows = arm & (code >= 0)
        weights[rows] = (target / count)[code[rows]]
        weights[rows] *= rows.sum() / weights[rows].sum()
    empty = np.zeros(0, dtype=np.int64)
    return MatchedSet(
        method=method,
        estimand=estimand,
        weights=weights,
        focal=empty,
        other=empty,
        share=np.zeros(0),
        stratum=code,
        replace=False,
        errors=errors,
        discarded=discarded,
        settings=dict(settings),
    )
