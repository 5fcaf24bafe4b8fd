"""What every verb of the command line shares: arguments, and how results and messages are printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["AsJson", "NoCode", "Out", "StudyPath", "results_folder", "say", "show", "show_json"]

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


def show_json(content: dict[str, Any]) -> None:
    """Print one JSON object to standard output."""
    show(json.dumps(content, ensure_ascii=False, allow_nan=False))


def results_folder(out: Path | None, name: str) -> Path:
    """Give the folder of a study's results."""
    return out if out is not None else Path("runs") / name
