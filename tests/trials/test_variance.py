import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from whyprompt.errors import DataError
from whyprompt.trials import rep_variance


def table(values, arm="direct"):
    items, reps = values.shape
    return pd.DataFrame(
        {
            "item_id": np.repeat([f"i{k}" for k in range(items)], reps),
            "arm": arm,
            "rep": np.tile(np.arange(reps), items),
            "y": values.ravel(),
        }
    )


def test_against_the_analysis_of_variance_of_statsmodels():
    rng = np.random.default_rng(0)
    frame = table(rng.normal(size=(9, 1)) + 0.7 * rng.normal(size=(9, 4)))
    anova = anova_lm(ols("y ~ C(item_id)", frame).fit())
    mean_squares = anova["sum_sq"] / anova["df"]
    (found,) = rep_variance(frame.sample(frac=1, random_state=1), "y")
    assert found.within == pytest.approx(mean_squares["Residual"])
    assert found.between == pytest.approx((mean_squares["C(item_id)"] - mean_squares["Residual"]) / 4)
    assert found.mean == pytest.approx(frame["y"].mean())
    assert found.rep_means == pytest.approx(tuple(frame.groupby("rep")["y"].mean()))
    assert found.rep_mean_sd == pytest.approx(frame.groupby("rep")["y"].mean().std(ddof=1))


def test_a_known_truth_is_found():
    # Between 4, within 0.25: the mean of 300 estimates is within four of its standard errors.
    rng = np.random.default_rng(1)
    found = [
        rep_variance(table(2 * rng.normal(size=(20, 1)) + 0.5 * rng.normal(size=(20, 3))), "y")[0]
        for _ in range(300)
    ]
    for name, truth in (("within", 0.25), ("between", 4.0)):
        values = np.array([getattr(f, name) for f in found])
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(300)


def test_arms_stand_apart_in_the_tables_order():
    a, b = np.ones((3, 2)), np.arange(6.0).reshape(3, 2)
    frame = pd.concat([table(b, "few_shot"), table(a, "direct")])
    few, direct = rep_variance(frame, "y")
    assert (few.arm, direct.arm) == ("few_shot", "direct")
    assert (direct.within, direct.between, direct.rep_mean_sd) == (0, 0, 0)
    assert few.within == pytest.approx(0.5)
    assert few.rep_mean_sd == pytest.approx(np.sqrt(0.5))


def test_between_is_never_negative():
    frame = table(np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert rep_variance(frame, "y")[0].between == 0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: f.drop(columns="y"), "no column 'y'"),
        (lambda f: f[f["rep"] == 0], r"3 item\(s\) in 1 repetition\(s\)"),
        (lambda f: f[f["item_id"] == "i0"], r"1 item\(s\) in 2 repetition\(s\)"),
        (lambda f: f.iloc[1:], "'y' is missing for an item in some repetition"),
        (lambda f: f.assign(y=[np.nan, *f["y"][1:]]), "'y' is missing for an item in some repetition"),
        (lambda f: pd.concat([f, f.iloc[:1]]), "an item occurs twice in one repetition"),
    ],
)
def test_tables_that_have_no_such_variance(change, match):
    with pytest.raises(DataError, match=match):
        rep_variance(change(table(np.arange(6.0).reshape(3, 2))), "y")
