"""Several outcomes at once, with p-values and intervals adjusted for their number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from whyprompt._summary import balance_text, parts_table
from whyprompt._words import format_number, percent
from whyprompt.effects.result import method_words
from whyprompt.errors import EstimationError
from whyprompt.results import Estimate, Result, with_holm
from whyprompt.stats.several import more_by_steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.effects.comparison import Comparison
    from whyprompt.results import Assumption, BalanceRow
    from whyprompt.stats.several import Joint

__all__ = ["EffectsResult", "outcome_names", "several_outcomes"]


@dataclass(frozen=True, kw_only=True)
class EffectsResult(Result):
    """The effects on several outcomes, which are its parts, in the order asked for.

    A part's interval and p are of that outcome by itself; `p_adjusted` and the simultaneous interval account
    for the number of outcomes, with the use of how they depend on each other. Without a joint distribution
    the adjustment is Holm's.

    Attributes
    ----------
    treatment, treated, control, estimand, method : str
    correlation : tuple of tuple of float
        Of the estimates.
    adjustment : str
        Where the joint distribution came from.
    p_least : float or None
        The least `p_adjusted` that random draws can show: one of that size is only known to be smaller. None
        where there is no such floor.
    balance : tuple of BalanceRow
        The same for all outcomes.
    std_error_method : str
    confounders : tuple of str
    """

    treatment: str
    treated: str
    control: str
    estimand: str
    method: str
    correlation: tuple[tuple[float, ...], ...]
    adjustment: str
    p_least: float | None
    balance: tuple[BalanceRow, ...]
    std_error_method: str
    confounders: tuple[str, ...]

    def _blocks(self) -> list[str]:
        how = "Holm" if self.adjustment == "Holm" else "max-T"
        out = [f"Outcomes:\n{parts_table(self.parts, adjusted=how, least=self.p_least)}"]
        return out + ([balance_text(self.balance)] if self.balance else [])


def outcome_names(outcomes: Sequence[str]) -> list[str]:
    """Check a list of outcomes.

    Parameters
    ----------
    outcomes : sequence of str

    Returns
    -------
    list of str

    Raises
    ------
    EstimationError
        If it is empty, or names a column twice.
    """
    names = list(outcomes)
    if not names:
        raise EstimationError("no outcome was named")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise EstimationError(f"outcome {twice[0]!r} is named twice")
    return names


def several_outcomes(comparison: Comparison, *, draws: int = 20_000, random_state: int = 0) -> EffectsResult:
    """Estimate the effect on each outcome of a comparison, adjusted for their number.

    Parameters
    ----------
    comparison : Comparison
        Rows are matched or weighted once; items are used for all outcomes or for none.
    draws : int, default 20000
        Of the joint distribution; all sign patterns are used for up to 14 items (or clusters).
    random_state : int, default 0

    Returns
    -------
    EffectsResult

    Notes
    -----
    Of rows with one arm each, the covariance of two estimates is a quarter of the difference of the variances
    of their sum and of their difference, each by the method's own error; the largest |t| is then simulated
    from a normal (or t) distribution with that correlation. Of items under both arms, the adjusted p is the
    step-down sign-flip p, exact where differences are symmetric under the null.

    References
    ----------
    Hothorn, T., Bretz, F. and Westfall, P. (2008). Simultaneous inference in general parametric models.
    Biometrical Journal 50, 346-363.
    Westfall, P. H. and Young, S. S. (1993). Resampling-Based Multiple Testing. Wiley, algorithm 2.8.
    """
    about = comparison.about
    level = about["level"]
    found, warnings = comparison.outcomes()
    joint, matrix, notes = comparison.at_once(found, level=level, draws=draws, random_state=random_state)
    parts = _adjusted(comparison, found, joint, level)
    repeats = comparison.repeats
    return EffectsResult(
        **about,
        axis=f"difference, {about['treated']} minus {about['control']}",
        parts=parts,
        correlation=() if matrix is None else tuple(tuple(float(v) for v in row) for row in matrix),
        adjustment="Holm" if joint is None else comparison.adjustment,
        p_least=(None if joint is None else joint[2]) or None,
        warnings=tuple(dict.fromkeys([*warnings, *notes])),
        sentence=_sentence(
            parts, (about["treated"], about["control"]), level, about["assumptions"], about["method"]
        )
        + (f" Rows repeat {repeats!r}, which the intervals allow for." if repeats else ""),
    )


def _adjusted(
    comparison: Comparison, found: Sequence[Estimate], joint: Joint | None, level: float
) -> tuple[Estimate, ...]:
    """Adjust the outcomes; an interval that holds at once is the outcome's own kind at a stricter level."""
    from scipy import stats

    if joint is None:
        return with_holm(found)
    p_values, critical, _ = joint
    rows = []
    for k, row in enumerate(found):
        if row.std_error is None or not np.isfinite(critical):
            rows.append(row)
            continue
        # Sign flips give the distribution of t itself; simulated scores are normal, each t has its df.
        law = stats.norm if comparison.normal or row.df is None else stats.t(row.df)
        low, high = comparison.span(k, row, max(level, 1.0 - 2.0 * float(law.sf(critical))))
        # Two reference distributions are in play: what is adjusted is never the smaller of the two.
        p = max(float(p_values[k]), row.p_value or 0.0)
        rows.append(replace(row, p_adjusted=p, simultaneous_low=low, simultaneous_high=high))
    return tuple(rows)


def _includes_zero(row: Estimate) -> bool:
    low, high = row.simultaneous_low, row.simultaneous_high
    return low is not None and high is not None and low <= 0 <= high


def _sentence(
    rows: Sequence[Estimate],
    arms: tuple[str, str],
    level: float,
    assumptions: Sequence[Assumption],
    method: str,
) -> str:
    def one(row: Estimate) -> str:
        span = (
            f" ({format_number(row.simultaneous_low)} to {format_number(row.simultaneous_high)})"
            if row.simultaneous_low is not None
            else ""
        )
        return f"{row.label!r} by {format_number(row.estimate)}{span}"

    seen = [row.label for row in rows if row.p_adjusted is not None and row.p_adjusted < 1 - level]
    verdict = (
        f"Adjusted for {len(rows)} outcomes, a difference is seen in {', '.join(map(repr, seen))}."
        if seen
        else f"Adjusted for {len(rows)} outcomes, none of the differences is shown to be other than zero."
    )
    text = (
        f"Under {arms[0]!r} instead of {arms[1]!r} there is a difference in {', '.join(one(r) for r in rows)}"
        f" (intervals that hold at once at {percent(level)}; {method_words(method)}). {verdict}"
    )
    text += more_by_steps(
        [repr(row.label) for row in rows if row.label in seen and _includes_zero(row)],
        least=[row.p_adjusted for row in rows if row.p_adjusted is not None and _includes_zero(row)],
        level=level,
    )
    failed = [a.detail.rstrip(".") for a in assumptions if a.status == "fails"]
    open_question = any(a.name == "exchangeability" and a.status != "holds" for a in assumptions)
    if failed:
        text += f" {'. '.join(failed)}. They may therefore not be claimed as effects of the arm."
    elif method == "naive" and open_question:
        text += " They are comparisons and not effects: nothing was adjusted for."
    elif open_question:
        detail = next(a.detail for a in assumptions if a.name == "exchangeability")
        text += f" They are effects if, {detail}."
    return text
