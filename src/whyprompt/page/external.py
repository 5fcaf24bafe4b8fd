"""The page's sections on the external level."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from whyprompt import charts
from whyprompt._words import percent
from whyprompt.charts.rows import rows_used
from whyprompt.effects.headline import method_words
from whyprompt.graph.model import CausalGraph
from whyprompt.page.blocks import (
    Cell,
    Figure,
    Section,
    Text,
    count,
    details,
    draw,
    interval,
    num,
    p_value,
    table,
)
from whyprompt.page.strength import effect_strength

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whyprompt.answers.external import StudyEffect
    from whyprompt.answers.internal import StudyMediation
    from whyprompt.effects.result import EffectResult
    from whyprompt.page.blocks import Block, Table
    from whyprompt.study import Study

_INTERVAL = ("", "n", "estimate", "from", "to", "p")


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """All that a page is made from."""

    effect: StudyEffect
    mediation: StudyMediation | None
    manifest: dict[str, Any]
    study: Study

    @property
    def paired(self) -> bool:
        """Whether every item was run under both arms."""
        return self.effect.main.items is not None

    @property
    def tasks(self) -> dict[str, str]:
        """The task family of each item."""
        frame = self.effect.frame
        if "task_type" not in frame.columns:
            return {}
        return dict(zip(frame["item_id"].astype(str), frame["task_type"].astype(str), strict=True))


def answer(m: Material) -> list[Block]:
    """Give the answer in one sentence, and its strength."""
    _, headline, reasons = effect_strength(m.effect.main)
    said = [Text(m.effect.sentence, "lead"), Text(headline, label="Strength.", items=reasons)]
    found = m.mediation
    if found is not None:
        inside = (
            found.sentence if found.search is None else f"On items of {found.tasks}: {found.search.sentence}"
        )
        said.append(Text(inside, label="Inside the model."))
    return [Section("", "", tuple(said), "answer")]


def question(m: Material) -> list[Block]:
    """Show the question and the graph."""
    e = m.effect
    blocks: list[Block] = [
        Text(e.question.strip()),
        Text(
            f"Compared: the arm {e.contrast.treated!r} in place of {e.contrast.control!r}. Outcome: "
            f"{e.outcome!r}. A positive number means that the outcome is higher under the first."
        ),
    ]
    if m.study.graph is None:
        text = "The study states no causal graph. Where it had to adjust, it used the items' own covariates."
        return [*blocks, Text(text, "note")]
    graph = CausalGraph.parse(m.study.graph)
    svg = Markup(graph.to_svg("arm", e.outcome))  # noqa: S704 - names are escaped there
    caption = "The causal graph that the study states"
    blocks.append(Figure("graph", "", caption, "Causal graph", svg, kind="graph"))
    sets = graph.adjustment_sets("arm", e.outcome)
    said = (
        "No set of measured variables identifies the effect from logs."
        if not sets
        else "Nothing needs adjusting for."
        if sets[0] == frozenset()
        else "From logs alone the effect is identified by adjusting for "
        + ", or for ".join(" and ".join(sorted(s)) for s in sets[:4])
        + "."
    )
    if m.paired:
        said += " Here both arms were run on every item, so nothing has to be adjusted for."
    blocks.append(Text(said))
    roles = graph.roles("arm", e.outcome)
    rows = [
        (name, ", ".join(role), ", ".join(graph.parents(name)) or "nothing named")
        for name, role in roles.items()
    ]
    blocks.append(
        details(
            "The graph in words",
            table("Variables, their roles and causes", ("variable", "role", "caused by"), rows),
        )
    )
    return blocks


def design(m: Material) -> list[Block]:
    """Describe design and data."""
    e, frame = m.effect, m.effect.frame
    words = {
        "paired": "Paired: every item is run under every arm.",
        "randomized": "Randomised: chance decided which arm an item got.",
        "observational": "Observational: something other than chance decided which arm an item got.",
        "instrument": "An instrument: something that moves the outcome through the arm alone moved the arm.",
        "front_door": "A front door: all that the arm does goes through what was measured on the way.",
        "rollout": "A roll-out: the arm changed on a date.",
    }
    facts: list[tuple[Cell | str, ...]] = [
        ("design", words[e.design]),
        ("model", _model(m.manifest)),
        ("items", count(frame["item_id"].nunique())),
        ("trials", count(len(frame))),
        ("repetitions", count(m.study.reps)),
        ("arms", "; ".join(f"{name} ({arm.kind})" for name, arm in m.study.arms.items())),
        ("outcomes", ", ".join(o.name for o in m.study.outcomes)),
    ]
    blocks: list[Block] = [table("Design", ("", "value"), facts, name="design")]
    if "task_type" in frame.columns:
        blocks.append(_data_table(m))
    return blocks + _example(m)


def _model(manifest: dict[str, Any]) -> str:
    model = manifest.get("model")
    if not isinstance(model, dict):
        return "not recorded"
    if "endpoint" in model:
        return f"{model.get('name')}, behind {model['endpoint']}"
    return f"{model.get('name')}, {model.get('dtype')}, on {model.get('device')}"


def _data_table(m: Material) -> Table:
    frame, e = m.effect.frame, m.effect
    arms = [e.contrast.control, e.contrast.treated]
    head = ["task family", "items"]
    spread = [c for c in ("difficulty", "question_tokens") if c in frame.columns]
    head += [f"{c} (least to most)" for c in spread]
    head += [f"mean {e.outcome}, {arm}" for arm in arms]
    rows = []
    for task, part in frame.groupby("task_type", sort=True):
        n = int(part["item_id"].nunique())
        row: list[Cell | str] = [str(task), count(n)]
        row += [f"{part[c].min():.4g} to {part[c].max():.4g}" for c in spread]
        row += [num(float(part.loc[part["arm"] == arm, e.outcome].mean())) for arm in arms]
        rows.append(row)
    return table("Items by task family", head, rows, name="items")


def _example(m: Material) -> list[Block]:
    frame, e = m.effect.frame, m.effect
    if "prompt" not in frame.columns:
        return []
    item = frame["item_id"].iloc[0]
    shown: list[Block] = []
    for arm in (e.contrast.control, e.contrast.treated):
        rows = frame[(frame["item_id"] == item) & (frame["arm"] == arm)]
        if not rows.empty:
            shown += [Text(f"Item {item} under {arm!r}:"), Text(str(rows["prompt"].iloc[0]), "verbatim")]
    return [details("One item's prompt under both arms", *shown)]


def overlap(m: Material) -> list[Block]:
    """Show overlap and balance."""
    main = m.effect.main
    blocks: list[Block] = []
    if main.items is not None:
        blocks.append(
            Text(
                "Each item is its own control: the two arms hold the same items, so every covariate is "
                "balanced exactly and overlap is complete, whatever was measured or not."
            )
        )
        if m.effect.draw is None:
            return blocks
        blocks.append(
            Text(
                "Overlap and balance matter where only one arm an item is at hand. The pictures below are "
                "of such a draw from this study, made by a stated confounded rule and adjusted as logs "
                "would have to be."
            )
        )
        shown, where = m.effect.draw.adjusted, "draw"
    else:
        shown, where = main, "main"
    return blocks + overlap_blocks(shown, where)


def overlap_blocks(result: EffectResult, where: str) -> list[Block]:
    """Show who could have got either arm, which rows are used, and how they balance; `where` names them."""
    blocks: list[Block] = []
    score, treated = result.propensity, result.treated_rows
    if score is not None and treated is not None:
        blocks.append(
            draw(
                f"overlap-{where}",
                "Who could have got either arm",
                lambda w: charts.overlap_plot(score, treated, result.weights, width=w),
                caption="Scores of the two arms; pale rows found no counterpart and are not in the estimate.",
            )
        )
    used = [
        (f"{level} rows", count(used), count(total), num(ess))
        for level, used, total, ess in (
            (result.treated, result.n_treated_used, result.n_treated, result.ess_treated),
            (result.control, result.n_control_used, result.n_control, result.ess_control),
        )
    ]
    blocks.append(
        table(
            "Rows that the estimate uses",
            ("", "used", "in the table", "effective sample size"),
            used,
            name=f"used-{where}",
        )
    )
    if result.balance:
        if any(row.smd_before is not None or row.smd_after is not None for row in result.balance):
            blocks.append(
                draw(
                    f"love-{where}",
                    "Balance before and after adjustment",
                    lambda w: charts.love_plot(result.balance, width=w),
                    caption="A difference above 0.1 standard deviations is called an imbalance.",
                )
            )
        rows: list[tuple[Cell | str, ...]] = [
            (
                row.covariate,
                *(num(v) for v in (row.smd_before, row.smd_after, row.variance_ratio_after, row.ks_after)),
            )
            for row in result.balance
        ]
        blocks.append(
            table(
                "Balance of each covariate, treated minus control",
                ("covariate", "SMD before", "SMD after", "variance ratio after", "KS after"),
                rows,
                name=f"balance-{where}",
            )
        )
    return blocks


def effects(m: Material) -> list[Block]:
    """Show the effects, with the truth where both arms were run."""
    e, main = m.effect, m.effect.main
    beside = None
    if e.draw is not None:
        beside = {f"logs, by {method_words(e.draw.adjusted.method)}": (e.draw.adjusted, e.draw.truth)}
    blocks: list[Block] = [Text(main.sentence), *effect_blocks(main, beside)]
    if len(e.family) > 1:
        rows = [
            (
                row.label if row.by == e.family[0].by else f"{row.label}, arm {row.by.rpartition(' - ')[0]}",
                *interval(row),
                num(row.simultaneous_low),
                num(row.simultaneous_high),
                p_value(row.p_value),
                p_value(row.p_adjusted),
            )
            for row in e.family
        ]
        head = ("", "effect", "low", "high", "low, all at once", "high, all at once", "p", "p (Holm)")
        blocks.append(
            table(
                "Every outcome, and every other arm against the same control: each by itself, and adjusted"
                f" for their number ({len(e.family)}; Holm's p, Bonferroni's intervals)",
                head,
                rows,
                name="others",
            )
        )
    if e.spread is not None:
        cells = [(part.label, num(part.estimate)) for part in (*e.spread.parts, e.spread.overall) if part]
        blocks.append(
            table(
                "The effect in each repetition: new seeds of shots and sampling",
                ("", "estimate"),
                cells,
                name="spread",
            )
        )
    blocks.append(assumption_table(main))
    return blocks


def effect_blocks(
    main: EffectResult,
    beside: Mapping[str, tuple[EffectResult, float | None]] | None = None,
    *,
    of: tuple[str, str] = ("task family", "families"),
    name: str = "",
) -> list[Block]:
    """Show an effect and its parts, drawn and as a table; `beside` has other estimates, with the truth.

    `of` is what one part and what all parts are called; `name` tells the picture from others of the page.
    """
    blocks: list[Block] = []
    if any(row.estimate is not None for row in (main.overall, *main.parts) if row):
        truth = (
            " The last line is what adjusting one arm an item would give; the mark on it is the truth for "
            "the same items, known because both arms were run."
            if beside
            else ""
        )
        blocks.append(
            draw(
                f"forest{name}",
                f"The effect, over all items{f' and within each {of[0]}' if main.parts else ''}",
                # Parts of a design of logs are periods, or of another unit.
                lambda w: charts.forest_plot(
                    replace(main, parts=()) if main.pictures else main, beside=beside, width=w
                ),
                caption=f"Lines are {percent(main.level)} intervals, each by itself.{truth}",
            )
        )
    caption = (
        "The effect and its parts"
        if main.pictures
        else f"Effects within {of[1]}: p is adjusted by Holm's rule"
        if main.parts
        else "The effect"
    )
    return [*blocks, _effect_table(caption, main, "effects")]


def _effect_table(caption: str, result: Any, name: str) -> Table:  # noqa: ANN401 - a result of any kind
    rows = [
        (
            row.label,
            "" if (n := rows_used(row)) is None else count(n),
            *interval(row),
            p_value(row.p_value if row.p_adjusted is None else row.p_adjusted),
        )
        for row in (result.overall, *result.parts)
        if row is not None
    ]
    return table(caption, _INTERVAL, rows, name=name)


def assumption_table(result: Any) -> Section:  # noqa: ANN401 - a result of any kind
    """Show, on demand, what an estimate rests on."""
    rows = [(a.name, a.status, a.check, a.detail) for a in result.assumptions]
    return details(
        "What the effect rests on: assumptions and the check of each",
        table("Assumptions", ("assumption", "verdict", "check", "found"), rows),
    )
