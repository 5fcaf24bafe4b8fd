"""Outcomes beyond the log-probability: margins over a foil, first choices, and what is written."""

import json
from dataclasses import replace

import numpy as np
import planted
import pytest
import tiny
import torch
from test_engine import ATOL, pair
from test_planted import ALL, GAIN, pairs
from test_sites import EXPERTS

from whyprompt import contrast_heads, find_heads, head_sweep, infer_heads, relate_heads
from whyprompt.errors import MediationError
from whyprompt.mediation import PairOutcomes, PromptPair, Sweep, generation_sweep
from whyprompt.mediation.engine.rivals import logits_over, over_rivals
from whyprompt.mediation.generation import cost_words
from whyprompt.mediation.intervals import share_interval

# With norms before the head, capping, scaling, a bias, and a plain product.
KINDS = ["llama", "gpt2", "gemma2", "cohere", "phi", "mistral", "deepseek_v2"]


@pytest.mark.parametrize("model_type", KINDS)
def test_a_margin_of_one_token_each_is_of_one_run(model_type, monkeypatch):
    model, p = tiny.make(model_type), pair(answer=(5,), foil_ids=(9,))
    with tiny.exact_softmax():
        sweep = head_sweep(model, [p], outcome="margin")
        sets = [[site] for site in sweep.sites]
        logits = np.array([x[0] for x in tiny.hook_logits(model, p.ids1, p.ids0, [5], sets)])
    np.testing.assert_allclose(sweep.y10[0], logits[:, 5] - logits[:, 9], rtol=0, atol=ATOL)
    # The same as two runs of the whole vocabulary each.
    monkeypatch.setattr(
        "whyprompt.mediation.engine.runner.Runner._scored",
        lambda _, p: [(p.answer_ids, None), (p.foil_ids, None)],
    )
    with tiny.exact_softmax():
        twice = head_sweep(model, [p], outcome="margin")
    for name in ("y00", "y11", "y10", "y01"):
        np.testing.assert_allclose(getattr(sweep, name), getattr(twice, name), rtol=0, atol=1e-12)


def test_margins_of_one_token_and_of_several_stand_in_one_sweep():
    model = tiny.make("llama")
    pairs = [pair(answer=(5,), foil_ids=(9,)), pair(seed=1, answer=(5, 9), foil_ids=(6,))]
    both = head_sweep(model, pairs, outcome="margin")
    for k, p in enumerate(pairs):
        alone = head_sweep(model, [p], outcome="margin")
        np.testing.assert_allclose(both.y01[k], alone.y01[0], rtol=0, atol=ATOL)
    with pytest.raises(MediationError, match="'item0': its foil_ids are its answer_ids"):
        head_sweep(model, [pair(answer=(5,), foil_ids=(5,))], outcome="margin")


def test_a_margin_over_another_foil_is_not_taken_from_what_was_saved():
    model, p, saved = tiny.make("llama"), pair(answer=(5,), foil_ids=(9,)), {}
    head_sweep(model, [p], outcome="margin", on_pair=lambda r: saved.update({r.item_id: r}))
    head_sweep(model, [p], outcome="margin", done=saved)
    with pytest.raises(MediationError, match="made with other prompts or options"):
        head_sweep(model, [replace(p, foil_ids=(8,))], outcome="margin", done=saved)


@pytest.mark.parametrize("model_type", KINDS)
def test_first_token_is_whether_the_answer_begins_with_the_first_choice(model_type):
    model, p = tiny.make(model_type), pair(answer=(5,))
    sets = [[(layer, head)] for layer in range(3) for head in range(4)]
    ways = (p.ids1, p.ids0), (p.ids0, p.ids1)
    with tiny.exact_softmax():
        logits = [torch.stack([x[0] for x in tiny.hook_logits(model, *ids, [5], sets)]) for ids in ways]
        # The token that most often comes first, so that some patches flip it and others do not.
        gold = int(torch.cat(logits).argmax(-1).mode().values)
        sweep = head_sweep(model, [pair(answer=(gold, 9, 3))], outcome="first_token")
    for got, want in zip((sweep.y10, sweep.y01), logits, strict=True):
        np.testing.assert_array_equal(got[0], (want.argmax(-1) == gold).double())
    assert sum(y.sum() for y in (sweep.y10, sweep.y01)) > 0
    np.testing.assert_array_equal(sweep.nie + sweep.nde, np.broadcast_to(sweep.te[:, None], sweep.nie.shape))


def test_the_best_of_all_others_is_found_in_any_block_of_a_large_vocabulary():
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 8, generator=draw, dtype=torch.float64)
    weights = torch.randn(5000, 8, generator=draw, dtype=torch.float64)
    logits = hidden @ weights.T
    # Of each row a token of some block, or its own best one.
    gold = torch.where(torch.arange(40) % 2 == 0, torch.arange(40) * 128, logits.argmax(-1))
    found, _ = over_rivals(hidden, gold, torch.full_like(gold, -1), weights, lambda _: None)
    torch.testing.assert_close(found, logits_over(logits, gold, torch.full_like(gold, -1)))
    assert 15 < int((found > 0).sum()) < 40


@pytest.mark.parametrize("model_type", tiny.ARCHITECTURES)
def test_what_is_written_under_a_patch_is_what_a_naive_loop_writes(model_type):
    untied = {} if model_type in {"gemma3n_text", "gemma4_text"} else {"tie_word_embeddings": False}
    model, pairs = tiny.make(model_type, **untied), [pair(), pair(n0=7, n1=9, seed=1)]
    rows = {
        "one": [(2, 1)],
        "layer": [(1, h) for h in range(4)],
        "mixed": ["attn 1", "mlp 0", (2, 2), (0, 3)],
    }
    if model_type not in EXPERTS | {"llama4_text"}:
        rows["neurons"] = [f"neuron 1.{i}" for i in range(0, 48, 2)]
    texts = {}

    def score(p, ids):
        texts.setdefault(p.item_id, []).append(tuple(ids))
        return 0.0

    with tiny.exact_softmax():
        generation_sweep(model, pairs, rows, score=score, stop=lambda ids: ids[-1] == 2, max_new_tokens=9)
        for p in pairs:
            ways = (p.ids1, p.ids0), (p.ids0, p.ids1)
            want = [tiny.hook_text(model, base, base, [], 9, 2) for base in (p.ids0, p.ids1)]
            want += [tiny.hook_text(model, *way, sites, 9, 2) for way in ways for sites in rows.values()]
            assert texts[p.item_id] == want
    # A test of equality means something only where patches change what is written.
    assert len({t for own in texts.values() for t in own}) > (4 if untied else 2)


def right(p, ids):
    return float(ids[0] == p.answer_ids[0])


def decided(model):
    """The planted model with a token that it writes where it has nothing to copy."""
    with torch.no_grad():
        model.lm_head.weight[planted.BOS, planted.TOK + planted.CUE] = GAIN / 4
    return model


def test_flips_of_a_planted_circuit():
    """Under prompt 0 BOS is written, under prompt 1 x."""
    sweep = generation_sweep(decided(planted.build({2: 1.0})), pairs(), ALL, score=right, max_new_tokens=1)
    want = np.array([head == (1, 2) for head in ALL], dtype=float)
    assert (sweep.y00 == 0).all()
    assert (sweep.y11 == 1).all()
    for quantity in ("nie", "pure_nie"):
        np.testing.assert_array_equal(sweep.effect(quantity), np.broadcast_to(want, (8, 8)))
    np.testing.assert_array_equal(sweep.nie + sweep.nde, np.ones((8, 8)))
    np.testing.assert_array_equal(sweep.pure_nie + sweep.total_nde, np.ones((8, 8)))
    found = infer_heads(sweep)
    assert (
        "the total effect on exact_match of what the model writes (risk differences) is 1 " in found.sentence
    )
    # Eight items alike bound no effect at a point: others may differ, as the binomial says.
    others = 1 - 0.05 ** (1 / 8)
    for head, part in zip(ALL, found.parts, strict=True):
        ends = (1 - 2 * others, 1) if head == (1, 2) else (-others, others)
        np.testing.assert_allclose(part.ends, ends, atol=1e-12)
    np.testing.assert_allclose(found.overall.ends, (1 - 2 * others, 1), atol=1e-12)


@pytest.mark.parametrize(("gate", "alone"), [("or", (0, 1)), ("and", (1, 0))])
def test_flips_of_a_backup_and_of_two_that_are_both_needed(gate, alone):
    model = decided(planted.build({0: 1.0, 2: 1.0}, gate=gate))
    rows = {"one": [(1, 0)], "both": [(1, 0), (1, 2)], "other": [(0, 0)]}
    sweep = generation_sweep(model, pairs(), rows, score=right, max_new_tokens=1)
    for quantity, first in zip(("nie", "pure_nie"), alone, strict=True):
        np.testing.assert_array_equal(sweep.effect(quantity), np.broadcast_to([first, 1, 0], (8, 3)))
    assert sweep.labels == ("one", "both", "other")


def test_interactions_of_flips_that_are_all_alike_have_no_interval_of_a_point():
    """An interaction of 0/1 outcomes is between -2 and 2, a total effect or a path between -1 and 1."""
    model = decided(planted.build({0: 1.0, 2: 1.0}, gate="or"))
    both = [(1, 0), (1, 2)]
    found = relate_heads(model, pairs(12), heads=both, along=[[h] for h in both], outcome="first_token")
    others = 1 - 0.05 ** (1 / 12)
    for label, by, value, reach in (
        ("1.0", "head", 0, 1),
        ("joint", "joint", 1, 1),
        ("rest", "joint", 0, 1),
        ("shared", "along", 1, 2),
        ("1.0 & 1.2", "interaction", 1, 2),
    ):
        part = found.part(label, by=f"{by}, NIE")
        ends = (value - others * (reach + value), value + others * (reach - value))
        assert part.estimate == value
        np.testing.assert_allclose(part.ends, ends, atol=1e-12, err_msg=label)
    np.testing.assert_allclose(found.overall.ends, (1 - 2 * others, 1), atol=1e-12)


def test_a_contrast_of_flips_may_be_two():
    """The mean lies in its own interval, where all items flip one way in one sweep, and back in the other."""
    one = Sweep(
        y00=np.zeros(12),
        y11=np.ones(12),
        y10=np.zeros((12, 1)),
        sites=((0, 0),),
        item_ids=tuple(map(str, range(12))),
        clusters=tuple(map(str, range(12))),
    )
    found = contrast_heads(one, replace(one, y11=one.y00, y10=np.ones((12, 1))))
    others = 1 - 0.05 ** (1 / 12)
    assert found.parts[0].estimate == 2
    np.testing.assert_allclose(found.parts[0].ends, (2 - 4 * others, 2), atol=1e-12)
    np.testing.assert_allclose(found.overall.ends, (1 - 3 * others, 1 + others), atol=1e-12)


def test_only_what_is_asked_for_is_written_and_it_resumes():
    model, items, saved, told = tiny.make("llama"), [pair(), pair(seed=1)], {}, []
    options = {"score": lambda _, ids: len(set(ids)) / 5, "outcome": "variety", "max_new_tokens": 5}
    whole = generation_sweep(
        model,
        items,
        [(2, 1), "mlp 1"],
        **options,
        directions=("nie",),
        on_pair=lambda r: saved.update({r.item_id: r}),
        progress=lambda *step: told.append(step),
    )
    assert told[0] == (0, 2, cost_words(2, 2, 5))
    assert whole.quantities == ("nie", "nde")
    assert whole.scale == "variety of what the model writes (differences of means)"
    stored = {"item0": PairOutcomes.from_dict(json.loads(json.dumps(saved["item0"].to_dict())))}
    again = []
    resumed = generation_sweep(
        model, items, [(2, 1), "mlp 1"], **options, directions=("nie",), done=stored, on_pair=again.append
    )
    assert [r.item_id for r in again] == ["item1"]
    np.testing.assert_array_equal(resumed.y10, whole.y10)
    with pytest.raises(MediationError, match="'item0': what is saved of it was made with other"):
        generation_sweep(
            model, items, [(2, 1), "mlp 1"], **options | {"outcome": "x"}, directions=("nie",), done=stored
        )


def test_texts_end_where_the_model_ends_them_and_in_batches_of_any_size():
    model, items = tiny.make("llama", tie_word_embeddings=False), [pair(seed=s) for s in range(4)]
    rows = [(layer, head) for layer in range(3) for head in range(4)]
    texts = {}

    def kept(name):
        return lambda p, ids: float(texts.setdefault((name, p.item_id), []).append(tuple(ids)) or 0)

    generation_sweep(model, items, rows, score=kept("whole"), max_new_tokens=12, stop=lambda _: False)
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = [texts["whole", "item0"][0][3], texts["whole", "item1"][5][6]]
    generation_sweep(model, items, rows, score=kept("ended"), max_new_tokens=12)
    generation_sweep(model, items, rows, score=kept("small"), max_new_tokens=12, max_extra_bytes=1)
    ends = set(model.config.eos_token_id)
    for p in items:
        for long, cut, small in zip(*(texts[k, p.item_id] for k in ("whole", "ended", "small")), strict=True):
            at = next((k for k, token in enumerate(long) if token in ends), 11)
            assert cut == long[: at + 1] == small
    assert len({len(t) for p in items for t in texts["ended", p.item_id]}) > 2


def test_bad_input_of_written_sweeps_is_named():
    model, p = tiny.make("llama"), pair()
    for match, options in (
        ("'item0': the score of what was written is nan", {"score": lambda *_: float("nan")}),
        ("max_new_tokens is 0", {"max_new_tokens": 0}),
        ("'item0': prompt and text need 69 positions with max_new_tokens=50", {"max_new_tokens": 50}),
        ("unknown directions", {"directions": ("te",)}),
        ("head 3.0 is out of range", {"sites": [(3, 0)]}),
        ("'none' holds no sites", {"sites": {"none": []}}),
    ):
        given = {"sites": [(0, 0)], "score": right} | options
        with pytest.raises(MediationError, match=match):
            generation_sweep(model, [p], **given)


def test_a_model_whose_last_token_alone_goes_wrong_is_refused(monkeypatch):
    from whyprompt.mediation.engine import writing

    own = writing.attend_rows
    monkeypatch.setattr(
        writing, "attend_rows", lambda call, state: (own(call, state)[0] * 1.01, own(call, state)[1])
    )
    with pytest.raises(MediationError, match=r"'llama'.*with nothing patched, the last token alone"):
        generation_sweep(tiny.make("llama"), [pair()], [(0, 0)], score=right)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("log_prob", "the answer's log-probability (nats)"),
        ("prob", "the answer's probability (risk differences)"),
        ("first_token", "whether the answer's first token is the model's first choice (risk differences)"),
        ("margin", "the answer's log odds over the foil (nats)"),
    ],
)
def test_a_result_says_on_which_scale_it_is(outcome, said):
    items = [
        PromptPair(item_id=p.item_id, ids0=p.ids0, ids1=p.ids1, answer_ids=p.answer_ids, foil_ids=(1,))
        for p in pairs()
    ]
    model = planted.build({2: 1.0})
    if outcome == "first_token":
        model = decided(model)
    sweep = head_sweep(model, items, outcome=outcome)
    te = {
        "log_prob": planted.log_prob(GAIN) - planted.log_prob(0),
        "prob": np.exp(planted.log_prob(GAIN)) - np.exp(planted.log_prob(0)),
        "first_token": 1.0,
        "margin": GAIN,
    }[outcome]
    np.testing.assert_allclose(sweep.te, te, atol=1e-9)
    np.testing.assert_allclose(sweep.nie[:, ALL.index((1, 2))], te, atol=1e-9)
    assert sweep.scale == said
    assert f"the total effect on {said} is " in infer_heads(sweep).sentence
    assert f" on {said}, each of 8 items" in sweep.sentence
    assert (
        f"of the total effect of {te:.3g} on {said}, over 4 held-out items"
        in find_heads(model, items, sweep=sweep).sentence
    )
    assert Sweep(y00=[0.0], y11=[1.0]).scale == ""


def test_a_share_of_flips_that_are_all_alike_is_no_point():
    found = find_heads(decided(planted.build({2: 1.0})), pairs(12), outcome="first_token")
    assert found.heads == ((1, 2),)
    least = 1 - 2 * (1 - 0.025 ** (1 / 6))  # each of six held-out items flips
    for part in (part for part in found.parts if part.label == "share"):
        assert part.estimate == 1
        if least <= 0:
            assert part.ends == (-np.inf, np.inf)
        else:
            np.testing.assert_allclose(part.ends, (least, 1 / least))
    assert "100% to 100%" not in found.sentence
    twenty = np.ones(40)
    least = 1 - 2 * (1 - 0.025 ** (1 / 40))
    np.testing.assert_allclose(share_interval(twenty, twenty, binary=True), (least, 1 / least))
    assert share_interval(twenty, twenty) == (1, 1)
