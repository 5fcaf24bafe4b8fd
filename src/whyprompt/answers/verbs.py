"""What the command line does with a study file: load, answer, save."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from whyprompt._files import write_json
from whyprompt.answers.external import StudyEffect, study_effect
from whyprompt.answers.internal import StudyMediation, study_mediation
from whyprompt.errors import MediationError, WhypromptError
from whyprompt.mediation.engine.sites import as_sites, check_beside, check_set
from whyprompt.study import MediationSettings, load_study
from whyprompt.trials.run import load_trials

if TYPE_CHECKING:
    from collections.abc import Callable


def run_effect(study: str | Path, out: str | Path) -> StudyEffect:
    """Answer a study file's question at the external level, and save the answer.

    Parameters
    ----------
    study : str or Path
        The study file.
    out : str or Path
        Folder of its results; gets ``effect.json``. Where that cannot be written, a warning says so.

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
    _keep(Path(out) / "effect.json", answer)
    return answer


def run_mediation(
    study: str | Path,
    out: str | Path,
    *,
    sites: list[str] | None = None,
    tokens: Literal["answer", "suffix"] | None = None,
    relate: int | None = None,
    paths: Literal["path", "direct_path"] | None = None,
    outcome: Literal["log_prob", "prob", "margin", "first_token"] | None = None,
    flips: int | list[str] | None = None,
    directions: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> StudyMediation:
    """Answer a study file's question at the internal level, and save the answer.

    Parameters
    ----------
    study : str or Path
        The study file.
    out : str or Path
        Folder of its results; gets ``mediation.json`` and the folder ``mediation``. Where they
        cannot be written, a finished mediation is read, and a warning says that the answer is not kept.
    sites, tokens, relate, paths, outcome, flips, directions
        In place of the study's own keys under ``mediation``.
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
    _check_flips(flips)
    check_beside(sites or ())
    given = {
        "sites": sites,
        "tokens": tokens,
        "relate": relate,
        "paths": paths,
        "outcome": outcome,
        "flips": flips,
        "directions": directions,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    if asked:
        settings = (plan.mediation or MediationSettings()).model_copy(update=asked)
        check_set(settings.set_of, settings.sites)
        plan = plan.model_copy(update={"mediation": settings})
    answer = study_mediation(plan, out, load_trials(plan, out), progress=progress)
    _keep(Path(out) / "mediation.json", answer)
    return answer


def _check_flips(flips: int | list[str] | None) -> None:
    """Refuse what names no heads, before the model is loaded."""
    sites = as_sites(flips) if isinstance(flips, list) else ()
    if flips in (0, []) or len(set(sites)) < len(sites):
        raise MediationError(
            f"flips is {flips!r}",
            hint="a number of heads, or sites by their names, each once: flips=['head 14.1']",
        )


def _keep(path: Path, answer: StudyEffect | StudyMediation) -> None:
    try:
        write_json(path, answer.to_dict())
    except WhypromptError as error:
        # Results on a full disk, or on a place that may only be read, are answered like any other.
        warnings.warn(f"the answer is not kept: {error.message}", stacklevel=3)
