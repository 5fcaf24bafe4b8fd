"""What an analysis of effects that differ between rows gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._summary import parts_table
from whyprompt.results import Estimate, Point, Result, rows_frame, unlisted
from whyprompt.stats.design import design_matrix
from whyprompt.stats.influence import with_intercept
from whyprompt.stats.threads import one_openmp_thread
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.effects.methods.aipw import OutcomeModel
    from whyprompt.stats.design import Design

    Floats = NDArray[np.float64]

__all__ = ["EffectRule", "HeterogeneousEffects", "effect_rule"]


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
        table = open_table(frame)
        columns = {name: table.values(name, role="modifier") for name in self.modifiers}
        matrix = design_matrix(columns, levels=self.levels).matrix
        return np.asarray(self.model.predict(matrix), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class HeterogeneousEffects(Result):
    """Whom the arm helps and whom it harms.

    The overall estimate is of all rows, from the same scores as the groups; the parts are the groups, from
    the rows with the smallest predicted effect to those with the largest, adjusted for their number by Holm's
    rule. Each is a `Point` at its mean predicted effect.

    Attributes
    ----------
    treatment, outcome, treated, control, design : str
    modifiers, confounders : tuple of str
    n_judged, n_folds : int
        Rows (items, in a paired design) that were grouped by a prediction, and folds.
    gain, harmed : Point or None
        Rows whose predicted effect is above 0, and below it; None where there are fewer than two.
    most_minus_least : Point or None
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
    predicted, scores, folds, ahead, upto, cluster : ndarray
        Of the rows: predicted effect, NaN for rows that only taught; outcome under the treated and the
        control arm, seen or by its doubly robust score; fold; share of all rows predicted to gain less, and
        at most as much; sampling unit.
    rule : EffectRule
        The model for rows to come.
    """

    overall: Point
    treatment: str
    outcome: str
    treated: str
    control: str
    design: str
    modifiers: tuple[str, ...]
    confounders: tuple[str, ...]
    n_judged: int
    n_folds: int
    gain: Point | None
    harmed: Point | None
    most_minus_least: Point | None
    calibration: Estimate | None
    drivers: tuple[Estimate, ...]
    differs_p: float | None
    profile: tuple[Estimate, ...]
    profile_means: Mapping[str, tuple[float, float]]
    predicted: NDArray[np.float64] = field(repr=False, compare=False, metadata={"listed": False})
    scores: NDArray[np.float64] = field(repr=False, compare=False, metadata={"listed": False})
    folds: NDArray[np.int64] = field(repr=False, compare=False, metadata={"listed": False})
    ahead: NDArray[np.float64] = field(repr=False, compare=False, metadata={"listed": False})
    upto: NDArray[np.float64] = field(repr=False, compare=False, metadata={"listed": False})
    rule: EffectRule = field(repr=False, compare=False, metadata={"listed": False})
    cluster: NDArray[Any] | None = unlisted()

    def to_frame(self) -> pd.DataFrame:
        """Return one row for all rows, each group, those predicted to gain and to lose, and the difference.

        Returns
        -------
        pandas.DataFrame
        """
        shown = [self.overall, *self.parts, self.gain, self.harmed, self.most_minus_least]
        return rows_frame([row for row in shown if row is not None])

    def _blocks(self) -> list[str]:
        shown = [*self.parts, *(row for row in (self.gain, self.harmed) if row is not None)]
        return [parts_table(shown, at="predicted", adjusted="Holm")]

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        from whyprompt.charts import interval_plot

        shown = [row for row in (self.overall, *self.parts, self.gain, self.harmed) if row is not None]
        rows = [
            {"label": row.label, "estimate": row.estimate, "low": row.ci_low, "high": row.ci_high}
            for row in shown
        ]
        title = f"effect on {self.outcome}, {self.treated} minus {self.control}"
        return {"groups": lambda: interval_plot(rows, title=title)}


@dataclass(slots=True, eq=False)
class _LeastSquares:
    """Least squares on standardised columns, as a scikit-learn regressor."""

    centre: Floats = field(default_factory=lambda: np.zeros(0))
    scale: Floats = field(default_factory=lambda: np.ones(0))
    coef: Floats = field(default_factory=lambda: np.zeros(1))

    def fit(self, X: Any, y: Any) -> _LeastSquares:  # noqa: ANN401 - as scikit-learn
        """Fit."""
        self.centre = np.asarray(X.mean(axis=0))
        self.scale = np.where(X.std(axis=0) > 0, X.std(axis=0), 1.0)
        matrix = with_intercept((X - self.centre) / self.scale)
        self.coef = np.linalg.lstsq(matrix, y, rcond=1e-10)[0]
        return self

    def predict(self, X: Any) -> Any:  # noqa: ANN401 - as scikit-learn
        """Predict."""
        return with_intercept((X - self.centre) / self.scale) @ self.coef


def effect_rule(
    columns: Mapping[str, NDArray[Any]],
    shown: Design,
    effect: Floats,
    model: OutcomeModel | None,
    rank: NDArray[np.int64],
) -> EffectRule:
    """Fit the effect model to the scores of all rows.

    Parameters
    ----------
    columns : mapping of str to ndarray
        Modifiers as read.
    shown : Design
        The same as numbers.
    effect : ndarray, shape (n,)
        Scores.
    model : scikit-learn regressor, optional
        Default least squares.
    rank : ndarray of int, shape (n,)
        Order in which rows are fitted.

    Returns
    -------
    EffectRule
    """
    order = np.argsort(rank, kind="stable")
    fitted: Any = _LeastSquares()
    if model is not None:
        from sklearn.base import clone

        fitted = clone(model)
    with one_openmp_thread(len(order)):
        fitted.fit(shown.matrix[order], effect[order])
    return EffectRule(modifiers=tuple(columns), levels=dict(shown.levels), model=fitted)
