"""Errors of two means from sums of what rows add to them: of rows, pairs and clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from whyprompt.effects.large.rows import literal
from whyprompt.effects.methods.naive import welch
from whyprompt.errors import EstimationError
from whyprompt.stats.clusters import within_clusters

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from whyprompt.effects.large.judged import Sums
    from whyprompt.effects.large.rows import Rows
    from whyprompt.effects.large.sums import Means
    from whyprompt.effects.large.weighed import Weighed
    from whyprompt.effects.measures import LinearError

# Bytes that the figures of a cluster take.
_EACH_CLUSTER = 400


class Errors(NamedTuple):
    """The error of any combination of the two means, and the clusters that each arm's rows are in."""

    of: LinearError
    clusters: int | None = None
    in_arms: tuple[int, int] | None = None


def errors_of_pairs(rows: Rows, made: Weighed, influence: tuple[str, str]) -> Errors:
    """Sum what rows add within pairs."""
    one, none = influence
    pairs = f"(select pair, {one} as i1, {none} as i0 from {made.relation} where w > 0)"
    pairs = f"(select sum(i1) as i1, sum(i0) as i0 from {pairs} group by pair)"
    factor = made.inflated * made.pairs / (made.pairs - 1.0) if made.pairs > 1 else np.nan
    found = errors_of_sums(rows.first(["sum(i1 * i1)", "sum(i1 * i0)", "sum(i0 * i0)"], pairs), factor)

    def error(one: float, none: float) -> tuple[float | None, float | None]:
        size = found(one, none)
        return (size if np.isfinite(size) else None), made.pairs - 1.0

    return Errors(error)


def errors_of_sums(sums: Sequence[float], factor: float = 1.0) -> Callable[[float, float], float]:
    """Give the error of any combination of two means from the squares and products of their influence."""
    a, b, c = sums

    def error(one: float, none: float) -> float:
        square = max(one * one * a - 2.0 * one * none * b + none * none * c, 0.0)
        return float(np.sqrt(factor * square))

    return error


def errors_of_rows(rows: Rows, made: Weighed, influence: tuple[str, str], df: float | None) -> Errors:
    """Take the squares of what rows add to the means."""
    one, none = influence
    relation = f"(select {one} as i1, {none} as i0 from {made.relation})"
    error = errors_of_sums(rows.first(["sum(i1 * i1)", "sum(i1 * i0)", "sum(i0 * i0)"], relation))
    return Errors(lambda one, none: (error(one, none), df))


def errors_of_means(means: Means) -> Errors:
    """Give the error of plain means, which allows for unequal variances."""
    variances = [
        (gram[1, 1] - gram[0, 1] ** 2 / n) / (n - 1) for gram, n in zip(means.grams, means.n, strict=True)
    ]

    def error(one: float, none: float) -> tuple[float, float | None]:
        return welch([one * one * variances[0], none * none * variances[1]], means.n)

    return Errors(error)


def errors_of_clusters(
    rows: Rows,
    made: Weighed,
    influence: tuple[str, str],
    arms: tuple[Sums, Sums],
    *,
    known: bool = False,
    summed: bool = False,
) -> Errors:
    """Sum what rows add within clusters: by CR2 where weights are `known`, and alike if `summed`."""
    mine = ("t", "not t")
    asked = [
        f"coalesce(sum(w) filter ({t}), 0.0) / {literal(a.weight)}" for t, a in zip(mine, arms, strict=True)
    ]
    asked += [
        f"coalesce(sum(w * w) filter ({t}), 0.0) / {literal(a.weight**2)}"
        for t, a in zip(mine, arms, strict=True)
    ]
    asked += [f"(count(*) filter ({t}))::double" for t in mine]
    asked += ["sum(i1)", "sum(i0)"]
    columns = ", ".join(f"{sql} as g{k}" for k, sql in enumerate(asked))
    one, none = influence
    relation = f"(select c, t, w, {one} as i1, {none} as i0 from {made.relation}{_of_used(made)})"
    rows.connection.execute(
        f"create or replace temp table clusters as select {columns} from {relation} group by c"
    )
    count = int(rows.ask("select count(*) from clusters")[0][0])
    check_clusters(rows, count)
    found = rows.connection.execute("select * from clusters").fetchnumpy()
    g = np.column_stack([np.asarray(found[f"g{k}"], dtype=np.float64) for k in range(len(asked))])
    total, squares, size, values = g[:, :2], g[:, 2:4], g[:, 4:6], g[:, 6:8]
    df, contrast = count - 1.0, np.array([1.0, -1.0])
    if summed:
        sums = values * np.sqrt(count / (count - 1))
    else:
        # Residuals over the arm's size are their shares times themselves.
        residuals = (values * np.array([a.weight for a in arms]), values) if known else None
        sums, of_contrast = within_clusters(
            total, squares, size, None if known else values, residuals=residuals
        )
        df = of_contrast(contrast)
    alone = known and bool((total.max(axis=0) > 1.0 - 1e-12).any())

    def error(one: float, none: float) -> tuple[float | None, float | None]:
        return (None, None) if alone else (float(np.linalg.norm(sums @ (contrast * (one, none)))), df)

    in_arms = (size > 0).sum(axis=0)
    return Errors(error, count, (int(in_arms[0]), int(in_arms[1])))


def _of_used(made: Weighed) -> str:
    return " where w > 0" if made.pairs else ""


def check_clusters(rows: Rows, count: int) -> None:
    """Refuse one cluster, and more than memory holds the sums of."""
    if count == 1:
        raise EstimationError("all rows are in one cluster: no standard error can be computed")
    if count * _EACH_CLUSTER > rows.table.limit:
        raise EstimationError(
            f"{rows.cluster!r} has {count} clusters, whose sums take more memory than is given",
            hint="give more with memory=, or cluster='none', which takes every row as a unit of its own",
        )
