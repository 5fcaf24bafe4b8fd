"""The doubly robust estimate: nuisances by lines or learned, and what each row adds to the two means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.effects.large.calibrated import by_calibrated
from whyprompt.effects.large.dealt import dealt
from whyprompt.effects.large.judged import sums_by_arm
from whyprompt.effects.large.learned import Learns, predicted, where_of_others
from whyprompt.effects.large.rows import linear, literal
from whyprompt.effects.large.sums import fit_logit, least_squares, means_of, products, square, started
from whyprompt.effects.large.weighed import Weighed, centred, of_odds
from whyprompt.effects.methods.aipw import HALVED, modelled, separated_without_a_fold
from whyprompt.effects.methods.boosted import BOOSTED
from whyprompt.effects.methods.folds import half_of_others
from whyprompt.effects.methods.method import told
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
    # Of a fold to the sums of either arm's rows of the others.
    Trained = Callable[[int], list[Floats]]


def doubly_robust(rows: Rows, means: Means, plan: Plan, method: AIPW) -> Weighed:
    """Learn score and outcome on the rows of the other folds, and put them together."""
    relation, folds = dealt(rows, means, method, plan.random_state)
    made = _doubly_robust(rows, means, plan, method, relation, folds, fewer=False)

    def from_fewer() -> float | None:
        counts = {
            (bool(t), int(fold)): int(n)
            for t, fold, n in rows.ask(f"select t, fold, count(*) from {relation} group by t, fold")
        }
        if method.others_of_fewer(counts, plan.estimand, folds):
            return None
        other = _doubly_robust(rows, means, plan, method, relation, folds, fewer=True)
        values, _ = other.finish(*sums_by_arm(rows, other)[1])
        return values[0] - values[1]

    return made._replace(from_fewer=from_fewer) if folds >= HALVED else made


def _doubly_robust(
    rows: Rows, means: Means, plan: Plan, method: AIPW, relation: str, folds: int, *, fewer: bool
) -> Weighed:
    learns = Learns.of(plan, method, known=rows.known is not None)
    wanted = modelled(plan.estimand)
    sampled = False
    if learns.score or learns.outcome:
        relation, sampled = predicted(rows, plan, method, relation, folds, wanted, fewer=fewer)
    given = centred(rows, means, relation)
    columns = ["1", "v", *(f"u{j}" for j in range(len(rows.x)))]
    guesses = ["0.0::double", "0.0::double"]
    trained: Trained | None = None
    if not learns.outcome or not (learns.score or rows.known is not None):
        trained = _trained(rows, given, columns, folds, fewer=fewer)
    for arm in wanted:
        if learns.outcome:
            guesses[arm] = f"q{1 - arm} - {literal(means.centre[0])}"
            continue
        assert trained is not None
        guesses[arm] = _by_fold([_line(rows, trained(fold)[arm], columns) for fold in range(folds)])
    clip = literal(float(method.clip))
    clipped = ""
    if rows.known is not None:
        made = given
    else:
        if learns.score:
            score = "qe"
        else:
            assert trained is not None
            score = (
                f"1.0 / (1.0 + exp(-({_by_fold(_scores(rows, means, folds, given, trained, fewer=fewer))})))"
            )
        clipped = f"count(*) filter (e0 < {clip} or e0 > 1.0 - {clip})"
        made = f"(select *, {score} as e0 from {given})"
        made = f"(select *, least(greatest(e0, {clip}), 1.0 - {clip}) as e from {made})"
    weight, _ = of_odds(plan.estimand)
    made = f"(select *, e / (1.0 - e) as o, {guesses[0]} as p1, {guesses[1]} as p0 from {made})"
    made = f"(select *, {weight} as raw, v - case when t then p1 else p0 end as r from {made})"
    n_clipped = int(rows.first([clipped], made)[0]) if clipped else 0
    about = Weighed(
        made,
        [],
        lambda _one, _none: ((0.0, 0.0), ("", "")),
        score=True,
        modelled=True,
        known=rows.known is not None,
        settings={
            "folds": folds,
            "splits": 1,
            "outcome_model": BOOSTED if method.outcome_model is None else told(method.outcome_model),
        },
        remarks=method.remarks(sum(means.n), n_clipped, 0, 1, sampled=sampled),
        place="turn",
        sampled=sampled,
    )
    if method.calibrates(plan.estimand, known=rows.known is not None):
        return _by_calibrated(rows, means, plan.estimand, about)
    one, none, size = _PARTS[plan.estimand]
    made = f"(select *, {one} as a1, {none} as a0, {size} as a, raw as w from {made})"

    def finish(first: Floats, second: Floats) -> tuple[tuple[float, float], tuple[str, str]]:
        total = first + second
        m = total[:2] / total[2]
        parts = [
            f"(a{arm} - a * {literal(mean)}) / {literal(total[2])}" for arm, mean in ((1, m[0]), (0, m[1]))
        ]
        c = means.centre[0]
        return (m[0] + c, m[1] + c), (parts[0], parts[1])

    return about._replace(relation=made, asked=["sum(a1)", "sum(a0)", "sum(a)"], finish=finish)


def _by_calibrated(rows: Rows, means: Means, estimand: str, about: Weighed) -> Weighed:
    """Give the means under weights that meet those of the covariates: `_by_calibrated` of `methods.aipw`."""
    made, weight = by_calibrated(rows, means, about.relation, estimand)
    made = f"(select *, {weight} as w from {made})"
    wanted = {"att": "t", "atc": "not t"}.get(estimand, "true")
    size = {"att": means.n[0], "atc": means.n[1]}.get(estimand, sum(means.n))
    # The arm that the effect is about stands for itself.
    guesses = ["0.0::double" if mine == wanted else f"p{k}" for k, mine in ((1, "t"), (0, "not t"))]
    asked = [f"sum(case when {wanted} then {guess} else 0.0 end)" for guess in guesses]
    asked += [f"sum(w * (v - {guess}))" for guess in guesses] + ["sum(w)"]

    def finish(one: Floats, none: Floats) -> tuple[tuple[float, float], tuple[str, str]]:
        total, c = one + none, means.centre[0]
        values, parts = [], []
        for k, (mine, own, guess) in enumerate(zip(("t", "not t"), (one, none), guesses, strict=True)):
            among, left, weight = float(total[k]) / size, float(own[2 + k] / own[4]), literal(own[4])
            values.append(among + left + float(c))
            parts.append(
                f"case when {wanted} then ({guess} - {literal(among)}) / {size} else 0.0 end"
                f" + case when {mine} then w / {weight} * (v - {guess} - {literal(left)}) else 0.0 end"
            )
        return (values[0], values[1]), (parts[0], parts[1])

    return about._replace(relation=made, asked=asked, finish=finish, chances="raw")


def _trained(rows: Rows, given: str, columns: list[str], folds: int, *, fewer: bool) -> Trained:
    """Take the sums of products by arm and fold; give those of the rows that a fold is predicted from."""
    asked = ", ".join(products(columns))
    grams = {
        (bool(t), int(fold)): square(np.array(sums, dtype=np.float64), len(columns))
        for t, fold, *sums in rows.ask(f"select t, fold, {asked} from {given} group by t, fold")
    }
    arms = [np.asarray(sum(gram for (t, _), gram in grams.items() if t is mine)) for mine in (True, False)]

    def trained(fold: int) -> list[Floats]:
        if folds == 1:
            return arms
        if fewer:
            half = half_of_others(fold, folds)
            return [np.asarray(sum(grams.get((t, other), 0.0) for other in half)) for t in (True, False)]
        return [
            np.asarray(arm - grams.get((t, fold), 0.0)) for arm, t in zip(arms, (True, False), strict=True)
        ]

    return trained


def _line(rows: Rows, gram: Floats, columns: list[str]) -> str:
    if len(rows.x) >= gram[0, 0]:
        raise EstimationError(
            f"outcome_model='linear' has {len(rows.x)} columns for the {gram[0, 0]:.0f} rows of an"
            " arm that it is fitted to",
            hint="fewer confounders, or more with memory=",
        )
    return linear(least_squares(gram), columns[2:])


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


def _scores(rows: Rows, means: Means, folds: int, given: str, trained: Trained, *, fewer: bool) -> list[str]:
    """Fit the score of each fold on the rows of the others; each fit begins where the one before ended."""
    found: list[str] = []
    coef: Floats | None = None
    for fold in range(folds):
        of_rows = means_of(means, trained(fold))
        start = None if coef is None else started(of_rows, coef)
        relation = f"(select * from {given} where {where_of_others(fold, folds, fewer=fewer)})"
        try:
            fit = fit_logit(rows, of_rows, relation, start=start)
        except SeparatedError as error:
            raise separated_without_a_fold(error) from None
        coef = fit.coef
        found.append(linear(coef, rows.x))
    return found
