"""The page of two studies: both answers side by side, and whether their effects differ."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from whyprompt import charts
from whyprompt._words import percent
from whyprompt.answers.two_studies import study_differences
from whyprompt.effects.headline import headline
from whyprompt.page.blocks import Section, Text, draw, interval, p_value, suffixed, table
from whyprompt.page.external import assumption_table, decide_blocks, effect_blocks, noted
from whyprompt.page.log_read import cut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.answers.external import StudyEffect
    from whyprompt.page.blocks import Block
    from whyprompt.results import Result
    from whyprompt.study import Study

_CHARS = 400


def two_sections(
    compared: Result,
    effects: Sequence[StudyEffect],
    studies: Sequence[Study],
    *,
    names: Sequence[str],
    files: Sequence[str],
) -> list[Section]:
    """Make the parts of the page of two studies, of `compare_effects` of them."""
    each = tuple(f"{name!r}: {headline(e.main)}" for name, e in zip(names, effects, strict=True))
    differ = study_differences(studies[0], studies[1])
    keys = ", ".join(key for key, *_ in differ)
    answer: list[Block] = [
        Text(compared.sentence, "lead"),
        draw(
            "forest",
            "",
            lambda w: charts.forest_plot(compared, title=compared.axis, width=w),
            caption=f"Lines are {percent(compared.level)} intervals, each by itself.",
        ),
        Text("", label="Each by itself.", items=each),
        *(
            [
                Text(
                    f"{keys}. What of it makes the effects differ, two studies cannot tell.",
                    label="They differ in",
                )
            ]
            if differ
            else []
        ),
        *noted([f"{name!r}: {w}" for name, e in zip(names, effects, strict=True) for w in e.main.warnings]),
    ]
    rows = [
        (row.label, *interval(row), p_value(row.p_value))
        for row in (*compared.parts, compared.overall)
        if row is not None
    ]
    facts = [(key, *(cut(text, _CHARS) for text in sides)) for key, *sides in differ]
    both = table("Both effects, and their difference", ("", "estimate", "from", "to", "p"), rows, name="two")
    settings = table("Settings that are not the same", ("setting", *names), facts, name="differs")
    parts: list[tuple[str, str, Sequence[Block]]] = [
        ("effects", "Effects", [both]),
        ("differs", "In what the studies differ", [settings] if facts else []),
        *(
            (f"study-{place}", f"{name}: {e.question.strip()}", _one(place, e))
            for place, (name, e) in enumerate(zip(names, effects, strict=True), start=1)
        ),
        (
            "reproduce",
            "How to reproduce it",
            [
                Text("This command writes this page again, of studies that were run:"),
                Text(shlex.join(["whyprompt", "report", *files]), "verbatim"),
            ],
        ),
    ]
    return [
        Section("answer", "The answer", tuple(answer), "answer"),
        *(Section(name, title, tuple(blocks)) for name, title, blocks in parts if blocks),
    ]


def _one(place: int, effect: StudyEffect) -> Sequence[Block]:
    shown = [*decide_blocks(effect.main, name=f"-{place}")[1:], Text(effect.sentence)]
    shown += [*effect_blocks(effect.main, name=f"-{place}"), assumption_table(effect.main)]
    return suffixed(shown, f"-{place}")
