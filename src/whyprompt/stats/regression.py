"""Linear, logit and probit regressions with the covariances that mediation draws from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import special

from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["Family", "Fit", "fit", "solve_irls"]

Family = Literal["linear", "logit", "probit"]

_TOLERANCE = 1e-11
_MAX_ITERATIONS = 50
_ALONE = 1e-10
"""A row or cluster of which the others leave less decides a coefficient alone: it has no value without it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A fitted regression.

    Attributes
    ----------
    family : {"linear", "logit", "probit"}
    names : tuple of str
    coef : ndarray, shape (p,)
    covariance : ndarray, shape (p, p)
    sigma : float
        Residual standard deviation of a linear model, 1 otherwise.
    n_clusters : int or None
        Clusters that the covariance is robust to.
    df : int or None
        Degrees of freedom of the covariance: clusters less one, or rows less coefficients of a linear
        model; None for a binary model without clusters, whose covariance holds no estimated variance.
    """

    family: Family
    names: tuple[str, ...]
    coef: Array
    covariance: Array
    sigma: float
    n_clusters: int | None = None
    df: int | None = None

    def to_dict(self) -> dict[str, float]:
        """Coefficients by name.

        Returns
        -------
        dict
        """
        return dict(zip(self.names, self.coef.tolist(), strict=True))

    def draw(self, n_draws: int, rng: np.random.Generator, *, what: str) -> Array:
        """Draw coefficients from Student's t with `df` degrees of freedom, or normal ones where it is None.

        The covariance is itself an estimate: of a linear model with rows less coefficients, from G clusters
        with about G - 1 degrees of freedom. Normal draws from it are too narrow where those are few.

        Parameters
        ----------
        n_draws : int
        rng : numpy.random.Generator
        what : str
            Names the model in messages.

        Returns
        -------
        ndarray, shape (n_draws, p)

        Raises
        ------
        EstimationError
            If the covariance is singular, as with no more clusters than coefficients.

        References
        ----------
        Cameron, Gelbach and Miller (2008). Bootstrap-based improvements for inference with
        clustered errors. Review of Economics and Statistics 90(3), section II (t with G - 1).
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


def _derivatives(family: Family, eta: Array) -> tuple[Array, Array, Array]:
    """Mean, its derivative, and the IRLS weight of a binary response."""
    if family == "logit":
        mu = np.asarray(special.expit(eta))
        slope = mu * special.expit(-eta)
        return mu, slope, slope
    mu = np.asarray(special.ndtr(eta))
    slope = np.exp(-0.5 * eta**2) / np.sqrt(2 * np.pi)
    variance = np.maximum(mu * special.ndtr(-eta), 1e-300)
    return mu, slope, slope**2 / variance


def solve_irls(
    x: Array, y: Array, family: Family, *, weights: Array | None = None, start: Array | None = None
) -> tuple[Array, int]:
    """Maximum likelihood of a binary regression by iteratively reweighted least squares.

    Parameters
    ----------
    x : ndarray, shape (n, p)
    y : ndarray, shape (n,)
        0 or 1.
    family : {"logit", "probit"}
    weights : ndarray, shape (n,), optional
        Case weights.
    start : ndarray, shape (p,), optional

    Returns
    -------
    coef : ndarray, shape (p,)
    iterations : int
        0 where it did not converge.

    References
    ----------
    McCullagh and Nelder (1989). Generalized Linear Models, section 2.5.
    """
    beta = np.zeros(x.shape[1]) if start is None else start.copy()
    for iteration in range(1, _MAX_ITERATIONS + 1):
        mu, slope, w = _derivatives(family, x @ beta)
        step_weight = w if weights is None else w * weights
        score = x.T @ (step_weight * (y - mu) / np.maximum(slope, 1e-300))
        information = x.T @ (x * step_weight[:, None])
        try:
            step = np.linalg.solve(information, score)
        except np.linalg.LinAlgError:
            return beta, 0
        beta = beta + step
        if np.abs(step).max() <= _TOLERANCE * max(1.0, float(np.abs(beta).max())):
            return beta, iteration
        if not np.isfinite(beta).all() or np.abs(beta).max() > 1e6:
            return beta, 0
    return beta, 0


def fit(
    x: Array,
    y: Array,
    family: Family,
    *,
    names: tuple[str, ...],
    what: str,
    robust: bool = False,
    clusters: NDArray[np.intp] | None = None,
) -> Fit:
    """Fit one regression.

    Parameters
    ----------
    x : ndarray, shape (n, p)
    y : ndarray, shape (n,)
    family : {"linear", "logit", "probit"}
    names : tuple of str
        Of the columns of `x`.
    what : str
        "mediator" or "outcome", named in errors.
    robust : bool
        Heteroscedasticity-robust covariance, HC3.
    clusters : ndarray of int, optional
        Cluster-robust covariance, the jackknife over clusters: HC3's counterpart.

    Returns
    -------
    Fit

    Raises
    ------
    EstimationError
        If the design is singular, there are too few rows, or a binary model separates.

    References
    ----------
    MacKinnon, Nielsen and Webb (2023). Cluster-robust inference: a guide to empirical practice.
    Journal of Econometrics 232(2), section 3 (CV3, with G - 1 degrees of freedom).
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
        coef, iterations = solve_irls(x, y, family)
        if not iterations:
            raise EstimationError(
                f"the {what} model does not converge: the design predicts some outcomes perfectly",
                hint="use fewer covariates, or a linear model",
            )
        mu, slope, hat_weight = _derivatives(family, x @ coef)
        score = hat_weight * (y - mu) / slope
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
    return Fit(
        family=family,
        names=names,
        coef=coef,
        covariance=covariance,
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
