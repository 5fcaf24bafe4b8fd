"""Chances with which a log says that its arms were drawn: whether they fit, and where they lie unused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.effects.caused import name_words
from whyprompt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.problem import Problem
    from whyprompt.tables import Table

    Floats = NDArray[np.float64]

# What the field calls chances: of experiments, of bandits and of off-policy evaluation.
CALLED = {
    *("propensity", "propensity_score", "pscore", "propensities"),
    *("logging_probability", "logging_prob", "logging_propensity", "logged_propensity", "logged_probability"),
    *("action_probability", "action_prob", "arm_probability", "arm_prob", "behavior_probability"),
    *(
        "behaviour_probability",
        "behavior_prob",
        "behaviour_prob",
        "assignment_probability",
        "assignment_prob",
    ),
    *("treatment_probability", "treatment_prob", "probability_treated", "prob_treated", "p_treated"),
    *("policy_probability", "policy_prob", "sampling_probability", "sampling_prob"),
}
# Standard errors between the arms dealt and those that the chances lead to expect, beyond all chance.
FAR = 5.0


def propensity_notes(
    table: Table, problem: Problem, named: str | None, used: Collection[str]
) -> tuple[str, ...]:
    """Say where known chances do not fit the arms, or where a column that plainly holds them is not used.

    `named` is the column that was given, None where none was; `used` are columns with another role.
    """
    treated = problem.treated

    def distances(name: str) -> tuple[float, float] | None:
        chance = problem.known_score if name == named else chances_in(table, name)
        if chance is None:
            return None
        return _distance(chance, treated), _distance(_of_treated(chance, treated), treated)

    return notes_by_distance(table.columns, problem.treated_level, named, used, distances)


def notes_by_distance(
    columns: Sequence[str],
    treated_level: str,
    named: str | None,
    used: Collection[str],
    distances: Callable[[str], tuple[float, float] | None],
) -> tuple[str, ...]:
    """Say what `propensity_notes` does, by how far chances are from the arms.

    `distances` gives, of a column of chances, that of the chances of the treated arm and of the arm that each
    row got; None of any other column.
    """
    if named is not None:
        found = distances(named)
        return () if found is None else _misfit(named, *found)
    out: list[str] = []
    for name in columns:
        if "_".join(name_words(name)) not in CALLED or name in used:
            continue
        found = distances(name)
        if found is None:
            continue
        what = f"{name!r} looks like the chances with which the arms were drawn, and is not used"
        if found[0] < FAR:
            out.append(f"{what}: propensity={name!r} takes them")
        elif found[1] < FAR:
            out.append(
                f"{what}: they fit the arms as the chance of the arm that each row got; propensity= takes a"
                f" column with that of {treated_level!r}, which is one minus it for the other rows"
            )
    return tuple(out)


def chances_in(table: Table, name: str) -> Floats | None:
    """Read a column of chances strictly between 0 and 1, or None where it holds none."""
    try:
        values = table.numbers(name, role="propensity")
    except DataError:
        return None
    return values if bool(((values > 0) & (values < 1)).all()) else None


def _of_treated(chance: Floats, treated: NDArray[np.bool_]) -> Floats:
    """Turn the chance of the arm that a row got into that of the treated arm."""
    return np.where(treated, chance, 1.0 - chance)


def of_the_treated(chance: Floats, treated: NDArray[np.bool_]) -> bool:
    """Say whether chances fit as those of the treated arm in every row, and not of each row's own."""
    own = _of_treated(chance, treated)
    return _distance(own, treated) >= FAR > _distance(chance, treated)


def _distance(chance: Floats, treated: NDArray[np.bool_]) -> float:
    """How far the treated rows are from what the chances lead to expect, in standard errors.

    In number, and in how it grows with the chance.
    """
    apart, variance = treated - chance, chance * (1.0 - chance)
    found = []
    for weight in (np.ones(len(chance)), chance - chance.mean()):
        spread = float(np.sqrt(variance @ weight**2))
        found.append(abs(float(apart @ weight)) / spread if spread > 0 else 0.0)
    return max(found)


def _misfit(name: str, far: float, turned: float) -> tuple[str, ...]:
    if far < FAR:
        return ()
    text = (
        f"the chances in {name!r} are not those of the treated arm: its rows are"
        f" {far:.0f} standard errors from what they lead to expect"
    )
    return (text + ("; they fit as those of the arm that each row got" if turned < FAR else ""),)
