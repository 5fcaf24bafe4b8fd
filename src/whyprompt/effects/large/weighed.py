"""Weights, and what each row adds to the two means, as expressions: one function a method.

Each names its columns in a relation, asks for the sums that its means need, and gives from them what a row
adds to the error of each mean; the formulas are those of `effects.methods`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from whyprompt.effects.large.rows import linear, literal
from whyprompt.effects.large.sums import (
    fit_logit,
    products,
    scaled,
    square,
    z_of,
)
from whyprompt.effects.methods.balancing import lowest_dual, refuse_outside
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from whyprompt.effects.large.rows import Rows
    from whyprompt.effects.large.sums import Means
    from whyprompt.effects.methods.entropy import Entropy
    from whyprompt.effects.methods.ipw import IPW
    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.methods.overlap import Overlap

    Floats = NDArray[np.float64]
    # Of the treated and of the control rows, the sums asked for; to the means and each one's influence.
    Finish = Callable[[Floats, Floats], tuple[tuple[float, float], tuple[str, str]]]


class Weighed(NamedTuple):
    """A method's rows, and the sums that `finish` needs of them by arm (`asked`).

    `relation` has ``t``, ``y``, ``v`` and ``u0``, ``u1``, ... (outcome and columns of the design, centred),
    the weight ``w``, ``r``, which is ``v`` or what an outcome model left of it (`modelled`), and ``e`` of a
    `score`.
    """

    relation: str
    asked: list[str]
    finish: Finish
    score: bool = False
    modelled: bool = False
    known: bool = False
    dropped: tuple[str, ...] | None = None
    settings: dict[str, Any] = {}  # noqa: RUF012 - never changed
    remarks: tuple[str, ...] = ()
    # A column of the places of rows in the table, or ``turn`` of those in their arm; empty where rows are in
    # the order of the files.
    place: str = ""
    # The column of the weights that chances alone give, and whether models were fitted to a sample.
    chances: str = "w"
    sampled: bool = False
    # The estimate of models that half as many rows teach, where there is one.
    from_fewer: Callable[[], float | None] | None = None
    # Pairs by the column ``pair``: rows without one have the weight 0. Of the rows used the ends of the
    # outcome by arm, a factor of the variance besides that of the pairs, and the name of the error.
    pairs: int = 0
    ends: tuple[tuple[float, float], tuple[float, float]] | None = None
    inflated: float = 1.0
    how: str = ""


def centred(rows: Rows, means: Means, relation: str | None = None) -> str:
    """Add ``v`` and ``u0``, ``u1``, ..., the outcome and the design's columns less their means."""
    made = [f"(y - {literal(means.centre[0])}) as v"]
    made += [
        f"({x} - {literal(c)}) as u{j}" for j, (x, c) in enumerate(zip(rows.x, means.centre[1:], strict=True))
    ]
    return f"(select *, {', '.join(made)} from {relation or rows.relation})"


def by_nothing(rows: Rows, means: Means) -> Weighed:
    """Weigh every row alike."""
    relation = f"(select *, 1.0::double as w, v as r from {centred(rows, means)})"
    c = means.centre[0]

    def finish(one: Floats, none: Floats) -> tuple[tuple[float, float], tuple[str, str]]:
        m = [part[0] / n for part, n in zip((one, none), means.n, strict=True)]
        return (m[0] + c, m[1] + c), (
            f"case when t then (v - {literal(m[0])}) / {means.n[0]} else 0.0 end",
            f"case when t then 0.0 else (v - {literal(m[1])}) / {means.n[1]} end",
        )

    return Weighed(relation, ["sum(v)"], finish)


# --------------------------------------------------------------------------------- inverse probability
def by_score(rows: Rows, means: Means, plan: Plan, method: IPW | Overlap) -> Weighed:
    """Weigh by a score: inverse probabilities, or the chance of the other arm."""
    stabilised = bool(getattr(method, "stabilised", False))
    if stabilised and plan.estimand != "ate":
        raise EstimationError("stabilised=True is defined for method='ipw' with estimand='ate'")
    dropped: tuple[str, ...] = ()
    if rows.known is not None:
        made = f"(select *, exp(ln(e / (1.0 - e))) as o from {centred(rows, means)})"
    else:
        fit = fit_logit(rows, means, rows.relation)
        dropped = fit.dropped
        made = f"(select *, {linear(fit.coef, rows.x)} as eta from {scaled(means, centred(rows, means))})"
        made = f"(select *, 1.0 / (1.0 + exp(-eta)) as e, exp(eta) as o from {made})"
    weight, slope = of_odds(plan.estimand)
    n = sum(means.n)
    if stabilised:
        share = f"case when t then {literal(means.n[0] / n)} else {literal(means.n[1] / n)} end"
        weight, slope = f"({weight}) * {share}", f"({slope}) * {share}"
    made = f"(select *, {weight} as w, {slope} as s, v as r from {made})"
    columns = ["1", *z_of(means)] if rows.known is None else []
    k = len(columns)
    asked = [
        "sum(w)",
        "sum(w * v)",
        *(f"sum(s * {z})" for z in columns),
        *(f"sum(s * v * {z})" for z in columns),
    ]
    asked += products(columns, "e * (1.0 - e)")

    def finish(one: Floats, none: Floats) -> tuple[tuple[float, float], tuple[str, str]]:
        m = [part[1] / part[0] for part in (one, none)]
        information = square(one[2 + 2 * k :] + none[2 + 2 * k :], k)
        parts = []
        for part, mean, mine in ((one, m[0], "t"), (none, m[1], "not t")):
            size = literal(part[0])
            text = f"case when {mine} then (v - {literal(mean)}) * w / {size} else 0.0 end"
            if k:
                # The coefficients move by their likelihood score over the information.
                moved = np.linalg.solve(information, part[2 + k : 2 + 2 * k] - mean * part[2 : 2 + k])
                text += f" + (t::double - e) * ({linear(moved, columns[1:])}) / {size}"
            parts.append(text)
        c = means.centre[0]
        return (m[0] + c, m[1] + c), (parts[0], parts[1])

    return Weighed(made, asked, finish, score=True, known=rows.known is not None, dropped=dropped)


def of_odds(estimand: str) -> tuple[str, str]:
    """Write the weight and its slope by the linear predictor, as functions of the odds ``o``."""
    if estimand == "ato":
        slope = "case when t then -o else o end / ((1.0 + o) * (1.0 + o))"
        return "case when t then 1.0 / (1.0 + o) else o / (1.0 + o) end", slope
    pair = {
        "ate": ("1.0 + 1.0 / o", "1.0 + o"),
        "att": ("1.0::double", "o"),
        "atc": ("1.0 / o", "1.0::double"),
    }
    one, none = pair[estimand]
    slopes = ("0.0::double" if estimand == "att" else "-1.0 / o", "0.0::double" if estimand == "atc" else "o")
    return f"case when t then {one} else {none} end", f"case when t then {slopes[0]} else {slopes[1]} end"


# ----------------------------------------------------------------------------------- entropy balancing
def by_entropy(rows: Rows, means: Means, plan: Plan, method: Entropy) -> Weighed:
    """Weigh so that the means of the columns are those of the rows that the effect is about."""
    used = np.flatnonzero(means.scale)
    if not len(used):
        raise EstimationError(
            f"no covariate varies among {', '.join(rows.design.names) or 'none given'}: there is nothing to"
            " balance",
            hint="method='naive' gives the plain difference",
        )
    n, scale = sum(means.n), means.scale[used]
    sums = [gram[0, 2:][used] for gram in means.grams]
    about = {"att": sums[0] / means.n[0], "atc": sums[1] / means.n[1]}.get(
        plan.estimand, sum(sums) / n
    ) / scale
    names = [rows.design.names[j] for j in used]
    q = [f"q{k}" for k in range(len(used))]
    moved = [
        f"u{j} * {literal(1.0 / s)} - {literal(m)} as {name}"
        for j, s, m, name in zip(used, scale, about, q, strict=True)
    ]
    given = f"(select *, {', '.join(moved)} from {centred(rows, means)})"
    weights = []
    for arm, (mine, estimand) in enumerate((("t", "att"), ("not t", "atc"))):
        if plan.estimand == estimand:
            weights.append("1.0::double")
            continue
        centre = means.grams[arm][0, 2:][used] / means.n[arm]
        spread = np.sqrt(np.diag(means.grams[arm])[2:][used] / means.n[arm] - centre**2) / scale
        middle = centre / scale - about
        spread = np.where(spread <= 1e-12 * np.abs(middle), 1.0, spread)
        ends = [
            ((end[arm][1:][used] - means.centre[1:][used]) / scale - about) / spread
            for end in (means.low, means.high)
        ]
        refuse_outside(ends[0], ends[1], names)
        multipliers, size = _dual(rows, f"(select * from {given} where {mine})", q, spread, names)
        eta = " + ".join(f"{literal(b)} * {name}" for b, name in zip(multipliers, q, strict=True))
        weights.append(f"exp({eta} - {literal(size)}) * {means.n[arm]}")
    relation = f"(select *, case when t then {weights[0]} else {weights[1]} end as w, v as r from {given})"
    columns = ["1", "v", *q]
    estimated = method.targets == "estimated"

    def finish(one: Floats, none: Floats) -> tuple[tuple[float, float], tuple[str, str]]:
        found, parts = [], []
        share = {"att": (n / means.n[0], 0.0), "atc": (0.0, n / means.n[1])}.get(plan.estimand, (1.0, 1.0))
        target = (
            f"case when t then {literal(share[0])} else {literal(share[1])} end"
            if estimated
            else "0.0::double"
        )
        for sums, mine, count, weight in (
            (one, "t", means.n[0], weights[0]),
            (none, "not t", means.n[1], weights[1]),
        ):
            gram = square(sums, len(columns)) * (n / count)
            mean = gram[0, 1] / n
            found.append(mean + means.centre[0])
            own = f"case when {mine} then w * {literal(n / count)} else 0.0 end"
            text = f"({own}) * (v - {literal(mean)})"
            if weight != "1.0::double":
                held = np.linalg.pinv(gram[2:, 2:], rcond=1e-12, hermitian=True)
                beta = held @ (gram[2:, 1] - mean * gram[2:, 0])
                text += f" + ({target} - ({own})) * ({linear([0.0, *beta], q)})"
            parts.append(f"({text}) / {n}")
        return (found[0], found[1]), (parts[0], parts[1])

    return Weighed(relation, products(columns, "w"), finish)


def _dual(rows: Rows, relation: str, q: list[str], spread: Floats, names: list[str]) -> tuple[Floats, float]:
    """Give the multipliers that balance an arm's rows, and the logarithm of their sum of exponentials."""
    level = 0.0

    def dual(multipliers: Floats) -> tuple[float, Floats, Floats]:
        nonlocal level
        eta = " + ".join(
            f"{literal(b / s)} * {name}" for b, s, name in zip(multipliers, spread, q, strict=True)
        )
        # Less what they came to before: exponentials then neither vanish nor overflow on the way.
        given = f"(select *, exp({eta} - {literal(level)}) as h from {relation})"
        found = np.array(rows.first(products(["1", *q], "h"), given), dtype=np.float64)
        gram = square(found, len(q) + 1)
        total = gram[0, 0]
        if not np.isfinite(found).all() or total <= 0:
            return np.inf, np.zeros(len(q)), np.eye(len(q))
        value = level + float(np.log(total))
        level = value
        return value, gram[0, 1:] / total / spread, gram[1:, 1:] / total / np.outer(spread, spread)

    multipliers = lowest_dual(dual, names)
    value, _, _ = dual(multipliers)
    return multipliers / spread, value
