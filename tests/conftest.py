"""Fixtures for every test: a tiny model with a tokenizer of its own, and a study on it."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import settings

from whyprompt.effects.headline import headline
from whyprompt.effects.result import EffectResult
from whyprompt.errors import EstimationError
from whyprompt.results import Checks, Result

# The same examples in every run, whatever the machine's speed: a failure is then a change's own. New ones
# are looked for with HYPOTHESIS_PROFILE=search.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

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


SPECIALS = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def make_tokenizer(*, chat: bool = True):
    """Train a byte-level tokenizer on a few words; every digit is a token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{t}_token": SPECIALS[0] for t in ("eos", "pad")}
    )
    wrapped.add_special_tokens({"additional_special_tokens": SPECIALS[1:]})
    if chat:
        wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def make_tiny_model(
    folder: Path, *, context: int = 512, chat: bool = True, seed: int = 0, even: bool = False
) -> Path:
    """Save a random two-layer Llama with a byte-level tokenizer trained on a few words.

    An even one has widths that are multiples of 32, as large models have.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    wrapped = make_tokenizer(chat=chat)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=-(-len(wrapped) // 64) * 64 if even else len(wrapped),
        hidden_size=64 if even else 32,
        intermediate_size=128 if even else 48,
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


def make_tiny_gpt2(folder: Path, *, context: int = 512) -> Path:
    """Save a random two-layer GPT-2 without a chat template, as base models have none."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    wrapped = make_tokenizer(chat=False)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(wrapped),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=context,
        eos_token_id=wrapped.eos_token_id,
        bos_token_id=wrapped.eos_token_id,
        pad_token_id=wrapped.pad_token_id,
        initializer_range=0.3,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tokenizer_maker():
    return make_tokenizer


@pytest.fixture(scope="session")
def model_maker():
    return make_tiny_model


@pytest.fixture(scope="session")
def items_writer():
    return write_items


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gpt2(tmp_path_factory.mktemp("tiny_gpt2") / "model")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real GSM8K and Natural Instructions: $WHYPROMPT_SHARED, or shared/data beside the repository."""
    own = os.environ.get("WHYPROMPT_SHARED")
    folder = Path(own) if own else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "gsm8k").is_dir() or not (folder / "natural_instructions").is_dir():
        pytest.skip(f"no real data sets at {folder}: set WHYPROMPT_SHARED to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def shared_logs() -> Path:
    """Real logs of other tools: logs beside $WHYPROMPT_SHARED, or shared/logs beside the repository."""
    own = os.environ.get("WHYPROMPT_SHARED")
    folder = (Path(own).parent if own else Path(__file__).resolve().parents[2] / "shared") / "logs"
    if not folder.is_dir():
        pytest.skip(f"no real logs at {folder}")
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the command as a shell would: exit code, standard output, standard error."""

    from whyprompt.cli import main

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["whyprompt", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def shows_itself():
    """Hold a result to what every result shows: a line, a sentence with a table, a text, its intervals."""
    return check_shown


def check_shown(found):
    line = repr(found)
    assert "\n" not in line
    assert len(line) < 220, "a wall of fields"
    assert type(found).__name__ in line
    first = [headline(main)] if isinstance(main := getattr(found, "main", found), EffectResult) else []
    assert str(found) == "\n\n".join([*first, found.sentence])
    assert found.sentence in found.summary() or isinstance(found, Checks)
    shown = ET.fromstring(f"<div>{found._repr_html_()}</div>")  # noqa: S314 - our own
    told = "\n".join(["".join(p.itertext()) for p in shown.iter("p")][:1])
    assert told == str(found).replace("\n", ""), "the sentence comes first, after from what to what"
    rows = [[cell.text or "" for cell in row] for row in shown.iter("tr")]
    assert len(rows) <= 13
    assert len({len(row) for row in rows}) <= 1
    assert not {"nan", "None", "<NA>"} & {cell for row in rows for cell in row}
    # Readable on dark and on light paper: no colour of its own but the lines between rows.
    styles = " ".join(one.get("style", "") for one in shown.iter())
    assert not re.search(r"(?<![-\w])(color|background[-\w]*):", styles)
    if not isinstance(found, Result):
        return
    assert [row[0] for row in rows[1:]] or not found.parts
    bounded = [e for e in (found.overall, *found.parts) if e and not e.ci_low is e.ci_high is None]
    if bounded:
        table = found.conf_int()
        assert list(table.columns) == ["low", "high"]
        assert len(table) == len(found.parts) + (found.overall is not None)
        if found.overall is not None and found.ci_low is not None:
            assert table["low"].iloc[0] == found.ci_low
    else:
        with pytest.raises(EstimationError, match="no interval"):
            found.conf_int()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Keep the tests' hashes out of the user's cache; the converted default model is shared with it."""
    from whyprompt._cache import cache_dir

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
