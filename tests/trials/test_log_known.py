"""What rows of logs are adjusted for: gaps, columns that nobody spoke of, and which arm is the control."""

from __future__ import annotations

import json
import shlex
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import whyprompt as wp
from whyprompt.answers.log_known import _blamed, _moved
from whyprompt.effects.headline import headline, verdict
from whyprompt.errors import DataError
from whyprompt.stats.moved import Moved


@pytest.fixture(scope="module")
def drawn():
    """Questions of which the hard ones go to v2: it looks worse, and is a little better."""
    rng = np.random.default_rng(11)
    hard = rng.normal(3, 1.2, 300).clip(0.5, 6).round(1)
    words = rng.choice(["where", "order", "why", "twice", "help", "invoice"], (300, 8))
    new = rng.random(300) < 1 / (1 + np.exp(-1.3 * (hard - 3)))
    right = rng.random(300) < 1 / (1 + np.exp(-(0.8 - 1.2 * (hard - 3) + 0.5 * new)))
    return pd.DataFrame(
        {
            "prompt_version": np.where(new, "v2", "v1"),
            "difficulty": hard,
            "question": [" ".join(one) for one in words],
            "correct": right.astype(int),
        }
    )


def write(frame, path):
    frame.to_csv(path, index=False)
    return path


def test_one_blank_cell_of_a_confounder_is_an_error_with_ways_on(run, drawn, tmp_path, monkeypatch):
    gap = drawn.copy()
    gap.loc[5, "difficulty"] = np.nan
    path = write(gap, tmp_path / "log.csv")
    code, out, err = run("effect", path)
    assert (code, out) == (2, "")
    assert "'difficulty' has 1 missing value in 300 rows" in err
    assert err.rstrip().endswith("--confounders question_chars")
    assert run("effect", path, "--confounders", "difficulty")[0] == 2
    # The commands of the message run, and find what the whole log says.
    monkeypatch.chdir(tmp_path)
    first, second = err.split("(whyprompt ")[1].split(");")[0].split(" && whyprompt ")
    assert run(*shlex.split(first.replace("LOG", "log.csv")))[0] == 0
    code, out, err = run(*shlex.split(second.replace("--impute 20", "--impute 3")), "--json")
    assert code == 0, err
    whole = wp.log_effect(wp.read_trials(write(drawn, tmp_path / "whole.csv")))
    assert verdict(whole) == "undecided"
    assert abs(json.loads(out)["estimate"] - whole.estimate) < whole.std_error / 2


def test_a_confounder_of_another_name_is_no_verdict_until_it_is_said_what_it_is(drawn, tmp_path):
    other = drawn.rename(columns={"difficulty": "hardness"})
    path = write(other, tmp_path / "log.csv")
    made = wp.log_effect(wp.read_trials(path))
    assert made.confounders == ("question_chars",)
    assert verdict(made) == "no effect"
    assert headline(made).endswith(
        "not to be called an effect until it is said whether 'hardness' was known before the arm."
    )
    assert "may therefore not be claimed" in made.sentence
    named = wp.log_effect(wp.read_trials(path), confounders=["question_chars", "hardness"])
    known = wp.log_effect(wp.read_trials(write(drawn, tmp_path / "known.csv")))
    assert known.confounders == ("question_chars", "difficulty")
    assert (named.estimate, named.std_error) == (known.estimate, known.std_error)
    # Who says that the length is all has said what the other is not.
    assert verdict(wp.log_effect(wp.read_trials(path), confounders=["question_chars"])) == "worse"
    holes = other.copy()
    holes.loc[::9, "hardness"] = np.nan
    assert verdict(wp.log_effect(wp.read_trials(write(holes, path)))) == "no effect"


def test_a_column_that_moves_nothing_leaves_the_verdict(drawn, tmp_path):
    noise = np.random.default_rng(2).normal(size=len(drawn)).round(3)
    path = write(drawn.drop(columns="difficulty").assign(shade=noise), tmp_path / "log.csv")
    made = wp.log_effect(wp.read_trials(path))
    assert verdict(made) == "worse"
    assert any("not adjusted for" in text and "'shade'" in text for text in made.warnings)


def test_what_many_levels_of_nothing_move_by_chance_leaves_the_verdict(drawn, tmp_path):
    """Of 25 levels that were drawn by lot some go with the arm, and move it by half a standard error."""
    desk = np.char.add("desk ", np.random.default_rng(34).integers(0, 25, len(drawn)).astype(str))
    path = write(drawn.drop(columns="difficulty").assign(desk=desk), tmp_path / "log.csv")
    made = wp.log_effect(wp.read_trials(path))
    told = next(text for text in made.warnings if "'desk'" in text and "in a regression" in text)
    assert abs(float(told.rpartition(" ")[2])) > made.std_error / 2
    assert verdict(made) == "worse"


def test_of_several_columns_those_that_move_it_are_named(drawn, tmp_path):
    shade = np.random.default_rng(3).normal(size=len(drawn)).round(3)
    other = drawn.rename(columns={"difficulty": "hardness"}).assign(
        shade=shade, weight=drawn["difficulty"] ** 2
    )
    made = wp.log_effect(wp.read_trials(write(other, tmp_path / "log.csv")))
    assert headline(made).endswith(
        "until it is said whether 'hardness' and 'weight' were known before the arm."
    )
    told = next(text for text in made.warnings if "nobody has said" in text)
    assert "confounders=['question_chars', 'hardness', 'weight'] adjusts for them" in told


def test_what_is_blamed_moves_half_an_error_and_more_than_chance_of_all_that_are_asked():
    def blamed(*alone, together=None):
        together = together or Moved(0.0, 0.0, False)
        return list(_blamed("abcdef"[: len(alone)], alone, together, 1.0))

    sure, small, by_chance = Moved(-0.6, 0.2, False), Moved(0.4, 0.01, False), Moved(0.6, 0.4, False)
    assert blamed(small, sure, by_chance) == ["b"]
    # What one column moves beyond chance, the largest of six does not.
    near = Moved(0.6, 0.6 / 2.3, False)
    assert blamed(near) == ["a"]
    assert blamed(near, *[small] * 5) == []
    # Nor are 2.3 errors beyond chance where six degrees of freedom are left.
    assert blamed(near._replace(df=6.0)) == []
    # Where only all together move it none is spared.
    assert blamed(small, small, together=sure) == ["a", "b"]
    assert blamed(small, Moved(np.nan, np.nan, True)) == ["b"]
    assert blamed(small, small, together=Moved(np.nan, np.nan, True)) == ["a", "b"]


def test_a_curve_that_decided_the_arm_moves_the_estimate_and_repeats_of_items_do_not_make_it_surer():
    rng = np.random.default_rng(8)
    z = rng.normal(size=200)
    new = rng.random(200) < 1 / (1 + np.exp(1 - z**2))
    rows = pd.DataFrame({"item_id": range(200), "arm": np.where(new, "v2", "v1"), "z": z})
    rows["known"], rows["y"] = rng.normal(size=200), z**2 + rng.normal(size=200)
    made = SimpleNamespace(outcome="y", treated="v2")
    one = _moved(made, rows, ["known"], ["z"])
    assert one.move < -0.5
    assert abs(one.move) > 3 * one.error
    again = pd.concat([rows.assign(y=rows["y"] + k) for k in (-1, 0, 1)])
    assert _moved(made, again, ["known"], ["z"]) == pytest.approx(one)


def test_a_gap_that_decided_the_arm_moves_the_estimate():
    """What stands where there is something has no part in it."""
    rng = np.random.default_rng(9)
    gone = rng.random(300) < 0.5
    new = rng.random(300) < np.where(gone, 0.75, 0.25)
    rows = pd.DataFrame(
        {"item_id": range(300), "arm": np.where(new, "v2", "v1"), "known": rng.normal(size=300)}
    )
    rows["z"], rows["y"] = np.where(gone, np.nan, rng.normal(size=300)), gone + 0.5 * rng.normal(size=300)
    found = _moved(SimpleNamespace(outcome="y", treated="v2"), rows, ["known"], ["z"])
    assert found.move < -0.3
    assert abs(found.move) > 3 * found.error


def test_a_column_that_tells_the_arm_is_no_verdict(drawn, tmp_path):
    """Where it was known beforehand it may be all of the difference, whatever a regression says."""
    desk = np.where(drawn["prompt_version"] == "v2", "north", "south")
    desk[::40] = "north"
    other = drawn.drop(columns="difficulty").assign(desk=desk)
    made = wp.log_effect(wp.read_trials(write(other, tmp_path / "log.csv")))
    assert verdict(made) == "no effect"
    assert made.figures["unclear"] == ("desk",)


def test_repeats_are_no_further_items_that_a_column_moves(drawn, tmp_path):
    desk = np.char.add("desk ", np.random.default_rng(5).integers(0, 8, len(drawn)).astype(str))
    one = drawn.drop(columns="difficulty").assign(desk=desk)
    made = [
        wp.log_effect(wp.read_trials(write(frame, tmp_path / "log.csv")))
        for frame in (one, pd.concat([one] * 4))
    ]
    assert [verdict(m) for m in made] == ["worse", "worse"]


def test_what_is_known_of_a_question_by_its_name_is_adjusted_for(drawn, tmp_path):
    topic = np.where(drawn["difficulty"] > 3, "late", "order")
    path = write(drawn.drop(columns="difficulty").assign(topic=topic), tmp_path / "log.csv")
    made = wp.log_effect(wp.read_trials(path))
    assert made.confounders == ("question_chars", "topic")
    assert abs(made.estimate) < 0.2


def test_nobody_is_quoted_who_stated_nothing(drawn, tmp_path):
    found = wp.read_trials(write(drawn, tmp_path / "log.csv"))
    told = {a.name: a.detail for a in wp.log_effect(found).assumptions}["exchangeability"]
    assert told.startswith("taken, as no confounders were named: nothing but question_chars, difficulty")
    told = {a.name: a.detail for a in wp.log_effect(found, confounders=["difficulty"]).assumptions}
    assert told["exchangeability"].startswith("as the caller states, nothing but difficulty affects")


def test_a_column_that_the_logs_have_not_is_told_with_those_they_have(drawn, tmp_path):
    found = wp.read_trials(write(drawn, tmp_path / "log.csv"))
    with pytest.raises(DataError, match="no column 'question' that can") as caught:
        wp.log_effect(found, confounders=["question"])
    assert caught.value.hint == "there are: question_chars, difficulty"


@pytest.mark.parametrize(
    ("control", "treated"), [("v9", "v10"), ("a", "b"), ("Old", "new"), ("baseline", "an improved one")]
)
def test_the_control_of_a_table_does_not_hang_on_the_order_of_its_rows(tmp_path, control, treated):
    rows = [(k, arm, int(k % 3 > 0 or arm == treated)) for k in range(12) for arm in (control, treated)]
    frame = pd.DataFrame(rows, columns=["item_id", "variant", "correct"])
    made = [
        wp.log_effect(wp.read_trials(write(one, tmp_path / "log.csv")))
        for one in (frame, frame[::-1], frame.sample(frac=1, random_state=3))
    ]
    assert {(m.control, m.treated) for m in made} == {(control, treated)}
    assert {m.estimate for m in made} == {1 / 3}


def test_of_logs_of_one_arm_each_the_first_that_is_given_is_the_control(tmp_path):
    paths = []
    for arm in ("v2", "v1"):
        frame = pd.DataFrame({"item_id": range(6), "variant": arm, "correct": [0, 1] * 3})
        paths.append(write(frame, tmp_path / f"{arm}.csv"))
    assert wp.read_trials(*paths).reference == "v2"
    assert wp.read_trials(*reversed(paths)).reference == "v1"
