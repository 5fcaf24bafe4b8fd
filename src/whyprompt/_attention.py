"""The switch by which a model's attention goes through another registered function for a while."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

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
