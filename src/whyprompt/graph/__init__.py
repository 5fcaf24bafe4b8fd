"""Causal graphs: what causes what, what to adjust for, and what may not be adjusted for."""

from __future__ import annotations

from whyprompt.graph.report import Identification
from whyprompt.graph.types import Implication, Path

__all__ = [
    "Identification",
    "Implication",
    "Path",
]
