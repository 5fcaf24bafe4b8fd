"""A study's trials as an endpoint is asked for them: in which order, in how many requests, for how much."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from whyprompt._words import counted
from whyprompt.errors import ModelError, PromptError, StudyError
from whyprompt.trials.outcomes.score import any_reads
from whyprompt.trials.prompts import trial_seed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from whyprompt.study import Study
    from whyprompt.trials.endpoints.codec import EndpointCodec
    from whyprompt.trials.endpoints.probe import Abilities
    from whyprompt.trials.plan import Trial, TrialPlan

OVERFLOW = "beyond the context"
# Rough, and said to be, where the server does not tell: three letters of English, or one of Chinese.
_BYTES = 3


class Wanted(NamedTuple):
    """What the outcomes of a study read of each trial."""

    scores: bool
    ending: bool
    choices: bool
    completion: bool


class Taken(NamedTuple):
    """What a plan takes."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    by_arm: Mapping[str, int]


def wanted_of(study: Study) -> Wanted:
    """Say what the outcomes read."""
    reads = [any_reads(study.outcomes, what) for what in ("scores", "ending", "choices", "completion")]
    return Wanted(*reads)


def refuse_unable(study: Study, abilities: Abilities) -> None:
    """Refuse a study that relies on what the endpoint was not seen to do, by name."""
    wanted, way = wanted_of(study), abilities.scoring
    unscored = [
        o.name for o in study.outcomes if any(any_reads([o], w) for w in ("scores", "ending", "choices"))
    ]
    if unscored and way is None:
        seen = "; ".join(f"{c.name}: {c.sentence}" for c in abilities.checks if "scoring" in c.name)
        raise StudyError(
            f"outcome {unscored[0]!r} needs the log-probability of a given answer, which this endpoint"
            " does not give exactly" + (f" ({seen})" if seen else ""),
            hint="use outcomes that read a completion: numeric_match, string_match, choice_match",
        )
    if wanted.ending and way == "top_logprobs":
        raise StudyError(
            "outcome 'exact_match' needs the token after the answer, which top_logprobs does not tell",
            hint="use string_match, which reads a completion",
        )
    warm = [name for name, arm in study.arms.items() if arm.temperature != 0]
    if warm and not abilities.sampling:
        raise ModelError(
            f"arm {warm[0]!r} sets a temperature, and the probe saw that this endpoint does not honour it",
            hint="drop the temperature, or use another endpoint",
        )
    if "question_tokens" in study.covariates and abilities.offers.tokenize is None:
        raise StudyError(
            "the covariate 'question_tokens' needs a server that tokenises, and this one does not",
            hint="leave it out of the study's covariates",
        )


def blocks(plan: TrialPlan) -> list[list[int]]:
    """Give the trials, as indices, in the order in which they are asked for: all arms of an item together.

    The order within a block is drawn by lot. What moves in time (load, caches, a model that is replaced) then
    moves all arms alike.
    """
    order, seed = plan.study.order, plan.study.seeds.sampling
    groups: dict[tuple[object, ...], list[int]] = {}
    for n, trial in enumerate(plan.trials):
        groups.setdefault((trial.item.item_id, trial.rep) if order.blocks == "item" else (), []).append(n)
    found = list(groups.items())
    if order.shuffle:
        for key, members in found:
            rng = random.Random(trial_seed(seed, "order", *map(str, key)))  # noqa: S311 - a reproducible draw
            rng.shuffle(members)
    return [members for _, members in found]


def overflowing(plan: TrialPlan, codec: EndpointCodec, context: int | None) -> dict[int, int]:
    """Give the trials whose prompt and completion do not fit the context, with the tokens they need."""
    if context is None:
        return {}
    over = {}
    for n, trial in enumerate(plan.trials):
        prompt, after, _ = _tokens(trial, plan.study, codec)
        # What is not counted is not refused: the server says so when it is asked.
        if prompt is not None and prompt + after > context:
            over[n] = prompt + after
    return over


def refuse_overflow(plan: TrialPlan, over: Mapping[int, int], context: int | None) -> set[str]:
    """Refuse prompts beyond the context, or give the items that leave all arms because of one."""
    if not over:
        return set()
    if plan.study.missing.overflow == "drop_item":
        return {plan.trials[n].item.item_id for n in over}
    worst = max(over, key=lambda n: over[n])
    arms = ", ".join(sorted({repr(plan.trials[n].arm) for n in over}))
    raise PromptError(
        f"{plan.trials[worst].where}: prompt and completion have {over[worst]} tokens, and the model's"
        f" context is {context}; in all {counted(len(over), 'trial')} of {arms}",
        hint="shorten them, or say missing: {overflow: drop_item}: such items then leave every arm",
    )


def without_overflow(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """Take items from every arm of which a prompt was found too long when it was sent, where a study says so.

    A server that does not tokenise says no sooner than then that a prompt is beyond its context.
    """
    if study.missing.overflow != "drop_item" or "error" not in frame.columns:
        return frame
    left = frame["item_id"].isin(frame.loc[frame["error"] == "overflow", "item_id"])
    if not left.any():
        return frame
    return frame.assign(
        error=frame["error"].mask(left, OVERFLOW),
        **{o.name: frame[o.name].mask(left) for o in study.outcomes if o.name in frame.columns},
    )


def _tokens(trial: Trial, study: Study, codec: EndpointCodec) -> tuple[int | None, int, int]:
    """Give the tokens of a trial's longest prompt, where known, of what follows it, and of a chain in it."""
    settings = study.generation
    chain = settings.max_reasoning_tokens if trial.encoded is None else 0
    prompt = codec.exact_tokens(trial.prompt)
    after = settings.max_new_tokens if wanted_of(study).completion else 0
    answer = trial.encoded.answer_ids if trial.encoded is not None else ()
    return None if prompt is None else prompt + chain, max(after, len(answer) + 1), chain


def taken(plan: TrialPlan, codec: EndpointCodec, numbers: Sequence[int] | None = None) -> Taken:
    """Count the requests and tokens of trials, completions at their longest."""
    wanted, settings = wanted_of(plan.study), plan.study.generation
    requests = prompts = completions = 0
    by_arm = dict.fromkeys(plan.study.arms, 0)
    for n in range(len(plan.trials)) if numbers is None else numbers:
        trial = plan.trials[n]
        known, _, chain = _tokens(trial, plan.study, codec)
        prompt = len(trial.prompt.text.encode()) // _BYTES + chain if known is None else known
        answer = len(trial.encoded.answer_ids) + 1 if trial.encoded is not None else 1
        scored = (wanted.scores or wanted.ending) + wanted.choices * len(trial.item.choices)
        asked = scored + wanted.completion + (chain > 0)
        made = scored * answer + wanted.completion * settings.max_new_tokens + chain
        requests += asked
        prompts += asked * prompt
        completions += made
        by_arm[trial.arm] += asked * prompt + made
    return Taken(requests, prompts, completions, by_arm)
