"""Paths of heads against a plain loop of hooks, and on models whose paths are known."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import planted
import pytest
import tiny
import torch
from planted import log_prob
from test_engine import ATOL, ATOL_OF, pair
from test_planted import GAIN, pairs

from whyprompt import find_heads, head_sweep, infer_heads, relate_heads, set_sweep
from whyprompt.errors import MediationError
from whyprompt.mediation import PairOutcomes, Sweep
from whyprompt.mediation.relate import relation_sweep
from whyprompt.mediation.relations import relations

TE = log_prob(GAIN) - log_prob(0)
SETS = {
    "0.1 -> 1.2": [(0, 1), (1, 2)],
    "0.1 -> 2.2": [(0, 1), (2, 2)],
    "1.0 -> 2.3": [(1, 0), (2, 3)],
    "0.3 -> 1.1 -> 2.0": [(0, 3), (1, 1), (2, 0)],
    "2.1": [(2, 1)],
    "two into one": [[(0, 1), (2, 2)], [(1, 3), (2, 2)]],
    "through one into two": [[(0, 0), (1, 1), (2, 0)], [(0, 0), (1, 1), (2, 1)], [(0, 0), (2, 3)]],
}
# What layers add beside attention: a feed-forward block or its last product, and what comes of own inputs.
_ADDED = ("mlp", "fc2", "feed_forward", "block_sparse_moe", "per_layer_projection")


def blocks(model):
    """What every layer adds beside attention, each with the layer's number."""
    found = []
    for name, module in model.named_modules():
        parts = name.split(".")
        if parts[-1] in _ADDED and not {"mlp", "experts"} & set(parts[:-1]):
            found.append((next(int(part) for part in parts if part.isdigit()), module))
    return found


def path_loop(model, base, source, answer, paths, frozen, window=None):
    """Log-probability after `base` along a set of paths, by whole runs with hooks, one a head on the way."""
    outs, mlps = tiny.projections(model), blocks(model)
    n, n_heads = (
        window or len(answer),
        getattr(model.config, "num_attention_heads", None) or model.config.n_head,
    )

    def run(ids, given=None, held=None):
        """Run with some heads given; `held` is a clean run's outputs, which all else has from a layer on."""
        z, added, first = {}, {}, min((layer for layer, _ in given or {}), default=None)

        def project(i):
            def hook(_, args):
                x = args[0].clone()
                z[i] = x[0, -n:].clone()
                if held is not None and i > first:
                    x[0, -n:] = held[0][i]
                d = x.shape[-1] // n_heads
                for (layer, head), value in (given or {}).items():
                    if layer == i:
                        x[0, -n:, head * d : (head + 1) * d] = value
                return (x, *args[1:])

            return hook

        def add(k, i):
            def hook(_, __, output):
                x = output[0] if isinstance(output, tuple) else output
                at = x.view(-1, x.shape[-1])[-n:]
                added[k] = at.clone()
                if held is not None and i >= first:
                    at.copy_(held[1][k])

            return hook

        handles = [m.register_forward_pre_hook(project(i)) for i, m in enumerate(outs)]
        handles += [m.register_forward_hook(add(k, i)) for k, (i, m) in enumerate(mlps)]
        try:
            with torch.no_grad(), tiny.exact_softmax():
                logits = model(torch.tensor([[*ids, *answer[:-1]]]), use_cache=False).logits[
                    0, -len(answer) :
                ]
        finally:
            for handle in handles:
                handle.remove()
        y = torch.log_softmax(logits, -1).gather(-1, torch.tensor(answer)[:, None]).sum()
        return z, added, float(y)

    here, there = run(base), run(source)

    def part(z, head):
        d = z[head[0]].shape[-1] // n_heads
        return z[head[0]][:, head[1] * d : (head[1] + 1) * d]

    def value(head, into):
        """What a head has where `into`, paths that end in it, are moved."""
        before = [path[:-1] for path in into if len(path) > 1]
        if not before:
            return part(there[0], head)
        given = {last: value(last, [p for p in before if p[-1] == last]) for last in {p[-1] for p in before}}
        return part(run(base, given, here if frozen else None)[0], head)

    return run(base, {h: value(h, [p for p in paths if p[-1] == h]) for h in {p[-1] for p in paths}})[2]


def as_paths(given):
    return given if isinstance(given[0][0], tuple) else [given]


@pytest.mark.parametrize("mediator", ["path", "direct_path"])
@pytest.mark.parametrize("model_type", tiny.ARCHITECTURES)
def test_paths_equal_a_hook_loop(model_type, mediator):
    """Learned positions, rotary ones, parallel blocks, grouped queries, norms after, experts, factors."""
    model, p = tiny.make(model_type), pair()
    assert {layer for layer, _ in blocks(model)} == {0, 1, 2}
    if (model_type, mediator) == ("gemma3n_text", "direct_path"):
        with pytest.raises(MediationError, match=r"'gemma3n_text' .* more than one residual stream") as error:
            set_sweep(model, [p], SETS, mediator=mediator)
        assert error.value.hint == "use mediator='path', which freezes nothing"
        return
    with tiny.exact_softmax():
        sweep = set_sweep(model, [p], SETS, mediator=mediator)
    for y, base, source in ((sweep.y10, p.ids1, p.ids0), (sweep.y01, p.ids0, p.ids1)):
        want = [
            path_loop(model, base, source, list(p.answer_ids), as_paths(s), mediator == "direct_path")
            for s in SETS.values()
        ]
        np.testing.assert_allclose(y[0], want, rtol=0, atol=ATOL_OF.get(model_type, ATOL))
    np.testing.assert_allclose(sweep.nde + sweep.nie, sweep.te[:, None] + 0 * sweep.nie, atol=1e-12)
    assert (np.abs(sweep.nie) > 1e-3).sum() >= 3


@pytest.mark.parametrize("mediator", ["path", "direct_path"])
@pytest.mark.parametrize("model_type", ["gpt2", "llama", "qwen3_moe"])
def test_paths_at_every_token_of_the_common_suffix_equal_a_hook_loop(model_type, mediator):
    model, p = tiny.make(model_type), pair()
    tail = [11, 12, 13, 7]
    p = type(p)(item_id="s", ids0=[*p.ids0[:9], *tail], ids1=[*p.ids1[:15], *tail], answer_ids=p.answer_ids)
    with tiny.exact_softmax():
        sweep = set_sweep(model, [p], SETS, mediator=mediator, tokens="suffix")
    held, answer = mediator == "direct_path", list(p.answer_ids)
    want = [path_loop(model, p.ids0, p.ids1, answer, as_paths(s), held, window=5) for s in SETS.values()]
    np.testing.assert_allclose(sweep.y01[0], want, rtol=0, atol=ATOL)


@pytest.mark.parametrize("mediator", ["path", "direct_path"])
@pytest.mark.parametrize("model_type", ["llama", "gemma2", "gpt_oss"])
def test_chunks_and_company_change_nothing(model_type, mediator):
    """Rows in batches of one, items in packs, answers of several lengths."""
    model = tiny.make(model_type)
    items = [pair(seed=0), pair(seed=1, answer=(4,)), pair(9, 9, seed=2, answer=(4, 5, 6))]
    whole = set_sweep(model, items, SETS, mediator=mediator)
    alone = set_sweep(model, items[1:2], SETS, mediator=mediator, max_extra_bytes=1)
    np.testing.assert_allclose(alone.y10, whole.y10[1:2], rtol=0, atol=1e-11)
    one = set_sweep(model, items, {"2.1": SETS["2.1"], "x": SETS["0.3 -> 1.1 -> 2.0"]}, mediator=mediator)
    np.testing.assert_allclose(one.y01, whole.y01[:, [4, 3]], rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("model_type", "changes", "match"),
    [
        ("bert", {"is_decoder": True}, "its layers add to the residual stream inside the parts"),
        ("opt", {"do_layer_norm_before": False}, "not all that they add was found"),
    ],
)
def test_a_model_whose_stream_cannot_be_held_is_refused_by_name(model_type, changes, match):
    """Norms after each part: a held part would hold what comes through it too."""
    model, p = tiny.make(model_type, **changes), pair()
    with pytest.raises(MediationError, match=f"architecture '{model_type}' .* {match}"):
        set_sweep(model, [p], {"a": [(0, 1), (2, 2)]}, mediator="direct_path")
    assert abs(set_sweep(model, [p], {"a": [(0, 1), (2, 2)]}, mediator="path").nie[0, 0]) > 1e-6


def test_a_step_between_z_and_the_output_projection(monkeypatch):
    """It may read the hidden states, so a head cannot be held while another of its layer is set."""
    monkeypatch.setitem(tiny.ARCHITECTURES, "bitnet", tiny._BASE)
    monkeypatch.setattr(tiny, "_PROJECTIONS", ("attn_sub_norm",))
    model, p = tiny.make("bitnet"), pair()
    single = {name: own for name, own in SETS.items() if name.count("->") == 1}
    sweep = set_sweep(model, [p], single, mediator="direct_path")
    want = [path_loop(model, p.ids1, p.ids0, list(p.answer_ids), [s], frozen=True) for s in single.values()]
    np.testing.assert_allclose(sweep.y10[0], want, rtol=0, atol=ATOL)
    with pytest.raises(MediationError, match=r"'bitnet' .* a gate or norm between z and the output"):
        set_sweep(model, [p], {"two": SETS["two into one"]}, mediator="direct_path")


def test_the_margin_along_a_path_is_that_of_two_answers():
    model, p = tiny.make("llama"), pair(foil_ids=(8, 3, 4))
    foil = type(p)(item_id=p.item_id, ids0=p.ids0, ids1=p.ids1, answer_ids=p.foil_ids)
    gold, other = (set_sweep(model, [q], SETS, mediator="direct_path") for q in (p, foil))
    margin = set_sweep(model, [p], SETS, mediator="direct_path", outcome="margin")
    np.testing.assert_allclose(margin.nie, gold.nie - other.nie, rtol=0, atol=1e-11)
    np.testing.assert_allclose(margin.y01, gold.y01 - other.y01, rtol=0, atol=1e-11)


def test_a_path_of_one_head_is_the_head_and_sets_of_such_are_joint():
    model, p = tiny.make("qwen2"), pair()
    path = set_sweep(model, [p], {"a": [(1, 2)], "b": [[(0, 1)], [(2, 3)]]}, mediator="path")
    joint = set_sweep(model, [p], {"a": [(1, 2)], "b": [(0, 1), (2, 3)]})
    np.testing.assert_allclose(path.y10, joint.y10, rtol=0, atol=1e-12)
    assert path.sets == joint.sets


def test_all_paths_of_a_sweep_are_inferred_together():
    model, items = planted.build({2: 1.0}, told="stream"), pairs(10)
    paths = {f"0.{h} -> 1.{k}": [(0, h), (1, k)] for h in range(4) for k in range(4)}
    found = infer_heads(set_sweep(model, items, paths, mediator="path"))
    assert [p.label for p in found.parts if p.p_adjusted < 0.05] == ["0.2 -> 1.2"]
    assert "Of 16 paths, 0.2 -> 1.2 has the largest mean NIE" in found.sentence
    assert "Effects along paths do not add up" in found.sentence


def test_prompts_that_are_alike_have_no_paths_and_swapped_arms_change_the_sign():
    model, p = tiny.make("llama"), pair()
    same = type(p)(item_id="same", ids0=p.ids1, ids1=p.ids1, answer_ids=p.answer_ids)
    assert np.abs(set_sweep(model, [same], SETS, mediator="path").nie).max() < 1e-12
    turned = type(p)(item_id="turned", ids0=p.ids1, ids1=p.ids0, answer_ids=p.answer_ids)
    one, other = (set_sweep(model, [q], SETS, mediator="direct_path") for q in (p, turned))
    np.testing.assert_allclose(one.nie, -other.pure_nie, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("told", "direct"), [("stream", TE), ("block", 0.0)])
def test_a_path_through_the_stream_and_one_through_a_block_are_told_apart(told, direct):
    """The telling head moves the copying one's query, which needs what follows MARK too: in prompt 1 only."""
    model, items = planted.build({2: 1.0}, told=told), pairs()
    heads = [(0, h) for h in range(4)]
    paths = {f"{a}": [a, (1, 2)] for a in heads}
    sweep = set_sweep(model, items, paths, mediator="path")
    np.testing.assert_allclose(sweep.te, TE, atol=1e-9)
    np.testing.assert_allclose(sweep.nie, np.tile([0, 0, TE, 0], (8, 1)), atol=1e-9)
    np.testing.assert_allclose(sweep.pure_nie, 0, atol=1e-9)
    held = set_sweep(model, items, paths, mediator="direct_path")
    np.testing.assert_allclose(held.nie, np.tile([0, 0, direct, 0], (8, 1)), atol=1e-9)


def interactions(found):
    return {
        row.label: [row.estimate, found.part(row.label, by="interaction, pure NIE").estimate]
        for row in found.parts
        if row.by == "interaction, NIE"
    }


@pytest.mark.parametrize(
    ("gate", "want", "looks"),
    [("or", [TE, -TE], "either of the two suffices"), ("and", [-TE, TE], "both are needed")],
)
def test_heads_of_which_one_suffices_and_heads_that_are_both_needed(gate, want, looks):
    model, items = planted.build({0: 1.0, 2: 1.0}, gate=gate), pairs(10)
    found = relate_heads(model, items, heads=[(1, 2), (1, 0), (1, 3)])
    got = interactions(found)
    assert list(got) == ["1.0 & 1.2", "1.0 & 1.3", "1.2 & 1.3"]
    np.testing.assert_allclose(got["1.0 & 1.2"], want, atol=1e-9)
    np.testing.assert_allclose([got["1.0 & 1.3"], got["1.2 & 1.3"]], 0, atol=1e-9)
    np.testing.assert_allclose(found.part("joint", by="joint, NIE").estimate, TE, atol=1e-9)
    np.testing.assert_allclose(found.part("rest", by="joint, pure NIE").estimate, 0, atol=1e-9)
    assert found.part("1.0 & 1.2", by="interaction, NIE").p_adjusted < 0.05
    assert found.part("1.0 & 1.3", by="interaction, NIE").p_adjusted == 1
    assert f"That is the pattern where {looks}" in found.sentence
    assert "No head lies above another" in found.sentence
    assert found.plot().to_dict()["description"].startswith("interaction, effect on log_prob")


def test_a_head_that_works_through_another():
    model, items = planted.build({2: 1.0}, told="stream"), pairs(10)
    found = relate_heads(model, items, sweep=head_sweep(model, items), top=2)
    assert found["heads"] == ("0.2", "1.2")
    path = [found.part("0.2 -> 1.2", by=f"path, {way}") for way in ("NIE", "pure NIE")]
    np.testing.assert_allclose([row.estimate for row in path], [TE, 0], atol=1e-9)
    np.testing.assert_allclose(interactions(found)["0.2 & 1.2"], [-TE, 0], atol=1e-9)
    assert "0.2 -> 1.2 is the largest" in found.sentence
    names = [a.name for a in found.assumptions]
    assert names == ["no recanting witness", "heads chosen apart from these items"]
    assert "0.2: along the path" in found.assumptions[0].detail
    drawn = found.plot("paths").to_dict()
    assert "0.2 -> 1.2" in drawn["description"]
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_the_total_effect_along_paths_adds_up():
    model, items = tiny.make("llama"), [pair(seed=k) for k in range(5)]
    along = [[(0, 1), (2, 2)], [(1, 3), (2, 2)], [(0, 1), (1, 0)]]
    found = relate_heads(model, items, heads=[(1, 0), (2, 2)], along=along, draws=200)
    for way, quantity in (("NIE", "nie"), ("pure NIE", "pure_nie")):
        rows = {row.label: row.estimate for row in found.parts if row.by == f"along, {way}"}
        assert list(rows) == ["0.1 -> 2.2", "1.3 -> 2.2", "0.1 -> 1.0", "shared", "rest"]
        assert sum(rows.values()) == pytest.approx(found.estimate, abs=1e-12)
        joint = set_sweep(model, items, {"all": along}, mediator="path")
        assert rows["rest"] == pytest.approx(found.estimate - joint.effect(quantity).mean(), abs=1e-12)


def test_an_interaction_has_the_interval_of_its_items_in_clusters():
    """What the mean of the items' own interactions has, as any mean of a sweep."""
    model = tiny.make("llama")
    items = [replace(pair(seed=k), cluster=f"c{k // 2}") for k in range(8)]
    heads = [(0, 1), (1, 2), (2, 3)]
    found = relate_heads(model, items, heads=heads, draws=500)
    sets = {f"{i}{j}": [a, b] for (i, a), (j, b) in combinations(enumerate(heads), 2)}
    both, one = set_sweep(model, items, sets), head_sweep(model, items, heads=heads)
    nie = np.stack([both.nie[:, k] - one.nie[:, i] - one.nie[:, j] for k, (i, j) in
                    enumerate(combinations(range(3), 2))], 1)  # fmt: skip
    wanted = infer_heads(replace(both, y10=both.y11[:, None] - nie), draws=500)
    rows = [row for row in found.parts if row.by == "interaction, NIE"]
    for row, want in zip(rows, wanted.parts, strict=True):
        assert row.estimate == pytest.approx(want.estimate, abs=1e-10)
        assert row.std_error == pytest.approx(want.std_error, rel=1e-8)
        assert row.ends == pytest.approx(want.ends, rel=1e-8)
        assert row.p_adjusted >= want.p_value


def test_items_twice_over_in_a_cluster_say_no_more_than_once():
    model, items = tiny.make("llama"), [pair(seed=k) for k in range(6)]
    once = relation_sweep(model, items, [(0, 1), (1, 2), (2, 3)], along=[[(0, 1)], [(1, 2), (2, 3)]])
    doubled = {name: np.repeat(getattr(once, name), 2, 0) for name in ("y00", "y11", "y10", "y01")}
    names = [f"{name}-{k}" for name in once.item_ids for k in range(2)]
    twice = replace(once, **doubled, item_ids=tuple(names), clusters=tuple(np.repeat(once.clusters, 2)))
    one, two = (relations(sweep, picked=False, draws=200) for sweep in (once, twice))
    for row, other in zip((one.overall, *one.parts), (two.overall, *two.parts), strict=True):
        assert (other.label, other.by) == (row.label, row.by)
        np.testing.assert_allclose([other.estimate, *other.ends], [row.estimate, *row.ends], rtol=1e-9)
    one, two = (infer_heads(sweep, draws=200).overall for sweep in (once, twice))
    assert two.ends == pytest.approx(one.ends, rel=1e-9)


def test_all_heads_below_send_to_the_chosen_ones():
    model, items = tiny.make("gpt2"), [pair(seed=k) for k in range(4)]
    found = relate_heads(model, items, heads=[(1, 0), (2, 2)], senders="all", draws=200)
    assert found["paths"] == 4 + 8
    assert sum(row.by == "path, NIE" for row in found.parts) == 12


@pytest.mark.parametrize(
    ("sets", "match"),
    [
        ({"a": [(1, 2), (0, 1)]}, r"the path 'a': nothing goes from head 1.2 to head 0.1, .* a layer below"),
        ({"a": [(1, 2), (1, 1)]}, r"nothing goes from head 1.2 to head 1.1, which lies in the same layer"),
        ({"a": [(1, 2), (1, 2)]}, "the path 'a': 'head 1.2' is named twice"),
        ({"a": [(0, 1), (1, 9)]}, r"the path 'a': head 1.9 is out of range"),
        ({"a": []}, "the set 'a' holds no sites"),
        ({"a": [0, 1]}, "the path 'a': 0 names no site"),
        ({"a": 3}, "the path 'a' is 3, not a sequence of heads"),
        ({"a": ["head 0.1", "mlp 1"]}, "the path 'a': mlp 1 is no head, and paths are of heads"),
        ({"a": [[(0, 1), (2, 2)]] * 2}, "names the path 0.1 -> 2.2 twice"),
        ({"a": [[(0, 1), (1, 0)], [(1, 0)]]}, "recanting witness, head 1.0: 1.0 gives it its value"),
        ({"a": [[(0, 1), (1, 0)], [(1, 0), (2, 0)]]}, "recanting witness, head 1.0: 1.0 -> 2.0 gives"),
        (
            {"a": [[(0, 1), (1, 0), (2, 0)], [(0, 2), (1, 0)]]},
            "recanting witness, head 1.0: 0.1 -> 1.0 -> 2.0 and 0.2 -> 1.0 meet in it",
        ),
    ],
)
def test_what_is_no_path_is_refused_by_name(sets, match):
    with pytest.raises(MediationError, match=match):
        set_sweep(tiny.make("llama"), [pair()], sets, mediator="path")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "nothing to choose heads by"),
        ({"heads": [(0, 1)]}, "heads names 1 head, but relations are of two or more"),
        ({"heads": [(0, 1), (9, 0)]}, "head 9.0 is out of range"),
        ({"heads": [(0, 1), (1, 0)], "senders": "some"}, "unknown senders 'some'"),
        ({"heads": [(0, 1), (1, 0)], "along": [[(1, 0), (0, 1)]]}, "the path 'along': nothing goes from"),
        ({"heads": [(0, 1), (1, 0)], "level": 2}, "level is 2"),
    ],
)
def test_bad_options_of_relations_are_named(options, match):
    with pytest.raises(MediationError, match=match):
        relate_heads(tiny.make("llama"), [pair(), pair(seed=1)], **options)


@pytest.mark.parametrize("run", [head_sweep, find_heads])
def test_single_heads_have_no_path(run):
    with pytest.raises(MediationError, match="mediator='path' is of what heads pass on"):
        run(tiny.make("llama"), [pair(seed=k) for k in range(4)], mediator="path")


def test_path_sweeps_resume_and_survive_a_round_trip():
    model, items, kept = tiny.make("llama"), [pair(seed=k) for k in range(3)], []
    whole = set_sweep(model, items, SETS, mediator="path", on_pair=kept.append)
    done = {row.item_id: PairOutcomes.from_dict(row.to_dict()) for row in kept[:2]}
    again = []
    resumed = set_sweep(model, items, SETS, mediator="path", done=done, on_pair=again.append)
    assert [row.item_id for row in again] == ["item2"]
    np.testing.assert_array_equal(resumed.y10, whole.y10)
    back = Sweep.from_dict(json.loads(json.dumps(whole.to_dict())))
    assert back.paths == whole.paths
    assert back.paths["two into one"] == (((0, 1), (2, 2)), ((1, 3), (2, 2)))
    with pytest.raises(MediationError, match="made with other prompts or options"):
        set_sweep(model, items, SETS, mediator="direct_path", done=done)
