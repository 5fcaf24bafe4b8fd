"""What local processes and a Ray cluster compute is what one process computes, to the last digit."""

import json
import multiprocessing
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import whyprompt as wp
from whyprompt._workers import place
from whyprompt._workers.processes import Processes
from whyprompt._workers.ray import _connected
from whyprompt.answers.verbs import run_mediation
from whyprompt.cli import _GOES_ON
from whyprompt.errors import InputError, WhypromptError
from whyprompt.mediation import generation_sweep
from whyprompt.mediation.engine.apart import model_from
from whyprompt.study import ModelSettings
from whyprompt.trials.models.load import load_model
from whyprompt.trials.models.remote import Loader
from whyprompt.trials.store import TrialStore

# On a busy machine workers take minutes to be ready, which is said.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:no worker is ready")]

STUDY = """\
name: spread
question: Does it matter who computes?
model: {{name: "{model}", device: cpu, threads: 1}}
items:
  - source: file
    path: items.jsonl
    size: 20
    shot_pool: 8
    columns: {{item_id: id, task_type: kind, difficulty: level, solution: why}}
arms:
  direct: {{kind: direct}}
  few_shot: {{kind: few_shot, shots: 2}}
  own: {{kind: chain_of_thought, reasoning: generated, temperature: 0.8}}
outcomes: [log_prob, exact_match, string_match]
generation: {{max_new_tokens: 6, max_reasoning_tokens: 8}}
reps: 2
effect: {{contrast: {{treated: few_shot, control: direct}}}}
mediation: {{items_per_task: 4, max_heads: 2, candidates: 4, sites: [mlp, resid 1], tokens: suffix,
  relate: 2, flips: 2, directions: 2}}
"""


@pytest.fixture(scope="module")
def study_path(tmp_path_factory, tiny_model, items_writer):
    folder = tmp_path_factory.mktemp("spread")
    items_writer(folder / "items.jsonl")
    path = folder / "study.yaml"
    path.write_text(STUDY.format(model=tiny_model), encoding="utf-8")
    return path


def kept(folder):
    """Everything that a run and a mediation left, without what the clock says."""
    with sqlite3.connect(f"{(folder / 'trials.sqlite').as_uri()}?mode=ro", uri=True) as db:
        columns = "item_id, arm, rep, unit, prompt, completion, outcomes"
        trials = db.execute(f"SELECT {columns} FROM trials ORDER BY item_id, arm, rep").fetchall()  # noqa: S608
        items = db.execute("SELECT * FROM items ORDER BY position").fetchall()
    lines = {
        file.name: sorted(file.read_text(encoding="utf-8").splitlines())
        for file in sorted((folder / "mediation").rglob("*.json*"))
    }
    return trials, items, lines


def computed(study_path, folder, at_unit=None):
    """Run the study and its mediation; do something in the middle of each."""
    seen = []

    def progress(done, total, text):
        seen.append((done, total, text))
        if at_unit is not None:
            at_unit(done, total, text)

    wp.run_study(wp.load_study(study_path), folder, progress=progress)
    run_mediation(study_path, folder, progress=progress)
    return kept(folder)


@pytest.fixture(scope="module")
def alone(study_path, tmp_path_factory):
    return computed(study_path, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(3)
    hard = rng.normal(size=90)
    return pd.DataFrame(
        {
            "item_id": np.repeat(np.arange(90), 2),
            "arm": ["direct", "cot"] * 90,
            "hard": np.repeat(hard, 2),
            "y": (np.column_stack([-hard, 1 - hard]) + rng.normal(0, 0.5, (90, 2))).ravel(),
        }
    )


def judged(table):
    """An audit and a bootstrap, as JSON: every digit of them."""
    audit = wp.audit(
        table,
        outcome="y",
        treated="cot",
        control="direct",
        confounders=["hard"],
        rule={"hard": 1.0},
        draws=12,
        methods=["naive", "ipw", "nearest"],
    )
    rows = table[(table["item_id"] % 2 == 0) == (table["arm"] == "cot")]
    fitted = wp.estimate_effect(
        rows,
        treatment="arm",
        outcome="y",
        treated="cot",
        confounders=["hard"],
        method="ipw",
        std_error="bootstrap",
        draws=40,
    )
    return json.dumps([audit.to_dict(), fitted.to_dict()], default=str)


TELLING = """\
import os, signal
from contextlib import contextmanager
from dataclasses import dataclass
from whyprompt._workers.seat import hand_on

@dataclass(frozen=True)
class Telling:
    file: str

    @contextmanager
    def opened(self):
        def tell(unit):
            n, there = unit
            for k in range(6):
                if k not in there:
                    with open(self.file, "a") as file:
                        file.write(f"{n} {k}\\n")
                    hand_on((n, k))
                    if (n, k) in {(1, 3), (2, 0)}:
                        os.kill(os.getpid(), signal.SIGKILL)
            return n
        yield tell
"""


def test_what_a_killed_worker_handed_on_is_not_done_again(tmp_path, monkeypatch):
    (tmp_path / "telling.py").write_text(TELLING, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    from telling import Telling

    units = [(n, set()) for n in range(4)]
    with wp.workers("processes", count=2):
        found = list(
            place.map_units(
                Telling(str(tmp_path / "done")), units, heard=lambda said: units[said[0]][1].add(said[1])
            )
        )
    assert sorted(found) == [(n, n) for n in range(4)]
    # Two died in the moment after a word of theirs.
    done = (tmp_path / "done").read_text(encoding="utf-8").split("\n")[:-1]
    assert sorted(done) == [f"{n} {k}" for n in range(4) for k in range(6)]


MAIN = "from whyprompt.cli import main; main()"


def descendants(pid):
    """The processes below one, while it lives."""
    pairs = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        pairs.append((int(path.parent.name), int(fields[1])))
    found, below = set(), {pid}
    while below:
        found |= below
        below = {child for child, parent in pairs if parent in below} - found
    return found - {pid}


def gone(pids, within_s=60):
    """Say whether processes end, none of which is waited for by us."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


def count_of(path, table):
    if not path.is_file():
        return 0
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10) as db:
        try:
            return db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
        except sqlite3.OperationalError:
            return 0


def disturbed_run(study_path, out, number, *on, env=None):
    """Start the command with workers, and stop it in the middle of a unit; its texts, error and workers."""
    run = subprocess.Popen(
        [sys.executable, "-c", MAIN, "run", str(study_path), "--out", str(out), *on],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=env,
    )
    ends = time.monotonic() + 400
    store = out / "trials.sqlite"
    # By Ray's client texts may come no sooner than the trials that they are of.
    while count_of(store, "texts") < 5 and not count_of(store, "trials") and time.monotonic() < ends:
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.002)
    below = descendants(run.pid)
    # As a terminal does: all of them hear Ctrl-C.
    (os.killpg if number == signal.SIGINT else os.kill)(run.pid, number)
    _, said = run.communicate(timeout=120)
    return run.returncode, said, below


def test_texts_are_written_under_patches_by_workers_as_by_one_process(tiny_model):
    """Every text tells: a score of what is written, token by token, with patches of some heads."""
    settings = ModelSettings(name=str(tiny_model), device="cpu", threads=1)
    lm = load_model(**settings.model_dump())
    pairs = [
        wp.pair_from_text(
            lm.codec.tokenizer,
            item_id=f"i{k}",
            prompt0=f"{k} + 2 =",
            prompt1=f"Say it aloud. 1 + 1 = 2\n{k} + 2 =",
            answer=" 4",
        )
        for k in range(6)
    ]
    sites = ["head 0.0", "head 1.1", "mlp 0"]

    def score(_pair, ids):
        return sum((k + 1) * i for k, i in enumerate(ids)) % 101 / 100

    asked = {"score": score, "outcome": "told", "max_new_tokens": 5, "max_extra_bytes": 1 << 16}
    here = generation_sweep(lm.model, pairs, sites, **asked)
    with model_from(Loader(lm.described(), settings)), wp.workers("processes", count=2):
        apart = generation_sweep(lm.model, pairs, sites, **asked)
    assert np.ptp(here.y11) > 0
    assert here.nie.any()
    for name in ("y00", "y11", "y10", "y01"):
        assert getattr(here, name).tolist() == getattr(apart, name).tolist(), name
    assert apart.item_ids == here.item_ids


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_is_ended_leaves_no_worker_and_loses_nothing(study_path, alone, tmp_path, number):
    out = tmp_path / "out"
    code, said, below = disturbed_run(study_path, out, number, "--workers", "2")
    assert len(below) >= 2
    assert gone(below)
    if number == signal.SIGINT:
        assert code == 130
        assert said.splitlines()[-1] == _GOES_ON
        assert "Traceback" not in said
    else:
        assert code == -signal.SIGKILL
    texts, trials = count_of(out / "trials.sqlite", "texts"), count_of(out / "trials.sqlite", "trials")
    assert texts >= 5 or trials
    on = wp.workers("processes", count=2) if number == signal.SIGKILL else nullcontext()
    with on:
        found = wp.run_study(wp.load_study(study_path), out)
    assert found.new_trials == 120 - trials
    assert kept(out)[:2] == alone[:2]


def test_a_process_is_deaf_to_what_is_the_drivers_to_answer_from_its_first_moment_on():
    """Not only since it sat down: it inherits what is blocked, and the driver hears again."""
    places = Processes(1, 1, 0)
    process = places.hire(0)
    try:
        blocked = process._submitted(signal.pthread_sigmask, signal.SIG_BLOCK, ())
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert signal.SIGINT in blocked.result(timeout=60)
    finally:
        process.end()
        places.end()


def test_processes_compute_what_one_process_computes_and_all_may_be_killed(
    study_path, alone, table, tmp_path, monkeypatch
):
    killed = []

    texts, add_text = Counter(), TrialStore.add_text

    def noted(store, study, model, key, part, text):
        add_text(store, study, model, key, part, text)
        texts[key, part] += 1
        if len(texts) == 5:
            # In the middle of a unit: all there are.
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
                killed.append(child.pid)

    monkeypatch.setattr(TrialStore, "add_text", noted)
    here = judged(table)
    with wp.workers("processes", count=2):
        assert computed(study_path, tmp_path / "two") == alone
        assert len(killed) == 2
        # An answer of every trial, and a chain where the arm has one; or they came with their unit.
        assert set(texts.values()) == {1}
        assert 40 < len(texts) <= 40 * 4
        assert judged(table) == here
    assert multiprocessing.active_children() == []


@pytest.fixture
def cluster():
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'whyprompt[scale]'")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    term = signal.getsignal(signal.SIGTERM)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    signal.signal(signal.SIGTERM, term)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_ray_computes_what_one_process_computes_and_an_actor_and_a_node_may_be_lost(
    study_path, alone, table, tmp_path, cluster
):
    import ray

    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    lost = []

    def lose(done, _total, text):
        if text.startswith("arm") and done and not lost:
            # One actor, by the system; then a machine, in the mediation.
            ray.kill(next(iter(place._crew.get().workers.values()))._made)
            lost.append("actor")
        if text.startswith(("heads", "sites")) and done and lost == ["actor"]:
            cluster.remove_node(second)
            lost.append("node")

    here = judged(table)
    with wp.workers("ray", count=2):
        assert computed(study_path, tmp_path / "ray", lose) == alone
        assert lost == ["actor", "node"]
        assert judged(table) == here


@pytest.fixture
def address(tmp_path):
    """A cluster of its own ports that `ray start` began, for Ray's client."""
    for needed in ("ray", "grpc"):
        pytest.importorskip(needed, reason="Ray's client is not installed: pip install 'whyprompt[scale]'")
    ports = []
    for _ in range(4):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    # Paths of sockets are short.
    folder = tempfile.mkdtemp(prefix="wr", dir="/tmp")
    named = ("port", "ray-client-server-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port")
    given = [f"--{name}={port}" for name, port in zip(named, ports, strict=True)]
    # Other clusters of this machine have the usual ports.
    given += ["--min-worker-port=0", "--max-worker-port=0", "--num-cpus=2", f"--temp-dir={folder}"]
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", *given]
    # It asks for a token, which is this test's own, and gives up a driver sooner than after 30 s.
    asks = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    env = {**os.environ, **asks, "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "2"}
    command += ["--include-dashboard=false", "--disable-usage-stats"]
    with (tmp_path / "ray.log").open("w") as log:
        head = subprocess.Popen(command, stdout=log, stderr=log, env=env)
    try:
        ends = time.monotonic() + 200
        while time.monotonic() < ends:
            assert head.poll() is None, (tmp_path / "ray.log").read_text(encoding="utf-8")
            with suppress(OSError), socket.create_connection(("127.0.0.1", ports[1]), timeout=1):
                break
            time.sleep(0.2)
        yield f"ray://127.0.0.1:{ports[1]}", head, env
    finally:
        below = descendants(head.pid)
        head.terminate()
        head.wait(60)
        assert gone(below)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_driver_of_rays_client_is_killed_and_the_next_computes_what_one_process_computes(
    study_path, alone, tmp_path, address
):
    url, head, env = address
    out, on = tmp_path / "out", ("--on", url, "--workers", "1")

    def actors():
        return {pid for pid in descendants(head.pid) if comm(pid).startswith("ray::Whyprompt")}

    code, _, _ = disturbed_run(study_path, out, signal.SIGKILL, *on, env=env)
    assert code == -signal.SIGKILL
    left, trials = actors(), count_of(out / "trials.sqlite", "trials")
    assert len(left) == 1
    command = [sys.executable, "-c", MAIN, "run", str(study_path), "--out", str(out), "--json", *on]
    last = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=400)
    assert last.returncode == 0, last.stderr
    assert json.loads(last.stdout)["new_trials"] == 120 - trials
    assert kept(out)[:2] == alone[:2]
    assert gone(left | actors())


class Knocked:
    """Ray, whose server loses the process of its first drivers as it forks it."""

    said = (
        "Initialization failure from server:\nTraceback (most recent call last):\n  File ...\n"
        "RuntimeError: Starting Ray client server failed. See ray_client_server_23000.err.\n"
    )

    def __init__(self, lost):
        self.lost, self.asked, self.shut = lost, 0, 0

    def is_initialized(self):
        return False

    def init(self, **_):
        self.asked += 1
        if self.asked <= self.lost:
            raise ConnectionAbortedError(self.said)

    def shutdown(self):
        self.shut += 1


def test_a_driver_whose_process_rays_server_lost_asks_again_and_says_why_where_all_are_lost():
    with socket.create_server(("127.0.0.1", 0)) as door:
        url = f"ray://127.0.0.1:{door.getsockname()[1]}"
        ray = Knocked(4)
        assert _connected(ray, url)
        # What a driver that was let in nowhere began is undone before it asks again.
        assert (ray.asked, ray.shut) == (5, 4)
        why = (
            r"could not join ray://.*: Initialization failure from server: RuntimeError: Starting Ray client"
        )
        with pytest.raises(WhypromptError, match=why):
            _connected(Knocked(5), url)


def comm(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8")
    return ""


def test_ray_that_is_not_installed_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="Ray is not installed") as error, wp.workers("ray"):
        pass
    assert error.value.hint == 'pip install "whyprompt[scale]"'


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("ray://127.0.0.1:9", "no Ray cluster can be reached at ray://127.0.0.1:9"),
        ("ray://somewhere", "is no address of a Ray cluster"),
    ],
)
def test_an_address_where_no_cluster_is_is_refused_at_once(address, match):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'whyprompt[scale]'")
    with pytest.raises(InputError, match=match), wp.workers(address):
        pass


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "0"], "error: 0 workers do no work"),
        (["--workers", "many"], "error: --workers 'many' is no number"),
        (["--on", "mars"], "error: work cannot be done on 'mars'"),
        (["--workers", "2", "--dry-run"], "error: --workers has no meaning with --dry-run or --verify"),
    ],
)
def test_the_command_line_refuses_workers_that_cannot_be_and_leaves_nothing(
    run, tiny_study, tmp_path, options, said
):
    code, _, err = run("run", tiny_study, "--out", tmp_path / "out", *options)
    assert (code, err.splitlines()[0][: len(said)]) == (2, said)
    assert not (tmp_path / "out").exists()


def test_auto_and_two_workers_on_the_command_line(run, tiny_study, tmp_path):
    code, out, err = run("run", tiny_study, "--out", tmp_path / "out", "--workers", "2", "--json")
    assert code == 0, err
    assert json.loads(out)["new_trials"] == 24
