"""The switch by which a model's layers are computed by faster routines for a while."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from whyprompt._lean.activations import activation_forward
from whyprompt._lean.blocks import block_forward
from whyprompt._lean.products import linear_forward

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch


@contextmanager
def lean_layers(model: torch.nn.Module) -> Iterator[None]:
    """Compute a model's linear layers, ``gelu_new`` and feed-forward blocks by faster routines for a while.

    Only layers of exactly the known classes are touched, and none whose ``forward`` somebody has replaced:
    whoever did so meant it. Hooks on a layer are called once a call of the model, as ever. A model that is
    copied inside the block keeps the faster routines, with the copy's own weights. Afterwards every layer has
    its own ``forward`` again.
    """
    replaced = []
    try:
        for module in model.modules():
            if "forward" in module.__dict__:
                continue
            forward = linear_forward(module) or activation_forward(module) or block_forward(module)
            if forward is not None:
                module.__dict__["forward"] = forward
                replaced.append(module)
        yield
    finally:
        for module in replaced:
            del module.__dict__["forward"]
