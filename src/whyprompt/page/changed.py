"""The items whose outcome is another one under the other arm, with what was asked and answered.

Texts are cut to what a page may weigh; behind a cut text stands the whole one, as long as there is room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import escape

from whyprompt.page.blocks import Text, details, num

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whyprompt.answers.changes import Changed
    from whyprompt.effects.result import EffectResult
    from whyprompt.page.blocks import Block, Section

LISTED = 100
"""Items listed in each direction, the largest change first."""

_SHOWN = 700
# Bytes as they stand in the page: of what is shown at once, and of whole texts behind what is cut.
_ROOM, _BEHIND = 600_000, 500_000


class Texts:
    """Text blocks, as long as there is room on the page."""

    def __init__(self, room: int = _ROOM, behind: int = _BEHIND) -> None:
        self.left = room
        self.behind = behind

    def block(self, label: str, text: str) -> list[Block]:
        """Show a text, its beginning where it is long, with the whole behind it or where it is found."""
        head = Text(label)
        if len(text) <= _SHOWN:
            self.left -= _bytes(text)
            return [head, Text(text or "(nothing)", "verbatim")]
        start = text[:_SHOWN].rstrip() + "…"
        self.left -= _bytes(start)
        blocks: list[Block] = [head, Text(start, "verbatim")]
        if (size := _bytes(text)) <= self.behind:
            self.behind -= size
            return [*blocks, details(f"All {len(text):,} characters", Text(text, "verbatim"))]
        return [*blocks, Text(f"The text has {len(text):,} characters. The whole is in its log.", "note")]


def _bytes(text: str) -> int:
    return len(str(escape(text)).encode("utf-8", "replace"))


def changed_items(changed: Changed, effect: EffectResult) -> list[Block]:
    """List the items of a paired effect whose outcome rises, and those whose outcome falls."""
    items = effect.items
    assert items is not None
    ways = [changed[name] for name in ("gains", "regressions")]
    texts = Texts()
    listed: list[list[Block]] = [[], []]
    # One of each in turn, so that where the room ends it ends for both.
    for place in range(LISTED):
        for way, blocks in zip(ways, listed, strict=True):
            if place < len(way) and texts.left > 0:
                blocks.append(_item(way[place], effect, texts))
    out: list[Block] = []
    for way, blocks, word in zip(ways, listed, ("higher", "lower"), strict=True):
        title = f"Items whose outcome is {word} under {effect.treated!r}: {len(way)}"
        if len(blocks) < len(way):
            note = f"Listed are the {len(blocks)} with the largest change; --changed --json has all."
            blocks.insert(0, Text(note, "note"))
        out.append(details(title, *blocks) if blocks else Text(f"{title}."))
    if items.n_repeats and any(ways):
        text = (
            "Outcomes are means over an item's repeats; of its answers those are shown that differ most"
            " in the direction of the change."
        )
        out.append(Text(text))
    return out


def _item(row: Mapping[str, Any], effect: EffectResult, texts: Texts) -> Section:
    """Show one item: what was asked, its right answer, and under each arm what came and its score."""
    before, after = (num(row[side]).text for side in ("control", "treated"))
    blocks: list[Block] = []
    if row["question"] is not None:
        blocks += texts.block("What was asked:", row["question"])
    if row["target"] is not None:
        blocks += texts.block("The right answer:", row["target"])
    for side, score in (("control", before), ("treated", after)):
        arm, said = getattr(effect, side), row[f"completion_{side}"]
        if said is None:
            blocks.append(
                Text(f"The logs do not have the answer under {arm!r}; {effect.outcome!r} is {score}.")
            )
        else:
            blocks += texts.block(f"The answer under {arm!r}, {effect.outcome!r} {score}:", said)
    return details(f"{str(row['item_id'])[:120]}: {before} → {after}", *blocks)
