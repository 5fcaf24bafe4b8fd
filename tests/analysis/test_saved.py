"""What a mediation keeps: damaged, written by two at once, on a place that may only be read."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest

from whyprompt import load_trials, run_study, study_mediation
from whyprompt.answers import load_mediation, run_effect, run_mediation
from whyprompt.answers import saved as _saved
from whyprompt.errors import StoreError
from whyprompt.study import Contrast, load_study

UNSHARE = shutil.which("unshare")
CLI = "from whyprompt.cli import main; main()"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model, items_writer):
    """A study that was run and mediated once: every test works on a copy of its results."""
    folder = tmp_path_factory.mktemp("finished")
    items_writer(folder / "items.jsonl")
    file = folder / "study.yaml"
    file.write_text(
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
            mediation: {{items_per_task: 2, max_heads: 2}}
            """
        ),
        encoding="utf-8",
    )
    study = load_study(file)
    run_study(study, folder / "out")
    run_mediation(file, folder / "out")
    return study, file, load_trials(study, folder / "out"), folder / "out"


@pytest.fixture
def results(finished, tmp_path):
    study, file, frame, whole = finished
    shutil.copytree(whole, tmp_path / "out")
    return study, file, frame, tmp_path / "out"


def npz(**arrays):
    made = io.BytesIO()
    np.savez_compressed(made, **arrays)
    return made.getvalue()


class Payload:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def edited(**changes):
    """Change keys of a JSON object; None takes a key away."""

    def change(content):
        made = {**json.loads(content), **changes}
        return json.dumps({k: v for k, v in made.items() if v is not None}).encode()

    return change


ANY = {
    "empty": b"",
    "zeros": b"\0" * 400,
    "noise": b"\xff\xfe\x00PK\x03\x04\x80" * 40,
    "text": b"this is no such file",
    "half": lambda content: content[: len(content) // 2],
    "its end is missing": lambda content: content[:-3],
    "null": b"null",
    "list": b"[1]",
    "no keys": b"{}",
    "deep": b"[" * 100_000,
}
BY_FILE = {
    "few_shot-direct.jsonl": {
        "one line is noise": lambda content: content.replace(b"{", b"\xff", 1),
        "one line is a list": lambda content: b"[1]\n" + content.partition(b"\n")[2],
        "one line has an odd key": lambda content: content.replace(b'"y00"', b'"y000"', 1),
        "one line has a text for a number": lambda content: content.replace(
            b'"y00": ', b'"y00": "x", "z": ', 1
        ),
        "one line has a number for a list": lambda content: content.replace(
            b'"y10": [', b'"y10": 1, "z": [', 1
        ),
    },
    "few_shot-direct.json": {
        "no sites": edited(sites=None),
        "sites are numbers": edited(sites=[1, 2]),
        "sites outside the model": edited(sites=["head 9.9"] * 8),
        "too few sites": edited(sites=["head 0.0"]),
        "a number for a name": edited(model=7),
    },
    "rest.json": {
        "no capture": edited(capture=None),
        "a search without its parts": edited(search={"heads": []}),
        "pictures are numbers": edited(attention=[1]),
        "a picture without weights": edited(attention=[{"weights": "", "heads": [[0, 0]], "tokens": ["a"]}]),
        "a note that is none": edited(note=3),
    },
    "attention.npz": {
        "pickled": pickle.dumps(Payload()),
        "pickled inside": npz(mass=np.array([{}], dtype=object), entropy=np.zeros(1)),
        "an array is missing": npz(mass=np.zeros(3)),
        "arrays of another shape": npz(mass=np.zeros((2, 2)), entropy=np.zeros((2, 2))),
        "its middle is changed": lambda content: content[:90] + b"\0" * 60 + content[150:],
    },
}
DAMAGES = [
    pytest.param(name, change, id=f"{name}: {how}")
    for name, own in BY_FILE.items()
    for how, change in (ANY | own).items()
]


def damage(folder, name, change):
    (path,) = folder.glob(f"mediation/*/{name}")
    before = path.read_bytes()
    path.write_bytes(change(before) if callable(change) else change)
    assert path.read_bytes() != before
    return path


@pytest.mark.parametrize(("name", "change"), DAMAGES)
def test_a_damaged_file_is_named_by_the_report_and_computed_again_by_mediate(results, name, change):
    study, _, frame, folder = results
    undisturbed = json.loads((folder / "mediation.json").read_text(encoding="utf-8"))
    path = damage(folder, name, change)
    with pytest.raises(StoreError) as caught:
        load_mediation(study, folder, frame)
    assert caught.value.exit_code == 2
    assert str(path) in caught.value.message
    assert "delete it and run again: whyprompt mediate STUDY" in caught.value.hint
    said = []
    answer = study_mediation(study, folder, frame, progress=lambda _d, _n, text: said.append(text))
    assert said[0].startswith(str(path))
    assert said[0].endswith(": computed again")
    again = answer.to_dict()
    assert [h["head"] for h in again["heads"]] == [h["head"] for h in undisturbed["heads"]]
    for one, other in zip(again["heads"], undisturbed["heads"], strict=True):
        assert one["nie"] == pytest.approx(other["nie"], abs=1e-5)
    assert again["set_note"] == undisturbed["set_note"]
    assert load_mediation(study, folder, frame).to_dict() == again


def test_the_verbs_say_it_and_end_with_two(results):
    _, file, _, folder = results
    path = damage(folder, "attention.npz", b"")

    def call(verb):
        command = [sys.executable, "-c", CLI, verb, str(file), "--out", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    run = call("report")
    assert run.returncode == 2, run.stderr
    assert f"error: {path} is damaged" in run.stderr
    assert not (folder / "report.html").exists()
    run = call("mediate")
    assert run.returncode == 0, run.stderr
    assert f"{path} is damaged" in run.stderr
    assert "computed again" in run.stderr
    assert call("report").returncode == 0


def test_nothing_is_kept_under_the_name_of_another_contrast(results):
    """The search and the attention are of the main contrast: turned round they are others."""
    study, _, frame, folder = results
    turned = study.model_copy(
        update={
            "effect": study.effect.model_copy(
                update={"contrast": Contrast(treated="direct", control="few_shot")}
            )
        }
    )
    assert (turned.contrast.treated, study.contrast.treated) == ("direct", "few_shot")
    kept = load_mediation(study, folder, frame).to_dict()
    assert load_mediation(turned, folder, frame) is None
    other = study_mediation(turned, folder, frame)
    assert other.attention[1].arm == "direct"
    assert load_mediation(study, folder, frame).to_dict() == kept


def test_two_at_once_are_one_and_a_message(results):
    study, file, frame, folder = results
    shutil.rmtree(folder / "mediation")
    saved = _saved.Saved.open(study, folder, frame)
    command = [sys.executable, "-c", CLI, "mediate", str(file), "--out", str(folder)]
    with saved.writing():
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 2, run.stderr
        assert f"error: another process is writing to {saved.folder}" in run.stderr
        assert list(saved.folder.iterdir()) == []
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    ended = [(r, *r.communicate()) for r in runs]
    assert {r.returncode for r, *_ in ended} <= {0, 2}
    assert any(r.returncode == 0 for r, *_ in ended)
    for r, _, err in ended:
        assert "Traceback" not in err
        assert "Aborted" not in err
        assert r.returncode == 0 or "another process is writing to" in err
    assert len((saved.folder / "few_shot-direct.jsonl").read_text().splitlines()) == len(saved.item_tasks)
    assert load_mediation(study, folder, frame) is not None


def test_a_finished_mediation_is_read_while_another_writes(results):
    study, _, frame, folder = results
    with _saved.Saved.open(study, folder, frame).writing():
        assert study_mediation(study, folder, frame).main.sweep.item_ids
        assert load_mediation(study, folder, frame) is not None


def test_a_folder_deleted_under_a_mediation_is_no_success(results, monkeypatch):
    study, _, frame, folder = results
    for after, deleted in enumerate((folder / "mediation", folder)):
        shutil.rmtree(folder / "mediation", ignore_errors=True)
        original = _saved.Saved.finish
        monkeypatch.setattr(
            _saved.Saved,
            "finish",
            lambda self, *a, original=original, deleted=deleted: (original(self, *a), shutil.rmtree(deleted)),
        )
        with pytest.raises(StoreError, match=r"cannot be written|is damaged|cannot be opened|no store"):
            study_mediation(study, folder, frame)
        monkeypatch.setattr(_saved.Saved, "finish", original)
        assert folder.exists() == (after == 0)


@pytest.mark.skipif(UNSHARE is None, reason="no unshare here")
def test_results_on_a_place_that_may_only_be_read_are_answered(results, tmp_path):
    _, file, _, folder = results
    for made in ("effect.json", "report.html"):
        (folder / made).unlink(missing_ok=True)
    mount = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
    if subprocess.run([UNSHARE, "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a folder read-only")

    def call(verb, *more):
        whyprompt = [sys.executable, "-c", CLI, verb, str(file), *map(str, more), "--out", str(folder)]
        command = [UNSHARE, "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *whyprompt]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))

    effect = call("effect")
    assert effect.returncode == 0, effect.stderr
    assert effect.stdout == run_effect(file, folder).summary() + "\n"
    assert (
        f"note: the answer is not kept: {folder / 'effect.json'} cannot be written: Read-only"
        in effect.stderr
    )
    mediate = call("mediate")
    assert mediate.returncode == 0, mediate.stderr
    assert mediate.stdout == run_mediation(file, folder).summary() + "\n"
    export = call("export", tmp_path / "t.csv")
    assert export.returncode == 0, export.stderr
    assert len(pd.read_csv(tmp_path / "t.csv")) == 24
    report = call("report", tmp_path / "page.html")
    assert report.returncode == 0, report.stderr
    assert "few_shot" in (tmp_path / "page.html").read_text(encoding="utf-8")
    nowhere = call("report")
    assert nowhere.returncode == 2
    assert "hint: write it elsewhere: whyprompt report STUDY FILE" in nowhere.stderr
    run = call("run")
    assert run.returncode == 2
    assert "cannot be" in run.stderr
    assert "Traceback" not in run.stderr
