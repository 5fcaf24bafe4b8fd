"""Logs of more than two arms: every other arm against one, adjusted for their number."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from whyprompt.effects.arms import compare_arms
from whyprompt.effects.arms_words import differing_words
from whyprompt.effects.several import EffectsResult
from whyprompt.results import with_holm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from whyprompt.effects.result import EffectResult
    from whyprompt.results import Assumption
    from whyprompt.trials.logs.result import ReadTrials

_WORST = ("holds", "not checked", "untestable", "doubtful", "fails")


def against_reference(
    found: ReadTrials,
    reference: str,
    pairs_at: Callable[[float], Sequence[tuple[EffectResult, str]]],
    *,
    design: str | None,
    level: float,
) -> EffectsResult:
    """Put the effects of the arms against one of them side by side.

    `pairs_at` gives at a level the effect of each other arm, with what logs add to its sentence, and `design`
    is what was asked. Where all rows have logged chances, the arms have a joint distribution; else each pair
    stands by itself, with Holm's p and Bonferroni's intervals.
    """
    pairs = pairs_at(level)
    designs = {str(made["design"]) for made, _ in pairs}
    adds = [f"{made.treated!r} instead of {reference!r}:{said}" for made, said in pairs if said]
    joint = _joint(found, reference, level) if designs == {"randomized"} else None
    if joint is None:
        strict = pairs_at(1.0 - (1.0 - level) / len(pairs))
        spans = [(made.ci_low, made.ci_high) for made, _ in strict]
        several = _side_by_side(found, reference, [made for made, _ in pairs], spans, level)
        sentences = [several.sentence, *(f"{made.sentence}{said}" for made, said in pairs)]
    else:
        several, sentences = joint, [joint.sentence, *adds]
    own = [f"{made.treated} against {reference}: {text}" for made, _ in pairs for text in made.warnings]
    warnings = dict.fromkeys((*found.warnings, *several.warnings, *(own if joint is None else ())))
    missing = {made.treated: made["missing"] for made, _ in pairs if "missing" in made.figures}
    figures: dict[str, Any] = {"read": found.sentence, "design": design or ""}
    figures["designs"] = {made.treated: made["design"] for made, _ in pairs}
    return replace(
        several,
        sentence="\n".join([found.sentence, *sentences]),
        warnings=tuple(warnings),
        figures=figures | ({"missing": missing} if missing else {}),
    )


def _joint(found: ReadTrials, reference: str, level: float) -> EffectsResult | None:
    """Compare the arms at once, where the chances of all rows are known."""
    if "propensity" not in found.frame:
        return None
    rows = found.frame[found.frame[found.outcome].notna()]
    asked: dict[str, Any] = {"treatment": "arm", "outcome": found.outcome, "reference": reference}
    return compare_arms(rows, design="randomized", propensity="propensity", level=level, **asked)


def _side_by_side(
    found: ReadTrials,
    reference: str,
    pairs: Sequence[EffectResult],
    spans: Sequence[tuple[float | None, float | None]],
    level: float,
) -> EffectsResult:
    """Give effects of which each was estimated by itself."""
    rows = with_holm([replace(m.overall, label=f"{m.treated} - {reference}") for m in pairs])
    parts = [
        replace(row, simultaneous_low=low, simultaneous_high=high)
        for row, (low, high) in zip(rows, spans, strict=True)
    ]
    several = EffectsResult(
        sentence="",
        of="arms",
        treatment="arm",
        outcome=found.outcome,
        control=reference,
        axis=f"difference in {found.outcome}",
        estimand=" or ".join(dict.fromkeys(m.estimand for m in pairs)),
        method=" or ".join(dict.fromkeys(m.method for m in pairs)),
        adjustment="Bonferroni",
        pairs=tuple((m.treated, reference) for m in pairs),
        parts=tuple(parts),
        level=level,
        assumptions=_worst(pairs),
        confounders=tuple(dict.fromkeys(name for m in pairs for name in m.confounders)),
        std_error_method="; ".join(dict.fromkeys(m.std_error_method for m in pairs)),
    )
    return replace(several, sentence=differing_words(several, to_reference=True))


def _worst(pairs: Sequence[EffectResult]) -> tuple[Assumption, ...]:
    """Give each assumption as it stands in the pair where it stands worst."""
    out: dict[str, Assumption] = {}
    for made in pairs:
        for one in made.assumptions:
            told = replace(one, detail=f"{made.treated} against {made.control}: {one.detail}")
            if one.name not in out or _WORST.index(one.status) > _WORST.index(out[one.name].status):
                out[one.name] = told
    return tuple(out.values())
