"""The items whose outcome is another one under the other arm, with what was asked and answered.

Texts are cut to what a page may weigh; behind a cut text stands the whole one, as long as there is room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import escape

from whyprompt.page.blocks import Text, details, num

if TYPE_CHECKING:
    import pandas as pd

    from whyprompt.effects.result import EffectResult
    from whyprompt.page.blocks import Block, Section

LISTED = 100
"""Items listed in each direction, the largest change first."""

_SHOWN = 700
# Bytes, of all texts as they stand in the page.
_ROOM = 1_100_000


class Texts:
    """Text blocks, as long as there is room on the page."""

    def __init__(self, room: int) -> None:
        self.left = room

    def block(self, label: str, text: str, file: str) -> list[Block]:
        """Show a text, its beginning where it is long, with the whole behind it or where it is found."""
        head = Text(label)
        if len(text) <= _SHOWN and self._fits(text):
            return [head, Text(text or "(nothing)", "verbatim")]
        start = text[:_SHOWN].rstrip() + "…"
        self._fits(start)
        blocks: list[Block] = [head, Text(start, "verbatim")]
        if self._fits(text):
            return [*blocks, details(f"All {len(text):,} characters", Text(text, "verbatim"))]
        return [*blocks, Text(f"The text has {len(text):,} characters. The whole is in {file}.", "note")]

    def _fits(self, text: str) -> bool:
        size = len(str(escape(text)).encode("utf-8", "replace"))
        if size > self.left:
            return False
        self.left -= size
        return True


def changed_items(frame: pd.DataFrame, effect: EffectResult) -> list[Block]:
    """List the items of a paired effect whose outcome rises, and those whose outcome falls.

    `frame` has their trials, with ``question``, ``prompt`` and ``completion`` as far as logs tell them.
    """
    items = effect.items
    assert items is not None
    changes = items.changes
    order = np.argsort(-np.abs(changes), kind="stable")
    ways = [[k for k in order.tolist() if side * changes[k] > 0] for side in (1, -1)]
    shown = {items.units[k] for way in ways for k in way[:LISTED]}
    rows = _first_trials(frame, effect, shown)
    texts = Texts(_ROOM)
    # One of each in turn, so that where the room ends it ends for both.
    made: dict[int, Section] = {}
    for place in range(LISTED):
        for way in ways:
            if place < len(way) and texts.left > 4 * _SHOWN:
                made[way[place]] = _item(way[place], effect, rows.get(items.units[way[place]], {}), texts)
    blocks: list[Block] = []
    for way, word in zip(ways, ("higher", "lower"), strict=True):
        title = f"Items whose outcome is {word} under {effect.treated!r}: {len(way)}"
        listed: list[Block] = [made[k] for k in way if k in made]
        if len(listed) < len(way):
            note = (
                f"Listed are the {len(listed)} with the largest change; whyprompt import writes all trials."
            )
            listed.insert(0, Text(note, "note"))
        blocks.append(details(title, *listed) if listed else Text(f"{title}."))
    if items.n_repeats and made:
        text = (
            "Outcomes are means over an item's repeats; answers are those of its first trial under each arm."
        )
        blocks.append(Text(text))
    return blocks


def _first_trials(
    frame: pd.DataFrame, effect: EffectResult, units: set[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Give the first scored trial of each item under each arm."""
    names = [n for n in ("question", "prompt", "completion", "log") if n in frame]
    some = frame[
        frame["item_id"].astype(str).isin(units)
        & frame["arm"].isin([effect.treated, effect.control])
        & frame[effect.outcome].notna()
    ]
    some = some[~some.duplicated(["item_id", "arm"])]
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for item, arm, *values in some[["item_id", "arm", *names]].itertuples(index=False):
        out.setdefault(str(item), {})[str(arm)] = dict(zip(names, values, strict=True))
    return out


def _item(place: int, effect: EffectResult, trials: dict[str, dict[str, Any]], texts: Texts) -> Section:
    """Show one item: what was asked, and under each arm what came and its score."""
    items = effect.items
    assert items is not None
    scores = {effect.control: float(items.control[place]), effect.treated: float(items.treated[place])}
    blocks: list[Block] = []
    asked = next((t["question"] for t in trials.values() if isinstance(t.get("question"), str)), None)
    if asked is not None:
        file = next(iter(trials.values()))["log"]
        blocks += texts.block("What was asked:", asked, file)
    for arm, score in scores.items():
        trial = trials.get(arm, {})
        if asked is None and isinstance(trial.get("prompt"), str):
            blocks += texts.block(f"What was sent under {arm!r}:", trial["prompt"], trial["log"])
        said, shown = trial.get("completion"), num(score).text
        if isinstance(said, str):
            blocks += texts.block(
                f"The answer under {arm!r}, {effect.outcome!r} {shown}:", said, trial["log"]
            )
        else:
            blocks.append(
                Text(f"The logs do not have the answer under {arm!r}; {effect.outcome!r} is {shown}.")
            )
    before, after = (num(scores[arm]).text for arm in (effect.control, effect.treated))
    return details(f"{items.units[place][:120]}: {before} → {after}", *blocks)
