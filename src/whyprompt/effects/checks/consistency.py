"""Whether a scoring function gives an item the same score in any company."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from whyprompt._arguments import generator
from whyprompt._words import format_number
from whyprompt.charts import interval_plot
from whyprompt.errors import DataError, EstimationError
from whyprompt.results import Check, Estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from whyprompt.results import Verdict

    Floats = NDArray[np.float64]

Item = TypeVar("Item")


def batch_consistency(
    score: Callable[[Sequence[Item]], Sequence[float]],
    items: Sequence[Item],
    *,
    batch_size: int = 8,
    draws: int = 3,
    tolerance: float = 1e-4,
    random_state: int = 0,
) -> Check:
    """Score the same items alone, in batches of the order given, and in shuffled batches.

    Parameters
    ----------
    score : callable
        Takes a batch of items and returns one number for each, in their order.
    items : sequence
        At least two.
    batch_size : int, default 8
        Items a batch.
    draws : int, default 3
        Shuffled rounds.
    tolerance : float, default 1e-4
        In units of the score; floating-point sums in another order differ by about 1e-6 relative in single
        precision.
    random_state : int, default 0
        For the shuffles.

    Returns
    -------
    Check
        An item a part: its score in batches of the order given minus its score alone, and from the lowest to
        the highest such difference over shuffled batches; its figures are its scores, ``alone`` and
        ``alone_again``, ``in_order``, and in the rounds ``shuffled``. It ``"fails"`` where neighbours change
        a score beyond the tolerance, and is ``"doubtful"`` where the score alone already varies beyond it.
        Its figures:

        - ``tolerance``: largest difference that counts as none;
        - ``largest_repeat``: between the two scores alone, what the function varies by without any change;
        - ``largest_order``: between batches in the order given and shuffled ones;
        - ``largest``: between alone and any batch, and ``worst``, the position of the item where that is;
        - ``n_beyond``: items beyond the tolerance.

    Raises
    ------
    EstimationError
        If there are fewer than two items, or an option is out of range.
    DataError
        If the function returns another number of scores, or one that is not finite, naming the batch.

    Examples
    --------
    >>> def honest(batch):
    ...     return [float(len(text)) for text in batch]
    >>> def padded(batch):
    ...     longest = max(map(len, batch))
    ...     return [len(text) + 0.01 * (longest - len(text)) for text in batch]
    >>> words = ["a", "bb", "cccc", "dddddddd"]
    >>> batch_consistency(honest, words, batch_size=2).verdict
    'passes'
    >>> found = batch_consistency(padded, words, batch_size=4)
    >>> found.verdict, round(found["largest"], 2), found["worst"]
    ('fails', 0.07, 0)
    """
    n = len(items)
    if n < 2:
        raise EstimationError(f"{n} item(s): at least two are needed to have a neighbour")
    if batch_size < 2 or draws < 1 or not tolerance >= 0:
        raise EstimationError(
            f"batch_size={batch_size}, draws={draws}, tolerance={tolerance}: at least 2, 1 and 0 are needed"
        )
    rng = generator(random_state)
    alone, again = (_scored(score, items, np.arange(n), 1, "alone") for _ in range(2))
    ordered = _scored(score, items, np.arange(n), batch_size, "in order")
    mixed = np.array(
        [
            _scored(score, items, rng.permutation(n), batch_size, f"in shuffle {k}")
            for k in range(1, draws + 1)
        ]
    )
    batched = np.vstack([ordered, mixed])
    away = np.abs(batched - alone).max(axis=0)
    repeat = float(np.abs(again - alone).max())
    order = float(np.abs(mixed - ordered).max())
    beyond = int((away > tolerance).sum())
    verdict: Verdict = "doubtful" if repeat > tolerance else "fails" if beyond else "passes"
    worst = int(away.argmax())
    shift, low, high = ordered - alone, mixed.min(axis=0) - alone, mixed.max(axis=0) - alone
    parts = tuple(
        Estimate(
            label=f"item {i}",
            estimate=float(shift[i]),
            ci_low=float(low[i]),
            ci_high=float(high[i]),
            figures={
                "alone": float(alone[i]),
                "alone_again": float(again[i]),
                "in_order": float(ordered[i]),
                "shuffled": tuple(mixed[:, i].tolist()),
            },
        )
        for i in range(n)
    )
    lines = [
        {"label": row.label, "estimate": row.estimate, "low": row.ci_low, "high": row.ci_high}
        for row in sorted(parts, key=lambda row: -max(abs(v) for v in (row.estimate or 0.0, *row.ends)))
    ]
    axis = "score in a batch minus score alone (point: order given; line: shuffled batches)"
    return Check(
        name="batch consistency",
        verdict=verdict,
        parts=parts,
        settings={"n_items": n, "batch_size": batch_size, "draws": draws},
        axis=axis,
        figures={
            "tolerance": tolerance,
            "largest_repeat": repeat,
            "largest_order": order,
            "largest": float(away[worst]),
            "worst": worst,
            "n_beyond": beyond,
        },
        pictures={"items": partial(interval_plot, lines, title=axis, limits=(-tolerance, tolerance))},
        sentence=(
            f"{n} items were scored alone, in batches of {batch_size}, and in {draws} shuffled rounds:"
            f" between alone and in company a score differs by at most {format_number(float(away[worst]))}"
            f" (item {worst}), between orders by {format_number(order)}, and alone twice by"
            f" {format_number(repeat)}."
        )
        + {
            "passes": f" That is within {tolerance:g}: neighbours do not change an item's score.",
            "doubtful": f" The score alone already varies beyond {tolerance:g}, so that neighbours"
            " cannot be blamed: fix the seed or the sampling, or compare repeats with batch_interference.",
            "fails": f" {beyond} items differ by more than {tolerance:g}: an item's score depends on"
            " its neighbours. Score items alone, or mask and place padding so that it cannot.",
        }[verdict],
    )


def _scored(
    score: Callable[[Sequence[Item]], Sequence[float]],
    items: Sequence[Item],
    order: NDArray[np.int64],
    size: int,
    what: str,
) -> Floats:
    out = np.empty(len(items))
    for start in range(0, len(items), size):
        here = order[start : start + size]
        got = np.asarray(score([items[i] for i in here.tolist()]), dtype=float).reshape(-1)
        if len(got) != len(here):
            raise DataError(f"score returned {len(got)} numbers for {len(here)} items ({what})")
        if not np.isfinite(got).all():
            bad = int(here[int(np.flatnonzero(~np.isfinite(got))[0])])
            raise DataError(f"score returned {got[~np.isfinite(got)][0]} for item {bad} ({what})")
        out[here] = got
    return out
