"""A causal language model on this machine, loaded and checked."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from whyprompt.errors import ModelError, PromptError
from whyprompt.trials.models.locate import ModelFiles, locate_model, made_again
from whyprompt.trials.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch

    from whyprompt.trials.prompts import Prompt

__all__ = ["Encoded", "LocalModel", "PromptCodec", "load_codec", "load_model", "usable_device"]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A prompt in tokens.

    Parameters
    ----------
    ids : tuple of int
        The prompt, its cue included.
    answer_ids : tuple of int
        The gold answer, its separator included.
    segments : tuple of (name, start, end)
        Named stretches of ``ids``; tokens of the chat template itself are in none.
    """

    ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    segments: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class PromptCodec:
    """A tokenizer, and what it takes to turn prompts into tokens exactly.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    context : int
        The most tokens the model can read.
    """

    tokenizer: Any = field(repr=False)
    context: int

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

    def encode(self, prompt: Prompt, *, answer: str | None = None, room: int = 0, where: str = "") -> Encoded:
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
        return Encoded(
            ids=(*head, *ids[:n]),
            answer_ids=tuple(ids[n:]),
            segments=_token_segments(prompt, offsets[:n], shift=len(head)),
        )

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
    for segment in prompt.segments:
        # A token belongs to the segment its last character is in: its first may be the space before.
        while at < len(offsets) and offsets[at][1] - 1 < segment.start:
            at += 1
        start = at
        while at < len(offsets) and offsets[at][1] - 1 < segment.end:
            at += 1
        if at > start:
            spans.append((segment.name, start + shift, at + shift))
    return tuple(spans)


@dataclass(frozen=True)
class LocalModel:
    """A loaded model.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        In evaluation mode, on ``device``.
    codec : PromptCodec
    files : ModelFiles
    device : torch.device
    dtype : torch.dtype
    packs : bool
        Whether the model computes packed tries exactly; else batches are padded and prefixes computed anew.
    blocks : bool
        Whether it does so too with its attention in blocks (:mod:`whyprompt.trials.models.blocks`).
    notes : tuple of str
        What was measured and decided at loading.
    """

    model: Any = field(repr=False)
    codec: PromptCodec
    files: ModelFiles
    device: torch.device
    dtype: torch.dtype
    packs: bool
    blocks: bool = True
    notes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Hash of the files, the data type and the kind of device: what decides the numbers."""
        text = f"{self.files.sha256}|{self.dtype}|{self.device.type}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def token_budget(self) -> int:
        """Tokens computed at once: enough to keep the device busy, few enough for its caches."""
        return 768 if self.device.type == "cpu" else 4096


def _load_tokenizer(files: ModelFiles) -> Any:  # noqa: ANN401 - transformers has no common tokenizer type
    from transformers import AutoTokenizer

    with _loading(files, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(str(files.folder), trust_remote_code=False)
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer of {files.name!r} does not give character offsets",
            hint="use a model with a fast tokenizer (tokenizer.json)",
        )
    return tokenizer


def _load_config(files: ModelFiles) -> Any:  # noqa: ANN401 - transformers configurations differ
    from transformers import AutoConfig

    with _loading(files, "configuration"):
        return AutoConfig.from_pretrained(str(files.folder), trust_remote_code=False)


@contextmanager
def _loading(files: ModelFiles, what: str) -> Iterator[None]:
    """Turn what a library raises on a model's files into one message."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"the model {files.name!r} brings code of its own (auto_map in {files.folder}), "
                "which is never run",
                hint="use a model whose architecture is part of transformers",
            ) from None
        again = made_again(files.folder)
        raise ModelError(
            f"the {what} of {files.name!r} cannot be loaded: {_first_line(error)}",
            hint=f"delete the folder {files.folder}: it is made again" if again else None,
        ) from None


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _context(config: Any, tokenizer: Any) -> int:  # noqa: ANN401 - transformers configurations differ
    limits = [
        value
        for name in ("max_position_embeddings", "n_positions", "max_seq_len")
        if isinstance(value := getattr(config, name, None), int) and value > 0
    ]
    if tokenizer.model_max_length < 10**9:
        limits.append(tokenizer.model_max_length)
    return min(limits) if limits else 2048


def load_codec(name: str, *, revision: str | None = None) -> PromptCodec:
    """Load a model's tokenizer without its weights.

    Raises
    ------
    ModelError
        If there is no such model, or its tokenizer cannot be used.
    """
    _require_local()
    files = locate_model(name, revision=revision)
    with quiet_transformers():
        tokenizer = _load_tokenizer(files)
        config = _load_config(files)
    return PromptCodec(tokenizer, _context(config, tokenizer))


def _require_local() -> None:
    try:
        import torch  # noqa: F401 - asked for, not used here
        import transformers  # noqa: F401 - asked for, not used here
    except ImportError as error:
        raise ModelError(
            f"{error.name} is not installed, and running a model needs it",
            hint='pip install "whyprompt[local]"',
        ) from None


def load_model(
    name: str = "embedded",
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
) -> LocalModel:
    """Load a causal language model, and measure how to run it.

    Parameters
    ----------
    name : str, default "embedded"
        ``"embedded"``, a local folder, a ``.gguf`` file, or a name on the hub. Code that a model brings along
        is never run.
    revision : str, optional
        Of a hub model.
    device : str, default "auto"
        ``"auto"`` takes a CUDA device where there is one. The whole model is on one device.
    dtype : str, default "auto"
        ``"auto"`` is float32, also for a checkpoint in half precision, whose weights then take twice the
        memory of their files. The rounding of half precision can be as large as the effects to be measured.
    threads : int, optional
        Threads of torch; all cores by default.

    Returns
    -------
    LocalModel

    Raises
    ------
    ModelError
        If the model cannot be found or loaded, or the device does not exist.
    """
    _require_local()
    import torch
    from transformers import AutoModelForCausalLM

    from whyprompt._lean.products import products_note
    from whyprompt.trials.models.scoring import probe_packing

    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    files = locate_model(name, revision=revision)
    where = usable_device(device)
    with quiet_transformers():
        tokenizer = _load_tokenizer(files)
        config = _load_config(files)
        chosen, note = _dtype(dtype, config)
        loader: Any = AutoModelForCausalLM  # its type does not know the second value asked for
        with _loading(files, "model"):
            model, found = loader.from_pretrained(
                str(files.folder), dtype=chosen, trust_remote_code=False, output_loading_info=True
            )
    # Left alone, transformers fills weights that the files lack with random numbers.
    lacking = sorted({*found["missing_keys"], *(m[0] for m in found["mismatched_keys"])})
    if lacking:
        raise ModelError(
            f"the model {name!r} has no usable weights for {lacking[0]!r} ({len(lacking)} in all)",
            hint="is it a causal language model, and are its files complete?",
        )
    model = model.eval().requires_grad_(requires_grad=False).to(where)
    codec = PromptCodec(tokenizer, _context(config, tokenizer))
    loaded = LocalModel(
        model=model, codec=codec, files=files, device=where, dtype=chosen, packs=True, notes=(note,)
    )
    probed, why = probe_packing(loaded)
    notes = [note, why]
    if where.type == "cpu" and chosen is torch.float32:
        notes.insert(1, products_note())
    return replace(probed, notes=tuple(notes))


def usable_device(name: str) -> torch.device:
    """Give the device of a name, ``"auto"`` included.

    Raises
    ------
    ModelError
        If there is none, or it holds no numbers (``meta``).
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"model.device is {name!r}, which cannot be used: {_first_line(error)}",
            hint="use 'auto' or 'cpu'",
        ) from None
    return device


def _dtype(name: str, config: Any) -> tuple[torch.dtype, str]:  # noqa: ANN401
    import torch

    if name != "auto":
        chosen: torch.dtype = getattr(torch, name)
        step = 16 * torch.finfo(chosen).eps
        # Logits of that size are usual; float32 has them to a millionth.
        rounded = f"; logits between 16 and 32 are rounded to steps of {step:.2g}" if step > 1e-3 else ""
        return chosen, f"dtype {name}: as the study asks{rounded}"
    own = getattr(config, "dtype", None) or torch.float32
    if own in {torch.bfloat16, torch.float16}:
        own = str(own).removeprefix("torch.")
        return (
            torch.float32,
            f"dtype float32: the checkpoint is in {own}, whose rounding would blur the effects",
        )
    return torch.float32, "dtype float32: the checkpoint's own"
