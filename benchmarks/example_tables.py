"""The tables of `whyprompt.load_example`, made anew.

    sed -e 's/size: 24/size: 100/; s/^reps: 2/reps: 1/; s/^name: few_shot/name: few_shot_600/' \
        studies/few_shot.yaml > few_shot_600.yaml
    whyprompt run few_shot_600.yaml --out few_shot_600
    python benchmarks/example_tables.py few_shot_600.yaml few_shot_600
    whyprompt run studies/longer_answers.yaml --out longer_answers
    python benchmarks/example_tables.py studies/longer_answers.yaml longer_answers --texts

"paired" is the study's trials. "log" keeps one arm of each item: a fair coin draws an arm, and the router
takes worked examples with the chance expit(-0.1 + 1.1 d + 0.8 h + 0.7 l), where d is 1 or -1 by the coin, h
the item's difficulty and l its length, each in standard deviations within its family. What it takes depends
on nothing else. "texts" is the second study's trials, with what the model wrote.
"rollout" is simulated and reads no study: the chance of a right answer is 0.5 + 0.03 route
+ 0.004 day, and 0.08 more from the day of its route's change on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import whyprompt
from whyprompt import load_study, load_trials

FOLDER = Path(whyprompt.__file__).parent / "examples"


def paired(study: str, folder: str) -> pd.DataFrame:
    trials = load_trials(load_study(study), folder)
    trials["correct"], trials["score"] = trials["exact_match"].astype(int), trials["log_prob"].round(5)
    trials["difficulty"] = within(trials, "difficulty").round(4)
    trials["question_perplexity"] = trials["question_perplexity"].round(3)
    known = ["task_type", "difficulty", "question_tokens", "question_perplexity", "prompt_tokens"]
    table = trials[["item_id", "arm", *known, "correct", "score"]]
    return table.sort_values(["item_id", "arm"]).reset_index(drop=True)


def within(table: pd.DataFrame, column: str) -> pd.Series[float]:
    """Give a column in standard deviations of its family; 0 where a family has one value."""
    grouped = table.groupby("task_type")[column]
    spread = grouped.transform("std", ddof=0)
    return ((table[column] - grouped.transform("mean")) / spread.where(spread > 0, 1.0)).astype(float)


def one_arm_an_item(both: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    items = both.drop_duplicates("item_id")
    coin = rng.random(len(items)) < 0.5
    lean = 0.8 * items["difficulty"] + 0.7 * within(items, "question_tokens")
    chance = 1 / (1 + np.exp(0.1 - 1.1 * np.where(coin, 1, -1) - lean))
    taken = np.where(rng.random(len(items)) < chance, "few_shot", "direct")
    chosen = pd.DataFrame({"item_id": items["item_id"], "arm": taken})
    chosen["drawn"] = np.where(coin, "few_shot", "direct")
    log = both.merge(chosen, on=["item_id", "arm"])
    return log[["item_id", "arm", "drawn", *both.columns[2:]]].sample(frac=1, random_state=7)


def rollout() -> pd.DataFrame:
    rng = np.random.default_rng(6)
    days, routes = np.tile(np.arange(30).repeat(6), 6), np.arange(6).repeat(180)
    after = days >= np.array([15, 15, 20, 99, 99, 99])[routes]
    started = pd.Timestamp("2025-03-01T08:00") + pd.to_timedelta(days, unit="D")
    chance = 0.5 + 0.03 * routes + 0.004 * days + 0.08 * after
    return pd.DataFrame(
        {
            "started_at": started.astype(str),
            "route": np.array(["chat", "search", "mail", "code", "faq", "sales"])[routes],
            "arm": np.where(after, "few_shot", "direct"),
            "difficulty": rng.normal(size=len(days)).round(3),
            "correct": (rng.random(len(days)) < chance).astype(int),
        }
    )


def texts(study: str, folder: str) -> pd.DataFrame:
    trials = load_trials(load_study(study), folder)
    trials["f1"] = trials["token_f1"].round(5)
    table = trials[["item_id", "arm", "difficulty", "completion", "completion_tokens", "f1"]]
    return table.sort_values(["item_id", "arm"]).reset_index(drop=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study")
    parser.add_argument("folder")
    parser.add_argument("--texts", action="store_true", help='write "texts", and nothing else')
    asked = parser.parse_args()
    if asked.texts:
        texts(asked.study, asked.folder).to_csv(FOLDER / "texts.csv", index=False)
        raise SystemExit
    both = paired(asked.study, asked.folder)
    for name, table in {"paired": both, "log": one_arm_an_item(both), "rollout": rollout()}.items():
        table.to_csv(FOLDER / f"{name}.csv", index=False)
        print(f"{name}: {len(table)} rows")
