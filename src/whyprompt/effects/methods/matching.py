"""What the ways of matching share: the score, common support, and an estimate from the matched set."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from whyprompt._arguments import names
from whyprompt.effects.methods.adjustment import project, too_few
from whyprompt.effects.methods.method import Fit, Method, estimate_score, one_of
from whyprompt.effects.methods.weights import crump_threshold
from whyprompt.effects.uncertainty import with_error as error_of_matching
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.adjustment import Projected
    from whyprompt.effects.methods.matched import MatchedSet
    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.problem import Problem
    from whyprompt.stats.regression import Regression

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

Score = tuple["Floats", "Floats"]
"""The propensity of each row, and what is matched on: it, or its logit."""

# Columns of the regression in the matched sample, each level of a text column being one, and their cells
# (512 MiB).
_MOST_COLUMNS, _MOST_CELLS = 500, 2**26
DISCARD = ("none", "treated", "control", "both", "crump")


class Matching(Method):
    """Base of the methods in which rows of one arm stand in for rows of the other."""

    matches: ClassVar[bool] = True
    # Fields of the methods.
    exact: Sequence[str]
    distance: str = "logistic"
    discard: str = "none"
    neighbours: int = 0
    regression_adjustment: bool | None = None

    def __post_init__(self) -> None:
        self._settle("exact", names(self.exact, "exact"))
        one_of(self.discard, DISCARD, "discard rule")
        if self.distance == "mahalanobis":
            raise EstimationError(
                f"the Mahalanobis distance has no meaning for method {self.name!r}",
                hint="use nearest, optimal or full",
            )
        one_of(self.distance, ("logistic", "logit"), "distance", hint="logistic or logit")

    def _settle(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def columns(self) -> dict[str, Any]:
        """The columns on which matched rows are equal."""
        return {"exact": self.exact}

    def match(self, problem: Problem, plan: Plan, score: Score | None, discarded: Bools) -> MatchedSet:
        """Match the rows that are not discarded; see the functions of each method's module."""
        raise NotImplementedError

    def adjustment(self, problem: Problem, matched: MatchedSet) -> tuple[Floats | None, str]:
        """Return the covariates of the regression in the matched sample, or None and why there is none."""
        count, asked = len(problem.design.names), self.regression_adjustment
        if asked is False or not (count or asked):
            return None, ""
        if count == 0:
            why = "there are no confounders"
        elif count > (most := min(_MOST_COLUMNS, _MOST_CELLS // len(problem.y))):
            why = f"the confounders have {count} columns, more than {most}"
        else:
            why = too_few(problem.treated, matched, problem.design.matrix)
        if why and asked:
            raise EstimationError(
                f"no regression adjustment is possible: {why}",
                hint="regression_adjustment=False, fewer confounders, or a method that keeps more rows",
            )
        return (None, f"not adjusted by regression: {why}") if why else (problem.design.matrix, "")

    def stated(self, *, replaced: bool) -> dict[str, Any]:  # noqa: ARG002
        """Return options that were settled without being asked for."""
        return {}

    def remarks(self, problem: Problem, matched: MatchedSet, score: Score | None) -> tuple[str, ...]:  # noqa: ARG002
        """Say what of the matches the caller may not have asked for."""
        return ()

    def fit(self, problem: Problem, plan: Plan, *, with_error: bool = True) -> Fit:
        """Match, and compare the weighted means."""
        propensity, logit = estimate_score(problem, plan) if self.by_score else (None, None)
        out = np.zeros(len(problem.y), dtype=bool)
        if propensity is not None and self.discard != "none":
            out = common_support(propensity, problem.treated, rule=self.discard)
        score = self._score(propensity, logit)
        matched = self.match(problem, plan, score, out)
        X, caution = self.adjustment(problem, matched)
        adjust = None if X is None else project(problem.treated, matched, X)
        settled = (matched, score, logit, adjust, caution)

        def again(y: Floats) -> Fit:
            """Estimate with the matches, and what covariates alone say of them, as they are."""
            made = self._estimate(replace(problem, y=y), plan, *settled, with_error=True)
            return replace(made, again=again)

        return replace(self._estimate(problem, plan, *settled, with_error=with_error), again=again)

    def _score(self, propensity: Floats | None, logit: Regression | None) -> Score | None:
        if propensity is None or self.distance != "logit":
            return None if propensity is None else (propensity, propensity)
        return propensity, np.log(propensity / (1.0 - propensity)) if logit is None else logit.linear

    def _estimate(
        self,
        problem: Problem,
        plan: Plan,
        matched: MatchedSet,
        score: Score | None,
        logit: Regression | None,
        adjust: Projected | None,
        caution: str,
        *,
        with_error: bool,
    ) -> Fit:
        y, t, w = problem.y, problem.treated, matched.weights
        treated, control = (float(np.average(y[arm], weights=w[arm])) for arm in (t, ~t))
        settings = {**matched.settings, **self.stated(replaced=matched.replace)}
        residual = None
        if adjust is not None:
            settings["estimate_without_regression_adjustment"] = treated - control
            made = adjust.of(y)
            treated, control = made.means
            residual = y - np.where(t, made.predicted[1], made.predicted[0])
        fit = Fit(
            means=(treated, control),
            weights=w,
            discarded=matched.discarded,
            matched=matched,
            residual=residual,
            propensity=None if score is None else score[0],
            logit=logit,
            settings=settings,
            warnings=(*((caution,) if caution else ()), *self.remarks(problem, matched, score)),
        )
        if with_error and plan.std_error != "bootstrap":
            return error_of_matching(
                problem,
                plan,
                fit,
                along=None if score is None else score[1],
                neighbours=self.neighbours,
                by_score_alone=self.distance != "mahalanobis",
                adjust=adjust,
            )
        return fit


def caliper_width(caliper: float, values: Floats, *, unit: str = "sd") -> float:
    """Turn a caliper into the largest allowed difference.

    In standard deviations of `values` over the whole sample (MatchIt's ``std.caliper``), or their own units.

    >>> import numpy as np
    >>> round(caliper_width(0.2, np.array([0.1, 0.3, 0.5])), 3)
    0.04
    """
    if not (np.isfinite(caliper) and caliper > 0):
        raise EstimationError(f"the caliper is {caliper}; it must be a positive number")
    if unit == "raw":
        return float(caliper)
    if unit == "sd":
        return float(caliper) * float(values.std(ddof=1))
    raise EstimationError(f"caliper unit {unit!r} is not known", hint="one of: sd, raw, sd_logit, raw_logit")


def common_support(score: Floats, treated: Bools, *, rule: str = "none") -> Bools:
    """Say which rows lie outside the region where both arms occur; True where discarded.

    The rule discards treated rows outside the range of the controls' scores, control rows outside that of the
    treated, both, or scores beyond Crump's threshold. One that would discard a whole arm is refused.

    >>> import numpy as np
    >>> score = np.array([0.2, 0.9, 0.1, 0.3])
    >>> common_support(score, np.array([True, True, False, False]), rule="both").tolist()
    [False, True, True, False]
    """
    a, b = score[treated], score[~treated]
    out = np.zeros(len(score), dtype=bool)
    if rule == "crump":
        alpha = crump_threshold(score)
        out = (score < alpha) | (score > 1 - alpha)
    elif rule not in {"none", "treated", "control", "both"}:
        raise EstimationError(
            f"discard rule {rule!r} is not known", hint="one of: none, treated, control, both, crump"
        )
    if rule in {"treated", "both"}:
        out |= treated & ((score < b.min()) | (score > b.max()))
    if rule in {"control", "both"}:
        out |= ~treated & ((score < a.min()) | (score > a.max()))
    for arm, name in ((treated, "treated"), (~treated, "control")):
        if out[arm].all():
            raise EstimationError(
                f"no {name} row lies in the common support: the arms do not overlap",
                hint="the table cannot say what these rows would have done under the other arm; run it",
            )
    return out
