"""The designs that have an estimator of their own, by name: options that one has not are refused by name."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from whyprompt.effects.designs.front_door import front_door_effect
from whyprompt.effects.designs.instrument import instrument_effect
from whyprompt.effects.designs.rollout import rollout_effect
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from whyprompt.effects.result import EffectResult
    from whyprompt.tables import Table

_DESIGNS: dict[str, tuple[Callable[..., EffectResult], str]] = {
    "instrument": (instrument_effect, "where two-stage least squares is the method"),
    "front_door": (front_door_effect, "where the mediators are what is regressed"),
    "rollout": (rollout_effect, "where routes are compared over time"),
}
DESIGNS = tuple(_DESIGNS)

# Arguments of every design, or of none: what is no option of a design alone.
_SHARED = frozenset(
    ("treatment", "outcome", "confounders", "graph", "treated", "control", "cluster", "level", "std_error")
) | {"unit", "base_levels", "draws", "random_state"}
# What says nothing, since it is the default of `estimate_effect`.
_IDLE = {"std_error": "auto", "denominator": "pooled", "random_state": 0}


def _takes(design: str) -> Mapping[str, inspect.Parameter]:
    parameters = inspect.signature(_DESIGNS[design][0]).parameters
    return {name: one for name, one in parameters.items() if name != "table"}


def design_options(design: str) -> dict[str, str]:
    """Give what a design takes that no other analysis does, each with what it is written as.

    >>> design_options("instrument")
    {'instrument': 'text'}
    """
    written = {name: str(one.annotation) for name, one in _takes(design).items() if name not in _SHARED}
    kinds = (("Mapping", "dates"), ("Sequence", "columns"), ("float", "number"), ("int", "count"))
    return {name: next((k for start, k in kinds if start in kind), "text") for name, kind in written.items()}


def study_options(design: str) -> dict[str, str]:
    """Give what a study says of a design beside its arms, outcome and confounders, as `design_options` does.

    >>> study_options("rollout")["unit"], "level" in study_options("rollout")
    ('text', False)
    """
    takes = _takes(design)
    further = {"unit": "text", "std_error": "text", "draws": "count"}
    return design_options(design) | {name: kind for name, kind in further.items() if name in takes}


def refuse_options(design: str, given: Mapping[str, object]) -> None:
    """Refuse what a study's design has not, and one without what it needs."""
    known = study_options(design)
    for name in given:
        if name not in known:
            raise EstimationError(f"{design} has no option {name!r}", hint=f"it has {', '.join(known)}")
    for name in known:
        if _takes(design)[name].default is inspect.Parameter.empty and given.get(name) is None:
            raise EstimationError(f"{design} needs {name!r}, the name of a column", hint="name it")


def refuse_foreign_options(design: str, asked: Mapping[str, Any]) -> None:
    """Refuse an option of one of the designs where another was named."""
    for other in DESIGNS:
        mine = () if design not in DESIGNS else _takes(design)
        for name in design_options(other):
            if asked.get(name) is not None and name not in mine:
                raise EstimationError(
                    f"{name}= has no meaning with design={design!r}: it is of design={other!r}",
                    hint=f"design={other!r}, or leave it out",
                )


def design_effect(table: Table, design: str, asked: Mapping[str, Any]) -> EffectResult:
    """Estimate by the design of that name; what it does not take is refused by name.

    Raises as `estimate_effect`.
    """
    function, why = _DESIGNS[design]
    takes = _takes(design)
    given = {
        name: value
        for name, value in asked.items()
        if value is not None and not (isinstance(value, list | tuple | dict) and not value)
    }
    refuse_foreign_options(design, given)
    foreign = [name for name in given if name not in takes and given[name] != _IDLE.get(name)]
    if foreign:
        one = len(foreign) == 1
        raise EstimationError(
            f"{', '.join(f'{name}=' for name in foreign)} {'has' if one else 'have'} no meaning with"
            f" design={design!r}, {why}",
            hint=f"leave {'it' if one else 'them'} out",
        )
    for name, parameter in takes.items():
        if parameter.default is parameter.empty and name not in given:
            raise EstimationError(
                f"design={design!r} needs {name}=, the name of a column", hint="name a column of the table"
            )
    return function(table, **{name: value for name, value in given.items() if name in takes})
