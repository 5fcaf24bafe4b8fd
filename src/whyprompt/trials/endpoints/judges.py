"""Judges behind endpoints: each with its own client, probe, replies and budget, beside those of the model."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from whyprompt._endpoint_settings import EndpointSettings
from whyprompt._words import counted, format_number
from whyprompt.errors import ModelError, WhypromptError
from whyprompt.trials.endpoints.asking import Purpose
from whyprompt.trials.endpoints.client import connected
from whyprompt.trials.endpoints.codec import EndpointCodec
from whyprompt.trials.endpoints.ledger import Ledger
from whyprompt.trials.endpoints.loop import Loop
from whyprompt.trials.endpoints.probe import doubts, probe
from whyprompt.trials.endpoints.refusals import FailedError
from whyprompt.trials.outcomes.extract import extract
from whyprompt.trials.outcomes.judge import UNREAD, judge_seeds, judge_text, read_verdict, weighed
from whyprompt.trials.outcomes.score import Scored
from whyprompt.trials.prompts import Prompt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from whyprompt._study_outcomes import JudgeSettings, OutcomeSettings
    from whyprompt.results import Check
    from whyprompt.study import Study
    from whyprompt.trials.endpoints.client import Client
    from whyprompt.trials.endpoints.probe import Abilities
    from whyprompt.trials.items.item import Item
    from whyprompt.trials.plan import Trial
    from whyprompt.trials.store import TrialStore


def elsewhere(outcome: OutcomeSettings) -> bool:
    """Say whether an outcome is what a judge behind an endpoint says."""
    return outcome.judge is not None and isinstance(outcome.judge.model, EndpointSettings)


@dataclass(frozen=True)
class _Seat:
    """One judge that can be asked."""

    outcome: OutcomeSettings
    judge: JudgeSettings
    client: Client
    abilities: Abilities
    codec: EndpointCodec
    turns: asyncio.Semaphore
    failures: dict[str, str] = field(default_factory=dict)
    asked: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def prompt(self, item: Item, completion: str) -> Prompt:
        text = judge_text(self.judge, item, completion)
        chat = self.codec.has_chat_template
        asked = self.codec.chat([{"role": "user", "content": text}]) if chat else f"{text}\nVerdict:"
        return Prompt(text=asked, answer="", separator="", segments=(), chat=chat)

    async def reply(self, item: Item, completion: str, rep: int, seed: int) -> str:
        asking = self.abilities.asking
        request = asking.completion(
            self.codec.prompted(self.prompt(item, completion)),
            # Of no arm: what is judged alike is asked, and paid for, once.
            Purpose(item.item_id, "", rep, f"judge {self.outcome.name}"),
            most=self.judge.max_tokens,
            temperature=self.judge.temperature,
            seed=seed,
        )
        # The same completion of two arms at once: the second finds the reply to the first.
        async with self.asked[request.hash], self.turns:
            return (await self.client.ask(request)).answer.text

    async def score(self, trial: Trial, *, stop: bool) -> tuple[Scored, str | None]:
        """Give what the judge's verdicts on a trial are worth; or why there is none."""
        name, item = self.outcome.name, trial.item
        assert trial.completion is not None
        read = extract(self.outcome.steps or (), trial.completion, item, outcome=name, where=trial.where)
        if read is None:
            return Scored({name: self.outcome.wrong_format}, {name: None}), None
        completion = str(read)
        seeds = judge_seeds(self.judge, item, completion, outcome=name)
        try:
            replies = await asyncio.gather(
                *(self.reply(item, completion, k, seed) for k, seed in enumerate(seeds))
            )
        except FailedError as error:
            if stop and error.reason not in {"overflow", "filtered"}:
                raise WhypromptError(
                    f"{trial.where}, the judge {name!r}: {error.message}",
                    hint="run again: it goes on where it stopped",
                ) from None
            self.failures.setdefault(error.reason, f"{trial.where}: {error.message}")
            return _without(name, f"judge {name!r}: {error.reason}")
        found = [read_verdict(reply, self.judge) for reply in replies]
        if set(found) == {UNREAD}:
            return _without(name, f"judge {name!r}: no verdict")
        worth, said = weighed(self.judge, found)
        return Scored({name: worth}, {name: said}), None

    @property
    def checks(self) -> list[Check]:
        """What the probe saw, under the judge's name."""
        return [replace(c, name=f"judge {self.outcome.name!r}, {c.name}") for c in self.abilities.checks]

    def most(self, study: Study, items: Sequence[Item]) -> str:
        """Say what a whole study asks of the judge at most."""
        count = study.n_trials(len(items)) // len(items) * self.judge.reps
        room = study.generation.max_new_tokens
        prompts = sum(self.codec.most_tokens(self.prompt(item, "").text) + room for item in items) * count
        written = count * len(items) * self.judge.max_tokens
        money = self.client.purse.price(prompts, written)
        return (
            f"the judge {self.outcome.name!r} is asked {counted(count * len(items), 'time')} at most:"
            f" {counted(prompts + written, 'token')}{self._money(money)}"
        )

    def spent(self) -> str:
        """Say what the judge was asked and cost, in all runs into this store."""
        spent = self.client.ledger.spent()
        said = (
            f"the judge {self.outcome.name!r}: {counted(self.client.sent, 'request')} sent; in all"
            f" {counted(spent.replies, 'reply', 'replies')} stored, {counted(spent.tokens, 'token')}"
            f"{self._money(spent.money)}"
        )
        if spent.perhaps:
            said += (
                f"; {counted(spent.perhaps, 'request')} perhaps paid for without a reply: at most"
                f" {counted(spent.perhaps_tokens, 'token')}{self._money(spent.perhaps_money)}"
            )
        return said

    def _money(self, money: float | None) -> str:
        if money is None or self.client.settings.price is None:
            return ""
        return f", {format_number(money)} {self.client.purse.currency}"


def _without(name: str, why: str) -> tuple[Scored, str]:
    return Scored({name: float("nan")}, {name: None}), why


@dataclass
class Bench:
    """The judges of a study that are behind endpoints; it may be none."""

    study: Study
    seats: list[_Seat] = field(default_factory=list)

    async def judge(self, trial: Trial) -> Trial:
        """Add what the judges say of a trial to its other outcomes.

        Raises
        ------
        WhypromptError
            If a judge can be asked no more, or, with ``missing: {error: stop}``, if it failed here.
        """
        stop = self.study.missing.error == "stop"
        values, extracted, error = dict(trial.outcomes), dict(trial.extracted), trial.error
        for seat in self.seats:
            scored, why = await seat.score(trial, stop=stop)
            error = error or why
            if why is None:
                values |= scored.values
                extracted |= scored.extracted
            else:
                values[seat.outcome.name] = None
        named = [o.name for o in self.study.outcomes]
        return replace(
            trial,
            outcomes={name: values[name] for name in named if name in values},
            extracted={name: extracted[name] for name in named if name in extracted},
            error=error,
        )

    @property
    def checks(self) -> tuple[Check, ...]:
        """What the probes saw."""
        return tuple(check for seat in self.seats for check in seat.checks)

    def most(self, items: Sequence[Item]) -> list[str]:
        """Say what is asked of each judge at most."""
        return [seat.most(self.study, items) for seat in self.seats]

    def spent(self) -> list[str]:
        """Say what each judge was asked and cost, and what its probe leaves in doubt."""
        lines = []
        for seat in self.seats:
            name = seat.outcome.name
            lines += [f"the probe of the judge {name!r} leaves in doubt: {d}" for d in doubts(seat.abilities)]
            lines += [f"the judge {name!r} has no reply to {said}" for said in seat.failures.values()]
            lines += [f"the judge {name!r}: {d}" for d in seat.client.purse.doubts()]
            lines.append(seat.spent())
        return lines


@asynccontextmanager
async def seated(study: Study, store: TrialStore | None) -> AsyncIterator[Bench]:
    """Open and probe the judges of a study that are behind endpoints.

    Raises
    ------
    ModelError
        If one cannot be asked as the study says.
    """
    async with AsyncExitStack() as stack:
        bench = Bench(study)
        for outcome in filter(elsewhere, study.outcomes):
            judge = outcome.judge
            assert judge is not None
            assert isinstance(judge.model, EndpointSettings)
            ledger = Ledger(store, account=f"judge {outcome.name}")
            client = await stack.enter_async_context(connected(judge.model, ledger))
            abilities = await probe(client, scoring=False)
            if judge.temperature and not abilities.sampling:
                raise ModelError(
                    f"the judge {outcome.name!r} has a temperature, and the probe saw that its endpoint does"
                    " not honour it",
                    hint="drop the temperature, or use another endpoint",
                )
            chat = abilities.asking.api == "chat"
            codec = EndpointCodec(client.look_now, abilities.offers, chat=chat)
            turns = asyncio.Semaphore(judge.model.limits.concurrency)
            bench.seats.append(_Seat(outcome, judge, client, abilities, codec, turns))
        yield bench


@contextmanager
def judging(
    study: Study, store: TrialStore | None
) -> Iterator[tuple[Bench, Callable[[list[Trial]], list[Trial]]]]:
    """Open a study's judges for one who computes, with a function that adds what they say to trials."""
    if not any(map(elsewhere, study.outcomes)):
        yield Bench(study), lambda trials: trials
        return
    stack = AsyncExitStack()
    with Loop() as loop:
        bench = loop.run(lambda: stack.enter_async_context(seated(study, store)))

        async def judged(trials: list[Trial]) -> list[Trial]:
            # All are waited for, since what is on its way is paid for.
            found = await asyncio.gather(*map(bench.judge, trials), return_exceptions=True)
            for one in found:
                if isinstance(one, BaseException):
                    raise one
            return [one for one in found if not isinstance(one, BaseException)]

        try:
            yield bench, lambda trials: loop.run(lambda: judged(trials))
        finally:
            loop.run(stack.aclose)
