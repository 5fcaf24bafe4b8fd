"""What a patched run does to the heads it patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from whyprompt.mediation.engine.attention import LayerState, RowWeights


class Action(Protocol):
    """What happens to the heads that rows patch: either their outputs or their weights are given."""

    def __call__(
        self, layer: int, rows: torch.Tensor, heads: torch.Tensor, own: RowWeights, /
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Give outputs z, (entries, answer, value_dim), or attention, (entries, answer, prefix + answer)."""


def set_output(source: Sequence[LayerState]) -> Action:
    """Head outputs are those of another clean run, whose layers are given."""

    def act(
        layer: int, _rows: torch.Tensor, heads: torch.Tensor, _own: RowWeights, /
    ) -> tuple[torch.Tensor, None]:
        return source[layer].z[:, heads].transpose(0, 1), None

    return act


def set_row(given: Sequence[torch.Tensor]) -> Action:
    """Attention rows are given, one a layer, (heads, answer, prefix + answer)."""

    def act(
        layer: int, _rows: torch.Tensor, heads: torch.Tensor, _own: RowWeights, /
    ) -> tuple[None, torch.Tensor]:
        return None, given[layer][heads]

    return act


def cut_edges(keep: torch.Tensor) -> Action:
    """Edges to some tokens are cut and the row renormalised over the others and a sink, if there is one.

    `keep`, (answer, prefix + answer), says which edges are kept.
    """

    def act(
        _layer: int, rows: torch.Tensor, heads: torch.Tensor, own: RowWeights, /
    ) -> tuple[None, torch.Tensor]:
        return None, own(rows, heads, keep.to(rows.device))

    return act
