"""Loading a model or its tokenizer, and measuring how the model is to be run."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from whyprompt._attention import entry_device
from whyprompt._words import first_line
from whyprompt._workers.seat import threads_here
from whyprompt.errors import ModelError
from whyprompt.trials.models.local import LocalModel, PromptCodec
from whyprompt.trials.models.locate import locate_model, made_again, quiet_transformers
from whyprompt.trials.models.scoring import probe_packing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import torch

    from whyprompt.study import ModelSettings


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
    device_map: str | Mapping[str, str | int] | None = None,
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
        ``"auto"`` takes a CUDA device where there is one. The whole model is on one device, but for
        ``device_map``.
    dtype : str, default "auto"
        ``"auto"`` is float32, also for a checkpoint in half precision, whose weights then take twice the
        memory of their files: the rounding of half precision can be as large as the effects to be measured.
        On a GPU it is bfloat16 for a checkpoint in bfloat16, which is what such a model was made in.
    device_map : str or mapping, optional
        How a model that one GPU cannot hold is spread over several, as transformers has it: ``"auto"``,
        ``"balanced"``, ``"sequential"``, or the device of each of its parts.
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

    from whyprompt._lean.products import onednn_pays, products_note

    torch.set_num_threads(threads or threads_here())
    folder, sha256 = locate_model(name, revision=revision)
    where = _entry(device, device_map)
    with quiet_transformers():
        codec, config = _read(name, folder)
        chosen, note = _dtype(dtype, config, where)
        model, where = _weights(name, folder, chosen, where, device_map)
    probed, why = probe_packing(
        LocalModel(model=model, codec=codec, name=name, sha256=sha256, device=where, dtype=chosen, packs=True)
    )
    notes = [note, why]
    onednn = None
    if where.type == "cpu" and chosen is torch.float32:
        notes.insert(1, products_note())
        onednn = onednn_pays()
    if (placed := getattr(model, "hf_device_map", None)) and device_map is not None:
        notes.append(f"spread over {', '.join(sorted({str(d) for d in placed.values()}))}")
    cuda = where.type == "cuda"
    return replace(
        probed,
        notes=tuple(notes),
        onednn=onednn,
        device_name=torch.cuda.get_device_name(where) if cuda else None,
    )


def sweep_dtype(settings: ModelSettings) -> str:
    """Name the type in which a study's weights are loaded for sweeps, which compute in float32 anyway.

    A checkpoint in bfloat16 keeps it, and takes half the memory, where the processor multiplies bfloat16
    clearly faster. Otherwise it is as the study says.
    """
    import torch

    from whyprompt._lean.products import bfloat16_pays

    if settings.dtype != "auto" or settings.device_map is not None:
        return settings.dtype
    if _entry(settings.device, None).type != "cpu":
        return settings.dtype
    _require_local()
    folder, _ = locate_model(settings.name, revision=settings.revision)
    with quiet_transformers():
        _, config = _read(settings.name, folder)
    kept = getattr(config, "dtype", None) is torch.bfloat16 and bfloat16_pays()
    return "bfloat16" if kept else settings.dtype


def load_again(
    like: LocalModel,
    *,
    revision: str | None,
    device: str,
    device_map: str | Mapping[str, str | int] | None,
    threads: int | None,
) -> LocalModel:
    """Load in a worker the model that another process has loaded and measured, and take over what it found.

    Nothing is measured anew, so that workers compute alike; `like` needs neither weights nor tokenizer, and
    the rest is as in `load_model`.

    Raises
    ------
    ModelError
        If the files here are others, or the device is of another kind.
    """
    _require_local()
    import torch

    from whyprompt._lean.products import decide_products

    torch.set_num_threads(threads or threads_here())
    folder, sha256 = locate_model(like.name, revision=revision)
    if sha256 != like.sha256:
        raise ModelError(
            f"the files of the model {like.name!r} in {folder} are others than the driver's:"
            f" {sha256[:12]}, not {like.sha256[:12]}",
            hint="give every node the same files, or name a revision on the hub",
        )
    where = _entry(device, device_map)
    if where.type != like.device.type:
        raise ModelError(
            f"this worker would run the model on {where.type}, and another runs it on {like.device.type}",
            hint="name model.device in the study, and give every worker its GPU: --gpus-per-worker 1",
        )
    if like.onednn is not None:
        decide_products(onednn=like.onednn)
    with quiet_transformers():
        codec, _ = _read(like.name, folder)
        model, where = _weights(like.name, folder, like.dtype, where, device_map)
    return replace(like, model=model, codec=codec, device=where)


def _weights(
    name: str,
    folder: Path,
    dtype: torch.dtype,
    where: torch.device,
    device_map: str | Mapping[str, str | int] | None,
) -> tuple[Any, torch.device]:
    """Load the weights onto their device or devices; the model, and where it takes its tokens."""
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM  # its type does not know the second value asked for
    spread = {} if device_map is None else {"device_map": device_map}
    with _loading(name, folder, "model"):
        model, found = loader.from_pretrained(
            str(folder), dtype=dtype, trust_remote_code=False, output_loading_info=True, **spread
        )
    # Left alone, transformers fills weights that the files lack with random numbers.
    lacking = sorted({*found["missing_keys"], *(m[0] for m in found["mismatched_keys"])})
    if lacking:
        raise ModelError(
            f"the model {name!r} has no usable weights for {lacking[0]!r} ({len(lacking)} in all)",
            hint="is it a causal language model, and are its files complete?",
        )
    model = model.eval().requires_grad_(requires_grad=False)
    if device_map is None:
        return model.to(where), where
    return model, entry_device(model)


def _entry(device: str, device_map: str | Mapping[str, str | int] | None) -> torch.device:
    """Give the device on which the model takes its tokens, as far as it can be known before it is loaded."""
    import torch

    if device_map is None:
        return usable_device(device)
    if device != "auto":
        raise ModelError(
            f"model.device is {device!r}, and model.device_map says where each part of the model is",
            hint="leave one of them out",
        )
    if isinstance(device_map, str) and not torch.cuda.is_available():
        raise ModelError(
            f"model.device_map {device_map!r} spreads a model over GPUs, and none can be used here",
            hint="leave it out, or run where there are some",
        )
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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


def _dtype(name: str, config: Any, where: torch.device) -> tuple[torch.dtype, str]:  # noqa: ANN401
    import torch

    chosen: torch.dtype
    if name != "auto":
        chosen = getattr(torch, name)
        return chosen, f"dtype {name}: as the study asks{_rounded(chosen)}"
    own = getattr(config, "dtype", None) or torch.float32
    if own is torch.bfloat16 and where.type == "cuda":
        return own, f"dtype bfloat16: the checkpoint's own, on a GPU{_rounded(own)}"
    if own in {torch.bfloat16, torch.float16}:
        own = str(own).removeprefix("torch.")
        return (
            torch.float32,
            f"dtype float32: the checkpoint is in {own}, whose rounding would blur the effects",
        )
    return torch.float32, "dtype float32: the checkpoint's own"


def _rounded(dtype: torch.dtype) -> str:
    """Say to what logits are rounded in half precision."""
    import torch

    step = 16 * torch.finfo(dtype).eps
    # Logits of that size are usual; float32 has them to a millionth.
    return f"; logits between 16 and 32 are rounded to steps of {step:.2g}" if step > 1e-3 else ""
