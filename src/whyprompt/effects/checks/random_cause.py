"""A common cause of pure noise: the estimate should not move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import at_least, generator
from whyprompt._words import counted, format_number
from whyprompt.effects.checks.rerun import Base, of_effect, one_more_p, repeat
from whyprompt.errors import EstimationError
from whyprompt.results import Check, Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whyprompt.graph.model import CausalGraph
    from whyprompt.results import Verdict


def random_common_cause(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    draws: int = 50,
    random_state: int = 0,
    **options: Any,  # noqa: ANN401 - those of `estimate_effect`
) -> Check:
    """Adjust for noise as well, and see whether the estimate moves.

    Parameters
    ----------
    frame, treatment, outcome, confounders, graph, random_state, **options
        As in `refute`.
    draws : int, default 50
        Noise covariates, standard normal, one at a time.

    Returns
    -------
    Check
        Its parts: the mean change of the estimate, which should be zero, with the p of the estimate without
        noise as one more draw of those with it (its own spread counts: a matched estimate is one of many that
        equally good matches would have given); the root mean square of the changes; and the same over the
        standard error, which says how much of the sampling error an irrelevant choice makes up. It
        ``"fails"`` where the mean moves by over a tenth of a standard error beyond chance, and is
        ``"doubtful"`` where single estimates move by more than half of one.

    Raises
    ------
    EstimationError
        If nothing is adjusted for, or more than a fifth of the draws cannot be estimated.

    References
    ----------
    Sharma and Kiciman (2020). DoWhy: an end-to-end library for causal inference. arXiv:2011.04216, section 5.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> hard = rng.normal(size=300)
    >>> arm = (hard + rng.normal(size=300) > 0).astype(int)
    >>> frame = pd.DataFrame({"arm": arm, "y": arm - hard + rng.normal(size=300), "hard": hard})
    >>> random_common_cause(
    ...     frame, treatment="arm", outcome="y", confounders=["hard"], method="overlap", draws=10
    ... ).verdict
    'passes'
    """
    at_least(draws, 5, "draws")
    base = Base(frame, treatment, outcome, confounders, graph, options)
    if not base.confounders or base.result.method == "naive":
        raise EstimationError("nothing is adjusted for, so a random covariate would change nothing")
    if base.problem.known_score is not None:
        raise EstimationError("the propensity is known, so a random covariate would change nothing")
    name = "random_cause"
    while name in base.table.columns:
        name += "_"
    rng = generator(random_state)
    drawn, failed = repeat(
        draws, lambda: base.with_covariate(name, rng.normal(size=base.table.n_rows)), "repeats"
    )
    found = [fit.estimate for fit in drawn]
    before, error = base.result.estimate, base.result.std_error
    change = np.array(found) - before
    mean, rms = float(change.mean()), float(np.sqrt((change**2).mean()))
    p = one_more_p(change)
    share = rms / error if error else None
    biased = p < 0.01 and error is not None and abs(mean) > 0.1 * error
    verdict: Verdict = "fails" if biased else "doubtful" if share is None or share > 0.5 else "passes"
    words = (
        f"Adding a covariate of noise moves the estimate of {format_number(before)} by {format_number(mean)}"
        f" on average and {format_number(rms)} in root mean square over {counted(len(found), 'repeat')}"
    )
    words += f", {share:.2f} standard errors" if share is not None else ""
    words += {
        "passes": ": it does not hang on an irrelevant covariate.",
        "fails": ": noise that cannot matter changes the answer, so the pipeline is not to be trusted.",
        "doubtful": ": which rows are matched or how they are weighted hangs on irrelevant detail; prefer a"
        " more stable method (overlap weights, AIPW, full matching).",
    }[verdict]
    n = len(found)
    return Check(
        name="random common cause",
        verdict=verdict,
        overall=of_effect(base.result, "without noise"),
        parts=(
            Estimate(label="mean change", estimate=mean, p_value=p, df=n - 1, n_used=n),
            Estimate(label="root mean square change", estimate=rms, n_used=n),
            Estimate(label="root mean square change in standard errors", estimate=share, n_used=n),
        ),
        level=base.result.level,
        draws=tuple(found),
        n_failed=len(failed),
        settings={"drawn": "noise covariates"},
        sentence=words,
    )
