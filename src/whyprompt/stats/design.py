"""Covariates as numbers: dummies, natural splines, and columns that others determine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.errors import DataError, EstimationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


# Rows handled at a time, so that the temporaries of a block stay in cache and memory stays flat.
_BLOCK = 8_192
# A column whose variance beyond the columns before it is below this share is a copy of them.
_COLLINEAR = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """Covariates as numbers, with the recipe that made them."""

    # Shape (n, p) in Fortran order, no intercept. Text columns are coded by reference coding, or in full.
    matrix: Floats
    # Of the columns of `matrix`; ``column_level`` for a dummy.
    names: tuple[str, ...]
    # The column of the table that each came from.
    sources: tuple[str, ...]
    # Of each text column, reference first. Passed back, they give any other table the identical coding.
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def design_matrix(
    columns: Mapping[str, NDArray[Any]],
    *,
    levels: Mapping[str, Sequence[str]] | None = None,
    reference: Mapping[str, str] | None = None,
    full: bool = False,
) -> Design:
    """Code covariates as numbers: numbers as they are, text by dummies.

    `levels`, as recorded in a `Design` made before, give another table the identical coding; a level that is
    not among them is refused, as is a `reference` level that does not occur (`DataError`). Left out, the
    reference is the first in sorted order. With `full` a column of more than two levels has one dummy for
    each, as balance tables show them.

    >>> import numpy as np
    >>> made = design_matrix({"task": np.array(["math", "code", "math"], dtype=object)})
    >>> made.names, made.matrix.ravel().tolist(), made.levels
    (('task_math',), [1.0, 0.0, 1.0], {'task': ('code', 'math')})
    """
    known = dict(levels or {})
    first = dict(reference or {})
    parts: list[Floats] = []
    names: list[str] = []
    sources: list[str] = []
    recorded: dict[str, tuple[str, ...]] = {}
    for name, values in columns.items():
        if values.dtype != object:
            parts.append(np.asarray(values, dtype=np.float64))
            names.append(name)
            sources.append(name)
            continue
        order = _levels(name, values, known.get(name), first.get(name))
        recorded[name] = order
        code = {level: k for k, level in enumerate(order)}
        index = np.fromiter((code[value] for value in values), dtype=np.int64, count=len(values))
        kept = order if full and len(order) > 2 else order[1:]
        for level in kept:
            parts.append((index == code[level]).astype(np.float64))
            names.append(f"{name}_{level}")
            sources.append(name)
    n = len(next(iter(columns.values()))) if columns else 0
    matrix = np.empty((n, len(parts)), order="F")
    for j, part in enumerate(parts):
        matrix[:, j] = part
    return Design(matrix=matrix, names=tuple(names), sources=tuple(sources), levels=recorded)


def _levels(
    name: str, values: NDArray[Any], known: Sequence[str] | None, reference: str | None
) -> tuple[str, ...]:
    found = set(values.tolist())
    if known is not None:
        unknown = sorted(found - set(known))
        if unknown:
            raise DataError(
                f"column {name!r} has the level {unknown[0]!r}, which the recorded coding does not know",
                hint=f"the recorded levels are {', '.join(known)}",
            )
        order = list(known)
    else:
        order = sorted(found)
    if reference is not None:
        if reference not in order:
            raise DataError(
                f"the reference level {reference!r} does not occur in column {name!r}",
                hint=f"its levels are {', '.join(order)}",
            )
        order.remove(reference)
        order.insert(0, reference)
    return tuple(order)


def moments(X: Floats) -> tuple[Floats, Floats]:
    """Return the mean and the spread of each column; the spread of a constant one is 0."""
    centre = X.mean(axis=0) if X.shape[1] else np.zeros(0)
    scale = np.array([np.sqrt(np.mean((X[:, j] - centre[j]) ** 2)) for j in range(X.shape[1])])
    # Rounding leaves a constant column with a tiny spread; it carries no information.
    flat = scale <= 1e-12 * np.abs(centre)
    return centre, np.where(flat, 0.0, scale)


def independent_columns(X: Floats, centre: Floats, scale: Floats) -> list[int]:
    """Return the columns that are not constant nor a linear combination of those before them."""
    live = [j for j in range(X.shape[1]) if scale[j] > 0]
    if not live:
        return []
    gram = np.zeros((len(live), len(live)))
    for a in range(0, X.shape[0], _BLOCK):
        Z = (X[a : a + _BLOCK][:, live] - centre[live]) / scale[live]
        gram += Z.T @ Z
    gram /= X.shape[0]
    kept: list[int] = []
    for k in range(len(live)):
        if kept:
            across = gram[np.ix_(kept, [k])]
            rest = gram[k, k] - (across.T @ np.linalg.solve(gram[np.ix_(kept, kept)], across)).item()
        else:
            rest = gram[k, k]
        if rest > _COLLINEAR:
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
