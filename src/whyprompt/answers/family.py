"""The questions that one study asks of its data, adjusted for their number."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from whyprompt._words import counted, p_words
from whyprompt.stats.errors import quantile
from whyprompt.stats.rules import holm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whyprompt.effects.result import EffectResult
    from whyprompt.results import Estimate


def family_rows(results: Mapping[tuple[str, str], EffectResult], *, control: str) -> tuple[Estimate, ...]:
    """Adjust the results of one study, by outcome and treated arm, for their number.

    In the order given: each labelled by its outcome, `by` its two arms. The adjusted p is Holm's
    (Scandinavian Journal of Statistics 6, 1979), simultaneous intervals Bonferroni's (Dunn, Journal of the
    American Statistical Association 56, 1961); a result without a standard error has none.
    """
    found = list(results.values())
    number = sum(r.p_value is not None for r in found)
    adjusted = holm([r.p_value for r in found])
    out = []
    for (outcome, treated), r, p in zip(results, found, adjusted, strict=True):
        low = high = None
        if r.std_error is not None and number:
            q = quantile(1 - (1 - r.level) / number, r.df)
            low, high = r.estimate - q * r.std_error, r.estimate + q * r.std_error
            # That of a 0/1 outcome by itself is no t interval, and may reach further on one side.
            low = low if r.ci_low is None else min(low, r.ci_low)
            high = high if r.ci_high is None else max(high, r.ci_high)
        assert r.overall is not None
        out.append(
            replace(
                r.overall,
                label=outcome,
                by=f"{treated} - {control}",
                simultaneous_low=low,
                simultaneous_high=high,
                p_adjusted=p,
            )
        )
    return tuple(out)


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
    return words


def _name(row: Estimate, main: Estimate) -> str:
    return row.label if row.by == main.by else f"{row.label} under {row.by.rpartition(' - ')[0]}"
