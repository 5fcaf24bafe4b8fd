"""What the 95% intervals of `mediate` cover, on small data shaped like prompts' own.

Worlds whose truth is known. Mediators are skewed (log-normal errors) and outcomes have a tail of failures
(negative exponential errors), the treatment is two prompts:

rows      items of their own, half under each prompt;
uneven    the same, but both errors vary three times as much under the second prompt;
logit     rows with a binary outcome;
within    clusters are items with both prompts, and each item moves its mediator and its outcome;
between   clusters of four items, of which a prompt has all or none;
lopsided  the same with a quarter of the clusters under the second prompt.

For each method the share of samples whose interval holds the truth is printed for the average mediated and
the average direct effect, with its Monte Carlo standard error, and the share of calls that were refused.

    python benchmarks/coverage_mediate.py
    python benchmarks/coverage_mediate.py --reps 200 --only within
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd

from whyprompt import mediate
from whyprompt.errors import EstimationError

A, B, C = 0.8, 0.7, 0.4
SIZES = {
    "rows": (8, 10, 16, 30, 60),
    "uneven": (10, 16, 30),
    "logit": (30, 60, 120),
    "within": (6, 8, 10, 16, 24),
    "between": (6, 8, 10, 16, 24),
    "lopsided": (8, 12, 24),
}
METHODS: dict[str, dict[str, Any]] = {
    "quasi_bayes": {},
    "robust": {"robust": True},
    "bootstrap": {"method": "bootstrap"},
}


def skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    """Log-normal errors with mean 0 and variance 1."""
    return np.asarray((np.exp(rng.normal(size=n)) - np.exp(0.5)) / np.sqrt(np.exp(2) - np.exp(1)))


def tailed(rng: np.random.Generator, n: int) -> np.ndarray:
    """Errors with a tail of failures, mean 0 and variance 1."""
    return 1 - rng.exponential(size=n)


def logit_truth() -> tuple[float, float]:
    """Average mediated and direct effect of the logit world, by drawing many mediators."""
    e = skewed(np.random.default_rng(0), 1_000_000)

    def mean(arm: int, mediator: int) -> float:
        return float((1 / (1 + np.exp(0.5 - C * arm - B * (A * mediator + e)))).mean())

    m = {(t, s): mean(t, s) for t in (0, 1) for s in (0, 1)}
    mediated = (m[0, 1] - m[0, 0] + m[1, 1] - m[1, 0]) / 2
    return mediated, m[1, 1] - m[0, 0] - mediated


def make(world: str, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw one sample of n rows, or of n clusters."""
    if world in {"rows", "uneven", "logit"}:
        t = rng.permutation(np.arange(n) % 2).astype(float)
        spread = 1 + 2 * t if world == "uneven" else 1.0
        m = A * t + spread * skewed(rng, n)
        y = C * t + B * m + spread * tailed(rng, n)
        if world == "logit":
            y = (rng.random(n) < 1 / (1 + np.exp(0.5 - C * t - B * m))).astype(float)
        return pd.DataFrame({"t": t, "m": m, "y": y, "g": np.arange(n)})
    size = 2 if world == "within" else 4
    g = np.repeat(np.arange(n), size)
    if world == "within":
        t = np.tile([0.0, 1.0], n)
    else:
        treated = n // 4 if world == "lopsided" else n // 2
        t = (rng.permutation(n) < treated)[g].astype(float)
    half = np.sqrt(0.5)
    m = A * t + half * (skewed(rng, n)[g] + skewed(rng, len(g)))
    y = C * t + B * m + half * (tailed(rng, n)[g] + tailed(rng, len(g)))
    return pd.DataFrame({"t": t, "m": m, "y": y, "g": g})


def coverage(world: str, n: int, method: str, reps: int, draws: int = 1000) -> dict[str, float]:
    """Share of samples whose 95% interval holds the truth, and of those refused."""
    truth = dict(zip(("acme", "ade"), logit_truth() if world == "logit" else (A * B, C), strict=True))
    options: dict[str, Any] = {"treatment": "t", "mediator": "m", "outcome": "y", "draws": draws}
    options |= METHODS[method] | ({"outcome_model": "logit"} if world == "logit" else {})
    if world in {"within", "between", "lopsided"}:
        options["cluster"] = "g"
    held, refused = dict.fromkeys(truth, 0), 0
    for rep in range(reps):
        frame = make(world, n, np.random.default_rng([rep, n]))
        try:
            found = mediate(frame, **options, random_state=rep)
        except EstimationError:
            refused += 1
            continue
        for name, value in truth.items():
            low, high = found.part(name).ends
            held[name] += low < value < high
    answered = max(1, reps - refused)
    return {name: count / answered for name, count in held.items()} | {"refused": refused / reps}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--reps", type=int, default=1000)
    parser.add_argument("--only", choices=list(SIZES))
    args = parser.parse_args()
    error = 100 * np.sqrt(0.95 * 0.05 / args.reps)
    print(f"{args.reps} samples; Monte Carlo standard error {error:.1f} points at 95%")
    for world, sizes in SIZES.items():
        if args.only not in {None, world}:
            continue
        clustered = world in {"within", "between", "lopsided"}
        for n in sizes:
            for method in METHODS:
                if method == "robust" and clustered:
                    continue
                got = coverage(world, n, method, args.reps)
                print(
                    f"  {world:8} {n:4} {'clusters' if clustered else 'rows':8} {method:11} "
                    f"mediated {100 * got['acme']:5.1f}%  direct {100 * got['ade']:5.1f}%"
                    + (f"  refused {100 * got['refused']:.0f}%" if got["refused"] else ""),
                    flush=True,
                )


if __name__ == "__main__":
    main()
