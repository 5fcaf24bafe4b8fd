"""Logged chances of the arms that rows got: whether they fit, and what of the rows they leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt._words import format_number
from whyprompt.effects.caused import name_words
from whyprompt.effects.logged import CALLED, FAR, chances_in
from whyprompt.errors import DataError
from whyprompt.results import Assumption

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from whyprompt.effects.several import EffectsResult
    from whyprompt.tables import Table

    Floats = NDArray[np.float64]

# Where an arm has next to no chance, and the share of such rows that overlap bears (as in `judge_overlap`).
_NONE, _FEW, _MANY, _LOW_ESS = 0.01, 0.01, 0.10, 0.2
# Of an arm's weight, that one row may carry.
_HEAVY = 0.05
# Above it intervals of chances that followed earlier outcomes were measured to hold.
_FLOOR, _NEXT_TO_NONE = 0.02, 0.001


def own_chances(table: Table, name: str) -> Floats:
    """Read the chance with which each row got the arm that it got."""
    table.require([name], role="propensity")
    own = table.numbers(name, role="propensity")
    if not bool(((own > 0) & (own <= 1)).all()):
        raise DataError(
            f"propensity column {name!r} must lie above 0 and at most at 1",
            hint="it is the chance of the arm that a row got: a row that had none has not got it",
        )
    return own


def near_none(own: Floats, arms: Sequence[str]) -> tuple[str, ...]:
    """Say where chances of the arms that rows got come near 0, theirs or what they leave to others."""
    least = min(float(own.min()), float(1.0 - own.max()) / (len(arms) - 1))
    if least >= _FLOOR:
        return ()
    size = format_number(least, digits=2) if least >= _NEXT_TO_NONE else "under 0.001"
    said = (
        f"the chance of an arm falls to {size}: if the chances followed earlier outcomes, intervals are too"
        " narrow and lean to one side (at 95% they held the truth in 74% to 97% of simulated logs of Thompson"
        f" sampling; in 93% to 96% where no chance fell below {_FLOOR:g})"
    )
    return (said,)


def unused_chances(
    table: Table, labels: NDArray[Any], arms: Sequence[str], used: Collection[str]
) -> tuple[str, ...]:
    """Say of columns that plainly hold the chances of the arms that rows got that they are not used."""
    out = []
    for name in table.columns:
        if "_".join(name_words(name)) not in CALLED or name in used:
            continue
        own = chances_in(table, name)
        if own is not None and own_fit(own, labels, arms).status == "holds":
            out.append(
                f"{name!r} looks like the chances with which rows got their arms, and is not used:"
                f" propensity={name!r} takes them"
            )
    return tuple(out)


def own_fit(own: Floats, labels: NDArray[Any], arms: Sequence[str]) -> Assumption:
    """Judge whether rows are those that the chances of their arms lead to expect.

    One over the chance sums, over an arm's rows, to all rows, if all had a chance of it, and to less if some
    had none: never to more. And what chances above a half leave to the other arms must have come to them.
    """
    far = []
    for arm in arms:
        weight = 1.0 / own[labels == arm]
        more = float(weight.sum()) - len(own)
        if more > FAR * np.sqrt(float(weight @ (weight - 1.0))):
            far.append(
                f"the {len(weight)} rows of {arm!r} would stand for {weight.sum():.0f} of {len(own)} rows"
            )
    likely = own > 0.5
    rest = np.where(likely, 1.0 / own - 1.0, -1.0)
    if not far and float(rest.sum()) > FAR * float(np.linalg.norm(rest)):
        far.append(
            f"by those above a half {rest[likely].sum():.0f} rows would have got another arm, and"
            f" {(~likely).sum()} had a chance of a half or less"
        )
    return Assumption(
        name="logged chances",
        status="fails" if far else "holds",
        check=f"rows of each arm against what their chances lead to expect, limit {FAR:g} standard errors",
        detail=f"the chances are not those of the arms that rows got: {'; '.join(far)}"
        if far
        else "the chances fit the arms that rows got",
    )


def own_overlap(own: Floats, labels: NDArray[Any], result: EffectsResult) -> Assumption:
    """Judge overlap by the chances of the arms that rows got.

    Fails where in more than 10% of the rows an arm had a chance of 1% at most; doubtful above 1%, where an
    arm's weights are worth less than a fifth of its rows, or one row carries more than a twentieth of them.
    Of two arms the other's chance is what is left of one's own. Of more it is at most that; and one over the
    chance, summed over an arm's rows with a chance above 1%, falls short of all rows by those that had no
    more, from which three standard errors are taken.
    """
    arms = [mean.label for mean in result.means]
    n = len(own)
    sure = own >= (1.0 - _NONE) * (1 - 1e-9)
    shares: dict[str, float] = {}
    remarks: list[str] = []
    doubtful = False
    for arm in arms:
        here = labels == arm
        share = float((sure & ~here).mean())
        if len(arms) > 2:
            weight = 1.0 / own[here & (own > _NONE * (1 + 1e-9))]
            stand = float(weight.sum())
            # Of a sum that falls short the spread does too.
            spread = np.sqrt(float(weight @ (weight - 1.0)) * max(1.0, n / stand if stand else 1.0))
            share = max(share, (n - stand - 3.0 * float(spread)) / n)
        shares[arm] = share
        heaviest = float((1.0 / own[here]).max() / (1.0 / own[here]).sum())
        worth = result.ess[arm] / int(here.sum())
        if heaviest > _HEAVY:
            doubtful = True
            remarks.append(f"one row carries {heaviest:.0%} of the weight of {arm!r}")
        elif worth < _LOW_ESS:
            doubtful = True
            remarks.append(f"the weights of {arm!r} are worth {worth:.0%} of its rows")
    if len(arms) == 2:
        shares = dict.fromkeys(arms, float(sure.mean()))
    worst = max(shares, key=lambda arm: shares[arm])
    share = shares[worst]
    which = "an arm" if len(arms) == 2 else f"arm {worst!r}"
    text = f"in {share:.1%} of the rows {which} had a chance of {_NONE:.0%} at most"
    return Assumption(
        name="overlap",
        status="fails" if share > _MANY else "doubtful" if share > _FEW or doubtful else "holds",
        check="logged chances: rows in which an arm had next to none, and what each arm's weights are worth",
        detail="; ".join([text, *remarks]),
    )
