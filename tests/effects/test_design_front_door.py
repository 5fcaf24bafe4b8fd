"""A front door: Pearl's formula by counting, statsmodels, the jackknife, coverage amid hidden confounding."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from whyprompt import CausalGraph, estimate_effect
from whyprompt.effects.designs.front_door import _effect
from whyprompt.errors import DataError, EstimationError, GraphError

ASKED = {"treatment": "arm", "treated": "cot", "control": "direct", "outcome": "y", "design": "front_door"}
ASKED |= {"cluster": "none"}


def hidden(n=800, seed=0, *, effect=1.0):
    """Give rows whose arm and outcome share what nobody measured; the arm works through its steps alone."""
    rng = np.random.default_rng(seed)
    u, x = rng.normal(size=(2, n))
    arm = rng.random(n) < 1 / (1 + np.exp(-u - 0.5 * x))
    steps = 1.0 * arm + 0.4 * x + rng.normal(size=n)
    kind = np.where(steps > 1, "long", np.where(steps > 0, "short", "none"))
    frame = pd.DataFrame({"arm": np.where(arm, "cot", "direct"), "x": x, "steps": steps, "kind": kind})
    frame["user"] = np.arange(n) // 4
    frame["y"] = effect * steps + u + 0.5 * x + 0.3 * rng.normal(size=n)
    frame["z"] = effect * (kind == "long") + u + 0.3 * rng.normal(size=n)
    return frame


def by_counting(frame, mediator, outcome):
    """Pearl (1995), equation 12: the sum over m of P(m | a) times the sum over a' of E[y | a', m] P(a')."""
    share = frame.arm.value_counts(normalize=True)
    mean = frame.groupby(["arm", mediator])[outcome].mean()
    chance = frame.groupby("arm")[mediator].value_counts(normalize=True)
    levels = frame[mediator].unique()
    risk = {
        a: sum(chance[a, m] * sum(mean[b, m] * share[b] for b in share.index) for m in levels)
        for a in ("cot", "direct")
    }
    return risk["cot"] - risk["direct"]


def test_levels_are_pearls_formula():
    frame = hidden()
    found = estimate_effect(frame, **{**ASKED, "outcome": "z"}, mediators=["kind"])
    assert found.estimate == pytest.approx(by_counting(frame, "kind", "z"), rel=1e-10)
    assert found["plain_difference"] == pytest.approx(
        frame.z[frame.arm == "cot"].mean() - frame.z[frame.arm == "direct"].mean()
    )
    # A number of two values is one of two levels.
    flag = frame.assign(kind=(frame.kind == "long").astype(int))
    two = estimate_effect(flag, **{**ASKED, "outcome": "z"}, mediators="kind")
    assert two.estimate == pytest.approx(by_counting(flag, "kind", "z"), rel=1e-10)


def test_numbers_are_the_product_of_statsmodels_coefficients():
    frame = hidden().assign(a=lambda f: (f.arm == "cot").astype(float))
    found = estimate_effect(frame, **ASKED, mediators="steps", confounders=["x"])
    first = smf.ols("steps ~ a + x", frame).fit()
    second = smf.ols("y ~ a * steps + x", frame).fit()
    slope = second.params["steps"] + frame.a.mean() * second.params["a:steps"]
    assert found.estimate == pytest.approx(first.params["a"] * slope, rel=1e-10)
    part = found.part("steps")
    assert part.estimate == pytest.approx(first.params["a"], rel=1e-10)
    robust = smf.ols("steps ~ a + x", frame).fit(cov_type="HC0")
    assert part.std_error == pytest.approx(robust.bse["a"], rel=5e-3)


@pytest.mark.parametrize("cluster", ["none", "user"])
def test_the_error_is_that_of_leaving_out_rows_or_clusters(cluster):
    frame = hidden(300, seed=2)
    found = estimate_effect(frame, **{**ASKED, "cluster": cluster}, mediators=["steps"], confounders=["x"])
    groups = np.arange(300) if cluster == "none" else frame.user.to_numpy()
    values = np.array([_effect(*_arrays(frame[groups != g]), ["steps"])[0] for g in np.unique(groups)])
    g = len(values)
    assert found.std_error == pytest.approx(
        np.sqrt((g - 1) / g * ((values - values.mean()) ** 2).sum()), rel=0.03
    )


def _arrays(frame):
    a = (frame.arm == "cot").to_numpy(float)
    return frame.y.to_numpy(), a, frame[["steps"]].to_numpy(), frame[["x"]].to_numpy()


@pytest.mark.parametrize("mediator", ["steps", "kind"])
def test_it_covers_where_the_plain_difference_fails(mediator):
    """95% intervals of 300 rows amid hidden confounding, over 600 samples: Monte Carlo error .009."""
    big = hidden(400_000, seed=99)
    arm = big.arm == "cot"
    # Without the shared cause the effect on y is 1, and on z the change in the share that is long.
    rng = np.random.default_rng(0)
    share = big.x * 0.4 + rng.normal(size=len(big))
    truth = 1.0 if mediator == "steps" else float((share + 1 > 1).mean() - (share > 1).mean())
    assert arm.any()
    hits, fooled, draws = 0, 0, 600
    for seed in range(draws):
        frame = hidden(300, seed=seed)
        y = (frame.y if mediator == "steps" else frame.z).to_numpy()
        a = (frame.arm == "cot").to_numpy(float)
        columns = pd.get_dummies(frame.kind)[["long", "short"]] if mediator == "kind" else frame[["steps"]]
        value, influence, _, q = _effect(y, a, columns.to_numpy(float), frame[["x"]].to_numpy(), ["m", "l"])
        error = np.sqrt((influence[:, 0] ** 2).sum() * 300 / (300 - q))
        hits += abs(value - truth) <= 1.97 * error
        gap = y[a == 1].mean() - y[a == 0].mean()
        spread = np.sqrt(y[a == 1].var() / a.sum() + y[a == 0].var() / (1 - a).sum())
        fooled += abs(gap - truth) > 1.97 * spread
    assert abs(hits / draws - 0.95) < 0.03
    assert fooled / draws > 0.9


def test_rows_names_shifts_and_scales_change_what_they_should():
    frame = hidden()
    base = estimate_effect(frame, **ASKED, mediators=["steps", "kind"], confounders=["x"])

    def same(made, by=1.0):
        got = (made.estimate, made.std_error)
        np.testing.assert_allclose(got, (by * base.estimate, abs(by) * base.std_error), rtol=1e-8)

    more = {"mediators": ["kind", "steps"], "confounders": ["x"]}
    same(estimate_effect(frame.sample(frac=1, random_state=1), **ASKED, **more))
    same(estimate_effect(frame.assign(y=5 - 2 * frame.y), **ASKED, **more), -2.0)
    same(estimate_effect(frame.assign(steps=5 - 2 * frame.steps), **ASKED, **more))
    same(estimate_effect(frame, **ASKED, **more, base_levels={"kind": "short"}))
    same(estimate_effect(frame, **{**ASKED, "treated": "direct", "control": "cot"}, **more), -1.0)


def test_a_graph_gives_the_front_door_or_refuses_it():
    frame = hidden()
    graph = CausalGraph.parse("arm -> kind -> z; arm <-> z")
    asked = {**ASKED, "outcome": "z"}
    found = estimate_effect(frame, **asked, graph=graph)
    assert found.settings["mediators"] == ["kind"]
    assert found.estimate == estimate_effect(frame, **asked, mediators=["kind"]).estimate
    with pytest.raises(GraphError, match="steps is no front door"):
        estimate_effect(frame, **asked, graph=graph, mediators=["steps"])
    with pytest.raises(GraphError, match="no front door"):
        estimate_effect(frame, **asked, graph=CausalGraph.parse("arm -> kind -> z; arm -> z; arm <-> z"))


def test_what_is_doubtful_is_said():
    frame = hidden(2_000, seed=1)
    bent = estimate_effect(frame.assign(y=frame.steps**2 + frame.y), **ASKED, mediators="steps")
    assert {a.name: a.status for a in bent.assumptions}["form"] == "doubtful"
    assert "Form is doubtful" in bent.sentence
    straight = estimate_effect(frame, **ASKED, mediators="steps", confounders=["x"])
    assert {a.name: a.status for a in straight.assumptions}["form"] == "holds"
    assert "if the arm works through 'steps' alone" in straight.sentence
    rare = frame.assign(kind=np.where(frame.index < 12, "odd", "usual"))
    thin = estimate_effect(rare, **ASKED, mediators="kind")
    assert {a.name: a.status for a in thin.assumptions}["overlap"] == "doubtful"
    assert straight.plot().to_dict()["layer"]


@pytest.mark.parametrize(
    ("change", "options", "error", "text"),
    [
        ({}, {"mediators": None}, EstimationError, "needs mediators="),
        ({}, {"mediators": ["step"]}, DataError, "did you mean 'steps'"),
        ({}, {"mediators": ["steps", "steps"]}, EstimationError, "'steps' is named twice"),
        ({}, {"mediators": ["arm"]}, EstimationError, "'arm' is a mediator"),
        ({}, {"confounders": ["steps"]}, EstimationError, "'steps' is a mediator"),
        ({"steps": 1.0}, {}, EstimationError, "mediator 'steps' is constant"),
        ({"steps": lambda f: np.arange(len(f)).astype(str)}, {}, DataError, "has 800 levels"),
        ({"steps": lambda f: (f.arm == "cot") * f.x}, {}, EstimationError, "does not vary under 'direct'"),
        (
            {"steps": lambda f: np.where(f.arm == "cot", f.kind, "none")},
            {},
            EstimationError,
            "level '.*' of mediator",
        ),
        (
            {"x": lambda f: f.steps * 2 + 1},
            {"confounders": ["x"]},
            EstimationError,
            "is determined by the arm",
        ),
        ({"steps": np.nan}, {}, DataError, "missing"),
        ({"y": 2.0}, {}, EstimationError, "outcome 'y' is constant"),
        ({}, {"method": "ipw"}, EstimationError, "method= has no meaning with design='front_door'"),
        ({}, {"estimand": "att"}, EstimationError, "estimand= has no meaning"),
        ({}, {"time": "x"}, EstimationError, "it is of design='rollout'"),
        ({}, {"design": "paired"}, EstimationError, "it is of design='front_door'"),
        ({"user": 1}, {"cluster": "user"}, EstimationError, "has one value"),
    ],
)
def test_bad_input_is_named(change, options, error, text):
    frame = hidden()
    for name, value in change.items():
        frame[name] = value(frame) if callable(value) else value
    with pytest.raises(error, match=text):
        estimate_effect(frame, **{**ASKED, "mediators": ["steps"], **options})
