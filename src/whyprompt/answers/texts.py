"""How much of an effect goes through the length or the format of the answers, from a paired table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted, did_you_mean
from whyprompt.answers.logs import two_arms
from whyprompt.errors import DataError
from whyprompt.mediation.measured.paired import paired_mediation
from whyprompt.mediation.measured.pairs_of_items import mediator_groups
from whyprompt.trials.logs.result import ReadTrials
from whyprompt.trials.outcomes.features import FEATURES, LENGTH, is_feature, measure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from whyprompt.results import Result


def text_mediation(
    trials: pd.DataFrame | ReadTrials,
    mediators: str | Sequence[str] | Mapping[str, str | Sequence[str]] = "length",
    *,
    outcome: str | None = None,
    treated: str | None = None,
    control: str | None = None,
    text: str = "completion",
    **options: Any,  # noqa: ANN401 - of `paired_mediation`
) -> Result:
    """How much of an arm's effect goes through the text of its answers: "is it just that they are longer?".

    Parameters
    ----------
    trials : data frame or ReadTrials
        Both arms on the same items: of `load_trials`, `read_trials`, or any table with their columns
        ``item_id`` and ``arm``.
    mediators : str, sequence of str, or mapping of str to str or sequence of str, default "length"
        Features of the text: "length", which is "words" and "log_words" (of one word more) as one mediator,
        so that a word more may be worth less where there are many; "chars", "lines"; 0/1 "json" (all of it
        is), "list" (two entries or more), "code" (a fence), "refuses", "marker:TEXT" (TEXT is in it, in
        either case); "chain_chars" and "chain_words", of what stands in ``<think>`` tags, else before the
        last "answer is", "Answer:", "####" or box. "tokens" is the table's own count, ``completion_tokens``;
        any other name is a numeric column. In a mapping each name is one mediator made of several.
    outcome : str, optional
        Column; the outcome of logs by default.
    treated, control : str, optional
        The arms; may be left out where there are two and logs say which is the reference.
    text : str, default "completion"
        Column of the text.
    **options
        Of `paired_mediation`: ``covariates``, ``cluster``, ``interaction``, ``draws``, ``level``, ...

    Returns
    -------
    Result
        As of `paired_mediation`. Items with a text or an outcome missing under an arm are left out, and
        counted in `warnings` and in the figure ``incomplete``.

    Raises
    ------
    DataError
        If a column or a feature is not there, or a text is missing in every item.
    EstimationError
        If a mediator is the arm itself, or items are too few.

    See Also
    --------
    paired_mediation : What is estimated, and what is assumed.
    study_mediation : On a local model the chain before the answer is intervened upon.

    Examples
    --------
    >>> import whyprompt as wp
    >>> found = wp.text_mediation(
    ...     wp.load_example("texts"), outcome="f1", treated="sentence", control="brief", draws=200
    ... )
    >>> found["mediators"], found.part("nie").n_used == found["items"]
    (('length',), True)
    """
    if isinstance(trials, ReadTrials):
        treated, control = two_arms(trials, treated, control)
        frame, outcome = trials.frame, outcome or trials.outcome
    else:
        frame = trials
    missing = [n for n, v in (("outcome", outcome), ("treated", treated), ("control", control)) if v is None]
    if missing:
        raise DataError(
            f"a table does not say its {missing[0]}",
            hint="outcome='correct', treated='cot', control='direct' name a column and two of its arms",
        )
    groups = {
        name: LENGTH if columns == ("length",) and "length" not in frame else columns
        for name, columns in mediator_groups(mediators).items()
    }
    names = [name for columns in groups.values() for name in columns]
    made, lost = measured(frame, names, text=text, arms=(str(control), str(treated)), outcome=str(outcome))
    found = paired_mediation(
        made,
        treatment="arm",
        mediators=groups,
        outcome=str(outcome),
        item="item_id",
        treated=str(treated),
        control=str(control),
        **options,
    )
    if not lost:
        return replace(found, figures={**found.figures, "incomplete": 0})
    said = (
        f"{counted(lost, 'item')} with a text or an outcome missing under an arm left out: the effects are "
        "those of the others, and need not be theirs."
    )
    return replace(
        found,
        warnings=(said, *found.warnings),
        sentence=f"{found.sentence} {said}",
        figures={**found.figures, "incomplete": lost},
    )


def measured(
    frame: pd.DataFrame, names: Sequence[str], *, text: str, arms: tuple[str, str], outcome: str
) -> tuple[pd.DataFrame, int]:
    """Give the two arms' rows with each mediator as a column of its name, and how many items are incomplete.

    An item of which any row lacks a text, a mediator or an outcome is left out as a whole.
    """
    import pandas as pd

    frame = pd.DataFrame(frame)
    need = ["item_id", "arm", outcome, *([text] if any(is_feature(name) for name in names) else [])]
    for column in need:
        if column not in frame:
            raise DataError(
                f"the table has no column {column!r}{did_you_mean(column, frame.columns)}",
                hint=f"it has {', '.join(map(str, list(frame.columns)[:12]))}",
            )
    frame = frame[frame["arm"].astype(str).isin(arms)].copy()
    if not len(frame):
        raise DataError(f"the table has no rows of {arms[0]!r} or {arms[1]!r}", hint="name two of its arms")
    there = frame[text].notna() if text in need else pd.Series(data=True, index=frame.index)
    whole = there & frame[outcome].notna()
    for name in names:
        if is_feature(name) and name not in frame:
            values = np.full(len(frame), np.nan)
            values[there] = measure([str(value) for value in frame.loc[there, text]], name)
            frame[name] = values
            continue
        column = "completion_tokens" if name == "tokens" and name not in frame else name
        if column not in frame:
            raise DataError(
                f"{name!r} is neither a column of the table nor a feature of a text"
                f"{did_you_mean(name, [*FEATURES, *map(str, frame.columns)])}",
                hint=f"features are {', '.join(FEATURES)}, marker:TEXT, and tokens where they were counted",
            )
        frame[name] = frame[column]
        whole &= frame[name].notna()
    bad = set(frame.loc[~whole, "item_id"])
    kept = frame[~frame["item_id"].isin(bad)]
    if not len(kept):
        raise DataError(
            f"every item lacks a text ({text!r}), a mediator or an outcome ({outcome!r}) under an arm",
            hint="ask for logs with completions, or name the column of the text with text=",
        )
    return kept, len(bad)
