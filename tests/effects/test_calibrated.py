"""The default's weights: lowered to a limit, moved to the covariates' means, and right when the score is."""

import numpy as np
import pandas as pd
import pytest
from effect_verbs import fit_arrays
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


LINES = {"method": "aipw", "propensity": "logit", "outcome_model": "linear"}


@pytest.mark.parametrize("estimand", ["att", "atc", "ate"])
def test_the_estimate_and_its_error_are_those_written_out(estimand):
    X, t, _ = arms(300, 2, seed=3)
    y = X @ [1.0, -0.5] + t * (1 + X[:, 0]) + np.random.default_rng(4).normal(size=300)
    found = fit_arrays(y, t, X, estimand=estimand, folds=1, splits=1, **LINES)
    design = np.column_stack([np.ones(300), X])
    about = {"att": t, "atc": ~t, "ate": np.ones(300, dtype=bool)}[estimand]
    share, effect, influence = about / about.sum(), 0.0, np.zeros(300)
    for sign, arm in ((1, t), (-1, ~t)):
        guess = design @ np.linalg.lstsq(design[arm], y[arm], rcond=None)[0]
        if (arm == about).all():
            guess = np.zeros(300)
        w = np.where(arm, found.weights, 0.0) / found.weights[arm].sum()
        left = y - guess
        effect += sign * (share @ guess + w @ left)
        influence += sign * (share * (guess - share @ guess) + w * (left - w @ left))
    assert found.estimate == pytest.approx(effect, rel=1e-9)
    assert found.std_error == pytest.approx(np.linalg.norm(influence), rel=1e-9)


def test_what_deals_of_the_folds_differ_by_is_in_the_error():
    X, t, _ = arms(200, 2, seed=5)
    y = X @ [1.0, -0.5] + t + np.random.default_rng(6).normal(size=200)
    seeds = [7, int(np.random.SeedSequence(7).generate_state(1, dtype=np.uint64)[0])]
    asked = {"estimand": "ate", "folds": 2, **LINES}
    each = [fit_arrays(y, t, X, splits=1, random_state=seed, **asked) for seed in seeds]
    both = fit_arrays(y, t, X, splits=2, random_state=7, **asked)
    estimates = [one.estimate for one in each]
    assert both.estimate == pytest.approx(np.mean(estimates))
    influence = np.mean([one.influence for one in each], axis=0) @ [1.0, -1.0]
    assert np.var(estimates) > 0
    assert both.std_error**2 == pytest.approx(influence @ influence + np.var(estimates))


def test_overlap_is_judged_by_the_chances_and_not_by_what_was_made_of_them():
    X, t, _ = arms(800, 2, apart=2.5, seed=8)
    frame = pd.DataFrame(X, columns=["x0", "x1"]).assign(arm=t, y=X[:, 0] + t)
    asked = {"treatment": "arm", "outcome": "y", "confounders": ["x0", "x1"], "estimand": "att"}
    told = {}
    for calibrate in (True, False):
        method = {"aipw": {"calibrate": calibrate, "splits": 1, "outcome_model": "linear"}}
        result = estimate_effect(frame, **asked, method=method, propensity="logit")
        overlap = next(a for a in result.assumptions if a.name == "overlap")
        told[calibrate] = (overlap.status, [p for p in overlap.detail.split("; ") if "rests on" in p])
    assert told[True] == told[False]
    assert told[True][1]


@pytest.mark.parametrize(("rows", "folds"), [(99_998, 5), (100_000, 3)])
def test_many_rows_are_dealt_to_fewer_folds(rows, folds):
    X, t, _ = arms(rows, 1)
    assert fit_arrays(X[:, 0] + t, t, X, estimand="ate", splits=1, **LINES).settings["folds"] == folds


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
