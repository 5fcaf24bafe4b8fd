"""What the page of logs says of the logs themselves: what was read, what is missing, how to do it again."""

from __future__ import annotations

import platform
import shlex
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._files import file_sha256
from whyprompt._version import __version__
from whyprompt.page.blocks import Text, count, details, num, p_value, table
from whyprompt.page.changed import Texts
from whyprompt.trials.logs.again import trials_again

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.effects.result import EffectResult
    from whyprompt.page.blocks import Block, Cell, Table
    from whyprompt.trials.logs.result import ReadTrials

# Rows of a table of what logs hold, and characters of a value in it.
_ROWS, CHARS = 60, 120
# Bytes of prompts behind the beginnings that are shown as an example.
_EXAMPLE = 100_000


def read_blocks(found: ReadTrials, arms: Sequence[str]) -> list[Block]:
    """Show what was read and taken for what, with one item's prompts under some arms."""
    rows = [
        (
            str(one["file"]),
            str(one["format"]),
            str(one["version"] or "not told"),
            str(one["status"] or "not told"),
            count(one["trials"]),
            count(one["used"]),
            cut(", ".join(one["arms"])),
        )
        for one in found.sources
    ]
    head = ("file", "format", "version", "status", "trials", "of them used", "arms")
    blocks: list[Block] = [Text(found.sentence), some("The logs", head, rows, name="logs")]
    checked: Any = found.figures.get("means_checked", 0)
    if checked:
        blocks.append(Text(f"Means that the logs state, computed anew from their trials: {checked:.0f}."))
    if found.left_out:
        left = [(what, count(n)) for what, n in found.left_out.items()]
        blocks.append(some("What was left out", ("", "number"), left, name="left-out"))
    taken = [(column, cut(field)) for column, field in found.taken.items()]
    shown = some("Columns of the trial table, and what was taken for them", ("column", "taken from"), taken)
    blocks.append(details("What was taken for what", shown))
    return blocks + _example(found, arms)


def _example(found: ReadTrials, arms: Sequence[str]) -> list[Block]:
    """Show what was sent for the first item of the table under each arm, as far as logs have it."""
    item, arm = found.frame["item_id"].to_numpy(), found.frame["arm"].to_numpy()
    known = found.frame[found.outcome].notna().to_numpy()
    texts = Texts(behind=_EXAMPLE)
    sent: list[Block] = []
    for name in arms:
        here = np.flatnonzero((item == item[0]) & (arm == name) & known)[:1].tolist()
        for trial in trials_again(found, here).values():
            if trial.prompt:
                sent += texts.block(f"Item {item[0]} under {name!r}:", trial.prompt)
    return (
        [details(f"One item's prompt under {'both arms' if len(arms) == 2 else 'every arm'}", *sent)]
        if sent
        else []
    )


def missing_blocks(found: ReadTrials) -> list[Block]:
    """Count by arm why outcomes are missing, and how completions ended that were cut short."""
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
        reasons = [(arm, cut(why), count(n)) for arm, whys in by_arm.items() for why, n in whys.items()]
        if reasons:
            blocks.append(some(caption, head, reasons, name=name))
    return blocks


def gone_blocks(effect: EffectResult) -> list[Block]:
    """Show the test of what is missing under two arms, and what the worst of it would do to their effect."""
    test: Any = effect.figures.get("missing")
    if test is None:
        return []
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
    caption = f"{noun}s without an outcome".capitalize()
    blocks: list[Block] = [table(caption, ("arm", "missing", f"of {noun}s"), rows, name="gone")]
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


def again_blocks(found: ReadTrials, command: str, facts: Sequence[tuple[str, str]]) -> list[Block]:
    """Show the command that writes the page again, its files, and how the estimate was made (`facts`)."""
    files = [str(one["file"]) for one in found.sources]
    hashes = [(name, file_sha256(name) or "not there any more") for name in files[:_ROWS]]
    facts = [("whyprompt", __version__), ("Python", platform.python_version()), *facts]
    return [
        Text("This command writes this page again, from the same files:"),
        Text(command, "verbatim"),
        some("The files", ("file", "SHA-256"), hashes, of=len(files), name="manifest"),
        table("How it was estimated", ("", "value"), [(k, cut(v)) for k, v in facts], name="facts"),
    ]


def report_command(found: ReadTrials, chosen: Mapping[str, str]) -> str:
    """Write the command that makes the page of logs, with all its choices named.

    `chosen` are those of the effect, by their options, "" where there is none.
    """
    arm, by = found.taken.get("arm", ""), found.pairing.by
    every: dict[str, str] = {
        "--arm": "file" if arm == "the file" else arm.rpartition(" (")[0],
        "--scorer": found.scorer,
        # An item that was named, and not what was asked, stands in quotes.
        "--item": by.strip("'") if by.startswith("'") else "",
        **chosen,
    }
    words = ["whyprompt", "report", *(str(one["file"]) for one in found.sources)]
    words += [word for flag, value in every.items() if value for word in (flag, value)]
    return shlex.join([*words, "--out", "report.html"])


def some(
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


def cut(text: str, most: int = CHARS) -> str:
    """Give the beginning of a long text."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
