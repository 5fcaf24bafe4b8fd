"""What is wrong with an argument of a check is one message that names it, and never a traceback."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import whyprompt as wp
from whyprompt import effects as fx
from whyprompt.effects.prepare.recipe import Recipe
from whyprompt.effects.prepare.steps import Step
from whyprompt.errors import DataError, EstimationError

N = 120


def table():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=N)
    arm = (rng.random(N) < 1 / (1 + np.exp(-hard))).astype(int)
    frame = pd.DataFrame({"arm": arm, "hard": hard, "how long": rng.normal(size=N)})
    return frame.assign(y=arm - hard + rng.normal(size=N), kind=rng.choice(["a", "b"], N))


def gaps():
    frame, rng = table(), np.random.default_rng(1)
    for name in ("hard", "y"):
        frame.loc[rng.random(N) < 0.12, name] = np.nan
    return frame.assign(empty=np.nan)


ASKED = {"treatment": "arm", "outcome": "y", "confounders": ["hard", "how long"], "method": "ipw"}
FILL = {**ASKED, "missing_outcome": "exclude", "draws": 2, "iterations": 2}
TIP = {**ASKED, "draws": 2, "iterations": 2, "column": "y"}
CURVE = {k: v for k, v in ASKED.items() if k != "method"} | {"grid": {"method": ["ipw"]}}
CONTROL = {"treatment": "arm", "confounders": ["hard"], "method": "ipw"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wp.placebo_treatment(table(), **ASKED, random_state=-1), "random_state=-1 is no seed"),
        (lambda: wp.placebo_treatment(table(), **ASKED, random_state="x"), "random_state='x' is no seed"),
        (lambda: wp.placebo_treatment(table(), **ASKED, draws=1.5), "draws=1.5 is no whole number"),
        (lambda: wp.placebo_treatment(table(), **ASKED, foo=1), "option 'foo' is not known"),
        (lambda: wp.placebo_treatment(table().head(0), **ASKED), "has no rows"),
        (
            lambda: wp.negative_control_outcome(table(), outcomes=["y", "y"], **CONTROL),
            "outcomes names 'y' twice",
        ),
        (lambda: wp.negative_control_outcome(table(), outcomes=["y"], alpha=5, **CONTROL), "alpha=5"),
        (
            lambda: wp.negative_control_outcome(table(), outcomes=["y"], alpha=float("nan"), **CONTROL),
            "alpha=nan",
        ),
        (
            lambda: fx.random_common_cause(table().assign(p=0.5), **ASKED, propensity="p"),
            "the propensity is known",
        ),
        (lambda: fx.data_subset(table(), **ASKED, fraction="0.5"), "fraction='0.5'"),
        (lambda: fx.data_subset(table(), **ASKED, fraction=float("nan")), "fraction=nan"),
        (lambda: wp.refute(table(), **ASKED, negative_controls="kind"), "negative_controls is the text"),
        (lambda: wp.refute(table(), **ASKED, draws=3), "draws=3: at least 10"),
        (lambda: wp.specification_curve(table(), **CURVE, draws=-3), "draws=-3"),
        (lambda: wp.specification_curve(table(), **CURVE, draws=2.5), "draws=2.5 is no"),
        (lambda: wp.specification_curve(table(), **CURVE, foo=1), "option 'foo' is not known"),
        (
            lambda: wp.specification_curve(
                table(), **{**CURVE, "grid": {"preparation": {"a": "winsorise"}, "method": ["ipw"]}}
            ),
            "preparation 'a' of the grid is the text",
        ),
        (lambda: wp.estimate_with_imputation(gaps(), **{**FILL, "draws": "3"}), "draws='3' is no whole"),
        (lambda: wp.estimate_with_imputation(gaps(), **{**FILL, "draws": 1}), "draws=1: at least 2"),
        (lambda: wp.estimate_with_imputation(gaps(), **FILL, random_state=-1), "random_state=-1"),
        (lambda: wp.estimate_with_imputation(gaps(), **FILL, by="kind"), "by= is not made for imputed"),
        (lambda: wp.estimate_with_imputation(gaps(), **FILL, auxiliary="kind"), "auxiliary is the text"),
        (
            lambda: wp.estimate_with_imputation(gaps(), **{**FILL, "method": "nearest"}, exact="kind"),
            "exact is the text 'kind'",
        ),
        (lambda: wp.impute(gaps(), columns="hard"), "columns is the text 'hard'"),
        (lambda: fx.drop_incomplete(gaps(), "hard"), "columns is the text 'hard'"),
        (lambda: wp.missing_patterns(gaps(), []), "no column is named"),
        (lambda: wp.tipping_point(gaps(), **TIP, deltas=[]), r"deltas=\[\]: a list of finite numbers"),
        (lambda: wp.tipping_point(gaps(), **TIP, deltas="12"), "deltas='12'"),
        (lambda: wp.tipping_point(gaps(), **TIP, deltas=[0, float("inf")]), "a list of finite numbers"),
        (lambda: wp.tipping_point(gaps(), **TIP, deltas=[0, 1e300]), "beyond a million times"),
        (lambda: wp.prepare_table(table(), Step.winsorise("hard")), "steps is a list of steps"),
        (lambda: wp.prepare_table(table(), [{"column": "hard"}]), "steps is a list of steps"),
        (lambda: wp.prepare_table(table(), [Step.bin("hard", n_bins=10**9)]), "more than its 120 values"),
        (lambda: wp.prepare_table(table(), [Step.bin("hard", n_bins=2.5)]), "n_bins is 2.5"),
        (lambda: wp.prepare_table(gaps(), [Step.scale("empty")]), "'empty'"),
        (lambda: Recipe.from_json("{}"), "recipe"),
        (lambda: Recipe.from_json("no"), "recipe"),
        (lambda: Recipe.from_json('{"steps": [{"kind": "x"}], "n_fitted": 3}'), "recipe"),
        (
            lambda: wp.batch_interference(
                table().assign(item=np.arange(N) // 2, batch=np.arange(N) % 5),
                unit="item", outcome="y", batch="batch", draws=99, random_state=-1,
            ),
            "random_state=-1",
        ),
        (lambda: fx.batch_consistency(list, [1.0, 2.0], random_state=-1), "random_state=-1"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named(call, message):
    with pytest.raises((DataError, EstimationError), match=message):
        call()


def test_names_with_spaces_and_a_third_arm_do_no_harm():
    frame = gaps()
    two = wp.tipping_point(frame, **TIP, deltas=[0.0, 1.0], treated=1, control=0, arm="treated")
    assert len(two.parts) == 2
    third = frame.head(10).assign(arm=7)
    three = wp.tipping_point(
        pd.concat([frame, third], ignore_index=True), **TIP, deltas=[0.0, 1.0], treated=1, control=0,
        arm="treated",
    )  # fmt: skip
    assert three["n_varied"] == two["n_varied"]
    done = wp.prepare_table(table(), [Step.scale("how long")])
    assert done.frame["how long"].std(ddof=1) == pytest.approx(1.0)


def test_a_flat_placebo_has_no_excess_and_is_no_error():
    got = wp.placebo_treatment(table().assign(y=1.0), **ASKED, draws=10)
    mean, spread, test = got.parts
    assert (mean.estimate, spread.estimate, test.p_value) == (0.0, 0.0, 1.0)
    assert "nan" not in got.sentence
