"""A study of a log by a design of its own: checked as it is read, answered as Python answers, on the page."""

from __future__ import annotations

import html
import json

import numpy as np
import pandas as pd
import pytest
import yaml

from whyprompt import estimate_effect, load_study, study_effect
from whyprompt.effects.headline import headline
from whyprompt.errors import StudyError
from whyprompt.page.page import build_report
from whyprompt.study import Study
from whyprompt.trials.check import runnable_items

PLAN = {
    "name": "log",
    "question": "Did the new prompt help?",
    "items": [{"source": "reasoning_gym", "dataset": "chain_sum", "size": 4}],
    "arms": {"old": {"kind": "direct"}, "new": {"kind": "few_shot", "shots": 2}},
    "outcomes": ["log_prob"],
}


def log():
    rng = np.random.default_rng(4)
    n = 600
    day, route = np.arange(n) % 20, np.arange(n) // 20 % 6
    late = (day >= 12) & (route < 3)
    frame = pd.DataFrame({"item_id": np.arange(n), "rep": 0, "day": day, "route": [f"r{g}" for g in route]})
    frame["drawn"] = np.where(rng.random(n) < 0.5, "new", "old")
    followed = np.where(rng.random(n) < 0.7, frame.drawn, "old")
    frame["used"], frame["arm"] = followed, np.where(late, "new", "old")
    frame["difficulty"] = rng.normal(size=n)
    frame["steps"] = (frame.arm == "new") + rng.normal(size=n)
    frame["log_prob"] = 0.5 * frame.steps - frame.difficulty + rng.normal(size=n)
    return frame


DESIGNS = {
    "instrument": {"instrument": "drawn"},
    "front_door": {"mediators": ["steps"]},
    "rollout": {"time": "day", "unit": "route", "period": 2, "leads": 2},
}


@pytest.mark.parametrize("name", DESIGNS)
def test_the_study_says_what_python_says(name, tmp_path):
    plan = {
        **PLAN,
        "design": {name: DESIGNS[name]},
        "effect": {"outcome": "log_prob", "confounders": ["difficulty"]},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    study = load_study(tmp_path / "study.yaml")
    frame = log()
    if name == "instrument":
        frame["arm"] = frame.used
    answer = study_effect(study, frame)
    found = estimate_effect(
        frame,
        treatment="arm",
        treated="new",
        control="old",
        outcome="log_prob",
        confounders=["difficulty"],
        design=name,
        **DESIGNS[name],
    )
    assert answer.design == name
    assert json.dumps(answer.main.to_dict()) == json.dumps(found.to_dict())
    page = build_report(answer, None, {}, study)
    assert headline(answer.main, arms=False) in html.unescape(" ".join(page.split()))
    with pytest.raises(StudyError, match="there is nothing to run"):
        runnable_items(study)


def test_a_front_door_of_the_graph_needs_no_options():
    graph = "arm -> steps -> log_prob; arm <-> log_prob"
    study = Study.model_validate(
        {**PLAN, "design": "front_door", "graph": graph, "effect": {"outcome": "log_prob"}}
    )
    assert study_effect(study, log()).main.settings["mediators"] == ["steps"]


def test_a_date_of_yaml_is_a_date(tmp_path):
    text = yaml.safe_dump({**PLAN, "design": "paired"}, sort_keys=False).replace(
        "design: paired", "design: {rollout: {time: at, unit: route, changed: 2025-03-13}}"
    )
    (tmp_path / "study.yaml").write_text(text)
    frame = log().assign(at=lambda f: pd.Timestamp("2025-03-01") + pd.to_timedelta(f.day, unit="D"))
    answer = study_effect(load_study(tmp_path / "study.yaml"), frame[frame.route < "r3"])
    assert "From 2025-03-13 on" in answer.main.sentence


@pytest.mark.parametrize(
    ("design", "more", "message"),
    [
        ({"rollout": {"time": "day", "by": "x"}}, {}, r"design\.rollout\.by: rollout has no option 'by'"),
        ({"rollout": {"unit": "route"}}, {}, r"design\.rollout: rollout needs 'time'"),
        ({"instrument": None}, {}, r"design\.instrument: instrument needs 'instrument'"),
        ({"paired": {}}, {}, "design"),
        ({}, {}, r"design: is one design with its options"),
        ("rollout", {}, "design"),
        (
            {"instrument": {"instrument": "z"}},
            {"method": "ipw"},
            r"effect\.method: has no meaning with design: inst",
        ),
        (
            {"instrument": {"instrument": "z"}},
            {"audit": {"assignment": {"difficulty": 1.0}}},
            r"effect\.audit: an audit needs every item under both arms, and the design is instrument",
        ),
    ],
)
def test_what_is_wrong_is_named_at_its_key(tmp_path, design, more, message):
    plan = {**PLAN, "design": design, "effect": {"outcome": "log_prob", **more}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    with pytest.raises(StudyError, match=message):
        load_study(tmp_path / "study.yaml")
