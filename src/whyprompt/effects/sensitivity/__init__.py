"""Sensitivity to what was not measured: Rosenbaum bounds, E-values, robustness values, benchmarks."""

from __future__ import annotations

from whyprompt.effects.sensitivity._evalue import EValue, e_value
from whyprompt.effects.sensitivity._report import SensitivityReport, sensitivity_report
from whyprompt.effects.sensitivity._robustness import (
    BenchmarkBound,
    RobustnessReport,
    adjusted_estimate,
    contour,
    robustness,
    robustness_value,
)
from whyprompt.effects.sensitivity._rosenbaum import (
    DEFAULT_GAMMAS,
    RosenbaumBound,
    RosenbaumResult,
    critical_gamma,
    mcnemar_bounds,
    rosenbaum_bounds,
)

__all__ = [
    "DEFAULT_GAMMAS",
    "BenchmarkBound",
    "EValue",
    "RobustnessReport",
    "RosenbaumBound",
    "RosenbaumResult",
    "SensitivityReport",
    "adjusted_estimate",
    "contour",
    "critical_gamma",
    "e_value",
    "mcnemar_bounds",
    "robustness",
    "robustness_value",
    "rosenbaum_bounds",
    "sensitivity_report",
]
