"""What the table of logs says beside its trials: which field became which column, and what ended how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whyprompt.trials.logs.arms import FILE
from whyprompt.trials.logs.table import TAKEN

if TYPE_CHECKING:
    import pandas as pd

    from whyprompt.trials.logs.arms import Arms
    from whyprompt.trials.logs.gather import Gathered
    from whyprompt.trials.logs.result import ReadTrials

# Ends of a completion that are the model's own, as tools call them.
_ENDS = ("stop", "end_turn", "eos", "endoftext", "eos_token", "stop_sequence", "tool_calls", "completed", "")


def cut_short(frame: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Count by arm how completions ended that did not end by themselves."""
    if "stop_reason" not in frame:
        return {}
    ended = frame["stop_reason"]
    return by_arm(frame[ended.notna() & ~ended.str.lower().isin(_ENDS)], "stop_reason")


def by_arm(rows: pd.DataFrame, column: str) -> dict[str, dict[str, int]]:
    """Count the values of a column by arm."""
    return {
        str(arm): {str(why): int(n) for why, n in some[column].value_counts().items()}
        for arm, some in rows.groupby("arm", sort=False)
    }


def taken_for(g: Gathered, found: ReadTrials, arms: Arms, by: str) -> dict[str, str]:
    """Say which field of the logs each column is."""
    used = {str(one["file"]) for one in found.sources if one["used"]}
    of: dict[str, dict[str, None]] = {}
    for log in g.logs:
        for name, field in log.fields.items() if str(log.path) in used else ():
            of.setdefault(name, {})[field] = None
    fields = {name: " or ".join(some) for name, some in of.items()}
    model = [*found.differs.get("model", {}), *found.shared.get("model", {})]
    scores = f" ({fields['scores']})" if "scores" in fields else ""
    content = ", ".join(fields[name] for name in ("question", "choices", "target") if name in fields)
    own = fields.get("item", "its own name")
    named = {
        "item_id": {
            "content": f"what was asked ({content or 'question'}), called by {own} where that is one item's",
            "question": f"the question ({fields.get('question', 'question')})",
            "id": own,
        }.get(by, by),
        "arm": "the file" if arms.path == FILE else f"{arms.path} ({arms.role})",
        "rep": fields.get("rep", "the order in the log"),
        found.outcome: f"scorer {found.scorer!r}{scores}",
        **dict.fromkeys(("question_chars", "question_words", "numbers"), "counted in the question"),
        "model": ", ".join(model[:3]),
        "log": "the file",
        "error": fields.get("error", "a score that is missing"),
    }
    covariates = fields.get("covariates", "a field of the item")
    return {c: named.get(c) or fields.get(c) or _by_default(c, covariates) for c in found.frame.columns}


def _by_default(column: str, covariates: str) -> str:
    return "the logs' own" if column in TAKEN else f"covariate ({covariates})"
