"""Mediation as Baron and Kenny (1986) had it: three regressions and a product of slopes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from whyprompt.mediation.measured.design import read_design
from whyprompt.results import Estimate, Result
from whyprompt.stats.regression import fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narwhals.typing import IntoDataFrame

    from whyprompt.stats.regression import Regression

_LEVEL = 0.05


def baron_kenny(
    frame: IntoDataFrame,
    *,
    treatment: str,
    mediator: str,
    outcome: str,
    confounders: Sequence[str] = (),
) -> Result:
    """Baron and Kenny's four steps with linear models, as the historical view.

    It is here to be compared with, not to be relied on. The steps ask for a significant total
    effect, which mediation does not need; the product of slopes is an effect only where both
    models are linear without interaction; and a mediator that shares a cause with the outcome
    passes all four steps. `mediate` states the effect that is meant and `mediation_sensitivity` what a
    shared cause would do to it.

    Parameters
    ----------
    frame, treatment, mediator, outcome, confounders
        As in `mediate`; treatment, mediator and outcome are numeric.

    Returns
    -------
    Result
        `overall` is the total effect, step 1: the outcome on the treatment (path c). The parts are
        "first_stage", step 2, the mediator on the treatment (path a); "second_stage", step 3, the outcome on
        the mediator, given the treatment (path b); "direct", step 4, the outcome on the treatment, given the
        mediator (path c'); and "product", ``a b``, with Sobel's standard error. A slope's p is that of t, the
        product's of z. The figure ``verdict`` is what the four steps conclude at level 0.05: ``"full"``,
        ``"partial"`` or ``"none"``.

    Raises
    ------
    DataError
        If a column is missing, constant or in two roles, holds missing values, or is of the wrong kind.
    EstimationError
        If a design is singular, or treatment and confounders leave nothing of the mediator.

    References
    ----------
    Baron and Kenny (1986). The moderator-mediator variable distinction in social psychological
    research. Journal of Personality and Social Psychology 51(6), p. 1177.
    Sobel (1982). Asymptotic confidence intervals for indirect effects in structural equation
    models. Sociological Methodology 13, p. 290.

    Examples
    --------
    >>> import pandas as pd
    >>> t = np.tile([0.0, 1.0], 100)
    >>> m = 2 * t + np.sin(np.arange(200))
    >>> table = pd.DataFrame({"t": t, "m": m, "y": 3 * m + np.cos(np.arange(200))})
    >>> baron_kenny(table, treatment="t", mediator="m", outcome="y")["verdict"]
    'full'
    """
    design = read_design(frame, treatment, mediator, outcome, confounders, number_for="the four steps need")
    x = design.x_mediator
    c = fit(x, design.y, "linear", names=design.mediator_names(), what="outcome")
    a, full = design.fits()
    n, p = x.shape
    slopes = {
        "total": (*_slope(c, 1), n - p),
        "first_stage": (*_slope(a, 1), n - p),
        "second_stage": (*_slope(full, -1), n - p - 1),
        "direct": (*_slope(full, 1), n - p - 1),
    }
    total, first, second, direct = (_step(name, *slope) for name, slope in slopes.items())
    (at, error_a, _), (bt, error_b, _) = slopes["first_stage"], slopes["second_stage"]
    product, error = at * bt, float(np.hypot(at * error_b, bt * error_a))
    seen = {
        f"effect of {treatment} on {outcome}": total,
        f"effect of {treatment} on {mediator}": first,
        f"slope of {outcome} on {mediator}": second,
    }
    missed = [f"{name} (step {k})" for k, (name, step) in enumerate(seen.items(), 1) if not _shown(step)]
    verdict = "none" if missed else "partial" if _shown(direct) else "full"
    path = f"mediation of the effect of {treatment} on {outcome} through {mediator}"
    concluded = (
        f"show no {path}, since at level {_LEVEL} they see no {' and no '.join(missed)}"
        if missed
        else f"conclude {verdict} {path}"
    )
    return Result(
        overall=total,
        parts=(first, second, direct, _step("product", product, error, None)),
        axis="slope, or product of slopes",
        figures={"verdict": verdict},
        sentence=(
            f"Baron and Kenny's four steps {concluded}; the product of slopes is {product:.3g} (Sobel z = "
            f"{product / error:.3g}). The steps neither allow an interaction nor say what an unmeasured "
            "cause of both would do."
        ),
    )


def _slope(fitted: Regression, at: int) -> tuple[float, float]:
    return float(fitted.coef[at]), float(np.sqrt(fitted.covariance[at, at]))


def _shown(step: Estimate) -> bool:
    return step.p_value is not None and step.p_value < _LEVEL


def _step(label: str, estimate: float, error: float, df: int | None) -> Estimate:
    """Slope with its t interval and p; normal where there are no degrees of freedom."""
    law = stats.norm() if df is None else stats.t(df)
    reach = float(law.isf(_LEVEL / 2)) * error
    return Estimate(
        label=label,
        estimate=estimate,
        std_error=error,
        ci_low=estimate - reach,
        ci_high=estimate + reach,
        p_value=float(2 * law.sf(abs(estimate / error))),
        df=df,
    )
