"""Items whose outcomes rise and fall between two arms of logs, with what was asked and what came back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import format_number
from whyprompt.trials.logs.again import trials_again

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import pandas as pd

    from whyprompt.effects.pairs import PairedItems
    from whyprompt.effects.result import EffectResult
    from whyprompt.trials.logs.result import ReadTrials
    from whyprompt.trials.readers.record import LoggedTrial

    Changed = Mapping[str, Sequence[Mapping[str, Any]]]

# Of a kind, on a screen.
_ON_SCREEN = 20


def changed_items(
    found: ReadTrials, items: PairedItems, *, treated: str, control: str, texts: bool | int = True
) -> Changed:
    """List ``gains`` and ``regressions``, the largest first, with the texts of one trial of each arm.

    Each has ``item_id``, its mean outcomes ``control`` and ``treated``, what was asked (``question``, else
    the prompt that was sent; ``target``), and ``prompt_control``, ``prompt_treated``, ``completion_control``
    and ``completion_treated``: of several trials those that differ most in the direction of the change. A
    text that no log has is None. Texts are read from the logs anew, those of changed items alone; with a
    number of `texts` so many of each kind have them.
    """
    ways = _ways(items)
    kept = [k for some in ways.values() for k in some[: None if texts is True else int(texts)]]
    shown = _most_apart(found.frame, found.outcome, items, treated, control, kept)
    told = trials_again(found, [row for both in shown.values() for row in both])

    def one(k: int) -> dict[str, Any]:
        row: dict[str, Any] = {
            "item_id": items.units[k],
            "control": float(items.control[k]),
            "treated": float(items.treated[k]),
        }
        if k in shown:
            without, under = (told[place] for place in shown[k])
            row |= {
                "question": _asked(without) or _asked(under),
                "target": without.target or under.target or None,
                "prompt_control": without.prompt or None,
                "prompt_treated": under.prompt or None,
                "completion_control": without.completion,
                "completion_treated": under.completion,
            }
        return row

    return {name: [one(k) for k in some] for name, some in ways.items()}


def changed_trials(frame: pd.DataFrame, effect: EffectResult, *, most: int) -> Changed:
    """List ``gains`` and ``regressions`` of a trial table as `changed_items` does, `most` of each.

    A text is None where the table has no column of it (``question``, ``target``, ``prompt``, ``completion``).
    """
    items = effect.items
    assert items is not None
    ways = _ways(items)
    kept = [k for some in ways.values() for k in some[:most]]
    shown = _most_apart(frame, effect.outcome, items, effect.treated, effect.control, kept)

    def text(row: int, *names: str) -> str | None:
        values = (frame[name].iloc[row] for name in names if name in frame)
        return next((str(v) for v in values if isinstance(v, str) and v), None)

    return {
        name: [
            {
                "item_id": items.units[k],
                "control": float(items.control[k]),
                "treated": float(items.treated[k]),
            }
            | (
                {
                    "question": text(shown[k][0], "question"),
                    "target": text(shown[k][0], "target", "answer"),
                    "prompt_control": text(shown[k][0], "prompt"),
                    "prompt_treated": text(shown[k][1], "prompt"),
                    "completion_control": text(shown[k][0], "completion"),
                    "completion_treated": text(shown[k][1], "completion"),
                }
                if k in shown
                else {}
            )
            for k in some
        ]
        for name, some in ways.items()
    }


def _ways(items: PairedItems) -> dict[str, list[int]]:
    """Give the places of the items that rise and of those that fall, the largest change first."""
    changes = items.changes
    order = np.argsort(-np.abs(changes), kind="stable")
    return {
        "gains": order[changes[order] > 0].tolist(),
        "regressions": order[changes[order] < 0].tolist(),
    }


def _most_apart(
    frame: pd.DataFrame,
    outcome: str,
    items: PairedItems,
    treated: str,
    control: str,
    kept: Collection[int],
) -> dict[int, tuple[int, int]]:
    """Give the rows of each of these changed items, control and treated, that differ most."""
    changes = items.changes
    changed = {items.units[k]: k for k in kept}
    arm, name = frame["arm"].to_numpy(), frame["item_id"].astype(str).to_numpy()
    y = frame[outcome].to_numpy(dtype=float)
    rows: dict[int, tuple[list[int], list[int]]] = {k: ([], []) for k in changed.values()}
    for row in np.flatnonzero(~np.isnan(y) & np.isin(arm, [treated, control])).tolist():
        k = changed.get(name[row])
        if k is not None:
            rows[k][int(arm[row] == treated)].append(row)
    out = {}
    for k, (without, under) in rows.items():
        low, high = (min, max) if changes[k] > 0 else (max, min)
        out[k] = low(without, key=y.__getitem__), high(under, key=y.__getitem__)
    return out


def _asked(trial: LoggedTrial) -> str | None:
    return trial.question or trial.prompt or None


def changed_text(changed: Changed, *, width: int) -> str:
    """Write changed items for a screen, texts cut to its width; after twenty of a kind their number."""
    blocks = []
    for name, rows in changed.items():
        lines = [f"{name.capitalize()} in these trials ({len(rows)}):"]
        for row in rows[:_ON_SCREEN]:
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
        if len(rows) > _ON_SCREEN:
            lines.append(f"  and {len(rows) - _ON_SCREEN} more, in --json")
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
