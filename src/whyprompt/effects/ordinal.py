"""Ordered outcomes: how the arm moves the chance of reaching each level.

A grade of 1 to 5 has no mean worth the name. What is reported is the difference in P(Y >= k) for each level
k, twice: as the data have it, and smoothed by the proportional odds model, with a check of that model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted, format_number, p_words, percent
from whyprompt.effects.ordinal_result import OrdinalResult, ThresholdRow
from whyprompt.errors import DataError, EstimationError
from whyprompt.results import Assumption
from whyprompt.stats.errors import interval
from whyprompt.stats.proportional_odds import at_least, category_scores, fit_proportional_odds
from whyprompt.stats.rules import holm
from whyprompt.stats.several import correlation, max_t, reach, two_sided_p
from whyprompt.tables import level_name, open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.pairs import PairedDifferences
    from whyprompt.tables import Table

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

__all__ = ["OrdinalResult", "ThresholdRow", "ordinal_effect", "paired_ordinal_effect"]

_MANY_LEVELS = 20
# Shares are of size one: an error below this is rounding.
_ROUNDING = 1e-10


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Source:
    """What a design must give: shares of a level, and the error of a linear functional of the levels.

    `shares(code)` are the two arms' shares of one level; `error(g)` is the standard error (and its degrees
    of freedom) of the sum over arms a (the treated first) and levels j of ``g[a, j]`` times a share.
    """

    shares: Callable[[int], tuple[float, float]]
    error: Callable[[Floats], tuple[float | None, float | None]]
    sizes: tuple[float, float]


def ordinal_effect(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    levels: Sequence[object] | None = None,
    **options: Any,  # noqa: ANN401 - options of estimate_effect
) -> OrdinalResult:
    """Estimate the effect of one arm against another on an ordered outcome.

    Parameters
    ----------
    frame : DataFrame
        One arm a row.
    treatment, outcome : str
        Columns.
    levels : sequence, optional
        Of the outcome, from the lowest to the highest; needed where it is text.
    **options
        Of `estimate_effect`: confounders or graph, method, estimand, caliper, cluster, level, ...

    Returns
    -------
    OrdinalResult

    Raises
    ------
    DataError
        If a column is absent or has missing values, or a level is not in `levels`.
    EstimationError
        As `estimate_effect`; also for ``std_error="bootstrap"``, which is not made for this.

    Notes
    -----
    Each arm's weighted shares of the levels come from the method, and so does the error of every smooth
    function of them: the outcome is replaced by the function's derivative, row by row. The model is fitted to
    the two weighted distributions, each arm weighing as much as its rows used.

    References
    ----------
    McCullagh, P. (1980). Regression models for ordinal data. JRSS B 42, 109-142.
    Brant, R. (1990). Assessing proportionality in the proportional odds model. Biometrics 46, 1171-1178.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"arm": [0] * 6 + [1] * 6, "grade": [1, 1, 1, 2, 2, 3, 1, 2, 2, 3, 3, 3]})
    >>> result = ordinal_effect(frame, treatment="arm", outcome="grade", method="naive", design="randomized")
    >>> [(row.level, round(row.difference, 3)) for row in result.rows]
    [('2', 0.333), ('3', 0.333)]
    """
    from whyprompt.effects.estimate import estimated

    table = open_table(frame)
    codes, names = _levels(table, outcome, levels)
    if options.get("std_error") == "bootstrap":
        raise EstimationError("the bootstrap is not made for ordered outcomes", hint="leave std_error='auto'")
    if options.get("by") is not None:
        raise EstimationError("by= is not made for ordered outcomes", hint="give the rows of one subgroup")
    coded = _with_codes(table, outcome, codes)
    base = estimated(coded, treatment=treatment, outcome=outcome, **options)
    problem, chosen, core = base.problem, base.plan, base.fit
    grade = problem.y.astype(np.int64)
    t = problem.treated
    result = base.result

    def shares(code: int) -> tuple[float, float]:
        return chosen.method.fit_again(problem, chosen, core, (grade == code).astype(float)).means

    def error(g: Floats) -> tuple[float | None, float | None]:
        other = chosen.method.fit_again(problem, chosen, core, np.where(t, g[0][grade], -g[1][grade]))
        return other.std_error, other.df

    sizes = (float(result.n_treated_used), float(result.n_control_used))
    return _ordinal(
        _Source(shares=shares, error=error, sizes=sizes),
        names,
        level=chosen.level,
        about={
            "treatment": treatment,
            "outcome": outcome,
            "treated_level": result.treated,
            "control_level": result.control,
            "estimand": result.estimand,
            "method": result.method,
            "n_treated": result.n_treated,
            "n_control": result.n_control,
            "n_treated_used": result.n_treated_used,
            "n_control_used": result.n_control_used,
            "balance": result.balance,
            "assumptions": result.assumptions,
            "warnings": tuple(w for w in result.warnings if "risk difference" not in w),
            "std_error_method": result.std_error_method,
            "confounders": result.confounders,
        },
    )


def paired_ordinal_effect(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    unit: str = "item_id",
    arm: str = "arm",
    outcome: str,
    treated: object,
    control: object,
    levels: Sequence[object] | None = None,
    cluster: str | None = None,
    level: float = 0.95,
) -> OrdinalResult:
    """Estimate the effect on an ordered outcome from items run under both arms.

    Parameters
    ----------
    frame : DataFrame
        One row a trial; one trial for each item and arm.
    unit, arm, outcome : str
        Columns.
    treated, control : object
        Levels of `arm`.
    levels : sequence, optional
        Of the outcome, from the lowest to the highest; needed where it is text.
    cluster : str, optional
        Column that groups items sampled together; the errors are then CR2.
    level : float, default 0.95
        Of the intervals.

    Returns
    -------
    OrdinalResult

    Raises
    ------
    DataError
        If a column is absent or has missing values, or a level is not in `levels`.
    EstimationError
        If items are repeated within an arm (a mean of levels is not a level), or none has both outcomes.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame(
    ...     {
    ...         "item_id": [1, 1, 2, 2, 3, 3, 4, 4],
    ...         "arm": ["direct", "cot"] * 4,
    ...         "grade": [1, 2, 2, 2, 1, 3, 3, 3],
    ...     }
    ... )
    >>> result = paired_ordinal_effect(frame, outcome="grade", treated="cot", control="direct")
    >>> [row.difference for row in result.rows]
    [0.5, 0.25]
    """
    from whyprompt.effects.paired import paired_effect
    from whyprompt.effects.pairs import item_labels, mean_error, paired_differences

    table = open_table(frame)
    codes, shown = _levels(table, outcome, levels)
    coded = _with_codes(table, outcome, codes)
    names: dict[str, Any] = {"unit": unit, "arm": arm, "outcome": outcome}
    names |= {"treated": treated, "control": control}
    pairs = paired_differences(coded, **names)
    if pairs.n_repeats:
        raise EstimationError(
            f"{len(_repeated(pairs))} of {counted(len(pairs.units), 'item')} have repeats within an arm: a"
            " mean of levels is not a level",
            hint="keep one repeat, or score the outcome as a number",
        )
    overall = paired_effect(coded, cluster=cluster, level=level, **names)
    label = None if cluster is None else item_labels(coded, cluster, unit, pairs, role="cluster")
    graded = (pairs.treated.astype(np.int64), pairs.control.astype(np.int64))
    n = len(graded[0])

    def shares(code: int) -> tuple[float, float]:
        return float((graded[0] == code).mean()), float((graded[1] == code).mean())

    def error(g: Floats) -> tuple[float | None, float | None]:
        se, df, _ = mean_error(g[0][graded[0]] + g[1][graded[1]], label)
        return se, df

    total = n + overall.n_incomplete
    return _ordinal(
        _Source(shares=shares, error=error, sizes=(float(n), float(n))),
        shown,
        level=level,
        about={
            "treatment": arm,
            "outcome": outcome,
            "treated_level": level_name(treated),
            "control_level": level_name(control),
            "estimand": "ate",
            "method": "paired",
            "n_treated": total,
            "n_control": total,
            "n_treated_used": n,
            "n_control_used": n,
            "balance": (),
            "assumptions": overall.assumptions,
            "warnings": overall.warnings,
            "std_error_method": overall.std_error_method,
        },
    )


def _repeated(pairs: PairedDifferences) -> Ints:
    """Return the items with more than one trial under an arm."""
    arm = pairs.trial_item * 2 + pairs.trial_treated
    return np.unique(np.flatnonzero(np.bincount(arm) > 1) // 2)


def _levels(table: Table, outcome: str, order: Sequence[object] | None) -> tuple[Ints, tuple[str, ...]]:
    values = table.values(outcome, role="outcome")
    labels = table.labels(outcome, role="outcome")
    if order is None:
        if values.dtype == object:
            shown = ", ".join(map(repr, sorted(set(labels.tolist()))[:6]))
            raise DataError(
                f"outcome column {outcome!r} is text ({shown}); which level is higher is not known",
                hint="give levels=[lowest, ..., highest]",
            )
        distinct, codes = np.unique(values, return_inverse=True)
        names = tuple(f"{v:g}" for v in distinct)
    else:
        names = tuple(level_name(v) for v in order)
        if len(set(names)) != len(names):
            raise DataError(f"levels names a level of {outcome!r} twice: {', '.join(names)}")
        place = {name: k for k, name in enumerate(names)}
        unknown = sorted(set(labels.tolist()) - set(names))
        if unknown:
            raise DataError(
                f"outcome column {outcome!r} has the level {unknown[0]!r}, which is not in levels",
                hint=f"levels is {', '.join(names)}",
            )
        codes = np.array([place[label] for label in labels.tolist()])
    if len(names) > _MANY_LEVELS:
        raise DataError(
            f"outcome column {outcome!r} has {len(names)} levels: that is a number, not a grade",
            hint="use estimate_effect for its mean, or bin it",
        )
    if len(names) < 2:
        raise EstimationError(f"outcome column {outcome!r} has one level: nothing can differ")
    return codes.astype(np.int64), names


def _with_codes(table: Table, outcome: str, codes: Ints) -> Table:
    """Return the table with the outcome as level numbers; the caller's frame is left as it is."""
    return open_table(table.written({outcome: codes.astype(float)}, keep_types=False))


def _ordinal(
    source: _Source, levels: tuple[str, ...], *, level: float, about: dict[str, Any]
) -> OrdinalResult:
    k = len(levels)
    share = np.array([source.shares(code) for code in range(k)]).T
    tails = share[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    warnings = list(about.pop("warnings"))
    rows: list[dict[str, Any]] = []
    cuts = [_cut(j, k) for j in range(k - 1)]
    errors = [_known(*source.error(g)) for g in cuts]
    for j, (se, df) in enumerate(errors):
        difference = float(tails[0, j] - tails[1, j])
        # Shares are of size one: what rounding leaves of their difference is nil.
        difference = 0.0 if abs(difference) <= _ROUNDING else difference
        low, high = interval(difference, se, level=level, df=df)
        rows.append(
            {
                "level": levels[j + 1],
                "p_treated": float(tails[0, j]),
                "p_control": float(tails[1, j]),
                "difference": difference,
                "std_error": se,
                "ci_low": low,
                "ci_high": high,
                "p_value": two_sided_p(difference, se, df),
            }
        )
    model: dict[str, Any] = {}
    try:
        model, smooth = _model(source, share, level)
    except EstimationError as error:
        warnings.append(f"no proportional odds model: {error.message}")
        smooth = [(None, None, None, None)] * (k - 1)
    for row, ends in zip(rows, _at_once(source, cuts, rows, [df for _, df in errors], level), strict=True):
        row["simultaneous_low"], row["simultaneous_high"] = ends
    adjusted = holm([row["p_value"] for row in rows])
    names = ("model_difference", "model_std_error", "model_ci_low", "model_ci_high")
    made = tuple(
        ThresholdRow(**(row | {"p_holm": p} | dict(zip(names, values, strict=True))))
        for row, p, values in zip(rows, adjusted, smooth, strict=True)
    )
    check = _proportional_odds_p(source, tails, k)
    if check is not None and check < 1 - level:
        warnings.append(
            f"one odds ratio does not fit all levels (p {p_words(check)}): read the"
            " differences by level, not the odds ratio"
        )
    assumptions = (*about.pop("assumptions"), _proportional(check, level, k))
    odds: dict[str, Any] = {
        "odds_ratio": None,
        "odds_ratio_ci_low": None,
        "odds_ratio_ci_high": None,
        "log_odds_std_error": None,
    } | model
    return OrdinalResult(
        **about,
        **odds,
        levels=levels,
        rows=made,
        proportional_odds_p=check,
        level=level,
        assumptions=assumptions,
        warnings=tuple(warnings),
        sentence=_sentence(about, made, odds, level, assumptions),
    )


def _cut(j: int, k: int) -> Floats:
    """Give the functional of the levels that is the difference in reaching level j + 1."""
    g = np.zeros((2, k))
    g[0, j + 1 :], g[1, j + 1 :] = 1.0, -1.0
    return g


def _at_once(
    source: _Source,
    cuts: Sequence[Floats],
    rows: Sequence[dict[str, Any]],
    df: Sequence[float | None],
    level: float,
) -> list[tuple[float | None, float | None]]:
    """Give intervals that hold for all cuts at once, from how the cuts depend on each other."""
    known = [j for j, row in enumerate(rows) if row["std_error"] is not None]
    out: list[tuple[float | None, float | None]] = [(None, None)] * len(rows)
    if not known:
        return out
    scaled = [cuts[j] / rows[j]["std_error"] for j in known]
    matrix = np.eye(len(known))
    for a in range(len(known)):
        for b in range(a):
            both = [source.error(scaled[a] + side * scaled[b])[0] or 0.0 for side in (1.0, -1.0)]
            matrix[a, b] = matrix[b, a] = (both[0] ** 2 - both[1] ** 2) / 4.0
    critical = max_t(np.zeros(len(known)), correlation(matrix), level=level).critical
    for j in known:
        wide = reach(critical, df[j]) * rows[j]["std_error"]
        out[j] = (rows[j]["difference"] - wide, rows[j]["difference"] + wide)
    return out


def _known(se: float | None, df: float | None) -> tuple[float | None, float | None]:
    """Take away an error of nil: no row of the sample differs, which says nothing of the population's."""
    return (None, None) if se is None or se <= _ROUNDING else (se, df)


def _model(
    source: _Source, share: Floats, level: float
) -> tuple[dict[str, Any], list[tuple[float | None, float | None, float | None, float | None]]]:
    k = share.shape[1]
    if (share < -1e-12).any():
        raise EstimationError("a level has a negative share by this method (its outcome model extrapolates)")
    arm = np.repeat([1.0, 0.0], k)[:, None]
    codes = np.tile(np.arange(k), 2)
    sizes = np.array(source.sizes) / sum(source.sizes)
    weights = np.clip(share, 0.0, None) * sizes[:, None]
    if (weights.sum(axis=0) <= 0).any():
        raise EstimationError("a level has no weight in either arm; leave it out of levels")
    fit = fit_proportional_odds(codes, arm, weights=weights.ravel())
    # Influence of a share on the coefficients; the information of the weights sums to one row.
    scores = category_scores(fit.coef, codes, arm, k).reshape(2, k, -1) * sizes[:, None, None]
    influence = scores @ fit.covariance.T
    beta = float(fit.coef[-1])
    se, df = _known(*source.error(influence[:, :, -1]))
    low, high = interval(beta, se, level=level, df=df)
    odds = {
        "odds_ratio": float(np.exp(beta)),
        "odds_ratio_ci_low": None if low is None else float(np.exp(low)),
        "odds_ratio_ci_high": None if high is None else float(np.exp(high)),
        "log_odds_std_error": se,
    }
    smooth: list[tuple[float | None, float | None, float | None, float | None]] = []
    p1, p0 = at_least(fit, [[1.0], [0.0]])
    for j in range(k - 1):
        slope = np.zeros(len(fit.coef))
        slope[j] = p1[j] * (1 - p1[j]) - p0[j] * (1 - p0[j])
        slope[-1] = p1[j] * (1 - p1[j])
        se, df = _known(*source.error(influence @ slope))
        difference = float(p1[j] - p0[j])
        smooth.append((difference, se, *interval(difference, se, level=level, df=df)))
    return odds, smooth


def _proportional_odds_p(source: _Source, tails: Floats, k: int) -> float | None:
    """Wald test that the log odds ratio is the same at every cut."""
    from scipy import stats

    if k < 3 or not ((tails > 0) & (tails < 1)).all():
        return None
    logits = np.log(tails / (1.0 - tails))
    ratios = logits[0] - logits[1]
    slopes = 1.0 / (tails * (1.0 - tails))

    def direction(c: Floats) -> Floats:
        g = np.zeros((2, k))
        for j in range(k - 1):
            g[0, j + 1 :] += c[j] * slopes[0, j]
            g[1, j + 1 :] -= c[j] * slopes[1, j]
        return g

    contrasts = [np.eye(k - 1)[j + 1] - np.eye(k - 1)[0] for j in range(k - 2)]
    m = len(contrasts)
    covariance = np.empty((m, m))
    for a in range(m):
        for b in range(a + 1):
            plus, _ = source.error(direction(contrasts[a] + contrasts[b]))
            minus, _ = source.error(direction(contrasts[a] - contrasts[b]))
            if plus is None or minus is None:
                return None
            covariance[a, b] = covariance[b, a] = (plus**2 - minus**2) / 4.0
    values = np.array([float(c @ ratios) for c in contrasts])
    try:
        statistic = float(values @ np.linalg.solve(covariance, values))
    except np.linalg.LinAlgError:
        return None
    return float(stats.chi2.sf(statistic, m)) if statistic >= 0 else None


def _proportional(check: float | None, level: float, k: int) -> Assumption:
    if check is None:
        detail = "there is one cut" if k < 3 else "a level is empty in an arm"
        return Assumption(
            name="proportional odds", status="not checked", check="Wald test over the cuts", detail=detail
        )
    return Assumption(
        name="proportional odds",
        status="fails" if check < 1 - level else "holds",
        check="Wald test of one odds ratio for all cuts; the differences by level do not need it",
        detail=f"p {p_words(check)}",
    )


def _sentence(
    about: dict[str, Any],
    rows: Sequence[ThresholdRow],
    odds: dict[str, Any],
    level: float,
    assumptions: Sequence[Assumption],
) -> str:
    def one(row: ThresholdRow) -> str:
        span = f"{format_number(row.simultaneous_low)} to {format_number(row.simultaneous_high)}"
        return f"of reaching {row.level!r} by {format_number(row.difference)} ({span})"

    seen = [
        row
        for row in rows
        if row.simultaneous_low is not None
        and row.simultaneous_high is not None
        and (row.simultaneous_low > 0 or row.simultaneous_high < 0)
    ]
    start = (
        f"Under {about['treated_level']!r} instead of {about['control_level']!r} the chance in"
        f" {about['outcome']!r}"
    )
    by = f"{about['estimand'].upper()}, by {about['method']}"
    several = "intervals that hold at once at" if len(rows) > 1 else "interval at"
    others = ", ".join(repr(row.level) for row in rows if row not in seen)
    if seen:
        text = f"{start} changes {', '.join(one(row) for row in seen)} ({several} {percent(level)}; {by})."
        text += f" Of reaching {others} no change is shown." if others else ""
    else:
        text = (
            f"{start} of reaching {others} is not shown to change ({several} {percent(level)}"
            f" {'all include' if len(rows) > 1 else 'includes'} zero; {by})."
            if all(row.std_error is not None for row in rows)
            else f"{start} of reaching {others} is not shown to change ({by})."
        )
    if odds["odds_ratio"] is not None:
        text += f" One odds ratio for all levels is {format_number(odds['odds_ratio'])}"
        if odds["odds_ratio_ci_low"] is not None:
            ends = [format_number(odds[f"odds_ratio_ci_{end}"]) for end in ("low", "high")]
            text += f" ({ends[0]} to {ends[1]})"
        text += "."
    failed = [a for a in assumptions if a.status == "fails" and a.name != "proportional odds"]
    if failed:
        reasons = ". ".join(a.detail.rstrip(".") for a in failed)
        text += f" {reasons}. The differences may therefore not be claimed as effects of the arm."
    elif about["method"] == "naive" and any(
        a.name == "exchangeability" and a.status != "holds" for a in assumptions
    ):
        text += " This is a comparison and not an effect: nothing was adjusted for."
    elif about["method"] != "paired" and about.get("confounders"):
        text += f" They are effects if nothing but {', '.join(about['confounders'])} confounds the two."
    return text
