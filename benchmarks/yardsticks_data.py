"""What `yardsticks.py` measures with: tables whose truth is known, and prompt logs made from such.

A `Case` is one table with what is asked of it and the true effect. Nothing here needs whyprompt, so that
other libraries' environments read the very same cases.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

YARDS = ("acic2016", "lalonde", "realcause", "prompts")
SAMPLES = ("out1", "out2", "out3", "out4", "out5", "out6", "out7")
# Files of the samples, of earnings in 1978 and of the placebo, earnings before the programme.
_LALONDE = {
    "re78": ("ldw", "ldw_trim_cps", "ldw_trim_psid", "ldw_cps", "ldw_psid", "ldw_cps_trim", "ldw_psid_trim"),
    "re75": (
        *("ldw", "ldw_trim_cps_pl", "ldw_trim_psid_pl"),
        *("ldw_cps", "ldw_psid", "ldw_cps_trim_pl", "ldw_psid_trim_pl"),
    ),
}
EXPERIMENT = dict(zip(SAMPLES, ("out1", "out2", "out3", "out1", "out1", "out2", "out3"), strict=True))
"""The randomised sample that each sample's treated come from."""
_PERSON = ("age", "education", "black", "hispanic", "married", "nodegree", "re74")
RULES = ("coin", "difficulty", "family", "length", "all")
SIMULATED = "simulated"
ITEMS = 1500
"""Rows of a simulated log."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the data lie: the yardsticks, real questions, and trials of studies under both arms."""

    data: Path
    questions: Path
    trials: tuple[Path, ...] = ()

    @property
    def studies(self) -> dict[str, Path]:
        """The tables of trials, by name."""
        return {path.stem: path for path in self.trials}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One table, what is asked of it, and what is true.

    `truths` are the true average effects by estimand; `effect` is that of each row, None where it is not
    known; `estimand` is the one to ask for, None to leave the choice to the method.
    """

    frame: pd.DataFrame
    treatment: str
    outcome: str
    confounders: tuple[str, ...]
    truths: Mapping[str, float]
    estimand: str | None = None
    effect: Floats | None = None
    treated: object = 1
    control: object = 0

    @property
    def arm(self) -> NDArray[np.bool_]:
        """Rows of the treated arm."""
        return np.asarray(self.frame[self.treatment] == self.treated)

    def matrix(self) -> pd.DataFrame:
        """Give the confounders as numbers: a text column as one 0/1 column a level but the first."""
        return pd.get_dummies(self.frame[list(self.confounders)], drop_first=True, dtype=float).astype(float)


def missing(yard: str, places: Places) -> str:
    """Say why a yardstick cannot be read; nothing where it can."""
    wanted = {
        "acic2016": places.data / "acic2016" / "truth.csv",
        "lalonde": places.data / "lalonde" / "published_estimates.csv",
        "realcause": places.data / "realcause" / "published_estimators.csv.gz",
        "prompts": places.questions / "gsm8k" / "test.jsonl",
    }[yard]
    if wanted.exists():
        return ""
    return f"{wanted} is not there: name the folder with {'--questions' if yard == 'prompts' else '--data'}"


def names(yard: str, places: Places, *, draws: int, every: int = 1) -> list[str]:
    """Name the cases of a yardstick; of every so many instances, samples or draws alone."""
    if yard == "acic2016":
        files = sorted((places.data / yard / "instances").glob("*.csv.gz"))
        return [file.name.removesuffix(".csv.gz") for file in files[::every]]
    if yard == "lalonde":
        return [f"{outcome}/{sample}" for outcome in _LALONDE for sample in SAMPLES]
    if yard == "realcause":
        files = sorted((places.data / yard).glob("*_sample*.csv.gz"))[::every]
        return [f"{file.name.removesuffix('.csv.gz')}/{one}" for file in files for one in ("ate", "att")]
    logs = [SIMULATED, *places.studies]
    return [f"{log}/{rule}/{draw}" for draw in range(0, draws, every) for log in logs for rule in RULES]


def case(yard: str, name: str, places: Places) -> Case:
    """Read or draw one case."""
    if yard == "acic2016":
        return _acic2016(places.data / yard, name)
    if yard == "lalonde":
        return _lalonde(places.data / yard, *name.split("/"))
    if yard == "realcause":
        return _realcause(places.data / yard, *name.split("/"))
    log, rule, draw = name.split("/")
    if log == SIMULATED:
        return _simulated(places.questions, rule, int(draw))
    return _one_arm(places.studies[log], rule, int(draw))


def _acic2016(folder: Path, name: str) -> Case:
    """Raw: text columns, and levels that one arm has only."""
    x = _table(folder / "x.csv.gz")
    one = pd.read_csv(folder / "instances" / f"{name}.csv.gz")
    effect = (one["y1"] - one["y0"]).to_numpy()
    return Case(
        frame=x.assign(z=one["z"], y=one["y"]),
        treatment="z",
        outcome="y",
        confounders=tuple(x.columns),
        truths={"att": float(effect[one["z"] == 1].mean()), "ate": float(effect.mean())},
        estimand="att",
        effect=effect,
    )


def _lalonde(folder: Path, outcome: str, sample: str) -> Case:
    """The covariates of the published table: the placebo's leave out the year that is its outcome."""
    frame = pd.read_csv(folder / f"{_LALONDE[outcome][SAMPLES.index(sample)]}.csv.gz")
    more = ("re75", "u74", "u75") if outcome == "re78" else ("u74",)
    published = pd.read_csv(folder / "published_estimates.csv")
    trusted = published.query("table == 'est_ldw' and method == 'diff'").set_index("sample")["Estimate"]
    return Case(
        frame=frame,
        treatment="treat",
        outcome=outcome,
        confounders=(*_PERSON, *more),
        truths={"att": float(trusted[EXPERIMENT[sample]]) if outcome == "re78" else 0.0},
        estimand="att",
    )


def _realcause(folder: Path, sample: str, estimand: str) -> Case:
    frame = _table(folder / f"{sample}.csv.gz")
    effect = (frame["y1"] - frame["y0"]).to_numpy()
    # The published errors are from the generator's own effect, to which the mean of its samples comes near.
    samples = sorted(folder.glob(f"{sample.rsplit('_', 1)[0]}_sample*.csv.gz"))
    means = [float((t["y1"] - t["y0"]).mean()) for t in map(_table, samples)]
    return Case(
        frame=frame,
        treatment="t",
        outcome="y",
        confounders=(*_PERSON, "re75"),
        truths={"ate": float(np.mean(means)), "att": float(effect[frame["t"] == 1].mean())},
        estimand=estimand,
        effect=effect,
    )


@lru_cache(maxsize=8)
def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path)


# ------------------------------------------------------------------------------------------- prompt logs


def _scaled(values: pd.Series[float]) -> Floats:
    return np.asarray((values - values.mean()) / values.std(), dtype=float)


def _logistic(linear: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-linear)))


def chances(items: pd.DataFrame, rule: str) -> Floats:
    """Give each item's chance of the treated arm: what decides it is its difficulty, family, length, or all.

    `items` has ``difficulty``, ``ease`` (of the item's family) and ``size``.
    """
    hard, ease = _scaled(items["difficulty"]), _scaled(items["ease"])
    size = _scaled(np.log(items["size"]))
    linear = {
        "coin": 0 * hard,
        "difficulty": -0.2 + 1.0 * hard,
        "family": -0.1 - 0.9 * ease,
        # Bent, and on the logarithm: no line in the column itself follows it.
        "length": 0.9 * size + 0.4 * (size**2 - 1),
        "all": -0.2 + 0.6 * hard - 0.6 * ease + 0.5 * size + 0.4 * hard * size,
    }[rule]
    return _logistic(np.clip(linear, -3, 3))


def averages(effect: Floats, chance: Floats) -> dict[str, float]:
    """Average items' effects over those of each estimand, where an item is treated with its chance."""
    sizes = {"ate": np.ones(len(effect)), "att": chance, "atc": 1 - chance, "ato": chance * (1 - chance)}
    return {name: float(np.average(effect, weights=size)) for name, size in sizes.items()}


@lru_cache(maxsize=1)
def questions(folder: Path) -> pd.DataFrame:
    """Real questions of fourteen task families, with what a log would have of each before it is asked.

    ``numbers`` counts the numbers in the question; ``difficulty`` is the number of steps of the solution in
    GSM8K, and of words of the gold answer elsewhere, up to 8.
    """
    rows = []
    for line in (folder / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        rows.append(("gsm8k", one["question"], one["answer"].count("<<")))
    for file in sorted((folder / "natural_instructions").glob("*.json")):
        for one in json.loads(file.read_text(encoding="utf-8"))["Instances"]:
            rows.append((file.stem.split("_")[0], one["input"], len(one["output"][0].split())))  # noqa: PERF401
    frame = pd.DataFrame(rows, columns=["task", "question", "difficulty"])
    frame["difficulty"] = frame["difficulty"].clip(1, 8)
    frame["question_chars"] = frame["question"].str.len()
    frame["numbers"] = frame["question"].map(lambda text: len(re.findall(r"\d+", text))).clip(upper=12)
    return frame.drop(columns="question")


@lru_cache(maxsize=1)
def _pool(folder: Path) -> tuple[pd.DataFrame, Floats, Floats]:
    """Give the questions with each one's chance of a right answer under the control and the treated arm.

    Made up, and bent on purpose: families differ in ease and in what worked examples do for them, examples
    help most in the middle of difficulty, and long questions with examples are answered worse.
    """
    items = questions(folder)
    tasks, at = np.unique(items["task"], return_inverse=True)
    rng = np.random.default_rng(14)
    ease, gain = rng.normal(0.2, 0.9, len(tasks)), rng.normal(0.6, 0.5, len(tasks))
    hard, size = _scaled(items["difficulty"]), _scaled(np.log(items["question_chars"]))
    many = np.asarray(items["numbers"] > 3, dtype=float)
    plain = ease[at] - 0.7 * hard - 0.3 * size**2 - 0.4 * many * (hard > 0)
    change = gain[at] + 0.6 * np.exp(-(hard**2)) - 0.7 * (size > 1) - 0.3
    return (
        items.assign(ease=ease[at], size=items["question_chars"]),
        _logistic(plain),
        _logistic(plain + change),
    )


def _simulated(folder: Path, rule: str, draw: int) -> Case:
    """Draw questions from the pool, an arm for each by the rule, and its answer."""
    items, plain, better = _pool(folder)
    chance, effect = chances(items, rule), better - plain
    rng = np.random.default_rng([draw, RULES.index(rule)])
    at = rng.integers(0, len(items), ITEMS)
    treated = rng.random(ITEMS) < chance[at]
    right = rng.random(ITEMS) < np.where(treated, better[at], plain[at])
    known = ("task", "difficulty", "question_chars", "numbers")
    frame = items.iloc[at][list(known)].reset_index(drop=True)
    return Case(
        frame=frame.assign(arm=np.where(treated, "few_shot", "direct"), correct=right.astype(int)),
        treatment="arm",
        outcome="correct",
        confounders=known,
        truths=averages(effect, chance),
        effect=effect[at],
        treated="few_shot",
        control="direct",
    )


@lru_cache(maxsize=4)
def _trials(path: Path) -> pd.DataFrame:
    """Give one row an item of a study: what was known of it, and its mean outcome under either arm."""
    trials = pd.read_csv(path)
    known = ["task_type", "difficulty", "question_tokens", "question_perplexity"]
    items = trials.groupby("item_id")[known].first()
    both = trials.pivot_table(index="item_id", columns="arm", values="log_prob")
    items = items.join(both[["direct", "few_shot"]])
    family = items.groupby("task_type")["direct"].transform("mean")
    return items.assign(ease=family, size=items["question_tokens"]).reset_index(drop=True)


def _one_arm(path: Path, rule: str, draw: int) -> Case:
    """Keep one arm of each item of a study that ran both; the truth is that of these items."""
    items = _trials(path)
    chance, effect = chances(items, rule), (items["few_shot"] - items["direct"]).to_numpy()
    treated = np.random.default_rng([draw, RULES.index(rule)]).random(len(items)) < chance
    known = ("task_type", "difficulty", "question_tokens", "question_perplexity")
    arm, seen = np.where(treated, "few_shot", "direct"), np.where(treated, items["few_shot"], items["direct"])
    own = {"att": float(effect[treated].mean()), "atc": float(effect[~treated].mean())}
    return Case(
        frame=items[list(known)].assign(arm=arm, log_prob=seen),
        treatment="arm",
        outcome="log_prob",
        confounders=known,
        truths=averages(effect, chance) | own,
        effect=effect,
        treated="few_shot",
        control="direct",
    )
