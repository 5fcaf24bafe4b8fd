"""Attention over a shared prefix, and what a patch does to it. Tensors only, no model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from whyprompt.mediation.engine.blocks import Values
    from whyprompt.mediation.engine.intercept import AttentionCall


@dataclass(frozen=True, slots=True)
class LayerState:
    """One layer of a clean run, as the patched runs need it.

    `keys` (kv_heads, prefix, key_dim) and `values` (kv_heads, prefix, value_dim) are those before the tokens
    that rows carry, None in a run that is not to be patched; `z` (window, heads, value_dim) the head outputs
    in the window (the answer positions, or more). `mask` (carried, prefix + carried) is additive, None where
    everything is visible; `weights` (heads, window, tokens) are the attention rows of the window, where asked
    for. A layer without attention has no heads.
    """

    keys: torch.Tensor | None
    values: torch.Tensor | None
    z: torch.Tensor
    mask: torch.Tensor | None
    weights: torch.Tensor | None

    def prefix(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a run that may be patched."""
        if self.keys is None or self.values is None:
            raise RuntimeError("this run was made without keys and values, so it cannot be patched")
        return self.keys, self.values


@dataclass(frozen=True, slots=True)
class World:
    """A clean run of one prompt with the answer after it.

    `ids` are the input tokens, the prompt and all answer tokens but the last; `answer` those predicted at the
    answer positions. `layers` is empty where only the outcome was asked for. `hidden` (answer, hidden) is the
    decoder's output at the answer positions, `log_probs` (answer,) float64, and `scale` the largest absolute
    logit, which sets the scale of rounding. Patched rows are set at the last `window` input tokens, the
    answer positions or more; `outputs` is what blocks gave there. With a `rival`, a token, or negative for
    the best of all others, `log_probs` are logits less that one's. Rows carry the tokens of the window, or
    the whole prompt (`whole_rows`) where layers hand on more than keys and values.
    """

    ids: tuple[int, ...]
    answer: tuple[int, ...]
    layers: list[LayerState]
    hidden: torch.Tensor
    log_probs: torch.Tensor
    scale: float
    window: int
    outputs: Values = field(default_factory=dict)
    rival: int | None = None
    whole_rows: bool = False

    @property
    def carried(self) -> int:
        """How many last tokens a patched row carries."""
        return len(self.ids) if self.whole_rows else self.window

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept of the layers."""
        parts = [t for s in self.layers for t in (s.keys, s.values, s.z, s.weights) if t is not None]
        return sum(t.nbytes for t in (*parts, *self.outputs.values()))


class RowWeights(Protocol):
    """Attention weights of some heads of some rows, (entries, answer, prefix + answer)."""

    def __call__(
        self, rows: torch.Tensor, heads: torch.Tensor, keep: torch.Tensor | None = None, /
    ) -> torch.Tensor:
        """Give them as they are, or with a softmax over the tokens of `keep` (answer, prefix + answer)."""


def attend_rows(call: AttentionCall, state: LayerState, window: int = 0) -> tuple[torch.Tensor, RowWeights]:
    """Heads' outputs of all rows over one shared prefix and their own last tokens, of which the last ask.

    Returns z (rows, answer, heads, value_dim) and the weights behind it: all, or those of the last `window`.
    """
    r, h, a, d = call.query.shape
    o = call.key.shape[2]
    keys, values = state.prefix()
    kv, prefix, _ = keys.shape
    wide = values.shape[-1]  # latent attention has values narrower than its queries and keys
    g = h // kv
    q = (call.query * call.scaling).reshape(r, kv, g * a, d)
    # One product a key-value head serves every row: the prefix is never copied.
    shared = q.transpose(0, 1).reshape(kv, r * g * a, d) @ keys.transpose(1, 2)
    own = (q @ call.key.transpose(2, 3)).transpose(0, 1).reshape(kv, r * g * a, o)
    scores = torch.cat([shared, own], -1).view(kv, r, g, a, prefix + o)
    del shared, own
    w = _softmax(scores, state.mask, call.softcap, _grouped(call.sinks, kv, g)).to(call.value.dtype)
    flat = w.view(kv, r * g * a, prefix + o)
    z = (flat[..., :prefix] @ values).view(kv, r, g * a, wide)
    last, value = w[..., prefix:].reshape(kv, r, g * a, o), call.value.transpose(0, 1)
    # A sum of one product is the product.
    z = z + (last * value if o == 1 else last @ value)
    z = z.view(kv, r, g, a, wide).permute(1, 3, 0, 2, 4).reshape(r, a, h, wide)

    def weights(rows: torch.Tensor, heads: torch.Tensor, keep: torch.Tensor | None = None, /) -> torch.Tensor:
        at = heads // g, rows, heads % g
        if keep is None:
            return w[at][:, -window:]
        # Afresh from the scores: what rounding left of a row that looked elsewhere is no weight.
        sinks = None if call.sinks is None else call.sinks[heads][:, None, None]
        mask = None if state.mask is None else state.mask[-window:]
        return _softmax(scores[at][:, -window:], mask, call.softcap, sinks, keep).to(w.dtype)

    return z, weights


def _grouped(sinks: torch.Tensor | None, kv: int, g: int) -> torch.Tensor | None:
    return None if sinks is None else sinks.view(kv, 1, g, 1, 1)


def _softmax(
    scores: torch.Tensor,
    mask: torch.Tensor | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
    keep: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention weights from scaled scores; softcap, mask and sinks in the order models use."""
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        if mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        else:
            scores = scores + mask
    if keep is not None:
        scores = scores.masked_fill(~keep, -torch.inf)
    dtype = torch.promote_types(scores.dtype, torch.float32)
    if sinks is None:
        return torch.softmax(scores, -1, dtype=dtype)
    sinks = sinks.to(scores.dtype).expand(*scores.shape[:-1], 1)
    return torch.softmax(torch.cat([scores, sinks], -1), -1, dtype=dtype)[..., :-1]


def attention_weights(call: AttentionCall, query: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Attention weights (1, heads, queries, keys) of some queries of a clean run."""
    _, h, t, d = query.shape
    kv = call.key.shape[1]
    q = (query * call.scaling).reshape(kv, (h // kv) * t, d)
    scores = (q @ call.key[0].transpose(1, 2)).view(kv, 1, h // kv, t, -1)
    return _softmax(scores, mask, call.softcap, _grouped(call.sinks, kv, h // kv)).view(1, h, t, -1)


def attend_blockwise(call: AttentionCall, visible: torch.Tensor) -> torch.Tensor:
    """Clean attention with soft-capping or sinks, some queries at a time."""
    _, h, t, _ = call.query.shape
    kv, wide = call.key.shape[1], call.value.shape[-1]
    out = torch.empty(1, t, h, wide, dtype=call.query.dtype, device=call.query.device)
    step = max(1, (1 << 22) // (h * t))
    for start in range(0, t, step):
        stop = min(t, start + step)
        w = attention_weights(call, call.query[:, :, start:stop], visible[start:stop]).to(call.value.dtype)
        z = w.reshape(kv, -1, t) @ call.value[0]
        out[0, start:stop] = z.reshape(h, stop - start, wide).transpose(0, 1)
    return out
