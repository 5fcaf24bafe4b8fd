"""``whyprompt effect``: the effect of one arm against another, from a table or from a study."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whyprompt._arguments import at_least
from whyprompt.cli.common import AsJson, NoCode, Out, results_folder, show, show_json
from whyprompt.cli.effect_report import check_text, effect_text
from whyprompt.cli.flags import in_flags, said_in_flags
from whyprompt.cli.tables import TABLES, read_graph, read_table
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["effect"]

_STUDIES = {".yaml", ".yml", ".toml"}
_Columns = str | None


def effect(
    ctx: typer.Context,
    table: Annotated[
        Path,
        typer.Argument(help="A table (.csv, .tsv, .parquet, .jsonl, .json) or a study (.yaml, .toml)."),
    ],
    *,
    treatment: Annotated[str | None, typer.Option(help="Column with the arm.")] = None,
    outcome: Annotated[
        list[str] | None,
        typer.Option(
            help="Column with the outcome. Several (a,b or given again) are adjusted for their number."
        ),
    ] = None,
    graph: Annotated[
        str | None, typer.Option(help="Causal graph: a file, or text such as 'x -> arm; x -> y; arm -> y'.")
    ] = None,
    confounders: Annotated[_Columns, typer.Option(help="Columns to adjust for: a,b,c.")] = None,
    estimand: Annotated[str | None, typer.Option(help="att, atc, ate or ato.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="nearest (default), optimal, full, kernel, subclass, cem, ipw, overlap, entropy, aipw, naive"
            " (default in a randomised design; with confounders ipw)"
        ),
    ] = None,
    treated: Annotated[str | None, typer.Option(help="Level that counts as treated.")] = None,
    control: Annotated[str | None, typer.Option(help="Level that counts as control.")] = None,
    design: Annotated[
        str, typer.Option(help="observational, randomized, or paired (each item under both arms).")
    ] = "observational",
    unit: Annotated[str, typer.Option(help="With --design paired: column with the item.")] = "item_id",
    caliper: Annotated[float | None, typer.Option(help="Largest distance of a pair.")] = None,
    caliper_unit: Annotated[str, typer.Option(help="sd, raw, sd_logit or raw_logit.")] = "sd",
    replace: Annotated[
        bool | None, typer.Option("--replace/--no-replace", help="Match with or without replacement.")
    ] = None,
    ratio: Annotated[int, typer.Option(max=1_000, help="Matches a row.")] = 1,
    exact: Annotated[_Columns, typer.Option(help="Columns on which pairs are equal: a,b.")] = None,
    order: Annotated[
        str | None, typer.Option(help="largest, smallest, random, data or closest first.")
    ] = None,
    distance: Annotated[str, typer.Option(help="logistic, logit or mahalanobis.")] = "logistic",
    mahalanobis_on: Annotated[
        _Columns, typer.Option(help="Columns of the Mahalanobis distance: a,b.")
    ] = None,
    discard: Annotated[str, typer.Option(help="none, treated, control, both or crump.")] = "none",
    kernel: Annotated[str, typer.Option(help="epanechnikov, gaussian or biweight.")] = "epanechnikov",
    bandwidth: Annotated[float | None, typer.Option(help="Of the kernel.")] = None,
    n_strata: Annotated[int, typer.Option(max=1_000, help="Of subclassification.")] = 6,
    ties: Annotated[str, typer.Option(help="sorted or average.")] = "sorted",
    tie_break: Annotated[str | None, typer.Option(help="Column that identifies rows.")] = None,
    propensity: Annotated[str | None, typer.Option(help="Column with known propensities.")] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Column with the sampling unit; none: every row is one. Default: one that repeats."
        ),
    ] = None,
    by: Annotated[_Columns, typer.Option(help="Subgroups: a,b.")] = None,
    level: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    std_error: Annotated[
        str, typer.Option(help="auto, pairs, abadie_imbens, strata, bootstrap or wild_bootstrap.")
    ] = "auto",
    draws: Annotated[int, typer.Option(max=100_000, help="Of a bootstrap.")] = 1000,
    neighbours: Annotated[int, typer.Option(max=1_000, help="Of the Abadie-Imbens variance.")] = 2,
    denominator: Annotated[
        str, typer.Option(help="Of balance: pooled, treated, control, all or weighted.")
    ] = "pooled",
    ordered: Annotated[bool, typer.Option("--ordered", help="The outcome has ordered levels.")] = False,
    levels: Annotated[
        _Columns, typer.Option(help="With --ordered: text levels from the lowest to the highest.")
    ] = None,
    all_arms: Annotated[bool, typer.Option("--all-arms", help="Compare every pair of arms.")] = False,
    reference: Annotated[
        str | None, typer.Option(help="The arm (or dose) that others are compared with.")
    ] = None,
    focal: Annotated[str | None, typer.Option(help="With --all-arms: arm of an att.")] = None,
    dose: Annotated[bool, typer.Option("--dose", help="The treatment is a continuous dose.")] = False,
    knots: Annotated[int, typer.Option(help="With --dose: knots of the curve.")] = 4,
    impute: Annotated[
        int | None,
        typer.Option(
            max=1_000,
            help="Fill gaps in covariates so many times, and pool the estimates.",
            metavar="M",
        ),
    ] = None,
    missing_outcome: Annotated[
        str, typer.Option(help="With --impute: raise, exclude or impute rows without an outcome.")
    ] = "raise",
    auxiliary: Annotated[
        _Columns, typer.Option(help="With --impute: columns that help to fill gaps: a,b.")
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Say how strong a hidden confounder would have to be.")
    ] = False,
    refute: Annotated[
        bool, typer.Option("--refute", help="Repeat with placebo arms, noise, subsets, a covariate less.")
    ] = False,
    negative_controls: Annotated[
        _Columns, typer.Option(help="With --refute: outcomes that the arm cannot have moved: a,b.")
    ] = None,
    placebo: Annotated[
        bool, typer.Option("--placebo", help="Repeat with placebo arms alone, for their p-value.")
    ] = False,
    within: Annotated[
        _Columns, typer.Option(help="With --placebo: hold the number of treated rows within: a,b.")
    ] = None,
    placebos: Annotated[
        int | None,
        typer.Option(
            max=100_000,
            help="Placebo arms of --placebo (199); with --refute also noise covariates and subsets (100).",
        ),
    ] = None,
    modifiers: Annotated[
        _Columns,
        typer.Option(help="Say whom the arm helps and harms by these columns, and which arm to choose: a,b."),
    ] = None,
    cost: Annotated[
        float, typer.Option(help="With --modifiers: of the treated arm, a row, in units of the outcome.")
    ] = 0.0,
    better: Annotated[str, typer.Option(help="With --modifiers: higher or lower.")] = "higher",
    cross_check: Annotated[
        bool,
        typer.Option(
            "--cross-check",
            help="Beside DoWhy and CausalML, in the environment that WHYPROMPT_CROSSCHECK_PYTHON names.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="For everything random.")] = 0,
    no_code: NoCode = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Estimate what one arm changes against another, from a table or from a study.

    One of --graph and --confounders says what to adjust for; with neither, use --method naive. A table that
    holds both arms of every item is compared item by item, unless a --design or a --method is named.
    """
    given = _given(ctx)
    if table.suffix.lower() in _STUDIES:
        _refuse(
            given - {"table", "out", "no_code", "as_json"},
            "with a study file, which names its own arms and outcomes",
        )
        _study(table, out, no_code=no_code, as_json=as_json)
        return
    if table.suffix.lower() not in TABLES:
        raise EstimationError(
            f"{table} is neither a table nor a study",
            hint=f"one of: {', '.join((*TABLES, *sorted(_STUDIES)))}",
        )
    if treatment is None or not outcome:
        missing = " and ".join(
            name for name, value in (("--treatment", treatment), ("--outcome", outcome)) if not value
        )
        raise EstimationError(f"{missing} must be given with a table", hint="name columns of the table")
    _refuse(given & {"out"}, "with a table: only a study has a folder of results")
    _refuse(given & {"no_code"}, "with a table: only a study can import code")
    chosen = [
        name for name, flag in (("--all-arms", all_arms), ("--dose", dose), ("--ordered", ordered)) if flag
    ]
    if len(chosen) > 1:
        raise EstimationError(f"{' and '.join(chosen)} do not go together", hint="give one of them")
    outcomes = [name for text in outcome for name in _split(text) or ()]
    if not outcomes:
        raise EstimationError("--outcome names no column", hint="name columns of the table")
    twice = sorted({name for name in outcomes if outcomes.count(name) > 1})
    if twice:
        raise EstimationError(f"--outcome names {twice[0]!r} twice")
    checks = _Checks(
        sensitivity=sensitivity,
        refute=refute,
        placebo=placebo,
        placebos=placebos,
        negative_controls=tuple(_split(negative_controls) or ()),
        within=tuple(_split(within) or ()),
        modifiers=tuple(_split(modifiers) or ()),
        cost=cost,
        better=better,
        cross_check=cross_check,
    )
    single = not chosen and len(outcomes) == 1
    _refuse_checks(given, checks, single=single, paired=design == "paired", imputed=impute is not None)
    if (levels is not None) and not ordered:
        raise EstimationError("--levels names the levels of an ordered outcome", hint="add --ordered")
    values: dict[str, Any] = {
        "confounders": _split(confounders),
        "graph": None if graph is None else read_graph(graph),
        "estimand": estimand,
        "method": method,
        "treated": treated,
        "control": control,
        "design": design,
        "unit": unit,
        "caliper": caliper,
        "caliper_unit": caliper_unit,
        "replace": replace,
        "ratio": ratio,
        "exact": _split(exact) or (),
        "order": order,
        "distance": distance,
        "mahalanobis_on": _split(mahalanobis_on),
        "discard": discard,
        "kernel": kernel,
        "bandwidth": bandwidth,
        "n_strata": n_strata,
        "ties": ties,
        "tie_break": tie_break,
        "propensity": propensity,
        "cluster": cluster,
        "by": _split(by),
        "level": level,
        "std_error": std_error,
        "draws": draws,
        "neighbours": neighbours,
        "denominator": denominator,
        "reference": reference,
        "focal": focal,
        "knots": knots,
        "random_state": seed,
    }
    asked = {name: values[name] for name in values if name in given}
    if "seed" in given:
        asked["random_state"] = seed
    frame = read_table(table)
    with said_in_flags(ctx):
        if impute is not None:
            gaps = {"m": impute, "missing_outcome": missing_outcome, "auxiliary": _split(auxiliary) or ()}
            _refuse(set(asked) & {*_ARMS_ONLY, *_DOSE_ONLY, "reference", "unit", "by"}, "with --impute")
            result = _imputed(frame, treatment, outcomes[0], {**asked, **gaps})
        else:
            note = ""
            if not (dose or all_arms or sensitivity or refute or placebo or cross_check):
                asked, note = _paired_instead(frame, treatment, outcomes, asked)
            result = _analyse(
                frame,
                treatment,
                outcomes,
                asked,
                kind="dose" if dose else "arms" if all_arms else "ordered" if ordered else "difference",
                levels=_split(levels),
            )
            if note:
                result = changed(result, warnings=(note, *result.warnings))
        checked = _checked(frame, treatment, outcomes[0], asked, result, checks)
    if as_json:
        show_json(result.to_dict() | {name: found.to_dict() for name, found in checked.items()})
    else:
        said = effect_text(result, words=lambda text: in_flags(text, ctx))
        show("\n\n".join([said, *(check_text(n, found) for n, found in checked.items())]))


@dataclass(frozen=True, kw_only=True)
class _Checks:
    """What is asked for beside the estimate."""

    sensitivity: bool
    refute: bool
    placebo: bool
    placebos: int | None
    negative_controls: tuple[str, ...]
    within: tuple[str, ...]
    modifiers: tuple[str, ...]
    cost: float
    better: str
    cross_check: bool

    @property
    def any(self) -> bool:
        return self.sensitivity or self.refute or self.placebo or self.cross_check or bool(self.modifiers)


def _refuse_checks(given: set[str], checks: _Checks, *, single: bool, paired: bool, imputed: bool) -> None:
    """Refuse checks that would do nothing, or that are not made for the analysis asked for."""
    _refuse(given & {"negative_controls"} if not checks.refute else set(), "without --refute")
    _refuse(given & {"within"} if not checks.placebo else set(), "without --placebo")
    _refuse(
        given & {"placebos"} if not (checks.placebo or checks.refute) else set(),
        "without --placebo or --refute",
    )
    _refuse(given & {"missing_outcome", "auxiliary"} if not imputed else set(), "without --impute")
    _refuse(given & {"cost", "better"} if not checks.modifiers else set(), "without --modifiers")
    asked = given & {"sensitivity", "refute", "placebo", "cross_check"}
    if imputed:
        _refuse(asked | given & {"modifiers"}, "with --impute: a check looks at one table")
    if not single:
        _refuse(given & {"modifiers"}, "but for one outcome and two arms")
    if not single or paired:
        _refuse(asked | given & {"impute"}, "but for one outcome and two arms that are not paired")


def _imputed(frame: Any, treatment: str, outcome: str, asked: dict[str, Any]) -> Any:  # noqa: ANN401
    import whyprompt.effects as library

    return library.estimate_with_imputation(frame, treatment=treatment, outcome=outcome, **asked)


def _checked(
    frame: Any,  # noqa: ANN401 - any frame
    treatment: str,
    outcome: str,
    asked: dict[str, Any],
    result: Any,  # noqa: ANN401 - an EffectResult where there is a check
    checks: _Checks,
) -> dict[str, Any]:
    """Run the checks asked for, each as the library's function of that name would."""
    import whyprompt.effects as library

    found: dict[str, Any] = {}
    if not checks.any:
        return found
    # Subgroups are looked at once, and not in every placebo.
    options = {name: value for name, value in asked.items() if name != "by"}
    if "draws" in options:  # of the bootstrap, and not of a check
        options["bootstrap_draws"] = options.pop("draws")
    shared = {"treatment": treatment, "outcome": outcome, **options}
    count: dict[str, Any] = {}
    if checks.placebos is not None:
        at_least(checks.placebos, 10, "placebos")
        count["draws"] = checks.placebos
    if checks.sensitivity:
        found["sensitivity"] = library.sensitivity_report(frame, result)
    if checks.placebo:
        found["placebo"] = library.placebo_treatment(frame, within=checks.within, **count, **shared)
    if checks.refute:
        found["refutation"] = library.refute(
            frame, negative_controls=checks.negative_controls, **count, **shared
        )
    if checks.modifiers:
        found["heterogeneity"] = _heterogeneity(frame, treatment, outcome, asked, checks.modifiers)
        better: Any = checks.better
        found["policy"] = library.prompt_policy(found["heterogeneity"], cost=checks.cost, better=better)
    if checks.cross_check:
        if asked.get("caliper_unit", "sd") != "sd":
            raise EstimationError(
                "--cross-check has no meaning with --caliper-unit: CausalML's caliper is in deviations"
            )
        takes = ("confounders", "graph", "treated", "control", "level", "estimand", "caliper", "replace")
        also = {name: asked[name] for name in (*takes, "random_state") if name in asked}
        found["cross_check"] = library.cross_check(frame, treatment=treatment, outcome=outcome, **also)
    return found


def _heterogeneity(
    frame: Any,  # noqa: ANN401 - any frame
    treatment: str,
    outcome: str,
    asked: dict[str, Any],
    modifiers: tuple[str, ...],
) -> Any:  # noqa: ANN401 - HeterogeneousEffects
    """Group rows by predicted effect: by doubly robust scores, whatever the method of the estimate is."""
    import whyprompt.effects as library

    takes = {"treated", "control", "cluster", "level", "random_state"}
    if asked.get("design") == "paired":
        shared = {name: value for name, value in asked.items() if name in takes | {"unit"}}
        return library.paired_heterogeneity(
            frame, arm=treatment, outcome=outcome, modifiers=modifiers, **shared
        )
    takes |= {"confounders", "graph", "design", "propensity"}
    shared = {name: value for name, value in asked.items() if name in takes}
    return library.heterogeneous_effects(
        frame, treatment=treatment, outcome=outcome, modifiers=modifiers, **shared
    )


def _given(ctx: typer.Context) -> set[str]:
    """Names of the parameters that the caller wrote, so that one without meaning is refused, not ignored."""
    out = set()
    for name in ctx.params:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            out.add(name)
    return out


def _refuse(names: set[str], where: str) -> None:
    if names:
        listed = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(names))
        raise EstimationError(f"{listed} has no meaning {where}", hint="leave it out")


def _split(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return [name.strip() for name in text.split(",") if name.strip()]


_PAIRED = {"design", "unit", "treated", "control", "cluster", "level"}
_ARMS_ONLY, _DOSE_ONLY = {"focal"}, {"knots"}


def _analyse(
    frame: Any,  # noqa: ANN401 - any frame
    treatment: str,
    outcomes: Sequence[str],
    asked: dict[str, Any],
    *,
    kind: str,
    levels: Sequence[str] | None,
) -> Any:  # noqa: ANN401 - any result of an effect
    """Call the library function that the options ask for; an option it does not take is refused."""
    import whyprompt.effects as library

    if len(outcomes) > 1 and kind != "difference":
        raise EstimationError("--outcome can be given once with --all-arms, --dose and --ordered")
    if asked.get("design") == "paired":
        return _paired(frame, treatment, outcomes, asked, kind=kind, levels=levels)
    _refuse(set(asked) & {"unit"}, "without --design paired")
    if kind == "dose":
        allowed = {
            "confounders",
            "graph",
            "method",
            "knots",
            "reference",
            "design",
            "cluster",
            "std_error",
            "level",
        }
        _refuse(set(asked) - allowed - {"random_state"}, "with --dose")
        if "std_error" in asked:
            asked["se"] = asked.pop("std_error")
        if "reference" in asked:
            asked["reference"] = _as_number(asked["reference"], "--reference")
        return library.dose_response(frame, treatment=treatment, outcome=outcomes[0], **asked)
    _refuse(set(asked) & _DOSE_ONLY, "without --dose")
    if kind == "arms":
        _refuse(set(asked) & {"treated", "control", "by", "propensity"}, "with --all-arms")
        return library.compare_arms(frame, treatment=treatment, outcome=outcomes[0], **asked)
    _refuse(set(asked) & (_ARMS_ONLY | {"reference"}), "without --all-arms")
    if kind == "ordered":
        return library.ordinal_effect(frame, treatment=treatment, outcome=outcomes[0], levels=levels, **asked)
    if len(outcomes) > 1:
        return library.estimate_effects(frame, treatment=treatment, outcomes=list(outcomes), **asked)
    return library.estimate_effect(frame, treatment=treatment, outcome=outcomes[0], **asked)


def _paired_instead(
    frame: Any,  # noqa: ANN401 - any frame
    treatment: str,
    outcomes: Sequence[str],
    asked: dict[str, Any],
) -> tuple[dict[str, Any], str]:
    """Take a table that holds both arms of every item as paired, where nothing else was asked for."""
    from whyprompt.effects.units import NO_CLUSTER, paired_instead

    takes = {*_PAIRED, "by", "random_state", "confounders", "graph"} - {"design"}
    if set(asked) - takes or asked.get("cluster") == NO_CLUSTER:
        return asked, ""
    names = {name: asked[name] for name in ("confounders", "graph", "treated", "control") if name in asked}
    found = paired_instead(frame, treatment=treatment, outcomes=outcomes, **names)
    if found is None:
        return asked, ""
    unit, arms = found
    settled = {"unit": unit.name, "treated": arms.treated, "control": arms.control, "design": "paired"}
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


def _paired(
    frame: Any,  # noqa: ANN401 - any frame
    arm: str,
    outcomes: Sequence[str],
    asked: dict[str, Any],
    *,
    kind: str,
    levels: Sequence[str] | None,
) -> Any:  # noqa: ANN401 - any result of an effect
    import whyprompt.effects as library

    if kind == "dose":
        raise EstimationError("a paired design compares arms, and no doses", hint="leave out --dose")
    if kind == "arms":
        _refuse(
            set(asked) - {"design", "unit", "reference", "level", "random_state"},
            "with --all-arms --design paired, where each item is compared with itself",
        )
        unit = {"cluster": asked.pop("unit")} if "unit" in asked else {}
        return library.compare_arms(frame, treatment=arm, outcome=outcomes[0], **unit, **asked)
    takes = set(_PAIRED)
    if len(outcomes) > 1:
        takes |= {"random_state"}
    elif kind == "difference":
        takes |= {"by"}
    _refuse(set(asked) - takes, "in a paired design, where each item is compared with itself")
    if asked.get("treated") is None or asked.get("control") is None:
        raise EstimationError(
            "a paired design needs the names of both arms", hint="--treated NAME --control NAME"
        )
    options = {name: value for name, value in asked.items() if name != "design"}
    if kind == "ordered":
        return library.paired_ordinal_effect(frame, arm=arm, outcome=outcomes[0], levels=levels, **options)
    if len(outcomes) > 1:
        return library.paired_effects(frame, arm=arm, outcomes=list(outcomes), **options)
    return library.paired_effect(frame, arm=arm, outcome=outcomes[0], **options)


def _as_number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise EstimationError(f"{name} is {text!r}; with --dose it is a number") from error


def _study(path: Path, out: Path | None, *, no_code: bool, as_json: bool) -> None:
    from whyprompt.answers.verbs import run_effect
    from whyprompt.study import load_study

    found = run_effect(path, results_folder(out, load_study(path, code=not no_code).name))
    if as_json:
        show_json(found.to_dict())
    else:
        show(found.summary())
