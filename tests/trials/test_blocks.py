"""Attention in blocks is the same attention."""

import numpy as np
import pytest
import torch

from whyprompt import load_model
from whyprompt.trials.models import blocks
from whyprompt.trials.models.local import Encoded
from whyprompt.trials.models.packing import plan_packs
from whyprompt.trials.models.scoring import plan_scoring, score


def additive(pack, root):
    n = len(pack.tokens)
    mask = torch.zeros(1, 1, n, root + n)
    mask[0, 0, :, root:].masked_fill_(~torch.from_numpy(pack.ancestors()), torch.finfo(torch.float32).min)
    return mask


@pytest.fixture
def sequences():
    rng = np.random.default_rng(0)
    root = rng.integers(3, 64, 20).tolist()
    stems = [rng.integers(3, 64, 6).tolist() for _ in range(5)]
    return [(*root, *stems[i % 5], *rng.integers(3, 64, 3 + i % 7).tolist()) for i in range(40)]


def test_blocks_hold_every_query_once_and_every_key_it_sees(sequences):
    (pack,) = plan_packs(sequences, limits=[20] * 40, budget=10_000)
    mask = additive(pack, len(pack.root))
    made = blocks.plan_blocks(mask, queries=16)
    n = mask.shape[2]
    assert [q for queries, *_ in made for q in range(n)[queries]] == list(range(n))
    for queries, keys, between in made:
        rows = mask[0, 0, queries]
        unseen = torch.ones(mask.shape[3], dtype=torch.bool)
        unseen[keys] = False
        assert (rows[:, unseen] < 0).all()
        assert torch.equal(between[0, 0], rows[:, keys])
    # What it is for: most of the square is not computed.
    assert sum(between.numel() for *_, between in made) < 0.5 * mask.numel()


def test_scores_in_blocks_equal_scores_without(tiny_model, sequences, monkeypatch):
    lm = load_model(str(tiny_model), threads=1, dtype="float64")
    asked = [Encoded(ids[:-2], ids[-2:]) for ids in sequences]
    assert max(len(p.tokens) for p in plan_scoring(lm, asked)) >= 128
    calls = []
    own = blocks.sdpa_attention_forward
    monkeypatch.setattr(
        blocks, "sdpa_attention_forward", lambda *a, **k: (calls.append(a[1].shape[2]), own(*a, **k))[1]
    )
    with_blocks = [s.total for s in score(lm, asked)]
    assert calls
    assert max(calls) < 128
    calls.clear()
    with blocks.block_queries(10_000):
        without = [s.total for s in score(lm, asked)]
    assert not calls
    # score() ends in float32.
    np.testing.assert_allclose(with_blocks, without, atol=1e-5)


def test_the_model_has_its_own_attention_again_afterwards(tiny_model, sequences):
    lm = load_model(str(tiny_model), threads=1)
    before = lm.model.config._attn_implementation
    score(lm, [Encoded(ids[:-2], ids[-2:]) for ids in sequences])
    assert lm.model.config._attn_implementation == before == "sdpa"


def test_a_model_with_another_attention_is_left_alone(tiny_model, sequences, monkeypatch):
    lm = load_model(str(tiny_model), threads=1)
    asked = [Encoded(ids[:-2], ids[-2:]) for ids in sequences]
    expected = [s.total for s in score(lm, asked)]
    lm.model.set_attn_implementation("eager")
    monkeypatch.setattr(blocks, "_blocks", None)
    np.testing.assert_allclose([s.total for s in score(lm, asked)], expected, atol=1e-5)


def test_a_layer_with_a_mask_of_its_own_is_left_alone():
    mask = torch.zeros(1, 1, 8, 8)
    q = k = v = torch.randn(1, 2, 8, 4)
    own = torch.full((1, 1, 8, 8), torch.finfo(torch.float32).min).triu(1)
    token = blocks._plan.set(blocks._Plan(mask, blocks.plan_blocks(mask, queries=4)))
    try:
        found, _ = blocks._attention(torch.nn.Module(), q, k, v, own)
    finally:
        blocks._plan.reset(token)
    expected, _ = blocks.sdpa_attention_forward(torch.nn.Module(), q, k, v, own)
    assert torch.equal(found, expected)
