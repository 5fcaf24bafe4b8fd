"""What a patched run does to the heads it patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from whyprompt.mediation.attention import LayerState

__all__ = ["Action", "CutEdges", "SetOutput", "SetRow"]


class Action(Protocol):
    """What happens to the heads that a row patches: either their outputs or their weights."""

    def output(self, layer: int, heads: torch.Tensor, /) -> torch.Tensor | None:
        """Give outputs z of shape (entries, answer, head_dim), or None to act on the weights."""

    def weights(self, layer: int, heads: torch.Tensor, weights: torch.Tensor, /) -> torch.Tensor:
        """Turn the rows' own attention, (entries, answer, prefix + answer), into the patched one."""


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

    def weights(self, _layer: int, _heads: torch.Tensor, weights: torch.Tensor, /) -> torch.Tensor:
        """Leave the weights alone: outputs were given."""
        return weights


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

    def weights(self, layer: int, heads: torch.Tensor, _weights: torch.Tensor, /) -> torch.Tensor:
        """Give the rows."""
        return self.rows[layer][heads]


@dataclass(frozen=True, slots=True)
class CutEdges:
    """Edges to some tokens are cut and the row renormalised.

    Attributes
    ----------
    keep : Tensor, shape (answer, prefix + answer)
        1 where an edge is kept, 0 where it is cut.
    """

    keep: torch.Tensor

    def output(self, _layer: int, _heads: torch.Tensor, /) -> torch.Tensor | None:
        """Give none: the weights are cut."""
        return None

    def weights(self, _layer: int, _heads: torch.Tensor, weights: torch.Tensor, /) -> torch.Tensor:
        """Cut and renormalise."""
        # What the row does not give to tokens went to a sink, which is not cut.
        sink = (1 - weights.sum(-1, keepdim=True)).clamp(min=0)
        kept = weights * self.keep.to(weights.dtype)
        return kept / (kept.sum(-1, keepdim=True) + sink)
