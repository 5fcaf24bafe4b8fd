"""Estimates from one arm an item, held against the truth from both."""

from __future__ import annotations

from whyprompt.effects.audit.audit import (
    AuditResult,
    AuditRow,
    OneDraw,
    Rule,
    audit,
    one_draw,
)

__all__ = [
    "AuditResult",
    "AuditRow",
    "OneDraw",
    "Rule",
    "audit",
    "one_draw",
]
