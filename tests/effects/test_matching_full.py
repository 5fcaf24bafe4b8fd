"""Full and optimal pair matching, and the moves that fill a one-sided subclass, solved in other ways."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whyprompt.effects.methods.full import match_full, matrix_cover
from whyprompt.effects.methods.line import line_cover, line_pairs
from whyprompt.effects.methods.nearest import match_nearest
from whyprompt.effects.methods.optimal import match_optimal
from whyprompt.effects.methods.subclass import match_subclass
from whyprompt.errors import EstimationError


def least_cover(cost):
    """Find the least edge cover as a linear program (integral: the graph is bipartite)."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    m, k = cost.shape
    finite = np.isfinite(cost)
    rows, columns = np.nonzero(finite)
    pair = np.arange(len(rows))
    ones = np.ones(2 * len(rows))
    cover = csr_array((ones, (np.append(rows, m + columns), np.append(pair, pair))), shape=(m + k, len(rows)))
    needed = np.concatenate([finite.any(axis=1), finite.any(axis=0)]).astype(float)
    return linprog(cost[finite], A_ub=-cover, b_ub=-needed, bounds=(0, None), method="highs").fun


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), m=st.integers(1, 12), k=st.integers(1, 12), tied=st.booleans())
def test_a_cover_is_the_cheapest(seed, m, k, tied):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=m), rng.normal(size=k) + rng.normal()
    if tied:
        a, b = np.round(a), np.round(b)
    cost = np.abs(a[:, None] - b)
    wanted = least_cover(cost)
    for i, j in (matrix_cover(cost), line_cover(a, b)):
        assert set(i.tolist()) == set(range(m))
        assert set(j.tolist()) == set(range(k))
        assert cost[i, j].sum() == pytest.approx(wanted, abs=1e-9)
    free = rng.random((m, k))
    free[rng.random((m, k)) < 0.5] = np.inf
    i, j = matrix_cover(free)
    assert np.isfinite(free[i, j]).all()
    wanted = least_cover(free) if np.isfinite(free).any() else 0.0
    assert free[i, j].sum() == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(4, 40),
    tied=st.booleans(),
    caliper=st.none() | st.floats(0.05, 1.0),
    split=st.booleans(),
    limited=st.booleans(),
)
def test_full_matching_is_optimal_under_its_restrictions(checker, seed, n, tied, caliper, split, limited):
    rng = np.random.default_rng(seed)
    score, other = rng.normal(size=n), rng.normal(size=n)
    score = np.round(score, 1 if tied else 12)
    treated = rng.random(n) < 0.4
    treated[:2] = True, False
    strata = rng.integers(0, 2, size=n) if split else None
    limits = [(other, 1.0)] if limited else []
    cost = np.abs(score[treated][:, None] - score[~treated])
    if caliper is not None:
        cost[cost > caliper] = np.inf
    if split:
        cost[strata[treated][:, None] != strata[~treated]] = np.inf
    if limited:
        cost[np.abs(other[treated][:, None] - other[~treated]) > 1.0] = np.inf
    options = {"caliper": caliper, "strata": strata, "limits": limits}
    if not np.isfinite(cost).any():
        with pytest.raises(EstimationError, match="found no pair"):
            match_full(treated, score=score, **options)
        return
    matched = match_full(treated, score=score, **options)
    assert matched.settings["total_distance"] == pytest.approx(least_cover(cost), abs=1e-8)
    checker.check_matched_set(matched, treated, exact=[strata] if split else [])
    reachable = np.zeros(n, dtype=bool)
    reachable[treated] = np.isfinite(cost).any(axis=1)
    reachable[~treated] = np.isfinite(cost).any(axis=0)
    assert ((matched.weights > 0) == reachable).all()


def test_full_matching_on_covariates_and_for_each_estimand(job, checker):
    for estimand in ("att", "atc", "ate"):
        matched = match_full(job.treated, X=job.full.matrix, estimand=estimand)
        checker.check_matched_set(matched, job.treated, every_focal_row=True)
    on_score = match_full(job.treated, score=job.score)
    checker.check_matched_set(on_score, job.treated, every_focal_row=True)
    # No matching of all rows can be nearer than every row's own nearest counterpart.
    gap = np.abs(job.score[job.treated][:, None] - job.score[~job.treated])
    total = on_score.settings["total_distance"]
    assert max(gap.min(axis=0).sum(), gap.min(axis=1).sum()) <= total + 1e-9
    assert total <= gap.min(axis=0).sum() + gap.min(axis=1).sum()
    assert total == pytest.approx(least_cover(gap), rel=1e-9)


def test_full_matching_of_many_rows_takes_no_matrix():
    rng = np.random.default_rng(0)
    score = rng.normal(size=100_000)
    treated = rng.random(100_000) < 1 / (1 + np.exp(1 - score))
    start = time.process_time()
    matched = match_full(treated, score=score)
    assert time.process_time() - start < 20
    assert (matched.weights > 0).all()
    with pytest.raises(EstimationError, match=r"full matching of .* needs .* distances"):
        match_full(treated, X=np.column_stack([score, score**2]))


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    m=st.integers(1, 10),
    spare=st.integers(0, 12),
    ratio=st.integers(1, 3),
    tied=st.booleans(),
)
def test_pairs_on_a_line_are_the_cheapest_assignment(seed, m, spare, ratio, tied):
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=m) + rng.normal(), rng.normal(size=m * ratio + spare)
    if tied:
        a, b = np.round(a), np.round(b)
    cost = np.repeat(np.abs(a[:, None] - b), ratio, axis=0)
    wanted = cost[linear_sum_assignment(cost)].sum()
    i, j = line_pairs(a, b, ratio)
    assert np.bincount(i, minlength=m).tolist() == [ratio] * m
    assert len(set(j.tolist())) == m * ratio
    assert np.abs(a[i] - b[j]).sum() == pytest.approx(wanted, abs=1e-9)
    assert (np.diff(b[j]) >= 0).all()


def test_optimal_pairs_of_many_rows_take_no_matrix():
    rng = np.random.default_rng(0)
    score = rng.normal(size=100_000)
    treated = rng.random(100_000) < 1 / (1 + np.exp(2 - score))
    greedy = match_nearest(score, treated)
    start = time.process_time()
    best = match_optimal(treated, score=score)
    assert time.process_time() - start < 20
    assert best.n_pairs == greedy.n_pairs == treated.sum()
    totals = [np.abs(score[m.focal] - score[m.other]).sum() for m in (best, greedy)]
    assert totals[0] < totals[1]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), m=st.integers(1, 4), k=st.integers(4, 6), caliper=st.none() | st.just(0.6))
def test_optimal_pairs_are_the_best_of_all(seed, m, k, caliper):
    rng = np.random.default_rng(seed)
    score = rng.normal(size=m + k)
    treated = np.arange(m + k) < m
    limit = np.inf if caliper is None else caliper
    best = (0, 0.0)
    for others in itertools.permutations(range(m, m + k), m):
        gaps = [abs(score[i] - score[j]) for i, j in enumerate(others)]
        kept = [g for g in gaps if g <= limit]
        best = min(best, (-len(kept), sum(kept)))
    if best[0] == 0:
        with pytest.raises(EstimationError, match="found no pair"):
            match_optimal(treated, score=score, caliper=caliper)
        return
    matched = match_optimal(treated, score=score, caliper=caliper)
    gaps = np.abs(score[matched.focal] - score[matched.other])
    assert (gaps <= limit).all()
    assert matched.n_pairs == -best[0]
    assert gaps.sum() == pytest.approx(best[1], abs=1e-9)
    doubled = match_optimal(treated, X=np.column_stack([score, rng.normal(size=m + k)]), ratio=k // m)
    assert len(set(doubled.other.tolist())) == doubled.n_pairs == m * (k // m)


def test_a_one_sided_subclass_gets_a_row_as_in_matchit():
    """MatchIt's `subclass_scootC`, worked by hand: controls 2, 0, 1 in three subclasses."""
    score = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.12, 0.18, 0.55])
    treated = np.arange(9) < 6
    # Subclasses of the treated: [0.1, 0.267), [0.267, 0.433), [0.433, 0.6]. The middle one has no control;
    # the first has one to spare, the last none, so the nearest control of the first, 0.18, moves up.
    matched = match_subclass(score, treated, n_strata=3)
    assert matched.stratum.tolist() == [0, 0, 1, 1, 2, 2, 0, 1, 2]
    merged = match_subclass(score, treated, n_strata=3, one_sided="merge")
    assert merged.stratum.tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 1]
    assert merged.settings["n_strata"] == 2
    # Nothing moves where nothing is missing.
    full = np.append(score, 0.35)
    arm = np.append(treated, False)
    assert match_subclass(full, arm, n_strata=3).stratum.tolist() == [0, 0, 1, 1, 2, 2, 0, 0, 2, 1]
