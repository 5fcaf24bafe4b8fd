"""The command line: ``whyprompt init | run | effect | compare | mediate | report | export``, ...

Exit codes: 0 done; 1 a failure that is not the user's; 2 something the user can mend; 130 stopped by Ctrl-C,
143 by the system's request to end.
Every verb takes ``--json`` and then prints one JSON object on standard output and nothing else there;
progress and messages go to standard error. One module a group of verbs; nothing heavy is imported here.
"""

from __future__ import annotations

import errno
import signal
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Annotated

import typer

from whyprompt._version import __version__
from whyprompt.cli import data as _data
from whyprompt.cli import effect as _effect
from whyprompt.cli import init as _init
from whyprompt.cli import logs as _logs
from whyprompt.cli import mediate as _mediate
from whyprompt.cli import run as _run
from whyprompt.cli.common import say, show
from whyprompt.cli.verb import Verb
from whyprompt.errors import WhypromptError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["app", "main"]

app = typer.Typer(
    name="whyprompt",
    help="What a change of prompt causes in a language model, how sure you may be, and which heads carry it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    # Plain help: importing rich for it would double the time that --help takes.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_EXAMPLES: dict[Callable[..., None], str] = {
    _init.init: """
whyprompt init                            # on a terminal it asks; else generated tasks
whyprompt init questions.csv --arms direct,cot
whyprompt init questions.csv --question-column q --answer-column gold --out mine.yaml
whyprompt init questions.csv --endpoint https://HOST/v1 --model NAME --key-env OPENAI_API_KEY
whyprompt init log.csv                    # trials are there: the command that answers
""",
    _run.run: """
whyprompt run study.yaml --dry-run        # what it would take
whyprompt run study.yaml                  # goes on where it was stopped
whyprompt run study.yaml --workers auto   # by several processes
""",
    _effect.effect: """
whyprompt effect study.yaml
whyprompt effect direct.eval cot.eval     # two logs of another tool
whyprompt effect log.csv                  # reads the columns; proposes where it cannot tell
whyprompt effect log.csv --treatment arm --treated cot --control direct \\
    --outcome score --confounders difficulty,question_tokens --check sensitivity
whyprompt effect log.csv --treatment arm --outcome score --method nearest:caliper=0.2
""",
    _logs.compare: """
whyprompt compare monday.eval tuesday.eval --changed
""",
    _mediate.mediate: """
whyprompt mediate study.yaml
whyprompt mediate study.yaml --relate 4     # paths between the four heads with the largest effects
whyprompt mediate study.yaml --flips 3      # does what the model writes flip without one of three heads?
whyprompt mediate direct.eval cot.eval      # of two logs: how much is just longer answers?
whyprompt mediate log.csv --treatment arm --outcome score --mediators length,lines
""",
    _run.report: """
whyprompt report study.yaml               # writes runs/NAME/report.html
whyprompt report direct.eval cot.eval --out page.html
whyprompt report monday.yaml tuesday.yaml --out both.html
""",
    _run.export: """
whyprompt export study.yaml trials.csv
whyprompt export study.yaml answers.csv --wide
""",
    _logs.import_: """
whyprompt import logs/ --out trials.parquet
""",
    _run.schema: """
whyprompt schema > schema.json
""",
    _run.doctor: """
whyprompt doctor
whyprompt doctor --model study.yaml
""",
    _run.skill: """
whyprompt skill > SKILL.md
""",
}
"""The verbs in the order of their work, each with the examples that its help ends in."""

# What the list of verbs says of each, on a line of its own at 80 columns.
_SHORT = {
    "init": "Write a first study, which runs as it is.",
    "run": "Run what is missing of a study, and only that.",
    "effect": "Estimate what one prompt changes against another.",
    "compare": "Say all that differs between two runs.",
    "mediate": "Find what carries it: heads, or how long answers are.",
    "report": "Write one self-contained HTML page to hand on.",
    "export": "Write a study's trial table.",
    "import": "Write the trial table of logs of other tools.",
    "schema": "Print the JSON schema of a study file.",
    "doctor": "Check that this environment can run a study.",
    "skill": "Print what a coding assistant needs to know.",
    "data": "Save tables to try things on, or the notebooks' data.",
}

for _verb, _lines in _EXAMPLES.items():
    _name = _verb.__name__.rstrip("_")
    app.command(_name, cls=Verb, epilog=_lines, short_help=_SHORT[_name])(_verb)
app.add_typer(_data.app, name="data", short_help=_SHORT["data"])

_STOPPED = 128 + signal.SIGINT
_ENDED = 128 + signal.SIGTERM
# Paths that a person can mend: of another kind, not theirs, absent, or with a name that none can have.
_NOT_USABLE = {
    errno.EACCES,
    errno.EROFS,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENOENT,
    errno.EPERM,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}
_GOES_ON = "stopped; what is complete is kept, and the same command goes on from there"
_BEGINS = "stopped; the same command begins anew"
# What these have done is stored as they go.
_KEEPING = frozenset(("run", "mediate"))


def _version(value: bool) -> None:
    if value:
        show(f"whyprompt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    _ = version


def _end(_number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does: files being written are taken away, and the store is closed."""
    raise SystemExit(_ENDED)


def _stopped() -> str:
    return _GOES_ON if _KEEPING.intersection(sys.argv[1:2]) else _BEGINS


def _note(message: Warning | str, *_: object, **__: object) -> None:
    say(f"note: {message}")


def main() -> None:
    """Run the command line and turn errors into messages and exit codes."""
    try:
        warnings.showwarning = _note
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _end)
        app(prog_name="whyprompt")
    except WhypromptError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except SystemExit as stop:
        # typer turns Ctrl-C into this code without a word.
        if stop.code in {_STOPPED, _ENDED}:
            say(_stopped())
        raise
    except KeyboardInterrupt:
        # Before typer took over.
        say(_stopped())
        sys.exit(_STOPPED)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            say(f"error: the disk is full: {error.filename or 'a file'} could not be written")
            sys.exit(1)
        if error.errno in _NOT_USABLE:
            say(f"error: {error.filename}: {error.strerror}")
            sys.exit(2)
        raise
