"""A result as text for a terminal: its figures, its parts and its balance as columns that line up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from whyprompt._words import format_number, p_words, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def grid(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Lay text out in columns, the first (or so many) to the left, the others to the right.

    Examples
    --------
    >>> print(grid(["arm", "mean"], [["direct", "0.5"], ["cot", "12"]]))
      arm     mean
      direct   0.5
      cot       12
    """
    widths = [max(len(line[k]) for line in (header, *rows)) for k in range(len(header))]

    def one(line: Sequence[str]) -> str:
        padded = zip(line, widths, strict=True)
        cells = [t.ljust(w) if k < left else t.rjust(w) for k, (t, w) in enumerate(padded)]
        return ("  " + "  ".join(cells)).rstrip()

    return "\n".join(one(line) for line in (header, *rows))


def reach(low: float | None, high: float | None) -> str:
    """Write an interval: "0.1 to 0.3"; an end that is not known is "n/a", one that is not bounded is none."""
    open_low, open_high = low == -math.inf, high == math.inf
    if open_low and open_high:
        return "not bounded"
    if open_low or open_high:
        return f"up to {format_number(high)}" if open_low else f"from {format_number(low)} up"
    return f"{format_number(low)} to {format_number(high)}"


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None and high is None else reach(low, high)


def figures(row: Any, *, level: float, how: str = "") -> str:  # noqa: ANN401 - an estimate
    """Write an estimate as one line: error and how it was had, interval, p."""
    return (
        f"estimate {format_number(row.estimate)}, standard error {format_number(row.std_error)}"
        f"{f' ({how})' if how else ''}, {percent(level)} interval {reach(row.ci_low, row.ci_high)},"
        f" p {p_words(row.p_value)}"
    )


def parts_table(
    parts: Sequence[Any], *, at: str = "", adjusted: str = "adjusted", least: float | None = None
) -> str:
    """Lay out the parts of a result as text; see `parts_cells`."""
    return grid(*parts_cells(parts, at=at, adjusted=adjusted, least=least))


def parts_cells(
    parts: Sequence[Any], *, at: str = "", adjusted: str = "adjusted", least: float | None = None
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Give the parts of a result as text, with a column for whatever some part has: titles, and rows.

    `at` and `adjusted` are titles: what the place of a part is (no such column without), and what p is
    adjusted by. `least` is the least adjusted p that could have come out, as `p_words` takes it.
    """

    def rows(part: Any) -> str:  # noqa: ANN401 - an estimate
        if part.n_used is not None:
            return str(part.n_used)
        if part.n_treated_used is None:
            return ""
        return f"{part.n_treated_used}+{part.n_control_used}"

    columns: list[tuple[str, Callable[[Any], str]]] = [
        ("by", lambda part: part.by),
        ("", lambda part: part.label),
        ("rows", rows),
        (at, lambda part: format_number(part.at) if at else ""),
        ("treated", lambda part: "" if part.mean_treated is None else format_number(part.mean_treated)),
        ("control", lambda part: "" if part.mean_control is None else format_number(part.mean_control)),
        ("estimate", lambda part: format_number(part.estimate)),
        ("std error", lambda part: "" if part.std_error is None else format_number(part.std_error)),
        ("interval", lambda part: _span(part.ci_low, part.ci_high)),
        ("at once", lambda part: _span(part.simultaneous_low, part.simultaneous_high)),
        ("p", lambda part: "" if part.p_value is None else p_words(part.p_value)),
        (
            f"p ({adjusted})",
            lambda part: "" if part.p_adjusted is None else p_words(part.p_adjusted, least=least),
        ),
        ("", lambda part: part.note),
    ]
    table = [(title, [cell(part) for part in parts]) for title, cell in columns]
    kept = [(title, cells) for title, cells in table if any(cells)]
    return [title for title, _ in kept], list(zip(*(cells for _, cells in kept), strict=True))


def measure_lines(measures: Sequence[Any]) -> list[str]:
    """Write the risk ratio and the odds ratio, a line each; the difference is the estimate itself."""
    return [
        f"{m.label} {format_number(m.estimate)} ({reach(m.ci_low, m.ci_high)})"
        for m in measures[1:]
        if m.estimate is not None
    ]


def balance_text(rows: Sequence[Any]) -> str:
    """Lay out balance: of two arms, of many (the two that differ most), or with a dose."""
    one = rows[0]
    if one.correlation_after is not None:
        title, before, after = "correlation of the dose with each covariate", "correlation_before", ""
    elif one.worst_pair:
        title, before, after = "largest standardised mean difference of any two arms", "smd_before", ""
    else:
        title, before, after = "standardised mean difference; variance ratio after", "smd_before", "ratio"
    header = ["covariate", "before", "after"] + ([after] if after else [])
    lines = []
    for row in rows:
        ends = (getattr(row, before), getattr(row, before.replace("before", "after")))
        line = [row.covariate, *(format_number(end, digits=2) for end in ends)]
        if after:
            line.append("" if row.binary else format_number(row.variance_ratio_after, digits=2))
        lines.append(line)
    return f"Balance ({title}):\n{grid(header, lines)}"


def assumption_lines(assumptions: Sequence[Any], words: Callable[[str], str] = str) -> str:
    """Write each assumption with its verdict, what was found and what was looked at."""
    return "\n".join(
        f"  {'FAILS' if a.status == 'fails' else a.status:<12} {a.name}: {words(f'{a.detail} [{a.check}]')}"
        for a in assumptions
    )
