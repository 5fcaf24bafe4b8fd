"""Attempts to refute an estimate: placebo arm, negative control, random cause, subsets, leaving out.

Each repeats the whole pipeline with one thing changed whose right answer is known, and reports how far the
answer found is from it. Passing is no proof that nothing is confounded; failing is a reason not to believe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt._arguments import at_least, names
from whyprompt.effects.checks.leave_one_out import leave_one_covariate_out
from whyprompt.effects.checks.negative_controls import negative_control_outcome
from whyprompt.effects.checks.placebo import placebo_treatment
from whyprompt.effects.checks.random_cause import random_common_cause
from whyprompt.effects.checks.rerun import Base, all_checks, attempted
from whyprompt.effects.checks.subset import data_subset
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.graph.model import CausalGraph
    from whyprompt.results import Check, Checks


def refute(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    negative_controls: Sequence[str] = (),
    draws: int = 100,
    random_state: int = 0,
    **options: Any,  # noqa: ANN401 - those of `estimate_effect`
) -> Checks:
    """Run every refutation that applies.

    Parameters
    ----------
    frame, treatment, outcome, confounders, graph
        As in `estimate_effect`.
    negative_controls : sequence of str
        Outcomes that the arm cannot have moved.
    draws : int, default 100
        Placebo arms, noise covariates and subsets.
    random_state : int, default 0
        For the draws.
    **options
        Of `estimate_effect`; its `draws`, of a bootstrap, are `bootstrap_draws` here.

    Returns
    -------
    Checks
        ``"placebo treatment"``, ``"negative control outcome"``, ``"random common cause"``, ``"data subset"``
        and ``"leave one covariate out"``, where they apply.

    Raises
    ------
    DataError, EstimationError, GraphError
        As for `estimate_effect`; a refutation that does not apply is named in the result.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 300))
    >>> arm = (a + rng.normal(size=300) > 0).astype(int)
    >>> frame = pd.DataFrame({"arm": arm, "y": arm + a + b + rng.normal(size=300), "a": a, "b": b})
    >>> found = refute(
    ...     frame, treatment="arm", outcome="y", confounders=["a", "b"], method="overlap", draws=20
    ... )
    >>> found.to_frame()["verdict"].tolist()[:3]
    ['passes', 'passes', 'passes']
    """
    at_least(draws, 10, "draws")
    negative_controls = names(negative_controls, "negative_controls")
    # What is wrong with the table or the question is an error, and not a check that does not apply.
    base = Base(frame, treatment, outcome, confounders, graph, options)
    shared = {"treatment": treatment, "confounders": confounders, "graph": graph, **options}
    drawn = {**shared, "outcome": outcome, "draws": draws, "random_state": random_state}

    def controls() -> Check:
        if not negative_controls:
            raise EstimationError("none was named")
        return negative_control_outcome(frame, outcomes=negative_controls, **shared)

    found, not_done = attempted(
        {
            "placebo treatment": lambda: placebo_treatment(frame, **drawn),
            "negative control outcome": controls,
            "random common cause": lambda: random_common_cause(frame, **drawn),
            "data subset": lambda: data_subset(frame, **drawn),
            "leave one covariate out": lambda: leave_one_covariate_out(frame, outcome=outcome, **shared),
        }
    )
    return all_checks(found, not_done, base.result)
