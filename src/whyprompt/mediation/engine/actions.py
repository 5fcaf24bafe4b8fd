"""What a patched run does to the heads it patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from whyprompt.mediation.engine.attention import LayerState, RowWeights

__all__ = ["Action", "CutEdges", "SetOutput", "SetRow"]


class Action(Protocol):
    """What happens to the heads that a row patches: either their outputs or their weights."""

    def output(self, layer: int, heads: torch.Tensor, /) -> torch.Tensor | None:
        """Give outputs z of shape (entries, answer, value_dim), or None to act on the weights."""

    def weights(
        self, layer: int, rows: torch.Tensor, heads: torch.Tensor, own: RowWeights, /
    ) -> torch.Tensor:
        """Give the patched attention, (entries, answer, prefix + answer), from the rows' own."""


@dataclass(frozen=True, slots=True)
class SetOutput:
    """Head outputs are those of another clean run.

    Attributes
    ----------
    source : sequence of LayerState
        The layers of that run.
    """

    source: Sequence[LayerState]

    def output(self, layer: int, heads: torch.Tensor, /) -> torch.Tensor | None:
        """Give the other run's z."""
        return self.source[layer].z[:, heads].transpose(0, 1)

    def weights(
        self, _layer: int, rows: torch.Tensor, heads: torch.Tensor, own: RowWeights, /
    ) -> torch.Tensor:
        """Leave the weights alone: outputs were given."""
        return own(rows, heads)


@dataclass(frozen=True, slots=True)
class SetRow:
    """Attention rows are given.

    Attributes
    ----------
    rows : sequence of Tensor, shape (heads, answer, prefix + answer)
        One a layer.
    """

    rows: Sequence[torch.Tensor]

    def output(self, _layer: int, _heads: torch.Tensor, /) -> torch.Tensor | None:
        """Give none: the weights are set."""
        return None

    def weights(
        self, layer: int, _rows: torch.Tensor, heads: torch.Tensor, _own: RowWeights, /
    ) -> torch.Tensor:
        """Give the rows."""
        return self.rows[layer][heads]


@dataclass(frozen=True, slots=True)
class CutEdges:
    """Edges to some tokens are cut and the row renormalised over the others and a sink, if there is one.

    Attributes
    ----------
    keep : Tensor of bool, shape (answer, prefix + answer)
        Which edges are kept.
    """

    keep: torch.Tensor

    def output(self, _layer: int, _heads: torch.Tensor, /) -> torch.Tensor | None:
        """Give none: the weights are cut."""
        return None

    def weights(
        self, _layer: int, rows: torch.Tensor, heads: torch.Tensor, own: RowWeights, /
    ) -> torch.Tensor:
        """Cut and renormalise."""
        return own(rows, heads, self.keep.to(rows.device))
