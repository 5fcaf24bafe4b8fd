"""An instrument: linearmodels' figures, closed forms, invariances, and coverage where it is weak.

The figures were made with linearmodels 7.1 on tests/reference/lalonde.csv (numbers like any others):
``IV2SLS(f.re78, f[["one", "age", "educ", "re74"]], f.treat, f.married).fit(cov_type="robust",
debiased=True)``, the same with ``cov_type="clustered", clusters=f.age``; the first stage is
``.first_stage.individual["treat"]``. The t of Anderson and Rubin is that of ``married`` in
``IV2SLS(f.re78 - effect * f.treat, f[["one", "age", "educ", "re74", "married"]], None, None)``, robust.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from whyprompt import CausalGraph, estimate_effect
from whyprompt.errors import DataError, EstimationError, GraphError
from whyprompt.stats.errors import quantile
from whyprompt.stats.instruments import anderson_rubin, on_instrument, ratio_error

LALONDE = Path(__file__).parents[1] / "reference" / "lalonde.csv"
ASKED = {
    "treatment": "treat",
    "outcome": "re78",
    "design": "instrument",
    "instrument": "married",
    "confounders": ["age", "educ", "re74"],
}


@pytest.fixture(scope="module")
def lalonde():
    return pd.read_csv(LALONDE)


def assigned(n=600, *, seed=0, effect=1.0, pull=1.2):
    """Give rows whose prompt follows a lot in part, and for the rest what also moves the outcome."""
    rng = np.random.default_rng(seed)
    hidden, x = rng.normal(size=(2, n))
    lot = rng.integers(0, 2, n)
    used = pull * lot + 0.7 * hidden + rng.normal(size=n) > 0.5 * pull
    frame = pd.DataFrame(
        {"lot": np.where(lot == 1, "cot", "direct"), "used": np.where(used, "cot", "direct")}
    )
    frame["x"], frame["user"] = x, np.arange(n) // 5
    frame["y"] = effect * used + hidden + 0.5 * x + rng.normal(size=n)
    return frame


LOT = {"treatment": "used", "outcome": "y", "treated": "cot", "control": "direct"}
LOT |= {"design": "instrument", "instrument": "lot", "cluster": "none"}


@pytest.mark.parametrize(
    ("cluster", "error", "first_error"),
    [("none", 2885.8276775983695, 0.04116977669450844), ("age", 2500.4202507951754, 0.05091149643308969)],
)
def test_estimate_errors_and_first_stage_are_those_of_linearmodels(lalonde, cluster, error, first_error):
    found = estimate_effect(lalonde, **ASKED, cluster=cluster)
    assert found.estimate == pytest.approx(-2756.255538243821, rel=1e-9)
    assert found.std_error == pytest.approx(error, rel=1e-9)
    assert found["first_stage"] == pytest.approx(-0.2302430109072136, rel=1e-9)
    assert found["first_stage_f"] == pytest.approx((0.2302430109072136 / first_error) ** 2, rel=1e-9)
    assert found.df == (609 if cluster == "none" else lalonde.age.nunique() - 1)


@pytest.mark.parametrize(
    ("effect", "t"), [(-1e4, -2.118751240487971), (0, 0.9787436487472909), (1e4, 3.9241796937518285)]
)
def test_the_accepted_effects_are_those_of_the_regression_on_the_instrument(lalonde, effect, t):
    """The interval at the level of linearmodels' own t has an end at that effect."""
    from scipy import stats

    level = 1 - 2 * stats.t.sf(abs(t), 609)
    found = estimate_effect(lalonde, **ASKED, cluster="none", level=level)
    assert min(abs(found.ci_low - effect), abs(found.ci_high - effect)) < 1e-4
    if effect == 0:
        assert found.p_value == pytest.approx(1 - level, rel=1e-9)


def test_without_covariates_it_is_walds_ratio():
    frame = assigned()
    up = frame.lot == "cot"
    used = frame.used == "cot"
    wald = (frame.y[up].mean() - frame.y[~up].mean()) / (used[up].mean() - used[~up].mean())
    found = estimate_effect(frame, **LOT)
    assert found.estimate == pytest.approx(wald, rel=1e-12)
    assert found["first_stage"] == pytest.approx(used[up].mean() - used[~up].mean(), rel=1e-12)


def test_rows_levels_shifts_and_scales_change_what_they_should():
    frame = assigned()
    base = estimate_effect(frame, **LOT, confounders=["x"])
    ends = (base.estimate, base.std_error, base.ci_low, base.ci_high)

    def same(made, by=1.0):
        got = (made.estimate, made.std_error, made.ci_low, made.ci_high)
        np.testing.assert_allclose(got, by * np.array(ends), rtol=1e-8)

    same(estimate_effect(frame.sample(frac=1, random_state=1), **LOT, confounders=["x"]))
    same(estimate_effect(frame.assign(y=frame.y + 100), **LOT, confounders=["x"]))
    same(estimate_effect(frame.assign(y=frame.y * 3), **LOT, confounders=["x"]), 3.0)
    same(estimate_effect(frame.assign(lot=np.where(frame.lot == "cot", -4.0, 7.0)), **LOT, confounders=["x"]))
    same(estimate_effect(frame.assign(x=5 - 2 * frame.x), **LOT, confounders=["x"]))
    swapped = estimate_effect(frame, **{**LOT, "treated": "direct", "control": "cot"}, confounders=["x"])
    assert swapped.estimate == pytest.approx(-base.estimate, rel=1e-9)
    assert (swapped.ci_low, swapped.ci_high) == pytest.approx((-base.ci_high, -base.ci_low), rel=1e-9)
    # One cluster a row is no cluster, but for HC1's and CR1's own factors.
    rows = estimate_effect(
        frame.assign(row=np.arange(len(frame))), **{**LOT, "cluster": "row"}, confounders=["x"]
    )
    assert rows.std_error == pytest.approx(base.std_error, rel=2e-3)


@pytest.mark.parametrize(("pull", "fails"), [(0.03, True), (1.0, False)])
def test_anderson_rubin_covers_where_2sls_does_not(pull, fails):
    """Coverage of 95% intervals over 1,500 samples of 200 rows: Monte Carlo error .006."""
    rng = np.random.default_rng(5)
    draws, n, truth = 1_500, 200, 0.0
    hits = np.zeros(2)
    unbounded = 0
    for _ in range(draws):
        hidden, z = rng.normal(size=n), rng.integers(0, 2, n).astype(float)
        d = (pull * z + hidden > 0.5 * pull).astype(float)
        y = truth * d + 2.0 * hidden + 0.1 * rng.normal(size=n)
        coef, covariance, df = on_instrument(y, d, z, np.empty((n, 0)), None)
        reach = quantile(0.95, df)
        kind, low, high = anderson_rubin(coef, covariance, reach)
        inside = low <= truth <= high
        hits[0] += inside if kind == "interval" else not inside if kind == "outside" else True
        unbounded += kind != "interval"
        estimate, error = coef[0] / coef[1], ratio_error(coef, covariance)
        hits[1] += abs(estimate - truth) <= reach * error
    covered = hits / draws
    assert abs(covered[0] - 0.95) < 0.018
    if fails:
        assert covered[1] < 0.9
        assert unbounded > 0.8 * draws
    else:
        assert abs(covered[1] - 0.95) < 0.02
        assert unbounded < 5


def test_clusters_are_covered():
    """The lot is dealt to users of ten rows; without their clusters the interval is too short."""
    rng = np.random.default_rng(8)
    hits = np.zeros(2)
    for _ in range(600):
        user = np.repeat(np.arange(50), 10)
        lot, own = rng.integers(0, 2, 50)[user].astype(float), rng.normal(size=50)[user]
        hidden = rng.normal(size=500)
        d = (1.5 * lot + hidden > 0.75).astype(float)
        y = d + own + hidden
        for k, codes in enumerate((user, None)):
            coef, covariance, df = on_instrument(y, d, lot, np.empty((500, 0)), codes)
            _, low, high = anderson_rubin(coef, covariance, quantile(0.95, df))
            hits[k] += low <= 1 <= high
    covered = hits / 600
    assert abs(covered[0] - 0.95) < 0.03
    assert covered[1] < 0.75


def test_the_sentence_says_what_is_bounded_and_what_is_assumed():
    found = estimate_effect(assigned(3_000), **LOT)
    assert "rows whose arm follows 'lot'" in found.sentence
    assert "makes no row do the opposite" in found.sentence
    assert [a.name for a in found.assumptions][:4] == [
        "relevance",
        "independence",
        "exclusion",
        "monotonicity",
    ]
    assert {a.name: a.status for a in found.assumptions}["relevance"] == "holds"
    weak = estimate_effect(assigned(200, pull=0.02, seed=3), **LOT)
    assert weak["first_stage_f"] < 10
    assert "weak instrument" in " ".join(weak.warnings)
    assert weak["accepted"] != "interval"
    assert "too weak in these rows to bound" in weak.sentence
    assert weak.ci_low == -np.inf
    assert json.loads(json.dumps(weak.to_dict()))["ci_low"] is None
    assert weak.plot().to_dict()["layer"]


def test_covariates_that_differ_over_the_instrument_are_told():
    frame = assigned(2_000)
    frame["old"] = frame.x + (frame.lot == "cot")
    found = estimate_effect(frame, **LOT, confounders=["old"])
    held = {a.name: a for a in found.assumptions}["independence"]
    assert held.status == "doubtful"
    assert "old" in held.detail
    assert "That is doubtful" in found.sentence
    assert found["balance_by_instrument"]["old"] > 0.5


def test_a_graph_says_whether_it_is_an_instrument_and_given_what():
    frame = assigned()
    found = estimate_effect(
        frame, **LOT, graph=CausalGraph.parse("x -> lot, y; lot -> used; used -> y; used <-> y")
    )
    assert found.confounders == ("x",)
    with pytest.raises(GraphError, match="no instrument"):
        estimate_effect(frame, **LOT, graph=CausalGraph.parse("lot -> used, y; used -> y; used <-> y"))
    with pytest.raises(GraphError, match="only given x"):
        estimate_effect(
            frame,
            **LOT,
            confounders=["user"],
            graph=CausalGraph.parse("x -> lot, y; lot -> used; used -> y; used <-> y; user -> y"),
        )


@pytest.mark.parametrize(
    ("change", "options", "error", "text"),
    [
        ({}, {"instrument": None}, EstimationError, "needs instrument="),
        ({}, {"instrument": "lott"}, DataError, "did you mean 'lot'"),
        ({}, {"instrument": "used"}, EstimationError, "is the treatment; it cannot be the instrument"),
        ({"lot": "cot"}, {}, EstimationError, "instrument 'lot' is constant"),
        ({"lot": lambda f: f.used}, {}, EstimationError, "equals treatment 'used'"),
        ({"lot": lambda f: np.arange(len(f)).astype(str)}, {}, DataError, "has 600 levels"),
        (
            {"lot": lambda f: f.x * 2 + 1},
            {"confounders": ["x"]},
            EstimationError,
            "determined by the confounders",
        ),
        ({"used": lambda f: np.resize(["a", "b", "c"], len(f))}, {}, DataError, "has 3 levels"),
        (
            {
                "lot": lambda f: (np.arange(len(f)) // 2) % 2,
                "used": lambda f: np.resize(["cot", "direct"], len(f)),
            },
            {},
            EstimationError,
            "does not move 'used' at all",
        ),
        ({"y": 1.0}, {}, EstimationError, "outcome 'y' is constant"),
        ({"one": "same"}, {"cluster": "one"}, EstimationError, "cluster column 'one' has one value"),
        ({}, {"method": "ipw"}, EstimationError, "method= has no meaning with design='instrument'"),
        ({}, {"estimand": "att"}, EstimationError, "estimand= has no meaning with design='instrument'"),
        ({}, {"std_error": "bootstrap"}, EstimationError, "std_error= has no meaning"),
        ({}, {"caliper": 0.2}, EstimationError, "caliper= has no meaning"),
        ({}, {"by": "x"}, EstimationError, "by= has no meaning"),
        ({}, {"outcome": ["y", "x"]}, EstimationError, "one outcome"),
        ({}, {"confounders": ["lot"]}, EstimationError, "it cannot be a confounder as well"),
        (
            {},
            {"design": "randomized"},
            EstimationError,
            "instrument= has no meaning with design='randomized'",
        ),
        ({}, {"level": 1.5}, EstimationError, "the level is 1.5"),
    ],
)
def test_bad_input_is_named(change, options, error, text):
    frame = assigned()
    for name, value in change.items():
        frame[name] = value(frame) if callable(value) else value
    with pytest.raises(error, match=text):
        estimate_effect(frame, **{**LOT, **options})
