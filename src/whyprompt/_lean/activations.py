"""The activation of GPT-2 without its temporaries: the same function, block by block in the cache.

transformers writes it as seven operations over the whole batch, which take longer than a fifth of
the products around it once a batch leaves the cache.
"""

from __future__ import annotations

import math
from types import MethodType
from typing import TYPE_CHECKING

import torch
from transformers.activations import NewGELUActivation

if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCK = 1 << 15
_LINEAR = 2 * math.sqrt(2 / math.pi)
_CUBIC = _LINEAR * 0.044715


def gelu_new(x: torch.Tensor) -> torch.Tensor:
    r"""``x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))``, by ``(1 + tanh(u)) / 2 = sigmoid(2 u)``.

    Hendrycks and Gimpel (2016). Gaussian error linear units, section 2 (the tanh approximation).

    >>> round(float(gelu_new(torch.tensor(1.0))), 4)
    0.8412
    """
    if x.device.type != "cpu":
        return torch.nn.functional.gelu(x, approximate="tanh")
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    for part, into in zip(x.reshape(-1).split(_BLOCK), out.view(-1).split(_BLOCK), strict=True):
        torch.mul(part, part, out=into)
        into.mul_(_CUBIC).add_(_LINEAR).mul_(part).sigmoid_().mul_(part)
    return out


def activation_forward(module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Give the ``forward`` of a ``gelu_new`` layer by the function above; None for another layer.

    In half precision the order of the operations shows, so what is given in it takes the layer's own.
    """
    return MethodType(_gelu_new, module) if type(module) is NewGELUActivation else None


def _gelu_new(layer: NewGELUActivation, x: torch.Tensor) -> torch.Tensor:
    plain = x.dtype in {torch.float32, torch.float64} and not torch.is_grad_enabled()
    return gelu_new(x) if plain else NewGELUActivation.forward(layer, x)
