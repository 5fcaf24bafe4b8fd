"""Ordered outcomes: how the arm moves the chance of reaching each level.

A grade of 1 to 5 has no mean worth the name. What is reported is the difference in P(Y >= k) for each level
k, twice: as the data have it, and smoothed by the proportional odds model, with a check of that model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import format_number, p_words, percent
from whyprompt.effects.assumptions import not_claimed
from whyprompt.effects.headline import method_words
from whyprompt.effects.measures import ratio_of, stated
from whyprompt.effects.several import EffectsResult, excludes_zero
from whyprompt.errors import DataError, EstimationError
from whyprompt.results import Assumption, Estimate, with_holm
from whyprompt.stats.errors import interval
from whyprompt.stats.proportional_odds import at_least, category_scores, fit_proportional_odds
from whyprompt.stats.several import correlation, covariance_by_errors, max_t, reach
from whyprompt.tables import level_name, open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.comparison import Comparison
    from whyprompt.tables import Table

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_MANY_LEVELS = 20
# Shares are of size one: an error below this is rounding.
_ROUNDING = 1e-10


def ordered_outcome(
    table: Table, outcome: str, compare: Callable[[Table], Comparison], *, levels: Sequence[object]
) -> EffectsResult:
    """Estimate the effect of one arm against another on an ordered outcome.

    `compare` compares the arms on the outcome as level numbers, from 0. `levels` are from the lowest to the
    highest; ``"sorted"`` takes those of a column of numbers. Raises `DataError` if the column has missing
    values, or a level is not in `levels`, and what `compare` raises.

    Each arm's weighted shares of the levels come from the method, and so does the error of every smooth
    function of them: the outcome is replaced by the function's derivative, row by row. The model is fitted to
    the two weighted distributions, each arm weighing as much as its rows used.

    References: McCullagh, P. (1980). Regression models for ordinal data. JRSS B 42, 109-142. Brant, R.
    (1990). Assessing proportionality in the proportional odds model. Biometrics 46, 1171-1178.
    """
    codes, names = _levels(table, outcome, levels)
    # The caller's frame is left as it is.
    comparison = compare(open_table(table.written({outcome: codes.astype(float)}, keep_types=False)))
    about = comparison.about
    level, k = about["level"], len(names)
    source = _Shares(comparison, k)
    tails = source.shares[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    warnings = list(comparison.warnings)
    counts: dict[str, Any] = comparison.counts
    cuts = [_cut(j, k) for j in range(k - 1)]
    rows = []
    for j, g in enumerate(cuts):
        se, df = _known(*source.error(g))
        difference = float(tails[0, j] - tails[1, j])
        # Shares are of size one: what rounding leaves of their difference is nil.
        difference = 0.0 if abs(difference) <= _ROUNDING else difference
        means = {"mean_treated": float(tails[0, j]), "mean_control": float(tails[1, j])}
        label = f"at least {names[j + 1]}"
        rows.append(stated(label, difference, se, df, level=level, **means, **counts))
    parts = tuple(
        replace(row, simultaneous_low=ends[0], simultaneous_high=ends[1])
        for row, ends in zip(with_holm(rows), _at_once(source, cuts, rows, level), strict=True)
    )
    odds: Estimate | None = None
    model: tuple[Estimate, ...] = ()
    try:
        odds, model = _model(source, [row.label for row in rows], counts, level)
    except EstimationError as error:
        warnings.append(f"no proportional odds model: {error.message}")
    check = _proportional_odds_p(source, tails, k)
    if check is not None and check < 1 - level:
        warnings.append(
            f"one odds ratio does not fit all levels (p {p_words(check)}): read the"
            " differences by level, not the odds ratio"
        )
    assumptions = (*about.pop("assumptions"), _proportional(check, level, k))
    made = EffectsResult(
        **about,
        of="levels",
        outcome=outcome,
        adjustment="the joint distribution of the levels (largest |t|)",
        axis=f"difference in {outcome}, {about['treated']} minus {about['control']}",
        levels=names,
        parts=parts,
        model=model,
        odds_ratio=odds,
        proportional_odds_p=check,
        assumptions=assumptions,
        warnings=tuple(warnings),
        sentence="",
    )
    return replace(made, sentence=_sentence(made))


class _Shares:
    """The two arms' shares of each level, and the error of a linear functional of them.

    `error(g)` is the standard error (and its degrees of freedom) of the sum over arms a (the treated first)
    and levels j of ``g[a, j]`` times a share.
    """

    def __init__(self, comparison: Comparison, k: int) -> None:
        self.comparison = comparison
        self.grades = [y.astype(np.int64) for y in comparison.samples[0]]
        shares = []
        for code in range(k):
            one, none = ((grade == code).astype(float) for grade in self.grades)
            found = comparison.contrast((one, none))
            shares.append((found.mean_treated, found.mean_control))
        self.shares = np.array(shares, dtype=float).T

    def error(self, g: Floats) -> tuple[float | None, float | None]:
        found = self.comparison.contrast((g[0][self.grades[0]], -g[1][self.grades[1]]))
        return found.std_error, found.df


def _levels(table: Table, outcome: str, order: Sequence[object]) -> tuple[Ints, tuple[str, ...]]:
    values = table.values(outcome, role="outcome")
    labels = table.labels(outcome, role="outcome")
    if order == "sorted":
        if values.dtype == object:
            shown = ", ".join(map(repr, sorted(set(labels.tolist()))[:6]))
            raise DataError(
                f"outcome column {outcome!r} is text ({shown}); which level is higher is not known",
                hint="give levels=[lowest, ..., highest]",
            )
        distinct, codes = np.unique(values, return_inverse=True)
        names = tuple(f"{v:g}" for v in distinct)
    elif isinstance(order, str):
        raise EstimationError(f"levels is the text {order!r}", hint="a list, lowest first, or 'sorted'")
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


def _cut(j: int, k: int) -> Floats:
    """Give the functional of the levels that is the difference in reaching level j + 1."""
    g = np.zeros((2, k))
    g[0, j + 1 :], g[1, j + 1 :] = 1.0, -1.0
    return g


def _at_once(
    source: _Shares, cuts: Sequence[Floats], rows: Sequence[Estimate], level: float
) -> list[tuple[float | None, float | None]]:
    """Give intervals that hold for all cuts at once, from how the cuts depend on each other."""
    known = [(j, row.std_error) for j, row in enumerate(rows) if row.std_error is not None]
    out: list[tuple[float | None, float | None]] = [(None, None)] * len(rows)
    if not known:
        return out
    scaled = [cuts[j] / error for j, error in known]
    matrix = covariance_by_errors(lambda g: source.error(g)[0] or 0.0, scaled, scaled=True)
    assert matrix is not None
    _, critical, _ = max_t(np.zeros(len(known)), correlation(matrix), level=level)
    for j, error in known:
        wide, middle = reach(critical, rows[j].df) * error, rows[j].estimate or 0.0
        out[j] = (middle - wide, middle + wide)
    return out


def _known(se: float | None, df: float | None) -> tuple[float | None, float | None]:
    """Take away an error of nil: no row of the sample differs, which says nothing of the population's."""
    return (None, None) if se is None or se <= _ROUNDING else (se, df)


def _model(
    source: _Shares, names: Sequence[str], counts: Mapping[str, int], level: float
) -> tuple[Estimate, tuple[Estimate, ...]]:
    share = source.shares
    k = share.shape[1]
    if (share < -1e-12).any():
        raise EstimationError("a level has a negative share by this method (its outcome model extrapolates)")
    arm = np.repeat([1.0, 0.0], k)[:, None]
    codes = np.tile(np.arange(k), 2)
    used = np.array([float(counts["n_treated_used"]), float(counts["n_control_used"])])
    sizes = used / used.sum()
    weights = np.clip(share, 0.0, None) * sizes[:, None]
    if (weights.sum(axis=0) <= 0).any():
        raise EstimationError("a level has no weight in either arm; leave it out of levels")
    fit = fit_proportional_odds(codes, arm, weights=weights.ravel())
    # Influence of a share on the coefficients; the information of the weights sums to one row.
    scores = category_scores(fit.coef, codes, arm, k).reshape(2, k, -1) * sizes[:, None, None]
    influence = scores @ fit.covariance.T
    beta = float(fit.coef[-1])
    se, df = _known(*source.error(influence[:, :, -1]))
    odds = ratio_of("odds ratio", beta, se, *interval(beta, se, level=level, df=df))
    smooth = []
    p1, p0 = at_least(fit, [[1.0], [0.0]])
    for j, name in enumerate(names):
        slope = np.zeros(len(fit.coef))
        slope[j] = p1[j] * (1 - p1[j]) - p0[j] * (1 - p0[j])
        slope[-1] = p1[j] * (1 - p1[j])
        se, df = _known(*source.error(influence @ slope))
        means = {"mean_treated": float(p1[j]), "mean_control": float(p0[j])}
        smooth.append(stated(name, float(p1[j] - p0[j]), se, df, level=level, **means))
    return odds, tuple(smooth)


def _proportional_odds_p(source: _Shares, tails: Floats, k: int) -> float | None:
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
    covariance = covariance_by_errors(lambda c: source.error(direction(c))[0], contrasts)
    if covariance is None:
        return None
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


def _sentence(made: EffectsResult) -> str:
    def one(level: str, row: Estimate) -> str:
        span = f"{format_number(row.simultaneous_low)} to {format_number(row.simultaneous_high)}"
        return f"of reaching {level!r} by {format_number(row.estimate)} ({span})"

    rows = dict(zip(made.levels[1:], made.parts, strict=True))
    seen = {level: row for level, row in rows.items() if excludes_zero(row)}
    start = f"Under {made.treated!r} instead of {made.control!r} the chance in {made.outcome!r}"
    by = f"{made.estimand.upper()}, by {method_words(made.method)}"
    several = "intervals that hold at once at" if len(rows) > 1 else "interval at"
    others = ", ".join(repr(level) for level in rows if level not in seen)
    if seen:
        changes = ", ".join(one(*pair) for pair in seen.items())
        text = f"{start} changes {changes} ({several} {percent(made.level)}; {by})."
        text += f" Of reaching {others} no change is shown." if others else ""
    else:
        text = (
            f"{start} of reaching {others} is not shown to change ({several} {percent(made.level)}"
            f" {'all include' if len(rows) > 1 else 'includes'} zero; {by})."
            if all(row.std_error is not None for row in rows.values())
            else f"{start} of reaching {others} is not shown to change ({by})."
        )
    odds = made.odds_ratio
    if odds is not None:
        text += f" One odds ratio for all levels is {format_number(odds.estimate)}"
        if odds.ci_low is not None:
            text += f" ({format_number(odds.ci_low)} to {format_number(odds.ci_high)})"
        text += "."
    what = "The differences may therefore not be claimed as effects of the arm."
    no = not_claimed(made.assumptions, what, but="proportional odds")
    if no:
        text += no
    elif made.method == "naive" and any(
        a.name == "exchangeability" and a.status != "holds" for a in made.assumptions
    ):
        text += " This is a comparison and not an effect: nothing was adjusted for."
    elif made.method != "paired" and made.confounders:
        text += f" They are effects if nothing but {', '.join(made.confounders)} confounds the two."
    return text
