"""Attempts to refute an estimate: placebo arm, negative control, random cause, subsets, leaving out.

Each repeats the whole pipeline with one thing changed whose right answer is known, and reports how far the
answer found is from it. Passing is no proof that nothing is confounded; failing is a reason not to believe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whyprompt._arguments import at_least, names
from whyprompt.effects.checks.placebo import (
    NegativeControl,
    NegativeControls,
    PlaceboTreatment,
    negative_control_outcome,
    placebo_treatment,
)
from whyprompt.effects.checks.rerun import Base
from whyprompt.effects.checks.stability import (
    DataSubset,
    LeaveOneOut,
    LeftOut,
    RandomCommonCause,
    data_subset,
    leave_one_covariate_out,
    random_common_cause,
)
from whyprompt.errors import EstimationError
from whyprompt.results import Reported

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from whyprompt.graph.model import CausalGraph

__all__ = [
    "DataSubset",
    "LeaveOneOut",
    "LeftOut",
    "NegativeControl",
    "NegativeControls",
    "PlaceboTreatment",
    "RandomCommonCause",
    "Refutation",
    "data_subset",
    "leave_one_covariate_out",
    "negative_control_outcome",
    "placebo_treatment",
    "random_common_cause",
    "refute",
]


@dataclass(frozen=True, kw_only=True)
class Refutation(Reported):
    """Every refutation that applies to an estimate.

    Attributes
    ----------
    placebo : PlaceboTreatment or None
    negative_controls : NegativeControls or None
    random_cause : RandomCommonCause or None
    subset : DataSubset or None
    left_out : LeaveOneOut or None
        None where it does not apply.
    not_done : tuple of str
        What does not apply or could not be done, with the reason.
    sentence : str
        All of it in words.
    """

    placebo: PlaceboTreatment | None
    negative_controls: NegativeControls | None
    random_cause: RandomCommonCause | None
    subset: DataSubset | None
    left_out: LeaveOneOut | None
    not_done: tuple[str, ...]
    sentence: str

    def to_frame(self) -> pd.DataFrame:
        """Return the verdicts.

        Returns
        -------
        pandas.DataFrame
            One row a refutation: ``refutation``, ``verdict``, ``sentence``.
        """
        import pandas as pd

        named = [
            ("placebo treatment", self.placebo),
            ("negative control outcome", self.negative_controls),
            ("random common cause", self.random_cause),
            ("data subset", self.subset),
            ("leave one covariate out", self.left_out),
        ]
        rows = [(name, getattr(r, "verdict", None), r.sentence) for name, r in named if r is not None]
        return pd.DataFrame(rows, columns=["refutation", "verdict", "sentence"])

    def plot(self) -> Any:  # noqa: ANN401 - a chart
        """Draw the real estimate beside those of every refutation, with the middle 95% of their draws.

        Returns
        -------
        altair.LayerChart
        """
        import numpy as np

        from whyprompt import charts

        rows: list[dict[str, Any]] = []
        drawn = (
            ("placebo arms", self.placebo),
            ("noise added", self.random_cause),
            ("random subsets", self.subset),
        )
        for label, found in drawn:
            if found is None:
                continue
            if not rows:
                rows.append({"label": "estimate", "estimate": found.estimate, "low": None, "high": None})
            low, middle, high = np.quantile(found.estimates, [0.025, 0.5, 0.975]).tolist()
            rows.append({"label": label, "estimate": middle, "low": low, "high": high})
        left = () if self.left_out is None else self.left_out.rows
        rows += [
            {"label": f"without {r.covariate}", "estimate": r.estimate, "low": r.ci_low, "high": r.ci_high}
            for r in left
        ]
        return charts.interval_plot(
            rows, title="estimate (units of the outcome); lines: middle 95% of draws, or interval"
        )


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
) -> Refutation:
    """Run every refutation that applies.

    Parameters
    ----------
    frame : DataFrame
        pandas, polars or pyarrow. It is read and never written.
    treatment, outcome, confounders, graph
        As in `estimate_effect`.
    negative_controls : sequence of str
        Outcomes that the arm cannot have moved.
    draws : int, default 100
        Placebo arms, noise covariates and subsets.
    random_state : int, default 0
        For the draws.
    **options
        Of `estimate_effect`.

    Returns
    -------
    Refutation

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
    shared = {"treatment": treatment, "confounders": confounders, "graph": graph, **options}
    not_done: list[str] = []
    at_least(draws, 10, "draws")
    negative_controls = names(negative_controls, "negative_controls")

    def attempt(name: str, run: Callable[[], Any]) -> Any:  # noqa: ANN401 - one of the results
        try:
            return run()
        except EstimationError as error:
            not_done.append(f"{name} ({error.message})")
            return None

    # What is wrong with the table or the question is an error, and not a refutation that does not apply.
    Base(frame, treatment=treatment, outcome=outcome, confounders=confounders, graph=graph, options=options)
    placebo = attempt(
        "placebo treatment",
        lambda: placebo_treatment(
            frame, outcome=outcome, placebos=draws, random_state=random_state, **shared
        ),
    )
    controls = None
    if negative_controls:
        controls = attempt(
            "negative control outcome",
            lambda: negative_control_outcome(frame, outcomes=negative_controls, **shared),
        )
    else:
        not_done.append("negative control outcome (none was named)")
    noise = attempt(
        "random common cause",
        lambda: random_common_cause(
            frame, outcome=outcome, repeats=draws, random_state=random_state, **shared
        ),
    )
    subset = attempt(
        "data subset",
        lambda: data_subset(frame, outcome=outcome, subsets=draws, random_state=random_state, **shared),
    )
    left_out = attempt(
        "leave one covariate out", lambda: leave_one_covariate_out(frame, outcome=outcome, **shared)
    )
    parts = [r.sentence for r in (placebo, controls, noise, subset, left_out) if r is not None]
    if not_done:
        parts.append("Not done: " + "; ".join(not_done) + ".")
    return Refutation(
        placebo=placebo,
        negative_controls=controls,
        random_cause=noise,
        subset=subset,
        left_out=left_out,
        not_done=tuple(not_done),
        sentence=" ".join(parts),
    )
