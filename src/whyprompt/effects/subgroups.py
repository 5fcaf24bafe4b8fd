"""The effect within subgroups: the whole pipeline again on each, and a test of whether they differ."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from whyprompt._words import format_number
from whyprompt.effects.checks.balance import covariate_balance
from whyprompt.effects.measures import is_binary
from whyprompt.effects.pipeline import bootstrapped, compute
from whyprompt.effects.problem import refuse_post_treatment
from whyprompt.errors import DataError, EstimationError
from whyprompt.results import Estimate, with_holm
from whyprompt.stats.influence import effective_sample_size
from whyprompt.stats.rules import SMD_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from whyprompt.effects.methods.method import Fit, Plan
    from whyprompt.effects.problem import Problem
    from whyprompt.graph.model import CausalGraph
    from whyprompt.tables import Table


# More levels than this are not subgroups; a number of that kind is to be binned by the caller.
_MANY_LEVELS = 30
# Fewer rows of an arm, and a t interval is to be trusted only if the outcome is close to normal (Moore and
# McCabe, Introduction to the Practice of Statistics, section 7.1); outcomes of language models are not.
_FEW_ROWS = 15.0
# Fewer successes or failures expected in an arm, and the normal distribution does not fit a share (Cochran
# 1954, Biometrics 10, 417-451: the expected counts of a two by two table).
_FEW_COUNTS = 5.0


def subgroup_labels(
    table: Table, by: str | Sequence[str] | None, problem: Problem, *, graph: CausalGraph | None = None
) -> dict[str, NDArray[Any]]:
    """Read the columns that make subgroups, which are known before the arm was chosen.

    Raises `DataError` if one is absent or has too many levels, `EstimationError` if it is caused by the arm
    (the graph settles the columns that it has).
    """
    names = [by] if isinstance(by, str) else list(by or ())
    refuse_post_treatment(
        names, treatment=problem.treatment_name, outcome=problem.outcome_name, table=table, graph=graph
    )
    found = {name: table.labels(name, role="subgroup") for name in names}
    for name, labels in found.items():
        if (n := len(set(labels.tolist()))) > _MANY_LEVELS:
            raise DataError(
                f"subgroup column {name!r} has {n} levels: too many to look at one by one",
                hint="bin it into a few levels first",
            )
    return found


def subgroup_effects(
    columns: Mapping[str, NDArray[Any]], problem: Problem, plan: Plan
) -> tuple[tuple[Estimate, ...], tuple[str, ...]]:
    """Estimate within each level of each column.

    Gives the parts, with an adjusted p by Holm's rule over all of them, and the names, as ``"by=label"``, of
    those whose arms have too few rows for an interval.
    """
    rows: list[Estimate] = []
    few: list[str] = []
    for name, labels in columns.items():
        for level in sorted(set(labels.tolist())):
            row, caution = _one(name, level, labels == level, problem, plan)
            rows.append(row)
            few += [part_name(row)] if caution else []
    return with_holm(rows), tuple(few)


IMPOSSIBLE = "the interval of the risk difference passes 1 or -1: the rows are too few for it"


def part_name(part: Estimate) -> str:
    """Name a subgroup by its column and level."""
    return f"{part.by}={part.label}"


def _one(
    name: str, level: str, here: NDArray[np.bool_], problem: Problem, plan: Plan
) -> tuple[Estimate, str]:
    """Estimate in one subgroup; also say why its interval is not to be believed, where it is not."""
    rows = np.flatnonzero(here)
    part = problem.take(rows)
    if problem.tie_rank is not None:
        part = replace(part, tie_rank=problem.tie_rank[rows])
    t = part.treated
    total = (int(t.sum()), int((~t).sum()))
    why = f"an arm has fewer than two rows ({total[0]} and {total[1]})" if min(total) < 2 else ""
    try:
        fit = None if why else compute(part, plan)
        if fit is not None and plan.std_error == "bootstrap":
            fit = bootstrapped(part, plan, fit)
    except EstimationError as error:
        fit, why = None, error.message
    if fit is None:
        counts: dict[str, Any] = dict(zip(("n_treated", "n_control"), total, strict=True))
        counts |= {"n_treated_used": 0, "n_control_used": 0}
        return Estimate(label=str(level), by=name, estimate=None, note=why, **counts), ""
    smd, notes = None, []
    if part.confounders:
        table = covariate_balance(part.columns, t, fit.weights, denominator=plan.denominator)
        smd = max((abs(row.smd_after) for row in table if row.smd_after is not None), default=None)
        if any(row.smd_after is None for row in table):
            notes.append("the arms do not share the values of a covariate")
        elif smd is not None and smd > SMD_LIMIT:
            notes.append(f"the arms still differ (standardised difference {format_number(smd)})")
    if fit.std_error is None and fit.warnings:
        notes.append(fit.warnings[-1])
    caution = _too_few(part.y, t, fit)
    notes += [caution] if caution else []
    found = replace(fit.row(str(level), t), by=name, largest_smd=smd, note="; ".join(notes))
    return found, caution


def _too_few(y: NDArray[np.float64], treated: NDArray[np.bool_], fit: Fit) -> str:
    """Say why an interval from so few rows is not to be believed; empty where it may be."""
    if fit.std_error is None:
        return ""
    w = fit.weights
    worth = [effective_sample_size(w[arm]) for arm in (treated, ~treated)]
    least = min(worth)
    if not is_binary(y):
        return f"an arm is worth {least:.0f} rows: too few for its interval" if least < _FEW_ROWS else ""
    risk = float(np.dot(worth, fit.means)) / sum(worth)
    if least * min(risk, 1.0 - risk) < _FEW_COUNTS:
        return f"an arm is worth {least:.0f} rows, with fewer than 5 successes or failures expected in it"
    return "; ".join(impossible_limits(y, fit))


def impossible_limits(y: NDArray[np.float64], fit: Fit) -> tuple[str, ...]:
    """Say that an interval for a difference of risks goes where no such difference can be."""
    low, high = fit.ci
    if low is None or high is None or not is_binary(y) or (low >= -1.0 and high <= 1.0):
        return ()
    return (IMPOSSIBLE,)


def heterogeneity(
    rows: Sequence[Estimate],
    few: Sequence[str],
    *,
    columns: Mapping[str, NDArray[Any]],
    cluster: NDArray[Any] | None,
) -> dict[str, float]:
    """Test for each column whether its subgroups have the same effect, by Cochran's Q.

    Its p is chi-squared with one degree of freedom less than subgroups estimated; those with too `few` rows,
    whose errors mean little, do not count. A column whose subgroups share clusters is left out: their
    estimates are then not independent.

    Reference: Cochran, W. G. (1954). The combination of estimates from different experiments. Biometrics 10,
    101-129.
    """
    from scipy import stats

    out: dict[str, float] = {}
    for name in columns:
        known = [
            (row.estimate, row.std_error)
            for row in rows
            if row.by == name
            and row.estimate is not None
            and row.std_error is not None
            and row.std_error > 0
            and part_name(row) not in few
        ]
        if len(known) < 2:
            continue
        if cluster is not None:
            labels = columns[name]
            if len(set(zip(cluster.tolist(), labels.tolist(), strict=True))) > len(set(cluster.tolist())):
                continue
        value, error = (np.array(column) for column in zip(*known, strict=True))
        share = 1.0 / error**2
        q = float(share @ (value - np.average(value, weights=share)) ** 2)
        out[name] = float(stats.chi2.sf(q, len(known) - 1))
    return out
