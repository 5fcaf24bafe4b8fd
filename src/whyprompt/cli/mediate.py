"""``whyprompt mediate``: what carries an effect: of a study heads and texts, of a log its answers' texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whyprompt._summary import grid
from whyprompt._words import counted, format_number
from whyprompt.cli.choices import given_options, names, read_choice, refuse_written
from whyprompt.cli.common import STUDIES, AsJson, Gpus, NoCode, On, Out, Workers, opened, placed_study, put
from whyprompt.cli.flags import said
from whyprompt.cli.logs import (
    Arm,
    Item,
    Reference,
    Scorer,
    proposed_rest,
    read_logs,
    refuse_several,
    refuse_unnamed,
)
from whyprompt.cli.tables import read_table
from whyprompt.errors import DataError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.results import Result

_INSIDE, _TEXTS, _TABLE = "Of a study", "Of logs and tables: what is between prompt and score", "Of a table"
_OUTCOMES: dict[str, dict[str, Any]] = {"log_prob": {}, "prob": {}, "margin": {}, "first_token": {}}
_OF_STUDY = {
    *("out", "on", "workers", "gpus_per_worker", "no_code"),
    *("sites", "tokens", "relate", "paths", "flips", "directions"),
}
_OF_LOG = {"arm", "scorer", "item", "reference"}
_OF_TABLE = {"treatment", "unit"}
_OF_TEXTS = {
    *("treated", "control", "mediators", "covariates", "text", "cluster"),
    *("interaction", "level", "seed"),
}


def mediate(
    ctx: typer.Context,
    tables: Annotated[
        list[Path],
        typer.Argument(
            help="A study (.yaml, .toml); or a table with both arms of its items, or logs of other tools.",
            metavar="STUDY|TABLE|LOG...",
        ),
    ],
    *,
    outcome: Annotated[
        str | None,
        typer.Option(
            help="Of a study, what effects are on: log_prob, prob, margin (over the first wrong choice) or"
            " first_token; default: its mediation.outcome. Of a table, the column with the outcome."
        ),
    ] = None,
    sites: Annotated[
        str | None,
        typer.Option(
            help="What to set beside the heads, a,b,c: attn, mlp, resid, 'mlp 14', 'neuron 14.123' or 'neuron"
            " 14' for all of a layer. Default: the study's mediation.sites.",
            rich_help_panel=_INSIDE,
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            help="answer: set them at the answer positions; suffix: at every token that both prompts end with"
            " too. Default: the study's mediation.tokens.",
            rich_help_panel=_INSIDE,
        ),
    ] = None,
    relate: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Take so many heads, those with the largest effects, apart: paths between them,"
            " interactions of two, all together. Default: the study's mediation.relate.",
            rich_help_panel=_INSIDE,
        ),
    ] = None,
    paths: Annotated[
        str | None,
        typer.Option(
            help="path: what lies between two heads passes on what the first does; direct_path: it is held.",
            rich_help_panel=_INSIDE,
        ),
    ] = None,
    flips: Annotated[
        str | None,
        typer.Option(
            help="Does what the model writes flip? Of so many heads, those with the largest effects, or of"
            " the sites named: 3, or 'head 14.1,mlp 7'. Default: the study's mediation.flips.",
            rich_help_panel=_INSIDE,
        ),
    ] = None,
    directions: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Is the effect of so many heads, those with the largest effects, one direction each?",
            rich_help_panel=_INSIDE,
        ),
    ] = None,
    mediators: Annotated[
        str,
        typer.Option(
            help="What of the answers, a,b,c: length, words, chars, lines, tokens, json, list, code, refuses,"
            " 'marker:The answer is', chain_words; or columns of numbers; NAME=a+b makes one of several.",
            rich_help_panel=_TEXTS,
        ),
    ] = "length",
    treated: Annotated[
        str | None, typer.Option(help="Arm that counts as treated.", rich_help_panel=_TEXTS)
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="Arm that counts as control.", rich_help_panel=_TEXTS)
    ] = None,
    covariates: Annotated[
        str | None,
        typer.Option(
            help="Facts of the item that the rest of the effect may go with: a,b,c.", rich_help_panel=_TEXTS
        ),
    ] = None,
    text: Annotated[
        str,
        typer.Option(help="Column with the answers' text.", metavar="COLUMN", rich_help_panel=_TEXTS),
    ] = "completion",
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Column with the sampling unit of several items, a template. Default: every item is one.",
            rich_help_panel=_TEXTS,
        ),
    ] = None,
    interaction: Annotated[
        bool,
        typer.Option(help="Whether each arm has slopes of its own.", rich_help_panel=_TEXTS),
    ] = True,
    level: Annotated[float, typer.Option(help="Of the intervals.", rich_help_panel=_TEXTS)] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.", rich_help_panel=_TEXTS)] = 0,
    treatment: Annotated[
        str | None, typer.Option(help="Column with the arm.", rich_help_panel=_TABLE)
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            help="Column with the item. Default: one whose items ran under both arms.", rich_help_panel=_TABLE
        ),
    ] = None,
    arm: Arm = None,
    scorer: Scorer = None,
    item: Item = None,
    reference: Reference = None,
    out: Out = None,
    on: On = None,
    workers: Workers = None,
    gpus_per_worker: Gpus = 0,
    no_code: NoCode = False,
    as_json: AsJson = False,
) -> None:
    """Find what carries an effect: a study's attention heads, blocks and texts, or the length of answers.

    A study's model is intervened upon; the work goes on where it was stopped. Of a log or a table with both
    arms on the same items nothing can be set: what of the effect goes through the length of the answers, or
    through other columns, is estimated within items, with what would undo it.
    """
    given = given_options(ctx)
    if len(tables) == 1 and tables[0].suffix.lower() in STUDIES:
        refuse_written(
            given & (_OF_LOG | _OF_TABLE | _OF_TEXTS),
            "with a study, which names its arms; what of its texts is set is mediation.text",
        )
        plan, folder = opened(tables[0], out, no_code=no_code)
        options: dict[str, Any] = {"sites": names(sites) or None, "relate": relate, "directions": directions}
        options |= {"tokens": _choice(tokens, "--tokens", {"answer": {}, "suffix": {}})}
        options |= {"paths": _choice(paths, "--paths", {"path": {}, "direct_path": {}})}
        options |= {"outcome": _choice(outcome, "--outcome", _OUTCOMES), "flips": _flipping(flips)}
        from whyprompt._progress import show_progress
        from whyprompt.answers.verbs import run_mediation

        with placed_study(plan, on, workers, gpus_per_worker), show_progress("mediate") as progress:
            answer = run_mediation(tables[0], folder, **options, progress=progress)
        put(answer.to_dict(), said(answer.summary()), as_json=as_json)
        return
    if mixed := next((path for path in tables if path.suffix.lower() in STUDIES), None):
        raise InputError(f"{mixed} is a study, and stands alone", hint=f"whyprompt mediate {mixed}")
    refuse_written(given & _OF_STUDY, "with a table or logs, whose model is not here to intervene upon")
    asked: dict[str, Any] = {
        "mediators": _mediators(mediators),
        "covariates": names(covariates) or (),
        "cluster": cluster,
        "interaction": interaction,
        "level": level,
        "random_state": seed,
        "text": text,
    }
    of_log = {"arm": arm, "scorer": scorer, "item": item, "reference": reference}
    if treatment is None and outcome is None:
        refuse_written(given & _OF_TABLE, "without --treatment and --outcome, which name columns of a table")
        _of_logs(tables, of_log, {**asked, "treated": treated, "control": control}, as_json=as_json)
        return
    refuse_written(given & _OF_LOG, "with columns named by --treatment and --outcome")
    refuse_several(tables)
    refuse_unnamed("mediate", tables[0], given - _OF_TEXTS, treatment, [outcome] if outcome else [])
    frame = read_table(tables[0])
    facts = asked["covariates"]
    asked |= _settled(frame, str(treatment), str(outcome), (treated, control), unit, facts)
    import whyprompt as wp

    _put(wp.text_mediation(frame, **asked), {}, as_json=as_json)


def _of_logs(
    paths: Sequence[Path], of_log: Mapping[str, Any], asked: dict[str, Any], *, as_json: bool
) -> None:
    """Read logs, and print what of their effect goes through the answers' texts."""
    import whyprompt as wp

    with proposed_rest(paths, of_log, verb="mediate", as_json=as_json):
        found = read_logs(paths, of_log, verb="mediate")
    if of_log["reference"] is not None and asked["control"] is None:
        asked["control"] = found.reference
    _put(wp.text_mediation(found, **asked), {"logs": found.to_dict()}, as_json=as_json)


def _choice(given: str | None, flag: str, known: Mapping[str, Mapping[str, str]]) -> Any:  # noqa: ANN401 - a literal
    return None if given is None else read_choice(given, flag, known)[0]


def _flipping(given: str | None) -> int | list[str] | None:
    """Read how many heads, or which sites."""
    if given is None:
        return None
    return int(given) if given.strip().isdecimal() else names(given)


def _mediators(given: str) -> dict[str, list[str]]:
    """Read names of features and columns, and those made of several: ``length,size=rows+files``."""
    from whyprompt.trials.outcomes.features import MARKER

    found: dict[str, list[str]] = {}
    for one in names(given) or ():
        name, equals, rest = (one, "", "") if one.startswith(MARKER) else one.partition("=")
        columns = [part.strip() for part in rest.split("+") if part.strip()] if equals else [name]
        if not name.strip() or not columns:
            raise DataError(f"--mediators {one!r} names no column", hint="--mediators length,size=rows+files")
        if name.strip() in found:
            raise DataError(f"--mediators names {name.strip()!r} twice")
        found[name.strip()] = columns
    if not found:
        raise DataError("--mediators names nothing", hint="--mediators length, for example")
    return found


def _settled(
    frame: Any,  # noqa: ANN401 - a pandas or pyarrow table
    treatment: str,
    outcome: str,
    arms: tuple[str | None, str | None],
    unit: str | None,
    covariates: Sequence[str],
) -> dict[str, Any]:
    """Settle which rows are compared, of `arms` (treated, control): what was not named the table shows."""
    from whyprompt.effects.units import find_units
    from whyprompt.tables import open_table, rows_of_two_arms
    from whyprompt.trials.logs.arms import reference_arm

    table = open_table(frame)
    table.require([treatment], role="treatment")
    table.require([outcome], role="outcome")
    table.require(covariates, role="covariate")
    treated, control = arms
    if treated is None or control is None:
        levels = sorted(set(table.labels(treatment, role="treatment").tolist()))
        if len(levels) != 2:
            raise DataError(
                f"column {treatment!r} has {counted(len(levels), 'level')}, and two arms are compared",
                hint="name both: --treated NAME --control NAME",
            )
        control = control or next((one for one in levels if treated is not None and one != treated), None)
        control = control or reference_arm(levels)
        treated = treated or next(one for one in levels if one != control)
    if unit is None:
        rows = rows_of_two_arms(table, treatment, treated=treated, control=control)
        two = table if rows is None else table.keep(rows)
        item = find_units(two, treatment=treatment, outcomes=[outcome], covariates=covariates)[1]
        if item is None or not item.paired:
            raise DataError(
                f"no column tells items that ran under both {treated!r} and {control!r}, and each is compared"
                " with itself",
                hint="name it: --unit COLUMN; of items that ran under one arm, whyprompt.mediate in Python",
            )
        unit = item.name
    return {
        "treatment": treatment,
        "outcome": outcome,
        "treated": treated,
        "control": control,
        "item": unit,
    }


def _put(found: Result, beside: dict[str, Any], *, as_json: bool) -> None:
    """Print what was found, and what a left-out cause would do to it."""
    from whyprompt.mediation.measured.paired_fits import RHOS, at_rho

    lines = [
        (
            part.by,
            part.label,
            f"{100 * part['robustness_value']:.2g}%",
            format_number(part["rho_at_zero"]),
            *(format_number(at_rho(part, rho)) for rho in RHOS),
        )
        for part in found.parts
        if "per_rho" in part.figures
    ]
    text = found.summary(words=said)
    if lines:
        head = ("by", "", "undone by", "rho at zero", *(f"at {rho:g}" for rho in RHOS))
        why = (
            "What undoes it (a left-out cause with this share of what is left of both differences, or this"
            " correlation rho of their errors), and what it is at other correlations:"
        )
        text = f"{text}\n\n{why}\n{grid(head, lines, left=2)}"
    put(found.to_dict() | beside, text, as_json=as_json)
