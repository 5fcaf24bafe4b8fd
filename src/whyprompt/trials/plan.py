"""From a study to the trials it needs, rendered, tokenised and checked before anything runs."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from whyprompt.study import TemperatureRange
from whyprompt.trials.models.packing import Pack, common_prefix, plan_packs
from whyprompt.trials.outcomes.score import any_reads
from whyprompt.trials.prompts import ChatRenderer, Prompt, render, trial_seed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.study import Study
    from whyprompt.trials.items.item import Item, ItemPool
    from whyprompt.trials.models.local import Encoded


# A unit is at most so many trials, or, where that is more, the study's share of them over so many units: ten
# for each of 64 workers, who then wait for the last one for a tenth of their time at most.
_UNIT_TRIALS, _UNITS = 16, 640

# Part of every fingerprint: raised when the same study would give other trials.
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial: as it is planned, and what it gave once it has run."""

    item: Item
    arm: str
    rep: int
    temperature: float
    seed: int  # of its sampling
    prompt: Prompt
    encoded: Encoded | None  # None while the model's own chain, which comes first, is not made
    unit: int = 0
    completion: str | None = None
    completion_tokens: int | None = None
    finish: str | None = None  # of the completion: "stop" or "length"
    reasoning_tokens: int | None = None  # of the model's own chain
    reasoning_finish: str | None = None
    outcomes: Mapping[str, float | None] = field(default_factory=dict)
    extracted: Mapping[str, str | None] = field(default_factory=dict)  # what outcomes took for the answer
    latency_s: float = 0.0
    started_at: str = ""
    # Where an endpoint counts tokens, is paid, and may give nothing.
    prompt_tokens: int | None = None
    cost: float | None = None
    error: str | None = None
    answered_by: str | None = None  # model, fingerprint and provider, as the endpoint reports them

    @property
    def key(self) -> tuple[str, str, int]:
        """Item, arm and repetition."""
        return self.item.item_id, self.arm, self.rep

    @property
    def where(self) -> str:
        """Names the trial in messages."""
        return f"arm {self.arm!r}, item {self.item.item_id!r}"


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """Everything a study needs to run.

    A unit is what is computed together and written in one transaction: packs whose members are indices into
    `trials`. Units depend on the study alone, never on what is in a store, so an interrupted run computes the
    same numbers as an undisturbed one. Workers may be given parts of it, which give what it gives
    (:mod:`whyprompt.trials.models.parts`).
    """

    study: Study
    pool: ItemPool
    trials: tuple[Trial, ...]
    units: tuple[tuple[Pack, ...], ...]
    roots: Mapping[str, tuple[int, ...]]  # for each arm, the tokens that all its prompts begin with
    fingerprint: str

    @property
    def spec(self) -> dict[str, object]:
        """What decides the trials: the study's part, and the digest of its items."""
        return _spec(self.study, self.pool)


def _spec(study: Study, pool: ItemPool) -> dict[str, object]:
    return {**study.trial_spec(), "data": pool.digest, "format": _FORMAT}


def study_fingerprint(study: Study, pool: ItemPool) -> str:
    """Hash what decides a study's trials: its items' content, arms, outcomes, seeds."""
    spec = _spec(study, pool)
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


class Codec(ChatRenderer, Protocol):
    """What a plan needs of a tokenizer, or of whatever stands for one."""

    def tokens(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        """Tokenise a text."""

    def encode(
        self,
        prompt: Prompt,
        *,
        answer: str | None = None,
        room: int = 0,
        where: str = "",
        look_ahead: bool = False,
    ) -> Encoded:
        """Tokenise a prompt and an answer as one text."""


def make_plan(study: Study, pool: ItemPool, codec: Codec, *, budget: int | None) -> TrialPlan:
    """Render and tokenise every trial, and decide what is computed together: ``budget`` tokens at once.

    Without a budget nothing is: an endpoint is asked for one trial after the other.

    The pool is that of :func:`whyprompt.trials.check.runnable_items`. Raises `InputError` for whatever would
    go wrong later, where it can be known now: a template that fails on an item, an answer that merges with
    its cue, a prompt longer than the context.
    """
    reads, ahead = any_reads(study.outcomes, "completion"), any_reads(study.outcomes, "ending")
    trials: list[Trial] = []
    units: list[tuple[Pack, ...]] = []
    most = max(_UNIT_TRIALS, study.n_trials(len(pool.items)) // _UNITS)
    roots: dict[str, tuple[int, ...]] = {}
    for name, arm in study.arms.items():
        first = len(trials)
        for rep in range(study.reps):
            for item in pool.items:
                if study.design == "randomized" and name != _drawn_arm(study, item, rep):
                    continue
                prompt = render(
                    item, arm, name=name, pool=pool, renderer=codec, rep=rep, seed=study.seeds.shots
                )
                where = f"arm {name!r}, item {item.item_id!r}"
                room = study.generation.max_new_tokens if reads else 0
                if prompt.reasoning_first is None:
                    encoded = codec.encode(prompt, where=where, room=room, look_ahead=ahead)
                else:
                    # The chain is not known yet: the boundary is checked, and room kept for the longest.
                    room += study.generation.max_reasoning_tokens
                    codec.encode(prompt.with_chain("."), where=where, room=room)
                    encoded = None
                trials.append(
                    Trial(
                        item=item,
                        arm=name,
                        rep=rep,
                        temperature=_temperature(study, name, item, rep),
                        seed=trial_seed(study.seeds.sampling, item.item_id, name, rep),
                        prompt=prompt,
                        encoded=encoded,
                    )
                )
        if budget is not None:
            units += _units(study, trials, first, codec, budget, most)
            roots[name] = _beginning([first_tokens(trial, codec) for trial in trials[first:]])
    return TrialPlan(
        study=study,
        pool=pool,
        trials=tuple(trials),
        units=tuple(units),
        roots=roots,
        fingerprint=study_fingerprint(study, pool),
    )


def first_tokens(trial: Trial, codec: Codec) -> tuple[int, ...]:
    """Give the tokens that a model is given first: the prompt, or that for its own chain."""
    if trial.encoded is not None:
        return trial.encoded.ids
    assert trial.prompt.reasoning_first is not None
    return codec.tokens(trial.prompt.reasoning_first, special=not trial.prompt.chat)


def _beginning(texts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    # Sorted: what the first and the last share, all share.
    ends = sorted(map(tuple, texts))
    return ends[0][: common_prefix(ends[0], ends[-1])] if ends else ()


def _drawn_arm(study: Study, item: Item, rep: int) -> str:
    """Draw the one arm of an item, each with the same chance, whatever the item is."""
    rng = random.Random(trial_seed(study.seeds.sampling, "assignment", item.item_id, rep))  # noqa: S311
    return rng.choice(list(study.arms))


def _temperature(study: Study, arm: str, item: Item, rep: int) -> float:
    setting = study.arms[arm].temperature
    if isinstance(setting, TemperatureRange):
        seed = trial_seed(study.seeds.sampling, "temperature", item.item_id, arm, rep)
        return random.Random(seed).uniform(setting.low, setting.high)  # noqa: S311 - a reproducible draw
    return setting


def _units(
    study: Study, trials: list[Trial], first: int, codec: Codec, budget: int, most: int
) -> list[tuple[Pack, ...]]:
    """Group an arm's trials, so many at most: a pack of the scorer, or more where completions are a batch."""
    sequences: list[tuple[int, ...]] = []
    limits: list[int] = []
    chains = False
    for trial in trials[first:]:
        if trial.encoded is None:
            sequences.append(first_tokens(trial, codec))
            limits.append(len(sequences[-1]) - 1)
            chains = True
        else:
            sequences.append(trial.encoded.fed)
            limits.append(len(trial.encoded.ids) - 1)
    packs = [
        replace(pack, members=tuple(first + m for m in pack.members))
        for pack in plan_packs(sequences, limits=limits, budget=budget, most=most)
    ]
    together = chains or any_reads(study.outcomes, "completion")
    units: list[tuple[Pack, ...]] = []
    for pack in packs:
        if together and units and sum(len(p.members) for p in (*units[-1], pack)) <= most:
            units[-1] = (*units[-1], pack)
        else:
            units.append((pack,))
    return units
