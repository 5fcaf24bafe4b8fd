"""What the effect on an ordered outcome gives back."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from whyprompt.results import Assumption, BalanceRow, plain

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["OrdinalResult", "ThresholdRow"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdRow:
    """The effect on reaching one level.

    Attributes
    ----------
    level : str
        The level k; the row is about P(Y >= k).
    p_treated, p_control : float
        Shares, weighted as the method weighs rows.
    difference, std_error, ci_low, ci_high, p_value : float or None
        As the data have it, without a model of the levels.
    p_holm : float or None
        Adjusted for the number of levels.
    simultaneous_low, simultaneous_high : float or None
        Interval that holds for all levels at once.
    model_difference, model_std_error, model_ci_low, model_ci_high : float or None
        By the proportional odds model.
    """

    level: str
    p_treated: float
    p_control: float
    difference: float
    std_error: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_holm: float | None
    simultaneous_low: float | None
    simultaneous_high: float | None
    model_difference: float | None
    model_std_error: float | None
    model_ci_low: float | None
    model_ci_high: float | None


@dataclass(frozen=True, kw_only=True)
class OrdinalResult:
    """The effect on an ordered outcome.

    Attributes
    ----------
    treatment, outcome, treated_level, control_level, estimand, method : str
    levels : tuple of str
        In order.
    rows : tuple of ThresholdRow
        One for each level but the lowest.
    odds_ratio, odds_ratio_ci_low, odds_ratio_ci_high : float or None
        The common (marginal) odds ratio of the model; above 1 the treated reach higher levels.
    log_odds_std_error : float or None
        Of its logarithm.
    proportional_odds_p : float or None
        p-value of one odds ratio for all levels (Wald); None with two levels.
    level : float
        Of the intervals.
    n_treated, n_control, n_treated_used, n_control_used : int
        Rows (items, in a paired design).
    balance : tuple of BalanceRow
    assumptions : tuple of Assumption
    warnings : tuple of str
    sentence : str
    std_error_method : str
    confounders : tuple of str
    """

    treatment: str
    outcome: str
    treated_level: str
    control_level: str
    estimand: str
    method: str
    levels: tuple[str, ...]
    rows: tuple[ThresholdRow, ...]
    odds_ratio: float | None
    odds_ratio_ci_low: float | None
    odds_ratio_ci_high: float | None
    log_odds_std_error: float | None
    proportional_odds_p: float | None
    level: float
    n_treated: int
    n_control: int
    n_treated_used: int
    n_control_used: int
    balance: tuple[BalanceRow, ...]
    assumptions: tuple[Assumption, ...]
    warnings: tuple[str, ...]
    sentence: str
    std_error_method: str
    confounders: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold.

        Returns
        -------
        dict
        """
        return {f.name: plain(getattr(self, f.name)) for f in fields(self)}

    def to_frame(self) -> pd.DataFrame:
        """Return one row a level.

        Returns
        -------
        pandas.DataFrame
            With the columns of `ThresholdRow`.
        """
        import pandas as pd

        return pd.DataFrame([plain(row) for row in self.rows])

    def plot(self) -> Any:  # noqa: ANN401 - a chart
        """Draw the differences in P(Y >= k) as a forest plot.

        Returns
        -------
        altair.Chart
        """
        from whyprompt import charts

        return charts.forest_plot(self)

    def __str__(self) -> str:
        return self.sentence
