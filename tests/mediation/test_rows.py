"""Attention rows and knockouts against the model's own eager attention, altered in place."""

import numpy as np
import pytest
import tiny
import torch
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.gpt2 import modeling_gpt2
from transformers.models.gpt_oss import modeling_gpt_oss
from transformers.models.llama import modeling_llama

from whyprompt import capture_attention, head_sweep, knockout_sweep
from whyprompt.errors import MediationError
from whyprompt.mediation import PromptPair, align_shorter, capture_heads

MODULES = {
    "llama": modeling_llama,
    "gpt2": modeling_gpt2,
    "gemma2": modeling_gemma2,
    "gpt_oss": modeling_gpt_oss,
}
ANSWER = [5, 9]
SHORT = [3, 10, 11, 12, 7]
LONG = [3, 10, 11, 20, 21, 22, 12, 7]
PLACE = [0, 1, 2, 6, 7]
PAIR = PromptPair(
    item_id="a",
    ids0=SHORT,
    ids1=LONG,
    answer_ids=ANSWER,
    segments0={"question": ((1, 3),)},
    segments1={"question": ((1, 3),), "reasoning": ((3, 6),)},
)


def eager(model, module, ids, alter=None):
    """Own log-probability, with (layer, weights, values, z) -> z applied to each layer's heads.

    `weights` are the model's own (1, heads, queries, keys), values already repeated for groups.
    """
    own = module.eager_attention_forward
    record = {}

    def forward(attn, query, key, value, attention_mask, **kwargs):
        z, weights = own(attn, query, key, value, attention_mask, **kwargs)
        record[attn.layer_idx] = weights[0, :, -len(ANSWER) :].clone()
        if alter is not None:
            groups = query.shape[1] // value.shape[1]
            z = alter(attn.layer_idx, weights, value.repeat_interleave(groups, 1), z.clone())
        return z, weights

    module.eager_attention_forward = forward
    try:
        with torch.no_grad(), tiny.exact_softmax():
            logits = model(torch.tensor([[*ids, *ANSWER[:-1]]]), use_cache=False).logits[0, -len(ANSWER) :]
    finally:
        module.eager_attention_forward = own
    return float(torch.log_softmax(logits, -1).gather(-1, torch.tensor(ANSWER)[:, None]).sum()), record


def replaced(layer, head, rows):
    """Alteration that sets one head's rows at the answer positions; `rows` from its own rows."""

    def alter(at, weights, values, z):
        if at == layer:
            z[0, -len(ANSWER) :, head] = rows(weights[0, head, -len(ANSWER) :]) @ values[0, head]
        return z

    return alter


@pytest.mark.parametrize("model_type", MODULES)
def test_attention_rows_equal_eager_attention(model_type):
    model, module = tiny.make(model_type), MODULES[model_type]
    sweep = head_sweep(model, [PAIR], mediator="attention_row")
    _, short = eager(model, module, SHORT)
    want = []
    for layer, head in sweep.heads:
        row = torch.zeros(2, len(LONG) + 1, dtype=torch.float64)
        row[:, [*PLACE, len(LONG)]] = short[layer][head]
        want.append(eager(model, module, LONG, replaced(layer, head, lambda _, row=row: row))[0])
    np.testing.assert_allclose(sweep.y10[0], want, rtol=0, atol=1e-9)
    assert np.abs(sweep.nie).max() > 0.01


@pytest.mark.parametrize("model_type", MODULES)
def test_knockout_equals_eager_attention(model_type):
    model, module = tiny.make(model_type), MODULES[model_type]
    sweep = knockout_sweep(model, [PAIR], "reasoning")
    keep = torch.ones(len(LONG) + 1, dtype=torch.float64)
    keep[3:6] = 0

    def cut(w):
        # A sink's share of the row stays in the denominator.
        return w * keep / (1 - (w * (1 - keep)).sum(-1, keepdim=True))

    want = [eager(model, module, LONG, replaced(layer, head, cut))[0] for layer, head in sweep.heads]
    np.testing.assert_allclose(sweep.y_cut[0], want, rtol=0, atol=1e-9)
    assert np.abs(sweep.controlled_effect).max() > 0.01


@pytest.mark.parametrize("model_type", MODULES)
def test_capture_equals_eager_attention(model_type):
    model, module = tiny.make(model_type), MODULES[model_type]
    got = capture_attention(model, [PAIR])
    assert got.segments == ("question", "reasoning", "(other)", "(answer)", "(sink)")
    for arm, ids in enumerate((SHORT, LONG)):
        _, rows = eager(model, module, ids)
        for k, (layer, head) in enumerate(got.heads):
            w = rows[layer][head].numpy()
            mass = got.mass[0, arm, k]
            np.testing.assert_allclose(mass[0], w[:, 1:3].sum(-1).mean(), atol=1e-9)
            if arm:
                np.testing.assert_allclose(mass[1], w[:, 3:6].sum(-1).mean(), atol=1e-9)
            np.testing.assert_allclose(np.nansum(mass), 1, atol=1e-9)
            np.testing.assert_allclose(
                got.entropy[0, arm, k], -(w * np.log(w + (w == 0))).sum(-1).mean(), atol=1e-9
            )
    assert np.isnan(got.mass[0, 0, :, 1]).all()
    assert (got.mass[..., -1] > 0.01).any() == (model_type == "gpt_oss")
    frame = got.to_frame()
    assert len(frame) == 12 * (4 + 5)
    assert not frame.isna().any().any()


def test_one_row_of_one_head():
    model = tiny.make("llama")
    row = capture_heads(model, PAIR, heads=[(2, 1)])
    _, rows = eager(model, modeling_llama, LONG)
    np.testing.assert_allclose(row.weights[0], rows[2][1], atol=1e-9)
    assert row.positions == (7, 8)
    assert row.token_ids == (*LONG, 5)
    assert row.segments == ("", "question", "question", "reasoning", "reasoning", "reasoning", "", "", "")
    with pytest.raises(MediationError, match=r"head 2.4 is out of range"):
        capture_heads(model, PAIR, heads=[(2, 4)])
    with pytest.raises(MediationError, match="arm is 2"):
        capture_heads(model, PAIR, heads=[(2, 1)], arm=2)


@pytest.mark.parametrize("model_type", MODULES)
def test_patterns_and_outputs_at_chosen_positions_equal_eager_attention(model_type):
    model, module = tiny.make(model_type), MODULES[model_type]
    heads, positions = [(2, 1), (0, 3)], [2, 5, -1]
    got = capture_heads(model, PAIR, heads=heads, positions=positions)
    assert got.positions == (2, 5, 8)
    assert got.token_ids == (*LONG, 5)
    own, seen = module.eager_attention_forward, {}

    def forward(attn, *args, **kwargs):
        z, weights = own(attn, *args, **kwargs)
        seen[attn.layer_idx] = (weights[0], z[0])
        return z, weights

    module.eager_attention_forward = forward
    try:
        with torch.no_grad(), tiny.exact_softmax():
            model(torch.tensor([[*LONG, 5]]), use_cache=False)
    finally:
        module.eager_attention_forward = own
    for k, (layer, head) in enumerate(heads):
        weights, z = seen[layer]
        np.testing.assert_allclose(got.weights[k], weights[head, positions], atol=1e-9)
        np.testing.assert_allclose(got.outputs[k], z[positions, head], atol=1e-9)
    whole = capture_heads(model, PAIR, arm=0)
    assert whole.weights.shape == (12, 2, 6)
    for changes, match in (
        ({"positions": [9]}, "'a': position 9 is outside prompt 1, which has 9 tokens"),
        ({"positions": []}, "positions is empty"),
        ({"heads": [(3, 0)]}, r"head 3.0 is out of range"),
        ({"arm": 2}, "arm is 2"),
    ):
        with pytest.raises(MediationError, match=match):
            capture_heads(model, PAIR, **changes)


def test_a_cut_in_prompt_0_is_that_in_prompt_1_of_the_pair_turned_round():
    model = tiny.make("llama")
    turned = PromptPair(
        item_id="turned",
        ids0=PAIR.ids1,
        ids1=PAIR.ids0,
        answer_ids=ANSWER,
        segments0=PAIR.segments1,
        segments1=PAIR.segments0,
    )
    one, other = (
        knockout_sweep(model, [PAIR], "reasoning"),
        knockout_sweep(model, [turned], "reasoning", arm=0),
    )
    assert other.arm == 0
    np.testing.assert_array_equal(other.y, one.y)
    np.testing.assert_array_equal(other.y_cut, one.y_cut)


def test_knockouts_resume_by_pair():
    import json
    from dataclasses import replace

    from whyprompt.mediation import PairOutcomes

    model = tiny.make("llama")
    pairs = [replace(PAIR, item_id=f"i{k}", ids1=[*LONG[:3], 20 + k, *LONG[4:]]) for k in range(3)]
    saved, again = {}, []
    whole = knockout_sweep(model, pairs, "reasoning", on_pair=lambda r: saved.update({r.item_id: r}))
    stored = {
        k: PairOutcomes.from_dict(json.loads(json.dumps(v.to_dict()))) for k, v in saved.items() if k != "i1"
    }
    seen = []
    resumed = knockout_sweep(
        model,
        pairs,
        "reasoning",
        done=stored,
        on_pair=again.append,
        progress=lambda i, n, _: seen.append((i, n)),
    )
    assert [r.item_id for r in again] == ["i1"]
    assert seen == [(2, 3), (3, 3)]
    np.testing.assert_array_equal(resumed.y_cut, whole.y_cut)
    np.testing.assert_array_equal(resumed.y, whole.y)
    with pytest.raises(MediationError, match="'i0': the saved y_cut does not fit"):
        knockout_sweep(model, pairs, "reasoning", done=stored, heads=[(0, 0)])


@pytest.mark.parametrize("run", ["attention_row", "knockout"])
def test_rows_and_knockouts_in_chunks_change_nothing(run):
    model = tiny.make("llama")

    def numbers(**options):
        if run == "knockout":
            return knockout_sweep(model, [PAIR], "reasoning", **options).y_cut
        return head_sweep(model, [PAIR], mediator="attention_row", **options).y10

    np.testing.assert_allclose(numbers(max_extra_bytes=1), numbers(), rtol=0, atol=1e-12)


def test_alignment_of_inserted_blocks():
    assert align_shorter(PAIR) == tuple(PLACE)
    turned = PromptPair(item_id="t", ids0=LONG, ids1=SHORT, answer_ids=ANSWER)
    assert align_shorter(turned) == tuple(PLACE)


def test_alignment_of_two_inserted_blocks_needs_segments():
    # Shots before the question, reasoning after it.
    long = [3, 30, 31, 10, 11, 20, 21, 12, 7]
    plain = {"item_id": "two", "ids0": SHORT, "ids1": long, "answer_ids": ANSWER}
    with pytest.raises(MediationError, match=r"'two': the longer prompt is not .* \(token 1 has no place"):
        align_shorter(PromptPair(**plain))
    named = PromptPair(**plain, segments0={"question": ((1, 3),)}, segments1={"question": ((3, 5),)})
    assert align_shorter(named) == (0, 3, 4, 7, 8)


def test_alignment_refuses_other_tokens_and_other_orders():
    other = PromptPair(
        item_id="other",
        ids0=[3, 10, 13, 7],
        ids1=[3, 30, 11, 13, 7],
        answer_ids=ANSWER,
        segments0={"q": ((1, 2),)},
        segments1={"q": ((2, 3),)},
    )
    with pytest.raises(MediationError, match="'other'"):
        head_sweep(tiny.make("llama"), [other], mediator="attention_row")
    swapped = PromptPair(
        item_id="swapped",
        ids0=[3, 10, 11, 7],
        ids1=[3, 40, 11, 10, 41, 7],
        answer_ids=ANSWER,
        segments0={"a": ((1, 2),), "b": ((2, 3),)},
        segments1={"a": ((3, 4),), "b": ((2, 3),)},
    )
    with pytest.raises(MediationError, match="the order of the segments"):
        align_shorter(swapped)


def test_a_knockout_of_the_answer_position_itself_is_refused():
    p = PromptPair(item_id="a", ids0=[3, 7], ids1=[3, 4, 7], answer_ids=[5], segments1={"end": ((1, 3),)})
    with pytest.raises(MediationError, match="holds the answer position itself"):
        knockout_sweep(tiny.make("llama"), [p], "end")


def test_a_knockout_of_all_that_a_head_looks_at_is_exact_in_float32():
    """The rest of the row is renormalised from its scores: after rounding there is nothing left of it."""
    exact, single = (tiny.make("llama", dtype=dtype) for dtype in (torch.float64, torch.float32))
    for model in (exact, single):
        with torch.no_grad():
            for layer in model.model.layers:
                layer.self_attn.q_proj.weight.mul_(12.0)
    rest = min(1 - rows[:, 3:6].sum(1).max() for rows in capture_heads(exact, PAIR).weights)
    assert 0 < rest < 1e-12  # far below what float32 can tell from one
    want, got = (knockout_sweep(m, [PAIR], "reasoning") for m in (exact, single))
    np.testing.assert_allclose(got.y, want.y, atol=1e-3)
    np.testing.assert_allclose(got.y_cut, want.y_cut, atol=1e-3)


def test_saved_knockouts_of_other_settings_are_refused():
    from dataclasses import replace

    model, saved = tiny.make("llama"), {}
    knockout_sweep(model, [PAIR], "reasoning", on_pair=lambda r: saved.update({r.item_id: r}))
    for changes in ({"segment": "question"}, {"outcome": "prob"}):
        with pytest.raises(MediationError, match="'a': what is saved of it was made with other"):
            knockout_sweep(model, [PAIR], **{"segment": "reasoning", "done": saved} | changes)
    trusted = {"a": replace(saved["a"], made_with="", cluster="old")}
    again = knockout_sweep(model, [replace(PAIR, cluster="new")], "reasoning", done=trusted)
    assert again.clusters == ("new",)
