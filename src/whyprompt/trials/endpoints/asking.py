"""What is asked of an endpoint: requests of every kind, with every sampling parameter in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from whyprompt.trials.endpoints.wire import Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt._endpoint_settings import EndpointSettings

# Some read a seed as a signed number of 32 bits.
_LARGEST_SEED = 2**31 - 1


class Prompted(NamedTuple):
    """A prompt as one interface takes it, and the most tokens that it can be."""

    fields: Mapping[str, Any]
    tokens: int


class Purpose(NamedTuple):
    """The trial that a request is for, and which of its requests it is."""

    item_id: str
    arm: str
    rep: int
    name: str


class Asking(NamedTuple):
    """How one endpoint is spoken to.

    Parameters
    ----------
    settings : EndpointSettings
    api : {"chat", "completions"}
    limit : str
        Its name for the most tokens of a completion.
    neutral : mapping
        Parameters of the server's own that would otherwise change what is sampled, switched off.
    """

    settings: EndpointSettings
    api: str
    limit: str = "max_tokens"
    neutral: Mapping[str, Any] = {}

    def _body(self, *, most: int, temperature: float, seed: int, stop: Sequence[str] = ()) -> dict[str, Any]:
        settings = self.settings
        body: dict[str, Any] = {
            **self.neutral,
            **settings.extra,
            "model": settings.name,
            self.limit: most,
            "temperature": temperature,
            "top_p": settings.sampling.top_p,
        }
        if settings.sampling.seed == "per_trial":
            body["seed"] = seed % _LARGEST_SEED
        return body | ({"stop": list(stop)} if stop else {})

    def _request(self, prompt: Prompted, purpose: Purpose, body: dict[str, Any], api: str) -> Request:
        return Request(
            base=self.settings.endpoint,
            path="chat/completions" if api == "chat" else "completions",
            body={**body, **prompt.fields},
            item_id=purpose.item_id,
            arm=purpose.arm,
            rep=purpose.rep,
            purpose=purpose.name,
            prompt_tokens=prompt.tokens,
        )

    def completion(
        self,
        prompt: Prompted,
        purpose: Purpose,
        *,
        most: int,
        temperature: float,
        seed: int,
        stop: Sequence[str] = (),
        top: int = 0,
    ) -> Request:
        """Ask for a completion, with the `top` most probable tokens in each place."""
        body = self._body(most=most, temperature=temperature, seed=seed, stop=stop)
        if top:
            body |= {"logprobs": True, "top_logprobs": top} if self.api == "chat" else {"logprobs": top}
        return self._request(prompt, purpose, body, self.api)

    def scored(self, prompt: Prompted, purpose: Purpose, *, most: int, further: Mapping[str, Any]) -> Request:
        """Ask for log-probabilities of a text that is given: one of the ways of `scoring`."""
        body = self._body(most=most, temperature=0.0, seed=0)
        return self._request(prompt, purpose, {**body, **further}, "completions")
