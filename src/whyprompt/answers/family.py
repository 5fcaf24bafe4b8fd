"""The questions that one study asks of its data, adjusted for their number."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from whyprompt._words import counted, p_words
from whyprompt.effects.pairs import paired_interval, paired_scale
from whyprompt.effects.subgroups import IMPOSSIBLE
from whyprompt.stats.errors import interval
from whyprompt.stats.rules import holm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whyprompt.effects.result import EffectResult
    from whyprompt.results import Estimate


def family_rows(results: Mapping[tuple[str, str], EffectResult], *, control: str) -> tuple[Estimate, ...]:
    """Adjust the results of one study, by outcome and treated arm, for their number.

    In the order given: each labelled by its outcome, `by` its two arms. The adjusted p is Holm's
    (Scandinavian Journal of Statistics 6, 1979), simultaneous intervals Bonferroni's (Dunn, Journal of the
    American Statistical Association 56, 1961): each result's own kind at the stricter level, or none. One
    that goes where no difference of risks can be has a note of it.
    """
    found = list(results.values())
    number = sum(r.p_value is not None for r in found)
    adjusted = holm([r.p_value for r in found])
    out = []
    for (outcome, treated), r, p in zip(results, found, adjusted, strict=True):
        low, high = _interval_at(r, 1 - (1 - r.level) / max(number, 1))
        beyond = bool(r.measures) and low is not None and high is not None and not -1 <= low <= high <= 1
        assert r.overall is not None
        out.append(
            replace(
                r.overall,
                label=outcome,
                by=f"{treated} - {control}",
                simultaneous_low=low,
                simultaneous_high=high,
                p_adjusted=p,
                note=IMPOSSIBLE if beyond else r.overall.note,
            )
        )
    return tuple(out)


def _interval_at(r: EffectResult, level: float) -> tuple[float | None, float | None]:
    """Give the interval of a result at another level."""
    if r.items is None:
        return interval(r.estimate, r.std_error, level=level, df=r.df)
    # Items have an exact p unless they are clustered, or their means are no counts in any case.
    scale = paired_scale(r.items, clustered=r.items.mcnemar_p is None)
    return paired_interval(r.items.treated - r.items.control, r.std_error, r.df, level, scale)[:2]


def family_words(rows: tuple[Estimate, ...], *, level: float) -> str:
    """Say how many questions were asked and what is left of each answer; nothing for a single one.

    The study's main question comes first.
    """
    known = [r for r in rows if r.p_adjusted is not None]
    if len(known) < 2:
        return ""
    words = f" The study asks {counted(len(known), 'question')} of these data."
    words += " Adjusted for their number (Holm), p is "
    words += ", ".join(f"{p_words(r.p_adjusted)} for {_name(r, rows[0])}" for r in known)
    words += "; the interval above is that of one question by itself."
    lost = [
        r
        for r in known
        if r.p_value is not None and r.p_adjusted is not None and r.p_value < 1 - level <= r.p_adjusted
    ]
    if lost:
        words += (
            f" Counted so, {', '.join(_name(r, rows[0]) for r in lost)} may not be claimed:"
            " among as many questions such a difference comes by chance."
        )
    if beyond := [_name(r, rows[0]) for r in rows if r.note == IMPOSSIBLE]:
        words += f" Adjusted for their number, {IMPOSSIBLE} ({', '.join(beyond)})."
    return words


def _name(row: Estimate, main: Estimate) -> str:
    return row.label if row.by == main.by else f"{row.label} under {row.by.rpartition(' - ')[0]}"
