"""From a study, or a log, to one trial table."""

from __future__ import annotations

from whyprompt.trials.run import DryRun, Progress, RunResult
from whyprompt.trials.store import TrialStore, export

__all__ = [
    "DryRun",
    "Progress",
    "RunResult",
    "TrialStore",
    "export",
]
