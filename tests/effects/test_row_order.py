"""Whatever a seed deals or draws goes by what rows hold: not by order, index or names of arms."""

import numpy as np
import pandas as pd
import pytest
from effect_verbs import estimate_effects, fit_arrays, paired_effects
from sklearn.ensemble import RandomForestRegressor
from sklearn.tree import DecisionTreeClassifier

from whyprompt import audit, estimate_effect, one_draw
from whyprompt.stats.order import cluster_places, content_rank


def table(seed=0, n=240, *, graded=False):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 5, n).astype(float) if graded else rng.normal(size=n)
    z = rng.choice(["a", "b", "c"], n)
    t = (rng.random(n) < 1 / (1 + np.exp(-0.5 * (x - x.mean())))).astype(int)
    y = t + 0.7 * x + (z == "b") + rng.normal(size=n)
    return pd.DataFrame({"t": t, "x": x, "z": z, "y": y, "team": np.arange(n) // 6, "id": np.arange(n)})


def effect(data, **options):
    return estimate_effect(data, treatment="t", outcome="y", **({"confounders": ["x", "z"]} | options))


def numbers(result):
    return (result.estimate, result.std_error, result.ci_low, result.ci_high)


def reordered(data, seed=3):
    rng = np.random.default_rng(seed)
    mixed = data.sample(frac=1, random_state=seed)
    return [mixed, data[::-1], mixed.set_index(rng.integers(0, 3, len(data)))]


TEXTBOOK = {"method": {"aipw": {"outcome_model": "linear", "splits": 2}}, "propensity": "logit"}
SEEDED = {
    "aipw": {**TEXTBOOK, "estimand": "ate"},
    "aipw, learned": {"method": {"aipw": {"splits": 1}}, "estimand": "ate"},
    "aipw, clusters": {**TEXTBOOK, "cluster": "team"},
    "aipw, crump": {**TEXTBOOK, "estimand": "ate", "discard": "crump"},
    "classifier": {
        "method": "ipw", "propensity": DecisionTreeClassifier(min_samples_leaf=30, random_state=0),
    },
    "classifier, nearest": {
        "method": "nearest",
        "propensity": DecisionTreeClassifier(min_samples_leaf=30, random_state=0), "tie_break": "id",
    },
    "bootstrap": {"method": "ipw", "std_error": "bootstrap", "draws": 30},
    "bootstrap, clusters": {"method": "overlap", "std_error": "bootstrap", "draws": 30, "cluster": "team"},
    "bootstrap, pairs": {"method": "nearest", "std_error": "bootstrap", "draws": 30, "tie_break": "id"},
    "bootstrap, aipw": {**TEXTBOOK, "std_error": "bootstrap", "draws": 10},
    "signs": {
        "method": "nearest", "replace": True, "std_error": "wild_bootstrap", "draws": 200, "tie_break": "id",
    },
    "random order": {"method": "nearest", "order": "random"},
    "random order, Mahalanobis": {"method": "nearest", "order": "random", "distance": "mahalanobis"},
}  # fmt: skip


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("name", SEEDED)
def test_the_order_of_rows_changes_nothing_that_a_seed_decides(name, graded):
    data = table(graded=graded)
    base = effect(data, **SEEDED[name])
    for other in reordered(data):
        assert numbers(effect(other, **SEEDED[name])) == pytest.approx(numbers(base), rel=1e-9)
    assert numbers(effect(data, **SEEDED[name], random_state=1)) != numbers(base)


def test_repeated_rows_are_interchangeable():
    data = pd.concat([table(n=120, graded=True)] * 2, ignore_index=True)
    for options in (SEEDED["aipw"], SEEDED["bootstrap"]):
        base = numbers(effect(data, **options))
        for other in reordered(data):
            assert numbers(effect(other, **options)) == pytest.approx(base, rel=1e-9)


@pytest.mark.parametrize("name", ["aipw, clusters", "bootstrap, clusters"])
def test_the_names_of_clusters_are_names(name):
    data = table()
    base = numbers(effect(data, **SEEDED[name]))
    renamed = data.assign(team=data.team.map(dict(enumerate(np.random.default_rng(1).permutation(40)))))
    assert numbers(effect(renamed, **SEEDED[name])) == pytest.approx(base, rel=1e-9)


@pytest.mark.parametrize("graded", [False, True])
def test_folds_follow_neither_the_arms_names_nor_the_outcomes_scale(graded):
    data = table(graded=graded)
    for options in (SEEDED["aipw"], SEEDED["aipw"] | {"cluster": "team"}):
        base = effect(data, **options)
        swapped = effect(data.assign(t=1 - data.t), **options)
        assert swapped.estimate == pytest.approx(-base.estimate, rel=1e-9)
        assert swapped.std_error == pytest.approx(base.std_error, rel=1e-9)
        scaled = effect(data.assign(y=3.0 * data.y + 40.0), **options)
        assert scaled.estimate == pytest.approx(3.0 * base.estimate, rel=1e-8)
        assert scaled.std_error == pytest.approx(3.0 * base.std_error, rel=1e-8)


def test_an_outcome_model_sees_rows_in_their_own_order():
    data = table()
    X = np.column_stack([data.x, data.z == "b"]).astype(float)
    y, t = data.y.to_numpy(), data.t.to_numpy()
    forest = RandomForestRegressor(10, random_state=0)
    order = np.random.default_rng(0).permutation(len(y))
    asked = {"method": "aipw", "propensity": "logit", "splits": 2, "estimand": "ate", "outcome_model": forest}
    one = fit_arrays(y, t, X, **asked)
    other = fit_arrays(y[order], t[order], X[order], **asked)
    assert other.estimate == pytest.approx(one.estimate, rel=1e-9)
    assert other.influence[:, 0] == pytest.approx(one.influence[:, 0][order], rel=1e-9)


def test_outcomes_share_their_folds():
    """Rows with equal covariates are told apart by the outcome; a second outcome must not deal them anew."""
    data = table(graded=True)
    data["twice"] = -2.0 * data.y
    options = {"treatment": "t", "confounders": ["x"], **TEXTBOOK}
    a, b = estimate_effects(data, outcomes=["y", "twice"], **options).parts
    assert b.estimate == pytest.approx(-2.0 * a.estimate, rel=1e-9)
    assert b.std_error == pytest.approx(2.0 * a.std_error, rel=1e-9)


def paired_table(n=60):
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "item_id": np.repeat([f"sum-{k}" for k in range(n)], 2),
            "arm": ["direct", "cot"] * n,
            "hard": np.repeat(rng.integers(0, 4, n), 2),
            "y": rng.normal(size=2 * n),
            "words": rng.normal(size=2 * n),
        }
    )
    return frame.assign(y=frame.y + (frame.arm == "cot") - 0.5 * frame.hard)


def test_random_signs_and_drawn_arms_follow_no_order():
    frame = paired_table()
    arms = {"treated": "cot", "control": "direct"}
    ruled = {"outcome": "y", "confounders": ["hard"], "rule": {"hard": 1.0}}

    def signs(data):
        return [r.p_adjusted for r in paired_effects(data, outcomes=["y", "words"], draws=500, **arms).parts]

    def audited(data):
        quick = {"aipw": {"splits": 1, "outcome_model": "linear"}}
        return audit(data, methods=["nearest", quick], draws=5, **ruled, **arms).to_dict()["parts"]

    def drawn(data):
        return one_draw(data, method="nearest", **ruled, **arms).to_dict()["adjusted"]["estimate"]

    for other in reordered(frame):
        assert signs(other) == pytest.approx(signs(frame), rel=1e-12)
        assert drawn(other) == pytest.approx(drawn(frame), rel=1e-9)
        for one, two in zip(audited(other), audited(frame), strict=True):
            assert one["estimate"] == pytest.approx(two["estimate"], rel=1e-9)


def test_ranks_are_those_of_pandas():
    rng = np.random.default_rng(0)
    data = pd.DataFrame(
        {"a": rng.integers(0, 3, 50), "b": rng.choice(["u", "v"], 50), "c": rng.integers(0, 2, 50)}
    )
    wanted = data.groupby(["a", "b", "c"]).ngroup()
    assert content_rank(*(data[c].to_numpy() for c in data)).tolist() == wanted.tolist()
    codes = np.repeat(np.arange(5), 10)
    places = cluster_places(np.tile([1, 0], 25), codes)
    assert places.tolist() == [0] * 5
