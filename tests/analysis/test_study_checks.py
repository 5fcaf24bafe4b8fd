"""What a study is refused for when it is read is what the analysis would refuse after the trials."""

import itertools

import numpy as np
import pandas as pd
import pytest

from whyprompt import study_effect
from whyprompt.effects import METHODS
from whyprompt.errors import EstimationError
from whyprompt.study import EffectSettings, Study

BASE = {
    "name": "options",
    "question": "q",
    "items": [{"source": "file", "path": "a"}],
    "arms": {"direct": {"kind": "direct"}, "shots": {"kind": "few_shot"}},
    "outcomes": ["log_prob"],
}
OPTIONS = ({}, {"caliper": 0.5}, {"exact": ["task_type"]}, {"replace": True})


@pytest.fixture(scope="module")
def trials():
    rng = np.random.default_rng(0)
    items = pd.DataFrame(
        {
            "item_id": [f"q{i}" for i in range(80)],
            "difficulty": rng.normal(size=80),
            "task_type": rng.choice(["sum", "count"], 80),
            "rep": 0,
        }
    )
    both = pd.concat([items.assign(arm="direct"), items.assign(arm="shots")], ignore_index=True)
    both["log_prob"] = rng.normal(size=160) + both["difficulty"] + (both["arm"] == "shots")
    return both


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("method", "options"), list(itertools.product(METHODS, OPTIONS)), ids=str)
def test_options_of_an_audit(trials, method, options):
    audit = {"assignment": {"difficulty": 0.7}, "method": {method: options}, "draws": 2}
    effect = {"audit": audit}
    # The settings alone are not held against each other: the analysis is.
    study = Study.model_validate(BASE).model_copy(update={"effect": EffectSettings.model_validate(effect)})
    refused = False
    try:
        study_effect(study, trials)
    except EstimationError:
        refused = True
    if refused:
        with pytest.raises(
            ValueError,
            match=rf"effect\.audit\.method\.{method}\.{next(iter(options))}\n .*no meaning for method",
        ):
            Study.model_validate({**BASE, "effect": effect})
    else:
        Study.model_validate({**BASE, "effect": effect})
