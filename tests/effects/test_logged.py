"""Logged chances of the arms: taken where named, spoken of where unused, doubted where they do not fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from whyprompt import estimate_effect, study_effect
from whyprompt.effects import METHODS
from whyprompt.errors import EstimationError, StudyError
from whyprompt.study import Study


def log(n=2_000, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    chance = 0.1 + 0.8 / (1 + np.exp(-1.5 * x))
    arm = (rng.random(n) < chance).astype(int)
    frame = pd.DataFrame({"arm": arm, "x": x, "y": arm + 2 * x + rng.normal(size=n)})
    return frame.assign(propensity=chance, action_prob=np.where(arm == 1, chance, 1 - chance))


ASKED = {"treatment": "arm", "outcome": "y"}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_uses_it_or_refuses_it(method):
    frame = log()
    asked = {**ASKED, "confounders": ["x"], "method": method}
    if method in {"naive", "cem", "entropy"}:
        with pytest.raises(
            EstimationError, match=f"no meaning for method '{method}', which has no propensity"
        ):
            estimate_effect(frame, **asked, propensity="propensity")
        return
    used = estimate_effect(frame, **asked, propensity="propensity")
    np.testing.assert_array_equal(used.propensity, frame.propensity)
    assert used.settings["distance"] == "known propensity"


def test_weights_by_it_are_hajeks():
    frame = log()
    found = estimate_effect(
        frame, **ASKED, propensity="propensity", design="randomized", method="ipw", estimand="ate"
    )
    t, p = frame.arm == 1, frame.propensity
    means = [np.average(frame.y[a], weights=w[a]) for a, w in ((t, 1 / p), (~t, 1 / (1 - p)))]
    assert found.estimate == pytest.approx(means[0] - means[1], rel=1e-10)
    assert found.ci_low < 1 < found.ci_high
    # Unasked it is doubly robust, with nothing to model the outcome by but its mean.
    unasked = estimate_effect(frame, **ASKED, propensity="propensity", design="randomized")
    assert unasked.settings["distance"] == "known propensity"
    assert unasked.ci_low < 1 < unasked.ci_high


def test_a_column_that_lies_unused_is_spoken_of():
    frame = log()
    asked = {**ASKED, "confounders": ["x"], "method": "ipw"}
    said = " ".join(estimate_effect(frame, **asked).warnings)
    assert "'propensity' looks like the chances" in said
    assert "propensity='propensity' takes them" in said
    assert "'action_prob' looks like the chances" in said
    assert "the chance of the arm that each row got" in said
    # Not where it is used, nor a column that holds other things.
    assert "looks like" not in " ".join(estimate_effect(frame, **asked, propensity="propensity").warnings)
    other = frame.drop(columns=["propensity", "action_prob"])
    for column in (np.full(len(frame), 3.0), np.full(len(frame), "high"), np.full(len(frame), 0.01)):
        assert "looks like" not in " ".join(estimate_effect(other.assign(p_treated=column), **asked).warnings)
    chosen = {**asked, "confounders": ["x", "propensity", "action_prob"]}
    assert "looks like" not in " ".join(estimate_effect(frame, **chosen).warnings)


def test_chances_that_do_not_fit_the_arms_are_doubted():
    frame = log()
    said = " ".join(estimate_effect(frame, **ASKED, method="ipw", propensity="action_prob").warnings)
    assert "they fit as those of the arm that each row got" in said
    said = " ".join(
        estimate_effect(frame.assign(p=frame.propensity / 2), **ASKED, method="ipw", propensity="p").warnings
    )
    assert "are not those of the treated arm" in said
    assert "they fit as" not in said
    assert "are not those" not in " ".join(
        estimate_effect(frame, **ASKED, method="ipw", propensity="propensity").warnings
    )


PLAN = {
    "name": "log",
    "question": "Did the new prompt help?",
    "items": [{"source": "reasoning_gym", "dataset": "chain_sum", "size": 4}],
    "arms": {"old": {"kind": "direct"}, "new": {"kind": "few_shot", "shots": 2}},
    "outcomes": ["log_prob"],
    "design": "observational",
}


def test_a_study_of_a_log_names_it():
    effect = {"outcome": "log_prob", "confounders": ["x"], "method": "ipw", "propensity": "propensity"}
    frame = log().assign(item_id=lambda f: f.index, rep=0, arm=lambda f: np.where(f.arm == 1, "new", "old"))
    frame = frame.rename(columns={"y": "log_prob"})
    answer = study_effect(Study.model_validate({**PLAN, "effect": effect}), frame)
    assert answer.main.settings["distance"] == "known propensity"
    with pytest.raises((StudyError, ValueError), match="has no meaning with design: paired"):
        Study.model_validate(
            {**PLAN, "design": "paired", "effect": {"propensity": "propensity", "outcome": "log_prob"}}
        )
