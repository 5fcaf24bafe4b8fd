"""The logistic propensity score, and what its estimation moves; text columns of many levels are absorbed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from whyprompt._words import counted
from whyprompt.stats.absorb import absorbed, absorbed_logit
from whyprompt.stats.design import weighted_gram
from whyprompt.stats.propensity import SeparatedError, fit_logistic
from whyprompt.stats.regression import mean_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from whyprompt.effects.problem import Problem
    from whyprompt.stats.absorb import Absorbed
    from whyprompt.stats.regression import Regression

    Floats = NDArray[np.float64]


class LogisticScore(NamedTuple):
    """A score of maximum likelihood, arrays of shape (n,)."""

    linear: Floats
    fitted: Floats
    # Covariates that are constant or that others determine.
    dropped: tuple[str, ...]
    # Of weights: values to ``X (X' W X)^-1 X' values``, the regressors X with an intercept; see `Absorbed`.
    projector: Callable[[Floats], Callable[[Floats], Floats]]
    # The regression; None where levels are absorbed.
    logit: Regression | None


def logistic_score(problem: Problem) -> LogisticScore:
    """Fit the score; covariates that separate the arms are refused (`SeparatedError`)."""
    x = absorbed(problem.columns, problem.design.levels)
    if x is not None:
        linear = _with_levels(x, problem.treated)
        return LogisticScore(linear, mean_of("logit", linear), x.dropped, x.projector, None)
    design = problem.design
    fit = fit_logistic(design.matrix, problem.treated, names=design.names)

    def projector(weights: Floats) -> Callable[[Floats], Floats]:
        kept = [j for j, name in enumerate(design.names) if name not in fit.dropped]
        regressors = _scaled(design.matrix, kept)
        information = weighted_gram(regressors, weights)
        return lambda values: np.asarray(
            regressors @ np.linalg.solve(information, regressors.T @ values), dtype=np.float64
        )

    return LogisticScore(fit.linear, fit.fitted, fit.dropped, projector, fit)


def _scaled(matrix: Floats, kept: list[int]) -> Floats:
    """Give columns scaled, with an intercept: a projection does not depend on it, rounding does."""
    out = np.empty((len(matrix), len(kept) + 1), order="F")
    out[:, 0] = 1.0
    for place, j in enumerate(kept, start=1):
        np.subtract(matrix[:, j], matrix[:, j].mean(), out=out[:, place])
        out[:, place] /= out[:, place].std()
    return out


def _with_levels(x: Absorbed, treated: NDArray[np.bool_]) -> Floats:
    k = len(x.levels)
    counts = [np.bincount(x.code[arm], minlength=k) for arm in (treated, ~treated)]
    alone = int(((counts[0] == 0) != (counts[1] == 0)).sum())
    way = f"exact=[{x.column!r}]"
    if alone:
        raise SeparatedError(
            f"the propensity score is separated: one arm has {counted(alone, 'level')} of {x.column!r} alone,"
            f" of {k}",
            hint=f"match exactly on it, method='nearest' with {way}, which leaves their rows out",
        )
    linear = absorbed_logit(x, treated.astype(float))
    if linear is None:
        raise SeparatedError(
            f"the propensity score is separated: within levels of {x.column!r} the other covariates predict"
            " the arm without error, for some rows or for all",
            hint=f"leave {x.column!r} out of the confounders and match exactly on it, method='nearest' with"
            f" {way}; or merge its rare levels",
        )
    return linear
