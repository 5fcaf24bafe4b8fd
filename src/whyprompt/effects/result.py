"""What an estimate is worth: the number, its interval, and what was checked on the way.

`EffectResult.sentence` is written here, by `effect_sentence`, from the same values that a caller can read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._summary import balance_text, figures, measure_lines, parts_table
from whyprompt._words import counted, format_number, listed, p_words, percent
from whyprompt.effects.condition import all_there_is
from whyprompt.effects.headline import estimand_words, headline, method_words
from whyprompt.effects.paired_items import item_states
from whyprompt.effects.power import detectable_effect, items_needed
from whyprompt.errors import EstimationError
from whyprompt.results import BalanceRow, Estimate, Result, rows_frame, unlisted
from whyprompt.stats.rules import SMD_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.effects.methods.matched import MatchedSet
    from whyprompt.effects.pairs import PairedItems
    from whyprompt.results import Assumption

_PAIRED = "estimate_effect(design='paired')"
_HELP = "Randomising the arm, running both arms on the same items, or naming the confounders would help."


@dataclass(frozen=True, kw_only=True)
class EffectResult(Result):
    """An estimated effect with everything needed to judge it.

    The estimate is a mean difference, treated minus control, in units of the outcome: of rows matched or
    weighed, or within items run under both arms. It has no standard error where none can be computed (a
    single pair, or items that all change by the same amount; the interval of a 0/1 outcome is then still
    given). The parts are the subgroups of the `by` columns, each with a score and matches of its own, or of
    items; their adjusted p is Holm's, over all of them.

    Attributes
    ----------
    overall : Estimate
        With the rows or items of each arm, in the table and in the estimate, and the (weighted) means.
    treatment, outcome : str
        Columns.
    treated, control : str
        The two arms.
    estimand : {"ate", "att", "atc", "ato", "late"}
        Whose average effect it is.
    method : str
        Such as ``"nearest"``; ``"paired"`` for items run under both arms, ``"2sls"`` for an instrument.
    ess_treated, ess_control : float
        Kish effective sample sizes, (sum w)^2 / sum w^2.
    balance : tuple of BalanceRow
        One row a covariate; empty in a paired design, where each item is its own control.
    std_error_method : str
        How the standard error was computed.
    settings : mapping
        Options that change the number: caliper and its unit, tie rule, bandwidth, dropped columns.
    confounders : tuple of str
        Columns adjusted for.
    measures : tuple of Estimate
        For a 0/1 outcome: ``"risk difference"``, ``"risk ratio"`` and ``"odds ratio"``. All compare the two
        arms' risks over the estimand's rows: marginal, not given covariates, with errors that account for any
        pairing. The standard error of a ratio is that of its logarithm, whose interval its own is the
        exponential of.
    heterogeneity : mapping of str to float
        For each `by` column, the p-value of equal effects in its subgroups: Cochran's Q, or in a paired
        design Welch's analysis of variance, which is not given with clusters.
    few : tuple of str
        The parts, as ``"by=label"``, of which an arm has too few rows for the interval to be believed; such a
        subgroup shows nothing.
    items : PairedItems or None
        Of a paired design: how single items fare (counts of these trials, and how many items must gain or be
        harmed, as far as repeats show it), McNemar's test, items left out and why.
    n_clusters : int or None
        Its sampling units.
    minimum_detectable : float or None
        Effect that it detects with power 0.8 at 1 - level.
    treated_rows : ndarray of bool, shape (n,), optional
        Mask of the treated rows.
    weights : ndarray, shape (n,), optional
        Weight of each row in the table's order.
    propensity : ndarray, shape (n,), optional
        The score; NaN for rows of other arms.
    matched : MatchedSet, optional
        The pairs or strata.

    Examples
    --------
    >>> import json, pandas as pd
    >>> from whyprompt import estimate_effect
    >>> frame = pd.DataFrame({"arm": [0, 0, 0, 1, 1, 1], "y": [1.0, 2.0, 3.0, 2.0, 4.0, 6.0]})
    >>> result = estimate_effect(frame, treatment="arm", outcome="y", method="naive")
    >>> json.loads(json.dumps(result.to_dict()))["estimate"]
    2.0
    >>> result
    <EffectResult: overall: 2.00 (-2.16 to 6.16, p 0.22); 1 warning>
    >>> result.conf_int().round(2)
              low  high
    overall -2.16  6.16
    >>> result.summary().splitlines()[4]
    'estimate 2.00, standard error 1.29 (unequal variances (Welch)), 95% interval -2.16 to 6.16, p 0.22'
    >>> chart = result.plot("effect")  # or "balance" ("love"), "overlap", where something was adjusted for
    >>> "<table" in result._repr_html_()  # what a notebook shows
    True
    """

    overall: Estimate
    treatment: str
    outcome: str
    treated: str
    control: str
    estimand: str
    method: str
    ess_treated: float
    ess_control: float
    balance: tuple[BalanceRow, ...] = ()
    std_error_method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    confounders: tuple[str, ...] = ()
    measures: tuple[Estimate, ...] = ()
    heterogeneity: Mapping[str, float] = field(default_factory=dict)
    few: tuple[str, ...] = ()
    items: PairedItems | None = None
    n_clusters: int | None = None
    minimum_detectable: float | None = None
    treated_rows: NDArray[np.bool_] | None = unlisted()
    weights: NDArray[np.float64] | None = unlisted()
    propensity: NDArray[np.float64] | None = unlisted()
    matched: MatchedSet | None = unlisted()

    @property
    def n_treated(self) -> int:
        """Treated rows in the table."""
        return self.overall.n_treated or 0

    @property
    def n_control(self) -> int:
        """Control rows in the table."""
        return self.overall.n_control or 0

    @property
    def n_treated_used(self) -> int:
        """Treated rows with a weight in the estimate."""
        return self.overall.n_treated_used or 0

    @property
    def n_control_used(self) -> int:
        """Control rows with a weight in the estimate."""
        return self.overall.n_control_used or 0

    @property
    def mean_treated(self) -> float | None:
        """(Weighted) mean of the treated arm."""
        return self.overall.mean_treated

    @property
    def mean_control(self) -> float | None:
        """(Weighted) mean of the control arm."""
        return self.overall.mean_control

    @property
    def n_pairs(self) -> int:
        """Complete items of a paired design."""
        return self.overall.n_used or 0

    def judged(
        self, *, better: Literal["higher", "lower"] | None = None, margin: float | None = None
    ) -> EffectResult:
        """State which way is better, and how much worse is still no worse, for the verdict in `summary`.

        Parameters
        ----------
        better : {"higher", "lower"}, optional
            Which is better of the outcome. Default: what is known of ``exact_match`` and its like.
        margin : float, optional
            How much worse is still no worse, in units of the outcome: 0.02 is 2 points of 0/1.

        Returns
        -------
        EffectResult
            The same numbers, with ``better`` and ``margin`` among its figures.

        Raises
        ------
        EstimationError
            If `better` is another word, or `margin` is no number above 0.

        Examples
        --------
        >>> import pandas as pd
        >>> from whyprompt import estimate_effect
        >>> frame = pd.DataFrame({"arm": [0, 0, 0, 1, 1, 1], "seconds": [9.0, 8.0, 7.0, 2.0, 4.0, 3.0]})
        >>> result = estimate_effect(frame, treatment="arm", outcome="seconds", design="randomized")
        >>> result.judged(better="lower").summary().splitlines()[0]
        "With '1' instead of '0', 'seconds' goes from 8.00 to 3.00: better, by 2.73 to 7.27 (95% interval)."
        """
        if better not in {None, "higher", "lower"}:
            raise EstimationError(f"what is better is {better!r}, which is not known", hint="higher or lower")
        if margin is not None and not 0 < margin < math.inf:
            raise EstimationError(
                f"margin={margin} is no margin", hint="a number above 0, in units of the outcome"
            )
        stated = {"better": better, "margin": margin}
        told = {name: value for name, value in stated.items() if value is not None}
        return replace(self, figures={**self.figures, **told})

    def item_states(self) -> NDArray[np.int64]:
        """Tell of each item of a paired design whether it gains or is harmed.

        Returns
        -------
        ndarray of int, shape (items,)
            1, -1 or 0, beyond noise or as its trials came out; ``items.state_labels`` says what each means.

        Raises
        ------
        EstimationError
            If the design is not paired.
        """
        if self.items is None:
            raise EstimationError("single items are seen where both arms were run on them", hint=_PAIRED)
        return item_states(self.items)

    def sample_size(self, effect: float, *, power: float = 0.8) -> int:
        """Return how many items of the kind of a paired design's would detect an effect.

        Parameters
        ----------
        effect : float
            True mean difference, not 0.
        power : float, default 0.8
            Wanted.

        Returns
        -------
        int
            Items under both arms, with this table's spread and clustering.

        Raises
        ------
        EstimationError
            If the effect is 0, the power is not between 0 and 1, or the spread of items is not known.
        """
        if not (np.isfinite(effect) and effect != 0):
            raise EstimationError("a sample size needs an effect other than 0")
        error, df = self._spread()
        return items_needed(effect, error=error, df=df, n=self.n_pairs, level=self.level, power=power)

    def detectable(self, *, n: int | None = None, power: float = 0.8) -> float:
        """Return the effect that a number of items of the kind of a paired design's would detect.

        Parameters
        ----------
        n : int, optional
            Items under both arms; default those of this table.
        power : float, default 0.8
            Wanted.

        Returns
        -------
        float

        Raises
        ------
        EstimationError
            If the power is not between 0 and 1, the spread of items is not known, or `n` is below 2.
        """
        error, df = self._spread()
        items = self.n_pairs if n is None else n
        if items < 2:
            raise EstimationError(f"{items} item(s) cannot detect anything; give at least 2")
        scale = items / self.n_pairs
        free = max(df * scale if (self.n_clusters or 0) < self.n_pairs else items - 1.0, 1.0)
        return detectable_effect(error / np.sqrt(scale), df=free, level=self.level, power=power)

    def _spread(self) -> tuple[float, float]:
        if self.items is None:
            raise EstimationError("what items detect is known of items run under both arms", hint=_PAIRED)
        if self.std_error is None or self.df is None:
            raise EstimationError("the spread of the differences is not known from this table")
        return self.std_error, self.df

    def balance_frame(self) -> pd.DataFrame:
        """Return the balance table.

        Returns
        -------
        pandas.DataFrame
            One row a covariate, with the columns of `BalanceRow` that a comparison of two arms has.
        """
        table = rows_frame(self.balance, BalanceRow)
        return table.drop(columns=["worst_pair", "correlation_before", "correlation_after"])

    def _first(self) -> list[str]:
        return [headline(self), self.sentence]

    def _blocks(self) -> list[str]:
        out = [figures(self.overall, level=self.level, how=self.std_error_method)]
        out += [*measure_lines(self.measures), *([balance_text(self.balance)] if self.balance else [])]
        items = self.items
        if items is not None and items.mcnemar_p is not None and items.mcnemar_counts is not None:
            one, other = items.mcnemar_counts
            out.append(
                f"exact McNemar p {p_words(items.mcnemar_p)}: {counted(one, 'item')} right"
                f" under {self.treated!r} only, {other} under {self.control!r} only"
            )
        if self.minimum_detectable is not None:
            out.append(
                f"these {counted(self.n_pairs, 'item')} detect an effect of"
                f" {format_number(self.minimum_detectable)} with power 0.8"
            )
        title = "Subgroups" if any(p.p_adjusted is not None for p in self.parts) else "Parts"
        return out + ([f"{title}:\n{parts_table(self.parts, adjusted='Holm')}"] if self.parts else [])

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        own = {"balance": self._love_plot, "overlap": self._overlap_plot} if self.items is None else {}
        # The first is drawn unasked: balance, where there is one.
        return {**own, **super()._charts()} if self.balance else {**super()._charts(), **own}

    def _love_plot(self) -> Any:  # noqa: ANN401 - a chart
        from whyprompt.charts import love_plot

        if not self.balance:
            raise EstimationError("there is no balance table to draw: nothing was adjusted for")
        return love_plot(self.balance)

    def _overlap_plot(self) -> Any:  # noqa: ANN401 - a chart
        from whyprompt.charts import overlap_plot

        if self.propensity is None or self.treated_rows is None:
            raise EstimationError(
                f"method {self.method!r} has no propensity score to draw", hint="kind='balance'"
            )
        return overlap_plot(self.propensity, self.treated_rows)


def interval_words(result: EffectResult) -> str:
    """Give the interval of an effect as it stands in brackets behind it."""
    low, high = result.ci_low, result.ci_high
    if low is None or high is None:
        return "no interval can be given"
    return f"{percent(result.level)} interval {format_number(low)} to {format_number(high)}"


def differ_words(differ: Mapping[str, float], level: float) -> str:
    """Say of each `by` column whether the effects differ over it, by the p-value of its test."""
    return "".join(
        f" Over {name!r} the effects {'differ' if p < 1 - level else 'are not shown to differ'}"
        f" (p {p_words(p)})."
        for name, p in differ.items()
    )


def effect_sentence(
    result: EffectResult,
    *,
    confounders: Sequence[str],
    design: str = "observational",
    repeats: str | None = None,
    item: str | None = None,
    matched: bool = False,
) -> str:
    """Say the result so that a careful scientist would sign it.

    `confounders` are columns adjusted for or matched exactly on; the design ``"graph"`` is that of a graph
    which says that nothing needs adjusting; `repeats` is the column that rows repeat and that the interval
    allows for, where it was not asked to; `item` is the column of the items, where all were run under both
    arms; of rows that were `matched` the result may have no list.
    """
    treated, control, outcome, method = result.treated, result.control, result.outcome, result.method
    estimate, low, high = result.estimate, result.ci_low, result.ci_high
    used = (result.n_treated_used, result.n_control_used)
    total = (result.n_treated, result.n_control)
    interval = interval_words(result)
    numbers = (
        f"{used[0]} of {total[0]} {treated!r} rows and {used[1]} of {total[1]} {control!r} rows are used"
    )
    failed = [a for a in result.assumptions if a.status == "fails"]
    # Chance imbalance is part of a randomised design's interval, and no bias; what weights leave an outcome
    # model may take, and the assumption says whether it did.
    modelled = any(a.name == "balance" and "outcome model" in a.check for a in result.assumptions)
    judged = () if design == "randomized" or modelled else result.balance
    unbalanced = [r for r in judged if r.smd_after is None or abs(r.smd_after) > SMD_LIMIT]
    change = f"a difference of {format_number(estimate)} in {outcome!r} ({interval})"
    # Weights leave out rows where they were told to trim, and not for want of a counterpart.
    trimmed = result.matched is None and not matched
    whose = estimand_words(result.estimand, used, total, "are left" if trimmed else "could be matched")
    way_out = f"Both arms were run on the same {item!r}: compare each with itself." if item else ""
    again = f" Rows repeat {repeats!r}, which the interval allows for." if repeats else ""
    if design == "observational" and not confounders:
        return (
            f"Rows under {treated!r} and rows under {control!r} show {change}; {numbers}. This is a"
            " comparison and not an effect: nothing was adjusted for, so whatever decided which row got"
            f" which arm may explain it. {way_out or _HELP}{again}"
        )
    if failed or unbalanced:
        return (
            f"Comparing {treated!r} with {control!r} gives {change} by {method_words(method)} for"
            f" {whose}; {numbers}. {_what_may_not_be_claimed(failed, unbalanced, way_out)}{again}"
        )
    zero = (
        " The interval includes zero: the data do not decide the sign."
        if low is not None and high is not None and low <= 0 <= high
        else ""
    )
    condition = (
        "since the arms were randomised"
        if design == "randomized"
        else "if the graph is right that nothing confounds the two"
        if design == "graph"
        else all_there_is(confounders)
    )
    dropped = (
        f" It speaks for the rows that {'are left' if trimmed else 'found a counterpart'}: {numbers}."
        if used != total
        else f" All rows are used ({total[0]} and {total[1]})."
    )
    thin = next(
        (a.detail for a in result.assumptions if a.name == "overlap" and a.status == "doubtful"), None
    )
    caution = f" Overlap is thin: {thin}." if thin else ""
    return (
        f"Under {treated!r} instead of {control!r}, {outcome!r} changes by {format_number(estimate)}"
        f" ({interval}), {whose}, by {method_words(method)}, {condition}.{dropped}{zero}{caution}{again}"
    )


def _what_may_not_be_claimed(
    failed: Sequence[Assumption], unbalanced: Sequence[BalanceRow], way_out: str
) -> str:
    parts = []
    if unbalanced:
        worst = sorted(
            unbalanced, key=lambda r: math.inf if r.smd_after is None else abs(r.smd_after), reverse=True
        )
        shown = listed(
            (
                r.covariate
                if r.smd_after is None
                else f"{r.covariate} (standardised difference {format_number(r.smd_after, digits=2)})"
                for r in worst
            ),
            most=5,
        )
        parts.append(f"The arms still differ in {shown}")
    parts.extend(
        a.detail[:1].upper() + a.detail[1:].rstrip(".")
        for a in failed
        if not (a.name == "balance" and unbalanced)
    )
    reason = ". ".join(parts)
    claim = f"{reason}. The difference may therefore not be claimed as an effect of the arm."
    if not unbalanced and all(a.name == "no post-treatment adjustment" for a in failed):
        return claim
    if way_out:
        return f"{claim} {way_out}"
    if not unbalanced and all(a.name == "functional form" for a in failed):
        return (
            f"{claim} Running both arms on the same items or randomising would settle it; more rows may, or"
            " learners that suit what they hold."
        )
    if not unbalanced and all(a.name == "exchangeability" for a in failed):
        return f"{claim} Running both arms on the same items or randomising would settle it."
    return (
        f"{claim} Running both arms on the same items or randomising would settle it; a caliper, another"
        " method (overlap weights, entropy balancing) or a narrower population may restore balance."
    )
