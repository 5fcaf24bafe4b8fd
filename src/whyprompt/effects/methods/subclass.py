"""Subclasses of the propensity score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from whyprompt._arguments import at_least
from whyprompt.effects.methods.matched import on_grid, set_from_strata
from whyprompt.effects.methods.matching import Matching
from whyprompt.effects.methods.method import one_of
from whyprompt.errors import EstimationError
from whyprompt.stats.order import codes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.matched import MatchedSet
    from whyprompt.effects.methods.matching import Score
    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.problem import Problem

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

OneSided = Literal["move", "merge"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subclass(Matching):
    """Rows in subclasses at quantiles of the score.

    Attributes
    ----------
    n_strata : int, default 6
    one_sided : {"move", "merge"}, default "move"
        What is done with a subclass that holds one arm only; see `match_subclass`.
    exact, discard
        As in `Nearest`.
    distance : {"logistic", "logit"}, default "logistic"
        The score, or its logit.
    regression_adjustment : bool, optional
        As in `Nearest`.
    """

    name = "subclass"

    n_strata: int = 6
    one_sided: OneSided = "move"
    exact: Sequence[str] = ()
    distance: str = "logistic"
    discard: str = "none"
    regression_adjustment: bool | None = None

    def __post_init__(self) -> None:
        Matching.__post_init__(self)
        at_least(self.n_strata, 1, "n_strata", most=1_000)
        one_of(self.one_sided, get_args(OneSided), "one_sided")

    def match(self, problem: Problem, plan: Plan, score: Score | None, discarded: Bools) -> MatchedSet:  # noqa: D102
        assert score is not None
        return match_subclass(
            score[1],
            problem.treated,
            estimand=plan.estimand,
            n_strata=self.n_strata,
            one_sided=self.one_sided,
            strata=problem.strata,
            discarded=discarded,
        )


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

    Quantiles are those of the treated for the ATT, of the controls for the ATC, and of all rows for the ATE,
    discarded rows included (as in MatchIt). A subclass that holds one arm only loses no row: ``"move"`` takes
    the nearest row of the missing arm from the subclasses beside it, as MatchIt does; ``"merge"`` joins it
    with its neighbour below (above, for the first). `strata`, codes of exact columns, split every subclass
    further, and parts without both arms are lost.

    Reference: Rosenbaum, P. R. and Rubin, D. B. (1984). Reducing bias in observational studies using
    subclassification on the propensity score. JASA 79, 516-524.

    >>> import numpy as np
    >>> score = np.array([0.1, 0.2, 0.7, 0.8, 0.15, 0.75])
    >>> arm = np.array([True, False, True, False, True, True])
    >>> match_subclass(score, arm, n_strata=2).stratum.tolist()
    [0, 0, 1, 1, 0, 1]
    """
    score = on_grid(score)
    if n_strata < 1:
        raise EstimationError(f"{n_strata} subclasses were asked for; at least one is needed")
    one_of(one_sided, get_args(OneSided), "one_sided")
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
        # A handful of subclasses are no sample of clusters: that error would be far too large.
        errors=("strata", "bootstrap"),
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
