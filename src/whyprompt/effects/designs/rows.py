"""The rows of a change on a date: in periods counted from it, each with its route, and every refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from whyprompt._words import counted
from whyprompt.effects.designs.columns import read_covariates, read_outcome, spare_note
from whyprompt.effects.designs.dates import (
    changes_given,
    changes_seen,
    date_words,
    read_arm,
    read_times,
    refuse_disagreement,
)
from whyprompt.errors import DataError, EstimationError
from whyprompt.tables import rows_of_two_arms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.tables import Table

    Floats = NDArray[np.float64]

_ROUNDING = 1e-9


class Rollout(NamedTuple):
    """Rows with their period and route, in the table's order but without those put aside.

    Periods are counted from the first change; `change` is the period of each route's, infinite for none.
    """

    treatment: str
    outcome: str
    names: tuple[str, str]
    unit: str | None
    routes: tuple[str, ...]
    route: NDArray[np.intp]
    period: Floats
    change: Floats
    dates: tuple[str, ...]  # of each route's change, in words; empty for none
    named: bool  # whether a column says the arm
    y: Floats
    confounders: tuple[str, ...]
    x: Floats
    warnings: tuple[str, ...]

    @property
    def after(self) -> NDArray[np.bool_]:
        """The rows at or after their route's change."""
        return np.asarray(self.period >= self.change[self.route], dtype=bool)


def read_rollout(
    table: Table,
    *,
    treatment: str | None,
    outcome: str,
    time: str,
    unit: str | None,
    changed: object | Mapping[str, object] | None,
    period: float,
    confounders: Sequence[str] | None,
    arms: tuple[object | None, object | None],
    base_levels: Mapping[str, str] | None,
) -> Rollout:
    """Read and check everything; rows of other arms and of a period that is changed in part go aside."""
    table.require([outcome], role="outcome")
    if treatment is not None:
        table.require([treatment], role="treatment")
    if not (isinstance(period, int | float) and np.isfinite(period) and period > 0):
        raise EstimationError(f"period={period!r} is no length of time", hint="a number of days, 7 for weeks")
    warnings: list[str] = []
    if treatment is not None and arms[0] is not None and arms[1] is not None:
        here = rows_of_two_arms(table, treatment, treated=arms[0], control=arms[1])
        if here is not None:
            warnings.append(f"{int((~here).sum())} rows of other arms are put aside")
            table = table.keep(here)
    given, names = read_arm(table, treatment, *arms)
    if given is None and changed is None:
        raise EstimationError(
            "design='rollout' needs to know when the prompt changed",
            hint="name the treatment, whose new arm begins at the change, or give changed='2025-03-01'",
        )
    for name, role in ((time, "time"), (unit, "unit")):
        if name is not None and name in {treatment, outcome, *(confounders or ())}:
            raise EstimationError(f"{name!r} is the {role}, and cannot be anything else as well")
    times, dated = read_times(table, time)
    labels = None if unit is None else table.labels(unit, role="unit")
    routes, route = (
        (np.array(["all rows"], dtype=object), np.zeros(table.n_rows, dtype=np.intp))
        if labels is None
        else np.unique(labels.astype(object), return_inverse=True)
    )
    known = [str(name) for name in routes]
    if changed is None:
        assert given is not None
        moments = changes_seen(times, given, route, len(known))
        step = min(period, 1.0)
        anchor = np.floor(moments.min() / step + _ROUNDING) * step
    else:
        moments = changes_given(changed, known, dated=dated, unit=unit)
        anchor = float(moments.min())
    if not np.isfinite(anchor):
        raise EstimationError("changed= gives no route a date", hint="give the date of one that was changed")
    place = np.floor((times - anchor) / period + _ROUNDING)
    change = np.floor((moments - anchor) / period + _ROUNDING)
    after = times >= moments[route]
    if given is not None and changed is None:
        after = given | (place > change[route])
    partial = (place == change[route]) & ~after
    if given is not None:

        def which(row: int) -> str:
            day = (
                date_words(float(moments[route[row]]), dated=dated)
                if np.isfinite(moments[route[row]])
                else ""
            )
            what = "the change" if unit is None else f"the change of {unit} {known[route[row]]!r}"
            return f"{what} ({day})" if day else f"{what}, which never came"

        refuse_disagreement(given | partial, after | partial, names, which)
    # A change later than every row of its route has not come yet.
    last = np.full(len(known), -np.inf)
    np.maximum.at(last, route[~partial], place[~partial])
    change = np.where(change > last, np.inf, change)
    _refuse_one_sided(place[~partial], route[~partial], change, known, unit, time)
    chosen, _, x, spare = read_covariates(
        table, confounders, treatment=treatment or "", outcome=outcome, base_levels=base_levels
    )
    y = read_outcome(table, outcome)
    if partial.any():
        warnings.append(
            f"{counted(int(partial.sum()), 'row')} of the period of a change, before it, are put aside"
        )
    kept = ~partial
    return Rollout(
        treatment=treatment or "prompt",
        outcome=outcome,
        names=names,
        unit=unit,
        routes=tuple(known),
        route=route[kept],
        period=place[kept],
        change=change,
        dates=tuple(
            date_words(float(anchor + k * period if changed is None else m), dated=dated)
            if np.isfinite(k)
            else ""
            for k, m in zip(change, moments, strict=True)
        ),
        named=given is not None,
        y=y[kept],
        confounders=chosen,
        x=x[kept],
        warnings=(*warnings, *spare_note(spare)),
    )


def _refuse_one_sided(
    place: Floats, route: NDArray[np.intp], change: Floats, routes: Sequence[str], unit: str | None, time: str
) -> None:
    """Refuse routes without rows before their change, and a table without rows after any."""
    if not np.isfinite(change).any():
        raise EstimationError(
            f"no row lies at or after the change, by column {time!r}",
            hint="give the rows after it, or correct changed=",
        )
    first = np.full(len(routes), np.inf)
    np.minimum.at(first, route, place)
    early = [name for name, begin, when in zip(routes, first, change, strict=True) if begin >= when]
    if not early:
        return
    if unit is None:
        raise EstimationError(
            f"no row lies before the change, by column {time!r}",
            hint="give the rows before it, or correct changed=",
        )
    listed = ", ".join(map(repr, early[:4])) + (f" and {len(early) - 4} more" if len(early) > 4 else "")
    raise DataError(
        f"{unit!r} {listed} {'has' if len(early) == 1 else 'have'} no row before the change: what it would"
        " have been without it cannot be known",
        hint="give its rows from before, or leave its rows out",
    )
