"""What the ways of weighting share: trimming, the error of weighted means, and what a reader must know.

Standard errors are those of the stacked estimating equations, so they account for the propensity score (or
the balancing weights) having been estimated.

Weights for treated and control rows with score ``e``: ATE ``1/e, 1/(1-e)``; ATT ``1, e/(1-e)``; ATC
``(1-e)/e, 1``; ATO ``1-e, e``. Entropy weights average one over each reweighted arm.

The interval takes the t distribution with degrees of freedom that follow from the weights; with a few dozen
rows the normal one is too short. For ``aipw`` it is normal: its residuals are large enough.

References
----------
Lunceford and Davidian (2004). Stratification and weighting via the propensity score. Statistics in
Medicine 23, section 3.
Bell and McCaffrey (2002). Bias reduction in standard errors for linear regression with multi-stage samples.
Survey Methodology 28.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from whyprompt.effects.assumptions import FEW_ROWS
from whyprompt.effects.methods.method import Fit, Method
from whyprompt.errors import EstimationError
from whyprompt.stats.clusters import clustered_means, rows_df
from whyprompt.stats.errors import interval
from whyprompt.stats.influence import (
    cluster_codes,
    effective_sample_size,
    regression_influence,
    standard_error,
    with_intercept,
)
from whyprompt.stats.propensity import crossfit_propensity, fit_logistic
from whyprompt.stats.rules import few_clusters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.problem import Problem

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


# Below this share of an arm's rows the weights rest on a handful of them.
_LOW_ESS = 0.2


class Weighting(Method):
    """Base of the methods that weight rows by a score or by moments."""

    # Whether rows are dealt to folds.
    dealt: ClassVar[bool] = False
    # Field of the methods.
    discard: float | str

    def __post_init__(self) -> None:
        if self.discard in ("none", "crump"):
            return
        if isinstance(self.discard, str):
            if self.discard in {"treated", "control", "both"}:
                raise EstimationError(
                    f"discard={self.discard!r} is for matching methods",
                    hint="for weights discard='crump' trims to the scores where the arms overlap",
                )
            raise EstimationError(
                f"discard rule {self.discard!r} is not known", hint="none, crump or a number such as 0.1"
            )
        if not 0 <= self.discard < 0.5:
            raise EstimationError(f"discard={self.discard}: expected 'crump' or a number from 0 to below 0.5")

    def weigh(self, problem: Problem, plan: Plan) -> Fit:
        """Weight the rows that are not trimmed, without an error yet.

        The problem's known score is the one given, or cross-fitted.
        """
        raise NotImplementedError

    def fit(self, problem: Problem, plan: Plan, *, with_error: bool = True) -> Fit:  # noqa: ARG002, D102
        if plan.std_error not in {"auto", "bootstrap"}:
            raise EstimationError(
                f"standard error {plan.std_error!r} is for matching; weighting has that of its estimating"
                " equations",
                hint="leave std_error='auto'",
            )
        rank = None
        crossfitted = problem.known_score is None and plan.score_model is not None
        if crossfitted or self.dealt:
            rank = problem.places
            problem = replace(problem, rank=rank)
        if crossfitted:
            score = crossfit_propensity(
                problem.design.matrix,
                problem.treated,
                plan.score_model,
                random_state=plan.random_state,
                rank=rank,
            )
            problem = replace(problem, known_score=score)
        # Refuses clusters without labels, or all in one.
        cluster_codes(problem.cluster, len(problem.y))
        kept, alpha = self._kept(problem)
        part = problem if kept.all() else problem.take(np.flatnonzero(kept))
        made = self.weigh(part, plan)
        return self._result(problem, plan, part, made, kept, alpha, rank)

    def _kept(self, problem: Problem) -> tuple[Bools, float]:
        """Return the rows whose score is not trimmed, and where the limit lies."""
        treated = problem.treated
        if self.discard == "none":
            return np.ones(len(treated), dtype=bool), 0.0
        score = problem.known_score
        if score is None:
            score = fit_logistic(problem.design.matrix, treated, names=problem.design.names).fitted
        alpha = crump_threshold(score) if self.discard == "crump" else float(self.discard)
        kept = (score >= alpha) & (score <= 1 - alpha)
        if not (treated[kept].any() and (~treated[kept]).any()):
            raise EstimationError(
                f"trimming to scores in [{alpha:.3g}, {1 - alpha:.3g}] leaves an arm empty",
                hint="the arms do not overlap; run both arms on the same items, or randomise",
            )
        return kept, alpha

    def error(self, problem: Problem, made: Fit) -> tuple[float, float | None, tuple[str, ...]]:
        """Return the standard error, its degrees of freedom (None: normal) and remarks."""
        assert made.influence is not None
        arms = np.column_stack([problem.treated, ~problem.treated])
        codes = cluster_codes(problem.cluster, len(problem.y))
        if codes is None:
            df = float(rows_df(arms, made.weights)[0, 1])
            return standard_error(made.influence[:, 0] - made.influence[:, 1], None), df, ()
        contrast = np.array([1.0, -1.0])
        _, sums, free = clustered_means(problem.y, arms, made.weights, codes, influence=made.influence)
        df, sums = free(contrast), sums @ contrast
        return float(np.sqrt(sums @ sums)), df, few_clusters(int(codes.max()) + 1, df)

    def _result(
        self,
        problem: Problem,
        plan: Plan,
        part: Problem,
        made: Fit,
        kept: Bools,
        alpha: float,
        rank: Ints | None,
    ) -> Fit:
        """Give what was weighed its error, and spread it over all rows."""
        n, treated = len(kept), problem.treated
        weights, influence = np.zeros(n), np.zeros((n, 2))
        weights[kept], influence[kept] = made.weights, made.influence
        error, df, remarks = self.error(part, made)
        used = [kept & treated, kept & ~treated]
        ess = [effective_sample_size(weights[arm]) for arm in used]
        warnings = [
            f"the weights of the {arm} rows are worth {size:.0f} of {rows.sum()}: the estimate rests on few"
            " rows"
            for arm, size, rows in zip(("treated", "control"), ess, used, strict=True)
            if size < min(_LOW_ESS * rows.sum(), FEW_ROWS if plan.estimand == "ato" else np.inf)
        ]
        warnings += [*made.warnings, *remarks]
        if not kept.all():
            warnings.append(
                f"{(~kept).sum()} of {n} rows have a propensity score outside "
                f"[{alpha:.3g}, {1 - alpha:.3g}] and were left out; the effect speaks for the others"
            )
        return replace(
            made,
            weights=weights,
            discarded=~kept,
            std_error=error,
            ci=interval(made.estimate, error, level=plan.level, df=df),
            df=df,
            std_error_method="stacked estimating equations, score estimated"
            + (", cluster-robust" if problem.cluster is not None else ""),
            influence=influence,
            propensity=made.propensity if kept.all() else None,
            rank=rank,
            warnings=tuple(warnings),
        )


def weighed(
    weights: Floats,
    means: Floats,
    influence: Floats,
    propensity: Floats | None = None,
    warnings: tuple[str, ...] = (),
) -> Fit:
    """Give the two means under weights as a fit without an error yet; `influence` is divided by n."""
    return Fit(
        means=(float(means[0]), float(means[1])),
        weights=weights,
        discarded=np.zeros(len(weights), dtype=bool),
        influence=influence,
        propensity=propensity,
        warnings=warnings,
    )


def crump_threshold(propensity: ArrayLike) -> float:
    """Find the optimal trimming threshold of Crump, Hotz, Imbens and Mitnik.

    Of scores strictly between 0 and 1 those in ``[alpha, 1 - alpha]`` minimise the variance bound of the
    average effect among the rows kept (under homoskedastic outcomes). 0 where no trimming lowers it.

    The condition ``g = 2 mean(g | g <= gamma)``, with ``g = 1 / (e (1 - e))`` and ``gamma = 1 / (alpha (1 -
    alpha))``, may hold at several points; the one with the least variance is taken.

    Reference: Crump, Hotz, Imbens and Mitnik (2009). Dealing with limited overlap in estimation of average
    treatment effects. Biometrika 96, theorem 1 and corollary 1.

    >>> round(crump_threshold([0.5] * 10 + [0.001]), 2)
    0.15
    """
    score = np.asarray(propensity, dtype=float)
    if not ((score > 0) & (score < 1)).all():
        raise EstimationError("a propensity score is not strictly between 0 and 1")
    g = np.sort(1.0 / (score * (1.0 - score)))
    count = np.arange(1, len(g) + 1)
    bound = np.cumsum(g) / count**2
    # Rows with equal scores stay or go together.
    last_of_ties = np.append(g[1:] > g[:-1], [True])
    best = int(np.argmin(np.where(last_of_ties, bound, np.inf)))
    if best == len(g) - 1:
        return 0.0
    gamma = float(np.clip(2.0 * g[: best + 1].mean(), g[best], g[best + 1]))
    return float(0.5 - np.sqrt(max(0.0, 0.25 - 1.0 / gamma)))


def truncate_weights(weights: ArrayLike, quantile: float) -> Floats:
    """Lower the largest weights to a quantile between 0.5 and 1, such as 0.99.

    The quantile is an observed weight (R's ``type = 3``, as in ``WeightIt::trim``).

    >>> truncate_weights([1.0, 1.0, 1.0, 9.0], 0.75).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    check_truncate(quantile)
    values = np.asarray(weights, dtype=float)
    return np.asarray(np.minimum(values, np.quantile(values, quantile, method="closest_observation")))


def check_truncate(quantile: float | None) -> None:
    """Refuse what is no quantile of large weights."""
    if quantile is not None and not 0.5 < quantile < 1:
        raise EstimationError(f"truncate={quantile}: expected a quantile between 0.5 and 1, such as 0.99")


def raw_weights(linear: NDArray[Any], treated: Bools, estimand: str) -> NDArray[Any]:
    """Weights as a function of the linear predictor (complex for differentiation)."""
    odds = np.exp(linear)
    # The pair is the weight of a treated and of a control row with these odds of treatment.
    pairs = {
        "ate": (1.0 + 1.0 / odds, 1.0 + odds),
        "att": (1.0, odds),
        "atc": (1.0 / odds, 1.0),
        "ato": (1.0 / (1.0 + odds), odds / (1.0 + odds)),
    }
    return np.asarray(np.where(treated, *pairs[estimand]))


def _independent(matrix: Floats, treated: Bools, names: Sequence[str]) -> tuple[Floats, Floats, Floats]:
    """Fit the score; return the regressors kept (scaled, with intercept), the linear predictor and scores."""
    fit = fit_logistic(matrix, treated, names=names)
    used = [j for j, name in enumerate(names) if name not in fit.dropped]
    columns = matrix[:, used]
    # Influence values do not depend on the columns' location and scale, rounding does.
    return with_intercept((columns - columns.mean(axis=0)) / columns.std(axis=0)), fit.linear, fit.fitted


def score_weights(
    problem: Problem, estimand: str, *, stabilised: bool = False, truncate: float | None = None
) -> Fit:
    """Weight by a propensity score."""
    y, treated, given = problem.y, problem.treated, problem.known_score
    if given is None:
        design, linear, score = _independent(problem.design.matrix, treated, problem.design.names)
    else:
        design, linear, score = np.ones((len(y), 1)), np.log(given / (1.0 - given)), given
    weights = raw_weights(linear, treated, estimand).astype(float)
    uncut = np.ones(len(y), dtype=bool)
    if stabilised:
        weights = weights * np.where(treated, treated.mean(), 1.0 - treated.mean())
    if truncate is not None:
        chosen = {"att": ~treated, "atc": treated}.get(estimand, uncut)
        cut = weights.copy()
        cut[chosen] = truncate_weights(weights[chosen], truncate)
        uncut = cut == weights
        weights = cut
    arms = np.column_stack([treated, ~treated]).astype(float)
    if given is not None:
        means, influence = regression_influence(y, arms, weights)
        return weighed(weights, means, influence, score)
    # d weight / d linear predictor, by one complex step; d linear predictor / d beta is the design.
    slope = raw_weights(linear + 1e-30j, treated, estimand).imag / 1e-30
    if stabilised:
        slope = slope * np.where(treated, treated.mean(), 1.0 - treated.mean())
    slope = slope * uncut
    information = (design * (score * (1.0 - score))[:, None]).T @ design / len(y)
    gradient = design * (treated - score)[:, None]
    nuisance = np.asarray(np.linalg.solve(information, gradient.T).T, dtype=float)

    def around(theta: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(weights + slope * (design @ theta))

    means, influence = regression_influence(
        y, arms, weights, weight_function=around, theta=np.zeros(design.shape[1]), nuisance=nuisance
    )
    return weighed(weights, means, influence, score)
