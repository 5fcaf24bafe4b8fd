"""One endpoint, asked over HTTP: every reply is on the disk before it is used, and none is paid for twice.

A request whose reply is stored is not sent. What may be paid twice are requests in flight when the process
ends, and replies that broke off on the way: HTTP allows no better. Both are counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from whyprompt._words import counted, first_line
from whyprompt.errors import ModelError, WhypromptError
from whyprompt.trials.endpoints.pace import Pace, retry_after
from whyprompt.trials.endpoints.purse import Purse
from whyprompt.trials.endpoints.refusals import AGAIN, FailedError, Outcome, message_of, refused
from whyprompt.trials.endpoints.wire import Reply, dict_of, kept_headers
from whyprompt.trials.result import now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    import httpx2

    from whyprompt._endpoint_settings import EndpointSettings
    from whyprompt.trials.endpoints.ledger import Ledger
    from whyprompt.trials.endpoints.wire import Answer, Request

_BACKOFF_S, _LONGEST_BACKOFF_S = 0.5, 30.0
# So many requests given up, one after the other and no reply between: the endpoint is gone.
_GIVEN_UP = 10
# The longest that a reply which has come waits for its tokens to be counted.
_COUNTING_S = 5.0
NO_BATCHES = "does the provider have batches? leave batch out: each is then asked alone"


class _Paid(NamedTuple):
    """A reply that is stored, with what it cost."""

    reply: Reply
    cost: float
    tokens: int


class Client:
    """An endpoint that is open.

    Parameters
    ----------
    settings : EndpointSettings
    ledger : Ledger
        Where replies are kept.
    secret : str
        The key; "" for none. It goes into one header and into nothing else.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        ledger: Ledger,
        secret: str,
        http: httpx2.AsyncClient,
        waiting: httpx2.Client,
    ) -> None:
        self.settings = settings
        self.ledger = ledger
        self.purse = Purse(settings, ledger.spent())
        self.pace = Pace(settings.limits)
        self.sent = 0
        self._given_up = 0
        self._secret = secret
        self._http = http
        self._waiting = waiting
        # Set once nothing more is to be sent: what is on its way is still awaited, for it is paid.
        self.stopped: WhypromptError | None = None
        # What the probe found to count a text's tokens with, for nothing.
        self.tokenize: Callable[[str], Awaitable[Sequence[int]]] | None = None
        self._jitter = random.Random()  # noqa: S311 - so that clients do not come back together

    # ------------------------------------------------------------------------------------------ free
    async def look(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Ask what costs nothing: a status, and JSON where it is some. `path` is from the server's root."""
        url = self._url(path)
        for attempt in range(self.settings.limits.attempts):
            if attempt:
                # A server that is loading its model says so.
                await asyncio.sleep(self._backoff(attempt - 1))
            call = self._http.get(url) if body is None else self._http.post(url, json=body)
            reply = await self._looked(call, url)
            if reply.status_code != 503:
                break
        try:
            return reply.status_code, reply.json()
        except ValueError:
            return reply.status_code, None

    def look_now(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Post what costs nothing, and wait for it: while a plan is made nothing else is on its way."""
        import httpx2

        url = self._url(path)
        try:
            response = self._waiting.post(url, json=body)
        except httpx2.HTTPError as error:
            raise self._unreachable(url, error) from None
        if response.status_code != 200:
            raise ModelError(f"{url} answers with {response.status_code}: {self.clean(message_of(response))}")
        try:
            return dict_of(response.json())
        except ValueError:
            raise ModelError(f"{url} answers with no JSON") from None

    async def _looked(self, call: Any, url: str) -> httpx2.Response:  # noqa: ANN401 - an awaitable of httpx2
        import httpx2

        try:
            response: httpx2.Response = await call
        except httpx2.HTTPError as error:
            raise self._unreachable(url, error) from None
        return response

    def _url(self, path: str) -> str:
        base = self.settings.endpoint
        return f"{base}/{path}" if not path.startswith("/") else f"{base.removesuffix('/v1')}{path}"

    def _unreachable(self, url: str, error: Exception) -> ModelError:
        return ModelError(
            f"the endpoint {url} cannot be reached: {self.clean(first_line(error))}",
            hint="is the server running, and the address right?",
        )

    async def call(self, method: str, path: str, **body: Any) -> dict[str, Any]:  # noqa: ANN401 - of httpx2
        """Ask what a batch needs, and give the JSON object that comes back."""
        text = await self.call_text(path, method, **body)
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ModelError(f"{self._url(path)} answers with no JSON object", hint=NO_BATCHES)
        return found

    async def call_text(self, path: str, method: str = "GET", **body: Any) -> str:  # noqa: ANN401 - of httpx2
        """Ask what a batch needs, and give the text that comes back; failures on the way are tried again."""
        url = self._url(path)
        for attempt in range(self.settings.limits.attempts):
            response = await self._looked(self._http.request(method, url, **body), url)
            # What was begun with a POST is not begun again.
            if response.status_code not in {429, *AGAIN} or method == "POST":
                break
            await asyncio.sleep(retry_after(response.headers) or self._backoff(attempt))
        if response.status_code != 200:
            raise ModelError(
                f"{url} answers with {response.status_code}: {self.clean(message_of(response))}",
                hint=NO_BATCHES,
            )
        return str(response.text)

    # ------------------------------------------------------------------------------------------ paid
    async def ask(self, request: Request) -> Reply:
        """Give the reply to a request: the one that is stored, else a new one, stored first.

        Raises
        ------
        FailedError
            If this request gets none.
        WhypromptError
            If no request will: the key is refused, the budget or a quota is used up.
        """
        known = self.ledger.find(key := request.hash)
        if known is not None:
            return known
        before = self.ledger.attempts(key)
        waited, failed, rejected = 0.0, 0, 0
        while True:
            self._go_on()
            await self.purse.reserve(request)
            cost, used = 0.0, 0
            try:
                sent = await self.pace.turn(self.purse.most(request)[1])
                self._go_on()
                reply = await self._tried(request, n=failed + rejected + 1, before=before)
                if isinstance(reply, _Paid):
                    cost, used = reply.cost, reply.tokens
                    return reply.reply
                if reply.perhaps_paid:
                    cost, used = self.purse.most(request)
            finally:
                await self.purse.settle(request, cost, used)
            failed += not reply.too_fast
            rejected += reply.too_fast
            wait = reply.wait if reply.wait is not None else self._backoff(failed + rejected)
            # One that asks for no wait at all is waited for too: the gap between requests grows.
            waited += max(wait, self.pace.gap) if reply.too_fast else wait
            self._refuse_waiting(wait, waited, reply)
            if failed >= self.settings.limits.attempts:
                self._give_up(reply.what)
                raise FailedError(reply.what, f"{counted(failed, 'attempt')} failed, the last: {reply.what}")
            if reply.too_fast:
                self.pace.rejected(sent, wait)
            else:
                await asyncio.sleep(wait)

    async def _tried(self, request: Request, *, n: int, before: int) -> _Paid | Outcome:
        """Send a request once, and write down that it goes, and what comes of it."""
        key, (money, tokens) = request.hash, self.purse.most(request)
        self.ledger.begin(key, before + n, now(), cost=money, tokens=tokens)
        try:
            reply = await self._attempt(request, n)
        except WhypromptError as error:
            self.ledger.fail(key, before + n, error.reason if isinstance(error, FailedError) else "refused")
            raise
        if isinstance(reply, Outcome):
            self.ledger.fail(key, before + n, reply.what)
            return reply
        cost, used = self.purse.charge(request, reply.answer, await self._written(reply.answer))
        self.ledger.keep(request, reply, before + n, cost=cost, tokens=used)
        self.pace.replied()
        self._given_up = 0
        return _Paid(reply, cost or 0.0, used)

    async def _written(self, answer: Answer) -> int:
        """Count a completion by the server's tokenizer, where there is a budget to keep; 0 where not."""
        if self.tokenize is None or not self.purse.limited or not answer.text or answer.tokens:
            return 0
        try:
            return len(await asyncio.wait_for(self.tokenize(answer.text), _COUNTING_S))
        except (ModelError, TimeoutError):
            # The reply is paid for, and is kept whatever the tokenizer does.
            return 0

    def stop(self, error: WhypromptError) -> None:
        """Send nothing more."""
        self.stopped = self.stopped or error

    def _give_up(self, what: str) -> None:
        """Count a request that no attempt got a reply for; stop where none has got one for long."""
        self._given_up += 1
        # All that are on their way fail together where a server starts anew.
        if self._given_up < max(_GIVEN_UP, 2 * self.settings.limits.concurrency):
            return
        error = WhypromptError(
            f"{counted(self._given_up, 'request')} one after the other got no reply, each in"
            f" {counted(self.settings.limits.attempts, 'attempt')}, the last: {what}",
            hint="is the endpoint still there? Run again: it goes on where it stopped",
        )
        self.stop(error)
        raise error

    def _go_on(self) -> None:
        if self.stopped is not None:
            raise self.stopped

    def _refuse_waiting(self, wait: float, waited: float, reply: Outcome) -> None:
        most = self.settings.limits.wait_s
        if wait <= most and not (reply.too_fast and waited > most):
            return
        error = WhypromptError(
            f"the endpoint has a request wait for {max(wait, waited):,.0f} s ({reply.what}), and"
            f" limits.wait_s is {most:,.0f}",
            hint="run again later: it goes on where it stopped",
        )
        self.stop(error)
        raise error

    async def _attempt(self, request: Request, n: int) -> Reply | Outcome:
        """Send a request once."""
        import httpx2

        sent_at, begun = now(), time.perf_counter()
        self.sent += 1
        try:
            response = await self._http.post(self._url(request.path), json=dict(request.body))
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
            return Outcome("not connected", perhaps_paid=False)
        except httpx2.TimeoutException:
            return Outcome("no answer in time", perhaps_paid=True)
        except httpx2.HTTPError:
            # Cut off or reset: it may have been generated, and charged, all the same.
            return Outcome("broken off", perhaps_paid=True)
        if response.status_code != 200:
            return refused(response, self.clean)
        reply = Reply(
            request_hash=request.hash,
            status=200,
            body=self.clean(response.text),
            headers=kept_headers(response.headers),
            sent_at=sent_at,
            got_at=now(),
            latency_s=time.perf_counter() - begun,
            attempts=n,
        )
        if isinstance(reply.content.get("error"), dict):
            # Some providers pass another's failure on under 200.
            return Outcome("an error under 200", perhaps_paid=False)
        if not reply.whole:
            if "<html" in response.text[:2000].lower():
                raise ModelError(
                    f"{self._url(request.path)} answers with a page of HTML",
                    hint="model.endpoint is the base URL of the interface, such as https://HOST/v1",
                )
            return Outcome("not whole", perhaps_paid=True)
        return reply

    def _backoff(self, n: int) -> float:
        """Draw a wait: full jitter, so that those who failed together do not come back together."""
        return self._jitter.uniform(0.0, min(_LONGEST_BACKOFF_S, _BACKOFF_S * 2.0**n))

    def clean(self, text: str) -> str:
        """Take the key out of what a server says: some repeat it."""
        return text.replace(self._secret, "***") if self._secret else text


@asynccontextmanager
async def connected(settings: EndpointSettings, ledger: Ledger) -> AsyncIterator[Client]:
    """Open an endpoint with the key that the study names.

    Raises
    ------
    ModelError
        If the key's variable is not set.
    """
    try:
        import httpx2
    except ImportError:
        raise ModelError(
            "httpx2 is not installed, and asking an endpoint needs it",
            hint='pip install "whyprompt[endpoints]"',
        ) from None
    secret = ""
    if settings.key is not None:
        secret = os.environ.get(settings.key.env, "").strip()
        if not secret:
            raise ModelError(
                f"the variable {settings.key.env} is not set, and model.key names it",
                hint=f"export {settings.key.env}=... before the run",
            )
    limits = settings.limits
    shared: dict[str, Any] = {
        "headers": {"Authorization": f"Bearer {secret}"} if secret else {},
        "timeout": httpx2.Timeout(limits.timeout_s),
        "limits": httpx2.Limits(max_connections=limits.concurrency + 2),
        "trust_env": settings.proxy,
        # A key is sent to no other address.
        "follow_redirects": False,
    }
    async with httpx2.AsyncClient(**shared) as http:
        with httpx2.Client(**shared) as waiting:
            yield Client(settings, ledger, secret, http, waiting)
