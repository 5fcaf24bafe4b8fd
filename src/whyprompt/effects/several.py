"""Several outcomes at once, with p-values and intervals adjusted for their number."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from whyprompt._summary import balance_text, parts_table
from whyprompt._words import format_number, percent
from whyprompt.effects.assumptions import not_claimed
from whyprompt.effects.headline import method_words
from whyprompt.errors import EstimationError
from whyprompt.results import Estimate, Result, unlisted, with_holm
from whyprompt.stats.several import more_by_steps
from whyprompt.tables import level_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.comparison import Comparison
    from whyprompt.results import BalanceRow
    from whyprompt.stats.several import Joint

_TITLES = {"outcomes": "Outcomes", "levels": "Levels reached", "arms": "Pairs of arms"}


@dataclass(frozen=True, kw_only=True)
class EffectsResult(Result):
    """Several effects that one question asks for, which are its parts, in order, adjusted for their number.

    They are on several outcomes; in reaching each level but the lowest of an ordered outcome, P(Y >= k), as
    the data have them, without a model of the levels; or between many arms, two by two, each labelled
    ``"arm - reference"``. A part's interval and p are its own; `p_adjusted` and the simultaneous interval
    account for the number of parts.

    Attributes
    ----------
    of : {"outcomes", "levels", "arms"}
        What the parts are.
    treatment, outcome, treated, control, estimand, method : str
        No `outcome` where the parts are outcomes, and no `treated` where they are pairs of arms; `control` is
        then the arm that others are compared with, first or alone.
    adjustment : str
        Where the simultaneous intervals come from. With a joint distribution the adjusted p does too, for
        outcomes and arms; it is Holm's for levels, and without a joint distribution.
    correlation : tuple of tuple of float
        Of the estimates on several outcomes.
    p_least : float or None
        The least `p_adjusted` that random draws can show: one of that size is only known to be smaller. None
        where there is no such floor.
    levels : tuple of str
        Of an ordered outcome, in order.
    model : tuple of Estimate
        The differences by the proportional odds model; empty where it could not be fitted.
    odds_ratio : Estimate or None
        The common (marginal) odds ratio of the model; above 1 the treated reach higher levels. Its standard
        error is that of its logarithm.
    proportional_odds_p : float or None
        p-value of one odds ratio for all levels (Wald); None with two levels.
    pairs : tuple of (str, str)
        Arm and reference of each pair of arms: every pair, the reference's first; or its comparisons alone,
        where a reference was asked for.
    means : tuple of Estimate
        Each arm's mean in the population of the estimand. Empty for methods that match each pair by itself.
    ess : mapping of str to float
        Kish's effective sample size of each arm under the weights.
    focal : str or None
        The arm whose population an ATT speaks of.
    weights : ndarray, shape (n,), optional
        Of many arms at once.
    balance : tuple of BalanceRow
        The same for all parts.
    std_error_method : str
    confounders : tuple of str
    """

    of: Literal["outcomes", "levels", "arms"]
    treatment: str
    outcome: str = ""
    treated: str = ""
    control: str
    estimand: str
    method: str
    adjustment: str
    correlation: tuple[tuple[float, ...], ...] = ()
    p_least: float | None = None
    levels: tuple[str, ...] = ()
    model: tuple[Estimate, ...] = ()
    odds_ratio: Estimate | None = None
    proportional_odds_p: float | None = None
    pairs: tuple[tuple[str, str], ...] = ()
    means: tuple[Estimate, ...] = ()
    ess: Mapping[str, float] = field(default_factory=dict)
    focal: str | None = None
    balance: tuple[BalanceRow, ...] = ()
    std_error_method: str
    confounders: tuple[str, ...] = ()
    weights: NDArray[np.float64] | None = unlisted()

    def _blocks(self) -> list[str]:
        holm = "Holm" if self.of == "levels" or self.adjustment == "Holm" else "max-T"
        how = "adjusted" if self.of == "arms" else holm
        out = [f"{_TITLES[self.of]}:\n{parts_table(self.parts, adjusted=how, least=self.p_least)}"]
        return out + ([balance_text(self.balance)] if self.balance else [])

    def contrast(self, arm: object, reference: object) -> Estimate:
        """Return one pair of many arms, in the order asked for.

        Parameters
        ----------
        arm, reference : object
            Two arms.

        Returns
        -------
        Estimate

        Raises
        ------
        EstimationError
            If there is no such pair.
        """
        wanted = (level_name(arm), level_name(reference))
        if wanted in self.pairs:
            return self.parts[self.pairs.index(wanted)]
        if wanted[::-1] in self.pairs:
            return _turned(self.parts[self.pairs.index(wanted[::-1])], *wanted)
        raise EstimationError(f"there is no pair of {wanted[0]!r} and {wanted[1]!r} among the arms")


def _turned(row: Estimate, arm: str, reference: str) -> Estimate:
    def minus(value: float | None) -> float | None:
        return None if value is None else -value

    return replace(
        row,
        label=f"{arm} - {reference}",
        estimate=minus(row.estimate),
        ci_low=minus(row.ci_high),
        ci_high=minus(row.ci_low),
        simultaneous_low=minus(row.simultaneous_high),
        simultaneous_high=minus(row.simultaneous_low),
        n_treated=row.n_control,
        n_control=row.n_treated,
        n_treated_used=row.n_control_used,
        n_control_used=row.n_treated_used,
        mean_treated=row.mean_control,
        mean_control=row.mean_treated,
    )


def outcome_names(outcomes: Sequence[str]) -> list[str]:
    """Check a list of outcomes: one that is empty, or names a column twice, is refused."""
    names = list(outcomes)
    if not names:
        raise EstimationError("no outcome was named")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise EstimationError(f"outcome {twice[0]!r} is named twice")
    return names


def several_outcomes(comparison: Comparison, *, draws: int = 20_000, random_state: int = 0) -> EffectsResult:
    """Estimate the effect on each outcome of a comparison, adjusted for their number.

    Rows are matched or weighted once; items are used for all outcomes or for none. `draws` are of the joint
    distribution; all sign patterns are used for up to 14 items (or clusters).

    Of rows with one arm each, the covariance of two estimates is that of their influence values, which
    weighting has; otherwise a quarter of the difference of the variances of their sum and of their
    difference, each by the method's own error. The largest |t| is then simulated from a normal (or t)
    distribution with that correlation. Of items under both arms, the adjusted p is the
    step-down sign-flip p, exact where differences are symmetric under the null.

    References: Hothorn, T., Bretz, F. and Westfall, P. (2008). Simultaneous inference in general parametric
    models. Biometrical Journal 50, 346-363. Westfall, P. H. and Young, S. S. (1993). Resampling-Based
    Multiple Testing. Wiley, algorithm 2.8.
    """
    about = comparison.about
    level = about["level"]
    found, warnings = comparison.outcomes()
    joint, matrix, notes = comparison.at_once(found, level=level, draws=draws, random_state=random_state)
    made = EffectsResult(
        **about,
        of="outcomes",
        axis=f"difference, {about['treated']} minus {about['control']}",
        parts=_adjusted(comparison, found, joint, level),
        correlation=() if matrix is None else tuple(tuple(float(v) for v in row) for row in matrix),
        adjustment="Holm" if joint is None else comparison.adjustment,
        p_least=(None if joint is None else joint[2]) or None,
        warnings=tuple(dict.fromkeys([*warnings, *notes])),
        sentence="",
    )
    repeats = comparison.repeats
    text = f" Rows repeat {repeats!r}, which the intervals allow for." if repeats else ""
    return replace(made, sentence=_sentence(made) + text)


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


def excludes_zero(row: Estimate) -> bool:
    """Whether the interval that holds for all parts at once excludes zero."""
    low, high = row.simultaneous_low, row.simultaneous_high
    return low is not None and high is not None and (low > 0 or high < 0)


def _includes_zero(row: Estimate) -> bool:
    return row.simultaneous_low is not None and not excludes_zero(row)


def _sentence(made: EffectsResult) -> str:
    rows, level = made.parts, made.level

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
        f"Under {made.treated!r} instead of {made.control!r} there is a difference in"
        f" {', '.join(one(r) for r in rows)} (intervals that hold at once at {percent(level)};"
        f" {method_words(made.method)}). {verdict}"
    )
    text += more_by_steps(
        [repr(row.label) for row in rows if row.label in seen and _includes_zero(row)],
        least=[row.p_adjusted for row in rows if row.p_adjusted is not None and _includes_zero(row)],
        level=level,
    )
    open_question = any(a.name == "exchangeability" and a.status != "holds" for a in made.assumptions)
    no = not_claimed(made.assumptions, "They may therefore not be claimed as effects of the arm.")
    if no:
        text += no
    elif made.method == "naive" and open_question:
        text += " They are comparisons and not effects: nothing was adjusted for."
    elif open_question:
        detail = next(a.detail for a in made.assumptions if a.name == "exchangeability")
        text += f" They are effects if, {detail}."
    return text
