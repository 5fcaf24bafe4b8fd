"""Standard errors of matches that share rows, and of those on an estimated score.

Pairs made without replacement are clusters of a regression on the matched sample, and strata a stratified
experiment (`whyprompt.stats.errors`). Matches used more than once need the variance of Abadie and Imbens
(2006), with the term of their 2016 paper where the score was estimated.

The ordinary bootstrap is wrong for nearest neighbours with replacement, however many draws are made
(Abadie and Imbens 2008); `refuse_naive_bootstrap` says so, and `wild_bootstrap` is the valid one.

These take the score as known, as MatchIt's and Matching's do. A fitted score balances better than a known
one, so they are too large, and much too large where covariates matter for the outcome apart from the score.
`for_estimated_score` corrects those of a plain difference of matched means. After a regression on the
covariates in the matched sample (`adjustment`) nothing is left to correct.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from whyprompt.effects.methods.adjustment import Projected, regress
from whyprompt.errors import EstimationError
from whyprompt.stats.influence import least_squares
from whyprompt.stats.threads import one_blas_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.methods.matched import MatchedSet

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]


def abadie_imbens(
    y: Floats,
    treated: Bools,
    matched: MatchedSet,
    *,
    score: Floats | None = None,
    neighbours: int = 2,
    tolerance: float = 1e-5,
    adjust: Floats | Projected | None = None,
    implied: bool = False,
    unmatched: Literal["left_out", "no_effect"] = "left_out",
) -> tuple[float, float]:
    """Return the estimate and the variance of a matching estimator that uses rows more than once.

    The variance comes from the spread of the unit-level differences, and from using a row as a match more
    than once. A set without pairs is refused, and neighbours where no score is given.

    `matched` has pairs (nearest neighbours or kernel; any estimand). `neighbours` rows of the same arm,
    sought by `score`, give each row's conditional variance (equation 14), with `adjust` that of the
    residuals; 0 assumes one variance for all rows, which is the default of R's Matching. `tolerance`: squared
    differences, in variances of the score, that count as ties among neighbours. `adjust`, shape (n, q), are
    covariates whose remaining differences within pairs are taken out by a regression of the outcome on them
    among the rows used as matches, weighted by their use (Abadie and Imbens 2011; Matching's ``BiasAdjust``).
    With `implied` the error also knows that the slopes of that regression are estimates. `unmatched` are
    focal rows without a match within the caliper: ``"no_effect"`` counts them with an effect of 0 in the
    variance, as R's Matching does; that is no property of the effect on the rows that were matched, and makes
    the error smaller by their share.

    With pair shares `s_ij`, `K_j = sum_i s_ij` and `K'_j = sum_i s_ij^2`, the variance of the effect on the N
    matched rows is ``sum_i (tau_i - tau)^2 / N^2 + sum_j sigma_j^2 (K_j^2 - K'_j) / N^2``, and for the ATE
    the second term has ``K_j^2 + 2 K_j - K'_j``. It holds for any fixed shares, so for kernels as well.

    Reference: Abadie, A. and Imbens, G. W. (2006). Large sample properties of matching estimators for average
    treatment effects. Econometrica 74, 235-267, theorems 6 and 7.

    >>> import numpy as np
    >>> from whyprompt.effects.methods.nearest import match_nearest
    >>> score = np.array([0.2, 0.5, 0.3, 0.6, 0.9])
    >>> arm = np.array([True, True, True, False, False])
    >>> pairs = match_nearest(score, arm, replace=True)
    >>> estimate, variance = abadie_imbens(np.array([1.0, 2.0, 3.0, 0.0, 1.0]), arm, pairs, neighbours=0)
    >>> estimate, round(variance, 3)
    (2.0, 0.444)
    """
    used = matched.is_focal
    if not used.any():
        raise EstimationError("the Abadie-Imbens variance needs matched pairs", hint="strata have their own")
    sign = np.where(treated, 1.0, -1.0)
    # What is compared within pairs and what the conditional variance is of: outcomes, or residuals of the
    # regressions in the arm that gives the matches and in the own arm.
    compared = own = (y, y)
    if adjust is not None:
        made = regress(y, treated, matched, adjust)
        compared = (y - made.predicted[1], y - made.predicted[0])
        own = compared[::-1]
    gap, squares = (np.zeros(len(y)) for _ in range(2))
    for arm, values in zip((~treated, treated), compared, strict=True):
        rows = arm & used
        if rows.any():
            centred = values - values[rows].mean()
            average = matched.average(centred)
            gap[rows] = (sign * (centred - average))[rows]
            spread = matched.average(centred**2) - 2.0 * centred * average + centred**2
            squares[rows] = spread[rows]
    tau = gap[used]
    count = len(tau)
    estimate = float(tau.mean())
    if neighbours == 0:
        # The mean over pairs of the squared difference from the estimate, each focal row alike.
        common = 0.5 * float((squares[used] - 2.0 * estimate * tau + estimate**2).sum()) / count
        sigma2 = np.full(len(y), max(common, 0.0))
    elif score is None:
        raise EstimationError("neighbours within an arm are sought by a score; none was given")
    else:
        residual = np.where(treated, own[1], own[0])
        if implied and adjust is not None:
            residual = made.errors(y, treated)
        sigma2 = conditional_variance(residual, treated, score, neighbours=neighbours, tolerance=tolerance)
    received = matched.received()
    factor = received**2 - matched.received(2)
    if matched.estimand == "ate":
        factor = factor + 2.0 * received
    if implied and adjust is not None:
        factor = (count * made.implied) ** 2 - used - matched.received(2)
    spread_of_tau = float(((tau - estimate) ** 2).sum())
    if unmatched == "no_effect":
        side = {"att": treated, "atc": ~treated}.get(matched.estimand, np.ones(len(y), dtype=bool))
        lost = int((side & ~matched.discarded).sum()) - count
        count, spread_of_tau = count + lost, spread_of_tau + lost * estimate**2
    elif unmatched != "left_out":
        raise EstimationError(f"unmatched={unmatched!r} is not known", hint="one of: left_out, no_effect")
    return estimate, spread_of_tau / count**2 + float(sigma2 @ factor) / count**2


def conditional_variance(
    y: Floats, treated: Bools, score: Floats, *, neighbours: int, tolerance: float = 1e-5
) -> Floats:
    """Estimate each row's outcome variance from its nearest neighbours by `score` in its own arm.

    Ties of the last neighbour are taken in as well; `tolerance` is as for `abadie_imbens`. An arm with no
    more rows than neighbours are wanted is refused.
    """
    sigma2 = np.empty(len(y))
    slack = tolerance * float(score.var())
    for arm in (treated, ~treated):
        rows = np.flatnonzero(arm)
        m = len(rows)
        if m <= neighbours:
            raise EstimationError(
                f"{neighbours} neighbours within an arm are wanted and one arm has {m} row(s)",
                hint="ask for fewer neighbours, or a homoskedastic variance with neighbours=0",
            )
        rows = rows[np.argsort(score[rows], kind="stable")]
        s = score[rows]
        padded = np.concatenate([np.full(neighbours, -np.inf), s, np.full(neighbours, np.inf)])
        sides = [padded[neighbours + k : neighbours + k + m] for k in range(-neighbours, neighbours + 1) if k]
        gaps = np.abs(np.column_stack(sides) - s[:, None])
        reach = np.partition(gaps, neighbours - 1, axis=1)[:, neighbours - 1]
        reach = np.sqrt(reach**2 + slack) * (1 + 1e-12) + 1e-15
        first = np.searchsorted(s, s - reach, side="left")
        last = np.searchsorted(s, s + reach, side="right")
        size = last - first
        centred = y[rows] - y[rows].mean()
        sums = np.concatenate([[0.0], np.cumsum(centred)])
        squares = np.concatenate([[0.0], np.cumsum(centred**2)])
        total = sums[last] - sums[first]
        spread = squares[last] - squares[first] - total**2 / size
        sigma2[rows] = np.maximum(spread, 0.0) / (size - 1)
    return sigma2


def for_estimated_score(
    variance: float,
    y: Floats,
    treated: Bools,
    matched: MatchedSet,
    *,
    X: Floats,
    propensity: Floats,
    score_covariance: Floats,
    score: Floats | None = None,
    units: NDArray[np.intp] | None = None,
) -> float:
    """Correct the variance of a matching estimator for a logistic score having been estimated.

    A fitted score balances the sample's covariates better than the true score would: the part of the error
    that moves with the score's own estimating equations is absent. It can be most of it, where covariates
    matter for the outcome beyond their part in the score. The ATT and ATC also move with the score
    themselves, which adds to the variance where the effect differs between rows.

    `variance` takes the score as known. `matched` was made on `score` (default `propensity`): nearest
    neighbours, kernel, full matching or subclasses. `units`, shape (n,), are numbers of the clusters (or
    pairs) that the variance is of, -1 for rows in none; None for rows. `X`, shape (n, p), are the covariates
    of the logistic regression without the intercept, `score_covariance` that of its coefficients, intercept
    first.

    Abadie and Imbens write the variance as ``sigma^2 - c' I^-1 c + d' I^-1 d``, with c the covariance of the
    estimator with the score equations, and estimate c from neighbours. The difference of two estimates can be
    far too small or negative in samples of some hundred rows. Here the first two terms are ``sigma^2 (1 -
    R^2)``, with R^2 that of a regression of the estimator's influence values on the score equations, which is
    the same number in large samples and never negative. The derivative d takes the effect given covariates
    from linear regressions in each arm.

    Their theorems are for matches with replacement; for pairs without it the same is right in simulations
    (`benchmarks/coverage_matching.py`).

    Reference: Abadie, A. and Imbens, G. W. (2016). Matching on the estimated propensity score. Econometrica
    84, 781-807, theorems 1 and 2.
    """
    along = propensity if score is None else score
    with one_blas_thread(len(y)):
        n = len(y)
        w = matched.weights
        target = {"att": treated, "atc": ~treated}.get(matched.estimand, np.ones(n, dtype=bool)) & (w > 0)
        count = int(target.sum())
        centred = (X - X.mean(axis=0)) / np.where(X.std(axis=0) > 0, X.std(axis=0), 1.0)
        s = (along - along.mean()) / (along.std() or 1.0)
        curve = np.column_stack([np.ones(n), s, s**2, s**3])
        by_score, by_all = np.empty((2, n)), np.empty((2, n))
        for k, arm in enumerate((~treated, treated)):
            by_score[k] = least_squares(curve, y, arm)[0]
            by_all[k] = least_squares(np.column_stack([curve, centred]), y, arm)[0]
        tau = float(np.average(y[treated], weights=w[treated]) - np.average(y[~treated], weights=w[~treated]))
        total = np.where(treated, w[treated].sum(), w[~treated].sum())
        sign = np.where(treated, 1.0, -1.0)
        own = np.where(treated, by_score[1], by_score[0])
        influence = sign * w * count / total * (y - own) + target * (by_score[1] - by_score[0] - tau)
        equations = (treated - propensity)[:, None] * np.column_stack([np.ones(n), centred])
        explained, leverage = least_squares(equations, influence)
        # Residuals as of a fit without the row itself: rows of great weight have great leverage as well.
        residual = (influence - explained) / (1.0 - leverage)
        if units is not None:
            inside = units >= 0
            residual, influence = (
                np.bincount(units[inside], weights=part[inside]) for part in (residual, influence)
            )
        left, whole = float(residual @ residual), float(influence @ influence)
        corrected = variance * min(1.0, left / whole) if whole > 0 else variance
        if matched.estimand == "ate":
            return corrected
        moved = propensity * (1.0 - propensity) * (by_all[1] - by_all[0] - tau) / count
        d = np.concatenate([[moved.sum()], moved @ X])
        return corrected + float(d @ score_covariance @ d)


def influence_after_matching(
    y: Floats, treated: Bools, matched: MatchedSet, *, X: Floats
) -> tuple[float, Floats]:
    """Return the estimate and the values, shape (n,), whose sums under random signs are draws of its error.

    The estimate is bias-corrected by outcome regressions (Abadie and Imbens 2011), which the wild bootstrap
    is valid for; they are linear within each arm in `X`, covariates and the score among them (Otsu and Rai
    2017, JASA 112, 1720-1732, equation 6).
    """
    with one_blas_thread(len(y)):
        n = len(y)
        Z = np.column_stack(
            [np.ones(n), (X - X.mean(axis=0)) / np.where(X.std(axis=0) > 0, X.std(axis=0), 1.0)]
        )
        mu = np.empty((2, n))
        leverage = np.zeros(n)
        for k, arm in enumerate((~treated, treated)):
            mu[k], reach = least_squares(Z, y, arm)
            leverage[arm] = reach[arm]
        own = np.where(treated, mu[1], mu[0])
        is_focal, received = matched.is_focal, matched.received()
        count = int(is_focal.sum())
        sign = np.where(treated, 1.0, -1.0)
        effect = is_focal * (mu[1] - mu[0])
        noise = sign * (is_focal + received) * (y - own)
        estimate = float((effect + noise).sum()) / count
        # Residuals are smaller than errors; they are brought to the errors' variance (as HC2 does).
        noise = noise / np.sqrt(1.0 - leverage)
        return estimate, (effect - is_focal * estimate + noise) / count


def wild_bootstrap(influence: Floats, *, draws: int = 1000, random_state: int = 0) -> Floats:
    """Draw the error of a matching estimator, estimate minus truth, by random signs on its influence values.

    Reference: Otsu, T. and Rai, Y. (2017). JASA 112, 1720-1732, section 2.3 (Rademacher weights).

    >>> import numpy as np
    >>> errors = wild_bootstrap(np.array([0.1, -0.2, 0.1]), draws=4000)
    >>> bool(abs(errors.std() - np.sqrt(0.06)) < 0.01)
    True
    """
    rng = np.random.default_rng(random_state)
    n = len(influence)
    out = np.empty(draws)
    # One random bit a sign, not one random byte; as many draws at a time as stay in cache.
    step = max(1, 500_000 // max(n, 1))
    with one_blas_thread(n):
        for a in range(0, draws, step):
            rows = min(step, draws - a)
            bits = np.unpackbits(np.frombuffer(rng.bytes(rows * (n + 7) // 8 + 1), dtype=np.uint8))
            signs = bits[: rows * n].reshape(rows, n).astype(np.float64)
            out[a : a + rows] = 2.0 * (signs @ influence) - influence.sum()
    return out


def refuse_naive_bootstrap(matched: MatchedSet) -> None:
    """Raise if resampling rows is known to fail for this estimator: nearest neighbours with replacement.

    Reference: Abadie, A. and Imbens, G. W. (2008). On the failure of the bootstrap for matching estimators.
    Econometrica 76, 1537-1557.
    """
    if "bootstrap" not in matched.errors:
        raise EstimationError(
            "the bootstrap is not valid for nearest neighbours with replacement (Abadie and Imbens 2008):"
            " resampling rows changes how often a row is matched in a way that sampling does not",
            hint="use std_error='abadie_imbens', or std_error='wild_bootstrap' (Otsu and Rai 2017)",
        )
