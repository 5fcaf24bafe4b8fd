"""What local processes and a Ray cluster compute is what one process computes, to the last digit."""

import json
import multiprocessing
import os
import signal
import sqlite3
import sys

import numpy as np
import pandas as pd
import pytest

import whyprompt as wp
from whyprompt._workers import place
from whyprompt.answers.verbs import run_mediation
from whyprompt.errors import InputError

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
mediation: {{items_per_task: 4, max_heads: 2, candidates: 4}}
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


def test_processes_compute_what_one_process_computes_and_one_may_be_killed(
    study_path, alone, table, tmp_path
):
    killed = []

    def kill_one(done, _total, text):
        if text.startswith("arm") and done and not killed:
            victim = multiprocessing.active_children()[0]
            os.kill(victim.pid, signal.SIGKILL)
            killed.append(victim.pid)

    here = judged(table)
    with wp.workers("processes", count=2):
        assert computed(study_path, tmp_path / "two", kill_one) == alone
        assert killed
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
        if text.startswith("heads") and done and lost == ["actor"]:
            cluster.remove_node(second)
            lost.append("node")

    here = judged(table)
    with wp.workers("ray", count=2):
        assert computed(study_path, tmp_path / "ray", lose) == alone
        assert lost == ["actor", "node"]
        assert judged(table) == here


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
