"""The doubly robust estimate by lines: rows dealt to folds, and what each adds to the two means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.effects.large.rows import linear, literal
from whyprompt.effects.large.sums import fit_logit, least_squares, means_of, products, square, started
from whyprompt.effects.large.weighed import Weighed, centred, of_odds
from whyprompt.effects.methods.aipw import HASHED, check_folds, hashed_sql, separated_without_a_fold
from whyprompt.errors import EstimationError
from whyprompt.stats.propensity import SeparatedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.large.rows import Rows
    from whyprompt.effects.large.sums import Means
    from whyprompt.effects.methods.aipw import AIPW
    from whyprompt.effects.methods.method import Plan

    Floats = NDArray[np.float64]

# Rows of two arms of one size that are compared.
_COMPARED = 1_000


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
    weight, _ = of_odds(plan.estimand)
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
        place="turn" if folds > 1 else "",
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
