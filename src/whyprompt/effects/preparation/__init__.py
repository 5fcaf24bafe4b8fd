"""Data preparation as one recorded recipe, applied alike to every arm."""

from __future__ import annotations

from whyprompt.effects.preparation.recipe import (
    Bin,
    Code,
    FittedStep,
    FlagOutliers,
    Prepared,
    Recipe,
    Scale,
    StepChange,
    Winsorise,
    prepare_table,
)

__all__ = [
    "Bin",
    "Code",
    "FittedStep",
    "FlagOutliers",
    "Prepared",
    "Recipe",
    "Scale",
    "StepChange",
    "Winsorise",
    "prepare_table",
]
