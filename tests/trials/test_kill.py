"""A run that is killed with SIGKILL at many moments, and finished, gives what an undisturbed run gives."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pandas as pd
import pytest

from whyprompt import load_trials, run_study
from whyprompt.study import load_study

KILLS = 20
TRIALS = 220
MAIN = "from whyprompt.cli import main; main()"
TIMING = ["latency_s", "started_at"]

STUDY = """\
name: killed
question: What is left after a kill?
model: {{name: "{model}", device: cpu, threads: 1}}
items:
  - source: file
    path: items.jsonl
    size: 22
    shot_pool: 8
    columns: {{item_id: id, task_type: kind, difficulty: level, solution: why}}
arms:
  direct: {{kind: direct}}
  few_shot: {{kind: few_shot, shots: 2, draw: per_item}}
  worked: {{kind: chain_of_thought, reasoning: worked}}
  own: {{kind: chain_of_thought, reasoning: generated, temperature: 0.8}}
  warm: {{kind: direct, temperature: {{low: 0.2, high: 1.4}}}}
outcomes: [log_prob, exact_match, perplexity, string_match]
generation: {{max_new_tokens: 6, max_reasoning_tokens: 8}}
reps: 2
"""

# Imports everything once, then forks for each order: a start takes milliseconds, so that kills fall on the
# run itself. The child is a process of its own and gets the real signal.
SERVER = """
import os, sys
import torch
from pathlib import Path
from whyprompt.study import load_study
from whyprompt import run_study
import whyprompt.trials.run, transformers
from transformers import LlamaForCausalLM
torch.set_num_threads(1)
study = load_study(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        run_study(study, Path(line.strip()))
        os._exit(0)
    print(pid, flush=True)
    sys.stdin.readline()  # not reaped before we are told, so that the signal cannot hit another process
    _, status = os.waitpid(pid, 0)
    print("killed" if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.fixture
def study_path(tmp_path, tiny_model, items_writer):
    items_writer(tmp_path / "items.jsonl")
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.format(model=tiny_model), encoding="utf-8")
    return path


# What a model wrote is kept by itself until its trial is there, which has it then: one text, or two.
COUNTS = (
    "SELECT count(*) FROM items",
    "SELECT count(*) FROM trials",
    "SELECT (SELECT count(*) FROM texts) + (SELECT coalesce(sum(1 + (arm = 'own')), 0) FROM trials)",
)


def stored(path):
    if not path.is_file():
        return 0, 0, 0
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10) as db:
        try:
            db.execute("BEGIN")  # one moment for all three
            found = tuple(db.execute(query).fetchone()[0] for query in COUNTS)
        except sqlite3.OperationalError:
            found = (0, 0, 0)  # killed before the tables were made
    db.close()
    return found


class Server:
    """Starts runs and says how they ended."""

    def __init__(self, study_path):
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(study_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout.readline() == "ready\n"

    def _say(self, text):
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def start(self, out):
        self._say(out)
        return int(self.process.stdout.readline())

    def end(self):
        self._say("reap")
        return self.process.stdout.readline().strip()

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.mark.slow
def test_killed_at_many_moments_and_finished(study_path, tmp_path):
    study = load_study(study_path)
    begun = time.perf_counter()
    run_study(study, tmp_path / "whole")
    whole_s = time.perf_counter() - begun
    whole = load_trials(study, tmp_path / "whole").drop(columns=TIMING)
    assert len(whole) == TRIALS

    rng = random.Random(7)  # noqa: S311 - a reproducible draw of moments
    server = Server(study_path)
    kills, rounds, reached = 0, [], []
    while kills < KILLS:
        # A round is one store, killed again and again until it is complete.
        out = tmp_path / f"killed{len(rounds)}"
        rounds.append(out)
        assert len(rounds) < KILLS
        here, status = 0, ""
        while status != "0":
            pid = server.start(out)
            before = stored(out / "trials.sqlite")
            if here % 3 == 2:
                # Some kills fall anywhere, in the start too; the others just after something was written.
                time.sleep(rng.uniform(0.0, whole_s))
            else:
                deadline = time.monotonic() + 3 * whole_s
                while time.monotonic() < deadline and stored(out / "trials.sqlite") == before:
                    time.sleep(0.001)
                time.sleep(rng.uniform(0.0, 0.03))
            os.kill(pid, signal.SIGKILL)
            status = server.end()
            assert status in {"killed", "0"}
            now = stored(out / "trials.sqlite")
            assert now[0] >= before[0], "items are lost"
            assert now[1] >= before[1], "trials are lost"
            assert now[2] >= before[2], "finished texts are lost"
            if status == "killed":
                kills += 1
                here += 1
                reached.append(now)
            if now[1] == TRIALS or kills >= KILLS:
                break
    server.close()
    assert kills >= KILLS
    # Fewer would mean that the kills fell together; how many there are depends on the machine's speed.
    assert len(set(reached)) >= 4, reached
    for out in rounds:
        kept = stored(out / "trials.sqlite")[1]
        result = run_study(study, out)
        assert (result.trials, result.new_trials) == (TRIALS, TRIALS - kept)
        killed = load_trials(study, out).drop(columns=TIMING)
        pd.testing.assert_frame_equal(killed, whole, check_exact=True)
        with sqlite3.connect(out / "trials.sqlite") as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()
        assert json.loads((out / "manifest.json").read_text(encoding="utf-8"))["trials"] == TRIALS


@pytest.mark.slow
def test_the_command_itself_is_killed_and_goes_on(study_path, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", MAIN, "run", str(study_path), "--out", str(out), "--json"]
    for _ in range(2):
        before = stored(out / "trials.sqlite")[1]
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and stored(out / "trials.sqlite")[1] <= before:
            time.sleep(0.005)
            assert run.poll() is None
        run.kill()
        assert run.wait() == -signal.SIGKILL
    kept = stored(out / "trials.sqlite")[1]
    assert 0 < kept < TRIALS
    last = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(last.stdout)
    assert (answer["trials"], answer["new_trials"]) == (TRIALS, TRIALS - kept)
    assert answer["store"] == str(out / "trials.sqlite")
    study = load_study(study_path)
    killed = load_trials(study, out).drop(columns=TIMING)
    run_study(study, tmp_path / "whole")
    whole = load_trials(study, tmp_path / "whole").drop(columns=TIMING)
    pd.testing.assert_frame_equal(killed, whole, check_exact=True)
