"""Several clean runs in one pass: what prompts begin with alike is run once, and nothing is padded.

The tokens of all runs lie in one sequence, and each attends to its own predecessors only.
Tokens that two runs begin with have the same keys and values in both, so the second run brings
its own tokens alone. It is offered where every layer's mask is plainly causal, and tried
against whole runs when a model is opened.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from whyprompt.mediation.engine.attention import LayerState, attention_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.mediation.engine.intercept import AttentionCall

WORTHWHILE = 8
"""So many first tokens alike are taken over; fewer are run again."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The own tokens of one run in a pack."""

    start: int
    stop: int
    shared: int
    """How many first tokens are taken over, and so the position of the first own token."""
    parent: int
    """The run they are taken over from; -1 for none."""
    window: int
    """How many last tokens patched rows carry: the answer positions, or more."""


def plan_stretches(runs: Sequence[tuple[Sequence[int], int]]) -> list[Stretch]:
    """Lay runs (tokens, window) one behind the other, each without what it shares with an earlier one.

    Examples
    --------
    >>> [s.shared for s in plan_stretches([([1] * 20 + [2, 3], 1), ([1] * 20 + [4, 4, 3], 1)])]
    [0, 20]
    """
    out: list[Stretch] = []
    at = 0
    for tokens, n in runs:
        shared, parent = 0, -1
        for i, (other, _) in enumerate(runs[: len(out)]):
            most = min(len(tokens) - n, len(other))
            p = 0
            while p < most and tokens[p] == other[p]:
                p += 1
            if p >= max(WORTHWHILE, shared + 1):
                shared, parent = p, i
        own = len(tokens) - shared
        out.append(Stretch(at, at + own, shared, parent, n))
        at += own
    return out


class Packed:
    """Attention of packed runs, and what patched runs need of each.

    `keep_weights` keeps the attention rows of the window; `patched` says of each run whether it is
    to be patched, so that its keys and values are kept.
    """

    def __init__(self, stretches: Sequence[Stretch], *, keep_weights: bool, patched: Sequence[bool]) -> None:
        self.stretches = stretches
        self.patched = patched
        self.keep_weights = keep_weights
        self.states: list[list[LayerState]] = [[] for _ in stretches]
        self._masks: dict[tuple[int, int, torch.device], torch.Tensor] = {}

    def __call__(self, call: AttentionCall, /) -> torch.Tensor:
        """Attend, and keep the layer of each run."""
        keys: list[torch.Tensor] = []
        values: list[torch.Tensor] = []
        outputs = []
        for run, s in enumerate(self.stretches):
            q, k, v = (x[:, :, s.start : s.stop] for x in (call.query, call.key, call.value))
            if s.parent >= 0:
                k = torch.cat([keys[s.parent][:, :, : s.shared], k], 2)
                v = torch.cat([values[s.parent][:, :, : s.shared], v], 2)
            keys.append(k)
            values.append(v)
            z = torch.nn.functional.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=self._mask(s, q) if s.parent >= 0 else None,
                is_causal=s.parent < 0,
                scale=call.scaling,
                enable_gqa=q.shape[1] != k.shape[1],
            ).transpose(1, 2)
            outputs.append(z)
            t = s.stop - s.start - s.window
            own = self._window_rows(s, q)
            weights = None
            if self.keep_weights:
                weights = attention_weights(replace(call, key=k, value=v), q[:, :, t:], own)[0]
            before = s.shared + t
            self.states[run].append(
                LayerState(
                    k[0, :, :before].contiguous() if self.patched[run] else None,
                    v[0, :, :before].contiguous() if self.patched[run] else None,
                    z[0, t:].clone(),
                    own,
                    weights,
                )
            )
        return torch.cat(outputs, 1)

    def _mask(self, s: Stretch, like: torch.Tensor) -> torch.Tensor:
        own = s.stop - s.start
        key = own, s.shared, like.device  # layers may lie on several devices
        if key not in self._masks:
            ones = torch.ones(own, s.shared + own, dtype=torch.bool, device=like.device)
            self._masks[key] = ones.tril(s.shared)
        return self._masks[key]

    def _window_rows(self, s: Stretch, like: torch.Tensor) -> torch.Tensor | None:
        """Additive mask of the window; None where everything is visible."""
        if s.window == 1:
            return None
        visible = self._mask(s, like)[-s.window :]
        zeros = torch.zeros(visible.shape, dtype=like.dtype, device=like.device)
        return zeros.masked_fill_(~visible, torch.finfo(like.dtype).min)
