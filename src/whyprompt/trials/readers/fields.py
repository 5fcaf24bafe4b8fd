"""What the fields of a log say: settings by their paths, chats as text, numbers."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from whyprompt.trials.readers.record import Scalar

_SECRET = re.compile(
    r"api[_-]?key|secret|password|authorization|(auth|access|bearer)_?token|headers", re.IGNORECASE
)


def flat(path: str, value: object, *, lists: bool = True) -> Iterator[tuple[str, Scalar]]:
    """Give what is inside a value by its path; a list is its JSON, nothing is left out, secrets are.

    Examples
    --------
    >>> dict(flat("task", {"arm": "cot", "shots": 5, "stop": ["A", "B"], "none": None, "api_key": "k"}))
    {'task.arm': 'cot', 'task.shots': 5, 'task.stop': '["A", "B"]'}
    """
    if isinstance(value, dict):
        for key, inside in value.items():
            if not _SECRET.search(str(key)):
                yield from flat(f"{path}.{key}" if path else str(key), inside, lists=lists)
    elif isinstance(value, str | int) or (isinstance(value, float) and not math.isnan(value)):
        yield path, value
    elif isinstance(value, list) and value and lists:
        yield path, json.dumps(value, ensure_ascii=False)


def mapping(value: object) -> dict[str, Any]:
    """Give an object, an empty one where it is none."""
    return value if isinstance(value, dict) else {}


def listed(value: object) -> list[Any]:
    """Give a list, an empty one where it is none."""
    return value if isinstance(value, list) else []


def objects(value: object) -> list[dict[str, Any]]:
    """Give the objects in a list."""
    return [one for one in listed(value) if isinstance(one, dict)]


def said(value: object) -> str | None:
    """Give a text that says something, else None."""
    return str(value) if value not in (None, "", [], {}) else None


class Settings(dict[str, dict[str, "Scalar"]]):
    """Settings by role, each put under its path."""

    def put(self, role: str, path: str, value: object) -> None:
        """Add a value, or all that is inside of it."""
        found = dict(flat(path, value))
        if found:
            self.setdefault(role, {}).update(found)


def texts(value: object, sep: str = " | ") -> str:
    """Give a text, or the parts of a list of texts after each other."""
    if value is None:
        return ""
    return sep.join(map(texts, value)) if isinstance(value, list) else str(value)


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


def number(value: object) -> float | None:
    """Give a finite number that is none of true and false, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < float("inf") else None


def whole(value: object) -> int | None:
    """Give a whole number, else None."""
    found = number(value)
    return None if found is None else int(found)
