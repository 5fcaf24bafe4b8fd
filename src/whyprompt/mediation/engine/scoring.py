"""Log-probabilities of tokens from the decoder's output, without all logits at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from whyprompt._lean.products import linear

if TYPE_CHECKING:
    from collections.abc import Callable

LOGITS_BYTES = 56 << 20
"""So many bytes of logits are made at a time."""
_VOCABULARY_BLOCK, _HEAD_ROWS, _CACHE_ROWS = 2048, 512, 64


def scored_by_head(
    hidden: torch.Tensor,
    target: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    vocabulary: int,
    room: int,
) -> tuple[torch.Tensor, float]:
    """Score by the model's own head, (rows, 1, hidden), in so many bytes of logits at a time."""
    # Small blocks of logits are reused by the allocator; large ones are mapped afresh each time.
    per_row = vocabulary * (hidden.element_size() + 4)
    step = max(1, min(room, LOGITS_BYTES) // per_row)
    out, scale = [], 0.0
    for start in range(0, len(hidden), step):
        logits = head(hidden[start : start + step, None])[:, 0]
        target = target.to(logits.device)
        picked = logits.gather(-1, target[start : start + step, None])[:, 0].double()
        dtype = torch.promote_types(logits.dtype, torch.float32)
        few = max(1, LOGITS_BYTES // (16 * per_row)) if hidden.device.type == "cpu" else len(logits)
        norm = torch.cat([torch.logsumexp(part.to(dtype), -1) for part in logits.split(few)])
        if start == 0:
            scale = float(logits[:16].abs().max())
        out.append((picked - norm.double()).cpu())
    return torch.cat(out), scale


def scored_in_cache(
    hidden: torch.Tensor, target: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Score by blocks of the vocabulary, whose logits are normalised while still in the cache."""
    on_cpu = hidden.device.type == "cpu"
    block = _VOCABULARY_BLOCK if on_cpu else 16 * _VOCABULARY_BLOCK
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    out: list[torch.Tensor] = []
    scale = 0.0
    for rows, gold in zip(hidden.split(_HEAD_ROWS), target.split(_HEAD_ROWS), strict=True):
        norms = []
        for part in weights.split(block):
            logits = linear(rows, part)
            if not out:
                scale = max(scale, float(logits[:16].abs().max()))
            few = _CACHE_ROWS if on_cpu else len(logits)
            norms.append(torch.cat([_log_sum_exp(some.to(dtype)) for some in logits.split(few)]))
        picked = (rows[:, None] @ weights[gold].to(rows.dtype)[:, :, None])[:, 0, 0]
        out.append((picked.double() - torch.logsumexp(torch.stack(norms), 0).double()).cpu())
    return torch.cat(out), scale


def _log_sum_exp(logits: torch.Tensor) -> torch.Tensor:
    """Normaliser of finite logits, which are overwritten: no temporary of their size."""
    top = logits.amax(-1, keepdim=True)
    return logits.sub_(top).exp_().sum(-1).log_().add_(top[:, 0])
