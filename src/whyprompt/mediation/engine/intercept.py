"""The one attention function registered with transformers, and its switch.

While `intercept` is open, every attention layer of the model hands its queries, keys
and values to a handler and takes the heads' outputs z back. No model is re-implemented:
projections, rotary phases, norms, experts and the output projection stay the model's own.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from whyprompt._attention import attention_through
from whyprompt._lean.layers import lean_layers
from whyprompt.errors import MediationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

NAME = "whyprompt"


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """What one attention layer hands over.

    `query` is (rows, heads, tokens, key_dim), `key` (rows, kv_heads, tokens, key_dim), `value` (rows,
    kv_heads, tokens, value_dim). `mask`, (1, 1, tokens, tokens), is boolean (True is visible) or additive; a
    sliding `window` is used only without one. `sinks` are logits of attention sinks, (heads,).
    """

    module: torch.nn.Module
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    scaling: float
    softcap: float | None
    window: int | None
    sinks: torch.Tensor | None


if TYPE_CHECKING:
    Handler = Callable[[AttentionCall], torch.Tensor]
else:
    Handler = object

_handler: ContextVar[Handler | None] = ContextVar("whyprompt_attention_handler", default=None)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,  # noqa: ANN401  # transformers passes flags of other backends along
) -> tuple[torch.Tensor, None]:
    handler = _handler.get()
    if handler is None:
        raise MediationError(
            f"attention implementation {NAME!r} was called outside an analysis",
            hint="load the model with attn_implementation='sdpa' or 'eager'",
        )
    if kwargs.get("position_bias") is not None:
        raise MediationError(f"{type(module).__name__} adds a position bias, which is not supported")
    call = AttentionCall(
        module,
        query,
        key,
        value,
        attention_mask,
        query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        softcap,
        sliding_window,
        s_aux,
    )
    return handler(call), None


def _mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:  # noqa: ANN401  # transformers' own signature
    """Spell out the model's boolean mask: it carries windows and chunks."""
    kwargs["allow_is_causal_skip"] = False
    kwargs["allow_is_bidirectional_skip"] = False
    mask: torch.Tensor | None = sdpa_mask(*args, **kwargs)
    return mask


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)


@contextmanager
def intercept(model: torch.nn.Module) -> Iterator[None]:
    """Route the model's attention through this module, and restore it afterwards.

    Calls of the model inside must be made under `handling`.
    """
    was_training = model.training
    try:
        model.eval()
        with attention_through(model, NAME), lean_layers(model):
            yield
    finally:
        model.train(was_training)


@contextmanager
def handling(handler: Handler) -> Iterator[None]:
    """Set the handler of every attention call, which gives z (rows, tokens, heads, value_dim)."""
    token = _handler.set(handler)
    try:
        yield
    finally:
        _handler.reset(token)
