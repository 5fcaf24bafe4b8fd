"""Several outcomes at once, with p-values and intervals adjusted for their number."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from dataclasses import replace as changed
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from whyprompt._words import format_number, percent
from whyprompt.effects.pipeline import if_known
from whyprompt.effects.problem import refuse_post_treatment
from whyprompt.effects.result import method_words
from whyprompt.errors import EstimationError
from whyprompt.results import Assumption, BalanceRow, plain
from whyprompt.stats.errors import interval
from whyprompt.stats.rules import holm
from whyprompt.stats.several import (
    correlation,
    max_t,
    more_by_steps,
    normal_scores,
    sign_flip_max_t,
    two_sided_p,
)
from whyprompt.tables import level_name, open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.effects.methods.method import Fit, Plan
    from whyprompt.effects.problem import Problem
    from whyprompt.stats.several import MaxT

    Floats = NDArray[np.float64]

__all__ = ["EffectsResult", "OutcomeRow", "estimate_effects", "paired_effects"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OutcomeRow:
    """The effect on one of several outcomes.

    Attributes
    ----------
    outcome : str
        Column.
    estimate : float
        Treated minus control, in units of the outcome.
    std_error, ci_low, ci_high, p_value : float or None
        For this outcome by itself.
    p_holm, p_max_t : float or None
        Adjusted for the number of outcomes, without and with the use of how they depend on each other.
    simultaneous_low, simultaneous_high : float or None
        Interval that holds for all outcomes at once.
    mean_treated, mean_control : float
    """

    outcome: str
    estimate: float
    std_error: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_holm: float | None
    p_max_t: float | None
    simultaneous_low: float | None
    simultaneous_high: float | None
    mean_treated: float
    mean_control: float


@dataclass(frozen=True, kw_only=True)
class EffectsResult:
    """The effects on several outcomes.

    Attributes
    ----------
    treatment, treated_level, control_level, estimand, method : str
    rows : tuple of OutcomeRow
        In the order asked for.
    correlation : tuple of tuple of float
        Of the estimates.
    level : float
        Of the intervals, each by itself and all at once.
    max_t_by : str
        Where the joint distribution came from.
    p_least : float or None
        The least ``p_max_t`` that random draws can show: one of that size is only known to be smaller. None
        where there is no such floor.
    n_treated, n_control, n_treated_used, n_control_used : int
    balance : tuple of BalanceRow
        The same for all outcomes.
    assumptions : tuple of Assumption
    warnings : tuple of str
    sentence : str
    std_error_method : str
    confounders : tuple of str
    """

    treatment: str
    treated_level: str
    control_level: str
    estimand: str
    method: str
    rows: tuple[OutcomeRow, ...]
    correlation: tuple[tuple[float, ...], ...]
    level: float
    max_t_by: str
    p_least: float | None
    n_treated: int
    n_control: int
    n_treated_used: int
    n_control_used: int
    balance: tuple[BalanceRow, ...]
    assumptions: tuple[Assumption, ...]
    warnings: tuple[str, ...]
    sentence: str
    std_error_method: str
    confounders: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold.

        Returns
        -------
        dict
        """
        return {f.name: plain(getattr(self, f.name)) for f in fields(self)}

    def to_frame(self) -> pd.DataFrame:
        """Return one row an outcome.

        Returns
        -------
        pandas.DataFrame
            With the columns of `OutcomeRow`.
        """
        import pandas as pd

        return pd.DataFrame([plain(row) for row in self.rows])

    def plot(self) -> Any:  # noqa: ANN401 - a chart
        """Draw the effects as a forest plot.

        Returns
        -------
        altair.Chart
        """
        from whyprompt import charts

        return charts.forest_plot(self)

    def __str__(self) -> str:
        return self.sentence


def _names(outcomes: Sequence[str]) -> list[str]:
    if isinstance(outcomes, str):
        raise EstimationError(
            f"outcomes is the text {outcomes!r}; a list of columns is needed", hint=f"outcomes=[{outcomes!r}]"
        )
    names = list(outcomes)
    if not names:
        raise EstimationError("no outcome was named")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise EstimationError(f"outcome {twice[0]!r} is named twice")
    return names


def estimate_effects(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcomes: Sequence[str],
    random_state: int = 0,
    **options: Any,  # noqa: ANN401 - options of estimate_effect
) -> EffectsResult:
    """Estimate the effect of one arm against another on several outcomes.

    Parameters
    ----------
    frame : DataFrame
        One arm a row.
    treatment : str
        Column.
    outcomes : sequence of str
        Columns. None of them may be a confounder.
    random_state : int, default 0
        For everything random.
    **options
        Of `estimate_effect`: confounders or graph, method, estimand, caliper, cluster, level, ...

    Returns
    -------
    EffectsResult

    Raises
    ------
    DataError, EstimationError, GraphError
        As `estimate_effect`; also for ``std_error="bootstrap"``, ``std_error="wild_bootstrap"`` and ``by=``.

    Notes
    -----
    Rows are matched or weighted once. The covariance of two estimates is a quarter of the difference of the
    variances of their sum and of their difference, each by the method's own error; the largest |t| is then
    simulated from a normal (or t) distribution with that correlation.

    References
    ----------
    Hothorn, T., Bretz, F. and Westfall, P. (2008). Simultaneous inference in general parametric models.
    Biometrical Journal 50, 346-363.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> arm = rng.integers(0, 2, 200)
    >>> frame = pd.DataFrame({"arm": arm, "a": arm + rng.normal(size=200), "b": rng.normal(size=200)})
    >>> result = estimate_effects(
    ...     frame, treatment="arm", outcomes=["a", "b"], method="naive", design="randomized"
    ... )
    >>> [row.p_max_t < 0.05 for row in result.rows]
    [True, False]
    """
    from whyprompt.effects.estimate import estimated

    names = _names(outcomes)
    table = open_table(frame)
    table.require(names, role="outcome")
    if options.get("std_error") in {"bootstrap", "wild_bootstrap"}:
        raise EstimationError(
            "a bootstrap is not made for several outcomes at once", hint="leave std_error='auto'"
        )
    if options.get("by") is not None:
        raise EstimationError("by= is for one outcome at a time", hint="use estimate_effect")
    base = estimated(table, treatment=treatment, outcome=names[0], random_state=random_state, **options)
    problem, chosen, first = base.problem, base.plan, base.fit
    graph = options.get("graph")
    for name in names[1:]:
        refuse_post_treatment(problem.confounders, treatment=treatment, outcome=name)
        if graph is not None:
            graph.check_adjustment(treatment, name, problem.confounders)
    columns = [table.numbers(name, role="outcome") for name in names]
    ys = columns if base.rows is None else [y[base.rows] for y in columns]
    drawn = [chosen.method.fit_again(problem, chosen, first, y) for y in ys]
    cores = [if_known(changed(problem, y=y), core) for y, core in zip(ys, drawn, strict=True)]
    found = [
        _Found(
            core.estimate,
            core.std_error,
            core.ci,
            core.df,
            core.means,
            two_sided_p(core.estimate, core.std_error, core.df),
            partial(_plain_interval, core),
        )
        for core in cores
    ]
    matrix = None if all(f.std_error is None for f in found) else _joint(problem, chosen, drawn, ys)
    adjusted: MaxT | None = None
    result = base.result
    warnings = [w for w in result.warnings if "risk difference" not in w]
    warnings += [w for core in cores for w in core.warnings if w not in warnings]
    if matrix is None:
        warnings.append("an outcome has no standard error: no joint adjustment can be made")
    else:
        t = np.array([f.estimate / f.std_error if f.std_error else 0.0 for f in found])
        t = normal_scores(t, [f.df for f in found])
        adjusted = max_t(t, matrix, level=chosen.level, random_state=random_state)
    rows = _rows(names, found, adjusted, level=chosen.level, normal=True)
    return EffectsResult(
        treatment=treatment,
        treated_level=result.treated,
        control_level=result.control,
        estimand=result.estimand,
        method=result.method,
        rows=rows,
        correlation=() if matrix is None else tuple(tuple(float(v) for v in row) for row in matrix),
        level=chosen.level,
        max_t_by="the joint distribution of the estimates, simulated",
        p_least=None,
        n_treated=result.n_treated,
        n_control=result.n_control,
        n_treated_used=result.n_treated_used,
        n_control_used=result.n_control_used,
        balance=result.balance,
        assumptions=result.assumptions,
        warnings=tuple(dict.fromkeys(warnings)),
        sentence=_sentence(
            rows,
            (result.treated, result.control),
            chosen.level,
            result.assumptions,
            result.method,
        )
        + (
            f" Rows repeat {problem.cluster_name!r}, which the intervals allow for."
            if options.get("cluster") is None and problem.cluster_name
            else ""
        ),
        std_error_method=result.std_error_method,
        confounders=result.confounders,
    )


class _Found(NamedTuple):
    estimate: float
    std_error: float | None
    ci: tuple[float | None, float | None]
    df: float | None
    means: tuple[float, float]
    p_value: float | None
    # The interval at another level.
    at: Callable[[float], tuple[float | None, float | None]]


def _joint(problem: Problem, plan: Plan, cores: Sequence[Fit], ys: Sequence[Floats]) -> Floats | None:
    """Correlation of the estimates, from the errors of sums and differences of scaled outcomes."""
    k = len(ys)
    errors = [core.std_error for core in cores]
    if any(e is None for e in errors):
        return None
    scaled = [y / e if e else y * 0.0 for y, e in zip(ys, errors, strict=True)]
    matrix = np.eye(k)
    for a in range(k):
        for b in range(a):
            both = [
                plan.method.fit_again(problem, plan, cores[0], scaled[a] + sign * scaled[b]).std_error
                for sign in (1.0, -1.0)
            ]
            if both[0] is None or both[1] is None:
                return None
            matrix[a, b] = matrix[b, a] = (both[0] ** 2 - both[1] ** 2) / 4.0
    return correlation(matrix)


def _plain_interval(core: Fit, level: float) -> tuple[float | None, float | None]:
    return interval(core.estimate, core.std_error, level=level, df=core.df)


def _ends(
    one: Callable[[float], tuple[float | None, float | None, float | None]], level: float
) -> tuple[float | None, float | None]:
    low, high, _ = one(level)
    return low, high


def _rows(
    names: Sequence[str], found: Sequence[_Found], adjusted: MaxT | None, *, level: float, normal: bool
) -> tuple[OutcomeRow, ...]:
    """Make the rows; an interval that holds at once is the outcome's own kind at a stricter level."""
    from scipy import stats

    rows = []
    for k, (name, f, p_holm) in enumerate(zip(names, found, holm([f.p_value for f in found]), strict=True)):
        wide: tuple[float | None, float | None] = (None, None)
        p_max_t = None
        if adjusted is not None and f.std_error is not None and np.isfinite(adjusted.critical):
            # Sign flips give the distribution of t itself; simulated scores are normal, each t has its df.
            law = stats.norm if normal or f.df is None else stats.t(f.df)
            wide = f.at(max(level, 1.0 - 2.0 * float(law.sf(adjusted.critical))))
            # Two reference distributions are in play: what is adjusted is never the smaller of the two.
            p_max_t = max(float(adjusted.p_values[k]), f.p_value or 0.0)
        rows.append(
            OutcomeRow(
                outcome=name,
                estimate=f.estimate,
                std_error=f.std_error,
                ci_low=f.ci[0],
                ci_high=f.ci[1],
                p_value=f.p_value,
                p_holm=p_holm,
                p_max_t=p_max_t,
                simultaneous_low=wide[0],
                simultaneous_high=wide[1],
                mean_treated=f.means[0],
                mean_control=f.means[1],
            )
        )
    return tuple(rows)


def paired_effects(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    unit: str = "item_id",
    arm: str = "arm",
    outcomes: Sequence[str],
    treated: object,
    control: object,
    cluster: str | None = None,
    level: float = 0.95,
    draws: int = 20_000,
    random_state: int = 0,
) -> EffectsResult:
    """Estimate the effect on several outcomes from items run under both arms.

    Parameters
    ----------
    frame : DataFrame
        One row a trial.
    unit, arm : str
        Columns.
    outcomes : sequence of str
        Columns.
    treated, control : object
        Levels of `arm`.
    cluster : str, optional
        Column that groups items sampled together; errors are then CR2 and signs flip by cluster.
    level : float, default 0.95
        Of the intervals.
    draws : int, default 20000
        Random sign patterns; all of them are used for up to 14 items (or clusters).
    random_state : int, default 0
        Seed.

    Returns
    -------
    EffectsResult
        ``p_max_t`` is the step-down sign-flip p, exact where differences are symmetric under the null.

    Raises
    ------
    DataError
        As `paired_effect`.
    EstimationError
        As `paired_effect`; also if no item has all outcomes under both arms.

    Notes
    -----
    Items are used for all outcomes or for none, so that rows are comparable; those left out are counted.

    References
    ----------
    Westfall, P. H. and Young, S. S. (1993). Resampling-Based Multiple Testing. Wiley, algorithm 2.8.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame(
    ...     {
    ...         "item_id": [1, 1, 2, 2, 3, 3],
    ...         "arm": ["direct", "cot"] * 3,
    ...         "score": [0.0, 1.0, 2.0, 4.0, 1.0, 4.0],
    ...         "words": [5.0, 9.0, 6.0, 9.0, 5.0, 7.0],
    ...     }
    ... )
    >>> result = paired_effects(frame, outcomes=["score", "words"], treated="cot", control="direct")
    >>> [row.estimate for row in result.rows]
    [2.0, 3.0]
    """
    from whyprompt.effects.paired import paired_effect
    from whyprompt.effects.pairs import (
        item_labels,
        known_error,
        paired_differences,
        paired_interval,
        paired_scale,
    )

    names = _names(outcomes)
    table = open_table(frame)
    shared: dict[str, Any] = {"unit": unit, "arm": arm, "treated": treated, "control": control}
    made = [paired_differences(table, outcome=name, **shared) for name in names]
    common = set.intersection(*(set(pairs.units) for pairs in made))
    if not common:
        raise EstimationError(f"no {unit!r} has all of {', '.join(names)} under both arms")
    places = [np.array([u in common for u in pairs.units]) for pairs in made]
    each = [(pairs.treated[here], pairs.control[here]) for pairs, here in zip(made, places, strict=True)]
    d = np.column_stack([t - c for t, c in each])
    label = None
    if cluster is not None:
        label = item_labels(table, cluster, unit, made[0], role="cluster")[places[0]]
    found = []
    for j, (t, c) in enumerate(each):
        size = float(max(np.abs(t).max(), np.abs(c).max()))
        error, df, _ = known_error(d[:, j], label, size)
        one = partial(
            paired_interval, d[:, j], error, df, scale=paired_scale(made[j], clustered=label is not None)
        )
        low, high, p = one(level)
        means = (float(t.mean()), float(c.mean()))
        found.append(_Found(float(d[:, j].mean()), error, (low, high), df, means, p, partial(_ends, one)))
    units = d if label is None else _sums(d, label)
    # Random signs are dealt to the units in an order of their own, not in that of the table.
    units = units[np.lexsort(units.T[::-1])]
    adjusted = None
    if len(units) > 1:
        adjusted = sign_flip_max_t(units, level=level, draws=draws, random_state=random_state)
    overall = paired_effect(table, outcome=names[0], cluster=cluster, level=level, **shared)
    n, total = len(d), overall.n_pairs + overall.n_incomplete
    elsewhere = ("left out as incomplete", "by the same amount")
    warnings = [w for w in overall.warnings if not any(text in w for text in elsewhere)]
    still = [name for name, f in zip(names, found, strict=True) if f.std_error is None]
    if still and n > 1:
        warnings.append(f"no standard error of {', '.join(still)}: all items (or clusters) change alike")
    if n < total:
        warnings.append(f"{total - n} item(s) without all outcomes under both arms are left out")
    if adjusted is not None and len(units) < 7:
        warnings.append(
            f"with {len(units)} items (or clusters) no sign-flip p can be below {2 / 2 ** len(units):.3g}"
        )
    rows = _rows(names, found, adjusted, level=level, normal=False)
    varies = d.std(axis=0) > 0
    matrix = np.eye(len(names))
    if varies.sum() > 1:
        matrix[np.ix_(varies, varies)] = np.corrcoef(units[:, varies].T)
    return EffectsResult(
        treatment=arm,
        treated_level=level_name(treated),
        control_level=level_name(control),
        estimand="ate",
        method="paired",
        rows=rows,
        correlation=tuple(tuple(float(v) for v in row) for row in matrix),
        level=level,
        max_t_by="random signs on items" if cluster is None else "random signs on clusters",
        p_least=None if adjusted is None or not adjusted.least else adjusted.least,
        n_treated=total,
        n_control=total,
        n_treated_used=n,
        n_control_used=n,
        balance=(),
        assumptions=overall.assumptions,
        warnings=tuple(warnings),
        sentence=_sentence(
            rows, (level_name(treated), level_name(control)), level, overall.assumptions, "paired"
        ),
        std_error_method=overall.std_error_method,
    )


def _sums(d: Floats, label: NDArray[Any]) -> Floats:
    _, code = np.unique(label.astype(str), return_inverse=True)
    return np.column_stack([np.bincount(code, weights=column) for column in d.T])


def _includes_zero(row: OutcomeRow) -> bool:
    low, high = row.simultaneous_low, row.simultaneous_high
    return low is not None and high is not None and low <= 0 <= high


def _sentence(
    rows: Sequence[OutcomeRow],
    arms: tuple[str, str],
    level: float,
    assumptions: Sequence[Assumption],
    method: str,
) -> str:
    def one(row: OutcomeRow) -> str:
        span = (
            f" ({format_number(row.simultaneous_low)} to {format_number(row.simultaneous_high)})"
            if row.simultaneous_low is not None
            else ""
        )
        return f"{row.outcome!r} by {format_number(row.estimate)}{span}"

    seen = [row.outcome for row in rows if row.p_max_t is not None and row.p_max_t < 1 - level]
    verdict = (
        f"Adjusted for {len(rows)} outcomes, a difference is seen in {', '.join(map(repr, seen))}."
        if seen
        else f"Adjusted for {len(rows)} outcomes, none of the differences is shown to be other than zero."
    )
    text = (
        f"Under {arms[0]!r} instead of {arms[1]!r} there is a difference in {', '.join(one(r) for r in rows)}"
        f" (intervals that hold at once at {percent(level)}; {method_words(method)}). {verdict}"
    )
    text += more_by_steps(
        [repr(row.outcome) for row in rows if row.outcome in seen and _includes_zero(row)],
        least=[row.p_max_t for row in rows if row.p_max_t is not None and _includes_zero(row)],
        level=level,
    )
    failed = [a.detail.rstrip(".") for a in assumptions if a.status == "fails"]
    open_question = any(a.name == "exchangeability" and a.status != "holds" for a in assumptions)
    if failed:
        text += f" {'. '.join(failed)}. They may therefore not be claimed as effects of the arm."
    elif method == "naive" and open_question:
        text += " They are comparisons and not effects: nothing was adjusted for."
    elif open_question:
        detail = next(a.detail for a in assumptions if a.name == "exchangeability")
        text += f" They are effects if, {detail}."
    return text
