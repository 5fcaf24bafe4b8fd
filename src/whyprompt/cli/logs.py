"""Logs on the command line: ``whyprompt effect LOG LOG``, and ``whyprompt import`` of their table."""

from __future__ import annotations

import shlex
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer

from whyprompt._files import file_sha256, write_json
from whyprompt._version import __version__
from whyprompt._words import counted
from whyprompt.cli.choices import refuse, refuse_written
from whyprompt.cli.common import STUDIES, AsJson, put
from whyprompt.cli.flags import said
from whyprompt.cli.tables import TABLES, read_table
from whyprompt.errors import DataError, EstimationError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from whyprompt.answers.changes import Changed as ChangedItems
    from whyprompt.effects.result import EffectResult
    from whyprompt.effects.several import EffectsResult
    from whyprompt.trials.logs.result import ReadTrials

_LOGS = "Logs of other tools"
Arm = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_LOGS,
        help="Of logs: what the arm is, a path in them (task_args.arm) or file. Default: what differs.",
        metavar="PATH",
    ),
]
Scorer = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_LOGS, help="Of logs: the scorer that is the outcome.", metavar="NAME[,FILTER]"
    ),
]
Item = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_LOGS,
        help="Of logs: what names the item, id or a covariate. Default: what was asked.",
        metavar="NAME",
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_LOGS, help="Of logs: the arm that the others are held against.", metavar="ARM"
    ),
]

Changed = Annotated[
    bool,
    typer.Option(
        "--changed", rich_help_panel=_LOGS, help="Of logs: list the items whose outcomes rise and fall."
    ),
]

NO_VERDICT = "but for one outcome and two arms, without --impute: nothing else has a verdict"
_ONLY_COLUMNS = "write the logs' table and name its columns: whyprompt import LOG... --out trials.parquet"


def effect_of_logs(
    paths: Sequence[Path],
    given: Mapping[str, Any],
    of_log: Mapping[str, Any],
    *,
    better: str | None,
    margin: float | None,
    changed: bool,
    as_json: bool,
) -> None:
    """Read logs, and print the effect of one arm against another.

    `given` are arguments of `log_effect` that were written, `of_log` those of `read_trials`; with `changed`
    the items follow whose outcomes rise and fall.
    """
    import whyprompt as wp

    if given.get("design", "paired") not in {"paired", "randomized", "observational"}:
        raise EstimationError(f"--design {given['design']} needs columns", hint=_ONLY_COLUMNS)
    with proposed_rest(paths, of_log, as_json=as_json):
        found = read_logs(paths, of_log)
    try:
        result = wp.log_effect(found, reference=of_log["reference"], **given)
    except EstimationError as error:
        if len(found.arms) < 2 and len(paths) == 1 and (init := _or_init(paths[0])):
            raise EstimationError(error.message, hint=f"{error.hint}{init}") from None
        raise
    result = judged(result, better, margin)
    content, text = result.to_dict() | {"logs": found.to_dict()}, result.summary(words=said)
    if changed:
        from whyprompt.answers.changes import changed_text

        listed = _changed(found, result)
        content |= {"changed": listed}
        text = f"{text}\n\n{changed_text(listed, width=_width())}"
    put(content, text, as_json=as_json)


def judged(result: Any, better: str | None, margin: float | None) -> Any:  # noqa: ANN401 - of any kind
    """State which way is better and what is still no worse, where written, of an effect with a verdict."""
    from whyprompt.effects.result import EffectResult

    if better is None and margin is None:
        return result
    if isinstance(result, EffectResult):
        return result.judged(better=cast("Any", better), margin=margin)
    written = {"--better": better, "--margin": margin}
    refuse(", ".join(flag for flag, value in written.items() if value is not None), NO_VERDICT)
    return result


def refuse_several(tables: Sequence[Path]) -> None:
    """Refuse several files where columns of one table are named, but for the parts of one in Parquet."""
    if len(tables) > 1 and {path.suffix.lower() for path in tables} != {".parquet"}:
        raise EstimationError(
            "--treatment and --outcome name columns of one table, and several files are given",
            hint="logs need neither; Parquet files may be several; or put the tables together",
        )


def refuse_unnamed(
    verb: str,
    table: Path,
    given: set[str],
    treatment: str | None,
    outcomes: Sequence[str],
    *,
    needs_treatment: bool = True,
) -> None:
    """Refuse what is no table, a table without its columns named, and what only a study has."""
    if table.suffix.lower() not in TABLES:
        raise EstimationError(
            f"{table} is neither a table nor a study",
            hint=f"one of: {', '.join((*TABLES, *sorted(STUDIES)))}",
        )
    needed = {"--treatment": treatment or not needs_treatment, "--outcome": outcomes}
    missing = [name for name, value in needed.items() if not value]
    if missing:
        only: Sequence[str | None] = outcomes or [None]
        if len(missing) == len(only) == 1 and given <= {"tables", "treatment", "outcome", "as_json"}:
            propose_rest(table, verb=verb, treatment=treatment, outcome=only[0], as_json="as_json" in given)
        command = shlex.join(["whyprompt", verb, str(table)])
        raise EstimationError(
            f"{' and '.join(missing)} must be given with a table",
            hint=f"name columns of the table; {command} proposes them",
        )
    refuse_written(given & {"out"}, "with a table: only a study has a folder of results")
    refuse_written(given & {"no_code"}, "with a table: only a study can import code")


@contextmanager
def proposed_rest(
    paths: Sequence[Path], of_log: Mapping[str, Any], *, verb: str = "effect", as_json: bool
) -> Iterator[None]:
    """Of one table that the block cannot read as a log, say what it may be asked."""
    try:
        yield
    except DataError:
        one = len(paths) == 1 and paths[0].suffix.lower() in TABLES and paths[0].stat().st_size
        if not one or any(of_log.values()):
            raise
        propose_rest(paths[0], verb=verb, as_json=as_json)


def propose_rest(
    path: Path,
    *,
    verb: str = "effect",
    treatment: str | None = None,
    outcome: str | None = None,
    as_json: bool,
) -> NoReturn:
    """Say what a table that is no log may be asked, and that nothing was estimated."""
    from whyprompt.answers.proposal import propose

    table = read_table(path)
    if not len(table):
        raise DataError(f"{path} is empty", hint="a row of names of columns, then a row a trial")
    try:
        proposal = propose(table, str(path), verb=verb, treatment=treatment, outcome=outcome)
    except DataError as error:
        raise DataError(f"{path}: {error.message}", hint=f"{error.hint}{_or_init(path)}") from None
    put(proposal.to_dict(), proposal.text, as_json=as_json)
    lacking = [f"--{n}" for n, v in {"treatment": treatment, "outcome": outcome}.items() if v is None]
    said_of = "no column was named" if len(lacking) == 2 else f"{lacking[0]} was not given"
    raise EstimationError(f"nothing was estimated, since {said_of}", hint=proposal.command)


def _or_init(path: Path) -> str:
    """Say what is written of questions that are still to be asked; "" of a file that holds none."""
    from whyprompt.trials.starting import look_at_questions

    try:
        look_at_questions(path)
    except InputError:
        return ""
    return f"; of questions that are still to be asked: whyprompt init {shlex.quote(str(path))}"


def effect_for_page(
    paths: Sequence[Path],
    of_log: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    better: str | None,
    margin: float | None,
) -> tuple[ReadTrials, EffectResult | EffectsResult]:
    """Read logs, and estimate the effect of one arm against another, or of all others against a reference.

    `given` are arguments of `log_effect`, None where they were not written.
    """
    import whyprompt as wp

    found = read_logs(paths, of_log)
    asked = {name: value for name, value in given.items() if value is not None}
    if of_log["reference"] is not None:
        asked["reference"] = found.reference
        several = len(found.arms) > 2 and not {"treated", "control"} & set(asked)
        refuse(
            ", ".join(f"--{name}" for name in ("confounders", "by") if several and name in asked),
            "on the page of more than two arms; name two: --treated, --control",
        )
    return found, judged(wp.log_effect(found, **asked), better, margin)


def _changed(found: ReadTrials, result: EffectResult | EffectsResult) -> ChangedItems:
    """List the items whose outcome is higher under the treated arm, and lower, the largest change first."""
    from whyprompt.answers.changes import changed_items

    items = getattr(result, "items", None)
    if items is None:
        raise EstimationError(
            "--changed lists items that were run under both of two arms, and these were not",
            hint="leave it out, or name two arms: --treated, --control",
        )
    return changed_items(found, items, treated=str(result.treated), control=str(result.control))


def _width() -> int:
    """Give the width of texts on the screen."""
    return max(40, shutil.get_terminal_size((110, 24)).columns - 16)


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Logs, folders of them, or patterns: two runs, or more.", metavar="RUN..."),
    ],
    *,
    treated: Annotated[str | None, typer.Option(help="The arm that is held against the control.")] = None,
    control: Annotated[str | None, typer.Option(help="The arm that it is held against.")] = None,
    arm: Arm = None,
    scorer: Scorer = None,
    item: Item = None,
    reference: Reference = None,
    level: Annotated[float, typer.Option(help="Of the range of flips that noise makes.")] = 0.95,
    changed: Changed = False,
    as_json: AsJson = False,
) -> None:
    """Say all that differs between two runs, and which of it can be told from the prompt.

    Further logs may separate what changes with the prompt. Items whose outcomes changed are held against the
    flips that repeats make; --changed lists them with their texts.
    """
    import whyprompt as wp
    from whyprompt._arguments import confidence

    confidence(level)
    result = wp.compare_runs(
        *runs,
        arm=arm,
        scorer=scorer,
        item=item,
        reference=reference,
        treated=treated,
        control=control,
        level=level,
        texts=changed or as_json,
    )
    text = result.summary(words=said)
    if changed:
        from whyprompt.answers.changes import changed_text

        if not result.changed:
            raise EstimationError(
                "--changed lists items with an outcome under both arms, and there is none",
                hint="leave it out; or give runs on the same items",
            )
        text = f"{text}\n\n{changed_text(result.changed, width=_width())}"
    put(result.to_dict() | {"logs": result.trials.to_dict()}, text, as_json=as_json)


def read_logs(paths: Sequence[Path], of_log: Mapping[str, Any], *, verb: str = "effect") -> ReadTrials:
    """Read logs; of one table that cannot be read as logs, say what reads it by its columns."""
    import whyprompt as wp

    try:
        return wp.read_trials(*paths, texts=False, **of_log)
    except DataError as error:
        if error.hint and len(paths) == 1 and paths[0].suffix.lower() in TABLES and _is_table(paths[0]):
            named = shlex.join(["whyprompt", verb, str(paths[0])])
            hint = f"{error.hint}; {named} says what its columns may be"
            raise DataError(error.message, hint=hint) from None
        raise


def _is_table(path: Path) -> bool:
    try:
        return bool(len(read_table(path)))
    except DataError:
        return False


def refuse_for_logs(unwanted: set[str]) -> None:
    """Refuse options that only a table of named columns has."""
    if unwanted:
        listed = ", ".join(f"--{name.strip('_').replace('_', '-')}" for name in sorted(unwanted))
        raise EstimationError(f"{listed} cannot be used with logs", hint=_ONLY_COLUMNS)


def import_(
    logs: Annotated[list[Path], typer.Argument(help="Logs, folders of them, or patterns.", metavar="LOG...")],
    out: Annotated[
        Path, typer.Option("--out", help="The table to write (.csv or .parquet).", metavar="FILE")
    ],
    arm: Arm = None,
    scorer: Scorer = None,
    item: Item = None,
    reference: Reference = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the trial table of logs, and beside it what was taken for what.

    The second file has the table's name and the ending .import.json: sources with their hashes, which field
    became which column, what was left out.
    """
    import whyprompt as wp
    from whyprompt.trials.store import check_target, export

    check_target(out)
    beside = out.with_suffix(".import.json")
    there = [str(path) for path in (out, beside) if path.exists()]
    if there and not overwrite:
        raise DataError(f"{' and '.join(there)} would be overwritten", hint="another --out, or --overwrite")
    asked: dict[str, Any] = {"arm": arm, "scorer": scorer, "item": item, "reference": reference}
    found = wp.read_trials(*logs, **asked)
    if out.resolve() in {Path(str(one["file"])).resolve() for one in found.sources}:
        raise DataError(f"{out} is one of the logs", hint="give the table a name of its own")
    export(found.frame, out)
    record = _record(found, asked, out)
    write_json(beside, record)
    n = counted(len(found.frame), "trial")
    text = (
        f"{found.summary(words=said)}\n\n{n}, {counted(len(found.frame.columns), 'column')}: {out}; {beside}"
    )
    put(record | {"record": str(beside)}, text, as_json=as_json)


def _record(found: ReadTrials, asked: Mapping[str, str | None], out: Path) -> dict[str, Any]:
    """Give what makes an import traceable."""
    read = found.to_dict()
    dull = {"parts", "axis", "level", "assumptions"}
    hashes = {str(one["file"]): file_sha256(str(one["file"])) for one in found.sources}
    return {
        "whyprompt": __version__,
        "table": str(out),
        "trials": len(found.frame),
        "asked": {name: value for name, value in asked.items() if value is not None},
        **{name: value for name, value in read.items() if name not in dull},
        "sources": [{**one, "sha256": hashes[one["file"]]} for one in read["sources"]],
    }
