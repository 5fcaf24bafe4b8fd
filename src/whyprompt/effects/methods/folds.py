"""How units are dealt to folds, and which rows each fold's models are learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.effects.methods.learners import ROWS
from whyprompt.errors import EstimationError
from whyprompt.stats.order import cluster_places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

# Rows beyond which units are dealt to folds one by one.
HASHED = 1_000_000
_WORD = np.uint64(0xFFFFFFFF)


def check_folds(folds: int, smallest: int, n_units: int) -> None:
    """Refuse a number of folds that so many rows of the smaller arm, or units, do not allow."""
    most = min(n_units, smallest)
    if not 2 <= folds <= most:
        what = f"{smallest} rows in an arm" if most == smallest else f"{n_units} clusters"
        raise EstimationError(
            f"folds={folds}: with {what}, choose 1 to {most}",
            hint="cross-fitting needs units to fit on and units to predict; ipw and overlap do not",
        )


def hashed_folds(first: int, count: int, folds: int, random_state: int) -> NDArray[np.int64]:
    """Give the folds of `count` units from the place `first` on, by the seed and by each one's place alone.

    Units are so many that folds of equal size need not be enforced, and that no deal of all of them at once
    is to be held in memory. The finaliser of MurmurHash3 (Appleby 2011, public domain), of 32 bits.
    """
    z = (np.arange(first, first + count, dtype=np.uint64) + _word(random_state)) & _WORD
    z = ((z ^ (z >> np.uint64(16))) * np.uint64(0x85EBCA6B)) & _WORD
    z = ((z ^ (z >> np.uint64(13))) * np.uint64(0xC2B2AE35)) & _WORD
    return np.asarray((z ^ (z >> np.uint64(16))) % np.uint64(folds), dtype=np.int64)


def hashed_sql(place: str, folds: int, random_state: int) -> str:
    """Write `hashed_folds` of the whole number `place`."""
    z = f"(({place} + {int(_word(random_state))})::ubigint & {_WORD}::ubigint)"
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        z = f"((xor({z}, {z} >> {shift}) * {factor}::ubigint) & {_WORD}::ubigint)"
    return f"(xor({z}, {z} >> 16) % {folds})"


def _word(random_state: int) -> np.uint64:
    return np.uint64(np.random.SeedSequence(random_state).generate_state(1)[0])


def half_of_others(fold: int, folds: int) -> list[int]:
    """Give the folds, after its own, that hold half of what a fold learns from."""
    return [(fold + j) % folds for j in range(1, (folds + 1) // 2)]


def learned_from(tests: Sequence[Bools], *, fewer: bool) -> list[Bools]:
    """Give the rows that each fold learns from: those of the others, or half of what a model has of them."""
    n = len(tests)
    if n == 1:
        return list(tests)
    if not fewer:
        return [~test for test in tests]
    halves = [np.any([tests[j] for j in half_of_others(k, n)], axis=0) for k in range(n)]
    for half in halves:
        # A model has no more than so many rows of very many.
        if 2 * half.sum() > ROWS:
            rows = np.flatnonzero(half)
            half[rows] = np.arange(len(rows)) % -(-2 * len(rows) // ROWS) == 0
    return halves


def deal_folds(
    treated: Bools,
    codes: NDArray[np.intp] | None,
    folds: int,
    random_state: int,
    rank: NDArray[np.int64],
) -> list[Bools]:
    """Deal units (rows, or whole clusters) to folds, each arm separately so that shares agree.

    The deal depends on what units hold and on the seed: not on their order, on the names of clusters, or on
    which arm is called treated.
    """
    n = len(treated)
    if folds == 1:
        return [np.ones(n, dtype=bool)]
    units = np.arange(n) if codes is None else codes
    n_units = int(units.max()) + 1
    smallest = int(min(treated.sum(), n - treated.sum()))
    check_folds(folds, smallest, n_units)
    # A cluster goes by the arm of most of its rows; those with as many of each are dealt by themselves.
    lean = np.sign(np.bincount(units, weights=treated - 0.5))
    place = rank if codes is None else cluster_places(2 * rank + treated, codes)
    fold_of = deal_units(lean, place, folds, random_state, hashed=n > HASHED)
    return [fold_of[units] == k for k in range(folds)]


def deal_units(
    lean: Floats, place: NDArray[np.int64], folds: int, random_state: int, *, hashed: bool
) -> NDArray[np.int64]:
    """Deal units to folds in the order of their places, those of each arm (`lean` 1, -1, 0) by themselves."""
    groups = [np.flatnonzero(lean == side) for side in (1.0, -1.0, 0.0)]
    groups = [members[np.argsort(place[members], kind="stable")] for members in groups]
    # The larger group is dealt first; of two equal ones, that whose units come first.
    groups.sort(key=lambda members: (-len(members), place[members].tolist()))
    rng = np.random.default_rng(random_state)
    fold_of = np.empty(len(lean), dtype=np.int64)
    offset = 0
    for ordered in groups:
        if hashed:
            fold_of[ordered] = hashed_folds(offset, len(ordered), folds, random_state)
        else:
            members = rng.permutation(ordered)
            fold_of[members] = (np.arange(len(members)) + offset) % folds
        offset += len(ordered)
    return fold_of
