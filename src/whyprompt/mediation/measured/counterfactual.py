"""Counterfactual means of a mediator and an outcome model, and their bootstrap.

Rows times draws are never held at once: both are cut into blocks that stay in the cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from whyprompt.errors import EstimationError
from whyprompt.stats.regression import Family, Regression, solve_binary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.mediation.measured.design import Design

    Array = NDArray[np.float64]

_ROWS, _DRAWS = 4096, 8
_WEIGHTS = 1 << 22


def effects_of(
    design: Design,
    alpha: Array,
    beta: Array,
    sigma: Array,
    rng: np.random.Generator,
    weights: Array | None = None,
) -> dict[str, Array]:
    """Effects of each draw of coefficients, averaged over rows.

    `alpha` (draws, p) and `beta` (draws, p + q) are those of both models, `sigma` (draws,) the residual
    deviation of a linear mediator; `rng` shuffles the mediator's error where it cannot be integrated in
    closed form. `weights` (draws, n) sum to n in each draw.
    """
    if design.linear and weights is None:
        n, ones = len(design.y), np.ones((len(alpha), 1))
        means = [ones * x.mean(0) for x in design.mediator_set]
        cross = [[ones[..., None] * (m.T @ s / n) for m in design.mediator_set] for s in design.slope_set]
        return _effects(_bilinear(alpha, beta, means, cross))
    return _effects(_streamed(design, alpha, beta, sigma, rng, weights))


def _streamed(
    design: Design,
    alpha: Array,
    beta: Array,
    sigma: Array,
    rng: np.random.Generator,
    weights: Array | None,
) -> Array:
    mediator, slopes = design.mediator_set, design.slope_set
    family_m, family_y = design.families
    n, p = mediator[0].shape
    out = np.zeros((2, 2, len(alpha)))
    # Normal quantiles, shuffled: every draw sees the whole distribution of the mediator's error.
    quantiles = special.ndtri((rng.permutation(n) + 0.5) / n)
    shift = rng.integers(0, n, len(alpha))
    half = 0.5 if family_y == "logit" else 1.0  # expit(x) = (1 + tanh(x / 2)) / 2
    for first in range(0, len(alpha), _DRAWS):
        draws = slice(first, first + _DRAWS)
        a, b = alpha[draws].T, half * beta[draws].T
        for top in range(0, n, _ROWS):
            rows = slice(top, min(n, top + _ROWS))
            w = None if weights is None else weights[draws, rows].T
            m = [np.ascontiguousarray(x[rows] @ a) for x in mediator]
            if family_m == "linear" and family_y == "logit":
                for k, by in enumerate(shift[draws]):
                    at = np.arange(rows.start - by, rows.stop - by)
                    error = sigma[first + k] * quantiles[at % n]
                    m[0][:, k] += error
                    m[1][:, k] += error
            for t in (0, 1):
                base = mediator[t][rows] @ b[:p]
                slope = slopes[t][rows if design.moderators else slice(1)] @ b[p:]
                for s, y in enumerate(_outcomes(design, base, slope, m, sigma[draws])):
                    out[t, s, draws] += y.sum(0) if w is None else np.einsum("ij,ij->j", y, w)
    out /= n
    return 0.5 + 0.5 * out if family_y == "logit" else out


def _outcomes(design: Design, base: Array, slope: Array, m: list[Array], sigma: Array) -> list[Array]:
    """Give expected outcomes for both mediators, their own randomness integrated out; tanh for logit."""
    family_m, family_y = design.families
    if family_m == "linear":
        out = []
        for value in m:
            eta = slope * value
            eta += base
            if family_y == "probit":
                # A normal error inside a probit integrates to a probit.
                eta /= np.sqrt(1 + (slope * sigma) ** 2)
            out.append(_mean(family_y, eta))
        return out
    gain = _mean(family_y, base + slope)
    without = _mean(family_y, base)
    gain -= without
    shares = (special.ndtr(v) if family_m == "probit" else 0.5 + 0.5 * np.tanh(0.5 * v) for v in m)
    return [without + share * gain for share in shares]


def _mean(family: Family, eta: Array) -> Array:
    """Inverse link, in place; 2 p - 1 of half the predictor for a logit."""
    if family == "logit":
        np.tanh(eta, out=eta)
    elif family == "probit":
        special.ndtr(eta, out=eta)
    return eta


def _bilinear(alpha: Array, beta: Array, means: list[Array], cross: list[list[Array]]) -> Array:
    """Means of two linear models from the moments of their designs, one set a draw."""
    p = alpha.shape[1]
    out = np.empty((2, 2, len(alpha)))
    for t in (0, 1):
        base = np.einsum("dp,dp->d", beta[:, :p], means[t])
        for s in (0, 1):
            out[t, s] = base + np.einsum("dp,dpq,dq->d", alpha, cross[t][s], beta[:, p:])
    return out


def _effects(mean: Array) -> dict[str, Array]:
    """Effects from ``E[Y(t, M(s))]``, an array (t, s, draws)."""
    out = {
        "acme_control": mean[0, 1] - mean[0, 0],
        "acme_treated": mean[1, 1] - mean[1, 0],
        "ade_control": mean[1, 0] - mean[0, 0],
        "ade_treated": mean[1, 1] - mean[0, 1],
        "total_effect": mean[1, 1] - mean[0, 0],
    }
    out["acme"] = (out["acme_control"] + out["acme_treated"]) / 2
    out["ade"] = (out["ade_control"] + out["ade_treated"]) / 2
    out["interaction"] = out["acme_treated"] - out["acme_control"]
    return out


def widened(draws: Array, centre: Array | float, units: int, rng: np.random.Generator) -> Array:
    """Bootstrap draws with the spread that a sample of so few units is in want of.

    A resample varies about its sample by the sample's own variance, which is (units - 1) / units of what is
    meant and itself an estimate with units - 1 degrees of freedom. What a formula mends by Student's t is
    mended here in the same way: a mean's percentiles become its t interval. `centre` is the estimate, `units`
    the rows or clusters that were drawn.

    Hesterberg (2015). What teachers should know about the bootstrap. The American Statistician 69(4),
    section 5 (narrowness bias).
    """
    df = units - 1
    factor = np.sqrt(units / rng.chisquare(df, len(draws)))
    return np.asarray(centre + (draws - centre) * factor.reshape(-1, *[1] * (draws.ndim - 1)))


def bootstrap_effects(
    design: Design, fit_m: Regression, fit_y: Regression, draws: int, rng: np.random.Generator
) -> dict[str, Array]:
    """Refit both models on the same resampled rows, or whole clusters, and give the effects of each sample.

    The iterations start at the fits on all rows. An EstimationError where most samples cannot be fitted.
    """
    n, groups, n_units = len(design.y), design.groups, design.units
    collected: list[dict[str, Array]] = []
    step = max(1, min(64, _WEIGHTS // n))
    done = failed = 0
    while done < draws:
        count = min(step, draws - done)
        w = np.empty((count, n))
        for k in range(count):
            drawn = np.bincount(rng.integers(0, n_units, n_units), minlength=n_units)
            w[k] = drawn if groups is None else drawn[groups]
        if groups is not None:
            w *= n / w.sum(1, keepdims=True)
        if design.linear:
            effects, good = _linear_sample(design, w)
        else:
            alpha, sigma, ok_m = _weighted(design.x_mediator, design.m, fit_m, w)
            beta, _, ok_y = _weighted(design.x_outcome, design.y, fit_y, w)
            good = ok_m & ok_y
            effects = effects_of(design, alpha[good], beta[good], sigma[good], rng, w[good])
        failed += int((~good).sum())
        if failed > draws:
            raise EstimationError("most bootstrap samples cannot be fitted", hint="use method='quasi_bayes'")
        collected.append(effects)
        done += int(good.sum())
    return {k: np.concatenate([c[k] for c in collected]) for k in collected[0]}


def _linear_sample(design: Design, w: Array) -> tuple[dict[str, Array], NDArray[np.bool_]]:
    """Both linear models of each sample from one weighted matrix of moments."""
    xy, y, extra, slopes = design.x_outcome, design.y, design.mediator_set, design.slope_set
    (n, q), p = xy.shape, extra[0].shape[1]
    rows, columns = np.triu_indices(q + 1)
    moments = np.zeros((len(w), len(rows) + 2 * p))
    cross = np.zeros((2, 2, len(w), p, q - p))
    step = max(256, _WEIGHTS // (4 * (len(rows) + 2 * p)))
    for top in range(0, n, step):
        part = slice(top, top + step)
        joint = np.column_stack([xy[part], y[part]])
        products = np.hstack([joint[:, rows] * joint[:, columns], *(x[part] for x in extra)])
        moments += w[:, part] @ products
        if design.moderators:
            for t in (0, 1):
                for s in (0, 1):
                    both = (extra[s][part][:, :, None] * slopes[t][part][:, None]).reshape(-1, p * (q - p))
                    cross[t, s] += (w[:, part] @ both).reshape(-1, p, q - p)
    gram = np.empty((len(w), q + 1, q + 1))
    gram[:, rows, columns] = gram[:, columns, rows] = moments[:, : len(rows)]
    means = [moments[:, len(rows) + k * p : len(rows) + (k + 1) * p] / n for k in (0, 1)]
    if not design.moderators:
        cross = np.stack([np.stack([means[s][:, :, None] * slopes[t][0] for s in (0, 1)]) for t in (0, 1)])
    else:
        cross /= n
    # A resample may lose a level of a covariate; such a sample has no fit.
    scale = np.sqrt(np.maximum(np.diagonal(gram, axis1=1, axis2=2), 1e-300))
    unit = gram / scale[:, :, None] / scale[:, None]
    good = np.linalg.matrix_rank(unit[:, :q, :q], hermitian=True) == q
    g, scale = unit[good], scale[good]
    # The mediator itself is the first column that the outcome model adds.
    alpha = np.linalg.solve(g[:, :p, :p], g[:, :p, p, None])[..., 0] * scale[:, [p]] / scale[:, :p]
    beta = np.linalg.solve(g[:, :q, :q], g[:, :q, q, None])[..., 0] * scale[:, [q]] / scale[:, :q]
    pairs = [[cross[t, s][good] for s in (0, 1)] for t in (0, 1)]
    return _effects(_bilinear(alpha, beta, [mean[good] for mean in means], pairs)), good


def _weighted(x: Array, y: Array, fitted: Regression, w: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Coefficients and residual deviations under each row of weights, and whether they exist."""
    n, p = x.shape
    coef, sigma, good = np.empty((len(w), p)), np.ones(len(w)), np.ones(len(w), dtype=bool)
    for k, weights in enumerate(w):
        if fitted.family != "linear":
            coef[k], iterations = solve_binary(x, y, fitted.family, weights=weights, start=fitted.coef)
            good[k] = iterations > 0
            continue
        root = np.sqrt(weights)
        coef[k], _, rank, _ = np.linalg.lstsq(x * root[:, None], y * root, rcond=None)
        good[k] = rank == p
        residual = y - x @ coef[k]
        sigma[k] = np.sqrt(weights @ residual**2 / (n - p))
    return coef, sigma, good
