"""From a study, or a log, to one trial table."""

from __future__ import annotations

from whyprompt.trials.result import Progress, RunResult
from whyprompt.trials.store import TrialStore, export

__all__ = ["Progress", "RunResult", "TrialStore", "export"]
