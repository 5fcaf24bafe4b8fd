"""Refutations by what should not matter: a random cause, a subset of the rows, one confounder less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import at_least, generator
from whyprompt._words import counted, format_number
from whyprompt.effects.checks.rerun import Base, failed_share
from whyprompt.effects.options import WEIGHTING
from whyprompt.errors import EstimationError
from whyprompt.results import Reported, rows_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.effects.checks.rerun import Verdict
    from whyprompt.effects.result import EffectResult
    from whyprompt.graph.model import CausalGraph

__all__ = [
    "DataSubset",
    "LeaveOneOut",
    "LeftOut",
    "RandomCommonCause",
    "data_subset",
    "leave_one_covariate_out",
    "random_common_cause",
]


@dataclass(frozen=True, kw_only=True)
class RandomCommonCause(Reported):
    """Estimates with a covariate of pure noise added.

    Attributes
    ----------
    estimate, std_error : float, float or None
        Without it.
    draws, n_failed : int
        Noise covariates, and those that could not be estimated.
    mean_change : float
        Of the estimate; should be zero.
    mean_change_p : float
        Of the test that the estimate without noise is one more draw of those with it. Its own spread counts:
        a matched estimate is one of many that equally good matches would have given.
    rms_change : float
        Root mean square of the changes.
    rms_in_std_errors : float or None
        The same over the standard error: how much of the sampling error an irrelevant choice makes up.
    estimates : tuple of float
        With each noise covariate.
    verdict : {"passes", "fails", "doubtful"}
        ``"fails"`` where the mean moves by over a tenth of a standard error beyond chance, ``"doubtful"``
        where single estimates move by more than half of one.
    sentence : str
        The result in words.
    """

    estimate: float
    std_error: float | None
    draws: int
    n_failed: int
    mean_change: float
    mean_change_p: float
    rms_change: float
    rms_in_std_errors: float | None
    estimates: tuple[float, ...]
    verdict: Verdict
    sentence: str

    def plot(self) -> Any:  # noqa: ANN401 - a chart
        """Draw the estimates with noise beside the one without.

        Returns
        -------
        altair.LayerChart
        """
        from whyprompt import charts

        return charts.draws_plot(
            self.estimates,
            marks={"without noise": self.estimate},
            title="estimate (units of the outcome)",
            what="noise covariates",
        )


def random_common_cause(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    repeats: int = 50,
    random_state: int = 0,
    **options: Any,  # noqa: ANN401 - those of `estimate_effect`
) -> RandomCommonCause:
    """Adjust for noise as well, and see whether the estimate moves.

    Parameters
    ----------
    frame : DataFrame
        pandas, polars or pyarrow. It is read and never written.
    treatment, outcome, confounders, graph
        As in `estimate_effect`.
    repeats : int, default 50
        Noise covariates, standard normal, one at a time.
    random_state : int, default 0
        For the noise.
    **options
        Of `estimate_effect`.

    Returns
    -------
    RandomCommonCause

    Raises
    ------
    EstimationError
        If nothing is adjusted for, or more than a fifth of the repeats cannot be estimated.

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
    ...     frame, treatment="arm", outcome="y", confounders=["hard"], method="overlap", repeats=10
    ... ).verdict
    'passes'
    """
    at_least(repeats, 5, "repeats")
    base = Base(
        frame, treatment=treatment, outcome=outcome, confounders=confounders, graph=graph, options=options
    )
    if not base.confounders or base.result.method == "naive":
        raise EstimationError("nothing is adjusted for, so a random covariate would change nothing")
    if base.problem.known_score is not None:
        raise EstimationError("the propensity is known, so a random covariate would change nothing")
    name = "random_cause"
    while name in base.table.columns:
        name += "_"
    rng = generator(random_state)
    found, failed = [], []
    for _ in range(repeats):
        noise = rng.normal(size=base.table.n_rows)
        one = base.with_covariate(name, noise)
        if isinstance(one, str):
            failed.append(one)
        else:
            found.append(one.estimate)
    failed_share(failed, repeats, "repeats")
    before, error = base.result.estimate, base.result.std_error
    change = np.array(found) - before
    mean, rms = float(change.mean()), float(np.sqrt((change**2).mean()))
    p = _one_more(change)
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
    return RandomCommonCause(
        estimate=before,
        std_error=error,
        draws=len(found),
        n_failed=len(failed),
        mean_change=mean,
        mean_change_p=p,
        rms_change=rms,
        rms_in_std_errors=share,
        estimates=tuple(found),
        verdict=verdict,
        sentence=words,
    )


def _one_more(change: NDArray[np.float64]) -> float:
    """P-value of zero as one more draw of these (a prediction interval by the t distribution)."""
    from scipy import stats

    spread = float(change.std(ddof=1)) * np.sqrt(1 + 1 / len(change))
    mean = abs(float(change.mean()))
    if spread <= 1e-12 * max(mean, float(np.abs(change).max())):
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(mean / spread, len(change) - 1))


@dataclass(frozen=True, kw_only=True)
class DataSubset(Reported):
    """Estimates from random subsets of the rows.

    Attributes
    ----------
    estimate, std_error : float, float or None
        From all rows.
    fraction : float
        Of rows (or clusters) in each subset.
    draws, n_failed : int
        Subsets, and those that could not be estimated.
    mean_change : float
        Of the estimate.
    subset_std_error : float
        The standard error that the spread over subsets implies: their standard deviation around the full
        estimate times sqrt(fraction / (1 - fraction)) (the delete-d jackknife).
    ratio : float or None
        `subset_std_error` over `std_error`; should be near 1 for a difference of means and for weights. Of
        matching it says little: the spread holds which rows were matched, which the jackknife magnifies.
    estimates : tuple of float
        From each subset.
    verdict : {"passes", "fails", "doubtful"}
        ``"fails"`` where the mean moves by more than half a standard error and by more than one draw would
        (p below 0.01); ``"doubtful"`` where `ratio` is below 2/3, or, but for matching, above 3/2.
    sentence : str
        The result in words.
    """

    estimate: float
    std_error: float | None
    fraction: float
    draws: int
    n_failed: int
    mean_change: float
    subset_std_error: float
    ratio: float | None
    estimates: tuple[float, ...]
    verdict: Verdict
    sentence: str

    def plot(self) -> Any:  # noqa: ANN401 - a chart
        """Draw the subsets' estimates beside the one from all rows.

        Returns
        -------
        altair.LayerChart
        """
        from whyprompt import charts

        return charts.draws_plot(
            self.estimates,
            marks={"all rows": self.estimate},
            title="estimate (units of the outcome)",
            what="random subsets",
        )


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
    subsets: int = 100,
    random_state: int = 0,
    **options: Any,  # noqa: ANN401 - those of `estimate_effect`
) -> DataSubset:
    """Estimate from random subsets of the rows.

    It shows whether the answer hangs on a few rows, and whether the standard error is honest.

    Parameters
    ----------
    frame : DataFrame
        pandas, polars or pyarrow. It is read and never written.
    treatment, outcome, confounders, graph
        As in `estimate_effect`. With ``cluster=`` whole clusters are drawn.
    fraction : float, default 0.8
        Of rows in each subset.
    subsets : int, default 100
        Subsets, drawn without replacement.
    random_state : int, default 0
        For the draws.
    **options
        Of `estimate_effect`.

    Returns
    -------
    DataSubset

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
    >>> found = data_subset(frame, treatment="arm", outcome="y", method="naive", subsets=200)
    >>> found.verdict, 0.8 < found.ratio < 1.2
    ('passes', True)
    """
    if not isinstance(fraction, int | float | np.number) or not 0 < fraction < 1:
        raise EstimationError(f"fraction={fraction!r}: it lies between 0 and 1, 0.8 for example")
    at_least(subsets, 10, "subsets")
    base = Base(
        frame, treatment=treatment, outcome=outcome, confounders=confounders, graph=graph, options=options
    )
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
    found, failed = [], []
    for _ in range(subsets):
        kept = np.zeros(groups, dtype=bool)
        kept[rng.choice(groups, size=size, replace=False)] = True
        one = base.of_rows(np.flatnonzero(kept[code]))
        if isinstance(one, str):
            failed.append(one)
        else:
            found.append(one.estimate)
    failed_share(failed, subsets, "subsets")
    before, error = base.result.estimate, base.result.std_error
    change = np.array(found) - before
    share = size / groups
    implied = float(np.sqrt((change**2).mean() * share / (1 - share)))
    ratio = implied / error if error else None
    moved = error is not None and abs(float(change.mean())) > 0.5 * error and _one_more(change) < 0.01
    most = 3 / 2 if base.settings.method in {"naive", *WEIGHTING} else np.inf
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
    return DataSubset(
        estimate=before,
        std_error=error,
        fraction=fraction,
        draws=len(found),
        n_failed=len(failed),
        mean_change=float(change.mean()),
        subset_std_error=implied,
        ratio=ratio,
        estimates=tuple(found),
        verdict=verdict,
        sentence=words,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """The estimate without one confounder.

    Attributes
    ----------
    covariate : str
    estimate, std_error, ci_low, ci_high : float or None
        None where it cannot be estimated.
    change : float or None
        From the full estimate.
    change_in_std_errors : float or None
        Over the standard error of the full estimate.
    failure : str or None
        Why it cannot be estimated.
    """

    covariate: str
    estimate: float | None
    std_error: float | None
    ci_low: float | None
    ci_high: float | None
    change: float | None
    change_in_std_errors: float | None
    failure: str | None


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut(Reported):
    """How much the estimate rests on each confounder.

    Attributes
    ----------
    estimate, std_error, ci_low, ci_high : float, the others or None
        With all confounders.
    rows : tuple of LeftOut
        The most influential first, failures last.
    sign_changes : tuple of str
        Confounders without which the estimate has the other sign.
    decides : tuple of str
        Confounders without which the interval includes zero where it did not, or the reverse.
    sentence : str
        The result in words.
    """

    estimate: float
    std_error: float | None
    ci_low: float | None
    ci_high: float | None
    rows: tuple[LeftOut, ...]
    sign_changes: tuple[str, ...]
    decides: tuple[str, ...]
    sentence: str

    def to_frame(self) -> pd.DataFrame:
        """Return the estimates.

        Returns
        -------
        pandas.DataFrame
            One row a confounder.
        """
        return rows_frame(self.rows, LeftOut)

    def plot(self) -> Any:  # noqa: ANN401 - a chart
        """Draw the estimate without each confounder.

        Returns
        -------
        altair.LayerChart
        """
        from whyprompt import charts

        rows = [{"label": "with all", "estimate": self.estimate, "low": self.ci_low, "high": self.ci_high}]
        rows += [
            {"label": f"without {r.covariate}", "estimate": r.estimate, "low": r.ci_low, "high": r.ci_high}
            for r in self.rows
        ]
        return charts.interval_plot(rows, title="estimate (units of the outcome)")


def leave_one_covariate_out(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    **options: Any,  # noqa: ANN401 - those of `estimate_effect`
) -> LeaveOneOut:
    """Estimate without each confounder in turn.

    The estimates without one are not better ones: a true confounder left out biases them. They show how much
    the answer rests on it, and so how much an unmeasured one of the same strength could do.

    Parameters
    ----------
    frame : DataFrame
        pandas, polars or pyarrow. It is read and never written.
    treatment, outcome, confounders, graph
        As in `estimate_effect`.
    **options
        Of `estimate_effect`.

    Returns
    -------
    LeaveOneOut

    Raises
    ------
    EstimationError
        If there are fewer than two confounders.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 500))
    >>> arm = (2 * a + rng.normal(size=500) > 0).astype(int)
    >>> frame = pd.DataFrame({"arm": arm, "y": arm - 3 * a + b + rng.normal(size=500), "a": a, "b": b})
    >>> found = leave_one_covariate_out(
    ...     frame, treatment="arm", outcome="y", confounders=["a", "b"], method="overlap"
    ... )
    >>> found.rows[0].covariate, found.sign_changes
    ('a', ('a',))
    """
    base = Base(
        frame, treatment=treatment, outcome=outcome, confounders=confounders, graph=graph, options=options
    )
    names = base.confounders or ()
    if len(names) < 2 or base.result.method == "naive":
        raise EstimationError(f"{len(names)} confounder(s) adjusted for: leaving one out needs at least two")
    whole = base.result
    rows, signs, decides = [], [], []
    for name in names:
        one = base.try_estimate(confounders=[c for c in names if c != name])
        if isinstance(one, str):
            rows.append(
                LeftOut(
                    covariate=name,
                    estimate=None,
                    std_error=None,
                    ci_low=None,
                    ci_high=None,
                    change=None,
                    change_in_std_errors=None,
                    failure=one,
                )
            )
            continue
        change = one.estimate - whole.estimate
        rows.append(
            LeftOut(
                covariate=name,
                estimate=one.estimate,
                std_error=one.std_error,
                ci_low=one.ci_low,
                ci_high=one.ci_high,
                change=change,
                change_in_std_errors=change / whole.std_error if whole.std_error else None,
                failure=None,
            )
        )
        if one.estimate * whole.estimate < 0:
            signs.append(name)
        if _excludes_zero(one) != _excludes_zero(whole):
            decides.append(name)
    rows.sort(key=lambda row: (row.change is None, -abs(row.change or 0.0)))
    return LeaveOneOut(
        estimate=whole.estimate,
        std_error=whole.std_error,
        ci_low=whole.ci_low,
        ci_high=whole.ci_high,
        rows=tuple(rows),
        sign_changes=tuple(signs),
        decides=tuple(decides),
        sentence=_left_out_sentence(whole, rows, signs, decides),
    )


def _excludes_zero(result: EffectResult) -> bool:
    return (
        result.ci_low is not None and result.ci_high is not None and (result.ci_low > 0 or result.ci_high < 0)
    )


def _left_out_sentence(
    whole: EffectResult, rows: Sequence[LeftOut], signs: Sequence[str], decides: Sequence[str]
) -> str:
    done = [row for row in rows if row.change is not None]
    lost = [row.covariate for row in rows if row.failure is not None]
    if not done:
        return f"Without any one of {', '.join(map(repr, lost))} nothing can be estimated."
    top = done[0]
    scaled = (
        f" ({format_number(top.change_in_std_errors, digits=2)} standard errors)"
        if top.change_in_std_errors is not None
        else ""
    )
    words = (
        f"The estimate of {format_number(whole.estimate)} rests most on {top.covariate!r}: without it, it"
        f" would be {format_number(top.estimate)}, a change of {format_number(top.change)}{scaled}."
    )
    if signs:
        words += f" Without {', '.join(map(repr, signs))} its sign would be the other."
    others = [name for name in decides if name not in signs]
    if others:
        words += f" Whether the interval includes zero hangs on {', '.join(map(repr, others))}."
    words += " An unmeasured confounder as strong could move it as much."
    if lost:
        words += f" It cannot be estimated without {', '.join(map(repr, lost))}."
    return words
