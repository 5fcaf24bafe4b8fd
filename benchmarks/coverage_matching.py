"""Does matching cover: every way of it, plain and adjusted by regression, on tables with a known effect.

The cells are named by what is in them and by their rows. Of ``lin`` five covariates move the log-odds of the
arm and the outcome linearly and every row has the effect 1; ``het`` lets the effect rise with a covariate,
``heavy`` has noise of Student's t with 3 degrees of freedom, ``binary`` a 0/1 outcome, ``cluster`` groups of
8 rows that share part of the arm's log-odds and of the noise, ``overlap`` a strong assignment, ``nonlin`` a
squared covariate in both. The truth of each draw's estimand is that of the population, by a table of a
million rows.

A row of the result says how often the 95% interval held the truth (with its Monte Carlo error), the root mean
square error, the mean of the stated errors over the spread of the estimates, and in how many draws there was
no interval. Of an effect on fewer rows than asked for (a caliper) the truth is still that of all: where the
effect is the same for every row that is the same number.

    python benchmarks/coverage_matching.py                       # 500 draws: about 20 minutes on a quiet core
    python benchmarks/coverage_matching.py --cells lin-500 --methods nearest --draws 2000
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ARM = np.array([0.6, 0.4, 0.3, 0.2, 0.0])
OUTCOME = np.array([1.0, 0.7, 0.5, 0.0, 0.5])
GROUP = 8

CELLS = (
    *("lin-100", "lin-500", "lin-2000", "het-500", "heavy-500", "binary-500"),
    *("cluster-480", "overlap-500", "nonlin-500"),
)
# What `estimate_effect` is asked for, by the name of the row.
METHODS: dict[str, dict[str, Any]] = {
    "nearest": {"method": "nearest"},
    "nearest, no caliper": {"method": "nearest", "caliper": "none"},
    "nearest, replaced": {"method": "nearest", "replace": True},
    "nearest, ate": {"method": "nearest", "estimand": "ate"},
    "optimal": {"method": "optimal"},
    "full": {"method": "full"},
    "full, ate": {"method": "full", "estimand": "ate"},
    "kernel": {"method": "kernel"},
    "kernel, ate": {"method": "kernel", "estimand": "ate"},
    "subclass": {"method": "subclass"},
    "cem": {"method": "cem", "cutpoints": dict.fromkeys("abcde", 3)},
}


class Table(NamedTuple):
    """A table of n rows: covariates (n, 5), the arm, the outcome, the effect on each row, and its group."""

    X: Floats
    treated: NDArray[np.bool_]
    y: Floats
    effect: Floats
    group: NDArray[np.int64]


def table(cell: str, n: int, rng: np.random.Generator) -> Table:
    """Draw a table of a cell."""
    X = rng.normal(size=(n, 5))
    group = np.arange(n) // GROUP
    odds, mean = X @ ARM - 0.7, X @ OUTCOME
    noise = rng.normal(size=n)
    effect = np.ones(n)
    if cell == "overlap":
        odds = 2.5 * (X @ ARM) - 0.7
    elif cell == "nonlin":
        odds, mean = odds + 0.4 * (X[:, 0] ** 2 - 1.0), mean + X[:, 0] ** 2
    elif cell == "heavy":
        noise = rng.standard_t(3, size=n)
    elif cell == "het":
        effect = 1.0 + X[:, 0]
    elif cell == "cluster":
        shared = rng.normal(size=(int(group[-1]) + 1, 2))[group]
        odds, noise = odds + 0.7 * shared[:, 0], noise + shared[:, 1]
    treated = rng.random(n) < 1.0 / (1.0 + np.exp(-odds))
    if cell == "binary":
        risks = [1.0 / (1.0 + np.exp(-(0.6 * mean + shift))) for shift in (-0.5, 0.3)]
        effect = risks[1] - risks[0]
        y = (rng.random(n) < np.where(treated, risks[1], risks[0])).astype(float)
    else:
        y = mean + noise + effect * treated
    return Table(X, treated, y, effect, group)


def cell_rows(cell: str, methods: dict[str, dict[str, Any]], draws: int) -> None:
    """Print the rows of one cell."""
    import pandas as pd

    from whyprompt import estimate_effect
    from whyprompt.errors import EstimationError

    kind, size = cell.rsplit("-", 1)
    whole = table(kind, 1_000_000, np.random.default_rng(1))
    truth = {
        "att": float(whole.effect[whole.treated].mean()),
        "atc": float(whole.effect[~whole.treated].mean()),
        "ate": float(whole.effect.mean()),
    }
    shared: dict[str, Any] = {"treatment": "arm", "outcome": "y", "confounders": list("abcde")}
    shared["cluster"] = "group" if kind == "cluster" else "none"
    plain: dict[str, Any] = {"regression_adjustment": False}
    found: dict[tuple[str, bool], list[tuple[float, float, bool]]] = {}
    lost: dict[tuple[str, bool], int] = {}
    for draw in range(draws):
        made = table(kind, int(size), np.random.default_rng([draw, int(size)]))
        frame = pd.DataFrame(made.X, columns=list("abcde"))
        frame = frame.assign(arm=made.treated.astype(int), y=made.y, group=made.group)
        for name, asked in methods.items():
            for adjusted in (False, True):
                key = name, adjusted
                found.setdefault(key, [])
                lost.setdefault(key, 0)
                try:
                    result = estimate_effect(frame, **shared, **asked, **({} if adjusted else plain))
                except EstimationError:
                    lost[key] += 1
                    continue
                if result.std_error is None or result.ci_low is None or result.ci_high is None:
                    lost[key] += 1
                    continue
                right = truth[asked.get("estimand", "att")]
                found[key].append(
                    (result.estimate - right, result.std_error, result.ci_low <= right <= result.ci_high)
                )
    print(f"\n{cell} ({draws} draws)")
    print(f"{'':22}{'plain':>33}{'regression adjustment':>34}")
    print(f"{'':22}" + 2 * f"{'cover':>13}{'RMSE':>8}{'se/sd':>7}{'none':>6}")
    for name in methods:
        parts = []
        for adjusted in (False, True):
            rows = np.array(found[name, adjusted], dtype=float).reshape(-1, 3)
            if len(rows) < 2:
                parts.append(f"{'-':>13}{'-':>8}{'-':>7}{lost[name, adjusted]:>6}")
                continue
            cover = rows[:, 2].mean()
            error = np.sqrt(cover * (1.0 - cover) / len(rows))
            rmse = np.sqrt((rows[:, 0] ** 2).mean())
            ratio = rows[:, 1].mean() / rows[:, 0].std(ddof=1)
            shown = f"{cover:.3f} ({error:.3f})"
            parts.append(f"{shown:>14}{rmse:7.3f}{ratio:7.2f}{lost[name, adjusted]:>6}")
        print(f"{name:22}" + "".join(parts), flush=True)


def main() -> None:
    """Print every cell that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--cells", nargs="*", default=CELLS, metavar="CELL")
    parser.add_argument("--methods", nargs="*", default=tuple(METHODS), metavar="METHOD")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    for cell in asked.cells:
        cell_rows(cell, {name: METHODS[name] for name in asked.methods}, asked.draws)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
