"""A transformers model seen from outside: where it takes its tokens, and the switch of its attention."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch


@contextmanager
def attention_through(model: torch.nn.Module, name: str) -> Iterator[None]:
    """Route a model's attention through a function of ``transformers.AttentionInterface``, by its name.

    Afterwards every part of the model has its own implementation again.
    """
    configs = {
        id(c): c
        for c in (getattr(m, "config", None) for m in model.modules())
        if c is not None and hasattr(c, "_attn_implementation")
    }
    before = [(c, c._attn_implementation) for c in configs.values()]  # noqa: SLF001 - transformers' own switch
    try:
        for config, _ in before:
            config._attn_implementation = name  # noqa: SLF001 - transformers' own switch
        yield
    finally:
        for config, own in before:
            config._attn_implementation = own  # noqa: SLF001 - transformers' own switch


def entry_device(model: Any) -> torch.device:  # noqa: ANN401 - a transformers model
    """Give the device on which a model takes its tokens, wherever its other parts are."""
    import torch

    embedding = model.get_input_embeddings()
    # Weights that accelerate keeps elsewhere are on no device until it loads them for a call.
    runs_on = getattr(getattr(embedding, "_hf_hook", None), "execution_device", None)
    first = next(embedding.parameters(), None)
    return torch.device(runs_on if runs_on is not None else model.device if first is None else first.device)
