"""Whether a scoring function gives an item the same score in any company."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np

from whyprompt._arguments import generator
from whyprompt._words import format_number
from whyprompt.errors import DataError, EstimationError
from whyprompt.results import Reported, rows_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


__all__ = ["BatchConsistency", "ItemScores", "batch_consistency"]

Item = TypeVar("Item")

# function


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemScores:
    """The scores of one item by company.

    Attributes
    ----------
    position : int
        In the sequence given.
    alone, again : float
        Scored alone, twice.
    in_order : float
        In batches of the order given.
    shuffled_low, shuffled_high : float
        Over shuffled batches.
    largest : float
        Absolute difference between scored alone and scored in any batch.
    """

    position: int
    alone: float
    again: float
    in_order: float
    shuffled_low: float
    shuffled_high: float
    largest: float


@dataclass(frozen=True, kw_only=True)
class BatchConsistency(Reported):
    """Whether a scoring function gives an item the same score in any company.

    Attributes
    ----------
    n_items, batch_size, shuffles : int
    tolerance : float
        Largest difference that counts as none.
    largest_repeat : float
        Between the two scores alone: what the function varies by without any change.
    largest_order : float
        Between batches in the order given and shuffled ones.
    largest : float
        Between alone and any batch.
    worst : int
        Position of the item where that is.
    n_beyond : int
        Items beyond the tolerance.
    verdict : {"consistent", "not deterministic", "interference"}
        ``"not deterministic"`` where the score alone already varies beyond the tolerance.
    items : tuple of ItemScores
        One an item. Not part of `to_dict`.
    sentence : str
        The result in words.
    """

    _unlisted: ClassVar[frozenset[str]] = frozenset({"items"})

    n_items: int
    batch_size: int
    shuffles: int
    tolerance: float
    largest_repeat: float
    largest_order: float
    largest: float
    worst: int
    n_beyond: int
    verdict: Literal["consistent", "not deterministic", "interference"]
    items: tuple[ItemScores, ...]
    sentence: str

    def to_frame(self) -> pd.DataFrame:
        """Return the scores.

        Returns
        -------
        pandas.DataFrame
            One row an item.
        """
        return rows_frame(self.items, ItemScores)

    def plot(self) -> Any:  # noqa: ANN401 - a chart
        """Draw how far each item's score in company is from its score alone.

        Returns
        -------
        altair.LayerChart
        """
        from whyprompt import charts

        return charts.items_batch_plot(self)


def batch_consistency(
    score: Callable[[Sequence[Item]], Sequence[float]],
    items: Sequence[Item],
    *,
    batch_size: int = 8,
    shuffles: int = 3,
    tolerance: float = 1e-4,
    random_state: int = 0,
) -> BatchConsistency:
    """Score the same items alone, in batches of the order given, and in shuffled batches.

    Parameters
    ----------
    score : callable
        Takes a batch of items and returns one number for each, in their order.
    items : sequence
        At least two.
    batch_size : int, default 8
        Items a batch.
    shuffles : int, default 3
        Shuffled rounds.
    tolerance : float, default 1e-4
        In units of the score; floating-point sums in another order differ by about 1e-6 relative in single
        precision.
    random_state : int, default 0
        For the shuffles.

    Returns
    -------
    BatchConsistency

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
    'consistent'
    >>> found = batch_consistency(padded, words, batch_size=4)
    >>> found.verdict, round(found.largest, 2), found.worst
    ('interference', 0.07, 0)
    """
    n = len(items)
    if n < 2:
        raise EstimationError(f"{n} item(s): at least two are needed to have a neighbour")
    if batch_size < 2 or shuffles < 1 or not tolerance >= 0:
        raise EstimationError(
            f"batch_size={batch_size}, shuffles={shuffles}, tolerance={tolerance}: at least 2, 1 and 0 are"
            " needed"
        )
    rng = generator(random_state)
    alone, again = (_scored(score, items, np.arange(n), 1, "alone") for _ in range(2))
    ordered = _scored(score, items, np.arange(n), batch_size, "in order")
    mixed = np.array(
        [
            _scored(score, items, rng.permutation(n), batch_size, f"in shuffle {k}")
            for k in range(1, shuffles + 1)
        ]
    )
    batched = np.vstack([ordered, mixed])
    away = np.abs(batched - alone).max(axis=0)
    repeat = float(np.abs(again - alone).max())
    order = float(np.abs(mixed - ordered).max())
    beyond = int((away > tolerance).sum())
    verdict: Literal["consistent", "not deterministic", "interference"] = (
        "not deterministic" if repeat > tolerance else "interference" if beyond else "consistent"
    )
    worst = int(away.argmax())
    return BatchConsistency(
        n_items=n,
        batch_size=batch_size,
        shuffles=shuffles,
        tolerance=tolerance,
        largest_repeat=repeat,
        largest_order=order,
        largest=float(away[worst]),
        worst=worst,
        n_beyond=beyond,
        verdict=verdict,
        items=tuple(
            ItemScores(
                position=i,
                alone=float(alone[i]),
                again=float(again[i]),
                in_order=float(ordered[i]),
                shuffled_low=float(mixed[:, i].min()),
                shuffled_high=float(mixed[:, i].max()),
                largest=float(away[i]),
            )
            for i in range(n)
        ),
        sentence=_consistency_sentence(
            n, batch_size, shuffles, tolerance, repeat, order, float(away[worst]), worst, beyond, verdict
        ),
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


def _consistency_sentence(
    n: int,
    batch_size: int,
    shuffles: int,
    tolerance: float,
    repeat: float,
    order: float,
    largest: float,
    worst: int,
    beyond: int,
    verdict: str,
) -> str:
    start = (
        f"{n} items were scored alone, in batches of {batch_size}, and in {shuffles} shuffled rounds: between"
        f" alone and in company a score differs by at most {format_number(largest)} (item {worst}), between"
        f" orders by {format_number(order)}, and alone twice by {format_number(repeat)}."
    )
    return (
        start
        + {
            "consistent": f" That is within {tolerance:g}: neighbours do not change an item's score.",
            "not deterministic": f" The score alone already varies beyond {tolerance:g}, so that neighbours"
            " cannot be blamed: fix the seed or the sampling, or compare repeats with batch_interference.",
            "interference": f" {beyond} items differ by more than {tolerance:g}: an item's score depends on"
            " its neighbours. Score items alone, or mask and place padding so that it cannot.",
        }[verdict]
    )
