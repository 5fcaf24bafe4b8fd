"""Worst-case bounds against every way to fill the gaps."""

import itertools

import numpy as np
import pytest

from whyprompt.effects.gaps.bounds import missing_items, missing_rows


def filled(y):
    gaps = np.flatnonzero(np.isnan(y))
    for values in itertools.product((0.0, 1.0), repeat=len(gaps)):
        whole = y.copy()
        whole[gaps] = values
        yield whole


@pytest.mark.parametrize("seed", range(6))
def test_bounds_of_items_are_the_extremes_of_all_fills(seed):
    rng = np.random.default_rng(seed)
    item = np.repeat(np.arange(5), 4)
    treated = np.tile([True, True, False, False], 5)
    y = (rng.random(20) < 0.5).astype(float)
    y[rng.choice(20, 6, replace=False)] = np.nan
    every = []
    for whole in filled(y):
        means = [[whole[(item == k) & (treated == side)].mean() for k in range(5)] for side in (True, False)]
        every.append(np.mean(means[0]) - np.mean(means[1]))
    found = missing_items(item, treated, y)
    assert (found.low, found.high) == pytest.approx((min(every), max(every)))
    order = rng.permutation(20)
    assert missing_items(item[order], treated[order], y[order]) == found
    turned = missing_items(item, ~treated, y)
    assert (turned.low, turned.high, turned.p) == pytest.approx((-found.high, -found.low, found.p))


def test_bounds_of_rows_are_the_extremes_of_all_fills():
    rng = np.random.default_rng(1)
    treated = rng.random(20) < 0.4
    y = (rng.random(20) < 0.5).astype(float)
    y[rng.choice(20, 5, replace=False)] = np.nan
    every = [whole[treated].mean() - whole[~treated].mean() for whole in filled(y)]
    found = missing_rows(treated, y, drawn=True)
    assert (found.low, found.high) == pytest.approx((min(every), max(every)))


def test_items_that_an_arm_never_ran_count_or_not():
    item, treated = np.array([0, 0, 1, 1, 2]), np.array([True, False, True, False, True])
    y = np.array([1.0, 0.0, 1.0, 1.0, 1.0])
    found = missing_items(item, treated, y)
    assert (found.control, found.low, found.high) == (1, pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert missing_items(item, treated, y, absent=False) is None
    assert missing_items(item, treated, y * 3).low is None
