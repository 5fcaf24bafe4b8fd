"""Recipes: fitted once on all rows, applied alike to every row, stored and applied again."""

from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whyprompt import estimate_effect
from whyprompt.effects.prepare.recipe import Recipe, prepare_table
from whyprompt.effects.prepare.steps import Step
from whyprompt.errors import DataError

STEPS = (
    Step.winsorise("tokens", lower=0.05, upper=0.95),
    Step.flag_outliers("cost"),
    Step.scale("tokens", into="tokens_z"),
    Step.bin("level", n_bins=3, into="level_bin"),
    Step.code("task", reference="math"),
)


def table(n=200, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "arm": rng.choice(["cot", "direct"], n),
            "tokens": rng.lognormal(4, 1, n),
            "cost": rng.standard_cauchy(n),
            "level": rng.integers(0, 9, n),
            "task": rng.choice(["math", "code", "law"], n),
            "y": rng.normal(size=n),
        },
        index=rng.permutation(n),
    )


def test_every_step_does_what_its_formula_says():
    frame = table()
    before = frame.copy()
    done = prepare_table(frame, STEPS, treatment="arm", outcome="y")
    pd.testing.assert_frame_equal(frame, before)
    got = done.frame
    assert list(got.index) == list(frame.index)
    low, high = np.quantile(frame["tokens"], [0.05, 0.95])
    clipped = frame["tokens"].clip(low, high)
    np.testing.assert_array_equal(got["tokens"], clipped)
    # The scale is learnt after winsorising, as the order of the steps says.
    np.testing.assert_allclose(got["tokens_z"], (clipped - clipped.mean()) / clipped.std(), atol=1e-12)
    first, third = np.quantile(frame["cost"], [0.25, 0.75])
    outside = (frame["cost"] < first - 1.5 * (third - first)) | (
        frame["cost"] > third + 1.5 * (third - first)
    )
    np.testing.assert_array_equal(got["cost_outlier"], outside.astype(float))
    np.testing.assert_array_equal(got["cost"], frame["cost"])
    cuts = np.quantile(frame["level"], [1 / 3, 2 / 3])
    np.testing.assert_array_equal(
        got["level_bin"].str[0].astype(int), 1 + (frame["level"] >= cuts[0]) + (frame["level"] >= cuts[1])
    )
    assert "task" not in got.columns
    np.testing.assert_array_equal(got["task_code"], (frame["task"] == "code").astype(float))
    np.testing.assert_array_equal(got["task_law"], (frame["task"] == "law").astype(float))
    by_kind = {part.note: part for part in done.parts}
    assert by_kind["winsorise"].estimate == int((clipped != frame["tokens"]).sum()) == 20
    assert sum(by_kind["winsorise"]["by_arm"].values()) == 20
    assert by_kind["flag"].estimate == outside.sum()
    assert "No row was dropped" in done.sentence
    assert "20 values moved (" in str(done)
    assert list(done.to_frame()["note"]) == ["winsorise", "flag", "scale", "bin", "code"]
    assert str(done.recipe).startswith("Recipe of 5 steps, fitted on 200 rows of all arms together")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_arms_are_treated_alike_whatever_table_they_come_in(seed):
    frame = table(80, seed)
    whole = prepare_table(frame, STEPS)
    stored = Recipe.from_json(whole.recipe.to_json())
    assert stored == whole.recipe
    for arm in ("cot", "direct"):
        rows = (frame["arm"] == arm).to_numpy()
        part = stored.apply(frame[rows])
        pd.testing.assert_frame_equal(part.frame, whole.frame[rows])
    order = np.random.default_rng(seed).permutation(80)
    again = prepare_table(frame.iloc[order], STEPS)
    pd.testing.assert_frame_equal(again.frame, whole.frame.iloc[order], rtol=1e-9)


def test_the_callers_kind_comes_back_with_the_same_values():
    raw = table(50).to_dict(orient="list")
    reference = prepare_table(pd.DataFrame(raw), STEPS).frame.to_dict(orient="list")
    arrow = prepare_table(pa.table(raw), STEPS).frame
    assert isinstance(arrow, pa.Table)
    assert arrow.to_pydict() == reference
    if find_spec("polars"):
        import polars as pl

        polars = prepare_table(pl.DataFrame(raw), STEPS).frame
        assert isinstance(polars, pl.DataFrame)
        assert polars.to_dict(as_series=False) == reference


def test_a_level_that_was_not_seen_is_refused_by_name():
    recipe = prepare_table(table(), [Step.code("task")]).recipe
    new = table(5).assign(task=["math", "code", "poetry", "law", "math"])
    with pytest.raises(DataError, match="'task' has the level 'poetry', which the recipe was not fitted on"):
        recipe.apply(new)
    # Fewer levels are no reason to code otherwise.
    few = recipe.apply(table(5).assign(task="math")).frame
    assert few[["task_law", "task_math"]].to_numpy().tolist() == [[0.0, 1.0]] * 5


def test_gaps_stay_gaps_and_are_counted():
    frame = pd.DataFrame(
        {
            "x": [1.0, np.nan, 3.0, 100.0],
            "k": ["a", None, "b", "a"],
            "b": [True, False, None, True],
        }
    )
    done = prepare_table(
        frame,
        [
            Step.winsorise("x", at=(0, 10)),
            Step.bin("x", how="width", n_bins=2),
            Step.code("k"),
            Step.code("b"),
        ],
    )
    assert done.frame["x"].isna().tolist() == [False, True, False, False]
    assert done.frame["k_b"].isna().tolist() == [False, True, False, False]
    assert done.frame["b_True"].tolist()[:2] == [1.0, 0.0]
    assert np.isnan(done.frame["b_True"][2])
    assert [done.n_rows - part.n_used for part in done.parts] == [1, 1, 1, 1]
    assert "1 gaps stay gaps" in done.sentence
    assert done.frame["x"].dropna().tolist() == ["1: below 5.5", "1: below 5.5", "2: 5.5 or more"]


def test_bins_are_open_ended_merged_where_equal_and_sorted_as_text():
    x = np.r_[np.zeros(60), np.arange(1, 41)]
    frame = pd.DataFrame({"x": x})
    merged = prepare_table(frame, [Step.bin("x", n_bins=4)])
    assert "in 2 bins by quantile (4 asked for; equal cuts are merged)" in merged.sentence
    many = prepare_table(frame, [Step.bin("x", how="cutpoints", cutpoints=np.arange(1, 12))])
    labels = many.recipe.steps[0].settings["labels"]
    assert labels == sorted(labels)
    assert labels[0] == "01: below 1"
    beyond = many.recipe.apply(pd.DataFrame({"x": [-1e9, 1.0, 1e9]})).frame
    assert beyond["x"].tolist() == [labels[0], labels[1], labels[-1]]
    with pytest.raises(DataError, match="all fall into one bin"):
        prepare_table(
            pd.DataFrame({"x": np.r_[np.zeros(99), 1.0]}), [Step.bin("x", how="quantile", n_bins=2)]
        )
    with pytest.raises(DataError, match="must be given and increase"):
        prepare_table(frame, [Step.bin("x", how="cutpoints", cutpoints=[3, 1])])


def test_scales_by_hand():
    frame = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0, 10.0]})
    robust = prepare_table(frame, [Step.scale("x", how="robust")]).frame["x"]
    np.testing.assert_allclose(robust, (frame["x"] - 2) / 2)
    ranged = prepare_table(frame, [Step.scale("x", how="range")]).frame["x"]
    np.testing.assert_allclose(ranged, frame["x"] / 10)
    flagged = prepare_table(frame, [Step.flag_outliers("x", rule="mad", k=3)]).frame["x_outlier"]
    assert flagged.tolist() == [0, 0, 0, 0, 1]


def test_treatment_and_outcome_are_left_alone():
    frame = table()
    with pytest.raises(DataError, match="would change the outcome 'y'"):
        prepare_table(frame, [Step.winsorise("y")], outcome="y")
    with pytest.raises(DataError, match="would change the treatment 'arm'"):
        prepare_table(frame, [Step.code("arm")], treatment="arm")
    with pytest.raises(DataError, match="would change the outcome 'y'"):
        prepare_table(frame, [Step.scale("tokens", into="y")], outcome="y")
    aside = prepare_table(frame, [Step.scale("y", into="y_z")], outcome="y").frame
    np.testing.assert_array_equal(aside["y"], frame["y"])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([Step.scale("task")], "'task' is text and cannot be scaled"),
        ([Step.code("level")], "'level' is numeric and cannot be coded by level"),
        ([Step.code("task", reference="poetry")], "reference level 'poetry' does not occur"),
        ([Step.winsorise("tokens", lower=0.9, upper=0.1)], r"quantiles 0\.9 and 0\.1 are not in order"),
        ([Step.winsorise("token")], "did you mean 'tokens'"),
        ([Step.scale("flat")], "'flat' has no spread"),
        ([Step.flag_outliers("flat")], "more than half of its values are equal"),
        ([Step.scale("tokens", into="cost")], "would overwrite column 'cost'"),
        ([Step.code("task"), Step.code("task")], "'task' is used after the step that replaces it"),
        ([Step.bin("tokens", n_bins=1)], "n_bins is 1"),
        ([Step.winsorise("wild")], r"'wild' has 1 infinite value\(s\), the first in row 3"),
        ([], "the recipe has no step"),
    ],
)
def test_what_cannot_be_done_is_named(steps, message):
    frame = table().assign(flat=1.0, wild=np.where(np.arange(200) == 3, np.inf, 1.0))
    with pytest.raises(DataError, match=message):
        prepare_table(frame, steps)


def test_a_stored_recipe_is_checked_when_read():
    good = json.loads(prepare_table(table(), [Step.scale("tokens")]).recipe.to_json())
    with pytest.raises(DataError, match="not JSON"):
        Recipe.from_json("steps: []")
    with pytest.raises(DataError, match="version 1, found 7"):
        Recipe.from_json(json.dumps({**good, "version": 7}))
    with pytest.raises(DataError, match="step 1 of the recipe is of the kind 'magic'"):
        Recipe.from_json(json.dumps({**good, "steps": [{**good["steps"][0], "kind": "magic"}]}))
    with pytest.raises(DataError, match=r"step 1 of the recipe \(scale\) has no 'scale'"):
        Recipe.from_json(json.dumps({**good, "steps": [{**good["steps"][0], "settings": {"centre": 1}}]}))


def test_a_recipe_leads_to_the_same_estimate_as_coding_by_hand():
    frame = table(400, 3)
    done = prepare_table(frame, [Step.code("task", reference="law")]).frame
    options = {"treatment": "arm", "treated": "cot", "outcome": "y", "method": "ipw", "estimand": "ate"}
    by_recipe = estimate_effect(done, confounders=["task_code", "task_math", "level"], **options)
    by_itself = estimate_effect(frame, confounders=["task", "level"], **options)
    assert by_recipe.estimate == pytest.approx(by_itself.estimate, rel=1e-8)
