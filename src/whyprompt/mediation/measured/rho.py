"""Sensitivity of statistical mediation to a confounder of mediator and outcome.

Sequential ignorability says that the errors of the two models are uncorrelated. Here they have
a correlation rho, and the mediation effect is given as a function of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import optimize, special

from whyprompt.errors import DataError, EstimationError
from whyprompt.mediation.measured.counterfactual import widened
from whyprompt.mediation.measured.design import check_draws, read_design
from whyprompt.results import Check, Estimate
from whyprompt.stats.regression import solve_binary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narwhals.typing import IntoDataFrame
    from numpy.typing import NDArray

    from whyprompt.mediation.measured.design import Design
    from whyprompt.stats.regression import Family, Regression

    Array = NDArray[np.float64]

_CELLS = 1 << 21


def mediation_sensitivity(
    frame: IntoDataFrame,
    *,
    treatment: str,
    mediator: str,
    outcome: str,
    confounders: Sequence[str] = (),
    mediator_model: Family = "linear",
    outcome_model: Family = "linear",
    control: float = 0,
    treated: float = 1,
    rho: Sequence[float] | None = None,
    interaction: bool = False,
    draws: int = 1000,
    cluster: str | None = None,
    level: float = 0.95,
    random_state: int = 0,
) -> Check:
    """Mediation effect as a function of the correlation of the two models' errors.

    Both linear; or one linear and the other a probit. No interaction of treatment and mediator.

    Parameters
    ----------
    frame, treatment, mediator, outcome, confounders, control, treated
        As in `mediate`; the treatment is numeric.
    mediator_model, outcome_model : {"linear", "probit"}
        Not both a probit.
    rho : sequence of float, optional
        Correlations, -0.9 to 0.9 in steps of 0.1 by default.
    interaction : bool, default False
        Only False: the effect at a given rho is known without an interaction. A call with the options of a
        `mediate` that had one is refused, and not answered for another model.
    draws, level, random_state
        Of the draws behind the intervals: a bootstrap of rows, or for a probit outcome draws of the
        coefficients; both as in `mediate`.
    cluster : str, optional
        Column of sampling units, as in `mediate`: whole clusters are drawn, or their covariance is used.

    Returns
    -------
    Check
        No data can show which rho is true, so the verdict is "untestable". The parts are the effect at each
        rho (`at`), the mean of both arms, with its percentile interval. Their figures: ``acme_control`` and
        ``acme_treated``, each arm's effect, which differ only where the outcome's model is a probit;
        ``r2_star_product``, the product of the shares of the residual variances that a confounder of that rho
        explains, and ``r2_tilde_product``, the same of the total variances. Its own: ``rho_at_zero``, the
        correlation at which the effect vanishes, in closed form, NaN where none does, with both products
        there; ``r2_mediator`` and ``r2_outcome``, R squared of the two models as fitted, of the latent
        variable for a probit (McKelvey and Zavoina).

    Raises
    ------
    DataError
        If a column is missing or has two roles, a rho is not inside (-1, 1), the two treatments are
        one, or a model or an interaction is not offered.
    EstimationError
        If a model cannot be fitted, there are too few rows or clusters, or treatment and confounders leave
        nothing of the mediator.

    Notes
    -----
    R's ``medsens`` (mediation 4.5.1) computes the correlation at which the effect of a probit
    outcome vanishes as ``s / (1 + abs(s))`` of ``s = gamma * sigma``, where the model that it
    cites implies ``s / sqrt(1 + s**2)``. Its curve at ``rho = 0`` is therefore not the effect
    that its own ``mediate`` reports, and its effects vanish too early. Here they agree.

    Of a probit mediator it fits the outcome by weighted least squares whose weights are the residual's
    conditional variance, where its inverse is meant. The error's deviation then comes out too small, and so
    does what a rho takes from the effect: with a true rho of 0.4 and 60,000 rows its steps give 0.281 where
    the truth is 0.263; with the inverse they give 0.255 as here. At ``rho = 0`` all agree. It reports means
    of draws of the coefficients, here it is the curve of the fit. It offers an interaction where the
    outcome is linear, which is refused here.

    References
    ----------
    Imai, Keele and Yamamoto (2010). Identification, inference and sensitivity analysis for
    causal mediation effects. Statistical Science 25(1), theorem 4 and section 5.2.
    Imai, Keele and Tingley (2010). A general approach to causal mediation analysis.
    Psychological Methods 15(4), appendices D and E (binary mediator, binary outcome).

    Examples
    --------
    >>> import pandas as pd
    >>> wave = np.sin(np.arange(200.0) ** 2)
    >>> t = np.tile([0.0, 1.0], 100)
    >>> m = t + wave
    >>> frame = pd.DataFrame({"t": t, "m": m, "y": m + wave[::-1]})
    >>> result = mediation_sensitivity(frame, treatment="t", mediator="m", outcome="y", draws=20)
    >>> min(part.estimate for part in result.parts if part.at < result["rho_at_zero"]) > 0
    True
    """
    grid = np.round(np.arange(-9, 10) / 10, 1) if rho is None else np.asarray(rho, dtype=np.float64)
    if not grid.size or not (np.abs(grid) < 1).all():
        raise DataError("there is at least one rho, and every rho lies strictly between -1 and 1")
    check_draws(draws, level)
    if interaction:
        raise DataError(
            "no sensitivity analysis for an interaction of treatment and mediator",
            hint="leave interaction out here: the curve is then that of the model without it",
        )
    models = (mediator_model, outcome_model)
    if models not in {("linear", "linear"), ("linear", "probit"), ("probit", "linear")}:
        raise DataError(
            f"no sensitivity analysis for a {mediator_model} mediator and a {outcome_model} outcome",
            hint="two linear models, or one linear and one probit",
        )
    design = read_design(
        frame,
        treatment,
        mediator,
        outcome,
        confounders,
        families=models,
        arms=(control, treated),
        cluster=cluster,
        number_for="the sensitivity analysis needs",
    )
    m, y, x, arms = design.m, design.y, design.x_mediator, design.mediator_set
    fit_m, fit_y = design.fits()
    rng = np.random.default_rng(random_state)
    if outcome_model == "probit":
        curves = _probit_outcome(arms, fit_m.coef[None], fit_y.coef[None], np.array([fit_m.sigma]), grid)
        slope = fit_y.coef[-1] * fit_m.sigma
        zero = float(slope / np.sqrt(1 + slope**2))
        drawn = _probit_outcome(arms, *_draw(fit_m, fit_y, len(y), draws, rng), grid).mean(0)
    else:
        contrast = float(design.arms[1]) - float(design.arms[0])
        curve = _linear if mediator_model == "linear" else _probit_mediator
        curves, zero = curve(x, m, y, arms, grid, fit_m.coef, contrast)
        raw = _bootstrap(curve, design, grid, fit_m.coef, contrast, draws, rng)
        drawn = widened(raw, curves.mean((0, 1)), design.units, rng)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    shares = {"r2_mediator": _r2(fit_m, x, m), "r2_outcome": _r2(fit_y, design.x_outcome, y)}
    unexplained = (1 - shares["r2_mediator"]) * (1 - shares["r2_outcome"])
    rows = np.stack([grid, curves.mean(0)[0], low, high, curves[0, 0], curves[1, 0]], 1).tolist()
    return Check(
        parts=tuple(
            Estimate(
                label=f"rho {at:g}",
                at=at,
                estimate=acme,
                ci_low=bottom,
                ci_high=top,
                n_used=len(y),
                figures={"acme_control": acme0, "acme_treated": acme1, **_products(at, unexplained)},
            )
            for at, acme, bottom, top, acme0, acme1 in rows
        ),
        name="hidden common cause of mediator and outcome",
        verdict="untestable",
        level=level,
        sentence=_sentence(mediator, outcome, zero, _products(zero, unexplained)["r2_tilde_product"]),
        axis=f"effect on {outcome} through {mediator}",
        figures={"rho_at_zero": zero, **_products(zero, unexplained), **shares},
    )


def _products(rho: float, unexplained: float) -> dict[str, float]:
    """Products of the shares of the residual and of the total variances that a confounder explains."""
    return {"r2_star_product": rho**2, "r2_tilde_product": rho**2 * unexplained}


def _sentence(mediator: str, outcome: str, zero: float, tilde: float) -> str:
    if not np.isfinite(zero):
        return f"No correlation of the errors of {mediator} and {outcome} undoes the mediation effect."
    return (
        f"The mediation effect vanishes if the errors of {mediator} and {outcome} have the correlation "
        f"{zero:.3g}: if an unmeasured cause of both explains shares of their variances whose product is "
        f"{tilde:.3g}."
    )


def _r2(fitted: Regression, x: Array, response: Array) -> float:
    """R squared; for a probit that of the latent variable, whose error has variance 1."""
    eta = x @ fitted.coef
    if fitted.family == "linear":
        return float(1 - ((response - eta) ** 2).sum() / ((response - response.mean()) ** 2).sum())
    variance = float(eta.var(ddof=1))
    return variance / (1 + variance)


def _linear(
    x: Array, m: Array, y: Array, _arms: tuple[Array, ...], rho: Array, _coef: Array, contrast: float
) -> tuple[Array, float]:
    """Two linear models; both arms have the same effect. Shape (arms, 1, rho)."""
    coef, *_ = np.linalg.lstsq(x, np.column_stack([m, y]), rcond=None)
    e2, e1 = (m - x @ coef[:, 0]), (y - x @ coef[:, 1])
    s2, s1 = np.sqrt(e2 @ e2), np.sqrt(e1 @ e1)
    tilde = float(e1 @ e2 / (s1 * s2))
    acme = contrast * coef[1, 0] * s1 / s2 * (tilde - rho * np.sqrt((1 - tilde**2) / (1 - rho**2)))
    return np.broadcast_to(acme, (2, 1, len(rho))), tilde


def _probit_mediator(
    x: Array, m: Array, y: Array, arms: tuple[Array, ...], rho: Array, coef: Array, _contrast: float
) -> tuple[Array, float]:
    """Probit mediator and linear outcome: the error's mean given the mediator is a regressor.

    ``E[Y | T, M, X] = a + b T + gamma M + rho sigma lambda``, with lambda the inverse Mills ratio
    of the mediator's side. For each rho the outcome's error deviation sigma solves a quadratic.
    """
    alpha, iterations = solve_binary(x, m, "probit", start=coef)
    if not iterations:
        raise EstimationError("the mediator model does not converge")
    eta = x @ alpha
    side = 2 * m - 1
    # phi / Phi without dividing two numbers that both vanish in the tail.
    mills = side * np.exp(-0.5 * eta**2 - 0.5 * np.log(2 * np.pi) - special.log_ndtr(side * eta))
    full = np.column_stack([x, m])
    coefs, *_ = np.linalg.lstsq(full, np.column_stack([y, mills]), rcond=None)
    r, k = y - full @ coefs[:, 0], mills - full @ coefs[:, 1]
    lost = float((mills * (mills + eta)).mean())  # share of the error's variance that M tells
    share = float((special.ndtr(arms[1] @ alpha) - special.ndtr(arms[0] @ alpha)).mean())

    def gamma(rho: Array) -> Array:
        # mean (r - rho sigma k)^2 = sigma^2 (1 - rho^2 lost), solved for sigma > 0.
        quadratic = 1 - rho**2 * (lost + float((k**2).mean()))
        half = rho * float((r * k).mean())
        sigma = (-half + np.sqrt(half**2 + quadratic * float((r**2).mean()))) / quadratic
        return np.asarray(coefs[-1, 0] - rho * sigma * coefs[-1, 1])

    acme = share * gamma(rho)
    ends = gamma(np.array([-1 + 1e-9, 1 - 1e-9]))
    zero = np.nan
    if np.isfinite(ends).all() and ends[0] * ends[1] < 0:
        zero = float(optimize.brentq(lambda v: float(gamma(np.array([v]))[0]), -1 + 1e-9, 1 - 1e-9))
    return np.broadcast_to(acme, (2, 1, len(rho))), zero


def _probit_outcome(arms: tuple[Array, ...], alpha: Array, beta: Array, sigma: Array, rho: Array) -> Array:
    """Linear mediator and probit outcome, for each draw of the coefficients.

    With errors correlated by rho, the fitted probit's slopes are those of
    ``P(Y = 1 | T, M, X) = Phi((b x + gamma m + rho (m - a x) / sigma) / sqrt(1 - rho^2))``.
    Solved for b and gamma, and the mediator integrated out, an arm's probability is a probit
    of variance ``1 + gamma^2 sigma^2 + 2 rho gamma sigma``. Shape (arms, draws, rho).
    """
    p = alpha.shape[1]
    root = np.sqrt(1 - rho**2)
    gamma = beta[:, p:] * root - rho / sigma[:, None]
    scale = np.sqrt(1 + (gamma * sigma[:, None]) ** 2 + 2 * rho * gamma * sigma[:, None])
    out = np.zeros((2, *gamma.shape))
    step = max(1, _CELLS // gamma.size)
    n = len(arms[0])
    for top in range(0, n, step):
        parts = [x[top : top + step] for x in arms]
        means = [x @ alpha.T for x in parts]
        for t, x in enumerate(parts):
            # b x = root * (beta x) + rho / sigma * (a x)
            direct = (x @ beta[:, :p].T)[..., None] * root + means[t][..., None] * (rho / sigma[:, None])
            with_m = [special.ndtr((direct + gamma * m[..., None]) / scale) for m in means]
            out[t] += (with_m[1] - with_m[0]).sum(0)
    return out / n


def _draw(
    fit_m: Regression, fit_y: Regression, n: int, draws: int, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Coefficients from their normal approximation, the residual deviation from its posterior."""
    alpha = fit_m.draw(draws, rng, what="mediator")
    beta = fit_y.draw(draws, rng, what="outcome")
    free = n - len(fit_m.coef)
    return alpha, beta, fit_m.sigma * np.sqrt(free / rng.chisquare(free, draws))


def _bootstrap(
    curve: Any,  # noqa: ANN401  # one of the two functions above
    design: Design,
    rho: Array,
    coef: Array,
    contrast: float,
    draws: int,
    rng: np.random.Generator,
) -> Array:
    """Both models refitted on the same resampled rows, or rows of resampled clusters."""
    x, m, y, groups = design.x_mediator, design.m, design.y, design.groups
    members = None
    if groups is not None:
        members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    out = []
    for _ in range(draws):
        if members is None:
            rows = rng.integers(0, len(y), len(y))
        else:
            rows = np.concatenate([members[k] for k in rng.integers(0, len(members), len(members))])
        drawn = tuple(a[rows] for a in design.mediator_set)
        out.append(curve(x[rows], m[rows], y[rows], drawn, rho, coef, contrast)[0].mean((0, 1)))
    return np.stack(out)
