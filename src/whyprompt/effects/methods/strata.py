"""Stratified matching: subclasses of the propensity score, and coarsened exact matching."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt.effects.methods.matched import MatchedSet, on_grid, set_from_strata
from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.order import codes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

__all__ = ["OneSided", "coarsen", "match_cem", "match_subclass"]

OneSided = Literal["move", "merge"]


def match_subclass(
    score: Floats,
    treated: Bools,
    *,
    estimand: str = "att",
    n_strata: int = 6,
    one_sided: OneSided = "move",
    strata: Ints | None = None,
    discarded: Bools | None = None,
) -> MatchedSet:
    """Put rows into subclasses at quantiles of the score.

    Quantiles are those of the treated for the ATT, of the controls for the ATC, and of all rows for the
    ATE, discarded rows included (as in MatchIt).

    Parameters
    ----------
    score : ndarray, shape (n,)
        Propensity score.
    treated : ndarray of bool, shape (n,)
        The arm.
    estimand : {"att", "atc", "ate"}, default "att"
        Whose average effect.
    n_strata : int, default 6
        Subclasses asked for.
    one_sided : {"move", "merge"}, default "move"
        What is done with a subclass that holds one arm only, so that no row is lost. ``"move"`` takes the
        nearest row of the missing arm from the subclasses beside it, as MatchIt does; ``"merge"`` joins it
        with its neighbour below (above, for the first).
    strata : ndarray of int, shape (n,), optional
        Codes of exact columns; they split every subclass further, and parts without both arms are lost.
    discarded : ndarray of bool, shape (n,), optional
        Rows to leave out.

    Returns
    -------
    MatchedSet

    Raises
    ------
    EstimationError
        If fewer than one subclass is asked for, or no subclass holds both arms.

    References
    ----------
    Rosenbaum, P. R. and Rubin, D. B. (1984). Reducing bias in observational studies using
    subclassification on the propensity score. JASA 79, 516-524.

    Examples
    --------
    >>> import numpy as np
    >>> score = np.array([0.1, 0.2, 0.7, 0.8, 0.15, 0.75])
    >>> arm = np.array([True, False, True, False, True, True])
    >>> match_subclass(score, arm, n_strata=2).stratum.tolist()
    [0, 0, 1, 1, 0, 1]
    """
    score = on_grid(score)
    if n_strata < 1:
        raise EstimationError(f"{n_strata} subclasses were asked for; at least one is needed")
    if one_sided not in {"move", "merge"}:
        raise EstimationError(f"one_sided {one_sided!r} is not known", hint="one of: move, merge")
    out = np.zeros(len(score), dtype=bool) if discarded is None else discarded
    base = {"att": treated, "atc": ~treated}.get(estimand, np.ones(len(score), dtype=bool))
    cuts = np.quantile(score[base], np.linspace(0, 1, n_strata + 1))
    code = np.clip(np.searchsorted(cuts, score, side="right") - 1, 0, n_strata - 1)
    if one_sided == "merge":
        code = _merge_one_sided(code, treated, ~out)
    else:
        code = _move_into_one_sided(code, treated, score, ~out)
    n_formed = len(np.unique(code[~out]))
    if strata is not None:
        code = codes([code, strata])
    code = np.where(out, -1, code).astype(np.int64)
    return set_from_strata(
        method="subclass",
        estimand=estimand,
        treated=treated,
        stratum=code,
        discarded=out,
        settings={"n_strata": n_formed, "n_strata_asked": n_strata, "one_sided": one_sided},
    )


def _move_into_one_sided(code: Ints, treated: Bools, score: Floats, eligible: Bools) -> Ints:
    """Fill every subclass that lacks an arm with that arm's nearest row from a subclass beside it.

    The side is that on which the arm has more rows to spare, each subclass counted by the inverse of its
    distance; so does MatchIt, down to the row taken among equals (the last in the table).
    """
    present = np.unique(code[eligible])
    code = np.searchsorted(present, code)
    n_strata = len(present)
    for arm in (treated & eligible, ~treated & eligible):
        rows = np.flatnonzero(arm)
        if len(rows) < n_strata:
            raise EstimationError(
                f"{n_strata} subclasses cannot all hold both arms: one arm has {len(rows)} rows",
                hint="ask for fewer subclasses, or merge them with one_sided='merge'",
            )
        count = np.bincount(code[rows], minlength=n_strata)
        while (count == 0).any():
            lacking = int(np.argmin(count))
            spare = np.flatnonzero(count > 1)
            pull = float(((count[spare] - 1) / (spare - lacking)).sum())
            below = np.flatnonzero(count[:lacking] > 0)
            above = np.flatnonzero(count[lacking + 1 :] > 0) + lacking + 1
            left = len(above) == 0 or (len(below) > 0 and pull <= 0)
            giver = below[-1] if left else above[0]
            inside = rows[code[rows] == giver]
            values = score[inside]
            nearest = values.max() if left else values.min()
            code[inside[values == nearest][-1]] = lacking
            count[lacking] += 1
            count[giver] -= 1
    return code.astype(np.int64)


def _merge_one_sided(code: Ints, treated: Bools, eligible: Bools) -> Ints:
    values = np.unique(code[eligible])
    groups: list[list[int]] = []
    pending: list[int] = []
    for value in values.tolist():
        pending.append(value)
        arms = treated[eligible & np.isin(code, pending)]
        if arms.any() and not arms.all():
            groups.append(pending)
            pending = []
    if pending:
        if not groups:
            raise EstimationError(
                "no subclass holds both arms", hint="the arms do not overlap on the score; run the other arm"
            )
        groups[-1].extend(pending)
    merged = np.full(len(code), -1, dtype=np.int64)
    for number, members in enumerate(groups):
        merged[np.isin(code, members)] = number
    return merged


def match_cem(
    columns: Mapping[str, NDArray[Any]],
    treated: Bools,
    *,
    estimand: str = "att",
    cutpoints: Mapping[str, int | str | Sequence[float]] | None = None,
    strata: Ints | None = None,
    discarded: Bools | None = None,
) -> MatchedSet:
    """Match exactly on coarsened covariates.

    Parameters
    ----------
    columns : mapping of str to ndarray, each shape (n,)
        Numbers are binned; text is matched as it is.
    treated : ndarray of bool, shape (n,)
        The arm.
    estimand : {"att", "atc", "ate"}, default "att"
        Whose average effect, among the rows that find a counterpart.
    cutpoints : mapping, optional
        For a numeric column: a number of equal bins, the edges between bins, ``"q4"`` for that many
        quantile bins, 0 for no binning, or ``"sturges"``, which is the default.
    strata : ndarray of int, shape (n,), optional
        Codes of further columns on which matched rows must be equal.
    discarded : ndarray of bool, shape (n,), optional
        Rows to leave out.

    Returns
    -------
    MatchedSet

    Raises
    ------
    DataError
        If `cutpoints` names a column that is not there or gives something else.
    EstimationError
        If no stratum holds both arms.

    References
    ----------
    Iacus, S. M., King, G. and Porro, G. (2012). Causal inference without balance checking: coarsened
    exact matching. Political Analysis 20, 1-24.

    Examples
    --------
    >>> import numpy as np
    >>> matched = match_cem(
    ...     {"difficulty": np.array([1.0, 9.0, 1.5, 8.0])},
    ...     np.array([True, True, False, False]),
    ...     cutpoints={"difficulty": 2},
    ... )
    >>> matched.stratum.tolist()
    [0, 1, 0, 1]
    """
    if not columns:
        raise EstimationError("coarsened exact matching needs at least one covariate")
    cuts = dict(cutpoints or {})
    unknown = sorted(set(cuts) - set(columns))
    if unknown:
        raise DataError(f"cutpoints name {unknown[0]!r}, which is not among the covariates")
    out = np.zeros(len(treated), dtype=bool) if discarded is None else discarded
    parts = []
    for name, values in columns.items():
        if values.dtype == object:
            if name in cuts:
                raise DataError(f"column {name!r} is text; cutpoints are for numbers")
            parts.append(values)
        else:
            parts.append(coarsen(values, cuts.get(name, "sturges"), name=name))
    if strata is not None:
        parts.append(strata)
    code = np.where(out, -1, codes(parts)).astype(np.int64)
    return set_from_strata(
        method="cem",
        estimand=estimand,
        treated=treated,
        stratum=code,
        discarded=out,
        settings={"cutpoints": {name: cuts.get(name, "sturges") for name in columns}},
    )


def coarsen(values: Floats, rule: int | str | Sequence[float], *, name: str = "column") -> Floats:
    """Put numbers into bins; a value on an edge goes to the bin above, as in MatchIt.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Numbers.
    rule : int, str or sequence of float
        As for `match_cem`.
    name : str
        For messages.

    Returns
    -------
    ndarray, shape (n,)
        Bin numbers, or `values` where `rule` is 0.

    Raises
    ------
    DataError
        If the rule is not known.

    Examples
    --------
    >>> import numpy as np
    >>> coarsen(np.array([0.0, 4.0, 5.0, 10.0]), 2).tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    if isinstance(rule, str):
        if rule == "sturges":
            rule = int(np.ceil(np.log2(len(values)) + 1))
        elif rule.startswith("q") and rule[1:].isdigit() and int(rule[1:]) > 1:
            n_bins = int(rule[1:])
            rule = np.quantile(values, np.arange(1, n_bins) / n_bins).tolist()
        else:
            raise DataError(
                f"cutpoints {rule!r} for {name!r} are not known",
                hint="a number of bins, a list of edges, 'sturges', or 'q4' for quartiles",
            )
    if isinstance(rule, int | np.integer):
        if rule == 0:
            return values
        if rule < 0:
            raise DataError(f"cutpoints for {name!r} ask for {rule} bins")
        edges = np.linspace(values.min(), values.max(), int(rule) + 1)[1:-1]
    else:
        edges = np.unique(np.asarray(rule, dtype=np.float64))
    return np.searchsorted(edges, values, side="right").astype(np.float64)
