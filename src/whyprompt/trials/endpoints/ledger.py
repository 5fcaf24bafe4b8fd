"""Replies as they were paid for: on the disk before they are used, each attempt before it is made."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from whyprompt.trials.endpoints.wire import Reply

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from whyprompt.trials.endpoints.wire import Request
    from whyprompt.trials.store import TrialStore

_SCHEMA = """
CREATE TABLE IF NOT EXISTS response (
    request_hash TEXT PRIMARY KEY, item_id TEXT NOT NULL, arm TEXT NOT NULL, rep INTEGER NOT NULL,
    purpose TEXT NOT NULL, body TEXT NOT NULL, headers TEXT NOT NULL, status INTEGER NOT NULL,
    model_reported TEXT, system_fingerprint TEXT, provider TEXT,
    prompt_tokens INTEGER, completion_tokens INTEGER, cached_tokens INTEGER,
    cost REAL, tokens INTEGER NOT NULL, sent_at TEXT NOT NULL, got_at TEXT NOT NULL,
    latency_s REAL NOT NULL, attempts INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS attempt (
    request_hash TEXT NOT NULL, n INTEGER NOT NULL, sent_at TEXT NOT NULL, outcome TEXT,
    cost_at_most REAL NOT NULL, tokens_at_most INTEGER NOT NULL, PRIMARY KEY (request_hash, n)
) STRICT;
CREATE TABLE IF NOT EXISTS batch (id TEXT PRIMARY KEY, hashes TEXT NOT NULL, open INTEGER NOT NULL) STRICT;
"""
# What may have been generated and was not received. None: the process ended first.
_PERHAPS = "outcome IS NULL OR outcome IN ('no answer in time', 'broken off', 'not whole')"


class Spent(NamedTuple):
    """What was paid, and what perhaps was, at its most."""

    money: float
    tokens: int
    replies: int
    perhaps_money: float
    perhaps_tokens: int
    perhaps: int


class Ledger:
    """The two tables of replies in an open store, or, without one, in memory.

    Parameters
    ----------
    store : TrialStore or None
        Open for writing.
    account : str
        Whose requests these are, where they are not the model's: a judge's, which has a budget of its own.
    """

    def __init__(self, store: TrialStore | None, account: str = "") -> None:
        self._account = f"{account}: " if account else ""
        self._store = store
        self._memory: sqlite3.Connection | None = None
        if store is None:
            import sqlite3

            self._memory = sqlite3.connect(":memory:", isolation_level=None)
            self._memory.executescript(_SCHEMA)
        else:
            # A reply is on the disk before it is used: it was paid for.
            store.write_through(_SCHEMA)

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        if self._memory is not None:
            yield self._memory
        else:
            assert self._store is not None
            with self._store.changing() as db:
                yield db

    def _rows(self, query: str, *values: object) -> list[Any]:
        if self._memory is not None:
            return self._memory.execute(query, values).fetchall()
        assert self._store is not None
        return self._store.rows(query, *values)

    def find(self, request_hash: str) -> Reply | None:
        """Give a reply that is there."""
        rows = self._rows(
            "SELECT status, body, headers, sent_at, got_at, latency_s, attempts FROM response "
            "WHERE request_hash = ?",
            self._account + request_hash,
        )
        if not rows:
            return None
        status, body, headers, sent_at, got_at, latency_s, attempts = rows[0]
        return Reply(
            request_hash=request_hash,
            status=status,
            body=body,
            headers=json.loads(headers),
            sent_at=sent_at,
            got_at=got_at,
            latency_s=latency_s,
            attempts=attempts,
        )

    def attempts(self, request_hash: str) -> int:
        """Count the attempts made at a request so far."""
        query = "SELECT count(*) FROM attempt WHERE request_hash = ?"
        found: int = self._rows(query, self._account + request_hash)[0][0]
        return found

    def last(self, request_hash: str) -> str | None:
        """Give how the last attempt at a request ended; None where it is not known, or there was none."""
        query = "SELECT outcome FROM attempt WHERE request_hash = ? ORDER BY n DESC LIMIT 1"
        rows = self._rows(query, self._account + request_hash)
        return rows[0][0] if rows else None

    def begin(self, request_hash: str, n: int, sent_at: str, *, cost: float, tokens: int) -> None:
        """Write down an attempt that is about to be made, with what it can cost at most."""
        with self._changing() as db:
            db.execute(
                "INSERT INTO attempt VALUES (?, ?, ?, NULL, ?, ?)",
                (self._account + request_hash, n, sent_at, cost, tokens),
            )

    def fail(self, request_hash: str, n: int, outcome: str) -> None:
        """Write down how an attempt ended that gave no reply."""
        with self._changing() as db:
            db.execute(
                "UPDATE attempt SET outcome = ? WHERE request_hash = ? AND n = ?",
                (outcome, self._account + request_hash, n),
            )

    def keep(self, request: Request, reply: Reply, n: int, *, cost: float | None, tokens: int) -> None:
        """Write down a reply and that its attempt is paid for, both or neither."""
        said = reply.answer
        row = (
            *(self._account + reply.request_hash, request.item_id, request.arm, request.rep),
            *(request.purpose, reply.body),
            *(json.dumps(dict(reply.headers)), reply.status, said.model, said.fingerprint, said.provider),
            *(said.prompt_tokens, said.completion_tokens, said.cached_tokens, cost, tokens),
            *(reply.sent_at, reply.got_at, reply.latency_s, reply.attempts),
        )
        marks = ", ".join("?" * len(row))
        with self._changing() as db:
            db.execute(f"INSERT INTO response VALUES ({marks})", row)  # noqa: S608 - marks alone
            db.execute(
                "UPDATE attempt SET outcome = 'reply' WHERE request_hash = ? AND n = ?",
                (self._account + reply.request_hash, n),
            )

    def batches(self) -> list[tuple[str, list[str]]]:
        """Give the batches that are waited for, each with the hashes of its requests."""
        return [(one, json.loads(h)) for one, h in self._rows("SELECT id, hashes FROM batch WHERE open")]

    def add_batch(self, batch: str, hashes: list[str]) -> None:
        """Write down a batch that is to be waited for."""
        with self._changing() as db:
            db.execute("INSERT INTO batch VALUES (?, ?, 1)", (batch, json.dumps(hashes)))

    def close_batch(self, batch: str) -> None:
        """Write down that a batch's results are kept; what it did not answer was not generated."""
        with self._changing() as db:
            (text,) = db.execute("SELECT hashes FROM batch WHERE id = ?", (batch,)).fetchone()
            db.execute("UPDATE batch SET open = 0 WHERE id = ?", (batch,))
            db.executemany(
                "UPDATE attempt SET outcome = 'not in the batch' WHERE request_hash = ? AND outcome IS NULL",
                [(one,) for one in json.loads(text)],
            )

    def spent(self) -> Spent:
        """Give what all runs into this store cost so far on this account."""
        # A hash has 64 letters, and what stands before it is the account.
        own = "substr(request_hash, 1, length(request_hash) - 64) = ?"
        paid = self._rows(
            f"SELECT total(cost), total(tokens), count(*) FROM response WHERE {own}",  # noqa: S608 - our own words
            self._account,
        )[0]
        perhaps = self._rows(
            f"SELECT total(cost_at_most), total(tokens_at_most), count(*) FROM attempt"  # noqa: S608 - our own words
            f" WHERE ({_PERHAPS}) AND {own}",
            self._account,
        )[0]
        return Spent(paid[0], int(paid[1]), paid[2], perhaps[0], int(perhaps[1]), perhaps[2])

    def cost(self, hashes: list[str]) -> float | None:
        """Give what some replies cost together; None where no price is known."""
        total = 0.0
        for one in hashes:
            rows = self._rows("SELECT cost FROM response WHERE request_hash = ?", self._account + one)
            if not rows or rows[0][0] is None:
                return None
            total += rows[0][0]
        return total
