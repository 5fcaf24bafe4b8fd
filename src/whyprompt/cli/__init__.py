"""The command line: ``whyprompt run | effect | compare | mediate | report | import | export | data``, ...

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
from whyprompt.cli import logs as _logs
from whyprompt.cli import run as _run
from whyprompt.cli.common import say, show
from whyprompt.errors import WhypromptError

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["app", "main"]

app = typer.Typer(
    name="whyprompt",
    help="What a change of prompt causes in a language model, how sure you may be, and which heads carry it.",
    no_args_is_help=True,
    add_completion=False,
    # Plain help: importing rich for it would double the time that --help takes.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.command()(_run.run)
app.command()(_effect.effect)
app.command()(_logs.compare)
app.command()(_run.mediate)
app.command()(_run.report)
app.command()(_run.export)
app.command("import")(_logs.import_)
app.command()(_run.schema)
app.command()(_run.doctor)
app.command()(_run.skill)
app.add_typer(_data.app, name="data")

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


def _note(message: Warning | str, *_: object, **__: object) -> None:
    say(f"note: {message}")


def main() -> None:
    """Run the command line and turn errors into messages and exit codes."""
    try:
        warnings.showwarning = _note
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _end)
        app()
    except WhypromptError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except SystemExit as stop:
        # typer turns Ctrl-C into this code without a word.
        if stop.code in {_STOPPED, _ENDED}:
            say(_GOES_ON)
        raise
    except KeyboardInterrupt:
        # Before typer took over.
        say(_GOES_ON)
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
