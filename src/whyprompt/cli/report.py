"""``whyprompt report``: one page that a person hands to a colleague."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from whyprompt.cli.common import AsJson, NoCode, Out, StudyPath, put, results_folder

__all__ = ["report"]


def report(
    study: StudyPath,
    target: Annotated[
        Path | None,
        typer.Argument(
            help="The page to write. Default: report.html in the folder of results.", metavar="[FILE]"
        ),
    ] = None,
    out: Out = None,
    no_code: NoCode = False,
    as_json: AsJson = False,
) -> None:
    """Write a study's self-contained HTML page."""
    from whyprompt.page.page import write_report
    from whyprompt.study import load_study

    folder = results_folder(load_study(study, code=not no_code), out)
    path = write_report(study, folder, target=target)
    content = {"report": str(path), "bytes": path.stat().st_size}
    put(content, f"The report is at {path.resolve()}", as_json=as_json)
