"""Items whose outcomes rise and fall between two arms of logs, with what was asked and what came back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import format_number
from whyprompt.trials.logs.again import trials_again

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.effects.pairs import PairedItems
    from whyprompt.trials.logs.result import ReadTrials
    from whyprompt.trials.readers.record import LoggedTrial

    Changed = Mapping[str, Sequence[Mapping[str, Any]]]


def changed_items(
    found: ReadTrials, items: PairedItems, *, treated: str, control: str, texts: bool = True
) -> Changed:
    """List ``gains`` and ``regressions``, the largest first, with the texts of one trial of each arm.

    Each has ``item_id``, its mean outcomes ``control`` and ``treated``, what was asked (``question``, else
    the prompt that was sent; ``target``) and ``completion_control`` and ``completion_treated``: of several
    trials those that differ most in the direction of the change. A text that no log has is None. Texts are
    read from the logs anew, those of changed items alone.
    """
    order = sorted(np.flatnonzero(items.changes).tolist(), key=lambda k: -abs(items.changes[k]))
    shown = _most_apart(found, items, treated, control) if texts else {}
    told = trials_again(found, [row for both in shown.values() for row in both])
    out: dict[str, list[dict[str, Any]]] = {"gains": [], "regressions": []}
    for k in order:
        one: dict[str, Any] = {
            "item_id": items.units[k],
            "control": float(items.control[k]),
            "treated": float(items.treated[k]),
        }
        if texts:
            without, under = (told[row] for row in shown[k])
            one |= {
                "question": _asked(without) or _asked(under),
                "target": without.target or under.target or None,
                "completion_control": without.completion,
                "completion_treated": under.completion,
            }
        out["gains" if items.changes[k] > 0 else "regressions"].append(one)
    return out


def _most_apart(
    found: ReadTrials, items: PairedItems, treated: str, control: str
) -> dict[int, tuple[int, int]]:
    """Give the rows of each changed item, control and treated, that differ most in its direction."""
    changed = {items.units[k]: k for k in np.flatnonzero(items.changes).tolist()}
    arm, name = found.frame["arm"].to_numpy(), found.frame["item_id"].astype(str).to_numpy()
    y = found.frame[found.outcome].to_numpy(dtype=float)
    rows: dict[int, tuple[list[int], list[int]]] = {k: ([], []) for k in changed.values()}
    for row in np.flatnonzero(~np.isnan(y) & np.isin(arm, [treated, control])).tolist():
        k = changed.get(name[row])
        if k is not None:
            rows[k][int(arm[row] == treated)].append(row)
    out = {}
    for k, (without, under) in rows.items():
        low, high = (min, max) if items.changes[k] > 0 else (max, min)
        out[k] = low(without, key=y.__getitem__), high(under, key=y.__getitem__)
    return out


def _asked(trial: LoggedTrial) -> str | None:
    return trial.question or trial.prompt or None


def changed_text(changed: Changed, *, width: int = 100, most: int = 20) -> str:
    """Write changed items for a screen, texts cut to its width; after `most` of a kind their number."""
    blocks = []
    for name, rows in changed.items():
        lines = [f"{name.capitalize()} in these trials ({len(rows)}):"]
        for row in rows[:most]:
            lines.append(
                f"  {row['item_id']}: {format_number(row['control'])} -> {format_number(row['treated'])}"
            )
            texts = {
                "asked": row.get("question"),
                "target": row.get("target"),
                "before": row.get("completion_control"),
                "after": row.get("completion_treated"),
            }
            lines += [f"    {what}: {_cut(text, width)}" for what, text in texts.items() if text is not None]
        if len(rows) > most:
            lines.append(f"  and {len(rows) - most} more, in --json")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _cut(text: str, width: int) -> str:
    """Put a text on one line, the middle left out where it is longer.

    >>> _cut("What is 12 + 30?  Think.", 16)
    'What is ...hink.'
    """
    line = " ".join(text.split())
    if len(line) <= width:
        return line
    tail = max(0, (width - 3) // 2 - 1)
    return f"{line[: width - 3 - tail]}...{line[len(line) - tail :]}"
