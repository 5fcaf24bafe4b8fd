"""What several workers cost, what they give, and how long 64 of them would be busy.

A study of the embedded model is run by one process, and by one and two workers: processes and, where Ray is
installed, actors. The digest of every stored digit stands beside each, and beside runs of which a process, an
actor, or one of two nodes is lost on the way. What is measured is processor time, which other work on the
machine disturbs less than the time on the clock, of the trials alone: the model is loaded before. All take
turns, and the least of several rounds is shown.

Then the processor seconds that the units took are dealt to 64 workers by the queue that deals them in a run,
as they are, put together as a larger study has them, in the parts that 64 workers are given, and cut into
units of other sizes. At last, tables beyond memory (`scale_tables.py`).

    python benchmarks/scale.py                       # all of it, on 608 trials
    python benchmarks/scale.py --items 8 --rounds 1 --only inline processes
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
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

import whyprompt as wp
from whyprompt._workers import place
from whyprompt._workers.queue import Queue
from whyprompt.trials import plan as planning
from whyprompt.trials import run as running
from whyprompt.trials.models.load import load_model
from whyprompt.trials.models.parts import parts_are_exact

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from whyprompt.study import ModelSettings
    from whyprompt.trials.models.local import LocalModel

WAYS = ("inline", "processes", "ray", "node", "units", "tables")


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


class Run(NamedTuple):
    """One run of the study: processor seconds in all and of this process, those of its units, its digest."""

    trials: int
    seconds: float
    driver: float
    units: list[tuple[float, str]]
    digest: str


def measured(
    block: AbstractContextManager[Any], items: int, disturb: Callable[[], None] | None = None
) -> Run:
    """Run two studies in a block, the second of which is measured; disturb it after the first unit."""
    pids: list[int] = []
    began: list[float] = []
    moments: list[tuple[float, str]] = []

    def progress(done: int, _total: int, text: str) -> None:
        if not text.startswith("arm"):
            return
        if not began:
            began[:] = processor_seconds(pids), processor_seconds([])
        moments.append((processor_seconds([]), text.removeprefix("arm ")))
        if disturb is not None and done and len(moments) == 2:
            disturb()

    with tempfile.TemporaryDirectory() as home, block:
        # Where there are workers, units enough for each: all have loaded the model then.
        wp.run_study(study(16 if place.crew_size() else 1, 1), Path(home) / "first")
        pids += worker_pids()
        found = wp.run_study(study(items, 2), Path(home) / "second", progress=progress)
        in_all = nan if disturb else processor_seconds(pids) - began[0]
        # Without workers a unit lies between two moments; the first of an arm is its beginning.
        units = [(b[0] - a[0], b[1]) for a, b in pairwise(moments) if a[1] == b[1]]
        driver = processor_seconds([]) - began[1]
        return Run(found.new_trials, in_all, driver, units, digest(Path(home) / "second"))


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


def on_two_nodes(items: int) -> Run:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        cluster.wait_for_nodes()
        return measured(wp.workers("ray", count=2), items, lambda: cluster.remove_node(second))
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]


def costs(only: Sequence[str], items: int, rounds: int) -> dict[str, Run]:
    """Run the study in every way in turn, so many times, and print the least that each took."""
    ways: dict[str, Callable[[], AbstractContextManager[Any]]] = {}
    if "inline" in only:
        ways["one process"] = nullcontext
    for kind, count in product(("processes", "ray"), (1, 2)):
        if kind in only:
            ways[f"{kind}, {count}"] = partial(wp.workers, kind, count=count)
    best: dict[str, Run] = {}
    for _ in range(rounds):
        for title, block in ways.items():
            run = measured(block(), items)
            if title not in best or run.seconds < best[title].seconds:
                best[title] = run
    alone = best.get("one process")
    for title, run in best.items():
        said = f"{1000 * run.seconds / run.trials:6.2f} ms of processor a trial"
        if run is not alone:
            said += f", {1000 * run.driver / run.trials:4.2f} of them the driver's"
            said += "" if alone is None else f", {run.seconds / alone.seconds - 1:+.1%}"
        print(f"{title:28} {run.trials} trials, digest {run.digest}, {said}", flush=True)
    return best


def lost(only: Sequence[str], items: int) -> dict[str, Run]:
    """Run the study with a process, an actor and a node that are lost on the way, and print what is left."""
    found: dict[str, Run] = {}
    for kind, kill in (("processes", kill_a_process), ("ray", kill_an_actor)):
        if kind in only:
            found[f"{kind}, 2, one is killed"] = measured(wp.workers(kind, count=2), items, kill)
    if "node" in only:
        found["ray, 2 nodes, one goes down"] = on_two_nodes(items)
    for title, run in found.items():
        print(f"{title:28} {run.trials} trials, digest {run.digest}", flush=True)
    return found


def larger(alone: Run, trials: Sequence[int]) -> None:
    """Print how long workers would be busy with the units of a study, and of larger ones."""
    size = alone.trials / len(alone.units)
    print(f"{len(alone.units)} units of {size:.1f} trials, and so often that they make a larger study:")
    for many in (alone.trials, *trials):
        # A study of more than 10,240 trials has larger units: the times of these are put together.
        each = max(1, round(max(16, many // 640) / size)) if many > 10_240 else 1
        often = [alone.units[n % len(alone.units)] for n in range(round(many / size))]
        merged = [
            (sum(s for s, _ in often[at : at + each]), often[at][1]) for at in range(0, len(often), each)
        ]
        busy = ", ".join(f"{w} workers {replayed(merged, w):.0%}" for w in (2, 8, 64))
        print(f"  {many:6} trials in {len(merged)} units: busy {busy}", flush=True)


def parted(items: int, whole: Run) -> None:
    """Print what the parts cost that 64 workers are given, and how long they would take with them."""

    def opened(settings: ModelSettings) -> LocalModel:
        lm = load_model(**settings.model_dump())
        return replace(lm, parts=parts_are_exact(lm))

    # One process does what each of the 64 would be given.
    with patch.object(running, "open_model", opened), patch.object(running, "crew_size", lambda: 64):
        run = measured(nullcontext(), items)
    busy, before = replayed(run.units, 64), replayed(whole.units, 64)
    print(
        f"in {len(run.units)} parts of units, as 64 workers have them: digest {run.digest},"
        f" {1000 * run.seconds / run.trials:.2f} ms of processor a trial; 64 workers busy {busy:.0%},"
        f" done after {sum(s for s, _ in run.units) / busy / 64:.2f} s,"
        f" with whole units after {sum(s for s, _ in whole.units) / before / 64:.2f} s",
        flush=True,
    )
    if run.digest != whole.digest:
        raise SystemExit("the digests differ")


def smaller(items: int) -> None:
    """Print what units of other sizes cost, and how long 64 workers would take with them."""
    print("the same study in units of other sizes, by one process, and as 64 workers would do it:")
    own = planning._UNIT_TRIALS  # noqa: SLF001 - what is asked about
    try:
        for most in (1, 2, 4, 8, 16, 64):
            planning._UNIT_TRIALS = most  # noqa: SLF001
            run = measured(nullcontext(), items)
            busy = replayed(run.units, 64)
            print(
                f"  {most:2} trials at most: {1000 * run.seconds / run.trials:6.2f} ms of processor a trial,"
                f" {len(run.units):3} units; 64 workers busy {busy:.0%},"
                f" done after {sum(s for s, _ in run.units) / busy / 64:.2f} s",
                flush=True,
            )
    finally:
        planning._UNIT_TRIALS = own  # noqa: SLF001


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=38, help="of each of four kinds, asked four times")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--trials", type=int, nargs="+", default=[2_400, 4_800, 10_240, 40_960])
    args = parser.parse_args()
    best = costs(args.only, args.items, args.rounds)
    runs = {**best, **lost(args.only, args.items)}
    if len({run.digest for run in runs.values()}) > 1:
        raise SystemExit("the digests differ")
    if "one process" in best:
        larger(best["one process"], args.trials)
        parted(args.items, best["one process"])
    if "units" in args.only:
        smaller(args.items)
    if "tables" in args.only:
        subprocess.run([sys.executable, str(Path(__file__).with_name("scale_tables.py"))], check=True)


if __name__ == "__main__":
    main()
