"""What an audit gives back."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from whyprompt.results import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from whyprompt.effects.result import EffectResult
    from whyprompt.results import Assumption

__all__ = ["AuditResult", "AuditRow", "OneDraw"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditRow:
    """How one method did over the draws.

    Attributes
    ----------
    method, estimand : str
    n_draws, n_failed : int
        Draws made, and those in which the method refused to estimate.
    failures : mapping of str to int
        The reasons.
    n_no_interval : int
        Draws with an estimate and no interval; they count in the bias and not in the coverage.
    truth : float
        Mean over draws of the paired effect on the items the estimand names.
    mean_estimate : float
    bias, bias_error : float
        Mean of estimate minus the paired effect on the same items, and its Monte Carlo error.
    rmse : float
    mean_std_error : float or None
        As the method reports it.
    coverage, coverage_error : float or None
        Share of intervals that hold the paired effect on the same items, and its Monte Carlo error. Of the
        ``n_draws - n_failed - n_no_interval`` draws that have one.
    mean_used : float
        Rows with a weight, on average.
    """

    method: str
    estimand: str
    n_draws: int
    n_failed: int
    failures: Mapping[str, int]
    n_no_interval: int
    truth: float | None
    mean_estimate: float | None
    bias: float | None
    bias_error: float | None
    rmse: float | None
    mean_std_error: float | None
    coverage: float | None
    coverage_error: float | None
    mean_used: float | None


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """The audit of several methods.

    Attributes
    ----------
    rows : tuple of AuditRow
        One a method.
    paired_effect : float
        Mean difference over all items.
    n_items, draws : int
    rule : str
        The rule in words.
    mean_share_treated : float
        Mean probability of the treated arm.
    confounders : tuple of str
    level : float
    assumptions : tuple of Assumption
        What the verdict on the methods rests on, each with its check.
    warnings : tuple of str
    sentence : str
    """

    rows: tuple[AuditRow, ...]
    paired_effect: float
    n_items: int
    draws: int
    rule: str
    mean_share_treated: float
    confounders: tuple[str, ...]
    level: float
    assumptions: tuple[Assumption, ...]
    warnings: tuple[str, ...]
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold.

        Returns
        -------
        dict
        """
        return {f.name: plain(getattr(self, f.name)) for f in fields(self)}

    def to_frame(self) -> pd.DataFrame:
        """Return one row a method.

        Returns
        -------
        pandas.DataFrame
        """
        import pandas as pd

        return pd.DataFrame([plain(row) for row in self.rows]).drop(columns="failures")

    def plot(self, what: Literal["bias", "coverage"] = "bias") -> Any:  # noqa: ANN401 - a chart
        """Draw the bias, or the coverage, of each method.

        Parameters
        ----------
        what : {"bias", "coverage"}, default "bias"

        Returns
        -------
        altair.LayerChart
        """
        from whyprompt import charts

        return charts.audit_plot(self, what=what)

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True, kw_only=True, eq=False)
class OneDraw:
    """One confounded draw, side by side with the truth.

    Attributes
    ----------
    naive : EffectResult
        Difference of means in the draw.
    adjusted : EffectResult
        The pipeline's estimate.
    truth : float
        Paired effect on the items whose effect `adjusted` speaks of (those with a weight).
    truth_all : float
        Paired effect on all items.
    table : pandas.DataFrame
        What the pipeline saw: one arm an item.
    sentence : str
    """

    naive: EffectResult
    adjusted: EffectResult
    truth: float
    truth_all: float
    sentence: str
    table: pd.DataFrame = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as values that JSON can hold, without the table.

        Returns
        -------
        dict
        """
        return {
            "naive": self.naive.to_dict(),
            "adjusted": self.adjusted.to_dict(),
            "truth": plain(self.truth),
            "truth_all": plain(self.truth_all),
            "sentence": self.sentence,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the plain difference, the adjusted one and the truth.

        Returns
        -------
        pandas.DataFrame
            Columns ``what``, ``estimate``, ``ci_low``, ``ci_high``; a truth has no interval.
        """
        import pandas as pd

        rows = [
            {"what": name, "estimate": one.estimate, "ci_low": one.ci_low, "ci_high": one.ci_high}
            for name, one in (("naive", self.naive), (self.adjusted.method, self.adjusted))
        ]
        rows.append({"what": "truth", "estimate": self.truth, "ci_low": None, "ci_high": None})
        return pd.DataFrame(rows)

    def plot(self) -> Any:  # noqa: ANN401 - a chart
        """Draw the two estimates against the truth.

        Returns
        -------
        altair.LayerChart
        """
        from whyprompt import charts

        return charts.draw_plot(self)

    def __str__(self) -> str:
        return self.sentence
