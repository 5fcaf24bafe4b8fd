"""Specification curves: every row is an estimate one could have asked for, and nothing is lost on the way."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from whyprompt import CausalGraph, estimate_effect
from whyprompt.effects.checks.specification import specification_curve
from whyprompt.effects.prepare.recipe import prepare_table
from whyprompt.effects.prepare.steps import Step
from whyprompt.errors import EstimationError


def table(n=300, seed=0, effect=1.0):
    rng = np.random.default_rng(seed)
    hard, size = rng.normal(size=n), rng.lognormal(size=n)
    arm = (0.8 * hard + rng.normal(size=n) > 0).astype(int)
    kind = rng.choice(["a", "b", "c"], n)
    y = effect * arm - hard + 0.1 * size + rng.normal(size=n)
    return pd.DataFrame({"arm": arm, "hard": hard, "size": size, "kind": kind, "y": y})


ASKED = {"treatment": "arm", "outcome": "y", "confounders": ["hard", "size", "kind"]}


def test_every_row_is_the_estimate_of_that_specification():
    frame = table()
    steps = [Step.winsorise("size"), Step.code("kind", reference="b")]
    curve = specification_curve(
        frame,
        **ASKED,
        grid={
            "preparation": {
                "none": [],
                "coded": steps,
                "bins": [Step.bin("size", n_bins=3, into="size_bin")],
            },
            "method": ["nearest", "ipw", "entropy"],
            "caliper": [None, 0.2],
        },
    )
    # Three preparations times nearest with two calipers, ipw and entropy: a caliper is not tried twice.
    assert len(curve.parts) == 12
    assert all(row.estimate is not None for row in curve.parts)
    estimates = [row.estimate for row in curve.parts]
    assert estimates == sorted(estimates)
    assert curve.estimate == np.median(estimates)
    assert (curve.low, curve.high) == (estimates[0], estimates[-1])
    by_choice = {tuple(row["choices"].values()): row for row in curve.parts}
    direct = estimate_effect(frame, **ASKED, method="nearest", caliper=0.2, estimand="att")
    row = by_choice["none", "nearest", "0.2"]
    assert (row.estimate, row.std_error) == (direct.estimate, direct.std_error)
    done = prepare_table(frame, steps).frame
    direct = estimate_effect(
        done,
        treatment="arm",
        outcome="y",
        confounders=["hard", "size", "kind_a", "kind_c"],
        method="ipw",
        estimand="att",
    )
    assert by_choice["coded", "ipw", "none"].estimate == pytest.approx(direct.estimate, rel=1e-10)
    binned = prepare_table(frame, [Step.bin("size", n_bins=3, into="size_bin")]).frame
    direct = estimate_effect(
        binned,
        treatment="arm",
        outcome="y",
        confounders=["hard", "size", "kind", "size_bin"],
        method="ipw",
        estimand="att",
    )
    assert by_choice["bins", "ipw", "none"].estimate == pytest.approx(direct.estimate, rel=1e-10)
    assert {row["estimand"] for row in curve.parts} == {"att"}
    assert curve.share_significant == np.mean([row["significant"] for row in curve.parts])


def test_balance_is_judged_in_the_confounders_as_they_are_and_not_as_they_were_binned():
    frame = table(600)
    curve = specification_curve(
        frame,
        **ASKED,
        grid={"preparation": {"none": [], "two bins": [Step.bin("hard", n_bins=2)]}, "method": ["entropy"]},
    )
    by_name = {row["choices"]["preparation"]: row for row in curve.parts}
    assert by_name["none"]["balanced"]
    # Balanced within two bins, and not in what was binned.
    assert not by_name["two bins"]["balanced"]
    assert by_name["two bins"].largest_smd > 0.2
    assert curve.share_balanced == 0.5
    assert curve.median_balanced == by_name["none"].estimate
    assert "The 1 that reach balance" in curve.sentence
    assert next(iter(curve.influence)) == "preparation"
    assert curve.influence["preparation"] == pytest.approx(1.0)


def test_failures_are_kept_with_their_reason():
    frame = table()
    curve = specification_curve(
        frame,
        **ASKED,
        grid={
            "preparation": {"none": [], "impossible": [Step.winsorise("kind")]},
            "method": ["nearest", "ipw"],
            "caliper": [None, 1e-12],
        },
    )
    reasons = [f.note for f in curve.parts if f.estimate is None]
    assert sum("'kind' is text and cannot be winsorised" in r for r in reasons) == 3
    assert len(curve.parts) == curve.overall.n_used + len(reasons) == 6
    assert "give no estimate (3: column 'kind' is text" in curve.sentence
    out = curve.to_frame()
    assert len(out) == 6
    assert out["estimate"].isna().sum() == len(reasons)
    json.dumps(curve.to_dict())
    with pytest.raises(EstimationError, match="none of 1 specifications gives an estimate; 1 time: "):
        specification_curve(frame, **ASKED, grid={"preparation": {"x": [Step.winsorise("kind")]}})


def test_the_default_grid_agrees_on_a_known_effect_and_leaves_the_table_alone():
    frame = table(500, 1)
    copy = frame.copy()
    curve = specification_curve(frame, **ASKED)
    pd.testing.assert_frame_equal(frame, copy)
    # Three preparations of (two matchings with three calipers, and four methods without).
    assert len(curve.parts) == 30
    assert set(curve.influence) == {"preparation", "method", "caliper"}
    assert curve.share_same_sign == 1.0
    assert abs(curve.median_balanced - 1) < 0.35
    graph = CausalGraph.parse("hard, size, kind -> arm, y; arm -> y")
    by_graph = specification_curve(
        frame, treatment="arm", outcome="y", graph=graph, grid={"method": ["ipw", "entropy"]}
    )
    named = specification_curve(frame, **ASKED, grid={"method": ["ipw", "entropy"]})
    assert [r.estimate for r in by_graph.parts] == pytest.approx([r.estimate for r in named.parts])


def test_overlap_weights_answer_their_own_question_and_the_sentence_says_so():
    curve = specification_curve(table(), **ASKED, grid={"method": ["ipw", "overlap"]})
    assert {row["estimand"] for row in curve.parts} == {"att", "ato"}
    assert "the estimands are ato, att" in curve.sentence


def test_adjustment_sets_are_a_dimension():
    frame = table(800, 2)
    curve = specification_curve(
        frame,
        **ASKED,
        grid={"confounders": {"all": ASKED["confounders"], "size": ["size"]}, "method": ["ipw"]},
    )
    by_name = {row["choices"]["confounders"]: row for row in curve.parts}
    assert by_name["all"].estimate > by_name["size"].estimate + 0.5
    # Balance is judged in every confounder, also one left out of this specification.
    assert by_name["all"]["balanced"]
    assert not by_name["size"]["balanced"]


def test_shuffled_arms_give_a_joint_p_value():
    grid = {"method": ["ipw", "entropy", "subclass"]}
    real = specification_curve(table(300, 3), **ASKED, grid=grid, draws=19)
    assert (real.draws, real.p_value) == (19, 0.05)
    assert real.p_share <= 0.15
    assert "curves with arms drawn from the propensity" in real.sentence
    rng = np.random.default_rng(0)
    p = []
    for seed in range(20):
        frame = table(60, seed, effect=0.0)
        frame["arm"] = rng.permutation(np.repeat([0, 1], 30))
        got = specification_curve(
            frame,
            treatment="arm",
            outcome="y",
            confounders=["hard"],
            grid=grid,
            draws=9,
            design="randomized",
        )
        p.append(got.p_value)
    # Randomised and without effect: uniform on tenths, so the mean of twenty is 0.55 with error 0.064.
    assert abs(np.mean(p) - 0.55) < 0.26


def test_a_curve_of_two_of_three_arms_is_that_of_their_rows():
    frame = table(200)
    both = pd.concat([frame, frame.head(50).assign(arm=7, y=99.0)], ignore_index=True)
    asked = {**ASKED, "grid": {"method": ["ipw", "nearest"]}, "treated": 1, "control": 0, "draws": 10}
    alone, beside = specification_curve(frame, **asked), specification_curve(both, **asked)
    assert [r.estimate for r in beside.parts] == [r.estimate for r in alone.parts]
    assert [r.largest_smd for r in beside.parts] == [r.largest_smd for r in alone.parts]
    assert beside.p_value == alone.p_value


def test_a_grid_that_makes_no_sense_is_refused():
    frame = table()
    for grid, message in (
        ({"methods": ["ipw"]}, "the grid names 'methods', which is no option"),
        ({"method": "ipw"}, "'method' of the grid has no list"),
        ({"method": []}, "'method' of the grid has no list"),
        ({"outcome": ["y", "size"]}, "'outcome' changes the question"),
        ({"preparation": [[]]}, "'preparation' of the grid maps names to lists"),
    ):
        with pytest.raises(EstimationError, match=message):
            specification_curve(frame, **ASKED, grid=grid)
    with pytest.raises(EstimationError, match="'caliper' is a dimension of the grid and an option as well"):
        specification_curve(frame, **ASKED, grid={"caliper": [0.1]}, caliper=0.2)
    with pytest.raises(EstimationError, match="nothing is adjusted for"):
        specification_curve(frame, treatment="arm", outcome="y", confounders=[])
