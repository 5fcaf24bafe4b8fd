"""The items whose outcome is another one under the other arm, with what was asked and answered.

Texts are cut to what a page may weigh; behind a cut text stands the whole one, as long as there is room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import escape

from whyprompt.page.blocks import Section, Text, details, num

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whyprompt.answers.changes import Changed
    from whyprompt.effects.result import EffectResult
    from whyprompt.page.blocks import Block

LISTED = 100
"""Items listed in each direction, the largest change first."""

_SHOWN = 700
# Bytes as they stand in the page: of what is shown at once, and of whole texts behind what is cut.
_ROOM, _BEHIND = 600_000, 500_000
# By where texts are from.
_NO_ANSWERS = {
    "log": "No answers are at hand: nothing was written, or it was not kept.",
    "trial table": (
        "No answers were written: these outcomes are read off the probabilities that the model gives. What it"
        " writes is kept where an outcome reads it, such as string_match."
    ),
}


class Texts:
    """Text blocks, as long as there is room on the page."""

    def __init__(self, room: int = _ROOM, behind: int = _BEHIND, *, where: str = "log") -> None:
        self.where = where
        self.left = room
        self.behind = behind

    def block(self, label: str, text: str, *, ends: bool = False) -> list[Block]:
        """Show a text, with the whole behind it (or where it is found) where it is long.

        What is shown of a long one is its beginning, or both its `ends`, as of a prompt that asks at last.
        """
        head = Text(label)
        if len(text) <= _SHOWN:
            self.left -= _bytes(text)
            return [head, Text(text or "(nothing)", "verbatim")]
        start = text[:_SHOWN].rstrip() + "…"
        if ends:
            start = f"{text[: _SHOWN // 2].rstrip()}\n…\n{text[-_SHOWN // 2 :].lstrip()}"
        self.left -= _bytes(start)
        blocks: list[Block] = [head, Text(start, "verbatim")]
        if (size := _bytes(text)) <= self.behind:
            self.behind -= size
            return [*blocks, details(f"All {len(text):,} characters", Text(text, "verbatim"))]
        return [
            *blocks,
            Text(f"The text has {len(text):,} characters. The whole is in its {self.where}.", "note"),
        ]


def _bytes(text: str) -> int:
    return len(str(escape(text)).encode("utf-8", "replace"))


def changed_items(changed: Changed, effect: EffectResult, texts: Texts | None = None) -> list[Block]:
    """List the items of a paired effect whose outcome falls, and those whose outcome rises."""
    items = effect.items
    assert items is not None
    ways = [changed[name] for name in ("regressions", "gains")]
    texts = texts or Texts()
    listed: list[list[Block]] = [[], []]
    # One of each in turn, so that where the room ends it ends for both.
    for place in range(LISTED):
        for way, blocks in zip(ways, listed, strict=True):
            if place < len(way) and texts.left > 0:
                blocks.append(_item(way[place], effect, texts))
    out: list[Block] = []
    flips = items.mcnemar_counts is not None
    for way, blocks, word in zip(ways, listed, ("lower", "higher"), strict=True):
        title = f"Items whose outcome is {word} under {effect.treated!r}: {len(way)}"
        if flips:
            title += ", from 1 to 0" if word == "lower" else ", from 0 to 1"
        if len(blocks) < len(way):
            note = f"Listed are the {len(blocks)} with the largest change of those whose outcome is {word}."
            blocks.insert(0, Text(note, "note"))
        out.append(details(title, *blocks) if blocks else Text(f"{title}."))
    if items.n_repeats and any(ways):
        text = (
            "Outcomes are means over an item's repeats; of its answers those are shown that differ most"
            " in the direction of the change."
        )
        out.append(Text(text))
    if any(ways) and not any(row.get("completion_treated") for way in ways for row in way):
        out.append(Text(_NO_ANSWERS[texts.where], "note"))
    return [Section("", "Search these items", tuple(out), "search")] if any(listed) else out


def _item(row: Mapping[str, Any], effect: EffectResult, texts: Texts) -> Section:
    """Show one item: what was asked, its right answer, and both arms' prompts and answers side by side."""
    before, after = (num(row[side]).text for side in ("control", "treated"))
    blocks: list[Block] = []
    prompts = [row.get("prompt_control"), row.get("prompt_treated")]
    # A prompt that is shown whole shows what it asks.
    asked = row.get("question")
    if asked is not None and not any(text and asked in text and len(text) <= _SHOWN for text in prompts):
        blocks += texts.block("What was asked:", asked)
    if row.get("target") is not None:
        blocks += texts.block("The right answer:", row["target"])
    same = prompts[0] == prompts[1]
    if same and prompts[0] is not None:
        blocks += texts.block("The prompt, the same under both:", prompts[0], ends=True)
    sides = []
    for side, prompt, score in zip(("control", "treated"), prompts, (before, after), strict=True):
        arm, said = getattr(effect, side), row.get(f"completion_{side}")
        shown: list[Block] = []
        if prompt is not None and not same:
            shown += texts.block(f"The prompt under {arm!r}:", prompt, ends=True)
        title = f"The answer under {arm!r}, {effect.outcome!r} {score}:"
        if said is None:
            shown.append(Text(f"{effect.outcome!r} under {arm!r}: {score}"))
        else:
            shown += texts.block(title, said)
        sides.append(Section("", "", tuple(shown), "side"))
    blocks.append(Section("", "", tuple(sides), "sides"))
    return details(f"{str(row['item_id'])[:120]}: {before} → {after}", *blocks)
