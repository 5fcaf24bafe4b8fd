"""Features of an encoder as mediators: against a plain loop of hooks, hand-made encoders, planted heads."""

import json

import numpy as np
import planted
import pytest
import tiny
import torch
from test_directions import one_answer
from test_engine import ATOL, pair
from test_sites import ending_alike

from whyprompt import infer_heads, site_sweep
from whyprompt.errors import MediationError
from whyprompt.mediation import PairOutcomes, feature_sweep
from whyprompt.mediation.engine.sites import Site
from whyprompt.mediation.features import Features


def basis(width, m, seed=0):
    """Orthonormal directions, (m, width)."""
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, width, generator=g, dtype=torch.float64))[0][:m]


def linear(width, m):
    q = basis(width, m)
    return lambda x: x @ q.T, lambda f: f @ q


def sparse(width, m=40, seed=1):
    """A small autoencoder as they are trained: a bias, a threshold, more features than numbers."""
    g = torch.Generator().manual_seed(seed)
    into, out = (torch.randn(m, width, generator=g, dtype=torch.float64) / 5 for _ in range(2))
    bias = torch.randn(width, generator=g, dtype=torch.float64) / 5
    return lambda x: torch.relu((x - bias) @ into.T - 0.1), lambda f: f @ out + bias


def loop(model, p, base, source, site, window, reads, make):
    """Log-probability after setting a site to each of `make(x, read, y, read of y)`, in a plain loop."""
    n, module, kept = p.n_answer, tiny.block(model, *site[:2]), {}
    n_heads = getattr(model.config, "num_attention_heads", None) or model.config.n_head

    def run(ids, change):
        def before(_, args):
            if not args:  # attention is given all by name
                return args
            kept["read"] = args[0].reshape(-1, args[0].shape[-1])[-window:].clone()
            return (change(args[0]), *args[1:]) if site.kind == "head" else args

        def after(_, __, y):
            if site.kind == "head":
                return y
            return (change(y[0]), *y[1:]) if isinstance(y, tuple) else change(y)

        handles = module.register_forward_pre_hook(before), module.register_forward_hook(after)
        with torch.no_grad(), tiny.exact_softmax():
            logits = model(torch.tensor([[*ids, *p.answer_ids[:-1]]]), use_cache=False).logits[0, -n:]
        for handle in handles:
            handle.remove()
        return float(torch.log_softmax(logits, -1).gather(-1, torch.tensor(p.answer_ids)[:, None]).sum())

    def part(x):
        flat = x.reshape(-1, x.shape[-1])[-window:]
        d = x.shape[-1] // n_heads
        return flat[:, site.number * d : (site.number + 1) * d] if site.kind == "head" else flat

    seen = []
    for ids in (base, source):
        run(ids, lambda x: kept.update(x=part(x).clone()) or x)
        seen += [kept["x"], kept["read"] if reads == "input" else kept["x"]]

    def put(new):
        def change(x):
            x = x.clone()
            part(x.view(-1, x.shape[-1])).copy_(new)
            return x

        return change

    return [run(base, put(new)) for new in make(*seen)]


CASES = [
    ("llama", "mlp 1", "output"),
    ("llama", "mlp 1", "input"),
    ("gpt2", "resid 0", "output"),
    ("gpt2", "mlp 2", "input"),
    ("gemma2", "attn 1", "output"),
    ("gemma2", "mlp 2", "input"),
    ("mistral", "head 1.2", "output"),
    ("mixtral", "mlp 1", "input"),
    ("gpt_neox", "mlp 1", "output"),
]


@pytest.mark.parametrize(("model_type", "name", "reads"), CASES)
@pytest.mark.parametrize("tokens", ["answer", "suffix"])
def test_features_equal_a_hook_loop(model_type, name, reads, tokens):
    model, p = tiny.make(model_type), ending_alike()
    width = 8 if name.startswith("head") else 32
    encode, decode = sparse(width)
    features, group = [3, 0, 17], {"two": [5, 9]}
    with tiny.exact_softmax():
        sweep = feature_sweep(
            model, [p], name, encode, decode, reads=reads, features=features, groups=group, tokens=tokens
        )
    labels = ("feature 3", "feature 0", "feature 17", "two", "all features", "error", "site")
    assert sweep.labels == labels

    def make(x, read_x, y, read_y):
        f, g = encode(read_x), encode(read_y)
        ex, ey = x - decode(f), y - decode(g)
        for members in ([3], [0], [17], [5, 9]):
            h = f.clone()
            h[:, members] = g[:, members]
            yield decode(h) + ex
        yield from (decode(g) + ex, decode(f) + ey, y)

    kind, at = name.split()
    site = Site(kind, *(int(v) for v in at.split(".")))
    window = 11 if tokens == "suffix" else 2
    for got, base, source in ((sweep.y10, p.ids1, p.ids0), (sweep.y01, p.ids0, p.ids1)):
        want = loop(model, p, base, source, site, window, reads, make)
        np.testing.assert_allclose(got[0], want, rtol=0, atol=ATOL)
    # All features and the error are the site's own patch.
    whole = site_sweep(model, [p], [name], tokens=tokens)
    np.testing.assert_allclose(sweep.y10[:, -1], whole.y10[:, 0], rtol=0, atol=ATOL)
    np.testing.assert_allclose(sweep.y01[:, -1], whole.y01[:, 0], rtol=0, atol=ATOL)
    te = np.broadcast_to(sweep.te[:, None], sweep.nie.shape)
    np.testing.assert_allclose(sweep.nie + sweep.nde, te, atol=1e-12)
    assert (np.abs(sweep.nie[0]) > 1e-6).sum() > 3


@pytest.mark.parametrize("m", [8, 32])
def test_an_orthogonal_encoder_takes_the_site_apart_without_a_rest(m):
    """What single features and the error move adds up to the site's own difference, as vectors."""
    encode, decode = linear(32, m)
    split = Features(Site("mlp", 1), encode, decode, "output", "")
    split.parts = {f"feature {j}": (j,) for j in range(m)}
    x, y = torch.randn(2, 3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    *single, every, error, whole = split.changed(x, encode(x), (y, encode(y)))
    torch.testing.assert_close(sum(part - x for part in single), every - x, rtol=0, atol=1e-12)
    torch.testing.assert_close((every - x) + (error - x), y - x, rtol=0, atol=1e-12)
    torch.testing.assert_close(whole, y, rtol=0, atol=0)
    q = basis(32, m)
    for j, part in enumerate(single):  # one direction each, and no other moves
        torch.testing.assert_close(
            (part - x) @ q.T, torch.eye(m, dtype=x.dtype)[j] * ((y - x) @ q.T), atol=1e-12, rtol=0
        )
    if m == 32:  # nothing is left for the error
        torch.testing.assert_close(error, x, rtol=0, atol=1e-12)


def test_a_planted_head_speaks_by_one_feature():
    """It writes the token that it copies as a one-hot vector: the identity is its encoder."""
    sweep = feature_sweep(
        planted.build({2: 1.0}), one_answer(), (1, 2), torch.clone, torch.clone, features=range(8)
    )
    want = np.array([j == 5 for j in range(8)] + [True, False, True]) * sweep.te[0]
    for quantity in ("nie", "pure_nie"):
        np.testing.assert_allclose(sweep.effect(quantity), np.broadcast_to(want, (8, 11)), atol=1e-9)
    # The largest are found without being named, and without looking at the outcome.
    found = feature_sweep(planted.build({2: 1.0}), one_answer(), "head 1.2", torch.clone, torch.clone, top=1)
    assert found.labels == ("feature 5", "all features", "error", "site")
    said = infer_heads(found).sentence
    assert "Of 4 parts, " in said
    assert "Effects of parts of a site do not add up" in said


def test_features_that_move_to_either_side_are_as_large_as_those_that_move_to_one():
    """By default the largest are taken, and an item beside itself with its prompts swapped changes none."""
    model, p = tiny.make("llama"), pair()
    turned = type(p)(item_id="turned", ids0=p.ids1, ids1=p.ids0, answer_ids=p.answer_ids)
    one, both = (feature_sweep(model, items, "mlp 1", *sparse(32), top=3) for items in ([p], [p, turned]))
    assert sum(label.startswith("feature") for label in one.labels) == 3
    assert both.labels == one.labels


def test_sweeps_of_features_resume_and_take_other_outcomes():
    model, items, saved, again = tiny.make("llama"), [pair(seed=s, foil_ids=(8,)) for s in range(2)], {}, []
    encode, decode = sparse(32)
    options = {"top": 4, "outcome": "margin", "directions": ("pure_nie",), "name": "mine"}
    whole = feature_sweep(
        model, items, "mlp 1", encode, decode, **options, on_pair=lambda r: saved.update({r.item_id: r})
    )
    assert whole.quantities == ("pure_nie", "total_nde")
    stored = {"item0": PairOutcomes.from_dict(json.loads(json.dumps(saved["item0"].to_dict())))}
    resumed = feature_sweep(
        model, items, "mlp 1", encode, decode, **options, done=stored, on_pair=again.append
    )
    assert [r.item_id for r in again] == ["item1"]
    np.testing.assert_array_equal(resumed.y01, whole.y01)
    small = feature_sweep(model, items, "mlp 1", encode, decode, **options, max_extra_bytes=1)
    np.testing.assert_allclose(small.y01, whole.y01, rtol=0, atol=ATOL)
    with pytest.raises(MediationError, match="'item0': what is saved of it was made with other"):
        feature_sweep(model, items, "mlp 1", encode, decode, **options | {"name": "other"}, done=stored)


def test_bad_input_of_features_is_named():
    model, p = tiny.make("llama"), pair()
    encode, decode = sparse(32)
    for match, options in (
        ("site is 'neuron 1.3'", {"site": "neuron 1.3"}),
        ("site is 'resid 1' with reads='input'", {"site": "resid 1", "reads": "input"}),
        ("site is 'mlp 1' with reads='both'", {"reads": "both"}),
        ("mlp 3 is out of range", {"site": "mlp 3"}),
        ("'mlp' names no single site", {"site": "mlp"}),
        ("top is -1", {"top": -1}),
        ("feature 40 is out of range: the encoder has 40", {"features": [40]}),
        ("feature -1 is out of range", {"features": [-1]}),
        ("the group 'none' holds no features", {"groups": {"none": []}}),
        ("groups names 'error'", {"groups": {"error": [1]}}),
        (r"encode gave \(2,\), not a tensor of shape", {"encode": lambda x: x.sum(1)}),
        ("encode gave ndarray|encode gave", {"encode": lambda x: x.numpy()}),
        (r"decode gave \(2, 31\), not a tensor of shape \(2, 32\)", {"decode": lambda f: decode(f)[:, 1:]}),
        ("encode gave numbers that are not finite", {"encode": lambda x: encode(x) / 0}),
    ):
        given = {"site": "mlp 1", "encode": encode, "decode": decode, "top": 2} | options
        with pytest.raises(MediationError, match=match):
            feature_sweep(model, [p], given.pop("site"), given.pop("encode"), given.pop("decode"), **given)
