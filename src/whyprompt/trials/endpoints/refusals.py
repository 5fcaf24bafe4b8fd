"""What a reply that is no completion says: its words, its code, its reason, and what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from whyprompt.errors import ModelError, WhypromptError
from whyprompt.trials.endpoints.pace import retry_after

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2

# Of the server or of the way to it: the same request may well be answered later.
AGAIN = {408, 425, 500, 502, 503, 504, 520, 522, 524, 529}
# Whatever is asked, the answer will be the same.
_HOPELESS = {401: "the key is refused", 402: "nothing is left to pay with", 403: "the key may not do this"}
_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "quota_exceeded")


class FailedError(WhypromptError):
    """A request that got no reply it could use; `reason` is the word for it in the table of trials."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Outcome(NamedTuple):
    """How one attempt ended without a reply."""

    what: str
    perhaps_paid: bool
    wait: float | None = None  # the endpoint's own, where it says so
    too_fast: bool = False


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


def _code(error: dict[str, Any]) -> str:
    """Give its code or kind, "" where it has none but a number."""
    codes = [str(error[k]) for k in ("code", "type") if error.get(k) is not None]
    return next((c for c in codes if not c.isdigit()), "")


def _reason(code: str, said: str, status: int) -> str:
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
    return _reason(_code(error), str(error.get("message", "")), status)


def refused(response: httpx2.Response, clean: Callable[[str], str]) -> Outcome:
    """Say whether a request that was refused may be sent again.

    Parameters
    ----------
    response : httpx2.Response
        With a status that is not 200.
    clean : callable
        Takes a key out of what it says.

    Raises
    ------
    FailedError
        If this request will always be refused.
    WhypromptError
        If any request will.
    """
    status, said = response.status_code, clean(message_of(response))
    code = _code(_error_of(response))
    wait = retry_after(response.headers)
    if status == 429 or status in _HOPELESS:
        if code in _QUOTA or status == 402:
            raise WhypromptError(
                f"a quota of the endpoint is used up ({code or status}): {said}",
                hint="run again when it is renewed: it goes on where it stopped",
            )
        if status == 429:
            return Outcome("http 429", perhaps_paid=False, wait=wait, too_fast=True)
        raise ModelError(f"{_HOPELESS[status]} ({status}): {said}", hint="check model.key and its rights")
    if status in AGAIN:
        return Outcome(f"http {status}", perhaps_paid=False, wait=wait)
    if 300 <= status < 400:
        raise ModelError(
            f"the endpoint sends elsewhere ({status}), and a key is sent nowhere else",
            hint="give the address it redirects to as model.endpoint",
        )
    if status == 404:
        raise ModelError(
            f"{response.url} is not there (404): {said}", hint="check model.endpoint, model.name and api"
        )
    raise FailedError(_reason(code, said, status), f"the request is refused ({status}): {said}")
