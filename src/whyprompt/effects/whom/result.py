"""What an analysis of effects that differ between rows gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from whyprompt.results import Reported, rows_frame
from whyprompt.stats.design import design_matrix
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.effects.methods.aipw import OutcomeModel
    from whyprompt.results import Assumption

__all__ = ["EffectDriver", "EffectRule", "GroupEffect", "GroupProfile", "HeterogeneousEffects"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupEffect:
    """The effect on rows that were grouped by an effect predicted from other rows.

    Attributes
    ----------
    name : str
    n : int
        Rows (items, in a paired design).
    predicted : float
        Mean predicted effect.
    estimate : float
        Mean effect, from the rows' own outcomes.
    std_error, ci_low, ci_high, p_value : float or None
        None where the rows show no spread, or are all in one cluster.
    p_holm : float or None
        Adjusted for the number of groups.
    """

    name: str
    n: int
    predicted: float
    estimate: float
    std_error: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_holm: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class EffectDriver:
    """How the effect goes with one modifier, the others held fixed (best linear approximation).

    Attributes
    ----------
    modifier : str
    slope : float or None
        Change of the effect for one unit of the modifier; None for a copy of the modifiers before it.
    std_error, ci_low, ci_high, p_value : float or None
    p_holm : float or None
        Adjusted for the number of modifiers.
    """

    modifier: str
    slope: float | None
    std_error: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_holm: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupProfile:
    """How the rows most and least affected differ in one modifier.

    Attributes
    ----------
    modifier : str
    mean_least, mean_most, difference : float
    ci_low, ci_high : float or None
    """

    modifier: str
    mean_least: float
    mean_most: float
    difference: float
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EffectRule:
    """A model of the effect fitted to all rows, for rows to come."""

    modifiers: tuple[str, ...]
    levels: Mapping[str, tuple[str, ...]]
    model: OutcomeModel

    def predict(self, frame: Any) -> NDArray[np.float64]:  # noqa: ANN401 - any frame
        """Predict the effect on each row of a table.

        Parameters
        ----------
        frame : DataFrame
            With the modifiers.

        Returns
        -------
        ndarray, shape (n,)
        """
        import numpy as np

        table = open_table(frame)
        columns = {name: table.values(name, role="modifier") for name in self.modifiers}
        matrix = design_matrix(columns, levels=self.levels).matrix
        return np.asarray(self.model.predict(matrix), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class HeterogeneousEffects(Reported):
    """Whom the arm helps and whom it harms.

    Attributes
    ----------
    treatment, outcome, treated_level, control_level, design : str
    modifiers, confounders : tuple of str
    n, n_judged, n_folds : int
        Rows (items, in a paired design), those of them that were grouped by a prediction, and folds.
    level : float
        Of the intervals.
    average : GroupEffect
        Of all rows, from the same scores.
    groups : tuple of GroupEffect
        From the rows with the smallest predicted effect to those with the largest.
    gain, harmed : GroupEffect or None
        Rows whose predicted effect is above 0, and below it; None where there are fewer than two.
    most_minus_least : GroupEffect or None
        The last group's effect less the first's.
    calibration, calibration_std_error, calibration_ci_low, calibration_ci_high : float or None
        Slope of the effect on the predicted effect: 1 where predictions are right, 0 where they say nothing.
    calibration_p : float or None
        One-sided: that the effect rises with its prediction.
    drivers : tuple of EffectDriver
    differs_p : float or None
        That no modifier goes with the effect (all slopes of the drivers nil).
    profile : tuple of GroupProfile
    assumptions : tuple of Assumption
    warnings : tuple of str
    sentence : str
    predicted, scores, folds, ahead, upto, cluster, rule
        Arrays of the rows (predicted effect, NaN for rows that only taught; outcome under the treated and the
        control arm, seen or by its doubly robust score; fold; share of all rows predicted to gain less, and
        at most as much; sampling unit) and the model for rows to come. Not part of `to_dict`.
    """

    _unlisted: ClassVar[frozenset[str]] = frozenset(
        {"predicted", "scores", "folds", "ahead", "upto", "cluster", "rule"}
    )

    treatment: str
    outcome: str
    treated_level: str
    control_level: str
    design: str
    modifiers: tuple[str, ...]
    confounders: tuple[str, ...]
    n: int
    n_judged: int
    n_folds: int
    level: float
    average: GroupEffect
    groups: tuple[GroupEffect, ...]
    gain: GroupEffect | None
    harmed: GroupEffect | None
    most_minus_least: GroupEffect | None
    calibration: float | None
    calibration_std_error: float | None
    calibration_ci_low: float | None
    calibration_ci_high: float | None
    calibration_p: float | None
    drivers: tuple[EffectDriver, ...]
    differs_p: float | None
    profile: tuple[GroupProfile, ...]
    assumptions: tuple[Assumption, ...]
    warnings: tuple[str, ...]
    sentence: str
    predicted: NDArray[np.float64] = field(repr=False, compare=False)
    scores: NDArray[np.float64] = field(repr=False, compare=False)
    folds: NDArray[np.int64] = field(repr=False, compare=False)
    ahead: NDArray[np.float64] = field(repr=False, compare=False)
    upto: NDArray[np.float64] = field(repr=False, compare=False)
    cluster: NDArray[Any] | None = field(repr=False, compare=False)
    rule: EffectRule = field(repr=False, compare=False)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a group, with all rows, those predicted to gain and those predicted to be harmed.

        Returns
        -------
        pandas.DataFrame
            With the columns of `GroupEffect`.
        """
        shown = [self.average, *self.groups, self.gain, self.harmed, self.most_minus_least]
        return rows_frame([row for row in shown if row is not None], GroupEffect)

    def plot(self) -> Any:  # noqa: ANN401 - a chart
        """Draw the effect on each group with its interval.

        Returns
        -------
        altair.LayerChart
        """
        from whyprompt import charts

        shown = [self.average, *self.groups, *(row for row in (self.gain, self.harmed) if row is not None)]
        rows = [
            {"label": row.name, "estimate": row.estimate, "low": row.ci_low, "high": row.ci_high}
            for row in shown
        ]
        return charts.interval_plot(
            rows, title=f"effect on {self.outcome}, {self.treated_level} minus {self.control_level}"
        )
