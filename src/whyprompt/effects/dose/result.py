"""What a dose-response analysis gives back."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from whyprompt.results import Assumption, plain

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["DoseBalanceRow", "DosePoint", "DoseResponse"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DosePoint:
    """The curve at one dose.

    Attributes
    ----------
    dose : float
    mean : float
        Mean outcome if every row had this dose.
    std_error, ci_low, ci_high : float
        Pointwise.
    band_low, band_high : float
        Band that holds over the whole grid at once.
    effect : float
        Difference from the mean at the reference dose.
    effect_std_error, effect_ci_low, effect_ci_high : float
        Pointwise.
    effect_band_low, effect_band_high : float
        Over the whole grid at once.
    """

    dose: float
    mean: float
    std_error: float
    ci_low: float
    ci_high: float
    band_low: float
    band_high: float
    effect: float
    effect_std_error: float
    effect_ci_low: float
    effect_ci_high: float
    effect_band_low: float
    effect_band_high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class DoseBalanceRow:
    """What balance means for a dose: no correlation with a covariate.

    Attributes
    ----------
    covariate : str
    correlation_before, correlation_after : float
    """

    covariate: str
    correlation_before: float
    correlation_after: float


@dataclass(frozen=True, kw_only=True)
class DoseResponse:
    """A dose-response curve.

    Attributes
    ----------
    treatment, outcome : str
        Columns.
    method : {"entropy", "gps", "naive"}
    points : tuple of DosePoint
        In order of the dose.
    reference : float
        The dose that effects are measured from.
    slope, slope_std_error, slope_ci_low, slope_ci_high : float
        Of the straight line through the weighted rows: the average change for one unit of the dose.
    flat_p : float or None
        p-value of no dose-response at all (Wald, all spline coefficients nil).
    nonlinear_p : float or None
        p-value of a straight line; None where the spline is one.
    knots : tuple of float
        Of the spline, the outermost ones at the ends of the dose.
    level : float
        Of the intervals and of the band.
    n : int
        Rows.
    ess : float
        Kish's effective sample size under the weights.
    balance : tuple of DoseBalanceRow
    assumptions : tuple of Assumption
    warnings : tuple of str
    sentence : str
    se_method : str
    confounders : tuple of str
    weights : ndarray, shape (n,), optional
        Not part of `to_dict`.
    """

    treatment: str
    outcome: str
    method: str
    points: tuple[DosePoint, ...]
    reference: float
    slope: float
    slope_std_error: float
    slope_ci_low: float
    slope_ci_high: float
    flat_p: float | None
    nonlinear_p: float | None
    knots: tuple[float, ...]
    level: float
    n: int
    ess: float
    balance: tuple[DoseBalanceRow, ...]
    assumptions: tuple[Assumption, ...]
    warnings: tuple[str, ...]
    sentence: str
    se_method: str
    confounders: tuple[str, ...]
    weights: Floats | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold.

        Returns
        -------
        dict
        """
        return {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name != "weights"}

    def to_frame(self) -> pd.DataFrame:
        """Return one row a dose.

        Returns
        -------
        pandas.DataFrame
            With the columns of `DosePoint`.
        """
        import pandas as pd

        return pd.DataFrame([plain(point) for point in self.points])

    def plot(self) -> Any:  # noqa: ANN401 - a chart
        """Draw the curve with the band that holds over all of it at once.

        Returns
        -------
        altair.LayerChart
        """
        from whyprompt import charts

        rows = [
            {"dose": p.dose, "estimate": p.mean, "low": p.band_low, "high": p.band_high} for p in self.points
        ]
        return charts.dose_response_plot(
            rows, dose_title=self.treatment, outcome_title=f"mean of {self.outcome}"
        )

    def __str__(self) -> str:
        return self.sentence
