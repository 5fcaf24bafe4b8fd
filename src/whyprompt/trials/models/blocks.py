"""Attention over a packed trie in blocks: what no token of a block may see is not computed.

A token of a trie sees its root and its ancestors only, so most of the square of a pack's tokens is masked.
Tokens stand in depth-first order, and what a run of neighbours may see between them is a small part of all
keys: each run attends to that part, through the model's own function.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from whyprompt._attention import attention_through

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

_NAME = "whyprompt_blocks"

# Queries a block: fewer see fewer keys, and make more calls.
_queries: ContextVar[int] = ContextVar("whyprompt_block_queries", default=64)


# Neighbouring queries, the keys that any of them may see, and the mask between them.
_Block = tuple[slice, torch.Tensor, torch.Tensor]
# The whole mask, and its blocks.
_plan: ContextVar[tuple[torch.Tensor, list[_Block]] | None] = ContextVar(
    "whyprompt_attention_blocks", default=None
)


def plan_blocks(mask: torch.Tensor, *, queries: int) -> list[_Block]:
    """Cut a mask into blocks of about so many neighbouring queries.

    The mask, of shape (1, 1, n_queries, n_keys), is additive: zero where a query may look, hugely negative
    elsewhere. Every query is in one block, and every key that it may see is among the block's.
    """
    n = mask.shape[2]
    parts = max(1, round(n / queries))
    edges = [n * i // parts for i in range(parts + 1)]
    blocks: list[_Block] = []
    for start, stop in pairwise(edges):
        rows = mask[:, :, start:stop]
        keys = (rows[0, 0] == 0).any(0).nonzero()[:, 0]
        blocks.append((slice(start, stop), keys, rows[..., keys].contiguous()))
    return blocks


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,  # noqa: ANN401 - what the model's own function is given
) -> tuple[torch.Tensor, None]:
    plan = _plan.get()
    # A layer that makes a mask of its own, or adds a bias for each position, is left as it is.
    if plan is None or attention_mask is not plan[0] or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    outputs = [
        sdpa_attention_forward(module, query[:, :, rows], key[:, :, keys], value[:, :, keys], mask, **kwargs)[
            0
        ]
        for rows, keys, mask in plan[1]
    ]
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)


@contextmanager
def _blocks(model: torch.nn.Module, mask: torch.Tensor) -> Iterator[None]:
    token = _plan.set((mask, plan_blocks(mask, queries=_queries.get())))
    try:
        with attention_through(model, _NAME):
            yield
    finally:
        _plan.reset(token)


def in_blocks(model: Any, mask: torch.Tensor) -> AbstractContextManager[None]:  # noqa: ANN401 - a transformers model
    """Compute a model's attention under a mask in blocks, where that is known to be the same and faster.

    The mask, of shape (1, 1, n_queries, n_keys), is the additive one that the model is then given. Does
    nothing for a model whose attention is not torch's own ("sdpa"), on another device than a CPU, and for a
    mask of few queries.
    """
    own = getattr(model.config, "_attn_implementation", None)
    if own != "sdpa" or mask.device.type != "cpu" or mask.shape[2] < 2 * _queries.get():
        return nullcontext()
    return _blocks(model, mask)


@contextmanager
def block_queries(n: int) -> Iterator[None]:
    """Set how many queries a block has: a probe of few tokens takes small ones."""
    token = _queries.set(n)
    try:
        yield
    finally:
        _queries.reset(token)
