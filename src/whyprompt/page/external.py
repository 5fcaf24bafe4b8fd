"""The page's sections on the external level."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from whyprompt import charts
from whyprompt._words import format_number, p_words, percent
from whyprompt.charts.rows import rows_used
from whyprompt.effects.paired_items import change_words
from whyprompt.effects.result import method_words
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
    from whyprompt.answers.external import StudyEffect
    from whyprompt.answers.internal import StudyMediation
    from whyprompt.effects.pairs import PairedItems
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
    blocks += _overlap(shown, where)
    return blocks


def _overlap(result: EffectResult, where: str) -> list[Block]:
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
    blocks: list[Block] = [Text(main.sentence)]
    if any(row.estimate is not None for row in (main.overall, *main.parts) if row):
        truth = (
            " The last line is what adjusting one arm an item would give; the mark on it is the truth for "
            "the same items, known because both arms were run."
            if beside
            else ""
        )
        blocks.append(
            draw(
                "forest",
                "The effect, over all items and within each task family",
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
        else "Effects within families: p is adjusted by Holm's rule"
    )
    blocks.append(_effect_table(caption, main, "effects"))
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
    blocks.append(_assumption_table(main))
    return blocks


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


def _assumption_table(result: Any) -> Section:  # noqa: ANN401 - a result of any kind
    rows = [(a.name, a.status, a.check, a.detail) for a in result.assumptions]
    return details(
        "What the effect rests on: assumptions and the check of each",
        table("Assumptions", ("assumption", "verdict", "check", "found"), rows),
    )


def who(m: Material) -> list[Block]:
    """Show who gains and who is harmed."""
    main, found = m.effect.main, m.effect.main.items
    if found is None:
        text = (
            "With one arm an item nobody can see whether an item gains or is harmed. Run both arms on "
            "the same items (design: paired) to see it."
        )
        return [Text(text)]
    tasks = m.tasks
    blocks: list[Block] = [
        Text(item_words(found)),
        draw(
            "gain-harm",
            "Every item's change, sorted within its task family",
            lambda w: charts.gain_harm_plot(main, tasks or None, width=w),
        ),
    ]
    change, labels, states = found.changes, found.state_labels, main.item_states()
    names = [tasks.get(u, "all items") for u in found.units]
    rows: list[tuple[Cell | str, ...]] = []
    counted = found.gain_at_least is not None and found.noise != "none"
    for task in sorted(set(names)):
        here = np.array([n == task for n in names])
        part, state = change[here], states[here]
        rows.append(
            (
                task,
                count(len(part)),
                *(count(int((side * part > 0).sum())) for side in (1, -1)),
                count(int((part == 0).sum())),
                *((count(int((state == s).sum())) for s in (1, -1)) if counted else ()),
                num(float(part.max())),
                num(float(part.min())),
            )
        )
    blocks.append(
        table(
            "Items whose outcome was higher, lower and the same in these trials"
            + (", and those whose change stands out of the noise of their repeats" if counted else ""),
            (
                "task family",
                "items",
                "higher",
                "lower",
                "the same",
                *((labels[1], labels[-1]) if counted else ()),
                "highest change",
                "lowest change",
            ),
            rows,
            name="who",
        )
    )
    return blocks


def item_words(found: PairedItems) -> str:
    """Say how single items fare and what that rests on."""
    said = change_words(found)
    said = f"{said[0].upper()}{said[1:]}."
    if found.noise == "none":
        return f"{said} Another wording, or other shots, may move the same item the other way."
    if found.gain_at_least is None:
        return said
    said += (
        f" In these trials the outcome was higher on average for {found.higher} of {len(found.units)} items"
        f" and lower for {found.lower}: that alone is what noise makes of items without any effect, too."
    )
    if found.noise == "shared":
        said += " Items share the shots of a repetition, so that many can be lucky together."
    if found.spread is not None:
        said += (
            f" The items' own effects are spread with a standard deviation of {format_number(found.spread)},"
            " the noise of repeats taken off"
            if found.spread_p is not None and found.spread_p < 1 - found.level
            else " The items' effects are not shown to differ from each other beyond the noise of repeats"
        )
        said += f" (p {p_words(found.spread_p)})."
    return said
