"""Charts of balance and overlap: what the two arms' rows have in common, before and after adjustment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._words import counted, format_number
from whyprompt.charts.style import (
    BLUE,
    MUTED,
    VERMILION,
    coloured,
    data,
    finish,
    layered,
    rule_at,
    title_lines,
    told,
)
from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.rules import SMD_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable

    import altair as alt
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

_BINS = 30
_GRID = 160


def love_plot(balance: Iterable[Any], *, limit: float = SMD_LIMIT, width: int = 560) -> alt.LayerChart:
    """Draw standardised mean differences before and after adjustment.

    Parameters
    ----------
    balance : iterable of BalanceRow
        From a result's ``balance``, or `balance_table`.
    limit : float, default 0.1
        Above it a difference is called an imbalance.

    Returns
    -------
    altair.LayerChart

    Raises
    ------
    EstimationError
        If no covariate has a standardised difference.

    References
    ----------
    Austin (2009). Balance diagnostics for comparing the distribution of baseline covariates.
    Statistics in Medicine 28.
    """
    import altair as alt

    rows: list[dict[str, Any]] = []
    words = []
    for row in balance:
        before, after = (None if v is None else abs(float(v)) for v in (row.smd_before, row.smd_after))
        words.append(
            f"{row.covariate} {format_number(before, digits=2)} and {format_number(after, digits=2)}"
        )
        said = f"{row.covariate}: {format_number(before)} before, {format_number(after)} after"
        rows += [
            {"covariate": row.covariate, "when": when, "smd": value, "words": said}
            for when, value in (("before", before), ("after", after))
            if value is not None
        ]
    if not rows:
        raise EstimationError("no covariate has a standardised difference to draw")
    first = {r["covariate"]: r["smd"] for r in reversed(rows)}
    order = sorted(first, key=lambda name: -first[name])
    y = alt.Y("covariate:N", sort=order, title=None, scale=alt.Scale(domain=order))
    title = title_lines("absolute standardised mean difference", width)
    when = ["before", "after"]
    base = alt.Chart(data(rows)).encode(y=y)
    lines = base.mark_line(color=MUTED, opacity=0.5, aria=False).encode(
        x=alt.X("smd:Q", title=title), detail="covariate:N"
    )
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        x=alt.X("smd:Q", title=title),
        color=coloured("when", when, [VERMILION, BLUE], title="adjustment"),
        shape=alt.Shape(
            "when:N",
            title="adjustment",
            sort=when,
            scale=alt.Scale(domain=when, range=["triangle-up", "circle"]),
        ),
        **told(),
    )
    bound = rule_at(limit, "x")
    return layered(
        bound,
        lines,
        points,
        description="Balance: absolute standardised mean differences before and after adjustment. "
        + "; ".join(words)
        + f". The dashed line is {limit:g}.",
        width=width,
        height=24 * len(order) + 10,
    )


def _arms(
    values: ArrayLike, treated: ArrayLike, weights: ArrayLike | None, name: str
) -> tuple[Floats, Mask, Floats | None]:
    x, t = np.asarray(values, dtype=float), np.asarray(treated, dtype=bool)
    w = None if weights is None else np.asarray(weights, dtype=float)
    if x.ndim != 1 or x.shape != t.shape or (w is not None and w.shape != x.shape):
        raise DataError(f"{name}, treated and weights are one column each, of the same length")
    # Rows of arms that are not compared have no score.
    keep = ~np.isnan(x)
    x, t, w = x[keep], t[keep], None if w is None else w[keep]
    if not np.isfinite(x).all():
        raise DataError(f"{name} has infinite values")
    if w is not None and (not np.isfinite(w).all() or (w < 0).any()):
        raise DataError("weights are finite and not negative")
    if not t.any() or t.all():
        raise EstimationError(f"{name}: both arms need rows to be compared")
    return x, t, w


def overlap_plot(
    propensity: ArrayLike, treated: ArrayLike, weights: ArrayLike | None = None, *, width: int = 560
) -> alt.LayerChart:
    """Draw the propensity scores of both arms, the treated upwards and the controls downwards.

    Parameters
    ----------
    propensity : array_like, shape (n,)
        Probability of the treated arm; rows with NaN (of other arms) are left out.
    treated : array_like of bool, shape (n,)
    weights : array_like, shape (n,), optional
        Of the estimate: rows that it uses are drawn full, the others pale.

    Returns
    -------
    altair.LayerChart

    Raises
    ------
    DataError
        If the columns differ in length, or a score is not a probability.
    EstimationError
        If an arm has no rows.
    """
    import altair as alt

    score, t, w = _arms(propensity, treated, weights, "propensity")
    if ((score < 0) | (score > 1)).any():
        raise DataError("a propensity score is a probability, between 0 and 1")
    edges = np.linspace(0, 1, _BINS + 1)
    used = np.ones(len(score), bool) if w is None else w > 0
    states = ["used", "left out"]
    rows: list[dict[str, Any]] = []
    for arm, sign in ((True, 1), (False, -1)):
        name = "treated" if arm else "control"
        counts = {s: np.histogram(score[(t == arm) & (used == (s == "used"))], edges)[0] for s in states}
        for i in range(_BINS):
            at = 0
            for state in states:
                n = int(counts[state][i])
                if n:
                    words = f"{name}, score {edges[i]:.2f} to {edges[i + 1]:.2f}: {counted(n, 'row')} {state}"
                    ends = {"low": edges[i], "high": edges[i + 1], "from": sign * at, "to": sign * (at + n)}
                    rows.append({**ends, "arm": name, "state": state, "words": words})
                at += n
    bars = (
        alt.Chart(data(rows))
        .mark_rect()
        .encode(
            x=alt.X(
                "low:Q",
                title=title_lines("propensity score (probability of the treated arm)", width),
                scale=alt.Scale(domain=[0, 1]),
            ),
            x2="high:Q",
            y=alt.Y(
                "from:Q",
                title="rows: control below, treated above",
                axis=alt.Axis(labelExpr="abs(datum.value)", tickMinStep=1),
            ),
            y2="to:Q",
            color=coloured("arm", ["treated", "control"], [BLUE, VERMILION], title="arm"),
            opacity=alt.Opacity(
                "state:N",
                title="in the estimate",
                scale=alt.Scale(domain=states, range=[0.9, 0.3]),
                legend=None if w is None else alt.Legend(orient="top"),
            ),
            **told(),
        )
    )
    zero = rule_at(0, "y", dashed=False)
    spans = {a: (float(score[t == a].min()), float(score[t == a].max())) for a in (True, False)}
    words = "Propensity scores. " + " ".join(
        f"{name}: {int((t == a).sum())} rows from {format_number(spans[a][0])} to "
        f"{format_number(spans[a][1])}, {int((used & (t == a)).sum())} used."
        for a, name in ((True, "Treated"), (False, "Control"))
    )
    return layered(bars, zero, description=words, width=width, height=240)


def _curves(
    values: ArrayLike, treated: ArrayLike, weights: ArrayLike | None, name: str, kind: str, width: int
) -> alt.Chart:
    import altair as alt

    x, t, w = _arms(values, treated, weights, name)
    rows: list[dict[str, Any]] = []
    curve, interpolate, title, what = _KINDS[kind]
    stages = [("before", np.ones(len(x)))] + ([] if w is None else [("after", w)])
    for stage, weight in stages:
        for arm in (True, False):
            at, height = curve(x[t == arm], weight[t == arm], name)
            rows += [
                {"value": a, "height": h, "arm": "treated" if arm else "control", "stage": stage}
                for a, h in zip(at.tolist(), height.tolist(), strict=True)
            ]
    shown = [stage for stage, _ in stages]
    means = "; ".join(
        f"{stage}: treated mean {format_number(float(np.average(x[t], weights=weight[t])))}, control mean "
        f"{format_number(float(np.average(x[~t], weights=weight[~t])))}"
        for stage, weight in stages
    )
    out: alt.Chart = finish(
        alt.Chart(data(rows))
        .mark_line(strokeWidth=2, aria=False, interpolate=interpolate)
        .encode(
            x=alt.X("value:Q", title=name, scale=alt.Scale(zero=False)),
            y=alt.Y("height:Q", title=title),
            color=coloured("arm", ["treated", "control"], [BLUE, VERMILION], title="arm"),
            strokeDash=alt.StrokeDash(
                "stage:N",
                title="adjustment",
                sort=shown,
                scale=alt.Scale(domain=["before", "after"], range=[[4, 3], [1, 0]]),
                legend=None if w is None else alt.Legend(orient="top"),
            ),
        ),
        description=f"{what} of {name} in both arms. {means}.",
        width=width,
        height=220,
    )
    return out


def _density(x: Floats, w: Floats, name: str) -> tuple[Floats, Floats]:
    from scipy import stats

    x, w = x[w > 0], w[w > 0]
    if len(np.unique(x)) < 2:
        raise EstimationError(f"{name} does not vary within an arm: it has no density", hint="use ecdf_plot")
    kernel = stats.gaussian_kde(x, weights=w)
    reach = 3 * float(np.sqrt(kernel.covariance[0, 0]))
    at = np.linspace(x.min() - reach, x.max() + reach, _GRID)
    return at, np.asarray(kernel(at))


def _ecdf(x: Floats, w: Floats, name: str) -> tuple[Floats, Floats]:
    if not w.sum() > 0:
        raise EstimationError(f"{name}: an arm has no weight left")
    order = np.argsort(x, kind="stable")
    at, share = x[order], np.cumsum(w[order]) / w.sum()
    # Of equal values only the last step counts.
    last = np.append(at[1:] != at[:-1], [True])
    return np.concatenate([at[:1], at[last]]), np.concatenate([[0.0], share[last]])


# How a curve is computed and drawn, the title of its axis, and what several are called.
_KINDS: dict[str, tuple[Any, Literal["linear", "step-after"], str, str]] = {
    "density": (_density, "linear", "density", "Densities"),
    "ecdf": (_ecdf, "step-after", "share of rows at or below", "Distribution functions"),
}


def density_plot(
    values: ArrayLike,
    treated: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    name: str = "covariate",
    width: int = 560,
) -> alt.Chart:
    """Draw a covariate's density in both arms, before and (with weights) after adjustment.

    Parameters
    ----------
    values : array_like, shape (n,)
        Rows with NaN are left out.
    treated : array_like of bool, shape (n,)
    weights : array_like, shape (n,), optional
        Of the estimate.
    name : str
        Title of the axis, with its unit.

    Returns
    -------
    altair.Chart

    Raises
    ------
    EstimationError
        If an arm is empty or does not vary.

    Notes
    -----
    Gaussian kernel, Scott's bandwidth for the effective sample size.
    """
    return _curves(values, treated, weights, name, "density", width)


def ecdf_plot(
    values: ArrayLike,
    treated: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    name: str = "covariate",
    width: int = 560,
) -> alt.Chart:
    """Draw a covariate's distribution function in both arms, before and (with weights) after adjustment.

    Parameters
    ----------
    values, treated, weights, name
        As in `density_plot`.

    Returns
    -------
    altair.Chart

    Raises
    ------
    EstimationError
        If an arm is empty or has no weight.
    """
    return _curves(values, treated, weights, name, "ecdf", width)
