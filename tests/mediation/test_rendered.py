"""Pairs from rendered arms: the real renderer and codec, with and without a chat template."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from whyprompt import head_sweep
from whyprompt.errors import MediationError
from whyprompt.mediation import PromptPair, align_shorter, pair_from_rendered
from whyprompt.study import ChainOfThoughtArm, DirectArm, FewShotArm, FormatArm
from whyprompt.trials.items.item import Item, ItemPool
from whyprompt.trials.models.load import load_codec
from whyprompt.trials.prompts import render

ITEM = Item(
    item_id="q1",
    question="How many of 12 and 1,300 and 4.5?",
    answer="7",
    task_type="count",
    solution="3 plus 4 is 7",
)
SHOTS = tuple(
    Item(item_id=f"s{i}", question=f"What is {i}?", answer=str(i), task_type="count") for i in range(4)
)
POOL = ItemPool(items=(ITEM,), shots={"count": SHOTS})
ARMS = {
    "direct": DirectArm(kind="direct"),
    "few": FewShotArm(kind="few_shot", shots=2),
    "worked": ChainOfThoughtArm(kind="chain_of_thought", reasoning="worked"),
    "cut": ChainOfThoughtArm(kind="chain_of_thought", reasoning="cut"),
    "role": FormatArm(kind="format", format="role"),
    "json": FormatArm(kind="format", format="json"),
}


@pytest.fixture(scope="module", params=["chat", "plain"])
def codec(request, tiny_model):
    codec = load_codec(str(tiny_model))
    if request.param == "plain":
        codec.tokenizer.chat_template = None
    return codec


def rendered(codec, arm, item=ITEM):
    return render(item, ARMS[arm], name=arm, pool=POOL, renderer=codec)


def pair(codec, arm0, arm1, **options):
    return pair_from_rendered(
        codec,
        item_id="q1",
        prompt0=rendered(codec, arm0),
        prompt1=rendered(codec, arm1),
        arms=(arm0, arm1),
        **options,
    )


def text(codec, ids, spans):
    return [codec.tokenizer.decode(ids[a:b]) for a, b in spans]


@pytest.mark.parametrize("arm1", ["few", "worked", "cut"])
def test_tokens_and_segments_are_those_of_the_rendering(codec, arm1):
    p = pair(codec, "direct", arm1)
    for ids, segments, arm in ((p.ids0, p.segments0, "direct"), (p.ids1, p.segments1, arm1)):
        prompt = rendered(codec, arm)
        assert codec.tokenizer.decode(ids) == prompt.text
        assert codec.tokenizer.decode(p.answer_ids) == prompt.answer == " 7"
        for name in {s[0] for s in prompt.segments}:
            want = [prompt.text[a:b] for s, a, b in prompt.segments if s == name]
            # A token may carry the space or newline before its segment.
            assert [t.strip() for t in text(codec, ids, segments[name])] == [w.strip() for w in want]
        inside = sorted(i for spans in segments.values() for a, b in spans for i in range(a, b))
        assert inside == list(range(len(ids)))  # every token in exactly one segment
        if prompt.chat:
            assert "<|user|>" in "".join(text(codec, ids, segments["template"]))
            assert ids.count(codec.tokenizer.convert_tokens_to_ids("<|user|>")) == prompt.text.count(
                "<|user|>"
            )
    assert p.ids0[-p.cue_tokens :] == p.ids1[-p.cue_tokens :]
    assert codec.tokenizer.decode(p.ids0[-p.cue_tokens :]).strip() == "Answer:"


@pytest.mark.parametrize(
    "arms", [("direct", "few"), ("few", "direct"), ("direct", "worked"), ("cut", "worked")]
)
def test_the_question_and_the_cue_align_with_themselves(codec, arms):
    p = pair(codec, *arms)
    place = align_shorter(p)
    turned = len(p.ids0) > len(p.ids1)
    short, long = (p.segments1, p.segments0) if turned else (p.segments0, p.segments1)
    ids = (p.ids1, p.ids0) if turned else (p.ids0, p.ids1)
    assert [ids[1][j] for j in place] == list(ids[0])
    for name in ("question", "cue"):
        [(a, b)], [(c, d)] = short[name], long[name]
        assert place[a:b] == tuple(range(c, d))


def test_numbers_of_the_question(codec):
    p = pair(codec, "direct", "worked", numbers=True)
    for ids, segments in ((p.ids0, p.segments0), (p.ids1, p.segments1)):
        got = {k: text(codec, ids, v)[0].strip() for k, v in segments.items() if k.startswith("number")}
        assert got == {"number 1": "12", "number 2": "1,300", "number 3": "4.5"}
        [(start, stop)] = segments["question"]
        assert all(start <= a < b <= stop for k, v in segments.items() if "number" in k for a, b in v)


def test_a_foil(codec):
    p = pair(codec, "direct", "worked", foil=" 93")
    assert codec.tokenizer.decode(p.foil_ids) == " 93"


def test_arms_with_different_cues_are_named(codec):
    with pytest.raises(
        MediationError,
        match=r"'q1'.*arms 'direct' and 'role' do not end in the same cue: 'Answer:' is .* 'Assistant:' is",
    ):
        pair(codec, "direct", "role")


def test_an_answer_that_tokenises_differently_is_named(codec):
    lettered = replace(ITEM, answer="many")
    with pytest.raises(
        MediationError,
        match=r"'q1'.*answer tokenises differently .*'direct' and 'json'.*' many' is .*' .many.' is",
    ):
        pair_from_rendered(
            codec,
            item_id="q1",
            prompt0=rendered(codec, "direct", lettered),
            prompt1=rendered(codec, "json", lettered),
            arms=("direct", "json"),
        )


def test_a_prompt_without_a_cue_is_compared_at_its_last_token(codec):
    bare = replace(rendered(codec, "direct"), segments=())
    p = pair_from_rendered(codec, item_id="q1", prompt0=bare, prompt1=bare)
    assert p.cue_tokens == 1
    assert dict(p.segments0) == {"template": ((0, len(p.ids0)),)}


def test_a_pair_runs_through_the_model(tiny_model):
    codec, model = load_codec(str(tiny_model)), AutoModelForCausalLM.from_pretrained(tiny_model)
    p = pair_from_rendered(
        codec,
        item_id="q1",
        prompt0=rendered(codec, "direct"),
        prompt1=rendered(codec, "worked"),
    )
    for mediator in ("head_output", "attention_row"):
        sweep = head_sweep(model, [p], mediator=mediator)
        assert sweep.nie.shape == (1, 8)
        assert abs(sweep.te[0]) > 1e-3


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=8), st.lists(st.integers(0, 3), max_size=8), st.data()
)
def test_an_inserted_block_aligns_whatever_its_tokens(body, block, data):
    """With the parts around it named, an inserted block is found even where its tokens imitate theirs."""
    at = data.draw(st.integers(1, len(body) - 1))
    n = len(block)
    p = PromptPair(
        item_id="a",
        ids0=[*body, 9],
        ids1=[*body[:at], *block, *body[at:], 9],
        answer_ids=[1],
        segments0={"head": ((0, at),), "tail": ((at, len(body)),)},
        segments1={"head": ((0, at),), "tail": ((at + n, len(body) + n),)},
    )
    assert align_shorter(p) == (*range(at), *range(at + n, len(body) + n + 1))
