"""Conversations as text: one message, the whole of it, what a role said last."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from whyprompt.trials.reading.fields import objects, parsed, text_of, text_or_none

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def content_text(content: object, name: Callable[[str], str] = str) -> str:
    """Give the text of a message's content, which may have parts: what is no text is its kind and digest."""
    if content is None:
        return ""
    if isinstance(content, str):
        return name(content)
    if isinstance(content, list):
        return "\n".join(part for one in content if (part := content_text(one, name)))
    if not isinstance(content, dict):
        return str(content)
    kind = str(content.get("type", "text"))
    if kind in {"text", "input_text", "output_text"}:
        return name(str(content.get("text", "")))
    if kind in {"reasoning", "thinking"}:
        return ""
    data = content.get(kind, content)
    data = name(data) if isinstance(data, str) else json.dumps(data, sort_keys=True, ensure_ascii=False)
    digest = hashlib.blake2b(data.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return f"[{kind} {digest}]"


def chat_text(messages: object, name: Callable[[str], str] = str) -> str:
    r"""Give a chat as text: a lone message of a user is its content, others stand under their roles.

    Examples
    --------
    >>> chat_text([{"role": "user", "content": "1 + 1 = ?"}])
    '1 + 1 = ?'
    >>> chat_text([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    'system:\nBe brief.\n\nuser:\nHi'
    """
    if not isinstance(messages, list):
        return content_text(messages, name)
    said = [m if isinstance(m, dict) else {"content": m} for m in messages]
    if len(said) == 1 and said[0].get("role", "user") == "user":
        return content_text(said[0].get("content"), name)
    return "\n\n".join(f"{m.get('role', '')}:\n{content_text(m.get('content'), name)}" for m in said)


def last_said(messages: list[Any], role: str) -> str:
    """Give what a role said last in a conversation; the whole of it where the role said nothing."""
    said_so = [one for one in objects(messages) if one.get("role") == role]
    return content_text(_spoken(said_so[-1])["content"]) if said_so else text_of(messages)


def conversation(value: object) -> str | None:
    r"""Write what was sent as it reads: a conversation, also as JSON in a cell, by its roles.

    Examples
    --------
    >>> conversation('[{"role": "user", "content": "1 + 1?"}]'), conversation("[1]"), conversation(None)
    ('1 + 1?', '[1]', None)
    """
    found = parsed(value)
    messages = found.get("messages") if isinstance(found, dict) else found
    if isinstance(messages, list) and messages and all(isinstance(m, dict) and "role" in m for m in messages):
        return chat_text([_spoken(message) for message in messages])
    return text_or_none(value)


def _spoken(message: Mapping[str, Any]) -> dict[str, Any]:
    """Give a message with its content under one name: conventions differ in those of its parts."""
    parts = message.get("content", message.get("parts"))
    if isinstance(parts, list):
        parts = [
            {"type": "text", "text": text_of(part.get("content"))} if "content" in part else part
            for part in objects(parts)
        ]
    return {"role": message.get("role"), "content": parts}
