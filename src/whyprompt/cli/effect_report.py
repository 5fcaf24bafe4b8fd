"""What ``whyprompt effect`` prints for a reader: sentence, tables, assumptions with checks, warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt._words import counted, format_number, p_words, percent
from whyprompt.results import Result

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_text", "effect_text"]


def effect_text(result: Any, *, words: Callable[[str], str] = str) -> str:  # noqa: ANN401 - any result
    """Write a result for a reader.

    Parameters
    ----------
    result : Result or ImputedEffect
    words : callable, default `str`
        Puts assumptions and warnings into the words of where they are read.

    Returns
    -------
    str
    """
    if isinstance(result, Result):
        return result.summary(words=words)
    parts = [result.sentence, *_imputed_parts(result)]
    parts.append(
        "Assumptions:\n"
        + "\n".join(
            f"  {'FAILS' if a.status == 'fails' else a.status:<12} {a.name}:"
            f" {words(f'{a.detail} [{a.check}]')}"
            for a in result.assumptions
        )
    )
    if result.warnings:
        parts.append("Warnings:\n" + "\n".join(f"  {words(text)}" for text in result.warnings))
    return "\n\n".join(parts)


def check_text(name: str, found: Any) -> str:  # noqa: ANN401 - any result of a check
    """Write a check for a reader.

    Parameters
    ----------
    name : str
        What was checked.
    found : SensitivityReport, Check, Checks, HeterogeneousEffects, PromptPolicy or CrossCheck

    Returns
    -------
    str
    """
    title = {
        "sensitivity": "Hidden confounding",
        "placebo": "Placebo arm",
        "refutation": "Refutation",
        "heterogeneity": "Whom the arm helps and harms",
        "policy": "Which arm for which row",
        "cross_check": "Beside DoWhy and CausalML",
    }[name]
    if name == "cross_check":
        return f"{title}:\n  {found.sentence}\n\n{_tools_table(found)}"
    return f"{title}:\n  {found.summary(brief=True) if isinstance(found, Result) else found.sentence}"


def _tools_table(found: Any) -> str:  # noqa: ANN401 - a CrossCheck
    rows = [
        [
            f"{row.tool}: {row.method}",
            row.estimand.upper(),
            format_number(row.estimate),
            _span(row, "ci") if row.ci_low is not None else "none",
            *(
                "" if v is None else format_number(v)
                for v in (row.from_settings, row.from_score, row.unexplained)
            ),
        ]
        for row in found.rows
    ]
    words = [f"  {row.tool}, {row.method}: {'; '.join(row.why)}." for row in found.rows if row.why]
    grid = _grid(["tool", "of", "estimate", "interval", "by settings", "by score", "left"], rows)
    return "\n".join([grid, "", *words])


def _imputed_parts(result: Any) -> list[str]:  # noqa: ANN401 - an ImputedEffect
    pooled = result.pooled
    parts = [
        (
            f"estimate {format_number(result.estimate)}, standard error {format_number(result.std_error)}"
            f" (Rubin's rules, {counted(pooled.m, 'imputation')}), {percent(result.level)} interval"
            f" {_span(result, 'ci')}, p {p_words(pooled.p_value)}"
        ),
        f"fraction of information missing {format_number(pooled.fmi, digits=2)}",
    ]
    alone = result.complete_case
    if alone is not None:
        parts.append(
            f"complete rows alone ({result.n_complete} of {result.n_rows}): {format_number(alone.estimate)},"
            f" {percent(alone.level)} interval {_span(alone, 'ci')}"
        )
    parts.extend(
        f"{m.label} {format_number(m.estimate)} ({format_number(m.ci_low)} to {format_number(m.ci_high)})"
        for m in result.measures[1:]
        if m.estimate is not None
    )
    rows = [[name, format_number(value, digits=2)] for name, value in result.worst_balance.items()]
    if rows:
        grid = _grid(["covariate", "worst after"], rows)
        parts.append(f"Balance (largest standardised mean difference of any completed table):\n{grid}")
    return parts


def _span(row: Any, name: str) -> str:  # noqa: ANN401 - a row of any result
    return f"{format_number(getattr(row, f'{name}_low'))} to {format_number(getattr(row, f'{name}_high'))}"


def _grid(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(line[k]) for line in (header, *rows)) for k in range(len(header))]

    def one(line: list[str]) -> str:
        cells = [t.rjust(w) if k else t.ljust(w) for k, (t, w) in enumerate(zip(line, widths, strict=True))]
        return ("  " + "  ".join(cells)).rstrip()

    return "\n".join(one(line) for line in (header, *rows))
