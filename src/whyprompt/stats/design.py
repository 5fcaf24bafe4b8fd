"""Covariates as numbers: dummies, natural splines, and columns that others determine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import listed
from whyprompt.errors import DataError, EstimationError
from whyprompt.stats.order import distinct

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


# Dummies beyond this many cells (2 GiB) are not made.
_MOST_CELLS = 2**28
# Levels that a message lists.
_SHOWN = 20
# Rows handled at a time, so that the temporaries of a block stay in cache and memory stays flat.
_BLOCK = 8_192
# A column whose variance beyond the columns before it is below this share is a copy of them.
_COLLINEAR = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class Design:
    """Covariates as numbers, with the recipe that makes them; dummies are made where they are asked for."""

    build: Callable[[], Floats]
    # Of the columns of `matrix`; ``column_level`` for a dummy.
    names: tuple[str, ...]
    # The column of the table that each came from.
    sources: tuple[str, ...]
    # Of each text column, reference first. Passed back, they give any other table the identical coding.
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # Of each text column, the place of every row's level among its `levels`.
    codes: Mapping[str, Ints] = field(default_factory=dict)

    @cached_property
    def matrix(self) -> Floats:
        """Shape (n, p) in Fortran order, no intercept. Text columns are coded by reference, or in full.

        Dummies that would not fit in memory are refused (`DataError`).
        """
        return self.build()

    def take(self, rows: NDArray[Any]) -> Design:
        """Return the same coding of the given rows, repeated where they repeat."""
        codes = {name: code[rows] for name, code in self.codes.items()}
        return replace(self, build=partial(_of_rows, self, rows), codes=codes)


def design_matrix(
    columns: Mapping[str, NDArray[Any]],
    *,
    levels: Mapping[str, Sequence[str]] | None = None,
    reference: Mapping[str, str] | None = None,
    full: bool = False,
    n_rows: int = 0,
) -> Design:
    """Code covariates as numbers: numbers as they are, text by dummies.

    `levels`, as recorded in a `Design` made before, give another table the identical coding; a level that is
    not among them is refused, as is a `reference` level that does not occur (`DataError`). Left out, the
    reference is the first in sorted order. With `full` a column of more than two levels has one dummy for
    each, as balance tables show them. `n_rows` is for a table of which no column is taken.

    >>> import numpy as np
    >>> made = design_matrix({"task": np.array(["math", "code", "math"], dtype=object)})
    >>> made.names, made.matrix.ravel().tolist(), made.levels
    (('task_math',), [1.0, 0.0, 1.0], {'task': ('code', 'math')})
    """
    known = dict(levels or {})
    first = dict(reference or {})
    # Of each column of the matrix: numbers, or the name of a text column and the level that is 1.
    parts: list[Floats | tuple[str, int]] = []
    names: list[str] = []
    sources: list[str] = []
    recorded: dict[str, tuple[str, ...]] = {}
    codes: dict[str, Ints] = {}
    for name, values in columns.items():
        n_rows = len(values)
        if values.dtype != object:
            parts.append(np.asarray(values, dtype=np.float64))
            names.append(name)
            sources.append(name)
            continue
        order, codes[name] = _levels(name, values, known.get(name), first.get(name))
        recorded[name] = order
        kept = range(0 if full and len(order) > 2 else 1, len(order))
        parts.extend((name, level) for level in kept)
        names.extend(f"{name}_{order[level]}" for level in kept)
        sources.extend(name for _ in kept)
    return Design(
        build=partial(_filled, n_rows, parts, codes, recorded),
        names=tuple(names),
        sources=tuple(sources),
        levels=recorded,
        codes=codes,
    )


# Both are functions of the module, so that a design can be pickled.
def _of_rows(design: Design, rows: NDArray[Any]) -> Floats:
    # Of the transposed matrix rows are taken without a copy in the other order.
    return np.take(design.matrix.T, rows, axis=1).T


def _filled(
    n: int,
    parts: Sequence[Floats | tuple[str, int]],
    codes: Mapping[str, Ints],
    levels: Mapping[str, Sequence[str]],
) -> Floats:
    dummies = sum(isinstance(part, tuple) for part in parts)
    if n * dummies > _MOST_CELLS:
        worst = max(levels, key=lambda name: len(levels[name]))
        raise DataError(
            f"column {worst!r} has {len(levels[worst])} levels: a column of numbers for each, in {n} rows,"
            f" would take {n * dummies * 8 / 2**30:.0f} GiB",
            hint=f"match exactly on it, exact=[{worst!r}], and leave it out of the confounders; or"
            " method='cem', which takes it as it is; or merge rare levels",
        )
    matrix = np.empty((n, len(parts)), order="F")
    for j, part in enumerate(parts):
        matrix[:, j] = codes[part[0]] == part[1] if isinstance(part, tuple) else part
    return matrix


def _levels(
    name: str, values: NDArray[Any], known: Sequence[str] | None, reference: str | None
) -> tuple[tuple[str, ...], Ints]:
    """Give the levels of a text column, the reference first, and the place of each row's."""
    found, code = distinct(values)
    order = found if known is None else list(known)
    place = {level: k for k, level in enumerate(order)}
    unknown = [level for level in found if level not in place]
    if unknown:
        raise DataError(
            f"column {name!r} has the level {unknown[0]!r}, which the recorded coding does not know",
            hint=f"the recorded levels are {listed(order, most=_SHOWN)}",
        )
    if reference is not None:
        if reference not in place:
            raise DataError(
                f"the reference level {reference!r} does not occur in column {name!r}",
                hint=f"its levels are {listed(order, most=_SHOWN)}",
            )
        order = [reference, *(level for level in order if level != reference)]
        place = {level: k for k, level in enumerate(order)}
    return tuple(order), np.array([place[level] for level in found], dtype=np.int64)[code]


def moments(X: Floats) -> tuple[Floats, Floats]:
    """Return the mean and the spread of each column; the spread of a constant one is 0."""
    centre = X.mean(axis=0) if X.shape[1] else np.zeros(0)
    scale = np.array([np.sqrt(np.mean((X[:, j] - centre[j]) ** 2)) for j in range(X.shape[1])])
    # Rounding leaves a constant column with a tiny spread; it carries no information.
    flat = scale <= 1e-12 * np.abs(centre)
    return centre, np.where(flat, 0.0, scale)


def weighted_gram(X: Floats, weights: Floats) -> Floats:
    """Return ``X.T @ diag(weights) @ X``, a block of rows at a time."""
    out = np.zeros((X.shape[1], X.shape[1]))
    for a in range(0, len(X), _BLOCK):
        block = X[a : a + _BLOCK]
        out += (block * weights[a : a + _BLOCK, None]).T @ block
    return out


def independent_columns(X: Floats, centre: Floats, scale: Floats) -> list[int]:
    """Return the columns that are not constant nor a linear combination of those before them."""
    live = [j for j in range(X.shape[1]) if scale[j] > 0]
    if not live:
        return []
    m = len(live)
    gram = np.zeros((m, m))
    for a in range(0, X.shape[0], _BLOCK):
        Z = (X[a : a + _BLOCK][:, live] - centre[live]) / scale[live]
        gram += Z.T @ Z
    return independent_of(gram / X.shape[0], live)


def independent_of(gram: Floats, live: Sequence[int]) -> list[int]:
    """Return which of the `live` columns none before them determine, by their correlations `gram`."""
    # Cholesky's factor, column by column; what is left of a column is its variance beyond those kept.
    m = len(live)
    factor = np.zeros((m, m), order="F")
    kept: list[int] = []
    for k in range(m):
        r = len(kept)
        rest = gram[k:, k] - factor[k:, :r] @ factor[k, :r]
        if rest[0] > _COLLINEAR:
            factor[k:, r] = rest / np.sqrt(rest[0])
            kept.append(k)
    return [live[k] for k in kept]


def standardised(matrix: Floats, names: Sequence[str]) -> Floats:
    """Centre and scale, leaving out columns that are constant or determined by those before them.

    `names` are for the message where no column varies (`EstimationError`).
    """
    centre, scale = moments(matrix)
    kept = independent_columns(matrix, centre, scale)
    if not kept:
        raise EstimationError(f"no covariate varies among {', '.join(names) or 'none given'}")
    return np.asarray((matrix[:, kept] - centre[kept]) / scale[kept], dtype=np.float64)


def natural_spline(x: ArrayLike, knots: ArrayLike) -> Floats:
    """Return a basis of the natural cubic splines, without the constant, shape (n, knots - 1).

    The first column is `x` itself, so that the others are what is not a straight line. `knots` are in
    increasing order; beyond the outermost the functions are straight lines (Hastie, Tibshirani and Friedman
    2009, The Elements of Statistical Learning, equations 5.4 and 5.5).

    >>> natural_spline([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0]).round(2).tolist()
    [[0.0, 0.0], [1.0, 0.25], [2.0, 1.5], [3.0, 3.0]]
    """
    values = np.asarray(x, dtype=float)
    ends = np.asarray(knots, dtype=float)
    span = ends[-1] - ends[0]

    def cube(knot: float) -> Floats:
        return np.asarray(np.clip((values - knot) / span, 0.0, None) ** 3 * span**2, dtype=float)

    last, before = ends[-1], ends[-2]

    def d(knot: float) -> Floats:
        return np.asarray((cube(knot) - cube(last)) / (last - knot), dtype=float)

    return np.column_stack([values, *(d(k) - d(before) for k in ends[:-2])])
