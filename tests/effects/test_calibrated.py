"""The default's weights: lowered to a limit, moved to the covariates' means, and right when the score is."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from sklearn.ensemble import RandomForestClassifier

from whyprompt import estimate_effect
from whyprompt.effects.methods.balancing import entropy_multipliers
from whyprompt.effects.methods.calibrated import _LARGEST, _PENALTY, calibrated
from whyprompt.errors import EstimationError


def arms(n=600, p=3, *, apart=0.5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    chance = 1 / (1 + np.exp(-apart * X[:, 0]))
    return X, rng.random(n) < chance, chance


def test_they_are_the_minimum_of_the_penalised_dual():
    X, t, chance = arms()
    odds = chance / (1 - chance)
    got = calibrated(odds, ~t, t, X)[~t]
    scaled = np.clip((X - X.mean(0)) / X.std(0), -5, 5)
    apart = scaled[~t] - scaled[t].mean(0)
    base = odds[~t]
    for _ in range(100):
        base = np.minimum(odds[~t], _LARGEST * np.sqrt(len(base)) * base.mean())
    base /= base.sum()

    def dual(m):
        return np.log(base @ np.exp(apart @ m)) + _PENALTY / 2 * m @ m

    best = minimize(dual, np.zeros(3), method="BFGS", options={"gtol": 1e-10}).x
    wanted = base * np.exp(apart @ best)
    assert got == pytest.approx(wanted / wanted.sum(), rel=1e-5)
    assert got.sum() == pytest.approx(1.0)
    # The means are met but for what the penalty leaves: its derivative is 0 there.
    assert got @ apart == pytest.approx(-_PENALTY * best, abs=1e-6)


def test_without_a_penalty_even_weights_become_those_of_entropy_balancing(monkeypatch):
    monkeypatch.setattr("whyprompt.effects.methods.calibrated._PENALTY", 1e-12)
    X, t, _ = arms()
    got = calibrated(np.ones(len(t)), ~t, t, X)[~t]
    moments = X[~t] - X[t].mean(0)
    wanted = np.exp(moments @ entropy_multipliers(moments, ["a", "b", "c"]))
    assert got == pytest.approx(wanted / wanted.sum(), rel=1e-6)


def test_an_arm_far_from_the_means_keeps_half_of_what_it_is_worth():
    X, t, _ = arms(apart=3.0)
    flat = np.ones(len(t))
    got = calibrated(flat, ~t, np.ones(len(t), dtype=bool), X)[~t]
    assert 1 / (got @ got) >= 0.5 * (~t).sum() * (1 - 1e-9)
    assert 1 / (got @ got) < 0.9 * (~t).sum()


def test_one_row_with_next_to_no_chance_is_no_longer_the_estimate():
    X, t, chance = arms()
    odds = chance / (1 - chance)
    odds[np.flatnonzero(~t)[0]] = 1e4
    got = calibrated(odds, ~t, t, X)
    assert got.max() < 0.05
    assert odds[~t].max() / odds[~t].sum() > 0.9


@pytest.mark.parametrize("estimand", ["att", "atc", "ate"])
def test_they_sum_to_the_rows_that_the_effect_is_about_and_meet_their_means(estimand):
    X, t, _ = arms(400, 2)
    frame = pd.DataFrame(X, columns=["x0", "x1"]).assign(arm=t, y=X[:, 0] + t)
    asked = {"treatment": "arm", "outcome": "y", "confounders": ["x0", "x1"], "estimand": estimand}
    result = estimate_effect(frame, **asked, method={"aipw": {"splits": 1}})
    about = {"att": t, "atc": ~t, "ate": np.ones(len(t), dtype=bool)}[estimand]
    for arm in (t, ~t):
        assert result.weights[arm].sum() == pytest.approx(about.sum())
        mean = result.weights[arm] @ X[arm] / about.sum()
        assert mean == pytest.approx(X[about].mean(0), abs=0.1)


def test_known_chances_and_the_textbook_keep_their_weights():
    X, t, chance = arms(400, 2)
    frame = pd.DataFrame(X, columns=["x0", "x1"]).assign(arm=t, y=X[:, 0] + t, chance=chance)
    asked = {"treatment": "arm", "outcome": "y", "confounders": ["x0", "x1"], "estimand": "ate"}
    known = estimate_effect(frame, **asked, method="aipw", propensity="chance")
    assert known.weights == pytest.approx(np.where(t, 1 / chance, 1 / (1 - chance)))
    plain = estimate_effect(frame, **asked, method={"aipw": {"calibrate": False, "splits": 1}})
    score = plain.propensity
    assert plain.weights == pytest.approx(np.where(t, 1 / score, 1 / (1 - score)))


@pytest.mark.parametrize("calibrate", [True, False])
def test_a_learned_chance_of_exactly_one_is_refused_where_nothing_clips_it(calibrate):
    X, t, _ = arms(300, 1, apart=3.0)
    frame = pd.DataFrame({"x": X[:, 0], "arm": t, "y": X[:, 0] + t})
    asked = {"treatment": "arm", "outcome": "y", "confounders": ["x"], "estimand": "ate"}
    method = {"aipw": {"clip": 0.0, "calibrate": calibrate, "outcome_model": "linear"}}
    forest = RandomForestClassifier(n_estimators=20, random_state=0)
    with pytest.raises(EstimationError, match=r"clip=0: \d+ rows of 300 have a learned propensity"):
        estimate_effect(frame, **asked, method=method, propensity=forest)


def test_where_arms_hardly_overlap_the_error_is_smaller_and_still_true():
    """Against the textbook's weights on the same draws; an outcome shaped like right answers."""
    found = {True: [], False: []}
    truth = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(500, 2))
        chance = 1 / (1 + np.exp(-2.5 * x[:, 0]))
        t = rng.random(500) < chance
        none = 1 / (1 + np.exp(-x[:, 0] - 0.5 * x[:, 1]))
        one = np.clip(none + 0.1, 0, 1)
        y = (rng.random(500) < np.where(t, one, none)).astype(float)
        truth.append((one - none)[t].mean())
        frame = pd.DataFrame(x, columns=["a", "b"]).assign(arm=t, y=y)
        for calibrate, made in found.items():
            row = estimate_effect(
                frame,
                treatment="arm",
                outcome="y",
                confounders=["a", "b"],
                estimand="att",
                propensity="logit",
                method={"aipw": {"calibrate": calibrate, "outcome_model": "linear", "splits": 1}},
            ).overall
            made.append((row.estimate, row.ci_low, row.ci_high))
    truth = np.array(truth)
    off = {k: np.array(v)[:, 0] - truth for k, v in found.items()}
    rmse = {k: float(np.sqrt((v**2).mean())) for k, v in off.items()}
    low, high = np.array(found[True]).T[1:]
    assert rmse[True] < 0.8 * rmse[False]
    assert abs(off[True].mean()) < 3 * off[True].std() / np.sqrt(60)
    # 95% within four Monte Carlo errors of 60 draws.
    assert ((low <= truth) & (truth <= high)).mean() >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 60)
