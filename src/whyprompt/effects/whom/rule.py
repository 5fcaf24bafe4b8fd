"""The model of the effect that all rows give, for rows to come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects.whom.result import EffectRule
from whyprompt.stats.influence import with_intercept
from whyprompt.stats.threads import one_openmp_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from whyprompt.effects.methods.aipw import OutcomeModel
    from whyprompt.stats.design import Design

    Floats = NDArray[np.float64]

__all__ = ["effect_rule"]


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
