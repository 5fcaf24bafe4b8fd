"""Coarsened exact matching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import names
from whyprompt.effects.methods.matched import set_from_strata
from whyprompt.effects.methods.matching import Matching
from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.order import codes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.matched import MatchedSet
    from whyprompt.effects.methods.matching import Score
    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.problem import Problem

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class CEM(Matching):
    """Rows equal on coarsened covariates.

    Attributes
    ----------
    cutpoints : mapping, optional
        For a numeric column: a number of bins, the edges between them, ``"q4"`` or ``"sturges"``; see
        `match_cem`.
    exact : sequence of str
        Further columns on which matched rows must be equal.
    regression_adjustment : bool, optional
        As in `Nearest`.
    """

    name = "cem"
    linear = False

    cutpoints: Mapping[str, int | str | Sequence[float]] | None = None
    exact: Sequence[str] = ()
    regression_adjustment: bool | None = None

    def __post_init__(self) -> None:
        self._settle("exact", names(self.exact, "exact"))

    @property
    def by_score(self) -> bool:  # noqa: D102
        return False

    def match(self, problem: Problem, plan: Plan, score: Score | None, discarded: Bools) -> MatchedSet:  # noqa: ARG002, D102
        return match_cem(
            dict(problem.columns),
            problem.treated,
            estimand=plan.estimand,
            cutpoints=self.cutpoints,
            strata=problem.strata,
            discarded=discarded,
        )


def match_cem(
    columns: Mapping[str, NDArray[Any]],
    treated: Bools,
    *,
    estimand: str = "att",
    cutpoints: Mapping[str, int | str | Sequence[float]] | None = None,
    strata: Ints | None = None,
    discarded: Bools | None = None,
) -> MatchedSet:
    """Match exactly on coarsened covariates; the effect is that among the rows that find a counterpart.

    Numbers are binned; text is matched as it is. `cutpoints` give for a numeric column a number of equal
    bins, the edges between bins, ``"q4"`` for that many quantile bins, 0 for no binning, or ``"sturges"``,
    which is the default. `strata` are codes of further columns on which matched rows must be equal. Cutpoints
    of a column that is not there are refused (`DataError`), and covariates of which no stratum holds both
    arms.

    Reference: Iacus, S. M., King, G. and Porro, G. (2012). Causal inference without balance checking:
    coarsened exact matching. Political Analysis 20, 1-24.

    >>> import numpy as np
    >>> matched = match_cem(
    ...     {"difficulty": np.array([1.0, 9.0, 1.5, 8.0])},
    ...     np.array([True, True, False, False]),
    ...     cutpoints={"difficulty": 2},
    ... )
    >>> matched.stratum.tolist()
    [0, 1, 0, 1]
    """
    if not columns:
        raise EstimationError("coarsened exact matching needs at least one covariate")
    cuts = dict(cutpoints or {})
    unknown = sorted(set(cuts) - set(columns))
    if unknown:
        raise DataError(f"cutpoints name {unknown[0]!r}, which is not among the covariates")
    out = np.zeros(len(treated), dtype=bool) if discarded is None else discarded
    parts = []
    for name, values in columns.items():
        if values.dtype == object:
            if name in cuts:
                raise DataError(f"column {name!r} is text; cutpoints are for numbers")
            parts.append(values)
        else:
            parts.append(coarsen(values, cuts.get(name, "sturges"), name=name))
    if strata is not None:
        parts.append(strata)
    code = np.where(out, -1, codes(parts)).astype(np.int64)
    return set_from_strata(
        method="cem",
        estimand=estimand,
        treated=treated,
        stratum=code,
        errors=("strata", "pairs", "bootstrap"),
        discarded=out,
        settings={"cutpoints": {name: cuts.get(name, "sturges") for name in columns}},
    )


def coarsen(values: Floats, rule: int | str | Sequence[float], *, name: str = "column") -> Floats:
    """Put numbers into bins; a value on an edge goes to the bin above, as in MatchIt.

    The rule is one of `match_cem`; 0 gives the values themselves.

    >>> import numpy as np
    >>> coarsen(np.array([0.0, 4.0, 5.0, 10.0]), 2).tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    if isinstance(rule, str):
        if rule == "sturges":
            rule = int(np.ceil(np.log2(len(values)) + 1))
        elif rule.startswith("q") and rule[1:].isdigit() and int(rule[1:]) > 1:
            n_bins = int(rule[1:])
            rule = np.quantile(values, np.arange(1, n_bins) / n_bins).tolist()
        else:
            raise DataError(
                f"cutpoints {rule!r} for {name!r} are not known",
                hint="a number of bins, a list of edges, 'sturges', or 'q4' for quartiles",
            )
    if isinstance(rule, int | np.integer):
        if rule == 0:
            return values
        if rule < 0:
            raise DataError(f"cutpoints for {name!r} ask for {rule} bins")
        edges = np.linspace(values.min(), values.max(), int(rule) + 1)[1:-1]
    else:
        edges = np.unique(np.asarray(rule, dtype=np.float64))
    return np.searchsorted(edges, values, side="right").astype(np.float64)
