"""What a model of the effect learns from: the scores of rows, their weights, and what the rows had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects.methods.covariates import Covariates

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.methods.learners import OutcomeModel

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evidence:
    """What a model of the effect learns from, one value a row, shape (n,).

    Rows of one `unit` (a cluster, numbered from 0) are left out together. `weight` is the precision of the
    scores: that of rows with one arm is about e (1 - e). What follows it is of rows that had one arm each;
    `between` is the effect by the outcome models `arms`, the treated arm's and the control arm's, that saw
    other folds, where modifiers are all that they look at.
    """

    modifiers: Floats  # shape (n, q)
    effect: Floats  # the score of the effect
    unit: Ints
    weight: Floats
    covariates: Covariates | None = None
    y: Floats | None = None
    treated: Bools | None = None
    score: Floats | None = None  # of the arm
    outcome_model: OutcomeModel | str | None = None
    between: Floats | None = None
    arms: tuple[OutcomeModel, OutcomeModel] | None = None

    def take(self, rows: Any) -> Evidence:  # noqa: ANN401 - a mask, a slice or places
        """Give the evidence of some rows."""
        names = ("modifiers", "effect", "weight", "y", "treated", "score", "between")
        given = {name: getattr(self, name) for name in names}
        kept: dict[str, Any] = {name: x if x is None else x[rows] for name, x in given.items()}
        kept["unit"] = in_sequence(self.unit[rows])
        if self.covariates is not None:
            kept["covariates"] = Covariates(*(x[rows] for x in self.covariates))
        return Evidence(**kept, outcome_model=self.outcome_model, arms=self.arms)


def in_sequence(labels: NDArray[Any]) -> Ints:
    """Give units numbers from 0 in the order in which they come up, whatever they are called.

    >>> in_sequence(np.array(["b", "a", "b", "c"])).tolist()
    [0, 1, 0, 2]
    """
    _, first, code = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[code]
