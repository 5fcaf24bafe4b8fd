"""The assumptions behind an adjusted comparison, each with the check that was made of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from whyprompt._words import format_number
from whyprompt.results import Assumption
from whyprompt.stats.rules import SMD_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.results import BalanceRow, Estimate, Status

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]


# Share of the rows whose effect is wanted that may lie beyond the other arm's scores.
_FEW, _MANY = 0.01, 0.10
# Of the other arm, below which a row is taken to have had none.
CHANCE = 0.01
# Standard errors that such rows may move the estimate by, were their other outcomes a standard deviation off.
_REACH = 3.0
# Below this effective share of the rows used, the estimate rests on a handful of them.
_LOW_ESS = 0.2
# Of the confounding adjusted for: hidden confounding of this share is likely enough to claim nothing.
_SHARE = 1 / 3
# Of the standard error, that what is left over may move the estimate by.
_MOVED = 0.5
# The same where no outcome model took its part; and of a lot's standard errors.
_CURVED, _LOT = 1.0, 2.0
# Of the standard error, that straight lines may lie away; and that half the rows to learn from may move the
# estimate. What is left of an error that falls with the root of the rows is 2.4 times that.
APART, _LEARNED = 2.0, 1.5
# Of an arm's weight, that one row may carry before the estimate is that row's.
_HEAVY = 0.1
# Overlap weights leave out rows without a counterpart on purpose; what is left must still be a sample.
FEW_ROWS = 30.0
_STATED = "as the caller states,"


class Left(NamedTuple):
    """What adjusting left of the covariates.

    `moved` is how far it would move the estimate, in its units, `chance` the standard error that a lot would
    give it, and `error` that of the estimate;
    `modelled` says that an outcome model took its part, and `curved` that it learned curves. `by_lines` is
    the estimate of straight lines alone, where there is one to compare, and `by_fewer` that from half as many
    rows to learn from, where lines are far away.
    """

    moved: float
    chance: float
    error: float
    modelled: bool
    curved: bool
    estimate: float
    by_lines: float | None
    by_fewer: float | None = None


def describe_assumptions(
    *,
    design: str,
    confounders: Sequence[str],
    from_graph: bool,
    cautions: Sequence[str],
    clustered: bool,
    overlap: Assumption | None,
    balance: Sequence[BalanceRow] = (),
    moved: Sequence[str] = (),
    left: Left | None = None,
    removed: tuple[float, Estimate] | None = None,
) -> tuple[Assumption, ...]:
    """List the assumptions, each with the check that was made of it.

    `from_graph` says that a causal graph chose or approved the confounders, of which it remarked `cautions`;
    `overlap` is that of `judge_overlap`, None where there is no score to judge by; `moved` are covariates
    that differ between randomised arms by more than a lot would do; `left` is what adjusting left of the
    covariates; `removed` is what
    adjusting took from the plain difference, and the estimate that is left of it.
    """
    out = [_exchangeability(design, confounders, removed, from_graph=from_graph)]
    if moved or from_graph or confounders:
        out.append(_no_post_treatment(moved, cautions, from_graph=from_graph))
    if overlap is not None:
        out.append(overlap)
    if balance:
        sizes = {row.covariate: row.smd_after for row in balance}
        what = "standardised mean difference of each covariate"
        if left is not None and left.modelled:
            out.append(_judge_left_over(sizes, left))
        else:
            found = judge_balance(sizes, what, randomized=design == "randomized")
            out.append(found if left is None else _judge_curves(found, left))
        if left is not None and left.by_lines is not None:
            out.append(_judge_lines(left, left.by_lines))
    out.append(
        Assumption(
            name="no interference",
            status="not checked",
            check="repeated trials with another batch composition would be needed",
            detail="an item's outcome is taken not to depend on which arm other items got",
        )
    )
    out.append(
        Assumption(
            name="independent units",
            status="holds" if clustered else "not checked",
            check="rows were grouped by the cluster column" if clustered else "no cluster column was given",
            detail="errors may be correlated within a cluster and not between them"
            if clustered
            else "every row is taken to be sampled by itself; repeated items need cluster=",
        )
    )
    return tuple(out)


def _no_post_treatment(moved: Sequence[str], cautions: Sequence[str], *, from_graph: bool) -> Assumption:
    status: Status = "doubtful" if cautions else "holds" if from_graph else "not checked"
    if moved:
        status = "fails"
        check = (
            "a lot balances what the item was before: each covariate's difference between the arms was tested"
            " at 0.001, over their number"
        )
        detail = (
            f"the arms differ in {', '.join(moved)}: either the arm causes it, and it must be left out, or"
            " the arm was not drawn by one lot for all rows"
        )
    elif from_graph:
        check = "the graph was asked whether any covariate is caused by the arm or opens a path"
        detail = "; ".join(cautions) or "none is"
    else:
        check = "the names were compared with those that the field gives to what an arm causes"
        detail = "; ".join(cautions) or "none is among them; without a graph no more can be said"
    return Assumption(name="no post-treatment adjustment", status=status, check=check, detail=detail)


def _exchangeability(
    design: str,
    confounders: Sequence[str],
    removed: tuple[float, Estimate] | None,
    *,
    from_graph: bool,
) -> Assumption:
    named = ", ".join(confounders)
    status: Status = "holds" if design in {"randomized", "paired"} else "untestable"
    check = "the design"
    if design == "randomized":
        detail = "the arm was drawn at random, as the caller states"
    elif design == "paired":
        detail = "each item was run under every arm, so that nothing about an item decided its arm"
    else:
        check = "none is possible from these data; see the sensitivity analyses"
        detail = (
            f"by the graph, nothing{f' but {named}' if named else ''} affects both the choice of arm and the"
            " outcome"
            if from_graph
            else f"{_STATED} nothing but {named} affects both the choice of arm and the outcome"
            if named
            else "nothing was adjusted for: nothing would have to affect both the choice of arm and the"
            " outcome, which nobody states"
        )
        rest = None if removed is None else _rest_of_confounding(*removed)
        if rest is not None:
            status, check = (
                "fails",
                (
                    "share of the confounding adjusted for that hidden confounding would have to reach to"
                    f" account for the whole estimate; limit {_SHARE:.0%}"
                ),
            )
            detail = rest
    return Assumption(name="exchangeability", status=status, check=check, detail=detail)


def as_taken(assumptions: Sequence[Assumption]) -> tuple[Assumption, ...]:
    """Say of confounders that the caller did not name that they were taken to be all."""
    stated, taken = _STATED, "taken, as no confounders were named:"
    return tuple(
        replace(a, detail=taken + a.detail.removeprefix(stated))
        if a.name == "exchangeability" and a.detail.startswith(stated)
        else a
        for a in assumptions
    )


def _rest_of_confounding(removed: float, row: Estimate) -> str | None:
    """Say that little more of the confounding found would explain an estimate away; None where it would not.

    Confounders that nobody recorded lean as a rule the way that the recorded ones do. Where these took most
    of a difference away, and what is left leans the same way and is told from zero, it is as likely the rest
    of the confounding (Altonji, Elder and Taber 2005, Journal of Political Economy 113, 151-184; Oster 2019).
    """
    estimate, low, high = row.estimate, row.ci_low, row.ci_high
    if estimate is None or low is None or high is None or low <= 0 <= high or removed * estimate <= 0:
        return None
    share = estimate / removed
    if share > _SHARE:
        return None
    return (
        f"adjusting took {format_number(removed)} of a difference of {format_number(removed + estimate)}"
        f" away; hidden confounding {format_number(share, digits=2)} times as strong as that would account"
        " for all the rest"
    )


def not_claimed(assumptions: Sequence[Assumption], what: str, *, but: str = "") -> str:
    """Say why `what` may not be claimed, where an assumption (`but` one) fails its check; else nothing."""
    failed = [a.detail.rstrip(".") for a in assumptions if a.status == "fails" and a.name != but]
    failed = [text[:1].upper() + text[1:] for text in failed]
    return f" {'. '.join(failed)}. {what}" if failed else ""


def judge_balance(sizes: Mapping[str, float | None], what: str, *, randomized: bool = False) -> Assumption:
    """Say whether the covariates are balanced after adjustment, by a size of each, which `what` names.

    Fails where one exceeds 0.1 or cannot be computed. In a randomised design what differs differs by chance,
    which the interval already counts: it then holds, naming the difference.
    """
    bad = {name: size for name, size in sizes.items() if size is None or abs(size) > SMD_LIMIT}
    largest = max((abs(size) for size in sizes.values() if size is not None), default=0.0)
    listed = ", ".join(
        name if size is None else f"{name} {format_number(size, digits=2)}" for name, size in bad.items()
    )
    detail = f"over the limit: {listed}" if bad else f"the largest is {format_number(largest, digits=2)}"
    if bad and randomized:
        detail = f"by chance, {detail}; adjusting for it (method aipw) would narrow the interval"
    status: Status = "fails" if bad and not randomized else "holds"
    return Assumption(name="balance", status=status, check=f"{what}, limit {SMD_LIMIT}", detail=detail)


def _judge_left_over(sizes: Mapping[str, float | None], left: Left) -> Assumption:
    """Say whether weights and outcome model balance the arms: what the one leaves the other may take.

    Fails where what both left of the covariates would move the estimate by more than half its standard error,
    which turns a 95% interval into one of 92%; doubtful above a quarter. Beside a model of straight lines the
    limits are as in `_judge_curves`.
    """
    limit = _MOVED if left.curved else _CURVED
    share = abs(left.moved) / left.error if left.error > 0 else 0.0
    largest = max((abs(size) for size in sizes.values() if size is not None), default=0.0)
    detail = (
        f"what the outcome model left of the covariates, in which the weighted arms still differ (by"
        f" {format_number(largest, digits=2)} standard deviations at most), would move the estimate by"
        f" {format_number(left.moved, digits=2)}, {format_number(share, digits=2)} times its standard error"
    )
    status = _status(share, limit, left)
    return Assumption(
        name="balance",
        status=status,
        check="regression of the outcome model's residuals on the covariates, their squares, fifths and"
        f" products, over the difference of the weighted arms in them; limit {limit:g} standard errors",
        detail=detail,
    )


def _judge_curves(found: Assumption, left: Left) -> Assumption:
    """Add to a balance of means what squares, fifths and products show.

    Without an outcome model chance differences in them move an estimate as well, which its interval counts:
    the limit is one standard error, by which a 95% interval is one of 83%, and what a lot would do in one
    table of twenty; doubtful above a half.
    """
    share = abs(left.moved) / left.error if left.error > 0 else 0.0
    text = (
        "what is left in the covariates, their squares, fifths and products would move the estimate by"
        f" {format_number(left.moved, digits=2)}, {format_number(share, digits=2)} times its standard error"
    )
    check = f"{found.check}; and of squares, fifths and products by what they say of the outcome, limit 1"
    status = _status(share, _CURVED, left)
    if found.status == "fails":
        return replace(found, check=f"{check} standard error")
    detail = f"{found.detail}; {text}" if status == "holds" else text
    return replace(found, status=status, check=f"{check} standard error", detail=detail)


def _status(share: float, limit: float, left: Left) -> Status:
    by_lot = abs(left.moved) < _LOT * left.chance
    return "fails" if share > limit and not by_lot else "doubtful" if share > limit / 2 else "holds"


def _judge_lines(left: Left, by_lines: float) -> Assumption:
    """Say how far the estimate rests on curves that were learned, and whether the rows taught them.

    What half as many rows teach has a larger error. Where that moves the estimate by more than 1.5 standard
    errors, more rows would move it on, and this fails.
    """
    share = _in_errors(left.estimate - by_lines, left)
    detail = (
        f"straight lines alone would have {format_number(by_lines)}, {format_number(share, digits=2)}"
        " standard errors away"
    )
    check = f"the estimate beside that of straight lines in each arm, limit {APART:g} standard errors"
    status: Status = "holds"
    if share > APART:
        status = "doubtful"
        detail += "; the estimate rests on curves and joint effects that were learned from these rows"
    if left.by_fewer is not None:
        moved = _in_errors(left.estimate - left.by_fewer, left)
        check += f"; and beside what half as many rows would teach, limit {_LEARNED:g}"
        detail += (
            f", and half as many to learn from would have {format_number(left.by_fewer)},"
            f" {format_number(moved, digits=2)} standard errors away"
        )
        if moved > _LEARNED:
            status = "fails"
            detail += ": it moves with the rows that it is learned from, and more of them would move it on"
    return Assumption(name="functional form", status=status, check=check, detail=detail)


def _in_errors(gap: float, left: Left) -> float:
    return abs(gap) / left.error if left.error > 0 else 0.0


def judge_overlap(
    score: Floats | None,
    treated: Bools,
    *,
    estimand: str,
    weights: Floats,
    discarded: Bools,
    ess: tuple[float, float],
    lost: tuple[int, int] = (0, 0),
    reach: float = 0.0,
    heavy: str = "",
) -> Assumption:
    """Say whether rows of the other arm exist where the effect is wanted.

    The `score` is None for a method that has none, which shows by the rows it leaves out (weight 0);
    `discarded` rows were put aside for want of support, and `lost` are treated and control rows without a
    counterpart that are not among these. `reach` is the outcome's standard deviation over the standard error:
    of many rows a few without a counterpart may be worth more than the whole interval. `heavy` says that one
    row carries much of an arm's weight.

    Fails where more than 10% of the rows that are spoken for lie beyond the other arm's scores, or had
    next to no chance of that arm, or where their outcomes in it, taken wrongly by one standard deviation,
    would move the estimate by more than 3 standard errors; doubtful above 1% or one standard error, or
    where an arm's weight rests on less than a fifth of its rows used, or where a tenth of the rows wanted
    found no counterpart. For the ATO rows count by their weight, which is small where the other arm is
    rare, and it is doubtful only where the weights of an arm are worth fewer than 30 rows, or a tenth of
    all rows were put aside.
    """
    wanted = {"att": treated, "atc": ~treated}.get(estimand, np.ones(len(treated), dtype=bool))
    used = weights > 0
    spoken_for = wanted & used
    by_weight = estimand == "ato"
    share = None
    if score is not None:
        counts = np.where(spoken_for, weights if by_weight else 1.0, 0.0)
        beyond = np.zeros(len(score), dtype=bool)
        for arm, other in ((treated, score[~treated]), (~treated, score[treated])):
            beyond |= arm & ((score < other.min()) | (score > other.max()))
        if not by_weight:
            # A score that was kept from 0 or 1 lies at the limit.
            beyond |= np.where(treated, 1.0 - score, score) <= CHANCE * (1 + 1e-9)
        share = float(counts @ beyond / counts.sum()) if spoken_for.any() else 1.0
    all_wanted = int(wanted.sum()) + {"att": lost[0], "atc": lost[1]}.get(estimand, sum(lost))
    return overlap_of(
        share,
        estimand=estimand,
        gone=1.0 - float(used[wanted].sum()) / all_wanted,
        used=(int((used & treated).sum()), int((used & ~treated).sum())),
        discarded=int(discarded.sum()),
        ess=ess,
        reach=reach,
        heavy=heavy,
    )


def hangs_on_one(largest: Sequence[tuple[float, int]]) -> str:
    """Say that one row carries much of the weight of an arm, "" where none does.

    `largest` has of each arm the share of its weight that one row carries, and its number of rows.
    """
    for share, n in largest:
        if share > max(_HEAVY, 4.0 / n):
            return f"one row carries {share:.0%} of the weight of its arm"
    return ""


def overlap_of(
    beyond: float | None,
    *,
    estimand: str,
    gone: float,
    used: tuple[int, int],
    discarded: int,
    ess: tuple[float, float],
    reach: float,
    heavy: str = "",
) -> Assumption:
    """Judge overlap as `judge_overlap` does, by its figures.

    They are the share `beyond` the other arm's scores (None without a score), the share of the rows wanted
    that is `gone`, and the numbers of rows used of each arm and discarded.
    """
    by_weight = estimand == "ato"
    share, remarks = beyond or 0.0, []
    if beyond is not None:
        what = "weight" if by_weight else "rows the effect speaks for"
        remarks.append(
            f"{share:.1%} of the {what} {'lies' if by_weight else 'lie'} beyond the other arm's scores"
            + ("" if by_weight else f", or had a chance of {CHANCE:.0%} at most to be in it")
        )
    thin = min(e / max(n, 1) for e, n in zip(ess, used, strict=True))
    few = min(ess) < FEW_ROWS if by_weight else thin < _LOW_ESS
    if gone > 0:
        remarks.append(f"{gone:.1%} of the rows wanted are not used")
    elif beyond is None:
        remarks.append("every row wanted found a counterpart")
    if discarded:
        remarks.append(f"{discarded} row(s) were put aside before matching")
    if by_weight:
        remarks.append(f"the weights are worth {ess[0]:.0f} treated and {ess[1]:.0f} control rows")
    elif few:
        remarks.append(f"an arm's weight rests on {thin:.0%} of its rows")
    if heavy:
        remarks.insert(0, heavy)
    moved = 0.0 if by_weight else share * reach
    if moved > 1.0:
        remarks.append(
            "wrong by one standard deviation of what is left of the outcome, what they would have done in it"
            f" moves the estimate by {format_number(moved, digits=2)} standard errors"
        )
    status: Status = (
        "fails"
        if share > _MANY or moved > _REACH
        else "doubtful"
        if (share > _FEW and not by_weight) or few or gone > 0.1 or moved > 1.0 or heavy
        else "holds"
    )
    return Assumption(
        name="overlap",
        status=status,
        check=("" if beyond is None else "range of the propensity scores of the two arms, ")
        + "rows used, effective sample sizes",
        detail="; ".join(remarks),
    )
