"""A method is its options: one object from a name, a mapping or its class, and no option without meaning."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from whyprompt import audit, estimate_effect, one_draw, specification_curve
from whyprompt.effects import AIPW, IPW, METHODS, Entropy, Nearest, Overlap, make_method
from whyprompt.effects.estimate import estimated
from whyprompt.effects.methods.make import options_of
from whyprompt.errors import EstimationError


def table(n=300):
    rng = np.random.default_rng(0)
    hard = rng.normal(size=n)
    arm = rng.random(n) < 1 / (1 + np.exp(0.5 - 0.7 * hard))
    frame = pd.DataFrame({"arm": arm.astype(int), "hard": hard, "kind": rng.choice(["a", "b"], n)})
    return frame.assign(y=arm - hard + rng.normal(size=n))


def effect(**options):
    return estimate_effect(table(), treatment="arm", outcome="y", confounders=["hard"], **options)


def test_a_name_a_mapping_and_an_object_are_one_method():
    made = Nearest(caliper=0.2, replace=True)
    assert make_method("nearest", caliper=0.2, replace=True) == made
    assert make_method({"nearest": {"caliper": 0.2, "replace": True}}) == made
    assert make_method({"nearest": {"caliper": 0.2}}, replace=True) == made
    assert make_method({"nearest": None}) == Nearest()
    assert make_method(made) is made
    results = [
        effect(method="nearest", caliper=0.2, replace=True),
        effect(method=made),
        effect(method={"nearest": {"caliper": 0.2, "replace": True}}),
    ]
    assert results[0].to_dict() == results[1].to_dict() == results[2].to_dict()
    assert results[0].settings["caliper"] == 0.2


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_frozen_dataclass_of_its_options(name):
    made = make_method(name)
    assert made.name == name
    assert made.asked == {}
    assert type(made).__dataclass_params__.frozen
    assert [f.name for f in dataclasses.fields(made)] == list(options_of(name))
    documented = type(made).__doc__
    assert all(option in documented for option in options_of(name))


def test_both_entrances_take_the_same():
    one, other = (inspect.signature(f).parameters for f in (estimate_effect, estimated))
    # A roll-out alone does without a treatment.
    apart = {"levels", "draws", "treatment"}
    shared = [{k: p.default for k, p in f.items() if k not in apart} for f in (one, other)]
    assert shared[0] == shared[1]
    # Levels and several outcomes are settled before; how many draws there are depends on what is drawn.
    assert set(one) - set(other) == {"levels"}
    assert len(one) <= 21


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("caliper", 0.2),
        ("covariate_calipers", {"hard": 1.0}),
        ("replace", False),
        ("ratio", 1),
        ("exact", ["kind"]),
        ("regression_adjustment", False),
        ("metric", "sample"),
        ("order", "random"),
        ("ties", "average"),
        ("tie_break", "id"),
        ("distance", "logit"),
        ("mahalanobis_on", ["hard"]),
        ("discard", "crump"),
        ("neighbours", 2),
        ("kernel", "gaussian"),
        ("bandwidth", 0.1),
        ("n_strata", 5),
        ("one_sided", "merge"),
        ("cutpoints", {"hard": 4}),
        ("stabilised", True),
        ("truncate", 0.9),
        ("targets", "fixed"),
        ("folds", 2),
        ("splits", 1),
        ("clip", 0.1),
        ("outcome_model", LinearRegression()),
    ],
)
def test_an_option_that_a_method_has_not_is_refused_with_those_that_have_it(name, option, value):
    having = [m for m in METHODS if option in options_of(m)]
    assert having
    if name in having:
        also = {"replace": True} if option == "ties" else {}
        also |= {"distance": "mahalanobis"} if option == "mahalanobis_on" else {}
        assert make_method(name, **{option: value}, **also).asked.keys() <= {option, *also}
        return
    with pytest.raises(EstimationError, match=f"no meaning for method '{name}'") as refused:
        make_method(name, **{option: value})
    if option != "discard":
        assert set(having) == set(refused.value.hint.removeprefix("use ").replace(" or ", ", ").split(", "))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_method("psm"), "method 'psm' is not known"),
        (lambda: make_method({"nearest": {}, "ipw": {}}), "is not known"),
        (lambda: make_method({"nearest": {"caliper": 0.1}}, caliper=0.2), "'caliper' is given twice"),
        (lambda: make_method(Nearest(), caliper=0.2), "caliper is given beside a method"),
        (lambda: make_method("nearest", calliper=0.2), "option 'calliper' is not known"),
        (lambda: Nearest(ratio=0), "ratio=0"),
        (lambda: Nearest(order="up"), "order 'up'"),
        (lambda: Nearest(exact="kind"), "exact is the text 'kind'"),
        (lambda: Nearest(mahalanobis_on=["a"]), "names what the Mahalanobis distance is over"),
        (lambda: IPW(truncate=0.2), "truncate=0.2"),
        (lambda: Overlap(discard="both"), "is for matching methods"),
        (lambda: IPW(discard=0.6), "discard=0.6"),
        (lambda: Entropy(targets="guess"), "targets='guess'"),
        (lambda: AIPW(folds=0), "folds=0"),
        (lambda: AIPW(clip=0.5), "clip=0.5"),
        (lambda: effect(method="naive", std_error="pairs"), "does not go with method 'naive'"),
        (lambda: effect(method="overlap", estimand="att"), "does not estimate 'att'"),
        (lambda: effect(method="entropy", propensity=LogisticRegression()), "no propensity score"),
    ],
)
def test_what_is_wrong_is_said_where_the_method_is_made(call, message):
    with pytest.raises(EstimationError, match=message):
        call()


def test_options_of_weights_reach_the_estimate():
    textbook = {"outcome_model": "linear", "splits": 2}
    asked = {"estimand": "ate", "propensity": "logit"}
    plain = effect(method=AIPW(**textbook), **asked)
    for options in (
        {"folds": 2},
        {"splits": 1},
        {"clip": 0.4},
        {"outcome_model": LinearRegression(fit_intercept=False)},
    ):
        assert effect(method=AIPW(**textbook | options), **asked).estimate != plain.estimate
    told = effect(method="aipw", folds=2, splits=1, outcome_model=LinearRegression()).settings
    assert (told["folds"], told["outcome_model"]) == (2, "LinearRegression")
    same = effect(method="aipw", splits=2, outcome_model=LinearRegression(), **asked)
    assert same.estimate == pytest.approx(plain.estimate, rel=1e-9)
    fixed, estimated_targets = (effect(method="entropy", targets=t) for t in ("fixed", "estimated"))
    assert fixed.estimate == estimated_targets.estimate
    assert fixed.std_error != estimated_targets.std_error
    assert effect(method="ipw", truncate=0.8).estimate != effect(method="ipw").estimate
    stable = effect(method="ipw", estimand="ate", stabilised=True)
    assert stable.estimate == pytest.approx(effect(method="ipw", estimand="ate").estimate, rel=1e-12)
    trimmed = effect(method="overlap", discard=0.3)
    assert trimmed.settings["n_discarded"] == int((trimmed.weights == 0).sum()) > 0


def test_a_classifier_gives_the_score_of_every_method_that_has_one():
    quick = {"aipw": {"splits": 1, "outcome_model": "linear"}}
    for method in ("nearest", "kernel", "ipw", quick):
        found = effect(method=method, propensity=LogisticRegression(C=0.1))
        assert found.settings["distance"] == "LogisticRegression"
        assert found.estimate != effect(method=method, propensity="logit").estimate
    logit = effect(method="nearest", distance="logit", propensity=LogisticRegression(C=0.1))
    assert logit.propensity.max() < 1


def test_a_method_is_written_as_the_command_line_has_it():
    assert str(Nearest(caliper=0.2, exact=["kind"])) == "nearest:caliper=0.2,exact=['kind']"
    assert str(AIPW(outcome_model=LinearRegression())) == "aipw:outcome_model=LinearRegression"
    assert str(make_method("naive")) == "naive"


def both_arms(n=120):
    rng = np.random.default_rng(3)
    hard = rng.normal(size=n)
    y = np.column_stack([-hard, 1 - hard]) + rng.normal(0, 0.5, (n, 2))
    return pd.DataFrame(
        {
            "item_id": np.repeat(np.arange(n), 2),
            "arm": ["a", "b"] * n,
            "hard": np.repeat(hard, 2),
            "y": y.ravel(),
        }
    )


def test_an_audit_takes_methods_with_their_options():
    shared = {"outcome": "y", "treated": "b", "control": "a", "confounders": ["hard"], "rule": {"hard": 1.0}}
    named = audit(both_arms(), **shared, draws=5, methods=["nearest", "ipw"], caliper=0.5)
    made = audit(both_arms(), **shared, draws=5, methods=[Nearest(caliper=0.5), {"ipw": {"truncate": 0.9}}])
    assert [row.label for row in named.parts] == ["nearest", "ipw"]
    assert [row.label for row in made.parts] == ["nearest:caliper=0.5", "ipw:truncate=0.9"]
    assert made.parts[0].estimate == named.parts[0].estimate
    assert made.parts[1].estimate != named.parts[1].estimate
    drawn = one_draw(both_arms(), **shared, method=Nearest(caliper=0.5))
    assert drawn.adjusted.settings["caliper"] == 0.5
    assert "and nearest gives" in drawn.sentence
    with pytest.raises(EstimationError, match="does not look at the exact of a method"):
        audit(both_arms(), **shared, draws=5, methods=[Nearest(exact=["hard"])])


def test_a_specification_curve_takes_methods_with_their_options():
    curve = specification_curve(
        table(),
        treatment="arm",
        outcome="y",
        confounders=["hard"],
        grid={
            "method": [Nearest(caliper=0.1), Nearest(caliper=0.5), {"overlap": {}}, "ipw"],
            "caliper": [None, 0.2],
        },
    )
    labels = {row["choices"]["method"] for row in curve.parts}
    assert labels == {"nearest:caliper=0.1", "nearest:caliper=0.5", "overlap", "ipw"}
    assert len(curve.parts) == 4
    assert {row["choices"]["caliper"] for row in curve.parts} == {"none"}
