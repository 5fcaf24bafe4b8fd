"""Learners of score and outcome: what the defaults find, what text may name, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from effect_verbs import estimate_effects, fit_arrays
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, Ridge

from whyprompt import estimate_effect
from whyprompt.cli.choices import read_choice
from whyprompt.effects import AIPW, make_method
from whyprompt.effects.estimate import estimated
from whyprompt.effects.methods import boosted
from whyprompt.effects.methods.boosted import LogitAndTrees, RidgeAndTrees
from whyprompt.effects.methods.learners import (
    learn_outcome,
    learn_score,
    read_learner,
    score_column,
    score_model,
)
from whyprompt.effects.methods.make import option_kinds
from whyprompt.errors import EstimationError, WhypromptError

ARM = {"treatment": "arm", "outcome": "y"}
TEXTBOOK = {"method": "aipw", "propensity": "logit", "outcome_model": "linear"}


def table(n=160, seed=0):
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, n))
    arm = (rng.random(n) < 1 / (1 + np.exp(-0.7 * x))).astype(int)
    return pd.DataFrame({"arm": arm, "x": x, "z": z, "y": arm + x + 0.5 * z + rng.normal(size=n)})


# ------------------------------------------------------------------------------------- what they find


def test_a_line_is_learned_all_but_as_well_as_by_least_squares_and_a_step_far_better():
    rng = np.random.default_rng(0)
    X, new = rng.normal(size=(400, 4)), rng.normal(size=(1000, 4))
    noise = rng.normal(size=400)

    def loss(truth, model):
        return float(np.mean((learn_outcome(X, truth(X) + noise, new, model) - truth(new)) ** 2))

    def line(X):
        return X @ [1.0, -0.5, 0.3, 0.0]

    def step(X):
        return 3.0 * ((X[:, 0] > 0) & (X[:, 1] > 0))

    # Noise of variance 1: least squares of 5 coefficients loses about 5 / 400, of 15 curves more 20 / 400;
    # penalised, and with trees, it loses less.
    assert loss(line, "boosted") < 0.75 * 20 / 400
    assert loss(step, "boosted") < 0.5 * loss(step, "linear")


def test_a_score_of_a_line_and_one_of_a_step_are_learned():
    rng = np.random.default_rng(1)
    X, new = rng.normal(size=(1200, 3)), rng.normal(size=(1000, 3))

    def off(truth, model):
        treated = np.random.default_rng(2).random(1200) < truth(X)
        return float(np.sqrt(np.mean((learn_score(X, treated, new, model) - truth(new)) ** 2)))

    def line(X):
        return 1 / (1 + np.exp(-X @ [1.0, -0.5, 0.0]))

    def step(X):
        return np.where((X[:, 0] > 0) == (X[:, 1] > 0), 0.75, 0.25)

    assert off(line, LogitAndTrees()) < off(line, "logit") + 0.04
    assert off(step, "logit") > 0.2
    assert off(step, LogitAndTrees()) < 0.6 * off(step, "logit")


def test_more_columns_than_rows_and_a_constant_one_are_fitted():
    rng = np.random.default_rng(2)
    X = np.column_stack([rng.normal(size=(60, 90)), np.full(60, 4.0)])
    t = rng.random(60) < 0.5
    y = 2.0 * t + X[:, 0] + rng.normal(size=60)
    with pytest.raises(EstimationError, match="'linear' has 91 columns for the") as error:
        fit_arrays(y, t, X, method="aipw", outcome_model="linear", splits=1)
    assert "outcome_model='boosted', which is penalised" in error.value.hint
    found = fit_arrays(y, t, X, method="aipw", estimand="ate", splits=1)
    assert abs(found.estimate - 2.0) < 4 * found.std_error < 4.0
    # A column without a spread says nothing: it moves no prediction.
    with_it, without = (learn_outcome(X[:, :k], y, X[:, :k] + 1.0, None) for k in (91, 90))
    assert with_it == pytest.approx(without, rel=1e-9)


def test_predictions_stay_within_the_outcomes_that_were_seen():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(80, 1))
    y = (rng.random(80) < 1 / (1 + np.exp(-2 * X[:, 0]))).astype(float)
    far = learn_outcome(X, y, np.array([[-50.0], [50.0]]), None)
    assert far.tolist() == [0.0, 1.0]


def test_under_a_hundred_rows_there_are_no_trees_and_it_is_a_ridge_regression():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(99, 2))
    y = X[:, 0] + rng.normal(size=99)
    fitted = RidgeAndTrees().fit(X, y)
    assert fitted.trees.model is None
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    ridge = Ridge(alpha=fitted.line.alpha_).fit(scaled, y)
    assert fitted.predict(X) == pytest.approx(ridge.predict(scaled).clip(y.min(), y.max()), rel=1e-9)
    # Pure noise: what trees promise and do not keep is not kept.
    more = rng.normal(size=(300, 2))
    assert RidgeAndTrees().fit(more, rng.normal(size=300)).trees.share < 0.3


def test_a_text_column_of_500_levels_is_read_by_what_its_levels_do():
    rng = np.random.default_rng(5)
    n, k = 5000, 500
    level = rng.integers(0, k, n)
    worth = rng.normal(size=k)
    arm = rng.random(n) < 1 / (1 + np.exp(-worth[level]))
    y = arm + 2.0 * worth[level] + rng.normal(size=n)
    task = np.array([f"task-{j}" for j in range(k)], dtype=object)[level]
    frame = pd.DataFrame({"arm": arm.astype(int), "task": task, "y": y})
    plain = estimate_effect(frame, **ARM, method="naive", confounders=["task"])
    assert abs(plain.estimate - 1.0) > 1.0
    found = estimate_effect(
        frame, **ARM, confounders=["task"], method={"aipw": {"splits": 1}}, estimand="ate"
    )
    # Ten rows a level say what a level does to within a third of the noise; most of the bias is gone.
    assert abs(found.estimate - 1.0) < 4 * found.std_error < 0.5
    assert found.n_treated_used + found.n_control_used == n


# ------------------------------------------------------------------- the estimate that they are part of


def test_the_default_is_doubly_robust_with_the_learners_that_it_names():
    found = estimate_effect(table(), **ARM, confounders=["x", "z"])
    assert (found.method, found.estimand) == ("aipw", "att")
    told = {name: found.settings[name] for name in ("folds", "splits", "outcome_model", "distance")}
    assert told == {"folds": 5, "splits": 3, "outcome_model": "boosted", "distance": "boosted"}
    assert abs(found.estimate - 1.0) < 4 * found.std_error
    by_name = estimate_effect(
        table(), **ARM, confounders=["x", "z"], method="aipw", outcome_model="boosted", propensity="boosted"
    )
    assert (by_name.estimate, by_name.std_error) == (found.estimate, found.std_error)
    assert by_name.settings["distance"] == "boosted"


def test_folds_are_fewer_where_an_arm_has_few_rows():
    frame = table(40)
    frame["arm"] = (np.arange(40) % 14 == 0).astype(int)
    found = estimate_effect(frame, **ARM, confounders=["x"])
    assert (found.n_treated, found.settings["folds"]) == (3, 3)
    with pytest.raises(EstimationError, match="folds=5: with 3 rows in an arm, choose 1 to 3"):
        estimate_effect(frame, **ARM, confounders=["x"], method="aipw", folds=5)


def test_rows_order_and_the_names_of_the_arms_change_nothing():
    frame = table(seed=6)
    asked = {"treatment": "arm", "outcome": "y", "confounders": ["x", "z"], "estimand": "ate"}
    base = estimate_effect(frame, **asked)
    mixed = estimate_effect(frame.sample(frac=1, random_state=1), **asked)
    assert (mixed.estimate, mixed.std_error) == pytest.approx((base.estimate, base.std_error), rel=1e-9)
    turned = estimate_effect(frame.assign(arm=1 - frame.arm), **asked)
    assert turned.estimate == pytest.approx(-base.estimate, rel=1e-5)
    assert turned.std_error == pytest.approx(base.std_error, rel=1e-5)
    named = estimate_effect(
        frame.assign(arm=np.where(frame.arm == 1, "a", "b")), **asked, treated="a", control="b"
    )
    assert (named.estimate, named.std_error) == pytest.approx((base.estimate, base.std_error), rel=1e-9)


def test_the_estimate_of_several_deals_is_the_mean_of_theirs():
    frame = table(seed=7)
    X = frame[["x", "z"]].to_numpy()
    asked = {**TEXTBOOK, "estimand": "ate"}
    both = fit_arrays(frame.y, frame.arm, X, **asked, splits=2, random_state=3)
    more = np.random.SeedSequence(3).generate_state(1, dtype=np.uint64).tolist()
    single = [fit_arrays(frame.y, frame.arm, X, **asked, splits=1, random_state=s) for s in (3, *more)]
    assert single[0].estimate != single[1].estimate
    assert both.estimate == pytest.approx(np.mean([one.estimate for one in single]), rel=1e-12)
    assert both.influence == pytest.approx(np.mean([one.influence for one in single], axis=0), rel=1e-9)


def test_another_outcome_of_the_same_rows_is_a_fit_of_its_own():
    frame = table(90, seed=8).assign(other=lambda d: d.z**2 - d.arm)
    asked = {"treatment": "arm", "confounders": ["x", "z"], "estimand": "ate"}
    first = estimated(frame, outcome="y", **asked)
    again = first.plan.method.fit_again(first.problem, first.plan, first.fit, frame.other.to_numpy())
    X = frame[["x", "z"]].to_numpy()
    # The folds are dealt by rows' content, the outcome with it: a fit of its own has those of the first.
    alone = fit_arrays(frame.other, frame.arm, X, method="aipw", estimand="ate", rank=first.problem.places)
    assert again.estimate == pytest.approx(alone.estimate, rel=1e-9)
    assert again.std_error == pytest.approx(alone.std_error, rel=1e-9)
    rows = estimate_effects(frame, outcomes=["y", "other"], **asked).parts
    assert rows[1].estimate == pytest.approx(again.estimate, rel=1e-12)


def test_the_ato_is_the_partially_linear_estimate():
    """With both nuisances given, Robinson's residual on residual: an outcome model that leaves y as it is."""
    frame = table(seed=9)
    x, t, y = frame.x.to_numpy(), frame.arm.to_numpy().astype(float), frame.y.to_numpy()
    e = 1 / (1 + np.exp(-0.7 * x))
    one, none = fit_of(x[t == 1], y[t == 1])(x), fit_of(x[t == 0], y[t == 0])(x)
    found = fit_arrays(
        y,
        t,
        x[:, None],
        method="aipw",
        estimand="ato",
        outcome_model=LinearRegression(),
        folds=1,
        propensity=e,
    )
    # The mean of both arms' outcomes given x is m = e m1 + (1 - e) m0.
    m, r = e * one + (1 - e) * none, t - e
    slope = float(r @ (y - m) / (r @ r))
    error = float(np.sqrt(np.sum((r * (y - m - slope * r)) ** 2)) / (r @ r))
    assert found.estimate == pytest.approx(slope, rel=1e-9)
    assert found.std_error == pytest.approx(error, rel=1e-9)


def fit_of(x, y):
    slope, intercept = np.polyfit(x, y, 1)
    return lambda new: intercept + slope * new


def test_a_score_that_is_known_is_used_as_it_is():
    frame = table(seed=10).assign(p=lambda d: 1 / (1 + np.exp(-0.7 * d.x)))
    found = estimate_effect(frame, **ARM, confounders=["z"], propensity="p", estimand="ate")
    assert found.settings["distance"] == "known propensity"
    assert found.propensity == pytest.approx(frame.p.to_numpy(), abs=0)
    bare = estimate_effect(frame, **ARM, propensity="p", estimand="ate")
    # Without covariates the outcome is modelled by its mean, of the rows of the other folds.
    assert abs(bare.estimate - 1.0) < 4 * bare.std_error


# ------------------------------------------------------------------------------------- learners as text


FOREST = "sklearn.ensemble.RandomForestRegressor(n_estimators=10, max_depth=3, random_state=0)"


def test_a_learner_written_as_text_is_the_object_and_passes_through_the_command_line():
    made = read_learner(FOREST, "outcome_model")
    assert isinstance(made, RandomForestRegressor)
    assert (made.n_estimators, made.max_depth) == (10, 3)
    name, options = read_choice(
        "aipw:outcome_model=sklearn.ensemble.RandomForestRegressor(n_estimators=10,max_depth=3),folds=3",
        "--method",
        {"aipw": option_kinds("aipw")},
    )
    text = "sklearn.ensemble.RandomForestRegressor(n_estimators=10,max_depth=3)"
    assert (name, options) == ("aipw", {"outcome_model": text, "folds": 3})
    assert make_method({name: options}) == AIPW(outcome_model=text, folds=3)
    frame = table(80)
    asked = {**ARM, "confounders": ["x", "z"], "propensity": "logit"}
    by_text, by_object = (
        estimate_effect(frame, **asked, method=AIPW(outcome_model=model, splits=1))
        for model in (FOREST, made)
    )
    assert by_text.estimate == by_object.estimate
    assert not hasattr(made, "estimators_")
    # A class without options needs no brackets.
    assert isinstance(
        read_learner("sklearn.linear_model.LinearRegression", "outcome_model"), LinearRegression
    )


def test_a_classifier_written_as_text_gives_the_score_and_any_other_text_is_a_column():
    text = "sklearn.ensemble.RandomForestClassifier(n_estimators=10, min_samples_leaf=20, random_state=0)"
    assert (score_column(text), score_column("boosted"), score_column("p")) == (None, None, "p")
    assert isinstance(score_model(text), RandomForestClassifier)
    assert score_model("p") is None
    found = estimate_effect(
        table(), **ARM, confounders=["x"], propensity=text, method={"aipw": {"splits": 1}}, estimand="ate"
    )
    assert found.settings["distance"] == "RandomForestClassifier"


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("sklearn.linear_model.Ridge(2.0)", "outcome_model", "options are written with their names"),
        (
            "sklearn.linear_model.Ridge(**{'alpha': 1})",
            "outcome_model",
            "options are written with their names",
        ),
        ("sklearn.linear_model.Ridge(alfa=1)", "outcome_model", "cannot be made: .*alfa"),
        ("sklearn.linear_model.Rigde()", "outcome_model", "cannot be made: .*Rigde"),
        ("sklearn.no_such_module.Ridge()", "outcome_model", "cannot be made: No module"),
        ("sklearn.linear_model.Ridge(alpha=open('x'))", "outcome_model", "cannot be read"),
        ("sklearn.linear_model.Ridge(", "outcome_model", "cannot be read"),
        ("os.system(command='true')", "outcome_model", "is not known"),
        ("builtins.print()", "outcome_model", "is not known"),
        ("boostd", "outcome_model", "'boostd' is not known"),
        ("sklearn.preprocessing.StandardScaler()", "outcome_model", "StandardScaler has no predict"),
        ("sklearn.svm.LinearSVC()", "propensity", "LinearSVC has no predict_proba"),
        ("sklearn.linear_model.Ridge()", "propensity", "Ridge has no predict_proba"),
        # A function would run before it could be seen that it makes no learner.
        ("sklearn.datasets.load_iris()", "outcome_model", "is no class"),
        ("sklearn.linear_model()", "outcome_model", "is no class"),
    ],
)
def test_text_that_makes_no_learner_is_refused_and_says_what_would(text, where, message):
    with pytest.raises(EstimationError, match=message) as error:
        read_learner(text, where)
    assert where in error.value.message
    assert "sklearn.ensemble.RandomForest" in error.value.hint
    if where == "outcome_model":
        with pytest.raises(EstimationError, match=message):
            AIPW(outcome_model=text)


def test_an_object_that_is_no_learner_is_refused_where_the_method_is_made():
    with pytest.raises(EstimationError, match="outcome_model LinearRegression is a class, not an object"):
        AIPW(outcome_model=LinearRegression)
    with pytest.raises(EstimationError, match="outcome_model int has no fit"):
        AIPW(outcome_model=3)
    with pytest.raises(EstimationError, match="propensity LinearRegression has no predict_proba"):
        estimate_effect(table(), **ARM, confounders=["x"], propensity=LinearRegression())


class Fixed:
    """Predict one number, whatever is asked."""

    def __init__(self, value=0.0):
        self.value = value

    def get_params(self, deep=True):  # noqa: ARG002, FBT002 - scikit-learn's own signature
        return {"value": self.value}

    def set_params(self, **params):
        self.value = params["value"]
        return self

    def fit(self, X, y):  # noqa: ARG002
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.value)

    def predict_proba(self, X):
        return np.column_stack([1 - self.predict(X), self.predict(X)])


def test_constant_predictions_are_an_estimate_and_those_that_are_no_numbers_are_refused():
    frame = table()
    asked = {
        **ARM,
        "confounders": ["x"],
        "method": "aipw",
        "splits": 1,
        "estimand": "ate",
        "calibrate": False,
    }
    half = estimate_effect(frame, **asked, propensity=Fixed(0.5), outcome_model=Fixed(0.0))
    t, y = frame.arm.to_numpy(), frame.y.to_numpy()
    # Both nuisances say nothing: the mean of 2 t y - 2 (1 - t) y.
    assert half.estimate == pytest.approx(np.mean(2 * t * y - 2 * (1 - t) * y), rel=1e-12)
    for bad in (np.nan, np.inf):
        with pytest.raises(
            EstimationError, match="outcome_model Fixed gives predictions that are not one finite"
        ):
            estimate_effect(frame, **asked, propensity="logit", outcome_model=Fixed(bad))
        with pytest.raises(EstimationError, match="propensity Fixed gives probabilities that are not finite"):
            estimate_effect(frame, **asked, propensity=Fixed(bad), outcome_model="linear")
    with pytest.raises(
        WhypromptError, match=r"outcome_model .*PLSRegression\(n_components=9\)' could not be fitted"
    ):
        estimate_effect(
            frame,
            **asked,
            propensity="logit",
            outcome_model="sklearn.cross_decomposition.PLSRegression(n_components=9)",
        )


def test_rows_of_an_item_that_follow_each_other_arm_by_arm_settle_a_score():
    # One treated and two control rows an item, in that order by their outcome: every third row is treated.
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=120), 3)
    t = np.tile([True, False, False], 120)
    table = pd.DataFrame({"x": x, "t": t, "y": x + np.where(t, -5.0, 0.0) + np.tile([0.0, 0.1, 0.2], 120)})
    found = estimate_effect(table, treatment="t", outcome="y", confounders=["x"], cluster="none")
    assert found.estimate == pytest.approx(-5.15, abs=0.05)


@pytest.mark.parametrize("n", [150, 700])
def test_trees_with_weights_are_those_of_scikit_learn(n):
    rng = np.random.default_rng(n)
    X = np.column_stack([rng.normal(size=(n, 3)), rng.poisson(300, n), rng.random(n) < 0.2, np.ones(n)])
    y, weights = X[:, 0] + np.abs(X[:, 1]) + rng.normal(size=n), 0.03 + 0.25 * rng.random(n)
    new = np.vstack([X, 2.0 * rng.normal(size=(200, 6))])
    # Half of the trees, since rows are few.
    options = boosted._SCORE | boosted._SHARED
    half = options | {"max_iter": options["max_iter"] // 2}
    for given in (weights, None):
        theirs = HistGradientBoostingRegressor(**half).fit(X, y, sample_weight=given)
        assert boosted._boosted(X, y, given, options).predict(new) == pytest.approx(theirs.predict(new))


def test_a_long_tail_is_no_obstacle():
    """What goes by the logarithm of a count is learned from the count about as well."""
    rng = np.random.default_rng(8)
    size = rng.normal(size=(1200, 1))
    other = rng.normal(size=(1200, 1))
    y = size[:, 0] + other[:, 0] + rng.normal(size=1200)
    lost = []
    for column in (size, np.exp(1.2 * size)):
        X = np.column_stack([column, other])
        found = learn_outcome(X[:600], y[:600], X[600:], "boosted")
        lost.append(float(((found - size[600:, 0] - other[600:, 0]) ** 2).mean()))
    assert lost[1] < lost[0] + 0.02
