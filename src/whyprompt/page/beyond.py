"""The page's part on heads beyond their sweep: what flips when the model writes, and directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whyprompt.page.blocks import Text, details, interval, num, p_value, table

if TYPE_CHECKING:
    from whyprompt.page.blocks import Block, Cell
    from whyprompt.results import Result


def flips(found: Result | None) -> list[Block]:
    """Show what flips; nothing where a study does not ask for it."""
    if found is None:
        return []
    rows: list[tuple[Cell | str, ...]] = []
    for row in found.parts:
        # An NIE is what is lost when the head is taken out, a pure NIE what is gained when it is put in.
        up, down = row["items_up"], row["items_down"]
        gains, losses = (down, up) if row.by == "NIE" else (up, down)
        counts = num(gains), num(losses)
        rows.append((row.label, row.by, *interval(row), *counts, p_value(row.p_adjusted)))
    head = ("", "direction", "estimate", "from", "to", "items better", "items worse", "p (family-wise)")
    return [
        Text(
            "Does what the model writes change? Each text is written greedily, and at every token of it the "
            "head is set to what it gives after the other prompt with the same text so far. Effects are on "
            "the score of the text."
        ),
        Text(found.sentence),
        table("What is written under a patch", head, rows, name="flips"),
    ]


def directions(found: Result | None) -> list[Block]:
    """Show how much of each head's effect its direction carries; nothing where a study does not ask."""
    if found is None:
        return []
    rows: list[tuple[Cell | str, ...]] = []
    for name in found["directions"]:
        for way in ("NIE", "pure NIE"):
            own = found.part(name, by=f"own, {way}")
            line, shift = (found.part(name, by=f"{how} share, {way}") for how in ("component", "shift"))
            ends = [num(v, percent=True) for s in (line, shift) for v in (s.estimate, s.ci_low, s.ci_high)]
            rows.append((name, way, num(own.estimate), *ends))
    head = ("head", "direction", "own effect", "component", "from", "to", "shift", "from", "to")
    return [
        Text(
            "Is a head's effect one direction? Its direction is the mean change of its output between the "
            "prompts, learned on some items and tried on the others: only the component along it is set "
            "(component), or the mean change itself is added or taken off (shift). Shares are of the head's "
            "own effect on the same items."
        ),
        Text(found.sentence),
        details("Directions, head by head", table("Shares by direction", head, rows, name="directions")),
    ]
