"""Levels that one arm has alone: named with their arm, and the hint followed to an estimate."""

import re

import numpy as np
import pandas as pd
import pytest

from whyprompt import compare_arms, estimate_effect
from whyprompt.effects.separation import one_armed
from whyprompt.stats.propensity import SeparatedError, fit_logistic

ARM = {"treatment": "arm", "outcome": "y", "treated": "cot", "control": "direct"}
SCORED = ["nearest", "optimal", "full", "subclass", "kernel", "ipw", "overlap", "aipw"]
MATCHED = SCORED[:5]


def tasks(lonely, n=1500, seed=0):
    """Items of 27 tasks; those of `lonely` got the one arm that it names."""
    rng = np.random.default_rng(seed)
    names = np.array([f"task-{k:02d}" for k in range(27)], dtype=object)
    frame = pd.DataFrame({"task": rng.choice(names, n), "chars": rng.normal(size=n)})
    arm = np.where(rng.random(n) < 1 / (1 + np.exp(-frame.chars)), "cot", "direct").astype(object)
    for task, only in lonely.items():
        arm[(frame.task == task).to_numpy()] = only
    return frame.assign(arm=arm, y=(arm == "cot") * 0.5 + frame.chars + rng.normal(size=n))


LONELY = {"task-00": "direct", "task-07": "cot", "task-13": "direct", "task-20": "direct", "task-26": "cot"}


@pytest.mark.parametrize("method", SCORED)
def test_the_levels_at_fault_are_named_with_their_arm_and_no_other(method):
    """task-00 is the reference level of the dummies, so that no column of the design is its own."""
    frame = tasks(LONELY)
    with pytest.raises(SeparatedError) as error:
        estimate_effect(frame, **ARM, confounders=["task", "chars"], method=method)
    count = frame.task.value_counts()
    named = re.findall(r"task = '([^']+)' \((\d+) rows, all '(\w+)'\)", error.value.message)
    assert named == [(task, str(count[task]), only) for task, only in LONELY.items()]
    assert set(re.findall(r"task-\d\d", str(error.value))) == set(LONELY)


@pytest.mark.parametrize("lonely", [{"task-00": "cot"}, {"task-00": "direct", "task-01": "direct"}, LONELY])
@pytest.mark.parametrize("method", SCORED)
def test_the_hint_leads_to_an_estimate(lonely, method):
    frame = tasks(lonely)
    with pytest.raises(SeparatedError) as error:
        estimate_effect(frame, **ARM, confounders=["task", "chars"], method=method)
    hint = error.value.hint
    outside = frame.task.isin(lonely)
    assert f"those {outside.sum()} rows" in hint
    rest = estimate_effect(frame[~outside], **ARM, confounders=["task", "chars"], method=method)
    if method in MATCHED:
        assert "exact=['task']" in hint
        exact = estimate_effect(frame, **ARM, confounders=["task", "chars"], method=method, exact=["task"])
        same = estimate_effect(
            frame[~outside], **ARM, confounders=["task", "chars"], method=method, exact=["task"]
        )
        assert exact.estimate == pytest.approx(same.estimate, abs=1e-12)
        assert exact.std_error == pytest.approx(same.std_error, rel=1e-12)
    else:
        assert "leave those" in hint
        exact = estimate_effect(frame, **ARM, confounders=["task", "chars"], method="nearest", exact=["task"])
    assert (exact.n_treated, exact.n_control) == (
        int((frame.arm == "cot").sum()),
        int((frame.arm == "direct").sum()),
    )
    assert rest.n_treated + rest.n_control == (~outside).sum()
    # The arrays lie on the rows of the table as given.
    assert len(exact.weights) == len(exact.propensity) == len(exact.treated_rows) == len(frame)
    assert not exact.weights[outside].any()
    assert (exact.treated_rows == (frame.arm == "cot")).all()
    assert exact.matched.discarded[outside].all()
    spared = all(only == "direct" for only in lonely.values())
    assert ("The ATT does not need them" in hint) == (spared and rest.estimand == "att")
    if not spared:
        lost = int((outside & (frame.arm == "cot")).sum())
        m = exact.n_treated_used
        assert m <= exact.n_treated - lost
        assert f"on the {m} of {exact.n_treated} treated rows that could be matched" in exact.sentence


def test_a_level_that_is_lonely_once_another_is_left_out_is_named_as_well():
    n = 400
    rng = np.random.default_rng(0)
    task, tongue = np.tile(["a", "b", "c", "d"], 100), np.tile(["de", "en", "de", "fr"], 100)
    arm = np.where(rng.random(n) < 0.5, "cot", "direct")
    arm[task == "a"] = "direct"
    tongue[(task != "a") & (arm == "direct") & (tongue == "fr")] = "de"
    tongue[task == "a"] = "de"
    tongue[np.flatnonzero(task == "a")[:20]] = "fr"
    frame = pd.DataFrame({"task": task, "tongue": tongue, "arm": arm, "y": rng.normal(size=n)})
    levels, rows = one_armed(
        {"task": frame.task.to_numpy(object), "tongue": frame.tongue.to_numpy(object)}, (arm == "cot")
    )
    assert [(one.column, one.level) for one in levels] == [
        ("task", "'a'"),
        ("tongue", "'fr'"),
        ("task", "'d'"),
    ]
    with pytest.raises(SeparatedError) as error:
        estimate_effect(frame, **ARM, confounders=["task", "tongue"])
    assert "exact=['task', 'tongue']" in error.value.hint
    for options in ({"exact": ["task", "tongue"]}, {}):
        data = frame if options else frame[~rows]
        assert estimate_effect(data, **ARM, confounders=["task", "tongue"], **options).estimate is not None


def test_two_rows_of_a_rare_level_of_four_thousand():
    rng = np.random.default_rng(0)
    n = 4000
    x = rng.normal(size=n)
    arm = (rng.random(n) < 1 / (1 + np.exp(-x))).astype(int)
    task = rng.choice(list("ABCDE"), n).astype(object)
    task[np.flatnonzero(arm == 0)[:2]] = "F"
    frame = pd.DataFrame({"arm": arm, "x": x, "task": task, "y": arm + x + rng.normal(size=n)})
    options = {"treatment": "arm", "outcome": "y", "confounders": ["x", "task"]}
    for method in SCORED:
        with pytest.raises(SeparatedError, match=r"task = 'F' \(2 rows, all '0'\)\n") as error:
            estimate_effect(frame, **options, method=method)
        assert "those 2 rows" in error.value.hint
    exact = estimate_effect(frame, **options, method="full", exact=["task"])
    assert exact.ci_low < 1.0 < exact.ci_high
    # The ATT does not lose a row by it, so it is the average on the treated rows as before.
    assert "the average effect on the treated rows, by full" in exact.sentence


def test_columns_that_share_no_level_have_no_estimate_and_no_hint_to_one():
    frame = tasks({}).assign(team=lambda d: np.where(d.arm == "cot", "red", "blue"))
    with pytest.raises(SeparatedError, match="without them no row of both arms is left") as error:
        estimate_effect(frame, **ARM, confounders=["team", "chars"])
    assert "nothing compares them" in error.value.hint


def test_exact_columns_that_are_no_confounders_stand_in_the_condition():
    frame = tasks({})
    result = estimate_effect(frame, **ARM, confounders=["chars"], exact=["task"], caliper=0.05)
    assert result.settings["exact"] == ["task"]
    assert "if chars and task are all that affects both" in result.sentence
    assert "nothing but chars, task affects" in result.assumptions[0].detail


def test_a_combination_that_separates_is_named_without_columns_that_it_does_not_need():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 6))
    treated = X[:, 1] + X[:, 4] > 0
    with pytest.raises(SeparatedError, match="separated: b, e predict the arm"):
        fit_logistic(X, treated, names=list("abcdef"))


@pytest.mark.parametrize("lonely", ["task-00", "task-13"])
def test_the_level_that_one_of_many_arms_lacks_is_named_with_the_arm(lonely):
    """The first has no column of its own among the dummies."""
    frame = tasks({}, n=3000)
    rng = np.random.default_rng(1)
    frame["arm"] = rng.choice(["direct", "cot", "role"], len(frame)).astype(object)
    frame.loc[(frame.task == lonely) & (frame.arm == "role"), "arm"] = "cot"
    given = {"treatment": "arm", "outcome": "y", "confounders": ["task", "chars"], "method": "ipw"}
    with pytest.raises(SeparatedError, match=rf"task = '{lonely}' \(no row of 'role'\)\n") as error:
        compare_arms(frame, **given)
    assert "leave rows of these levels out" in error.value.hint
    assert len(compare_arms(frame[frame.task != lonely], **given).pairs) == 3
