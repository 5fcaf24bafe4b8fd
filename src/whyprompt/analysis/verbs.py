"""What the command line does with a study file: load, answer, save."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from whyprompt.analysis.external import StudyEffect, study_effect
from whyprompt.analysis.internal import StudyMediation, study_mediation
from whyprompt.study import load_study
from whyprompt.trials import load_trials
from whyprompt.trials.manifest import write_json

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["run_effect", "run_mediation"]


def run_effect(study: str | Path, out: str | Path) -> StudyEffect:
    """Answer a study file's question at the external level, and save the answer.

    Parameters
    ----------
    study : str or Path
        The study file.
    out : str or Path
        Folder of its results; gets ``effect.json``.

    Returns
    -------
    StudyEffect

    Raises
    ------
    InputError
        If the study was not run, or its contrast cannot be estimated.
    """
    plan = load_study(study)
    answer = study_effect(plan, load_trials(plan, out))
    write_json(Path(out) / "effect.json", answer.to_dict())
    return answer


def run_mediation(
    study: str | Path, out: str | Path, *, progress: Callable[[int, int, str], None] | None = None
) -> StudyMediation:
    """Answer a study file's question at the internal level, and save the answer.

    Parameters
    ----------
    study : str or Path
        The study file.
    out : str or Path
        Folder of its results; gets ``mediation.json`` and the folder ``mediation``.
    progress : callable, optional
        Called as ``progress(done, total, text)``.

    Returns
    -------
    StudyMediation

    Raises
    ------
    InputError
        If the study was not run, or its arms cannot be compared inside the model.
    """
    plan = load_study(study)
    answer = study_mediation(plan, out, load_trials(plan, out), progress=progress)
    write_json(Path(out) / "mediation.json", answer.to_dict())
    return answer
