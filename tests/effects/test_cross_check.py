"""DoWhy and CausalML beside our numbers: what is refused, and what they give in their own environment."""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from whyprompt import CausalGraph, charts, cross_check, estimate_effect
from whyprompt.effects.checks.peers import peers as _peers
from whyprompt.effects.checks.peers import why as _why
from whyprompt.effects.problem import prepare
from whyprompt.errors import EstimationError, GraphError

ROOT = Path(__file__).parents[2]
LALONDE = ROOT / "tests" / "reference" / "lalonde.csv"
CONFOUNDERS = ["age", "educ", "race", "married", "nodegree", "re74", "re75"]
PYTHON = os.environ.get(_peers.PYTHON_VARIABLE) or next(
    (str(p) for p in [ROOT / ".venv-crosscheck" / "bin" / "python"] if p.exists()), None
)
needs_the_tools = pytest.mark.skipif(
    PYTHON is None, reason="no environment with DoWhy and CausalML: `make crosscheck` makes one"
)


def table(n=400, effect=1.0, seed=0):
    rng = np.random.default_rng(seed)
    hard, size = rng.normal(size=(2, n))
    arm = rng.random(n) < 1 / (1 + np.exp(-0.7 * hard - 0.4 * size))
    y = effect * arm - hard + 0.5 * size + rng.normal(size=n)
    return pd.DataFrame({"arm": arm.astype(int), "hard": hard, "size": size, "y": y})


ASK = {"treatment": "arm", "outcome": "y", "confounders": ["hard", "size"]}


# ------------------------------------------------------------------------------------ without the tools
def test_where_they_are_not_installed_the_error_says_how_to_get_them(monkeypatch):
    monkeypatch.delenv(_peers.PYTHON_VARIABLE, raising=False)
    with pytest.raises(EstimationError, match=r"neither DoWhy nor CausalML.*\n.*pip\s+install dowhy"):
        cross_check(table(), **ASK)


@pytest.mark.parametrize(("named", "by"), [("argument", "python"), ("variable", _peers.PYTHON_VARIABLE)])
def test_a_program_that_is_none_is_named(monkeypatch, named, by):
    monkeypatch.delenv(_peers.PYTHON_VARIABLE, raising=False)
    if named == "variable":
        monkeypatch.setenv(_peers.PYTHON_VARIABLE, "/no/python")
    with pytest.raises(EstimationError, match=f"{by}='/no/python' is no program"):
        cross_check(table(), **ASK, python="/no/python" if named == "argument" else None)


def test_an_environment_without_the_tools_gives_no_row_and_says_so():
    found = cross_check(table(200), **ASK, python=sys.executable, draws=0)
    assert {row["tool"] for row in found.parts} == {"whyprompt"}
    assert found.not_done[:2] == ("dowhy of DoWhy: not installed", "causalml of CausalML: not installed")
    assert "gave no figure" in found.sentence


def test_a_run_that_dies_or_hangs_is_an_error_with_its_last_line(tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'No module named pandas' >&2\nexit 3\n", encoding="utf-8")
    broken.chmod(0o755)
    with pytest.raises(EstimationError, match="exit code 3: No module named pandas"):
        cross_check(table(200), **ASK, python=broken)
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 30\n", encoding="utf-8")
    slow.chmod(0o755)
    with pytest.raises(EstimationError, match=r"did not finish in 0\.2 s"):
        cross_check(table(200), **ASK, python=slow, timeout=0.2)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"estimand": "ato"}, "estimand='ato'"),
        ({"draws": 3}, "draws=3: at least 10"),
        ({"timeout": 0}, "timeout=0"),
        ({"random_state": -1}, "random_state=-1"),
        ({"confounders": []}, "nothing to adjust for"),
        ({"confounders": ["y"]}, "'y' is the outcome"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(changed, words):
    with pytest.raises(EstimationError, match=words):
        cross_check(table(200), **{**ASK, **changed}, python=sys.executable)


def test_a_set_that_the_graph_forbids_is_refused():
    graph = CausalGraph.parse("hard -> arm, y; arm -> y; arm -> size; size -> y")
    with pytest.raises(GraphError, match="size"):
        cross_check(table(200), **ASK, graph=graph, python=sys.executable)


def test_learners_of_straight_lines_in_closed_form():
    frame = table(300)
    problem = prepare(frame, **ASK)
    from sklearn.linear_model import LinearRegression

    X, t, y = problem.design.matrix, problem.treated, problem.y
    one = LinearRegression().fit(np.column_stack([t, X]), y).coef_[0]
    assert _why.learner(problem, "s_learner").both == pytest.approx(one, rel=1e-10)
    two = LinearRegression().fit(X[t], y[t]).predict(X) - LinearRegression().fit(X[~t], y[~t]).predict(X)
    assert _why.learner(problem, "t_learner").both == pytest.approx(two.mean(), rel=1e-10)
    assert _why.learner(problem, "dr_learner").both is None


@pytest.mark.parametrize("estimand", ["att", "atc", "ate"])
def test_the_range_of_ties_is_that_of_every_choice(estimand):
    """Enumerate the nearest rows of each row of a small table, and take the worst and the best of them."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"arm": [1, 0] * 12, "y": rng.normal(size=24), "score": rng.integers(1, 5, 24) / 5})
    problem = prepare(frame, treatment="arm", outcome="y", confounders=["score"])
    t, y, s = problem.treated, problem.y, frame["score"].to_numpy()
    low = high = total = 0.0
    for i in range(24):
        if estimand != "ate" and t[i] != (estimand == "att"):
            continue
        gap = np.where(t != t[i], np.abs(s - s[i]), np.inf)
        choices = [(y[i] - y[j]) * (1 if t[i] else -1) for j in np.flatnonzero(gap <= gap.min() + 1e-12)]
        low, high, total = low + min(choices), high + max(choices), total + 1
    found = _why._tie_range(problem, s, estimand)
    assert found == pytest.approx((low / total, high / total), abs=1e-12)
    assert found[0] < found[1]


def test_a_known_propensity_needs_no_confounder():
    """The tool's score is given to our code so; the rows are there although the design has no column."""
    frame = table(500).assign(p=lambda d: 1 / (1 + np.exp(-0.7 * d["hard"] - 0.4 * d["size"])))
    for method in ("ipw", "overlap", "nearest"):
        ask = {"treatment": "arm", "outcome": "y", "propensity": "p", "method": method}
        # Without a covariate there is nothing to regress on.
        ask |= {"caliper": 0.02, "regression_adjustment": False} if method == "nearest" else {}
        found = estimate_effect(frame, confounders=[], **ask)
        assert found.ci_low < 1.0 < found.ci_high
        assert found.estimate == pytest.approx(estimate_effect(frame, confounders=["hard"], **ask).estimate)


# --------------------------------------------------------------------------------------- with the tools
@pytest.fixture(scope="module")
def lalonde():
    if PYTHON is None:
        pytest.skip("no environment with DoWhy and CausalML: `make crosscheck` makes one")
    frame = pd.read_csv(LALONDE)
    before = frame.copy()
    text = "; ".join(f"{c} -> treat, re78" for c in CONFOUNDERS) + "; treat -> re78"
    found = cross_check(
        frame, treatment="treat", outcome="re78", graph=CausalGraph.parse(text), python=PYTHON
    )
    pd.testing.assert_frame_equal(frame, before)
    return found


def by_method(found):
    return {(row["tool"], row["method"].split(" (")[0]): row for row in found.parts}


def test_every_figure_is_ours_once_we_take_the_score_and_the_settings(lalonde):
    rows = by_method(lalonde)
    assert len(rows) == 10
    size = pd.read_csv(LALONDE)["re78"].std()
    for row in rows.values():
        if row["tool"] == "whyprompt" or row["method"].startswith("doubly"):
            continue
        parts = row["from_settings"] + row["from_score"] + row["unexplained"]
        assert parts == pytest.approx(row["difference"], abs=1e-6)
        if row["tie_range"] is None:
            assert abs(row["unexplained"]) < 1e-6 * size, row["method"]
        else:
            assert row["tie_range"][0] <= row.estimate <= row["tie_range"][1]
        assert row["why"]
    assert rows["DoWhy", "propensity score matching"]["tie_range"] is not None
    assert rows["CausalML", "T-learner"].estimate == pytest.approx(rows["CausalML", "X-learner"].estimate)
    assert not [w for w in lalonde.warnings if w.startswith("unexplained")]
    assert lalonde.not_done == ()


def test_ours_are_those_of_estimate_effect(lalonde):
    frame = pd.read_csv(LALONDE)
    ask = {"treatment": "treat", "outcome": "re78", "confounders": sorted(CONFOUNDERS)}
    for method, more in (
        ("nearest", {"caliper": 0.2, "regression_adjustment": False}),
        ("ipw", {"estimand": "att"}),
        ("aipw", {"estimand": "ate"}),
    ):
        alone = estimate_effect(frame, method=method, **ask, **more)
        row = by_method(lalonde)["whyprompt", method]
        assert (row.estimate, row.ci_low, row.ci_high) == (alone.estimate, alone.ci_low, alone.ci_high)


def test_it_has_a_table_values_pictures_and_the_versions(lalonde):
    assert json.loads(json.dumps(lalonde.to_dict(), allow_nan=False))["versions"]["dowhy"] == "0.14"
    assert len(lalonde.to_frame()) == 10
    assert [r.label for r in lalonde.refuters[::2]] == [
        "placebo treatment", "random common cause", "data subset",
    ]  # fmt: skip
    assert all(r.estimate is not None for r in lalonde.refuters)
    assert [r.by for r in lalonde.refuters] == ["DoWhy", "whyprompt"] * 3
    assert [p.at for p in lalonde.uplift[::2]] == pytest.approx(np.arange(1, 11) / 10)
    assert lalonde.identification is not None
    assert lalonde.identification.verdict == "passes"
    for chart in (lalonde.plot(), lalonde.plot("uplift")):
        assert chart.to_dict()["description"]
    assert "share every assumption" in str(lalonde)


@needs_the_tools
@pytest.mark.parametrize("estimand", ["att", "atc"])
def test_matches_with_replacement_are_ours_up_to_ties(estimand):
    found = cross_check(
        pd.read_csv(LALONDE), treatment="treat", outcome="re78", confounders=CONFOUNDERS, estimand=estimand,
        replace=True, python=PYTHON, draws=0, uplift=False,
    )  # fmt: skip
    row = by_method(found)["CausalML", "nearest-neighbour matching"]
    assert row["tie_range"][0] <= row.estimate <= row["tie_range"][1]
    assert row["tie_range"][0] < row["tie_range"][1]
    assert not [w for w in found.warnings if w.startswith("unexplained")]


@needs_the_tools
def test_all_find_a_known_effect():
    found = cross_check(table(3000, effect=1.0, seed=4), **ASK, estimand="ate", python=PYTHON, draws=0)
    assert {round(r.estimate, 1) for r in found.parts} <= {0.9, 1.0, 1.1}
    assert found.refuters == ()
    assert any("one arm to the other" in text for text in found.not_done)
    theirs, at_all = found.uplift[-2:]
    assert at_all.ci_low < 1.0 < at_all.ci_high
    # CausalML compares arms as they are: with confounding its curve ends at the plain difference.
    plain = estimate_effect(table(3000, effect=1.0, seed=4), treatment="arm", outcome="y", method="naive")
    assert theirs.estimate == pytest.approx(plain.estimate, abs=1e-9)
    assert math.isclose(at_all.at, 1.0)


@needs_the_tools
def test_a_tool_that_fails_on_a_table_is_reported_and_the_rest_stands():
    """CausalML's matching without replacement raises where treated rows outnumber the controls."""
    frame = table(300)
    few = pd.concat([frame[frame["arm"] == 1], frame[frame["arm"] == 0].head(40)], ignore_index=True)
    found = cross_check(few, **ASK, python=PYTHON, draws=0, caliper=5.0)
    failed = [text for text in found.not_done if text.startswith("nearest-neighbour matching of CausalML")]
    assert failed
    assert ("CausalML", "nearest-neighbour matching") not in by_method(found)
    assert ("CausalML", "S-learner") in by_method(found)


@needs_the_tools
def test_a_column_with_dowhys_own_name_does_no_harm():
    """DoWhy takes a column `propensity_score` in the frame for its own; ours are passed under other names."""
    frame = table(300)
    named = frame.rename(columns={"hard": "propensity_score"})
    options = {"python": PYTHON, "draws": 0, "uplift": False}
    a = cross_check(frame, **ASK, **options)
    b = cross_check(named, **{**ASK, "confounders": ["propensity_score", "size"]}, **options)
    assert [r.estimate for r in a.parts] == pytest.approx([r.estimate for r in b.parts], rel=1e-9)


@needs_the_tools
def test_identification_gives_a_valid_set_and_the_same_each_time():
    rng = np.random.default_rng(5)
    n = 400
    a, b = rng.normal(size=(2, n))
    c = a + rng.normal(size=n)
    arm = (c + rng.normal(size=n) > 0).astype(int)
    frame = pd.DataFrame({"arm": arm, "y": arm + a + b + rng.normal(size=n), "a": a, "b": b, "c": c})
    graph = CausalGraph.parse("a -> c, y; c -> arm; b -> y; arm -> y")
    ask = {"treatment": "arm", "outcome": "y", "graph": graph, "draws": 0, "uplift": False}
    found = [cross_check(frame, **ask, python=PYTHON).identification for _ in range(3)]
    assert found[0] == found[1] == found[2]
    assert len(found[0].settings["whyprompt"]) == 1
    assert set(found[0].settings["dowhy"]) & {"a", "c"}
    graph.check_adjustment("arm", "y", found[0].settings["dowhy"])


@pytest.mark.parametrize(
    ("backdoor", "identified", "note"),
    [
        (["a"], True, "both adjust for the same"),
        (["c"], True, "both sets are valid"),
        ([], False, "DoWhy finds no set"),
        (["m"], True, "our graph forbids DoWhy's set"),
    ],
)
def test_what_is_said_of_two_sets(backdoor, identified, note):
    graph = CausalGraph.parse("a -> c, y; c -> arm; arm -> m; m -> y")
    row = {"backdoor": backdoor, "identified": identified}
    found = importlib.import_module("whyprompt.effects.checks.peers.cross_check")._identification(
        row, graph, "arm", "y", ("a",)
    )
    assert found.sentence.startswith(note)
    assert (found.verdict == "passes") == (backdoor == ["a"])


@needs_the_tools
def test_three_arms_two_of_them_named_and_another_frame_library():
    pl = pytest.importorskip("polars")
    frame = table(450)
    frame["arm"] = np.where(np.arange(450) % 5 == 0, "json", np.where(frame["arm"] == 1, "cot", "direct"))
    ask = {
        **ASK,
        "treated": "cot",
        "control": "direct",
        "python": PYTHON,
        "draws": 0,
        "uplift": False,
    }
    whole = cross_check(pl.from_pandas(frame), **ask)
    kept = cross_check(frame[frame["arm"] != "json"].reset_index(drop=True), **ask)
    assert whole.parts[0].n_treated + whole.parts[0].n_control == (frame["arm"] != "json").sum()
    assert [r.estimate for r in whole.parts] == pytest.approx([r.estimate for r in kept.parts], rel=1e-9)


def test_the_uplift_picture_refuses_what_it_cannot_draw(lalonde):
    with pytest.raises(EstimationError, match="the table is empty"):
        charts.uplift_plot([])
    from dataclasses import replace

    with pytest.raises(EstimationError, match="no uplift curve"):
        replace(lalonde, uplift=()).plot("uplift")
