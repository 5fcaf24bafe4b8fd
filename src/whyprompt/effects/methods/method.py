"""What every estimator is: options of its own, and a fit to the arrays of a problem.

A method is a frozen dataclass of the options that it has, checked where it is made; an option without a
meaning cannot be written. `Method.fit` takes a `Problem` and the `Plan` (what is asked of any method) and
gives a `Fit`: one number with its error, and what it came from.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from whyprompt.effects.methods.score import logistic_score
from whyprompt.errors import EstimationError
from whyprompt.results import Estimate
from whyprompt.stats.propensity import crossfit_propensity
from whyprompt.stats.several import two_sided_p

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from whyprompt.effects.checks.balance import Denominator
    from whyprompt.effects.methods.matched import MatchedSet
    from whyprompt.effects.problem import Problem
    from whyprompt.stats.regression import Regression

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is computed from a problem, settled and checked (by `make.settle_plan`); see `estimate_effect`."""

    method: Method
    estimand: str
    level: float = 0.95
    std_error: str = "auto"
    draws: int = 1000
    denominator: Denominator = "pooled"
    random_state: int = 0
    # A scikit-learn classifier or "logit", in place of the method's own score.
    score_model: Any = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fit:
    """An estimate with its error and what it came from, in arrays of one value a row, shape (n,)."""

    # Of the treated and the control arm.
    means: tuple[float, float]
    # 0 for rows not used.
    weights: Floats
    # Rows put aside for want of overlap.
    discarded: Bools
    std_error: float | None = None
    ci: tuple[float | None, float | None] = (None, None)
    # None for the normal distribution or a bootstrap.
    df: float | None = None
    std_error_method: str = "none"
    # Of the two means, divided by n, shape (n, 2): squares sum to the variance, before what a cluster column
    # adds. Weighting has them.
    influence: Floats | None = None
    # How far each deal of the folds has the two means from these, over the root of the deals' number, shape
    # (deals, 2): added to the error as more units (Chernozhukov et al. 2018, definition 3.3).
    between: Floats | None = None
    # What each independent unit, a row or a cluster, adds to the error: squares sum to its square. Of several
    # outcomes of the same rows the products sum to their covariance. Weighting has them.
    by_unit: Floats | None = None
    propensity: Floats | None = None
    # The regression that the propensity is from, where matching fitted one.
    logit: Regression | None = None
    # Covariates that others determine, where the method says which.
    dropped: tuple[str, ...] | None = None
    matched: MatchedSet | None = None
    # What an outcome model leaves of each row's outcome; None for a method without one.
    residual: Floats | None = None
    # Places of the rows that folds were dealt by.
    rank: Ints | None = None
    # The two means in each draw of a bootstrap, shape (draws, 2).
    mean_draws: Floats | None = None
    # Estimates for another outcome of the same rows; what does not depend on the outcome is kept.
    again: Callable[[Floats], Fit] | None = None
    # The estimate by what half as many rows to learn from, or somewhat fewer, teach; None where they teach
    # nothing. Its error is larger, and shows in how far it lies from this one. Cross-fitting has it.
    from_fewer: Callable[[], float | None] | None = None
    # What options were settled at.
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def estimate(self) -> float:
        """The difference of the two means."""
        return self.means[0] - self.means[1]

    def row(self, label: str, treated: Bools) -> Estimate:
        """Give the estimate as a result has it, with the rows and the mean of each arm."""
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
    """Base of the estimators; each is a frozen dataclass of its own options."""

    # That `make_method` knows it by.
    name: ClassVar[str]
    # What it can estimate, the default first.
    estimands: ClassVar[tuple[str, ...]] = ("att", "atc", "ate")
    # What its propensity score is estimated by.
    score: ClassVar[str] = "logistic"
    # Whether rows are dealt to folds.
    dealt: ClassVar[bool] = False
    # Whether rows stand in for rows.
    matches: ClassVar[bool] = False
    # Whether it adjusts for the columns of the design, so that one which others determine adds nothing.
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
        """Estimate from arrays; without an error where it is not needed, as in a bootstrap.

        What cannot be estimated is refused, and an option that contradicts the problem.
        """
        raise NotImplementedError

    def fit_again(self, problem: Problem, plan: Plan, fit: Fit, y: Floats) -> Fit:
        """Estimate for another outcome of the same rows, with what does not depend on the outcome kept."""
        if fit.again is not None:
            return fit.again(y)
        rank = fit.rank if problem.rank is None else problem.rank
        return self.fit(replace(problem, y=y, rank=rank), plan)


def estimate_score(problem: Problem, plan: Plan) -> tuple[Floats, Regression | None]:
    """Give the known propensity, or one estimated, with the logistic regression where it is from one."""
    if problem.known_score is not None:
        return problem.known_score, None
    if plan.score_model in (None, "logit"):
        found = logistic_score(problem)
        return found.fitted, found.logit
    drawn = crossfit_propensity(
        problem.design.matrix,
        problem.treated,
        plan.score_model,
        random_state=plan.random_state,
        rank=problem.places,
    )
    return drawn, None


def told(value: Any) -> object:  # noqa: ANN401 - any option
    """Give an option as a result can hold it: a model by its name."""
    if isinstance(value, str | int | float | list):
        return value
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if hasattr(value, "items") else getattr(value, "name", type(value).__name__)


def one_of(value: object, known: tuple[str, ...], what: str, *, hint: str = "") -> None:
    """Refuse a word that is none of those known."""
    if value not in known:
        raise EstimationError(f"{what} {value!r} is not known", hint=hint or f"one of: {', '.join(known)}")


def distance_above_zero(value: float | None, name: str, *, hint: str | None = None) -> None:
    """Refuse a size that is no finite number above zero."""
    if value is not None and not 0 < value < math.inf:
        raise EstimationError(f"{name} is {value}; it is a distance above zero", hint=hint)
