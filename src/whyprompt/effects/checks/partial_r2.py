"""Robustness values of a regression estimate, benchmarked against observed covariates."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import format_number, listed
from whyprompt.errors import DataError, EstimationError
from whyprompt.results import Check, Estimate
from whyprompt.stats.influence import clean_arrays, with_intercept

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


def robustness_value(t_statistic: float, df: int, *, q: float = 1.0, alpha: float = 1.0) -> float:
    """Compute the robustness value of a regression coefficient, between 0 and 1.

    `q` is the share of the estimate to be explained away, `alpha` the level at which it must become
    insignificant; 1 asks about the estimate itself.

    Source: Cinelli and Hazlett (2020). Making sense of sensitivity. JRSS B 82, equations 5 and 8 (and, where
    the treatment's partial R-squared binds, Cinelli and Hazlett 2022, section 4.2).

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
    """Adjust a coefficient and its error for a confounder of given strength, towards zero.

    `df` are the residual degrees of freedom; the confounder's partial R-squared with the treatment and with
    the outcome broadcast. Refuses one outside [0, 1), or one with the outcome above 1.

    Source: Cinelli and Hazlett (2020), equations 3 and 4.

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
    strict: bool = True,
) -> Check:
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
    strict : bool, default True
        Refuse a bound that cannot be computed; else leave it out.

    Returns
    -------
    Check
        Its parts, one for each benchmark and strength: the effect adjusted, towards zero, for a confounder
        ``times`` as strong as the ``benchmark``, with the bounds ``r2_treatment`` and ``r2_outcome`` on its
        partial R-squared with the treatment and with the outcome. Its figures:

        - ``partial_r2`` of the treatment with the outcome: a confounder that explains all residual variance
          of the outcome must explain this share of the treatment's to undo the estimate;
        - ``robustness_value``, the partial R-squared with both that brings the estimate down by ``q``;
        - ``robustness_value_alpha``, that makes it insignificant at level ``alpha``; 0 where it is;
        - ``not_bounded``, benchmarks and strengths whose bound cannot be computed, of which nothing is said,
          and ``reasons``, why each cannot.

    Raises
    ------
    DataError
        If a value is missing or infinite, or a benchmark is not a covariate.
    EstimationError
        If the treatment is constant or determined by the covariates, or a `strict` bound cannot hold (a
        confounder that many times as strong would explain the treatment, or the outcome, wholly).

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
    >>> report.parts[0]["benchmark"], report["robustness_value"] > 0.4
    ('x0', True)
    """
    from scipy import stats

    matrix, columns, clean = clean_arrays(
        np.asarray(X), names, outcome=np.asarray(y), treatment=np.asarray(t)
    )
    outcome, treatment = clean["outcome"], clean["treatment"]
    check_strengths(times)
    if not (np.isfinite(q) and q > 0):
        raise EstimationError(f"q={q}: the share of the estimate to be explained away is a positive number")
    if not 0 < alpha < 1:
        raise EstimationError(f"alpha={alpha}: the level lies between 0 and 1")
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
    quantile = float(stats.t.isf(alpha / 2, df))

    def row(label: str, value: float, error: float, **more: Any) -> Estimate:  # noqa: ANN401 - its fields
        low, high = value - quantile * error, value + quantile * error
        return Estimate(label=label, estimate=value, std_error=error, ci_low=low, ci_high=high, **more)

    bounds: list[Estimate] = []
    not_bounded: list[tuple[str, float]] = []
    reasons: list[str] = []
    for label, members in groups.items():
        others = np.delete(base, [j + 1 for j in members], axis=1)
        r2_d = _group_r2(treatment, base, others)
        r2_y = _group_r2(outcome, design, np.column_stack([treatment, others]))
        for k in map(float, times):
            try:
                r2_treatment, r2_outcome = _bound(r2_d, r2_y, k, label)
            except EstimationError as why:
                if strict:
                    raise
                reasons.append(why.message)
                not_bounded.append((label, k))
                continue
            after, error = map(float, adjusted_estimate(estimate, std_error, df, r2_treatment, r2_outcome))
            figures = {"benchmark": label, "times": k, "r2_treatment": r2_treatment, "r2_outcome": r2_outcome}
            bounds.append(row(f"{strength_words([k])} {label!r}", after, error, figures=figures))
    t_statistic = estimate / std_error
    value, value_alpha = (robustness_value(t_statistic, df, q=q, alpha=a) for a in (1.0, alpha))
    p = float(2 * stats.t.sf(abs(t_statistic), df))
    found = Check(
        sentence="",
        name="partial R2",
        verdict="untestable",
        overall=row("regression", estimate, std_error, p_value=p, df=df),
        parts=tuple(bounds),
        level=1 - alpha,
        figures={
            "partial_r2": t_statistic**2 / (t_statistic**2 + df),
            "robustness_value": value,
            "robustness_value_alpha": value_alpha,
            "q": q,
            "alpha": alpha,
            "not_bounded": tuple(not_bounded),
            "reasons": tuple(reasons),
        },
    )
    return replace(found, sentence=_sentence(found))


def check_strengths(times: Sequence[float]) -> None:
    """Refuse a strength that is none."""
    for k in times:
        if not (np.isfinite(k) and k > 0):
            raise EstimationError(f"times={k}: how many times as strong is a positive number")


def _sentence(found: Check) -> str:
    q, alpha, estimate = found["q"], found["alpha"], format_number(found.estimate)
    value, value_alpha = found["robustness_value"], found["robustness_value_alpha"]
    what = "to zero" if q == 1 else f"down by {q:.0%}"
    words = (
        f"A confounder that explains {value:.1%} of what is left of both the treatment and the outcome would"
        f" bring the regression estimate of {estimate} {what}; one weaker in both would not. "
    )
    words += (
        f"It is not significant at level {alpha:g} as it stands."
        if value_alpha == 0
        else f"{value_alpha:.1%} of both would make it insignificant at level {alpha:g}."
    )
    return words if value_alpha == 0 else words + _bound_words(found)


def _bound_words(check: Check) -> str:
    """Say what each bound does to a significant estimate: leaves it, leaves its sign open, or turns it."""
    bounds, not_bounded = check.parts, check["not_bounded"]
    sign = 1.0 if (check.estimate or 0.0) > 0 else -1.0
    nearest = {id(b): min(sign * end for end in b.ends) for b in bounds}
    furthest = {id(b): max(sign * end for end in b.ends) for b in bounds}
    left = [b for b in bounds if nearest[id(b)] > 0]
    turned = [b for b in bounds if furthest[id(b)] < 0]
    open_ = [b for b in bounds if nearest[id(b)] <= 0 <= furthest[id(b)]]
    words = ""
    if left:
        named = dict.fromkeys(b["benchmark"] for b in left)
        if len(left) == len(bounds) and not not_bounded and len({b["times"] for b in left}) == 1:
            words += f" A confounder {strength_words([left[0]['times']])} any benchmark ({', '.join(named)})"
        else:
            words += f" A confounder {_strengths((b['benchmark'], b['times']) for b in left)}"
        words += " would leave it significant."
    for found, what in ((open_, "leave its sign open"), (turned, "reverse its sign")):
        if found:
            first = min(found, key=lambda b: (b["times"], sign * (b.estimate or 0.0)))
            at = "" if len(found) == 1 else f"{strength_words([first['times']])} {first['benchmark']!r}: "
            words += (
                f" One {_strengths((b['benchmark'], b['times']) for b in found)} could {what}"
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
    """Write strengths: "as strong as", "2 or 3 times as strong as"."""
    shown = [f"{k:g}" for k in sorted(times)]
    if shown == ["1"]:
        return "as strong as"
    return f"{listed(shown, joint='or')} times as strong as"


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
    one = f"a confounder {strength_words([k])} {label!r}"
    other = "take another benchmark"
    r2_treatment = k * r2_d / (1 - r2_d)
    if r2_treatment >= 1 or k * r2_d >= 1:
        raise EstimationError(
            f"{one} would explain the treatment wholly", hint=f"ask for fewer times, or {other}"
        )
    if r2_y >= 1.0 - 1e-12:
        raise EstimationError(
            f"{label!r} explains all that is left of the outcome; no confounder can be as strong", hint=other
        )
    overlap = k * r2_d**2 / ((1 - k * r2_d) * (1 - r2_d))
    if overlap >= 1:
        raise EstimationError(f"{one} is not possible", hint="ask for fewer times")
    share = ((np.sqrt(k) + np.sqrt(overlap)) / np.sqrt(1 - overlap)) ** 2 * r2_y / (1 - r2_y)
    if not share < 1.0 - 1e-12:
        raise EstimationError(
            f"{one} would explain all that is left of the outcome, and more: the bound says nothing",
            hint=f"ask for fewer times, or {other}",
        )
    return r2_treatment, float(share)
