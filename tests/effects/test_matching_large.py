"""Matching without a list of pairs or a matrix: equal to the search through all, and fast."""

import time

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linear_sum_assignment

from whyprompt import estimate_effect
from whyprompt.effects.methods import kernel as kernels
from whyprompt.effects.methods.kernel import match_kernel
from whyprompt.effects.methods.line import line_pairs_within
from whyprompt.effects.methods.optimal import match_optimal
from whyprompt.effects.methods.smoother import window_sums
from whyprompt.effects.methods.variance import abadie_imbens


def drawn(seed, n):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    score = 1 / (1 + np.exp(-(1.2 * x - 0.7)))
    t = rng.random(n) < score
    # Some scores are tied.
    score = np.where(rng.random(n) < 0.1, np.round(score, 2), score)
    return np.clip(score, 0.001, 0.999), t, x + t + rng.normal(size=n) + 100.0, x


@pytest.mark.parametrize("power", [1, 2, 4])
def test_window_sums_are_the_sums_over_pairs(power):
    rng = np.random.default_rng(power)
    of, at = np.sort(rng.normal(size=400) * 3), np.sort(rng.normal(size=300) * 4)
    values = rng.normal(size=400)
    u = at[:, None] - of
    wanted = (np.maximum(1 - u**2, 0.0) ** power) @ values
    assert window_sums(of, values, at, power) == pytest.approx(wanted, abs=1e-11)
    assert (window_sums(of[:0], values[:0], at, power) == 0).all()


@pytest.mark.parametrize("estimand", ["att", "atc", "ate"])
@pytest.mark.parametrize("kernel", ["epanechnikov", "biweight"])
@pytest.mark.parametrize("strata", [0, 3])
def test_kernels_by_running_sums_are_kernels_by_pairs(monkeypatch, estimand, kernel, strata):
    score, t, y, x = drawn(1, 1500)
    codes = np.random.default_rng(2).integers(0, strata, 1500) if strata else None
    asked = {"estimand": estimand, "kernel": kernel, "strata": codes}
    monkeypatch.setattr(kernels, "_LISTED", 10**9)
    listed = match_kernel(score, t, **asked)
    monkeypatch.setattr(kernels, "_LISTED", 0)
    summed = match_kernel(score, t, **asked)
    assert listed.n_pairs > 0 == summed.n_pairs
    assert (summed.is_focal == listed.is_focal).all()
    assert summed.weights == pytest.approx(listed.weights, rel=1e-9, abs=1e-12)
    for power in (1, 2):
        assert summed.received(power) == pytest.approx(listed.received(power), rel=1e-8, abs=1e-12)
    assert summed.average(y) == pytest.approx(listed.average(y), rel=1e-11)
    X = np.column_stack([x, x**2])
    for options in ({}, {"adjust": X}, {"adjust": X, "neighbours": 0}, {"adjust": X, "implied": True}):
        found, wanted = (abadie_imbens(y, t, m, score=score, **options) for m in (summed, listed))
        assert found == pytest.approx(wanted, rel=1e-10)


def test_rows_put_aside_leave_the_matches_of_a_kernel_where_they_are(monkeypatch):
    score, t, y, x = drawn(3, 400)
    frame = pd.DataFrame({"arm": np.where(t, "b", "c"), "y": y, "x": x, "score": score})
    asked = {"treatment": "arm", "outcome": "y", "confounders": ["x"], "treated": "b", "control": "c"}
    asked |= {"method": "kernel", "cluster": "none"}
    third = pd.DataFrame({"arm": "a", "y": 0.0, "x": 0.0, "score": 0.5}, index=range(50))
    whole = pd.concat([third, frame], ignore_index=True)
    listed = estimate_effect(whole, **asked)
    monkeypatch.setattr(kernels, "_LISTED", 0)
    summed = estimate_effect(whole, **asked)
    assert (summed.estimate, summed.std_error) == pytest.approx((listed.estimate, listed.std_error), rel=1e-9)
    assert summed.matched.received() == pytest.approx(listed.matched.received(), rel=1e-8, abs=1e-12)
    assert not summed.matched.is_focal[:50].any()


def test_a_row_whose_window_weighs_little_is_summed_exactly():
    score = np.concatenate([np.linspace(0.4, 0.6, 40_000), [0.299_999_9, 0.9]])
    t = np.zeros(len(score), dtype=bool)
    t[1:10_000:2] = True
    t[-2:] = True
    y = np.arange(len(score), dtype=float)
    summed = match_kernel(score, t, bandwidth=0.1 + 1e-6)
    assert summed.kernel is not None
    far = len(score) - 2
    u = (score[far] - score) / (0.1 + 1e-6)
    weight = np.where(~t, np.maximum(1 - u**2, 0.0), 0.0)
    assert summed.average(y)[far] == pytest.approx(weight @ y / weight.sum(), rel=1e-9)
    assert not summed.is_focal[-1]


@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("rounded", [False, True])
def test_optimal_pairs_within_a_caliper_are_those_of_the_assignment_problem(ratio, rounded):
    rng = np.random.default_rng(ratio + 10 * rounded)
    for _ in range(150):
        a, b = (np.clip(rng.beta(2, k, rng.integers(1, 14)), 0.01, 0.99) for k in (3, 5))
        if rounded:
            a, b = np.clip(np.round(a, 1), 0.05, 0.95), np.clip(np.round(b, 1), 0.05, 0.95)
        values = np.log(a / (1 - a)), np.log(b / (1 - b))
        width = rng.choice([0.05, 0.3, 1.0, np.inf])
        i, j = line_pairs_within(a, b, values, width, ratio)
        assert len(set(j.tolist())) == len(j)
        assert np.bincount(i, minlength=1).max() <= ratio
        place = np.repeat(np.arange(len(a)), ratio)
        cost = np.abs(a[place][:, None] - b)
        allowed = np.abs(values[0][place][:, None] - values[1]) <= width
        priced = np.where(allowed, cost, 2.0 * (len(place) + len(b)))
        r, c = linear_sum_assignment(priced)
        kept = allowed[r, c]
        assert len(i) == kept.sum()
        assert np.abs(a[i] - b[j]).sum() == pytest.approx(cost[r[kept], c[kept]].sum(), abs=1e-9)


def test_large_tables_are_matched_in_seconds():
    score, t, _, _ = drawn(5, 200_000)
    logit = np.log(score / (1 - score))
    begun = time.process_time()
    match_kernel(score, t)
    match_optimal(t, score=score, caliper=(logit, 0.2 * logit.std()))
    assert time.process_time() - begun < 20
