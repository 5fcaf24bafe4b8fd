"""What columns that are added to a regression move of its slope, beside what chance would."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from whyprompt.stats.influence import least_squares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# Of the arm's variance that is left beside the known columns: with less the added ones all but tell the arm.
_SPARE = 0.25


class Moved(NamedTuple):
    """`move` of the arm's slope, the `error` that it has where the added columns say nothing of the outcome.

    `tells` says that they tell the arm, or are so many, that the rows do not say what they move; `df` are the
    error's degrees of freedom.
    """

    move: float
    error: float
    tells: bool
    df: float = np.inf


def moved_by(y: Floats, treated: NDArray[np.bool_], known: Floats, added: Floats) -> Moved:
    """Regress on the arm and known columns, shape (n, p), and on added ones, shape (n, q), too.

    Given the columns, the slope with those that say nothing of the outcome differs from the slope without
    them by the difference of their variances (Hausman 1978, Econometrica 46), however many they are; by more
    where the rows' own residuals say so (White 1980, Econometrica 48), as where these spread by the columns.

    >>> import numpy as np
    >>> x = np.arange(40.0)
    >>> arm = (7 * x) % 11 + x / 10 > 7
    >>> made = moved_by(arm + x, arm, np.zeros((40, 0)), x[:, None])
    >>> without = (arm + x)[arm].mean() - (arm + x)[~arm].mean()
    >>> round(float(without + made.move), 6), made.error < 1e-6, made.tells
    (1.0, True, False)
    """
    n, arm = len(y), treated.astype(float)
    before = np.column_stack([np.ones(n), known])
    after = np.column_stack([before, added])
    rest, with_them = (arm - least_squares(columns, arm)[0] for columns in (before, after))
    left = float(rest @ rest), float(with_them @ with_them)
    predicted, leverage = least_squares(after, y)
    spare = n - float(leverage.sum()) - 1.0
    if left[1] <= _SPARE * left[0] or spare < 1.0:
        return Moved(np.nan, np.nan, tells=True)
    slope = float(with_them @ y) / left[1]
    squares = (y - predicted - slope * with_them) ** 2
    alike = float(squares.sum()) * max(1.0 / left[1] - 1.0 / left[0], 0.0)
    own = float(squares @ (with_them / left[1] - rest / left[0]) ** 2) * n
    error = float(np.sqrt(max(alike, own) / spare))
    return Moved(slope - float(rest @ y) / left[0], error, tells=False, df=spare)
