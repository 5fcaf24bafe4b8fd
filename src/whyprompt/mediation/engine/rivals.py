"""Logits of a token against those of others: margins, and first choices, without a normaliser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from whyprompt._lean.products import linear

if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCK, _ROWS = 2048, 512


def logits_over(logits: torch.Tensor, gold: torch.Tensor, rivals: torch.Tensor) -> torch.Tensor:
    """Logit of one token in each row less that of its rival, (rows,), float64; a gradient passes.

    `rivals` as in `over_rivals`.

    >>> logits_over(torch.tensor([[1.0, 3.0, 4.0]] * 2), torch.tensor([1, 1]), torch.tensor([0, -1])).tolist()
    [2.0, -1.0]
    """
    at = gold[:, None]
    theirs = logits.gather(-1, rivals.clamp(min=0)[:, None])[:, 0]
    if bool((others := rivals < 0).any()):
        theirs = torch.where(others, logits.scatter(-1, at, -torch.inf).amax(-1), theirs)
    return logits.gather(-1, at)[:, 0].double() - theirs.double()


def over_rivals(
    hidden: torch.Tensor,
    target: torch.Tensor,
    rivals: torch.Tensor,
    weights: torch.Tensor | None,
    head: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, float]:
    """Logit of one token after each position less that of its rival, (positions,), float64, on the CPU.

    `hidden` is (positions, hidden), `rivals` are token ids, or negative for whichever of all others has the
    largest logit. Where the model's head is a product with `weights`, two rows of them give the margin over a
    token, and the vocabulary is not run; else `head` gives all logits of a block, (rows, 1, hidden). Beside
    it the largest absolute logit of a first block.
    """
    out: list[torch.Tensor] = []
    scale = 0.0
    step = _ROWS if weights is not None else max(1, _ROWS // 8)
    parts = zip(hidden.split(step), target.split(step), rivals.split(step), strict=True)
    for rows, gold, rival in parts:
        if weights is None:
            logits = head(rows[:, None])[:, 0]
            found = logits_over(logits, gold.to(logits.device), rival.to(logits.device))
            scale = scale if out else float(logits[:16].abs().max())
        else:
            scale = scale if out else float(linear(rows[:16], weights[:_BLOCK]).abs().max())
            found = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
            if bool((named := rival >= 0).any()):
                own = weights[gold[named]].double() - weights[rival[named]].double()
                found[named] = (rows[named].double() * own).sum(-1)
            if bool((others := ~named).any()):
                found[others] = _over_others(rows[others], gold[others], weights)
        out.append(found.cpu())
    return torch.cat(out), scale


def _over_others(rows: torch.Tensor, gold: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Find the best of all other tokens by blocks of the vocabulary."""
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
