"""What an audit gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whyprompt.results import Estimate, Result, unlisted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd

    from whyprompt.effects.result import EffectResult

__all__ = ["AuditResult", "AuditRow", "OneDraw"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditRow(Estimate):
    """How one method did over the draws.

    Its estimate is the bias, the mean of estimate minus the paired effect on the same items; its standard
    error is the Monte Carlo error of so many draws; `n_used` counts the draws with an estimate.

    Attributes
    ----------
    estimand : str
    n_failed : int
        Draws in which the method refused to estimate.
    failures : mapping of str to int
        The reasons.
    n_no_interval : int
        Draws with an estimate and no interval; they count in the bias and not in the coverage.
    truth : float or None
        Mean over draws of the paired effect on the items the estimand names.
    mean_estimate, rmse : float or None
    mean_std_error : float or None
        As the method reports it.
    coverage, coverage_error : float or None
        Share of intervals that hold the paired effect on the same items, and its Monte Carlo error. Of the
        draws that have one.
    mean_used : float or None
        Rows with a weight, on average.
    """

    estimand: str
    n_failed: int
    failures: Mapping[str, int]
    n_no_interval: int
    truth: float | None = None
    mean_estimate: float | None = None
    rmse: float | None = None
    mean_std_error: float | None = None
    coverage: float | None = None
    coverage_error: float | None = None
    mean_used: float | None = None


@dataclass(frozen=True, kw_only=True)
class AuditResult(Result):
    """The audit of several methods.

    Attributes
    ----------
    overall : Estimate
        The paired effect over all items.
    parts : tuple of AuditRow
        One a method.
    draws : int
    rule : str
        The rule in words.
    mean_share_treated : float
        Mean probability of the treated arm.
    confounders : tuple of str
    """

    overall: Estimate
    parts: tuple[AuditRow, ...] = ()
    draws: int
    rule: str
    mean_share_treated: float
    confounders: tuple[str, ...]

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        from whyprompt.charts import audit_plot

        return {
            "bias": lambda: audit_plot(self, what="bias"),
            "coverage": lambda: audit_plot(self, what="coverage"),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class OneDraw(Result):
    """One confounded draw, side by side with the truth: `overall` is adjusted, the parts are the others.

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
    """

    naive: EffectResult
    adjusted: EffectResult
    truth: float
    truth_all: float
    table: pd.DataFrame = unlisted()

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        from whyprompt.charts import draw_plot

        return {"draw": lambda: draw_plot(self)}
