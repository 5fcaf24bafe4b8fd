"""What every estimator is: options of its own, and a fit to the arrays of a problem.

A method is a frozen dataclass of the options that it has, checked where it is made; an option without a
meaning cannot be written. `Method.fit` takes a `Problem` and the `Plan` (what is asked of any method) and
gives a `Fit`: one number with its error, and what it came from.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from whyprompt.errors import EstimationError
from whyprompt.results import Estimate
from whyprompt.stats.propensity import crossfit_propensity, fit_logistic
from whyprompt.stats.several import two_sided_p

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.checks.balance import Denominator
    from whyprompt.effects.methods.matched import MatchedSet
    from whyprompt.effects.problem import Problem
    from whyprompt.stats.regression import Regression

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

__all__ = ["Fit", "Method", "Plan", "Score", "distance_above_zero", "estimate_score", "one_of", "told"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is computed from a problem, settled and checked (by `make.settle_plan`).

    Attributes
    ----------
    method : Method
        With its own options.
    estimand : {"att", "atc", "ate", "ato"}
    level, std_error, draws, denominator, random_state
        As in `estimate_effect`.
    score_model : scikit-learn classifier, optional
        In place of the logistic score.
    """

    method: Method
    estimand: str
    level: float = 0.95
    std_error: str = "auto"
    draws: int = 1000
    denominator: Denominator = "pooled"
    random_state: int = 0
    score_model: Any = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Score:
    """A propensity score, its logistic fit where there is one, and what is matched on."""

    propensity: Floats
    fit: Regression | None
    along: Floats


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fit:
    """An estimate with its error and what it came from.

    Attributes
    ----------
    estimate : float
    means : tuple of float
        Of the treated and the control arm; their difference is the estimate.
    weights : ndarray, shape (n,)
        0 for rows not used.
    discarded : ndarray of bool, shape (n,)
        Rows put aside for want of overlap.
    std_error, ci, df
        None without one; `df` also for the normal distribution or a bootstrap.
    std_error_method : str
        How the error was computed.
    influence : ndarray, shape (n, 2), optional
        Influence values of the two means, divided by n: squares sum to the variance (before what a cluster
        column adds). Weighting has them.
    score : Score, optional
    matched : MatchedSet, optional
    rank : ndarray of int, shape (n,), optional
        Places of the rows that folds were dealt by.
    mean_draws : ndarray, shape (draws, 2), optional
        A bootstrap's.
    settings : dict
        What options were settled at.
    warnings : tuple of str
    """

    estimate: float
    means: tuple[float, float]
    weights: Floats
    discarded: Bools
    std_error: float | None = None
    ci: tuple[float | None, float | None] = (None, None)
    df: float | None = None
    std_error_method: str = "none"
    influence: Floats | None = None
    score: Score | None = None
    matched: MatchedSet | None = None
    rank: Ints | None = None
    mean_draws: Floats | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def row(self, label: str, treated: Bools) -> Estimate:
        """Give the estimate as a result has it, with the rows and the mean of each arm.

        Parameters
        ----------
        label : str
        treated : ndarray of bool, shape (n,)

        Returns
        -------
        Estimate
        """
        used = self.weights > 0
        return Estimate(
            label=label,
            estimate=self.estimate,
            std_error=self.std_error,
            ci_low=self.ci[0],
            ci_high=self.ci[1],
            p_value=two_sided_p(self.estimate, self.std_error, self.df),
            df=self.df,
            n_treated=int(treated.sum()),
            n_control=int((~treated).sum()),
            n_treated_used=int((used & treated).sum()),
            n_control_used=int((used & ~treated).sum()),
            mean_treated=self.means[0],
            mean_control=self.means[1],
        )


class Method:
    """Base of the estimators; each is a frozen dataclass of its own options.

    Attributes
    ----------
    name : str
        That `make_method` knows it by.
    estimands : tuple of str
        What it can estimate, the default first.
    matches : bool
        Whether rows stand in for rows.
    linear : bool
        Whether it adjusts for the columns of the design, so that one which others determine adds nothing.
    by_score : bool
        Whether it needs a propensity score.
    """

    name: ClassVar[str]
    estimands: ClassVar[tuple[str, ...]] = ("att", "atc", "ate")
    matches: ClassVar[bool] = False
    linear: ClassVar[bool] = True

    @property
    def by_score(self) -> bool:
        """Whether it needs a propensity score."""
        return True

    @property
    def columns(self) -> dict[str, Any]:
        """The options that name columns, as `problem.prepare` takes them."""
        return {}

    @property
    def asked(self) -> dict[str, Any]:
        """The options away from their defaults."""
        found = {}
        for f in fields(self):  # type: ignore[arg-type]  # every method is a dataclass
            value = getattr(self, f.name)
            default = f.default if f.default is not MISSING else None
            if value is not default and not (
                isinstance(value, str | int | float | tuple) and value == default
            ):
                found[f.name] = value
        return found

    def __str__(self) -> str:
        """Write the method as the command line has it: its name and what was asked of it."""
        asked = ",".join(f"{name}={told(value)}" for name, value in self.asked.items())
        return f"{self.name}:{asked}" if asked else self.name

    def fit(self, problem: Problem, plan: Plan, *, with_error: bool = True) -> Fit:
        """Estimate from arrays.

        Parameters
        ----------
        problem : Problem
        plan : Plan
        with_error : bool, default True
            False where the standard error is not needed, as in a bootstrap.

        Returns
        -------
        Fit

        Raises
        ------
        EstimationError
            If nothing can be estimated, or an option contradicts the problem.
        """
        raise NotImplementedError

    def fit_again(self, problem: Problem, plan: Plan, fit: Fit, y: Floats) -> Fit:
        """Estimate for another outcome of the same rows, with what does not depend on the outcome kept.

        Parameters
        ----------
        problem : Problem
        plan : Plan
        fit : Fit
            Of the first outcome.
        y : ndarray, shape (n,)

        Returns
        -------
        Fit
        """
        rank = fit.rank if problem.rank is None else problem.rank
        return self.fit(replace(problem, y=y, rank=rank), plan)


def estimate_score(problem: Problem, plan: Plan, *, distance: str = "logistic") -> Score:
    """Give the known score, or estimate one.

    Parameters
    ----------
    problem : Problem
    plan : Plan
    distance : {"logistic", "logit", "mahalanobis"}
        What is matched on: with ``"logit"`` the logit of the score, else the score.

    Returns
    -------
    Score
    """
    fit: Regression | None = None
    if problem.known_score is not None:
        p = problem.known_score
    elif plan.score_model is None:
        fit = fit_logistic(problem.design.matrix, problem.treated, names=problem.design.names)
        p = fit.fitted
    else:
        p = crossfit_propensity(
            problem.design.matrix,
            problem.treated,
            plan.score_model,
            random_state=plan.random_state,
            rank=problem.places,
        )
    along = p
    if distance == "logit":
        along = fit.linear if fit is not None else np.log(p / (1.0 - p))
    return Score(propensity=p, fit=fit, along=along)


def told(value: Any) -> object:  # noqa: ANN401 - any option
    """Give an option as a result can hold it: a model by its name."""
    if isinstance(value, str | int | float | list):
        return value
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if hasattr(value, "items") else type(value).__name__


def one_of(value: object, known: tuple[str, ...], what: str, *, hint: str = "") -> None:
    """Refuse a word that is none of those known.

    Raises
    ------
    EstimationError
    """
    if value not in known:
        raise EstimationError(f"{what} {value!r} is not known", hint=hint or f"one of: {', '.join(known)}")


def distance_above_zero(value: float | None, name: str) -> None:
    """Refuse a size that is no finite number above zero.

    Raises
    ------
    EstimationError
    """
    if value is not None and not 0 < value < math.inf:
        raise EstimationError(f"{name} is {value}; it is a distance above zero")
