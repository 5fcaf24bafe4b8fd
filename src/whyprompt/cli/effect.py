"""``whyprompt effect``: the effect of one arm against another, from a table or from a study."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whyprompt._arguments import at_least
from whyprompt._progress import listening, show_progress
from whyprompt.cli.choices import given_options, names, read_choice, refuse, refuse_written
from whyprompt.cli.common import (
    STUDIES,
    WHERE,
    AsJson,
    Better,
    Margin,
    NoCode,
    On,
    Out,
    Workers,
    opened,
    placed,
    put,
)
from whyprompt.cli.effect_checks import CHECKS, check_text, own_draws, read_checks, refuse_checks, run_checks
from whyprompt.cli.flags import said, speak
from whyprompt.cli.logs import (
    NO_VERDICT,
    Arm,
    Changed,
    Item,
    Reference,
    Scorer,
    effect_of_logs,
    judged,
    refuse_for_logs,
    refuse_several,
    refuse_unnamed,
)
from whyprompt.cli.tables import read_table
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Rows from which on an estimate takes so long that its progress is shown.
_LONG = 50_000
# The groups of its help.
_COMPARED, _ADJUSTED, _HOW = "What is compared", "What is adjusted for", "How"
_SURE, _GAPS_CHECKS = "How sure", "Gaps, and checks beside the estimate"
_Columns = str | None
_Frame = Any  # that the library reads
# What the arm or the outcome may be taken as, with options.
_KINDS = {
    "all-arms": {"reference": "text", "focal": "text"},
    "dose": {"knots": "count", "reference": "number"},
    "ordered": {"levels": "columns"},
}
_GAPS = {"missing_outcome": "text", "auxiliary": "columns"}
# What a table has whose columns are named, and logs have not.
_ONLY_TABLES = {"unit", "as_", "impute", "check", "memory", "out", "no_code"}
_PAIRED = {"design", "unit", "treated", "control", "cluster", "level"}
_DOSE = {"confounders", "graph", "method", "design", "cluster", "std_error", "level", "random_state"}


def effect(
    ctx: typer.Context,
    tables: Annotated[
        list[Path],
        typer.Argument(
            help="A table (.csv, .tsv, .parquet, .jsonl, .json), a study (.yaml, .toml), or logs of other"
            " tools: two or more, folders, patterns.",
            metavar="TABLE|STUDY|LOG...",
        ),
    ],
    *,
    treatment: Annotated[
        str | None, typer.Option(help="Column with the arm.", rich_help_panel=_COMPARED)
    ] = None,
    outcome: Annotated[
        list[str] | None,
        typer.Option(
            help="Column with the outcome. Several (a,b or given again) are adjusted for their number.",
            rich_help_panel=_COMPARED,
        ),
    ] = None,
    treated: Annotated[
        str | None, typer.Option(help="Level that counts as treated.", rich_help_panel=_COMPARED)
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="Level that counts as control.", rich_help_panel=_COMPARED)
    ] = None,
    design: Annotated[
        str,
        typer.Option(
            help="observational, randomized, paired (each item under both arms), or"
            " instrument:instrument=COLUMN (a lot that the arm follows in part), front_door:mediators=A+B"
            " (all that the arm works through), or rollout:time=COLUMN (the arm changed on a date; --unit has"
            " the routes).",
            metavar="NAME[:OPTION=VALUE,...]",
            rich_help_panel=_COMPARED,
        ),
    ] = "observational",
    unit: Annotated[
        str,
        typer.Option(
            help="Column with the item (--design paired) or route (rollout).", rich_help_panel=_COMPARED
        ),
    ] = "item_id",
    as_: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="Take the arms two by two, as a dose, or the outcome as ordered levels:"
            " all-arms:reference=ARM,focal=ARM, dose:knots=4,reference=DOSE or ordered:levels=low+mid+high.",
            metavar="KIND[:OPTION=VALUE,...]",
            rich_help_panel=_COMPARED,
        ),
    ] = None,
    graph: Annotated[
        str | None,
        typer.Option(
            help="Causal graph: a file, or text such as 'x -> arm; x -> y; arm -> y'.",
            rich_help_panel=_ADJUSTED,
        ),
    ] = None,
    confounders: Annotated[
        _Columns, typer.Option(help="Columns to adjust for: a,b,c.", rich_help_panel=_ADJUSTED)
    ] = None,
    propensity: Annotated[
        str | None,
        typer.Option(
            help="Column with known propensities (with --as all-arms: of the arm that each row got); or what"
            " estimates them: logit, boosted, or a class of scikit-learn with its options.",
            rich_help_panel=_ADJUSTED,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="aipw (default), nearest, optimal, full, kernel, subclass, cem, ipw, overlap, entropy, naive"
            " (default in a randomised design without confounders), with its options:"
            " nearest:caliper=0.2,replace, cem:exact=a+b or aipw:folds=10,outcome_model=linear.",
            metavar="NAME[:OPTION=VALUE,...]",
            rich_help_panel=_HOW,
        ),
    ] = None,
    estimand: Annotated[str | None, typer.Option(help="att, atc, ate or ato.", rich_help_panel=_HOW)] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Column with the sampling unit; none: every row is one. Default: one that repeats.",
            rich_help_panel=_SURE,
        ),
    ] = None,
    by: Annotated[_Columns, typer.Option(help="Subgroups: a,b.", rich_help_panel=_SURE)] = None,
    level: Annotated[float, typer.Option(help="Of the intervals.", rich_help_panel=_SURE)] = 0.95,
    std_error: Annotated[
        str,
        typer.Option(
            help="auto, pairs, abadie_imbens, strata, bootstrap or wild_bootstrap; a bootstrap with its"
            " draws: bootstrap:draws=1000.",
            rich_help_panel=_SURE,
        ),
    ] = "auto",
    denominator: Annotated[
        str,
        typer.Option(help="Of balance: pooled, treated, control, all or weighted.", rich_help_panel=_SURE),
    ] = "pooled",
    impute: Annotated[
        str | None,
        typer.Option(
            help="Fill gaps in covariates so many times and pool: 20, or"
            " 20:auxiliary=a+b,missing_outcome=exclude (or raise, impute).",
            metavar="M[:OPTION=VALUE,...]",
            rich_help_panel=_GAPS_CHECKS,
        ),
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option(
            help="A check beside the estimate; may be given again. sensitivity (how strong a hidden"
            " confounder would have to be); placebo:draws=199,within=a+b; refute:draws=100,"
            "negative_controls=a+b (placebo arms, noise, subsets, a covariate less);"
            " whom:modifiers=a+b,effect_model=stacked,cost=0,better=higher (whom the arm helps, and which to"
            " choose);"
            " cross-check (beside DoWhy and CausalML, where WHYPROMPT_CROSSCHECK_PYTHON says).",
            metavar="NAME[:OPTION=VALUE,...]",
            rich_help_panel=_GAPS_CHECKS,
        ),
    ] = None,
    better: Better = None,
    margin: Margin = None,
    seed: Annotated[int, typer.Option(min=0, help="For everything random.", rich_help_panel=_SURE)] = 0,
    arm: Arm = None,
    scorer: Scorer = None,
    item: Item = None,
    reference: Reference = None,
    changed: Changed = False,
    memory: Annotated[
        str | None,
        typer.Option(
            help="What a Parquet table may take, such as 2GB; a larger one is computed in passes by DuckDB."
            " Default: a quarter of what is free.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    on: On = None,
    workers: Workers = None,
    no_code: NoCode = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Estimate what one arm changes against another, from a table, a study, or the logs of other tools.

    Logs need no option: items that were asked under both arms are compared with themselves. Of a table, one
    of --graph and --confounders says what to adjust for; with neither, use --method naive. One that holds
    both arms of every item is compared item by item, unless a --design or a --method is named.
    """
    import whyprompt as wp

    speak(ctx, inside_options())
    given = given_options(ctx) - {"on", "workers"}
    table = tables[0]
    # An audit's draws, and a bootstrap's; until the command is done.
    ctx.with_resource(placed(on, workers, 0))
    if len(tables) == 1 and table.suffix.lower() in STUDIES:
        refuse_written(
            given - {"tables", "out", "no_code", "as_json"},
            "with a study file, which names its own arms and outcomes",
        )
        from whyprompt.answers.verbs import run_effect

        with show_progress("effect") as report, listening(report):
            found = run_effect(table, opened(table, out, no_code=no_code)[1])
        put(found.to_dict(), said(found.summary()), as_json=as_json)
        return
    design, of_design = _design(design)
    of_log = {"arm": arm, "scorer": scorer, "item": item, "reference": reference}
    logs = treatment is None and not outcome and not of_design
    if logs:
        refuse_for_logs(given & _ONLY_TABLES)
    else:
        refuse_written(given & {*of_log, "changed"}, "with columns named by --treatment and --outcome")
        outcomes = _outcomes(outcome) if outcome else []
        refuse_several(tables)
        refuse_unnamed(
            "effect", table, given, treatment, outcomes, needs_treatment="changed" not in of_design
        )
    kind, of_kind = (None, {}) if as_ is None else read_choice(as_, "--as", _KINDS)
    checks = read_checks(check or ())
    values: dict[str, Any] = {
        "confounders": names(confounders),
        "graph": None if graph is None else wp.CausalGraph.read(graph),
        "estimand": estimand,
        "method": method,
        "treated": treated,
        "control": control,
        "design": design,
        "unit": unit,
        "propensity": propensity,
        "cluster": cluster,
        "by": names(by),
        "level": level,
        "std_error": std_error,
        "denominator": denominator,
    }
    asked = {name: value for name, value in values.items() if name in given}
    asked |= {"random_state": seed} if "seed" in given else {}
    asked |= of_design | (_error(std_error) if "std_error" in given else {})
    if logs:
        # Logs have an option of this name; of a table it stands inside --as.
        speak(ctx, {name: before for name, before in inside_options().items() if name != "reference"})
        effect_of_logs(
            tables,
            _with_method(asked),
            of_log,
            better=better,
            margin=margin,
            changed=changed,
            as_json=as_json,
        )
        return
    refuse_checks(
        checks, single=kind is None and len(outcomes) == 1, paired=design == "paired", impute=impute
    )
    _refuse_beside(design, checks, kind, impute)
    if kind is not None or len(outcomes) > 1 or impute is not None:
        refuse_written(given & {"better", "margin"}, NO_VERDICT)
    frame = _read(tables, memory)
    if isinstance(frame, list):
        refuse_written(
            given & {"check", "impute", "as_", "unit"}, "with a table that is larger than --memory"
        )
        asked = {**_with_method(asked), "memory": memory}
        shown: Any = outcomes if len(outcomes) > 1 else outcomes[0]
        with show_progress(table.name) as report, listening(report):
            result = wp.estimate_effect(frame, treatment=treatment, outcome=shown, **asked)
    elif impute is not None:
        with show_progress(table.name) as report, listening(report):
            result, asked = _imputed(frame, str(treatment), outcomes[0], asked, impute)
    else:
        with _told(frame, table.name):
            result, asked = _estimated(frame, treatment, outcomes, asked, kind, of_kind, checks)
    result = judged(result, better, margin)
    checked = run_checks(frame, str(treatment), outcomes[0], asked, result, checks, ctx, inside_options())
    text = result.summary(words=said)
    put(
        result.to_dict() | {name: one.to_dict() for name, one in checked.items()},
        "\n\n".join([text, *(check_text(name, one) for name, one in checked.items())]),
        as_json=as_json,
    )


# ------------------------------------------------------------------------------------ what was written
def _read(tables: Sequence[Path], memory: str | None) -> _Frame:
    """Read the table, or give its paths where it is larger than the memory that it may take."""
    if tables[0].suffix.lower() != ".parquet":
        refuse_written({"memory"} if memory is not None else set(), "with a table that is not Parquet")
        return read_table(tables[0])
    from whyprompt.effects.large.source import parquet_files

    paths = [str(path) for path in tables]
    found = parquet_files(paths, memory)
    return found.read() if found.fits else paths


def _outcomes(written: Sequence[str]) -> list[str]:
    found = [name for text in written for name in names(text) or ()]
    if not found:
        raise EstimationError("--outcome names no column", hint="name columns of the table")
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise EstimationError(f"--outcome names {twice[0]!r} twice")
    return found


def _error(written: str) -> dict[str, Any]:
    """Read --std-error: its name, and the draws of a bootstrap."""
    name, _, rest = written.partition(":")
    if not rest:
        return {"std_error": name}
    return {"std_error": name, **read_choice(written, "--std-error", {name: {"draws": "count"}})[1]}


def _design(written: str) -> tuple[str, dict[str, Any]]:
    """Read --design: its name and, where it has some, its options."""
    from whyprompt.effects.designs.make import DESIGNS, design_options

    name = written.partition(":")[0].strip()
    if name not in DESIGNS:
        return (written, {}) if name == written else read_choice(written, "--design", {name: {}})
    return read_choice(written, "--design", {name: design_options(name)})


def _refuse_beside(
    design: str, checks: dict[str, dict[str, Any]], kind: str | None, impute: str | None
) -> None:
    """Refuse what is not made for a design with an estimator of its own."""
    from whyprompt.effects.designs.make import DESIGNS

    if design in DESIGNS:
        listed = [f"--check {name}" for name in checks] + ([f"--as {kind}"] if kind else [])
        refuse(", ".join(listed + (["--impute"] if impute else [])), f"with --design {design}")


def _method(written: str) -> tuple[str, dict[str, Any]]:
    """Read --method: its name and its options, which the method itself judges."""
    from whyprompt.effects.methods.make import METHODS, option_kinds

    # An option of another method is read as well: the method says then who has it.
    known = {option: kind for other in METHODS for option, kind in option_kinds(other).items()}
    name, texts = read_choice(written, "--method")
    known |= option_kinds(name) if name in METHODS else {}
    return read_choice(written, "--method", {name: dict.fromkeys(texts, "text") | known})


@cache
def inside_options() -> dict[str, str]:
    """Give the library's arguments that stand inside an option, each with what goes before it."""
    from whyprompt.effects.designs.make import DESIGNS, design_options
    from whyprompt.effects.methods.make import METHODS, options_of

    found = {option: "--method NAME:" for method in METHODS for option in options_of(method)}
    found |= {option: f"--check {name}:" for name, options in CHECKS.items() for option in options}
    found |= {option: f"--as {kind}:" for kind, options in _KINDS.items() for option in options}
    found |= dict.fromkeys(_GAPS, "--impute 20:")
    found |= {option: f"--design {name}:" for name in DESIGNS for option in design_options(name)}
    return {**found, "reference": "--as KIND:", "draws": "--std-error NAME:"}


# ---------------------------------------------------------------------------------- what is computed
@contextmanager
def _told(frame: _Frame, title: str) -> Iterator[None]:
    """Show how far a long computation is: that on a table of many rows."""
    if len(frame) < _LONG:
        yield
        return
    with show_progress(title) as report, listening(report):
        yield


def _with_method(asked: dict[str, Any]) -> dict[str, Any]:
    """Put the method object in the place of its words: the same as of Python and of a study file."""
    if asked.get("method") is None:
        return asked
    from whyprompt.effects.methods.make import make_method

    name, options = _method(asked["method"])
    return {**asked, "method": make_method(name, **options)}


def _imputed(
    frame: _Frame, treatment: str, outcome: str, asked: dict[str, Any], impute: str
) -> tuple[Any, dict[str, Any]]:
    import whyprompt as wp

    number, _ = read_choice(impute, "--impute")
    _, gaps = read_choice(impute, "--impute", {number: _GAPS})
    if not number.isdecimal():
        raise EstimationError(f"--impute {number!r} is no number of imputations", hint="20, for example")
    at_least(int(number), 2, "impute", most=1_000)
    refuse_written(set(asked) & {"unit", "by"}, "with --impute")
    asked = _with_method(asked)
    found = wp.estimate_with_imputation(
        frame, treatment=treatment, outcome=outcome, draws=int(number), **gaps, **own_draws(asked)
    )
    return found, asked


def _estimated(
    frame: _Frame,
    treatment: str | None,
    outcomes: Sequence[str],
    asked: dict[str, Any],
    kind: str | None,
    of_kind: dict[str, Any],
    checks: dict[str, dict[str, Any]],
) -> tuple[Any, dict[str, Any]]:
    """Estimate, and give what was asked for as the library has it."""
    import whyprompt as wp
    from whyprompt.effects.designs.make import DESIGNS

    several = len(outcomes) > 1
    if several and kind is not None:
        raise EstimationError(f"--outcome can be given once with --as {kind}")
    note = ""
    if kind in {None, "ordered"} and not set(checks) - {"whom"}:
        asked, note = _paired_instead(frame, str(treatment), outcomes, asked)
    if asked.get("design") == "paired":
        _refuse_paired(asked, kind, several=several)
    elif asked.get("design") not in DESIGNS:
        refuse_written(set(asked) & {"unit"}, "without --design paired")
        refuse_written(set(asked) - _DOSE if kind == "dose" else set(), "with --as dose")
        by_arms = {"treated", "control", "by"} if kind == "all-arms" else set()
        refuse_written(set(asked) & by_arms, "with --as all-arms")
    asked = asked if kind in {"dose", "all-arms"} else _with_method(asked)
    options = asked | of_kind
    if kind == "all-arms" and options.get("method") is not None:
        name, own = _method(options["method"])
        options |= {"method": name, **own}
    if kind == "ordered":
        options = {"levels": "sorted", **options}
    verb: Any = {"dose": wp.dose_response, "all-arms": wp.compare_arms}.get(kind or "", wp.estimate_effect)
    outcome = list(outcomes) if several else outcomes[0]
    result = verb(frame, treatment=treatment, outcome=outcome, **options)
    return (replace(result, warnings=(note, *result.warnings)) if note else result), asked


def _refuse_paired(asked: dict[str, Any], kind: str | None, *, several: bool) -> None:
    if kind == "dose":
        raise EstimationError("a paired design compares arms, and no doses", hint="leave out --as dose")
    if kind == "all-arms":
        refuse_written(
            set(asked) - {"design", "unit", "level", "random_state"},
            "with --as all-arms --design paired, where each item is compared with itself",
        )
        return
    takes = _PAIRED | ({"random_state"} if several else set() if kind else {"by"})
    refuse_written(set(asked) - takes, "in a paired design, where each item is compared with itself")
    if asked.get("treated") is None or asked.get("control") is None:
        raise EstimationError(
            "a paired design needs the names of both arms", hint="--treated NAME --control NAME"
        )


def _paired_instead(
    frame: _Frame, treatment: str, outcomes: Sequence[str], asked: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Take a table that holds both arms of every item as paired, where nothing else was asked for."""
    from whyprompt.effects.units import NO_CLUSTER, paired_instead

    takes = {*_PAIRED, "by", "random_state", "confounders", "graph"} - {"design"}
    if set(asked) - takes or asked.get("cluster") == NO_CLUSTER:
        return asked, ""
    given = {name: asked[name] for name in ("confounders", "graph", "treated", "control") if name in asked}
    found = paired_instead(frame, treatment=treatment, outcomes=outcomes, **given)
    if found is None:
        return asked, ""
    unit, treated, control = found
    settled = {"unit": unit.name, "treated": treated, "control": control, "design": "paired"}
    kept = {name: value for name, value in asked.items() if name not in {"confounders", "graph"}}
    if len(outcomes) == 1:
        kept.pop("random_state", None)
    if kept.get("cluster") == unit.name:
        kept.pop("cluster")
    share = "every" if unit.both == unit.count else f"{unit.both} of {unit.count}"
    note = (
        f"{share} {unit.name!r} was run under both arms: analysed as paired, each compared with itself"
        f" (--design paired --unit {unit.name}); for a comparison of rows name a --design or a --method"
    )
    if {"confounders", "graph"} & set(asked):
        note += "; what is the same in all rows of an item needs no adjustment"
    return {**kept, **settled}, note
