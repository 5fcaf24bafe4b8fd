"""Sensitivity to what was not measured: Rosenbaum bounds, E-values, robustness values, benchmarks."""

from __future__ import annotations

from whyprompt.effects._evalue import EValue, e_value
from whyprompt.effects._robustness import (
    BenchmarkBound,
    RobustnessReport,
    adjusted_estimate,
    contour,
    robustness,
    robustness_value,
)
from whyprompt.effects._rosenbaum import (
    DEFAULT_GAMMAS,
    RosenbaumBound,
    RosenbaumResult,
    critical_gamma,
    mcnemar_bounds,
    rosenbaum_bounds,
)
from whyprompt.effects._sensitivity import SensitivityReport, sensitivity_report

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
