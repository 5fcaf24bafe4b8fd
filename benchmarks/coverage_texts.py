"""What `paired_mediation` makes of tables shaped like paired logs: bias, and what its 95% intervals cover.

Worlds whose truth is known. Lengths are log-normal, longer for hard items and under the second prompt; hard
items are answered worse under both prompts, so that between items the longer answer is the worse one.

line      the score is the item's level, what the prompt adds and 0.02 for each word, with errors of its own;
binary    0/1, with a chance that is logistic in the item, the prompt and the logarithm of the words, so that
          the linear model of differences is an approximation;
log, both the same, with the logarithm of the words as the mediator, and with words and logarithm as one,
          which is what `text_mediation` takes for the length;
short     as line, and the first prompt's answers are all one word long;
clusters  as line, four items a template, which moves what the prompt adds and how long answers are;
two       length and a list of bullets, each with an effect of its own, and bullets make answers longer;
content   as line, but how well thought out an answer is moves its length and its score: the assumption fails.

For NIE, NDE and the share NIE / TE: the mean of the estimates less the truth, in standard deviations of the
estimates, and how often the interval holds the truth. The last column is the bias of the NIE that `mediate`
gives for the same rows with items as clusters, which compares between items too.

    python benchmarks/coverage_texts.py
    python benchmarks/coverage_texts.py --reps 1000 --only binary
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from whyprompt import mediate, paired_mediation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

SIZES = {
    "line": (12, 30, 100),
    "binary": (30, 100, 300),
    "log": (30, 100, 300),
    "both": (30, 100, 300),
    "short": (12, 30, 100),
    "clusters": (8, 12, 24),
    "two": (30, 100),
    "content": (100,),
}
BINARY = ("binary", "log", "both")
MEDIATORS = {
    "two": {"text": ["words", "list"]},
    "log": "log_words",
    "both": {"length": ["words", "log_words"]},
}
ASKED: dict[str, Any] = {"treatment": "arm", "outcome": "y", "item": "item", "treated": "b", "control": "a"}


def lengths(arm: int, hard: Array, bullets: Array, rng: np.random.Generator) -> Array:
    """Draw answers' lengths in words."""
    return np.exp(3.2 + 0.5 * arm + 0.3 * hard + 0.2 * bullets + 0.5 * rng.normal(size=len(hard)))


def chance(arm: int, words: Array, hard: Array) -> Array:
    """Give the chance of a right answer."""
    return np.asarray(1 / (1 + np.exp(2.2 - 0.4 * arm - 0.6 * np.log(words) + 1.2 * hard)))


def truth(world: str, n: int = 400_000) -> dict[str, float]:
    """Give the true effects, by the world's own law."""
    rng = np.random.default_rng(0)
    hard = rng.normal(size=n)
    none = np.zeros(n)
    if world in BINARY:
        m = [lengths(arm, hard, none, rng) for arm in (0, 1)]
        nie = float((chance(1, m[1], hard) - chance(1, m[0], hard)).mean())
        te = float((chance(1, m[1], hard) - chance(0, m[0], hard)).mean())
    else:
        share = (0.2, 0.6) if world == "two" else (0.0, 0.0)
        m = [lengths(arm, hard, (rng.random(n) < share[arm]).astype(float), rng) for arm in (0, 1)]
        if world == "short":
            m[0] = np.ones(n)
        nie = 0.02 * float((m[1] - m[0]).mean()) + 0.3 * (share[1] - share[0])
        te = nie + 0.3
    return {"nie": nie, "nde": te - nie, "proportion": nie / te}


def make(world: str, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw one table of n items, or of n templates with four items each."""
    size = 4 * n if world == "clusters" else n
    group = np.arange(size) // 4 if world == "clusters" else np.arange(size)
    hard = rng.normal(size=size)
    moved = rng.normal(size=n)[group] if world == "clusters" else np.zeros(size)
    shorter = rng.normal(size=n)[group] if world == "clusters" else np.zeros(size)
    rows = []
    for arm in (0, 1):
        bullets = (rng.random(size) < (0.2, 0.6)[arm]).astype(float) if world == "two" else np.zeros(size)
        words = lengths(arm, hard, bullets, rng)
        if world == "clusters":
            # Lengths keep their mean: the template's part has mean one.
            words *= np.exp(0.3 * shorter - 0.045)
        if world == "short" and not arm:
            words = np.ones(size)
        y = -1.5 * hard + 0.3 * arm + 0.02 * words + 0.3 * bullets + 0.3 * rng.normal(size=size)
        y += 0.2 * moved * arm
        if world == "content":
            thought = rng.normal(size=size)
            words = words * np.exp(0.4 * thought - 0.08)
            y = -1.5 * hard + 0.3 * arm + 0.02 * words + 0.3 * thought + 0.3 * rng.normal(size=size)
        if world in BINARY:
            y = (rng.random(size) < chance(arm, words, hard)).astype(float)
        names = {"item": np.arange(size), "arm": "ab"[arm], "t": float(arm), "words": words, "list": bullets}
        names["log_words"] = np.log1p(words)
        rows.append(pd.DataFrame(names | {"y": y, "group": group}))
    return pd.concat(rows, ignore_index=True)


def measure(world: str, n: int, reps: int, draws: int) -> dict[str, tuple[float, float]]:
    """Give bias, in standard deviations of the estimates, and coverage; of `mediate` the bias."""
    true = truth(world)
    found: dict[str, list[float]] = {name: [] for name in (*true, "mediate")}
    held: dict[str, list[bool]] = {name: [] for name in true}
    for rep in range(reps):
        frame = make(world, n, np.random.default_rng([rep, n]))
        mediators: Any = MEDIATORS.get(world, "words")
        cluster = "group" if world == "clusters" else None
        made = paired_mediation(
            frame, mediators=mediators, cluster=cluster, draws=draws, random_state=rep, **ASKED
        )
        for name, value in true.items():
            row = made.part(name)
            if row.estimate is None:
                continue
            found[name].append(row.estimate)
            held[name].append(row.ends[0] <= value <= row.ends[1])
        # Rows of which an arm has one length only are refused there.
        if world != "short":
            between = mediate(
                frame,
                treatment="t",
                mediator="words",
                outcome="y",
                interaction=True,
                cluster="item",
                draws=2,
            )
            found["mediate"].append(float(between.part("acme_treated").estimate or 0.0))
    out = {}
    for name, value in true.items():
        out[name] = ((np.mean(found[name]) - value) / np.std(found[name]), float(np.mean(held[name])))
    off = np.nan
    if found["mediate"]:
        off = float((np.mean(found["mediate"]) - true["nie"]) / np.std(found["mediate"]))
    return {k: (float(a), b) for k, (a, b) in out.items()} | {"mediate": (float(off), float("nan"))}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--reps", type=int, default=100)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--only", choices=list(SIZES))
    args = parser.parse_args()
    error = 100 * np.sqrt(0.95 * 0.05 / args.reps)
    print(
        f"{args.reps} tables each; Monte Carlo standard error {error:.1f} points at 95%, {args.draws} draws"
    )
    print("                  bias (sd)              covered, %            bias (sd) of mediate")
    print("world       n     NIE    NDE  share     NIE    NDE  share     NIE")
    for world, sizes in SIZES.items():
        if args.only not in {None, world}:
            continue
        for n in sizes:
            got = measure(world, n, args.reps, args.draws)
            names = ("nie", "nde", "proportion")
            bias = " ".join(f"{got[name][0]:6.2f}" for name in names)
            cover = " ".join(f"{100 * got[name][1]:6.1f}" for name in names)
            print(f"{world:9} {n:4}  {bias}  {cover}   {got['mediate'][0]:6.2f}", flush=True)


if __name__ == "__main__":
    main()
