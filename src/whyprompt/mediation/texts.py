"""Natural effects of a text that was set, from outcomes under both prompts with either arm's text."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict, cast

import numpy as np

from whyprompt._words import counted, percent
from whyprompt.mediation.intervals import interval_words, mean_interval, share_interval
from whyprompt.mediation.measured.mediate import estimate_of_draws
from whyprompt.mediation.measured.paired_fits import bootstrap, effects_of_pairs, fitted
from whyprompt.results import Estimate, Result, with_holm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.mediation.measured.pairs_of_items import ItemPairs

    Array = NDArray[np.float64]

Worlds = tuple["Array", "Array", "Array", "Array"]
"""Outcomes by item, each (items,): Y(1, M(1)), Y(1, M(0)), Y(0, M(1)), Y(0, M(0)), the prompt's arm first."""


def text_effects(
    worlds: Mapping[str, Worlds],
    *,
    clusters: Sequence[str],
    outcome: str,
    treated: str,
    control: str,
    level: float = 0.95,
) -> Result:
    """Total effect, NIE and NDE of each text that was set, with bootstrap-t intervals over the items.

    Parameters
    ----------
    worlds : mapping of str to four arrays, each of shape (items,)
        By what of the text was set: outcomes under the treated prompt with its own text and with it set to
        the control's, then under the control prompt with it set to the treated's and with its own. The first
        and the last are the same in all of them.
    clusters : sequence of str
        Sampling units.
    outcome, treated, control : str
        Their names.
    level : float, default 0.95

    Returns
    -------
    Result
        `overall` is the total effect. Parts "nie", "nde", "pure_nie", "total_nde" and "proportion", NIE over
        TE, `by` what was set. TE = NIE + NDE = pure NIE + total NDE, item by item.
    """
    first = next(iter(worlds.values()))
    binary = all(bool(np.isin(y, (0.0, 1.0)).all()) for world in worlds.values() for y in world)
    options: _Options = {"cluster": clusters, "level": level, "binary": binary}
    total = _mean("total_effect", "", first[0] - first[3], options)
    parts = []
    for name, (y11, y10, y01, y00) in worlds.items():
        effects = {"nie": y11 - y10, "nde": y10 - y00, "pure_nie": y01 - y00, "total_nde": y11 - y01}
        parts += [_mean(label, name, values, options) for label, values in effects.items()]
        parts.append(_share(name, effects["nie"], y11 - y00, options))
    made = Result(
        overall=total,
        parts=tuple(parts),
        level=level,
        sentence="",
        axis=f"effect on {outcome}",
        figures={"items": len(first[0]), "units": len(set(clusters)), "set": tuple(worlds)},
    )
    return replace(made, sentence=_sentence(made, outcome, treated, control))


class _Options(TypedDict):
    """Of every interval; of outcomes of 0 and 1, effects that are alike in all items say little of others."""

    cluster: Sequence[str]
    level: float
    binary: bool


def _mean(label: str, by: str, values: Array, options: _Options) -> Estimate:
    return replace(mean_interval(values, **options), label=label, by=by)


def _share(name: str, nie: Array, te: Array, options: _Options) -> Estimate:
    low, high = share_interval(nie, te, **options)
    if np.isinf([low, high]).all():
        why = "the total effect is not told from zero, and a share of nothing is no number"
        return Estimate(label="proportion", by=name, estimate=None, note=why)
    share = float(nie.mean() / te.mean())
    return Estimate(label="proportion", by=name, estimate=share, ci_low=low, ci_high=high, n_used=len(te))


_DONE = {
    "chain": "the whole chain replaced by that of the other arm",
    "length": "the chain cut, or padded with dots, to as many tokens as the other arm's has",
    "format": "the chain's steps written in the format of the other arm's",
}


def _said(row: Estimate) -> str:
    return f"{row.estimate:.3g} ({interval_words(*row.ends)})"


def _sentence(made: Result, outcome: str, treated: str, control: str) -> str:
    total = made.overall
    assert total is not None
    span = interval_words(*total.ends, percent(made.level))
    begin = f"{treated!r} in place of {control!r} changes {outcome} by {total.estimate:.3g} ({span})"
    text = [f"{begin}, over {counted(made['items'], 'item')}, each run again with its chain set."]
    for name in made["set"]:
        nie, nde, pure = (made.part(label, by=name) for label in ("nie", "nde", "pure_nie"))
        share = made.part("proportion", by=name)
        of = "" if share.estimate is None else f", {share.estimate:.0%} of the effect"
        text.append(
            f"With {_DONE.get(name, name)}, {_said(nie)} of that is gone under {treated!r}{of} (NIE), and "
            f"{_said(nde)} stays (NDE); under {control!r} it adds {_said(pure)} (pure NIE)."
        )
    text.append(
        "Nothing is assumed about the chain, which was set; what is uncertain is which items were drawn."
    )
    if "length" in made["set"]:
        text.append(
            "A chain cannot be shortened without losing what it says: dots added to the shorter chain are "
            "length alone, and cutting the longer one takes content too."
        )
    return " ".join(text)


def beside(
    pairs: ItemPairs,
    worlds: Mapping[str, Worlds],
    *,
    interaction: bool = True,
    level: float = 0.95,
    draws: int = 2000,
    random_state: int = 0,
) -> Result:
    """Hold the NIE of measured mediators against that of setting them, on the same items.

    Parameters
    ----------
    pairs : ItemPairs
        Whose mediators have the names of what was set, in the order of the items of `worlds`.
    worlds : mapping
        As of `text_effects`.
    interaction, level, draws, random_state
        As of `paired_mediation`; the same draws of items are used for both sides.

    Returns
    -------
    Result
        Parts, `by` what was set: "nie", the measured one less the one had by setting, whose figures
        ``measured`` and ``set`` are the two, p adjusted for their number by Holm's rule. None where the
        measured one cannot be had.
    """
    fits = fitted(pairs, interaction=interaction)
    point = {k: v[0] for k, v in effects_of_pairs(pairs, fits, np.ones((1, len(pairs.items)))).items()}
    forced = {name: w[0] - w[1] for name, w in worlds.items()}
    measured = {name: key for name in worlds if (key := _key(name, point)) is not None}
    # What was set is a mean over the same samples of items: it takes part in the same draws.
    drawn = bootstrap(
        pairs,
        fits,
        point,
        draws,
        np.random.default_rng(random_state),
        further=np.stack([*forced.values()], 1),
    )
    parts = []
    for k, (name, values) in enumerate(forced.items()):
        own = float(values.mean())
        if name not in measured:
            note = "the measured mediator is constant under an arm, or was not measured"
            parts.append(Estimate(label="nie", by=name, estimate=None, note=note, figures={"set": own}))
            continue
        key = measured[name]
        gap = drawn[key] - drawn["further", str(k)]
        row = estimate_of_draws("nie", gap, float(point[key]) - own, level, len(pairs.items))
        parts.append(replace(row, by=name, figures={"measured": float(point[key]), "set": own}))
    rows = with_holm(parts)
    said = [
        f"of the chain's {row.by}, {row['measured']:.3g} as measured and {row['set']:.3g} as set: they "
        f"differ by {row.estimate:.3g} ({percent(level)} interval {row.ci_low:.3g} to {row.ci_high:.3g}), "
        f"which these items {'tell' if cast('float', row.p_adjusted) < 1 - level else 'do not tell'} from "
        "nothing"
        for row in rows
        if row.estimate is not None
    ]
    sentence = "No measured mediator can be held against what was set."
    if said:
        sentence = (
            f"The NIE {'; '.join(said)}. Where they differ, the measured mediator went with what else "
            "differs between an item's two chains, or does not act by its amount."
        )
    return Result(parts=rows, level=level, sentence=sentence, axis="measured less set NIE")


def _key(name: str, point: Mapping[tuple[str, str], float]) -> tuple[str, str] | None:
    """Give the measured effect that a set one is held against, any other mediators left as they are."""
    keys = (("interventional_nie", name), ("nie", name))
    return next((key for key in keys if key in point), None)
