"""Propensity scores: R's glm to 1e-6, and refusals that name what separates the arms."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from whyprompt.errors import DataError, EstimationError
from whyprompt.stats import propensity
from whyprompt.stats.design import design_matrix
from whyprompt.stats.propensity import crossfit_propensity, fit_logistic


def test_the_score_is_that_of_glm(job, matchit):
    wanted = matchit["propensity"]
    assert job.fit.names[0] == "(Intercept)"
    assert [name.replace("_", "") for name in job.fit.names[1:]] == list(wanted["coef"])[1:]
    assert job.fit.coef == pytest.approx(list(wanted["coef"].values()), rel=1e-6)
    assert np.abs(job.score - wanted["fitted"]).max() < 1e-6
    assert np.abs(job.logit - wanted["linear"]).max() < 1e-6
    assert job.fit.log_likelihood == pytest.approx(wanted["loglik"], rel=1e-10)
    # glm reports errors from the weights of its last iteration but one; ours are those at the maximum.
    assert job.fit.std_error == pytest.approx(list(wanted["se"].values()), rel=1e-4)


def test_the_fit_is_the_maximum(job):
    residual = job.treated - job.score
    X = np.column_stack([np.ones(len(residual)), job.design.matrix])
    gradient = np.abs(X.T @ residual) / np.abs(X).sum(axis=0)
    assert gradient.max() < 1e-12


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(60, 300), p=st.integers(1, 4))
def test_the_fit_equals_statsmodels(seed, n, p):
    import statsmodels.api as sm

    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * rng.uniform(0.01, 100, size=p) + rng.normal(size=p) * 10
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    t = rng.random(n) < 1 / (1 + np.exp(-0.5 * z.sum(axis=1)))
    t[:2] = True, False
    try:
        fit = fit_logistic(X, t)
    except EstimationError:
        assume(False)  # separated: refused, and tested below
    # Its Newton steps are asked for more than rounding allows, so that it goes on to the maximum.
    model = sm.Logit(t.astype(float), sm.add_constant(X)).fit(
        disp=0, method="newton", tol=1e-14, maxiter=100, warn_convergence=False
    )
    assert fit.linear == pytest.approx(sm.add_constant(X) @ model.params, rel=1e-6, abs=1e-7)
    assert fit.std_error == pytest.approx(model.bse, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_score_does_not_depend_on_units_order_of_rows_or_copies(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(150, 3))
    t = rng.random(150) < 1 / (1 + np.exp(-X[:, 0]))
    t[:2] = True, False
    base = fit_logistic(X, t).fitted
    assert fit_logistic(X * [1e-6, 1.0, 1e6] + [1e-3, 0, -1e7], t).fitted == pytest.approx(base, rel=1e-7)
    order = rng.permutation(150)
    assert fit_logistic(X[order], t[order]).fitted == pytest.approx(base[order], rel=1e-9)
    assert fit_logistic(X, ~t).fitted == pytest.approx(1 - base, rel=1e-7)
    copied = fit_logistic(
        np.column_stack([X, X[:, 0] - X[:, 1], np.full(150, 4.0)]), t, names=["a", "b", "c", "d", "e"]
    )
    assert copied.dropped == ("d", "e")
    assert copied.fitted == pytest.approx(base, rel=1e-9)
    assert np.isnan(copied.std_error[4:]).all()


def test_equal_rows_have_equal_scores(job):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 3, size=(5000, 3)).astype(float)
    t = rng.random(5000) < 0.3
    score = fit_logistic(X, t).fitted
    assert len(np.unique(score)) == len(np.unique(X, axis=0))
    # The data set has 573 distinct scores in 614 rows; ties are where packages differ.
    assert len(np.unique(np.round(job.score, 12))) == 573


def test_a_large_table_starts_from_a_part_and_ends_at_the_same_maximum(monkeypatch):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(210_000, 3))
    t = rng.random(210_000) < 1 / (1 + np.exp(1.0 - X @ [0.5, -0.3, 0.2]))
    fast = fit_logistic(X, t)
    monkeypatch.setattr(propensity, "_warm_start", lambda *args: args[-1])
    slow = fit_logistic(X, t)
    assert fast.n_iterations < slow.n_iterations
    assert fast.coef == pytest.approx(slow.coef, rel=1e-9)
    assert np.abs(fast.coef - [-1.0, 0.5, -0.3, 0.2]).max() < 0.03


def test_separation_is_refused_with_the_column_that_separates():
    rng = np.random.default_rng(1)
    t = np.arange(60) < 20
    x = rng.normal(size=60)
    with pytest.raises(EstimationError, match="separated: age predicts"):
        fit_logistic(np.column_stack([x, np.where(t, 5.0, 1.0) + 0.1 * x]), t, names=["x", "age"])
    flag = np.where(t & (np.arange(60) < 5), 1.0, 0.0)
    with pytest.raises(EstimationError, match="separated: flag predicts"):
        fit_logistic(np.column_stack([x, flag]), t, names=["x", "flag"])
    together = np.column_stack([x, np.where(t, 0.5, -0.5) - x])
    with pytest.raises(EstimationError, match="u, v predict"):
        fit_logistic(together, t, names=["u", "v"])
    with pytest.raises(EstimationError, match="one arm is empty"):
        fit_logistic(x[:, None], np.ones(60, dtype=bool))


def test_the_coding_is_kept_for_another_table():
    made = design_matrix({"task": np.array(["b", "a", "c"], dtype=object), "n": np.array([1.0, 2.0, 3.0])})
    assert made.names == ("task_b", "task_c", "n")
    assert made.sources == ("task", "task", "n")
    again = design_matrix({"task": np.array(["c", "c"], dtype=object)}, levels=made.levels)
    assert again.names == ("task_b", "task_c")
    assert again.matrix.tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert design_matrix({"task": np.array(["a", "b"], dtype=object)}, reference={"task": "b"}).names == (
        "task_a",
    )
    full = design_matrix({"task": np.array(["b", "a", "c"], dtype=object)}, full=True)
    assert full.names == ("task_a", "task_b", "task_c")
    with pytest.raises(DataError, match="'task' has the level 'z'"):
        design_matrix({"task": np.array(["z"], dtype=object)}, levels=made.levels)
    with pytest.raises(DataError, match="reference level 'q' does not occur in column 'task'"):
        design_matrix({"task": np.array(["a"], dtype=object)}, reference={"task": "q"})


def test_crossfitting_predicts_rows_that_were_not_seen():
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(5)
    X = rng.normal(size=(400, 2))
    t = rng.random(400) < 1 / (1 + np.exp(-X[:, 0]))
    model = LogisticRegression(C=1e6)
    score = crossfit_propensity(X, t, model, n_folds=4)
    assert not hasattr(model, "coef_")
    assert np.abs(score - fit_logistic(X, t).fitted).max() < 0.1
    # A tree that remembers every row is right on all it saw, and gives 0 and 1 on the rest: refused.
    with pytest.raises(EstimationError, match="DecisionTreeClassifier gives"):
        crossfit_propensity(X, t, DecisionTreeClassifier(), n_folds=4)
    with pytest.raises(EstimationError, match="smaller has 2"):
        crossfit_propensity(X, np.arange(400) < 2, model)
