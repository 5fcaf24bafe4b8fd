"""An order of rows that follows from what they hold, for whatever is dealt or drawn by a seed.

A seed fixes which places of a list are drawn. If the list is the table, the same rows in another order give
another estimate. Here rows are put in an order of their own first: that of their values, column by column.
Rows with equal values are interchangeable, so their order among themselves decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


def content_rank(*columns: NDArray[Any]) -> Ints:
    """Rank rows by their values, the first column first; rows with equal values share a rank.

    Columns are numbers, shape (n,) or (n, k), or text.

    >>> import numpy as np
    >>> content_rank(np.array([2.0, 1.0, 2.0, 2.0]), np.array(["b", "a", "a", "b"], dtype=object)).tolist()
    [2, 0, 1, 2]
    """
    keys: list[NDArray[Any]] = []
    for column in columns:
        both = np.atleast_2d(column.T)
        keys += [distinct(values)[1] if values.dtype == object else values for values in both]
    n = len(keys[0])
    order = np.lexsort(keys[::-1])
    differs = np.zeros(n, dtype=bool)
    for values in keys:
        ordered = values[order]
        differs[1:] |= ordered[1:] != ordered[:-1]
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.cumsum(differs)
    return rank


def cluster_places(rank: Ints, codes: NDArray[np.intp]) -> Ints:
    """Place clusters by what their rows hold, whatever they are called.

    Clusters with the same rows share a place. `rank` is from `content_rank`, `codes` the cluster of each row,
    from 0.

    >>> import numpy as np
    >>> cluster_places(np.array([3, 1, 1, 0]), np.array([0, 1, 0, 2])).tolist()
    [2, 1, 0]
    """
    order = np.lexsort((rank, codes))
    ends = np.cumsum(np.bincount(codes))[:-1]
    held = [tuple(part.tolist()) for part in np.split(rank[order], ends)]
    place = {rows: k for k, rows in enumerate(sorted(set(held)))}
    return np.array([place[rows] for rows in held], dtype=np.int64)


def distinct(values: NDArray[Any]) -> tuple[list[Any], Ints]:
    """Give the distinct values of a column of numbers or text, sorted, and each row's place among them.

    Text is told apart by its hash: an array of fixed width would take every row the longest text's memory.

    >>> distinct(np.array(["b", "a", "b"], dtype=object))[1].tolist()
    [1, 0, 1]
    """
    if values.dtype != object:
        found, code = np.unique(values, return_inverse=True)
        return found.tolist(), code.astype(np.int64)
    import pandas as pd

    code, found = pd.factorize(values)
    texts = found.tolist()
    order = sorted(range(len(texts)), key=texts.__getitem__)
    place = np.empty(len(texts), dtype=np.int64)
    place[order] = np.arange(len(texts))
    return [texts[k] for k in order], place[code]


def codes(columns: Sequence[NDArray[Any]]) -> Ints:
    """Give a number to the distinct combinations of columns (numbers or text), in sorted order."""
    total: Ints | None = None
    for column in columns:
        _, code = distinct(column)
        if total is not None:
            _, code = distinct(total * (int(code.max()) + 1) + code)
        total = code
    assert total is not None
    return total
