import re
from dataclasses import replace

import numpy as np
import planted
import pytest
import tiny
from planted import BOS, CUE, MARK, log_prob
from test_engine import pair

from whyprompt import (
    contrast_heads,
    find_heads,
    head_sweep,
    infer_heads,
    joint_effect,
    knockout_sweep,
    layer_sweep,
    set_sweep,
    site_sweep,
)
from whyprompt.errors import MediationError
from whyprompt.mediation import PromptPair

GAIN = 2.0
ALL = [(layer, head) for layer in range(2) for head in range(4)]


def pairs(n=8):
    """Prompts ``BOS a b CUE`` and ``BOS a b MARK x CUE``; the answer is x."""
    rng = np.random.default_rng(0)
    out = []
    for i in range(n):
        a, b, x = (int(t) for t in rng.integers(3, planted.V, 3))
        out.append(
            PromptPair(
                item_id=f"i{i}",
                ids0=[BOS, a, b, CUE],
                ids1=[BOS, a, b, MARK, x, CUE],
                answer_ids=[x],
                segments0={"question": ((1, 3),)},
                segments1={"question": ((1, 3),), "reasoning": ((3, 5),)},
            )
        )
    return out


def expect(got, **planted_heads):
    """Every head has effect zero but those named by layer and head as ``h12=value``."""
    want = np.zeros(len(ALL))
    for name, value in planted_heads.items():
        want[ALL.index((int(name[1]), int(name[2])))] = value
    np.testing.assert_allclose(got, np.broadcast_to(want, got.shape), atol=1e-9)


def test_finds_the_copying_head_and_no_other():
    sweep = head_sweep(planted.build({2: 1.0}), pairs())
    te = log_prob(GAIN) - log_prob(0)
    np.testing.assert_allclose(sweep.te, te, atol=1e-9)
    expect(sweep.nie, h12=te)
    expect(sweep.pure_nie, h12=te)
    expect(sweep.te[:, None] - sweep.nde, h12=te)
    expect(sweep.te[:, None] - sweep.total_nde, h12=te)
    assert infer_heads(sweep).to_frame().iloc[0][["layer", "head"]].tolist() == [1, 2]


@pytest.mark.parametrize("mediator", ["head_output", "attention_row"])
def test_both_mediators_agree_where_only_attention_moves(mediator):
    sweep = head_sweep(planted.build({2: 1.0}), pairs(), mediator=mediator)
    expect(sweep.nie, h12=log_prob(GAIN) - log_prob(0))


def test_attention_rows_have_the_longer_prompt_as_base_only():
    sweep = head_sweep(planted.build({2: 1.0}), pairs(), mediator="attention_row")
    assert sweep.quantities == ("nie", "nde")
    turned = [
        PromptPair(item_id=p.item_id, ids0=p.ids1, ids1=p.ids0, answer_ids=p.answer_ids) for p in pairs()
    ]
    sweep = head_sweep(planted.build({2: 1.0}), turned, mediator="attention_row")
    assert sweep.quantities == ("pure_nie", "total_nde")
    expect(sweep.pure_nie, h12=log_prob(0) - log_prob(GAIN))
    with pytest.raises(MediationError, match="which prompt is the longer differs"):
        head_sweep(planted.build({2: 1.0}), [*turned[:1], *pairs()[1:]], mediator="attention_row")


def test_knockout_of_the_reasoning_and_of_what_is_not_read():
    model, items = planted.build({2: 1.0}), pairs()
    cut = knockout_sweep(model, items, "reasoning")
    expect(cut.controlled_effect, h12=log_prob(GAIN) - log_prob(0))
    expect(knockout_sweep(model, items, "question").controlled_effect)
    assert len(cut.to_frame()) == len(items) * 8
    with pytest.raises(MediationError, match="prompt 0 has no segment 'reasoning'"):
        knockout_sweep(model, items, "reasoning", arm=0)


def test_a_suppressing_head_has_a_negative_effect():
    sweep = head_sweep(planted.build({2: 1.0, 3: -0.5}), pairs())
    expect(
        sweep.nie,
        h12=log_prob(GAIN / 2) - log_prob(-GAIN / 2),
        h13=log_prob(GAIN / 2) - log_prob(GAIN),
    )
    expect(
        sweep.pure_nie,
        h12=log_prob(GAIN) - log_prob(0),
        h13=log_prob(-GAIN / 2) - log_prob(0),
    )
    np.testing.assert_allclose(
        joint_effect(planted.build({2: 1.0, 3: -0.5}), pairs(), [(1, 2), (1, 3)]).nie[:, 0],
        log_prob(GAIN / 2) - log_prob(0),
        atol=1e-9,
    )


def test_a_backup_head_hides_from_single_patches_but_not_from_joint_ones():
    model, te = planted.build({0: 1.0, 2: 1.0}, gate="or"), log_prob(GAIN) - log_prob(0)
    sweep = head_sweep(model, pairs())
    expect(sweep.nie)  # either suffices, so neither is needed
    expect(sweep.pure_nie, h10=te, h12=te)  # and each is enough
    joint = set_sweep(model, pairs(), {"both": [(1, 0), (1, 2)], "one": [(1, 0), (1, 3)]})
    np.testing.assert_allclose(joint.nie[:, 0], te, atol=1e-9)
    np.testing.assert_allclose(joint.nie[:, 1], 0, atol=1e-9)


def test_a_placebo_is_the_noise_floor_and_the_contrast_is_what_the_answer_adds():
    """Another item's solution copies another answer; the contrast credits the head for the difference."""
    model, items = planted.build({2: 1.0}), pairs(12)
    rng = np.random.default_rng(1)
    placebo = []
    for p in items:
        other = int(rng.choice([t for t in range(3, planted.V) if t != p.answer_ids[0]]))
        placebo.append(replace(p, ids1=[*p.ids1[:4], other, p.ids1[5]]))
    real, floor = head_sweep(model, items), head_sweep(model, placebo)
    wrong = -np.log(np.exp(GAIN) + planted.V - 1) + np.log(planted.V)  # another token takes the mass
    expect(floor.nie, h12=wrong)
    got = contrast_heads(real, floor)
    expect(got.mean, h12=log_prob(GAIN) - log_prob(0) - wrong)
    assert [h for h, part in zip(got.heads, got.parts, strict=True) if part.p_adjusted < 0.05] == [(1, 2)]


@pytest.mark.parametrize("method", ["greedy", "ranked"])
@pytest.mark.parametrize(("gate", "alone"), [("or", (0, 1)), ("and", (1, 0))])
def test_the_search_finds_both_heads_where_one_suffices_and_where_both_are_needed(method, gate, alone):
    model = planted.build({0: 1.0, 2: 1.0}, gate=gate)
    steps = []
    found = find_heads(model, pairs(), method=method, max_heads=5, progress=lambda *step: steps.append(step))
    assert set(found.heads) == {(1, 0), (1, 2)}
    assert found.reached
    # One of the two has the whole effect in one direction and none in the other; the pair has both.
    for way, first in zip(("nie", "pure_nie"), alone, strict=True):
        np.testing.assert_allclose(found.searched[way][:2], [first, 1], atol=1e-9)
        np.testing.assert_allclose(found.held_out[way][:2], [first, 1], atol=1e-9)
        joint, direct = (found.part(label, by=way).estimate for label in ("joint", "direct"))
        np.testing.assert_allclose([joint, direct], [found.estimate, 0], atol=1e-9)
    np.testing.assert_allclose(found.held_out_share[:2], [0, 1], atol=1e-9)
    assert list(found.searched) == list(found.held_out) == ["nie", "pure_nie"]
    assert set(found.search_items) | set(found.held_out_items) == {p.item_id for p in pairs()}
    assert not set(found.search_items) & set(found.held_out_items)
    assert "2 heads" in found.sentence
    assert "100% (95% interval 100% to 100%) when taken out of prompt 1 (NIE) and 100%" in found.sentence
    if method == "greedy":
        assert steps == [(1, 5, "0% carried"), (2, 5, "100% carried")]
    frame = found.to_frame()
    assert frame.chosen.sum() == 2
    np.testing.assert_allclose(frame.held_out_pure_nie[:2], [alone[1], 1], atol=1e-9)


def test_a_search_that_stops_at_one_of_two_needed_heads_says_what_it_lacks():
    found = find_heads(planted.build({0: 1.0, 2: 1.0}, gate="and"), pairs(), max_heads=1)
    assert not found.reached
    assert "100% (95% interval 100% to 100%) when taken out" in found.sentence
    assert "and 0% (95% interval 0% to 0%) when put into prompt 0 (pure NIE)" in found.sentence.replace(
        "-0%", "0%"
    )
    assert "before 80% was reached on its own items (NIE 100%, pure NIE 0%)" in found.sentence.replace(
        "-0%", "0%"
    )


@pytest.mark.parametrize("method", ["greedy", "ranked"])
def test_the_search_finds_what_carries_a_harm(method):
    """A change of prompt that takes the answer away: the head that carries the loss has negative effects."""
    turned = [
        PromptPair(item_id=p.item_id, ids0=p.ids1, ids1=p.ids0, answer_ids=p.answer_ids) for p in pairs()
    ]
    found = find_heads(planted.build({2: 1.0, 3: -0.5}), turned, method=method, max_heads=2, candidates=2)
    assert found.estimate < 0
    assert found.heads == ((1, 2),)
    assert all(part.estimate < 0 for part in found.parts if part.label == "joint")
    assert found.search_share[0] > 1


def test_the_search_runs_each_prompt_once_and_again_where_memory_is_short(monkeypatch):
    from whyprompt.mediation.engine.engine import ModelRuntime

    model = planted.build({0: 1.0, 2: 1.0}, gate="or")
    items = pairs()
    sweep = head_sweep(model, items)
    runs, own = [], ModelRuntime.clean_many

    def counted(self, given, **options):
        runs.extend(given)
        return own(self, given, **options)

    monkeypatch.setattr(ModelRuntime, "clean_many", counted)
    found = find_heads(model, items, sweep=sweep)
    once = len(runs)
    # Both prompts of every item once, searched on or held out, whatever the number of steps.
    assert once == 2 * len(items)
    runs.clear()
    again = find_heads(model, items, sweep=sweep, max_extra_bytes=1)
    assert len(runs) > once
    assert again.heads == found.heads
    np.testing.assert_allclose(again.search_share, found.search_share, atol=1e-12)


def test_items_twice_over_in_a_cluster_say_no_more_than_once_of_a_set():
    model, items = tiny.make("llama"), [pair(seed=k) for k in range(16)]
    again = [replace(p, item_id=f"{p.item_id}-b", cluster=p.cluster) for p in items]
    one, two = (find_heads(model, some, max_heads=2, candidates=2) for some in (items, [*items, *again]))
    assert two.path == one.path
    for row, other in zip((one.overall, *one.parts), (two.overall, *two.parts), strict=True):
        np.testing.assert_allclose([other.estimate, *other.ends], [row.estimate, *row.ends], rtol=1e-6)


def test_the_search_passes_over_a_suppressing_head():
    found = find_heads(planted.build({2: 1.0, 3: -0.5}), pairs(), share=1.0)
    assert found.heads == ((1, 2),)
    assert found.search_share[0] > 1  # the suppressor takes some back


def test_the_search_says_when_it_cannot_reach_the_share():
    # With both directions in play the total is carried by layer 1; heads of layer 0 carry nothing.
    model = planted.build({0: 1.0, 2: 1.0}, gate="or")
    found = find_heads(model, pairs(), max_heads=1)
    assert not found.reached
    assert "stopped before 80%" in found.sentence
    with pytest.raises(MediationError, match="each side needs two"):
        find_heads(model, pairs(3))
    same = [PromptPair(item_id=p.item_id, ids0=p.ids1, ids1=p.ids1, answer_ids=p.answer_ids) for p in pairs()]
    with pytest.raises(MediationError, match="no total effect"):
        find_heads(model, same)


def test_the_search_takes_the_outcome_of_its_sweep():
    model, items = planted.build({2: 1.0}), pairs()
    sweep = head_sweep(model, items, outcome="prob")
    found = find_heads(model, items, sweep=sweep)
    assert found.heads == ((1, 2),)
    np.testing.assert_allclose(found.search_share, 1, atol=1e-9)  # a share of one outcome, not of two
    np.testing.assert_allclose(found.held_out_share, 1, atol=1e-9)
    with pytest.raises(MediationError, match="outcome is 'prob', but 'log_prob' was asked for"):
        find_heads(model, items, sweep=sweep, outcome="log_prob")
    one_way = head_sweep(model, items, directions=("nie",))
    with pytest.raises(MediationError, match="one direction only"):
        find_heads(model, items, sweep=one_way)
    with pytest.raises(MediationError, match="level is 95"):
        find_heads(model, items, level=95)


@pytest.mark.parametrize("method", ["greedy", "ranked"])
def test_the_search_over_attention_rows(method):
    model, items = planted.build({2: 1.0}), pairs()
    found = find_heads(model, items, mediator="attention_row", method=method)
    assert found.heads == ((1, 2),)
    np.testing.assert_allclose(found.held_out_share[0], 1, atol=1e-9)
    assert list(found.held_out) == ["nie"]
    assert "Only this direction can be run with mediator 'attention_row'" in found.sentence


def test_the_joint_effect_of_a_layer_is_inferred():
    model, items = planted.build({0: 1.0, 2: 1.0}, gate="or"), pairs()
    te = log_prob(GAIN) - log_prob(0)
    got = infer_heads(layer_sweep(model, items))
    np.testing.assert_allclose(got.mean, [0, te], atol=1e-9)  # no single head of it has any effect
    assert [part.p_adjusted < 0.05 for part in got.parts] == [False, True]


def test_attention_rows_of_prompts_of_one_length_have_prompt_1_as_base():
    # Of one length they can be aligned only where they are the same.
    same = replace(pairs()[0], ids0=pairs()[0].ids1, segments0={})
    for items in ([same], [same, *pairs()[1:]]):
        sweep = head_sweep(planted.build({2: 1.0}), items, mediator="attention_row")
        assert sweep.quantities == ("nie", "nde")
        np.testing.assert_allclose(sweep.nie[0], 0, atol=1e-12)


def test_a_circuit_through_an_mlp_is_found_with_its_neurons():
    """The copied token reaches the answer through one neuron of layer 1: of every token its own."""
    items = pairs()
    sweep = site_sweep(
        planted.build({2: 1.0}, gate="or"), items, ["head", "attn", "mlp", "resid", "neuron 1"]
    )
    te = log_prob(GAIN) - log_prob(0)
    want = dict.fromkeys(("head 1.2", "attn 1", "mlp 1", "resid 1"), te)
    for i, item in enumerate(items):
        own = want | {f"neuron 1.{2 * item.answer_ids[0]}": te}
        expected = [own.get(label, 0.0) for label in sweep.labels]
        np.testing.assert_allclose(sweep.nie[i], expected, atol=1e-9)
        np.testing.assert_allclose(sweep.pure_nie[i], expected, atol=1e-9)
    np.testing.assert_allclose(sweep.nde[:, sweep.labels.index("resid 1")], 0, atol=1e-12)


@pytest.mark.parametrize("method", ["greedy", "ranked"])
def test_a_set_mixes_heads_with_other_sites(method):
    """Of two copying heads either suffices: one alone has one direction, the block behind them has both."""
    items = pairs()
    model = planted.build({0: 1.0, 2: 1.0}, gate="or")
    own = ["head 0", "head 1.0", "mlp 1", "neuron 0"]
    sweep = site_sweep(model, items, ["head", "mlp", "resid", "neuron 0"])
    found = find_heads(model, items, sweep=sweep, sites=own, method=method, max_heads=3)
    # The last block holds all of both directions by itself; one head has it in one direction only.
    assert found.sites == ("mlp 1",)
    assert (found.heads, found.noun, found.reached) == (
        (),
        "site" if len(found.path) > 1 else "MLP output",
        True,
    )
    np.testing.assert_allclose([found.held_out[way][0] for way in ("nie", "pure_nie")], 1, atol=1e-9)
    alone = find_heads(model, items, sites=own, method=method, max_heads=3)
    np.testing.assert_allclose(alone.search_share, found.search_share, atol=1e-12)
    assert alone.path == found.path
    # Without it both heads are needed, and what was swept beside them does not join.
    heads = find_heads(model, items, sweep=sweep, method=method, max_heads=3)
    assert set(heads.heads) == {(1, 0), (1, 2)}
    assert heads.noun == "head"


def test_a_mixed_set_is_told_by_the_names_of_its_sites():
    model = planted.build({0: 1.0, 2: 1.0}, gate="and")
    items = pairs()
    found = find_heads(model, items, sites=["head 1.2", "attn 0", "head 1.0"], max_heads=3)
    assert set(found.sites) == {"head 1.0", "head 1.2"}
    mixed = find_heads(model, items, sites=["head 1.2", "attn 1"], max_heads=3, share=1.0, method="ranked")
    assert mixed.path == ("attn 1", "head 1.2")
    assert mixed.sites == ("attn 1",)
    assert "1 site (attn 1) carries, of the total effect" in mixed.sentence
    assert mixed.sentence.endswith("sites act at the answer positions only.")
    frame = mixed.to_frame()
    assert frame["site"].tolist() == ["attn 1", "head 1.2"]
    assert frame["n_sites"].tolist() == [1, 2]
    assert mixed.to_dict()["sites"] == ["attn 1"]


@pytest.mark.parametrize(
    ("sites", "said"),
    [
        (["resid"], "'resid' cannot join a set"),
        (["head", "resid 1"], "'resid 1' cannot join a set"),
        (["attn"], "'attn' was not swept"),
        (["mlp 7"], "'mlp 7' was not swept"),
        (["neuron 1"], "'neuron 1' was not swept"),
        (["mpl"], "'mpl' names no site"),
        ([], "not a list of names"),
        ("mlp", "not a list of names"),
    ],
)
def test_what_no_set_can_be_made_of_is_refused_before_anything_runs(sites, said, monkeypatch):
    model, items = planted.build({2: 1.0}), pairs()
    sweep = site_sweep(model, items, ["head", "mlp", "resid"])
    monkeypatch.setattr("whyprompt.mediation.search.open_runner", None)
    with pytest.raises(MediationError, match=re.escape(said)):
        find_heads(model, items, sweep=sweep, sites=sites)


@pytest.mark.parametrize("tokens", ["answer", "suffix"])
def test_what_is_moved_before_the_answer_is_found_at_the_tokens_of_the_suffix(tokens):
    """``BOS a x CUE`` and ``BOS a b MARK x CUE``: that x is marked is written at x, and read at CUE."""
    items = [
        replace(p, ids0=[BOS, a, x, CUE], ids1=[BOS, a, b, MARK, x, CUE], segments0={}, segments1={})
        for p in pairs()
        for a, b, x in [(*p.ids0[1:3], p.answer_ids[0])]
    ]
    assert {p.n_suffix for p in items} == {2}
    sweep = site_sweep(planted.build({2: 1.0}), items, ["head", "attn", "mlp", "resid"], tokens=tokens)
    te = log_prob(GAIN) - log_prob(0)
    np.testing.assert_allclose(sweep.te, te, atol=1e-9)
    early = ("head 0.1", "attn 0", "resid 0") if tokens == "suffix" else ()
    want = [te * (label in {*early, "head 1.2", "attn 1", "resid 1"}) for label in sweep.labels]
    np.testing.assert_allclose(sweep.nie, np.broadcast_to(want, sweep.nie.shape), atol=1e-9)
    np.testing.assert_allclose(sweep.pure_nie, np.broadcast_to(want, sweep.nie.shape), atol=1e-9)
