"""Robustness values of a regression estimate, benchmarked against observed covariates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from whyprompt._words import format_number
from whyprompt.errors import DataError, EstimationError
from whyprompt.results import Check, Estimate
from whyprompt.stats.influence import clean_arrays, with_intercept

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "BenchmarkBound",
    "PartialR2Bounds",
    "adjusted_estimate",
    "contour",
    "partial_r2_bounds",
    "robustness_value",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkBound(Estimate):
    """The effect adjusted, towards zero, for a confounder as strong as an observed covariate, or stronger.

    Attributes
    ----------
    benchmark : str
        The covariate (or group of them).
    times : float
        How many times as strong.
    r2_treatment, r2_outcome : float
        Bounds on the confounder's partial R-squared with the treatment and with the outcome.
    """

    benchmark: str
    times: float
    r2_treatment: float
    r2_outcome: float


@dataclass(frozen=True, kw_only=True)
class PartialR2Bounds(Check):
    """Sensitivity of a regression estimate to unmeasured confounders, a `BenchmarkBound` a part.

    Attributes
    ----------
    parts : tuple of BenchmarkBound
        One for each benchmark and strength.
    partial_r2 : float
        Of the treatment with the outcome: a confounder that explains all residual variance of the outcome
        must explain this share of the treatment's to undo the estimate.
    robustness_value : float
        The partial R-squared with both that brings the estimate down by ``q``.
    robustness_value_alpha : float
        That makes it insignificant at level ``alpha``; 0 where it is.
    q, alpha : float
        As given.
    not_bounded : tuple of (str, float)
        Benchmarks and strengths whose bound cannot be computed: no confounder of that kind is possible, or it
        would explain all there is. Nothing is said of them.
    """

    parts: tuple[BenchmarkBound, ...] = ()
    partial_r2: float
    robustness_value: float
    robustness_value_alpha: float
    q: float
    alpha: float
    not_bounded: tuple[tuple[str, float], ...] = ()

    def with_bounds(
        self, bounds: Sequence[BenchmarkBound], *, not_bounded: Sequence[tuple[str, float]] = ()
    ) -> PartialR2Bounds:
        """Return the same check with other benchmark bounds.

        Parameters
        ----------
        bounds : sequence of BenchmarkBound
            Of the same regression.
        not_bounded : sequence of (str, float)
            Benchmarks and strengths asked for whose bound cannot be computed.

        Returns
        -------
        PartialR2Bounds
        """
        words = _sentence(
            self.estimate,
            self.robustness_value,
            self.robustness_value_alpha,
            q=self.q,
            alpha=self.alpha,
            bounds=bounds,
            not_bounded=not_bounded,
        )
        return replace(self, parts=tuple(bounds), not_bounded=tuple(not_bounded), sentence=words)


def robustness_value(t_statistic: float, df: int, *, q: float = 1.0, alpha: float = 1.0) -> float:
    """Compute the robustness value of a regression coefficient.

    Parameters
    ----------
    t_statistic : float
        Of the coefficient.
    df : int
        Residual degrees of freedom.
    q : float, default 1
        Share of the estimate to be explained away.
    alpha : float, default 1
        Level at which it must become insignificant; 1 asks about the estimate itself.

    Returns
    -------
    float
        Between 0 and 1.

    References
    ----------
    Cinelli and Hazlett (2020). Making sense of sensitivity. JRSS B 82, equations 5 and 8 (and, where the
    treatment's partial R-squared binds, Cinelli and Hazlett 2022, section 4.2).

    Examples
    --------
    >>> round(robustness_value(1.98167775216043, 604), 6)
    0.077448
    """
    from scipy import stats

    if df < 2:
        raise EstimationError(f"df={df}: at least two residual degrees of freedom are needed")
    f = q * abs(t_statistic) / np.sqrt(df)
    critical = float(stats.t.isf(alpha / 2, df - 1)) / np.sqrt(df - 1) if alpha < 1 else 0.0
    excess = f - critical
    if excess <= 0:
        return 0.0
    if critical > 0 and f > 1 / critical:
        return float((f**2 - critical**2) / (1 + f**2))
    return float((np.sqrt(excess**4 + 4 * excess**2) - excess**2) / 2)


def adjusted_estimate(
    estimate: float, std_error: float, df: float, r2_treatment: ArrayLike, r2_outcome: ArrayLike
) -> tuple[Floats, Floats]:
    """Adjust a regression coefficient for a confounder of given strength, towards zero.

    Parameters
    ----------
    estimate, std_error : float
        The coefficient.
    df : int
        Residual degrees of freedom.
    r2_treatment, r2_outcome : array_like
        The confounder's partial R-squared with the treatment and with the outcome; broadcast.

    Returns
    -------
    estimate, std_error : ndarray
        After adjustment.

    Raises
    ------
    EstimationError
        If an R-squared is outside [0, 1), or one with the outcome above 1.

    References
    ----------
    Cinelli and Hazlett (2020), equations 3 and 4.

    Examples
    --------
    >>> after, _ = adjusted_estimate(2.0, 0.5, 100, 0.1, 0.2)
    >>> round(float(after), 4)
    1.2546
    """
    d, y = np.asarray(r2_treatment, dtype=float), np.asarray(r2_outcome, dtype=float)
    if not (((d >= 0) & (d < 1)).all() and ((y >= 0) & (y <= 1)).all()):
        raise EstimationError("a partial R-squared lies between 0 and 1 (below 1 for the treatment)")
    bias = np.sqrt(y * d / (1 - d)) * std_error * np.sqrt(df)
    error = np.sqrt((1 - y) / (1 - d)) * std_error * np.sqrt(df / (df - 1))
    return np.asarray(estimate - np.sign(estimate) * bias), np.asarray(error)


def contour(
    report: PartialR2Bounds,
    *,
    r2_treatment: ArrayLike | None = None,
    r2_outcome: ArrayLike | None = None,
    value: Literal["estimate", "t"] = "estimate",
) -> tuple[Floats, Floats, Floats]:
    """Evaluate the adjusted estimate, or its t statistic, on a grid of confounder strengths.

    Parameters
    ----------
    report : PartialR2Bounds
        From `partial_r2_bounds`.
    r2_treatment, r2_outcome : array_like, optional
        The grid; by default 41 values from 0 to 0.4 (or 1.3 times the strongest bound, up to 0.95).
    value : {"estimate", "t"}, default "estimate"
        What to evaluate.

    Returns
    -------
    r2_treatment : ndarray, shape (a,)
        Columns of the grid.
    r2_outcome : ndarray, shape (b,)
        Rows of the grid.
    values : ndarray, shape (b, a)
        The adjusted estimate or t.

    References
    ----------
    Cinelli and Hazlett (2020), section 5.1.

    Examples
    --------
    >>> x = np.arange(8.0)[:, None] % 3
    >>> report = partial_r2_bounds(np.arange(8.0), [0, 1] * 4, x)
    >>> contour(report, r2_treatment=[0.0], r2_outcome=[0.0])[2].item() == report.estimate
    True
    """
    if value not in {"estimate", "t"}:
        raise EstimationError(f"value={value!r}: choose 'estimate' or 't'")
    tops = [
        1.3 * max((getattr(b, name) for b in report.parts), default=0.0)
        for name in ("r2_treatment", "r2_outcome")
    ]
    axes = [
        np.linspace(0, min(0.95, max(0.4, top)), 41)
        if given is None
        else np.atleast_1d(np.asarray(given, float))
        for given, top in zip((r2_treatment, r2_outcome), tops, strict=True)
    ]
    assert report.std_error is not None
    assert report.df is not None
    after, error = adjusted_estimate(
        report.estimate, report.std_error, report.df, axes[0][None, :], axes[1][:, None]
    )
    if value == "estimate":
        return axes[0], axes[1], after
    with np.errstate(divide="ignore"):
        # A confounder that explains the outcome wholly leaves no error.
        return axes[0], axes[1], after / error


def _regress(y: Floats, design: Floats) -> tuple[Floats, Floats, int, Floats]:
    """Least squares: coefficients, residuals, rank and the inverse cross-product."""
    scale = np.maximum(np.abs(design).max(axis=0), 1e-300)
    u, s, vt = np.linalg.svd(design / scale, full_matrices=False)
    keep = s > s[0] * 1e-10
    inverse = (vt[keep].T / s[keep] ** 2) @ vt[keep] / np.outer(scale, scale)
    coef = (vt[keep].T @ ((u[:, keep].T @ y) / s[keep])) / scale
    return coef, y - design @ coef, int(keep.sum()), inverse


def partial_r2_bounds(
    y: ArrayLike,
    t: ArrayLike,
    X: ArrayLike,
    *,
    benchmarks: Mapping[str, Sequence[int]] | Sequence[str] = (),
    times: Sequence[float] = (1.0, 2.0, 3.0),
    names: Sequence[str] | None = None,
    q: float = 1.0,
    alpha: float = 0.05,
) -> PartialR2Bounds:
    """Ask how strong a confounder must be to overturn a regression estimate, measured in observed covariates.

    Parameters
    ----------
    y, t : array_like, shape (n,)
        Outcome and treatment.
    X : array_like, shape (n, p)
        Covariates, numeric, without an intercept.
    benchmarks : sequence of str, or mapping of str to sequence of int
        Columns of `X` to compare a confounder with, by name; or named groups of columns (all dummies of one
        variable).
    times : sequence of float, default (1, 2, 3)
        How many times as strong as the benchmark, with the treatment and with the outcome.
    names : sequence of str, optional
        Columns of `X`.
    q : float, default 1
        Share of the estimate to be explained away.
    alpha : float, default 0.05
        Level of the intervals and of the second robustness value.

    Returns
    -------
    PartialR2Bounds

    Raises
    ------
    DataError
        If a value is missing or infinite, or a benchmark is not a covariate.
    EstimationError
        If the treatment is constant or determined by the covariates, or a bound cannot hold (a confounder
        that many times as strong would explain the treatment, or the outcome, wholly).

    References
    ----------
    Cinelli and Hazlett (2020), section 4.4 and appendix B.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(300, 1))
    >>> t = (x[:, 0] + rng.normal(size=300) > 0).astype(float)
    >>> y = 2 * t + x[:, 0] / 2 + rng.normal(size=300)
    >>> report = partial_r2_bounds(y, t, x, benchmarks=["x0"], times=[1])
    >>> report.parts[0].benchmark, report.robustness_value > 0.4
    ('x0', True)
    """
    from scipy import stats

    matrix, columns, clean = clean_arrays(
        np.asarray(X), names, outcome=np.asarray(y), treatment=np.asarray(t)
    )
    outcome, treatment = clean["outcome"], clean["treatment"]
    _check_strengths(times, q, alpha)
    groups = _groups(benchmarks, columns)
    base = with_intercept(matrix)
    _, left, rank, _ = _regress(treatment, base)
    if left @ left <= 1e-12 * max(1.0, float(treatment @ treatment)):
        raise EstimationError("the treatment is constant or determined by the covariates")
    df = len(outcome) - rank - 1
    if df < 2:
        raise EstimationError(f"{len(outcome)} rows are too few for {rank} covariates")
    design = np.column_stack([treatment, base])
    coef, residual, _, inverse = _regress(outcome, design)
    estimate = float(coef[0])
    std_error = float(np.sqrt(residual @ residual / df * inverse[0, 0]))
    spread = outcome - outcome.mean()
    if spread @ spread <= 1e-24 * (outcome @ outcome):
        raise EstimationError("the outcome is constant: there is no effect to confound")
    if residual @ residual <= 1e-20 * (spread @ spread):
        raise EstimationError("the regression fits the outcome without error; nothing is left to confound")
    bounds = []
    for label, members in groups.items():
        others = np.delete(base, [j + 1 for j in members], axis=1)
        r2_d = _group_r2(treatment, base, others)
        r2_y = _group_r2(outcome, design, np.column_stack([treatment, others]))
        for k in times:
            r2_treatment, r2_outcome = _bound(r2_d, r2_y, k, label)
            after, error = adjusted_estimate(estimate, std_error, df, r2_treatment, r2_outcome)
            margin = float(stats.t.isf(alpha / 2, df)) * float(error)
            bounds.append(
                BenchmarkBound(
                    label=f"{strength_words([k])} {label!r}",
                    benchmark=label,
                    times=float(k),
                    r2_treatment=r2_treatment,
                    r2_outcome=r2_outcome,
                    estimate=float(after),
                    std_error=float(error),
                    ci_low=float(after) - margin,
                    ci_high=float(after) + margin,
                )
            )
    t_statistic = estimate / std_error
    value, value_alpha = (robustness_value(t_statistic, df, q=q, alpha=a) for a in (1.0, alpha))
    margin = float(stats.t.isf(alpha / 2, df)) * std_error
    return PartialR2Bounds(
        name="partial R2",
        verdict="untestable",
        overall=Estimate(
            label="regression",
            estimate=estimate,
            std_error=std_error,
            ci_low=estimate - margin,
            ci_high=estimate + margin,
            p_value=float(2 * stats.t.sf(abs(t_statistic), df)),
            df=df,
        ),
        parts=tuple(bounds),
        level=1 - alpha,
        partial_r2=t_statistic**2 / (t_statistic**2 + df),
        robustness_value=value,
        robustness_value_alpha=value_alpha,
        q=q,
        alpha=alpha,
        sentence=_sentence(estimate, value, value_alpha, q=q, alpha=alpha, bounds=bounds),
    )


def _check_strengths(times: Sequence[float], q: float, alpha: float) -> None:
    for k in times:
        if not (np.isfinite(k) and k > 0):
            raise EstimationError(f"times={k}: how many times as strong is a positive number")
    if not (np.isfinite(q) and q > 0):
        raise EstimationError(f"q={q}: the share of the estimate to be explained away is a positive number")
    if not 0 < alpha < 1:
        raise EstimationError(f"alpha={alpha}: the level lies between 0 and 1")


def _sentence(
    estimate: float,
    value: float,
    value_alpha: float,
    *,
    q: float,
    alpha: float,
    bounds: Sequence[BenchmarkBound],
    not_bounded: Sequence[tuple[str, float]] = (),
) -> str:
    what = "to zero" if q == 1 else f"down by {q:.0%}"
    words = (
        f"A confounder that explains {value:.1%} of what is left of both the treatment and the outcome would"
        f" bring the regression estimate of {format_number(estimate)} {what}; one weaker in both would not. "
    )
    words += (
        f"It is not significant at level {alpha:g} as it stands."
        if value_alpha == 0
        else f"{value_alpha:.1%} of both would make it insignificant at level {alpha:g}."
    )
    return words if value_alpha == 0 else words + _bound_words(estimate, bounds, not_bounded)


def _bound_words(
    estimate: float, bounds: Sequence[BenchmarkBound], not_bounded: Sequence[tuple[str, float]]
) -> str:
    """Say what each bound does to a significant estimate: leaves it, leaves its sign open, or turns it."""
    sign = 1.0 if estimate > 0 else -1.0
    nearest = {id(b): min(sign * end for end in b.ends) for b in bounds}
    furthest = {id(b): max(sign * end for end in b.ends) for b in bounds}
    left = [b for b in bounds if nearest[id(b)] > 0]
    turned = [b for b in bounds if furthest[id(b)] < 0]
    open_ = [b for b in bounds if nearest[id(b)] <= 0 <= furthest[id(b)]]
    words = ""
    if left:
        named = dict.fromkeys(b.benchmark for b in left)
        if len(left) == len(bounds) and not not_bounded and len({b.times for b in left}) == 1:
            words += f" A confounder {strength_words([left[0].times])} any benchmark ({', '.join(named)})"
        else:
            words += f" A confounder {_strengths((b.benchmark, b.times) for b in left)}"
        words += " would leave it significant."
    for found, what in ((open_, "leave its sign open"), (turned, "reverse its sign")):
        if found:
            first = min(found, key=lambda b: (b.times, sign * (b.estimate or 0.0)))
            at = "" if len(found) == 1 else f"{strength_words([first.times])} {first.benchmark!r}: "
            words += (
                f" One {_strengths((b.benchmark, b.times) for b in found)} could {what}"
                f" ({at}{format_number(first.estimate)}, {format_number(first.ci_low)} to"
                f" {format_number(first.ci_high)})."
            )
    if not_bounded:
        words += f" For one {_strengths(not_bounded)} no bound can be computed, and nothing is said of it."
    return words


def _strengths(pairs: Iterable[tuple[str, float]]) -> str:
    by: dict[str, list[float]] = {}
    for name, times in pairs:
        by.setdefault(name, []).append(times)
    return ", or ".join(f"{strength_words(times)} {name!r}" for name, times in by.items())


def strength_words(times: Sequence[float]) -> str:
    shown = [f"{k:g}" for k in sorted(times)]
    if shown == ["1"]:
        return "as strong as"
    listed = " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
    return f"{listed} times as strong as"


def _groups(
    benchmarks: Mapping[str, Sequence[int]] | Sequence[str], columns: tuple[str, ...]
) -> dict[str, list[int]]:
    if not hasattr(benchmarks, "items"):
        unknown = [name for name in benchmarks if name not in columns]
        if unknown:
            raise DataError(
                f"benchmark {unknown[0]!r} is not a covariate",
                hint=f"the covariates are {', '.join(columns)}",
            )
        return {name: [columns.index(name)] for name in benchmarks}
    groups = {label: list(members) for label, members in benchmarks.items()}
    for label, members in groups.items():
        if not members or not all(0 <= j < len(columns) for j in members):
            raise DataError(
                f"benchmark {label!r}: columns {members} are not all among 0 to {len(columns) - 1}"
            )
    return groups


def _group_r2(y: Floats, whole: Floats, without: Floats) -> float:
    """Partial R-squared of the columns that `whole` has and `without` has not."""
    full, reduced = (_regress(y, design)[1] for design in (whole, without))
    return float(1 - full @ full / (reduced @ reduced))


def _bound(r2_d: float, r2_y: float, k: float, label: str) -> tuple[float, float]:
    r2_treatment = k * r2_d / (1 - r2_d)
    if r2_treatment >= 1 or k * r2_d >= 1:
        raise EstimationError(
            f"a confounder {strength_words([k])} {label!r} would explain the treatment wholly",
            hint="ask for fewer times, or take another benchmark",
        )
    if r2_y >= 1.0 - 1e-12:
        raise EstimationError(
            f"{label!r} explains all that is left of the outcome; no confounder can be as strong",
            hint="take another benchmark",
        )
    overlap = k * r2_d**2 / ((1 - k * r2_d) * (1 - r2_d))
    if overlap >= 1:
        raise EstimationError(
            f"a confounder {strength_words([k])} {label!r} is not possible", hint="ask for fewer times"
        )
    share = ((np.sqrt(k) + np.sqrt(overlap)) / np.sqrt(1 - overlap)) ** 2 * r2_y / (1 - r2_y)
    if not share < 1.0 - 1e-12:
        raise EstimationError(
            f"a confounder {strength_words([k])} {label!r} would explain all that is left of the outcome,"
            " and more: the bound says nothing",
            hint="ask for fewer times, or take another benchmark",
        )
    return r2_treatment, float(share)
