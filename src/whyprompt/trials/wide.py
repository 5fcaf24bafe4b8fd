"""A study's trials side by side: a row an item, with what was asked, what is right and what each arm gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from whyprompt.trials.items.item import Item


def side_by_side(
    frame: pd.DataFrame, items: Sequence[Item], *, arms: Sequence[str], outcomes: Sequence[str]
) -> pd.DataFrame:
    """Lay the trials of each item out in one row (where it was repeated, one a repetition).

    Parameters
    ----------
    frame : pandas.DataFrame
        Of `load_trials`.
    items : sequence of Item
        The study's.
    arms, outcomes : sequence of str
        In the order of their columns.

    Returns
    -------
    pandas.DataFrame
        ``item_id``, ``rep`` where there are several, ``task_type``, ``question``, ``answer`` (the right one),
        then for each outcome, for what was extracted, for the completion and for the prompt a column an arm,
        such as ``few_shot.exact_match``; empty where an item was not run under an arm.

    Examples
    --------
    >>> import pandas as pd
    >>> from whyprompt.trials.items.item import Item
    >>> item = Item(item_id="a", question="1+1?", answer="2", task_type="sums")
    >>> rows = pd.DataFrame({"arm": ["x", "y"], "hit": [0.0, 1.0]})
    >>> rows = rows.assign(item_id="a", rep=0, task_type="sums")
    >>> side_by_side(rows, [item], arms=["x", "y"], outcomes=["hit"]).to_dict("records")
    [{'item_id': 'a', 'task_type': 'sums', 'question': '1+1?', 'answer': '2', 'x.hit': 0.0, 'y.hit': 1.0}]
    """
    own = {item.item_id: item for item in items}
    keys = ["item_id", "rep"]
    out = frame[[*keys, "task_type"]].drop_duplicates(keys)
    out = out.assign(
        question=[own[i].question for i in out["item_id"]], answer=[own[i].answer for i in out["item_id"]]
    )
    extracted = [name for name in frame.columns if name.endswith("_extracted")]
    shown = [name for name in (*outcomes, *extracted, "completion", "prompt") if name in frame.columns]
    for name in shown:
        for arm in arms:
            column = frame.loc[frame["arm"] == arm, [*keys, name]].rename(columns={name: f"{arm}.{name}"})
            out = out.merge(column, on=keys, how="left")
    return out if len(set(frame["rep"])) > 1 else out.drop(columns="rep")
