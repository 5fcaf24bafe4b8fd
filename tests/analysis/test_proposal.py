"""What a table may be asked: each column is taken for what it is, and nothing is estimated unasked."""

import json
import shlex

import numpy as np
import pandas as pd
import pytest

from whyprompt import load_example
from whyprompt.answers.proposal import propose
from whyprompt.errors import DataError


def log(n=300):
    rng = np.random.default_rng(0)
    hard = rng.normal(size=n)
    new = rng.random(n) < 1 / (1 + np.exp(-hard))
    return pd.DataFrame(
        {
            "Prompt Version": np.where(new, "v2", "v1"),
            "difficulty": hard,
            "question_tokens": rng.poisson(20, n),
            "score": -hard + 0.3 * new + rng.normal(size=n),
            "latency_ms": rng.integers(100, 900, n),
            "completion": [f"text {i}" for i in range(n)],
            "user_id": rng.integers(0, 30, n),
            "id": rng.permutation(n),
            "model": "m",
            "started": pd.date_range("2026-01-01", periods=n),
        }
    )


def roles(frame):
    return {taken.column: taken.role for taken in propose(frame, "t.csv").columns}


def test_each_column_is_taken_for_what_it_is_and_says_why():
    found = propose(log(), "my log.csv")
    assert roles(log()) == {
        "Prompt Version": "treatment",
        "score": "outcome",
        "user_id": "cluster",
        "difficulty": "confounder",
        "question_tokens": "confounder",
        "latency_ms": "left out",
        "completion": "left out",
        "id": "left out",
        "model": "left out",
        "started": "left out",
    }
    why = {taken.column: taken.why for taken in found.columns}
    assert "v1 (160 rows), v2 (140 rows)" in why["Prompt Version"]
    assert "it is a time" in why["latency_ms"]
    assert why["model"] == "the same in every row"
    assert why["id"] == "it names the row"
    assert all(why.values())
    assert found.command == (
        "whyprompt effect 'my log.csv' --treatment 'Prompt Version' --outcome score --treated v2 --control v1"
        " --confounders difficulty,question_tokens --cluster user_id"
    )


def test_neither_the_order_of_rows_nor_of_columns_changes_what_is_asked():
    frame = log()
    turned = frame.sample(frac=1.0, random_state=1)[list(frame.columns[::-1])]
    assert roles(turned) == roles(frame)
    one, other = propose(frame, "t.csv"), propose(turned, "t.csv")
    assert set(one.command.split()[4:6]) <= set(other.command.split())
    assert one.control == other.control == "v1"


def test_a_table_of_both_arms_of_each_item_is_paired():
    rows = [
        {"item_id": i, "arm": a, "score": i % 3, "hard": i % 5} for i in range(30) for a in ("cot", "direct")
    ]
    found = propose(pd.DataFrame(rows), "t.csv")
    assert found.paired
    assert found.command.endswith("--treated cot --control direct --design paired --unit item_id")


def test_more_than_two_arms_are_held_against_the_one_called_so():
    frame = log().assign(arm=np.resize(["few_shot", "baseline", "cot"], 300)).drop(columns="Prompt Version")
    assert "--as all-arms:reference=baseline" in propose(frame, "t.csv").command


def test_logged_chances_are_used_as_such():
    assert "--propensity pscore --confounders" in propose(log().assign(pscore=0.5), "t.csv").command


def test_a_column_that_the_command_cannot_name_is_left_out_and_says_why():
    found = propose(log().rename(columns={"question_tokens": "tokens, asked"}), "t.csv")
    assert found.named("confounder") == ("difficulty",)
    assert any(taken.why.startswith("a comma in its name") for taken in found.columns)


def test_gaps_and_a_running_number_are_left_out_and_say_why():
    gaps = log().assign(difficulty=lambda t: t["difficulty"].where(t.index > 2), row=range(300))
    found = {taken.column: taken for taken in propose(gaps, "t.csv").columns}
    assert found["difficulty"].role == found["row"].role == "left out"
    assert found["difficulty"].why == "3 of its values are missing; --impute 20 fills them"
    assert found["row"].why == "it numbers the rows"


def test_what_could_be_it_too_is_said():
    found = propose(log().assign(arm=np.resize(["x", "y"], 300), passed=np.resize([0, 1, 1], 300)), "t.csv")
    assert found.named("treatment") == ("arm",)
    assert any("'passed' may be the outcome too: --outcome." in doubt for doubt in found.doubts)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pd.DataFrame({"x": range(40), "score": range(40)}), "no column looks like an arm"),
        (
            pd.DataFrame({"arm": list("ab") * 20, "x": range(40)}),
            "no column of numbers looks like an outcome",
        ),
    ],
)
def test_what_cannot_be_told_is_asked_for(frame, said):
    with pytest.raises(DataError, match=said):
        propose(frame, "t.csv")


def test_the_verb_proposes_and_estimates_nothing(run, tmp_path):
    path = tmp_path / "t.csv"
    log().drop(columns="id").to_csv(path, index=False)
    code, out, err = run("effect", path)
    assert code == 2
    assert "taken for" in out
    assert (
        "if nothing but difficulty and question_tokens affects both the choice of arm and the outcome?" in out
    )
    assert "interval" not in out
    assert "nothing was estimated" in err
    code, out, _ = run("effect", path, "--json")
    command = json.loads(out)["command"]
    assert (code, command in err) == (2, True)
    # What is proposed runs as it stands.
    code, out, err = run(*shlex.split(command)[1:])
    assert code == 0, err
    assert "'v2' instead of 'v1'" in out


def test_the_size_of_what_came_back_is_left_out_of_the_confounders():
    found = propose(log().assign(tokens_out=np.arange(300) % 90), "t.csv")
    why = {taken.column: taken.why for taken in found.columns}
    assert "tokens_out" not in found.command
    assert why["tokens_out"] == "a completion's length is caused by the arm (reasoning is longer)"


RENAMED = [{}, {"few_shot": "a_prompt", "direct": "b_prompt"}, {"few_shot": 1, "direct": 0}]


@pytest.mark.parametrize("called", RENAMED)
def test_an_arm_that_begins_on_a_date_in_some_routes_is_a_roll_out(called):
    frame = load_example("rollout")
    frame["arm"] = [called.get(arm, arm) for arm in frame["arm"]]
    found = propose(frame.sample(frac=1, random_state=0), "t.csv")
    new, old = (str(called.get(arm, arm)) for arm in ("few_shot", "direct"))
    assert {taken.column: taken.role for taken in found.columns} == {
        "arm": "treatment",
        "correct": "outcome",
        "started_at": "time",
        "route": "route",
        "difficulty": "confounder",
    }
    assert found.command == (
        f"whyprompt effect t.csv --treatment arm --outcome correct --treated {new} --control {old}"
        " --design rollout:time=started_at --unit route --confounders difficulty"
    )
    assert "in 3 of 6 the arm changes once" in found.text
    assert "Where a lot decided it" not in found.text


def test_an_arm_that_comes_and_goes_is_no_roll_out():
    frame = load_example("rollout")
    back = frame["route"].eq("chat") & frame["started_at"].astype(str).str.startswith("2025-03-01")
    assert back.any()
    frame.loc[back, "arm"] = "few_shot"
    assert roles(frame)["route"] == "confounder"
    # A few rows stand in order by chance.
    few = load_example("rollout").groupby(["route", "arm"]).head(4)
    assert roles(few)["route"] == "confounder"


def test_a_lot_that_names_the_arm_is_not_adjusted_for():
    found = propose(load_example("log"), "t.csv")
    why = {taken.column: taken.why for taken in found.columns}
    assert why["drawn"] == "it names an arm, which was not always the one taken"
    assert "drawn" not in found.command
    said = "'drawn' names a level of 'arm': where a lot drew it, --design instrument:instrument=drawn"
    assert said in found.text
    copied = propose(load_example("log").assign(again=lambda d: d["arm"]), "t.csv")
    assert "the same as the arm in every row" in copied.text
    # Two questions that are both answered by yes and no are two questions.
    answered = log().replace({"v1": "no", "v2": "yes"})
    answered["hard"] = np.where(answered["difficulty"] > 0, "yes", "no")
    assert roles(answered)["hard"] == "confounder"


def test_a_column_without_a_name_is_that_of_the_rows():
    frame = pd.DataFrame(
        {"Unnamed: 0": [3, 1, 2, 9] * 10, "arm": list("abba") * 10, "score": [0, 1, 1, 0] * 10}
    )
    assert roles(frame)["Unnamed: 0"] == "left out"
