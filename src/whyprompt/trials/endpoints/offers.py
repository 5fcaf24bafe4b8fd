"""What a server says of itself for nothing, and how a probe's findings are written down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from whyprompt.errors import ModelError
from whyprompt.results import Check
from whyprompt.trials.endpoints.asking import Asking, Prompted
from whyprompt.trials.endpoints.wire import dict_of

if TYPE_CHECKING:
    from whyprompt.results import Verdict
    from whyprompt.trials.endpoints.client import Client

TEXT = "Question: What is 7 plus 5?\nAnswer:"
"""What a probe asks."""
AROUND = 64
"""The most tokens that a server may put around it."""


class Offers(NamedTuple):
    """What a server says of itself for nothing."""

    models: tuple[str, ...] = ()
    context: int | None = None
    llama: bool = False
    tokenize: str | None = None  # the field that its /tokenize reads
    template: bool = False
    name: str = ""

    def tokenize_body(self, text: str, *, special: bool) -> dict[str, Any]:
        """Give what its /tokenize is sent."""
        if self.tokenize == "content":
            return {"content": text, "add_special": special, "parse_special": True}
        return {"model": self.name, "prompt": text, "add_special_tokens": special}


async def offered(client: Client) -> Offers:
    """Ask what costs nothing.

    Raises
    ------
    ModelError
        If nothing answers, the key is refused, or what answers is no such interface.
    """
    status, listed = await client.look("models")
    if status in {401, 403}:
        raise ModelError(
            f"the endpoint refuses the key ({status})", hint="check model.key: {env: NAME} and its rights"
        )
    if status == 200 and not isinstance(listed, dict):
        raise ModelError(
            f"{client.settings.endpoint}/models answers with no JSON, but perhaps a page of HTML",
            hint="model.endpoint is the base URL of the interface, such as https://HOST/v1",
        )
    data = dict_of(listed).get("data") if status == 200 else None
    rows = [r for r in data if isinstance(r, dict)] if isinstance(data, list) else []
    mine = next((r for r in rows if r.get("id") == client.settings.name), rows[0] if len(rows) == 1 else {})
    known = (mine.get("max_model_len"), mine.get("context_length"), dict_of(mine.get("meta")).get("n_ctx"))
    context = next((n for n in known if isinstance(n, int) and n > 0), None)
    status, props = await client.look("/props")
    llama = status == 200 and isinstance(props, dict) and "default_generation_settings" in props
    if llama:
        own = dict_of(props["default_generation_settings"]).get("n_ctx")
        context = own if isinstance(own, int) and own > 0 else context
    tokenize = None
    for name in ("content", "prompt"):
        body = Offers(tokenize=name, name=client.settings.name).tokenize_body("7 + 5", special=False)
        status, said = await client.look("/tokenize", body)
        if status == 200 and isinstance(said, dict) and whole_numbers(said.get("tokens")):
            tokenize = name
            break
    message = {"messages": [{"role": "user", "content": "mark"}]}
    status, said = await client.look("/apply-template", message)
    template = status == 200 and isinstance(said, dict) and "mark" in str(said.get("prompt"))
    return Offers(
        models=tuple(str(r.get("id")) for r in rows),
        context=context,
        llama=llama,
        tokenize=tokenize,
        template=template,
        name=client.settings.name,
    )


def whole_numbers(value: object) -> bool:
    """Say whether something is a list of tokens' numbers, of one at least."""
    return isinstance(value, list) and bool(value) and all(isinstance(v, int) for v in value)


async def tokenized(client: Client, offers: Offers, text: str, *, special: bool) -> tuple[int, ...]:
    """Give a text's tokens by the server."""
    status, said = await client.look("/tokenize", offers.tokenize_body(text, special=special))
    if status != 200 or not isinstance(said, dict) or not whole_numbers(said.get("tokens")):
        raise ModelError(f"the endpoint's /tokenize answers with {status}")
    return tuple(said["tokens"])


def row(name: str, ok: bool | None, sentence: str) -> Check:  # noqa: FBT001 - a verdict in short
    """Give a row of the table: seen, not seen, or, with None, in doubt."""
    verdict: Verdict = "doubtful" if ok is None else "passes" if ok else "fails"
    return Check(name=name, verdict=verdict, sentence=sentence)


async def prompted(client: Client, asking: Asking, offers: Offers, text: str = TEXT) -> Prompted:
    """Give a text as the interface takes it."""
    if asking.api == "chat":
        return Prompted({"messages": [{"role": "user", "content": text}]}, len(text.encode()) + AROUND)
    if offers.tokenize is None:
        return Prompted({"prompt": text}, len(text.encode()) + AROUND)
    ids = await tokenized(client, offers, text, special=True)
    return Prompted({"prompt": list(ids)}, len(ids))
