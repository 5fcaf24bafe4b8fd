"""Attention of clean runs, and what is kept of it: for patched runs, or of some heads to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from whyprompt.errors import MediationError
from whyprompt.mediation.engine.attention import LayerState, attend_blockwise, attention_weights

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from whyprompt.mediation.engine.intercept import AttentionCall

    HeadSet = Sequence[tuple[int, int]]


class Recorder:
    """Attention of a clean run; keeps the window's share of each layer: that of its last tokens."""

    def __init__(
        self,
        window: int,
        *,
        keep_layers: bool,
        keep_weights: bool = False,
        patched: bool = True,
        carried: int = 0,
    ) -> None:
        self.n = window
        self.carried = carried or window
        self.patched = patched
        self.token_bytes = 0
        self.keep_layers = keep_layers
        self.keep_weights = keep_weights
        self.states: list[LayerState] = []
        self.modules: list[torch.nn.Module] = []
        self.heads: list[int] = []
        self._masks: dict[
            tuple[int, int | None, torch.device], tuple[torch.Tensor, bool, torch.Tensor | None]
        ] = {}
        self.plain = True
        self._alive: list[torch.Tensor | None] = []  # an id is unique only while its tensor lives

    def __call__(self, call: AttentionCall, /) -> torch.Tensor:
        """Attend, and keep the layer."""
        self.modules.append(call.module)
        self.heads.append(call.query.shape[1])
        self.token_bytes += sum(x[0, :, 0].numel() * x.element_size() for x in (call.key, call.value))
        visible, causal, additive = self._mask(call)
        self.plain &= causal and call.softcap is None and call.sinks is None
        if call.softcap is None and call.sinks is None:
            z = torch.nn.functional.scaled_dot_product_attention(
                call.query,
                call.key,
                call.value,
                attn_mask=None if causal else visible,
                is_causal=causal,
                scale=call.scaling,
                enable_gqa=call.query.shape[1] != call.key.shape[1],
            ).transpose(1, 2)
        else:
            z = attend_blockwise(call, visible)
        if self.keep_layers:
            t = call.key.shape[2] - self.carried
            weights = None
            if self.keep_weights:
                rows = None if additive is None else additive[-self.n :]
                weights = attention_weights(call, call.query[:, :, -self.n :], rows)[0]
            self.states.append(
                LayerState(
                    call.key[0, :, :t].contiguous() if self.patched else None,
                    call.value[0, :, :t].contiguous() if self.patched else None,
                    z[0, -self.n :].clone(),
                    additive,
                    weights,
                )
            )
        return z.contiguous()

    def visible(self, call: AttentionCall) -> torch.Tensor:
        """Which token sees which, boolean or additive, (tokens, tokens)."""
        return self._mask(call)[0]

    def _mask(self, call: AttentionCall) -> tuple[torch.Tensor, bool, torch.Tensor | None]:
        """Visible (boolean or additive), whether it is plainly causal, and the window's rows."""
        key = id(call.mask), call.window if call.mask is None else None, call.query.device
        if key not in self._masks:
            self._alive.append(call.mask)
            t = call.key.shape[2]
            causal = torch.ones(t, t, dtype=torch.bool, device=call.query.device).tril()
            if call.mask is None:
                visible = causal
                if call.window is not None:
                    visible = visible & ~causal.tril(-call.window)
            elif call.mask.shape[0] != 1 or call.mask.shape[1] != 1:
                raise MediationError(
                    f"{type(call.module).__name__} has a mask for each head, which is not supported"
                )
            else:
                visible = call.mask[0, 0, :, :t]
            boolean = visible.dtype == torch.bool
            seen = visible if boolean else visible > torch.finfo(visible.dtype).min / 2
            if bool((seen & ~causal).any()):
                # Tokens before the answer would change with a patch, and they are run once.
                raise MediationError(
                    f"{type(call.module).__name__} lets tokens see later ones: the model is not causal",
                    hint="use a decoder; for some models set config.is_decoder",
                )
            plain = boolean and torch.equal(visible, causal)
            rows = visible[-self.carried :]
            if rows.dtype == torch.bool:
                dtype = call.query.dtype
                rows = torch.zeros(rows.shape, dtype=dtype, device=rows.device).masked_fill_(
                    ~rows, torch.finfo(dtype).min
                )
            self._masks[key] = (visible, plain, rows.clone() if bool((rows != 0).any()) else None)
        return self._masks[key]


class Observer:
    """Attention of a clean run; keeps some heads' patterns and outputs at some positions.

    `weights` are (positions, tokens) and `outputs` (positions, head_dim), by (layer, head).
    """

    def __init__(self, positions: Sequence[int], heads: HeadSet, attending: Collection[int]) -> None:
        self.positions = list(positions)
        self.weights: dict[tuple[int, int], torch.Tensor] = {}
        self.outputs: dict[tuple[int, int], torch.Tensor] = {}
        self._wanted = set(heads)
        self._recorder = Recorder(1, keep_layers=False)
        self._order = iter(attending)

    def __call__(self, call: AttentionCall, /) -> torch.Tensor:
        """Attend, and keep what was asked for."""
        z = self._recorder(call)
        at = next(self._order)
        heads = [h for layer, h in self._wanted if layer == at]
        if heads:
            visible = self._recorder.visible(call)[self.positions]
            rows = attention_weights(call, call.query[:, :, self.positions], visible)[0]
            for h in heads:
                self.weights[at, h] = rows[h].clone()
                self.outputs[at, h] = z[0, self.positions, h].clone()
        return z
