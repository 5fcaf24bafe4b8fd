"""A continuous treatment: how the outcome changes along the dose, with a band that holds everywhere at once.

Rows are weighted so that the dose no longer depends on the confounders; the outcome is then regressed on a
natural cubic spline of the dose. The sandwich error accounts for the weights having been estimated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._arguments import confidence
from whyprompt._summary import balance_text, grid, reach
from whyprompt._words import format_number, p_words, percent
from whyprompt.effects.assumptions import describe_assumptions, judge_balance, not_claimed
from whyprompt.effects.measures import stated
from whyprompt.effects.methods.doses import dose_correlations, dose_weights, entropy_influence, heavy_tails
from whyprompt.effects.problem import choose_confounders
from whyprompt.effects.units import find_units, settle_cluster
from whyprompt.errors import DataError, EstimationError
from whyprompt.results import Assumption, BalanceRow, Estimate, Result, unlisted
from whyprompt.stats.design import design_matrix, natural_spline, standardised
from whyprompt.stats.influence import (
    cluster_codes,
    effective_sample_size,
    influence_covariance,
    nuisance_influence,
    regression_influence,
    with_intercept,
)
from whyprompt.stats.rules import few_clusters
from whyprompt.stats.several import correlation, max_t
from whyprompt.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.graph.model import CausalGraph
    from whyprompt.tables import Table

    Floats = NDArray[np.float64]

_FEW_VALUES = 5
_LOW_ESS = 0.2


@dataclass(frozen=True, kw_only=True)
class DoseResponse(Result):
    """A dose-response curve.

    The overall estimate is the slope of the straight line through the weighted rows: the average change for
    one unit of the dose. The parts are the differences from the mean at the reference dose, each an estimate
    along the grid, whose simultaneous interval is the band that holds over the whole grid.

    Attributes
    ----------
    treatment, outcome : str
        Columns.
    method : {"entropy", "gps", "naive"}
    curve : tuple of Estimate
        Mean outcome if every row had that dose, with its own band; in order of the dose.
    reference : float
        The dose that effects are measured from.
    flat_p : float or None
        p-value of no dose-response at all (Wald, all spline coefficients nil).
    nonlinear_p : float or None
        p-value of a straight line; None where the spline is one.
    knots : tuple of float
        Of the spline, the outermost ones at the ends of the dose.
    ess : float
        Kish's effective sample size under the weights.
    balance : tuple of BalanceRow
        What balance means for a dose: no correlation with a covariate.
    std_error_method : str
    confounders : tuple of str
    weights : ndarray, shape (n,)
    """

    overall: Estimate
    treatment: str
    outcome: str
    method: str
    curve: tuple[Estimate, ...]
    reference: float
    flat_p: float | None
    nonlinear_p: float | None
    knots: tuple[float, ...]
    ess: float
    balance: tuple[BalanceRow, ...]
    std_error_method: str
    confounders: tuple[str, ...]
    weights: Floats | None = unlisted()

    def _blocks(self) -> list[str]:
        rows = [
            [
                format_number(mean.at),
                format_number(mean.estimate),
                reach(mean.ci_low, mean.ci_high),
                reach(mean.simultaneous_low, mean.simultaneous_high),
                format_number(effect.estimate),
                reach(effect.ci_low, effect.ci_high),
            ]
            for mean, effect in zip(self.curve, self.parts, strict=True)
        ]
        out = [grid(["dose", "mean", "interval", "band", "effect", "interval"], rows)]
        return out + ([balance_text(self.balance)] if self.balance else [])

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        from whyprompt.charts import dose_response_plot

        rows = [
            {"dose": p.at, "estimate": p.estimate, "low": p.simultaneous_low, "high": p.simultaneous_high}
            for p in self.curve
        ]
        return {
            "curve": lambda: dose_response_plot(
                rows, dose_title=self.treatment, outcome_title=f"mean of {self.outcome}"
            )
        }


def dose_response(
    frame: Any,  # noqa: ANN401 - any frame library's type
    *,
    treatment: str,
    outcome: str,
    confounders: Sequence[str] | None = None,
    graph: CausalGraph | None = None,
    method: str | None = None,
    knots: int | Sequence[float] = 4,
    grid: Sequence[float] | None = None,
    reference: float | None = None,
    design: str = "observational",
    cluster: str | None = None,
    std_error: str = "hc3",
    level: float = 0.95,
    random_state: int = 0,
) -> DoseResponse:
    """Estimate the mean outcome along a continuous dose.

    Parameters
    ----------
    frame : DataFrame
        One row a trial.
    treatment, outcome : str
        Columns, both numeric.
    confounders, graph, cluster, level
        As in `estimate_effect`.
    method : {"entropy", "gps", "naive"}, optional
        Default ``entropy``; ``naive`` in a randomised design without confounders.
        ``entropy``: weights under which every function of the spline is uncorrelated with every covariate,
        exactly. ``gps``: ratios of normal densities of the dose. ``naive``: no weights.
    knots : int or sequence of float, default 4
        Number of knots, at quantiles of the dose, or their places; 2 give a straight line.
    grid : sequence of float, optional
        Doses at which the curve is given; default 21 from the 5% to the 95% quantile.
    reference : float, optional
        Dose that effects are measured from; default the first of the grid.
    design : {"observational", "randomized"}, default "observational"
        How rows got their doses.
    std_error : {"hc3", "hc0"}, default "hc3"
        ``hc0``: the sandwich of the stacked equations (for ``gps`` that of R's WeightIt). ``hc3``: each row's
        influence is divided by one minus its leverage, in the weighted regression on all that the weights
        balance; weights and the ends of a spline give single rows much leverage. Intervals and the band then
        take the t distribution with rows minus regressors as degrees of freedom (clusters minus one where
        there are clusters), as normal ones are too short with few rows.
    random_state : int, default 0
        Seed of the band.

    Returns
    -------
    DoseResponse

    Raises
    ------
    DataError
        If a column is absent, text, or has missing or infinite values, or the dose takes few values.
    EstimationError
        If the dose is constant or determined by the covariates, the outcome is constant or determined by the
        dose, balance cannot be reached, the spline's parts cannot be told apart, or a dose asked for lies
        outside those seen.
    GraphError
        If the graph forbids a confounder.

    Notes
    -----
    The curve is that of all rows: their covariates as they are, the dose set. Entropy weights remove the
    bias of confounders that act linearly on the outcome, whatever the form of the dose-response within the
    spline; add squares or products as confounders where that is doubtful. The band takes the largest |t| over
    the grid from the joint distribution of the curve.

    References
    ----------
    MacKinnon, J. G. and White, H. (1985). Some heteroskedasticity-consistent covariance matrix estimators
    with improved finite sample properties. Journal of Econometrics 29, 305-325.
    Hirano, K. and Imbens, G. W. (2004). The propensity score with continuous treatments. In Applied Bayesian
    Modeling and Causal Inference from Incomplete-Data Perspectives, 73-84.
    Tübbicke, S. (2022). Entropy balancing for continuous treatments. Journal of Econometric Methods 11.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=800)
    >>> shots = 2 + 0.5 * x + rng.normal(size=800)
    >>> frame = pd.DataFrame({"shots": shots, "x": x, "y": 0.7 * shots - x + rng.normal(size=800)})
    >>> curve = dose_response(frame, treatment="shots", outcome="y", confounders=["x"])
    >>> curve.ci_low < 0.7 < curve.ci_high
    True
    """
    _check_options(method, design, std_error, level)
    table = open_table(frame)
    d, y = _read(table, treatment, outcome)
    chosen, cautions = choose_confounders(
        table, treatment=treatment, outcome=outcome, confounders=confounders, graph=graph
    )
    used = _method(method, design, chosen)
    names = tuple(chosen or ())
    sampling, _ = find_units(table, treatment=treatment, outcomes=[outcome], covariates=names, dose=True)
    named, notes = settle_cluster(cluster, sampling)
    codes = cluster_codes(None if named is None else table.labels(named, role="cluster"), len(d))
    places = _knots(d, knots, treatment)
    doses = _grid(d, grid, treatment)
    start = float(doses[0]) if reference is None else float(reference)
    _inside(np.array([start]), d, treatment, "reference")
    basis = natural_spline(d, places)
    _check_basis(basis, treatment)

    balance: tuple[BalanceRow, ...] = ()
    warnings: list[str] = list(notes)
    weights = np.ones(len(d))
    regress: Callable[[Floats], tuple[Floats, Floats]] = partial(regression_influence, y, weights=weights)
    balanced = [np.ones((len(d), 1)), (basis - basis.mean(axis=0)) / basis.std(axis=0)]
    if names:
        covariates = design_matrix({name: table.values(name, role="confounder") for name in names})
        if used != "naive":
            scaled = standardised(covariates.matrix, covariates.names)
            theta, psi, weigh = dose_weights(d, scaled, method=used, basis=basis)
            weights = np.asarray(weigh(theta).real, dtype=float)
            balanced.append(scaled)
            if used == "entropy":
                balanced.extend(scaled * column[:, None] for column in balanced[1].T)
                regress = partial(entropy_influence, y, weights=weights, basis=basis, scaled=scaled)
            else:
                warnings.extend(heavy_tails(d, scaled))
                regress = partial(
                    regression_influence,
                    y,
                    weights=weights,
                    weight_function=weigh,
                    theta=theta,
                    nuisance=nuisance_influence(psi, theta),
                )
        before, after = (dose_correlations(d, covariates.matrix, w) for w in (np.ones(len(d)), weights))
        balance = tuple(
            BalanceRow(covariate=name, correlation_before=b, correlation_after=a)
            for name, b, a in zip(covariates.names, before, after, strict=True)
        )
    regressors = np.column_stack(balanced)
    spare = _spare(regressors, weights) if std_error == "hc3" else np.ones(len(d))
    df = _degrees(len(d), regressors.shape[1], codes, std_error)
    warnings.extend(() if codes is None else few_clusters(len(np.unique(codes))))
    coef, influence = regress(with_intercept(basis))
    _check_fit(y, with_intercept(basis) @ coef, outcome, treatment)
    influence /= spare[:, None]
    covariance = influence_covariance(influence, codes)
    line, line_influence = regress(with_intercept(d[:, None]))
    line_influence /= spare[:, None]
    slope_error = float(np.sqrt(influence_covariance(line_influence, codes)[1, 1]))
    slope = stated("slope", float(line[1]), slope_error, df, level=level, n_used=len(d))
    curve, effects = _points(coef, covariance, doses, start, places, level, df, random_state)
    ess = effective_sample_size(weights)
    if not names and design != "randomized":
        warnings.append("nothing was adjusted for")
    flat, nonlinear = (_wald(coef, covariance, slice(first, None), df) for first in (1, 2))
    adjusted = () if used == "naive" else names
    left = {row.covariate: row.correlation_after or 0.0 for row in balance}
    assumptions = (
        *describe_assumptions(
            design=design,
            confounders=adjusted,
            from_graph=graph is not None,
            cautions=cautions,
            clustered=named is not None,
            overlap=Assumption(
                name="overlap",
                status="doubtful" if ess < _LOW_ESS * len(d) else "holds",
                check="effective sample size under the weights",
                detail=f"the weighted rows are worth {ess:.0f} of {len(d)}",
            )
            if adjusted
            else None,
        ),
        *([judge_balance(left, "weighted correlation of the dose with each covariate")] if left else []),
    )
    result = DoseResponse(
        treatment=treatment,
        outcome=outcome,
        method=used,
        overall=slope,
        parts=effects,
        curve=curve,
        reference=start,
        flat_p=flat,
        nonlinear_p=nonlinear,
        knots=tuple(float(k) for k in places),
        level=level,
        ess=ess,
        balance=balance,
        assumptions=assumptions,
        warnings=tuple(warnings),
        sentence="",
        std_error_method=("robust" if used == "naive" else "stacked estimating equations, weights estimated")
        + (", HC3" if std_error == "hc3" else "")
        + (", cluster-robust" if named is not None else ""),
        confounders=adjusted,
        weights=weights,
    )
    repeats = f" Rows repeat {named!r}, which the intervals allow for." if notes else ""
    return replace(result, sentence=_sentence(result, design) + repeats)


def _method(method: str | None, design: str, chosen: Sequence[str] | None) -> str:
    """Settle the method: nothing need be said about covariates where doses were drawn by lot."""
    if chosen:
        return method or "entropy"
    if chosen is None and method != "naive" and (method is not None or design != "randomized"):
        raise EstimationError(
            f"method {method or 'entropy'!r} needs to know what to adjust for",
            hint="give confounders=[...] or a graph, or method='naive' for the plain curve",
        )
    return "naive"


def _check_options(method: str | None, design: str, std_error: str, level: float) -> None:
    if method not in {None, "entropy", "gps", "naive"}:
        raise EstimationError(f"method {method!r} is not known", hint="one of: entropy, gps, naive")
    if design not in {"observational", "randomized"}:
        raise EstimationError(f"design {design!r} is not known", hint="observational or randomized")
    if std_error not in {"hc3", "hc0"}:
        raise EstimationError(f"standard error {std_error!r} is not known", hint="one of: hc3, hc0")
    confidence(level)


def _spare(matrix: Floats, weights: Floats) -> Floats:
    """One minus each row's leverage in the weighted regression on the columns."""
    root = np.sqrt(weights)
    q, _ = np.linalg.qr(matrix * root[:, None])
    # A row that alone decides a coefficient has no residual to judge it by.
    return np.asarray(np.clip(1.0 - (q**2).sum(axis=1), 1e-3, None), dtype=np.float64)


def _read(table: Table, treatment: str, outcome: str) -> tuple[Floats, Floats]:
    table.require([treatment], role="treatment")
    d = table.numbers(treatment, role="treatment")
    y = table.numbers(outcome, role="outcome")
    if treatment == outcome:
        raise EstimationError(f"{treatment!r} is both the treatment and the outcome")
    values = np.unique(d)
    if len(values) == 1:
        raise EstimationError(
            f"the dose {treatment!r} is constant: every row is {values[0]:g}", hint="run other doses"
        )
    if len(values) < _FEW_VALUES:
        raise DataError(
            f"the dose {treatment!r} takes {len(values)} values: no curve can be drawn through them",
            hint="use compare_arms (or estimate_effect for two)",
        )
    if np.ptp(y) <= 1e-12 * float(np.abs(y).max()):
        raise EstimationError(
            f"outcome {outcome!r} is constant: its spread is zero in this sample, no interval can be given"
        )
    return d, y


def _degrees(n: int, regressors: int, codes: NDArray[np.intp] | None, std_error: str) -> float | None:
    """Degrees of freedom of the intervals; None for the normal distribution."""
    if codes is not None:
        return float(codes.max())
    if std_error == "hc0":
        return None
    if n <= regressors:
        raise EstimationError(
            f"{n} rows are too few for {regressors} things to be estimated or balanced",
            hint="ask for fewer knots or confounders",
        )
    return float(n - regressors)


def _check_fit(y: Floats, fitted: Floats, outcome: str, treatment: str) -> None:
    if float(np.abs(y - fitted).max()) <= 1e-10 * float(np.ptp(y)):
        raise EstimationError(
            f"{outcome!r} follows from {treatment!r} without error in these rows: no interval can be given",
            hint="if it is computed from the dose, read the response off its formula",
        )


def _check_basis(basis: Floats, name: str) -> None:
    """Refuse knots between which the doses lie so that the spline's functions cannot be told apart."""
    spread = basis.std(axis=0)
    if (spread > 1e-12 * np.abs(basis).max(axis=0)).all():
        scaled = (basis - basis.mean(axis=0)) / spread
        values = np.linalg.svd(scaled, compute_uv=False)
        if values[-1] > 1e-7 * values[0]:
            return
    raise EstimationError(
        f"the doses of {name!r} do not tell the parts of the spline apart (an extreme dose, or too few doses"
        " between knots)",
        hint="ask for fewer knots, give their places, or take the logarithm of the dose",
    )


def _knots(d: Floats, knots: int | Sequence[float], name: str) -> Floats:
    if isinstance(knots, int):
        if isinstance(knots, bool) or not 2 <= knots <= 10:
            raise EstimationError(f"{knots} knots were asked for; give 2 (a straight line) to 10")
        places = np.quantile(d, np.linspace(0.0, 1.0, knots))
    else:
        places = np.asarray(knots, dtype=float)
        if places.ndim != 1 or len(places) < 2:
            raise EstimationError("at least two knots are needed")
        if not np.isfinite(places).all():
            raise EstimationError(f"the knots of {name!r} are not all finite numbers")
    if not (np.diff(places) > 0).all():
        raise EstimationError(
            f"the knots of {name!r} are not in increasing order: {', '.join(f'{k:g}' for k in places)}",
            hint="ask for fewer knots, or give their places",
        )
    return np.asarray(places, dtype=np.float64)


def _grid(d: Floats, grid: Sequence[float] | None, name: str) -> Floats:
    if grid is None:
        low, high = np.quantile(d, [0.05, 0.95])
        if not low < high:
            low, high = float(d.min()), float(d.max())
        return np.linspace(low, high, 21)
    doses = np.asarray(grid, dtype=float)
    if doses.ndim != 1 or len(doses) == 0 or not np.isfinite(doses).all():
        raise EstimationError("the grid must be a list of finite doses")
    _inside(doses, d, name, "grid")
    return np.sort(doses)


def _inside(doses: Floats, d: Floats, name: str, what: str) -> None:
    out = doses[~((doses >= d.min()) & (doses <= d.max()))]
    if len(out):
        raise EstimationError(
            f"the {what} asks for {name!r} at {out[0]:g}, outside the doses seen"
            f" ({d.min():g} to {d.max():g})",
            hint="no data speak for a dose that was not run",
        )


def _points(
    coef: Floats,
    covariance: Floats,
    doses: Floats,
    reference: float,
    knots: Floats,
    level: float,
    df: float | None,
    random_state: int,
) -> tuple[tuple[Estimate, ...], tuple[Estimate, ...]]:
    """Give the mean at each dose, and its difference from that at the reference dose."""
    at = with_intercept(natural_spline(doses, knots))
    origin = with_intercept(natural_spline([reference], knots))
    made = []
    for rows in (at, at - origin):
        value, joint = rows @ coef, rows @ covariance @ rows.T
        error = np.sqrt(np.clip(np.diag(joint), 0.0, None))
        live = error > 1e-12 * max(float(error.max()), 1e-300)
        critical = 0.0
        if live.any():
            r = correlation(joint[np.ix_(live, live)])
            t = np.zeros(int(live.sum()))
            critical = max_t(t, r, level=level, df=df, random_state=random_state)[1]
        made.append(
            tuple(
                stated(
                    *(format_number(dose), v, e, df),
                    at=dose,
                    level=level,
                    p_value=None,
                    simultaneous_low=v - critical * e,
                    simultaneous_high=v + critical * e,
                )
                for dose, v, e in zip(doses.tolist(), value.tolist(), error.tolist(), strict=True)
            )
        )
    return made[0], made[1]


def _wald(coef: Floats, covariance: Floats, which: slice, df: float | None) -> float | None:
    from scipy import stats

    value, matrix = coef[which], covariance[which, which]
    count = len(value)
    # With as many coefficients as degrees of freedom the covariance has no full rank.
    if count == 0 or (df is not None and df < count):
        return None
    spread = np.sqrt(np.diag(matrix))
    if not (spread > 0).all():
        return None
    joint = matrix / np.outer(spread, spread)
    if np.linalg.eigvalsh(joint)[0] < 1e-10:
        return None
    statistic = max(float(value / spread @ np.linalg.solve(joint, value / spread)), 0.0)
    if df is None:
        return float(stats.chi2.sf(statistic, count))
    return float(stats.f.sf(statistic / count, count, df))


def _sentence(made: DoseResponse, design: str) -> str:
    slope, last = made.overall, made.parts[-1]
    spans = [f"{format_number(row.ci_low)} to {format_number(row.ci_high)}" for row in (slope, last)]
    text = (
        f"For one unit more of {made.treatment!r}, {made.outcome!r} changes by"
        f" {format_number(slope.estimate)} on average ({percent(made.level)} interval {spans[0]}); at"
        f" {format_number(last.at)} instead of {format_number(made.reference)} by"
        f" {format_number(last.estimate)} ({spans[1]})."
    )
    if made.nonlinear_p is not None and made.nonlinear_p < 1 - made.level:
        text += f" The response is not a straight line (p {p_words(made.nonlinear_p)}): read the curve."
    no = not_claimed(made.assumptions, "The change may therefore not be claimed as an effect of the dose.")
    if no:
        return text + no
    if design == "randomized":
        return f"{text} The dose was randomised, so this is its effect."
    if not made.confounders:
        return f"{text} This is a comparison and not an effect: nothing was adjusted for."
    named = ", ".join(made.confounders)
    return f"{text} It is an effect if nothing but {named} affects both dose and outcome."
