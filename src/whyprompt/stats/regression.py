"""Linear, logit, probit and multinomial regressions, and the covariances that are drawn from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import special

from whyprompt.errors import EstimationError
from whyprompt.stats.newton import maximise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Family = Literal["linear", "logit", "probit", "ordered"]

_HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)
# Of the rows by coefficients that are multiplied at a time.
_CELLS = 4_000_000
_ALONE = 1e-10
"""A row or cluster of which the others leave less decides a coefficient alone: it has no value without it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Regression:
    """A fitted regression."""

    family: Family
    names: tuple[str, ...]
    # 0 for a column left out, and so is its covariance.
    coef: Array
    covariance: Array
    # Linear predictor of each row.
    linear: Array = field(metadata={"listed": False})
    # Residual standard deviation of a linear model, 1 otherwise.
    sigma: float = 1.0
    # Clusters that the covariance is robust to.
    n_clusters: int | None = None
    # Of the covariance: clusters less one, or rows less coefficients of a linear model; None for a binary
    # model without clusters, whose covariance holds no estimated variance.
    df: int | None = None
    # At the maximum; NaN where it was not computed.
    log_likelihood: float = np.nan
    # Of Newton's method over all rows.
    n_iterations: int = 0
    # Columns that are constant or a linear combination of those before them.
    dropped: tuple[str, ...] = ()

    @cached_property
    def fitted(self) -> Array:
        """Mean of each row's response, a probability unless the model is linear; not of ordered levels."""
        return mean_of(self.family, self.linear)

    @property
    def std_error(self) -> Array:
        """Of the coefficients; NaN for a column left out."""
        error = np.sqrt(np.maximum(np.diag(self.covariance), 0.0))
        return np.where([name in self.dropped for name in self.names], np.nan, error)

    def to_dict(self) -> dict[str, float]:
        """Coefficients by name."""
        return dict(zip(self.names, self.coef.tolist(), strict=True))

    def draw(self, n_draws: int, rng: np.random.Generator, *, what: str) -> Array:
        """Draw coefficients from Student's t with `df` degrees of freedom, or normal ones where it is None.

        The covariance is itself an estimate: of a linear model with rows less coefficients, from G clusters
        with about G - 1 degrees of freedom (Cameron, Gelbach and Miller 2008, Review of Economics and
        Statistics 90(3), section II). Normal draws from it are too narrow where those are few. A singular
        covariance is refused, as with no more clusters than coefficients; `what` names the model in messages.
        Shape (n_draws, p).
        """
        try:
            draws = rng.multivariate_normal(self.coef, self.covariance, n_draws, method="cholesky")
        except np.linalg.LinAlgError:
            raise EstimationError(
                f"the covariance of the {what} model's {len(self.coef)} coefficients is singular: "
                "there are too few clusters (or rows) to draw from it",
                hint="use method='bootstrap', fewer covariates, or more clusters",
            ) from None
        if self.df is None:
            return draws
        wider = np.sqrt(self.df / rng.chisquare(self.df, n_draws))
        return np.asarray(self.coef + (draws - self.coef) * wider[:, None])


def mean_of(family: Family, eta: Array) -> Array:
    """Mean of the response at a linear predictor."""
    if family == "logit":
        # numpy's exp is elementwise, so rows with equal covariates keep exactly equal means.
        return np.asarray(1.0 / (1.0 + np.exp(-eta)))
    return np.asarray(special.ndtr(eta)) if family == "probit" else eta


def row_terms(family: Family, eta: Array, y: Array) -> tuple[Array, Array, Array]:
    """Log-likelihood of each 0/1 row, its slope by the linear predictor, and minus its curvature."""
    if family == "logit":
        e = np.exp(-np.abs(eta))
        mu = np.where(eta >= 0, 1.0, e) / (1.0 + e)
        # log L = y eta - log(1 + exp(eta)), written so that exp never overflows
        return y * eta - np.maximum(eta, 0.0) - np.log1p(e), y - mu, mu * (1.0 - mu)
    side = 2.0 * y - 1.0
    reach = side * eta
    value = np.asarray(special.log_ndtr(reach))
    # phi / Phi without dividing two numbers that both vanish in the tail.
    mills = np.exp(-0.5 * eta**2 - _HALF_LOG_2PI - value)
    return value, side * mills, mills * (mills + reach)


def solve_binary(
    x: Array, y: Array, family: Family, *, weights: Array | None = None, start: Array | None = None
) -> tuple[Array, int]:
    """Maximum likelihood of a binary regression: coefficients, and iterations, 0 where it did not converge.

    References
    ----------
    McCullagh and Nelder (1989). Generalized Linear Models, section 2.5.
    """
    w = 1.0 if weights is None else weights

    def evaluate(beta: Array) -> tuple[float, Array, Array]:
        value, slope, curve = (w * part for part in row_terms(family, x @ beta, y))
        return float(value.sum()), x.T @ slope, x.T @ (x * curve[:, None])

    begin = np.zeros(x.shape[1]) if start is None else start
    coef, _, iterations, converged = maximise(evaluate, begin)
    return coef, iterations if converged else 0


def softmax(eta: NDArray[Any]) -> NDArray[Any]:
    """Probabilities of levels, the first with linear predictor 0; complex for differentiation."""
    whole = np.column_stack([np.zeros(len(eta)), eta])
    raised = np.exp(whole - whole.real.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def fit_multinomial(
    x: Array, code: NDArray[Any], n_levels: int, *, weights: Array | None = None, ridge: float = 0.0
) -> tuple[Array, Array] | None:
    """Multinomial logistic regression by maximum likelihood; None where there is no maximum.

    `x`, shape (n, q), has a column of ones, `code` is the level of each row, from 0. `ridge` is the share of
    its diagonal that is added to the information, so that collinear columns do not stop it. Returns the
    log-odds of each level but the first against the first, shape (n_levels - 1, q), and their information,
    level by level.
    """
    n, q = x.shape
    k = n_levels - 1
    hot = (code[:, None] == np.arange(1, n_levels)).astype(float)
    w = np.ones(n) if weights is None else weights

    def evaluate(theta: Array) -> tuple[float, Array, Array]:
        share = softmax(x @ theta.reshape(k, q).T)
        own = np.take_along_axis(share, code[:, None], axis=1)[:, 0]
        share = share[:, 1:]
        information = multinomial_information(x, share, w)
        information += np.diag(ridge * np.diag(information))
        gradient = ((hot - share) * w[:, None]).T @ x
        return float(w @ np.log(own + 1e-300)), gradient.ravel(), information

    theta, information, _, converged = maximise(evaluate, np.zeros(k * q), max_iterations=100)
    return (theta.reshape(k, q), information) if converged else None


def multinomial_information(x: Array, share: Array, weights: Array) -> Array:
    """Information on multinomial coefficients, level by level; `share` without the first level.

    The sum over rows of ``(diag p - p p') x x'``: of the second part one product for all pairs of levels.
    """
    q, k = x.shape[1], share.shape[1]
    out = np.zeros((k * q, k * q))
    step = max(1, _CELLS // (k * q))
    for first in range(0, len(x), step):
        rows, p = x[first : first + step], share[first : first + step]
        root = np.sqrt(weights[first : first + step])[:, None]
        crossed = ((p * root)[:, :, None] * rows[:, None, :]).reshape(len(rows), k * q)
        out -= crossed.T @ crossed
    for a in range(k):
        here = slice(a * q, (a + 1) * q)
        out[here, here] += (x * (weights * share[:, a])[:, None]).T @ x
    return out


def fit(
    x: Array,
    y: Array,
    family: Family,
    *,
    names: tuple[str, ...],
    what: str,
    robust: bool = False,
    clusters: NDArray[np.intp] | None = None,
) -> Regression:
    """Fit one regression of the `family` on `x`, shape (n, p).

    `what` is "mediator" or "outcome", named in messages. `robust` asks for HC3; `clusters` for the jackknife
    over clusters, HC3's counterpart (CV3 with G - 1 degrees of freedom: MacKinnon, Nielsen and Webb 2023,
    Journal of Econometrics 232(2), section 3). A singular design is refused, too few rows, and a binary model
    that separates.
    """
    n, p = x.shape
    if n <= p:
        raise EstimationError(f"the {what} model has {p} coefficients for {n} rows")
    if np.linalg.matrix_rank(x) < p:
        raise EstimationError(
            f"the {what} model's design is singular: its columns {', '.join(names)} are linearly dependent",
            hint="leave out a covariate that is constant or a combination of others",
        )
    sigma = 1.0
    if family == "linear":
        coef = np.asarray(np.linalg.lstsq(x, y, rcond=None)[0], dtype=np.float64)
        residual = y - x @ coef
        sigma = float(np.sqrt(residual @ residual / (n - p)))
        # From the triangle and not from x'x, which would square the condition of a mediator that is
        # nearly a function of the treatment.
        half = np.linalg.inv(np.linalg.qr(x, mode="r"))
        bread = np.asarray(half @ half.T, dtype=np.float64)
        covariance = sigma**2 * bread
        score, hat_weight = residual, np.ones(n)
    else:
        coef, iterations = solve_binary(x, y, family)
        if not iterations:
            raise EstimationError(
                f"the {what} model does not converge: the design predicts some outcomes perfectly",
                hint="use fewer covariates, or a linear model",
            )
        success, failure = (row_terms(family, x @ coef, np.full(n, level))[1] for level in (1.0, 0.0))
        score = np.where(y > 0, success, failure)
        # The expected information, as of iteratively reweighted least squares.
        hat_weight = -success * failure
        bread = np.asarray(np.linalg.inv(x.T @ (x * hat_weight[:, None])), dtype=np.float64)
        covariance = bread
    if clusters is not None:
        covariance = _jackknife(x, score, hat_weight, bread, clusters)
    elif robust:
        leverage = hat_weight * np.einsum("ij,jk,ik->i", x, bread, x)
        weighted = x * (score / np.where(leverage < 1 - _ALONE, 1 - leverage, np.inf))[:, None]
        covariance = bread @ (weighted.T @ weighted) @ bread
    covariance = np.asarray(covariance, dtype=np.float64)
    df = n - p if family == "linear" else None
    return Regression(
        family=family,
        names=names,
        coef=coef,
        covariance=covariance,
        linear=x @ coef,
        sigma=sigma,
        n_clusters=None if clusters is None else int(clusters.max()) + 1,
        df=df if clusters is None else int(clusters.max()),
    )


def _jackknife(x: Array, score: Array, weight: Array, bread: Array, clusters: NDArray[np.intp]) -> Array:
    """Covariance from leaving out one cluster at a time, to one step of a binary model.

    The coefficients without cluster g differ from those with it by ``B (I - S B)^-1 s``, where B is the
    bread, and S and s are the cluster's own part of the information and of the score.
    """
    g, p = int(clusters.max()) + 1, x.shape[1]
    half = np.linalg.cholesky(bread)
    z = x @ half
    rows = np.argsort(clusters, kind="stable")
    first = np.searchsorted(clusters[rows], np.arange(g))
    scores = np.add.reduceat((z * score[:, None])[rows], first)
    own = np.stack([np.add.reduceat((z * (z[:, j] * weight)[:, None])[rows], first) for j in range(p)], 2)
    left, axes = np.linalg.eigh(np.eye(p) - own)
    # Its score there is zero: the fit goes through it.
    turned = np.einsum("gij,gi->gj", axes, scores) / np.where(left > _ALONE, left, np.inf)
    shift = np.einsum("gij,gj->gi", axes, turned) @ half.T
    return np.asarray((g - 1) / g * shift.T @ shift)
