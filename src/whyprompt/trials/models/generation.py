"""Completions, in batches that share their beginning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from whyprompt.trials.models.packing import common_prefix
from whyprompt.trials.models.scoring import RootCache, cache_argument, logits_at, padded

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from whyprompt.trials.models.local import LocalModel


class Completion(NamedTuple):
    """What a model wrote after a prompt."""

    text: str
    tokens: int
    finish: Literal["stop", "length"]
    """Whether it came to its end, or was cut off at the most tokens that it might have."""


def complete(
    lm: LocalModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    temperatures: Sequence[float] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Completion]:
    """Continue a batch of prompts until a special token, a stop string, or ``max_new_tokens``.

    Parameters
    ----------
    lm : LocalModel
    prompts : sequence of token ids
        Computed as one batch.
    max_new_tokens : int
    stop : sequence of str
        Cut off where the first of them appears.
    temperatures : sequence of float, optional
        One a prompt; 0, the default, is greedy.
    seeds : sequence of int, optional
        One a prompt: what it draws does not depend on its neighbours in the batch. 0 by default.

    Returns
    -------
    list of Completion
        What the model wrote after each, without what stopped it.
    """
    import torch

    from whyprompt._lean.layers import lean_layers

    if not prompts:
        return []
    heats = [0.0] * len(prompts) if temperatures is None else temperatures
    starts = [0] * len(prompts) if seeds is None else seeds
    # Without packing nothing is known of how the model treats padding: one prompt at a time is right.
    step = len(prompts) if lm.packs else 1
    cuts = [slice(at, at + step) for at in range(0, len(prompts), step)]
    with torch.inference_mode(), lean_layers(lm.model):
        return [
            made for c in cuts for made in _batch(lm, prompts[c], heats[c], starts[c], max_new_tokens, stop)
        ]


def _batch(
    lm: LocalModel,
    prompts: Sequence[Sequence[int]],
    temperatures: Sequence[float],
    seeds: Sequence[int],
    most: int,
    stop: Sequence[str],
) -> list[Completion]:
    import torch

    n = len(prompts)
    root = 0
    if n > 1:
        root = min(min(common_prefix(prompts[0], p), len(p) - 1) for p in prompts)
    tails = [p[root:] for p in prompts]
    ids, mask = padded(tails, lm.device)
    width, lengths = ids.shape[1], mask.sum(1)
    mask = torch.cat([mask.new_ones(n, root), mask], dim=1)
    # A lone prompt runs with the model's own kind of cache, which every architecture has.
    cache = RootCache().fresh(lm, tuple(prompts[0][:root]), rows=n) if n > 1 else None
    named = cache_argument(lm.model)
    # The last token of each prompt is all that is looked at: a row of logits for each distinct length.
    last, rows = np.unique([len(t) - 1 for t in tails], return_inverse=True)
    logits, output = logits_at(
        lm,
        last,
        input_ids=ids,
        attention_mask=mask,
        position_ids=(root + torch.arange(width).expand(n, -1)).to(lm.device),
        use_cache=True,
        **{named: cache},
    )
    cache = output[named]
    logits = logits[torch.arange(n), torch.from_numpy(rows)].cpu()
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    written: list[list[int]] = [[] for _ in prompts]
    texts = [""] * n
    done = [False] * n
    for step in range(most):
        chosen = [_choose(logits[i], temperatures[i], draws[i]) for i in range(n)]
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
        mask = torch.cat([mask, mask.new_ones(n, 1)], dim=1)
        output = lm.model(
            input_ids=torch.tensor(chosen, device=lm.device)[:, None],
            attention_mask=mask,
            position_ids=(root + lengths + step)[:, None].to(lm.device),
            use_cache=True,
            **{named: cache},
        )
        logits = output.logits[:, -1].float().cpu()
    return [
        Completion(_cut(t, stop), len(w), "stop" if d else "length")
        for t, w, d in zip(texts, written, done, strict=True)
    ]


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
