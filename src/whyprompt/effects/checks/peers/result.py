"""What a cross-check gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whyprompt.results import Reported, rows_frame

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

__all__ = ["CrossCheck", "CrossCheckRow", "IdentificationCheck", "RefuterRow", "UpliftPoint"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossCheckRow:
    """One tool's figure, and where its difference from ours comes from.

    Attributes
    ----------
    tool : {"whyprompt", "DoWhy", "CausalML"}
    method : str
    estimand : {"att", "atc", "ate"}
    estimate : float or None
        None where the tool failed.
    std_error, ci_low, ci_high : float or None
        None where the tool gives none.
    n_treated_used, n_control_used : int or None
    compared_with : str or None
        Our method that estimates the same.
    difference : float or None
        From that method's estimate. It is the sum of the next three.
    from_settings : float or None
        What our estimate changes by when our code takes the tool's settings (or its model), with our score.
    from_score : float or None
        What it changes by when it takes the tool's propensity score as well.
    unexplained : float or None
        What is left: zero where our code with the tool's score and settings gives the tool's figure. With
        ties, the choice among rows equally near.
    tie_range : tuple of float or None
        Of rows equally near, a tool may take any: the smallest and the largest estimate that it could give.
    why : tuple of str
        The same in words, with what else a reader should know of the figure.
    seconds : float or None
        The tool's own time.
    """

    tool: str
    method: str
    estimand: str
    estimate: float | None
    std_error: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n_treated_used: int | None = None
    n_control_used: int | None = None
    compared_with: str | None = None
    difference: float | None = None
    from_settings: float | None = None
    from_score: float | None = None
    unexplained: float | None = None
    tie_range: tuple[float, float] | None = None
    why: tuple[str, ...] = ()
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentificationCheck:
    """What the graph says is to be adjusted for, by both.

    Attributes
    ----------
    whyprompt, dowhy : tuple of str
        Adjustment sets.
    same : bool
    note : str
        Why they differ, and whether our code takes DoWhy's set for valid.
    """

    whyprompt: tuple[str, ...]
    dowhy: tuple[str, ...]
    same: bool
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RefuterRow:
    """One refutation, by both, of the weighted estimate.

    Attributes
    ----------
    refuter : str
    dowhy_estimate, dowhy_p : float or None
        Mean of the refuted estimates, and DoWhy's p-value: small where the refutation fails.
    whyprompt_estimate : float or None
        Mean of ours.
    whyprompt_verdict : str or None
    note : str
        What failed, or what is compared.
    """

    refuter: str
    dowhy_estimate: float | None
    dowhy_p: float | None
    whyprompt_estimate: float | None
    whyprompt_verdict: str | None
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class UpliftPoint:
    """What the treated arm gains when a share of the rows gets it, those predicted to gain most first.

    Attributes
    ----------
    share : float
    causalml : float
        CausalML's cumulative gain a row: arms' means compared as they are, on the rows learned from.
    whyprompt, ci_low, ci_high : float or None
        Ours: doubly robust, each row ranked by rows of earlier folds.
    """

    share: float
    causalml: float
    whyprompt: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True, kw_only=True)
class CrossCheck(Reported):
    """DoWhy's and CausalML's figures beside ours.

    Attributes
    ----------
    treatment, outcome, treated_level, control_level : str
    estimand : str
    level : float
        Of our intervals.
    n_treated, n_control : int
    confounders : tuple of str
    rows : tuple of CrossCheckRow
        Ours first.
    identification : IdentificationCheck or None
        None without a graph.
    refuters : tuple of RefuterRow
    uplift : tuple of UpliftPoint
    versions : mapping of str to str
        Of the other environment.
    not_done : tuple of str
        What failed or does not apply, with the reason.
    warnings : tuple of str
    sentence : str
    """

    treatment: str
    outcome: str
    treated_level: str
    control_level: str
    estimand: str
    level: float
    n_treated: int
    n_control: int
    confounders: tuple[str, ...]
    rows: tuple[CrossCheckRow, ...]
    identification: IdentificationCheck | None
    refuters: tuple[RefuterRow, ...]
    uplift: tuple[UpliftPoint, ...]
    versions: Mapping[str, str]
    not_done: tuple[str, ...]
    warnings: tuple[str, ...]
    sentence: str

    def to_frame(self) -> pd.DataFrame:
        """Return the estimates.

        Returns
        -------
        pandas.DataFrame
            One row a figure, with the columns of `CrossCheckRow`.
        """
        return rows_frame(self.rows, CrossCheckRow)

    def plot(self) -> Any:  # noqa: ANN401 - a chart
        """Draw every estimate with its interval, by tool and estimand.

        Returns
        -------
        altair.LayerChart
        """
        from whyprompt import charts

        rows = [
            {
                "label": f"{row.tool}: {row.method} ({row.estimand.upper()})",
                "estimate": row.estimate,
                "low": row.ci_low,
                "high": row.ci_high,
            }
            for row in self.rows
            if row.estimate is not None
        ]
        return charts.interval_plot(rows, title=f"effect on {self.outcome}; a point alone has no interval")

    def plot_uplift(self) -> Any:  # noqa: ANN401 - a chart
        """Draw CausalML's uplift curve beside ours with its band.

        Returns
        -------
        altair.LayerChart

        Raises
        ------
        EstimationError
            If there is no curve.
        """
        from whyprompt import charts
        from whyprompt.errors import EstimationError

        if not self.uplift:
            raise EstimationError(
                "there is no uplift curve",
                hint=next((t for t in self.not_done if t.startswith("uplift")), None),
            )
        return charts.uplift_plot(
            [
                {
                    "share": p.share,
                    "CausalML": p.causalml,
                    "whyprompt": p.whyprompt,
                    "low": p.ci_low,
                    "high": p.ci_high,
                }
                for p in self.uplift
            ],
            title=f"gain in {self.outcome} a row",
        )
