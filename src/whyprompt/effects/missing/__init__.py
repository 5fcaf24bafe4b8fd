"""Missing data: where the gaps are, whether they may be ignored, and estimates that do not drop rows.

No row is dropped unasked. `missing_patterns` tabulates, `little_test` tests whether gaps are completely at
random, `impute` and `pool` are multiple imputation, `estimate_with_imputation` an effect from a table with
gaps, `tipping_point` says how far from missing at random the truth must be to overturn it, and
`drop_incomplete` drops rows on purpose and describes them.
"""

from __future__ import annotations

from whyprompt.effects.missing._chained import Imputation, impute
from whyprompt.effects.missing._estimate import ImputedEffect, estimate_with_imputation
from whyprompt.effects.missing._little import LittleTest, em_normal, little_test
from whyprompt.effects.missing._patterns import (
    DroppedDifference,
    DropReport,
    MissingPattern,
    MissingPatterns,
    drop_incomplete,
    missing_patterns,
)
from whyprompt.effects.missing._pooling import PooledEstimate, pool
from whyprompt.effects.missing._tipping import TippingPoint, TippingRow, tipping_point

__all__ = [
    "DropReport",
    "DroppedDifference",
    "Imputation",
    "ImputedEffect",
    "LittleTest",
    "MissingPattern",
    "MissingPatterns",
    "PooledEstimate",
    "TippingPoint",
    "TippingRow",
    "drop_incomplete",
    "em_normal",
    "estimate_with_imputation",
    "impute",
    "little_test",
    "missing_patterns",
    "pool",
    "tipping_point",
]
