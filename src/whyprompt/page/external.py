"""The page's sections on the external level."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from whyprompt import charts
from whyprompt._words import counted, p_words, percent
from whyprompt.charts.rows import rows_used
from whyprompt.effects.headline import headline, mean_words, means, method_words, of_shares, outcome_words
from whyprompt.effects.outlook import harmed, settles, sure
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

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.answers.external import StudyEffect
    from whyprompt.answers.internal import StudyMediation
    from whyprompt.effects.result import EffectResult
    from whyprompt.page.blocks import Block, Table
    from whyprompt.results import Result
    from whyprompt.study import Study
    from whyprompt.trials.items.item import Item

_INTERVAL = ("", "n", "estimate", "from", "to", "p")


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """All that a page is made from."""

    effect: StudyEffect
    mediation: StudyMediation | None
    manifest: dict[str, Any]
    study: Study
    items: Sequence[Item] = ()
    answers: tuple[Result | None, str] = (None, "")
    """How much goes through the length of the answers, or why that cannot be said."""

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
    """Answer for someone who decides: from what to what, how sure, what would settle it, who is harmed."""
    e = m.effect
    row, alpha = e.family[0], 1 - e.main.level
    said = decide_blocks(e.main)
    if row.p_value is not None and row.p_adjusted is not None and row.p_value < alpha <= row.p_adjusted:
        text = f"Among the {len(e.family)} questions that the study asks, p is {p_words(row.p_adjusted)}:"
        said.append(Text(f"{text} such a difference comes by chance.", label="Beware."))
    return [*said, *noted(e.main.warnings)]


def gists(m: Material) -> dict[str, str]:
    """Give what stands beside the titles of the parts, by their names."""
    e, found = m.effect, m.mediation
    out = {"effects": counted(len(e.family), "question")}
    if e.main.parts:
        out["effects"] += f", {counted(len(e.main.parts), 'part')}"
    if e.main.items is not None:
        out["who"] = f"{e.main.items.higher} higher, {e.main.items.lower} lower"
    if found is not None:
        n = len(found.main.inference.heads)
        out["heads"] = f"{n} heads"
        if (search := found.search) is not None:
            of = f"of {n}" if search.noun == "head" else f"{search.noun}s"
            out["heads"] = f"a set of {len(search.sites)} {of}"
    if e.audit is not None:
        out["logs"] = counted(e.audit["draws"], "draw")
    return out


def decide_blocks(main: EffectResult, *, name: str = "") -> list[Block]:
    """Give the first screen of an effect; `name` tells its picture from others of the page."""
    blocks: list[Block] = [Text(headline(main, arms=False), "lead")]
    both = means(main)
    if both is not None:
        blocks.append(_picture(main, both, name))
    blocks.append(Text(sure(main), label="How sure."))
    blocks.append(Text(settles(main), label="What would settle it."))
    if hurt := harmed(main):
        blocks.append(Text(hurt, label="Who is harmed."))
    return blocks


def _picture(main: EffectResult, both: tuple[float, float], name: str) -> Figure:
    low, high = main.ci_low, main.ci_high
    return draw(
        f"change{name}",
        "",
        lambda w: charts.change_plot(
            *both,
            None if low is None or high is None else (low, high),
            names=(main.control, main.treated),
            labels=(mean_words(main, both[0]), mean_words(main, both[1])),
            interval=f"{percent(main.level)} interval of the change",
            title=outcome_words(main),
            shares=of_shares(main),
            width=w,
        ),
    )


def noted(warnings: Sequence[str]) -> list[Block]:
    """Give warnings, where there are any; the name of a file that one begins with stays as it is."""
    items = tuple(
        f"{w[:1].upper() if w.partition(' ')[0].strip(',:;').isalpha() else w[:1]}{w[1:].rstrip('.')}."
        for w in dict.fromkeys(warnings)
    )
    return [Text("", label="To know.", items=items)] if items else []


def design(m: Material) -> list[Block]:
    """Describe the question, its graph, the design and the data."""
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
        ("compared", f"{e.contrast.treated!r} in place of {e.contrast.control!r}"),
        ("outcome", f"{e.outcome!r}; a positive number: higher under {e.contrast.treated!r}"),
        ("model", _model(m.manifest)),
        ("items", count(frame["item_id"].nunique())),
        ("trials", count(len(frame))),
        ("repetitions", count(m.study.reps)),
        ("arms", "; ".join(f"{name} ({arm.kind})" for name, arm in m.study.arms.items())),
        ("outcomes", ", ".join(o.name for o in m.study.outcomes)),
    ]
    blocks: list[Block] = [table("Design", ("", "value"), facts, name="design"), *_graph(m)]
    if "task_type" in frame.columns:
        blocks.append(_data_table(m))
    return blocks + _example(m)


def _graph(m: Material) -> list[Block]:
    """Show the causal graph, where the study states one."""
    if m.study.graph is None:
        return []
    e = m.effect
    graph = CausalGraph.parse(m.study.graph)
    svg = Markup(graph.to_svg("arm", e.outcome))  # noqa: S704 - names are escaped there
    caption = "The causal graph that the study states"
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
    roles = graph.roles("arm", e.outcome)
    rows = [
        (name, ", ".join(role), ", ".join(graph.parents(name)) or "nothing named")
        for name, role in roles.items()
    ]
    words = table("Variables, their roles and causes", ("variable", "role", "caused by"), rows)
    return [
        Figure("graph", "", caption, "Causal graph", svg, kind="graph"),
        Text(said),
        details("The graph in words", words),
    ]


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
    """Show overlap and balance, where rows are compared and not items with themselves."""
    return [] if m.paired else overlap_blocks(m.effect.main, "main")


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
    blocks: list[Block] = [Text(_sentence(m)), *effect_blocks(main, beside)]
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


def _sentence(m: Material) -> str:
    """Give the whole sentence, without what is a warning on the first screen."""
    said = m.effect.sentence
    for warning in m.effect.main.warnings:
        said = said.replace(f" {warning.rstrip('.')}.", "")
    return said


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
