"""What an analysis of effects that differ says in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whyprompt._words import format_number, p_words, percent
from whyprompt.effects.assumptions import not_claimed
from whyprompt.results import Assumption, Estimate

if TYPE_CHECKING:
    from whyprompt.effects.whom.result import HeterogeneousEffects

GROUPING = Assumption(
    name="honest groups",
    status="holds",
    check="the construction",
    detail="each row's group was predicted from earlier folds, and its effect comes from its own outcome",
)


def with_interval(row: Estimate | None) -> str:
    """Write an estimate with its interval, or without one.

    >>> from dataclasses import replace
    >>> one = Estimate(label="", estimate=1.0)
    >>> with_interval(one), with_interval(replace(one, ci_low=0.5, ci_high=1.5))
    ('1.00 (no interval)', '1.00 (0.500 to 1.50)')
    """
    assert row is not None
    known = row.ci_low is not None and row.ci_high is not None
    span = f"{format_number(row.ci_low)} to {format_number(row.ci_high)}" if known else "no interval"
    return f"{format_number(row.estimate)} ({span})"


def caveat(found: HeterogeneousEffects, what: str) -> str:
    """Say what the numbers may not be claimed as."""
    no = not_claimed(found.assumptions, f"{what} may therefore not be claimed.")
    if not no and found.design == "observational":
        named = ", ".join(dict.fromkeys([*found.confounders, *found.modifiers]))
        return f" {what} hold if nothing but {named} affects both arm and outcome."
    return no


def sentence(found: HeterogeneousEffects) -> str:
    """Say whom the arm helps and whom it harms."""
    alpha = 1 - found.level
    by = ", ".join(found.modifiers)
    rows = "items" if found.design == "paired" else "rows"
    text = (
        f"Under {found.treated!r} instead of {found.control!r}, {found.outcome!r} changes by"
        f" {with_interval(found.overall)} on average over {len(found.rows.predicted)} {rows}"
    )
    least, most = found.parts[0], found.parts[-1]
    if found.most_minus_least is None:
        return f"{text}; {by} predict the same effect for all {rows}." + caveat(found, "The effects")
    text += (
        f"; of {found.n_judged} grouped by what {by} predict, by {with_interval(least)} for those predicted"
        f" to gain least and by {with_interval(most)} for those predicted to gain most, a difference of"
        f" {with_interval(found.most_minus_least)} ({percent(found.level)} intervals)."
    )
    p = None if found.calibration is None else found.calibration.p_value
    if p is None:
        text += " Whether the effect goes with its prediction cannot be said."
    elif p < alpha:
        text += f" The effect does rise with its prediction (p {p_words(p)})."
    else:
        text += f" That the effect goes with its prediction is not shown (p {p_words(p)})."
    for row, verb, sign in ((found.gain, "gain", 1.0), (found.harmed, "be harmed", -1.0)):
        if row is None or row.estimate is None:
            continue
        certain = row.p_value is not None and row.p_value < alpha and sign * row.estimate > 0
        text += (
            f" {row.n_used} {rows} are predicted to {verb if sign > 0 else 'lose'}; as a group they"
            f" {'do' if certain else 'are not shown to'}: {with_interval(row)}."
        )
    seen = [d.label for d in found.drivers if d.p_adjusted is not None and d.p_adjusted < alpha]
    if seen:
        text += f" Adjusted for the number of modifiers, the effect goes with {', '.join(seen)}."
    return text + caveat(found, "The effects")
