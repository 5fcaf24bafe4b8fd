"""What a table shows of its rows before anything is estimated: units, logged chances, levels of one arm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.effects.caused import differs, differs_by, moved_by
from whyprompt.effects.large.errors import check_clusters
from whyprompt.effects.large.rows import literal, quoted
from whyprompt.effects.logged import notes_by_distance
from whyprompt.effects.separation import levels_of_one_arm
from whyprompt.effects.units import (
    HEAD,
    Unit,
    may_be_unit,
    repeats_enough,
    tells_apart,
    units_among,
)
from whyprompt.errors import EstimationError
from whyprompt.stats.clusters import within_clusters

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from whyprompt.effects.large.rows import Rows
    from whyprompt.effects.large.sums import Means
    from whyprompt.effects.separation import OneArmed
    from whyprompt.graph.model import CausalGraph

    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]


def find_units_of(rows: Rows, outcome: str, covariates: Sequence[str]) -> tuple[Unit | None, Unit | None]:
    """Find the unit that rows repeat, and the item that the arms are run on: see `effects.units`."""

    def read(name: str, is_item: bool) -> Unit | None:  # noqa: FBT001 - as it is called
        if not rows.kind(name):
            return None
        column = quoted(name)
        gone = f"{column} is null" + (
            f" or isnan({column}) or isinf({column})" if _floats(rows, name) else ""
        )
        if rows.first([f"count(*) filter ({gone})"])[0]:
            return None
        t = rows.is_treated
        groups = f"(select bool_or({t}) and not bool_and({t}) as two from {rows.source} group by {column})"
        count, both = rows.first(["count(*)", "count(*) filter (two)"], groups)
        if not 1 < count < rows.n_rows:
            return None
        codes = np.empty(0, dtype=np.intp)
        return Unit(name=name, codes=codes, n_rows=rows.n_rows, count=count, is_item=is_item, both=both)

    def by_content(free: Sequence[str], held: Sequence[str]) -> list[Unit]:
        head = rows.head()
        of_head = [head.raw(name) for name in held]
        found: list[Unit] = []
        for name in free:
            if not may_be_unit(name, head.raw(name, first=HEAD), of_head):
                continue
            if rows.kind(name) == "number" and not _whole(rows, name):
                continue
            unit = read(name, True)
            if unit is None or not repeats_enough(unit):
                continue
            if all(constant_in(rows, unit, column) for column in held) and _told_apart(rows, unit, held):
                found.append(unit)
        return sorted(found, key=lambda unit: -unit.count)[:1]

    return units_among(
        rows.columns,
        {rows.treatment, outcome},
        covariates,
        read=read,
        constant=lambda unit, name: constant_in(rows, unit, name),
        by_content=by_content,
    )


def _floats(rows: Rows, name: str) -> bool:
    return rows.types[name] in {"FLOAT", "DOUBLE"}


def _whole(rows: Rows, name: str) -> bool:
    return not _floats(rows, name) or bool(
        rows.first([f"bool_and({quoted(name)} = floor({quoted(name)}))"])[0]
    )


def constant_in(rows: Rows, unit: Unit, name: str) -> bool:
    """Say whether a column is a property of a unit."""
    column = quoted(name)
    same = f"count({column}) = count(*) and min({column}) = max({column})"
    groups = f"(select {same} as same from {rows.source} group by {quoted(unit.name)})"
    return bool(rows.first(["bool_and(same)"], groups)[0])


def _told_apart(rows: Rows, unit: Unit, held: Sequence[str]) -> bool:
    def profiles(names: Sequence[str]) -> int:
        listed = ", ".join(map(quoted, names))
        return int(rows.first(["count(*)"], f"(select distinct {listed} from {rows.source})")[0])

    numbers = [name for name in held if rows.kind(name) != "text"]
    coded = [profiles([name]) for name in held if rows.kind(name) == "text" or _whole(rows, name)]
    return tells_apart(unit, coded, profiles(numbers) if numbers else 0)


def refuse_moved_in(
    rows: Rows, item: Unit | None, confounders: Sequence[str], graph: CausalGraph | None
) -> None:
    """Refuse a confounder that differs between the arms of the same items, as `effects.units` does."""
    if item is None or not item.paired:
        return
    asked = [
        name
        for name in confounders
        if rows.kind(name) != "text"
        and (graph is None or name not in graph.nodes)
        and not constant_in(rows, item, name)
    ]
    for name in asked:
        column, t = f"cast({quoted(name)} as double)", rows.is_treated
        means = f"avg({column}) filter ({t}) - avg({column}) filter (not ({t}))"
        items = f"(select {means} as d from {rows.source} group by {quoted(item.name)})"
        n, gap, spread, some = rows.first(["count(d)", "avg(d)", "stddev_samp(d)", "max(abs(d))"], items)
        moved = moved_by(name, gap, spread / np.sqrt(n), n, len(asked)) if n >= 2 and some else []
        if moved:
            raise EstimationError(
                f"the arm moves {moved[0]} in the same {item.name!r}: it cannot be a confounder; adjusting"
                " for it removes part of the effect, or opens a path that biases it",
                hint="adjust for what the item was before the arm was chosen, or compare each item with"
                " itself (design='paired'); if the arm does not cause the column, say so with a graph"
                " that has it",
            )


def chance_notes(rows: Rows, named: str | None, used: Collection[str]) -> tuple[str, ...]:
    """Say where known chances do not fit the arms, or lie unused: see `effects.logged`."""

    def distances(name: str) -> tuple[float, float] | None:
        column = quoted(name)
        if rows.kind(name) != "number":
            return None
        inside, all_in = rows.first([f"count(*) filter ({column} > 0 and {column} < 1)", "count(*)"])
        if inside < all_in:
            return None
        t, own = f"({rows.is_treated})", f"cast({column} as double)"
        return _distance(rows, t, own), _distance(rows, t, f"case when {t} then {own} else 1.0 - {own} end")

    return notes_by_distance(rows.columns, rows.treated_level, named, used, distances)


def _distance(rows: Rows, treated: str, chance: str) -> float:
    given = f"(select {treated}::double as t, {chance} as p from {rows.source})"
    given = f"(select t - p as a, p * (1.0 - p) as v, p from {given})"
    (middle,) = rows.first(["avg(p)"], given)
    centred = f"(p - {literal(float(middle))})"
    one, spread, grown, width = rows.first(
        ["sum(a)", "sum(v)", f"sum(a * {centred})", f"sum(v * {centred} * {centred})"], given
    )
    pairs = ((one, spread), (grown, width))
    return max(abs(value) / float(np.sqrt(square)) if square > 0 else 0.0 for value, square in pairs)


# --------------------------------------------------------------------------- levels that one arm has alone
def levels_alone(
    rows: Rows, names: Sequence[str], *, arm: bool | None = None
) -> tuple[tuple[OneArmed, ...], Rows]:
    """Find the levels of some columns (`with_levels`) that one arm has alone, and the rows without them."""
    left = [rows]

    def counts(name: str) -> tuple[list[Any], Ints, Ints]:
        column, t = quoted(name), rows.is_treated
        by_arm = f"count(*) filter ({t}), count(*) filter (not ({t}))"
        found = rows.ask(f"select {column}, {by_arm} from {left[0].source} group by 1")
        found = sorted(found, key=lambda row: row[0])
        one, none = (np.array([row[k] for row in found], dtype=np.int64) for k in (1, 2))
        values = [row[0] if isinstance(row[0], str) else float(row[0]) for row in found]
        sizes[name] = [(row[0], row[1] + row[2]) for row in found]
        return values, one, none

    sizes: dict[str, list[tuple[Any, int]]] = {}

    def leave_out(name: str, alone: Bools) -> None:
        gone = [sizes[name][k] for k in np.flatnonzero(alone).tolist()]
        if gone:
            listed = ", ".join(literal(value) for value, _ in gone)
            n = left[0].n_rows - sum(count for _, count in gone)
            left[0] = left[0].kept(f"{quoted(name)} not in ({listed})", n)

    return levels_of_one_arm(names, counts, leave_out, arm=arm), left[0]


def with_levels(rows: Rows, names: Sequence[str]) -> list[str]:
    """Name the text and two-valued columns."""
    numbers = [name for name in names if rows.kind(name) != "text"]
    if not numbers:
        return list(names)
    found = rows.first([f"{f}({quoted(name)})" for name in numbers for f in ("min", "max")])
    ends = dict(zip(numbers, zip(found[::2], found[1::2], strict=True), strict=True))
    two = rows.first([f"bool_and({quoted(n)} in ({literal(a)}, {literal(b)}))" for n, (a, b) in ends.items()])
    several = {n for n, only in zip(numbers, two, strict=True) if only and ends[n][0] != ends[n][1]}
    return [name for name in names if name in several or name not in ends]


def moved_by_lot(rows: Rows, means: Means, graph: CausalGraph | None) -> tuple[str, ...]:
    """Name the covariates that differ between arms drawn by lot by more than a lot would do."""
    # A lot whose chances differ from row to row may go by the covariates.
    if rows.known is not None and rows.first(["max(e) > min(e)"], rows.relation)[0]:
        return ()
    design, n = rows.design, sum(means.n)
    used = [j for j, source in enumerate(design.sources) if graph is None or source not in graph.nodes]
    out: list[str] = []
    for j in used:
        sums = [gram[0, j + 2] / m for gram, m in zip(means.grams, means.n, strict=True)]
        gap = float(sums[0] - sums[1])
        if rows.cluster is not None:
            error, df = _error_of(rows, means, j)
            out += differs_by(design.names[j], gap, error, df, len(used))
            continue
        variance = float(means.grams[0][j + 2, j + 2] + means.grams[1][j + 2, j + 2]) / n
        out += differs(design.names[j], gap, variance, means.n, len(used))
    return tuple(out)


def _error_of(rows: Rows, means: Means, j: int) -> tuple[float, float]:
    """Give the CR2 error of a column's difference between the arms, with its degrees of freedom."""
    asked = ["(count(*) filter (t))::double as n1", "(count(*) filter (not t))::double as n0"]
    for k, mine in ((1, "t"), (0, "not t")):
        mean = float(means.centre[j + 1] + means.grams[1 - k][0, j + 2] / means.n[1 - k])
        asked.append(f"coalesce(sum(x{j} - {literal(mean)}) filter ({mine}), 0.0) as r{k}")
    count = int(rows.first(["count(distinct c)"], rows.relation)[0])
    check_clusters(rows, count)
    found = rows.connection.execute(f"select {', '.join(asked)} from {rows.relation} group by c").fetchnumpy()
    size, left = (
        np.column_stack([np.asarray(found[f"{what}{k}"], dtype=np.float64) for k in (1, 0)]) for what in "nr"
    )
    n = np.array(means.n, dtype=np.float64)
    if (size / n).max() > 1.0 - 1e-12:
        return float("nan"), float("nan")
    contrast = np.array([1.0, -1.0])
    sums, df = within_clusters(size / n, size / n**2, size, residuals=(left, left / n))
    return float(np.linalg.norm(sums @ contrast)), df(contrast)
