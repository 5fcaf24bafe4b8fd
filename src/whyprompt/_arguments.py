"""Arguments of every check: counts, seeds and lists of names, refused by name where they are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whyprompt.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_DRAWS = 100_000
"""More repetitions of an analysis than this are a slip: they would take days, or all of the memory."""


def at_least(value: object, least: int, name: str, *, most: int = MOST_DRAWS) -> None:
    """Refuse (`EstimationError`) a count, by its name: no whole number, too small, or beyond all use."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise EstimationError(f"{name}={value!r} is no whole number", hint="100, for example")
    if value < least:
        raise EstimationError(f"{name}={value}: at least {least} are needed")
    if value > most:
        raise EstimationError(f"{name}={value}: at most {most:,} are computed")


def confidence(level: float) -> None:
    """Refuse (`EstimationError`) a level of intervals that is none."""
    if not 0 < level < 1:
        raise EstimationError(f"the level is {level}; it lies between 0 and 1, 0.95 for example")


def seed(random_state: object) -> int:
    """Give a seed, or refuse (`EstimationError`) what is none."""
    whole = isinstance(random_state, int | np.integer) and not isinstance(random_state, bool)
    if not isinstance(random_state, int | np.integer) or not whole or random_state < 0:
        raise EstimationError(f"random_state={random_state!r} is no seed", hint="a whole number from 0 on")
    return int(random_state)


def generator(random_state: object) -> np.random.Generator:
    """Give the generator of a seed, or refuse what is no seed."""
    return np.random.default_rng(seed(random_state))


def names(value: Sequence[str] | None, what: str) -> tuple[str, ...]:
    """Give a list of columns; one text is refused (`EstimationError`), for its letters are no columns."""
    if isinstance(value, str):
        raise EstimationError(
            f"{what} is the text {value!r}; a list of columns is needed", hint=f"{what}=[{value!r}]"
        )
    return () if value is None else tuple(value)
