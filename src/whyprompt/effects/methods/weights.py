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
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects.assumptions import FEW_ROWS
from whyprompt.effects.methods.method import Fit, Method
from whyprompt.effects.methods.score import logistic_score
from whyprompt.errors import EstimationError
from whyprompt.stats.clusters import clustered_means, rows_df
from whyprompt.stats.errors import interval
from whyprompt.stats.influence import (
    cluster_codes,
    effective_sample_size,
    regression_influence,
)
from whyprompt.stats.propensity import crossfit_propensity
from whyprompt.stats.rules import few_clusters
from whyprompt.stats.threads import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        # Where rows are dealt to folds, the score is learned in the same ones as the outcome.
        crossfitted = (
            problem.known_score is None and plan.score_model not in (None, "logit") and not self.dealt
        )
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
        return self._result(problem, plan, part, self.weigh(part, plan), kept, alpha, rank)

    def _kept(self, problem: Problem) -> tuple[Bools, float]:
        """Return the rows whose score is not trimmed, and where the limit lies."""
        treated = problem.treated
        if self.discard == "none":
            return np.ones(len(treated), dtype=bool), 0.0
        score = problem.known_score
        if score is None:
            score = logistic_score(problem).fitted
        alpha = crump_threshold(score) if self.discard == "crump" else float(self.discard)
        kept = (score >= alpha) & (score <= 1 - alpha)
        if not (treated[kept].any() and (~treated[kept]).any()):
            raise EstimationError(
                f"trimming to scores in [{alpha:.3g}, {1 - alpha:.3g}] leaves an arm empty",
                hint="the arms do not overlap; run both arms on the same items, or randomise",
            )
        return kept, alpha

    def error(self, problem: Problem, made: Fit) -> tuple[Floats, float | None, tuple[str, ...]]:
        """Return what each unit adds to the error, degrees of freedom (None: normal) and remarks."""
        assert made.influence is not None
        arms = np.column_stack([problem.treated, ~problem.treated])
        codes = cluster_codes(problem.cluster, len(problem.y))
        if codes is None:
            df = float(rows_df(arms, made.weights)[0, 1])
            return made.influence[:, 0] - made.influence[:, 1], df, ()
        contrast = np.array([1.0, -1.0])
        _, sums, free = clustered_means(problem.y, arms, made.weights, codes, influence=made.influence)
        df = free(contrast)
        return sums @ contrast, df, few_clusters(int(codes.max()) + 1, df)

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
        by_unit, df, remarks = self.error(part, made)
        error = float(np.linalg.norm(by_unit))
        known = problem.known_score is not None and (self.dealt or plan.score_model in (None, "logit"))
        again = made.again

        def of_another(y: Floats) -> Fit:
            assert again is not None
            other = replace(part, y=y[kept])
            return self._result(replace(problem, y=y), plan, other, again(y[kept]), kept, alpha, rank)

        used = [kept & treated, kept & ~treated]
        ess = [effective_sample_size(weights[arm]) for arm in used]
        warnings = worth_little(ess, [int(rows.sum()) for rows in used], plan.estimand)
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
            std_error_method=error_name(known=known, clustered=problem.cluster is not None),
            influence=influence,
            by_unit=by_unit,
            propensity=made.propensity if kept.all() else None,
            rank=rank,
            again=None if again is None else of_another,
            warnings=tuple(warnings),
        )


def worth_little(ess: Sequence[float], used: Sequence[int], estimand: str) -> list[str]:
    """Say which arm's weights are worth few of its rows used."""
    return [
        f"the weights of the {arm} rows are worth {size:.0f} of {n}: the estimate rests on few rows"
        for arm, size, n in zip(("treated", "control"), ess, used, strict=True)
        if size < min(_LOW_ESS * n, FEW_ROWS if estimand == "ato" else np.inf)
    ]


def error_name(*, known: bool, clustered: bool) -> str:
    """Name the standard error of weighting."""
    text = f"stacked estimating equations, score {'known' if known else 'estimated'}"
    return text + (", cluster-robust" if clustered else "")


def weighed(
    weights: Floats,
    means: Floats,
    influence: Floats,
    propensity: Floats | None = None,
    warnings: tuple[str, ...] = (),
    dropped: tuple[str, ...] | None = None,
) -> Fit:
    """Give the two means under weights as a fit without an error yet; `influence` is divided by n."""
    return Fit(
        means=(float(means[0]), float(means[1])),
        weights=weights,
        discarded=np.zeros(len(weights), dtype=bool),
        influence=influence,
        propensity=propensity,
        dropped=dropped,
        warnings=warnings,
    )


def repeated(of: Callable[[Floats], Fit], y: Floats) -> Fit:
    """Fit an outcome, and keep how others of the same rows are fitted."""

    def fitted(y: Floats) -> Fit:
        with one_blas_thread(len(y)):
            return of(y)

    return replace(fitted(y), again=fitted)


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
    if estimand == "ate":
        pair = 1.0 + 1.0 / odds, 1.0 + odds
    elif estimand == "ato":
        pair = 1.0 / (1.0 + odds), odds / (1.0 + odds)
    else:
        pair = (1.0, odds) if estimand == "att" else (1.0 / odds, 1.0)
    return np.asarray(np.where(treated, *pair))


def _slopes(linear: Floats, treated: Bools, estimand: str) -> Floats:
    """Differentiate `raw_weights` with respect to the linear predictor."""
    odds = np.exp(linear)
    if estimand == "ato":
        return np.asarray(np.where(treated, -odds, odds) / (1.0 + odds) ** 2)
    one = 0.0 if estimand == "att" else -1.0 / odds
    none = 0.0 if estimand == "atc" else odds
    return np.asarray(np.where(treated, one, none))


def score_weights(
    problem: Problem, estimand: str, *, stabilised: bool = False, truncate: float | None = None
) -> Fit:
    """Weight by a propensity score."""
    treated, fitted = problem.treated, None
    if problem.known_score is None:
        fitted = logistic_score(problem)
        score, linear = fitted.fitted, fitted.linear
    else:
        score = problem.known_score
        linear = np.log(score / (1.0 - score))
    weights = raw_weights(linear, treated, estimand).astype(float)
    slope = _slopes(linear, treated, estimand)
    if stabilised:
        shares = np.where(treated, treated.mean(), 1.0 - treated.mean())
        weights, slope = weights * shares, slope * shares
    if truncate is not None:
        chosen = {"att": ~treated, "atc": treated}.get(estimand, np.ones(len(treated), dtype=bool))
        cut = weights.copy()
        cut[chosen] = truncate_weights(weights[chosen], truncate)
        slope = slope * (cut == weights)
        weights = cut
    arms = np.column_stack([treated, ~treated]).astype(float)
    size, off, along = arms.T @ weights, (treated - score)[:, None], slope[:, None]
    with one_blas_thread(len(treated)):
        project = None if fitted is None else fitted.projector(score * (1.0 - score))

    def of(y: Floats) -> Fit:
        means, influence = regression_influence(y, arms, weights)
        if project is not None:
            # The coefficients move by their likelihood score over the information, and each mean by the slope
            # of the weights over its arm's weight: one product for all coefficients.
            residual = arms * (y[:, None] - means)
            influence = influence + off * project(along * residual) / size
        return weighed(weights, means, influence, score, dropped=() if fitted is None else fitted.dropped)

    return repeated(of, problem.y)
