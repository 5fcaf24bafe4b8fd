"""Random subsets of the rows: whether the answer hangs on a few, and whether its error is honest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import at_least, generator
from whyprompt._words import format_number
from whyprompt.effects.checks.rerun import Base, of_effect, one_more_p, repeat
from whyprompt.errors import EstimationError
from whyprompt.results import Check, Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.effects.methods.method import Fit
    from whyprompt.graph.model import CausalGraph
    from whyprompt.results import Verdict

_SUBSET_WORDS: dict[str, str] = {
    "passes": " The two agree, and no small part of the data carries the result.",
    "fails": " The average moves by over half a standard error: the answer depends on how many rows.",
    "doubtful": " The two disagree: the reported standard error, or the method's stability, is in doubt.",
}


def data_subset(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    fraction: float = 0.8,
    draws: int = 100,
    random_state: int = 0,
    **options: Any,  # noqa: ANN401 - those of `estimate_effect`
) -> Check:
    """Estimate from random subsets of the rows.

    It shows whether the answer hangs on a few rows, and whether the standard error is honest.

    Parameters
    ----------
    frame, treatment, outcome, confounders, graph, random_state, **options
        As in `refute`. With ``cluster=`` whole clusters are drawn.
    fraction : float, default 0.8
        Of rows in each subset.
    draws : int, default 100
        Subsets, drawn without replacement.

    Returns
    -------
    Check
        Its parts: the mean change of the estimate, with the p of the full estimate as one more draw; the
        standard error that the spread over subsets implies, their standard deviation around the full
        estimate times sqrt(fraction / (1 - fraction)) (the delete-d jackknife); and its ratio to the reported
        one, near 1 for a difference of means and for weights. Of matching the ratio says little: the spread
        holds which rows were matched, which the jackknife magnifies. It ``"fails"`` where the mean moves by
        more than half a standard error and by more than one draw would (p below 0.01), and is ``"doubtful"``
        where the ratio is below 2/3 or, but for matching, above 3/2.

    Raises
    ------
    EstimationError
        If the fraction is not between 0 and 1, or more than a fifth of the subsets cannot be estimated.

    References
    ----------
    Shao and Wu (1989). A general theory for jackknife variance estimation. Annals of Statistics 17.
    Abadie and Imbens (2008). On the failure of the bootstrap for matching estimators. Econometrica 76.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> arm = rng.integers(0, 2, 400)
    >>> frame = pd.DataFrame({"arm": arm, "y": arm + rng.normal(size=400)})
    >>> found = data_subset(frame, treatment="arm", outcome="y", method="naive", draws=200)
    >>> found.verdict, 0.8 < found.part("ratio to the reported standard error").estimate < 1.2
    ('passes', True)
    """
    if not isinstance(fraction, int | float | np.number) or not 0 < fraction < 1:
        raise EstimationError(f"fraction={fraction!r}: it lies between 0 and 1, 0.8 for example")
    at_least(draws, 10, "draws")
    base = Base(frame, treatment, outcome, confounders, graph, options)
    n = base.table.n_rows
    cluster = base.problem.cluster
    code = np.arange(n)
    if cluster is not None:
        code = np.unique(cluster.astype(str), return_inverse=True)[1]
    groups = int(code.max()) + 1
    size = round(fraction * groups)
    if not 0 < size < groups:
        raise EstimationError(f"{fraction:g} of {groups} rows or clusters is no proper subset")
    rng = generator(random_state)

    def one() -> Fit | str:
        kept = np.zeros(groups, dtype=bool)
        kept[rng.choice(groups, size=size, replace=False)] = True
        return base.of_rows(np.flatnonzero(kept[code]))

    drawn, failed = repeat(draws, one, "subsets")
    found = [fit.estimate for fit in drawn]
    before, error = base.result.estimate, base.result.std_error
    change = np.array(found) - before
    share = size / groups
    implied = float(np.sqrt((change**2).mean() * share / (1 - share)))
    ratio = implied / error if error else None
    p = one_more_p(change)
    moved = error is not None and abs(float(change.mean())) > 0.5 * error and p < 0.01
    most = 3 / 2 if not base.plan.method.matches else np.inf
    verdict: Verdict = (
        "fails" if moved else "doubtful" if ratio is None or not 2 / 3 <= ratio <= most else "passes"
    )
    if verdict == "passes" and ratio is not None and ratio > 3 / 2:
        verdict_words = (
            " The first is larger, as it must be where every subset is matched anew; no small part of the"
            " data carries the result."
        )
    else:
        verdict_words = _SUBSET_WORDS[verdict]
    unit = "rows" if cluster is None else "clusters"
    words = (
        f"Over {len(found)} random subsets of {share:.0%} of the {unit} the"
        f" estimate of {format_number(before)} moves by {format_number(float(change.mean()))} on average;"
        f" their spread implies a standard error of {format_number(implied)}, against {format_number(error)}"
        " reported."
    )
    words += verdict_words
    m = len(found)
    return Check(
        name="data subset",
        verdict=verdict,
        overall=of_effect(base.result, "all rows"),
        parts=(
            Estimate(label="mean change", estimate=float(change.mean()), p_value=p, df=m - 1, n_used=m),
            Estimate(label="standard error by subsets", estimate=implied, n_used=m),
            Estimate(label="ratio to the reported standard error", estimate=ratio, n_used=m),
        ),
        level=base.result.level,
        draws=tuple(found),
        n_failed=len(failed),
        settings={"drawn": "random subsets", "fraction": float(fraction)},
        sentence=words,
    )
