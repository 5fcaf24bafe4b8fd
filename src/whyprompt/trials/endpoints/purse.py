"""What is spent, what is reserved for requests on their way, and what may not be passed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from whyprompt._words import counted, format_number
from whyprompt.errors import WhypromptError

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

    @property
    def currency(self) -> str:
        """Of the price."""
        return "" if self._price is None else self._price.currency

    def price(self, prompt: int, completion: int, cached: int = 0) -> float | None:
        """Price some tokens; None where no price is known."""
        if (price := self._price) is None:
            return None
        cached_price = price.input if price.cached_input is None else price.cached_input
        total = (prompt - cached) * price.input + cached * cached_price + completion * price.output
        return total / price.per

    def most(self, request: Request) -> tuple[float, int]:
        """Give what a request costs at most: money and tokens."""
        money = self.price(request.prompt_tokens, request.most_tokens) or 0.0
        return money, request.prompt_tokens + request.most_tokens

    def charge(self, request: Request, answer: Answer) -> tuple[float | None, int]:
        """Give what a reply cost, by its usage where that is to be trusted, else at its most."""
        prompt, completion = answer.prompt_tokens, answer.completion_tokens
        # No prompt has no tokens, and no text: a server that begins to say so counts nothing.
        told = bool(prompt) and completion is not None and (completion > 0 or not answer.text)
        if not self.trusts_usage or not told or prompt is None or completion is None:
            money, tokens = self.most(request)
            return (None if self._price is None else money), tokens
        return self.price(prompt, completion, min(answer.cached_tokens or 0, prompt)), prompt + completion

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
        """Give those requests, from the first on, that fit the budget together."""
        fitting, money, tokens = [], 0.0, 0
        for request in requests:
            more = self.most(request)
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
