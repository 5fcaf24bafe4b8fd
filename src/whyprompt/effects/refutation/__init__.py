"""Attempts to refute an estimate, and the curve of all defensible specifications."""

from __future__ import annotations

from whyprompt.effects.refutation.refute import (
    DataSubset,
    LeaveOneOut,
    LeftOut,
    NegativeControl,
    NegativeControls,
    PlaceboTreatment,
    RandomCommonCause,
    Refutation,
    data_subset,
    leave_one_covariate_out,
    negative_control_outcome,
    placebo_treatment,
    random_common_cause,
    refute,
)
from whyprompt.effects.refutation.specification import (
    ChoiceEffect,
    Specification,
    SpecificationCurve,
    SpecificationFailure,
    specification_curve,
)

__all__ = [
    "ChoiceEffect",
    "DataSubset",
    "LeaveOneOut",
    "LeftOut",
    "NegativeControl",
    "NegativeControls",
    "PlaceboTreatment",
    "RandomCommonCause",
    "Refutation",
    "Specification",
    "SpecificationCurve",
    "SpecificationFailure",
    "data_subset",
    "leave_one_covariate_out",
    "negative_control_outcome",
    "placebo_treatment",
    "random_common_cause",
    "refute",
    "specification_curve",
]
