"""Levels of a covariate that one arm has alone: which they are, and what can be done about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from whyprompt._words import counted
from whyprompt.effects.methods.learners import LOGIT
from whyprompt.stats.order import distinct
from whyprompt.stats.propensity import SeparatedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.problem import Problem

    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

_SHOWN = 8


class Arms(Protocol):
    """What knows the names of the two arms."""

    @property
    def treated_level(self) -> str:
        """Name of the treated arm."""

    @property
    def control_level(self) -> str:
        """Name of the control arm."""


class OneArmed(NamedTuple):
    """A level that occurs in one arm only: its column, its value, that arm's treated flag and its rows."""

    column: str
    level: str
    treated: bool
    n: int


def one_armed(
    columns: Mapping[str, NDArray[Any]], treated: Bools, *, arm: bool | None = None
) -> tuple[tuple[OneArmed, ...], Bools]:
    """Find the levels of text and two-valued columns that one arm has alone, and mask their rows.

    `arm` looks for those of the treated (True) or of the control arm (False) only.

    Without those rows every level that is left has rows of both arms, also where leaving out a level of one
    column takes an arm from a level of another.
    """
    coded = {}
    for name, values in columns.items():
        levels, code = distinct(values)
        if values.dtype == object or len(levels) == 2:
            coded[name] = (levels, code)
    out = np.zeros(len(treated), dtype=bool)

    def counts(name: str) -> tuple[list[Any], Ints, Ints]:
        levels, code = coded[name]
        one, none = (np.bincount(code[a & ~out], minlength=len(levels)) for a in (treated, ~treated))
        return levels, one, none

    def leave_out(name: str, alone: Bools) -> None:
        out[alone[coded[name][1]]] = True

    return levels_of_one_arm(tuple(coded), counts, leave_out, arm=arm), out


def levels_of_one_arm(
    names: Sequence[str],
    counts: Callable[[str], tuple[list[Any], Ints, Ints]],
    leave_out: Callable[[str, Bools], None],
    *,
    arm: bool | None = None,
) -> tuple[OneArmed, ...]:
    """Find what `one_armed` does, of rows that `counts` counts and `leave_out` takes away.

    The first gives a column's levels, and how many treated and control rows that are left have each; the
    second takes those of a mask of the levels away.
    """
    found: list[OneArmed] = []
    while True:
        before = len(found)
        for name in names:
            levels, one, none = counts(name)
            sides = [(one > 0) & (none == 0), (one == 0) & (none > 0)]
            alone = sides[0] | sides[1] if arm is None else sides[not arm]
            found += [
                OneArmed(name, _shown(levels[k]), bool(one[k] > 0), int(one[k] + none[k]))
                for k in np.flatnonzero(alone).tolist()
            ]
            leave_out(name, alone)
        if len(found) == before:
            return tuple(found)


def _shown(value: object) -> str:
    return repr(str(value)) if isinstance(value, str) else f"{value:g}"


def explain_separation(problem: Problem, plan: Plan, error: SeparatedError) -> SeparatedError:
    """Say which levels separate the arms, the reference level among them, and what to do.

    The fit's error sees dummies and no levels; it is given back where no level of a column is at fault.
    """
    levels, rows = one_armed(problem.columns, problem.treated)
    left = (int((problem.treated & ~rows).sum()), int((~problem.treated & ~rows).sum()))
    return explained(levels, left, problem, plan, error)


def explained(
    levels: Sequence[OneArmed], left: tuple[int, int], arms: Arms, plan: Plan, error: SeparatedError
) -> SeparatedError:
    """Say what `explain_separation` does of levels; `left` are rows of either arm without them."""
    if not levels:
        return error
    n = sum(one.n for one in levels)
    listed = _first([_words(one, arms) for one in levels])
    message = f"the propensity score is separated by levels that one arm has alone: {listed}"
    if not all(left):
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


def _words(one: OneArmed, arms: Arms) -> str:
    arm = arms.treated_level if one.treated else arms.control_level
    return f"{one.column} = {one.level} ({counted(one.n, 'row')}, all {arm!r})"


def _hint(levels: Sequence[OneArmed], n: int, plan: Plan) -> str:
    names = list(dict.fromkeys(one.column for one in levels))
    exact = f"exact={names!r}"
    text = f"leave those {counted(n, 'row')} out of the table"
    if plan.method.matches:
        text = f"match exactly on {' and '.join(names)}, {exact}, which leaves those {counted(n, 'row')} out"
    else:
        text += f", or match, which can leave them out: method='nearest' with {exact}"
    return f"{text}; method='aipw' has a penalised score, which no level separates"


def refuse_apart(problem: Problem, plan: Plan) -> None:
    """Refuse arms that share no level of a column: a penalised score would compare them all the same."""
    if not plan.method.by_score or problem.known_score is not None:
        return
    for name, values in problem.columns.items():
        if one_armed({name: values}, problem.treated)[1].all():
            raise explain_separation(problem, plan, SeparatedError(f"the arms share no level of {name!r}"))


def by_logit(plan: Plan, *, known: bool) -> bool:
    """Whether a plan estimates a logistic score, which levels of one arm alone leave without an estimate."""
    if not plan.method.by_score or known:
        return False
    return plan.score_model == LOGIT or (plan.score_model is None and plan.method.score == "logistic")


def without_counterpart(problem: Problem, plan: Plan) -> tuple[tuple[OneArmed, ...], Bools]:
    """Mask the rows that the estimate does not need and a logistic score has no estimate with, shape (n,).

    They are of levels that one arm has alone: where rows are matched exactly on the column, which leaves them
    out; those of the control arm for the ATT, to which they add nothing, those of the treated arm for the
    ATC, and both for the ATO. The levels of the latter come with them.
    """
    out = np.zeros(len(problem.y), dtype=bool)
    if not by_logit(plan, known=problem.known_score is not None):
        return (), out
    both = {name: problem.columns[name] for name in problem.exact if name in problem.columns}
    if both and plan.method.matches:
        out = one_armed(both, problem.treated)[1]
    if plan.estimand == "ate":
        return (), out
    rest = {name: values[~out] for name, values in problem.columns.items()}
    spare = {"att": False, "atc": True}.get(plan.estimand)
    levels, rows = one_armed(rest, problem.treated[~out], arm=spare)
    if not 0 < (problem.treated[~out] & ~rows).sum() < (~rows).sum():
        # Nothing would be left to compare: the fit says why.
        return (), out
    out[np.flatnonzero(~out)[rows]] = True
    return levels, out


def spared_words(levels: Sequence[OneArmed], arms: Arms, estimand: str) -> tuple[str, ...]:
    """Say which levels were put aside because the estimand does not need them."""
    if not levels:
        return ()
    n = sum(one.n for one in levels)
    listed = _first([_words(one, arms) for one in levels])
    put = "is" if n == 1 else "are"
    text = f"{counted(n, 'row')} of levels that one arm has alone {put} put aside, which"
    return (f"{text} the {estimand.upper()} does not need: {listed}",)
