import numpy as np
import pytest
import torch
import transformers

from whyprompt import load_model
from whyprompt.errors import ModelError, WhypromptError
from whyprompt.trials.models import generation, rows
from whyprompt.trials.models.generation import complete, completions
from whyprompt.trials.models.local import Encoded, LocalModel, PromptCodec
from whyprompt.trials.models.scoring import (
    RootCache,
    cache_argument,
    plan_scoring,
    probe_packing,
    score,
    score_pack,
)

SMALL = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TINY = {
    "llama": lambda: transformers.LlamaConfig(**SMALL),
    "qwen2": lambda: transformers.Qwen2Config(**SMALL),
    "mistral": lambda: transformers.MistralConfig(**SMALL, sliding_window=None),
    "mistral_window": lambda: transformers.MistralConfig(**SMALL, sliding_window=6),
    "gemma2": lambda: transformers.Gemma2Config(**SMALL, head_dim=4, sliding_window=6),
    "granite": lambda: transformers.GraniteConfig(**SMALL, logits_scaling=3.0),
    "cohere": lambda: transformers.CohereConfig(**SMALL, logit_scale=0.3),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=4, n_positions=128),
    "gpt_neo": lambda: transformers.GPTNeoConfig(
        vocab_size=64,
        hidden_size=16,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=4,
        max_position_embeddings=128,
    ),
    "bloom": lambda: transformers.BloomConfig(vocab_size=64, hidden_size=16, n_layer=2, n_head=4),
    "mamba": lambda: transformers.MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2),
}
# These compute a packed trie exactly; the others must be noticed and scored another way.
PACKS = {"llama", "qwen2", "mistral", "granite", "cohere", "gpt2"}


class NoTokenizer:
    all_special_ids = (2,)

    def decode(self, ids):
        return " ".join(map(str, ids))


def tiny(name, dtype=torch.float64):
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(TINY[name]()).eval().to(dtype)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    return LocalModel(
        model=model,
        codec=PromptCodec(NoTokenizer(), 128),
        name=name,
        sha256="",
        device=torch.device("cpu"),
        dtype=dtype,
        packs=True,
    )


def requests(seed=0, n=14):
    rng = np.random.default_rng(seed)
    root = rng.integers(3, 64, 12).tolist()
    made = []
    for i in range(n):
        middle = rng.integers(3, 64, rng.integers(1, 6)).tolist() if i % 3 else [7, 8, 9]
        answer = rng.integers(3, 64, rng.integers(1, 4)).tolist()
        made.append(Encoded((*root, *middle), tuple(answer), look_ahead=bool(i % 2)))
    return made


def whole(request):
    return request.ids + request.answer_ids


def plain(model, request):
    ids = whole(request)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
        log_probs = torch.log_softmax(logits.double(), -1)
    scored = range(len(request.ids), len(ids))
    values = [log_probs[p - 1, ids[p]].item() for p in scored]
    greedy = all(logits[p - 1].argmax() == ids[p] for p in scored)
    return values, greedy, int(logits[-1].argmax())


def test_a_model_behind_virtual_tokens_is_refused():
    """A prompt that was tuned stands before the tokens, and its rows of logits are not theirs."""
    lm = tiny("llama")
    own = type(lm.model).forward

    def behind(self, input_ids=None, **rest):
        embedded = self.get_input_embeddings()(input_ids)
        return own(self, inputs_embeds=torch.cat([embedded[:, :3], embedded], 1), **rest)

    lm.model.forward = behind.__get__(lm.model)
    with pytest.raises(
        WhypromptError, match=r"'llama' gives 19 rows of logits for 16 tokens: .* virtual tokens"
    ):
        probe_packing(lm)


@pytest.mark.parametrize("name", TINY)
def test_scores_equal_plain_runs_on_every_kind_of_model(name):
    lm = tiny(name)
    lm, why = probe_packing(lm)
    assert lm.packs == (name in PACKS), why
    asked = requests()
    for request, found in zip(asked, score(lm, asked), strict=True):
        values, greedy, after = plain(lm.model, request)
        # score() computes the final log-probabilities in float32.
        np.testing.assert_allclose(found.log_probs, values, atol=2e-5)
        assert found.greedy == greedy
        assert found.next_token == (after if request.look_ahead else None)


def test_scores_do_not_depend_on_order_or_company(tiny_model):
    lm = load_model(str(tiny_model), threads=1)
    asked = requests(3)
    together = [s.total for s in score(lm, asked)]
    backwards = [s.total for s in score(lm, asked[::-1])][::-1]
    alone = [score(lm, [r])[0].total for r in asked]
    np.testing.assert_allclose(together, backwards, atol=1e-5)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_plan_computes_less_than_the_prompts_hold(tiny_model):
    lm = load_model(str(tiny_model), threads=1)
    asked = requests(n=40)
    computed = sum(len(p.tokens) for p in plan_scoring(lm, asked))
    assert computed < 0.5 * sum(len(r.fed) for r in asked)


def test_log_probabilities_that_are_not_finite_are_refused(tiny_model):
    lm = load_model(str(tiny_model), threads=1)
    lm.model.get_output_embeddings().weight.data[5] = float("nan")
    with pytest.raises(WhypromptError, match="not finite"):
        score(lm, requests())


# Ends of a text that random models come to now and then.
STOPS = tuple(range(2, 9))


def by_transformers(model, ids, most):
    """Give the tokens that `generate` writes greedily after one prompt, alone."""
    with torch.inference_mode():
        out = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=most,
            do_sample=False,
            eos_token_id=list(STOPS),
            pad_token_id=0,
        )
    return [t for t in out[0, len(ids) :].tolist() if t not in STOPS]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TINY)
def test_greedy_completions_equal_generate_on_every_kind_of_model(name, dtype, monkeypatch):
    monkeypatch.setattr(NoTokenizer, "all_special_ids", STOPS)
    lm, _ = probe_packing(tiny(name, dtype))
    # More prompts than rows, of every length, one of them without the others' root: rows come and go.
    prompts = [whole(r) for r in requests(5, 11)]
    prompts += [prompts[0][:3], prompts[1] * 3, prompts[2]]
    monkeypatch.setattr(generation, "_SIDE_BY_SIDE", {"cpu": 4})
    found = complete(lm, prompts, max_new_tokens=23)
    for ids, made in zip(prompts, found, strict=True):
        new = by_transformers(lm.model, list(ids), 23)
        assert made.text == " ".join(map(str, new))
        assert made.tokens == len(new)
        assert made.finish == ("length" if len(new) == 23 else "stop")


def test_the_models_that_write_side_by_side_are_those_that_do_so_exactly():
    exact = {name for name in TINY if (lm := probe_packing(tiny(name))[0]).packs and generation._tried(lm)}
    assert exact == PACKS


def test_a_model_that_is_not_exact_in_rows_writes_one_by_one(monkeypatch):
    lm, _ = probe_packing(tiny("llama"))
    prompts = [whole(r) for r in requests(1, 6)]
    expected = complete(lm, prompts, max_new_tokens=9)
    own = rows.Rows.step

    def wrong(self, lengths, lm):
        positions, mask = own(self, lengths, lm)
        return positions + 1, mask

    monkeypatch.setattr(rows.Rows, "step", wrong)
    generation._exact.clear()
    assert complete(lm, prompts, max_new_tokens=9) == expected
    assert list(generation._exact.values()) == [False]
    generation._exact.clear()


def test_what_is_written_is_handed_on_when_it_is_finished(monkeypatch):
    monkeypatch.setattr(NoTokenizer, "all_special_ids", STOPS)
    lm, _ = probe_packing(tiny("llama"))
    prompts = [whole(r) for r in requests(5, 9)]
    monkeypatch.setattr(generation, "_SIDE_BY_SIDE", {"cpu": 4})
    calls = []
    hook = lm.model.register_forward_pre_hook(lambda *_: calls.append(1))
    seen = [(n, len(calls)) for n, _ in completions(lm, prompts, max_new_tokens=12)]
    hook.remove()
    assert sorted(n for n, _ in seen) == list(range(9))
    assert seen[0][1] < seen[-1][1] - 5, "the first is there long before the last"
    # A reader that stops early leaves the model as it was.
    before = [m.__dict__.get("forward") for m in lm.model.modules()]
    writing = completions(lm, prompts, max_new_tokens=12)
    next(writing)
    assert not torch.is_inference_mode_enabled()
    assert [m.__dict__.get("forward") for m in lm.model.modules()] == before
    writing.close()


def test_rows_that_are_done_leave_and_others_enter(monkeypatch):
    monkeypatch.setattr(NoTokenizer, "all_special_ids", STOPS)
    lm, _ = probe_packing(tiny("llama", torch.float32))
    prompts = [whole(r) for r in requests(5, 24)]
    monkeypatch.setattr(generation, "_SIDE_BY_SIDE", {"cpu": 8})
    generation._in_rows_is_exact(lm)
    widths = []
    hook = lm.model.get_input_embeddings().register_forward_pre_hook(
        lambda _, x: widths.append(tuple(x[0].shape))
    )
    found = complete(lm, prompts, max_new_tokens=20)
    hook.remove()
    steps = [rows for rows, width in widths if width == 1]
    assert max(steps) == 8
    assert min(steps) == 4  # filled up: a product of fewer rows rounds otherwise
    # The first token of each comes of its prompt; a row that is done computes nothing more.
    needed = sum(max(0, f.tokens - 1 + (f.finish == "stop")) for f in found)
    assert sum(steps) <= needed + 4 * 20
    # What all share is read once.
    assert sum(width > 8 for _, width in widths) <= 1 + sum(len(p) > 20 for p in prompts)


def test_completions_do_not_depend_on_order_or_company(tiny_model, monkeypatch):
    lm = load_model(str(tiny_model), threads=1)
    seen = {}

    def noted(lm, text, best, logits, *rest):
        seen[text.number, len(text.written)] = logits.clone()
        return own(lm, text, best, logits, *rest)

    own = generation._take
    monkeypatch.setattr(generation, "_take", noted)
    prompts = [whole(r) for r in requests(3, 20)]
    root = prompts[0][:12]
    heats, seeds = [0.0, 1.1] * 10, list(range(20))
    together = complete(lm, prompts, max_new_tokens=15, temperatures=heats, seeds=seeds, root=root)
    first = dict(seen)
    for subset in ([3, 17, 4], [11], list(range(19, -1, -1)), list(range(1, 20, 2))):
        seen.clear()
        found = complete(
            lm,
            [prompts[n] for n in subset],
            max_new_tokens=15,
            temperatures=[heats[n] for n in subset],
            seeds=[seeds[n] for n in subset],
            root=root,
        )
        assert found == [together[n] for n in subset]
        for (place, at), logits in seen.items():
            torch.testing.assert_close(logits, first[subset[place], at], rtol=0, atol=1e-5)


def test_a_sampled_completion_does_not_depend_on_its_neighbours():
    lm = tiny("llama")
    prompts = [whole(r) for r in requests(2, 5)]

    def drawn(prompts, seeds):
        heats = [1.3] * len(prompts)
        return complete(lm, prompts, temperatures=heats, seeds=seeds, max_new_tokens=6)

    together = drawn(prompts, range(11, 16))
    assert together == [drawn([p], [11 + i])[0] for i, p in enumerate(prompts)]
    assert drawn(prompts, range(111, 116)) != together


def test_sampling_follows_the_models_probabilities():
    lm = tiny("llama")
    ids = whole(requests()[0])
    drawn = complete(lm, [ids] * 600, temperatures=[0.7] * 600, seeds=range(600), max_new_tokens=1)
    with torch.inference_mode():
        p = torch.softmax(lm.model(torch.tensor([ids])).logits[0, -1] / 0.7, -1)
    top = int(p.argmax())
    share = np.mean([text == str(top) for text, *_ in drawn])
    assert abs(share - p[top].item()) < 4 * np.sqrt(p[top].item() / 600)


def test_stop_strings_cut_the_completion():
    lm = tiny("llama")
    ids = whole(requests()[0])
    (written, *_), *_ = complete(lm, [ids], max_new_tokens=6)
    second = written.split()[1]
    (cut, _, finish), *_ = complete(lm, [ids], max_new_tokens=6, stop=[f" {second}"])
    assert cut == written.split()[0]
    assert finish == "stop"


def test_model_names_that_lead_nowhere(tmp_path):
    with pytest.raises(ModelError, match="no such model folder"):
        load_model(str(tmp_path / "absent"))
    with pytest.raises(ModelError, match=r"not a model folder: it has no config\.json"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no weights"):
        load_model(str(tmp_path))


def test_an_unusable_device_is_named(tiny_model):
    with pytest.raises(ModelError, match=r"model\.device is 'abacus'"):
        load_model(str(tiny_model), device="abacus")


def test_the_fingerprint_knows_files_and_dtype(tiny_model):
    a = load_model(str(tiny_model), threads=1)
    b = load_model(str(tiny_model), threads=1, dtype="float64")
    assert a.fingerprint == load_model(str(tiny_model), threads=1).fingerprint
    assert a.fingerprint != b.fingerprint


@pytest.mark.model
def test_the_embedded_model_loads_packs_and_answers():
    lm = load_model()
    assert lm.packs
    assert [note.split()[0] for note in lm.notes] == ["dtype", "products", "packed"]
    assert sum(p.numel() for p in lm.model.parameters()) == 134_515_008
    text = (
        lm.codec.chat([{"role": "user", "content": "What is the capital of France?"}])
        + "The capital of France is"
    )
    found = complete(lm, [lm.codec.tokens(text)], max_new_tokens=3)
    assert "Paris" in found[0].text
    prompts = [
        lm.codec.tokens(lm.codec.chat([{"role": "user", "content": f"What is {a} plus {b}?"}]))
        for a, b in ((7, 5), (12, 30), (100, 1), (3, 3), (8, 90))
    ]
    special = sorted(lm.codec.stop_ids)
    for ids, made in zip(prompts, complete(lm, prompts, max_new_tokens=24), strict=True):
        with torch.inference_mode():
            out = lm.model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=24,
                do_sample=False,
                eos_token_id=special,
            )
        new = [t for t in out[0, len(ids) :].tolist() if t not in special]
        assert made.text == lm.codec.tokenizer.decode(new)
        assert made.tokens == len(new)


def test_a_root_is_computed_once_and_its_keys_and_values_reused(tiny_model):
    lm = load_model(str(tiny_model), threads=1)
    rng = np.random.default_rng(0)
    root = rng.integers(3, 64, 40).tolist()
    tails = [rng.integers(3, 64, 30).tolist() for _ in range(30)]
    asked = [Encoded((*root, *t[:26]), tuple(t[26:])) for t in tails]
    packs = plan_scoring(lm, asked, budget=100)
    assert len(packs) == 10
    assert {p.root for p in packs} == {tuple(root)}
    read = []
    hook = lm.model.get_input_embeddings().register_forward_pre_hook(lambda _, x: read.append(x[0].numel()))
    cache = RootCache()
    found = {i: s.total for p in packs for i, s in score_pack(lm, asked, p, cache)}
    hook.remove()
    # The root once, then each pack's own tokens; the last token of a sequence is scored, not read.
    assert read == [40, *(len(p.tokens) for p in packs)]
    assert sum(read) <= 40 + 30 * 29
    for i, request in enumerate(asked):
        assert found[i] == pytest.approx(sum(plain(lm.model, request)[0]), abs=1e-4)


def test_a_model_whose_forward_takes_past_key_values_by_its_older_name():
    class Older:
        def forward(self, input_ids, past_key_values=None):
            return input_ids, past_key_values

    class Newer:
        def forward(self, input_ids, cache=None):
            return input_ids, cache

    assert cache_argument(Older()) == "past_key_values"
    assert cache_argument(Newer()) == "cache"
