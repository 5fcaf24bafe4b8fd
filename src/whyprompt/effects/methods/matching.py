"""What the ways of matching share: the score, common support, and an estimate from the matched set."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np

from whyprompt._arguments import names
from whyprompt.effects.methods.mahalanobis import Metric
from whyprompt.effects.methods.method import Fit, Method, distance_above_zero, estimate_score, one_of
from whyprompt.effects.methods.variance import abadie_imbens
from whyprompt.effects.methods.weights import crump_threshold
from whyprompt.effects.uncertainty import with_error as error_of_matching
from whyprompt.errors import EstimationError
from whyprompt.stats.design import design_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.matched import MatchedSet
    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.problem import Problem
    from whyprompt.stats.regression import Regression

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

Score = tuple["Floats", "Floats"]
"""The propensity of each row, and what is matched on: it, or its logit."""

_DISCARD = ("none", "treated", "control", "both", "crump")
_UNITS = ("sd", "raw", "sd_logit", "raw_logit")


class Matching(Method):
    """Base of the methods in which rows of one arm stand in for rows of the other."""

    matches: ClassVar[bool] = True
    # Fields of the methods.
    exact: Sequence[str]
    distance: str = "logistic"
    discard: str = "none"
    neighbours: int = 0

    def __post_init__(self) -> None:
        self._settle("exact", names(self.exact, "exact"))
        one_of(self.discard, _DISCARD, "discard rule")
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

    def adjustment(self, problem: Problem) -> Floats | None:  # noqa: ARG002
        """Return the covariates whose remaining differences within pairs are taken out; None for none."""
        return None

    def tied(self, problem: Problem, matched: MatchedSet, score: Score | None) -> tuple[str, ...]:  # noqa: ARG002
        """Say where equal rows are matched in the order of the table."""
        return ()

    def fit(self, problem: Problem, plan: Plan, *, with_error: bool = True) -> Fit:
        """Match, and compare the weighted means."""
        propensity, logit = estimate_score(problem, plan) if self.by_score else (None, None)
        out = np.zeros(len(problem.y), dtype=bool)
        if propensity is not None and self.discard != "none":
            out = common_support(propensity, problem.treated, rule=self.discard)
        score = self._score(propensity, logit)
        matched = self.match(problem, plan, score, out)
        return self._estimate(problem, plan, matched, score, logit, with_error=with_error)

    def fit_again(self, problem: Problem, plan: Plan, fit: Fit, y: Floats) -> Fit:
        """Estimate for another outcome with the matches already made."""
        assert fit.matched is not None
        other = replace(problem, y=y, rank=fit.rank if problem.rank is None else problem.rank)
        score = self._score(fit.propensity, fit.logit)
        return self._estimate(other, plan, fit.matched, score, fit.logit, with_error=True)

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
        *,
        with_error: bool,
    ) -> Fit:
        y, t, w = problem.y, problem.treated, matched.weights
        treated, control = (float(np.average(y[arm], weights=w[arm])) for arm in (t, ~t))
        settings, adjust = dict(matched.settings), self.adjustment(problem)
        if adjust is not None:
            settings["estimate_without_bias_correction"] = treated - control
            # Linear in the outcome: the treated mean is the estimate where the control arm's outcome is nil.
            corrected, treated = (
                abadie_imbens(values, t, matched, neighbours=0, adjust=adjust)[0]
                for values in (y, np.where(t, y, 0.0))
            )
            control = treated - corrected
        fit = Fit(
            means=(treated, control),
            weights=w,
            discarded=matched.discarded,
            matched=matched,
            propensity=None if score is None else score[0],
            logit=logit,
            settings=settings,
            warnings=self.tied(problem, matched, score),
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


class Pairing(Matching):
    """Base of the methods that join rows within a caliper, on a score or by the Mahalanobis distance."""

    # Fields of the methods.
    caliper: float | None
    caliper_unit: str
    covariate_calipers: Mapping[str, float] | None
    mahalanobis_on: Sequence[str] | None
    metric: Metric = "pooled"
    tie_break: str | None

    def __post_init__(self) -> None:
        self._settle("exact", names(self.exact, "exact"))
        one_of(self.discard, _DISCARD, "discard rule")
        one_of(self.caliper_unit, _UNITS, "caliper unit")
        distance_above_zero(self.caliper, "caliper")
        one_of(self.distance, ("logistic", "logit", "mahalanobis"), "distance")
        one_of(self.metric, get_args(Metric), "metric")
        if self.mahalanobis_on is not None:
            self._settle("mahalanobis_on", names(self.mahalanobis_on, "mahalanobis_on"))
            if self.distance != "mahalanobis":
                raise EstimationError(
                    "mahalanobis_on names what the Mahalanobis distance is over",
                    hint="distance='mahalanobis'",
                )

    @property
    def by_score(self) -> bool:
        """Whether a score is matched on, or carries the caliper or the common support."""
        return self.distance != "mahalanobis" or self.caliper is not None or self.discard != "none"

    @property
    def columns(self) -> dict[str, Any]:
        """The columns that pairs are equal, or close, in, and that which orders equal rows."""
        return {
            "exact": self.exact,
            "covariate_calipers": self.covariate_calipers,
            "tie_break": self.tie_break,
        }

    def covariates(self, problem: Problem) -> Floats | None:
        """Return the covariates of the Mahalanobis distance; None where a score is matched on."""
        if self.distance != "mahalanobis":
            return None
        chosen = self.mahalanobis_on if self.mahalanobis_on is not None else problem.confounders
        for name in chosen:
            if name not in problem.columns:
                raise EstimationError(
                    f"mahalanobis_on names {name!r}, which is not a confounder",
                    hint=f"the confounders are {', '.join(problem.confounders)}",
                )
        # Every level has its own column, so that no level is nearer to the reference than to another.
        return design_matrix({name: problem.columns[name] for name in chosen}, full=True).matrix

    def limits(
        self, problem: Problem, score: Score | None
    ) -> tuple[float | None, list[tuple[Floats, float]]]:
        """Return the caliper in units of what is matched on, and the calipers on other values."""
        limits = list(problem.limits)
        if self.caliper is None or score is None:
            return None, limits
        unit = self.caliper_unit.removesuffix("_logit")
        if unit == self.caliper_unit:
            return caliper_width(self.caliper, score[1], unit=unit), limits
        logit = np.log(score[0] / (1.0 - score[0]))
        limits.append((logit, caliper_width(self.caliper, logit, unit=unit)))
        return None, limits

    def measured(self, problem: Problem, score: Score | None) -> tuple[float | None, dict[str, Any]]:
        """Return the caliper of a score; what distance is measured in, and the calipers on other values."""
        width, limits = self.limits(problem, score)
        along = None if score is None else score[1]
        full = self.covariates(problem)
        if full is None:
            return width, {"score": along, "limits": limits}
        if width is not None and along is not None:
            limits = [*limits, (along, width)]
        return None, {"X": full, "limits": limits}

    def tied(self, problem: Problem, matched: MatchedSet, score: Score | None) -> tuple[str, ...]:
        """Say where equal rows are matched in the order of the table."""
        if problem.tie_rank is not None or matched.settings.get("ties", "sorted") == "average":
            return ()
        full = self.covariates(problem)
        if full is not None:
            n_tied = len(problem.y) - len(np.unique(full, axis=0))
            what = "covariates"
        else:
            assert score is not None
            n_tied = len(score[1]) - len(np.unique(np.round(score[1], 12)))
            what = "score"
        if n_tied == 0:
            return ()
        way_out = "give tie_break= a column that identifies rows"
        if matched.replace:
            way_out += ", or ties='average'"
        text = (
            f"{n_tied} rows share their {what} with another row: which of them is matched follows the order"
            f" of the table; {way_out}"
        )
        return (text,)


def in_order_of_ties(
    problem: Problem, discarded: Bools, *, limits: Sequence[tuple[Floats, float]], **where: Floats
) -> tuple[Ints | None, Bools, dict[str, Any]]:
    """Put what is matched optimally in the order of the tie-break column, where there is one.

    Equally good solutions differ by the order of tied rows, which that column settles. `where` is what
    distance is measured in. Returns the order (None where the rows are left as they are), the arm, and as
    options of a matching function `strata`, `discarded`, `limits` and `where`.
    """
    if problem.tie_rank is None:
        shared = {"strata": problem.strata, "discarded": discarded, "limits": limits}
        return None, problem.treated, shared | where
    order = np.argsort(problem.tie_rank)
    return (
        order,
        problem.treated[order],
        {
            "strata": None if problem.strata is None else problem.strata[order],
            "discarded": discarded[order],
            "limits": [(values[order], width) for values, width in limits],
        }
        | {name: values[order] for name, values in where.items()},
    )


def in_order_of_rows(matched: MatchedSet, order: Ints | None) -> MatchedSet:
    """Undo `in_order_of_ties`."""
    if order is None:
        return matched
    back = np.argsort(order)
    return replace(
        matched,
        weights=matched.weights[back],
        focal=order[matched.focal],
        other=order[matched.other],
        stratum=None if matched.stratum is None else matched.stratum[back],
        discarded=matched.discarded[back],
    )


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
