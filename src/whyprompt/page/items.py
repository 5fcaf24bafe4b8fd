"""The page's section on single items: who gains, and who is harmed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt import charts
from whyprompt._words import format_number, p_words
from whyprompt.answers.changes import changed_trials
from whyprompt.page.blocks import Text, count, draw, num, table
from whyprompt.page.changed import LISTED, Texts, changed_items

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whyprompt.effects.pairs import PairedItems
    from whyprompt.effects.result import EffectResult
    from whyprompt.page.blocks import Block, Cell
    from whyprompt.page.external import Material

# Bytes of texts on a study's page, which may hold attention too: shown at once, and behind what is cut.
_ROOM = (400_000, 300_000)


def who(m: Material) -> list[Block]:
    """Show who gains and who is harmed, and the items whose outcome changed."""
    main = m.effect.main
    if main.items is None:
        return []
    frame = m.effect.frame
    right = {item.item_id: item.answer for item in m.items}
    if right:
        frame = frame.assign(target=frame["item_id"].map(right))
    changed = changed_trials(frame, main, most=LISTED)
    return [*item_blocks(main, m.tasks), *changed_items(changed, main, Texts(*_ROOM, where="trial table"))]


def item_blocks(
    main: EffectResult, tasks: Mapping[str, str], *, kind: str = "task family", name: str = ""
) -> list[Block]:
    """Show how single items fare, by the group of each where there are any, which are of this `kind`.

    `name` tells the picture from those of other effects on the page.
    """
    found = main.items
    assert found is not None
    more = item_words(found)
    blocks: list[Block] = [
        *([Text(more)] if more else []),
        draw(
            f"gain-harm{name}",
            f"Every item's change, sorted{f' within its {kind}' if tasks else ''}",
            lambda w: charts.gain_harm_plot(main, tasks or None, width=w),
        ),
    ]
    change, labels, states = found.changes, found.state_labels, main.item_states()
    names = [tasks.get(u, "all items") for u in found.units]
    rows: list[tuple[Cell | str, ...]] = []
    counted = found.gain_at_least is not None and found.noise != "none"
    for task in sorted(set(names)):
        here = np.array([n == task for n in names])
        part, state = change[here], states[here]
        rows.append(
            (
                task,
                count(len(part)),
                *(count(int((side * part > 0).sum())) for side in (1, -1)),
                count(int((part == 0).sum())),
                *((count(int((state == s).sum())) for s in (1, -1)) if counted else ()),
                num(float(part.max())),
                num(float(part.min())),
            )
        )
    blocks.append(
        table(
            "Items whose outcome was higher, lower and the same in these trials"
            + (", and those whose change stands out of the noise of their repeats" if counted else ""),
            (
                kind if tasks else "",
                "items",
                "higher",
                "lower",
                "the same",
                *((labels[1], labels[-1]) if counted else ()),
                "highest change",
                "lowest change",
            ),
            rows,
            name="who",
        )
    )
    return blocks


def item_words(found: PairedItems) -> str:
    """Say what the counts of single items rest on."""
    if found.noise == "none":
        return "Another wording, or other shots, may move the same item the other way."
    if found.gain_at_least is None:
        return ""
    said = (
        f"In these trials the outcome was higher on average for {found.higher} of {len(found.units)} items"
        f" and lower for {found.lower}: that alone is what noise makes of items without any effect, too."
    )
    if found.noise == "shared":
        said += " Items share the shots of a repetition, so that many can be lucky together."
    if found.spread is not None:
        said += (
            f" The items' own effects are spread with a standard deviation of {format_number(found.spread)},"
            " the noise of repeats taken off"
            if found.spread_p is not None and found.spread_p < 1 - found.level
            else " The items' effects are not shown to differ from each other beyond the noise of repeats"
        )
        said += f" (p {p_words(found.spread_p)})."
    return said
