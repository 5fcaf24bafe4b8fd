"""A causal language model on this machine, loaded and checked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from whyprompt.errors import PromptError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from whyprompt.trials.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt and an answer in tokens: what is scored.

    Parameters
    ----------
    ids : tuple of int
        The prompt, its cue included; at least one token.
    answer_ids : tuple of int
        The answer, its separator included: the tokens that are scored.
    segments : tuple of (name, start, end)
        Named stretches of ``ids``; tokens of the chat template itself are in none.
    look_ahead : bool
        Whether the greedy token after the answer is wanted too (one more token to compute).
    """

    ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    segments: tuple[tuple[str, int, int], ...] = ()
    look_ahead: bool = False

    @property
    def fed(self) -> tuple[int, ...]:
        """The tokens that the model must read."""
        return self.ids + (self.answer_ids if self.look_ahead else self.answer_ids[:-1])


@dataclass(frozen=True)
class PromptCodec:
    """A tokenizer, and what it takes to turn prompts into tokens exactly."""

    tokenizer: Any = field(repr=False)  # of transformers
    context: int  # the most tokens that the model can read

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer carries a chat template."""
        return getattr(self.tokenizer, "chat_template", None) is not None

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Apply the tokenizer's own chat template, up to the start of the assistant's turn."""
        text = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return str(text)

    @cached_property
    def _bos(self) -> tuple[int, ...]:
        """Special tokens the tokenizer puts before a text that is not a chat."""
        bare = self.tokenizer("a", add_special_tokens=False).input_ids
        full = self.tokenizer("a").input_ids
        return tuple(full[: full.index(bare[0])]) if bare and bare[0] in full else ()

    def tokens(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        """Tokenise a text, with the tokenizer's own beginning where ``special``."""
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        return (*(self._bos if special else ()), *ids)

    def encode(
        self,
        prompt: Prompt,
        *,
        answer: str | None = None,
        room: int = 0,
        where: str = "",
        look_ahead: bool = False,
    ) -> Encoded:
        """Tokenise a prompt and an answer as one text, and find the boundary between them.

        Parameters
        ----------
        prompt : Prompt
        answer : str, optional
            Another answer than the gold one, its separator included.
        room : int, default 0
            Tokens yet to be written, for which the context must have room too.
        where : str
            Names the trial in messages.
        look_ahead : bool, default False
            As of `Encoded`.

        Returns
        -------
        Encoded

        Raises
        ------
        PromptError
            If the answer is empty or its first token merges with the cue, or the two do not fit the context.
        """
        answer = prompt.answer if answer is None else answer
        if not answer.strip():
            raise PromptError(f"{where}: the answer is empty")
        full = self.tokenizer(prompt.text + answer, add_special_tokens=False, return_offsets_mapping=True)
        ids: list[int] = full["input_ids"]
        offsets: list[tuple[int, int]] = full["offset_mapping"]
        alone = self.tokenizer(prompt.text, add_special_tokens=False).input_ids
        n = len(alone)
        if ids[:n] != alone or len(ids) <= n:
            raise PromptError(
                f"{where}: the answer {answer!r} merges with the cue {prompt.text[-12:]!r} into one token",
                hint="end the cue in a character that the tokenizer keeps apart, such as a colon",
            )
        head = () if prompt.chat else self._bos
        if len(head) + len(ids) + room > self.context:
            more = f" and {room} more may be written," if room else ""
            raise PromptError(
                f"{where}: prompt and answer have {len(head) + len(ids)} tokens,{more} "
                f"and the model's context is {self.context}",
                hint="use fewer or shorter shots, shorter items, or a model with a longer context",
            )
        segments = _token_segments(prompt, offsets[:n], shift=len(head))
        return Encoded((*head, *ids[:n]), tuple(ids[n:]), segments, look_ahead)

    def ends_answer(self, token: int) -> bool:
        """Say whether a token after an answer leaves it as it is: it makes no longer word or number."""
        if token in self.stop_ids:
            return True
        text = self.tokenizer.decode([token])
        return not text[:1].isalnum()

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids of the special tokens: each ends a completion."""
        return frozenset(self.tokenizer.all_special_ids)


def _token_segments(
    prompt: Prompt, offsets: Sequence[tuple[int, int]], *, shift: int
) -> tuple[tuple[str, int, int], ...]:
    spans: list[tuple[str, int, int]] = []
    at = 0
    for name, begin, end in prompt.segments:
        # A token belongs to the segment its last character is in: its first may be the space before.
        while at < len(offsets) and offsets[at][1] - 1 < begin:
            at += 1
        start = at
        while at < len(offsets) and offsets[at][1] - 1 < end:
            at += 1
        if at > start:
            spans.append((name, start + shift, at + shift))
    return tuple(spans)


@dataclass(frozen=True)
class LocalModel:
    """A loaded model.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        In evaluation mode, on ``device``.
    codec : PromptCodec
    name : str
        As the study gives it.
    sha256 : str
        Over its configuration, weights and tokenizer.
    device : torch.device
    dtype : torch.dtype
    packs : bool
        Whether the model computes packed tries exactly; else batches are padded and prefixes computed anew.
    blocks : bool
        Whether it does so too with its attention in blocks (:mod:`whyprompt.trials.models.blocks`).
    parts : bool
        Whether a part of a pack gives the digits of the whole, where that was asked for.
    onednn : bool or None
        Whether float32 products on a CPU go by oneDNN, as measured at loading; None elsewhere.
    device_name : str or None
        Of a GPU.
    notes : tuple of str
        What was measured and decided at loading.
    """

    model: Any = field(repr=False)
    codec: PromptCodec
    name: str
    sha256: str
    device: torch.device
    dtype: torch.dtype
    packs: bool
    blocks: bool = True
    parts: bool = False
    onednn: bool | None = None
    device_name: str | None = None
    notes: tuple[str, ...] = ()

    def described(self) -> LocalModel:
        """Give the model without its weights and tokenizer: what another process needs to load it alike."""
        codec: Any = None
        return replace(self, model=None, codec=codec)

    @property
    def fingerprint(self) -> str:
        """Hash of the files, the data type and the kind of device: what decides the numbers."""
        text = f"{self.sha256}|{self.dtype}|{self.device.type}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def token_budget(self) -> int:
        """Tokens computed at once: enough to keep the device busy, few enough for its caches."""
        return 768 if self.device.type == "cpu" else 4096
