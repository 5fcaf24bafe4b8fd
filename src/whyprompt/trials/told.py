"""What must be said of answers that a model wrote, or was given no room to write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt._words import counted, listed
from whyprompt.effects.checks.agreement import agreement
from whyprompt.errors import DataError, EstimationError
from whyprompt.study import ChainOfThoughtArm
from whyprompt.trials.endpoints.plan import OVERFLOW, without_overflow
from whyprompt.trials.outcomes.judge import UNREAD
from whyprompt.trials.store import EXTRACTED

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from whyprompt.study import Study

# A study says what is made of these: they stay without an outcome, however often it is run.
_PROVIDED_FOR = (OVERFLOW, "filtered", "refusal")


def asked_only(study: Study, arms: Iterable[str] | None = None) -> list[str]:
    """Say which arms ask for reasoning, and have the answer scored before the model can write any.

    Parameters
    ----------
    study : Study
    arms : iterable of str, optional
        All by default.

    Returns
    -------
    list of str
        A sentence each.
    """
    if getattr(study.model, "endpoint", None) is not None:
        # What is behind an endpoint writes its own turn.
        return []
    return [
        f"Arm {name!r} asks the model to reason and lets it write nothing before its answer is scored: what"
        " it shows is the effect of being asked, not of reasoning (reasoning: generated lets the model think)"
        for name, arm in study.arms.items()
        if isinstance(arm, ChainOfThoughtArm)
        and arm.reasoning == "asked_only"
        and (arms is None or name in arms)
    ]


def told(study: Study, frame: pd.DataFrame) -> list[str]:
    """Give all that is to be said of a study's answers, a line each."""
    return [*asked_only(study), *_missing(study, frame), *lacking(study, frame), *judged(study, frame)]


def unanswered(study: Study, frame: pd.DataFrame) -> dict[str, int]:
    """Count by reason the trials without an outcome, but for those that the study's `missing` provides for.

    Parameters
    ----------
    study : Study
    frame : pandas.DataFrame
        Its trial table.

    Returns
    -------
    dict
        The most frequent reason first; empty where every trial has what it is to have.
    """
    if "error" not in frame.columns:
        return {}
    why = without_overflow(study, frame)["error"].dropna()
    return {str(reason): int(n) for reason, n in why[~why.isin(_PROVIDED_FOR)].value_counts().items()}


def _missing(study: Study, frame: pd.DataFrame) -> list[str]:
    """Count by arm the trials without an outcome, and why: items beyond the context are told before."""
    if "error" not in frame.columns:
        return []
    left = frame[frame["error"] != OVERFLOW]
    if not left["error"].notna().any():
        return []
    counts = []
    for k, arm in enumerate(study.arms):
        rows = left[left["arm"] == arm]
        why = rows["error"].value_counts()
        reasons = ", ".join(f"{reason} {n}" for reason, n in why.items())
        of = f"{int(why.sum())} of {counted(len(rows), 'trial') if not k else len(rows)} of arm {arm!r}"
        counts.append(f"{of} ({reasons})" if reasons else of)
    return [f"without an outcome are {listed(counts)}: the next run asks again for what got no reply"]


def lacking(
    study: Study, frame: pd.DataFrame, *, arms: Iterable[str] | None = None, outcome: str | None = None
) -> list[str]:
    """Count by arm the completions of the wrong format, and the texts that were cut off by their length.

    Parameters
    ----------
    study : Study
    frame : pandas.DataFrame
        Its trial table.
    arms : iterable of str, optional
        All by default.
    outcome : str, optional
        All by default.

    Returns
    -------
    list of str
        A line for each outcome and each limit of which an arm has any.
    """
    names = [a for a in (study.arms if arms is None else arms) if (frame["arm"] == a).any()]
    said = []
    for one in study.outcomes:
        column = f"{one.name}{EXTRACTED}"
        if {column, one.name} <= {*frame.columns} and outcome in {None, one.name}:
            # A trial that has no outcome at all is missing, which is told elsewhere.
            there = frame[one.name].notna()
            said += _counted(
                {a: frame.loc[there & (frame["arm"] == a), column].isna() for a in names},
                f"{one.name!r} found no answer in",
                "completions",
                f": the wrong format, worth {one.wrong_format:g} each",
            )
    settings = study.generation
    for column, what, most in (
        ("reasoning_finish", "chains of thought", f"max_reasoning_tokens: {settings.max_reasoning_tokens}"),
        ("finish", "completions", f"max_new_tokens: {settings.max_new_tokens}"),
    ):
        if column in frame.columns:
            cells = {a: frame.loc[frame["arm"] == a, column].dropna() for a in names}
            cut = {a: found == "length" for a, found in cells.items() if len(found)}
            said += _counted(cut, "cut off before their end were", what, f" ({most})")
    return said


def judged(study: Study, frame: pd.DataFrame, *, outcome: str | None = None) -> list[str]:
    """Say of each judge how far it agrees with the labels that it is held against, and what bears on it.

    Parameters
    ----------
    study : Study
    frame : pandas.DataFrame
        Its trial table.
    outcome : str, optional
        All by default.

    Returns
    -------
    list of str
        A line for each thing to be said.
    """
    said = []
    for one in study.outcomes:
        judge = one.judge
        if judge is None or outcome not in {None, one.name} or one.name not in frame.columns:
            continue
        replies = frame[f"{one.name}{EXTRACTED}"].dropna().str.split(", ").explode()
        if unread := int((replies == UNREAD).sum()):
            said.append(f"the judge {one.name!r} gave no verdict in {unread} of {len(replies)} replies")
        if judge.model is not None and _named(judge.model) == _named(study.model):
            said.append(
                f"the judge {one.name!r} is the model that is judged, and models favour their own words"
            )
        if judge.labels is None:
            said.append(
                f"nothing says how far the judge {one.name!r} is right: name labels, or check some by hand"
            )
            continue
        # Of several verdicts on a completion the worth that is nearest to their mean.
        worth = np.array(sorted(set(judge.verdicts.values())))
        table = frame[frame[one.name].notna()]
        nearest = worth[np.abs(table[[one.name]].to_numpy(float) - worth).argmin(axis=1)]
        table = table.assign(**{one.name: nearest})
        try:
            found = agreement(table, one.name, judge.labels, cluster="item_id")
        except (DataError, EstimationError) as error:
            said.append(f"the judge {one.name!r} cannot be held against its labels: {error.message}")
        else:
            said.append(f"the judge against its labels: {found.sentence.rstrip('.')}")
    return said


def _named(model: object) -> tuple[str | None, str]:
    """Say which model settings are of: where it is, and its name."""
    return getattr(model, "endpoint", None), getattr(model, "name", str(model))


def _counted(found: dict[str, pd.Series], begin: str, what: str, end: str) -> list[str]:
    if not any(one.any() for one in found.values()):
        return []
    counts = [
        f"{int(one.sum())} of {len(one)}{f' {what}' * (not k)} of arm {arm!r}"
        for k, (arm, one) in enumerate(found.items())
    ]
    return [f"{begin} {listed(counts)}{end}"]
