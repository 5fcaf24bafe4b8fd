"""What the ways of joining rows share: calipers, the Mahalanobis distance, and the order of equal rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np

from whyprompt._arguments import names
from whyprompt.effects.methods.mahalanobis import Metric
from whyprompt.effects.methods.matched import on_grid
from whyprompt.effects.methods.matching import DISCARD, Matching, caliper_width
from whyprompt.effects.methods.method import distance_above_zero, one_of
from whyprompt.errors import EstimationError
from whyprompt.stats.design import design_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.matched import Caliper, MatchedSet
    from whyprompt.effects.methods.matching import Score
    from whyprompt.effects.problem import Problem

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

_UNITS = ("sd", "raw", "sd_logit", "raw_logit")
# Austin (2011), Pharmaceutical Statistics 10, 150-161.
_USUAL_CALIPER = (0.2, "sd_logit")


class Pairing(Matching):
    """Base of the methods that join rows within a caliper, on a score or by the Mahalanobis distance."""

    # Whether pairs without replacement on a score have a caliper without being asked.
    usual_caliper: ClassVar[bool] = False
    # Fields of the methods.
    caliper: float | str | None
    caliper_unit: str
    covariate_calipers: Mapping[str, float] | None
    mahalanobis_on: Sequence[str] | None
    metric: Metric = "pooled"
    tie_break: str | None

    def __post_init__(self) -> None:
        self._settle("exact", names(self.exact, "exact"))
        one_of(self.discard, DISCARD, "discard rule")
        one_of(self.caliper_unit, _UNITS, "caliper unit")
        if isinstance(self.caliper, str):
            one_of(self.caliper, ("none",), "caliper", hint="a distance above zero, or 'none'")
        else:
            distance_above_zero(self.caliper, "caliper", hint="'none' for no caliper")
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
        return self.distance != "mahalanobis" or self.caliper not in {None, "none"} or self.discard != "none"

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

    def _usual(self, *, replaced: bool) -> bool:
        by_score = self.distance != "mahalanobis"
        return self.usual_caliper and self.caliper is None and by_score and not replaced

    def settled_caliper(self, *, replaced: bool = False) -> tuple[float | None, str]:
        """Return the caliper, None for none, and its unit."""
        if self._usual(replaced=replaced):
            return _USUAL_CALIPER
        return None if isinstance(self.caliper, str) else self.caliper, self.caliper_unit

    def stated(self, *, replaced: bool) -> dict[str, Any]:
        """Return the caliper that was not asked for."""
        if not self._usual(replaced=replaced):
            return {}
        return dict(zip(("caliper", "caliper_unit"), _USUAL_CALIPER, strict=True))

    def limits(
        self, problem: Problem, score: Score | None, *, replaced: bool = False
    ) -> tuple[Caliper | None, list[tuple[Floats, float]]]:
        """Return the caliper on what is matched on, and the calipers on other values."""
        limits = list(problem.limits)
        size, unit = self.settled_caliper(replaced=replaced)
        if size is None or score is None:
            return None, limits
        plain = unit.removesuffix("_logit")
        if plain == unit:
            return caliper_width(size, score[1], unit=plain), limits
        # A score that rounds to 0 or 1 has no logit.
        within = np.clip(score[0], 1e-15, 1.0 - 1e-15)
        logit = on_grid(np.log(within / (1.0 - within)))
        width = caliper_width(size, logit, unit=plain)
        if self.distance == "mahalanobis":
            return None, [*limits, (logit, width)]
        return (logit, width), limits

    def measured(self, problem: Problem, score: Score | None) -> tuple[Caliper | None, dict[str, Any]]:
        """Return the caliper of a score; what distance is measured in, and the calipers on other values."""
        width, limits = self.limits(problem, score)
        along = None if score is None else score[1]
        full = self.covariates(problem)
        if full is None:
            return width, {"score": along, "limits": limits}
        if isinstance(width, float) and along is not None:
            limits = [*limits, (along, width)]
        return None, {"X": full, "limits": limits}

    def remarks(self, problem: Problem, matched: MatchedSet, score: Score | None) -> tuple[str, ...]:
        """Say where rows are lost to a caliper that was not asked for, or matched in the table's order."""
        side = {"att": problem.treated, "atc": ~problem.treated}.get(matched.estimand, matched.weights >= 0)
        lost = bool((side & ~matched.discarded & ~matched.is_focal).any())
        cautions = self.lost_words() if lost and self._usual(replaced=matched.replace) else ()
        return (*cautions, *self.tied(problem, matched, score))

    @staticmethod
    def lost_words() -> tuple[str, ...]:
        """Say that the caliper that was not asked for loses rows."""
        text = (
            f"pairs lie within the usual caliper, {_USUAL_CALIPER[0]} standard deviations of the logit of the"
            " score (Austin 2011); caliper='none' pairs rows however far apart"
        )
        return (text,)

    @staticmethod
    def tied_words(count: int, what: str, *, replaced: bool) -> tuple[str, ...]:
        """Say that so many equal rows are matched in the order of the table."""
        if count == 0:
            return ()
        way_out = "give tie_break= a column that identifies rows"
        if replaced:
            way_out += ", or ties='average'"
        text = (
            f"{count} rows share their {what} with another row: which of them is matched follows the order"
            f" of the table; {way_out}"
        )
        return (text,)

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
        return self.tied_words(n_tied, what, replaced=matched.replace)


def in_order_of_ties(
    problem: Problem,
    discarded: Bools,
    *,
    caliper: Caliper | None,
    limits: Sequence[tuple[Floats, float]],
    **where: Floats,
) -> tuple[Ints | None, Bools, dict[str, Any]]:
    """Put what is matched optimally in the order of the tie-break column, where there is one.

    Equally good solutions differ by the order of tied rows, which that column settles. `where` is what
    distance is measured in. Returns the order (None where the rows are left as they are), the arm, and as
    options of a matching function `strata`, `discarded`, `caliper`, `limits` and `where`.
    """
    if problem.tie_rank is None:
        shared: dict[str, Any] = {"strata": problem.strata, "caliper": caliper, "limits": limits}
        shared["discarded"] = discarded
        return None, problem.treated, shared | where
    order = np.argsort(problem.tie_rank)
    return (
        order,
        problem.treated[order],
        {
            "strata": None if problem.strata is None else problem.strata[order],
            "discarded": discarded[order],
            "caliper": (caliper[0][order], caliper[1]) if isinstance(caliper, tuple) else caliper,
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
