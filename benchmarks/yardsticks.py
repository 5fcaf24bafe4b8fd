"""Our estimates held to the field's published tables, and to prompt logs whose truth is known.

Through the public front door, `estimate_effect(frame, treatment=, outcome=, confounders=)`: first with no
method named (``default``), then by others. Beside them the estimates that were published for the very same
data and, with `--peers`, other libraries run on them here.

acic2016   the 2016 data challenge: 39 settings, 58 covariates as they are, 24 published methods
lalonde    the job-training experiment and its treated beside survey controls, trimmed and not, and a placebo
realcause  outcomes of a model fitted to LaLonde's data, 516 published estimators of each
prompts    14 families of real questions with simulated answers; and studies of both arms (`--trials`), of
           which one arm an item is kept: by a coin, by difficulty, by family, by length, by all of these

Each case is estimated in a process with one thread, and what it gave is one line of `--keep`: a run that was
stopped goes on where it was. Lines of other versions of the estimators are not read.

    python benchmarks/yardsticks.py --keep lines.jsonl
    python benchmarks/yardsticks.py --keep lines.jsonl --only lalonde realcause --methods default nearest
    python benchmarks/yardsticks.py --keep lines.jsonl --only acic2016 --every 5
    python benchmarks/yardsticks.py --keep lines.jsonl --peers /path/to/python --write page.md

The peers' Python has doubleml, lightgbm, econml, causallib and stochtree. Trials are made by
``whyprompt run studies/few_shot.yaml`` and ``whyprompt export studies/few_shot.yaml few_shot.csv``; with more
items (``size``) they are a larger yardstick.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from yardsticks_data import YARDS, Case, Places, case, missing, names
from yardsticks_peers import PEERS, peer

METHODS = ("default", "naive", "nearest", "full", "ipw", "entropy", "overlap", "kernel", "aipw")
PACKAGES = ("doubleml", "lightgbm", "econml", "causallib", "stochtree")
# The words by which a sentence declines to call a difference an effect.
DECLINES = ("may therefore not be claimed", "may not be claimed", "a comparison and not an effect")
Record = dict[str, Any]


# ------------------------------------------------------------------------------------------ one estimate


def ours(one: Case, entry: str) -> Record:
    """Estimate by the front door; the method may bring options, as in ``nearest:caliper=0.2``."""
    import yaml

    from whyprompt import estimate_effect
    from whyprompt.effects.methods.make import estimand_of

    asked: dict[str, Any] = {"estimand": one.estimand}
    if entry != "default":
        name, _, written = entry.partition(":")
        options = dict(pair.split("=", 1) for pair in written.split(",") if pair)
        asked["method"] = {name: {key: yaml.safe_load(value) for key, value in options.items()}}
        asked["estimand"] = estimand_of(asked["method"], one.estimand)
    result = estimate_effect(
        one.frame,
        treatment=one.treatment,
        outcome=one.outcome,
        treated=one.treated,
        control=one.control,
        confounders=list(one.confounders),
        **asked,
    )
    flags = {a.name: a.status for a in result.assumptions if a.status in {"fails", "doubtful"}}
    own = None
    if one.effect is not None and result.weights is not None:
        own = truth_of_rows(one, result.estimand, result.weights)
    return {
        "estimand": result.estimand,
        "method": result.method,
        "estimate": result.estimate,
        "low": result.ci_low,
        "high": result.ci_high,
        "own": own,
        "used": [result.n_treated_used, result.n_control_used],
        "declines": any(words in result.sentence for words in DECLINES),
        "flags": flags,
        "sentence": result.sentence,
        "warnings": list(result.warnings),
    }


def truth_of_rows(one: Case, estimand: str, weights: np.ndarray) -> float | None:
    """Give the true effect on the rows that an estimate speaks of, where it leaves out some that were wanted.

    None where it leaves out none: the truth is then that of its estimand. Overlap weights say themselves
    whom they speak of, unless the case knows their truth.
    """
    assert one.effect is not None
    if estimand == "ato":
        return None if "ato" in one.truths else float(np.average(one.effect, weights=weights))
    wanted = {"att": one.arm, "atc": ~one.arm}.get(estimand, np.ones(len(weights), dtype=bool))
    used = wanted & (weights > 0)
    return None if used.sum() == wanted.sum() else float(one.effect[used].mean())


def estimate(task: Record, places: Places) -> Record:
    """Do one task; what goes wrong is part of its answer."""
    one = case(task["yard"], task["case"], places)
    began = time.process_time()
    try:
        found = peer(one, task["entry"]) if task["entry"] in PEERS else ours(one, task["entry"])
    except Exception as error:  # noqa: BLE001 - an entry that fails is a result
        found = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
    seconds = time.process_time() - began
    truths = {name: value for name, value in one.truths.items() if np.isfinite(value)}
    return {**task, **found, "seconds": seconds, "truths": truths, "rows": len(one.frame)}


def work(places: Places) -> None:
    """Answer tasks, one a line of standard input, until there are no more; data that fail are no answer."""
    for line in sys.stdin:
        try:
            answer = estimate(json.loads(line), places)
        except Exception as error:  # noqa: BLE001 - told to the one who asks
            answer = {"broken": f"{line.strip()}: {type(error).__name__}: {error}"}
        print("\x02" + json.dumps(answer), flush=True)


# ------------------------------------------------------------------------------------------ many of them


def fingerprint() -> str:
    """Name the version of the estimators by what their files hold."""
    import whyprompt

    root = Path(whyprompt.__file__).parent
    files = sorted([*(root / "effects").rglob("*.py"), *(root / "stats").rglob("*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def peers_versions(python: str) -> str:
    """Ask the peers' Python which versions it has; one that it lacks is an error."""
    code = f"from importlib.metadata import version as v; print(*(n+' '+v(n) for n in {PACKAGES}), sep=', ')"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"--peers {python}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()


def read(keep: Path | None, stamps: set[str]) -> list[Record]:
    """Read the lines of these versions; the last of a run that was killed may be cut."""
    out = []
    for line in keep.read_text(encoding="utf-8").splitlines() if keep and keep.exists() else ():
        try:
            one = json.loads(line)
        except json.JSONDecodeError:
            continue
        if one.get("stamp") in stamps:
            out.append(one)
    return out


def key(one: Record) -> tuple[str, str, str]:
    return one["yard"], one["case"], one["entry"]


class Worker:
    """A process that answers tasks; one that dies or takes too long is replaced."""

    def __init__(self, arguments: list[str], seconds: float) -> None:
        self.arguments, self.seconds = arguments, seconds
        self.process: subprocess.Popen[str] | None = None
        self.python = ""
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the worker

    def ask(self, python: str, task: Record) -> Record:
        if self.process is None or self.process.poll() is not None or self.python != python:
            self.close()
            command = [python, str(Path(__file__)), "--worker", *self.arguments]
            pipe, self.python = subprocess.PIPE, python
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.errors, text=True)
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(self.seconds, process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                if line.startswith("\x02"):
                    return dict(json.loads(line[1:]))
        except BrokenPipeError:
            pass
        finally:
            late = not timer.is_alive()
            timer.cancel()
        process.wait()
        self.errors.seek(0)
        said = self.errors.read().strip().splitlines() or ["it said nothing"]
        why = f"not done after {self.seconds:.0f} s" if late else f"the process ended: {said[-1]}"
        return {**task, "failed": why}

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def run(tasks: list[Record], pythons: dict[str, str], args: argparse.Namespace) -> list[Record]:
    """Do the tasks in some processes, write each answer down as it comes, and tell of the time left."""
    queue: SimpleQueue[Record] = SimpleQueue()
    for task in tasks:
        queue.put(task)
    lock, done, began = threading.Lock(), list[Record](), time.monotonic()
    broken: list[str] = []
    shown = [0.0]
    places = ["--data", str(args.data), "--questions", str(args.questions or args.data / "..")]
    places += ["--trials", *map(str, args.trials)] if args.trials else []

    def serve() -> None:
        worker = Worker(places, args.seconds)
        while not broken:
            try:
                task = queue.get_nowait()
            except Empty:
                break
            answer = worker.ask(pythons[task["entry"]], task)
            if "broken" in answer:
                broken.append(answer["broken"])
                break
            with lock:
                done.append(answer)
                if args.keep:
                    with args.keep.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(answer) + "\n")
                now = time.monotonic() - began
                if now - shown[0] > 10 or len(done) == len(tasks):
                    shown[0] = now
                    left = now / len(done) * (len(tasks) - len(done))
                    what = f"{task['yard']} {task['case']}, {task['entry']}"
                    print(f"{len(done)}/{len(tasks)}, {left:.0f} s left: {what}", file=sys.stderr, flush=True)
        worker.close()

    threads = [threading.Thread(target=serve) for _ in range(args.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise SystemExit(f"the data cannot be used: {broken[0]}")
    return done


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/yardsticks"))
    parser.add_argument("--questions", type=Path, help="a folder with gsm8k/ and natural_instructions/")
    parser.add_argument("--trials", type=Path, nargs="+", default=[], help="CSV files of trials of both arms")
    parser.add_argument("--only", nargs="+", choices=YARDS, default=list(YARDS))
    parser.add_argument(
        "--every", type=int, default=1, help="take every so many instances, samples and draws"
    )
    parser.add_argument("--draws", type=int, default=200, help="logs of each rule")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--peers", help="a Python with doubleml, lightgbm, econml, causallib and stochtree")
    parser.add_argument("--peer-entries", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=900, help="limit of one estimate")
    parser.add_argument("--keep", type=Path, help="what was estimated, a line each; a run goes on from there")
    parser.add_argument("--as-it-is", action="store_true", help="make the page of what --keep holds")
    parser.add_argument("--write", type=Path, help="the page to write")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    places = Places(data=args.data, questions=args.questions or args.data / "..", trials=tuple(args.trials))
    if args.worker:
        work(places)
        return
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    from yardsticks_tables import page

    stamps = dict.fromkeys(args.methods, fingerprint())
    pythons = dict.fromkeys(args.methods, sys.executable)
    peers = peers_versions(args.peers) if args.peers else ""
    if peers:
        stamps |= dict.fromkeys(args.peer_entries, peers)
        pythons |= dict.fromkeys(args.peer_entries, args.peers)
    kept = {key(one): one for one in read(args.keep, set(stamps.values()))}
    tasks, skipped = [], {}
    for yard in args.only:
        if why := missing(yard, places):
            skipped[yard] = why
            print(f"{yard} skipped: {why}", file=sys.stderr)
            continue
        for name in names(yard, places, draws=args.draws, every=args.every):
            tasks += [{"yard": yard, "case": name, "entry": e, "stamp": s} for e, s in stamps.items()]
    found = [kept[key(t)] for t in tasks if key(t) in kept]
    if not args.as_it_is:
        found += run([t for t in tasks if key(t) not in kept], pythons, args)
    order = {key(task): place for place, task in enumerate(tasks)}
    found.sort(key=lambda one: order[key(one)])
    own = f"{version('whyprompt')} (its estimators' files have the fingerprint {fingerprint()})"
    notes = {"whyprompt": own, "peers": peers}
    text = page(found, places, notes=notes, entries=list(stamps), skipped=skipped)
    print(text)
    if args.write:
        args.write.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
