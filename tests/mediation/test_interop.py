"""Models as TransformerLens and nnsight hold them, and sweeps as their users do: arrays by layer and head.

Where a package is not installed, a stand-in with its attributes takes its place, and the test with the real
one is skipped and says so.
"""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch

from whyprompt import contrast_heads, head_sweep, infer_heads, knockout_sweep
from whyprompt.errors import MediationError
from whyprompt.mediation import PromptPair, Sweep
from whyprompt.mediation.engine.wrapped import plain_model

PAIRS = [
    PromptPair(item_id=str(i), ids0=[1, 5 + i, 6, 9], ids1=[1, 5 + i, 6, 7, 8, 9], answer_ids=[3, 4])
    for i in range(5)
]


class Bridged(torch.nn.Module):
    """A part of a bridge, as TransformerLens puts it in a module's place."""

    def __init__(self, inner, scale=1.0):
        super().__init__()
        self.add_module("_original_component", inner)
        self.scale = scale

    def forward(self, *args, **kwargs):
        out = self._original_component(*args, **kwargs)
        return (out[0] * self.scale, *out[1:]) if isinstance(out, tuple) else out * self.scale


class OtherAttention(Bridged):
    """Attention that transformers cannot route: the sum is the module's, its switch is not."""

    def forward(self, *args, **kwargs):
        config = self._original_component.config
        own, config._attn_implementation = config._attn_implementation, "eager"
        try:
            return super().forward(*args, **kwargs)
        finally:
            config._attn_implementation = own


def stand_in(package, name, **attributes):
    """Make an object of a class that says it is a package's."""
    made = type(name, (), {"__module__": f"{package}.models"})()
    vars(made).update(attributes)
    return made


def bridge(model, scale=1.0):
    """Put a bridge's parts in a model's place and give the bridge, as TransformerLens 4.3 does."""
    for layer in model.transformer.h:
        layer.attn.c_proj = Bridged(layer.attn.c_proj)
        layer.attn = OtherAttention(layer.attn)
        layer.mlp = Bridged(layer.mlp, scale)
    return stand_in("transformer_lens", "TransformerBridge", original_model=model)


def real_bridge(model, folder):
    pytest.importorskip("transformer_lens", reason="transformer_lens is not installed: a stand-in is tested")
    from tokenizers import Tokenizer, models
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"a": 0, "<p>": 1}, unk_token="a"))  # noqa: S106
    marks = dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<p>")
    PreTrainedTokenizerFast(tokenizer_object=words, **marks).save_pretrained(folder)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return TransformerBridge.boot_transformers(str(folder), hf_model=model, tokenizer=tokenizer, device="cpu")


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "gemma2"])
def test_a_real_bridge_is_swept_as_the_model_it_was_made_of(model_type, tmp_path):
    want = head_sweep(tiny.make(model_type, dtype=torch.float32), PAIRS)
    bridged = real_bridge(tiny.make(model_type, dtype=torch.float32), tmp_path)
    tokens = torch.arange(8)[None]
    before = bridged(tokens)
    got = head_sweep(bridged, PAIRS)
    np.testing.assert_allclose(got.nie, want.nie, atol=2e-5)
    np.testing.assert_allclose(got.pure_nie, want.pure_nie, atol=2e-5)
    assert torch.equal(before, bridged(tokens))
    bridged.add_hook("blocks.1.attn.hook_z", lambda z, hook: z * 0)  # noqa: ARG005
    with pytest.raises(MediationError, match="a hook of its own is at work"):
        head_sweep(bridged, PAIRS)


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_a_real_model_of_nnsight_is_swept_as_the_model_inside(model_type):
    nnsight = pytest.importorskip("nnsight", reason="nnsight is not installed: a stand-in is tested")
    model = tiny.make(model_type, dtype=torch.float32)
    want = head_sweep(model, PAIRS)
    got = head_sweep(nnsight.NNsight(model), PAIRS)
    np.testing.assert_allclose(got.nie, want.nie, atol=2e-5)


def test_a_bridge_is_put_together_again_and_left_as_it_is():
    want = head_sweep(tiny.make("gpt2"), PAIRS)
    model = tiny.make("gpt2")
    bridged = bridge(model)
    with pytest.raises(MediationError, match="cannot be analysed head by head"):
        head_sweep(model, PAIRS)
    got = head_sweep(bridged, PAIRS)
    np.testing.assert_allclose(got.nie, want.nie, atol=1e-12)
    np.testing.assert_allclose(got.pure_nie, want.pure_nie, atol=1e-12)
    assert isinstance(model.transformer.h[0].attn, OtherAttention)
    plain = plain_model(bridged)
    assert plain.transformer.wte.weight is model.transformer.wte.weight
    assert not any(isinstance(m, Bridged) for m in plain.modules())
    plain.transformer.h[0].mlp.register_forward_hook(lambda *_: torch.zeros(1, 8, 32, dtype=torch.float64))
    np.testing.assert_allclose(head_sweep(bridged, PAIRS).nie, want.nie, atol=1e-12)


def test_a_bridge_that_computes_something_else_is_refused():
    with pytest.raises(MediationError, match=r"differ by .* from those of the model it was made of"):
        head_sweep(bridge(tiny.make("gpt2"), scale=1.5), PAIRS)


@pytest.mark.parametrize("attribute", ["_module", "_model"])
def test_nnsight_hands_over_its_model_once_it_is_loaded(attribute):
    model = tiny.make("llama")
    wrapped = stand_in("nnsight", "LanguageModel", **{attribute: model})
    assert plain_model(wrapped) is model
    np.testing.assert_array_equal(head_sweep(wrapped, PAIRS).nie, head_sweep(model, PAIRS).nie)
    lazy = stand_in("nnsight", "LanguageModel", dispatched=False, **{attribute: model})
    with pytest.raises(MediationError, match="weights of this LanguageModel of nnsight are not loaded yet"):
        head_sweep(lazy, PAIRS)
    with pytest.raises(MediationError, match="holds no model of transformers"):
        head_sweep(stand_in("nnsight", "VLLM"), PAIRS)


def test_a_hooked_transformer_has_no_model_of_transformers():
    old = stand_in("transformer_lens", "HookedTransformer", cfg=SimpleNamespace(n_layers=2))
    with pytest.raises(MediationError, match="HookedTransformer of TransformerLens holds converted weights"):
        head_sweep(old, PAIRS)
    with pytest.raises(MediationError, match="TransformerBridge of TransformerLens holds no model"):
        head_sweep(stand_in("transformer_lens", "TransformerBridge"), PAIRS)


# ------------------------------------------------------------------------------------------- arrays
def test_arrays_go_out_and_come_back():
    chosen = [(2, 1), (0, 3), (1, 0)]
    sweep = head_sweep(tiny.make("llama"), PAIRS, heads=chosen)
    arrays = sweep.to_arrays()
    assert arrays["nie"].shape == arrays["y10"].shape == (5, 3, 4)
    np.testing.assert_array_equal(arrays["nie"][:, 2, 1], sweep.nie[:, 0])
    assert np.isnan(arrays["nie"][:, 2, 0]).all()
    file = io.BytesIO()
    np.savez(file, **arrays)
    file.seek(0)
    back = Sweep.from_arrays(np.load(file))
    assert back.heads == tuple(sorted(chosen))
    for name in ("item_ids", "clusters", "outcome", "mediator", "tokens", "model", "n_layers", "n_heads"):
        assert getattr(back, name) == getattr(sweep, name), name
    for name in ("nie", "nde", "pure_nie", "total_nde"):
        np.testing.assert_array_equal(back.grid(name), sweep.grid(name))
    np.testing.assert_array_equal(back.te, sweep.te)
    assert infer_heads(back).part("head 2.1") == infer_heads(
        head_sweep(tiny.make("llama"), PAIRS, heads=sorted(chosen))
    ).part("head 2.1")


def test_numbers_of_another_tool_are_held_against_a_sweep():
    """A loop of hooks is another tool: its array differs from the sweep by rounding, and is tested so."""
    model = tiny.make("gpt2")
    every = [(layer, head) for layer in range(3) for head in range(4)]
    y10 = [tiny.hook_loop(model, p.ids1, p.ids0, p.answer_ids, [[h] for h in every]) for p in PAIRS]
    sweep = head_sweep(model, PAIRS)
    theirs = Sweep.from_arrays(
        {
            "y00": torch.tensor(sweep.y00, requires_grad=True),
            "y11": sweep.y11,
            "y10": np.reshape(y10, (5, 3, 4)),
            "outcome": "log_prob",
            "mediator": "head_output",
        }
    )
    np.testing.assert_allclose(theirs.nie, sweep.nie, atol=1e-9)
    assert np.abs(contrast_heads(sweep, theirs).mean).max() < 1e-9
    of_effects = {"y00": sweep.y00, "y11": sweep.y11, "nie": sweep.grid(), "pure_nie": sweep.grid("pure_nie")}
    again = Sweep.from_arrays(of_effects)
    np.testing.assert_allclose(again.y10, sweep.y10, atol=1e-12)
    np.testing.assert_allclose(again.y01, sweep.y01, atol=1e-12)


GOOD = {"y00": [0.0, 0.0], "y11": [1.0, 2.0], "y10": np.zeros((2, 2, 3))}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y00": None}, "the array y00 is missing"),
        ({"y10": None}, "no array says what patching did"),
        ({"y11": [1.0]}, "y11 has 1 items but y10 has 2"),
        ({"y11": [1.0, np.nan]}, "y11 holds values that are not finite"),
        ({"y11": ["a", "b"]}, "y11 does not hold numbers"),
        ({"y10": np.zeros((2, 3))}, r"y10 has the shape \(2, 3\), and has to be items x layers x heads"),
        ({"y01": np.zeros((2, 3, 3))}, r"y01 has the shape \(2, 3, 3\) but y10 has \(2, 2, 3\)"),
        ({"y10": np.where(np.arange(12).reshape(2, 2, 3) == 4, np.nan, 0.0)}, r"head 1\.1 is NaN for some"),
        ({"y10": np.full((2, 2, 3), np.nan)}, "y10 holds no number at all"),
        ({"y10": np.full((2, 2, 3), np.inf)}, "y10 holds values that are infinite"),
        ({"item_ids": ["a"]}, r"item_ids has the shape \(1,\), and has to name 2 items"),
        ({"item_ids": ["a", "a"]}, "item_ids names item 'a' twice"),
        ({"item_ids": ["a", None]}, "item_ids has None at 1, which names no item"),
        ({"clusters": [np.nan, np.nan]}, "clusters has nan at 0, which names no item or cluster"),
        ({"clusters": ["a"]}, r"clusters has the shape \(1,\)"),
    ],
)
def test_arrays_that_are_no_sweep_are_refused(change, words):
    assert Sweep.from_arrays(GOOD).heads == tuple((i, j) for i in range(2) for j in range(3))
    with pytest.raises(MediationError, match=words):
        Sweep.from_arrays({k: v for k, v in (GOOD | change).items() if v is not None})


def test_tensors_in_half_precision_are_read():
    half = torch.tensor(GOOD["y10"] + 0.5, dtype=torch.bfloat16)
    assert Sweep.from_arrays(GOOD | {"y10": half}).y10.tolist() == [[0.5] * 6] * 2


def test_what_another_version_kept_and_arrays_of_another_shape_are_refused():
    whole = Sweep.from_arrays(GOOD)
    with pytest.raises(MediationError, match="a Sweep has no field 'heads': another version wrote this"):
        Sweep.from_dict(whole.to_dict() | {"heads": [[0, 0]]})
    with pytest.raises(MediationError, match=r"y10 has the shape \(2, 2\), and has to be items x 1 head"):
        Sweep(y00=[0, 0], y11=[1, 1], y10=np.zeros((2, 2)), sites=((0, 0),))


def test_sets_and_knockouts_have_no_place_by_layer_and_head():
    pairs = [
        PromptPair(
            item_id=p.item_id,
            ids0=p.ids0,
            ids1=p.ids1,
            answer_ids=p.answer_ids,
            segments1={"inserted": ((3, 5),)},
        )
        for p in PAIRS
    ]
    with pytest.raises(MediationError, match="only a sweep of single heads, between two prompts"):
        knockout_sweep(tiny.make("llama"), pairs, "inserted").to_arrays()
