"""Statistical mediation of a measured mediator: Imai, Keele and Tingley (2010).

Needs sequential ignorability, which no data can show; `mediation_sensitivity` says how strong a violation
would undo the finding. For heads of a model, `head_sweep` needs no such assumption.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np

from whyprompt._words import percent
from whyprompt.errors import DataError
from whyprompt.mediation.measured.counterfactual import bootstrap_effects, effects_of, widened
from whyprompt.mediation.measured.design import check_draws, read_design
from whyprompt.mediation.measured.overlap import overlap_warnings
from whyprompt.results import Estimate, Result, unlisted
from whyprompt.stats.regression import Family, Regression

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from narwhals.typing import IntoDataFrame
    from numpy.typing import NDArray

    from whyprompt.mediation.measured.design import Design

    Array = NDArray[np.float64]

_FEW = 10
_MANY = 200
_UNEVEN = 2.0


@dataclass(frozen=True, kw_only=True, eq=False)
class MediationResult(Result):
    """Average causal mediation and direct effects.

    `overall` is the total effect; `parts` are acme_control, acme_treated, ade_control, ade_treated, their
    averages acme and ade, interaction (``acme_treated - acme_control``, where the models let the two
    differ), and proportion_control, proportion_treated, proportion (mediated). Intervals are percentiles of
    the draws, and p the share of draws on either side of zero, the sample itself counted as one of them: at
    its least, ``2 / (draws + 1)``, it is a bound, and more draws could show a smaller one.

    Attributes
    ----------
    treatment, mediator, outcome, method : str
    control, treated : float or str
    draws : mapping of str to ndarray, shape (draws,)
        Draws of every effect, "total_effect" among them.
    mediator_fit, outcome_fit : Regression
    """

    treatment: str
    mediator: str
    outcome: str
    method: str
    control: float | str
    treated: float | str
    draws: Mapping[str, Array] = unlisted()
    mediator_fit: Regression = unlisted()
    outcome_fit: Regression = unlisted()


def mediate(
    frame: IntoDataFrame,
    *,
    treatment: str,
    mediator: str,
    outcome: str,
    confounders: Sequence[str] = (),
    moderators: Sequence[str] = (),
    at: Mapping[str, float | str] | None = None,
    mediator_model: Family = "linear",
    outcome_model: Family = "linear",
    interaction: bool = False,
    control: float | str = 0,
    treated: float | str = 1,
    method: Literal["quasi_bayes", "bootstrap"] = "quasi_bayes",
    draws: int = 1000,
    robust: bool = False,
    cluster: str | None = None,
    level: float = 0.95,
    random_state: int = 0,
) -> MediationResult:
    """Average causal mediation effect (ACME) and average direct effect (ADE) under both arms.

    How much of a treatment's effect on an outcome goes through a measured mediator? With the
    outcome ``Y(t, m)`` and the mediator ``M(t)``,

    ``ACME(t) = E[Y(t, M(1)) - Y(t, M(0))]`` and ``ADE(t) = E[Y(1, M(t)) - Y(0, M(t))]``,

    and the total effect is ``ACME(1) + ADE(0) = ACME(0) + ADE(1)``. One model is fitted for the
    mediator given treatment and confounders, one for the outcome given treatment, mediator and
    confounders; the counterfactual means are those of the two models, averaged over the rows.

    Parameters
    ----------
    frame : data frame
        Any that narwhals reads.
    treatment, mediator, outcome : str
        Columns. A treatment of text is categorical.
    confounders : sequence of str
        Pre-treatment columns that enter both models; text is categorical.
    moderators : sequence of str
        Numeric confounders that interact with treatment and mediator.
    at : mapping of str to value, optional
        Confounders held at a value, for moderated mediation.
    mediator_model, outcome_model : {"linear", "logit", "probit"}
    interaction : bool, default False
        Whether treatment and mediator interact in the outcome model.
    control, treated : float or str
        The two treatments compared.
    method : {"quasi_bayes", "bootstrap"}
        Draws of the coefficients from their normal approximation, or of the rows, with both
        models refitted on the same rows.
    draws : int, default 1000
    robust : bool, default False
        HC3 covariance (quasi_bayes, without clusters).
    cluster : str, optional
        Column of sampling units, for cluster-robust covariance or a bootstrap of clusters.
    level : float, default 0.95
    random_state : int

    Returns
    -------
    MediationResult

    Raises
    ------
    DataError
        If a column is missing, holds missing values, is of the wrong kind or has two roles, the two
        treatments are one, or `robust` would do nothing.
    EstimationError
        If a model cannot be fitted.

    See Also
    --------
    mediation_sensitivity : What a cause of mediator and outcome would do to the effect.
    contrast_mediations : Moderated mediation, two strata on common draws.
    compare_mediation : All heads of a model, beside intervening on them.
    baron_kenny : The historical view.

    Notes
    -----
    *What is assumed.* Sequential ignorability (Imai, Keele and Yamamoto 2010, assumption 1): given
    the confounders, the treatment is as good as randomised, and given treatment and confounders, so
    is the mediator. Randomising the treatment secures the first half only, and no data can show
    the second.

    *How the means are had.* Nothing is simulated that has a closed form. For two linear models the
    means are products of moments and coefficients. A normal mediator inside a probit integrates to
    a probit, and a binary mediator is summed over its two values with its probability, never its
    log-odds. Only a linear mediator inside a logit needs its error's distribution: all normal
    quantiles, shuffled over the rows and shifted anew in every draw. Rows times draws are never held.

    *What can be seen of it* is whether each arm takes the mediator's values of the other. Where a mediator
    is constant in an arm (attention to a text that only one prompt has), or most values of one arm lie
    outside the range of the other, ``E[Y(t, M(1 - t))]`` is read off the fitted line where there are no
    data; `warnings` and the sentence say so. A mediator of which treatment and confounders leave nothing is
    refused.

    *Intervals* are percentiles of the draws. ``quasi_bayes`` draws the coefficients of both models
    (algorithm 1) from Student's t where their covariance is estimated with few degrees of freedom: rows
    less coefficients of a linear model, G - 1 with G clusters, whose covariance is the jackknife's.
    Normal draws, as R's package has them, are too narrow there; a binary model without clusters has them.
    ``bootstrap`` draws rows, or whole clusters, and refits both models on the same rows (algorithm 2
    without its simulation step), which keeps the dependence between their errors; the draws' distance from
    the estimate is then widened as Student's t is. The standard error is the spread of the draws.

    Fewer than 6 clusters, or than 5 rows beyond the coefficients, are refused.
    ``benchmarks/coverage_mediate.py --reps 400`` measures what 95% intervals cover of skewed mediators and
    outcomes (Monte Carlo error 1.1 points): 93 to 99% with 8 to 60 rows, the highest with the fewest; 94 to
    98% with 6 to 24 clusters that have both prompts or one; 89 to 97% where the second prompt is in 2
    clusters of 8 or 3 of 12. Where the errors vary three times as much under one prompt it is 87 to 97% with
    10 to 30 rows, and 91 to 99% with ``robust=True``. `warnings` name what is seen of this.

    The estimate is the mean of the draws for ``quasi_bayes``, as in R's mediation package, and the effect
    at the fitted coefficients for ``bootstrap``. A proportion mediated is a ratio whose
    denominator may cross zero; ``quasi_bayes`` reports its median.

    *P-values* count the sample itself as one draw, so that none is zero. R's package does not: it reports
    0 where no draw lies on the other side, and otherwise the same within 2 / draws.

    *Binary models* are fitted to the maximum of the likelihood. R's ``glm`` stops when the
    deviance settles, which can leave its coefficients some 1e-6 short of it.

    References
    ----------
    Imai, Keele and Tingley (2010). A general approach to causal mediation analysis.
    Psychological Methods 15(4), algorithms 1 and 2.
    Imai, Keele and Yamamoto (2010). Identification, inference and sensitivity analysis for
    causal mediation effects. Statistical Science 25(1).
    Tingley, Yamamoto, Hirose, Keele and Imai (2014). mediation: R package for causal mediation
    analysis. Journal of Statistical Software 59(5).

    Examples
    --------
    >>> import pandas as pd
    >>> t = np.tile([0.0, 1.0], 100)
    >>> m = 2 * t + np.sin(np.arange(200))
    >>> y = 3 * m + t + np.cos(np.arange(200))
    >>> frame = pd.DataFrame({"t": t, "m": m, "y": y})
    >>> result = mediate(frame, treatment="t", mediator="m", outcome="y")
    >>> round(result.part("acme").estimate)
    6
    """
    if method not in {"quasi_bayes", "bootstrap"}:
        raise DataError(f"unknown method {method!r}", hint="quasi_bayes or bootstrap")
    check_draws(draws, level)
    if robust and (method == "bootstrap" or cluster is not None):
        raise DataError(
            "robust=True does nothing here",
            hint="HC3 is for quasi_bayes without clusters; a bootstrap and clusters are robust by themselves",
        )
    for name, family in (("mediator_model", mediator_model), ("outcome_model", outcome_model)):
        if family not in get_args(Family):
            raise DataError(f"unknown {name} {family!r}", hint="linear, logit or probit")
    design = read_design(
        frame,
        treatment,
        mediator,
        outcome,
        confounders,
        moderators=moderators,
        interaction=interaction,
        families=(mediator_model, outcome_model),
        arms=(control, treated),
        at=at,
        cluster=cluster,
    )
    fit_m, fit_y = design.fits(robust=robust)
    rng = np.random.default_rng(random_state)
    point = effects_of(design, fit_m.coef[None], fit_y.coef[None], np.array([fit_m.sigma]), rng)
    if method == "quasi_bayes":
        alpha = fit_m.draw(draws, rng, what="mediator")
        beta = fit_y.draw(draws, rng, what="outcome")
        drawn = effects_of(design, alpha, beta, np.full(draws, fit_m.sigma), rng)
        centre = {k: float(v.mean()) for k, v in drawn.items()}
    else:
        drawn = bootstrap_effects(design, fit_m, fit_y, draws, rng)
        centre = {k: float(v[0]) for k, v in point.items()}
        wide = widened(
            np.stack(list(drawn.values()), 1), np.array([centre[k] for k in drawn]), design.units, rng
        )
        drawn = dict(zip(drawn, wide.T, strict=True))
    if outcome_model == "linear" and not interaction:
        # Both arms have one mediated effect by construction: their difference is rounding.
        del drawn["interaction"]
    alike = method == "quasi_bayes" and not robust and cluster is None
    warnings = (*_overlap(design, fit_m), *_few(design), *_uneven(design, fit_m, fit_y, alike=alike))
    estimates = _estimates(drawn, centre, level, by_draws=method == "quasi_bayes", n=len(design.y))
    return MediationResult(
        overall=estimates["total_effect"],
        parts=tuple(e for name, e in estimates.items() if name != "total_effect"),
        level=level,
        warnings=warnings,
        sentence=_sentence(estimates, (treatment, mediator, outcome), level, warnings, draws),
        axis=f"effect on {outcome}",
        treatment=treatment,
        mediator=mediator,
        outcome=outcome,
        method=method,
        control=design.arms[0],
        treated=design.arms[1],
        draws=drawn,
        mediator_fit=fit_m,
        outcome_fit=fit_y,
    )


def _few(design: Design) -> tuple[str, ...]:
    """Warn where there are few units, or few under one of the arms."""
    of = "rows" if design.groups is None else "clusters"
    units = np.arange(len(design.y)) if design.groups is None else design.groups
    if design.units < _FEW:
        return (f"With {design.units} {of} the intervals are rough.",)
    for rows, label in zip(design.rows, design.labels, strict=True):
        if 0 < (here := len(np.unique(units[rows]))) < _FEW // 2:
            return (f"With {here} {of} under {label} the intervals are rough.",)
    return ()


def _uneven(design: Design, fit_m: Regression, fit_y: Regression, *, alike: bool) -> tuple[str, ...]:
    """Warn where a linear model's errors vary much more under one arm.

    Where the covariance takes them to vary `alike`, the intervals are wrong for any number of rows; else
    they are short of what they should hold where the units are not many.
    """
    units, labels = design.units, design.labels
    if (units >= _MANY and not alike) or min(int(rows.sum()) for rows in design.rows) < 2:
        return ()
    models = {
        design.mediator: (fit_m, design.m - design.x_mediator @ fit_m.coef),
        design.outcome: (fit_y, design.y - design.x_outcome @ fit_y.coef),
    }
    found = []
    for name, (fitted, residual) in models.items():
        spread = [float(residual[rows].std(ddof=1)) for rows in design.rows]
        # An arm without any spread is a matter of overlap.
        if (
            fitted.family != "linear"
            or min(spread) <= 1e-9 * max(spread)
            or max(spread) < _UNEVEN * min(spread)
        ):
            continue
        more = int(np.argmax(spread))
        found.append(
            f"the errors of {name} vary {max(spread) / min(spread):.2g} times as much under "
            f"{labels[more]} as under {labels[1 - more]}"
        )
    if not found:
        return ()
    text = " and ".join(found)
    of = "rows" if design.groups is None else "clusters"
    so = "the intervals take them to vary alike, which robust=True does not" if alike else ""
    few = f"with {units} {of} the intervals may be too narrow" if units < _MANY else ""
    return (f"{text[0].upper()}{text[1:]}: {'; '.join(part for part in (so, few) if part)}.",)


def _overlap(design: Design, fit_m: Regression) -> tuple[str, ...]:
    """Warn where the mediator of one arm is not that of the other, for arms that rows were given."""
    if min(int(rows.sum()) for rows in design.rows) < 2:
        return ()
    adjusted = design.m
    if fit_m.family == "linear" and design.confounders.size:
        # Without what the confounders move: the arm's mean and the row's own residual.
        adjusted = design.m - design.x_mediator @ fit_m.coef
        for rows, value in zip(design.rows, design.arms, strict=True):
            adjusted[rows] += (design.mediator_matrix(design.treat(value)) @ fit_m.coef).mean()
    raw, out = ((v[design.rows[0]], v[design.rows[1]]) for v in (design.m, adjusted))
    return overlap_warnings(raw, out, design.labels, design.mediator)


def contrast_mediations(result: MediationResult, other: MediationResult, *, level: float = 0.95) -> Result:
    """Difference of two mediations, effect by effect, ``result - other``.

    Made of the same draws where both were run with the same `random_state` on the same rows (a
    moderator at two values), so that what they share cancels.

    Parameters
    ----------
    result, other : MediationResult
    level : float, default 0.95

    Returns
    -------
    Result
        `overall` and `parts` as in `MediationResult`.

    Raises
    ------
    DataError
        If the two have different numbers of draws, or different models.

    Examples
    --------
    >>> contrast_mediations(at_20, at_60).part("acme")  # doctest: +SKIP
    """
    mine, theirs = (len(r.draws["acme"]) for r in (result, other))
    if mine != theirs:
        raise DataError(f"the results have {mine} and {theirs} draws")
    if apart := sorted(result.draws.keys() ^ other.draws.keys()):
        raise DataError(
            f"only one of the results has {' and '.join(apart)}", hint="use the same models in both"
        )

    def difference(name: str) -> Estimate:
        one, two = (cast("float", r.part(name).estimate) for r in (result, other))
        return estimate_of_draws(name, result.draws[name] - other.draws[name], one - two, level)

    acme = difference("acme")
    return Result(
        overall=difference("total_effect"),
        parts=tuple(difference(name) for name in result.draws if name != "total_effect"),
        level=level,
        sentence=(
            f"Between the two mediations, what goes through {result.mediator} differs by {acme.estimate:.3g} "
            f"({percent(level)} interval {acme.ci_low:.3g} to {acme.ci_high:.3g})."
        ),
        axis=f"difference of effects on {result.outcome}",
    )


def estimate_of_draws(
    label: str, draws: Array, centre: float, level: float, n: int | None = None
) -> Estimate:
    """Make an estimate of draws: percentiles, and p with the sample itself counted as one draw."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    tail = 1 + min(int((draws >= 0).sum()), int((draws <= 0).sum()))
    return Estimate(
        label=label,
        estimate=centre,
        std_error=float(draws.std(ddof=1)),
        ci_low=float(low),
        ci_high=float(high),
        p_value=min(1.0, 2 * tail / (1 + len(draws))),
        n_used=n,
    )


def _estimates(
    draws: dict[str, Array], centre: dict[str, float], level: float, *, by_draws: bool, n: int
) -> dict[str, Estimate]:
    """Estimate of every effect, with the proportions, whose draws are added to those of the effects."""
    for name, part in (("control", "acme_control"), ("treated", "acme_treated"), ("", "acme")):
        key = f"proportion_{name}".rstrip("_")
        draws[key] = draws[part] / draws["total_effect"]
        # A ratio has no mean to speak of; its median is what the draws settle.
        centre[key] = float(np.median(draws[key])) if by_draws else centre[part] / centre["total_effect"]
    return {k: estimate_of_draws(k, v, centre[k], level, n) for k, v in draws.items()}


def _sentence(
    effects: Mapping[str, Estimate],
    columns: tuple[str, str, str],
    level: float,
    warnings: tuple[str, ...],
    draws: int,
) -> str:
    acme, ade, total = effects["acme"], effects["ade"], effects["total_effect"]
    treatment, mediator, outcome = columns
    sentence = (
        f"Of the total effect {total.estimate:.3g} of {treatment} on {outcome}, "
        f"{acme.estimate:.3g} ({percent(level)} interval {acme.ci_low:.3g} to {acme.ci_high:.3g}) goes "
        f"through {mediator} and {ade.estimate:.3g} ({ade.ci_low:.3g} to {ade.ci_high:.3g}) "
        "does not. "
        "This holds only under sequential ignorability: nothing unmeasured may cause both mediator "
        "and outcome."
    )
    sentence = " ".join([sentence, *warnings])
    least = 2 / (1 + draws)
    if min(cast("float", e.p_value) for e in effects.values()) <= least:
        sentence += f" With {draws} draws no p-value can be below {least:.2g}."
    return sentence
