import contextlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch

from whyprompt import capture_attention, head_sweep, joint_effect, layer_sweep, set_sweep, site_sweep
from whyprompt._lean import blocks, products
from whyprompt.errors import MediationError
from whyprompt.mediation import PromptPair
from whyprompt.mediation.engine.actions import set_output
from whyprompt.mediation.engine.opening import model_runtime
from whyprompt.mediation.engine.patching import Job
from whyprompt.mediation.engine.runner import in_packs
from whyprompt.mediation.engine.sites import as_sites

ATOL = 1e-9
# Their routers choose in float32, whatever the model's type.
ATOL_OF = dict.fromkeys(("deepseek_v2", "deepseek_v3", "axk1", "glm4_moe_lite", "sarvam_mla"), 1e-6)


def pair(n0=12, n1=19, answer=(5, 9), seed=0, **extra):
    rng = np.random.default_rng(seed)
    ids0, ids1 = (rng.integers(3, tiny.VOCAB, n).tolist() for n in (n0, n1))
    return PromptPair(item_id=f"item{seed}", ids0=[*ids0, 7], ids1=[*ids1, 7], answer_ids=answer, **extra)


@pytest.mark.parametrize("model_type", tiny.ARCHITECTURES)
def test_equals_a_hook_loop_on_every_architecture(model_type):
    model = tiny.make(model_type)
    p = pair()
    with tiny.exact_softmax():  # a router's softmax in float32 would blur both sides alike
        sweep = head_sweep(model, [p])
        joint = set_sweep(model, [p], {"two": [(2, 3), (0, 1)], "three": [(1, 0), (1, 1), (2, 2)]})
    assert len(sweep.heads) == 12
    sets = [[h] for h in sweep.heads]
    for sweep_, sets_ in ((sweep, sets), (joint, joint.sets.values())):
        want10 = tiny.hook_loop(model, p.ids1, p.ids0, list(p.answer_ids), sets_)
        want01 = tiny.hook_loop(model, p.ids0, p.ids1, list(p.answer_ids), sets_)
        atol = ATOL_OF.get(model_type, ATOL)
        np.testing.assert_allclose(sweep_.y10[0], want10, rtol=0, atol=atol)
        np.testing.assert_allclose(sweep_.y01[0], want01, rtol=0, atol=atol)
    # A test of equality means something only where patching does something.
    assert np.abs(sweep.nie).max() > 0.1


@pytest.mark.parametrize("model_type", ["llama", "gpt_bigcode", "gemma2", "gpt_oss", "mistral"])
@pytest.mark.parametrize("n_answer", [1, 4])
def test_chunks_of_rows_change_nothing(model_type, n_answer):
    model = tiny.make(model_type)
    p = pair(answer=tuple(range(5, 5 + n_answer)))
    whole, small = head_sweep(model, [p]), head_sweep(model, [p], max_extra_bytes=1)
    np.testing.assert_allclose(small.y10, whole.y10, rtol=0, atol=1e-12)
    np.testing.assert_allclose(small.y01, whole.y01, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model_type", tiny.NEVER)
def test_refuses_by_name_before_anything_runs(model_type, monkeypatch):
    model = tiny.make(model_type)
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: pytest.fail("the model was run"))
    with pytest.raises(MediationError, match=f"'{model_type}'"):
        head_sweep(model, [pair()])


def test_refuses_an_architecture_whose_code_never_mentions_the_interface(monkeypatch):
    from whyprompt.mediation.engine import support

    monkeypatch.setattr(support, "NEVER_CALLS", {})
    model = tiny.make("bloom")
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: pytest.fail("the model was run"))
    with pytest.raises(MediationError, match=r"'bloom'.*never looks into"):
        head_sweep(model, [pair()])


def test_refuses_an_architecture_that_is_found_never_to_call_the_function(monkeypatch):
    from whyprompt.mediation.engine import support

    monkeypatch.setattr(support, "NEVER_CALLS", {})
    monkeypatch.setattr(support, "_INTERFACE", "__name__")
    with pytest.raises(MediationError, match=r"'bloom'.*never calls"):
        head_sweep(tiny.make("bloom"), [pair()])


def test_the_table_of_refusals_is_true(monkeypatch):
    """Every name in it really never calls the function, and the reading of the code agrees."""
    from whyprompt.mediation.engine import support

    names = set(support.NEVER_CALLS)
    assert names == set(tiny.NEVER)
    monkeypatch.setattr(support, "NEVER_CALLS", {})
    for name in names:
        with pytest.raises(MediationError, match="never looks into"):
            support.refuse_known(tiny.make(name), name)


def test_refuses_a_model_whose_logits_change(monkeypatch):
    from whyprompt.mediation.engine import clean

    own = clean.attend_blockwise
    monkeypatch.setattr(clean, "attend_blockwise", lambda *a: own(*a) + 0.01)
    with pytest.raises(MediationError, match=r"'gemma2'.*logits change"):
        head_sweep(tiny.make("gemma2"), [pair()])


def test_refuses_a_model_whose_answer_positions_alone_go_wrong(monkeypatch):
    from whyprompt.mediation.engine import patching

    own = patching.attend_rows

    def wrong(call, state, window):
        z, weights = own(call, state, window)
        return z * 1.001, weights

    monkeypatch.setattr(patching, "attend_rows", wrong)
    with pytest.raises(MediationError, match=r"'llama'.*nothing patched"):
        head_sweep(tiny.make("llama"), [pair()])


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_leaves_the_model_as_it_was(implementation):
    model = tiny.make("llama", dtype=torch.float32)
    model.config._attn_implementation = implementation
    model.train()
    before = model(torch.tensor([[3, 4, 5]])).logits
    head_sweep(model, [pair()])
    assert model.config._attn_implementation == implementation
    assert model.training
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert torch.equal(model(torch.tensor([[3, 4, 5]])).logits, before)


def test_leaves_the_model_as_it_was_after_an_error():
    model = tiny.make("llama")
    with pytest.raises(MediationError, match="out of range"):
        head_sweep(model, [pair()], heads=[(3, 0)])
    assert model.config._attn_implementation == "eager"


def test_a_mediator_set_to_its_own_value_changes_nothing():
    p = pair()
    same = PromptPair(item_id="same", ids0=p.ids1, ids1=p.ids1, answer_ids=p.answer_ids)
    sweep = head_sweep(tiny.make("qwen3"), [same])
    for quantity in (sweep.te, sweep.nie, sweep.nde, sweep.pure_nie, sweep.total_nde):
        np.testing.assert_allclose(quantity, 0, atol=1e-12)


def test_effects_add_up_both_ways():
    sweep = head_sweep(tiny.make("llama", dtype=torch.float32), [pair(seed=s) for s in range(3)])
    te = sweep.te[:, None]
    np.testing.assert_allclose(sweep.nie + sweep.nde, np.broadcast_to(te, sweep.nie.shape), atol=1e-12)
    np.testing.assert_allclose(
        sweep.pure_nie + sweep.total_nde, np.broadcast_to(te, sweep.nie.shape), atol=1e-12
    )


def test_the_shared_prefix_holds_the_same_in_both_worlds():
    # Patching positions before the first difference is a no-op, which is why it is not offered.
    model = tiny.make("gemma3_text")
    p = PromptPair(item_id="a", ids0=[3, 4, 5, 6, 8, 7], ids1=[3, 4, 5, 6, 9, 10, 8, 7], answer_ids=[11])
    with model_runtime(model) as runtime:
        w0, w1 = (runtime.clean(ids, p.answer_ids) for ids in (p.ids0, p.ids1))
    for a, b in zip(w0.layers, w1.layers, strict=True):
        torch.testing.assert_close(a.keys[:, :4], b.keys[:, :4], rtol=0, atol=1e-12)
        torch.testing.assert_close(a.values[:, :4], b.values[:, :4], rtol=0, atol=1e-12)


def test_the_last_residual_stream_is_a_complete_mediator():
    model, p = tiny.make("gemma2"), pair()
    with model_runtime(model) as runtime:
        w0, w1 = (runtime.clean(ids, p.answer_ids) for ids in (p.ids0, p.ids1))
        # Y(1, M(0)) with M the stream that the head reads: prompt 1 has no other way to it.
        y10, _ = runtime.log_probs(w0.hidden[None], w1.answer)
    torch.testing.assert_close(y10[0], w0.log_probs, rtol=0, atol=1e-12)


def test_all_heads_of_all_layers_leave_only_the_residual_path():
    # The cue token is the same, so with every head's output taken from prompt 0 a model without
    # positions in its stream (rotary) computes prompt 0's answer exactly: joint NDE = 0.
    model, p = tiny.make("llama"), pair()
    joint = joint_effect(model, [p], [(layer, head) for layer in range(3) for head in range(4)])
    np.testing.assert_allclose(joint.nde, 0, atol=1e-12)
    np.testing.assert_allclose(joint.total_nde, 0, atol=1e-12)
    # With learned positions in the stream it does not.
    joint = joint_effect(tiny.make("gpt2"), [p], [(layer, head) for layer in range(3) for head in range(4)])
    assert abs(joint.nde[0, 0]) > 1e-3


def test_layer_sweep_is_the_joint_effect_of_each_layer():
    model, p = tiny.make("llama"), pair()
    saved = {}
    layers = layer_sweep(model, [p], on_pair=lambda r: saved.update({r.item_id: r}))
    again = layer_sweep(model, [p], done=saved, on_pair=lambda _: pytest.fail("it was run again"))
    np.testing.assert_array_equal(again.y10, layers.y10)
    assert layers.labels == ("layer 0", "layer 1", "layer 2")
    one = joint_effect(model, [p], [(1, h) for h in range(4)])
    np.testing.assert_allclose(layers.y10[:, 1], one.y10[:, 0], atol=1e-12)


def test_outcomes():
    model = tiny.make("llama")
    p = pair(answer=(5, 9), foil_ids=(6, 3, 2))
    base = head_sweep(model, [p])
    prob = head_sweep(model, [p], outcome="prob")
    np.testing.assert_allclose(prob.y10, np.exp(base.y10), rtol=1e-12)
    margin = head_sweep(model, [p], outcome="margin")
    want = np.array(tiny.hook_loop(model, p.ids1, p.ids0, [5, 9], [[h] for h in base.heads])) - np.array(
        tiny.hook_loop(model, p.ids1, p.ids0, [6, 3, 2], [[h] for h in base.heads])
    )
    np.testing.assert_allclose(margin.y10[0], want, atol=ATOL)
    with pytest.raises(MediationError, match="'item0' has no foil_ids"):
        head_sweep(model, [pair()], outcome="margin")


def test_only_what_is_asked_for_is_run():
    model, p = tiny.make("llama"), pair()
    one = head_sweep(model, [p], heads=[(2, 1), (0, 3)], directions=("nie",))
    assert one.quantities == ("nie", "nde")
    assert one.y01 is None
    with pytest.raises(MediationError, match="pure_nie needs y01"):
        _ = one.pure_nie
    whole = head_sweep(model, [p])
    np.testing.assert_allclose(one.nie[0], [whole.grid()[0, 2, 1], whole.grid()[0, 0, 3]], atol=1e-12)
    assert np.isfinite(one.grid()).sum() == 2


def test_pairs_run_together_while_what_they_keep_and_run_is_within_the_budget():
    pairs = [PromptPair(item_id=f"{k}", ids0=[1], ids1=[2, 1], answer_ids=[4]) for k in range(5)]

    def sizes(kept, budget=80):
        runtime = SimpleNamespace(max_extra_bytes=budget, number_bytes=4, row_width=1, by_differences=False)
        return [len(pack) for pack in in_packs(runtime, pairs, kept=lambda _: kept)]

    assert sizes(0) == [3, 2]  # of three tokens each, and ten at a time
    assert sizes(10) == [2, 2, 1]  # a quarter of the budget is for what is kept
    assert sizes(21) == [1] * 5
    assert sizes(0, budget=1) == [1] * 5


def test_resumes_by_pair():
    import json

    from whyprompt.mediation import PairOutcomes

    model, pairs = tiny.make("llama"), [pair(seed=s) for s in range(3)]
    saved, seen = {}, []
    whole = head_sweep(
        model,
        pairs,
        on_pair=lambda r: saved.update({r.item_id: r}),
        progress=lambda i, n, _: seen.append((i, n)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    stored = {k: PairOutcomes.from_dict(json.loads(json.dumps(v.to_dict()))) for k, v in saved.items()}
    np.testing.assert_array_equal(head_sweep(model, pairs, done=stored).y01, whole.y01)
    again = []
    resumed = head_sweep(model, pairs, done={k: saved[k] for k in ("item0", "item2")}, on_pair=again.append)
    assert [r.item_id for r in again] == ["item1"]
    np.testing.assert_array_equal(resumed.y10, whole.y10)
    with pytest.raises(MediationError, match="'item0': the saved y10 does not fit"):
        head_sweep(model, pairs, heads=[(0, 0)], done=saved)


def test_results_survive_a_round_trip():
    import json

    from whyprompt.mediation import Sweep

    sweep = head_sweep(tiny.make("llama"), [pair(seed=s, cluster="t") for s in range(2)])
    again = Sweep.from_dict(json.loads(json.dumps(sweep.to_dict())))
    assert again.heads == sweep.heads
    assert again.clusters == ("t", "t")
    np.testing.assert_array_equal(again.nie, sweep.nie)
    frame = sweep.to_frame()
    assert len(frame) == 24
    row = frame[(frame.item_id == "item1") & (frame["layer"] == 2) & (frame["head"] == 3)].iloc[0]
    assert row.nie == sweep.grid()[1, 2, 3]
    assert row.te == sweep.te[1]
    assert sweep.ranked()[0] == sweep.heads[int(sweep.nie.mean(0).argmax())]


def test_bad_input_is_named():
    model, p = tiny.make("llama"), pair()
    for match, run in (
        ("no prompt pairs", lambda: head_sweep(model, [])),
        ("'item0' is given twice", lambda: head_sweep(model, [p, p])),
        (
            r"head 0.4 is out of range: layer 0 of the model's 3 has 4 heads",
            lambda: head_sweep(model, [p], heads=[(0, 4)]),
        ),
        (r"head -1.0 is out of range", lambda: head_sweep(model, [p], heads=[(-1, 0)])),
        ("'head 0.0' is named twice", lambda: head_sweep(model, [p], heads=[(0, 0), (0, 0)])),
        ("heads is empty", lambda: head_sweep(model, [p], heads=[])),
        ("unknown outcome 'accuracy'", lambda: head_sweep(model, [p], outcome="accuracy")),
        ("unknown mediator 'mlp'", lambda: head_sweep(model, [p], mediator="mlp")),
        (r"unknown directions \['te'\]", lambda: head_sweep(model, [p], directions=("te",))),
        ("directions is empty", lambda: head_sweep(model, [p], directions=())),
        ("'empty' holds no sites", lambda: set_sweep(model, [p], {"empty": []})),
        ("sets is empty", lambda: set_sweep(model, [p], {})),
        ("token id 61 is outside the vocabulary of 61", lambda: head_sweep(model, [pair(answer=(61,))])),
        ("unknown quantity 'te'", lambda: head_sweep(model, [p]).grid("te")),
    ):
        with pytest.raises(MediationError, match=match):
            run()


def test_nan_logits_are_an_error_that_names_the_item():
    model = tiny.make("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[5] = float("nan")
    good = PromptPair(item_id="good", ids0=[3, 7], ids1=[3, 4, 6, 7], answer_ids=[9])
    bad = PromptPair(item_id="bad", ids0=[3, 7], ids1=[3, 5, 7], answer_ids=[9])
    with pytest.raises(MediationError, match=r"'bad'.*not finite"):
        head_sweep(model, [good, bad])


def test_nan_logits_of_every_item_are_not_blamed_on_the_architecture():
    model = tiny.make("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[5] = float("nan")
    for ids in ([3, 4, 5, 7], [5, 3, 4, 7], [*range(6, 20), 5, 7]):
        bad = PromptPair(item_id="bad", ids0=[5, 7], ids1=ids, answer_ids=[9])
        with pytest.raises(MediationError, match=r"'bad'.*not finite"):
            head_sweep(model, [bad])


def test_a_token_outside_the_vocabulary_of_the_longest_prompt_is_named():
    far = PromptPair(item_id="far", ids0=[3, 7], ids1=[3, 61, 7], answer_ids=[9])
    with pytest.raises(MediationError, match="'far': token id 61 is outside the vocabulary of 61"):
        head_sweep(tiny.make("llama"), [far])


@pytest.mark.parametrize("given", ["gpt2", None, torch.nn.Linear(2, 2)])
def test_what_is_no_language_model_is_refused(given):
    with pytest.raises(MediationError, match="not a causal language model"):
        head_sweep(given, [pair()])


def test_a_model_that_looks_ahead_is_refused():
    # Its prefix would change with a patch at the answer, which a cached prefix cannot show.
    with pytest.raises(MediationError, match="lets tokens see later ones"):
        head_sweep(tiny.make("bert"), [pair()])


@pytest.mark.parametrize(
    "changes",
    [{"outcome": "prob"}, {"heads": [(0, 0), (1, 1)]}, {"pairs": [pair(answer=(5, 8))]}, {"seed": 1}],
)
def test_saved_items_of_other_settings_are_refused(changes):
    model, saved = tiny.make("llama"), {}
    options = {"pairs": [pair()], "heads": [(0, 0), (2, 2)]}
    head_sweep(model, **options, on_pair=lambda r: saved.update({r.item_id: r}))
    if "seed" in changes:  # other prompts for the same item
        changes = {"pairs": [replace(pair(seed=1), item_id="item0")]}
    with pytest.raises(MediationError, match="'item0': what is saved of it was made with other"):
        head_sweep(model, **options | changes, done=saved)


def test_a_saved_item_takes_the_cluster_of_its_pair():
    model, saved = tiny.make("llama"), {}
    head_sweep(model, [pair()], on_pair=lambda r: saved.update({r.item_id: replace(r, made_with="")}))
    assert head_sweep(model, [pair(cluster="new")], done=saved).clusters == ("new",)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("model_type", ["gpt2", "llama", "gemma2", "gpt_oss", "qwen3"])
def test_cuda_gives_the_numbers_of_the_processor(model_type):
    pairs = long_pairs()
    here, there = tiny.make(model_type), tiny.make(model_type).cuda()
    for run in (
        lambda m: head_sweep(m, pairs).y10,
        lambda m: head_sweep(m, pairs[:2], mediator="attention_row").y10,
        lambda m: site_sweep(m, pairs, ["head 1", "attn", "mlp", "resid"], tokens="suffix").y01,
        lambda m: capture_attention(m, pairs).entropy,
    ):
        np.testing.assert_allclose(run(there), run(here), rtol=0, atol=ATOL)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions_run_and_stay_near(dtype):
    exact = head_sweep(tiny.make("llama"), [pair()])
    other = head_sweep(tiny.make("llama", dtype=dtype), [pair()])
    limit = 1e-4 if dtype == torch.float32 else 0.5
    assert np.abs(other.nie - exact.nie).max() < limit


@pytest.mark.parametrize("model_type", tiny.ARCHITECTURES)
@pytest.mark.parametrize("routine", ["onednn", "own"])
def test_either_routine_of_products_gives_the_numbers(model_type, routine, monkeypatch):
    if not products._right():
        pytest.skip("this build of torch has no oneDNN product")
    monkeypatch.setattr(products, "_ratio", lambda _: 2.0 if routine == "onednn" else 0.5)
    used = []
    own = products._onednn
    monkeypatch.setattr(products, "_onednn", lambda *a: used.append(1) or own(*a))
    monkeypatch.setattr(
        blocks, "_ROWS", 5
    )  # feed-forward blocks in pieces, which these batches are too small for
    # Answers of one token fill batches with spare rows; of three, their products are padded.
    pairs = [pair(seed=s, answer=(5,)) for s in range(3)] + [pair(seed=3, answer=(5, 9, 4))]
    exact = head_sweep(tiny.make(model_type), pairs)
    assert not used
    single = head_sweep(tiny.make(model_type, dtype=torch.float32), pairs)
    assert bool(used) == (routine == "onednn")
    np.testing.assert_allclose(single.y10, exact.y10, rtol=0, atol=1e-4)
    np.testing.assert_allclose(single.y01, exact.y01, rtol=0, atol=1e-4)


def test_a_prompt_of_one_token_has_no_prefix():
    model = tiny.make("llama")
    p = PromptPair(item_id="short", ids0=[7], ids1=[3, 7], answer_ids=[9, 4])
    want = tiny.hook_loop(model, p.ids0, p.ids1, [9, 4], [[(1, 2)]])
    np.testing.assert_allclose(head_sweep(model, [p], heads=[(1, 2)]).y01[0], want, atol=ATOL)


def test_row_zero_is_checked_on_every_chunk():
    model, p = tiny.make("llama"), pair()
    with model_runtime(model, max_extra_bytes=1) as runtime, contextlib.ExitStack() as stack:
        w0, w1 = (runtime.clean(ids, p.answer_ids) for ids in (p.ids0, p.ids1))
        checked = []
        stack.callback(checked.clear)
        own = type(runtime)._check_sentinel
        stack.callback(setattr, type(runtime), "_check_sentinel", own)
        type(runtime)._check_sentinel = lambda *a: (checked.append(1), own(*a))
        runtime.patched_many([Job(w1, [as_sites([(i, i)]) for i in range(3)], set_output(w0.layers))])
        assert len(checked) == 3


PLAIN = ["gpt2", "llama", "qwen3", "gpt_neox", "opt", "phi", "olmo2", "mixtral", "gpt_bigcode", "biogpt"]


def long_pairs(n_answer=2, **changes):
    """Three pairs: a block inserted, a block put before, nothing in common."""
    rng = np.random.default_rng(1)
    a, b, c = (rng.integers(3, tiny.VOCAB, n).tolist() for n in (14, 9, 17))
    answer = tuple(range(20, 20 + n_answer))
    ids = {"inserted": ([*a, 7], [*a, *b, 7]), "before": ([*a, 7], [*b, *a, 7]), "other": ([*a, 7], [*c, 7])}
    return [PromptPair(item_id=k, ids0=v[0], ids1=v[1], answer_ids=answer, **changes) for k, v in ids.items()]


@pytest.mark.parametrize("model_type", PLAIN)
@pytest.mark.parametrize("n_answer", [1, 3])
def test_packed_clean_runs_equal_whole_ones(model_type, n_answer, monkeypatch):
    from whyprompt.mediation.engine import packing

    model, pairs = tiny.make(model_type), long_pairs(n_answer)
    seen = []
    own = packing.plan_stretches
    monkeypatch.setattr(
        "whyprompt.mediation.engine.engine.plan_stretches", lambda r: seen.append(own(r)) or seen[-1]
    )
    packed = head_sweep(model, pairs)
    taken_over = [s.shared for s in seen[-1]]
    assert len(taken_over) == 6
    assert taken_over[1] == 14  # the second prompt brings the inserted block, the cue and the answer
    monkeypatch.setattr("whyprompt.mediation.engine.opening._try_packing", lambda runtime, *_: runtime)
    monkeypatch.setattr(
        "whyprompt.mediation.engine.engine.Packed", lambda *_, **__: pytest.fail("it was packed")
    )
    whole = head_sweep(model, pairs)
    for name in ("y00", "y11", "y10", "y01"):
        np.testing.assert_allclose(getattr(packed, name), getattr(whole, name), rtol=0, atol=ATOL)


def test_packed_runs_keep_attention_rows_and_foils(monkeypatch):
    model = tiny.make("llama")
    pairs = long_pairs(foil_ids=(9, 8, 30))[:1]
    runs = [
        lambda: head_sweep(model, pairs, mediator="attention_row").y10,
        lambda: head_sweep(model, pairs, outcome="margin").y01,
        lambda: capture_attention(model, pairs).entropy,
    ]
    packed = [run() for run in runs]
    monkeypatch.setattr("whyprompt.mediation.engine.opening._try_packing", lambda runtime, *_: runtime)
    for got, run in zip(packed, runs, strict=True):
        np.testing.assert_allclose(got, run(), rtol=0, atol=ATOL)


@pytest.mark.parametrize("model_type", ["mistral", "gemma2", "gpt_oss", "gemma3_text"])
def test_windows_capping_and_sinks_are_never_packed(model_type):
    p = long_pairs()[0]
    with model_runtime(tiny.make(model_type), check=(p.ids1, p.answer_ids)) as runtime:
        assert runtime.packs_up_to == 0


def test_packing_is_given_up_where_it_changes_the_numbers(monkeypatch):
    from whyprompt.mediation.engine import packing

    own = packing.Packed.__call__
    monkeypatch.setattr(packing.Packed, "__call__", lambda self, call: own(self, call) * 1.001)
    p = long_pairs()[0]
    with model_runtime(tiny.make("llama"), check=(p.ids1, p.answer_ids)) as runtime:
        assert runtime.packs_up_to == 0


def test_runs_longer_than_the_one_that_was_tried_are_not_packed():
    p = long_pairs()[0]
    with model_runtime(tiny.make("llama"), check=(p.ids0, p.answer_ids)) as runtime:
        assert runtime.packs_up_to == len(p.ids0) + 1
        a, b = runtime.clean_many([(p.ids0, p.answer_ids), (p.ids1, p.answer_ids)])
        torch.testing.assert_close(b.log_probs, runtime.clean(p.ids1, p.answer_ids).log_probs)
    assert len(a.layers) == 3


@pytest.mark.parametrize(
    ("model_type", "plain"),
    [
        ("llama", True),
        ("gpt2", True),
        ("cohere", False),
        ("granite", False),
        ("gemma2", False),
        ("phi", False),
    ],
)
def test_a_head_that_scales_caps_or_shifts_is_left_to_the_model(model_type, plain):
    p = long_pairs()[0]
    with model_runtime(tiny.make(model_type), check=(p.ids1, p.answer_ids)) as runtime:
        assert (runtime.unembedding is not None) == plain
        if plain:
            hidden = torch.randn(5, 1, 32, dtype=torch.float64)
            by_model = torch.log_softmax(runtime.head(hidden), -1)[..., 9]
            torch.testing.assert_close(runtime.log_probs(hidden, [9])[0], by_model)


def test_a_pack_beyond_the_budget_is_run_one_by_one(monkeypatch):
    model, pairs = tiny.make("llama"), long_pairs()
    whole = head_sweep(model, pairs)
    monkeypatch.setattr(
        "whyprompt.mediation.engine.engine.Packed", lambda *_, **__: pytest.fail("it was packed")
    )
    monkeypatch.setattr(
        "whyprompt.mediation.engine.opening._try_packing", lambda r, *_: replace(r, packs_up_to=99)
    )
    small = head_sweep(model, pairs, max_extra_bytes=1000)
    np.testing.assert_allclose(small.y10, whole.y10, rtol=0, atol=ATOL)
