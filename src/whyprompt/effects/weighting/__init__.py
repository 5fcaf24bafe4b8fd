"""Weighting: inverse propensity, overlap, entropy balancing and AIPW, with errors that count the score."""

from __future__ import annotations

from whyprompt.effects.weighting.doses import (
    dose_correlations,
    dose_weights,
    entropy_influence,
    heavy_tails,
)
from whyprompt.effects.weighting.many_arms import (
    Contrast,
    interval_quantile,
    mean_covariance,
    standardised,
)
from whyprompt.effects.weighting.two_arms import (
    MultiWeightEstimate,
    WeightedSlope,
    WeightEstimate,
    continuous_weights,
    crump_threshold,
    effective_sample_size,
    multinomial_weights,
    truncate_weights,
    weight_estimate,
)

__all__ = [
    "Contrast",
    "MultiWeightEstimate",
    "WeightEstimate",
    "WeightedSlope",
    "continuous_weights",
    "crump_threshold",
    "dose_correlations",
    "dose_weights",
    "effective_sample_size",
    "entropy_influence",
    "heavy_tails",
    "interval_quantile",
    "mean_covariance",
    "multinomial_weights",
    "standardised",
    "truncate_weights",
    "weight_estimate",
]
