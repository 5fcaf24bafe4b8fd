"""What is spent, what is reserved for requests on their way, and what may not be passed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from whyprompt._words import counted, format_number
from whyprompt.errors import WhypromptError
from whyprompt.trials.endpoints.usage import least_tokens, too_few

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt._endpoint_settings import EndpointSettings
    from whyprompt.trials.endpoints.ledger import Spent
    from whyprompt.trials.endpoints.wire import Answer, Request


class OutOfBudgetError(WhypromptError):
    """The next request could pass the budget."""


class Purse:
    """A budget of money and tokens.

    Before a request goes, what it can cost at most is reserved: what is spent, what was perhaps spent (no
    reply came), and what is reserved never exceed the budget together.
    """

    def __init__(self, settings: EndpointSettings, spent: Spent) -> None:
        self._price = settings.price
        self._budget = settings.budget
        self.recount(spent)
        self._reserved: dict[str, tuple[float, int]] = {}
        self._changed = asyncio.Condition()
        # Until the probe has seen that usage is counted right, each reply is charged at its most.
        self.trusts_usage = False
        # Tokens of prompts and completions beyond what was allowed: held back for every further one.
        self._beyond = (0, 0)
        self._silent = 0
        self._caught = ""

    @property
    def limited(self) -> bool:
        """Whether there is a budget."""
        return self._budget.money is not None or self._budget.tokens is not None

    @property
    def currency(self) -> str:
        """Of the price."""
        return "" if self._price is None else self._price.currency

    def price(self, prompt: int, completion: int, cached: int = 0, *, batch: bool = False) -> float | None:
        """Price some tokens, sent alone or in a batch; None where no price is known."""
        if (price := self._price) is None:
            return None
        cached_price = price.input if price.cached_input is None else price.cached_input
        total = (prompt - cached) * price.input + cached * cached_price + completion * price.output
        share = 1.0 if price.batch is None or not batch else price.batch
        return share * total / price.per

    def most(self, request: Request, *, batch: bool = False) -> tuple[float, int]:
        """Give what a request costs at most: money and tokens."""
        prompt, completion = request.prompt_tokens + self._beyond[0], request.most_tokens + self._beyond[1]
        return self.price(prompt, completion, batch=batch) or 0.0, prompt + completion

    def charge(
        self, request: Request, answer: Answer, written: int = 0, *, batch: bool = False
    ) -> tuple[float | None, int]:
        """Give what a reply cost, once for each: by its usage, by what it is at least, or at its most.

        Parameters
        ----------
        request : Request
        answer : Answer
        written : int
            Tokens of its text by the server's own tokenizer, where that was asked.
        batch : bool
            Whether it came in a batch.
        """
        said = answer.prompt_tokens, answer.completion_tokens
        least, at_least = least_tokens(request, answer)
        prompt, completion = max(said[0] or 0, least), max(said[1] or 0, at_least, written)
        # No prompt has no tokens, and no text: a server that begins to say so counts nothing.
        told = bool(said[0]) and said[1] is not None and (said[1] > 0 or not answer.text)
        if self.trusts_usage:
            self._silent += not told
            self._doubt(told, said, (prompt, completion))
        money = self.price(prompt, completion, min(answer.cached_tokens or 0, prompt), batch=batch)
        tokens = prompt + completion
        if not self.trusts_usage or not told:
            most = self.most(request, batch=batch)
            money, tokens = None if money is None else max(money, most[0]), max(tokens, most[1])
        over = prompt - request.prompt_tokens, completion - request.most_tokens
        self._beyond = max(self._beyond[0], over[0]), max(self._beyond[1], over[1])
        return money, tokens

    def _doubt(self, told: bool, said: tuple[int | None, int | None], there: tuple[int, int]) -> None:  # noqa: FBT001
        """Believe no usage any more once one is less than what is there."""
        for name, few, many in zip(("prompt", "completion"), said, there, strict=True):
            if told and few is not None and too_few(few, many):
                self._caught = f"{counted(few, 'token')} of a {name} that has {many} or more"
                self.trusts_usage = False

    def doubts(self) -> list[str]:
        """Say what in this run's usage was not believed."""
        lines = []
        if self._silent:
            replies = counted(self._silent, "reply says", "replies say")
            lines.append(f"{replies} nothing of what was used: charged at the most that it can be")
        if self._caught:
            lines.append(
                f"usage is counted wrong ({self._caught}): from then on every reply was charged at its most"
            )
        if any(self._beyond):
            lines.append(
                f"a reply used {counted(sum(self._beyond), 'token')} beyond the most that was asked for: from"
                " then on as much more was set aside for each; what was on its way may have passed a budget"
            )
        return lines

    def _fits(self, money: float, tokens: int) -> bool:
        held = [sum(column) for column in zip(*self._reserved.values(), strict=True)] or [0.0, 0]
        limits = (self._budget.money, self._budget.tokens)
        wanted = (self.money + held[0] + money, self.tokens + held[1] + tokens)
        # Sums of prices are rounded: a budget that is met exactly is not passed.
        return all(
            limit is None or total <= limit * (1 + 1e-12) for limit, total in zip(limits, wanted, strict=True)
        )

    async def reserve(self, request: Request) -> None:
        """Hold back what a request costs at most; wait for others where only their reserve is in the way."""
        money, tokens = self.most(request)
        async with self._changed:
            while not self._fits(money, tokens):
                if not self._reserved:
                    raise OutOfBudgetError(
                        f"the budget is used up: {self.said()}, and the next request may cost"
                        f" {counted(tokens, 'token')}"
                        + (f" or {format_number(money)} {self.currency}" if self._price else ""),
                        hint="raise model.budget and run again: it goes on",
                    )
                await self._changed.wait()
            self._reserved[request.hash] = money, tokens

    def affordable(self, requests: Sequence[Request]) -> list[Request]:
        """Give those requests, from the first on, that fit the budget together as a batch."""
        fitting, money, tokens = [], 0.0, 0
        for request in requests:
            more = self.most(request, batch=True)
            money, tokens = money + more[0], tokens + more[1]
            if not self._fits(money, tokens):
                break
            fitting.append(request)
        return fitting

    def recount(self, spent: Spent) -> None:
        """Take what is spent from the ledger: of a batch nothing is held here."""
        self.money = spent.money + spent.perhaps_money
        self.tokens = spent.tokens + spent.perhaps_tokens

    async def settle(self, request: Request, money: float, tokens: int) -> None:
        """Count what a request has cost, and give back what was held for it."""
        async with self._changed:
            self._reserved.pop(request.hash, None)
            self.money += money
            self.tokens += tokens
            self._changed.notify_all()

    def said(self) -> str:
        """Say what is spent."""
        money = f"{format_number(self.money)} {self.currency}, " if self._price is not None else ""
        return f"{money}{counted(self.tokens, 'token')}"
