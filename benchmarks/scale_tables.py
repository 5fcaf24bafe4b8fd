"""A table in passes beside the same table in memory: processor time, memory, digits; then tables beyond it.

Tables are made by DuckDB: an arm that six covariates decide, and an outcome that they and the arm decide (by
0.3). Each estimate is made in a process of its own, so that its peak of resident memory is its own. Beside
the tables of `--both` rows stands the estimate in memory; those of `--rows` have a tenth of what they take.

    python benchmarks/scale_tables.py                              # 1e5 and 1e6 rows both ways, 1e7 in passes
    python benchmarks/scale_tables.py --both --rows 100000000      # 6 GB on disk; some minutes
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

import whyprompt as wp
from whyprompt.effects.large.source import parquet_files

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
    asked = parser.parse_args()
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
