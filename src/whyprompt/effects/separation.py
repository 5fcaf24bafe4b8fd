"""Levels of a covariate that one arm has alone: which they are, and what can be done about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from whyprompt._words import counted
from whyprompt.stats.order import distinct
from whyprompt.stats.propensity import SeparatedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.problem import Problem

    Bools = NDArray[np.bool_]

_SHOWN = 8


class OneArmed(NamedTuple):
    """A level that occurs in one arm only: its column, its value, that arm's treated flag and its rows."""

    column: str
    level: str
    treated: bool
    n: int


def one_armed(columns: Mapping[str, NDArray[Any]], treated: Bools) -> tuple[tuple[OneArmed, ...], Bools]:
    """Find the levels of text and two-valued columns that one arm has alone, and mask their rows.

    Without those rows every level that is left has rows of both arms, also where leaving out a level of one
    column takes an arm from a level of another.
    """
    coded = {}
    for name, values in columns.items():
        levels, code = distinct(values)
        if values.dtype == object or len(levels) == 2:
            coded[name] = (levels, code)
    out = np.zeros(len(treated), dtype=bool)
    found: list[OneArmed] = []
    while True:
        before = len(found)
        for name, (levels, code) in coded.items():
            counts = [np.bincount(code[arm & ~out], minlength=len(levels)) for arm in (treated, ~treated)]
            alone = (counts[0] == 0) != (counts[1] == 0)
            found += [
                OneArmed(name, _shown(levels[k]), bool(counts[0][k] > 0), int(counts[0][k] + counts[1][k]))
                for k in np.flatnonzero(alone).tolist()
            ]
            out |= alone[code]
        if len(found) == before:
            return tuple(found), out


def _shown(value: object) -> str:
    return repr(str(value)) if isinstance(value, str) else f"{value:g}"


def explain_separation(problem: Problem, plan: Plan, error: SeparatedError) -> SeparatedError:
    """Say which levels separate the arms, the reference level among them, and what to do.

    The fit's error sees dummies and no levels; it is given back where no level of a column is at fault.
    """
    levels, rows = one_armed(problem.columns, problem.treated)
    if not levels:
        return error
    n = int(rows.sum())
    listed = _first([_words(one, problem) for one in levels])
    message = f"the propensity score is separated by levels that one arm has alone: {listed}"
    if not 0 < (problem.treated & ~rows).sum() < (~rows).sum():
        return SeparatedError(
            f"{message}; without them no row of both arms is left",
            hint="the arms share no level of these columns, so that nothing compares them: run both arms on"
            " the same kinds of items",
        )
    return SeparatedError(message, hint=_hint(levels, n, plan))


def explain_missing_arms(
    columns: Mapping[str, NDArray[Any]], labels: NDArray[Any], error: SeparatedError
) -> SeparatedError:
    """Say which levels an arm lacks where many arms are separated, and what to do.

    The error is given back where every arm has every level.
    """
    lacking: dict[str, list[str]] = {}
    for arm in np.unique(labels).tolist():
        for one in one_armed(columns, labels == arm)[0]:
            if not one.treated:
                lacking.setdefault(f"{one.column} = {one.level}", []).append(repr(arm))
    if not lacking:
        return error
    shown = [f"{level} (no row of {', '.join(arms)})" for level, arms in lacking.items()]
    return SeparatedError(
        f"the multinomial score is separated by levels that an arm lacks: {_first(shown)}",
        hint="nothing in the table says what that arm does there: leave rows of these levels out, merge"
        " levels or arms, or run the arm on such items",
    )


def _first(shown: Sequence[str]) -> str:
    return "; ".join([*shown[:_SHOWN], *([f"and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else [])])


def _words(one: OneArmed, problem: Problem) -> str:
    arm = problem.treated_level if one.treated else problem.control_level
    return f"{one.column} = {one.level} ({counted(one.n, 'row')}, all {arm!r})"


def _hint(levels: Sequence[OneArmed], n: int, plan: Plan) -> str:
    names = list(dict.fromkeys(one.column for one in levels))
    exact = f"exact={names!r}"
    text = f"leave those {counted(n, 'row')} out of the table"
    if plan.method.matches:
        text = f"match exactly on {' and '.join(names)}, {exact}, which leaves those {counted(n, 'row')} out"
    else:
        text += f", or match, which can leave them out: method='nearest' with {exact}"
    spared = {"att": False, "atc": True}.get(plan.estimand)
    if spared is not None and all(one.treated is spared for one in levels):
        text += f". The {plan.estimand.upper()} does not need them"
    return text


def without_counterpart(problem: Problem, plan: Plan) -> NDArray[np.bool_]:
    """Mask the rows that matching exactly on a column leaves without a counterpart, shape (n,).

    They cannot be matched, and a score that has the column among its covariates has no estimate with them.
    """
    by_score = plan.method.matches and plan.method.by_score
    by_score &= plan.score_model is None and problem.known_score is None
    both = {name: problem.columns[name] for name in problem.exact if name in problem.columns}
    if not by_score or not both:
        return np.zeros(len(problem.y), dtype=bool)
    return one_armed(both, problem.treated)[1]
