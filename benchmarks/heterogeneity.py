"""Effects predicted row by row against the truth: every effect model, one number for all, and peers.

PEHE is the root mean squared error of the effects predicted for a table's rows, here as a share of what one
number for all has there (the mean of the rows' scores): below 1 the prediction is better, above 1 worse.
Over the draws it is a ratio of root mean squares, each draw measured in its spread of effects (where all
effects are the same: in its spread of outcomes).

Tables: IHDP-like (747 rows, 139 treated, 25 covariates of which 19 have two values, one treated row alone in
a level; response surfaces A, where the effect is 4 for all, and B of Hill 2011; covariates drawn with margins
as published); the ACIC 2016 challenge, where ``--acic`` says it lies, whose two outcomes a row hold noise of
variance 2 (seen where the effect is constant), which is taken off; and logs of prompts whose arm goes by
difficulty and task, with effects that go with them along a line, in steps, over a hump, hardly, or not.

Of the logs also what the arm chosen for each row to come by the sign of its prediction gains over the better
arm for all, as a share of what the truth would. With ``--policy`` that of `prompt_policy`, beside the sign
of an X-learner and of the mean effect; and how often the default's intervals hold their truth: of the
policy over either arm for all, in the rows that it was judged on (`over treated`, `over control`) and as the
gain of the rule handed out in rows to come (`to come`), of the groups, their difference, and the average.

    python benchmarks/heterogeneity.py
    python benchmarks/heterogeneity.py --acic /path/to/acic2016
    python benchmarks/heterogeneity.py --models stacked --draws 40 --only "log, none, n=300"
    python benchmarks/heterogeneity.py --policy 100 --only "log, skewed"
    python benchmarks/heterogeneity.py --peers /path/to/python   # with econml and lightgbm

References: Hill, J. L. (2011). Journal of Computational and Graphical Statistics 20, 217-240. Dorie, V. et
al. (2019). Statistical Science 34, 43-68.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from whyprompt.effects.whom.scores import RowScores

    Floats = NDArray[np.float64]
    # The table, the effect of each row, and the noise in that as a variance.
    Table = tuple[pd.DataFrame, Floats, float]

ASKED: dict[str, Any] = {"treatment": "arm", "outcome": "y"}
ACIC = (1, 9, 15, 21, 27, 39, 45, 51, 63, 75)
PEERS = ("X-learner", "causal forest", "DR-learner", "linear DR-learner")


# ------------------------------------------------------------------------------------------------ tables
def ihdp(seed: int, surface: str) -> Table:
    """Draw a table shaped as IHDP is; the arm is drawn without replacement, in proportion to its odds."""
    rng = np.random.default_rng(seed)
    n, treated = 747, 139
    # Weight and head at birth, weeks before term, order of birth, health, age of the mother.
    birth = np.array(
        [
            [1.0, 0.8, -0.7, 0.0, -0.6, 0.0],
            [0.8, 1.0, -0.7, 0.0, -0.5, 0.0],
            [-0.7, -0.7, 1.0, 0.0, 0.5, 0.0],
            [0.0, 0.0, 0.0, 1.0, 0.0, 0.5],
            [-0.6, -0.5, 0.5, 0.0, 1.0, 0.0],
            [0.0, 0.0, 0.0, 0.5, 0.0, 1.0],
        ]
    )
    numbers = rng.multivariate_normal(np.zeros(6), birth, n)
    shares = [0.51, 0.09, 0.52, 0.36, 0.46, 0.14, 0.05, 0.59]
    alone = np.column_stack([rng.random(n) < share for share in shares])
    school = rng.choice(4, n, p=[0.36, 0.27, 0.22, 0.15])[:, None] == np.arange(3)
    site = rng.choice(8, n, p=[0.14, 0.14, 0.16, 0.08, 0.07, 0.13, 0.16, 0.12])[:, None] == np.arange(7)
    X = np.column_stack([(numbers - numbers.mean(0)) / numbers.std(0), alone, school, site, np.ones(n)])
    odds = X[:, :24] @ np.r_[0.3 * rng.normal(size=6), 0.5 * rng.normal(size=18)]
    arm = np.zeros(n, dtype=bool)
    arm[np.argsort(-(odds + rng.gumbel(size=n)))[:treated]] = True
    X[rng.choice(np.flatnonzero(~arm), 26, replace=False), 24] = 0.0
    X[rng.choice(np.flatnonzero(arm), 1), 24] = 0.0
    Z = np.column_stack([np.ones(n), X])
    if surface == "A":
        none = Z @ rng.choice(5, 26, p=[0.5, 0.2, 0.15, 0.1, 0.05])
        one = none + 4.0
    else:
        slopes = rng.choice([0.0, 0.1, 0.2, 0.3, 0.4], 26, p=[0.6, 0.1, 0.1, 0.1, 0.1])
        none, one = np.exp((Z + 0.5) @ slopes), Z @ slopes
        one = one - ((one - none)[arm].mean() - 4.0)
    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(25)])
    frame["arm"], frame["y"] = arm.astype(int), np.where(arm, one, none) + rng.normal(size=n)
    return frame, np.asarray(one - none, dtype=np.float64), 0.0


def prompts(seed: int, kind: str, n: int = 2000, *, binary: bool = False) -> Table:
    """Draw a log of prompts: the effect goes with difficulty and task, and so does the arm."""
    rng = np.random.default_rng(seed)
    hard, length, noise = rng.normal(size=n), rng.gamma(2.0, 1.0, n), rng.normal(size=(n, 4))
    tasks = {"math": 0.8, "code": 0.4, "qa": 0.0, "summary": -0.3, "translate": -0.4, "extract": -0.5}
    task = rng.choice(list(tasks), n, p=[0.3, 0.2, 0.2, 0.15, 0.1, 0.05])
    lean = np.array([tasks[name] for name in task])
    arm = rng.random(n) < 1.0 / (1.0 + np.exp(-(0.7 * hard + lean - 0.2 * (length - 2.0))))
    gain = {
        "line": 0.1 + 0.5 * hard + 0.6 * lean,
        "steps": np.where((hard > 0.3) & (lean > 0.3), 1.2, -0.2),
        "hump": 0.5 - 0.5 * hard**2,
        "weak": 0.2 + 0.12 * hard,
        "none": np.full(n, 0.3),
    }[kind]
    base = -hard + 0.5 * lean + 0.2 * np.sin(2.0 * hard) + 0.1 * length
    frame = pd.DataFrame({"difficulty": hard, "length": length, "task": task})
    frame["family"] = rng.choice(["a", "b", "c"], n)
    frame[[f"w{j}" for j in range(4)]] = noise
    return _answered(rng, frame, arm, base, gain, binary=binary)


def skewed(seed: int, n: int = 2000, *, binary: bool = False, logged: bool = False) -> Table:
    """Draw a log as they are: few tasks have most rows, lengths a long tail, and a quarter the new prompt.

    Where `logged` the table has the length's logarithm, along which arm, outcome and effect go.
    """
    rng = np.random.default_rng(seed)
    tasks = np.array(["chat", "qa", "code", "math", "summary", "extract", "translate", "agent"])
    lean, often = np.array([-0.3, 0.0, 0.4, 0.9, -0.4, -0.5, -0.2, 0.6]), 1.0 / np.arange(1, 9)
    task, hard = rng.choice(8, n, p=often / often.sum()), rng.normal(size=n)
    tokens = np.maximum(np.round(np.exp(4.5 + rng.normal(size=n))), 1.0)
    frame = pd.DataFrame({"task": tasks[task], "difficulty": hard})
    frame["question_tokens"] = np.log(tokens) if logged else tokens
    frame["turns"], frame["returning"] = 1 + rng.geometric(0.5, n), (rng.random(n) < 0.3).astype(int)
    long, lean = np.log(tokens) - 4.5, lean[task]
    arm = rng.random(n) < 1.0 / (1.0 + np.exp(1.3 - 0.6 * hard - 0.8 * lean - 0.3 * long))
    gain = 0.05 + 0.45 * hard + 0.6 * lean - 0.2 * long
    base = -hard + 0.5 * lean + 0.3 * np.sin(2.0 * hard) - 0.3 * long
    return _answered(rng, frame, arm, base, gain, binary=binary)


def _answered(
    rng: np.random.Generator,
    frame: pd.DataFrame,
    arm: NDArray[np.bool_],
    base: Floats,
    gain: Floats,
    *,
    binary: bool,
) -> Table:
    """Draw the outcome: with noise of variance 1, or 0/1 by log-odds."""
    n = len(frame)
    frame["arm"], frame["y"] = arm.astype(int), base + arm * gain + rng.normal(size=n)
    if binary:
        none, one = (1.0 / (1.0 + np.exp(-x)) for x in (base, base + 1.2 * gain))
        frame["y"], gain = (rng.random(n) < np.where(arm, one, none)).astype(float), one - none
    return frame, gain, 0.0


def acic(folder: Path, setting: int) -> Table:
    """Read an instance of the challenge, its rare levels as they are."""
    frame = pd.read_csv(folder / "x.csv.gz")
    drawn = pd.read_csv(folder / "instances" / f"p{setting:02d}_r001.csv.gz")
    frame["arm"], frame["y"] = drawn["z"], drawn["y"]
    return frame, (drawn["y1"] - drawn["y0"]).to_numpy(), 2.0


LOGS: dict[str, Callable[[int, int], Table]] = {
    "log, line": lambda seed, n: prompts(seed, "line", n),
    "log, line, 0/1": lambda seed, n: prompts(seed, "line", n, binary=True),
    "log, steps": lambda seed, n: prompts(seed, "steps", n),
    "log, hump": lambda seed, n: prompts(seed, "hump", n),
    "log, weak": lambda seed, n: prompts(seed, "weak", n),
    "log, none": lambda seed, n: prompts(seed, "none", n),
    "log, skewed": skewed,
    "log, skewed, 0/1": lambda seed, n: skewed(seed, n, binary=True),
    "log, skewed, length logged": lambda seed, n: skewed(seed, n, logged=True),
}


def _sized(make: Callable[[int, int], Table], n: int, seed: int) -> Table:
    return make(seed, n)


TABLES: dict[str, Callable[[int], Table]] = {
    "IHDP-like A (none)": lambda seed: ihdp(seed, "A"),
    "IHDP-like B": lambda seed: ihdp(seed, "B"),
    **{name: partial(_sized, make, 2000) for name, make in LOGS.items()},
    **{f"{name}, n=300": partial(_sized, make, 300) for name, make in LOGS.items()},
}


# ------------------------------------------------------------------------------------------- predictions
def covariates(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame if name not in {"arm", "y"}]


def predictions(
    frame: pd.DataFrame, new: pd.DataFrame | None, models: tuple[str, ...]
) -> Iterator[tuple[str, Floats, Floats | None]]:
    """Predict the rows' effects, and those of new rows, by every model from the same scores of rows."""
    from whyprompt import heterogeneous_effects

    rows = heterogeneous_effects(frame, **ASKED, confounders=covariates(frame)).rows
    average = float(rows.effect.mean())
    yield "one number", np.full(len(frame), average), None if new is None else np.full(len(new), average)
    for name in models:
        predict = rows.predict if name == "stacked" else fitted(name, frame, rows)
        yield name, predict(frame), None if new is None else predict(new)


def fitted(name: str, frame: pd.DataFrame, rows: RowScores) -> Callable[[pd.DataFrame], Floats]:
    """Fit a model to the scores that another was fitted to, which spares the nuisances."""
    from whyprompt.effects.methods.covariates import Covariates
    from whyprompt.effects.whom.evidence import Evidence
    from whyprompt.effects.whom.models import fit_effect, predict_effect
    from whyprompt.stats.design import design_matrix

    assert rows.propensity is not None

    def coded(table: pd.DataFrame) -> Floats:
        columns = {column: table[column].to_numpy() for column in covariates(table)}
        return design_matrix(columns, levels=rows.levels).matrix

    X, score = coded(frame), np.clip(rows.propensity, 0.01, 0.99)
    seen = Evidence(
        modifiers=X,
        effect=rows.effect,
        weight=score * (1.0 - score),
        unit=np.arange(len(X)),
        covariates=Covariates(X, np.empty((len(X), 0), dtype=np.int64)),
        y=frame["y"].to_numpy(float),
        treated=frame["arm"].to_numpy() == 1,
        score=score,
    )
    model = fit_effect(name, seen)
    return lambda table: predict_effect(model, coded(table))


def peer_predictions(job: Path) -> None:
    """Fit the peers; called in their own interpreter, which has no whyprompt."""
    from econml.dml import CausalForestDML  # type: ignore[import-not-found]
    from econml.dr import DRLearner, LinearDRLearner  # type: ignore[import-not-found]
    from econml.metalearners import XLearner  # type: ignore[import-not-found]
    from lightgbm import LGBMClassifier, LGBMRegressor  # type: ignore[import-not-found]

    warnings.simplefilter("ignore")
    given = np.load(job)
    X, t, y, new = given["X"], given["t"], given["y"], given["new"]
    trees: dict[str, Any] = {"n_estimators": 100, "num_leaves": 15, "verbose": -1, "n_jobs": 1}
    outcome, arm = LGBMRegressor(**trees), LGBMClassifier(**trees)
    nuisances: dict[str, Any] = {"model_propensity": arm, "model_regression": outcome, "random_state": 0}
    made = {
        "X-learner": XLearner(models=outcome, propensity_model=arm),
        "causal forest": CausalForestDML(
            model_y=outcome, model_t=arm, discrete_treatment=True, random_state=0, n_jobs=1
        ),
        "DR-learner": DRLearner(model_final=outcome, **nuisances),
        "linear DR-learner": LinearDRLearner(**nuisances),
    }
    out = {}
    for name, learner in made.items():
        learner.fit(y, t, X=X)
        out[f"{name}|rows"], out[f"{name}|new"] = (learner.effect(x).ravel() for x in (X, new))
    np.savez(job.with_name("out.npz"), **out)


def of_peers(
    python: str, frame: pd.DataFrame, new: pd.DataFrame | None
) -> Iterator[tuple[str, Floats, Floats | None]]:
    """Predict by the peers, which get the covariates as numbers."""
    names = covariates(frame)
    both = frame if new is None else pd.concat([frame, new])
    X = pd.get_dummies(both[names], drop_first=True).to_numpy(float)
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.npz"
        n = len(frame)
        np.savez(job, X=X[:n], t=frame["arm"], y=frame["y"], new=X[n:] if len(X) > n else X[:1])
        subprocess.run([python, __file__, "--peer", str(job)], check=True, capture_output=True)
        out = np.load(job.with_name("out.npz"))
        for name in PEERS:
            yield name, out[f"{name}|rows"], None if new is None else out[f"{name}|new"]


# ------------------------------------------------------------------------------------------------ figures
def worth(effect: Floats, predicted: Floats) -> tuple[float, float]:
    """What choosing by the prediction gains over the better arm for all, and what the truth would."""
    best = max(float(effect.mean()), 0.0)
    return float(np.where(predicted > 0, effect, 0.0).mean()) - best, float(
        np.maximum(effect, 0).mean()
    ) - best


def judged(
    log: Callable[[int, int], Table], seed: int, n: int, model: str
) -> tuple[dict[str, tuple[float, float]], dict[str, bool]]:
    """Give what rules gain of what there is, and which intervals of the default hold their truth."""
    from whyprompt import heterogeneous_effects, prompt_policy
    from whyprompt.effects.whom.groups import places

    frame, effect, _ = log(seed, n)
    new, ahead, _ = log(10_000 + seed, 4000)
    found = heterogeneous_effects(frame, **ASKED, confounders=covariates(frame), effect_model=model)
    policy = prompt_policy(found)
    takes = np.array([arm == "1" for arm in policy.choose(new)])
    gains = {
        "prompt_policy": worth(ahead, np.where(takes, 1.0, -1.0)),
        "x_learner": worth(ahead, fitted("x_learner", frame, found.rows)(new)),
        "predicted effect": worth(ahead, found.rows.predict(new)),
        "mean effect": worth(ahead, np.full(len(new), found.estimate)),
    }
    place, here = places(found.rows, 4), effect[found.rows.judged]
    group = [float(effect[place == k].mean()) if (place == k).any() else np.nan for k in range(4)]
    known = {
        "group 1": (found.parts[0], group[0]),
        "group 4": (found.parts[-1], group[-1]),
        "difference": (found.most_minus_least, group[-1] - group[0]),
        "average": (found.overall, float(effect.mean())),
        "over treated": (policy.over_treated, float(np.where(policy.chosen, 0.0, -here).mean())),
        "over control": (policy.over_control, float(np.where(policy.chosen, here, 0.0).mean())),
        "over treated, to come": (policy.over_treated, float(np.where(takes, 0.0, -ahead).mean())),
        "over control, to come": (policy.over_control, float(np.where(takes, ahead, 0.0).mean())),
    }
    return gains, {
        name: row.ci_low <= true <= row.ci_high
        for name, (row, true) in known.items()
        if row is not None and row.ci_low is not None and row.ci_high is not None
    }


def show_policies(draws: int, rows: list[int], only: str, model: str) -> None:
    """Print what rules gain, and how often intervals hold."""
    for name, log in LOGS.items():
        for n in rows if name == only or (only not in LOGS and name.startswith(only)) else ():
            hits: dict[str, list[bool]] = {}
            gains: dict[str, list[tuple[float, float]]] = {}
            for seed in range(draws):
                got, held = judged(log, seed, n, model)
                for what, hit in held.items():
                    hits.setdefault(what, []).append(hit)
                for rule, pair in got.items():
                    gains.setdefault(rule, []).append(pair)
            print(
                f"{name}, n={n}, {draws} draws: share of the achievable gain (Monte Carlo error); lost a row"
            )
            for rule, pairs in gains.items():
                gain, most = np.array(pairs).T
                lost = f"{(most - gain).mean():.4f}"
                if most.mean() > 0.005:
                    share = gain.sum() / most.sum()
                    error = np.sqrt(((gain - share * most) ** 2).sum()) / most.sum()
                    lost = f"{share:.2f} ({error:.2f}); {lost}"
                print(f"    {rule:20} {lost}")
            print("    " + ", ".join(f"{what} {np.mean(hit):.3f}" for what, hit in hits.items()), flush=True)


def measured(
    name: str, make: Callable[[int], Table], draws: int, models: tuple[str, ...], peers: str | None
) -> dict[str, float]:
    """Give the ratio for each model, its Monte Carlo error, and for logs the share of the gain."""
    squares: dict[str, list[float]] = {}
    gains: dict[str, list[tuple[float, float]]] = {}
    for seed in range(draws):
        frame, effect, noise = make(seed)
        log = max((key for key in LOGS if name.startswith(key)), key=len, default=None)
        new, to_come = LOGS[log](10_000 + seed, 4000)[:2] if log else (None, None)
        unit = float(effect.var()) - noise
        unit = unit if unit > 1e-9 else float(frame["y"].var())
        every = [*predictions(frame, new, models), *(of_peers(peers, frame, new) if peers else ())]
        for model, predicted, ahead in every:
            square = max(float(np.mean((predicted - effect) ** 2)) - noise, 0.0) / unit
            squares.setdefault(model, []).append(square)
            if ahead is not None and to_come is not None:
                gains.setdefault(model, []).append(worth(to_come, ahead))
    ones = np.array(squares["one number"])
    out = {}
    for model, values in squares.items():
        ratio = np.sum(values) / ones.sum()
        out[model] = float(np.sqrt(ratio))
        # By the spread of the draws about the ratio; that of a root is half as large, over the root.
        spread = np.sqrt(((np.array(values) - ratio * ones) ** 2).sum()) / ones.sum()
        out[f"error of {model}"] = float(spread / 2.0 / np.sqrt(ratio)) if ratio > 0 else 0.0
    for model, pairs in gains.items():
        got, most = (sum(column) for column in zip(*pairs, strict=True))
        if most > 1e-9:
            out[f"gain of {model}"] = float(got / most)
    return out


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--policy", type=int, default=0, help="draws of each log for policies and coverage")
    parser.add_argument("--rows", type=int, nargs="+", default=[400, 2000], help="of a log, for --policy")
    parser.add_argument("--model", default="stacked", help="of the effect, for --policy")
    parser.add_argument("--models", nargs="+", help="effect models of the table; all where left out")
    parser.add_argument("--only", default="", help="tables whose names begin so")
    parser.add_argument("--acic", type=Path, help="the folder with x.csv.gz and instances/")
    parser.add_argument("--peers", help="a Python with econml and lightgbm")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        peer_predictions(args.peer)
        return
    if args.policy:
        show_policies(args.policy, args.rows, args.only, args.model)
        return
    from whyprompt.effects.whom.models import EFFECT_MODELS

    asked: dict[str, tuple[Callable[[int], Table], int]] = {k: (v, args.draws) for k, v in TABLES.items()}
    if args.acic is not None:
        few = ACIC[: args.draws]
        asked["ACIC 2016"] = (lambda k: acic(args.acic, few[k]), len(few))
    own = tuple(args.models or EFFECT_MODELS)
    models = ("one number", *own, *(PEERS if args.peers else ()))
    print("PEHE, one number for all = 1, and its Monte Carlo error; in brackets the share of the gain")
    print(f"{'':24}" + "".join(f"{model:>23}" for model in models))
    for name, (make, draws) in asked.items():
        if name.startswith(args.only):
            started = time.process_time()
            row = measured(name, make, draws, own, args.peers)
            cells = []
            for model in models:
                gain = row.get(f"gain of {model}")
                cell = f"{row[model]:.2f} +/- {row[f'error of {model}']:.2f}"
                cells.append(cell + ("" if gain is None else f" ({gain:.2f})"))
            seconds = (time.process_time() - started) / draws
            print(
                f"{name:24}" + "".join(f"{cell:>23}" for cell in cells) + f"   {seconds:.1f} s a draw",
                flush=True,
            )


if __name__ == "__main__":
    warnings.simplefilter("default")
    main()
