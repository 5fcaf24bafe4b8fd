"""Models with attention beside layers that keep a state: each equals whole runs with hooks, or is refused."""

import copy
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import test_rows as rows_of
import tiny
import torch
from test_engine import ATOL, pair
from torch.overrides import TorchFunctionMode
from transformers import CONFIG_MAPPING

from whyprompt import capture_attention, head_sweep, knockout_sweep, layer_sweep, set_sweep, site_sweep
from whyprompt.errors import MediationError
from whyprompt.mediation import PromptPair, capture_heads, generation_sweep
from whyprompt.mediation.engine.support import WHOLE_ROWS

# Their layers compute in float32, whatever the model's type, and not to the same digit for every batch.
ATOL_OF = dict.fromkeys(("bailing_hybrid", "nemotron_h", "zamba2"), 1e-5)
# No part of a layer is its one feed-forward block.
NO_MLP = {"nemotron_h", "zamba2"}


def equal(model_type, model, p, sweep, row, window=None):
    sets = [[site] for site in sweep.sites] if sweep.sites else [*sweep.sets.values()]
    atol = ATOL_OF.get(model_type, ATOL)
    for base, source, got in ((p.ids1, p.ids0, sweep.y10), (p.ids0, p.ids1, sweep.y01)):
        want = tiny.hook_loop(model, base, source, list(p.answer_ids), sets, window)
        np.testing.assert_allclose(got[row], want, rtol=0, atol=atol)


@pytest.mark.parametrize("model_type", tiny.HYBRIDS)
def test_hybrids_equal_a_hook_loop(model_type):
    """Pairs of several lengths and answers in one sweep; every head, and two heads at once."""
    model, pairs = tiny.make(model_type), [pair(), pair(8, 11, (4,), seed=1), pair(15, 6, (4, 3, 8), seed=2)]
    sets = {"two": [(3, 2), (1, 1)], "three": [(1, 0), (1, 2), (3, 3)]}
    with tiny.exact_softmax():
        sweep, joint = head_sweep(model, pairs), set_sweep(model, pairs[:1], sets)
    assert sorted({layer for layer, _ in sweep.heads}) == tiny.WITH_HEADS[model_type]
    assert WHOLE_ROWS in sweep.notes
    for row, p in enumerate(pairs):
        equal(model_type, model, p, sweep, row)
    equal(model_type, model, pairs[0], joint, 0)
    assert np.abs(sweep.nie).max() > 0.1
    np.testing.assert_allclose(
        sweep.nie + sweep.nde, np.repeat(sweep.te[:, None], len(sweep.sites), 1), atol=1e-12
    )


@pytest.mark.parametrize("model_type", tiny.HYBRIDS)
@pytest.mark.parametrize("tokens", ["answer", "suffix"])
def test_other_sites_of_hybrids_equal_a_hook_loop(model_type, tokens):
    """What a layer without attention hands on and its feed-forward block are sites as any other."""
    model, start, tail = tiny.make(model_type), pair(), [11, 30, 7]
    p = PromptPair(
        item_id="p", ids0=[*start.ids0, *tail], ids1=[*start.ids1, *tail], answer_ids=start.answer_ids
    )
    sites = ["head 3", "attn", "resid", *([] if model_type in NO_MLP else ["mlp"])]
    with tiny.exact_softmax():
        sweep = site_sweep(model, [p], sites, tokens=tokens)
    equal(model_type, model, p, sweep, 0, window=5 if tokens == "suffix" else None)
    last = [str(site) for site in sweep.sites].index("resid 3")
    np.testing.assert_allclose(sweep.nde[0, last], 0, atol=ATOL_OF.get(model_type, ATOL))
    assert ("mlp 0" in {str(site) for site in sweep.sites}) == (model_type not in NO_MLP)


@pytest.mark.parametrize("model_type", tiny.HYBRIDS)
def test_chunks_of_rows_change_nothing_in_hybrids(model_type):
    model, p, atol = tiny.make(model_type), pair(), ATOL_OF.get(model_type, 1e-12)
    whole, small = head_sweep(model, [p]), head_sweep(model, [p], max_extra_bytes=1)
    np.testing.assert_allclose(small.y10, whole.y10, rtol=0, atol=atol)
    np.testing.assert_allclose(small.y01, whole.y01, rtol=0, atol=atol)


class Largest(TorchFunctionMode):
    """The most bytes that any one tensor has."""

    nbytes = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if type(out) is torch.Tensor:
            self.nbytes = max(self.nbytes, out.untyped_storage().nbytes())
        return out


def test_the_scan_of_a_state_space_layer_is_within_the_budget():
    """In plain torch it makes tensors of tokens x channels x state, far wider than any weight."""
    model, p, budget = tiny.make("jamba", mamba_d_state=64), pair(40, 50), 16 << 20
    with Largest() as once, torch.no_grad():
        model(torch.tensor([p.ids1]), use_cache=False)
    assert 9 * once.nbytes > budget / 2  # of all rows at once
    with Largest() as swept:
        sweep = head_sweep(model, [p], max_extra_bytes=budget)
    assert once.nbytes <= swept.nbytes <= budget / 2
    assert np.abs(sweep.nie).max() > 0.01


def test_rows_of_whole_prompts_are_within_the_budget():
    """A row has every token of its prompt, and the attention of each to all of them."""
    model, p, budget = tiny.make("lfm2", max_position_embeddings=512), pair(200, 220), 8 << 20
    with Largest() as swept:
        head_sweep(model, [p], max_extra_bytes=budget)
    assert budget / 4 < swept.nbytes <= budget / 2


@pytest.mark.parametrize("model_type", ["qwen3_next", "granitemoehybrid", "jamba", "falcon_h1", "lfm2"])
def test_paths_of_hybrids_equal_a_hook_loop(model_type):
    """A in one run, what B makes of it alone in the other; what stands between the two keeps its state."""
    model, p = tiny.make(model_type), pair()
    n, (a, b) = p.n_answer, ((1, 2), (3, 0))
    at = {layer: tiny.block(model, "head", layer) for layer, _ in (a, b)}

    def run(ids, given):
        seen = {}

        def hook(layer):
            def change(_, args):
                x = args[0].clone()
                seen[layer] = x[0, -n:].clone()
                for (where, head), z in given.items():
                    if where == layer:
                        x[0, -n:, 8 * head : 8 * head + 8] = z
                return (x,)

            return change

        handles = [module.register_forward_pre_hook(hook(layer)) for layer, module in at.items()]
        with torch.no_grad(), tiny.exact_softmax(), tiny.seeing(model):
            tokens = torch.tensor([[*ids, *p.answer_ids[:-1]]])
            logits = model(tokens, use_cache=False).logits[0, -n:]
        for handle in handles:
            handle.remove()
        gold = torch.tensor(p.answer_ids)[:, None]
        return float(torch.log_softmax(logits, -1).gather(-1, gold).sum()), {
            (where, head): seen[where][:, 8 * head : 8 * head + 8] for where, head in (a, b)
        }

    with tiny.exact_softmax():
        sweep = set_sweep(model, [p], {"a to b": [a, b]}, mediator="path")
    for got, base, source in ((sweep.y10, p.ids1, p.ids0), (sweep.y01, p.ids0, p.ids1)):
        moved = run(base, {a: run(source, {})[1][a]})[1]
        np.testing.assert_allclose(got[0, 0], run(base, {b: moved[b]})[0], rtol=0, atol=ATOL)
    assert abs(sweep.nie[0, 0]) > 1e-4
    with pytest.raises(MediationError, match=f"'{model_type}'.*more than keys and values") as error:
        set_sweep(model, [p], {"a to b": [a, b]}, mediator="direct_path")
    assert error.value.hint == "use mediator='path', which freezes nothing"


@pytest.mark.parametrize("model_type", ["granitemoehybrid", "lfm2", "falcon_h1"])
def test_rows_knockouts_and_capture_of_hybrids_equal_eager_attention(model_type):
    model = tiny.make(model_type)
    module = sys.modules[type(tiny.attentions(model)[0][1]).__module__]
    rows, cut = (
        head_sweep(model, [rows_of.PAIR], mediator="attention_row"),
        knockout_sweep(model, [rows_of.PAIR], "reasoning"),
    )
    got = capture_attention(model, [rows_of.PAIR])
    assert got.heads == rows.heads == cut.heads
    long, place = rows_of.LONG, [*rows_of.PLACE, len(rows_of.LONG)]
    keep = torch.ones(len(long) + 1, dtype=torch.float64)
    keep[3:6] = 0
    _, short = rows_of.eager(model, module, rows_of.SHORT)
    _, own = rows_of.eager(model, module, long)
    want = []
    for k, (layer, head) in enumerate(rows.heads):
        row = torch.zeros(2, len(long) + 1, dtype=torch.float64)
        row[:, place] = short[layer][head]
        changes = (
            rows_of.replaced(layer, head, lambda _, row=row: row),
            rows_of.replaced(layer, head, lambda w: w * keep / (w * keep).sum(-1, keepdim=True)),
        )
        want.append([rows_of.eager(model, module, long, change)[0] for change in changes])
        mass = own[layer][head][:, 3:6].sum(-1).mean()
        np.testing.assert_allclose(got.mass[0, 1, k, 1], mass, rtol=0, atol=ATOL)
    np.testing.assert_allclose(np.stack([rows.y10[0], cut.y_cut[0]], 1), want, rtol=0, atol=ATOL)
    one = capture_heads(model, rows_of.PAIR, heads=["head 3.1"])
    np.testing.assert_allclose(one.weights[0], own[3][1], rtol=0, atol=ATOL)


@pytest.mark.parametrize("model_type", ["qwen3_next", "granitemoehybrid", "jamba", "lfm2"])
def test_a_hybrid_in_bfloat16_gives_float32s_numbers(model_type):
    half = tiny.make(model_type, dtype=torch.bfloat16)
    p, whole = pair(), copy.deepcopy(half).float()
    got, want = head_sweep(half, [p]), head_sweep(whole, [p])
    np.testing.assert_allclose(got.y10, want.y10, rtol=0, atol=1e-3)
    np.testing.assert_allclose(got.y01, want.y01, rtol=0, atol=1e-3)
    assert half.dtype == torch.bfloat16


def test_layers_of_a_hybrid_are_those_that_have_heads():
    model, p = tiny.make("lfm2"), pair()
    layers = layer_sweep(model, [p])
    assert layers.labels == ("layer 1", "layer 3")
    grid = head_sweep(model, [p]).grid()
    assert grid.shape == (1, 4, 4)
    assert np.isfinite(grid[0, [1, 3]]).all()
    assert np.isnan(grid[0, [0, 2]]).all()


def test_rows_are_whole_only_where_the_answer_positions_do_not_suffice():
    """A layer that is a feed-forward block alone hands on nothing from token to token."""
    model, p = tiny.make("nemotron_h", layers_block_type=["mlp", "attention", "mlp", "attention"]), pair()
    with tiny.exact_softmax():
        sweep = head_sweep(model, [p, pair(seed=1)])
    assert WHOLE_ROWS not in sweep.notes
    equal("nemotron_h", model, p, sweep, 0)


@pytest.mark.parametrize(
    ("match", "run"),
    [
        (
            r"head 0.1 is out of range: layer 0 .* has 0 heads",
            lambda m, p: head_sweep(m, [p], heads=[(0, 1)]),
        ),
        (
            r"'lfm2': attn 0 cannot be set, since the layer has no attention",
            lambda m, p: site_sweep(m, [p], ["attn 0"]),
        ),
        (
            r"'lfm2': its texts cannot be written",
            lambda m, p: generation_sweep(m, [p], [(1, 1)], score=lambda *_: 1.0),
        ),
    ],
)
def test_what_a_hybrid_has_not_is_refused_by_name(match, run):
    with pytest.raises(MediationError, match=match):
        run(tiny.make("lfm2"), pair())


def test_the_table_of_hybrids_is_what_is_tested():
    """Names that this version of transformers has not, or computes otherwise, may stand there too."""
    text = Path(__file__).parents[2].joinpath("docs/explanation/inside.md").read_text(encoding="utf-8")
    for words, tested in (
        ("every layer attends", tiny.ARCHITECTURES),
        ("attention beside layers that keep a state", tiny.HYBRIDS),
        ("refused: own attention code", tiny.NEVER),
    ):
        (row,) = re.findall(rf"\| {words} \| (.*?) \|", text)
        named = set(re.findall(r"`(\w+)`", row))
        assert set(tested) <= named
        assert not (named - set(tested) - {"gptj", "codegen"}) & set(CONFIG_MAPPING)
