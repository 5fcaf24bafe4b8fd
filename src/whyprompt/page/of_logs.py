"""The page of logs of other tools: a study's, as far as logs alone bear it."""

from __future__ import annotations

import platform
import shlex
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from whyprompt._files import file_sha256
from whyprompt._version import __version__
from whyprompt._words import counted
from whyprompt.answers.apart import ARM
from whyprompt.answers.compare import text_difference
from whyprompt.answers.logs import compared_rows
from whyprompt.page.blocks import Figure, Section, Text, count, details, num, p_value, table
from whyprompt.page.changed import Texts, changed_items
from whyprompt.page.closing import assumed
from whyprompt.page.external import assumption_table, effect_blocks, overlap_blocks
from whyprompt.page.items import item_blocks
from whyprompt.page.logs import hidden_blocks
from whyprompt.page.strength import effect_strength
from whyprompt.trials.logs.again import trials_again

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.answers.compare import RunComparison
    from whyprompt.effects.result import EffectResult
    from whyprompt.page.blocks import Block, Cell, Table
    from whyprompt.trials.logs.result import ReadTrials

# Rows of a table of what logs hold, and characters of a value in it.
_ROWS, _CHARS = 60, 120
# Bytes of prompts behind the beginnings that are shown as an example.
_EXAMPLE = 100_000
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
    parts = {
        "answer": ("The answer", _answer),
        "read": ("What was read, and taken for what", _read),
        "design": ("Items, pairing and design", _design),
        "differs": ("What else differed", _differs),
        "missing": ("Missing outcomes", _missing),
        "effects": ("Effects", _effects),
        "who": ("Which items rise and which fall", _items),
        "noise": ("Is it noise?", _noise),
        "sensitivity": ("Sensitivity", _sensitivity),
        "heads": ("Inside the model", _inside),
        "limits": ("What may not be claimed", _limits),
        "reproduce": ("How to reproduce it", _reproduce),
    }
    return [Section(name, title, tuple(part(compared, effect))) for name, (title, part) in parts.items()]


def _said(effect: EffectResult) -> str:
    """Give the sentence without what was read, which has a section of its own."""
    return effect.sentence.removeprefix(str(effect["read"])).strip()


def _answer(compared: RunComparison, effect: EffectResult) -> list[Block]:
    found = compared.trials
    said = [Text(_said(effect), "lead")]
    if found.figures.get("same_prompts"):
        words = "None: both arms were sent the same prompts, so that whatever differs is noise."
        said.append(Text(words, label="Strength."))
    else:
        _, headline, reasons = effect_strength(effect)
        said.append(Text(headline, label="Strength.", items=reasons))
    warned = tuple(f"{w[:1].upper()}{w[1:]}." for w in found.warnings)
    if warned:
        said.append(Text("What was read has warnings:", label="Beware.", items=warned))
    return [Section("", "", tuple(said), "answer")]


def _read(compared: RunComparison, effect: EffectResult) -> list[Block]:
    found = compared.trials
    rows = [
        (
            str(one["file"]),
            str(one["format"]),
            str(one["version"] or "not told"),
            str(one["status"] or "not told"),
            count(one["trials"]),
            count(one["used"]),
            _cut(", ".join(one["arms"])),
        )
        for one in found.sources
    ]
    head = ("file", "format", "version", "status", "trials", "of them used", "arms")
    blocks: list[Block] = [Text(found.sentence), _some("The logs", head, rows, name="logs")]
    checked: Any = found.figures.get("means_checked", 0)
    if checked:
        blocks.append(Text(f"Means that the logs state, computed anew from their trials: {checked:.0f}."))
    if found.left_out:
        left = [(what, count(n)) for what, n in found.left_out.items()]
        blocks.append(_some("What was left out", ("", "number"), left, name="left-out"))
    taken = [(column, _cut(field)) for column, field in found.taken.items()]
    shown = _some("Columns of the trial table, and what was taken for them", ("column", "taken from"), taken)
    blocks.append(details("What was taken for what", shown))
    return blocks + _example(found, effect)


def _example(found: ReadTrials, effect: EffectResult) -> list[Block]:
    """Show what was sent for the first item of the table under each arm, as far as logs have it."""
    item, arm = found.frame["item_id"].to_numpy(), found.frame["arm"].to_numpy()
    known = found.frame[found.outcome].notna().to_numpy()
    texts = Texts(behind=_EXAMPLE)
    sent: list[Block] = []
    for name in (effect.control, effect.treated):
        here = np.flatnonzero((item == item[0]) & (arm == name) & known)[:1].tolist()
        for trial in trials_again(found, here).values():
            if trial.prompt:
                sent += texts.block(f"Item {item[0]} under {name!r}:", trial.prompt)
    return [details("One item's prompt under both arms", *sent)] if sent else []


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
        text = (
            "Each item is its own control: the two arms hold the same items, so nothing that an item"
            " brings along differs between them, whatever the logs tell of it."
        )
        return [*blocks, Text(text)]
    text = (
        "The arms hold other items, so that what decided which item got which arm may be what the"
        " difference shows. Below is how far the arms can be compared."
    )
    return [*blocks, Text(text), *overlap_blocks(effect, "main")]


def _sentences(compared: RunComparison) -> tuple[list[str], str]:
    """Give what the comparison says of differences, and what it says of noise."""
    said = compared.sentence.removeprefix(compared.trials.sentence).strip().split("\n")
    noise = said.pop() if "items" in compared.figures else ""
    return [text for text in said if text], noise


def _differs(compared: RunComparison, effect: EffectResult) -> list[Block]:
    found = compared.trials
    blocks: list[Block] = [Text(text) for text in _sentences(compared)[0]]
    rows = []
    for role, path, one, other, told in compared.to_frame().itertuples(index=False):
        # Of two long texts what differs, or both would be cut before it.
        sides = (one, other) if max(len(one), len(other)) <= _CHARS else text_difference(one, other)
        rows.append((_ROLES.get(role, role), path, *map(_cut, sides), told))
    if rows:
        head = ("kind", "setting", effect.control, effect.treated, "told from the arm?")
        blocks.append(_some("Settings that differ between the two arms", head, rows, name="differs"))
        graph = Markup(compared.graph.to_svg(ARM, effect.outcome))  # noqa: S704 - names are escaped there
        caption = "These differences as a graph: what is not alike in the arms shares the choice of the run"
        blocks.append(Figure("graph", "", caption, "Causal graph of the differences", graph, kind="graph"))
    same = [
        (_ROLES.get(role, role), path, _cut(value))
        for role, paths in found.shared.items()
        for path, value in paths.items()
    ]
    if same:
        shown = _some("Settings that are the same in all", ("kind", "setting", "value"), same)
        blocks.append(details("What did not differ", shown))
    return blocks


def _missing(compared: RunComparison, effect: EffectResult) -> list[Block]:
    found = compared.trials
    blocks: list[Block] = []
    head = ("arm", "reason", "trials")
    for caption, name, by_arm in (
        ("Outcomes that are missing", "missing", found.missing),
        (
            "Completions that did not end by themselves; they count as they were scored",
            "cut",
            found.cut_short,
        ),
    ):
        reasons = [(arm, _cut(why), count(n)) for arm, whys in by_arm.items() for why, n in whys.items()]
        if reasons:
            blocks.append(_some(caption, head, reasons, name=name))
    if not found.missing:
        blocks.insert(0, Text("No outcome is missing in the trials that were read."))
    test: Any = effect.figures.get("missing")
    if test is None:
        return blocks
    noun = test["unit"]
    rows = [
        (arm, count(n), count(of))
        for arm, n, of in zip(
            (effect.control, effect.treated),
            (test["control"], test["treated"]),
            reversed(test["of"]),
            strict=True,
        )
    ]
    blocks.append(
        table(
            f"{noun}s without an outcome".capitalize(), ("arm", "missing", f"of {noun}s"), rows, name="gone"
        )
    )
    figures: list[tuple[str, Cell | str]] = [("exact p of no relation to the arm", p_value(test["p"]))]
    if "low" in test:
        figures += [
            ("mean difference if all that is missing were the worst for it", num(test["low"])),
            ("mean difference if all that is missing were the best for it", num(test["high"])),
        ]
    else:
        figures.append(("bounds of the mean difference", "none: the outcome has no bounds"))
    blocks.append(table("What the missing ones may mean", ("", "value"), figures, name="bounds"))
    return blocks


def _effects(_compared: RunComparison, effect: EffectResult) -> list[Block]:
    blocks: list[Block] = [Text(_said(effect)), *effect_blocks(effect, of=("part", "parts"))]
    if effect.measures:
        rows = [(m.label, num(m.estimate), num(m.ci_low), num(m.ci_high)) for m in effect.measures]
        head = ("", "estimate", "from", "to")
        blocks.append(table("The same comparison on other scales", head, rows, name="measures"))
    return [*blocks, assumption_table(effect)]


def _items(compared: RunComparison, effect: EffectResult) -> list[Block]:
    frame = compared.trials.frame
    tasks = {}
    if "task_type" in frame:
        tasks = dict(zip(frame["item_id"].astype(str), frame["task_type"].astype(str), strict=True))
    blocks = item_blocks(effect, tasks)
    return blocks if effect.items is None else blocks + changed_items(compared.changed, effect)


def _noise(compared: RunComparison, _effect: EffectResult) -> list[Block]:
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
        rows = [(arm, count(f["cells"]), count(f["vary"])) for arm, f in found.flicker.items()]
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


def _inside(_compared: RunComparison, _effect: EffectResult) -> list[Block]:
    text = (
        "This page has no internal part. Logs hold what a model answered and nothing of how it came to"
        " it: which attention heads carry the change is seen only by running the model, as a study does"
        " (whyprompt mediate)."
    )
    return [Text(text, "note")]


def _limits(compared: RunComparison, effect: EffectResult) -> list[Block]:
    found = compared.trials
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
    single = effect.items
    if single is not None and single.noise != "none":
        claims.append(
            "that an item whose outcome was higher once is higher always: single differences hold the"
            " chance of sampling."
        )
    blocks: list[Block] = [
        Text("On the strength of this page nobody may claim:", items=(*claims, *assumed(effect)))
    ]
    own = tuple(f"{w[:1].upper()}{w[1:]}." for w in effect.warnings)
    return blocks + ([Text("Warnings that the results carry:", items=own)] if own else [])


def _reproduce(compared: RunComparison, effect: EffectResult) -> list[Block]:
    found = compared.trials
    files = [str(one["file"]) for one in found.sources]
    hashes = [(name, file_sha256(name) or "not there any more") for name in files[:_ROWS]]
    blocks: list[Block] = [
        Text("This command writes this page again, from the same files:"),
        Text(report_command(found, effect), "verbatim"),
        _some("The files", ("file", "SHA-256"), hashes, of=len(files), name="manifest"),
    ]
    facts = [
        ("whyprompt", __version__),
        ("Python", platform.python_version()),
        ("method", effect.method),
        ("adjusted for", ", ".join(effect.confounders) or "nothing"),
        *((name, _cut(str(value))) for name, value in effect.settings.items()),
    ]
    return [*blocks, table("How it was estimated", ("", "value"), facts, name="facts")]


def report_command(found: ReadTrials, effect: EffectResult) -> str:
    """Write the command that makes the page of an effect of logs, with all its choices named."""
    arm, by = found.taken.get("arm", ""), found.pairing.by
    chosen: dict[str, str] = {
        "--arm": "file" if arm == "the file" else arm.rpartition(" (")[0],
        "--scorer": found.scorer,
        # An item that was named, and not what was asked, stands in quotes.
        "--item": by.strip("'") if by.startswith("'") else "",
        "--treated": effect.treated,
        "--control": effect.control,
        "--design": "paired" if effect.items is not None else "",
        "--confounders": ",".join(effect.confounders),
    }
    words = ["whyprompt", "report", *(str(one["file"]) for one in found.sources)]
    words += [word for flag, value in chosen.items() if value for word in (flag, value)]
    return shlex.join([*words, "--out", "report.html"])


def _some(
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[Cell | str]],
    *,
    of: int | None = None,
    name: str = "",
) -> Table:
    """Make a table of the first rows, and say how many there are."""
    n = len(rows) if of is None else of
    return table(
        caption if n <= _ROWS else f"{caption} (the first {_ROWS} of {n})", head, rows[:_ROWS], name=name
    )


def _cut(text: str, most: int = _CHARS) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def log_results(compared: RunComparison, effect: EffectResult) -> Mapping[str, Any]:
    """Give what the page holds for programs."""
    # Not the items' texts: they stand on the page, as far as it has room for them.
    differences = {name: value for name, value in compared.to_dict().items() if name != "changed"}
    return {"effect": effect.to_dict(), "logs": compared.trials.to_dict(), "comparison": differences}
