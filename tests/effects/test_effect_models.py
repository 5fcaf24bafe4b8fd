"""Models of the effect: each against an oracle, and the default against one number for all."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

from whyprompt import heterogeneous_effects, prompt_policy
from whyprompt.effects.whom import models
from whyprompt.effects.whom.evidence import Evidence
from whyprompt.effects.whom.models import EFFECT_MODELS, fit_effect
from whyprompt.errors import EstimationError

ARM = {"treatment": "arm", "outcome": "y"}
PLAIN = {"outcome_model": "linear", "propensity": "logit"}


def scores(seed, truth, n=400, *, noise=2.0, units=None):
    """Scores of rows with six modifiers, and what they should say of their own effect."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 6))
    effect = truth(X)
    seen = Evidence(
        modifiers=X,
        effect=effect + noise * rng.normal(size=n),
        weight=rng.uniform(0.05, 0.25, n),
        unit=np.arange(n) if units is None else np.arange(n) % units,
    )
    return seen, effect


def log(seed, n=600, *, effect=lambda hard: 0.1 + 0.6 * hard):
    rng = np.random.default_rng(seed)
    hard, size = rng.normal(size=(2, n))
    arm = rng.random(n) < 1 / (1 + np.exp(-hard))
    y = arm * effect(hard) - hard + 0.3 * size + rng.normal(size=n)
    return pd.DataFrame({"arm": arm.astype(int), "hard": hard, "size": size, "y": y})


@pytest.mark.parametrize("units", [None, 15])
def test_the_line_predicts_left_out_rows_as_a_fit_without_them_does(monkeypatch, units):
    seen, _ = scores(0, lambda X: X[:, 0], n=60, units=units)
    monkeypatch.setattr(models, "_PENALTIES", np.array([0.4]))
    Z = seen.modifiers / seen.modifiers.std(axis=0)

    def fitted(rows):
        weight = seen.weight[rows]
        return Ridge(alpha=0.4 * weight.sum()).fit(Z[rows], seen.effect[rows], sample_weight=weight)

    line = fit_effect("linear", seen)
    assert line.predict(seen.modifiers) == pytest.approx(fitted(np.arange(60)).predict(Z))
    part = models._parts(seen.unit)
    assert len(set(zip(part, seen.unit, strict=True))) == (units or 60)
    for k in np.unique(part):
        assert line.held[part == k] == pytest.approx(fitted(part != k).predict(Z[part == k]))


def test_the_penalty_is_the_one_that_predicts_left_out_rows_best(monkeypatch):
    seen, _ = scores(1, lambda X: X[:, 0], n=60)
    penalties = np.geomspace(0.01, 10, 7)

    def loss(penalty):
        monkeypatch.setattr(models, "_PENALTIES", np.array([penalty]))
        return float(np.average((fit_effect("linear", seen).held - seen.effect) ** 2, weights=seen.weight))

    best = min(penalties, key=loss)
    monkeypatch.setattr(models, "_PENALTIES", np.array([best]))
    expected = fit_effect("linear", seen).slopes
    monkeypatch.setattr(models, "_PENALTIES", penalties)
    assert fit_effect("linear", seen).slopes == pytest.approx(expected)


@pytest.mark.parametrize("units", [None, 80])
@pytest.mark.parametrize("truth", [lambda X: 0.6 * X[:, 0], lambda X: 1.5 * (X[:, 0] > 0.5) * (X[:, 1] > 0)])
def test_shares_go_by_the_likelihood_of_left_out_scores(truth, units):
    seen, _ = scores(2, truth, units=units)
    if units:
        seen = replace(
            seen, effect=seen.effect + 2.0 * np.random.default_rng(3).normal(size=units)[seen.unit]
        )
    made = fit_effect("stacked", seen)
    line, forest = made.models
    part = models._parts(seen.unit)
    one = np.array([seen.effect[part != k].mean() for k in part])
    # Each judged by a normal likelihood of precision proportional to the weights, to the power of 1 / 2; 85%
    # of the prior are the one number's. Rows of a unit count as their sums vary.
    score = pd.Series(seen.weight * (seen.effect - one)).groupby(seen.unit).sum()
    alike = max((score**2).sum() / (seen.weight**2 * (seen.effect - one) ** 2).sum(), 1.0)
    held = {"one": one, "line": line.held, "forest": forest.held, "mean": (line.held + forest.held) / 2}
    loss = {k: np.average((x - seen.effect) ** 2, weights=seen.weight) for k, x in held.items()}
    variance = min(loss.values())
    power = {k: np.exp(-len(one) * value / (2 * variance) / 2 / alike) for k, value in loss.items()}
    chance = {k: value * (0.85 if k == "one" else 0.15 / 3) for k, value in power.items()}
    total = sum(chance.values())
    assert made.shares == pytest.approx(
        {
            "one number": chance["one"] / total,
            "linear": (chance["line"] + chance["mean"] / 2) / total,
            "forest": (chance["forest"] + chance["mean"] / 2) / total,
        }
    )
    X = np.zeros((1, 6))
    parts = [seen.effect.mean(), line.predict(X)[0], forest.predict(X)[0]]
    assert made.predict(X)[0] == pytest.approx(sum(np.multiply(list(made.shares.values()), parts)))
    assert alike > 1.5 if units else alike == pytest.approx(1.0)


def test_the_outcome_models_have_a_share_where_modifiers_are_all_that_is_adjusted_for():
    # A step that both arms' trees find, where few rows are treated.
    rng = np.random.default_rng(1)
    frame = log(1, n=900, effect=lambda hard: np.where(hard > 0, 2.0, 0.0))
    frame["noise"] = rng.normal(size=900)
    asked = {**ARM, "confounders": ["hard", "size"]}
    shares = heterogeneous_effects(frame, **asked)["shares"]
    assert list(shares) == ["one number", "linear", "forest", "outcome models"]
    assert shares["outcome models"] > 0.1
    assert sum(shares.values()) == pytest.approx(1.0)
    assert "outcome models" not in heterogeneous_effects(frame, **asked, modifiers=["hard"])["shares"]
    again = heterogeneous_effects(frame.sample(frac=1, random_state=3), **asked)
    assert again["shares"] == pytest.approx(shares)


def test_an_arm_is_chosen_by_the_models_without_the_number_for_all():
    frame = log(3, n=300, effect=lambda hard: 0.3 * hard)
    found = heterogeneous_effects(frame, **ARM, **PLAIN, confounders=["hard", "size"])
    model, policy = found.rows.model, prompt_policy(found)
    assert 0.1 < model.shares["one number"] < 0.98
    X = frame[["hard", "size"]].to_numpy()
    by_model = np.column_stack([one.predict(X) for one in model.models])
    alone = np.average(by_model, axis=1, weights=list(model.shares.values())[1:])
    assert models.unshrunk(model, found.rows.predict(frame)) == pytest.approx(alone)
    assert [arm == "1" for arm in policy.choose(frame)] == (alone > 0).tolist()
    judged = found.rows.judged
    assert policy.chosen.tolist() == (found.rows.unshrunk[judged] > 0).tolist()
    # Both order rows alike; only the choice differs.
    assert not np.array_equal(policy.chosen, found.rows.predicted[judged] > 0)
    line = heterogeneous_effects(frame, **ARM, **PLAIN, confounders=["hard"], effect_model="linear")
    assert np.array_equal(line.rows.unshrunk, line.rows.predicted, equal_nan=True)


def test_trees_that_did_not_see_a_row_say_nothing_of_its_score():
    seen, _ = scores(3, lambda X: np.zeros(len(X)), n=300)
    forest = fit_effect("forest", seen)
    assert abs(np.corrcoef(forest.held, seen.effect)[0, 1]) < 0.25
    assert np.corrcoef(forest.predict(seen.modifiers), seen.effect)[0, 1] > 0.35


def test_rows_of_a_unit_do_not_teach_each_other():
    rng = np.random.default_rng(11)
    unit = np.repeat(np.arange(40), 25)
    X = rng.normal(size=(40, 4))[unit]
    effect = rng.normal(size=40)[unit] + 0.3 * rng.normal(size=1000)
    alone = Evidence(modifiers=X, effect=effect, weight=np.ones(1000), unit=np.arange(1000))
    assert fit_effect("stacked", alone).shares["one number"] < 0.1
    together = Evidence(modifiers=X, effect=effect, weight=np.ones(1000), unit=unit)
    assert fit_effect("stacked", together).shares["one number"] > 0.4


@pytest.mark.parametrize(
    ("truth", "most"),
    [
        (lambda X: np.full(len(X), 0.3), 1.05),
        (lambda X: 0.2 * X[:, 0], 1.05),
        (lambda X: X[:, 0] - 0.5 * X[:, 1], 0.6),
        (lambda X: 2.0 * (X[:, 0] > 0) * (X[:, 1] > 0), 0.85),
    ],
)
def test_the_default_is_not_worse_than_one_number_for_all(truth, most):
    squares = []
    for seed in range(12):
        seen, effect = scores(100 + seed, truth)
        predicted = fit_effect("stacked", seen).predict(seen.modifiers)
        squares.append([np.mean((predicted - effect) ** 2), np.mean((seen.effect.mean() - effect) ** 2)])
    got, one = np.sqrt(np.mean(squares, axis=0))
    assert got / one < most


def test_an_x_learner_of_lines_is_the_difference_of_two_regressions():
    frame = log(4)
    found = heterogeneous_effects(
        frame, **ARM, **PLAIN, confounders=["hard", "size"], effect_model="x_learner"
    )
    X, t, y = frame[["hard", "size"]], frame["arm"] == 1, frame["y"]
    expected = LinearRegression().fit(X[t], y[t]).predict(X) - LinearRegression().fit(X[~t], y[~t]).predict(X)
    assert found.rows.predict(frame) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", EFFECT_MODELS)
def test_every_model_finds_who_gains_whatever_the_order_of_the_rows(name):
    frame = log(5)
    asked = {**ARM, **PLAIN, "confounders": ["hard", "size"], "effect_model": name, "folds": 5}
    found = heterogeneous_effects(frame, **asked)
    assert found.parts[0].ci_high < found.parts[-1].ci_low
    assert ("shares" in found.figures) == (name == "stacked")
    kept = pickle.loads(pickle.dumps(prompt_policy(found)))  # noqa: S301 - made here
    assert kept.choose(frame) == prompt_policy(found).choose(frame)
    mixed = heterogeneous_effects(frame.sample(frac=1, random_state=1), **asked)
    pd.testing.assert_frame_equal(found.to_frame(), mixed.to_frame(), rtol=1e-9)


def test_few_rows_many_columns_and_a_level_with_one_row_of_an_arm_are_not_refused():
    rng = np.random.default_rng(6)
    n = 150
    X = np.column_stack([rng.normal(size=(n, 6)), rng.random((n, 19)) < 0.2]).astype(float)
    arm = np.arange(n) < 40
    X[:, 24] = 1.0
    X[[0, 60, 70, 80], 24] = 0.0
    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(25)])
    frame["arm"], frame["y"] = arm.astype(int), X[:, 0] * (1 + arm) + rng.normal(size=n)
    found = heterogeneous_effects(frame, **ARM, confounders=list(frame.columns[:25]))
    assert np.isfinite(found.rows.predict(frame)).all()
    assert all(row.ci_low is not None for row in found.parts)
    assert found["shares"]["linear"] + found["shares"]["forest"] >= 0.02


def test_where_nothing_differs_rows_still_have_an_order():
    seen, _ = scores(7, lambda X: np.zeros(len(X)))
    made = fit_effect("stacked", seen)
    predicted = models.predict_effect(made, seen.modifiers)
    assert len(np.unique(predicted)) == len(predicted)
    assert np.ptp(predicted) < 0.25 * seen.effect.std()


def test_the_arm_chosen_row_by_row_gains_most_of_what_the_truth_would():
    got, most = 0.0, 0.0
    for seed in range(3):
        frame = log(20 + seed, n=600)
        policy = prompt_policy(heterogeneous_effects(frame, **ARM, **PLAIN, confounders=["hard", "size"]))
        new = log(90 + seed, n=2000)
        gain = 0.1 + 0.6 * new["hard"].to_numpy()
        best = max(gain.mean(), 0.0)
        got += np.where([arm == "1" for arm in policy.choose(new)], gain, 0.0).mean() - best
        most += np.maximum(gain, 0.0).mean() - best
    assert 0.85 < got / most <= 1.0


class Bad:
    """A regressor whose predictions are what it was made with."""

    def __init__(self, value=None):
        self.value = value

    def get_params(self, *, deep=True):  # noqa: ARG002 - as scikit-learn asks
        return {"value": self.value}

    def fit(self, X, y):
        pass

    def predict(self, X):
        return self.value if isinstance(self.value, list) else np.full(len(X), self.value)


def test_what_is_no_model_is_refused_by_name():
    asked = {**ARM, **PLAIN, "confounders": ["hard"]}

    def refused(model, **options):
        with pytest.raises(EstimationError) as caught:
            heterogeneous_effects(log(8, n=200), **{**asked, **options}, effect_model=model)
        return caught.value.message

    assert "effect_model 'best' is not known" in refused("best")
    assert "effect_model int has no fit" in refused(3)
    assert "effect_model LinearRegression is a class" in refused(LinearRegression)
    assert "has no predict" in refused(type("Half", (), {"fit": lambda *_: None})())
    assert "LogisticRegression could not be fitted to 60 rows: Unknown label type" in refused(
        LogisticRegression()
    )
    for value in (np.nan, [1.0, 2.0], "gains"):
        assert "effect_model Bad gives predictions that are not one finite number" in refused(Bad(value))
    paired = {"confounders": None, "outcome_model": None, "propensity": None, "modifiers": ["hard"]}
    assert "'x_learner' has no meaning with design='paired'" in refused(
        "x_learner", design="paired", **paired
    )


def test_one_prediction_for_all_rows_is_said_and_makes_one_group():
    found = heterogeneous_effects(
        log(9, n=200), **ARM, **PLAIN, confounders=["hard"], effect_model=DummyRegressor()
    )
    assert found.calibration is None or found.calibration.p_value is None
    assert found.figures == {}


def test_a_model_may_be_written_as_text():
    frame = log(10, n=200)
    asked = {**ARM, **PLAIN, "confounders": ["hard"]}
    written = heterogeneous_effects(frame, **asked, effect_model="sklearn.linear_model.Ridge(alpha=3.0)")
    made = heterogeneous_effects(frame, **asked, effect_model=Ridge(alpha=3.0))
    assert written.to_dict() == made.to_dict()
