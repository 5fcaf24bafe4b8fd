"""Completions, in batches that share their beginning."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whyprompt.trials.models.packing import common_prefix
from whyprompt.trials.models.scoring import RootCache, cache_argument

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from whyprompt.trials.models.local import LocalModel

__all__ = ["Completion", "CompletionRequest", "complete"]


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A prompt to continue.

    Parameters
    ----------
    ids : tuple of int
    temperature : float
        0 is greedy.
    seed : int
        Of this completion alone: what it draws does not depend on its neighbours in the batch.
    """

    ids: tuple[int, ...]
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote, without what stopped it, and how many tokens it took."""

    text: str
    n_tokens: int


def complete(
    lm: LocalModel,
    requests: Sequence[CompletionRequest],
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
) -> list[Completion]:
    """Continue a batch of prompts until a special token, a stop string, or ``max_new_tokens``.

    Parameters
    ----------
    lm : LocalModel
    requests : sequence of CompletionRequest
        Computed as one batch.
    max_new_tokens : int
    stop : sequence of str
        Cut off where the first of them appears.

    Returns
    -------
    list of Completion
    """
    import torch

    from whyprompt._lean.layers import lean_layers

    if not requests:
        return []
    with torch.inference_mode(), lean_layers(lm.model):
        if lm.packs:
            return _batch(lm, requests, max_new_tokens, stop)
        # Without packing nothing is known of how the model treats padding: one prompt at a time is right.
        return [c for r in requests for c in _batch(lm, [r], max_new_tokens, stop)]


def _batch(
    lm: LocalModel, requests: Sequence[CompletionRequest], most: int, stop: Sequence[str]
) -> list[Completion]:
    import torch

    n = len(requests)
    root = 0
    if n > 1:
        first = requests[0].ids
        root = min(min(common_prefix(first, r.ids), len(r.ids) - 1) for r in requests)
    tails = [r.ids[root:] for r in requests]
    lengths = torch.tensor([len(t) for t in tails])
    width = int(lengths.max())
    # The last token of each prompt is all that is looked at: a row of logits for each distinct length.
    last = sorted({len(t) - 1 for t in tails})
    keep: dict[str, torch.Tensor] = {}
    rows = [len(t) - 1 for t in tails]
    if "logits_to_keep" in inspect.signature(lm.model.forward).parameters:
        keep = {"logits_to_keep": torch.tensor(last, device=lm.device)}
        rows = [last.index(r) for r in rows]
    ids = torch.tensor([[*t, *([t[-1]] * (width - len(t)))] for t in tails], device=lm.device)
    mask = torch.ones(n, root + width, dtype=torch.long)
    mask[:, root:] = (torch.arange(width)[None] < lengths[:, None]).long()
    # A lone prompt runs with the model's own kind of cache, which every architecture has.
    cache = RootCache().fresh(lm, requests[0].ids[:root], rows=n) if n > 1 else None
    named = cache_argument(lm.model)
    output = lm.model(
        input_ids=ids,
        attention_mask=mask.to(lm.device),
        position_ids=(root + torch.arange(width).expand(n, -1)).to(lm.device),
        use_cache=True,
        **{named: cache},
        **keep,
    )
    cache = output[named]
    logits = output.logits[torch.arange(n), rows].float().cpu()
    draws = [torch.Generator().manual_seed(r.seed) for r in requests]
    written: list[list[int]] = [[] for _ in requests]
    texts = [""] * n
    done = [False] * n
    for step in range(most):
        chosen = [_choose(logits[i], requests[i].temperature, draws[i]) for i in range(n)]
        for i, token in enumerate(chosen):
            if done[i]:
                continue
            if token in lm.codec.stop_ids:
                done[i] = True
                continue
            written[i].append(token)
            texts[i] = lm.codec.tokenizer.decode(written[i])
            if any(s in texts[i] for s in stop):
                done[i] = True
        if all(done) or step == most - 1:
            break
        mask = torch.cat([mask, torch.ones(n, 1, dtype=torch.long)], dim=1)
        output = lm.model(
            input_ids=torch.tensor(chosen, device=lm.device)[:, None],
            attention_mask=mask.to(lm.device),
            position_ids=(root + lengths + step)[:, None].to(lm.device),
            use_cache=True,
            **{named: cache},
        )
        logits = output.logits[:, -1].float().cpu()
    return [Completion(_cut(t, stop), len(w)) for t, w in zip(texts, written, strict=True)]


def _cut(text: str, stop: Sequence[str]) -> str:
    ends = [at for s in stop if (at := text.find(s)) >= 0]
    return text[: min(ends)] if ends else text


def _choose(logits: torch.Tensor, temperature: float, draw: torch.Generator) -> int:
    import torch

    if temperature == 0:
        return int(logits.argmax())
    # Inverse transform with one uniform a token: the same draw on every device.
    cumulative = torch.softmax(logits.double() / temperature, dim=-1).cumsum(-1)
    uniform = torch.rand(1, generator=draw, dtype=torch.float64) * cumulative[-1]
    return min(int(torch.searchsorted(cumulative, uniform, right=True)), len(logits) - 1)
