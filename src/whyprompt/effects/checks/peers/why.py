"""Where a tool's figure departs from ours, found by giving our code the tool's settings and score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import format_number
from whyprompt.effects.estimate import estimated
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.problem import Problem

    Floats = NDArray[np.float64]


# DoWhy moves scores into this range before it weighs.
_CLIP = (0.05, 0.95)


@dataclass(frozen=True, kw_only=True)
class Twin:
    """Our code as the tool is set up: with its settings or model and our score, and with its score as well.

    `ties` are the smallest and the largest figure that the tool's rule allows.
    """

    settings: float | None
    both: float | None
    why: tuple[str, ...]
    ties: tuple[float, float] | None = None


_RIDGE = "a ridge-penalised logistic regression on columns as they are"


def _again(problem: Problem, score: Floats, **options: Any) -> float | None:  # noqa: ANN401
    import pandas as pd

    inside = np.clip(score, 1e-12, 1 - 1e-12)
    table = pd.DataFrame({"arm": problem.treated.astype(int), "y": problem.y, "score": inside})
    try:
        found = estimated(
            table, treatment="arm", outcome="y", confounders=[], propensity="score", **options
        ).result
    except EstimationError:
        return None
    return found.estimate


def _apart(score: Floats, ours: Floats, how: str) -> str:
    far = format_number(float(np.abs(score - ours).max()), digits=2)
    return f"its score is {how}: it is off ours by up to {far}"


def _tied(score: Floats) -> str | None:
    n = len(score) - len(np.unique(score))
    if not n:
        return None
    return f"{n} rows share their score with another: of rows equally near it takes one as they come"


def _tie_range(
    problem: Problem, score: Floats, estimand: str, *, caliper: float = np.inf
) -> tuple[float, float]:
    """Give the smallest and largest mean difference to a nearest row of the other arm, within a caliper."""
    t, y = problem.treated, problem.y
    total, ends = 0, np.zeros(2)
    for focal, sign in ((t, 1.0), (~t, -1.0)):
        if estimand != "ate" and (estimand == "att") != (sign > 0):
            continue
        order = np.argsort(score[~focal], kind="stable")
        other, outcome = score[~focal][order], y[~focal][order]
        values, first = np.unique(other, return_index=True)
        low = np.minimum.reduceat(outcome, first)
        high = np.maximum.reduceat(outcome, first)
        at = np.searchsorted(values, score[focal])
        left, right = np.clip(at - 1, 0, None), np.clip(at, None, len(values) - 1)
        gap = np.stack([np.abs(score[focal] - values[left]), np.abs(values[right] - score[focal])])
        # A tree compares squared distances: what differs by rounding alone is equally near.
        near = gap <= gap.min(axis=0) + 1e-12
        lowest = np.where(near, low[np.stack([left, right])], np.inf).min(axis=0)
        highest = np.where(near, high[np.stack([left, right])], -np.inf).max(axis=0)
        apart = np.stack([sign * (y[focal] - highest), sign * (y[focal] - lowest)])
        inside = gap.min(axis=0) < caliper
        ends += np.sort(apart, axis=0)[:, inside].sum(axis=1)
        total += int(inside.sum())
    return float(ends[0] / total), float(ends[1] / total)


def dowhy_matching(problem: Problem, ours: Floats, score: Floats, estimand: str) -> Twin:
    """Nearest neighbour with replacement, without a caliper, on a ridge logistic score."""
    options = {"method": "nearest", "replace": True, "estimand": estimand}
    why = [
        "it matches with replacement and without a caliper: every row gets a match, however far",
        _apart(score, ours, _RIDGE),
        _tied(score),
        "it gives no standard error; its bootstrap fails for such matches (Abadie and Imbens 2008)",
    ]
    return Twin(
        settings=_again(problem, ours, **options),
        both=_again(problem, score, **options),
        why=tuple(w for w in why if w),
        ties=_tie_range(problem, score, estimand) if len(np.unique(score)) < len(score) else None,
    )


def dowhy_weighting(problem: Problem, ours: Floats, score: Floats, estimand: str) -> Twin:
    """Normalised inverse weights on a ridge logistic score moved into 0.05 to 0.95."""
    inside = np.clip(ours, *_CLIP)
    moved = int((inside != ours).sum())
    options = {"method": "ipw", "estimand": estimand}
    low, high = _CLIP
    return Twin(
        settings=_again(problem, inside, **options),
        both=_again(problem, score, **options),
        why=(
            f"it moves scores into {low} to {high}: {moved} by our score, each a change of the estimand",
            _apart(score, inside, _RIDGE),
            "it gives no standard error",
        ),
    )


def causalml_matching(
    problem: Problem, ours: Floats, score: Floats, estimand: str, *, caliper: float, replace: bool
) -> Twin:
    """Greedy matches in the order of the table, within a caliper in standard deviations of the score."""

    def run(of: Floats) -> float | None:
        return _again(
            problem,
            of,
            method="nearest",
            estimand=estimand,
            replace=replace,
            caliper=float(caliper * np.std(of)),
            caliper_unit="raw",
            **({} if replace else {"order": "data"}),
        )

    why = [
        f"its caliper is {caliper:g} standard deviations of the score over all rows; rows choose in the order"
        " of the table"
        if not replace
        else f"its caliper is {caliper:g} standard deviations of the score over all rows",
        _apart(score, ours, "an elastic-net logistic regression, its penalty chosen by cross-validation"),
        _tied(score),
        "it gives the rows it keeps, and no estimate or error: this is the difference of their means",
    ]
    ties = None
    if replace and len(np.unique(score)) < len(score):
        ties = _tie_range(problem, score, estimand, caliper=float(caliper * np.std(score)))
    return Twin(settings=run(ours), both=run(score), why=tuple(w for w in why if w), ties=ties)


def learner(problem: Problem, key: str) -> Twin:
    """Give what a learner with straight lines comes to, in closed form."""
    X, t, y = problem.design.matrix, problem.treated, problem.y
    Z = np.column_stack([np.ones(len(y)), X])
    both: float | None = None
    why: tuple[str, ...] = (
        "it estimates what our aipw does, with other folds and an elastic-net score",
        "hold the difference against the standard errors",
    )
    if key == "s_learner":
        both = float(np.linalg.lstsq(np.column_stack([t.astype(float), Z]), y, rcond=None)[0][0])
        why = (
            "it is the arm's coefficient in one least-squares fit: one effect for all rows",
            "its standard error takes that line for true, and the spread for the same in every row",
        )
    elif key != "dr_learner":
        lines = [np.linalg.lstsq(Z[arm], y[arm], rcond=None)[0] for arm in (t, ~t)]
        both = float((Z @ (lines[0] - lines[1])).mean())
        same = ("with straight lines it is the T-learner, whatever its score",) if key == "x_learner" else ()
        why = (
            "it draws each arm's line out to all rows: no weighting corrects what the lines miss",
            *same,
            "its interval is that of residuals, and leaves out that the lines are estimated",
        )
    return Twin(settings=both, both=both, why=why)
