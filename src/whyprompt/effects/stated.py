"""What a result says beside its numbers, however they were computed: warnings, settings, risks as words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from whyprompt._words import format_number
from whyprompt.effects.methods.method import told
from whyprompt.effects.result import EffectResult
from whyprompt.effects.separation import Arms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.effects.methods.method import Plan
    from whyprompt.results import Assumption, BalanceRow, Estimate
    from whyprompt.stats.design import Design


class Compared(Arms, Protocol):
    """The rows of two arms by their names, whether they are in memory or not."""

    @property
    def treatment_name(self) -> str:
        """The column of the arm."""

    @property
    def outcome_name(self) -> str:
        """The column of the outcome."""

    @property
    def cluster_name(self) -> str | None:
        """The column of the clusters."""

    @property
    def known_score(self) -> object | None:
        """A propensity that is known."""

    @property
    def design(self) -> Design:
        """The confounders as numbers."""


def result_of(
    of: Compared,
    plan: Plan,
    row: Estimate,
    *,
    assumptions: tuple[Assumption, ...],
    balance: tuple[BalanceRow, ...],
    ess: tuple[float, float],
    of_fit: Sequence[str],
    settings: Mapping[str, Any],
    how: str,
    design: str,
    confounders: tuple[str, ...],
    arms: tuple[int, int],
    spare: Sequence[str],
    binary: bool,
    impossible: Sequence[str],
    discarded: int = 0,
    measures: tuple[Estimate, ...] = (),
) -> EffectResult:
    """Put an estimate beside what was checked of it, as yet without a sentence.

    `ess` are the effective sample sizes of the arms, `how` names the standard error; the rest is as in
    `warnings_of` and `settings_of`.
    """
    return EffectResult(
        sentence="",
        treatment=of.treatment_name,
        outcome=of.outcome_name,
        treated=of.treated_level,
        control=of.control_level,
        axis=f"difference in {of.outcome_name}, {of.treated_level} minus {of.control_level}",
        estimand=plan.estimand,
        method=plan.method.name,
        overall=row,
        level=plan.level,
        ess_treated=ess[0],
        ess_control=ess[1],
        balance=balance,
        assumptions=assumptions,
        warnings=warnings_of(
            plan,
            row,
            assumptions,
            of_fit,
            of,
            design=design,
            adjusted=bool(confounders),
            arms=arms,
            spare=spare,
            binary=binary,
            impossible=impossible,
        ),
        std_error_method=how,
        settings=settings_of(
            plan,
            settings,
            known=of.known_score is not None,
            discarded=discarded,
            cluster=of.cluster_name,
            levels=of.design.levels,
        ),
        confounders=() if plan.method.name == "naive" else confounders,
        measures=measures,
    )


def adjusted_for(confounders: Sequence[str], exact: Sequence[str], plan: Plan) -> tuple[str, ...]:
    """Name what is adjusted for or matched exactly on."""
    return () if plan.method.name == "naive" else tuple(dict.fromkeys((*confounders, *exact)))


def risk_words(means: tuple[float, float], measures: Sequence[Estimate]) -> str:
    """Give the two risks of a 0/1 outcome and their ratio; nothing of another outcome."""
    ratio = next((m for m in measures if m.label == "risk ratio"), None)
    if ratio is None:
        return ""
    text = f" The risks are {format_number(means[0])} and {format_number(means[1])}"
    if ratio.estimate is None:
        return f"{text}; {ratio.note}."
    text += f", a risk ratio of {format_number(ratio.estimate)}"
    if ratio.ci_low is not None and ratio.ci_high is not None:
        text += f" ({format_number(ratio.ci_low)} to {format_number(ratio.ci_high)})"
    return text + "."


def warnings_of(
    plan: Plan,
    row: Estimate,
    assumptions: Sequence[Assumption],
    of_fit: Sequence[str],
    names: Arms,
    *,
    design: str,
    adjusted: bool,
    arms: tuple[int, int],
    spare: Sequence[str],
    binary: bool,
    impossible: Sequence[str],
) -> tuple[str, ...]:
    """Say what a reader must know before quoting the number, after what the fit says itself.

    `adjusted` says that there are confounders; `arms` are the rows of either arm that were computed with, of
    which `row` has those used; `spare` are columns that add nothing; `impossible` is said of the limits of a
    `binary` outcome.
    """
    out = list(of_fit)
    if plan.method.name == "naive" and not adjusted and design != "randomized":
        out.append("nothing was adjusted for")
    failed = (a.detail for a in assumptions if (a.name, a.status) == ("balance", "fails"))
    out += [f"balance was not reached: {detail}" for detail in failed]
    used = (row.n_treated_used or 0, row.n_control_used or 0)
    # Rows of levels that one arm has alone are none of the ATO's.
    total = arms if plan.estimand == "ato" else (row.n_treated or 0, row.n_control or 0)
    wanted = {"att": names.treated_level, "atc": names.control_level}
    for name, n, m in zip((names.treated_level, names.control_level), total, used, strict=True):
        if wanted.get(plan.estimand, name) == name and m < n and plan.method.name != "naive":
            out.append(
                f"{n - m} of {n} {name!r} rows are not used; the effect is that on the other {m},"
                f" which is not the {plan.estimand.upper()} of the whole table"
            )
    if spare:
        out.append(f"left out of the adjustment as constant or a copy of others: {', '.join(spare)}")
    if min(used) < 30 and binary:
        out.append("a risk difference from fewer than 30 rows in an arm: the interval is approximate")
    return (*out, *impossible)


def settings_of(
    plan: Plan,
    of_fit: Mapping[str, Any],
    *,
    known: bool,
    discarded: int,
    cluster: str | None,
    levels: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Give the options that change the number, those that the fit settled first."""
    method = plan.method
    out: dict[str, Any] = dict(of_fit)
    out["smd_denominator"] = plan.denominator
    if method.by_score or "distance" in method.asked:
        distance = getattr(method, "distance", method.score)
        if plan.score_model is not None:
            distance = told(plan.score_model)
        out["distance"] = "known propensity" if known else distance
    for name, value in method.asked.items():
        out.setdefault(name, told(value))
    if "caliper" in method.asked:
        out["caliper_unit"] = getattr(method, "caliper_unit", "sd")
    if "discard" in method.asked:
        out["n_discarded"] = discarded
    if cluster is not None:
        out["cluster"] = cluster
    if levels:
        out["levels"] = {name: list(found) for name, found in levels.items()}
    return out
