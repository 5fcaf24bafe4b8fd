"""How strong an answer is, in words and by a stated rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from whyprompt._words import format_number, p_words, percent
from whyprompt.effects.headline import exact_against_interval

if TYPE_CHECKING:
    from whyprompt.effects.result import EffectResult

Verdict = Literal["not an effect", "no interval", "undecided", "sign settled", "sign and size settled"]

# The interval's half-width over the estimate at which a size is called known: its ends then differ by less
# than a factor of two.
_CLOSE = 1 / 3


def effect_strength(result: EffectResult) -> tuple[Verdict, str, tuple[str, ...]]:
    """Say how strong an estimate is.

    Parameters
    ----------
    result : EffectResult

    Returns
    -------
    verdict : {"not an effect", "no interval", "undecided", "sign settled", "sign and size settled"}
    headline : str
        The verdict as a sentence.
    reasons : tuple of str
        What it rests on, and what it hangs on.

    Notes
    -----
    The rule, in this order: an assumption that fails its check makes the number no effect; without an
    interval nothing is said; an interval that includes zero, or that an exact p does not bear out, leaves the
    sign undecided; a half-width of at
    most a third of the estimate (the ends then differ by a factor of two at most) settles the size too.

    Examples
    --------
    >>> import pandas as pd
    >>> from whyprompt import estimate_effect
    >>> frame = pd.DataFrame({"item_id": [1, 1, 2, 2, 3, 3], "arm": ["a", "b"] * 3})
    >>> frame["y"] = [1.0, 2.0, 1.0, 4.0, 0.0, 2.0]
    >>> found = estimate_effect(
    ...     frame, treatment="arm", outcome="y", treated="b", control="a", design="paired"
    ... )
    >>> effect_strength(found)[0]
    'undecided'
    """
    failed = [a for a in result.assumptions if a.status == "fails"]
    low, high = result.ci_low, result.ci_high
    level = percent(result.level)
    if failed:
        verdict: Verdict = "not an effect"
        headline = "This number may not be called an effect: an assumption it needs fails its check."
    elif low is None or high is None:
        verdict, headline = (
            "no interval",
            "There is no interval, so nothing is said about the size or the sign.",
        )
    elif exact := exact_against_interval(result):
        verdict, headline = "undecided", f"Undecided. {exact}"
    elif low <= 0 <= high:
        verdict = "undecided"
        headline = f"Undecided: the {level} interval includes zero, so the data do not settle the sign."
    else:
        half = (high - low) / 2 / abs(result.estimate)
        way = "raises" if result.estimate > 0 else "lowers"
        settled = half <= _CLOSE
        verdict = "sign and size settled" if settled else "sign settled"
        headline = (
            f"The sign is settled at the {level} level: on average {result.treated!r} in place of"
            f" {result.control!r} {way} the outcome. "
            + (
                f"So is the size, to within {half:.0%} of the estimate."
                if settled
                else f"The size is not: the interval reaches {half:.0%} of the estimate to either side."
            )
        )
    return verdict, headline, (*_design(result), *_open(result))


def _design(result: EffectResult) -> list[str]:
    out = []
    if result.items is not None:
        out.append(
            f"Measured, not modelled: each of {result.n_pairs} items was run under both arms, so no "
            "difference between items can explain it."
        )
        if result.minimum_detectable is not None:
            out.append(
                f"So many items detect an average change of {format_number(result.minimum_detectable)} with "
                "power 80%."
            )
    else:
        out.append(
            f"{result.n_treated_used} of {result.n_treated} {result.treated!r} rows and "
            f"{result.n_control_used} of {result.n_control} {result.control!r} rows are used, by "
            f"{result.method}."
        )
    if result.p_value is not None:
        out.append(f"Two-sided p of no average effect: {p_words(result.p_value)}.")
    return out


def _open(result: EffectResult) -> list[str]:
    said = {
        "fails": "fails its check",
        "doubtful": "is doubtful",
        "untestable": "cannot be tested with these data",
        "not checked": "was not checked",
    }
    out = []
    for status, words in said.items():
        names = [a.name for a in result.assumptions if a.status == status]
        if names:
            out.append(f"It hangs on what {words}: {', '.join(names)}.")
    return out
