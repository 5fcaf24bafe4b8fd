"""``run``, ``export``, ``schema`` and ``doctor`` as a person calls them."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from whyprompt import __version__, cli
from whyprompt._progress import time_words
from whyprompt.cli.run import _pace
from whyprompt.study import Study, load_study, study_json_schema
from whyprompt.trials.items.load import items_of

MAIN = "from whyprompt.cli import main; main()"


@pytest.fixture
def call(run, monkeypatch, tmp_path):
    """Run the command line here, and give its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture
def fails(call):
    """Run the command line and check that it fails as a person may expect: a message, no traceback."""

    def run(*arguments, code=2):
        found, out, err = call(*arguments)
        assert found == code, err
        assert out == ""
        assert "Traceback" not in err
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, err
        return err[err.index("error: ") :]

    return run


def edit(path, **changes):
    study = yaml.safe_load(path.read_text(encoding="utf-8"))
    study.update(changes)
    path.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------- what it does
def test_run_as_json_prints_one_object(call, tiny_study, tmp_path):
    code, out, err = call("run", tiny_study, "--out", tmp_path / "o", "--json")
    assert code == 0
    answer = json.loads(out)
    assert out.count("\n") == 1
    assert (answer["trials"], answer["new_trials"]) == (24, 24)
    assert answer["store"] == str(tmp_path / "o" / "trials.sqlite")
    assert len(answer["study_fingerprint"]) == len(answer["model_fingerprint"]) == 64
    assert answer["notices"] == []
    assert "tiny: arm direct" in err
    again = json.loads(call("run", tiny_study, "--out", tmp_path / "o", "--json")[1])
    assert again["new_trials"] == 0
    assert again["study_fingerprint"] == answer["study_fingerprint"]


def test_run_in_words_and_its_default_folder(call, tiny_study, tmp_path):
    code, out, _ = call("run", tiny_study)
    assert code == 0
    assert out.startswith("24 trials in runs/tiny/trials.sqlite: 24 new in ")
    assert (tmp_path / "runs" / "tiny" / "manifest.json").is_file()
    text = json.loads((tmp_path / "runs" / "tiny" / "manifest.json").read_text(encoding="utf-8"))[
        "study_text"
    ]
    assert text == tiny_study.read_text(encoding="utf-8")
    assert ": 0 new in" in call("run", tiny_study)[1]


def test_a_change_is_said(call, tiny_study):
    call("run", tiny_study)
    edit(tiny_study, arms={"direct": {"kind": "direct"}, "few_shot": {"kind": "few_shot", "shots": 3}})
    _, out, err = call("run", tiny_study, "--json")
    assert json.loads(out)["notices"] == ["study 'tiny' changed: arms.few_shot.shots: 2 -> 3"]
    assert "note: study 'tiny' changed: arms.few_shot.shots: 2 -> 3" in err


def test_dry_run(call, tiny_study, tmp_path):
    code, out, _ = call("run", tiny_study, "--dry-run", "--json")
    assert code == 0
    count = json.loads(out)
    assert (count["trials"], count["items"]) == (24, 12)
    assert count["tokens"] == sum(count["tokens_by_arm"].values()) > 500
    assert not (tmp_path / "runs").exists()
    assert f"24 trials of 12 items, {count['tokens']} tokens" in call("run", tiny_study, "--dry-run")[1]


def test_dry_run_counts_what_the_model_writes_itself(call, tiny_study):
    assert "The model writes nothing: given answers are scored." in call("run", tiny_study, "--dry-run")[1]
    arms = {"direct": {"kind": "direct"}, "cot": {"kind": "chain_of_thought"}}
    wanted = {"max_new_tokens": 5, "max_reasoning_tokens": 7}
    edit(tiny_study, arms=arms, outcomes=["log_prob", "numeric_match"], generation=wanted, mediation=None)
    count = json.loads(call("run", tiny_study, "--dry-run", "--json")[1])
    assert count["completion_tokens_at_most"] == 24 * 5 + 12 * 7
    assert "at most 204 tokens of its own" in call("run", tiny_study, "--dry-run")[1]
    assert call("run", tiny_study)[0] == 0
    call("export", tiny_study, "t.csv")
    frame = pd.read_csv("t.csv")
    assert frame["completion_tokens"].sum() + frame["reasoning_tokens"].sum() <= 204


def test_one_item_is_no_items(call, tiny_study):
    tiny_study.write_text(
        tiny_study.read_text().replace("size: 12", "size: 1").replace("items_per_task: 4", "")
    )
    tiny_study.write_text(tiny_study.read_text().replace("mediation: {}\n", ""))
    assert call("run", tiny_study, "--dry-run")[1].startswith("2 trials of 1 item, ")


def test_verify(call, tiny_study, tmp_path):
    call("run", tiny_study)
    code, out, _ = call("run", tiny_study, "--verify", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["passed"] is True
    assert found["checked"] == 24
    assert found["largest_difference"] < 1e-4
    assert call("run", tiny_study, "--verify")[1].startswith("24 trials scored again, each alone")
    import sqlite3

    with sqlite3.connect(tmp_path / "runs" / "tiny" / "trials.sqlite") as db:
        db.execute("UPDATE trials SET outcomes = json_set(outcomes, '$.log_prob', 1.0)")
    db.close()
    code, out, err = call("run", tiny_study, "--verify", "--json")
    assert code == 1
    assert json.loads(out)["passed"] is False
    assert "stored log-probabilities differ from new ones by" in err


def test_variance_over_repetitions(call, tiny_study):
    arms = {"direct": {"kind": "direct"}, "few_shot": {"kind": "few_shot", "shots": 2, "draw": "per_rep"}}
    edit(tiny_study, reps=3, arms=arms)
    answer = json.loads(call("run", tiny_study, "--json")[1])
    direct, few = answer["variance_over_reps"]["log_prob"]
    assert (direct["label"], few["label"], len(few["rep_means"]), few["n_items"]) == (
        "direct",
        "few_shot",
        3,
        12,
    )
    assert direct["sd_repeats"] ** 2 < 1e-8 < few["sd_repeats"] ** 2
    assert set(answer["variance_over_reps"]) == {"log_prob", "exact_match"}
    assert "log_prob, few_shot: mean " in call("run", tiny_study)[1]


@pytest.mark.parametrize("reps", [1, 2])
def test_export_side_by_side(call, tiny_study, tmp_path, reps):
    """A row an item and repetition: what was asked, what is right, and the figures of the long table."""
    edit(tiny_study, reps=reps, outcomes=["log_prob", "numeric_match"])
    call("run", tiny_study)
    call("export", tiny_study, tmp_path / "long.csv")
    code, out, _ = call("export", tiny_study, tmp_path / "wide.csv", "--wide")
    assert code == 0
    assert f"{24 * reps} trials, {12 * reps} rows," in out
    assert "No completions" not in out
    wide, long = pd.read_csv(tmp_path / "wide.csv"), pd.read_csv(tmp_path / "long.csv")
    assert ("rep" in wide) == (reps > 1)
    keys = ["item_id", "rep"] if reps > 1 else ["item_id"]
    for arm in ("direct", "few_shot"):
        own = long[long["arm"] == arm].set_index(keys)
        beside = wide.set_index(keys)
        for name in ("log_prob", "numeric_match", "completion", "prompt"):
            pd.testing.assert_series_equal(beside[f"{arm}.{name}"], own[name], check_names=False)
    # The question stands in the prompt that was sent, and the right answer is the item's own.
    assert all(q in p for q, p in zip(wide["question"], wide["direct.prompt"], strict=True))
    right = {item.item_id: item.answer for item in items_of(load_study(tiny_study)).items}
    assert dict(zip(wide["item_id"], wide["answer"].astype(str), strict=True)) == right


def test_export(call, fails, tiny_study, tmp_path):
    call("run", tiny_study)
    for name in ("t.csv", "t.parquet"):
        code, out, _ = call("export", tiny_study, tmp_path / name, "--json")
        assert code == 0
        assert json.loads(out)["trials"] == 24
    questions = tmp_path / "q.csv"
    questions.write_text("question,answer\n" + "".join(f"{k} + 1?,{k + 1}\n" for k in range(4)))
    study = tmp_path / "own.yaml"
    study.write_text("name: own\nquestion: q\nitems: q.csv\narms: [direct, cot]\n")
    assert "q.csv holds the study's questions" in fails("export", study, questions)
    # Neither outcome has the model write: what would is said.
    out = call("export", tiny_study, tmp_path / "wide.csv", "--wide")[1]
    assert "No completions: these outcomes are read off the probabilities" in out
    csv, parquet = pd.read_csv(tmp_path / "t.csv"), pd.read_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(csv, parquet, check_dtype=False)
    assert list(csv.columns[:3]) == ["item_id", "arm", "rep"]
    assert "exported as .csv or .parquet" in fails("export", tiny_study, tmp_path / "t.xlsx")
    assert "no such folder" in fails("export", tiny_study, tmp_path / "no-such-folder" / "t.csv")


def test_schema_doctor_version(call):
    assert json.loads(call("schema")[1]) == study_json_schema()
    assert json.loads(call("schema", "--json")[1]) == study_json_schema()
    assert call("--version")[1] == f"whyprompt {__version__}\n"
    code, out, _ = call("doctor", "--json")
    checks = json.loads(out)
    assert code == (0 if checks["ok"] else 1)
    assert {"Python", "torch", "cache folder", "device", "embedded model"} <= {
        c["name"] for c in checks["checks"]
    }
    assert "  Python: " in call("doctor")[1]


# ---------------------------------------------------------------------------------------- bad input
def test_an_unknown_key(fails, tiny_study):
    tiny_study.write_text(tiny_study.read_text(encoding="utf-8") + "repz: 2\n", encoding="utf-8")
    line = len(tiny_study.read_text(encoding="utf-8").splitlines())
    assert f"study.yaml:{line}: repz: unknown key" in fails("run", tiny_study)


def test_an_unknown_variable_in_a_template(fails, tiny_study):
    edit(
        tiny_study,
        arms={"direct": {"kind": "direct"}, "mine": {"kind": "template", "template": "{{ qestion }}"}},
    )
    message = fails("run", tiny_study, "--json")
    assert "arm 'mine': the template uses 'qestion', which is not a variable" in message
    assert "hint: variables are" in message
    assert "mine" in fails("run", tiny_study, "--dry-run")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"answer": " "}, "item 'q3' has an empty answer"),
        ({"id": "q2"}, "item id 'q2' occurs twice"),
        ({"level": "much"}, "column 'level' holds 'much', not a number"),
    ],
)
def test_bad_items(fails, tiny_study, tmp_path, change, match):
    rows = [json.loads(x) for x in (tmp_path / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    rows[3].update(change)
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    message = fails("run", tiny_study)
    assert match in message
    assert str(tmp_path / "items.jsonl") in message


def test_missing_files(fails, tiny_study, tmp_path):
    assert "no such file: absent.yaml" in fails("run", "absent.yaml")
    (tmp_path / "items.jsonl").unlink()
    assert f"no such file: {tmp_path / 'items.jsonl'}" in fails("run", tiny_study)


def test_folders_that_are_no_model(fails, tiny_study, tmp_path):
    (tmp_path / "empty").mkdir()
    edit(tiny_study, model={"name": "./empty"})
    assert f"{tmp_path / 'empty'} is not a model folder: it has no config.json" in fails("run", tiny_study)
    edit(tiny_study, model={"name": "./absent"})
    assert f"no such model folder: {tmp_path / 'absent'}" in fails("run", tiny_study)
    edit(tiny_study, model={"name": "no-such-owner/no-such-model"})
    assert "cannot be had from the hub" in fails("run", tiny_study)
    assert "cannot be had from the hub" in fails("run", tiny_study, "--dry-run")


def test_an_arm_longer_than_the_context(fails, tiny_study, tmp_path, model_maker):
    model = model_maker(tmp_path / "short", context=48)
    edit(tiny_study, model={"name": str(model), "threads": 1})
    message = fails("run", tiny_study)
    assert "arm 'few_shot', item 'q" in message
    assert "and the model's context is 48" in message
    assert "fewer or shorter shots" in message


def test_an_answer_that_merges_with_its_cue(fails, tiny_study, tmp_path):
    rows = [
        {"id": f"q{i}", "question": f"What is {i}?", "answer": "fore", "kind": "k", "level": 1}
        for i in range(30)
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    study = yaml.safe_load(tiny_study.read_text(encoding="utf-8"))
    study["items"][0]["columns"] = {"item_id": "id", "task_type": "kind", "difficulty": "level"}
    # After "<" the answer follows at once, and "<|end|>" is one token.
    study["arms"] = {"direct": {"kind": "direct", "cue": "so <"}}
    del study["mediation"]
    tiny_study.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    rows = [{**r, "answer": "|end|>"} for r in rows]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    message = fails("run", tiny_study)
    assert "merges with the cue" in message
    assert "into one token" in message


def test_a_device_and_an_outcome_that_do_not_exist(fails, tiny_study, tiny_model):
    edit(tiny_study, model={"name": str(tiny_model), "device": "abacus"})
    assert "model.device is 'abacus'" in fails("run", tiny_study)
    edit(
        tiny_study,
        model={"name": str(tiny_model)},
        outcomes=["log_prob", {"name": "mine", "call": "no_module:f"}],
    )
    assert "outcome 'mine': 'no_module:f' cannot be imported" in fails("run", tiny_study)


def test_options_that_contradict_each_other(fails, tiny_study):
    assert "--dry-run runs nothing, and --verify scores again" in fails(
        "run", tiny_study, "--dry-run", "--verify"
    )


def test_what_was_not_run(fails, call, tiny_study, tmp_path):
    assert "run the study first" in fails("run", tiny_study, "--verify")
    assert "run the study first" in fails("export", tiny_study, tmp_path / "t.csv")
    call("run", tiny_study)
    edit(tiny_study, reps=2)
    assert "another version of study 'tiny'" in fails("export", tiny_study, tmp_path / "t.csv")


def test_a_store_that_is_none(fails, tiny_study, tmp_path):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "trials.sqlite").write_text("not a database, and longer than a header would be" * 9)
    assert "is not a store of trials" in fails("run", tiny_study, "--out", tmp_path / "o")
    (tmp_path / "file").write_text("x")
    assert "cannot be made" in fails("run", tiny_study, "--out", tmp_path / "file" / "o")


def test_unknown_options_and_verbs(call, tiny_study):
    for arguments in (("run", tiny_study, "--colour"), ("walk",), ("run",), ("export", tiny_study)):
        code, out, err = call(*arguments)
        assert (code, out) == (2, "")
        assert "Traceback" not in err


def test_what_cannot_be_run_leaves_nothing_behind(fails, tiny_study, tmp_path):
    edit(tiny_study, model={"name": "./absent"})
    before = set(tmp_path.rglob("*"))
    assert "no such model folder" in fails("run", tiny_study)
    assert "no such model folder" in fails("run", tiny_study, "--out", tmp_path / "deep" / "o")
    assert set(tmp_path.rglob("*")) == before


def test_a_store_that_is_just_being_made(fails, tiny_study, tmp_path):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "trials.sqlite").touch()
    for verb in ("effect", "mediate", "report"):
        message = fails(verb, tiny_study, "--out", tmp_path / "o")
        assert "holds no trials yet" in message
        assert "move it aside" not in message


@pytest.mark.parametrize(
    ("verb", "said"), [("run", cli._GOES_ON), ("mediate", cli._GOES_ON), ("report", cli._BEGINS)]
)
def test_ctrl_c_says_what_is_kept(call, monkeypatch, verb, said):
    def pressed(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", pressed)
    assert call(verb) == (130, "", f"{said}\n")


def test_a_warning_is_a_note(call, monkeypatch):
    monkeypatch.setattr(cli, "app", lambda **_: warnings.warn("look here", stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert call("run") == (0, "", "note: look here\n")


# ------------------------------------------------------------------------- processes of their own
def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )


def wait_for(path, run):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_a_store_that_another_process_writes(fails, tiny_study, tmp_path):
    first = start("run", tiny_study, "--out", tmp_path / "o")
    wait_for(tmp_path / "o" / "trials.lock", first)
    first.send_signal(signal.SIGSTOP)
    try:
        message = fails("run", tiny_study, "--out", tmp_path / "o")
        assert f"another process is writing to {tmp_path / 'o' / 'trials.sqlite'}" in message
    finally:
        first.send_signal(signal.SIGCONT)
        out, err = first.communicate()
    assert first.returncode == 0, err
    assert "24 new" in out


@pytest.mark.slow
def test_a_full_disk_is_a_message_and_keeps_the_store(call, tiny_study, tmp_path):
    edit(tiny_study, reps=40)
    limit = 400_000

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    run = start("run", tiny_study, "--out", tmp_path / "o", "--json", preexec_fn=full)
    out, err = run.communicate()
    assert run.returncode == 1, err
    assert out == ""
    assert "Traceback" not in err
    assert "could not be read or written" in err
    assert "it goes on" in err
    code, out, _ = call("run", tiny_study, "--out", tmp_path / "o", "--json")
    answer = json.loads(out)
    assert code == 0
    assert 0 < answer["new_trials"] < answer["trials"] == 960


@pytest.mark.slow
def test_a_run_stopped_by_the_keyboard_says_so(tiny_study, tmp_path):
    edit(tiny_study, reps=60)
    run = start("run", tiny_study, "--out", tmp_path / "o")
    wait_for(tmp_path / "o" / "manifest.json", run)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate()
    assert run.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert "the same command goes on from there" in err


@pytest.mark.slow
def test_a_run_that_the_system_ends_closes_what_it_has_open(call, tiny_study, tmp_path):
    edit(tiny_study, reps=60)
    run = start("run", tiny_study, "--out", tmp_path / "o")
    wait_for(tmp_path / "o" / "manifest.json", run)
    run.terminate()
    out, err = run.communicate()
    assert run.returncode == 143, err
    assert out == ""
    assert "Traceback" not in err
    assert "the same command goes on from there" in err
    left = {f.name for f in (tmp_path / "o").iterdir()}
    assert left == {"trials.sqlite", "trials.lock", "manifest.json"}
    answer = json.loads(call("run", tiny_study, "--out", tmp_path / "o", "--json")[1])
    assert 0 < answer["new_trials"] <= answer["trials"] == 1440


@pytest.mark.slow
def test_a_report_that_cannot_be_written_or_drawn(call, tiny_study, tmp_path):
    pytest.importorskip("vl_convert")
    out = tmp_path / "o"
    call("run", tiny_study, "--out", out)
    before = set(out.iterdir())

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    def narrow():
        resource.setrlimit(resource.RLIMIT_AS, (8 * 10**9, 8 * 10**9))

    for limit, code, message in (
        (full, 1, f"error: the disk is full: {out / 'report.html'} could not be written"),
        (
            narrow,
            2,
            "error: charts cannot be drawn: their engine, V8, reserves more address space than the 8 GB",
        ),
    ):
        run = start("report", tiny_study, "--out", out, preexec_fn=limit)
        printed, err = run.communicate()
        assert run.returncode == code, err
        assert printed == ""
        assert err.startswith(message)
        assert len(err.splitlines()) == 2  # a hint, and no stack
        assert set(out.iterdir()) == before


@pytest.mark.slow
def test_a_full_disk_does_not_hinder_reading(call, tiny_study, tmp_path):
    """Nothing is written beside a store that is read: a table may go where there is room."""
    out = tmp_path / "o"
    call("run", tiny_study, "--out", out)

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    run = start("effect", tiny_study, "--out", out, preexec_fn=full)
    printed, err = run.communicate()
    assert run.returncode == 0, err
    assert "few_shot" in printed
    assert f"note: the answer is not kept: the disk is full: {out / 'effect.json'} could not be" in err


def test_the_least_time_is_that_of_the_tighter_limit_and_a_price_is_asked_for_where_none_is():
    model = {"endpoint": "https://h/v1", "name": "m", "limits": {}}
    study = {"name": "s", "question": "q", "items": "q.csv", "arms": ["direct", "cot"], "model": model}
    study["outcomes"] = "numeric_match"
    count = SimpleNamespace(paid={"requests": 120, "tokens": 60_000}, currency="")
    for tokens, words in ((6_000, time_words(600)), (60_000, time_words(120))):
        model["limits"] = {"requests_per_minute": 60, "tokens_per_minute": tokens}
        least, price = _pace(Study.model_validate(study), count)
        assert least == f"At the study's limits that takes {words} or more."
        assert "model.price: {input: 0.15, output: 0.60}" in price
    model["limits"] = {}
    count.paid["money"] = 1.0
    assert _pace(Study.model_validate(study), count) == []


def test_what_is_no_study_is_answered_by_what_makes_one(fails, tmp_path):
    (tmp_path / "my q.csv").write_text("question,answer\n1+1?,2\n")
    (tmp_path / "list.yaml").write_text("- a\n")
    assert "whyprompt init 'my q.csv'\n" in fails("run", "my q.csv")
    assert "whyprompt init writes one that runs" in fails("run", "list.yaml")


def test_what_was_not_run_names_the_command_with_its_own_study(fails, tiny_study):
    assert f"whyprompt run {tiny_study}\n" in fails("effect", tiny_study)
    said = fails("export", tiny_study, "t.csv", "--out", "my runs")
    assert f"whyprompt run {tiny_study} --out 'my runs'\n" in said
    # Of two studies with one name none is named for the other.
    other = tiny_study.with_name("other.yaml")
    other.write_text(tiny_study.read_text())
    assert "whyprompt run STUDY" in fails("report", tiny_study, other)
