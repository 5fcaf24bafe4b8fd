"""A judge: another model, or a function of one's own, that says what a completion is worth.

It is shown the question, the gold answer and the completion, and nothing of the arm: not its name, not its
prompt. Its draws depend on what it reads alone, so that the same completion of an item is judged alike
wherever it came from.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import jinja2
import numpy as np
from jinja2 import meta

from whyprompt.errors import StudyError
from whyprompt.trials.models.load import load_model
from whyprompt.trials.models.locate import locate_model
from whyprompt.trials.models.scoring import score
from whyprompt.trials.outcomes.calls import called
from whyprompt.trials.prompts import Prompt, trial_seed
from whyprompt.trials.templates import Sandbox, compiled, filled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt._study_outcomes import JudgeSettings
    from whyprompt.trials.items.item import Item
    from whyprompt.trials.models.local import LocalModel

_VARIABLES = ("question", "answer", "completion", "solution", "choices", "task_type")
UNREAD = "?"
"""Stands for a reply that holds no verdict."""


def check_judge(judge: JudgeSettings, outcome: str) -> None:
    """Refuse a judge that cannot be asked, before anything runs.

    Raises
    ------
    StudyError, ModelError
        Naming the outcome and what is wrong.
    """
    where = f"outcome {outcome!r}: judge.prompt"
    try:
        compiled(judge.prompt)
    except jinja2.TemplateSyntaxError as error:
        raise StudyError(f"{where} is malformed at line {error.lineno}: {error.message}") from None
    used = meta.find_undeclared_variables(Sandbox().parse(judge.prompt))
    unknown = sorted(used - {*_VARIABLES})
    if unknown:
        raise StudyError(
            f"{where} uses {unknown[0]!r}, which a judge is not shown",
            hint=f"it is shown {', '.join(_VARIABLES)}: nothing that tells the arms apart but what they gave",
        )
    if "completion" not in used:
        raise StudyError(f"{where} does not show the completion", hint="write {{ completion }} into it")
    silent = next((v for v in judge.verdicts if not _word(v).search(judge.prompt)), None)
    if silent is not None:
        raise StudyError(f"{where} does not name the verdict {silent!r}: the judge cannot know of it")
    if isinstance(judge.model, str):
        locate_model(judge.model)


def judged(
    judge: JudgeSettings, item: Item, completion: str, *, outcome: str, where: str
) -> tuple[float, str]:
    """Ask a judge, as often as it is to be asked.

    Parameters
    ----------
    judge : JudgeSettings
    item : Item
    completion : str
    outcome, where : str
        Name the outcome and the trial in messages; the judge sees neither.

    Returns
    -------
    (float, str)
        The mean of what its verdicts are worth, and the verdicts; ``?`` for a reply without one.

    Raises
    ------
    StudyError
        If a function fails, or no reply holds a verdict.
    """
    text = judge_text(judge, item, completion)
    if judge.call is not None:
        replies = [called(judge.call, text, outcome=outcome, where=where) for _ in range(judge.reps)]
        found = [read_verdict(reply, judge) for reply in replies]
        if set(found) == {UNREAD}:
            raise StudyError(
                f"outcome {outcome!r}: the judge's reply on {where} holds no verdict:"
                f" {str(replies[0])[:80]!r}",
                hint=f"it is to say one of {', '.join(judge.verdicts)}",
            )
    else:
        assert isinstance(judge.model, str)
        seeds = judge_seeds(judge, item, completion, outcome=outcome)
        found = _verdicts(_model(judge.model), judge, text, seeds, where)
    return weighed(judge, found)


def judge_text(judge: JudgeSettings, item: Item, completion: str) -> str:
    """Give what a judge is shown of a completion."""
    shown = {name: getattr(item, name) for name in _VARIABLES if name != "completion"}
    return filled(compiled(judge.prompt), {**shown, "completion": completion.strip()}).strip()


def judge_seeds(judge: JudgeSettings, item: Item, completion: str, *, outcome: str) -> list[int]:
    """Give the seed of each repetition, by what the judge reads alone."""
    return [trial_seed(0, "judge", outcome, item.item_id, completion, k) for k in range(judge.reps)]


def weighed(judge: JudgeSettings, found: Sequence[str]) -> tuple[float, str]:
    """Give what verdicts are worth in the mean, those that were read, and all of them in words."""
    worth = [judge.verdicts[v] for v in found if v != UNREAD]
    return sum(worth) / len(worth), ", ".join(found)


def _word(verdict: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(verdict)}(?!\w)", re.IGNORECASE)


def read_verdict(reply: object, judge: JudgeSettings) -> str:
    """Give the verdict that stands last in a reply."""
    ends = {v: m.end() for v in judge.verdicts for m in _word(v).finditer(str(reply))}
    # Of two that end together ("correct", "not correct") the longer one is meant.
    return max(ends, key=lambda v: (ends[v], len(v))) if ends else UNREAD


# Judges take turns over the trials: two of them are not loaded anew for each.
@lru_cache(maxsize=4)
def _model(name: str) -> LocalModel:
    return load_model(name)


def _verdicts(lm: LocalModel, judge: JudgeSettings, text: str, seeds: list[int], where: str) -> list[str]:
    """Draw a local model's verdicts from their probabilities after the prompt; the likeliest at 0."""
    chat = lm.codec.has_chat_template
    asked = lm.codec.chat([{"role": "user", "content": text}]) if chat else f"{text}\nVerdict:"
    verdicts = list(judge.verdicts)
    prompt = Prompt(text=asked, answer=verdicts[0], separator="", segments=(), chat=chat)
    gap = "" if chat else " "
    encoded = [lm.codec.encode(prompt, answer=gap + v, where=f"{where}, the judge") for v in verdicts]
    totals = np.array([s.total for s in score(lm, encoded)])
    if judge.temperature == 0:
        return [verdicts[int(totals.argmax())]] * len(seeds)
    weights = np.exp((totals - totals.max()) / judge.temperature)
    return [str(np.random.default_rng(seed).choice(verdicts, p=weights / weights.sum())) for seed in seeds]
