"""Mediation as Baron and Kenny (1986) had it: three regressions and a product of slopes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from whyprompt.errors import DataError
from whyprompt.mediation.measured.design import check_roles, check_varies, design_of, response_of
from whyprompt.mediation.measured.overlap import check_left
from whyprompt.stats.regression import fit
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from narwhals.typing import IntoDataFrame

    from whyprompt.stats.regression import Fit

__all__ = ["BaronKenny", "Slope", "baron_kenny"]

_LEVEL = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Slope:
    """A slope, or a product of two.

    Attributes
    ----------
    estimate, std_error, statistic, p_value : float
        The statistic is t for a slope and z for a product (Sobel).
    """

    estimate: float
    std_error: float
    statistic: float
    p_value: float


@dataclass(frozen=True, kw_only=True, eq=False)
class BaronKenny:
    """The four steps and the Sobel test.

    Attributes
    ----------
    total : Slope
        Step 1, the outcome on the treatment (path c).
    first_stage : Slope
        Step 2, the mediator on the treatment (path a).
    second_stage : Slope
        Step 3, the outcome on the mediator, given the treatment (path b).
    direct : Slope
        Step 4, the outcome on the treatment, given the mediator (path c').
    product : Slope
        ``a b``, with Sobel's standard error.
    verdict : {"full", "partial", "none"}
        What the four steps conclude at level 0.05.
    sentence : str
        The verdict, and why not to rest on it.
    """

    total: Slope
    first_stage: Slope
    second_stage: Slope
    direct: Slope
    product: Slope
    verdict: str
    sentence: str

    def to_frame(self) -> pd.DataFrame:
        """One row a step: step, estimate, std_error, statistic, p_value.

        Returns
        -------
        pandas.DataFrame
        """
        import pandas as pd

        names = ("estimate", "std_error", "statistic", "p_value")
        steps = ("total", "first_stage", "second_stage", "direct", "product")
        return pd.DataFrame(
            [{"step": step} | {n: getattr(getattr(self, step), n) for n in names} for step in steps]
        )


def baron_kenny(
    frame: IntoDataFrame,
    *,
    treatment: str,
    mediator: str,
    outcome: str,
    confounders: Sequence[str] = (),
) -> BaronKenny:
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
    BaronKenny

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
    >>> baron_kenny(table, treatment="t", mediator="m", outcome="y").verdict
    'full'
    """
    check_roles(treatment, mediator, outcome, confounders)
    table = open_table(frame)
    m, y = (
        response_of(table, name, "linear", role)
        for name, role in ((mediator, "mediator"), (outcome, "outcome"))
    )
    check_varies((mediator, m), (outcome, y))
    design, t = design_of(
        table, table.values(treatment, role="treatment"), treatment, mediator, confounders, (), False
    )
    if design.levels is not None:
        raise DataError(f"column {treatment!r} is categorical; the four steps need a number")
    x, names = design.mediator_matrix(t), design.mediator_names()
    check_left(m, x, mediator, (treatment, *confounders))
    c = fit(x, y, "linear", names=names, what="outcome")
    a = fit(x, m, "linear", names=names, what="mediator")
    full = fit(np.column_stack([x, m]), y, "linear", names=design.outcome_names(), what="outcome")
    n = len(y)
    total, first = _slope(c, 1, n), _slope(a, 1, n)
    direct, second = _slope(full, 1, n), _slope(full, -1, n)
    product = first.estimate * second.estimate
    error = float(np.hypot(first.estimate * second.std_error, second.estimate * first.std_error))
    z = product / error
    seen = {
        f"effect of {treatment} on {outcome}": total,
        f"effect of {treatment} on {mediator}": first,
        f"slope of {outcome} on {mediator}": second,
    }
    missed = [
        f"{name} (step {k})" for k, (name, step) in enumerate(seen.items(), 1) if step.p_value >= _LEVEL
    ]
    verdict = "none" if missed else "partial" if direct.p_value < _LEVEL else "full"
    path = f"mediation of the effect of {treatment} on {outcome} through {mediator}"
    concluded = (
        f"show no {path}, since at level {_LEVEL} they see no {' and no '.join(missed)}"
        if missed
        else f"conclude {verdict} {path}"
    )
    return BaronKenny(
        total=total,
        first_stage=first,
        second_stage=second,
        direct=direct,
        product=Slope(
            estimate=product, std_error=error, statistic=z, p_value=float(2 * stats.norm.sf(abs(z)))
        ),
        verdict=verdict,
        sentence=(
            f"Baron and Kenny's four steps {concluded}; the product of slopes is {product:.3g} (Sobel z = "
            f"{z:.3g}). The steps neither allow an interaction nor say what an unmeasured cause of both "
            "would do."
        ),
    )


def _slope(fitted: Fit, at: int, n: int) -> Slope:
    estimate, error = float(fitted.coef[at]), float(np.sqrt(fitted.covariance[at, at]))
    t = estimate / error
    return Slope(
        estimate=estimate,
        std_error=error,
        statistic=t,
        p_value=float(2 * stats.t.sf(abs(t), n - len(fitted.coef))),
    )
