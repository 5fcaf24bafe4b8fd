"""Threads are limited where they cost more than they give, and are as before afterwards."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from effect_verbs import fit_arrays
from sklearn.dummy import DummyClassifier, DummyRegressor
from threadpoolctl import threadpool_info, threadpool_limits

from whyprompt import heterogeneous_effects
from whyprompt.errors import EstimationError
from whyprompt.stats.propensity import crossfit_propensity, fit_logistic
from whyprompt.stats.threads import one_blas_thread


def blas_threads():
    return {entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas"}


def openmp_threads():
    return {entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "openmp"}


SEEN = []


class Watching:
    """A model that notes how many threads it is given; the list is outside, as models are cloned."""

    def fit(self, X, y):
        SEEN.append(openmp_threads())
        return super().fit(X, y)


class WatchingRegressor(Watching, DummyRegressor):
    pass


class WatchingClassifier(Watching, DummyClassifier):
    pass


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
        with one_blas_thread(1_500):
            assert blas_threads() == {1}
        with ThreadPoolExecutor(4) as pool:
            fits = list(pool.map(lambda _: fit_logistic(X, t).coef, range(12)))
        assert all((fit == fits[0]).all() for fit in fits)
        assert blas_threads() == before
        with pytest.raises(EstimationError):
            fit_logistic(X, X[:, 0] > 0)
        assert blas_threads() == before


def test_models_fitted_fold_by_fold_do_not_wait_for_each_other_s_threads():
    """Beside other work boosted trees on two threads took 80 times as long as on one."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, 2))
    t = rng.random(200) < 0.5
    frame = pd.DataFrame({"x": X[:, 0], "z": X[:, 1], "arm": t, "y": t + rng.normal(size=200)})
    model = WatchingRegressor()
    doors = {
        "aipw": lambda: fit_arrays(
            frame.y.to_numpy(), t, X, method="aipw", estimand="ate", propensity="logit", outcome_model=model
        ),
        "score": lambda: crossfit_propensity(X, t, WatchingClassifier(strategy="prior")),
        "outcome": lambda: heterogeneous_effects(frame, **asked, outcome_model=model),
        "effect": lambda: heterogeneous_effects(frame, **asked, effect_model=model),
    }
    asked = {"treatment": "arm", "outcome": "y", "modifiers": ["x"], "confounders": ["z"]}
    with threadpool_limits(2, user_api="openmp"):
        assert openmp_threads() == {2}
        for name, door in doors.items():
            SEEN.clear()
            door()
            assert SEEN, name
            assert all(threads == {1} for threads in SEEN), name
            assert openmp_threads() == {2}, name


def test_the_first_trees_of_a_process_are_held_to_one_thread_too():
    """The library that brings the threads was loaded inside the limit, which did not reach it."""
    code = (
        "from whyprompt.stats.threads import one_openmp_thread\n"
        "with one_openmp_thread():\n"
        "    from sklearn.ensemble import HistGradientBoostingRegressor\n"
        "    from threadpoolctl import threadpool_info\n"
        "    print(sorted({e['num_threads'] for e in threadpool_info() if e['user_api'] == 'openmp'}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[1]"
