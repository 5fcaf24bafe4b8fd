"""Every sensitivity analysis that a given estimate allows, in one report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects.checks.evalue import e_value
from whyprompt.effects.checks.partial_r2 import check_strengths, partial_r2_bounds, strength_words
from whyprompt.effects.checks.rerun import all_checks, attempted
from whyprompt.effects.checks.rosenbaum import mcnemar_bounds, rosenbaum_bounds
from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.design import design_matrix
from whyprompt.tables import arms, open_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.result import EffectResult
    from whyprompt.results import Check, Checks
    from whyprompt.tables import Table

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]


def sensitivity_report(
    frame: Any,  # noqa: ANN401 - any frame library's type
    result: EffectResult,
    *,
    benchmarks: Sequence[str] | None = None,
    times: Sequence[float] = (1.0, 2.0, 3.0),
    alpha: float = 0.05,
) -> Checks:
    """Run every sensitivity analysis that an estimate allows.

    Parameters
    ----------
    frame : DataFrame
        The table that `result` was estimated from.
    result : EffectResult
        From `estimate_effect`.
    benchmarks : sequence of str, optional
        Confounders to measure an unmeasured one by; a text column counts with all its dummies. Default: all.
    times : sequence of float, default (1, 2, 3)
        How many times as strong as a benchmark.
    alpha : float, default 0.05
        Level.

    Returns
    -------
    Checks
        ``"Rosenbaum bounds"`` of the matched pairs, where the method made one-to-one pairs; the ``"E-value"``
        of the estimate; ``"partial R2"`` of the regression of the outcome on the arm and the confounders,
        where there are any.

    Raises
    ------
    DataError
        If the table is not the one that was estimated from, or a benchmark is no confounder.

    Notes
    -----
    The robustness values are those of a linear regression on the same covariates and all rows, whatever the
    method of `result` was; they speak of that regression.

    References
    ----------
    Rosenbaum (2002); VanderWeele and Ding (2017); Cinelli and Hazlett (2020).

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from whyprompt import estimate_effect
    >>> rng = np.random.default_rng(1)
    >>> hard = rng.normal(size=300)
    >>> arm = rng.random(300) < 1 / (1 + np.exp(-hard))
    >>> frame = pd.DataFrame({"arm": arm, "y": 1.0 * arm - hard + rng.normal(size=300), "hard": hard})
    >>> options = {"treatment": "arm", "outcome": "y", "confounders": ["hard"]}
    >>> found = estimate_effect(frame, **options, method="nearest", caliper=0.2)
    >>> sensitivity_report(frame, found).checks["Rosenbaum bounds"].estimate > 1
    True
    """
    table = open_table(frame)
    if result.pictures:
        raise EstimationError(
            f"sensitivity to hidden confounding is of arms that are adjusted for, and not of {result.method}",
            hint="its own assumptions are listed with the check of each",
        )
    if result.weights is None or len(result.weights) != table.n_rows:
        raise DataError(f"the table has {table.n_rows} rows and is not the one that was estimated from")
    y = table.numbers(result.outcome, role="outcome")
    t, *_ = arms(table, result.treatment, treated=result.treated, control=result.control)
    if not 0 < alpha < 0.5:
        raise EstimationError(f"alpha={alpha}: the level lies between 0 and 0.5")
    check_strengths(times)
    # An E-value that cannot be had says that the estimate or the table is wrong.
    e_values = _e_value(y, t, result)
    found, left_out = attempted(
        {
            "Rosenbaum bounds": lambda: _rosenbaum(y, t, result, alpha),
            "E-value": lambda: e_values,
            "robustness values": lambda: _partial_r2(table, y, t, result, benchmarks, times, alpha),
        }
    )
    if bounds := found.get("partial R2"):
        for (name, k), why in zip(bounds["not_bounded"], bounds["reasons"], strict=True):
            left_out.append(f"the bound by one {strength_words([k])} {name!r} ({why})")
    return all_checks(found, left_out, result)


def _rosenbaum(y: Floats, t: Bools, result: EffectResult, alpha: float) -> Check:
    matched = result.matched
    if matched is None or matched.n_pairs == 0:
        raise EstimationError(f"method {result.method!r} makes no pairs")
    used = np.concatenate([matched.focal, matched.other])
    if len(np.unique(used)) != len(used):
        raise EstimationError("a row is in more than one pair")
    first = np.where(t[matched.focal], matched.focal, matched.other)
    second = np.where(t[matched.focal], matched.other, matched.focal)
    if np.array_equal(y[first], y[second]):
        raise EstimationError("no pair differs in its outcome")
    binary = set(np.unique(y).tolist()) <= {0.0, 1.0}
    bounds = mcnemar_bounds if binary else rosenbaum_bounds
    return bounds(y[first], y[second], alternative="greater" if result.estimate >= 0 else "less", alpha=alpha)


def _e_value(y: Floats, t: Bools, result: EffectResult) -> Check:
    w = result.weights
    assert w is not None
    risks = [float(np.average(y[arm], weights=w[arm])) for arm in (t, ~t)]
    ratio = next((m for m in result.measures if m.label == "risk ratio"), None)
    if ratio is not None and ratio.estimate is not None:
        known = ratio.ci_low is not None and ratio.ci_high is not None
        return e_value(ratio.estimate, ci=(ratio.ci_low, ratio.ci_high) if known else None)  # type: ignore[arg-type]  # both are known
    if set(np.unique(y).tolist()) <= {0.0, 1.0} and min(risks) > 0:
        return e_value(risks[0] / risks[1])
    spread = float(np.sqrt((y[t].var(ddof=1) + y[~t].var(ddof=1)) / 2))
    if spread == 0:
        raise EstimationError(f"outcome {result.outcome!r} does not vary within the arms")
    return e_value(result.estimate, measure="difference", std_error=result.std_error, sd=spread)


def _partial_r2(
    table: Table,
    y: Floats,
    t: Bools,
    result: EffectResult,
    benchmarks: Sequence[str] | None,
    times: Sequence[float],
    alpha: float,
) -> Check:
    if not result.confounders:
        raise EstimationError("nothing was adjusted for")
    columns = {name: table.values(name, role="confounder") for name in result.confounders}
    design = design_matrix(columns)
    wanted = tuple(result.confounders) if benchmarks is None else tuple(benchmarks)
    groups: dict[str, list[int]] = {}
    for name in wanted:
        members = [j for j, source in enumerate(design.sources) if source == name]
        if not members:
            raise DataError(
                f"benchmark {name!r} is not a confounder of this estimate",
                hint=f"the confounders are {', '.join(result.confounders)}",
            )
        groups[name] = members
    options: dict[str, Any] = {"benchmarks": groups, "times": times, "alpha": alpha, "strict": False}
    return partial_r2_bounds(y, t.astype(float), design.matrix, names=design.names, **options)
