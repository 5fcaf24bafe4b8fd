"""External causality: from a table with arms and outcomes to an effect one may defend."""

from __future__ import annotations

from whyprompt.effects.audit import AuditResult, AuditRow, OneDraw, audit, one_draw
from whyprompt.effects.balance import balance_table, effective_sample_size
from whyprompt.effects.estimate import METHODS, estimate_effect
from whyprompt.effects.paired import PairedResult, SubgroupRow, paired_effect
from whyprompt.effects.result import Assumption, BalanceRow, EffectResult

__all__ = [
    "METHODS",
    "Assumption",
    "AuditResult",
    "AuditRow",
    "BalanceRow",
    "EffectResult",
    "OneDraw",
    "PairedResult",
    "SubgroupRow",
    "audit",
    "balance_table",
    "effective_sample_size",
    "estimate_effect",
    "one_draw",
    "paired_effect",
]
