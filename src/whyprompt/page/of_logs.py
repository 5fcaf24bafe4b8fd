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
from whyprompt.page.external import (
    assumption_table,
    decide_blocks,
    effect_blocks,
    noted,
    overlap_blocks,
)
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
from whyprompt.page.texts import TITLE, answer_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.answers.compare import RunComparison
    from whyprompt.effects.result import EffectResult
    from whyprompt.effects.several import EffectsResult
    from whyprompt.page.blocks import Block, Cell
    from whyprompt.results import Result
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


def log_sections(
    compared: RunComparison, effect: EffectResult, through: tuple[Result | None, str]
) -> list[Section]:
    """Make the parts of the page of two arms of logs.

    `effect` is of `log_effect`, `compared` of `compare_runs` and `through` of `answer_texts`, for the same
    two arms of the same logs.
    """
    found = compared.trials
    parts = pair_parts(compared, effect, through)
    gone = [*missing_blocks(found), *gone_blocks(effect)]
    every: dict[str, tuple[str, Sequence[Block]]] = {
        "answer": ("The answer", _answer(compared, effect)),
        **{name: parts[name] for name in ("effects", "who", "answers", "differs") if name in parts},
        "read": ("What was read, and taken for what", read_blocks(found, (effect.control, effect.treated))),
        "design": parts["design"],
        "missing": ("Missing outcomes", gone),
        **{name: parts[name] for name in ("overlap", "sensitivity") if name in parts},
        "limits": ("What may not be claimed", limits(found, [effect])),
        "reproduce": ("How to reproduce it", _reproduce(compared, effect)),
    }
    gists = {"who": "", "differs": counted(len(compared.differences), "setting")}
    if effect.items is not None:
        gists["who"] = f"{effect.items.higher} higher, {effect.items.lower} lower"
    if effect.parts:
        gists["effects"] = counted(len(effect.parts), "part")
    return [
        Section(name, title, tuple(blocks), "answer" if name == "answer" else "part", gists.get(name, ""))
        for name, (title, blocks) in every.items()
        if blocks
    ]


def pair_parts(
    compared: RunComparison,
    effect: EffectResult,
    through: tuple[Result | None, str],
    *,
    name: str = "",
) -> dict[str, tuple[str, tuple[Block, ...]]]:
    """Give the titles and blocks of what is of two arms alone, and applies; `name` tells their pictures."""
    found = compared.trials
    parts: dict[str, tuple[str, list[Block]]] = {
        "design": ("Items, pairing and design", _design(compared, effect)),
        "differs": ("What else differed", _differs(compared, effect, name)),
        "effects": ("Effects", _effects(effect, name)),
        "who": ("Items that changed", _items(compared, effect, name)),
        "answers": (TITLE, answer_blocks(*through, name=name)),
    }
    if effect.items is None:
        parts["overlap"] = ("Overlap and balance", overlap_blocks(effect, f"main{name}"))
        if not any(a.name == "exchangeability" and a.status == "holds" for a in effect.assumptions):
            parts["sensitivity"] = ("Sensitivity", hidden_blocks(compared_rows(found, effect), effect))
    return {key: (title, tuple(blocks)) for key, (title, blocks) in parts.items() if blocks}


def said_of(effect: EffectResult | EffectsResult) -> str:
    """Give the sentence without what was read, which has a section of its own."""
    return effect.sentence.removeprefix(str(effect["read"])).strip()


def _answer(compared: RunComparison, effect: EffectResult) -> list[Block]:
    return [*decide_blocks(effect), *noted([*compared.trials.warnings, *effect_warnings(compared, effect)])]


def effect_warnings(compared: RunComparison, effect: EffectResult) -> list[str]:
    """Give the warnings of an effect that are not those of what was read."""
    return [text for text in effect.warnings if text not in compared.trials.warnings]


def _design(compared: RunComparison, effect: EffectResult) -> list[Block]:
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
        return blocks
    text = (
        "The arms hold other items, so that what decided which item got which arm may be what the"
        " difference shows."
    )
    return [*blocks, Text(text)]


def _sentences(compared: RunComparison) -> tuple[list[str], str]:
    """Give what the comparison says of differences, and what it says of noise."""
    said = compared.sentence.removeprefix(compared.trials.sentence).strip().split("\n")
    noise = said.pop() if "items" in compared.figures else ""
    return [text for text in said if text], noise


def _differs(compared: RunComparison, effect: EffectResult, name: str) -> list[Block]:
    found = compared.trials
    rows = []
    for role, path, one, other, told in compared.to_frame().itertuples(index=False):
        # Of two long texts what differs, or both would be cut before it.
        sides = (one, other) if max(len(one), len(other)) <= CHARS else text_difference(one, other)
        rows.append((_ROLES.get(role, role), path, *map(cut, sides), told))
    if not rows:
        return []
    blocks: list[Block] = [Text(text) for text in _sentences(compared)[0]]
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
    if effect.items is None:
        return []
    frame = compared.trials.frame
    tasks = {}
    if "task_type" in frame:
        tasks = dict(zip(frame["item_id"].astype(str), frame["task_type"].astype(str), strict=True))
    blocks = item_blocks(effect, tasks, kind="task", name=name)
    return [*blocks, *_noise(compared), *changed_items(compared.changed, effect)]


def _noise(compared: RunComparison) -> list[Block]:
    """Say how many items change between repeats of one arm, beside those that change between the arms."""
    found = compared.trials
    said = _sentences(compared)[1]
    blocks: list[Block] = [Text(said)] if said else []
    if found.flicker:
        flicker = {arm: f for arm, f in found.flicker.items() if arm in {compared.control, compared.treated}}
        rows = [(arm, count(f["cells"]), count(f["vary"])) for arm, f in flicker.items()]
        head = ("arm", "items with repeats", "of them with outcomes that differ")
        blocks.append(table("Repeats of an item under one arm", head, rows, name="flicker"))
        blocks.append(
            Text("What repeats of one arm differ by is no effect. Repeats are averaged within their item.")
        )
    return blocks


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
    for effect in effects:
        of = f"{effect.treated!r} instead of {effect.control!r}: " if len(effects) > 1 else ""
        claims += [f"{of}{claim}" for claim in assumed(effect)]
    return [Text("On the strength of this page nobody may claim:", items=tuple(dict.fromkeys(claims)))]


def _reproduce(compared: RunComparison, effect: EffectResult) -> list[Block]:
    chosen = {
        "--treated": effect.treated,
        "--control": effect.control,
        "--design": "paired" if effect.items is not None else "",
        "--confounders": ",".join(effect.confounders),
        **{f"--{name}": str(effect.figures.get(name, "")) for name in ("better", "margin")},
    }
    facts = [
        ("method", effect.method),
        ("adjusted for", ", ".join(effect.confounders) or "nothing"),
        *((name, str(value)) for name, value in effect.settings.items()),
    ]
    return again_blocks(compared.trials, report_command(compared.trials, chosen), facts)


def log_results(
    compared: Sequence[RunComparison],
    effect: EffectResult | EffectsResult,
    through: Sequence[Result | None],
) -> Mapping[str, Any]:
    """Give what the page holds for programs."""
    # Not the items' texts: they stand on the page, as far as it has room for them.
    differences = [
        {name: value for name, value in one.to_dict().items() if name != "changed"} for one in compared
    ]
    answers = [None if made is None else made.to_dict() for made in through]
    return {
        "effect": effect.to_dict(),
        "logs": compared[0].trials.to_dict(),
        "comparison": differences[0] if len(differences) == 1 else differences,
        "answers": answers[0] if len(answers) == 1 else answers,
    }
