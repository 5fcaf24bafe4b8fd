"""``whyprompt data``: what it prints, writes and refuses."""

import json
import os
import subprocess
import sys

import pytest


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", "from whyprompt.cli import main; main()", "data", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        check=False,
    )


def test_without_a_hub_it_says_what_failed_and_what_it_took(tmp_path):
    done = run("example2", "--size", "6", "--examples", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "openai/gsm8k" in done.stderr
    assert "fallback taken: gsm_symbolic" in done.stderr
    assert "GENERATED" in done.stderr
    assert "GENERATED" in done.stdout
    folder = tmp_path / "Example2_Dataset"
    assert {f.name for f in folder.iterdir()} == {
        "attention_reasoning_data.csv",
        "attention_reasoning_data_examples.csv",
        "source.json",
        "exploration.csv",
        "exploration_categories.png",
        "exploration_lengths.png",
        "exploration_missing.png",
    }
    assert (folder / "exploration_lengths.png").read_bytes().startswith(b"\x89PNG")


def test_json_is_one_object_and_messages_stay_apart(tmp_path):
    done = run(
        *("example1", "--source", "generated", "--size", "2", "--examples", "1"),
        *("--no-charts", "--json", "--out", "made"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["generated"] is True
    assert found["n_items"] == 12
    assert found["exploration"]["duplicates"]["same_question"] == 0
    assert found["charts"] == {}
    assert (tmp_path / found["path"]).exists()
    assert (tmp_path / found["table"]).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("example1", "--source", "./nowhere"), "no such file or folder: ./nowhere"),
        (("example2", "--source", "someone/nothing"), "'someone/nothing'"),
        (("example1", "--size", "0"), "--size"),
        (("example2", "--source", "empty.jsonl"), "nothing is left to prepare"),
        (("example2", "--source", "broken.jsonl"), "broken.jsonl:1"),
        (("example3",), "example3"),
        (("example1", "--source", ""), "the source has no name"),
        (("example2", "--source", "generated", "--size", "2", "--out", "empty.jsonl"), "empty.jsonl"),
    ],
)
def test_a_mistake_exits_with_2_and_one_message(tmp_path, arguments, message):
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "broken.jsonl").write_text("{not json\n", encoding="utf-8")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "Example1_Dataset").exists()
    assert not (tmp_path / "Example2_Dataset").exists()


def test_a_slip_in_a_tables_name_is_answered_by_the_one_that_was_meant(tmp_path):
    done = run("table", "logs", "x.csv", cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no example table 'logs'; did you mean 'log'?" in done.stderr
