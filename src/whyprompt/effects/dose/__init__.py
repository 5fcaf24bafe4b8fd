"""A continuous treatment: the dose-response curve."""

from __future__ import annotations

from whyprompt.effects.dose.dose import (
    DoseBalanceRow,
    DosePoint,
    DoseResponse,
    dose_response,
    natural_spline,
)

__all__ = [
    "DoseBalanceRow",
    "DosePoint",
    "DoseResponse",
    "dose_response",
    "natural_spline",
]
