"""Squares, fifths and products of covariates: what they show of an estimate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import RidgeCV

from whyprompt import estimate_effect
from whyprompt.effects.assumptions import hangs_on_one, judge_overlap
from whyprompt.effects.methods import learners
from whyprompt.stats.left_over import Terms, left_over
from whyprompt.stats.propensity import SeparatedError


def world(n=1500, *, seed=0, bent=1.0, coin=False):
    """Give a table whose arm and outcome go by a square and a product, by no line; the effect is 1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    curve = bent * ((x[:, 0] ** 2 - 1) + x[:, 1] * x[:, 2])
    chance = np.full(n, 0.5) if coin else 1 / (1 + np.exp(-0.35 * curve))
    arm = rng.random(n) < chance
    y = arm + x[:, 3] + curve + rng.normal(size=n)
    return pd.DataFrame(x, columns=list("abcd")).assign(arm=arm.astype(int), y=y)


def found(frame, **options):
    return estimate_effect(frame, treatment="arm", outcome="y", confounders=list("abcd"), **options)


def statuses(result):
    return {a.name: a.status for a in result.assumptions}


@pytest.mark.parametrize("method", ["ipw", "entropy", "nearest", "overlap", "full", "subclass"])
def test_what_lines_do_not_balance_is_seen_and_not_claimed(method):
    result = found(world(), method=method)
    assert result.estimate > 1.2
    assert statuses(result)["balance"] == "fails"
    assert "may therefore not be claimed" in result.sentence
    detail = next(a.detail for a in result.assumptions if a.name == "balance")
    assert "times its standard error" in detail


@pytest.mark.parametrize("method", ["ipw", "entropy", "nearest", "overlap", "full", None])
def test_a_coin_leaves_nothing_to_be_seen(method):
    failed = [
        statuses(found(world(seed=seed, coin=True), method=method))["balance"] == "fails" for seed in range(8)
    ]
    assert sum(failed) <= 1


def test_the_default_says_how_far_it_rests_on_curves():
    bent = found(world())
    assert abs(bent.estimate - 1) < 3 * bent.std_error
    assert statuses(bent)["functional form"] == "doubtful"
    plain = found(world(bent=0.0))
    assert statuses(plain)["functional form"] == "holds"
    drawn = found(world(coin=True), design="randomized")
    assert "functional form" not in statuses(drawn)
    asked = found(world(), method="aipw", propensity="logit", outcome_model="linear")
    assert "functional form" not in statuses(asked)
    assert statuses(asked)["balance"] == "fails"


def sharp(n, seed):
    """Arm and outcome go by signs of three columns at once, which few rows teach; the effect is 1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    curve = np.sign(x[:, 0] * x[:, 1] * x[:, 2]) - np.abs(x[:, 3])
    arm = rng.random(n) < 1 / (1 + np.exp(-curve))
    y = arm + 2 * curve + rng.normal(size=n)
    return pd.DataFrame(x, columns=list("abcd")).assign(arm=arm.astype(int), y=y)


def test_an_estimate_that_moves_with_the_rows_it_learns_from_is_not_claimed():
    few = found(sharp(4_000, 1))
    assert abs(few.estimate - 1) > 2 * few.std_error
    assert statuses(few)["functional form"] == "fails"
    assert "half as many to learn from would have" in few.sentence
    assert "may therefore not be claimed" in few.sentence
    assert "overlap weights" not in few.sentence


def test_what_was_learned_well_does_not_move():
    statuses_of = [statuses(found(world(3_000, seed=seed)))["functional form"] for seed in range(4)]
    assert "fails" not in statuses_of
    assert "doubtful" in statuses_of


def test_rows_whose_half_has_lines_alone_are_not_held_to_them():
    """Of 900 rows an arm's half is below those that curves are learned from: a difference of learners."""
    result = found(world(900), estimand="ate")
    assert abs(result.estimate - 1) < 2 * result.std_error
    (form,) = (a for a in result.assumptions if a.name == "functional form")
    assert (form.status, "half as many" in form.detail) == ("doubtful", False)


def test_half_as_many_rows_are_those_of_two_folds_of_the_four_others():
    from whyprompt.effects.estimate import estimated
    from whyprompt.effects.methods.aipw import AIPW
    from whyprompt.effects.methods.folds import learned_from

    tests = [np.arange(20) % 5 == k for k in range(5)]
    halves = learned_from(tests, fewer=True)
    assert [int(train.sum()) for train in halves] == [8] * 5
    assert not any((train & test).any() for train, test in zip(halves, tests, strict=True))
    assert len({train.tobytes() for train in halves}) == 5
    many = learned_from([np.arange(600_000) % 3 == k for k in range(3)], fewer=True)
    assert all(80_000 < train.sum() <= 100_000 for train in many)
    asked = {"treatment": "arm", "outcome": "y", "confounders": list("abcd")}
    done = estimated(world(400), method=AIPW(folds=2), **asked)
    assert done.fit.from_fewer is None
    # Lines that are known by hundreds of rows are known by half of them.
    done = estimated(world(2_000, bent=0.0), method=AIPW(outcome_model="linear"), **asked)
    moved = done.fit.from_fewer() - done.fit.estimate
    assert 0 < abs(moved) < done.fit.std_error


def test_half_of_the_rows_that_tell_the_arms_apart_refuse_nothing(monkeypatch):
    """The check is of an estimate that could be had."""
    frame, asked = world(), {"method": "aipw", "propensity": "logit"}
    whole = found(frame, **asked)
    assert "half as many" in next(a.detail for a in whole.assumptions if a.name == "functional form")
    fitted = learners.fit_logistic

    def of_many(X, treated, **options):
        if len(treated) < 1_000:
            raise SeparatedError("the rest of the rows tells the arms apart")
        return fitted(X, treated, **options)

    monkeypatch.setattr(learners, "fit_logistic", of_many)
    checked = found(frame, **asked)
    assert checked.estimate == whole.estimate
    (form,) = (a for a in checked.assumptions if a.name == "functional form")
    assert form.status == "doubtful"
    assert "half as many" not in form.detail


def test_known_chances_make_the_estimate_right_whatever_was_learned():
    frame = world(1_000)
    frame["chance"] = 1 / (1 + np.exp(-0.35 * ((frame.a**2 - 1) + frame.b * frame.c)))
    assert "functional form" in statuses(found(frame))
    assert "functional form" not in statuses(found(frame, propensity="chance"))


def test_a_product_of_columns_that_tell_nothing_alone_is_learned():
    from whyprompt.effects.methods.curved import Curved

    rng = np.random.default_rng(0)
    x = rng.normal(size=(2_000, 12))
    y = x[:, 0] + x[:, 1] ** 2 + 0.5 * x[:, 10] * x[:, 11] + x[:, 2:9].sum(axis=1) + rng.normal(size=2_000)
    made = Curved(x, y)
    more = set(zip(made.first.tolist(), made.second.tolist(), strict=True))
    assert (10, 11) in more
    assert len(more) == 28 + 1
    # Long tails of columns and outcomes show none that is not there.
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(800, 12))
        x[:, 5] = np.exp(x[:, 5])
        assert len(Curved(x, np.exp(x[:, 0]) + rng.standard_t(3, size=800)).first) == 28


def test_straight_lines_are_those_of_least_squares_in_each_arm():
    from whyprompt.effects.checks.curves import by_lines
    from whyprompt.effects.estimate import estimated

    frame = world(400)
    done = estimated(frame, treatment="arm", outcome="y", confounders=list("abcd"), estimand="att")
    got = by_lines(done.problem, done.plan, done.fit)
    X = np.column_stack([np.ones(400), frame[list("abcd")]])
    arm, y = frame["arm"].to_numpy() == 1, frame["y"].to_numpy()
    beta = np.linalg.lstsq(X[~arm], y[~arm], rcond=None)[0]
    assert got == pytest.approx((y[arm] - X[arm] @ beta).mean(), abs=1e-10)


def test_terms_are_summed_as_they_are_written():
    rng = np.random.default_rng(3)
    X = np.column_stack([rng.normal(size=(300, 3)), rng.integers(0, 2, 300), rng.integers(0, 4, 300)])
    residual, signed = rng.normal(size=300), rng.normal(size=300)
    terms = Terms.of(X, residual)
    assert terms.columns(X).shape[1] == 5 + 4 + 10 + 3 * 4
    np.testing.assert_allclose(terms.sums(X, signed), signed @ terms.columns(X), atol=1e-10)


def test_what_is_left_is_that_of_a_ridge_regression():
    rng = np.random.default_rng(5)
    X = rng.normal(size=(500, 3))
    residual = X[:, 0] ** 2 + X[:, 1] * X[:, 2] + rng.normal(size=500)
    weights, wanted = (X[:, 0] > 0).astype(float), np.exp(X[:, 1])
    columns = Terms.of(X[weights > 0], residual[weights > 0]).columns(X)
    scaled = columns / columns[weights > 0].std(axis=0)
    ridge = RidgeCV(alphas=10.0 ** np.arange(0, 6, 0.5)).fit(scaled[weights > 0], residual[weights > 0])
    signed = wanted / wanted.sum() - weights / weights.sum()
    # Generalised cross-validation here, leaving out one there.
    assert left_over(X, residual, weights, wanted)[0] == pytest.approx(signed @ scaled @ ridge.coef_, rel=0.1)
    # It is in the units of the outcome, and does not see those of the covariates.
    twice = np.array(left_over(X * 7 + 3, 2 * residual + 5, weights, wanted))
    np.testing.assert_allclose(twice, 2 * np.array(left_over(X, residual, weights, wanted)), rtol=1e-6)


@pytest.mark.parametrize(
    ("reach", "estimand", "status"),
    [
        (0.0, "att", "holds"),
        (150.0, "att", "holds"),
        (250.0, "att", "doubtful"),
        (700.0, "att", "fails"),
        (700.0, "ato", "holds"),
    ],
)
def test_a_few_rows_without_a_counterpart_count_for_more_where_rows_are_many(reach, estimand, status):
    """Half a percent of the treated had hardly a chance: little in a wide interval, much in a narrow one."""
    treated = np.arange(4000) < 2000
    score = np.where(treated, np.where(np.arange(4000) < 10, 0.995, 0.5), np.linspace(0.0, 0.995, 4000))
    found = judge_overlap(
        score,
        treated,
        estimand=estimand,
        weights=np.ones(4000),
        discarded=np.zeros(4000, dtype=bool),
        ess=(2000.0, 2000.0),
        reach=reach,
    )
    assert found.status == status
    assert ("standard errors" in found.detail) == (status != "holds")


def test_a_row_hangs_heavy_by_its_share_and_by_the_number_of_rows():
    assert hangs_on_one([(0.09, 500), (0.1, 500)]) == ""
    assert hangs_on_one([(0.09, 500), (0.24, 500)]) == "one row carries 24% of the weight of its arm"
    # Of ten rows each has a tenth.
    assert hangs_on_one([(0.3, 10)]) == ""
