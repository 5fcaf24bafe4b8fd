"""Matching: pairs, strata and kernel weights from a score or from covariates."""

from __future__ import annotations

from whyprompt.effects.matching.full import (
    cover_cost,
    matrix_cover,
)
from whyprompt.effects.matching.kernel import (
    silverman_bandwidth,
)
from whyprompt.effects.matching.nearest import (
    MatchedSet,
    Order,
    TieRule,
    caliper_width,
    common_support,
    match_cem,
    match_full,
    match_kernel,
    match_mahalanobis,
    match_nearest,
    match_optimal,
    match_subclass,
)
from whyprompt.effects.matching.strata import (
    OneSided,
    coarsen,
)

__all__ = [
    "MatchedSet",
    "OneSided",
    "Order",
    "TieRule",
    "caliper_width",
    "coarsen",
    "common_support",
    "cover_cost",
    "match_cem",
    "match_full",
    "match_kernel",
    "match_mahalanobis",
    "match_nearest",
    "match_optimal",
    "match_subclass",
    "matrix_cover",
    "silverman_bandwidth",
]
