"""What ``whyprompt effect`` prints of the checks beside an estimate."""

from __future__ import annotations

from typing import Any

from whyprompt._words import format_number
from whyprompt.results import Result

__all__ = ["check_text"]


def check_text(name: str, found: Any) -> str:  # noqa: ANN401 - any result of a check
    """Write a check for a reader.

    Parameters
    ----------
    name : str
        What was checked.
    found : Check, Checks, HeterogeneousEffects, PromptPolicy or CrossCheck

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


def _span(row: Any, name: str) -> str:  # noqa: ANN401 - a row of any result
    return f"{format_number(getattr(row, f'{name}_low'))} to {format_number(getattr(row, f'{name}_high'))}"


def _grid(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(line[k]) for line in (header, *rows)) for k in range(len(header))]

    def one(line: list[str]) -> str:
        cells = [t.rjust(w) if k else t.ljust(w) for k, (t, w) in enumerate(zip(line, widths, strict=True))]
        return ("  " + "  ".join(cells)).rstrip()

    return "\n".join(one(line) for line in (header, *rows))
