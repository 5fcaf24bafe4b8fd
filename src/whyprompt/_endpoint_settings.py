"""The settings of a model behind an OpenAI-compatible interface: where, as whom, how fast, for how much."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from whyprompt._study_items import Strict

# What whyprompt sends itself: an extra of that name would say something else than the study does.
_OURS = frozenset(
    [
        "model",
        "messages",
        "prompt",
        "stream",
        "n",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "logprobs",
        "top_logprobs",
        "echo",
        "prompt_logprobs",
        "grammar",
    ]
)
_SECRET = ("api_key", "apikey", "authorization", "bearer", "password", "secret", "access_token")


class KeySettings(Strict):
    """The key that an endpoint asks for: the name of the variable that holds it, never the key."""

    env: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Name of an environment variable.")


class SamplingSettings(Strict):
    """What of sampling is the model's; the temperature is the arm's, the length `generation`'s."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Literal["per_trial", "none"] = Field(
        default="per_trial", description="none: for interfaces that take no seed."
    )

    @model_validator(mode="before")
    @classmethod
    def _elsewhere(cls, value: Any) -> Any:  # noqa: ANN401 - raw input, whatever the file holds
        places = {"temperature": "arms.NAME.temperature", "max_tokens": "generation.max_new_tokens"}
        for name, place in places.items():
            if isinstance(value, dict) and name in value:
                raise ValueError(f"{name!r} is set elsewhere: {place}")
        return value


class LimitSettings(Strict):
    """How fast an endpoint is asked, and how long for one reply."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    tokens_per_minute: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Of prompts and completions together, each request at its most."
    )
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        default=8, description="Of one request, refusals for being too fast (429) aside."
    )
    wait_s: Annotated[float, Field(ge=0)] = Field(
        default=900.0, description="The longest wait that an endpoint may ask for; more stops the run."
    )


class PriceSettings(Strict):
    """What tokens cost, as the user knows it."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]
    cached_input: Annotated[float, Field(ge=0)] | None = None
    batch: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="What a batch costs of it, such as 0.5. Unset: as much."
    )
    currency: str = "USD"
    per: Annotated[int, Field(ge=1)] = 1_000_000


class BudgetSettings(Strict):
    """What a run may cost in all, earlier runs into the same folder included."""

    money: Annotated[float, Field(ge=0)] | None = None
    tokens: Annotated[int, Field(ge=0)] | None = None


Api = Literal["auto", "chat", "completions"]
Scoring = Literal["auto", "echo", "prompt_logprobs", "token_grammar", "top_logprobs", "none"]


class EndpointSettings(Strict):
    """A model behind an OpenAI-compatible interface."""

    endpoint: str = Field(description="Base URL, with its /v1 where it has one. https, or http on loopback.")
    name: str = Field(min_length=1, description="As the endpoint calls it; a dated name does not change.")
    key: KeySettings | None = None
    api: Api = Field(
        default="auto",
        description="auto: completions where the server also applies its chat template and tokenises, so that"
        " arms end in their cue as on a local model; else chat.",
    )
    scoring: Scoring = Field(
        default="auto",
        description="How the log-probability of a given answer is had; auto takes the first that the probe"
        " proves exact.",
    )
    sampling: SamplingSettings = SamplingSettings()
    extra: dict[str, Any] = Field(default_factory=dict, description="Sent along with every request.")
    limits: LimitSettings = LimitSettings()
    price: PriceSettings | None = None
    budget: BudgetSettings = BudgetSettings()
    batch: bool = Field(
        default=False,
        description="Send completions as batches (/v1/files, /v1/batches) where the provider has them.",
    )
    proxy: bool = Field(default=False, description="Whether HTTPS_PROXY and the like are used.")

    @field_validator("endpoint")
    @classmethod
    def _safe(cls, value: str) -> str:
        url = urlsplit(value)
        try:
            host, _ = url.hostname or "", url.port
        except ValueError:
            raise ValueError("is no URL: its port is no number") from None
        if url.username is not None or url.password is not None:
            raise ValueError(
                "holds a user name or password: keys come from the environment, key: {env: NAME}"
            )
        if url.scheme not in {"http", "https"} or not host:
            raise ValueError("is no URL: it begins with https:// (or http:// on this machine)")
        if url.query or url.fragment:
            raise ValueError("has a part after ? or #: give the base URL alone, such as https://HOST/v1")
        if url.scheme == "http" and not _loopback(host):
            raise ValueError("sends prompts and keys unencrypted: use https:// (http only on this machine)")
        return value.rstrip("/")

    @field_validator("key", mode="before")
    @classmethod
    def _no_literal(cls, value: Any) -> Any:  # noqa: ANN401 - raw input, whatever the file holds
        if isinstance(value, str):
            # The key itself is no part of the message.
            raise ValueError(  # noqa: TRY004 - pydantic's own kind of error
                "a key never stands in a file: name the variable that holds it, key: {env: NAME}"
            )
        return value

    @field_validator("extra")
    @classmethod
    def _no_clash(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name in _OURS:
                raise ValueError(f"{name!r} is set by the study itself: leave it out of 'extra'")
            if any(word in name.lower() for word in _SECRET):
                raise ValueError(f"{name!r} looks like a key: keys are given as key: {{env: NAME}}")
        return value

    @model_validator(mode="after")
    def _payable(self) -> EndpointSettings:
        if self.budget.money is not None and self.price is None:
            raise ValueError(
                "'budget.money' is set and no 'price': give price: {input: ..., output: ..., per: 1000000}"
            )
        return self


def on_endpoint(model: object) -> bool:
    """Say whether the settings of a model, as read or raw, are of one behind an endpoint."""
    return isinstance(model, EndpointSettings) or (isinstance(model, dict) and "endpoint" in model)


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class OrderSettings(Strict):
    """In which order an endpoint is asked."""

    blocks: Literal["item", "none"] = Field(
        default="item", description="item: all arms of an item one after the other; none: all trials alike."
    )
    shuffle: bool = Field(default=True, description="Whether the order within a block is drawn by lot.")


class MissingSettings(Strict):
    """What is made of a trial that an endpoint gave no usable completion for."""

    refusal: Literal["outcome", "missing"] = Field(
        default="outcome", description="outcome: a refusal is an answer, scored like any other."
    )
    filtered: Literal["outcome", "missing"] = "missing"
    overflow: Literal["refuse_plan", "drop_item"] = Field(
        default="refuse_plan", description="drop_item: an item with a prompt too long leaves every arm."
    )
    error: Literal["missing", "stop"] = "missing"
    batch: Literal["missing", "alone"] = Field(
        default="missing",
        description="What a batch leaves out has no outcome until the next run sends it as a batch again;"
        " alone: it is asked for singly, at the full price.",
    )
