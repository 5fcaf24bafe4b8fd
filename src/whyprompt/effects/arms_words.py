"""What a comparison of many arms says, and assumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whyprompt._words import counted, format_number, percent
from whyprompt.effects.assumptions import FEW_ROWS, not_claimed
from whyprompt.effects.headline import method_words
from whyprompt.effects.several import excludes_zero
from whyprompt.results import Assumption
from whyprompt.stats.rules import SMD_LIMIT
from whyprompt.stats.several import more_by_steps

if TYPE_CHECKING:
    from whyprompt.effects.several import EffectsResult

LOW_ESS = 0.2
"""Weights worth less than this share of an arm's rows are said to rest on few of them."""


def arms_overlap(result: EffectsResult) -> Assumption | None:
    """Judge overlap by what each arm's weights are worth; None where there are no weights."""
    if not result.means or result.method == "naive":
        return None
    rows = {mean.label: mean.n_used or 1 for mean in result.means}
    thin = min(rows, key=lambda arm: result.ess[arm] / rows[arm])
    ess, n = result.ess[thin], rows[thin]
    # Overlap weights leave rows without counterparts out on purpose.
    few = min(result.ess.values()) < FEW_ROWS if result.estimand == "ato" else ess / n < LOW_ESS
    return Assumption(
        name="overlap",
        status="doubtful" if few else "holds",
        check="effective sample size of each arm under its weights",
        detail=f"the least is {ess:.0f} of {n} rows, arm {thin!r}",
    )


def arms_balance(result: EffectsResult) -> tuple[Assumption, ...]:
    """Judge balance: of all arms, or within each pair that was matched by itself."""
    if result.balance:
        bad = [r for r in result.balance if r.smd_after is None or r.smd_after > SMD_LIMIT]
        largest = max((r.smd_after for r in result.balance if r.smd_after is not None), default=0.0)
        listed = ", ".join(
            f"{r.covariate} {format_number(r.smd_after, digits=2)} ({r.worst_pair[1]} and {r.worst_pair[0]})"
            for r in bad
        )
        where, good = "over all pairs of arms", f"the largest is {format_number(largest, digits=2)}"
    elif result.confounders:
        known = [
            (pair, r) for pair, r in zip(result.pairs, result.parts, strict=True) if r.estimate is not None
        ]
        over = [(pair, r) for pair, r in known if r.largest_smd is None or r.largest_smd > SMD_LIMIT]
        listed = ", ".join(f"{a} against {b} {format_number(r.largest_smd, digits=2)}" for (a, b), r in over)
        where, good = "within each pair of arms", "within the limit for every pair"
    else:
        return ()
    return (
        Assumption(
            name="balance",
            status="fails" if listed else "holds",
            check=f"largest standardised mean difference {where}, limit {SMD_LIMIT}",
            detail=f"over the limit: {listed}" if listed else good,
        ),
    )


def differing_words(result: EffectsResult, *, to_reference: bool) -> str:
    """Say which arms differ."""
    rows = list(zip(result.pairs, result.parts, strict=True))
    # An exact p may not bear out an interval that is an approximation.
    seen = [
        (pair, r)
        for pair, r in rows
        if excludes_zero(r) and (r.p_adjusted is None or r.p_adjusted < 1 - result.level)
    ]
    parts = [
        f"{arm!r} in place of {reference!r} by {format_number(r.estimate)}"
        f" ({format_number(r.simultaneous_low)} to {format_number(r.simultaneous_high)})"
        for (arm, reference), r in seen
    ]
    compared = sum(r.estimate is not None for r in result.parts)
    what = (
        f"Of {counted(compared, 'comparison')} with {result.control!r}"
        if to_reference
        else f"Of {counted(compared, 'pair')} of arms"
    )
    text = (
        f"{what}, {len(seen)} {'differs' if len(seen) == 1 else 'differ'} in {result.outcome!r} after"
        f" adjustment for their number ({result.estimand.upper()} by {method_words(result.method)})"
    )
    text += f": {'; '.join(parts)}; intervals hold at once at {percent(result.level)}." if parts else "."
    ps = [1.0 if r.p_adjusted is None else r.p_adjusted for r in result.parts]
    rest = [(pair, p) for (pair, r), p in zip(rows, ps, strict=True) if (pair, r) not in seen]
    return text + more_by_steps(
        [f"{arm!r} in place of {reference!r}" for (arm, reference), p in rest if p < 1 - result.level],
        least=[p for _, p in rest],
        level=result.level,
    )


def arms_sentence(
    result: EffectsResult, design: str, *, to_reference: bool, chances: str | None = None
) -> str:
    """Say which arms differ, and whether that is their effect.

    `chances` is the column of those with which the arms were drawn, if there is one.
    """
    text = differing_words(result, to_reference=to_reference)
    no = not_claimed(
        result.assumptions, "The differences may therefore not be claimed as effects of the arms."
    )
    if no:
        return text + no
    if design == "paired":
        return f"{text} Each item was run under every arm, so these are effects of the arms on these items."
    if chances is not None:
        thin = [a.detail for a in result.assumptions if a.name == "overlap" and a.status == "doubtful"]
        text += "".join(f" Overlap is thin: {detail}." for detail in thin)
        drawn = f"the arms were drawn with the chances in {chances!r}"
        if design == "randomized":
            return f"{text} T{drawn[1:]}, so these are effects of the arms."
        return f"{text} They are effects if {drawn}."
    if design == "randomized":
        return f"{text} The arms were randomised, so these are effects of the arms."
    if not result.confounders:
        return f"{text} These are comparisons and not effects: nothing was adjusted for."
    named = ", ".join(result.confounders)
    return f"{text} They are effects if nothing but {named} affects both arm and outcome."
