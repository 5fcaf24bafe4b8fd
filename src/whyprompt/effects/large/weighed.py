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
    least_squares,
    means_of,
    products,
    scaled,
    square,
    started,
    z_of,
)
from whyprompt.effects.methods.aipw import (
    HASHED,
    check_folds,
    hashed_sql,
    separated_without_a_fold,
)
from whyprompt.effects.methods.balancing import lowest_dual, refuse_outside
from whyprompt.errors import EstimationError
from whyprompt.stats.propensity import SeparatedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.large.rows import Rows
    from whyprompt.effects.large.sums import Means
    from whyprompt.effects.methods.aipw import AIPW
    from whyprompt.effects.methods.entropy import Entropy
    from whyprompt.effects.methods.ipw import IPW
    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.methods.overlap import Overlap

    Floats = NDArray[np.float64]
    # Of the treated and of the control rows, the sums asked for; to the means and each one's influence.
    Finish = Callable[[Floats, Floats], tuple[tuple[float, float], tuple[str, str]]]

# Rows of two arms of one size that are compared.
_COMPARED = 1_000


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
    # Whether `relation` has ``turn``, the place of a row in its arm.
    placed: bool = False


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
    weight, slope = _of_odds(plan.estimand)
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


def _of_odds(estimand: str) -> tuple[str, str]:
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


# ------------------------------------------------------------------------------- doubly robust estimates
def doubly_robust(rows: Rows, means: Means, plan: Plan, method: AIPW) -> Weighed:
    """Learn score and outcome by lines on the rows of the other folds, and put them together."""
    folds = method.settled_folds(means.n)
    if folds > 1:
        check_folds(folds, min(means.n), sum(means.n))
    given = centred(rows, means, _dealt(rows, means, folds, plan.random_state))
    columns = ["1", "v", *(f"u{j}" for j in range(len(rows.x)))]
    k = len(columns)
    asked = ", ".join(products(columns))
    grams = {
        (bool(t), int(fold)): square(np.array(sums, dtype=np.float64), k)
        for t, fold, *sums in rows.ask(f"select t, fold, {asked} from {given} group by t, fold")
    }
    arms = [sum(gram for (t, _), gram in grams.items() if t is mine) for mine in (True, False)]

    def trained(fold: int) -> list[Floats]:
        """Give the sums of the rows that a fold is predicted from, by arm."""
        if folds == 1:
            return [np.asarray(arm) for arm in arms]
        return [
            np.asarray(arm - grams.get((t, fold), 0.0)) for arm, t in zip(arms, (True, False), strict=True)
        ]

    wanted = {"att": (1,), "atc": (0,)}.get(plan.estimand, (0, 1))
    predicted = ["0.0::double", "0.0::double"]
    for column in wanted:
        lines = []
        for fold in range(folds):
            gram = trained(fold)[column]
            if len(rows.x) >= gram[0, 0]:
                raise EstimationError(
                    f"outcome_model='linear' has {len(rows.x)} columns for the {gram[0, 0]:.0f} rows of an"
                    " arm that it is fitted to",
                    hint="fewer confounders, or more with memory=",
                )
            lines.append(linear(least_squares(gram), columns[2:]))
        predicted[column] = _by_fold(lines)
    clip = literal(float(method.clip))
    clipped = ""
    if rows.known is not None:
        made = given
    else:
        score = _by_fold(_scores(rows, means, folds, given, trained))
        clipped = f"count(*) filter (e0 < {clip} or e0 > 1.0 - {clip})"
        made = f"(select *, 1.0 / (1.0 + exp(-({score}))) as e0 from {given})"
        made = f"(select *, least(greatest(e0, {clip}), 1.0 - {clip}) as e from {made})"
    weight, _ = _of_odds(plan.estimand)
    one, none, size = _PARTS[plan.estimand]
    made = f"(select *, e / (1.0 - e) as o, {predicted[0]} as p1, {predicted[1]} as p0 from {made})"
    made = (
        f"(select *, {one} as a1, {none} as a0, {size} as a, {weight} as w,"
        f" v - case when t then p1 else p0 end as r from {made})"
    )
    n_clipped = int(rows.first([clipped], made)[0]) if clipped else 0

    def finish(first: Floats, second: Floats) -> tuple[tuple[float, float], tuple[str, str]]:
        total = first + second
        m = total[:2] / total[2]
        parts = [
            f"(a{arm} - a * {literal(mean)}) / {literal(total[2])}" for arm, mean in ((1, m[0]), (0, m[1]))
        ]
        c = means.centre[0]
        return (m[0] + c, m[1] + c), (parts[0], parts[1])

    return Weighed(
        made,
        ["sum(a1)", "sum(a0)", "sum(a)"],
        finish,
        score=True,
        modelled=True,
        known=rows.known is not None,
        settings={"folds": folds, "splits": 1, "outcome_model": "linear"},
        remarks=method.remarks(sum(means.n), n_clipped, 0, 1),
        placed=folds > 1,
    )


# What a row adds to the treated and to the control mean, and how much it counts: `_parts` of `methods.aipw`.
_PARTS = {
    "att": (
        "case when t then v else 0.0 end",
        "case when t then p0 else o * (v - p0) end",
        "t::double",
    ),
    "atc": (
        "case when t then (v - p1) / o else p1 end",
        "case when t then 0.0 else v end",
        "1.0 - t::double",
    ),
    "ate": (
        "p1 + case when t then (v - p1) / e else 0.0 end",
        "p0 + case when t then 0.0 else (v - p0) / (1.0 - e) end",
        "1.0::double",
    ),
    "ato": (
        "(t::double - e) * (t::double - e) * p1 + case when t then (1.0 - e) * (v - p1) else 0.0 end",
        "(t::double - e) * (t::double - e) * p0 + case when t then 0.0 else e * (v - p0) end",
        "(t::double - e) * (t::double - e)",
    ),
}


def _by_fold(lines: Sequence[str]) -> str:
    if len(lines) == 1:
        return lines[0]
    return f"case fold {' '.join(f'when {k} then {line}' for k, line in enumerate(lines))} end"


def _scores(
    rows: Rows, means: Means, folds: int, given: str, trained: Callable[[int], list[Floats]]
) -> list[str]:
    """Fit the score of each fold on the rows of the others; each fit begins where the one before ended."""
    found: list[str] = []
    coef: Floats | None = None
    for fold in range(folds):
        of_rows = means_of(means, trained(fold))
        start = None if coef is None else started(of_rows, coef)
        relation = given if folds == 1 else f"(select * from {given} where fold <> {fold})"
        try:
            fit = fit_logit(rows, of_rows, relation, start=start)
        except SeparatedError as error:
            raise separated_without_a_fold(error) from None
        coef = fit.coef
        found.append(linear(coef, rows.x))
    return found


def _dealt(rows: Rows, means: Means, folds: int, random_state: int) -> str:
    """Deal the rows of each arm to folds, by their places in the order of their content, as in memory.

    ``turn`` is a row's place in its arm in the order of the files.
    """
    if folds == 1:
        return f"(select *, 0 as fold from {rows.relation})"
    order = ", ".join([*_content(rows), *(["e"] if rows.known is not None else []), "y"])
    arms = [(n, where) for n, where in zip(means.n, ("t", "not t"), strict=True)]
    if means.n[0] == means.n[1]:
        # Of two arms of one size that whose rows come first.
        arms.sort(
            key=lambda arm: rows.ask(
                f"select {order} from {rows.relation} where {arm[1]} order by all limit {_COMPARED}"
            )
        )
    else:
        arms.sort(key=lambda arm: -arm[0])
    rng = np.random.default_rng(random_state)
    offset = 0
    for number, (n, where) in enumerate(arms):
        placed = f"(select *, row_number() over () - 1 as turn from {rows.relation} where {where})"
        placed = f"(select * from {placed} order by {order})"
        placed = f"(select *, row_number() over () - 1 as place from {placed})"
        if sum(means.n) > HASHED:
            fold_of = hashed_sql(f"(place + {offset})", folds, random_state)
            dealt = f"select * exclude (place), {fold_of} as fold from {placed}"
        else:
            import pyarrow as pa

            fold = np.empty(n, dtype=np.int64)
            fold[rng.permutation(n)] = (np.arange(n) + offset) % folds
            rows.connection.register("deal", pa.table({"place": np.arange(n), "fold": fold}))
            dealt = f"select * exclude (place) from {placed} join deal using (place)"
        made = "insert into dealt" if number else "create or replace temp table dealt as"
        rows.connection.execute(f"{made} {dealt}")
        offset += n
    return "dealt"


def _content(rows: Rows) -> list[str]:
    """Write what rows are ordered by; levels of text as their dummies would order them."""
    out: list[str] = []
    design = rows.design
    for name in dict.fromkeys(design.sources):
        own = [j for j, source in enumerate(design.sources) if source == name]
        k = len(own) + 1
        out.append(
            " + ".join(f"x{j} * {k - i}" for i, j in enumerate(own, start=1))
            if name in design.levels
            else f"x{own[0]}"
        )
    return out
