"""An effect for someone who decides: how sure, what would settle it, who is harmed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from whyprompt._words import counted, format_number, p_words, percent
from whyprompt.effects.condition import condition
from whyprompt.effects.headline import (
    POWER,
    better_way,
    exact_against_interval,
    interval_words,
    method_words,
    of_shares,
    size_words,
    verdict,
)
from whyprompt.effects.power import items_needed
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from whyprompt.effects.result import EffectResult

# Higher is likelier, and not yet better.
_LIKELIER = {"log_prob", "prob", "logprob"}
# The interval's half-width over the estimate at which a size is called known: its ends then differ by less
# than a factor of two.
_CLOSE = 1 / 3
# More than so many items are no plan.
_MOST = 1_000_000


def harm_way(result: EffectResult) -> int:
    """Say which way does no harm to an item: that which is better, or makes the right answer likelier."""
    return better_way(result) or (1 if result.outcome.lower() in _LIKELIER else 0)


def sure(result: EffectResult) -> str:
    """Say how sure the verdict is, and by what design."""
    out = [_strength(result)]
    if (likelier := _likelier(result)) and verdict(result) != "no effect":
        out.insert(0, likelier)
    if result.p_value is not None and not exact_against_interval(result):
        out.append(f"Two-sided p of no average effect: {p_words(result.p_value)}.")
    if result.items is not None:
        out.append(
            f"Measured, not modelled: each of {counted(result.n_pairs, 'item')} was run under both arms, so"
            " that no difference between items can explain it."
        )
    else:
        out.append(
            f"{result.n_treated_used} of {result.n_treated} {result.treated!r} rows and"
            f" {result.n_control_used} of {result.n_control} {result.control!r} rows are used, by"
            f" {method_words(result.method)}."
        )
        doubtful = [a.name for a in result.assumptions if a.status == "doubtful"]
        if doubtful:
            out.append(f"Doubtful: {', '.join(doubtful)}.")
    return " ".join(out)


def _strength(result: EffectResult) -> str:
    what, level = verdict(result), percent(result.level)
    if what == "no effect":
        return f"Not at all, whatever the numbers ({interval_words(result)})."
    if what == "no interval":
        return "There is no interval, so nothing is said about the size or the sign."
    if exact_against_interval(result) and result.items is not None:
        p = p_words(result.items.mcnemar_p)
        return f"The interval and the exact test (McNemar p {p}) disagree, so the sign is not settled."
    if math.isinf((result.ci_high or 0.0) - (result.ci_low or 0.0)):
        return f"The {level} interval has no bound, so the data settle neither the size nor the sign."
    if what == "undecided":
        return f"The {level} interval includes zero, so the data do not settle the sign."
    if what in {"no worse", "alike"}:
        return f"The {level} interval includes zero and excludes the margin: that much is settled."
    half = close(result)
    size = (
        f"So is the size, to within {half:.0%} of the estimate."
        if half <= _CLOSE
        else f"The size is not: the interval reaches {half:.0%} of the estimate to either side."
    )
    return f"The sign is settled at the {level} level. {size}"


def _likelier(result: EffectResult) -> str:
    """Put a settled change of a log-probability into how many times as likely the right answer becomes."""
    low, high = result.ci_low, result.ci_high
    if result.outcome != "log_prob" or low is None or high is None or not max(abs(low), abs(high)) < 50:
        return ""
    ends = " to ".join(map(_times, (low, high)))
    level = percent(result.level)
    return f"The right answer becomes {ends} times as likely (geometric mean, {level} interval)."


def _times(log: float) -> str:
    """Write the exponential of a number with as many digits as tell it from one."""
    digits = next((d for d in range(2, 7) if float(f"{math.exp(log):.{d - 1}e}") != 1), 7)
    return format_number(math.exp(log), digits=digits)


def close(result: EffectResult) -> float:
    """Give the interval's half-width over the estimate."""
    low, high = result.ci_low, result.ci_high
    if low is None or high is None or not result.estimate:
        return math.inf
    return (high - low) / 2 / abs(result.estimate)


def settles(result: EffectResult) -> str:
    """Say what would settle what is open: how many items or rows, for a change as large as was seen."""
    what = verdict(result)
    if what == "no effect":
        if result.figures.get("same_prompts"):
            return "Prompts that differ."
        return "Running both arms on the same items, or drawing the arm by lot."
    noun = "items under both arms" if result.items is not None else "rows like these"
    if what in {"better", "worse", "higher", "lower"}:
        half = close(result)
        if half <= _CLOSE:
            if condition(result):
                return "More rows would not settle more; both arms on the same items, or a lot, would."
            return "Nothing more for items like these; other models and wordings are other questions."
        more = math.ceil(_n(result) * (half / _CLOSE) ** 2)
        return (
            f"The sign needs no more. To know the size to within a third: about {_round_up(more)} {noun}"
            f" (here {_n(result)}).{_repeats(result)}"
        )
    if what in {"no worse", "alike"}:
        return f"Nothing more for the margin.{_for_seen(result, noun)}"
    return f"{_for_seen(result, noun).strip() or f'More {noun}.'}{_repeats(result)}"


def _n(result: EffectResult) -> int:
    return result.n_pairs if result.items is not None else result.n_treated_used + result.n_control_used


def _for_seen(result: EffectResult, noun: str) -> str:
    error, effect = result.std_error, result.estimate
    # An interval without a bound is not made of the error.
    if not error or not effect or math.isinf((result.ci_high or 0.0) - (result.ci_low or 0.0)):
        return ""
    df = result.df or 1e6
    try:
        many = items_needed(effect, error=error, df=df, n=_n(result), level=result.level, power=POWER)
    except EstimationError:
        many = _MOST + 1
    size = size_words(result, abs(effect))
    if many > _MOST:
        return f" A true change of {size}, as here, would need more than a million {noun}."
    # Where the interval and the exact test part, the error alone would say that these are enough.
    if many <= _n(result):
        return ""
    return f" A true change of {size}, as here, would need about {_round_up(many)} {noun} (power 80%)."


def _round_up(many: int) -> str:
    """Write a number that is no more than a guess with two digits."""
    step = max(1, 10 ** (len(str(many)) - 2))
    return f"{math.ceil(many / step) * step:,}"


def _repeats(result: EffectResult) -> str:
    """Say whether repeats of these items would help: how much of their spread is noise of repeats."""
    share = noise_share(result)
    if share is None:
        return ""
    if share < 0.1:
        return " More repeats of these items would not help."
    return f" More repeats would help too: {min(share, 1.0):.0%} of the differences' variance is their noise."


def noise_share(result: EffectResult) -> float | None:
    """Give the share of the variance of items' differences that is noise of their repeats, if it is known."""
    items = result.items
    if items is None or items.noise == "none" or not items.n_repeats:
        return None
    m = len(items.units)
    noise = np.zeros(m)
    for arm in (items.trial_treated, ~items.trial_treated):
        at, y = items.trial_item[arm], items.trial_outcome[arm]
        n = np.bincount(at, minlength=m).astype(float)
        if (n < 2).any():
            return None
        mean = np.bincount(at, weights=y, minlength=m) / n
        squares = np.bincount(at, weights=(y - mean[at]) ** 2, minlength=m)
        noise += squares / (n - 1.0) / n
    spread = float(np.var(items.treated - items.control, ddof=1)) if m > 1 else 0.0
    return float(noise.mean()) / spread if spread > 0 else None


def harmed(result: EffectResult) -> str:
    """Say who is harmed, as far as the trials show it; "" where nothing is seen of it, or no arm does it."""
    if verdict(result) == "no effect":
        return ""
    way = harm_way(result)
    items, out = result.items, []
    if items is not None:
        out.append(_harmed_items(result, way))
    alpha = 1 - result.level
    told = [p for p in result.parts if p.p_adjusted is not None and p.estimate is not None]
    side = way or (1 if result.estimate >= 0 else -1)
    hurt = [p for p in told if (p.p_adjusted or 0.0) < alpha and side * (p.estimate or 0.0) < 0]
    if hurt:
        word = "worse" if way else "the other way"
        listed = ", ".join(f"{p.label} ({size_words(result, p.estimate or 0.0)})" for p in hurt[:4])
        out.append(f"It goes {word} in {listed}{'' if len(hurt) <= 4 else f' and {len(hurt) - 4} more'}.")
    elif told:
        out.append(f"In no part ({len(told)}) is it shown to go {'worse' if way else 'the other way'}.")
    return " ".join(out)


def _harmed_items(result: EffectResult, way: int) -> str:
    items = result.items
    assert items is not None
    n = len(items.units)
    if not items.higher + items.lower:
        return f"No outcome of {counted(n, 'item')} changed."
    if not way:
        # Which of both is harm is not known.
        rise, fall = items.higher, items.lower
        counts = f"{fall} of {n} items fell and {rise} rose in these trials"
        return f"{counts}; which of the two is harm the outcome does not say."
    worse = items.lower if way > 0 else items.higher
    bound = items.harmed_at_least if way > 0 else items.gain_at_least
    if items.noise == "none":
        verb = "fell" if way > 0 else "rose"
        return f"{worse} of {n} items {verb} on these very prompts, which are scored without noise."
    if bound is None:
        fell = "fell" if way > 0 else "rose"
        if of_shares(result):
            fell = "went from right to wrong" if way > 0 else "went from 0 to 1"
        few = "too few trials of each item to tell it from chance"
        return f"{worse} of {n} items {fell} in these trials: {few}."
    if bound:
        return f"At least {bound} of {n} items ({percent(items.level)} bound, against the noise of repeats)."
    return f"No item is shown to be, of {n}: what fell may be noise of repeats."
