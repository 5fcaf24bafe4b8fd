"""Sites of a model: their names, and effects of each against a plain loop of hooks."""

import json

import numpy as np
import pytest
import tiny
import torch
from test_engine import ATOL, ATOL_OF
from transformers import CONFIG_MAPPING

from whyprompt import capture_attention, head_sweep, set_sweep, site_sweep
from whyprompt._lean import products
from whyprompt.errors import MediationError
from whyprompt.mediation import PairOutcomes, PromptPair, Sweep
from whyprompt.mediation.engine.sites import KINDS, Site, as_site, check_names, every_site


def width(kind, layer):
    if kind == "neuron" and layer == 1:
        raise MediationError("layer 1 has experts")
    return {"head": 4, "neuron": 3}.get(kind, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_is_printed_as_it_is_read(kind):
    for site in (Site(kind, 0, 12), Site(kind, 31, 0)) if kind in {"head", "neuron"} else (Site(kind, 7),):
        assert as_site(str(site)) == as_site(site) == site
    assert as_site((3, 2)) == Site("head", 3, 2)


def test_names_stand_for_sites_of_a_model():
    def names(*given):
        return [str(site) for site in every_site(given, 2, width)]

    assert names("mlp", "head 1") == ["head 1.0", "head 1.1", "head 1.2", "head 1.3", "mlp 0", "mlp 1"]
    assert names("neuron 0", "resid 1", (0, 3)) == [
        "head 0.3",
        *(f"neuron 0.{i}" for i in range(3)),
        "resid 1",
    ]
    assert len(names("head", "attn", "mlp", "resid")) == 8 + 6


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["mlp 2"], "mlp 2 is out of range: the model has 2 layers"),
        (["head 0.4"], "head 0.4 is out of range: layer 0 of the model's 2 has 4 heads"),
        ([(-1, 0)], "head -1.0 is out of range"),
        (["mlp 1.3"], "'mlp 1.3' names no site"),
        (["layer 3"], "'layer 3' names no site"),
        (["neuron"], "'neuron' alone would be every neuron"),
        (["neuron 1"], "layer 1 has experts"),
        (["mlp", "mlp 1"], "'mlp 1' is named twice"),
        (["head", (1, 1)], "'head 1.1' is named twice"),
        ([(1, 2, 3)], r"\(1, 2, 3\) names no site"),
        ([7], "7 names no site"),
        ([], r"sites is \[\], not a list of names"),
        ("head", "sites is 'head', not a list of names"),
    ],
)
def test_what_names_no_site_is_refused(given, said):
    with pytest.raises(MediationError, match=said):
        every_site(given, 2, width)


def test_one_name_of_several_sites_is_no_site():
    for name in ("head", "mlp", "head 3", "neuron 3"):
        check_names([name])
        with pytest.raises(MediationError, match="names no single site"):
            as_site(name)


# ---- effects, against a plain loop -------------------------------------------------------

STREAMS = {"gemma3n_text"}  # several residual streams
EXPERTS = {"mixtral", "qwen3_moe", "gpt_oss", *ATOL_OF}
FLOAT32 = ATOL_OF | {"llama4_text": 1e-6}


def ending_alike(seed=0, answer=(5, 9), **extra):
    """A block put before a question: the question and the cue are the two prompts' common suffix."""
    rng = np.random.default_rng(seed)
    question, shots = (rng.integers(12, tiny.VOCAB, k).tolist() for k in (9, 6))
    ids0, ids1 = [3, 10, *question, 7], [3, *shots, 11, *question, 7]
    return PromptPair(item_id=f"item{seed}", ids0=ids0, ids1=ids1, answer_ids=answer, **extra)


def names_for(model_type):
    names = ["head 1", "attn", "mlp", *([] if model_type in STREAMS else ["resid"])]
    return [*names, *([] if model_type in EXPERTS else ["neuron 0.3", "neuron 2.47"])]


@pytest.mark.parametrize("model_type", tiny.ARCHITECTURES)
@pytest.mark.parametrize("tokens", ["answer", "suffix"])
def test_sites_equal_a_hook_loop_on_every_architecture(model_type, tokens):
    model, p = tiny.make(model_type), ending_alike()
    assert p.n_suffix == 10
    mixed = {"mixed": [(2, 3), "mlp 0", "attn 1", "mlp 2"], "layer": ["attn 1", "mlp 1", (1, 2)]}
    with tiny.exact_softmax():
        sweep = site_sweep(model, [p], names_for(model_type), tokens=tokens)
        joint = set_sweep(model, [p], mixed, tokens=tokens)
    atol = FLOAT32.get(model_type, ATOL)
    window = 11 if tokens == "suffix" else 2
    for got, sets in ((sweep, [[site] for site in sweep.sites]), (joint, joint.sets.values())):
        for crossed, base, source in ((got.y10, p.ids1, p.ids0), (got.y01, p.ids0, p.ids1)):
            want = tiny.hook_loop(model, base, source, list(p.answer_ids), sets, window)
            np.testing.assert_allclose(crossed[0], want, rtol=0, atol=atol)
    te = np.broadcast_to(sweep.te[:, None], sweep.nie.shape)
    np.testing.assert_allclose(sweep.nde + sweep.nie, te, atol=1e-12)
    np.testing.assert_allclose(sweep.total_nde + sweep.pure_nie, te, atol=1e-12)
    # A test of equality means something only where patching does something.
    for kind in ("head", "attn", "mlp"):
        assert np.abs(sweep.nie[0, [s.kind == kind for s in sweep.sites]]).max() > 1e-4
    if model_type not in STREAMS:
        last = sweep.labels.index("resid 2")
        np.testing.assert_allclose(sweep.nde[:, last], 0, atol=atol)
        np.testing.assert_allclose(sweep.total_nde[:, last], 0, atol=atol)


@pytest.mark.parametrize("model_type", ["gemma2", "gemma3_text", "olmo2", "exaone4"])
def test_a_block_has_the_same_effect_before_and_after_its_norm(model_type, monkeypatch):
    model, p = tiny.make(model_type), ending_alike()
    sweep = site_sweep(model, [p], ["attn", "mlp"], tokens="suffix")
    norms = {"attn": ("post_attention_layernorm",), "mlp": ("post_feedforward_layernorm",)}
    monkeypatch.setattr(tiny, "_PARTS", norms)
    want = tiny.hook_loop(model, p.ids1, p.ids0, [5, 9], [[site] for site in sweep.sites], 11)
    np.testing.assert_allclose(sweep.y10[0], want, rtol=0, atol=ATOL)


SOME = ["head 2", "attn 0", "mlp", "resid 0", "resid 2", "neuron 1"]


def items(answer=(5, 9), **extra):
    """Pairs of several lengths and suffixes; two prompts that are wholly alike among them."""
    rng = np.random.default_rng(3)
    a, b, c = (rng.integers(12, tiny.VOCAB, n).tolist() for n in (14, 9, 17))
    ids = {
        "inserted": ([*a, 7], [*a, *b, 7]),
        "before": ([3, *a, 7], [3, *b, *a, 7]),
        "other": ([*a, 7], [*c, 7]),
        "same": ([*b, 7], [*b, 7]),
    }
    return [PromptPair(item_id=k, ids0=v[0], ids1=v[1], answer_ids=answer, **extra) for k, v in ids.items()]


@pytest.mark.parametrize("model_type", ["llama", "gpt_neox", "opt", "gemma2", "gemma4_text"])
@pytest.mark.parametrize("tokens", ["answer", "suffix"])
def test_packs_and_chunks_change_nothing(model_type, tokens, monkeypatch):
    if model_type not in tiny.ARCHITECTURES:
        pytest.skip("not in this version of transformers")
    model = tiny.make(model_type)
    whole = site_sweep(model, items(), SOME, tokens=tokens)
    small = site_sweep(model, items(), SOME, tokens=tokens, max_extra_bytes=1)
    monkeypatch.setattr("whyprompt.mediation.engine.opening._try_packing", lambda runtime, *_: runtime)
    alone = site_sweep(model, items(), SOME, tokens=tokens)
    for name in ("y00", "y11", "y10", "y01"):
        for other in (small, alone):
            np.testing.assert_allclose(getattr(other, name), getattr(whole, name), rtol=0, atol=ATOL)
    np.testing.assert_allclose(whole.nie[whole.item_ids.index("same")], 0, atol=1e-12)


def test_a_suffix_is_counted_in_tokens():
    assert [p.n_suffix for p in items()] == [1, 15, 1, 10]
    assert PromptPair(item_id="a", ids0=[7], ids1=[3, 7], answer_ids=[9]).n_suffix == 1


@pytest.mark.parametrize("outcome", ["prob", "margin"])
def test_other_outcomes_of_sites(outcome):
    model, p = tiny.make("llama"), ending_alike(foil_ids=(6, 3, 2))
    got = site_sweep(model, [p], SOME, tokens="suffix", outcome=outcome, directions=("nie",))
    sets = [[site] for site in got.sites]
    want = np.array(tiny.hook_loop(model, p.ids1, p.ids0, [5, 9], sets, 11))
    if outcome == "margin":
        want -= tiny.hook_loop(model, p.ids1, p.ids0, [6, 3, 2], sets, 12)
    np.testing.assert_allclose(got.y10[0], np.exp(want) if outcome == "prob" else want, rtol=0, atol=ATOL)


def test_batches_that_are_filled_up_set_the_right_rows(monkeypatch):
    """In float32 a batch has spare rows behind the last of a layer's."""
    monkeypatch.setattr(products, "_ratio", lambda _: 2.0)
    exact, single = (
        site_sweep(tiny.make("llama", dtype=dtype), items(answer=(5,)), SOME, tokens="answer")
        for dtype in (torch.float64, torch.float32)
    )
    np.testing.assert_allclose(single.y10, exact.y10, rtol=0, atol=1e-4)
    np.testing.assert_allclose(single.y01, exact.y01, rtol=0, atol=1e-4)


def test_sweeps_of_sites_resume_by_pair():
    model, saved, again = tiny.make("llama"), {}, []
    options = {"sites": ["mlp", "resid 1"], "tokens": "suffix"}
    whole = site_sweep(model, items(), **options, on_pair=lambda r: saved.update({r.item_id: r}))
    stored = {
        k: PairOutcomes.from_dict(json.loads(json.dumps(v.to_dict())))
        for k, v in saved.items()
        if k != "other"
    }
    resumed = site_sweep(model, items(), **options, done=stored, on_pair=again.append)
    assert [r.item_id for r in again] == ["other"]
    np.testing.assert_array_equal(resumed.y10, whole.y10)
    kept = Sweep.from_dict(json.loads(json.dumps(whole.to_dict())))
    assert (kept.sites, kept.tokens, kept.labels) == (
        whole.sites,
        "suffix",
        ("mlp 0", "mlp 1", "mlp 2", "resid 1"),
    )
    np.testing.assert_array_equal(kept.nie, whole.nie)
    assert "end alike in 1 to 15 tokens, 10 in the middle" in kept.notes[-1]
    frame = whole.to_frame()
    assert frame.loc[frame.item_id == "before", "site"].tolist() == [*whole.labels]
    assert frame["kind"].tolist()[:4] == ["mlp", "mlp", "mlp", "resid"]
    for other in ({"tokens": "answer"}, {"sites": ["mlp", "resid 2"]}):
        with pytest.raises(MediationError, match="what is saved of it was made with other"):
            site_sweep(model, items(), **options | other, done=saved)


def test_heads_alone_are_as_before_whatever_is_swept_beside_them():
    model = tiny.make("llama")
    heads, both = head_sweep(model, items()), site_sweep(model, items(), ["mlp", "head"])
    np.testing.assert_allclose(both.grid(), heads.grid(), rtol=0, atol=1e-12)
    assert both.heads == heads.heads
    assert set(both.ranked()) == set(heads.heads)
    assert (heads.kind, both.kind) == ("head", "site")
    named = head_sweep(model, items(), heads=["head 1", "head 0.2", (2, 3)])
    assert named.heads == (*((1, k) for k in range(4)), (0, 2), (2, 3))
    np.testing.assert_allclose(named.nie[:, -1], heads.grid()[:, 2, 3], rtol=0, atol=1e-12)
    for refused in (head_sweep, capture_attention):
        with pytest.raises(MediationError, match="heads names 'mlp 1', which is no head"):
            refused(model, items(), heads=["mlp 1"])


# ---- what a model has not ----------------------------------------------------------------

REFUSED = {
    "mixtral": ("neuron 1", "'mixtral'.*neuron 1 cannot be set, since Mixtral.* does not end in one product"),
    "gemma3n_text": (
        "resid 0",
        "'gemma3n_text'.*resid 0 cannot be set, since layers hand on several streams",
    ),
    "granitemoeshared": ("mlp", r"several feed-forward blocks \(block_sparse_moe, shared_mlp\)"),
}


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_site_that_a_model_has_not_is_refused_by_name_before_anything_runs(model_type, monkeypatch):
    if model_type not in CONFIG_MAPPING:
        pytest.skip("not in this version of transformers")
    if model_type not in tiny.ARCHITECTURES:
        more = {"shared_intermediate_size": 16, "num_local_experts": 4, "num_experts_per_tok": 2}
        monkeypatch.setitem(tiny.ARCHITECTURES, model_type, tiny.ARCHITECTURES["llama"] | more)
    name, said = REFUSED[model_type]
    ran = []
    with pytest.raises(MediationError, match=said):
        site_sweep(tiny.make(model_type), items(), [name], on_pair=ran.append)
    assert not ran
    assert head_sweep(tiny.make(model_type), items()[:1]).nie.shape == (1, 12)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sites": ["mlp 3"]}, "mlp 3 is out of range: the model has 3 layers"),
        ({"sites": ["neuron 0.48"]}, "neuron 0.48 is out of range: layer 0 of the model's 3 has 48 neurons"),
        ({"sites": ["mlp"], "tokens": "all"}, "unknown tokens 'all'"),
        ({"sites": ["mlp"], "mediator": "attention_row"}, "attention rows are moved in heads"),
        ({"sites": ["head"], "mediator": "attention_row", "tokens": "suffix"}, "attention rows are moved in"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, said):
    with pytest.raises(MediationError, match=said):
        site_sweep(tiny.make("llama"), items(), **options)
