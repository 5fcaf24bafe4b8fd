"""Statistical mediation of a measured mediator: Imai, Keele and Tingley (2010).

Needs sequential ignorability, which no data can show; `sensitivity` says how strong a violation
would undo the finding. For heads of a model, `head_sweep` needs no such assumption.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import narwhals as nw
import numpy as np

from whyprompt.errors import DataError
from whyprompt.mediation.counterfactual import World, bootstrap_effects
from whyprompt.mediation.regression import Family, Fit, fit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from narwhals.typing import IntoDataFrame
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = [
    "Estimate",
    "MediationResult",
    "RhoSensitivity",
    "contrast_mediations",
    "mediate",
    "sensitivity",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """One effect.

    Attributes
    ----------
    estimate, standard_error, ci_low, ci_high, p_value : float
        Percentile interval; two-sided p from the share of draws on either side of zero.
    """

    estimate: float
    standard_error: float
    ci_low: float
    ci_high: float
    p_value: float


@dataclass(frozen=True, kw_only=True, eq=False)
class MediationResult:
    """Average causal mediation and direct effects.

    Attributes
    ----------
    effects : mapping of str to Estimate
        acme_control, acme_treated, ade_control, ade_treated, total_effect, their averages acme
        and ade, and proportion_control, proportion_treated, proportion (mediated).
    draws : mapping of str to ndarray, shape (n_draws,)
        Draws of every effect.
    mediator_fit, outcome_fit : Fit
    treatment, mediator, outcome, method : str
    control_value, treat_value : float or str
    n_rows, n_draws : int
    conf_level : float
    sentence : str
    """

    effects: Mapping[str, Estimate]
    draws: Mapping[str, Array]
    mediator_fit: Fit
    outcome_fit: Fit
    treatment: str
    mediator: str
    outcome: str
    method: str
    control_value: float | str
    treat_value: float | str
    n_rows: int
    n_draws: int
    conf_level: float
    sentence: str

    def to_frame(self) -> pd.DataFrame:
        """One row an effect: effect, estimate, standard_error, ci_low, ci_high, p_value.

        Returns
        -------
        pandas.DataFrame
        """
        import pandas as pd

        names = ("estimate", "standard_error", "ci_low", "ci_high", "p_value")
        rows = [{"effect": k} | {n: getattr(e, n) for n in names} for k, e in self.effects.items()]
        return pd.DataFrame(rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class RhoSensitivity:
    """The mediation effect if the errors of the two models were correlated.

    Attributes
    ----------
    rho : ndarray
    acme, ci_low, ci_high : ndarray
        Effect at each rho, with its bootstrap interval.
    rho_at_zero : float
        The correlation at which the effect vanishes.
    r2_star_product : float
        At that point, the product of the shares of residual variance that an omitted
        confounder explains in mediator and outcome.
    r2_tilde_product : float
        The same of the total variances.
    """

    rho: Array
    acme: Array
    ci_low: Array
    ci_high: Array
    rho_at_zero: float
    r2_star_product: float
    r2_tilde_product: float


@dataclass(frozen=True, slots=True)
class _Design:
    """Design matrices of both models, at the observed or at set treatments and mediators."""

    levels: tuple[str, ...] | None
    covariates: Array
    covariate_names: tuple[str, ...]
    moderators: tuple[int, ...]
    treatment: str
    mediator: str
    interaction: bool

    def treat(self, value: Any) -> Array:  # noqa: ANN401  # a number or a level
        """Treatment columns of one row set to `value`."""
        if self.levels is None:
            return np.array([float(value)])
        return np.array([float(value == level) for level in self.levels[1:]])

    @property
    def treat_names(self) -> list[str]:
        if self.levels is None:
            return [self.treatment]
        return [f"{self.treatment}={level}" for level in self.levels[1:]]

    def mediator_names(self) -> tuple[str, ...]:
        extra = [f"{t}:{self.covariate_names[j]}" for t in self.treat_names for j in self.moderators]
        return ("(Intercept)", *self.treat_names, *self.covariate_names, *extra)

    def outcome_names(self) -> tuple[str, ...]:
        moderators = [self.covariate_names[j] for j in self.moderators]
        return (
            *self.mediator_names(),
            self.mediator,
            *([f"{self.mediator}:{t}" for t in self.treat_names] if self.interaction else []),
            *[f"{self.mediator}:{c}" for c in moderators],
        )

    def mediator_matrix(self, t: Array, c: Array | None = None) -> Array:
        """Design of the mediator model; `t` has one row, or as many as `c`."""
        c = self.covariates if c is None else c
        t = np.broadcast_to(np.atleast_2d(t), (len(c), np.atleast_2d(t).shape[1]))
        extra = [t[:, [k]] * c[:, [j]] for k in range(t.shape[1]) for j in self.moderators]
        return np.hstack([np.ones((len(c), 1)), t, c, *extra])

    def slope_matrix(self, t: Array, c: Array | None = None) -> Array:
        """Build what multiplies the mediator in the outcome model: 1, treatment, moderators."""
        c = self.covariates if c is None else c
        t = np.broadcast_to(np.atleast_2d(t), (len(c), np.atleast_2d(t).shape[1]))
        return np.hstack(
            [np.ones((len(c), 1)), *([t] if self.interaction else []), c[:, list(self.moderators)]]
        )

    def outcome_matrix(self, t: Array, m: Array) -> Array:
        return np.hstack([self.mediator_matrix(t), m[:, None] * self.slope_matrix(t)])


def mediate(
    data: IntoDataFrame,
    *,
    treatment: str,
    mediator: str,
    outcome: str,
    covariates: Sequence[str] = (),
    moderators: Sequence[str] = (),
    at: Mapping[str, float | str] | None = None,
    mediator_model: Family = "linear",
    outcome_model: Family = "linear",
    interaction: bool = False,
    control_value: float | str = 0,
    treat_value: float | str = 1,
    method: Literal["quasi_bayes", "bootstrap"] = "quasi_bayes",
    n_draws: int = 1000,
    robust: bool = False,
    clusters: str | None = None,
    conf_level: float = 0.95,
    random_state: int = 0,
) -> MediationResult:
    """Average causal mediation effect (ACME) and average direct effect (ADE) under both arms.

    ``ACME(t) = E[Y(t, M(1)) - Y(t, M(0))]`` and ``ADE(t) = E[Y(1, M(t)) - Y(0, M(t))]``, by
    simulating the mediator and then the outcome from their models for every row.

    Parameters
    ----------
    data : data frame
        Any that narwhals reads.
    treatment, mediator, outcome : str
        Columns. A treatment of text is categorical.
    covariates : sequence of str
        Pre-treatment columns that enter both models; text is categorical.
    moderators : sequence of str
        Numeric covariates that interact with treatment and mediator.
    at : mapping of str to value, optional
        Covariates held at a value, for moderated mediation.
    mediator_model, outcome_model : {"linear", "logit", "probit"}
    interaction : bool, default False
        Whether treatment and mediator interact in the outcome model.
    control_value, treat_value : float or str
        The two treatments compared.
    method : {"quasi_bayes", "bootstrap"}
        Draws of the coefficients from their normal approximation, or of the rows, with both
        models refitted on the same rows.
    n_draws : int, default 1000
    robust : bool, default False
        HC3 covariance (quasi_bayes).
    clusters : str, optional
        Column of sampling units, for cluster-robust covariance or a bootstrap of clusters.
    conf_level : float, default 0.95
    random_state : int

    Returns
    -------
    MediationResult

    Raises
    ------
    DataError
        If a column is missing, holds missing values, or is of the wrong kind.
    EstimationError
        If a model cannot be fitted.

    References
    ----------
    Imai, Keele and Tingley (2010). A general approach to causal mediation analysis.
    Psychological Methods 15(4), algorithms 1 and 2.

    Examples
    --------
    >>> import pandas as pd
    >>> t = np.tile([0.0, 1.0], 100)
    >>> m = 2 * t + np.sin(np.arange(200))
    >>> y = 3 * m + t + np.cos(np.arange(200))
    >>> frame = pd.DataFrame({"t": t, "m": m, "y": y})
    >>> result = mediate(frame, treatment="t", mediator="m", outcome="y")
    >>> round(result.effects["acme"].estimate)
    6
    """
    if method not in {"quasi_bayes", "bootstrap"}:
        raise DataError(f"unknown method {method!r}", hint="quasi_bayes or bootstrap")
    if n_draws < 2 or not 0 < conf_level < 1:
        raise DataError("n_draws is at least 2, and conf_level lies between 0 and 1")
    for name, family in (("mediator_model", mediator_model), ("outcome_model", outcome_model)):
        if family not in get_args(Family):
            raise DataError(f"unknown {name} {family!r}", hint="linear, logit or probit")
    table = _Table(nw.from_native(data, eager_only=True))
    t_values = table.column(treatment)
    m = _response(table, mediator, mediator_model)
    y = _response(table, outcome, outcome_model)
    design, t = _design(table, t_values, treatment, mediator, covariates, moderators, interaction)
    for label, value in (("control_value", control_value), ("treat_value", treat_value)):
        if design.levels is not None and value not in design.levels:
            raise DataError(f"{label} {value!r} is not a level of {treatment!r}: {', '.join(design.levels)}")
    groups = None if clusters is None else np.unique(table.column(clusters), return_inverse=True)[1]
    if groups is not None and groups.max() < 1:
        raise DataError(f"column {clusters!r} holds one cluster only")
    xm, xy = design.mediator_matrix(t), design.outcome_matrix(t, m)
    options: dict[str, Any] = {"robust": robust, "clusters": groups}
    fit_m = fit(xm, m, mediator_model, names=design.mediator_names(), what="mediator", **options)
    fit_y = fit(xy, y, outcome_model, names=design.outcome_names(), what="outcome", **options)
    held = _held(design, table, covariates, at)
    arms = [design.treat(value) for value in (control_value, treat_value)]
    world = World(
        family_m=mediator_model,
        family_y=outcome_model,
        mediator=(design.mediator_matrix(arms[0], held), design.mediator_matrix(arms[1], held)),
        slope=(design.slope_matrix(arms[0], held), design.slope_matrix(arms[1], held)),
        flat=not design.moderators,
    )
    rng = np.random.default_rng(random_state)
    point = world.effects(fit_m.coef[None], fit_y.coef[None], np.array([fit_m.sigma]), rng, None)
    if method == "quasi_bayes":
        alpha = rng.multivariate_normal(fit_m.coef, fit_m.covariance, n_draws, method="cholesky")
        beta = rng.multivariate_normal(fit_y.coef, fit_y.covariance, n_draws, method="cholesky")
        draws = world.effects(alpha, beta, np.full(n_draws, fit_m.sigma), rng, None)
        centre = {k: float(v.mean()) for k, v in draws.items()}
    else:
        draws = bootstrap_effects(world, xm, m, xy, y, fit_m, fit_y, groups, n_draws, rng)
        centre = {k: float(v[0]) for k, v in point.items()}
    return _result(
        draws,
        centre,
        {
            "mediator_fit": fit_m,
            "outcome_fit": fit_y,
            "treatment": treatment,
            "mediator": mediator,
            "outcome": outcome,
            "method": method,
            "control_value": control_value,
            "treat_value": treat_value,
            "n_rows": len(y),
            "n_draws": n_draws,
            "conf_level": conf_level,
        },
    )


def contrast_mediations(
    result: MediationResult, other: MediationResult, *, conf_level: float = 0.95
) -> dict[str, Estimate]:
    """Difference of two mediations, effect by effect, ``result - other``.

    Made of the same draws where both were run with the same `random_state` on the same rows (a
    moderator at two values), so that what they share cancels.

    Parameters
    ----------
    result, other : MediationResult
    conf_level : float, default 0.95

    Returns
    -------
    dict of str to Estimate

    Raises
    ------
    DataError
        If the two have different numbers of draws.

    Examples
    --------
    >>> contrast_mediations(at_20, at_60)["acme"]  # doctest: +SKIP
    """
    if result.n_draws != other.n_draws:
        raise DataError(f"the results have {result.n_draws} and {other.n_draws} draws")
    return {
        name: _estimate(
            result.draws[name] - other.draws[name],
            result.effects[name].estimate - other.effects[name].estimate,
            conf_level,
        )
        for name in result.draws
    }


def sensitivity(
    data: IntoDataFrame,
    *,
    treatment: str,
    mediator: str,
    outcome: str,
    covariates: Sequence[str] = (),
    rho: Sequence[float] | None = None,
    n_draws: int = 1000,
    conf_level: float = 0.95,
    random_state: int = 0,
) -> RhoSensitivity:
    """Mediation effect of two linear models as a function of the correlation of their errors.

    Parameters
    ----------
    data, treatment, mediator, outcome, covariates
        As in `mediate`; both models are linear, without interaction, and the treatment numeric.
    rho : sequence of float, optional
        Correlations, -0.9 to 0.9 in steps of 0.1 by default.
    n_draws, conf_level, random_state
        Of the bootstrap behind the intervals.

    Returns
    -------
    RhoSensitivity

    Raises
    ------
    DataError
        If a column is missing or a rho is not inside (-1, 1).

    References
    ----------
    Imai, Keele and Yamamoto (2010). Identification, inference and sensitivity analysis for
    causal mediation effects. Statistical Science 25(1), theorem 4 and section 5.2.

    Examples
    --------
    >>> sensitivity(frame, treatment="t", mediator="m", outcome="y").rho_at_zero  # doctest: +SKIP
    """
    grid = np.round(np.arange(-9, 10) / 10, 1) if rho is None else np.asarray(rho, dtype=np.float64)
    if not (np.abs(grid) < 1).all():
        raise DataError("every rho lies strictly between -1 and 1")
    table = _Table(nw.from_native(data, eager_only=True))
    m, y = (_response(table, name, "linear") for name in (mediator, outcome))
    design, t = _design(table, table.column(treatment), treatment, mediator, covariates, (), False)
    if design.levels is not None:
        raise DataError(f"column {treatment!r} is categorical; the sensitivity analysis needs a number")
    x = design.mediator_matrix(t)
    for what, response in (("mediator", m), ("outcome", y)):
        fit(x, response, "linear", names=design.mediator_names(), what=what)
    acme, rho_tilde, residuals = _rho_curve(x, m, y, grid)
    rng = np.random.default_rng(random_state)
    draws = np.stack(
        [_rho_curve(x[i], m[i], y[i], grid)[0] for i in rng.integers(0, len(y), (n_draws, len(y)))]
    )
    low, high = np.quantile(draws, [(1 - conf_level) / 2, (1 + conf_level) / 2], axis=0)
    star = rho_tilde**2
    shares = [
        float(r @ r / ((v - v.mean()) @ (v - v.mean()))) for r, v in zip(residuals, (m, y), strict=True)
    ]
    # The outcome model's residual variance, with the mediator in it.
    shares[1] *= 1 - star
    return RhoSensitivity(
        rho=grid,
        acme=acme,
        ci_low=low,
        ci_high=high,
        rho_at_zero=rho_tilde,
        r2_star_product=star,
        r2_tilde_product=star * shares[0] * shares[1],
    )


def _rho_curve(x: Array, m: Array, y: Array, rho: Array) -> tuple[Array, float, tuple[Array, Array]]:
    coef, *_ = np.linalg.lstsq(x, np.column_stack([m, y]), rcond=None)
    e2, e1 = (m - x @ coef[:, 0]), (y - x @ coef[:, 1])
    s2, s1 = np.sqrt(e2 @ e2), np.sqrt(e1 @ e1)
    tilde = float(e1 @ e2 / (s1 * s2))
    acme = coef[1, 0] * s1 / s2 * (tilde - rho * np.sqrt((1 - tilde**2) / (1 - rho**2)))
    return acme, tilde, (e2, e1)


class _Table:
    """Columns of a frame, checked as they are asked for."""

    def __init__(self, frame: nw.DataFrame[Any]) -> None:
        self.frame = frame
        if len(frame) == 0:
            raise DataError("the table has no rows")

    def column(self, name: str) -> NDArray[Any]:
        if name not in self.frame.columns:
            raise DataError(f"there is no column {name!r}", hint=f"columns: {', '.join(self.frame.columns)}")
        series = self.frame[name]
        missing = int(series.is_null().sum())
        values: NDArray[Any]
        if series.dtype.is_numeric() or series.dtype == nw.Boolean:
            values = series.to_numpy().astype(np.float64) if not missing else np.array([np.nan])
            missing = missing or int((~np.isfinite(values)).sum())
        else:
            values = np.array([str(v) for v in series.to_list()], dtype=object)
        if missing:
            raise DataError(
                f"column {name!r} holds {missing} missing or infinite values",
                hint="drop or impute those rows before",
            )
        return values


def _response(table: _Table, name: str, family: Family) -> Array:
    values = table.column(name)
    if values.dtype == object:
        raise DataError(f"column {name!r} is text, but a {family} model needs numbers")
    if family != "linear" and set(np.unique(values)) != {0.0, 1.0}:
        raise DataError(f"column {name!r} must hold 0 and 1 for a {family} model")
    return np.asarray(values, dtype=np.float64)


def _dummies(values: NDArray[Any], name: str) -> tuple[Array, list[str]]:
    if values.dtype != object:
        return np.asarray(values, dtype=np.float64)[:, None], [name]
    levels = sorted(set(values))
    return np.stack([(values == v).astype(float) for v in levels[1:]], 1).reshape(len(values), -1), [
        f"{name}={v}" for v in levels[1:]
    ]


def _design(
    table: _Table,
    t_values: NDArray[Any],
    treatment: str,
    mediator: str,
    covariates: Sequence[str],
    moderators: Sequence[str],
    interaction: bool,  # noqa: FBT001  # private
) -> tuple[_Design, Array]:
    columns, names = [np.empty((len(t_values), 0))], list[str]()
    for name in covariates:
        c, labels = _dummies(table.column(name), name)
        columns.append(c)
        names += labels
    for name in moderators:
        if name not in names:
            raise DataError(f"moderator {name!r} is not a numeric covariate", hint="add it to `covariates`")
    levels = tuple(sorted(set(t_values))) if t_values.dtype == object else None
    if len(np.unique(t_values)) < 2:
        raise DataError(f"column {treatment!r} holds one treatment only")
    design = _Design(
        levels,
        np.hstack(columns),
        tuple(names),
        tuple(names.index(name) for name in moderators),
        treatment,
        mediator,
        interaction,
    )
    return design, np.stack([design.treat(v) for v in t_values])


def _held(
    design: _Design, table: _Table, covariates: Sequence[str], at: Mapping[str, float | str] | None
) -> Array:
    """Covariates with some held at a value."""
    out = design.covariates.copy()
    for name, value in (at or {}).items():
        if name not in covariates:
            raise DataError(f"`at` names {name!r}, which is not a covariate")
        values = table.column(name)
        if values.dtype == object and value not in set(values):
            raise DataError(f"`at` holds {name!r} at {value!r}, which is not one of its levels")
        for j, label in enumerate(design.covariate_names):
            if values.dtype != object and label == name:
                out[:, j] = float(value)
            elif values.dtype == object and label.startswith(f"{name}="):
                out[:, j] = float(label == f"{name}={value}")
    return out


def _estimate(draws: Array, centre: float, conf_level: float) -> Estimate:
    low, high = np.quantile(draws, [(1 - conf_level) / 2, (1 + conf_level) / 2])
    tail = min(int((draws > 0).sum()), int((draws < 0).sum())) / len(draws)
    return Estimate(
        estimate=centre,
        standard_error=float(draws.std(ddof=1)),
        ci_low=float(low),
        ci_high=float(high),
        p_value=min(1.0, 2 * tail) if centre else 1.0,
    )


def _result(draws: dict[str, Array], centre: dict[str, float], rest: dict[str, Any]) -> MediationResult:
    level = rest["conf_level"]
    for name, part in (("control", "acme_control"), ("treated", "acme_treated"), ("", "acme")):
        key = f"proportion_{name}".rstrip("_")
        draws[key] = draws[part] / draws["total_effect"]
        # A ratio has no mean to speak of; its median is what the draws settle.
        by_draws = rest["method"] == "quasi_bayes"
        centre[key] = float(np.median(draws[key])) if by_draws else centre[part] / centre["total_effect"]
    effects = {k: _estimate(v, centre[k], level) for k, v in draws.items()}
    acme, ade, total = effects["acme"], effects["ade"], effects["total_effect"]
    sentence = (
        f"Of the total effect {total.estimate:.3g} of {rest['treatment']} on {rest['outcome']}, "
        f"{acme.estimate:.3g} ({100 * level:g}% interval {acme.ci_low:.3g} to {acme.ci_high:.3g}) goes "
        f"through {rest['mediator']} and {ade.estimate:.3g} ({ade.ci_low:.3g} to {ade.ci_high:.3g}) "
        "does not. "
        "This holds only under sequential ignorability: nothing unmeasured may cause both mediator "
        "and outcome."
    )
    return MediationResult(effects=effects, draws=draws, sentence=sentence, **rest)
