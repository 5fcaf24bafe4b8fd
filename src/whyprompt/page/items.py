"""The page's section on single items: who gains, and who is harmed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt import charts
from whyprompt._words import format_number, p_words
from whyprompt.effects.paired_items import change_words
from whyprompt.page.blocks import Text, count, draw, num, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whyprompt.effects.pairs import PairedItems
    from whyprompt.effects.result import EffectResult
    from whyprompt.page.blocks import Block, Cell
    from whyprompt.page.external import Material


def who(m: Material) -> list[Block]:
    """Show who gains and who is harmed."""
    return item_blocks(m.effect.main, m.tasks)


def item_blocks(
    main: EffectResult, tasks: Mapping[str, str], *, kind: str = "task family", name: str = ""
) -> list[Block]:
    """Show how single items fare, by the group of each where there are any, which are of this `kind`.

    `name` tells the picture from those of other effects on the page.
    """
    found = main.items
    if found is None:
        text = (
            "With one arm an item nobody can see whether an item gains or is harmed. Run both arms on "
            "the same items (design: paired) to see it."
        )
        return [Text(text)]
    blocks: list[Block] = [
        Text(item_words(found)),
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
    """Say how single items fare and what that rests on."""
    said = change_words(found)
    said = f"{said[0].upper()}{said[1:]}."
    if found.noise == "none":
        return f"{said} Another wording, or other shots, may move the same item the other way."
    if found.gain_at_least is None:
        return said
    said += (
        f" In these trials the outcome was higher on average for {found.higher} of {len(found.units)} items"
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
