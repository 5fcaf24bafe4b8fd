"""Outcomes that are missing: how many under each arm, why, and what the worst of them would make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whyprompt._words import counted, format_number, p_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whyprompt.effects.gaps.bounds import MissingByArm
    from whyprompt.effects.result import EffectResult


def missing_words(
    missing: MissingByArm | None,
    made: EffectResult,
    *,
    treated: str,
    control: str,
    reasons: Mapping[str, Mapping[str, int]] | None = None,
) -> str:
    """Say how outcomes are missing by arm, and what the worst of them would make of the effect.

    `reasons` are the counts of each reason by arm; "" where nothing is missing.
    """
    if missing is None:
        return ""
    why = {arm: ", ".join(f"{text} {n}" for text, n in by.items()) for arm, by in (reasons or {}).items()}
    said = {arm: f" ({text})" if text else "" for arm, text in why.items()}
    noun = missing.unit
    text = (
        f" An outcome is missing for {missing.treated} of {counted(missing.of[0], noun)} under"
        f" {treated!r}{said.get(treated, '')} and {missing.control} of {missing.of[1]} under"
        f" {control!r}{said.get(control, '')} (exact p {p_words(missing.p)} of no relation to the arm)"
    )
    if missing.low is None or missing.high is None:
        return f"{text}; nothing bounds what they could have been."
    low, high = made.ci_low, made.ci_high
    text += (
        f"; with the worst (0) and the best (1) in their place the mean difference lies between"
        f" {format_number(missing.low)} and {format_number(missing.high)}"
    )
    if low is not None and high is not None and not low <= 0 <= high and missing.low <= 0 <= missing.high:
        text += ": without an assumption on what is missing its sign is not identified"
    elif not missing.low <= made.estimate <= missing.high:
        text += (
            ": whatever is missing, the effect on all of these items is not the one of those without a gap"
        )
    return f"{text}."
