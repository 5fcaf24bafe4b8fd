"""What a paired comparison gives back."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects.paired.items import ItemChanges
from whyprompt.effects.paired.power import detectable_effect, items_needed
from whyprompt.errors import EstimationError
from whyprompt.results import Assumption, Measure, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

__all__ = ["ItemChanges", "PairedDifferences", "PairedResult", "SubgroupRow"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PairedDifferences:
    """Both outcomes of each complete item.

    Attributes
    ----------
    units : tuple of str
        Items with both outcomes, in order of first appearance.
    first_row : ndarray of int, shape (items,)
        First row of each item in the table.
    treated, control : ndarray, shape (items,)
        Outcomes, averaged over repeats.
    n_repeats : int
        Rows beyond one for each item and arm.
    incomplete : mapping of str to int
        Why items are not complete, and how many.
    incomplete_units : tuple of str
        The first twenty of them.
    n_other_rows : int
        Rows of other arms, not used.
    trial_item, trial_treated, trial_outcome : ndarray, shape (trials,)
        The trials that the means are of: place of the item in `units`, whether it is of the treated arm, and
        the outcome.
    """

    units: tuple[str, ...]
    first_row: Ints
    treated: Floats
    control: Floats
    n_repeats: int
    incomplete: Mapping[str, int]
    incomplete_units: tuple[str, ...]
    n_other_rows: int
    trial_item: Ints
    trial_treated: NDArray[np.bool_]
    trial_outcome: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class SubgroupRow:
    """The effect within one subgroup.

    Attributes
    ----------
    by, level : str
        Column and value.
    n_pairs : int
    estimate : float
    std_error, ci_low, ci_high, p_value : float or None
        None with fewer than two items (or clusters), or where all change by the same amount.
    p_holm : float or None
        Adjusted for the number of subgroups looked at.
    """

    by: str
    level: str
    n_pairs: int
    estimate: float
    std_error: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_holm: float | None


@dataclass(frozen=True, kw_only=True)
class PairedResult:
    """The average within-item difference.

    Attributes
    ----------
    outcome, treated, control : str
        Column and arms.
    estimate : float
        Mean of the within-item differences, treated minus control.
    std_error, ci_low, ci_high : float or None
        None where the items (or clusters) are too few, or all change by the same amount (the interval of a
        0/1 outcome is then still given).
    level : float
        Of the interval.
    df : float or None
        Degrees of freedom of the t distribution used.
    p_value : float or None
        Two-sided.
    mean_treated, mean_control : float
        Over complete items.
    n_pairs, n_clusters : int
        Complete items, and sampling units.
    n_incomplete : int
        Items left out.
    incomplete : mapping of str to int
        Why.
    items : ItemChanges
        How single items fare: counts of these trials, and how many items must gain or be harmed, as far as
        repeats show it.
    mcnemar_p : float or None
        Exact McNemar p for a 0/1 outcome; None with clusters, whose items it would take to be independent.
    mcnemar_counts : tuple of int or None
        Items that only the treated arm gets right in these trials, and that only the control arm does.
    minimum_detectable : float or None
        Effect that this design detects with power 0.8 at 1 - level.
    subgroups : tuple of SubgroupRow
    heterogeneity : mapping of str to float
        For each `by` column, the p-value of equal effects in its subgroups (Welch's analysis of variance);
        not given with clusters.
    measures : tuple of Measure
        For a 0/1 outcome: risk difference, risk ratio and odds ratio (marginal), with errors that account for
        the pairing.
    assumptions : tuple of Assumption
    warnings : tuple of str
    sentence : str
    se_method : str
    differences : PairedDifferences, optional
        Not part of `to_dict`.
    """

    outcome: str
    treated: str
    control: str
    estimate: float
    std_error: float | None
    ci_low: float | None
    ci_high: float | None
    level: float
    df: float | None
    p_value: float | None
    mean_treated: float
    mean_control: float
    n_pairs: int
    n_clusters: int
    n_incomplete: int
    incomplete: Mapping[str, int]
    items: ItemChanges
    mcnemar_p: float | None
    mcnemar_counts: tuple[int, int] | None
    minimum_detectable: float | None
    subgroups: tuple[SubgroupRow, ...]
    assumptions: tuple[Assumption, ...]
    warnings: tuple[str, ...]
    sentence: str
    se_method: str
    measures: tuple[Measure, ...] = ()
    heterogeneity: Mapping[str, float] = field(default_factory=dict)
    estimand: str = "ate"
    method: str = "paired"
    differences: PairedDifferences | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold, without the per-item arrays.

        Returns
        -------
        dict
        """
        shown = {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name != "differences"}
        # The keys of an `EffectResult`, so that one reader serves both: every item is in both arms.
        total = self.n_pairs + self.n_incomplete
        shown |= {"n_treated": total, "n_control": total}
        shown |= {"n_treated_used": self.n_pairs, "n_control_used": self.n_pairs, "balance": []}
        return shown

    def to_frame(self) -> pd.DataFrame:
        """Return the overall row and the subgroups.

        Returns
        -------
        pandas.DataFrame
            One row each, ``by`` empty for the overall row.
        """
        import pandas as pd

        overall = SubgroupRow(
            by="",
            level="",
            n_pairs=self.n_pairs,
            estimate=self.estimate,
            std_error=self.std_error,
            ci_low=self.ci_low,
            ci_high=self.ci_high,
            p_value=self.p_value,
            p_holm=self.p_value,
        )
        return pd.DataFrame([plain(row) for row in (overall, *self.subgroups)])

    def sample_size(self, effect: float, *, power: float = 0.8) -> int:
        """Return how many items of this kind would detect an effect.

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
            If the effect is 0, the power is not between 0 and 1, or the spread is not known.
        """
        if not (np.isfinite(effect) and effect != 0):
            raise EstimationError("a sample size needs an effect other than 0")
        if self.std_error is None or self.df is None:
            raise EstimationError("the spread of the differences is not known from this table")
        return items_needed(
            effect, error=self.std_error, df=self.df, n=self.n_pairs, level=self.level, power=power
        )

    def detectable(self, *, n: int | None = None, power: float = 0.8) -> float:
        """Return the effect that a number of items of this kind would detect.

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
            If the power is not between 0 and 1, the spread is not known, or `n` is below 2.
        """
        if self.std_error is None or self.df is None:
            raise EstimationError("the spread of the differences is not known from this table")
        items = self.n_pairs if n is None else n
        if items < 2:
            raise EstimationError(f"{items} item(s) cannot detect anything; give at least 2")
        scale = items / self.n_pairs
        df = max(self.df * scale if self.n_clusters < self.n_pairs else items - 1.0, 1.0)
        return detectable_effect(self.std_error / np.sqrt(scale), df=df, level=self.level, power=power)

    def plot(self) -> Any:  # noqa: ANN401 - a chart
        """Draw the effect and its subgroups as a forest plot.

        Returns
        -------
        altair.Chart
        """
        from whyprompt import charts

        return charts.forest_plot(self)

    def __str__(self) -> str:
        return self.sentence
