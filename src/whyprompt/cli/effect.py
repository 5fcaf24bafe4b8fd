"""``whyprompt effect``: the effect of one arm against another, from a table or from a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whyprompt.cli._common import AsJson, Out, results_folder, show, show_json
from whyprompt.cli._tables import TABLES, read_graph, read_table
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["effect"]

_STUDIES = {".yaml", ".yml", ".toml"}
_MARKS = {
    "holds": "holds",
    "fails": "FAILS",
    "doubtful": "doubtful",
    "untestable": "untestable",
    "not checked": "not checked",
}

_Columns = str | None


def effect(
    table: Annotated[
        Path,
        typer.Argument(help="A table (.csv, .tsv, .parquet, .jsonl, .json) or a study (.yaml, .toml)."),
    ],
    *,
    treatment: Annotated[str | None, typer.Option(help="Column with the arm.")] = None,
    outcome: Annotated[
        list[str] | None,
        typer.Option(help="Column with the outcome. Given more than once: adjusted for their number."),
    ] = None,
    graph: Annotated[
        str | None, typer.Option(help="Causal graph: a file, or text such as 'x -> arm; x -> y; arm -> y'.")
    ] = None,
    confounders: Annotated[_Columns, typer.Option(help="Columns to adjust for: a,b,c.")] = None,
    estimand: Annotated[str | None, typer.Option(help="att, atc, ate or ato.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="nearest (default), optimal, kernel, subclass, cem, ipw, overlap, entropy, aipw or naive."
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
    ratio: Annotated[int, typer.Option(help="Matches a row.")] = 1,
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
    n_strata: Annotated[int, typer.Option(help="Of subclassification.")] = 6,
    ties: Annotated[str, typer.Option(help="sorted or average.")] = "sorted",
    tie_break: Annotated[str | None, typer.Option(help="Column that identifies rows.")] = None,
    propensity: Annotated[str | None, typer.Option(help="Column with known propensities.")] = None,
    cluster: Annotated[str | None, typer.Option(help="Column with the sampling unit.")] = None,
    by: Annotated[_Columns, typer.Option(help="Subgroups: a,b.")] = None,
    level: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    se: Annotated[
        str, typer.Option(help="auto, pairs, abadie_imbens, strata, bootstrap or wild_bootstrap.")
    ] = "auto",
    draws: Annotated[int, typer.Option(help="Of a bootstrap.")] = 1000,
    neighbours: Annotated[int, typer.Option(help="Of the Abadie-Imbens variance.")] = 2,
    denominator: Annotated[
        str, typer.Option(help="Of balance: pooled, treated, control, all or weighted.")
    ] = "pooled",
    seed: Annotated[int, typer.Option(help="For everything random.")] = 0,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Estimate what one arm changes against another, from a table or from a study.

    One of --graph and --confounders says what to adjust for; with neither, use --method naive.
    """
    if table.suffix.lower() in _STUDIES:
        _study(table, out, treatment, outcome, as_json=as_json)
        return
    if table.suffix.lower() not in TABLES:
        raise EstimationError(
            f"{table} is neither a table nor a study", hint=f"one of: {', '.join((*TABLES, *_STUDIES))}"
        )
    if treatment is None or not outcome:
        missing = " and ".join(
            name for name, value in (("--treatment", treatment), ("--outcome", outcome)) if not value
        )
        raise EstimationError(f"{missing} must be given with a table", hint="name columns of the table")
    if graph is not None and confounders is not None and not confounders.strip():
        raise EstimationError("--confounders is empty", hint="leave it out, and the graph chooses")
    frame = read_table(table)
    if design == "paired":
        refused = {"--graph": graph, "--confounders": confounders, "--method": method, "--caliper": caliper}
        for name, value in refused.items():
            if value is not None:
                raise EstimationError(
                    f"{name} has no meaning in a paired design: each item is compared with itself",
                    hint="leave it out, or give the design as observational",
                )
        result = _paired(
            frame,
            treatment,
            outcome,
            unit=unit,
            treated=treated,
            control=control,
            cluster=cluster,
            by=_split(by),
            level=level,
        )
    else:
        options: dict[str, Any] = {
            "treatment": treatment,
            "confounders": _split(confounders),
            "graph": None if graph is None else read_graph(graph),
            "estimand": estimand,
            "method": method or "nearest",
            "treated": treated,
            "control": control,
            "design": design,
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
            "se": se,
            "draws": draws,
            "neighbours": neighbours,
            "denominator": denominator,
            "random_state": seed,
        }
        result = _adjusted(frame, outcome, options)
    if as_json:
        show_json(result.to_dict())
    else:
        show(_report(result))


def _split(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return [name.strip() for name in text.split(",") if name.strip()]


def _adjusted(frame: Any, outcomes: Sequence[str], options: dict[str, Any]) -> Any:  # noqa: ANN401 - a result
    from whyprompt.effects import estimate_effect, estimate_effects

    if len(outcomes) > 1:
        return estimate_effects(frame, outcomes=list(outcomes), **options)
    return estimate_effect(frame, outcome=outcomes[0], **options)


def _paired(frame: Any, arm: str, outcomes: Sequence[str], **options: Any) -> Any:  # noqa: ANN401 - a result
    from whyprompt.effects import paired_effect, paired_effects

    treated, control = options["treated"], options["control"]
    if treated is None or control is None:
        raise EstimationError(
            "a paired design needs the names of both arms", hint="--treated NAME --control NAME"
        )
    if len(outcomes) > 1:
        if options.pop("by") is not None:
            raise EstimationError("--by is for one outcome at a time")
        return paired_effects(frame, arm=arm, outcomes=list(outcomes), **options)
    return paired_effect(frame, arm=arm, outcome=outcomes[0], **options)


def _study(
    path: Path, out: Path | None, treatment: str | None, outcome: Sequence[str] | None, *, as_json: bool
) -> None:
    if treatment is not None or outcome:
        raise EstimationError(
            "a study file names its own arms and outcomes", hint="leave out --treatment and --outcome"
        )
    from whyprompt.analysis import run_effect
    from whyprompt.study import load_study

    found = run_effect(path, results_folder(out, load_study(path).name))
    if as_json:
        show_json(found.to_dict())
    else:
        show(found.summary())


def _report(result: Any) -> str:  # noqa: ANN401 - any of the results
    """Write the result for a reader: sentence, tables, assumptions, warnings."""
    parts = [result.sentence]
    rows = getattr(result, "rows", ())
    if rows:
        parts.append(
            _grid(
                ["outcome", "estimate", "std error", "interval", "p", "p (max-T)"],
                [
                    [
                        row.outcome,
                        _number(row.estimate),
                        _number(row.std_error),
                        f"{_number(row.ci_low)} to {_number(row.ci_high)}",
                        _number(row.p_value, 2),
                        _number(row.p_max_t, 2),
                    ]
                    for row in rows
                ],
            )
        )
    else:
        parts.append(
            f"estimate {_number(result.estimate)}, standard error {_number(result.std_error)}"
            f" ({result.se_method}), {result.level:.0%} interval {_number(result.ci_low)} to"
            f" {_number(result.ci_high)}, p {_number(result.p_value, 2)}"
        )
    parts.extend(
        f"{m.name} {_number(m.estimate)} ({_number(m.ci_low)} to {_number(m.ci_high)})"
        for m in getattr(result, "measures", ())[1:]
        if m.estimate is not None
    )
    balance = getattr(result, "balance", ())
    if balance:
        parts.append(
            "Balance (standardised mean difference; variance ratio after):\n"
            + _grid(
                ["covariate", "before", "after", "ratio"],
                [
                    [
                        row.covariate,
                        _number(row.smd_before, 2),
                        _number(row.smd_after, 2),
                        "" if row.binary else _number(row.variance_ratio_after, 2),
                    ]
                    for row in balance
                ],
            )
        )
    subgroups = getattr(result, "subgroups", ())
    if subgroups:
        parts.append(
            "Subgroups:\n"
            + _grid(
                ["by", "level", "rows", "estimate", "interval", "p (Holm)", ""],
                [
                    [
                        row.by,
                        row.level,
                        str(row.n_pairs)
                        if hasattr(row, "n_pairs")
                        else f"{row.n_treated_used}+{row.n_control_used}",
                        _number(row.estimate),
                        f"{_number(row.ci_low)} to {_number(row.ci_high)}",
                        _number(row.p_holm, 2),
                        getattr(row, "note", ""),
                    ]
                    for row in subgroups
                ],
            )
        )
    parts.append(
        "Assumptions:\n"
        + "\n".join(f"  {_MARKS[a.status]:<12} {a.name}: {a.detail} [{a.check}]" for a in result.assumptions)
    )
    if result.warnings:
        parts.append("Warnings:\n" + "\n".join(f"  {text}" for text in result.warnings))
    return "\n\n".join(parts)


def _number(value: float | None, digits: int = 3) -> str:
    from whyprompt.effects.result import format_number

    return format_number(value, digits=digits)


def _grid(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(line[k]) for line in (header, *rows)) for k in range(len(header))]

    def one(line: list[str]) -> str:
        cells = [
            text.ljust(w) if k == 0 else text.rjust(w)
            for k, (text, w) in enumerate(zip(line, widths, strict=True))
        ]
        return ("  " + "  ".join(cells)).rstrip()

    return "\n".join(one(line) for line in (header, *rows))
