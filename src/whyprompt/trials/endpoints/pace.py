"""How fast an endpoint is asked: what the study allows, and less where the endpoint says it is too much."""

from __future__ import annotations

import asyncio
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whyprompt._endpoint_settings import LimitSettings

# A rejection halves the rate; each reply raises it by a fiftieth, up to what the study allows.
_SLOWER, _FASTER = 2.0, 1.02


class Pace:
    """One queue for all that is sent.

    Requests start at least a gap apart. A rejection (429) doubles the gap and stops all until the endpoint's
    own Retry-After is over; replies close it again slowly. A client that only waits and then goes on as fast
    as before is rejected again and again.
    """

    def __init__(self, limits: LimitSettings) -> None:
        per_minute = limits.requests_per_minute
        self._least = 60.0 / per_minute if per_minute else 0.0
        self._gap = self._least
        self._rate = (limits.tokens_per_minute or 0.0) / 60.0
        self._tokens_until = 0.0
        self._next = 0.0
        self._paused_until = 0.0
        self._slowed_at = 0.0
        self._replies = 0
        self._begun: float | None = None

    @property
    def gap(self) -> float:
        """Seconds between two requests."""
        return self._gap

    async def turn(self, tokens: int) -> float:
        """Wait until a request of so many tokens may go, and give the moment."""
        now = time.monotonic()
        self._begun = now if self._begun is None else self._begun
        slot = max(now, self._next, self._tokens_until)
        self._next = slot + self._gap
        if self._rate:
            self._tokens_until = max(now, self._tokens_until) + tokens / self._rate
        while (wait := max(slot, self._paused_until) - time.monotonic()) > 0:
            await asyncio.sleep(wait)
            if slot < self._paused_until:
                # All that waited for the end of a pause go one after the other too.
                slot = max(self._paused_until, self._next)
                self._next = slot + self._gap
        return time.monotonic()

    def replied(self) -> None:
        """Go a little faster."""
        self._replies += 1
        self._gap = max(self._least, self._gap / _FASTER)
        if self._gap < 1e-3:
            self._gap = self._least

    def rejected(self, sent: float, wait: float) -> None:
        """Stop for a while, and go at half the rate; once for all that were sent before it was halved."""
        now = time.monotonic()
        self._paused_until = max(self._paused_until, now + wait)
        if sent < self._slowed_at:
            return
        # What was reached so far is the rate that is halved where none was set.
        elapsed = now - (self._begun or now)
        reached = elapsed / max(1, self._replies)
        self._gap = _SLOWER * self._gap if self._gap else max(_SLOWER * min(reached, 30.0), 0.01)
        self._slowed_at = now
        self._next = max(self._next, self._paused_until)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Give the seconds that an endpoint asks to wait; None where it does not say.

    >>> retry_after({"retry-after": "3"}), retry_after({"retry-after-ms": "250"}), retry_after({})
    (3.0, 0.25, None)
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            return max(0.0, float(text) * unit)
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except (ValueError, TypeError):
            pass
    return None
