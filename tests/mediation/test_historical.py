import numpy as np
import pandas as pd
import pytest

from whyprompt import mediate
from whyprompt.errors import DataError
from whyprompt.mediation import baron_kenny

NAMES = {"treatment": "t", "mediator": "m", "outcome": "y", "confounders": ["c"]}


def world(a=0.7, b=0.8, direct=0.5, interaction=0.0, n=400, seed=0):
    rng = np.random.default_rng(seed)
    t, c = rng.integers(0, 2, n).astype(float), rng.normal(size=n)
    m = a * t + 0.3 * c + rng.normal(size=n)
    y = direct * t + b * m + interaction * t * m + 0.2 * c + rng.normal(size=n)
    return pd.DataFrame({"t": t, "m": m, "y": y, "c": c})


def test_every_step_equals_statsmodels():
    import statsmodels.formula.api as smf

    frame = world()
    got = baron_kenny(frame, **NAMES).to_frame().set_index("label")
    total = smf.ols("y ~ t + c", frame).fit()
    first = smf.ols("m ~ t + c", frame).fit()
    full = smf.ols("y ~ t + c + m", frame).fit()
    for step, model, name in (
        ("total", total, "t"),
        ("first_stage", first, "t"),
        ("second_stage", full, "m"),
        ("direct", full, "t"),
    ):
        want = [model.params[name], model.bse[name], model.pvalues[name], *model.conf_int().loc[name]]
        columns = ["estimate", "std_error", "p_value", "ci_low", "ci_high"]
        np.testing.assert_allclose(got.loc[step, columns].to_numpy(float), want, rtol=1e-9)
    # The total splits exactly into the direct slope and the product, in linear models.
    np.testing.assert_allclose(got.estimate["total"], got.estimate["direct"] + got.estimate["product"])


def test_sobel_is_the_delta_method():
    got = baron_kenny(world(), **NAMES)
    a, b, product = (got.part(name) for name in ("first_stage", "second_stage", "product"))
    gradient, cov = np.array([b.estimate, a.estimate]), np.diag([a.std_error**2, b.std_error**2])
    np.testing.assert_allclose(product.std_error, np.sqrt(gradient @ cov @ gradient))
    quasi = mediate(world(), **NAMES, draws=4000).part("acme")
    np.testing.assert_allclose(product.std_error, quasi.std_error, rtol=0.06)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [({"direct": 0.0}, "full"), ({"direct": 0.6}, "partial"), ({"a": 0.0}, "none"), ({"b": 0.0}, "none")],
)
def test_verdicts(changes, verdict):
    got = baron_kenny(world(n=2000, **changes), **NAMES)
    assert got["verdict"] == verdict
    shown = {
        "full": "conclude full mediation of the effect of t on y through m",
        "partial": "conclude partial mediation of the effect of t on y through m",
        "none": "show no mediation of the effect of t on y through m, since at level 0.05 they see no",
    }
    assert shown[verdict] in got.sentence
    assert "none mediation" not in got.sentence


def test_the_step_that_is_not_passed_is_named():
    got = baron_kenny(world(n=2000, a=0.0), **NAMES)
    assert "see no effect of t on m (step 2);" in got.sentence
    got = baron_kenny(world(n=2000, b=0.0, direct=0.0), **NAMES)
    assert "see no effect of t on y (step 1) and no slope of y on m (step 3);" in got.sentence


def test_what_it_misses():
    # Opposite paths: no total effect, so step 1 fails, and yet the mediated effect is large.
    frame = world(a=1.0, b=0.8, direct=-0.8, n=4000)
    assert baron_kenny(frame, **NAMES)["verdict"] == "none"
    assert mediate(frame, **NAMES, draws=200).part("acme").ci_low > 0.5
    # Under interaction its product is neither arm's effect.
    frame = world(a=1.0, b=0.0, interaction=1.0, direct=1.0, n=4000)
    product = baron_kenny(frame, **NAMES).part("product").estimate
    found = mediate(frame, **NAMES, interaction=True, draws=200)
    assert found.part("acme_control").ci_high < product < found.part("acme_treated").ci_low


def test_bad_input_is_named():
    frame = world(n=50)
    frame["text"] = np.where(frame["t"] > 0, "a", "b")
    with pytest.raises(DataError, match="'text' is categorical"):
        baron_kenny(frame, **NAMES | {"treatment": "text"})
    with pytest.raises(DataError, match="mediator column 'gone' is not in the table"):
        baron_kenny(frame, **NAMES | {"mediator": "gone"})
    with pytest.raises(DataError, match="'one' is constant"):
        baron_kenny(frame.assign(one=1.0), **NAMES | {"outcome": "one"})
    with pytest.raises(DataError, match="is mediator and confounder"):
        baron_kenny(frame, **NAMES | {"confounders": [NAMES["mediator"]]})
