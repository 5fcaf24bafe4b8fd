import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whyprompt.trials.models.packing import common_prefix, pack_groups, plan_packs

sequence = st.lists(st.integers(0, 3), min_size=1, max_size=7).map(tuple)


def best_saving(sequences, limits):
    """Every way to cut sorted sequences into runs, by brute force."""
    n = len(sequences)
    best = 0
    for cuts in itertools.product([0, 1], repeat=n - 1):
        edges = [0, *[i + 1 for i, c in enumerate(cuts) if c], n]
        saving = 0
        for a, b in itertools.pairwise(edges):
            if b - a > 1:
                shared = min(common_prefix(sequences[i], sequences[i + 1]) for i in range(a, b - 1))
                saving += (b - a - 1) * min(shared, *limits[a:b])
        best = max(best, saving)
    return best


@settings(max_examples=300, deadline=None)
@given(st.lists(sequence, min_size=1, max_size=7))
def test_groups_save_the_most_tokens_possible(sequences):
    sequences = sorted(sequences)
    limits = [max(0, len(s) - 1) for s in sequences]
    groups = pack_groups(sequences, limits=limits)
    covered = [i for a, b, _ in groups for i in range(a, b)]
    assert covered == list(range(len(sequences)))
    for a, b, root in groups:
        assert all(s[:root] == sequences[a][:root] for s in sequences[a:b])
        assert all(root <= limit for limit in limits[a:b])
    saved = sum((b - a - 1) * root for a, b, root in groups)
    assert saved == best_saving(sequences, limits)


@settings(max_examples=200, deadline=None)
@given(st.lists(sequence, min_size=1, max_size=12), st.integers(1, 12), st.randoms())
def test_packs_hold_every_sequence_once_and_spell_it(sequences, budget, random):
    limits = [random.randrange(len(s)) for s in sequences]
    packs = plan_packs(sequences, limits=limits, budget=budget, least_root=1)
    members = [m for p in packs for m in p.members]
    assert sorted(members) == list(range(len(sequences)))
    for pack in packs:
        assert len(pack.tokens) <= budget or len(pack.members) == 1
        ancestors = pack.ancestors()
        for member, path in zip(pack.members, pack.paths, strict=True):
            assert len(pack.root) <= limits[member]
            assert (*pack.root, *pack.tokens[path].tolist()) == tuple(sequences[member])
            assert pack.depth[path].tolist() == list(range(len(pack.root), len(sequences[member])))
            # A token sees exactly its own path up to itself.
            for i, node in enumerate(path):
                assert np.flatnonzero(ancestors[node]).tolist() == sorted(path[: i + 1].tolist())
        # No token of the trie is computed twice within a pack's run of sorted members.
        keys = {(int(p), int(t)) for p, t in zip(pack.parent, pack.tokens, strict=True)}
        assert len(keys) == len(pack.tokens)


@settings(max_examples=100, deadline=None)
@given(st.lists(sequence, min_size=1, max_size=10, unique=True), st.randoms())
def test_the_plan_does_not_depend_on_order(sequences, random):
    shuffled = sequences.copy()
    random.shuffle(shuffled)

    def plan(seqs):
        packs = plan_packs(seqs, limits=[len(s) - 1 for s in seqs], budget=8, least_root=1)
        return sorted((p.root, p.tokens.tolist(), [seqs[m] for m in p.members]) for p in packs)

    assert plan(sequences) == plan(shuffled)


def test_a_worked_example():
    # Two families with long roots beat one short root for all.
    a, b = [9, 1, 1, 1, 1, 1], [9, 2, 2, 2, 2, 2]
    sequences = [(*a, i) for i in range(4)] + [(*b, i) for i in range(4)]
    groups = pack_groups(sequences, limits=[6] * 8)
    assert groups == [(0, 4, 6), (4, 8, 6)]


def test_nothing_to_plan():
    assert plan_packs([], limits=[], budget=8) == []


@pytest.mark.parametrize("n", [1, 2, 5])
def test_identical_sequences_cost_one(n):
    packs = plan_packs([(1, 2, 3)] * n, limits=[0] * n, budget=100)
    assert sum(len(p.tokens) for p in packs) == 3
