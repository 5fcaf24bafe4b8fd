"""What a paired comparison gives back."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects.result import Assumption, plain
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

__all__ = ["PairedDifferences", "PairedResult", "SubgroupRow"]


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
    """

    units: tuple[str, ...]
    first_row: Ints
    treated: Floats
    control: Floats
    n_repeats: int
    incomplete: Mapping[str, int]
    incomplete_units: tuple[str, ...]
    n_other_rows: int


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
        None with fewer than two items (or clusters).
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
        None where the items (or clusters) are too few.
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
    share_gain, share_harmed, share_unchanged : float
        Items whose outcome rises, falls, stays.
    mcnemar_p : float or None
        Exact McNemar p for a 0/1 outcome.
    mcnemar_counts : tuple of int or None
        Items that only the treated arm gets right, and that only the control arm does.
    minimum_detectable : float or None
        Effect that this design detects with power 0.8 at 1 - level.
    subgroups : tuple of SubgroupRow
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
    share_gain: float
    share_harmed: float
    share_unchanged: float
    mcnemar_p: float | None
    mcnemar_counts: tuple[int, int] | None
    minimum_detectable: float | None
    subgroups: tuple[SubgroupRow, ...]
    assumptions: tuple[Assumption, ...]
    warnings: tuple[str, ...]
    sentence: str
    se_method: str
    estimand: str = "ate"
    method: str = "paired"
    differences: PairedDifferences | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold, without the per-item arrays.

        Returns
        -------
        dict
        """
        return {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name != "differences"}

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
        from scipy import stats

        if not (np.isfinite(effect) and effect != 0):
            raise EstimationError("a sample size needs an effect other than 0")
        if not 0 < power < 1:
            raise EstimationError(f"the power is {power}; it lies between 0 and 1")
        if self.std_error is None:
            raise EstimationError("the spread of the differences is not known from this table")
        spread = self.std_error * np.sqrt(self.n_pairs)
        z = float(stats.norm.ppf(0.5 + self.level / 2) + stats.norm.ppf(power))
        n = max(2, int(np.ceil((z * spread / effect) ** 2)))
        # The t distribution asks for a few more; it depends on n, so one or two steps settle it.
        for _ in range(50):
            q = float(stats.t.ppf(0.5 + self.level / 2, n - 1) + stats.t.ppf(power, n - 1))
            needed = max(2, int(np.ceil((q * spread / effect) ** 2)))
            if needed <= n:
                break
            n = needed
        return n

    def __str__(self) -> str:
        return self.sentence
