"""Keys and values of texts that are written side by side, each at its own length.

A row holds one text; its token `k` stands in column `k`, whatever the others have come to. So a row that is
done leaves without the rest being moved, another takes its place, and what a row computes does not depend on
its neighbours: columns beyond its own length are masked, and add nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, Cache
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from whyprompt._attention import attention_through

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from whyprompt.trials.models.local import LocalModel

_NAME = "whyprompt_rows"
# Columns come in such steps: the sums over them are then laid out alike, whatever their number.
_STEP = 32

_mask: ContextVar[torch.Tensor | None] = ContextVar("whyprompt_rows_mask", default=None)


class _Layer(DynamicLayer):
    """One layer of the rows: what is appended goes to each row's own end."""

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self._rows = rows
        self.held: tuple[torch.Tensor, ...] = ()

    def put(self, row: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Fill a row from its beginning; keys and values are (1, n_heads, n_tokens, width)."""
        if not self.held:
            # Zeros: a masked column counts nothing times what stands there.
            self.held = tuple(
                x.new_zeros(self._rows.count, x.shape[1], self._rows.room, x.shape[3]) for x in (keys, values)
            )
        for held, x in zip(self.held, (keys, values), strict=True):
            held[row, :, : x.shape[2]] = x[0]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy what a row holds to another one."""
        for held in self.held:
            held[target, :, :length] = held[source, :, :length]

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *_: Any,  # noqa: ANN401 - the base's
        **__: Any,  # noqa: ANN401 - the base's
    ) -> tuple[torch.Tensor, torch.Tensor]:
        n, at, columns = len(key_states), self._rows.at, self._rows.columns
        every = torch.arange(n, device=at.device)
        for held, x in zip(self.held, (key_states, value_states), strict=True):
            held[every, :, at] = x[:, :, 0]
        keys, values = (held[:n, :, :columns] for held in self.held)
        return keys, values

    def get_seq_length(self) -> int:
        return self._rows.columns - 1


class Rows(Cache):
    """The cache of `count` rows of at most `room` tokens.

    ``at`` (n,) is where each of the first rows writes next, ``columns`` how many are looked at.
    """

    def __init__(self, n_layers: int, *, count: int, room: int) -> None:
        self.count, self.room = count, -(-room // _STEP) * _STEP
        self.at = torch.zeros(0, dtype=torch.long)
        self.columns = 0
        self.rows = [_Layer(self) for _ in range(n_layers)]
        super().__init__(layers=list(self.rows))

    def put(self, row: int, cache: Cache) -> None:
        """Fill a row with what a run of its prompt alone left behind."""
        for mine, theirs in zip(self.rows, cache.layers, strict=True):
            mine.put(row, theirs.keys, theirs.values)  # type: ignore[union-attr, arg-type]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row of so many tokens to the place of another."""
        for layer in self.rows:
            layer.move(source, target, length)

    def step(self, lengths: Sequence[int], lm: LocalModel) -> tuple[torch.Tensor, torch.Tensor]:
        """Make ready for one token a row: where each stands (n, 1), and the mask (n, 1, 1, columns)."""
        self.columns = min(self.room, -(-(max(lengths) + 1) // _STEP) * _STEP)
        self.at = torch.tensor(lengths, device=lm.device)
        beyond = torch.arange(self.columns, device=lm.device) > self.at[:, None]
        mask = torch.zeros(len(lengths), 1, 1, self.columns, dtype=lm.dtype, device=lm.device)
        return self.at[:, None], mask.masked_fill_(beyond[:, None, None], torch.finfo(lm.dtype).min)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,  # noqa: ANN401 - what the model's own function is given
) -> tuple[torch.Tensor, None]:
    # A layer that makes a mask of its own, or adds a bias for each position, is left as it is.
    if attention_mask is None or attention_mask is not _mask.get() or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    # Heads that share their keys read them where they stand: the model's own way copies them first.
    out = torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        scale=kwargs.get("scaling"),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)


@contextmanager
def in_rows(model: Any) -> Iterator[None]:  # noqa: ANN401 - a transformers model
    """Compute a model's attention over rows without copies, where that is known to be the same."""
    own = getattr(model.config, "_attn_implementation", None)
    if own != "sdpa" or next(model.parameters()).device.type != "cpu":
        yield
        return
    with attention_through(model, _NAME):
        yield


@contextmanager
def masked(mask: torch.Tensor) -> Iterator[None]:
    """Let the attention know the mask that the model is given as the rows' own."""
    token = _mask.set(mask)
    try:
        yield
    finally:
        _mask.reset(token)
