"""A table in passes beside the same table in memory: processor time, memory, digits; then tables beyond it.

Tables are made by DuckDB: an arm that six covariates decide, and an outcome that they and the arm decide (by
0.3). Each estimate is made in a process of its own, so that its peak of resident memory is its own. Beside
the tables of `--both` rows stands the estimate in memory; those of `--rows` have a tenth of what they take.

    python benchmarks/scale_tables.py                              # 1e5 and 1e6 rows both ways, 1e7 in passes
    python benchmarks/scale_tables.py --both --rows 100000000      # 6 GB on disk; some minutes
    python benchmarks/scale_tables.py --coverage 80                # models from samples; curves confound
    python benchmarks/scale_tables.py --missed 5                   # what models from 200,000 rows miss

`--coverage` draws tables in which curves and products of the covariates decide arm and outcome, and estimates
the average effect of 0.3 in passes, by models from samples of a quarter of the rows and by straight lines.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet as pq

import whyprompt as wp
from whyprompt.effects.large import learned
from whyprompt.effects.large.source import parquet_files
from whyprompt.effects.methods.boosted import LogitAndTrees, RidgeAndTrees
from whyprompt.effects.methods.covariates import Covariates
from whyprompt.effects.methods.learners import fit_outcome, fit_score

Floats = NDArray[np.float64]
COVARIATES = ("a", "b", "c", "d", "e", "f")
TEXTBOOK = {"outcome_model": "linear", "calibrate": False}
METHODS: dict[str, dict[str, Any]] = {
    "naive": {"method": "naive"},
    "default": {},
    "ipw": {"method": "ipw", "estimand": "ate"},
    "overlap": {"method": "overlap"},
    "entropy": {"method": "entropy"},
    "nearest": {"method": "nearest"},
    "aipw": {"method": {"aipw": TEXTBOOK}, "propensity": "logit", "estimand": "ate"},
}
COMPARED = ("estimate", "std_error", "ci_low", "ci_high", "mean_treated", "mean_control")


def make(path: Path, rows: int) -> None:
    """Write the table, a million rows at a time in order."""
    normal = "sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random())"
    drawn = ", ".join(
        [f"{normal} as {name}" for name in COVARIATES[:4]]
        + ["floor(random() * 10) as e", "(random() < 0.3)::double as f"]
    )
    link = "0.4 * a - 0.3 * b + 0.2 * c + 0.05 * e - 0.4 * f - 0.2"
    chosen = f"(random() < 1 / (1 + exp(-({link}))))::int"
    outcome = f"0.3 * arm + 0.5 * a + 0.2 * b - 0.4 * d + 0.1 * e + {normal}"
    table = f"(select *, {chosen} as arm from (select {drawn} from range({rows})))"  # noqa: S608 - ours
    connection = duckdb.connect(config={"threads": 1, "memory_limit": "500MB"})
    connection.execute("select setseed(0.5)")
    columns = f"arm, {outcome} as y, {', '.join(COVARIATES)}"
    connection.execute(f"copy (select {columns} from {table}) to '{path}'")  # noqa: S608 - ours


def one(path: str, method: str, memory: str) -> None:
    """Estimate once, and print what it took."""
    began, wall = time.process_time(), time.monotonic()
    result = wp.estimate_effect(
        path,
        treatment="arm",
        outcome="y",
        confounders=[] if method == "naive" else COVARIATES,
        memory=memory,
        **METHODS[method],
    )
    print(
        json.dumps(
            {
                "seconds": time.process_time() - began,
                "wall": time.monotonic() - wall,
                "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "figures": [getattr(result.overall, name) for name in COMPARED],
                "table": result.settings["table"],
            }
        )
    )


def measured(path: Path, method: str, memory: int | str) -> dict[str, Any]:
    words = [sys.executable, __file__, "--one", str(path), method, str(memory)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def curved(rng: np.random.Generator, rows: int) -> tuple[Floats, Floats, Floats]:
    """Draw covariates, the chance of the arm and what they do to the outcome, by curves and a product."""
    X = np.asfortranarray(np.column_stack([rng.normal(size=(rows, 3)), rng.random(rows) < 0.4]))
    a, b, c, d = X.T
    bent = np.abs(a), a * b, np.sin(2 * c), d
    link = -0.6 + np.array([0.8, 0.4, -0.3, 0.3]) @ bent
    return X, 1 / (1 + np.exp(-link)), np.array([1.0, 0.5, -0.5, 0.3]) @ bent


def missed(draws: int, rows: int = 200_000) -> None:
    """Say how far what models of so many rows miss moves an average effect, beside which nothing is drawn."""
    X, chance, curve = curved(np.random.default_rng(9), 300_000)
    none, found = np.empty((rows, 0), dtype=np.int64), []
    for draw in range(draws):
        rng = np.random.default_rng([1, draw])
        seen, own, _ = curved(rng, rows)
        arm = rng.random(rows) < own
        e = np.clip(fit_score(seen, arm, LogitAndTrees.settled(Covariates(seen, none), arm))(X), 0.01, 0.99)
        off = 0.0
        for sign, share in ((1.0, chance / e), (-1.0, (1 - chance) / (1 - e))):
            seen, own, drawn = curved(rng, 3 * rows)
            mine = np.flatnonzero((rng.random(3 * rows) < own) == (sign > 0))[:rows]
            y = drawn[mine] + rng.normal(size=len(mine))
            guess = fit_outcome(np.asfortranarray(seen[mine]), y, RidgeAndTrees(1.0)).predict(X)
            off += sign * float(((1 - share) * (guess - curve)).mean())
        found.append(off)
    print(
        f"models from {rows:,} rows miss {np.mean(found):.5f}, from {min(found):.5f} to {max(found):.5f}"
        f" in {draws} draws"
    )


def covered(repeats: int, rows: int = 20_000) -> None:
    """Count how often the intervals of tables drawn anew hold the effect, by learned models and by lines."""
    sample = rows // 4
    vars(learned)["ROWS"] = sample
    ways: dict[str, dict[str, Any]] = {
        "default": {},
        "lines": {"method": {"aipw": TEXTBOOK}, "propensity": "logit"},
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "t.parquet")
        for draw in range(repeats):
            rng = np.random.default_rng([8, draw])
            X, chance, curve = curved(rng, rows)
            arm = rng.random(rows) < chance
            y = 0.3 * arm + curve + rng.normal(size=rows)
            columns = dict(zip("abcd", X.T, strict=True))
            pq.write_table(pa.table({"arm": arm.astype(int), "y": y, **columns}), path)
            for name, asked in ways.items():
                result = wp.estimate_effect(
                    path,
                    treatment="arm",
                    outcome="y",
                    confounders=list(columns),
                    estimand="ate",
                    memory="1KB",
                    **asked,
                )
                found[name].append((result.estimate - 0.3, result.std_error or float("nan")))
    print(f"{rows:,} rows, models from {sample:,}, {repeats} tables")
    print(f"{'':8} {'bias':>8} {'spread':>8} {'mean error':>10} {'in 95% intervals':>17}")
    for name, pairs in found.items():
        off, error = np.array(pairs).T
        inside = float((np.abs(off) <= 1.96 * error).mean())
        print(f"{name:8} {off.mean():8.4f} {off.std(ddof=1):8.4f} {error.mean():10.4f} {inside:17.3f}")


def line(rows: int, method: str, found: dict[str, Any], digits: str) -> str:
    estimate, error = found["figures"][:2]
    return (
        f"{rows:>11,} {method:8} {found['seconds']:8.1f} {found['peak'] / 1e6:8.0f} {estimate:9.5f}"
        f" {error:9.2g}  {digits:9} {found['table']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--both", type=int, nargs="*", default=[100_000, 1_000_000], metavar="ROWS")
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000_000], metavar="ROWS")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--folder", type=Path, help="where tables are written, and kept")
    parser.add_argument(
        "--one", nargs=3, metavar=("PATH", "METHOD", "MEMORY"), help="one estimate, in this process"
    )
    parser.add_argument(
        "--coverage", type=int, metavar="TABLES", help="so many tables drawn anew, and no other"
    )
    parser.add_argument("--missed", type=int, metavar="DRAWS", help="what models from 200,000 rows miss")
    asked = parser.parse_args()
    if asked.coverage:
        covered(asked.coverage)
        return
    if asked.missed:
        missed(asked.missed)
        return
    if asked.one:
        one(*asked.one)
        return
    print(
        f"{'rows':>11} {'method':8} {'cpu s':>8} {'peak MB':>8} {'estimate':>9} {'error':>9}  digits    how"
    )
    with tempfile.TemporaryDirectory() as made:
        folder = asked.folder or Path(made)
        for rows in [*asked.both, *asked.rows]:
            path = folder / f"rows_{rows}.parquet"
            if not path.exists():
                make(path, rows)
            size = parquet_files(str(path), 1).size
            for method in asked.methods:
                found = measured(path, method, size // 10)
                if rows in asked.both:
                    whole = measured(path, method, size)
                    apart = max(
                        abs(a - b) / abs(b) for a, b in zip(found["figures"], whole["figures"], strict=True)
                    )
                    print(line(rows, method, whole, ""))
                    print(line(rows, method, found, f"{apart:.0e}"), flush=True)
                else:
                    print(line(rows, method, found, ""), flush=True)


if __name__ == "__main__":
    main()
