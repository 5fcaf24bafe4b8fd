"""The page's sections on the internal level, and on the two levels joined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt import charts
from whyprompt._words import counted, format_number
from whyprompt.charts.style import span
from whyprompt.errors import MediationError
from whyprompt.page.beyond import directions, flips
from whyprompt.page.blocks import Cell, Text, details, draw, interval, num, p_value, table
from whyprompt.page.panel import head_panel
from whyprompt.page.related import related

if TYPE_CHECKING:
    from collections.abc import Iterable

    from whyprompt.answers.internal import HeadStudy, StudyMediation
    from whyprompt.mediation.engine.sites import Kind
    from whyprompt.mediation.inference import HeadInference
    from whyprompt.mediation.search import HeadSearch
    from whyprompt.page.blocks import Block, Table
    from whyprompt.page.external import Material

_LISTED = 12
# With more heads than this, marks of their own for phones would take too much of the page.
_MANY = 400
_COLUMNS = ("head", "NIE", "from", "to", "NDE", "q", "p (family-wise)")


def heads(m: Material) -> list[Block]:
    """Show which heads carry the effect."""
    found = m.mediation
    if found is None:
        return []
    main = found.main
    inference = main.inference.of_kind("head")
    more = len(inference.sites) < len(main.inference.sites)
    one, site = (
        ("attention head, or one other part of a layer", "part") if more else ("attention head", "head")
    )
    where = (
        "every token that both prompts end with" if main.sweep.tokens == "suffix" else "the answer positions"
    )
    blocks: list[Block] = [
        Text(
            f"The question: of the effect of {main.contrast.treated!r} in place of "
            f"{main.contrast.control!r} on {main.sweep.scale}, how much goes through one {one}? NIE "
            f"is the effect lost when one {site}, at {where}, is set to what it computes under "
            f"{main.contrast.control!r} while the rest stays under {main.contrast.treated!r}; NDE is what "
            f"is left. Each is computed by running the model with that {site} replaced. Nothing is assumed "
            f"about the {site}; what is uncertain is which items were drawn."
        ),
        Text(f"On items of {found.tasks}: {inference.sentence}"),
    ]
    blocks += [Text(note, "note") for note in found.notes]
    blocks += _map(found, inference)
    blocks.append(_head_table(inference, "The heads with the largest effects", "heads"))
    if inference.split_half is not None:
        half = inference.split_half.sentence
        blocks.append(Text(f"Stability: {half[0].lower()}{half[1:]}"))
    blocks.append(
        draw(
            "layers",
            "Effects by layer",
            lambda w: charts.layer_plot(inference, outcome=found.outcome, width=w),
            caption="One mark a head. Heads of a layer do not add up to the layer's joint effect.",
            narrow=len(inference.heads) <= _MANY,
        )
    )
    blocks += _beside_heads(found) if more else []
    blocks += _search(found)
    blocks += [*related(found.relations), *flips(found.flips), *directions(found.directions)]
    blocks += _floor(found)
    blocks += _contrasts(found)
    return blocks


def _beside_heads(found: StudyMediation) -> list[Block]:
    """Show what was set beside the heads: blocks of a layer, the residual stream, neurons."""
    inference = found.main.inference.of_kind("attn", "mlp", "neuron", "resid")
    kinds = dict.fromkeys(site.kind for site in inference.sites)
    what = {
        "attn": "attn 14: the output of the attention block of layer 14, all its heads together",
        "mlp": "mlp 14: the output of its feed-forward block",
        "neuron": "neuron 14.123: one number that enters the last product of that block",
        "resid": "resid 14: the residual stream after the layer, all that came before it; after the last "
        "layer it holds the whole effect by definition",
    }
    names = "; ".join(what[kind] for kind in kinds)
    return [
        draw(
            "sites",
            "Effects of what lies beside the heads, by layer",
            lambda w: charts.site_plot(inference, outcome=found.outcome, width=w),
            caption=f"{names}. The dashed line is the total effect. Effects do not add up over layers.",
            narrow=len(inference.sites) <= _MANY,
        ),
        _site_table(inference, kinds),
    ]


def _site_table(inference: HeadInference, kinds: Iterable[Kind]) -> Table:
    """List the largest of every kind; of the residual stream all layers tell."""
    rows: list[tuple[Cell | str, ...]] = []
    for kind in kinds:
        own = inference.of_kind(kind)
        order = np.argsort(-np.abs(own.mean), kind="stable").tolist()
        rows += [_row(own, at) for at in order[: _LISTED // 2]]
    return table("The largest of each kind", _heading(inference, "site"), rows, name="sites")


def _map(found: StudyMediation, inference: HeadInference) -> list[Block]:
    figure = draw(
        "heatmap",
        "Effect of every head",
        lambda w: charts.head_heatmap(
            inference, outcome=found.outcome, transpose=w < 500, width=w, cell=19 if w < 500 else 22
        ),
        caption=f"A dot marks q < {inference.alpha:g} (the false discovery rate over all that was set). "
        "With scripts, choose a head to see its effect by item and its attention below.",
        live=True,
    )
    return [figure, head_panel(found)]


def _head_table(inference: HeadInference, caption: str, name: str) -> Table:
    inference = inference.of_kind("head")
    order = np.argsort(-np.abs(inference.mean), kind="stable")[:_LISTED].tolist()
    return table(caption, _heading(inference), [_row(inference, at) for at in order], name=name)


def _heading(inference: HeadInference, first: str = "head") -> list[str]:
    return [first, *(c for c in _COLUMNS[1:] if c != "NDE" or inference.nde is not None)]


def _row(inference: HeadInference, at: int) -> tuple[Cell | str, ...]:
    part = inference.parts[at]
    cells = [*interval(part)]
    if inference.nde is not None:
        cells.append(num(float(inference.nde[at])))
    return part.label, *cells, p_value(float(inference.q_value[at])), p_value(part.p_adjusted)


def _search(found: StudyMediation) -> list[Block]:
    search: HeadSearch | None = found.search
    if search is None:
        why = f": {found.search_note}" if found.search_note else ""
        return [Text(f"No set of heads was searched for{why}.", "note")]
    names = {"nie": "NIE", "pure_nie": "pure NIE"}
    columns = {f"searched on, {names[q]}": shares for q, shares in search.searched.items()}
    columns |= {f"held out, {names[q]}": shares for q, shares in search.held_out.items()}
    rows = [
        (
            f"{k}: {site}",
            *(num(float(shares[k - 1]), percent=True) for shares in columns.values()),
            "yes" if k <= len(search.sites) else "no",
        )
        for k, site in enumerate(search.path, start=1)
    ]
    return [
        Text(search.sentence),
        draw(
            "search",
            "The smallest set: joint effect of the first heads",
            lambda w: charts.search_plot(search, width=w),
            caption="The search chose them on one half of the items; what counts is the other half. "
            "Drawn is the direction in which the set carries less.",
        ),
        table(
            f"Share of the total effect, {search.method} search",
            (f"{search.noun}s so far, the last one", *columns, "in the set"),
            rows,
            name="search",
        ),
    ]


def _floor(found: StudyMediation) -> list[Block]:
    placebo = found.placebo
    if placebo is None:
        return [
            Text(
                "No placebo arm was swept, so there is no noise floor to hold the heads against: some of "
                "these effects may come from any change of the prompt.",
                "note",
            )
        ]
    noise, mean = (np.abs(one.inference.of_kind("head").mean) for one in (placebo, found.main))
    largest, above = float(noise.max()), int((mean > noise.max()).sum())
    return [
        Text(
            f"Noise floor. The placebo arm {placebo.contrast.treated!r} inserts text of no use. Its largest "
            f"single head has {format_number(largest)}; {above} of {len(mean)} heads "
            f"exceed that in {found.main.name}."
            + (
                ""
                if placebo.inference.overall is None
                else f" Its total effect is {format_number(placebo.inference.estimate)} "
                f"({span(*placebo.inference.overall.ends)})."
            )
        ),
        details(
            "Heads under the placebo", _head_table(placebo.inference, f"Heads, {placebo.name}", "placebo")
        ),
    ]


def _contrasts(found: StudyMediation) -> list[Block]:
    out: list[Block] = [
        details(f"Further contrast: {study.name}", *_one_contrast(study, found)) for study in found.further
    ]
    for number, (name, inference) in enumerate(found.differences.items()):
        slug = f"difference-{number}"
        blocks: tuple[Block, ...] = (
            Text("What follows is of the difference of the two sweeps, first less second, head by head."),
            Text(_unsaid(inference.sentence, found.main.inference.sentence)),
            draw(
                slug,
                f"Difference of the heads' effects: {name}",
                lambda w, i=inference: charts.head_heatmap(  # type: ignore[misc]
                    i, outcome=found.outcome, width=w
                ),
                narrow=False,
            ),
            _head_table(inference, "The heads that differ most", slug),
        )
        out.append(details(f"Contrast of sweeps: {name}", *blocks))
    return out


def _unsaid(sentence: str, said: str) -> str:
    """Give what a text says beyond another: of two sweeps much holds alike."""
    every = sentence.split(". ")
    known = {one.rstrip(".") for one in said.split(". ")}
    new = [one for one in every if one.rstrip(".") not in known]
    text = ". ".join(new).rstrip(".") + "."
    return text if len(new) == len(every) else f"{text} Beyond that, what is said of the first sweep."


def _one_contrast(study: HeadStudy, found: StudyMediation) -> tuple[Block, ...]:
    slug = f"contrast-{study.contrast.treated}-{study.contrast.control}"
    return (
        Text(_unsaid(study.inference.sentence, found.main.inference.sentence)),
        draw(
            slug,
            f"Effect of every head, {study.name}",
            lambda w: charts.head_heatmap(study.inference, outcome=found.outcome, width=w),
            narrow=False,
        ),
        _head_table(study.inference, f"The heads with the largest effects, {study.name}", slug),
    )


def levels(m: Material) -> list[Block]:
    """Set the two levels side by side."""
    found = m.mediation
    if found is None:
        return []
    same = (
        m.paired
        and found.outcome == m.effect.outcome
        and found.main.contrast == m.effect.contrast
        and "rep" in m.effect.frame.columns
    )
    differ = (
        "The two levels answer different questions here: the contrast or the outcome is not the same, so "
        "their numbers are not compared."
    )
    return [*(_joined(m, found) if same else [Text(differ)]), *_beside(found)]


def _beside(found: StudyMediation) -> list[Block]:
    """Set statistical mediation beside the intervention."""
    comparison = found.comparison
    if comparison is None:
        why = f": {found.comparison_note}" if found.comparison_note else ""
        return [Text(f"Statistical mediation is not set beside the intervention{why}.", "note")]
    rows: list[tuple[Cell | str, ...]] = []
    for row in comparison.to_frame().head(_LISTED).to_dict("records"):
        cells = [num(row[k]) for k in ("acme", "acme_low", "acme_high", "nie", "nie_low", "nie_high")]
        rows.append((f"head {row['layer']}.{row['head']}", *cells, p_value(row["p_adjusted"])))
    return [
        Text(
            "Statistical mediation is what one could do who may look but not touch: a head's attention "
            f"mass on {comparison.segment!r} is taken as a measured mediator, and nothing else is assumed "
            "to link mediator and outcome (sequential ignorability). Intervention assumes none of that."
        ),
        Text(comparison.sentence),
        draw(
            "statistical",
            "Statistical against interventional",
            lambda w: charts.statistical_vs_interventional(comparison.to_frame(), width=w),
            narrow=len(comparison.heads) <= _MANY,
            caption="On the dashed line the two agree. Lines are intervals, head by head.",
        ),
        table(
            "The heads where the two differ most surely",
            ("head", "ACME", "from", "to", "NIE", "from", "to", "p of no difference"),
            rows,
            name="statistical",
        ),
    ]


def _joined(m: Material, found: StudyMediation) -> list[Block]:
    e, sweep = m.effect, found.main.sweep
    # The sweep renders each item as the first repetition did.
    first = e.frame[e.frame["rep"] == e.frame["rep"].min()]
    wide = first.pivot_table(index="item_id", columns="arm", values=e.outcome)
    change = wide[e.contrast.treated] - wide[e.contrast.control]
    rows: list[dict[str, Any]] = [
        {
            "item_id": item,
            "task": found.item_tasks.get(item, "all items"),
            "external": float(change[item]),
            "internal": float(te),
        }
        for item, te in zip(sweep.item_ids, sweep.te, strict=True)
        if item in change.index and np.isfinite(change[item])
    ]
    if not rows:
        return [
            Text("No item of the sweep has both outcomes in the trial table, so the levels cannot be joined.")
        ]
    gap = max(abs(r["external"] - r["internal"]) for r in rows)
    return [
        Text(
            f"Both levels speak of one quantity: for an item, the change in {e.outcome!r} in the trials "
            "(first repetition) is its total effect inside the model, TE = NDE + NIE. They are computed by "
            f"different code, and over {counted(len(rows), 'item')} the largest difference between them is "
            f"{format_number(gap, digits=2)}."
        ),
        draw(
            "levels",
            "One effect, by two routes",
            lambda w: charts.levels_plot(rows, outcome=e.outcome, width=w),
            caption="Marks on the diagonal agree.",
        ),
        _by_task(found, e),
    ]


def _by_task(found: StudyMediation, effect: Any) -> Table:  # noqa: ANN401 - a StudyEffect
    from whyprompt.mediation.intervals import mean_interval

    sweep, inference = found.main.sweep.of_kind("head"), found.main.inference.of_kind("head")
    best = int(np.argmax(np.abs(inference.mean)))
    layer, head = inference.heads[best]
    parts = effect.main.parts
    external = {row.label: row for row in parts}
    tasks = sorted({found.item_tasks.get(i, "all items") for i in sweep.item_ids})
    rows: list[tuple[Cell | str, ...]] = []
    for task in tasks:
        at = [k for k, i in enumerate(sweep.item_ids) if found.item_tasks.get(i, "all items") == task]
        clusters = [sweep.clusters[k] for k in at]
        known = external.get(task)
        cells = [num(None if known is None else known.estimate)]
        for values in (sweep.te[at], sweep.nie[at, best]):
            try:
                one = mean_interval(values, cluster=clusters)
            except MediationError:
                # One sampling unit has a mean and no interval.
                cells += [num(float(values.mean())), Cell("n/a"), Cell("n/a")]
            else:
                cells += interval(one)
        rows.append((task, *cells))
    return table(
        "By task family: the effect over all its items, and inside the model over the "
        f"{counted(len(sweep.item_ids), 'item')} swept",
        (
            "task family",
            "effect, all items",
            "total effect, swept",
            "from",
            "to",
            f"NIE of head {layer}.{head}",
            "from",
            "to",
        ),
        rows,
        name="levels",
    )
