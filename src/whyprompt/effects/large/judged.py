"""What is checked of weighted means, from sums: balance, overlap, what lines leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from whyprompt.effects.assumptions import CHANCE, Left, hangs_on_one, overlap_of
from whyprompt.effects.checks.balance import balance_row
from whyprompt.effects.large.rows import literal
from whyprompt.effects.large.sums import by_arm
from whyprompt.errors import EstimationError
from whyprompt.stats.left_over import Predicted, every

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whyprompt.effects.checks.balance import Denominator
    from whyprompt.effects.large.rows import Rows
    from whyprompt.effects.large.sums import Means
    from whyprompt.effects.large.weighed import Weighed
    from whyprompt.results import Assumption, BalanceRow

    Floats = NDArray[np.float64]


class Sums(NamedTuple):
    """Of an arm: sums of the weights and of their powers, what is left of the outcome, scores, columns."""

    weight: float
    second: float
    fourth: float
    left: tuple[float, float]
    # Least and greatest score; sums of its variance and of that squared.
    score: tuple[float, float, float, float]
    # Rows of a weight above 0.
    used: int
    # Of the weights that chances alone give: sum, sum of squares, largest.
    chances: tuple[float, float, float]
    # Of the design's columns, centred: weighted sums, and of their squares.
    columns: Floats
    squares: Floats

    @property
    def worth(self) -> float:
        """Kish's effective sample size."""
        return self.weight**2 / self.second

    @property
    def worth_of_chances(self) -> float:
        """The same of the weights that chances alone give."""
        return self.chances[0] ** 2 / self.chances[1]


def sums_by_arm(rows: Rows, made: Weighed) -> tuple[tuple[Sums, Sums], tuple[Floats, Floats]]:
    """Take the sums of the treated and the control rows; with them those that the method asked for."""
    asked = ["sum(w)", "sum(w * w)", "sum((w * w) * (w * w))", "sum(r)", "sum(r * r)"]
    asked += (
        ["min(e)", "max(e)", "sum(e * (1.0 - e))", "sum((e * (1.0 - e)) * (e * (1.0 - e)))"]
        if made.score
        else ["0"] * 4
    )
    asked += ["count(*) filter (w > 0)" if made.pairs else "count(*)"]
    asked += [f"sum({made.chances})", f"sum({made.chances} * {made.chances})", f"max({made.chances})"]
    p = len(rows.x)
    asked += [f"sum(w * u{j})" for j in range(p)] + [f"sum(w * u{j} * u{j})" for j in range(p)]
    found = {
        row[0]: np.array(row[1:], dtype=np.float64)
        for row in rows.ask(by_arm([*asked, *made.asked], made.relation))
    }
    arms = []
    for part in (found[True], found[False]):
        if not np.isfinite(part).all():
            raise EstimationError(
                "a weight is not a finite number: a propensity score is 0 or 1 to rounding",
                hint="leave out what tells the arms apart, or weigh by overlap, method='overlap'",
            )
        w, w2, w4, r, r2, low, high, e, e2, used, *chances = part[:13].tolist()
        arms.append(
            Sums(
                weight=w,
                second=w2,
                fourth=w4,
                left=(r, r2),
                score=(low, high, e, e2),
                used=round(used),
                chances=(chances[0], chances[1], chances[2]),
                columns=part[13 : 13 + p],
                squares=part[13 + p : 13 + 2 * p],
            )
        )
    return (arms[0], arms[1]), (found[True][13 + 2 * p :], found[False][13 + 2 * p :])


# -------------------------------------------------------------------------------------------- checks
def balance_of(
    rows: Rows, means: Means, arms: tuple[Sums, Sums], denominator: Denominator
) -> tuple[BalanceRow, ...]:
    """Compare the arms in each covariate by means and variances; their distributions take a sort of each."""
    design, out = rows.design, []
    before = tuple(
        Sums(n, n, n, (0.0, 0.0), (0.0,) * 4, n, (0.0,) * 3, gram[0, 2:], np.diag(gram)[2:])
        for n, gram in zip(means.n, means.grams, strict=True)
    )
    for name in dict.fromkeys(design.sources):
        own = [j for j, source in enumerate(design.sources) if source == name]
        levels = design.levels.get(name)
        if levels is None:
            j = own[0]
            low, high = min(a[j + 1] for a in means.low), max(a[j + 1] for a in means.high)
            centre, binary = float(means.centre[j + 1]), means.two_valued[j]
            ends = (float(low), float(high)) if binary and high > low else None
            first, second = (
                [_moments(arm, j, centre, binary=binary, ends=ends) for arm in (*part, _joined(part))]
                for part in (before, arms)
            )
            of_all = (second if denominator == "weighted" else first)[2][1]
            out.append(balance_row(name, first, second, of_all, binary=binary, denominator=denominator))
            continue
        shares = {
            level: [
                [_share(a, j, means.centre[j + 1]) for a in (*part, _joined(part))] for part in (before, arms)
            ]
            for level, j in zip(levels[1:], own, strict=True)
        }
        shares[levels[0]] = [
            [1.0 - sum(shares[level][k][a] for level in levels[1:]) for a in range(3)] for k in (0, 1)
        ]
        for level in sorted(levels)[0 if len(levels) > 2 else 1 :]:
            pairs = [[(p, p * (1.0 - p)) for p in part] for part in shares[level]]
            of_all = pairs[denominator == "weighted"][2][1]
            out.append(
                balance_row(
                    f"{name}_{level}", pairs[0], pairs[1], of_all, binary=True, denominator=denominator
                )
            )
    return tuple(out)


def _joined(part: tuple[Sums, ...]) -> Sums:
    one, none = part
    return one._replace(
        weight=one.weight + none.weight,
        second=one.second + none.second,
        columns=one.columns + none.columns,
        squares=one.squares + none.squares,
    )


def _share(arm: Sums, j: int, centre: float) -> float:
    return float(centre + arm.columns[j] / arm.weight)


def _moments(
    arm: Sums, j: int, centre: float, *, binary: bool, ends: tuple[float, float] | None
) -> tuple[float, float]:
    """Give the weighted mean and variance of a column, as `checks.balance.moments` has them."""
    mean = _share(arm, j, centre)
    if binary:
        mean = mean if ends is None else (mean - ends[0]) / (ends[1] - ends[0])
        return mean, max(mean * (1.0 - mean), 0.0)
    free = arm.weight**2 - arm.second
    if free <= 1e-12 * arm.weight**2:
        return mean, float("nan")
    spread = arm.squares[j] - arm.columns[j] ** 2 / arm.weight
    return mean, float(max(spread, 0.0) * arm.weight / free)


def overlap_by_sums(
    rows: Rows,
    made: Weighed,
    means: Means,
    arms: tuple[Sums, Sums],
    *,
    estimand: str,
    lost: tuple[int, int],
    std_error: float | None,
) -> Assumption:
    """Judge overlap by the ends of the scores of either arm, and the rows that lie beyond the other's."""
    (low1, high1, *_), (low0, high0, *_) = arms[0].score, arms[1].score
    beyond = (
        f"case when t then e < {literal(low0)} or e > {literal(high0)}"
        f" else e < {literal(low1)} or e > {literal(high1)} end"
    )
    wanted = {"att": "t", "atc": "not t"}.get(estimand, "true") + (" and w > 0" if made.pairs else "")
    if estimand != "ato":
        beyond = f"({beyond} or case when t then 1.0 - e else e end <= {literal(CHANCE * (1 + 1e-9))})"
    counted = "w" if estimand == "ato" else "1.0::double"
    asked = [
        f"coalesce(sum({counted}) filter (({beyond}) and {wanted}), 0.0)",
        f"sum({counted}) filter ({wanted})",
    ]
    out, total = rows.first(asked, made.relation)
    used = (arms[0].used, arms[1].used)
    here = {"att": used[0], "atc": used[1]}.get(estimand, sum(used))
    n = {"att": means.n[0] + lost[0], "atc": means.n[1] + lost[1]}.get(estimand, sum(means.n) + sum(lost))
    left = min(
        float(np.sqrt(max(arm.left[1] / arm.used - (arm.left[0] / arm.used) ** 2, 0.0))) for arm in arms
    )
    return overlap_of(
        float(out / total),
        estimand=estimand,
        gone=1.0 - here / n,
        used=used,
        discarded=0,
        # Of the chances alone, where other weights were made of them.
        ess=(arms[0].worth_of_chances, arms[1].worth_of_chances),
        reach=left / std_error if std_error else 0.0,
        heavy=""
        if made.pairs
        else hangs_on_one([(arm.chances[2] / arm.chances[0], arm.used) for arm in arms]),
    )


def left_by_sums(
    rows: Rows,
    made: Weighed,
    means: Means,
    arms: tuple[Sums, Sums],
    *,
    estimand: str,
    estimate: float,
    std_error: float | None,
    curved: bool,
    lines: float | None = None,
) -> Left:
    """Give what is left of the covariates, their squares, fifths and products: see `stats.left_over`."""
    n = sum(means.n)
    variance = [arms[0].score[k] + arms[1].score[k] for k in (2, 3)]
    about = {
        "att": ("case when t then w else 0.0 end", arms[0].weight, arms[0].worth),
        "atc": ("case when t then 0.0 else w end", arms[1].weight, arms[1].worth),
        "ate": ("1.0::double", float(n), float(n)),
    }
    about["ato"] = ("e * (1.0 - e)", variance[0], variance[0] ** 2 / variance[1] if made.score else 0.0)
    wanted, size, worth = about[estimand]
    own = {"att": 1.0, "atc": -1.0}.get(estimand, 0.0)
    total, chance = 0.0, 0.0
    for sign, mine, arm in ((1.0, "t", arms[0]), (-1.0, "not t", arms[1])):
        if sign == own:
            continue
        rest = Predicted.of(*_sample(rows, made, mine, arm.used))
        if rest is None:
            continue
        signed = (
            f"({wanted}) / {literal(size)} - case when {mine} then w / {literal(arm.weight)} else 0.0 end"
        )
        (moved,) = rows.first([f"sum(({signed}) * ({_predicted(rest)}))"], _terms(rest, made.relation))
        total += sign * float(moved)
        chance += rest.spread**2 * (1.0 / arm.worth + 1.0 / worth)
    return Left(
        moved=total,
        chance=float(np.sqrt(chance)),
        error=std_error or 0.0,
        modelled=made.modelled,
        curved=curved,
        estimate=estimate,
        by_lines=lines,
    )


def by_lines(rows: Rows, made: Weighed, means: Means, estimand: str) -> float | None:
    """Give the estimate that straight lines alone would have: see `checks.curves`."""
    if not rows.x:
        return None
    kept = np.array(means.kept, dtype=np.intp)
    grams = [gram / n for gram, n in zip(means.grams, means.n, strict=True)]
    wanted = {"att": grams[0][0, 2:], "atc": grams[1][0, 2:]}.get(estimand, np.zeros(len(rows.x)))
    if estimand == "ato":
        asked = [f"sum(e * (1.0 - e) * u{j})" for j in range(len(rows.x))]
        size, *sums = rows.first(["sum(e * (1.0 - e))", *asked], made.relation)
        wanted = np.array(sums, dtype=np.float64) / size
    found = []
    for gram in grams:
        moved = gram[1:, 1:] - np.outer(gram[0, 1:], gram[0, 1:])
        slope = np.linalg.pinv(moved[1:, 1:][np.ix_(kept, kept)], hermitian=True) @ moved[1:, 0][kept]
        found.append(float(gram[0, 1] + (wanted - gram[0, 2:])[kept] @ slope))
    return found[0] - found[1]


def _sample(rows: Rows, made: Weighed, mine: str, count: int) -> tuple[Floats, Floats]:
    """Give every so many-th row of an arm, in the order of the files: its columns, and what is left."""
    step = every(count)
    relation, place = (
        f"(select * from {made.relation} where {mine}{' and w > 0' if made.pairs else ''})",
        "turn",
    )
    if made.place == "turn":
        chosen = f"turn % {step} = 0"
    elif made.place:
        place = made.place
        placed = f"(select {place} from {relation} order by all)"
        placed = f"(select {place}, row_number() over () - 1 as turn from {placed})"
        chosen = f"{place} in (select {place} from {placed} where turn % {step} = 0)"
    else:
        relation = f"(select *, row_number() over () - 1 as turn from {relation})"
        chosen = f"turn % {step} = 0"
    found = rows.connection.execute(
        f"select {', '.join([*rows.x, 'r'])} from {relation} where {chosen} order by {place}"
    ).fetchnumpy()
    X = np.column_stack([np.asarray(found[x], dtype=np.float64) for x in rows.x])
    return X, np.asarray(found["r"], dtype=np.float64)


def _terms(rest: Predicted, relation: str) -> str:
    made = [
        f"(x{j} - {literal(c)}) / {literal(s)} as s{k}"
        for k, (j, c, s) in enumerate(zip(rest.terms.kept, rest.terms.centre, rest.terms.spread, strict=True))
    ]
    return f"(select *, {', '.join(made)} from {relation})"


def _predicted(rest: Predicted) -> str:
    terms = rest.terms
    columns = [f"s{k}" for k in range(len(terms.kept))]
    columns += [f"s{k} * s{k}" for k in terms.squared]
    columns += [f"s{a} * s{b}" for a, b in zip(terms.first, terms.second, strict=True)]
    columns += [f"(s{k} > {literal(cut)})::double" for k, cuts in enumerate(terms.cuts) for cut in cuts]
    return " + ".join(
        ["0.0::double", *(f"{literal(b)} * {term}" for b, term in zip(rest.slope, columns, strict=True) if b)]
    )
