"""BLAS is limited while a large fit runs and is as before afterwards, from many threads as well."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from whyprompt.effects._threads import one_blas_thread
from whyprompt.effects.propensity import fit_logistic
from whyprompt.errors import EstimationError


def blas_threads():
    return {entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas"}


def test_the_limit_is_lifted_after_nested_parallel_and_failing_use():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30_000, 2))
    t = rng.random(30_000) < 1 / (1 + np.exp(-X[:, 0]))
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with one_blas_thread(10**6), one_blas_thread(10**6):
            assert blas_threads() == {1}
        assert blas_threads() == before
        with one_blas_thread(100):
            assert blas_threads() == before
        with ThreadPoolExecutor(4) as pool:
            fits = list(pool.map(lambda _: fit_logistic(X, t).coef, range(12)))
        assert all((fit == fits[0]).all() for fit in fits)
        assert blas_threads() == before
        with pytest.raises(EstimationError):
            fit_logistic(X, X[:, 0] > 0)
        assert blas_threads() == before
