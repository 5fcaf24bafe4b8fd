"""Placebo arms: shuffled where the arm was given by chance, drawn from the propensity where it was not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.effects.methods.score import logistic_score
from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.problem import Problem

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]


# Steps of pair exchanges after which an arm has forgotten where it started (Berrett et al. take 50).
_STEPS = 50


def chance_of_arm(problem: Problem, fitted: Floats | None) -> Floats:
    """Give each row's chance of the treated arm: the known one, the estimate's own, or a logistic one."""
    if problem.known_score is not None:
        return problem.known_score
    if fitted is not None:
        return fitted
    if not problem.confounders:
        raise EstimationError("without confounders there is no propensity to draw from", hint="how='permute'")
    return logistic_score(problem).fitted


def arm_units(problem: Problem) -> Ints | None:
    """Give the cluster of each row where every cluster has one arm: clusters got it, and not rows."""
    if problem.cluster is None:
        return None
    code = np.unique(problem.cluster.astype(str), return_inverse=True)[1].astype(np.int64)
    size = np.bincount(code)
    treated = np.bincount(code, weights=problem.treated)
    return code if bool(((treated == 0) | (treated == size)).all()) and int(size.max()) > 1 else None


def arm_drawer(
    problem: Problem,
    how: str,
    *,
    score: Floats | None,
    within: Mapping[str, NDArray[Any]],
    rng: np.random.Generator,
    hint: str,
) -> Callable[[], Bools]:
    """Make a function that draws a placebo arm, shuffled or by propensity, `within` what is equal in columns.

    `score` is what the estimate used; `hint` says what to do where a propensity of rows cannot draw the arm.
    """
    blocks = placebo_blocks(list(within.values()), len(problem.treated))
    if within and not any(0 < problem.treated[rows].sum() < len(rows) for rows in blocks):
        raise EstimationError(
            f"no block of {', '.join(within)} holds both arms: shuffling within them changes nothing"
        )
    units = arm_units(problem)
    if units is not None and how == "propensity":
        raise EstimationError(
            "every cluster has one arm, so clusters got the arm and a propensity of rows cannot draw it",
            hint=hint,
        )
    if units is not None and sum(len(np.unique(units[rows])) for rows in blocks) > len(np.unique(units)):
        raise EstimationError(f"a cluster with one arm lies in several blocks of {', '.join(within)}")
    chance = chance_of_arm(problem, score) if how == "propensity" else None
    return placebo_drawer(problem.treated, blocks, chance=chance, within=bool(within), units=units, rng=rng)


def placebo_blocks(columns: Sequence[NDArray[Any]], n: int) -> list[Ints]:
    """Group rows that are equal in every column; one block of all rows where there are no columns."""
    keys: dict[tuple[str, ...], list[int]] = {}
    if not columns:
        return [np.arange(n)]
    for row, key in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        keys.setdefault(key, []).append(row)
    return [np.array(rows) for rows in keys.values()]


def placebo_drawer(
    treated: Bools,
    blocks: Sequence[Ints],
    *,
    chance: Floats | None,
    within: bool,
    units: Ints | None,
    rng: np.random.Generator,
) -> Callable[[], Bools]:
    """Make a function that draws one placebo arm, a mask of shape (n,).

    Without `chance`, of the treated arm, the real one is shuffled in each block; clusters (`units`) that got
    the arm as a whole are shuffled in place of rows. `within` holds the number of treated rows in each block:
    with `chance` this is the conditional permutation test, exchanges of pairs, each decided by the odds of
    the two rows, from a hub that is as far from the real arm as every placebo is, so that all of them are
    exchangeable.

    Source: Berrett, Wang, Barber and Samworth (2020). The conditional permutation test for independence while
    controlling for confounders. Journal of the Royal Statistical Society B 82, algorithms 1 and 2.
    """
    if chance is None:
        return lambda: _shuffled(treated, blocks, units, rng)
    if not within:
        return lambda: np.asarray(rng.random(len(chance)) < chance)
    odds = chance / (1.0 - chance)
    hub = _exchanged(treated, odds, blocks, rng)
    return lambda: _exchanged(hub, odds, blocks, rng)


def _shuffled(treated: Bools, blocks: Sequence[Ints], units: Ints | None, rng: np.random.Generator) -> Bools:
    drawn = treated.copy()
    for rows in blocks:
        if units is None:
            drawn[rows] = rng.permutation(drawn[rows])
            continue
        _, first, code = np.unique(units[rows], return_index=True, return_inverse=True)
        drawn[rows] = rng.permutation(treated[rows][first])[code]
    return drawn


def _exchanged(start: Bools, odds: Floats, blocks: Sequence[Ints], rng: np.random.Generator) -> Bools:
    rows = np.concatenate(list(blocks))
    sizes = [len(block) for block in blocks]
    block = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # Neighbours in a random order of the block are its pairs; the last of an odd number waits.
    first = np.flatnonzero((place % 2 == 0) & (place + 1 < np.repeat(sizes, sizes)))
    arm, weight = start[rows], odds[rows]
    for _ in range(_STEPS):
        order = np.lexsort((rng.random(len(rows)), block))
        i, j = order[first], order[first + 1]
        # Of a pair with one treated row it is the first with the odds of i against j.
        is_open = arm[i] != arm[j]
        is_first = rng.random(len(i)) * (weight[i] + weight[j]) < weight[i]
        arm[i], arm[j] = np.where(is_open, is_first, arm[i]), np.where(is_open, ~is_first, arm[j])
    drawn = start.copy()
    drawn[rows] = arm
    return drawn
