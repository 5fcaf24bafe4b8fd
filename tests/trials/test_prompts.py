"""Arms against prompts written out by hand, and against the tokenizer's own chat template."""

import itertools
import os
import subprocess
import sys
from dataclasses import replace

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whyprompt.errors import PromptError
from whyprompt.study import ChainOfThoughtArm, DirectArm, FewShotArm, FormatArm, TemplateArm
from whyprompt.trials.items.item import Item, ItemPool
from whyprompt.trials.models.load import load_codec
from whyprompt.trials.models.local import PromptCodec
from whyprompt.trials.prompts import check_templates, cut_before_answer, render, segments_of, trial_seed

ITEM = Item(
    item_id="a",
    question="What is 3 plus 4?",
    answer="7",
    task_type="sum",
    difficulty=2.0,
    solution="3 and 4 so 3 plus 4 is 7\n#### 7",
    choices=("7", "8"),
    covariates={"tone": "dry"},
)
OTHER = replace(ITEM, item_id="b", question="What is 1 plus 1?", answer="2", solution="1 and 1 is 2")
SHOTS = tuple(
    Item(
        item_id=f"s{i}",
        question=f"What is {i} plus 5?",
        answer=str(i + 5),
        task_type="sum",
        solution=f"so {i}",
    )
    for i in range(6)
)
POOL = ItemPool(items=(ITEM, OTHER), shots={"sum": SHOTS})


@pytest.fixture(scope="module")
def chat(tokenizer_maker):
    return PromptCodec(tokenizer_maker(), 512)


@pytest.fixture(scope="module")
def base(tokenizer_maker):
    return PromptCodec(tokenizer_maker(chat=False), 512)


def made(arm, codec, *, item=ITEM, pool=POOL, rep=0, seed=0):
    return render(item, arm, name="arm", pool=pool, renderer=codec, rep=rep, seed=seed)


def segments(prompt):
    return [(name, prompt.text[start:end]) for name, start, end in prompt.segments]


def token_segments(codec, prompt):
    encoded = codec.encode(prompt)
    return [(n, codec.tokenizer.decode(encoded.ids[a:b])) for n, a, b in encoded.segments]


# ------------------------------------------------------------------------------------------ direct
def test_direct_without_a_chat_template(base):
    prompt = made(DirectArm(kind="direct", system="Be brief.", instruction="Add."), base)
    assert prompt.text == "Be brief.\n\nAdd.\nWhat is 3 plus 4?\nAnswer:"
    assert prompt.answer == " 7"
    assert segments(prompt) == [
        ("system", "Be brief."),
        ("instruction", "Add."),
        ("question", "What is 3 plus 4?"),
        ("cue", "Answer:"),
    ]
    assert not prompt.chat


def test_direct_with_the_tokenizers_own_template(chat):
    prompt = made(DirectArm(kind="direct", system="Be brief."), chat)
    head = chat.tokenizer.apply_chat_template(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 3 plus 4?"}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert prompt.text == head + "Answer:"
    assert prompt.chat
    assert segments(prompt) == [
        ("system", "Be brief."),
        ("question", "What is 3 plus 4?"),
        ("cue", "Answer:"),
    ]


def test_a_chat_can_be_declined_and_demanded(chat, base):
    arm = DirectArm(kind="direct", chat="never")
    assert made(arm, chat).text == made(arm, base).text == "What is 3 plus 4?\nAnswer:"
    with pytest.raises(PromptError, match="'arm' wants the chat template"):
        made(DirectArm(kind="direct", chat="always"), base)


@pytest.mark.parametrize(
    ("cue", "text", "answer"),
    [
        ("So: ", "What is 3 plus 4?\nSo:", " 7"),
        ("The answer is", "What is 3 plus 4?\nThe answer is", " 7"),
        ("<a>", "What is 3 plus 4?\n<a>", " 7"),
        ("(", "What is 3 plus 4?\n(", "7"),
        ("", "What is 3 plus 4?\n", "7"),
    ],
)
def test_the_cue_and_what_separates_it_from_the_answer(base, cue, text, answer):
    prompt = made(DirectArm(kind="direct", cue=cue), base)
    assert (prompt.text, prompt.answer) == (text, answer)


# ---------------------------------------------------------------------------------------- few-shot
def shots_of(prompt):
    return [t for n, t in segments(prompt) if n == "shots"]


def test_few_shot_without_a_chat_template(base):
    prompt = made(FewShotArm(kind="few_shot", shots=2), base)
    shown = shots_of(prompt)
    assert len(shown) == 2
    for text in shown:
        question, _, reply = text.partition("\n")
        shot = next(s for s in SHOTS if s.question == question)
        assert reply == f"Answer: {shot.answer}"
    assert prompt.text == f"{shown[0]}\n\n{shown[1]}\n\nWhat is 3 plus 4?\nAnswer:"


def test_few_shot_as_turns_of_a_chat(chat):
    prompt = made(FewShotArm(kind="few_shot", shots=2, with_solution=True), chat)
    shown = shots_of(prompt)
    messages = []
    for question, reply in zip(shown[::2], shown[1::2], strict=True):
        shot = next(s for s in SHOTS if s.question == question)
        assert reply == f"{shot.solution}\nAnswer: {shot.answer}"
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    messages.append({"role": "user", "content": ITEM.question})
    head = chat.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt.text == head + "Answer:"


def test_how_shots_are_drawn(base):
    def drawn(draw, item=ITEM, rep=0, seed=0):
        return tuple(
            shots_of(made(FewShotArm(kind="few_shot", draw=draw), base, item=item, rep=rep, seed=seed))
        )

    assert len({drawn("fixed", i, r) for i in (ITEM, OTHER) for r in range(9)}) == 1
    assert len({drawn("fixed", seed=s) for s in range(9)}) > 5
    per_rep = [{drawn("per_rep", i, r) for i in (ITEM, OTHER)} for r in range(9)]
    assert all(len(d) == 1 for d in per_rep)
    assert len(set.union(*per_rep)) > 5
    assert len({drawn("per_item", i, r) for i in (ITEM, OTHER) for r in range(9)}) > 12
    assert drawn("per_item", rep=3) == drawn("per_item", rep=3)


def test_every_example_is_drawn_alike(base):
    # Chi-squared over the first shot of 600 draws among 6 examples: 99.9 % point with 5 df is 20.5.
    counts = dict.fromkeys((s.question for s in SHOTS), 0)
    for seed in range(600):
        first = shots_of(made(FewShotArm(kind="few_shot", shots=2), base, seed=seed))[0]
        counts[first.partition("\n")[0]] += 1
    assert sum((c - 100) ** 2 / 100 for c in counts.values()) < 20.5


def test_too_few_examples(base):
    with pytest.raises(PromptError, match="draws 7 worked examples, and 'sum' has 6 outside the study"):
        made(FewShotArm(kind="few_shot", shots=7), base)


# --------------------------------------------------------------------------------- chain of thought
def cot(reasoning, **options):
    return ChainOfThoughtArm(kind="chain_of_thought", reasoning=reasoning, **options)


def test_the_chain_of_thought_arms(base):
    direct = made(DirectArm(kind="direct"), base)
    asked = made(cot("asked_only", ask="Think."), base)
    assert asked.text == "What is 3 plus 4?\nThink.\nAnswer:"
    assert ("instruction", "Think.") in segments(asked)
    worked = made(cot("worked"), base)
    assert worked.text == "What is 3 plus 4?\n3 and 4 so 3 plus 4 is 7\nAnswer:"
    assert ("reasoning", "3 and 4 so 3 plus 4 is 7") in segments(worked)
    cut = made(cot("cut"), base)
    assert cut.text == "What is 3 plus 4?\n3 and 4 so 3 plus 4 is\nAnswer:"
    other = made(cot("other"), base)
    assert other.text == "What is 3 plus 4?\n1 and 1 is 2\nAnswer:"
    for prompt in (asked, worked, cut, other):
        # Paired outcomes need the same cue and the same answer in every arm.
        assert prompt.answer == direct.answer
        assert segments(prompt)[-1] == segments(direct)[-1] == ("cue", "Answer:")
        assert prompt.text.endswith("\nAnswer:")


@pytest.mark.parametrize("kind", ["worked", "cut", "other"])
def test_inserted_reasoning_follows_the_whole_direct_prompt(chat, kind):
    direct, prompt = made(DirectArm(kind="direct"), chat), made(cot(kind), chat)
    head = direct.text.removesuffix("Answer:")
    assert prompt.text.startswith(head)
    assert prompt.text.endswith("\nAnswer:")


def test_a_generated_chain_takes_its_place(chat, base):
    for codec in (chat, base):
        prompt = made(cot("generated", ask="Think."), codec)
        assert prompt.reasoning_first == prompt.text[: prompt.text.index("\ue0ff")]
        assert "Think." in prompt.reasoning_first
        whole = prompt.with_chain("  first one,\nthen two \n")
        assert whole.text == f"{prompt.reasoning_first}first one,\nthen two\nAnswer:"
        assert segments(whole)[-2:] == [("reasoning", "first one,\nthen two"), ("cue", "Answer:")]
        assert segments(whole)[0] == segments(prompt)[0]
        assert whole.reasoning_first is None


def test_what_a_chain_of_thought_arm_lacks(base):
    bare = replace(ITEM, solution=None)
    with pytest.raises(PromptError, match="item 'a' has none"):
        made(cot("worked"), base, item=bare)
    with pytest.raises(PromptError, match="no other item of 'sum' has one"):
        made(cot("other"), base, pool=ItemPool(items=(ITEM,), shots={}))
    # The other solution must not state this item's answer.
    telling = replace(OTHER, solution="it may be 7 or 2")
    with pytest.raises(PromptError, match="no other item of 'sum' has one"):
        made(cot("other"), base, pool=ItemPool(items=(ITEM, telling), shots={}))


@pytest.mark.parametrize(
    ("solution", "answer", "cut"),
    [
        ("2+5=7 and 7*2=14", "7", "2+5="),
        ("17 - 10 = 7", "7", "17 - 10 ="),
        ("it costs $7.", "7", "it costs $"),
        ("it costs 7.50, so 7", "7", "it costs 7.50, so"),
        ("1,203 pens", "1203", ""),
        ("about 1203.5, then 1203", "1203", "about 1203.5, then"),
        ("the category is cat", "cat", "the category is"),
        ("no answer here", "9", "no answer here"),
        ("x is -7, or -3 - 4 = -7", "-7", "x is"),
        ("a is 0.7, b is 7", "7", "a is 0.7, b is"),
    ],
)
def test_cutting_before_the_answer(solution, answer, cut):
    assert cut_before_answer(solution, answer) == cut


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 120), min_size=1, max_size=8), st.integers(0, 120))
def test_a_cut_solution_never_states_the_answer(numbers, answer):
    text = " then ".join(f"{a} + {b} = {a + b}" for a, b in zip(numbers, [*numbers[1:], 1], strict=True))
    cut = cut_before_answer(text, str(answer))
    assert str(answer) not in cut.replace("+", " ").replace("=", " ").split()
    assert text.startswith(cut)


# ----------------------------------------------------------------------------------------- formats
@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("plain", "What is 3 plus 4?\nAnswer:", " 7"),
        ("role", "User: What is 3 plus 4?\nAssistant:", " 7"),
        ("question_answer", "Question: What is 3 plus 4?\nAnswer:", " 7"),
        ("json", '{"question": "What is 3 plus 4?"}\n{"answer":', " 7"),
    ],
)
def test_formats(base, name, text, answer):
    prompt = made(FormatArm(kind="format", format=name), base)
    assert (prompt.text, prompt.answer) == (text, answer)


@pytest.mark.parametrize(
    ("answer", "written"),
    [("Lima", ' "Lima"'), ('a "b"', ' "a \\"b\\""'), ("-3.5", " -3.5"), ("007", ' "007"')],
)
def test_answers_in_json_are_json(base, answer, written):
    item = replace(ITEM, question='Say "x"\nnow', answer=answer)
    prompt = made(FormatArm(kind="format", format="json"), base, item=item)
    assert prompt.answer == written
    import json

    question, _, reply = (prompt.text + prompt.answer + "}").partition("\n")
    assert json.loads(question) == {"question": 'Say "x"\nnow'}
    assert str(json.loads(reply)["answer"]) == answer


# --------------------------------------------------------------------------------------- templates
def template(text, **options):
    return TemplateArm(kind="template", template=text, **options)


def test_a_template_of_the_users_own(base):
    arm = template(
        "{{ task_type }}/{{ tone }}/{{ difficulty }}/{{ item_id }}/{{ choices | join('|') }}\n"
        "{% for s in shots %}{{ s.question }}={{ s.answer }};{{ s.solution }}\n{% endfor %}{{ question }}",
        shots=2,
    )
    check_templates({"arm": arm}, POOL.items)
    prompt = made(arm, base)
    lines = prompt.text.splitlines()
    assert lines[0] == "sum/dry/2.0/a/7|8"
    assert {line.partition("=")[0] for line in lines[1:3]} <= {s.question for s in SHOTS}
    assert lines[3:] == ["What is 3 plus 4?", "Answer:"]
    # The same shots as an arm of kind few_shot with as many.
    fixed = shots_of(made(FewShotArm(kind="few_shot", shots=2), base))
    assert [s.partition("\n")[0] for s in fixed] == [line.partition("=")[0] for line in lines[1:3]]


def test_unknown_variables_and_bad_syntax_are_refused_before_anything_runs():
    with pytest.raises(PromptError, match=r"arm 'mine': the template uses 'qestion'") as caught:
        check_templates({"mine": template("{{ qestion }}")}, POOL.items)
    assert "question" in caught.value.hint
    assert "tone" in caught.value.hint
    with pytest.raises(PromptError, match="malformed at line 2"):
        check_templates({"mine": template("a\n{% if %}")}, POOL.items)


@pytest.mark.parametrize(
    "attack",
    [
        "{{ question.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ '%s' | format(question.__class__) }}{{ question.format.__globals__ }}",
        "{% for i in range(10**9) %}x{% endfor %}",
    ],
)
def test_templates_run_in_a_sandbox(base, attack):
    with pytest.raises(PromptError, match="the template fails on item 'a'"):
        made(template(attack), base)


@pytest.mark.parametrize("text", ["{{ 1 / 0 }}", "{{ difficulty + 'x' }}", "{{ choices[9].x }}"])
def test_templates_that_fail_name_the_item(base, text):
    with pytest.raises(PromptError, match="the template fails on item 'a'"):
        made(template(text), base)


def test_a_template_that_gives_nothing(base):
    with pytest.raises(PromptError, match="gives an empty text for item 'a'"):
        made(template("{% if tone == 'warm' %}x{% endif %}"), base)


EVERYTHING = (
    "{% set ns = namespace(n=0) %}{% set c = cycler('a', 'b') %}{% set j = joiner(',') %}"
    "{% for s in shots recursive %}{{ j() }}{{ loop.index }}/{{ loop.length }}{% if loop.last %}!{% endif %}"
    "{{ c.next() }}{{ s.answer }}{% set ns.n = ns.n + 1 %}{% else %}none{% endfor %}"
    "{% for a, b in dict(x=1, y=2).items() %}{{ a }}{{ b * 3 }}{{ 2 ** b }}{% endfor %}"
    "{{ ns.n }}{{ choices | map('int') | sum }}{{ question | wordcount }}{{ question | center(40) }}"
    "{{ shots | map(attribute='question') | unique | join('; ') }}{{ 'ab' * 3 }}"
    "{{ shots | groupby('answer') | length }}"
)


def test_a_template_gives_the_same_text_in_every_process(base):
    """Loops, sums and filters do what jinja2 does; what would differ from run to run is not there."""
    arm = template(EVERYTHING, shots=2)
    here = made(arm, base).text
    shots = [{"question": s.question, "answer": s.answer, "solution": s.solution} for s in _drawn(base)]
    plain = jinja2.Environment(autoescape=False).from_string(EVERYTHING)  # noqa: S701 - an oracle
    assert (
        here
        == plain.render(question=ITEM.question, choices=list(ITEM.choices), shots=shots).strip() + "\nAnswer:"
    )
    code = (
        "import sys; from whyprompt.trials.templates import compiled, filled;"
        "print(filled(compiled(sys.argv[1]), eval(sys.argv[2])))"
    )
    variables = {"question": ITEM.question, "choices": ["7", "8"], "shots": shots}
    texts = {
        subprocess.run(
            [sys.executable, "-c", code, EVERYTHING, repr(variables)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert texts == {here.removesuffix("\nAnswer:")}


def _drawn(codec):
    """The shots of an arm with two, as items."""
    text = made(FewShotArm(kind="few_shot", shots=2), codec).text
    return sorted((s for s in SHOTS if s.question in text), key=lambda s: text.index(s.question))


@pytest.mark.parametrize("text", ["{{ question | random }}", "{{ question | list | random }}"])
def test_chance_is_not_among_the_filters(text):
    with pytest.raises(PromptError, match="No filter named 'random'"):
        check_templates({"mine": template(text)}, POOL.items)


def test_an_address_in_the_items_own_text_is_text(base):
    item = replace(ITEM, question="What does <object at 0x7f00aa> say?")
    assert "<object at 0x7f00aa>" in made(template("{{ question }}"), base, item=item).text
    with pytest.raises(PromptError, match="differs from run to run"):
        made(template("{{ question.upper }}"), base)


@pytest.mark.parametrize(
    "arm",
    [
        DirectArm(kind="direct"),
        DirectArm(kind="direct", system="Be terse.", instruction="Answer.", cue=""),
        DirectArm(kind="direct", system=" ", instruction=" "),
        FewShotArm(kind="few_shot", shots=2),
        FormatArm(kind="format", format="json"),
        template("{{ question }}", shots=2),
        template("{{ question }}", instruction="Answer."),
        *(
            ChainOfThoughtArm(kind="chain_of_thought", reasoning=r, ask=ask)
            for r in ("asked_only", "worked", "cut", "other", "generated")
            for ask in ("Think.", " ")
        ),
    ],
    ids=repr,
)
def test_the_segments_said_beforehand_are_those_of_the_prompt(arm, base, chat):
    for codec in (base, chat):
        # A stretch without a character has no tokens: no head looks there.
        there = {name for name, start, end in made(arm, codec).segments if end > start}
        assert there == set(segments_of(arm))


def test_a_covariate_named_like_a_variable_does_not_replace_it(base):
    item = replace(ITEM, covariates={"shots": "none", "item_id": "zzz"})
    assert made(template("{{ item_id }} {{ shots | length }}"), base, item=item).text.startswith("a 0")


# ------------------------------------------------------------------------- segments and boundaries
ARMS = [
    DirectArm(kind="direct", system="Be brief.", instruction="Add."),
    FewShotArm(kind="few_shot", shots=3, with_solution=True),
    cot("asked_only"),
    cot("worked"),
    cot("cut"),
    cot("other"),
    FormatArm(kind="format", format="json"),
    template("Think: {{ question }}"),
]


@pytest.mark.parametrize("arm", ARMS, ids=lambda a: getattr(a, "reasoning", a.kind))
@pytest.mark.parametrize("which", ["chat", "base"])
def test_segments_are_exact_in_tokens(arm, which, request):
    codec = request.getfixturevalue(which)
    prompt = made(arm, codec)
    encoded = codec.encode(prompt)
    text = codec.tokenizer.decode(encoded.ids + encoded.answer_ids)
    assert text == prompt.text + prompt.answer
    assert codec.tokenizer.decode(encoded.answer_ids) == prompt.answer
    spans = [(a, b) for _, a, b in encoded.segments]
    assert all(a < b for a, b in spans)
    assert all(b <= c for (_, b), (c, _) in itertools.pairwise(spans))
    assert [n for n, _ in token_segments(codec, prompt)] == [n for n, _ in segments(prompt)]
    for (name, tokens), (_, chars) in zip(token_segments(codec, prompt), segments(prompt), strict=True):
        # A token may bring the space before its segment along, nothing else.
        assert tokens.strip() == chars.strip(), name
    assert encoded.segments[-1][2] == len(encoded.ids)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(blacklist_categories=("Cs", "Co", "Cc")), min_size=1, max_size=30))
def test_any_question_keeps_its_segment(chat, question):
    prompt = made(DirectArm(kind="direct"), chat, item=replace(ITEM, question=question))
    assert segments(prompt) == [("question", question), ("cue", "Answer:")]


def test_private_use_characters_are_refused(base):
    with pytest.raises(PromptError, match="private-use characters"):
        made(DirectArm(kind="direct"), base, item=replace(ITEM, question="a\ue001b"))


def test_a_chat_template_that_drops_a_message_is_refused(tokenizer_maker):
    tokenizer = tokenizer_maker()
    tokenizer.chat_template = "{{ messages[-1]['content'] }}\n"
    with pytest.raises(PromptError, match="drops or repeats parts"):
        made(DirectArm(kind="direct", system="Be brief."), PromptCodec(tokenizer, 512))


def test_an_answer_that_merges_with_the_cue_is_refused(base):
    assert len(base.tokenizer(" therefore").input_ids) == 1
    item = replace(ITEM, answer="fore")
    prompt = replace(
        made(DirectArm(kind="direct"), base, item=item), text="so there", answer="fore", segments=()
    )
    with pytest.raises(PromptError, match=r"arm 'd', item 'a': the answer 'fore' merges .* into one token"):
        base.encode(prompt, where="arm 'd', item 'a'")


def test_empty_answers_and_prompts_longer_than_the_context(base):
    prompt = made(DirectArm(kind="direct"), base)
    with pytest.raises(PromptError, match="the answer is empty"):
        base.encode(prompt, answer="  ")
    length = len(base.encode(prompt).ids) + len(base.encode(prompt).answer_ids)
    exact = PromptCodec(base.tokenizer, length)
    assert exact.encode(prompt).ids == base.encode(prompt).ids
    with pytest.raises(PromptError, match=f"have {length} tokens, and the model's context is {length - 1}"):
        PromptCodec(base.tokenizer, length - 1).encode(prompt)
    with pytest.raises(PromptError, match=f"{length} tokens, and 5 more may be written"):
        exact.encode(prompt, room=5)


def test_the_beginning_a_tokenizer_sets_itself(tokenizer_maker):
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizer_maker(chat=False)
    end = tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", end)]
    )
    codec = PromptCodec(tokenizer, 512)
    prompt = made(DirectArm(kind="direct"), codec)
    encoded = codec.encode(prompt)
    assert list(encoded.ids + encoded.answer_ids) == tokenizer(prompt.text + prompt.answer).input_ids
    assert encoded.ids[0] == end
    assert [n for n, _ in token_segments(codec, prompt)] == ["question", "cue"]
    assert token_segments(codec, prompt)[0][1] == ITEM.question
    # In a chat the template has set them already.
    assert codec.encode(replace(prompt, chat=True)).ids == encoded.ids[1:]
    assert codec.tokens("so", special=True) == tuple(tokenizer("so").input_ids)


def test_the_context_is_the_models(tmp_path, model_maker):
    folder = model_maker(tmp_path / "m", context=77)
    assert load_codec(str(folder)).context == 77


def test_trial_seeds_differ_by_every_part():
    seeds = {trial_seed(s, i, a, r) for s in range(3) for i in "abc" for a in ("d", "e") for r in range(3)}
    assert len(seeds) == 54
    assert all(0 <= s < 2**63 for s in seeds)


@pytest.mark.model
def test_the_embedded_models_chat_template_and_segments():
    codec = load_codec("embedded")
    for arm in ARMS:
        prompt = made(arm, codec)
        encoded = codec.encode(prompt)
        assert codec.tokenizer.decode(encoded.ids + encoded.answer_ids) == prompt.text + prompt.answer
        for (name, tokens), (_, chars) in zip(token_segments(codec, prompt), segments(prompt), strict=True):
            assert tokens.strip() == chars.strip(), name
