"""The page of more than two arms of logs: all against one at once, and each comparison by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whyprompt import charts
from whyprompt._words import percent
from whyprompt.charts.rows import rows_used
from whyprompt.page.blocks import Section, Text, count, details, draw, interval, num, p_value, suffixed, table
from whyprompt.page.external import assumption_table
from whyprompt.page.log_read import again_blocks, gone_blocks, missing_blocks, read_blocks, report_command
from whyprompt.page.of_logs import beware, inside, limits, pair_parts, said_of, strength

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.answers.compare import RunComparison
    from whyprompt.effects.result import EffectResult
    from whyprompt.effects.several import EffectsResult
    from whyprompt.page.blocks import Block
    from whyprompt.trials.logs.result import ReadTrials


def many_sections(
    several: EffectsResult, pairs: Sequence[tuple[RunComparison, EffectResult]]
) -> list[Section]:
    """Make the parts of the page of several arms of logs against one.

    `pairs` has each of them by itself, as `log_sections` takes it, in the order of `several`.
    """
    found = pairs[0][0].trials
    effects = [effect for _, effect in pairs]
    return [
        Section("answer", "The answer", (_answer(several, found, effects),)),
        Section("read", "What was read, and taken for what", tuple(read_blocks(found, found.arms))),
        Section("missing", "Missing outcomes", tuple(missing_blocks(found))),
        Section("effects", "Effects", tuple(_effects(several))),
        *(_pair(place, compared, effect) for place, (compared, effect) in enumerate(pairs, start=1)),
        Section("heads", "Inside the model", (inside(),)),
        Section("limits", "What may not be claimed", tuple(limits(found, effects))),
        Section("reproduce", "How to reproduce it", tuple(_reproduce(several, found))),
    ]


def _answer(several: EffectsResult, found: ReadTrials, effects: Sequence[EffectResult]) -> Section:
    first, *rest = said_of(several).split("\n")
    strong = [
        strength(found, effect, of=f", {effect.treated!r} instead of {effect.control!r}, by itself")
        for effect in effects
    ]
    said = (Text(first, "lead"), *(Text(text) for text in rest), *strong, *beware(found))
    return Section("", "", said, "answer")


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
        draw(
            "forest",
            f"Every other arm in place of {several.control!r}",
            lambda w: charts.forest_plot(several, width=w),
            caption=f"Lines are {percent(several.level)} intervals, each by itself.",
        ),
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


def _pair(place: int, compared: RunComparison, effect: EffectResult) -> Section:
    """Show one comparison as a page of two arms does, each of its parts on demand."""
    parts = pair_parts(compared, effect, name=f"-{place}")
    gone = gone_blocks(effect)
    shown: list[Block] = [Text(said_of(effect)), *(details(title, *some) for title, some in parts.values())]
    if gone:
        shown.append(details("Missing outcomes", *gone))
    title = f"{effect.treated!r} instead of {effect.control!r}"
    return Section(f"arm-{place}", title, suffixed(shown, f"-{place}"))


def _reproduce(several: EffectsResult, found: ReadTrials) -> list[Block]:
    asked = str(several.figures.get("design", ""))
    command = report_command(found, {"--reference": several.control, "--design": asked})
    return again_blocks(found, command, [("method", several.method), ("adjustment", several.adjustment)])
