"""What learners learn from: covariates as numbers, and levels too many to have a column each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from whyprompt.stats.absorb import drawn_means, level_effects
from whyprompt.stats.design import design_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.problem import Problem

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

# Levels of a text column beyond which each has no column of its own.
_WIDE = 100


class Covariates(NamedTuple):
    """What learners learn from: numbers, and text columns of so many levels that each has no column.

    `codes`, shape (n, k), are the places of the rows' levels; a level is replaced by the mean of what is
    learned, drawn towards that of all rows where its own are few.
    """

    matrix: Floats
    codes: Ints

    @classmethod
    def of(cls, problem: Problem, *, dense: bool = False) -> Covariates:
        """Read the covariates of a problem, every level as a column where `dense`."""
        design = problem.design
        wide = [] if dense else [name for name, found in design.levels.items() if len(found) > _WIDE]
        if not wide:
            return cls(design.matrix, np.empty((len(problem.y), 0), dtype=np.int64))
        narrow = {name: values for name, values in problem.columns.items() if name not in wide}
        matrix = design_matrix(narrow, n_rows=len(problem.y)).matrix
        return cls(matrix, np.column_stack([design.codes[name] for name in wide]))

    def level_effects(self, train: Bools, treated: Bools, y: Floats) -> Floats:
        """Give what levels without columns add to the outcome in both arms alike, shape (n,).

        By least squares on the rows `train`, not drawn towards each other: with twenty rows a level, means
        that are drawn leave enough of the levels' confounding for most intervals to miss.
        """
        if not self.codes.shape[1]:
            return np.zeros(len(y))
        return level_effects(self.codes, np.column_stack([treated, self.matrix]), y, train)

    def split(self, train: Bools, test: Bools, target: Floats) -> tuple[Floats, Floats]:
        """Give the rows to learn from and those to predict, as numbers.

        A row to learn from has the means of its levels from others, so that a level of few rows does not
        tell what it is to be learned.
        """
        X, new = self.matrix[train], self.matrix[test] if len(test) else self.matrix[:0]
        if not self.codes.shape[1]:
            return X, new
        there = self.codes[test] if len(test) else self.codes[:0]
        means = [
            drawn_means(old, target[train], other)
            for old, other in zip(self.codes[train].T, there.T, strict=True)
        ]
        return np.column_stack([X, *(m[0] for m in means)]), np.column_stack([new, *(m[1] for m in means)])
