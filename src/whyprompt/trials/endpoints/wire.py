"""What goes to an endpoint and what comes back: requests with their hash, replies with what they say."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

# Kept of a reply's headers; others may hold a session, a name, a key.
_KEPT_HEADERS = ("x-request-id", "openai-processing-ms", "openai-version", "x-ratelimit-remaining-requests")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request that may be paid for.

    Parameters
    ----------
    base, path : str
        The endpoint's URL, and what is asked of it.
    body : mapping
        JSON; the model's name and every sampling parameter are in it.
    item_id, arm, rep, purpose : str, str, int, str
        What it is for. Part of the hash: no reply serves two repetitions, two arms or two items.
    prompt_tokens : int
        The most that its prompt can have.
    """

    base: str
    path: str
    body: Mapping[str, Any]
    item_id: str = ""
    arm: str = ""
    rep: int = 0
    purpose: str = "completion"
    prompt_tokens: int = 0

    @property
    def most_tokens(self) -> int:
        """The most tokens that its completion can have."""
        most = self.body.get("max_tokens", self.body.get("max_completion_tokens", 0))
        return int(most)

    @property
    def hash(self) -> str:
        """What it is known by in the store."""
        parts = [self.base, self.path, self.body, self.item_id, self.arm, self.rep, self.purpose]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Token(NamedTuple):
    """One token of a reply with its log-probability, and the most probable ones in its place."""

    id: int | None
    text: str
    log_prob: float
    top: tuple[tuple[int | None, str, float], ...]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back, as it is stored."""

    request_hash: str
    status: int
    body: str
    headers: Mapping[str, str]
    sent_at: str
    got_at: str
    latency_s: float
    attempts: int

    @cached_property
    def content(self) -> dict[str, Any]:
        """The JSON object that the body is; empty where it is none."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def whole(self) -> bool:
        """Whether it holds a completion, be it an empty one."""
        choices = self.content.get("choices")
        return isinstance(choices, list) and bool(choices) and isinstance(choices[0], dict)

    @cached_property
    def answer(self) -> Answer:
        """What it says."""
        return read_answer(self.content)


class Answer(NamedTuple):
    """What a reply says, whichever of the interfaces it came by."""

    text: str
    finish: str | None
    refusal: str | None
    model: str | None
    fingerprint: str | None
    provider: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    tokens: tuple[Token, ...]


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Give those headers of a reply that are kept."""
    return {name: headers[name] for name in _KEPT_HEADERS if name in headers}


def dict_of(value: object) -> dict[str, Any]:
    """Give a JSON object as it is, and anything else as an empty one."""
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _content(value: object) -> str | None:
    """Give what a message says: a text, or the texts among its parts, as some servers send it."""
    if not isinstance(value, list):
        return _text(value)
    return "".join(
        _text(part.get("text")) or "" for part in map(dict_of, value) if part.get("type") == "text"
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def read_answer(content: Mapping[str, Any]) -> Answer:
    """Read what a completion says; what is absent or of another kind is None or empty.

    >>> said = {"choices": [{"message": {"content": "12"}, "finish_reason": "stop"}], "model": "m"}
    >>> read_answer(said).text, read_answer(said).model, read_answer({}).text
    ('12', 'm', '')
    >>> parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "12"}]
    >>> read_answer({"choices": [{"message": {"content": parts}}]}).text
    '12'
    """
    choices = content.get("choices")
    choice = dict_of(choices[0]) if isinstance(choices, list) and choices else {}
    message, usage = dict_of(choice.get("message")), dict_of(content.get("usage"))
    text = _text(choice.get("text")) if not message else _content(message.get("content"))
    return Answer(
        text=text or "",
        finish=_text(choice.get("finish_reason")),
        refusal=_text(message.get("refusal")),
        model=_text(content.get("model")),
        fingerprint=_text(content.get("system_fingerprint")),
        provider=_text(content.get("provider")),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=_count(dict_of(usage.get("prompt_tokens_details")).get("cached_tokens")),
        tokens=_tokens(dict_of(choice.get("logprobs"))),
    )


def _tokens(found: Mapping[str, Any]) -> tuple[Token, ...]:
    """Read log-probabilities of either form: a list of tokens (chat), or lists of their parts."""
    rows = found.get("content")
    if isinstance(rows, list):
        return tuple(
            Token(
                _count(row.get("id")),
                str(row.get("token", "")),
                _number(row.get("logprob")),
                tuple(
                    (_count(t.get("id")), str(t.get("token", "")), _number(t.get("logprob")))
                    for t in row.get("top_logprobs") or ()
                ),
            )
            for row in map(dict_of, rows)
        )
    texts, values, tops = (found.get(k) or [] for k in ("tokens", "token_logprobs", "top_logprobs"))
    if not isinstance(texts, list) or not isinstance(values, list) or len(texts) != len(values):
        return ()
    tops = tops if isinstance(tops, list) and len(tops) == len(texts) else [{}] * len(texts)
    return tuple(
        Token(
            None,
            str(text),
            _number(value),
            tuple((None, str(t), _number(v)) for t, v in dict_of(top).items()),
        )
        for text, value, top in zip(texts, values, tops, strict=True)
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
