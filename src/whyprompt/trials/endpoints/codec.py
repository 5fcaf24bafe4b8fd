"""Prompts for an endpoint: as messages, or as tokens where the server has a template and tokenises."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from whyprompt.errors import ModelError, PromptError
from whyprompt.trials.endpoints.asking import Prompted
from whyprompt.trials.endpoints.offers import whole_numbers
from whyprompt.trials.models.local import Encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from whyprompt.trials.endpoints.offers import Offers
    from whyprompt.trials.prompts import Prompt

# What a chat template may put around a message, in tokens; more than any that is known.
_AROUND = 16
_DECODER = json.JSONDecoder()


class EndpointCodec:
    """What rendering and planning need of a model that is elsewhere.

    Parameters
    ----------
    post : callable
        Posts JSON to a path of the server's root and gives JSON. Costs nothing.
    offers : Offers
        What the server has: a chat template, a tokenizer.
    chat : bool
        Whether prompts are sent as messages. Such a prompt's text is the messages in JSON, and what follows.
    """

    def __init__(
        self, post: Callable[[str, dict[str, Any]], dict[str, Any]], offers: Offers, *, chat: bool
    ) -> None:
        self.as_messages = chat
        self.tokenizes = offers.tokenize is not None and not chat
        self._offers = offers
        self._post = post
        self._counts: dict[str, int] = {}
        self._ids = lru_cache(maxsize=100_000)(self._asked)

    @property
    def has_chat_template(self) -> bool:
        """Whether a prompt may be a chat."""
        return self.as_messages or self._offers.template

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Give messages as the text that stands for them, up to the start of the assistant's turn."""
        if self.as_messages:
            return json.dumps(list(messages), ensure_ascii=False) + "\n"
        return str(self._post("/apply-template", {"messages": list(messages)}).get("prompt", ""))

    def messages(self, prompt: Prompt) -> list[dict[str, str]]:
        """Give the messages that a prompt's text stands for; what follows them ends the user's last one."""
        if not prompt.chat:
            return [{"role": "user", "content": prompt.text}]
        found, end = _DECODER.raw_decode(prompt.text)
        tail = prompt.text[end:].strip("\n")
        messages: list[dict[str, str]] = [dict(m) for m in found]
        if tail:
            messages[-1]["content"] += f"\n{tail}"
        return messages

    def prompted(self, prompt: Prompt) -> Prompted:
        """Give a prompt as the interface takes it."""
        if self.as_messages:
            return self.sent(self.messages(prompt))
        ids = self.tokens(prompt.text, special=not prompt.chat)
        if ids:
            return Prompted({"prompt": list(ids)}, len(ids))
        return Prompted({"prompt": prompt.text}, self.most_tokens(prompt.text))

    def sent(self, messages: Sequence[Mapping[str, str]]) -> Prompted:
        """Give messages as a chat takes them."""
        return Prompted({"messages": messages}, sum(self.most_tokens(m["content"]) for m in messages))

    def _asked(self, text: str, special: bool) -> tuple[int, ...]:  # noqa: FBT001 - the key of a cache
        said = self._post("/tokenize", self._offers.tokenize_body(text, special=special))
        if said.get("tokens") != [] and not whole_numbers(said.get("tokens")):
            raise ModelError("the endpoint's /tokenize answers without a list of tokens")
        return tuple(said["tokens"])

    def tokens(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        """Tokenise a text; () where the server does not."""
        return self._ids(text, special) if self.tokenizes else ()

    def most_tokens(self, text: str) -> int:
        """Give the most tokens that a text can be: no token is less than a byte."""
        return (
            len(self.tokens(text))
            if self.tokenizes
            else len(text.encode()) + _AROUND * (2 + text.count('"role"'))
        )

    def exact_tokens(self, prompt: Prompt) -> int | None:
        """Count a prompt's tokens as the server will; None where it does not tell."""
        if self.tokenizes:
            return len(self.tokens(prompt.text, special=not prompt.chat))
        if self._offers.tokenize is None or not self._offers.template:
            return None
        if prompt.text not in self._counts:
            said = self._post("/apply-template", {"messages": self.messages(prompt)})
            self._counts[prompt.text] = len(self._ids(str(said.get("prompt", "")), False))
        return self._counts[prompt.text]

    def encode(
        self,
        prompt: Prompt,
        *,
        answer: str | None = None,
        room: int = 0,  # noqa: ARG002 - overflow is judged for the whole plan
        where: str = "",
        look_ahead: bool = False,
    ) -> Encoded:
        """Tokenise a prompt and an answer as one text; where nothing tokenises, both have no tokens."""
        if not self.tokenizes:
            return Encoded((), (), (), look_ahead)
        answer = prompt.answer if answer is None else answer
        if not answer.strip():
            raise PromptError(f"{where}: the answer is empty")
        alone, whole = (self._ids(text, not prompt.chat) for text in (prompt.text, prompt.text + answer))
        n = len(alone)
        if whole[:n] != alone or len(whole) <= n:
            raise PromptError(
                f"{where}: the answer {answer!r} merges with the cue {prompt.text[-12:]!r} into one token",
                hint="end the cue in a character that the tokenizer keeps apart, such as a colon",
            )
        return Encoded(alone, whole[n:], (), look_ahead)
