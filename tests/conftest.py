"""Fixtures for every test: a tiny model with a tokenizer of its own, and a study on it."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

WORDS = (
    "What is how many letters does the word have count sum of and plus minus answer question user assistant "
    "system one two three four five six seven eight nine ten apple banana cherry so then step think therefore"
)
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def make_tiny_model(folder: Path, *, context: int = 512, chat: bool = True) -> Path:
    """Save a random two-layer Llama with a byte-level tokenizer trained on a few words."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    specials = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    wrapped.add_special_tokens({"additional_special_tokens": specials[1:]})
    if chat:
        wrapped.chat_template = CHAT_TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(wrapped),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        eos_token_id=wrapped.eos_token_id,
        bos_token_id=None,
        pad_token_id=wrapped.pad_token_id,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Keep the tests' hashes out of the user's cache; the converted default model is shared with it."""
    from whyprompt.trials.models.locate import cache_dir

    converted = cache_dir() / "models"
    converted.mkdir(parents=True, exist_ok=True)
    own = tmp_path_factory.mktemp("cache")
    (own / "models").symlink_to(converted, target_is_directory=True)
    before = os.environ.get("WHYPROMPT_CACHE")
    os.environ["WHYPROMPT_CACHE"] = str(own)
    yield
    if before is None:
        del os.environ["WHYPROMPT_CACHE"]
    else:
        os.environ["WHYPROMPT_CACHE"] = before


def write_items(path: Path, n: int = 30) -> Path:
    rows = [
        {
            "id": f"q{i}",
            "question": f"What is {i} plus {i % 7}?",
            "answer": str(i + i % 7),
            "kind": "sum" if i % 2 else "count",
            "level": 1 + i % 3,
            "why": f"{i} and {i % 7} so {i} plus {i % 7} is {i + i % 7}",
        }
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


@pytest.fixture
def tiny_study(tmp_path: Path, tiny_model: Path) -> Path:
    """A study file on the tiny model: twelve items, two arms."""
    write_items(tmp_path / "items.jsonl")
    path = tmp_path / "study.yaml"
    path.write_text(
        textwrap.dedent(
            f"""\
            name: tiny
            question: Do shots help?
            model: {{name: "{tiny_model}", device: cpu, threads: 1}}
            items:
              - source: file
                path: items.jsonl
                size: 12
                shot_pool: 8
                columns: {{item_id: id, task_type: kind, difficulty: level, solution: why}}
            arms:
              direct: {{kind: direct}}
              few_shot: {{kind: few_shot, shots: 2}}
            outcomes: [log_prob, exact_match]
            mediation: {{items_per_task: 4}}
            """
        ),
        encoding="utf-8",
    )
    return path
