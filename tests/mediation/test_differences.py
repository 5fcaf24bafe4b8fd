"""Models in half precision: float32's answers, by differences from the clean run."""

import copy

import numpy as np
import pytest
import tiny
import torch
from test_engine import pair

from whyprompt import capture_attention, head_sweep, set_sweep
from whyprompt._lean import products, wide
from whyprompt._lean.wide import wide_layers
from whyprompt.mediation import PromptPair
from whyprompt.mediation.engine import differences, engine
from whyprompt.mediation.sweep import open_runner

# Their routers choose in float32 whatever the numbers' type, or their heads are many products.
NEAR = 3e-5


@pytest.fixture(autouse=True)
def pays(monkeypatch):
    """Take bfloat16 products whatever this machine measures; their digits are the same everywhere."""
    monkeypatch.setattr(products, "_bfloat16_ratio", lambda _: 2.0)


@pytest.fixture
def left(monkeypatch):
    """Leave most rows as their differences give them, which tiny models' large effects would not."""
    monkeypatch.setattr(differences, "AIM", 1e-2)


def both(model_type, *, heads=1.0, **changes):
    """Make a model in bfloat16, and one of the same weights in float64; its heads write so much."""
    half = tiny.make(model_type, dtype=torch.bfloat16, **changes)
    with torch.no_grad():
        for projection in tiny.projections(half):
            projection.weight.mul_(heads)
    return half, copy.deepcopy(half).double()


def wide_vocabulary(seed=0):
    """Make a model whose heads write little, with a vocabulary larger than is scored exactly."""
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 8}
    return both("llama", heads=0.25, seed=seed, vocab_size=5000, num_key_value_heads=4, **shape)


@pytest.mark.parametrize("model_type", tiny.ARCHITECTURES)
def test_a_half_precision_model_gives_a_float64_hook_loops_numbers(model_type):
    half, exact = both(model_type)
    p = pair()
    with tiny.exact_softmax():
        sweep = head_sweep(half, [p])
        sets = [[h] for h in sweep.heads]
        want10 = tiny.hook_loop(exact, p.ids1, p.ids0, list(p.answer_ids), sets)
        want01 = tiny.hook_loop(exact, p.ids0, p.ids1, list(p.answer_ids), sets)
    np.testing.assert_allclose(sweep.y10[0], want10, rtol=0, atol=NEAR)
    np.testing.assert_allclose(sweep.y01[0], want01, rtol=0, atol=NEAR)
    assert any("float32" in note for note in sweep.notes)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "qwen3", "opt", "phi", "gpt_neox"])
def test_a_first_order_correction_takes_most_of_the_rounding(model_type, monkeypatch):
    half, exact = both(model_type, heads=0.02)
    monkeypatch.setattr(differences, "AIM", 1e9)
    monkeypatch.setattr(differences, "_COMPARED", 1)
    p = pair(answer=(5,))
    want = head_sweep(exact, [p]).y10
    corrected = np.abs(head_sweep(half, [p]).y10 - want)
    own = differences.carried_scores

    def uncorrected(*args):
        with monkeypatch.context() as m:
            off = property(lambda c: torch.zeros(len(c.squares)), lambda *_: None)
            m.setattr(differences.Carried, "off", off, raising=False)
            return own(*args)

    monkeypatch.setattr(engine, "carried_scores", uncorrected)
    raw = np.abs(head_sweep(half, [p]).y10 - want)
    assert np.sqrt((corrected**2).mean()) < 0.5 * np.sqrt((raw**2).mean())


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("answer", [(5,), (5, 9, 11)])
def test_what_is_printed_bounds_every_row(seed, answer):
    half, exact = wide_vocabulary(seed)
    pairs = [pair(seed=10 * seed + i, answer=answer) for i in range(2)]
    sweep, want = head_sweep(half, pairs), head_sweep(exact, pairs)
    off = max(np.abs(sweep.y10 - want.y10).max(), np.abs(sweep.y01 - want.y01).max())
    assert off > 2e-6  # what float32 gives is nearer
    assert off <= sweep.floor
    assert sweep.floor < 0.1 * np.abs(want.nie).max()
    assert f"{sweep.floor:.1g}" in sweep.notes[0]


@pytest.mark.parametrize("seed", range(3))
def test_no_row_is_further_from_float32_than_is_aimed_at(seed):
    half, exact = wide_vocabulary(seed)
    pairs = [pair(seed=10 * seed + i, answer=(5,)) for i in range(3)]
    sweep, want = head_sweep(half, pairs), head_sweep(exact, pairs)
    off = max(np.abs(sweep.y10 - want.y10).max(), np.abs(sweep.y01 - want.y01).max())
    assert off <= min(max(sweep.floor, NEAR), differences.AIM)


@pytest.mark.usefixtures("left")
def test_batches_and_groups_of_runs_change_little():
    half, exact = wide_vocabulary()
    pairs = [pair(seed=i) for i in range(3)]
    want, small = head_sweep(exact, pairs), head_sweep(half, pairs, max_extra_bytes=1)
    off = max(np.abs(small.y10 - want.y10).max(), np.abs(small.y01 - want.y01).max())
    assert off <= max(small.floor, NEAR)


def test_rows_in_doubt_are_run_in_float32(monkeypatch):
    half, exact = both("llama")
    asked = []
    own = differences._exact
    monkeypatch.setattr(differences, "_exact", lambda *args: (asked.append(len(args[-1])), own(*args))[1])
    want = head_sweep(exact, [pair()])
    np.testing.assert_allclose(head_sweep(half, [pair()]).y10, want.y10, rtol=0, atol=NEAR)
    assert asked == [24]  # twelve heads both ways: a tiny model's effects are as large as its stream


def test_a_pack_with_many_rows_in_doubt_goes_by_float32_products_at_once(monkeypatch):
    half, exact = wide_vocabulary()
    monkeypatch.setattr(differences, "_exact", lambda *_: pytest.fail("no row is run twice"))
    monkeypatch.setattr(differences, "AIM", 1e-6)
    pairs = [pair(seed=s) for s in range(3)]
    sweep, want = head_sweep(half, pairs), head_sweep(exact, pairs)
    np.testing.assert_allclose(sweep.y10, want.y10, rtol=0, atol=1e-4)  # the scale of its logits is large


@pytest.mark.parametrize(
    "options", [{"tokens": "suffix"}, {"mediator": "attention_row"}, {"outcome": "prob"}]
)
def test_other_mediators_and_positions(options):
    half, exact = both("llama")
    p = PromptPair(
        item_id="a",
        ids0=[3, 10, 11, 12, 7],
        ids1=[3, 10, 11, 20, 21, 22, 12, 7],
        answer_ids=[5, 9],
        foil_ids=[6, 9],
    )
    want, got = (head_sweep(m, [p], **options) for m in (exact, half))
    for name in ("y10", "y01"):
        if getattr(want, name) is not None:
            np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=0, atol=NEAR)


@pytest.mark.usefixtures("left")
def test_other_sites_stay_within_what_is_printed():
    half, exact = wide_vocabulary()
    sites = ["mlp 0", "mlp 2", "attn 1", "resid 1", "neuron 2.3", "head 1.3"]
    want, got = (set_sweep(m, [pair()], {name: [name] for name in sites}) for m in (exact, half))
    off = max(np.abs(got.y10 - want.y10).max(), np.abs(got.y01 - want.y01).max())
    assert off <= max(got.floor, 1e-4)  # of which float32's own products have some


@pytest.mark.usefixtures("left")
def test_sets_at_several_depths_go_by_float32_products(monkeypatch):
    """What is set again behind the first site is no longer off by anything."""
    half, exact = both("llama", heads=0.3)
    p, sets = pair(), {"one layer": [(0, 0), (0, 1)], "two": [(0, 0), (2, 1)], "mixed": ["attn 1", "mlp 1"]}
    want = set_sweep(exact, [p], sets)
    by = []
    own = differences.carried_scores
    monkeypatch.setattr(engine, "carried_scores", lambda *args: by.append(1) or own(*args))
    found = set_sweep(half, [p], sets)
    assert not by
    np.testing.assert_allclose(found.y10, want.y10, rtol=0, atol=NEAR)
    set_sweep(half, [p], {"one layer": sets["one layer"]})
    assert by


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_a_float32_model_is_swept_as_ever(model_type, monkeypatch):
    half, _ = both(model_type)
    same = copy.deepcopy(half).float()
    monkeypatch.setattr(products, "_bfloat16_ratio", lambda _: 1.0)
    widened = head_sweep(half, [pair()])
    for module, name in ((engine, "trace"), (engine, "carried_scores"), (wide, "wide_product")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("this is for half precision"))
    sweep = head_sweep(same, [pair()])
    # Weights widened for each product are the float32 model's, and so are the digits.
    np.testing.assert_array_equal(widened.y10, sweep.y10)
    np.testing.assert_array_equal(widened.y01, sweep.y01)
    assert "bfloat16 products measured 1.00 times as fast" in widened.notes[1]
    assert not any("bfloat16" in note for note in sweep.notes)


def test_float16_weights_go_by_float32_products():
    half = tiny.make("llama", dtype=torch.float16)
    sweep, want = head_sweep(half, [pair()]), head_sweep(copy.deepcopy(half).double(), [pair()])
    np.testing.assert_allclose(sweep.y10, want.y10, rtol=0, atol=NEAR)
    assert any("bfloat16 does not hold these weights" in note for note in sweep.notes)


def test_attention_of_a_half_precision_model_is_float32s():
    half, exact = both("gpt_oss")
    want, got = (capture_attention(m, [pair()]) for m in (exact, half))
    np.testing.assert_allclose(got.entropy, want.entropy, rtol=0, atol=NEAR)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gemma2", "mixtral"])
def test_the_model_is_left_as_it_was(model_type):
    half, _ = both(model_type)
    half.requires_grad_()
    half.train()
    before = {
        name: (id(p), p.dtype, p.detach().clone()) for name, p in half.state_dict(keep_vars=True).items()
    }
    head_sweep(half, [pair()])
    after = half.state_dict(keep_vars=True)
    assert {name: (id(p), p.dtype) for name, p in after.items()} == {k: v[:2] for k, v in before.items()}
    assert all(torch.equal(after[name], value) for name, (_, _, value) in before.items())
    assert all(p.grad is None for p in half.parameters())
    assert half.training
    assert not any(
        "forward" in m.__dict__ or m._forward_hooks or m._forward_pre_hooks for m in half.modules()
    )


def test_weights_take_half_the_memory():
    half, _ = wide_vocabulary()

    def size(model):
        return sum(p.nbytes for p in {id(p): p for p in model.parameters()}.values())

    whole = size(copy.deepcopy(half).float())
    with wide_layers(half):
        assert size(half) < 0.51 * whole
    assert size(half) == whole / 2


def test_a_model_that_casts_to_its_weights_type_is_computed_in_float32_whole():
    half, exact = both("llama")

    class Casting(torch.nn.Module):
        def __init__(self, own):
            super().__init__()
            self.own, self.weight = own, own.weight

        def forward(self, x):
            return self.own(x.to(self.own.weight.dtype))

    for model in (half, exact):
        for layer in model.model.layers:
            layer.mlp.up_proj = Casting(layer.mlp.up_proj)
    sweep, want = head_sweep(half, [pair()]), head_sweep(exact, [pair()])
    np.testing.assert_allclose(sweep.y10, want.y10, rtol=0, atol=NEAR)
    assert any("its weights too" in note for note in sweep.notes)


def test_a_model_without_a_gradient_goes_by_float32_products():
    half, exact = both("llama")
    own = type(half.model.norm).forward

    def forward(self, x):
        with torch.no_grad():
            return own(self, x)

    half.model.norm.forward = forward.__get__(half.model.norm)
    sweep, want = head_sweep(half, [pair()]), head_sweep(exact, [pair()])
    np.testing.assert_allclose(sweep.y10, want.y10, rtol=0, atol=NEAR)
    assert any("gives no gradient" in note for note in sweep.notes)


def test_two_products_hold_sixteen_bits(monkeypatch):
    monkeypatch.setattr(products, "_summed_in_float32", lambda a, b: a.float() @ b.float())
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(9, 64, generator=draw), torch.randn(7, 64, generator=draw).bfloat16()
    exact = x.double() @ weight.double().T
    size = x.double().abs() @ weight.double().abs().T
    assert float(((products._two_products(x, weight) - exact).abs() / size).max()) < 2**-16
    assert float(((products.by_bfloat16(x, weight) - exact).abs() / size).max()) < 2**-7


def test_the_budget_bounds_what_is_run_together_and_traced(monkeypatch):
    """Rows tried and rows in doubt come in no larger batches than all others, and clean runs one by one."""
    half, _ = wide_vocabulary()
    monkeypatch.setattr(differences, "AIM", 1e-5)
    monkeypatch.setattr(differences, "_TOO_MANY", 1.0)
    rows, traced = [], []
    plan, trace = differences.Plan, engine.trace

    def planned(jobs, parts, *args, **options):
        rows.append(sum(len(own) for _, own in parts))
        return plan(jobs, parts, *args, **options)

    monkeypatch.setattr(differences, "Plan", planned)
    monkeypatch.setattr(
        engine, "trace", lambda runtime, jobs: traced.append(len(jobs)) or trace(runtime, jobs)
    )
    p = PromptPair(item_id="a", ids0=[3, 4, *range(5, 13)], ids1=[4, 4, *range(5, 13)], answer_ids=[5])
    options = {"tokens": "suffix"}
    head_sweep(half, [p], max_extra_bytes=1, **options)
    assert len(rows) > 2 * 32  # each by its difference, and then some again
    assert set(rows) == {1}
    assert traced == [1, 1]
    rows.clear(), traced.clear()
    head_sweep(half, [p], **options)
    assert max(rows) > 8
    assert traced == [2]


def test_what_a_suffix_keeps_is_counted_in_the_numbers_that_are_kept():
    half, _ = both("llama")
    p = PromptPair(item_id="a", ids0=[3, 10, 12, 7], ids1=[3, 11, 12, 7], answer_ids=[5])
    kept = []
    for model in (half, copy.deepcopy(half).float()):
        with open_runner(
            model,
            [p],
            max_extra_bytes=1 << 28,
            mediator="head_output",
            directions=["nie"],
            outcome="log_prob",
            tokens="suffix",
        ) as runner:
            kept.append(runner.kept_bytes(p))
    assert kept[0] == kept[1] > 0


@pytest.mark.parametrize(("model_type", "told"), [("mixtral", True), ("llama", False)])
def test_weights_that_do_not_stay_in_half_precision_are_told(model_type, told):
    half, _ = both(model_type)
    notes = head_sweep(half, [pair()]).notes
    assert any("(but for 81%, of no plain linear layer or embedding," in note for note in notes) == told
    assert any("weights stay in bfloat16" in note for note in notes)
