"""What a comparison of many arms gives back."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from whyprompt.results import Assumption, plain
from whyprompt.tables import level_name

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["ArmContrast", "ArmMean", "ArmsResult", "PairBalanceRow"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmMean:
    """One arm's mean in the population of the estimand.

    Attributes
    ----------
    arm : str
    n : int
        Rows.
    ess : float
        Kish's effective sample size under the weights.
    mean : float
    std_error : float or None
        None where the rows show no spread, or are all in one cluster.
    """

    arm: str
    n: int
    ess: float
    mean: float
    std_error: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmContrast:
    """The effect of one arm in place of another.

    Attributes
    ----------
    arm, reference : str
    estimate, std_error, ci_low, ci_high, p_value : float or None
        For this pair by itself; None where the pair could not be estimated.
    p_holm : float or None
        Adjusted for the number of pairs by Holm's rule.
    p_max_t : float or None
        Adjusted by the joint distribution of all pairs (Tukey's all-pairs comparison for weighted means, made
        step-down); None for methods that match each pair by itself, whose joint distribution is not known.
    simultaneous_low, simultaneous_high : float or None
        Interval that holds for all pairs at once: from the joint distribution, or Bonferroni's.
    n_arm, n_reference, n_arm_used, n_reference_used : int
        Rows.
    largest_smd : float or None
        Largest absolute standardised mean difference between the two after adjustment.
    note : str
        Why there is no estimate.
    """

    arm: str
    reference: str
    estimate: float | None
    std_error: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_holm: float | None
    p_max_t: float | None
    simultaneous_low: float | None
    simultaneous_high: float | None
    n_arm: int
    n_reference: int
    n_arm_used: int
    n_reference_used: int
    largest_smd: float | None
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairBalanceRow:
    """The worst balance of one covariate over all pairs of arms.

    Attributes
    ----------
    covariate : str
    smd_before, smd_after : float or None
        Largest absolute standardised mean difference. None where the denominator is zero.
    worst_pair : tuple of str
        The two arms that differ most after adjustment.
    """

    covariate: str
    smd_before: float | None
    smd_after: float | None
    worst_pair: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class ArmsResult:
    """Every pair of many arms.

    Attributes
    ----------
    treatment, outcome, estimand, method : str
    reference : str
        The arm that others are compared with, first or alone.
    focal : str or None
        The arm whose population an ATT speaks of.
    means : tuple of ArmMean
        Empty for methods that match each pair by itself.
    rows : tuple of ArmContrast
        Every pair, the reference's first; or its comparisons alone, where a reference was asked for.
    balance : tuple of PairBalanceRow
    adjustment : str
        Where the simultaneous intervals come from.
    level : float
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
    estimand: str
    method: str
    reference: str
    focal: str | None
    means: tuple[ArmMean, ...]
    rows: tuple[ArmContrast, ...]
    balance: tuple[PairBalanceRow, ...]
    adjustment: str
    level: float
    assumptions: tuple[Assumption, ...]
    warnings: tuple[str, ...]
    sentence: str
    se_method: str
    confounders: tuple[str, ...]
    weights: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold.

        Returns
        -------
        dict
        """
        return {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name != "weights"}

    def to_frame(self) -> pd.DataFrame:
        """Return one row a pair of arms.

        Returns
        -------
        pandas.DataFrame
            With the columns of `ArmContrast`.
        """
        import pandas as pd

        return pd.DataFrame([plain(row) for row in self.rows])

    def contrast(self, arm: object, reference: object) -> ArmContrast:
        """Return one pair, in the order asked for.

        Parameters
        ----------
        arm, reference : object
            Two arms.

        Returns
        -------
        ArmContrast

        Raises
        ------
        EstimationError
            If there is no such pair.
        """
        from dataclasses import replace

        from whyprompt.errors import EstimationError

        wanted = (level_name(arm), level_name(reference))
        for row in self.rows:
            if (row.arm, row.reference) == wanted:
                return row
            if (row.reference, row.arm) == wanted:

                def minus(value: float | None) -> float | None:
                    return None if value is None else -value

                return replace(
                    row,
                    arm=row.reference,
                    reference=row.arm,
                    estimate=minus(row.estimate),
                    ci_low=minus(row.ci_high),
                    ci_high=minus(row.ci_low),
                    simultaneous_low=minus(row.simultaneous_high),
                    simultaneous_high=minus(row.simultaneous_low),
                    n_arm=row.n_reference,
                    n_reference=row.n_arm,
                    n_arm_used=row.n_reference_used,
                    n_reference_used=row.n_arm_used,
                )
        raise EstimationError(f"there is no pair of {wanted[0]!r} and {wanted[1]!r} among the arms")

    def plot(self) -> Any:  # noqa: ANN401 - a chart
        """Draw the contrasts as a forest plot.

        Returns
        -------
        altair.Chart
        """
        from whyprompt import charts

        return charts.forest_plot(self)

    def __str__(self) -> str:
        return self.sentence
