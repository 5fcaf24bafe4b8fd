"""A model in half precision, computed in float32: its linear layers' weights stay as they are.

Every number of a half-precision checkpoint is a float32 number too, so what is computed is what the same
checkpoint gives where it is loaded in float32, in half the memory: the weights of a product are widened for
the time of that product.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from types import MethodType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from transformers.pytorch_utils import Conv1D

from whyprompt._lean.products import linear

if TYPE_CHECKING:
    from collections.abc import Iterator

HALF = frozenset({torch.bfloat16, torch.float16})
PRODUCTS = frozenset({torch.nn.Linear, Conv1D})
# So many weights are widened at a time: what few rows wait for stays in the cache.
_BLOCK = 1 << 20


class Narrowed(Exception):  # noqa: N818 - not an error of anybody's: a model that casts to its weights' type
    """A model's own code has rounded what its products are given."""


class Carrier(Protocol):
    """Who takes over some products of a model for a while."""

    piece: tuple[int, int] | None
    """Which tokens of the batch the products at hand are given; None for all of them."""

    def product(self, layer: Any, x: torch.Tensor, /) -> torch.Tensor | None:  # noqa: ANN401 - Linear or Conv1D
        """Give the product of a layer with `x`, its bias added, or None where it is none of theirs."""


_carrier: ContextVar[Carrier | None] = ContextVar("whyprompt_product_carrier", default=None)


@contextmanager
def carrying(carrier: Carrier) -> Iterator[None]:
    """Hand the products of a widened model to a carrier."""
    token = _carrier.set(carrier)
    try:
        yield
    finally:
        _carrier.reset(token)


def carrier_here() -> Carrier | None:
    """Who takes over products at the moment."""
    return _carrier.get()


def is_half(model: torch.nn.Module) -> bool:
    """Whether a model has plain weights in half precision, neither quantised nor moved about by hooks."""
    return (
        any(p.dtype in HALF for p in model.parameters())
        and all(type(p) in {torch.nn.Parameter, torch.Tensor} for p in model.parameters())
        and not getattr(model, "is_quantized", False)
        and not any(hasattr(m, "_hf_hook") for m in model.modules())
    )


@contextmanager
def wide_layers(model: torch.nn.Module, *, whole: bool = False) -> Iterator[None]:
    """Compute a model in half precision in float32 for a while; another model is left alone.

    The weights of linear layers and embeddings stay as they are; all else that a model has in half precision
    is held in float32 beside it, and with `whole` everything is. That is little but for experts, which are
    most of a mixture, and embeddings of a class of their own.
    """
    swapped: list[tuple[dict[str, Any], str, Any]] = []
    replaced: list[torch.nn.Module] = []
    wide: dict[int, torch.Tensor] = {}
    try:
        # Numbers made in inference mode know no gradient afterwards.
        with torch.inference_mode(mode=False), torch.no_grad():
            for module in model.modules():
                forward = None if whole or "forward" in module.__dict__ else _FORWARDS.get(type(module))
                kept = forward is not None and _plain(module.weight)
                holders: tuple[dict[str, Any], ...] = module._parameters, module._buffers  # noqa: SLF001
                for held in holders:
                    for name, value in held.items():
                        if value is None or value.dtype not in HALF or (kept and name == "weight"):
                            continue
                        if id(value) not in wide:
                            wide[id(value)] = _like(value)
                        swapped.append((held, name, value))
                        held[name] = wide[id(value)]
                if kept and forward is not None:
                    module.__dict__["forward"] = MethodType(forward, module)
                    replaced.append(module)
        yield
    finally:
        for held, name, value in swapped:
            held[name] = value
        for module in replaced:
            del module.__dict__["forward"]


def _like(value: torch.Tensor) -> torch.Tensor:
    new = value.float()
    return torch.nn.Parameter(new, requires_grad=False) if isinstance(value, torch.nn.Parameter) else new


def _plain(weight: Any) -> bool:  # noqa: ANN401 - a module's attribute
    return (
        type(weight) in {torch.nn.Parameter, torch.Tensor}
        and weight.dtype in HALF
        and weight.layout is torch.strided
        and weight.ndim == 2
    )


def weights_of(layer: Any) -> torch.Tensor:  # noqa: ANN401 - Linear or Conv1D
    """Weights of a layer, (outputs, inputs); GPT-2's are stored (inputs, outputs)."""
    weight: torch.Tensor = layer.weight
    return weight.T if type(layer) is Conv1D else weight


def wide_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``x @ weight.T + bias`` in float32, of weights in half precision.

    >>> wide_product(torch.ones(2, 3), torch.ones(1, 3, dtype=torch.bfloat16)).tolist()
    [[3.0], [3.0]]
    """
    step = max(1, _BLOCK // weight.shape[1])
    if len(weight) <= step:
        return linear(x, weight, bias)
    y = torch.cat([linear(x, part) for part in weight.split(step)], -1)
    return y if bias is None else y + bias


def wide_product_back(y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``y @ weight`` in float32, of weights (outputs, inputs) in half precision.

    >>> wide_product_back(torch.ones(2, 1), torch.ones(1, 3, dtype=torch.bfloat16)).tolist()[0]
    [1.0, 1.0, 1.0]
    """
    step = max(1, _BLOCK // weight.shape[1])
    parts = zip(y.split(step, -1), weight.split(step), strict=True)
    # Rows of weights are read as they lie; their columns would be far apart.
    return sum((linear(part, rows.T) for part, rows in parts), y.new_zeros(()))


def _product(layer: Any, x: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - Linear or Conv1D
    if x.dtype in HALF:
        raise Narrowed
    if (carrier := _carrier.get()) is not None and (y := carrier.product(layer, x)) is not None:
        return y
    return wide_product(x, weights_of(layer), layer.bias)


def _embedding(layer: Any, ids: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - torch.nn.Embedding
    return torch.nn.Embedding.forward(layer, ids).float()


_FORWARDS = dict.fromkeys(PRODUCTS, _product) | {torch.nn.Embedding: _embedding}
