"""Logs on the command line: ``whyprompt effect LOG LOG``, and ``whyprompt import`` of their table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from whyprompt._files import file_sha256, write_json
from whyprompt._version import __version__
from whyprompt._words import counted, format_number
from whyprompt.cli.common import AsJson, put
from whyprompt.cli.tables import TABLES
from whyprompt.errors import DataError, EstimationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.effects.result import EffectResult
    from whyprompt.effects.several import EffectsResult
    from whyprompt.trials.logs.result import ReadTrials

Arm = Annotated[
    str | None,
    typer.Option(
        help="Of logs: what the arm is, a path in them (task_args.arm) or file. Default: what differs.",
        metavar="PATH",
    ),
]
Scorer = Annotated[
    str | None,
    typer.Option(help="Of logs: the scorer that is the outcome.", metavar="NAME[,FILTER]"),
]
Item = Annotated[
    str | None,
    typer.Option(
        help="Of logs: what names the item, id or a covariate. Default: what was asked.", metavar="NAME"
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(help="Of logs: the arm that the others are held against.", metavar="ARM"),
]

Changed = Annotated[
    bool, typer.Option("--changed", help="Of logs: list the items whose outcomes rise and fall.")
]

_ONLY_COLUMNS = "write the logs' table and name its columns: whyprompt import LOG... --out trials.parquet"


def effect_of_logs(
    paths: Sequence[Path],
    given: Mapping[str, Any],
    of_log: Mapping[str, Any],
    *,
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
    found = _read(paths, of_log)
    result = wp.log_effect(found, reference=of_log["reference"], **given)
    content, text = result.to_dict() | {"logs": found.to_dict()}, result.summary()
    if changed:
        listed = _changed(result)
        content |= {"changed": listed}
        text = "\n\n".join([text, *(_changes_text(name, rows) for name, rows in listed.items())])
    put(content, text, as_json=as_json)


def effect_for_page(
    paths: Sequence[Path], of_log: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[ReadTrials, EffectResult]:
    """Read logs with their texts, and estimate the effect of one arm against another.

    `given` are arguments of `log_effect`, None where they were not written.
    """
    import whyprompt as wp

    found = _read(paths, of_log, texts=True)
    # A reference alone would ask for all other arms at once, and a page is of two.
    asked = {name: value for name, value in given.items() if value is not None}
    if of_log["reference"] is not None:
        asked.setdefault("control", found.reference)
    # Without `reference=` it is of two arms, or refused.
    return found, cast("EffectResult", wp.log_effect(found, **asked))


def _changed(result: EffectResult | EffectsResult) -> dict[str, list[dict[str, Any]]]:
    """List the items whose outcome is higher under the treated arm, and lower, the largest change first."""
    items = getattr(result, "items", None)
    if items is None:
        raise EstimationError(
            "--changed lists items that were run under both of two arms, and these were not",
            hint="leave it out, or name two arms: --treated, --control",
        )
    order = sorted(range(len(items.units)), key=lambda k: -abs(items.changes[k]))
    out: dict[str, list[dict[str, Any]]] = {"gains": [], "regressions": []}
    for k in order:
        if change := float(items.changes[k]):
            row = {
                "item_id": items.units[k],
                "control": float(items.control[k]),
                "treated": float(items.treated[k]),
            }
            out["gains" if change > 0 else "regressions"].append(row)
    return out


def _changes_text(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"  {row['item_id']}: {format_number(row['control'])} -> {format_number(row['treated'])}"
        for row in rows
    ]
    return "\n".join([f"{name.capitalize()} in these trials ({len(rows)}):", *lines])


def _read(paths: Sequence[Path], of_log: Mapping[str, Any], *, texts: bool = False) -> ReadTrials:
    """Read logs; of one table that cannot be read as logs, say how its columns are named."""
    import whyprompt as wp

    try:
        return wp.read_trials(*paths, texts=texts, **of_log)
    except DataError as error:
        if len(paths) == 1 and paths[0].suffix.lower() in TABLES:
            hint = error.hint and f"{error.hint}; or name columns of the table: --treatment, --outcome"
            raise DataError(error.message, hint=hint) from None
        raise


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
    text = f"{found.summary()}\n\n{n}, {counted(len(found.frame.columns), 'column')}: {out}; {beside}"
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
