"""The page of logs of other tools: a study's, as far as logs alone bear it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from whyprompt._words import counted
from whyprompt.answers.apart import ARM
from whyprompt.answers.compare import text_difference
from whyprompt.answers.logs import compared_rows
from whyprompt.page.blocks import Figure, Section, Text, count, details, num, table
from whyprompt.page.changed import changed_items
from whyprompt.page.closing import assumed
from whyprompt.page.external import assumption_table, effect_blocks, overlap_blocks
from whyprompt.page.items import item_blocks
from whyprompt.page.log_read import (
    CHARS,
    again_blocks,
    cut,
    gone_blocks,
    missing_blocks,
    read_blocks,
    report_command,
    some,
)
from whyprompt.page.logs import hidden_blocks
from whyprompt.page.strength import effect_strength

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.answers.compare import RunComparison
    from whyprompt.effects.result import EffectResult
    from whyprompt.effects.several import EffectsResult
    from whyprompt.page.blocks import Block, Cell
    from whyprompt.trials.logs.result import ReadTrials

_IDS = re.compile(r"(id='|url\(#|labelledby='|(?<=='wp-title) )wp-")
_ROLES = {
    "prompt": "the prompt",
    "few_shot": "worked examples",
    "chat_format": "chat format",
    "items": "item set",
    "judge": "judge or scorer",
    "harness": "harness",
}


def log_sections(compared: RunComparison, effect: EffectResult) -> list[Section]:
    """Make the parts of the page of two arms of logs.

    `effect` is of `log_effect`, and `compared` of `compare_runs`, for the same two arms of the same logs.
    """
    found = compared.trials
    read = read_blocks(found, (effect.control, effect.treated))
    missing = [*missing_blocks(found), *gone_blocks(effect)]
    parts = pair_parts(compared, effect)
    return [
        Section("answer", "The answer", tuple(_answer(compared, effect))),
        Section("read", "What was read, and taken for what", tuple(read)),
        *(Section(name, *parts[name]) for name in ("design", "differs")),
        Section("missing", "Missing outcomes", tuple(missing)),
        *(Section(name, *parts[name]) for name in ("effects", "who", "noise", "sensitivity")),
        Section("heads", "Inside the model", (inside(),)),
        Section("limits", "What may not be claimed", tuple(limits(found, [effect]))),
        Section("reproduce", "How to reproduce it", tuple(_reproduce(compared, effect))),
    ]


def pair_parts(
    compared: RunComparison, effect: EffectResult, *, name: str = ""
) -> dict[str, tuple[str, tuple[Block, ...]]]:
    """Give the titles and blocks of what is of two arms alone; `name` tells its pictures from others'."""
    return {
        "design": ("Items, pairing and design", tuple(_design(compared, effect, name))),
        "differs": ("What else differed", tuple(_differs(compared, effect, name))),
        "effects": ("Effects", tuple(_effects(effect, name))),
        "who": ("Which items rise and which fall", tuple(_items(compared, effect, name))),
        "noise": ("Is it noise?", tuple(_noise(compared))),
        "sensitivity": ("Sensitivity", tuple(_sensitivity(compared, effect))),
    }


def said_of(effect: EffectResult | EffectsResult) -> str:
    """Give the sentence without what was read, which has a section of its own."""
    return effect.sentence.removeprefix(str(effect["read"])).strip()


def _answer(compared: RunComparison, effect: EffectResult) -> list[Block]:
    found = compared.trials
    said = [Text(said_of(effect), "lead"), strength(found, effect), *beware(found)]
    return [Section("", "", tuple(said), "answer")]


def strength(found: ReadTrials, effect: EffectResult, *, of: str = "") -> Text:
    """Say how strong an effect is; `of` names it among others."""
    label = f"Strength{of}."
    if found.figures.get("same_prompts"):
        words = "None: both arms were sent the same prompts, so that whatever differs is noise."
        return Text(words, label=label)
    _, headline, reasons = effect_strength(effect)
    return Text(headline, label=label, items=reasons)


def beware(found: ReadTrials) -> list[Text]:
    """Give the warnings of what was read, where there are any."""
    warned = tuple(f"{w[:1].upper()}{w[1:]}." for w in found.warnings)
    return [Text("What was read has warnings:", label="Beware.", items=warned)] if warned else []


def _design(compared: RunComparison, effect: EffectResult, name: str) -> list[Block]:
    found = compared.trials
    p = found.pairing
    paired = effect.items is not None
    facts: list[tuple[Cell | str, ...]] = [
        (
            "comparison",
            "each item with itself"
            if paired
            else f"rows of one arm with rows of the other, by {effect.method}",
        ),
        ("arms", f"{effect.treated!r} in place of {effect.control!r}"),
        ("outcome", f"{effect.outcome!r}; a positive number: higher under {effect.treated!r}"),
        ("items are the same by", p.by),
        *((f"items under {arm!r}", count(n)) for arm, n in p.items.items()),
        ("items under every arm", count(p.matched)),
        *((f"items only under {arm!r}", count(n)) for arm, n in p.only.items() if n),
        *(
            (f"trials under {arm!r}", count(n))
            for arm, n in found.frame["arm"].value_counts(sort=False).items()
        ),
    ]
    further = {
        "questions under several ids of one log": p.repeated,
        "questions with another right answer under the other arm, not paired": p.n_targets,
        "ids that name another question under the other arm": p.n_names,
    }
    facts += [(words, count(n)) for words, n in further.items() if n]
    blocks: list[Block] = [table("Design", ("", "value"), facts, name="design")]
    if paired:
        text = (
            "Each item is its own control: the two arms hold the same items, so nothing that an item"
            " brings along differs between them, whatever the logs tell of it."
        )
        return [*blocks, Text(text)]
    text = (
        "The arms hold other items, so that what decided which item got which arm may be what the"
        " difference shows. Below is how far the arms can be compared."
    )
    return [*blocks, Text(text), *overlap_blocks(effect, f"main{name}")]


def _sentences(compared: RunComparison) -> tuple[list[str], str]:
    """Give what the comparison says of differences, and what it says of noise."""
    said = compared.sentence.removeprefix(compared.trials.sentence).strip().split("\n")
    noise = said.pop() if "items" in compared.figures else ""
    return [text for text in said if text], noise


def _differs(compared: RunComparison, effect: EffectResult, name: str) -> list[Block]:
    found = compared.trials
    blocks: list[Block] = [Text(text) for text in _sentences(compared)[0]]
    rows = []
    for role, path, one, other, told in compared.to_frame().itertuples(index=False):
        # Of two long texts what differs, or both would be cut before it.
        sides = (one, other) if max(len(one), len(other)) <= CHARS else text_difference(one, other)
        rows.append((_ROLES.get(role, role), path, *map(cut, sides), told))
    if rows:
        head = ("kind", "setting", effect.control, effect.treated, "told from the arm?")
        blocks.append(some("Settings that differ between the two arms", head, rows, name="differs"))
        # Each picture on a page has ids of its own.
        svg = _IDS.sub(rf"\1wp{name}-", compared.graph.to_svg(ARM, effect.outcome))
        graph = Markup(svg)  # noqa: S704 - names are escaped there
        caption = "These differences as a graph: what is not alike in the arms shares the choice of the run"
        blocks.append(Figure("graph", "", caption, "Causal graph of the differences", graph, kind="graph"))
    same = [
        (_ROLES.get(role, role), path, cut(value))
        for role, paths in found.shared.items()
        for path, value in paths.items()
    ]
    if same:
        shown = some("Settings that are the same in all", ("kind", "setting", "value"), same)
        blocks.append(details("What did not differ", shown))
    return blocks


def _effects(effect: EffectResult, name: str) -> list[Block]:
    of = ("part", "parts")
    blocks: list[Block] = [Text(said_of(effect)), *effect_blocks(effect, of=of, name=name)]
    if effect.measures:
        rows = [(m.label, num(m.estimate), num(m.ci_low), num(m.ci_high)) for m in effect.measures]
        head = ("", "estimate", "from", "to")
        blocks.append(table("The same comparison on other scales", head, rows, name="measures"))
    return [*blocks, assumption_table(effect)]


def _items(compared: RunComparison, effect: EffectResult, name: str) -> list[Block]:
    frame = compared.trials.frame
    tasks = {}
    if "task_type" in frame:
        tasks = dict(zip(frame["item_id"].astype(str), frame["task_type"].astype(str), strict=True))
    blocks = item_blocks(effect, tasks, kind="task", name=name)
    return blocks if effect.items is None else blocks + changed_items(compared.changed, effect)


def _noise(compared: RunComparison) -> list[Block]:
    found = compared.trials
    blocks: list[Block] = []
    if found.figures.get("same_prompts"):
        text = "Both arms were sent the same prompts in every item: their difference is an A/A comparison."
        blocks.append(Text(text))
    text = _sentences(compared)[1] or (
        "No item was run under both arms, so that no item's outcome is seen to change. The interval"
        " covers chance in the average."
    )
    blocks.append(Text(text))
    if found.flicker:
        flicker = {arm: f for arm, f in found.flicker.items() if arm in {compared.control, compared.treated}}
        rows = [(arm, count(f["cells"]), count(f["vary"])) for arm, f in flicker.items()]
        head = ("arm", "items with repeats", "of them with outcomes that differ")
        blocks.append(table("Repeats of an item under one arm", head, rows, name="flicker"))
        blocks.append(
            Text("What repeats of one arm differ by is no effect. Repeats are averaged within their item.")
        )
    return blocks


def _sensitivity(compared: RunComparison, effect: EffectResult) -> list[Block]:
    found = compared.trials
    if effect.items is None:
        return hidden_blocks(compared_rows(found, effect), effect)
    text = (
        "The paired effect has no confounder of items to be sensitive to: both outcomes of each item were"
        " observed. It can still move with the items drawn (its interval), with chance in the answers,"
        " and with whatever else differed between the runs."
    )
    return [Text(text)]


def inside() -> Text:
    """Say that logs tell nothing of what happens inside the model."""
    text = (
        "This page has no internal part. Logs hold what a model answered and nothing of how it came to"
        " it: which attention heads carry the change is seen only by running the model, as a study does"
        " (whyprompt mediate)."
    )
    return Text(text, "note")


def limits(found: ReadTrials, effects: Sequence[EffectResult]) -> list[Block]:
    """Say what nobody may claim on the strength of effects of logs, and the warnings that they carry."""
    models = found.frame["model"].dropna().unique().tolist() if "model" in found.frame else []
    named = (
        f"the model {models[0]!r}"
        if len(models) == 1
        else f"{len(models)} models"
        if models
        else "a model not told"
    )
    scope = (
        "anything about another model, another wording of the arms, or other kinds of items: these are"
        f" logs of {named}, of these arms, on {counted(int(found.frame['item_id'].nunique()), 'item')}."
    )
    claims = [
        scope,
        "that only the arm differed: logs tell some of what differed, and the rest is not known.",
        "anything about what happens inside the model.",
    ]
    if found.figures.get("same_prompts"):
        claims.insert(0, "that there is an effect of a prompt: both arms were sent the same prompts.")
    if any(effect.items is not None and effect.items.noise != "none" for effect in effects):
        claims.append(
            "that an item whose outcome was higher once is higher always: single differences hold the"
            " chance of sampling."
        )
    own: list[str] = []
    for effect in effects:
        of = f"{effect.treated!r} instead of {effect.control!r}: " if len(effects) > 1 else ""
        claims += [f"{of}{claim}" for claim in assumed(effect)]
        own += [f"{of}{w}." if of else f"{w[:1].upper()}{w[1:]}." for w in effect.warnings]
    blocks: list[Block] = [Text("On the strength of this page nobody may claim:", items=tuple(claims))]
    return blocks + ([Text("Warnings that the results carry:", items=tuple(own))] if own else [])


def _reproduce(compared: RunComparison, effect: EffectResult) -> list[Block]:
    chosen = {
        "--treated": effect.treated,
        "--control": effect.control,
        "--design": "paired" if effect.items is not None else "",
        "--confounders": ",".join(effect.confounders),
    }
    facts = [
        ("method", effect.method),
        ("adjusted for", ", ".join(effect.confounders) or "nothing"),
        *((name, str(value)) for name, value in effect.settings.items()),
    ]
    return again_blocks(compared.trials, report_command(compared.trials, chosen), facts)


def log_results(compared: Sequence[RunComparison], effect: EffectResult | EffectsResult) -> Mapping[str, Any]:
    """Give what the page holds for programs."""
    # Not the items' texts: they stand on the page, as far as it has room for them.
    differences = [
        {name: value for name, value in one.to_dict().items() if name != "changed"} for one in compared
    ]
    return {
        "effect": effect.to_dict(),
        "logs": compared[0].trials.to_dict(),
        "comparison": differences[0] if len(differences) == 1 else differences,
    }
