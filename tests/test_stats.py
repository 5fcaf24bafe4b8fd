"""Numbers out of arrays: what every method leans on, against other routes to the same figure."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import statsmodels.api as sm
from scipy import optimize, stats

from whyprompt.errors import DataError
from whyprompt.stats.clusters import cluster_sums, clustered_means, mean_df, mean_of_clusters
from whyprompt.stats.design import independent_columns, moments, standardised
from whyprompt.stats.errors import quantile
from whyprompt.stats.moved import moved_by
from whyprompt.stats.newton import maximise
from whyprompt.stats.regression import fit_multinomial, row_terms, softmax, solve_binary
from whyprompt.stats.several import sign_flips, step_down
from whyprompt.tables import open_table


def table(seed=0, n=200):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    return rng, x, (rng.random(n) < stats.norm.cdf(x @ [0.2, 0.8, -0.5])).astype(float)


@pytest.mark.parametrize("family", ["logit", "probit"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_maximum_of_a_binary_likelihood_is_that_of_a_search(family, weighted):
    rng, x, y = table()
    w = rng.uniform(0.2, 2.0, len(y)) if weighted else None
    coef, iterations = solve_binary(x, y, family, weights=w)
    law = stats.logistic if family == "logit" else stats.norm

    def loss(beta):
        return -((1.0 if w is None else w) * law.logcdf((2 * y - 1) * (x @ beta))).sum()

    assert 0 < iterations < 10
    assert coef == pytest.approx(optimize.minimize(loss, np.zeros(3), tol=1e-12).x, abs=1e-4)
    assert -(row_terms(family, x @ coef, y)[0] * (1.0 if w is None else w)).sum() == pytest.approx(loss(coef))


@pytest.mark.parametrize("family", ["logit", "probit"])
def test_slopes_and_curvatures_are_those_of_the_likelihood(family):
    eta, step = np.array([-30.0, -3.0, -0.4, 0.0, 0.7, 4.0, 30.0]), 1e-5
    for y in (np.zeros(7), np.ones(7)):
        value, slope, curve = row_terms(family, eta, y)
        ahead, behind = (row_terms(family, eta + s, y) for s in (step, -step))
        assert np.isfinite(value).all()
        assert slope == pytest.approx((ahead[0] - behind[0]) / (2 * step), rel=1e-5, abs=1e-8)
        assert curve == pytest.approx((behind[1] - ahead[1]) / (2 * step), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("family", ["logit", "probit"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_where_the_maximum_is_at_infinity_none_is_found(family, scale):
    """The likelihood stops rising long before the coefficients do: that is no convergence."""
    x = np.linspace(-1, 1, 40)
    design = np.column_stack([np.ones(40), scale * x])
    assert solve_binary(design, (x > 0).astype(float), family)[1] == 0
    # Separated but for one column: quasi-complete.
    design = np.column_stack([design, np.arange(40) < 3])
    assert solve_binary(design, (np.arange(40) % 2 == 0) | (np.arange(40) < 3), family)[1] == 0
    assert fit_multinomial(design[:, :2], np.digitize(x, [-0.3, 0.3]), 3) is None


def test_a_singular_information_is_no_maximum():
    _, x, y = table()
    assert solve_binary(np.column_stack([x, x[:, 1]]), y, "logit")[1] == 0
    assert not maximise(lambda theta: (0.0, np.ones(len(theta)), np.zeros((2, 2))), np.zeros(2))[3]


def test_a_step_that_leaves_the_domain_is_halved():
    """log(theta) - theta has its maximum at 1; a full step from 3 leads below 0."""

    def curve(theta):
        if theta[0] <= 0:
            return -np.inf, np.zeros(1), np.eye(1)
        return float(np.log(theta[0]) - theta[0]), 1 / theta - 1, np.array([[1 / theta[0] ** 2]])

    theta, _, _, converged = maximise(curve, np.array([3.0]))
    assert converged
    assert theta[0] == pytest.approx(1.0, rel=1e-12)


def test_two_levels_are_the_logit_and_weights_are_rows():
    rng, x, y = table()
    w = rng.integers(1, 4, len(y))
    coef, information = fit_multinomial(x, y.astype(int), 2, weights=w.astype(float))
    again, _ = solve_binary(np.repeat(x, w, axis=0), np.repeat(y, w), "logit")
    assert coef[0] == pytest.approx(again, rel=1e-9)
    share = softmax(x @ coef.T)[:, 1]
    assert information == pytest.approx((x * (w * share * (1 - share))[:, None]).T @ x, rel=1e-5)


def test_columns_that_others_determine_are_left_out_in_order():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50))
    X = np.column_stack([a, np.full(50, 3.1), 2 * a - 5, b, a + 1e6 * b, rng.normal(size=50)])
    assert independent_columns(X, *moments(X)) == [0, 3, 5]
    assert standardised(X, "abcdef").std(axis=0) == pytest.approx([1.0] * 3)


def test_the_error_of_a_mean_is_that_of_one_arm_and_of_equal_clusters_the_t_tests():
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(7), [1, 2, 2, 3, 5, 1, 9])
    d = rng.normal(size=len(codes)) + rng.normal(size=7)[codes]
    mean, error = mean_of_clusters(*cluster_sums(d[:, None], codes))
    _, sums, df = clustered_means(d, np.ones((len(d), 1), dtype=bool), np.ones(len(d)), codes)
    assert mean[0] == pytest.approx(d.mean())
    assert error[0] ** 2 == pytest.approx(float((sums**2).sum()), rel=1e-12)
    assert mean_df(np.bincount(codes).astype(float)) == pytest.approx(df(np.ones(1)), rel=1e-10)
    equal = rng.normal(size=24)
    mean, error = mean_of_clusters(*cluster_sums(equal[:, None], np.repeat(np.arange(8), 3)))
    by_cluster = stats.ttest_1samp(equal.reshape(8, 3).mean(axis=1), 0.0)
    assert mean[0] / error[0] == pytest.approx(by_cluster.statistic)
    assert mean_df(np.full(8, 3.0)) == by_cluster.df
    low, high = by_cluster.confidence_interval(0.9)
    assert mean[0] + quantile(0.9, 7) * error[0] * np.array([-1, 1]) == pytest.approx([low, high])


def test_random_sign_flips_are_counted_one_by_one():
    rng = np.random.default_rng(3)
    d = rng.exponential(size=(30, 3)) - [0.5, 0.8, 1.0]
    single, family, largest, total, exact = sign_flips(
        d, np.ones(30), draws=500, rng=np.random.default_rng(9)
    )
    signs = 2.0 * np.random.default_rng(9).integers(0, 2, (500, 30), dtype=np.int8) - 1.0

    def t(x):
        return np.abs(x.mean(axis=0)) / (x.std(axis=0, ddof=1) / np.sqrt(len(x)))

    drawn, own = np.array([t(d * s[:, None]) for s in signs]), t(d)
    assert (total, exact) == (500, False)
    assert largest == pytest.approx(drawn.max(axis=1))
    assert single == pytest.approx((1 + (drawn >= own).sum(axis=0)) / 501)
    assert family == pytest.approx(step_down(own, drawn))


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame])
def test_a_column_is_read_with_its_gaps_and_written_back_as_it_was(kind):
    frame = kind(
        {
            "x": [1.0, None, 3.0],
            "n": [1, 2, 3],
            "flag": [True, None, False],
            "text": ["a", None, "b"],
            "when": [pd.Timestamp("2026-01-01")] * 3,
        }
    )
    read = open_table(frame)
    x, flag, text = (read.column(name, role="a") for name in ("x", "flag", "text"))
    assert (x.kind, flag.kind, text.kind) == ("number", "boolean", "text")
    assert [c.missing.tolist() for c in (x, flag, text)] == [[False, True, False]] * 3
    assert flag.data.tolist()[::2] == [1.0, 0.0]
    assert text.levels == ("a", "b")
    with pytest.raises(DataError, match="1 missing value"):
        read.values("flag", role="a")
    assert np.isnan(read.numbers("x", role="a", gaps=True)).tolist() == [False, True, False]
    with pytest.raises(DataError, match="is text"):
        read.numbers("text", role="a", gaps=True)
    with pytest.raises(DataError, match="expected numbers, booleans or text"):
        read.column("when", role="a")
    made = read.written({"n": np.array([7.0, 8.0, 9.0]), "flag": np.array([1.0, 0.0, 1.0])})
    assert type(made) is type(frame)
    assert made["n"].to_list() == [7, 8, 9]
    assert made["n"].dtype == frame["n"].dtype
    assert made["flag"].to_list() == [True, False, True]
    assert frame["n"].to_list() == [1, 2, 3]
    assert type(read.rows(np.array([True, False, True]))) is type(frame)


def test_numbers_among_objects_are_numbers_and_an_index_that_repeats_is_no_matter():
    frame = pd.DataFrame({"x": [1, 2.5, True]}, dtype=object).set_index(np.array([5, 5, 0]))
    read = open_table(frame)
    assert read.values("x", role="a").tolist() == [1.0, 2.5, 1.0]
    made = read.written({"x": np.array([3.0, 2.0, 1.0])}, keep_types=False)
    assert made["x"].tolist() == [3.0, 2.0, 1.0]
    assert made.index.tolist() == [5, 5, 0]


def test_what_columns_that_say_nothing_move_has_the_error_that_is_given():
    rng = np.random.default_rng(4)
    shares = []
    for _ in range(300):
        x, z = rng.normal(size=(150, 1)), rng.integers(0, 20, 150)
        # Some of the arm hangs on them, and nothing of the outcome.
        treated = rng.random(150) < 1 / (1 + np.exp(-x[:, 0] - (z % 2)))
        y = (rng.random(150) < 1 / (1 + np.exp(-x[:, 0] - treated))).astype(float)
        made = moved_by(y, treated, x, (z[:, None] == np.arange(1, 20)).astype(float))
        assert not made.tells
        shares.append(made.move / made.error)
    assert np.mean(np.square(shares)) == pytest.approx(1, abs=0.2)
    assert np.mean(np.abs(shares) > 1.96) == pytest.approx(0.05, abs=0.03)


def test_a_column_by_which_the_outcome_spreads_moves_by_chance_too():
    """It tells of the arm and of how far outcomes lie apart, and nothing of where they lie."""
    rng = np.random.default_rng(0)
    beyond = []
    for _ in range(400):
        z = rng.normal(size=(300, 1))
        treated = rng.random(300) < 1 / (1 + np.exp(-z[:, 0]))
        y = 0.3 * treated + rng.normal(size=300) * (1 + np.abs(z[:, 0]))
        made = moved_by(y, treated, np.empty((300, 0)), z)
        beyond.append(abs(made.move) > 1.96 * made.error)
    assert np.mean(beyond) < 0.08


def test_what_is_moved_is_the_difference_of_two_regressions():
    rng = np.random.default_rng(1)
    x, z = rng.normal(size=(80, 2)), rng.normal(size=(80, 2))
    treated = x[:, 0] + z[:, 0] + rng.normal(size=80) > 0
    y = treated + x[:, 1] + z[:, 0] + rng.normal(size=80)
    made = moved_by(y, treated, x, z)
    fits = [sm.OLS(y, np.column_stack([treated, np.ones(80), x, *more])).fit() for more in ((), (z,))]
    assert made.move == pytest.approx(fits[1].params[0] - fits[0].params[0])
    # Of both the error is that of the larger regression: with alike residuals, or with the rows' own.
    spread = [fit.bse[0] ** 2 / fit.scale * fits[1].scale for fit in fits]
    weights = [np.linalg.pinv(fit.model.exog)[0] for fit in fits]
    own = float(fits[1].resid ** 2 @ (weights[1] - weights[0]) ** 2) * 80 / fits[1].df_resid
    assert made.error == pytest.approx(np.sqrt(max(spread[1] - spread[0], own)))
    assert made.df == pytest.approx(fits[1].df_resid)
    # What tells the arm, or is as many columns as rows, leaves nothing to compare.
    assert moved_by(y, treated, x, treated[:, None] + 0.01 * z[:, :1]).tells
    assert moved_by(y, treated, x, rng.normal(size=(80, 78))).tells
    rest = np.linalg.svd(np.column_stack([np.ones(80), treated]))[0][:, 2:]
    assert moved_by(y, treated, x[:, :0], rest).tells
