"""Negative controls: the arm's apparent effect on outcomes that it cannot move."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from whyprompt._words import format_number, p_words
from whyprompt.charts import interval_plot
from whyprompt.effects.checks.rerun import Base, of_effect
from whyprompt.errors import EstimationError
from whyprompt.results import Check, with_holm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.graph.model import CausalGraph
    from whyprompt.results import Estimate


def negative_control_outcome(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcomes: Sequence[str],
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    alpha: float = 0.05,
    **options: Any,  # noqa: ANN401 - those of `estimate_effect`
) -> Check:
    """Estimate the arm's effect on outcomes that it cannot have one on.

    Such as the score of the same item before the arm was run, or under a prompt that was the same in both
    arms. What confounds the real outcome should confound these as well; then an estimate away from zero shows
    confounding that was not adjusted for.

    Parameters
    ----------
    outcomes : sequence of str
        Columns that the arm cannot have moved.
    frame, treatment, confounders, graph, **options
        As in `refute`; the graph gives the adjustment set of each outcome, so it must hold them.
    alpha : float, default 0.05
        Level of the verdict, after Holm's adjustment.

    Returns
    -------
    Check
        An outcome a part, with p adjusted for their number by Holm and the figure ``spread``, its standard
        deviation in the control arm, in which the chart is drawn. It ``"fails"`` where one differs from zero
        after adjustment, and is ``"doubtful"`` where no interval can be had.

    Raises
    ------
    EstimationError
        If no outcome is given, or as for `estimate_effect`.

    References
    ----------
    Lipsitch, Tchetgen Tchetgen and Cohen (2010). Negative controls: a tool for detecting confounding and bias
    in observational studies. Epidemiology 21.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> hard = rng.normal(size=500)
    >>> arm = (hard + rng.normal(size=500) > 0).astype(int)
    >>> before = -hard + rng.normal(size=500)
    >>> frame = pd.DataFrame({"arm": arm, "before": before, "hard": hard})
    >>> negative_control_outcome(frame, treatment="arm", outcomes=["before"], method="naive").verdict
    'fails'
    >>> negative_control_outcome(
    ...     frame, treatment="arm", outcomes=["before"], confounders=["hard"], method="overlap"
    ... ).verdict
    'passes'
    """
    if isinstance(outcomes, str) or not outcomes:
        raise EstimationError("outcomes is a list of at least one column", hint="outcomes=['score_before']")
    repeated = sorted({name for name in outcomes if list(outcomes).count(name) > 1})
    if repeated:
        raise EstimationError(f"outcomes names {repeated[0]!r} twice")
    if not 0 < alpha < 1:
        raise EstimationError(f"alpha={alpha}: it lies between 0 and 1, 0.05 for example")
    if graph is not None:
        for name in outcomes:
            if name in graph.nodes and name in graph.descendants(treatment):
                raise EstimationError(
                    f"the graph says that {treatment!r} causes {name!r}: it is no negative control",
                    hint="take an outcome that the arm cannot have moved",
                )
    found = []
    level = 0.95
    for name in outcomes:
        base = Base(frame, treatment, name, confounders, graph, options)
        y = base.problem.y[~base.problem.treated]
        spread = float(y.std(ddof=1)) if len(y) > 1 else 0.0
        found.append(replace(of_effect(base.result, name), figures={"spread": spread}))
        level = base.result.level
    rows = with_holm(found)
    bad = [row for row in rows if row.p_adjusted is not None and row.p_adjusted < alpha]
    unknown = [row for row in rows if row.p_value is None]
    axis = "apparent effect (standard deviations of the outcome in the control arm)"
    return Check(
        name="negative control outcome",
        verdict="fails" if bad else "doubtful" if unknown else "passes",
        parts=rows,
        level=level,
        settings={"alpha": alpha},
        axis=axis,
        pictures={"parts": partial(interval_plot, [_line(row) for row in rows], title=axis)},
        sentence=_sentence(rows, bad, unknown),
    )


def _line(row: Estimate) -> dict[str, str | float | None]:
    """Give a row in standard deviations of its outcome."""
    spread = row["spread"]
    ends = {"estimate": row.estimate, "low": row.ci_low, "high": row.ci_high}
    return {"label": row.label} | {
        k: v / spread if v is not None and spread > 0 else None for k, v in ends.items()
    }


def _sentence(rows: Sequence[Estimate], bad: Sequence[Estimate], unknown: Sequence[Estimate]) -> str:
    if bad:
        worst = min(bad, key=lambda row: row.p_adjusted or 0.0)
        return (
            f"The arm appears to change {worst.label!r} by {format_number(worst.estimate)}"
            f" ({format_number(worst.ci_low)} to {format_number(worst.ci_high)},"
            f" p {p_words(worst.p_adjusted)}), which it cannot have done: the arms differ in"
            " something that was not adjusted for, and the effect on the real outcome is in doubt by as much."
        )
    if unknown:
        return f"No interval can be had for {unknown[0].label!r}, so it cannot serve as a negative control."
    names = ", ".join(repr(row.label) for row in rows)
    widest = max(rows, key=lambda row: row.std_error or 0.0)
    return (
        f"No effect is found on {names}, which the arm cannot have moved; the interval for"
        f" {widest.label!r} is {format_number(widest.ci_low)} to {format_number(widest.ci_high)}, so"
        " confounding beyond that is unlikely if it would have shown there."
    )
