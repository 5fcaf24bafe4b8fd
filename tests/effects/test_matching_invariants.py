"""The invariants of every matched set, for every method, on random tables (ties and small arms included)."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from whyprompt import estimate_effect
from whyprompt.effects.methods.cem import match_cem
from whyprompt.effects.methods.full import match_full
from whyprompt.effects.methods.kernel import match_kernel
from whyprompt.effects.methods.matching import caliper_width, common_support
from whyprompt.effects.methods.nearest import match_mahalanobis, match_nearest
from whyprompt.effects.methods.optimal import match_optimal
from whyprompt.effects.methods.subclass import match_subclass
from whyprompt.errors import EstimationError

# Every way to match, as a function of the columns of a table. `tie_rank` identifies rows.
WAYS = {
    "largest": lambda c, t, **o: match_nearest(c["score"], t, tie_rank=c["id"], **o),
    "smallest": lambda c, t, **o: match_nearest(c["score"], t, order="smallest", tie_rank=c["id"], **o),
    "closest": lambda c, t, **o: match_nearest(c["score"], t, order="closest", tie_rank=c["id"], **o),
    "data": lambda c, t, **o: match_nearest(c["score"], t, order="data", tie_rank=c["id"], **o),
    "atc": lambda c, t, **o: match_nearest(c["score"], t, estimand="atc", tie_rank=c["id"], **o),
    "two": lambda c, t, **o: match_nearest(c["score"], t, ratio=2, tie_rank=c["id"], **o),
    "replace": lambda c, t, **o: match_nearest(c["score"], t, replace=True, tie_rank=c["id"], **o),
    "replace_first": lambda c, t, **o: match_nearest(
        c["score"], t, replace=True, ties="first", ratio=2, tie_rank=c["id"], **o
    ),
    "replace_ate": lambda c, t, **o: match_nearest(
        c["score"], t, replace=True, estimand="ate", ratio=3, tie_rank=c["id"], **o
    ),
    "average": lambda c, t, **o: match_nearest(c["score"], t, replace=True, ties="average", **o),
    "mahalanobis": lambda c, t, **o: match_mahalanobis(
        np.column_stack([c["score"], c["other"]]), t, score=c["score"], tie_rank=c["id"], **o
    ),
    "mahalanobis_ties": lambda c, t, **o: match_mahalanobis(
        np.column_stack([c["score"], c["other"]]),
        t,
        score=c["score"],
        metric="sample",
        replace=True,
        ties="average",
        estimand="ate",
        **o,
    ),
    "optimal": lambda c, t, **o: match_optimal(t, score=c["score"], **o),
    "full": lambda c, t, **o: match_full(t, score=c["score"], **o),
    "full_ate": lambda c, t, **o: match_full(t, score=c["score"], estimand="ate", **o),
}
WITHOUT_CALIPER = {
    "kernel": lambda c, t, **o: match_kernel(c["score"], t, bandwidth=0.7, **o),
    "kernel_ate": lambda c, t, **o: match_kernel(
        c["score"], t, kernel="gaussian", estimand="ate", bandwidth=0.3, **o
    ),
    "biweight": lambda c, t, **o: match_kernel(
        c["score"], t, kernel="biweight", bandwidth=0.7, estimand="atc", **o
    ),
    "subclass": lambda c, t, **o: match_subclass(c["score"], t, n_strata=3, **o),
    "subclass_ate": lambda c, t, **o: match_subclass(
        c["score"], t, n_strata=4, estimand="ate", one_sided="merge", **o
    ),
}
# These take limits on other columns as well.
WITH_LIMITS = ("largest", "closest", "two", "replace", "mahalanobis", "mahalanobis_ties", "optimal", "full")
# With ties these are free to choose, and choose by the order of rows.
FREE_IN_TIES = ("optimal", "full", "full_ate", "subclass")
RATIO = {
    "kernel": None,
    "kernel_ate": None,
    "biweight": None,
    "two": 2,
    "replace_first": 2,
    "replace_ate": 3,
    "average": None,
    "mahalanobis_ties": None,
}


def table(seed, n, *, tied):
    rng = np.random.default_rng(seed)
    other = rng.normal(size=n)
    score = 0.5 * other + rng.normal(size=n)
    if tied:
        score, other = np.round(2 * score) / 2, np.round(other)
    treated = rng.random(n) < 1 / (1 + np.exp(1.0 - score))
    treated[:2] = True, False
    return {
        "score": score,
        "other": other,
        "group": rng.integers(0, 2, size=n),
        "id": rng.permutation(n),
    }, treated


tables = {"seed": st.integers(0, 10**6), "n": st.integers(8, 70), "tied": st.booleans()}


@settings(max_examples=300, deadline=None)
@given(
    way=st.sampled_from(sorted(WAYS | WITHOUT_CALIPER)),
    caliper=st.none() | st.floats(0.05, 1.5),
    limit=st.none() | st.floats(0.2, 2.0),
    exact=st.booleans(),
    discard=st.sampled_from(["none", "treated", "control", "both"]),
    **tables,
)
def test_every_matched_set_keeps_what_was_asked(checker, way, caliper, limit, exact, discard, seed, n, tied):
    columns, treated = table(seed, n, tied=tied)
    options, widths = {}, []
    try:
        discarded = common_support(columns["score"], treated, rule=discard)
    except EstimationError:
        assume(False)
    if way in WAYS and caliper is not None:
        options["caliper"] = caliper
        widths.append((columns["score"], caliper))
    if way in WITH_LIMITS and limit is not None:
        options["limits"] = [(columns["other"], limit)]
        widths.append((columns["other"], limit))
    if exact:
        options["strata"] = columns["group"]
    try:
        matched = (WAYS | WITHOUT_CALIPER)[way](columns, treated, discarded=discarded, **options)
    except EstimationError as error:
        # Nothing within reach, or too few rows for so many subclasses: said, not estimated.
        assert str(error)  # noqa: PT017 - the set does not exist
        assume(False)
    checker.check_matched_set(
        matched,
        treated,
        widths=widths if matched.method != "kernel" else [],
        exact=[columns["group"]] if exact else [],
        ratio=RATIO.get(way, 1),
        discarded=discarded,
    )


@settings(max_examples=120, deadline=None)
@given(way=st.sampled_from(sorted(WAYS | WITHOUT_CALIPER)), caliper=st.booleans(), **tables)
def test_permuting_the_rows_permutes_the_result(checker, way, caliper, seed, n, tied):
    columns, treated = table(seed, n, tied=tied and way not in FREE_IN_TIES)
    if way == "data":
        # Here the order of the identifier is the order in which rows choose.
        columns["score"] = columns["score"] + 1e-3 * columns["id"]
    options = {"caliper": 0.5} if caliper and way in WAYS else {}
    try:
        (WAYS | WITHOUT_CALIPER)[way](columns, treated, **options)
    except EstimationError:
        assume(False)
    checker.check_permutation(
        lambda c, t: (WAYS | WITHOUT_CALIPER)[way](c, t, **options), columns, treated, seed=seed
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(10, 80), cuts=st.integers(1, 5))
def test_coarsened_exact_matching(checker, seed, n, cuts):
    columns, treated = table(seed, n, tied=False)
    data = {
        "score": columns["score"],
        "other": columns["other"],
        "text": np.array(["ab"[g] for g in columns["group"]], dtype=object),
    }
    rules = {"score": cuts, "other": [0.0]}
    try:
        matched = match_cem(data, treated, cutpoints=rules, estimand="ate")
    except EstimationError:
        assume(False)
    bins = match_cem.__globals__["coarsen"](data["score"], cuts)
    checker.check_matched_set(matched, treated, exact=[bins, data["other"] >= 0, data["text"]])
    checker.check_permutation(lambda c, t: match_cem(c, t, cutpoints=rules, estimand="ate"), data, treated)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(6, 60))
def test_routes_that_must_agree(seed, n):
    columns, treated = table(seed, n, tied=False)
    score, group = columns["score"], columns["group"]
    nearest = match_nearest(score, treated, replace=True)
    brute = np.abs(score[treated][:, None] - score[~treated])
    assert (nearest.focal == np.flatnonzero(treated)).all()
    assert (nearest.other == np.flatnonzero(~treated)[brute.argmin(axis=1)]).all()
    # One covariate's Mahalanobis distance is the distance on it.
    by_covariate = match_mahalanobis(score[:, None], treated, replace=True)
    assert (by_covariate.other == nearest.other).all()
    # A limit on the score is a caliper; a caliper that binds nowhere is none; strata split the table.
    for replace in (True, False):
        try:
            by_caliper = match_nearest(score, treated, replace=replace, caliper=0.4)
        except EstimationError:
            continue
        by_limit = match_nearest(score, treated, replace=replace, limits=[(score, 0.4)])
        assert sorted(zip(by_caliper.focal, by_caliper.other, strict=True)) == sorted(
            zip(by_limit.focal, by_limit.other, strict=True)
        )
    wide = match_nearest(score, treated, caliper=1e6)
    free = match_nearest(score, treated)
    assert (wide.other == free.other).all()
    try:
        split = match_nearest(score, treated, strata=group)
    except EstimationError:
        assume(False)
    parts = []
    for code in (0, 1):
        rows = np.flatnonzero(group == code)
        if treated[rows].any() and not treated[rows].all():
            part = match_nearest(score[rows], treated[rows])
            parts += list(zip(rows[part.focal], rows[part.other], strict=True))
    assert sorted(parts) == sorted(zip(split.focal, split.other, strict=True))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(6, 40), tied=st.booleans())
def test_greedy_without_replacement_equals_a_loop_over_all_candidates(seed, n, tied):
    columns, treated = table(seed, n, tied=tied)
    score = np.round(columns["score"], 12)
    matched = match_nearest(score, treated, caliper=0.8) if n > 20 else None
    assume(matched is not None)
    order = np.lexsort((np.arange(n), score))
    place = np.empty(n, dtype=int)
    place[order] = np.arange(n)
    free = set(np.flatnonzero(~treated).tolist())
    found = {}
    rows = np.flatnonzero(treated)
    for row in rows[np.argsort(-score[rows], kind="stable")]:
        ranked = sorted(
            free,
            key=lambda j: (abs(score[j] - score[row]), abs(place[j] - place[row]), place[j] > place[row]),
        )
        if ranked and abs(score[ranked[0]] - score[row]) <= 0.8:
            found[int(row)] = ranked[0]
            free.discard(ranked[0])
    assert found == dict(zip(matched.focal.tolist(), matched.other.tolist(), strict=True))


@pytest.mark.parametrize(
    ("way", "beside"),
    [(way, None) for way in WAYS] + [(way, limit) for way in WITH_LIMITS for limit in (1e9, 5.0)],
)
def test_a_pair_at_exactly_the_caliper_is_within_it(way, beside):
    """In whole numbers, which have no rounding: two rows 2 apart, and two 3 apart."""
    treated = np.array([True, False, True, False])
    columns = {
        "score": np.array([0.0, 2.0, 100.0, 97.0]),
        "other": np.array([0.0, 5.0, 1.0, 6.0]),
        "id": np.arange(4),
    }

    def used(caliper, limit):
        limits = {} if limit is None else {"limits": [(columns["other"], limit)]}
        return (WAYS[way](columns, treated, caliper=caliper, **limits).weights > 0).tolist()

    assert used(2.0, beside) == [True, True, False, False]
    assert used(3.0, beside) == [True] * 4
    with pytest.raises(EstimationError, match=r"nothing|no "):
        used(np.nextafter(2.0, 0.0), beside)
    if beside == 5.0:
        with pytest.raises(EstimationError, match=r"nothing|no "):
            used(3.0, np.nextafter(5.0, 0.0))


METHODS = [
    {"method": "nearest", "tie_break": "item"},
    {"method": "nearest", "tie_break": "item", "caliper": 0.3, "exact": ["task"]},
    {"method": "nearest", "replace": True, "ties": "average"},
    {
        "method": "nearest",
        "replace": True,
        "tie_break": "item",
        "estimand": "ate",
        "std_error": "wild_bootstrap",
    },
    {"method": "nearest", "distance": "mahalanobis", "tie_break": "item"},
    {"method": "optimal"},
    {"method": "full"},
    {"method": "full", "estimand": "ate", "caliper": 0.5},
    {"method": "kernel"},
    {"method": "subclass"},
    {"method": "cem", "cutpoints": {"x": 3, "z": 3}},
    {"method": "ipw"},
    {"method": "overlap"},
    {"method": "entropy"},
]


@pytest.mark.parametrize("options", METHODS, ids=lambda o: "-".join(map(str, o.values())))
def test_frames_indexes_and_row_order(checker, options):
    rng = np.random.default_rng(8)
    n = 160
    x = rng.normal(size=n)
    task = rng.choice(["code", "math"], size=n)
    arm = rng.random(n) < 1 / (1 + np.exp(0.7 - 0.5 * x - 0.3 * (task == "math")))
    frame = pd.DataFrame(
        {
            "item": [f"q{i:03d}" for i in rng.permutation(n)],
            "arm": np.where(arm, "few", "direct"),
            "x": x,
            "z": rng.normal(size=n),
            "task": task,
            "score": x + arm + rng.normal(size=n),
        }
    )

    def estimate(data):
        return estimate_effect(
            data,
            treatment="arm",
            outcome="score",
            confounders=["x", "z", "task"],
            treated="few",
            **options,
        )

    if options.get("std_error") == "wild_bootstrap":
        # Its signs are drawn row by row, so the error moves with the rows; the estimate does not.
        first = estimate(frame)
        shuffled = frame.sample(frac=1.0, random_state=1)
        assert estimate(shuffled).estimate == pytest.approx(first.estimate, rel=1e-9)
        return
    checker.check_frame(estimate, frame, outcome="score")


def test_what_cannot_be_matched_is_refused():
    score = np.array([0.1, 0.2, 0.3, 0.9])
    t = np.array([True, False, False, False])
    for call, message in [
        (lambda: match_nearest(score, t, caliper=0.01), "found no pair"),
        (lambda: match_nearest(score, t, estimand="ate"), "needs replacement"),
        (lambda: match_nearest(score, t, ratio=0), "at least one match"),
        (lambda: match_nearest(score, t, ties="average"), "defined with replace=True"),
        (lambda: match_nearest(score, t, replace=True, ties="best"), "tie rule 'best'"),
        (
            lambda: match_nearest(score, t, replace=True, ties="first", limits=[(score, 1.0)]),
            "further calipers",
        ),
        (lambda: match_nearest(score, t, order="up"), "order 'up'"),
        (lambda: match_mahalanobis(score[:, None], t, caliper=0.1), "needs a propensity score"),
        (lambda: match_mahalanobis(score[:, None], t, metric="L2"), "metric 'L2'"),
        (lambda: match_mahalanobis(score[:, None], t, order="closest"), "on a score only"),
        (lambda: match_mahalanobis(np.ones((4, 1)), t), "do not vary"),
        (lambda: match_optimal(t, score=score, estimand="ate"), "the ATT or the ATC"),
        (lambda: match_optimal(t), "one of the two"),
        (lambda: match_full(t), "one of the two"),
        (lambda: match_full(t, score=score, caliper=0.01), "found no pair"),
        (lambda: match_kernel(score, t, kernel="box"), "kernel 'box'"),
        (lambda: match_kernel(score, t, bandwidth=-1.0), "positive number"),
        (lambda: match_kernel(score, t, bandwidth=0.01), "found no pair"),
        (lambda: match_subclass(score, t, n_strata=0), "at least one"),
        (lambda: match_subclass(score, ~t, n_strata=3), "ask for fewer subclasses"),
        (lambda: match_subclass(score, t, one_sided="drop"), "one_sided 'drop'"),
        (lambda: match_cem({}, t), "at least one covariate"),
        (lambda: common_support(score, t, rule="all"), "rule 'all'"),
        (
            lambda: common_support(np.array([0.0, 0.5, 0.6, 0.7]), t, rule="treated"),
            "no treated row",
        ),
        (lambda: caliper_width(0.0, score), "must be a positive number"),
        (lambda: caliper_width(0.1, score, unit="cm"), "unit 'cm'"),
    ]:
        with pytest.raises(EstimationError, match=message):
            call()


def test_what_would_be_ignored_is_refused(simulated):
    data = simulated(5, 120)
    frame = pd.DataFrame({"t": data.treated, "y": data.y, "a": data.x[:, 0], "b": data.x[:, 1]})
    frame["group"] = np.where(np.arange(120) % 2, "u", "v")
    asked = {"treatment": "t", "outcome": "y", "confounders": ["a", "b"]}
    for options, message in [
        ({"method": "ipw", "exact": ["group"]}, "exact columns have no meaning for method 'ipw'"),
        ({"method": "kernel", "covariate_calipers": {"a": 1.0}}, "calipers on covariates"),
        ({"method": "subclass", "distance": "mahalanobis"}, "Mahalanobis distance has no meaning"),
        ({"method": "kernel", "caliper": 0.2}, "a caliper has no meaning"),
    ]:
        with pytest.raises(EstimationError, match=message):
            estimate_effect(frame, **asked, **options)
    # Exact columns split the strata of coarsened exact matching as well.
    for method in ("cem", "nearest", "optimal", "full", "subclass", "kernel"):
        result = estimate_effect(frame, **asked, method=method, exact=["group"])
        matched, group = result.matched, frame["group"].to_numpy()
        if matched.n_pairs:
            assert (group[matched.focal] == group[matched.other]).all()
        else:
            for code in range(int(matched.stratum.max()) + 1):
                assert len(set(group[matched.stratum == code])) == 1


def test_crump_trimming_and_support_are_described():
    rng = np.random.default_rng(4)
    x = rng.normal(size=400) * 2
    arm = rng.random(400) < 1 / (1 + np.exp(-x))
    frame = pd.DataFrame({"arm": arm, "x": x, "y": x + arm + rng.normal(size=400)})
    for rule in ("both", "crump"):
        asked = {"method": "nearest", "discard": rule, "caliper": 0.2}
        result = estimate_effect(frame, treatment="arm", outcome="y", confounders=["x"], **asked)
        assert result.settings["n_discarded"] > 0
        assert result.matched.discarded.sum() == result.settings["n_discarded"]
        assert not (result.weights[result.matched.discarded] > 0).any()
        assert any("rows are not used" in w for w in result.warnings)
