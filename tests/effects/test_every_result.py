"""Every result gives values for JSON, a table and a picture: one that does not fails here."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from functools import cache

import numpy as np
import pandas as pd
import pytest

import whyprompt as wp
import whyprompt.effects as public
from whyprompt.results import Estimate, Result


def public_results():
    found = {}
    for name in public.__all__:
        kind = getattr(public, name)
        if (
            inspect.isclass(kind)
            and dataclasses.is_dataclass(kind)
            and any(f.name == "sentence" for f in dataclasses.fields(kind))
        ):
            found[name] = kind
    return found


@cache
def table():
    rng = np.random.default_rng(0)
    n = 160
    hard, size = rng.normal(size=(2, n))
    arm = rng.random(n) < 1 / (1 + np.exp(-hard))
    y = arm - hard + rng.normal(size=n)
    frame = pd.DataFrame({"arm": arm.astype(int), "hard": hard, "size": size, "y": y})
    frame["z"] = hard + rng.normal(size=n)
    frame["grade"] = np.digitize(y, [-1, 0, 1])
    frame["three"] = np.where(rng.random(n) < 0.33, "c", np.where(arm, "b", "a"))
    frame["dose"] = hard + rng.normal(size=n)
    frame["item"] = np.arange(n) // 4
    frame["batch"] = np.arange(n) % 4
    return frame


@cache
def with_gaps():
    frame = table().copy()
    rng = np.random.default_rng(1)
    for name in ("hard", "size", "y"):
        frame.loc[rng.random(len(frame)) < 0.1, name] = np.nan
    return frame


@cache
def both_arms():
    rng = np.random.default_rng(2)
    rows = []
    for i in range(60):
        hard = rng.normal()
        rows += [
            {
                "item_id": i,
                "arm": a,
                "hard": hard,
                "y": b - hard + rng.normal(),
                "z": rng.normal(),
                "grade": k,
            }
            for a, b, k in (("p", 0, i % 3), ("q", 1, (i + 1) % 4))
        ]
    return pd.DataFrame(rows)


ARM = {"treatment": "arm", "outcome": "y"}
ASKED = {**ARM, "confounders": ["hard", "size"], "method": "overlap"}
PAIR = {"treated": "q", "control": "p", "design": "paired"}


def imputed():
    return wp.estimate_with_imputation(with_gaps(), **ASKED, draws=3, iterations=4, missing_outcome="exclude")


MADE = {
    "compare_arms": lambda: wp.compare_arms(
        table(), treatment="three", outcome="y", confounders=["hard"], method="ipw"
    ),
    "audit": lambda: wp.audit(
        both_arms(),
        outcome="y",
        treated="q",
        control="p",
        confounders=["hard"],
        rule={"hard": 1.0},
        draws=10,
        methods=("ipw",),
    ),
    "batch_consistency": lambda: public.batch_consistency(
        lambda batch: [x + 1e-3 * len(batch) for x in batch], [1.0, 2.0, 3.0, 4.0, 5.0], batch_size=2
    ),
    "batch_interference": lambda: wp.batch_interference(
        table(), unit="item", batch="batch", outcome="y", draws=99
    ),
    # An interpreter without the tools: our own figures, and what is missing.
    "CrossCheck": lambda: wp.cross_check(
        table(), **{**ARM, "confounders": ["hard"]}, python=sys.executable, draws=0
    ),
    "data_subset": lambda: public.data_subset(table(), **ASKED, draws=10),
    "DoseResponse": lambda: wp.dose_response(table(), treatment="dose", outcome="y", confounders=["hard"]),
    "DropReport": lambda: public.drop_incomplete(with_gaps(), ["hard", "size"]),
    "EffectResult": lambda: wp.estimate_effect(table(), **ASKED),
    "EffectsResult": lambda: wp.estimate_effect(
        table(), treatment="arm", outcome=["y", "z"], confounders=["hard"], method="ipw"
    ),
    "HeterogeneousEffects": lambda: wp.heterogeneous_effects(table(), **ARM, confounders=["hard", "size"]),
    "Imputation": lambda: wp.impute(with_gaps(), draws=3, iterations=4),
    "ImputedEffect": imputed,
    "leave_one_covariate_out": lambda: public.leave_one_covariate_out(table(), **ASKED),
    "little_test": lambda: public.little_test(with_gaps(), ["hard", "size", "y"]),
    "MissingPatterns": lambda: wp.missing_patterns(with_gaps()),
    "negative_control_outcome": lambda: wp.negative_control_outcome(
        table(), treatment="arm", outcomes=["z", "size"], confounders=["hard"], method="overlap"
    ),
    "OneDraw": lambda: wp.one_draw(
        both_arms(),
        outcome="y",
        treated="q",
        control="p",
        confounders=["hard"],
        rule={"hard": 1.0},
        method="ipw",
    ),
    "EffectsResult of levels": lambda: wp.estimate_effect(
        table(), treatment="arm", outcome="grade", levels="sorted", confounders=["hard"], method="ipw"
    ),
    "EffectResult of an instrument": lambda: wp.estimate_effect(
        table(), **ARM, design="instrument", instrument="batch", confounders=["hard"]
    ),
    "EffectResult of a front door": lambda: wp.estimate_effect(
        table(), **ARM, design="front_door", mediators=["z"], confounders=["hard"]
    ),
    "EffectResult of a roll-out": lambda: wp.estimate_effect(
        table().assign(day=np.arange(160) // 4 % 10),
        outcome="y",
        design="rollout",
        time="day",
        unit="batch",
        changed={"0": 5},
    ),
    "estimate_effect": lambda: wp.estimate_effect(both_arms(), **ARM, **PAIR),
    "placebo_treatment": lambda: wp.placebo_treatment(table(), **ASKED, draws=20),
    "pool_estimates": lambda: public.pool_estimates([1.0, 1.2, 0.9], [0.5, 0.5, 0.6]),
    "Prepared": lambda: wp.prepare_table(table(), [public.Step.winsorise("size")], treatment="arm"),
    "PromptPolicy": lambda: wp.prompt_policy(
        wp.heterogeneous_effects(both_arms(), **ARM, **PAIR, modifiers=["hard"])
    ),
    "random_common_cause": lambda: public.random_common_cause(table(), **ASKED, draws=10),
    "refute": lambda: wp.refute(table(), **ASKED, negative_controls=["z"], draws=10),
    "repeat_variance": lambda: wp.repeat_variance(table(), unit="item", outcome="y"),
    "SpecificationCurve": lambda: wp.specification_curve(
        table(), **{**ARM, "confounders": ["hard", "size"]}, grid={"method": ["ipw", "entropy"]}
    ),
    "tipping_point": lambda: wp.tipping_point(
        with_gaps(), **ASKED, draws=3, iterations=4, column="y", deltas=[-1.0, 0.0, 1.0]
    ),
    "e_value": lambda: public.e_value(2.0, ci=(1.2, 3.4)),
    "partial_r2_bounds": lambda: public.partial_r2_bounds(
        *(table()[c].to_numpy() for c in ("y", "arm")),
        table()[["hard", "size"]].to_numpy(),
        names=["hard", "size"],
        benchmarks=["size"],
    ),
    "rosenbaum_bounds": lambda: public.rosenbaum_bounds(np.arange(40) % 7 + 1.0, np.arange(40) % 5),
    "sensitivity_report": lambda: wp.sensitivity_report(
        table(), wp.estimate_effect(table(), **{**ASKED, "method": "nearest"})
    ),
}


def test_further_figures_are_read_by_name_and_are_columns_of_their_own():
    row = Estimate(label="ipw", estimate=0.1, figures={"rmse": 0.5, "reps": (1.0, np.nan)})
    found = Result(sentence="Said.", parts=(row,), figures={"draws": 20})
    assert (row["rmse"], found["draws"]) == (0.5, 20)
    assert found.to_dict()["draws"] == 20
    assert found.to_dict()["parts"][0]["reps"] == [1.0, None]
    assert found.to_frame()["rmse"].tolist() == [0.5]
    assert "figures" not in found.to_frame()
    assert hash(row) == hash(dataclasses.replace(row, figures={}))
    for one, known in ((row, "rmse"), (found, "draws")):
        with pytest.raises(KeyError, match=f"no figure 'rms'; there is '{known}'"):
            one["rms"]


def test_every_public_result_is_looked_at():
    assert set(public_results()) <= set(MADE)


@pytest.mark.parametrize("name", sorted(MADE))
def test_a_result_has_values_a_table_and_a_picture(name, tmp_path, shows_itself):
    found = MADE[name]()
    shows_itself(found)
    name = name.partition(" ")[0]
    # A result without fields of its own goes by the verb that makes it.
    assert type(found).__name__ == name or name in {*public.__all__, *wp.__all__}
    assert type(found).__dataclass_params__.frozen
    assert str(found).endswith(found.sentence)
    # A figure of a field's name would hide the field in tables and JSON.
    fields = {f.name for f in dataclasses.fields(Estimate)}
    assert not set(found.figures) & (fields | {f.name for f in dataclasses.fields(found)})
    assert not any(set(row.figures) & fields for row in found.parts)
    stored = found.to_dict()
    assert json.loads(json.dumps(stored, allow_nan=False)) == stored
    assert stored["sentence"] == found.sentence
    out = found.to_frame()
    assert isinstance(out, pd.DataFrame)
    assert len(out) >= 1
    assert len(out.columns) == len(set(out.columns))
    chart = found.plot()
    spec = chart.to_dict()
    assert len(spec["description"]) > 30
    assert "nan" not in spec["description"].lower().replace("finance", "")
    svg = wp.save_chart(chart, tmp_path / "chart.svg").read_text()
    assert "NaN" not in svg
    # At least one axis with a title.
    assert svg.count('class="mark-text role-axis-title"') >= 1
