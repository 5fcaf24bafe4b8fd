# ruff: noqa: ANN401  # the peers ship no types
"""Statistical mediation: whyprompt beside statsmodels and pingouin, in one run.

The same 100,000 rows and 1,000 draws, one thread, each tool in a process of its own that reports its
processor seconds and the memory it took beyond the data. Two worlds whose truth is known: two linear models
with a treatment-mediator interaction, and a binary outcome by a logit. statsmodels draws coefficients
(parametric); pingouin resamples rows; whyprompt does both. Each tool's mediation effect is printed beside the
truth.

    python -m venv /tmp/pg && /tmp/pg/bin/pip install pingouin==0.7.0
    python benchmarks/mediate.py --pingouin /tmp/pg/bin/python
    python benchmarks/mediate.py --only whyprompt
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

# pingouin runs this file in its own environment: numpy and the standard library only at the top.

COLUMNS = ("t", "m", "y", "c", "binary", "binary_m")


def status(key: str) -> float:
    """Read one line of /proc/self/status, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def make(n: int, seed: int = 0) -> tuple[np.ndarray, dict[str, float]]:
    """Draw the worlds, and the sample's own mediation effects of the treated arm."""
    rng = np.random.default_rng(seed)
    t, c = rng.integers(0, 2, n).astype(float), rng.normal(size=n)
    e, u, v = rng.normal(size=(3, n))
    w = rng.logistic(size=n)

    def mediator(arm: Any) -> Any:
        return 0.2 + 0.8 * arm + 0.5 * c + e

    def outcome(arm: Any, m: Any) -> Any:
        return 0.5 * arm + 0.7 * m + 0.3 * arm * m + 0.4 * c + u

    def binary(arm: Any, m: Any) -> Any:
        return (-0.5 + 0.3 * arm + 0.6 * m + 0.2 * c + w > 0).astype(float)

    def binary_mediator(arm: Any) -> Any:
        return (-0.5 + arm + v * np.pi / np.sqrt(3) > 0).astype(float)

    truth = {
        "linear": float((outcome(1, mediator(1)) - outcome(1, mediator(0))).mean()),
        "logit": float((binary(1, mediator(1)) - binary(1, mediator(0))).mean()),
    }
    m = mediator(t)
    return np.column_stack([t, m, outcome(t, m), c, binary(t, m), binary_mediator(t)]), truth


def run_whyprompt(data: np.ndarray, kind: str, draws: int) -> float:
    import pandas as pd

    from whyprompt import mediate

    frame = pd.DataFrame(data, columns=list(COLUMNS))
    world, method = kind.split("/")
    options: dict[str, Any] = {"outcome": "y", "interaction": True}
    if world == "logit":
        options = {"outcome": "binary", "outcome_model": "logit"}
    options["method"] = method
    result = mediate(frame, treatment="t", mediator="m", confounders=["c"], draws=draws, **options)
    return result.part("acme_treated").estimate or 0.0


def run_statsmodels(data: np.ndarray, kind: str, draws: int) -> float:
    import pandas as pd
    import statsmodels.api as sm
    from statsmodels.stats.mediation import Mediation

    frame = pd.DataFrame(data, columns=list(COLUMNS))
    mediator = sm.OLS.from_formula("m ~ t + c", frame)
    if kind.startswith("logit"):
        outcome = sm.GLM.from_formula("binary ~ t + c + m", frame, family=sm.families.Binomial())
    else:
        outcome = sm.OLS.from_formula("y ~ t * m + c", frame)
    table = Mediation(outcome, mediator, "t", "m").fit(method="parametric", n_rep=draws).summary()
    return float(table.loc["ACME (treated)", "Estimate"])


def run_pingouin(data: np.ndarray, kind: str, draws: int) -> float:
    import pandas as pd
    import pingouin

    frame = pd.DataFrame(data, columns=list(COLUMNS))
    y = "binary" if kind.startswith("logit") else "y"
    table = pingouin.mediation_analysis(frame, x="t", m="m", y=y, covar="c", n_boot=draws, seed=0)
    return float(table.set_index("path").loc["Indirect", "coef"])


TOOLS = {"whyprompt": run_whyprompt, "statsmodels": run_statsmodels, "pingouin": run_pingouin}


def work(tool: str, kind: str, draws: int, path: str, out: str) -> None:
    """Run one tool in this process and write what it found."""
    data = np.load(path)
    TOOLS[tool](data[:500], kind, 10)  # imports and first calls are nobody's time
    resident = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # starts the peak afresh
    cpu, wall = time.process_time(), time.perf_counter()
    estimate = TOOLS[tool](data, kind, draws)
    Path(out).write_text(
        json.dumps(
            {
                "cpu_s": time.process_time() - cpu,
                "wall_s": time.perf_counter() - wall,
                "extra_mib": status("VmHWM") - resident,
                "acme": estimate,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--pingouin", metavar="PYTHON", help="an interpreter that has pingouin")
    parser.add_argument("--only", choices=list(TOOLS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.work:
        tool, kind, draws, path, out = args.work
        work(tool, kind, int(draws), path, out)
        return
    data, truth = make(args.rows)
    plan = [
        ("whyprompt", "linear/quasi_bayes"),
        ("whyprompt", "linear/bootstrap"),
        ("statsmodels", "linear/parametric"),
        ("pingouin", "linear/bootstrap"),
        ("whyprompt", "logit/quasi_bayes"),
        ("statsmodels", "logit/parametric"),
        ("pingouin", "logit/bootstrap"),
    ]
    report: dict[str, Any] = {"rows": args.rows, "draws": args.draws, "truth": truth}
    slowest: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        path, out = Path(name) / "data.npy", Path(name) / "out.json"
        np.save(path, data)
        print(f"{args.rows:,} rows, {args.draws:,} draws, one thread; processor seconds")
        for tool, kind in plan:
            if args.only not in (None, tool) or (tool == "pingouin" and not args.pingouin):
                continue
            out.unlink(missing_ok=True)
            python = str(args.pingouin) if tool == "pingouin" else sys.executable
            done = subprocess.run(
                [python, __file__, "--work", tool, kind, str(args.draws), str(path), str(out)],
                env=os.environ
                | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                check=False,
            )
            world = kind.split("/")[0]
            if not out.exists():
                print(f"  {tool:12} {kind:20} did not finish: {done.stderr.strip()[-120:]}")
                continue
            got = json.loads(out.read_text())
            report[f"{tool} {kind}"] = got
            ratio = ""
            if tool == "whyprompt":
                slowest[world] = max(slowest.get(world, 0.0), got["cpu_s"])
            elif world in slowest:
                ratio = f", {got['cpu_s'] / slowest[world]:.1f} x whyprompt's slower method"
            print(
                f"  {tool:12} {kind:20} {got['cpu_s']:8.2f} s, {got['extra_mib']:7.0f} MiB extra, "
                f"treated ACME {got['acme']:.4f} (truth {truth[world]:.4f}){ratio}",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
