"""Estimating again on a changed table: what the refutations and the specification curve share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from whyprompt.effects.estimate import estimated
from whyprompt.effects.pipeline import bootstrapped, compute
from whyprompt.effects.problem import choose_confounders
from whyprompt.effects.units import NO_CLUSTER
from whyprompt.errors import EstimationError, WhypromptError
from whyprompt.results import Checks
from whyprompt.stats.design import design_matrix
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.methods.method import Fit
    from whyprompt.effects.problem import Problem
    from whyprompt.effects.result import EffectResult
    from whyprompt.graph.model import CausalGraph
    from whyprompt.results import Check, Estimate

_MAX_FAILED = 0.2
_Drawn = TypeVar("_Drawn")


class Base:
    """A table and an estimate, to be taken again with something changed.

    `options` are others of `estimate_effect`, its `draws` as `bootstrap_draws`; the graph is asked once.
    `table` has the rows of the two arms, `problem` their arrays, and `plan` is what is computed of them;
    `result` is the estimate of the table as it is.
    """

    def __init__(
        self,
        frame: Any,  # noqa: ANN401 - any frame library's type
        treatment: str,
        outcome: str,
        confounders: Sequence[str] | None,
        graph: CausalGraph | None,
        options: dict[str, Any],
    ) -> None:
        table = open_table(frame)
        options = effect_options(options)
        named: dict[str, Any] = {"treatment": treatment, "outcome": outcome}
        asked = {**named, "confounders": confounders, "graph": graph}
        for name in set(asked) & set(options):
            raise EstimationError(f"option {name!r} is given twice")
        found = estimated(frame, **asked, **options)
        chosen, _ = choose_confounders(table, **asked)
        self.result: EffectResult = found.result
        self.problem, self.plan = found.problem, found.plan
        self.score = found.fit.propensity
        self.frame = frame
        self.table = table if found.rows is None else table.keep(found.rows)
        self.confounders: tuple[str, ...] | None = None if chosen is None else tuple(chosen)
        # What the table shows of its units does not change with the confounders.
        self.options = {**named, **options, "cluster": found.problem.cluster_name or NO_CLUSTER}

    def with_arm(self, indicator: NDArray[np.bool_]) -> Fit | str:
        """Estimate with other arms, or say why it cannot be done."""
        return self._run(replace(self.problem, treated=indicator))

    def with_covariate(self, name: str, values: NDArray[np.float64]) -> Fit | str:
        """Estimate with a numeric confounder added, or say why it cannot be done."""
        problem = self.problem
        columns = {**problem.columns, name: values}
        levels = {column: kept[0] for column, kept in problem.design.levels.items()}
        design = design_matrix(columns, reference=levels)
        named = (*problem.confounders, name)
        more = replace(problem, confounders=named, columns=columns, design=design)
        return self._run(more, with_error=False)

    def of_rows(self, rows: NDArray[np.int64]) -> Fit | str:
        """Estimate from some of the rows, in the table's order, or say why it cannot be done."""
        rank = self.problem.tie_rank
        part = replace(self.problem.take(rows), tie_rank=None if rank is None else rank[rows])
        return self._run(part, with_error=False)

    def _run(self, problem: Problem, *, with_error: bool = True) -> Fit | str:
        n = int(problem.treated.sum())
        if min(n, len(problem.treated) - n) < 2:
            return "an arm has fewer than two rows"
        try:
            fit = compute(problem, self.plan, with_error=with_error)
            if with_error and self.plan.std_error == "bootstrap":
                fit = bootstrapped(problem, self.plan, fit)
        except WhypromptError as error:
            return error.message
        return fit


def estimate_or_why(frame: Any, **options: Any) -> EffectResult | str:  # noqa: ANN401 - of `estimate_effect`
    """Estimate on a table, or say why it cannot be done."""
    try:
        return estimated(frame, **options).result
    except WhypromptError as error:
        return error.message


def effect_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Name options as `estimate_effect` does: a check's own `draws` are not those of its bootstrap."""
    return {("draws" if name == "bootstrap_draws" else name): value for name, value in options.items()}


def of_effect(result: EffectResult, label: str) -> Estimate:
    """Take the estimate out of a result, under another name."""
    return replace(result.overall, label=label)


def attempted(tries: Mapping[str, Callable[[], Check]]) -> tuple[dict[str, Check], list[str]]:
    """Run checks: those found, by their names, and which do not apply and why (an `EstimationError`)."""
    found: dict[str, Check] = {}
    not_done = []
    for name, run in tries.items():
        try:
            check = run()
        except EstimationError as error:
            not_done.append(f"{name} ({error.message})")
        else:
            found[check.name] = check
    return found, not_done


def all_checks(found: Mapping[str, Check], not_done: Sequence[str], result: EffectResult) -> Checks:
    """Put the checks of one estimate together, and say what does not apply."""
    said = [check.sentence for check in found.values()]
    if not_done:
        said.append("Not done: " + "; ".join(not_done) + ".")
    return Checks(
        checks=found,
        not_done=tuple(not_done),
        overall=of_effect(result, "estimate"),
        level=result.level,
        sentence=" ".join(said),
    )


def excludes_zero(row: Estimate | EffectResult) -> bool:
    """Whether there is an interval and zero lies outside it."""
    return row.ci_low is not None and row.ci_high is not None and (row.ci_low > 0 or row.ci_high < 0)


def one_more_p(change: NDArray[np.float64]) -> float:
    """P-value of zero as one more draw of these (a prediction interval by the t distribution)."""
    from scipy import stats

    spread = float(change.std(ddof=1)) * np.sqrt(1 + 1 / len(change))
    mean = abs(float(change.mean()))
    if spread <= 1e-12 * max(mean, float(np.abs(change).max())):
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(mean / spread, len(change) - 1))


def repeat(draws: int, one: Callable[[], _Drawn | str], what: str) -> tuple[list[_Drawn], list[str]]:
    """Draw that often: what could be estimated, and why the others could not.

    More failed draws than a fifth and the rest are a selection: it is refused, with the most frequent reason.
    """
    found: list[_Drawn] = []
    failed: list[str] = []
    for _ in range(draws):
        drawn = one()
        if isinstance(drawn, str):
            failed.append(drawn)
        else:
            found.append(drawn)
    if len(failed) > _MAX_FAILED * draws:
        reason = max(set(failed), key=failed.count)
        raise EstimationError(
            f"{len(failed)} of {draws} {what} could not be estimated: {reason}",
            hint="ask for a method that needs less (ipw, overlap), or give more rows",
        )
    return found, failed
