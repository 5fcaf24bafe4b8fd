"""Which tokens are computed together: pure planning, no torch.

Prompts of one arm begin alike. Sorted, they form a trie of tokens in which every shared prefix is one path:

- a *group* is a run of sequences whose common beginning (system prompt, worked examples) is long enough to be
  computed once and kept as key-value cache: its *root*;
- a *pack* is a run of sequences of one group whose remaining tokens are laid out as one trie, every distinct
  token once. A token attends to the root and to its own ancestors, so what it computes is exactly what it
  would compute alone, and no padding is computed at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Pack:
    """The trie of some sequences' tokens after their common root."""

    members: tuple[int, ...]  # which sequences, as indices into those planned
    root: tuple[int, ...]  # token ids of the common beginning
    tokens: NDArray[np.int64]  # ids
    depth: NDArray[np.int64]  # each token's position in its sequence
    parent: NDArray[np.int64]  # each token's predecessor in `tokens`; -1 after the root
    paths: tuple[NDArray[np.int64], ...]  # for each member, its tokens in `tokens`
    computed: NDArray[np.int64] | None = None  # of a part of a pack, those of `tokens` that its members have

    @property
    def cost(self) -> int:
        """What it takes to compute it, in tokens: its own, and the call."""
        return _CALL + len(self.tokens if self.computed is None else self.computed)

    def in_parts(self, count: int) -> list[Pack]:
        """Give it in so many parts at most: packs of some members each, that keep the layout of the whole."""
        edges = [len(self.members) * k // count for k in range(count + 1)]
        return [
            replace(
                self,
                members=self.members[start:stop],
                paths=self.paths[start:stop],
                computed=np.unique(np.concatenate(self.paths[start:stop])),
            )
            for start, stop in pairwise(edges)
            if start < stop
        ]

    def ancestors(self) -> NDArray[np.bool_]:
        """Give the ancestor-or-self matrix: row ``i`` is true where token ``i`` may look."""
        n = len(self.tokens)
        mask = np.eye(n, dtype=bool)
        for i in range(n):  # parents come before their children
            if self.parent[i] >= 0:
                mask[i, :i] |= mask[self.parent[i], :i]
        return mask


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Give the length of the common beginning of two sequences.

    Examples
    --------
    >>> common_prefix([1, 2, 3], [1, 2, 4])
    2
    """
    n = min(len(a), len(b))
    for i in range(n):
        if a[i] != b[i]:
            return i
    return n


def pack_groups(sequences: Sequence[Sequence[int]], *, limits: Sequence[int]) -> list[tuple[int, int, int]]:
    """Split sorted sequences into runs (start, stop, root_length) that share a root.

    The runs maximise the number of root tokens that are not computed again, ``(n - 1) * root`` summed over
    runs, by dynamic programming over the end of the last run. ``limits`` says how long each sequence's root
    may be at most; the root of a run of one is empty, for nothing is shared.
    """
    n = len(sequences)
    if n == 0:
        return []
    limit = np.asarray(limits, dtype=np.int64)
    root = limit.copy()  # root[i]: what the run from i to the current end shares
    best = np.zeros(n + 1, dtype=np.int64)  # best[j]: the most saved among the first j
    begun = np.zeros(n + 1, dtype=np.int64)  # where the last run of that split begins
    length = np.zeros(n + 1, dtype=np.int64)
    for j in range(1, n + 1):
        if j > 1:
            shared = min(common_prefix(sequences[j - 2], sequences[j - 1]), limits[j - 1])
            np.minimum(root[: j - 1], shared, out=root[: j - 1])
        saved = best[:j] + np.arange(j - 1, -1, -1) * root[:j]
        start = int(np.argmax(saved))
        best[j], begun[j], length[j] = saved[start], start, root[start] if j - start > 1 else 0
    runs: list[tuple[int, int, int]] = []
    stop = n
    while stop > 0:
        runs.append((int(begun[stop]), stop, int(length[stop])))
        stop = int(begun[stop])
    return runs[::-1]


def pack_sequences(
    sequences: Sequence[Sequence[int]],
    members: Sequence[int],
    *,
    root: int,
    budget: int,
    most: int | None = None,
) -> list[Pack]:
    """Lay the sequences of one group out as tries of at most ``budget`` tokens and ``most`` sequences.

    ``members`` are the indices of the group's sequences in sorted order, ``root`` the length of their common
    root. A single sequence longer than the budget makes a pack of its own.
    """
    packs: list[Pack] = []
    if most is not None and members:
        # As many packs as that takes, of about one size: they end together on several workers.
        most = -(-len(members) // -(-len(members) // most))
    at = 0
    while at < len(members):
        tokens: list[int] = []
        depth: list[int] = []
        parent: list[int] = []
        paths: list[list[int]] = []
        taken: list[int] = []
        while at < len(members):
            sequence = sequences[members[at]][root:]
            share = common_prefix(sequence, sequences[taken[-1]][root:]) if taken else 0
            if taken and (len(taken) == most or len(tokens) + len(sequence) - share > budget):
                break
            path = paths[-1][:share] if paths else []
            for i in range(share, len(sequence)):
                parent.append(path[-1] if path else -1)
                path.append(len(tokens))
                tokens.append(sequence[i])
                depth.append(root + i)
            paths.append(path)
            taken.append(members[at])
            at += 1
        packs.append(
            Pack(
                members=tuple(taken),
                root=tuple(sequences[taken[0]][:root]),
                tokens=np.array(tokens, dtype=np.int64),
                depth=np.array(depth, dtype=np.int64),
                parent=np.array(parent, dtype=np.int64),
                paths=tuple(np.array(p, dtype=np.int64) for p in paths),
            )
        )
    return packs


def plan_packs(
    sequences: Sequence[Sequence[int]],
    *,
    limits: Sequence[int],
    budget: int,
    most: int | None = None,
    least_root: int = 8,
) -> list[Pack]:
    """Plan the packs of any number of sequences; each is a member of exactly one.

    ``limits`` says how long each sequence's root may be at most, for the root holds no token whose output is
    wanted, ``most`` how many sequences a pack has at most, where that is limited, and ``least_root`` below
    what length a root is not worth a cache of its own. The plan depends on the set of sequences alone, not on
    their order.

    Examples
    --------
    >>> packs = plan_packs([[1, 2, 3], [1, 2, 4]], limits=[2, 2], budget=8, least_root=1)
    >>> packs[0].root, packs[0].tokens.tolist()
    ((1, 2), [3, 4])
    """
    order = sorted(range(len(sequences)), key=lambda i: (tuple(sequences[i]), i))
    groups = pack_groups([sequences[i] for i in order], limits=[limits[i] for i in order])
    planned: list[tuple[int, int, list[Pack]]] = []
    for start, stop, root in groups:
        length = root if root >= least_root else 0
        here = (
            start,
            stop,
            pack_sequences(sequences, order[start:stop], root=length, budget=budget, most=most),
        )
        # Roots are weighed one against the other above; a trie shares what they have in common as well. So
        # two neighbours become one group wherever that computes less in all.
        while planned:
            begun, _, before = planned[-1]
            members = order[begun:stop]
            # Sorted: what the first and the last share, all share.
            shared = common_prefix(sequences[members[0]], sequences[members[-1]])
            shared = min(shared, *(limits[i] for i in members))
            joined = pack_sequences(
                sequences, members, root=shared if shared >= least_root else 0, budget=budget, most=most
            )
            if _cost(joined) > _cost(before) + _cost(here[2]):
                break
            planned.pop()
            here = (begun, stop, joined)
        planned.append(here)
    return [pack for _, _, packs in planned for pack in packs]


# What one more call of the model costs, in tokens: its weights are read once more.
_CALL = 16


def _cost(packs: Sequence[Pack]) -> int:
    """Count the tokens that the packs of one group compute, its root and the calls included."""
    root = len(packs[0].root)
    calls = len(packs) + (root > 0)
    return root + sum(len(p.tokens) for p in packs) + _CALL * calls
