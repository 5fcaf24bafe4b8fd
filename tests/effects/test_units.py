"""The sampling unit where nobody named it, tables that are paired, and designs drawn by lot."""

import numpy as np
import pandas as pd
import pytest
from effect_verbs import estimate_effects, paired_effect
from scipy import stats

from whyprompt import compare_arms, dose_response, estimate_effect, heterogeneous_effects
from whyprompt.effects.units import find_units
from whyprompt.errors import EstimationError
from whyprompt.tables import open_table

ARM = {"treatment": "arm", "outcome": "y"}


def repeated(n=40, m=25, seed=0, *, spread=1.0):
    """Items that each got one arm by their difficulty, run m times."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=n)
    arm = rng.random(n) < 1 / (1 + np.exp(-hard))
    own = 1.0 * arm + hard + spread * rng.normal(size=n)
    item = np.repeat(np.arange(n), m)
    y = own[item] + rng.normal(size=n * m)
    return pd.DataFrame({"item_id": item, "arm": arm[item].astype(int), "hard": hard[item], "y": y})


def found(frame, covariates=("hard",)):
    unit, _ = find_units(
        open_table(frame), treatment="arm", outcomes=["y"], covariates=[c for c in covariates if c in frame]
    )
    return None if unit is None else unit.name


@pytest.mark.parametrize(
    "method", ["naive", "nearest", "full", "subclass", "cem", "ipw", "overlap", "entropy"]
)
def test_repeated_items_are_the_units_of_every_method_and_are_said_to_be(method):
    frame = repeated()
    options = {**ARM, "confounders": None if method == "naive" else ["hard"], "method": method}
    result = estimate_effect(frame, **options)
    asked = estimate_effect(frame, **options, cluster="item_id")
    assert (result.estimate, result.std_error, result.df) == (asked.estimate, asked.std_error, asked.df)
    assert any(w.startswith("'item_id' repeats (40 in 1000 rows)") for w in result.warnings)
    assert "Rows repeat 'item_id', which the interval allows for." in result.sentence
    assert "Rows repeat" not in asked.sentence
    apart = estimate_effect(frame, **options, cluster="none")
    assert not any("repeats" in w for w in apart.warnings)
    assert apart.std_error < 0.7 * result.std_error
    (said,) = (a for a in result.assumptions if a.name == "independent units")
    assert said.status == "holds"


def test_the_interval_covers_where_rows_repeat_their_items_and_did_not_before():
    covered = {"auto": 0, "none": 0}
    draws = 150
    for seed in range(draws):
        frame = repeated(n=60, m=20, seed=seed)
        for key, cluster in (("auto", None), ("none", "none")):
            r = estimate_effect(frame, **ARM, confounders=["hard"], method="overlap", cluster=cluster)
            covered[key] += r.ci_low <= 1.0 <= r.ci_high
    # Of 150 at 95%, fewer than 132 have a chance below 1 in 1,000.
    assert stats.binom.cdf(131, draws, 0.95) < 1e-3
    assert covered["auto"] >= 132
    assert covered["none"] < 90


@pytest.mark.parametrize(
    "options",
    [
        {"method": "kernel"},
        {"method": "nearest", "replace": True},
        {"method": "nearest", "estimand": "ate"},
        {"method": "nearest", "std_error": "wild_bootstrap", "replace": True},
    ],
)
def test_rows_used_more_than_once_have_an_error_by_cluster(options):
    frame = repeated(m=5)
    result = estimate_effect(frame, **ARM, confounders=["hard"], **options)
    apart = estimate_effect(frame, **ARM, confounders=["hard"], **options, cluster="none")
    assert result.estimate == apart.estimate
    assert 1.05 * apart.std_error < result.std_error < 4 * apart.std_error
    assert "item_id" in result.sentence


def test_units_are_found_by_name_and_by_what_they_determine():
    frame = repeated()
    assert found(frame) == "item_id"
    for name in (
        "question_id",
        "doc_id",
        "sampleId",
        "prompt_id",
        "task_id",
        "user_id",
        "session_id",
        "puzzle",
    ):
        assert found(frame.rename(columns={"item_id": name})) == name
    assert found(frame.assign(cluster=frame.item_id // 2)) == "cluster"
    # Without covariates only a name can say it.
    bare = frame.rename(columns={"item_id": "puzzle"}).drop(columns="hard")
    assert found(bare) is None
    assert found(bare.rename(columns={"puzzle": "question_id"})) == "question_id"


def test_ordinary_columns_are_no_units():
    rng = np.random.default_rng(0)
    n = 1000
    frame = pd.DataFrame(
        {
            "arm": rng.integers(0, 2, n),
            "y": rng.normal(size=n),
            "hard": rng.normal(size=n),
            "task_type": rng.choice([f"task-{k}" for k in range(27)], n),
            "task_id": rng.choice([f"task-{k}" for k in range(27)], n),
            "difficulty": rng.integers(1, 6, n),
            "model": rng.choice(["a", "b", "c"], n),
            "day": rng.integers(1, 30, n),
            "seed": np.arange(n) % 20,
            "item_id": np.arange(n),
            "cluster": 1,
        }
    )
    for covariates in (
        ["hard"],
        ["hard", "task_type"],
        ["difficulty"],
        ["task_type"],
        ["task_type", "difficulty"],
    ):
        assert found(frame, covariates) is None
    # A family of tasks is a property of the task, and the task no unit for that.
    frame["family"] = frame.task_type.str[-1]
    assert found(frame.drop(columns="task_id"), ["family"]) is None
    # Another spelling of a category that is adjusted for is none.
    coded = frame.assign(code=frame.task_type.str[5:].astype(int))
    assert found(coded, ["task_type"]) is None
    assert found(coded.drop(columns="task_id"), ["code"]) is None
    # A column that is adjusted for is no unit, whatever its name.
    assert found(frame.assign(question_id=frame.task_type), ["question_id"]) is None


def test_columns_of_any_kind_do_not_disturb_the_search():
    frame = repeated(m=5)
    n = len(frame)
    odd = frame.rename(columns={"item_id": "no"}).assign(
        messages=[[{"role": "user"}, {"role": "model"}]] * n,
        meta=[{"k": k} for k in range(n)],
        gone=[None] * n,
        part=[1.0, np.nan] * (n // 2),
        day=pd.Timestamp("2026-01-01"),
        flag=[True, False] * (n // 2),
        question_id=[None, "a"] * (n // 2),
    )
    result = estimate_effect(odd, **ARM, confounders=["hard"], method="overlap")
    assert result.settings["cluster"] == "no"
    polars = pytest.importorskip("polars")
    same = estimate_effect(
        polars.from_pandas(odd.drop(columns=["messages", "meta"])),
        **ARM,
        confounders=["hard"],
        method="overlap",
    )
    assert same.std_error == result.std_error
    with pytest.raises(EstimationError, match="'messages' cannot be a confounder"):
        estimate_effect(odd, **ARM, confounders=["hard", "messages"])


def test_every_estimator_takes_the_units():
    frame = repeated(n=200, m=5).assign(z=lambda d: d.y * 2)
    named = {"cluster": "item_id"}
    several = estimate_effects(
        frame, treatment="arm", outcomes=["y", "z"], confounders=["hard"], method="ipw"
    )
    asked = estimate_effects(
        frame, treatment="arm", outcomes=["y", "z"], confounders=["hard"], method="ipw", **named
    )
    assert several.parts == asked.parts
    arms = compare_arms(frame, **ARM, confounders=["hard"])
    assert arms.parts == compare_arms(frame, **ARM, confounders=["hard"], **named).parts
    assert any("'item_id' repeats" in w for w in arms.warnings)
    assert "Rows repeat 'item_id'" in arms.sentence
    dose = {"treatment": "hard", "outcome": "y", "design": "randomized"}
    curve = dose_response(frame, **dose)
    assert curve.std_error == dose_response(frame, **dose, **named).std_error
    assert curve.std_error > 1.5 * dose_response(frame, **dose, cluster="none").std_error
    found = heterogeneous_effects(frame, **ARM, confounders=["hard"])
    assert found.parts == heterogeneous_effects(frame, **ARM, confounders=["hard"], **named).parts
    assert any("'item_id' repeats" in w for w in found.warnings)


# ------------------------------------------------------------------------------------- paired tables


def both_arms(n=100, seed=0, *, repeats=1):
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=n)
    item = np.repeat(np.arange(n), 2 * repeats)
    arm = np.tile([0, 1], n * repeats)
    y = 0.3 * arm + 2 * hard[item] + rng.normal(size=len(item))
    return pd.DataFrame({"item_id": item, "arm": arm, "hard": hard[item], "y": y})


def test_a_table_that_holds_both_arms_of_every_item_says_so():
    frame = both_arms()
    result = estimate_effect(frame, **ARM, method="naive")
    (note,) = (w for w in result.warnings if "paired" in w)
    assert note.startswith("every 'item_id' was run under both arms: a paired analysis (design='paired'")
    assert "(design='paired', unit='item_id')" in note
    # It does not advise what was done already.
    assert "running both arms on the same items" not in result.sentence
    assert "Both arms were run on the same 'item_id': compare each with itself." in result.sentence
    # A trial that failed here and there changes nothing; half of them does.
    partly = estimate_effect(frame.drop(index=[1, 21]), **ARM, method="naive")
    assert any(w.startswith("98 of 100 'item_id' was run under both arms") for w in partly.warnings)
    half = frame[(frame.arm == 0) | (frame.item_id % 2 == 0)]
    assert not any("paired" in w for w in estimate_effect(half, **ARM, method="naive").warnings)
    users = frame.rename(columns={"item_id": "user_id"})
    assert not any("paired" in w for w in estimate_effect(users, **ARM, method="naive").warnings)
    asked = estimate_effect(frame, **ARM, method="naive", cluster="none")
    assert not any("paired" in w for w in asked.warnings)


def test_every_arm_on_every_item_is_compared_as_t_tests_of_differences_would():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=60)
    frame = pd.concat(
        pd.DataFrame({"item_id": np.arange(60), "arm": a, "y": 3 * hard + k / 4 + rng.normal(size=60)})
        for k, a in enumerate("abcd")
    )
    result = compare_arms(frame, **ARM, design="paired")
    for (arm, reference), row in zip(result.pairs, result.parts, strict=True):
        one = paired_effect(frame, outcome="y", treated=arm, control=reference)
        assert row.estimate == pytest.approx(one.estimate, abs=1e-12)
        assert row.std_error == pytest.approx(one.std_error, rel=1e-9)
    assert "Each item was run under every arm, so these are effects" in result.sentence
    assert {a.name: a.status for a in result.assumptions}["exchangeability"] == "holds"
    loose = compare_arms(frame, **ARM, method="naive")
    assert any("were run under every arm: design='paired'" in w for w in loose.warnings)
    with pytest.raises(EstimationError, match="item_id '0' has 0 row\\(s\\) under 'a', where others have 1"):
        compare_arms(frame.iloc[1:], **ARM, design="paired")
    with pytest.raises(EstimationError, match="nothing is adjusted for"):
        compare_arms(frame.assign(x=1.0), **ARM, design="paired", confounders=["x"])
    with pytest.raises(EstimationError, match="needs the column with the item"):
        compare_arms(frame.drop(columns="item_id"), **ARM, design="paired")
    named = compare_arms(frame.rename(columns={"item_id": "q"}), **ARM, design="paired", unit="q")
    assert named.parts == result.parts
    with pytest.raises(EstimationError, match="cluster= has no meaning with design='paired'"):
        compare_arms(frame, **ARM, design="paired", cluster="item_id")
    with pytest.raises(EstimationError, match="unit= has no meaning in the design 'observational'"):
        compare_arms(frame, **ARM, method="naive", unit="item_id")


# ------------------------------------------------------------------------------ designs drawn by lot


def lot(n=200, seed=0, *, slope=2.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    arm = rng.permutation(np.arange(n) < n // 2).astype(int)
    y = 1.0 * arm + slope * x.sum(axis=1) + rng.normal(size=n)
    return pd.DataFrame({"arm": arm, "y": y, "a": x[:, 0], "b": x[:, 1]})


def test_a_randomised_table_without_confounders_is_a_difference_of_means():
    frame = lot()
    result = estimate_effect(frame, **ARM, design="randomized")
    welch = stats.ttest_ind(frame.y[frame.arm == 1], frame.y[frame.arm == 0], equal_var=False)
    assert (result.method, result.estimand) == ("naive", "ate")
    assert result.p_value == pytest.approx(welch.pvalue)
    assert result.df == pytest.approx(welch.df)
    assert result.warnings == ()
    assert "by difference of means, since the arms were randomised" in result.sentence
    arms = compare_arms(frame, **ARM, design="randomized")
    assert arms.parts[0].std_error == pytest.approx(result.std_error)
    assert arms.warnings == ()
    curve = dose_response(frame, treatment="a", outcome="y", design="randomized")
    assert curve.method == "naive"
    assert "nothing was adjusted for" not in curve.warnings


def test_a_randomised_table_with_confounders_is_adjusted_over_all_rows_and_gains_what_regression_gains():
    result = estimate_effect(lot(), **ARM, confounders=["a", "b"], design="randomized")
    assert (result.method, result.estimand) == ("aipw", "ate")
    # The lot is known: half of the rows.
    assert set(result.propensity) == {0.5}
    assert result.settings["distance"] == "known propensity"
    assert (result.n_treated_used, result.n_control_used) == (100, 100)
    assert "the average effect over all rows" in result.sentence
    draws = 300
    # One deal of the folds, for time; the lot's share is that of the default.
    quick = {"confounders": ["a", "b"], "design": "randomized", "estimand": "ate", "propensity": "p"}
    quick["method"] = {"aipw": {"splits": 1, "outcome_model": "linear"}}
    found = [estimate_effect(lot(seed=s).assign(p=0.5), **ARM, **quick) for s in range(draws)]
    values = np.array([r.estimate for r in found])
    # Noise of variance 1 is left in each of 2 x 100 rows, less two covariates' chance imbalance.
    closed = np.sqrt(4 / 200)
    spread = values.std(ddof=1)
    assert abs(values.mean() - 1.0) < 4 * closed / np.sqrt(draws)
    # A standard deviation of 300 draws is known to 4%.
    assert 0.88 * closed < spread < 1.2 * closed
    assert np.mean([r.std_error for r in found]) == pytest.approx(spread, rel=0.15)
    covered = sum(r.ci_low <= 1.0 <= r.ci_high for r in found)
    assert 0.91 * draws <= covered <= 0.985 * draws
    # Unadjusted, the covariates' own variance of 8 would be in it.
    assert result.std_error < 0.4 * estimate_effect(lot(), **ARM, design="randomized").std_error


def test_what_is_named_is_done_and_a_known_lot_is_weighted_by():
    frame = lot().assign(p=0.5)
    assert (
        estimate_effect(frame, **ARM, confounders=["a"], design="randomized", method="nearest").method
        == "nearest"
    )
    known = estimate_effect(frame, **ARM, design="randomized", propensity="p")
    assert (known.method, known.estimand) == ("aipw", "ate")
    observed = estimate_effect(frame, **ARM, confounders=["a"])
    assert (observed.method, observed.estimand) == ("aipw", "att")
    assert (
        estimate_effect(frame, **ARM, confounders=["a"], design="randomized", estimand="att").estimand
        == "att"
    )
