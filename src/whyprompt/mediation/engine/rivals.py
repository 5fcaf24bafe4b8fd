"""Logits of a token against those of others: margins, and first choices, without a normaliser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from whyprompt._lean.products import linear

if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCK, _ROWS = 2048, 512


def over_rivals(
    hidden: torch.Tensor,
    target: torch.Tensor,
    rivals: torch.Tensor,
    weights: torch.Tensor | None,
    head: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, float]:
    """Logit of one token after each position less that of its rival, (positions,), float64, on the CPU.

    `hidden` is (positions, hidden), `rivals` are token ids, or negative for whichever of all others has the
    largest logit. Where the model's head is a product
    with `weights`, two rows of them give the margin over a token, and the vocabulary is not run; else `head`
    gives all logits of a block, (rows, 1, hidden). Beside it the largest absolute logit of a first block.
    """
    out: list[torch.Tensor] = []
    scale = 0.0
    step = _ROWS if weights is not None else max(1, _ROWS // 8)
    parts = zip(hidden.split(step), target.split(step), rivals.split(step), strict=True)
    for rows, gold, rival in parts:
        whole = None if weights is not None else head(rows[:, None])[:, 0]
        if not out:
            first = linear(rows[:16], weights[:_BLOCK]) if whole is None and weights is not None else whole
            assert first is not None
            scale = float(first[:16].abs().max())
        found = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
        named, others = rival >= 0, rival < 0
        if bool(named.any()):
            found[named] = _over_named(rows[named], gold[named], rival[named], weights, whole, named)
        if bool(others.any()):
            found[others] = _over_others(rows[others], gold[others], weights, whole, others)
        out.append(found.cpu())
    return torch.cat(out), scale


def _over_named(
    rows: torch.Tensor,
    gold: torch.Tensor,
    rival: torch.Tensor,
    weights: torch.Tensor | None,
    logits: torch.Tensor | None,
    which: torch.Tensor,
) -> torch.Tensor:
    if logits is not None:
        own = logits[which.to(logits.device)].double()
        both = (own.gather(-1, at[:, None].to(own.device))[:, 0] for at in (gold, rival))
        found: torch.Tensor = next(both) - next(both)
        return found.to(rows.device)
    assert weights is not None
    return (rows.double() * (weights[gold].double() - weights[rival].double())).sum(-1)


def _over_others(
    rows: torch.Tensor,
    gold: torch.Tensor,
    weights: torch.Tensor | None,
    logits: torch.Tensor | None,
    which: torch.Tensor,
) -> torch.Tensor:
    if logits is not None:
        own = logits[which.to(logits.device)].double()
        at = gold.to(own.device)[:, None]
        picked = own.gather(-1, at)[:, 0]
        return (picked - own.scatter(-1, at, -torch.inf).amax(-1)).to(rows.device)
    assert weights is not None
    best = torch.full((len(rows),), -torch.inf, dtype=rows.dtype, device=rows.device)
    mine = torch.empty_like(best)
    for start in range(0, len(weights), _BLOCK):
        block = linear(rows, weights[start : start + _BLOCK])
        inside = ((gold >= start) & (gold < start + block.shape[-1])).nonzero()[:, 0]
        at = gold[inside] - start
        # From the same product as its rivals: two tokens that one row of weights serves are a tie.
        mine[inside] = block[inside, at]
        block[inside, at] = -torch.inf
        best = torch.maximum(best, block.amax(-1))
    return mine.double() - best.double()
