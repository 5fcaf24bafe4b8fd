"""Sums over rows that do not fit in memory: means, products of columns, and the logistic fit from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from whyprompt.effects.large.rows import linear, literal
from whyprompt.errors import EstimationError
from whyprompt.stats.design import independent_of
from whyprompt.stats.newton import maximise
from whyprompt.stats.propensity import refuse_separation, unscaling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.large.rows import Rows

    Floats = NDArray[np.float64]

# Rows from which a fit starts where it ends on so many of them.
_MANY, _SOME = 1_000_000, 20_000
# A linear predictor beyond this may be on its way to infinity.
_FAR = 12.0
# Cells up to which rows are read to look for separation by a combination of columns.
_CELLS = 5_000_000


def products(variables: Sequence[str], weight: str = "") -> list[str]:
    """Write the sums of all products of two variables, times a weight."""
    times = f"{weight} * " if weight else ""
    return [f"sum({times}{a} * {b})" for j, a in enumerate(variables) for b in variables[j:]]


def square(values: Floats, k: int) -> Floats:
    """Put the sums of `products` of k variables into a symmetric matrix."""
    out = np.zeros((k, k))
    out[np.triu_indices(k)] = values
    return out + np.triu(out, 1).T


class Means(NamedTuple):
    """Of the outcome and the design's columns: centre, ends by arm, spread, and sums of products by arm.

    The treated arm is first. `grams` are of ``1, y, x0, ...``, all but the first centred over all rows.
    """

    n: tuple[int, int]
    centre: Floats
    low: tuple[Floats, Floats]
    high: tuple[Floats, Floats]
    grams: tuple[Floats, Floats]
    # Of the design's columns alone.
    scale: Floats
    two_valued: list[bool]
    kept: list[int]
    two_valued_outcome: bool

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest outcome."""
        return float(min(a[0] for a in self.low)), float(max(a[0] for a in self.high))

    @property
    def means(self) -> tuple[float, float]:
        """Mean outcome of the treated and of the control rows."""
        one, none = (
            float(self.centre[0] + gram[0, 1] / n) for gram, n in zip(self.grams, self.n, strict=True)
        )
        return one, none


def take_means(rows: Rows) -> Means:
    """Take two passes: means and ends of the columns by arm, then the products of what is left of them."""
    columns = ["y", *rows.x]
    k = len(columns)
    asked = ["count(*)", *(f"{f}({name})" for f in ("sum", "min", "max") for name in columns)]
    found = _by_arm(rows, asked, rows.relation)
    n = (int(found[0][0]), int(found[1][0]))
    centre = (found[0][1 : k + 1] + found[1][1 : k + 1]) / sum(n)
    low, high = ((found[0][a:b], found[1][a:b]) for a, b in ((k + 1, 2 * k + 1), (2 * k + 1, 3 * k + 1)))
    least, most = np.minimum(*low), np.maximum(*high)
    moved = ["1", *(f"({name} - {literal(c)})" for name, c in zip(columns, centre, strict=True))]
    ends = [
        f"bool_and({name} = {literal(a)} or {name} = {literal(b)})"
        for name, a, b in zip(columns, least, most, strict=True)
    ]
    found = _by_arm(rows, [*products(moved), *(f"cast({end} as double)" for end in ends)], rows.relation)
    grams = [square(part[:-k], k + 1) for part in found]
    two_valued = [bool(a and b) for a, b in zip(found[0][-k:], found[1][-k:], strict=True)]
    scale, kept = _spread((grams[0] + grams[1])[2:, 2:] / sum(n), centre[1:])
    return Means(n, centre, low, high, (grams[0], grams[1]), scale, two_valued[1:], kept, two_valued[0])


def _spread(gram: Floats, centre: Floats) -> tuple[Floats, list[int]]:
    """Give the columns' spread, 0 of a constant one, and which of them none before them determine."""
    scale = np.sqrt(np.maximum(np.diag(gram), 0.0))
    # Rounding leaves a constant column with a tiny spread.
    scale = np.where(scale <= 1e-12 * np.abs(centre), 0.0, scale)
    live = np.flatnonzero(scale).tolist()
    return scale, independent_of(gram[np.ix_(live, live)] / np.outer(scale[live], scale[live]), live)


def means_of(means: Means, grams: Sequence[Floats]) -> Means:
    """Give the means of some of the rows by their sums of products, which are centred as those of all are."""
    n = (round(float(grams[0][0, 0])), round(float(grams[1][0, 0])))
    total = (grams[0] + grams[1]) / sum(n)
    shift = total[0, 2:]
    centre = np.concatenate([means.centre[:1], means.centre[1:] + shift])
    scale, kept = _spread(total[2:, 2:] - np.outer(shift, shift), centre[1:])
    return means._replace(n=n, centre=centre, scale=scale, kept=kept)


def started(means: Means, coef: Floats) -> Floats:
    """Give coefficients of the design's columns as those of the scaled ones, to start from."""
    first = coef[0] + coef[1:] @ means.centre[1:]
    return np.concatenate([[first], [coef[j + 1] * means.scale[j] for j in means.kept]])


def _by_arm(rows: Rows, asked: Sequence[str], relation: str) -> tuple[Floats, Floats]:
    found = {row[0]: np.array(row[1:], dtype=np.float64) for row in rows.ask(by_arm(asked, relation))}
    return found[True], found[False]


def by_arm(asked: Sequence[str], relation: str) -> str:
    """Write a query for sums by arm."""
    return f"select t, {', '.join(asked)} from {relation} group by t"


def scaled(means: Means, relation: str) -> str:
    """Add the columns that are kept, centred and scaled, as ``z0``, ``z1``, ... to a relation."""
    made = [
        f"(x{j} - {literal(means.centre[j + 1])}) * {literal(1.0 / means.scale[j])} as z{k}"
        for k, j in enumerate(means.kept)
    ]
    return f"(select *{''.join(', ' + one for one in made)} from {relation})"


def z_of(means: Means) -> list[str]:
    """Name the columns of `scaled`."""
    return [f"z{k}" for k in range(len(means.kept))]


class Logit(NamedTuple):
    """A logistic score: coefficients of the design's columns, intercept first, and those left out."""

    coef: Floats
    dropped: tuple[str, ...]


def fit_logit(rows: Rows, means: Means, relation: str, *, start: Floats | None = None) -> Logit:
    """Fit the score of the rows of a relation with ``t`` and the design's columns, a pass a step.

    Covariates that separate the arms are refused, as in memory.
    """
    names = rows.design.names
    z = z_of(means)
    k = len(z) + 1
    given = scaled(means, relation)
    reached = 0.0

    def evaluate(beta: Floats, of: str = given) -> tuple[float, Floats, Floats]:
        nonlocal reached
        eta = f"(select *, {linear(beta.tolist(), z)} as eta from {of})"
        tail = f"(select *, exp(-abs(eta)) as tail from {eta})"
        fitted = (
            f"(select *, case when eta >= 0 then 1.0::double else tail end / (1.0 + tail) as mu from {tail})"
        )
        terms = f"(select *, t::double - mu as slope, mu * (1.0 - mu) as curve from {fitted})"
        asked = ["sum(t::double * eta - greatest(eta, 0.0) - ln(1.0 + tail))", "max(abs(eta))"]
        asked += [f"sum(slope * {name})" for name in ("1", *z)] + products(["1", *z], "curve")
        value, far, *rest = rows.first(asked, terms)
        reached = float(far)
        return (
            float(value),
            np.array(rest[:k], dtype=np.float64),
            square(np.array(rest[k:], dtype=np.float64), k),
        )

    beta = np.zeros(k)
    beta[0] = np.log(means.n[0] / means.n[1])
    if start is not None:
        beta = start
    elif sum(means.n) >= _MANY:
        name = "some_rows"
        rows.connection.execute(
            f"create or replace temp table {name} as select * from {given}"
            f" using sample reservoir({_SOME} rows) repeatable (1)"
        )
        found, _, _, converged = maximise(lambda b: evaluate(b, name), beta, max_iterations=12)
        beta = found if converged else beta
    beta, _, _, converged = maximise(evaluate, beta)
    if not converged or reached > _FAR:
        _refuse_separation(rows, means, relation, converged=converged)
    to_raw = unscaling(means.kept, means.centre[1:], means.scale)
    dropped = tuple(name for j, name in enumerate(names) if j not in means.kept)
    return Logit(to_raw @ beta, dropped)


def _refuse_separation(rows: Rows, means: Means, relation: str, *, converged: bool) -> None:
    """Look for separation in all rows where they are few, else in both ends of every column by arm."""
    names, x = rows.design.names, rows.x
    if not x:
        return
    if sum(means.n) * (len(means.kept) + 1) <= _CELLS:
        found = rows.connection.execute(f"select t, {', '.join(x)} from {relation}").fetchnumpy()
        X = np.column_stack([np.asarray(found[name], dtype=np.float64) for name in x])
        refuse_separation(X, np.asarray(found["t"], dtype=np.float64), names, means.kept, converged=converged)
        return
    asked = [f"{f}({name})" for f in ("min", "max") for name in x]
    ends = [part.reshape(2, -1) for part in _by_arm(rows, asked, relation)]
    refuse_separation(
        np.vstack(ends), np.array([1.0, 1.0, 0.0, 0.0]), names, means.kept, converged=converged, sample=True
    )


def least_squares(gram: Floats) -> Floats:
    """Give the coefficients, intercept first, from the products of ``1, y, x0, ...``.

    Columns may be dependent. Of scaled columns, so that a column's unit decides nothing.
    """
    n = gram[0, 0]
    if n <= 0:
        raise EstimationError(
            "a fold leaves an arm without rows to fit its outcome model", hint="use fewer folds"
        )
    mean = gram[0, 1:] / n
    moved = gram[1:, 1:] - n * np.outer(mean, mean)
    scale = np.sqrt(np.maximum(np.diag(moved)[1:], 0.0))
    scale = np.where(scale > 1e-12 * np.sqrt(np.diag(gram)[2:]), scale, np.inf)
    slope = np.linalg.pinv(moved[1:, 1:] / np.outer(scale, scale), rcond=1e-12, hermitian=True) @ (
        moved[1:, 0] / scale
    )
    slope = slope / scale
    return np.concatenate([[mean[0] - mean[1:] @ slope], slope])
