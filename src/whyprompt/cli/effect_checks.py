"""The checks of ``whyprompt effect``: what each takes, what it does not go with, and how it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt._arguments import at_least
from whyprompt.cli.choices import read_choice, refuse
from whyprompt.cli.flags import speak
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import typer

    from whyprompt.results import Result

CHECKS: dict[str, dict[str, str]] = {
    "sensitivity": {},
    "placebo": {"draws": "count", "within": "columns"},
    "refute": {"draws": "count", "negative_controls": "columns"},
    "whom": {
        "modifiers": "columns",
        "effect_model": "text",
        "n_groups": "count",
        "folds": "count",
        "cost": "number",
        "better": "text",
    },
    "cross-check": {},
}
"""The checks there are, each with its options and what they take."""


def read_checks(written: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read every ``--check``: by name, with its options."""
    found: dict[str, dict[str, Any]] = {}
    for text in written:
        name, options = read_choice(text, "--check", CHECKS)
        if name in found:
            raise EstimationError(f"--check {name} is given twice")
        found[name] = options
    if "whom" in found and not found["whom"].get("modifiers"):
        raise EstimationError("--check whom needs the columns to look at", hint="--check whom:modifiers=a+b")
    return found


def refuse_checks(
    checks: dict[str, dict[str, Any]], *, single: bool, paired: bool, impute: str | None
) -> None:
    """Refuse checks that are not made for the analysis asked for."""
    listed = ", ".join(f"--check {name}" for name in checks)
    others = ", ".join(f"--check {name}" for name in checks if name != "whom")
    if impute is not None:
        refuse(listed, "with --impute: a check looks at one table")
    if not single:
        refuse(listed, "but for one outcome and two arms")
    if not single or paired:
        also = "--impute" if impute is not None else ""
        refuse(others or also, "but for one outcome and two arms that are not paired")


def run_checks(
    frame: Any,  # noqa: ANN401 - any frame
    treatment: str,
    outcome: str,
    asked: dict[str, Any],
    result: Any,  # noqa: ANN401 - an EffectResult where there is a check
    checks: dict[str, dict[str, Any]],
    ctx: typer.Context,
    inside: Mapping[str, str],
) -> dict[str, Any]:
    """Run the checks asked for, each as the library's function of that name would."""
    import whyprompt as wp

    # Subgroups are looked at once, and not in every placebo.
    options = {name: value for name, value in own_draws(asked).items() if name != "by"}
    shared = {"treatment": treatment, "outcome": outcome, **options}
    found: dict[str, Any] = {}
    for name, own in checks.items():
        speak(ctx, {**inside, **dict.fromkeys(CHECKS[name], f"--check {name}:")})
        if "draws" in own:
            at_least(own["draws"], 10, "draws")
        if name == "sensitivity":
            found["sensitivity"] = wp.sensitivity_report(frame, result)
        elif name == "placebo":
            found["placebo"] = wp.placebo_treatment(frame, **own, **shared)
        elif name == "refute":
            found["refutation"] = wp.refute(frame, **own, **shared)
        elif name == "cross-check":
            found["cross_check"] = _cross_check(frame, treatment, outcome, asked)
        else:
            policy = {option: own[option] for option in ("cost", "better") if option in own}
            learned = {option: value for option, value in own.items() if option not in policy}
            found["heterogeneity"] = _whom(frame, treatment, outcome, asked, learned)
            found["policy"] = wp.prompt_policy(found["heterogeneity"], **policy)
    return found


def own_draws(asked: dict[str, Any]) -> dict[str, Any]:
    """Call the draws of the bootstrap by their own name, where a check or an imputation has draws as well."""
    return {"bootstrap_draws" if name == "draws" else name: value for name, value in asked.items()}


def _cross_check(frame: Any, treatment: str, outcome: str, asked: dict[str, Any]) -> Any:  # noqa: ANN401
    import whyprompt as wp

    method = asked.get("method")
    own = {} if method is None else method.asked
    if own.get("caliper_unit", "sd") != "sd":
        raise EstimationError(
            "--check cross-check has no meaning with caliper_unit=, for CausalML's caliper is in deviations"
        )
    if own.get("caliper") == "none":
        raise EstimationError("--check cross-check has no meaning with caliper=none: CausalML needs one")
    takes = ("confounders", "graph", "treated", "control", "level", "estimand", "random_state")
    also = {name: asked[name] for name in takes if name in asked}
    also |= {name: own[name] for name in ("caliper", "replace") if name in own}
    return wp.cross_check(frame, treatment=treatment, outcome=outcome, **also)


def _whom(
    frame: Any,  # noqa: ANN401 - any frame
    treatment: str,
    outcome: str,
    asked: dict[str, Any],
    learned: dict[str, Any],
) -> Any:  # noqa: ANN401 - a HeterogeneousEffects
    """Group rows by predicted effect: by doubly robust scores, whatever the method of the estimate is."""
    import whyprompt as wp

    takes = {"treated", "control", "cluster", "level", "random_state", "design", "unit"}
    if asked.get("design") != "paired":
        takes |= {"confounders", "graph", "propensity"}
    shared = {name: value for name, value in asked.items() if name in takes}
    return wp.heterogeneous_effects(frame, treatment=treatment, outcome=outcome, **learned, **shared)


_TITLES = {
    "sensitivity": "Hidden confounding",
    "placebo": "Placebo arm",
    "refutation": "Refutation",
    "heterogeneity": "Whom the arm helps and harms",
    "policy": "Which arm for which row",
    "cross_check": "Beside DoWhy and CausalML",
}


def check_text(name: str, found: Result) -> str:
    """Write a check for a reader."""
    return f"{_TITLES[name]}:\n  {found.summary(brief=True)}"
