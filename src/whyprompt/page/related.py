"""The page's part on how heads work on each other: paths, interactions, all together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whyprompt.page.blocks import Text, draw, interval, p_value, table

if TYPE_CHECKING:
    from whyprompt.page.blocks import Block, Cell
    from whyprompt.results import Result

_TITLES = {
    "joint": "All together",
    "along": "The total effect along the paths asked for: each, what they share, and the rest",
    "path": "Paths from head to head",
    "interaction": "Interactions: two heads together, less each alone",
}
_HELD = {
    "path": "whatever lies between the two passes on what the first does",
    "direct_path": "every other head and block between the two is held at its own arm's value",
}


def related(found: Result | None) -> list[Block]:
    """Show the heads with the largest effects taken apart; nothing where a study does not ask for it."""
    if found is None:
        return []
    blocks: list[Block] = [
        Text(
            "How these heads work on each other. A path A -> B sets head B to what it computes where A alone "
            f"has its value under the other prompt; {_HELD[found['mediator']]}. NIE is what is lost when "
            "that is put into prompt 1, pure NIE what is gained when it is put into prompt 0."
        ),
        Text(found.sentence),
    ]
    if "paths" in found.pictures:
        blocks.append(
            draw(
                "paths",
                "Paths from head to head",
                lambda _: found.plot("paths"),
                caption="Layers from left to right. A line is thicker the larger the effect along it, and "
                "broken where it cannot be told from zero; a circle, the larger the effect of its head.",
                narrow=False,
            )
        )
    for kind, title in _TITLES.items():
        own = [row for row in found.parts if row.by.startswith(kind)]
        rows: list[tuple[Cell | str, ...]] = [
            (row.label, row.by.split(", ")[1], *interval(row), p_value(row.p_adjusted)) for row in own
        ]
        head: tuple[str, ...] = ("", "direction", "estimate", "from", "to", "p (family-wise)")
        if kind in {"joint", "along"}:  # no family
            head, rows = head[:-1], [row[:-1] for row in rows]
        blocks += [table(title, head, rows, name=f"related-{kind}")] if rows else []
    for one in found.assumptions:
        blocks.append(Text(f"{one.name[0].upper()}{one.name[1:]}: {one.status}. {one.detail}.", "note"))
    return blocks
