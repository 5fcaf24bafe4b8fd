"""``whyprompt mediate``: through which heads a study's contrast acts."""

from __future__ import annotations

from whyprompt.cli.common import AsJson, NoCode, Out, StudyPath, put, results_folder

__all__ = ["mediate"]


def mediate(study: StudyPath, out: Out = None, no_code: NoCode = False, as_json: AsJson = False) -> None:
    """Find the attention heads through which a study's arms act. Resumes where it was stopped."""
    from whyprompt._progress import show_progress
    from whyprompt.answers.verbs import run_mediation
    from whyprompt.study import load_study

    folder = results_folder(load_study(study, code=not no_code), out)
    with show_progress("mediate") as progress:
        answer = run_mediation(study, folder, progress=progress)
    put(answer.to_dict(), answer.summary(), as_json=as_json)
