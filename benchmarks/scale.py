"""What several workers cost, what they give, and how long 64 of them would be busy.

A study of the embedded model is run by one process, and by one and two workers: processes and, where Ray is
installed, actors, one of which is killed on the way; then actors on two nodes, one of which goes down. The
digest of every stored digit stands beside each. What is measured is processor time, which other work on
the machine disturbs less than the time on the clock, after the workers have loaded the model: over a second
study of the same model. At last, the seconds that the units took are dealt to 64 workers by the queue that
deals them in a run.

    python benchmarks/scale.py                       # some minutes on two cores
    python benchmarks/scale.py --items 8 --only inline processes
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import multiprocessing
import os
import resource
import signal
import sqlite3
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import whyprompt as wp
from whyprompt._workers import place
from whyprompt._workers.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

WAYS = ("inline", "processes", "ray", "node")


def study(items: int, seed: int) -> wp.Study:
    """A study of shared beginnings: worked examples before each question."""
    sources = [
        {"source": "reasoning_gym", "dataset": name, "size": items}
        for name in ("chain_sum", "simple_equations", "letter_counting", "spell_backward")
    ]
    return wp.Study.model_validate(
        {
            "name": f"scale_{seed}",
            "question": "What do workers cost?",
            "model": {"name": "embedded", "device": "cpu", "threads": 1},
            "items": sources,
            "arms": {
                "direct": {"kind": "direct"},
                "few_shot": {"kind": "few_shot", "shots": 3, "draw": "per_rep"},
            },
            "reps": 2,
            "seeds": {"items": seed},
        }
    )


def digest(folder: Path) -> str:
    """Hash every stored outcome."""
    with sqlite3.connect(folder / "trials.sqlite") as db:
        rows = db.execute("SELECT item_id, arm, rep, outcomes FROM trials ORDER BY 1, 2, 3").fetchall()
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]


def unit_seconds(folder: Path) -> list[tuple[float, str]]:
    """The seconds that each unit took, and its arm."""
    with sqlite3.connect(folder / "trials.sqlite") as db:
        query = "SELECT sum(latency_s), min(arm) FROM trials GROUP BY unit ORDER BY unit"
        return [(float(seconds), str(arm)) for seconds, arm in db.execute(query)]


def processor_seconds(pids: list[int]) -> float:
    """Processor time of this process and of those workers that still run."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    total = own.ru_utime + own.ru_stime
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def worker_pids() -> list[int]:
    """The processes of this machine that are workers of the block."""
    if not place.crew_size():
        return []
    if children := [child.pid for child in multiprocessing.active_children() if child.pid]:
        return children
    names = (
        (path, path.joinpath("comm").read_text(encoding="utf-8")) for path in Path("/proc").glob("[0-9]*")
    )
    return [int(path.name) for path, name in names if name.startswith("ray::Whyprompt")]


def measured(
    title: str, block: AbstractContextManager[Any], items: int, disturb: Callable[[], None] | None = None
) -> list[tuple[float, str]]:
    """Run two studies in a block, the second of which is measured; disturb it after the first units."""
    seen: list[int] = []

    def progress(done: int, _total: int, text: str) -> None:
        if disturb is not None and text.startswith("arm") and done and not seen:
            seen.append(done)
            disturb()

    with tempfile.TemporaryDirectory() as home, block:
        # As many units as there are workers at least: each has loaded the model then.
        wp.run_study(study(16, 1), Path(home) / "first")
        pids = worker_pids()
        before = processor_seconds(pids)
        found = wp.run_study(study(items, 2), Path(home) / "second", progress=progress)
        spent = None if disturb else processor_seconds(pids) - before
        cost = "" if spent is None else f"{1000 * spent / found.new_trials:8.2f} ms of processor a trial,"
        print(
            f"{title:34} {found.new_trials} trials, {found.seconds:6.1f} s on the clock, {cost}"
            f" digest {digest(Path(home) / 'second')}",
            flush=True,
        )
        return unit_seconds(Path(home) / "second")


def kill_a_process() -> None:
    pid = multiprocessing.active_children()[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def kill_an_actor() -> None:
    os.kill(worker_pids()[0], signal.SIGKILL)


def replayed(units: list[tuple[float, str]], workers: int) -> float:
    """The share of their time for which so many workers are busy with these units."""
    cost, alike = [seconds for seconds, _ in units], [arm for _, arm in units]
    queue, free = Queue(cost, alike, {}), [0.0] * workers
    while len(queue):
        worker = min(range(workers), key=lambda w: free[w])
        n = queue.take(worker)
        assert n is not None
        free[worker] += cost[n]
    return sum(cost) / (workers * max(free))


def on_two_nodes(items: int) -> None:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        cluster.wait_for_nodes()
        measured(
            "ray, 2 nodes, one goes down",
            wp.workers("ray", count=2),
            items,
            lambda: cluster.remove_node(second),
        )
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=24, help="of each of four kinds")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--trials", type=int, nargs="+", default=[600, 2_400, 10_240, 40_960])
    args = parser.parse_args()
    units: list[tuple[float, str]] = []
    if "inline" in args.only:
        units = measured("one process", nullcontext(), args.items)
    for kind, kill in (("processes", kill_a_process), ("ray", kill_an_actor)):
        if kind not in args.only:
            continue
        for count in (1, 2):
            units = measured(f"{kind}, {count}", wp.workers(kind, count=count), args.items)
        measured(f"{kind}, 2, one is killed", wp.workers(kind, count=2), args.items, kill)
    if "node" in args.only:
        on_two_nodes(args.items)
    if not units:
        return
    size = 4 * args.items * 4 / len(units)
    print(f"{len(units)} units of {size:.1f} trials; the same units, so often that they make a study of ...")
    for trials in args.trials:
        # A larger study has larger units: the times of these are put together.
        each = max(1, round(max(16, trials // 640) / size))
        often = [units[n % len(units)] for n in range(round(trials / size))]
        merged = [
            (sum(s for s, _ in often[at : at + each]), often[at][1]) for at in range(0, len(often), each)
        ]
        busy = ", ".join(f"{w} workers {replayed(merged, w):.0%}" for w in (2, 8, 64))
        print(f"  {trials:6} trials in {len(merged)} units: busy {busy}")


if __name__ == "__main__":
    main()
