"""From a study, or a log, to one trial table."""

from __future__ import annotations

from whyprompt.trials.run import (
    DryRun,
    Progress,
    RunResult,
    Verification,
    dry_run,
    load_trials,
    run_study,
    verify_study,
)
from whyprompt.trials.store import TrialStore, export

__all__ = [
    "DryRun",
    "Progress",
    "RunResult",
    "TrialStore",
    "Verification",
    "dry_run",
    "export",
    "load_trials",
    "run_study",
    "verify_study",
]
