"""The same code on CUDA. These run where a GPU is; what can be seen without one is at the end."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import whyprompt as wp
from whyprompt._lean import products
from whyprompt.answers.verbs import run_mediation
from whyprompt.errors import InputError, ModelError
from whyprompt.trials.models import load
from whyprompt.trials.models.load import load_again, load_model
from whyprompt.trials.models.local import Encoded
from whyprompt.trials.models.scoring import score

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices here")


@pytest.fixture
def requests():
    rng = np.random.default_rng(0)
    root = rng.integers(5, 200, 12).tolist()
    tails = [rng.integers(5, 200, n).tolist() for n in (4, 7, 5, 9, 6)]
    return [Encoded((*root, *t[:2]), tuple(t[2:]), look_ahead=n % 2 == 0) for n, t in enumerate(tails)]


def totals(lm, requests):
    return np.array([s.total for s in score(lm, requests)])


def in_bfloat16(folder, target):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(target)
    AutoTokenizer.from_pretrained(folder).save_pretrained(target)
    return str(target)


@gpu
def test_a_gpu_gives_what_a_processor_gives(tiny_model, requests):
    there, here = (load_model(str(tiny_model), device=d, dtype="float32") for d in ("cuda", "cpu"))
    assert there.device.type == "cuda"
    assert there.packs, there.notes
    assert there.device_name == torch.cuda.get_device_name()
    assert there.fingerprint != here.fingerprint
    np.testing.assert_allclose(totals(there, requests), totals(here, requests), atol=1e-3)


@gpu
def test_a_checkpoint_in_bfloat16_is_run_in_bfloat16_on_a_gpu(tiny_model, tmp_path, requests):
    folder = in_bfloat16(tiny_model, tmp_path / "half")
    lm = load_model(folder)
    assert lm.dtype is torch.bfloat16
    assert "the checkpoint's own, on a GPU" in lm.notes[0]
    exact = load_model(folder, dtype="float32")
    assert exact.dtype is torch.float32
    np.testing.assert_allclose(totals(lm, requests), totals(exact, requests), atol=0.3)


@gpu
def test_a_study_and_its_mediation_run_on_a_gpu(tiny_study, tmp_path):
    text = tiny_study.read_text(encoding="utf-8").replace("device: cpu", "device: cuda")
    tiny_study.write_text(text, encoding="utf-8")
    study = wp.load_study(tiny_study)
    found = wp.run_study(study, tmp_path / "out")
    assert found.new_trials == 24
    assert wp.verify_study(study, tmp_path / "out").verdict == "passes"
    assert np.isfinite(run_mediation(tiny_study, tmp_path / "out").main.sweep.te).all()
    held = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["model"]
    assert held["device_name"] == torch.cuda.get_device_name()


@gpu
@pytest.mark.slow
def test_a_worker_has_the_gpu_that_it_was_given(tiny_study, tmp_path):
    text = tiny_study.read_text(encoding="utf-8").replace("device: cpu", "device: auto")
    tiny_study.write_text(text, encoding="utf-8")
    study = wp.load_study(tiny_study)
    wp.run_study(study, tmp_path / "alone")
    with wp.workers("processes", count=1, gpus_per_worker=1):
        wp.run_study(study, tmp_path / "worker")
    a, b = (wp.load_trials(study, tmp_path / name) for name in ("alone", "worker"))
    assert (a["model_fingerprint"] == b["model_fingerprint"]).all() if "model_fingerprint" in a else True
    assert a["log_prob"].tolist() == b["log_prob"].tolist()


@two_gpus
def test_a_model_spread_over_two_gpus_gives_what_one_gives(tiny_model, requests):
    one = load_model(str(tiny_model), device="cuda:0", dtype="float32")
    spread = {"model.embed_tokens": 0, "model.rotary_emb": 0, "model.layers.0": 0}
    spread |= {"model.layers.1": 1, "model.norm": 1, "lm_head": 1}
    two = load_model(str(tiny_model), device_map=spread, dtype="float32")
    assert "spread over 0, 1" in two.notes[-1]
    np.testing.assert_allclose(totals(two, requests), totals(one, requests), atol=1e-4)


# -------------------------------------------------------------------------------------- without a GPU
def test_a_model_in_parts_scores_as_a_whole_one(tiny_model, requests):
    """One part lies on the disk and is brought in for each call, as another GPU's would be."""
    whole = load_model(str(tiny_model), device="cpu", threads=1)
    parts = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.layers.0": "cpu"}
    parts |= {"model.layers.1": "disk", "model.norm": "cpu", "lm_head": "cpu"}
    split = load_model(str(tiny_model), device_map=parts, threads=1)
    assert split.device.type == "cpu"
    assert "spread over cpu, disk" in split.notes[-1]
    np.testing.assert_allclose(totals(split, requests), totals(whole, requests), atol=1e-4)
    assert split.fingerprint == whole.fingerprint


@pytest.mark.parametrize(
    ("own", "device", "wanted"),
    [
        (torch.bfloat16, "cuda", torch.bfloat16),
        (torch.bfloat16, "cpu", torch.float32),
        (torch.float16, "cuda", torch.float32),
        (torch.float32, "cuda", torch.float32),
    ],
)
def test_auto_is_bfloat16_only_for_such_a_checkpoint_on_a_gpu(own, device, wanted):
    dtype, note = load._dtype("auto", SimpleNamespace(dtype=own), torch.device(device))
    assert dtype is wanted
    assert ("rounded to steps" in note) == (wanted is torch.bfloat16)


def test_what_is_spread_over_gpus_needs_some(tiny_model):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ModelError, match="spreads a model over GPUs, and none can be used here"):
        load_model(str(tiny_model), device_map="auto")
    with pytest.raises(ModelError, match="says where each part of the model is"):
        load_model(str(tiny_model), device="cpu", device_map="auto")
    with pytest.raises(InputError, match="this machine shows 0"), wp.workers("processes", gpus_per_worker=1):
        pass


def test_a_worker_takes_over_what_was_measured_and_refuses_other_files(
    tiny_model, model_maker, tmp_path, monkeypatch
):
    monkeypatch.setattr(products, "_decided", [])
    lm = load_model(str(tiny_model), device="cpu", threads=1)
    again = load_again(lm.described(), revision=None, device="cpu", device_map=None, threads=1)
    assert again.described() == lm.described()
    assert again.model is not None
    other = replace(lm.described(), name=str(model_maker(tmp_path / "m", seed=1)))
    with pytest.raises(ModelError, match="are others than the driver's"):
        load_again(other, revision=None, device="cpu", device_map=None, threads=1)
