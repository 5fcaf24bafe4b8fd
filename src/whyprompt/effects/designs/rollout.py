"""A prompt that changed on a date: on every route at once, or on some before others.

The table settles what stands for the change that did not happen: routes that were not changed, or not yet;
with none of them the trend of the one series before it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from whyprompt._arguments import MOST_DRAWS, at_least, confidence, seed
from whyprompt.effects.designs.columns import drawn
from whyprompt.effects.designs.interrupted import interrupted_series
from whyprompt.effects.designs.rows import read_rollout
from whyprompt.effects.designs.untouched import against_untouched
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whyprompt.effects.result import EffectResult
    from whyprompt.tables import Table


def rollout_effect(
    table: Table,
    *,
    outcome: str,
    time: str,
    treatment: str | None = None,
    unit: str | None = None,
    changed: object | Mapping[str, object] | None = None,
    period: float = 1.0,
    leads: int = 3,
    trend: str = "linear",
    confounders: Sequence[str] | None = None,
    treated: object | None = None,
    control: object | None = None,
    base_levels: Mapping[str, str] | None = None,
    level: float = 0.95,
    std_error: str = "auto",
    draws: int = 999,
    random_state: int = 0,
) -> EffectResult:
    """Estimate what a change of prompt on a date did to the rows after it.

    Arguments and what is raised as in `estimate_effect` with ``design="rollout"``.
    """
    confidence(level)
    at_least(leads, 0, "leads", most=100)
    at_least(draws, 99, "draws", most=MOST_DRAWS)
    seed(random_state)
    if trend not in {"linear", "none"}:
        raise EstimationError(f"trend={trend!r} is not known", hint="'linear' or 'none'")
    if std_error not in {"auto", "jackknife", "permutation"}:
        raise EstimationError(
            f"standard error {std_error!r} is not known with design='rollout'",
            hint="one of: auto, jackknife, permutation",
        )
    rows = read_rollout(
        table,
        treatment=treatment,
        outcome=outcome,
        time=time,
        unit=unit,
        changed=changed,
        period=period,
        confounders=confounders,
        arms=(treated, control),
        base_levels=base_levels,
    )
    alike = len(set(rows.change.tolist())) == 1
    if not alike:
        found = against_untouched(
            rows, leads=leads, level=level, std_error=std_error, draws=draws, random_state=random_state
        )
    elif std_error != "auto":
        raise EstimationError(
            f"std_error={std_error!r} is of routes, and none is unchanged here", hint="leave it out"
        )
    else:
        found = interrupted_series(rows, trend=trend, level=level)
    told = {"time": time, "period": period} | ({} if unit is None else {"unit": unit})
    told |= {"trend": trend} if alike else {}
    made = replace(found, settings={**told, **found.settings})

    def events() -> Any:  # noqa: ANN401 - a chart
        from whyprompt.charts import event_plot

        return event_plot(made, title=made.axis)

    return drawn(made, events=events)
