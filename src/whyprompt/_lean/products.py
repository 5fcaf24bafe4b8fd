"""Products with a layer's weights: by oneDNN or by bfloat16, where that is measured to be clearly faster.

torch computes float32 products by MKL, which leaves half of the vector unit of some processors idle that are
not its maker's. oneDNN, which torch carries for half precision, uses all of it. Products of bfloat16 numbers
are twice as many a second again where the processor has them.
"""

from __future__ import annotations

import statistics
import time
from functools import lru_cache
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from transformers.pytorch_utils import Conv1D

from whyprompt._cache import remembered_ratio

if TYPE_CHECKING:
    from collections.abc import Callable

_CLEARLY = 1.2
# Fewer rows wait for the weights to be read, by either routine.
_LEAST_ROWS = 4
_ROUNDS = 9
# What another process has found; nothing where this one measures itself.
_decided: list[bool] = []


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``x @ weight.T + bias``, by the faster routine; x is (..., inputs), weight (outputs, inputs).

    Weights in half precision are widened to the type of float32 rows.

    Examples
    --------
    >>> linear(torch.ones(5, 2), torch.ones(3, 2)).tolist()[0]
    [2.0, 2.0, 2.0]
    """
    if x.dtype is torch.float32:
        weight = weight.float()
    if _fits(weight) and _takes(x) and onednn_pays():
        return _onednn(x, weight, bias)
    return torch.nn.functional.linear(x, weight, bias)


def linear_forward(module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Give a linear layer's ``forward`` by oneDNN; None for another layer, or where it does not pay."""
    kind = type(module)
    if kind not in {torch.nn.Linear, Conv1D} or not _fits(module.weight) or not onednn_pays():
        return None
    return MethodType(_linear_by_onednn if kind is torch.nn.Linear else _conv1d_by_onednn, module)


# Methods, not closures: a copy of the layer then computes with its own weights.
def _linear_by_onednn(layer: Any, x: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - torch.nn.Linear
    return _onednn(x, layer.weight, layer.bias) if _takes(x) else torch.nn.Linear.forward(layer, x)


def _conv1d_by_onednn(layer: Any, x: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - transformers' Conv1D
    # GPT-2's weights are stored (inputs, outputs).
    own: Callable[[Any, torch.Tensor], torch.Tensor] = Conv1D.forward
    return _onednn(x, layer.weight.T, layer.bias) if _takes(x) else own(layer, x)


def _fits(weight: Any) -> bool:  # noqa: ANN401 - a module's attribute
    """Whether weights are plain float32 numbers on the CPU, neither quantised nor wrapped."""
    return (
        type(weight) in {torch.nn.Parameter, torch.Tensor}
        and weight.dtype is torch.float32
        and weight.device.type == "cpu"
        and weight.layout is torch.strided
        and weight.ndim == 2
        and (weight.is_contiguous() or weight.T.is_contiguous())
    )


def _takes(x: torch.Tensor) -> bool:
    return (
        x.dtype is torch.float32
        and x.numel() >= _LEAST_ROWS * x.shape[-1] > 0
        and not torch.is_grad_enabled()  # oneDNN's product knows no gradient
        and not torch.is_autocast_enabled("cpu")
    )


def round_up(rows: int) -> int:
    """Give the next of eight sizes an octave.

    oneDNN compiles a routine of 0.6 MiB for every new number of rows and keeps a thousand of them.

    >>> [round_up(n) for n in (5, 16, 100, 600, 640)]
    [8, 16, 104, 640, 640]
    """
    step = max(4, 1 << max(rows.bit_length() - 4, 0))
    return -(-rows // step) * step


def room_for(rows: int, tokens: int, like: torch.Tensor) -> int:
    """Say how many rows a batch takes: products of rows that come in such numbers are not padded by a copy.

    At least `rows`, those wanted, of as many `tokens` each, on the device and in the type of `like`.
    """
    if like.dtype is not torch.float32 or like.device.type != "cpu" or not onednn_pays():
        return rows
    room = round_up(rows * tokens)
    return rows if room % tokens else room // tokens


def _onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    flat = x.reshape(-1, x.shape[-1])
    rows = len(flat)
    if (room := round_up(rows)) > rows:
        padded = flat.new_empty(room, flat.shape[1])
        padded[:rows] = flat
        padded[rows:] = 0
        flat = padded
    # What torch.compile calls for a linear layer on a CPU.
    y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(flat, weight, bias, "none", [], "")  # noqa: SLF001
    return y[:rows].view(*x.shape[:-1], len(weight))


def onednn_pays() -> bool:
    """Whether oneDNN's products are clearly faster here, as measured once on a machine, or as decided."""
    return _decided[0] if _decided else _ratio(1) >= _CLEARLY


def decide_products(*, onednn: bool) -> None:
    """Multiply in this process as another has measured to be right: the numbers are then the same."""
    _decided[:] = [onednn]


def products_note() -> str:
    """Say which routine multiplies, and why."""
    ratio = _ratio(1)
    if ratio == 0:
        return "products by torch's own routine: oneDNN's cannot be used here"
    chosen = "oneDNN" if ratio >= _CLEARLY else "torch's own routine"
    return f"products by {chosen}: oneDNN measured {ratio:.2f} times as fast in float32 here"


def by_bfloat16(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``x @ weight.T`` of float32 rows and weights in bfloat16, by bfloat16 products; float32.

    On a processor by one product, whose rows and results are rounded to a 256th; on a GPU by two, which hold
    sixteen bits of the rows and are summed in float32.
    """
    if x.device.type != "cpu":
        return _two_products(x, weight)
    high, rows = x.bfloat16(), len(x)
    if (room := round_up(rows)) > rows:
        high = torch.cat([high, high.new_zeros(room - rows, high.shape[1])])
    return torch.nn.functional.linear(high, weight)[:rows].float()


def _two_products(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    high = x.bfloat16()
    low = (x - high.float()).bfloat16()
    return _summed_in_float32(high, weight.T) + _summed_in_float32(low, weight.T)


def _summed_in_float32(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.mm(a, b, out_dtype=torch.float32)


def bfloat16_ratio() -> float:
    """How many times as fast bfloat16 products are as the float32 ones taken here, as measured once."""
    return _bfloat16_ratio(onednn_pays())


def bfloat16_pays() -> bool:
    """Whether bfloat16 products are clearly faster here than float32 ones."""
    return bfloat16_ratio() >= _CLEARLY


@lru_cache
def _bfloat16_ratio(onednn: bool) -> float:  # noqa: FBT001 - a key of the cache
    return remembered_ratio(f"bfloat16-1-{onednn}", _measure_bfloat16)


def _measure_bfloat16() -> float:
    x, weight = _operands()
    half, narrow = weight.bfloat16(), x.bfloat16()
    return _median_ratio(lambda: linear(x, weight), lambda: torch.nn.functional.linear(narrow, half))


@lru_cache
def _ratio(threads: int) -> float:
    return remembered_ratio(f"onednn-{threads}", _measure)


def _operands() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(96, 768, generator=draw), torch.randn(3072, 768, generator=draw)


def _right() -> bool:
    """Whether this build of torch has oneDNN's product, and it gives what torch's own gives."""
    x, weight = _operands()
    try:
        with torch.inference_mode():
            wanted = x @ weight.T
            off = [(_onednn(x, w, None) - wanted).abs().max() for w in (weight, weight.T.contiguous().T)]
    except (AttributeError, RuntimeError):
        return False
    return all(float(one) <= 1e-5 * 768 for one in off)  # entries are sums of 768 products of size one


def _measure() -> float:
    """How many times as fast as torch's own oneDNN multiplies; 0 where it cannot, or differs."""
    if not _right():
        return 0.0
    x, weight = _operands()
    return _median_ratio(lambda: torch.nn.functional.linear(x, weight), lambda: _onednn(x, weight, None))


def _median_ratio(one: Callable[[], object], other: Callable[[], object]) -> float:
    """How many times as fast the other of two products is."""
    # On one thread: how many there are is then no reason for another routine, and other digits.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # The median of rounds that lie apart: other work on the machine disturbs some of them, seldom most.
    ratios = []
    try:
        with torch.inference_mode():
            for _ in range(_ROUNDS):
                ratios.append(_ratio_of_a_round(one, other))
                time.sleep(0.02)
    finally:
        torch.set_num_threads(threads)
    return statistics.median(ratios)


def _ratio_of_a_round(*products: Callable[[], object]) -> float:
    """How many times as fast the second is, by the best of some products in turn."""
    # The thread's own time: what other processes take is not counted.
    clock = time.thread_time
    best = [float("inf")] * 2
    for _ in range(4):
        for i, product in enumerate(products):
            start = clock()
            product()
            best[i] = min(best[i], clock() - start)
    return best[0] / best[1]
