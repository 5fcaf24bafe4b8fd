"""What every verb of the command line shares: arguments, and how results and messages are printed."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whyprompt.cli.choices import refuse
from whyprompt.cli.flags import speak
from whyprompt.errors import InputError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from whyprompt.study import Study

STUDIES = {".yaml", ".yml", ".toml"}
# Groups of options in the help of several verbs.
WHERE, VERDICT = "Where", "What is better"
StudyPath = Annotated[Path, typer.Argument(help="A study file (.yaml, .yml or .toml).", metavar="STUDY")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="The study's folder of results. Default: runs/NAME.",
        metavar="DIR",
        rich_help_panel=WHERE,
    ),
]
NoCode = Annotated[
    bool,
    typer.Option(
        "--no-code",
        help="Refuse a study that imports Python code (an outcome's 'call').",
        rich_help_panel=WHERE,
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        help="Where work is done: processes, ray or ray://HOST:PORT. Default: here.",
        metavar="PLACE",
        rich_help_panel=WHERE,
    ),
]
Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        help="How many workers. Default: auto, as many as fit.",
        metavar="N|auto",
        rich_help_panel=WHERE,
    ),
]
Gpus = Annotated[
    int,
    typer.Option(
        "--gpus-per-worker", help="GPUs of each worker; with 0 it sees none.", rich_help_panel=WHERE
    ),
]
Better = Annotated[
    str | None,
    typer.Option(
        help="Which is better of the outcome, higher or lower. Default: what is known of exact_match and its"
        " like.",
        metavar="higher|lower",
        rich_help_panel=VERDICT,
    ),
]
Margin = Annotated[
    float | None,
    typer.Option(
        help="How much worse is still no worse, in units of the outcome: 0.02 is 2 points of 0/1.",
        rich_help_panel=VERDICT,
    ),
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


def given_places(on: str | None, count: str | None, gpus: int) -> str:
    """Name those of --on, --workers and --gpus-per-worker that were given."""
    given = {"--on": on is not None, "--workers": count is not None, "--gpus-per-worker": gpus != 0}
    return ", ".join(name for name, is_given in given.items() if is_given)


def placed(
    on: str | None, count: str | None, gpus: int, cpus: int | None = None
) -> AbstractContextManager[None]:
    """Have the block computed where --on, --workers and --gpus-per-worker say; here where none is given."""
    if on is None and count is None and not gpus:
        return nullcontext()
    from whyprompt._workers.place import workers

    number = None
    if count not in {None, "auto"}:
        try:
            number = int(str(count))
        except ValueError:
            raise InputError(
                f"--workers {count!r} is no number of workers", hint="2, for example, or auto"
            ) from None
    return workers(on or "processes", count=number, cpus_per_worker=cpus or 1, gpus_per_worker=gpus)


def placed_study(plan: Study, on: str | None, workers: str | None, gpus: int) -> AbstractContextManager[None]:
    """Have a study's local model run by workers, each with as many threads as the study says."""
    from whyprompt.study import ModelSettings

    if isinstance(plan.model, ModelSettings):
        return placed(on, workers, gpus, plan.model.threads)
    refuse(
        given_places(on, workers, gpus),
        "with an endpoint, whose limits.concurrency does",
    )
    return nullcontext()


def opened(path: Path, out: Path | None, *, no_code: bool) -> tuple[Study, Path]:
    """Read a study, and give the folder of its results with it."""
    from whyprompt.study import load_study

    # From here on what is wrong is a key of the study, and no option of the verb.
    speak(None)
    study = load_study(path, code=not no_code)
    return study, out if out is not None else Path("runs") / study.name
