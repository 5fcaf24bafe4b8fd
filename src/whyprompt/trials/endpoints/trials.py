"""One trial on an endpoint: its requests, and what their replies are worth."""

from __future__ import annotations

import asyncio
import contextlib
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from whyprompt.errors import WhypromptError
from whyprompt.trials.endpoints.asking import Purpose
from whyprompt.trials.endpoints.judges import elsewhere
from whyprompt.trials.endpoints.plan import wanted_of
from whyprompt.trials.endpoints.refusals import FailedError
from whyprompt.trials.endpoints.scoring import Given, ask_score, read_score
from whyprompt.trials.outcomes.score import score_outcomes

if TYPE_CHECKING:
    from whyprompt.trials.endpoints.asking import Prompted
    from whyprompt.trials.endpoints.batch import Collector, Settled
    from whyprompt.trials.endpoints.client import Client
    from whyprompt.trials.endpoints.codec import EndpointCodec
    from whyprompt.trials.endpoints.judges import Bench
    from whyprompt.trials.endpoints.probe import Abilities
    from whyprompt.trials.endpoints.scoring import Found
    from whyprompt.trials.endpoints.wire import Answer, Reply, Request
    from whyprompt.trials.models.scoring import TokenScores
    from whyprompt.trials.plan import Trial, TrialPlan
    from whyprompt.trials.prompts import Prompt

_FILTERED = {"content_filter", "filtered"}


class _Answered(NamedTuple):
    """A trial with what was written in it, and what its outcomes are scored from."""

    trial: Trial
    found: Found | None
    choices: dict[str, TokenScores] | None
    said: Answer | None


class Asker:
    """Asks for the trials of a plan."""

    def __init__(
        self,
        client: Client | Collector | Settled,
        abilities: Abilities,
        codec: EndpointCodec,
        plan: TrialPlan,
        bench: Bench,
    ) -> None:
        self._client = client
        self._bench = bench
        self._asking = abilities.asking
        self._way = abilities.scoring or ""
        self._codec = codec
        self._study = plan.study
        self._wanted = wanted_of(plan.study)
        self._scoring = asyncio.Lock()
        # What was said, in words, of the first request that failed for each reason.
        self.failures: dict[str, str] = {}

    def with_client(self, client: Client | Collector | Settled) -> Asker:
        """Give the same that asks another."""
        other = copy(self)
        other._client = client  # noqa: SLF001 - its own class
        return other

    def without(self, trial: Trial, why: str) -> Trial:
        """Give a trial that has no outcome, and why."""
        return replace(
            trial,
            outcomes=dict.fromkeys(o.name for o in self._study.outcomes),
            error=why,
            prompt_tokens=0 if trial.encoded is None else len(trial.encoded.ids),
        )

    async def ask(self, trial: Trial) -> Trial:
        """Ask for one trial; one without an outcome says why.

        Raises
        ------
        WhypromptError
            If nothing more is to be asked, or, with ``missing: {error: stop}``, if this one failed.
        """
        replies: list[Reply] = []
        try:
            made = await self._asked(trial, replies)
        except FailedError as error:
            policy = self._study.missing
            if policy.error == "stop" and error.reason not in {"overflow", "filtered"}:
                raise WhypromptError(
                    f"{trial.where}: {error.message}", hint="run again: it goes on where it stopped"
                ) from None
            self.failures.setdefault(error.reason, f"{trial.where}: {error.message}")
            made = self.without(trial, error.reason)
        return self._with_costs(made, replies)

    def _with_costs(self, trial: Trial, replies: list[Reply]) -> Trial:
        if not replies:
            return trial
        said = replies[-1].answer
        by = [said.model, said.fingerprint, said.provider]
        return replace(
            trial,
            latency_s=sum(r.latency_s for r in replies),
            started_at=replies[0].sent_at,
            cost=self._client.ledger.cost([r.request_hash for r in replies]),
            answered_by=", ".join(b for b in by if b is not None) or None,
        )

    async def _send(self, request: Request, replies: list[Reply]) -> Answer:
        reply = await self._client.ask(request)
        replies.append(reply)
        return reply.answer

    def _prompted(self, trial: Trial, prompt: Prompt, chain: str | None) -> Prompted:
        if self._asking.api != "chat" or chain is None or trial.prompt.reasoning_first is None:
            return self._codec.prompted(prompt)
        # The chain is the assistant's own; the cue asks for the answer after it.
        first = replace(prompt, text=trial.prompt.reasoning_first)
        cue = next((prompt.text[a:b] for name, a, b in prompt.segments if name == "cue"), "")
        messages = [
            *self._codec.messages(first),
            {"role": "assistant", "content": chain},
            {"role": "user", "content": cue},
        ]
        return self._codec.sent(messages)

    async def gather(self, trial: Trial) -> None:
        """Ask for what a trial needs, and make nothing of it."""
        with contextlib.suppress(FailedError):
            await self._answered(trial, [])

    async def _answered(self, trial: Trial, replies: list[Reply]) -> _Answered:
        """Ask for all that the outcomes read of a trial."""
        settings, wanted = self._study.generation, self._wanted
        key = (trial.item.item_id, trial.arm, trial.rep)
        prompt, encoded, chain = trial.prompt, trial.encoded, None
        if prompt.reasoning_first is not None:
            first = replace(prompt, text=prompt.reasoning_first)
            thought = await self._send(
                self._asking.completion(
                    self._prompted(trial, first, None),
                    Purpose(*key, "chain"),
                    most=settings.max_reasoning_tokens,
                    temperature=trial.temperature,
                    # A stream of its own: the completion after the chain draws from the trial's seed.
                    seed=trial.seed ^ 1,
                ),
                replies,
            )
            chain = thought.text.strip() or "..."
            prompt = prompt.with_chain(chain)
            encoded = self._codec.encode(prompt, where=trial.where, look_ahead=wanted.ending)
            trial = replace(
                trial, reasoning_tokens=thought.completion_tokens, reasoning_finish=thought.finish
            )
        assert encoded is not None
        found: Found | None = None
        if wanted.scores or wanted.ending:
            found = await self._scored(trial, prompt, prompt.answer, "score", replies, ahead=wanted.ending)
        choices: dict[str, TokenScores] | None = None
        if wanted.choices:
            choices = {}
            for n, choice in enumerate(trial.item.choices):
                text = prompt.separator + choice
                one = await self._scored(trial, prompt, text, f"choice {n}", replies, ahead=False)
                choices[choice] = one.scores
        said: Answer | None = None
        if wanted.completion:
            said = await self._send(
                self._asking.completion(
                    self._prompted(trial, prompt, chain),
                    Purpose(*key, "completion"),
                    most=settings.max_new_tokens,
                    temperature=trial.temperature,
                    seed=trial.seed,
                    stop=settings.stop,
                ),
                replies,
            )
        counted = (said or replies[0].answer).prompt_tokens
        trial = replace(
            trial,
            prompt=prompt,
            encoded=encoded,
            prompt_tokens=len(encoded.ids) or counted or 0,
            completion=None if said is None else said.text or said.refusal or "",
            completion_tokens=None if said is None else said.completion_tokens,
            finish=None if said is None else said.finish,
        )
        return _Answered(trial, found, choices, said)

    async def _asked(self, trial: Trial, replies: list[Reply]) -> Trial:
        trial, found, choices, said = await self._answered(trial, replies)
        if said is not None and (why := self._unusable(said)) is not None:
            return self.without(trial, why)
        async with self._scoring:
            # A judge takes its time, and what is on its way is to be received meanwhile.
            values = await asyncio.to_thread(
                score_outcomes,
                [o for o in self._study.outcomes if not elsewhere(o)],
                trial.item,
                None if found is None else found.scores,
                ends=None if found is None else found.ends,
                completion=trial.completion,
                choices=choices,
                where=trial.where,
            )
        return await self._bench.judge(replace(trial, outcomes=values.values, extracted=values.extracted))

    def _unusable(self, said: Answer) -> str | None:
        """Name why a completion is no outcome; None where it is one, be it cut off or a refusal."""
        policy = self._study.missing
        if said.finish in _FILTERED and policy.filtered == "missing":
            return "filtered"
        refused = said.refusal is not None or said.finish == "refusal"
        return "refusal" if refused and policy.refusal == "missing" else None

    async def _scored(
        self, trial: Trial, prompt: Prompt, answer: str, name: str, replies: list[Reply], *, ahead: bool
    ) -> Found:
        encoded = self._codec.encode(prompt, answer=answer, where=f"{trial.where}, {name}")
        chat = self._asking.api == "chat"
        given = Given(
            prompt.text,
            answer.removeprefix(prompt.separator) if chat else answer,
            encoded.ids,
            encoded.answer_ids,
            self._codec.most_tokens(prompt.text + answer),
            tuple(self._codec.messages(prompt)) if chat else (),
        )
        purpose = Purpose(trial.item.item_id, trial.arm, trial.rep, name)
        request = ask_score(self._asking, self._way, given, purpose, ahead=ahead)
        reply = await self._client.ask(request)
        replies.append(reply)
        return read_score(self._way, given, reply, ahead=ahead)
