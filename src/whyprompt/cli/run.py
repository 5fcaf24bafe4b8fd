"""The verbs of a study, and ``schema`` and ``doctor``, which need none."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whyprompt._words import counted, format_number
from whyprompt.cli.choices import names, refuse
from whyprompt.cli.common import (
    STUDIES,
    AsJson,
    Better,
    Gpus,
    Margin,
    NoCode,
    On,
    Out,
    StudyPath,
    Workers,
    given_places,
    opened,
    placed_study,
    put,
    say,
    show,
)
from whyprompt.cli.flags import said
from whyprompt.cli.logs import Arm, Item, Reference, Scorer, effect_for_page
from whyprompt.errors import InputError, StoreError, WhypromptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.results import Check, Estimate, Result
    from whyprompt.study import Study
    from whyprompt.trials.result import RunResult


def run(
    study: StudyPath,
    out: Out = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Count trials and tokens, run nothing.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Score a sample of stored trials again and compare.")
    ] = False,
    on: On = None,
    workers: Workers = None,
    gpus_per_worker: Gpus = 0,
    no_code: NoCode = False,
    as_json: AsJson = False,
) -> None:
    """Run what is missing of a study, and only that. Exit code 0: every trial has its outcome."""
    from whyprompt._progress import show_progress
    from whyprompt.trials.run import dry_run, run_study, verify_study

    if dry and verify:
        raise InputError("--dry-run runs nothing, and --verify scores again", hint="give one of them")
    if dry or verify:
        refuse(
            given_places(on, workers, gpus_per_worker), "with --dry-run or --verify, which one process does"
        )
    plan, folder = opened(study, out, no_code=no_code)
    if dry:
        count = dry_run(plan)
        content: dict[str, Any] = {
            "trials": count.trials,
            "items": count.items,
            "tokens": count.tokens,
            "tokens_by_arm": dict(count.arms),
            "completion_tokens_at_most": count.completion_tokens,
        }
        lines = [f"{count.sentence.removesuffix('.')}:"]
        lines += [f"  {arm}: {counted(tokens, 'token')}" for arm, tokens in count.arms.items()]
        written = counted(count.completion_tokens, "token")
        lines.append(
            f"The model writes at most {written} of its own."
            if count.completion_tokens
            else "The model writes nothing: given answers are scored."
        )
        if count.checks:
            content |= {"paid_at_most": dict(count.paid), "currency": count.currency}
            content |= {"probe": _rows(count.checks), "notices": list(count.notices)}
            lines += [_at_most(count), *_pace(plan, count)] if count.paid else []
            lines += [*_lines(count.checks), *(f"note: {n}" for n in count.notices)]
        put(content, "\n".join(lines), as_json=as_json)
        return
    if verify:
        with show_progress(plan.name) as progress:
            _verified(verify_study(plan, folder, progress=progress), as_json=as_json)
        return
    with placed_study(plan, on, workers, gpus_per_worker), show_progress(plan.name) as progress:
        result = run_study(plan, folder, text=study.read_text(encoding="utf-8"), progress=progress)
    for notice in result.notices:
        say(f"note: {notice}")
    spread = _spread_over_reps(plan, folder) if plan.reps > 1 else {}
    flickering = _flicker(plan, folder) if result.checks and plan.reps > 1 else {}
    content = {
        "trials": result.trials,
        "new_trials": result.new_trials,
        "missing": dict(result.missing),
        "store": str(result.store),
        "study_fingerprint": result.study,
        "model_fingerprint": result.model,
        "seconds": round(result.seconds, 3),
        "notices": list(result.notices),
        "variance_over_reps": {
            outcome: [row.to_dict() for row in found.parts] for outcome, found in spread.items()
        },
    }
    if result.checks:
        content |= {"paid": dict(result.paid), "currency": result.currency}
        content |= {"flicker": {arm: {"items": n, "vary": v} for arm, (n, v) in flickering.items()}}
    lines = [result.sentence]
    lines += [
        f"  {outcome}, {v.label}{_of(v, result.items)}: mean {v['mean']:.4f}; variance over repetitions of an"
        f" item {v['sd_repeats'] ** 2:.4f}, between items {v['sd_items'] ** 2:.4f}; the mean moves by "
        f"{v['sd_rep_means']:.4f} (standard deviation over {counted(len(v['rep_means']), 'repetition')})"
        for outcome, found in spread.items()
        for v in found.parts
    ]
    if result.checks:
        paid = result.paid
        money = f", {format_number(paid['money'])} {result.currency}" if "money" in paid else ""
        sent, tokens = counted(int(paid["requests"]), "request"), counted(int(paid["tokens"]), "token")
        lines.append(f"  {sent} sent; in all {int(paid['replies'])} replies stored, {tokens}{money}")
    lines += [
        f"  flicker, {arm}: {vary} of {counted(n, 'item')} got another text at temperature 0"
        for arm, (n, vary) in flickering.items()
    ]
    put(content, "\n".join(lines), as_json=as_json)
    if result.missing:
        # A script goes no further without being told; what is there is kept, and can be estimated from.
        lack, why = sum(result.missing.values()), ", ".join(f"{r} {n}" for r, n in result.missing.items())
        raise WhypromptError(
            f"{lack} of {counted(result.trials, 'trial')} have no outcome ({why})",
            hint="run again: what is stored is kept, and what got no reply is asked for again",
        )


def _of(row: Estimate, items: int) -> str:
    """Say how many items a row is of, where that is not all."""
    return f" (of {row['n_items']} of {counted(items, 'item')})" if row["n_items"] < items else ""


def _at_most(count: RunResult) -> str:
    paid = count.paid
    money = f", {format_number(paid['money'])} {count.currency}" if "money" in paid else ""
    sent, tokens = counted(int(paid["requests"]), "request"), counted(int(paid["tokens"]), "token")
    exact = all(c.verdict == "passes" for c in count.checks if c.name == "tokens")
    at_most = "At most" if exact else "By an estimate of three bytes of text a token, at most"
    return f"{at_most} {sent}, {tokens}{money}, the probe's few aside."


def _pace(plan: Study, count: RunResult) -> list[str]:
    """Say what a study's own limits and prices make known, and what they leave open."""
    from whyprompt._progress import time_words
    from whyprompt.study import EndpointSettings

    if not isinstance(plan.model, EndpointSettings) or not count.paid:
        return []
    limits, paid = plan.model.limits, count.paid
    given = ((limits.requests_per_minute, "requests"), (limits.tokens_per_minute, "tokens"))
    seconds = [60.0 * paid[what] / most for most, what in given if most]
    lines = [f"At the study's limits that takes {time_words(max(seconds))} or more."] if seconds else []
    budget = plan.model.budget
    budgets = (
        (budget.money, paid.get("money", 0.0), count.currency),
        (budget.tokens, paid["tokens"], "tokens"),
    )
    lines += [
        f"The study's budget is {format_number(most)} {of}: the run may end before all trials are there."
        for most, what, of in budgets
        if most is not None and what > most
    ]
    unpriced = "What it costs is said where the study has a price: model.price: {input: 0.15, output: 0.60}"
    return lines if "money" in paid else [*lines, unpriced]


_SAID = {"passes": "ok", "doubtful": "warn", "fails": "fail"}


def _rows(checks: Sequence[Check]) -> list[dict[str, str]]:
    return [{"name": c.name, "status": _SAID[c.verdict], "detail": c.sentence} for c in checks]


def _lines(checks: Sequence[Check]) -> list[str]:
    return [f"{row['status']:>4}  {row['name']}: {row['detail']}" for row in _rows(checks)]


def _flicker(plan: Study, folder: Path) -> dict[str, tuple[int, int]]:
    """Count the items whose repeats at temperature 0 differ, by arm."""
    from whyprompt.trials.endpoints.drift import flicker
    from whyprompt.trials.run import load_trials

    return flicker(load_trials(plan, folder))


def _verified(found: Check, *, as_json: bool) -> None:
    assert found.overall is not None
    content = {
        "checked": found.overall.n_used,
        "largest_difference": found.estimate,
        "tolerance": found.settings["tolerance"],
        "passed": found.verdict == "passes",
    }
    put(content, found.sentence, as_json=as_json)
    if found.verdict == "fails":
        raise WhypromptError(
            f"stored log-probabilities differ from new ones by {found.estimate:.1e}",
            hint="the model, its dtype or a library changed: run into a new folder",
        )


def _spread_over_reps(plan: Study, folder: Path) -> dict[str, Result]:
    """Give every outcome's variance over repetitions, by arm, of items that have it in all of them."""
    from whyprompt.effects.checks.repeats import repeat_variance
    from whyprompt.trials.run import load_trials

    frame, found = load_trials(plan, folder), {}
    for o in plan.outcomes:
        there = frame[frame[o.name].notna()]
        whole = there[there.groupby(["arm", "item_id"])["rep"].transform("size") == plan.reps]
        rows = whole[whole.groupby("arm")["item_id"].transform("nunique") >= 2]
        if len(rows):
            found[o.name] = repeat_variance(rows, unit="item_id", outcome=o.name, treatment="arm", rep="rep")
    return found


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="A study (.yaml, .toml) and the page to write (default: report.html in its folder of"
            " results); two studies, to compare them; or logs of other tools, folders, patterns.",
            metavar="STUDY [FILE] | STUDY STUDY | LOG...",
        ),
    ],
    *,
    arm: Arm = None,
    scorer: Scorer = None,
    item: Item = None,
    reference: Reference = None,
    treated: Annotated[str | None, typer.Option(help="Of logs: the arm that counts as treated.")] = None,
    control: Annotated[str | None, typer.Option(help="Of logs: the arm that counts as control.")] = None,
    design: Annotated[
        str | None,
        typer.Option(help="Of logs: paired, randomized or observational. Default: what they allow."),
    ] = None,
    confounders: Annotated[
        str | None, typer.Option(help="Of logs, where rows are compared: columns to adjust for, a,b,c.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Of logs: subgroups, a,b.")] = None,
    better: Better = None,
    margin: Margin = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="A study's folder of results (default: runs/NAME); of logs, or of two studies, the page"
            " (default: report.html).",
            metavar="DIR|FILE",
        ),
    ] = None,
    no_code: NoCode = False,
    as_json: AsJson = False,
) -> None:
    """Write one self-contained HTML page: a study's, of two studies, or of arms of logs."""
    from whyprompt.page.page import write_report

    of_log = {"arm": arm, "scorer": scorer, "item": item, "reference": reference}
    asked: dict[str, Any] = {"treated": treated, "control": control, "design": design}
    asked |= {"confounders": names(confounders), "by": names(by)}
    study = paths[0]
    if study.suffix.lower() in {".html", ".htm"}:
        raise InputError(
            f"{study} is a page", hint="name what pages are made of: one study or two (.yaml), or logs"
        )
    if study.suffix.lower() in STUDIES:
        told = of_log | asked | {"better": better, "margin": margin}
        given = [name for name, value in told.items() if value is not None]
        refuse(
            ", ".join(f"--{name}" for name in given), "with a study, which names its own arms and outcomes"
        )
        two = [path for path in paths if path.suffix.lower() in STUDIES]
        if len(paths) == 2 == len(two):
            _report_two(paths, out, no_code=no_code, as_json=as_json)
            return
        if len(paths) > 2:
            raise InputError(
                f"{paths[2]}: a study is followed by the page to write, and by nothing more",
                hint="logs are not mixed with a study",
            )
        folder = opened(study, out, no_code=no_code)[1]
        path = write_report(study, folder, target=paths[1] if len(paths) > 1 else None, words=said)
    else:
        refuse("--no-code" if no_code else "", "with logs, which import no code")
        if out is not None and out.is_dir():
            raise InputError(f"{out} is a folder", hint=f"name the page: --out {out / 'report.html'}")
        found, effect = effect_for_page(paths, of_log, asked, better=better, margin=margin)
        path = write_report(found, effect, target=out, words=said)
    content = {"report": str(path), "bytes": path.stat().st_size}
    put(content, f"The report is at {path.resolve()}", as_json=as_json)


def _report_two(paths: list[Path], out: Path | None, *, no_code: bool, as_json: bool) -> None:
    """Write the page of two studies, of their folders under ``runs``."""
    from whyprompt.page.page import write_comparison

    if out is not None and out.is_dir():
        raise InputError(f"{out} is a folder", hint=f"name the page: --out {out / 'report.html'}")
    folders = [opened(path, None, no_code=no_code)[1] for path in paths]
    try:
        path = write_comparison(paths, folders, target=out or Path("report.html"), words=said)
    except StoreError as error:
        of = [study for study, folder in zip(paths, folders, strict=True) if str(folder) in error.message]
        if len(of) == 1 and error.hint is not None:
            raise StoreError(
                error.message, hint=error.hint.replace("STUDY", shlex.quote(str(of[0])))
            ) from None
        raise
    content = {"report": str(path), "bytes": path.stat().st_size}
    put(content, f"The report is at {path.resolve()}", as_json=as_json)


def export(
    study: StudyPath,
    target: Annotated[Path, typer.Argument(help="The table to write (.csv or .parquet).", metavar="FILE")],
    wide: Annotated[
        bool,
        typer.Option(
            "--wide", help="A row an item: question, right answer, and what each arm gave beside it."
        ),
    ] = False,
    out: Out = None,
    no_code: NoCode = False,
    as_json: AsJson = False,
) -> None:
    """Write a study's trial table as .csv or .parquet: a row a trial, or with --wide a row an item."""
    from whyprompt.trials.items.load import items_of
    from whyprompt.trials.run import load_trials
    from whyprompt.trials.store import check_target
    from whyprompt.trials.store import export as write
    from whyprompt.trials.wide import side_by_side

    check_target(target)
    plan, folder = opened(study, out, no_code=no_code)
    asked = {Path(path).resolve() for one in plan.items if (path := getattr(one, "path", None))}
    if target.resolve() in asked:
        raise InputError(f"{target} holds the study's questions", hint="give the table a name of its own")
    frame = load_trials(plan, folder)
    trials = len(frame)
    if wide:
        outcomes = [outcome.name for outcome in plan.outcomes]
        frame = side_by_side(frame, items_of(plan).items, arms=list(plan.arms), outcomes=outcomes)
    write(frame, target)
    content = {"trials": trials, "rows": len(frame), "columns": list(frame.columns), "file": str(target)}
    rows = counted(len(frame), "row") if wide else ""
    written = [counted(trials, "trial"), *([rows] if rows else []), counted(len(frame.columns), "column")]
    text = f"{', '.join(written)}: {target}"
    if wide and not any(name.endswith(".completion") for name in frame.columns):
        text += (
            "\nNo completions: these outcomes are read off the probabilities that the model gives. What it"
            " writes is kept where an outcome reads it, such as string_match."
        )
    put(content, text, as_json=as_json)


def schema(as_json: AsJson = False) -> None:
    """Print the JSON schema of a study file."""
    from whyprompt.study import study_json_schema

    show(json.dumps(study_json_schema(), indent=None if as_json else 2))


def skill(as_json: AsJson = False) -> None:
    """Print what a coding assistant needs to know: which design, which verb, and what not to claim."""
    from importlib.resources import files

    text = files("whyprompt.cli").joinpath("skill.md").read_text(encoding="utf-8").rstrip()
    put({"skill": text}, text, as_json=as_json)


def doctor(
    model: Annotated[
        Path | None,
        typer.Option("--model", help="Probe the endpoint of this study instead.", metavar="STUDY"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that this environment can run a study."""
    from whyprompt.trials.doctor import examine, examine_endpoint

    checks = examine() if model is None else examine_endpoint(opened(model, None, no_code=False)[0])
    failed = [c for c in checks if c.verdict == "fails"]
    lines = _lines(checks)
    lines.append("Everything a study needs is here." if not failed else f"{len(failed)} check(s) failed.")
    put({"ok": not failed, "checks": _rows(checks)}, "\n".join(lines), as_json=as_json)
    if failed:
        raise typer.Exit(1)
