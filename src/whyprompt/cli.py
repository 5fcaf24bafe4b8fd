"""The command line: ``whyprompt run | effect | mediate | report | export | doctor | schema``.

Exit codes: 0 done; 1 a failure that is not the user's; 2 something the user can mend; 130 stopped by Ctrl-C.
Every verb takes ``--json`` and then prints one JSON object on standard output and nothing else there;
progress and messages go to standard error.
"""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from whyprompt import __version__
from whyprompt.errors import InputError, WhypromptError

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

StudyPath = Annotated[Path, typer.Argument(help="A study file (.yaml, .yml or .toml).", metavar="STUDY")]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="The study's folder of results. Default: runs/NAME.", metavar="DIR"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - messages are printed


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - results are printed


def _print_json(content: dict[str, Any]) -> None:
    _print(json.dumps(content, ensure_ascii=False, allow_nan=False))


def _folder(out: Path | None, name: str) -> Path:
    return out if out is not None else Path("runs") / name


@app.command()
def run(
    study: StudyPath,
    out: Out = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Count trials and tokens, run nothing.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Score a sample of stored trials again and compare.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run what is missing of a study, and only that."""
    from whyprompt._progress import show_progress
    from whyprompt.study import load_study
    from whyprompt.trials import dry_run, run_study, verify_study

    plan = load_study(study)
    folder = _folder(out, plan.name)
    if dry:
        count = dry_run(plan)
        if as_json:
            _print_json(
                {
                    "trials": count.trials,
                    "items": count.items,
                    "tokens": count.tokens,
                    "tokens_by_arm": count.arms,
                }
            )
        else:
            _print(f"{count.trials} trials of {count.items} items, {count.tokens} tokens:")
            for arm, tokens in count.arms.items():
                _print(f"  {arm}: {tokens} tokens")
        return
    if verify:
        with show_progress(plan.name) as progress:
            found = verify_study(plan, folder, progress=progress)
        if as_json:
            _print_json(
                {
                    "checked": found.checked,
                    "largest_difference": found.largest_difference,
                    "tolerance": found.tolerance,
                    "passed": found.passed,
                }
            )
        else:
            _print(
                f"{found.checked} trials scored again, each alone: log-probabilities differ by at most "
                f"{found.largest_difference:.1e} ({found.where}); tolerance {found.tolerance:.0e}."
            )
        if not found.passed:
            raise WhypromptError(
                f"stored log-probabilities differ from new ones by {found.largest_difference:.1e}",
                hint="the model, its dtype or a library changed: run into a new folder",
            )
        return
    with show_progress(plan.name) as progress:
        result = run_study(plan, folder, text=study.read_text(encoding="utf-8"), progress=progress)
    for notice in result.notices:
        _say(f"note: {notice}")
    if as_json:
        _print_json(
            {
                "trials": result.trials,
                "new_trials": result.new_trials,
                "store": str(result.store),
                "study_fingerprint": result.study,
                "model_fingerprint": result.model,
                "seconds": round(result.seconds, 3),
                "notices": list(result.notices),
            }
        )
    else:
        kept = result.trials - result.new_trials
        _print(
            f"{result.trials} trials in {result.store}: {result.new_trials} new in {result.seconds:.1f} s, "
            f"{kept} kept."
        )


@app.command()
def export(study: StudyPath, target: Path, out: Out = None, as_json: AsJson = False) -> None:
    """Write a study's trial table as .csv or .parquet."""
    from whyprompt.study import load_study
    from whyprompt.trials import export as write
    from whyprompt.trials import load_trials

    plan = load_study(study)
    frame = load_trials(plan, _folder(out, plan.name))
    write(frame, target)
    if as_json:
        _print_json({"trials": len(frame), "columns": list(frame.columns), "file": str(target)})
    else:
        _print(f"{len(frame)} trials, {len(frame.columns)} columns: {target}")


@app.command()
def schema(as_json: AsJson = False) -> None:
    """Print the JSON schema of a study file."""
    from whyprompt.study import study_json_schema

    _print(json.dumps(study_json_schema(), indent=None if as_json else 2))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check that this environment can run a study."""
    from whyprompt.trials.doctor import examine

    checks = examine()
    failed = [c for c in checks if c.status == "fail"]
    if as_json:
        _print_json(
            {
                "ok": not failed,
                "checks": [{"name": c.name, "status": c.status, "detail": c.detail} for c in checks],
            }
        )
    else:
        for check in checks:
            _print(f"{check.status:>4}  {check.name}: {check.detail}")
        _print("Everything a study needs is here." if not failed else f"{len(failed)} check(s) failed.")
    if failed:
        raise typer.Exit(1)


def _version(value: bool) -> None:
    if value:
        _print(f"whyprompt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    _ = version


def main() -> None:
    """Run the command line and turn errors into messages and exit codes."""
    try:
        app()
    except InputError as error:
        _say(f"error: {error}")
        sys.exit(error.exit_code)
    except WhypromptError as error:
        _say(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _say("stopped; what is complete is kept, and the same command goes on from there")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            _say(f"error: the disk is full: {error.filename or 'a file'} could not be written")
            sys.exit(1)
        if error.errno in {errno.EACCES, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ENOENT, errno.EPERM}:
            _say(f"error: {error.filename}: {error.strerror}")
            sys.exit(2)
        raise
