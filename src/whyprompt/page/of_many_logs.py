"""The page of more than two arms of logs: all against one at once, and each comparison by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whyprompt import charts
from whyprompt._words import percent
from whyprompt.charts.rows import rows_used
from whyprompt.effects.headline import headline
from whyprompt.page.blocks import Section, Text, count, details, draw, interval, num, p_value, suffixed, table
from whyprompt.page.external import assumption_table, decide_blocks, noted
from whyprompt.page.log_read import again_blocks, gone_blocks, missing_blocks, read_blocks, report_command
from whyprompt.page.of_logs import effect_warnings, limits, pair_parts, said_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.answers.compare import RunComparison
    from whyprompt.effects.result import EffectResult
    from whyprompt.effects.several import EffectsResult
    from whyprompt.page.blocks import Block
    from whyprompt.results import Result
    from whyprompt.trials.logs.result import ReadTrials


def many_sections(
    several: EffectsResult,
    pairs: Sequence[tuple[RunComparison, EffectResult, tuple[Result | None, str]]],
) -> list[Section]:
    """Make the parts of the page of several arms of logs against one.

    `pairs` has each of them by itself, as `log_sections` takes it, in the order of `several`.
    """
    found = pairs[0][0].trials
    effects = [effect for _, effect, _ in pairs]
    every: dict[str, tuple[str, Sequence[Block]]] = {
        "answer": ("The answer", _answer(several, [pair[:2] for pair in pairs])),
        "effects": ("Effects", _effects(several)),
        **{f"arm-{place}": _pair(place, *pair) for place, pair in enumerate(pairs, start=1)},
        "read": ("What was read, and taken for what", read_blocks(found, found.arms)),
        "missing": ("Missing outcomes", missing_blocks(found)),
        "limits": ("What may not be claimed", limits(found, effects)),
        "reproduce": ("How to reproduce it", _reproduce(several, found)),
    }
    return [
        Section(name, title, tuple(blocks), "answer" if name == "answer" else "part")
        for name, (title, blocks) in every.items()
        if blocks
    ]


def _answer(several: EffectsResult, pairs: Sequence[tuple[RunComparison, EffectResult]]) -> list[Block]:
    first = said_of(several).split("\n")[0]
    each = tuple(f"{effect.treated!r}: {headline(effect, arms=False)}" for _, effect in pairs)
    warned = [f"{e.treated!r}: {w}" for compared, e in pairs for w in effect_warnings(compared, e)]
    return [
        Text(first, "lead"),
        draw(
            "forest",
            "",
            lambda w: charts.forest_plot(several, width=w),
            caption=f"Lines are {percent(several.level)} intervals, each by itself.",
        ),
        Text("", label=f"Each in place of {several.control!r}, by itself.", items=each),
        *noted([*pairs[0][0].trials.warnings, *warned]),
    ]


def _effects(several: EffectsResult) -> list[Block]:
    head = ("", "n", "estimate", "from", "to", "from, all at once", "to, all at once", "p", "p, adjusted")
    rows = [
        (
            row.label,
            "" if (n := rows_used(row)) is None else count(n),
            *interval(row),
            num(row.simultaneous_low),
            num(row.simultaneous_high),
            p_value(row.p_value),
            p_value(row.p_adjusted),
        )
        for row in several.parts
    ]
    blocks: list[Block] = [
        table(
            f"Every other arm in place of {several.control!r}, by itself and adjusted for their number"
            f" ({several.adjustment})",
            head,
            rows,
            name="effects",
        ),
    ]
    if several.means:
        cells = [(m.label, count(m.n_used or 0), num(m.estimate), num(m.std_error)) for m in several.means]
        blocks.append(table("Each arm's mean", ("", "rows", "mean", "std. error"), cells, name="means"))
    return [*blocks, assumption_table(several)]


def _pair(
    place: int, compared: RunComparison, effect: EffectResult, through: tuple[Result | None, str]
) -> tuple[str, Sequence[Block]]:
    """Show one comparison as a page of two arms does, each of its parts on demand."""
    parts = pair_parts(compared, effect, through, name=f"-{place}")
    gone = gone_blocks(effect)
    # The headline is on the first screen.
    first = [
        block for block in decide_blocks(effect, name=f"-{place}") if getattr(block, "kind", "") != "lead"
    ]
    shown: list[Block] = [*first, *(details(title, *some) for title, some in parts.values())]
    if gone:
        shown.append(details("Missing outcomes", *gone))
    return f"{effect.treated!r} instead of {effect.control!r}", suffixed(shown, f"-{place}")


def _reproduce(several: EffectsResult, found: ReadTrials) -> list[Block]:
    asked = str(several.figures.get("design", ""))
    command = report_command(found, {"--reference": several.control, "--design": asked})
    return again_blocks(found, command, [("method", several.method), ("adjustment", several.adjustment)])
