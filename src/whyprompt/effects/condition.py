"""What an effect rests on where chance did not decide the arm, in the words of its first sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt._words import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

# An `EffectResult`, whose first sentence has it: to import it here would close a circle.
_Effect = Any
# Columns that a sentence names; results have them all.
_NAMED = 12


def condition(result: _Effect) -> str:
    """Say what the sentence hangs on, by the design; "" where an arm was drawn or items had both."""
    names = {a.name for a in result.assumptions}
    if result.items is not None or all(a.status != "untestable" for a in result.assumptions):
        return ""
    if "exclusion" in names:
        return (
            f", if {result.settings['instrument']!r} is as good as drawn by lot, changes the outcome only"
            " through the prompt used, and makes no row do the opposite"
        )
    if "full mediation" in names:
        through = _listed(result.settings["mediators"], "mediators")
        return (
            f", if the prompt acts through {through} alone and nothing unmeasured affects that together with"
            " the prompt or with the outcome"
        )
    if "parallel trends" in names:
        return ", if routes without the change show how the others would have gone on"
    if "nothing else changed" in names:
        return ", if nothing else changed on that date and what came before would have gone on"
    known = f" but {_listed(result.confounders, 'confounders adjusted for')}" if result.confounders else ""
    return f", if nothing{known} affects both the choice of prompt and the outcome"


def all_there_is(confounders: Sequence[str]) -> str:
    """Say on what an effect rests that was adjusted for; of many columns the first are named.

    >>> all_there_is(["length"])
    'if length is all that affects both the choice of arm and the outcome'
    """
    named, are = listed(confounders, most=_NAMED), "is" if len(confounders) == 1 else "are"
    return f"if {named} {are} all that affects both the choice of arm and the outcome"


def _listed(names: Sequence[str], what: str) -> str:
    return f"the {len(names)} {what}" if len(names) > 2 else " and ".join(map(repr, names))
