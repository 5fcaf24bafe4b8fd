"""What the benchmarks of speed count, against a count by hand and the model's own; what a race may drop."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_operations_of_a_run_are_those_that_torch_counts(kind, tmp_path):
    from arithmetic import shape_of

    if kind == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(n_layer=3, n_head=4, n_embd=32, vocab_size=50, bos_token_id=0, eos_token_id=0)
        )
    else:
        model = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=3,
                num_attention_heads=4,
                num_key_value_heads=2,
                vocab_size=50,
            )
        )
    model.config.save_pretrained(tmp_path)
    shape = shape_of(tmp_path)
    # Of one token: of several, torch counts the half of attention that a causal mask throws away.
    model.set_attn_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(input_ids=torch.zeros(1, 1, dtype=torch.long), use_cache=False)
    assert shape.tokens([0]) + shape.logits == counter.get_total_flops()
    later = shape.tokens([9]) - shape.tokens([0])
    assert later == 9 * 3 * 4 * 32  # scores and sums over nine more tokens in three layers


def test_scores_take_every_beginning_once():
    from arithmetic import Shape, scored

    shape = Shape(layers=1, heads=1, width=0, qkv=1, rest=0, logits=1000)
    # 1 2 3 | 4 5 and 1 2 3 | 4 6 begin alike, and 1 2 | 3 has its last prompt token there as well.
    asked = [((1, 2, 3), (4, 5)), ((1, 2, 3), (4, 6)), ((1, 2), (3,)), ((7,), (8,))]
    # Tokens 1 2 3 4 and 7; predicted after 123, 1234, 12 and 7.
    assert scored(shape, asked) == 5 + 4 * 1000


def test_a_race_does_not_drop_the_best_and_ends_early_where_it_may():
    from coverage_heads import bernstein, raced

    rng = np.random.default_rng(0)
    wrong = dropped = 0
    for _ in range(60):
        columns = rng.exponential(size=(80, 6)).clip(max=6)
        low, high = bernstein(columns, 0.0, 6.0, 0.05)
        mean = columns.mean(0) / 6
        wrong += ((low > mean + 1e-9) | (high < mean - 1e-9)).any(0).sum()
        columns[:, 0] += rng.random() < 0.5
        run, items, alive = raced(columns, 2, (0.0, 7.0))
        dropped += not alive[np.argsort(columns.mean(0))[-2:]].all()
        assert run[items].any(1).all()
    assert wrong / 360 <= 0.05
    assert dropped <= 3
    far = np.tile([5.0, 4.0, 0.0, 0.0], (400, 1)) + rng.normal(0, 0.01, (400, 4))
    for bounds in ((-1.0, 6.0), None):
        run, _, alive = raced(far, 2, bounds)
        assert alive.tolist() == [True, True, False, False]
        assert run.sum() < 0.5 * run.size
