"""Whether lines are enough: what squares, fifths and products of the covariates show of an estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.effects.methods.covariates import Covariates
from whyprompt.effects.methods.learners import LINEAR
from whyprompt.stats.design import independent_columns, moments, weighted_gram
from whyprompt.stats.left_over import left_over

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.methods.method import Fit, Plan
    from whyprompt.effects.problem import Problem

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]


def left_of_covariates(problem: Problem, plan: Plan, fit: Fit) -> tuple[float, float]:
    """Give how far the estimate would move by what is left of the covariates, their curves and products.

    What the outcome model left of the outcome, or the outcome where there is no model, as far as covariates
    predict it, over the difference that the weights left between an arm and the rows that the effect is
    about. With it the standard error that chance alone gives this.
    """
    treated, weights = problem.treated, fit.weights
    matrix = Covariates.of(problem).matrix
    residual = problem.y if fit.residual is None else fit.residual
    about = _about(problem, plan, fit)
    own = {"att": 1.0, "atc": -1.0}.get(plan.estimand, 0.0)
    total, variance = 0.0, 0.0
    for sign, arm in ((1.0, treated), (-1.0, ~treated)):
        # The arm that the effect is about stands for itself.
        if sign != own:
            moved, chance = left_over(matrix, residual, weights * arm, about)
            total, variance = total + sign * moved, variance + chance**2
    return total, float(np.sqrt(variance))


def _about(problem: Problem, plan: Plan, fit: Fit) -> Floats:
    """Give the weights of the rows that the effect is about, before either arm is made like them."""
    treated, weights, score = problem.treated, fit.weights, fit.propensity
    if plan.estimand == "ato":
        return weights if score is None else np.where(weights > 0, score * (1.0 - score), 0.0)
    side = {"att": treated, "atc": ~treated}.get(plan.estimand, np.ones(len(treated), dtype=bool))
    # Rows of the arm that the effect is about count as the method counts them; of the ATE each counts once.
    return np.where(side & (weights > 0), weights if plan.estimand != "ate" else 1.0, 0.0)


def by_lines(problem: Problem, plan: Plan, fit: Fit) -> float | None:
    """Give the estimate that straight lines alone would have, by least squares in each arm.

    None for a method that does not learn curves, where a text column has more levels than get a column, and
    where the chances of the arm are known: the estimate is then right whatever was learned.
    """
    method = plan.method
    linear = getattr(method, "outcome_model", None) == LINEAR
    if not method.dealt or linear or problem.known_score is not None:
        return None
    covariates = Covariates.of(problem)
    if covariates.codes.shape[1] or not covariates.matrix.shape[1]:
        return None
    X, about = covariates.matrix, _about(problem, plan, fit)
    about = about / about.sum()
    kept = np.array(independent_columns(X, *moments(X)), dtype=np.intp)
    X = X[:, kept]
    wanted, means = about @ X, []
    for arm in (problem.treated, ~problem.treated):
        share = arm / arm.sum()
        centre, level = share @ X, float(share @ problem.y)
        moved = X - centre
        slope = np.linalg.pinv(weighted_gram(moved, share), hermitian=True) @ (moved.T @ (share * problem.y))
        means.append(level + float((wanted - centre) @ slope))
    return means[0] - means[1]
