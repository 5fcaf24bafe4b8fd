"""What every verb of the command line shares: arguments, and how results and messages are printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from whyprompt.study import Study

STUDIES = {".yaml", ".yml", ".toml"}
StudyPath = Annotated[Path, typer.Argument(help="A study file (.yaml, .yml or .toml).", metavar="STUDY")]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="The study's folder of results. Default: runs/NAME.", metavar="DIR"),
]
NoCode = Annotated[
    bool, typer.Option("--no-code", help="Refuse a study that imports Python code (an outcome's 'call').")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def say(text: str) -> None:
    """Print a message to standard error."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - messages are printed


def show(text: str) -> None:
    """Print a result to standard output."""
    print(text, flush=True)  # noqa: T201 - results are printed


def put(content: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Print a result to standard output: as one JSON object, or as text."""
    show(json.dumps(content, ensure_ascii=False, allow_nan=False) if as_json else text)


def opened(path: Path, out: Path | None, *, no_code: bool) -> tuple[Study, Path]:
    """Read a study, and give the folder of its results with it."""
    from whyprompt.study import load_study

    study = load_study(path, code=not no_code)
    return study, out if out is not None else Path("runs") / study.name
