"""What the model itself writes in a trial: its chain of thought, and its answer.

Each is handed on as soon as it is finished, so that it can be stored: a run that is killed then loses those
texts only that were being written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from whyprompt.trials.models.generation import Completion, completions
from whyprompt.trials.outcomes.score import any_reads
from whyprompt.trials.plan import first_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.trials.models.local import LocalModel
    from whyprompt.trials.plan import Trial, TrialPlan

Part = Literal["reasoning", "answer"]
PARTS: tuple[Part, Part] = ("reasoning", "answer")
Key = tuple[str, str, int]


class Text(NamedTuple):
    """A finished text, and how long it took: its share of the time in which others were written too."""

    written: Completion
    seconds: float


Texts = dict[tuple[Key, Part], Text]
"""By a trial's key, and which of its texts it is."""
Keep = Callable[[Key, Part, Text], None]
"""Called with each text when it is finished."""


def write(
    plan: TrialPlan, trials: Mapping[int, Trial], lm: LocalModel, texts: Texts, keep: Keep | None = None
) -> dict[int, Trial]:
    """Let the model write what trials lack: first the chains, then, after them, what outcomes read.

    Parameters
    ----------
    plan : TrialPlan
    trials : mapping of int to Trial
        Of one arm, by their places in the plan.
    lm : LocalModel
    texts : dict
        What is written already; what is written now is added.
    keep : callable, optional
        Called with each text when it is finished.

    Returns
    -------
    dict
        The trials, with their own chains in their prompts and what was written after those.
    """
    settings, outcomes = plan.study.generation, plan.study.outcomes
    own = {n: t for n, t in trials.items() if t.encoded is None}
    asked = {n: first_tokens(t, lm.codec) for n, t in own.items() if (t.key, "reasoning") not in texts}
    _finish(plan, trials, lm, asked, "reasoning", settings.max_reasoning_tokens, (), texts, keep)
    ahead = any_reads(outcomes, "ending")
    ready = dict(trials)
    for n, trial in own.items():
        chain = texts[trial.key, "reasoning"].written
        prompt = trial.prompt.with_chain(chain.text.strip() or "...")
        ready[n] = replace(
            trial,
            prompt=prompt,
            encoded=lm.codec.encode(prompt, where=trial.where, look_ahead=ahead),
            reasoning_tokens=chain.tokens,
            reasoning_finish=chain.finish,
        )
    if not any_reads(outcomes, "completion"):
        return ready
    asked = {n: first_tokens(t, lm.codec) for n, t in ready.items() if (t.key, "answer") not in texts}
    _finish(plan, trials, lm, asked, "answer", settings.max_new_tokens, settings.stop, texts, keep)
    for n, trial in ready.items():
        answer = texts[trial.key, "answer"].written
        ready[n] = replace(
            trial, completion=answer.text, completion_tokens=answer.tokens, finish=answer.finish
        )
    return ready


def _finish(
    plan: TrialPlan,
    trials: Mapping[int, Trial],
    lm: LocalModel,
    asked: Mapping[int, Sequence[int]],
    part: Part,
    most: int,
    stop: Sequence[str],
    texts: Texts,
    keep: Keep | None,
) -> None:
    """Write one text for each of the trials that are asked."""
    numbers = list(asked)
    if not numbers:
        return
    begun = time.perf_counter()
    for place, written in completions(
        lm,
        list(asked.values()),
        max_new_tokens=most,
        stop=stop,
        temperatures=[trials[n].temperature for n in numbers],
        # Streams of their own: the answer after a chain draws from the trial's seed.
        seeds=[trials[n].seed ^ (part == "reasoning") for n in numbers],
        root=plan.roots[trials[numbers[0]].arm],
    ):
        now = time.perf_counter()
        key, text = trials[numbers[place]].key, Text(written, now - begun)
        begun = now
        texts[key, part] = text
        if keep is not None:
            keep(key, part, text)
