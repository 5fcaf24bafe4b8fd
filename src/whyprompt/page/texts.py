"""The page's section on the chain before the answer: set to the other arm's, and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whyprompt import charts
from whyprompt.page.blocks import Text, draw, interval, num, p_value, table

if TYPE_CHECKING:
    from whyprompt.page.blocks import Block, Cell, Table
    from whyprompt.page.external import Material
    from whyprompt.results import Estimate, Result

_LABELS = {"nie": "NIE", "nde": "NDE", "pure_nie": "pure NIE", "total_nde": "total NDE"}


def texts(m: Material) -> list[Block]:
    """Show what of an effect goes through the chain that stands before the answer."""
    found = None if m.mediation is None else m.mediation.texts
    if found is None or m.mediation is None:
        return []
    contrast = m.mediation.main.contrast
    blocks: list[Block] = [
        Text(
            f"The question: of the effect of {contrast.treated!r} in place of {contrast.control!r}, how "
            "much goes through what stands between the prompt and the answer, and how much of that is its "
            "length or its format? NIE is what is lost when that of the chain is set to the other arm's "
            "while the prompt stays; NDE is what is left. Each is computed, by scoring the answer after the "
            "chain that was set."
        )
    ]
    if found.set is not None:
        blocks += [Text(found.set.sentence), _picture(found.set), _effects(found.set)]
    if found.measured is not None:
        blocks += [
            Text(
                "Measured, and not set, the same reads as follows. It is what can be had from logs, and it "
                "rests on an assumption that setting the chain does without."
            ),
            Text(found.measured.sentence),
        ]
    if found.beside is not None:
        blocks += [Text(found.beside.sentence), _beside(found.beside)]
    return [*blocks, *(Text(note, "note") for note in found.notes)]


def _picture(found: Result) -> Block:
    rows = [
        {"label": f"{part.by}, {_LABELS[part.label]}", "estimate": part.estimate, "low": low, "high": high}
        for part in found.parts
        if part.label in _LABELS
        for low, high in [_ends(part)]
    ]
    return draw(
        "texts",
        "What the chain carries",
        lambda w: charts.interval_plot(rows, title=found.axis, width=w),
        caption="Each computed by setting the chain; lines are intervals over the items.",
    )


def _ends(part: Estimate) -> tuple[float | None, float | None]:
    """Give both ends, or none: a line is not drawn to infinity."""
    low, high = part.ends
    return (low, high) if abs(low) + abs(high) < float("inf") else (None, None)


def _effects(found: Result) -> Table:
    rows: list[tuple[Cell | str, ...]] = []
    for name in found["set"]:
        share = found.part("proportion", by=name)
        nie, nde, pure, rest = (found.part(label, by=name) for label in _LABELS)
        cells = (*interval(nie), num(nde.estimate), *interval(pure), num(rest.estimate))
        rows.append((name, *cells, num(share.estimate, percent=True)))
    head = ("set", "NIE", "from", "to", "NDE", "pure NIE", "from", "to", "total NDE", "NIE, of the effect")
    return table("The chain set to the other arm's", head, rows, name="texts")


def _beside(found: Result) -> Table:
    rows: list[tuple[Cell | str, ...]] = [
        (
            part.by,
            num(part.figures.get("measured")),  # type: ignore[arg-type]  # a number, where it is there
            num(part["set"]),
            *interval(part),
            p_value(part.p_adjusted),
        )
        for part in found.parts
    ]
    head = ("of the chain", "NIE, measured", "NIE, set", "difference", "from", "to", "p of no difference")
    return table("Measured beside set, on the same items", head, rows, name="texts-beside")
