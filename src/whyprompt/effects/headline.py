"""An effect for someone who decides: from what to what, and the verdict.

A verdict is read off the interval (and the exact p of a 0/1 outcome), so that it says no more than they do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from whyprompt._words import counted, format_number, p_words, percent
from whyprompt.effects.condition import condition
from whyprompt.effects.power import detectable_effect

# An `EffectResult`, whose summary begins with the headline: to import it here would close a circle.
_Effect = Any

Verdict = Literal[
    "better", "worse", "higher", "lower", "no worse", "alike", "undecided", "no interval", "no effect"
]

# Outcomes of which it is known that more, or less, is better: by name, for a column says no more of itself.
# A log-probability is not among them: a right answer that is likelier may still not be given. Nor is "score".
_RIGHT = {
    *("exact_match", "numeric_match", "string_match", "choice_match", "code_match", "multiple_choice"),
    *(
        "match",
        "exact",
        "exactmatch",
        "includes",
        "accuracy",
        "acc",
        "correct",
        "is_correct",
        "em",
        "pass",
        "passed",
        "pass@1",
    ),
}
_HIGHER = {*_RIGHT, "token_f1", "f1", "acc_norm", "well_formed", "quasi_exact_match", "bleu", "rouge"}
_LOWER = {"perplexity", "error_rate", "wer", "cer"}
# A method that is an option's word and no word of a sentence.
_METHOD_NAMES = {
    "naive": "difference of means",
    "paired": "differences within items",
    "2sls": "two-stage least squares",
}
POWER = 0.8
_ESTIMAND_NAMES = {
    "ate": "the average effect over all rows",
    "att": "the average effect on the treated rows",
    "atc": "the average effect on the control rows",
    "ato": "the average effect on the rows where the arms overlap",
    "late": "the average effect on the rows whose arm follows the instrument",
}


def estimand_words(
    estimand: str, used: tuple[int, int], total: tuple[int, int], how: str = "could be matched"
) -> str:
    """Say whose average effect it is, also where rows that it is wanted for found no counterpart.

    `used` and `total` are treated and control rows with a weight, and in the table; `how` is what the rows
    that count have in common.

    >>> estimand_words("att", (180, 300), (180, 400))
    'the average effect on the treated rows'
    >>> estimand_words("att", (112, 300), (180, 400))
    'the average effect on the 112 of 180 treated rows that could be matched'
    """
    m, n = {"att": (used[0], total[0]), "atc": (used[1], total[1])}.get(estimand, (sum(used), sum(total)))
    if estimand not in {"att", "atc", "ate"} or m == n:
        return _ESTIMAND_NAMES.get(estimand, estimand)
    which = {"att": "treated rows", "atc": "control rows", "ate": "rows"}[estimand]
    return f"the average effect {'over' if estimand == 'ate' else 'on'} the {m} of {n} {which} that {how}"


def better_way(result: _Effect) -> int:
    """Say which way is better: 1 up, -1 down, 0 where it is not known of the outcome."""
    stated = result.figures.get("better")
    if stated is not None:
        return 1 if stated == "higher" else -1
    name = result.outcome.lower()
    return 1 if name in _HIGHER else -1 if name in _LOWER else 0


def no_effect(result: _Effect) -> str:
    """Say why the difference is no effect of the arm, "" where nothing says so."""
    if result.figures.get("same_prompts"):
        return "noise, for both arms were sent the same prompts"
    if unclear := result.figures.get("unclear"):
        # Columns that move the estimate, and may be confounders or what the arm does.
        names, was = " and ".join(map(repr, unclear)), "was" if len(unclear) == 1 else "were"
        return f"not to be called an effect until it is said whether {names} {was} known before the arm"
    failed = [repr(a.name) for a in result.assumptions if a.status == "fails"]
    if failed:
        return f"not to be called an effect, for {' and '.join(failed)} {_fail(failed)}"
    if any(a.name == "exchangeability" and a.detail.startswith("nothing was") for a in result.assumptions):
        return "a comparison and no effect, for nothing was adjusted for"
    return ""


def _fail(names: list[str]) -> str:
    return "fails its check" if len(names) == 1 else "fail their checks"


def method_words(method: str) -> str:
    """Return the name of a method as it stands in a sentence, behind "by"."""
    return _METHOD_NAMES.get(method, method)


def exact_against_interval(result: _Effect) -> str:
    """Say that the exact McNemar p and the interval of a 0/1 outcome disagree, "" where they do not.

    The interval is an approximation and the p is not: with few items that changed they may part.
    """
    p = None if result.items is None else result.items.mcnemar_p
    low, high = result.ci_low, result.ci_high
    if p is None or low is None or high is None or (low <= 0 <= high) == (p >= 1 - result.level):
        return ""
    if p < 1 - result.level:
        return (
            f"The interval, an approximation, includes zero, and the exact McNemar p is {p_words(p)}: these"
            " items hardly decide the sign."
        )
    return (
        f"The interval, an approximation, leaves zero out, and the exact McNemar p, {p_words(p)}, does not"
        " bear it out: these items hardly decide the sign."
    )


def verdict(result: _Effect) -> Verdict:
    """Give the verdict on an effect, by its interval.

    Parameters
    ----------
    result : EffectResult
        Its figures ``better`` ("higher" or "lower") and ``margin`` (in units of the outcome) count where they
        are there, as of `EffectResult.judged`, or of a study's ``effect.better`` and ``effect.margin``.

    Returns
    -------
    {"better", "worse", "higher", "lower", "no worse", "alike", "undecided", "no interval", "no effect"}
        ``"higher"`` and ``"lower"`` where it is not known which is better. ``"no worse"``: the interval
        includes zero, and excludes that it is worse by the margin or more; ``"alike"``: the same of both
        sides, where it is not known which is worse.

    Notes
    -----
    The rule, in this order: what is no effect of the arm is none; without an interval nothing is said; a sign
    is settled where the interval leaves zero out and the exact p of a 0/1 outcome bears it out; else a margin
    may be (a two-sided interval of 95% is then a one-sided test at 2.5%); else it is undecided.

    Examples
    --------
    >>> import pandas as pd
    >>> from whyprompt import estimate_effect
    >>> frame = pd.DataFrame({"item_id": [1, 1, 2, 2, 3, 3], "arm": ["a", "b"] * 3})
    >>> frame["y"] = [1.0, 2.0, 1.0, 4.0, 0.0, 2.0]
    >>> found = estimate_effect(
    ...     frame, treatment="arm", outcome="y", treated="b", control="a", design="paired"
    ... )
    >>> verdict(found)
    'undecided'
    """
    low, high, way = result.ci_low, result.ci_high, better_way(result)
    if no_effect(result):
        return "no effect"
    if low is None or high is None:
        return "no interval"
    if exact_against_interval(result):
        return "undecided"
    if low > 0 or high < 0:
        side = 1 if low > 0 else -1
        if way == 0:
            return "higher" if side > 0 else "lower"
        return "better" if side == way else "worse"
    margin = _margin(result)
    if margin is not None and way and (low if way > 0 else -high) > -margin:
        return "no worse"
    if margin is not None and not way and max(-low, high) < margin:
        return "alike"
    return "undecided"


def _margin(result: _Effect) -> float | None:
    stated = result.figures.get("margin")
    return float(stated) if isinstance(stated, int | float) else None


# ---------------------------------------------------------------------------------------------- numbers
def of_shares(result: _Effect) -> bool:
    """Say whether means are shares of trials: of a 0/1 outcome."""
    return bool(result.measures)


def _decimals(result: _Effect) -> int:
    """Give the decimals of percentages: as few as tell both means, and the ends of the interval from zero."""
    told = [abs(v) for v in (result.ci_low, result.ci_high, result.estimate) if v]
    least = min(told, default=1.0)
    wide = 1.0 if result.ci_low is None or result.ci_high is None else result.ci_high - result.ci_low
    by_width = 0 if wide >= 0.015 else 1 if wide >= 0.0015 else 2
    return max(by_width, min(3, next((d for d in range(4) if round(100 * least, d)), 3)))


def size_words(result: _Effect, value: float, *, unit: bool = True) -> str:
    """Write a change: in points of a 0/1 outcome, else in the outcome's own units."""
    if not of_shares(result):
        return format_number(value)
    text = f"{100 * value:.{_decimals(result)}f}"
    text = text.lstrip("-") if not float(text) else text
    return text + ((" point" if float(text) == 1 else " points") if unit else "")


def mean_words(result: _Effect, value: float) -> str:
    """Write a mean of the outcome, in percent of a 0/1 outcome: with digits that show the change of both."""
    ends = means(result) or (value, value)
    scale = 100 if of_shares(result) else 1

    def written(value: float, more: int) -> str:
        if of_shares(result):
            return f"{scale * value:.{_decimals(result) + more}f}"
        return format_number(value, digits=3 + more)

    def told(more: int) -> bool:
        before, after = (float(written(end, more)) for end in ends)
        change = scale * (ends[1] - ends[0])
        return abs(after - before - change) <= abs(change) / 2

    # Of means that differ by an error of rounding alone, no digits do.
    more = next(filter(told, range(10)), 0)
    return written(value, more) + ("%" if of_shares(result) else "")


def means(result: _Effect) -> tuple[float, float] | None:
    """Give both arms' means, control first; None where the estimate is not their difference."""
    before, after = result.mean_control, result.mean_treated
    if before is None or after is None or not math.isfinite(after - before):
        return None
    size = max(abs(before), abs(after), abs(result.estimate), 1e-300)
    return (before, after) if abs(after - before - result.estimate) <= 1e-6 * size else None


def interval_words(result: _Effect) -> str:
    """Give the interval of the change in the words of the headline."""
    low, high = result.ci_low, result.ci_high
    if low is None or high is None:
        return "no interval"
    if math.isinf(high - low):
        return f"{percent(result.level)} interval without a bound"
    ends = f"{size_words(result, low, unit=False)} to {size_words(result, high)}"
    return f"{percent(result.level)} interval {ends}"


# --------------------------------------------------------------------------------------------- sentences
def headline(result: _Effect, *, arms: bool = True) -> str:
    """Say from what to what, and the verdict: the first sentence of the page and of the command line.

    Parameters
    ----------
    result : EffectResult
    arms : bool, default True
        Name both arms; not needed where they stand above the sentence, as on the page.

    Returns
    -------
    str

    Examples
    --------
    >>> import pandas as pd
    >>> from whyprompt import estimate_effect
    >>> rows = [(i, arm, int(i % 5 > 1 or arm == "b" and i > 40)) for i in range(60) for arm in "ab"]
    >>> frame = pd.DataFrame(rows, columns=["item_id", "arm", "correct"])
    >>> found = estimate_effect(
    ...     frame, treatment="arm", outcome="correct", treated="b", control="a", design="paired"
    ... )
    >>> headline(found)
    "With 'b' instead of 'a', 60% right becomes 72%: better, by 2 to 20 points (95% interval)."
    """
    what = verdict(result)
    if what == "no effect":
        return f"{_beside(result)}: {no_effect(result)}."
    # Of logs whose arms differ in more than the arm.
    more = " More than the arm differs between these runs." if result.figures.get("one_treatment") else ""
    more += _turned_by_gaps(result, what)
    first = f"With {result.treated!r} instead of {result.control!r}, " if arms else ""
    said, beside, seen = _said(result, what)
    # What it rests on stands by the verdict, before what else is to be said of it.
    claim = f"{_from_to(result)}{whose(result)}: {said}{condition(result)}{beside}."
    return f"{first}{claim}{seen}{more}"


def _turned_by_gaps(result: _Effect, what: Verdict) -> str:
    """Say where outcomes are missing whose worst would make the verdict another one."""
    missing = result.figures.get("missing")
    if not isinstance(missing, Mapping) or what in {"undecided", "no interval"}:
        return ""
    low, high = missing.get("low"), missing.get("high")
    if isinstance(low, float) and isinstance(high, float):
        bounds = replace(result, overall=replace(result.overall, ci_low=low, ci_high=high))
        if verdict(bounds) == what:
            return ""
    return " Outcomes are missing, and they could turn this."


def outcome_words(result: _Effect) -> str:
    """Give the title of an axis of means."""
    return "answers that are right" if _is_right(result) else f"mean of {result.outcome}"


def _is_right(result: _Effect) -> bool:
    return of_shares(result) and result.outcome.lower() in _RIGHT


def whose(result: _Effect) -> str:
    """Say on which rows the effect is, where it is not that on all of them; else ""."""
    used = (result.n_treated_used, result.n_control_used)
    words = estimand_words(result.estimand, used, (result.n_treated, result.n_control), "are used")
    found = words.removeprefix("the average effect ")
    return "" if result.items is not None or found in {words, "over all rows"} else f", {found}"


def _from_to(result: _Effect) -> str:
    both = means(result)
    if both is None:
        return f"{result.outcome!r} changes by {size_words(result, result.estimate)}"
    before, after = (mean_words(result, value) for value in both)
    if _is_right(result):
        return f"{before} right {'stays at' if before == after else 'becomes'} {after}"
    if before == after:
        return f"{result.outcome!r} stays at {after}"
    return f"{result.outcome!r} goes from {before} to {after}"


def _beside(result: _Effect) -> str:
    both = means(result)
    if both is None:
        return f"{result.outcome!r} differs by {size_words(result, result.estimate)}"
    before, after = (mean_words(result, value) for value in both)
    first = f"{before} right" if _is_right(result) else f"{result.outcome!r} is {before} on average"
    return f"{first} under {result.control!r} and {after} under {result.treated!r}"


def _said(result: _Effect, what: Verdict) -> tuple[str, str, str]:
    """Give the verdict with its interval, what is to be known beside it, and what would have been seen."""
    low, high, margin = result.ci_low, result.ci_high, _margin(result)
    if low is None or high is None:
        return "undecided, for there is no interval", "", ""
    if what in {"better", "worse", "higher", "lower"}:
        small, large = sorted((abs(low), abs(high)))
        ends = f"{size_words(result, small, unit=False)} to {size_words(result, large)}"
        return f"{what}, by {ends} ({percent(result.level)} interval)", "", ""
    if what in {"no worse", "alike"} and margin is not None:
        words = "no worse than" if what == "no worse" else "alike within"
        return f"{words} the margin of {size_words(result, margin)} allows ({interval_words(result)})", "", ""
    text = f"undecided ({interval_words(result)})"
    least = detectable(result)
    if exact_against_interval(result):
        return text, "; the interval and the exact test part", ""
    if margin is not None and not math.isinf(high - low):
        return text, f"; the margin of {size_words(result, margin)} is not excluded", ""
    if least is None or math.isinf(high - low):
        return text, "", ""
    change = f"a true change of {size_words(result, least)} would be seen four times in five."
    return text, "", f" With these {_units(result)} {change}"


def _units(result: _Effect) -> str:
    if result.items is not None:
        return counted(result.n_pairs, "item")
    n = result.n_treated_used + result.n_control_used
    few = result.n_clusters is not None and result.n_clusters < n
    return counted(n, "row") + (f" of {counted(result.n_clusters, 'cluster')}" if few else "")


def detectable(result: _Effect) -> float | None:
    """Give the change that these items or rows show with power 0.8; None where their spread is not known."""
    if result.minimum_detectable is not None:
        return float(result.minimum_detectable)
    if not result.std_error:
        return None
    return detectable_effect(result.std_error, df=result.df or 1e6, level=result.level, power=POWER)


def question(result: _Effect) -> str:
    """Ask what the result answers, where nobody has asked it in words."""
    return f"Does {result.treated!r} instead of {result.control!r} change {result.outcome!r}?"
