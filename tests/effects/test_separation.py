"""Levels that one arm has alone: named with their arm, and the hint followed to an estimate."""

import re

import numpy as np
import pandas as pd
import pytest

from whyprompt import compare_arms, estimate_effect
from whyprompt.effects.separation import one_armed
from whyprompt.stats.propensity import SeparatedError, fit_logistic

ARM = {"treatment": "arm", "outcome": "y", "treated": "cot", "control": "direct"}
# Every method with a logistic score; overlap weights want no row of a level that one arm has alone.
SCORED = ["nearest", "optimal", "full", "subclass", "kernel", "ipw", "aipw"]
MATCHED = SCORED[:5]


def by(method):
    """Name a method; of aipw the textbook's, whose score is logistic as well, with one deal."""
    textbook = {"propensity": "logit", "outcome_model": "linear", "splits": 1}
    return {"method": method, **(textbook if method == "aipw" else {})}


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


def named_in(text):
    found = re.findall(r"task = '([^']+)' \((\d+) rows, all '(\w+)'\)", text)
    return [(task, int(n), only) for task, n, only in found]


@pytest.mark.parametrize("method", SCORED)
def test_the_levels_at_fault_are_named_with_their_arm_and_no_other(method):
    """task-00 is the reference level of the dummies, so that no column of the design is its own."""
    frame = tasks(LONELY)
    # The ATT wants no row that every treated row could not be; there is no ATE by optimal pairs.
    estimand = "att" if method == "optimal" else "ate"
    with pytest.raises(SeparatedError) as error:
        estimate_effect(frame, **ARM, confounders=["task", "chars"], estimand=estimand, **by(method))
    count = frame.task.value_counts()
    wanted = {task: only for task, only in LONELY.items() if estimand == "ate" or only == "cot"}
    assert named_in(error.value.message) == [(task, count[task], only) for task, only in wanted.items()]
    assert set(re.findall(r"task-\d\d", str(error.value))) == set(wanted)


@pytest.mark.parametrize("method", SCORED)
def test_levels_that_the_estimand_does_not_need_are_put_aside_and_said(method):
    alone = {"task-00": "direct", "task-01": "direct"}
    frame = tasks(alone, n=600)
    outside = frame.task.isin(alone)
    count = frame.task.value_counts()
    given = {**ARM, "confounders": ["task", "chars"], **by(method)}
    whole, rest = estimate_effect(frame, **given), estimate_effect(frame[~outside], **given)
    assert (whole.estimand, whole.estimate) == ("att", pytest.approx(rest.estimate, abs=1e-12))
    assert whole.std_error == pytest.approx(rest.std_error, rel=1e-12)
    (said,) = (w for w in whole.warnings if "put aside" in w)
    assert said.startswith(
        f"{outside.sum()} rows of levels that one arm has alone are put aside, which the ATT"
    )
    assert named_in(said) == [(task, count[task], only) for task, only in alone.items()]
    assert not [w for w in rest.warnings if "put aside" in w]
    # The arrays lie on the rows of the table as given.
    assert len(whole.weights) == len(frame)
    assert not whole.weights[outside].any()
    assert whole.weights[~outside] == pytest.approx(rest.weights, abs=1e-12)
    # The same of the treated arm, for the ATC.
    turned = {**given, "treated": "direct", "control": "cot", "estimand": "atc"}
    assert estimate_effect(frame, **turned).estimate == pytest.approx(
        estimate_effect(frame[~outside], **turned).estimate, abs=1e-12
    )


def test_overlap_weights_want_no_row_of_a_level_of_one_arm():
    frame = tasks(LONELY)
    outside = frame.task.isin(LONELY)
    given = {**ARM, "confounders": ["task", "chars"], "method": "overlap"}
    whole, rest = estimate_effect(frame, **given), estimate_effect(frame[~outside], **given)
    assert whole.estimate == pytest.approx(rest.estimate, abs=1e-12)
    assert whole.std_error == pytest.approx(rest.std_error, rel=1e-12)
    (said,) = (w for w in whole.warnings if "put aside" in w)
    assert "which the ATO does not need" in said
    assert not [w for w in whole.warnings if "not the ATO" in w]
    assert [(task, only) for task, _, only in named_in(said)] == list(LONELY.items())


def test_a_penalised_score_is_separated_by_no_level_and_says_where_overlap_is_thin():
    frame = tasks({"task-00": "cot"}, n=180)
    found = estimate_effect(frame, **ARM, confounders=["task", "chars"], method={"aipw": {"splits": 1}})
    assert found.n_treated_used == (frame.arm == "cot").sum()
    assert not [w for w in found.warnings if "put aside" in w]


@pytest.mark.parametrize("lonely", [{"task-00": "cot"}, LONELY])
@pytest.mark.parametrize("method", SCORED)
def test_the_hint_leads_to_an_estimate(lonely, method):
    frame = tasks(lonely)
    given = {**ARM, "confounders": ["task", "chars"]}
    with pytest.raises(SeparatedError) as error:
        estimate_effect(frame, **given, **by(method))
    hint = error.value.hint
    outside = frame.task.isin(lonely)
    treated = frame.task.isin([task for task, only in lonely.items() if only == "cot"])
    assert f"those {treated.sum()} rows" in hint
    rest = estimate_effect(frame[~treated], **given, **by(method))
    if method in MATCHED:
        assert "exact=['task']" in hint
        exact = estimate_effect(frame, **given, method=method, exact=["task"])
        same = estimate_effect(frame[~outside], **given, method=method, exact=["task"])
        assert exact.estimate == pytest.approx(same.estimate, abs=1e-12)
        assert exact.std_error == pytest.approx(same.std_error, rel=1e-12)
    else:
        assert "leave those" in hint
        exact = estimate_effect(frame, **given, method="nearest", exact=["task"])
    assert (exact.n_treated, exact.n_control) == (
        int((frame.arm == "cot").sum()),
        int((frame.arm == "direct").sum()),
    )
    assert rest.n_treated == int(((frame.arm == "cot") & ~treated).sum())
    # The arrays lie on the rows of the table as given.
    assert len(exact.weights) == len(exact.propensity) == len(exact.treated_rows) == len(frame)
    assert not exact.weights[outside].any()
    assert (exact.treated_rows == (frame.arm == "cot")).all()
    assert exact.matched.discarded[outside].all()
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
        estimate_effect(frame, **ARM, confounders=["task", "tongue"], method="nearest", estimand="ate")
    assert "exact=['task', 'tongue']" in error.value.hint
    given = {**ARM, "confounders": ["task", "tongue"], "method": "nearest", "estimand": "ate"}
    for options in ({"exact": ["task", "tongue"]}, {}):
        data = frame if options else frame[~rows]
        assert estimate_effect(data, **given, **options).estimate is not None


def test_two_rows_of_a_rare_level_of_four_thousand():
    rng = np.random.default_rng(0)
    n = 4000
    x = rng.normal(size=n)
    arm = (rng.random(n) < 1 / (1 + np.exp(-x))).astype(int)
    task = rng.choice(list("ABCDE"), n).astype(object)
    task[np.flatnonzero(arm == 0)[:2]] = "F"
    frame = pd.DataFrame({"arm": arm, "x": x, "task": task, "y": arm + x + rng.normal(size=n)})
    options = {"treatment": "arm", "outcome": "y", "confounders": ["x", "task"]}
    for method in ("nearest", "ipw"):
        with pytest.raises(SeparatedError, match=r"task = 'F' \(2 rows, all '0'\)\n") as error:
            estimate_effect(frame, **options, **by(method), estimand="ate")
        assert "those 2 rows" in error.value.hint
    exact = estimate_effect(frame, **options, method="full", exact=["task"])
    assert exact.ci_low < 1.0 < exact.ci_high
    # The ATT does not lose a row by it, so it is the average on the treated rows as before.
    assert "the average effect on the treated rows, by full" in exact.sentence


def test_columns_that_share_no_level_have_no_estimate_and_no_hint_to_one():
    frame = tasks({}, n=150).assign(team=lambda d: np.where(d.arm == "cot", "red", "blue"))
    given = {**ARM, "confounders": ["team", "chars"]}
    # The default, whose score is penalised, as well.
    for options in (*(by(method) for method in SCORED), {}):
        with pytest.raises(SeparatedError, match="without them no row of both arms is left") as error:
            estimate_effect(frame, **given, **options)
        assert "nothing compares them" in error.value.hint


def test_a_number_that_tells_the_arms_apart_leaves_no_other_population_either():
    rng = np.random.default_rng(0)
    x = rng.normal(size=150)
    frame = pd.DataFrame({"x": x, "arm": np.where(x > 0, "cot", "direct"), "y": rng.normal(size=150)})
    with pytest.raises(SeparatedError, match="x predict"):
        estimate_effect(frame, **ARM, confounders=["x"], method="ipw")
    found = estimate_effect(frame, **ARM, confounders=["x"])
    assert (found.method, found.estimand) == ("aipw", "att")
    assert {a.name: a.status for a in found.assumptions}["overlap"] == "fails"
    assert "may therefore not be claimed as an effect of the arm" in found.sentence
    assert not [w for w in found.warnings if "could have had either arm" in w]


def test_exact_columns_that_are_no_confounders_stand_in_the_condition():
    frame = tasks({})
    result = estimate_effect(
        frame, **ARM, confounders=["chars"], method="nearest", exact=["task"], caliper=0.05
    )
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
