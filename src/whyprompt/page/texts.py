"""The page's sections on texts as mediators: a chain, set to the other arm's and measured, and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt import charts
from whyprompt.mediation.measured.paired_fits import JOINTLY, RHOS, at_rho
from whyprompt.page.blocks import Text, details, draw, interval, num, p_value, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.page.blocks import Block, Cell, Table
    from whyprompt.page.external import Material
    from whyprompt.results import Estimate, Result

TITLE = "Between prompt and score: is it just the length of answers?"
"""Of what measured answers carry."""
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
        caption = "The chain set to the other arm's"
        effects = _effects(found.set, found.set["set"], caption=caption)
        blocks += [Text(found.set.sentence), _picture(found.set), effects]
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
    return draw(
        "texts",
        "What the chain carries",
        lambda w: charts.interval_plot(_lines(found), title=found.axis, width=w),
        caption="Each computed by setting the chain; lines are intervals over the items.",
    )


def _lines(found: Result) -> list[dict[str, Any]]:
    return [
        {"label": f"{part.by}, {_LABELS[part.label]}", "estimate": part.estimate, "low": low, "high": high}
        for part in found.parts
        if part.label in _LABELS and part.estimate is not None
        for low, high in [_ends(part)]
    ]


def _ends(part: Estimate) -> tuple[float | None, float | None]:
    """Give both ends, or none: a line is not drawn to infinity."""
    low, high = part.ends
    return (low, high) if abs(low) + abs(high) < float("inf") else (None, None)


def _effects(
    found: Result, names: Sequence[str], *, what: str = "set", caption: str, name: str = "texts"
) -> Table:
    rows: list[tuple[Cell | str, ...]] = []
    for one in names:
        share = found.part("proportion", by=one) if _has(found, one) else None
        nie, nde, pure, rest = (found.part(label, by=one) for label in _LABELS)
        cells = (*interval(nie), num(nde.estimate), *interval(pure), num(rest.estimate))
        rows.append((one, *cells, num(None if share is None else share.estimate, percent=True)))
    head = (what, "NIE", "from", "to", "NDE", "pure NIE", "from", "to", "total NDE", "NIE, of the effect")
    return table(caption, head, rows, name=name)


def _has(found: Result, name: str) -> bool:
    return any(part.label == "proportion" and part.by == name for part in found.parts)


def answers(m: Material) -> list[Block]:
    """Show how much of a study's effect goes through the length of the answers."""
    return answer_blocks(*m.answers)


def answer_blocks(found: Result | None, why: str, *, name: str = "") -> list[Block]:
    """Show what of an effect goes through the length of the answers, or why it cannot be said.

    `name` tells its picture from those of other effects on the page.
    """
    if found is None:
        said = f"How much of it goes through the length of the answers cannot be said: {why}."
        return [Text(said)] if why else []
    names = [*found["mediators"], *([JOINTLY] if len(found["mediators"]) > 1 else [])]
    blocks: list[Block] = [
        Text(
            "The question: is it just that the answers are longer, or shorter? NIE is what would be lost if "
            "the answers were as under the other arm while the prompt stayed; NDE is what would be left. The "
            "texts were measured, and nothing was set: what follows leans on an assumption that no log shows."
        ),
        Text(found.sentence.removeprefix(str(found.figures.get("read", ""))).strip()),
    ]
    if lines := _lines(found):
        blocks.append(
            draw(
                f"answers{name}",
                "What the length of answers goes with",
                lambda w: charts.interval_plot(lines, title=found.axis, width=w),
                caption="Estimated within items from the measured texts; lines are intervals over the items.",
            )
        )
    caption = "What goes through the answers' text, as it was measured"
    blocks.append(_effects(found, names, what="through", caption=caption, name="answers"))
    undone: list[tuple[Cell | str, ...]] = [
        (
            f"{part.by}, {_LABELS.get(part.label, part.label.replace('_', ' '))}",
            num(part["robustness_value"], percent=True),
            num(part["rho_at_zero"]),
            *(num(at_rho(part, rho)) for rho in RHOS),
        )
        for part in found.parts
        if "per_rho" in part.figures
    ]
    if undone:
        head = ("", "undone by", "rho at zero", *(f"at {rho:g}".replace("-", "−") for rho in RHOS))
        caption = (
            "The share of what is left of both differences that a left-out cause would have to explain, or"
            " the correlation rho of their errors; and what it is at other correlations"
        )
        blocks.append(details("What would undo it", table(caption, head, undone, name="undone")))
    return blocks


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
