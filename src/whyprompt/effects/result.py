"""What an estimate is worth: the number, its interval, and what was checked on the way.

The result classes hold plain values. `EffectResult.sentence` is written here, by `effect_sentence`,
from the same values that a caller can read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from whyprompt._words import format_number, percent
from whyprompt.results import Assumption, BalanceRow, Measure, plain
from whyprompt.stats.rules import SMD_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.effects.methods.matched import MatchedSet

__all__ = ["EffectResult", "EffectSubgroup", "effect_sentence"]


_ESTIMAND_NAMES = {
    "ate": "the average effect over all rows",
    "att": "the average effect on the treated rows",
    "atc": "the average effect on the control rows",
    "ato": "the average effect on the rows where the arms overlap",
}
_HELP = "Randomising the arm, running both arms on the same items, or naming the confounders would help."
# A method that is an option's word and no word of a sentence.
_METHOD_NAMES = {"naive": "difference of means", "paired": "differences within items"}


def estimand_words(
    estimand: str, used: tuple[int, int], total: tuple[int, int], how: str = "could be matched"
) -> str:
    """Say whose average effect it is, also where rows that it is wanted for found no counterpart.

    Parameters
    ----------
    estimand : str
    used, total : tuple of int
        Treated and control rows with a weight, and in the table.
    how : str, default "could be matched"
        What the rows that count have in common.

    Returns
    -------
    str

    Examples
    --------
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


def method_words(method: str) -> str:
    """Return the name of a method as it stands in a sentence, behind "by"."""
    return _METHOD_NAMES.get(method, method)


@dataclass(frozen=True, kw_only=True, slots=True)
class EffectSubgroup:
    """The effect within one subgroup, from a score and matches of its own.

    Attributes
    ----------
    by, level : str
        Column and value.
    n_treated, n_control, n_treated_used, n_control_used : int
        Rows.
    estimate, std_error, ci_low, ci_high, p_value : float or None
        None where the subgroup could not be estimated.
    p_holm : float or None
        Adjusted for the number of subgroups looked at.
    largest_smd : float or None
        Largest absolute standardised mean difference after adjustment.
    few : bool
        Whether an arm has too few rows for the interval to be believed; such a subgroup shows nothing.
    note : str
        Why there is no estimate, or what to know about it.
    """

    by: str
    level: str
    n_treated: int
    n_control: int
    n_treated_used: int
    n_control_used: int
    estimate: float | None
    std_error: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_holm: float | None
    largest_smd: float | None
    few: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class EffectResult:
    """An estimated effect with everything needed to judge it.

    Attributes
    ----------
    treatment, outcome : str
        Columns.
    treated_level, control_level : str
        The two arms.
    estimand : {"ate", "att", "atc", "ato"}
        Whose average effect it is.
    method : str
        Such as ``"nearest"``.
    estimate : float
        Mean difference, treated minus control, in units of the outcome.
    std_error : float or None
        None where no standard error can be computed (a single pair, for example).
    ci_low, ci_high : float or None
        Interval at `level`.
    level : float
        Confidence level, 0.95 unless asked otherwise.
    n_treated, n_control : int
        Rows of each arm in the table.
    n_treated_used, n_control_used : int
        Rows of each arm with a non-zero weight in the estimate.
    ess_treated, ess_control : float
        Kish effective sample sizes, (sum w)^2 / sum w^2.
    balance : tuple of BalanceRow
        One row a covariate.
    assumptions : tuple of Assumption
        Each with the check made of it.
    warnings : tuple of str
        What a reader must know before quoting the number.
    sentence : str
        The result in words, with what may not be claimed.
    se_method : str
        How `std_error` was computed.
    settings : mapping
        Options that change the number: caliper and its unit, tie rule, bandwidth, dropped columns.
    confounders : tuple of str
        Columns adjusted for.
    mean_treated, mean_control : float
        The two arms' (weighted) means, whose difference is `estimate`.
    df : float or None
        Degrees of freedom of the interval; None for the normal distribution or a bootstrap.
    p_value : float or None
        Two-sided, of no average effect.
    measures : tuple of Measure
        For a 0/1 outcome: risk difference, risk ratio and odds ratio.
    subgroups : tuple of EffectSubgroup
        Where `by` was given.
    heterogeneity : mapping of str to float
        For each `by` column, the p-value of equal effects in its subgroups (Cochran's Q).
    treated_rows : ndarray of bool, shape (n,), optional
        Mask of the treated rows. Not part of `to_dict`.
    weights : ndarray, shape (n,), optional
        Weight of each row in the table's order. Not part of `to_dict`.
    propensity : ndarray, shape (n,), optional
        The score; NaN for rows of other arms. Not part of `to_dict`.
    matched : MatchedSet, optional
        The pairs or strata. Not part of `to_dict`.
    """

    treatment: str
    outcome: str
    treated_level: str
    control_level: str
    estimand: str
    method: str
    estimate: float
    std_error: float | None
    ci_low: float | None
    ci_high: float | None
    level: float
    n_treated: int
    n_control: int
    n_treated_used: int
    n_control_used: int
    ess_treated: float
    ess_control: float
    balance: tuple[BalanceRow, ...]
    assumptions: tuple[Assumption, ...]
    warnings: tuple[str, ...]
    sentence: str
    se_method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    confounders: tuple[str, ...] = ()
    mean_treated: float | None = None
    mean_control: float | None = None
    df: float | None = None
    p_value: float | None = None
    measures: tuple[Measure, ...] = ()
    subgroups: tuple[EffectSubgroup, ...] = ()
    heterogeneity: Mapping[str, float] = field(default_factory=dict)
    treated_rows: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
    weights: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)
    propensity: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)
    matched: MatchedSet | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold.

        Returns
        -------
        dict
            Every field but the per-row arrays. A number that is not finite becomes None.

        Examples
        --------
        >>> import json, pandas as pd
        >>> from whyprompt.effects import estimate_effect
        >>> frame = pd.DataFrame({"arm": [0, 0, 0, 1, 1, 1], "y": [1.0, 2.0, 3.0, 2.0, 4.0, 6.0]})
        >>> result = estimate_effect(frame, treatment="arm", outcome="y", method="naive")
        >>> json.loads(json.dumps(result.to_dict()))["estimate"]
        2.0
        """
        hidden = {"treated_rows", "weights", "propensity", "matched"}
        return {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name not in hidden}

    def to_frame(self) -> pd.DataFrame:
        """Return the result as one row.

        Returns
        -------
        pandas.DataFrame
            One column for each scalar field.
        """
        import pandas as pd

        scalars = {
            name: value
            for name, value in self.to_dict().items()
            if isinstance(value, str | int | float) or value is None
        }
        return pd.DataFrame([scalars])

    def balance_frame(self) -> pd.DataFrame:
        """Return the balance table.

        Returns
        -------
        pandas.DataFrame
            One row a covariate, with the columns of `BalanceRow`.
        """
        import pandas as pd

        names = [f.name for f in fields(BalanceRow)]
        return pd.DataFrame([plain(row) for row in self.balance], columns=names)

    def subgroup_frame(self) -> pd.DataFrame:
        """Return the subgroups.

        Returns
        -------
        pandas.DataFrame
            One row a subgroup, with the columns of `EffectSubgroup`.
        """
        import pandas as pd

        names = [f.name for f in fields(EffectSubgroup)]
        return pd.DataFrame([plain(row) for row in self.subgroups], columns=names)

    def measure_frame(self) -> pd.DataFrame:
        """Return risk difference, risk ratio and odds ratio.

        Returns
        -------
        pandas.DataFrame
            One row a measure, with the columns of `Measure`.
        """
        import pandas as pd

        names = [f.name for f in fields(Measure)]
        return pd.DataFrame([plain(row) for row in self.measures], columns=names)

    def plot(self, kind: Literal["balance", "overlap", "effect"] = "balance") -> Any:  # noqa: ANN401 - a chart
        """Draw the result.

        Parameters
        ----------
        kind : {"balance", "overlap", "effect"}, default "balance"
            Love plot, propensity overlap, or the estimate (with its subgroups) as a forest plot.

        Returns
        -------
        altair.Chart

        Raises
        ------
        EstimationError
            If there is nothing of that kind to draw.
        """
        from whyprompt import charts
        from whyprompt.errors import EstimationError

        if kind == "balance":
            if not self.balance:
                raise EstimationError("there is no balance table to draw: nothing was adjusted for")
            return charts.love_plot(self.balance)
        if kind == "overlap":
            if self.propensity is None or self.treated_rows is None:
                raise EstimationError(
                    f"method {self.method!r} has no propensity score to draw", hint="kind='balance'"
                )
            return charts.overlap_plot(self.propensity, self.treated_rows)
        if kind == "effect":
            return charts.forest_plot(self)
        raise EstimationError(f"plot kind {kind!r} is not known", hint="one of: balance, overlap, effect")

    def __str__(self) -> str:
        return self.sentence


def effect_sentence(
    *,
    outcome: str,
    treated: str,
    control: str,
    estimand: str,
    method: str,
    estimate: float,
    ci: tuple[float | None, float | None],
    level: float,
    used: tuple[int, int],
    total: tuple[int, int],
    balance: Sequence[BalanceRow],
    assumptions: Sequence[Assumption],
    confounders: Sequence[str],
    design: str = "observational",
    repeats: str | None = None,
    item: str | None = None,
) -> str:
    """Say the result so that a careful scientist would sign it.

    Parameters
    ----------
    outcome, treated, control : str
        Column and arms.
    estimand, method : str
        As in `EffectResult`.
    estimate : float
        The difference.
    ci : tuple of float or None
        Interval.
    level : float
        Its level.
    used, total : tuple of int
        Treated and control rows used, and in the table.
    balance : sequence of BalanceRow
        After adjustment.
    assumptions : sequence of Assumption
        With their verdicts.
    confounders : sequence of str
        Columns adjusted for.
    design : {"observational", "randomized", "graph"}
        How the arms were given; ``"graph"`` where a graph says that nothing needs adjusting.
    repeats : str, optional
        The column that rows repeat and that the interval allows for, where it was not asked to.
    item : str, optional
        The column of the items, where all of them were run under both arms.

    Returns
    -------
    str
    """
    low, high = ci
    interval = (
        f"{percent(level)} interval {format_number(low)} to {format_number(high)}"
        if low is not None and high is not None
        else "no interval can be given"
    )
    numbers = (
        f"{used[0]} of {total[0]} {treated!r} rows and {used[1]} of {total[1]} {control!r} rows are used"
    )
    failed = [a for a in assumptions if a.status == "fails"]
    # Chance imbalance is part of a randomised design's interval, and no bias.
    judged = () if design == "randomized" else balance
    unbalanced = [r for r in judged if r.smd_after is None or abs(r.smd_after) > SMD_LIMIT]
    change = f"a difference of {format_number(estimate)} in {outcome!r} ({interval})"
    # Weights leave out rows where they were told to trim, and not for want of a counterpart.
    trimmed = method in {"ipw", "overlap", "entropy", "aipw"}
    whose = estimand_words(estimand, used, total, "are left" if trimmed else "could be matched")
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
        else f"if {_listed(confounders)} {'is' if len(confounders) == 1 else 'are'} all that affects both"
        " the choice of arm and the outcome"
    )
    dropped = (
        f" It speaks for the rows that found a counterpart: {numbers}."
        if used != total
        else f" All rows are used ({total[0]} and {total[1]})."
    )
    thin = next((a.detail for a in assumptions if a.name == "overlap" and a.status == "doubtful"), None)
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
        shown = _listed(
            [
                r.covariate
                if r.smd_after is None
                else f"{r.covariate} (standardised difference {format_number(r.smd_after, digits=2)})"
                for r in worst[:4]
            ]
        )
        more = f" and {len(worst) - 4} more" if len(worst) > 4 else ""
        parts.append(f"The arms still differ in {shown}{more}")
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
    return (
        f"{claim} Running both arms on the same items or randomising would settle it; a caliper, another"
        " method (overlap weights, entropy balancing) or a narrower population may restore balance."
    )


def _listed(names: Sequence[str]) -> str:
    items = list(names)
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + " and " + items[-1]
