"""Requests as batches (OpenAI's ``/v1/files`` and ``/v1/batches``): slower, and for less money.

A batch is written down before it is waited for: a run that ends meanwhile goes on waiting for the same one.
What comes back goes where every reply goes; what a batch leaves out is in the next run's, or, where the study
says so, asked for alone at once.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from whyprompt.errors import ModelError
from whyprompt.trials.endpoints.client import NO_BATCHES
from whyprompt.trials.endpoints.purse import OutOfBudgetError
from whyprompt.trials.endpoints.refusals import FailedError, reason_in
from whyprompt.trials.endpoints.wire import Reply, dict_of
from whyprompt.trials.result import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from whyprompt.trials.endpoints.client import Client
    from whyprompt.trials.endpoints.wire import Request

# Of a batch, as its provider documents it: requests, and bytes of their file.
_MOST_REQUESTS, _MOST_BYTES = 50_000, 200_000_000
_POLL_S, _LONGEST_POLL_S = 5.0, 300.0
_OVER = {"completed", "expired", "cancelled", "failed"}


class PendingError(Exception):
    """A request without a stored reply: it goes into the next batch."""


class Collector:
    """Stands in for a client: gives what is stored, and gathers what is not."""

    def __init__(self, client: Client) -> None:
        self.ledger = client.ledger
        self.missing: dict[str, Request] = {}

    async def ask(self, request: Request) -> Reply:
        """Give a stored reply, or gather the request."""
        known = self.ledger.find(request.hash)
        if known is None:
            self.missing[request.hash] = request
            raise PendingError
        return known


class Settled:
    """Stands in for a client once all batches are back: gives what they brought, and sends nothing alone.

    Parameters
    ----------
    client : Client
    unsent : set of str
        Requests that went into no batch, since the budget allows no more.
    """

    def __init__(self, client: Client, unsent: set[str]) -> None:
        self.ledger = client.ledger
        self._client, self._unsent = client, unsent

    async def ask(self, request: Request) -> Reply:
        """Give a stored reply, or say why there is none."""
        known = self.ledger.find(request.hash)
        if known is not None:
            return known
        if request.hash in self._unsent:
            raise OutOfBudgetError(
                f"the budget is used up: {self._client.purse.said()}, and no further request fits",
                hint="raise model.budget and run again: it goes on",
            )
        why = self.ledger.last(request.hash) or "not in the batch"
        raise FailedError(why, f"the batch left it out: {why}")


async def send_batches(client: Client, requests: Sequence[Request], told: Callable[[str], None]) -> set[str]:
    """Send requests as batches, one for each path, and keep their replies.

    Parameters
    ----------
    client : Client
    requests : sequence of Request
        None of them stored.
    told : callable
        Given what is waited for.

    Returns
    -------
    set of str
        The hashes of those that the budget has no room for.

    Raises
    ------
    ModelError
        If the endpoint takes no batches, or not this one.
    """
    by_hash = {r.hash: r for r in requests}
    # Those of a run that ended while it waited come first.
    waiting = [(one, hashes) for one, hashes in client.ledger.batches() if set(hashes) & set(by_hash)]
    under_way = {h for _, hashes in waiting for h in hashes}
    fresh = client.purse.affordable([r for r in requests if r.hash not in under_way])
    for path in dict.fromkeys(r.path for r in fresh):
        for part in _files([r for r in fresh if r.path == path]):
            batch = await _submit(client, path, part)
            waiting.append((batch, list(part)))
    for batch, _ in waiting:
        await _collect(client, batch, by_hash, told)
    client.purse.recount(client.ledger.spent())
    return set(by_hash) - under_way - {r.hash for r in fresh}


def _files(requests: Sequence[Request]) -> Iterator[dict[str, tuple[Request, bytes]]]:
    """Give requests with their lines, by hash, as many at a time as a batch takes."""
    part: dict[str, tuple[Request, bytes]] = {}
    size = 0
    for r in requests:
        said = {"custom_id": r.hash, "method": "POST", "url": f"/v1/{r.path}", "body": dict(r.body)}
        line = json.dumps(said).encode() + b"\n"
        if part and (len(part) == _MOST_REQUESTS or size + len(line) > _MOST_BYTES):
            yield part
            part, size = {}, 0
        part[r.hash] = r, line
        size += len(line)
    if part:
        yield part


async def _submit(client: Client, path: str, requests: dict[str, tuple[Request, bytes]]) -> str:
    text = b"".join(line for _, line in requests.values())
    file = await client.call(
        "POST",
        "files",
        data={"purpose": "batch"},
        files={"file": ("requests.jsonl", text, "application/jsonl")},
    )
    named = _id(file, "files")
    # Written down before: what may have been begun is never begun again in silence.
    for request, _ in requests.values():
        money, tokens = client.purse.most(request, batch=True)
        n = client.ledger.attempts(request.hash) + 1
        client.ledger.begin(request.hash, n, now(), cost=money, tokens=tokens)
    body = {"input_file_id": named, "endpoint": f"/v1/{path}", "completion_window": "24h"}
    batch = _id(await client.call("POST", "batches", json=body), "batches")
    client.ledger.add_batch(batch, list(requests))
    client.sent += len(requests)
    return batch


def _id(made: dict[str, Any], what: str) -> str:
    if not isinstance(found := made.get("id"), str):
        raise ModelError(f"the endpoint's /{what} answers without an id", hint=NO_BATCHES)
    return found


async def _collect(
    client: Client, batch: str, by_hash: dict[str, Request], told: Callable[[str], None]
) -> None:
    wait = _POLL_S
    while True:
        state = await client.call("GET", f"batches/{batch}")
        if (status := state.get("status")) in _OVER:
            break
        if not isinstance(status, str):
            raise ModelError(f"the endpoint does not say how batch {batch!r} stands", hint=NO_BATCHES)
        done = dict_of(state.get("request_counts")).get("completed", 0)
        told(f"a batch is {status}, {done} of its requests are done")
        await asyncio.sleep(wait)
        wait = min(_LONGEST_POLL_S, wait * 1.5)
    for name in ("output_file_id", "error_file_id"):
        if state.get(name):
            text = await client.call_text(f"files/{state[name]}/content")
            for line in text.splitlines():
                _keep(client, _row(line), by_hash, state)
    client.ledger.close_batch(batch)
    if status == "failed":
        errors = dict_of(state.get("errors")).get("data")
        first = dict_of(errors[0]) if isinstance(errors, list) and errors else {}
        said = client.clean(str(first.get("message", "no reason is given")))
        raise ModelError(
            f"the endpoint refuses the batch: {said}", hint="leave batch out: each is then asked alone"
        )


def _row(line: str) -> dict[str, Any]:
    """Read one line of a batch's results; one that cannot be read answers nothing."""
    try:
        return dict_of(json.loads(line))
    except ValueError:
        return {}


def _keep(client: Client, row: dict[str, Any], by_hash: dict[str, Request], state: dict[str, Any]) -> None:
    """Keep one line of a batch's results, or why it has no reply."""
    key = str(row.get("custom_id"))
    request, response = by_hash.get(key), dict_of(row.get("response"))
    if request is None or client.ledger.find(key) is not None:
        return
    n = max(1, client.ledger.attempts(key))
    reply = Reply(
        request_hash=key,
        status=200,
        body=client.clean(json.dumps(response.get("body"))),
        headers={"x-batch": str(state.get("id"))},
        sent_at=now(),
        got_at=now(),
        latency_s=0.0,
        attempts=n,
    )
    if response.get("status_code") != 200 or not reply.whole:
        status = response.get("status_code")
        why = "no completion" if status == 200 else reason_in(response.get("body"), status)
        client.ledger.fail(key, n, why)
        return
    cost, tokens = client.purse.charge(request, reply.answer, batch=True)
    client.ledger.keep(request, reply, n, cost=cost, tokens=tokens)
