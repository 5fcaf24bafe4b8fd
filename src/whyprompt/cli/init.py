"""``whyprompt init``: a first study, or the command that answers from trials that are there already."""

from __future__ import annotations

import re
import shlex
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whyprompt._files import whole_file
from whyprompt.cli.choices import names
from whyprompt.cli.common import AsJson, put
from whyprompt.cli.tables import TABLES, read_table
from whyprompt.errors import DataError, InputError, StudyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.study import Study
    from whyprompt.trials.starting import Questions

_MODEL, _COLUMNS = "The model", "Columns of a file of questions"
_PLAIN = "a plain table"
# What a key of the study that is written came from.
_OPTIONS = {
    "outcomes": "--outcomes",
    "arms": "--arms",
    "question": "--question",
    "model.endpoint": "--endpoint",
    "model.key": "--key-env",
    "model": "--model",
}


def init(
    start: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Questions and answers (.csv, .tsv, .json, .jsonl, .parquet); or what was run already:"
            " trials in a table, logs of other tools. Default: generated tasks, or on a terminal a few"
            " questions.",
            metavar="[QUESTIONS|TABLE|LOG...]",
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", help="The study to write (.yaml).", metavar="FILE")] = Path(
        "study.yaml"
    ),
    arms: Annotated[
        str | None,
        typer.Option(help="Prompts to compare: a,b of direct, few_shot, chain_of_thought (cot), json."),
    ] = None,
    outcomes: Annotated[
        str | None, typer.Option(help="What is measured: a,b. Default: what fits the answers and the model.")
    ] = None,
    question: Annotated[str | None, typer.Option(help="What the study asks, in words.")] = None,
    question_column: Annotated[
        str | None, typer.Option(help="Column with the question.", rich_help_panel=_COLUMNS)
    ] = None,
    answer_column: Annotated[
        str | None, typer.Option(help="Column with the right answer.", rich_help_panel=_COLUMNS)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="embedded (default), gpt2, a folder, ...", rich_help_panel=_MODEL),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="Base URL of an OpenAI-compatible server.", metavar="URL", rich_help_panel=_MODEL),
    ] = None,
    key_env: Annotated[
        str | None,
        typer.Option(help="Environment variable with its key.", metavar="VARIABLE", rich_help_panel=_MODEL),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a study that runs; of trials that are there already, say the command that answers from them.

    Comments in the file say what each key does.
    """
    from whyprompt.trials.starting import study_text

    paths = list(start or ())
    given = (arms, outcomes, question, question_column, answer_column, model, endpoint, key_env)
    if not paths and not any(given) and not as_json and _on_terminal():
        path, arms, model, endpoint, key_env = _asked()
        paths = [path] if path is not None else []
    if paths and (answers := _answers(paths, asked=bool(question_column or answer_column))) is not None:
        command, notes = answers
        listed = " ".join(map(str, paths))
        text = f"{listed}: trials that were run, so that there is nothing to set up. Next:\n  {command}"
        put({"command": command, "notes": notes}, "\n".join([text, *notes]), as_json=as_json)
        return
    if out.suffix.lower() not in {".yaml", ".yml"}:
        raise StudyError(f"{out}: a study is written as .yaml", hint=f"--out {out.with_suffix('.yaml')}")
    if out.exists() and not overwrite:
        raise StudyError(f"{out} would be overwritten", hint="another --out, or --overwrite")
    if not out.parent.is_dir():
        raise StudyError(f"{out}: no such folder: {out.parent}", hint="make it first")
    if endpoint is not None and model is None:
        raise StudyError("--endpoint needs the model's name there", hint="--model NAME")
    if key_env is not None and endpoint is None:
        raise StudyError("--key-env is the key of a server, and none is named", hint="--endpoint URL")
    found: Questions | None = None
    if paths:
        found = _found(paths[0], question_column, answer_column)
    text = study_text(
        found,
        target=out.resolve(),
        arms=names(arms) or ("direct", "few_shot"),
        outcomes=names(outcomes),
        question=question,
        model=model or "embedded",
        endpoint=endpoint,
        key_env=key_env,
    )
    study, n_items = _checked(text, out, asked=found is not None)
    shown = shlex.quote(str(out))
    taken = "" if found is None or found.gsm8k else f" ({_taken(found)})"
    said = f"{out}: {' against '.join(reversed(list(study.arms)))} on {_what(found, n_items)}{taken}."
    steps = [f"whyprompt run {shown} --dry-run", f"whyprompt run {shown}", f"whyprompt effect {shown}"]
    content: dict[str, Any] = {"study": str(out), "next": steps}
    put(content, "\n".join([said, "Next:", *(f"  {step}" for step in steps)]), as_json=as_json)


def _found(path: Path, question_column: str | None, answer_column: str | None) -> Questions:
    """Look at questions; of trials whose outcome goes by a name of its own, say how it is named."""
    from whyprompt.answers.proposal import outcome_to_name
    from whyprompt.trials.starting import look_at_questions

    try:
        return look_at_questions(path, question_column=question_column, answer_column=answer_column)
    except StudyError as error:
        command = ""
        if not question_column and not answer_column and path.suffix.lower() in TABLES:
            command = outcome_to_name(read_table(path), str(path))
        if not command:
            raise
        raise StudyError(
            error.message, hint=f"{error.hint}; of trials that were run name the outcome: {command}"
        ) from None


def _checked(text: str, out: Path, *, asked: bool) -> tuple[Study, int]:
    """Write the file, and take it away again where it is no valid study: what is said names the options.

    Of questions that are asked the number of items is given that are not kept as examples.
    """
    from whyprompt.study import load_study
    from whyprompt.trials.items.load import items_of

    before = out.read_bytes() if out.exists() else None
    with whole_file(out) as file:
        file.write(text.encode())
    try:
        study = load_study(out)
        return study, len(items_of(study).items) if asked else 0
    except InputError as error:
        if before is None:
            out.unlink()
        else:
            with whole_file(out) as file:
                file.write(before)
        raise type(error)(_in_options(error.message, out), hint=error.hint) from None


def _in_options(text: str, out: Path) -> str:
    """Name the option that a key came from: the file, whose line is named, is gone.

    >>> _in_options("s.yaml:9: outcomes.0: no built-in outcome 'x'", Path("s.yaml"))
    "--outcomes: no built-in outcome 'x'"
    """

    def said(found: re.Match[str]) -> str:
        key = found["key"]
        return f"{next((flag for name, flag in _OPTIONS.items() if key.startswith(name)), key)}: "

    return re.sub(rf"^{re.escape(str(out))}:\d+: (?P<key>[\w.]+): ", said, text, flags=re.MULTILINE)


def _what(found: Questions | None, n_items: int) -> str:
    if found is None:
        return "24 generated sums"
    kept = found.size - n_items
    said = f"{n_items} of the {found.size}" if kept else f"the {found.size}"
    if found.size == 1:
        return f"the one question of {found.path}"
    return f"{said} questions of {found.path}" + (f", {kept} being kept as examples" if kept else "")


def _taken(found: Questions) -> str:
    return ", ".join(f"{what}: {column!r}" for what, column in found.columns.items())


def _answers(paths: Sequence[Path], *, asked: bool) -> tuple[str, list[str]] | None:
    """Give the command that answers from trials that were run, with what it leaves out for its gaps.

    None of a file of questions.
    """
    from whyprompt.answers.proposal import propose
    from whyprompt.trials.readers.find import find_logs, sniffed

    listed = shlex.join(["whyprompt", "effect", *map(str, paths)])
    if len(paths) > 1 or paths[0].is_dir():
        if all(one.reader.name == _PLAIN for one in find_logs(paths).logs):
            _refuse_questions(paths)
        return listed, []
    path = paths[0]
    if not path.is_file():
        raise StudyError(f"{path}: there is no such file", hint="name a file of questions, or logs")
    sure, reader = sniffed(path)
    if reader is not None and reader.name != _PLAIN and sure >= 0.5:
        return listed, []
    if asked or path.suffix.lower() not in TABLES:
        return None
    if _wide(path):
        return listed, []
    try:
        proposal = propose(read_table(path), str(path))
    except DataError:
        # No arm, or no outcome: questions. What is wrong with the file itself is said where it is read.
        return None
    if proposal.paired:
        return listed, []
    gaps = [f"Left out: {t.column!r}, {t.why}." for t in proposal.columns if "are missing" in t.why]
    return proposal.command, gaps


def _wide(path: Path) -> bool:
    """Say whether a table has a score of each arm on one row, as `whyprompt effect` reads it."""
    from whyprompt.trials.readers.plain_columns import SAMPLE, find_columns
    from whyprompt.trials.readers.plain_names import OUTCOMES
    from whyprompt.trials.reading.rows import rows_of

    try:
        wide = find_columns(path, [row for _, row in islice(rows_of(path), SAMPLE)]).wide
    except DataError:
        return False
    return bool(wide) and all(family.stem in OUTCOMES for family in wide)


def _refuse_questions(paths: Sequence[Path]) -> None:
    """Refuse tables that hold no trials of two arms: they may be questions."""
    from whyprompt.trials.logs.read import read_trials

    try:
        if len(read_trials(*paths).arms) > 1:
            return
        why = f"{', '.join(map(str, paths))}: no trials of two arms, as of logs that were run"
    except DataError as error:
        why = error.message
    raise StudyError(
        why,
        hint="of questions that are still to be asked name one file (in the study there may be more:"
        " items: [A.csv, B.csv]); of logs name that of the other arm too",
    )


def _on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _asked() -> tuple[Path | None, str, str | None, str | None, str | None]:
    """Ask what the options say, each with its default."""
    written = _answer("File of questions and answers, or of trials (Enter: generated sums)")
    path = Path(written).expanduser() if written else None
    arms = typer.prompt("Prompts to compare: direct, few_shot, cot, json", default="direct,few_shot")
    endpoint = _answer("Base URL of an OpenAI-compatible server (Enter: a model on this machine)")
    if not endpoint:
        model = typer.prompt("Model: embedded, gpt2, a folder, ...", default="embedded")
        return path, arms, model, None, None
    model = typer.prompt("Its name there")
    return path, arms, model, endpoint, _answer("Environment variable with its key (Enter: none)") or None


def _answer(asked: str) -> str:
    return str(typer.prompt(asked, default="", show_default=False)).strip()
