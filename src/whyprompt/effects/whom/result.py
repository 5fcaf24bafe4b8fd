"""What an analysis of effects that differ between rows gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whyprompt._summary import parts_table
from whyprompt.results import Estimate, Result, rows_frame, unlisted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd

    from whyprompt.effects.whom.scores import RowScores


@dataclass(frozen=True, kw_only=True)
class HeterogeneousEffects(Result):
    """Whom the arm helps and whom it harms.

    The overall estimate is of all rows, from the same scores as the groups; the parts are the groups, from
    the rows with the smallest predicted effect to those with the largest, adjusted for their number by Holm's
    rule. Each stands `at` its mean predicted effect.

    Attributes
    ----------
    treatment, outcome, treated, control, design : str
    modifiers, confounders : tuple of str
    n_judged, n_folds : int
        Rows (items, in a paired design) that were grouped by a prediction, and folds.
    gain, harmed : Estimate or None
        Rows whose predicted effect is above 0, and below it; None where there are fewer than two.
    most_minus_least : Estimate or None
        The last group's effect less the first's.
    calibration : Estimate or None
        Slope of the effect on the predicted effect: 1 where predictions are right, 0 where they say nothing.
        Its p is one-sided: that the effect rises with its prediction.
    drivers : tuple of Estimate
        How the effect goes with each modifier, the others held fixed (best linear approximation): change of
        the effect for one unit, None for a copy of the modifiers before it; adjusted by Holm's rule.
    differs_p : float or None
        That no modifier goes with the effect (all slopes of the drivers nil).
    profile : tuple of Estimate
        How the rows most and least affected differ in each modifier.
    profile_means : mapping of str to (float, float)
        Its mean in the least and in the most affected group.
    rows : RowScores
        Of each row: `predicted` effect (NaN for rows that only taught), outcome under the treated and the
        control arm (`arms`, seen or by its doubly robust score), `fold`, share of all rows predicted to gain
        less (`ahead`) and at most as much (`upto`), sampling unit (`cluster`). Its `predict` takes a table of
        rows to come.
    """

    overall: Estimate
    treatment: str
    outcome: str
    treated: str
    control: str
    design: str
    modifiers: tuple[str, ...]
    confounders: tuple[str, ...]
    n_judged: int
    n_folds: int
    gain: Estimate | None
    harmed: Estimate | None
    most_minus_least: Estimate | None
    calibration: Estimate | None
    drivers: tuple[Estimate, ...]
    differs_p: float | None
    profile: tuple[Estimate, ...]
    profile_means: Mapping[str, tuple[float, float]]
    rows: RowScores = unlisted()

    def to_frame(self) -> pd.DataFrame:
        """Return one row for all rows, each group, those predicted to gain and to lose, and the difference.

        Returns
        -------
        pandas.DataFrame
        """
        spread = () if self.most_minus_least is None else (self.most_minus_least,)
        return rows_frame([self.overall, *self._groups(), *spread])

    def _groups(self) -> list[Estimate]:
        """Give the groups, and those predicted to gain and to lose."""
        return [*self.parts, *(row for row in (self.gain, self.harmed) if row is not None)]

    def _blocks(self) -> list[str]:
        return [parts_table(self._groups(), at="predicted", adjusted="Holm")]

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        from whyprompt.charts import interval_plot

        rows = [
            {"label": row.label, "estimate": row.estimate, "low": row.ci_low, "high": row.ci_high}
            for row in (self.overall, *self._groups())
        ]
        title = f"effect on {self.outcome}, {self.treated} minus {self.control}"
        return {"groups": lambda: interval_plot(rows, title=title)}
