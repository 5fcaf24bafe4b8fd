"""Coverage of the default estimator on simulated tables whose truth is known, shaped like prompt logs.

Logs have 27 task families of unlike difficulty, a right-skewed length, a 0/1 outcome and an effect that
differs by family; the arm is drawn by a coin, by family, by length, or by both. The other tables are linear,
have heavy tails, or a curved score and outcome, or a text column with a level for every 20 rows, whose levels
move arm and outcome. Each draw is a fresh sample, and the interval is held to the
effect in the population that it comes from (of the estimand that the result names). Beside bias, error and
coverage stands how often the sentence declines, with Monte Carlo errors.

    python benchmarks/coverage_default.py
    python benchmarks/coverage_default.py --cells log-both --rows 400 1500 --draws 500 --methods default ipw
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FAMILIES = 27
_SHAPE = np.random.default_rng(7)
EASE = np.clip(_SHAPE.beta(1.5, 1.5, FAMILIES), 0.03, 0.97)
GAIN = _SHAPE.normal(0.15, 0.15, FAMILIES)
# Rows that the population's effect is computed from.
POPULATION = 1_000_000
World = tuple[pd.DataFrame, "Floats", "Floats", "Floats"]


def logs(n: int, rng: np.random.Generator, *, rule: str) -> World:
    """Draw covariates, the chance of the arm, and the mean outcome under either."""
    family, size = rng.integers(0, FAMILIES, n), rng.normal(size=n)
    frame = pd.DataFrame({"family": [f"f{k:02d}" for k in family], "length": np.exp(5 + 0.6 * size)})
    by_family = -0.1 - 4.0 * (EASE[family] - EASE.mean())
    odds = {
        "coin": np.zeros(n),
        "family": by_family,
        "length": 0.8 * size,
        "both": by_family + 0.8 * size,
    }[rule]
    none = np.clip(EASE[family] - 0.08 * size, 0.02, 0.98)
    return frame, 1 / (1 + np.exp(-odds)), none, np.clip(none + GAIN[family], 0.02, 0.98)


def numbers(n: int, rng: np.random.Generator, *, curved: bool = False) -> World:
    """The same with ten columns of numbers, and an effect of 1."""
    x = rng.normal(size=(n, 5 if curved else 10))
    frame = pd.DataFrame({f"x{j}": x[:, j] for j in range(x.shape[1])})
    if curved:
        odds = x[:, 0] + 0.7 * (x[:, 1] ** 2 - 1) - 0.5
        none = 2 * np.sin(1.5 * x[:, 0]) + x[:, 1] ** 2 + x[:, 0] * x[:, 2]
    else:
        odds = 0.5 * x[:, 0] + 0.5 * x[:, 1] - 0.3 * x[:, 2] - 0.5
        none = x @ np.linspace(1.0, 0.1, x.shape[1])
    return frame, 1 / (1 + np.exp(-odds)), none, none + 1.0


def levels(n: int, rng: np.random.Generator) -> World:
    """A level for every 20 rows, as of templates or documents, and a number; the effect is 1."""
    many = max(n // 20, 1)
    own = np.random.default_rng(11).normal(size=many)
    at, x = rng.integers(0, many, n), rng.normal(size=n)
    frame = pd.DataFrame({"level": [f"l{k:05d}" for k in at], "x": x})
    none = own[at] + x
    return frame, 1 / (1 + np.exp(-(0.7 * own[at] + 0.5 * x))), none, none + 1.0


CELLS: dict[str, Callable[[int, np.random.Generator], World]] = {
    **{f"log-{rule}": partial(logs, rule=rule) for rule in ("coin", "family", "length", "both")},
    "linear": numbers,
    "heavy": numbers,
    "curved": partial(numbers, curved=True),
    "levels": levels,
}


def sample(cell: str, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw one table: covariates, arm and outcome."""
    frame, chance, none, one = CELLS[cell](n, rng)
    arm = rng.random(n) < chance
    mean = np.where(arm, one, none)
    if cell.startswith("log"):
        y = (rng.random(n) < mean).astype(float)
    elif cell == "heavy":
        y = mean + rng.standard_t(3, n)
    else:
        y = mean + rng.normal(size=n)
    return frame.assign(arm=arm, y=y)


def truths(cell: str) -> dict[str, float]:
    """Give the population's effect by estimand."""
    _, e, none, one = CELLS[cell](POPULATION, np.random.default_rng(99))
    weight = {"att": e, "atc": 1 - e, "ate": np.ones_like(e), "ato": e * (1 - e)}
    return {name: float(w @ (one - none) / w.sum()) for name, w in weight.items()}


def one_cell(cell: str, n: int, method: str, draws: int, estimand: str | None) -> str:
    """Estimate from every draw, and say how the estimates and intervals did."""
    from whyprompt import estimate_effect
    from whyprompt.errors import WhypromptError

    true = truths(cell)
    options: dict[str, Any] = {} if method == "default" else {"method": method}
    rows, refused, began = [], 0, time.process_time()
    for draw in range(draws):
        table = sample(cell, n, np.random.default_rng([draw, n]))
        names = [name for name in table.columns if name not in {"arm", "y"}]
        try:
            r = estimate_effect(
                table, treatment="arm", outcome="y", confounders=names, estimand=estimand, **options
            )
        except WhypromptError:
            refused += 1
            continue
        off = r.estimate - true[r.estimand]
        held = r.ci_low is not None and r.ci_high is not None and r.ci_low <= true[r.estimand] <= r.ci_high
        failed = any(a.status == "fails" for a in r.assumptions)
        rows.append((off, held, failed, r.std_error or np.nan, r.estimand == "ato"))
    if not rows:
        return f"| {cell} | {n} | {method} | refused {refused} of {draws} | | | | | |"
    off, held, failed, error, moved = np.array(rows, dtype=float).T
    share = held.mean()
    margin = 1.96 * np.sqrt(share * (1 - share) / len(off))
    silent = ((1 - held) * (1 - failed)).mean()
    return (
        f"| {cell} | {n} | {method} | {off.mean():+.3f} | {np.sqrt((off**2).mean()):.3f} |"
        f" {error.mean() / off.std():.2f} | {share:.3f} ± {margin:.3f} |"
        f" {failed.mean():.3f} | {silent:.3f} | {moved.mean():.2f} | {refused} |"
        f" {(time.process_time() - began) / draws:.1f} |"
    )


def main() -> None:
    """Print one row for each cell, number of rows and method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", choices=tuple(CELLS), default=tuple(CELLS))
    parser.add_argument("--rows", nargs="+", type=int, default=(500,))
    parser.add_argument("--methods", nargs="+", default=("default",))
    parser.add_argument("--estimand", choices=("att", "atc", "ate", "ato"))
    parser.add_argument("--draws", type=int, default=500)
    asked = parser.parse_args()
    head = ("table", "rows", "method", "bias", "RMSE", "error / spread", "coverage", "declines")
    print("|", " | ".join((*head, "silent misses", "ATO", "refused", "s")), "|")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for cell in asked.cells:
        for n in asked.rows:
            for method in asked.methods:
                print(one_cell(cell, n, method, asked.draws, asked.estimand), flush=True)


if __name__ == "__main__":
    main()
