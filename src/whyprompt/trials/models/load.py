"""Loading a model or its tokenizer, and measuring how the model is to be run."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from whyprompt._words import first_line
from whyprompt.errors import ModelError
from whyprompt.trials.models.local import LocalModel, PromptCodec
from whyprompt.trials.models.locate import locate_model, made_again, quiet_transformers
from whyprompt.trials.models.scoring import probe_packing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch


def _read(name: str, folder: Path) -> tuple[PromptCodec, Any]:
    """Read a model's tokenizer and configuration, which transformers has no common types of."""
    from transformers import AutoConfig, AutoTokenizer

    with _loading(name, folder, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer of {name!r} does not give character offsets",
            hint="use a model with a fast tokenizer (tokenizer.json)",
        )
    with _loading(name, folder, "configuration"):
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    return PromptCodec(tokenizer, _context(config, tokenizer)), config


@contextmanager
def _loading(name: str, folder: Path, what: str) -> Iterator[None]:
    """Turn what a library raises on a model's files into one message."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"the model {name!r} brings code of its own (auto_map in {folder}), which is never run",
                hint="use a model whose architecture is part of transformers",
            ) from None
        again = made_again(folder)
        raise ModelError(
            f"the {what} of {name!r} cannot be loaded: {first_line(error)}",
            hint=f"delete the folder {folder}: it is made again" if again else None,
        ) from None


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
    folder, _ = locate_model(name, revision=revision)
    with quiet_transformers():
        return _read(name, folder)[0]


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

    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    folder, sha256 = locate_model(name, revision=revision)
    where = usable_device(device)
    with quiet_transformers():
        codec, config = _read(name, folder)
        chosen, note = _dtype(dtype, config)
        loader: Any = AutoModelForCausalLM  # its type does not know the second value asked for
        with _loading(name, folder, "model"):
            model, found = loader.from_pretrained(
                str(folder), dtype=chosen, trust_remote_code=False, output_loading_info=True
            )
    # Left alone, transformers fills weights that the files lack with random numbers.
    lacking = sorted({*found["missing_keys"], *(m[0] for m in found["mismatched_keys"])})
    if lacking:
        raise ModelError(
            f"the model {name!r} has no usable weights for {lacking[0]!r} ({len(lacking)} in all)",
            hint="is it a causal language model, and are its files complete?",
        )
    model = model.eval().requires_grad_(requires_grad=False).to(where)
    probed, why = probe_packing(
        LocalModel(model=model, codec=codec, name=name, sha256=sha256, device=where, dtype=chosen, packs=True)
    )
    notes = [note, why]
    if where.type == "cpu" and chosen is torch.float32:
        notes.insert(1, products_note())
    return replace(probed, notes=tuple(notes))


def usable_device(name: str) -> torch.device:
    """Give the device of a name, ``"auto"`` included.

    Refuses one that is not, or holds no numbers (``meta``).
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"model.device is {name!r}, which cannot be used: {first_line(error)}", hint="use 'auto' or 'cpu'"
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
