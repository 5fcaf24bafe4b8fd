"""Caliper matching of a table larger than memory: rows sorted on disk, a sweep over them, and the pairs.

Pairs, the regression in the matched sample and its error are those of `effects.methods.nearest`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from whyprompt.effects.large.rows import linear, literal
from whyprompt.effects.large.sums import by_arm, fit_logit, products, square
from whyprompt.effects.large.sweep import Sorted, swept
from whyprompt.effects.large.weighed import Weighed, centred
from whyprompt.effects.methods.adjustment import LEAST_SPARED, ROWS_EACH, few_words, turn_of
from whyprompt.effects.methods.matched import on_grid, require_matches
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from whyprompt.effects.large.rows import Rows
    from whyprompt.effects.large.sums import Means
    from whyprompt.effects.methods.method import Plan
    from whyprompt.effects.methods.nearest import Nearest

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# Rows that are read at a time.
_BLOCK = 100_000


def by_pairs(rows: Rows, means: Means, plan: Plan, method: Nearest) -> Weighed:
    """Match on a score without replacement, and adjust by the regressions of the matched sample."""
    adjusted = method.regression_adjustment
    if adjusted is None:
        adjusted = bool(rows.x)
    if not adjusted:
        _refuse_plain(rows)
    fit = None if rows.known is not None else fit_logit(rows, means, rows.relation)
    scored = f"(select *, row_number() over () - 1 as nth from {rows.relation})"
    if fit is None:
        scored = f"(select *, ln(e / (1.0 - e)) as eta from {scored})"
    else:
        scored = f"(select *, {linear(fit.coef, rows.x)} as eta from {scored})"
        scored = f"(select *, 1.0 / (1.0 + exp(-eta)) as e from {scored})"
    found = _matched(rows, scored, plan, method)
    rows.connection.execute(
        f"create or replace temp table paired as select s.*, p.pair, (p.pair is not null)::double as w"
        f" from {scored} s left join read_parquet({literal(str(found.path))}) p using (nth)"
    )
    made = centred(rows, means, "paired")
    settings: dict[str, Any] = {"ratio": 1, "replace": False}
    if found.width is not None:
        settings["caliper_width"] = found.width
    settings |= {"order": found.order, **method.stated(replaced=False)}
    remarks = method.lost_words() if found.lost and method.caliper is None else ()
    if rows.tie is None:
        remarks += method.tied_words(found.tied, "score", replaced=False)
    weighed = Weighed(
        made,
        [],
        _nothing,
        score=True,
        known=rows.known is not None,
        dropped=None if fit is None else fit.dropped,
        settings=settings,
        remarks=remarks,
        place="nth",
        pairs=found.n_pairs,
    )
    return _estimated(rows, means, plan, weighed, adjusted=adjusted)


def _nothing(_one: Floats, _none: Floats) -> tuple[tuple[float, float], tuple[str, str]]:
    raise AssertionError


class _Found(NamedTuple):
    """Pairs in a file of ``nth``, the place of a row, and ``pair``; and what of the matching is told."""

    path: Path
    n_pairs: int
    width: float | None
    order: str
    lost: bool
    tied: int


def _matched(rows: Rows, scored: str, plan: Plan, method: Nearest) -> _Found:
    """Sort the rows of either arm to disk, and sweep over them."""
    import pyarrow as pa
    from pyarrow import parquet

    along = "eta" if method.distance == "logit" else "e"
    size, unit = method.settled_caliper()
    plain = unit.removesuffix("_logit")
    inside = "greatest(least(e, 1.0 - 1e-15), 1e-15)"
    value = f"ln({inside} / (1.0 - {inside}))" if size is not None and plain != unit else along
    width = None
    if size is not None:
        of = f"round_even({value} * 1e12, 0) / 1e12" if plain != unit else value
        width = size * (1.0 if plain == "raw" else float(rows.first([f"stddev_samp({of})"], scored)[0]))
    paths = [rows.folder / f"arm{arm}.bin" for arm in (0, 1)]
    counts, n, tied, last = [0, 0], 0, 0, np.nan
    with paths[0].open("wb") as one, paths[1].open("wb") as none:
        order = f"round_even({along} * 1e12, 0), {'nth' if rows.tie is None else 'k'}"
        for s, v, at, t in _streamed(
            rows, f"select {along} as s, {value} as v, nth, t from {scored} order by {order}"
        ):
            score, place = on_grid(s), np.arange(n, n + len(s))
            tied += int((score[1:] == score[:-1]).sum()) + int(score[0] == last)
            n, last = n + len(s), score[-1]
            values = score if plain == unit or size is None else on_grid(v)
            for k, (file, arm) in enumerate(((one, t), (none, ~t))):
                file.write(Sorted.bytes_of(score[arm], values[arm], place[arm], at[arm]))
                counts[k] += int(arm.sum())
    arms = [Sorted(path, count) for path, count in zip(paths, counts, strict=True)]
    if plan.estimand == "atc":
        arms.reverse()
    chosen = method.order or ("smallest" if plan.estimand == "atc" else "largest")
    path, count = rows.folder / "pairs.parquet", 0
    schema = pa.schema([("nth", pa.int64()), ("pair", pa.int64())])
    with parquet.ParquetWriter(path, schema) as writer:
        pairs = swept(
            arms[0],
            arms[1],
            np.inf if width is None else width,
            largest=chosen == "largest",
            memory=rows.table.limit,
        )
        for focal, other in pairs:
            number = np.arange(count, count + len(focal))
            writer.write_table(pa.table([np.append(focal, other), np.append(number, number)], schema=schema))
            count += len(focal)
    for old in paths:
        old.unlink()
    require_matches(
        np.empty(count, dtype=np.int8),
        method="nearest",
        hint="widen the caliper (or caliper='none'), or use another method",
    )
    return _Found(path, count, width, chosen, count < arms[0].n_rows, tied)


def _streamed(rows: Rows, sql: str) -> Iterator[list[NDArray[Any]]]:
    """Read the result of a query a block at a time."""
    rows.tell_pass()
    for batch in rows.connection.sql(sql).to_arrow_reader(_BLOCK):
        if len(batch):
            yield [column.to_numpy(zero_copy_only=False) for column in batch.columns]


def _estimated(rows: Rows, means: Means, plan: Plan, weighed: Weighed, *, adjusted: bool) -> Weighed:
    """Regress the outcome on the covariates in each arm of the matched sample, as `methods.adjustment` does.

    All matched rows weigh alike, so that the projection of an arm is that of its `m` rows.
    """
    made, m = weighed.relation, weighed.pairs
    columns = ["1", "v", *(f"u{j}" for j in range(len(rows.x)))]
    ends = [f"{f}(u{j})" for f in ("min", "max") for j in range(len(rows.x))]
    used = f"(select * from {made} where w > 0)"
    k, p = len(columns), len(rows.x)
    found = {
        row[0]: np.array(row[1:], dtype=np.float64)
        for row in rows.ask(by_arm([*products(columns), "min(y)", "max(y)", *ends], used))
    }
    parts = [found[True], found[False]]
    grams = [square(part[: k * (k + 1) // 2], k) / m for part in parts]
    reach = [part[k * (k + 1) // 2 + 2 :] for part in parts]
    one, none = (part[k * (k + 1) // 2 :][:2].tolist() for part in parts)
    of_used = ((one[0], one[1]), (none[0], none[1]))
    about = 0 if plan.estimand == "att" else 1
    plain = (float(grams[0][0, 1]), float(grams[1][0, 1]))
    why = "" if p else "there are no confounders"
    if adjusted and not why:
        giving = 1 - about
        rank = 1 + int((reach[giving][p:] > reach[giving][:p]).sum())
        if m < ROWS_EACH * rank:
            why = few_words(m, ("treated", "control")[giving], rank)
    if adjusted and why:
        raise EstimationError(
            f"no regression adjustment is possible: {why}",
            hint="fewer confounders, or a method that keeps more rows",
        )
    c = float(means.centre[0])
    if not adjusted:
        values = (plain[0] + c, plain[1] + c)
        size = 2.0 * m

        def as_they_are(_one: Floats, _none: Floats) -> tuple[tuple[float, float], tuple[str, str]]:
            return values, (
                f"case when t then (v - {literal(plain[0])}) / {m} else 0.0 end",
                f"case when t then 0.0 else (v - {literal(plain[1])}) / {m} end",
            )

        return weighed._replace(
            relation=f"(select *, case when w > 0 then v else 0.0 end as r from {made})",
            finish=as_they_are,
            ends=of_used,
            inflated=(size - 1.0) / (size - 2.0) if m > 1 else 1.0,
            how="pair-cluster-robust",
        )
    wanted = grams[about][0, 2:]
    sizes = np.maximum(*(np.abs(np.array([a[1:], b[1:]])).max(axis=0) for a, b in (means.low, means.high)))
    names, lines, implied, values_of = columns[2:], [], [], []
    basis: list[list[str]] = []
    for gram in grams:
        centre, level = gram[0, 2:], float(gram[0, 1])
        moved = gram[1:, 1:] - np.outer(gram[0, 1:], gram[0, 1:])
        spread = np.sqrt(np.maximum(np.diag(moved)[1:], 0.0))
        live = np.flatnonzero(spread > 1e-12 * sizes)
        turn = turn_of(moved[1:, 1:][np.ix_(live, live)], spread, live)
        slope = turn @ (turn.T @ moved[1:, 0])
        lines.append(linear([level - float(centre @ slope), *slope], names))
        values_of.append(float(level + (wanted - centre) @ slope))
        shift = turn @ (turn.T @ (wanted - centre))
        implied.append(linear([(1.0 - float(centre @ shift)) / m, *(shift / m)], names))
        basis.append([linear([-float(centre @ column), *column], names) for column in turn.T])
    rank = max(map(len, basis))
    turned = [
        f"case when t then {one} else {none} end as b{j}"
        for j, (one, none) in enumerate(zip(*(b + ["0.0"] * (rank - len(b)) for b in basis), strict=True))
    ]
    length = " + ".join(["1.0", *(f"b{j} * b{j}" for j in range(rank))])
    made = (
        f"(select *, {lines[0]} as p1, {lines[1]} as p0,"
        f" case when t then {implied[0]} else {implied[1]} end as im{''.join(', ' + one for one in turned)}"
        f" from {made})"
    )
    made = (
        f"(select *, case when w > 0 then v - case when t then p1 else p0 end else 0.0 end as r,"
        f" greatest(1.0 - ({length}) / {m}, {literal(LEAST_SPARED)}) as spared from {made})"
    )
    made = f"(select *, r / sqrt(spared) as h from {made})"
    error = f"case when t then {_of_arm(rows, made, 't')} else {_of_arm(rows, made, 'not t')} end"
    mine = "t" if about == 0 else "not t"
    texts = [
        f"case when {own} then im * ({error}) else 0.0 end"
        f" + case when {mine} then (p{1 - a} - {literal(values_of[a])}) / {m} else 0.0 end"
        for a, own in enumerate(("t", "not t"))
    ]

    def finish(_one: Floats, _none: Floats) -> tuple[tuple[float, float], tuple[str, str]]:
        return (values_of[0] + c, values_of[1] + c), (texts[0], texts[1])

    return weighed._replace(
        relation=made,
        finish=finish,
        modelled=True,
        ends=of_used,
        settings={
            **weighed.settings,
            "estimate_without_regression_adjustment": (plain[0] + c) - (plain[1] + c),
        },
    )


def _of_arm(rows: Rows, made: str, mine: str) -> str:
    """Write the error of a row of an arm: the mean one of a row that its regression goes through."""
    through = f"spared <= {literal(LEAST_SPARED)}"
    asked = [f"count(*) filter ({through})", f"avg(h * h) filter (not ({through}) and im <> 0)"]
    count, seen = rows.first(asked, f"(select * from {made} where w > 0 and {mine})")
    if not count or seen is None:
        return "h"
    return f"case when {through} then {literal(float(np.sqrt(seen)))} else h end"


def _refuse_plain(rows: Rows) -> None:
    """Refuse errors of a plain difference that rows beside each other are needed for."""
    if rows.known is None or rows.cluster is not None:
        what = "of clusters" if rows.known is not None else "of an estimated score"
        raise EstimationError(
            f"the error {what} without a regression adjustment is not offered in a table larger than memory",
            hint="leave regression_adjustment= out, or give more with memory=",
        )
