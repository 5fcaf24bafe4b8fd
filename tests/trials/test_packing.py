import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whyprompt.trials.models.packing import common_prefix, pack_groups, pack_sequences, plan_packs

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


def cost(packs):
    """Tokens computed: every root once in a row of packs that share it."""
    total, root = 0, ()
    for pack in packs:
        total += len(pack.tokens) + (len(pack.root) if pack.root != root else 0)
        root = pack.root
    return total


@settings(max_examples=150, deadline=None)
@given(st.lists(sequence, min_size=2, max_size=12), st.integers(4, 16))
def test_joining_groups_never_costs_more_than_the_calls_it_saves(sequences, budget):
    order = sorted(sequences)
    limits = [len(s) - 1 for s in order]
    apart = []
    for a, b, root in pack_groups(order, limits=limits):
        apart += pack_sequences(order, range(a, b), root=root, budget=budget)
    joined = plan_packs(order, limits=limits, budget=budget, least_root=1)
    calls = [len(p) + len({q.root for q in p if q.root}) for p in (joined, apart)]
    assert cost(joined) + 16 * calls[0] <= cost(apart) + 16 * calls[1]


def test_questions_that_differ_late_share_one_root():
    # A system prompt of 30 tokens, five letters asked for, twenty questions of 12 tokens under each letter:
    # five roots of 38 would compute the system prompt five times.
    system, rng = list(range(1000, 1030)), np.random.default_rng(0)
    sequences = [
        (*system, 2000 + letter, *range(7), *rng.integers(0, 999, 12).tolist())
        for letter in range(5)
        for _ in range(20)
    ]
    packs = plan_packs(sequences, limits=[len(s) - 2 for s in sequences], budget=384)
    assert {p.root for p in packs} == {tuple(system)}
    assert len(packs) == 4
    # 30 for the root, 100 questions of 12, 8 a letter, and at most 8 again where a pack ends within a letter.
    assert 30 + 1200 + 40 <= cost(packs) <= 30 + 1200 + 40 + 3 * 8


def test_nothing_to_plan():
    assert plan_packs([], limits=[], budget=8) == []


@pytest.mark.parametrize("n", [1, 2, 5])
def test_identical_sequences_cost_one(n):
    packs = plan_packs([(1, 2, 3)] * n, limits=[0] * n, budget=100)
    assert sum(len(p.tokens) for p in packs) == 3
