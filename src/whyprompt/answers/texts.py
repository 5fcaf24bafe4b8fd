"""How much of an effect goes through the length or the format of the answers, from a paired table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted, did_you_mean
from whyprompt.answers.external import sampling_column
from whyprompt.answers.logs import two_arms
from whyprompt.errors import DataError, EstimationError
from whyprompt.mediation.measured.overlap import share_inside
from whyprompt.mediation.measured.paired import paired_mediation
from whyprompt.mediation.measured.pairs_of_items import mediator_groups
from whyprompt.tables import open_table
from whyprompt.trials.logs.again import every_trial_again
from whyprompt.trials.logs.result import ReadTrials
from whyprompt.trials.outcomes.features import FEATURES, LENGTH, is_feature, measure
from whyprompt.trials.outcomes.score import any_reads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from narwhals.typing import IntoDataFrame

    from whyprompt.answers.external import StudyEffect
    from whyprompt.effects.result import EffectResult
    from whyprompt.results import Result
    from whyprompt.study import Study

FORMAT = ("list", "json", "code")
"""What of an answer's format is measured on a page."""
_OFTEN, _HARDLY = 5, 0.1
# Of many items a page draws fewer samples: their number then says little, and each takes long.
_DRAWS, _FEWEST_DRAWS, _CELLS = 2000, 400, 40_000_000


def text_mediation(
    trials: IntoDataFrame | ReadTrials,
    mediators: str | Sequence[str] | Mapping[str, str | Sequence[str]] = "length",
    *,
    outcome: str | None = None,
    treated: str | None = None,
    control: str | None = None,
    treatment: str = "arm",
    item: str = "item_id",
    text: str = "completion",
    **options: Any,  # noqa: ANN401 - of `paired_mediation`
) -> Result:
    """How much of an arm's effect goes through the text of its answers: "is it just that they are longer?".

    Parameters
    ----------
    trials : data frame or ReadTrials
        Both arms on the same items: of `load_trials`, `read_trials`, or any table.
    mediators : str, sequence of str, or mapping of str to str or sequence of str, default "length"
        Features of the text: "length", which is "words" and "log_words" (of one word more) as one mediator,
        so that a word more may be worth less where there are many (the words alone where an arm writes texts
        of two lengths, which no curve can be seen in); "chars", "lines"; 0/1 "json" (all of it
        is), "list" (two entries or more), "code" (a fence), "refuses", "marker:TEXT" (TEXT is in it, in
        either case); "chain_chars" and "chain_words", of what stands in ``<think>`` tags, else before the
        last "answer is", "Answer:", "####" or box. "tokens" is the table's own count, ``completion_tokens``;
        any other name is a numeric column. In a mapping each name is one mediator made of several.
    outcome : str, optional
        Column; the outcome of logs by default.
    treated, control : str, optional
        The arms; may be left out where there are two and logs say which is the reference.
    treatment, item : str
        Columns of a table with the arm and the item; those of logs have the default's names.
    text : str, default "completion"
        Column of the text. Of logs that were read without texts it is measured as they are read once more.
    **options
        Of `paired_mediation`: ``covariates``, ``cluster``, ``interaction``, ``draws``, ``level``, ...

    Returns
    -------
    Result
        As of `paired_mediation`. Items with a text or an outcome missing under an arm are left out, and
        counted in `warnings` and in the figure ``incomplete``. Of logs the sentence says first what was read.

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
    import narwhals as nw

    read = trials if isinstance(trials, ReadTrials) else None
    if isinstance(trials, ReadTrials):
        treated, control = two_arms(trials, treated, control)
        frame, outcome = trials.frame, outcome or trials.outcome
    else:
        frame = nw.from_native(trials, eager_only=True).to_pandas()
    missing = [n for n, v in (("outcome", outcome), ("treated", treated), ("control", control)) if v is None]
    if missing:
        raise DataError(
            f"a table does not say its {missing[0]}",
            hint="outcome='correct', treated='cot', control='direct' name a column and two of its arms",
        )
    asked = mediator_groups(mediators)
    groups = {
        name: LENGTH if columns == ("length",) and "length" not in frame else columns
        for name, columns in asked.items()
    }
    names = [name for columns in groups.values() for name in columns]
    if read is not None and text == "completion":
        frame = with_features(read, names).frame
    arms = (str(control), str(treated))
    made, lost = measured(
        frame, names, text=text, treatment=treatment, item=item, arms=arms, outcome=str(outcome)
    )
    for name, columns in groups.items():
        if asked[name] == ("length",) != columns and made.groupby(treatment)["words"].nunique().eq(2).any():
            # Of two lengths the logarithm is a straight line.
            groups[name] = LENGTH[:1]
    found = paired_mediation(
        made,
        treatment=treatment,
        mediators=groups,
        outcome=str(outcome),
        item=item,
        treated=str(treated),
        control=str(control),
        **options,
    )
    said = (
        f"{counted(lost, 'item')} with a text or an outcome missing under an arm left out: the effects are "
        "those of the others, and need not be theirs."
    )
    if lost:
        warned = (said, *found.warnings)
        found = replace(found, warnings=warned, sentence=f"{found.sentence} {said}")
    figures = {**found.figures, "incomplete": lost}
    if read is None:
        return replace(found, figures=figures)
    if read["same_prompts"]:
        none = " Both arms were sent the same prompts: this difference is noise, and no effect of a prompt."
        found = replace(found, sentence=found.sentence + none)
    return replace(
        found,
        sentence=f"{read.sentence}\n{found.sentence}",
        warnings=(*read.warnings, *found.warnings),
        figures={**figures, "read": read.sentence},
    )


def answer_texts(
    trials: pd.DataFrame | ReadTrials, effect: EffectResult, *, cluster: str | None = None
) -> tuple[Result | None, str]:
    """Say of an effect within items how much goes through the length of the answers, and their format.

    The format (0/1 list, JSON, fence) is a mediator beside the length where answers of five items or more
    differ in it under both arms, and the items bear it. In place of a result there may be a reason why it
    cannot be said, such as that neither arm's answers are as long as the other's; "" where there are no
    answers, all are of one length, or no item ran under both arms.
    Logs are those of `with_features`. From 20,000 items on fewer than 2,000 samples are drawn, 400 at least.
    """
    frame = trials.frame if isinstance(trials, ReadTrials) else trials
    if effect.items is None or not {"completion", LENGTH[0]} & set(frame):
        return None, ""
    arms = (effect.control, effect.treated)
    try:
        made, _ = measured(
            frame,
            (*LENGTH, *FORMAT),
            text="completion",
            treatment="arm",
            item="item_id",
            arms=arms,
            outcome=effect.outcome,
        )
    except DataError:
        return None, ""
    if why := _apart(made, arms):
        return None, why
    flags = tuple(name for name in FORMAT if _often(made, name))
    length = {"length": "length"}
    for groups in ({**length, "format": flags}, length) if flags else (length,):
        try:
            found = text_mediation(
                trials,
                groups,
                outcome=effect.outcome,
                treated=effect.treated,
                control=effect.control,
                cluster=cluster,
                level=effect.level,
                draws=max(_FEWEST_DRAWS, min(_DRAWS, _CELLS // len(effect.items.units))),
            )
        except DataError:
            return None, ""
        except EstimationError as error:
            why = error.message
        else:
            return found, ""
    return None, why


def study_answers(study: Study, effect: StudyEffect) -> tuple[Result | None, str]:
    """Say it of a study whose outcome reads what the model writes; None and "" of any other."""
    if not any_reads([one for one in study.outcomes if one.name == effect.outcome], "completion"):
        return None, ""
    return answer_texts(effect.frame, effect.main, cluster=sampling_column(effect.frame))


def _apart(frame: pd.DataFrame, arms: tuple[str, str]) -> str:
    """Say that hardly any of either arm's answers are as long as the other's; "" where they are."""
    words = frame.groupby(["arm", "item_id"], sort=False)["words"].mean()
    by_arm = [words.xs(arm, level="arm").to_numpy() for arm in arms]
    inside = (share_inside(by_arm[0], by_arm[1]), share_inside(by_arm[1], by_arm[0]))
    if max(map(float, inside)) >= _HARDLY or not any(map(np.ptp, by_arm)):
        return ""
    spans = " and ".join(
        f"{' to '.join(dict.fromkeys(f'{end:.3g}' for end in (values.min(), values.max())))} under {arm!r}"
        for arm, values in zip(arms, by_arm, strict=True)
    )
    return (
        f"the words of an answer are {spans}, and hardly any of either arm's lie among those of "
        "the other, so that nothing shows what one arm would score with answers as long as the other's"
    )


def _often(frame: pd.DataFrame, name: str) -> bool:
    """Say whether five items or more are not as the others are in a flag, under each arm."""
    of = frame.groupby(["arm", "item_id"], sort=False)[name].mean()
    return all((some != some.mode()[0]).sum() >= _OFTEN for _, some in of.groupby(level=0))


def with_features(found: ReadTrials, names: Sequence[str]) -> ReadTrials:
    """Give logs whose table has these features of the answers; read without texts, they are read again."""
    lacking = [name for name in names if is_feature(name) and name not in found.frame]
    if not lacking or "completion" in found.frame:
        return found
    columns = {name: np.full(len(found.frame), np.nan) for name in lacking}
    for row, trial in every_trial_again(found):
        if trial.completion is not None:
            for name, values in columns.items():
                values[row] = measure([trial.completion], name)[0]
    return replace(found, frame=found.frame.assign(**columns))


def measured(
    frame: pd.DataFrame,
    names: Sequence[str],
    *,
    text: str,
    treatment: str,
    item: str,
    arms: tuple[str, str],
    outcome: str,
) -> tuple[pd.DataFrame, int]:
    """Give the two arms' rows with each mediator as a column of its name, and how many items are incomplete.

    An item of which any row lacks a text, a mediator or an outcome is left out as a whole.
    """
    import pandas as pd

    texts = any(is_feature(name) and name not in frame for name in names)
    need = [item, treatment, outcome, *([text] if texts else [])]
    for column in need:
        if column not in frame:
            raise DataError(
                f"the table has no column {column!r}{did_you_mean(column, frame.columns)}",
                hint=f"it has {', '.join(map(str, list(frame.columns)[:12]))}",
            )
    frame = frame[np.isin(open_table(frame).labels(treatment, role="treatment"), arms)].copy()
    if not len(frame):
        raise DataError(f"the table has no rows of {arms[0]!r} or {arms[1]!r}", hint="name two of its arms")
    there = frame[text].notna() if texts else pd.Series(data=True, index=frame.index)
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
    bad = set(frame.loc[~whole, item])
    kept = frame[~frame[item].isin(bad)]
    if not len(kept):
        raise DataError(
            f"every item lacks a text ({text!r}), a mediator or an outcome ({outcome!r}) under an arm",
            hint="ask for logs with completions, or name the column of the text with text=",
        )
    return kept, len(bad)
