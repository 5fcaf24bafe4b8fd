"""The page's sections on the internal level, and on the two levels joined."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from whyprompt.effects.result import format_number
from whyprompt.errors import MediationError
from whyprompt.report import charts
from whyprompt.report._blocks import Cell, Details, Html, Note, Para, Section, num, p_value, table
from whyprompt.report._head_charts import head_words
from whyprompt.report._level_charts import segment_colours

if TYPE_CHECKING:
    from whyprompt.analysis import AttentionPicture, HeadStudy, StudyMediation
    from whyprompt.mediation import HeadInference, HeadSearch
    from whyprompt.report._blocks import Block, Table
    from whyprompt.report._external import Material

__all__ = ["ATTENTION_BYTES", "head_data", "heads", "levels"]

# Of a page of 3 MB: with more heads and tokens than this, only the strongest heads keep their attention.
ATTENTION_BYTES = 1_100_000
_LISTED = 12
_COLUMNS = ("head", "NIE", "from", "to", "NDE", "q", "p (family-wise)")


def heads(m: Material) -> Section:
    """Which heads carry the effect."""
    title = "Inside the model: which heads carry it"
    found = m.mediation
    if found is None:
        return Section(
            "heads",
            title,
            (Note("The internal level was not run for these trials. To run it: whyprompt mediate STUDY."),),
        )
    main = found.main
    inference = main.inference
    blocks: list[Block] = [
        Para(
            f"The question: of the effect of {main.contrast.treated!r} in place of {main.contrast.control!r} on "
            f"{found.outcome!r}, how much goes through one attention head? NIE is the effect lost when one head, at "
            f"the answer positions, is set to what it computes under {main.contrast.control!r} while the rest stays "
            f"under {main.contrast.treated!r}; NDE is what is left. Each is computed by running the model with that "
            "head replaced. Nothing is assumed about the head; what is uncertain is which items were drawn."
        ),
        Para(inference.sentence),
    ]
    blocks += _map(m, found)
    blocks.append(_head_table(inference, "The heads with the largest effects", "heads"))
    if inference.split_half is not None:
        half = inference.split_half
        blocks.append(
            Para(
                f"Stability: between random halves of the items, the heads' effects have a rank correlation of "
                f"{format_number(half.rank_correlation)}, and the halves agree on {half.top_overlap:.0%} of their "
                f"{half.top} largest heads (mean over {half.n_splits} splits)."
            )
        )
    blocks.append(
        m.artist.figure(
            "layers",
            "Effects by layer",
            lambda w: charts.layer_plot(inference, outcome=found.outcome, width=w),
            caption="One mark a head. Heads of a layer do not add up to the layer's joint effect.",
        )
    )
    blocks += _search(m, found)
    blocks += _floor(found)
    blocks += _contrasts(m, found)
    return Section("heads", title, tuple(blocks))


def _map(m: Material, found: StudyMediation) -> list[Block]:
    inference = found.main.inference
    figure = m.artist.figure(
        "heatmap",
        "Effect of every head",
        lambda w: charts.head_heatmap(
            inference, outcome=found.outcome, transpose=w < 500, width=w, cell=19 if w < 500 else 22
        ),
        caption=f"A dot marks q < {inference.alpha:g} (Benjamini-Hochberg over all heads). "
        "With scripts, choose a head to see its effect by item and its attention below.",
        interactive=True,
    )
    return [figure, Html(_panel(found))]


def _panel(found: StudyMediation) -> Markup:
    """Write the chosen head's items and attention; scripts change the head, without them it is the largest."""
    inference, sweep = found.main.inference, found.main.sweep
    best = int(np.argmax(np.abs(inference.mean)))
    options = Markup("").join(
        Markup('<option value="{}"{}>layer {} head {}</option>').format(
            i, Markup(" selected") if i == best else "", *inference.heads[i]
        )
        for i in np.argsort(-np.abs(inference.mean), kind="stable").tolist()
    )
    effect = sweep.nie[:, best]
    most = float(np.abs(sweep.nie).max()) or 1.0
    rows = Markup("").join(
        Markup(
            '<tr data-item="{}"><th scope="row">{}</th><td>{}</td><td class="n"><span class="v">{}</span></td>'
            '<td class="bar" aria-hidden="true"><span style="{}"></span></td><td class="n">{}</td></tr>'
        ).format(
            i,
            sweep.item_ids[i],
            found.item_tasks.get(sweep.item_ids[i], ""),
            num(float(effect[i])).text,
            _bar(float(effect[i]) / most),
            num(float(sweep.te[i])).text,
        )
        for i in np.argsort(-effect, kind="stable").tolist()
    )
    strips = Markup("").join(_strip(p, inference.heads[best], k) for k, p in enumerate(found.attention))
    return Markup(
        '<section class="panel" id="head-panel" aria-labelledby="head-title">'
        '<p class="choose js"><label for="head-select">Head, the largest effect first:</label> '
        '<select id="head-select">{}</select></p>'
        '<h3 id="head-title" aria-live="polite">{}</h3>'
        '<div class="scroll tall" tabindex="0" role="region" aria-label="Effect of the chosen head by item">'
        '<table id="head-items"><caption>Its effect, item by item</caption><thead><tr><th scope="col">item</th>'
        '<th scope="col">task</th><th scope="col" class="n">NIE</th><th scope="col"><span class="hidden">bar</span>'
        '</th><th scope="col" class="n">total effect</th></tr></thead><tbody>{}</tbody></table></div>'
        "{}</section>"
    ).format(options, head_words(inference, best), rows, strips)


def _bar(share: float) -> str:
    left, width = (50.0, 50 * share) if share >= 0 else (50 + 50 * share, -50 * share)
    colour = "var(--down)" if share < 0 else "var(--up)"
    return f"left:{left:.1f}%;width:{width:.1f}%;background:{colour}"


def _row(picture: AttentionPicture, head: tuple[int, int]) -> Any:  # noqa: ANN401 - an array
    if head not in picture.heads:
        return None
    return np.asarray(picture.weights[picture.heads.index(head)], dtype=float) / 255


def _strip(picture: AttentionPicture, head: tuple[int, int], number: int) -> Markup:
    weight = _row(picture, head)
    if weight is None:
        return Markup("")
    colours = segment_colours(picture.segments)
    most = float(weight.max()) or 1.0
    out, open_segment = Markup(""), None
    mass: dict[str, float] = {}
    for i, (token, segment) in enumerate(zip(picture.tokens, picture.segments, strict=True)):
        if segment != open_segment:
            if open_segment is not None:
                out += Markup("</span>")
            out += Markup('<span class="seg" style="--s:{}">').format(colours.get(segment, "var(--grid)"))
            out += Markup('<span class="name">{}</span>').format(segment or "other")
            open_segment = segment
        mass[segment or "other"] = mass.get(segment or "other", 0.0) + float(weight[i])
        shown = token.replace("\n", "↵\n") if token.strip(" ") else token.replace(" ", "␣")
        out += Markup('<span class="t" style="--w:{:.3f}" data-say="{}">{}</span>').format(
            float(np.sqrt(weight[i] / most)), f"{token!r}: weight {weight[i]:.3f}", shown
        )
    out += Markup("</span>")
    rows = Markup("").join(
        Markup(
            '<tr data-seg="{}"><th scope="row"><span class="key" style="--s:{}"></span>{}</th>'
            '<td class="n">{:.1%}</td></tr>'
        ).format(name, colours.get(name, "var(--grid)"), name, value)
        for name, value in mass.items()
    )
    return Markup(
        '<div class="attention" data-picture="{}"><h4>Where it looks: item {} under {}</h4>'
        '<p class="small">Attention from the answer positions, their mean. The deeper the colour, the larger the '
        "weight (square root of its share of the strip's largest).</p>"
        '<div class="tokens" tabindex="0" role="region" aria-label="{}">{}</div>'
        '<table class="mass"><caption>Attention by segment</caption><thead><tr><th scope="col">segment</th>'
        '<th scope="col" class="n">share</th></tr></thead><tbody>{}</tbody></table></div>'
    ).format(
        number,
        picture.item_id,
        repr(picture.arm),
        f"Prompt of item {picture.item_id} under {picture.arm}, token by token",
        out,
        rows,
    )


def _head_table(inference: HeadInference, caption: str, name: str) -> Table:
    rows = []
    for at in np.argsort(-np.abs(inference.mean), kind="stable")[:_LISTED].tolist():
        layer, head = inference.heads[at]
        cells = [
            num(float(inference.mean[at])),
            num(float(inference.ci_low[at])),
            num(float(inference.ci_high[at])),
        ]
        cells.append(num(None if inference.nde is None else float(inference.nde[at])))
        cells += [p_value(float(x[at])) for x in (inference.q_value, inference.p_fwer)]
        rows.append((f"layer {layer} head {head}", *cells))
    return table(caption, _COLUMNS, rows, name=name)


def _search(m: Material, found: StudyMediation) -> list[Block]:
    search: HeadSearch | None = found.search
    if search is None:
        why = f": {found.search_note}" if found.search_note else ""
        return [Note(f"No set of heads was searched for{why}.")]
    rows = [
        (
            f"{k}: layer {layer} head {head}",
            num(float(a), percent=True),
            num(float(b), percent=True),
            "yes" if k <= len(search.heads) else "no",
        )
        for k, ((layer, head), a, b) in enumerate(
            zip(search.path, search.search_share, search.held_out_share, strict=True), start=1
        )
    ]
    return [
        Para(search.sentence),
        m.artist.figure(
            "search",
            "The smallest set: joint effect of the first heads",
            lambda w: charts.search_plot(search, width=w),
            caption="The search chose its heads on one half of the items; what counts is the share on the other half.",
        ),
        table(
            f"Share of the total effect, {search.method} search",
            ("heads so far, the last one", "items searched on", "held-out items", "in the set"),
            rows,
            name="search",
        ),
    ]


def _floor(found: StudyMediation) -> list[Block]:
    placebo = found.placebo
    if placebo is None:
        return [
            Note(
                "No placebo arm was swept, so there is no noise floor to hold the heads against: some of these "
                "effects may come from any change of the prompt."
            )
        ]
    largest = float(np.abs(placebo.inference.mean).max())
    above = int((np.abs(found.main.inference.mean) > largest).sum())
    te = placebo.inference.te
    return [
        Para(
            f"Noise floor. The placebo arm {placebo.contrast.treated!r} inserts text of no use. Its largest single "
            f"head has {format_number(largest)}; {above} of {len(found.main.inference.heads)} heads exceed that in "
            f"{found.main.name}."
            + (
                ""
                if te is None
                else f" Its total effect is {format_number(te.mean)} ({format_number(te.ci_low)} to "
                f"{format_number(te.ci_high)})."
            )
        ),
        Details(
            "Heads under the placebo", (_head_table(placebo.inference, f"Heads, {placebo.name}", "placebo"),)
        ),
    ]


def _contrasts(m: Material, found: StudyMediation) -> list[Block]:
    out: list[Block] = []
    for study in found.further:
        out.append(Details(f"Further contrast: {study.name}", _one_contrast(m, study, found.outcome)))
    for number, (name, inference) in enumerate(found.differences.items()):
        slug = f"difference-{number}"
        blocks: tuple[Block, ...] = (
            Para(inference.sentence),
            m.artist.figure(
                slug,
                f"Difference of the heads' effects: {name}",
                lambda w, i=inference: charts.head_heatmap(  # type: ignore[misc]
                    i, outcome=found.outcome, width=w
                ),
                narrow=False,
            ),
            _head_table(inference, "The heads that differ most", slug),
        )
        out.append(Details(f"Contrast of sweeps: {name}", blocks))
    return out


def _one_contrast(m: Material, study: HeadStudy, outcome: str) -> tuple[Block, ...]:
    slug = f"contrast-{study.contrast.treated}-{study.contrast.control}"
    return (
        Para(study.inference.sentence),
        m.artist.figure(
            slug,
            f"Effect of every head, {study.name}",
            lambda w: charts.head_heatmap(study.inference, outcome=outcome, width=w),
            narrow=False,
        ),
        _head_table(study.inference, f"The heads with the largest effects, {study.name}", slug),
    )


def head_data(m: Material, *, room: int = ATTENTION_BYTES) -> dict[str, Any] | None:
    """Give what the page's script needs to show any head: its effect by item and its attention.

    Weights are one byte each, in base64. Where those of all heads would take more than `room` bytes, the
    strongest heads keep theirs.
    """
    found = m.mediation
    if found is None:
        return None
    inference, sweep = found.main.inference, found.main.sweep
    order = np.argsort(-np.abs(inference.mean), kind="stable").tolist()
    tokens = sum(len(p.tokens) for p in found.attention)
    fit = len(order) if tokens == 0 else max(1, int(room * 3 / 4) // tokens)
    kept = sorted(order[:fit])
    pictures = []
    for p in found.attention:
        at = {head: i for i, head in enumerate(p.heads)}
        rows = [i for i in kept if inference.heads[i] in at]
        block = (
            np.stack([p.weights[at[inference.heads[i]]] for i in rows])
            if rows
            else np.zeros((0, 0), np.uint8)
        )
        pictures.append(
            {
                "n": len(p.tokens),
                "rows": {str(i): k for k, i in enumerate(rows)},
                "segments": [s or "other" for s in p.segments],
                "tokens": list(p.tokens),
                "weights": base64.b64encode(np.ascontiguousarray(block, dtype=np.uint8).tobytes()).decode(),
            }
        )
    return {
        "heads": [list(h) for h in inference.heads],
        "words": [head_words(inference, i) for i in range(len(inference.heads))],
        "nie": [[float(f"{v:.4g}") for v in row] for row in sweep.nie.T.tolist()],
        "chosen": order[0],
        "pictures": pictures,
    }


def levels(m: Material) -> Section:
    """The two levels side by side."""
    title = "The two levels joined"
    found = m.mediation
    if found is None:
        return Section("levels", title, (Note("There is one level only: the internal one was not run."),))
    blocks: list[Block] = []
    same = (
        m.paired
        and found.outcome == m.effect.outcome
        and found.main.contrast == m.effect.contrast
        and "rep" in m.effect.frame.columns
    )
    if same:
        blocks += _joined(m, found)
    else:
        blocks.append(
            Para(
                "The two levels answer different questions here: the contrast or the outcome is not the same, so "
                "their numbers are not compared."
            )
        )
    if m.statistical is not None:
        blocks += [
            Para(
                "Statistical mediation takes a head's attention mass as a measured mediator and assumes that nothing "
                "else links mediator and outcome (sequential ignorability). Intervention assumes nothing of the kind. "
                "Where the two disagree, that is what the assumption costs here."
            ),
            m.artist.figure(
                "statistical",
                "Statistical against interventional",
                lambda w: charts.statistical_vs_interventional(m.statistical, width=w),
            ),
        ]
    return Section("levels", title, tuple(blocks))


def _joined(m: Material, found: StudyMediation) -> list[Block]:
    e, sweep = m.effect, found.main.sweep
    # The sweep renders each item as the first repetition did.
    first = e.frame[e.frame["rep"] == e.frame["rep"].min()]
    wide = first.pivot_table(index="item_id", columns="arm", values=e.outcome)
    change = wide[e.contrast.treated] - wide[e.contrast.control]
    rows = [
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
            Para("No item of the sweep has both outcomes in the trial table, so the levels cannot be joined.")
        ]
    gap = max(abs(r["external"] - r["internal"]) for r in rows)
    parts: list[Block] = [
        Para(
            f"Both levels speak of one quantity: for an item, the change in {e.outcome!r} in the trials (first "
            "repetition) is its total effect inside the model, TE = NDE + NIE. They are computed by different code, "
            f"and over {len(rows)} items the largest difference between them is {format_number(gap, digits=2)}."
        ),
        m.artist.figure(
            "levels",
            "One effect, by two routes",
            lambda w: charts.levels_plot(rows, outcome=e.outcome, width=w),
            caption="Marks on the diagonal agree.",
        ),
    ]
    parts.append(_by_task(found, e))
    return parts


def _by_task(found: StudyMediation, effect: Any) -> Table:  # noqa: ANN401 - a StudyEffect
    from whyprompt.mediation import mean_interval

    sweep, inference = found.main.sweep, found.main.inference
    best = int(np.argmax(np.abs(inference.mean)))
    layer, head = inference.heads[best]
    external = {row.level: row for row in getattr(effect.main, "subgroups", ())}
    tasks = sorted({found.item_tasks.get(i, "all items") for i in sweep.item_ids})
    rows: list[tuple[Cell | str, ...]] = []
    for task in tasks:
        at = [k for k, i in enumerate(sweep.item_ids) if found.item_tasks.get(i, "all items") == task]
        clusters = [sweep.clusters[k] for k in at]
        known = external.get(task)
        cells = [num(None if known is None else known.estimate)]
        for values in (sweep.te[at], sweep.nie[at, best]):
            try:
                one = mean_interval(values, clusters=clusters)
            except MediationError:
                # One sampling unit has a mean and no interval.
                cells += [num(float(values.mean())), Cell("n/a"), Cell("n/a")]
            else:
                cells += [num(one.mean), num(one.ci_low), num(one.ci_high)]
        rows.append((task, *cells))
    return table(
        f"By task family: the effect over all its items, and inside the model over the {len(sweep.item_ids)} items swept",
        (
            "task family",
            "effect, all items",
            "total effect, swept",
            "from",
            "to",
            f"NIE of {layer}.{head}",
            "from",
            "to",
        ),
        rows,
        name="levels",
    )
