"""The default estimator at 10,000 to 1,000,000 rows, beside DoubleML with the same learners, in one run.

Ten covariates, arm and outcome that go by curves of them, an effect of 1, the same tables for both. In the
world of `curves` these are squares, a sine and a product; in the `sharp` one steps, signs of three columns at
once, and bends, which thousands of rows teach in part: whatever is learned there is off by several of its
standard errors, and the question is who says so.
`default` names no method. Of the others each entry learns the score and the outcome by the same scikit-
learn learners: boosted trees with the options that the default's have, or straight lines. Folds are dealt
once; their number is each library's own (five, and three here from 100,000 rows), or that of
`--folds`. Each fit is in a process of its own, with one thread unless `--threads` says otherwise; beside the
time stands the processor's (on a shared machine the first holds the others' work as well) and the peak of
memory above what the process held before. Estimates of several tables say that both are as accurate.

    python benchmarks/default.py --peers /path/to/python       # a Python with doubleml
    python benchmarks/default.py --rows 10000 --tables 20
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from importlib import import_module
from typing import Any

import numpy as np

COLUMNS = 10
OUTCOME = {"max_iter": 200, "learning_rate": 0.1, "max_leaf_nodes": 8, "min_samples_leaf": 5}
SCORE = {"max_iter": 150, "learning_rate": 0.08, "max_leaf_nodes": 7, "min_samples_leaf": 20}
SHARED = {"l2_regularization": 1.0, "early_stopping": False, "random_state": 0}


def table(n: int, seed: int, world: str) -> tuple[Any, Any, Any]:
    """Draw covariates, arm and outcome."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, COLUMNS))
    if world == "sharp":
        curve = (x[:, 0] > 0.5) + (x[:, 1] < -0.3) * (x[:, 2] > 0) - np.abs(x[:, 3]) + np.sin(2 * x[:, 4])
        curve = curve + 0.5 * np.sign(x[:, 0] * x[:, 1] * x[:, 2])
        arm = rng.random(n) < 1 / (1 + np.exp(-np.clip(0.8 * (curve + 0.3), -2.5, 2.5)))
        return x, arm, 1.5 * curve + x[:, 5] + arm + rng.normal(size=n)
    odds = np.clip(0.5 * x[:, 0] + 0.4 * (x[:, 1] ** 2 - 1) + 0.3 * x[:, 2] * x[:, 3] - 0.5, -2.5, 2.5)
    arm = rng.random(n) < 1 / (1 + np.exp(-odds))
    mean = 2 * np.sin(x[:, 0]) + x[:, 1] ** 2 + x[:, 2] * x[:, 3] + x[:, 4:] @ np.linspace(1, 0.2, 6)
    return x, arm, mean + arm + rng.normal(size=n)


def learners(entry: str) -> tuple[Any, Any]:
    """Give the learners of the outcome and of the score."""
    if entry.endswith("trees"):
        made = import_module("sklearn.ensemble")
        return (
            made.HistGradientBoostingRegressor(**OUTCOME, **SHARED),
            made.HistGradientBoostingClassifier(**SCORE, **SHARED),
        )
    made = import_module("sklearn.linear_model")
    return made.LinearRegression(), made.LogisticRegression(max_iter=1000)


def ours(
    entry: str, estimand: str, folds: int | None, data: tuple[Any, Any, Any]
) -> tuple[float, float, bool]:
    import pandas as pd

    from whyprompt import estimate_effect

    x, arm, y = data
    names = [f"x{j}" for j in range(COLUMNS)]
    asked: dict[str, Any] = {}
    if entry != "default":
        outcome, score = learners(entry)
        asked = {
            "method": {"aipw": {"outcome_model": outcome, "folds": folds, "splits": 1}},
            "propensity": score,
        }
    frame = pd.DataFrame(x, columns=names).assign(arm=arm, y=y)
    made = estimate_effect(frame, treatment="arm", outcome="y", confounders=names, estimand=estimand, **asked)
    assert made.estimate is not None
    assert made.std_error is not None
    return made.estimate, made.std_error, any(a.status == "fails" for a in made.assumptions)


def doubleml(
    entry: str, estimand: str, folds: int | None, data: tuple[Any, Any, Any]
) -> tuple[float, float, bool]:
    peer = import_module("doubleml")
    x, arm, y = data
    outcome, score = learners(entry)
    model = peer.DoubleMLIRM(
        peer.DoubleMLData.from_arrays(x, y, arm.astype(float)),
        outcome,
        score,
        n_folds=folds or 5,
        score={"att": "ATTE", "ate": "ATE"}[estimand],
    )
    model.fit()
    return float(model.coef[0]), float(model.se[0]), False


def measure(entry: str, estimand: str, folds: int | None, n: int, tables: int, world: str) -> dict[str, Any]:
    """Estimate from tables, after one of 2,000 rows that brings the imports in and is not timed."""
    import resource

    who = doubleml if entry.startswith("DoubleML") else ours
    name = entry.removeprefix("DoubleML ")
    who(name, estimand, folds, table(2_000, 0, world))
    found, wall, cpu = [], [], []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(1, tables + 1):
        data = table(n, seed, world)
        if seed == 1:
            before = max(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        a, b = time.perf_counter(), time.process_time()
        found.append(who(name, estimand, folds, data))
        wall.append(time.perf_counter() - a)
        cpu.append(time.process_time() - b)
    off, error, declined = np.array(found, dtype=float).T - np.array([[1.0], [0.0], [0.0]])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "rmse": float(np.sqrt((off**2).mean())),
        "error": float(error.mean()),
        "covered": int((np.abs(off) <= 1.96 * error).sum()),
        "declined": int(declined.sum()),
        "wall": min(wall),
        "cpu": min(cpu),
        "mib": peak / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--tables", type=int, default=5, help="of each size; one from 1,000,000 rows on")
    parser.add_argument("--estimands", nargs="+", choices=("att", "ate"), default=["att", "ate"])
    parser.add_argument("--peers", help="a Python with doubleml")
    parser.add_argument("--world", choices=("curves", "sharp"), default="curves")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folds", type=int, help="of both; each library's own where left out")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        entry, estimand, n, tables = args.worker
        print(json.dumps(measure(entry, estimand, args.folds, int(n), int(tables), args.world)))
        return
    threads = {name: str(args.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    print("| rows | estimand | entry | processor s | wall s | MiB | RMSE | mean error | covered | declines |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for n in args.rows:
        tables = 1 if n >= 1_000_000 else args.tables
        for estimand in args.estimands:
            entries = {"default": sys.executable, "trees": sys.executable, "lines": sys.executable}
            if args.peers:
                entries |= {"DoubleML trees": args.peers, "DoubleML lines": args.peers}
            for entry, python in entries.items():
                command = [python, __file__, "--worker", entry, estimand, str(n), str(tables)]
                command += ["--world", args.world]
                command += ["--folds", str(args.folds)] if args.folds else []
                done = subprocess.run(
                    command, capture_output=True, text=True, env=os.environ | threads, check=False
                )
                if done.returncode:
                    raise SystemExit(f"{entry}, {n} rows: {done.stderr.strip().splitlines()[-1]}")
                r = json.loads(done.stdout.strip().splitlines()[-1])
                print(
                    f"| {n:,} | {estimand} | {entry} | {r['cpu']:.2f} | {r['wall']:.2f} | {r['mib']:.0f} |"
                    f" {r['rmse']:.4f} | {r['error']:.4f} | {r['covered']} of {tables} | {r['declined']} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
