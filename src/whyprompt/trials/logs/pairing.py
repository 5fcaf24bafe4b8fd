"""Which trials of two arms are of the same item, and what stands in the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.trials.logs.gather import Items

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

ENOUGH = 0.9
"""Share of both arms' items that must be the other's too for a paired design of all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairing:
    """How items meet: `by` what, how many are under every arm and under one alone, and what disagrees.

    `repeated` are questions that a log has under several names, `targets` questions with another right answer
    under another arm, `names` those of the log that mean one question here and another there.
    """

    by: str
    matched: int
    only: Mapping[str, int]
    items: Mapping[str, int]
    repeated: int = 0
    targets: tuple[str, ...] = ()
    n_targets: int = 0
    names: tuple[str, ...] = ()
    n_names: int = 0

    @property
    def share(self) -> float:
        """Least share of an arm's items that are under every arm."""
        return self.matched / max(1, *self.items.values())

    @property
    def design(self) -> str:
        """The design that follows, where nothing is known of how arms were drawn."""
        return "paired" if self.matched else "observational"


def item_key(items: Items, item: Ints, name: Ints, log: Ints, used: Ints) -> tuple[Ints, str]:
    """Give what pairs trials (n,), and by what: the finest that all logs have.

    Content is the question with its choices and target; without the target where a log has none; the names
    that logs give where one of them has no question. `used` are the logs that count.
    """
    if items.by is not None:
        return item, repr(items.by)
    known = np.asarray(items.known, dtype=bool)[item]
    with_question = [bool(known[log == k].all()) for k in used]
    if not all(with_question):
        return (name, "id") if any(with_question) else (item, "id")
    target = np.asarray(items.target, dtype=np.int64)[item] != 0
    if len({bool(target[log == k].any()) for k in used}) > 1:
        first: dict[int, int] = {}
        of = np.fromiter(
            (first.setdefault(q, len(first)) for q in items.question),
            dtype=np.int64,
            count=len(items.question),
        )
        return of[item], "question"
    return item, "content"


def matched_share(key: Ints, arm: Ints) -> float:
    """Give the least share of an arm's items that every arm was run on; 0 of a single arm.

    >>> matched_share(np.array([0, 1, 0, 1, 2]), np.array([0, 0, 1, 1, 1]))
    0.6666666666666666
    """
    items, arms = distinct_pairs(np.unique(key, return_inverse=True)[1], arm)
    n = int(arms.max()) + 1 if len(arms) else 0
    every = int((np.bincount(items) == n).sum()) if n > 1 else 0
    return every / max(1, int(np.bincount(arms).max())) if n else 0.0


def pair(
    items: Items,
    *,
    key: Ints,
    by: str,
    item: Ints,
    name: Ints,
    log: Ints,
    arm: Ints,
    arms: Sequence[str],
    names: Sequence[str],
) -> Pairing:
    """Count how the items of the arms meet; all arrays are (n,), a trial each."""
    n_keys = int(key.max()) + 1
    under = np.zeros((n_keys, len(arms)), dtype=bool)
    under[key, arm] = True
    every: NDArray[np.bool_] = np.asarray(under.all(axis=1))
    alone = under.sum(axis=1) == 1
    targets = _targets(items, item, key, arm, every)
    # A question with another right answer is the same question.
    asked = np.unique(np.asarray(items.question, dtype=np.int64)[item], return_inverse=True)[1]
    clashing = _clashing(name, key if by == "id" else asked, arm, names)
    return Pairing(
        by=by,
        matched=int(every.sum()),
        repeated=_repeated(name, log, key, names),
        only={a: int((alone & under[:, k]).sum()) for k, a in enumerate(arms)},
        items={a: int(under[:, k].sum()) for k, a in enumerate(arms)},
        targets=tuple(targets[:5]),
        n_targets=len(targets),
        names=tuple(clashing[:5]),
        n_names=len(clashing),
    )


def _targets(items: Items, item: Ints, key: Ints, arm: Ints, every: NDArray[np.bool_]) -> list[str]:
    """Name the questions that arms share and whose right answer they do not."""
    loose = ~every[key]
    asked: dict[int, dict[int, int]] = {}
    for one, a in zip(*(column.tolist() for column in distinct_pairs(item[loose], arm[loose])), strict=True):
        asked.setdefault(items.question[one], {})[a] = one
    return [items.name[min(m.values())] for m in asked.values() if len(set(m.values())) > 1]


def distinct_pairs(one: Ints, other: Ints) -> tuple[Ints, Ints]:
    """Give the distinct pairs of two columns of numbers from 0, sorted.

    >>> [column.tolist() for column in distinct_pairs(np.array([1, 0, 1]), np.array([2, 3, 2]))]
    [[0, 1], [3, 2]]
    """
    if not len(one):
        return one, other
    size = int(other.max()) + 1
    found = np.unique(one * size + other)
    return found // size, found % size


def _repeated(name: Ints, log: Ints, key: Ints, names: Sequence[str]) -> int:
    """Count the questions that a log has under several names of its own."""
    named = np.array([bool(one) for one in names], dtype=bool)[name]
    of_log = key[named] * (int(log.max()) + 1) + log[named]
    cell, _ = distinct_pairs(np.unique(of_log, return_inverse=True)[1], name[named])
    return int((np.bincount(cell) > 1).sum()) if len(cell) else 0


def _clashing(name: Ints, key: Ints, arm: Ints, names: Sequence[str]) -> list[str]:
    """Name what one arm's log calls one question and another's another."""
    size = int(arm.max()) + 1
    of_arm, means = distinct_pairs(name * size + arm, key)
    # A name that means several things within one log tells nothing, and is none.
    single = np.bincount(of_arm)[of_arm] == 1
    called, _ = distinct_pairs(of_arm[single] // size, means[single])
    several = np.flatnonzero(np.bincount(called) > 1).tolist() if len(called) else []
    return [names[n] for n in several if names[n]]
