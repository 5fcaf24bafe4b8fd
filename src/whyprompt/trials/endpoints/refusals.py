"""What a reply that is no completion says: its words, its code, and the reason they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2


def _error_of(response: httpx2.Response) -> dict[str, Any]:
    try:
        return _error_in(response.json())
    except ValueError:
        return {}


def _error_in(found: object) -> dict[str, Any]:
    error = found.get("error", found) if isinstance(found, dict) else {}
    return error if isinstance(error, dict) else {"message": str(error)}


def message_of(response: httpx2.Response) -> str:
    """Give what it says, in one line."""
    said = _error_of(response).get("message") or response.text
    return " ".join(str(said).split())[:300]


def code_of(response: httpx2.Response) -> str:
    """Give its code or kind, "" where it has none but a number."""
    return _code(_error_of(response))


def _code(error: dict[str, Any]) -> str:
    codes = [str(error[k]) for k in ("code", "type") if error.get(k) is not None]
    return next((c for c in codes if not c.isdigit()), "")


def reason_of(code: str, said: str, status: int) -> str:
    """Name why a request was refused: an overflow, a filter, or its status."""
    text = f"{code} {said}".lower()
    if "context" in text and any(w in text for w in ("exceed", "maximum", "length", "too long")):
        return "overflow"
    if "content_filter" in text or "content management policy" in text:
        return "filtered"
    return f"http {status}"


def reason_in(content: object, status: object) -> str:
    """Name why one request of a batch was refused, from what stands in its results."""
    if not isinstance(status, int):
        return "batch error"
    error = _error_in(content)
    return reason_of(_code(error), str(error.get("message", "")), status)
