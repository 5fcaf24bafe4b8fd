"""Faster routines for a model's own layers give the layers' own numbers, and leave the model as it was."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from whyprompt import _cache
from whyprompt._lean import blocks, products
from whyprompt._lean.activations import gelu_new
from whyprompt._lean.layers import lean_layers
from whyprompt._lean.products import linear, products_note, room_for


@pytest.fixture
def onednn(monkeypatch):
    """Take oneDNN whatever this machine measures; the products must be right everywhere it exists."""
    if not products._right():
        pytest.skip("this build of torch has no oneDNN product")
    monkeypatch.setattr(products, "_ratio", lambda _: 2.0)


@given(
    lead=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 70),
    biased=st.booleans(),
    turned=st.booleans(),
    every=st.integers(1, 2),
)
def test_products_are_the_layers_own_for_every_shape(lead, inputs, outputs, biased, turned, every):
    if not products._right():
        pytest.skip("this build of torch has no oneDNN product")
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(*lead, inputs * every, generator=draw)[..., ::every]
    weight = torch.randn(outputs, inputs, generator=draw)
    weight = weight.T.contiguous().T if turned else weight
    bias = torch.randn(outputs, generator=draw) if biased else None
    wanted = torch.nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
    with torch.inference_mode():
        got = products._onednn(x, weight, bias)
    assert got.shape == wanted.shape
    assert float((got.double() - wanted).abs().max()) < 1e-4


@given(rows=st.integers(1, 20_000))
def test_batches_come_in_few_sizes(rows):
    room = products.round_up(rows)
    assert rows <= room <= max(4, rows * 1.126 + 4)
    assert products.round_up(room) == room


def test_weights_of_other_strides_are_left_to_torch():
    whole = torch.randn(6, 8)
    assert products._fits(whole)
    assert products._fits(whole.T)
    assert products._fits(whole[2:4])
    assert not products._fits(whole[:, ::2])
    assert not products._fits(whole[:1].expand(4, 8))
    assert not products._fits(whole.to_sparse())


def test_there_are_eight_sizes_an_octave_at_most():
    assert len({products.round_up(n) for n in range(1024, 2049)} - {1024}) == 8


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("kind", [torch.nn.Linear, Conv1D])
def test_a_gradient_still_flows(kind):
    layer = kind(6, 5)
    model = torch.nn.Sequential(layer)
    x = torch.randn(9, 6 if kind is torch.nn.Linear else 5, requires_grad=True)
    with lean_layers(model):
        assert "forward" in layer.__dict__
        model(x).sum().backward()
        with torch.inference_mode():
            got = model(x)
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
    assert torch.allclose(got, model(x), atol=1e-5)


@pytest.mark.usefixtures("onednn")
def test_layers_it_does_not_know_are_left_alone():
    class Own(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1

    hooked = torch.nn.Linear(4, 4)
    hooked.forward = lambda x: x
    model = torch.nn.ModuleDict(
        {
            "own": Own(4, 4),
            "hooked": hooked,
            "wide": torch.nn.Linear(4, 4, dtype=torch.float64),
            "narrow": torch.nn.Linear(4, 4, dtype=torch.bfloat16),
            "plain": torch.nn.Linear(4, 4),
        }
    )
    before = {name: dict(m.__dict__) for name, m in model.items()}
    with lean_layers(model), torch.inference_mode():
        assert [name for name, m in model.items() if "forward" in m.__dict__] == ["hooked", "plain"]
        x = torch.randn(8, 4)
        assert torch.equal(model["hooked"](x), x)
        assert model["wide"](x.double()).dtype == torch.float64
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model["plain"](x).dtype == torch.bfloat16
    assert {name: dict(m.__dict__) for name, m in model.items()} == before


@pytest.mark.usefixtures("onednn")
def test_layers_are_given_back_after_an_error():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), NewGELUActivation())
    with pytest.raises(RuntimeError, match="broken"), lean_layers(model):
        raise RuntimeError("broken")
    assert all("forward" not in m.__dict__ for m in model)


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("which", ["tiny_model", "tiny_gpt2"])
def test_a_models_logits_stay(request, which, monkeypatch):
    monkeypatch.setattr(blocks, "_ROWS", 8)
    model = AutoModelForCausalLM.from_pretrained(request.getfixturevalue(which), dtype=torch.float32).eval()
    ids = torch.randint(0, 20, (3, 17), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        own = model(input_ids=ids).logits
        with lean_layers(model):
            lean = model(input_ids=ids).logits
        assert float((own - lean).abs().max()) < 1e-5
        assert all(blocks._by_token[type(m)] for m in model.modules() if type(m).__name__.endswith("MLP"))
        half = copy.deepcopy(model).to(torch.bfloat16)
        own = half(input_ids=ids).logits
        monkeypatch.setattr(blocks, "_ROWS", 256)  # a batch this small stays whole
        with lean_layers(half):
            assert torch.equal(own, half(input_ids=ids).logits)


def test_gelu_new_is_its_formula():
    x = torch.linspace(-9, 9, 100_001)
    wanted = NewGELUActivation()(x.double())
    assert float((gelu_new(x).double() - wanted).abs().max()) < 1e-6
    assert float((gelu_new(x.double()) - wanted).abs().max()) < 1e-14
    assert torch.equal(gelu_new(x[None, ::2]), gelu_new(x[::2])[None])


def feed_forward(**parts):
    """Make a block of the shape models have, with some parts changed."""

    class OwnMLP(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.act, self.down = torch.nn.Linear(3, 7), torch.nn.SiLU(), torch.nn.Linear(7, 3)
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, x):
            self.seen = [*getattr(self, "seen", []), x.shape[-2]]
            return self.down(self.act(self.up(x)))

    return OwnMLP().eval()


@pytest.mark.parametrize("shape", [(1, 50, 3), (50, 1, 3), (7, 9, 3), (40, 3)])
def test_a_feed_forward_block_in_pieces_is_the_whole(monkeypatch, shape):
    monkeypatch.setattr(blocks, "_ROWS", 8)
    model = feed_forward()
    x = torch.randn(shape, dtype=torch.float64)
    model.double()
    with torch.inference_mode():
        whole = model(x)
        model.seen = []
        with lean_layers(model):
            model(x)  # the first tries whether tokens see each other
            model.seen = []
            assert torch.allclose(model(x), whole, rtol=0, atol=1e-12)
            assert len(model.seen) > 3
            assert max(model.seen) <= 8
            model.seen = []
            model(x.reshape(-1, 3)[:12])
            assert model.seen == [12]  # two pieces would be slower
    with lean_layers(model):
        model.seen = []
        model(x)
        assert len(model.seen) == 1  # a gradient is asked for


def test_a_block_whose_tokens_see_each_other_stays_whole(monkeypatch):
    monkeypatch.setattr(blocks, "_ROWS", 8)

    class ShiftMLP(type(feed_forward())):
        def forward(self, x):
            return super().forward(x + x.roll(1, -2))

    model = ShiftMLP().eval()
    x = torch.randn(1, 50, 3)
    assert blocks.block_forward(model) is not None
    with torch.inference_mode():
        whole = model(x)
        with lean_layers(model):
            assert torch.allclose(model(x), whole, rtol=0, atol=1e-5)


def test_what_is_no_plain_feed_forward_block_stays_whole():
    assert blocks.block_forward(feed_forward()) is not None
    assert blocks.block_forward(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))) is None
    assert blocks.block_forward(feed_forward(mix=torch.nn.Conv1d(3, 3, 1))) is None
    assert blocks.block_forward(feed_forward(norm=torch.nn.LayerNorm(3))) is None
    assert blocks.block_forward(feed_forward(scale=torch.nn.Parameter(torch.ones(3)))) is None
    assert blocks.block_forward(feed_forward(down=torch.nn.Identity())) is None


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("when", ["before", "inside"])
def test_a_hook_on_a_layer_is_called_once_a_call(monkeypatch, when):
    monkeypatch.setattr(blocks, "_ROWS", 8)
    monkeypatch.setitem(blocks._by_token, type(model := feed_forward()), True)
    calls = []
    x = torch.randn(1, 50, 3)
    if when == "before":
        model.up.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode(), lean_layers(model):
        if when == "inside":
            model.up.register_forward_pre_hook(lambda *_: calls.append(1))
        model(x)
    assert len(calls) == 1


@pytest.mark.usefixtures("onednn")
def test_a_copy_made_inside_computes_with_its_own_weights(monkeypatch):
    monkeypatch.setattr(blocks, "_ROWS", 8)
    model = torch.nn.Sequential(feed_forward(), torch.nn.Linear(3, 5), Conv1D(4, 5), NewGELUActivation())
    with torch.inference_mode(), lean_layers(model):
        twin = copy.deepcopy(model)
        for parameter in twin.parameters():
            parameter.zero_()
        x = torch.randn(1, 50, 3)
        assert float(twin(x).abs().max()) == 0
        assert float(model(x).abs().max()) > 0
    assert all("forward" not in m.__dict__ for m in model)


@pytest.mark.parametrize(("ratio", "chosen"), [(0.0, "torch's own"), (1.1, "torch's own"), (1.9, "oneDNN")])
def test_the_note_names_the_routine_taken(monkeypatch, ratio, chosen):
    monkeypatch.setattr(products, "_ratio", lambda _: ratio)
    assert products_note().startswith(f"products by {chosen}")
    calls = []
    monkeypatch.setattr(products, "_onednn", lambda x, w, _: calls.append(1) or x @ w.T)
    with torch.inference_mode():
        linear(torch.ones(8, 3), torch.ones(2, 3))
    assert bool(calls) == (chosen == "oneDNN")
    assert room_for(17, 1, torch.ones(1)) == (20 if calls else 17)
    assert room_for(17, 1, torch.ones(1).double()) == 17
    assert room_for(517, 7, torch.ones(1)) == 517  # no number of whole rows fills the batch


def test_a_routine_that_lacks_or_differs_is_not_taken(monkeypatch):
    def lacks(*_):
        raise AttributeError("no such operator")

    monkeypatch.setattr(products, "_onednn", lacks)
    assert products._measure() == 0
    monkeypatch.setattr(products, "_onednn", lambda x, w, _: x @ w.T + 1)
    assert products._measure() == 0
    monkeypatch.setattr(products, "_onednn", lambda x, w, _: torch.full((len(x), len(w)), torch.nan))
    assert products._measure() == 0
    # GPT-2's weights alone go wrong.
    nan = torch.tensor(torch.nan)
    monkeypatch.setattr(products, "_onednn", lambda x, w, _: x @ w.T + (0 if w.is_contiguous() else nan))
    assert products._measure() == 0


def test_one_disturbed_round_decides_nothing(monkeypatch):
    monkeypatch.setattr(products, "_onednn", lambda x, w, _: x @ w.T)
    monkeypatch.setattr(products.time, "sleep", lambda _: None)
    for found, want in (([1.9, 0.8, 1.7, 9.0, 1.8, 0.9, 1.8, 1.75, 1.1], 1.75), ([1.1] * 5 + [4.0] * 4, 1.1)):
        rounds = iter(found)
        monkeypatch.setattr(products, "_ratio_of_a_round", lambda *_, r=rounds: next(r))
        assert products._measure() == want


def test_a_ratio_is_measured_once_for_a_processor(monkeypatch, tmp_path):
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path))
    figures = iter([1.234, 5.0, 6.0, 7.0])
    take = lambda: _cache.remembered_ratio("a", lambda: next(figures))  # noqa: E731
    assert take() == take() == 1.23
    monkeypatch.setattr(_cache, "_processor", lambda: "another")
    assert take() == 5.0
    for file in (tmp_path / "speed").iterdir():
        file.write_text("not a num")
    assert take() == 6.0
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path / "file"))
    assert take() == 7.0
