"""What a causal graph answers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from whyprompt.results import Estimate

PathKind = Literal["causal", "backdoor", "non-causal"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Path:
    """One path between a treatment and an outcome.

    Attributes
    ----------
    nodes : tuple of str
        From the treatment to the outcome.
    arrows : tuple of str
        ``->``, ``<-`` or ``<->`` between successive nodes.
    kind : {"causal", "backdoor", "non-causal"}
        Causal: every arrow points to the outcome. Backdoor: an arrowhead at the treatment. Non-causal: leaves
        the treatment by its own arrow but turns back (it has a collider, and is blocked unless that is
        adjusted for).
    open : bool
        Whether it transmits association given the adjustment.
    colliders : tuple of str
        Nodes where two arrowheads meet.
    blocked_by : tuple of str
        The nodes that block it: non-colliders adjusted for, and colliders neither adjusted for nor with a
        descendant that is. Empty when open.
    """

    nodes: tuple[str, ...]
    arrows: tuple[str, ...]
    kind: PathKind
    open: bool
    colliders: tuple[str, ...]
    blocked_by: tuple[str, ...]

    def __str__(self) -> str:
        words = [self.nodes[0]]
        for arrow, node in zip(self.arrows, self.nodes[1:], strict=True):
            words += [arrow, node]
        return " ".join(words)


@dataclass(frozen=True, kw_only=True, slots=True)
class Implication(Estimate):
    """A conditional independence that the graph implies, ``x`` and ``y`` given ``given``, and its test.

    Its label says it. The estimate, once data have been looked at, is the largest canonical partial
    correlation, signed where both variables have one column; its `df` are the statistic's denominator degrees
    of freedom.

    Attributes
    ----------
    x, y : str
        The two variables.
    given : frozenset of str
        What they are independent given.
    statistic : float or None
        Rao's F of Wilks' lambda; the square of the t of the partial correlation for two numeric variables.
    df_numerator : float or None
        Its numerator degrees of freedom.
    """

    x: str
    y: str
    given: frozenset[str]
    statistic: float | None = None
    df_numerator: float | None = None

    __repr__ = Estimate.__repr__

    def __str__(self) -> str:
        return self.label
