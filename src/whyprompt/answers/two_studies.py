"""Two studies held against each other: whether their effects differ, and in what the studies do."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from whyprompt._words import counted, format_number, p_words, percent
from whyprompt.effects.checks.rerun import of_effect
from whyprompt.effects.effect import estimate_effect
from whyprompt.effects.headline import of_shares
from whyprompt.effects.measures import stated
from whyprompt.results import Result

if TYPE_CHECKING:
    from whyprompt.answers.external import StudyEffect
    from whyprompt.results import Estimate
    from whyprompt.study import Study

# What two studies share or not without that their effects must differ.
_ASIDE = {"name", "question", "mediation"}


def compare_effects(
    one: StudyEffect, other: StudyEffect, *, names: tuple[str, str], same_items: bool = False
) -> Result:
    """Hold the effect of one study against that of another, on the same outcome.

    Parameters
    ----------
    one, other : StudyEffect
    names : tuple of str
        What they are called.
    same_items : bool
        Whether an item's name means the same item in both, as of the same sources and seed.

    Returns
    -------
    Result
        As `overall` the second study's effect less the first's, and a part each. Where both ran the same
        items under both arms the difference is that of their changes, each item held against itself; else
        the two are taken as independent. Without an overall estimate where the outcomes are not the same,
        or an effect has no error.
    """
    parts = tuple(of_effect(e.main, name) for name, e in zip(names, (one, other), strict=True))
    level = one.main.level
    if one.outcome != other.outcome:
        said = (
            f"They are of different outcomes, {one.outcome!r} and {other.outcome!r}: no difference is given."
        )
        return Result(sentence=said, parts=parts, level=level, axis="effect")
    row, how = _difference(one, other, level, same_items=same_items)
    where = f"in {names[1]!r} than in {names[0]!r}"
    if row is None:
        said = f"Whether the effect on {one.outcome!r} is another {where} is not known: one has no error."
    else:
        scale, unit = (100, " points") if of_shares(one.main) and of_shares(other.main) else (1, "")
        size, low, high = (
            format_number(None if end is None else scale * end)
            for end in (row.estimate, row.ci_low, row.ci_high)
        )
        way = "lower" if size.startswith("-") else "higher"
        word = "they differ" if (row.p_value or 0.0) < 1 - level else "they are not shown to differ"
        inside = f"{percent(level)} interval {low} to {high}{unit}, p {p_words(row.p_value)}"
        apart = f"{size.removeprefix('-')}{unit} {way} {where}"
        said = f"The effect on {one.outcome!r} is {apart} ({inside}): {word}. {how}"
    return Result(sentence=said, overall=row, parts=parts, level=level, axis=f"effect on {one.outcome}")


def _difference(
    one: StudyEffect, other: StudyEffect, level: float, *, same_items: bool
) -> tuple[Estimate | None, str]:
    both = [e.main.items for e in (one, other)]
    if same_items and both[0] is not None and both[1] is not None:
        shared = sorted({*both[0].units} & {*both[1].units})
        if len(shared) > 1:
            return _within_items(one, other, shared, level)
    errors = [e.main.std_error for e in (one, other)]
    if errors[0] is None or errors[1] is None:
        return None, ""
    error = math.hypot(errors[0], errors[1])
    value = other.main.estimate - one.main.estimate
    made = stated("difference", value, error, level=level)
    return made, "They are taken as independent: their items are not the same, or not run under both arms."


def _within_items(
    one: StudyEffect, other: StudyEffect, shared: list[str], level: float
) -> tuple[Estimate | None, str]:
    """Compare the changes of items that both studies ran, each item with itself."""
    rows: dict[str, Any] = {"item": [], "study": [], "change": []}
    for study, e in enumerate((one, other)):
        assert e.main.items is not None
        change = dict(zip(e.main.items.units, e.main.items.changes.tolist(), strict=True))
        for item in shared:
            rows["item"].append(item)
            rows["study"].append(str(study))
            rows["change"].append(change[item])
    found = pd.DataFrame(rows)
    cluster = None
    if "cluster" in one.frame:
        of = dict(zip(one.frame["item_id"].astype(str), one.frame["cluster"].astype(str), strict=True))
        found["cluster"] = [of.get(item, item) for item in found["item"]]
        cluster = "cluster" if found["cluster"].nunique() < len(shared) else None
    made = estimate_effect(
        found,
        treatment="study",
        outcome="change",
        treated="1",
        control="0",
        design="paired",
        unit="item",
        cluster=cluster,
        level=level,
    )
    if made.ci_low is None:
        return None, ""
    how = f"Each of {counted(len(shared), 'item')} that both ran is compared with itself."
    return of_effect(made, "difference"), how


def study_differences(one: Study, other: Study) -> list[tuple[str, str, str]]:
    """List the settings in which two studies differ, as text: key, of the first, of the second."""
    plans = [study.model_dump(mode="json", exclude_defaults=True) for study in (one, other)]
    keys = [key for key in dict.fromkeys([*plans[0], *plans[1]]) if key not in _ASIDE]
    return [
        (key, *(_written(plan.get(key)) for plan in plans))  # type: ignore[misc]
        for key in keys
        if plans[0].get(key) != plans[1].get(key)
    ]


def _written(value: Any) -> str:  # noqa: ANN401 - what a study file holds
    return "the default" if value is None else json.dumps(value, ensure_ascii=False)
