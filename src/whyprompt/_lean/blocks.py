"""A feed-forward block some rows at a time: what lies between its products stays in the processor's cache.

The block computes every token by itself, so it may be given any number of them at once. Over a whole batch,
the numbers between its products are written to memory and read again, several times as many as its input.
"""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING

import torch
from transformers import activations
from transformers.pytorch_utils import Conv1D

from whyprompt._lean.products import round_up
from whyprompt._lean.wide import carrier_here

if TYPE_CHECKING:
    from collections.abc import Callable


# Enough for the products to be at full speed, about.
_ROWS = 256
_PRODUCTS = {torch.nn.Linear, Conv1D}
_ELEMENTWISE = {
    *(kind[0] if isinstance(kind, tuple) else kind for kind in activations.ACT2CLS.values()),
    torch.nn.Dropout,
    torch.nn.Identity,
}

# What was found of each class of blocks: it is its code that decides.
_by_token: dict[type, bool] = {}


def block_forward(module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Give a feed-forward block's ``forward`` by some rows at a time; None for a module that is not one.

    A block is known by its parts: products with weights, elementwise functions, and nothing else. Whether it
    takes every token by itself is tried on the first batch that a block of its class is given.
    """
    kind = type(module)
    parts = list(module.children())
    if (
        not kind.__name__.endswith("MLP")
        or sum(type(part) in _PRODUCTS for part in parts) < 2
        or not all(type(part) in _PRODUCTS or type(part) in _ELEMENTWISE for part in parts)
        or any(True for _ in module.parameters(recurse=False))
    ):
        return None
    return MethodType(_in_pieces, module)


# A method, not a closure: a copy of the block then computes with its own weights.
def _in_pieces(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    kind = type(module)
    own: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor] = kind.forward
    rows = x.shape[:-1].numel()
    if (
        rows <= _ROWS * 3 // 2
        or x.device.type != "cpu"
        or torch.is_grad_enabled()
        or module.training
        or any(m._forward_hooks or m._forward_pre_hooks for m in module.children())  # noqa: SLF001 - each call counts
    ):
        return own(module, x)
    flat = x.reshape(1, rows, -1)
    if kind not in _by_token:
        _by_token[kind] = _takes_each_by_itself(own, module, flat[:, :1])
    if not _by_token[kind]:
        return own(module, x)
    count = -(-rows // _ROWS)
    size = round_up(-(-rows // count))
    if (carrier := carrier_here()) is None:
        done = [own(module, part) for part in flat.split(size, 1)]
    else:
        size = -(-size // x.shape[-2]) * x.shape[-2]  # whole rows: a carrier knows each
        done = []
        for start in range(0, rows, size):
            carrier.piece = start, min(rows, start + size)
            done.append(own(module, flat[:, slice(*carrier.piece)]))
        carrier.piece = None
    return torch.cat(done, 1).view(*x.shape[:-1], -1)


def _takes_each_by_itself(
    own: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor], module: torch.nn.Module, token: torch.Tensor
) -> bool:
    """Whether two unlike tokens give together what each gives alone, to the rounding of half precision."""
    other = -token.flip(-1)
    together = own(module, torch.cat([token, other], 1))
    alone = torch.cat([own(module, token), own(module, other)], 1)
    return float((together - alone).abs().max()) <= 0.02 * float(together.abs().max())
