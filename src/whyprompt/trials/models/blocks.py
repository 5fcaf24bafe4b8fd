"""Attention over a packed trie in blocks: what no token of a block may see is not computed.

A token of a trie sees its root and its ancestors only, so most of the square of a pack's tokens is masked.
Tokens stand in depth-first order, and what a run of neighbours may see between them is a small part of all
keys: each run attends to that part, through the model's own function.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from whyprompt._attention import attention_through

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

_NAME = "whyprompt_blocks"

# Queries a block: fewer see fewer keys, and make more calls.
_queries: ContextVar[int] = ContextVar("whyprompt_block_queries", default=64)


# Neighbouring queries, the keys that any of them may see, and the mask between them.
_Block = tuple[slice, torch.Tensor | slice, torch.Tensor]


class _Plan(NamedTuple):
    """A whole mask, its blocks, and, of a part of a pack, which of the whole's queries are there."""

    mask: torch.Tensor
    blocks: list[_Block]
    at: torch.Tensor | None = None


_plan: ContextVar[_Plan | None] = ContextVar("whyprompt_attention_blocks", default=None)


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
    if plan is None or attention_mask is not plan.mask or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if plan.at is not None:
        query, key, value = (_laid_out(x, plan.at, plan.mask.shape[2]) for x in (query, key, value))
    outputs = [
        sdpa_attention_forward(module, query[:, :, rows], key[:, :, keys], value[:, :, keys], mask, **kwargs)[
            0
        ]
        for rows, keys, mask in plan.blocks
    ]
    if plan.at is None:
        return torch.cat(outputs, dim=1), None
    whole = query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])
    for (rows, _, _), one in zip(plan.blocks, outputs, strict=True):
        whole[:, rows] = one
    return whole[:, plan.at], None


def _laid_out(x: torch.Tensor, at: torch.Tensor, count: int) -> torch.Tensor:
    """Put a part's queries, or its keys behind the root's, where they stand in the whole, among zeros."""
    before = x.shape[2] - len(at)
    held = x.new_zeros(x.shape[0], before + count, x.shape[1], x.shape[3]).transpose(1, 2)
    # In memory as the model makes them: heads within a token, or tokens within a head.
    held = held if x.stride(1) < x.stride(2) else held.contiguous()
    held[:, :, :before] = x[:, :, :before]
    held[:, :, before + at] = x[:, :, before:]
    return held


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)


@contextmanager
def _blocks(model: torch.nn.Module, mask: torch.Tensor) -> Iterator[None]:
    with _planned(model, _Plan(mask, plan_blocks(mask, queries=_queries.get()))):
        yield


@contextmanager
def _planned(model: torch.nn.Module, plan: _Plan) -> Iterator[None]:
    token = _plan.set(plan)
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


def in_layout(model: Any, mask: torch.Tensor, *, at: NDArray[np.int64]) -> AbstractContextManager[None]:  # noqa: ANN401 - a transformers model
    """Compute the attention of some tokens of a pack by the very products that the whole pack has.

    The mask is that of the whole; ``at`` are the tokens that the model is given. Where this is right was
    found out before (:mod:`whyprompt.trials.models.parts`).
    """
    blocks: list[_Block] = [(slice(None), slice(None), mask)]
    if mask.shape[2] >= 2 * _queries.get():
        blocks = [
            block
            for block in plan_blocks(mask, queries=_queries.get())
            if np.any((at >= block[0].start) & (at < block[0].stop))
        ]
    return _planned(model, _Plan(mask, blocks, torch.from_numpy(at)))


@contextmanager
def block_queries(n: int) -> Iterator[None]:
    """Set how many queries a block has: a probe of few tokens takes small ones."""
    token = _queries.set(n)
    try:
        yield
    finally:
        _queries.reset(token)
