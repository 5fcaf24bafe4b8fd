"""Estimates with their intervals: of a number, and of a 0/1 outcome as difference and ratios of risks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects.methods.aipw import AIPW
from whyprompt.results import Estimate
from whyprompt.stats.errors import interval
from whyprompt.stats.several import two_sided_p

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from whyprompt.effects.methods.method import Fit, Plan
    from whyprompt.effects.problem import Problem

    Floats = NDArray[np.float64]
    # Standard error and degrees of freedom of a * mean(treated) - b * mean(control).
    LinearError = Callable[[float, float], tuple[float | None, float | None]]


def stated(
    label: str,
    value: float,
    error: float | None,
    df: float | None = None,
    *,
    level: float,
    **more: Any,  # noqa: ANN401 - fields of the estimate
) -> Estimate:
    """State a number by its standard error: with its t (or normal) interval and two-sided p.

    `more` are further fields of the estimate, which also replace what follows from the error.
    """
    low, high = interval(value, error, level=level, df=df)
    fields = {"std_error": error, "ci_low": low, "ci_high": high, "df": df}
    p = two_sided_p(value, error, df)
    return Estimate(**{"label": label, "estimate": value, "p_value": p, **fields, **more})


def is_binary(*outcomes: Floats) -> bool:
    """Say whether outcomes take the values 0 and 1 and no other."""
    return all(bool(((y == 0) | (y == 1)).all()) for y in outcomes)


def ratio_measures(
    means: tuple[float, float], error: LinearError, *, level: float, draws: Floats | None = None
) -> tuple[Estimate, Estimate]:
    """Compare two marginal risks (treated, control) by their ratio and by the ratio of their odds.

    ``error(a, b)`` gives the standard error and degrees of freedom of ``a m_1 - b m_0``: the logarithm has
    the standard error of the difference of the risks, each scaled by the derivative of its logarithm (or
    logit). With bootstrap `draws` of the two risks, shape (draws, 2), intervals are their percentiles.

    >>> ratio, odds = ratio_measures((0.4, 0.2), lambda a, b: (0.1 * a + 0.1 * b, None), level=0.95)
    >>> round(ratio.estimate, 6), round(ratio.std_error, 6)
    (2.0, 0.75)
    """
    m1, m0 = means
    made = []
    for name in ("risk ratio", "odds ratio"):
        odds = name == "odds ratio"
        top = 1.0 if odds else np.inf
        if not (0 < m1 < top and 0 < m0 < top and m1 <= 1 and m0 <= 1):
            arm = "treated" if not (0 < m1 < top and m1 <= 1) else "control"
            value = m1 if arm == "treated" else m0
            why = f"the {arm} arm's risk is {value:g}: no ratio can be given"
            if not 0 <= value <= 1:
                why += "; a risk outside 0 to 1 shows that the outcome model extrapolates"
            made.append(Estimate(label=name, estimate=None, note=why))
            continue
        a, b = (1.0 / (m1 * (1.0 - m1)), 1.0 / (m0 * (1.0 - m0))) if odds else (1.0 / m1, 1.0 / m0)
        log = float(np.log(m1 / m0) + (np.log((1.0 - m0) / (1.0 - m1)) if odds else 0.0))
        note = ""
        if draws is None:
            se, df = error(a, b)
            low, high = interval(log, se, level=level, df=df)
        else:
            se, low, high, note = _percentiles(draws, level, odds=odds)
        made.append(ratio_of(name, log, se, low, high, note))
    return made[0], made[1]


def ratio_of(
    label: str, log: float, error: float | None, low: float | None, high: float | None, note: str = ""
) -> Estimate:
    """State a ratio by its logarithm: the error is the logarithm's, the ends are exponentials of its ends."""
    return Estimate(
        label=label,
        estimate=float(np.exp(log)),
        std_error=error,
        ci_low=None if low is None else float(np.exp(low)),
        ci_high=None if high is None else float(np.exp(high)),
        note=note,
    )


def _percentiles(
    draws: Floats, level: float, *, odds: bool
) -> tuple[float | None, float | None, float | None, str]:
    ok = (draws > 0).all(axis=1) & ((draws < 1).all(axis=1) if odds else True)
    kept = draws[ok]
    if len(kept) < 0.9 * len(draws):
        return None, None, None, "in more than a tenth of the bootstrap samples no ratio is defined"
    logs = np.log(kept[:, 0] / kept[:, 1])
    if odds:
        logs = logs + np.log((1.0 - kept[:, 1]) / (1.0 - kept[:, 0]))
    low, high = np.quantile(logs, [0.5 - level / 2, 0.5 + level / 2])
    return float(np.std(logs, ddof=1)), float(low), float(high), ""


def risk_measures(problem: Problem, plan: Plan, fit: Fit) -> tuple[Estimate, ...]:
    """State the effect on a 0/1 outcome as risk difference, risk ratio and odds ratio; empty for others."""
    if not is_binary(problem.y):
        return ()
    difference = Estimate(
        label="risk difference",
        estimate=fit.estimate,
        std_error=fit.std_error,
        ci_low=fit.ci[0],
        ci_high=fit.ci[1],
    )

    def error(a: float, b: float) -> tuple[float | None, float | None]:
        if fit.std_error is None:
            return None, None
        if isinstance(plan.method, AIPW) and fit.influence is not None and fit.between is not None:
            # Each arm's mean has its influence values, and models need not be fitted again.
            means = replace(fit, influence=fit.influence * (a, b), between=fit.between * (a, b))
            by_unit, df, _ = plan.method.error(problem, means)
            return float(np.linalg.norm(by_unit)), df
        scaled = problem.y * np.where(problem.treated, a, b)
        other = plan.method.fit_again(problem, plan, fit, scaled)
        return other.std_error, other.df

    ratios = ratio_measures(fit.means, error, level=plan.level, draws=fit.mean_draws)
    if "one variance for all rows" in fit.std_error_method:
        note = "its error takes one variance for both arms on the log scale; neighbours=2 does not"
        return (difference, *(replace(ratio, note=ratio.note or note) for ratio in ratios))
    return (difference, *ratios)
