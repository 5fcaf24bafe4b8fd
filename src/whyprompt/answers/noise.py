"""How many items changed between two runs, and how many of so many noise alone changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt._words import counted, format_number, listed, p_words, percent
from whyprompt.effects.checks.repeats import repeat_variance
from whyprompt.effects.flips import item_flips, predicted
from whyprompt.effects.measures import is_binary
from whyprompt.effects.pairs import mcnemar_p
from whyprompt.errors import EstimationError
from whyprompt.trials.logs.repeats import COPIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from whyprompt.effects.flips import Flips
    from whyprompt.effects.pairs import PairedItems
    from whyprompt.trials.logs.differences import Difference
    from whyprompt.trials.logs.result import ReadTrials


def noise_words(
    found: ReadTrials,
    two: pd.DataFrame,
    items: PairedItems,
    beside: Sequence[Difference],
    treated: str,
    level: float,
) -> tuple[str, dict[str, Any]]:
    """Say how many items changed, and how many of so many noise alone changes."""
    n = len(items.units)
    figures: dict[str, Any] = {"items": n, "gains": items.higher, "regressions": items.lower}
    text = (
        f"Of {counted(n, 'item')} the outcome is higher under {treated!r} for {items.higher} and lower for"
        f" {items.lower}"
    )
    binary = is_binary(items.trial_outcome, items.trial_outcome)
    if binary and items.n_repeats == 0:
        figures["mcnemar_p"] = mcnemar_p(items.higher, items.lower)
        text += f" (exact McNemar p {p_words(figures['mcnemar_p'])})"
    within = [d.name for d in beside if d.role not in {"seed", "date"} and _varies(d)]
    if within and items.n_repeats:
        names = listed(list(dict.fromkeys(within)))
        text += (
            f". Trials of one arm differ in the {names}, and are no repeats: what noise makes is not told."
        )
        return text, figures
    if not binary:
        return f"{text}. {_variance(two, found.outcome, level)}", figures
    flips = item_flips(items, level=level)
    if _same(found, beside):
        low, high = predicted(flips.flips, n, n, level=level)
        flips = flips._replace(expected=float(flips.flips), low=low, high=high)
    figures |= {name: value for name, value in flips._asdict().items() if value is not None}
    return f"{text}. {_flip_words(found, flips, level, same=_same(found, beside))}", figures


def _varies(d: Difference) -> bool:
    return any(len([v for v in values if v]) > 1 for values in d.settings[d.path].values())


def _same(found: ReadTrials, beside: Sequence[Difference]) -> bool:
    """Say whether the two are one arm, run twice."""
    harmless = {"seed", "date", "items", "other"}
    return (
        bool(found["same_prompts"])
        and len(found.arms) == 2
        and not any(d.verdict == "aligned" and d.role not in harmless for d in beside)
    )


def _flip_words(found: ReadTrials, flips: Flips, level: float, *, same: bool) -> str:
    items, k = counted(flips.items, "item"), flips.flips
    if flips.expected is None and found.left_out.get(COPIES):
        return (
            f"{k} of {items} flip, and the repeats were copies: whether another draw would flip as many they"
            " do not tell; repeats with seeds of their own would."
        )
    if flips.expected is None and not k:
        return "Each item was run once under each arm, and none flips."
    if flips.expected is None:
        return (
            f"Each item was run once under each arm: how many of the {k} that flip are noise cannot be told."
            " A second run of either arm, given with these, would tell."
        )
    between = f"between {flips.low} and {flips.high} ({percent(level)})"
    if same:
        return (
            f"Both were sent the same: what flips, {k} of {items}, is noise, and two further runs of one arm"
            f" on as many items would flip {between}."
        )
    above = flips.high is not None and k > flips.high
    more = "these are more than noise makes" if above else "noise alone can make as many"
    return (
        f"Between the first trials of both arms {k} of {items} flip; of pairs of trials of one arm"
        f" {flips.same_arm} of {flips.pairs} do. Of {items} noise would flip {format_number(flips.expected)}"
        f" on average, and {between}: {more}."
    )


def _variance(two: pd.DataFrame, outcome: str, level: float) -> str:
    """Say how much of an outcome that is no 0/1 comes from repeats."""
    try:
        return repeat_variance(
            two[two[outcome].notna()], unit="item_id", outcome=outcome, treatment="arm", level=level
        ).sentence
    except EstimationError:
        return (
            "Few items were run more than once under an arm: how much of this is noise cannot be told. A"
            " second run of either arm, given with these, would tell."
        )
