# ruff: noqa: ANN401  # a model ships no type; one of the two tests alone is the library's own affair
"""Do the error rates and intervals of the internal level hold? Simulated on real sweeps' own columns.

Effects of heads on items are skewed, and no formula says how. So the population is real: both prompts of
some 200 items of three task families, run through the embedded model, every head's NIE and pure NIE, the
total effect and the joint effect of a set. Each column is centred on its mean, so that no head has an effect;
samples of items are drawn from it with replacement, all heads of an item together; and the claims are
counted: how often any head is named with the familywise error, or the false discovery rate, held at 0.05, by
sign flips alone and as the library does; how often the intervals of one head, of the total effect and of the
set's share hold the truth. Beside them columns of known shape. Each figure has its Monte Carlo error. Last,
what the two tests name in the sweep itself, of 20 items.

The sweep is kept in a file, an item a line, and goes on where it was stopped.

    python benchmarks/coverage_heads.py --sweep heads.jsonl               # makes the sweep, then simulates
    python benchmarks/coverage_heads.py --sweep heads.jsonl --reps 400
    python benchmarks/coverage_heads.py --sweep sites.jsonl --beside attn mlp resid --tasks letter_counting
    python benchmarks/coverage_heads.py --shapes normal lognormal          # without a model

`--interactions` counts instead what `relate_heads` claims, without a model: three heads whose interactions
and paths are zero on average, with noise of a known shape in every effect; items one by one, and in clusters
of 1 to 4 that share it. How often any pair, and any path, is named with the familywise error held at 0.05;
how often the intervals of single heads, of all together, of paths and of interactions hold the truth; and how
often a row that is named has an interval with zero in it.

    python benchmarks/coverage_heads.py --interactions --shapes normal lognormal --items-drawn 8 10 20

`--race` asks of the sweep what a race for its five heads of the largest NIE would spare: items in random
order, a head dropped as soon as five others are known to be above it, at 95% at any time and over all heads.
Once by empirical Bernstein confidence sequences without replacement (Waudby-Smith and Ramdas, 2020), told the
range of the sweep's own effects, which nobody knows beforehand; once by asymptotic ones of the paired
differences (Waudby-Smith et al., 2024), which promise nothing at so few items. Rows become arithmetic by the
benchmark's bound: both clean runs of an item stay, and a row costs the layers above its own.

    python benchmarks/coverage_heads.py --sweep heads.jsonl --as-it-is --tasks letter_counting --race \
        --items-drawn 10 20 50 100
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from whyprompt.mediation import mean_interval
from whyprompt.mediation.intervals import share_interval
from whyprompt.stats import resampling
from whyprompt.stats.several import sign_flips

TASKS: dict[str, dict[str, Any]] = {
    "letter_counting": {"settings": {"min_words": 2, "max_words": 4}, "difficulty": "span_length"},
    "simple_equations": {
        "levels": [
            {"min_terms": 2, "max_terms": 2, "max_value": 20},
            {"min_terms": 2, "max_terms": 4, "max_value": 100},
        ]
    },
    "chain_sum": {
        "settings": {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2},
        "difficulty": "num_digits",
    },
}
SET = [(20, 6), (14, 1), (20, 5), (21, 2), (18, 6), (17, 5)]
"""A set of heads whose joint effect is a large part of the total on the first of the tasks."""
SHAPES: dict[str, Any] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "t3": lambda rng, size: rng.standard_t(3, size=size),
    "exponential": lambda rng, size: rng.exponential(size=size) - 1,
    "lognormal": lambda rng, size: rng.lognormal(size=size) - np.exp(0.5),
}
ALPHA = 0.05
RACE_TOP, RACE_TOKENS, RACE_ANSWER = 5, 103, 2


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- the population ----------------------------------------------------------------------------


def task_pairs(lm: Any, task: str, size: int) -> list[Any]:
    """Items of a task, asked directly and after three solved examples."""
    import pandas as pd

    from whyprompt.answers.pairs import study_pairs
    from whyprompt.study import Study
    from whyprompt.trials.items.load import load_items

    study = Study.model_validate(
        {
            "name": task,
            "question": "what three examples do",
            "items": [{"source": "reasoning_gym", "dataset": task, "size": size, **TASKS[task]}],
            "model": {"name": "embedded"},
            "arms": {"direct": {"kind": "direct"}, "few_shot": {"kind": "few_shot", "shots": 3}},
            "outcomes": ["log_prob"],
            "effect": {"contrast": {"treated": "few_shot", "control": "direct"}},
            "seeds": {"items": 12, "shots": 5},
        }
    )
    items = load_items(study.items, seed=study.seeds.items).items
    return study_pairs(study, study.contrast, list(items), lm.codec, pd.DataFrame())


def make(path: Path, sizes: dict[str, int], first_layer: int, beside: list[str]) -> None:
    """Sweep the items that the file does not hold yet."""
    from whyprompt import load_model, set_sweep
    from whyprompt.mediation import PairOutcomes

    lm = load_model("embedded", dtype="float32")
    shape = lm.model.config
    sets: dict[str, Any] = {
        f"{layer}.{head}": [(layer, head)]
        for layer in range(first_layer, shape.num_hidden_layers)
        for head in range(shape.num_attention_heads)
    }
    sets |= {f"{kind} {at}": [f"{kind} {at}"] for kind in beside for at in range(shape.num_hidden_layers)}
    sets["set"] = SET
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for task in TASKS:
        if task not in sizes:
            continue
        pairs = task_pairs(lm, task, sizes[task])
        done = {d["item_id"]: PairOutcomes.from_dict(_without_task(d)) for d in lines if d["task"] == task}
        began = time.perf_counter()
        with path.open("a") as file:

            def keep(one: PairOutcomes, task: str = task, file: Any = file) -> None:
                file.write(json.dumps({"task": task, **one.to_dict()}) + "\n")
                file.flush()

            def progress(at: int, of: int, _: str, task: str = task, began: float = began) -> None:
                say(f"{task}: {at} of {of} pairs, {time.perf_counter() - began:.0f} s")

            set_sweep(lm.model, pairs, sets, done=done, on_pair=keep, progress=progress)


def _without_task(line: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in line.items() if k != "task"}


def populations(path: Path, tasks: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """Columns of the sweep by quantity: heads, the set, the total effect; items of all tasks together."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [line for line in lines if line["task"] in tasks]
    y00, y11, y10, y01 = (
        np.array([line[k] for line in lines], dtype=float) for k in ("y00", "y11", "y10", "y01")
    )
    out = {}
    for name, effect in (("NIE", y11[:, None] - y10), ("pure NIE", y01 - y00[:, None])):
        out[name] = {"heads": effect[:, :-1], "set": effect[:, -1], "te": y11 - y00}
    return out


def synthetic(shape: str, rng: np.random.Generator, n: int, m: int) -> tuple[np.ndarray, ...]:
    """Heads of mean zero that go together a little, a part and its whole."""
    draw = SHAPES[shape]
    whole = 3 + draw(rng, n)
    heads = draw(rng, (n, m)) + 0.3 * draw(rng, (n, 1))
    return heads, 0.7 * whole + 0.5 * draw(rng, n), whole


# ---- the claims ----------------------------------------------------------------------------------


def count(
    sample: Any, *, n: int, reps: int, draws: int, share: float, te: float, seed: int
) -> dict[str, tuple[float, float]]:
    """Share of samples in which each claim fails (tests) or holds (intervals), and its Monte Carlo error."""
    rng = np.random.default_rng([seed, n])
    seen: dict[str, list[float]] = {}
    sizes = np.ones(n)
    for _ in range(reps):
        heads, part, whole = sample(rng, n)
        got, q_value, _ = resampling.resample(heads, sizes, level=1 - ALPHA, draws=draws, rng=rng)
        flips, family, *_ = sign_flips(heads, sizes, draws=draws - 1, rng=rng, flat=resampling.FLAT)
        ends, (low, high) = mean_interval(whole).ends, share_interval(part, whole)
        figures = {
            "familywise, flips": (family < ALPHA).any(),
            "familywise": (got["p_adjusted"] < ALPHA).any(),
            "FDR, flips": (stats.false_discovery_control(flips) < ALPHA).any(),
            "FDR": (q_value < ALPHA).any(),
            "one head": ((got["ci_low"] <= 0) & (got["ci_high"] >= 0)).mean(),
            "total effect": ends[0] <= te <= ends[1],
            "share": low <= share <= high,
            "share not given": np.isinf([low, high]).any(),
        }
        for name, value in figures.items():
            seen.setdefault(name, []).append(float(value))
    return {k: (float(np.mean(v)), float(np.std(v) / np.sqrt(reps))) for k, v in seen.items()}


def related(shape: str, rng: np.random.Generator, n: int, *, clustered: bool) -> Any:
    """A sweep as `relation_sweep` makes it, of n sampling units and three heads, one above the other."""
    from whyprompt.mediation import Sweep

    heads = [(0, 0), (1, 0), (2, 0)]
    single = {"{}.{}".format(*head): (head,) for head in heads}
    two = [(a, b) for k, b in enumerate(single) for a in [*single][:k]]
    paths: dict[str, Any] = {"joint": tuple(single.values())} | {name: (own,) for name, own in single.items()}
    paths |= {f"{a} & {b}": (single[a], single[b]) for a, b in two}
    paths |= {f"{a} -> {b}": ((*single[a], *single[b]),) for a, b in two}
    units = np.repeat(np.arange(n), rng.integers(1, 5, n) if clustered else 1)

    def noise(columns: int) -> np.ndarray:
        own, shared = (SHAPES[shape](rng, (size, columns)) for size in (len(units), n))
        return np.asarray((own + shared[units]) / np.sqrt(2) if clustered else own)

    def way() -> np.ndarray:
        own = 1 + noise(3)
        at = {name: own[:, k] for k, name in enumerate(single)}
        both = np.stack([at[a] + at[b] for a, b in two], 1) + 0.5 * noise(3)
        return np.column_stack([own.sum(1) + noise(1)[:, 0], own, both, noise(3)])

    y11 = 4 + noise(1)[:, 0]
    return Sweep(
        y00=np.zeros(len(units)),
        y11=y11,
        y10=y11[:, None] - way(),
        y01=way(),
        mediator="path",
        outcome="log_prob",
        item_ids=tuple(map(str, range(len(units)))),
        clusters=tuple(map(str, units)),
        n_layers=3,
        n_heads=1,
        paths=paths,
        sets={name: tuple({head: None for path in own for head in path}) for name, own in paths.items()},
    )


def count_related(
    shape: str, *, n: int, clustered: bool, reps: int, draws: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Count what `relations` claims of such sweeps, as `count` does."""
    from whyprompt.mediation.relations import relations

    rng = np.random.default_rng([seed, n])
    truth = {"head": 1.0, "joint": 3.0, "path": 0.0, "interaction": 0.0}
    seen: dict[str, list[float]] = {}
    for k in range(reps):
        sweep = related(shape, rng, n, clustered=clustered)
        found = relations(sweep, picked=False, draws=draws, random_state=k)
        rows = {kind: [r for r in found.parts if r.by.split(",")[0] == kind] for kind in truth}
        rows["joint"] = [r for r in rows["joint"] if r.label == "joint"]
        named = [r for kind in ("path", "interaction") for r in rows[kind] if (r.p_adjusted or 0.0) < ALPHA]
        figures: dict[str, Any] = {}
        for kind in ("interaction", "path"):
            figures[f"any {kind}"] = any(r in named for r in rows[kind])
        for kind, mean in truth.items():
            figures[f"of a {kind}"] = np.mean([r.ends[0] <= mean <= r.ends[1] for r in rows[kind]])
        figures["named, zero in it"] = any(r.ends[0] <= 0 <= r.ends[1] for r in named)
        for name, value in figures.items():
            seen.setdefault(name, []).append(float(value))
    return {k: (float(np.mean(v)), float(np.std(v) / np.sqrt(reps))) for k, v in seen.items()}


# ---- racing ----------------------------------------------------------------------------------------


def bernstein(columns: np.ndarray, low: float, high: float, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Confidence sequence of each column's mean, its rows drawn without replacement: ends, (items, heads)."""
    x = (columns - low) / (high - low)
    n = len(x)
    t = np.arange(1, n + 1)[:, None]
    mean = (0.5 + x.cumsum(0)) / (t + 1)
    spread = (0.25 + ((x - mean) ** 2).cumsum(0)) / (t + 1)
    before, spread = (np.vstack([np.full_like(x[:1], v), a[:-1]]) for v, a in ((0.5, mean), (0.25, spread)))
    bet = np.minimum(np.sqrt(2 * np.log(2 / level) / (spread * t * np.log1p(t))), 0.75)
    seen = np.vstack([np.zeros_like(x[:1]), x.cumsum(0)[:-1]])
    weight = (bet * (1 + (t - 1) / (n - t + 1))).cumsum(0)
    middle = (bet * (x + seen / (n - t + 1))).cumsum(0) / weight
    variance = ((x - before) ** 2 * (-np.log1p(-bet) - bet)).cumsum(0)
    half = (np.log(2 / level) + variance) / weight
    # What has not been drawn lies in the range.
    sums = x.cumsum(0)
    least, most = np.maximum(middle - half, sums / n), np.minimum(middle + half, (sums + n - t) / n)
    return np.maximum.accumulate(least), np.minimum.accumulate(most)


def above(columns: np.ndarray, of: int, level: float) -> np.ndarray:
    """Which column is known to be above which, after these of so many rows, by asymptotic sequences."""
    t, far = len(columns), -2 * np.log(level)
    rho = np.sqrt((far + np.log(far) + 1) / (of / 2))  # narrowest after half of the rows
    mean, cov = columns.mean(0), np.cov(columns, rowvar=False)
    spread = np.maximum(cov.diagonal()[:, None] + cov.diagonal() - 2 * cov, 0.0)
    scale = t * rho**2 + 1
    width = np.sqrt(spread * 2 * scale / (t * rho) ** 2 * np.log(np.sqrt(scale) / level) * (1 - t / of))
    known: np.ndarray = mean[:, None] - mean > width
    return known


def raced(
    columns: np.ndarray, top: int, bounds: tuple[float, float] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Race columns over rows: which is run on which, rows that are run at all, and the columns left."""
    n, m = columns.shape
    run, alive = np.zeros((n, m), dtype=bool), np.ones(m, dtype=bool)
    if bounds is not None:
        least, most = bernstein(columns, *bounds, ALPHA / m)
    for t in range(n):
        if alive.sum() <= top:
            break
        run[t] = alive
        if t == n - 1:
            break  # all is known
        at = alive.nonzero()[0]
        if bounds is not None:
            alive[at] = most[t, at] >= np.sort(least[t, at])[-top]
        elif t >= 4:  # a covariance needs some items
            alive[at] = above(columns[: t + 1, at], n, 2 * ALPHA / (m * (m - 1))).sum(0) < top
    return run, np.asarray(run.any(1)), alive


def race(columns: np.ndarray, first_layer: int, sizes: list[int], reps: int) -> None:
    """Show what a race for the top heads spares of a sweep of them, in rows and in arithmetic."""
    from arithmetic import shape_of

    from whyprompt.trials.models.locate import locate_model

    shape = shape_of(locate_model("embedded")[0])
    layers = np.repeat(np.arange(first_layer, shape.layers), shape.heads)
    columns = columns[:, : len(layers)]  # sites swept beside the heads come after them
    # Two prompts of so many tokens each, with an answer of two: what these items have on average.
    clean = 2 * (shape.tokens(range(RACE_TOKENS)) + RACE_ANSWER * shape.logits)
    of_layer = [float(shape.row(k, RACE_TOKENS, RACE_ANSWER, RACE_ANSWER)) for k in range(shape.layers)]
    rows = np.array(of_layer)[layers]
    ends = float(columns.min()), float(columns.max())
    print(
        f"\na race for the {RACE_TOP} heads of the largest NIE, of {len(layers)}: spared of rows and of "
        f"arithmetic\n(both clean runs are {clean / (clean + rows.sum()):.0%} of a sweep's), and how often "
        "the full sweep's heads are kept"
    )
    print("    n    empirical Bernstein, range known              asymptotic, paired differences")
    for n in sizes:
        rng = np.random.default_rng([n, 7])
        seen: dict[str, list[tuple[float, float, float]]] = {"bernstein": [], "asymptotic": []}
        for _ in range(reps):
            some = columns[rng.permutation(len(columns))[:n]]
            best = np.argsort(some.mean(0))[-RACE_TOP:]
            for name, bounds in (("bernstein", ends), ("asymptotic", None)):
                run, items, alive = raced(some, RACE_TOP, bounds)
                spent = items.sum() * clean + (run * rows).sum()
                whole = n * (clean + rows.sum())
                seen[name].append((1 - run.mean(), 1 - spent / whole, float(alive[best].all())))
        figures = (np.mean(v, 0) for v in seen.values())
        print(
            f"  {n:3}  "
            + "  ".join("  rows {:5.1%}, arithmetic {:5.1%}, right {:.2f}".format(*f) for f in figures),
            flush=True,
        )


def show(title: str, results: dict[int, dict[str, tuple[float, float]]]) -> None:
    print(f"\n{title}")
    names = list(next(iter(results.values())))
    print("    n  " + "  ".join(f"{name:>17}" for name in names))
    for n, figures in results.items():
        print(
            f"  {n:3}  " + "  ".join(f"{f'{v:.3f} ({e:.3f})':>17}" for v, e in figures.values()), flush=True
        )


def power(columns: np.ndarray, n: int, draws: int) -> None:
    heads = columns[:n]
    rng = np.random.default_rng(0)
    got, q_value, _ = resampling.resample(heads, np.ones(len(heads)), level=1 - ALPHA, draws=draws, rng=rng)
    flips, family, *_ = sign_flips(heads, np.ones(len(heads)), draws=draws - 1, rng=rng, flat=resampling.FLAT)
    q_flips = stats.false_discovery_control(flips)
    print(
        f"  the first {len(heads)} items as they are: of {heads.shape[1]} sites the sign flips name "
        f"{(family < ALPHA).sum()} (FDR {(q_flips < ALPHA).sum()}), both together "
        f"{(got['p_adjusted'] < ALPHA).sum()} (FDR {(q_value < ALPHA).sum()})"
    )


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--sweep", type=Path, help="file of the sweep; made, or made complete, where it is not")
    cli.add_argument("--items", nargs="+", type=int, default=[70], help="of each task family, or one for all")
    cli.add_argument("--first-layer", type=int, default=0, help="sweep the heads of this layer and up")
    cli.add_argument(
        "--beside", nargs="+", default=[], choices=["attn", "mlp", "resid"], help="further sites"
    )
    cli.add_argument("--as-it-is", action="store_true", help="take the sweep's file as it is")
    cli.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    cli.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    cli.add_argument("--items-drawn", nargs="+", type=int, default=[8, 10, 20, 40])
    cli.add_argument("--reps", type=int, default=300)
    cli.add_argument("--draws", type=int, default=1000)
    cli.add_argument("--heads", type=int, default=100, help="columns of each known shape")
    cli.add_argument("--race", action="store_true", help="what a race for the top heads would spare")
    cli.add_argument("--interactions", action="store_true", help="what relate_heads claims; no sweep")
    options = cli.parse_args()

    if options.interactions:
        print(
            f"{options.reps} samples of each size, {options.draws} draws; wanted: at most {ALPHA} for the "
            f"first two columns, {1 - ALPHA} for the next four; in brackets the Monte Carlo error"
        )
        for shape in options.shapes:
            for clustered in (False, True):
                results = {
                    n: count_related(
                        shape, n=n, clustered=clustered, reps=options.reps, draws=options.draws, seed=seed
                    )
                    for seed, n in enumerate(options.items_drawn)
                }
                show(f"{shape}, {'clusters of 1 to 4 items' if clustered else 'items'}", results)
        return

    def counted(title: str, sample: Any, share: float, te: float) -> None:
        results = {}
        for seed, n in enumerate(options.items_drawn):
            began = time.perf_counter()
            results[n] = count(
                sample, n=n, reps=options.reps, draws=options.draws, share=share, te=te, seed=seed
            )
            say(f"{title}, {n} items: {time.perf_counter() - began:.0f} s")
        show(title, results)

    if options.race:
        heads = populations(options.sweep, options.tasks)["NIE"]["heads"]
        race(heads, options.first_layer, options.items_drawn, options.reps)
        return

    print(
        f"{options.reps} samples of each size, {options.draws} draws; wanted: at most {ALPHA} for the first "
        f"four columns, {1 - ALPHA} for the next three; in brackets the Monte Carlo error"
    )
    if options.sweep is not None:
        if not options.as_it_is:
            counts = options.items * len(options.tasks) if len(options.items) == 1 else options.items
            make(
                options.sweep,
                dict(zip(options.tasks, counts, strict=True)),
                options.first_layer,
                options.beside,
            )
        for name, pop in populations(options.sweep, options.tasks).items():
            centred = pop["heads"] - pop["heads"].mean(0)
            skewed = (np.abs(stats.skew(pop["heads"])) > 1).mean()

            def sample(rng: Any, n: int, pop: Any = pop, centred: Any = centred) -> tuple[Any, ...]:
                at = rng.integers(0, len(centred), n)
                return centred[at], pop["set"][at], pop["te"][at]

            te, share = pop["te"].mean(), pop["set"].mean() / pop["te"].mean()
            title = (
                f"{name} of {centred.shape[1]} sites, {len(centred)} items; |skewness| > 1 in {skewed:.0%}"
            )
            counted(title, sample, share, te)
            power(pop["heads"], 20, options.draws)
    for shape in options.shapes:
        counted(
            f"{shape}, {options.heads} heads",
            lambda rng, n, shape=shape: synthetic(shape, rng, n, options.heads),
            0.7,
            3.0,
        )


if __name__ == "__main__":
    main()
